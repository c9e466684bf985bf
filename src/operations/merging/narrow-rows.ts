/**
 * Narrowing by what is known of rows: a list of keys, when they were written, by whom, in which transaction. All but the
 * list are told by the row as it is now; a row that is gone has none of them, so it is left alone, and counted.
 *
 * | given | a row is meant |
 * | --- | --- |
 * | a list of keys | its key is in the list |
 * | since, until | its time column now holds a moment from since on, and before until |
 * | authors | one of the columns named now holds the value named with it |
 * | a transaction | that transaction wrote the row as it is now |
 *
 * Where several are given, a row is meant that all of them mean.
 */
import { UsageError } from "../../base/errors.js";
import type { Change, RowKey, TableShape } from "../../changeset/change.js";
import { countOf } from "../../changeset/change.js";
import { keyText } from "../../changeset/key.js";
import type { Value } from "../../changeset/value.js";
import type { KeysFile } from "../../config/keys-file.js";
import type { Target } from "../../target/target.js";
import { timeOfValue } from "../../target/vitals.js";
import type { WorkingChanges } from "../toolbox.js";
import { type Narrowed, WHERE_LIMITS } from "./narrow.js";

/** What a person knows of the rows. */
export interface RowNarrowing {
  readonly keys?: { readonly list: KeysFile; readonly cellText: (v: Value) => string };
  readonly since?: string;
  readonly until?: string;
  /** `column`, or `table.column`; each table's own. */
  readonly timeColumns: readonly string[];
  /** `column=value`, or `table.column=value`. */
  readonly authors: readonly string[];
  readonly transaction?: string;
}

/** A narrowing by rows that was held against changes. */
export interface NarrowedRows {
  readonly takes: Narrowed["takes"];
  /** Rows of which nobody can say what was asked: gone now, or nothing stands in the column. */
  readonly untold: number;
  /** Keys of the list whose row is as in the snapshot, or in neither. */
  readonly strayKeys: number;
}

/** Whether any of it is asked. */
export function narrowsRows(by: RowNarrowing): boolean {
  return namesRows(by) || by.since !== undefined || by.until !== undefined;
}

/** Whether it says which rows are damage. A time alone does not: others write at the same time. */
export function namesRows(by: RowNarrowing): boolean {
  return by.keys !== undefined || by.authors.length > 0 || by.transaction !== undefined;
}

/**
 * Refuses what cannot be answered, before anything long begins.
 * @throws UsageError ERR_USAGE, ERR_TARGET_UNSUPPORTED.
 */
export function refuseUnanswerable(target: Target, by: RowNarrowing, damageDeletes: boolean): void {
  const timed = by.since !== undefined || by.until !== undefined;
  if (by.transaction !== undefined && target.rowsWrittenBy === undefined)
    throw new UsageError({
      code: "ERR_TARGET_UNSUPPORTED",
      message: `${target.name} cannot tell which transaction wrote a row`,
      why: `${ENGINES[target.adapter] ?? target.adapter} keeps no transaction of a row`,
      next: [{ actor: "requester", text: "Name the rows with --keys, --where or --author." }],
    });
  if (damageDeletes && (timed || by.authors.length > 0 || by.transaction !== undefined))
    throw new UsageError({
      code: "ERR_USAGE",
      message: "deleted rows have no time, author or transaction",
      why: "these are told by the row as it is now, and a deleted row is not there",
      next: [
        {
          actor: "requester",
          text: "Name the deleted rows with --keys, or with --where over before_ columns.",
        },
      ],
    });
  windowOf(by);
  for (const author of by.authors) authorOf(author);
}

const ENGINES: Readonly<Record<string, string>> = { sqlite: "SQLite", postgres: "PostgreSQL" };

/**
 * Holds it against changes; `tables` are those that were compared, changed or not.
 * @throws UsageError ERR_USAGE for a table or column that the changes do not have, a cell that is no time, too many rows.
 */
