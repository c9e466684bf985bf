/** PostgreSQL as a target in tests: opened with what a test does not care about filled in, and its contents as one text. */
import { openPostgres, type PostgresOptions } from "../../src/adapters/postgres/index.js";
import type { Target } from "../../src/target/target.js";
import { connect, type TestClient } from "./postgres.js";
import { countingRandom, NOON } from "./sqlite.js";

/** Opens the database as the target `shop`. */
export function openPostgresTarget(url: string, options: Partial<PostgresOptions> = {}): Promise<Target> {
  return openPostgres({
    name: "shop",
    url,
    clock: NOON,
    random: countingRandom(),
    env: {},
    lockTimeoutMs: 400,
    statementTimeoutMs: 60_000,
    ...options,
  });
}

/**
 * Tables, columns, constraints, triggers and all rows of a database, sorted; the marker left out. Read over a plain
 * connection, so it is independent of the adapter.
 */
export async function dumpPostgres(url: string): Promise<string> {
  const client = await connect(url);
  try {
    return await dumpOver(client);
  } finally {
    await client.close();
  }
}

/** The same as an open connection sees it, inside its transaction if it has one. */
export async function dumpOver(client: TestClient): Promise<string> {
  await client.rows("SET search_path = pg_catalog");
  await client.rows("SET TimeZone = 'UTC'");
  const lines = (await client.rows(SCHEMA)).map((row) => row.join(" "));
  for (const [schema, table] of await client.rows(TABLES))
    lines.push(...(await contents(client, schema ?? "", table ?? "")));
  await client.rows("RESET search_path");
  return lines.join("\n");
}

const OWN = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relname !~ '^holdpoint_'";
const TABLES = `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND ${OWN} ORDER BY 1, 2`;
const SCHEMA = `SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND ${OWN}
  UNION ALL SELECT 'constraint', c.relname, k.conname, pg_get_constraintdef(k.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_constraint k ON k.conrelid = c.oid WHERE ${OWN}
  UNION ALL SELECT 'trigger', c.relname, concat(t.tgname, t.tgenabled), pg_get_triggerdef(t.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_trigger t ON t.tgrelid = c.oid
    WHERE NOT t.tgisinternal AND ${OWN}
  ORDER BY 1, 2, 3, 4`;

async function contents(client: TestClient, schema: string, table: string): Promise<readonly string[]> {
  const name = `"${schema.replaceAll('"', '""')}"."${table.replaceAll('"', '""')}"`;
  const rows = await client.rows(`SELECT t::text FROM ONLY ${name} AS t ORDER BY t::text COLLATE "C"`);
  return rows.map(([row]) => `${schema}.${table} ${row ?? ""}`);
}
