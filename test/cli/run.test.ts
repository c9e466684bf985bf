/** run, status --wait, show --against and the machine-readable forms, through the real binary. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { documentSchema } from "../../src/render/documents.js";
import { misfits } from "../support/json-schema.js";
import { makeProject, type TestProject } from "../support/project.js";

const PAY = "UPDATE orders SET note = 'seen' WHERE id <= 3";

describe("run in development, where policy asks nobody", () => {
  let project: TestProject;
  beforeAll(() => {
    project = makeProject({ environment: "development", target: "shop-dev" });
  });
  afterAll(() => project.close());

  test("plans and applies at once", () => {
    const file = project.write("jobs/pay.sql", PAY);
    const done = project.json(["run", file, "--on", "shop-dev", "--key", "keys/dana"]);
    expect(done).toMatchObject({
      schema: "holdpoint/run@1",
      ok: true,
      target_changed: "yes",
      result: { run: expect.stringMatching(/^rn_/), applied: { rows: { planned: 3, written: 3 } } },
    });
    expect(project.rows("SELECT count(*) AS n FROM orders WHERE note = 'seen'")).toEqual([{ n: 3 }]);
  });

  test("nothing to change: nothing is applied, and nothing asked", () => {
    const file = project.write("jobs/none.sql", "UPDATE orders SET note = 'x' WHERE id < 0");
    const done = project.json(["run", file, "--on", "shop-dev", "--key", "keys/dana"]);
    expect(done).toMatchObject({ ok: true, target_changed: "no", result: { run: null, has_changes: false } });
  });

  test("events: hello first, the document last, one object a line", () => {
    const file = project.write("jobs/again.sql", "UPDATE orders SET note = 'again' WHERE id = 9");
    const args = [
      "run",
      file,
      "--on",
      "shop-dev",
      "--key",
      "keys/dana",
      "--events",
      "events.ndjson",
      "--json",
    ];
    const { stdout } = project.run(args);
    const events = readFileSync(project.path("events.ndjson"), "utf8")
      .trim()
      .split("\n")
      .map((l) => JSON.parse(l));
    expect(events.flatMap((e) => misfits(documentSchema("events"), e))).toEqual([]);
    expect(events[0]).toMatchObject({ event: "hello", schema: "holdpoint/events@1" });
    expect(events.at(-1)).toMatchObject({ event: "result", document: JSON.parse(stdout) });
  });

  test("--json into a file leaves one line on stderr: what it was, and whether anything was written", () => {
    const { stdout, stderr, status } = project.run(["apply", "pl_nothing", "--json", "--quiet"]);
    expect(status).toBe(JSON.parse(stdout).exit.code);
    expect(stderr).toMatch(/^ERR_[A-Z_]+: .*\. Nothing was written\.\n$/);

    const file = project.write("jobs/counted.sql", "UPDATE orders SET note = 'counted' WHERE id = 8");
    const flags = ["--on", "shop-dev", "--key", "keys/dana", "--detailed-exitcode", "--quiet"];
    const changes = project.run(["plan", file, ...flags, "--json"]);
    expect([changes.status, changes.stderr]).toEqual([20, "exit 20 (changes): Nothing was written.\n"]);
    const usage = project.run(["plan", "--jsno", "--json"]);
    expect([usage.status, usage.stderr.split("\n").length]).toEqual([2, 2]);
  });

  test("events on stdout leave nothing else there, on failure too", () => {
    const { stdout, status } = project.run(["apply", "pl_nothing", "--events", "-"]);
    const lines = stdout
      .trim()
      .split("\n")
      .map((l) => JSON.parse(l) as { readonly event: string });
    expect(status).not.toBe(0);
    expect(lines.map((l) => l.event)).toEqual(["hello", "result"]);
  });

  test("a file of events that cannot be written is refused before anything is done", () => {
    const file = project.write("jobs/late.sql", "UPDATE orders SET note = 'late' WHERE id = 10");
    const args = ["run", file, "--on", "shop-dev", "--key", "keys/dana", "--events", "none/here.ndjson"];
    expect(project.json(args)).toMatchObject({ exit: { code: 2 }, error: { code: "ERR_USAGE" } });
    expect(project.rows("SELECT note FROM orders WHERE id = 10")).toEqual([{ note: null }]);
  });
});

describe("run in production, where people are asked", () => {
  let project: TestProject;
  beforeAll(() => {
    project = makeProject();
  });
  afterAll(() => project.close());

  const start = (
    sql: string,
    more: readonly string[],
  ): Promise<{ readonly status: number; readonly stderr: string }> => {
    const file = project.write(`jobs/wait-${sql.length}.sql`, sql);
    return project.start([
      "run",
      file,
      "--on",
      "shop-prod",
      "--key",
      "keys/dana",
      "--confirm",
      "shop-prod",
      ...more,
    ]);
  };

  test("ends with 21, the plan's id, and the line that an approver needs", () => {
    const file = project.write("jobs/pay.sql", PAY);
    const before = project.dump();
    const ended = project.json(["run", file, "--on", "shop-prod", "--key", "keys/dana"]);
    const plan = String(ended.result["plan"]);
    expect(ended).toMatchObject({
      exit: { code: 21 },
      target_changed: "no",
      error: { code: "ERR_APPROVAL_NEEDED" },
    });
    expect(JSON.stringify(ended.error)).toContain(`["holdpoint","approve","${plan}"]`);
    expect(project.dump()).toBe(before);
  });

  test("--wait goes on when the approval is there", async () => {
    const running = start("UPDATE orders SET note = 'waited for' WHERE id = 5", ["--wait", "10m"]);
    const plan = await nextPlan(project);
    project.approve(plan);
    expect(await running).toMatchObject({ status: 0 });
    expect(project.rows("SELECT note FROM orders WHERE id = 5")).toEqual([{ note: "waited for" }]);
    expect(project.json(["status", plan, "--for", "approved"])).toMatchObject({ ok: true });
  });

  test("--wait gives up with 21 when nobody came", () => {
    const file = project.write("jobs/soon.sql", "UPDATE orders SET note = 'soon' WHERE id = 6");
    const ended = project.json(["run", file, "--on", "shop-prod", "--key", "keys/dana", "--wait", "1s"]);
    expect(ended).toMatchObject({ exit: { code: 21 }, target_changed: "no" });
    expect(
      project.json(["status", String(ended.result["plan"]), "--wait", "1s", "--for", "approved"]),
    ).toMatchObject({
      exit: { code: 21 },
      error: { code: "ERR_APPROVAL_NEEDED" },
    });
  });

  test("a rejection ends the wait with 31", () => {
    const plan = project.plan("UPDATE orders SET note = 'no' WHERE id = 7");
    const rejected = project.json(["reject", plan, "--reason", "not now", "--key", "keys/ravi"]);
    expect(rejected).toMatchObject({ ok: true });
    expect(project.json(["status", plan, "--for", "approved", "--wait", "10m"])).toMatchObject({
      exit: { code: 31 },
      error: { code: "ERR_APPROVAL_REJECTED" },
    });
  });

  test("a plan file stands for its plan", () => {
    const plan = project.plan("UPDATE orders SET note = 'file' WHERE id = 8", ["--out", "carried.hpplan"]);
    expect(project.json(["status", "carried.hpplan"])).toMatchObject({ result: { plans: [{ plan }] } });
  });

  test("--wait and --for want one plan", () => {
    expect(project.json(["status", "--for", "approved"]).exit.code).toBe(2);
    expect(project.json(["status", "pl_", "--for", "approved"])).toMatchObject({
      error: { code: "ERR_PLAN_AMBIGUOUS" },
    });
  });

  test("show --against tells what entered and left", () => {
    const first = project.plan("UPDATE orders SET note = 'a' WHERE id IN (20, 21, 22)");
    const second = project.plan(
      "UPDATE orders SET note = CASE id WHEN 21 THEN 'b' ELSE 'a' END WHERE id IN (21, 22, 23)",
    );
    expect(project.json(["show", second, "--against", first])).toMatchObject({
      result: { against: first, entered: { total: 1 }, left: { total: 1 }, changed: { total: 1 }, same: 1 },
    });
    expect(project.json(["show", first, "--against", first])).toMatchObject({
      result: { entered: { total: 0 }, left: { total: 0 }, changed: { total: 0 }, same: 3 },
    });
  });

  test("JUnit: well-formed, no row of the target in it", () => {
    const plan = project.plan("UPDATE customers SET email = 'x@shop.example' WHERE id = 1");
    const { stdout } = project.run(["show", plan, "--format", "junit"]);
    expect(stdout).toMatch(/^<\?xml version="1.0" encoding="UTF-8"\?>\n<testsuites>/);
    expect(stdout).toMatch(/<testcase classname="holdpoint policy" name="second-person"><skipped /);
  });

  test("completion knows commands, flags, targets, jobs and plans", () => {
    const words = (...typed: string[]): string[] =>
      project
        .run(["completion", "words", "--", ...typed])
        .stdout.split("\n")
        .filter((w) => w !== "");
    expect(words("pl")).toEqual(["plan"]);
    expect(words("plan", "--on", "")).toEqual(["shop-prod"]);
    expect(words("plan", "he")).toEqual(["hello"]);
    expect(words("show", "--form")).toEqual(["--format"]);
    expect(words("show", "x", "--format", "j")).toEqual(["json", "junit"]);
    expect(words("approve", "").every((w) => w.startsWith("pl_"))).toBe(true);
    expect(words("log", "ver")).toEqual(["verify"]);
  });

  test.each(["bash", "zsh", "fish", "powershell"])("completion %s prints a script", (shell) => {
    expect(project.run(["completion", shell]).stdout).toContain("holdpoint completion words --");
  });
});

/** The plan that a running command makes: the first one that the ledger has more than now. */
async function nextPlan(project: TestProject): Promise<string> {
  const plans = (): string[] =>
    (project.json(["status"]).result["plans"] as unknown as { readonly plan: string }[]).map((p) => p.plan);
  const before = new Set(plans());
  for (;;) {
    const found = plans().find((p) => !before.has(p));
    if (found !== undefined) return found;
    await new Promise((resolve) => setImmediate(resolve));
  }
}
