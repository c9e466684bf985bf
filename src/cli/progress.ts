/** Progress on stderr: redrawn on a terminal, one line per event elsewhere, never a word on stdout. */
import type { Options, Ora } from "ora";
import type { Clock } from "../base/clock.js";
import { stamp } from "../base/clock.js";
import { renderCheck } from "../render/apply.js";
import { paperOf } from "../render/layout.js";
import { barLine, logLine, type WaveState } from "../render/progress.js";
import { sanitise } from "../render/sanitise.js";
import type { Streams } from "./streams.js";

/** A log gets a line at least this often while a wave is under way; a screen reader this often. */
const LOG_EVERY_MS = 10_000;
const HEARTBEAT_MS = 30_000;

const CLEAR_LINE = "\r\u001b[2K";

/** What commands report through. */
export interface ProgressReporter {
  /** Something of unknown length begins; the returned function ends it, with words to keep when given. */
  readonly begin: (what: string) => (done?: string) => void;
  /** A check that passed. */
  readonly check: (what: string, took?: string) => void;
  /** How far the waves are; redraws, or writes a line when one is due. */
  readonly wave: (state: WaveState) => void;
  /** Leaves the screen as it should stay. Call it in `finally`. */
  readonly end: () => void;
}

/** The reporter for these streams; `quiet` (`--quiet`) keeps only what was asked for on stdout. */
export function createProgress(
  streams: Streams,
  clock: Clock,
  options: { readonly quiet?: boolean } = {},
): ProgressReporter {
  if (options.quiet === true) return SILENT;
  const redraws = streams.stderrIsTty && !streams.plainPrompts;
  return {
    begin: redraws ? spinner(streams) : lines(streams),
    check: checks(streams),
    ...waves(streams, clock, redraws),
  };
}

const SILENT: ProgressReporter = { begin: () => () => {}, check: () => {}, wave: () => {}, end: () => {} };

/**
 * ora, on a terminal only: elsewhere it would leave escape codes in a file. It is loaded when something begins; until
 * it is there the words stand on the line, and work that never yields to it shows just them.
 */
function spinner(streams: Streams): ProgressReporter["begin"] {
  return (what) => {
    const text = sanitise(what);
    streams.err(`  ${text}`);
    let spin: Ora | undefined;
    let ended = false;
    void import("ora").then(({ default: ora }) => {
      if (!ended) spin = ora(spinnerOptions(text, streams)).start();
    });
    return (done) => {
      ended = true;
      spin?.stop();
      streams.err(CLEAR_LINE);
      if (done !== undefined) streams.err(`  ${sanitise(done)}\n`);
    };
  };
}

function spinnerOptions(text: string, streams: Streams): Options {
  return {
    text,
    stream: streams.stdio.stderr,
    isEnabled: true,
    // Ctrl-C belongs to the run's own handler, and typed-ahead input to nobody.
    discardStdin: false,
    ...(streams.errColor === 0 ? { color: false } : {}),
    spinner: streams.form === "plain" ? "line" : "dots",
  };
}

function lines(streams: Streams): ProgressReporter["begin"] {
  return (what) => {
    streams.err(`  ${sanitise(what)} ...\n`);
    return (done) => {
      if (done !== undefined) streams.err(`  ${sanitise(done)}\n`);
    };
  };
}

function checks(streams: Streams): ProgressReporter["check"] {
  return (what, took) => {
    const words = took === undefined ? what : `${what} (${took})`;
    streams.err(renderCheck({ kind: "check", what: words, result: "ok" }, streams.errPalette, streams.width));
  };
}

function waves(streams: Streams, clock: Clock, redraws: boolean): Pick<ProgressReporter, "wave" | "end"> {
  const every = streams.form === "accessible" ? HEARTBEAT_MS : LOG_EVERY_MS;
  let drawn = false;
  let writtenAt = Number.NEGATIVE_INFINITY;
  let pause: string | null = null;
  const draw = (state: WaveState): void => {
    // One cell less than the terminal: a full line would wrap and could not be redrawn.
    const line = barLine(state, paperOf(streams.errPalette, streams.width - 1));
    streams.err(`${CLEAR_LINE}${line}${state.done ? "\n" : ""}`);
    drawn = !state.done;
  };
  const log = (state: WaveState): void => {
    const now = clock.now();
    const due = state.done || now.getTime() - writtenAt >= every || state.paused !== pause;
    if (!due) return;
    streams.err(`${logLine(state, stamp(now))}\n`);
    writtenAt = now.getTime();
    pause = state.paused;
  };
  return {
    wave: redraws ? draw : log,
    end: () => {
      if (drawn) streams.err("\n");
      drawn = false;
    },
  };
}
