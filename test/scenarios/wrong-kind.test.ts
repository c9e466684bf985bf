/**
 * S16: a list of ids of the wrong kind. Sites and apps share one space of ids, the job means apps, the list names
 * sites, and deleting a site takes everything under it along.
 */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { bytesOf, type Document, makeProject, type TestProject } from "../support/project.js";

const TENANTS = 1000;
/** Every id is an app, except that each tenant's tenth is its site. 60,000 rows with the pages. */
const SCHEMA = `
  CREATE TABLE things (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('app', 'site')));
  CREATE TABLE settings (id INTEGER PRIMARY KEY, thing INTEGER NOT NULL REFERENCES things (id) ON DELETE CASCADE, value TEXT);
  CREATE INDEX settings_of ON settings (thing);
  CREATE TABLE pages (id INTEGER PRIMARY KEY, site INTEGER NOT NULL REFERENCES things (id) ON DELETE CASCADE, body TEXT);
  CREATE INDEX pages_of ON pages (site);
  WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ${TENANTS * 10 - 1})
    INSERT INTO things SELECT i + 1, 'tenant-' || (i / 10), CASE i % 10 WHEN 9 THEN 'site' ELSE 'app' END FROM n;
  INSERT INTO settings (thing, value) SELECT id, 'x' FROM things WHERE kind = 'app';
  INSERT INTO pages (site, body) SELECT t.id, 'page ' || p.value FROM things t,
    (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 41) SELECT value FROM n) p
    WHERE t.kind = 'site';
`;
const SITES = Array.from({ length: 30 }, (_, i) => (i + 1) * 10);
const DELETE = `DELETE FROM things WHERE id IN (${SITES.join(", ")});\n`;

const ONLY_APPS = `format: holdpoint-policy/1
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
`;

let project: TestProject;

beforeAll(() => {
  project = makeProject({ schema: SCHEMA, pin: false, journal: "delete" });
  project.write("policies/kinds.yaml", ONLY_APPS);
  project.write("jobs/apps.sql", DELETE);
  project.write("jobs/bare.sql", DELETE);
  const config = project.read("holdpoint.yaml");
  project.write(
    "holdpoint.yaml",
    config.replace(
      /^jobs:\n/m,
      "jobs:\n  delete-apps:\n    sql: jobs/apps.sql\n    scope: [things, settings]\n",
    ),
  );
  const pinned = project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
});

afterAll(() => project.close());

test("60,000 rows and more are there", () => {
  expect(
    project.rows(
      "SELECT (SELECT count(*) FROM things) + (SELECT count(*) FROM settings) + (SELECT count(*) FROM pages) AS n",
    ),
  ).toEqual([{ n: 60000 }]);
});

describe("a job that declares what it touches", () => {
  test("is refused: the rows under the sites lie outside, and are counted", () => {
    const before = bytesOf(project.database);
    const made = project.json(["plan", "delete-apps", "--on", "shop-prod", "--key", "keys/dana"]);
    expect([made.exit.code, made.error?.code]).toEqual([30, "ERR_SCOPE_EXCEEDED"]);
    expect(made.error?.why).toContain("pages: delete 1230");
    expect(bytesOf(project.database)).toEqual(before);
  });
});

describe("the same statements as a bare file", () => {
  let made: Document;

  beforeAll(() => {
    made = project.json(["plan", "jobs/bare.sql", "--on", "shop-prod", "--key", "keys/dana"]);
  });

  test("policy asks the rows themselves: 30 of kind site, and which is the first", () => {
    expect([made.exit.code, made.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
    expect(made.error?.why).toMatch(
      /only-apps .*30 rows, first before_id 10, before_tenant "tenant-0", before_kind "site"/,
    );
  });

  test("the owners can be listed from the denied plan, children counted per tenant", () => {
    const sql =
      "SELECT t.before_tenant, count(*) FROM pages p JOIN things t ON t.before_id = p.before_site GROUP BY 1 ORDER BY t.before_id";
    const asked = project.json(["show", String(made.result["plan"]), "--sql", sql]);
    expect(asked.result["rows"]).toEqual(SITES.map((id) => [`tenant-${id / 10 - 1}`, 41]));
  });

  test("the pages are shown as not in the job", () => {
    expect(made.result["effect"]).toMatchObject({
      tables: [
        { table: "pages", delete: 1230 },
        { table: "things", delete: 30 },
      ],
    });
    const shown = project.run(["show", String(made.result["plan"]), "--width", "120"]);
    expect(shown.stdout).toMatch(/pages\s+delete\s+1,230.*cascade, not in job/);
  });
});

test("a list of apps passes the same questions", () => {
  project.write("jobs/apps.sql", DELETE.replaceAll(/(\d+)0\b/g, "$11"));
  try {
    const made = project.json(["plan", "delete-apps", "--on", "shop-prod", "--key", "keys/dana"]);
    expect([made.exit.code, made.result["decision"]]).toEqual([0, "needs-approval"]);
  } finally {
    project.write("jobs/apps.sql", DELETE);
  }
});
