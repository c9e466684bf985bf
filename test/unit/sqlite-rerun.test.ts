/** A program that is rehearsed twice: what it does otherwise the second time is told, and only one effect is planned. */
import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { UsageError } from "../../src/base/errors.js";
import type { ProgramCopy, RunnableJob, Target } from "../../src/target/target.js";
import { refusal } from "../support/refusal.js";
import { rehearseAll, type Rehearsed } from "../support/rehearsing.js";
import { openTarget, runRaw } from "../support/sqlite.js";

let folder: string;
let path: string;
let target: Target;
let runs: ProgramCopy[];

beforeEach(async () => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "holdpoint-test-")));
  path = join(folder, "shop.db");
  runs = [];
  runRaw(
    path,
    `CREATE TABLE t (id INTEGER PRIMARY KEY, r, at TEXT, n);
     CREATE TABLE pairs (a TEXT, b, PRIMARY KEY (a)) WITHOUT ROWID;
     CREATE TABLE heap (v);
     INSERT INTO t VALUES (1, 0, 'x', 1), (2, 0, 'x', 1), (3, 0, 'x', 1);
     INSERT INTO pairs VALUES ('p', 1), ('q', 2); INSERT INTO heap VALUES (1), (1)`,
  );
  // The second run waits for the next second of this clock, which is never far.
  target = await openTarget(path, folder, { clock: { now: () => new Date("2026-11-22T12:00:00.995Z") } });
});
afterEach(async () => {
  await target.close();
  rmSync(folder, { recursive: true, force: true });
});

/** A program that does one thing the first time and another the second. */
function program(first: string, second: string): RunnableJob {
  return {
    kind: "program",
    run: async (copy) => {
      runs.push(copy);
      runRaw(copy.path, runs.length === 1 ? first : second);
    },
  };
}

async function twice(first: string, second = first): Promise<Rehearsed> {
  const found = await rehearseAll(target, program(first, second), { script: false, again: "always" });
  expect(runs.map((r) => r.quiet)).toEqual([false, true]);
  expect(readdirSync(join(folder, "scratch"))).toEqual([]);
  return found;
}

