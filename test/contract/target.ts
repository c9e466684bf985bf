/**
 * What every adapter promises, as one suite: each runs it against its real engine. The SQL here is what all engines
 * understand; what they spell differently, the factory supplies.
 */
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { keyOf, type ChangeSet, type TableShape } from "../../src/changeset/change.js";
import { compareKeys } from "../../src/changeset/key.js";
import { invert } from "../../src/changeset/invert.js";
import { sourceOf } from "../../src/changeset/source.js";
import type { Row } from "../../src/changeset/value.js";
import type { Marker } from "../../src/target/marker.js";
import type { Target } from "../../src/target/target.js";
import { refusal } from "../support/refusal.js";
import { applyAll, rehearseAll, sqlJob } from "../support/rehearsing.js";

/** One fresh database of one engine. */
export interface ContractDatabase {
  readonly open: () => Promise<Target>;
  /** Runs SQL beside the adapter, as any other program would. */
  readonly exec: (sql: string) => Promise<void>;
  /** Schema and rows, sorted, the marker left out. */
  readonly dump: () => Promise<string>;
  readonly drop: () => Promise<void>;
}

/** How an engine is tried. */
export interface ContractFactory {
  readonly name: string;
  readonly create: () => Promise<ContractDatabase>;
  /** A trigger that writes `('gone', OLD.id)` into `audit` for every row deleted from `orders`. */
  readonly auditTrigger: string;
}

const SCHEMA = `
  CREATE TABLE customers (id INTEGER NOT NULL PRIMARY KEY, email TEXT UNIQUE, name TEXT);
  CREATE TABLE orders (id INTEGER NOT NULL PRIMARY KEY, customer INTEGER REFERENCES customers (id) ON DELETE CASCADE, status TEXT);
  CREATE TABLE audit (what TEXT, id INTEGER);
  INSERT INTO customers VALUES (1, 'ann@shop.example', 'Ann'), (2, 'bob@shop.example', 'Bob'), (3, NULL, '');
  INSERT INTO orders VALUES (10, 1, 'new'), (11, 1, 'paid'), (12, 2, 'new');
  INSERT INTO audit VALUES ('seen', 1), ('seen', 1), ('seen', 2);`;

const MARKER: Marker = {
  format: "holdpoint-marker/1",
  identity: "test:00112233445566778899aabbccddeeff",
  name: "shop",
  environment: "production",
  place: { host: "it's here" },
  bundle: `sha256:${"1".repeat(64)}`,
  ledger: "lg_0000000000000000",
  ledgerSequence: 0,
  ledgerHead: `sha256:${"2".repeat(64)}`,
  pinnedAt: "2026-11-22T12:00:00Z",
  pinnedBy: "tests",
};

