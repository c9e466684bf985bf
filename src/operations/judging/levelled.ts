/**
 * Which columns end with one value in every row of their table. The rows that a plan leaves alone are not in it,
 * and they count: setting a flag everywhere changes only the rows that did not have it yet.
 */
import type { Summary, TableSummary } from "../../changeset/summarise.js";
import { keyOf, type TableShape } from "../../changeset/change.js";
import { type Row, sameValue, type Value } from "../../changeset/value.js";
import type { Target } from "../../target/target.js";
import type { WorkingChanges } from "../toolbox.js";

/** A column whose changed rows all end with `value`. */
interface Candidate {
  readonly index: number;
  readonly column: string;
  readonly value: Value;
}

/**
 * Levelled columns by table.
 *
 * | rows that the plan leaves alone | answer |
 * | --- | --- |
 * | none | every column whose changed rows end alike |
 * | some, and most rows are updated | those of them whose other rows hold the same value: the target is read until one does not |
 * | some, and half or fewer are updated | none: clearing the last flag is not levelling a column |
 *
 * @param target null where the target is not asked: then only the first line is known.
 */
export async function levelledColumns(
  target: Target | null,
  changes: WorkingChanges,
  summary: Summary,
  rowsBefore: Readonly<Record<string, number>>,
): Promise<Readonly<Record<string, readonly string[]>>> {
  const levelled: Record<string, readonly string[]> = {};
  for (const t of summary.tables) {
    const shape = changes.tables.find((s) => s.name === t.name);
    const before = rowsBefore[t.name];
    if (shape === undefined || before === undefined) continue;
    levelled[t.name] = await levelledOf(target, changes, shape, t, before);
  }
  return levelled;
}

async function levelledOf(
  target: Target | null,
  changes: WorkingChanges,
  shape: TableShape,
  t: TableSummary,
  before: number,
): Promise<readonly string[]> {
  if (before <= 1 || t.update === 0) return [];
  const candidates = t.levelledTo.map(({ column, value }) => ({
    index: shape.columns.findIndex((c) => c.name === column),
    column,
    value,
  }));
  if (t.update + t.delete >= before) return candidates.map((c) => c.column);
  if (target === null || t.update * 2 <= before || shape.keyKind !== "primary") return [];
  return (await heldByTheRest(target, changes, shape, candidates)).map((c) => c.column);
}

/** Reads no further than the first row outside the plan that differs in every candidate. */
async function heldByTheRest(
  target: Target,
  changes: WorkingChanges,
  shape: TableShape,
  candidates: readonly Candidate[],
): Promise<readonly Candidate[]> {
  let held = candidates;
  if (held.length === 0) return held;
  for await (const row of target.scan(shape)) {
    const agreeing = held.filter((c) => hasValue(row, c));
    if (agreeing.length === held.length) continue;
    if (changes.get(shape.name, keyOf(shape, row)) !== undefined) continue;
    held = agreeing;
    if (held.length === 0) break;
  }
  return held;
}

function hasValue(row: Row, c: Candidate): boolean {
  return sameValue(row[c.index] ?? null, c.value);
}
