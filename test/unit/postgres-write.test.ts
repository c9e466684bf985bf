/** Writing to PostgreSQL: with the privileges that the documentation lists and no more, and through every kind of fault. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { parseAddress } from "../../src/adapters/postgres/address.js";
import type { ChangeSet } from "../../src/changeset/change.js";
import { invert } from "../../src/changeset/invert.js";
import { sourceOf } from "../../src/changeset/source.js";
import type { Marker } from "../../src/target/marker.js";
import type { Target } from "../../src/target/target.js";
import { onPostgres } from "../support/on-postgres.js";
import { connect, startServer, type TestServer } from "../support/postgres.js";
import { startProxy, type TestProxy } from "../support/postgres-proxy.js";
import { dumpPostgres, openPostgresTarget } from "../support/postgres-target.js";
import { refusal, refusalLine } from "../support/refusal.js";
import { applyAll, rehearseAll, sqlJob } from "../support/rehearsing.js";

const SCHEMA = `
  CREATE TABLE parent (id integer PRIMARY KEY, code text UNIQUE, name text);
  CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent, next integer REFERENCES child);
  CREATE TABLE acting (id integer PRIMARY KEY, parent integer REFERENCES parent (id) ON DELETE CASCADE);
  CREATE TABLE plain (id integer PRIMARY KEY, note text);
  CREATE TABLE audit (what text, id integer);
  CREATE TABLE auto (id integer GENERATED ALWAYS AS IDENTITY, k integer PRIMARY KEY);
  CREATE FUNCTION log_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (TG_OP, NEW.id); RETURN NEW; END $$;
  CREATE TABLE watched (id integer PRIMARY KEY, note text);
  CREATE TRIGGER watch AFTER UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION log_row();
  INSERT INTO parent SELECT i, 'c' || i, 'p' FROM generate_series(1, 10) i;
  INSERT INTO child SELECT i, i, nullif(i - 1, 0) FROM generate_series(1, 8) i;
  INSERT INTO plain SELECT i, 'n' FROM generate_series(1, 2000) i;
  INSERT INTO watched VALUES (1, 'a'), (2, 'b');`;

/** The privileges that `docs/postgres.md` lists, and nothing else. */
const GRANTS = `
  GRANT TEMPORARY ON DATABASE %db TO %role;
  GRANT USAGE ON SCHEMA public TO %role;
  GRANT SELECT, INSERT, UPDATE, DELETE ON parent, child, acting, plain, watched, audit TO %role;
  GRANT SELECT ON holdpoint_marker, holdpoint_spent, holdpoint_batches, holdpoint_notes TO %role;
  GRANT INSERT ON holdpoint_spent, holdpoint_batches, holdpoint_notes TO %role;
  GRANT DELETE ON holdpoint_batches TO %role;
  GRANT UPDATE (ledger_sequence, ledger_head) ON holdpoint_marker TO %role;`;

const MARKER: Marker = {
  format: "holdpoint-marker/1",
  identity: "postgres:00112233445566778899aabbccddeeff",
  name: "shop",
  environment: "production",
  place: { system: "1" },
  bundle: `sha256:${"1".repeat(64)}`,
  ledger: "lg_0000000000000000",
  ledgerSequence: 0,
  ledgerHead: `sha256:${"2".repeat(64)}`,
  pinnedAt: "2026-11-22T12:00:00Z",
  pinnedBy: "tests",
};
const BATCH = { run: "rn_1", wave: 1, batch: 1, rows: 1, at: MARKER.pinnedAt };

