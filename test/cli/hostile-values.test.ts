/**
 * Names, values and words that are escapes, commands or marks somewhere: on every screen, in Markdown, JSON, SQL, file names and
 * the ledger. Nothing of them acts: screens hold no control character, documents parse, and the rows come out as they are.
 */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import Database from "better-sqlite3";
import { dumpOf, makeProject, type TestProject } from "../support/project.js";

const TABLE = 'items"; DROP TABLE kept;--\u001b[2J';
const COLUMN = "note\u202e`$(touch pwned)`|<script>";
const VALUES = [
  "\u001b]0;owned\u0007\u001b[31m",
  "a\u202eb\u2066c",
  "line\r\nnext | cell `code` <b>",
  "'; DROP TABLE kept; --",
  "$(touch pwned); rm -rf / `id`",
  "__proto__",
  "x".repeat(20_000),
  "=HYPERLINK(1)",
];
const WORDS = "why \u001b[2J\u202e $(touch pwned) `x` | <b> '; --";
/** Everything that a terminal could act on, or that turns text around. */
const ACTIVE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\u2028\u2029]/;

const q = (name: string): string => `"${name.replaceAll('"', '""')}"`;
let project: TestProject;
let run: string;
let plan: string;
let before: string;

beforeAll(() => {
  project = makeProject({
    schema: `CREATE TABLE kept (id INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1);
      CREATE TABLE ${q(TABLE)} (id INTEGER PRIMARY KEY, ${q(COLUMN)} TEXT)`,
  });
  const db = new Database(project.database);
  const insert = db.prepare(`INSERT INTO ${q(TABLE)} VALUES (?, ?)`);
  VALUES.forEach((value, i) => insert.run(i + 1, value));
  // Text that no character set holds, and a NUL inside.
  db.exec(
    `INSERT INTO ${q(TABLE)} VALUES (100, CAST(x'ff00fe1b5b324a' AS TEXT)), (101, CAST(x'610062' AS TEXT))`,
  );
  db.close();
  before = dumpOf(project.database);
  plan = project.plan(`UPDATE ${q(TABLE)} SET ${q(COLUMN)} = ${q(COLUMN)} || '\u001b[5m' WHERE id < 50`, [
    "--reason",
    WORDS,
  ]);
  project.approve(plan, "ravi", ["--cover-undo", "24h", "--reason", "fine"]);
  const applied = project.json(["apply", plan, "--confirm", "shop-prod"]);
  expect([applied.error, applied.result["rows"]]).toMatchObject([null, { written: VALUES.length }]);
  run = String(applied.result["run"]);
});
afterAll(() => project.close());

describe("what is shown", () => {
  test.each<readonly [string, () => readonly string[]]>([
    ["a plan", () => ["show", plan]],
    ["its rows", () => ["show", plan, "--rows"]],
    ["its Markdown", () => ["show", plan, "--format", "markdown"]],
    ["a question in SQL", () => ["show", plan, "--sql", `SELECT * FROM ${q(TABLE)}`]],
    ["a run", () => ["log", "show", run]],
    ["the log", () => ["log"]],
    ["the status", () => ["status"]],
    ["who touched a row", () => ["log", "who", "--on", "shop-prod", "--table", TABLE, "--key", "1"]],
    [
      "an unknown table",
      () => ["log", "who", "--on", "shop-prod", "--table", `${TABLE}\u001b[1m`, "--key", "1"],
    ],
    ["an unknown target", () => ["env", "check", `shop\u001b[2J${WORDS}`]],
    ["an unknown plan", () => ["show", `pl_\u001b[2J${WORDS}`]],
    ["an unknown command", () => [`\u001b[2J${WORDS}`]],
    ["an unknown job", () => ["plan", `jobs/\u001b[2J${WORDS}.sql`, "--on", "shop-prod"]],
    ["a rescue", () => ["rescue", "--on", "shop-prod", "--where", `\u001b[2J${WORDS}`]],
  ])("%s holds nothing that acts", (_, args) => {
    const { stdout, stderr } = project.run(args());
    expect(stdout + stderr).not.toMatch(ACTIVE);
    expect((stdout + stderr).length).toBeGreaterThan(20);
  });

  test("JSON is one document that gives the values back", () => {
    const shown = project.json(["show", plan, "--rows"]);
    expect(shown.ok).toBe(true);
    expect(JSON.stringify(shown)).toContain(JSON.stringify(VALUES[3]).slice(1, -1));
  });
});

test("the way back gives every value back, and nothing else was touched", () => {
  const undone = project.json(["undo", run, "--confirm", "shop-prod"]);
  expect([undone.error, undone.result["counts"]]).toMatchObject([null, { put_back: VALUES.length }]);
  expect(dumpOf(project.database)).toBe(before);
  expect(project.run(["log", "verify"]).status).toBe(0);
  expect(project.run(["--version"]).status).toBe(0);
});
