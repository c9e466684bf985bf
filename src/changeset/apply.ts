/**
 * A model of a target: tables as sorted rows in memory. It states what applying a ChangeSet means; laws
 * and adapters are tested against it. No product path runs through it.
 */
import { TargetError } from "../base/errors.js";
import { afterOf, beforeOf, countOf, keyOf, type Change, type ChangeSet, type TableShape } from "./change.js";
import { compareKeys, keyText } from "./key.js";
import { sortedTables, sourceOf } from "./source.js";
import { sameRow, type Row } from "./value.js";
import { malformed } from "./well-formed.js";

/** A table's rows in key order; equal rows of a table without a key stand as often as they are there. */
export interface TableRows {
  readonly shape: TableShape;
  readonly rows: readonly Row[];
}

/** Tables by name. */
export type State = ReadonlyMap<string, TableRows>;

/** The state of these tables, rows sorted. @throws HoldpointError ERR_INTERNAL for two rows of one key. */
export function stateOf(tables: Iterable<TableRows>): State {
  const state = new Map<string, TableRows>();
  for (const { shape, rows } of tables) state.set(shape.name, { shape, rows: sortedRows(shape, rows) });
  return state;
}

/** Same tables, same rows. */
export function sameState(a: State, b: State): boolean {
  if (a.size !== b.size) return false;
  return [...a].every(([name, { rows }]) => {
    const others = b.get(name)?.rows;
    return others?.length === rows.length && rows.every((row, i) => sameRow(row, others[i] ?? null));
  });
}

/**
 * The state after `cs`: each row only if it is exactly as before the change.
 * Law: `applyTo(applyTo(s, cs), invert(cs))` equals `s`. Law: `applyTo(s, diff(s, t))` equals `t`.
 * @throws TargetError ERR_DRIFT_ROWS when a before-image does not hold, or a table is missing.
 */
export function applyTo(state: State, cs: ChangeSet): State {
  const source = sourceOf(cs);
  const next = new Map(state);
  for (const shape of sortedTables(cs.tables)) {
    const table = state.get(shape.name);
    if (table === undefined) throw drift(shape.name, "the table is missing");
    next.set(shape.name, applyToTable(table, source.changes(shape.name)));
  }
  return next;
}

function applyToTable({ shape, rows }: TableRows, changes: Iterable<Change>): TableRows {
  const held = new Map<string, { readonly row: Row; readonly count: number }>();
  for (const row of rows) {
    const key = keyText(keyOf(shape, row));
    held.set(key, { row, count: (held.get(key)?.count ?? 0) + 1 });
  }
  for (const c of changes) {
    const key = keyText(c.key);
    const now = held.get(key) ?? null;
    const next = shape.keyKind === "none" ? applyCount(c, now?.count ?? 0) : applyImage(c, now?.row ?? null);
    if (next === null) held.delete(key);
    else held.set(key, next);
  }
  const all = [...held.values()].flatMap(({ row, count }) => Array.from({ length: count }, () => row));
  return { shape, rows: sortedRows(shape, all) };
}

type Held = { readonly row: Row; readonly count: number } | null;

function applyImage(c: Change, now: Row | null): Held {
  if (!sameRow(now, beforeOf(c))) throw drift(c.table, `a row is not as before its ${c.op}`);
  const row = afterOf(c);
  return row === null ? null : { row, count: 1 };
}

function applyCount(c: Change, now: number): Held {
  const row = afterOf(c) ?? beforeOf(c) ?? [];
  const count = c.op === "delete" ? now - countOf(c) : now + countOf(c);
  if (count < 0) throw drift(c.table, `${now} equal rows where ${countOf(c)} are to be deleted`);
  return count === 0 ? null : { row, count };
}

function sortedRows(shape: TableShape, rows: readonly Row[]): readonly Row[] {
  const sorted = [...rows].sort((a, b) => compareKeys(keyOf(shape, a), keyOf(shape, b)));
  if (shape.keyKind === "none") return sorted;
  sorted.forEach((row, i) => {
    const last = sorted[i - 1];
    if (last !== undefined && compareKeys(keyOf(shape, last), keyOf(shape, row)) === 0) {
      throw malformed(shape.name, "two rows of one key");
    }
  });
  return sorted;
}

function drift(table: string, why: string): TargetError {
  return new TargetError({
    code: "ERR_DRIFT_ROWS",
    message: `${table} is not as the ChangeSet expects`,
    why,
  });
}
