/** Rows on screen: a cell table where it fits, a record per row where it does not. */
import { type Change, type Op, type RowKey, type TableShape } from "../changeset/change.js";
import type { Row, Value } from "../changeset/value.js";
import {
  type Cell,
  cell,
  type Column,
  hang,
  paint,
  type Paper,
  page,
  paperOf,
  spread,
  table,
  widthOf,
} from "./layout.js";
import { plural } from "./numbers.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";
import { type Masked, show, showChange, showFull, type Shown } from "./value.js";

/** A column's name and its value. */
export interface NamedValue {
  readonly column: string;
  readonly value: Shown;
}

/** A cell of a changed row: another value than before, or one that is shown to tell what row this is. */
export type CellView =
  | { readonly kind: "changed"; readonly column: string; readonly before: Shown; readonly after: Shown }
  | { readonly kind: "same"; readonly column: string; readonly value: Shown };

/** One row's change as it is shown. */
export interface RowView {
  readonly table: string;
  readonly op: Op;
  readonly key: readonly NamedValue[];
  readonly cells: readonly CellView[];
  /** Columns that do not change and are not shown. */
  readonly unchanged: number;
  /** Equal rows that this line stands for, in tables without a key. */
  readonly count: number;
  /** Why the row is shown here: `rare change, 2 of 1,204`. */
  readonly note?: string;
}

/** How a change becomes a {@link RowView}. */
export interface RowViewOptions {
  /** Which columns of this table are masked. */
  readonly isMasked: (column: string) => boolean;
  /** One masker for the whole document, see `createMasker`. */
  readonly mask: (v: Value) => Masked;
  /** Columns shown although they did not change, to tell what row this is. */
  readonly labels?: readonly string[];
}

/** The view of one change: an update's changed cells, all cells of a row that appears or goes away. */
export function rowView(change: Change, shape: TableShape, options: RowViewOptions): RowView {
  const named = shape.columns.map((c, i) => ({ name: c.name, cell: cellViewOf(change, c.name, i, options) }));
  const inKey = new Set(shape.keyKind === "none" ? [] : shape.key);
  const others = named.filter((_, i) => !inKey.has(i));
  const shown = others.filter(
    (o) => o.cell.kind === "changed" || change.op !== "update" || isLabel(o.name, options),
  );
  return {
    table: change.table,
    op: change.op,
    key: shape.keyKind === "none" ? [] : keyView(change.key, shape, options),
    cells: shown.map((o) => o.cell),
    unchanged: others.length - shown.length,
    count: change.count ?? 1,
  };
}

/** The key's columns with their values. */
export function keyView(key: RowKey, shape: TableShape, options: RowViewOptions): NamedValue[] {
  return shape.key.map((at, i) => {
    const column = shape.columns[at]?.name ?? "";
    return { column, value: shownValue(column, key[i] ?? null, options) };
  });
}

/** One value, masked where its column is. */
export function shownValue(column: string, v: Value, options: RowViewOptions): Shown {
  return options.isMasked(column) ? options.mask(v) : v;
}

function isLabel(column: string, options: RowViewOptions): boolean {
  return options.labels?.includes(column) ?? false;
}

function cellViewOf(change: Change, column: string, at: number, options: RowViewOptions): CellView {
  const value = (row: Row): Shown => shownValue(column, row[at] ?? null, options);
  switch (change.op) {
    case "insert":
      return { kind: "same", column, value: value(change.after) };
    case "delete":
      return { kind: "same", column, value: value(change.before) };
    case "update": {
      // `showFull` is injective, so equal texts are equal values.
      if (showFull(change.before[at] ?? null) === showFull(change.after[at] ?? null)) {
        return { kind: "same", column, value: value(change.before) };
      }
      return { kind: "changed", column, before: value(change.before), after: value(change.after) };
    }
  }
}

/** Rows as a text of their own (`show --rows`). */
export function renderRows(rows: readonly RowView[], palette: Palette, width: number): string {
  return page(rowLines(clean(rows), paperOf(palette, width)));
}

/**
 * The rows' lines, of clean views: consecutive rows of one table and operation share a cell table; where that does not
 * fit each row is a record.
 */
export function rowLines(rows: readonly RowView[], paper: Paper): string[] {
  return groups(rows).flatMap(
    (group) => cellTable(group, paper) ?? group.flatMap((r) => recordLines(r, paper)),
  );
}

