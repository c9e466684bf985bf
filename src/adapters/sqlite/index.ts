/** SQLite database files as targets. What they cannot hold, lock or undo: `docs/fine-print.md`. */
import { statSync } from "node:fs";
import type { Clock, Random } from "../../base/clock.js";
import type { Digest } from "../../base/digest.js";
import { HoldpointError, isMachineError, RefusedError } from "../../base/errors.js";
import type { ChangeSink, ChangeSource, RowKey, TableShape } from "../../changeset/change.js";
import type { AnchoredHead, BatchMark, MarkedHistory, Marker, Note, SpentMark } from "../../target/marker.js";
import type { Row, Value } from "../../changeset/value.js";
import type {
  Identification,
  NoteSession,
  ReadRow,
  Rehearsal,
  RehearsalKind,
  RunnableJob,
  SchemaChange,
  SchemaFacts,
  SchemaUndo,
  SqlStatement,
  Target,
  UndoRehearsal,
  WriteProblem,
  WriteSession,
} from "../../target/target.js";
import type { VitalColumn, Vitals } from "../../target/vitals.js";
import { changesSince } from "./changes-since.js";
import { copyDatabase } from "./copy.js";
import {
  asTargetError,
  loadDriver,
  locate,
  openFile,
  type Connection,
  type Driver,
  driverFailure,
} from "./driver.js";
import { identify } from "./identify.js";
import {
  markerSql,
  readAnchoredHead,
  readBatches,
  readHistory,
  readMarker,
  readNotes,
  readSpent,
} from "./marker.js";
import { main } from "./names.js";
import { largestOf } from "./largest.js";
import { prepareForReading, readerFor, readRows } from "./read.js";
import { rehearse } from "./rehearse.js";
import { rehearseUndo } from "./rehearse-undo.js";
import { runLockPath } from "./run-lock.js";
import { readCatalogue, schemaFacts, tableFor } from "./schema.js";
import { undoSchema } from "./script.js";
import { StoredRows } from "./stored-rows.js";
import { countByValue, vitals } from "./vitals.js";
import { openNoteSession, openWriteSession, type WriteSetting } from "./write.js";

/** How an SQLite target is opened. */
export interface SqliteOptions {
  /** The target's name in the configuration. */
  readonly name: string;
  /** The database file. It is never created. */
  readonly path: string;
  /** What the job means by foreign keys: SQLite has them off on every connection that does not ask. */
  readonly foreignKeys: boolean;
  readonly clock: Clock;
  readonly random: Random;
  /** Where private copies go, in folders of mode 0700 that are removed afterwards. */
  readonly scratchDir: string;
  /** Refuse every write, and rehearse on a copy always. */
  readonly readonly?: boolean;
  /** How long a lock is waited for, in milliseconds; 5 seconds when absent. */
  readonly busyMs?: number;
  /** Asks a database file in a process that can be ended: the driver cannot interrupt an endless question. */
  readonly ask?: (path: string, sql: string, maxMs: number) => Promise<Value>;
}

const BUSY_MS = 5_000;

/**
 * Opens the database file as a target.
 * @throws TargetError ERR_TARGET_UNREACHABLE when there is no such file, it is no database, or it cannot be read;
 * ERR_TARGET_BUSY when it stays locked; ERR_TARGET_UNSUPPORTED when the driver does not run on this Node.
 */
export async function openSqlite(options: SqliteOptions): Promise<Target> {
  try {
    const driver = await loadDriver();
    return new SqliteTarget(driver, locate(options.path), options);
  } catch (e) {
    throw isMachineError(e) ? asTargetError(e, options.path) : e;
  }
}

class SqliteTarget implements Target {
  readonly adapter = "sqlite";
  readonly capabilities = { transactionalDdl: true, silentTriggers: true, sequencesRollBack: true };
  readonly name: string;
  readonly #driver: Driver;
  readonly #path: string;
  readonly #options: SqliteOptions;
  readonly #busyMs: number;
  /** Whether a write-ahead log lay beside the file when it was opened: then the file is left with it. */
  readonly #hadWal: boolean;
  /**
   * Opened first, closed last: a connection that cannot write cannot checkpoint either, so what stands in the log of a
   * process that died stays there until somebody writes.
   */
  readonly #reader: Connection;
  readonly ask?: (sql: string, maxMs: number) => Promise<Value>;
  #closed = false;

