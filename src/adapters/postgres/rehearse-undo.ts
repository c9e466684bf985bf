/**
 * Rehearsing the way back: the changes are written and taken back with the very code that a run and its undo use, every row
 * is compared with its image before, and the transaction is rolled back. It holds the rows' locks meanwhile, so large
 * effects are left out.
 */
import type { Random } from "../../base/clock.js";
import { HoldpointError } from "../../base/errors.js";
import type { ChangeSource } from "../../changeset/change.js";
import type { SqlStatement, UndoRehearsal, WriteProblem } from "../../target/target.js";
import { rowsOf, thereAndBack } from "../../target/there-and-back.js";
import type { Connecting } from "./driver.js";
import type { RehearsalLimits } from "./limits.js";
import { openWriteSession } from "./write.js";

/** Rows beyond which the way back is not rehearsed: it would hold their locks too long. */
const MOST_ROWS = 20_000;

/** `Target.rehearseUndo`. Never throws for what it finds: a way back that fails is the answer. */
export async function rehearseUndo(
  connecting: Connecting,
  random: Random,
  limits: RehearsalLimits,
  source: ChangeSource,
  script: readonly SqlStatement[],
  told?: (problems: readonly WriteProblem[]) => void,
): Promise<UndoRehearsal> {
  const of = rowsOf(source);
  const not = (why: string): UndoRehearsal => ({ rehearsed: "not", identical: 0, of, why });
  if (of > MOST_ROWS) return not(`more than ${MOST_ROWS} rows would be locked meanwhile`);
  try {
    const session = await openWriteSession(connecting, random, limits);
    try {
      return await thereAndBack(session, source, script, told);
    } finally {
      await session.close();
    }
  } catch (e) {
    // What cannot be rehearsed is said on the plan; the plan itself is sound all the same.
    if (e instanceof HoldpointError) return not(e.message);
    throw e;
  }
}
