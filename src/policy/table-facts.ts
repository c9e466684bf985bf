/** The fields of a table by the names that rules use, for saying what a rule saw. */
import type { PolicyTable } from "./decision.js";

/** Tables shown for a condition that goes through all of them. */
const TABLES_SHOWN = 2;

/** A table's field by its name in a rule; undefined for what is not known of it. */
export function fieldOf(t: PolicyTable | undefined, field: string): unknown {
  if (t === undefined) return undefined;
  switch (field) {
    case "rows_before":
      return t.rowsBefore;
    case "rows_after":
      return t.rowsAfter;
    case "protected_lost":
      return t.protectedLost;
    case "deleted_share":
      return t.deletedShare;
    case "updated_share":
      return t.updatedShare;
    case "first_touch":
      return t.firstTouch;
    case "tenants":
      return t.tenants?.map((tenant) => tenant.name);
    case "insert":
    case "update":
    case "delete":
    case "columns":
    case "levelled":
    case "origin":
    case "cascaded":
    case "triggered":
    case "name":
      return t[field];
    default:
      return undefined;
  }
}

/**
 * The tables in which the first of the fields that is a number is largest, else the first ones. One pass, no sorting: a
 * plan may have thousands of tables.
 */
export function largestTables(
  tables: readonly PolicyTable[],
  fields: readonly string[],
): readonly PolicyTable[] {
  const field = fields.find((f) => isNumber(fieldOf(tables[0], f)));
  if (field === undefined) return tables.slice(0, TABLES_SHOWN);
  const top: PolicyTable[] = [];
  for (const t of tables) {
    const at = top.findIndex((other) => numberOf(fieldOf(t, field)) > numberOf(fieldOf(other, field)));
    if (at >= 0) top.splice(at, 0, t);
    else if (top.length < TABLES_SHOWN) top.push(t);
    if (top.length > TABLES_SHOWN) top.pop();
  }
  return top;
}

function isNumber(value: unknown): value is bigint | number {
  return typeof value === "bigint" || typeof value === "number";
}

function numberOf(value: unknown): bigint | number {
  return isNumber(value) ? value : -1;
}
