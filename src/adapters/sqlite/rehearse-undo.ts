/**
 * Rehearsing the way back on a private copy: the changes are written and taken back with the very code that a run and
 * its undo use, every row is compared with its image before, and the copy is thrown away.
 */
import { join } from "node:path";
import type { Random } from "../../base/clock.js";
import { HoldpointError } from "../../base/errors.js";
import { type ChangeSource, countOf } from "../../changeset/change.js";
import { invertSource } from "../../changeset/invert.js";
import { sameShape } from "../../changeset/well-formed.js";
import type {
  BatchOutcome,
  SqlStatement,
  UndoRehearsal,
  WriteProblem,
  WriteSession,
} from "../../target/target.js";
import { copyDatabase, makeScratch } from "./copy.js";
import type { Connection, Driver } from "./driver.js";
import { openWriteSession } from "./write.js";

/** What the rehearsal of an undo works with. */
export interface UndoSetting {
  readonly driver: Driver;
  /** A read-only connection to the target. */
  readonly reader: Connection;
  readonly foreignKeys: boolean;
  readonly busyMs: number;
  readonly random: Random;
  readonly scratchDir: string;
}

/**
 * `Target.rehearseUndo`. Never throws for what it finds: a way back that fails is the answer. With a script the changes
 * are brought about by running it, and the rows of tables that are gone or have other columns then count as lost.
 */
export async function rehearseUndo(
  setting: UndoSetting,
  source: ChangeSource,
  script: readonly SqlStatement[],
): Promise<UndoRehearsal> {
  const not = (why: string): UndoRehearsal => ({ rehearsed: "not", identical: 0, of: rowsOf(source), why });
  const scratch = makeScratch(setting.scratchDir, setting.random);
  try {
    const path = await copyDatabase(setting.reader, join(scratch.path, "undo"));
    const session = openWriteSession({ ...setting, path });
    try {
      if (script.length === 0) return await thereAndBack(session, source);
      return await scriptAndBack(session, source, script, rowsOf(source));
    } finally {
      await session.close();
    }
  } catch (e) {
    // What cannot be rehearsed is said on the plan; the plan itself is sound all the same.
    if (e instanceof HoldpointError) return not(e.message);
    throw e;
  } finally {
    scratch.remove();
  }
}

async function thereAndBack(session: WriteSession, source: ChangeSource): Promise<UndoRehearsal> {
  const inverse = invertSource(source);
  await session.begin();
  try {
    const there = await session.write(source, []);
    if (there.problems.length > 0)
      return stuck("the changes could not be written to a copy", there, rowsOf(source));
    const of = there.written + there.alreadyDone;
    const back = await session.write(inverse, []);
    if (back.problems.length > 0) return stuck("the changes could not be taken back on a copy", back, of);
    const wrong = await session.verify(inverse);
    const identical = of - wrong.length;
    return { rehearsed: "all", identical, of, why: wrong[0] === undefined ? null : differs(wrong[0]) };
  } finally {
    await session.rollback();
  }
}

async function scriptAndBack(
  session: WriteSession,
  source: ChangeSource,
  script: readonly SqlStatement[],
  of: number,
): Promise<UndoRehearsal> {
  await session.begin({ script: true });
  try {
    await session.runScript?.(script, { table: () => undefined, add: () => undefined });
    const { tables } = await session.schema();
    const kept = source.tables.filter((shape) => tables.some((t) => sameShape(t, shape)));
    const inverse = invertSource({ ...source, tables: kept });
    const back = await session.write(inverse, []);
    if (back.problems.length > 0) return stuck("the changes could not be taken back on a copy", back, of);
    const wrong = await session.verify(inverse);
    const lost = source.tables.filter((shape) => !kept.includes(shape)).map((t) => t.name);
    const identical = rowsOf({ ...source, tables: kept }) - wrong.length;
    const why =
      lost.length > 0
        ? `rows of ${lost.join(", ")} have no place to come back to`
        : wrong[0] === undefined
          ? null
          : differs(wrong[0]);
    return { rehearsed: "all", identical, of, why };
  } finally {
    await session.rollback();
  }
}

function stuck(what: string, outcome: BatchOutcome, of: number): UndoRehearsal {
  const [first] = outcome.problems;
  const why = first === undefined ? what : `${what}: ${inWords(first)}`;
  return { rehearsed: "not", identical: 0, of, why };
}

function differs(problem: WriteProblem): string {
  return `not as before: ${inWords(problem)}`;
}

/** Without row values: this stands in the plan's statement. */
function inWords(problem: WriteProblem): string {
  switch (problem.kind) {
    case "drift":
      return `a row of ${problem.change.table} is not as it was`;
    case "constraint":
      return `a row of ${problem.change.table} breaks a constraint`;
    case "foreign-key":
      return `a reference of ${problem.table} is broken`;
  }
}

function rowsOf(source: ChangeSource): number {
  let rows = 0;
  for (const { name } of source.tables) for (const c of source.changes(name)) rows += countOf(c);
  return rows;
}
