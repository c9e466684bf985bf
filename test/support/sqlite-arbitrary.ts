/**
 * Databases and jobs for the laws of the SQLite adapter: small tables with every feature that has ever made capture or
 * replay wrong, and statements that make them meet.
 */
import fc from "./fast-check.js";

/** One generated case. Its text can be pasted into the `sqlite3` shell. */
export interface SqliteCase {
  readonly foreignKeys: boolean;
  readonly wal: boolean;
  readonly setup: readonly string[];
  readonly job: readonly string[];
}

interface Feature {
  readonly table: string;
  readonly columns: readonly string[];
  readonly sql: readonly string[];
}

/** Columns that jobs write; keys come first. */
const TABLES: readonly Feature[] = [
  {
    table: "plain",
    columns: ["id", "a", "b"],
    sql: ["CREATE TABLE plain (id INTEGER PRIMARY KEY, a, b TEXT)"],
  },
  {
    table: "counted",
    columns: ["id", "a", "b"],
    sql: ["CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, a UNIQUE, b REAL)"],
  },
  {
    table: "named",
    columns: ["id", "a", "b"],
    sql: [
      "CREATE TABLE named (id TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, a, b TEXT UNIQUE ON CONFLICT REPLACE)",
    ],
  },
  {
    table: "loose",
    columns: ["id", "a", "b"],
    sql: ["CREATE TABLE loose (id TEXT PRIMARY KEY, a INTEGER, b)"],
  },
  {
    table: "pairs",
    columns: ["id", "a", "b"],
    sql: [
      "CREATE TABLE pairs (id, a, b TEXT COLLATE NOCASE, PRIMARY KEY (b, id)) WITHOUT ROWID",
      "CREATE UNIQUE INDEX pairs_a ON pairs (a) WHERE a IS NOT NULL",
    ],
  },
  { table: "heap", columns: ["id", "a", "b"], sql: ["CREATE TABLE heap (id, a, b)"] },
  {
    table: "wide",
    columns: ["id", "a", "b"],
    sql: [
      `CREATE TABLE wide (id INTEGER PRIMARY KEY, a, b, sum AS (a || b), "st ""ored" AS (id + 1) STORED UNIQUE)`,
      "CREATE UNIQUE INDEX wide_lower ON wide (lower(b))",
    ],
  },
  {
    table: "strict",
    columns: ["id", "a", "b"],
    sql: ["CREATE TABLE strict (id INT NOT NULL, a ANY, b ANY, PRIMARY KEY (id)) STRICT"],
  },
  {
    table: "tree",
    columns: ["id", "a", "b"],
    sql: [
      "CREATE TABLE tree (id INTEGER PRIMARY KEY, a INTEGER REFERENCES tree (id) ON DELETE CASCADE ON UPDATE CASCADE, b)",
    ],
  },
  {
    table: "child",
    columns: ["id", "a", "b"],
    sql: [
      "CREATE TABLE child (id INTEGER PRIMARY KEY, a INTEGER REFERENCES plain (id) ON DELETE CASCADE ON UPDATE SET NULL, b TEXT)",
    ],
  },
  {
    table: "late",
    columns: ["id", "a", "b"],
    sql: [
      "CREATE TABLE late (id INTEGER PRIMARY KEY, a INTEGER REFERENCES plain (id) DEFERRABLE INITIALLY DEFERRED, b TEXT)",
    ],
  },
  {
    table: "coded",
    columns: ["id", "a", "b"],
    sql: ["CREATE TABLE coded (id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE UNIQUE, b NUMERIC UNIQUE)"],
  },
  {
    table: "coding",
    columns: ["id", "a", "b"],
    sql: [
      "CREATE TABLE coding (id INTEGER PRIMARY KEY, a REFERENCES coded (a) ON DELETE CASCADE, b TEXT REFERENCES coded (b))",
    ],
  },
];

const TRIGGERS: readonly string[] = [
  "CREATE TRIGGER t1 AFTER DELETE ON plain BEGIN INSERT INTO heap VALUES (OLD.id, 'gone', OLD.b); END",
  "CREATE TRIGGER t2 AFTER UPDATE ON plain WHEN NEW.a IS NOT OLD.a BEGIN UPDATE plain SET b = b || '!' WHERE id = NEW.id; END",
  "CREATE TRIGGER t3 BEFORE INSERT ON named BEGIN DELETE FROM pairs WHERE b = NEW.id; END",
  "CREATE TRIGGER t4 AFTER INSERT ON heap BEGIN INSERT OR REPLACE INTO named VALUES (NEW.id || 'h', 1, NEW.b); END",
  "CREATE TRIGGER t5 BEFORE UPDATE ON counted WHEN NEW.a = 3 BEGIN SELECT RAISE(IGNORE); END",
  "CREATE TRIGGER t6 AFTER INSERT ON child WHEN NEW.b = 'x' BEGIN SELECT RAISE(IGNORE); END",
  "CREATE TRIGGER t7 AFTER DELETE ON child BEGIN UPDATE counted SET b = coalesce(b, 0) + 1; END",
];