onPostgres("writing to PostgreSQL", "first", () => {
  let server: TestServer;
  let url: string;
  let database: string;
  let target: Target;
  let roles = 0;

  beforeAll(async () => {
    server = await startServer();
  });
  afterAll(async () => {
    await server?.stop();
  });
  beforeEach(async () => {
    url = await server.freshDatabase();
    database = /\/(db\w+)\?/.exec(url)?.[1] ?? "";
    await server.exec(url, SCHEMA);
    target = await openPostgresTarget(url);
    await target.pin(MARKER);
  });
  const opened: Target[] = [];
  const open = async (at: string, options = {}): Promise<Target> => {
    const t = await openPostgresTarget(at, options);
    opened.push(t);
    return t;
  };
  afterEachClose(() => [target, ...opened.splice(0)]);

  const effectOf = async (on: Target, ...job: readonly string[]): Promise<ChangeSet> =>
    (await rehearseAll(on, sqlJob(...job))).effect;

  async function asRole(
    ...more: readonly string[]
  ): Promise<{ readonly role: string; readonly target: Target }> {
    const role = `app_${++roles}`;
    const fill = (sql: string): string => sql.replaceAll("%role", role).replaceAll("%db", database);
    await server.exec(url, `CREATE ROLE ${role} LOGIN`, fill(GRANTS), ...more.map(fill));
    return { role, target: await open(server.url(database, role)) };
  }

  describe("privileges", () => {
    test("the documented ones are enough for plan, apply and undo", async () => {
      const before = await dumpPostgres(url);
      const { target: app } = await asRole();
      const effect = await effectOf(
        app,
        "UPDATE plain SET note = 'x' WHERE id <= 5",
        "DELETE FROM plain WHERE id > 1990",
        "INSERT INTO plain VALUES (5000, 'n')",
      );
      const session = await app.openWriter();
      await session.begin();
      expect(await session.write(sourceOf(effect), [])).toMatchObject({ written: 16, problems: [] });
      expect(await session.verify(sourceOf(effect))).toEqual([]);
      await session.spend({
        plan: "pl_1",
        planDigest: MARKER.bundle,
        run: "rn_1",
        nonces: ["a"],
        at: MARKER.pinnedAt,
        ledger: MARKER.ledger,
        job: "plain",
        by: null,
        rows: 16,
        commit: null,
      });
      await session.markBatch(BATCH);
      await session.addNote({ kind: "undone", subject: "x", at: MARKER.pinnedAt, by: "x", reason: "x" });
      await session.anchor({ ledger: MARKER.ledger, sequence: 3, head: MARKER.bundle });
      await session.clearMarks("rn_1", 1);
      await session.commit();
      await session.close();
      expect(await applyAll(app, invert(effect))).toMatchObject({ problems: [], wrong: [] });
      expect(await dumpPostgres(url)).toBe(before);
      expect(app.capabilities.silentTriggers).toBe(false);
    });

    test("reading who it is takes the marker's tables, and pinning the right to make them", async () => {
      const role = `app_${++roles}`;
      await server.exec(url, `CREATE ROLE ${role} LOGIN`, `GRANT SELECT ON holdpoint_marker TO ${role}`);
      const app = await open(server.url(database, role));
      expect((await app.identify()).marker).toEqual(MARKER);
      expect((await refusal(() => app.pin(MARKER))).code).toBe("ERR_TARGET_PRIVILEGE");
      const fresh = await server.freshDatabase();
      const name = /\/(db\w+)\?/.exec(fresh)?.[1] ?? "";
      await server.exec(fresh, `GRANT USAGE, CREATE ON SCHEMA public TO ${role}`);
      const owner = await open(server.url(name, role));
      await owner.pin(MARKER);
      expect((await owner.identify()).marker).toEqual(MARKER);
    });

    test("triggers and cascades need one more, which the refusal names and the plan says already", async () => {
      const { role, target: app } = await asRole();
      const { effect, rehearsal } = await rehearseAll(
        app,
        sqlJob("UPDATE watched SET note = 'x' WHERE id = 1"),
      );
      const grant = `GRANT SET ON PARAMETER session_replication_role TO ${role}`;
      expect(rehearsal.notices.join()).toContain(grant);
      const e = await refusal(() => applyAll(app, effect));
      expect([e.code, e.next[0]?.text?.includes(grant)]).toEqual(["ERR_TARGET_PRIVILEGE", true]);
      await server.exec(url, grant);
      expect(await applyAll(app, effect)).toMatchObject({ written: 2, problems: [], wrong: [] });
      expect(await app.countRows("audit")).toBe(1);
      expect(
        (await rehearseAll(app, sqlJob("UPDATE watched SET note = 'y' WHERE id = 1"))).rehearsal.notices,
      ).toEqual([expect.stringMatching(/^limits of the rehearsal: /)]);
    });

    test("a trigger that fires even for replicas is refused", async () => {
      await server.exec(url, "ALTER TABLE watched ENABLE ALWAYS TRIGGER watch");
      const effect = await effectOf(target, "UPDATE watched SET note = 'x' WHERE id = 1");
      expect(await refusalLine(() => applyAll(target, effect))).toMatch(
        /ERR_TARGET_UNSUPPORTED trigger watch on watched cannot be kept silent/,
      );
    });

    test("rows that a policy hides are refused, never left out", async () => {
      const { target: app } = await asRole(
        "ALTER TABLE plain ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON plain USING (id < 10)",
      );
      expect(await refusalLine(() => effectOf(app, "DELETE FROM plain"))).toMatch(
        /^ERR_(JOB_FAILED|TARGET_UNSUPPORTED).*row-level security/,
      );
    });

    test("a grant on columns alone is not enough, and is said so", async () => {
      const { target: app } = await asRole(
        "REVOKE ALL ON plain FROM %role",
        "GRANT SELECT (id), DELETE ON plain TO %role",
      );
      expect((await refusal(() => effectOf(app, "DELETE FROM plain WHERE id = 1"))).code).toBe(
        "ERR_TARGET_PRIVILEGE",
      );
    });

    test("without the right to make temporary tables nothing is rehearsed", async () => {
      const { target: app } = await asRole("REVOKE TEMPORARY ON DATABASE %db FROM PUBLIC, %role");
      expect((await refusal(() => effectOf(app, "DELETE FROM plain"))).code).toBe("ERR_TARGET_PRIVILEGE");
    });
  });

  describe("rows that hang together", () => {
    test("a chain of references is deleted and comes back in any order", async () => {
      const before = await dumpPostgres(url);
      const effect = await effectOf(
        target,
        "UPDATE child SET next = NULL",
        "DELETE FROM child",
        "DELETE FROM parent",
      );
      expect(await applyAll(target, effect)).toMatchObject({ problems: [], wrong: [] });
      expect(await applyAll(target, invert(effect))).toMatchObject({ problems: [], wrong: [] });
      expect(await dumpPostgres(url)).toBe(before);
    });

    test("without replica mode too, where the engine checks every reference itself", async () => {
      await server.exec(url, "DROP TABLE acting");
      const before = await dumpPostgres(url);
      const effect = await effectOf(
        target,
        "DELETE FROM child",
        "DELETE FROM parent WHERE id > 3",
        "UPDATE parent SET code = 'z' || code",
      );
      expect(await applyAll(target, effect)).toMatchObject({ problems: [], wrong: [] });
      expect(await applyAll(target, invert(effect))).toMatchObject({ problems: [], wrong: [] });
      expect(await dumpPostgres(url)).toBe(before);
    });

    test("a ring of unique values is turned", async () => {
      const effect = await effectOf(
        target,
        "UPDATE parent SET code = 't' || id",
        "UPDATE parent SET code = 'c' || (id % 10 + 1)",
      );
      expect(effect.changes).toHaveLength(10);
      expect(await applyAll(target, effect)).toMatchObject({ written: 10, problems: [], wrong: [] });
      expect(await applyAll(target, invert(effect))).toMatchObject({ written: 10, problems: [], wrong: [] });
    });

    test("one bad row among many is the one that is named", async () => {
      const effect = await effectOf(
        target,
        "INSERT INTO parent SELECT i, 'n' || i, 'x' FROM generate_series(100, 900) i",
      );
      await server.exec(url, "INSERT INTO parent VALUES (5000, 'n555', 'taken')");
      const { problems } = await applyAll(target, effect);
      expect(problems).toMatchObject([{ kind: "constraint", change: { key: [555n] } }]);
    });

    test.each([
      ["at once", ""],
      ["only at the commit", "DEFERRABLE INITIALLY DEFERRED"],
    ])("a reference to nothing is named with its row, checked %s", async (_, when) => {
      await server.exec(
        url,
        `CREATE TABLE leaf (id integer PRIMARY KEY, of integer REFERENCES parent ${when})`,
      );
      const effect = await effectOf(target, "INSERT INTO leaf SELECT i, i FROM generate_series(1, 8) i");
      await server.exec(url, "DELETE FROM child WHERE id = 8; DELETE FROM parent WHERE id = 8");
      const { problems } = await applyAll(target, effect);
      expect(problems).toMatchObject([{ kind: "foreign-key", table: "leaf", change: { key: [8n] } }]);
    });

    test.each([
      ["a unique value", "UNIQUE (code) DEFERRABLE INITIALLY DEFERRED", "(code text"],
      [
        "two NULLs",
        "UNIQUE NULLS NOT DISTINCT (pad, code) DEFERRABLE INITIALLY DEFERRED",
        "(pad text, code text",
      ],
      [
        "an exclusion",
        "EXCLUDE USING gist (span WITH &&) DEFERRABLE INITIALLY DEFERRED",
        "(span int4range, code text",
      ],
    ])(
      "what waits for the commit names the rows that stand in another's way: %s",
      async (_, constraint, columns) => {
        await server.exec(
          url,
          `CREATE TABLE late ${columns}, id integer PRIMARY KEY, ${constraint})`,
          `INSERT INTO late (code, id${columns.includes("span") ? ", span" : ""})
         SELECT 'c' || i, i${columns.includes("span") ? ", int4range(i * 10, i * 10 + 5)" : ""} FROM generate_series(1, 9) i`,
        );
        const job = columns.includes("span")
          ? "INSERT INTO late (id, span) SELECT i, int4range(i * 10, i * 10 + 5) FROM generate_series(20, 30) i"
          : "INSERT INTO late (id, code) SELECT i, 'c' || i FROM generate_series(20, 30) i";
        const effect = await effectOf(target, job);
        await server.exec(
          url,
          columns.includes("span")
            ? "INSERT INTO late (id, span) VALUES (99, '[271,272)')"
            : "INSERT INTO late (id, code) VALUES (99, 'c27')",
        );
        const { problems } = await applyAll(target, effect);
        expect(problems).toMatchObject([{ kind: "constraint", change: { key: [27n] } }]);
      },
    );

    test("what waits and compares an expression says that it may be another row", async () => {
      await server.exec(
        url,
        "CREATE TABLE late (id integer PRIMARY KEY, code text, EXCLUDE USING btree (lower(code) WITH =) DEFERRABLE INITIALLY DEFERRED)",
      );
      const effect = await effectOf(
        target,
        "INSERT INTO late SELECT i, 'c' || i FROM generate_series(1, 3) i",
      );
      await server.exec(url, "INSERT INTO late VALUES (99, 'C2')");
      const { problems } = await applyAll(target, effect);
      expect(problems).toMatchObject([
        { kind: "constraint", message: expect.stringContaining("this row or another of late") as unknown },
      ]);
    });

    test.each([
      ["numeric", "1.0", "1.00"],
      ["interval", "1 day", "24:00:00"],
      ["double precision", "0", "-0"],
      ["jsonb", "1.0", "1.00"],
      ["json", "{}", "{ }"],
      ["character(4)", "a", "b"],
      ["text", "a", "a "],
      ["bigint", "9007199254740993", "9007199254740992"],
      ["boolean", "true", "false"],
    ])("a cell that differs by a byte only is another: %s", async (type, planned, since) => {
      await server.exec(
        url,
        `CREATE TABLE exact (id integer PRIMARY KEY, v ${type}, w integer)`,
        `INSERT INTO exact VALUES (1, '${planned}', 1), (2, NULL, 1), (3, '${planned}', 1)`,
      );
      const updated = await effectOf(target, "UPDATE exact SET v = NULL, w = 2 WHERE id <> 2");
      const deleted = await effectOf(target, "DELETE FROM exact");
      await server.exec(url, `UPDATE exact SET v = '${since}' WHERE id = 3`);
      const expected = [{ kind: "drift", change: { key: [3n] } }];
      for (const effect of [updated, deleted])
        expect((await applyAll(target, effect)).problems).toMatchObject(expected);
      await server.exec(url, `UPDATE exact SET v = '${planned}' WHERE id = 3`);
      expect(await applyAll(target, updated)).toMatchObject({ written: 2, problems: [], wrong: [] });
      const session = await target.openWriter();
      try {
        await session.begin();
        expect(await session.verify(sourceOf(updated))).toEqual([]);
        await session.commit();
        await server.exec(url, `UPDATE exact SET v = '${since}' WHERE id = 3`);
        await session.begin();
        expect(await session.verify(sourceOf(updated))).toMatchObject(expected);
        expect(await session.verify(sourceOf(deleted))).toHaveLength(3);
        await session.rollback();
      } finally {
        await session.close();
      }
    });

    test("rows are locked in the order of their keys", async () => {
      const effect = await effectOf(target, "UPDATE plain SET note = 'x'");
      const [other, third] = [await connect(url), await connect(url)];
      const patient = await open(url, { lockTimeoutMs: 20_000 });
      try {
        await other.rows("BEGIN");
        await other.rows("SELECT 1 FROM plain WHERE id = 1200 FOR UPDATE");
        const applying = applyAll(patient, effect);
        const waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        while ((await third.rows(waits))[0]?.[0] === "0") await third.rows("SELECT pg_sleep(0.01)");
        const free = await third.rows(
          "SELECT min(id) FROM (SELECT id FROM plain FOR UPDATE SKIP LOCKED) AS p",
        );
        expect(free).toEqual([["1201"]]);
        await other.rows("ROLLBACK");
        expect(await applying).toMatchObject({ written: 2000, problems: [], wrong: [] });
      } finally {
        await other.close();
        await third.close();
      }
    });

    test("an identity column that the engine alone may update is refused by name", async () => {
      await server.exec(url, "INSERT INTO auto (k) VALUES (1)");
      const effect = await effectOf(target, "UPDATE auto SET id = DEFAULT");
      expect(await refusalLine(() => applyAll(target, effect))).toMatch(
        /ERR_TARGET_UNSUPPORTED auto\.id is GENERATED ALWAYS/,
      );
    });

    test("a rule that was made after the plan stays silent too", async () => {
      const effect = await effectOf(target, "UPDATE plain SET note = 'x' WHERE id = 1");
      // Replica mode silences what is there when rows are written, not what was there at the plan.
      await server.exec(
        url,
        "CREATE RULE also AS ON UPDATE TO plain DO ALSO INSERT INTO audit VALUES ('also', 1)",
      );
      const outcome = await applyAll(target, effect);
      expect(outcome).toMatchObject({ written: 1, problems: [] });
      expect(await target.countRows("audit")).toBe(0);
    });
  });

  describe("sequences", () => {
    test("move forward where the plan saw them further, and never back", async () => {
      await server.exec(
        url,
        "CREATE SEQUENCE s; CREATE SEQUENCE down INCREMENT -1; SELECT setval('s', 50), setval('down', -50)",
      );
      const session = await target.openWriter();
      await session.begin();
      await session.write({ tables: [], changes: () => [] }, [
        { name: "s", before: "1", after: "40" },
        { name: "down", before: "-1", after: "-60" },
      ]);
      await session.commit();
      await session.close();
      const client = await connect(url);
      expect(await client.rows("SELECT (SELECT last_value FROM s), (SELECT last_value FROM down)")).toEqual([
        ["50", "-60"],
      ]);
      await client.close();
    });

    test("have reached the rows that come back with their numbers, and a batch rolled back moves none", async () => {
      await server.exec(
        url,
        "CREATE TABLE given (id serial PRIMARY KEY, other bigint GENERATED BY DEFAULT AS IDENTITY (INCREMENT -1), note text)",
        "INSERT INTO given (note) SELECT 'n' FROM generate_series(1, 20)",
      );
      const gone = await effectOf(target, "DELETE FROM given WHERE id > 5");
      await applyAll(target, gone);
      await server.exec(url, "SELECT setval('given_id_seq', 5), setval('given_other_seq', -30)");
      const client = await connect(url);
      const last = async (): Promise<unknown> =>
        (
          await client.rows(
            "SELECT (SELECT last_value FROM given_id_seq), (SELECT last_value FROM given_other_seq)",
          )
        )[0];
      const session = await target.openWriter();
      await session.begin();
      await session.write(sourceOf(invert(gone)), []);
      await session.rollback();
      await session.close();
      expect(await last()).toEqual(["5", "-30"]);
      await applyAll(target, invert(gone));
      expect(await last()).toEqual(["20", "-30"]);
      await client.close();
    });

    test("that may not be moved on are refused with the GRANT", async () => {
      await server.exec(
        url,
        "CREATE TABLE given (id serial PRIMARY KEY, note text); INSERT INTO given (note) VALUES ('a'), ('b')",
      );
      const { role, target: app } = await asRole("GRANT SELECT, INSERT, UPDATE, DELETE ON given TO %role");
      const gone = await effectOf(app, "DELETE FROM given WHERE id = 2");
      await applyAll(app, gone);
      const back = async (): Promise<string> => refusalLine(() => applyAll(app, invert(gone)));
      expect(await back()).toContain("may not read sequence given_id_seq");
      await server.exec(
        url,
        `GRANT SELECT ON SEQUENCE given_id_seq TO ${role}; SELECT setval('given_id_seq', 1)`,
      );
      expect(await back()).toContain("may not move sequence given_id_seq on to 2");
      await server.exec(url, `GRANT UPDATE ON SEQUENCE given_id_seq TO ${role}`);
      expect(await applyAll(app, invert(gone))).toMatchObject({ problems: [], wrong: [] });
    });

    test("that the job moved are told; one that it moved back is refused", async () => {
      await server.exec(
        url,
        "CREATE SEQUENCE s; SELECT setval('s', 9); CREATE FUNCTION back() RETURNS bigint LANGUAGE sql AS $$ SELECT setval('s', 1) $$",
      );
      const { rehearsal } = await rehearseAll(
        target,
        sqlJob("INSERT INTO plain SELECT 9000 + nextval('s'), 'x'"),
      );
      expect(rehearsal.sequences).toEqual([{ name: "s", before: "9", after: "10" }]);
      expect(await refusalLine(() => effectOf(target, "SELECT back()"))).toMatch(
        /ERR_TARGET_UNSUPPORTED the job moves the sequence s back/,
      );
    });
  });

  describe("faults", () => {
    let proxy: TestProxy;
    beforeEach(async () => {
      proxy = await startProxy(server);
    });
    afterEachClose(() => [proxy]);

    const written = async (): Promise<string | null | undefined> => {
      const client = await connect(url);
      try {
        return (await client.rows("SELECT note FROM plain WHERE id = 1"))[0]?.[0];
      } finally {
        await client.close();
      }
    };

    async function untilCommit(on: Target): Promise<Awaited<ReturnType<Target["openWriter"]>>> {
      const effect = await effectOf(target, "UPDATE plain SET note = 'written' WHERE id = 1");
      const session = await on.openWriter();
      await session.begin();
      expect(await session.write(sourceOf(effect), [])).toMatchObject({ written: 1, problems: [] });
      await session.markBatch(BATCH);
      await session.anchor({ ledger: MARKER.ledger, sequence: 9, head: MARKER.bundle });
      return session;
    }

    test("the line breaks after the commit arrived: the mark tells that it is done, and the run goes on", async () => {
      const session = await untilCommit(await open(proxy.url(database), { settleMs: 10_000 }));
      proxy.cutCommit("after");
      await session.commit();
      expect(await written()).toBe("written");
      await session.begin();
      await session.anchor({ ledger: MARKER.ledger, sequence: 10, head: MARKER.bundle });
      await session.commit();
      expect((await refusal(() => target.openWriter())).code).toBe("ERR_TARGET_BUSY");
      await session.close();
      expect(await target.batches("rn_1")).toEqual([BATCH]);
    });

    test("the line breaks before the commit arrived: nothing is there, and it is said so", async () => {
      const session = await untilCommit(await open(proxy.url(database), { settleMs: 10_000 }));
      proxy.cutCommit("before");
      const e = await refusal(() => session.commit());
      expect([e.code, e.targetChanged]).toEqual(["ERR_TARGET_UNREACHABLE", "no"]);
      await session.close();
      expect(await written()).toBe("n");
    });

    test("no server answers after the commit: the outcome is unknown, and never guessed", async () => {
      const session = await untilCommit(await open(proxy.url(database), { settleMs: 200 }));
      proxy.cutCommit("after");
      proxy.letThrough(false);
      const e = await refusal(() => session.commit());
      expect([e.code, e.targetChanged]).toEqual(["ERR_OUTCOME_UNKNOWN", "unknown"]);
      await session.close();
    });

    test("the backend is killed in the middle of a batch: nothing of it stays", async () => {
      const session = await untilCommit(target);
      await server.exec(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'",
      );
      expect((await refusal(() => session.markBatch({ ...BATCH, batch: 2 }))).code).toBe(
        "ERR_TARGET_UNREACHABLE",
      );
      await session.rollback();
      await session.close();
      expect(await written()).toBe("n");
    });

    test("the server crashes and comes back before the commit: nothing of the batch stays", async () => {
      const other = await open(url, { settleMs: 10_000 });
      const session = await untilCommit(other);
      await server.restart("immediate");
      const e = await refusal(() => session.commit());
      expect([e.code, e.targetChanged]).toEqual(["ERR_TARGET_UNREACHABLE", "no"]);
      await session.close();
      expect(await written()).toBe("n");
    });

    test("a pooler is recognised and refused", async () => {
      const pooler = await startProxy(server, true);
      try {
        expect(await refusalLine(() => openPostgresTarget(pooler.url(database)))).toMatch(
          /^ERR_TARGET_UNSUPPORTED a connection pooler/,
        );
      } finally {
        await pooler.close();
      }
    });
  });

  test("the way back is rehearsed, and nothing is left of it", async () => {
    const before = await dumpPostgres(url);
    const effect = await effectOf(target, "DELETE FROM parent WHERE id > 8", "UPDATE watched SET note = 'x'");
    expect(await target.rehearseUndo?.(sourceOf(effect))).toEqual({
      rehearsed: "all",
      identical: 6,
      of: 6,
      why: null,
    });
    expect(await dumpPostgres(url)).toBe(before);
  });

  test("notes are written while a run has the target", async () => {
    const run = await target.openWriter();
    await run.begin();
    const notes = await target.openNotes?.();
    await notes?.begin();
    await notes?.addNote({ kind: "held", subject: "shop", at: MARKER.pinnedAt, by: "olga", reason: "stop" });
    await notes?.commit();
    await notes?.close();
    expect(await run.notes()).toHaveLength(1);
    await run.close();
  });

  test("reading at one moment sees one state, scans included", async () => {
    const shape = (await target.schema()).tables.find((t) => t.name === "audit");
    if (shape === undefined) throw new Error("no table audit");
    const rows = async (): Promise<number> => {
      let n = 0;
      for await (const _ of target.scan(shape)) n++;
      return n;
    };
    await target.atOneMoment?.(async () => {
      expect(await target.countRows("audit")).toBe(0);
      await server.exec(url, "INSERT INTO audit VALUES ('x', 1)");
      expect([await target.countRows("audit"), await rows()]).toEqual([0, 0]);
    });
    expect([await target.countRows("audit"), await rows()]).toEqual([1, 1]);
  });

  test("who it is: system, database and oid decide; role and others are told", async () => {
    const { place, signals, description } = await target.identify();
    expect(Object.keys(place).sort()).toEqual(["database", "oid", "system"]);
    expect(description).toMatch(/^PostgreSQL \d+\.\d+, db\w+ on .*, primary, /);
    expect(signals.map((s) => s.source)).toEqual(
      expect.arrayContaining(["role", "timeline", "replication", "other clients"]),
    );
  });

  test("settings under which a job would be silent are refused", async () => {
    await server.exec(url, `ALTER DATABASE ${database} SET session_replication_role = replica`);
    expect((await refusal(() => effectOf(target, "DELETE FROM plain"))).code).toBe("ERR_TARGET_UNSUPPORTED");
  });
});

