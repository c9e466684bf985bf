/**
 * The child that a job's own code runs in. It gets an environment made from nothing, an empty home, no
 * terminal, no keys, no agent and no address of the target; what it prints goes to our standard error with
 * every control character made visible. When it ends, whatever it started ends with it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { Readable, Writable } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import { formatDuration } from "../base/clock.js";
import { messageOf, UsageError } from "../base/errors.js";
import type { AnswerJob } from "../target/job-questions.js";
import { answerAll } from "./answering.js";

/** What a child is started with and where its output goes. */
export interface ChildSetting {
  /** A private folder (0700) that the caller made and removes. */
  readonly scratch: string;
  /** The environment of this machine. Only PATH and LANG are taken from it. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Receives what the child prints, in pieces, control characters already escaped. */
  readonly output: (text: string) => void;
  /** Ends the child and everything it started; `run` then rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** The same for a program whose output was seen before; what it last printed still stands in an error. */
export function silent<S extends ChildSetting>(setting: S): S {
  return { ...setting, output: () => undefined };
}

/** One program to run. */
export interface ChildProgram {
  /** For errors: `job purge-idle`. */
  readonly title: string;
  readonly file: string;
  readonly arguments: readonly string[];
  /** Variables beside those that every child has; names begin with `HOLDPOINT_`. */
  readonly variables: Readonly<Record<string, string>>;
  readonly timeoutSeconds: number;
}

/**
 * Runs the program to its end in an empty folder of its own. With `answer` it has two more pipes, on which it can ask.
 * @throws UsageError ERR_JOB_FAILED when it cannot be started, ends with another status than 0, is killed, or
 * takes longer than its time; `why` has the last lines that it printed.
 */
export async function runChild(
  program: ChildProgram,
  setting: ChildSetting,
  answer?: AnswerJob,
): Promise<void> {
  setting.signal?.throwIfAborted();
  const place = await mkdtemp(join(setting.scratch, "run-"));
  const folders = { home: join(place, "home"), tmp: join(place, "tmp"), work: join(place, "work") };
  for (const folder of Object.values(folders)) await mkdir(folder, { mode: 0o700 });
  const env = { ...baseEnvironment(setting.environment, folders), ...program.variables };
  const end = await ended(program, setting, env, folders.work, answer);
  setting.signal?.throwIfAborted();
  if (end.problem !== null) throw failed(program, end.problem, end.tail, answer !== undefined);
}

/**
 * The variables of every child: PATH (absolute entries only: the child's own folder must not supply programs),
 * LANG, TZ=UTC, and HOME and TMPDIR in private folders. Nothing else is inherited.
 */
export function baseEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
  folders: { readonly home: string; readonly tmp: string },
): Readonly<Record<string, string>> {
  return {
    PATH: searchPath(environment).join(":"),
    LANG: environment["LANG"] ?? "C.UTF-8",
    TZ: "UTC",
    HOME: folders.home,
    TMPDIR: folders.tmp,
  };
}

/** The absolute entries of PATH; the usual system folders when there are none. */
export function searchPath(environment: Readonly<Record<string, string | undefined>>): readonly string[] {
  const entries = (environment["PATH"] ?? "").split(":").filter((entry) => isAbsolute(entry));
  return entries.length === 0 ? ["/usr/local/bin", "/usr/bin", "/bin"] : entries;
}

/** Control and reordering characters as `\x1b`, `\u202e`; line ends and tabs stay. */
export function escapeControls(text: string): string {
  return text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, (c) => {
    const code = c.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
  });
}

interface End {
  /** What went wrong, in words; null when the program ended well. */
  readonly problem: string | null;
  readonly tail: string;
}

function ended(
  program: ChildProgram,
  setting: ChildSetting,
  env: Readonly<Record<string, string>>,
  cwd: string,
  answer: AnswerJob | undefined,
): Promise<End> {
  return new Promise((resolve) => {
    // Its own process group: what it started in the background must not go on writing after the capture.
    const child = spawn(program.file, [...program.arguments], {
      cwd,
      env,
      detached: true,
      stdio: answer === undefined ? ["ignore", "pipe", "pipe"] : ["ignore", "pipe", "pipe", "pipe", "pipe"],
    });
    const errors = relay(child.stderr, setting.output);
    const words = relay(child.stdout, setting.output);
    const stop = (): void => killGroup(child.pid);
    let timedOut = false;
    let broken: unknown = null;
    const conversation = converse(child, answer).catch((e: unknown) => {
      broken = e;
      stop();
    });
    const timer = setTimeout(() => {
      timedOut = true;
      stop();
    }, program.timeoutSeconds * 1000);
    const finish = (problem: string | null): void => {
      clearTimeout(timer);
      setting.signal?.removeEventListener("abort", stop);
      void conversation.then(() =>
        resolve({
          problem: broken === null ? problem : `broke off: ${messageOf(broken)}`,
          tail: errors() || words(),
        }),
      );
    };
    setting.signal?.addEventListener("abort", stop, { once: true });
    // Aborted while the folders were made: the listener came too late to hear it.
    if (setting.signal?.aborted === true) stop();
    child.once("error", (e) => finish(`could not be started: ${messageOf(e)}`));
    child.once("exit", () => {
      stop();
      // Something that left the group may hold the pipes open for ever: what it prints is not waited for.
      setTimeout(() => {
        for (const stream of child.stdio) stream?.destroy();
      }, 1000).unref();
    });
    child.once("close", (status, signal) => {
      if (timedOut) finish(`ran longer than ${formatDuration(program.timeoutSeconds)} and was stopped`);
      else if (signal !== null) finish(`was ended by ${signal}`);
      else finish(status === 0 ? null : `ended with exit status ${status}`);
    });
  });
}

/** Answers what the child asks, on two pipes beside its output. */
async function converse(child: ChildProcess, answer: AnswerJob | undefined): Promise<void> {
  const [, , , questions, answers] = child.stdio;
  if (answer === undefined || !(questions instanceof Readable) || !(answers instanceof Writable)) return;
  await answerAll(questions, answers, answer);
}

const TAIL_LENGTH = 2000;

/** Passes on what is printed, and gives the end of it when asked. */
function relay(stream: NodeJS.ReadableStream | null, output: (text: string) => void): () => string {
  const decoder = new StringDecoder("utf8");
  let tail = "";
  stream?.on("data", (chunk: Buffer) => {
    const text = escapeControls(decoder.write(chunk));
    tail = (tail + text).slice(-TAIL_LENGTH);
    output(text);
  });
  return () => {
    // The frames of a stack and Node's own signature would push out the line that says what happened.
    const said = tail.split("\n").filter((line) => line.trim() !== "" && !/^ {4}at |^Node\.js v/.test(line));
    return said.slice(-6).join("\n");
  };
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // The group is empty already: that is what was wanted.
  }
}

function failed(program: ChildProgram, problem: string, tail: string, asked: boolean): UsageError {
  return new UsageError({
    code: "ERR_JOB_FAILED",
    message: `${program.title} ${problem}`,
    why: tail === "" ? "it printed nothing" : `it last printed: ${tail}`,
    state: asked
      ? "Nothing was written: the job ran in a transaction that cannot commit."
      : "Nothing was written: the job ran on a private copy.",
    next: [{ actor: "requester", text: "Correct the job and plan again." }],
  });
}
