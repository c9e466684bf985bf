/**
 * Every way in which SQLite is known to lead a tool like this one astray, one test each: those of the engine and the
 * driver, of the file and its locks, and of reading and writing rows exactly.
 */
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import Database from "better-sqlite3";
import type { Clock } from "../../src/base/clock.js";
import { driverFitsNode } from "../../src/adapters/sqlite/driver.js";
import type { SqliteOptions } from "../../src/adapters/sqlite/index.js";
import { mayHoldRealZero } from "../../src/adapters/sqlite/schema.js";
import { invert } from "../../src/changeset/invert.js";
import { sourceOf } from "../../src/changeset/source.js";
import type { Row, Value } from "../../src/changeset/value.js";
import type { RunnableJob, Target } from "../../src/target/target.js";
import { refusal } from "../support/refusal.js";
import { applyAll, rehearseAll, sqlJob, type Rehearsed } from "../support/rehearsing.js";
import { askRaw, dump, fileDigests, openTarget, runRaw } from "../support/sqlite.js";

let folder: string;
let path: string;
const opened: Target[] = [];

beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "holdpoint-test-")));
  path = join(folder, "shop.db");
});
afterEach(async () => {
  for (const target of opened.splice(0)) await target.close();
  rmSync(folder, { recursive: true, force: true });
});

async function open(options: Partial<SqliteOptions> = {}): Promise<Target> {
  const target = await openTarget(path, folder, options);
  opened.push(target);
  return target;
}

async function close(target: Target): Promise<void> {
  await target.close();
  opened.splice(opened.indexOf(target), 1);
}

/** Makes the database and opens it. */
function make(sql: string, options: Partial<SqliteOptions> = {}): Promise<Target> {
  runRaw(path, sql);
  return open(options);
}

/** What a job does, in one word per change. */
function told({ effect }: Rehearsed): readonly string[] {
  return effect.changes.map((c) => `${c.op} ${c.table} ${c.key.map(String).join(",")}`);
}

/** The `sqlite3` shell in a process of its own. */
function shell(sql: string): { readonly status: number; readonly output: string } {
  const ran = spawnSync("sqlite3", ["-cmd", ".timeout 0", path, sql], { encoding: "utf8" });
  return { status: ran.status ?? -1, output: ran.stdout + ran.stderr };
}

const SHOP = `
  CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
  CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent (id) ON DELETE CASCADE, note TEXT);
  INSERT INTO parent VALUES (1, 'a'), (2, 'b');
  INSERT INTO child VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 1, NULL), (4, 2, '');`;

describe("rows that go without being asked", () => {
  test("foreign keys are off on a connection that does not ask: the job means what the configuration says", async () => {
    const off = await make(SHOP, { foreignKeys: false });
    expect(told(await rehearseAll(off, sqlJob("DELETE FROM parent WHERE id = 1")))).toEqual([
      "delete parent 1",
    ]);
    expect((await off.schema()).settings["foreign_keys"]).toBe("off");
    const on = await open({ foreignKeys: true });
    expect(told(await rehearseAll(on, sqlJob("DELETE FROM parent WHERE id = 1")))).toHaveLength(4);
    expect((await on.schema()).settings["foreign_keys"]).toBe("on");
  });

  test("the engine's count leaves cascades out; ours does not", async () => {
    const { effect, rehearsal } = await rehearseAll(await make(SHOP), sqlJob("DELETE FROM parent"));
    expect(effect.changes).toHaveLength(6);
    expect(rehearsal.rowsBefore).toEqual({ child: 4, parent: 2 });
    expect(rehearsal.origins).toEqual({ child: "cascade", parent: "job" });
  });

  test("INSERT OR REPLACE looks like an insert and deletes children by cascade", async () => {
    const rehearsed = await rehearseAll(
      await make(SHOP),
      sqlJob("INSERT OR REPLACE INTO parent VALUES (1, 'new')"),
    );
    expect(told(rehearsed)).toEqual([
      "delete child 1",
      "delete child 2",
      "delete child 3",
      "update parent 1",
    ]);
    expect(rehearsed.rehearsal.notices).toEqual(["INSERT OR REPLACE replaced 1 row of parent"]);
  });

  test.each([
    ["REPLACE by another unique value", "REPLACE INTO parent VALUES (9, 'a')"],
    ["UPDATE OR REPLACE", "UPDATE OR REPLACE parent SET name = 'a' WHERE id = 2"],
    ["a plain INSERT into UNIQUE ON CONFLICT REPLACE", "INSERT INTO parent VALUES (9, 'a')"],
  ])("with recursive_triggers off no delete trigger tells of a row taken by %s", async (how, sql) => {
    const target = await make(
      how.includes("ON CONFLICT") ? SHOP.replace("UNIQUE", "UNIQUE ON CONFLICT REPLACE") : SHOP,
    );
    const rehearsed = await rehearseAll(target, sqlJob(sql));
    expect(told(rehearsed)).toEqual(expect.arrayContaining(["delete parent 1", "delete child 1"]));
    await applyAll(target, rehearsed.effect);
    const applied = dump(path);
    await applyAll(target, invert(rehearsed.effect));
    runRaw(path, sql, true);
    expect(applied).toBe(dump(path));
  });

  test("REPLACE by a unique index over an expression: no probe sees it, the numbers do", async () => {
    const target = await make(`${SHOP} CREATE UNIQUE INDEX lower_name ON parent (lower(name) || '')`);
    const { effect, rehearsal } = await rehearseAll(target, sqlJob("REPLACE INTO parent VALUES (9, 'A')"));
    expect(rehearsal.where).toBe("copy");
    expect(effect.changes.map((c) => [c.table, c.op])).toContainEqual(["parent", "delete"]);
    expect(effect.changes).toHaveLength(5);
  });

  test("inside a trigger the firing statement's OR REPLACE wins over OR IGNORE: the first image must survive", async () => {
    const target = await make(
      "CREATE TABLE t (id INTEGER PRIMARY KEY, n); INSERT INTO t VALUES (1, 'first')",
    );
    const rehearsed = await rehearseAll(
      target,
      sqlJob("REPLACE INTO t VALUES (1, 'second')", "REPLACE INTO t VALUES (1, 'third')"),
    );
    expect(rehearsed.effect.changes).toMatchObject([{ before: [1n, "first"], after: [1n, "third"] }]);
  });

  test("a trigger changes the order in which UPDATE comes by the rows: such a job is rehearsed without any", async () => {
    const target = await make(`
      CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, b TEXT UNIQUE);
      INSERT INTO t (rowid, id, b) VALUES (2, '2', 'a'), (4, 'a', '1');`);
    const job = sqlJob("UPDATE t SET id = b WHERE b >= '1'");
    const { effect, rehearsal } = await rehearseAll(target, job);
    expect(rehearsal.where).toBe("copy");
    await applyAll(target, effect);
    expect(askRaw(path, "SELECT group_concat(id || b) FROM (SELECT * FROM t ORDER BY id)")).toBe("11,aa");
  });

  test("DELETE without WHERE clears a table by one instruction, and is seen row by row", async () => {
    const rehearsed = await rehearseAll(
      await make(SHOP, { foreignKeys: false }),
      sqlJob("DELETE FROM child"),
    );
    expect(rehearsed.effect.changes).toHaveLength(4);
  });

  test("deferred foreign keys fail at COMMIT, which a rehearsal never reaches", async () => {
    const target = await make(SHOP.replace("ON DELETE CASCADE", "DEFERRABLE INITIALLY DEFERRED"));
    const e = await refusal(() => rehearseAll(target, sqlJob("DELETE FROM parent WHERE id = 1")));
    expect([e.code, e.message]).toEqual(["ERR_JOB_FAILED", expect.stringContaining("child: parent 1")]);
    const both = sqlJob("DELETE FROM parent WHERE id = 1", "DELETE FROM child WHERE parent = 1");
    expect((await rehearseAll(target, both)).effect.changes).toHaveLength(4);
  });
});

