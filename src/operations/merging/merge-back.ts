/** Merging the inverse of what a run wrote onto the rows as they are now, row by row; memory stays flat. */
import { IntegrityError } from "../../base/errors.js";
import { afterOf, beforeOf, changeBetween, countOf } from "../../changeset/change.js";
import type { Change, ChangeSink, ChangeSource, RowKey, TableShape } from "../../changeset/change.js";
import {
  type Conflict,
  type Merge,
  type MergeOptions,
  type PairMerge,
  takeBack,
  takeBackPair,
} from "../../changeset/merge.js";
import type { Row } from "../../changeset/value.js";
import type { ReadRow, Target } from "../../target/target.js";
import { CONFLICTS_LISTED, type Deciding, type RowConflict, rowMark } from "./conflict.js";
import { keyText } from "../judging/drift.js";
import { columnPart, type Narrowed } from "./narrow.js";
import type { Reversing } from "./reversing.js";
import type { WorkingChanges } from "../toolbox.js";

/** Where rows are read: the target, or the target as it will be after earlier steps. */
export type RowReader = Pick<Target, "readRows">;

/** Rows by what happens to them. */
export interface UndoCounts {
  readonly putBack: number;
  readonly merged: number;
  readonly nothingToDo: number;
  readonly gone: number;
  readonly conflict: number;
  /** Rows of tables that only grow, for which a reversing row is added. */
  readonly reversed: number;
  /** Rows of such tables that stay as they are, because nobody declared what reverses them. */
  readonly left: number;
  /** Rows that were not asked for: other tables, columns or keys. */
  readonly outside: number;
}

/** What a merge came to; the changes went into the sink. */
export interface MergedBack {
  readonly counts: UndoCounts;
  readonly conflicts: readonly RowConflict[];
  /** Tables that only grow, with the rows that stay in them. */
  readonly leftIn: readonly { readonly table: string; readonly rows: number }[];
}

/** Who touched a row last among later runs, where that is known. */
export type ChangedBy = (table: string, key: RowKey) => string | null;

/** How conflicts are decided, who is named for them, and what is done in tables that only grow. */
export interface MergeHow {
  readonly deciding: Deciding;
  readonly changedBy: ChangedBy;
  readonly reversing?: Reversing;
}

/** Merges the inverse of every change that is meant. Cost follows the run, not the table. */
export async function mergeBack(
  reader: RowReader,
  source: WorkingChanges,
  narrowed: Narrowed,
  how: MergeHow,
  sink: ChangeSink,
): Promise<MergedBack> {
  const counts = {
    putBack: 0,
    merged: 0,
    nothingToDo: 0,
    gone: 0,
    conflict: 0,
    reversed: 0,
    left: 0,
    outside: 0,
  };
  const conflicts: RowConflict[] = [];
  const leftIn: { readonly table: string; readonly rows: number }[] = [];
  for (const shape of source.tables) {
    const leftBefore = counts.left;
    if (!narrowed.tables.some((t) => t.name === shape.name)) {
      for (const change of source.changes(shape.name)) counts.outside += countOf(change);
      continue;
    }
    sink.table(shape);
    for await (const one of outcomesOf(reader, source, shape, narrowed, how)) {
      for (const change of one.changes) sink.add(change);
      counts[one.kind] += 1;
      if (one.conflict !== null && conflicts.length < CONFLICTS_LISTED) conflicts.push(one.conflict);
    }
    if (counts.left > leftBefore) leftIn.push({ table: shape.name, rows: counts.left - leftBefore });
  }
  return { counts, conflicts, leftIn };
}

/** Adds the counts of several steps. */
export function sumCounts(all: readonly UndoCounts[]): UndoCounts {
  const sum = (of: (c: UndoCounts) => number): number => all.reduce((n, c) => n + of(c), 0);
  return {
    putBack: sum((c) => c.putBack),
    merged: sum((c) => c.merged),
    nothingToDo: sum((c) => c.nothingToDo),
    gone: sum((c) => c.gone),
    conflict: sum((c) => c.conflict),
    reversed: sum((c) => c.reversed),
    left: sum((c) => c.left),
    outside: sum((c) => c.outside),
  };
}

