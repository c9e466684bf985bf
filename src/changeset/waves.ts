/**
 * How an effect is cut up for writing: into waves, between which checks run, and waves into batches, each one
 * transaction. The cut is a function of the rows, their ties and two numbers, so a run that was stopped finds
 * the same batches again.
 */
import { UsageError } from "../base/errors.js";
import { countOf, type Change, type ChangeSource, type TableShape } from "./change.js";
import { compareKeys, keyText } from "./key.js";
import { allChanges, changeSet, sortedTables, sourceOf } from "./source.js";
import { changesIn, type Images, imagesOf, type Ties, type TieSource } from "./ties.js";
import type { Value } from "./value.js";

/** Up to so many rows are one transaction when nobody says otherwise. */
export const ONE_TRANSACTION_ROWS = 10_000;

/** Rows of one batch: enough to be quick, few enough that nobody waits long for its locks. */
export const BATCH_ROWS = 1_000;

/** How an effect is cut. */
export interface Cut {
  /** For each wave, how many rows are written at its end, or values of {@link Cut.by}; the last is all of them. */
  readonly bounds: readonly number[];
  /** A column of every changed table whose values stay whole: a tenant is in one wave or in another. */
  readonly by?: string;
  readonly batchRows: number;
}

/** One transaction's share. */
export interface Batch {
  /** From 1. */
  readonly wave: number;
  /** From 1 within its wave. */
  readonly batch: number;
  readonly rows: number;
  /** In canonical order; may be read several times. */
  readonly source: ChangeSource;
}

/** The size of what a {@link Batch} holds. */
export type BatchOutline = Omit<Batch, "source">;

const SHARE = /^(\d{1,3}(?:\.\d{1,4})?)%$/;
const ROWS = /^[1-9]\d{0,14}$/;

const BY = /^(.+):/;

/**
 * Reads `1%,10%,100%` or `500,5000`: how much is written at the end of each wave. Shares of all rows, or rows;
 * each more than the one before; `100%` is added where it is missing. `tenant:1,10,100%` counts values of a column in
 * place of rows, and its first element keeps the column: `tenant:1`.
 * @throws UsageError ERR_USAGE
 */
export function parseWaves(text: string): readonly string[] {
  const by = BY.exec(text)?.[0] ?? "";
  const [first = "100%", ...more] = sizesIn(text, text.slice(by.length));
  return [by + first, ...more];
}

/** The column whose values waves are counted in; null for waves of rows. */
export function waveColumn(waves: readonly string[]): string | null {
  return BY.exec(waves[0] ?? "")?.[1] ?? null;
}

function sizesIn(text: string, list: string): readonly string[] {
  const sizes = list.split(",").map((s) => s.trim());
  const parts = sizes.at(-1) === "100%" ? sizes.slice(0, -1) : sizes;
  const kinds = new Set(parts.map((s) => (SHARE.test(s) ? "share" : ROWS.test(s) ? "rows" : "neither")));
  if (kinds.has("neither"))
    throw badWaves(text, "each is a share such as 10% or a number of rows such as 500");
  if (kinds.size > 1) throw badWaves(text, "they are all shares or all numbers of rows");
  const values = parts.map((s) => Number(s.replace("%", "")));
  if (values.some((v, i) => v <= (values[i - 1] ?? 0)))
    throw badWaves(text, "each is more than the one before");
  if (kinds.has("share") && (values.at(-1) ?? 0) >= 100) throw badWaves(text, "100% is everything");
  return [...parts, "100%"];
}

function badWaves(text: string, why: string): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `--waves ${JSON.stringify(text)} are no waves`,
    why,
    next: [{ actor: "requester", text: "Write for example --waves 1%,10%,100%" }],
  });
}

/** The ends of waves in rows, or in values of their column, each at least one more than the one before, the last all of them. */
export function boundsOf(waves: readonly string[], rows: number): readonly number[] {
  const ends = waves.map((wave) => {
    const w = wave.replace(BY, "");
    const share = SHARE.exec(w)?.[1];
    return share === undefined ? Number(w) : Math.ceil((rows * Number(share)) / 100);
  });
  return mergeBounds(ends, [rows]).filter((end) => end <= rows);
}

/** The ends of both: whoever adds waves never takes one away. */
export function mergeBounds(a: readonly number[], b: readonly number[]): readonly number[] {
  return [...new Set([...a, ...b])].filter((n) => n > 0).sort((x, y) => x - y);
}

/** Which transaction each row is written in. Rows are numbered as in {@link Ties}, and four bytes are held for each. */
export interface Deal {
  /** In the order in which they are written. */
  readonly batches: readonly BatchOutline[];
  /** By number of a row: the place of its batch among `batches`. */
  readonly batchOf: Uint32Array;
}

