/** What the card says of amounts and directions: exact, whatever the order of rows and the type of the column. */
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import type { Change, ChangeSource, TableShape } from "../../src/changeset/change.js";
import { add, compare, decimalOf, decimalText } from "../../src/changeset/decimal.js";
import { againstDirections, type Direction } from "../../src/changeset/direction.js";
import { columnSums } from "../../src/changeset/sums.js";
import type { Value } from "../../src/changeset/value.js";

const SHAPE: TableShape = {
  name: "orders",
  columns: [
    { name: "id", type: "integer" },
    { name: "status", type: "text" },
    { name: "total", type: "numeric" },
  ],
  keyKind: "primary",
  key: [0],
};

function source(changes: readonly Change[]): ChangeSource {
  return { tables: [SHAPE], changes: () => changes };
}

function update(id: bigint, before: readonly [Value, Value], after: readonly [Value, Value]): Change {
  return {
    table: "orders",
    key: [id],
    origin: "job",
    op: "update",
    before: [id, ...before],
    after: [id, ...after],
  };
}

describe("decimals", () => {
  test.each([
    [12n, "12"],
    [0.1, "0.1"],
    [1e21, "1000000000000000000000"],
    [-2.5e-7, "-0.00000025"],
    ["118412.75", "118412.75"],
    ["-0.50", "-0.50"],
  ] as const)("%p is %s", (value, text) => {
    const found = decimalOf(value, true);
    expect(found === null ? null : decimalText(found)).toBe(text);
  });

  test.each([
    [null],
    ["12 EUR"],
    [""],
    [Number.NaN],
    [Number.POSITIVE_INFINITY],
    [new Uint8Array([1])],
  ] as const)("%p is no number", (value) => expect(decimalOf(value, true)).toBeNull());

  test("text of a column that holds no numbers is text", () => expect(decimalOf("12", false)).toBeNull());

  test("a sum does not depend on the order, and loses nothing", () => {
    const cents = fc.array(fc.bigInt({ min: -(10n ** 24n), max: 10n ** 24n }), { maxLength: 20 });
    fc.assert(
      fc.property(cents, (units) => {
        const all = units.map((u, i) => ({ units: u, scale: i % 4 }));
        const forth = all.reduce(add, { units: 0n, scale: 3 });
        const back = [...all].reverse().reduce(add, { units: 0n, scale: 3 });
        expect(decimalText(forth)).toBe(decimalText(back));
        expect(compare(forth, back)).toBe(0);
      }),
    );
  });
});

describe("sums", () => {
  const changes: readonly Change[] = [
    update(1n, ["paid", "0.10"], ["void", "0.30"]),
    { table: "orders", key: [2n], origin: "job", op: "delete", before: [2n, "paid", "0.20"] },
    { table: "orders", key: [3n], origin: "job", op: "insert", after: [3n, "new", null] },
    update(4n, ["paid", "no number"], ["void", "1"]),
  ];

  test("before and after, exactly; NULL adds nothing; what is no number is counted", () => {
    expect(columnSums(source(changes), [{ table: "orders", column: "total" }])).toEqual([
      { table: "orders", column: "total", before: "0.30", after: "0.30", unread: 1 },
    ]);
  });

  test("columns and tables that do not change are left out", () => {
    expect(columnSums(source(changes), [{ table: "orders", column: "gone" }])).toEqual([]);
    expect(columnSums(source(changes), [{ table: "stock", column: "total" }])).toEqual([]);
  });
});

describe("the declared direction", () => {
  const status: Direction = {
    table: "orders",
    column: "status",
    from: ["pending", null],
    to: ["cancelled"],
    way: null,
  };
  const total: Direction = { table: "orders", column: "total", from: null, to: null, way: "down" };
  const rows = (d: Direction, ...changes: Change[]): number =>
    againstDirections(source(changes), [d])[0]?.rows ?? 0;

  test.each([
    ["as declared", update(1n, ["pending", 1n], ["cancelled", 1n]), 0],
    ["from NULL, which is declared too", update(1n, [null, 1n], ["cancelled", 1n]), 0],
    ["the other way round", update(1n, ["cancelled", 1n], ["pending", 1n]), 1],
    ["from a value that is not declared", update(1n, ["paid", 1n], ["cancelled", 1n]), 1],
    ["a column that stays as it is", update(1n, ["paid", 1n], ["paid", 2n]), 0],
  ] as const)("%s: %#", (_, change, against) => expect(rows(status, change)).toBe(against));

  test.each([
    ["falls", update(1n, ["a", "10.5"], ["a", "10.49"]), 0],
    ["rises", update(1n, ["a", "9"], ["a", "10"]), 1],
    ["is no number", update(1n, ["a", "9"], ["a", "free"]), 1],
  ] as const)("down: %s", (_, change, against) => expect(rows(total, change)).toBe(against));

  test("rows are counted, the first is kept as the example, inserts and deletes have no direction", () => {
    const found = againstDirections(
      source([
        { table: "orders", key: [9n], origin: "job", op: "delete", before: [9n, "paid", 1n] },
        update(1n, ["cancelled", 1n], ["pending", 1n]),
        update(2n, ["paid", 1n], ["cancelled", 1n]),
      ]),
      [status],
    );
    expect(found).toMatchObject([{ before: "cancelled", after: "pending", rows: 2 }]);
  });
});
