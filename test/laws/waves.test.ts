/** The cut of an effect into waves and batches: nothing lost, nothing twice, no group split, the same every time. */
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { type ChangeSet, countOf, type TableShape } from "../../src/changeset/change.js";
import { keyText } from "../../src/changeset/key.js";
import { changeSet, countsOf, sourceOf } from "../../src/changeset/source.js";
import { groupsOf, type SchemaTies, type Ties, tiesOf } from "../../src/changeset/ties.js";
import {
  type Batch,
  batchesOf,
  boundsOf,
  type Cut,
  dealOf,
  mergeBounds,
  parseWaves,
  valuesOf,
  waveColumn,
} from "../../src/changeset/waves.js";
import { changeSetArbitrary, LAW_RUNS } from "../support/changeset-arbitrary.js";

const NO_TIES: Ties = { firsts: null };
const runs = { numRuns: LAW_RUNS };

/** Ties over columns that some tables have: unique values, and references among all tables. */
function schemaOf(cs: ChangeSet, pick: number): SchemaTies {
  const columnOf = (t: TableShape): string => t.columns[pick % t.columns.length]?.name ?? "";
  return {
    uniques: cs.tables.map((t) => ({ table: t.name, columns: [columnOf(t)], isKey: false })),
    references: cs.tables.flatMap((t) =>
      cs.tables.map((p) => ({
        table: t.name,
        columns: [columnOf(t)],
        parent: p.name,
        parentColumns: [columnOf(p)],
      })),
    ),
  };
}

function dealt(cs: ChangeSet, ties: Ties, cut: Cut): readonly Batch[] {
  return batchesOf(sourceOf(cs), dealOf(sourceOf(cs), ties, cut));
}

function tied(cs: ChangeSet, pick: number): Ties {
  const ties = tiesOf(sourceOf(cs), countsOf(sourceOf(cs)), schemaOf(cs, pick));
  if (ties === null) throw new Error("not known");
  return ties;
}

const cases = fc.record({
  cs: changeSetArbitrary,
  pick: fc.nat({ max: 5 }),
  ends: fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 3 }),
  batchRows: fc.integer({ min: 1, max: 5 }),
});

const rowsIn = (cs: ChangeSet): number => cs.changes.reduce((n, c) => n + countOf(c), 0);

describe("batches", () => {
  test("together they are the effect, in the waves' bounds, with no group split", () => {
    fc.assert(
      fc.property(cases, ({ cs, pick, ends, batchRows }) => {
        const total = rowsIn(cs);
        const ties = tied(cs, pick);
        const cut = { bounds: mergeBounds(ends, [total]).filter((e) => e <= total), batchRows };
        const batches = dealt(cs, ties, cut);
        const parts = batches.map((b) => b.source.tables.flatMap((t) => [...b.source.changes(t.name)]));
        expect(changeSet(cs.tables, parts.flat())).toEqual(changeSet(cs.tables, cs.changes));
        let written = 0;
        for (const b of batches) {
          written += b.rows;
          expect(written).toBeLessThanOrEqual(cut.bounds[b.wave - 1] ?? 0);
        }
        const places = new Map(
          parts.flatMap((changes, i) => changes.map((c) => [`${c.table}\n${keyText(c.key)}`, i] as const)),
        );
        for (const group of groupsOf(ties)) {
          const members = group.flatMap((n) => cs.changes.slice(n, n + 1));
          expect(members).toHaveLength(group.length);
          expect(new Set(members.map((m) => places.get(`${m.table}\n${keyText(m.key)}`))).size).toBe(1);
        }
      }),
      runs,
    );
  });

  test("by a column: every value whole in its wave, values in order, as many as the wave says", () => {
    const shape: TableShape = {
      name: "t",
      columns: [
        { name: "id", type: "INTEGER" },
        { name: "tenant", type: "" },
      ],
      keyKind: "primary",
      key: [0],
    };
    const tenants = fc.array(fc.constantFrom(null, 1n, 2n, 3n, "a", "b"), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(
        tenants,
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 4 }),
        (of, end, rows) => {
          const changes = of.map((tenant, i) => {
            const row = [BigInt(i), tenant];
            return { op: "delete", table: "t", key: [BigInt(i)], before: row, origin: "unknown" } as const;
          });
          const cs = changeSet([shape], changes);
          const values = valuesOf(sourceOf(cs), "tenant");
          expect(new Set(values).size).toBe(new Set(of).size);
          const cut = {
            bounds: boundsOf([`tenant:${end}`, "100%"], values.length),
            batchRows: rows,
            by: "tenant",
          };
          const batches = dealt(cs, NO_TIES, cut);
          expect(
            changeSet(
              [shape],
              batches.flatMap((b) => [...b.source.changes("t")]),
            ),
          ).toEqual(cs);
          for (const b of batches) {
            expect(b.rows).toBeLessThanOrEqual(rows);
            for (const c of b.source.changes("t")) {
              const rank = values.indexOf(c.op === "delete" ? (c.before[1] ?? null) : null);
              expect(rank < (cut.bounds[b.wave - 1] ?? 0)).toBe(true);
              expect(rank >= (cut.bounds[b.wave - 2] ?? 0)).toBe(true);
            }
          }
          expect(dealOf(sourceOf(cs), NO_TIES, cut).batches).toEqual(
            batches.map(({ wave, batch, rows: n }) => ({ wave, batch, rows: n })),
          );
        },
      ),
      runs,
    );
  });

  test("are the same every time, and the outline is their numbers", () => {
    fc.assert(
      fc.property(cases, ({ cs, pick, ends, batchRows }) => {
        const total = rowsIn(cs);
        const cut = { bounds: mergeBounds(ends, [total]).filter((e) => e <= total), batchRows };
        const made = (): unknown[] =>
          dealt(cs, tied(cs, pick), cut).map(({ wave, batch, rows }) => ({
            wave,
            batch,
            rows,
          }));
        expect(made()).toEqual(made());
        expect(dealOf(sourceOf(cs), tied(cs, pick), cut).batches).toEqual(made());
      }),
      runs,
    );
  });
});

