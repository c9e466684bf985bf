/** A pipeline plans and applies under its identity token, and each way around it is refused with nothing written. */
import { execFileSync } from "node:child_process";
import { copyFileSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { applyPlan } from "../../src/operations/apply.js";
import { weigh } from "../../src/operations/consent/review.js";
import { diffBundles } from "../../src/approval/bundle.js";
import { undoRun } from "../../src/operations/undo.js";
import { makePlan } from "../../src/operations/plan.js";
import { type PlanMade } from "../../src/operations/planning/seal-plan.js";
import type { Toolbox } from "../../src/operations/toolbox.js";
import { readPlanFile, writePlanFile } from "../../src/storage/plan-file.js";
import {
  githubClaims,
  hmacWithPublicKey,
  issuerKey,
  jwt,
  keySetText,
  type TokenServer,
  tokenServer,
} from "../support/ci-issuer.js";
import { makeProject, type TestProject } from "../support/project.js";
import { refusal, refusalLine } from "../support/refusal.js";
import { withTools } from "../support/wired.js";

const KEY = issuerKey("k1");
const GROUPS = `groups: {}
ci:
  accounts: [bot]
  people: { "github:id:583231": lee, "ravi@shop.example": ravi, "github:octo-kim": kim }
  identity:
    plans:
      provider: github
      issuer: https://token.actions.githubusercontent.com
      keys: github.jwks.json
      may: [plan]
      repository: "823471"
      workflow: shop/ops/.github/workflows/holdpoint.yml@refs/heads/main
      ref_protected: false
    applies:
      provider: github
      issuer: https://token.actions.githubusercontent.com
      keys: github.jwks.json
      may: [apply]
      repository: "823471"
      workflow: shop/ops/.github/workflows/holdpoint.yml@refs/heads/main
      claims: { environment: shop-prod }
`;

let project: TestProject;
let server: TokenServer;
let head: string;
/** What GitHub says of a run, unless a test says otherwise. */
const run = (audience: string, change: Readonly<Record<string, unknown>> = {}): string =>
  jwt(githubClaims(audience, new Date(), { sha: head, environment: "shop-prod", ...change }), KEY);

beforeAll(async () => {
  project = makeProject({ people: ["bot", "dana", "ravi", "lee", "kim"], pin: false });
  project.write("people/groups.yaml", GROUPS);
  project.write("people/github.jwks.json", keySetText(KEY));
  project.write("jobs/note.sql", "UPDATE orders SET note = 'seen' WHERE id <= 2");
  const git = (...args: readonly string[]): string =>
    execFileSync("git", ["-c", "user.name=x", "-c", "user.email=ravi@shop.example", ...args], {
      cwd: project.dir,
      encoding: "utf8",
    }).trim();
  git("init", "-q");
  git("add", "-f", "jobs/note.sql");
  git("commit", "-q", "-m", "job");
  head = git("rev-parse", "HEAD");
  expect(project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]).status).toBe(0);
  server = await tokenServer(run);
});
beforeEach(() => {
  server.answer = run;
  server.asked.length = 0;
  project.raw("UPDATE orders SET note = NULL");
});
afterAll(async () => {
  await server.close();
  project.close();
});

const inCi = <T>(work: (tools: Toolbox) => Promise<T>, env = server.env): Promise<T> =>
  withTools(project.dir, work, env);
const plan = (env = server.env, more: { readonly key?: string } = {}): Promise<PlanMade> =>
  inCi(async (tools) => {
    const job = await tools.prepareJob("shop-prod", { kind: "job", job: "jobs/note.sql" }, []);
    return makePlan(tools, {
      on: "shop-prod",
      job,
      reason: null,
      ticket: null,
      key: undefined,
      out: undefined,
      ...more,
    });
  }, env);
const apply = (ref: string, env = server.env): ReturnType<typeof applyPlan> =>
  inCi((tools) => applyPlan(tools, { ref, tokens: [], dryRun: false, confirm: async () => {} }), env);
const without = (...names: readonly string[]): Record<string, string> =>
  Object.fromEntries(Object.entries(server.env).filter(([name]) => !names.includes(name)));

/** Refused by this code, with the target as it was and no plan kept. */
async function refused(
  work: () => Promise<unknown>,
): Promise<{ readonly code: string; readonly why: string }> {
  const before = [project.dump(), readdirSync(join(project.dir, ".holdpoint/plans")).length];
  const e = await refusal(work);
  expect([project.dump(), readdirSync(join(project.dir, ".holdpoint/plans")).length]).toEqual(before);
  expect(e.targetChanged).toBe("no");
  return { code: e.code, why: `${e.message} | ${e.why ?? ""}` };
}

