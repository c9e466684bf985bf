/**
 * The objects of a database as definitions that can be compared: what a script did to the schema is the difference of two
 * readings. They are read inside the transaction too, so what a function or a DO block did is among them. What is written
 * to a system catalogue that they do not cover is refused ({@link refuseUncovered}): a change that nobody sees is not signed.
 */
import { byCodeUnit } from "../../base/canonical.js";
import type { SchemaChange } from "../../target/target.js";
import { type Session, unsupported } from "./driver.js";
import { isOurs, shownName } from "./names.js";
import type { Cell } from "./values.js";

/** One object with everything that makes it what it is. */
export interface Definition {
  /** `table`, `index`, `view`, `function` … */
  readonly object: string;
  /** As plans show it. */
  readonly name: string;
  /** The table that it belongs to; null for what belongs to none. */
  readonly table: string | null;
  /** Its meaning in the server's words, one part a line; columns and constraints of a table begin with that word. */
  readonly text: string;
  /** How SQL names it, for `DROP`; empty for what is no object of its own. */
  readonly sqlName: string;
}

const USER = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
const acl = (column: string, owner: string): string =>
  `'  OWNER ' || pg_get_userbyid(${owner}), '  GRANTS ' || array_to_string(${column}, ' ')`;

const SEQUENCE = `concat_ws(' ', format_type(s.seqtypid, NULL), 'START', s.seqstart, 'INCREMENT', s.seqincrement, 'MINVALUE', s.seqmin,
  'MAXVALUE', s.seqmax, 'CACHE', s.seqcache, CASE WHEN s.seqcycle THEN 'CYCLE' END)`;

/** One line, whatever a default holds. A sequence that belongs to a column is part of that column. */
const COLUMN = `'COLUMN ' || replace(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attcollation NOT IN (0, t.typcollation) THEN 'COLLATE ' || a.attcollation::regcollation::text END,
    CASE WHEN a.attnotnull THEN 'NOT NULL' END,
    CASE a.attgenerated WHEN '' THEN 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)
      ELSE 'GENERATED ' || a.attgenerated::text || ' (' || pg_get_expr(d.adbin, d.adrelid) || ')' END,
    CASE a.attidentity WHEN 'a' THEN 'IDENTITY ALWAYS' WHEN 'd' THEN 'IDENTITY BY DEFAULT' END,
    (SELECT string_agg('SEQUENCE ' || q.relname || ' (' || ${SEQUENCE} || ')', ' ' ORDER BY q.relname)
     FROM pg_depend o JOIN pg_class q ON q.oid = o.objid AND q.relkind = 'S' JOIN pg_sequence s ON s.seqrelid = q.oid
     WHERE o.classid = 'pg_class'::regclass AND o.refobjid = c.oid AND o.refobjsubid = a.attnum AND o.deptype IN ('a', 'i')),
    CASE WHEN a.attstorage <> t.typstorage THEN 'STORAGE ' || a.attstorage::text END,
    array_to_string(a.attoptions, ' '), 'GRANTS ' || array_to_string(a.attacl, ' ')), chr(10), '\\n')`;

