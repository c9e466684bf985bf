/** The catalogue: tables with their keys and references, and everything that decides what a row's change means. */
import { digestOf } from "../../base/digest.js";
import { byCodeUnit } from "../../base/canonical.js";
import { TargetError } from "../../base/errors.js";
import type { TableShape } from "../../changeset/change.js";
import type { SchemaTies } from "../../changeset/ties.js";
import { sameShape } from "../../changeset/well-formed.js";
import type { SchemaFacts } from "../../target/target.js";
import { type Session, unsupported } from "./driver.js";
import { isOurs, qualified, shownName } from "./names.js";
import type { Cell } from "./values.js";

/** What writing and comparing needs to know of a column, in the order of the shape's columns. */
export interface ColumnInfo {
  readonly name: string;
  /** The type without modifier, always with its schema unless it is the engine's: for casts. */
  readonly type: string;
  /**
   * The type of an array of it; null where there is none, its elements are not cut by commas (`box`), or `unnest` would
   * take them apart (composites).
   */
  readonly arrayType: string | null;
  readonly identity: "always" | "default" | null;
  readonly generated: boolean;
}

/** A table: an ordinary one, or a partitioned one with all its partitions as one. */
export interface TableInfo {
  readonly oid: string;
  readonly schema: string;
  readonly relation: string;
  /** The name in plans, see `names.ts`. */
  readonly name: string;
  readonly kind: "table" | "partitioned";
  readonly shape: TableShape;
  readonly columns: readonly ColumnInfo[];
  /** By key column: the operator that the primary key's index compares with, as `OPERATOR(schema.=)`. */
  readonly keyOperators: readonly string[];
  /** For `FROM`: never with the children of inheritance, always with partitions. */
  readonly from: string;
}

/** A relation that holds rows itself: an ordinary table or one partition. */
export interface Storage {
  readonly oid: string;
  readonly table: TableInfo;
  /** For `FROM`. */
  readonly from: string;
  readonly shown: string;
}

/** A foreign key between two tables. */
export interface ForeignKey {
  readonly name: string;
  readonly child: string;
  readonly parent: string;
  /** Indices into the columns of child and parent. */
  readonly from: readonly number[];
  readonly to: readonly number[];
  /** For `parent = child`, each column. */
  readonly operators: readonly string[];
  /** For `parent = parent`. */
  readonly parentOperators: readonly string[];
  /** Deleting or changing the parent writes the child: cascade, set null, set default. */
  readonly acts: boolean;
  readonly isFull: boolean;
  readonly isDeferrable: boolean;
  /** It belongs to one partition, not to the whole table. */
  readonly isPartial: boolean;
  /** `PERIOD`: the parent is not one row, but all that together cover a time. */
  readonly isOverTime: boolean;
}

/** The tables of the database, ours left out. */
export interface Catalogue {
  readonly tables: readonly TableInfo[];
  readonly byName: ReadonlyMap<string, TableInfo>;
  /** Ordinary tables and partitions by their oid. */
  readonly storages: ReadonlyMap<string, Storage>;
  readonly foreignKeys: readonly ForeignKey[];
  readonly uniques: readonly Unique[];
}

/** A unique or exclusion index. */
interface Unique {
  readonly table: string;
  /** Null when it is over expressions, or excludes by other means than equality. */
  readonly columns: readonly string[] | null;
  readonly isKey: boolean;
}

const USER_SCHEMAS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

const TABLES = `SELECT c.oid, n.nspname, c.relname, c.relkind, coalesce(pg_partition_root(c.oid)::oid, c.oid)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND ${USER_SCHEMAS}
  ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`;

const COLUMNS = `SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1),
    CASE WHEN t.typarray <> 0 AND t.typdelim = ',' AND t.typtype <> 'c' AND coalesce(b.typtype, 'b') NOT IN ('c', 'd')
      THEN format_type(t.typarray, -1) END, a.attidentity, a.attgenerated, a.attnum
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype
  WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ${USER_SCHEMAS} AND a.attnum > 0 AND NOT a.attisdropped
  ORDER BY a.attrelid, a.attnum`;

