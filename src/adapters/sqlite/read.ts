/** Reading rows exactly: by key, all in key order, and by rowid. */
import type { RowKey, TableShape } from "../../changeset/change.js";
import { keyOf } from "../../changeset/change.js";
import { keyBytes } from "../../changeset/key.js";
import { sameRow, type Row, type Value } from "../../changeset/value.js";
import type { ReadRow } from "../../target/target.js";
import type { Cell, Connection } from "./driver.js";
import { main, quote } from "./names.js";
import { affinityOf, assertSupported, encodingOf, type Catalogue, type TableInfo } from "./schema.js";
import { bound, exactly, fromExact, isSuspect, placeholder, type Encoding } from "./values.js";

/** A row together with its rowid (null in a WITHOUT ROWID table). */
export interface Located {
  readonly rowid: bigint | null;
  readonly row: Row;
}

/** Reads rows of one table over one connection. */
export class TableReader {
  readonly connection: Connection;
  readonly info: TableInfo;
  readonly encoding: Encoding;
  readonly #plain: string;
  readonly #exact: string;

  constructor(connection: Connection, info: TableInfo, encoding: Encoding) {
    this.connection = connection;
    this.info = info;
    this.encoding = encoding;
    assertSupported(info);
    const names = info.shape.columns.map((c) => quote(c.name));
    this.#plain = `SELECT ${[info.rowid ?? "NULL", ...names].join(", ")} FROM ${main(info.name)}`;
    this.#exact = `SELECT ${[info.rowid ?? "NULL", ...names.map(exactly)].join(", ")} FROM ${main(info.name)}`;
  }

  /**
   * Rows that satisfy `condition` (SQL text after the table's name). Text is read plainly where a lost byte
   * can be noticed and the row be asked for again, which takes UTF-8 and a rowid; else exactly at once.
   */
  *select(condition: string, ...values: readonly unknown[]): Generator<Located, undefined> {
    if (this.#alwaysExact) {
      for (const cells of this.connection.iterate(`${this.#exact} ${condition}`, ...values))
        yield this.#fromExact(cells);
      return;
    }
    for (const cells of this.connection.iterate(`${this.#plain} ${condition}`, ...values))
      yield this.#fromPlain(cells);
  }

  /** All rows that satisfy `condition`, read to the end before anything else happens on the connection. */
  all(condition: string, ...values: readonly unknown[]): readonly Located[] {
    if (this.#alwaysExact) {
      return this.connection
        .rows(`${this.#exact} ${condition}`, ...values)
        .map((cells) => this.#fromExact(cells));
    }
    return this.connection
      .rows(`${this.#plain} ${condition}`, ...values)
      .map((cells) => this.#fromPlain(cells));
  }

  /**
   * The row of that key, exactly: a key of a NOCASE column finds `a` when asked for `A`, and a column without
   * a type finds `1` when asked for `1.0`; both are other keys here.
   */
  byKey(shape: TableShape, key: RowKey): Located | null {
    const found = this.likeKey(shape, key);
    return found !== null && sameRow(keyOf(shape, found.row), key) ? found : null;
  }

  /**
   * Each item with the row of its key, in the order of the items. Where the key is the rowid several rows are fetched at
   * a time, which takes half as long (measured); large rows one by one, so that memory stays flat.
   */
  *byKeys<T>(
    shape: TableShape,
    items: Iterable<T>,
    keyOfItem: (item: T) => RowKey,
  ): Generator<readonly [T, Row | null], undefined> {
    if (
      this.#alwaysExact ||
      this.info.alias === null ||
      shape.key.length !== 1 ||
      shape.key[0] !== this.info.alias
    ) {
      for (const item of items) yield [item, this.byKey(shape, keyOfItem(item))?.row ?? null];
      return;
    }
    let batch: T[] = [];
    let most = 1;
    for (const item of items) {
      batch.push(item);
      if (batch.length < most) continue;
      const rows = this.#atRowids(batch.map((b) => keyOfItem(b)[0] ?? null));
      yield* batch.map((b, i) => [b, rows[i] ?? null] as const);
      most = rows.some(isLarge) ? 1 : FETCHED_AT_ONCE;
      batch = [];
    }
    if (batch.length === 0) return;
    const rows = this.#atRowids(batch.map((b) => keyOfItem(b)[0] ?? null));
    yield* batch.map((b, i) => [b, rows[i] ?? null] as const);
  }

  /** The rows at these rowids; null where there is none, and for a key that is no integer, which no row has. */
  #atRowids(rowids: readonly Value[]): readonly (Row | null)[] {
    const places = Array.from(
      { length: rowids.length <= 1 ? 1 : FETCHED_AT_ONCE },
      (_, i) => rowids[i] ?? null,
    );
    const condition = `WHERE ${this.info.rowid ?? "rowid"} IN (${places.map(() => "?").join(", ")})`;
    const wanted = places.map((id) => (typeof id === "bigint" ? id : null));
    const found = new Map(this.all(condition, ...wanted).map(({ rowid, row }) => [rowid, row]));
    return rowids.map((id) => (typeof id === "bigint" ? (found.get(id) ?? null) : null));
  }

  /** The row that stands in the way of that key: equal to it as the engine compares keys. */
  likeKey(shape: TableShape, key: RowKey): Located | null {
    const where = shape.key
      .map((column, i) => `${this.#name(column)} = ${placeholder(key[i] ?? null)}`)
      .join(" AND ");
    return this.all(`WHERE ${where}`, ...key.map(bound))[0] ?? null;
  }

  /** The rows that equal `row` in every cell, at most `limit` of them. */
  equalTo(row: Row, limit = Number.POSITIVE_INFINITY): readonly Located[] {
    const where = row.map((v, i) => `${this.#name(i)} IS ${placeholder(v)}`).join(" AND ");
    const equal: Located[] = [];
    for (const found of this.select(`WHERE ${where}`, ...row.map(bound))) {
      if (sameRow(found.row, row)) equal.push(found);
      if (equal.length >= limit) break;
    }
    return equal;
  }

  /** The row at that rowid. */
  at(rowid: bigint): Row | null {
    return this.all(`WHERE ${this.info.rowid ?? "rowid"} = ?`, rowid)[0]?.row ?? null;
  }

  /** All rows in the order of `keyBytes` over the columns of the shape's key. */
  *inKeyOrder(shape: TableShape): Generator<Row, undefined> {
    for (const { row } of this.select(`ORDER BY ${this.#order(shape)}`)) yield row;
  }

  get #alwaysExact(): boolean {
    return this.info.rowid === null || this.encoding !== "UTF-8";
  }