const QUERIES: readonly string[] = [
  `SELECT 'table', n.nspname, c.relname, NULL, NULL, format('%I.%I', n.nspname, c.relname), concat_ws(E'\\n',
     concat_ws(' ', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED' END, CASE c.relkind WHEN 'f' THEN 'FOREIGN' END, 'TABLE', c.relname),
     (SELECT string_agg(${COLUMN}, E'\\n' ORDER BY a.attnum) FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
     (SELECT string_agg(replace(concat_ws(' ', 'CONSTRAINT', quote_ident(k.conname), pg_get_constraintdef(k.oid)), chr(10), '\\n'),
        E'\\n' ORDER BY k.conname)
      FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype <> 't'),
     (SELECT string_agg(concat_ws(' ', '  ENFORCEMENT', k.conname, g.tgtype, g.tgenabled), E'\\n' ORDER BY k.conname, g.tgtype)
      FROM pg_trigger g JOIN pg_constraint k ON k.oid = g.tgconstraint WHERE g.tgrelid = c.oid AND g.tgisinternal AND g.tgenabled <> 'O'),
     '  PARTITION BY ' || pg_get_partkeydef(c.oid), '  PARTITION ' || pg_get_expr(c.relpartbound, c.oid),
     (SELECT string_agg('  OF ' || p.inhparent::regclass::text, E'\\n' ORDER BY p.inhseqno) FROM pg_inherits p WHERE p.inhrelid = c.oid),
     '  WITH ' || array_to_string(c.reloptions, ' '), CASE WHEN c.relrowsecurity THEN '  ROW SECURITY' END,
     CASE WHEN c.relforcerowsecurity THEN '  FORCE ROW SECURITY' END, '  REPLICA IDENTITY ' || nullif(c.relreplident::text, 'd'),
     ${acl("c.relacl", "c.relowner")})
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND ${USER}`,
  // Those of constraints are the constraint's.
  `SELECT 'index', n.nspname, c.relname, n.nspname, r.relname, format('%I.%I', n.nspname, c.relname),
     concat_ws(E'\\n', pg_get_indexdef(c.oid), CASE WHEN NOT i.indisvalid THEN '  INVALID' END)
   FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class r ON r.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relpersistence <> 't' AND ${USER} AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))`,
  `SELECT CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, n.nspname, c.relname, NULL, NULL,
     format('%I.%I', n.nspname, c.relname), concat_ws(E'\\n', pg_get_viewdef(c.oid), array_to_string(c.reloptions, ' '), ${acl("c.relacl", "c.relowner")})
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND c.relpersistence <> 't' AND ${USER}`,
  `SELECT 'sequence', n.nspname, c.relname, NULL, NULL, format('%I.%I', n.nspname, c.relname),
     concat_ws(E'\\n', ${SEQUENCE}, ${acl("c.relacl", "c.relowner")})
   FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relpersistence <> 't' AND ${USER} AND NOT EXISTS (SELECT 1 FROM pg_depend o WHERE o.classid = 'pg_class'::regclass
     AND o.objid = c.oid AND o.refobjsubid > 0 AND o.deptype IN ('a', 'i'))`,
  `SELECT 'trigger', n.nspname, t.tgname, n.nspname, c.relname, format('%I ON %I.%I', t.tgname, n.nspname, c.relname),
     concat_ws(E'\\n', pg_get_triggerdef(t.oid), '  ' || t.tgenabled::text)
   FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT t.tgisinternal AND ${USER}`,
  `SELECT 'rule', n.nspname, r.rulename, n.nspname, c.relname, format('%I ON %I.%I', r.rulename, n.nspname, c.relname),
     concat_ws(E'\\n', pg_get_ruledef(r.oid), '  ' || r.ev_enabled::text)
   FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.rulename <> '_RETURN' AND ${USER}`,
  `SELECT 'policy', n.nspname, p.polname, n.nspname, c.relname, format('%I ON %I.%I', p.polname, n.nspname, c.relname),
     concat_ws(' ', p.polcmd, p.polpermissive::text,
       (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE pg_get_userbyid(r) END, ',' ORDER BY r) FROM unnest(p.polroles) r),
       pg_get_expr(p.polqual, p.polrelid), 'CHECK', pg_get_expr(p.polwithcheck, p.polrelid))
   FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${USER}`,
  `SELECT 'function', n.nspname, p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', NULL, NULL,
     format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
     concat_ws(E'\\n', pg_get_functiondef(p.oid), ${acl("p.proacl", "p.proowner")})
   FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind IN ('f', 'p', 'w') AND ${USER}`,
  `SELECT CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, n.nspname, t.typname, NULL, NULL, format('%I.%I', n.nspname, t.typname), concat_ws(E'\\n',
     concat_ws(' ', t.typtype, format_type(nullif(t.typbasetype, 0), t.typtypmod), CASE WHEN t.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || t.typdefault),
     (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
     (SELECT string_agg(concat_ws(' ', k.conname, pg_get_constraintdef(k.oid)), E'\\n' ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid),
     (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
      FROM pg_attribute a WHERE a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped),
     (SELECT format_type(r.rngsubtype, -1) FROM pg_range r WHERE r.rngtypid = t.oid), ${acl("t.typacl", "t.typowner")})
   FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class o ON o.oid = t.typrelid AND o.relkind = 'c'
   WHERE ${USER} AND (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND o.oid IS NOT NULL))`,
  `SELECT 'schema', n.nspname, NULL, NULL, NULL, quote_ident(n.nspname), concat_ws(E'\\n', n.nspname, ${acl("n.nspacl", "n.nspowner")})
   FROM pg_namespace n WHERE ${USER}`,
  `SELECT 'comment', '', pg_describe_object(d.classoid, d.objoid, d.objsubid), NULL, NULL, '', d.description
   FROM pg_description d WHERE d.objoid >= 16384`,
];

/** All objects but holdpoint's, in one order. The session must be one for reading. */
export async function readDefinitions(session: Session): Promise<readonly Definition[]> {
  const found: Definition[] = [];
  for (const query of QUERIES)
    for (const row of await session.rows(query)) {
      const definition = definitionOf(row);
      if (definition !== null) found.push(definition);
    }
  return found.sort((a, b) => byCodeUnit(idOf(a), idOf(b)));
}

function definitionOf([
  object,
  schema,
  name,
  tableSchema,
  table,
  sqlName,
  text,
]: readonly Cell[]): Definition | null {
  if (isOurs(schema ?? "", name ?? "") || isOurs(tableSchema ?? "", table ?? "")) return null;
  const isNamed = name !== null && name !== undefined;
  return {
    object: object ?? "",
    name: object === "comment" ? (name ?? "") : isNamed ? shownName(schema ?? "", name) : (schema ?? ""),
    table: table === null || table === undefined ? null : shownName(tableSchema ?? "", table),
    text: text ?? "",
    sqlName: sqlName ?? "",
  };
}

