/** What a PostgreSQL database in use cannot hide: how large it is, how new its newest rows are, on which timeline it is. */
import type { Value } from "../../changeset/value.js";
import type { Newest, VitalColumn, Vitals } from "../../target/vitals.js";
import type { Session } from "./driver.js";
import { TIMELINE } from "./identify.js";
import { quote } from "./names.js";
import { type Catalogue, readCatalogue, type TableInfo } from "./schema.js";
import { columnOf, isInteger } from "./values.js";

/** `Target.vitals`. Reads only what every role may read, and named columns. */
export async function vitals(session: Session, newest: readonly VitalColumn[]): Promise<Vitals> {
  const [size, timeline] =
    (await session.row(`SELECT pg_database_size(current_database()), ${TIMELINE}`)) ?? [];
  const catalogue = newest.length === 0 ? null : await readCatalogue(session);
  const found: Newest[] = [];
  for (const column of newest) found.push(await newestOf(session, catalogue, column));
  return {
    sizeBytes: Number(size),
    newest: found,
    // One more after each promotion: of a standby that took over, and of a copy that somebody woke up.
    history: { timeline: timeline ?? "" },
    copies: {
      kind: "undecidable",
      by: "a copy of the data directory keeps the system identifier; its timeline differs once it was promoted",
    },
    signals: [],
  };
}

/** The server's answers that mean "not for this login" and "not in time": nothing is known, and nothing is wrong. */
const NOT_FOR_US = new Map([
  ["42501", "this login may not read it"],
  ["57014", "reading it took too long"],
]);

/** Only where an index begins with the column: asking who we are must not read a whole table. */
async function newestOf(
  session: Session,
  catalogue: Catalogue | null,
  { table, column }: VitalColumn,
): Promise<Newest> {
  const info = catalogue?.byName.get(table);
  if (info === undefined) return { kind: "not-read", why: `there is no table ${table}` };
  const found = info.columns.find((c) => c.name === column);
  if (found === undefined) return { kind: "not-read", why: `${table} has no column ${column}` };
  if (!(await indexBeginsWith(session, info, column)))
    return { kind: "not-read", why: `no index of ${table} begins with ${column}` };
  try {
    const cell = await session.value(`SELECT max(t.${quote(column)}) FROM ${info.from} AS t`);
    return { kind: "value", value: cell !== null && isInteger(found.type) ? BigInt(cell) : cell };
  } catch (e) {
    const why = NOT_FOR_US.get(codeOf(e));
    if (why === undefined) throw e;
    return { kind: "not-read", why };
  }
}

function codeOf(e: unknown): string {
  return typeof e === "object" && e !== null && "code" in e ? String(e.code) : "";
}

/** A partial index lists not all rows. */
async function indexBeginsWith(session: Session, info: TableInfo, column: string): Promise<boolean> {
  const count = await session.value(
    `SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
     WHERE i.indrelid = $1::oid AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree' AND a.attname = $2::name`,
    info.oid,
    column,
  );
  return count !== "0";
}

/** `Target.countByValue`. The engine chooses between the column's index and one pass over the table. */
export async function countByValue(
  session: Session,
  info: TableInfo,
  column: string,
  values: readonly Value[],
): Promise<readonly number[]> {
  const found = info.columns.find((c) => c.name === column);
  if (found === undefined) return values.map(() => 0);
  const name = `t.${quote(column)}`;
  const rows = await session.rows(
    `SELECT v.n, count(*) FROM
       (SELECT u.value::${found.type} AS value, u.n FROM unnest($1::text[]) WITH ORDINALITY AS u(value, n)) AS v
       JOIN ${info.from} AS t ON ${name} = v.value GROUP BY v.n`,
    columnOf(
      values.map((v) => [v]),
      0,
    ),
  );
  const counts = new Map(rows.map(([n, count]) => [Number(n) - 1, Number(count)]));
  const nulls = values.includes(null)
    ? Number(await session.value(`SELECT count(*) FROM ${info.from} AS t WHERE ${name} IS NULL`))
    : 0;
  return values.map((v, i) => (v === null ? nulls : (counts.get(i) ?? 0)));
}