const KEYS = `SELECT i.indrelid, k.attnum, (
    SELECT 'OPERATOR(' || quote_ident(n.nspname) || '.' || o.oprname || ')'
    FROM pg_opclass oc JOIN pg_amop am ON am.amopfamily = oc.opcfamily AND am.amopstrategy = 3
        AND am.amoplefttype = oc.opcintype AND am.amoprighttype = oc.opcintype
      JOIN pg_operator o ON o.oid = am.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
    WHERE oc.oid = k.opclass)
  FROM pg_index i, unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS k(attnum, opclass, place)
  WHERE i.indisprimary AND k.place <= i.indnkeyatts ORDER BY i.indrelid, k.place`;

const UNIQUES = `SELECT i.indrelid, i.indisprimary,
    CASE WHEN NOT i.indisexclusion AND 0 <> ALL (i.indkey::int2[]) THEN
      (SELECT json_agg(a.attname ORDER BY k.place) FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.place <= i.indnkeyatts) END
  FROM pg_index i WHERE i.indisunique OR i.indisexclusion ORDER BY i.indexrelid`;

function operatorNames(oids: string): string {
  return `(SELECT json_agg('OPERATOR(' || quote_ident(n.nspname) || '.' || o.oprname || ')' ORDER BY p.place)
     FROM unnest(${oids}) WITH ORDINALITY AS p(op, place) JOIN pg_operator o ON o.oid = p.op
       JOIN pg_namespace n ON n.oid = o.oprnamespace)`;
}

// Both columns are of version 18: what is NOT ENFORCED holds nothing together, and is nobody's violation.
const FOREIGN_KEYS = `SELECT f.conname, f.conrelid, f.confrelid, array_to_json(f.conkey), array_to_json(f.confkey),
    ${operatorNames("f.conpfeqop")}, ${operatorNames("f.conppeqop")},
    f.confdeltype IN ('c', 'n', 'd') OR f.confupdtype IN ('c', 'n', 'd'), f.confmatchtype = 'f', f.condeferrable,
    coalesce(to_jsonb(f) ->> 'conperiod', 'false') = 'true'
  FROM pg_constraint f WHERE f.contype = 'f' AND f.conparentid = 0
    AND coalesce(to_jsonb(f) ->> 'conenforced', 'true') = 'true'
  ORDER BY f.conname COLLATE "C", f.oid`;

/** Reads the catalogue. The session must be one for reading: names come out qualified. */
export async function readCatalogue(session: Session): Promise<Catalogue> {
  const relations = (await session.rows(TABLES)).map(relationOf).filter((r) => !isOurs(r.schema, r.relation));
  const columns = grouped(await session.rows(COLUMNS));
  const keys = grouped(await session.rows(KEYS));
  const tables = relations
    .filter((r) => r.kind !== "f" && r.oid === r.root)
    .map((r) => tableOf(r, columns.get(r.oid) ?? [], keys.get(r.oid) ?? []))
    .filter((t) => t.columns.length > 0);
  const byOid = new Map(tables.map((t) => [t.oid, t]));
  return {
    tables,
    byName: new Map(tables.map((t) => [t.name, t])),
    storages: storagesOf(relations, byOid),
    foreignKeys: (await session.rows(FOREIGN_KEYS)).flatMap((row) =>
      foreignKeyOf(row, relations, byOid, columns),
    ),
    uniques: uniquesOf(await session.rows(UNIQUES), relations, byOid),
  };
}

/** Those of a partition count for the whole table: they tie rows of that partition, and too many ties do no harm. */
function uniquesOf(
  rows: readonly (readonly Cell[])[],
  relations: readonly Relation[],
  tables: ReadonlyMap<string, TableInfo>,
): readonly Unique[] {
  const roots = new Map(relations.map((r) => [r.oid, tables.get(r.root)]));
  return rows.flatMap(([oid, isKey, columns]) => {
    const table = roots.get(text(oid));
    if (table === undefined) return [];
    const names = columns === null ? null : list(columns).map(String);
    return [{ table: table.name, columns: names, isKey: isKey === "t" && table.oid === oid }];
  });
}

/** Which rows belong together. */
function tiesOf(catalogue: Catalogue): SchemaTies {
  const nameOf = (table: string, column: number): string =>
    catalogue.byName.get(table)?.columns[column]?.name ?? "";
  return {
    references: catalogue.foreignKeys.map((key) => ({
      table: key.child,
      columns: key.from.map((c) => nameOf(key.child, c)),
      parent: key.parent,
      parentColumns: key.to.map((c) => nameOf(key.parent, c)),
    })),
    uniques: catalogue.uniques,
  };
}

