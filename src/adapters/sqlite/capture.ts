/**
 * Capturing what a job does, inside its own transaction, with temporary triggers. They live in the
 * connection and leave nothing in the file.
 *
 * For every table there is a temporary table of *slots*. A slot is where the engine keeps a row: its rowid, or
 * the primary key of a WITHOUT ROWID table under that key's own collation. The first time a slot is touched,
 * what stood there is recorded: the row, or that there was none. At the end each recorded slot is read again,
 * and what differs is the net effect. So it does not matter how often or by which way a slot was written.
 *
 * | event | recorded |
 * | --- | --- |
 * | BEFORE UPDATE, BEFORE DELETE | the row at OLD's slot |
 * | AFTER INSERT | no row at NEW's slot, unless it is recorded already |
 * | AFTER UPDATE that moved the row | no row at NEW's slot; the move |
 * | BEFORE INSERT, BEFORE UPDATE, where REPLACE occurs | every row equal to NEW on any unique index |
 *
 * The last line is there because REPLACE fires no delete trigger while `recursive_triggers` is off, and turning
 * that on would change what the job does. What the probes cannot see (a unique index over an expression) is
 * found by {@link miscounted}.
 *
 * The recording statements say `ON CONFLICT DO NOTHING` and never `OR IGNORE`: inside a trigger the conflict
 * clause of the statement that fired it wins over the latter (sqlite.org/lang_createtrigger.html), and
 * under `INSERT OR REPLACE` the recorded row would be replaced by a later one.
 */
import { keyOf, type Change, type Origin, type RowKey, type TableShape } from "../../changeset/change.js";
import { sameRow, type Row } from "../../changeset/value.js";
import { type CaptureFile, type Filed, integerKey, mayDiffer } from "./capture-file.js";
import type { Cell, Connection, Driver } from "./driver.js";
import { LooseRows } from "./loose-rows.js";
import { main, quote } from "./names.js";
import { unsupported, withoutKey, type Catalogue, type TableInfo } from "./schema.js";
import { exactly, fromExact, isSuspect, type Encoding } from "./values.js";

/** The SQL function that every recording trigger calls once a row; it throws to stop the job. */
export const TICK = "holdpoint_tick";

/** How the capture's temporary objects begin; the marker's tables have other names. */
const CAPTURE_PREFIX = "holdpoint_capture_";

/** What a capture has to reckon with. */
export interface CaptureKind {
  /** Whether a REPLACE can occur at all, which must be assumed as soon as the word stands anywhere in the job or the schema. */
  readonly replaces: boolean;
  /** Whether {@link TICK} is called; where nothing bounds the rows, each call would cost as much as recording its row. */
  readonly ticks: boolean;
}

/** Capturing one job on one connection. The caller holds the transaction. */
export class Capture {
  readonly connection: Connection;
  readonly tables: readonly CapturedTable[];

  /** Makes the temporary tables and triggers. */
  constructor(driver: Driver, connection: Connection, catalogue: Catalogue, kind: CaptureKind) {
    this.connection = connection;
    const capturable = catalogue.tables.filter((t) => unsupported(t) === undefined);
    this.tables = capturable.map(
      (t, i) => new CapturedTable(driver, connection, t, i, catalogue.encoding, kind),
    );
  }

  /** Tables of which some slot was recorded. */
  touched(): readonly CapturedTable[] {
    return this.tables.filter((t) => t.isTouched());
  }
}

/**
 * Whether the captured numbers contradict the counted ones. Every insert is seen, so rows that REPLACE took
 * away unseen make `after` smaller than `before + inserts − deletes`, and nothing can make up for it.
 */
export function miscounted(
  before: number,
  after: number,
  seen: { readonly appeared: number; readonly gone: number },
): boolean {
  return before + seen.appeared - seen.gone !== after;
}

/** The slots of one table. */
export class CapturedTable {
  readonly driver: Driver;
  readonly connection: Connection;
  readonly info: TableInfo;
  readonly number: number;
  readonly encoding: Encoding;
  readonly #slots: string;
  readonly #moves: string;
  readonly #slot: readonly Slot[];
  readonly #ticks: boolean;
  /** Reading text plainly needs a slot to come back to and UTF-8; see `values.ts`. */
  readonly #exact: boolean;

