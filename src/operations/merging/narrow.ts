/** Narrowing: which tables, rows and columns of a set of changes are meant. Nothing given means all. */
import { UsageError } from "../../base/errors.js";
import { type Change, type RowKey, type TableShape } from "../../changeset/change.js";
import { keyText } from "../../changeset/key.js";
import { sameRow } from "../../changeset/value.js";
import type { WorkingChanges } from "../toolbox.js";

/** What a person narrows by. */
export interface Narrowing {
  readonly tables: readonly string[];
  /** `column`, or `table.column`. */
  readonly columns: readonly string[];
  /** A predicate in SQL over the changes' rows. */
  readonly where: string | undefined;
}

/** The flags that narrow so again: a next command must never mean more than the one before it. */
export function narrowingFlags(by: Narrowing): readonly string[] {
  return [
    ...by.tables.flatMap((t) => ["--table", t]),
    ...by.columns.flatMap((c) => ["--column", c]),
    ...(by.where === undefined ? [] : ["--where", by.where]),
  ];
}

/** The bounds of a predicate: rows that it may select in one table, and time. */
export const WHERE_LIMITS = { maxRows: 1_000_000, maxMs: 60_000 } as const;

/** A narrowing that was held against a set of changes. */
export interface Narrowed {
  readonly tables: readonly TableShape[];
  /** Whether everything is meant. */
  readonly whole: boolean;
  /** Whether the row is meant. */
  readonly takes: (table: string, key: RowKey) => boolean;
  /** Indices of the columns that are meant; undefined for all. */
  readonly columnsOf: (table: string) => ReadonlySet<number> | undefined;
}

/**
 * Holds a narrowing against changes.
 * @throws UsageError ERR_USAGE for a table or column that the changes do not have, or a predicate that SQLite refuses.
 */
export async function narrow(source: WorkingChanges, by: Narrowing, whose: string): Promise<Narrowed> {
  const tables = tablesOf(source.tables, by.tables, whose);
  const columns = columnsOf(tables, by.columns, whose);
  const chosen = new Map<string, ReadonlySet<string>>();
  if (by.where !== undefined) {
    for (const { name } of tables) chosen.set(name, await source.keysWhere(name, by.where, WHERE_LIMITS));
  }
  return {
    tables: columns === undefined ? tables : tables.filter((t) => columns.has(t.name)),
    whole: by.columns.length === 0 && by.where === undefined && tables.length === source.tables.length,
    takes: (table, key) => chosen.get(table)?.has(keyText(key)) ?? true,
    columnsOf: (table) => columns?.get(table),
  };
}

function tablesOf(
  tables: readonly TableShape[],
  wanted: readonly string[],
  whose: string,
): readonly TableShape[] {
  if (wanted.length === 0) return tables;
  const unknown = wanted.filter((w) => !tables.some((t) => t.name === w));
  if (unknown.length > 0)
    throw unknownPart(
      whose,
      unknown,
      tables.map((t) => t.name),
    );
  return tables.filter((t) => wanted.includes(t.name));
}

function columnsOf(
  tables: readonly TableShape[],
  wanted: readonly string[],
  whose: string,
): ReadonlyMap<string, ReadonlySet<number>> | undefined {
  if (wanted.length === 0) return undefined;
  const found = new Map<string, Set<number>>();
  for (const name of wanted) {
    let known = false;
    for (const t of tables) {
      const at = t.columns.findIndex((c) => c.name === name || `${t.name}.${c.name}` === name);
      if (at === -1) continue;
      known = true;
      found.set(t.name, (found.get(t.name) ?? new Set()).add(at));
    }
    if (!known)
      throw unknownPart(
        whose,
        [name],
        tables.flatMap((t) => t.columns.map((c) => `${t.name}.${c.name}`)),
      );
  }
  return found;
}

function unknownPart(whose: string, unknown: readonly string[], known: readonly string[]): UsageError {
  const more = known.length > 12 ? ` and ${known.length - 12} more` : "";
  return new UsageError({
    code: "ERR_USAGE",
    message: `${whose} does not touch ${unknown.join(", ")}`,
    why: known.length === 0 ? "it touches nothing" : `it touches ${known.slice(0, 12).join(", ")}${more}`,
  });
}

/**
 * The part of a change that is meant by columns: an update of those cells alone, as if it had never written the
 * others; null when nothing is left. A row that appears or goes away has no part.
 */
export function columnPart(change: Change, columns: ReadonlySet<number> | undefined): Change | null {
  if (columns === undefined) return change;
  if (change.op !== "update") return null;
  const before = change.after.map((v, i) => (columns.has(i) ? (change.before[i] ?? null) : v));
  return sameRow(before, change.after) ? null : { ...change, before };
}
