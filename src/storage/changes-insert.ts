/**
 * How changes get into a table of a working file. Whoever tells changes in canonical order has them bound many at a time,
 * which takes half as long as one by one (measured): binding, not writing, is what costs.
 */
import type { Statement } from "better-sqlite3";
import { canonical, type Json } from "../base/canonical.js";
import { messageOf } from "../base/errors.js";
import { afterOf, beforeOf, type Change } from "../changeset/change.js";
import { keyBytes } from "../changeset/key.js";
import type { Row } from "../changeset/value.js";
import { assertExact, malformed } from "../changeset/well-formed.js";
import { type Bindable, toCell, valueToJson } from "./cells.js";
import {
  FIRST_KEY,
  insertPlainSql,
  insertSql,
  LAST_KEY,
  type PlainKind,
  type TableLayout,
} from "./changes-layout.js";
import type { Database } from "./sqlite.js";

/** Rows of one statement. Of the widest table that can be these are 31,920 values, where SQLite takes 32,766. */
const ROWS_AT_ONCE = 16;
/** A longer value is not held back for others. */
const LONG = 64 * 1024;

/** What cannot lie in a cell exactly: the link's values, and the cells that hold only a likeness. */
export interface Exact {
  readonly link: readonly Json[] | null;
  /** Position among the image cells (before, then after), and the value. */
  readonly cells: readonly (readonly [number, Json])[];
}

/** One table being filled. Flush it before anything else is done to the table. */
export class TableInsert {
  readonly layout: TableLayout;
  readonly #db: Database;
  readonly #one: Statement;
  readonly #plain = new Map<string, Statement>();
  /** Plain changes of one kind that wait: what {@link insertPlainSql} binds. */
  #waiting: Bindable[] = [];
  #kind: PlainKind | null = null;
  /** Whether some value that waits is too long to be held back. */
  #isLong = false;
  /** No key in the table lies above it, so that one that does is there for the first time. */
  #highest: Uint8Array = FIRST_KEY;

  constructor(db: Database, layout: TableLayout) {
    this.#db = db;
    this.layout = layout;
    this.#one = db.prepare(insertSql(layout));
  }

  /**
   * Adds a well-formed change.
   * @throws HoldpointError ERR_INTERNAL for a second change of one key.
   */
  add(change: Change): void {
    const key = keyBytes(change.key);
    const rises = Buffer.compare(this.#highest, key) < 0;
    if (rises) this.#highest = key;
    if (!rises || !this.#wait(change, key)) this.#addOne(change, key);
  }

  /** Writes what waits. */
  flush(): void {
    const [waiting, kind] = [this.#waiting, this.#kind];
    this.#waiting = [];
    this.#isLong = false;
    if (waiting.length === 0 || kind === null) return;
    const each = this.#valuesOf(kind);
    if (waiting.length === each * ROWS_AT_ONCE) this.#statement(kind, ROWS_AT_ONCE).run(waiting);
    else
      for (let at = 0; at < waiting.length; at += each)
        this.#statement(kind, 1).run(waiting.slice(at, at + each));
  }

  /** The engine put rows in by itself: from now on each change is looked at for a key that is there. */
  othersAdded(): void {
    this.#highest = LAST_KEY;
  }

  /** Lets a change wait for others of its kind; false where its cells alone do not say what it is. */
  #wait(change: Change, key: Uint8Array): boolean {
    if (change.link !== undefined || (change.count ?? 1) !== 1) return false;
    if (this.#kind?.op !== change.op || this.#kind.origin !== change.origin) {
      this.flush();
      this.#kind = { op: change.op, origin: change.origin };
    }
    const mark = this.#waiting.push(key) - 1;
    const whole = this.#push(beforeOf(change)) && this.#push(afterOf(change));
    if (!whole) this.#waiting.length = mark;
    const full = this.#waiting.length === this.#valuesOf(this.#kind) * ROWS_AT_ONCE;
    if (full || this.#isLong) this.flush();
    return whole;
  }

  #push(image: Row | null): boolean {
    for (const v of image ?? []) {
      // Most values are what they seem; the others are asked about.
      if (v === null || typeof v === "bigint") {
        assertExact(v);
        this.#waiting.push(v);
        continue;
      }
      const { cell, isLikeness } = toCell(v);
      if (isLikeness) return false;
      this.#waiting.push(cell);
      if ((typeof cell === "string" || cell instanceof Uint8Array) && cell.length > LONG) this.#isLong = true;
    }
    return true;
  }

  #addOne(change: Change, key: Uint8Array): void {
    this.flush();
    const { cells, exact } = cellsOf(change, this.layout.shape.columns.length);
    const link = change.link === undefined ? null : keyBytes(change.link);
    try {
      this.#one.run([change.op, change.origin, link, change.count ?? 1, key, exact, ...cells]);
    } catch (e) {
      if (messageOf(e).startsWith("UNIQUE constraint failed"))
        throw malformed(change.table, "two changes of one key");
      throw e;
    }
  }

  /** A key, and one image or two. */
  #valuesOf({ op }: PlainKind): number {
    return 1 + this.layout.shape.columns.length * (op === "update" ? 2 : 1);
  }

  #statement(kind: PlainKind, rows: number): Statement {
    const name = `${kind.op} ${kind.origin} ${rows}`;
    const known = this.#plain.get(name);
    if (known !== undefined) return known;
    const made = this.#db.prepare(insertPlainSql(this.layout, kind, rows));
    this.#plain.set(name, made);
    return made;
  }
}

function cellsOf(
  change: Change,
  width: number,
): { readonly cells: readonly Bindable[]; readonly exact: string | null } {
  const none: Row = Array.from({ length: width }, () => null);
  const values = [...(beforeOf(change) ?? none), ...(afterOf(change) ?? none)];
  const likenesses: [number, Json][] = [];
  const cells = values.map((v, i) => {
    const { cell, isLikeness } = toCell(v);
    if (isLikeness) likenesses.push([i, valueToJson(v)]);
    return cell;
  });
  if (change.link === undefined && likenesses.length === 0) return { cells, exact: null };
  const exact: Exact = { link: change.link?.map(valueToJson) ?? null, cells: likenesses };
  return { cells, exact: canonical({ link: exact.link, cells: exact.cells }) };
}
