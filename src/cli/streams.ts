/**
 * Standard streams and how they are written to, decided once from flags, environment and terminal. Results go to stdout,
 * everything else to stderr; nothing else in the program writes to either.
 */
import { codeOf } from "../base/errors.js";
import { MAX_WIDTH, MIN_WIDTH } from "../render/layout.js";
import { type ColorLevel, createPalette, type Form, type Palette } from "../render/palette.js";

/** The process's own streams, or a test's. */
export interface Stdio {
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
}

/** The environment that {@link openStreams} reads; nothing else of it is looked at. */
export type StreamEnv = Readonly<Record<string, string | undefined>>;

/** The decisions, pure data. */
export interface StreamChoices {
  /** Both ends of a conversation are a terminal, and neither CI nor `--no-input` says that nobody is there. */
  readonly isInteractive: boolean;
  readonly stdoutIsTty: boolean;
  readonly stderrIsTty: boolean;
  /** Terminal cells that screens are laid out for. */
  readonly width: number;
  readonly outColor: ColorLevel;
  readonly errColor: ColorLevel;
  readonly form: Form;
  /** Prompts and progress never redraw: `--accessible`, `TERM=dumb`. */
  readonly plainPrompts: boolean;
}

/** Open streams. */
export interface Streams extends StreamChoices {
  readonly stdio: Stdio;
  readonly outPalette: Palette;
  readonly errPalette: Palette;
  /** Writes a result. After the reader went away (EPIPE) it does nothing, and {@link Streams.outClosed} is true. */
  readonly out: (text: string) => void;
  /** Writes narration, errors and prompts. */
  readonly err: (text: string) => void;
  /** Whether the reader of stdout went away: a read command then stops and ends with 0, a write command goes on. */
  readonly outClosed: () => boolean;
  /** Resolves when everything written so far left the process; before the process may end. */
  readonly flush: () => Promise<void>;
}

/** Width where no terminal says one. */
const DEFAULT_WIDTH = 100;

/** Opens the streams. `argv` is what follows the program's name; what follows `--` belongs to somebody else's command. */
export function openStreams(argv: readonly string[], env: StreamEnv, stdio: Stdio): Streams {
  const choices = chooseStreams(argv, env, stdio);
  const out = writer(stdio.stdout);
  const err = writer(stdio.stderr);
  return {
    ...choices,
    stdio,
    outPalette: createPalette({ level: choices.outColor, form: choices.form }),
    errPalette: createPalette({ level: choices.errColor, form: choices.form }),
    out: out.write,
    err: err.write,
    outClosed: out.isClosed,
    flush: async () => {
      await out.flush();
      await err.flush();
    },
  };
}

/** The decisions of {@link openStreams}, without touching a stream. */
export function chooseStreams(
  argv: readonly string[],
  env: StreamEnv,
  tty: {
    readonly stdin: { readonly isTTY?: boolean };
    readonly stdout: { readonly isTTY?: boolean; readonly columns?: number };
    readonly stderr: { readonly isTTY?: boolean; readonly columns?: number };
  },
): StreamChoices {
  const flags = argv.includes("--") ? argv.slice(0, argv.indexOf("--")) : argv;
  const stdoutIsTty = tty.stdout.isTTY === true;
  const stderrIsTty = tty.stderr.isTTY === true;
  const form = chooseForm(flags, env);
  const answering = tty.stdin.isTTY === true && stderrIsTty;
  return {
    isInteractive: answering && !isOn(env["CI"]) && !flags.includes("--no-input"),
    stdoutIsTty,
    stderrIsTty,
    width: chooseWidth(flags, tty.stdout.columns ?? tty.stderr.columns),
    outColor: chooseColor(flags, env, stdoutIsTty),
    errColor: chooseColor(flags, env, stderrIsTty),
    form,
    plainPrompts: form === "accessible" || env["TERM"] === "dumb",
  };
}

/**
 * Colour of one stream: `--color` > `HOLDPOINT_COLOR` > `FORCE_COLOR` > `NO_COLOR` > `CLICOLOR_FORCE` > `TERM=dumb` >
 * `CLICOLOR=0` > whether it is a terminal. `FORCE_COLOR` beats `NO_COLOR` because Node itself does so. Empty counts as unset.
 */
