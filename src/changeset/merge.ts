/**
 * Taking a change back from rows that others may have changed since: three images per row, in the order
 * *before / we wrote / now*, compared cell by cell. Nothing here guesses; what cannot be decided is a
 * conflict for a person.
 *
 * | we | now | result |
 * | --- | --- | --- |
 * | updated | our cells as we wrote them | `put-back` |
 * | updated | our cells as before | `nothing-to-do` |
 * | updated | our cells as we wrote them, other cells edited since | `merged`: ours back, theirs kept |
 * | updated | one of our cells edited since | `conflict: changed` |
 * | updated | gone | `gone`: listed, never resurrected |
 * | deleted | no row | `put-back` |
 * | deleted | a row equal to before | `nothing-to-do` |
 * | deleted | another row of that key | `conflict: two-entities`, never an update |
 * | inserted | as we wrote it | `put-back` |
 * | inserted | gone | `nothing-to-do` |
 * | inserted | edited since | `conflict: changed` |
 *
 * Generated columns never decide, since the target computes them; neither do columns that the caller
 * ignores. Constraints and foreign keys are checked later, on the merged rows.
 */
import {
  afterOf,
  beforeOf,
  changeBetween,
  countOf,
  type Change,
  type Delete,
  type Insert,
  type RowKey,
  type TableShape,
} from "./change.js";
import type { Pair } from "./link.js";
import { sameValue, type Row, type Value } from "./value.js";

/** Why a row cannot be merged by itself. */
export type ConflictKind = "changed" | "exists" | "missing" | "two-entities";

/** One cell of a conflict in its three images; undefined where an image has no row. */
export interface CellConflict {
  readonly column: string;
  readonly before: Value | undefined;
  readonly wrote: Value | undefined;
  readonly now: Value | undefined;
}

/** A row that needs a person. `columns` are the cells in dispute; empty for counts of equal rows. */
export interface Conflict {
  readonly kind: "conflict";
  readonly conflict: ConflictKind;
  readonly columns: readonly CellConflict[];
}

/** The row already is as it should be, or a decision left it as it is: then `kept` names the columns. */
export interface NothingToDo {
  readonly kind: "nothing-to-do";
  readonly kept?: readonly string[];
}

/** We updated the row and its owner removed it since: listed, never resurrected. */
export interface Gone {
  readonly kind: "gone";
  readonly before: Row;
}

/**
 * What becomes of a row. `recompute` names generated columns whose value only the target can tell: they
 * depend on a mix of old and new cells, and stand in the image as they are now.
 */
export type RowMerge =
  | { readonly kind: "put-back"; readonly row: Row | null; readonly recompute?: readonly string[] }
  | {
      readonly kind: "merged";
      readonly row: Row;
      /** Columns where the newer value of others stays. */
      readonly kept: readonly string[];
      readonly recompute?: readonly string[];
    }
  | NothingToDo
  | Gone
  | Conflict;

/** {@link RowMerge} as the change to plan from now on: before is now's image, after the merged one. */
export type Merge =
  | { readonly kind: "put-back"; readonly change: Change; readonly recompute?: readonly string[] }
  | {
      readonly kind: "merged";
      readonly change: Change;
      readonly kept: readonly string[];
      readonly recompute?: readonly string[];
    }
  | NothingToDo
  | Gone
  | Conflict;

/** {@link Merge} of a changed key: a delete at the new key and an insert at the old one, linked. */
export type PairMerge =
  | {
      readonly kind: "put-back";
      readonly changes: readonly [Delete, Insert];
      readonly recompute?: readonly string[];
    }
  | {
      readonly kind: "merged";
      readonly changes: readonly [Delete, Insert];
      readonly kept: readonly string[];
      readonly recompute?: readonly string[];
    }
  | NothingToDo
  | Gone
  | Conflict;

/** How to merge. */
export interface MergeOptions {
  /** `cell` (default): only cells that we wrote can conflict. `row`: any newer edit of the row does. */
  readonly granularity?: "cell" | "row";
  /**
   * `stop` (default) returns the conflict. `keep-now` leaves what is in dispute as it is now.
   * `restore-before` puts it back over the newer edit; two entities stay a conflict, and a row is never
   * written over another one.
   */
  readonly onConflict?: "stop" | "keep-now" | "restore-before";
  /** Columns that never conflict, e.g. `updated_at`: a newer value stays. */
  readonly ignoreColumns?: readonly string[];
}

/**
 * The three-way merge of one row, for undo and rescue.
 * Law: with nobody else writing (`now` is `wrote`) the result is `before`.
 * Law: an edit of cells that we did not write is in the result.
 */