describe("a pipeline that the bundle knows by its token", () => {
  test("plans without a key, for the person whom the token names, and applies by another token for that plan", async () => {
    const made = await plan();
    expect(made.statement.requester).toMatchObject({ person: "lee", key: null, how: "ci-token" });
    expect(made.statement.notices).toEqual([]);
    expect(server.asked).toEqual(["holdpoint:before", `holdpoint:${made.digest}`]);
    for (const self of ["lee", "ravi"]) {
      // Whom the token names, and the author of the commit: both asked for it.
      const ended = project.json(["approve", made.id, "--prepare", `${self}.txt`, "--as", self]);
      expect(ended.error?.code).toBe("ERR_APPROVAL_SELF");
    }
    project.approve(made.id, "dana");
    server.asked.length = 0;
    const done = await apply(made.id);
    expect(server.asked).toEqual([`holdpoint:apply:${made.digest}`]);
    expect(done.rows.written).toBe(2);
    const shown = project.json(["log", "show", done.run ?? ""]);
    expect(JSON.stringify(shown.result)).toContain("github:id:583231");
  });

  test("its plan is verified without asking anybody, from the file alone", async () => {
    const made = await plan();
    server.asked.length = 0;
    const seen = await withTools(project.dir, (tools) =>
      weigh(tools, made.id, (r) => Promise.resolve(r.plan.statement.requester.person)),
    );
    expect([seen, server.asked]).toEqual(["lee", []]);
  });

  test("of an actor whom nobody mapped, or of another commit than the one checked out: one approver more", async () => {
    server.answer = (a) => run(a, { actor: "octo-eve", actor_id: "1" });
    const stranger = await plan();
    expect(stranger.statement.requester.person).toBeNull();
    expect(stranger.statement.notices.join()).toContain("nobody on the list is github:id:1, github:octo-eve");
    server.answer = (a) => run(a, { sha: "2".repeat(40) });
    const other = await plan();
    expect(other.statement.notices.join()).toMatch(/its token is of commit 2{12}, it was made on/);
    project.approve(other.id, "dana");
    server.answer = run;
    expect((await refused(() => apply(other.id))).code).toBe("ERR_APPROVAL_NEEDED");
  });

  test("is no approver by the number of its actor, whatever its login has become", async () => {
    server.answer = (a) => run(a, { actor: "octo-kim" });
    const made = await plan();
    for (const self of ["lee", "kim"]) {
      const ended = project.json(["approve", made.id, "--prepare", `k-${self}.txt`, "--as", self]);
      expect({ self, code: ended.error?.code }).toEqual({ self, code: "ERR_APPROVAL_SELF" });
    }
  });
});

describe("the way back, where no token can be had", () => {
  const undo = (run: string | null, env = server.env): ReturnType<typeof undoRun> =>
    inCi(
      (tools) =>
        undoRun(tools, {
          runs: [run ?? ""],
          onConflict: "stop",
          resolutions: undefined,
          key: undefined,
          out: undefined,
          reason: null,
          tables: [],
          columns: [],
          where: undefined,
          confirm: async () => {},
        }),
      env,
    );

  test("is planned unsigned and costs one approver more, and is applied when they are there", async () => {
    const made = await plan();
    project.approve(made.id, "dana");
    const done = await apply(made.id);
    const env = without("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN");
    const undone = await undo(done.run, env);
    expect(undone.made?.statement.requester).toMatchObject({ person: null, key: null, how: "none" });
    expect(undone.waiting).not.toBeNull();
    const back = undone.made?.id ?? "";
    project.approve(back, "dana");
    expect((await refused(() => apply(back, env))).code).toBe("ERR_APPROVAL_NEEDED");
    expect(project.rows("SELECT count(*) AS n FROM orders WHERE note = 'seen'")).toEqual([{ n: 2 }]);
    project.approve(back, "kim");
    expect((await apply(back, env)).rows.written).toBe(2);
    expect(project.rows("SELECT count(*) AS n FROM orders WHERE note = 'seen'")).toEqual([{ n: 0 }]);
  });

  test("is refused by a token that is there and wrong", async () => {
    const made = await plan();
    project.approve(made.id, "dana");
    const { run: ended } = await apply(made.id);
    server.answer = (a) => run(a, { repository_id: "9" });
    expect((await refused(() => undo(ended))).code).toBe("ERR_CI_TOKEN");
  });
});

