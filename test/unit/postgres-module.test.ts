/**
 * Modules on PostgreSQL: their statements are asked of the process that holds the transaction. Whatever the module tries, it
 * neither commits nor rolls back, has no address of the database, and nothing of it stays.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { resolveJob } from "../../src/jobs/job.js";
import type { Again, RunnableJob, Target } from "../../src/target/target.js";
import { onPostgres } from "../support/on-postgres.js";
import { dumpPostgres, openPostgresTarget } from "../support/postgres-target.js";
import { refusal } from "../support/refusal.js";
import { applyAll, rehearseAll, type Rehearsed } from "../support/rehearsing.js";
import { inFolder } from "../support/temporary.js";

const SCHEMA = `
  CREATE TABLE things (id bigint PRIMARY KEY, name text, price numeric, at timestamptz, tags text[], raw bytea, ok boolean);
  CREATE TABLE log (what text);
  INSERT INTO things SELECT i, 'thing ' || i, i * 1.50, '2026-11-22 12:00+00', ARRAY['a', 'b'], '\\x00ff', i % 2 = 0
    FROM generate_series(9007199254740990, 9007199254740999) i;`;

onPostgres("a module", "first", (server) => {
  let url: string;
  let target: Target;
  beforeEach(async () => {
    url = await server().freshDatabase();
    await server().exec(url, SCHEMA);
    target = await openPostgresTarget(url);
  });
  afterEach(async () => {
    await target.close();
  });

  /** Prepares the module as `plan` does, and rehearses it; gives what it printed too. */
  async function rehearse(
    source: string,
    given: readonly string[] = [],
    file = "job.js",
  ): Promise<Rehearsed & { readonly printed: string }> {
    let printed = "";
    let found: Rehearsed | undefined;
    await inFolder(async (folder) => {
      mkdirSync(join(folder, "scratch"), { mode: 0o700 });
      writeFileSync(join(folder, file), source);
      const job = await resolveJob({ file: "holdpoint.yaml", jobs: {} }, { kind: "job", job: file }, given, {
        cwd: folder,
        scratch: join(folder, "scratch"),
        environment: { PATH: process.env["PATH"], DATABASE_URL: url, PGHOST: "/run", PGPASSWORD: "secret" },
        node: process.execPath,
        engine: "postgres",
        connection: { connector: "unused:", settings: {} },
        output: (text) => void (printed += text),
      });
      found = await rehearseAll(target, job.runnable);
    });
    if (found === undefined) throw new Error("nothing was rehearsed");
    return { ...found, printed };
  }
  test("runs once, and says so where two runs were asked for", async () => {
    const program: RunnableJob = {
      kind: "program",
      run: async () => undefined,
      converse: async (answer) => {
        await answer({ sql: "SELECT 1", values: {} });
      },
    };
    const toldOnce = async (again: Again): Promise<readonly string[]> =>
      (await rehearseAll(target, program, { script: false, again })).rehearsal.notices.filter((n) =>
        n.startsWith("run once"),
      );
    expect(await toldOnce("if-quick")).toEqual([]);
    expect(await toldOnce("always")).toEqual([
      "run once, as every module on PostgreSQL: values that differ from run to run were not looked for",
    ]);
  });

  const job = (body: string): string => `export default async ({ db, params, log }) => { ${body} };`;

  test("reads and writes exactly, and its effect is captured like that of any job", async () => {
    const before = await dumpPostgres(url);
    const { effect, printed } = await rehearse(
      `export default { params: { most: { type: "integer" } }, run({ db, params, log }) {
        for (const t of db.iterate("SELECT id, name, price, ok, raw FROM things WHERE id <= :most ORDER BY id", { most: params.most }))
          log([typeof t.id, String(t.id), t.price, t.ok, t.raw].join(" "));
        const { changes } = db.run("UPDATE things SET name = :name, raw = :raw, ok = (:flag = 1) WHERE id = :id",
          { name: "é\\u0000".slice(0, 1) + "'; DROP TABLE things", raw: new Uint8Array([1, 255]), flag: true, id: 9007199254740993n });
        log("changed " + changes);
        db.prepare("INSERT INTO log (what) VALUES (:w)").run({ w: db.get("SELECT count(*) AS n FROM things WHERE name LIKE 'é%'").n + "" });
        db.all("DELETE FROM things WHERE id = :id RETURNING id", { id: 9007199254740999n }).forEach((r) => log("gone " + r.id));
      } };`,
      ["most=9007199254740991"],
    );
    expect(printed.split("\n")).toEqual([
      "bigint 9007199254740990 13510798882111485.00 t \\x00ff",
      "bigint 9007199254740991 13510798882111486.50 f \\x00ff",
      "changed 1",
      "gone 9007199254740999",
      "",
    ]);
    expect(effect.changes).toMatchObject([
      { table: "log", op: "insert", after: ["1"] },
      { op: "update", key: [9007199254740993n], after: { 1: "é'; DROP TABLE things", 5: "\\x01ff", 6: "t" } },
      { op: "delete", key: [9007199254740999n] },
    ]);
    expect(await dumpPostgres(url)).toBe(before);
    expect(await applyAll(target, effect)).toMatchObject({ written: 3, problems: [], wrong: [] });
  });

  test("a TypeScript module, and a job that does nothing", async () => {
    const { effect } = await rehearse(
      "export default ({ db }: { db: { run: (sql: string) => unknown } }): void => { db.run('DELETE FROM things WHERE id = 9007199254740990'); };",
      [],
      "job.ts",
    );
    expect(effect.changes).toHaveLength(1);
    expect((await rehearse(job(""))).effect.changes).toEqual([]);
  });

  test("it finds no address, no credentials and no other database", async () => {
    const { printed } = await rehearse(
      job("log(Object.keys(process.env).sort().join(',')); log(process.argv.slice(2).length + '')"),
    );
    expect(printed).toBe("HOME,LANG,PATH,TMPDIR,TZ\n1\n");
  });

  describe("is refused, and nothing of it stays", () => {
    const ask = (sql: string): string => `
      import { readSync, writeSync } from "node:fs";
      export default () => {
        const text = Buffer.from(JSON.stringify({ sql: ${JSON.stringify(sql)}, values: {} }));
        const frame = Buffer.alloc(4 + text.length); frame.writeUInt32LE(text.length); text.copy(frame, 4);
        writeSync(3, frame);
        const wait = (n) => { const b = Buffer.alloc(n); for (let at = 0; at < n;) { try { at += readSync(4, b, at, n - at, null); } catch (e) { if (e.code !== "EAGAIN") throw e; } } return b; };
        wait(wait(4).readUInt32LE());
      };`;
    test.each<[string, string, string, string]>([
      ["COMMIT", job("db.run('COMMIT')"), "ERR_JOB_FAILED", "COMMIT is refused"],
      [
        "ROLLBACK, and on",
        job("try { db.run('ROLLBACK') } catch {} db.run('DELETE FROM log; COMMIT')"),
        "ERR_JOB_FAILED",
        "more than one statement",
      ],
      ["COMMIT past the guard", ask("COMMIT"), "ERR_JOB_STATEMENT", "transaction command"],
      [
        "two statements past the guard",
        ask("DELETE FROM log; COMMIT"),
        "ERR_JOB_STATEMENT",
        "several statements",
      ],
      ["the marker past the guard", ask("DELETE FROM holdpoint_marker"), "ERR_MARKER_TOUCHED", "holdpoint"],
      [
        "a DO block that commits",
        job("db.run('DO $$ BEGIN DELETE FROM log; COMMIT; END $$')"),
        "ERR_JOB_FAILED",
        "statement 1 of the module",
      ],
      ["dblink", job("db.all(\"SELECT dblink('x', 'y')\")"), "ERR_JOB_STATEMENT", "dblink"],
      ["SET", ask("SET session_replication_role = replica"), "ERR_JOB_STATEMENT", "SET"],
      [
        "a schema change",
        job("db.run('ALTER TABLE log ADD COLUMN x text')"),
        "ERR_JOB_STATEMENT",
        "schema change",
      ],
      [
        "a statement that fails and is caught",
        job("try { db.run('DELETE FROM nowhere') } catch {} "),
        "ERR_JOB_FAILED",
        "nowhere",
      ],
      [
        "a throw",
        job("db.run('DELETE FROM things'); throw new Error('not today')"),
        "ERR_JOB_FAILED",
        "not today",
      ],
      [
        "an early exit",
        job("db.run('DELETE FROM things'); process.exit(0)"),
        "ERR_JOB_FAILED",
        "before its run was over",
      ],
      [
        "an undefined value",
        job("db.run('DELETE FROM log WHERE what = :w', { w: undefined })"),
        "ERR_JOB_FAILED",
        "undefined",
      ],
      [
        "more rows than are held",
        job("db.all('SELECT generate_series(1, 100001)')"),
        "ERR_JOB_FAILED",
        "100001 rows",
      ],
      [
        "junk on the line",
        `import { writeSync } from "node:fs"; export default () => { writeSync(3, Buffer.from([9, 0, 0, 0, 123])); writeSync(3, Buffer.alloc(8)); };`,
        "ERR_JOB_FAILED",
        "broke off",
      ],
    ])("%s", async (_, source, code, why) => {
      const before = await dumpPostgres(url);
      const e = await refusal(() => rehearse(source));
      expect([e.code, `${e.message} ${e.why ?? ""}`]).toEqual([code, expect.stringContaining(why)]);
      expect(await dumpPostgres(url)).toBe(before);
    });

    test("a command line, which would open the database itself", async () => {
      const e = await refusal(() => rehearseAll(target, { kind: "program", run: async () => undefined }));
      expect([e.code, e.why]).toEqual(["ERR_TARGET_UNSUPPORTED", expect.stringContaining("clone")]);
    });
  });
});
