/**
 * The shell parts of docs/ci, run as the platforms run them (`bash -e`), against the real program. Only what belongs to the
 * platform is stood in for: the server that gives identity tokens, and `buildkite-agent`, which keeps its meta-data in files.
 */
import { execFileSync, spawn } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { parse } from "yaml";
import {
  githubClaims,
  issuerKey,
  jwt,
  keySetText,
  type TokenServer,
  tokenServer,
} from "../support/ci-issuer.js";
import { BIN, makeProject, type TestProject } from "../support/project.js";

const DOCS = resolve(import.meta.dirname, "../../../docs/ci");
const KEY = issuerKey("k1");

const AGENT = `#!/bin/sh
case "$1 $2" in
  "meta-data set") printf '%s' "$4" > "meta-$3" ;;
  "meta-data get") cat "meta-$3" ;;
  "annotate "*) cat > annotation.md ;;
  "oidc request-token") exec "${process.execPath}" "$0.token.mjs" "$4" ;;
  *) exit 64 ;;
esac
`;

/** Asks the same server that a GitHub job asks. */
const AGENT_TOKEN = `const url = new URL(process.env.ACTIONS_ID_TOKEN_REQUEST_URL);
url.searchParams.set("audience", process.argv[2]);
const headers = { authorization: "Bearer " + process.env.ACTIONS_ID_TOKEN_REQUEST_TOKEN };
console.log((await (await fetch(url, { headers })).json()).value);
`;

let project: TestProject;
let server: TokenServer;
let head: string;
/** The token of the run that {@link runsAs} tells, for an audience. */
let tokenFor: (audience: string) => string;

/** A project whose bundle knows its pipelines by docs/ci/groups.yaml. */
beforeEach(async () => {
  project = makeProject({ people: ["dana", "ravi", "mona"], pin: false });
  const yaml = project.read("holdpoint.yaml");
  project.write("holdpoint.yaml", yaml.replace("jobs:\n", "jobs:\n  cancel:\n    sql: jobs/cancel.sql\n"));
  project.write("jobs/cancel.sql", "UPDATE orders SET status = 'cancelled' WHERE id <= 3");
  project.write("people/groups.yaml", readFileSync(resolve(DOCS, "groups.yaml"), "utf8"));
  for (const issuer of ["github", "buildkite", "gitlab"])
    project.write(`people/${issuer}.jwks.json`, keySetText(KEY));
  const git = (...args: readonly string[]): string =>
    execFileSync("git", ["-c", "user.name=x", "-c", "user.email=dana@shop.example", ...args], {
      cwd: project.dir,
      encoding: "utf8",
    }).trim();
  git("init", "-q");
  git("add", "-f", "jobs/cancel.sql");
  git("commit", "-q", "-m", "job");
  head = git("rev-parse", "HEAD");
  expect(project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]).status).toBe(0);
  server = await tokenServer(() => "");
  mkdirSync(project.path("tools"));
  shim("holdpoint", `#!/bin/sh\nexec "${process.execPath}" "${BIN}" "$@"\n`);
  shim("buildkite-agent", AGENT);
  shim("buildkite-agent.token.mjs", AGENT_TOKEN);
});
afterEach(async () => {
  await server.close();
  project.close();
});

function shim(name: string, script: string): void {
  project.write(`tools/${name}`, script);
  chmodSync(project.path(`tools/${name}`), 0o755);
}

/** What a run's token says beside its audience. */
function runsAs(claims: Readonly<Record<string, unknown>>): void {
  tokenFor = (audience) => jwt(githubClaims(audience, new Date(), { sha: head, ...claims }), KEY);
  server.answer = tokenFor;
}

