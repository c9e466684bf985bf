/**
 * How a ChangeSet lies in its working file: which SQL table and columns stand for which table and columns of
 * the target. Names of a target are hostile until proven otherwise, so what reads the file back goes by the
 * positions that `holdpoint_shape` records, never by a name.
 */
import type { Json } from "../base/canonical.js";
import { array, boolean, count, decode, literal, object, string } from "../base/decode.js";
import { TargetError } from "../base/errors.js";
import type { Change, Op, Origin, StoredTable, TableShape } from "../changeset/change.js";
import type { Value } from "../changeset/value.js";
import { quoteName } from "./sqlite.js";

/** The internal table that says what the others are. */
export const SHAPE_TABLE = "holdpoint_shape";

/** What makes that table. */
export const SHAPE_SQL = `CREATE TABLE ${SHAPE_TABLE} (position INTEGER PRIMARY KEY, layout TEXT NOT NULL) STRICT`;

/** `hpcs`, in the file's header: it is a complete working ChangeSet. */
export const APPLICATION_ID = 0x68_70_63_73;

/** The columns that every table of changes begins with, see `docs/formats/store.md`. */
export const FACT_COLUMNS = ["op", "origin", "link", "count", "key", "exact"] as const;

/** SQLite holds 2,000 columns in a table; a table of changes has two for each and {@link FACT_COLUMNS}. */
export const MAX_COLUMNS = Math.floor((2000 - FACT_COLUMNS.length) / 2);

/** One table of the target in the working file. */
export interface TableLayout {
  readonly shape: TableShape;
  /** The SQL table's name: the target's own, unless SQLite cannot tell it from another. */
  readonly sqlName: string;
  /** SQL names of the before-columns, then of the after-columns, in the shape's order. */
  readonly before: readonly string[];
  readonly after: readonly string[];
}

/**
 * The layout of one more table.
 * @throws TargetError ERR_TARGET_VALUE when the table is too wide for the working form.
 */
export function layoutOf(shape: TableShape, taken: Iterable<string>): TableLayout {
  if (shape.columns.length > MAX_COLUMNS) {
    throw new TargetError({
      code: "ERR_TARGET_VALUE",
      message: `${shape.name} has ${shape.columns.length} columns`,
      why: `a ChangeSet can be worked with up to ${MAX_COLUMNS} columns of a table`,
    });
  }
  const tables = new Set([SHAPE_TABLE, ...taken].map(folded));
  const columns = new Set<string>(FACT_COLUMNS);
  return {
    shape,
    // SQLite keeps names that begin with `sqlite_` to itself.
    sqlName: freeName(/^sqlite_/i.test(shape.name) ? `t_${shape.name}` : shape.name, tables),
    before: shape.columns.map((c) => freeName(`before_${c.name}`, columns)),
    after: shape.columns.map((c) => freeName(`after_${c.name}`, columns)),
  };
}

/** The SQL that makes the table. No types: a value stays what it is. In key order, without a second copy of the key. */
export function createSql(layout: TableLayout): string {
  const facts = [
    "op TEXT NOT NULL",
    "origin TEXT NOT NULL",
    "link BLOB",
    "count INTEGER NOT NULL",
    "key BLOB PRIMARY KEY NOT NULL",
    "exact TEXT",
  ];
  const images = [...layout.before, ...layout.after].map(quoteName);
  return `CREATE TABLE ${quoteName(layout.sqlName)} (${[...facts, ...images].join(", ")}) WITHOUT ROWID`;
}

/** The SQL that writes one change: {@link FACT_COLUMNS}, before-images, after-images. */
export function insertSql(layout: TableLayout): string {
  const places = Array.from({ length: FACT_COLUMNS.length + 2 * layout.shape.columns.length }, () => "?");
  return `INSERT INTO ${quoteName(layout.sqlName)} VALUES (${places.join(", ")})`;
}

/** Changes that differ in their key and images alone: no link, a count of 1, nothing in the column `exact`. */
export type PlainKind = Pick<Change, "op" | "origin">;

/** The SQL that writes so many plain changes: of each the key, then its images, those that it has. */
export function insertPlainSql(
  { sqlName, before, after }: TableLayout,
  kind: PlainKind,
  rows: number,
): string {
  const image = (columns: readonly string[], isThere: boolean): readonly string[] =>
    columns.map(() => (isThere ? "?" : "NULL"));
  const cells = [...image(before, kind.op !== "insert"), ...image(after, kind.op !== "delete")];
  const [op, origin] = [quoteText(kind.op), quoteText(kind.origin)];
  const row = `(${[op, origin, "NULL", "1", "?", "NULL", ...cells].join(", ")})`;
  return `INSERT INTO ${quoteName(sqlName)} VALUES ${Array.from({ length: rows }, () => row).join(", ")}`;
}

