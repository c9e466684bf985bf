import { describe, expect, test } from "@jest/globals";
import { codeOf } from "../../src/base/errors.js";
import { applyTo, stateOf } from "../../src/changeset/apply.js";
import type { Change, ChangeSet, TableShape } from "../../src/changeset/change.js";
import { compose } from "../../src/changeset/compose.js";
import { diffSorted } from "../../src/changeset/diff.js";
import { keyBytes } from "../../src/changeset/key.js";
import { pairsOf } from "../../src/changeset/link.js";
import { changeSet, collect, countsOf, sourceOf } from "../../src/changeset/source.js";
import type { Row } from "../../src/changeset/value.js";

const shape: TableShape = {
  name: "t",
  columns: [
    { name: "id", type: "INTEGER" },
    { name: "v", type: "TEXT" },
  ],
  keyKind: "primary",
  key: [0],
};
const bag: TableShape = { name: "bag", columns: [{ name: "x", type: "" }], keyKind: "none", key: [0] };

const facts = (
  id: bigint,
): { readonly table: string; readonly key: readonly bigint[]; readonly origin: "job" } => ({
  table: "t",
  key: [id],
  origin: "job",
});
const insert = (v: string, id = 1n): Change => ({ ...facts(id), op: "insert", after: [id, v] });
const update = (from: string, to: string, id = 1n): Change => ({
  ...facts(id),
  op: "update",
  before: [id, from],
  after: [id, to],
});
const remove = (v: string, id = 1n): Change => ({ ...facts(id), op: "delete", before: [id, v] });
const some = (...changes: readonly Change[]): ChangeSet => changeSet([shape, bag], changes);

function refusalOf(act: () => unknown): string | undefined {
  try {
    act();
    return "accepted";
  } catch (e) {
    return codeOf(e);
  }
}

describe("the nine cases of one key", () => {
  const allowed: readonly (readonly [string, Change, Change, readonly Change[]])[] = [
    ["insert then update is an insert of the last row", insert("a"), update("a", "b"), [insert("b")]],
    ["insert then delete is nothing", insert("a"), remove("a"), []],
    ["update then update is one update", update("a", "b"), update("b", "c"), [update("a", "c")]],
    ["update then update back is nothing", update("a", "b"), update("b", "a"), []],
    ["update then delete is a delete of the first row", update("a", "b"), remove("b"), [remove("a")]],
    ["delete then insert is an update", remove("a"), insert("b"), [update("a", "b")]],
    ["delete then insert of the same row is nothing", remove("a"), insert("a"), []],
  ];
  test.each(allowed)("%s", (_sentence, first, second, result) => {
    expect(compose(some(first), some(second)).changes).toEqual(result);
  });

  const refused: readonly (readonly [string, Change, Change])[] = [
    ["insert then insert", insert("a"), insert("b")],
    ["update then insert", update("a", "b"), insert("c")],
    ["delete then update", remove("a"), update("a", "b")],
    ["delete then delete", remove("a"), remove("a")],
    ["insert then update of another row", insert("a"), update("x", "b")],
    ["insert then delete of another row", insert("a"), remove("x")],
    ["update then update of another row", update("a", "b"), update("x", "c")],
    ["update then delete of another row", update("a", "b"), remove("x")],
  ];
  test.each(refused)(
    "%s is refused: the second does not begin where the first ends",
    (_sentence, first, second) => {
      expect(refusalOf(() => compose(some(first), some(second)))).toBe("ERR_DRIFT_ROWS");
    },
  );

  test("keys of one side only are taken as they are", () => {
    const both = compose(some(insert("a", 1n)), some(remove("b", 2n)));
    expect(both.changes).toEqual([insert("a", 1n), remove("b", 2n)]);
  });

  test("an origin stays where both agree, else it is unknown", () => {
    const cascade: Change = { ...update("b", "c"), origin: "cascade" };
    expect(compose(some(update("a", "b")), some(cascade)).changes[0]?.origin).toBe("unknown");
    expect(compose(some(update("a", "b")), some(update("b", "c"))).changes[0]?.origin).toBe("job");
  });

  test("two shapes of one table are refused", () => {
    const wider: TableShape = { ...shape, columns: [...shape.columns, { name: "w", type: "" }] };
    const second = changeSet([wider], [{ ...facts(1n), op: "insert", after: [1n, "a", null] }]);
    expect(refusalOf(() => compose(some(remove("a")), second))).toBe("ERR_DRIFT_SCHEMA");
  });
});

