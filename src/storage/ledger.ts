/**
 * The ledger's store: one SQLite file whose rows are the exact bytes of the entries, with columns for
 * look-ups beside them. Format page: `docs/formats/ledger.md`.
 *
 * Appending takes SQLite's write lock first (`BEGIN IMMEDIATE`, waiting up to ten seconds), so any number of
 * processes append one after another and none is lost. A rollback journal instead of a write-ahead log: the
 * whole ledger is then one file at rest, and a copy of it cannot miss its tail.
 */
import { join } from "node:path";
import type { Statement } from "better-sqlite3";
import type { Clock, Random } from "../base/clock.js";
import { stamp } from "../base/clock.js";
import { HoldpointError, IntegrityError, messageOf } from "../base/errors.js";
import { idFromBytes } from "../base/ids.js";
import {
  checkEntry,
  EMPTY_DIGEST,
  entryBytes,
  MAX_ENTRY_BYTES,
  readStored,
  sealEntry,
  type StoredEntry,
  verifyChain,
} from "../ledger/chain.js";
import type {
  Anchor,
  Entry,
  EntryKind,
  LedgerStore,
  NewEntry,
  SealedEntry,
  Verification,
} from "../ledger/entry.js";
import { readHeadFile, writeHeadFile } from "./ledger-head.js";
import {
  type Database,
  isDamage,
  loadSqlite,
  LOCK_WAIT_MS,
  plainFileAt,
  type Sqlite,
  sqliteFailure,
  touchPrivate,
} from "./sqlite.js";

/** `hpld`, in the file's header: it is one of our ledgers. */
const APPLICATION_ID = 0x68_70_6c_64;
const FORMAT = 1;
const PAGE_ROWS = 500;

/** In the order of their names, as {@link schemaOf} reads them back. The triggers stop mistakes; the chain finds malice. */
const SCHEMA = [
  `CREATE TABLE entry (sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, target TEXT, plan TEXT, run TEXT, digest TEXT NOT NULL, bytes BLOB NOT NULL) STRICT`,
  `CREATE INDEX entry_kind ON entry (kind, sequence)`,
  `CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END`,
  `CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END`,
  `CREATE INDEX entry_plan ON entry (plan, sequence) WHERE plan IS NOT NULL`,
  `CREATE INDEX entry_run ON entry (run, sequence) WHERE run IS NOT NULL`,
  `CREATE INDEX entry_target ON entry (target, sequence) WHERE target IS NOT NULL`,
] as const;

/** Time and randomness for new entries. */
export interface LedgerDeps {
  readonly clock: Clock;
  readonly random: Random;
}

/** What the columns of one row hold, as SQLite gives them: nothing is believed yet. */
interface EntryRow {
  readonly sequence: unknown;
  readonly kind: unknown;
  readonly target: unknown;
  readonly plan: unknown;
  readonly run: unknown;
  readonly digest: unknown;
  readonly bytes: unknown;
}

type Filter = NonNullable<Parameters<LedgerStore["entries"]>[0]>;

/**
 * Opens the ledger in a store's folder. Nothing is created: a store without a ledger has the head `null`
 * until {@link LedgerStore.create}.
 * @throws IntegrityError ERR_LEDGER_MISSING when `ledger.head` is there and the ledger is not.
 * @throws IntegrityError ERR_LEDGER_BROKEN when the file is not a ledger of ours.
 */
export async function openLedger(folder: string, deps: LedgerDeps): Promise<LedgerStore> {
  const ledger = new LedgerFile(await loadSqlite(), folder, deps);
  try {
    ledger.head();
  } catch (e) {
    // A broken chain must stay openable, or nobody could ask `log verify` where it breaks.
    if (!(e instanceof IntegrityError) || e.code !== "ERR_LEDGER_BROKEN" || !ledger.isOurs()) {
      ledger.close();
      throw e;
    }
  }
  return ledger;
}

class LedgerFile implements LedgerStore {
  readonly #sqlite: Sqlite;
  readonly #deps: LedgerDeps;
  readonly #file: string;
  readonly #headFile: string;
  #db: Database | null = null;

  constructor(sqlite: Sqlite, folder: string, deps: LedgerDeps) {
    this.#sqlite = sqlite;
    this.#deps = deps;
    this.#file = join(folder, "ledger.db");
    this.#headFile = join(folder, "ledger.head");
  }

