/** Rows that the configuration protects (`protect:` of the target) and that a plan would take away. */
import type { Change, ChangeSource, TableShape } from "../../changeset/change.js";
import { afterOf, beforeOf, countOf } from "../../changeset/change.js";
import type { Row, Value } from "../../changeset/value.js";
import type { ProtectedColumn } from "../../config/config.js";

/**
 * How many rows of each table hold a protected value before and not afterwards: deleted, by the job or by the deletion
 * of their parent, or overwritten. Tables without protected columns are not read.
 */
export function protectedLost(
  source: ChangeSource,
  protect: readonly ProtectedColumn[],
): Readonly<Record<string, number>> {
  const lost: Record<string, number> = {};
  for (const shape of source.tables) {
    const columns = columnsOf(shape, protect);
    if (columns.length === 0) continue;
    let rows = 0;
    for (const change of source.changes(shape.name)) if (losesOne(change, columns)) rows += countOf(change);
    lost[shape.name] = rows;
  }
  return lost;
}

interface Guarded {
  readonly at: number;
  readonly values: ReadonlySet<string>;
}

function columnsOf(shape: TableShape, protect: readonly ProtectedColumn[]): readonly Guarded[] {
  return protect
    .filter((p) => p.table === shape.name)
    .map((p) => ({
      at: shape.columns.findIndex((c) => c.name === p.column),
      values: new Set(p.values),
    }))
    .filter((g) => g.at >= 0);
}

function losesOne(change: Change, columns: readonly Guarded[]): boolean {
  const [before, after] = [beforeOf(change), afterOf(change)];
  return columns.some((g) => holds(before, g) && !holds(after, g));
}

function holds(row: Row | null, g: Guarded): boolean {
  const text = textOf(row?.[g.at] ?? null);
  return text !== null && g.values.has(text);
}

/** The form in which the configuration writes values. */
function textOf(v: Value): string | null {
  if (typeof v === "string") return v;
  return typeof v === "bigint" || typeof v === "number" ? String(v) : null;
}
