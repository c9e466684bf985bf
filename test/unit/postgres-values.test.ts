/** Every type of a real server goes into a plan and comes back exactly, as does every name that is allowed. */
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { compareKeys } from "../../src/changeset/key.js";
import { invert } from "../../src/changeset/invert.js";
import type { Target } from "../../src/target/target.js";
import { decodeCopy } from "../../src/adapters/postgres/values.js";
import { onPostgres } from "../support/on-postgres.js";
import { type TestServer } from "../support/postgres.js";
import { dumpPostgres, openPostgresTarget } from "../support/postgres-target.js";
import { refusal } from "../support/refusal.js";
import { applyAll, rehearseAll, sqlJob } from "../support/rehearsing.js";

const TYPES = `
  CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s "fine", \\n');
  CREATE TYPE pair AS (a integer, b text);
  CREATE DOMAIN positive AS numeric CHECK (VALUE > 0);
  CREATE DOMAIN tags AS text[];`;

/** Type, then SQL literals. */
const VALUES: readonly (readonly [string, ...string[]])[] = [
  ["smallint", "-32768", "32767"],
  ["integer", "-2147483648", "0"],
  ["bigint", "-9223372036854775808", "9223372036854775807", "9007199254740993"],
  [
    "numeric",
    "'NaN'",
    "'Infinity'",
    "'-Infinity'",
    "1.50",
    "1.5",
    "'123456789012345678901234567890.000000000000000001'",
    "-0.00",
  ],
  ["numeric(10,3)", "1.5", "-0"],
  ["real", "'NaN'", "'-Infinity'", "0.1", "3.4028235e38", "'-0'", "1e-45"],
  [
    "double precision",
    "'NaN'",
    "'Infinity'",
    "0.1",
    "'-0'",
    "5e-324",
    "1.7976931348623157e308",
    "123456789.123456789",
  ],
  ["money", "'$1,234.56'", "'-$0.01'"],
  ["boolean", "true", "false"],
  [
    "text",
    "''",
    "'it''s'",
    "E'tab\\tnew\\nline\\\\back'",
    "'\\N'",
    "'ünï😀'",
    "repeat('x', 70000)",
    "E'\\u2028'",
  ],
  ["varchar(5)", "'ab  '", "''"],
  ["char(5)", "'ab'", "''"],
  ['"char"', "'x'", "''"],
  ["name", "'a name'"],
  ["bytea", "'\\x'", "'\\x00ff5c27'"],
  ["date", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'2026-02-28'", "'12345-01-01'"],
  ["time", "'24:00:00'", "'12:34:56.789012'"],
  ["timetz", "'12:34:56.789012+05:30'"],
  ["timestamp", "'infinity'", "'0001-01-01 00:00:00 BC'", "'2026-11-22 12:00:00.000001'"],
  ["timestamptz", "'-infinity'", "'4713-01-01 00:00:00+00 BC'", "'2026-11-22 12:00:00.123456+02'"],
  ["interval", "'1 year 2 mons -3 days 04:05:06.7'", "'-00:00:00.000001'", "'0'", "'30 days'", "'1 mon'"],
  ["integer[]", "'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[5:6]={7,8}'"],
  ["text[]", "'{}'", "ARRAY['', 'NULL', NULL, 'a,b', 'q\"q', E'b\\\\s']"],
  ["mood", "'sad'", "E'it''s \"fine\", \\\\n'"],
  ["mood[]", "'{sad,ok}'"],
  ["pair", "ROW(1, 'x,y')", "ROW(NULL, NULL)", "ROW(NULL, '')"],
  ["pair[]", "ARRAY[ROW(1, 'a\"b')::pair]"],
  ["positive", "0.10"],
  ["tags", "'{a,b}'"],
  ["int4range", "'[1,5)'", "'empty'", "'(,)'"],
  ["tstzrange", "'[2026-01-01 00:00+00,infinity]'"],
  ["int4multirange", "'{}'", "'{[1,2),[5,7)}'"],
  ["json", '\'{"b":1, "a" : [1,2] , "b":2}\'', "'null'"],
  ["jsonb", '\'{"b":1, "a":1.500}\'', "'null'", "'\"\\\\u00e9\"'"],
  ["jsonpath", "'$.a[*]'"],
  ["uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"],
  ["inet", "'10.0.0.1'", "'10.0.0.1/8'", "'::1'"],
  ["cidr", "'10.0.0.0/8'"],
  ["macaddr", "'08:00:2b:01:02:03'"],
  ["bit(5)", "B'10101'"],
  ["bit varying", "B''", "B'101'"],
  ["xml", "'<a b=\"c\">x</a>'"],
  ["tsvector", "'a:1A fat:2 ''it''''s''':: tsvector"],
  ["tsquery", "'a & !b'"],
  ["point", "'(1.5,-0)'"],
  ["box", "'(1,2),(3,4)'"],
  ["polygon", "'((0,0),(1,1),(2,0))'"],
  ["circle", "'<(0,0),1>'"],
  ["oid", "4294967295"],
  ["regclass", "'pg_class'", "'shown'"],
  ["pg_lsn", "'16/B374D848'"],
];

onPostgres("values on PostgreSQL", "first", (ofRun) => {
  let server: TestServer;
  let url: string;
  let target: Target;

  beforeAll(async () => {
    server = ofRun();
    url = await server.freshDatabase();
    await server.exec(url, TYPES, "CREATE TABLE shown (id integer PRIMARY KEY)");
    target = await openPostgresTarget(url);
  });
  afterAll(async () => {
    await target?.close();
  });

  test.each(VALUES.map((row) => [row[0], row.slice(1)] as const))(
    "%s comes and goes exactly",
    async (type, literals) => {
      const rows = literals.map((l, i) => `(${i}, (${l})::${type})`).join(", ");
      await server.exec(
        url,
        "DROP TABLE IF EXISTS typed, untyped",
        `CREATE TABLE typed (id integer PRIMARY KEY, v ${type}, other text)`,
        `CREATE TABLE untyped (v ${type})`,
        `INSERT INTO typed (id, v) VALUES ${rows}, (-1, NULL)`,
        "INSERT INTO untyped SELECT v FROM typed",
      );
      const before = await dumpPostgres(url);
      const { effect } = await rehearseAll(
        target,
        sqlJob(
          "INSERT INTO typed SELECT id + 100, v, 'copied' FROM typed",
          "UPDATE typed SET v = NULL WHERE id BETWEEN 0 AND 50",
          "UPDATE typed SET v = (SELECT v FROM typed WHERE id = 100) WHERE id = -1",
          "DELETE FROM untyped",
        ),
      );
      expect(await applyAll(target, effect)).toMatchObject({ problems: [], wrong: [] });
      expect(await applyAll(target, invert(effect))).toMatchObject({ problems: [], wrong: [] });
      expect(await dumpPostgres(url)).toBe(before);
    },
  );

  const KEYS: readonly (readonly [string, string])[] = [
    ["text", "SELECT i::text || chr(200 + i) FROM generate_series(1, 60) i"],
    [
      'text COLLATE "en-x-icu"',
      "SELECT v FROM unnest(ARRAY['a', 'B', 'ä', 'Z', 'z', 'é', '-', 'A', '😀', '\uffee']) v",
    ],
    ["char(4)", "SELECT v FROM unnest(ARRAY['a', 'ab', 'B', E'a\\t', '']) v"],
    ["numeric", "SELECT v FROM unnest(ARRAY[10, 9, 1.50, -3, 'NaN']::numeric[]) v"],
    ["uuid", "SELECT md5(i::text)::uuid FROM generate_series(1, 30) i"],
    [
      "timestamptz",
      "SELECT '2026-01-01 00:00+00'::timestamptz + i * interval '1 h' FROM generate_series(1, 30) i",
    ],
    ["boolean", "SELECT v FROM unnest(ARRAY[true, false]) v"],
    ["mood", "SELECT v FROM unnest(enum_range(NULL::mood)) v"],
    ["bytea", "SELECT decode(md5(i::text), 'hex') FROM generate_series(1, 30) i"],
    ["inet", "SELECT ('10.0.0.' || i)::inet FROM generate_series(1, 30) i"],
    ["positive", "SELECT i * 0.5 FROM generate_series(1, 30) i"],
    ["integer[]", "SELECT ARRAY[i, -i] FROM generate_series(1, 30) i"],
    ["interval", "SELECT i * interval '1 h' FROM generate_series(1, 30) i"],
    ["smallint", "SELECT i - 15 FROM generate_series(1, 30) i"],
  ];
  test.each(KEYS)("keys of %s are read in key order, found by key, and written", async (type, source) => {
    await server.exec(
      url,
      "DROP TABLE IF EXISTS keyed",
      `CREATE TABLE keyed (k ${type} PRIMARY KEY, note text)`,
      `INSERT INTO keyed ${source.replace(/^SELECT (.*) FROM (unnest|generate)/, "SELECT $1, 'n' FROM $2")}`,
    );
    const before = await dumpPostgres(url);
    const shape = (await target.schema()).tables.find((t) => t.name === "keyed");
    if (shape === undefined) throw new Error("no table keyed");
    const keys = [];
    for await (const row of target.scan(shape)) keys.push([row[0] ?? null]);
    expect(keys).toEqual([...keys].sort(compareKeys));
    const found = [];
    for await (const { key, row } of target.readRows(shape, keys)) found.push(row === null ? null : key);
    expect(found).toEqual(keys);
    for (const sql of ["UPDATE keyed SET note = 'changed'", "DELETE FROM keyed"]) {
      const { effect } = await rehearseAll(target, sqlJob(sql));
      expect(effect.changes).toHaveLength(keys.length);
      expect(await applyAll(target, effect)).toMatchObject({ written: keys.length, problems: [], wrong: [] });
      expect(await applyAll(target, invert(effect))).toMatchObject({ problems: [], wrong: [] });
      expect(await dumpPostgres(url)).toBe(before);
    }
  });

  test("names that need quotes, hide a quote, a dot or a comment", async () => {
    const database = await server.freshDatabase();
    await server.exec(
      database,
      'CREATE SCHEMA "we""ird.schema"',
      `CREATE TABLE "we""ird.schema"."select; -- 'x'" ("ORDER" integer, "k0" text, "t" text, "a""b.c" text, PRIMARY KEY ("ORDER", "k0"))`,
      `INSERT INTO "we""ird.schema"."select; -- 'x'" VALUES (1, 'a', 'b', 'c'), (2, E'\\\\', '\\N', NULL)`,
      'CREATE TABLE "dotted.name" (id integer PRIMARY KEY, "holdpoint_x" text)',
      "CREATE SCHEMA dotted; CREATE TABLE dotted.name (id integer PRIMARY KEY)",
    );
    const other = await openPostgresTarget(database);
    try {
      const names = (await other.schema()).tables.map((t) => t.name);
      expect(names).toEqual(
        expect.arrayContaining(['"we""ird.schema".select; -- \'x\'', '"dotted.name"', "dotted.name"]),
      );
      const before = await dumpPostgres(database);
      const { effect } = await rehearseAll(
        other,
        sqlJob(`UPDATE "we""ird.schema"."select; -- 'x'" SET "a""b.c" = 'new', t = NULL`),
      );
      expect(effect.changes).toHaveLength(2);
      expect(await applyAll(other, effect)).toMatchObject({ written: 2, problems: [], wrong: [] });
      expect(await applyAll(other, invert(effect))).toMatchObject({ written: 2, problems: [], wrong: [] });
      expect(await dumpPostgres(database)).toBe(before);
    } finally {
      await other.close();
    }
  });

  test("parameters are typed by where they stand, and never pasted", async () => {
    await server.exec(
      url,
      "DROP TABLE IF EXISTS p",
      "CREATE TABLE p (id integer PRIMARY KEY, t text, at timestamptz, ok boolean, n numeric, a integer[])",
    );
    await server.exec(url, "INSERT INTO p VALUES (1, 'x', '2026-01-01Z', true, 1.5, '{1,2,3}')");
    const { effect } = await rehearseAll(
      target,
      sqlJob({
        text: `UPDATE p SET t = :text || ':text' || $$ :text $$ /* :text /* :text */ */ -- :text
          WHERE id = :id AND at < :at AND ok = :ok AND n > :n::numeric AND now() > at - :id * interval '1 day' AND a[1:2] = '{1,2}'`,
        values: { text: "'; DROP TABLE p; --", id: 1n, at: "2026-02-01T00:00:00Z", ok: 1n, n: 0.5 },
      }),
    );
    expect(effect.changes).toMatchObject([
      {
        op: "update",
        after: [1n, "'; DROP TABLE p; --:text :text ", expect.anything(), "t", "1.5", "{1,2,3}"],
      },
    ]);
  });

  test("settings of the role change no text form, and another encoding keeps the order", async () => {
    const latin = await server.freshDatabase("LATIN1");
    await server.exec(
      latin,
      "ALTER DATABASE db3 SET DateStyle = 'German'".replace("db3", /\/(db\w+)\?/.exec(latin)?.[1] ?? ""),
      "CREATE TABLE t (k text PRIMARY KEY, d date, b bytea, f double precision)",
      "INSERT INTO t SELECT chr(i), '2026-12-31', '\\x00', 0.1 FROM generate_series(160, 255) i",
    );
    const other = await openPostgresTarget(latin);
    try {
      const { effect } = await rehearseAll(other, sqlJob("DELETE FROM t"));
      expect(effect.changes).toHaveLength(96);
      expect(effect.changes[0]).toMatchObject({ before: ["\u00a0", "2026-12-31", "\\x00", "0.1"] });
      expect((await other.schema()).settings["DateStyle"]).toContain("German");
    } finally {
      await other.close();
    }
  });

  test("a database without an encoding is refused", async () => {
    const ascii = await server.freshDatabase("SQL_ASCII");
    expect((await refusal(() => openPostgresTarget(ascii))).code).toBe("ERR_TARGET_UNSUPPORTED");
  });
});

test("COPY text is decoded wherever the stream is cut", async () => {
  const text = "a\tb\n\\N\t\\\\N\nx\\ty\t\\n\\\\\nü😀\t\n\n";
  const expected = [["a", "b"], [null, "\\N"], ["x\ty", "\n\\"], ["ü😀", ""], [""]];
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 0, max: Buffer.byteLength(text) })), async (cuts) => {
      const bytes = Buffer.from(text);
      const at = [0, ...cuts.sort((a, b) => a - b), bytes.length];
      const chunks = at.slice(1).map((end, i) => bytes.subarray(at[i], end));
      const rows = [];
      for await (const row of decodeCopy(streamOf(chunks))) rows.push(row);
      expect(rows).toEqual(expected);
    }),
  );
});

async function* streamOf(chunks: readonly Buffer[]): AsyncGenerator<Buffer, undefined> {
  yield* chunks;
}
