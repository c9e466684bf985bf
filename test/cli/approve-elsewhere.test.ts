/**
 * An approver on another machine: the plan file and the same checkout are enough to look and to sign, with the target
 * out of reach or only to be read, and with no ledger. What such a machine cannot know is said, never guessed.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { checkoutOf, makeProject, sign, type TestProject } from "../support/project.js";
import { shifted } from "../support/shifted-clock.js";

let project: TestProject;
const PLAN = "retire.hpplan";
const others: TestProject[] = [];

/** Another machine; closed at the end. */
function elsewhere(database?: string): TestProject {
  const there = checkoutOf(project, PLAN, database);
  others.push(there);
  return there;
}

/** Signs the plan on that machine, and gives the token file's text. */
function token(there: TestProject, person = "ravi"): string {
  const prepared = there.json(["approve", PLAN, "--prepare", "a.txt", "--as", person]);
  expect(prepared.error).toBeNull();
  sign(there.path(`keys/${person}`), "holdpoint-approval", there.path("a.txt"));
  const taken = there.json(["approve", PLAN, "--prepared", "a.txt", "--signature", "a.txt.sig"]);
  expect(taken.error).toBeNull();
  expect(taken.result["recorded"]).toBe(false);
  expect(taken.target_changed).toBe("no");
  return String(taken.result["token"]);
}

beforeAll(() => {
  project = makeProject();
  project.plan("DELETE FROM orders WHERE id <= 3", ["--out", PLAN]);
});
afterAll(() => {
  for (const p of [project, ...others]) p.close();
});

describe("a plan file and a checkout are enough to approve", () => {
  test("the target is out of reach: the token made there opens the plan where it was made", () => {
    const there = elsewhere();
    const text = token(there);
    project.write("from-ravi.hpa", `${text}\n`);
    const before = project.rows("SELECT count(*) AS n FROM orders");
    const applied = project.json([
      "apply",
      PLAN,
      "--confirm",
      "shop-prod",
      "--approval",
      "from-ravi.hpa",
      "--dry-run",
    ]);
    expect(applied.error).toBeNull();
    expect(project.rows("SELECT count(*) AS n FROM orders")).toEqual(before);
  });

  test("the target can be read there: rows are read again, and drift is told", () => {
    const there = elsewhere(project.database);
    expect(token(there)).toMatch(/^[\w+/=.:-]+$/);
    expect(there.json(["show", PLAN]).error).toBeNull();
  });
});

describe("refused there, with nothing signed", () => {
  test("people other than those that the plan stands on: 30", () => {
    const there = elsewhere();
    there.write(
      "people/allowed_signers",
      `${there.read("people/allowed_signers")}# a remark changes nothing\n`,
    );
    expect(there.json(["approve", PLAN, "--prepare", "b.txt", "--as", "ravi"]).error).toBeNull();
    const policy = there.read("policies/production.yaml");
    there.write(
      "policies/production.yaml",
      policy.replace("require: { people: 1 }", "require: { people: 2 }"),
    );
    const refused = there.json(["approve", PLAN, "--prepare", "c.txt", "--as", "ravi"]);
    expect([refused.exit.code, refused.error?.code]).toEqual([30, "ERR_TRUST_BUNDLE"]);
  });

  test("a target of that name with another identity: 33", () => {
    const there = elsewhere();
    const config = there.read("holdpoint.yaml");
    there.write("holdpoint.yaml", config.replace(/identity: sqlite:[0-9a-f]{4}/, "identity: sqlite:0000"));
    const refused = there.json(["approve", PLAN, "--prepare", "a.txt", "--as", "ravi"]);
    expect([refused.exit.code, refused.error?.code]).toEqual([33, "ERR_TARGET_NOT_PLANNED"]);
  });

  test("the requester signing for themselves: 31", () => {
    const refused = elsewhere().json(["approve", PLAN, "--prepare", "a.txt", "--as", "dana"]);
    expect([refused.exit.code, refused.error?.code]).toEqual([31, "ERR_APPROVAL_SELF"]);
  });

  test("one altered byte of the plan file: 35", () => {
    const there = elsewhere();
    const bytes = readFileSync(there.path(PLAN));
    const at = bytes.length - 40;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(there.path(PLAN), bytes);
    expect(there.json(["approve", PLAN, "--prepare", "a.txt", "--as", "ravi"]).exit.code).toBe(35);
  });

  test("what needs the target: --replan and a rejection, 39", () => {
    const there = elsewhere();
    const replan = there.json(["approve", PLAN, "--prepare", "a.txt", "--as", "ravi", "--replan"]);
    expect([replan.exit.code, replan.error?.code]).toEqual([39, "ERR_TARGET_UNREACHABLE"]);
    const reject = there.json(["reject", PLAN, "--reason", "no", "--key", "keys/ravi"]);
    expect([reject.exit.code, reject.error?.code]).toEqual([39, "ERR_TARGET_UNREACHABLE"]);
  });

  test("a store that has plans and lost its ledger is no visitor's: 35", () => {
    const there = elsewhere(project.database);
    expect(there.json(["show", PLAN]).error).toBeNull();
    mkdirSync(there.path(".holdpoint/plans"), { recursive: true, mode: 0o700 });
    const id = String(there.json(["show", PLAN]).result["plan"]);
    writeFileSync(there.path(`.holdpoint/plans/${id}.hpplan`), readFileSync(there.path(PLAN)), {
      mode: 0o600,
    });
    const refused = there.json(["approve", PLAN, "--prepare", "a.txt", "--as", "ravi"]);
    expect([refused.exit.code, refused.error?.code]).toEqual([35, "ERR_LEDGER_MISSING"]);
  });

  test("a clock behind the plan's own making: 31", () => {
    const there = elsewhere();
    const command = ["approve", PLAN, "--prepare", "a.txt", "--as", "ravi"];
    const refused = there.json(command, shifted(there, -3600));
    expect([refused.exit.code, refused.error?.code]).toEqual([31, "ERR_APPROVAL_CLOCK"]);
  });

  test("an expired plan: 31", () => {
    const there = elsewhere();
    const command = ["approve", PLAN, "--prepare", "a.txt", "--as", "ravi"];
    const refused = there.json(command, shifted(there, 3 * 86_400));
    expect([refused.exit.code, refused.error?.code]).toEqual([31, "ERR_PLAN_EXPIRED"]);
  });
});
