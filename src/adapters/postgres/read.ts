/** Reading rows exactly: by key, all in key order, and counted. */
import { keyOf, type RowKey, type TableShape } from "../../changeset/change.js";
import { sameRow, type Row } from "../../changeset/value.js";
import type { ReadRow } from "../../target/target.js";
import type { Session } from "./driver.js";
import { literal, quote } from "./names.js";
import type { ColumnInfo, TableInfo } from "./schema.js";
import { columnOf, comparable, comparableCell, isInteger, textForm, toRow, type Cell } from "./values.js";

/** Keys asked for in one query. */
const BATCH = 1_000;

/** The columns of a table for a select list. */
export function selectList(info: TableInfo, alias: string): string {
  return info.columns.map((c) => `${alias}.${quote(c.name)}`).join(", ");
}

/**
 * `ORDER BY` for the order of `keyBytes`. Integers are ordered by the engine, so their index serves; texts by the bytes
 * of their UTF-8 form, whatever collation the column has.
 */
export function keyOrder(info: TableInfo, shape: TableShape, alias: string, isUtf8: boolean): string {
  const terms = shape.key.flatMap((index) => {
    const column = info.columns[index];
    const name = `${alias}.${quote(column?.name ?? "")}`;
    const nulls = shape.keyKind === "none" ? [`num_nulls(${name}) DESC`] : [];
    if (isInteger(column?.type ?? "")) return [...nulls, name];
    return [...nulls, isUtf8 ? `${textForm(name)} COLLATE "C"` : `convert_to(${textForm(name)}, 'UTF8')`];
  });
  return terms.join(", ");
}

/** Whether the server stores text in UTF-8, so that its own bytes can be ordered. */
export async function storesUtf8(session: Session): Promise<boolean> {
  return (await session.value("SELECT current_setting('server_encoding')")) === "UTF8";
}

/** `Target.scan`. */
export async function* scan(
  session: Session,
  info: TableInfo,
  shape: TableShape,
): AsyncGenerator<Row, undefined> {
  const order = keyOrder(info, shape, "t", await storesUtf8(session));
  for await (const cells of session.copy(
    `SELECT ${selectList(info, "t")} FROM ${info.from} AS t ORDER BY ${order}`,
  ))
    yield toRow(info.columns, cells, 0);
}

/** Begins a transaction in which everything is read as of now, for as long as it takes; others can join by the name given. */
export async function beginMoment(session: Session): Promise<string> {
  await session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  await session.set({ idle_in_transaction_session_timeout: "0" }, true);
  return (await session.value("SELECT pg_export_snapshot()")) ?? "";
}

/** Begins a transaction that sees what {@link beginMoment} saw. */
export async function joinMoment(session: Session, moment: string): Promise<void> {
  await session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  await session.run(`SET TRANSACTION SNAPSHOT ${literal(moment)}`);
}

/** `Target.countRows`. */
export async function countRows(session: Session, info: TableInfo): Promise<number> {
  return Number(await session.value(`SELECT count(*) FROM ${info.from}`));
}

/**
 * The same number with a fourth of the processor time, and one process of the server: how many rows the session sees is how
 * many a filter takes away that lets none through, which the executor counts as it goes, where `count(*)` hands each over.
 * What the server words otherwise is counted the plain way.
 */
export async function countRowsQuietly(session: Session, info: TableInfo): Promise<number> {
  await session.set({ max_parallel_workers_per_gather: "0", jit: "off" }, true);
  const sql = `EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF, FORMAT JSON) SELECT FROM ${info.from} AS t WHERE t.tableoid = 0`;
  return (
    removedByFilter(JSON.parse((await session.value(sql)) ?? "null")) ?? (await countRows(session, info))
  );
}

/** The rows that all scans of a plan of nothing but scans took away by their filters; null where that is not said exactly. */
export function removedByFilter(explained: unknown): number | null {
  const plan = fieldOf(Array.isArray(explained) ? explained[0] : undefined, "Plan");
  const children = fieldOf(plan, "Plans");
  if (Array.isArray(children)) {
    const parts = children.map((child) => removedByFilter([{ Plan: child }]));
    const isWhole =
      fieldOf(plan, "Node Type") === "Append" &&
      (fieldOf(plan, "Subplans Removed") ?? 0) === 0 &&
      children.length > 0 &&
      !parts.includes(null);
    return isWhole ? parts.reduce<number>((sum, n) => sum + (n ?? 0), 0) : null;
  }
  const [removed, loops, rows] = ["Rows Removed by Filter", "Actual Loops", "Actual Rows"].map((name) =>
    fieldOf(plan, name),
  );
  // Of several rounds the number is an average.
  const isExact = fieldOf(plan, "Node Type") === "Seq Scan" && loops === 1 && rows === 0;
  return isExact && Number.isSafeInteger(removed) ? Number(removed) : null;
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null
    ? Object.getOwnPropertyDescriptor(value, name)?.value
    : undefined;
}

