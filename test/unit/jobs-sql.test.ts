/** SQL files: how they are cut, what is refused with its line, and how parameters meet the text. */
import { describe, expect, test } from "@jest/globals";
import Database from "better-sqlite3";
import { digestOf } from "../../src/base/digest.js";
import { isSpecProblem, parameterSpec, type ParameterSpecs } from "../../src/jobs/parameters.js";
import { loadSqlJob, refusalOf, type SqlJob } from "../../src/jobs/sql-file.js";
import { splitSql } from "../../src/jobs/sql-tokens.js";
import { refusal, refusalLine } from "../support/refusal.js";

function load(
  sql: string | Uint8Array,
  given: readonly string[] = [],
  specs: ParameterSpecs | null = null,
): SqlJob {
  const bytes = typeof sql === "string" ? Buffer.from(sql) : sql;
  return loadSqlJob(bytes, { name: "purge", file: "jobs/purge.sql", specs, given });
}

const TRIGGER = `CREATE TEMP TRIGGER t AFTER UPDATE ON a BEGIN
  UPDATE b SET x = CASE WHEN new.x > 1 THEN 1 ELSE 2 END;
  INSERT INTO c VALUES (CASE new.y WHEN 1 THEN 'END;' END); -- END;
END`;

describe("cut into statements", () => {
  const cut = (sql: string): readonly (readonly [number, string])[] =>
    splitSql(sql).flatMap((p) => (p.tokens.length > 0 ? [[p.line, p.text] as const] : []));

  test.each<[string, string, readonly (readonly [number, string])[]]>([
    [
      "two statements",
      "DELETE FROM a;\nDELETE FROM b;\n",
      [
        [1, "DELETE FROM a"],
        [2, "DELETE FROM b"],
      ],
    ],
    [
      "the last without semicolon",
      "DELETE FROM a;\n\nDELETE FROM b",
      [
        [1, "DELETE FROM a"],
        [3, "DELETE FROM b"],
      ],
    ],
    [
      "two on a line",
      "DELETE FROM a; DELETE FROM b;",
      [
        [1, "DELETE FROM a"],
        [1, "DELETE FROM b"],
      ],
    ],
    [
      "comments before it do not count as its line",
      "-- one;\n/* two;\n */ DELETE FROM a;",
      [[3, "DELETE FROM a"]],
    ],
    [
      "CRLF",
      "DELETE FROM a;\r\nDELETE FROM b;\r\n",
      [
        [1, "DELETE FROM a"],
        [2, "DELETE FROM b"],
      ],
    ],
    ["a semicolon in text", "UPDATE a SET x = 'it''s; ok';", [[1, "UPDATE a SET x = 'it''s; ok'"]]],
    [
      "a semicolon in each kind of name",
      'DELETE FROM "a;""b"; DELETE FROM `a;``b`; DELETE FROM [a;"b];',
      [
        [1, 'DELETE FROM "a;""b"'],
        [1, "DELETE FROM `a;``b`"],
        [1, 'DELETE FROM [a;"b]'],
      ],
    ],
    [
      "text over lines",
      "UPDATE a SET x = '1\n;\n2';\nDELETE FROM b",
      [
        [1, "UPDATE a SET x = '1\n;\n2'"],
        [4, "DELETE FROM b"],
      ],
    ],
    [
      "a comment in a comment",
      "DELETE FROM a /* /* ; */; DELETE FROM b -- ;\n;",
      [
        [1, "DELETE FROM a"],
        [1, "DELETE FROM b"],
      ],
    ],
    [
      "a quote in a comment",
      "DELETE FROM a -- it's\n;DELETE FROM b",
      [
        [1, "DELETE FROM a"],
        [2, "DELETE FROM b"],
      ],
    ],
    [
      "a trigger is one",
      `${TRIGGER};\nDELETE FROM d;`,
      [
        [1, TRIGGER],
        [5, "DELETE FROM d"],
      ],
    ],
    ["a trigger at the end", TRIGGER, [[1, TRIGGER]]],
    [
      "a column called end",
      "CREATE TABLE t(end_ TEXT); UPDATE t SET end_ = 1;",
      [
        [1, "CREATE TABLE t(end_ TEXT)"],
        [1, "UPDATE t SET end_ = 1"],
      ],
    ],
    ["empty statements", ";;\n ; DELETE FROM a;;", [[2, "DELETE FROM a"]]],
    [
      "names beyond ASCII",
      "DELETE FROM größe; DELETE FROM 数;",
      [
        [1, "DELETE FROM größe"],
        [1, "DELETE FROM 数"],
      ],
    ],
    [
      "blobs and numbers",
      "INSERT INTO a VALUES (x'3b', 0x3b, 1e-5, 1_000);",
      [[1, "INSERT INTO a VALUES (x'3b', 0x3b, 1e-5, 1_000)"]],
    ],
  ])("%s", (_, sql, wanted) => {
    expect(cut(sql)).toEqual(wanted);
    expect(
      splitSql(sql)
        .map((p) => p.source)
        .join(""),
    ).toBe(sql);
  });

  test("as SQLite itself cuts them", () => {
    const sql = `CREATE TABLE a(x); CREATE TABLE b(x); CREATE TABLE c(x); CREATE TABLE [d;](x);\n${TRIGGER.replace("new.y", "new.x").replace("TEMP ", "")};\nINSERT INTO a VALUES(1);UPDATE a SET x = 2; INSERT INTO [d;] VALUES('-- ;');`;
    const [whole, parts] = [new Database(":memory:"), new Database(":memory:")];
    try {
      whole.exec(sql);
      for (const [, text] of cut(sql)) parts.prepare(text).run();
      for (const table of ["a", "b", "c", "[d;]"]) {
        expect(parts.prepare(`SELECT * FROM ${table}`).all()).toEqual(
          whole.prepare(`SELECT * FROM ${table}`).all(),
        );
      }
    } finally {
      whole.close();
      parts.close();
    }
  });
});

