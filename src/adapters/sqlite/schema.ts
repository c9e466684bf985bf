/** What the database says about its own tables, read afresh each time: other processes change schemas too. */
import { byCodeUnit, canonical } from "../../base/canonical.js";
import { digestOf } from "../../base/digest.js";
import { TargetError } from "../../base/errors.js";
import type { Column, TableShape } from "../../changeset/change.js";
import type { SchemaTies } from "../../changeset/ties.js";
import type { SchemaFacts } from "../../target/target.js";
import type { Cell, Connection } from "./driver.js";
import { fold, isEngines, isOurs, literal, main, quote } from "./names.js";
import type { Encoding } from "./values.js";

/** A column of a unique index: which one (null for an expression) and the order it compares by. */
export interface IndexedColumn {
  readonly column: number | null;
  readonly collation: string;
}

/** A column of a primary key. */
export interface KeyColumn {
  readonly column: number;
  readonly collation: string;
}

/** Something that keeps rows apart: a key, a unique constraint, a unique index. */
export interface UniqueIndex {
  readonly name: string;
  readonly columns: readonly IndexedColumn[];
}

/** A declared reference of a table to another. */
export interface ForeignKey {
  readonly columns: readonly string[];
  readonly parent: string;
  /** The parent's columns; empty means its primary key. */
  readonly parentColumns: readonly string[];
  readonly onDelete: string;
  readonly onUpdate: string;
}

/** One table as this adapter needs to know it. */
export interface TableInfo {
  readonly name: string;
  /** `virtual` and `shadow` tables cannot be held exactly and are refused when a job touches them. */
  readonly kind: "table" | "virtual" | "shadow";
  readonly withoutRowid: boolean;
  /** A name by which SQL reaches the row's rowid; null for WITHOUT ROWID, and where columns hide all its names. */
  readonly rowid: string | null;
  /** The column that *is* the rowid (`INTEGER PRIMARY KEY`). */
  readonly alias: number | null;
  /** Columns of the declared primary key, in key order. */
  readonly primaryKey: readonly KeyColumn[];
  readonly uniques: readonly UniqueIndex[];
  readonly foreignKeys: readonly ForeignKey[];
  readonly rootPage: number;
  readonly sql: string;
  readonly strict: boolean;
  readonly shape: TableShape;
}

/** Everything a rehearsal, a read or a write needs to know about one database at one moment. */
export interface Catalogue {
  readonly encoding: Encoding;
  readonly tables: readonly TableInfo[];
  /** By name, folded as SQLite compares names. */
  readonly byName: ReadonlyMap<string, TableInfo>;
}

/** One object of the schema, as it stands in `sqlite_schema`. */
export interface SchemaObject {
  readonly type: string;
  readonly name: string;
  readonly table: string;
  readonly sql: string | null;
}

/**
 * Reads all tables. Ours and the engine's own are left out.
 *
 * A declared primary key identifies rows only if it cannot hold NULL: SQLite lets NULL into every key but
 * `INTEGER PRIMARY KEY`, `NOT NULL` columns and WITHOUT ROWID tables. Such a key is a key here while no row
 * holds a NULL in it; else the table counts as one without a key.
 */
export function readCatalogue(connection: Connection): Catalogue {
  const encoding = encodingOf(connection);
  const roots = new Map<string, readonly Cell[]>();
  for (const row of connection.rows(
    "SELECT name, rootpage, sql FROM main.sqlite_schema WHERE type = 'table'",
  )) {
    roots.set(String(row[0]), row);
  }
  const listed = connection.rows(
    "SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main'",
  );
  const tables = listed
    .filter(([name, type]) => type !== "view" && !isEngines(String(name)) && !isOurs(String(name)))
    .map(([name, type, wr, strict]) =>
      readTable(connection, {
        name: String(name),
        kind: type === "virtual" || type === "shadow" ? type : "table",
        withoutRowid: wr === 1n,
        strict: strict === 1n,
        rootPage: Number(roots.get(String(name))?.[1] ?? 0),
        sql: String(roots.get(String(name))?.[2] ?? ""),
      }),
    )
    .sort((a, b) => byCodeUnit(a.name, b.name));
  return { encoding, tables, byName: new Map(tables.map((t) => [fold(t.name), t])) };
}

/** How the database stores text. */
export function encodingOf(connection: Connection): Encoding {
  const encoding = connection.value("PRAGMA encoding");
  return encoding === "UTF-16le" || encoding === "UTF-16be" ? encoding : "UTF-8";
}

/** The objects that people made: not ours, not the engine's own, sorted. */
export function readObjects(connection: Connection): readonly SchemaObject[] {
  return connection
    .rows("SELECT type, name, tbl_name, sql FROM main.sqlite_schema")
    .map(([type, name, table, sql]) => ({
      type: String(type),
      name: String(name),
      table: String(table),
      sql: sql === null || sql === undefined ? null : String(sql),
    }))
    .filter((o) => !isEngines(o.name) && !isOurs(o.name) && !isOurs(o.table))
    .sort((a, b) => byCodeUnit(a.type, b.type) || byCodeUnit(a.name, b.name));
}

