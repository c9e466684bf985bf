/** Rows unlike the rest: each rule with what arms it and what leaves it silent. */
import { describe, expect, test } from "@jest/globals";
import type { Change, ChangeSource, TableShape } from "../../src/changeset/change.js";
import { type OddOptions, oddRows } from "../../src/changeset/odd.js";
import type { Value } from "../../src/changeset/value.js";

const SHAPE: TableShape = {
  name: "orders",
  columns: [
    { name: "id", type: "INTEGER" },
    { name: "status", type: "TEXT" },
    { name: "total", type: "NUMERIC" },
    { name: "shop_id", type: "INTEGER" },
    { name: "placed", type: "TEXT" },
  ],
  keyKind: "primary",
  key: [0],
};

const NOTHING: OddOptions = { limit: 20, tenants: [], protect: [] };

interface Cells {
  readonly status?: string;
  readonly total?: Value;
  readonly shop?: bigint;
  readonly placed?: string;
}

function row(id: number, c: Cells): Value[] {
  return [BigInt(id), c.status ?? "pending", c.total ?? 10n, c.shop ?? 1n, c.placed ?? "2026-10-01"];
}

function update(id: number, before: Cells, after: Cells): Change {
  const images = { before: row(id, before), after: row(id, { ...before, ...after }) };
  return { table: "orders", op: "update", key: [BigInt(id)], origin: "job", ...images };
}

/** `n` rows that change alike. */
function alike(n: number, before: Cells = {}, after: Cells = { status: "cancelled" }): Change[] {
  return Array.from({ length: n }, (_, i) => update(i + 1, before, after));
}

function sourceOf(changes: readonly Change[]): ChangeSource {
  return { tables: [SHAPE], changes: () => changes };
}

function found(changes: readonly Change[], options: Partial<OddOptions> = {}): string[] {
  const { rows } = oddRows(sourceOf(changes), { ...NOTHING, ...options });
  return rows.map((r) => `${Number(r.change.key[0])} ${r.reason.rule}`);
}

describe("a plan whose rows are alike", () => {
  test.each([
    ["one row", alike(1)],
    ["a thousand rows", alike(1000)],
    [
      "rows of different sizes",
      Array.from({ length: 50 }, (_, i) => update(i, { total: BigInt(i + 20) }, { status: "x" })),
    ],
    ["no row", []],
  ])("%s: nothing is odd", (_, changes) => {
    expect(found(changes)).toEqual([]);
  });
});

describe("rare-transition", () => {
  const rare = [...alike(999), update(5000, { status: "paid" }, { status: "cancelled" })];

  test("a change that few rows make among many is odd", () => {
    expect(found(rare)).toEqual(["5000 rare-transition"]);
  });

  test("silent where every row gets a value of its own", () => {
    expect(found(Array.from({ length: 900 }, (_, i) => update(i, {}, { status: `s${i}` })))).toEqual([]);
  });

  test("silent under 200 updates, where half a percent is less than a row", () => {
    expect(found([...alike(150), update(5000, { status: "paid" }, { status: "cancelled" })])).toEqual([]);
  });
});

describe("extreme-value", () => {
  test("a number far over the rest is odd, with how far", () => {
    const changes = [...alike(30), update(31, { total: 48_900n }, { status: "cancelled" })];
    const { rows } = oddRows(sourceOf(changes), NOTHING);
    expect(rows.map((r) => r.reason)).toEqual([{ rule: "extreme-value", column: "total", times: 4890 }]);
  });

  test("decimals in text are numbers where the column's type says so", () => {
    const changes = [...alike(30, { total: "12.50" }), update(31, { total: "4890.00" }, { status: "x" })];
    expect(found(changes)).toEqual(["31 extreme-value"]);
  });

  test("a reference is a name and no size", () => {
    expect(found([...alike(30), update(31, { shop: 1_000_000n }, { status: "cancelled" })])).toEqual([]);
  });
});

describe("ratio", () => {
  test.each([
    ["cents for euros", 100n, 10_000n, true],
    ["a tenth", 100n, 10n, true],
    ["a raise", 100n, 130n, false],
    ["to zero", 100n, 0n, false],
    ["another sign", 100n, -1000n, false],
  ])("%s", (_, was, is, odd) => {
    expect(found([update(1, { total: was }, { total: is })])).toEqual(odd ? ["1 ratio"] : []);
  });
});

describe("rules that the configuration arms", () => {
  const tenants = [{ table: "orders", column: "shop_id" }];
  const protect = [{ table: "orders", column: "status", values: ["paid"] }];

  test("second-tenant: rows of another tenant than most", () => {
    const changes = [...alike(9), update(50, { shop: 2n }, { status: "cancelled" })];
    expect(found(changes, { tenants })).toEqual(["50 second-tenant"]);
    expect(found(changes)).toEqual([]);
  });

  test("protected-value: a row that holds it is odd however many there are", () => {
    const paid = alike(3, { status: "paid" });
    expect(found(paid, { protect })).toEqual(["1 protected-value", "2 protected-value", "3 protected-value"]);
    expect(found(paid)).toEqual([]);
  });

  test("how many rules looked", () => {
    expect(oddRows(sourceOf(alike(3)), NOTHING)).toMatchObject({ rules: 4, looked: 3 });
    expect(oddRows(sourceOf(alike(3)), { ...NOTHING, tenants, protect }).rules).toBe(6);
  });
});

describe("age-gap", () => {
  test("a date apart from all others by more than they span", () => {
    const days = Array.from({ length: 20 }, (_, i) =>
      update(i, { placed: `2026-10-${String(i + 1).padStart(2, "0")}` }, { status: "x" }),
    );
    expect(found([...days, update(40, { placed: "2019-01-01" }, { status: "x" })])).toEqual(["40 age-gap"]);
    expect(found([...days, update(40, { placed: "2026-10-25" }, { status: "x" })])).toEqual([]);
  });
});

describe("what is listed", () => {
  const paid = alike(50, { status: "paid" });
  const protect = [{ table: "orders", column: "status", values: ["paid"] }];

  test("the first rows in full, all of them counted", () => {
    const odd = oddRows(sourceOf(paid), { ...NOTHING, protect });
    expect(odd.rows).toHaveLength(20);
    expect(odd).toMatchObject({
      total: 50,
      groups: [{ rule: "protected-value", column: "status", rows: 50 }],
    });
  });

  test("a row counts once, for the first rule that it meets", () => {
    const both = [...paid, update(99, { status: "paid", total: 1n }, { total: 100n })];
    const odd = oddRows(sourceOf(both), { ...NOTHING, protect });
    expect(odd.groups.reduce((sum, g) => sum + g.rows, 0)).toBe(51);
  });
});
