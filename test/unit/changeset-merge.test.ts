import { describe, expect, test } from "@jest/globals";
import type { Change, Delete, Insert, TableShape, Update } from "../../src/changeset/change.js";
import {
  mergeRow,
  standingOf,
  takeBack,
  takeBackPair,
  type MergeOptions,
  type PairMerge,
} from "../../src/changeset/merge.js";
import type { Row, Value } from "../../src/changeset/value.js";

/** id, a, b, c and a generated column g. */
const shape: TableShape = {
  name: "orders",
  columns: [
    { name: "id", type: "INTEGER" },
    { name: "a", type: "TEXT" },
    { name: "b", type: "TEXT" },
    { name: "c", type: "TEXT" },
    { name: "g", type: "TEXT", generated: true },
  ],
  keyKind: "primary",
  key: [0],
};
const keyless: TableShape = {
  name: "log",
  columns: [{ name: "line", type: "TEXT" }],
  keyKind: "none",
  key: [0],
};

/** The generated column holds its three neighbours side by side unless a case says otherwise. */
const row = (a: Value, b: Value, c: Value, g: Value = [a, b, c].map(shown).join(""), id = 1n): Row => [
  id,
  a,
  b,
  c,
  g,
];
const shown = (v: Value): string => (typeof v === "string" ? v : typeof v);
const facts = { table: "orders", key: [1n], origin: "job" } as const;
const update = (before: Row, after: Row): Update => ({ ...facts, op: "update", before, after });
const insert = (after: Row): Insert => ({ ...facts, op: "insert", after });
const remove = (before: Row): Delete => ({ ...facts, op: "delete", before });

/** The result in one comparable value: the kind, and what it carries. */
function told(change: Change, now: Row | null, options: MergeOptions = {}): unknown {
  const merge = takeBack(shape, change, now, undefined, options);
  switch (merge.kind) {
    case "put-back":
      return { kind: merge.kind, op: merge.change.op, row: imageOf(merge.change), ...recomputed(merge) };
    case "merged":
      return { kind: merge.kind, row: imageOf(merge.change), kept: merge.kept, ...recomputed(merge) };
    case "conflict":
      return { kind: merge.kind, conflict: merge.conflict, columns: merge.columns.map((c) => c.column) };
    case "gone":
    case "nothing-to-do":
      return merge;
  }
}
const imageOf = (c: Change): Row | null => (c.op === "delete" ? null : c.after);
const recomputed = (m: { readonly recompute?: readonly string[] }): object =>
  m.recompute === undefined ? {} : { recompute: m.recompute };

type Case = readonly [
  sentence: string,
  change: Change,
  now: Row | null,
  options: MergeOptions,
  result: unknown,
];

const cells = update(row("a0", "b0", "c0"), row("a1", "b1", "c0"));