/**
 * The table that the shape is about, as it is now.
 * @throws TargetError ERR_DRIFT_SCHEMA when it is gone or has another shape.
 */
export function tableFor(catalogue: Catalogue, shape: TableShape): TableInfo {
  const info = catalogue.byName.get(shape.name);
  if (info === undefined) throw drifted(shape.name, "there is no such table now");
  const now: TableShape = shape.keyKind === "none" ? withoutKey(info.shape) : info.shape;
  if (!sameShape(shape, now)) throw drifted(shape.name, "its columns or its key are others now");
  return info;
}

/** The same table with the whole row as key. */
export function withoutKey(shape: TableShape): TableShape {
  return { ...shape, keyKind: "none", key: shape.columns.map((_, i) => i) };
}

function drifted(table: string, why: string): TargetError {
  return new TargetError({
    code: "ERR_DRIFT_SCHEMA",
    message: `table ${table} is not as planned`,
    why,
    next: [{ actor: "requester", text: "Make the plan again." }],
  });
}

interface Relation {
  readonly oid: string;
  readonly schema: string;
  readonly relation: string;
  readonly kind: string;
  readonly root: string;
}

function relationOf([oid, schema, relation, kind, root]: readonly Cell[]): Relation {
  return {
    oid: text(oid),
    schema: text(schema),
    relation: text(relation),
    kind: text(kind),
    root: text(root),
  };
}

function tableOf(
  r: Relation,
  columns: readonly (readonly Cell[])[],
  keys: readonly (readonly Cell[])[],
): TableInfo {
  const name = shownName(r.schema, r.relation);
  const places = columns.map((c) => text(c[7]));
  const key = keys.map((k) => places.indexOf(text(k[1])));
  const shape: TableShape = {
    name,
    columns: columns.map(([, column, type, , , , generated]) => ({
      name: text(column),
      type: text(type),
      ...(text(generated) === "" ? {} : { generated: true }),
    })),
    keyKind: key.length > 0 ? "primary" : "none",
    key: key.length > 0 ? key : columns.map((_, i) => i),
  };
  return {
    oid: r.oid,
    schema: r.schema,
    relation: r.relation,
    name,
    kind: r.kind === "p" ? "partitioned" : "table",
    shape,
    columns: columns.map(columnOf),
    keyOperators: keys.map((k) => text(k[2])),
    from: r.kind === "p" ? qualified(r.schema, r.relation) : `ONLY ${qualified(r.schema, r.relation)}`,
  };
}

function columnOf([, name, , type, arrayType, identity, generated]: readonly Cell[]): ColumnInfo {
  return {
    name: text(name),
    type: text(type),
    arrayType: arrayType ?? null,
    identity: identity === "a" ? "always" : identity === "d" ? "default" : null,
    generated: text(generated) !== "",
  };
}

function storagesOf(
  relations: readonly Relation[],
  tables: ReadonlyMap<string, TableInfo>,
): ReadonlyMap<string, Storage> {
  const storages = new Map<string, Storage>();
  for (const r of relations) {
    const table = tables.get(r.root);
    if (r.kind !== "r" || table === undefined) continue;
    const shown = shownName(r.schema, r.relation);
    storages.set(r.oid, { oid: r.oid, table, from: `ONLY ${qualified(r.schema, r.relation)}`, shown });
  }
  return storages;
}

function foreignKeyOf(
  [
    name,
    child,
    parent,
    from,
    to,
    operators,
    parentOperators,
    acts,
    isFull,
    isDeferrable,
    isOverTime,
  ]: readonly Cell[],
  relations: readonly Relation[],
  tables: ReadonlyMap<string, TableInfo>,
  columns: ReadonlyMap<string, readonly (readonly Cell[])[]>,
): readonly ForeignKey[] {
  const [childRoot, parentRoot] = [child, parent].map((oid) => relations.find((r) => r.oid === oid)?.root);
  const ends = [tables.get(childRoot ?? ""), tables.get(parentRoot ?? "")] as const;
  if (ends[0] === undefined || ends[1] === undefined) return [];
  return [
    {
      name: text(name),
      child: ends[0].name,
      parent: ends[1].name,
      from: numbers(from).map((n) => placeOf(ends[0], columns.get(text(child)), n)),
      to: numbers(to).map((n) => placeOf(ends[1], columns.get(text(parent)), n)),
      operators: list(operators).map(String),
      parentOperators: list(parentOperators).map(String),
      acts: acts === "t",
      isFull: isFull === "t",
      isDeferrable: isDeferrable === "t",
      isPartial: childRoot !== child || parentRoot !== parent,
      isOverTime: isOverTime === "t",
    },
  ];
}