/** One script as a runner starts it; this process goes on, so that its server can answer. */
async function shell(script: string, env: Readonly<Record<string, string>> = {}): Promise<void> {
  const child = spawn("bash", ["-e", "-o", "pipefail", "-c", script], {
    cwd: project.dir,
    env: {
      PATH: `${project.path("tools")}:${process.env["PATH"] ?? ""}`,
      HOME: project.path("home"),
      TZ: "UTC",
      CI: "true",
      ...env,
    },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => void (output += chunk.toString()));
  const status = await new Promise((done) => child.on("close", done));
  if (status !== 0) throw new Error(`${script}\nended with ${String(status)}\n${output}`);
}

interface GitlabJob {
  readonly script: readonly string[];
  readonly id_tokens?: Readonly<Record<string, { readonly aud: string }>>;
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

function cancelled(): unknown {
  return project.rows("SELECT count(*) AS n FROM orders WHERE status = 'cancelled'");
}

const WORKFLOWS = "shop/ops/.github/workflows";
/** What GitHub gives to the job that plans a pull request, and to the one that applies from main. */
const PULL_REQUEST = {
  actor_id: "583231",
  actor: "octo-dana",
  workflow_ref: `${WORKFLOWS}/pull-request.yml@refs/pull/7/merge`,
  job_workflow_ref: `${WORKFLOWS}/holdpoint-plan.yml@refs/heads/main`,
  ref: "refs/pull/7/merge",
  ref_protected: "false",
  environment: "shop-prod-read",
};
const APPLYING = {
  workflow_ref: `${WORKFLOWS}/holdpoint-apply.yml@refs/heads/main`,
  job_workflow_ref: `${WORKFLOWS}/holdpoint-apply.yml@refs/heads/main`,
  environment: "shop-prod",
};
const BUILD = {
  iss: "https://agent.buildkite.com",
  organization_id: "0184990a-477b-4fa8-9968-496074483cee",
  pipeline_id: "0184990a-4782-42b5-afc1-16715b10b8ff",
  organization_slug: "shop",
  pipeline_slug: "ops",
  build_branch: "main",
  job_id: "j",
};

const PIPELINE = {
  iss: "https://gitlab.com",
  project_id: "42",
  ci_config_ref_uri: "gitlab.com/shop/ops//.gitlab-ci.yml@refs/heads/main",
  ref_path: "refs/heads/main",
  user_id: "7",
  user_login: "dana",
  pipeline_id: "9",
};

describe("the examples of docs/ci plan, wait for a person, and apply", () => {
  test("GitHub Actions: by the token of the workflow that main has, and from nowhere else", async () => {
    const actor = { GITHUB_ACTOR: "octo-dana", GITHUB_TRIGGERING_ACTOR: "octo-dana" };
    const files = { ...server.env, ...actor, GITHUB_OUTPUT: "output.txt", GITHUB_STEP_SUMMARY: "summary.md" };
    const planning = async (): Promise<void> => {
      for (const s of githubScripts("github-plan.yml", "plan"))
        await shell(s, { ...files, TICKET: "OPS-1 cancel" });
    };
    // The same steps in a workflow of the pull request's own are another pipeline.
    runsAs({ ...PULL_REQUEST, job_workflow_ref: `${WORKFLOWS}/mine.yml@refs/pull/7/merge` });
    await expect(planning()).rejects.toThrow(/ended with 32/);
    expect(project.read("plan.json")).toMatch(/"code": ?"ERR_CI_TOKEN"/);
    runsAs(PULL_REQUEST);
    await planning();
    expect(project.read("summary.md")).toMatch(/^### `shop-prod` \(PRODUCTION\): `cancel`, 3 rows/);
    expect(project.read("output.txt")).toMatch(/^rc=20$/m);
    const [plan = ""] = [...project.read("output.txt").matchAll(/^plan=(pl_\w+)$/gm)].map((m) => m[1]);
    const APPROVAL = project.approve(plan, "ravi");
    const applying = async (): Promise<void> => {
      for (const s of githubScripts("github-apply.yml", "apply"))
        await shell(s, { ...server.env, PLAN: plan, APPROVAL });
    };
    await expect(applying()).rejects.toThrow(/ended with 32/);
    runsAs(APPLYING);
    await applying();
    expect(JSON.parse(project.read("result.json"))).toMatchObject({ ok: true, target_changed: "yes" });
    expect(cancelled()).toEqual([{ n: 3 }]);
  });

  test("Buildkite: its token names nobody, so two people approve", async () => {
    const { steps } = example("buildkite.yml") as { readonly steps: readonly Step[] };
    const [plan, apply] = steps.flatMap((s) => s.command ?? []);
    const { ACTIONS_ID_TOKEN_REQUEST_URL = "", ACTIONS_ID_TOKEN_REQUEST_TOKEN = "" } = server.env;
    const env = {
      BUILDKITE: "true",
      BUILDKITE_BUILD_CREATOR_EMAIL: "dana@shop.example",
      BUILDKITE_MESSAGE: "OPS-3",
      ACTIONS_ID_TOKEN_REQUEST_URL,
      ACTIONS_ID_TOKEN_REQUEST_TOKEN,
    };
    runsAs({ ...BUILD, build_commit: head });
    await shell(plan ?? "", env);
    expect(project.read("annotation.md")).toMatch(/^### `shop-prod`/);
    const made = project.read("meta-plan");
    project.write("meta-approval", project.approve(made, "mona"));
    await expect(shell(apply ?? "", env)).rejects.toThrow(/ended with 21/);
    project.write("meta-approval", project.approve(made, "ravi"));
    await shell(apply ?? "", env);
    expect(cancelled()).toEqual([{ n: 3 }]);
  });

  test("GitLab CI: a second job has the token for the digest that the first one found", async () => {
    const file = example("gitlab-ci.yml") as Readonly<Record<string, GitlabJob>>;
    runsAs(PIPELINE);
    const found: Record<string, string> = {};
    const job = async (name: string, more: Readonly<Record<string, string>> = {}): Promise<void> => {
      const env: Record<string, string> = {
        GITLAB_CI: "true",
        GITLAB_USER_LOGIN: "dana",
        CI_COMMIT_TITLE: "OPS-2",
        ...found,
        ...more,
      };
      for (const [variable, { aud }] of Object.entries(file[name]?.id_tokens ?? {}))
        env[variable] = tokenFor(aud.replace("$HOLDPOINT_DIGEST", env["HOLDPOINT_DIGEST"] ?? ""));
      await shell((file[name]?.script ?? []).join("\n"), env);
    };
    await job("plan:shop-prod");
    for (const [, name = "", value = ""] of project.read("plan.env").matchAll(/^(\w+)=(.+)$/gm))
      found[name] = value;
    const plan = found["HOLDPOINT_PLAN"] ?? "";
    expect(project.json(["approve", plan, "--prepare", "early.txt", "--as", "ravi"]).error?.code).toBe(
      "ERR_CI_TOKEN_MISSING",
    );
    // A job of another pipeline's run, or for another digest, proves nothing.
    runsAs({ ...PIPELINE, pipeline_id: "10" });
    await expect(job("prove:shop-prod")).rejects.toThrow(/ended with 35/);
    runsAs(PIPELINE);
    const other = { HOLDPOINT_DIGEST: `sha256:${"0".repeat(64)}` };
    await expect(job("prove:shop-prod", other)).rejects.toThrow(/ended with 32/);
    await job("prove:shop-prod");
    expect(project.read("holdpoint-junit.xml")).toMatch(/<testsuites>/);
    await expect(job("approved:shop-prod")).rejects.toThrow(/ended with 21/);
    const HOLDPOINT_APPROVAL = project.approve(plan, "ravi");
    await job("approved:shop-prod");
    await job("apply:shop-prod", { HOLDPOINT_APPROVAL });
    expect(cancelled()).toEqual([{ n: 3 }]);
  });
});
