// The databases that the story is played on, as plain clients of them see them: nothing of holdpoint is used here.
import { randomBytes } from "node:crypto";
import { join } from "node:path";

/** A connection of the given kind. Its questions take `?` for a value, in order; whole numbers come back as numbers. */
export async function connectTo({ kind, at }) {
  return kind === "sqlite" ? connectSqlite(at) : connectPostgres(at);
}

async function connectSqlite(at) {
  const { default: Database } = await import("better-sqlite3");
  const db = new Database(at, { timeout: 300_000 });
  db.pragma("foreign_keys = ON");
  const known = new Map();
  const prepared = (sql) => {
    if (!known.has(sql)) known.set(sql, db.prepare(sql));
    return known.get(sql);
  };
  return {
    run: async (sql, ...values) => prepared(sql).run(...values).changes,
    rows: async (sql, ...values) =>
      prepared(sql)
        .raw(true)
        .all(...values),
    stream: async function* (sql) {
      yield* db.prepare(sql).raw(true).iterate();
    },
    begin: async () => void db.exec("BEGIN IMMEDIATE"),
    commit: async () => void db.exec("COMMIT"),
    rollback: async () => {
      if (db.inTransaction) db.exec("ROLLBACK");
    },
    exec: async (sql) => void db.exec(sql),
    close: async () => db.close(),
  };
}

async function connectPostgres(at) {
  const { default: pg } = await import("pg");
  const { default: Cursor } = await import("pg-cursor");
  const url = new URL(at.replace("@/", "@localhost/"));
  const client = new pg.Client({
    host: url.searchParams.get("host"),
    user: url.username,
    database: url.pathname.slice(1),
    types: { getTypeParser: (oid) => ([20, 23].includes(oid) ? Number : (text) => text) },
  });
  client.on("error", () => undefined);
  await client.connect();
  const numbered = (sql) => {
    let n = 0;
    return sql.replaceAll("?", () => `$${++n}`);
  };
  const ask = (sql, values) => client.query({ text: numbered(sql), values, rowMode: "array" });
  return {
    run: async (sql, ...values) => (await ask(sql, values)).rowCount ?? 0,
    rows: async (sql, ...values) => (await ask(sql, values)).rows,
    stream: async function* (sql) {
      const cursor = client.query(new Cursor(sql, [], { rowMode: "array" }));
      for (;;) {
        const rows = await cursor.read(5_000);
        if (rows.length === 0) return;
        yield* rows;
      }
    },
    begin: () => client.query("BEGIN"),
    commit: () => client.query("COMMIT"),
    rollback: () => client.query("ROLLBACK"),
    exec: (sql) => client.query(sql),
    close: () => client.end(),
  };
}

/** Makes production and staging on SQLite, in `dir`. */
export async function sqlitePlaces(dir) {
  return {
    kind: "sqlite",
    name: `SQLite ${String(await sqliteVersion())}`,
    make: async (name) => ({ kind: "sqlite", at: join(dir, `${name}.db`), url: `sqlite:${name}.db` }),
    types: ["INTEGER", "TEXT"],
    numbers: (n) =>
      `(WITH RECURSIVE c(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM c WHERE id < ${n}) SELECT id FROM c)`,
    before: "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF",
    after: "PRAGMA wal_checkpoint(TRUNCATE)",
    stop: async () => undefined,
  };
}

async function sqliteVersion() {
  const { default: Database } = await import("better-sqlite3");
  const db = new Database(":memory:");
  const version = db.prepare("SELECT sqlite_version()").pluck().get();
  db.close();
  return version;
}

/** The same on a PostgreSQL server of our own, which `stop` takes away; null where this machine has none. */
export async function postgresPlaces(support) {
  if (support.findServers().length === 0) return null;
  const server = await support.startServer({
    fsync: "on",
    full_page_writes: "on",
    shared_buffers: "256MB",
    max_wal_size: "8GB",
    autovacuum: "on",
  });
  return {
    kind: "postgres",
    name: `PostgreSQL ${server.version}`,
    make: async (name) => {
      const database = `${name.replaceAll("-", "_")}_${randomBytes(3).toString("hex")}`;
      await server.exec(server.url("postgres"), `CREATE DATABASE ${database}`);
      return { kind: "postgres", at: server.url(database), url: server.url(database) };
    },
    types: ["bigint", "text"],
    numbers: (n) => `generate_series(1::bigint, ${n}) AS c(id)`,
    before: "SELECT 1",
    after: "VACUUM ANALYZE",
    stop: () => server.stop(),
  };
}
