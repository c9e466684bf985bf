/**
 * How an effect is cut up for writing: into waves, between which checks run, and waves into batches, each one
 * transaction. The cut is a function of the rows, their ties and two numbers, so a run that was stopped finds
 * the same batches again.
 */
import { UsageError } from "../base/errors.js";
import { afterOf, beforeOf, countOf, type Change, type ChangeSource } from "./change.js";
import { compareKeys, keyText } from "./key.js";
import { allChanges, changeSet, sourceOf } from "./source.js";
import type { Member, Ties } from "./ties.js";
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

/** Rows that are written together: one that stands for itself, or a group. */
interface Unit {
  readonly rows: number;
  readonly changes: () => readonly Change[];
}

/** Finds a change again by its key. */
export type Find = (member: Member) => Change;

/**
 * The batches of an effect, in the order in which they are written: canonical order, groups whole at the place
 * of their first row. A group that a wave has no room for waits for a later one, so no wave holds more rows
 * than it says; a wave may hold fewer. A batch holds more than `batchRows` only where a group does.
 *
 * Law: the batches together are the effect, each change once.
 */
export function* batchesOf(
  source: ChangeSource,
  ties: Ties,
  cut: Cut,
  find: Find,
): Generator<Batch, undefined> {
  for (const { wave, batch, units } of dealt(source, ties, cut, find)) {
    const set = changeSet(
      source.tables,
      units.flatMap((u) => u.changes()),
    );
    yield { wave, batch, rows: sum(units), source: sourceOf(set) };
  }
}

/** {@link batchesOf} in numbers alone. */
export function* outlineOf(
  source: ChangeSource,
  ties: Ties,
  cut: Cut,
  find: Find,
): Generator<BatchOutline, undefined> {
  for (const { wave, batch, units } of dealt(source, ties, cut, find))
    yield { wave, batch, rows: sum(units) };
}

interface Dealt {
  readonly wave: number;
  readonly batch: number;
  readonly units: readonly Unit[];
}

function* dealt(source: ChangeSource, ties: Ties, cut: Cut, find: Find): Generator<Dealt, undefined> {
  if (cut.by !== undefined) {
    yield* dealtByValue(source, ties, { ...cut, by: cut.by }, find);
    return;
  }
  const dealer = new Dealer(cut);
  for (const unit of unitsOf(source, ties, find)) yield* dealer.take(unit);
  yield* dealer.rest();
}

/** One pass for each wave: which rows belong to it is asked of their values, and nothing but the values is held. */
function* dealtByValue(
  source: ChangeSource,
  ties: Ties,
  cut: Cut & { readonly by: string },
  find: Find,
): Generator<Dealt, undefined> {
  const ranks = new Map(valuesOf(source, cut.by).map((value, rank) => [keyText([value]), rank]));
  const waveOf = (value: Value): number => {
    const rank = ranks.get(keyText([value])) ?? 0;
    return 1 + cut.bounds.findIndex((end) => rank < end);
  };
  for (let wave = 1; wave <= cut.bounds.length; wave++) {
    const dealer = new Dealer({ bounds: [Number.POSITIVE_INFINITY], batchRows: cut.batchRows });
    for (const unit of unitsOf(source, ties, find)) {
      if (waveOfUnit(source, unit, cut.by, waveOf) !== wave) continue;
      for (const dealt of dealer.take(unit)) yield { ...dealt, wave };
    }
    for (const dealt of dealer.rest()) yield { ...dealt, wave };
  }
}

function waveOfUnit(source: ChangeSource, unit: Unit, by: string, waveOf: (value: Value) => number): number {
  const waves = new Set(unit.changes().flatMap((c) => valuesIn(source, c, by).map(waveOf)));
  const [only] = waves;
  if (only !== undefined && waves.size === 1) return only;
  throw new UsageError({
    code: "ERR_WAVES_SPLIT",
    message: `waves by ${by} would split rows that hang together`,
    why: `rows that must be written together have values of ${by} that are in ${waves.size} waves`,
    next: [
      { actor: "requester", text: "Ask for larger waves, or leave --waves out: then it is one transaction." },
    ],
  });
}

/**
 * The values of a column in a change set, each once, in the order of keys; a row that changes it counts for both.
 * @throws UsageError ERR_USAGE when a changed table has no such column.
 */
export function valuesOf(source: ChangeSource, by: string): readonly Value[] {
  const found = new Map<string, Value>();
  for (const change of allChanges(source))
    for (const value of valuesIn(source, change, by)) found.set(keyText([value]), value);
  return [...found.values()].sort((a, b) => compareKeys([a], [b]));
}

function valuesIn(source: ChangeSource, change: Change, by: string): readonly Value[] {
  const at =
    source.tables.find((t) => t.name === change.table)?.columns.findIndex((c) => c.name === by) ?? -1;
  if (at === -1) throw noColumn(change.table, by);
  return [beforeOf(change), afterOf(change)].flatMap((row) => (row === null ? [] : [row[at] ?? null]));
}

function noColumn(table: string, by: string): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `rows of ${table} have no column ${by} to be told apart by`,
    why: "waves by a column need it in every table that the plan changes",
    next: [{ actor: "requester", text: "Ask for waves in rows or shares, for example --waves 1%,10%,100%" }],
  });
}

class Dealer {
  readonly #cut: Cut;
  #wave = 1;
  #batch = 0;
  #dealt = 0;
  #held: Unit[] = [];
  #heldRows = 0;
  #waiting: Unit[] = [];

  constructor(cut: Cut) {
    this.#cut = cut;
  }

  *take(unit: Unit): Generator<Dealt, undefined> {
    if (unit.rows > this.#room()) this.#waiting.push(unit);
    else yield* this.#put(unit);
    while (this.#room() === 0 && this.#wave < this.#cut.bounds.length) yield* this.#nextWave();
  }

  *rest(): Generator<Dealt, undefined> {
    while (this.#wave < this.#cut.bounds.length) yield* this.#nextWave();
    yield* this.#flush();
  }

  #room(): number {
    return (this.#cut.bounds[this.#wave - 1] ?? Number.POSITIVE_INFINITY) - this.#dealt;
  }

  *#put(unit: Unit): Generator<Dealt, undefined> {
    if (this.#heldRows > 0 && this.#heldRows + unit.rows > this.#cut.batchRows) yield* this.#flush();
    this.#held.push(unit);
    this.#heldRows += unit.rows;
    this.#dealt += unit.rows;
    if (this.#heldRows >= this.#cut.batchRows) yield* this.#flush();
  }

  *#nextWave(): Generator<Dealt, undefined> {
    yield* this.#flush();
    this.#wave++;
    this.#batch = 0;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const unit of waiting) {
      if (unit.rows > this.#room()) this.#waiting.push(unit);
      else yield* this.#put(unit);
    }
  }

  *#flush(): Generator<Dealt, undefined> {
    if (this.#held.length === 0) return;
    const units = this.#held;
    this.#held = [];
    this.#heldRows = 0;
    this.#batch++;
    yield { wave: this.#wave, batch: this.#batch, units };
  }
}

function* unitsOf(source: ChangeSource, ties: Ties, find: Find): Generator<Unit, undefined> {
  let number = -1;
  for (const change of allChanges(source)) {
    number++;
    if (ties.followers.has(number)) continue;
    const group = ties.groups.get(number);
    if (group === undefined) yield { rows: countOf(change), changes: () => [change] };
    else yield { rows: group.reduce((n, m) => n + m.rows, 0), changes: () => group.map(find) };
  }
}

function sum(units: readonly Unit[]): number {
  return units.reduce((n, u) => n + u.rows, 0);
}