export function chooseColor(flags: readonly string[], env: StreamEnv, isTty: boolean): ColorLevel {
  const asked = [colorFlag(flags), colorWord(env["HOLDPOINT_COLOR"])].find(
    (w) => w !== undefined && w !== "auto",
  );
  if (asked === "always") return 1;
  if (asked === "never") return 0;
  const { FORCE_COLOR, NO_COLOR, CLICOLOR_FORCE, TERM, CLICOLOR } = env;
  if (isSet(FORCE_COLOR)) return FORCE_COLOR === "0" || FORCE_COLOR === "false" ? 0 : 1;
  if (isSet(NO_COLOR)) return 0;
  if (isSet(CLICOLOR_FORCE) && CLICOLOR_FORCE !== "0") return 1;
  if (TERM === "dumb" || CLICOLOR === "0") return 0;
  return isTty ? 1 : 0;
}

/** When to colour. */
export const COLORS = ["always", "never", "auto"] as const;

type ColorWord = (typeof COLORS)[number];

/**
 * The line with every `--color` in one form, its value attached. Without a value it means always: what follows is then a
 * command, which a parser would take for the value. A wrong value is left as it is, for the parser to refuse.
 */
export function settleColor(argv: readonly string[]): readonly string[] {
  return argv.flatMap((word, i) => {
    if (word === "--color") return [`--color=${colorWord(argv[i + 1]) ?? "always"}`];
    if (argv[i - 1] === "--color" && colorWord(word) !== undefined) return [];
    const [, value] = /^--color=(.*)$/s.exec(word) ?? [];
    return [value === undefined ? word : `--color=${colorWord(value) ?? value}`];
  });
}

/** `--color`, `--color=WHEN`, `--color WHEN`, `--no-color`; the last one counts. A wrong word is left to the parser. */
function colorFlag(flags: readonly string[]): ColorWord | undefined {
  let found: ColorWord | undefined;
  flags.forEach((flag, i) => {
    if (flag === "--no-color") found = "never";
    else if (flag === "--color") found = colorWord(flags[i + 1]) ?? "always";
    else if (flag.startsWith("--color=")) found = colorWord(flag.slice("--color=".length)) ?? found;
  });
  return found;
}

const COLOR_WORDS: ReadonlyMap<string, ColorWord> = new Map([
  ["always", "always"],
  ["1", "always"],
  ["true", "always"],
  ["never", "never"],
  ["0", "never"],
  ["false", "never"],
  ["auto", "auto"],
]);

function colorWord(word: string | undefined): ColorWord | undefined {
  return COLOR_WORDS.get(word ?? "");
}

/** Accessible when asked for; ASCII when asked for, or when the locale says that it has no Unicode. */
function chooseForm(flags: readonly string[], env: StreamEnv): Form {
  const accessible =
    flags.includes("--accessible") || isOn(env["HOLDPOINT_ACCESSIBLE"]) || isOn(env["ACCESSIBLE"]);
  if (accessible) return "accessible";
  return flags.includes("--plain") || lacksUnicode(env) ? "plain" : "text";
}

/** A locale that is named and is not UTF-8, or the Linux console. No locale at all says nothing. */
function lacksUnicode(env: StreamEnv): boolean {
  const locale = [env["LC_ALL"], env["LC_CTYPE"], env["LANG"]].find(isSet);
  return env["TERM"] === "linux" || (locale !== undefined && !/utf-?8/i.test(locale));
}

function chooseWidth(flags: readonly string[], columns: number | undefined): number {
  const at = flags.indexOf("--width");
  const text =
    at === -1 ? flags.find((f) => f.startsWith("--width="))?.slice("--width=".length) : flags[at + 1];
  const asked = /^\d{1,4}$/.test(text ?? "") ? Number(text) : undefined;
  const wanted = asked ?? (columns !== undefined && columns > 0 ? columns : DEFAULT_WIDTH);
  return Math.min(MAX_WIDTH, Math.max(MIN_WIDTH, wanted));
}

function isSet(value: string | undefined): value is string {
  return value !== undefined && value !== "";
}

/** Set to anything but a word for no. */
function isOn(value: string | undefined): boolean {
  return isSet(value) && value !== "0" && value !== "false";
}

/** Writes until the reader goes away; then it forgets the rest quietly. Any other fault of the stream is thrown where it is written. */
function writer(stream: NodeJS.WriteStream): {
  readonly write: (text: string) => void;
  readonly isClosed: () => boolean;
  readonly flush: () => Promise<void>;
} {
  let closed = false;
  stream.on("error", (e: unknown) => {
    if (codeOf(e) !== "EPIPE" && codeOf(e) !== "ERR_STREAM_DESTROYED") throw e;
    closed = true;
  });
  return {
    write: (text) => {
      if (!closed && text !== "") stream.write(text);
    },
    isClosed: () => closed,
    // An empty write is called back after everything before it, also with an error, which the listener has seen.
    flush: () => new Promise((resolve) => (closed ? resolve() : void stream.write("", () => resolve()))),
  };
}
