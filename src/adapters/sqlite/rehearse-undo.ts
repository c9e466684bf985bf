/**
 * Rehearsing the way back on a private copy: the changes are written and taken back with the very code that a run and
 * its undo use, every row is compared with its image before, and the copy is thrown away.
 */
import { join } from "node:path";
import type { Random } from "../../base/clock.js";
import { HoldpointError } from "../../base/errors.js";
import type { ChangeSource } from "../../changeset/change.js";
import type { SqlStatement, UndoRehearsal, WriteProblem } from "../../target/target.js";
import { rowsOf, thereAndBack } from "../../target/there-and-back.js";
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
  told?: (problems: readonly WriteProblem[]) => void,
): Promise<UndoRehearsal> {
  const not = (why: string): UndoRehearsal => ({ rehearsed: "not", identical: 0, of: rowsOf(source), why });
  const scratch = makeScratch(setting.scratchDir, setting.random);
  try {
    const path = await copyDatabase(setting.reader, join(scratch.path, "undo"));
    const session = openWriteSession({ ...setting, path });
    try {
      return await thereAndBack(session, source, script, told);
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
