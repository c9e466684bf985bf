/** The laws of capture and replay, against real SQLite files with everything in them that is known to hurt. */
import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "@jest/globals";
import Database from "better-sqlite3";
import fc from "../support/fast-check.js";
import { HoldpointError } from "../../src/base/errors.js";
import type { Change, ChangeSet } from "../../src/changeset/change.js";
import { invert } from "../../src/changeset/invert.js";
import type { RunnableJob } from "../../src/target/target.js";
import { caseArbitrary, pasteable, type SqliteCase } from "../support/sqlite-arbitrary.js";
import { applyAll, rehearseAll, sqlJob } from "../support/rehearsing.js";
import { dump, fileDigests, openTarget, runRaw } from "../support/sqlite.js";
import { inFolder } from "../support/temporary.js";

const RUNS = Number(process.env["LAW_RUNS"] ?? 300);

/** Makes the database; statements that cannot be run are left out of it. */
function build(path: string, c: SqliteCase): void {
  const db = new Database(path);
  db.pragma("synchronous = OFF");
  if (c.wal) db.pragma("journal_mode = WAL");
  // An undo must not have to put back a reference that was broken from the start.
  db.pragma(`foreign_keys = ${c.foreignKeys ? "ON" : "OFF"}`);
  for (const sql of c.setup) attempt(() => db.exec(sql));
  db.close();
}

function attempt(work: () => void): boolean {
  try {
    work();
    return true;
  } catch {
    return false;
  }
}

/** Runs the job as its author would, in one transaction; false when the engine refuses it. */
function runJob(path: string, c: SqliteCase): boolean {
  return attempt(() => runRaw(path, ["BEGIN", ...c.job, "COMMIT"].join(";\n"), c.foreignKeys));
}

async function checkCase(folder: string, c: SqliteCase): Promise<void> {
  const [path, raw] = [join(folder, "a.db"), join(folder, "raw.db")];
  build(path, c);
  copyFileSync(path, raw);
  const before = { bytes: fileDigests(path), dump: dump(path), rows: dump(path, false) };
  const runs = runJob(raw, c);
  const target = await openTarget(path, folder, { foreignKeys: c.foreignKeys });
  try {
    const refused = await rehearseAll(target, sqlJob(...c.job)).catch((e: unknown) => e);
    await target.close();
    // Planning leaves the file equal to the byte, whether the job works or not.
    expect(fileDigests(path)).toEqual(before.bytes);
    if (refused instanceof HoldpointError) {
      expect({ runs, code: refused.code, message: refused.message }).toEqual({
        runs: false,
        code: refused.code,
        message: refused.message,
      });
      return;
    }
    if (refused instanceof Error || refused === null || typeof refused !== "object") throw refused;
    expect(runs).toBe(true);
    await checkCopies(folder, c, path, (refused as Awaited<ReturnType<typeof rehearseAll>>).effect);
    // A target opened for reading alone may leave an empty log beside a file in WAL mode; the file is as it was.
    expect(fileDigests(path)[""]).toBe(before.bytes[""]);
    await checkEffect(folder, c, path, raw, refused as Awaited<ReturnType<typeof rehearseAll>>, before.rows);
  } finally {
    await target.close();
  }
}

/** On a copy the same is found: by triggers there too, and by comparing copies where a program did the work. */
async function checkCopies(folder: string, c: SqliteCase, path: string, effect: ChangeSet): Promise<void> {
  const target = await openTarget(path, folder, { foreignKeys: c.foreignKeys, readonly: true });
  try {
    const { effect: onCopy, rehearsal } = await rehearseAll(target, sqlJob(...c.job));
    expect(rehearsal.where).toBe("copy");
    expect(onCopy).toEqual(effect);
    const program: RunnableJob = { kind: "program", run: async (copy) => void runJob(copy.path, c) };
    const { effect: compared } = await rehearseAll(target, program);
    expect(compared.changes.map(withoutStory)).toEqual(effect.changes.map(withoutStory));
  } finally {
    await target.close();
  }
}

/** What a comparison cannot know: where a row came from, and which entity it was. */
function withoutStory({ link: _link, origin: _origin, ...change }: Change): unknown {
  return change;
}

async function checkEffect(
  folder: string,
  c: SqliteCase,
  path: string,
  raw: string,
  { effect, rehearsal }: Awaited<ReturnType<typeof rehearseAll>>,
  before: string,
): Promise<void> {
  const target = await openTarget(path, folder, { foreignKeys: c.foreignKeys });
  try {
    const applied = await applyAll(target, effect, rehearsal.sequences);
    expect([applied.problems, applied.wrong]).toEqual([[], []]);
    expect(dump(path)).toBe(dump(raw));
    const again = await applyAll(target, effect, rehearsal.sequences);
    if (effect.tables.every((t) => t.keyKind === "primary")) expect(again.written).toBe(0);
    else if (again.problems.length === 0) return;
    const undone = await applyAll(target, invert(effect));
    expect([undone.problems, undone.wrong]).toEqual([[], []]);
    expect(dump(path, false)).toBe(before);
  } finally {
    await target.close();
  }
}

describe("laws of the SQLite adapter", () => {
  test("rehearsing leaves the file equal, applying equals the job, applying the inverse restores", async () => {
    let number = 0;
    await inFolder(async (root) => {
      await fc.assert(
        fc.asyncProperty(caseArbitrary, async (c) => {
          number++;
          const folder = join(root, String(number));
          mkdirSync(folder);
          try {
            await checkCase(folder, c);
          } catch (e) {
            throw new Error(
              `${e instanceof Error ? e.message : String(e)}\n--- paste into sqlite3 ---\n${pasteable(c)}`,
              { cause: e },
            );
          } finally {
            rmSync(folder, { recursive: true, force: true });
          }
        }),
        {
          numRuns: RUNS,
          interruptAfterTimeLimit: 100_000,
          ...(process.env["SEED"] ? { seed: Number(process.env["SEED"]) } : {}),
        },
      );
    });
  });
});