describe("taking one change back", () => {
  const cases: readonly Case[] = [
    // design, section 9: the eight rows of the table
    [
      "an updated row as we wrote it is put back",
      cells,
      row("a1", "b1", "c0"),
      {},
      { kind: "put-back", op: "update", row: row("a0", "b0", "c0") },
    ],
    [
      "an updated row that equals before needs nothing",
      cells,
      row("a0", "b0", "c0"),
      {},
      { kind: "nothing-to-do" },
    ],
    [
      "an updated row whose other column was edited keeps that edit and loses ours",
      cells,
      row("a1", "b1", "cN"),
      {},
      { kind: "merged", row: row("a0", "b0", "cN", "a1b1cN"), kept: ["c"], recompute: ["g"] },
    ],
    [
      "an updated cell that was edited since is a conflict",
      cells,
      row("aN", "b1", "c0"),
      {},
      { kind: "conflict", conflict: "changed", columns: ["a"] },
    ],
    [
      "a deleted row whose key lives again is two entities, never an update",
      remove(row("a0", "b0", "c0")),
      row("aN", "b0", "c0"),
      {},
      { kind: "conflict", conflict: "two-entities", columns: ["a"] },
    ],
    [
      "an inserted row that is gone needs nothing",
      insert(row("a1", "b1", "c1")),
      null,
      {},
      { kind: "nothing-to-do" },
    ],
    [
      "an updated row that is gone is listed and not resurrected",
      cells,
      null,
      {},
      { kind: "gone", before: row("a0", "b0", "c0") },
    ],
    [
      "an inserted row that was edited since is a conflict",
      insert(row("a1", "b1", "c1")),
      row("a1", "bN", "c1"),
      {},
      { kind: "conflict", conflict: "changed", columns: ["b"] },
    ],
    // data-notes 2.4: the undo rows that the table above does not have
    [
      "a deleted row comes back where there is none",
      remove(row("a0", "b0", "c0")),
      null,
      {},
      { kind: "put-back", op: "insert", row: row("a0", "b0", "c0") },
    ],
    [
      "a deleted row that someone put back equal needs nothing",
      remove(row("a0", "b0", "c0")),
      row("a0", "b0", "c0"),
      {},
      { kind: "nothing-to-do" },
    ],
    [
      "an inserted row as we wrote it is taken away",
      insert(row("a1", "b1", "c1")),
      row("a1", "b1", "c1"),
      {},
      { kind: "put-back", op: "delete", row: null },
    ],
    [
      "one of our cells already back, the other still ours: the rest is put back",
      cells,
      row("a0", "b1", "c0"),
      {},
      { kind: "put-back", op: "update", row: row("a0", "b0", "c0") },
    ],
    [
      "our cells already back and another edited: nothing of ours is left",
      cells,
      row("a0", "b0", "cN"),
      {},
      { kind: "nothing-to-do", kept: ["c"] },
    ],
    // data-notes 2.2: the rebase defect, and the two answers, decided per cell
    [
      "answering keep-now keeps the disputed cell and still puts the others back",
      cells,
      row("aN", "b1", "cN"),
      { onConflict: "keep-now" },
      { kind: "merged", row: row("aN", "b0", "cN", "aNb1cN"), kept: ["c", "a"], recompute: ["g"] },
    ],
    [
      "answering restore-before puts the disputed cell back and keeps the cells that are not ours",
      cells,
      row("aN", "b1", "cN"),
      { onConflict: "restore-before" },
      { kind: "merged", row: row("a0", "b0", "cN", "aNb1cN"), kept: ["c"], recompute: ["g"] },
    ],
    [
      "answering keep-now where only the disputed cell is ours leaves the row",
      update(row("a0", "b0", "c0"), row("a1", "b0", "c0")),
      row("aN", "b0", "c0"),
      { onConflict: "keep-now" },
      { kind: "nothing-to-do", kept: ["a"] },
    ],
    [
      "answering keep-now leaves two entities alone",
      remove(row("a0", "b0", "c0")),
      row("aN", "b0", "c0"),
      { onConflict: "keep-now" },
      { kind: "nothing-to-do", kept: ["a"] },
    ],
    [
      "answering restore-before never writes over another entity",
      remove(row("a0", "b0", "c0")),
      row("aN", "b0", "c0"),
      { onConflict: "restore-before" },
      { kind: "conflict", conflict: "two-entities", columns: ["a"] },
    ],
    [
      "answering keep-now keeps an inserted row that was edited",
      insert(row("a1", "b1", "c1")),
      row("a1", "bN", "c1"),
      { onConflict: "keep-now" },
      { kind: "nothing-to-do", kept: ["b"] },
    ],
    [
      "answering restore-before deletes an inserted row that was edited",
      insert(row("a1", "b1", "c1")),
      row("a1", "bN", "c1"),
      { onConflict: "restore-before" },
      { kind: "put-back", op: "delete", row: null },
    ],
    [
      "answering restore-before does not resurrect",
      cells,
      null,
      { onConflict: "restore-before" },
      { kind: "gone", before: row("a0", "b0", "c0") },
    ],
    // data-notes 2.3: generated columns never decide; values that only look alike do
    [
      "a generated column that moved by itself is no edit of an updated row",
      cells,
      row("a1", "b1", "c0", "recomputed"),
      {},
      { kind: "put-back", op: "update", row: row("a0", "b0", "c0") },
    ],
    [
      "a generated column that moved by itself is no edit of an inserted row",
      insert(row("a1", "b1", "c1")),
      row("a1", "b1", "c1", "recomputed"),
      {},
      { kind: "put-back", op: "delete", row: null },
    ],
    [
      "a generated column does not make two entities",
      remove(row("a0", "b0", "c0")),
      row("a0", "b0", "c0", "recomputed"),
      {},
      { kind: "nothing-to-do" },
    ],
    [
      "NULL and the empty text are two values",
      update(row(null, "b0", "c0"), row("a1", "b0", "c0")),
      row("", "b0", "c0"),
      {},
      { kind: "conflict", conflict: "changed", columns: ["a"] },
    ],
    [
      "the integer 1 and the real 1 are two values",
      update(row("a0", "b0", "c0"), row(1n, "b0", "c0")),
      row(1, "b0", "c0"),
      {},
      { kind: "conflict", conflict: "changed", columns: ["a"] },
    ],
    // granularity and ignored columns
    [
      "by row, an edit of another column is a conflict",
      cells,
      row("a1", "b1", "cN"),
      { granularity: "row" },
      { kind: "conflict", conflict: "changed", columns: ["c"] },
    ],
    [
      "by row, a row as we wrote it is put back",
      cells,
      row("a1", "b1", "c0"),
      { granularity: "row" },
      { kind: "put-back", op: "update", row: row("a0", "b0", "c0") },
    ],
    [
      "by row, a row as before needs nothing",
      cells,
      row("a0", "b0", "c0"),
      { granularity: "row" },
      { kind: "nothing-to-do" },
    ],
    [
      "by row, restore-before puts the whole row back",
      cells,
      row("a1", "b1", "cN"),
      { granularity: "row", onConflict: "restore-before" },
      { kind: "put-back", op: "update", row: row("a0", "b0", "c0") },
    ],
    [
      "by row, keep-now leaves the whole row",
      cells,
      row("a1", "b1", "cN"),
      { granularity: "row", onConflict: "keep-now" },
      { kind: "nothing-to-do", kept: ["c"] },
    ],
    [
      "an ignored column that we wrote and others edited stays as it is now",
      cells,
      row("a1", "bN", "c0"),
      { ignoreColumns: ["b"] },
      { kind: "put-back", op: "update", row: row("a0", "bN", "c0", "a1bNc0"), recompute: ["g"] },
    ],
    [
      "an ignored column that we wrote and nobody edited goes back",
      cells,
      row("a1", "b1", "c0"),
      { ignoreColumns: ["b"] },
      { kind: "put-back", op: "update", row: row("a0", "b0", "c0") },
    ],
    [
      "an edit of an ignored column does not keep an inserted row",
      insert(row("a1", "b1", "c1")),
      row("a1", "b1", "cN"),
      { ignoreColumns: ["c"] },
      { kind: "put-back", op: "delete", row: null },
    ],
  ];

  test.each(cases)("%s", (_sentence, change, now, options, result) => {
    expect(told(change, now, options)).toEqual(result);
  });

  test("the planned change starts from the row as it is now, not as we wrote it", () => {
    const now = row("a1", "b1", "cN");
    const merge = takeBack(shape, cells, now);
    expect(merge.kind === "merged" ? merge.change : null).toEqual({
      ...facts,
      op: "update",
      before: now,
      after: row("a0", "b0", "cN", "a1b1cN"),
    });
  });

  test("a conflict names before, we wrote and now; an image without a row is undefined", () => {
    const changed = takeBack(shape, cells, row("aN", "b1", "c0"));
    expect(changed).toMatchObject({ columns: [{ column: "a", before: "a0", wrote: "a1", now: "aN" }] });
    const reused = takeBack(shape, remove(row(null, "b0", "c0")), row("aN", "b0", "c0"));
    expect(reused).toEqual({
      kind: "conflict",
      conflict: "two-entities",
      columns: [{ column: "a", before: null, wrote: undefined, now: "aN" }],
    });
    const edited = takeBack(shape, insert(row("a1", "b1", "c1")), row("aN", "b1", "c1"));
    expect(edited).toMatchObject({ columns: [{ column: "a", before: undefined, wrote: "a1", now: "aN" }] });
  });
});

