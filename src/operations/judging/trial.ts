/** A trial of a merge: written where nothing is kept, looked at, and rolled back. */
import { codeOf } from "../../base/errors.js";
import type { Target, UndoRehearsal, WriteProblem, WriteSession } from "../../target/target.js";
import type { Toolbox, WorkingChanges } from "../toolbox.js";

/** More rows than this would hold the lock of a whole database for longer than a plan may. */
export const TRIAL_ROWS = 10_000;

/** Where merged rows are tried. Close it in `finally`. */
export interface Trial {
  /**
   * Constraints and foreign keys that these rows would break. Where the target is busy or cannot be written from here,
   * nothing is known and nothing is said: apply looks again before it commits.
   */
  readonly problemsOf: (changes: WorkingChanges) => Promise<readonly WriteProblem[]>;
  readonly close: () => Promise<void>;
}

/**
 * A place to try so many rows in, before anybody is asked to approve them: a run that meets what they break stops part way,
 * and goes no further however often it is resumed. Nothing is kept. In place, under the target's lock, for few rows and
 * where rows are locked one by one; else on a private copy.
 */
export async function openTrial(
  tools: Pick<Toolbox, "scratch" | "openCopy">,
  target: Pick<Target, "name" | "copyTo" | "openWriter">,
  rows: number,
): Promise<Trial> {
  // A target that is a file is locked as one; what has no copy of itself to offer is a server, which locks rows.
  if (rows <= TRIAL_ROWS || target.copyTo === undefined)
    return { problemsOf: (changes) => tried(target, changes), close: async () => undefined };
  const scratch = tools.scratch();
  try {
    const copy = await tools.openCopy(await target.copyTo(`${scratch.path}/trial`), target.name);
    const close = async (): Promise<void> => {
      await copy.close();
      scratch.remove();
    };
    return { problemsOf: (changes) => tried(copy, changes), close };
  } catch (e) {
    scratch.remove();
    throw e;
  }
}

/** What a trial of one set of changes found, and how the way back from them went where that was tried with it. */
export interface Tried {
  readonly problems: readonly WriteProblem[];
  readonly undo: UndoRehearsal | null;
}

/**
 * {@link problemsOf}, and where the changes are tried on a copy anyway, the way back on the same one: that begins by writing
 * them, with the same code and in the same state. What it says of them is the trial's answer.
 */
export async function triedBothWays(
  tools: Pick<Toolbox, "scratch" | "openCopy" | "progress">,
  target: Pick<Target, "name" | "copyTo" | "openWriter" | "rehearseUndo">,
  changes: WorkingChanges,
  rows: number,
): Promise<Tried> {
  const onCopy = rows > TRIAL_ROWS && target.copyTo !== undefined && changes.tables.length > 0;
  if (onCopy && target.rehearseUndo !== undefined) {
    let problems: readonly WriteProblem[] | null = null;
    const done = tools.progress.begin(`rehearsing the way back on a copy of ${target.name}`);
    try {
      const undo = await target.rehearseUndo(changes, [], (found) => (problems = found));
      // Null where it came to no trial at all: then nothing of it is known.
      if (problems !== null) return { problems, undo };
    } finally {
      done();
    }
  }
  return { problems: await problemsOf(tools, target, changes, rows), undo: null };
}

/** {@link openTrial} for one set of changes. */
export async function problemsOf(
  tools: Pick<Toolbox, "scratch" | "openCopy">,
  target: Pick<Target, "name" | "copyTo" | "openWriter">,
  changes: WorkingChanges,
  rows: number,
): Promise<readonly WriteProblem[]> {
  const trial = await openTrial(tools, target, rows);
  try {
    return await trial.problemsOf(changes);
  } finally {
    await trial.close();
  }
}

async function tried(
  target: Pick<Target, "openWriter">,
  changes: WorkingChanges,
): Promise<readonly WriteProblem[]> {
  if (changes.tables.length === 0) return [];
  const session = await begunUnlessPassing(target);
  if (session === null) return [];
  try {
    return (await session.write(changes, [])).problems;
  } catch (e) {
    // A role that plans may have no right to write; the role that has it comes with the run.
    if (codeOf(e) === "ERR_TARGET_PRIVILEGE") return [];
    throw e;
  } finally {
    await session.rollback();
    await session.close();
  }
}

/** Null where nobody may write now, which the run itself will be told; a trial that began and failed is no answer. */
async function begunUnlessPassing(target: Pick<Target, "openWriter">): Promise<WriteSession | null> {
  let session: WriteSession | null = null;
  try {
    session = await target.openWriter();
    await session.begin();
    return session;
  } catch (e) {
    await session?.close();
    const passing = [
      "ERR_TARGET_BUSY",
      "ERR_TARGET_UNREACHABLE",
      "ERR_TARGET_UNSUPPORTED",
      "ERR_TARGET_PRIVILEGE",
    ];
    if (passing.includes(codeOf(e) ?? "")) return null;
    throw e;
  }
}
