/** Reads the working form of a ChangeSet: streamed in key order, a part of it, one change, or asked in SQL. */
import type { Statement } from "better-sqlite3";
import { parseCanonical } from "../base/canonical.js";
import { asFarAsPossible, HoldpointError, IntegrityError, UsageError } from "../base/errors.js";
import {
  type Change,
  type ChangeSink,
  type ChangeSource,
  type RowKey,
  type StoredChanges,
  type TableShape,
} from "../changeset/change.js";
import { keyBytes } from "../changeset/key.js";
import type { Images } from "../changeset/ties.js";
import type { Value } from "../changeset/value.js";
import type { Deal } from "../changeset/waves.js";
import {
  APPLICATION_ID,
  countAboveSql,
  createSql,
  FIRST_KEY,
  imagesSql,
  keyAtSql,
  keysWhereSql,
  LAST_KEY,
  layoutFromJson,
  selectSql,
  SHAPE_SQL,
  SHAPE_TABLE,
  type TableLayout,
} from "./changes-layout.js";
import { type DealtPart, writeDealt } from "./dealt.js";
import { type PackedChanges, packChanges, tell } from "./packed.js";
import { type QueryAnswer, type QueryLimits, queryFile } from "./query.js";
import { type Database, discard, type Sqlite, sqliteFailure } from "./sqlite.js";
import { changeOf, imagesIn } from "./changes-row.js";
import type { ChangesFile, ChangesOptions } from "./changes.js";

/** Keys that one question gives: an answer of the bounded child holds 16 MB. */
const KEYS_PAGE = 100_000;

/**
 * Opens a working ChangeSet that was finished.
 * @throws IntegrityError ERR_CHANGESET_ALTERED where it is anything else.
 */
export function openWith(sqlite: Sqlite, path: string, options: ChangesOptions): Reader {
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

function refuse(path: string, why: string): never {
  const error: HoldpointError = new IntegrityError({
    code: "ERR_CHANGESET_ALTERED",
    message: `${path} is not a working ChangeSet of ours`,
    why,
    next: [{ actor: "anyone", text: "run the command again: working files are made anew from the plan" }],
  });
  throw error;
}
