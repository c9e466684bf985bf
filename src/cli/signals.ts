/**
 * Ctrl-C and SIGTERM. Where nothing is being written, the first one ends the command with 130 or 143. While rows are
 * being written it is noted: the first means no new batch, the second rolls the batch under way back.
 */
import type { HoldpointError } from "../base/errors.js";
import { interruptedBy, type Interruption } from "../operations/writing/interruption.js";

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
): Interruption & { readonly end: () => void } {
  let writing = false;
  let over = false;
  let signal: Signal | null = null;
  let insisted = false;
  const listen = (name: Signal): void => {
    process.on(name, () => {
      if (over || writing) {
        insisted = signal !== null;
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
    insisted: () => insisted,
    end: () => {
      over = true;
    },
  };
}