export async function narrowRows(
  target: Target,
  { changes, tables }: { readonly changes: WorkingChanges; readonly tables: readonly TableShape[] },
  narrowed: Narrowed,
  by: RowNarrowing,
): Promise<NarrowedRows> {
  if (!narrowsRows(by)) return { takes: narrowed.takes, untold: 0, strayKeys: 0 };
  const list = by.keys === undefined ? null : await listOf(by.keys, tables);
  const tests = [...timeTests(by, tables), ...authorTests(by, tables)];
  const chosen = new Map<string, ReadonlySet<string>>();
  let untold = 0;
  for (const shape of narrowed.tables) {
    const wrote =
      by.transaction === undefined ? null : await writtenBy(target, changes, shape, by.transaction);
    const keys = new Set<string>();
    for (const change of changes.changes(shape.name)) {
      if (list !== null && !list.takes(shape.name, change.key)) continue;
      if (change.op === "insert" || !narrowed.takes(shape.name, change.key)) continue;
      const told = [
        ...tests.map((test) => test(shape, change)),
        ...(wrote === null ? [] : [change.op === "delete" ? null : wrote.has(keyText(change.key))]),
      ];
      if (told.includes(false)) continue;
      if (told.includes(null)) untold += countOf(change);
      else keys.add(keyText(change.key));
      if (keys.size > WHERE_LIMITS.maxRows) throw tooMany(shape);
    }
    chosen.set(shape.name, keys);
  }
  return {
    takes: (table, key) => chosen.get(table)?.has(keyText(key)) ?? false,
    untold,
    strayKeys: list?.left() ?? 0,
  };
}

/** Whether one row is meant; null where nothing tells. */
type RowTest = (shape: TableShape, change: Change) => boolean | null;

interface List {
  readonly takes: (table: string, key: RowKey) => boolean;
  /** Keys that were asked for by no row so far. */
  readonly left: () => number;
}

async function listOf(
  { list, cellText }: NonNullable<RowNarrowing["keys"]>,
  tables: readonly TableShape[],
): Promise<List> {
  const wanted = new Map<string, Map<string, boolean>>();
  for await (const { table, cells, at } of list.lines()) {
    const shape = tables.find((t) => t.name === table);
    if (shape === undefined)
      throw refused(
        `${at}: there is no table ${table} to look at`,
        `there is ${tables.map((t) => t.name).join(", ")}`,
      );
    if (shape.keyKind === "none")
      throw refused(`${at}: ${table} has no key`, "its rows cannot be named by one");
    const names = shape.key.map((i) => shape.columns[i]?.name ?? "");
    const texts = names.map((n) => cells.get(n));
    if (cells.size !== names.length || texts.includes(undefined))
      throw refused(`${at}: it is no key of ${table}`, `its key is ${names.join(", ")}`);
    wanted.set(table, (wanted.get(table) ?? new Map<string, boolean>()).set(texts.join(), false));
  }
  let total = 0;
  for (const keys of wanted.values()) total += keys.size;
  return {
    takes: (table, key) => {
      const keys = wanted.get(table);
      const text = key.map(cellText).join();
      const asked = keys?.get(text);
      if (asked === undefined) return false;
      if (!asked) total -= 1;
      keys?.set(text, true);
      return true;
    },
    left: () => total,
  };
}

function timeTests(by: RowNarrowing, tables: readonly TableShape[]): RowTest[] {
  const window = windowOf(by);
  if (window === null) return [];
  const columns = new Map<string, number>();
  for (const name of by.timeColumns) {
    for (const [table, at] of placesOf(name, tables)) {
      if (columns.has(table) && columns.get(table) !== at)
        throw refused(`${table} is given two time columns`, "each table has one");
      columns.set(table, at);
    }
  }
  return [
    (shape, change) => {
      const at = columns.get(shape.name);
      const value = at === undefined || change.op === "delete" ? null : (change.after[at] ?? null);
      if (at === undefined || value === null) return null;
      const moment = timeOfValue(value);
      if (moment !== null) return moment >= window.since && moment < window.until;
      throw refused(
        `a row of ${shape.name} has no time in ${shape.columns[at]?.name ?? ""} that can be read`,
        "times are text such as 2012-12-24T13:24:00Z, or seconds, milliseconds or microseconds since 1970",
      );
    },
  ];
}

