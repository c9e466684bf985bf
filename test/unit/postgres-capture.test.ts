/**
 * What a job changed, found by visibility, on a real server: 62 numbered cases, 58 of rows and 4 that empty or change a
 * table; what others do in 46 to 56 they do while the job runs. On the second server every table is frozen before each
 * case. The oracle is independent: all rows that the job's session sees after it, minus all rows that others see, told by
 * another program in another transaction, beside which the others do the same. The three races between the steps of the
 * capture are R1 to R3 of `postgres-concurrency.test.ts`.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import type { Change, ChangeSet } from "../../src/changeset/change.js";
import type { Target } from "../../src/target/target.js";
import { onPostgres } from "../support/on-postgres.js";
import { connect, type TestClient, type TestServer } from "../support/postgres.js";
import { dumpOver, dumpPostgres, openPostgresTarget } from "../support/postgres-target.js";
import { refusal } from "../support/refusal.js";
import { applyAll, rehearseAll, sqlJob } from "../support/rehearsing.js";
import { invert } from "../../src/changeset/invert.js";

const SCHEMA = `
  CREATE TABLE audit (what text, id integer);
  CREATE TABLE parent (id integer PRIMARY KEY, name text, pad text);
  CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent ON DELETE CASCADE, note text);
  CREATE TABLE loose (id integer PRIMARY KEY, parent integer REFERENCES parent ON DELETE SET NULL ON UPDATE CASCADE, note text);
  CREATE TABLE part (id integer, region text, amount numeric, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
  CREATE TABLE part_eu PARTITION OF part FOR VALUES IN ('eu');
  CREATE TABLE part_us (amount numeric, region text NOT NULL, id integer NOT NULL);
  ALTER TABLE part ATTACH PARTITION part_us FOR VALUES IN ('us');
  CREATE TABLE base (id integer PRIMARY KEY, what text);
  CREATE TABLE derived (extra text, PRIMARY KEY (id)) INHERITS (base);
  CREATE TABLE computed (id integer PRIMARY KEY, a integer, twice integer GENERATED ALWAYS AS (a * 2) STORED);
  CREATE TABLE toasted (id integer PRIMARY KEY, big text, small integer);
  ALTER TABLE toasted ALTER COLUMN big SET STORAGE EXTERNAL;
  CREATE TABLE ruled (id integer PRIMARY KEY, note text);
  CREATE RULE ruled_log AS ON DELETE TO ruled DO ALSO INSERT INTO audit VALUES ('ruled', OLD.id);
  CREATE TABLE keyless (a integer, b text);
  CREATE UNLOGGED TABLE unlogged (id integer PRIMARY KEY, note text);
  CREATE TABLE auto (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
  CREATE TABLE serialised (id serial PRIMARY KEY, note text);
  CREATE TABLE deferred (id integer PRIMARY KEY, twin integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
  CREATE TABLE trig (id integer PRIMARY KEY, note text);
  CREATE TABLE later (id integer PRIMARY KEY, note text);
  CREATE VIEW shown AS SELECT id, name FROM parent WHERE id < 100;
  CREATE FUNCTION log_row() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO audit VALUES (TG_TABLE_NAME || TG_OP, coalesce(NEW.id, OLD.id)); RETURN coalesce(NEW, OLD); END $$;
  CREATE TRIGGER trig_log AFTER INSERT OR UPDATE OR DELETE ON trig FOR EACH ROW EXECUTE FUNCTION log_row();
  CREATE CONSTRAINT TRIGGER later_log AFTER UPDATE ON later DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION log_row();
  CREATE FUNCTION nested(n integer) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    FOR i IN 1..n LOOP BEGIN UPDATE parent SET name = 'n' || i WHERE id = i; IF i % 2 = 0 THEN RAISE 'no'; END IF;
      EXCEPTION WHEN raise_exception THEN INSERT INTO audit VALUES ('failed', i); END; END LOOP; END $$;
  CREATE FUNCTION locking() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    BEGIN PERFORM 1 FROM parent WHERE id <= 10 FOR UPDATE; EXCEPTION WHEN OTHERS THEN NULL; END;
    UPDATE parent SET name = 'later' WHERE id = 3; END $$;
  CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN DELETE FROM audit; COMMIT; END $$;
  CREATE FUNCTION hidden_ddl() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE TABLE sneaked (id integer)'; END $$;
  CREATE FUNCTION hidden_view() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE VIEW sneaked AS SELECT 1'; END $$;
  CREATE FUNCTION hidden_alter() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER TABLE audit ADD COLUMN more text'; END $$;
  CREATE FUNCTION hidden_truncate() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'TRUNCATE child'; INSERT INTO child VALUES (1, 1, 'again'), (777, 2, 'new'); END $$;
  CREATE FUNCTION hidden_lob() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM lo_create(0); END $$;
  CREATE FUNCTION scratch() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE tmp AS SELECT id FROM parent WHERE id <= 3;
    DELETE FROM loose WHERE parent IN (SELECT id FROM tmp); DROP TABLE tmp; END $$;
  INSERT INTO parent SELECT i, 'p' || i, repeat('x', 50) FROM generate_series(1, 60) i;
  INSERT INTO child SELECT i, 1 + i % 50, 'c' || i FROM generate_series(1, 120) i;
  INSERT INTO loose SELECT i, 1 + i % 50, 'l' || i FROM generate_series(1, 60) i;
  INSERT INTO part SELECT i, CASE WHEN i % 2 = 0 THEN 'eu' ELSE 'us' END, i * 1.50 FROM generate_series(1, 40) i;
  INSERT INTO base SELECT i, 'b' || i FROM generate_series(1, 10) i;
  INSERT INTO derived SELECT i, 'd' || i, 'extra' FROM generate_series(101, 110) i;
  INSERT INTO computed SELECT i, i FROM generate_series(1, 10) i;
  INSERT INTO toasted SELECT i, repeat(md5(i::text), 300), i FROM generate_series(1, 10) i;
  INSERT INTO ruled SELECT i, 'r' FROM generate_series(1, 5) i;
  INSERT INTO audit SELECT 'seen', i % 3 FROM generate_series(1, 9) i;
  INSERT INTO keyless SELECT i % 4, nullif('k' || i % 2, 'k1') FROM generate_series(1, 20) i;
  INSERT INTO unlogged SELECT i, 'u' FROM generate_series(1, 5) i;
  INSERT INTO auto (note) SELECT 'a' FROM generate_series(1, 5);
  INSERT INTO serialised (note) SELECT 's' FROM generate_series(1, 5);
  INSERT INTO deferred SELECT i, i FROM generate_series(1, 5) i;
  INSERT INTO trig SELECT i, 't' FROM generate_series(1, 5) i;
  INSERT INTO later SELECT i, 't' FROM generate_series(1, 5) i;`;

const FROZEN = `VACUUM (FREEZE) audit, parent, child, loose, part, base, derived, computed, toasted, ruled, keyless, unlogged,
  auto, serialised, deferred, trig, later`;

/** Name, then the statements of the job. Each is rehearsed, held against the oracle, applied, and taken back. */
const CASES: readonly (readonly [string, ...string[]])[] = [
  ["01 update of some rows", "UPDATE parent SET name = 'new' WHERE id <= 7"],
  ["02 update of every row", "UPDATE parent SET name = name || '!'"],
  [
    "03 the same row twice",
    "UPDATE parent SET name = 'a' WHERE id = 1",
    "UPDATE parent SET name = 'b' WHERE id = 1",
  ],
  [
    "04 update and back again",
    "UPDATE parent SET name = 'a' WHERE id = 1",
    "UPDATE parent SET name = 'p1' WHERE id = 1",
  ],
  ["05 insert, then delete", "INSERT INTO parent VALUES (500, 'x', '')", "DELETE FROM parent WHERE id = 500"],
  [
    "06 delete, then insert again",
    "DELETE FROM child WHERE id = 1",
    "INSERT INTO child VALUES (1, 2, 'again')",
  ],
  [
    "07 delete, then insert the same",
    "DELETE FROM child WHERE id = 1",
    "INSERT INTO child VALUES (1, 2, 'c1')",
  ],
  ["08 cascading delete", "DELETE FROM parent WHERE id <= 4"],
  ["09 set null and update cascade", "UPDATE parent SET id = id + 1000 WHERE id IN (51, 52, 53)"],
  ["10 key change that cascades", "DELETE FROM child", "UPDATE parent SET id = id + 1000 WHERE id = 5"],
  ["11 insert select", "INSERT INTO child SELECT id + 1000, parent, note FROM child"],
  [
    "12 upsert",
    "INSERT INTO parent VALUES (1, 'up', ''), (600, 'ins', '') ON CONFLICT (id) DO UPDATE SET name = excluded.name",
  ],
  ["13 upsert that does nothing", "INSERT INTO parent VALUES (1, 'up', '') ON CONFLICT DO NOTHING"],
  [
    "14 merge",
    "MERGE INTO parent p USING (VALUES (1), (2), (700)) v(i) ON p.id = v.i WHEN MATCHED AND v.i = 1 THEN UPDATE SET name = 'm' WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.i, 'new', '')",
  ],
  [
    "15 writable CTE",
    "WITH gone AS (DELETE FROM child WHERE id <= 9 RETURNING *) INSERT INTO audit SELECT 'moved', id FROM gone",
  ],
  ["16 savepoints inside a function", "SELECT nested(9)"],
  ["17 lock in a subtransaction, then change", "SELECT locking()"],
  ["18 lock only", "SELECT id FROM parent WHERE id < 20 FOR UPDATE"],
  [
    "19 lock, then change some",
    "SELECT id FROM parent FOR UPDATE",
    "UPDATE parent SET name = 'x' WHERE id = 2",
  ],
  ["20 partitions", "UPDATE part SET amount = amount + 1 WHERE id < 20"],
  ["21 row that moves between partitions", "UPDATE part SET region = 'us' WHERE id = 2"],
  ["22 delete from all partitions", "DELETE FROM part WHERE id % 3 = 0"],
  ["23 one partition by its own name", "DELETE FROM part_us WHERE id < 10"],
  ["24 inheritance", "UPDATE base SET what = 'all' WHERE id IN (1, 2, 101, 102)"],
  ["25 inheritance, parent only", "UPDATE ONLY base SET what = 'only'"],
  ["26 inheritance, child only", "UPDATE derived SET extra = 'x' WHERE id = 101"],
  ["27 generated column", "UPDATE computed SET a = a + 1 WHERE id < 5"],
  ["28 toasted value kept", "UPDATE toasted SET small = small + 1 WHERE id < 5"],
  ["29 toasted value changed", "UPDATE toasted SET big = repeat('z', 9000) WHERE id = 1"],
  ["30 toasted row deleted", "DELETE FROM toasted WHERE id = 3"],
  ["31 rule", "DELETE FROM ruled WHERE id = 2"],
  ["32 view", "UPDATE shown SET name = 'through' WHERE id = 9"],
  [
    "33 trigger",
    "UPDATE trig SET note = 'x'",
    "DELETE FROM trig WHERE id = 1",
    "INSERT INTO trig VALUES (9, 'n')",
  ],
  ["34 deferred constraint trigger", "UPDATE later SET note = 'x' WHERE id = 2"],
  ["35 keyless delete of equal rows", "DELETE FROM keyless WHERE a = 1"],
  ["36 keyless update", "UPDATE keyless SET b = 'same'"],
  ["37 keyless insert", "INSERT INTO keyless VALUES (1, 'k0'), (1, 'k0'), (9, NULL)"],
  ["38 unlogged", "UPDATE unlogged SET note = 'x' WHERE id = 1"],
  ["39 identity", "INSERT INTO auto (note) VALUES ('x'), ('y')", "DELETE FROM auto WHERE id = 1"],
  ["40 serial", "INSERT INTO serialised (note) VALUES ('x')"],
  ["41 deferrable unique values swapped", "UPDATE deferred SET twin = 6 - twin"],
  [
    "42 temporary table of the job",
    "CREATE TEMP TABLE ids AS SELECT id FROM parent WHERE id <= 3",
    "DELETE FROM parent WHERE id IN (SELECT id FROM ids)",
  ],
  ["43 temporary table inside a function", "SELECT scratch()"],
  ["44 DO block", "DO $$ BEGIN DELETE FROM audit WHERE id = 1; EXCEPTION WHEN OTHERS THEN NULL; END $$"],
  ["45 nothing", "UPDATE parent SET name = 'x' WHERE false"],
  [
    "57 a reference of its own, then a change of what it refers to",
    "INSERT INTO child VALUES (901, 7, 'mine')",
    "UPDATE parent SET name = 'x' WHERE id = 7",
  ],
  [
    "58 a key that another row takes over",
    "DELETE FROM child WHERE id = 1",
    "UPDATE child SET id = 1 WHERE id = 2",
  ],
  ["59 TRUNCATE", "TRUNCATE audit"],
  ["60 TRUNCATE CASCADE", "TRUNCATE parent CASCADE"],
  ["more: TRUNCATE and fill again", "TRUNCATE keyless", "INSERT INTO keyless VALUES (1, 'k0'), (7, 'new')"],
  ["more: TRUNCATE of a partitioned table", "TRUNCATE part"],
  ["more: TRUNCATE inside a function", "SELECT hidden_truncate()"],
  ["more: change, then TRUNCATE", "UPDATE audit SET id = 99", "TRUNCATE audit"],
];

