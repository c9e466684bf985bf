/**
 * Rows written and held against their images inside the engine, many in one statement. The engine does only what needs no
 * judgement: a row that is to the byte what was expected is written, or is right; every other is left to the caller, who
 * reads it and judges.
 *
 * "To the byte" is the text of each cell, not the type's own equality, to which `1.0` and `1.00` are the same number.
 */
import type { Change, Delete, Insert, TableShape, Update } from "../../changeset/change.js";
import { sameValue, type Row } from "../../changeset/value.js";
import type { Session } from "./driver.js";
import { quote } from "./names.js";
import { keyMatch, unnested } from "./read.js";
import type { ColumnInfo, TableInfo } from "./schema.js";
import { arrayText, columnOf, comparable, comparableCell, isInteger, type Cell } from "./values.js";

/** Columns of the parameters' table `k`, their values, and what must hold of `t`. */
interface Given {
  readonly columns: readonly ColumnInfo[];
  readonly names: readonly string[];
  readonly values: readonly (readonly Cell[])[];
  readonly conditions: readonly string[];
}

const TEXT: ColumnInfo = {
  name: "",
  type: "text",
  arrayType: "text[]",
  identity: null,
  generated: false,
};

/**
 * Lets `work` join by nested loops only. Then the rows are found, and locked, in the order in which their keys come, and
 * through the key's index: for some thousand keys the planner would rather read the whole table.
 */
export async function inKeyOrder<T>(session: Session, work: () => Promise<T>): Promise<T> {
  await session.set({ enable_hashjoin: "off", enable_mergejoin: "off" }, true);
  const done = await work();
  // After an error the transaction is over, and the settings with it.
  await session.run("SET LOCAL enable_hashjoin TO DEFAULT");
  await session.run("SET LOCAL enable_mergejoin TO DEFAULT");
  return done;
}

/** A statement with its parameters as they travel, to be sent when its turn comes. It gives places, from 1. */
export interface Asking {
  readonly sql: string;
  readonly values: readonly string[];
}

/** The places (from 0) that the statement gives. */
export async function placesFrom(session: Session, { sql, values }: Asking): Promise<readonly number[]> {
  return (await session.rows(sql, ...values)).map(([n]) => Number(n) - 1);
}

/**
 * Does `run` for one item after the other, and makes the next one ready while the server works on the last: making the
 * parameters takes us as long as half of what the statement takes the server.
 */
export async function oneAhead<T, P>(
  items: Iterable<T>,
  prepare: (item: T) => P,
  run: (prepared: P) => Promise<void>,
): Promise<void> {
  let running = Promise.resolve();
  try {
    for (const item of items) {
      const prepared = prepare(item);
      await running;
      running = run(prepared);
    }
  } catch (e) {
    // What is under way has to end before somebody rolls back.
    await running.catch(() => undefined);
    throw e;
  }
  await running;
}

/** Writes the updates whose cells are as they were before; the places of those that were written. */
export function updateAsBefore(
  table: TableInfo,
  shape: TableShape,
  updates: readonly Update[],
  changed: readonly number[],
): Asking {
  const cells = changed.flatMap((i) => table.columns.slice(i, i + 1));
  const wrote: Given = {
    columns: cells,
    names: cells.map((_, i) => `v${i}`),
    values: changed.map((i) =>
      columnOf(
        updates.map((u) => u.after),
        i,
      ),
    ),
    conditions: [],
  };
  const before = exactly(
    table,
    changed,
    updates.map((u) => u.before),
  );
  const given = together(keysOf(table, shape, updates), before, wrote);
  const sets = cells.map((c, i) => `${quote(c.name)} = k.v${i}`);
  return asking(
    `UPDATE ${table.from} AS t SET ${sets.join(", ")} FROM ${parametersOf(given)}
      WHERE ${given.conditions.join(" AND ")} RETURNING k.n`,
    given,
  );
}

/** Deletes the rows that are whole as they were before; the places of those that were deleted. */
export function deleteAsBefore(table: TableInfo, shape: TableShape, deletes: readonly Delete[]): Asking {
  const own = table.columns.flatMap((c, i) => (c.generated ? [] : [i]));
  const before = exactly(
    table,
    own,
    deletes.map((d) => d.before),
  );
  const given = together(keysOf(table, shape, deletes), before);
  return asking(
    `DELETE FROM ${table.from} AS t USING ${parametersOf(given)}
      WHERE ${given.conditions.join(" AND ")} RETURNING k.n`,
    given,
  );
}

/** Looks for changes whose row is not as it should be, many in one statement. */
export interface Looking {
  readonly asking: Asking;
  /** For each place that the statement gives the change that stands there. */
  readonly changes: readonly Change[];
}

/**
 * Statements that find the changes whose row is not, to the byte, as the change leaves it. Some of them may be right all
 * the same: where a column is generated, what else was changed since decides.
 */