export function mergeRow(
  shape: TableShape,
  before: Row | null,
  wrote: Row | null,
  now: Row | null,
  options: MergeOptions = {},
): RowMerge {
  if (now === null) return mergeAbsent(before, wrote);
  if (before === null && wrote === null) return { kind: "nothing-to-do" };
  if (wrote === null) return mergeReused(shape, before, now, options);
  if (before === null) return mergeInserted(shape, wrote, now, options);
  return mergeCells(shape, before, wrote, now, options);
}

/**
 * Takes one change back from the row that is there now. For a table without a key, `nowCount` is the
 * number of equal rows (one if `now` is given without it).
 * Law: when `now` is as we wrote it, the change is `invertChange(change)`.
 * Changed keys go through {@link takeBackPair}.
 */
export function takeBack(
  shape: TableShape,
  change: Change,
  now: Row | null,
  nowCount: number = now === null ? 0 : 1,
  options: MergeOptions = {},
): Merge {
  if (shape.keyKind === "none") return takeBackCount(change, nowCount, options);
  const merged = mergeRow(shape, beforeOf(change), afterOf(change), now, options);
  switch (merged.kind) {
    case "nothing-to-do":
    case "gone":
    case "conflict":
      return merged;
    case "put-back":
    case "merged":
      return planned(change, now, merged);
  }
}

/**
 * Takes a changed key back as one unit: both ends or none, so that an entity is never there twice.
 *
 * | at the new key | at the old key | result |
 * | --- | --- | --- |
 * | our row | no row | merged as an update that moves back |
 * | our row | a row | `conflict: exists` |
 * | no row | our row as before | `nothing-to-do` |
 * | no row | another row | `conflict: two-entities` |
 * | no row | no row | `gone` |
 */
export function takeBackPair(
  shape: TableShape,
  pair: Pair,
  now: { readonly atOldKey: Row | null; readonly atNewKey: Row | null },
  options: MergeOptions = {},
): PairMerge {
  const before = pair.deleted.before;
  const wrote = pair.inserted.after;
  if (now.atNewKey === null) return pairWithoutRow(shape, before, now.atOldKey, options);
  if (now.atOldKey !== null) {
    const taken = conflictOf("exists", differing(shape, options, before, undefined, now.atOldKey));
    return decided(options, taken);
  }
  const merged = mergeCells(shape, before, wrote, now.atNewKey, options);
  if (merged.kind !== "put-back" && merged.kind !== "merged") return merged;
  return movedBack(pair, now.atNewKey, merged);
}

/** How a row stands to a change that is about to be applied (`data-notes` 2.4). */
export type Standing =
  | {
      readonly state: "as-before" | "as-after";
      /** Cells of an update's row that the change does not touch and that are newer than its images. */
      readonly newer: readonly string[];
    }
  | {
      readonly state: "conflict";
      readonly conflict: ConflictKind;
      readonly columns: readonly CellConflict[];
    };

/**
 * Whether a change is still to be written, already there, or in conflict. An update looks at the cells it
 * changes and reports newer other cells; a delete looks at the whole row, on purpose. Whether newer
 * other cells stop an apply is the caller's decision.
 */
export function standingOf(
  shape: TableShape,
  change: Change,
  now: Row | null,
  nowCount: number = now === null ? 0 : 1,
): Standing {
  if (shape.keyKind === "none") return standingOfCount(change, nowCount);
  switch (change.op) {
    case "insert":
      if (now === null) return { state: "as-before", newer: [] };
      return standingOfWhole(shape, { before: undefined, wrote: change.after, now }, "as-after", "exists");
    case "delete":
      if (now === null) return { state: "as-after", newer: [] };
      return standingOfWhole(shape, { before: change.before, wrote: undefined, now }, "as-before", "changed");
    case "update":
      if (now === null) return { state: "conflict", conflict: "missing", columns: [] };
      return standingOfCells(shape, change.before, change.after, now);
  }
}

// ---- one row ----

function mergeAbsent(before: Row | null, wrote: Row | null): RowMerge {
  if (before === null) return { kind: "nothing-to-do" };
  // We deleted it: it comes back. We updated it and its owner removed it: it does not.
  return wrote === null ? { kind: "put-back", row: before } : { kind: "gone", before };
}

function mergeReused(shape: TableShape, before: Row | null, now: Row, options: MergeOptions): RowMerge {
  const cells = differing(shape, options, before ?? undefined, undefined, now);
  if (cells.length === 0) return { kind: "nothing-to-do" };
  return decided(options, conflictOf("two-entities", cells));
}

function mergeInserted(shape: TableShape, wrote: Row, now: Row, options: MergeOptions): RowMerge {
  const cells = differing(shape, options, undefined, wrote, now);
  if (cells.length === 0 || options.onConflict === "restore-before") return { kind: "put-back", row: null };
  return decided(options, conflictOf("changed", cells));
}