/** What others do: each statement in the session of that number. What they leave open is rolled back after the rehearsal. */
interface Others {
  readonly before: readonly (readonly [session: number, sql: string])[];
  /** When the job waits for them. */
  readonly whileItWaits?: readonly (readonly [session: number, sql: string])[];
  readonly job: readonly string[];
  /** Brings the rows back that they committed. */
  readonly restore?: string;
}

const AMONG_OTHERS: readonly (readonly [string, Others])[] = [
  [
    "46 a row that another session's new reference holds with a shared lock",
    {
      before: [
        [0, "BEGIN"],
        [0, "INSERT INTO child VALUES (900, 3, 'theirs')"],
      ],
      job: ["UPDATE parent SET name = 'x' WHERE id IN (3, 4)"],
    },
  ],
  [
    "47 a row that two sessions share",
    {
      before: [
        [0, "BEGIN"],
        [0, "SELECT 1 FROM parent WHERE id <= 5 FOR KEY SHARE"],
        [1, "BEGIN"],
        [1, "SELECT 1 FROM parent WHERE id <= 3 FOR KEY SHARE"],
      ],
      job: [
        "UPDATE parent SET name = 'x' WHERE id = 2",
        "SELECT nested(5)",
        "UPDATE parent SET name = 'y' WHERE id = 2",
      ],
    },
  ],
  [
    "48 others have written other rows of the table, and not committed",
    {
      before: [
        [0, "BEGIN"],
        [0, "UPDATE parent SET name = 'theirs' WHERE id IN (57, 58)"],
        [0, "DELETE FROM parent WHERE id = 59"],
        [0, "INSERT INTO parent VALUES (800, 'theirs', '')"],
      ],
      job: ["UPDATE parent SET name = 'x' WHERE id = 2", "DELETE FROM parent WHERE id = 56"],
    },
  ],
  [
    "49 others in savepoints, released and rolled back",
    {
      before: [
        [0, "BEGIN"],
        [0, "SAVEPOINT a"],
        [0, "UPDATE loose SET note = 'theirs' WHERE id = 51"],
        [0, "RELEASE a"],
        [0, "SAVEPOINT b"],
        [0, "DELETE FROM loose WHERE id = 52"],
        [0, "ROLLBACK TO b"],
        [0, "DELETE FROM loose WHERE id = 53"],
      ],
      job: ["UPDATE loose SET note = 'x' WHERE id IN (52, 54)", "DELETE FROM loose WHERE id = 55"],
    },
  ],
  [
    "50 others in an exception block",
    {
      before: [
        [0, "BEGIN"],
        [
          0,
          `DO $$ BEGIN BEGIN DELETE FROM child WHERE id > 100; RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END;
             BEGIN UPDATE child SET note = 'theirs' WHERE id = 99; EXCEPTION WHEN OTHERS THEN NULL; END; END $$`,
        ],
      ],
      job: ["DELETE FROM child WHERE id > 110", "UPDATE child SET note = 'x' WHERE id = 98"],
    },
  ],
  [
    "51 rows that others wrote and rolled back",
    {
      before: [
        [0, "BEGIN"],
        [0, "UPDATE loose SET note = 'theirs' WHERE id <= 30"],
        [0, "DELETE FROM loose WHERE id BETWEEN 40 AND 50"],
        [0, "ROLLBACK"],
      ],
      job: ["UPDATE loose SET note = 'x' WHERE id IN (29, 31)", "DELETE FROM loose WHERE id IN (49, 51)"],
    },
  ],
  [
    "52 rows that others have only locked",
    {
      before: [
        [0, "BEGIN"],
        [0, "SELECT 1 FROM loose WHERE id <= 20 FOR UPDATE"],
      ],
      job: [
        "UPDATE loose SET note = 'x' WHERE id IN (SELECT id FROM loose WHERE id <= 25 FOR UPDATE SKIP LOCKED)",
      ],
    },
  ],
  [
    "53 a newer version is committed while the job waits for the row",
    {
      before: [
        [0, "BEGIN"],
        [0, "UPDATE loose SET note = 'newer' WHERE id = 5"],
      ],
      whileItWaits: [[0, "COMMIT"]],
      job: ["UPDATE loose SET note = note || '!' WHERE id IN (5, 6)"],
      restore: "UPDATE loose SET note = 'l5' WHERE id = 5",
    },
  ],
  [
    "54 the row is deleted while the job waits for it",
    {
      before: [
        [0, "BEGIN"],
        [0, "DELETE FROM loose WHERE id = 5"],
      ],
      whileItWaits: [[0, "COMMIT"]],
      job: ["UPDATE loose SET note = note || '!' WHERE id IN (5, 6)"],
      restore: "INSERT INTO loose VALUES (5, 6, 'l5')",
    },
  ],
  [
    "55 a row is inserted while the job waits, and the job deletes it",
    {
      before: [
        [0, "BEGIN"],
        [0, "UPDATE loose SET note = 'newer' WHERE id = 5"],
        [0, "INSERT INTO loose VALUES (700, 1, 'new')"],
      ],
      whileItWaits: [[0, "COMMIT"]],
      job: ["UPDATE loose SET note = 'x' WHERE id = 5", "DELETE FROM loose WHERE id >= 700"],
      restore: "UPDATE loose SET note = 'l5' WHERE id = 5; DELETE FROM loose WHERE id = 700",
    },
  ],
  [
    "56 an upsert waits for the row that another session inserts",
    {
      before: [
        [0, "BEGIN"],
        [0, "INSERT INTO parent VALUES (600, 'theirs', '')"],
      ],
      whileItWaits: [[0, "COMMIT"]],
      job: [
        "INSERT INTO parent VALUES (600, 'up', ''), (601, 'ins', '') ON CONFLICT (id) DO UPDATE SET name = excluded.name",
      ],
      restore: "DELETE FROM parent WHERE id = 600",
    },
  ],
];

