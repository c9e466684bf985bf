/**
 * What a plan must show or refuse on PostgreSQL before anything is written: S05 (an address left over in the shell), S16 (sites
 * instead of apps), S19 (TRUNCATE CASCADE), S30 (a permission for everyone), S32 (a stale plan).
 */
import { readFileSync, writeFileSync } from "node:fs";
import { afterEach, beforeAll, expect, test } from "@jest/globals";
import { onPostgres } from "../support/on-postgres.js";
import { ALL_WELL } from "../support/oracle.js";
import type { TestServer } from "../support/postgres.js";
import { openOracle } from "../support/postgres-oracle.js";
import { column, makePostgresProject } from "../support/postgres-project.js";
import { dumpPostgres } from "../support/postgres-target.js";
import type { Document, TestProject } from "../support/project.js";

onPostgres("plans", "first", (servers) => {
  let server: TestServer;
  let url: string;
  let project: TestProject;

  beforeAll(() => {
    server = servers();
  });
  afterEach(() => project.close());

  const start = async (...sql: readonly string[]): Promise<void> => {
    url = await server.freshDatabase();
    await server.exec(url, ...sql);
  };
  const plan = (target: string, file: string, env: Readonly<Record<string, string>> = {}): Document =>
    project.json(["plan", file, "--on", target, "--key", "keys/dana"], { env });

  test("S05: TRUNCATE of all of 20 tables through an inherited DATABASE_URL: refused, all shown, the variable named", async () => {
    const tables = Array.from({ length: 20 }, (_, i) => `state_${String(i + 1).padStart(2, "0")}`);
    await start(
      tables
        .map(
          (t, i) =>
            `CREATE TABLE ${t} (id integer PRIMARY KEY, value text NOT NULL);
             INSERT INTO ${t} SELECT i, 'v' || i FROM generate_series(1, ${10 + i}) i;`,
        )
        .join("\n"),
    );
    project = makePostgresProject(url, { target: "elb", pin: false });
    project.write(
      "holdpoint.yaml",
      project.read("holdpoint.yaml").replace(/url: .*/, "url: ${DATABASE_URL}"),
    );
    const env = { DATABASE_URL: url };
    expect(project.run(["env", "pin", "elb", "--confirm", "elb"], { env }).status).toBe(0);
    const before = await dumpPostgres(url);
    project.write("jobs/all.sql", `TRUNCATE ${tables.join(", ")};`);
    const made = plan("elb", "jobs/all.sql", env);
    expect([made.exit.code, made.error?.code, made.target_changed]).toEqual([30, "ERR_POLICY_DENIED", "no"]);
    expect(made.result["effect"]).toMatchObject({
      tables: tables.map((table, i) => ({ table, delete: 10 + i, rows_before: 10 + i })),
    });
    expect(made.result["origins"]).toEqual([
      {
        part: "${DATABASE_URL}",
        from: expect.stringContaining("environment variable DATABASE_URL"),
        inherited: true,
        age: expect.stringMatching(/^(since|before-parent)$/),
      },
    ]);
    const apply = project.json(["apply", String(made.result["plan"]), "--confirm", "elb"], { env });
    expect([apply.exit.code, apply.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
    expect(plan("elb", "jobs/all.sql", { DATABASE_URL: "" }).error?.code).toBe("ERR_CONFIG_VARIABLE");
    expect(await dumpPostgres(url)).toBe(before);
  });

  test("S16: 30 ids of sites where apps are meant: refused by the rows, children counted per tenant", async () => {
    await start(`
      CREATE TABLE things (id integer PRIMARY KEY, tenant text NOT NULL, kind text NOT NULL CHECK (kind IN ('app', 'site')));
      CREATE TABLE settings (id integer PRIMARY KEY, thing integer NOT NULL REFERENCES things ON DELETE CASCADE, value text);
      CREATE TABLE pages (id integer PRIMARY KEY, site integer NOT NULL REFERENCES things ON DELETE CASCADE, body text);
      INSERT INTO things SELECT i + 1, 'tenant-' || i / 10, CASE i % 10 WHEN 9 THEN 'site' ELSE 'app' END FROM generate_series(0, 9999) i;
      INSERT INTO settings SELECT id, id, 'x' FROM things WHERE kind = 'app';
      INSERT INTO pages SELECT t.id * 100 + p, t.id, 'page ' || p FROM things t, generate_series(1, 41) p WHERE t.kind = 'site';
      CREATE INDEX ON settings (thing); CREATE INDEX ON pages (site);`);
    project = makePostgresProject(url, { pin: false });
    project.write(
      "policies/kinds.yaml",
      `format: holdpoint-policy/1
name: kinds
environments: [production]
assertions:
  - id: only-apps
    tables: [things]
    sql: select before_id, before_tenant, before_kind from things where op = 'delete' and before_kind <> 'app'
    message: this clean-up is for apps
tests:
  - name: a site
    plan:
      tables: [{ name: things, rows_before: 10000, delete: 30 }]
      assertions: { only-apps: 30 }
    expect: { decision: deny, rules: [only-apps] }
`,
    );
    expect(project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]).status).toBe(0);
    const sites = Array.from({ length: 30 }, (_, i) => (i + 1) * 10);
    project.write("jobs/apps.sql", `DELETE FROM things WHERE id IN (${sites.join(", ")});`);
    const declared = "jobs:\n  delete-apps:\n    sql: jobs/apps.sql\n    scope: [things, settings]\n";
    const bare = plan("shop-prod", "jobs/apps.sql");
    expect(bare.error?.code).toBe("ERR_POLICY_DENIED");
    expect(bare.error?.why).toMatch(/only-apps .*30 rows, first before_id 10, before_tenant "tenant-0"/);
    expect(bare.result["effect"]).toMatchObject({
      tables: [
        { table: "pages", delete: 1230 },
        { table: "things", delete: 30 },
      ],
    });
    const sql =
      "SELECT t.before_tenant, count(*) FROM pages p JOIN things t ON t.before_id = p.before_site GROUP BY 1 ORDER BY t.before_id";
    const asked = project.json(["show", String(bare.result["plan"]), "--sql", sql]);
    expect(asked.result["rows"]).toEqual(sites.map((id) => [`tenant-${id / 10 - 1}`, 41]));
    project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(/^jobs:\n/m, declared));
    const scoped = plan("shop-prod", "delete-apps");
    expect(scoped.error?.code).toBe("ERR_SCOPE_EXCEEDED");
    expect(scoped.error?.why).toContain("pages: delete 1230");
    expect(await column(url, "SELECT count(*) FROM pages")).toEqual(["41000"]);
  });

  test("S19: TRUNCATE CASCADE of an empty table shows every row that goes although no trigger fires; a scope refuses it", async () => {
    await start(`
      CREATE TABLE fresh (id integer PRIMARY KEY);
      CREATE TABLE comment (id integer PRIMARY KEY, fresh integer REFERENCES fresh, body text);
      CREATE TABLE audit (said text);
      CREATE FUNCTION said() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES ('gone'); RETURN OLD; END $$;
      CREATE TRIGGER gone BEFORE DELETE ON comment FOR EACH ROW EXECUTE FUNCTION said();
      INSERT INTO comment SELECT i, NULL, 'c' || i FROM generate_series(1, 300) i;`);
    project = makePostgresProject(url);
    project.write("jobs/empty.sql", "TRUNCATE fresh CASCADE");
    const denied = plan("shop-prod", "jobs/empty.sql");
    expect(denied.error?.code).toBe("ERR_POLICY_DENIED");
    expect(denied.result["effect"]).toMatchObject({ tables: [{ table: "comment", delete: 300 }] });
    const declared = "jobs:\n  empty:\n    sql: jobs/empty.sql\n    scope: [fresh]\n";
    project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(/^jobs:\n/m, declared));
    expect(plan("shop-prod", "empty").error?.code).toBe("ERR_SCOPE_EXCEEDED");
    expect(await column(url, "SELECT count(*) FROM comment")).toEqual(["300"]);
  });

  test("S30: a flag true for everyone is a stop sign; undo of that column keeps ten edits and lists three", async () => {
    await start(`
      CREATE TABLE profiles (id integer PRIMARY KEY, tenant integer NOT NULL, modify_all boolean, label text NOT NULL);
      INSERT INTO profiles SELECT i, 1 + (i - 1) / 50, false, 'profile ' || i FROM generate_series(1, 10000) i;`);
    project = makePostgresProject(url);
    project.write(
      "jobs/flag.sql",
      "UPDATE profiles SET modify_all = true, label = label || '!' WHERE NOT modify_all",
    );
    const made = plan("shop-prod", "jobs/flag.sql");
    const rules = made.result["rules"] as unknown as { readonly rule: string; readonly effect: string }[];
    expect(rules.filter((r) => r.effect !== "pass").map((r) => r.rule)).toContain("column-levelled");
    const id = String(made.result["plan"]);
    project.approve(id, "ravi", ["--reason", "agreed in OPS-7"]);
    const done = project.json(["apply", id, "--confirm", "shop-prod"]);
    expect(done.error).toBeNull();
    const oracle = await openOracle(url, ["profiles"], 30);
    try {
      for (let i = 1; i <= 10; i++) await oracle.set("profiles", i * 50, "tenant", 900 + i);
      for (let i = 1; i <= 3; i++) await oracle.set("profiles", i * 7, "modify_all", null);
      const undo = ["undo", String(done.result["run"]), "--column", "modify_all"];
      const stopped = project.json(undo);
      expect(stopped.exit.code).toBe(37);
      expect(stopped.result).toMatchObject({ counts: { put_back: 9987, merged: 10, conflict: 3 } });
      const back = project.json([...undo, "--on-conflict", "keep-now", "--key", "keys/dana"]);
      const planned = String(back.result["plan"]);
      project.approve(planned, "ravi", ["--reason", "back"]);
      expect(project.json(["apply", planned, "--confirm", "shop-prod"]).error).toBeNull();
      expect(await oracle.judge()).toMatchObject({ lost: [], resurrected: [], strangers: [], orphans: 0 });
      expect(await column(url, "SELECT count(*) FROM profiles WHERE modify_all")).toEqual(["0"]);
      expect(await column(url, "SELECT count(*) FROM profiles WHERE modify_all IS NULL")).toEqual(["3"]);
      // The other column that the run wrote was not asked for, and stays.
      expect(await column(url, "SELECT count(*) FROM profiles WHERE label LIKE '%!'")).toEqual(["10000"]);
    } finally {
      await oracle.close();
    }
  });

  test("S32: a plan gone stale, a token again, on another database, too late, altered by a byte: each with its reason", async () => {
    const rows =
      "CREATE TABLE orders (id integer PRIMARY KEY, status text); INSERT INTO orders SELECT i, 'new' FROM generate_series(1, 50) i";
    await start(rows);
    project = makePostgresProject(url);
    const oracle = await openOracle(url, ["orders"], 32);
    try {
      const plans = ["sent", "held", "late", "cut"].map((status, i) =>
        project.plan(
          `UPDATE orders SET status = '${status}' WHERE id BETWEEN ${i < 2 ? 1 : i * 10} AND ${i * 10 + 5}`,
        ),
      );
      const [stale = "", applied = "", late = "", cut = ""] = plans;
      const tokens = new Map([
        [stale, project.approve(stale)],
        [applied, project.approve(applied)],
        [late, project.approve(late, "ravi", ["--expires", "1s"])],
        [cut, project.approve(cut)],
      ]);
      const apply = (id: string): string => {
        const token = project.write("token.txt", tokens.get(id) ?? "");
        const ended = project.json(["apply", id, "--approval", token, "--confirm", "shop-prod"]);
        return ended.error?.code ?? "done";
      };
      expect(apply(applied)).toBe("done");
      for (let i = 1; i <= 15; i++)
        oracle.note({ op: "set", table: "orders", key: String(i), column: "status", value: "held" });
      expect(apply(stale)).toBe("ERR_DRIFT_ROWS");
      expect(apply(applied)).toBe("ERR_APPROVAL_SPENT");
      expect(apply(late)).toBe("ERR_APPROVAL_EXPIRED");
      const file = String(project.json(["show", cut]).result["file"] ?? "");
      const bytes = readFileSync(file === "" ? project.path(`.holdpoint/plans/${cut}.hpplan`) : file);
      bytes[bytes.length - 40] = (bytes[bytes.length - 40] ?? 0) ^ 1;
      const altered = project.path("altered.hpplan");
      writeFileSync(altered, bytes);
      expect(project.json(["apply", altered, "--confirm", "shop-prod"]).exit.code).toBe(35);
      const elsewhere = await server.freshDatabase();
      await server.exec(elsewhere, rows);
      const name = (at: string): string => /\/(db\w+)\?/.exec(at)?.[1] ?? "";
      project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(name(url), name(elsewhere)));
      expect(apply(cut)).toBe("ERR_ENV_CONTRADICTED");
      expect(await oracle.judge()).toEqual(ALL_WELL);
    } finally {
      await oracle.close();
    }
  });
});
