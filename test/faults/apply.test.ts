/**
 * Whatever happens to a run, running `apply` again ends in the state of an unbroken run: killed in every state that its
 * files are ever in, killed at instants anywhere, every statement and file operation failing, every answer lost, the
 * disk full. Afterwards the ledger verifies, the approval cannot be used again, and what a failed run said about the target
 * was true, by its exit code and in `status`.
 *
 * A sample runs always; `HOLDPOINT_FAULTS=all npm test -- test/faults` takes every one, `HOLDPOINT_FAULTS=50` so many of
 * each kind.
 */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { diskState } from "../support/disk-state.js";
import type { Fault, FaultReport } from "../support/fault.js";
import { anywhere, chosen, chosenOf, each, PATIENCE_MS, restore, save, Sufferer } from "../support/faults.js";
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
const WAVES = ["--waves", "3,12,100%"];

/** Brings a project to the state from which every faulty run starts, and gives the plan that is run. */
type Begin = (project: TestProject, sufferer: Sufferer) => Promise<string>;

const planned =
  (flags: readonly string[]): Begin =>
  async (project) => {
    const plan = project.plan(JOB, flags);
    project.approve(plan);
    return plan;
  };

/** Killed after its first wave: what is tried is going on with it. */
const begun: Begin = async (project, sufferer) => {
  const plan = await planned(WAVES)(project, sufferer);
  const before = project.dump();
  for (let at = 20; project.dump() === before; at++) {
    if ((await sufferer.run({ kind: "apply", plan }, { kind: "kill-step", at })) !== null)
      throw new Error("it ended");
  }
  return plan;
};

/** The undo of a whole run, planned and approved. */
const undone: Begin = async (project, sufferer) => {
  const done = project.json(["apply", await planned(WAVES)(project, sufferer), "--confirm", "items"]);
  if (!done.ok) throw new Error(JSON.stringify(done.error));
  const back = project.json(["undo", String(done.result["run"]), "--key", "keys/dana"]);
  const plan = String(back.result["plan"]);
  project.approve(plan);
  return plan;
};

/** A script: it changes the schema, runs again at apply and is compared whole. */
const scripted: Begin = async (project) => {
  const plan = project.plan(
    "CREATE TABLE born (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO born (name) SELECT state FROM item WHERE id < 4; ALTER TABLE item ADD COLUMN extra TEXT; UPDATE item SET extra = 'x' WHERE id < 9;",
    ["--mode", "script"],
  );
  project.approve(plan);
  return plan;
};

/** The plan of a rescue, in waves. */
const rescued: Begin = async (project) => {
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
  ["apply in three waves", planned(WAVES), 7],
  ["a run that goes on", begun, 4],
  ["undo", undone, 4],
  ["a script", scripted, 2],
  ["the plan of a rescue", rescued, 2],
])("%s", (_, begin, sample) => {
  let project: TestProject;
  let sufferer: Sufferer;
  let plan: string;
  let before: string;
  let stateBefore: string;
  let after: string;
  let whole: FaultReport;

  beforeAll(async () => {
    project = makeProject({ schema: ROWS, target: "items", journal: "delete" });
    sufferer = new Sufferer(project);
    plan = await begin(project, sufferer);
    before = project.dump();
    stateBefore = diskState(project.dir);
    save(project);
    whole = await sufferer.unbroken({ kind: "apply", plan });
    expect(whole).toMatchObject({ ok: true, again: "ERR_APPROVAL_SPENT", ledgerIsWhole: true });
    after = project.dump();
    expect(after).not.toBe(before);
  });
  afterAll(async () => {
    await sufferer?.close();
    project?.close();
  });

  /** From the saved state: one faulty run, then one that ends. */
  async function survives(fault: Fault): Promise<void> {
    restore(project);
    const broken = await sufferer.run({ kind: "apply", plan }, fault);
    const between = project.dump();
    const facts = JSON.stringify({ fault, broken });
    try {
      if (broken !== null) expectToldTrue(broken, between);
      else expect(fault.kind).toMatch(/^kill/);
      // Where not a byte was written, running again is the unbroken run.
      if (diskState(project.dir) === stateBefore) return;
      const healed = await sufferer.run({ kind: "apply", plan }, { kind: "none", at: 0 });
      // A run that had ended in spite of the fault is not run again: its plan is spent.
      if (healed?.ok !== true) expect(healed).toMatchObject({ code: "ERR_APPROVAL_SPENT" });
      expect(healed).toMatchObject({ again: "ERR_APPROVAL_SPENT", ledgerIsWhole: true });
      // Half done is never told as done, and never as nothing.
      if (between !== before && between !== after)
        expect(healed?.statusBefore).toMatch(/^(started|stopped)$/);
      else if (between !== before) expect(healed?.statusBefore).toMatch(/^(started|stopped|done)$/);
      expect(project.dump()).toBe(after);
    } catch (e) {
      throw new Error(`${facts}: ${e instanceof Error ? e.message : String(e)}`, { cause: e });
    }
  }

  function expectToldTrue(broken: FaultReport, between: string): void {
    expect(broken.code).not.toBe("ERR_INTERNAL");
    if (broken.ok) expect(between).toBe(after);
    else if (between !== before) {
      expect(broken.targetChanged).not.toBe("no");
      expect(broken.exit).toBeGreaterThanOrEqual(40);
    }
  }

  test(
    "killed in every state of its files",
    () => each(chosenOf(whole.instants, sample), survives),
    PATIENCE_MS,
  );

  test(
    "killed at instants anywhere",
    () => each(anywhere(whole.tookMs, 1), (at) => survives({ kind: "kill-time", at })),
    PATIENCE_MS,
  );

  test.each([
    ["a statement fails", "fail-sql", "sql"],
    ["a statement's answer is lost", "lose-sql", "sql"],
    ["a file operation fails", "fail-file", "touches"],
    ["the disk is full", "disk-full", "files"],
  ] as const)(
    "%s",
    (_what, kind, counted) => each(chosen(whole.counted[counted], sample), (at) => survives({ kind, at })),
    PATIENCE_MS,
  );
});
