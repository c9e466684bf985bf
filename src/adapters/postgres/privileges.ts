/**
 * What the role of a session may do, asked of the server privilege by privilege: what `docs/postgres.md` lists, and what is
 * more than that. Each is answered with the exact statement that would give it.
 */
import type { PrivilegeCheck, RolePrivileges, RoleUse } from "../../target/target.js";
import { demandsOf, type Named } from "./demands.js";
import type { Session } from "./driver.js";
import { literal, qualified, quote } from "./names.js";
import { type Catalogue, readCatalogue, type TableInfo } from "./schema.js";
import { FEEDING } from "./sequences.js";
import { reactionsOf } from "./silence.js";

/** One privilege to ask for: the question in SQL, and the statement that gives it. */
interface Question {
  readonly use: RoleUse;
  /** What it is on, as it stands behind ON: `public.orders`, `DATABASE shop`. Null for one that is on nothing. */
  readonly on: string | null;
  /** `SELECT`; null where the statement stands alone. */
  readonly privilege: string | null;
  readonly sql: string;
  readonly needed: boolean;
  readonly without: string;
  /** The whole statement where it is not `GRANT privilege ON on TO role`. */
  readonly grant?: string;
}

/** Where `GRANT … ON PARAMETER` and the function that asks for it begin. */
const PARAMETERS_FROM = 150_000;
const ROWS = ["SELECT", "INSERT", "UPDATE", "DELETE"] as const;
const MARKS = ["holdpoint_marker", "holdpoint_spent", "holdpoint_batches", "holdpoint_notes"] as const;

/** `Target.privileges`. Reads only, and only what every role may read. */
export async function privileges(
  session: Session,
  uses: readonly RoleUse[],
  tables: readonly string[],
  statements: readonly string[],
): Promise<RolePrivileges> {
  const [role = "", superuser, version, database = ""] =
    (await session.row(
      `SELECT current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
         current_setting('server_version_num'), current_database()`,
    )) ?? [];
  const to = quote(role ?? "");
  if (superuser === "t") return { role: role ?? "", checks: [], beyond: ["it is a superuser"] };
  const catalogue = await readCatalogue(session);
  const meant = await meantTables(session, catalogue, tables);
  const pinned = (await session.value(`SELECT ${oidSql("public", "holdpoint_marker")}`)) !== null;
  const [writes, isReading] = [uses.includes("write"), uses.every((u) => u === "look")];
  const asked = [
    ...always(uses[0] ?? "look", database ?? "", pinned),
    ...(uses.includes("rehearse") ? rehearsing(database ?? "", await extensionSchema(session)) : []),
    ...(await ofTables(session, meant, uses)),
    ...(isReading ? [] : await demanded(session, catalogue, statements, writes ? "write" : "rehearse")),
    ...(isReading ? [] : await silencing(session, catalogue, meant, Number(version), writes)),
    ...(writes && pinned ? marks() : []),
  ];
  const checks = grouped(asked, await answers(session, asked), to);
  return { role: role ?? "", checks, beyond: await beyond(session, uses) };
}

/** Those that are named; else those that the role can do something to, because nobody says which are meant. */
async function meantTables(
  session: Session,
  catalogue: Catalogue,
  names: readonly string[],
): Promise<readonly TableInfo[]> {
  if (names.length > 0) return names.flatMap((n) => catalogue.byName.get(n) ?? []);
  const some = await session.rows(
    `SELECT c.oid FROM pg_class c WHERE c.relkind IN ('r', 'p')
       AND has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')`,
  );
  const oids = new Set(some.map(([oid]) => oid));
  return catalogue.tables.filter((t) => oids.has(t.oid));
}

// --- what is asked ----------------------------------------------------------------------------------

