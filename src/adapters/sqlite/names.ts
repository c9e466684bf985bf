/** Names of tables and columns in SQL text, and which names are ours. */
import { MARKER_PREFIX } from "../../target/marker.js";

/** The only way a name enters SQL text in this adapter. */
export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A text literal, for SQL that is printed for a person to run. */
export function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** A table of the target, out of reach of temporary tables of the same name. */
export function main(table: string): string {
  return `main.${quote(table)}`;
}

/** Whether the name is one of ours (SQLite compares names without regard to ASCII case). */
export function isOurs(name: string): boolean {
  return fold(name).startsWith(MARKER_PREFIX);
}

/** Whether SQLite keeps the name for itself (`sqlite_sequence`, `sqlite_stat1` …). */
export function isEngines(name: string): boolean {
  return fold(name).startsWith("sqlite_");
}

/** The name as SQLite compares it: ASCII letters in lower case, nothing else changed. */
export function fold(name: string): string {
  return name.replaceAll(/[A-Z]+/g, (s) => s.toLowerCase());
}
