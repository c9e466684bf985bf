/** The one session that may write to an SQLite target. */
import type { Digest } from "../../base/digest.js";
import { codeOf, HoldpointError, messageOf, RefusedError, TargetError } from "../../base/errors.js";
import type { ChangeSink, ChangeSource, RowKey, TableShape } from "../../changeset/change.js";
import { sortedTables } from "../../changeset/source.js";
import type { AnchoredHead, BatchMark, Marker, Note, SpentMark } from "../../target/marker.js";
import type {
  BatchKind,
  BatchOutcome,
  NoteSession,
  ReadRow,
  SchemaFacts,
  ScriptOutcome,
  SequenceMove,
  SqlStatement,
  WriteProblem,
  WriteSession,
} from "../../target/target.js";
import { asTargetError, busy, isBusy, openFile, type Connection, type Driver } from "./driver.js";
import { ForeignKeyCheck } from "./foreign-keys.js";
import * as marks from "./marker.js";
import { prepareForReading, readerFor, readRows } from "./read.js";
import { takeRunLock, type RunLock } from "./run-lock.js";
import { readCatalogue, schemaFacts, tableFor, type Catalogue } from "./schema.js";
import { runScript } from "./script.js";
import { readSequences, type Sequences } from "./schema-changes.js";
import { SilencedTriggers } from "./silence.js";
import { StoredRows } from "./stored-rows.js";
import { isAsAfter, TableWriter } from "./table-writer.js";

/** What a session is opened with. */
export interface WriteSetting {
  readonly driver: Driver;
  readonly path: string;
  /** Whether references count: they are then checked by ourselves, for the written keys. */
  readonly foreignKeys: boolean;
  /** How long the write lock is waited for. */
  readonly busyMs: number;
}

/**
 * Opens the session and takes the lock that keeps a second run out.
 * @throws TargetError ERR_TARGET_BUSY while another run has the target.
 */
export function openWriteSession(setting: WriteSetting): WriteSession {
  const lock = takeRunLock(setting.driver, setting.path);
  try {
    return new SqliteWriteSession(setting, lock);
  } catch (e) {
    lock.release();
    throw e;
  }
}

/** A session that takes no run's lock, for notes that must not wait for one. */
export function openNoteSession(setting: WriteSetting): NoteSession {
  return new SqliteWriteSession(setting, { release: () => undefined });
}

class SqliteWriteSession implements WriteSession {
  readonly #setting: WriteSetting;
  readonly #lock: RunLock;
  readonly #connection: Connection;
  readonly #storedRows: StoredRows;
  /** Set when a batch found problems: it must not be committed. */
  #problems = 0;
  #closed = false;