/** `Target.readRows`: each key's row, or for tables without a key how many equal rows there are, in the order asked. */
export async function* readRows(
  session: Session,
  info: TableInfo,
  shape: TableShape,
  keys: Iterable<RowKey>,
): AsyncGenerator<ReadRow, undefined> {
  for (const batch of batches(keys, BATCH)) {
    if (shape.keyKind === "none") yield* await countEqual(session, info, batch);
    else
      yield* (await rowsByKey(session, info, shape, batch, "")).map((row, i) => readRow(batch[i] ?? [], row));
  }
}

function readRow(key: RowKey, row: Row | null): ReadRow {
  return { key, row, count: row === null ? 0 : 1 };
}

/**
 * The rows of those keys, each or null, in the order asked; exactly: where the type's own equality is wider than that of
 * the text (`1.0` and `1.00`), another text is another key.
 * @param locking `FOR UPDATE OF t` locks the rows in the order of the keys.
 */
export async function rowsByKey(
  session: Session,
  info: TableInfo,
  shape: TableShape,
  keys: readonly RowKey[],
  locking: "" | "FOR UPDATE OF t",
): Promise<readonly (Row | null)[]> {
  const columns = shape.key.flatMap((index) => info.columns[index] ?? []);
  const names = columns.map((_, i) => `k${i}`);
  const values = columns.map((_, i) => columnOf(keys, i));
  const sql = `SELECT k.n, ${selectList(info, "t")}
    FROM ${unnested(columns, names, 1)} JOIN ${info.from} AS t ON ${keyMatch(info, shape, "t", "k")}
    ORDER BY k.n ${locking}`;
  const found: (Row | null)[] = keys.map(() => null);
  for (const cells of await session.rows(sql, ...values)) {
    const [at, row] = [Number(cells[0]) - 1, toRow(info.columns, cells, 1)];
    if (sameRow(keyOf(shape, row), keys[at] ?? null)) found[at] = row;
  }
  return found;
}

/** `t.id OPERATOR(pg_catalog.=) k.k0 AND …`: compared as the primary key's index compares. */
export function keyMatch(info: TableInfo, shape: TableShape, table: string, keys: string): string {
  return shape.key
    .map((index, i) => {
      const name = `${table}.${quote(info.columns[index]?.name ?? "")}`;
      return `${name} ${info.keyOperators[i] ?? "="} ${keys}.k${i}`;
    })
    .join(" AND ");
}

/**
 * `unnest` of one array parameter for each column, as table `k` with the given column names and the place `n`. An array
 * of the column's own type reads its elements with the type's input function; what has no array type, or is an array
 * itself, travels as text and is cast.
 */
export function unnested(columns: readonly ColumnInfo[], names: readonly string[], first: number): string {
  const arrays = columns.map((c, i) => `$${first + i}::${elementType(c)}[]`);
  const cells = columns.map(
    (c, i) => (isDirect(c) ? `u.c${i}` : `u.c${i}::${c.type}`) + ` AS ${names[i] ?? ""}`,
  );
  const inner = columns.map((_, i) => `c${i}`).join(", ");
  return `(SELECT ${[...cells, "u.n"].join(", ")} FROM unnest(${arrays.join(", ")}) WITH ORDINALITY AS u(${inner}, n)) AS k`;
}

function isDirect(column: ColumnInfo): boolean {
  return column.arrayType !== null && column.arrayType === `${column.type}[]`;
}

function elementType(column: ColumnInfo): string {
  return isDirect(column) ? column.type : "text";
}

/** How many rows equal each of these whole rows. */
async function countEqual(
  session: Session,
  info: TableInfo,
  rows: readonly Row[],
): Promise<readonly ReadRow[]> {
  const sql = `SELECT k.n, count(*) FROM ${equalRows(info)} GROUP BY k.n`;
  const counts = new Map<string, number>();
  for (const [n, count] of await session.rows(sql, ...comparableColumns(info, rows))) {
    counts.set(n ?? "", Number(count));
  }
  return rows.map((row, i) => {
    const count = counts.get(String(i + 1)) ?? 0;
    return { key: row, row: count === 0 ? null : row, count };
  });
}

/** `k JOIN t` where every cell is the same; parameters by {@link comparableColumns}. */
export function equalRows(info: TableInfo): string {
  const names = info.columns.map((_, i) => `k${i}`);
  const arrays = names.map((_, i) => `$${i + 1}::text[]`);
  // "C": two texts are the same when their bytes are, whatever the column's collation says.
  const same = info.columns.map((c, i) => `${comparable(`t.${quote(c.name)}`)} COLLATE "C" = k.k${i}`);
  return `unnest(${arrays.join(", ")}) WITH ORDINALITY AS k(${[...names, "n"].join(", ")})
    JOIN ${info.from} AS t ON ${same.join(" AND ")}`;
}

/** The parameters of {@link equalRows}. */
export function comparableColumns(info: TableInfo, rows: readonly Row[]): readonly (readonly Cell[])[] {
  return info.columns.map((_, i) => rows.map((row) => comparableCell(row[i] ?? null)));
}

/** Cuts an iterable into arrays of at most `size`. */
export function* batches<T>(items: Iterable<T>, size: number): Generator<readonly T[], undefined> {
  let batch: T[] = [];
  for (const item of items) {
    batch.push(item);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
