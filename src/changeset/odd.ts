/**
 * Rows unlike the rest: where a wrong plan shows first. Every rule is computed from the plan's rows alone, so that every
 * machine finds the same rows; two passes in canonical order with bounded memory, whatever the number of rows.
 *
 * | rule | a row is odd when | needs |
 * | --- | --- | --- |
 * | `protected-value` | it holds a value that the configuration protects, and is updated or deleted | `protect:` |
 * | `second-tenant` | it belongs to another tenant than most rows of its table | `tenant:` |
 * | `extreme-value` | a number is over 10 times the 99th percentile of all other rows | 5 rows |
 * | `ratio` | an update makes a number 10 times as large or a tenth, or more | |
 * | `rare-transition` | its change of a value is one of at most 20 alike, under 0.5 % of the updates | 200 updates |
 * | `age-gap` | a date lies apart from all others by more than they span | 5 rows |
 *
 * A row counts once, for the first rule of this table that it meets.
 */
import type { Change, ChangeSink, ChangeSource, TableShape } from "./change.js";
import { afterOf, beforeOf, countOf } from "./change.js";
import { isNumberType } from "./decimal.js";
import { sortedTables } from "./source.js";
import { isRawText, type Row, sameValue, textOf, type Value } from "./value.js";

/** The rules in their order. */
export const ODD_ROW_RULES = [
  "protected-value",
  "second-tenant",
  "extreme-value",
  "ratio",
  "rare-transition",
  "age-gap",
] as const;
/** One of {@link ODD_ROW_RULES}. */
export type OddRowRule = (typeof ODD_ROW_RULES)[number];

/** Why a row is odd; values are the target's own, to be masked where they are shown. */
export type OddReason =
  | { readonly rule: "protected-value"; readonly column: string; readonly value: Value }
  | { readonly rule: "second-tenant"; readonly column: string; readonly value: Value }
  | { readonly rule: "extreme-value"; readonly column: string; readonly times: number }
  | { readonly rule: "ratio"; readonly column: string; readonly times: number }
  | {
      readonly rule: "rare-transition";
      readonly column: string;
      readonly from: Value;
      readonly to: Value;
      readonly rows: number;
      readonly of: number;
    }
  | { readonly rule: "age-gap"; readonly column: string };

/** One odd row. */
export interface OddRow {
  readonly change: Change;
  readonly reason: OddReason;
}

/** Odd rows of one rule in one column. */
export interface OddGroup {
  readonly table: string;
  readonly rule: OddRowRule;
  readonly column: string;
  readonly rows: number;
  /** The first of them. */
  readonly example: OddReason;
}

/** What {@link oddRows} found. */
export interface Odd {
  /** Rules that looked. */
  readonly rules: number;
  /** Rows that they looked at. */
  readonly looked: number;
  /** In the order of the rules, then of tables. */
  readonly groups: readonly OddGroup[];
  /** All odd rows, however many are listed. */
  readonly total: number;
  /** The first of them in canonical order. */
  readonly rows: readonly OddRow[];
}

/** A column by its table. */
export interface ColumnOf {
  readonly table: string;
  readonly column: string;
}

/** What the rules are told beside the rows. */
export interface OddOptions {
  /** How many odd rows are listed in full. */
  readonly limit: number;
  /** Columns that say whose a row is. */
  readonly tenants: readonly ColumnOf[];
  /** Values in their text form that a change should not touch. */
  readonly protect: readonly (ColumnOf & { readonly values: readonly string[] })[];
}

const RARE_ROWS = 20;
const RARE_SHARE = 0.005;
const EXTREME_TIMES = 10;
const RATIO_TIMES = 10;
const LEAST_ROWS = 5;
/** Distinct transitions of a column, and tenants of a table, that are counted; beyond, the rule is silent there. */
const MOST_COUNTED = 1_000;

/** Law: depends on the rows and the options alone. Law: every row is in at most one group. */
export function oddRows(source: ChangeSource, options: OddOptions): Odd {
  const odd = new OddInProgress(options);
  for (const shape of sortedTables(source.tables)) {
    odd.table(shape);
    for (const c of source.changes(shape.name)) odd.add(c);
  }
  return odd.finish(source);
}

/** {@link oddRows} for whoever has the changes passing anyway, in canonical order: the first of its two passes. */
export class OddInProgress implements ChangeSink {
  readonly #options: OddOptions;
  readonly #tables: { readonly shape: TableShape; readonly rules: TableRules }[] = [];
  #looked = 0;

