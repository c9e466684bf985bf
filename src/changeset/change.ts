/**
 * A change of production as a value: which rows of which tables, with their images before and after.
 * A ChangeSet holds at most one change per table and key, tables in code-unit order of their names and
 * changes in the order of {@link ./key.ts keyBytes}; so equal effects have equal bytes and one digest.
 */
import { sameRow, type Row, type Value } from "./value.js";

/** One column: its name and the target's own word for its type (`""` where none was declared). */
export interface Column {
  readonly name: string;
  readonly type: string;
  /** Computed by the target from other columns: compared, never written. */
  readonly generated?: boolean;
}

/**
 * How rows of a table are told apart.
 * - `primary`: by the columns listed in `key`.
 * - `none`: not at all; the whole row is the key and equal rows are counted.
 */
export type KeyKind = "primary" | "none";

/** What a change needs to know of its table. */
export interface TableShape {
  /** Unquoted, qualified as the adapter defines (`orders`, `public.orders`). */
  readonly name: string;
  readonly columns: readonly Column[];
  readonly keyKind: KeyKind;
  /** Indices into `columns`, in key order. All columns when `keyKind` is `none`. */
  readonly key: readonly number[];
}

/** The values of a row's key columns, in the order of `TableShape.key`. */
export type RowKey = readonly Value[];

/** How a row came to change, where that is known. Nothing in apply depends on it. */
export type Origin = "job" | "cascade" | "trigger" | "unknown";

interface ChangeFacts {
  readonly table: string;
  readonly key: RowKey;
  readonly origin: Origin;
  /** The key at the other end of a changed key: this delete and that insert are one entity. */
  readonly link?: RowKey;
  /** How many equal rows, for tables without a key; absent means one. */
  readonly count?: number;
}

/** A row that appears. */
export interface Insert extends ChangeFacts {
  readonly op: "insert";
  readonly after: Row;
}
/** A row that goes away. */
export interface Delete extends ChangeFacts {
  readonly op: "delete";
  readonly before: Row;
}
/** A row that keeps its key and changes other cells. Never an update that changes nothing. */
export interface Update extends ChangeFacts {
  readonly op: "update";
  readonly before: Row;
  readonly after: Row;
}

/** One row's change. */
export type Change = Insert | Delete | Update;

/** What happens to a row, one word each. */
export type Op = Change["op"];

/** All changes of one operation, in canonical order, small enough to hold. */
export interface ChangeSet {
  readonly tables: readonly TableShape[];
  readonly changes: readonly Change[];
}

/**
 * A ChangeSet of any size, read in canonical order, as often as asked. `changes(table)` streams.
 * Everything that reads a plan works on this; a {@link ChangeSet} in memory is one through `sourceOf`.
 */
export interface ChangeSource {
  readonly tables: readonly TableShape[];
  readonly changes: (table: string) => Iterable<Change>;
  /** Absent where the changes lie in no file: then they are read one by one. Law: both say the same changes. */
  readonly stored?: StoredChanges;
}

/**
 * The same changes as they lie in a working file, which is SQLite: an engine that can open it joins them to its own rows
 * instead of having each one handed over.
 */
export interface StoredChanges {
  readonly path: string;
  /** Undefined for a table that has no changes there. */
  readonly table: (name: string) => StoredTable | undefined;
}

/**
 * One table of a working file (`docs/formats/store.md`). A row whose column `exact` is not NULL says by its cells alone
 * less than it is: it is read as a {@link Change} or not at all.
 */
export interface StoredTable {
  readonly name: string;
  /** Columns of the images, in the shape's order. */
  readonly before: readonly string[];
  readonly after: readonly string[];
  /** Only rows whose column `key` lies above this one; null: from the first. */
  readonly above: Uint8Array | null;
  /** Only rows whose column `key` lies not above this one; null: to the last. */
  readonly upTo: Uint8Array | null;
  /** The rows are meant the other way round: `before` and `after` are swapped here, an `insert` in column `op` is a delete. */
  readonly inverted: boolean;
}

/** Takes changes in any order; whoever implements it puts them into canonical order. */
export interface ChangeSink {
  /** Declares a table; before its first change. */
  readonly table: (shape: TableShape) => void;
  readonly add: (change: Change) => void;
  /**
   * Takes all changes of a table from a file at once, instead of one by one; false, and nothing taken, where it cannot.
   * Absent where changes can only be added.
   */
  readonly addStored?: (shape: TableShape, from: StoredChanges) => boolean;
}

/** The row before the change; `null` when there was none. */
export function beforeOf(c: Change): Row | null {
  return c.op === "insert" ? null : c.before;
}

/** The row after the change; `null` when there is none. */
export function afterOf(c: Change): Row | null {
  return c.op === "delete" ? null : c.after;
}

/**
 * The change of one row from one image to the other, without link or count; undefined when nothing changes.
 * Built from literals, not spreads: it is made for every row of a plan, and with spreads taking a row back
 * took four times as long (measured).
 */
export function changeBetween(
  table: string,
  key: RowKey,
  origin: Origin,
  before: Row | null,
  after: Row | null,
): Change | undefined {
  if (before === null) return after === null ? undefined : { table, key, origin, op: "insert", after };
  if (after === null) return { table, key, origin, op: "delete", before };
  return sameRow(before, after) ? undefined : { table, key, origin, op: "update", before, after };
}

/** How many rows the change stands for. */
export function countOf(c: Change): number {
  return c.count ?? 1;
}

/** The key of a row by its table's shape. */
export function keyOf(shape: TableShape, row: Row): RowKey {
  return shape.key.map((i) => row[i] ?? null);
}

/** How many rows of a table each operation touches. */
export interface TableCounts {
  readonly name: string;
  readonly insert: number;
  readonly update: number;
  readonly delete: number;
}
