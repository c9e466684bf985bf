/**
 * What works outside a rehearsal's transaction is refused by name before it happens, or told; and what a rehearsal, or a
 * script at its apply, may cost the server. A program that a function would start leaves a file behind if it ran.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import pg from "pg";
import type { RehearsalLimits } from "../../src/adapters/postgres/limits.js";
import type { Target } from "../../src/target/target.js";
import { onPostgres } from "../support/on-postgres.js";
import { connect, type TestServer } from "../support/postgres.js";
import { dumpPostgres, openPostgresTarget } from "../support/postgres-target.js";
import { refusal, refusalLine } from "../support/refusal.js";
import { rehearseAll, sqlJob } from "../support/rehearsing.js";

onPostgres("outside of the transaction", "first", (servers) => {
  let server: TestServer;
  let url: string;
  let target: Target;
  let file: string;
  let count = 0;

  beforeAll(() => {
    server = servers();
  });
  beforeEach(async () => {
    url = await server.freshDatabase();
    file = join(server.folder, "data", `ran-${process.pid}-${++count}`);
    await server.exec(
      url,
      `CREATE TABLE parent (id integer PRIMARY KEY, name text);
       CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent ON DELETE CASCADE);
       CREATE TABLE calm (id integer PRIMARY KEY, note text);
       INSERT INTO parent SELECT i, 'p' FROM generate_series(1, 5) i;
       INSERT INTO child SELECT i, i FROM generate_series(1, 5) i;
       INSERT INTO calm SELECT i, 'c' FROM generate_series(1, 50) i;
       CREATE FUNCTION ring() RETURNS void LANGUAGE plpgsql AS $$ BEGIN COPY (SELECT 1) TO PROGRAM 'cat > ${file}'; END $$;
       CREATE FUNCTION "through" (n integer) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN PERFORM ring(); RETURN n; END $$;
       CREATE FUNCTION on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM through(1); RETURN coalesce(NEW, OLD); END $$;
       CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('rows', NEW.id::text); RETURN NEW; END $$;
       CREATE FUNCTION writes_parent() RETURNS void LANGUAGE plpgsql AS $$ BEGIN UPDATE parent SET name = 'x' WHERE id = 1; END $$;
       CREATE FUNCTION quiet() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN -- like ring() and dblink(), but not
         RETURN 1; END $$;
       CREATE LANGUAGE plany HANDLER plpgsql_call_handler;
       CREATE FUNCTION anything() RETURNS integer LANGUAGE plany AS $$ BEGIN RETURN 1; END $$;`,
    );
    target = await openPostgresTarget(url);
  });
  afterEach(async () => {
    await target.close();
  });

  const trigger = (on: string, fn = "on_row"): string =>
    `CREATE TRIGGER rings AFTER INSERT OR UPDATE OR DELETE ON ${on} FOR EACH ROW EXECUTE FUNCTION ${fn}()`;

  test.each<[string, string, string[], RegExp]>([
    [
      "a function that is called",
      "",
      ["SELECT ring()"],
      /^ERR_JOB_STATEMENT line 1: ring\(\), which has COPY/,
    ],
    [
      "a function that calls one",
      "",
      ["UPDATE calm SET note = 'x' WHERE id = 1", "UPDATE calm SET id = through(id)"],
      /^ERR_JOB_STATEMENT line 2: through\(\), which calls ring\(\), which has COPY/,
    ],
    ["a DO block", "", ["DO $$ BEGIN PERFORM ring(); END $$"], /^ERR_JOB_STATEMENT line 1: ring\(\)/],
    [
      "a language that may do anything",
      "",
      ["SELECT anything()"],
      /^ERR_JOB_STATEMENT line 1: anything\(\), whose language plany/,
    ],
    [
      "a trigger of the table",
      trigger("parent"),
      ["UPDATE parent SET name = 'x'"],
      /^ERR_TARGET_UNSUPPORTED trigger rings of parent calls on_row\(\), which calls through/,
    ],
    [
      "a trigger of a table that follows by a reference",
      trigger("child"),
      ["DELETE FROM parent WHERE id = 1"],
      /^ERR_TARGET_UNSUPPORTED trigger rings of child/,
    ],
    [
      "a default",
      "ALTER TABLE calm ADD COLUMN n integer; ALTER TABLE calm ALTER COLUMN n SET DEFAULT through(1)",
      ["INSERT INTO calm (id) VALUES (99)"],
      /^ERR_TARGET_UNSUPPORTED a default on n of calm calls through/,
    ],
    [
      "a trigger instead of a write to a view",
      `CREATE VIEW seen AS SELECT * FROM calm; CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM ring(); RETURN NEW; END $$;
       CREATE TRIGGER rings INSTEAD OF UPDATE ON seen FOR EACH ROW EXECUTE FUNCTION instead()`,
      ["UPDATE seen SET note = 'x'"],
      /^ERR_TARGET_UNSUPPORTED trigger rings of seen calls instead\(\), which calls ring/,
    ],
    [
      "a view that is read through another",
      "CREATE VIEW low AS SELECT through(id) AS id FROM calm; CREATE VIEW high AS SELECT * FROM low",
      ["DELETE FROM calm WHERE id IN (SELECT id FROM high)"],
      /^ERR_TARGET_UNSUPPORTED rule _RETURN of low calls through/,
    ],
    [
      "an index",
      `ALTER FUNCTION through(integer) IMMUTABLE; CREATE TABLE keyed (id integer); CREATE INDEX ON keyed (through(id))`,
      ["INSERT INTO keyed VALUES (1)"],
      /^ERR_TARGET_UNSUPPORTED index keyed_through_idx of keyed calls through/,
    ],
    [
      "a domain's check",
      "CREATE DOMAIN rung AS integer CHECK (through(VALUE) > 0); CREATE TABLE typed (id rung)",
      ["INSERT INTO typed VALUES (1)"],
      /^ERR_TARGET_UNSUPPORTED domain rung of typed calls through/,
    ],
    [
      "an operator",
      "CREATE OPERATOR @#@ (RIGHTARG = integer, FUNCTION = through)",
      ["UPDATE calm SET id = @#@ id"],
      /^ERR_JOB_STATEMENT line 1: operator @#@, which is through\(\), which calls ring/,
    ],
    [
      "an aggregate",
      `CREATE FUNCTION step(integer, integer) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN PERFORM ring(); RETURN 1; END $$;
       CREATE AGGREGATE total(integer) (SFUNC = step, STYPE = integer)`,
      ["UPDATE calm SET id = (SELECT total(id) FROM parent)"],
      /^ERR_JOB_STATEMENT line 1: total\(\), which calls step\(\), which calls ring/,
    ],
    [
      "a cast, wherever it happens",
      `CREATE TYPE odd AS (n integer); CREATE FUNCTION odd_of(integer) RETURNS odd LANGUAGE plpgsql AS $$ BEGIN PERFORM ring(); RETURN ROW($1)::odd; END $$;
       CREATE CAST (integer AS odd) WITH FUNCTION odd_of(integer) AS ASSIGNMENT`,
      ["UPDATE calm SET note = 'x'"],
      /^ERR_TARGET_UNSUPPORTED the cast from integer to public\.odd calls odd_of/,
    ],
    [
      "a script",
      trigger("parent"),
      ["ALTER TABLE calm ADD COLUMN n integer", "UPDATE parent SET name = 'x'"],
      /^ERR_TARGET_UNSUPPORTED trigger rings of parent/,
    ],
    [
      "an event trigger",
      `CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM ring(); END $$;
       CREATE EVENT TRIGGER rings ON ddl_command_end EXECUTE FUNCTION on_ddl()`,
      ["ALTER TABLE calm ADD COLUMN n integer"],
      /^ERR_TARGET_UNSUPPORTED event trigger rings calls on_ddl/,
    ],
    [
      "an event trigger, which the rehearsal's own temporary table would set off",
      `CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM ring(); END $$;
       CREATE EVENT TRIGGER rings ON ddl_command_end EXECUTE FUNCTION on_ddl()`,
      ["UPDATE calm SET note = 'x'"],
      /^ERR_TARGET_UNSUPPORTED event trigger rings calls on_ddl/,
    ],
    [
      "an event trigger that writes a table for it",
      `CREATE TABLE ddl (what text);
       CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ddl VALUES (tg_tag); END $$;
       CREATE EVENT TRIGGER notes ON ddl_command_end EXECUTE FUNCTION on_ddl()`,
      ["UPDATE calm SET note = 'x'"],
      /^ERR_TARGET_UNSUPPORTED an event trigger writes ddl when a temporary table is made/,
    ],
  ])("%s is refused before it runs", async (_, schema, job, line) => {
    if (schema !== "") await server.exec(url, schema);
    const before = await dumpPostgres(url);
    expect(await refusalLine(() => rehearseAll(target, sqlJob(...job)))).toMatch(line);
    expect([existsSync(file), await dumpPostgres(url)]).toEqual([false, before]);
  });

  test("what fired because the statements wrote a table that they do not name is not signed", async () => {
    await server.exec(url, trigger("parent"));
    const e = await refusal(() => rehearseAll(target, sqlJob("SELECT writes_parent()")));
    expect([e.code, e.message]).toEqual([
      "ERR_TARGET_UNSUPPORTED",
      expect.stringContaining("trigger rings of parent"),
    ]);
    expect(e.why).toContain("it has fired in this rehearsal");
  });

  test("a word in a comment is no call, and tables without such triggers are free", async () => {
    await server.exec(url, trigger("parent"));
    const { effect } = await rehearseAll(target, sqlJob("UPDATE calm SET note = 'x' WHERE id = quiet()"));
    expect(effect.changes).toHaveLength(1);
  });

  test("a trigger that notifies is told: of rows nothing is sent, of a script it is", async () => {
    await server.exec(url, trigger("parent", "told"));
    const rows = await rehearseAll(target, sqlJob("UPDATE parent SET name = 'x'"));
    expect(rows.rehearsal.notices).toContainEqual(
      expect.stringMatching(/^trigger rings of parent calls told\(\), which has pg_notify: rows are written/),
    );
    await server.exec(url, "CREATE RULE says AS ON UPDATE TO calm DO ALSO NOTIFY rows");
    const ruled = await rehearseAll(target, sqlJob("UPDATE calm SET note = 'x' WHERE id = 1"));
    expect(ruled.rehearsal.notices).toContainEqual(
      expect.stringMatching(/^rule says of calm notifies: rows are written with triggers silent/),
    );
    await server.exec(url, "DROP RULE says ON calm");
    const script = await rehearseAll(
      target,
      sqlJob("ALTER TABLE calm ADD COLUMN n integer", "UPDATE parent SET name = 'x'"),
    );
    expect(script.rehearsal.notices).toContainEqual(
      expect.stringMatching(/^trigger rings of parent calls told\(\), which has pg_notify: it is sent/),
    );
  });

  describe("what it may cost", () => {
    const within = async <T>(
      limits: Partial<RehearsalLimits>,
      work: (t: Target) => Promise<T>,
    ): Promise<T> => {
      const careful = await openPostgresTarget(url, { limits, statementTimeoutMs: 20_000 });
      try {
        return await work(careful);
      } finally {
        await careful.close();
      }
    };
    const column = "ALTER TABLE parent ADD COLUMN n integer";
    const costly: readonly [string, Partial<RehearsalLimits>, string, RegExp][] = [
      [
        "the planner's estimate",
        { rows: 20 },
        "DELETE FROM calm",
        /^ERR_REHEARSAL_LIMIT line 2 would write about 50 rows/,
      ],
      [
        "the rows of a block",
        { rows: 20 },
        "DO $$ BEGIN DELETE FROM calm; END $$",
        /^ERR_REHEARSAL_LIMIT the job writes 50 rows/,
      ],
      [
        "the write-ahead log, while the statement runs",
        { walBytes: 2 ** 20 },
        "DO $$ BEGIN FOR i IN 1..100000 LOOP UPDATE calm SET note = repeat('x', 100) || i; END LOOP; END $$",
        /^ERR_REHEARSAL_LIMIT \d+ MiB of write-ahead log were written while the job (was rehearsed|ran)/,
      ],
    ];

    test.each(costly)("a script's rehearsal ends over %s", async (_, limits, sql, line) => {
      await server.exec(url, "ANALYZE calm");
      const before = await dumpPostgres(url);
      expect(await refusalLine(() => within(limits, (t) => rehearseAll(t, sqlJob(column, sql))))).toMatch(
        line,
      );
      expect(await dumpPostgres(url)).toBe(before);
    });

    test.each(costly)(
      "a script at its apply ends over %s, and nothing of it stays",
      async (_, limits, sql, line) => {
        await server.exec(url, "ANALYZE calm");
        const before = await dumpPostgres(url);
        const job = sqlJob(column, sql);
        const e = await within(limits, async (t) => {
          const session = await t.openWriter();
          try {
            await session.begin({ script: true });
            const sink = { table: () => undefined, add: () => undefined };
            return await refusal(() => session.runScript?.(job.kind === "sql" ? job.statements : [], sink));
          } finally {
            await session.rollback();
            await session.close();
          }
        });
        expect(`${e.code} ${e.message}`).toMatch(line);
        expect([e.targetChanged, e.state]).toEqual(["no", expect.stringContaining("rolled back")]);
        expect(await dumpPostgres(url)).toBe(before);
      },
    );

    test("statements that were taken back to a savepoint are counted once", async () => {
      await server.exec(url, "ANALYZE calm");
      await within({ rows: 60 }, async (t) => {
        const { rehearsal } = await rehearseAll(
          t,
          sqlJob("ALTER TABLE calm ADD COLUMN n integer DEFAULT 1", "UPDATE calm SET note = 'x'"),
        );
        expect(rehearsal.notices[0]).toMatch(/^limits of the rehearsal: .* it took 50 row writes/);
      });
    });

    test("a session that does nothing inside its transaction is ended by the server", async () => {
      const job = sqlJob(
        "UPDATE calm SET note = current_setting('idle_in_transaction_session_timeout') WHERE id = 1",
        "UPDATE calm SET note = current_setting('statement_timeout') WHERE id = 2",
        "UPDATE calm SET note = current_setting('lock_timeout') WHERE id = 3",
      );
      const { effect } = await within({}, (t) => rehearseAll(t, job));
      expect(effect.changes.map((c) => (c.op === "update" ? c.after[1] : null))).toEqual([
        "1min",
        "20s",
        "400ms",
      ]);
    });
  });

  describe("replicas", () => {
    /** A replica that takes the write-ahead log, and says now and then how far it has applied it. */
    class Replica {
      readonly #client: pg.Client;
      constructor(client: pg.Client) {
        this.#client = client;
      }

      static async attach(at: TestServer): Promise<Replica> {
        const options = { host: at.folder, user: "postgres", database: "postgres", replication: "true" };
        const client = new pg.Client(options);
        client.on("error", () => undefined);
        await client.connect();
        const [row] = (await client.query<{ xlogpos: string }>("IDENTIFY_SYSTEM")).rows;
        // It goes on until the line is closed.
        void client.query(`START_REPLICATION PHYSICAL ${row?.xlogpos ?? ""}`).catch(() => undefined);
        return new Replica(client);
      }

      applied(lsn: string): void {
        const [high = "0", low = "0"] = lsn.split("/");
        const at = (BigInt(`0x${high}`) << 32n) + BigInt(`0x${low}`);
        const message = Buffer.alloc(5 + 34);
        message.write("d", 0);
        message.writeInt32BE(4 + 34, 1);
        message.write("r", 5);
        for (const place of [6, 14, 22]) message.writeBigUInt64BE(at, place);
        const connection: unknown = Reflect.get(this.#client, "connection");
        const line: unknown = Reflect.get(connection as object, "stream");
        (line as NodeJS.WritableStream).write(message);
      }

      async detach(): Promise<void> {
        const connection: unknown = Reflect.get(this.#client, "connection");
        (Reflect.get(connection as object, "stream") as { destroy: () => void }).destroy();
        await this.#client.end().catch(() => undefined);
      }
    }

    test("one that is too far behind ends the rehearsal; how far cannot be read without pg_monitor, and is said", async () => {
      const watcher = await connect(url);
      const replica = await Replica.attach(server);
      try {
        const lag = "SELECT coalesce(max(replay_lag) > interval '20 ms', false) FROM pg_stat_replication";
        for (let i = 0; (await watcher.rows(lag))[0]?.[0] !== "t"; i++) {
          if (i > 200) throw new Error("no lag was seen");
          await watcher.rows("UPDATE calm SET note = note");
          await watcher.rows("SELECT pg_sleep(0.05)");
          replica.applied((await watcher.rows("SELECT pg_current_wal_lsn()"))[0]?.[0] ?? "");
          await watcher.rows("SELECT pg_sleep(0.01)");
        }
        const behind = await openPostgresTarget(url, { limits: { lagMs: 1 } });
        try {
          expect(
            await refusalLine(() => rehearseAll(behind, sqlJob("DELETE FROM calm WHERE id = 1"))),
          ).toMatch(/^ERR_REHEARSAL_LIMIT a replica is \d+(\.\d)? s behind/);
        } finally {
          await behind.close();
        }
        const [database] = (await watcher.rows("SELECT current_database()"))[0] ?? [];
        const role = `poor_${process.pid}`;
        await server.exec(
          url,
          `CREATE ROLE ${role} LOGIN; GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ${role};
           GRANT TEMPORARY ON DATABASE "${database ?? ""}" TO ${role}`,
        );
        const poor = await openPostgresTarget(server.url(database ?? "", role), { limits: { lagMs: 1 } });
        try {
          const { rehearsal } = await rehearseAll(poor, sqlJob("DELETE FROM calm WHERE id = 1"));
          expect(rehearsal.notices).toContain(
            "how far 1 replicas are behind could not be read: the role needs GRANT pg_monitor",
          );
        } finally {
          await poor.close();
        }
        await server.exec(url, `DROP OWNED BY ${role}; DROP ROLE ${role}`);
      } finally {
        await replica.detach();
        await watcher.close();
      }
    });
  });
});