  head = (): { ledger: string; sequence: number; head: Entry["previous"] } | null => {
    return this.#guarded("read", () => {
      // The sidecar first: read after the rows, it could already name an entry of another process.
      const anchor = readHeadFile(this.#headFile);
      const db = this.#open(anchor);
      const last = db === null ? null : this.#last(db, anchor);
      return last === null ? null : headOf(last);
    });
  };

  lastAt = (): string | null => {
    return this.#guarded("read", () => {
      const anchor = readHeadFile(this.#headFile);
      const db = this.#open(anchor);
      return db === null ? null : (this.#last(db, anchor)?.entry.at ?? null);
    });
  };

  create = (): SealedEntry => {
    return this.#guarded("create", () => {
      const anchor = readHeadFile(this.#headFile);
      if (this.#open(anchor) === null) this.#connect(true);
      const db = this.#mustBeOpen();
      const first = db.transaction(() => this.#first(db)).immediate();
      this.#saveHead(db);
      return first;
    });
  };

  append = (entry: NewEntry): SealedEntry => {
    return this.#guarded("append to", () => {
      const db =
        this.#open(readHeadFile(this.#headFile)) ??
        fail(missing(this.#file, "expected a ledger to append to, found none"));
      // The answer to an earlier BEGIN was lost: inside its transaction this entry would be sealed and never committed.
      if (db.inTransaction) db.exec("ROLLBACK");
      const sealed = db.transaction(() => this.#next(db, entry)).immediate();
      this.#saveHead(db);
      return sealed;
    });
  };

  entries = (filter: Filter = {}): Iterable<SealedEntry> => this.#entries(filter);

  verify = (anchors: readonly Anchor[]): Verification => {
    try {
      return this.#guarded("read", () => this.#verify(anchors));
    } catch (e) {
      if (e instanceof IntegrityError)
        return { ok: false, entries: 0, firstBad: 0, why: `${e.message}: ${e.why ?? ""}` };
      throw e;
    }
  };

  close = (): void => {
    this.#db?.close();
    this.#db = null;
  };

  /** Whether a ledger of our format is open, however broken its chain is. */
  isOurs(): boolean {
    return this.#db !== null;
  }

  #verify(given: readonly Anchor[]): Verification {
    const sidecar = readHeadFile(this.#headFile);
    const db = this.#open(sidecar);
    if (db === null) return verifyChain([], null, given);
    const anchors = sidecar === null ? given : [...given, sidecar];
    const chain = verifyChain(readable(rowsOf(db, {})), null, anchors);
    if (!chain.ok) return chain;
    const why =
      schemaMisfit(db) ?? (sidecar === null && chain.entries > 1 ? "ledger.head is missing" : undefined);
    return why === undefined ? chain : { ok: false, entries: chain.entries, firstBad: 0, why };
  }

  *#entries(filter: Filter): Iterable<SealedEntry> {
    const db = this.#guarded("read", () => this.#open(readHeadFile(this.#headFile)));
    if (db === null) return;
    const rows = rowsOf(db, filter)[Symbol.iterator]();
    for (;;) {
      const row = this.#guarded("read", () => rows.next());
      if (row.done === true) return;
      const read = readStored(storedOf(row.value));
      if (!read.ok) throw broken(this.#file, `entry ${String(row.value.sequence)}: ${read.why}`);
      yield read.sealed;
    }
  }

  /** The first entry of a new ledger; runs under the write lock. */
  #first(db: Database): SealedEntry {
    if (schemaOf(db).length > 0) throw exists(this.#file);
    db.pragma(`application_id = ${APPLICATION_ID}`);
    db.pragma(`user_version = ${FORMAT}`);
    for (const statement of SCHEMA) db.exec(statement);
    return insert(db, {
      format: "holdpoint-ledger/1",
      ledger: idFromBytes("lg", this.#deps.random(10)),
      sequence: 0,
      at: stamp(this.#deps.clock.now()),
      kind: "ledger-created",
      target: null,
      plan: null,
      run: null,
      facts: {},
      previous: EMPTY_DIGEST,
    });
  }

  /** The next entry of the chain; runs under the write lock, so the head cannot move meanwhile. */
  #next(db: Database, entry: NewEntry): SealedEntry {
    const anchor = readHeadFile(this.#headFile);
    const last = this.#last(db, anchor) ?? fail(broken(this.#file, "expected a first entry, found none"));
    if (entry.kind === "ledger-created") throw exists(this.#file);
    // A process killed right after creating the ledger leaves no sidecar. It is made up for here, so that a
    // sidecar missing beside more than one entry always means that somebody took it away.
    if (anchor === null) writeHeadFile(this.#headFile, headOf(last));
    return insert(db, {
      format: "holdpoint-ledger/1",
      ledger: last.entry.ledger,
      sequence: last.entry.sequence + 1,
      at: stamp(this.#deps.clock.now()),
      kind: entry.kind,
      target: entry.target ?? null,
      plan: entry.plan ?? null,
      run: entry.run ?? null,
      facts: entry.facts,
      previous: last.digest,
    });
  }

  /** The last entry, checked against its bytes and the sidecar; null when there is none. */
  #last(db: Database, anchor: Anchor | null): SealedEntry | null {
    const row = rowAt(db, "SELECT * FROM entry ORDER BY sequence DESC LIMIT 1");
    if (row === undefined)
      return anchor === null ? null : fail(broken(this.#file, "expected entries, found none"));
    const read = readStored(storedOf(row));
    if (!read.ok) throw broken(this.#file, `entry ${String(row.sequence)}: ${read.why}`);
    this.#checkAnchor(db, anchor, read.sealed);
    return read.sealed;
  }

  #checkAnchor(db: Database, anchor: Anchor | null, last: SealedEntry): void {
    const { sequence, ledger } = last.entry;
    if (anchor === null) {
      if (sequence > 0)
        throw broken(this.#file, `expected ledger.head beside ${sequence + 1} entries, found none`);
      return;
    }
    const found = rowAt(db, "SELECT * FROM entry WHERE sequence = ?", anchor.sequence)?.digest;
    if (anchor.ledger === ledger && found === anchor.head) return;
    throw broken(
      this.#file,
      `ledger.head names entry ${anchor.sequence} of ${anchor.ledger} as ${anchor.head}, found ${typeof found === "string" ? found : "no such entry"} in ${ledger}`,
    );
  }

  /** Brings the sidecar up to the newest committed head, under the write lock: it never goes back. */
  #saveHead(db: Database): void {
    db.transaction(() => {
      const row = rowAt(db, "SELECT * FROM entry ORDER BY sequence DESC LIMIT 1");
      const read = row === undefined ? undefined : readStored(storedOf(row));
      if (read?.ok === true) writeHeadFile(this.#headFile, headOf(read.sealed));
    }).immediate();
  }

  /** The open ledger; null when there is none yet. */
  #open(anchor: Anchor | null): Database | null {
    if (this.#db !== null) return this.#db;
    if (!plainFileAt(this.#file)) {
      if (anchor === null) return null;
      throw missing(
        this.#file,
        `ledger.head names entry ${anchor.sequence} of ${anchor.ledger}, found no ledger`,
      );
    }
    this.#connect(false);
    const db = this.#mustBeOpen();
    const application = db.pragma("application_id", { simple: true });
    const version = db.pragma("user_version", { simple: true });
    if (application === APPLICATION_ID && version === FORMAT) {
      // Before any row is asked for: a view in the table's place could answer without an end.
      if (isPlainTable(db)) return db;
      this.close();
      throw broken(
        this.#file,
        "expected the table that entries are kept in, found something else in its place",
      );
    }
    // A process killed before its first commit leaves an empty file: that is no ledger yet.
    const empty = application === 0 && schemaOf(db).length === 0 && anchor === null;
    this.close();
    if (empty) return null;
    throw broken(
      this.#file,
      `expected a ledger of format ${FORMAT}, found application id ${String(application)}, format ${String(version)}`,
    );
  }

  #connect(createFile: boolean): void {
    if (createFile) touchPrivate(this.#file);
    const db = new this.#sqlite(this.#file, { timeout: LOCK_WAIT_MS, fileMustExist: true });
    db.pragma("synchronous = EXTRA"); // the journal's removal is flushed too: a committed entry stays committed
    db.pragma("trusted_schema = OFF");
    this.#db = db;
  }

  #mustBeOpen(): Database {
    return this.#db ?? fail(new HoldpointError({ code: "ERR_INTERNAL", message: "the ledger is not open" }));
  }

  #guarded<T>(act: string, work: () => T): T {
    try {
      return work();
    } catch (e) {
      throw sqliteFailure(act, this.#file, "ERR_LEDGER_BROKEN", e);
    }
  }
}

/** Seals an entry and writes it. Refuses one that could not be read back. */
function insert(db: Database, entry: Entry): SealedEntry {
  const sealed = sealEntry(entry);
  const bytes = entryBytes(entry);
  const place = { ledger: entry.ledger, sequence: entry.sequence, previous: entry.previous };
  const check = checkEntry({ bytes, digest: sealed.digest }, place);
  if (!check.ok) {
    const why = `${check.why}; an entry holds digests and counts, at most ${MAX_ENTRY_BYTES} bytes`;
    throw new HoldpointError({
      code: "ERR_INTERNAL",
      message: `the entry "${entry.kind}" cannot be recorded`,
      why,
    });
  }
  db.prepare(
    "INSERT INTO entry (sequence, kind, target, plan, run, digest, bytes) VALUES (?, ?, ?, ?, ?, ?, ?)",
  ).run(entry.sequence, entry.kind, entry.target, entry.plan, entry.run, sealed.digest, bytes);
  return sealed;
}

/** Rows in their order, a page at a time: no statement stays open while the caller works, so appending goes on. */
function* rowsOf(db: Database, filter: Filter): Iterable<EntryRow> {
  const { sql, values } = whereOf(filter);
  const [beyond, order] = filter.newestFirst === true ? ["<", "sequence DESC"] : [">", "sequence"];
  const first = db.prepare(`SELECT * FROM entry WHERE TRUE${sql} ORDER BY ${order} LIMIT ${PAGE_ROWS}`);
  const more = db.prepare(
    `SELECT * FROM entry WHERE sequence ${beyond} ?${sql} ORDER BY ${order} LIMIT ${PAGE_ROWS}`,
  );
  let page = allRows(first, values);
  while (page.length > 0) {
    yield* page;
    const last = page.at(-1)?.sequence;
    page = page.length < PAGE_ROWS ? [] : allRows(more, [last, ...values]);
  }
}

function whereOf(filter: Filter): { readonly sql: string; readonly values: readonly string[] } {
  const conditions: string[] = [];
  const values: string[] = [];
  for (const column of ["plan", "run", "target"] as const) {
    const wanted = filter[column];
    if (wanted === undefined) continue;
    if (wanted === null) {
      conditions.push(` AND ${column} IS NULL`);
      continue;
    }
    conditions.push(` AND ${column} = ?`);
    values.push(wanted);
  }
  if (filter.kinds !== undefined) {
    conditions.push(` AND kind IN (${filter.kinds.map(() => "?").join(", ")})`);
    values.push(...(filter.kinds satisfies readonly EntryKind[]));
  }
  return { sql: conditions.join(""), values };
}

function allRows(statement: Statement, values: readonly unknown[]): readonly EntryRow[] {
  return statement.all(...values) as readonly EntryRow[];
}

function rowAt(db: Database, sql: string, ...values: readonly unknown[]): EntryRow | undefined {
  return db.prepare(sql).get(...values) as EntryRow | undefined;
}

function storedOf(row: EntryRow): StoredEntry {
  const { sequence, kind, target, plan, run } = row;
  // A column of the wrong type (only a damaged file has one) becomes bytes that cannot have the digest.
  const bytes = ArrayBuffer.isView(row.bytes) ? (row.bytes as Uint8Array) : new Uint8Array();
  return { bytes, digest: String(row.digest), columns: { sequence, kind, target, plan, run } };
}

/** The rows as stored entries; where the file itself breaks off, an entry that cannot hold. */
function* readable(rows: Iterable<EntryRow>): Iterable<StoredEntry> {
  try {
    for (const row of rows) yield storedOf(row);
  } catch (e) {
    if (!isDamage(e)) throw e;
    yield { bytes: new Uint8Array(), digest: `the file is damaged here: ${messageOf(e)}` };
  }
}

/** Why the database around the entries is not ours: a trigger gone, an index that hides rows. */
function schemaMisfit(db: Database): string | undefined {
  const found = schemaOf(db);
  const changed =
    SCHEMA.find((sql) => !found.includes(sql)) ??
    found.find((sql) => !(SCHEMA as readonly string[]).includes(sql));
  if (changed !== undefined) return `the ledger's tables are not as they were made: ${changed.slice(0, 60)}`;
  const health: unknown = db.pragma("integrity_check(1)", { simple: true });
  return health === "ok" ? undefined : `SQLite finds the file damaged: ${String(health)}`;
}

/** Whether what is read as `entry` is the table that we make. */
function isPlainTable(db: Database): boolean {
  const found = db.prepare("SELECT type || ' ' || sql FROM sqlite_schema WHERE name = 'entry'").pluck().all();
  return found.length === 1 && found[0] === `table ${SCHEMA[0]}`;
}

function schemaOf(db: Database): readonly string[] {
  return db
    .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    .pluck()
    .all() as readonly string[];
}

function headOf(last: SealedEntry): { ledger: string; sequence: number; head: Entry["previous"] } {
  return { ledger: last.entry.ledger, sequence: last.entry.sequence, head: last.digest };
}

function broken(file: string, why: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_LEDGER_BROKEN",
    message: `the ledger ${file} is not what was written`,
    why,
    next: [{ actor: "anyone", text: "Do not retry. Keep the file as it is for whoever looks into it." }],
  });
}

function missing(file: string, why: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_LEDGER_MISSING",
    message: `there is no ledger at ${file}`,
    why,
    next: [
      {
        actor: "anyone",
        text: "put the ledger back from where the store is kept; a new one does not replace it",
      },
    ],
  });
}

function exists(file: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_LEDGER_OTHER",
    message: `there is a ledger at ${file} already`,
    why: "expected no ledger, found one; a ledger is created once",
    next: [{ actor: "anyone", argv: ["holdpoint", "log", "verify"] }],
  });
}

function fail(error: HoldpointError): never {
  throw error;
}