export function unlikeAfter(
  table: TableInfo,
  shape: TableShape,
  changes: readonly Change[],
): readonly Looking[] {
  return groups(table, changes).map((group) => ({
    changes: group.changes,
    asking: group.op === "delete" ? stillThere(table, shape, group.changes) : otherThan(table, shape, group),
  }));
}

// ---- groups

/** Changes that one statement can look at. */
interface Group {
  readonly op: Change["op"];
  /** The columns that are compared. */
  readonly columns: readonly number[];
  readonly changes: Change[];
}

function groups(table: TableInfo, changes: readonly Change[]): readonly Group[] {
  const found = new Map<string, Group>();
  for (const change of changes) {
    const columns = comparedColumns(table, change);
    const id = `${change.op} ${columns.join()}`;
    const group = found.get(id) ?? { op: change.op, columns, changes: [] };
    found.set(id, group);
    group.changes.push(change);
  }
  return [...found.values()];
}

function comparedColumns(table: TableInfo, change: Change): readonly number[] {
  switch (change.op) {
    case "delete":
      return [];
    case "insert":
      return table.columns.map((_, i) => i);
    case "update":
      // A generated cell follows newer cells of others: then the row must be judged.
      return table.columns.flatMap((c, i) =>
        c.generated || !sameValue(change.before[i] ?? null, change.after[i] ?? null) ? [i] : [],
      );
  }
}

function stillThere(table: TableInfo, shape: TableShape, changes: readonly Change[]): Asking {
  const given = keysOf(table, shape, changes);
  return asking(
    `SELECT k.n FROM ${parametersOf(given)} JOIN ${table.from} AS t ON ${given.conditions.join(" AND ")} ORDER BY k.n`,
    given,
  );
}

function otherThan(table: TableInfo, shape: TableShape, { changes, columns }: Group): Asking {
  const afters = changes.map((c) => (c.op === "delete" ? [] : c.after));
  const given = together(keysOf(table, shape, changes), exactly(table, columns, afters));
  return asking(
    `SELECT k.n FROM ${parametersOf(given)} LEFT JOIN ${table.from} AS t ON ${given.conditions.join(" AND ")}
      WHERE t.ctid IS NULL ORDER BY k.n`,
    given,
  );
}

// ---- parameters

/** The keys: compared as the key's index compares, and where that is wider than the text, by the text too. */
function keysOf(table: TableInfo, shape: TableShape, changes: readonly (Change | Insert)[]): Given {
  const keys = changes.map((c) => c.key);
  const columns = shape.key.flatMap((i) => table.columns.slice(i, i + 1));
  const wide = columns.flatMap((c, i) => (isInteger(c.type) ? [] : [i]));
  const texts = wide.map((i) => columnOf(keys, i).map(comparableCell));
  return {
    columns: [...columns, ...wide.map(() => TEXT)],
    names: [...columns.map((_, i) => `k${i}`), ...wide.map((i) => `x${i}`)],
    values: [...columns.map((_, i) => columnOf(keys, i)), ...texts],
    conditions: [keyMatch(table, shape, "t", "k"), ...wide.map((i) => same(columns[i]?.name ?? "", `x${i}`))],
  };
}

/** The cells of these columns, by their texts; texts and integers as they are, which costs a third. */
function exactly(table: TableInfo, indices: readonly number[], rows: readonly Row[]): Given {
  const cells = indices.flatMap((i) => table.columns.slice(i, i + 1));
  return {
    columns: cells.map((c) => (isInteger(c.type) ? c : TEXT)),
    names: indices.map((i) => `b${i}`),
    values: cells.map((c, i) => {
      const of = columnOf(rows, indices[i] ?? 0);
      return isItself(c) ? of : of.map(comparableCell);
    }),
    conditions: cells.map((c, i) => {
      const parameter = `b${indices[i] ?? 0}`;
      if (isInteger(c.type)) return `t.${quote(c.name)} IS NOT DISTINCT FROM k.${parameter}`;
      if (isItself(c)) return `t.${quote(c.name)} COLLATE "C" IS NOT DISTINCT FROM k.${parameter}`;
      return same(c.name, parameter);
    }),
  };
}

/** Whether a cell is equal exactly where the type says so. Not `character(n)`, which pads. */
function isItself(column: ColumnInfo): boolean {
  return isInteger(column.type) || column.type === "text" || column.type === "character varying";
}

/** "C": two texts are the same when their bytes are, whatever the column's collation says. */
function same(column: string, parameter: string): string {
  return `${comparable(`t.${quote(column)}`)} COLLATE "C" = k.${parameter}`;
}

function together(...parts: readonly Given[]): Given {
  return {
    columns: parts.flatMap((p) => p.columns),
    names: parts.flatMap((p) => p.names),
    values: parts.flatMap((p) => p.values),
    conditions: parts.flatMap((p) => p.conditions),
  };
}

function parametersOf(given: Given): string {
  return unnested(given.columns, given.names, 1);
}

function asking(sql: string, given: Given): Asking {
  return { sql, values: given.values.map(arrayText) };
}
