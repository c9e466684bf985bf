/** What a condition looked at, in words: the values of what it names, for the plan at hand. */
import type { PolicyTable } from "./decision.js";
import type { Mentions } from "./expression.js";
import type { Facts } from "./facts.js";
import { count, listInWords } from "./words.js";

/** Tables shown for a condition that goes through all of them. */
const TABLES_SHOWN = 2;
const LONGEST_TEXT = 40;

/** `rows.delete = 3,725; order_holds: deleted_share = 0.6313`. Tables are those in which the first named number is largest. */
export function sawOf(mentions: Mentions, facts: Facts): string {
  const paths = mentions.paths.map((path) => `${path} = ${inWords(valueAt(facts.values, path))}`);
  if (mentions.tableFields.length === 0) return listInWords(paths, 6);
  const tables = largest(facts.input.tables, mentions.tableFields).map((t) =>
    tableInWords(t, mentions.tableFields),
  );
  const rest = facts.input.tables.length - tables.length;
  const more = rest > 0 ? [`${rest} more ${rest === 1 ? "table" : "tables"}`] : [];
  return listInWords([...paths, ...(tables.length === 0 ? ["no tables"] : tables), ...more], 6);
}

function tableInWords(t: PolicyTable, fields: readonly string[]): string {
  const parts = fields.filter((f) => f !== "name").map((f) => `${f} = ${inWords(fieldOf(t, f))}`);
  return parts.length === 0 ? t.name : `${t.name}: ${parts.join(", ")}`;
}

/** One pass, no sorting: this runs for every rule, and a plan may have thousands of tables. */
function largest(tables: readonly PolicyTable[], fields: readonly string[]): PolicyTable[] {
  const field = fields.find((f) => isNumber(fieldOf(tables[0], f)));
  if (field === undefined) return tables.slice(0, TABLES_SHOWN);
  const top: PolicyTable[] = [];
  for (const t of tables) {
    const at = top.findIndex((other) => numberOf(fieldOf(t, field)) > numberOf(fieldOf(other, field)));
    if (at >= 0) top.splice(at, 0, t);
    else top.push(t);
    if (top.length > TABLES_SHOWN) top.pop();
  }
  return top;
}

function fieldOf(t: PolicyTable | undefined, field: string): unknown {
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
    case "insert":
    case "update":
    case "delete":
    case "columns":
    case "levelled":
    case "origin":
    case "name":
      return t[field];
    default:
      return undefined;
  }
}

function valueAt(values: Readonly<Record<string, unknown>>, path: string): unknown {
  let value: unknown = values;
  for (const step of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) return undefined;
    value = Reflect.get(value, step);
  }
  return value;
}

function inWords(value: unknown): string {
  if (value === undefined) return "not known";
  if (typeof value === "bigint") return count(value);
  if (typeof value === "number") return String(Number(value.toFixed(4)));
  if (typeof value === "string")
    return JSON.stringify(value.length > LONGEST_TEXT ? `${value.slice(0, LONGEST_TEXT)}…` : value);
  if (typeof value === "boolean") return String(value);
  if (value instanceof Date) return `${value.toISOString().slice(0, 16).replace("T", " ")} UTC`;
  if (Array.isArray(value)) return value.length === 0 ? "none" : listInWords(value.map(String));
  return "given";
}

function isNumber(value: unknown): value is bigint | number {
  return typeof value === "bigint" || typeof value === "number";
}

function numberOf(value: unknown): bigint | number {
  return isNumber(value) ? value : -1;
}