describe("an address", () => {
  const at = (url: string, env = {}): ReturnType<typeof parseAddress> => parseAddress(url, env, "login");

  test.each([
    [
      "postgres://u:p%40ss@db.example:6000/shop",
      { host: "db.example", port: 6000, user: "u", password: "p@ss", database: "shop", tls: "prefer" },
    ],
    [
      "postgresql://db.example",
      { host: "db.example", port: 5432, user: "login", password: undefined, database: "login" },
    ],
    ["postgres://u@/shop?host=%2Frun%2Fpg", { host: "/run/pg", database: "shop", tls: "disable" }],
    ["postgres://u@[::1]:5433/shop?sslmode=verify-full", { host: "::1", port: 5433, tls: "verify-full" }],
  ])("%s", (url, expected) => {
    expect(at(url)).toMatchObject(expected);
  });

  test("variables fill in what the url leaves out", () => {
    const env = {
      PGHOST: "h",
      PGPORT: "1",
      PGUSER: "u",
      PGDATABASE: "d",
      PGPASSWORD: "p",
      PGSSLMODE: "require",
      PGSSLROOTCERT: "/ca.pem",
    };
    expect(at("postgres://u2@h2", env)).toMatchObject({
      host: "h2",
      user: "u2",
      tlsFiles: { ca: "/ca.pem" },
      origins: [
        "port PGPORT",
        "dbname PGDATABASE",
        "password PGPASSWORD",
        "sslmode PGSSLMODE",
        "sslrootcert PGSSLROOTCERT",
      ].map((o) => ({ part: o.split(" ")[0], from: o.split(" ")[1] })),
    });
    expect(at("postgres://", env)).toMatchObject({
      host: "h",
      port: 1,
      user: "u",
      database: "d",
      password: "p",
      // As in libpq: an authority that is named is asked.
      tls: "verify-ca",
    });
  });

  test("a service fills in before the variables do, and one that does not exist is refused", async () => {
    const folder = mkdtempSync(join(tmpdir(), "hp-service-"));
    try {
      const file = join(folder, "services.conf");
      writeFileSync(
        file,
        "# ours\n[other]\nhost=wrong\n[shop]\nhost = db.example\ndbname=shop\npassword=secret\n\n[odd]\nloadbalance=1\n",
      );
      const env = { PGSERVICEFILE: file, PGHOST: "wrong", PGPORT: "6000" };
      const found = at("postgres://u@?service=shop", env);
      expect(found).toMatchObject({
        host: "db.example",
        port: 6000,
        user: "u",
        database: "shop",
        password: "secret",
      });
      expect(JSON.stringify(found.origins)).not.toContain("secret");
      expect(found.origins).toContainEqual({ part: "host", from: `service shop of ${file}` });
      expect(at("postgres://", { ...env, PGSERVICE: "shop" }).host).toBe("db.example");
      for (const url of ["postgres://?service=none", "postgres://?service=odd"])
        expect((await refusal(() => at(url, env))).code).toBe("ERR_TARGET_UNSUPPORTED");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.each([
    "postgres://u:secret@h1,h2/d",
    "postgres://u:secret@h/d?service=nowhere",
    "postgres://u:secret@h/d?target_session_attrs=x",
    "postgres://u:secret@h:99999/d",
    "postgres://u:secret@h/d?sslmode=maybe",
    "postgres://u:sec%ret@h/d",
    "postgres://u:secret@h/d#x",
    "mysql://u:secret@h/d",
  ])("%s is refused without repeating it", async (url) => {
    const e = await refusal(() => at(url));
    expect(e.code).toBe("ERR_TARGET_UNSUPPORTED");
    expect(`${e.message} ${e.why ?? ""} ${JSON.stringify(e.details ?? "")}`).not.toMatch(/secret|sec%ret/);
  });
});

function afterEachClose(list: () => readonly ({ readonly close: () => Promise<void> } | undefined)[]): void {
  afterEach(async () => {
    for (const one of list()) await one?.close();
  });
}
