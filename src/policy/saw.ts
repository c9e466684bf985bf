/** What a condition looked at, in words: the values of what it names, for the plan at hand. */
import type { PolicyTable } from "./decision.js";
import type { Mentions } from "./expression.js";
import type { Facts } from "./facts.js";
import { fieldOf } from "./table-facts.js";
import { count, listInWords } from "./words.js";

const LONGEST_TEXT = 40;

/** `rows.delete = 3,725; order_holds: deleted_share = 0.6313`. Tables are those in which the first named number is largest. */
export function sawOf(mentions: Mentions, facts: Facts): string {
  const paths = mentions.paths.map((path) => `${path} = ${inWords(valueAt(facts.values, path))}`);
  if (mentions.tableFields.length === 0) return listInWords(paths, 6);
  const tables = facts.largest(mentions.tableFields).map((t) => tableInWords(t, mentions.tableFields));
  const rest = facts.input.tables.length - tables.length;
  const more = rest > 0 ? [`${rest} more ${rest === 1 ? "table" : "tables"}`] : [];
  return listInWords([...paths, ...(tables.length === 0 ? ["no tables"] : tables), ...more], 6);
}

function tableInWords(t: PolicyTable, fields: readonly string[]): string {
  const parts = fields.filter((f) => f !== "name").map((f) => `${f} = ${inWords(fieldOf(t, f))}`);
  return parts.length === 0 ? t.name : `${t.name}: ${parts.join(", ")}`;
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
  if (Array.isArray(value))
    return value.length === 0 ? "none" : listInWords(troubleFirst(value).map(itemInWords));
  return "given";
}

const TROUBLE: ReadonlySet<unknown> = new Set(["contradicts", "absent"]);

/** Of signals, those first that agree with nothing: they are why anybody asks. */
function troubleFirst(items: readonly unknown[]): readonly unknown[] {
  const isTrouble = (i: unknown): boolean =>
    typeof i === "object" && i !== null && "state" in i && TROUBLE.has(i.state);
  return [...items.filter(isTrouble), ...items.filter((i) => !isTrouble(i))];
}

/** A signal by what it is about and how it stands; anything else as text. */
function itemInWords(item: unknown): string {
  if (typeof item !== "object" || item === null || !("source" in item) || !("state" in item))
    return String(item);
  return `${String(item.source)} ${String(item.state)}`;
}
