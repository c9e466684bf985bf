/**
 * What only reads the target, under faults: snapshots, the drill, the making of an undo and of a rescue. Killed in every
 * state of their files, each statement and file operation failing, the disk full. The target stays as it was, whatever the
 * ledger calls a snapshot verifies, and the same command given again ends as if nothing had been. A sample runs always;
 * `HOLDPOINT_FAULTS` asks for more, as in `apply.test.ts`.
 */
import { existsSync, rmSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { diskState } from "../support/disk-state.js";
import type { Act, Fault, FaultReport } from "../support/fault.js";
import {
  anywhere,
  ASKED_FOR_MORE,
  chosen,
  chosenOf,
  each,
  PATIENCE_MS,
  restore,
  save,
  Sufferer,
} from "../support/faults.js";
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

/** A run that others wrote over in another column since. */
const undoing = (project: TestProject): Case => {
  const plan = project.plan("UPDATE item SET state = 'new' WHERE id <= 20; DELETE FROM tag WHERE item > 35");
  project.approve(plan);
  const done = project.json(["apply", plan, "--confirm", "items"]);
  if (!done.ok) throw new Error(JSON.stringify(done.error));
  project.raw("UPDATE item SET body = 'theirs' WHERE id = 5");
  return {
    act: { kind: "undo", run: String(done.result["run"]) },
    done: (p, report) => {
      expect(existsSync(p.path(`.holdpoint/plans/${report.result ?? ""}.hpplan`))).toBe(true);
    },
  };
};

const verifying =
  (...tables: string[]) =>
  (project: TestProject): Case => {
    const snapshot = take(project, ...tables);
    return {
      act: { kind: "verify", snapshot },
      done: (_, report) =>
        expect([report.result, report.snapshots]).toEqual([snapshot, [{ id: snapshot, why: null }]]),
    };
  };

const comparing =
  (...tables: string[]) =>
  (project: TestProject): Case => {
    const snapshot = take(project, ...tables);
    project.raw("UPDATE item SET state = 'newer' WHERE id % 50 = 0; DELETE FROM item WHERE id = 7");
    return {
      act: { kind: "diff", snapshot },
      done: (_, report) => expect(report.result).toBe("7"),
    };
  };

const drilling = (project: TestProject): Case => {
  take(project);
  return {
    act: { kind: "drill", on: "items" },
    // Nothing lost, nothing missing, as many brought back as were broken.
    done: (_, report) => expect(report.result).toBe("0,0,0"),
  };
};

const KINDS = [
  ["a file operation fails", "fail-file", "touches"],
  ["the disk is full", "disk-full", "files"],
  ["a statement fails", "fail-sql", "sql"],
  ["a statement's answer is lost", "lose-sql", "sql"],
] as const;
/** What is tried of each; all of it where more than a sample is asked for. */
const FILES = ["fail-file", "disk-full"];
const BOTH = ["fail-file", "fail-sql"];

describe.each([
  ["taking a database", taking(), FILES],
  ["taking tables", taking("item", "tag"), BOTH],
  ["verifying a database", verifying(), FILES],
  ["verifying tables", verifying("item"), FILES],
  ["comparing with a database", comparing(), BOTH],
  ["comparing with tables", comparing("item"), BOTH],
  ["restoring a database", restoring(), FILES],
  ["restoring tables", restoring("item"), FILES],
  ["pruning", pruning, FILES],
  ["the drill", drilling, [...BOTH, "disk-full"]],
  ["the making of an undo", undoing, BOTH],
  ["the making of a rescue", rescuing, [...BOTH, "disk-full"]],
])("%s", (_, begin, sampled) => {
  let project: TestProject;
  let sufferer: Sufferer;
  let of: Case;
  let before: Buffer;
  let stateBefore: string;
  let whole: FaultReport;

  beforeAll(async () => {
    project = makeProject({ schema: ROWS, target: "items", journal: "delete" });
    sufferer = new Sufferer(project);
    of = begin(project);
    before = bytesOf(project.database);
    stateBefore = diskState(project.dir);
    save(project);
    whole = await sufferer.unbroken(of.act);
    expect(whole).toMatchObject({ ok: true, ledgerIsWhole: true });
    of.done(project, whole);
  });
  afterAll(async () => {
    await sufferer?.close();
    project?.close();
  });

  async function survives(fault: Fault): Promise<void> {
    restore(project);
    const broken = await sufferer.run(of.act, fault);
    const why = JSON.stringify({ fault, broken });
    try {
      if (broken === null) expect(fault.kind).toMatch(/^kill/);
      else {
        if (!broken.ok) expect([broken.targetChanged, broken.exit < 40]).toEqual(["no", true]);
        // A disk that fails is no fault of ours, and is never told as one.
        expect(broken.code).not.toBe("ERR_INTERNAL");
        expect(bytesOf(project.database).equals(before)).toBe(true);
      }
      of.always?.(project);
      // Where not a byte was written, running again is the unbroken run.
      if (diskState(project.dir) === stateBefore) return;
      const healed = await sufferer.run(of.act, { kind: "none", at: 0 });
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

  test(
    "killed in a state of its files, and anywhere",
    async () => {
      await each(chosenOf(whole.instants, 1), survives);
      await each(anywhere(whole.tookMs, 0), (at) => survives({ kind: "kill-time", at }));
    },
    PATIENCE_MS,
  );

  for (const [what, kind, counted] of KINDS) {
    if (!ASKED_FOR_MORE && !sampled.includes(kind)) continue;
    test(what, () => each(chosen(whole.counted[counted], 1), (at) => survives({ kind, at })), PATIENCE_MS);
  }
});