function always(use: RoleUse, database: string, pinned: boolean): readonly Question[] {
  const base = { use, needed: true } as const;
  return [
    {
      ...base,
      on: `DATABASE ${quote(database)}`,
      privilege: "CONNECT",
      sql: `has_database_privilege(${literal(database)}, 'CONNECT')`,
      without: "no command can connect",
    },
    {
      ...base,
      on: "SCHEMA public",
      privilege: "USAGE",
      sql: "has_schema_privilege('public', 'USAGE')",
      without: "the target cannot say who it is",
    },
    ...(pinned ? MARKS : []).map((mark) => ({
      ...base,
      on: `public.${mark}`,
      privilege: "SELECT",
      sql: tableSql("public", mark, "SELECT"),
      without: "the target cannot say who it is and what was spent there",
    })),
  ];
}

function rehearsing(database: string, extension: string | null): readonly Question[] {
  const optional = { use: "rehearse", on: null, privilege: null, needed: false } as const;
  const visibility = {
    ...optional,
    without: "a rehearsal reads every table that a job wrote whole",
    grant: `${extension === null ? "CREATE EXTENSION pg_visibility; " : ""}GRANT pg_stat_scan_tables TO %role;`,
  };
  return [
    {
      use: "rehearse",
      on: `DATABASE ${quote(database)}`,
      privilege: "TEMPORARY",
      sql: `has_database_privilege(${literal(database)}, 'TEMPORARY')`,
      needed: true,
      without: "plan refuses: nothing can be planted that keeps the job from committing",
    },
    {
      ...optional,
      sql: "pg_has_role('pg_monitor', 'USAGE')",
      without: "how far replicas are behind while a job is rehearsed cannot be read",
      grant: "GRANT pg_monitor TO %role;",
    },
    {
      ...visibility,
      sql:
        extension === null
          ? "false"
          : `has_schema_privilege(${literal(extension)}, 'USAGE') AND has_function_privilege(${MAP_FUNCTION}, 'EXECUTE')`,
    },
  ];
}

async function ofTables(
  session: Session,
  tables: readonly TableInfo[],
  uses: readonly RoleUse[],
): Promise<readonly Question[]> {
  const [use = "look"] = (["look", "rehearse", "write"] as const).filter((u) => uses.includes(u));
  const [writer = use] = (["rehearse", "write"] as const).filter((u) => uses.includes(u));
  const writes = writer !== "look";
  const schemas = [...new Set(tables.map((t) => t.schema))].filter((s) => s !== "public");
  const held = writes ? await feeding(session, tables) : [];
  return [
    ...schemas.map((schema) => ({
      use,
      on: `SCHEMA ${quote(schema)}`,
      privilege: "USAGE",
      sql: `has_schema_privilege(${literal(schema)}, 'USAGE')`,
      needed: true,
      without: "nothing in it can be read or written",
    })),
    ...tables.flatMap((t) =>
      (writes ? ROWS : (["SELECT"] as const)).map((privilege) => ({
        use: privilege === "SELECT" ? use : writer,
        on: qualified(t.schema, t.relation),
        privilege,
        sql: tableSql(t.schema, t.relation, privilege),
        needed: true,
        without: "jobs and runs that touch it are refused",
      })),
    ),
    ...held.flatMap((numbering) => [
      sequence({
        use: writer,
        sequence: numbering,
        privilege: "SELECT",
        without: "runs with rows that it numbers are refused",
      }),
      // Numbers of an identity column are given out whoever inserts.
      ...(uses.includes("rehearse") && !numbering.identity
        ? [
            sequence({
              use: "rehearse",
              sequence: numbering,
              privilege: "USAGE",
              without: "jobs that insert are refused",
            }),
          ]
        : []),
      ...(uses.includes("write")
        ? [
            sequence({
              use: "write",
              sequence: numbering,
              privilege: "UPDATE",
              needed: false,
              without: "a run is refused whose rows have numbers that it has not reached",
            }),
          ]
        : []),
    ]),
  ];
}