/** The SQL that writes another file's changes, or their inverse, in key order, between two keys. */
export function copySql(layout: TableLayout, database: string, of: StoredTable, inverse: boolean): string {
  const op = "CASE op WHEN 'insert' THEN 'delete' WHEN 'delete' THEN 'insert' ELSE op END";
  const facts = FACT_COLUMNS.map((name) => (inverse && name === "op" ? op : quoteName(name)));
  const images = (inverse ? [...of.after, ...of.before] : [...of.before, ...of.after]).map(quoteName);
  return `INSERT INTO main.${quoteName(layout.sqlName)} SELECT ${[...facts, ...images].join(", ")}
    FROM ${database}.${quoteName(of.name)} WHERE key > ? AND key <= ? ORDER BY key`;
}

/** Operations and origins in the order of {@link selectSql}'s codes. */
const OPS: readonly Op[] = ["insert", "update", "delete"];
const ORIGINS: readonly Origin[] = ["unknown", "job", "cascade", "trigger"];

/** The facts of a change as {@link selectSql} gives them: of a plain one as a code, else as JSON. */
const FACTS_SQL = `coalesce(
  CASE WHEN count = 1 AND exact IS NULL THEN ${codeSql("op", OPS, ORIGINS.length)} + ${codeSql("origin", ORIGINS, 1)} END,
  json_array(op, origin, CASE typeof(count) WHEN 'integer' THEN CAST(count AS TEXT) END, exact))`;

function codeSql(column: string, words: readonly string[], factor: number): string {
  const cases = words.map((word, i) => `WHEN ${quoteText(word)} THEN ${i * factor}`);
  return `CASE ${column} ${cases.join(" ")} END`;
}

/** What a row of {@link selectSql} says beside its images; `exact` is the text of that column. */
export interface ChangeFacts extends PlainKind {
  readonly count: number;
  readonly exact: string | null;
}

/** The facts of every plain kind, by code: one object each, however many rows there are. */
const PLAIN: readonly ChangeFacts[] = OPS.flatMap((op) =>
  ORIGINS.map((origin) => ({ op, origin, count: 1, exact: null })),
);

/** Reads the first column of {@link selectSql}; undefined when it is none. */
export function factsOf(column: Value | undefined): ChangeFacts | undefined {
  if (typeof column === "bigint") return PLAIN[Number(column)];
  if (typeof column !== "string") return undefined;
  const [op, origin, count, exact] = JSON.parse(column) as readonly unknown[];
  const kind = PLAIN.find((k) => k.op === op && k.origin === origin);
  if (kind === undefined || typeof count !== "string") return undefined;
  if (exact !== null && typeof exact !== "string") return undefined;
  return { ...kind, count: Number(count), exact };
}

/**
 * The SQL that reads changes: their facts in one column, then the images; `tail` continues it. Each column that is handed
 * over costs as much as finding the row (measured), so key and link are left out, which the images say exactly.
 */
export function selectSql(layout: TableLayout, tail: string): string {
  const columns = [FACTS_SQL, ...[...layout.before, ...layout.after].map(quoteName)];
  return `SELECT ${columns.join(", ")} FROM ${quoteName(layout.sqlName)} ${tail}`;
}

/** The SQL that reads some columns of both images, in key order: the operation, `exact`, before, after. */
export function imagesSql(layout: TableLayout, columns: readonly number[]): string {
  const cells = [layout.before, layout.after].flatMap((image) =>
    columns.map((i) => (image[i] === undefined ? "NULL" : quoteName(image[i]))),
  );
  return `SELECT ${["op", "exact", ...cells].join(", ")} FROM ${quoteName(layout.sqlName)} ORDER BY key`;
}

/**
 * The SQL that copies another file's changes so that their keys begin with four bytes that say which transaction they are
 * written in: the bytes at four times the row's number, and so far beyond, of the first value that is bound.
 */
export function dealtSql(layout: TableLayout, database: string): string {
  const columns = [...FACT_COLUMNS, ...layout.before, ...layout.after].map((name) =>
    name === "key"
      ? "CAST(substr(?, 4 * (row_number() OVER (ORDER BY key) + ?) - 3, 4) || key AS BLOB)"
      : quoteName(name),
  );
  const name = quoteName(layout.sqlName);
  return `INSERT INTO main.${name} SELECT ${columns.join(", ")} FROM ${database}.${name}`;
}

/** How many changes lie in each transaction, by the bytes that {@link dealtSql} puts before their keys. */
export function dealtCountsSql(layout: TableLayout): string {
  return `SELECT substr(key, 1, 4), count(*) FROM ${quoteName(layout.sqlName)} GROUP BY 1`;
}