/** What becomes of one row, or of the two ends of a changed key as one. */
interface Outcome {
  readonly kind: keyof UndoCounts;
  readonly changes: readonly Change[];
  readonly conflict: RowConflict | null;
}

const OUTSIDE: Outcome = { kind: "outside", changes: [], conflict: null };

async function* outcomesOf(
  reader: RowReader,
  source: WorkingChanges,
  shape: TableShape,
  narrowed: Narrowed,
  how: MergeHow,
): AsyncIterable<Outcome> {
  for await (const [whole, now, nowCount] of rowsOf(reader, source, shape)) {
    const isPair = whole.link !== undefined && shape.keyKind !== "none";
    if (isPair && whole.op !== "delete") continue; // taken back with its other end, so that it is never there twice
    if (!isMeant(narrowed, shape, whole)) {
      yield OUTSIDE;
      continue;
    }
    const change = columnPart(whole, narrowed.columnsOf(shape.name));
    if (change === null) yield OUTSIDE;
    else if (isPair && whole.op === "delete") yield await pairOutcome(reader, source, shape, whole, now, how);
    else {
      const outcome = outcomeOf(
        shape,
        change,
        now,
        (options) => takeBack(shape, change, now, nowCount, options),
        how,
      );
      yield await kept(shape, change, outcome, how.reversing);
    }
  }
}

/** In a table that only grows, a row that would go away is reversed or left. */
async function kept(
  shape: TableShape,
  change: Change,
  outcome: Outcome,
  reversing: Reversing | undefined,
): Promise<Outcome> {
  if (change.op !== "insert" || reversing?.isAppendOnly(shape.name) !== true) return outcome;
  if (outcome.kind !== "putBack" && outcome.kind !== "merged") return outcome;
  const reversed = await reversing.of(shape, change);
  return {
    kind: reversed.kind,
    changes: reversed.kind === "reversed" ? [reversed.change] : [],
    conflict: null,
  };
}

/** Either end of a changed key stands for both. */
function isMeant(narrowed: Narrowed, shape: TableShape, change: Change): boolean {
  if (narrowed.takes(shape.name, change.key)) return true;
  return change.link !== undefined && narrowed.takes(shape.name, change.link);
}

async function pairOutcome(
  reader: RowReader,
  source: WorkingChanges,
  shape: TableShape,
  deleted: Extract<Change, { op: "delete" }>,
  atOldKey: Row | null,
  how: MergeHow,
): Promise<Outcome> {
  const inserted = source.get(shape.name, deleted.link ?? []);
  if (inserted?.op !== "insert") throw brokenLink(shape, deleted);
  const atNewKey = await rowAt(reader, shape, inserted.key);
  const pair = { deleted, inserted };
  return outcomeOf(
    shape,
    deleted,
    atNewKey ?? atOldKey,
    (options) => takeBackPair(shape, pair, { atOldKey, atNewKey }, options),
    how,
  );
}

/** Merges, asks for a decision where there is a conflict, and merges again under it. */
function outcomeOf(
  shape: TableShape,
  change: Change,
  now: Row | null,
  merge: (options: MergeOptions) => Merge | PairMerge,
  how: MergeHow,
): Outcome {
  const first = merge({});
  if (first.kind !== "conflict") return settled(first);
  const conflict = conflictOf(shape, change, now, first, how.changedBy);
  const onConflict = how.deciding.of(conflict);
  const decided = onConflict === "stop" ? first : merge({ onConflict });
  return decided.kind === "conflict" ? { kind: "conflict", changes: [], conflict } : settled(decided);
}

function settled(merge: Exclude<Merge | PairMerge, { kind: "conflict" }>): Outcome {
  switch (merge.kind) {
    case "put-back":
    case "merged":
      return {
        kind: merge.kind === "merged" ? "merged" : "putBack",
        changes: "change" in merge ? [merge.change] : merge.changes,
        conflict: null,
      };
    case "nothing-to-do":
      return { kind: "nothingToDo", changes: [], conflict: null };
    case "gone":
      return { kind: "gone", changes: [], conflict: null };
  }
}

