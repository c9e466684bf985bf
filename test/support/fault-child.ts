/**
 * Does one act in a process of its own, with one fault: killed before a step, or one statement or file operation that
 * fails. The faults are put around the real toolbox and the real driver from outside; the product knows nothing of them.
 *
 * Arguments: the project's folder, an {@link Act} and a {@link Fault} as JSON. Prints one {@link FaultReport}.
 */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { Socket } from "node:net";
import { join } from "node:path";
import Database from "better-sqlite3";
import pg from "pg";
import { HoldpointError, messageOf } from "../../src/base/errors.js";
import { wire } from "../../src/cli/wiring.js";
import { applyPlan } from "../../src/operations/apply.js";
import { parseDamage } from "../../src/operations/merging/damage.js";
import { rescue } from "../../src/operations/rescue.js";
import {
  forgetRun,
  listSnapshots,
  pruneSnapshots,
  restoreSnapshot,
  takeSnapshot,
  verifySnapshot,
} from "../../src/operations/snapshot.js";
import type { Toolbox } from "../../src/operations/toolbox.js";

/** What is done. */
export type Act =
  | { readonly kind: "apply"; readonly plan: string }
  | { readonly kind: "rescue"; readonly on: string; readonly damage: string }
  | { readonly kind: "take"; readonly on: string; readonly tables: readonly string[] }
  | { readonly kind: "restore"; readonly snapshot: string; readonly to: string }
  | { readonly kind: "prune"; readonly snapshot: string }
  | { readonly kind: "forget"; readonly run: string };

/** What goes wrong, and at which of the things that are counted (from 1; 0 for nothing at all). */
export interface Fault {
  readonly kind:
    | "none"
    /** SIGKILL before the n-th step that a run distinguishes. */
    | "kill-step"
    /** SIGKILL before the n-th SQL statement: an instant somewhere. */
    | "kill-sql"
    /** The n-th SQL statement fails and does nothing. */
    | "fail-sql"
    /** The n-th SQL statement does its work, and its answer is lost. */
    | "lose-sql"
    /** The n-th file operation that writes fails as on a full disk. */
    | "disk-full"
    /** On PostgreSQL: the n-th COMMIT does its work, and its answer is lost together with the line. */
    | "lose-commit"
    /** On PostgreSQL: the server ends all of holdpoint's sessions before the n-th step. */
    | "end-sessions"
    /** On PostgreSQL: the server crashes and recovers before the n-th step. */
    | "crash-server"
    /** SIGKILL before the n-th file operation of any kind. */
    | "kill-file"
    /** The n-th file operation of any kind fails. */
    | "fail-file";
  readonly at: number;
  /** The database whose server is meant, where there is one. */
  readonly url?: string;
}

/** How it ended. */
export interface FaultReport {
  readonly counted: {
    readonly steps: number;
    readonly sql: number;
    /** File operations that need room on the disk. */
    readonly files: number;
    /** File operations of any kind. */
    readonly touches: number;
    /** COMMITs that went to a PostgreSQL server. */
    readonly commits: number;
  };
  readonly ok: boolean;
  readonly code: string | null;
  readonly targetChanged: string;
  readonly message: string;
  /** The second application of the same plan, in the same process. */
  readonly again: string | null;
  /** What the act gave: a run, a plan, a snapshot. */
  readonly result: string | null;
  /** Snapshots that are listed, with what is wrong with them; of an act without a fault. */
  readonly snapshots: readonly { readonly id: string; readonly why: string | null }[];
  readonly ledgerIsWhole: boolean;
}

const [dir = "", what = "{}", json = "{}"] = process.argv.slice(2);
const act = JSON.parse(what) as Act;
const fault = JSON.parse(json) as Fault;
const counted = { steps: 0, sql: 0, files: 0, touches: 0, commits: 0 };
let armed = false;

function die(): never {
  process.kill(process.pid, "SIGKILL");
  throw new Error("killed");
}

// ---- steps: everything that a run does to ledger, snapshots and target

function step(): void {
  if (!armed) return;
  counted.steps++;
  if (counted.steps !== fault.at) return;
  if (fault.kind === "kill-step") die();
  if (fault.kind === "end-sessions") serverFault("end");
  if (fault.kind === "crash-server") serverFault("crash");
}