  constructor(
    driver: Driver,
    connection: Connection,
    info: TableInfo,
    number: number,
    encoding: Encoding,
    { replaces, ticks }: CaptureKind,
  ) {
    this.#ticks = ticks;
    this.driver = driver;
    this.connection = connection;
    this.info = info;
    this.number = number;
    this.encoding = encoding;
    const prefix = `${CAPTURE_PREFIX}${number}_`;
    this.#slots = `${prefix}slots`;
    this.#moves = `${prefix}moves`;
    this.#slot = slotOf(info);
    this.#exact = info.withoutRowid || encoding !== "UTF-8";
    for (const sql of [...this.#tables(), ...this.#triggers(prefix, replaces)]) connection.exec(sql);
  }

  isTouched(): boolean {
    return this.connection.value(`SELECT EXISTS (SELECT 1 FROM temp.${this.#slots})`) === 1n;
  }

  /** How many slots were recorded. */
  recorded(): number {
    return Number(this.connection.value(`SELECT count(*) FROM temp.${this.#slots}`));
  }

  /** How many recorded slots hold a row that was not there, and the other way round. */
  seen(): { readonly appeared: number; readonly gone: number } {
    const there = `EXISTS (SELECT 1 FROM ${main(this.info.name)} AS t WHERE ${this.#sameSlot("s", "t")})`;
    const row = this.connection.row(
      `SELECT sum(NOT s.was AND ${there}), sum(s.was AND NOT ${there}) FROM temp.${this.#slots} AS s`,
    );
    return { appeared: Number(row?.[0] ?? 0n), gone: Number(row?.[1] ?? 0n) };
  }

  /** The shape whose key holds for every touched row: one without a key as soon as a NULL stands in a key. */
  shape(): TableShape {
    const { shape } = this.info;
    if (shape.keyKind === "none" || this.info.alias !== null || this.info.withoutRowid) return shape;
    const isNull = shape.key.map((i) => `${quote(shape.columns[i]?.name ?? "")} IS NULL`).join(" OR ");
    const found = this.connection.value(
      `SELECT EXISTS (SELECT 1 FROM ${main(this.info.name)} WHERE ${isNull})`,
    );
    return found === 1n ? withoutKey(shape) : shape;
  }

  /** The net effect, in no particular order. */
  *changes(shape: TableShape, origin: Origin): Generator<Change, undefined> {
    if (shape.keyKind === "none") yield* this.#countedChanges(shape, origin);
    else if (this.#slotIsKey() || !this.#keysMayCross()) yield* this.#slotChanges(shape, origin);
    else yield* this.#keyedChanges(shape, origin);
  }

  /**
   * The net effect into a file, by the engine alone; null where it has to be told change by change: keys that are not the
   * rowid, or moved, and cells that only seem to be what they are.
   */
  file(file: CaptureFile, shape: TableShape, origin: Origin): Filed | null {
    const { alias } = this.info;
    if (this.#exact || alias === null || shape.key.length !== 1 || shape.key[0] !== alias) return null;
    if (this.#someMoves()) return null;
    const now = shape.columns.map((c) => `t.${quote(c.name)}`);
    const was = shape.columns.map((_, i) => `s.c${i}`);
    const source = `t.${this.#slot[0]?.source ?? ""}`;
    // The rowid is the slot, and does not differ there.
    const differs = now.flatMap((n, i) =>
      i === alias ? [] : [mayDiffer(n, `s.c${i}`, shape.columns[i]?.type ?? "")],
    );
    const op = `CASE WHEN NOT s.was THEN 'insert' WHEN ${source} IS NULL THEN 'delete' ELSE 'update' END`;
    return file.take(
      shape,
      `SELECT ${op}, '${origin}', NULL, 1, ${integerKey("s.s0")}, NULL, ${was.join(", ")}, ${now.join(", ")}
       FROM temp.${this.#slots} AS s LEFT JOIN ${main(this.info.name)} AS t ON ${this.#sameSlot("s", "t")}
       WHERE s.was <> (${source} IS NOT NULL) OR (s.was AND (${["false", ...differs].join(" OR ")})) ORDER BY s.s0`,
    );
  }

  // ---- making tables and triggers

  #tables(): readonly string[] {
    const cells = this.info.shape.columns.map((_, i) => `c${i}`);
    const moved = this.#slot.map((s) => `o_${s.name}`);
    return [
      `CREATE TEMP TABLE ${this.#slots} (${this.#slotColumns()}, was, ${cells.join(", ")}${this.#slotKey()}`,
      `CREATE TEMP TABLE ${this.#moves} (${this.#slotColumns()}, ${moved.join(", ")}${this.#slotKey()}`,
      `CREATE INDEX temp.${this.#moves}_back ON ${this.#moves} (${moved.join(", ")})`,
    ];
  }

  #slotColumns(): string {
    if (!this.info.withoutRowid) return "s0 INTEGER PRIMARY KEY";
    return this.#slot.map((s) => `${s.name} COLLATE ${quote(s.collation)}`).join(", ");
  }

  #slotKey(): string {
    return this.info.withoutRowid ? `, PRIMARY KEY (${this.#names()})) WITHOUT ROWID` : ")";
  }

  #names(): string {
    return this.#slot.map((s) => s.name).join(", ");
  }

  #triggers(prefix: string, replaces: boolean): readonly string[] {
    const table = main(this.info.name);
    const tick = this.#ticks ? [`SELECT ${TICK}()`] : [];
    const trigger = (name: string, event: string, body: readonly string[], when = ""): string =>
      `CREATE TEMP TRIGGER ${prefix}${name} ${event} ON ${table} ${when} BEGIN ${[...tick, ...body].join("; ")}; END`;
    const old = this.#record("OLD", `${this.#cells("OLD")} WHERE true`);
    const moved = this.#slot
      .map((s) => `NEW.${s.source} IS NOT OLD.${s.source} COLLATE ${quote(s.collation)}`)
      .join(" OR ");
    const rivals = replaces ? this.#recordRivals() : [];
    return [
      trigger("delete", "BEFORE DELETE", [old, this.#forget("OLD")]),
      trigger("insert", "AFTER INSERT", [this.#recordNone(), this.#forget("NEW")]),
      trigger("update", "BEFORE UPDATE", [...rivals, old]),
      trigger(
        "move",
        "AFTER UPDATE",
        [this.#recordNone(), this.#remember(), this.#forget("OLD")],
        `WHEN ${moved}`,
      ),
      ...(rivals.length > 0 ? [trigger("replace", "BEFORE INSERT", rivals)] : []),
    ];
  }

  #cells(row: string): string {
    return this.info.shape.columns.map((c) => `${row}.${quote(c.name)}`).join(", ");
  }

  #slotValues(row: string): string {
    return this.#slot.map((s) => `${row}.${s.source}`).join(", ");
  }

  /** Records the row that `row` stands for, if its slot is not recorded yet. */
  #record(row: string, rest: string): string {
    return `INSERT INTO ${this.#slots} SELECT ${this.#slotValues(row)}, 1, ${rest} ON CONFLICT DO NOTHING`;
  }

  #recordNone(): string {
    return `INSERT INTO ${this.#slots} (${this.#names()}, was) VALUES (${this.#slotValues("NEW")}, 0) ON CONFLICT DO NOTHING`;
  }

  /** Rows that a REPLACE may take away: those equal to NEW where a unique index compares. */
  #recordRivals(): readonly string[] {
    const indexes = this.info.uniques.filter((u) => u.columns.every((c) => c.column !== null));
    const conditions = indexes.map((u) =>
      u.columns.map((c) => this.#equalsNew(c.column ?? 0, c.collation)).join(" AND "),
    );
    if (this.info.rowid !== null)
      conditions.push(`t.${quote(this.info.rowid)} = NEW.${quote(this.info.rowid)}`);
    return conditions.map((c) =>
      this.#record("t", `${this.#cells("t")} FROM ${main(this.info.name)} AS t WHERE ${c}`),
    );
  }

  #equalsNew(column: number, collation: string): string {
    const name = quote(this.info.shape.columns[column]?.name ?? "");
    return `t.${name} = NEW.${name} COLLATE ${quote(collation)}`;
  }