  constructor(driver: Driver, path: string, options: SqliteOptions) {
    this.name = options.name;
    this.#driver = driver;
    this.#path = path;
    this.#options = options;
    this.#busyMs = options.busyMs ?? BUSY_MS;
    this.#hadWal = statSync(`${path}-wal`, { throwIfNoEntry: false }) !== undefined;
    const { foreignKeys } = options;
    this.#reader = openFile(driver, path, { readonly: true, busyMs: this.#busyMs, foreignKeys });
    prepareForReading(this.#reader);
    const { ask } = options;
    if (ask !== undefined) this.ask = async (sql, maxMs) => ask(path, sql, maxMs);
  }

  identify = async (): Promise<Identification> => this.#reading(() => identify(this.#reader));
  schema = async (): Promise<SchemaFacts> =>
    this.#reading(() => schemaFacts(this.#reader, this.#options.foreignKeys));

  rehearse = async (job: RunnableJob, sink: ChangeSink, how?: RehearsalKind): Promise<Rehearsal> =>
    rehearse(
      {
        ...this.#options,
        driver: this.#driver,
        path: this.#path,
        reader: this.#reader,
        readonly: this.#options.readonly ?? false,
        busyMs: this.#busyMs,
      },
      job,
      sink,
      how?.again,
    );

  rehearseUndo = async (
    source: ChangeSource,
    script: readonly SqlStatement[] = [],
    there?: (problems: readonly WriteProblem[]) => void,
  ): Promise<UndoRehearsal> =>
    rehearseUndo(
      { ...this.#options, driver: this.#driver, reader: this.#reader, busyMs: this.#busyMs },
      source,
      script,
      there,
    );

  undoSchema = async (changes: readonly SchemaChange[]): Promise<SchemaUndo> =>
    this.#reading(() => undoSchema(this.#driver, this.#reader, changes));

  readRows = (shape: TableShape, keys: Iterable<RowKey>): AsyncIterable<ReadRow> => this.#rows(shape, keys);

  async *#rows(shape: TableShape, keys: Iterable<RowKey>): AsyncGenerator<ReadRow, undefined> {
    try {
      const catalogue = readCatalogue(this.#reader);
      yield* readRows(readerFor(this.#reader, catalogue, tableFor(catalogue, shape)), shape, keys);
    } catch (e) {
      throw isMachineError(e) ? driverFailure(e, this.#path) : e;
    }
  }

  holdsAll = async (source: ChangeSource, image: "before" | "after"): Promise<boolean> =>
    this.#reading(() => {
      const catalogue = readCatalogue(this.#reader);
      const rows = new StoredRows(this.#reader);
      try {
        return source.tables.every(
          (shape) => rows.join(catalogue, tableFor(catalogue, shape), source, shape)?.stand(image) === true,
        );
      } finally {
        rows.detach();
      }
    });

  scan = (shape: TableShape): AsyncIterable<Row> => this.#scan(shape);

  async *#scan(shape: TableShape): AsyncGenerator<Row, undefined> {
    try {
      const catalogue = readCatalogue(this.#reader);
      yield* readerFor(this.#reader, catalogue, tableFor(catalogue, shape)).inKeyOrder(shape);
    } catch (e) {
      throw isMachineError(e) ? driverFailure(e, this.#path) : e;
    }
  }

  atOneMoment = async <T>(work: () => Promise<T>): Promise<T> => {
    this.#reading(() => this.#reader.exec("BEGIN"));
    try {
      return await work();
    } finally {
      this.#reading(() => this.#reader.rollback());
    }
  };

  changesSince = async (
    path: string,
    tables: readonly TableShape[],
    sink: ChangeSink,
  ): Promise<ReadonlyMap<string, number> | null> =>
    changesSince(
      { ...this.#options, driver: this.#driver, reader: this.#reader, busyMs: this.#busyMs },
      path,
      tables,
      sink,
    ).catch((e: unknown) => {
      throw e instanceof HoldpointError ? e : asTargetError(e, this.#path);
    });

  copyTo = async (folder: string): Promise<string> => {
    try {
      return await copyDatabase(this.#reader, folder);
    } catch (e) {
      throw asTargetError(e, this.#path);
    }
  };

  largestOf = async (shape: TableShape, column: number): Promise<Value> =>
    this.#reading(() => largestOf(this.#reader, shape, column));
  countRows = async (table: string): Promise<number> =>
    this.#reading(() => Number(this.#reader.value(`SELECT count(*) FROM ${main(table)}`)));
  countByValue = async (
    table: string,
    column: string,
    values: readonly Value[],
  ): Promise<readonly number[]> => this.#reading(() => countByValue(this.#reader, table, column, values));
  vitals = async (newest: readonly VitalColumn[]): Promise<Vitals> =>
    this.#reading(() => vitals(this.#reader, newest));
  spentFor = async (planDigest: Digest): Promise<SpentMark | null> =>
    this.#reading(() => readSpent(this.#reader, planDigest));
  notes = async (): Promise<readonly Note[]> => this.#reading(() => readNotes(this.#reader));
  batches = async (run: string): Promise<readonly BatchMark[]> =>
    this.#reading(() => readBatches(this.#reader, run));
  anchoredHead = async (ledger: string): Promise<AnchoredHead | null> =>
    this.#reading(() => readAnchoredHead(this.#reader, ledger));
  history = async (of: { readonly job: string; readonly since: string }): Promise<MarkedHistory> =>
    this.#reading(() => readHistory(this.#reader, of));

  markerSql = (marker: Marker): readonly string[] => markerSql(marker);

  pin = async (marker: Marker): Promise<void> => {
    this.#assertWritable();
    const writer = this.#openWritable();
    try {
      for (const sql of markerSql(marker)) writer.exec(sql);
    } catch (e) {
      throw asTargetError(e, this.#path);
    } finally {
      writer.rollback();
      writer.close();
    }
    // Read back over the other connection: what a later command will see.
    this.#reading(() => readMarker(this.#reader));
  };

  openWriter = async (): Promise<WriteSession> => {
    this.#assertWritable();
    return this.#reading(() => openWriteSession(this.#writeSetting()));
  };

  openNotes = async (): Promise<NoteSession> => {
    this.#assertWritable();
    return this.#reading(() => openNoteSession(this.#writeSetting()));
  };

  #writeSetting(): WriteSetting {
    return {
      driver: this.#driver,
      path: this.#path,
      foreignKeys: this.#options.foreignKeys,
      busyMs: this.#busyMs,
    };
  }

  ownPaths = (): readonly string[] => sqlitePaths(this.#path);

  close = async (): Promise<void> => {
    if (this.#closed) return;
    this.#closed = true;
    const last = this.#lastConnection();
    this.#reader.close();
    last?.close();
  };

  /**
   * Reading a database in WAL mode makes a log and its index beside it, which only a connection that could write removes
   * when it goes last. Where there was no log before us there shall be none after us.
   */
  #lastConnection(): Connection | null {
    try {
      const hasWal = statSync(`${this.#path}-wal`, { throwIfNoEntry: false }) !== undefined;
      if (this.#hadWal || !hasWal || this.#options.readonly === true) return null;
      return this.#openWritable();
    } catch {
      return null; // We may not write here, or somebody else is at it: then the empty log stays, and harms nobody.
    }
  }

  #openWritable(): Connection {
    const { foreignKeys } = this.#options;
    return openFile(this.#driver, this.#path, { readonly: false, busyMs: this.#busyMs, foreignKeys });
  }

  #reading<T>(work: () => T): T {
    try {
      return work();
    } catch (e) {
      if (e instanceof HoldpointError) throw e;
      throw asTargetError(e, this.#path);
    }
  }

  #assertWritable(): void {
    if (this.#options.readonly !== true) return;
    throw new RefusedError({
      code: "ERR_TARGET_UNSUPPORTED",
      message: `target ${this.name} was opened for reading only`,
    });
  }
}

/** The file of a database and those that SQLite and a run put beside it, whether or not they are there now. */
export function sqlitePaths(path: string): readonly string[] {
  return [path, ...["-wal", "-shm", "-journal"].map((suffix) => `${path}${suffix}`), runLockPath(path)];
}
