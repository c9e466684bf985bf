/**
 * The one place where the driver is loaded and connections are opened. Everything else in this folder
 * works on {@link Connection}: rows as arrays, integers as `bigint`, statements prepared once.
 */
import { createRequire } from "node:module";
import { realpathSync, statSync } from "node:fs";
import { readFileSync } from "node:fs";
import type Database from "better-sqlite3";
import { codeOf, messageOf, TargetError } from "../../base/errors.js";

/** What a cell looks like as the driver gives it; text that is not valid UTF-8 has lost bytes here (`values.ts`). */
export type Cell = null | bigint | number | string | Buffer;

/** The driver's module: opens a database file, or an anonymous one for `""`. */
export type Driver = typeof Database;

/**
 * Loads better-sqlite3. Version 13 needs Node-API 10 and ends the process with a segmentation fault on an
 * older Node, which nobody can catch: so its version is read from its package file first.
 * @throws TargetError ERR_TARGET_UNSUPPORTED on such a Node.
 */
export async function loadDriver(): Promise<Driver> {
  const path = createRequire(import.meta.url).resolve("better-sqlite3/package.json");
  const major = /"version":\s*"(\d+)\./.exec(readFileSync(path, "utf8"))?.[1];
  if (!driverFitsNode(Number(major), Number(process.versions.napi ?? 0))) {
    throw new TargetError({
      code: "ERR_TARGET_UNSUPPORTED",
      message: `better-sqlite3 ${major} does not run on Node ${process.version}`,
      why: `it needs Node-API 10, this Node has ${process.versions.napi ?? "none"}`,
      next: [{ actor: "anyone", text: "use Node 22.14 or newer, or install better-sqlite3@12 on this Node" }],
    });
  }
  return (await import("better-sqlite3")).default;
}

/** Whether a driver of that major version can be loaded where Node-API is at `napi`. */
export function driverFitsNode(major: number, napi: number): boolean {
  return major < 13 || napi >= 10;
}

/** How a connection is opened. */
export interface OpenOptions {
  readonly readonly: boolean;
  /** How long SQLite waits for a lock before `SQLITE_BUSY`, in milliseconds. */
  readonly busyMs: number;
  readonly foreignKeys: boolean;
}

/**
 * Checks that `path` is a file that SQLite may be asked to open, without opening it: reading a database
 * file with `fs` in a process that has a connection to it would drop SQLite's POSIX locks (fcntl locks
 * belong to the process, and any close of any descriptor of the file releases them). `stat` does not.
 * @returns the real path.
 * @throws TargetError ERR_TARGET_UNREACHABLE when there is no such file, or it is not a plain file.
 */
export function locate(path: string): string {
  let real: string;
  try {
    real = realpathSync(path);
    if (!statSync(real).isFile()) throw unreachable(path, "it is not a file");
  } catch (e) {
    if (e instanceof TargetError) throw e;
    throw unreachable(path, codeOf(e) === "ENOENT" ? "there is no such file" : messageOf(e), e);
  }
  // The driver trims file names, and would open (or miss) another file than the one named here.
  if (real.trim() !== real) throw unreachable(path, "its name begins or ends with white space");
  return real;
}

/**
 * Opens an existing database file; never creates one.
 * @throws TargetError ERR_TARGET_UNREACHABLE when it cannot be read as a database, ERR_TARGET_BUSY when it is locked.
 */
export function openFile(driver: Driver, path: string, options: OpenOptions): Connection {
  let connection: Connection | undefined;
  try {
    const db = new driver(path, { readonly: options.readonly, fileMustExist: true, timeout: options.busyMs });
    connection = new Connection(db, path);
    connection.exec(`PRAGMA foreign_keys = ${options.foreignKeys ? "ON" : "OFF"}`);
    connection.value("SELECT count(*) FROM sqlite_schema");
    return connection;
  } catch (e) {
    connection?.close();
    throw asTargetError(e, path);
  }
}

/** Turns a driver's error into ours: locked is ERR_TARGET_BUSY, everything else ERR_TARGET_UNREACHABLE. */
export function asTargetError(e: unknown, path: string): TargetError {
  if (e instanceof TargetError) return e;
  return isBusy(e) ? busy(path, messageOf(e), e) : unreachable(path, messageOf(e), e);
}

/** What the driver or the system refused while a target that is open was read or written. */
export function driverFailure(e: unknown, path: string): TargetError {
  if (isBusy(e)) return busy(path, messageOf(e), e);
  return new TargetError({
    code: "ERR_TARGET_UNREACHABLE",
    message: `${path} could not be read or written`,
    why: messageOf(e),
    cause: e,
  });
}

/** Whether the error says that another connection holds a lock. */
export function isBusy(e: unknown): boolean {
  return /^SQLITE_(BUSY|LOCKED)/.test(codeOf(e) ?? "");
}

/** Whether the error says that a constraint was violated. */
export function isConstraint(e: unknown): boolean {
  return (codeOf(e) ?? "").startsWith("SQLITE_CONSTRAINT");
}

/** The refusal when a lock could not be had in time. */
export function busy(path: string, why: string, cause?: unknown): TargetError {
  return new TargetError({
    code: "ERR_TARGET_BUSY",
    message: `another connection holds ${path}`,
    why,
    next: [{ actor: "anyone", text: "try again when the other writer is done" }],
    cause,
  });
}

function unreachable(path: string, why: string, cause?: unknown): TargetError {
  return new TargetError({
    code: "ERR_TARGET_UNREACHABLE",
    message: `cannot open ${path} as an SQLite database`,
    why,
    cause,
  });
}

type Prepared = Database.Statement<unknown[], Cell[]>;

/** One connection. Closed by whoever opened it, in `finally`. */
export class Connection {
  readonly db: Database.Database;
  readonly path: string;
  readonly #statements = new Map<string, Prepared>();

  constructor(db: Database.Database, path: string) {
    this.db = db;
    this.path = path;
    db.defaultSafeIntegers(true);
  }

  /** All rows of a query. */
  rows(sql: string, ...values: readonly unknown[]): readonly (readonly Cell[])[] {
    return this.#prepared(sql).all(...values);
  }

  /** The first row. */
  row(sql: string, ...values: readonly unknown[]): readonly Cell[] | undefined {
    return this.#prepared(sql).get(...values);
  }

  /** The first cell of the first row; null when there is no row. */
  value(sql: string, ...values: readonly unknown[]): Cell {
    return this.row(sql, ...values)?.[0] ?? null;
  }

  /** A query's rows one by one. A fresh statement each time, so that iterations may nest. */
  iterate(sql: string, ...values: readonly unknown[]): IterableIterator<readonly Cell[]> {
    return this.db
      .prepare<unknown[], Cell[]>(sql)
      .raw()
      .iterate(...values);
  }

  /** Runs a statement; how many rows it changed itself (not through triggers or cascades). */
  run(sql: string, ...values: readonly unknown[]): number {
    return this.#prepared(sql).run(...values).changes;
  }

  /** Runs statements without values. */
  exec(sql: string): void {
    this.db.exec(sql);
  }

  /** Rolls back if a transaction is open (some errors have ended it already). */
  rollback(): void {
    if (this.db.inTransaction) this.db.exec("ROLLBACK");
  }

  close(): void {
    this.#statements.clear();
    this.db.close();
  }

  #prepared(sql: string): Prepared {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const fresh = this.db.prepare<unknown[], Cell[]>(sql);
    if (fresh.reader) fresh.raw();
    this.#statements.set(sql, fresh);
    return fresh;
  }
}