/**
 * Deals the rows of an effect into batches, in the order in which they are written: canonical order, groups whole at the place
 * of their first row. A group that a wave has no room for waits for a later one, so no wave holds more rows
 * than it says; a wave may hold fewer. A batch holds more than `batchRows` only where a group does.
 *
 * Law: every row is in one batch, and rows of one group in the same.
 */
export function dealOf(source: TieSource, ties: Ties, cut: Cut): Deal {
  const units = unitsOf(source, ties);
  const dealt = new Dealt(units.length);
  if (cut.by === undefined) dealer(units, cut, dealt);
  else dealByValue(source, ties, units, { ...cut, by: cut.by }, dealt);
  return dealt.deal(ties);
}

/** The batches of a deal, held in memory: for small effects. Law: together they are the effect, each change once. */
export function batchesOf(source: ChangeSource, { batches, batchOf }: Deal): readonly Batch[] {
  const parts: Change[][] = batches.map(() => []);
  let number = 0;
  for (const change of allChanges(source)) parts[batchOf[number++] ?? 0]?.push(change);
  return batches.map((b, i) => ({ ...b, source: sourceOf(changeSet(source.tables, parts[i] ?? [])) }));
}

/** How many rows the largest group has. */
export function largestUnit(source: TieSource, ties: Ties): number {
  return unitsOf(source, ties).reduce((most, rows) => Math.max(most, rows), 0);
}

/** By number of a row that stands alone or is the first of its group: how many rows are written with it; 0 for the others. */
function unitsOf(source: TieSource, { firsts }: Ties): Uint32Array {
  const counted = sortedTables(source.tables).map((t) => rowCounts(source, t));
  const units = new Uint32Array(counted.reduce((n, c) => n + c.length, 0));
  let at = 0;
  for (const counts of counted) {
    units.set(counts, at);
    at += counts.length;
  }
  for (const [number, first] of (firsts ?? []).entries()) {
    if (first === number) continue;
    units[first] = (units[first] ?? 0) + (units[number] ?? 0);
    units[number] = 0;
  }
  return units;
}

/** How many rows each change of a table stands for: more than one only where rows have no key. */
function rowCounts(source: TieSource, { name, keyKind }: TableShape): Uint32Array {
  const counts = new Uint32Array(changesIn(source, name)).fill(1);
  let number = 0;
  if (keyKind === "none") for (const change of source.changes(name)) counts[number++] = countOf(change);
  return counts;
}

function dealer(units: Uint32Array, cut: Cut, dealt: Dealt): void {
  const dealing = new Dealer(cut, dealt);
  for (const [number, rows] of units.entries()) if (rows > 0) dealing.take({ number, rows });
  dealing.rest();
}

/** One round for each wave: which of them a row belongs to is asked of its values. */
function dealByValue(
  source: TieSource,
  ties: Ties,
  units: Uint32Array,
  cut: Cut & { readonly by: string },
  dealt: Dealt,
): void {
  const waves = wavesByValue(source, cut, units.length);
  const waveOf = waveOfUnits(ties, waves, cut.by);
  for (let wave = 1; wave <= cut.bounds.length; wave++) {
    const dealing = new Dealer({ bounds: [Number.POSITIVE_INFINITY], batchRows: cut.batchRows }, dealt, wave);
    for (const [number, rows] of units.entries())
      if (rows > 0 && waveOf[number] === wave) dealing.take({ number, rows });
    dealing.rest();
  }
}

/** By number of a row: the waves of its values before and after, 0 where it has no such image. */
interface RowWaves {
  readonly before: Uint32Array;
  readonly after: Uint32Array;
}

function wavesByValue(source: TieSource, cut: Cut & { readonly by: string }, rows: number): RowWaves {
  const ranks = new Map(valuesOf(source, cut.by).map((value, rank) => [keyText([value]), rank]));
  const waveOf = (image: Images["before"]): number => {
    if (image === null) return 0;
    const rank = ranks.get(keyText([image[0] ?? null])) ?? 0;
    return 1 + cut.bounds.findIndex((end) => rank < end);
  };
  const waves = { before: new Uint32Array(rows), after: new Uint32Array(rows) };
  let number = 0;
  for (const table of sortedTables(source.tables)) {
    for (const { before, after } of imagesOf(source, table.name, [columnOf(table, cut.by)])) {
      waves.before[number] = waveOf(before);
      waves.after[number++] = waveOf(after);
    }
  }
  return waves;
}

/** By number of a unit's first row its wave. */
function waveOfUnits({ firsts }: Ties, { before, after }: RowWaves, by: string): Uint32Array {
  const waves = new Uint32Array(before.length);
  for (let number = 0; number < waves.length; number++) {
    const first = firsts?.[number] ?? number;
    for (const wave of [before[number] ?? 0, after[number] ?? 0]) {
      if (wave === 0 || waves[first] === wave) continue;
      if (waves[first] !== 0) throw splitByValue(by, wavesOfGroup(firsts, first, { before, after }));
      waves[first] = wave;
    }
  }
  return waves;
}