/** Planned whole: the statements run again at apply. */
const SCRIPTS: readonly (readonly [string, ...string[]])[] = [
  [
    "61 ALTER TABLE that rewrites every row",
    "ALTER TABLE trig ALTER COLUMN note TYPE text USING note || '!'",
  ],
  [
    "62 CREATE TABLE AS",
    "CREATE TABLE made AS SELECT id, note FROM later",
    "UPDATE later SET note = 'x' WHERE id = 1",
  ],
];

onPostgres("capture on PostgreSQL", "both", (ofRun, which) => {
  let server: TestServer;
  let url: string;
  let target: Target;

  beforeAll(async () => {
    server = ofRun();
    url = await server.freshDatabase();
    await server.exec(url, SCHEMA);
    target = await openPostgresTarget(url, { lockTimeoutMs: 10_000 });
  });
  afterAll(async () => {
    await target?.close();
  });
  beforeEach(async () => {
    if (which === "second") await server.exec(url, FROZEN);
  });

  /** What is planned is what the oracle saw; applied it is what the job leaves, and taken back what was there. */
  async function holds(effect: ChangeSet, expected: Expected, before: string): Promise<void> {
    expect(linesOf(effect)).toEqual(expected.lines);
    expect(await dumpPostgres(url)).toBe(before);
    expect(await applyAll(target, effect)).toMatchObject({ problems: [], wrong: [] });
    expect(await dumpPostgres(url)).toBe(expected.dump);
    expect(await applyAll(target, invert(effect))).toMatchObject({ problems: [], wrong: [] });
    expect(await dumpPostgres(url)).toBe(before);
  }

  test("every number from 1 to 62 is there once", () => {
    const names = [...CASES, ...AMONG_OTHERS, ...SCRIPTS].map(([name]) => name);
    const numbers = names.flatMap((name) => (/^\d/.test(name) ? [Number(name.slice(0, 2))] : []));
    expect(numbers.sort((a, b) => a - b)).toEqual(Array.from({ length: 62 }, (_, i) => i + 1));
  });

  for (const [name, ...job] of CASES) {
    test(name, async () => {
      const before = await dumpPostgres(url);
      const expected = await oracle(url, job);
      // A rollback gives no number back, so the oracle would have used up the first ones.
      await server.exec(url, "SELECT setval('auto_id_seq', 5), setval('serialised_id_seq', 5)");
      const { effect } = await rehearseAll(target, sqlJob(...job));
      await holds(effect, expected, before);
    });
  }

  test.each(AMONG_OTHERS)("%s", async (_, others) => {
    const before = await dumpPostgres(url);
    const expected = await amongOthers(url, others, () => oracle(url, others.job, "among others"));
    const committed = await dumpPostgres(url);
    if (others.restore !== undefined) await server.exec(url, others.restore);
    expect(await dumpPostgres(url)).toBe(before);
    const { effect } = await amongOthers(url, others, () => rehearseAll(target, sqlJob(...others.job)));
    expect(effect.changes.length).toBeGreaterThan(0);
    await holds(effect, expected, committed);
    if (others.restore !== undefined) await server.exec(url, others.restore);
  });

  test.each(SCRIPTS)("%s", async (_, ...job) => {
    const own = await server.freshDatabase();
    await server.exec(own, SCHEMA);
    const before = await dumpPostgres(own);
    const expected = await oracle(own, job);
    const opened = await openPostgresTarget(own);
    try {
      const { effect } = await rehearseAll(opened, sqlJob(...job));
      expect(linesOf(effect)).toEqual(expected.lines);
      expect(await dumpPostgres(own)).toBe(before);
      const session = await opened.openWriter();
      try {
        await session.begin({ script: true });
        const script = sqlJob(...job);
        await session.runScript?.(script.kind === "sql" ? script.statements : [], {
          table: () => undefined,
          add: () => undefined,
        });
        await session.commit();
      } finally {
        await session.close();
      }
      expect(await dumpPostgres(own)).toBe(expected.dump);
    } finally {
      await opened.close();
    }
  });

  describe("is refused by name", () => {
    test.each([
      ["COPY", "COPY audit FROM PROGRAM 'true'", "ERR_JOB_STATEMENT"],
      ["setval", "SELECT setval('serialised_id_seq', 1)", "ERR_JOB_STATEMENT"],
      ["dblink", "SELECT dblink('x')", "ERR_JOB_STATEMENT"],
      ["dblink in DO", "DO $$ BEGIN PERFORM dblink_exec('x', 'y'); END $$", "ERR_JOB_STATEMENT"],
      ["NOTIFY", "NOTIFY x", "ERR_JOB_STATEMENT"],
      ["pg_notify", "SELECT pg_notify('x', 'y')", "ERR_JOB_STATEMENT"],
      ["SET", "SET search_path = x", "ERR_JOB_STATEMENT"],
      ["LOCK", "LOCK TABLE audit", "ERR_JOB_STATEMENT"],
      ["TRUNCATE RESTART IDENTITY", "TRUNCATE serialised RESTART IDENTITY", "ERR_JOB_STATEMENT"],
      ["two statements in one", "DELETE FROM audit; COMMIT", "ERR_JOB_STATEMENT"],
      ["a procedure that commits", "CALL commits()", "ERR_JOB_FAILED"],
      ["DO that commits", "DO $$ BEGIN COMMIT; END $$", "ERR_JOB_FAILED"],
      ["a table made by a function", "SELECT hidden_ddl()", "ERR_TARGET_UNSUPPORTED"],
      ["a view made by a function", "SELECT hidden_view()", "ERR_TARGET_UNSUPPORTED"],
      ["a column added by a function", "SELECT hidden_alter()", "ERR_TARGET_UNSUPPORTED"],
      ["a large object", "SELECT hidden_lob()", "ERR_TARGET_UNSUPPORTED"],
      ["a job that would fail at COMMIT", "UPDATE deferred SET twin = 1", "ERR_JOB_FAILED"],
    ])("%s", async (_, sql, code) => {
      const before = await dumpPostgres(url);
      expect((await refusal(() => rehearseAll(target, sqlJob(sql)))).code).toBe(code);
      expect(await dumpPostgres(url)).toBe(before);
    });
  });
});

