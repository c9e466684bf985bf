/**
 * Whatever happens to a run, running `apply` again ends in the state of an unbroken run: killed before every step,
 * killed at instants in between, every statement failing, every answer lost, the disk full. Afterwards the ledger
 * verifies, the approval cannot be used again, and what a failed run said about the target was true.
 *
 * A sample runs always; `HOLDPOINT_FAULTS=all npm test -- test/faults` takes every one, `HOLDPOINT_FAULTS=50` so many of
 * each kind.
 */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import type { Fault, FaultReport } from "../support/fault-child.js";
import { chosen, restore, run, save } from "../support/faults.js";
import { makeProject, type TestProject } from "../support/project.js";

const ROWS = `
  CREATE TABLE item (id INTEGER PRIMARY KEY AUTOINCREMENT, state TEXT NOT NULL);
  CREATE TABLE trail (id INTEGER PRIMARY KEY, item INTEGER NOT NULL);
  CREATE TRIGGER watch AFTER UPDATE ON item BEGIN INSERT INTO trail (item) VALUES (new.id); END;
  INSERT INTO item (state) SELECT 'old'
    FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 30) SELECT value FROM n);
`;
const JOB =
  "DELETE FROM item WHERE id > 25; UPDATE item SET state = 'new' WHERE id <= 15; INSERT INTO item (state) VALUES ('born');";

/** Brings a project to the state from which every faulty run starts, and gives the plan that is run. */
type Begin = (project: TestProject) => string;

const planned =
  (flags: readonly string[]): Begin =>
  (project) => {
    const plan = project.plan(JOB, flags);
    project.approve(plan);
    return plan;
  };

/** Killed after its first wave: what is tried is going on with it. */
const begun: Begin = (project) => {
  const plan = planned(["--waves", "3,12,100%"])(project);
  const before = project.dump();
  for (let at = 20; project.dump() === before; at++) {
    if (run(project, { kind: "apply", plan }, { kind: "kill-step", at }) !== null)
      throw new Error("it ended");
  }
  return plan;
};

/** The undo of a whole run, planned and approved. */
const undone: Begin = (project) => {
  const done = project.json(["apply", planned(["--waves", "3,12,100%"])(project), "--confirm", "items"]);
  if (!done.ok) throw new Error(JSON.stringify(done.error));
  const back = project.json(["undo", String(done.result["run"]), "--key", "keys/dana"]);
  const plan = String(back.result["plan"]);
  project.approve(plan);
  return plan;
};

/** A script: it changes the schema, runs again at apply and is compared whole. */
const scripted: Begin = (project) => {
  const plan = project.plan(
    "CREATE TABLE born (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO born (name) SELECT state FROM item WHERE id < 4; ALTER TABLE item ADD COLUMN extra TEXT; UPDATE item SET extra = 'x' WHERE id < 9;",
    ["--mode", "script"],
  );
  project.approve(plan);
  return plan;
};

/** The plan of a rescue, in waves. */
const rescued: Begin = (project) => {
  if (!project.json(["snapshot", "take", "--on", "items"]).ok) throw new Error("no snapshot");
  project.raw(
    "UPDATE item SET state = 'damaged' WHERE id <= 20; UPDATE item SET state = 'theirs' WHERE id = 21",
  );
  const made = project.json(
    "rescue --on items --damage state='damaged' --key keys/dana --waves 3,12,100%".split(" "),
  );
  const plan = String(made.result["plan"]);
  project.approve(plan, "ravi", ["--reason", "taken back"]);
  return plan;
};

describe.each([
  ["apply in one transaction", planned([]), 5],
  ["apply in three waves", planned(["--waves", "3,12,100%"]), 7],
  ["a run that goes on", begun, 4],
  ["undo", undone, 4],
  ["a script", scripted, 2],
  ["the plan of a rescue", rescued, 2],
])("%s", (_, begin, sample) => {
  let project: TestProject;
  let plan: string;
  let before: string;
  let after: string;
  let counts: FaultReport["counted"];

  beforeAll(() => {
    project = makeProject({ schema: ROWS, target: "items", journal: "delete" });
    plan = begin(project);
    before = project.dump();
    save(project);
    const whole = run(project, { kind: "apply", plan }, { kind: "none", at: 0 });
    expect(whole).toMatchObject({ ok: true, again: "ERR_APPROVAL_SPENT", ledgerIsWhole: true });
    counts = whole?.counted ?? { steps: 0, sql: 0, files: 0, touches: 0, commits: 0 };
    after = project.dump();
    expect(after).not.toBe(before);
  });
  afterAll(() => project?.close());

  /** From the saved state: one faulty run, then runs until one ends. */
  function survives(fault: Fault): void {
    restore(project);
    const broken = run(project, { kind: "apply", plan }, fault);
    const between = project.dump();
    if (broken === null) expect(fault.kind).toMatch(/^kill/);
    else if (broken.code === "ERR_INTERNAL") throw new Error(JSON.stringify({ fault, broken }));
    else if (between !== before) expect([fault, broken.code, broken.targetChanged]).not.toContain("no");
    else if (broken.ok) expect(between).toBe(after);
    const healed = run(project, { kind: "apply", plan }, { kind: "none", at: 0 });
    const why = JSON.stringify({ fault, broken, healed });
    // A run that had ended in spite of the fault is not run again: its plan is spent.
    if (healed?.ok !== true && healed?.code !== "ERR_APPROVAL_SPENT") throw new Error(why);
    if (healed.again !== "ERR_APPROVAL_SPENT" || !healed.ledgerIsWhole) throw new Error(why);
    if (project.dump() !== after) throw new Error(`another end: ${why}`);
  }

  test.each([
    ["killed before a step", "kill-step", "steps"],
    ["killed at an instant", "kill-sql", "sql"],
    ["a statement fails", "fail-sql", "sql"],
    ["a statement's answer is lost", "lose-sql", "sql"],
    ["the disk is full", "disk-full", "files"],
  ] as const)("%s", (_what, kind, counted) => {
    for (const at of chosen(counts[counted], sample)) survives({ kind, at });
  });
});
