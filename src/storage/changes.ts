/**
 * The working form of a ChangeSet: a fresh SQLite file of ours with one table per changed table, in key order,
 * so that it streams at any size and answers questions in plain SQL. It is always built from a rehearsal or
 * from a verified stream, never received: a stranger's SQLite file is not opened at all.
 */
import { renameSync } from "node:fs";
import { canonical } from "../base/canonical.js";
import { asFarAsPossible } from "../base/errors.js";
import {
  type Change,
  type ChangeSink,
  type ChangeSource,
  type RowKey,
  type StoredChanges,
  type StoredTable,
  type TableShape,
} from "../changeset/change.js";
import { keyBytes } from "../changeset/key.js";
import { sortedTables } from "../changeset/source.js";
import type { TieSource } from "../changeset/ties.js";
import type { Deal } from "../changeset/waves.js";
import { faultOfChange, faultOfShape, malformed, sameShape } from "../changeset/well-formed.js";
import { TableInsert } from "./changes-insert.js";
import {
  APPLICATION_ID,
  copySql,
  createSql,
  FIRST_KEY,
  LAST_KEY,
  layoutOf,
  layoutToJson,
  SHAPE_SQL,
  SHAPE_TABLE,
  type TableLayout,
} from "./changes-layout.js";
import type { PackedChanges } from "./packed.js";
import type { QueryAnswer, QueryLimits, RunBounded } from "./query.js";
import {
  type Database,
  discard,
  loadSqlite,
  quoteName,
  type Sqlite,
  sqliteFailure,
  storing,
  touchPrivate,
} from "./sqlite.js";
import { openWith } from "./changes-reader.js";

/** The name under which a file is attached whose changes are taken. */
const OTHER = "other";

/** A ChangeSet in its working form. Close it in `finally`. */
export interface ChangesFile extends TieSource {
  readonly path: string;
  /** The change of one row; undefined when there is none. */
  readonly get: (table: string, key: RowKey) => Change | undefined;
  /** The change of a table that stands after so many others in canonical order. */
  readonly nth?: (table: string, place: number) => Change | undefined;
  /**
   * The canonical stream, encoded and packed once: measured now, put into a plan's file or a snapshot later. `also` is told
   * every change. Kept beside the file until it is closed.
   */
  readonly packed?: (also?: ChangeSink) => PackedChanges;
  /** The changes in canonical order, cut into parts of so many each; what the sizes leave over is in no part. */
  readonly slices?: (sizes: Iterable<number>) => Iterable<ChangeSource>;
  /**
   * The changes as they are dealt into transactions, one after the other. The first time they are copied in that order, into
   * a file that lies beside this one until it is closed.
   */
  readonly dealt?: (deal: Deal) => Iterable<ChangeSource>;
  /**
   * Asks in SQL: one SELECT, read-only, bounded in time and rows. See `queryFile`.
   * @throws UsageError ERR_USAGE when SQLite refuses the question or it takes too long.
   */
  readonly query: (sql: string, limits: QueryLimits) => Promise<QueryAnswer>;
  /**
   * The keys (as `keyText` writes them) of a table's changes that satisfy a predicate in SQL, see `keysWhereSql`.
   * @throws UsageError ERR_USAGE when SQLite refuses it, it takes too long, or selects more than the limit.
   */
  readonly keysWhere: (table: string, predicate: string, limits: QueryLimits) => Promise<ReadonlySet<string>>;
  /** Ends what still reads, and removes the file where it was made to be removed. */
  readonly close: () => void;
}

/** A working ChangeSet being written. Either `finish` or `abort` it. */
export interface ChangesWriter extends ChangeSink {
  /**
   * Adds the inverse of all changes of a working file, copied by the engine; false where some cell is only a likeness, or
   * something was added before, and nothing is added. Law: the same changes as adding `invertSource(of)` one by one.
   */
  readonly addInverse?: (of: ChangeSource) => boolean;
  /** Takes a change out again; one that is not there is left out already. */
  readonly drop: (table: string, key: RowKey) => void;
  readonly finish: () => ChangesFile;
  /** Leaves nothing behind. May be called after `finish` failed. */
  readonly abort: () => void;
}

/** How a working file is kept and asked. */
export interface ChangesOptions {
  readonly runBounded: RunBounded;
  readonly removeOnClose: boolean;
}

/**
 * Begins a working ChangeSet at a free path. Changes may come in any order; memory does not grow with them.
 * `add` throws ERR_INTERNAL for a change that has no canonical form and for a second change of one key.
 */
export async function createChanges(path: string, options: ChangesOptions): Promise<ChangesWriter> {
  const sqlite = await loadSqlite();
  return storing("write", path, () => new Writer(sqlite, path, options));
}

/**
 * Opens a finished working file of our own store.
 * @throws IntegrityError ERR_CHANGESET_ALTERED when it is not one.
 */
export async function openChanges(path: string, options: ChangesOptions): Promise<ChangesFile> {
  return openWith(await loadSqlite(), path, options);
}

class Writer implements ChangesWriter {
  readonly #sqlite: Sqlite;
  readonly #path: string;
  readonly #part: string;
  readonly #options: ChangesOptions;
  readonly #db: Database;
  readonly #tables = new Map<
    string,
    { readonly layout: TableLayout; readonly insert: TableInsert; rows: number }
  >();
  #attached: string | null = null;

