/** Sums that people know (money, stock, credits): of the changed rows as they were, and as they become. */
import { afterOf, beforeOf, type ChangeSource, countOf } from "./change.js";
import { add, type Decimal, decimalOf, decimalText, isNumberType, ZERO } from "./decimal.js";
import type { ColumnOf } from "./odd.js";

/** A column's sum over the changed rows. */
export interface ColumnSum extends ColumnOf {
  /** Exact decimal text: of the rows before the change; a row that is inserted had nothing. */
  readonly before: string;
  /** Of the rows afterwards; a row that is deleted has nothing. */
  readonly after: string;
  /** Rows whose value is no number; NULL adds nothing and is not one of them. */
  readonly unread: number;
}

/**
 * The sums of these columns over the rows that change, in the order given; columns of tables that do not change, and
 * columns that a table does not have, are left out. One pass over each table that has one, memory flat.
 * Law: for a ChangeSet and its inverse, before and after change places.
 */
export function columnSums(source: ChangeSource, columns: readonly ColumnOf[]): readonly ColumnSum[] {
  return columns.flatMap((c) => {
    const shape = source.tables.find((t) => t.name === c.table);
    const at = shape?.columns.findIndex((column) => column.name === c.column) ?? -1;
    const type = shape?.columns[at]?.type;
    return type === undefined ? [] : [sumOf(source, c, at, isNumberType(type))];
  });
}

function sumOf(source: ChangeSource, c: ColumnOf, at: number, typed: boolean): ColumnSum {
  let before: Decimal = ZERO;
  let after: Decimal = ZERO;
  let unread = 0;
  for (const change of source.changes(c.table)) {
    const rows = countOf(change);
    const values = [beforeOf(change)?.[at] ?? null, afterOf(change)?.[at] ?? null];
    const [was, is] = values.map((v) => (v === null ? ZERO : decimalOf(v, typed)));
    if (was === null || was === undefined || is === null || is === undefined) unread += rows;
    else {
      before = add(before, times(was, rows));
      after = add(after, times(is, rows));
    }
  }
  return { table: c.table, column: c.column, before: decimalText(before), after: decimalText(after), unread };
}

function times(d: Decimal, rows: number): Decimal {
  return { units: d.units * BigInt(rows), scale: d.scale };
}