  constructor(setting: WriteSetting, lock: RunLock) {
    this.#setting = setting;
    this.#lock = lock;
    // Cascades and immediate checks would act while rows are written; the references are checked afterwards. The
    // switch works only outside a transaction.
    this.#connection = openFile(setting.driver, setting.path, {
      ...setting,
      readonly: false,
      foreignKeys: false,
    });
    this.#storedRows = new StoredRows(this.#connection);
    prepareForReading(this.#connection);
    // The driver's default for WAL would let a power cut take back what we said was committed.
    this.#connection.exec("PRAGMA synchronous = FULL");
  }

  begin = async (kind?: BatchKind): Promise<void> => {
    try {
      this.#storedRows.detach();
      // The switch works only outside a transaction; rows are written with references silent, scripts run as the job did.
      this.#connection.exec(
        `PRAGMA foreign_keys = ${kind?.script === true && this.#setting.foreignKeys ? "ON" : "OFF"}`,
      );
      this.#connection.exec("BEGIN IMMEDIATE");
      this.#problems = 0;
    } catch (e) {
      throw asTargetError(e, this.#setting.path);
    }
  };

  marker = async (): Promise<Marker | null> => marks.readMarker(this.#connection);
  spentFor = async (planDigest: Digest): Promise<SpentMark | null> =>
    marks.readSpent(this.#connection, planDigest);
  nonceSpent = async (nonce: string): Promise<boolean> => marks.readNonceSpent(this.#connection, nonce);
  notes = async (): Promise<readonly Note[]> => marks.readNotes(this.#connection);
  batches = async (run: string): Promise<readonly BatchMark[]> => marks.readBatches(this.#connection, run);
  schema = async (): Promise<SchemaFacts> => schemaFacts(this.#connection, this.#setting.foreignKeys);

  readRows = (shape: TableShape, keys: Iterable<RowKey>): AsyncIterable<ReadRow> => this.#rows(shape, keys);

  async *#rows(shape: TableShape, keys: Iterable<RowKey>): AsyncGenerator<ReadRow, undefined> {
    const catalogue = readCatalogue(this.#connection);
    yield* readRows(readerFor(this.#connection, catalogue, tableFor(catalogue, shape)), shape, keys);
  }

  write = async (source: ChangeSource, sequences: readonly SequenceMove[]): Promise<BatchOutcome> => {
    this.#assertInTransaction();
    const catalogue = readCatalogue(this.#connection);
    const tables = sortedTables(source.tables);
    const triggers = new SilencedTriggers(
      this.#connection,
      tables.map((t) => t.name),
    );
    const counters = readSequences(this.#connection);
    const outcome = this.#writeTables(catalogue, tables, source);
    const references = outcome.problems.length > 0 ? [] : this.#brokenReferences(catalogue, tables, source);
    const problems = [...outcome.problems, ...references];
    this.#problems += problems.length;
    this.#settleSequences(counters, sequences);
    triggers.restore();
    return { ...outcome, problems };
  };

  verify = async (source: ChangeSource): Promise<readonly WriteProblem[]> => {
    const catalogue = readCatalogue(this.#connection);
    const problems: WriteProblem[] = [];
    for (const shape of sortedTables(source.tables)) {
      if (shape.keyKind === "none") continue;
      const info = tableFor(catalogue, shape);
      if (this.#storedRows.join(catalogue, info, source, shape)?.stand("after") === true) continue;
      const reader = readerFor(this.#connection, catalogue, info);
      for (const [change, now] of reader.byKeys(shape, source.changes(shape.name), (c) => c.key)) {
        if (isAsAfter(shape, change, now)) continue;
        problems.push({ kind: "drift", change, now, nowCount: now === null ? 0 : 1 });
      }
    }
    this.#problems += problems.length;
    return problems;
  };

  runScript = async (statements: readonly SqlStatement[], sink: ChangeSink): Promise<ScriptOutcome> => {
    this.#assertInTransaction();
    return runScript(this.#setting, this.#connection, statements, sink);
  };

  spend = async (mark: SpentMark): Promise<void> => marks.writeSpent(this.#connection, mark);
  markBatch = async (mark: BatchMark): Promise<void> => marks.writeBatch(this.#connection, mark);
  clearMarks = async (run: string, wave: number): Promise<void> =>
    marks.clearBatches(this.#connection, run, wave);
  addNote = async (note: Note): Promise<void> => marks.writeNote(this.#connection, note);
  anchor = async (head: AnchoredHead): Promise<void> => marks.writeAnchor(this.#connection, head);

  commit = async (): Promise<void> => {
    this.#assertInTransaction();
    if (this.#problems > 0) {
      this.#connection.rollback();
      throw new HoldpointError({
        code: "ERR_INTERNAL",
        message: `a batch with ${this.#problems} problems was to be committed`,
        why: "a batch is written whole or not at all",
      });
    }
    try {
      this.#connection.exec("COMMIT");
    } catch (e) {
      throw this.#failedCommit(e);
    }
  };

  rollback = async (): Promise<void> => this.#connection.rollback();

  close = async (): Promise<void> => {
    if (this.#closed) return;
    this.#closed = true;
    try {
      this.#connection.rollback();
      this.#connection.close();
    } finally {
      this.#lock.release();
    }
  };

  #assertInTransaction(): void {
    if (this.#connection.db.inTransaction) return;
    throw new HoldpointError({ code: "ERR_INTERNAL", message: "no batch is open" });
  }

  #writeTables(catalogue: Catalogue, tables: readonly TableShape[], source: ChangeSource): BatchOutcome {
    let [written, alreadyDone, executed] = [0, 0, 0];
    const problems: WriteProblem[] = [];
    const before = this.#totalChanges();
    for (const shape of tables) {
      const info = tableFor(catalogue, shape);
      const joined = this.#storedRows.join(catalogue, info, source, shape);
      const already = joined?.write() ?? { written: 0, whole: false };
      written += already.written;
      executed += joined?.executed ?? 0;
      if (already.whole) continue;
      const writer = new TableWriter(
        this.#setting.driver,
        readerFor(this.#connection, catalogue, info),
        shape,
      );
      const outcome = writer.write(() => source.changes(shape.name));
      written += outcome.written;
      // What the engine wrote before it stopped, the writer finds as it should be.
      alreadyDone += outcome.alreadyDone - already.written;
      executed += writer.executed;
      problems.push(...outcome.problems);
    }
    const total = this.#totalChanges() - before;
    if (total !== executed) throw this.#strayWrites(executed, total);
    return { written, alreadyDone, problems };
  }

  /** Counts what triggers and cascades change too, which `changes` does not. */
  #totalChanges(): number {
    return Number(this.#connection.value("SELECT total_changes()"));
  }

  #strayWrites(executed: number, total: number): RefusedError {
    this.#problems++;
    return new RefusedError({
      code: "ERR_EFFECT_DIFFERS",
      message: `${total} rows changed where ${executed} were written`,
      why: "something else acts on these tables when a row is written; the batch is rolled back",
    });
  }

  #brokenReferences(
    catalogue: Catalogue,
    tables: readonly TableShape[],
    source: ChangeSource,
  ): readonly WriteProblem[] {
    if (!this.#setting.foreignKeys || catalogue.tables.every((t) => t.foreignKeys.length === 0)) return [];
    const check = new ForeignKeyCheck(this.#connection, catalogue);
    try {
      for (const shape of tables.filter((t) => check.concerns(t.name))) {
        const joined = this.#storedRows.join(catalogue, tableFor(catalogue, shape), source, shape);
        if (joined !== null && check.lookInFile(shape.name, joined.asked())) continue;
        for (const change of source.changes(shape.name)) check.look(change);
      }
      return check.problems();
    } finally {
      check.close();
    }
  }

  /**
   * Ids that were given out are never given out again: counters only go forward, and as far as the job moved them.
   * Rows written with their ids move them too, where the job changed an id by UPDATE and moved nothing.
   */
  #settleSequences(before: Sequences, moves: readonly SequenceMove[]): void {
    const planned = new Map(moves.map((m) => [m.name, m.after]));
    for (const name of new Set([...planned.keys(), ...readSequences(this.#connection).keys()])) {
      const [had, wanted] = [BigInt(before.get(name) ?? "0"), BigInt(planned.get(name) ?? "0")];
      const value = had > wanted ? had : wanted;
      const changed = this.#connection.run(
        "UPDATE main.sqlite_sequence SET seq = ? WHERE name = ?",
        value,
        name,
      );
      if (changed > 0) continue;
      this.#connection.run("INSERT INTO main.sqlite_sequence (name, seq) VALUES (?, ?)", name, value);
    }
  }

  /** What is certain after a COMMIT that failed: an open transaction can still be rolled back, a closed one tells nothing. */
  #failedCommit(e: unknown): TargetError {
    const open = this.#connection.db.inTransaction;
    const nothing = open || /^SQLITE_(BUSY|FULL|CONSTRAINT)/.test(codeOf(e) ?? "");
    this.#connection.rollback();
    if (isBusy(e))
      return busy(this.#setting.path, `a reader held up the commit for ${this.#setting.busyMs} ms`, e);
    if (nothing) return asTargetError(e, this.#setting.path);
    return new TargetError({
      code: "ERR_OUTCOME_UNKNOWN",
      message: `the commit on ${this.#setting.path} failed: ${messageOf(e)}`,
      why: "whether the batch reached the disk cannot be told from here; the marks in the target tell",
      targetChanged: "unknown",
      cause: e,
    });
  }
}
