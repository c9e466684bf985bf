/** What changed between two plans: after a rejection or drift, a reader looks at the difference only. */
import { afterOf, beforeOf, type Change, countOf } from "../changeset/change.js";
import { sameRow } from "../changeset/value.js";
import { loadPlan } from "./recall/stored-plan.js";
import type { Toolbox, WorkingChanges } from "./toolbox.js";

/** Rows of one kind of difference: how many, and the first of them. */
export interface DifferingRows {
  readonly total: number;
  readonly rows: readonly Change[];
}

/** One plan against another that was seen earlier. */
export interface Against {
  /** The earlier plan. */
  readonly plan: string;
  /** Rows that only this plan changes. */
  readonly entered: DifferingRows;
  /** Rows that only the earlier plan changed. */
  readonly left: DifferingRows;
  /** Rows that both change, and not in the same way; as this plan changes them. */
  readonly changed: DifferingRows;
  /** Rows that both change in the same way. */
  readonly same: number;
}

/** Rows of each kind that are listed. */
const LISTED = 20;

/** Compares a plan with an earlier one, row by row. Law: with itself, nothing entered, left or changed. */
export async function against(tools: Toolbox, changes: WorkingChanges, earlier: string): Promise<Against> {
  const other = await loadPlan(tools, earlier);
  try {
    const entered = new Listed();
    const changed = new Listed();
    const left = new Listed();
    let same = 0;
    for (const change of all(changes)) {
      const was = find(other.changes, change);
      if (was === undefined) entered.add(change);
      else if (isSame(was, change)) same += countOf(change);
      else changed.add(change);
    }
    for (const change of all(other.changes)) if (find(changes, change) === undefined) left.add(change);
    return { plan: other.id, entered, left, changed, same };
  } finally {
    other.close();
  }
}

class Listed implements DifferingRows {
  readonly rows: Change[] = [];
  total = 0;

  add(change: Change): void {
    this.total += countOf(change);
    if (this.rows.length < LISTED) this.rows.push(change);
  }
}

function* all(changes: WorkingChanges): Iterable<Change> {
  for (const { name } of changes.tables) yield* changes.changes(name);
}

function find(changes: WorkingChanges, { table, key }: Change): Change | undefined {
  return changes.tables.some((t) => t.name === table) ? changes.get(table, key) : undefined;
}

function isSame(a: Change, b: Change): boolean {
  const counted = countOf(a) === countOf(b);
  return a.op === b.op && counted && sameRow(beforeOf(a), beforeOf(b)) && sameRow(afterOf(a), afterOf(b));
}
