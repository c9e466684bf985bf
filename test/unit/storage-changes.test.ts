import { execFileSync } from "node:child_process";
import { existsSync, lstatSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import {
  type Change,
  type ChangeSet,
  type ChangeSource,
  countOf,
  type TableShape,
} from "../../src/changeset/change.js";
import { digestOfSource } from "../../src/changeset/encode.js";
import { changeSet, collect, countsOf, sourceOf } from "../../src/changeset/source.js";
import { summarise } from "../../src/changeset/summarise.js";
import { tiesOf } from "../../src/changeset/ties.js";
import { sameRow, sameValue, type Value } from "../../src/changeset/value.js";
import { afterOf, beforeOf } from "../../src/changeset/change.js";
import { batchesOf, dealOf, mergeBounds } from "../../src/changeset/waves.js";
import { valueFromJson, valueToJson } from "../../src/storage/cells.js";
import {
  type ChangesFile,
  type ChangesOptions,
  createChanges,
  openChanges,
} from "../../src/storage/changes.js";
import { driverMisfit } from "../../src/storage/sqlite.js";
import { runBounded } from "../../src/machine/child.js";
import { changeSetArbitrary, HOSTILE_VALUES, valueArbitrary } from "../support/changeset-arbitrary.js";
import { inFolder } from "../support/temporary.js";

const kept: ChangesOptions = { runBounded, removeOnClose: false };
const passing: ChangesOptions = { runBounded, removeOnClose: true };

const orders: TableShape = {
  name: "orders",
  columns: [
    { name: "id", type: "INTEGER" },
    { name: "status", type: "TEXT" },
  ],
  keyKind: "primary",
  key: [0],
};
const paid = (id: bigint): Change => ({
  op: "update",
  table: "orders",
  key: [id],
  origin: "job",
  before: [id, "pending"],
  after: [id, "paid"],
});

const keysOf = (changes: readonly Change[]): readonly (readonly Value[])[] => changes.map((c) => c.key);

async function stored(folder: string, cs: ChangeSet, options = kept): Promise<ChangesFile> {
  const writer = await createChanges(join(folder, `${readdirSync(folder).length}.db`), options);
  for (const shape of cs.tables) writer.table(shape);
  for (const change of cs.changes) writer.add(change);
  return writer.finish();
}

describe("the working form of a ChangeSet", () => {
  test("law: a change that was dropped again was never there", () =>
    inFolder((folder) =>
      fc.assert(
        fc.asyncProperty(changeSetArbitrary, fc.infiniteStream(fc.boolean()), async (cs, coin) => {
          const dropped = new Set(cs.changes.filter(() => coin.next().value === true));
          const writer = await createChanges(join(folder, "dropping.db"), passing);
          for (const shape of cs.tables) writer.table(shape);
          for (const change of cs.changes) writer.add(change);
          for (const { table, key } of [...dropped, ...dropped]) writer.drop(table, key);
          const left = writer.finish();
          const expected = changeSet(
            cs.tables,
            cs.changes.filter((c) => !dropped.has(c)),
          );
          expect(digestOfSource(left)).toEqual(digestOfSource(sourceOf(expected)));
          left.close();
        }),
        { numRuns: 40 },
      ),
    ));

  test("law: reads back as it was written, whatever the order it came in, also after opening it again", () =>
    inFolder((folder) =>
      fc.assert(
        fc.asyncProperty(changeSetArbitrary, async (cs) => {
          const backwards = { tables: cs.tables.toReversed(), changes: cs.changes.toReversed() };
          const first = await stored(folder, backwards, passing);
          expect(digestOfSource(first)).toEqual(digestOfSource(sourceOf(cs)));
          expect(collect(first).changes.length).toBe(cs.changes.length);
          for (const change of cs.changes) {
            const found = first.get(change.table, change.key);
            expect(found?.op).toBe(change.op);
            expect(found !== undefined && sameRow(beforeOf(found), beforeOf(change))).toBe(true);
            expect(found !== undefined && sameRow(afterOf(found), afterOf(change))).toBe(true);
          }
          const again = await openChanges(first.path, kept);
          expect(digestOfSource(again).digest).toBe(digestOfSource(sourceOf(cs)).digest);
          again.close();
          first.close();
          expect(readdirSync(folder)).toEqual([]);
        }),
        { numRuns: 60 },
      ),
    ));

  test("law: dealt into transactions it holds in each what batches in memory hold, as often as asked", () =>
    inFolder((folder) =>
      fc.assert(
        fc.asyncProperty(
          changeSetArbitrary,
          fc.nat({ max: 5 }),
          fc.integer({ min: 1, max: 4 }),
          async (cs, pick, batchRows) => {
            const file = await stored(folder, cs, passing);
            const memory = sourceOf(cs);
            const uniques = cs.tables.map((t) => ({
              table: t.name,
              columns: [t.columns[pick % t.columns.length]?.name ?? ""],
              isKey: false,
            }));
            const ties = tiesOf(memory, countsOf(memory), { references: [], uniques });
            expect(tiesOf(file, countsOf(file), { references: [], uniques })).toEqual(ties);
            if (ties === null) throw new Error("not known");
            const rows = cs.changes.reduce((n, c) => n + countOf(c), 0);
            for (const end of [1, rows]) {
              const cut = { bounds: mergeBounds([end], [rows]), batchRows };
              const deal = dealOf(file, ties, cut);
              expect(deal).toEqual(dealOf(memory, ties, cut));
              const digests = (parts: Iterable<ChangeSource>): unknown =>
                Array.from(parts, (part) => digestOfSource(part).digest);
              const inMemory = digests(batchesOf(memory, deal).map((b) => b.source));
              expect(digests(file.dealt?.(deal) ?? [])).toEqual(inMemory);
              expect(digests(file.dealt?.(deal) ?? [])).toEqual(inMemory);
            }
            file.close();
            expect(readdirSync(folder)).toEqual([]);
          },
        ),
        { numRuns: 60 },
      ),
    ));

  test("a deal that leaves rows out is not written", () =>
    inFolder(async (folder) => {
      const file = await stored(folder, changeSet([orders], [paid(1n), paid(2n)]));
      const batches = [{ wave: 1, batch: 1, rows: 1 }];
      expect(() => [...(file.dealt?.({ batches, batchOf: new Uint32Array(1) }) ?? [])]).toThrow(
        expect.objectContaining({ code: "ERR_CHANGESET_ALTERED" }),
      );
      expect(readdirSync(folder)).toEqual(["0.db"]);
      file.close();
    }));

  test("law: any number of rows in order, of any mixture, are the changes that were added, and each is found by its place", () =>
    inFolder((folder) => {
      const row = fc.record({
        op: fc.constantFrom("insert", "update", "delete"),
        v: valueArbitrary,
        w: valueArbitrary,
      });
      const origins = fc.constantFrom("job", "cascade", "unknown");
      return fc.assert(
        fc.asyncProperty(fc.array(row, { minLength: 1, maxLength: 70 }), origins, async (rows, origin) => {
          const changes = rows.flatMap(({ op, v, w }, i): Change[] => {
            const facts = { table: "orders", key: [BigInt(i)], origin } as const;
            const [before, after] = [
              [BigInt(i), v],
              [BigInt(i), w],
            ];
            if (op === "insert") return [{ ...facts, op, after }];
            if (op === "delete" || sameValue(v, w)) return [{ ...facts, op: "delete", before }];
            return [{ ...facts, op: "update", before, after }];
          });
          const cs = changeSet([orders], changes);
          const file = await stored(folder, cs, passing);
          expect(digestOfSource(file)).toEqual(digestOfSource(sourceOf(cs)));
          for (const place of [0, 15, 16, changes.length - 1, changes.length])
            expect(file.nth?.("orders", place)?.key).toEqual(changes[place]?.key);
          const options = { sampleSeed: digestOfSource(file).digest, sampleSize: 4, patternLimit: 3 };
          expect(keysOf(summarise(file, options).sample)).toEqual(
            keysOf(summarise(sourceOf(cs), options).sample),
          );
          file.close();
        }),
        { numRuns: 60 },
      );
    }));

  test("a second change of one key is refused, in whatever order it comes", () =>
    inFolder(async (folder) => {
      for (const again of [3n, 0n, 39n]) {
        const writer = await createChanges(join(folder, `${again}.db`), passing);
        writer.table(orders);
        for (let i = 0n; i < 40n; i++) writer.add(paid(i));
        expect(() => writer.add(paid(again))).toThrow(expect.objectContaining({ code: "ERR_INTERNAL" }));
        writer.abort();
      }
      expect(readdirSync(folder)).toEqual([]);
    }));

  test("a value of megabytes among small ones is kept as it is", () =>
    inFolder(async (folder) => {
      const long = (i: bigint): string => (i % 7n === 0n ? "x".repeat(300_000) : `y${i}`);
      const changes = Array.from({ length: 40 }, (_, i): Change => ({
        op: "insert",
        table: "orders",
        key: [BigInt(i)],
        origin: "job",
        after: [BigInt(i), long(BigInt(i))],
      }));
      const cs = changeSet([orders], changes);
      const file = await stored(folder, cs);
      expect(digestOfSource(file)).toEqual(digestOfSource(sourceOf(cs)));
      file.close();
    }));

  test("keeps every hostile value as itself", () =>
    inFolder(async (folder) => {
      const shape: TableShape = {
        ...orders,
        columns: [orders.columns[0] ?? { name: "id", type: "" }, { name: "v", type: "REAL" }],
      };
      const changes = HOSTILE_VALUES.map((v, i): Change => ({
        op: "insert",
        table: "orders",
        key: [BigInt(i)],
        origin: "unknown",
        after: [BigInt(i), v],
      }));
      const file = await stored(folder, changeSet([shape], changes));
      const found = [...file.changes("orders")];
      HOSTILE_VALUES.forEach((v, i) =>
        expect(found[i] !== undefined && sameRow(afterOf(found[i]), [BigInt(i), v])).toBe(true),
      );
      file.close();
    }));

  test("tells hostile table and column names apart", () =>
    inFolder(async (folder) => {
      const names = [
        "op",
        "OP",
        "key",
        "before_op",
        "after_key",
        "holdpoint_shape",
        'a"b',
        "a'b;--",
        "a\0b",
        "",
        " ",
        "sqlite_sequence",
        "Op_2",
      ];
      const shapes = names.map((name, t): TableShape => ({
        name,
        columns: names.map((c) => ({ name: c, type: "" })),
        keyKind: "primary",
        key: [t],
      }));
      const changes = shapes.flatMap(({ name, key }, t): Change[] => {
        const row = names.map((_, c): Value => BigInt(100 * t + c));
        const after = row.map((v, c) => (c === key[0] ? v : `${name}.${c}`));
        return [{ op: "update", table: name, key: [row[t] ?? null], origin: "job", before: row, after }];
      });
      const cs = changeSet(shapes, changes);
      const file = await stored(folder, cs);
      expect(digestOfSource(file)).toEqual(digestOfSource(sourceOf(cs)));
      const answer = await file.query(`SELECT "before_op", "before_OP_2" FROM "a""b"`, {
        maxRows: 5,
        maxMs: 10_000,
      });
      expect(answer.rows).toEqual([[600n, 601n]]);
      file.close();
    }));

  test("refuses what has no canonical form, and leaves nothing behind when it is given up", () =>
    inFolder(async (folder) => {
      const path = join(folder, "work.db");
      const writer = await createChanges(path, kept);
      writer.table(orders);
      writer.add(paid(1n));
      const internal = expect.objectContaining({ code: "ERR_INTERNAL" });
      expect(() => writer.add(paid(1n))).toThrow(internal);
      expect(() => writer.add({ ...paid(2n), table: "unheard" })).toThrow(internal);
      expect(() =>
        writer.add({ op: "delete", table: "orders", key: [3n], origin: "job", before: [4n, "x"] }),
      ).toThrow(internal);
      expect(() => writer.table({ ...orders, key: [1] })).toThrow(internal);
      const lone: Change = { op: "insert", table: "orders", key: [5n], origin: "job", after: [5n, "\ud800"] };
      expect(() => writer.add(lone)).toThrow(expect.objectContaining({ code: "ERR_TARGET_VALUE" }));
      expect(existsSync(path)).toBe(false);
      writer.abort();
      expect(readdirSync(folder)).toEqual([]);
    }));

  test("refuses a table too wide for it by name", () =>
    inFolder(async (folder) => {
      const writer = await createChanges(join(folder, "work.db"), kept);
      const wide = (n: number): TableShape => ({
        ...orders,
        columns: Array.from({ length: n }, (_, i) => ({ name: `c${i}`, type: "" })),
      });
      expect(() => writer.table(wide(998))).toThrow(expect.objectContaining({ code: "ERR_TARGET_VALUE" }));
      writer.table(wide(997));
      writer.abort();
    }));

  test("leaves out tables without a change, is private, and closes under a reader that stopped half-way", () =>
    inFolder(async (folder) => {
      const writer = await createChanges(join(folder, "work.db"), passing);
      writer.table({ ...orders, name: "quiet" });
      writer.table(orders);
      for (let i = 0n; i < 10n; i++) writer.add(paid(i));
      const file = writer.finish();
      expect(file.tables).toEqual([orders]);
      expect([...file.changes("quiet"), ...file.changes("unheard")]).toEqual([]);
      expect(lstatSync(file.path).mode & 0o777).toBe(0o600);
      const [one, two] = [
        file.changes("orders")[Symbol.iterator](),
        file.changes("orders")[Symbol.iterator](),
      ];
      expect([one.next().value, two.next().value, one.next().value]).toEqual([paid(0n), paid(0n), paid(1n)]);
      file.close();
      expect(readdirSync(folder)).toEqual([]);
    }));

  test("opens nothing that is not a finished file of ours", () =>
    inFolder(async (folder) => {
      writeFileSync(join(folder, "text"), "hello".repeat(1000));
      writeFileSync(join(folder, "empty"), "");
      const writer = await createChanges(join(folder, "work.db"), kept);
      for (const name of ["text", "empty", "work.db.part"]) {
        await expect(openChanges(join(folder, name), kept)).rejects.toThrow();
      }
      await expect(openChanges(join(folder, "text"), kept)).rejects.toMatchObject({
        code: "ERR_CHANGESET_ALTERED",
      });
      await expect(openChanges(join(folder, "empty"), kept)).rejects.toMatchObject({
        code: "ERR_CHANGESET_ALTERED",
      });
      writer.abort();
    }));

  test("holds memory flat: ten times the rows take no more of it", () =>
    inFolder((folder) => {
      const script = fileURLToPath(new URL("../support/changes-child.js", import.meta.url));
      const peakOf = (rows: number): number =>
        Number(
          execFileSync(process.execPath, ["--max-old-space-size=64", script, folder, String(rows)], {
            encoding: "utf8",
          }),
        );
      // 200,000 rows have 160 MB of images; SQLite's page cache takes 16 MB, the rest is garbage not yet collected.
      expect(peakOf(200_000) - peakOf(20_000)).toBeLessThan(60);
    }));
});

describe("a question in SQL", () => {
  const limits = { maxRows: 10, maxMs: 20_000 };
  const withFile = (use: (file: ChangesFile) => Promise<void>): Promise<void> =>
    inFolder(async (folder) => {
      const raw: Value = { kind: "raw-text", bytes: Uint8Array.of(0xff) };
      const odd: Change = { op: "insert", table: "orders", key: [99n], origin: "trigger", after: [99n, raw] };
      const nan: Change = {
        op: "update",
        table: "orders",
        key: [100n],
        origin: "job",
        before: [100n, null],
        after: [100n, Number.NaN],
      };
      const file = await stored(
        folder,
        changeSet([orders], [...Array.from({ length: 20 }, (_, i) => paid(BigInt(i))), odd, nan]),
      );
      try {
        await use(file);
      } finally {
        file.close();
      }
    });

  test("is answered from the changes, with NULL, NaN and '' apart", () =>
    withFile(async (file) => {
      const counted = await file.query(
        "SELECT op, count(*) AS rows FROM orders GROUP BY op ORDER BY op",
        limits,
      );
      expect(counted).toEqual({
        columns: ["op", "rows"],
        rows: [
          ["insert", 1n],
          ["update", 21n],
        ],
        truncated: false,
      });
      const odd = await file.query(
        "-- which\nSELECT before_status, after_status, '', 2.5, x'00ff' FROM orders WHERE after_id >= 99",
        limits,
      );
      expect(odd.rows).toEqual([
        [null, "\uFFFD", "", 2.5, Buffer.of(0, 255)],
        [null, "NaN", "", 2.5, Buffer.of(0, 255)],
      ]);
    }));

  test("gets no more rows than asked for, and says so", () =>
    withFile(async (file) => {
      const some = await file.query("SELECT after_id FROM orders", limits);
      expect(some.rows.length).toBe(10);
      expect(some.truncated).toBe(true);
      const big = await file.query(
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT zeroblob(9000000) FROM c",
        limits,
      );
      expect([big.rows.length, big.truncated]).toEqual([1, true]);
    }));

  test("is stopped when it takes too long, and the file goes on working", () =>
    withFile(async (file) => {
      const endless =
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
      await expect(file.query(endless, { maxRows: 1, maxMs: 700 })).rejects.toMatchObject({
        code: "ERR_USAGE",
        why: expect.stringContaining("700 ms"),
      });
      expect(file.get("orders", [3n])).toEqual(paid(3n));
    }));

  test.each([
    "DELETE FROM orders",
    "UPDATE orders SET op = 'insert'",
    "WITH x AS (SELECT 1) DELETE FROM orders RETURNING op",
    "SELECT 1; DELETE FROM orders",
    "ATTACH 'elsewhere.db' AS e",
    "PRAGMA query_only = OFF",
    "/* SELECT */ PRAGMA journal_mode",
    "-- SELECT\nVACUUM INTO 'copy.db'",
    "EXPLAIN SELECT 1",
    "CREATE TABLE t (a)",
    "SELECT load_extension('x')",
    "SELECT * FROM nothing_of_that_name",
    "SELECT ?",
    "",
    "SELEC",
  ])("that is %j is refused", (sql) =>
    withFile(async (file) => {
      const before = digestOfSource(file).digest;
      await expect(file.query(sql, limits)).rejects.toMatchObject({ code: "ERR_USAGE" });
      expect(digestOfSource(file).digest).toBe(before);
    }),
  );
});

test("law: a value survives its JSON form", () => {
  fc.assert(
    fc.property(valueArbitrary, (v) => {
      const back = valueFromJson(valueToJson(v));
      expect(back !== undefined && sameRow([back], [v])).toBe(true);
    }),
  );
  for (const none of [
    1,
    true,
    [],
    {},
    { integer: "x" },
    { real: "00" },
    { blob: "0" },
    { blob: "00", more: "" },
    { other: "00" },
  ]) {
    expect(valueFromJson(none)).toBeUndefined();
  }
});

test("a driver that would crash this Node is refused before it is loaded", () => {
  expect(driverMisfit("12.11.1", { napi: "9", node: "20.20.2" })).toBeUndefined();
  expect(driverMisfit("13.2.0", { napi: "10", node: "22.14.0" })).toBeUndefined();
  expect(driverMisfit("13.2.0", { napi: "9", node: "22.13.1" })).toMatchObject({ code: "ERR_USAGE" });
});

test("keys by predicate are all there, also where they are more than one answer holds", () =>
  inFolder(async (folder) => {
    const writer = await createChanges(join(folder, "many.db"), passing);
    writer.table(orders);
    for (let id = 1n; id <= 230_000n; id++)
      writer.add({ op: "insert", table: "orders", key: [id], origin: "job", after: [id, "new"] });
    const file = writer.finish();
    try {
      const limits = { maxRows: 1_000_000, maxMs: 60_000 };
      expect((await file.keysWhere("orders", "id > 0", limits)).size).toBe(230_000);
      expect((await file.keysWhere("orders", "id % 2 = 0 -- every other", limits)).size).toBe(115_000);
      expect((await file.keysWhere("orders", "1) OR (1", limits)).size).toBe(230_000);
      expect((await file.keysWhere("orders", "0", limits)).size).toBe(0);
      await expect(file.keysWhere("orders", "id > 0", { ...limits, maxRows: 200_000 })).rejects.toMatchObject(
        {
          code: "ERR_USAGE",
        },
      );
    } finally {
      file.close();
    }
  }));
