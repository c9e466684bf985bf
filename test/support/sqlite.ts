/** Real SQLite files for tests: made, changed and read by a plain connection of the test's own, beside the adapter's. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { openSqlite, type SqliteOptions } from "../../src/adapters/sqlite/index.js";
import type { Target } from "../../src/target/target.js";

/** Noon, every time it is asked. */
export const NOON = { now: (): Date => new Date("2026-11-22T12:00:00Z") };

/** Bytes that count up, so that names of scratch folders differ. */
export function countingRandom(): (size: number) => Uint8Array {
  let n = 0;
  return (size) => {
    n++;
    return Uint8Array.from({ length: size }, (_, i) =>
      i === 0 ? n % 256 : i === 1 ? Math.floor(n / 256) : 7,
    );
  };
}

/** Opens `path` as a target with what a test does not care about filled in. */
export function openTarget(
  path: string,
  folder: string,
  options: Partial<SqliteOptions> = {},
): Promise<Target> {
  return openSqlite({
    name: "shop",
    path,
    foreignKeys: true,
    clock: NOON,
    random: countingRandom(),
    scratchDir: join(folder, "scratch"),
    busyMs: 200,
    ...options,
  });
}

/** Runs SQL on a file as any program would, foreign keys as asked. */
export function runRaw(path: string, sql: string, foreignKeys = false): void {
  const db = new Database(path);
  try {
    db.pragma(`foreign_keys = ${foreignKeys ? "ON" : "OFF"}`);
    db.exec(sql);
  } finally {
    db.close();
  }
}

/** One cell of a query. */
export function askRaw(path: string, sql: string): unknown {
  const db = new Database(path);
  try {
    return db.prepare(sql).pluck().get();
  } finally {
    db.close();
  }
}

/**
 * Schema and rows as sorted text, the types and bytes of values visible; our own tables left out. `sequences`: whether
 * the counters of AUTOINCREMENT count too.
 */
export function dump(path: string, sequences = true): string {
  const db = new Database(path);
  try {
    const objects = db
      .prepare<[], { type: string; name: string; sql: string | null }>(
        "SELECT type, name, sql FROM sqlite_schema ORDER BY rowid",
      )
      .all()
      .filter((o) => !o.name.startsWith("holdpoint_") && !o.name.startsWith("sqlite_"));
    const tables = [
      ...objects.filter((o) => o.type === "table").map((o) => o.name),
      ...(sequences ? sequenceTable(db) : []),
    ];
    return [
      ...objects.map((o) => `${o.name}: ${o.sql ?? ""}`),
      ...tables.flatMap((name) => rowsOf(db, name)),
    ].join("\n");
  } finally {
    db.close();
  }
}

function sequenceTable(db: Database.Database): readonly string[] {
  return db
    .prepare("SELECT name FROM sqlite_schema WHERE name = 'sqlite_sequence'")
    .pluck()
    .all()
    .map(String);
}

function rowsOf(db: Database.Database, table: string): readonly string[] {
  const quoted = `"${table.replaceAll('"', '""')}"`;
  const columns = db
    .prepare<[string], { name: string }>("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1")
    .all(table);
  const cells = columns.map(({ name }) => `"${name.replaceAll('"', '""')}"`);
  const shown = cells.map(
    (c) => `typeof(${c}) || ':' || CASE typeof(${c}) WHEN 'text' THEN hex(${c}) ELSE quote(${c}) END`,
  );
  const rows = db
    .prepare(`SELECT ${shown.join(" || ' ' || ")} FROM ${quoted}`)
    .pluck()
    .all()
    .map(String);
  // A counter at 0 has given out nothing: the engine makes one for an INSERT of no rows too.
  const counted = rows.filter((row) => table !== "sqlite_sequence" || !row.endsWith(" integer:0"));
  return counted.sort().map((row) => `${table} ${row}`);
}

/** The bytes of a database and of what may lie beside it. Only while nobody has it open. */
export function fileDigests(path: string): Readonly<Record<string, string>> {
  const files = ["", "-wal", "-journal"].filter((suffix) => existsSync(path + suffix));
  return Object.fromEntries(
    files.map((suffix) => [
      suffix,
      createHash("sha256")
        .update(readFileSync(path + suffix))
        .digest("hex"),
    ]),
  );
}