describe("what a job may not do", () => {
  test.each([
    "ATTACH 'other.db' AS o",
    "DETACH o",
    "VACUUM",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA writable_schema = ON",
    "/* - */ PRAGMA main . writable_schema(1)",
    "EXPLAIN PRAGMA foreign_keys = OFF",
    "ANALYZE",
    "REINDEX",
    "SELECT load_extension('evil.so')",
    "CREATE VIRTUAL TABLE v USING fts5 (a)",
    "CREATE TEMP TRIGGER x BEFORE DELETE ON parent BEGIN SELECT 1; END",
    "DELETE FROM child; DELETE FROM parent",
    "DELETE FROM nothing",
    "",
  ])("%s is refused with its line", async (sql) => {
    const target = await make(SHOP);
    const before = fileDigests(path);
    const e = await refusal(() => rehearseAll(target, sqlJob("SELECT 1", sql)));
    expect([e.code, e.message.slice(0, 6)]).toEqual(["ERR_JOB_STATEMENT", "line 2"]);
    await close(target);
    expect(fileDigests(path)).toEqual(before);
    expect(existsSync(join(folder, "other.db"))).toBe(false);
  });

  test("reading pragmas and plain SELECTs are allowed and change nothing", async () => {
    const target = await make(SHOP);
    const job = sqlJob("PRAGMA table_info(parent)", "PRAGMA foreign_key_check", "SELECT * FROM child");
    expect((await rehearseAll(target, job)).effect.changes).toEqual([]);
  });

  test.each([
    "DROP TABLE temp.holdpoint_capture_0_slots",
    "DELETE FROM 'holdpoint_capture_0_slots'",
    'UPDATE "HOLDPOINT_marker" SET name = 1',
    "CREATE TABLE holdpoint_mine (a)",
    "CREATE TABLE 'holdpoint_mine' (a)",
    "CREATE TRIGGER x AFTER INSERT ON child BEGIN DELETE FROM holdpoint_notes; END",
  ])("%s: our tables, those of the capture too, are not a job's", async (sql) => {
    const target = await make(SHOP);
    const e = await refusal(() => rehearseAll(target, sqlJob(sql)));
    expect(["ERR_MARKER_TOUCHED", "ERR_JOB_STATEMENT"]).toContain(e.code);
  });

  test("FTS5: a virtual table cannot be held, and is refused by name, through a trigger too", async () => {
    const target = await make(`
      CREATE VIRTUAL TABLE words USING fts5 (body);
      CREATE TABLE page (id INTEGER PRIMARY KEY, body);
      CREATE TRIGGER page_in AFTER INSERT ON page BEGIN INSERT INTO words (rowid, body) VALUES (NEW.id, NEW.body); END;
      INSERT INTO page VALUES (1, 'hold the line');`);
    for (const sql of [
      "INSERT INTO words VALUES ('x')",
      "INSERT INTO page VALUES (2, 'x')",
      "DROP TABLE words",
    ]) {
      const e = await refusal(() => rehearseAll(target, sqlJob(sql)));
      expect([e.code, e.message]).toEqual(["ERR_TARGET_UNSUPPORTED", expect.stringContaining("words")]);
    }
    // What does not touch it is none of its business.
    expect(told(await rehearseAll(target, sqlJob("DELETE FROM page")))).toEqual(["delete page 1"]);
    const program: RunnableJob = {
      kind: "program",
      run: async (copy) => runRaw(copy.path, "INSERT INTO page VALUES (2, 'x')"),
    };
    expect((await refusal(() => rehearseAll(target, program))).code).toBe("ERR_TARGET_UNSUPPORTED");
  });

  test("a job that turns back a sequence is refused; one that moves it shows the move", async () => {
    const target = await make(`
      CREATE TABLE kept (id INTEGER PRIMARY KEY AUTOINCREMENT, n); CREATE TABLE reused (id INTEGER PRIMARY KEY, n);
      INSERT INTO kept (n) VALUES (1), (2), (3); INSERT INTO reused (n) VALUES (1), (2), (3);`);
    const job = sqlJob(
      ...["kept", "reused"].flatMap((t) => [`DELETE FROM ${t}`, `INSERT INTO ${t} (n) VALUES (9)`]),
    );
    const { effect, rehearsal } = await rehearseAll(target, job);
    expect(rehearsal.sequences).toEqual([{ name: "kept", before: "3", after: "4" }]);
    // Without AUTOINCREMENT the id of a deleted row is given out again: the same key is another entity.
    expect(effect.changes.filter((c) => c.table === "reused").map((c) => c.op)).toEqual([
      "update",
      "delete",
      "delete",
    ]);
    await applyAll(target, effect, rehearsal.sequences);
    await applyAll(target, invert(effect));
    expect(askRaw(path, "SELECT seq FROM sqlite_sequence WHERE name = 'kept'")).toBe(4);
    for (const sql of ["UPDATE sqlite_sequence SET seq = 0", "DELETE FROM sqlite_sequence"]) {
      expect((await refusal(() => rehearseAll(target, sqlJob(sql)))).code).toBe("ERR_TARGET_UNSUPPORTED");
    }
  });
});

