/** Generators for the laws of ChangeSets: hostile values, every kind of table, states that share keys. */
import fc from "./fast-check.js";
import { stateOf, type State, type TableRows } from "../../src/changeset/apply.js";
import {
  keyOf,
  type Change,
  type ChangeSet,
  type Column,
  type Origin,
  type TableShape,
} from "../../src/changeset/change.js";
import { diff } from "../../src/changeset/diff.js";
import { keyText } from "../../src/changeset/key.js";
import { changeSet } from "../../src/changeset/source.js";
import type { Row, Value } from "../../src/changeset/value.js";

/** How often a law is tried; CI may ask for thousands. */
export const LAW_RUNS = Number(process.env["LAW_RUNS"] ?? 200);

/** Values that other tools lose: each of them is another value than all others. */
export const HOSTILE_VALUES: readonly Value[] = [
  null,
  "",
  new Uint8Array(0),
  0n,
  0,
  -0,
  1n,
  1,
  -1n,
  -1,
  2n ** 53n + 1n,
  2n ** 63n - 1n,
  -(2n ** 63n),
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  Number.MIN_VALUE,
  Number.MAX_VALUE,
  "1",
  "a",
  "a\0",
  "a\0b",
  "\uFEFFmark",
  "\uFFFD",
  "\uE000",
  "\u{1F600}",
  "ÿ",
  Uint8Array.of(0),
  Uint8Array.of(0, 0xff),
  Uint8Array.of(0xff),
  Uint8Array.of(0x61),
  { kind: "raw-text", bytes: Uint8Array.of(0xff) },
  { kind: "raw-text", bytes: Uint8Array.of(0x61, 0x00, 0xc0) },
  { kind: "raw-text", bytes: Uint8Array.of(0xed, 0xa0, 0x80) },
];

/** Any value that can be held exactly. */
export const valueArbitrary: fc.Arbitrary<Value> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...HOSTILE_VALUES) },
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.double(),
  fc.string({ unit: "binary", maxLength: 12 }),
  fc.uint8Array({ maxLength: 12 }).map((bytes) => Uint8Array.from(bytes)),
  fc
    .uint8Array({ maxLength: 6 })
    .map((bytes): Value => ({ kind: "raw-text", bytes: Uint8Array.of(0xff, ...bytes) })),
);

const columnArbitrary: fc.Arbitrary<Column> = fc.record(
  {
    name: fc.oneof(
      fc.constantFrom("id", "status", "no te", 'qu"ote', "ÿ"),
      fc.string({ unit: "binary", maxLength: 6 }),
    ),
    type: fc.constantFrom("", "INTEGER", "TEXT", "numeric(10,2)"),
    generated: fc.constant<true>(true),
  },
  { requiredKeys: ["name", "type"] },
);

/** A table of one to five columns, with a key of some of them or without one. */
export function shapeArbitrary(name: string): fc.Arbitrary<TableShape> {
  return fc
    .uniqueArray(columnArbitrary, { minLength: 1, maxLength: 5, selector: (c) => c.name })
    .chain((columns) => {
      const all = columns.map((_, i) => i);
      const keyed = fc
        .shuffledSubarray(all, { minLength: 1 })
        .map((key): TableShape => ({ name, columns, keyKind: "primary", key }));
      return fc.oneof(
        { weight: 3, arbitrary: keyed },
        fc.constant<TableShape>({ name, columns, keyKind: "none", key: all }),
      );
    });
}

/** Rows of a table; few different values, so that two draws share keys. */
function rowsArbitrary(shape: TableShape, pool: readonly Value[]): fc.Arbitrary<readonly Row[]> {
  const row = fc.tuple(...shape.columns.map(() => fc.constantFrom(...pool)));
  return shape.keyKind === "none"
    ? fc.array(row, { maxLength: 6 })
    : fc.uniqueArray(row, { maxLength: 6, selector: (r) => keyText(keyOf(shape, r)) });
}

/** So many states of the same tables. */
export function statesArbitrary(count: number): fc.Arbitrary<readonly State[]> {
  const names = fc.uniqueArray(fc.constantFrom("orders", "holds", "no te", "\u{1F600}", "\uE000"), {
    minLength: 1,
    maxLength: 3,
  });
  const tables = names.chain((list) => fc.tuple(...list.map(shapeArbitrary)));
  const pools = fc.array(valueArbitrary, { minLength: 2, maxLength: 4 });
  return fc.tuple(tables, pools).chain(([shapes, pool]) => {
    const table = (shape: TableShape): fc.Arbitrary<TableRows> =>
      rowsArbitrary(shape, pool).map((rows) => ({ shape, rows }));
    const state = fc.tuple(...shapes.map(table)).map(stateOf);
    return fc.array(state, { minLength: count, maxLength: count });
  });
}

/** Two states and the ChangeSet between them, with origins and links. */
export const stepArbitrary: fc.Arbitrary<{
  readonly before: State;
  readonly now: State;
  readonly cs: ChangeSet;
}> = fc
  .tuple(
    statesArbitrary(2),
    fc.infiniteStream(fc.constantFrom<Origin>("unknown", "job", "cascade", "trigger")),
  )
  .map(([states, origins]) => {
    const [before = new Map(), now = new Map()] = states;
    const plain = diff(before, now);
    const marked = plain.changes.map((c): Change => ({ ...c, origin: origins.next().value ?? "unknown" }));
    return { before, now, cs: changeSet(plain.tables, linked(plain.tables, marked)) };
  });

/** Any ChangeSet in canonical form. */
export const changeSetArbitrary: fc.Arbitrary<ChangeSet> = stepArbitrary.map((s) => s.cs);

/** Links the first delete and the first insert of each table that has a key. */
function linked(tables: readonly TableShape[], changes: readonly Change[]): readonly Change[] {
  const result = [...changes];
  for (const { name, keyKind } of tables) {
    const [d, i] = (["delete", "insert"] as const).map((op) =>
      result.findIndex((c) => c.table === name && c.op === op),
    );
    const [deleted, inserted] = [result[d ?? -1], result[i ?? -1]];
    if (keyKind === "none" || deleted === undefined || inserted === undefined) continue;
    result[d ?? -1] = { ...deleted, link: inserted.key };
    result[i ?? -1] = { ...inserted, link: deleted.key };
  }
  return result;
}