/** What jobs demand beyond rows, of the tables that are there. */
async function demanded(
  session: Session,
  catalogue: Catalogue,
  statements: readonly string[],
  use: RoleUse,
): Promise<readonly Question[]> {
  const { truncated, altered } = await demandsOf(statements);
  const meant = (names: readonly Named[]): readonly TableInfo[] =>
    catalogue.tables.filter((t) =>
      names.some((n) => n.name === t.relation && (n.schema === null || n.schema === t.schema)),
    );
  const changed = meant(altered);
  const owned = await session.rows(
    "SELECT oid, pg_get_userbyid(relowner) FROM pg_class WHERE oid = ANY ($1)",
    changed.map((t) => t.oid),
  );
  const owners = new Map(owned.map(([oid, owner]) => [oid, owner ?? ""]));
  return [
    ...meant(truncated).map((t) => ({
      use,
      on: qualified(t.schema, t.relation),
      privilege: "TRUNCATE",
      sql: tableSql(t.schema, t.relation, "TRUNCATE"),
      needed: true,
      without: "a job of holdpoint.yaml that truncates it is refused",
    })),
    ...changed.map((t) => ({
      use,
      on: null,
      privilege: null,
      sql: `pg_has_role((SELECT relowner FROM pg_class WHERE oid = ${oidSql(t.schema, t.relation)}), 'USAGE')`,
      needed: true,
      without: `a job of holdpoint.yaml that changes the schema of ${qualified(t.schema, t.relation)} is refused`,
      grant: `GRANT ${quote(owners.get(t.oid) ?? "")} TO %role;`,
    })),
  ];
}

function sequence(of: {
  readonly use: RoleUse;
  readonly sequence: FeedingSequence;
  readonly privilege: string;
  readonly without: string;
  readonly needed?: boolean;
}): Question {
  const { sequence: at, ...rest } = of;
  const sql = `has_sequence_privilege(${oidSql(at.schema, at.name)}, ${literal(of.privilege)})`;
  return { needed: true, ...rest, on: `SEQUENCE ${qualified(at.schema, at.name)}`, sql };
}

/** A sequence that numbers rows of a table. */
interface FeedingSequence {
  readonly schema: string;
  readonly name: string;
  readonly identity: boolean;
}

async function feeding(session: Session, tables: readonly TableInfo[]): Promise<readonly FeedingSequence[]> {
  const rows = await session.rows(
    `SELECT DISTINCT f.nspname, f.relname, EXISTS (SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
           JOIN pg_namespace n ON n.oid = c.relnamespace WHERE d.classid = 'pg_class'::regclass
         AND n.nspname = f.nspname AND c.relname = f.relname AND d.deptype = 'i')
       FROM (${FEEDING}) AS f (relid, "column", nspname, relname, step) ORDER BY 1, 2`,
    tables.map((t) => t.oid),
  );
  return rows.map(([schema, name, identity]) => ({
    schema: schema ?? "",
    name: name ?? "",
    identity: identity === "t",
  }));
}

/**
 * To write tables on which something reacts takes the right to keep it silent; a rehearsal of the way back does without, and
 * says that it was none.
 */
async function silencing(
  session: Session,
  catalogue: Catalogue,
  tables: readonly TableInfo[],
  version: number,
  writes: boolean,
): Promise<readonly Question[]> {
  const reactions = await reactionsOf(session, catalogue, new Set(tables.map((t) => t.name)));
  const [first] = reactions.all;
  if (first === undefined) return [];
  const more = reactions.all.length - 1;
  const loud = `${first}${more > 0 ? ` and ${more} more` : ""} would take effect twice`;
  const isOld = version < PARAMETERS_FROM;
  return [
    {
      use: writes ? "write" : "rehearse",
      on: null,
      privilege: null,
      sql: isOld ? "false" : "has_parameter_privilege('session_replication_role', 'SET')",
      needed: writes,
      without: writes ? `apply and undo refuse: ${loud}` : `the way back is not rehearsed: ${loud}`,
      grant: isOld
        ? "ALTER ROLE %role SUPERUSER; -- before version 15 there is no GRANT for it"
        : "GRANT SET ON PARAMETER session_replication_role TO %role;",
    },
  ];
}

/** The function that tells of all pages of a table. */
const MAP_FUNCTION = `(SELECT p.oid FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
    JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
  WHERE e.extname = 'pg_visibility' AND p.proname = 'pg_visibility_map' AND p.pronargs = 1)`;

