/**
 * "Which run touched this row?", answered without keeping a key: `rows.db` holds, for each row of each run, a
 * digest of table and key under a secret of this store. It can be deleted at any time, run by run or whole; the
 * ledger does not depend on it.
 */
import { hash } from "node:crypto";
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
  quoteName,
  type Sqlite,
  sqliteFailure,
  storageFailure,
  touchPrivate,
} from "./sqlite.js";

/** `hpri`, in the file's header. */
const APPLICATION_ID = 0x68_70_72_69;
const SECRET_BYTES = 32;
/** 128 bits: two rows of one store that meet by chance need some 2^64 rows. See {@link rowDigests}. */
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
    return indexOver(sqlite, db, file, secret);
  } catch (e) {
    db.close();
    throw e;
  }
}

function indexOver(sqlite: Sqlite, db: Database, file: string, secret: Uint8Array): RowIndex {
  const indexAll = (run: string, source: ChangeSource): void => {
    // A run is indexed in one transaction: what is known of it is all of it.
    if (db.prepare("INSERT OR IGNORE INTO run (name) VALUES (?)").run(run).changes === 0) return;
    const id: unknown = db.prepare("SELECT id FROM run WHERE name = ?").pluck().get(run);
    const add = db.prepare("INSERT INTO run_digests (run, segment, first, rows) VALUES (?, ?, ?, ?)");
    let number = 0;
    for (const segment of segmentsOf(digestsOf(sqlite, secret, source))) {
      for (const { first, rows } of blocksOf(segment)) add.run(id, number, first, rows);
      number++;
    }
  };
  // Of each segment the one block that could hold it is looked into by the engine: handing over those of every run takes longer.
  const blocks = db.prepare(`SELECT name, (SELECT rows FROM run_digests AS b
      WHERE b.run = s.run AND b.segment = s.segment AND b.first <= @first ORDER BY b.first DESC LIMIT 1) AS block
    FROM (SELECT DISTINCT run, segment FROM run_digests) AS s JOIN run ON run.id = s.run
    WHERE instr(block, @wanted) > 0 ORDER BY run.id, s.segment`);
  const runsOf = (table: string, key: RowKey): readonly string[] => {
    const wanted = Buffer.alloc(DIGEST_BYTES);
    rowDigests(secret, table)(keyBytes(key), wanted, 0);
    const found = blocks.raw().all({ first: wanted.readUInt32BE(), wanted }) as readonly (readonly [
      string,
      Buffer,
    ])[];
    // Found where no digest begins it is none.
    const names = found.filter(([, rows]) => holds(rows, wanted)).map(([name]) => name);
    return [...new Set(names)];
  };
  const forget = (run: string): void => {
    db.prepare("DELETE FROM run_digests WHERE run = (SELECT id FROM run WHERE name = ?)").run(run);
    db.prepare("DELETE FROM run WHERE name = ?").run(run);
  };
  return {
    indexRun: (run, source) => guarded(file, () => db.transaction(() => indexAll(run, source)).immediate()),
    runsOf: (table, key) => guarded(file, () => runsOf(table, key)),
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
      CREATE TABLE IF NOT EXISTS run_digests (run INTEGER NOT NULL, segment INTEGER NOT NULL, first INTEGER NOT NULL,
        rows BLOB NOT NULL, PRIMARY KEY (run, segment, first)) STRICT, WITHOUT ROWID;
    `);
  }).immediate();
}

// ---- digests, in blocks. A row of an index for each row of a run cost as much as writing the run (measured).

/** Digests that are sorted in memory at a time; the number of one fits into 20 bits, see {@link blocksOf}. */
const SEGMENT_ROWS = 2 ** 18;
/** Digests of one block: 4 KiB. */
const BLOCK_ROWS = 256;

/** The digests of all rows, one after another into the place that is asked for. */
type WriteDigest = (into: Buffer, at: number) => void;

function* digestsOf(sqlite: Sqlite, secret: Uint8Array, source: ChangeSource): Iterable<WriteDigest> {
  for (const { name } of source.tables) {
    const digest = rowDigests(secret, name);
    for (const key of keysOf(sqlite, source, name)) yield (into, at) => digest(key, into, at);
  }
}

/** Where the changes lie in a file their keys' bytes lie there too, and nothing else need be read. */
function* keysOf(sqlite: Sqlite, source: ChangeSource, table: string): Iterable<Uint8Array> {
  const stored = source.stored?.table(table);
  if (source.stored === undefined || stored === undefined || stored.above !== null || stored.upTo !== null) {
    for (const change of source.changes(table)) yield keyBytes(change.key);
    return;
  }
  const db = new sqlite(source.stored.path, { readonly: true, fileMustExist: true });
  try {
    yield* keysIn(db, quoteName(stored.name));
  } finally {
    db.close();
  }
}

/** Keys that are handed over together, and the bytes that they may have. */
const [KEYS_AT_ONCE, BYTES_AT_ONCE] = [1_000, 256 * 1024];

/** All keys of a table, ascending; short ones many at a time, in hexadecimal, since each handing over has its price. */
function* keysIn(db: Database, table: string): Iterable<Uint8Array> {
  const page = `(SELECT key FROM ${table} WHERE key > ? ORDER BY key LIMIT ${KEYS_AT_ONCE})`;
  const sizes = db.prepare(`SELECT max(key), sum(length(key)) FROM ${page}`).raw();
  const together = db.prepare(`SELECT group_concat(hex(key)) FROM ${page}`).pluck();
  const single = db.prepare(`SELECT key FROM ${page}`).pluck();
  for (let above: Uint8Array = Buffer.of(); ;) {
    const [last, bytes] = sizes.get(above) as readonly [Uint8Array | null, number | null];
    if (last === null) return;
    if ((bytes ?? 0) <= BYTES_AT_ONCE)
      for (const key of String(together.get(above)).split(",")) yield Buffer.from(key, "hex");
    else for (const key of single.iterate(above)) yield key as Uint8Array;
    above = last;
  }
}

/**
 * Digests of a table's keys under the store's secret: the first 128 bits of SHA-256 over secret, length of the table's name,
 * name and key. The length goes before the name, so that no table and key read as another table and another key; what is
 * cut off cannot be continued by anybody who does not know the secret.
 */
function rowDigests(secret: Uint8Array, table: string): (key: Uint8Array, into: Buffer, at: number) => void {
  const name = Buffer.from(table, "utf8");
  const length = Buffer.alloc(4);
  length.writeUInt32BE(name.length);
  const head = Buffer.concat([secret, length, name]);
  let text = Buffer.alloc(head.length + 64);
  text.set(head);
  return (key, into, at) => {
    const end = head.length + key.length;
    if (end > text.length) text = Buffer.concat([head, Buffer.alloc(2 * key.length)]);
    text.set(key, head.length);
    // As text, which is twice as fast to hand over as a buffer (measured); `write` takes as many bytes as there is room for.
    into.write(hash("sha256", text.subarray(0, end), "binary"), at, DIGEST_BYTES, "latin1");
  };
}

function* segmentsOf(digests: Iterable<WriteDigest>): Iterable<Buffer> {
  let segment = Buffer.allocUnsafe(0);
  let rows = 0;
  for (const write of digests) {
    if (rows * DIGEST_BYTES === segment.length)
      segment = Buffer.concat([segment], Math.max(2 * segment.length, BLOCK_ROWS * DIGEST_BYTES));
    write(segment, rows++ * DIGEST_BYTES);
    if (rows < SEGMENT_ROWS) continue;
    yield segment.subarray(0, rows * DIGEST_BYTES);
    rows = 0;
  }
  if (rows > 0) yield segment.subarray(0, rows * DIGEST_BYTES);
}

/** The digests ordered by their first 32 bits, in blocks that no such beginning is shared by. */
function* blocksOf(segment: Buffer): Iterable<{ readonly first: number; readonly rows: Buffer }> {
  const count = segment.length / DIGEST_BYTES;
  // Beginning and number in one float, exactly: typed arrays are sorted twenty times as fast as objects.
  const order = Float64Array.from(
    { length: count },
    (_, i) => segment.readUInt32BE(i * DIGEST_BYTES) * 2 ** 20 + i,
  ).sort();
  const sorted = Buffer.allocUnsafe(segment.length);
  order.forEach((entry, place) => {
    const from = (entry % 2 ** 20) * DIGEST_BYTES;
    segment.copy(sorted, place * DIGEST_BYTES, from, from + DIGEST_BYTES);
  });
  const beginning = (place: number): number => sorted.readUInt32BE(place * DIGEST_BYTES);
  for (let from = 0; from < count;) {
    let to = Math.min(from + BLOCK_ROWS, count);
    while (to < count && beginning(to) === beginning(to - 1)) to++;
    yield { first: beginning(from), rows: sorted.subarray(from * DIGEST_BYTES, to * DIGEST_BYTES) };
    from = to;
  }
}

function holds(rows: Buffer, wanted: Buffer): boolean {
  for (let at = rows.indexOf(wanted); at !== -1; at = rows.indexOf(wanted, at + 1))
    if (at % DIGEST_BYTES === 0) return true;
  return false;
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
