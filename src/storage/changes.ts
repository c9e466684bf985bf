/**
 * The working form of a ChangeSet: a fresh SQLite file of ours with one table per changed table, in key order,
 * so that it streams at any size and answers questions in plain SQL. It is always built from a rehearsal or
 * from a verified stream, never received: a stranger's SQLite file is not opened at all.
 */
import { renameSync } from "node:fs";
import type { Statement } from "better-sqlite3";
import { canonical, parseCanonical } from "../base/canonical.js";
import { asFarAsPossible, HoldpointError, IntegrityError, UsageError } from "../base/errors.js";
import {
  type Change,
  type ChangeSink,
  type ChangeSource,
  keyOf,
  type RowKey,
  type StoredChanges,
  type StoredTable,
  type TableShape,
} from "../changeset/change.js";
import { keyBytes } from "../changeset/key.js";
import { sortedTables } from "../changeset/source.js";
import type { Images, TieSource } from "../changeset/ties.js";
import type { Row, Value } from "../changeset/value.js";
import type { Deal } from "../changeset/waves.js";
import { faultOfChange, faultOfShape, malformed, sameShape } from "../changeset/well-formed.js";
import { valueFromJson } from "./cells.js";
import { type Exact, TableInsert } from "./changes-insert.js";
import {
  APPLICATION_ID,
  copySql,
  countAboveSql,
  createSql,
  factsOf,
  FIRST_KEY,
  imagesSql,
  keyAtSql,
  keysWhereSql,
  LAST_KEY,
  layoutFromJson,
  layoutOf,
  layoutToJson,
  type PlainKind,
  selectSql,
  SHAPE_SQL,
  SHAPE_TABLE,
  type TableLayout,
} from "./changes-layout.js";
import { type DealtPart, writeDealt } from "./dealt.js";
import { type PackedChanges, packChanges, tell } from "./packed.js";
import { type QueryAnswer, type QueryLimits, queryFile, type RunBounded } from "./query.js";
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

/** The name under which a file is attached whose changes are taken. */
const OTHER = "other";