/** A conflict, unless the caller has decided that what is there now stays. */
function decided(options: MergeOptions, conflict: Conflict): Conflict | NothingToDo {
  if (options.onConflict !== "keep-now") return conflict;
  return { kind: "nothing-to-do", kept: conflict.columns.map((c) => c.column) };
}

function mergeCells(shape: TableShape, before: Row, wrote: Row, now: Row, options: MergeOptions): RowMerge {
  if (options.granularity === "row") return mergeWholeRow(shape, before, wrote, now, options);
  const row: Value[] = [...now];
  const kept: string[] = [];
  const disputed: CellConflict[] = [];
  shape.columns.forEach(({ name, generated }, i) => {
    if (generated === true) return;
    const [b, w, n] = [before[i] ?? null, wrote[i] ?? null, now[i] ?? null];
    if (sameValue(b, w)) {
      if (!sameValue(n, b) && !isIgnored(options, name)) kept.push(name);
    } else if (sameValue(n, w) || sameValue(n, b)) row[i] = b;
    else if (!isIgnored(options, name)) disputed.push(cellOf(name, i, before, wrote, now));
  });
  for (const cell of disputed) {
    if (options.onConflict === "restore-before") row[indexOf(shape, cell.column)] = cell.before ?? null;
    else if (options.onConflict === "keep-now") kept.push(cell.column);
    else return conflictOf("changed", disputed);
  }
  return settled(shape, before, now, row, kept);
}

/** The careful granularity: the row as we wrote it goes back whole, an edit anywhere is a conflict. */
function mergeWholeRow(
  shape: TableShape,
  before: Row,
  wrote: Row,
  now: Row,
  options: MergeOptions,
): RowMerge {
  const cell: MergeOptions = { ...options, granularity: "cell" };
  if (differing(shape, options, before, undefined, now).length === 0) return { kind: "nothing-to-do" };
  const edited = differing(shape, options, undefined, wrote, now);
  if (edited.length === 0) return mergeCells(shape, before, wrote, now, cell);
  const cells = edited.map((c) => cellOf(c.column, indexOf(shape, c.column), before, wrote, now));
  if (options.onConflict === "restore-before") return settled(shape, before, now, [...before], []);
  return decided(options, conflictOf("changed", cells));
}

/** The merged image, named by what it is, with generated cells as far as they can be known. */
function settled(shape: TableShape, before: Row, now: Row, row: Value[], kept: readonly string[]): RowMerge {
  const equals = (other: Row): boolean =>
    shape.columns.every((c, i) => c.generated === true || sameValue(row[i] ?? null, other[i] ?? null));
  if (equals(now)) return kept.length === 0 ? { kind: "nothing-to-do" } : { kind: "nothing-to-do", kept };
  const isBefore = equals(before);
  const recompute: string[] = [];
  shape.columns.forEach((c, i) => {
    if (c.generated !== true) return;
    row[i] = (isBefore ? before[i] : now[i]) ?? null;
    if (!isBefore) recompute.push(c.name);
  });
  const unknown = recompute.length === 0 ? {} : { recompute };
  return kept.length === 0
    ? { kind: "put-back", row, ...unknown }
    : { kind: "merged", row, kept, ...unknown };
}

// ---- changes to plan ----

type Written = Extract<RowMerge, { kind: "put-back" | "merged" }>;

function planned(change: Change, now: Row | null, merged: Written): Merge {
  const next = changeFrom(change, now, merged.row);
  if (next === undefined) return { kind: "nothing-to-do" };
  const unknown = merged.recompute === undefined ? {} : { recompute: merged.recompute };
  return merged.kind === "merged"
    ? { kind: "merged", change: next, kept: merged.kept, ...unknown }
    : { kind: "put-back", change: next, ...unknown };
}

function changeFrom(change: Change, now: Row | null, row: Row | null): Change | undefined {
  const plain = changeBetween(change.table, change.key, change.origin, now, row);
  if (plain === undefined || plain.op === "update" || change.link === undefined) return plain;
  return { ...plain, link: change.link };
}

function pairWithoutRow(
  shape: TableShape,
  before: Row,
  atOldKey: Row | null,
  options: MergeOptions,
): PairMerge {
  if (atOldKey === null) return { kind: "gone", before };
  const cells = differing(shape, options, before, undefined, atOldKey);
  if (cells.length === 0) return { kind: "nothing-to-do" };
  return decided(options, conflictOf("two-entities", cells));
}

