/**
 * Faults put on real acts, from a state that is saved and brought back. A process does act after act until a fault kills
 * it: SIGKILL is a real one, of a real process, and whatever is run again after it is run by another.
 */
import { type ChildProcess, fork } from "node:child_process";
import { copyFileSync, cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect } from "@jest/globals";
import type { Act, Fault, FaultReport, Order } from "./fault.js";
import type { TestProject } from "./project.js";

const CHILD = join(import.meta.dirname, "fault-child.js");
const ASKED = process.env["HOLDPOINT_FAULTS"];
/** Whether more than a sample is asked for. */
export const ASKED_FOR_MORE = ASKED !== undefined;
/** How long one test may take. */
export const PATIENCE_MS = ASKED_FOR_MORE ? 3_600_000 : 120_000;

/** Spread over all of 1..n; all of them when asked. The last ones matter most: there lie commits and records. */
export function chosen(n: number, least: number): readonly number[] {
  const sample = Math.min(n, ASKED === "all" ? n : Number(ASKED ?? least));
  if (ASKED === "all") return Array.from({ length: n }, (_, i) => i + 1);
  // One alone tells most where the work is done: behind the reading, before the end.
  if (sample === 1) return [Math.ceil((n * 2) / 3)];
  const spread = Array.from(
    { length: sample },
    (_, i) => 1 + Math.floor((i * (n - 1)) / Math.max(1, sample - 1)),
  );
  return [...new Set(spread)];
}

/** {@link chosen}, of a list. */
export function chosenOf<T>(all: readonly T[], least: number): readonly T[] {
  return chosen(all.length, least).flatMap((at) => all.slice(at - 1, at));
}

/** Tries all of them, and tells of every one that failed; at once, where there are so many that it takes its time. */
export async function each<T>(all: readonly T[], survives: (one: T) => Promise<void>): Promise<void> {
  const failures: string[] = [];
  const began = performance.now();
  for (const one of all)
    await survives(one).catch((e: unknown) => {
      const failure = e instanceof Error ? (e.stack ?? e.message) : String(e);
      failures.push(failure);
      if (ASKED_FOR_MORE) process.stderr.write(`${expect.getState().currentTestName ?? ""}: ${failure}\n`);
    });
  if (ASKED_FOR_MORE) {
    const seconds = ((performance.now() - began) / 1000).toFixed(0);
    const ended = `${all.length} faults, ${failures.length} not survived, ${seconds} s`;
    process.stderr.write(`${expect.getState().currentTestName ?? ""}: ${ended}\n`);
  }
  if (failures.length === 0) return;
  throw new Error(`${failures.length} of ${all.length}:\n${failures.slice(0, 20).join("\n")}`);
}

/** Milliseconds from the begin of an act, spread over the time that it takes: 20 of them for all. */
export function anywhere(tookMs: number, least: number): readonly number[] {
  return chosen(20, least).map((at) => Math.round((tookMs * at) / 21));
}

/** The processes in which a project suffers faults: one at work, and the next one starting when that one is to be killed. */
export class Sufferer {
  readonly #dir: string;
  #at: ChildProcess | undefined;
  #next: ChildProcess | undefined;

  constructor(project: TestProject) {
    this.#dir = project.dir;
  }

  /** Null when the process was killed. */
  async run(act: Act, fault: Fault, isWatched = false): Promise<FaultReport | null> {
    const child = (this.#at ??= this.#next ?? this.#start());
    this.#next = undefined;
    const isKill = fault.kind.startsWith("kill");
    if (isKill) this.#next = this.#start();
    const order: Order = { act, fault, isWatched };
    const report = await new Promise<FaultReport | null>((resolve, reject) => {
      const late = setTimeout(() => child.kill("SIGTERM"), 60_000);
      const done = (): void => {
        clearTimeout(late);
        child.removeAllListeners("message");
        child.removeAllListeners("exit");
      };
      child.on("message", (message: FaultReport | "begun") => {
        if (message === "begun") {
          if (fault.kind === "kill-time") setTimeout(() => child.kill("SIGKILL"), fault.at);
          return;
        }
        done();
        resolve(message);
      });
      child.on("exit", (status, signal) => {
        done();
        this.#at = undefined;
        if (signal === "SIGKILL" && isKill) resolve(null);
        else reject(new Error(`${JSON.stringify(fault)}: ended with ${status ?? signal ?? "nothing"}`));
      });
      child.send(order);
    });
    // A kill from outside may come too late for the act; it must not hit the one after it.
    if (fault.kind === "kill-time" && report !== null) await this.#end();
    return report;
  }

  /** The act without a fault, with the states of the disk told apart. */
  async unbroken(act: Act): Promise<FaultReport> {
    const report = await this.run(act, { kind: "none", at: 0 }, true);
    if (report === null) throw new Error("killed without a fault");
    return report;
  }

  #start(): ChildProcess {
    return fork(CHILD, [this.#dir], {
      execArgv: ["--no-warnings"],
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
  }

  async #end(): Promise<void> {
    const child = this.#at;
    this.#at = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  async close(): Promise<void> {
    await this.#end();
    this.#at = this.#next;
    this.#next = undefined;
    await this.#end();
  }
}

/** Remembers target and store as they are now. */
export function save(project: TestProject): void {
  copyFileSync(project.database, `${project.dir}/saved.db`);
  saveStore(project);
}

/** Remembers the store alone. */
export function saveStore(project: TestProject): void {
  copy(`${project.dir}/.holdpoint`, `${project.dir}/saved-store`);
}

/** Brings back what {@link saveStore} remembered. */
export function restoreStore(project: TestProject): void {
  copy(`${project.dir}/saved-store`, `${project.dir}/.holdpoint`);
}

/** Brings back what {@link save} remembered, into the same file: the target knows itself by its inode. */
export function restore(project: TestProject): void {
  for (const side of ["-wal", "-shm", "-journal", "-holdpoint-run", "-holdpoint-run-journal"])
    rmSync(`${project.database}${side}`, { force: true });
  copyFileSync(`${project.dir}/saved.db`, project.database);
  restoreStore(project);
}

function copy(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  cpSync(from, to, { recursive: true, preserveTimestamps: true });
}