describe("no plan is made", () => {
  test.each<readonly [string, (audience: string) => ReturnType<TokenServer["answer"]>, string, RegExp]>([
    [
      "another repository of the same name",
      (a) => run(a, { repository_id: "9" }),
      "ERR_CI_TOKEN",
      /repository/,
    ],
    ["another workflow", (a) => run(a, { job_workflow_ref: "x" }), "ERR_CI_TOKEN", /workflow/],
    ["another issuer", (a) => run(a, { iss: "https://gitlab.example" }), "ERR_CI_TOKEN", /issuer/],
    [
      "expired",
      (a) => run(a, { iat: 1_700_000_000, nbf: 1_700_000_000, exp: 1_700_000_300 }),
      "ERR_CI_TOKEN",
      /expired/,
    ],
    [
      "HS256 with the public key",
      (a) => hmacWithPublicKey(githubClaims(a, new Date()), KEY),
      "ERR_CI_TOKEN",
      /HS256/,
    ],
    [
      "a key that is not pinned",
      (a) => jwt(githubClaims(a, new Date()), issuerKey("k2")),
      "ERR_CI_TOKEN",
      /signed by key k2, which github.jwks.json does not hold \(it holds k1\)/,
    ],
    [
      "a server that refuses",
      () => ({ status: 403, body: "no" }),
      "ERR_CI_TOKEN_MISSING",
      /answered with 403/,
    ],
    [
      "a server that leads elsewhere",
      () => ({ status: 302, body: "" }),
      "ERR_CI_TOKEN_MISSING",
      /answered with 302/,
    ],
    ["a server that is down", () => ({ status: 503, body: "" }), "ERR_CI_TOKEN_MISSING", /answered with 503/],
    [
      "an answer without a token",
      () => ({ status: 200, body: "{}" }),
      "ERR_CI_TOKEN_MISSING",
      /holds no token/,
    ],
    [
      "an answer without an end",
      () => ({ status: 200, body: "x".repeat(90_000) }),
      "ERR_CI_TOKEN_MISSING",
      /holds no token/,
    ],
  ])("%s", async (_, answer, code, why) => {
    server.answer = answer;
    const ended = await refused(() => plan());
    expect(ended.code).toBe(code);
    expect(ended.why).toMatch(why);
    expect(ended.why).not.toMatch(/eyJ|job-secret/);
  });

  test("without a token, whatever the variables say", async () => {
    const none = { code: "ERR_CI_TOKEN_MISSING" };
    await expect(refused(() => plan(without("ACTIONS_ID_TOKEN_REQUEST_TOKEN")))).resolves.toMatchObject(none);
    const elsewhere = { ...server.env, ACTIONS_ID_TOKEN_REQUEST_URL: "http://runner.example/" };
    await expect(refused(() => plan(elsewhere))).resolves.toMatchObject(none);
    await expect(refused(() => plan({ CI: "true", GITHUB_ACTOR: "octo-lee" }))).resolves.toMatchObject(none);
    await expect(refused(() => plan({ CI: "true", AGENT: "1" }))).resolves.toMatchObject(none);
    await expect(refused(() => plan({ GITLAB_CI: "true", GITLAB_USER_LOGIN: "lee" }))).resolves.toMatchObject(
      none,
    );
    const key = project.path("keys/bot");
    await expect(refused(() => plan({}, { key }))).resolves.toMatchObject(none);
    await expect(refused(() => plan(server.env, { key }))).resolves.toMatchObject({ code: "ERR_USAGE" });
  });

  test("where the token for its digest is another's: of another plan, of another actor", async () => {
    server.answer = (a) => run(a === "holdpoint:before" ? a : `holdpoint:sha256:${"0".repeat(64)}`);
    expect((await refused(() => plan())).why).toMatch(/audience: wanted holdpoint:sha256/);
    server.answer = (a) => run(a, a === "holdpoint:before" ? {} : { actor_id: "2", actor: "octo-kim" });
    expect((await refused(() => plan())).why).toMatch(/not what its token says/);
  });
});