/** Waits until it has happened. */
function serverFault(what: "end" | "crash"): void {
  const program = join(import.meta.dirname, "postgres-fault.js");
  const done = spawnSync(process.execPath, ["--no-warnings", program, fault.url ?? "", what], {
    encoding: "utf8",
  });
  if (done.status !== 0) throw new Error(done.stderr);
}

/** Every function of the record counts as a step, and what it gives is wrapped where `inner` says how. */
function stepping<T extends object>(
  record: T,
  inner: (name: string, result: unknown) => unknown = (_, r) => r,
): T {
  return new Proxy(record, {
    get: (target, name, receiver): unknown => {
      const member: unknown = Reflect.get(target, name, target);
      void receiver;
      if (typeof member !== "function") return member;
      return (...args: unknown[]): unknown => {
        step();
        const result: unknown = Reflect.apply(member, target, args);
        return result instanceof Promise
          ? result.then((r: unknown) => inner(String(name), r))
          : inner(String(name), result);
      };
    },
  });
}

function faulty(tools: Toolbox): Toolbox {
  return {
    ...tools,
    ledger: async () => stepping(await tools.ledger()),
    snapshots: stepping(tools.snapshots),
    plans: stepping(tools.plans),
    openTarget: async (name) => {
      const { target, origins } = await tools.openTarget(name);
      const wrapped = stepping(target, (called, result) =>
        called === "openWriter" ? stepping(result as object) : result,
      );
      return { target: wrapped, origins };
    },
  };
}

// ---- statements: the driver's own functions

function statementDone(work: () => unknown): unknown {
  if (!armed) return work();
  counted.sql++;
  const isIt = counted.sql === fault.at;
  if (isIt && fault.kind === "kill-sql") die();
  if (isIt && fault.kind === "fail-sql") throw ioError();
  const result = work();
  if (isIt && fault.kind === "lose-sql") throw ioError();
  return result;
}

function ioError(): Error {
  return Object.assign(new Error("disk I/O error"), { code: "SQLITE_IOERR" });
}

function wrapMethods(
  prototype: object,
  names: readonly string[],
  around: (work: () => unknown) => unknown,
): void {
  for (const name of names) {
    const original: unknown = Reflect.get(prototype, name);
    if (typeof original !== "function") continue;
    Reflect.defineProperty(prototype, name, {
      configurable: true,
      writable: true,
      value(this: unknown, ...args: unknown[]) {
        return around(() => Reflect.apply(original, this, args));
      },
    });
  }
}

const probe = new Database(":memory:");
wrapMethods(Object.getPrototypeOf(probe) as object, ["exec", "pragma"], statementDone);
wrapMethods(
  Object.getPrototypeOf(probe.prepare("SELECT 1")) as object,
  ["run", "get", "all", "iterate"],
  statementDone,
);
probe.close();

/** The same for PostgreSQL's driver, where an answer that is lost means that the line is gone, too. */
const plainQuery: unknown = Reflect.get(pg.Client.prototype, "query");
Reflect.defineProperty(pg.Client.prototype, "query", {
  configurable: true,
  writable: true,
  value(this: object, ...args: unknown[]): unknown {
    if (typeof plainQuery !== "function") throw new Error("the driver has no query");
    const send = (): unknown => Reflect.apply(plainQuery, this, args);
    if (!armed) return send();
    counted.sql++;
    const isIt = counted.sql === fault.at;
    if (isIt && fault.kind === "kill-sql") die();
    if (isIt && fault.kind === "fail-sql") return Promise.reject(diskFull());
    if (textOf(args[0]) === "COMMIT") counted.commits++;
    const isLost =
      (isIt && fault.kind === "lose-sql") ||
      (fault.kind === "lose-commit" && counted.commits === fault.at && textOf(args[0]) === "COMMIT");
    const sent = send();
    if (!isLost || !(sent instanceof Promise)) return sent;
    const hangUp = (): never => {
      const line: unknown = Reflect.get(Reflect.get(this, "connection") as object, "stream");
      if (line instanceof Socket) line.destroy();
      throw new Error("Connection terminated unexpectedly");
    };
    return sent.then(hangUp, hangUp);
  },
});

function textOf(query: unknown): unknown {
  return typeof query === "object" && query !== null ? Reflect.get(query, "text") : query;
}