/** Keys that one question gives: an answer of the bounded child holds 16 MB. */
const KEYS_PAGE = 100_000;

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
   * Asks in SQL: one SELECT, read-only, bounded in time and rows. See {@link queryFile}.
   * @throws UsageError ERR_USAGE when SQLite refuses the question or it takes too long.
   */
  readonly query: (sql: string, limits: QueryLimits) => Promise<QueryAnswer>;
  /**
   * The keys (as `keyText` writes them) of a table's changes that satisfy a predicate in SQL, see {@link keysWhereSql}.
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

function openWith(sqlite: Sqlite, path: string, options: ChangesOptions): Reader {
  let db: Database | undefined;
  try {
    db = new sqlite(path, { readonly: true, fileMustExist: true });
    db.pragma("query_only = ON");
    db.pragma("trusted_schema = OFF");
    return new Reader(sqlite, db, path, options, layoutsOf(db, path));
  } catch (e) {
    db?.close();
    throw sqliteFailure("read", path, "ERR_CHANGESET_ALTERED", e);
  }
}

class Reader implements ChangesFile {
  readonly path: string;
  readonly tables: readonly TableShape[];
  readonly stored: StoredChanges;
  readonly #sqlite: Sqlite;
  readonly #db: Database;
  readonly #options: ChangesOptions;
  readonly #layouts: ReadonlyMap<string, TableLayout>;
  readonly #reading = new Set<IterableIterator<unknown>>();
  readonly #byKey = new Map<string, Statement>();
  #packed: PackedChanges | null = null;
  #dealt: { readonly deal: Deal; readonly parts: readonly DealtPart[]; readonly reader: Reader } | null =
    null;

  constructor(
    sqlite: Sqlite,
    db: Database,
    path: string,
    options: ChangesOptions,
    layouts: readonly TableLayout[],
  ) {
    this.#sqlite = sqlite;
    this.#db = db;
    this.path = path;
    this.#options = options;
    this.#layouts = new Map(layouts.map((l) => [l.shape.name, l]));
    this.tables = layouts.map((l) => l.shape);
    this.stored = storedPart(path, this.#layouts, () => EVERYTHING);
  }

  changes = (table: string): Iterable<Change> => {
    const layout = this.#layouts.get(table);
    return layout === undefined ? [] : { [Symbol.iterator]: () => this.#stream(layout, EVERYTHING) };
  };

  nth = (table: string, place: number): Change | undefined => {
    const layout = this.#layouts.get(table);
    if (layout === undefined) return undefined;
    const row = this.#reads(() =>
      this.#prepare(selectSql(layout, "ORDER BY key LIMIT 1 OFFSET ?")).get(place),
    );
    return row === undefined ? undefined : this.#changeOf(layout, row);
  };

  packed = (also?: ChangeSink): PackedChanges => {
    if (this.#packed === null) this.#packed = packChanges(this, `${this.path}.packed`, also);
    else if (also !== undefined) tell(this, also);
    return this.#packed;
  };

  slices = (sizes: Iterable<number>): Iterable<ChangeSource> => this.#slices(sizes);

  *#slices(sizes: Iterable<number>): Generator<ChangeSource, undefined> {
    const places = this.tables.map(({ name }) => ({ name, above: null as Uint8Array | null }));
    for (const size of sizes) {
      const parts = new Map<string, KeyRange>();
      for (let left = size; left > 0 && places.length > 0;) {
        const [place] = places;
        if (place === undefined) break;
        const layout = this.#layouts.get(place.name);
        const upTo = layout === undefined ? null : this.#keyAfter(layout, place.above, left);
        parts.set(place.name, { above: place.above, upTo });
        if (layout !== undefined && upTo === null) left -= this.#countAbove(layout, place.above);
        else left = 0;
        place.above = upTo;
        if (upTo === null) places.shift();
      }
      yield this.#part(parts);
    }
  }

  /** The key of the row that is `rows` further; null where the table ends before or with it. */
  #keyAfter(layout: TableLayout, above: Uint8Array | null, rows: number): Uint8Array | null {
    const found: unknown = this.#db
      .prepare(keyAtSql(layout))
      .raw(true)
      .all(above ?? FIRST_KEY, rows - 1);
    const [[key] = [null], next] = found as readonly (readonly (Uint8Array | null)[])[];
    return next === undefined ? null : (key ?? null);
  }

  #countAbove(layout: TableLayout, above: Uint8Array | null): number {
    return Number(
      this.#db
        .prepare(countAboveSql(layout))
        .pluck()
        .get(above ?? FIRST_KEY),
    );
  }

  #part(parts: ReadonlyMap<string, KeyRange>): ChangeSource {
    return {
      tables: this.tables.filter((t) => parts.has(t.name)),
      changes: (table) => {
        const [layout, range] = [this.#layouts.get(table), parts.get(table)];
        if (layout === undefined || range === undefined) return [];
        return { [Symbol.iterator]: () => this.#stream(layout, range) };
      },
      stored: storedPart(this.path, this.#layouts, (name) => parts.get(name)),
    };
  }

  size = (table: string): number => {
    const layout = this.#layouts.get(table);
    if (layout === undefined) return 0;
    return this.#reads(() => Number(this.#db.prepare(countAboveSql(layout)).pluck().get(FIRST_KEY)));
  };

  images = (table: string, columns: readonly number[]): Iterable<Images> => {
    const layout = this.#layouts.get(table);
    return layout === undefined ? [] : { [Symbol.iterator]: () => this.#images(layout, columns) };
  };

  dealt = (deal: Deal): Iterable<ChangeSource> => this.#dealtParts(deal);

  *#dealtParts(deal: Deal): Generator<ChangeSource, undefined> {
    if (this.#dealt?.deal !== deal) {
      this.#dealt?.reader.close();
      const path = `${this.path}.dealt`;
      const parts = writeDealt(
        this.#sqlite,
        path,
        { path: this.path, layouts: [...this.#layouts.values()] },
        deal,
      );
      const reader = openWith(this.#sqlite, path, { ...this.#options, removeOnClose: true });
      this.#dealt = { deal, parts, reader };
    }
    const { parts, reader } = this.#dealt;
    for (const { tables, above, upTo } of parts)
      yield reader.#part(new Map(tables.map((name) => [name, { above, upTo }])));
  }

  get = (table: string, key: RowKey): Change | undefined => {
    const layout = this.#layouts.get(table);
    if (layout === undefined) return undefined;
    // Waves of rows that hang together ask for each of them.
    const row = this.#reads(() => {
      const statement = this.#byKey.get(table) ?? this.#prepare(selectSql(layout, "WHERE key = ?"));
      this.#byKey.set(table, statement);
      return statement.get(keyBytes(key));
    });
    return row === undefined ? undefined : this.#changeOf(layout, row);
  };

  query = async (sql: string, limits: QueryLimits): Promise<QueryAnswer> =>
    queryFile(this.path, sql, limits, this.#options.runBounded);

  keysWhere = async (table: string, predicate: string, limits: QueryLimits): Promise<ReadonlySet<string>> => {
    const layout = this.#layouts.get(table);
    if (layout === undefined) return new Set();
    const found = new Set<string>();
    for (let after: Uint8Array | null = null; ;) {
      const page = { after, rows: KEYS_PAGE };
      const { rows, truncated } = await this.query(keysWhereSql(layout, predicate, page), {
        ...limits,
        maxRows: KEYS_PAGE,
      });
      for (const [key] of rows) found.add(keyTextOf(key ?? null));
      if (truncated || found.size > limits.maxRows) throw tooMany(table, limits.maxRows);
      const last = rows.at(-1)?.[0];
      if (rows.length < KEYS_PAGE || !(last instanceof Uint8Array)) return found;
      after = last;
    }
  };

  close = (): void => {
    // A reader that was left in the middle would keep the file open.
    for (const rows of this.#reading) rows.return?.();
    this.#reading.clear();
    try {
      this.#db.close();
    } catch {
      // A reading that broke off keeps it open until the process ends. Said here, that would hide why it broke off,
      // and whether rows were written by then.
    }
    this.#packed?.remove();
    this.#packed = null;
    this.#dealt?.reader.close();
    this.#dealt = null;
    if (this.#options.removeOnClose) asFarAsPossible(() => discard(this.path));
  };

  *#images(layout: TableLayout, columns: readonly number[]): IterableIterator<Images> {
    const rows = this.#reads(() => this.#prepare(imagesSql(layout, columns)).iterate());
    this.#reading.add(rows);
    try {
      for (const row of rows)
        yield (
          imagesIn(row as readonly Value[], layout.shape.columns.length, columns) ??
            refuse(this.path, `a row of ${layout.shape.name} is no change`)
        );
    } catch (e) {
      throw sqliteFailure("read", this.path, "ERR_CHANGESET_ALTERED", e);
    } finally {
      this.#reading.delete(rows);
    }
  }

  *#stream(layout: TableLayout, { above, upTo }: KeyRange): IterableIterator<Change> {
    const bounds = [above ?? FIRST_KEY, upTo ?? LAST_KEY];
    const rows = this.#reads(() =>
      this.#prepare(selectSql(layout, "WHERE key > ? AND key <= ? ORDER BY key")).iterate(...bounds),
    );
    this.#reading.add(rows);
    try {
      for (const row of rows) yield this.#changeOf(layout, row);
    } catch (e) {
      throw sqliteFailure("read", this.path, "ERR_CHANGESET_ALTERED", e);
    } finally {
      this.#reading.delete(rows);
    }
  }

  #reads<T>(work: () => T): T {
    try {
      return work();
    } catch (e) {
      throw sqliteFailure("read", this.path, "ERR_CHANGESET_ALTERED", e);
    }
  }

  #prepare(sql: string): Statement {
    return this.#db.prepare(sql).raw(true).safeIntegers(true);
  }

  #changeOf(layout: TableLayout, row: unknown): Change {
    return (
      changeOf(layout.shape, row as readonly Value[]) ??
      refuse(this.path, `a row of ${layout.shape.name} is no change`)
    );
  }
}

