/**
 * `--events FILE` or `-`: what happens, one JSON object a line, for programs that follow a run. The first is `hello`
 * with the schema's version, the last is `result` with the document that `--json` prints (`docs/json-output.md`,
 * `holdpoint schema events`).
 */
import { appendFileSync } from "node:fs";
import { type Clock, stamp } from "../base/clock.js";
import { codeOf, messageOf, UsageError } from "../base/errors.js";
import type { Envelope } from "./envelope.js";
import type { ProgressReporter } from "./progress.js";
import type { Streams } from "./streams.js";

/** Takes events. */
export interface Events {
  /** True when they go to stdout, where then nothing else goes. */
  readonly onStdout: boolean;
  /** The reporter with every report also an event. */
  readonly around: (progress: ProgressReporter) => ProgressReporter;
  /** The last event. */
  readonly result: (document: Envelope) => void;
}

/** The value of `--events` on a command line; null where it is not given. What follows `--` is cut off already. */
export function eventsFlag(own: readonly string[]): string | null {
  const joined = own.find((a) => a.startsWith("--events="));
  if (joined !== undefined) return joined.slice("--events=".length);
  const at = own.indexOf("--events");
  return at === -1 ? null : (own[at + 1] ?? "");
}

/**
 * Opens the stream of events and writes `hello`. A file is appended to, so that a resumed job keeps its history.
 * @throws UsageError ERR_USAGE when the file cannot be written: before anything else was done.
 */
export function openEvents(to: string, streams: Streams, clock: Clock): Events {
  let write = to === "-" ? (line: string) => streams.out(line) : appender(to);
  const line = (event: string, facts: Readonly<Record<string, unknown>>): string =>
    `${JSON.stringify({ event, at: stamp(clock.now()), ...facts })}\n`;
  const emit = (event: string, facts: Readonly<Record<string, unknown>>): void => {
    try {
      write(line(event, facts));
    } catch (e) {
      // A full disk of the watcher must not stop a run half way: the stream ends here, and says so.
      write = () => undefined;
      streams.err(`  Warning  ${messageOf(e)}: no more events\n`);
    }
  };
  write(line("hello", { schema: "holdpoint/events@1" }));
  return {
    onStdout: to === "-",
    around: (progress) => ({
      begin: (what) => {
        emit("begin", { what });
        const done = progress.begin(what);
        return (words) => {
          emit("done", { what, ...(words === undefined ? {} : { words }) });
          done(words);
        };
      },
      check: (what, took) => {
        emit("check", { what });
        progress.check(what, took);
      },
      wave: (state) => {
        const { wave, waves, rows, rate, paused, checks, done } = state;
        const far = { wave, waves, rows, of_rows: state.ofRows, rate, lag_seconds: state.lagSeconds };
        emit("wave", { ...far, paused, checks, done });
        progress.wave(state);
      },
      end: progress.end,
    }),
    result: (document) => emit("result", { document }),
  };
}

function appender(file: string): (line: string) => void {
  return (line) => {
    try {
      appendFileSync(file, line, { mode: 0o600 });
    } catch (e) {
      throw new UsageError({
        code: "ERR_USAGE",
        message: `--events ${file} cannot be written`,
        why: codeOf(e) ?? "it is no file",
        cause: e,
      });
    }
  };
}