describe("a program that runs twice", () => {
  test("and does the same says nothing", async () => {
    const { rehearsal, effect } = await twice(
      "UPDATE t SET n = 2; DELETE FROM pairs; INSERT INTO heap VALUES (1)",
    );
    expect([rehearsal.volatile, rehearsal.notices, effect.changes.length]).toEqual([[], [], 6]);
  });

  test("the columns that differ are told by column, those of new rows too, and the first run is what is planned", async () => {
    const { rehearsal, effect } = await twice(
      "UPDATE t SET r = 5, n = 2; INSERT INTO t VALUES (4, 1, 'y', 1); UPDATE pairs SET b = 7 WHERE a = 'q'",
      "UPDATE t SET r = 6, n = 2; INSERT INTO t VALUES (4, 1, 'z', 1); UPDATE pairs SET b = 7.0 WHERE a = 'q'",
    );
    expect(rehearsal.volatile).toEqual([
      { table: "pairs", column: "b", rows: 1 },
      { table: "t", column: "r", rows: 3 },
      { table: "t", column: "at", rows: 1 },
    ]);
    expect(rehearsal.notices).toEqual([]);
    expect(effect.changes.flatMap((c) => (c.op === "insert" ? [c.after] : []))).toEqual([[4n, 1n, "y", 1n]]);
  });

  test("the time of day differs in its seconds", async () => {
    await target.close();
    target = await openTarget(path, folder, { clock: { now: () => new Date() } });
    const { rehearsal } = await twice("UPDATE t SET at = datetime('now') WHERE id = 1");
    expect(rehearsal.volatile).toEqual([{ table: "t", column: "at", rows: 1 }]);
  });

  test("rows that one run alone changes are counted by table: chosen, made, gone, and without a key", async () => {
    const { rehearsal } = await twice(
      "UPDATE t SET n = 9 WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO pairs VALUES ('k1', 1); INSERT INTO heap VALUES (2), (2)",
      "UPDATE t SET n = 9 WHERE id = 3; INSERT INTO pairs VALUES ('k2', 1); INSERT INTO heap VALUES (3)",
    );
    expect(rehearsal.volatile).toEqual([]);
    expect(rehearsal.notices).toEqual([
      "heap: which rows change differs from run to run, written as signed, 3 rows",
      "pairs: which rows change differs from run to run, written as signed, 2 rows",
      "t: which rows change differs from run to run, written as signed, 3 rows",
    ]);
  });

  test("another schema is told", async () => {
    const { rehearsal } = await twice("CREATE TABLE a (x)", "CREATE TABLE b (x)");
    expect(rehearsal.notices).toEqual(["the schema that the job leaves differs from run to run"]);
  });

  test("one that fails the second time, or leaves no database, still has its first effect", async () => {
    const state = join(folder, "sent");
    const once: RunnableJob = {
      kind: "program",
      run: async (copy) => {
        if (existsSync(state)) throw new UsageError({ code: "ERR_JOB_FAILED", message: "sent already" });
        writeFileSync(state, "");
        runRaw(copy.path, "UPDATE t SET n = 3 WHERE id = 1");
      },
    };
    const failed = "the job failed when it was run a second time: it does not do the same each time";
    const always = { script: false, again: "always" } as const;
    const first = await rehearseAll(target, once, always);
    expect([first.rehearsal.notices, first.effect.changes.length]).toEqual([[failed], 1]);
    const emptying: RunnableJob = {
      kind: "program",
      run: async (copy) => {
        if (copy.quiet === true) rmSync(copy.path);
        else runRaw(copy.path, "UPDATE t SET n = 3 WHERE id = 1");
      },
    };
    const second = await rehearseAll(target, emptying, always);
    expect([second.rehearsal.notices, second.effect.changes.length]).toEqual([[failed], 1]);
  });

  test("whatever else ends the second run ends the rehearsal", async () => {
    const stopped: RunnableJob = {
      kind: "program",
      run: async (copy) => {
        if (copy.quiet === true) throw new Error("stopped by hand");
      },
    };
    await expect(rehearseAll(target, stopped, { script: false, again: "always" })).rejects.toThrow(
      "stopped by hand",
    );
    expect(readdirSync(join(folder, "scratch"))).toEqual([]);
  });

  test("the second run is held to the same: the marker is not touched, nor the target", async () => {
    const always = { script: false, again: "always" } as const;
    const cheating: RunnableJob = {
      kind: "program",
      run: async (copy) => {
        runRaw(copy.path, copy.quiet === true ? "DELETE FROM t WHERE id = 1" : "DELETE FROM t WHERE id = 2");
        if (copy.quiet === true) runRaw(path, "DELETE FROM t WHERE id = 1");
      },
    };
    const e = await refusal(() => rehearseAll(target, cheating, always));
    expect([e.code, e.targetChanged]).toEqual(["ERR_JOB_FAILED", "unknown"]);
    const marking = program("DELETE FROM t", "CREATE TABLE holdpoint_marker (a)");
    expect((await refusal(() => rehearseAll(target, marking, always))).code).toBe("ERR_MARKER_TOUCHED");
  });
});

describe("how often it runs", () => {
  const SLOW = 61_000;

  test.each([
    ["never", 0, 1, ["run once: values that differ from run to run were not looked for"]],
    ["if-quick", 0, 2, []],
    [
      "if-quick",
      SLOW,
      1,
      ["run once, because it took 61 s: values that differ from run to run were not looked for"],
    ],
    ["always", SLOW, 2, []],
  ] as const)("%s, after a run of %i ms: %i times", async (again, took, times, notices) => {
    let now = Date.parse("2026-11-22T12:00:00.995Z");
    await target.close();
    target = await openTarget(path, folder, { clock: { now: () => new Date(now) } });
    const slow: RunnableJob = {
      kind: "program",
      run: async (copy) => {
        runs.push(copy);
        now += took;
      },
    };
    const { rehearsal } = await rehearseAll(target, slow, { script: false, again });
    expect([runs.length, rehearsal.notices]).toEqual([times, notices]);
  });
});