/** What a run, a hold, a rejection leaves in the target. */
function marks(): readonly Question[] {
  const mark = (name: string, privilege: string): Question => ({
    use: "write",
    on: `public.${name}`,
    privilege,
    sql: tableSql("public", name, privilege),
    needed: true,
    without: "apply and undo refuse: what was done could not be marked",
  });
  const columns = ["ledger_sequence", "ledger_head"];
  const head = columns.map(
    (c) => `has_column_privilege(${oidSql("public", "holdpoint_marker")}, ${literal(c)}, 'UPDATE')`,
  );
  return [
    mark("holdpoint_spent", "INSERT"),
    mark("holdpoint_batches", "INSERT"),
    mark("holdpoint_batches", "DELETE"),
    mark("holdpoint_notes", "INSERT"),
    {
      ...mark("holdpoint_marker", `UPDATE (${columns.join(", ")})`),
      sql: head.join(" AND "),
    },
  ];
}

function tableSql(schema: string, name: string, privilege: string): string {
  return `has_table_privilege(${oidSql(schema, name)}, ${literal(privilege)})`;
}

/** By number: whoever lacks the schema may not even name what is in it. */
function oidSql(schema: string, name: string): string {
  return `(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ${literal(schema)} AND c.relname = ${literal(name)})`;
}

async function extensionSchema(session: Session): Promise<string | null> {
  return await session.value(
    "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_visibility'",
  );
}

// --- what is answered -------------------------------------------------------------------------------

/** Questions of one round trip. */
const AT_ONCE = 200;

async function answers(session: Session, asked: readonly Question[]): Promise<readonly boolean[]> {
  const found: boolean[] = [];
  for (let at = 0; at < asked.length; at += AT_ONCE) {
    const part = asked.slice(at, at + AT_ONCE);
    // One row each: a row has only so many columns.
    const rows = await session.rows(part.map((q, i) => `SELECT ${i}, ${q.sql}`).join(" UNION ALL "));
    const held = new Map(rows.map(([i, is]) => [Number(i), is === "t"]));
    found.push(...part.map((_, i) => held.get(i) === true));
  }
  return found;
}

/** One line for each thing that privileges are on: what is held together, what is missing with one statement. */
function grouped(asked: readonly Question[], held: readonly boolean[], to: string): PrivilegeCheck[] {
  const groups = new Map<
    string,
    { readonly first: Question; readonly privileges: string[]; held: boolean }
  >();
  for (const [i, q] of asked.entries()) {
    const is = held[i] === true;
    const key = JSON.stringify([q.use, q.on ?? q.grant, is, q.needed]);
    const group = groups.get(key) ?? { first: q, privileges: [], held: is };
    if (q.privilege !== null && !group.privileges.includes(q.privilege)) group.privileges.push(q.privilege);
    groups.set(key, group);
  }
  return [...groups.values()].map(({ first, privileges: names, held: is }) => ({
    use: first.use,
    what:
      first.on === null
        ? (first.grant ?? "").replace(/^.*GRANT | TO %role.*$/gs, "")
        : `${names.join(", ")} on ${first.on}`,
    held: is,
    without: first.without,
    needed: first.needed,
    grant: first.grant?.replaceAll("%role", to) ?? `GRANT ${names.join(", ")} ON ${first.on ?? ""} TO ${to};`,
  }));
}

/**
 * What no rehearsal needs: a role that only looks writes no table, and one that rehearses writes no marks. That the role of
 * a rehearsal in place may write the tables of its jobs is needed: they run there, and are rolled back.
 */
async function beyond(session: Session, uses: readonly RoleUse[]): Promise<readonly string[]> {
  if (uses.includes("write")) return [];
  const isOwn = "n.nspname = 'public' AND c.relname LIKE 'holdpoint\\_%'";
  const which = uses.includes("rehearse") ? isOwn : "true";
  const rows = await session.rows(
    `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND ${which}
       AND (has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege(c.oid, 'INSERT, UPDATE'))
     ORDER BY 1`,
  );
  const [first] = rows;
  if (first === undefined) return [];
  const more = rows.length - 1;
  return [`it may write ${first[0] ?? ""}${more > 0 ? ` and ${more} more` : ""}`];
}