  /** Notes that the row now at NEW's slot is the one that began where OLD's began. */
  #remember(): string {
    const origins = this.#slot.map(
      (s) =>
        `coalesce((SELECT o_${s.name} FROM ${this.#moves} WHERE ${this.#isSlot("OLD")}), OLD.${s.source})`,
    );
    const origin = this.#slot.map((s) => `o_${s.name} = excluded.o_${s.name}`).join(", ");
    return `INSERT INTO ${this.#moves} VALUES (${this.#slotValues("NEW")}, ${origins.join(", ")}) ON CONFLICT (${this.#names()}) DO UPDATE SET ${origin}`;
  }

  #forget(row: string): string {
    return `DELETE FROM ${this.#moves} WHERE ${this.#isSlot(row)}`;
  }

  #isSlot(row: string): string {
    return this.#slot.map((s) => `${s.name} = ${row}.${s.source}`).join(" AND ");
  }

  #sameSlot(slots: string, table: string): string {
    return this.#slot.map((s) => `${table}.${s.source} = ${slots}.${s.name}`).join(" AND ");
  }

  // ---- reading the net effect

  /** Every recorded slot with its images; untouched and equal ones are left out. */
  *#slotImages(): Generator<SlotImages, undefined> {
    const width = this.info.shape.columns.length;
    const before = this.info.shape.columns.map((_, i) => `s.c${i}`);
    const after = this.info.shape.columns.map((c) => `t.${quote(c.name)}`);
    const read = (list: readonly string[], exact: boolean): string =>
      list.map((e) => (exact ? exactly(e) : e)).join(", ");
    const query = (exact: boolean): string =>
      `SELECT ${this.#slot.map((s) => `s.${s.name}`).join(", ")}, s.was, t.${this.#slot[0]?.source ?? ""} IS NOT NULL,
       ${read(before, exact)}, ${read(after, exact)}
       FROM temp.${this.#slots} AS s LEFT JOIN ${main(this.info.name)} AS t ON ${this.#sameSlot("s", "t")}`;
    const [keys, plain, exact] = [this.#slot.length, query(false), query(true)];
    for (const cells of this.connection.iterate(this.#exact ? exact : plain)) {
      const suspect = !this.#exact && isSuspect(cells);
      const precise = suspect ? (this.connection.row(`${exact} WHERE s.s0 = ?`, cells[0]) ?? cells) : cells;
      const slot = cells.slice(0, keys);
      const [was, is] = [cells[keys] === 1n, cells[keys + 1] === 1n];
      const images = this.#images(precise, keys + 2, width, suspect || this.#exact);
      const [wasRow, isRow] = [was ? images[0] : null, is ? images[1] : null];
      if (!sameRow(wasRow, isRow)) yield { slot, before: wasRow, after: isRow };
    }
  }

  #images(cells: readonly Cell[], from: number, width: number, exact: boolean): readonly [Row, Row] {
    if (!exact) return [cells.slice(from, from + width), cells.slice(from + width, from + 2 * width)];
    return [
      fromExact(cells, from, width, this.encoding),
      fromExact(cells, from + 2 * width, width, this.encoding),
    ];
  }

  #slotIsKey(): boolean {
    return this.info.alias !== null;
  }

  /**
   * Whether one key may stand in two slots, once before and once after: only where rows both went away and
   * appeared, or a row changed its key. Else each slot is a change of its own.
   */
  #keysMayCross(): boolean {
    const row = this.connection.row(
      `SELECT EXISTS (SELECT 1 FROM temp.${this.#slots} WHERE was), EXISTS (SELECT 1 FROM temp.${this.#slots} WHERE NOT was)`,
    );
    return (row?.[0] === 1n && row[1] === 1n) || this.#someKeyChanged();
  }

  #someKeyChanged(): boolean {
    const { key, columns } = this.info.shape;
    const differs = key.map((i) => {
      const now = `t.${quote(columns[i]?.name ?? "")}`;
      return `s.c${i} IS NOT ${now} COLLATE BINARY OR typeof(s.c${i}) <> typeof(${now})`;
    });
    const sql = `SELECT EXISTS (SELECT 1 FROM temp.${this.#slots} AS s JOIN ${main(this.info.name)} AS t
      ON ${this.#sameSlot("s", "t")} WHERE s.was AND (${differs.join(" OR ")}))`;
    return this.connection.value(sql) === 1n;
  }

  /** Each slot is a change: where the slot is the key, or no key stands in two slots. */
  *#slotChanges(shape: TableShape, origin: Origin): Generator<Change, undefined> {
    const moves = this.#someMoves();
    for (const { slot, before, after } of this.#slotImages()) {
      const key = keyOf(shape, before ?? after ?? []);
      const facts = { table: shape.name, key, origin };
      if (before !== null && after !== null) yield { ...facts, op: "update", before, after };
      else if (before !== null)
        yield { ...facts, op: "delete", before, ...(moves ? this.#movedTo(slot) : {}) };
      else if (after !== null)
        yield { ...facts, op: "insert", after, ...(moves ? this.#movedFrom(slot) : {}) };
    }
  }

  #someMoves(): boolean {
    return (
      this.#slotIsKey() && this.connection.value(`SELECT EXISTS (SELECT 1 FROM temp.${this.#moves})`) === 1n
    );
  }

  /** The other end of a changed key, where the key is the slot: only a slot that was empty before can be it. */
  #movedTo(slot: readonly Cell[]): { readonly link: RowKey } | Record<string, never> {
    return this.#link(
      `SELECT m.s0 FROM temp.${this.#moves} AS m JOIN temp.${this.#slots} AS s ON s.s0 = m.s0 WHERE m.o_s0 = ? AND NOT s.was
       AND EXISTS (SELECT 1 FROM ${main(this.info.name)} AS t WHERE t.${this.#slot[0]?.source ?? ""} = m.s0)`,
      slot,
    );
  }

  #movedFrom(slot: readonly Cell[]): { readonly link: RowKey } | Record<string, never> {
    return this.#link(
      `SELECT m.o_s0 FROM temp.${this.#moves} AS m JOIN temp.${this.#slots} AS s ON s.s0 = m.o_s0 WHERE m.s0 = ? AND s.was
       AND NOT EXISTS (SELECT 1 FROM ${main(this.info.name)} AS t WHERE t.${this.#slot[0]?.source ?? ""} = m.o_s0)`,
      slot,
    );
  }

  #link(sql: string, slot: readonly Cell[]): { readonly link: RowKey } | Record<string, never> {
    const other = this.connection.value(sql, slot[0]);
    return other === null ? {} : { link: [other] };
  }

  /**
   * Rows whose key and slot go apart: what left a slot and what came to one are put side by side by key. One
   * entity that kept its slot and changed its key is a linked delete and insert, if both keys are free.
   */
  *#keyedChanges(shape: TableShape, origin: Origin): Generator<Change, undefined> {
    const loose = new LooseRows(this.driver);
    try {
      for (const { slot, before, after } of this.#slotImages()) {
        const [was, is] = [before && keyOf(shape, before), after && keyOf(shape, after)];
        if (before !== null && after !== null && was !== null && sameRow(was, is)) {
          yield { table: shape.name, key: was, origin, op: "update", before, after };
          continue;
        }
        if (before !== null && was !== null)
          loose.leave(was, before, is ?? this.#otherEnd(shape, slot, "now"));
        if (after !== null && is !== null)
          loose.come(is, after, was ?? this.#otherEnd(shape, slot, "before"));
      }
      yield* loose.keyedChanges(shape, origin);
    } finally {
      loose.close();
    }
  }

  /** In a WITHOUT ROWID table a changed key is a changed slot; the move tells the other end. */
  #otherEnd(shape: TableShape, slot: readonly Cell[], side: "before" | "now"): RowKey | null {
    if (!this.info.withoutRowid) return null;
    const [here, there] = side === "now" ? ["o_", ""] : ["", "o_"];
    const where = this.#slot.map((s) => `${here}${s.name} = ?`).join(" AND ");
    const ends = this.#slot.map((s) => exactly(`${there}${s.name}`)).join(", ");
    const cells = this.connection.row(`SELECT ${ends} FROM temp.${this.#moves} WHERE ${where}`, ...slot);
    return cells === undefined ? null : fromExact(cells, 0, shape.key.length, this.encoding);
  }

  /** Tables without a key: how many more or fewer equal rows there are. */
  *#countedChanges(shape: TableShape, origin: Origin): Generator<Change, undefined> {
    const loose = new LooseRows(this.driver);
    try {
      for (const { before, after } of this.#slotImages()) {
        if (before !== null) loose.count(before, -1);
        if (after !== null) loose.count(after, 1);
      }
      yield* loose.countedChanges(shape, origin);
    } finally {
      loose.close();
    }
  }
}

/** Where the engine keeps a row. */
interface Slot {
  /** Column of the temporary tables. */
  readonly name: string;
  /** The table's own column (or rowid), quoted. */
  readonly source: string;
  readonly collation: string;
}

interface SlotImages {
  readonly slot: readonly Cell[];
  readonly before: Row | null;
  readonly after: Row | null;
}

function slotOf(info: TableInfo): readonly Slot[] {
  if (!info.withoutRowid) return [{ name: "s0", source: quote(info.rowid ?? "rowid"), collation: "BINARY" }];
  return info.primaryKey.map((k, i) => ({
    name: `s${i}`,
    source: quote(info.shape.columns[k.column]?.name ?? ""),
    collation: k.collation,
  }));
}