  constructor(options: OddOptions) {
    this.#options = options;
  }

  table = (shape: TableShape): void => {
    this.#tables.push({ shape, rules: new TableRules(shape, this.#options) });
  };

  add = (change: Change): void => {
    this.#looked += countOf(change);
    this.#tables.at(-1)?.rules.see(change);
  };

  /** The odd rows; `source` holds the changes that passed, and is read where some rule has something to judge by. */
  finish(source: ChangeSource): Odd {
    const { limit, tenants, protect } = this.#options;
    const groups = new Map<string, OddGroup>();
    const rows: OddRow[] = [];
    let total = 0;
    for (const { shape, rules } of this.#tables) {
      if (!rules.isArmed()) continue;
      for (const change of source.changes(shape.name)) {
        const reason = rules.judge(change);
        if (reason === null) continue;
        total += countOf(change);
        if (rows.length < limit) rows.push({ change, reason });
        addTo(groups, shape.name, reason, countOf(change));
      }
    }
    const rules = ODD_ROW_RULES.length - (tenants.length === 0 ? 1 : 0) - (protect.length === 0 ? 1 : 0);
    return { rules, looked: this.#looked, groups: inOrder([...groups.values()]), total, rows };
  }
}

function addTo(groups: Map<string, OddGroup>, table: string, reason: OddReason, rows: number): void {
  const { rule, column } = reason;
  const id = JSON.stringify([rule, table, column]);
  const known = groups.get(id);
  groups.set(id, { table, rule, column, rows: (known?.rows ?? 0) + rows, example: known?.example ?? reason });
}

function inOrder(groups: readonly OddGroup[]): readonly OddGroup[] {
  return [...groups].sort((a, b) => ODD_ROW_RULES.indexOf(a.rule) - ODD_ROW_RULES.indexOf(b.rule));
}

/** The rules over one table: sees every change once, then judges each. */
class TableRules {
  readonly #columns: readonly ColumnRules[];