describe("schema changes", () => {
  test("DROP TABLE takes the capture's triggers away, and its rows are told all the same", async () => {
    const target = await make(SHOP);
    const rehearsed = await rehearseAll(
      target,
      sqlJob("UPDATE child SET note = 'z' WHERE id = 1", "DROP TABLE child"),
    );
    expect(told(rehearsed)).toEqual(["delete child 1", "delete child 2", "delete child 3", "delete child 4"]);
    expect(rehearsed.effect.changes[0]).toMatchObject({ before: [1n, 1n, "x"] });
    expect(rehearsed.rehearsal.schemaChanges).toMatchObject([
      { action: "drop", object: "table", name: "child", after: null },
    ]);
  });

  test("a rebuild under the same name shows what it did to the rows", async () => {
    const rehearsed = await rehearseAll(
      await make(SHOP, { foreignKeys: false }),
      sqlJob(
        "CREATE TABLE new_parent (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
        "INSERT INTO new_parent SELECT id, upper(name) FROM parent WHERE id = 1",
        "DROP TABLE parent",
        "ALTER TABLE new_parent RENAME TO parent",
      ),
    );
    expect(told(rehearsed)).toEqual(["update parent 1", "delete parent 2"]);
    expect(rehearsed.rehearsal.schemaChanges).toMatchObject([
      { action: "alter", name: "parent", undo: expect.stringContaining("not") },
    ]);
  });

  test("ADD COLUMN can be taken back while it is empty; filling it is an effect on rows", async () => {
    const target = await make(SHOP);
    const empty = await rehearseAll(target, sqlJob("ALTER TABLE parent ADD COLUMN age INTEGER"));
    expect([told(empty), empty.rehearsal.schemaChanges[0]?.undo]).toEqual([[], "yes"]);
    const filled = await rehearseAll(
      target,
      sqlJob("ALTER TABLE parent ADD COLUMN age INTEGER", "UPDATE parent SET age = 5 WHERE id = 2"),
    );
    expect(filled.effect.changes).toMatchObject([
      { op: "update", before: [2n, "b", null], after: [2n, "b", 5n] },
    ]);
    expect(filled.rehearsal.schemaChanges[0]?.undo).toBe("the added column is no longer empty");
  });

  test("CREATE TABLE and INDEX are shown with what they hold, and leave nothing behind", async () => {
    const target = await make(SHOP);
    const before = fileDigests(path);
    const rehearsed = await rehearseAll(
      target,
      sqlJob("CREATE TABLE copied AS SELECT * FROM parent", "CREATE INDEX copied_name ON copied (name)"),
    );
    expect(rehearsed.effect.changes.map((c) => [c.table, c.op])).toEqual([
      ["copied", "insert"],
      ["copied", "insert"],
    ]);
    expect(rehearsed.rehearsal.schemaChanges.map((c) => [c.action, c.object, c.name, c.undo])).toEqual([
      ["create", "index", "copied_name", "yes"],
      ["create", "table", "copied", "yes"],
    ]);
    await close(target);
    expect(fileDigests(path)).toEqual(before);
  });

  test("a job's own temporary tables are scratch paper", async () => {
    const rehearsed = await rehearseAll(
      await make(SHOP),
      sqlJob(
        "CREATE TEMP TABLE doomed AS SELECT id FROM parent WHERE id = 2",
        "DELETE FROM parent WHERE id IN (SELECT id FROM doomed)",
      ),
    );
    expect(told(rehearsed)).toEqual(["delete child 4", "delete parent 2"]);
    expect(rehearsed.rehearsal.schemaChanges).toEqual([]);
  });
});