const ITEM: TableShape = {
  name: "item",
  columns: [
    { name: "id", type: "INTEGER" },
    { name: "owner", type: "INTEGER" },
    { name: "code", type: "TEXT" },
  ],
  keyKind: "primary",
  key: [0],
};
const OWNER: TableShape = { ...ITEM, name: "owner", columns: ITEM.columns.slice(0, 1) };
const SCHEMA: SchemaTies = {
  references: [{ table: "ITEM", columns: ["Owner"], parent: "owner", parentColumns: ["id"] }],
  uniques: [{ table: "item", columns: ["code"], isKey: false }],
};
const facts = { origin: "job" } as const;

describe("rows that hang together", () => {
  const keysOf = (cs: ChangeSet, schema: SchemaTies | undefined = SCHEMA): number[][] | null => {
    const ties = tiesOf(sourceOf(cs), countsOf(sourceOf(cs)), schema);
    return ties === null ? null : groupsOf(ties).map((g) => g.map((n) => Number(cs.changes[n]?.key[0])));
  };
  const update = (id: bigint, before: string | null, after: string | null, owner = 1n) =>
    ({
      ...facts,
      table: "item",
      key: [id],
      op: "update",
      before: [id, owner, before],
      after: [id, owner, after],
    }) as const;

  test("both ends of a foreign key", () => {
    const cs = changeSet(
      [ITEM, OWNER],
      [
        { ...facts, table: "owner", key: [1n], op: "delete", before: [1n] },
        { ...facts, table: "item", key: [7n], op: "delete", before: [7n, 1n, "a"] },
        { ...facts, table: "item", key: [8n], op: "delete", before: [8n, 2n, "b"] },
      ],
    );
    expect(keysOf(cs)).toEqual([[7, 1]]);
  });

  test("children of a parent that stays hang on nothing", () => {
    const cs = changeSet([ITEM], [update(1n, "a", "b"), update(2n, "c", "d")]);
    expect(keysOf(cs)).toEqual([]);
  });

  test("a unique value that changes hands, in any case and around a ring", () => {
    expect(keysOf(changeSet([ITEM], [update(1n, "a", "x"), update(2n, "b", "A")]))).toEqual([[1, 2]]);
    const ring = [update(1n, "a", "b"), update(2n, "b", "c"), update(3n, "c", "a"), update(4n, "z", null)];
    expect(keysOf(changeSet([ITEM], ring))).toEqual([[1, 2, 3]]);
  });

  test("the two ends of a changed key", () => {
    const cs = changeSet(
      [ITEM],
      [
        { ...facts, table: "item", key: [1n], op: "delete", before: [1n, 9n, null], link: [5n] },
        { ...facts, table: "item", key: [5n], op: "insert", after: [5n, 9n, null], link: [1n] },
        { ...facts, table: "item", key: [6n], op: "insert", after: [6n, 9n, null] },
      ],
    );
    expect(keysOf(cs)).toEqual([[1, 5]]);
  });

  test("a unique expression ties every row that could give and take", () => {
    const cs = changeSet([ITEM], [update(1n, "a", "b"), update(2n, "c", "d")]);
    expect(keysOf(cs, { references: [], uniques: [{ table: "item", columns: null, isKey: false }] })).toEqual(
      [[1, 2]],
    );
  });

  test("where the schema's ties are not known, everything is one group", () => {
    expect(keysOf(changeSet([ITEM], [update(1n, "a", "b")]), undefined)).not.toEqual([[1]]);
    expect(tiesOf(sourceOf(changeSet([ITEM], [])), [], undefined)).toBeNull();
  });
});

describe("waves", () => {
  test.each([
    ["1%,10%,100%", 1000, [10, 100, 1000]],
    ["1%", 10, [1, 10]],
    ["5,50", 20, [5, 20]],
    ["50%,100%", 1, [1]],
    ["0.1%", 100, [1, 100]],
    ["tenant:1,8", 68, [1, 8, 68]],
    ["a:b:10%", 20, [2, 20]],
  ])("%s of %d rows end at %j", (text, rows, ends) => {
    expect(boundsOf(parseWaves(text), rows)).toEqual(ends);
  });

  test("the column is all before the last colon", () => {
    expect(waveColumn(parseWaves("a:b:1,2"))).toBe("a:b");
    expect(waveColumn(parseWaves("1%,2%"))).toBeNull();
    expect(() => parseWaves("tenant:")).toThrow();
    expect(() => parseWaves(":5")).toThrow();
  });
});