/** What an oracle saw. */
interface Expected {
  /** `-` and `+` before each row as it was and as it is. */
  readonly lines: readonly string[];
  /** The whole database after the job, as the job's session sees it. */
  readonly dump: string;
}

/** Lets the others begin, does `work`, lets them do the rest once it waits for them, and ends what they left open. */
async function amongOthers<T>(url: string, others: Others, work: () => Promise<T>): Promise<T> {
  const sessions = [await connect(url), await connect(url)];
  const say = async (lines: Others["before"]): Promise<void> => {
    for (const [session, sql] of lines) await sessions[session]?.rows(sql);
  };
  try {
    await say(others.before);
    const working = work();
    if (others.whileItWaits !== undefined) {
      await Promise.race([working, untilOneWaits(url)]);
      await say(others.whileItWaits);
    }
    return await working;
  } finally {
    for (const session of sessions) {
      await session.rows("ROLLBACK");
      await session.close();
    }
  }
}

async function untilOneWaits(url: string): Promise<void> {
  const client = await connect(url);
  try {
    for (let i = 0; i < 1_000; i++) {
      const [row] = await client.rows(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
      );
      if (row?.[0] !== "0") return;
      await client.rows("SELECT pg_sleep(0.01)");
    }
  } finally {
    await client.close();
  }
  throw new Error("the job never waited");
}

