/**
 * Patterns: every row of a plan, without sampling, in a handful of lines. Rows that change the same columns from the
 * same values to the same values are one line; the second-largest is where wrong plans show.
 */
import type { Op } from "../changeset/change.js";
import { type Cell, cell, type Column, type Paper, table } from "./layout.js";
import { count } from "./numbers.js";
import { changeCell, sign } from "./rows.js";
import { show, showFull, type Shown } from "./value.js";

/** Stands for values that differ from row to row. */
export interface Varies {
  readonly kind: "varies";
}

/** One side of a pattern's column. */
export type PatternValue = Shown | Varies;

/** Rows that change alike. */
export interface PatternView {
  readonly table: string;
  readonly op: Op;
  /** The columns that change, for updates. */
  readonly columns: readonly {
    readonly column: string;
    readonly from: PatternValue;
    readonly to: PatternValue;
  }[];
  readonly rows: number;
  /** Patterns that were folded into this line because there were too many; absent means it stands for itself. */
  readonly folded?: number;
  /** What is remarkable about it: `delete by cascade`, `odd`. */
  readonly note?: string;
}

/** A pattern of rows that are few among many alike. */
export interface RarePattern {
  readonly pattern: PatternView;
  /** Updates of the same table. */
  readonly of: number;
}

const RARE_ROWS = 20;
const RARE_SHARE = 0.005;

/**
 * Rule `rare-transition`: at most 20 rows and under 0.5 % of the table's updates. Silent where the rare ones are not the
 * exception (half of the updates or more), as when every row gets a value of its own.
 */
export function rareTransitions(patterns: readonly PatternView[]): RarePattern[] {
  const updates = patterns.filter((p) => p.op === "update");
  return [...new Set(updates.map((p) => p.table))].flatMap((name) => {
    const own = updates.filter((p) => p.table === name);
    const of = sumRows(own);
    const rare = own.filter((p) => p.folded === undefined && p.rows <= RARE_ROWS && p.rows < RARE_SHARE * of);
    return sumRows(rare) * 2 >= of ? [] : rare.map((pattern) => ({ pattern, of }));
  });
}

function sumRows(patterns: readonly PatternView[]): number {
  return patterns.reduce((sum, p) => sum + p.rows, 0);
}

/** A pattern in words, without colour: `orders.status pending → cancelled`. */
export function patternWords(p: PatternView): string {
  const changes = p.columns.map((c) => `${p.table}.${c.column} ${plainSide(c.from)} → ${plainSide(c.to)}`);
  return changes.length === 0 ? `${p.op} ${p.table}` : changes.join(", ");
}

function plainSide(v: PatternValue): string {
  if (isVaries(v)) return "(differs)";
  const text = showFull(v);
  return text.length > 40 ? `${text.slice(0, 30).toWellFormed()}…(${count(text.length)})` : text;
}

const COLUMNS: readonly Column[] = [
  { head: "" },
  { head: "" },
  { head: "", align: "right" },
  { head: "", room: "wrap" },
  { head: "" },
];

/** The patterns' lines, of clean views. */
export function patternLines(patterns: readonly PatternView[], paper: Paper): string[] {
  const p = paper.palette;
  const noted = patterns.some((x) => x.note !== undefined);
  const rows = patterns.map((x) => [
    sign(x.op, p),
    { text: x.table },
    { text: count(x.rows) },
    patternCell(x, paper),
    ...(noted ? [{ text: x.note ?? "", style: p.note }] : []),
  ]);
  return table(noted ? COLUMNS : COLUMNS.slice(0, 4), rows, paper);
}

function patternCell(x: PatternView, paper: Paper): Cell {
  if (x.folded !== undefined) return { text: `${x.op}, ${count(x.folded)} more patterns` };
  if (x.columns.length === 0) return { text: x.op };
  const pieces = x.columns.flatMap((c, i) => [
    { text: `${i === 0 ? "" : "   "}${c.column}: ` },
    sidesCell(c.from, c.to, paper),
  ]);
  return cell(...pieces);
}

function sidesCell(from: PatternValue, to: PatternValue, paper: Paper): Cell {
  const p = paper.palette;
  if (!isVaries(from) && !isVaries(to)) return changeCell(from, to, p);
  const side = (v: PatternValue): string => (isVaries(v) ? "(differs)" : show(v, p));
  return { text: `${side(from)} ${p.glyph.arrow} ${side(to)}` };
}

function isVaries(v: PatternValue): v is Varies {
  return typeof v === "object" && v !== null && "kind" in v && v.kind === "varies";
}
