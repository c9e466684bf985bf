/** A trial of a merge: written under the target's lock, looked at, and rolled back. */
import { codeOf } from "../../base/errors.js";
import type { Target, WriteProblem } from "../../target/target.js";
import type { WorkingChanges } from "../toolbox.js";

/** More rows than this would hold the lock for longer than a plan may; apply finds their problems before its commit. */
export const TRIAL_ROWS = 10_000;

/**
 * Constraints and foreign keys that the merged rows would break, found before anybody is asked to approve them.
 * Nothing is kept. Where the target is busy or cannot be written from here, nothing is known and nothing is said:
 * apply looks again before it commits.
 */
export async function problemsOf(
  target: Pick<Target, "openWriter">,
  changes: WorkingChanges,
  rows: number,
): Promise<readonly WriteProblem[]> {
  if (rows === 0 || rows > TRIAL_ROWS) return [];
  try {
    const session = await target.openWriter();
    try {
      await session.begin();
      return (await session.write(changes, [])).problems;
    } finally {
      await session.rollback();
      await session.close();
    }
  } catch (e) {
    const passing = ["ERR_TARGET_BUSY", "ERR_TARGET_UNREACHABLE", "ERR_TARGET_UNSUPPORTED"];
    if (passing.includes(codeOf(e) ?? "")) return [];
    throw e;
  }
}
