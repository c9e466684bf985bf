/**
 * What a job changed, found by visibility, on a real server. The oracle is independent: all rows that the job's session sees
 * after it, minus all rows that others see, told by another program in another transaction.
 */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
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

/** Name, then the statements of the job. Each is rehearsed, held against the oracle, applied, and taken back. */
const CASES: readonly (readonly [string, ...string[]])[] = [
  ["update of some rows", "UPDATE parent SET name = 'new' WHERE id <= 7"],
  ["update of every row", "UPDATE parent SET name = name || '!'"],
  [
    "the same row twice",
    "UPDATE parent SET name = 'a' WHERE id = 1",
    "UPDATE parent SET name = 'b' WHERE id = 1",
  ],
  [
    "update and back again",
    "UPDATE parent SET name = 'a' WHERE id = 1",
    "UPDATE parent SET name = 'p1' WHERE id = 1",
  ],
  ["insert, then delete", "INSERT INTO parent VALUES (500, 'x', '')", "DELETE FROM parent WHERE id = 500"],
  ["delete, then insert again", "DELETE FROM child WHERE id = 1", "INSERT INTO child VALUES (1, 2, 'again')"],
  ["delete, then insert the same", "DELETE FROM child WHERE id = 1", "INSERT INTO child VALUES (1, 2, 'c1')"],
  ["cascading delete", "DELETE FROM parent WHERE id <= 4"],
  ["set null and update cascade", "UPDATE parent SET id = id + 1000 WHERE id IN (51, 52, 53)"],
  ["key change that cascades", "DELETE FROM child", "UPDATE parent SET id = id + 1000 WHERE id = 5"],
  ["insert select", "INSERT INTO child SELECT id + 1000, parent, note FROM child"],
  [
    "upsert",
    "INSERT INTO parent VALUES (1, 'up', ''), (600, 'ins', '') ON CONFLICT (id) DO UPDATE SET name = excluded.name",
  ],
  ["upsert that does nothing", "INSERT INTO parent VALUES (1, 'up', '') ON CONFLICT DO NOTHING"],
  [
    "merge",
    "MERGE INTO parent p USING (VALUES (1), (2), (700)) v(i) ON p.id = v.i WHEN MATCHED AND v.i = 1 THEN UPDATE SET name = 'm' WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.i, 'new', '')",
  ],
  [
    "writable CTE",
    "WITH gone AS (DELETE FROM child WHERE id <= 9 RETURNING *) INSERT INTO audit SELECT 'moved', id FROM gone",
  ],
  ["savepoints inside a function", "SELECT nested(9)"],
  ["lock in a subtransaction, then change", "SELECT locking()"],
  ["lock only", "SELECT id FROM parent WHERE id < 20 FOR UPDATE"],
  ["lock, then change some", "SELECT id FROM parent FOR UPDATE", "UPDATE parent SET name = 'x' WHERE id = 2"],
  ["partitions", "UPDATE part SET amount = amount + 1 WHERE id < 20"],
  ["row that moves between partitions", "UPDATE part SET region = 'us' WHERE id = 2"],
  ["delete from all partitions", "DELETE FROM part WHERE id % 3 = 0"],
  ["one partition by its own name", "DELETE FROM part_us WHERE id < 10"],
  ["inheritance", "UPDATE base SET what = 'all' WHERE id IN (1, 2, 101, 102)"],
  ["inheritance, parent only", "UPDATE ONLY base SET what = 'only'"],
  ["inheritance, child only", "UPDATE derived SET extra = 'x' WHERE id = 101"],
  ["generated column", "UPDATE computed SET a = a + 1 WHERE id < 5"],
  ["toasted value kept", "UPDATE toasted SET small = small + 1 WHERE id < 5"],
  ["toasted value changed", "UPDATE toasted SET big = repeat('z', 9000) WHERE id = 1"],
  ["toasted row deleted", "DELETE FROM toasted WHERE id = 3"],
  ["rule", "DELETE FROM ruled WHERE id = 2"],
  ["view", "UPDATE shown SET name = 'through' WHERE id = 9"],
  [
    "trigger",
    "UPDATE trig SET note = 'x'",
    "DELETE FROM trig WHERE id = 1",
    "INSERT INTO trig VALUES (9, 'n')",
  ],
  ["deferred constraint trigger", "UPDATE later SET note = 'x' WHERE id = 2"],
  ["keyless delete of equal rows", "DELETE FROM keyless WHERE a = 1"],
  ["keyless update", "UPDATE keyless SET b = 'same'"],
  ["keyless insert", "INSERT INTO keyless VALUES (1, 'k0'), (1, 'k0'), (9, NULL)"],
  ["unlogged", "UPDATE unlogged SET note = 'x' WHERE id = 1"],
  ["identity", "INSERT INTO auto (note) VALUES ('x'), ('y')", "DELETE FROM auto WHERE id = 1"],
  ["serial", "INSERT INTO serialised (note) VALUES ('x')"],
  ["deferrable unique values swapped", "UPDATE deferred SET twin = 6 - twin"],
  [
    "temporary table of the job",
    "CREATE TEMP TABLE ids AS SELECT id FROM parent WHERE id <= 3",
    "DELETE FROM parent WHERE id IN (SELECT id FROM ids)",
  ],
  ["temporary table inside a function", "SELECT scratch()"],
  ["DO block", "DO $$ BEGIN DELETE FROM audit WHERE id = 1; EXCEPTION WHEN OTHERS THEN NULL; END $$"],
  ["TRUNCATE", "TRUNCATE audit"],
  ["TRUNCATE CASCADE", "TRUNCATE parent CASCADE"],
  ["TRUNCATE and fill again", "TRUNCATE keyless", "INSERT INTO keyless VALUES (1, 'k0'), (7, 'new')"],
  ["TRUNCATE of a partitioned table", "TRUNCATE part"],
  ["TRUNCATE inside a function", "SELECT hidden_truncate()"],
  ["change, then TRUNCATE", "UPDATE audit SET id = 99", "TRUNCATE audit"],
  ["nothing", "UPDATE parent SET name = 'x' WHERE false"],
];