  constructor(shape: TableShape, options: OddOptions) {
    const inKey = new Set(shape.keyKind === "none" ? [] : shape.key);
    this.#columns = shape.columns.map((column, at) => {
      const here = (c: ColumnOf): boolean => c.table === shape.name && c.column === column.name;
      const protect = options.protect.find(here)?.values ?? [];
      const isName = inKey.has(at) || /(^|_)id$/i.test(column.name);
      return new ColumnRules(at, column, { protect, isTenant: options.tenants.some(here), isName });
    });
  }

  see(c: Change): void {
    for (const column of this.#columns) column.see(c);
  }

  isArmed(): boolean {
    for (const column of this.#columns) column.settle();
    return this.#columns.some((column) => column.isArmed());
  }

  judge(c: Change): OddReason | null {
    for (const rule of ODD_ROW_RULES) {
      for (const column of this.#columns) {
        const reason = column.judge(rule, c);
        if (reason !== null) return reason;
      }
    }
    return null;
  }
}

interface ColumnFacts {
  readonly protect: readonly string[];
  readonly isTenant: boolean;
  /** A key or a reference: its numbers are names, not sizes. */
  readonly isName: boolean;
}

/** The rules over one column. */
class ColumnRules {
  readonly #at: number;
  readonly #name: string;
  readonly #isNumber: (v: Value) => number | null;
  readonly #facts: ColumnFacts;
  readonly #sizes = new Sizes();
  readonly #dates = new Dates();
  readonly #transitions = new Tally();
  readonly #tenants = new Tally();
  #ratios = false;
  #protected = false;
  #extremeOver = Number.POSITIVE_INFINITY;
  #usual = 0;
  #lonely: readonly number[] = [];
  #rare = false;
  #main: string | null = null;
  /** The last transition that was named: in most plans the next row's is the same. */
  #last: { readonly before: Value; readonly after: Value; readonly name: string } | null = null;

  constructor(at: number, column: { readonly name: string; readonly type: string }, facts: ColumnFacts) {
    this.#at = at;
    this.#name = column.name;
    this.#facts = facts;
    const typed = isNumberType(column.type);
    this.#isNumber = (v) => numberOf(v, typed);
  }

  see(c: Change): void {
    const [before, after] = this.#images(c);
    const shown = after ?? before;
    if (!this.#facts.isName) {
      const size = this.#isNumber(shown);
      if (size !== null) this.#sizes.add(Math.abs(size));
      const date = dateOf(shown);
      if (date !== null) this.#dates.add(date);
      if (c.op === "update" && this.#timesOf(before, after) !== null) this.#ratios = true;
    }
    if (c.op === "update" && !sameValue(before, after) && !this.#transitions.isFull) {
      const last = this.#last;
      const isLast = last !== null && sameValue(last.before, before) && sameValue(last.after, after);
      const name = isLast ? last.name : pairName(before, after);
      if (!isLast) this.#last = { before, after, name };
      this.#transitions.add(name);
    }
    if (this.#facts.isTenant) this.#tenants.add(valueName(before ?? after));
    if (this.#isProtected(c)) this.#protected = true;
  }

  /** What the first pass says about the column as a whole. */
  settle(): void {
    this.#usual = this.#sizes.percentileOfRest();
    this.#extremeOver = this.#usual > 0 ? this.#usual * EXTREME_TIMES : Number.POSITIVE_INFINITY;
    this.#lonely = this.#dates.apart();
    this.#rare = this.#transitions.hasRare((rows, of) => isRare(rows, of));
    this.#main = this.#tenants.most();
  }

  isArmed(): boolean {
    return (
      this.#protected ||
      this.#tenants.size > 1 ||
      this.#sizes.most > this.#extremeOver ||
      this.#ratios ||
      this.#rare ||
      this.#lonely.length > 0
    );
  }

  judge(rule: OddRowRule, c: Change): OddReason | null {
    const column = this.#name;
    const [before, after] = this.#images(c);
    switch (rule) {
      case "protected-value":
        return this.#isProtected(c) ? { rule, column, value: before } : null;
      case "second-tenant": {
        const value = before ?? after;
        if (!this.#facts.isTenant || this.#main === null || valueName(value) === this.#main) return null;
        return { rule, column, value };
      }
      case "extreme-value": {
        const size = this.#facts.isName ? null : this.#isNumber(after ?? before);
        if (size === null || Math.abs(size) <= this.#extremeOver) return null;
        return { rule, column, times: Math.floor(Math.abs(size) / this.#usual) };
      }
      case "ratio": {
        const times = c.op === "update" && !this.#facts.isName ? this.#timesOf(before, after) : null;
        return times === null ? null : { rule, column, times };
      }
      case "rare-transition": {
        if (!this.#rare || c.op !== "update" || sameValue(before, after)) return null;
        const rows = this.#transitions.count(pairName(before, after));
        const of = this.#transitions.total;
        return isRare(rows, of) ? { rule, column, from: before, to: after, rows, of } : null;
      }
      case "age-gap": {
        const date = this.#facts.isName ? null : dateOf(after ?? before);
        return date !== null && this.#lonely.includes(date) ? { rule, column } : null;
      }
    }
  }

  #images(c: Change): readonly [Value, Value] {
    return [cellOf(beforeOf(c), this.#at), cellOf(afterOf(c), this.#at)];
  }

  #isProtected(c: Change): boolean {
    if (c.op === "insert" || this.#facts.protect.length === 0) return false;
    const text = textOf(cellOf(beforeOf(c), this.#at));
    return text !== null && this.#facts.protect.includes(text);
  }

  /** How many times as large an update makes a number; null for less than a factor of ten either way. */
  #timesOf(before: Value, after: Value): number | null {
    const [was, is] = [this.#isNumber(before), this.#isNumber(after)];
    if (was === null || is === null || was === 0 || is === 0) return null;
    const times = is / was;
    return times >= RATIO_TIMES || (times > 0 && times <= 1 / RATIO_TIMES) ? times : null;
  }
}

function isRare(rows: number, of: number): boolean {
  return rows > 0 && rows <= RARE_ROWS && rows < RARE_SHARE * of;
}

function cellOf(row: Row | null, at: number): Value {
  return row?.[at] ?? null;
}

/** A value as a number; text only where the column's type says that it is one (decimals arrive as text). */
function numberOf(v: Value, typed: boolean): number | null {
  if (typeof v === "bigint") return Number(v);
  if (typeof v === "number") return Number.isFinite(v) ? v : null;
  if (typeof v === "string" && typed && /^-?\d+(\.\d+)?$/.test(v)) return Number(v);
  return null;
}

/** Milliseconds of a text that begins as an ISO date. */
function dateOf(v: Value): number | null {
  // Most texts are no dates: one look at one character tells.
  if (typeof v !== "string" || v[4] !== "-" || !/^\d{4}-\d\d-\d\d/.test(v)) return null;
  const at = Date.parse(v.slice(0, 10));
  return Number.isNaN(at) ? null : at;
}

/** One name for each value, different for values of different types. */
function valueName(v: Value): string {
  if (v === null) return "null";
  if (v instanceof Uint8Array) return `blob:${Buffer.from(v).toString("base64").slice(0, 200)}`;
  if (isRawText(v)) return `raw:${Buffer.from(v.bytes).toString("base64").slice(0, 200)}`;
  return `${typeof v}:${String(v).slice(0, 200)}`;
}

function pairName(from: Value, to: Value): string {
  const name = valueName(from);
  return `${name.length}:${name}${valueName(to)}`;
}

/** Counts names up to a bound; beyond it, it knows nothing and says so. */
class Tally {
  readonly #counts = new Map<string, number>();
  #over = false;
  total = 0;

  /** Whether nothing more can be learnt: what is not counted need not be named either. */
  get isFull(): boolean {
    return this.#over;
  }

  get size(): number {
    return this.#over ? 0 : this.#counts.size;
  }

  add(name: string): void {
    this.total++;
    const known = this.#counts.get(name);
    if (known === undefined && this.#counts.size >= MOST_COUNTED) this.#over = true;
    else this.#counts.set(name, (known ?? 0) + 1);
  }

  count(name: string): number {
    return this.#over ? 0 : (this.#counts.get(name) ?? 0);
  }

  /** The name that most have; the first in code-unit order among equals. */
  most(): string | null {
    if (this.size < 2) return null;
    const [first] = [...this.#counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
    return first?.[0] ?? null;
  }

  /** Whether some names are rare, and the rare ones are the exception: under half of all. */
  hasRare(isRareName: (rows: number, of: number) => boolean): boolean {
    if (this.#over) return false;
    const rare = [...this.#counts.values()].filter((n) => isRareName(n, this.total));
    const rows = rare.reduce((sum, n) => sum + n, 0);
    return rows > 0 && rows * 2 < this.total;
  }
}

/** Buckets of sizes, each 2 % wider than the last: any number of values in a few thousand counters. */
class Sizes {
  readonly #buckets = new Map<number, number>();
  #total = 0;
  most = 0;
  #secondMost = 0;

  add(size: number): void {
    this.#total++;
    if (size > this.most) [this.most, this.#secondMost] = [size, this.most];
    else if (size > this.#secondMost) this.#secondMost = size;
    const bucket = size === 0 ? Number.NEGATIVE_INFINITY : Math.floor(Math.log(size) / BUCKET);
    this.#buckets.set(bucket, (this.#buckets.get(bucket) ?? 0) + 1);
  }

  /** The 99th percentile without the largest value; 0 where there are too few to speak of the rest. */
  percentileOfRest(): number {
    const rest = this.#total - 1;
    if (this.#total < LEAST_ROWS) return 0;
    let left = Math.ceil(rest * 0.99);
    for (const [bucket, n] of [...this.#buckets].sort(([a], [b]) => a - b)) {
      left -= n;
      if (left <= 0) return Math.min(this.#secondMost, upperEnd(bucket));
    }
    return this.#secondMost;
  }
}

const BUCKET = Math.log(1.02);

function upperEnd(bucket: number): number {
  return bucket === Number.NEGATIVE_INFINITY ? 0 : Math.exp((bucket + 1) * BUCKET);
}

/** The two earliest and the two latest days. */
class Dates {
  #first = Number.POSITIVE_INFINITY;
  #second = Number.POSITIVE_INFINITY;
  #last = Number.NEGATIVE_INFINITY;
  #beforeLast = Number.NEGATIVE_INFINITY;
  #total = 0;

  add(at: number): void {
    this.#total++;
    if (at <= this.#first) [this.#first, this.#second] = [at, this.#first];
    else if (at < this.#second) this.#second = at;
    if (at >= this.#last) [this.#last, this.#beforeLast] = [at, this.#last];
    else if (at > this.#beforeLast) this.#beforeLast = at;
  }

  /** Days that stand apart from all others by more than those span. */
  apart(): readonly number[] {
    if (this.#total < LEAST_ROWS) return [];
    const isEarly = this.#second - this.#first > Math.max(this.#last - this.#second, DAY_MS);
    const isLate = this.#last - this.#beforeLast > Math.max(this.#beforeLast - this.#first, DAY_MS);
    return [...(isEarly ? [this.#first] : []), ...(isLate ? [this.#last] : [])];
  }
}

const DAY_MS = 86_400_000;