/** The operation's sign in its colour. */
export function sign(op: Op, p: Palette): Cell {
  if (p.form === "accessible") return { text: op };
  switch (op) {
    case "insert":
      return { text: "+", style: p.added };
    case "delete":
      return { text: "-", style: p.removed };
    case "update":
      return { text: "~", style: p.changed };
  }
}

/** `before → after`, the before faint, the after strong. */
export function changeCell(before: Shown, after: Shown, p: Palette, limit?: number): Cell {
  const [from, to] = showChange(before, after, p, limit);
  return cell({ text: from, style: p.faint }, { text: ` ${p.glyph.arrow} ` }, { text: to, style: p.strong });
}

/** A row's key in words: `48213`, or `eu/7` when it has several columns; `whole row` in tables without a key. */
export function keyText(key: readonly NamedValue[], p: Palette): string {
  return key.length === 0 ? "whole row" : key.map((k) => showFull(k.value, p.glyph.mask)).join("/");
}

function groups(rows: readonly RowView[]): RowView[][] {
  const all: RowView[][] = [];
  for (const row of rows) {
    const last = all.at(-1);
    const same = last?.[0] !== undefined && last[0].table === row.table && last[0].op === row.op;
    if (last !== undefined && same) last.push(row);
    else all.push([row]);
  }
  return all;
}

/** Columns that any row of the group shows; undefined where the table would not fit, or there is no alignment. */
function cellTable(group: readonly RowView[], paper: Paper): string[] | undefined {
  const first = group[0];
  if (first === undefined || paper.palette.form === "accessible") return undefined;
  const names = [...new Set(group.flatMap((r) => r.cells.map((c) => c.column)))];
  const keyHead = `${first.table}.${first.key.map((k) => k.column).join("/") || "row"}`;
  const noted = group.some((r) => noteOf(r) !== "");
  const columns: Column[] = [
    { head: "" },
    { head: keyHead },
    ...names.map((head) => ({ head })),
    ...(noted ? [{ head: "" }] : []),
  ];
  const rows = group.map((r) => tableCells(r, names, noted, paper.palette));
  if (naturalWidth(columns, rows) > paper.width) return undefined;
  return table(columns, rows, paper);
}

function naturalWidth(columns: readonly Column[], rows: readonly (readonly Cell[])[]): number {
  const widths = columns.map((c, i) =>
    Math.max(widthOf(c.head), ...rows.map((r) => widthOf(r[i]?.text ?? ""))),
  );
  return widths.reduce((sum, w) => sum + w + 2, 0);
}

function tableCells(row: RowView, names: readonly string[], noted: boolean, p: Palette): Cell[] {
  const cells = names.map((name) => {
    const found = row.cells.find((c) => c.column === name);
    return found === undefined ? { text: "" } : valueCell(found, row.op, p, 24);
  });
  const note = noted ? [{ text: noteOf(row), style: p.note }] : [];
  return [sign(row.op, p), { text: keyText(row.key, p) }, ...cells, ...note];
}

function valueCell(c: CellView, op: Op, p: Palette, limit?: number): Cell {
  if (c.kind === "changed") return changeCell(c.before, c.after, p, limit);
  return { text: show(c.value, p, limit), ...(op === "update" ? { style: p.faint } : {}) };
}

function noteOf(row: RowView): string {
  return [row.count > 1 ? `${row.count} equal rows` : "", row.note ?? ""].filter((t) => t !== "").join(", ");
}

function recordLines(row: RowView, paper: Paper): string[] {
  const p = paper.palette;
  const head = cell({ text: "  " }, sign(row.op, p), { text: ` ${row.table} ${keyText(row.key, p)}` });
  const nameWidth = Math.min(24, Math.max(0, ...row.cells.map((c) => widthOf(c.column))));
  const cells = row.cells.flatMap((c) => {
    const lead = { text: `      ${c.column.padEnd(nameWidth)}  ` };
    return hang(
      lead,
      valueCell(c, row.op, p, Math.max(16, Math.floor((paper.width - nameWidth - 12) / 2))),
      paper,
    );
  });
  const unchanged = row.unchanged === 0 ? [] : [`      (${plural(row.unchanged, "column")} unchanged)`];
  return [
    ...spread(head, { text: noteOf(row) }, paper),
    ...cells,
    ...unchanged.map((text) => paint({ text, style: p.faint })),
  ];
}
