/** A hold as the target's notes tell it. Which plans it stops, and which may go on. */
import { type HoldpointError, RefusedError } from "../../base/errors.js";
import type { Note } from "../../target/marker.js";

/** A hold that has not been released. */
export interface Hold {
  readonly by: string;
  readonly at: string;
  readonly reason: string;
  /** Digests of the plans that may go on. */
  readonly exempted: readonly string[];
}

/** The hold that counts now: the last one that no later release ended; null when nothing is held. */
export function holdIn(notes: readonly Note[]): Hold | null {
  const last = notes.findLastIndex((n) => n.kind === "held" || n.kind === "released");
  const held = notes[last];
  if (held?.kind !== "held") return null;
  const exempted = notes.slice(last).flatMap((n) => (n.kind === "exempted" ? [n.subject] : []));
  return { by: held.by, at: held.at, reason: held.reason, exempted };
}

/** The hold that stops this plan; null when it may go on. */
export function heldBy(notes: readonly Note[], planDigest: string): Hold | null {
  const hold = holdIn(notes);
  return hold === null || hold.exempted.includes(planDigest) ? null : hold;
}

/** @throws RefusedError ERR_TARGET_HELD (38) */
export function refuseHeld(target: string, hold: Hold): never {
  const error: HoldpointError = new RefusedError({
    code: "ERR_TARGET_HELD",
    message: `${target} is held by ${hold.by}`,
    why: `since ${hold.at}: ${hold.reason}`,
    next: [
      { actor: "anyone", argv: ["holdpoint", "env", "check", target] },
      { actor: "anyone", text: `Ask ${hold.by}. The approval is unused.` },
    ],
  });
  throw error;
}