describe("changed keys", () => {
  const moved = (from: bigint, to: bigint, v: string): readonly Change[] => [
    { ...remove(v, from), link: [to] },
    { ...insert(v, to), link: [from] },
  ];

  test("a chain of moves is one move from the first key to the last", () => {
    const both = compose(some(...moved(1n, 2n, "a")), some(...moved(2n, 3n, "a")));
    expect(both.changes).toEqual(moved(1n, 3n, "a"));
    expect(pairsOf(both.changes).map((p) => [p.deleted.key, p.inserted.key])).toEqual([[[1n], [3n]]]);
  });

  test("a move there and back is nothing", () => {
    expect(compose(some(...moved(1n, 2n, "a")), some(...moved(2n, 1n, "a"))).changes).toEqual([]);
  });

  test("a move whose row is deleted later leaves an unlinked delete", () => {
    expect(compose(some(...moved(1n, 2n, "a")), some(remove("a", 2n))).changes).toEqual([remove("a", 1n)]);
  });

  test("a moved row that is updated later stays linked", () => {
    const both = compose(some(...moved(1n, 2n, "a")), some(update("a", "b", 2n)));
    expect(both.changes).toEqual([
      { ...remove("a", 1n), link: [2n] },
      { ...insert("b", 2n), link: [1n] },
    ]);
  });

  test("a link that only one end tells is no pair", () => {
    const [deleted] = moved(1n, 2n, "a");
    expect(pairsOf(deleted === undefined ? [] : [deleted, insert("a", 2n)])).toEqual([]);
  });
});

describe("equal rows", () => {
  const rows = (op: "insert" | "delete", count: number): Change => {
    const line = { table: "bag", key: ["x"], origin: "job", ...(count === 1 ? {} : { count }) } as const;
    return op === "insert" ? { ...line, op, after: ["x"] } : { ...line, op, before: ["x"] };
  };
  test.each([
    ["inserts add up", rows("insert", 2), rows("insert", 3), [rows("insert", 5)]],
    ["deletes add up", rows("delete", 2), rows("delete", 1), [rows("delete", 3)]],
    ["more deletes than inserts", rows("insert", 2), rows("delete", 3), [rows("delete", 1)]],
    ["as many deletes as inserts", rows("delete", 2), rows("insert", 2), []],
  ] as const)("%s", (_sentence, first, second, result) => {
    expect(compose(some(first), some(second)).changes).toEqual(result);
  });

  test("are counted as often as they are there", () => {
    expect(countsOf(sourceOf(some(rows("insert", 4), insert("a"), update("a", "b", 2n))))).toEqual([
      { name: "bag", insert: 4, update: 0, delete: 0 },
      { name: "t", insert: 1, update: 1, delete: 0 },
    ]);
  });

  test("a written count of one is the same as none", () => {
    expect(some({ ...rows("insert", 1), count: 1 }).changes[0]).not.toHaveProperty("count");
  });
});

