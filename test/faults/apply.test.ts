/**
 * Whatever happens to a run, running `apply` again ends in the state of an unbroken run: killed before every step,
 * killed at instants in between, every statement failing, every answer lost, the disk full. Afterwards the ledger
 * verifies, the approval cannot be used again, and what a failed run said about the target was true.
 *
 * A sample runs always; `HOLDPOINT_FAULTS=all npm test -- test/faults` takes every one, `HOLDPOINT_FAULTS=50` so many of
 * each kind.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { makeProject, type TestProject } from "../support/project.js";
import type { Fault, FaultReport } from "../support/fault-child.js";

const CHILD = join(import.meta.dirname, "../support/fault-child.js");
const ASKED = process.env["HOLDPOINT_FAULTS"];

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
    if (run(project, plan, { kind: "kill-step", at }) !== null) throw new Error("it ended");
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

describe.each([
  ["apply in one transaction", planned([]), 5],
  ["apply in three waves", planned(["--waves", "3,12,100%"]), 7],
  ["a run that goes on", begun, 4],
  ["undo", undone, 4],
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
    const whole = run(project, plan, { kind: "none", at: 0 });
    expect(whole).toMatchObject({ ok: true, again: "ERR_APPROVAL_SPENT", ledgerIsWhole: true });
    counts = whole?.counted ?? { steps: 0, sql: 0, files: 0 };
    after = project.dump();
    expect(after).not.toBe(before);
  });
  afterAll(() => project?.close());

  /** From the saved state: one faulty run, then runs until one ends. */
  function survives(fault: Fault): void {
    restore(project);
    const broken = run(project, plan, fault);
    const between = project.dump();
    if (broken === null) expect(fault.kind).toMatch(/^kill/);
    else if (between !== before) expect([fault, broken.code, broken.targetChanged]).not.toContain("no");
    else if (broken.ok) expect(between).toBe(after);
    const healed = run(project, plan, { kind: "none", at: 0 });
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

/** Spread over all of 1..n; all of them when asked. The last ones matter most: there lie commits and records. */
function chosen(n: number, least: number): readonly number[] {
  const sample = Math.min(n, Number(ASKED ?? least));
  if (ASKED === "all") return Array.from({ length: n }, (_, i) => i + 1);
  const spread = Array.from(
    { length: sample },
    (_, i) => 1 + Math.floor((i * (n - 1)) / Math.max(1, sample - 1)),
  );
  return [...new Set(spread)];
}

/** Null when the process was killed. */
function run(project: TestProject, plan: string, fault: Fault): FaultReport | null {
  const done = spawnSync(
    process.execPath,
    ["--no-warnings", CHILD, project.dir, plan, JSON.stringify(fault)],
    {
      encoding: "utf8",
      timeout: 60_000,
    },
  );
  if (done.signal === "SIGKILL" && fault.kind.startsWith("kill")) return null;
  if (done.status !== 0) throw new Error(`${JSON.stringify(fault)}: ${done.stderr}`);
  return JSON.parse(done.stdout) as FaultReport;
}

function save(project: TestProject): void {
  copyFileSync(project.database, `${project.dir}/saved.db`);
  copy(`${project.dir}/.holdpoint`, `${project.dir}/saved-store`);
}

/** Into the same file: the target knows itself by its inode. */
function restore(project: TestProject): void {
  for (const side of ["-wal", "-shm", "-journal", "-holdpoint-run", "-holdpoint-run-journal"])
    rmSync(`${project.database}${side}`, { force: true });
  copyFileSync(`${project.dir}/saved.db`, project.database);
  copy(`${project.dir}/saved-store`, `${project.dir}/.holdpoint`);
}

function copy(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  const done = spawnSync("cp", ["-a", from, to]);
  if (done.status !== 0) throw new Error(String(done.stderr));
}
