/** Ctrl-C and SIGTERM as operations see them. */
import { HoldpointError } from "../base/errors.js";

/** Which signal came, if any; asking says that rows are being written. */
export type Interruption = () => "SIGINT" | "SIGTERM" | null;

/** The refusal that a signal leads to before anything was committed. */
export function interruptedBy(signal: "SIGINT" | "SIGTERM"): HoldpointError {
  return new HoldpointError({
    code: signal === "SIGINT" ? "ERR_INTERRUPTED" : "ERR_TERMINATED",
    message: signal === "SIGINT" ? "interrupted" : "terminated",
    why: `${signal} came before anything was committed`,
  });
}

/** Between two steps of a write: goes on, or ends it before the commit. */
export function stopIfInterrupted(requested: Interruption): void {
  const signal = requested();
  if (signal !== null) throw interruptedBy(signal);
}
