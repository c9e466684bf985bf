/**
 * A ChangeSet as people see it: every row in a handful of lines, and a few rows in full. One pass in
 * canonical order with bounded memory, so ten million rows cost no more than ten thousand, and every
 * machine says the same.
 */
import { hash } from "node:crypto";
import type { Digest } from "../base/digest.js";
import {
  countOf,
  type Change,
  type ChangeSink,
  type ChangeSource,
  type Op,
  type Origin,
  type TableCounts,
  type TableShape,
} from "./change.js";
import { countRows, sortedTables } from "./source.js";
import { isRawText, sameValue, type Row, type Value } from "./value.js";

/** What to show, and how much of it. */
export interface SummaryOptions {
  /** Draws the sample: the plan's digest, so that nobody picks the pretty rows. */
  readonly sampleSeed: Digest;
  /** Rows in the sample. */
  readonly sampleSize: number;
  /** A column with more distinct transitions than this is shown as a number of distinct ones. */
  readonly patternLimit: number;
}

/** One changed column of a pattern. */
export type PatternColumn =
  | { readonly kind: "transition"; readonly column: string; readonly from: Value; readonly to: Value }
  | {
      readonly kind: "many";
      readonly column: string;
      /** Distinct transitions of the column in its table; at least so many when `exact` is false. */
      readonly distinct: number;
      readonly exact: boolean;
    };

/** Rows that change in the same way. Inserts and deletes are whole rows and have no columns. */
export interface Pattern {
  readonly table: string;
  readonly op: Op;
  readonly origin: Origin;
  readonly rows: number;
  readonly columns: readonly PatternColumn[];
  /** Rows of too many different sets of columns in one line: each row changes some of `columns`. */
  readonly various?: boolean;
}

/** One table's share. */
export interface TableSummary extends TableCounts {
  /** Columns that some update changes, in the table's order. */
  readonly columns: readonly string[];
  /** Columns that some update changes and that end with one value in every inserted or updated row. */
  readonly levelledTo: readonly { readonly column: string; readonly value: Value }[];
  /** Where all its changes come from; `unknown` when they come from several places. */
  readonly origin: Origin;
  /** Rows that are known to come from a cascade, and from a trigger. */
  readonly cascaded: number;
  readonly triggered: number;
}

/** See {@link summarise}. */
export interface Summary {
  readonly rows: number;
  /** Tables with a change, in canonical order. */
  readonly tables: readonly TableSummary[];
  /** Largest first. */
  readonly patterns: readonly Pattern[];
  /** In canonical order. */
  readonly sample: readonly Change[];
}

/** Lines that one table may have before its columns are shown as numbers of distinct values. */
const MOST_PATTERNS = 200;
/** Distinct transitions are counted up to here; beyond it is "more than". */
const MOST_COUNTED = 1_000;
/** A longer value is never held for display. */
const LONGEST_SHOWN_BYTES = 1_024;

/** What a summary reads its sample from: a file that finds a change by its place need not hand over the others. */
export interface SampleSource extends ChangeSource {
  /** The change of a table that stands after so many others in canonical order. */
  readonly nth?: (table: string, place: number) => Change | undefined;
}

/**
 * Law: the rows of `patterns` add up to `rows`, which is the sum of all counts: nothing is left out.
 * Law: which rows are the sample depends on the seed and on how many changes each table has, and on nothing else.
 */
export function summarise(source: SampleSource, options: SummaryOptions): Summary {
  const summary = new SummaryInProgress(options.patternLimit);
  for (const shape of sortedTables(source.tables)) {
    summary.table(shape);
    for (const c of source.changes(shape.name)) summary.add(c);
  }
  return summary.finish(source, options);
}

/** {@link summarise} for whoever has the changes passing anyway, in canonical order. */
export class SummaryInProgress implements ChangeSink {
  readonly #limit: number;
  readonly #tables: TableView[] = [];

  constructor(patternLimit: number) {
    this.#limit = patternLimit;
  }

  table = (shape: TableShape): void => {
    this.#tables.push(new TableView(shape, this.#limit));
  };

  add = (change: Change): void => {
    this.#tables.at(-1)?.add(change);
  };

