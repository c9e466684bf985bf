/** The common oracle over a PostgreSQL database: a seeded writer on a connection of its own, and what must be there in the end. */
import { type Cell, Journal, type Judgement, type Key, type Table } from "./oracle.js";
import { connect, type TestClient } from "./postgres.js";

/** Opens the writer and remembers the state as it is now. Close it in `finally`. Tables need a column `id`; cells are texts. */
export async function openOracle(url: string, tables: readonly string[], seed = 1): Promise<PostgresOracle> {
  const client = await connect(url);
  await client.rows("SET TimeZone = 'UTC'");
  return new PostgresOracle(client, tables, await read(client, tables), seed);
}

/** See {@link openOracle}. Keys are the texts of the ids. */
export class PostgresOracle extends Journal {
  readonly #client: TestClient;
  readonly #tables: readonly string[];

  constructor(
    client: TestClient,
    tables: readonly string[],
    before: ReadonlyMap<string, Table>,
    seed: number,
  ) {
    super(before, seed);
    this.#client = client;
    this.#tables = tables;
  }

  async set(table: string, key: Key, column: string, value: Cell): Promise<void> {
    await this.#client.rows(`UPDATE "${table}" SET "${column}" = $1 WHERE id = $2`, value, key);
    this.note({ op: "set", table, key: String(key), column, value: textOf(value) });
  }

  /** Inserts and gives the whole row as the server stored it, the id that a sequence gave out among it. */
  async insert(table: string, row: Readonly<Record<string, Cell>>): Promise<Record<string, Cell>> {
    const names = Object.keys(row).map((name) => `"${name}"`);
    const places = names.map((_, i) => `$${i + 1}`);
    const sql = `INSERT INTO "${table}" AS t (${names.join(", ")}) VALUES (${places.join(", ")}) RETURNING ${AS_JSON}`;
    const [stored] = await this.#client.rows(sql, ...Object.values(row));
    const whole = parsed(stored?.[0] ?? "{}");
    this.note({ op: "insert", table, key: whole["id"] ?? "", row: whole });
    return whole;
  }

  async remove(table: string, key: Key): Promise<void> {
    await this.#client.rows(`DELETE FROM "${table}" WHERE id = $1`, key);
    this.note({ op: "remove", table, key: String(key) });
  }

  /** Runs something that is no legitimate write: the damage. */
  async raw(sql: string): Promise<readonly (readonly (string | null)[])[]> {
    return await this.#client.rows(sql);
  }

  async judge(): Promise<Judgement> {
    return this.compare(await read(this.#client, this.#tables), await orphans(this.#client));
  }

  async close(): Promise<void> {
    await this.#client.close();
  }
}

/** Every cell as the text that the server gives, so that no number is rounded on the way. */
const AS_JSON = "(SELECT json_object_agg(key, value) FROM json_each_text(row_to_json(t)))";

async function read(client: TestClient, tables: readonly string[]): Promise<ReadonlyMap<string, Table>> {
  const found = new Map<string, Table>();
  for (const table of tables) {
    const rows = await client.rows(`SELECT id, ${AS_JSON} FROM "${table}" AS t`);
    found.set(table, new Map(rows.map(([id, row]) => [id ?? "", parsed(row ?? "{}")])));
  }
  return found;
}

function parsed(json: string): Record<string, Cell> {
  // json_each_text gives texts and nulls, nothing else.
  return JSON.parse(json) as Record<string, string | null>;
}

function textOf(value: Cell): Cell {
  return typeof value === "number" ? String(value) : value;
}

const REFERENCES = `SELECT conrelid::regclass::text, confrelid::regclass::text,
    (SELECT attname FROM pg_attribute WHERE attrelid = conrelid AND attnum = conkey[1]),
    (SELECT attname FROM pg_attribute WHERE attrelid = confrelid AND attnum = confkey[1])
  FROM pg_constraint WHERE contype = 'f' AND cardinality(conkey) = 1`;

async function orphans(client: TestClient): Promise<number> {
  let count = 0;
  for (const [child, parent, from, to] of await client.rows(REFERENCES)) {
    const sql = `SELECT count(*) FROM ${child ?? ""} c WHERE c."${from ?? ""}" IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM ${parent ?? ""} p WHERE p."${to ?? ""}" = c."${from ?? ""}")`;
    count += Number((await client.rows(sql))[0]?.[0]);
  }
  return count;
}
