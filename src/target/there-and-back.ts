/**
 * Rehearsing the way back with the very code that a run and its undo use: the changes are brought about and taken back in
 * one transaction, every row is compared with its image before, and nothing is kept. Where that happens (a private copy,
 * the target itself) is the adapter's.
 */
import { type ChangeSource, countOf } from "../changeset/change.js";
import { invertSource } from "../changeset/invert.js";
import { sameShape } from "../changeset/well-formed.js";
import type { BatchOutcome, SqlStatement, UndoRehearsal, WriteProblem, WriteSession } from "./target.js";

/**
 * Tries it in the session and rolls back. With a script the changes are brought about by running it, and the rows of tables
 * that are gone or have other columns then count as lost. Without one `told` hears what stood in the way of the changes.
 */
export async function thereAndBack(
  session: WriteSession,
  source: ChangeSource,
  script: readonly SqlStatement[],
  told?: (problems: readonly WriteProblem[]) => void,
): Promise<UndoRehearsal> {
  await session.begin({ script: script.length > 0 });
  try {
    if (script.length > 0) return await scriptAndBack(session, source, script);
    return await rowsAndBack(session, source, told);
  } finally {
    await session.rollback();
  }
}

/** How many rows a source's changes stand for. */
export function rowsOf(source: ChangeSource): number {
  let rows = 0;
  for (const { name } of source.tables) for (const c of source.changes(name)) rows += countOf(c);
  return rows;
}

async function rowsAndBack(
  session: WriteSession,
  source: ChangeSource,
  told: ((problems: readonly WriteProblem[]) => void) | undefined,
): Promise<UndoRehearsal> {
  const inverse = invertSource(source);
  const there = await session.write(source, []);
  told?.(there.problems);
  if (there.problems.length > 0) return stuck("the changes could not be written", there, rowsOf(source));
  const of = there.written + there.alreadyDone;
  const back = await session.write(inverse, []);
  if (back.problems.length > 0) return stuck("the changes could not be taken back", back, of);
  const wrong = await session.verify(inverse);
  const why = wrong[0] === undefined ? null : differs(wrong[0]);
  return { rehearsed: "all", identical: of - wrong.length, of, why };
}

async function scriptAndBack(
  session: WriteSession,
  source: ChangeSource,
  script: readonly SqlStatement[],
): Promise<UndoRehearsal> {
  const of = rowsOf(source);
  await session.runScript?.(script, { table: () => undefined, add: () => undefined });
  const { tables } = await session.schema();
  const kept = source.tables.filter((shape) => tables.some((t) => sameShape(t, shape)));
  const inverse = invertSource({ ...source, tables: kept });
  const back = await session.write(inverse, []);
  if (back.problems.length > 0) return stuck("the changes could not be taken back", back, of);
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