function conflictOf(
  shape: TableShape,
  change: Change,
  now: Row | null,
  merge: Conflict,
  changedBy: ChangedBy,
): RowConflict {
  const conflict = {
    table: shape.name,
    shape,
    key: change.key,
    kind: merge.conflict,
    columns: merge.columns,
    before: beforeOf(change),
    wrote: afterOf(change),
    now,
  };
  return { ...conflict, mark: rowMark(conflict), changedBy: changedBy(shape.name, change.key) };
}

async function rowAt(reader: RowReader, shape: TableShape, key: RowKey): Promise<Row | null> {
  for await (const read of reader.readRows(shape, [key])) return read.row;
  return null;
}

function brokenLink(shape: TableShape, change: Change): IntegrityError {
  return new IntegrityError({
    code: "ERR_CHANGESET_ALTERED",
    message: `a changed key of ${shape.name} has no other end in the plan`,
    why: `the delete of ${change.key.map(keyText).join(", ")} names an insert that is not there`,
  });
}

/** Every change of a table with the row that is at its key now, in the order of the changes. */
export async function* rowsOf(
  reader: RowReader,
  source: ChangeSource,
  shape: TableShape,
): AsyncIterable<readonly [Change, Row | null, number]> {
  const changes = source.changes(shape.name)[Symbol.iterator]();
  const keys = (function* () {
    for (const c of source.changes(shape.name)) yield c.key;
  })();
  for await (const read of reader.readRows(shape, keys)) {
    const next = changes.next();
    if (next.done === true) return;
    yield [next.value, read.row, read.count];
  }
}

// ---- several runs, newest first

/** The rows as they will be once `steps` are written, one after another. */
export function readerAfter(reader: RowReader, steps: readonly WorkingChanges[]): RowReader {
  return {
    readRows: async function* (shape, keys) {
      for await (const read of reader.readRows(shape, keys)) {
        yield steps.reduce((row, step) => after(shape, row, step.get(shape.name, row.key)), read);
      }
    },
  };
}

function after(shape: TableShape, read: ReadRow, change: Change | undefined): ReadRow {
  if (change === undefined) return read;
  if (shape.keyKind !== "none") {
    const row = afterOf(change);
    return { key: read.key, row, count: row === null ? 0 : 1 };
  }
  const count = read.count + (change.op === "delete" ? -countOf(change) : countOf(change));
  return { key: read.key, row: count > 0 ? read.key : null, count };
}

/** What the steps do together, into `sink`. Each step was merged onto the one before, so they follow one another. */
export function together(steps: readonly WorkingChanges[], sink: ChangeSink): void {
  steps.forEach((step, i) => {
    for (const shape of step.tables) {
      sink.table(shape);
      for (const change of step.changes(shape.name)) {
        const seen = steps.slice(0, i).some((earlier) => earlier.get(shape.name, change.key) !== undefined);
        const net = seen ? undefined : netOf(shape, change, steps.slice(i + 1));
        if (net !== undefined) sink.add(net);
      }
    }
  });
}

function netOf(shape: TableShape, first: Change, later: readonly WorkingChanges[]): Change | undefined {
  const others = later.flatMap((step) => step.get(shape.name, first.key) ?? []);
  const last = others.at(-1);
  if (last === undefined) return withoutLink(first);
  if (shape.keyKind !== "none")
    return changeBetween(shape.name, first.key, "unknown", beforeOf(first), afterOf(last));
  const added = [first, ...others].reduce((n, c) => n + (c.op === "delete" ? -countOf(c) : countOf(c)), 0);
  if (added === 0) return undefined;
  const facts = { table: shape.name, key: first.key, origin: "unknown" as const };
  const counted = Math.abs(added) === 1 ? facts : { ...facts, count: Math.abs(added) };
  return added > 0
    ? { ...counted, op: "insert", after: first.key }
    : { ...counted, op: "delete", before: first.key };
}

/** A link may lead to a key that a later step moved again. */
function withoutLink(change: Change): Change {
  const { link: _link, ...rest } = change;
  return rest;
}