describe("what is no ChangeSet", () => {
  const twoColumnKey: TableShape = { ...shape, key: [0, 1] };
  const bad: readonly (readonly [string, readonly TableShape[], readonly Change[]])[] = [
    ["two changes of one key", [shape], [insert("a"), insert("b")]],
    ["an update that changes nothing", [shape], [update("a", "a")]],
    ["an image of the wrong width", [shape], [{ ...facts(1n), op: "insert", after: [1n] }]],
    ["an unknown table", [bag], [insert("a")]],
    ["a key that is not its row's", [shape], [{ ...insert("a"), key: [2n] }]],
    ["a key of the wrong width", [twoColumnKey], [insert("a")]],
    [
      "an update that moves its key",
      [shape],
      [{ ...facts(1n), op: "update", before: [1n, "a"], after: [2n, "a"] }],
    ],
    ["a link on an update", [shape], [{ ...update("a", "b"), link: [2n] }]],
    ["a link to the row itself", [shape], [{ ...insert("a"), link: [1n] }]],
    ["a link of another width", [shape], [{ ...insert("a"), link: [1n, 2n] }]],
    [
      "a link without a key",
      [bag],
      [{ table: "bag", key: ["x"], origin: "job", op: "insert", after: ["x"], link: ["y"] }],
    ],
    ["a count in a table with a key", [shape], [{ ...insert("a"), count: 2 }]],
    [
      "a count of zero",
      [bag],
      [{ table: "bag", key: ["x"], origin: "job", op: "insert", after: ["x"], count: 0 }],
    ],
    [
      "an update without a key",
      [bag],
      [{ table: "bag", key: ["x"], origin: "job", op: "update", before: ["x"], after: ["y"] }],
    ],
    ["a table declared twice", [shape, shape], []],
    ["a table without columns", [{ ...shape, columns: [], key: [] }], []],
    ["a table with one column name twice", [{ ...shape, columns: [...shape.columns, ...shape.columns] }], []],
    ["a key without columns", [{ ...shape, key: [] }], []],
    ["a key outside of the table", [{ ...shape, key: [2] }], []],
    ["a key that names a column twice", [{ ...shape, key: [0, 0] }], []],
    ["a table without a key whose key is not the whole row", [{ ...shape, keyKind: "none" }], []],
  ];
  test.each(bad)("%s is refused", (_sentence, tables, changes) => {
    expect(refusalOf(() => changeSet(tables, changes))).toBe("ERR_INTERNAL");
  });

  test.each([
    ["an integer beyond 64 bits", [2n ** 63n]],
    ["text with a lone surrogate", ["\uD800"]],
    ["raw text that is valid UTF-8", [{ kind: "raw-text", bytes: Uint8Array.of(0x61) }]],
  ] as const)("%s has no exact form", (_sentence, key) => {
    expect(refusalOf(() => keyBytes(key))).toBe("ERR_TARGET_VALUE");
  });

  test("collect of a source is its ChangeSet", () => {
    const cs = some(insert("a"), remove("b", 2n));
    expect(collect(sourceOf(cs))).toEqual(cs);
  });
});

describe("the model of a target", () => {
  const state = stateOf([{ shape, rows: [[1n, "a"]] }]);
  test.each([
    ["an insert where a row is", insert("b")],
    ["a delete of another row", remove("b")],
    ["an update of another row", update("x", "b")],
    ["an update without a row", update("a", "b", 2n)],
  ] as const)("refuses %s", (_sentence, change) => {
    expect(refusalOf(() => applyTo(state, some(change)))).toBe("ERR_DRIFT_ROWS");
  });

  test("refuses to delete more equal rows than there are, and changes of a table that is not there", () => {
    const gone: Change = { table: "bag", key: ["x"], origin: "job", op: "delete", before: ["x"], count: 2 };
    const one = stateOf([{ shape: bag, rows: [["x"]] }]);
    expect(refusalOf(() => applyTo(one, some(gone)))).toBe("ERR_DRIFT_ROWS");
    expect(refusalOf(() => applyTo(state, some(gone)))).toBe("ERR_DRIFT_ROWS");
  });
});

describe("comparing two sorted sides", () => {
  const sides: readonly (readonly [string, TableShape, readonly Row[]])[] = [
    [
      "rows out of order",
      shape,
      [
        [2n, "a"],
        [1n, "a"],
      ],
    ],
    [
      "two rows of one key",
      shape,
      [
        [1n, "a"],
        [1n, "b"],
      ],
    ],
    ["equal rows apart", bag, [["x"], ["y"], ["x"]]],
  ];
  test.each(sides)("%s are refused on either side", (_sentence, table, rows) => {
    expect(refusalOf(() => [...diffSorted(table, rows, [])])).toBe("ERR_INTERNAL");
    expect(refusalOf(() => [...diffSorted(table, [], rows)])).toBe("ERR_INTERNAL");
  });

  test("a reader that stops early lets go of both sides", () => {
    let closed = 0;
    function* rows(): Iterable<Row> {
      try {
        yield [1n, "a"];
        yield [2n, "a"];
      } finally {
        closed++;
      }
    }
    for (const c of diffSorted(shape, rows(), rows2())) {
      expect(c.key).toEqual([1n]);
      break;
    }
    expect(closed).toBe(2);
    function* rows2(): Iterable<Row> {
      for (const [id] of rows()) yield [id ?? null, "b"];
    }
  });
});