/** Null where no window is asked. */
function windowOf(by: RowNarrowing): { readonly since: number; readonly until: number } | null {
  if (by.since === undefined && by.until === undefined) {
    if (by.timeColumns.length === 0) return null;
    throw refused("--time-column is given without a time", "say --since, --until or both");
  }
  if (by.timeColumns.length === 0)
    throw refused("no column says when a row was written", "name it with --time-column TABLE.COLUMN");
  const since = by.since === undefined ? -Infinity : momentOf("--since", by.since);
  const until = by.until === undefined ? Infinity : momentOf("--until", by.until);
  if (since < until) return { since, until };
  throw refused("the time ends before it begins", `--since ${by.since ?? ""}, --until ${by.until ?? ""}`);
}

function momentOf(flag: string, text: string): number {
  const moment = timeOfValue(text);
  if (moment !== null) return moment;
  throw refused(
    `${flag} ${JSON.stringify(text)} is no time`,
    "expected a time such as 2012-12-24T13:24:00Z; without a zone it is UTC",
  );
}

/** Any of the authors: each row has one. */
function authorTests(by: RowNarrowing, tables: readonly TableShape[]): RowTest[] {
  if (by.authors.length === 0) return [];
  const wanted = new Map<string, [number, string][]>();
  for (const author of by.authors) {
    const { column, value } = authorOf(author);
    for (const [table, at] of placesOf(column, tables))
      wanted.set(table, [...(wanted.get(table) ?? []), [at, value]]);
  }
  return [
    (shape, change) => {
      const of = wanted.get(shape.name);
      if (of === undefined || change.op === "delete") return null;
      const known = of.filter(([at]) => (change.after[at] ?? null) !== null);
      if (known.length === 0) return null;
      return known.some(([at, value]) => plainText(change.after[at] ?? null) === value);
    },
  ];
}

function authorOf(text: string): { readonly column: string; readonly value: string } {
  const at = text.indexOf("=");
  const [column, value] = [text.slice(0, Math.max(0, at)).trim(), text.slice(at + 1).trim()];
  if (at !== -1 && column !== "" && value !== "") return { column, value };
  throw refused(
    `--author ${JSON.stringify(text)} names nobody`,
    'expected COLUMN=VALUE such as "updated_by=nightly"',
  );
}

/** A value as it is typed; undefined for bytes, which nobody types. */
function plainText(v: Value): string | undefined {
  if (typeof v === "string") return v;
  return typeof v === "bigint" || typeof v === "number" ? String(v) : undefined;
}

function placesOf(name: string, tables: readonly TableShape[]): (readonly [string, number])[] {
  const found = tables.flatMap((t) => {
    const at = t.columns.findIndex((c) => c.name === name || `${t.name}.${c.name}` === name);
    return at === -1 ? [] : [[t.name, at] as const];
  });
  if (found.length > 0 || tables.length === 0) return found;
  throw refused(
    `no table that is looked at has a column ${name}`,
    `looked at: ${tables.map((t) => t.name).join(", ")}`,
  );
}

/** Keys of the changed rows that the transaction wrote as they are now. */
async function writtenBy(
  target: Target,
  changes: WorkingChanges,
  shape: TableShape,
  transaction: string,
): Promise<ReadonlySet<string>> {
  const keys = new Set<string>();
  for await (const key of target.rowsWrittenBy?.(shape, transaction) ?? []) {
    if (changes.get(shape.name, key) !== undefined) keys.add(keyText(key));
    if (keys.size > WHERE_LIMITS.maxRows) throw tooMany(shape);
  }
  return keys;
}

function tooMany(shape: TableShape): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `more rows of ${shape.name} are named than can be held`,
    why: `at most ${WHERE_LIMITS.maxRows} rows of a table can be named`,
    next: [{ actor: "requester", text: "Narrow further, and rescue in several steps." }],
  });
}

function refused(message: string, why: string): UsageError {
  return new UsageError({ code: "ERR_USAGE", message, why });
}