  constructor(sqlite: Sqlite, path: string, options: ChangesOptions) {
    this.#sqlite = sqlite;
    this.#path = path;
    this.#part = `${path}.part`;
    this.#options = options;
    touchPrivate(this.#part);
    this.#db = new sqlite(this.#part, { fileMustExist: true });
    // Nobody reads the file before it is finished and it can always be made again: no journal, no flushing.
    this.#db.pragma("journal_mode = OFF");
    this.#db.pragma("synchronous = OFF");
    this.#db.pragma("locking_mode = EXCLUSIVE");
    this.#db.exec(`BEGIN; ${SHAPE_SQL}`);
  }

  table = (shape: TableShape): void => {
    const known = this.#tables.get(shape.name);
    const fault =
      known === undefined
        ? faultOfShape(shape)
        : sameShape(known.layout.shape, shape)
          ? undefined
          : "two shapes";
    if (fault !== undefined) throw malformed(shape.name, fault);
    if (known !== undefined) return;
    const layout = layoutOf(
      shape,
      [...this.#tables.values()].map((t) => t.layout.sqlName),
    );
    this.#guarded(() => {
      this.#db.exec(createSql(layout));
      this.#tables.set(shape.name, { layout, insert: new TableInsert(this.#db, layout), rows: 0 });
    });
  };

  add = (change: Change): void => {
    const table = this.#tables.get(change.table);
    const fault =
      table === undefined ? "the table was not declared" : faultOfChange(table.layout.shape, change);
    if (table === undefined || fault !== undefined) throw malformed(change.table, fault ?? "unknown");
    try {
      table.insert.add(change);
    } catch (e) {
      throw sqliteFailure("write", this.#part, "ERR_CHANGESET_ALTERED", e);
    }
    table.rows++;
  };

  addInverse = (of: ChangeSource): boolean => {
    if (of.stored === undefined || [...this.#tables.values()].some((t) => t.rows > 0)) return false;
    return this.#copy(of.tables, of.stored, true);
  };

  addStored = (shape: TableShape, from: StoredChanges): boolean => this.#copy([shape], from, false);

  drop = (name: string, key: RowKey): void => {
    const table = this.#tables.get(name);
    if (table === undefined) return;
    const sql = `DELETE FROM ${quoteName(table.layout.sqlName)} WHERE key = ?`;
    this.#guarded(() => {
      table.insert.flush();
      table.rows -= this.#db.prepare(sql).run(keyBytes(key)).changes;
    });
  };

  /** Copies tables of another file, or none of them. */
  #copy(shapes: readonly TableShape[], from: StoredChanges, inverse: boolean): boolean {
    return this.#guarded(() => {
      if (this.#attached !== null && this.#attached !== from.path) return false;
      if (this.#attached === null) this.#db.prepare(`ATTACH ? AS ${OTHER}`).run(from.path);
      this.#attached = from.path;
      const tables = shapes.map((shape) => ({ shape, at: from.table(shape.name) }));
      const plain = tables.every(({ at }) => at !== undefined && !at.inverted && this.#isPlain(at));
      for (const { shape, at } of plain ? tables : []) {
        this.table(shape);
        const table = this.#tables.get(shape.name);
        if (table === undefined || at === undefined) continue;
        const bounds = [at.above ?? FIRST_KEY, at.upTo ?? LAST_KEY];
        table.insert.flush();
        table.insert.othersAdded();
        table.rows += this.#db.prepare(copySql(table.layout, OTHER, at, inverse)).run(...bounds).changes;
      }
      return plain;
    });
  }

  #isPlain({ name }: StoredTable): boolean {
    const sql = `SELECT EXISTS (SELECT 1 FROM ${OTHER}.${quoteName(name)} WHERE exact IS NOT NULL)`;
    return this.#db.prepare(sql).pluck().get() === 0;
  }

  finish = (): ChangesFile => {
    try {
      this.#guarded(() => {
        for (const { insert } of this.#tables.values()) insert.flush();
        this.#saveShapes();
        this.#db.pragma(`application_id = ${APPLICATION_ID}`);
        this.#db.exec("COMMIT");
        this.#db.close();
        renameSync(this.#part, this.#path);
      });
    } catch (e) {
      asFarAsPossible(this.abort);
      throw e;
    }
    return openWith(this.#sqlite, this.#path, this.#options);
  };

  abort = (): void => {
    this.#db.close();
    discard(this.#part);
  };

  /** Tables without a change are no part of a ChangeSet, and not of its working form either. */
  #saveShapes(): void {
    const changed = [...this.#tables.values()].filter((t) => t.rows > 0).map((t) => t.layout);
    for (const t of this.#tables.values()) if (t.rows === 0) this.#db.exec(dropSql(t.layout));
    const save = this.#db.prepare(`INSERT INTO ${SHAPE_TABLE} (position, layout) VALUES (?, ?)`);
    const order = sortedTables(changed.map((l) => l.shape));
    order.forEach((shape, position) => {
      const layout = changed.find((l) => l.shape.name === shape.name);
      if (layout !== undefined) save.run(position, canonical(layoutToJson(layout)));
    });
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (e) {
      throw sqliteFailure("write", this.#part, "ERR_CHANGESET_ALTERED", e);
    }
  }
}

function dropSql(layout: TableLayout): string {
  return `DROP TABLE ${quoteName(layout.sqlName)}`;
}
