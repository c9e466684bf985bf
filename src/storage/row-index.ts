/**
 * "Which run touched this row?", answered without keeping a key: `rows.db` holds, for each row of each run, a
 * digest of table and key under a secret of this store. It can be deleted at any time, run by run or whole; the
 * ledger does not depend on it.
 */
import { createHmac } from "node:crypto";
import { join } from "node:path";
import type { Random } from "../base/clock.js";
import { codeOf, IntegrityError } from "../base/errors.js";
import type { ChangeSource, RowKey } from "../changeset/change.js";
import { keyBytes } from "../changeset/key.js";
import { readAt, withFile, writeWhole } from "./files.js";
import {
  type Database,
  loadSqlite,
  LOCK_WAIT_MS,
  plainFileAt,
  sqliteFailure,
  storageFailure,
  touchPrivate,
} from "./sqlite.js";

/** `hpri`, in the file's header. */
const APPLICATION_ID = 0x68_70_72_69;
const SECRET_BYTES = 32;
/** 128 bits: two rows of one store that meet by chance need some 2^64 rows. */
const DIGEST_BYTES = 16;

/** The index of touched rows. Close it in `finally`. */
export interface RowIndex {
  /** Records every row of a run's ChangeSet, in one transaction; doing it again changes nothing. */
  readonly indexRun: (run: string, source: ChangeSource) => void;
  /** The runs that touched a row, in the order in which they were indexed. */
  readonly runsOf: (table: string, key: RowKey) => readonly string[];
  /** Forgets a run's rows. */
  readonly forget: (run: string) => void;
  readonly close: () => void;
}

/**
 * Opens the index in a store's folder, and makes it where there is none. Without its secret an index is
 * unreadable for ever, so a lost one starts an empty index.
 * @throws IntegrityError ERR_STORE_FAILED when its file or its secret is damaged.
 */
export async function openRowIndex(folder: string, deps: { readonly random: Random }): Promise<RowIndex> {
  const sqlite = await loadSqlite();
  const file = join(folder, "rows.db");
  const secret = secretAt(join(folder, "rows.secret"), deps.random);
  plainFileAt(file);
  touchPrivate(file);
  const db = new sqlite(file, { timeout: LOCK_WAIT_MS, fileMustExist: true });
  try {
    guarded(file, () => prepare(db));
    return indexOver(db, file, secret);
  } catch (e) {
    db.close();
    throw e;
  }
}

function indexOver(db: Database, file: string, secret: Uint8Array): RowIndex {
  const add = db.prepare("INSERT OR IGNORE INTO run_rows (row, run) VALUES (?, ?)");
  const runsOf = db.prepare(
    "SELECT run.name FROM run_rows JOIN run ON run.id = run_rows.run WHERE run_rows.row = ? ORDER BY run.id",
  );
  const indexAll = (run: string, source: ChangeSource): void => {
    db.prepare("INSERT OR IGNORE INTO run (name) VALUES (?)").run(run);
    const id: unknown = db.prepare("SELECT id FROM run WHERE name = ?").pluck().get(run);
    for (const { name } of source.tables) {
      for (const change of source.changes(name)) add.run(rowDigest(secret, name, change.key), id);
    }
  };
  const forget = (run: string): void => {
    db.prepare("DELETE FROM run_rows WHERE run = (SELECT id FROM run WHERE name = ?)").run(run);
    db.prepare("DELETE FROM run WHERE name = ?").run(run);
  };
  return {
    indexRun: (run, source) => guarded(file, () => db.transaction(() => indexAll(run, source)).immediate()),
    runsOf: (table, key) =>
      guarded(file, () => runsOf.pluck().all(rowDigest(secret, table, key)) as readonly string[]),
    forget: (run) => guarded(file, () => db.transaction(() => forget(run)).immediate()),
    close: () => void db.close(),
  };
}

function prepare(db: Database): void {
  db.pragma("secure_delete = ON"); // forgotten is gone from the file's free pages too
  db.transaction(() => {
    db.pragma(`application_id = ${APPLICATION_ID}`);
    db.exec(`
      CREATE TABLE IF NOT EXISTS run (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
      CREATE TABLE IF NOT EXISTS run_rows (row BLOB NOT NULL, run INTEGER NOT NULL, PRIMARY KEY (row, run)) STRICT, WITHOUT ROWID;
      CREATE INDEX IF NOT EXISTS run_rows_run ON run_rows (run);
    `);
  }).immediate();
}

/** The table's length goes first, so that no table and key read as another table and another key. */
function rowDigest(secret: Uint8Array, table: string, key: RowKey): Uint8Array {
  const name = Buffer.from(table, "utf8");
  const length = Buffer.alloc(4);
  length.writeUInt32BE(name.length);
  const mac = createHmac("sha256", secret).update(length).update(name).update(keyBytes(key));
  return mac.digest().subarray(0, DIGEST_BYTES);
}

function secretAt(path: string, random: Random): Uint8Array {
  const there = readSecret(path);
  if (there !== null) return there;
  try {
    writeWhole(path, [random(SECRET_BYTES)], "refuse");
  } catch (e) {
    if (codeOf(e) !== "ERR_USAGE") throw e; // another process was first: its secret is the one
  }
  return readSecret(path) ?? broken(path, "expected a secret, found nothing");
}

function readSecret(path: string): Uint8Array | null {
  try {
    const bytes = withFile(path, { followLinks: false }, (fd) => readAt(fd, 0, SECRET_BYTES + 1));
    return bytes.length === SECRET_BYTES
      ? bytes
      : broken(path, `expected ${SECRET_BYTES} bytes, found ${bytes.length}`);
  } catch (e) {
    if (codeOf(e) === "ENOENT") return null;
    throw storageFailure("read", path, e);
  }
}

function broken(path: string, why: string): never {
  throw new IntegrityError({
    code: "ERR_STORE_FAILED",
    message: `${path} is not the secret of the row index`,
    why,
    next: [
      {
        actor: "anyone",
        text: "remove rows.db and rows.secret: the index starts anew, the ledger is not touched",
      },
    ],
  });
}

function guarded<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (e) {
    throw sqliteFailure("use", file, "ERR_STORE_FAILED", e);
  }
}
