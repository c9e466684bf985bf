/** Two captures of one job held against each other: a table of cases, and the laws over generated changes. */
import { expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { collect, sourceOf } from "../../src/changeset/source.js";
import { compose } from "../../src/changeset/compose.js";
import type { Change, TableShape } from "../../src/changeset/change.js";
import { partings } from "../../src/changeset/same-effect.js";
import type { Row } from "../../src/changeset/value.js";

const SHAPE: TableShape = {
  name: "t",
  columns: [
    { name: "id", type: "INTEGER" },
    { name: "said", type: "TEXT" },
    { name: "dice", type: "INTEGER" },
  ],
  keyKind: "primary",
  key: [0],
};
const row = (id: bigint, said: string | null, dice: bigint | number | null): Row => [id, said, dice];
const insert = (after: Row, more: Partial<Change> = {}): Change =>
  ({ table: "t", key: [after[0] ?? null], origin: "job", op: "insert", after, ...more }) as Change;
const remove = (before: Row): Change => ({
  table: "t",
  key: [before[0] ?? null],
  origin: "job",
  op: "delete",
  before,
});
const update = (before: Row, after: Row): Change => ({
  table: "t",
  key: [before[0] ?? null],
  origin: "job",
  op: "update",
  before,
  after,
});
const kinds = (
  signed: readonly Change[],
  found: readonly Change[],
  volatile: readonly string[] = [],
): string[] => [...partings(SHAPE, signed, found, new Set(volatile))].map((p) => p.kind);

test.each<[string, Change[], Change[], string[], string[]]>([
  ["the same", [insert(row(1n, "a", 1n))], [insert(row(1n, "a", 1n))], [], []],
  ["another origin", [insert(row(1n, "a", 1n))], [insert(row(1n, "a", 1n), { origin: "unknown" })], [], []],
  ["a row more", [], [insert(row(1n, "a", 1n))], [], ["differs"]],
  ["a row less", [remove(row(1n, "a", 1n))], [], [], ["differs"]],
  ["another key", [insert(row(1n, "a", 1n))], [insert(row(2n, "a", 1n))], [], ["differs", "differs"]],
  ["another operation", [remove(row(1n, "a", 1n))], [insert(row(1n, "a", 1n))], [], ["differs"]],
  ["another value", [insert(row(1n, "a", 1n))], [insert(row(1n, "b", 1n))], [], ["differs"]],
  ["another type of the same number", [insert(row(1n, "a", 1n))], [insert(row(1n, "a", 1))], [], ["differs"]],
  [
    "another before",
    [update(row(1n, "a", 1n), row(1n, "c", 1n))],
    [update(row(1n, "b", 1n), row(1n, "c", 1n))],
    ["said"],
    ["differs"],
  ],
  [
    "another value that may differ",
    [insert(row(1n, "a", 1n))],
    [insert(row(1n, "a", 7n))],
    ["dice"],
    ["settle"],
  ],
  [
    "one that may and one that may not",
    [insert(row(1n, "a", 1n))],
    [insert(row(1n, "b", 7n))],
    ["dice"],
    ["differs"],
  ],
  [
    "NULL where a number may differ",
    [insert(row(1n, "a", 1n))],
    [insert(row(1n, "a", null))],
    ["dice"],
    ["differs"],
  ],
  [
    "a real where an integer may differ",
    [insert(row(1n, "a", 1n))],
    [insert(row(1n, "a", 1.5))],
    ["dice"],
    ["differs"],
  ],
  [
    "other keys, which may differ",
    [insert(row(1n, "a", 1n)), insert(row(2n, "b", 1n))],
    [insert(row(7n, "a", 1n)), insert(row(8n, "b", 1n))],
    ["id"],
    ["settle", "settle"],
  ],
  [
    "other keys that may differ, of other rows",
    [insert(row(1n, "a", 1n)), insert(row(2n, "b", 1n))],
    [insert(row(7n, "b", 1n)), insert(row(8n, "a", 1n))],
    ["id"],
    ["differs", "differs"],
  ],
  [
    "a key that both gave out, to different rows",
    [insert(row(1n, "a", 1n)), insert(row(2n, "b", 1n))],
    [insert(row(2n, "a", 1n)), insert(row(3n, "b", 1n))],
    ["id"],
    ["settle", "differs"],
  ],
  [
    "a row more where keys may differ",
    [insert(row(1n, "a", 1n))],
    [insert(row(7n, "a", 1n)), insert(row(8n, "a", 1n))],
    ["id"],
    ["settle", "differs"],
  ],
  [
    "an update where keys may differ",
    [update(row(1n, "a", 1n), row(1n, "b", 1n))],
    [update(row(2n, "a", 1n), row(2n, "b", 1n))],
    ["id"],
    ["differs", "differs"],
  ],
])("%s", (_, signed, found, volatile, expected) => {
  expect(kinds(signed, found, volatile)).toEqual(expected);
});

const rows = fc.uniqueArray(
  fc.record({
    id: fc.bigInt({ min: -5n, max: 5n }),
    said: fc.string({ maxLength: 2 }),
    dice: fc.bigInt({ min: 0n, max: 3n }),
  }),
  { selector: (r) => r.id },
);

test("law: a capture equals itself, and one that differs in volatile columns becomes the signed one once settled", () => {
  fc.assert(
    fc.property(
      rows,
      fc.array(fc.bigInt({ min: 4n, max: 9n }), { minLength: 11, maxLength: 11 }),
      (signedRows, dice) => {
        const signed = collect({
          tables: [SHAPE],
          changes: () => signedRows.map((r) => insert(row(r.id, r.said, r.dice))),
        });
        const found = collect({
          tables: [SHAPE],
          changes: () => signedRows.map((r, i) => insert(row(r.id, r.said, dice[i] ?? 4n))),
        });
        expect([...partings(SHAPE, signed.changes, signed.changes, new Set())]).toEqual([]);
        const settled = [...partings(SHAPE, signed.changes, found.changes, new Set(["dice"]))].flatMap((p) =>
          p.kind === "settle" ? p.changes : [],
        );
        expect(settled).toHaveLength(signedRows.length);
        const both = compose(found, { tables: found.tables, changes: settled });
        expect(collect(sourceOf(both))).toEqual(signed);
      },
    ),
  );
});

test("law: rows whose keys differ from run to run become the signed ones once settled", () => {
  fc.assert(
    fc.property(rows, (signedRows) => {
      // Keys of a sequence: others in each run, in one order.
      const inOrder = [...signedRows].sort((a, b) => (a.id < b.id ? -1 : 1));
      const run = (first: bigint): ReturnType<typeof collect> =>
        collect({
          tables: [SHAPE],
          changes: () => inOrder.map((r, i) => insert(row(first + BigInt(i), r.said, r.dice))),
        });
      const [signed, found] = [run(100n), run(200n)];
      const settled = [...partings(SHAPE, signed.changes, found.changes, new Set(["id"]))].flatMap((p) =>
        p.kind === "settle" ? p.changes : [],
      );
      const both = compose(found, collect(sourceOf({ tables: found.tables, changes: settled })));
      expect(collect(sourceOf(both))).toEqual(signed);
    }),
  );
});
