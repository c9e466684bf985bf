/**
 * Snapshots and rescue under faults: killed before every step and file operation, each of them failing, the disk full. The target
 * stays as it was, whatever the ledger calls a snapshot verifies, and the same command given again ends as if nothing had
 * been. A sample runs always; `HOLDPOINT_FAULTS` asks for more, as in `apply.test.ts`.
 */
import { existsSync, rmSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import type { Act, Fault, FaultReport } from "../support/fault-child.js";
import { chosen, restore, run, save } from "../support/faults.js";
import { bytesOf, dumpOf, makeProject, type TestProject } from "../support/project.js";

const numbers = (to: number): string =>
  `(WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < ${to}) SELECT v FROM n)`;
const ROWS = `
  CREATE TABLE item (id INTEGER PRIMARY KEY, state TEXT NOT NULL, body TEXT);
  CREATE TABLE tag (item INTEGER NOT NULL, tag TEXT NOT NULL);
  INSERT INTO item SELECT v, 'old', hex(randomblob(200)) FROM ${numbers(300)};
  INSERT INTO tag SELECT v, 't' || v % 3 FROM ${numbers(40)};
`;

interface Case {
  readonly act: Act;
  /** What must hold once the act has ended well. */
  readonly done: (project: TestProject, report: FaultReport) => void;
  /** What must hold at any time, after a fault too. */
  readonly always?: (project: TestProject) => void;
}

const take = (project: TestProject, ...tables: string[]): string => {
  const flags = tables.flatMap((t) => ["--table", t]);
  const taken = project.json(["snapshot", "take", "--on", "items", ...flags]);
  if (!taken.ok) throw new Error(JSON.stringify(taken.error));
  return String(taken.result["snapshot"]);
};

/** Whatever the ledger calls a snapshot is one; what it does not know is said to be unknown. */
function expectWhole({ snapshots }: FaultReport): void {
  for (const { id, why } of snapshots)
    if (why !== null) expect([id, why]).toEqual([id, expect.stringContaining("the ledger does not know it")]);
}

const taking =
  (...tables: string[]) =>
  (project: TestProject): Case => {
    take(project);
    project.raw("UPDATE item SET state = 'newer' WHERE id % 50 = 0");
    return {
      act: { kind: "take", on: "items", tables },
      done: (_, report) => {
        expect(report.snapshots).toContainEqual({ id: report.result, why: null });
      },
    };
  };

const restoring =
  (...tables: string[]) =>
  (project: TestProject): Case => {
    const snapshot = take(project, ...tables);
    const to = project.path("restored.db");
    const rows = project.rows("SELECT count(*) AS n FROM item");
    return {
      act: { kind: "restore", snapshot, to },
      done: (p) => {
        if (tables.length === 0) expect(dumpOf(to)).toBe(p.dump());
        else
          expect(
            dumpOf(to)
              .split("\n")
              .filter((l) => l.startsWith("item:")).length,
          ).toBe((rows as [{ n: number }])[0].n);
        rmSync(to);
      },
      // Half a file would be taken for the snapshot, and stand in the way of the next try.
      always: () => {
        if (existsSync(to)) expect(dumpOf(to)).toContain("integer:300");
        for (const side of ["", "-wal", "-shm", "-journal"]) rmSync(to + side, { force: true });
      },
    };
  };

const pruning = (project: TestProject): Case => {
  const first = take(project);
  project.raw("UPDATE item SET state = 'newer' WHERE id % 50 = 0");
  const second = take(project);
  return {
    act: { kind: "prune", snapshot: first },
    done: (p, report) => {
      expect(report.snapshots).toEqual([{ id: second, why: null }]);
      expect(existsSync(p.path(`.holdpoint/snapshots/${first}.hpsnap`))).toBe(false);
    },
  };
};

const rescuing = (project: TestProject): Case => {
  take(project);
  project.raw(
    "UPDATE item SET state = 'damaged' WHERE id <= 20; UPDATE item SET body = 'theirs' WHERE id = 5",
  );
  return {
    act: { kind: "rescue", on: "items", damage: "state = 'damaged'" },
    done: (p, report) => {
      expect(existsSync(p.path(`.holdpoint/plans/${report.result ?? ""}.hpplan`))).toBe(true);
      expect(report.snapshots).toHaveLength(1);
    },
  };
};

const KINDS = [
  ["killed before a step", "kill-step", "steps"],
  ["killed at a file operation", "kill-file", "touches"],
  ["a file operation fails", "fail-file", "touches"],
  ["the disk is full", "disk-full", "files"],
  ["killed at a statement", "kill-sql", "sql"],
  ["a statement fails", "fail-sql", "sql"],
] as const;
/** What works on files alone asks few statements: those are tried when more than a sample is asked for. */
const FILES = process.env["HOLDPOINT_FAULTS"] === undefined ? KINDS.slice(0, 4) : KINDS;

describe.each([
  ["taking a database", taking(), FILES],
  ["taking tables", taking("item", "tag"), KINDS],
  ["restoring a database", restoring(), FILES],
  ["restoring tables", restoring("item"), FILES],
  ["pruning", pruning, FILES],
  ["the making of a rescue", rescuing, KINDS],
])("%s", (_, begin, kinds) => {
  let project: TestProject;
  let of: Case;
  let before: Buffer;
  let counts: FaultReport["counted"];

  beforeAll(() => {
    project = makeProject({ schema: ROWS, target: "items", journal: "delete" });
    of = begin(project);
    before = bytesOf(project.database);
    save(project);
    const whole = run(project, of.act, { kind: "none", at: 0 });
    expect(whole).toMatchObject({ ok: true, ledgerIsWhole: true });
    counts = whole?.counted ?? { steps: 0, sql: 0, files: 0, touches: 0, commits: 0 };
    if (whole !== null) of.done(project, whole);
  });
  afterAll(() => project?.close());

  function survives(fault: Fault): void {
    restore(project);
    const broken = run(project, of.act, fault);
    const why = JSON.stringify({ fault, broken });
    try {
      if (broken === null) expect(fault.kind).toMatch(/^kill/);
      else {
        if (!broken.ok) expect(broken.targetChanged).toBe("no");
        // A disk that fails is no fault of ours, and is never told as one.
        expect(broken.code).not.toBe("ERR_INTERNAL");
        expect(bytesOf(project.database).equals(before)).toBe(true);
      }
      of.always?.(project);
      const healed = run(project, of.act, { kind: "none", at: 0 });
      if (of.act.kind === "prune" && healed?.code === "ERR_SNAPSHOT_UNKNOWN") {
        expect(healed.ledgerIsWhole).toBe(true); // it had gone through in spite of the fault
      } else expect(healed).toMatchObject({ ok: true, ledgerIsWhole: true });
      if (healed !== null) {
        expectWhole(healed);
        of.done(project, healed);
      }
      // A killed trial leaves a journal beside the file, and the next command rolls it back.
      expect(bytesOf(project.database).equals(before)).toBe(true);
    } catch (e) {
      throw new Error(`${why}: ${e instanceof Error ? e.message : String(e)}`, { cause: e });
    }
  }

  test.each(kinds)("%s", (_what, kind, counted) => {
    for (const at of chosen(counts[counted], 1)) survives({ kind, at });
  });
});
