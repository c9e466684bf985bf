/**
 * Where faults are put: around the real toolbox, the real drivers and the file operations of Node, from outside. The
 * product knows nothing of them. Loading this wraps the drivers of the process for good; nothing is counted until
 * {@link arm}.
 */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { Socket } from "node:net";
import { join } from "node:path";
import Database from "better-sqlite3";
import pg from "pg";
import type { Toolbox } from "../../src/operations/toolbox.js";
import { diskState } from "./disk-state.js";
import type { Counted, Fault, Instant } from "./fault.js";

const NOTHING = { steps: 0, sql: 0, files: 0, touches: 0, commits: 0 };
let counted: { -readonly [K in keyof Counted]: Counted[K] } = { ...NOTHING };
let fault: Fault = { kind: "none", at: 0 };
let isArmed = false;
/** The folder whose states are told apart, while an act is watched. */
let watched: string | null = null;
let lastState = "";
let instants: Instant[] = [];
/** Statements after which a server may keep something. */
let onServer = 0;

/** From now on things are counted, and the fault happens. */
export function arm(what: Fault, watch: string | null): void {
  counted = { ...NOTHING };
  instants = [];
  fault = what;
  watched = watch;
  lastState = "";
  isArmed = true;
}

/** Nothing is counted any more. Gives what was. */
export function disarm(): { readonly counted: Counted; readonly instants: readonly Instant[] } {
  isArmed = false;
  return { counted, instants };
}

function die(): never {
  process.kill(process.pid, "SIGKILL");
  throw new Error("killed");
}

/** What a kill leaves is what lies on the disk: instants between which nothing was written there are one. */
function look(kind: Instant["kind"], at: number): void {
  if (watched === null) return;
  isArmed = false;
  const state = `${diskState(watched)} ${onServer}`;
  isArmed = true;
  if (state === lastState) return;
  lastState = state;
  instants.push({ kind, at });
}

// ---- steps: everything that a run does to ledger, snapshots and target

function step(): void {
  if (!isArmed) return;
  counted.steps++;
  look("kill-step", counted.steps);
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
    get: (target, name): unknown => {
      const member: unknown = Reflect.get(target, name, target);
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

/** The toolbox with its steps counted. */
export function faulty(tools: Toolbox): Toolbox {
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
  if (!isArmed) return work();
  counted.sql++;
  look("kill-sql", counted.sql);
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
    if (!isArmed) return send();
    counted.sql++;
    look("kill-sql", counted.sql);
    if (!READS.test(String(textOf(args[0])))) onServer++;
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

/** What leaves nothing behind when the client dies after it; whatever is not known to, may. */
const READS =
  /^\s*(SELECT(?!.*(nextval|setval))|SHOW|BEGIN|START|SAVEPOINT|RELEASE|SET|DECLARE|FETCH|CLOSE|LOCK|ROLLBACK)\b/is;

function textOf(query: unknown): unknown {
  return typeof query === "object" && query !== null ? Reflect.get(query, "text") : query;
}

function diskFull(): Error {
  return Object.assign(new Error("could not extend file: No space left on device"), { code: "53100" });
}

// ---- files: operations that need room on the disk, and all of them

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
  if (!isArmed) return work();
  counted.files++;
  if (fault.kind === "disk-full" && counted.files === fault.at)
    throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
  return work();
});
wrapMethods(
  fs,
  [...NEED_ROOM, "readSync", "readFileSync", "readdirSync", "statSync", "fstatSync", "rmSync", "unlinkSync"],
  (work) => {
    if (!isArmed) return work();
    counted.touches++;
    look("kill-file", counted.touches);
    const isIt = counted.touches === fault.at;
    if (isIt && fault.kind === "kill-file") die();
    if (isIt && fault.kind === "fail-file") throw Object.assign(new Error("EIO: i/o error"), { code: "EIO" });
    return work();
  },
);
syncBuiltinESMExports();