/** What tells one object from another: two tables may each have a trigger of one name. */
function idOf(d: { readonly object: string; readonly name: string; readonly table: string | null }): string {
  return JSON.stringify([d.object, d.name, d.table]);
}

/** Asks, for a table that has more columns now, whether anything stands in the new ones. */
export type IsEmpty = (table: string, columns: readonly string[]) => Promise<boolean>;

/** What changed between two readings. */
export async function schemaChanges(
  before: readonly Definition[],
  after: readonly Definition[],
  isEmpty: IsEmpty,
): Promise<readonly SchemaChange[]> {
  const was = new Map(before.map((d) => [idOf(d), d]));
  const is = new Map(after.map((d) => [idOf(d), d]));
  const changes: SchemaChange[] = [];
  for (const id of [...new Set([...was.keys(), ...is.keys()])].sort(byCodeUnit)) {
    const change = await changeOf(was.get(id) ?? null, is.get(id) ?? null, isEmpty);
    if (change !== null) changes.push(change);
  }
  return changes;
}

async function changeOf(
  was: Definition | null,
  is: Definition | null,
  isEmpty: IsEmpty,
): Promise<SchemaChange | null> {
  const one = is ?? was;
  if (one === null || was?.text === is?.text) return null;
  const table = one.object === "table" ? one.name : one.table;
  return {
    action: was === null ? "create" : is === null ? "drop" : "alter",
    object: one.object,
    name: one.name,
    ...(table === null ? {} : { table }),
    before: was?.text ?? null,
    after: is?.text ?? null,
    undo: await undoOf(was, is, isEmpty),
  };
}

/** Objects whose making can be taken back by `DROP`. */
const DROPPABLE = new Set([
  "table",
  "index",
  "view",
  "sequence",
  "trigger",
  "function",
  "policy",
  "rule",
  "type",
  "domain",
  "schema",
]);

async function undoOf(was: Definition | null, is: Definition | null, isEmpty: IsEmpty): Promise<string> {
  if (is === null) return `what was dropped with ${was?.object ?? "it"} ${was?.name ?? ""} is not made again`;
  if (was === null) return DROPPABLE.has(is.object) ? "yes" : `the ${is.object} is not taken away`;
  if (is.object !== "table") return `the former ${is.object} is not put back`;
  const added = addedColumns(was.text, is.text);
  if (added === null) return "the former table is not put back";
  return (await isEmpty(is.name, added)) ? "yes" : "the added column is no longer empty";
}

/**
 * The columns that one definition of a table has more than the other, where that is all; else null. A constraint that came
 * with them goes with them only if it names one.
 */
export function addedColumns(before: string, after: string): readonly string[] | null {
  const [was, is] = [before.split("\n"), after.split("\n")];
  if (was.some((line) => !is.includes(line))) return null;
  const more = is.filter((line) => !was.includes(line));
  const columns = more.flatMap((line) => (line.startsWith("COLUMN ") ? [nameIn(line)] : []));
  const rest = more.filter((line) => !line.startsWith("COLUMN "));
  const goes = rest.every((line) => line.startsWith("CONSTRAINT ") && columns.some((c) => mentions(line, c)));
  return columns.length > 0 && goes ? columns : null;
}

/** The name after `COLUMN`, as SQL quotes it. */
function nameIn(line: string): string {
  return /^COLUMN ("(?:[^"]|"")*"|\S+)/.exec(line)?.[1] ?? "";
}

function mentions(line: string, column: string): boolean {
  const at = line.indexOf(column);
  if (at < 0) return false;
  return column.startsWith('"') || new RegExp(`(?<![\\w$])${column}(?![\\w$])`).test(line);
}

// ---- what no definition covers

/** System catalogues whose whole content stands in a definition, or follows from what does. */
const COVERED = new Set([
  "pg_class",
  "pg_attribute",
  "pg_attrdef",
  "pg_type",
  "pg_enum",
  "pg_range",
  "pg_index",
  "pg_constraint",
  "pg_trigger",
  "pg_rewrite",
  "pg_policy",
  "pg_proc",
  "pg_sequence",
  "pg_inherits",
  "pg_partitioned_table",
  "pg_depend",
  "pg_shdepend",
  "pg_description",
  "pg_namespace",
  "pg_statistic",
]);

/** @throws TargetError ERR_TARGET_UNSUPPORTED when a catalogue was written that no definition shows. */
export function refuseUncovered(written: ReadonlyMap<string, number>): void {
  for (const name of written.keys()) {
    if (COVERED.has(name)) continue;
    const large = name.startsWith("pg_largeobject");
    throw unsupported(
      large ? "the job writes large objects" : `the job writes the system catalogue ${name}`,
      large
        ? "they are no rows of a table, and cannot be held or taken back"
        : "what it means is not among the things that a plan can show, so it could not be signed",
      "Take it out of the job, or make the change with your migration tool.",
    );
  }
}
