/**
 * Constraints that wait for the COMMIT, made to speak before it. The server names the constraint and no row of ours, so the
 * written rows that stand in another's way are looked for, by what the constraint itself compares.
 */
import { codeOf, messageOf } from "../../base/errors.js";
import { afterOf, type Change, type ChangeSource } from "../../changeset/change.js";
import type { WriteProblem } from "../../target/target.js";
import { isConstraint, type Session } from "./driver.js";
import { quote, shownName } from "./names.js";
import { batches, keyMatch, unnested } from "./read.js";
import type { Catalogue, TableInfo } from "./schema.js";
import { columnOf } from "./values.js";

/** Rows looked at in one query. */
const BATCH = 1_000;
/** How many rows are named; more say nothing new. */
const NAMED = 100;

/**
 * Makes them speak. What they object to is taken back to where they wait again.
 * @returns the rows that stand in another's way; of a reference only its table, see `foreign-keys.ts`.
 */
export async function checkDeferred(
  session: Session,
  catalogue: Catalogue,
  source: ChangeSource,
): Promise<readonly WriteProblem[]> {
  await session.run("SAVEPOINT holdpoint_deferred");
  try {
    await session.run("SET CONSTRAINTS ALL IMMEDIATE");
    await session.run("RELEASE SAVEPOINT holdpoint_deferred");
    return [];
  } catch (e) {
    if (!isConstraint(e)) throw e;
    await session.run("ROLLBACK TO SAVEPOINT holdpoint_deferred");
    const [message, named] = [messageOf(e), namedBy(e)];
    const table = named === null ? "" : shownName(named.schema, named.table);
    if (codeOf(e) === "23503" || named === null) return [{ kind: "foreign-key", table, message }];
    const found = await standingInTheWay(session, catalogue, source, named);
    if (found.length > 0) return found.map((change) => ({ kind: "constraint", change, message }));
    return withoutRow(source, table, message);
  }
}

/** Nothing tells which row it is: that is said, and not guessed. */
function withoutRow(source: ChangeSource, table: string, message: string): readonly WriteProblem[] {
  const tables = source.tables.filter((t) => table === "" || t.name === table);
  for (const { name } of tables.length > 0 ? tables : source.tables)
    for (const change of source.changes(name))
      return [{ kind: "constraint", change, message: `${message} (this row or another of ${name})` }];
  return [{ kind: "foreign-key", table, message }];
}

/** What the server's error names. */
interface Named {
  readonly schema: string;
  readonly table: string;
  readonly constraint: string;
}

function namedBy(e: unknown): Named | null {
  if (typeof e !== "object" || e === null) return null;
  const { schema, table, constraint }: { schema?: unknown; table?: unknown; constraint?: unknown } = e;
  if (typeof schema !== "string" || typeof table !== "string" || typeof constraint !== "string") return null;
  return { schema, table, constraint };
}

/** What the constraint compares: null where that is an expression. */
interface Compared {
  readonly table: TableInfo;
  /** Column and operator, as SQL. */
  readonly pairs: readonly (readonly [column: string, operator: string])[];
  /** Whether two NULLs are in each other's way. */
  readonly nullsToo: boolean;
}

/**
 * The table (a partition's root), the columns' names, and the operators: an exclusion names its own, of a unique index it is
 * the equality of the column's operator class.
 */
const CONSTRAINT = `SELECT coalesce(pg_partition_root(k.conrelid)::oid, k.conrelid),
    (SELECT json_agg(a.attname ORDER BY c.place) FROM unnest(k.conkey) WITH ORDINALITY AS c(attnum, place)
      LEFT JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.attnum),
    (SELECT json_agg('OPERATOR(' || quote_ident(n.nspname) || '.' || o.oprname || ')' ORDER BY p.place)
      FROM unnest(coalesce(k.conexclop, ARRAY(
          SELECT am.amopopr FROM unnest(i.indclass::oid[]) WITH ORDINALITY AS c(opclass, place)
            JOIN pg_opclass oc ON oc.oid = c.opclass
            JOIN pg_amop am ON am.amopfamily = oc.opcfamily AND am.amopstrategy = 3
              AND am.amoplefttype = oc.opcintype AND am.amoprighttype = oc.opcintype
          WHERE c.place <= i.indnkeyatts ORDER BY c.place))) WITH ORDINALITY AS p(op, place)
        JOIN pg_operator o ON o.oid = p.op JOIN pg_namespace n ON n.oid = o.oprnamespace),
    coalesce(to_jsonb(i) ->> 'indnullsnotdistinct', 'false')
  FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid JOIN pg_namespace s ON s.oid = r.relnamespace
    JOIN pg_index i ON i.indexrelid = k.conindid
  WHERE k.contype IN ('p', 'u', 'x') AND s.nspname = $1 AND r.relname = $2 AND k.conname = $3`;

async function comparedBy(session: Session, catalogue: Catalogue, named: Named): Promise<Compared | null> {
  const row = await session.row(CONSTRAINT, named.schema, named.table, named.constraint);
  if (row === undefined) return null;
  const [oid, columns, operators, nulls] = row;
  const table = [...catalogue.byName.values()].find((t) => t.oid === oid);
  const names = texts(columns ?? null);
  const compared = texts(operators ?? null);
  if (table === undefined || names.length === 0 || names.length !== compared.length) return null;
  const pairs = names.map((name, i) => [quote(name), compared[i] ?? "="] as const);
  return { table, pairs, nullsToo: nulls === "true" };
}

/** Empty where one of them is none: the column of an expression. */
function texts(json: string | null): readonly string[] {
  const list: unknown = JSON.parse(json ?? "[]");
  if (!Array.isArray(list) || !list.every((item) => typeof item === "string")) return [];
  return list;
}

async function standingInTheWay(
  session: Session,
  catalogue: Catalogue,
  source: ChangeSource,
  named: Named,
): Promise<readonly Change[]> {
  const compared = await comparedBy(session, catalogue, named);
  const shape = source.tables.find((t) => t.name === compared?.table.name);
  if (compared === null || shape === undefined || shape.keyKind === "none") return [];
  const { table } = compared;
  const columns = shape.key.flatMap((i) => table.columns.slice(i, i + 1));
  const keys = unnested(
    columns,
    columns.map((_, i) => `k${i}`),
    1,
  );
  const sql = `SELECT k.n FROM ${keys} JOIN ${table.from} AS t ON ${keyMatch(table, shape, "t", "k")}
    WHERE EXISTS (SELECT 1 FROM ${table.from} AS o WHERE (o.tableoid, o.ctid) <> (t.tableoid, t.ctid)
      AND ${sameIn(compared)}) ORDER BY k.n`;
  const found: Change[] = [];
  for (const batch of batches(present(source.changes(shape.name)), BATCH)) {
    const values = columns.map((_, i) =>
      columnOf(
        batch.map((c) => c.key),
        i,
      ),
    );
    for (const [n] of await session.rows(sql, ...values))
      found.push(...batch.slice(Number(n) - 1, Number(n)));
    if (found.length >= NAMED) break;
  }
  return found.slice(0, NAMED);
}

function sameIn({ pairs, nullsToo }: Compared): string {
  return pairs
    .map(([column, operator]) => {
      const equal = `o.${column} ${operator} t.${column}`;
      return nullsToo ? `(${equal} OR (num_nulls(o.${column}) + num_nulls(t.${column})) = 2)` : equal;
    })
    .join(" AND ");
}

function* present(changes: Iterable<Change>): Generator<Change, undefined> {
  for (const change of changes) if (afterOf(change) !== null) yield change;
}