/** Below and above every key: a key begins with a tag between `05` and `30`. */
export const FIRST_KEY: Uint8Array = Buffer.of();
export const LAST_KEY: Uint8Array = Buffer.of(0xff);

/** The key so many rows beyond a key, and the one after it. */
export function keyAtSql(layout: TableLayout): string {
  return `SELECT key FROM ${quoteName(layout.sqlName)} WHERE key > ? ORDER BY key LIMIT 2 OFFSET ?`;
}

/** How many keys lie above a key. */
export function countAboveSql(layout: TableLayout): string {
  return `SELECT count(*) FROM ${quoteName(layout.sqlName)} WHERE key > ?`;
}

/** How {@link keysWhereSql} names the key, so that no column of a target can mean it. */
const KEY_ALIAS = "holdpoint key";

/**
 * The question which keys a predicate selects. In it a column's plain name is its value before (of a row that
 * appears, after); `before_x`, `after_x` and `now_x` name the images, `op` the operation. A column of the target
 * with one of those names wins. The line feeds end a comment that the predicate may end in. In order of the keys, so many at a
 * time: an answer is bounded in bytes, and the keys of a large table are more.
 */
export function keysWhereSql(
  layout: TableLayout,
  predicate: string,
  page: { readonly after: Uint8Array | null; readonly rows: number },
): string {
  const taken = new Set([folded(KEY_ALIAS)]);
  const parts = [`key AS ${quoteName(KEY_ALIAS)}`];
  const add = (name: string, sql: string): void => {
    if (taken.has(folded(name))) return;
    taken.add(folded(name));
    parts.push(`${sql} AS ${quoteName(name)}`);
  };
  const images = layout.shape.columns.map(({ name }, i) => ({
    name,
    before: quoteName(layout.before[i] ?? ""),
    after: quoteName(layout.after[i] ?? ""),
  }));
  for (const c of images) add(c.name, `CASE op WHEN 'insert' THEN ${c.after} ELSE ${c.before} END`);
  for (const c of images) {
    add(`before_${c.name}`, c.before);
    add(`after_${c.name}`, c.after);
    add(`now_${c.name}`, c.after);
  }
  add("op", "op");
  const rows = `SELECT ${parts.join(", ")} FROM ${quoteName(layout.sqlName)}`;
  const key = quoteName(KEY_ALIAS);
  const chosen = `SELECT ${key} FROM (${rows}) WHERE (\n${predicate}\n)`;
  // Around the predicate, so that nothing in it can reach the order or the place to go on from.
  const after = page.after === null ? "" : `WHERE ${key} > x'${Buffer.from(page.after).toString("hex")}'`;
  return `SELECT ${key} FROM (${chosen}) ${after} ORDER BY ${key} LIMIT ${page.rows}`;
}

/** The layout as `holdpoint_shape` keeps it. */
export function layoutToJson(layout: TableLayout): Json {
  const { shape, sqlName, before, after } = layout;
  const columns = shape.columns.map(({ name, type, generated }) => ({
    name,
    type,
    generated: generated === true,
  }));
  return { name: shape.name, keyKind: shape.keyKind, key: shape.key, columns, sqlName, before, after };
}

const layoutDecoder = object({
  name: string,
  keyKind: literal("primary", "none"),
  key: array(count),
  columns: array(object({ name: string, type: string, generated: boolean })),
  sqlName: string,
  before: array(string),
  after: array(string),
});

/** Reads {@link layoutToJson} back; undefined when it is not one. */
export function layoutFromJson(json: Json): TableLayout | undefined {
  const decoded = decode(layoutDecoder, json);
  if (!decoded.ok) return undefined;
  const { name, keyKind, key, columns, sqlName, before, after } = decoded.value;
  if (before.length !== columns.length || after.length !== columns.length) return undefined;
  const bare = columns.map((c) =>
    c.generated ? { name: c.name, type: c.type, generated: true } : { name: c.name, type: c.type },
  );
  return { shape: { name, columns: bare, keyKind, key }, sqlName, before, after };
}

/** `wanted`, or `wanted_2`, `wanted_3` …, and takes it. SQLite's names ignore case, and NUL would end the statement. */
function freeName(wanted: string, taken: Set<string>): string {
  const clean = wanted.replaceAll("\0", "\uFFFD");
  let name = clean;
  for (let n = 2; taken.has(folded(name)); n++) name = `${clean}_${n}`;
  taken.add(folded(name));
  return name;
}

function folded(name: string): string {
  return name.toLowerCase();
}

/** A word of ours as an SQL text. */
function quoteText(word: string): string {
  return `'${word.replaceAll("'", "''")}'`;
}
