/** Facts that are kept in the target itself, outside a run, each with the ledger's head in one transaction. */
import { codeOf, HoldpointError } from "../../base/errors.js";
import { headOf, type SealedEntry } from "../../ledger/entry.js";
import type { Note } from "../../target/marker.js";
import type { Target } from "../../target/target.js";
import { targetConfigOf } from "../../config/config.js";
import type { Examined } from "../judging/examine.js";
import type { Toolbox } from "../toolbox.js";

/**
 * Writes notes and anchors the entry that tells of them; false where the target is not pinned or cannot be written
 * now (busy, read-only, the role that writes not in reach): then the ledger alone has them.
 */
export async function anchorNotes(
  tools: Pick<Toolbox, "openTarget" | "project">,
  examined: Examined,
  notes: readonly Note[],
  sealed: SealedEntry,
): Promise<boolean> {
  if (examined.marker === null) return false;
  try {
    const { name } = examined.target;
    if (targetConfigOf(tools.project.config, name).planUrl === null) {
      await writeNotes(examined.target, notes, sealed);
      return true;
    }
    const { target } = await tools.openTarget(name, "write");
    try {
      // Another place than the one that was looked at holds nothing for this target.
      if ((await target.identify()).marker?.identity !== examined.marker.identity) return false;
      await writeNotes(target, notes, sealed);
      return true;
    } finally {
      await target.close();
    }
  } catch (e) {
    if (e instanceof HoldpointError || codeOf(e)?.startsWith("SQLITE_") === true) return false;
    throw e;
  }
}

/** {@link anchorNotes} where the ledger alone is not enough. @throws what the target says. */
export async function writeNotes(
  target: Pick<Target, "openWriter">,
  notes: readonly Note[],
  sealed: SealedEntry,
): Promise<void> {
  const session = await target.openWriter();
  try {
    await session.begin();
    for (const note of notes) await session.addNote(note);
    await session.anchor(headOf(sealed));
    await session.commit();
  } catch (e) {
    await session.rollback();
    throw e;
  } finally {
    await session.close();
  }
}
