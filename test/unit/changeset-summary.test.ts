import { describe, expect, test } from "@jest/globals";
import { digestOf } from "../../src/base/digest.js";
import type { Change, ChangeSet, Origin, TableShape } from "../../src/changeset/change.js";
import { changeSet, sourceOf } from "../../src/changeset/source.js";
import { summarise, type Pattern, type Summary } from "../../src/changeset/summarise.js";
import type { Value } from "../../src/changeset/value.js";

const shape: TableShape = {
  name: "orders",
  columns: ["id", "status", "note", "total"].map((name) => ({ name, type: "" })),
  keyKind: "primary",
  key: [0],
};
const holds: TableShape = {
  name: "holds",
  columns: [{ name: "id", type: "" }],
  keyKind: "primary",
  key: [0],
};

const range = (n: number): readonly bigint[] => Array.from({ length: n }, (_, i) => BigInt(i + 1));
function update(id: bigint, from: readonly Value[], to: readonly Value[], origin: Origin = "job"): Change {
  return { table: "orders", key: [id], origin, op: "update", before: [id, ...from], after: [id, ...to] };
}
const hold = (id: bigint, origin: Origin): Change => ({
  table: "holds",
  key: [id],
  origin,
  op: "delete",
  before: [id],
});
const some = (changes: readonly Change[]): ChangeSet => changeSet([shape, holds], changes);
const seed = digestOf("a plan");
function summed(changes: readonly Change[], patternLimit = 5, sampleSize = 3, sampleSeed = seed): Summary {
  return summarise(sourceOf(some(changes)), { sampleSeed, sampleSize, patternLimit });
}

const shown = (v: Value): string => (typeof v === "object" ? "null" : v.toString());

/** `orders 12 status: 'a' → 'b', total: 40 distinct`. */
function line(p: Pattern): string {
  const columns = p.columns.map((c) =>
    c.kind === "transition"
      ? `${c.column}: ${shown(c.from)} → ${shown(c.to)}`
      : `${c.column}: ${c.exact ? "" : "over "}${c.distinct} distinct`,
  );
  return [p.op, p.table, p.rows, p.origin, ...columns, ...(p.various === true ? ["various"] : [])].join(" ");
}

describe("patterns", () => {
  test("group rows by table, operation, origin and from → to, largest first", () => {
    const changes = [
      ...range(2).map((id) => update(id, ["paid", null, 1n], ["cancelled", null, 1n])),
      ...range(30).map((id) => update(id + 100n, ["pending", null, 1n], ["cancelled", null, 1n])),
      ...range(7).map((id) => update(id + 200n, ["pending", null, 1n], ["cancelled", "expired", 1n])),
      ...range(9).map((id) => hold(id, "job")),
      ...range(4).map((id) => hold(id + 10n, "cascade")),
    ];
    expect(summed(changes).patterns.map(line)).toEqual([
      "update orders 30 job status: pending → cancelled",
      "delete holds 9 job",
      "update orders 7 job status: pending → cancelled note: null → expired",
      "delete holds 4 cascade",
      "update orders 2 job status: paid → cancelled",
    ]);
  });

  test("a column with more transitions than the limit is a number of distinct ones, over all rows", () => {
    const changes = range(40).map((id) => update(id, ["pending", null, id], ["cancelled", null, id % 7n]));
    const { patterns } = summed(changes.filter((c) => c.op === "update" && c.before[3] !== c.after[3]));
    expect(patterns.map(line)).toEqual([
      "update orders 34 job status: pending → cancelled total: 34 distinct",
    ]);
  });

  test("exactly as many transitions as the limit are still shown one by one", () => {
    const five = range(5).map((id) => update(id, ["a", null, id], ["a", null, -id]));
    expect(summed(five).patterns).toHaveLength(5);
    const six = range(6).map((id) => update(id, ["a", null, id], ["a", null, -id]));
    expect(summed(six).patterns.map(line)).toEqual(["update orders 6 job total: 6 distinct"]);
  });

  test("distinct transitions are counted up to a bound, then said to be more", () => {
    const many = range(1_500).map((id) => update(id, ["a", null, id], ["a", null, -id]));
    expect(summed(many).patterns.map(line)).toEqual(["update orders 1500 job total: over 1000 distinct"]);
  });

  test("too many combinations widen the column with the most transitions, and every row stays counted", () => {
    const changes = range(900).map((id) =>
      update(id, [`s${id % 30n}`, `n${(id / 30n) % 30n}`, 0n], ["gone", "cleared", 0n]),
    );
    const { patterns } = summed(changes, 50);
    expect(patterns.length).toBeLessThanOrEqual(200);
    expect(patterns.reduce((sum, p) => sum + p.rows, 0)).toBe(900);
  });

  test("too many sets of columns become one line that says so", () => {
    const wide: TableShape = {
      name: "wide",
      columns: ["id", ...range(9).map((i) => `c${i}`)].map((name) => ({ name, type: "" })),
      keyKind: "primary",
      key: [0],
    };
    const zeros = Array.from({ length: 9 }, () => 0n);
    const changes = range(511).map((id): Change => {
      const after = zeros.map((_, i) => (id >> BigInt(i)) & 1n);
      return {
        table: "wide",
        key: [id],
        origin: "job",
        op: "update",
        before: [id, ...zeros],
        after: [id, ...after],
      };
    });
    const cs = changeSet([wide], changes);
    const { patterns } = summarise(sourceOf(cs), { sampleSeed: seed, sampleSize: 0, patternLimit: 5 });
    expect(patterns).toHaveLength(1);
    expect(patterns[0]).toMatchObject({ rows: 511, various: true });
    expect(patterns[0]?.columns.map((c) => c.column)).toEqual(wide.columns.slice(1).map((c) => c.name));
  });

  test("a long value is never held for display", () => {
    const long = "x".repeat(5_000);
    expect(summed([update(1n, ["a", null, 1n], [long, null, 1n])]).patterns.map(line)).toEqual([
      "update orders 1 job status: 1 distinct",
    ]);
  });
});

