/**
 * Programs that the trust bundle names: checks, hooks, collectors. An argument array without a shell, in the
 * project's folder, with an environment made from nothing: no keys, no agent, no address of a target. What it
 * may know comes in `HOLDPOINT_*` variables.
 */
import { spawn } from "node:child_process";
import { tmpdir } from "node:os";
import { isAbsolute } from "node:path";

/** One program. */
export interface GuardProgram {
  readonly command: readonly string[];
  readonly timeoutSeconds: number;
}

/** How it ended. Only `passed` is good; `why` says in words what was not. */
export type GuardEnd =
  | { readonly kind: "passed"; readonly output: string }
  | { readonly kind: "failed"; readonly why: string };

const MAX_OUTPUT_BYTES = 64 * 1024;
const TAIL = 200;

/** Runs the program to its end; at the deadline it is killed with everything it started. */
export async function runGuard(
  program: GuardProgram,
  data: Readonly<Record<string, string>>,
  setting: {
    readonly cwd: string;
    readonly environment: Readonly<Record<string, string | undefined>>;
    /** Asked while it runs: true ends it. */
    readonly cancelled: () => boolean;
  },
): Promise<GuardEnd> {
  const [file, ...args] = program.command;
  if (file === undefined) return { kind: "failed", why: "its command is empty" };
  return new Promise((resolve) => {
    const child = spawn(file, args, {
      cwd: setting.cwd,
      env: { ...environmentOf(setting.environment), ...data },
      stdio: ["ignore", "pipe", "pipe"],
      // A group of its own, so that its children end with it, and so that Ctrl-C is ours to answer.
      detached: true,
    });
    const output = { out: "", err: "" };
    let reason: string | null = null;
    const end = (why: string): void => {
      reason ??= why;
      killGroup(child.pid);
    };
    const deadline = setTimeout(
      () => end(`it took longer than ${program.timeoutSeconds} s`),
      program.timeoutSeconds * 1000,
    );
    const poll = setInterval(() => {
      if (setting.cancelled()) end("it was interrupted");
    }, 100);
    child.stdout.on("data", (chunk: Buffer) => {
      if (output.out.length < MAX_OUTPUT_BYTES) output.out += chunk.toString("utf8");
    });
    child.stderr.on("data", (chunk: Buffer) => {
      if (output.err.length < MAX_OUTPUT_BYTES) output.err += chunk.toString("utf8");
    });
    child.on("error", (e) => {
      reason ??= `it could not be started: ${e.message}`;
    });
    child.on("close", (code, signal) => {
      clearTimeout(deadline);
      clearInterval(poll);
      if (reason === null && code === 0) return resolve({ kind: "passed", output: output.out });
      const how = reason ?? (signal === null ? `it ended with ${code ?? "?"}` : `it was killed by ${signal}`);
      resolve({ kind: "failed", why: `${how}${tailOf(output)}` });
    });
  });
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It ended by itself a moment ago.
  }
}

/** PATH in absolute entries only: the project's folder must not supply programs by name. */
function environmentOf(environment: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const entries = (environment["PATH"] ?? "").split(":").filter((entry) => isAbsolute(entry));
  return {
    PATH: entries.length === 0 ? "/usr/local/bin:/usr/bin:/bin" : entries.join(":"),
    LANG: environment["LANG"] ?? "C.UTF-8",
    TZ: "UTC",
    HOME: "/nonexistent",
    TMPDIR: tmpdir(),
  };
}

/** The last line that it printed. */
function tailOf({ out, err }: { readonly out: string; readonly err: string }): string {
  const last = (err.trim() === "" ? out : err).trim().split("\n").at(-1) ?? "";
  const plain = last.replaceAll(/[^\x20-\x7e\u00a0-\u024f]/g, "?").slice(0, TAIL);
  return plain === "" ? "" : `: ${plain}`;
}
