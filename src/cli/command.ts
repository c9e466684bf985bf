/** What every command is made of: it parses, asks, calls an operation, and returns how it ended. `main` does the rest. */
import type { Command } from "commander";
import type { HoldpointError, TargetChanged } from "../base/errors.js";
import type { Toolbox } from "../operations/toolbox.js";
import type { Palette } from "../render/palette.js";
import type { ExitCode } from "./exit-codes.js";
import type { Paged } from "./paging.js";
import type { ProgressReporter } from "./progress.js";
import type { Prompter } from "./prompts.js";
import type { Streams } from "./streams.js";

/** What a command works with. */
export interface Context {
  readonly streams: Streams;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** True under `--json`: one document on stdout, nothing else there. */
  readonly json: boolean;
  /** True under `--events`: a program reads along, in a file or on stdout. */
  readonly hasEvents: boolean;
  readonly prompter: Prompter;
  readonly progress: ProgressReporter;
  /** The operations' toolbox; reads the project on first use. */
  readonly tools: () => Promise<Toolbox>;
  /** Lays a screen out for stdout. */
  readonly screen: <V>(render: (view: V, palette: Palette, width: number) => string, view: V) => string;
  /** Long output: through a pager where a terminal is too short for it. */
  readonly paged: () => Paged;
  /** Writes narration to stderr; silent under `--quiet`. */
  readonly say: (text: string) => void;
}

/** How a command ended. */
export interface Outcome {
  /** Plain JSON: what the command's documented `result` is. */
  readonly result: unknown;
  /** The screen for stdout. */
  readonly text: string;
  readonly exit?: ExitCode;
  readonly targetChanged?: TargetChanged;
  /** A refusal that comes with a result: a denied plan, an undo that waits. Shown on stderr after the screen. */
  readonly error?: HoldpointError;
  readonly warnings?: readonly string[];
}

/** Runs a command's act under its name in `--json` (`log-verify`). */
export type Run = (name: string, act: (cx: Context) => Promise<Outcome>) => Promise<void>;

/** Adds one command to the program. `tail` is what followed `--` on the command line. */
export type Register = (program: Command, run: Run, tail: readonly string[] | null) => void;

/** Collects a repeatable option. */
export function collect(value: string, previous: readonly string[] = []): readonly string[] {
  return [...previous, value];
}
