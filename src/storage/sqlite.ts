/**
 * The one place of storage that loads better-sqlite3, and the words for its errors. SQLite files of ours
 * are opened here, privately and never through a link.
 */
import { closeSync, lstatSync, openSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import type BetterSqlite3 from "better-sqlite3";
import {
  codeOf,
  type ErrorCode,
  HoldpointError,
  IntegrityError,
  isMachineError,
  messageOf,
  UsageError,
} from "../base/errors.js";
import { machineTroubleOf, machineWhy } from "../base/machine-trouble.js";

/** The driver's constructor. */
export type Sqlite = typeof BetterSqlite3;
/** An open SQLite file. */
export type Database = BetterSqlite3.Database;

/** How long a process waits for another one that holds a lock of our files, in milliseconds. */
export const LOCK_WAIT_MS = 10_000;

/**
 * Loads the driver. Version 13 needs Node-API 10 and otherwise ends the process with a segmentation
 * fault, which nothing can catch: so that is asked before the import.
 * @throws UsageError ERR_USAGE when the installed driver does not fit this Node.
 */
export async function loadSqlite(): Promise<Sqlite> {
  const require = createRequire(import.meta.url);
  const { version } = require("better-sqlite3/package.json") as { readonly version: string };
  const misfit = driverMisfit(version, process.versions);
  if (misfit !== undefined) throw misfit;
  return (await import("better-sqlite3")).default;
}

/** Why a driver version must not be loaded by this Node; undefined when it may. */
export function driverMisfit(
  driver: string,
  node: { readonly napi?: string; readonly node?: string },
): UsageError | undefined {
  const napi = Number(node.napi ?? "0");
  if (Number.parseInt(driver, 10) < 13 || napi >= 10) return undefined;
  return new UsageError({
    code: "ERR_USAGE",
    message: `better-sqlite3 ${driver} cannot run on Node ${node.node ?? "of unknown version"}`,
    why: `it needs Node-API 10 (Node 22.14 or newer), this Node offers ${napi}`,
    next: [
      {
        actor: "anyone",
        text: "use Node 22.14 or newer, or run `npm ci` again on the Node that will be used",
      },
    ],
  });
}

/**
 * Creates an empty private file (0600) where nothing is yet; an existing one is left alone. SQLite gives its
 * side files the same mode. Exclusive creation matters twice: a link that lies in wait is not followed, and
 * an existing database is not opened and closed here, which would drop SQLite's POSIX locks on it.
 */
export function touchPrivate(path: string): void {
  try {
    closeSync(openSync(path, "wx", 0o600));
  } catch (e) {
    if (codeOf(e) !== "EEXIST") throw storageFailure("create", path, e);
  }
}

/**
 * Whether a plain file of ours is there.
 * @throws UsageError ERR_STORE_UNSAFE when something stands there that is not a plain file: a link could lead
 * writes to another place.
 */
export function plainFileAt(path: string): boolean {
  const found = storing("read", path, () => lstatSync(path, { throwIfNoEntry: false }));
  if (found === undefined) return false;
  if (found.isFile()) return true;
  throw new UsageError({
    code: "ERR_STORE_UNSAFE",
    message: `${path} is not a plain file`,
    why: `expected a file of the store, found ${found.isSymbolicLink() ? "a symbolic link" : "something else"}`,
    next: [{ actor: "anyone", argv: ["ls", "-l", path] }],
  });
}

/** `name` as an SQL identifier. */
export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/**
 * An error of the driver in our words: a busy file, a damaged one (`damaged` says which code), or a failure
 * to read or write. Errors that are ours already pass through.
 */
export function sqliteFailure(act: string, path: string, damaged: ErrorCode, cause: unknown): HoldpointError {
  if (cause instanceof HoldpointError) return cause;
  const code = codeOf(cause) ?? "";
  if (code.startsWith("SQLITE_BUSY")) return busy(path, cause);
  if (isDamage(cause)) {
    return new IntegrityError({
      code: damaged,
      message: `${path} is damaged`,
      why: `expected an SQLite file that we wrote, SQLite says: ${messageOf(cause)}`,
      cause,
    });
  }
  return storageFailure(act, path, cause);
}

/** Whether the driver says that the file's content is broken, rather than busy or out of reach. */
export function isDamage(e: unknown): boolean {
  const code = codeOf(e) ?? "";
  return ["SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT", "SQLITE_SCHEMA", "SQLITE_ERROR"].some((c) =>
    code.startsWith(c),
  );
}

/** A file of the store could not be read or written. */
export function storageFailure(act: string, path: string, cause: unknown): HoldpointError {
  if (cause instanceof HoldpointError) return cause;
  return new HoldpointError({
    code: "ERR_STORE_FAILED",
    message: `could not ${act} ${path}`,
    why: machineWhy(cause),
    next: [{ actor: "anyone", text: machineTroubleOf(cause).todo }],
    cause,
  });
}

/**
 * Does `work`, and words what the machine refuses of it. Anything else passes through: a fault of ours must not read as one of
 * the disk.
 */
export function storing<T>(act: string, path: string, work: () => T): T {
  try {
    return work();
  } catch (e) {
    throw machineFailure(act, path, e);
  }
}

/** {@link storing}, for work that takes its time. */
export async function storingAsync<T>(act: string, path: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (e) {
    throw machineFailure(act, path, e);
  }
}

function machineFailure(act: string, path: string, e: unknown): unknown {
  return isMachineError(e) ? sqliteFailure(act, path, "ERR_STORE_FAILED", e) : e;
}

/** Removes a file of ours, if it is there. @throws HoldpointError ERR_STORE_FAILED when the disk refuses. */
export function discard(path: string): void {
  storing("remove", path, () => rmSync(path, { force: true }));
}

function busy(path: string, cause: unknown): HoldpointError {
  return new HoldpointError({
    code: "ERR_STORE_BUSY",
    message: `${path} is in use by another process`,
    why: `waited ${LOCK_WAIT_MS / 1000} s for its lock`,
    next: [{ actor: "anyone", text: "run the command again when the other holdpoint process has ended" }],
    cause,
  });
}