describe("the general merge of three rows", () => {
  const b = row("a0", "b0", "c0");
  const other = row("aN", "b0", "c0");
  const cases: readonly (readonly [string, Row | null, Row | null, Row | null, unknown])[] = [
    ["no row before, none written, none now", null, null, null, { kind: "nothing-to-do" }],
    ["a row of others where we never had one", null, null, other, { kind: "nothing-to-do" }],
    ["both deleted it", b, null, null, { kind: "put-back", row: b }],
    [
      "both made the same row, taken back by deleting it",
      null,
      other,
      other,
      { kind: "put-back", row: null },
    ],
    ["we deleted it, others touched nothing that differs", b, null, [...b], { kind: "nothing-to-do" }],
    ["we changed nothing, others did", b, b, other, { kind: "nothing-to-do", kept: ["a"] }],
  ];
  test.each(cases)("%s", (_sentence, before, wrote, now, result) => {
    expect(mergeRow(shape, before, wrote, now)).toEqual(result);
  });
});

describe("equal rows of a table without a key", () => {
  const line = { table: "log", key: ["x"], origin: "job" } as const;
  const added = (count: number): Insert => ({ ...line, op: "insert", after: ["x"], count });
  const removed = (count: number): Delete => ({ ...line, op: "delete", before: ["x"], count });
  const cases: readonly (readonly [string, Change, number, MergeOptions, unknown])[] = [
    ["as many as we added are taken away", added(3), 5, {}, { kind: "put-back", change: { ...removed(3) } }],
    ["none of what we added is left", added(3), 0, {}, { kind: "nothing-to-do" }],
    [
      "only some are left, and nobody knows whose",
      added(3),
      2,
      {},
      { kind: "conflict", conflict: "missing", columns: [] },
    ],
    [
      "only some are left, and the answer is keep-now",
      added(3),
      2,
      { onConflict: "keep-now" },
      nothingKept(),
    ],
    [
      "only some are left, and the answer is restore-before",
      added(3),
      2,
      { onConflict: "restore-before" },
      { kind: "put-back", change: { ...removed(2) } },
    ],
    ["what we deleted is added again", removed(3), 0, {}, { kind: "put-back", change: { ...added(3) } }],
    [
      "what we deleted is added to equal rows of others",
      removed(3),
      4,
      {},
      { kind: "put-back", change: { ...added(3) } },
    ],
    [
      "a single row carries no count",
      { ...line, op: "insert", after: ["x"] },
      1,
      {},
      { kind: "put-back", change: { ...line, op: "delete", before: ["x"] } },
    ],
  ];
  test.each(cases)("%s", (_sentence, change, nowCount, options, result) => {
    expect(takeBack(keyless, change, nowCount === 0 ? null : ["x"], nowCount, options)).toEqual(result);
  });

  function nothingKept(): unknown {
    return { kind: "nothing-to-do", kept: [] };
  }
});

