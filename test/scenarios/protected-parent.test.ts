/** A parent of protected rows: the job names a customer, the cascade takes the account that nobody may take. */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { bytesOf, makeProject, type TestProject } from "../support/project.js";

const SCHEMA = `
  CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
  CREATE TABLE accounts (
    id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    kind TEXT NOT NULL, note TEXT
  );
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
    INSERT INTO customers SELECT i, 'customer ' || i FROM n;
  INSERT INTO accounts (customer, kind) SELECT id, CASE id WHEN 7 THEN 'root' ELSE 'user' END FROM customers;
`;

let project: TestProject;

beforeAll(() => {
  project = makeProject({ schema: SCHEMA, pin: false, journal: "delete" });
  const config = project.read("holdpoint.yaml");
  project.write(
    "holdpoint.yaml",
    config.replace(/^( +)environment: production.*$/m, "$&\n$1protect: { accounts.kind: [root] }"),
  );
  const pinned = project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
});

afterAll(() => project.close());

const planned = (sql: string): ReturnType<TestProject["json"]> => {
  project.write("jobs/job.sql", sql);
  return project.json(["plan", "jobs/job.sql", "--on", "shop-prod", "--key", "keys/dana"]);
};

describe("a protected value is lost", () => {
  test.each([
    [
      "by the deletion of its parent",
      "DELETE FROM customers WHERE id BETWEEN 5 AND 9;",
      "accounts: 1 row, by cascade",
    ],
    ["by its own deletion", "DELETE FROM accounts WHERE customer = 7;", "accounts: 1 row"],
    ["by being overwritten", "UPDATE accounts SET kind = 'user' WHERE kind = 'root';", "accounts: 1 row"],
    [
      "by being replaced",
      "REPLACE INTO accounts (id, customer, kind) VALUES (7, 7, 'user');",
      "accounts: 1 row",
    ],
  ])("%s: denied", (_name, sql, saw) => {
    const before = bytesOf(project.database);
    const made = planned(sql);
    expect([made.exit.code, made.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
    expect(made.error?.why).toContain(
      `protected-lost (built in): a value that the configuration protects would be lost; ${saw}`,
    );
    expect(bytesOf(project.database)).toEqual(before);
  });
});

describe("no protected value is lost", () => {
  test.each([
    ["another customer", "DELETE FROM customers WHERE id = 8;"],
    ["another column of the protected row", "UPDATE accounts SET note = 'seen' WHERE customer = 7;"],
    ["one more protected row", "UPDATE accounts SET kind = 'root' WHERE customer = 9;"],
  ])("%s: no such sign", (_name, sql) => {
    const made = planned(sql);
    expect([made.exit.code, made.result["decision"]]).toEqual([0, "needs-approval"]);
  });
});