describe("refused with its line", () => {
  test.each<[string, string, number, string]>([
    ["BEGIN", "DELETE FROM a;\n\nbegin;", 3, "BEGIN is refused: holdpoint opens the transaction"],
    ["COMMIT behind a comment", "/* x */ -- y\n COMMIT;", 2, "COMMIT is refused"],
    ["END", "END;", 1, "END is refused"],
    ["ROLLBACK", "ROLLBACK;", 1, "ROLLBACK is refused"],
    ["SAVEPOINT", "SAVEPOINT x;", 1, "SAVEPOINT is refused"],
    ["RELEASE", "RELEASE x;", 1, "RELEASE is refused"],
    ["START TRANSACTION", "START TRANSACTION;", 1, "START is refused"],
    ["ATTACH", "Attach 'x.db' AS x;", 1, "ATTACH is refused: a job works on the one database"],
    ["DETACH", "DETACH x;", 1, "DETACH is refused"],
    ["VACUUM", "VACUUM INTO 'x.db';", 1, "VACUUM is refused"],
    ["PRAGMA", "PRAGMA writable_schema = 1;", 1, "PRAGMA is refused"],
    ["ANALYZE", "ANALYZE;", 1, "ANALYZE is refused"],
    ["EXPLAIN", "EXPLAIN DELETE FROM a;", 1, "EXPLAIN is refused"],
    ["EXPLAIN of a trigger", `EXPLAIN ${TRIGGER};`, 1, "EXPLAIN is refused"],
    ["load_extension", "SELECT 1,\n load_extension ('x');", 1, "load_extension is refused"],
    ["another language", "DELETE FROM a;\nGO\n", 2, '"GO" begins no statement of a job'],
    ["a dot-command", "DELETE FROM a;\n.read it's.sql\n", 2, "a dot-command belongs to the sqlite3 shell"],
    ["a psql command", "DELETE FROM a;\n\\copy a from b\n", 2, "a backslash is a command of psql"],
    ["a psql variable", "DELETE FROM a\nWHERE x = :'name';", 2, "a variable of psql is refused"],
    ["a psql name", 'DELETE FROM :"t";', 1, "a variable of psql is refused"],
    ["a positional parameter", "DELETE FROM a WHERE x = ?;", 1, "a positional parameter (?) is refused"],
    ["a numbered parameter", "DELETE FROM a WHERE x = ?1;", 1, "a positional parameter (?) is refused"],
    ["a PostgreSQL parameter", "DELETE FROM a WHERE x = $1;", 1, "$ begins no parameter"],
    ["a Tcl parameter", "DELETE FROM a WHERE x = $a(b);", 1, "$ begins no parameter"],
    ["a Tcl name space", "DELETE FROM a WHERE x = $a::b;", 1, "$ begins no parameter"],
    ["a parameter beyond ASCII", "DELETE FROM a WHERE x = :größe;", 1, ": begins no parameter"],
    [
      "an open quote",
      "DELETE FROM a;\nUPDATE a SET x = 'abc;\n",
      2,
      "a quote is opened with ' and never closed",
    ],
    ["an open bracket name", "DELETE FROM [a;", 1, "a quote is opened with [ and never closed"],
    ["an open comment", "DELETE FROM a; /* x", 1, "a comment is opened with /* and never closed"],
    ["an open parenthesis", "DELETE FROM a WHERE (x = 1;\nDELETE FROM b;", 1, "a ( is never closed"],
    ["a parenthesis too many", "DELETE FROM a WHERE x = 1);", 1, "a ) closes nothing"],
    ["a trigger without END", `${TRIGGER.slice(0, -4)};\nDELETE FROM b;`, 1, "the trigger's body has no END"],
    [
      "a statement behind a hidden line break",
      "-- safe\rDELETE FROM a;\n",
      1,
      "a line break that SQLite does not see",
    ],
    ["the same by U+2028", "-- safe\u2028DELETE FROM a;\n", 1, "a line break that SQLite does not see"],
    ["reordered text", "/* \u202e */ DELETE FROM a;\n", 1, "reorders text"],
    ["a keyword that only looks like one", "\u017fELECT 1;", 1, "begins no statement of a job"],
  ])("%s", async (_, sql, line, wanted) => {
    const e = await refusal(() => load(sql));
    expect([e.code, e.message]).toEqual([
      "ERR_JOB_STATEMENT",
      `jobs/purge.sql:${line} cannot stand in a job`,
    ]);
    expect(e.why).toContain(wanted);
  });

  test.each<[string, string | Uint8Array, string]>([
    ["an empty file", "", "jobs/purge.sql has no statement | an empty job is refused"],
    ["comments alone", "-- nothing\n/* at all */;\n", "jobs/purge.sql has no statement"],
    ["NUL", "DELETE FROM a\n\0 WHERE x = 1;", "jobs/purge.sql:2 has a NUL character"],
    ["bytes that are no UTF-8", Uint8Array.of(0x2d, 0x2d, 0xff), "some of its bytes are not UTF-8"],
    ["UTF-16", Uint8Array.of(0xff, 0xfe, 0x2d, 0), "it is written in UTF-16: save it as UTF-8"],
  ])("%s is no job", async (_, sql, wanted) => {
    const line = await refusalLine(() => load(sql));
    expect(line).toContain("ERR_JOB_INVALID");
    expect(line).toContain(wanted);
  });

  test("none of the words inside text, names or comments", () => {
    const sql = `INSERT INTO "commit" VALUES ('BEGIN; ROLLBACK', ';'); -- PRAGMA x;\nUPDATE [vacuum] SET "begin" = 1 WHERE "end" = 2;`;
    expect(load(sql).statements).toHaveLength(2);
  });

  test("one statement at a time, as a module hands them over", () => {
    expect(refusalOf("DELETE FROM a WHERE x = :x;")).toBeNull();
    expect(refusalOf("DELETE FROM a; DELETE FROM b")).toBe("it has more than one statement");
    expect(refusalOf(" -- \n")).toBe("it has no statement");
    expect(refusalOf("commit")).toContain("COMMIT is refused");
  });
});

