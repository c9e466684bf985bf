/**
 * S30, the plan: a permission flag becomes true for everyone. The stop sign must come up however the job is
 * written, also where some rows had the flag already and therefore do not change, and must stay down where rows differ.
 */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { makeProject, type TestProject } from "../support/project.js";

/** Profiles, 50 for each tenant. */
const schemaOf = (rows: number): string => `
  CREATE TABLE profiles (
    id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, name TEXT NOT NULL, modify_all INTEGER NOT NULL, note TEXT
  );
  WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows - 1})
    INSERT INTO profiles SELECT i + 1, i / 50, 'profile ' || (i % 50), CASE i % 50 WHEN 0 THEN 1 ELSE 0 END, NULL FROM n;
`;

let project: TestProject;

beforeAll(() => {
  project = makeProject({ schema: schemaOf(500) });
});

afterAll(() => project.close());

function rulesOf(sql: string): {
  readonly decision: unknown;
  readonly fired: readonly string[];
  readonly reason: unknown;
} {
  project.write("jobs/flag.sql", sql);
  const made = project.json(["plan", "jobs/flag.sql", "--on", "shop-prod", "--key", "keys/dana"]);
  const rules = made.result["rules"] as unknown as readonly {
    readonly rule: string;
    readonly effect: string;
  }[];
  const requirement = made.result["requirement"] as unknown as { readonly reason: boolean };
  return {
    decision: made.result["decision"],
    fired: rules.filter((r) => r.effect !== "pass").map((r) => r.rule),
    reason: requirement.reason,
  };
}

describe("every row ends with the flag set", () => {
  test.each([
    ["without a WHERE", "UPDATE profiles SET modify_all = 1;"],
    ["only where it is not set yet", "UPDATE profiles SET modify_all = 1 WHERE modify_all = 0;"],
    [
      "in pieces",
      "UPDATE profiles SET modify_all = 1 WHERE tenant < 5;\nUPDATE profiles SET modify_all = 1 WHERE tenant >= 5;",
    ],
    [
      "with another column that differs",
      "UPDATE profiles SET modify_all = 1, note = 'was ' || modify_all || ' ' || id WHERE id > 0;",
    ],
    [
      "and rows that had it differently deleted",
      "DELETE FROM profiles WHERE id IN (7, 8);\nUPDATE profiles SET modify_all = 1 WHERE modify_all = 0;",
    ],
  ])("%s: the stop sign asks for a person and a reason", (_name, sql) => {
    const { decision, fired, reason } = rulesOf(sql);
    expect(decision).toBe("needs-approval");
    expect(fired).toContain("column-levelled");
    expect(reason).toBe(true);
  });
});

describe("the column stays different somewhere", () => {
  test.each([
    ["one row keeps it off", "UPDATE profiles SET modify_all = 1 WHERE id <> 471;"],
    ["the last of few is set", "UPDATE profiles SET modify_all = 1 WHERE tenant = 3;"],
    ["the values differ by row", "UPDATE profiles SET modify_all = 1 - modify_all WHERE id > 0;"],
  ])("%s: no such sign", (_name, sql) => {
    expect(rulesOf(sql).fired).not.toContain("column-levelled");
  });
});

describe("10,000 profiles of 200 tenants", () => {
  let everyone: TestProject;
  let plan: string;

  beforeAll(() => {
    everyone = makeProject({ schema: schemaOf(10_000) });
    plan = everyone.plan("UPDATE profiles SET modify_all = 1 WHERE modify_all = 0;");
  });

  afterAll(() => everyone.close());

  test.each([
    ["approved without a reason: refused", [], false],
    ["approved with a reason: prepared", ["--reason", "agreed in OPS-7"], true],
  ] as const)("%s", (_name, reason, accepted) => {
    const file = accepted ? "reasoned.txt" : "bare.txt";
    const prepared = everyone.json(["approve", plan, "--prepare", file, "--as", "ravi", ...reason]);
    expect(prepared.ok).toBe(accepted);
  });

  test("policy explain says the same, and which column it is", () => {
    const explained = everyone.json(["policy", "explain", plan]);
    const rules = explained.result["rules"] as unknown as readonly {
      readonly rule: string;
      readonly saw: string;
    }[];
    expect(rules.find((r) => r.rule === "column-levelled")?.saw).toBe(
      "profiles: one value everywhere in modify_all",
    );
  });
});