describe("a plan that was made is refused", () => {
  let made: PlanMade;
  let other: PlanMade;
  beforeAll(async () => {
    server.answer = run;
    made = await plan();
    other = await plan();
    project.approve(made.id, "dana");
  });
  const file = (m: PlanMade): string => project.path(`.holdpoint/plans/${m.id}.hpplan`);
  /** The plan with another proof in its slot, as a file from a stranger. */
  const forged = async (name: string, proof: Uint8Array | null): Promise<string> => {
    const path = project.path(name);
    const from = await readPlanFile(file(made), { followLinks: false });
    await inCi(async (tools) => {
      const writer = await tools.workingChanges();
      await from.loadInto(writer);
      const source = writer.finish();
      try {
        await writePlanFile(path, { statement: from.statement, signature: proof, source });
      } finally {
        source.close();
      }
    });
    return path;
  };
  const proofOf = async (m: PlanMade): Promise<Buffer> =>
    Buffer.from((await readPlanFile(file(m), { followLinks: false })).signature ?? []);

  test("with the token of another plan, with none, and with one flipped bit of it", async () => {
    const flipped = await proofOf(made);
    flipped[flipped.length - 5] = (flipped[flipped.length - 5] ?? 0) ^ 2;
    for (const [name, proof, code] of [
      ["other.hpplan", await proofOf(other), "ERR_PLAN_ALTERED"],
      ["none.hpplan", null, "ERR_CI_TOKEN_MISSING"],
      ["flipped.hpplan", flipped, "ERR_PLAN_ALTERED"],
    ] as const) {
      const path = await forged(name, proof);
      expect({ name, code: (await refused(() => apply(path))).code }).toEqual({ name, code });
      const looked = await refusalLine(() =>
        withTools(project.dir, (tools) => weigh(tools, path, () => Promise.resolve(null))),
      );
      expect(looked.startsWith(code)).toBe(true);
    }
  });

  test("with a token that was issued at another time, by another run, or by a key that is not pinned", async () => {
    const audience = `holdpoint:${made.digest}`;
    const late = Math.floor(Date.now() / 1000) + 7200;
    for (const [name, token, why] of [
      ["late.hpplan", run(audience, { iat: late, nbf: late, exp: late + 300 }), /it was issued/],
      ["run.hpplan", run(audience, { run_id: "78" }), /not what its token says/],
      ["kid.hpplan", jwt(githubClaims(audience, new Date()), issuerKey("k3")), /k3/],
    ] as const) {
      const path = await forged(name, Buffer.from(token));
      expect((await refused(() => apply(path))).why).toMatch(why);
    }
  });

  test("where whoever applies has no token for it, or one that may not apply (32)", async () => {
    expect((await refused(() => apply(made.id, without("ACTIONS_ID_TOKEN_REQUEST_URL")))).code).toBe(
      "ERR_CI_TOKEN_MISSING",
    );
    for (const [answer, why] of [
      [(): string => run(`holdpoint:${made.digest}`), /audience/],
      [(a: string): string => run(a, { environment: undefined }), /environment: pinned shop-prod/],
      [(a: string): string => run(a, { ref: "refs/heads/x", ref_protected: "false" }), /not a protected ref/],
    ] as const) {
      server.answer = answer;
      const ended = await refused(() => apply(made.id));
      expect([ended.code, ended.why]).toEqual(["ERR_CI_TOKEN", expect.stringMatching(why)]);
    }
  });

  test("the token stands in the plan's file, and nowhere else in the store", async () => {
    const proof = await proofOf(made);
    const root = project.path(".holdpoint");
    const holders = readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((e) => e.isFile() && readFileSync(join(e.parentPath, e.name)).includes(proof))
      .map((e) => e.name);
    expect(holders).toEqual([`${made.id}.hpplan`]);
    const shown = project.run(["show", made.id, "--json"]).stdout + project.run(["log", "--json"]).stdout;
    expect(shown).not.toContain(proof.toString("latin1").slice(0, 40));
  });
});

describe("what guards it", () => {
  test("a new key of the issuer is another bundle, told by its name and thumbprint (30)", async () => {
    const before = await withTools(project.dir, (t) => Promise.resolve(t.project.bundleFor("shop-prod")));
    copyFileSync(project.path("people/github.jwks.json"), project.path("old.json"));
    try {
      const next = issuerKey("k2");
      project.write("people/github.jwks.json", keySetText(KEY, next));
      const after = await withTools(project.dir, (t) => Promise.resolve(t.project.bundleFor("shop-prod")));
      expect(diffBundles(before, after)).toEqual([
        expect.stringMatching(/^\+ guarding ci\.identity\.applies\.keys\.k2: "RS256 SHA256:[\w-]{43}"$/),
        expect.stringMatching(/^\+ guarding ci\.identity\.plans\.keys\.k2: "RS256 SHA256:[\w-]{43}"$/),
      ]);
      expect((await refused(() => plan())).code).toBe("ERR_TRUST_BUNDLE");
    } finally {
      copyFileSync(project.path("old.json"), project.path("people/github.jwks.json"));
    }
  });

  test("doctor names the pipelines that are known by a token", () => {
    expect(JSON.stringify(project.json(["doctor"]).result)).toContain(
      "pipelines are who their identity token says: applies (github, may apply), plans (github, may plan)",
    );
  });

  test("a person at their own machine plans with their key, as ever", async () => {
    const made = await plan({}, { key: project.path("keys/dana") });
    expect(made.statement.requester).toMatchObject({ person: "dana", how: "ssh-key" });
    expect(server.asked).toEqual([]);
  });
});
