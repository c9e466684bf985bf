/**
 * S05: an address left over in the shell leads to production, and the job deletes every row of every table.
 * Whatever the variable is called and whatever the configuration hoped for, nothing is written and the way in is named.
 */
import { existsSync, rmSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { bytesOf, makeProject, type TestProject } from "../support/project.js";

const TABLES = Array.from({ length: 20 }, (_, i) => `state_${String(i + 1).padStart(2, "0")}`);
const SCHEMA = TABLES.map(
  (t, i) => `CREATE TABLE ${t} (id INTEGER PRIMARY KEY, value TEXT NOT NULL);
  INSERT INTO ${t} SELECT value, 'v' || value FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < ${10 + i}) SELECT value FROM n);`,
).join("\n");
const DELETE_ALL = TABLES.map((t) => `DELETE FROM ${t};`).join("\n");

let project: TestProject;
let production: Readonly<Record<string, string>>;

beforeAll(() => {
  project = makeProject({ schema: SCHEMA, target: "elb", pin: false, journal: "delete" });
  project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace("sqlite:shop.db", "${ELB_URL}"));
  project.write("jobs/all.sql", DELETE_ALL);
  production = { ELB_URL: "sqlite:shop.db" };
  const pinned = project.run(["env", "pin", "elb", "--confirm", "elb"], { env: production });
  if (pinned.status !== 0) throw new Error(pinned.stderr);
});

afterAll(() => project.close());

const PLAN = ["plan", "jobs/all.sql", "--on", "elb", "--key", "keys/dana"];

describe("a DELETE of every table through an inherited variable", () => {
  test("is refused, shows all of 20 tables and names the variable", () => {
    const before = bytesOf(project.database);
    const made = project.json(PLAN, { env: production });
    expect([made.exit.code, made.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
    expect(made.target_changed).toBe("no");
    expect(made.result["effect"]).toMatchObject({
      tables: TABLES.map((table, i) => ({ table, delete: 10 + i, rows_before: 10 + i })),
    });
    expect(made.result["origins"]).toEqual([
      {
        part: "${ELB_URL}",
        from: expect.stringMatching(/^environment variable ELB_URL \(holdpoint\.yaml:\d+:\d+\)$/),
        inherited: true,
        // This process was started without it: it was set for the command alone.
        age: existsSync("/proc/self/environ") ? "since" : null,
      },
    ]);
    const why = String(made.error?.why);
    for (const sign of ["table-emptied", "over-half"]) expect(why).toContain(sign);
    expect(bytesOf(project.database)).toEqual(before);
  });

  test("the screen names the variable before the effect", () => {
    const { stdout, status } = project.run([...PLAN, "--width", "100"], { env: production });
    expect(status).toBe(30);
    const lines = stdout.split("\n");
    const from = lines.findIndex((l) => l.includes("${ELB_URL}, inherited: environment variable ELB_URL"));
    expect(from).toBeGreaterThan(0);
    expect(stdout.replaceAll(/\s+/g, " ")).toMatch(
      /inherited: environment variable ELB_URL \(holdpoint\.yaml:\d+:\d+\)(, set in the shell that started this command, or for it alone)?/,
    );
    expect(from).toBeLessThan(lines.findIndex((l) => l.includes("state_01")));
  });

  test("nobody can approve or apply it", () => {
    const made = project.json(PLAN, { env: production });
    const plan = String(made.result["plan"]);
    const approve = project.json(["approve", plan, "--prepare", "a.txt", "--as", "ravi"], {
      env: production,
    });
    expect([approve.exit.code, approve.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
    const apply = project.json(["apply", plan, "--confirm", "elb"], { env: production });
    expect([apply.exit.code, apply.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
    expect(project.rows("SELECT count(*) AS n FROM state_20")).toEqual([{ n: 29 }]);
  });

  test("a configuration that calls it development changes nothing", () => {
    const config = project.read("holdpoint.yaml");
    project.write("holdpoint.yaml", config.replace("environment: production", "environment: development"));
    try {
      const made = project.json(PLAN, { env: production });
      // The claim is part of the trust bundle, which the target pinned.
      expect([made.exit.code, made.error?.code]).toEqual([30, "ERR_TRUST_BUNDLE"]);
    } finally {
      project.write("holdpoint.yaml", config);
    }
  });
});

describe("the variable leads somewhere else", () => {
  test("another database: refused with both values and the variable", () => {
    const other = makeProject({ schema: SCHEMA, target: "elb", journal: "delete" });
    try {
      const before = bytesOf(other.database);
      const made = project.json(PLAN, { env: { ELB_URL: `sqlite:${other.database}` } });
      expect([made.exit.code, made.error?.code]).toEqual([33, "ERR_ENV_CONTRADICTED"]);
      expect(made.error?.why).toMatch(/identity: expected sqlite:[0-9a-f]+, found sqlite:[0-9a-f]+/);
      expect(made.error?.why).toContain("${ELB_URL} was inherited: environment variable ELB_URL");
      expect(bytesOf(other.database)).toEqual(before);
    } finally {
      other.close();
    }
  });

  test.each([
    ["not set", {}],
    ["empty", { ELB_URL: "" }],
    ["blank", { ELB_URL: "  " }],
  ] as const)("%s: refused, never a default", (_name, env) => {
    const made = project.json(PLAN, { env });
    expect([made.exit.code, made.error?.code]).toEqual([2, "ERR_CONFIG_VARIABLE"]);
    expect(made.error?.what).toContain("ELB_URL");
  });

  test.each([
    ["a target of no name", ["plan", "jobs/all.sql", "--on", ""]],
    ["no target at all", ["plan", "jobs/all.sql"]],
    ["a target that is not there", ["plan", "jobs/all.sql", "--on", "elb-prod"]],
  ] as const)("%s: refused", (_name, args) => {
    const made = project.json(args, { env: production });
    expect(made.exit.code).toBe(2);
    expect(made.target_changed).toBe("no");
  });
});

test("doctor finds a file that every tool of the project loads", () => {
  project.write(
    ".env.production",
    '# the shop\nexport DATABASE_URL="sqlite:shop.db"\nOTHER=sqlite:other.db\n',
  );
  try {
    const found = project.json(["doctor", "--on", "elb"], { env: production });
    expect([found.exit.code, found.error?.code]).toEqual([2, "ERR_SETUP_UNSAFE"]);
    expect(found.error?.why).toContain(".env.production:2 DATABASE_URL names this target");
  } finally {
    rmSync(project.path(".env.production"));
  }
});

test("doctor finds a second variable that leads to production", () => {
  const found = project.json(["doctor", "--on", "elb"], {
    env: { ...production, DATABASE_URL: `sqlite://${project.database}`, OTHER: "sqlite:elsewhere.db" },
  });
  expect([found.exit.code, found.error?.code]).toEqual([2, "ERR_SETUP_UNSAFE"]);
  expect(found.error?.why).toContain("DATABASE_URL names this target");
  expect(JSON.stringify(found.result)).not.toContain("OTHER");
  const findings = found.result["findings"] as unknown as readonly {
    readonly check: string;
    readonly level: string;
    readonly what: string;
  }[];
  expect(
    findings.filter((f) => f.check === "way-around").map((f) => [f.level, f.what.split(" ")[0]]),
  ).toContainEqual(["look", "ELB_URL"]);
});
