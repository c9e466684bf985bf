/** Ctrl-C and SIGTERM as operations see them. */
import { HoldpointError } from "../../base/errors.js";

/** The signals that people and pipelines send. */
export type Signal = "SIGINT" | "SIGTERM";

/** What came while rows are being written. */
export interface Interruption {
  /** Which signal came first, if any; asking says that rows are being written. */
  readonly requested: () => Signal | null;
  /** Whether a second one came: the batch under way is to be rolled back. */
  readonly insisted: () => boolean;
}

/** The refusal that a signal leads to before anything was committed. */
export function interruptedBy(signal: Signal): HoldpointError {
  return new HoldpointError({
    code: signal === "SIGINT" ? "ERR_INTERRUPTED" : "ERR_TERMINATED",
    message: signal === "SIGINT" ? "interrupted" : "terminated",
    why: `${signal} came before anything was committed`,
  });
}

/** Between two steps of a write: goes on, or ends it before the commit. */
export function stopIfInterrupted(interruption: Interruption): void {
  const signal = interruption.requested();
  if (signal !== null) throw interruptedBy(signal);
}

/** Within a batch after the first: only who asks twice ends it before its commit. */
export function stopIfInsisted(interruption: Interruption): void {
  const signal = interruption.requested();
  if (signal !== null && interruption.insisted()) throw interruptedBy(signal);
}
