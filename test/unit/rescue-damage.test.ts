/** What follows from a declared damage for one row: the table of `operations/damage.ts`. */
import { describe, expect, test } from "@jest/globals";
import type { Change, TableShape } from "../../src/changeset/change.js";
import { keyText } from "../../src/changeset/key.js";
import type { Row } from "../../src/changeset/value.js";
import { deciding, type OnConflict } from "../../src/operations/merging/conflict.js";
import { type Declared, fateOf, parseDamage } from "../../src/operations/merging/damage.js";

const shape: TableShape = {
  name: "rows",
  columns: [
    { name: "id", type: "INTEGER" },
    { name: "flag", type: "TEXT" },
    { name: "note", type: "TEXT" },
  ],
  keyKind: "primary",
  key: [0],
};

const WAS: Row = [1n, "off", "a"];

interface Case {
  readonly now: Row | null;
  readonly before?: Row | null;
  /** `flag` was set, and this row's cell still has the value. */
  readonly stands?: boolean;
  readonly declaredSet?: boolean;
  readonly deleted?: boolean;
  readonly byRows?: boolean;
  readonly whole?: boolean;
  readonly columns?: readonly number[];
  readonly ourRun?: string;
  readonly decision?: OnConflict;
}

async function fate(c: Case): Promise<string> {
  const before = c.before === undefined ? WAS : c.before;
  const key = [1n];
  const facts = { table: "rows", key, origin: "unknown" as const };
  const change: Change =
    before === null
      ? { ...facts, op: "insert", after: c.now ?? [] }
      : c.now === null
        ? { ...facts, op: "delete", before }
        : { ...facts, op: "update", before, after: c.now };
  const standing =
    c.declaredSet === true
      ? new Map([["rows", new Map([[1, new Set(c.stands === true ? [keyText(key)] : [])]])]])
      : new Map();
  const declared: Declared = {
    byRows: c.byRows ?? false,
    deleted: c.deleted ?? false,
    narrowed: {
      tables: [shape],
      whole: true,
      takes: () => true,
      columnsOf: () => (c.columns === undefined ? undefined : new Set(c.columns)),
    },
    standing,
    wrote: new Map(),
    takenWhole: new Set(c.whole === true ? ["rows"] : []),
  };
  const found = await fateOf(
    shape,
    change,
    declared,
    async () => c.ourRun ?? null,
    deciding(c.decision ?? "stop", undefined),
  );
  if (found.kind === "conflict") return found.conflict.kind;
  if (!("change" in found)) return found.kind;
  const { change: back } = found;
  return `${found.kind}: ${back.op === "delete" ? "gone" : [back.after[1], back.after[2]].map((v) => (typeof v === "string" ? v : "?")).join(",")}`;
}

describe("what becomes of a row", () => {
  test.each<[string, Case, string]>([
    [
      "the cell is as the damage set it: restored",
      { now: [1n, "on", "a"], declaredSet: true, stands: true },
      "restored: off,a",
    ],
    [
      "another cell is newer: restored beside it",
      { now: [1n, "on", "b"], declaredSet: true, stands: true },
      "merged: off,b",
    ],
    ["the cell has a third value since: conflict", { now: [1n, "maybe", "a"], declaredSet: true }, "changed"],
    ["only another cell differs: not this damage", { now: [1n, "off", "b"], declaredSet: true }, "other"],
    [
      "gone, and the damage only set a column: its owner removed it",
      { now: null, declaredSet: true },
      "removed",
    ],
    ["nothing declared: undecidable", { now: [1n, "on", "a"] }, "undecidable"],
    ["nothing declared, gone: undecidable", { now: null }, "undecidable"],
    [
      "nothing declared, a run of ours made it so: not damage",
      { now: [1n, "on", "a"], ourRun: "rn_1" },
      "other",
    ],
    [
      "nothing declared, a run of ours deleted it: its owner removed it",
      { now: null, ourRun: "rn_1" },
      "removed",
    ],
    ["these rows are damage: all of it back", { now: [1n, "on", "b"], byRows: true }, "restored: off,a"],
    ["these rows are damage, gone: back", { now: null, byRows: true }, "restored: off,a"],
    ["a column was damaged, whatever to: undecidable", { now: [1n, "on", "a"], columns: [1] }, "undecidable"],
    [
      "that column of these rows: back, the other stays",
      { now: [1n, "on", "b"], columns: [1], byRows: true },
      "merged: off,b",
    ],
    ["deleted: back", { now: null, deleted: true }, "restored: off,a"],
    [
      "deleted, but by a run of ours: never resurrected",
      { now: null, deleted: true, ourRun: "rn_1" },
      "removed",
    ],
    [
      "deleted, all of the table, and there again: two entities",
      { now: [1n, "new", "z"], deleted: true, whole: true },
      "two-entities",
    ],
    [
      "deleted, some of the table, and there: edited by its owner",
      { now: [1n, "off", "z"], deleted: true },
      "other",
    ],
    [
      "two entities are not restored by a decision",
      { now: [1n, "new", "z"], deleted: true, whole: true, decision: "keep-now" },
      "kept",
    ],
    [
      "born since: never touched",
      { before: null, now: [1n, "on", "a"], deleted: true, byRows: true },
      "born",
    ],
    ["undecidable, decided to restore", { now: null, decision: "restore-before" }, "merged: off,a"],
    ["undecidable, decided to keep", { now: null, decision: "keep-now" }, "kept"],
    [
      "a third value, decided to restore",
      { now: [1n, "maybe", "b"], declaredSet: true, decision: "restore-before" },
      "merged: off,b",
    ],
  ])("%s", async (_, given, expected) => {
    expect(await fate(given)).toBe(expected);
  });
});

describe("how damage is declared", () => {
  test.each([
    ["deleted", { kind: "deleted" }],
    ["flag = 'on'", { kind: "set", column: "flag", expression: "'on'" }],
    ["price = before_price * 0.9", { kind: "set", column: "price", expression: "before_price * 0.9" }],
    ["a = b = c", { kind: "set", column: "a", expression: "b = c" }],
  ])("%s", (text, expected) => {
    expect(parseDamage(text)).toEqual(expected);
  });

  test.each(["", "removed", "= 1", "flag =", "  "])("%j is refused", (text) => {
    expect(() => parseDamage(text)).toThrow(expect.objectContaining({ code: "ERR_USAGE" }));
  });
});
