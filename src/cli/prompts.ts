/**
 * Typed answers. A prompt is a convenience over a flag: without a terminal it refuses and names the flag. No default,
 * nothing preselected, nothing typed before the question was there counts.
 *
 * A typed answer stops slips. It does not stop a program with a pseudo-terminal: only a key that it cannot reach does.
 */
import { createInterface } from "node:readline";
import { messageOf, RefusedError, UsageError } from "../base/errors.js";
import type { Streams } from "./streams.js";

/** A question, and how to answer it without a terminal. */
export interface Question {
  /** What is asked; a single line, already safe to print. */
  readonly message: string;
  /** What needs it, for the refusal: `apply on shop-prod needs the target's name`. Never the answer itself. */
  readonly needs: string;
  /** The flag that answers it, with a placeholder for its value: `["--confirm", "TARGET"]`; null where only a person may. */
  readonly flag: readonly [string, ...string[]] | null;
}

/** Asks on stderr, reads from the terminal. */
export interface Prompter {
  /**
   * One line as it was typed, blanks and all, for an exact comparison.
   * @throws UsageError ERR_INPUT_NEEDED (22) without a terminal, naming the flag.
   * @throws RefusedError ERR_INTERRUPTED (130) on Ctrl-C and when the terminal goes away.
   */
  readonly ask: (question: Question, signal?: AbortSignal) => Promise<string>;
  /** Whether exactly `expected` was typed; one try. */
  readonly askExactly: (question: Question, expected: string, signal?: AbortSignal) => Promise<boolean>;
  /** `y/N`: true for `y` or `yes`, false for anything else. For low tiers only. */
  readonly askYes: (question: Question, signal?: AbortSignal) => Promise<boolean>;
}

/** How long the terminal must be silent before a question is shown. */
const QUIET_MS = 40;

/** The prompter for these streams. `json` is true under `--json`, where a question that a flag answers is refused. */
export function createPrompter(streams: Streams, options: { readonly json?: boolean } = {}): Prompter {
  const ask = async (question: Question, signal?: AbortSignal): Promise<string> => {
    if (!streams.isInteractive || options.json === true)
      throw inputNeeded(question, streams, options.json === true);
    return streams.plainPrompts
      ? askPlainly(question, streams, signal)
      : askOnTerminal(question, streams, signal);
  };
  return {
    ask,
    askExactly: async (question, expected, signal) => (await ask(question, signal)) === expected,
    askYes: async (question, signal) => {
      const typed = await ask({ ...question, message: `${question.message} y/N` }, signal);
      return /^(y|yes)$/i.test(typed.trim());
    },
  };
}

function inputNeeded(question: Question, streams: Streams, json: boolean): UsageError {
  const found = json
    ? "--json asks nothing"
    : streams.stderrIsTty
      ? "CI is set or --no-input was given"
      : "no terminal";
  const [flag, ...values] = question.flag ?? [];
  const text =
    flag === undefined
      ? "Run it at a terminal: this is for a person."
      : `Add  ${[flag, ...values].join(" ")}  with the value that you mean.`;
  return new UsageError({
    code: "ERR_INPUT_NEEDED",
    message: "this needs an answer, and there is no terminal to ask on",
    why: `${question.needs}; ${found}`,
    next: [{ actor: "anyone", text }],
    details: { flag: flag ?? null },
  });
}

/** inquirer's `input`, without colour of its own; loaded only when something is asked. */
async function askOnTerminal(question: Question, streams: Streams, signal?: AbortSignal): Promise<string> {
  const { default: inquirer } = await import("inquirer");
  await drain(streams.stdio.stdin);
  const prompt = inquirer.createPromptModule({
    input: streams.stdio.stdin,
    output: streams.stdio.stderr,
    ...(signal === undefined ? {} : { signal }),
  });
  const same = (text: string): string => text;
  try {
    const answers = await prompt<{ answer: string }>([
      {
        type: "input",
        name: "answer",
        message: question.message,
        theme: { prefix: { idle: " ", done: " " }, style: { message: same, answer: same } },
      },
    ]);
    return answers.answer;
  } catch (e) {
    throw interrupted(e);
  }
}

/** A plain line, for screen readers and terminals that cannot redraw. */
async function askPlainly(question: Question, streams: Streams, signal?: AbortSignal): Promise<string> {
  const { stdin, stderr } = streams.stdio;
  await drain(stdin);
  const lines = createInterface({
    input: stdin,
    output: stderr,
    terminal: streams.stderrIsTty,
    historySize: 0,
  });
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.once("SIGINT", () => reject(interrupted("SIGINT")));
      lines.once("close", () => reject(interrupted("the terminal was closed")));
      signal?.addEventListener("abort", () => reject(interrupted(signal.reason)), { once: true });
      lines.question(`${question.message} `, resolve);
    });
  } finally {
    lines.close();
  }
}

/**
 * Throws away what was typed before the question: reads in raw mode, where the terminal holds no half line back, until
 * it was silent for a moment. Somebody who leans on Enter must not answer a question they have not seen.
 */
async function drain(stdin: NodeJS.ReadStream): Promise<void> {
  const wasRaw = stdin.isRaw;
  stdin.setRawMode(true);
  await new Promise<void>((resolve, reject) => {
    let timer = setTimeout(done, QUIET_MS);
    function done(): void {
      stdin.off("data", onData);
      stdin.pause();
      resolve();
    }
    function onData(data: Buffer | string): void {
      clearTimeout(timer);
      // Raw mode turns Ctrl-C into a byte: typed ahead it still means stop.
      if (data.includes("\u0003")) {
        stdin.off("data", onData);
        stdin.pause();
        reject(interrupted("SIGINT"));
        return;
      }
      timer = setTimeout(done, QUIET_MS);
    }
    stdin.on("data", onData);
    stdin.resume();
  }).finally(() => stdin.setRawMode(wasRaw));
}

function interrupted(cause: unknown): RefusedError {
  return new RefusedError({
    code: "ERR_INTERRUPTED",
    message: "interrupted at a question",
    why: `the question was not answered: ${messageOf(cause)}`,
    cause,
  });
}