/** Declares the suite for one engine. */
export function describeTarget(factory: ContractFactory): void {
  describe(`a target (${factory.name})`, () => {
    let database: ContractDatabase;
    let target: Target;

    beforeEach(async () => {
      database = await factory.create();
      await database.exec(SCHEMA);
      target = await database.open();
    });
    afterEach(async () => {
      await target.close();
      await database.drop();
    });

    const effectOf = async (...statements: readonly string[]): Promise<ChangeSet> =>
      (await rehearseAll(target, sqlJob(...statements))).effect;
    const shapeOf = async (table: string): Promise<TableShape> => {
      const shape = (await target.schema()).tables.find((t) => t.name === table);
      if (shape === undefined) throw new Error(`no table ${table}`);
      return shape;
    };
    const rowsOf = async (table: string): Promise<readonly Row[]> => {
      const rows: Row[] = [];
      for await (const row of target.scan(await shapeOf(table))) rows.push(row);
      return rows;
    };

    test("rehearsing shows the effect with its cascades and leaves everything as it was", async () => {
      const before = await database.dump();
      const { effect, rehearsal } = await rehearseAll(target, sqlJob("DELETE FROM customers WHERE id = 1"));
      expect(await database.dump()).toBe(before);
      expect(effect.changes.map((c) => [c.table, c.op, c.key])).toEqual([
        ["customers", "delete", [1n]],
        ["orders", "delete", [10n]],
        ["orders", "delete", [11n]],
      ]);
      expect(rehearsal.rowsBefore).toEqual({ customers: 3, orders: 3 });
    });

    test("applying equals running the job, and its inverse restores", async () => {
      const job = [
        "UPDATE orders SET status = 'sent' WHERE status = 'paid'",
        "DELETE FROM customers WHERE id = 2",
        "INSERT INTO customers VALUES (4, 'dan@shop.example', NULL)",
      ];
      const before = await database.dump();
      const effect = await effectOf(...job);
      expect(await applyAll(target, effect)).toMatchObject({
        written: 4,
        alreadyDone: 0,
        problems: [],
        wrong: [],
      });
      const applied = await database.dump();
      expect(await applyAll(target, invert(effect))).toMatchObject({ written: 4, problems: [], wrong: [] });
      expect(await database.dump()).toBe(before);
      await database.exec(job.join(";"));
      expect(await database.dump()).toBe(applied);
    });

    test("rows are counted by the values of a column, with an index and without", async () => {
      const values = ["new", "paid", "none of them", null];
      await database.exec("INSERT INTO orders VALUES (13, 2, NULL), (14, 2, NULL), (15, 2, 'NEW')");
      const counts = async (): Promise<readonly number[] | undefined> =>
        target.countByValue?.("orders", "status", values);
      expect(await counts()).toEqual([2, 1, 0, 2]);
      await database.exec("CREATE INDEX orders_status ON orders (status)");
      expect(await counts()).toEqual([2, 1, 0, 2]);
      expect(await target.countByValue?.("orders", "customer", [1n, 2n, 7n])).toEqual([2, 4, 0]);
    });

    test("vitals tell size and newest rows, and read no table that has no index for it", async () => {
      await database.exec("CREATE TABLE events (id INTEGER NOT NULL PRIMARY KEY, at TEXT, late TEXT)");
      await database.exec(
        "INSERT INTO events VALUES (7, '2026-11-22 11:00:00', 'x'), (9, '2026-11-22 10:00:00', 'y')",
      );
      await database.exec("CREATE INDEX events_at ON events (at)");
      await database.exec("CREATE INDEX events_late ON events (late) WHERE late = 'x'");
      const asked = ["at", "id", "late", "gone"].map((column) => ({ table: "events", column }));
      const vitals = await target.vitals?.([...asked, { table: "none", column: "at" }]);
      expect(vitals?.sizeBytes).toBeGreaterThan(1_000);
      expect(vitals?.newest).toEqual([
        { kind: "value", value: "2026-11-22 11:00:00" },
        { kind: "value", value: 9n },
        { kind: "not-read", why: "no index of events begins with late" },
        { kind: "not-read", why: "events has no column gone" },
        { kind: "not-read", why: "there is no table none" },
      ]);
    });

    test("a change of nothing is no change", async () => {
      expect((await effectOf("UPDATE orders SET status = status")).changes).toEqual([]);
      expect(
        (await effectOf("INSERT INTO orders VALUES (99, 1, 'x')", "DELETE FROM orders WHERE id = 99"))
          .changes,
      ).toEqual([]);
    });

    test("triggers take effect once: captured at the rehearsal, silent while rows are written", async () => {
      await database.exec(factory.auditTrigger);
      const effect = await effectOf("DELETE FROM orders WHERE id = 12");
      expect(effect.changes.map((c) => [c.table, c.op])).toEqual([
        ["audit", "insert"],
        ["orders", "delete"],
      ]);
      await applyAll(target, effect);
      expect(await target.countRows("audit")).toBe(4);
      await database.exec("DELETE FROM orders WHERE id = 11");
      expect(await target.countRows("audit")).toBe(5);
    });

    test("a changed key is a linked delete and insert", async () => {
      const effect = await effectOf("UPDATE orders SET id = 20 WHERE id = 10");
      expect(effect.changes).toMatchObject([
        { op: "delete", key: [10n], link: [20n] },
        { op: "insert", key: [20n], link: [10n] },
      ]);
      expect(await applyAll(target, effect)).toMatchObject({ written: 2, problems: [], wrong: [] });
    });

    test("unique values can be swapped", async () => {
      const effect = await effectOf(
        "UPDATE customers SET email = 'tmp' WHERE id = 1",
        "UPDATE customers SET email = 'ann@shop.example' WHERE id = 2",
        "UPDATE customers SET email = 'bob@shop.example' WHERE id = 1",
      );
      expect(await applyAll(target, effect)).toMatchObject({ written: 2, problems: [], wrong: [] });
      expect((await rowsOf("customers")).map((r) => r[1])).toEqual([
        "bob@shop.example",
        "ann@shop.example",
        null,
      ]);
      expect(await applyAll(target, invert(effect))).toMatchObject({ written: 2, problems: [], wrong: [] });
    });

    test("equal rows of a table without a key are counted", async () => {
      const effect = await effectOf("DELETE FROM audit WHERE id = 1", "INSERT INTO audit VALUES ('seen', 2)");
      expect(effect.changes).toMatchObject([
        { op: "delete", before: ["seen", 1n], count: 2 },
        { op: "insert", after: ["seen", 2n] },
      ]);
      expect(await applyAll(target, effect)).toMatchObject({ written: 3, problems: [] });
      expect(await rowsOf("audit")).toEqual([
        ["seen", 2n],
        ["seen", 2n],
      ]);
    });

    test("an update whose cells were changed since is drift, and nothing is written", async () => {
      const effect = await effectOf("UPDATE orders SET status = 'sent'");
      await database.exec("UPDATE orders SET status = 'held' WHERE id = 11");
      const before = await database.dump();
      const outcome = await applyAll(target, effect);
      expect(outcome.problems).toMatchObject([
        { kind: "drift", change: { key: [11n] }, now: [11n, 1n, "held"], nowCount: 1 },
      ]);
      expect(await database.dump()).toBe(before);
    });

    test("an update leaves newer cells that it does not touch", async () => {
      const effect = await effectOf("UPDATE orders SET status = 'sent' WHERE id = 12");
      await database.exec("UPDATE orders SET customer = 3 WHERE id = 12");
      expect(await applyAll(target, effect)).toMatchObject({ written: 1, problems: [], wrong: [] });
      expect((await rowsOf("orders")).at(-1)).toEqual([12n, 3n, "sent"]);
    });

    test("a delete of a row that was edited anywhere is drift", async () => {
      const effect = await effectOf("DELETE FROM orders WHERE id = 12");
      await database.exec("UPDATE orders SET customer = 3 WHERE id = 12");
      expect((await applyAll(target, effect)).problems).toMatchObject([
        { kind: "drift", now: [12n, 3n, "new"] },
      ]);
    });

    test("an insert whose key lives already is drift", async () => {
      const effect = await effectOf("INSERT INTO orders VALUES (30, 1, 'new')");
      await database.exec("INSERT INTO orders VALUES (30, 2, 'other')");
      expect((await applyAll(target, effect)).problems).toMatchObject([
        { kind: "drift", now: [30n, 2n, "other"] },
      ]);
    });

    test("a row that is already as the plan leaves it is done, not written again", async () => {
      const effect = await effectOf(
        "UPDATE orders SET status = 'sent' WHERE id = 12",
        "DELETE FROM orders WHERE id = 10",
      );
      await applyAll(target, effect);
      expect(await applyAll(target, effect)).toMatchObject({ written: 0, alreadyDone: 2, problems: [] });
    });

    test("a unique value that somebody else took is a constraint problem", async () => {
      const effect = await effectOf("UPDATE customers SET email = 'eve@shop.example' WHERE id = 3");
      await database.exec("INSERT INTO customers VALUES (5, 'eve@shop.example', 'Eve')");
      expect((await applyAll(target, effect)).problems).toMatchObject([
        { kind: "constraint", change: { key: [3n] } },
      ]);
    });

    test("a child that came since keeps its parent from being deleted", async () => {
      const effect = await effectOf("DELETE FROM customers WHERE id = 3");
      await database.exec("INSERT INTO orders VALUES (40, 3, 'new')");
      const before = await database.dump();
      expect((await applyAll(target, effect)).problems).toMatchObject([
        { kind: "foreign-key", table: "orders" },
      ]);
      expect(await database.dump()).toBe(before);
    });

    test("a parent that is gone since keeps its child from being inserted", async () => {
      const effect = await effectOf("INSERT INTO orders VALUES (41, 3, 'new')");
      await database.exec("DELETE FROM customers WHERE id = 3");
      expect((await applyAll(target, effect)).problems).toMatchObject([
        { kind: "foreign-key", table: "orders" },
      ]);
    });

    test("a batch with problems cannot be committed", async () => {
      const effect = await effectOf("DELETE FROM orders WHERE id = 12");
      await database.exec("UPDATE orders SET status = 'held' WHERE id = 12");
      const before = await database.dump();
      const session = await target.openWriter();
      try {
        await session.begin();
        await session.write(sourceOf(effect), []);
        expect((await refusal(() => session.commit())).code).toBe("ERR_INTERNAL");
      } finally {
        await session.close();
      }
      expect(await database.dump()).toBe(before);
    });

    test("another trigger, index or column gives another fingerprint; rows and the marker do not", async () => {
      const first = (await target.schema()).fingerprint;
      await database.exec("DELETE FROM orders");
      await target.pin(MARKER);
      expect((await target.schema()).fingerprint).toBe(first);
      await database.exec(factory.auditTrigger);
      expect((await target.schema()).fingerprint).not.toBe(first);
    });

    test("rows are read by key, and all of them in key order", async () => {
      const shape = await shapeOf("customers");
      const found = [];
      for await (const row of target.readRows(shape, [[2n], [7n]])) found.push(row);
      expect(found).toEqual([
        { key: [2n], row: [2n, "bob@shop.example", "Bob"], count: 1 },
        { key: [7n], row: null, count: 0 },
      ]);
      const audit = await shapeOf("audit");
      const counted = [];
      for await (const row of target.readRows(audit, [
        ["seen", 1n],
        ["seen", 9n],
      ]))
        counted.push(row.count);
      expect(counted).toEqual([2, 0]);
      for (const table of ["customers", "orders", "audit"]) {
        const tableShape = await shapeOf(table);
        const keys = (await rowsOf(table)).map((row) => keyOf(tableShape, row));
        expect(keys).toEqual([...keys].sort(compareKeys));
        expect(await target.countRows(table)).toBe(keys.length);
      }
    });

    test("the marker is what was pinned, and pinning again replaces it and keeps the marks", async () => {
      expect((await target.identify()).marker).toBeNull();
      expect([
        await target.notes(),
        await target.batches("rn_1"),
        await target.spentFor(MARKER.bundle),
      ]).toEqual([[], [], null]);
      await target.pin(MARKER);
      const session = await target.openWriter();
      await session.begin();
      await session.addNote({
        kind: "held",
        subject: "shop",
        at: MARKER.pinnedAt,
        by: "olga",
        reason: "it's late",
      });
      await session.commit();
      await session.close();
      await target.pin({ ...MARKER, environment: "staging" });
      expect((await target.identify()).marker).toEqual({ ...MARKER, environment: "staging" });
      expect(await target.notes()).toHaveLength(1);
    });

    test("the printed SQL makes the same marker", async () => {
      const statements = target.markerSql(MARKER);
      await database.exec(statements.join(";\n"));
      expect((await target.identify()).marker).toEqual(MARKER);
    });

    test("marks stand or fall with the batch", async () => {
      await target.pin(MARKER);
      const spent = {
        plan: "pl_1",
        planDigest: MARKER.bundle,
        run: "rn_1",
        nonces: ["aa", "bb"],
        at: MARKER.pinnedAt,
        ledger: MARKER.ledger,
        job: "retire",
        by: "dana",
        rows: 3,
        commit: null,
      };
      const batch = { run: "rn_1", wave: 1, batch: 1, rows: 3, at: MARKER.pinnedAt };
      const head = { ledger: MARKER.ledger, sequence: 7, head: `sha256:${"7".repeat(64)}` } as const;
      for (const end of ["rollback", "commit"] as const) {
        const session = await target.openWriter();
        await session.begin();
        await session.spend(spent);
        await session.markBatch(batch);
        await session.anchor(head);
        expect([await session.nonceSpent("bb"), await session.nonceSpent("cc")]).toEqual([true, false]);
        await session[end]();
        await session.close();
        expect(await target.spentFor(spent.planDigest)).toEqual(end === "commit" ? spent : null);
        expect(await target.batches("rn_1")).toEqual(end === "commit" ? [batch] : []);
        expect((await target.identify()).marker?.ledgerSequence).toBe(end === "commit" ? 7 : 0);
      }
    });

    test("the anchored head only moves forward", async () => {
      await target.pin(MARKER);
      const heads = [7, 5, 8].map(
        (n) => ({ ledger: MARKER.ledger, sequence: n, head: `sha256:${String(n).repeat(64)}` }) as const,
      );
      const anchored: unknown[] = [];
      for (const head of heads) {
        const session = await target.openWriter();
        await session.begin();
        await session.anchor(head);
        await session.commit();
        await session.close();
        const { marker } = await target.identify();
        anchored.push({
          ledger: marker?.ledger,
          sequence: marker?.ledgerSequence,
          head: marker?.ledgerHead,
        });
      }
      expect(anchored).toEqual([heads[0], heads[0], heads[2]]);
    });

    test("another ledger's head is anchored beside the one that pinned, and only moves forward", async () => {
      await target.pin(MARKER);
      const other = `lg_${"z".repeat(16)}`;
      expect(await target.anchoredHead(other)).toBeNull();
      const found: unknown[] = [];
      for (const n of [7, 5, 8]) {
        const session = await target.openWriter();
        await session.begin();
        await session.anchor({ ledger: other, sequence: n, head: `sha256:${String(n).repeat(64)}` });
        await session.commit();
        await session.close();
        found.push((await target.anchoredHead(other))?.sequence);
      }
      expect(found).toEqual([7, 7, 8]);
      const { marker } = await target.identify();
      expect([marker?.ledgerSequence, marker?.ledgerHead]).toEqual([
        MARKER.ledgerSequence,
        MARKER.ledgerHead,
      ]);
      // Pinned again by that ledger, what was anchored of the first one stays known.
      await target.pin({ ...MARKER, ledger: other, ledgerSequence: 9 });
      expect(await target.anchoredHead(MARKER.ledger)).toEqual({
        ledger: MARKER.ledger,
        sequence: MARKER.ledgerSequence,
        head: MARKER.ledgerHead,
      });
    });

    test("the spent marks tell how often a job ran, from which commit, and whose rows are recent", async () => {
      await target.pin(MARKER);
      const runs = [
        { job: "retire", by: "dana", rows: 3, commit: "c1", at: "2026-11-24T10:00:00Z" },
        { job: "retire", by: null, rows: 5, commit: null, at: "2026-11-24T12:00:00Z" },
        { job: "other", by: "dana", rows: 7, commit: "c3", at: "2026-11-24T13:00:00Z" },
      ];
      for (const [i, run] of runs.entries()) {
        const session = await target.openWriter();
        await session.begin();
        const id = { plan: `pl_${i}`, planDigest: `sha256:${String(i).repeat(64)}` as const, run: `rn_${i}` };
        await session.spend({ ...id, nonces: [], ledger: MARKER.ledger, ...run });
        await session.commit();
        await session.close();
      }
      expect(await target.history({ job: "retire", since: "2026-11-24T11:00:00Z" })).toEqual({
        jobRuns: 2,
        lastCommit: null,
        lastAt: "2026-11-24T13:00:00Z",
        recent: expect.arrayContaining([
          { by: "dana", rows: 7 },
          { by: null, rows: 5 },
        ]),
      });
      expect(await target.history({ job: "other", since: "2026-11-24T13:00:00Z" })).toEqual({
        jobRuns: 1,
        lastCommit: "c3",
        lastAt: "2026-11-24T13:00:00Z",
        recent: [],
      });
      expect((await target.history({ job: "never", since: "2020-01-01T00:00:00Z" })).jobRuns).toBe(0);
    });

    test("marks are refused where there is no marker", async () => {
      const session = await target.openWriter();
      await session.begin();
      const note = { kind: "held", subject: "shop", at: MARKER.pinnedAt, by: "olga", reason: "-" } as const;
      expect((await refusal(() => session.addNote(note))).code).toBe("ERR_ENV_NOT_PINNED");
      await session.close();
    });

    test("a job that touches the marker is refused", async () => {
      await target.pin(MARKER);
      const touching = [
        "DELETE FROM holdpoint_marker",
        "DROP TABLE holdpoint_notes",
        "UPDATE holdpoint_spent SET run = 'x'",
      ];
      for (const sql of touching) {
        expect((await refusal(() => effectOf(sql))).code).toBe("ERR_MARKER_TOUCHED");
      }
      expect((await target.identify()).marker).toEqual(MARKER);
    });

    test("a view in place of one of the marker's tables is asked nothing, and is no marker", async () => {
      await target.pin(MARKER);
      await database.exec(
        "ALTER TABLE holdpoint_notes RENAME TO kept; CREATE VIEW holdpoint_notes AS SELECT * FROM kept",
      );
      expect((await refusal(() => target.identify())).code).toBe("ERR_ENV_CONTRADICTED");
      expect((await refusal(() => target.notes())).code).toBe("ERR_ENV_CONTRADICTED");
      const session = await target.openWriter();
      try {
        expect((await refusal(() => session.marker())).code).toBe("ERR_ENV_CONTRADICTED");
      } finally {
        await session.close();
      }
    });

    test("a job that ends its own transaction is refused with its line", async () => {
      const before = await database.dump();
      for (const sql of ["COMMIT", "BEGIN", "ROLLBACK", "SAVEPOINT a", "/* x */ commit -- y"]) {
        const e = await refusal(() => effectOf("DELETE FROM orders", sql));
        expect([e.code, e.message.startsWith("line 2")]).toEqual(["ERR_JOB_STATEMENT", true]);
      }
      expect(await database.dump()).toBe(before);
    });

    test("a job that fails is refused with its line, and nothing happened", async () => {
      const before = await database.dump();
      const e = await refusal(() =>
        effectOf("DELETE FROM orders", "INSERT INTO customers VALUES (1, NULL, NULL)"),
      );
      expect([e.code, e.message.startsWith("line 2"), e.targetChanged]).toEqual([
        "ERR_JOB_FAILED",
        true,
        "no",
      ]);
      expect(await database.dump()).toBe(before);
    });

    test("parameters are bound, never pasted", async () => {
      const text = "UPDATE orders SET status = :status WHERE id = :id";
      const { effect } = await rehearseAll(
        target,
        sqlJob({ text, values: { status: "'; DROP TABLE orders; --", id: 10n } }),
      );
      expect(effect.changes).toMatchObject([{ after: [10n, 1n, "'; DROP TABLE orders; --"] }]);
    });

    test("one run at a time", async () => {
      const session = await target.openWriter();
      expect((await refusal(() => target.openWriter())).code).toBe("ERR_TARGET_BUSY");
      await session.close();
      await (await target.openWriter()).close();
    });
  });
}
