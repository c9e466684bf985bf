/** What rules see, measured through the whole road: whose rows, what cascades take along, first times, what the target says. */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { explainPlan } from "../../src/operations/explain-policy.js";
import { makeProject, type TestProject } from "../support/project.js";
import { withTools } from "../support/wired.js";

const SCHEMA = `
  CREATE TABLE customers (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT);
  CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    tenant TEXT NOT NULL, at TEXT);
  CREATE TABLE settings (id INTEGER PRIMARY KEY, value TEXT);
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
    INSERT INTO customers SELECT i, 'tenant-' || (i % 10), 'customer ' || i FROM n;
  INSERT INTO orders SELECT c.id * 10 + o.value, c.id, c.tenant, '2026-01-01' FROM customers c,
    (WITH RECURSIVE m(value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM m WHERE value < 4) SELECT value FROM m) o;
  INSERT INTO settings VALUES (1, 'on'), (2, 'off'), (3, 'off');
`;

const POLICY = `format: holdpoint-policy/1
name: facts
environments: [production]
caps:
  - { id: few-tenants, on: plan, tenants: 2, because: few customers at a time }
  - id: each-tenant
    on: [customers]
    op: delete
    per_tenant: { share: 10%, remaining: 18 }
    because: nobody loses more than a tenth
rules:
  - { id: cascades, when: "tables.exists(t, t.cascaded > 50)", then: deny, because: a large cascade }
  - { id: new-table, when: "tables.exists(t, t.first_touch)", then: { require: { people: 1 } }, because: a new table }
  - { id: new-job, when: history.first_run, then: { require: { people: 1 } }, because: a new job }
  - { id: new-face, when: history.first_by_requester, then: { require: { people: 1 } }, because: a new requester }
  - id: doubted
    when: evidence.exists(e, e.source == "newest row of orders" && e.state == "absent")
    then: { require: { people: 1 } }
    because: nothing says how new this is
`;

let project: TestProject;

beforeAll(() => {
  project = makeProject({ schema: SCHEMA, pin: false, journal: "delete" });
  project.write("policies/facts.yaml", POLICY);
  project.write("jobs/touch.sql", "UPDATE settings SET value = value || '!' WHERE id = 1;\n");
  project.write("jobs/few.sql", "DELETE FROM customers WHERE id IN (10, 20);\n");
  project.write("jobs/many.sql", "DELETE FROM customers WHERE id IN (10, 20, 30, 11, 12);\n");
  project.write("jobs/cascade.sql", "DELETE FROM customers WHERE id < 20;\n");
  const config = project.read("holdpoint.yaml");
  project.write(
    "holdpoint.yaml",
    config.replace(
      "    environment: production",
      "    tenant: [customers.tenant, orders.tenant]\n    newest_row: { orders.at: 1h }\n    environment: production",
    ),
  );
  const pinned = project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
});

afterAll(() => project.close());

/** Rules that do not stand aside, with what they saw. */
async function firedBy(job: string, person = "dana"): Promise<Readonly<Record<string, string>>> {
  const made = project.json(["plan", job, "--on", "shop-prod", "--key", `keys/${person}`]);
  const explained = await withTools(project.dir, (tools) =>
    explainPlan(tools, { ref: String(made.result["plan"]), as: null, whatIfRows: null }),
  );
  expect(explained.read).toBe("target");
  return Object.fromEntries(
    explained.explanation.fired.filter((r) => r.at.startsWith("policies/facts")).map((r) => [r.rule, r.saw]),
  );
}

describe("before anything ran", () => {
  test("every table, job and person is met for the first time; evidence is seen", async () => {
    expect(await firedBy("jobs/touch.sql")).toEqual({
      "new-table": "settings: first_touch = true",
      "new-job": "history.first_run = true",
      "new-face": "history.first_by_requester = true",
      doubted: expect.stringMatching(/^evidence = newest row of orders absent; /),
    });
  });

  test("two rows of one tenant with their cascade stay inside", async () => {
    const fired = await firedBy("jobs/few.sql");
    expect(Object.keys(fired).sort()).toEqual(["doubted", "new-face", "new-job", "new-table"]);
    expect(fired["new-table"]).toBe("customers: first_touch = true; orders: first_touch = true");
  });

  test("three rows of one tenant and two of others do not: the plan's tenants, and what each loses", async () => {
    expect(await firedBy("jobs/many.sql")).toMatchObject({
      "few-tenants": "3 tenants",
      "each-tenant":
        "customers of tenant-0: delete 15 % of the table, limit 10 %; customers of tenant-0: 17 rows would remain, at least 18 must",
    });
  });

  test("what a cascade takes along is counted by its origin", async () => {
    expect(await firedBy("jobs/cascade.sql")).toMatchObject({
      cascades: "orders: cascaded = 95; customers: cascaded = 0",
    });
  });
});

test("after a run the same table, job and person are known; another table and another person are not", async () => {
  const plan = String(
    project.json(["plan", "jobs/touch.sql", "--on", "shop-prod", "--key", "keys/dana"]).result["plan"],
  );
  project.approve(plan);
  expect(project.json(["apply", plan, "--confirm", "shop-prod"]).error).toBeNull();
  expect(Object.keys(await firedBy("jobs/touch.sql"))).toEqual(["doubted"]);
  expect(Object.keys(await firedBy("jobs/touch.sql", "ravi")).sort()).toEqual(["doubted", "new-face"]);
  expect(await firedBy("jobs/few.sql")).toMatchObject({
    "new-table": "customers: first_touch = true; orders: first_touch = true",
    "new-job": "history.first_run = true",
  });
});