onPostgres("capture on PostgreSQL", "both", (ofRun) => {
  let server: TestServer;
  let url: string;
  let target: Target;

  beforeAll(async () => {
    server = ofRun();
    url = await server.freshDatabase();
    await server.exec(url, SCHEMA);
    target = await openPostgresTarget(url);
  });
  afterAll(async () => {
    await target?.close();
  });

  for (const [name, ...job] of CASES) {
    test(name, async () => {
      const before = await dumpPostgres(url);
      const expected = await oracle(url, job);
      // A rollback gives no number back, so the oracle would have used up the first ones.
      await server.exec(url, "SELECT setval('auto_id_seq', 5), setval('serialised_id_seq', 5)");
      const { effect } = await rehearseAll(target, sqlJob(...job));
      expect(linesOf(effect)).toEqual(expected.lines);
      expect(await dumpPostgres(url)).toBe(before);
      expect(await applyAll(target, effect)).toMatchObject({ problems: [], wrong: [] });
      expect(await dumpPostgres(url)).toBe(expected.dump);
      expect(await applyAll(target, invert(effect))).toMatchObject({ problems: [], wrong: [] });
      expect(await dumpPostgres(url)).toBe(before);
    });
  }

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

/** What the job does, told by all rows before and after in one transaction of another program; and the dump after it. */
async function oracle(
  url: string,
  job: readonly string[],
): Promise<{ readonly lines: readonly string[]; readonly dump: string }> {
  const client = await connect(url);
  try {
    await client.rows("SELECT setval('auto_id_seq', 5), setval('serialised_id_seq', 5)");
    await client.rows("BEGIN");
    const before = await everyRow(client);
    for (const sql of job) await client.rows(sql);
    await client.rows("SET CONSTRAINTS ALL IMMEDIATE");
    const after = await everyRow(client);
    const dump = await dumpOver(client);
    await client.rows("ROLLBACK");
    return { lines: difference(before, after), dump };
  } finally {
    await client.close();
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