describe("a changed key is one unit", () => {
  const at = (id: bigint, a: Value, b: Value = "b0"): Row => row(a, b, "c0", "g", id);
  const deleted: Delete = { ...facts, op: "delete", before: at(1n, "a0"), link: [2n] };
  const inserted: Insert = { ...facts, key: [2n], op: "insert", after: at(2n, "a1"), link: [1n] };
  const back = (atNewKey: Row | null, atOldKey: Row | null, options: MergeOptions = {}): PairMerge =>
    takeBackPair(shape, { deleted, inserted }, { atNewKey, atOldKey }, options);

  test("as we wrote it, both ends go back, linked", () => {
    expect(back(at(2n, "a1"), null)).toEqual({
      kind: "put-back",
      changes: [
        { ...facts, key: [2n], op: "delete", before: at(2n, "a1"), link: [1n] },
        { ...facts, key: [1n], op: "insert", after: at(1n, "a0"), link: [2n] },
      ],
    });
  });

  test("another column edited at the new key moves back with the row", () => {
    const merged = back(at(2n, "a1", "bN"), null);
    expect(merged).toMatchObject({ kind: "merged", kept: ["b"], recompute: ["g"] });
    expect(merged.kind === "merged" ? merged.changes[1].after : null).toEqual(at(1n, "a0", "bN"));
  });

  const undecided: readonly (readonly [string, Row | null, Row | null, MergeOptions, unknown])[] = [
    ["our cell edited at the new key", at(2n, "aN"), null, {}, { kind: "conflict", conflict: "changed" }],
    [
      "the old key taken by another row",
      at(2n, "a1"),
      at(1n, "aN"),
      {},
      { kind: "conflict", conflict: "exists" },
    ],
    [
      "the old key taken, and the answer is restore-before: never written over",
      at(2n, "a1"),
      at(1n, "aN"),
      { onConflict: "restore-before" },
      { kind: "conflict", conflict: "exists" },
    ],
    [
      "the old key taken, and the answer is keep-now",
      at(2n, "a1"),
      at(1n, "aN"),
      { onConflict: "keep-now" },
      { kind: "nothing-to-do", kept: ["a"] },
    ],
    ["already moved back", null, at(1n, "a0"), {}, { kind: "nothing-to-do" }],
    ["gone from both keys", null, null, {}, { kind: "gone", before: at(1n, "a0") }],
    [
      "gone, and another row lives at the old key",
      null,
      at(1n, "aN"),
      {},
      { kind: "conflict", conflict: "two-entities" },
    ],
  ];
  test.each(undecided)("%s", (_sentence, atNewKey, atOldKey, options, result) => {
    expect(back(atNewKey, atOldKey, options)).toMatchObject(result as object);
  });
});