  #name(column: number): string {
    return quote(this.info.shape.columns[column]?.name ?? "");
  }

  #fromPlain(cells: readonly Cell[]): Located {
    const rowid = typeof cells[0] === "bigint" ? cells[0] : null;
    if (!isSuspect(cells)) return { rowid, row: cells.slice(1) };
    const exact = this.connection.row(`${this.#exact} WHERE ${this.info.rowid ?? "rowid"} = ?`, rowid);
    return exact === undefined ? { rowid, row: cells.slice(1) } : this.#fromExact(exact);
  }

  #fromExact(cells: readonly Cell[]): Located {
    const rowid = typeof cells[0] === "bigint" ? cells[0] : null;
    return { rowid, row: fromExact(cells, 1, this.info.shape.columns.length, this.encoding) };
  }

  /**
   * SQLite's own order where it is provably that of `keyBytes` (and an index may serve it), else by the bytes
   * themselves. SQLite mixes integers with reals, and sorts UTF-16 by unit and invalid text by byte.
   */
  #order(shape: TableShape): string {
    const fast = shape.keyKind === "primary" && shape.key.every((column) => this.#ordersAsBytes(column));
    if (fast) return shape.key.map((column) => `${this.#name(column)} COLLATE BINARY`).join(", ");
    return shape.key.map((column) => `${KEY_FUNCTION}(${exactly(this.#name(column))})`).join(", ");
  }

  #ordersAsBytes(column: number): boolean {
    if (column === this.info.alias) return true;
    const name = this.#name(column);
    const type = this.info.shape.columns[column]?.type ?? "";
    const affinity = affinityOf(type);
    // A column of text affinity turns numbers into text, so it holds NULL, text and blobs, in this order.
    if (affinity === "TEXT" && this.encoding === "UTF-8") return !this.#holdsSuspects(name);
    if (affinity === "INTEGER") return !this.#exists(`typeof(${name}) NOT IN ('integer', 'null')`);
    return false;
  }

  #holdsSuspects(name: string): boolean {
    return this.#exists(`typeof(${name}) = 'text' AND ${SUSPECT_FUNCTION}(${name})`);
  }

  #exists(condition: string): boolean {
    const table = main(this.info.name);
    return this.connection.value(`SELECT EXISTS (SELECT 1 FROM ${table} WHERE ${condition})`) === 1n;
  }
}

/** Rows that one statement fetches. */
const FETCHED_AT_ONCE = 32;
/** A value from which on rows are fetched one by one. */
const LARGE_BYTES = 64 * 1024;

function isLarge(row: Row | null): boolean {
  return (row ?? []).some(
    (v) => (typeof v === "string" || v instanceof Uint8Array) && v.length > LARGE_BYTES,
  );
}

const KEY_FUNCTION = "holdpoint_key";
const SUSPECT_FUNCTION = "holdpoint_suspect";

/**
 * Gives a fresh connection the two functions that ordered reading may need. At once and not on demand:
 * the driver defines no function while a row is being read.
 */
export function prepareForReading(connection: Connection): void {
  const encoding = encodingOf(connection);
  connection.db.function(KEY_FUNCTION, { deterministic: true }, (isText: Cell, cell: Cell) => {
    const [value] = fromExact([isText, cell], 0, 1, encoding);
    return Buffer.from(keyBytes([value ?? null]));
  });
  connection.db.function(SUSPECT_FUNCTION, { deterministic: true }, (text: Cell) =>
    typeof text === "string" && text.includes("\ufffd") ? 1 : 0,
  );
}

/** `Target.readRows`: each key's row, or for tables without a key how many equal rows there are. */
export function* readRows(
  reader: TableReader,
  shape: TableShape,
  keys: Iterable<RowKey>,
): Generator<ReadRow, undefined> {
  if (shape.keyKind === "primary") {
    for (const [key, row] of reader.byKeys(shape, keys, (k) => k))
      yield { key, row, count: row === null ? 0 : 1 };
    return;
  }
  for (const key of keys) {
    const count = reader.equalTo(key).length;
    yield { key, row: count === 0 ? null : key, count };
  }
}

/** A reader for that table. */
export function readerFor(connection: Connection, catalogue: Catalogue, info: TableInfo): TableReader {
  return new TableReader(connection, info, catalogue.encoding);
}