function wavesOfGroup(firsts: Ties["firsts"], first: number, { before, after }: RowWaves): number {
  const waves = new Set<number>();
  for (let number = first; number < before.length; number++) {
    if ((firsts?.[number] ?? number) !== first) continue;
    waves.add(before[number] ?? 0).add(after[number] ?? 0);
  }
  waves.delete(0);
  return waves.size;
}

function splitByValue(by: string, waves: number): UsageError {
  return new UsageError({
    code: "ERR_WAVES_SPLIT",
    message: `waves by ${by} would split rows that hang together`,
    why: `rows that must be written together have values of ${by} that are in ${waves} waves`,
    next: [
      { actor: "requester", text: "Ask for larger waves, or leave --waves out: then it is one transaction." },
    ],
  });
}

/**
 * The values of a column in a change set, each once, in the order of keys; a row that changes it counts for both.
 * @throws UsageError ERR_USAGE when a changed table has no such column.
 */
export function valuesOf(source: TieSource, by: string): readonly Value[] {
  const found = new Map<string, Value>();
  for (const table of sortedTables(source.tables)) {
    for (const { before, after } of imagesOf(source, table.name, [columnOf(table, by)]))
      for (const [value = null] of [before, after].filter((image) => image !== null))
        found.set(keyText([value]), value);
  }
  return [...found.values()].sort((a, b) => compareKeys([a], [b]));
}

function columnOf(table: TableShape, by: string): number {
  const at = table.columns.findIndex((c) => c.name === by);
  if (at === -1) throw noColumn(table.name, by);
  return at;
}

function noColumn(table: string, by: string): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `rows of ${table} have no column ${by} to be told apart by`,
    why: "waves by a column need it in every table that the plan changes",
    next: [{ actor: "requester", text: "Ask for waves in rows or shares, for example --waves 1%,10%,100%" }],
  });
}

/** Rows that are written together: one that stands for itself, or a group, by its first. */
interface Unit {
  readonly number: number;
  readonly rows: number;
}

/** The batches so far. */
class Dealt {
  readonly #batches: BatchOutline[] = [];
  readonly #batchOf: Uint32Array;

  constructor(rows: number) {
    this.#batchOf = new Uint32Array(rows);
  }

  add(wave: number, batch: number, units: readonly Unit[]): void {
    for (const { number } of units) this.#batchOf[number] = this.#batches.length;
    this.#batches.push({ wave, batch, rows: units.reduce((n, u) => n + u.rows, 0) });
  }

  deal({ firsts }: Ties): Deal {
    const batchOf = this.#batchOf;
    for (const [number, first] of (firsts ?? []).entries()) batchOf[number] = batchOf[first] ?? 0;
    return { batches: this.#batches, batchOf };
  }
}

class Dealer {
  readonly #cut: Cut;
  readonly #dealt: Dealt;
  /** What the first wave is called. */
  readonly #first: number;
  #wave = 1;
  #batch = 0;
  #rows = 0;
  #held: Unit[] = [];
  #heldRows = 0;
  #waiting: Unit[] = [];

  constructor(cut: Cut, dealt: Dealt, first = 1) {
    this.#cut = cut;
    this.#dealt = dealt;
    this.#first = first;
  }

  take(unit: Unit): void {
    if (unit.rows > this.#room()) this.#waiting.push(unit);
    else this.#put(unit);
    while (this.#room() === 0 && this.#wave < this.#cut.bounds.length) this.#nextWave();
  }

  rest(): void {
    while (this.#wave < this.#cut.bounds.length) this.#nextWave();
    this.#flush();
  }

  #room(): number {
    return (this.#cut.bounds[this.#wave - 1] ?? Number.POSITIVE_INFINITY) - this.#rows;
  }

  #put(unit: Unit): void {
    if (this.#heldRows > 0 && this.#heldRows + unit.rows > this.#cut.batchRows) this.#flush();
    this.#held.push(unit);
    this.#heldRows += unit.rows;
    this.#rows += unit.rows;
    if (this.#heldRows >= this.#cut.batchRows) this.#flush();
  }

  #nextWave(): void {
    this.#flush();
    this.#wave++;
    this.#batch = 0;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const unit of waiting) {
      if (unit.rows > this.#room()) this.#waiting.push(unit);
      else this.#put(unit);
    }
  }

  #flush(): void {
    if (this.#held.length === 0) return;
    this.#batch++;
    this.#dealt.add(this.#first + this.#wave - 1, this.#batch, this.#held);
    this.#held = [];
    this.#heldRows = 0;
  }
}