/**
 * What `Target.schema` answers; the fingerprint covers the text of every object and so every foreign key.
 * `foreignKeys` is what the target is configured to mean, which a connection that writes rows does not have on.
 */
export function schemaFacts(connection: Connection, foreignKeys: boolean): SchemaFacts {
  const catalogue = readCatalogue(connection);
  const objects = readObjects(connection).map((o) => [o.type, o.name, o.table, o.sql]);
  return {
    fingerprint: digestOf(canonical(objects)),
    settings: {
      foreign_keys: foreignKeys ? "on" : "off",
      recursive_triggers: connection.value("PRAGMA recursive_triggers") === 1n ? "on" : "off",
      encoding: catalogue.encoding,
    },
    tables: catalogue.tables.filter((t) => t.kind === "table").map((t) => t.shape),
    ties: tiesOf(catalogue),
  };
}

function tiesOf(catalogue: Catalogue): SchemaTies {
  return {
    references: catalogue.tables.flatMap((table) =>
      table.foreignKeys.map((key) => ({
        table: table.name,
        columns: key.columns,
        parent: key.parent,
        parentColumns:
          key.parentColumns.length > 0 ? key.parentColumns : primaryKeyNames(catalogue, key.parent),
      })),
    ),
    uniques: catalogue.tables.flatMap((table) => table.uniques.map((unique) => uniqueTie(table, unique))),
  };
}

function primaryKeyNames(catalogue: Catalogue, name: string): readonly string[] {
  const parent = catalogue.byName.get(fold(name));
  return (parent?.primaryKey ?? []).map((k) => parent?.shape.columns[k.column]?.name ?? "");
}

function uniqueTie({ name, shape }: TableInfo, { columns }: UniqueIndex): SchemaTies["uniques"][number] {
  const at = columns.map((c) => c.column);
  const isKey =
    shape.keyKind === "primary" && at.length === shape.key.length && shape.key.every((k) => at.includes(k));
  const names = at.map((i) => (i === null ? null : (shape.columns[i]?.name ?? null)));
  const known = names.filter((n) => n !== null);
  return { table: name, columns: known.length === names.length ? known : null, isKey };
}

/** The table of that name. @throws TargetError ERR_DRIFT_SCHEMA when there is none, or it has other columns. */
export function tableFor(catalogue: Catalogue, shape: TableShape): TableInfo {
  const info = catalogue.byName.get(fold(shape.name));
  const found = info?.shape.columns.map((c) => c.name).join(", ");
  const expected = shape.columns.map((c) => c.name).join(", ");
  if (info !== undefined && found === expected) return info;
  throw new TargetError({
    code: "ERR_DRIFT_SCHEMA",
    message: `table ${shape.name} is not as it was`,
    why: `expected columns ${expected}; found ${found ?? "no such table"}`,
  });
}

/** @throws TargetError ERR_TARGET_UNSUPPORTED for a table whose rows this adapter cannot hold exactly. */
export function assertSupported(info: TableInfo): void {
  const why = unsupported(info);
  if (why === undefined) return;
  throw new TargetError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `table ${info.name} cannot be held exactly`,
    why,
    next: [{ actor: "requester", text: "leave this table out of the job (docs/fine-print.md, SQLite)" }],
  });
}

/** Why the table cannot be held exactly; undefined when it can. */
export function unsupported(info: TableInfo): string | undefined {
  if (info.kind === "virtual") return "it is a virtual table: what it stores is its module's own affair";
  if (info.kind === "shadow") return "it is the storage of a virtual table";
  if (!info.withoutRowid && info.rowid === null) return "its columns hide every name of the rowid";
  return info.shape.columns.length > MAX_COLUMNS ? `it has more than ${MAX_COLUMNS} columns` : undefined;
}

/** Reading a row exactly takes two result columns for each of its own, on both sides of a join; SQLite allows 2000. */
const MAX_COLUMNS = 490;

type Listed = Pick<TableInfo, "name" | "kind" | "withoutRowid" | "strict" | "rootPage" | "sql">;

