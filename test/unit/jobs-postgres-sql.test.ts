/** SQL files for PostgreSQL: cut where the server cuts, with every kind of quote, and refused by line. */
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { POSTGRES } from "../../src/jobs/postgres-tokens.js";
import { loadSqlJob } from "../../src/jobs/sql-file.js";
import { splitSql } from "../../src/jobs/sql-tokens.js";
import { refusal, refusalLine } from "../support/refusal.js";

const load = (text: string, given: readonly string[] = []): ReturnType<typeof loadSqlJob> =>
  loadSqlJob(Buffer.from(text), { name: "job", file: "job.sql", specs: null, given, engine: "postgres" });
const texts = (sql: string): readonly string[] => load(sql).statements.map((s) => `${s.line}: ${s.text}`);

describe("an SQL file for PostgreSQL", () => {
  test.each([
    [
      "dollar quotes",
      "DO $$ BEGIN DELETE FROM a; END $$;\nDELETE FROM b",
      ["1: DO $$ BEGIN DELETE FROM a; END $$", "2: DELETE FROM b"],
    ],
    [
      "tagged dollar quotes",
      "SELECT $a$ ; $$ ; $b$ ; $a$; SELECT 1",
      ["1: SELECT $a$ ; $$ ; $b$ ; $a$", "1: SELECT 1"],
    ],
    ["a dollar inside a name", "SELECT a$b$c; SELECT 2", ["1: SELECT a$b$c", "1: SELECT 2"]],
    [
      "escape strings",
      "SELECT E'it\\'s; \\\\'; SELECT e'\\\\'; SELECT 1",
      ["1: SELECT E'it\\'s; \\\\'", "1: SELECT e'\\\\'", "1: SELECT 1"],
    ],
    [
      "escape strings that go on in the next line",
      "SELECT E'a' \n '\\';'; SELECT 1",
      ["1: SELECT E'a' \n '\\';'", "2: SELECT 1"],
    ],
    [
      "plain strings, where a backslash is itself",
      "SELECT 'c:\\'; SELECT 1",
      ["1: SELECT 'c:\\'", "1: SELECT 1"],
    ],
    ["nested comments", "/* a /* ; */ ; */ SELECT 1 -- ;\n; SELECT 2", ["1: SELECT 1", "2: SELECT 2"]],
    [
      "quoted names",
      'SELECT ";" FROM "a""; b"; SELECT U&"\\0061;"',
      ['1: SELECT ";" FROM "a""; b"', '1: SELECT U&"\\0061;"'],
    ],
    [
      "bit and other strings",
      "SELECT B'1', X'ff', N'x;', U&'\\0061;'; SELECT 1",
      ["1: SELECT B'1', X'ff', N'x;', U&'\\0061;'", "1: SELECT 1"],
    ],
  ])("%s", (_, sql, expected) => {
    expect(texts(sql)).toEqual(expected);
  });

  test("parameters, and what only looks like one", () => {
    const job = load(
      "UPDATE a SET b = :b::text, c = d::int, e = ':x', f = $$ :y $$, g = E'\\':z' WHERE h := :n /* :c */ -- :d",
      ["b=x", "n=1"],
    );
    expect(job.statements[0]?.values).toEqual({ b: "x", n: 1n });
  });

  test.each([
    ["SELECT 1;\n\\d", "job.sql:2", "psql"],
    ["SELECT :'x'", "job.sql:1", "psql"],
    ['SELECT :"x"', "job.sql:1", "psql"],
    ["SELECT :{?x}", "job.sql:1", "psql"],
    ["SELECT E'a' -- x\n '\\''", "job.sql:1", "behind a comment"],
    ["SELECT $1", "job.sql:1", "positional"],
    ["SELECT :a$b$;a$b$;", "job.sql:1", "letters, digits"],
    ["SELECT 'open", "job.sql:1", "never closed"],
    ["SELECT E'open\\'", "job.sql:1", "never closed"],
    ["SELECT $$ open $ $", "job.sql:1", "never closed"],
    ["/* /* */ SELECT 1", "job.sql:1", "never closed"],
    ["SELECT 1;\nBEGIN", "job.sql:2", "BEGIN is refused"],
    ["PREPARE TRANSACTION 'x'", "job.sql:1", "PREPARE is refused"],
    ["COPY a FROM PROGRAM 'x'", "job.sql:1", "COPY is refused"],
    ["SET search_path = x", "job.sql:1", "SET is refused"],
    ["REINDEX TABLE a", "job.sql:1", "REINDEX is refused"],
    ["\\copy a from 'x'", "job.sql:1", "psql"],
    ["\\set x 1\nSELECT 1", "job.sql:1", "psql"],
    ["PRAGMA x", "job.sql:1", "begins no statement"],
    ["DELETE FROM a -- x\u2028 WHERE id = 1", "job.sql:1", "line break"],
  ])("%j is refused at %s: %s", async (sql, at, why) => {
    const line = await refusalLine(() => load(sql));
    expect(line).toContain(at);
    expect(line).toContain(why);
  });

  test("TRUNCATE chooses no rows, and an UPDATE with a WHERE does", () => {
    expect([
      load("TRUNCATE a").selective,
      load("UPDATE a SET b = 1 WHERE c = 2").selective,
      load("DELETE FROM a").selective,
    ]).toEqual([false, true, false]);
  });

  test("an empty file is refused", async () => {
    expect((await refusal(() => load("-- nothing"))).code).toBe("ERR_JOB_INVALID");
  });

  test("law: where the engine's own scanner sees a semicolon, so do we", async () => {
    const { loadModule, scanSync } = await import("libpg-query");
    await loadModule();
    const scanned = (text: string): ReturnType<typeof scanSync>["tokens"] | null => {
      try {
        return scanSync(text).tokens;
      } catch {
        return null;
      }
    };
    const bits = [
      "'",
      '"',
      "$$",
      "$a$",
      "$",
      "/*",
      "*/",
      "--",
      "\n",
      "\r",
      ";",
      "\\",
      "E'",
      "e",
      "U&'",
      "U&",
      "B'",
      "N'",
      "_",
      ":a",
      "::",
      ":=",
      ":",
      "x",
      "1",
      " ",
      "+",
      "*",
      "/",
      "-",
      "''",
      "é",
    ];
    const whole = [
      "/*;/*;*/;*/",
      "E'\\';'",
      "$a$;$a$",
      "$$;$$",
      "a$b$;",
      "'\\';",
      '";"',
      "--;\n",
      "--;\r",
      ";",
      "U&'\\;'",
      "1;",
      "é$;",
      "E'a'\n'\\';'",
      "'a'\n'\\';",
    ];
    const anyBit = fc.oneof(fc.constantFrom(...bits), fc.constantFrom(...whole));
    fc.assert(
      fc.property(fc.array(anyBit, { minLength: 1, maxLength: 8 }), (parts) => {
        const text = parts.join("");
        const ours = [...POSTGRES.tokens(text)];
        if (ours.some((t) => t.kind === "bad")) return;
        const bytes = Buffer.from(text);
        const starts = (found: readonly { readonly start: number }[]): number[] => found.map((t) => t.start);
        const semicolons = ours.filter((t) => t.kind === "symbol" && t.text === ";");
        const all = scanned(text);
        if (all === null) return; // What the engine cannot scan, the adapter refuses before anything runs.
        const theirs = all.filter((t) => t.text === ";");
        expect(starts(semicolons)).toEqual(theirs.map((t) => bytes.toString("utf8", 0, t.start).length));
      }),
      { numRuns: 40_000 },
    );
  });

  test("law: the pieces of any text, joined, are the text", () => {
    const bits = [
      "'",
      '"',
      "$$",
      "$a$",
      "/*",
      "*/",
      "--",
      "\n",
      ";",
      "\\",
      "E'",
      ":a",
      "::",
      "x",
      " ",
      "(",
      ")",
      "$1",
      "é",
      "\u2028",
    ];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...bits), { maxLength: 30 }), (parts) => {
        const text = parts.join("");
        expect(
          splitSql(text, POSTGRES)
            .map((p) => p.source)
            .join(""),
        ).toBe(text);
      }),
    );
  });
});