/** Rows whose key lies above one key and not above another; null is an end that is open. */
interface KeyRange {
  readonly above: Uint8Array | null;
  readonly upTo: Uint8Array | null;
}

const EVERYTHING: KeyRange = { above: null, upTo: null };

function storedPart(
  path: string,
  layouts: ReadonlyMap<string, TableLayout>,
  rangeOf: (table: string) => KeyRange | undefined,
): StoredChanges {
  return {
    path,
    table: (name) => {
      const [layout, range] = [layouts.get(name), rangeOf(name)];
      if (layout === undefined || range === undefined) return undefined;
      return { name: layout.sqlName, before: layout.before, after: layout.after, ...range, inverted: false };
    },
  };
}

/**
 * A row of the working file as a change; undefined when it is none. Every row of a plan passes here several times: the
 * plain ones are made by literals, which is four times as fast as spreading the facts into them (measured).
 */
function changeOf(shape: TableShape, row: readonly Value[]): Change | undefined {
  const facts = factsOf(row[0]);
  if (facts === undefined) return undefined;
  const { op, count } = facts;
  const width = shape.columns.length;
  const exact = facts.exact === null ? null : readExact(facts.exact);
  if (exact === undefined) return undefined;
  const cells = exact === null ? row : withExact(row, exact.cells);
  const before = op === "insert" ? null : cells.slice(1, 1 + width);
  const after = op === "delete" ? null : cells.slice(1 + width);
  const change = assemble(shape, facts, before, after);
  if (change === undefined || (count === 1 && (exact?.link ?? null) === null)) return change;
  return {
    ...change,
    ...(exact === null || exact.link === null ? {} : { link: exact.link }),
    ...(count === 1 ? {} : { count }),
  };
}