describe("selective", () => {
  test.each<[boolean, string]>([
    [true, "DELETE FROM a WHERE x = 1"],
    [false, "DELETE FROM a"],
    [false, "UPDATE a SET x = 1"],
    [false, "UPDATE a SET x = (SELECT y FROM b WHERE b.id = a.id)"],
    [false, "DELETE FROM a RETURNING x"],
    [false, "DELETE FROM a WHERE 1"],
    [false, "DELETE FROM a WHERE true OR 1 = 1"],
    [false, "DELETE FROM a WHERE 'a' = 'a' RETURNING x"],
    [false, "DELETE FROM a WHERE :days"],
    [true, 'DELETE FROM a WHERE "x" IN (1)'],
    [true, "DELETE FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.id = a.id)"],
    [false, "WITH w AS (SELECT id FROM b WHERE x = 1) DELETE FROM a"],
    [true, "WITH w AS (SELECT id FROM b) DELETE FROM a WHERE id IN (SELECT id FROM w)"],
    [false, "WITH replace AS (SELECT 1) DELETE FROM a"],
    [true, "INSERT INTO a VALUES (1) ON CONFLICT DO UPDATE SET x = 1"],
    [true, "INSERT INTO a SELECT * FROM b"],
    [true, "DROP TABLE a"],
    [true, TRIGGER],
    [false, "DELETE FROM b WHERE x = 1; UPDATE a SET x = 1"],
  ])("%s: %s", (wanted, sql) => {
    expect(load(sql, sql.includes(":days") ? ["days=1"] : []).selective).toBe(wanted);
  });
});