/**
 * What the job does: all rows that it sees after it, held against all that others see then (`amongOthers`), or that it saw
 * before where nobody else is at work and the job may lock whole tables; and the dump after it.
 */
async function oracle(
  url: string,
  job: readonly string[],
  how: "alone" | "among others" = "alone",
): Promise<Expected> {
  const [client, outside] = [await connect(url), await connect(url)];
  try {
    await client.rows("SELECT setval('auto_id_seq', 5), setval('serialised_id_seq', 5)");
    await client.rows("BEGIN");
    const alone = await everyRow(client);
    for (const sql of job) await client.rows(sql);
    await client.rows("SET CONSTRAINTS ALL IMMEDIATE");
    const after = await everyRow(client);
    const before = how === "alone" ? alone : await everyRow(outside);
    const dump = await dumpOver(client);
    await client.rows("ROLLBACK");
    return { lines: difference(before, after), dump };
  } finally {
    await client.close();
    await outside.close();
  }
}

const ROOTS = `SELECT c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1`;

async function everyRow(client: TestClient): Promise<ReadonlyMap<string, number>> {
  const rows = new Map<string, number>();
  for (const [table, kind] of await client.rows(ROOTS)) {
    const from = kind === "p" ? `"${table ?? ""}"` : `ONLY "${table ?? ""}"`;
    for (const row of await client.rows(`SELECT * FROM ${from}`)) {
      const line = `${table ?? ""} ${JSON.stringify(row)}`;
      rows.set(line, (rows.get(line) ?? 0) + 1);
    }
  }
  return rows;
}

function difference(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
): readonly string[] {
  const lines: string[] = [];
  for (const line of new Set([...before.keys(), ...after.keys()])) {
    const by = (after.get(line) ?? 0) - (before.get(line) ?? 0);
    for (let i = 0; i < Math.abs(by); i++) lines.push(`${by < 0 ? "-" : "+"} ${line}`);
  }
  return lines.sort();
}

function linesOf(effect: ChangeSet): readonly string[] {
  const line = (sign: string, c: Change, row: readonly unknown[]): string[] =>
    Array.from(
      { length: c.count ?? 1 },
      () => `${sign} ${c.table} ${JSON.stringify(row.map((v) => (typeof v === "bigint" ? String(v) : v)))}`,
    );
  return effect.changes
    .flatMap((c) => [
      ...(c.op === "insert" ? [] : line("-", c, c.before)),
      ...(c.op === "delete" ? [] : line("+", c, c.after)),
    ])
    .sort();
}
