/** Names of tables and columns in SQL text, the names that plans show, and which names are ours. */
import { MARKER_PREFIX } from "../../target/marker.js";

/** The only way a name enters SQL text in this adapter. */
export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A text literal that no setting can make mean something else, for SQL that is printed or takes no parameters. */
export function literal(text: string): string {
  const quoted = text.replaceAll("'", "''");
  return text.includes("\\") ? ` E'${quoted.replaceAll("\\", "\\\\")}'` : `'${quoted}'`;
}

/** A relation by schema and name. */
export function qualified(schema: string, name: string): string {
  return `${quote(schema)}.${quote(name)}`;
}

/**
 * The name that plans, scopes and screens use: `orders` in schema `public`, `shop.orders` elsewhere. A part that holds a
 * dot or a double quote is quoted. Law: different tables have different names.
 */
export function shownName(schema: string, name: string): string {
  return schema === "public" ? shownPart(name) : `${shownPart(schema)}.${shownPart(name)}`;
}

function shownPart(part: string): string {
  return /[."]/.test(part) ? quote(part) : part;
}

/** Schema of the marker's tables. */
export const MARKER_SCHEMA = "public";

/** Whether the relation is one of holdpoint's. */
export function isOurs(schema: string, name: string): boolean {
  return schema === MARKER_SCHEMA && name.startsWith(MARKER_PREFIX);
}