function withExact(row: readonly Value[], exact: readonly (readonly [number, Value])[]): readonly Value[] {
  const cells = [...row];
  for (const [i, v] of exact) cells[1 + i] = v;
  return cells;
}

function assemble(
  shape: TableShape,
  { op, origin }: PlainKind,
  before: Row | null,
  after: Row | null,
): Change | undefined {
  const { name: table } = shape;
  const key = keyOf(shape, before ?? after ?? []);
  if (op === "insert" && after !== null) return { table, key, origin, op, after };
  if (op === "delete" && before !== null) return { table, key, origin, op, before };
  if (op !== "update" || before === null || after === null) return undefined;
  return { table, key, origin, op, before, after };
}

/** A row of {@link imagesSql}: operation, exact values, cells of both images. A likeness is replaced by what it stands for. */
function imagesIn(row: readonly Value[], width: number, columns: readonly number[]): Images | undefined {
  const [op, exactText = null] = row;
  const exact = exactText === null ? null : typeof exactText === "string" ? readExact(exactText) : undefined;
  if (exact === undefined) return undefined;
  const image = (half: 0 | 1): Row =>
    columns.map((column, i) => {
      const own = exact?.cells.find(([at]) => at === half * width + column);
      return own === undefined ? (row[2 + half * columns.length + i] ?? null) : own[1];
    });
  return { before: op === "insert" ? null : image(0), after: op === "delete" ? null : image(1) };
}

function readExact(
  text: string,
): { readonly link: RowKey | null; readonly cells: readonly [number, Value][] } | undefined {
  const json = parseCanonical(text) as Exact | undefined;
  if (json === undefined) return undefined;
  const link = json.link?.map(valueFromJson) ?? null;
  const cells = json.cells.map(([i, v]) => [i, valueFromJson(v)] as const);
  const whole = (link ?? []).every((v) => v !== undefined) && cells.every(([, v]) => v !== undefined);
  return whole ? { link: link as RowKey | null, cells: cells as [number, Value][] } : undefined;
}

function layoutsOf(db: Database, path: string): readonly TableLayout[] {
  if (db.pragma("application_id", { simple: true }) !== APPLICATION_ID)
    return refuse(path, "it was not finished, or is another kind of file");
  // Before any row is asked for: a view in a table's place could answer without an end.
  const made = new Set(
    db.prepare("SELECT type || ' ' || coalesce(sql, '') FROM sqlite_schema").pluck().all() as string[],
  );
  const requireMade = (sql: string): void => {
    if (!made.delete(`table ${sql}`)) refuse(path, "a table is not as it was made");
  };
  requireMade(SHAPE_SQL);
  const texts = db.prepare(`SELECT layout FROM ${SHAPE_TABLE} ORDER BY position`).pluck().all();
  const layouts = texts.map((text) => {
    const json = typeof text === "string" ? parseCanonical(text) : undefined;
    const layout = json === undefined ? undefined : layoutFromJson(json);
    return layout ?? refuse(path, "a table's layout cannot be read");
  });
  for (const layout of layouts) requireMade(createSql(layout));
  if (made.size > 0) refuse(path, "it holds more than tables of changes");
  return layouts;
}

function keyTextOf(key: Value): string {
  return key instanceof Uint8Array ? Buffer.from(key).toString("latin1") : "";
}

function tooMany(table: string, most: number): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `the predicate selects more rows of ${table} than can be held`,
    why: `at most ${most} rows can be chosen by a predicate`,
    next: [{ actor: "anyone", text: "narrow it, or take the table whole and in several steps" }],
  });
}

function dropSql(layout: TableLayout): string {
  return `DROP TABLE ${quoteName(layout.sqlName)}`;
}

function refuse(path: string, why: string): never {
  const error: HoldpointError = new IntegrityError({
    code: "ERR_CHANGESET_ALTERED",
    message: `${path} is not a working ChangeSet of ours`,
    why,
    next: [{ actor: "anyone", text: "run the command again: working files are made anew from the plan" }],
  });
  throw error;
}