  /** The summary of what passed; the sample is chosen from `source`, which holds the same changes. */
  finish(source: SampleSource, options: Pick<SummaryOptions, "sampleSeed" | "sampleSize">): Summary {
    const changed = this.#tables.filter((t) => !t.isEmpty);
    const tables = changed.map((t) => t.summary());
    const patterns = changed.flatMap((t) => t.patterns()).sort((a, b) => b.rows - a.rows);
    const rows = tables.reduce((sum, t) => sum + t.insert + t.update + t.delete, 0);
    return { rows, tables, patterns, sample: sampleOf(source, changed, options) };
  }
}

/** One table while its changes pass. */
class TableView {
  readonly #shape: TableShape;
  readonly #counter: ReturnType<typeof countRows>;
  readonly #patterns: Patterns;
  readonly #levels: Levels;
  #origin: Origin | undefined;
  #changes = 0;
  #cascaded = 0;
  #triggered = 0;

  constructor(shape: TableShape, limit: number) {
    this.#shape = shape;
    this.#counter = countRows(shape.name);
    this.#patterns = new Patterns(shape, limit);
    this.#levels = new Levels(shape);
  }

  get name(): string {
    return this.#shape.name;
  }

  /** How many changes were added; equal rows of one change are one. */
  get changes(): number {
    return this.#changes;
  }

  get isEmpty(): boolean {
    return this.#origin === undefined;
  }

  add(c: Change): void {
    this.#counter.add(c);
    this.#changes++;
    this.#origin = this.#origin === undefined || this.#origin === c.origin ? c.origin : "unknown";
    if (c.origin === "cascade") this.#cascaded += countOf(c);
    if (c.origin === "trigger") this.#triggered += countOf(c);
    this.#patterns.add(c);
    if (c.op !== "delete") this.#levels.add(c.after);
  }

  summary(): TableSummary {
    const changed = this.#patterns.changedColumns();
    const columns = this.#shape.columns.filter((_, i) => changed.has(i)).map((c) => c.name);
    const levelledTo = this.#levels.values().filter((l) => columns.includes(l.column));
    return {
      ...this.#counter.counts(),
      columns,
      levelledTo,
      origin: this.#origin ?? "unknown",
      cascaded: this.#cascaded,
      triggered: this.#triggered,
    };
  }

  patterns(): readonly Pattern[] {
    return this.#patterns.list();
  }
}

/** Which columns end with one value in all rows seen. */
class Levels {
  readonly #shape: TableShape;
  #level: readonly number[];
  #first: Row | undefined;

  constructor(shape: TableShape) {
    this.#shape = shape;
    this.#level = shape.columns.map((_, i) => i);
  }

  add(row: Row): void {
    const first = this.#first;
    const isLevel = (i: number): boolean => {
      const value = row[i] ?? null;
      return first === undefined ? sizeOf(value) <= LONGEST_SHOWN_BYTES : sameValue(first[i] ?? null, value);
    };
    if (this.#level.every(isLevel) && first !== undefined) return;
    this.#level = this.#level.filter(isLevel);
    this.#first ??= row.map((v, i) => (this.#level.includes(i) ? v : null));
  }

  values(): readonly { readonly column: string; readonly value: Value }[] {
    return this.#level.map((i) => ({
      column: this.#shape.columns[i]?.name ?? "",
      value: this.#first?.[i] ?? null,
    }));
  }
}

interface Transition {
  readonly id: number;
  readonly from: Value;
  readonly to: Value;
}

/** One column's transitions: each of them while they are few, later only how many. */
interface ColumnView {
  readonly few: Map<string, Transition>;
  readonly counted: Set<string>;
  /** One of the few: that of the last row but others of none. */
  last: Transition | null;
  many: boolean;
}

/** One changed column of a group: its index, and its transition unless the column has many. */
type Part = readonly [column: number, transition: Transition | undefined];

interface Group {
  readonly op: Op;
  readonly origin: Origin;
  readonly parts: readonly Part[];
  rows: number;
}

/**
 * Groups rows by (operation, origin, column: from → to). When a table would have too many groups, the
 * column with the most transitions is shown as a number, then the next; at last sets of columns are
 * joined. Rows are only ever moved to a wider group, so the sum stays exact.
 */