/** A column by its number in the relation, as an index into the table's columns: partitions may order them otherwise. */
function placeOf(
  table: TableInfo | undefined,
  columns: readonly (readonly Cell[])[] | undefined,
  number: number,
): number {
  const name = columns?.find((c) => c[7] === String(number))?.[1];
  return table?.columns.findIndex((c) => c.name === name) ?? -1;
}

function grouped(rows: readonly (readonly Cell[])[]): ReadonlyMap<string, readonly (readonly Cell[])[]> {
  const groups = new Map<string, (readonly Cell[])[]>();
  for (const row of rows) {
    const group = groups.get(text(row[0]));
    if (group === undefined) groups.set(text(row[0]), [row]);
    else group.push(row);
  }
  return groups;
}

function text(cell: Cell | undefined): string {
  return cell ?? "";
}

function list(json: Cell | undefined): readonly unknown[] {
  const parsed: unknown = JSON.parse(json ?? "[]");
  return Array.isArray(parsed) ? parsed : [];
}

function numbers(json: Cell | undefined): readonly number[] {
  return list(json).map(Number);
}

// ---- fingerprint

/** One thing that a fingerprint covers. */
export interface SchemaObject {
  /** `column`, `constraint`, `trigger` … */
  readonly kind: string;
  /** What it belongs to, for people. */
  readonly name: string;
  /** Its whole meaning as the server words it. */
  readonly meaning: string;
}

const RELATION = "n.nspname, c.relname";
const OF_RELATION = `JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't' AND ${USER_SCHEMAS}`;

/** Non-unique indexes, views and grants are left out: they change no row's meaning. */
const OBJECTS: readonly string[] = [
  `SELECT 'table', ${RELATION}, concat_ws(' ', c.relkind, c.relpersistence, CASE WHEN c.relrowsecurity THEN 'row security' END,
     CASE WHEN c.relforcerowsecurity THEN 'forced' END, pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid),
     (SELECT string_agg(p.inhparent::regclass::text, ',' ORDER BY p.inhseqno) FROM pg_inherits p WHERE p.inhrelid = c.oid))
   FROM pg_class c ${OF_RELATION} AND c.relkind IN ('r', 'p', 'f')`,
  `SELECT 'column', ${RELATION}, concat_ws(' ', a.attnum::text, quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
     CASE WHEN a.attnotnull THEN 'not null' END, 'identity', nullif(a.attidentity, ''), 'generated', nullif(a.attgenerated, ''),
     pg_get_expr(d.adbin, d.adrelid), CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END)
   FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
   ${OF_RELATION} AND c.relkind IN ('r', 'p', 'f')`,
  `SELECT 'constraint', ${RELATION}, concat_ws(' ', k.conname, pg_get_constraintdef(k.oid), k.convalidated::text)
   FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid ${OF_RELATION} AND k.contype <> 't'`,
  `SELECT 'unique index', ${RELATION}, pg_get_indexdef(i.indexrelid)
   FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid ${OF_RELATION} AND (i.indisunique OR i.indisexclusion)`,
  `SELECT 'trigger', ${RELATION}, concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled, md5(p.prosrc), p.prosecdef::text,
     p.proconfig::text)
   FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid JOIN pg_proc p ON p.oid = t.tgfoid ${OF_RELATION} AND NOT t.tgisinternal`,
  // Foreign keys act through triggers of the engine, which ALTER TABLE can switch off one by one.
  `SELECT 'enforcement', ${RELATION}, concat_ws(' ', k.conname, t.tgtype::text, t.tgenabled)
   FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid JOIN pg_constraint k ON k.oid = t.tgconstraint
   ${OF_RELATION} AND t.tgisinternal AND t.tgenabled <> 'O'`,
  `SELECT 'rule', ${RELATION}, concat_ws(' ', pg_get_ruledef(r.oid), r.ev_enabled)
   FROM pg_class c JOIN pg_rewrite r ON r.ev_class = c.oid ${OF_RELATION} AND c.relkind IN ('r', 'p') AND r.rulename <> '_RETURN'`,
  `SELECT 'policy', ${RELATION}, concat_ws(' ', p.polname, p.polcmd, p.polpermissive::text,
     (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE pg_get_userbyid(r) END, ',' ORDER BY r) FROM unnest(p.polroles) r),
     pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid))
   FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid ${OF_RELATION}`,
  `SELECT 'type', n.nspname, t.typname, concat_ws(' ', t.typtype, format_type(nullif(t.typbasetype, 0), t.typtypmod),
     CASE WHEN t.typnotnull THEN 'not null' END,
     (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
     (SELECT string_agg(pg_get_constraintdef(k.oid), ',' ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid),
     (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ',' ORDER BY a.attnum)
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.oid = t.typrelid AND c.relkind = 'c' AND NOT a.attisdropped),
     (SELECT format_type(r.rngsubtype, -1) FROM pg_range r WHERE r.rngtypid = t.oid))
   FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class o ON o.oid = t.typrelid
   WHERE ${USER_SCHEMAS} AND (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND o.relkind = 'c'))`,
];

