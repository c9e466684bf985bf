/** Rules that ask for a committed job: looked up in the checkout of whoever decides, never believed. */
import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { makeProject, type TestProject } from "../support/project.js";

const OWN = `format: holdpoint-policy/1
name: committed
environments: [production]
rules:
  - id: committed
    when: kind == "job" && !job.clean
    then: deny
    because: what runs here is committed first
`;

let project: TestProject;

const git = (...args: readonly string[]): void => {
  const identity = [
    "-c",
    "user.name=dana",
    "-c",
    "user.email=dana@shop.example",
    "-c",
    "init.defaultBranch=main",
  ];
  const done = spawnSync("git", [...identity, ...args], { cwd: project.dir, encoding: "utf8" });
  if (done.status !== 0) throw new Error(`git ${args.join(" ")}: ${done.stderr}`);
};

beforeAll(() => {
  project = makeProject({ pin: false });
  project.write("policies/committed.yaml", OWN);
  git("init", "--quiet");
  const pinned = project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
});

afterAll(() => project.close());

const planned = (): ReturnType<TestProject["json"]> =>
  project.json(["plan", "jobs/job.sql", "--on", "shop-prod", "--key", "keys/dana"]);

test("a job that git does not know is denied, then allowed once committed, then denied when edited", () => {
  project.write("jobs/job.sql", "UPDATE orders SET note = 'a' WHERE id = 1;\n");
  expect(planned().error?.why).toContain("committed (policies/committed.yaml:5)");
  git("add", "jobs");
  expect(planned().exit.code).toBe(30);
  git("commit", "--quiet", "-m", "jobs");
  const made = planned();
  expect([made.exit.code, made.result["decision"]]).toEqual([0, "needs-approval"]);
  const plan = String(made.result["plan"]);
  project.approve(plan);

  project.write("jobs/job.sql", "UPDATE orders SET note = 'b' WHERE id = 1;\n");
  expect(planned().exit.code).toBe(30);
  // The file here is not what the plan ran: whether that was committed is not known, and what is not known denies.
  const elsewhere = project.json(["apply", plan, "--confirm", "shop-prod"]);
  expect([elsewhere.exit.code, elsewhere.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
  git("checkout", "--quiet", "jobs/job.sql");
  expect(project.json(["apply", plan, "--confirm", "shop-prod"]).exit.code).toBe(0);
});

test("a bare command has no file, so nothing says that it was committed", () => {
  const made = project.run(["plan", "--on", "shop-prod", "--key", "keys/dana", "--", "true"]);
  expect(made.status).toBe(30);
  expect(made.stderr).toContain("No such key: clean");
});
