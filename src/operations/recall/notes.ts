/** Facts that are kept in the target itself, outside a run, each with the ledger's head in one transaction. */
import { codeOf, HoldpointError } from "../../base/errors.js";
import { headOf, type SealedEntry } from "../../ledger/entry.js";
import type { Note } from "../../target/marker.js";
import type { Examined } from "../judging/examine.js";

/**
 * Writes notes and anchors the entry that tells of them; false where the target is not pinned or cannot be written
 * now (busy, read-only): then the ledger alone has them.
 */
export async function anchorNotes(
  examined: Examined,
  notes: readonly Note[],
  sealed: SealedEntry,
): Promise<boolean> {
  if (examined.marker === null) return false;
  try {
    await writeNotes(examined, notes, sealed);
    return true;
  } catch (e) {
    if (e instanceof HoldpointError || codeOf(e)?.startsWith("SQLITE_") === true) return false;
    throw e;
  }
}

/** {@link anchorNotes} where the ledger alone is not enough. @throws what the target says. */
export async function writeNotes(
  examined: Examined,
  notes: readonly Note[],
  sealed: SealedEntry,
): Promise<void> {
  const session = await examined.target.openWriter();
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
