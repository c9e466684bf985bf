/**
 * The direction that a job declares of a column, held against its rows: a job with from and to swapped changes as many
 * rows, of the same table, as the right one. Only updates have a direction.
 */
import { afterOf, beforeOf, type ChangeSource, countOf } from "./change.js";
import { compare, decimalOf, isNumberType } from "./decimal.js";
import type { ColumnOf } from "./odd.js";
import { sameValue, textOf, type Value } from "./value.js";

/** What a job says of a column that it updates; what is null is not said. */
export interface Direction extends ColumnOf {
  /** Values, in their text form, that the column leaves; null among them is NULL. */
  readonly from: readonly (string | null)[] | null;
  /** Values that it arrives at. */
  readonly to: readonly (string | null)[] | null;
  /** Whether its numbers only ever rise or fall. */
  readonly way: "up" | "down" | null;
}

/** One change of value against a declared direction. */
export interface Against extends ColumnOf {
  /** Of the first such row; the target's own values, to be masked where they are shown. */
  readonly before: Value;
  readonly after: Value;
  /** Rows of the column that go against it, whatever their values. */
  readonly rows: number;
  readonly declared: Direction;
}

/** Every direction that some row goes against, in the order declared. One pass over each table, memory flat. */
export function againstDirections(
  source: ChangeSource,
  directions: readonly Direction[],
): readonly Against[] {
  return directions.flatMap((d) => {
    const shape = source.tables.find((t) => t.name === d.table);
    const at = shape?.columns.findIndex((c) => c.name === d.column) ?? -1;
    const type = shape?.columns[at]?.type;
    const found = type === undefined ? null : firstAgainst(source, d, at, isNumberType(type));
    return found === null ? [] : [found];
  });
}

function firstAgainst(source: ChangeSource, d: Direction, at: number, typed: boolean): Against | null {
  let found: Against | null = null;
  for (const change of source.changes(d.table)) {
    if (change.op !== "update") continue;
    const before = beforeOf(change)?.[at] ?? null;
    const after = afterOf(change)?.[at] ?? null;
    if (sameValue(before, after) || follows(d, before, after, typed)) continue;
    const rows: number = (found?.rows ?? 0) + countOf(change);
    found = { ...(found ?? { table: d.table, column: d.column, before, after, declared: d }), rows };
  }
  return found;
}

function follows(d: Direction, before: Value, after: Value, typed: boolean): boolean {
  return isAmong(before, d.from) && isAmong(after, d.to) && goes(d.way, before, after, typed);
}

function isAmong(v: Value, values: Direction["from"]): boolean {
  if (values === null) return true;
  return v === null ? values.includes(null) : values.includes(textOf(v) ?? "\u0000no text");
}

/** What is no number neither rises nor falls: it goes against both. */
function goes(way: Direction["way"], before: Value, after: Value, typed: boolean): boolean {
  if (way === null) return true;
  const [was, is] = [decimalOf(before, typed), decimalOf(after, typed)];
  if (was === null || is === null) return false;
  return way === "up" ? compare(is, was) > 0 : compare(is, was) < 0;
}