describe("values", () => {
  const HOSTILE: readonly Value[] = [
    null,
    "",
    new Uint8Array(0),
    0n,
    1n,
    2n ** 53n + 1n,
    2n ** 63n - 1n,
    -(2n ** 63n),
    0.5,
    1,
    -0,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    5e-324,
    "1",
    "a\0b",
    "\uFEFFmark",
    "\uFFFD",
    "\u{1F600}",
    Uint8Array.of(0, 255),
    { kind: "raw-text", bytes: Buffer.of(0xff) },
    { kind: "raw-text", bytes: Buffer.of(0x61, 0x00, 0xc0) },
  ];

  test.each([
    ["a rowid table", "CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "UTF-8"],
    ["a WITHOUT ROWID table", "CREATE TABLE t (id INTEGER PRIMARY KEY, v) WITHOUT ROWID", "UTF-8"],
    ["a table without a key", "CREATE TABLE t (id, v)", "UTF-8"],
    ["values as keys", "CREATE TABLE t (id, v NOT NULL, PRIMARY KEY (v, id)) WITHOUT ROWID", "UTF-8"],
    ["a UTF-16 database", "CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "UTF-16le"],
  ])("every value goes through capture, apply and undo exactly: %s", async (_, sql, encoding) => {
    runRaw(path, `PRAGMA encoding = '${encoding}'; ${sql}`);
    const asKey = sql.includes("NOT NULL");
    // In UTF-16 other bytes are invalid; and NULL stands in no key.
    const values = HOSTILE.filter((v) => !(asKey && v === null) && !(encoding !== "UTF-8" && isRaw(v)));
    const db = new Database(path);
    values.forEach((v, i) => {
      const cast = isRaw(v) ? "CAST(? AS TEXT)" : "?";
      const given = isRaw(v) ? v.bytes : v instanceof Uint8Array ? Buffer.from(v) : v;
      db.prepare(`INSERT INTO t VALUES (?, ${cast})`).run(i + 1, given);
    });
    db.close();
    const target = await open();
    const before = dump(path);
    const { effect } = await rehearseAll(target, sqlJob("DELETE FROM t"));
    const found = effect.changes.map((c) => (c.op === "delete" ? c.before : []));
    const byId = [...found].sort((a, b) => Number(a[0]) - Number(b[0])).map((row) => row[1]);
    expect(byId.map(shown)).toEqual(values.map(shown));
    expect(await applyAll(target, effect)).toMatchObject({ written: values.length, problems: [], wrong: [] });
    expect(await target.countRows("t")).toBe(0);
    await applyAll(target, invert(effect));
    expect(dump(path)).toBe(before);
    const update = await rehearseAll(
      target,
      sqlJob("UPDATE t SET v = CAST(coalesce(v, '') || x'ff' AS TEXT)"),
    );
    await applyAll(target, update.effect);
    expect(await applyAll(target, invert(update.effect))).toMatchObject({ problems: [], wrong: [] });
    expect(dump(path)).toBe(before);
  });

  function isRaw(v: Value): v is { readonly kind: "raw-text"; readonly bytes: Uint8Array } {
    return typeof v === "object" && v !== null && "kind" in v;
  }

  function shown(v: Value | undefined): string {
    if (v === undefined) return "nothing";
    if (isRaw(v)) return `raw ${Buffer.from(v.bytes).toString("hex")}`;
    if (typeof v === "object" && v !== null) return `blob ${Buffer.from(v).toString("hex")}`;
    return `${typeof v} ${Object.is(v, -0) ? "-0" : String(v)}`;
  }

  test("a key under NOCASE finds one row, and only the exact one", async () => {
    const target = await make(
      "CREATE TABLE t (k TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, v); INSERT INTO t VALUES ('Ann', 1)",
    );
    const [shape] = (await target.schema()).tables;
    if (shape === undefined) throw new Error("no shape");
    const found = [];
    for await (const row of target.readRows(shape, [["Ann"], ["ann"]])) found.push(row.row);
    expect(found).toEqual([["Ann", 1n], null]);
    const { effect } = await rehearseAll(target, sqlJob("UPDATE t SET k = 'ANN'"));
    expect(effect.changes.map((c) => [c.op, c.key[0], c.link?.[0]])).toEqual([
      ["insert", "ANN", "Ann"],
      ["delete", "Ann", "ANN"],
    ]);
    expect(await applyAll(target, effect)).toMatchObject({ written: 2, problems: [], wrong: [] });
  });

  test("a declared key that may hold NULL is a key only while it holds none", async () => {
    const target = await make("CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1)");
    expect((await target.schema()).tables[0]?.keyKind).toBe("primary");
    const { effect } = await rehearseAll(target, sqlJob("INSERT INTO t VALUES (NULL, 2), (NULL, 2)"));
    expect(effect.tables[0]?.keyKind).toBe("none");
    expect(effect.changes).toMatchObject([{ op: "insert", after: [null, 2n], count: 2 }]);
    await applyAll(target, effect);
    expect((await target.schema()).tables[0]?.keyKind).toBe("none");
  });

  test.each([
    ["INTEGER PRIMARY KEY", "id INTEGER PRIMARY KEY, v", "primary"],
    ["INTEGER PRIMARY KEY DESC, which is no rowid", "id INTEGER, v, PRIMARY KEY (id DESC)", "primary"],
    ["no key", "id INTEGER UNIQUE NOT NULL, v", "none"],
  ])("%s", async (_, columns, kind) => {
    const target = await make(`CREATE TABLE t (${columns}); INSERT INTO t VALUES (1, 1)`);
    expect((await target.schema()).tables[0]?.keyKind).toBe(kind);
  });

  test("columns may hide the rowid: another of its names is taken, and without any the table is refused", async () => {
    const target = await make(`
      CREATE TABLE two (rowid TEXT, _rowid_ TEXT, v); INSERT INTO two VALUES ('x', 'y', 1);
      CREATE TABLE three (rowid TEXT, oid TEXT, _rowid_ TEXT); INSERT INTO three VALUES ('x', 'y', 'z');`);
    const { effect } = await rehearseAll(target, sqlJob("UPDATE two SET v = 2"));
    expect(effect.changes).toMatchObject([{ op: "delete" }, { op: "insert", after: ["x", "y", 2n] }]);
    const e = await refusal(() => rehearseAll(target, sqlJob("DELETE FROM three")));
    expect([e.code, e.message]).toEqual(["ERR_TARGET_UNSUPPORTED", expect.stringContaining("three")]);
  });

  test("names that need quoting, and names of keywords", async () => {
    const target = await make(
      `CREATE TABLE "or""der" ("select" INTEGER PRIMARY KEY, "a b" TEXT, [x]]y] TEXT);`.replace(
        "[x]]y]",
        '"x]y"',
      ),
    );
    const { effect } = await rehearseAll(target, sqlJob(`INSERT INTO "or""der" VALUES (1, 'a', 'b')`));
    expect(await applyAll(target, effect)).toMatchObject({ written: 1, problems: [], wrong: [] });
    expect(effect.tables[0]?.name).toBe('or"der');
  });

  test("generated columns are compared and never written", async () => {
    const target = await make(`
      CREATE TABLE t (id INTEGER PRIMARY KEY, a, twice AS (a * 2), thrice AS (a * 3) STORED); INSERT INTO t (a) VALUES (1), (2);`);
    const { effect } = await rehearseAll(
      target,
      sqlJob("UPDATE t SET a = a + 10", "INSERT INTO t (a) VALUES (5)"),
    );
    expect(effect.tables[0]?.columns.map((c) => c.generated ?? false)).toEqual([false, false, true, true]);
    expect(effect.changes[0]).toMatchObject({ after: [1n, 11n, 22n, 33n] });
    expect(await applyAll(target, effect)).toMatchObject({ written: 3, problems: [], wrong: [] });
  });

  test("a constraint that says ON CONFLICT REPLACE takes nobody's row away while rows are written", async () => {
    const target = await make(
      "CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE ON CONFLICT REPLACE); INSERT INTO t VALUES (1, 'a')",
    );
    const { effect } = await rehearseAll(target, sqlJob("INSERT INTO t VALUES (2, 'b')"));
    runRaw(path, "INSERT INTO t VALUES (3, 'b')");
    expect((await applyAll(target, effect)).problems).toMatchObject([{ kind: "constraint" }]);
    expect(await target.countRows("t")).toBe(2);
  });

  test("long chains and rings of unique values are written without a free one", async () => {
    const target = await make(`
      CREATE TABLE t (id INTEGER PRIMARY KEY, place INTEGER UNIQUE, note);
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, i, 'n' FROM n;`);
    const ring = sqlJob(
      "UPDATE t SET place = -place",
      "UPDATE t SET place = CASE place WHEN -500 THEN 1 ELSE 1 - place END",
    );
    const { effect } = await rehearseAll(target, ring);
    expect(effect.changes).toHaveLength(500);
    // Somebody else's edit of another column in the meantime stays.
    runRaw(path, "UPDATE t SET note = 'mine' WHERE id = 7");
    expect(await applyAll(target, effect)).toMatchObject({ written: 500, problems: [], wrong: [] });
    expect(askRaw(path, "SELECT note || place FROM t WHERE id = 7")).toBe("mine8");
  });

  test("values that differ from run to run are found, the time of day too", async () => {
    const target = await make(
      "CREATE TABLE t (id INTEGER PRIMARY KEY, r, at TEXT DEFAULT CURRENT_TIMESTAMP, n); INSERT INTO t VALUES (1, 1, 'x', 1)",
    );
    const job = sqlJob("UPDATE t SET r = random(), n = 2", "INSERT INTO t (r, n) VALUES (unixepoch(), 1)");
    const { rehearsal, effect } = await rehearseAll(target, job);
    expect([...rehearsal.volatile].sort((a, b) => (a.column < b.column ? -1 : 1))).toEqual([
      { table: "t", column: "at", rows: 1 },
      { table: "t", column: "r", rows: 2 },
    ]);
    expect(effect.changes).toHaveLength(2);
    const chosen = await rehearseAll(
      target,
      sqlJob("UPDATE t SET n = 7 WHERE at < datetime('now', '-1 day')"),
    );
    expect(chosen.rehearsal.volatile).toEqual([]);
  });
});

describe("writing rows", () => {
  const TRIGGERED = `
    CREATE TABLE t (id INTEGER PRIMARY KEY, n); CREATE TABLE log (what);
    CREATE TRIGGER b AFTER UPDATE ON t BEGIN INSERT INTO log VALUES ('b' || OLD.n); END;
    CREATE INDEX t_n ON t (n);
    CREATE TRIGGER a AFTER DELETE ON t BEGIN INSERT INTO log VALUES ("a"); DELETE FROM log WHERE what IS NULL; END;
    CREATE VIEW v AS SELECT n FROM t;
    create  trigger  IF NOT EXISTS  "c c" BEFORE INSERT ON log BEGIN SELECT 1; END;
    INSERT INTO t VALUES (1, 1), (2, 2);`;

  test("triggers are dropped and made again inside the batch: the dump is equal, text and order", async () => {
    execFileSync("sqlite3", [path, TRIGGERED.replace('"a"', "'a'")]);
    const target = await open();
    const schema = (): string =>
      execFileSync("sqlite3", [path, "SELECT rowid, * FROM sqlite_schema; PRAGMA integrity_check"], {
        encoding: "utf8",
      });
    const before = execFileSync("sqlite3", [path, ".dump"], { encoding: "utf8" });
    const objects = schema();
    const { effect } = await rehearseAll(
      target,
      sqlJob("UPDATE t SET n = 5 WHERE id = 1", "DELETE FROM t WHERE id = 2"),
    );
    expect(effect.changes.map((c) => c.table)).toEqual(["log", "log", "t", "t"]);
    expect(await applyAll(target, effect)).toMatchObject({ written: 4, problems: [], wrong: [] });
    expect(askRaw(path, "SELECT group_concat(what) FROM log")).toBe("a,b1");
    expect(schema()).toBe(objects);
    await applyAll(target, invert(effect));
    expect(execFileSync("sqlite3", [path, ".dump"], { encoding: "utf8" })).toBe(before);
    // And they still work.
    runRaw(path, "DELETE FROM t WHERE id = 1");
    expect(askRaw(path, "SELECT count(*) FROM log")).toBe(1);
  });

  test("nobody sees the database without its triggers while a batch is open, and a rollback keeps them", async () => {
    const target = await make(TRIGGERED.replace('"a"', "'a'"));
    const { effect } = await rehearseAll(target, sqlJob("UPDATE t SET n = 5"));
    const session = await target.openWriter();
    await session.begin();
    await session.write(sourceOf(effect), []);
    expect(askRaw(path, "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'")).toBe(3);
    await session.rollback();
    await session.close();
    expect(askRaw(path, "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'")).toBe(3);
  });

  test("a trigger that differs at apply is another schema", async () => {
    const target = await make(TRIGGERED.replace('"a"', "'a'"));
    const { rehearsal } = await rehearseAll(target, sqlJob("UPDATE t SET n = 5"));
    runRaw(
      path,
      "DROP TRIGGER b; CREATE TRIGGER b AFTER UPDATE ON t BEGIN INSERT INTO log VALUES ('other'); END",
    );
    expect((await target.schema()).fingerprint).not.toBe(rehearsal.schema.fingerprint);
    const session = await target.openWriter();
    expect((await session.schema()).fingerprint).toBe((await target.schema()).fingerprint);
    await session.close();
  });

  test("cascades do not act again while rows are written, and the setting is told as configured", async () => {
    const target = await make(SHOP);
    const { effect, rehearsal } = await rehearseAll(target, sqlJob("DELETE FROM parent WHERE id = 1"));
    const session = await target.openWriter();
    await session.begin();
    expect((await session.schema()).settings).toEqual(rehearsal.schema.settings);
    expect(await session.write(sourceOf(effect), [])).toEqual({ written: 4, alreadyDone: 0, problems: [] });
    await session.commit();
    await session.close();
  });

  test("references that were broken before and are not written are nobody's problem", async () => {
    const target = await make(`${SHOP} INSERT INTO child VALUES (9, 77, 'orphan')`);
    const { effect } = await rehearseAll(target, sqlJob("UPDATE child SET note = 'seen'"));
    expect(await applyAll(target, effect)).toMatchObject({ written: 5, problems: [], wrong: [] });
  });

  test("many equal rows of a table without a key are picked in one pass", async () => {
    const target = await make(`
      CREATE TABLE t (a, b);
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) INSERT INTO t SELECT i % 50, 'x' FROM n;`);
    const { effect } = await rehearseAll(target, sqlJob("DELETE FROM t WHERE rowid <= 120"));
    expect(effect.changes).toHaveLength(50);
    runRaw(path, "DELETE FROM t WHERE a = 3 AND rowid > 50");
    const outcome = await applyAll(target, effect);
    expect(outcome.problems).toMatchObject([
      { kind: "drift", change: { key: [3n, "x"], count: 3 }, nowCount: 1 },
    ]);
    runRaw(path, "INSERT INTO t VALUES (3, 'x'), (3, 'x'), (3, 'x')");
    expect(await applyAll(target, effect)).toMatchObject({ written: 120, problems: [] });
    expect(await target.countRows("t")).toBe(80);
  });
});

describe("the file and its locks", () => {
  test.each([
    ["no such file", (p: string) => p],
    ["a folder", (p: string) => (mkdirSync(p), p)],
    ["not a database", (p: string) => (writeFileSync(p, "x".repeat(4096)), p)],
    ["a link to nothing", (p: string) => (symlinkSync(`${p}.gone`, p), p)],
    ["a name that the driver would trim", (p: string) => (writeFileSync(`${p} `, ""), `${p} `)],
  ])("%s is refused, and nothing is made", async (_, prepare) => {
    const before = prepare(path);
    const listed = readdirSync(folder);
    const e = await refusal(() => openTarget(before, folder));
    expect([e.code, e.targetChanged]).toEqual(["ERR_TARGET_UNREACHABLE", "no"]);
    expect(readdirSync(folder)).toEqual(listed);
  });

  test("a file that may not be read is refused", async () => {
    runRaw(path, SHOP);
    chmodSync(path, 0);
    const asRoot = process.getuid?.() === 0;
    if (!asRoot) expect((await refusal(() => open())).code).toBe("ERR_TARGET_UNREACHABLE");
    chmodSync(path, 0o600);
  });

  test.each([12, 13])("driver %i is not loaded where it would end the process", (major) => {
    expect(driverFitsNode(major, 9)).toBe(major < 13);
    expect(driverFitsNode(major, 10)).toBe(true);
  });

  test.each(["delete", "persist", "truncate"])(
    "rehearsing in journal mode %s leaves the file and its time as they were",
    async (mode) => {
      runRaw(path, `PRAGMA journal_mode = ${mode}; ${SHOP}`);
      const [before, time, files] = [fileDigests(path), statSync(path).mtimeMs, readdirSync(folder)];
      const target = await open();
      const { rehearsal } = await rehearseAll(target, sqlJob("DELETE FROM parent"));
      expect(rehearsal.where).toBe("in-place");
      await close(target);
      expect([fileDigests(path), statSync(path).mtimeMs, readdirSync(folder)]).toEqual([before, time, files]);
    },
  );

  test("in WAL mode nothing is left beside the file where nothing was", async () => {
    runRaw(path, `PRAGMA journal_mode = WAL; ${SHOP}`);
    const [before, files] = [fileDigests(path), readdirSync(folder)];
    const target = await open();
    await rehearseAll(target, sqlJob("DELETE FROM parent"));
    await target.identify();
    await close(target);
    expect([fileDigests(path), readdirSync(folder)]).toEqual([before, files]);
  });

  test("the log of a process that died is read, and stays where it is", async () => {
    runRaw(path, `PRAGMA journal_mode = WAL; ${SHOP}`);
    const child = `
      const Database = require("better-sqlite3");
      new Database(${JSON.stringify(path)}).exec("INSERT INTO parent VALUES (3, 'in the log')");
      process.kill(process.pid, "SIGKILL");`;
    spawnSync(process.execPath, ["-e", child], { cwd: process.cwd() });
    const before = fileDigests(path);
    expect(Object.keys(before)).toEqual(["", "-wal"]);
    const target = await open();
    expect(await target.countRows("parent")).toBe(3);
    expect(told(await rehearseAll(target, sqlJob("DELETE FROM parent WHERE id = 3")))).toEqual([
      "delete parent 3",
    ]);
    const onCopy = await rehearseAll(target, sqlJob("ALTER TABLE child ADD COLUMN x"));
    expect(onCopy.rehearsal.where).toBe("copy");
    await close(target);
    expect(fileDigests(path)).toEqual(before);
  });

  test("nothing that we read drops the locks that we hold: a second process cannot write under them", async () => {
    const target = await make(SHOP);
    const [shape] = (await target.schema()).tables;
    if (shape === undefined) throw new Error("no shape");
    const session = await target.openWriter();
    await session.begin();
    await target.identify();
    await target.schema();
    for await (const _ of target.scan(shape)) void _;
    for await (const _ of target.readRows(shape, [[1n]])) void _;
    await rehearseAll(target, sqlJob("DELETE FROM parent"));
    const program: RunnableJob = {
      kind: "program",
      run: async (copy) => runRaw(copy.path, "DELETE FROM child"),
    };
    expect((await rehearseAll(target, program)).effect.changes).toHaveLength(4);
    expect(shell("DELETE FROM child").output).toContain("locked");
    await session.close();
    expect(shell("DELETE FROM child").status).toBe(0);
  });

  test("a writer elsewhere is waited for within the bound, and then it is busy", async () => {
    const target = await make(SHOP, { busyMs: 50 });
    const other = new Database(path);
    other.exec("BEGIN IMMEDIATE");
    try {
      const session = await target.openWriter();
      const e = await refusal(() => session.begin());
      expect([e.code, e.targetChanged]).toEqual(["ERR_TARGET_BUSY", "no"]);
      await session.close();
      // A rehearsal needs no write lock: it goes to a copy.
      const { rehearsal } = await rehearseAll(target, sqlJob("DELETE FROM child"));
      expect([rehearsal.where, rehearsal.lockMs]).toEqual(["copy", 0]);
    } finally {
      other.close();
    }
  });

  test("in rollback-journal mode a reader holds up the commit: then nothing is written", async () => {
    const target = await make(SHOP, { busyMs: 50 });
    const { effect } = await rehearseAll(target, sqlJob("DELETE FROM child"));
    const before = dump(path);
    const reader = new Database(path, { readonly: true });
    const rows = reader.prepare("SELECT * FROM parent").iterate();
    rows.next();
    const session = await target.openWriter();
    await session.begin();
    await session.write(sourceOf(effect), []);
    const e = await refusal(() => session.commit());
    expect([e.code, e.targetChanged]).toEqual(["ERR_TARGET_BUSY", "no"]);
    await session.close();
    rows.return?.();
    reader.close();
    expect(dump(path)).toBe(before);
  });

  /** A process that opens the same target and kills itself when `clock` says so, or when `code` does. */
  function killed(code: string, readings: number): void {
    const adapter = join(import.meta.dirname, "../../src/adapters/sqlite/index.js");
    const script = `
      const { openSqlite } = await import(${JSON.stringify(adapter)});
      const die = () => process.kill(process.pid, "SIGKILL");
      let left = ${readings};
      const now = () => (--left === 0 ? die() : undefined, new Date(0));
      const target = await openSqlite({ name: "shop", path: ${JSON.stringify(path)}, foreignKeys: true, clock: { now },
        random: (n) => new Uint8Array(n), scratchDir: ${JSON.stringify(join(folder, "child"))} });
      const job = (text) => ({ kind: "sql", statements: [{ text, line: 1, values: {} }] });
      const sink = { table() {}, add() {} };
      ${code}`;
    const ran = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
    expect([ran.signal, ran.stderr]).toEqual(["SIGKILL", ""]);
  }

  test.each(["delete", "wal"])(
    "killed in the middle of a rehearsal in place, the file is as it was (%s)",
    async (mode) => {
      runRaw(path, `PRAGMA journal_mode = ${mode}; ${SHOP}`);
      const before = fileDigests(path)[""];
      killed(`await target.rehearse(job("UPDATE child SET note = hex(zeroblob(100000))"), sink);`, 5);
      expect(fileDigests(path)[""]).toBe(before);
      expect(existsSync(`${path}-journal`)).toBe(false);
      expect(askRaw(path, "SELECT count(*) FROM child WHERE note IS NULL")).toBe(1);
    },
  );

  test("the lock of a run is given back by the system when the process is killed; else its file goes away", async () => {
    const target = await make(SHOP);
    killed(`await (await target.openWriter()).begin(); die();`, 0);
    expect(existsSync(`${path}-holdpoint-run`)).toBe(true);
    const session = await target.openWriter();
    expect(target.ownPaths()).toContain(`${path}-holdpoint-run`);
    await session.begin();
    await session.close();
    expect(existsSync(`${path}-holdpoint-run`)).toBe(false);
  });

  test("the write lock is held for two seconds at most, then a copy takes over", async () => {
    let at = Date.parse("2026-11-22T12:00:00Z");
    const clock: Clock = { now: () => new Date((at += 300)) };
    const target = await make(SHOP, { clock });
    const { rehearsal, effect } = await rehearseAll(
      target,
      sqlJob("DELETE FROM parent", "UPDATE child SET note = 1"),
    );
    expect([rehearsal.where, effect.changes.length]).toEqual(["copy", 6]);
  });

  test.each([
    ["more rows than may be held", "UPDATE t SET v = id"],
    [
      "a recursion without a bound known beforehand",
      "DELETE FROM t WHERE id IN (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n)",
    ],
  ])("%s go to a copy", async (_, sql) => {
    const target = await make(`
      CREATE TABLE t (id INTEGER PRIMARY KEY, v);
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000) INSERT INTO t (id) SELECT i FROM n;`);
    const before = fileDigests(path);
    const { rehearsal } = await rehearseAll(target, sqlJob(sql));
    expect([rehearsal.where, rehearsal.lockMs]).toEqual(["copy", 0]);
    await close(target);
    expect(fileDigests(path)).toEqual(before);
    expect(readdirSync(join(folder, "scratch"))).toEqual([]);
  });

  test("copies lie in a folder of their own that only we may enter, and go away when the job fails too", async () => {
    const target = await make(SHOP);
    let mode = 0;
    const failing: RunnableJob = {
      kind: "program",
      run: async (copy) => {
        mode = statSync(join(copy.path, "..", "..")).mode & 0o777;
        throw new Error("the job broke");
      },
    };
    await expect(rehearseAll(target, failing)).rejects.toThrow("the job broke");
    expect(mode).toBe(0o700);
    expect(readdirSync(join(folder, "scratch"))).toEqual([]);
  });

  test("a program may replace its copy's file, change its journal, or leave no database at all", async () => {
    const target = await make(SHOP);
    const replacing: RunnableJob = {
      kind: "program",
      run: async (copy) => {
        copyFileSync(copy.path, `${copy.path}.new`);
        runRaw(`${copy.path}.new`, "PRAGMA journal_mode = WAL; DELETE FROM child WHERE id = 1");
        execFileSync("mv", [`${copy.path}.new`, copy.path]);
      },
    };
    expect(told(await rehearseAll(target, replacing))).toEqual(["delete child 1"]);
    const emptying: RunnableJob = { kind: "program", run: async (copy) => rmSync(copy.path) };
    expect((await refusal(() => rehearseAll(target, emptying))).code).toBe("ERR_JOB_FAILED");
  });

  test("a program that finds its way to the target itself is found out", async () => {
    const target = await make(SHOP);
    const cheating: RunnableJob = {
      kind: "program",
      run: async (copy) => {
        runRaw(copy.path, "DELETE FROM child WHERE id = 1");
        runRaw(path, "DELETE FROM child WHERE id = 1");
      },
    };
    const e = await refusal(() => rehearseAll(target, cheating));
    expect([e.code, e.targetChanged]).toEqual(["ERR_JOB_FAILED", "unknown"]);
    const minding: RunnableJob = {
      kind: "program",
      run: async (copy) => {
        runRaw(copy.path, "DELETE FROM child WHERE id = 2");
        runRaw(path, "INSERT INTO parent VALUES (8, 'somebody else')");
      },
    };
    const { rehearsal, effect } = await rehearseAll(target, minding);
    expect(effect.changes).toHaveLength(1);
    expect(rehearsal.notices).toEqual(["another process wrote to the target while the job was rehearsed"]);
  });

  test("a program that touches the marker is refused", async () => {
    const target = await make(
      `${SHOP} CREATE TABLE holdpoint_marker (a); INSERT INTO holdpoint_marker VALUES (1)`,
    );
    const program: RunnableJob = {
      kind: "program",
      run: async (copy) => runRaw(copy.path, "UPDATE holdpoint_marker SET a = 2"),
    };
    expect((await refusal(() => rehearseAll(target, program))).code).toBe("ERR_MARKER_TOUCHED");
    // A marker that cannot be read never passes for a missing one.
    expect((await refusal(() => target.identify())).code).not.toBe("ERR_INTERNAL");
  });

  test("a target opened for reading writes nothing", async () => {
    const target = await make(SHOP, { readonly: true });
    expect((await refusal(() => target.openWriter())).code).toBe("ERR_TARGET_UNSUPPORTED");
    expect((await rehearseAll(target, sqlJob("DELETE FROM child"))).rehearsal.where).toBe("copy");
  });

  test("the place is where the file is; a copy of it has another", async () => {
    const target = await make(SHOP);
    const here = await target.identify();
    expect(here.place["path"]).toBe(path);
    expect(here.description).toMatch(/^SQLite 3\.\d+\.\d+, .*shop\.db, .* kB, rollback journal$/);
    copyFileSync(path, join(folder, "copy.db"));
    const copy = await openTarget(join(folder, "copy.db"), folder);
    opened.push(copy);
    expect((await copy.identify()).place["inode"]).not.toBe(here.place["inode"]);
  });

  test("a table that lost a column since is another schema, by name", async () => {
    const target = await make(SHOP);
    const { effect } = await rehearseAll(target, sqlJob("UPDATE child SET note = 'z'"));
    runRaw(path, "ALTER TABLE child DROP COLUMN note");
    const session = await target.openWriter();
    await session.begin();
    const e = await refusal(() => session.write(sourceOf(effect), []));
    expect([e.code, e.message]).toEqual(["ERR_DRIFT_SCHEMA", expect.stringContaining("child")]);
    await session.close();
  });

  test("a scan can be read in key order from every kind of key", async () => {
    const target = await make(`
      CREATE TABLE mixed (k NOT NULL PRIMARY KEY); INSERT INTO mixed VALUES (2), (1.5), ('a'), (x'00'), (10), (-1), ('B');`);
    const [shape] = (await target.schema()).tables;
    if (shape === undefined) throw new Error("no shape");
    const rows: Row[] = [];
    for await (const row of target.scan(shape)) rows.push(row);
    expect(rows.map(([v]) => (typeof v === "object" ? "blob" : v))).toEqual([
      -1n,
      2n,
      10n,
      1.5,
      "B",
      "a",
      "blob",
    ]);
  });
});

describe("a zero that SQL cannot tell from another one", () => {
  const types =
    ",BLOB,TEXT,VARCHAR(9),CLOB,INT,INTEGER,BIGINT,NUMERIC,DECIMAL(10),BOOLEAN,DATE,REAL,DOUBLE,FLOAT,ANY,any,XBLOBX".split(
      ",",
    );
  const strict = ["ANY", "Any", "BLOB", "TEXT", "INT", "INTEGER", "REAL"];
  test.each([...types.map((t) => [t, ""]), ...strict.map((t) => [t, "STRICT"])])(
    "in a column of type '%s' %s is noticed if it can be there",
    (type, kind) => {
      const db = new Database(":memory:");
      db.exec(`CREATE TABLE t (v ${type}) ${kind}`);
      // A STRICT column of another type refuses it.
      const put = (): unknown => db.prepare("INSERT INTO t VALUES (?)").run(-0);
      if (type === "BLOB" && kind === "STRICT") expect(put).toThrow("cannot store REAL value");
      else put();
      const kept = db.prepare("SELECT v FROM t").pluck().all();
      if (kept.some((v) => Object.is(v, -0))) expect(mayHoldRealZero(type)).toBe(true);
      db.close();
    },
  );
  test("most columns cannot hold one", () =>
    expect(types.filter((t) => mayHoldRealZero(t))).toEqual(["", "BLOB", "ANY", "any", "XBLOBX"]));
});