function readTable(connection: Connection, listed: Listed): TableInfo {
  const columns = connection
    .rows(`SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo(?, 'main')`, listed.name)
    // Hidden columns belong to virtual tables; generated ones say 2 (virtual) or 3 (stored).
    .filter((c) => c[4] !== 1n);
  const indexes = connection.rows(
    `SELECT name, "unique", origin FROM pragma_index_list(?, 'main')`,
    listed.name,
  );
  const uniques = indexes.filter((i) => i[1] === 1n).map((i) => readUnique(connection, String(i[0])));
  const declared = columns
    .map((c, column) => ({ column, position: Number(c[3]) }))
    .filter((c) => c.position > 0)
    .sort((a, b) => a.position - b.position);
  const keyIndex = String(indexes.find((i) => i[2] === "pk")?.[0] ?? "");
  // SQLite's rule for "this column is the rowid": a key of one column that needed no index of its own.
  const alias =
    declared.length === 1 && !listed.withoutRowid && keyIndex === "" ? (declared[0]?.column ?? null) : null;
  const collations = uniques.find((u) => u.name === keyIndex)?.columns ?? [];
  const primaryKey = declared.map((c, i) => ({
    column: c.column,
    collation: collations[i]?.collation ?? "BINARY",
  }));
  const names = columns.map((c) => String(c[0]));
  const info = {
    ...listed,
    rowid: listed.withoutRowid ? null : rowidName(names, alias),
    alias,
    primaryKey,
    uniques,
    foreignKeys: readForeignKeys(connection, listed.name),
  };
  const nullable = primaryKey.filter((k) => columns[k.column]?.[2] !== 1n).map((k) => names[k.column] ?? "");
  const certain = alias !== null || listed.withoutRowid || nullable.length === 0;
  const keyed = declared.length > 0 && (certain || !holdsNull(connection, listed.name, nullable));
  return { ...info, shape: shapeOf(listed.name, columns, keyed ? primaryKey.map((k) => k.column) : null) };
}

function shapeOf(
  name: string,
  cells: readonly (readonly Cell[])[],
  key: readonly number[] | null,
): TableShape {
  const columns: Column[] = cells.map((c) => {
    const column = { name: String(c[0]), type: String(c[1] ?? "") };
    return c[4] === 2n || c[4] === 3n ? { ...column, generated: true } : column;
  });
  return key === null
    ? { name, columns, keyKind: "none", key: columns.map((_, i) => i) }
    : { name, columns, keyKind: "primary", key };
}

/** The shape of the same table where its key turned out to hold NULL. */
export function withoutKey(shape: TableShape): TableShape {
  return { ...shape, keyKind: "none", key: shape.columns.map((_, i) => i) };
}

function holdsNull(connection: Connection, table: string, columns: readonly string[]): boolean {
  const anyNull = columns.map((c) => `${quote(c)} IS NULL`).join(" OR ");
  return connection.value(`SELECT EXISTS (SELECT 1 FROM ${main(table)} WHERE ${anyNull})`) === 1n;
}

function rowidName(columns: readonly string[], alias: number | null): string | null {
  const taken = new Set(columns.map(fold));
  const free = ["rowid", "_rowid_", "oid"].find((name) => !taken.has(name));
  return free ?? (alias === null ? null : (columns[alias] ?? null));
}

function readUnique(connection: Connection, name: string): UniqueIndex {
  const columns = connection.rows(
    "SELECT cid, coll FROM pragma_index_xinfo(?, 'main') WHERE key = 1 ORDER BY seqno",
    name,
  );
  return {
    name,
    columns: columns.map(([cid, collation]) => ({
      column: Number(cid) < 0 ? null : Number(cid),
      collation: String(collation),
    })),
  };
}

function readForeignKeys(connection: Connection, table: string): readonly ForeignKey[] {
  const rows = connection.rows(
    `SELECT id, "table", "from", "to", on_delete, on_update FROM pragma_foreign_key_list(?, 'main') ORDER BY id, seq`,
    table,
  );
  const ids = [...new Set(rows.map((r) => r[0]))];
  return ids.map((id) => {
    const parts = rows.filter((r) => r[0] === id);
    const first = parts[0] ?? [];
    return {
      columns: parts.map((r) => String(r[2])),
      parent: String(first[1]),
      parentColumns: parts.flatMap((r) => (r[3] === null || r[3] === undefined ? [] : [String(r[3])])),
      onDelete: String(first[4]),
      onUpdate: String(first[5]),
    };
  });
}

/** The type affinity of a declared type (sqlite.org/datatype3.html §3.1). */
export function affinityOf(type: string): "INTEGER" | "TEXT" | "BLOB" | "REAL" | "NUMERIC" {
  const t = type.toUpperCase();
  if (t.includes("INT")) return "INTEGER";
  if (/CHAR|CLOB|TEXT/.test(t)) return "TEXT";
  if (t === "" || t.includes("BLOB")) return "BLOB";
  return /REAL|FLOA|DOUB/.test(t) ? "REAL" : "NUMERIC";
}

/**
 * Whether a column of this declared type can hold a real zero, which may be -0.0 and which SQL cannot tell from 0.0. The other
 * affinities make an integer or a text of it, and REAL keeps 0.0 alone; `ANY` of a STRICT table keeps what it is given.
 */
export function mayHoldRealZero(type: string): boolean {
  return affinityOf(type) === "BLOB" || type.toUpperCase() === "ANY";
}

/** `'a', 'b'` for an IN list of names. */
export function nameList(names: readonly string[]): string {
  return names.map(literal).join(", ");
}