describe("parameters in the text", () => {
  const days = parameterSpec({ type: "integer", minimum: 30 });
  const specs: ParameterSpecs = isSpecProblem(days) ? {} : { days };

  test("each statement gets what it uses, whatever its sigil, and nothing from quotes or comments", () => {
    const job = load(
      "DELETE FROM a WHERE x < :days;\n-- :no\nDELETE FROM b WHERE y = @who AND z < $days AND t = ':nor';",
      ["days=40", "who=dana"],
    );
    expect(job.statements.map((s) => [s.line, s.values])).toEqual([
      [1, { days: 40n }],
      [3, { days: 40n, who: "dana" }],
    ]);
  });

  test("the digest is of the bytes, byte order mark included", () => {
    const bytes = Buffer.from("\ufeffSELECT 1;");
    expect(load(bytes).source).toBe(digestOf(bytes));
    expect(load(bytes).statements[0]?.text).toBe("SELECT 1");
  });

  test.each<[string, string, readonly string[], ParameterSpecs | null, string]>([
    [
      "used and not given",
      "DELETE FROM a\nWHERE x < :days;",
      [],
      null,
      "purge needs days | jobs/purge.sql:1 uses it: add --set days=VALUE",
    ],
    [
      "given and not used",
      "DELETE FROM a;",
      ["days=40"],
      null,
      "no statement of jobs/purge.sql uses the parameter days | it uses none",
    ],
    [
      "used and not declared",
      "SELECT 1;\nDELETE FROM a WHERE x < :days AND y = :who;",
      ["days=40"],
      specs,
      "jobs/purge.sql:2 uses :who, which purge does not declare",
    ],
    [
      "declared and not used",
      "DELETE FROM a;",
      ["days=40"],
      specs,
      "no statement of jobs/purge.sql uses the parameter days",
    ],
    [
      "declared and not given",
      "DELETE FROM a WHERE x < :days;",
      [],
      specs,
      "purge needs days | days wants a whole number like 30, at least 30",
    ],
    ["of another case", "DELETE FROM a WHERE x < :Days;", ["days=40"], null, "purge needs Days"],
  ])("%s: refused", async (_, sql, given, declared, wanted) => {
    const line = await refusalLine(() => load(sql, given, declared));
    expect(line).toContain("ERR_JOB_PARAMETER");
    expect(line).toContain(wanted);
  });
});