function diskFull(): Error {
  return Object.assign(new Error("could not extend file: No space left on device"), { code: "53100" });
}

// ---- files: operations that need room on the disk

function fileTouched(work: () => unknown): unknown {
  if (!armed) return work();
  counted.touches++;
  const isIt = counted.touches === fault.at;
  if (isIt && fault.kind === "kill-file") die();
  if (isIt && fault.kind === "fail-file") throw Object.assign(new Error("EIO: i/o error"), { code: "EIO" });
  return work();
}

const NEED_ROOM = [
  "openSync",
  "writeSync",
  "writeFileSync",
  "fsyncSync",
  "renameSync",
  "linkSync",
  "mkdirSync",
];
wrapMethods(fs, NEED_ROOM, (work) => {
  if (!armed) return work();
  counted.files++;
  if (fault.kind === "disk-full" && counted.files === fault.at)
    throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
  return work();
});
wrapMethods(
  fs,
  [...NEED_ROOM, "readSync", "readFileSync", "readdirSync", "statSync", "fstatSync", "rmSync", "unlinkSync"],
  fileTouched,
);
syncBuiltinESMExports();

// ---- the run

process.chdir(dir);
const wired = await wire({
  cwd: dir,
  env: { PATH: process.env["PATH"], HOME: dir },
  isInteractive: false,
  progress: { begin: () => () => {}, check: () => {}, wave: () => {} },
  narrate: () => {},
  interruption: { requested: () => null, insisted: () => false },
});
const report: { -readonly [K in keyof FaultReport]: FaultReport[K] } = {
  counted,
  ok: true,
  code: null,
  targetChanged: "yes",
  message: "",
  again: null,
  result: null,
  snapshots: [],
  ledgerIsWhole: false,
};

/** What it came to: a plan, a snapshot, a run. */
async function perform(tools: Toolbox): Promise<string | null> {
  switch (act.kind) {
    case "apply":
      return (await applyPlan(tools, { ref: act.plan, tokens: [], dryRun: false, confirm: async () => {} }))
        .run;
    case "rescue": {
      const made = await rescue(tools, {
        on: act.on,
        from: null,
        damage: [parseDamage(act.damage)],
        tables: [],
        columns: [],
        where: undefined,
        timeColumns: [],
        authors: [],
        resolutions: undefined,
        key: "keys/dana",
        out: undefined,
        reason: null,
        born: () => undefined,
      });
      return made.made?.id ?? null;
    }
    case "take":
      return (await takeSnapshot(tools, act.on, act.tables)).manifest.id;
    case "restore":
      return (await restoreSnapshot(tools, act.snapshot, act.to)).id;
    case "prune": {
      const refs = [act.snapshot];
      return (
        await pruneSnapshots(tools, { refs, on: null, keep: null, before: null, evenIfNeeded: false })
      ).removed.join();
    }
    case "forget":
      return (await forgetRun(tools, act.run)).run;
  }
}

async function snapshotsOf(tools: Toolbox): Promise<FaultReport["snapshots"]> {
  const found = [];
  for (const { record, why } of await listSnapshots(tools, null)) {
    const verified = await verifySnapshot(tools, record.id).then(
      () => null,
      (e: unknown) => messageOf(e),
    );
    found.push({ id: record.id, why: why ?? verified });
  }
  return found;
}

armed = true;
try {
  report.result = await perform(faulty(wired.tools));
} catch (e) {
  report.ok = false;
  report.code = e instanceof HoldpointError ? e.code : "ERR_INTERNAL";
  report.targetChanged = e instanceof HoldpointError ? e.targetChanged : "no";
  // What has no code of ours is a fault of ours: the report says where it comes from.
  report.message = e instanceof HoldpointError ? messageOf(e) : ((e as Error).stack ?? messageOf(e));
}
armed = false;
if (fault.kind === "none") {
  try {
    if (act.kind === "apply") await perform(wired.tools);
  } catch (e) {
    report.again = e instanceof HoldpointError ? e.code : messageOf(e);
  }
  if (act.kind !== "apply") report.snapshots = await snapshotsOf(wired.tools);
  report.ledgerIsWhole = (await wired.tools.ledger()).verify([]).ok;
}
wired.close();
process.stdout.write(`${JSON.stringify(report)}\n`);