describe("tables", () => {
  test("tell the columns that change, and those that end with one value", () => {
    const changes = range(6).map((id) => update(id, [`s${id}`, `n${id}`, 5n], ["gone", `m${id}`, 5n]));
    expect(summed(changes).tables).toEqual([
      {
        name: "orders",
        insert: 0,
        update: 6,
        delete: 0,
        columns: ["status", "note"],
        levelledTo: [{ column: "status", value: "gone" }],
        origin: "job",
        cascaded: 0,
        triggered: 0,
      },
    ]);
  });

  test("an inserted row with another value is not level, a deleted one does not matter", () => {
    const inserted: Change = {
      table: "orders",
      key: [9n],
      origin: "job",
      op: "insert",
      after: [9n, "new", null, 1n],
    };
    const deleted: Change = {
      table: "orders",
      key: [8n],
      origin: "job",
      op: "delete",
      before: [8n, "old", null, 1n],
    };
    const changed = update(1n, ["a", null, 1n], ["gone", null, 1n]);
    expect(summed([changed, inserted]).tables[0]?.levelledTo).toEqual([]);
    expect(summed([changed, deleted]).tables[0]?.levelledTo).toEqual([{ column: "status", value: "gone" }]);
  });

  test("an origin is told when all rows share it", () => {
    expect(summed([hold(1n, "cascade"), hold(2n, "cascade")]).tables[0]?.origin).toBe("cascade");
    expect(summed([hold(1n, "cascade"), hold(2n, "job")]).tables[0]?.origin).toBe("unknown");
  });
});

describe("the sample", () => {
  const changes = range(50).map((id) => update(id, ["a", null, 1n], ["b", null, 1n]));
  const keys = (summary: Summary): readonly (Value | undefined)[] => summary.sample.map((c) => c.key[0]);

  test("is the same on every machine for one seed", () => {
    expect(keys(summed(changes))).toEqual([16n, 19n, 47n]);
    expect(keys(summed([...changes].reverse()))).toEqual([16n, 19n, 47n]);
  });

  test("is another one for another seed", () => {
    expect(keys(summed(changes, 5, 3, digestOf("another plan")))).not.toEqual(keys(summed(changes)));
  });

  test("of a smaller size is part of the larger one", () => {
    const five = keys(summed(changes, 5, 5));
    expect(five).toHaveLength(5);
    expect(five).toEqual(expect.arrayContaining([...keys(summed(changes))]));
  });
});
