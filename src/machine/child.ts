/** Child processes of our own: one script of ours at a time, and what git says. Nothing else of the environment goes with them. */
import { execFile, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { codeOf } from "../base/errors.js";

/** How a bounded child ended; the shape that the store's queries ask for. */
export type ChildOutcome =
  | { readonly kind: "done"; readonly output: string }
  | { readonly kind: "late" }
  | { readonly kind: "failed"; readonly message: string };

/**
 * Runs one of our own scripts in a child of the same Node with an empty environment, `input` on its stdin,
 * and kills it at the deadline or when it says more than it may. It reaches no key and no credential.
 */
export async function runBounded(
  script: URL,
  input: string,
  limits: {
    readonly maxMs: number;
    readonly maxOutputBytes: number;
    /** Node's flags for the child, as {@link confinement} gives them. */
    readonly flags?: readonly string[];
  },
): Promise<ChildOutcome> {
  return new Promise((resolve) => {
    const flags = ["--no-warnings", ...(limits.flags ?? [])];
    const child = spawn(process.execPath, [...flags, fileURLToPath(script)], {
      env: {},
      stdio: ["pipe", "pipe", "pipe"],
    });
    const output: Buffer[] = [];
    let size = 0;
    let errors = "";
    let ended: ChildOutcome | null = null;
    const end = (outcome: ChildOutcome): void => {
      ended ??= outcome;
      child.kill("SIGKILL");
    };
    const timer = setTimeout(() => end({ kind: "late" }), limits.maxMs);
    child.stdout.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size > limits.maxOutputBytes)
        end({ kind: "failed", message: `it answered more than ${limits.maxOutputBytes} bytes` });
      else output.push(chunk);
    });
    child.stderr.on("data", (chunk: Buffer) => {
      if (errors.length < 4000) errors += chunk.toString("utf8");
    });
    child.on("error", (e) => end({ kind: "failed", message: e.message }));
    child.on("close", (code) => {
      clearTimeout(timer);
      const done: ChildOutcome =
        code === 0
          ? { kind: "done", output: Buffer.concat(output).toString("utf8") }
          : { kind: "failed", message: errors.trim() };
      resolve(ended ?? done);
    });
    // A child that ended early closes its stdin; that is told by its exit, not by EPIPE.
    child.stdin.on("error", () => undefined);
    child.stdin.end(input);
  });
}

/**
 * Flags of Node's permission model for a child that may read these paths (`/*` at the end for a whole folder) and
 * nothing else: no other file, no native code, no process or thread of its own. Node 20 and 22 call the model
 * experimental under another name.
 */
export function confinement(readable: readonly string[], maxMegabytes: number): readonly string[] {
  const [major = 0] = process.versions.node.split(".").map(Number);
  return [
    major >= 24 ? "--permission" : "--experimental-permission",
    ...readable.map((path) => `--allow-fs-read=${path}`),
    `--max-old-space-size=${maxMegabytes}`,
  ];
}

/** Whether git ignores `path`. False where git is missing or says anything else: the careful answer. */
export async function gitIgnores(path: string, cwd: string): Promise<boolean> {
  const { code } = await git(["check-ignore", "--quiet", "--", path], cwd);
  return code === 0;
}

/** The checked-out branch, or undefined outside a work tree. */
export async function gitBranch(cwd: string): Promise<string | undefined> {
  const { code, output } = await git(["symbolic-ref", "--quiet", "--short", "HEAD"], cwd);
  return code === 0 && output.trim() !== "" ? output.trim() : undefined;
}

/**
 * The last commit that touched a file, and whether the file is as committed there. A file that git does not know has no
 * commit and is not clean; null outside a work tree.
 */
export async function committedFile(
  path: string,
  cwd: string,
): Promise<{ readonly commit: string | null; readonly clean: boolean } | null> {
  const { code, output } = await git(["log", "-1", "--format=%H", "--", path], cwd);
  if (code !== 0) return null;
  const commit = output.trim();
  if (commit === "") return { commit: null, clean: false };
  // A monitor is a program that the repository names: asking about a file must not start it.
  const status = await git(["-c", "core.fsmonitor=false", "status", "--porcelain", "--", path], cwd);
  return { commit, clean: status.code === 0 && status.output.trim() === "" };
}

async function git(
  args: readonly string[],
  cwd: string,
): Promise<{ readonly code: number; readonly output: string }> {
  return new Promise((resolve) => {
    execFile(
      "git",
      [...args],
      { cwd, timeout: 5000, env: { PATH: process.env["PATH"] ?? "" } },
      (error, stdout) => {
        const code =
          error === null ? 0 : codeOf(error) === undefined && typeof error.code === "number" ? error.code : 1;
        resolve({ code, output: stdout });
      },
    );
  });
}
