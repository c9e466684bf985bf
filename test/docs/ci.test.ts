/**
 * The shell parts of docs/ci, run as the platforms run them (`bash -e`), against the real program. Only what belongs to the
 * platform is stood in for: `buildkite-agent` keeps its meta-data in files.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { parse } from "yaml";
import { makeProject, type TestProject } from "../support/project.js";

const DOCS = resolve(import.meta.dirname, "../../../docs/ci");
const BIN = process.env["HOLDPOINT_TEST_BIN"] ?? resolve(import.meta.dirname, "../../../bin/holdpoint.js");

const AGENT = `#!/bin/sh
case "$1 $2" in
  "meta-data set") printf '%s' "$4" > "meta-$3" ;;
  "meta-data get") cat "meta-$3" ;;
  "annotate "*) cat > annotation.md ;;
  *) exit 64 ;;
esac
`;

let project: TestProject;
beforeEach(() => {
  project = makeProject({ people: ["dana", "ravi", "mona"] });
  const yaml = project.read("holdpoint.yaml");
  project.write("holdpoint.yaml", yaml.replace("jobs:\n", "jobs:\n  cancel:\n    sql: jobs/cancel.sql\n"));
  project.write("jobs/cancel.sql", "UPDATE orders SET status = 'cancelled' WHERE id <= 3");
  mkdirSync(project.path("tools"));
  shim("holdpoint", `#!/bin/sh\nexec "${process.execPath}" "${BIN}" "$@"\n`);
  shim("buildkite-agent", AGENT);
});
afterEach(() => project.close());

function shim(name: string, script: string): void {
  project.write(`tools/${name}`, script);
  chmodSync(project.path(`tools/${name}`), 0o755);
}

/** One script as a runner starts it. */
function shell(script: string, env: Readonly<Record<string, string>> = {}): void {
  const done = spawnSync("bash", ["-e", "-o", "pipefail", "-c", script], {
    cwd: project.dir,
    encoding: "utf8",
    env: {
      PATH: `${project.path("tools")}:${process.env["PATH"] ?? ""}`,
      HOME: project.path("home"),
      TZ: "UTC",
      CI: "true",
      HOLDPOINT_KEY: "keys/dana",
      ...env,
    },
  });
  if (done.status !== 0)
    throw new Error(`${script}\nended with ${done.status}\n${done.stdout}${done.stderr}`);
}

interface Step {
  readonly run?: string;
  readonly command?: string;
}

function example(name: string): unknown {
  return parse(readFileSync(resolve(DOCS, name), "utf8"));
}

/** The scripts of a GitHub job that are ours: those that call holdpoint. */
function githubScripts(name: string, job: string): string[] {
  const { jobs } = example(name) as {
    readonly jobs: Readonly<Record<string, { readonly steps: readonly Step[] }>>;
  };
  return (jobs[job]?.steps ?? []).flatMap((s) => s.run ?? []).filter((s) => s.includes("holdpoint "));
}

/** Nobody told this project who its pipeline's actors are, so it takes two people. The token is the second one's. */
function approve(plan: string): string {
  project.approve(plan, "mona");
  return project.approve(plan, "ravi");
}

function cancelled(): unknown {
  return project.rows("SELECT count(*) AS n FROM orders WHERE status = 'cancelled'");
}

describe("the examples of docs/ci plan, wait for a person, and apply", () => {
  test("GitHub Actions", () => {
    const files = { GITHUB_OUTPUT: "output.txt", GITHUB_STEP_SUMMARY: "summary.md" };
    for (const s of githubScripts("github-plan.yml", "plan")) shell(s, { ...files, TICKET: "OPS-1 cancel" });
    expect(project.read("summary.md")).toMatch(/^### `shop-prod` \(PRODUCTION\): `cancel`, 3 rows/);
    expect(project.read("output.txt")).toMatch(/^rc=20$/m);
    const plan = /^plan=(\w+)$/m.exec(project.read("output.txt"))?.[1] ?? "";
    const APPROVAL = approve(plan);
    for (const s of githubScripts("github-apply.yml", "apply")) shell(s, { PLAN: plan, APPROVAL });
    expect(JSON.parse(project.read("result.json"))).toMatchObject({ ok: true, target_changed: "yes" });
    expect(cancelled()).toEqual([{ n: 3 }]);
  });

  test("GitLab CI", () => {
    const file = example("gitlab-ci.yml") as Readonly<Record<string, { readonly script: readonly string[] }>>;
    const job = (name: string, env: Readonly<Record<string, string>> = {}): void =>
      shell((file[name]?.script ?? []).join("\n"), { CI_MERGE_REQUEST_TITLE: "OPS-2", ...env });
    job("plan:shop-prod");
    expect(project.read("holdpoint-junit.xml")).toMatch(/<testsuites>/);
    expect(() => job("approved:shop-prod")).toThrow(/ended with 21/);
    const HOLDPOINT_APPROVAL = approve(project.read("plan.id").trim());
    job("approved:shop-prod");
    job("apply:shop-prod", { HOLDPOINT_APPROVAL });
    expect(cancelled()).toEqual([{ n: 3 }]);
  });

  test("Buildkite", () => {
    const { steps } = example("buildkite.yml") as { readonly steps: readonly Step[] };
    const [plan, apply] = steps.flatMap((s) => s.command ?? []);
    shell(plan ?? "", { BUILDKITE_MESSAGE: "OPS-3" });
    expect(project.read("annotation.md")).toMatch(/^### `shop-prod`/);
    project.write("meta-approval", approve(project.read("meta-plan")));
    shell(apply ?? "");
    expect(cancelled()).toEqual([{ n: 3 }]);
  });
});