class Patterns {
  readonly #shape: TableShape;
  readonly #limit: number;
  readonly #columns: readonly ColumnView[];
  #groups = new Map<string, Group>();
  /** The group of the last row, as long as groups are not joined to wider ones. */
  #last: Group | null = null;
  #various = false;

  constructor(shape: TableShape, limit: number) {
    this.#shape = shape;
    this.#limit = Math.min(limit, MOST_COUNTED - 1);
    this.#columns = shape.columns.map(() => ({
      few: new Map(),
      counted: new Set(),
      last: null,
      many: false,
    }));
  }

  add(c: Change): void {
    const parts = c.op === "update" ? this.#partsOf(c.before, c.after) : NO_PARTS;
    const last = this.#last;
    if (last !== null && last.op === c.op && last.origin === c.origin && sameParts(last.parts, parts)) {
      last.rows += countOf(c);
      return;
    }
    this.#last = null;
    this.#join(this.#groups, { op: c.op, origin: c.origin, parts, rows: countOf(c) });
    while (this.#groups.size > MOST_PATTERNS && this.#widen());
  }

  changedColumns(): ReadonlySet<number> {
    return new Set(this.#columns.flatMap((c, i) => (c.many || c.few.size > 0 ? [i] : [])));
  }

  list(): readonly Pattern[] {
    return [...this.#groups.values()].map(({ op, origin, parts, rows }) => ({
      table: this.#shape.name,
      op,
      origin,
      rows,
      columns: parts.map((p) => this.#shown(p)),
      ...(this.#various && op === "update" ? { various: true } : {}),
    }));
  }

  #shown([index, transition]: Part): PatternColumn {
    const column = this.#shape.columns[index]?.name ?? "";
    if (transition !== undefined)
      return { kind: "transition", column, from: transition.from, to: transition.to };
    const counted = this.#columns[index]?.counted.size ?? 0;
    return { kind: "many", column, distinct: counted, exact: counted < MOST_COUNTED };
  }

  #partsOf(before: Row, after: Row): readonly Part[] {
    const parts: Part[] = [];
    let overflown = false;
    for (let i = 0; i < this.#columns.length; i++) {
      const view = this.#columns[i];
      const [from, to] = [before[i] ?? null, after[i] ?? null];
      if (view === undefined || sameValue(from, to)) continue;
      const wasMany = view.many;
      parts.push([i, this.#transition(view, from, to)]);
      overflown ||= view.many && !wasMany;
    }
    if (overflown) this.#regroup();
    return parts;
  }

  /** The transition while its column has few; undefined from the moment it has many. */
  #transition(view: ColumnView, from: Value, to: Value): Transition | undefined {
    if (view.counted.size >= MOST_COUNTED) return undefined;
    // What the row before did most rows do: the transition has its name already.
    const { last } = view;
    if (last !== null && sameValue(last.from, from) && sameValue(last.to, to))
      return view.many ? undefined : last;
    const key = `${labelOf(from)}>${labelOf(to)}`;
    view.counted.add(key);
    if (view.many) return undefined;
    const known = view.few.get(key);
    if (known !== undefined) {
      view.last = known;
      return known;
    }
    if (view.few.size >= this.#limit || Math.max(sizeOf(from), sizeOf(to)) > LONGEST_SHOWN_BYTES) {
      view.many = true;
      return undefined;
    }
    const transition = { id: view.few.size, from, to };
    view.few.set(key, transition);
    view.last = transition;
    return transition;
  }

  /** Makes groups fewer; false when nothing is left to join. */
  #widen(): boolean {
    const widest = this.#columns.reduce<ColumnView | undefined>(
      (most, c) => (!c.many && c.few.size > (most?.few.size ?? 0) ? c : most),
      undefined,
    );
    if (widest === undefined && this.#various) return false;
    if (widest === undefined) this.#various = true;
    else widest.many = true;
    this.#regroup();
    return true;
  }

  #regroup(): void {
    this.#last = null;
    const groups = new Map<string, Group>();
    for (const group of this.#groups.values()) this.#join(groups, group);
    this.#groups = groups;
  }

  #join(groups: Map<string, Group>, group: Group): void {
    const parts = group.parts.map(([i, t]): Part => [i, this.#columns[i]?.many === true ? undefined : t]);
    const columns = this.#various ? "" : parts.map(([i, t]) => `${i}:${t?.id ?? "*"}`).join(",");
    const key = `${group.op} ${group.origin} ${columns}`;
    const known = groups.get(key);
    if (known === undefined) {
      const made = { ...group, parts };
      groups.set(key, made);
      if (!this.#various) this.#last = made;
    } else {
      known.rows += group.rows;
      if (this.#various) groups.set(key, { ...known, parts: united(known.parts, parts) });
      else this.#last = known;
    }
  }
}

const NO_PARTS: readonly Part[] = [];

/** The very same columns and transitions; transitions of one column are told apart as objects. */
function sameParts(a: readonly Part[], b: readonly Part[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i]?.[0] !== b[i]?.[0] || a[i]?.[1] !== b[i]?.[1]) return false;
  return true;
}

function united(a: readonly Part[], b: readonly Part[]): readonly Part[] {
  const columns = new Set([...a, ...b].map(([i]) => i));
  return columns.size === a.length ? a : [...columns].sort((x, y) => x - y).map((i): Part => [i, undefined]);
}

/**
 * A fair choice of rows, in canonical order: places among the changes, drawn by the seed one after another. Whoever knows the
 * seed and how many changes there are draws the same ones, and no row's key need be looked at for it.
 */
function sampleOf(
  source: SampleSource,
  tables: readonly { readonly name: string; readonly changes: number }[],
  { sampleSeed, sampleSize }: Pick<SummaryOptions, "sampleSeed" | "sampleSize">,
): readonly Change[] {
  const total = tables.reduce((sum, t) => sum + t.changes, 0);
  const places = drawn(sampleSeed, Math.min(sampleSize, total), total);
  const sample: Change[] = [];
  let first = 0;
  for (const { name, changes } of tables) {
    const here = places.filter((p) => p >= first && p < first + changes).map((p) => p - first);
    if (here.length > 0) sample.push(...changesAt(source, name, here));
    first += changes;
  }
  return sample;
}

/** So many different numbers below `total`, ascending. Law: of fewer numbers each is among those of more. */
function drawn(seed: Digest, count: number, total: number): readonly number[] {
  const places = new Set<number>();
  // 48 bits of a digest: against any number of rows that can be, the first places are favoured by nothing that matters.
  for (let draw = 0; places.size < count; draw++)
    places.add(Buffer.from(hash("sha256", `${seed}\0sample\0${draw}`, "buffer")).readUIntBE(0, 6) % total);
  return [...places].sort((a, b) => a - b);
}

function changesAt(source: SampleSource, table: string, places: readonly number[]): readonly Change[] {
  const { nth } = source;
  if (nth !== undefined) return places.flatMap((place) => nth(table, place) ?? []);
  const found: Change[] = [];
  const wanted = new Set(places);
  let at = 0;
  for (const change of source.changes(table)) {
    if (wanted.has(at++)) found.push(change);
    if (found.length === wanted.size) break;
  }
  return found;
}

/** A short text per value, another one for every other value; long content by its digest. */
function labelOf(v: Value): string {
  if (v === null) return "null";
  if (typeof v === "bigint") return `i${v}`;
  if (typeof v === "number") return Object.is(v, -0) ? "r-0" : `r${v}`;
  if (typeof v === "string") return v.length > 64 ? `T${hash("sha256", v, "hex")}` : `t${v.length}:${v}`;
  const kind = isRawText(v) ? "x" : "b";
  const bytes = isRawText(v) ? v.bytes : v;
  return `${kind}${bytes.length > 64 ? hash("sha256", bytes, "hex") : Buffer.from(bytes).toString("hex")}`;
}

/** Bytes of a text (about) or blob; 8 for everything else. */
function sizeOf(v: Value): number {
  if (typeof v === "string") return v.length;
  if (typeof v !== "object" || v === null) return 8;
  return isRawText(v) ? v.bytes.length : v.length;
}
