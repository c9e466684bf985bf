/** Long output on a terminal goes through a pager; anywhere else, and where it fits, it is printed. */
import type { Streams } from "./streams.js";

/** A pager that was started: `machine/pager.ts`. */
export interface Pager {
  /** False when its reader has left. */
  readonly write: (text: string) => Promise<boolean>;
  readonly end: () => Promise<void>;
}

/** Takes the parts of one long output. */
export interface Paged {
  /** False when nobody reads on: the rest need not be made. */
  readonly write: (text: string) => Promise<boolean>;
  readonly end: () => Promise<void>;
}

/** How a pager is started; null when there is none. */
export type StartPager = () => Promise<Pager | null>;

/** Lines that are left free, for the prompt that follows what is printed. */
const SPARE_LINES = 2;

/**
 * Output that is printed as long as it fits the screen, and handed to a pager from where it no longer does.
 * `start` is null where no pager may be used: not at a terminal, in CI, for screen readers, under `--json`.
 */
export function openPaged(streams: Streams, start: StartPager | null): Paged {
  const room = (streams.stdio.stdout.rows ?? 24) - SPARE_LINES;
  let held = "";
  let pager: Pager | null = null;
  let straight = start === null;
  const print = (text: string): boolean => {
    streams.out(text);
    return !streams.outClosed();
  };
  return {
    write: async (text) => {
      if (straight) return print(text);
      if (pager !== null) return pager.write(text);
      held += text;
      if (held.split("\n").length <= room) return true;
      pager = (await start?.()) ?? null;
      straight = pager === null;
      const all = held;
      held = "";
      return pager === null ? print(all) : pager.write(all);
    },
    end: async () => {
      if (held !== "") print(held);
      await pager?.end();
    },
  };
}