/** Everything that the fingerprint covers, in one order. Ours is left out. The session must be one for reading. */
export async function readObjects(session: Session): Promise<readonly SchemaObject[]> {
  const rows = await session.rows(OBJECTS.join("\nUNION ALL\n"));
  return rows
    .filter(([, schema, name]) => !isOurs(text(schema), text(name)))
    .map(([kind, schema, name, meaning]) => ({
      kind: text(kind),
      name: shownName(text(schema), text(name)),
      meaning: text(meaning),
    }))
    .sort(
      (a, b) => byCodeUnit(a.kind, b.kind) || byCodeUnit(a.name, b.name) || byCodeUnit(a.meaning, b.meaning),
    );
}

/** The facts about the schema as they are now. `settings` are those of a session of a job. */
export async function schemaFacts(
  session: Session,
  settings: Readonly<Record<string, string>>,
): Promise<SchemaFacts> {
  return factsOf(await readObjects(session), await readCatalogue(session), settings);
}

/** The same, of what was read already. */
export function factsOf(
  objects: readonly SchemaObject[],
  catalogue: Catalogue,
  settings: Readonly<Record<string, string>>,
): SchemaFacts {
  return {
    fingerprint: digestOf(JSON.stringify(objects.map((o) => [o.kind, o.name, o.meaning]))),
    settings,
    tables: catalogue.tables.map((t) => t.shape),
    // Which parents cover a time cannot be told from two rows: then all rows belong together.
    ...(catalogue.foreignKeys.some((k) => k.isOverTime) ? {} : { ties: tiesOf(catalogue) }),
  };
}

const JOB_SETTINGS = [
  "TimeZone",
  "DateStyle",
  "IntervalStyle",
  "lc_monetary",
  "xmloption",
  "transform_null_equals",
  "session_replication_role",
  "default_transaction_read_only",
] as const;

/** The settings that change what a job means, as a session has them that nobody changed. */
export async function jobSettings(session: Session): Promise<Readonly<Record<string, string>>> {
  const names = JOB_SETTINGS.map((name) => `pg_catalog.current_setting('${name}')`).join(", ");
  const [path, ...values] =
    (await session.row(
      `SELECT pg_catalog.array_to_string(pg_catalog.current_schemas(false), ', '), ${names}`,
    )) ?? [];
  const settings = Object.fromEntries(JOB_SETTINGS.map((name, i) => [name, text(values[i])]));
  return { search_path: text(path), ...settings };
}

/**
 * Refuses settings under which a job would not be what its text says.
 * @throws TargetError ERR_TARGET_UNSUPPORTED.
 */
export function refuseSettings(settings: Readonly<Record<string, string>>): void {
  const role = settings["session_replication_role"];
  if (role === "origin") return;
  throw unsupported(
    `session_replication_role is ${role ?? "unset"} for this role`,
    "triggers and foreign keys would be silent while the job runs",
    "Set it back to origin for this role and database (ALTER ROLE … RESET session_replication_role).",
  );
}