function movedBack(pair: Pair, now: Row, merged: Written): PairMerge {
  const after = merged.row ?? pair.deleted.before;
  const changes: readonly [Delete, Insert] = [
    { ...factsAt(pair, pair.inserted.key, pair.deleted.key), op: "delete", before: now },
    { ...factsAt(pair, pair.deleted.key, pair.inserted.key), op: "insert", after },
  ];
  const unknown = merged.recompute === undefined ? {} : { recompute: merged.recompute };
  return merged.kind === "merged"
    ? { kind: "merged", changes, kept: merged.kept, ...unknown }
    : { kind: "put-back", changes, ...unknown };
}

function factsAt(
  pair: Pair,
  key: RowKey,
  link: RowKey,
): Pick<Change, "table" | "key" | "origin"> & { link: RowKey } {
  return { table: pair.deleted.table, key, origin: pair.deleted.origin, link };
}

// ---- equal rows by count ----

/**
 * Equal rows cannot be told apart, so numbers decide: what we deleted is added again; what we inserted is
 * taken away if as many are left. If only some are left, whose they are is unknown: `conflict: missing`.
 */
function takeBackCount(change: Change, nowCount: number, options: MergeOptions): Merge {
  const count = countOf(change);
  const { table, key, origin } = change;
  const facts = (rows: number): Pick<Change, "table" | "key" | "origin" | "count"> =>
    rows === 1 ? { table, key, origin } : { table, key, origin, count: rows };
  if (change.op === "delete")
    return { kind: "put-back", change: { ...facts(count), op: "insert", after: change.before } };
  const left = Math.min(count, nowCount);
  if (left === 0) return { kind: "nothing-to-do" };
  if (left < count && options.onConflict !== "restore-before") {
    return decided(options, conflictOf("missing", []));
  }
  return { kind: "put-back", change: { ...facts(left), op: "delete", before: change.after } };
}

function standingOfCount(change: Change, nowCount: number): Standing {
  const enough = change.op !== "delete" || nowCount >= countOf(change);
  return enough ? { state: "as-before", newer: [] } : { state: "conflict", conflict: "missing", columns: [] };
}

// ---- standing ----

interface Images {
  readonly before: Row | undefined;
  readonly wrote: Row | undefined;
  readonly now: Row;
}

function standingOfWhole(
  shape: TableShape,
  images: Images,
  equal: "as-before" | "as-after",
  conflict: ConflictKind,
): Standing {
  const columns = differing(shape, {}, images.before, images.wrote, images.now);
  return columns.length === 0 ? { state: equal, newer: [] } : { state: "conflict", conflict, columns };
}

function standingOfCells(shape: TableShape, before: Row, after: Row, now: Row): Standing {
  const newer: string[] = [];
  const notBefore: CellConflict[] = [];
  let allAfter = true;
  shape.columns.forEach(({ name, generated }, i) => {
    if (generated === true) return;
    const [b, a, n] = [before[i] ?? null, after[i] ?? null, now[i] ?? null];
    const asBefore = sameValue(n, b);
    if (sameValue(b, a)) {
      if (!asBefore) newer.push(name);
      return;
    }
    if (!asBefore) notBefore.push(cellOf(name, i, before, after, now));
    allAfter &&= sameValue(n, a);
  });
  if (notBefore.length === 0) return { state: "as-before", newer };
  return allAfter
    ? { state: "as-after", newer }
    : { state: "conflict", conflict: "changed", columns: notBefore };
}

// ---- cells ----

function isIgnored(options: MergeOptions, column: string): boolean {
  return options.ignoreColumns?.includes(column) ?? false;
}

/** The cells of `now` that are not those of the one other image given; generated and ignored ones left out. */
function differing(
  shape: TableShape,
  options: MergeOptions,
  before: Row | undefined,
  wrote: Row | undefined,
  now: Row,
): readonly CellConflict[] {
  const other = before ?? wrote ?? [];
  return shape.columns.flatMap(({ name, generated }, i) => {
    if (generated === true || sameValue(now[i] ?? null, other[i] ?? null)) return [];
    return isIgnored(options, name) ? [] : [cellOf(name, i, before, wrote, now)];
  });
}

function cellOf(
  column: string,
  index: number,
  before: Row | undefined,
  wrote: Row | undefined,
  now: Row,
): CellConflict {
  const at = (row: Row | undefined): Value | undefined =>
    row === undefined ? undefined : (row[index] ?? null);
  return { column, before: at(before), wrote: at(wrote), now: at(now) };
}

function indexOf(shape: TableShape, column: string): number {
  return shape.columns.findIndex((c) => c.name === column);
}

function conflictOf(conflict: ConflictKind, columns: readonly CellConflict[]): Conflict {
  return { kind: "conflict", conflict, columns };
}