/** Small numbers meet; hostile values hurt. */
const literalArbitrary: fc.Arbitrary<string> = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 5 }).map(String) },
  { weight: 3, arbitrary: fc.constantFrom("'a'", "'A'", "'b'", "'B'", "'x'", "'1'") },
  fc.constantFrom(
    "NULL",
    "''",
    "x''",
    "1.0",
    "2.5",
    "-0.0",
    "9223372036854775807",
    "1e999",
    "x'ff00'",
    "CAST(x'ff61' AS TEXT)",
    "'a' || char(0) || 'b'",
    "char(65533)",
  ),
);

const conflictArbitrary = fc.constantFrom("", "", "OR REPLACE ", "OR IGNORE ");

const conditionArbitrary: fc.Arbitrary<string> = fc.oneof(
  literalArbitrary.map((v) => `id = ${v}`),
  literalArbitrary.map((v) => `a = ${v}`),
  literalArbitrary.map((v) => `b >= ${v}`),
  fc.constant("1"),
  fc.constantFrom("id IN (1, 2)", "id IN ('a', 'b')", "a IS NULL"),
);

const expressionArbitrary: fc.Arbitrary<string> = fc.oneof(
  { weight: 3, arbitrary: literalArbitrary },
  fc.constantFrom(
    "id",
    "a",
    "b",
    "a + 1",
    "b || 'y'",
    "id + 1",
    "-id",
    "lower(id)",
    "upper(b)",
    "6 - id",
    "CASE a WHEN 1 THEN 2 ELSE 1 END",
  ),
);

function statementArbitrary(tables: readonly Feature[]): fc.Arbitrary<string> {
  const table = fc.constantFrom(...tables);
  const insert = fc
    .tuple(table, conflictArbitrary, fc.tuple(literalArbitrary, literalArbitrary, literalArbitrary))
    .map(
      ([t, conflict, values]) =>
        `INSERT ${conflict}INTO ${t.table} (${t.columns.join(", ")}) VALUES (${values.join(", ")})`,
    );
  const update = fc
    .tuple(table, conflictArbitrary, fc.constantFrom("id", "a", "b"), expressionArbitrary, conditionArbitrary)
    .map(
      ([t, conflict, column, value, where]) =>
        `UPDATE ${conflict}${t.table} SET ${column} = ${value} WHERE ${where}`,
    );
  const remove = fc
    .tuple(table, conditionArbitrary)
    .map(([t, where]) => `DELETE FROM ${t.table} WHERE ${where}`);
  const upsert = fc
    .tuple(table, literalArbitrary, literalArbitrary)
    .map(
      ([t, id, b]) =>
        `INSERT INTO ${t.table} (id, a, b) VALUES (${id}, NULL, ${b}) ON CONFLICT DO UPDATE SET b = excluded.b`,
    );
  const copy = fc
    .tuple(table, table)
    .map(([to, from]) => `INSERT OR REPLACE INTO ${to.table} (id, a, b) SELECT b, id, a FROM ${from.table}`);
  return fc.oneof(
    { weight: 3, arbitrary: insert },
    { weight: 4, arbitrary: update },
    { weight: 2, arbitrary: remove },
    upsert,
    copy,
  );
}

/** A database with some rows, and a job of up to five statements. Statements that fail are cut off by the test. */
export const caseArbitrary: fc.Arbitrary<SqliteCase> = fc
  .tuple(
    fc.shuffledSubarray([...TABLES], { minLength: 1, maxLength: 5 }),
    fc.boolean(),
    fc.boolean(),
    fc.subarray([...TRIGGERS]),
  )
  .chain(([chosen, foreignKeys, wal, triggers]) => {
    const names = new Set(chosen.map((t) => t.table));
    const parents =
      names.has("child") || names.has("late")
        ? TABLES.filter((t) => t.table === "plain" && !names.has("plain"))
        : [];
    const tables = [...parents, ...chosen];
    const there = new Set(tables.map((t) => t.table));
    const usable = triggers.filter((t) => mentioned(t).every((name) => there.has(name)));
    const rows = fc.array(
      fc
        .tuple(fc.constantFrom(...tables), fc.tuple(literalArbitrary, literalArbitrary, literalArbitrary))
        .map(
          ([t, values]) =>
            `INSERT OR IGNORE INTO ${t.table} (${t.columns.join(", ")}) VALUES (${values.join(", ")})`,
        ),
      { minLength: 3, maxLength: 16 },
    );
    return fc
      .tuple(rows, fc.array(statementArbitrary(tables), { minLength: 1, maxLength: 5 }))
      .map(([inserts, job]) => ({
        foreignKeys,
        wal,
        setup: [...tables.flatMap((t) => t.sql), ...inserts, ...usable],
        job,
      }));
  });

function mentioned(trigger: string): readonly string[] {
  return TABLES.map((t) => t.table).filter((name) => new RegExp(`\\b${name}\\b`).test(trigger));
}

/** The case as text for the `sqlite3` shell. */
export function pasteable(c: SqliteCase): string {
  const mode = c.wal ? ["PRAGMA journal_mode = WAL"] : [];
  return [
    ...mode,
    ...c.setup,
    `PRAGMA foreign_keys = ${c.foreignKeys ? "ON" : "OFF"}`,
    "BEGIN",
    ...c.job,
    "COMMIT",
  ].join(";\n");
}
