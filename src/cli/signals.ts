/**
 * Ctrl-C and SIGTERM. Where nothing is being written, the first one ends the command with 130 or 143. While rows are
 * being written it is noted, and the writer rolls back at its next step; a commit that was reached is finished.
 */
import type { HoldpointError } from "../base/errors.js";
import { interruptedBy, type Interruption } from "../operations/interruption.js";

/** The signals that people and pipelines send. */
export type Signal = "SIGINT" | "SIGTERM";

/** What {@link guardSignals} needs of a process. */
export interface SignalProcess {
  readonly on: (signal: Signal, listener: () => void) => unknown;
  readonly exit: (code: number) => never;
}

/** Installs the handlers. `failed` words the ending and gives its exit code. */
export function guardSignals(
  process: SignalProcess,
  failed: (e: HoldpointError) => number,
): { readonly requested: Interruption; readonly end: () => void } {
  let writing = false;
  let over = false;
  let signal: Signal | null = null;
  const listen = (name: Signal): void => {
    process.on(name, () => {
      if (over || (writing && signal === null)) {
        signal ??= name;
        return;
      }
      process.exit(failed(interruptedBy(name)));
    });
  };
  listen("SIGINT");
  listen("SIGTERM");
  return {
    requested: () => {
      writing = true;
      return signal;
    },
    end: () => {
      over = true;
    },
  };
}
