/**
 * A holdpoint that stays: one process for each worker of jest that runs one command after the other through the bundle
 * that ships, each with its own folder, environment and standard input. Starting Node and reading the program costs ten times what
 * most commands do, and the suite runs thousands. What a process is (its start, signals, a terminal, variables that Node
 * itself reads) is for the tests that start one; `HOLDPOINT_TEST_STARTS=each` starts one for every command.
 */
import { spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** One command, as the resident is told it. */
export interface ResidentCommand {
  readonly cwd: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly input: string;
}

/** How it ended. */
export interface ResidentEnd {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const PROGRAM = fileURLToPath(new URL("resident-child.js", import.meta.url));
const LENGTH_BYTES = 6;

/** Whether a command may be run by it: what Node itself reads at a start needs a start. */
export function mayStay(command: Pick<ResidentCommand, "env">): boolean {
  return (
    process.env["HOLDPOINT_TEST_RUN"] !== undefined &&
    process.env["HOLDPOINT_TEST_BIN"] === undefined &&
    process.env["HOLDPOINT_TEST_STARTS"] !== "each" &&
    !Object.keys(command.env).some((name) => name.startsWith("NODE_"))
  );
}

/**
 * Runs one command and waits for its end, which blocks this thread as `spawnSync` does.
 * A command that takes the process with it has status -1, and the next one gets another process.
 */
export function runResident(command: ResidentCommand): ResidentEnd {
  const { requests, answers } = resident();
  writeMessage(requests, JSON.stringify(command));
  const answer = readMessage(answers);
  if (answer === null) {
    forget();
    return { status: -1, stdout: "", stderr: "the process of the command is gone" };
  }
  return JSON.parse(answer) as ResidentEnd;
}

/** A message after its length; both sides of the pipes speak so. */
export function writeMessage(fd: number, text: string): void {
  const body = Buffer.from(text);
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUIntBE(body.length, 0, LENGTH_BYTES);
  for (const bytes of [length, body])
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at);
}

/** The next message; null when the other side is gone. */
export function readMessage(fd: number): string | null {
  const length = readExactly(fd, LENGTH_BYTES);
  if (length === null) return null;
  return readExactly(fd, length.readUIntBE(0, LENGTH_BYTES))?.toString() ?? null;
}

function readExactly(fd: number, size: number): Buffer | null {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size;) {
    const got = readSync(fd, bytes, at, size - at, null);
    if (got === 0) return null;
    at += got;
  }
  return bytes;
}

interface Ends {
  readonly requests: number;
  readonly answers: number;
}

/** Of this test file; the process behind it serves all files of its worker. */
let ends: Ends | undefined;

/** The pipes carry the worker's number: the next test file of this worker finds the process that the first one started. */
function pipes(): readonly [string, string] {
  const base = join(process.env["HOLDPOINT_TEST_RUN"] ?? "", `resident-${process.pid}`);
  return [`${base}-requests`, `${base}-answers`];
}

function resident(): Ends {
  if (ends !== undefined) return ends;
  const [requests, answers] = pipes();
  if (!existsSync(requests)) {
    const made = spawnSync("mkfifo", ["-m", "600", requests, answers]);
    if (made.status !== 0) throw new Error(`mkfifo: ${String(made.stderr)}`);
    // Nothing of this machine's environment reaches a command.
    const child = spawn(process.execPath, [PROGRAM, requests, answers], {
      stdio: ["ignore", "inherit", "inherit"],
      env: { PATH: process.env["PATH"] ?? "", TZ: "UTC", LANG: "C.UTF-8" },
    });
    child.unref();
    if (child.pid === undefined) throw new Error("node could not be started");
  }
  // Each waits for the other side.
  ends = { requests: openSync(requests, "w"), answers: openSync(answers, "r") };
  return ends;
}

function forget(): void {
  if (ends !== undefined) for (const fd of Object.values(ends) as number[]) closeSync(fd);
  ends = undefined;
  for (const pipe of pipes()) unlinkSync(pipe);
}