describe("how a row stands to a change that is about to be applied", () => {
  const cases: readonly (readonly [string, Change, Row | null, unknown])[] = [
    [
      "an update's cells as before: to write",
      cells,
      row("a0", "b0", "c0"),
      { state: "as-before", newer: [] },
    ],
    [
      "an update's cells as before, an untouched cell newer: to write, and said",
      cells,
      row("a0", "b0", "cN"),
      { state: "as-before", newer: ["c"] },
    ],
    [
      "an update's cells as after: converged, no conflict",
      cells,
      row("a1", "b1", "c0"),
      { state: "as-after", newer: [] },
    ],
    [
      "an update's cell is neither: conflict on that cell",
      cells,
      row("aN", "b0", "c0"),
      conflict("changed", "a"),
    ],
    ["an update half there is a conflict", cells, row("a1", "b0", "c0"), conflict("changed", "a")],
    ["an update without its row", cells, null, { state: "conflict", conflict: "missing", columns: [] }],
    [
      "a delete of an absent row: converged",
      remove(row("a0", "b0", "c0")),
      null,
      { state: "as-after", newer: [] },
    ],
    [
      "a delete of an equal row: to write",
      remove(row("a0", "b0", "c0")),
      row("a0", "b0", "c0", "recomputed"),
      { state: "as-before", newer: [] },
    ],
    [
      "a delete of a row with any other cell edited: conflict, stricter than an update",
      remove(row("a0", "b0", "c0")),
      row("a0", "b0", "cN"),
      conflict("changed", "c"),
    ],
    [
      "an insert where nothing is: to write",
      insert(row("a1", "b1", "c1")),
      null,
      { state: "as-before", newer: [] },
    ],
    [
      "an insert where an equal row is: converged, not a conflict",
      insert(row("a1", "b1", "c1")),
      row("a1", "b1", "c1"),
      { state: "as-after", newer: [] },
    ],
    [
      "an insert where another row is: conflict",
      insert(row("a1", "b1", "c1")),
      row("a1", "b1", "cN"),
      conflict("exists", "c"),
    ],
  ];
  test.each(cases)("%s", (_sentence, change, now, result) => {
    expect(standingOf(shape, change, now)).toMatchObject(result as object);
  });

  test.each([
    ["equal rows to delete: enough are there", 3, { state: "as-before", newer: [] }],
    ["equal rows to delete: too few are there", 1, { state: "conflict", conflict: "missing", columns: [] }],
  ] as const)("%s", (_sentence, nowCount, result) => {
    const gone: Delete = { table: "log", key: ["x"], origin: "job", op: "delete", before: ["x"], count: 2 };
    expect(standingOf(keyless, gone, ["x"], nowCount)).toEqual(result);
  });

  function conflict(kind: string, column: string): unknown {
    return { state: "conflict", conflict: kind, columns: [{ column }] };
  }
});
