/**
 * Rehearsing the way back: the changes are written and taken back with the very code that a run and its undo use, every row
 * is compared with its image before, and the transaction is rolled back. It holds the rows' locks meanwhile, so large
 * effects are left out.
 */
import { HoldpointError } from "../../base/errors.js";
import { type ChangeSource, countOf } from "../../changeset/change.js";
import { invertSource } from "../../changeset/invert.js";
import type {
  BatchOutcome,
  SqlStatement,
  UndoRehearsal,
  WriteProblem,
  WriteSession,
} from "../../target/target.js";
import type { Connecting } from "./driver.js";
import { openWriteSession } from "./write.js";

/** Rows beyond which the way back is not rehearsed: it would hold their locks too long. */
const MOST_ROWS = 20_000;

/** `Target.rehearseUndo`. Never throws for what it finds: a way back that fails is the answer. */
export async function rehearseUndo(
  connecting: Connecting,
  source: ChangeSource,
  script: readonly SqlStatement[],
): Promise<UndoRehearsal> {
  const of = rowsOf(source);
  const not = (why: string): UndoRehearsal => ({ rehearsed: "not", identical: 0, of, why });
  if (script.length > 0) return not("schema changes are not made on a PostgreSQL target");
  if (of > MOST_ROWS) return not(`more than ${MOST_ROWS} rows would be locked meanwhile`);
  try {
    const session = await openWriteSession(connecting);
    try {
      return await thereAndBack(session, source, of);
    } finally {
      await session.close();
    }
  } catch (e) {
    // What cannot be rehearsed is said on the plan; the plan itself is sound all the same.
    if (e instanceof HoldpointError) return not(e.message);
    throw e;
  }
}

async function thereAndBack(session: WriteSession, source: ChangeSource, of: number): Promise<UndoRehearsal> {
  const inverse = invertSource(source);
  await session.begin();
  try {
    const there = await session.write(source, []);
    if (there.problems.length > 0) return stuck("the changes could not be written", there, of);
    const back = await session.write(inverse, []);
    if (back.problems.length > 0) return stuck("the changes could not be taken back", back, of);
    const wrong = await session.verify(inverse);
    const why = wrong[0] === undefined ? null : `not as before: ${inWords(wrong[0])}`;
    return { rehearsed: "all", identical: of - wrong.length, of, why };
  } finally {
    await session.rollback();
  }
}

function stuck(what: string, outcome: BatchOutcome, of: number): UndoRehearsal {
  const [first] = outcome.problems;
  const why = first === undefined ? what : `${what}: ${inWords(first)}`;
  return { rehearsed: "not", identical: 0, of, why };
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
