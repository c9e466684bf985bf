/** The whole road on PostgreSQL through the real binary: pin, plan, approve, apply, undo; and what must be refused on it. */
import { afterEach, beforeAll, beforeEach, expect, test } from "@jest/globals";
import { onPostgres } from "../support/on-postgres.js";
import { connect, type TestServer } from "../support/postgres.js";
import { column, makePostgresProject } from "../support/postgres-project.js";
import { dumpPostgres } from "../support/postgres-target.js";
import type { TestProject } from "../support/project.js";
import { shifted } from "../support/shifted-clock.js";

const SHOP = `
  CREATE TABLE customers (id integer PRIMARY KEY, name text NOT NULL, email text);
  CREATE TABLE orders (id integer PRIMARY KEY, customer_id integer NOT NULL REFERENCES customers ON DELETE CASCADE,
    status text NOT NULL, note text, total numeric NOT NULL);
  INSERT INTO customers SELECT i, 'customer ' || i, 'c' || i || '@shop.example' FROM generate_series(1, 100) i;
  INSERT INTO orders SELECT i, 1 + (i - 1) % 100, CASE i % 3 WHEN 0 THEN 'paid' ELSE 'pending' END, NULL, i * 1.50
    FROM generate_series(1, 400) i;`;

onPostgres("the road on PostgreSQL", "both", (ofRun, which) => {
  let server: TestServer;
  let url: string;
  let project: TestProject;

  beforeAll(async () => {
    server = ofRun();
  });
  beforeEach(async () => {
    url = await server.freshDatabase();
    await server.exec(url, SHOP);
    project = makePostgresProject(url);
  });
  afterEach(() => {
    project.close();
  });

  test("a plan, its approval, its effect, and the way back while others write", async () => {
    const before = await dumpPostgres(url);
    const plan = project.plan("DELETE FROM customers WHERE id <= 5");
    expect(await dumpPostgres(url)).toBe(before);
    const shown = project.run(["show", plan]);
    expect(shown.stdout).toContain(
      "rehearsed on shop-prod and rolled back: 25 of 25 rows came back identical",
    );
    const token = project.approve(plan);
    const applied = project.json([
      "apply",
      plan,
      "--approval",
      writeToken(project, token),
      "--confirm",
      "shop-prod",
    ]);
    expect([applied.error, applied.result["rows"]]).toMatchObject([null, { planned: 25, written: 25 }]);
    expect(await count(url, "customers")).toBe(95);
    await server.exec(
      url,
      "UPDATE customers SET name = 'renamed' WHERE id = 50",
      "INSERT INTO customers VALUES (900, 'new', NULL)",
    );
    const undone = project.json([
      "undo",
      String(applied.result["run"]),
      "--key",
      "keys/dana",
      "--confirm",
      "shop-prod",
    ]);
    expect(undone.exit.code).toBe(21);
    const back = String(undone.result["plan"]);
    const taken = project.json([
      "apply",
      back,
      "--approval",
      writeToken(project, project.approve(back)),
      "--confirm",
      "shop-prod",
    ]);
    expect(taken.ok).toBe(true);
    await server.exec(
      url,
      "UPDATE customers SET name = 'customer 50' WHERE id = 50",
      "DELETE FROM customers WHERE id = 900",
    );
    expect(await dumpPostgres(url)).toBe(before);
    expect(project.json(["log", "verify"]).ok).toBe(true);
  });

  // Whole processes are started here, which is dear: what depends on the server's version is tested nearer to it.
  if (which === "second") return;

  test("TRUNCATE CASCADE shows every row that goes, and a scope refuses it", async () => {
    await server.exec(
      url,
      "CREATE TABLE fresh (id integer PRIMARY KEY); ALTER TABLE orders ADD fresh_id integer REFERENCES fresh",
    );
    project.write("jobs/empty.sql", "TRUNCATE fresh CASCADE");
    const denied = project.json(["plan", "jobs/empty.sql", "--on", "shop-prod", "--key", "keys/dana"]);
    expect(denied.error?.code).toBe("ERR_POLICY_DENIED");
    expect(denied.error?.why).toContain("orders: all of 400 rows deleted");
    const declared = "jobs:\n  empty:\n    sql: jobs/empty.sql\n    scope: [fresh]\n";
    project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(/^jobs:\n/m, declared));
    const refused = project.json(["plan", "empty", "--on", "shop-prod", "--key", "keys/dana"]);
    expect(refused.error?.code).toBe("ERR_SCOPE_EXCEEDED");
    expect(await count(url, "orders")).toBe(400);
  });

  test("a stale plan, a spent token, another database and an altered file are refused with different reasons", async () => {
    const first = project.plan("UPDATE orders SET status = 'sent' WHERE id <= 10");
    const second = project.plan("UPDATE orders SET status = 'held' WHERE id <= 5");
    const [one, two] = [first, second].map((p) => writeToken(project, project.approve(p)));
    const apply = (plan: string, token = ""): string =>
      project.json(["apply", plan, "--approval", token, "--confirm", "shop-prod"]).error?.code ?? "done";
    expect(apply(second, two)).toBe("done");
    expect(apply(first, one)).toBe("ERR_DRIFT_ROWS");
    expect(apply(second, two)).not.toBe("done");
    const elsewhere = await server.freshDatabase();
    await server.exec(elsewhere, SHOP);
    project.write(
      "holdpoint.yaml",
      project.read("holdpoint.yaml").replace(databaseOf(url), databaseOf(elsewhere)),
    );
    expect(["ERR_ENV_CONTRADICTED", "ERR_TRUST_BUNDLE"]).toContain(apply(first, one));
  });

  test("on the clone that the configuration names, which must be one: the target's rows are not even locked", async () => {
    const clone = await server.freshDatabase();
    url = await server.freshDatabase();
    for (const database of [url, clone]) await server.exec(database, SHOP);
    project.close();
    const declared = `targets:\n  clone:\n    url: ${clone}\n`;
    project = makePostgresProject(url, {
      configure: (p) => {
        const config = p.read("holdpoint.yaml").replace("targets:\n", declared);
        p.write(
          "holdpoint.yaml",
          config.replace(/^ {4}environment: production.*$/m, "$&\n    rehearse_on: clone"),
        );
      },
    });
    const other = await connect(url);
    let plan: string;
    try {
      await other.rows("BEGIN");
      await other.rows("SELECT 1 FROM orders WHERE id <= 10 FOR UPDATE");
      project.write("jobs/sent.sql", "UPDATE orders SET status = 'sent' WHERE id <= 10");
      const planned = project.run(["plan", "jobs/sent.sql", "--on", "shop-prod", "--key", "keys/dana"]);
      expect(planned.stderr).toContain("rehearsing the way back on the clone clone ...");
      plan = /pl_\w+/.exec(planned.stdout)?.[0] ?? "";
    } finally {
      await other.close();
    }
    const shown = project.run(["show", plan]);
    expect(shown.stdout).toContain("rehearsed on the clone clone");
    expect(shown.stdout).toContain("rehearsed on the clone clone: 10 of 10 rows came back identical");
    const applied = project.json([
      "apply",
      plan,
      "--approval",
      writeToken(project, project.approve(plan)),
      "--confirm",
      "shop-prod",
    ]);
    expect(applied.result["rows"]).toMatchObject({ planned: 10, written: 10 });
    expect(await dumpPostgres(clone)).not.toContain("sent");
    const codeOf = (): string | undefined =>
      project.json(["plan", "jobs/job.sql", "--on", "shop-prod", "--key", "keys/dana"]).error?.code;
    project.write("jobs/job.sql", "UPDATE orders SET note = 'x' WHERE id = 1");
    await server.exec(clone, "ALTER TABLE orders ADD COLUMN more text");
    expect(codeOf()).toBe("ERR_DRIFT_SCHEMA");
    project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(clone, url));
    expect(codeOf()).toBe("ERR_ENV_CONTRADICTED");
  });

  test("a machine whose clock differs from the server's is refused (31)", () => {
    project.write("jobs/one.sql", "UPDATE orders SET note = 'x' WHERE id = 1");
    const ended = project.json(["plan", "jobs/one.sql", "--on", "shop-prod"], shifted(project, 3600));
    expect([ended.exit.code, ended.error?.code]).toEqual([31, "ERR_APPROVAL_CLOCK"]);
    expect(ended.error?.what).toBe("this machine's clock and that of shop-prod differ");
  });

  test("a target that cannot be reached is told so, and no error repeats a password", () => {
    project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(/url: .*/, "url: ${SHOP_URL}"));
    const env = { SHOP_URL: "postgres://postgres:s3cret-word@127.0.0.1:1/shop" };
    const ran = project.run(["env", "check", "shop-prod"], { env });
    expect(ran.status).toBe(39);
    expect(ran.stdout + ran.stderr).not.toContain("s3cret-word");
  });
});

let tokens = 0;
function writeToken(project: TestProject, token: string): string {
  return project.write(`token-${++tokens}.txt`, token);
}

function databaseOf(url: string): string {
  return /\/(db\w+)\?/.exec(url)?.[1] ?? "";
}

async function count(url: string, table: string): Promise<number> {
  return Number((await column(url, `SELECT count(*) FROM ${table}`))[0]);
}
