/** S02: the rescue of S01 written in waves of one balancer, seven and the rest; a probe fails in the second one. */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { ALL_WELL, Oracle } from "../support/oracle.js";
import { makeProject, type TestProject } from "../support/project.js";
import { DAMAGED_AT, ELB, JOB } from "./elb.js";

let project: TestProject;
let oracle: Oracle;
let plan: string;
let run: string;

/** Balancers whose back ends are there again. */
const back = (): number[] =>
  (
    project.rows(
      "SELECT DISTINCT balancer AS b FROM back_ends WHERE balancer <= 68 AND deleted_at IS NULL ORDER BY 1",
    ) as { b: number }[]
  ).map((r) => r.b);

const probeFailsAfter = (wave: number | null): string =>
  project.write("probe.mjs", `process.exit(process.env.HOLDPOINT_WAVE === "${wave ?? "none"}" ? 7 : 0);`);

beforeAll(() => {
  project = makeProject({ schema: ELB, target: "elb-prod", journal: "delete", pin: false });
  project.write(
    "holdpoint.yaml",
    project
      .read("holdpoint.yaml")
      .replace(/^( +)url: .*$/m, "$&\n$1checks: { probe: { command: [node, probe.mjs] } }"),
  );
  expect(project.run(["env", "pin", "elb-prod", "--confirm", "elb-prod"]).status).toBe(0);
  expect(project.json(["snapshot", "take", "--on", "elb-prod"]).error).toBeNull();
  oracle = new Oracle(project.database, ["balancers", "back_ends"], 2);
  project.raw(JOB);
  for (let i = 0; i < 60; i++) oracle.set("back_ends", 1 + oracle.random(5000), "weight", 100 + i);
  for (let i = 1; i <= 10; i++) oracle.insert("balancers", { id: 1000 + i, name: `new ${i}` });
  oracle.remove("balancers", 66);
  for (let id = 326; id <= 330; id++) oracle.removedToo("back_ends", id);
  const made = project.json([
    "rescue",
    "--on",
    "elb-prod",
    "--damage",
    `deleted_at = '${DAMAGED_AT}'`,
    "--key",
    "keys/dana",
    "--waves",
    "balancer:1,8,100%",
    "--put-back",
  ]);
  expect(made.error).toBeNull();
  plan = String(made.result["plan"]);
  project.approve(plan);
});
afterAll(() => project?.close());

describe("S02: back in waves of one balancer, seven, and the rest", () => {
  test("the approver is shown the waves, their column, and that a failed check puts back", () => {
    expect(project.json(["show", plan]).result["writing"]).toMatchObject({
      waves: ["balancer:1", "8", "100%"],
    });
    expect(project.run(["show", plan]).stdout).toContain("waves balancer:1, 8, 100%");
  });

  test("the probe fails in wave 2: it halts, puts that wave back, and the third is untouched (41)", () => {
    probeFailsAfter(2);
    const halted = project.json(["apply", plan, "--confirm", "elb-prod"]);
    expect(halted).toMatchObject({
      exit: { code: 41 },
      error: { code: "ERR_CHECK_PUT_BACK" },
      target_changed: "partly",
    });
    expect(back()).toEqual([1]);
    const [last] = project.json(["status"]).result["runs"] as unknown as { run: string; state: string }[];
    expect(last).toMatchObject({ state: "stopped" });
    run = last?.run ?? "";
  });

  test("still failing, it comes no further than before, however often it is tried", () => {
    const again = project.json(["apply", plan, "--confirm", "elb-prod"]);
    expect(again).toMatchObject({ exit: { code: 41 }, target_changed: "partly" });
    expect(back()).toEqual([1]);
    expect(project.json(["log", "verify"]).ok).toBe(true);
  });

  test("resume after the fix completes, with what others wrote meanwhile; lost 0, resurrected 0", () => {
    probeFailsAfter(null);
    oracle.set("back_ends", 900, "weight", 4242);
    oracle.set("balancers", 7, "name", "renamed meanwhile");
    const done = project.json(["apply", "--resume", run, "--confirm", "elb-prod"]);
    expect(done.error).toBeNull();
    expect(done.result).toMatchObject({ run, resumed: true, waves: 3, rows: { planned: 335, written: 335 } });
    expect(oracle.judge()).toEqual(ALL_WELL);
    expect(project.json(["apply", plan, "--confirm", "elb-prod"]).error?.code).toBe("ERR_APPROVAL_SPENT");
    expect(project.json(["log", "verify"]).ok).toBe(true);
  });
});
