/** What a rescue is narrowed by: lists of keys, times, writers and transactions; and that each refuses what it cannot know. */
import { mkdirSync, writeFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "@jest/globals";
import { jsonHere, runHere } from "../support/here.js";
import { onPostgres } from "../support/on-postgres.js";
import { column, makePostgresProject } from "../support/postgres-project.js";
import { bytesOf, type Document, makeProject, type TestProject } from "../support/project.js";

const SCHEMA = `
  CREATE TABLE tickets (id INTEGER PRIMARY KEY, status TEXT NOT NULL, changed_at TEXT, changed_by TEXT);
  CREATE TABLE seats (hall INTEGER NOT NULL, seat TEXT NOT NULL, owner TEXT, PRIMARY KEY (hall, seat)) STRICT, WITHOUT ROWID;
  CREATE TABLE digests (id BLOB NOT NULL PRIMARY KEY, n INTEGER) STRICT, WITHOUT ROWID;
  CREATE TABLE loose (word TEXT);
  INSERT INTO tickets SELECT value, 'open', '2012-12-01T08:00:00Z', 'rosa' FROM
    (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 20) SELECT value FROM n);
  INSERT INTO seats VALUES (1, 'A', 'mia'), (1, 'B', 'noor'), (9007199254740993, 'A', 'ola');
  INSERT INTO digests VALUES (x'00ff', 1), (x'0aff', 1);
  INSERT INTO loose VALUES ('a'), ('b');`;

let project: TestProject;
beforeAll(async () => {
  project = makeProject({ schema: SCHEMA, journal: "delete", pin: false });
  const config = project.read("holdpoint.yaml");
  const times = "$&\n$1newest_row:\n$1  tickets.changed_at: any";
  project.write("holdpoint.yaml", config.replace(/^( +)url: .*$/m, times));
  expect((await jsonHere(project, ["env", "pin", "shop-prod", "--confirm", "shop-prod"])).error).toBeNull();
  expect((await jsonHere(project, ["snapshot", "take", "--on", "shop-prod"])).error).toBeNull();
  // The damage, and two people who go on working.
  project.raw(`UPDATE tickets SET status = 'closed', changed_at = '2012-12-24T20:30:00Z', changed_by = 'nightly' WHERE id <= 10;
    DELETE FROM tickets WHERE id BETWEEN 15 AND 17;
    UPDATE tickets SET status = 'waits', changed_at = '2012-12-24 21:00:00', changed_by = 'rosa' WHERE id IN (9, 11);
    UPDATE tickets SET changed_at = NULL, changed_by = NULL WHERE id = 12;
    UPDATE seats SET owner = NULL; UPDATE digests SET n = 2;
    INSERT INTO tickets VALUES (900, 'open', '2012-12-24T20:31:00Z', 'rosa')`);
});
afterAll(() => project.close());

/** Rescues, and holds that the target is the same to the byte. */
async function rescue(...args: string[]): Promise<Document> {
  const before = bytesOf(project.database);
  const document = await jsonHere(project, ["rescue", "--on", "shop-prod", "--key", "keys/dana", ...args]);
  expect(bytesOf(project.database).equals(before)).toBe(true);
  return document;
}

const TICKETS = ["--table", "tickets"];

describe("--keys", () => {
  test("rows in the list come back, changed or gone, and no other; keys that named nothing are counted", async () => {
    project.write(
      "keys.jsonl",
      [
        '{"table":"tickets","key":{"id":1}}',
        '{"table":"tickets","key":{"id":9}}',
        '{"table":"tickets","key":{"id":15}}',
        '{"table":"tickets","key":{"id":19}}',
        '{ "key": { "seat": "A", "hall": "9007199254740993" }, "table": "seats" }',
        '{"table":"digests","key":{"id":{"hex":"0AFF"}}}',
      ].join("\n"),
    );
    const made = await rescue("--keys", "keys.jsonl");
    expect(made.error).toBeNull();
    expect(made.result).toMatchObject({
      counts: { put_back: 5, merged: 0, conflict: 0, undecidable: 0, other: 15, born: 1 },
    });
    expect(made.warnings).toEqual(["1 key of keys.jsonl named no row that changed since the snapshot"]);
  });

  test("the list narrows a declared damage", async () => {
    project.write("two.jsonl", '{"table":"tickets","key":{"id":2}}\n{"table":"tickets","key":{"id":16}}\n');
    const made = await rescue("--keys", "two.jsonl", "--damage", "deleted");
    expect(made.result).toMatchObject({ counts: { put_back: 1, conflict: 1 } });
    const set = await rescue("--keys", "two.jsonl", "--damage", "status = 'closed'");
    expect(set.result).toMatchObject({ counts: { merged: 1, removed: 1, conflict: 0 } });
  });

  test("what --born writes is read, and rows born since are left alone all the same", async () => {
    expect((await rescue(...TICKETS, "--damage", "deleted", "--born", "born.jsonl")).error).toBeNull();
    expect(project.read("born.jsonl")).toBe('{"table":"tickets","key":{"id":900}}\n');
    const made = await rescue("--keys", "born.jsonl");
    expect([made.error, made.warnings]).toEqual([null, []]);
    expect(made.result).toMatchObject({ plan: null, counts: { put_back: 0, merged: 0, born: 1 } });
  });

  const good = '{"table":"tickets","key":{"id":1}}\n';
  test.each<[string, string | Uint8Array, RegExp]>([
    ["an empty file", "", /^keys\.txt: it names no key$/],
    ["a line that is no JSON", `${good}nothing\n`, /^keys\.txt:2: the line is no JSON$/],
    ["an empty line", `${good}\n${good}`, /^keys\.txt:2: the line is no JSON$/],
    ["bytes that are no text", Buffer.from([0x22, 0xff, 0x22]), /^keys\.txt:1: the line is no JSON$/],
    ["another field", '{"table":"tickets","key":{"id":1},"op":"x"}', /^keys\.txt:1: the line is no key$/],
    ["no column", '{"table":"tickets","key":{}}', /^keys\.txt:1: the line is no key$/],
    ["a cell that is no value", '{"table":"tickets","key":{"id":true}}', /^keys\.txt:1: the line is no key$/],
    [
      "a number that JSON rounds",
      '{"table":"seats","key":{"hall":9007199254740993,"seat":"A"}}',
      /:1: the line is no/,
    ],
    ["a masked value", '{"table":"tickets","key":{"id":"····@x7"}}', /^keys\.txt:1: the line is no key$/],
    [
      "a line without end",
      `${good}{"table":"${"t".repeat(70_000)}"}`,
      /keys\.txt(?::2)?: a line is too long$/,
    ],
    [
      "an unknown table",
      `${good}{"table":"users","key":{"id":1}}`,
      /^keys\.txt:2: there is no table users to look at$/,
    ],
    ["a table without a key", '{"table":"loose","key":{"word":"a"}}', /^keys\.txt:1: loose has no key$/],
    ["half a key", '{"table":"seats","key":{"hall":1}}', /^keys\.txt:1: it is no key of seats$/],
    [
      "more than the key",
      '{"table":"tickets","key":{"id":1,"status":"open"}}',
      /^keys\.txt:1: it is no key of tickets$/,
    ],
  ])("refused: %s", async (_, content, message) => {
    writeFileSync(project.path("keys.txt"), content);
    const refused = await rescue("--keys", "keys.txt");
    expect([refused.exit.code, refused.error?.code]).toEqual([2, "ERR_USAGE"]);
    expect(refused.error?.what).toMatch(message);
  });

  test.each(["none.jsonl", "folder"])("refused: %s, which is no file to read", async (file) => {
    mkdirSync(project.path("folder"), { recursive: true });
    const refused = await rescue("--keys", file);
    expect([refused.exit.code, refused.error?.what]).toEqual([
      2,
      expect.stringMatching(/cannot be read|is no file/),
    ]);
  });
});

describe("--since and --until", () => {
  const AT = ["--time-column", "tickets.changed_at"];
  const WINDOW = ["--since", "2012-12-24T20:30:00Z", "--until", "2012-12-24T21:00:00Z"];

  test("narrow a declared damage to what was written in that time; later writes stay", async () => {
    const made = await rescue(...TICKETS, "--damage", "status = 'closed'", ...WINDOW, ...AT);
    expect(made.error).toBeNull();
    // The end is not in it: 9 and 11 were written at 21:00; 15 to 17 are gone and 12 says no time.
    expect(made.result).toMatchObject({ counts: { merged: 9, conflict: 0, removed: 0, other: 6 } });
    expect(made.warnings.join()).toMatch(/^4 rows left alone: gone, or nothing in the row says when/);
  });

  test("declare nothing: what was written in that time is listed, to be decided", async () => {
    const open = await rescue(...TICKETS, "--since", "2012-12-24T21:00Z", ...AT);
    expect(open.exit.code).toBe(37);
    expect(open.result).toMatchObject({ plan: null, counts: { undecidable: 2, put_back: 0 } });
    expect(project.read(String(open.result["resolutions"]))).toMatch(
      /--since 2012-12-24T21:00Z --time-column tickets\.changed_at/,
    );
  });

  test("ask the configured columns where none is named", async () => {
    const made = await rescue("--damage", "status = 'closed'", ...WINDOW);
    expect(made.error).toBeNull();
    expect(made.result).toMatchObject({ counts: { merged: 9 } });
    const none = await rescue("--table", "seats", ...WINDOW);
    expect([none.exit.code, none.error?.what]).toEqual([2, "no column says when a row was written"]);
  });

  test("stand on the screen", async () => {
    const { stdout } = await runHere(project, [
      "rescue",
      "--on",
      "shop-prod",
      ...TICKETS,
      "--damage",
      "status = 'closed'",
      ...WINDOW,
      ...AT,
    ]);
    expect(stdout).toMatch(/Only +rows written since 2012-12-24T20:30:00Z until 2012-12-24T21:00:00Z/);
  });

  test.each<[string, readonly string[], RegExp]>([
    ["no time", ["--since", "yesterday", ...AT], /^--since "yesterday" is no time$/],
    [
      "a time that ends first",
      ["--since", "2013-01-01", "--until", "2012-01-01", ...AT],
      /ends before it begins/,
    ],
    ["a column without a time", AT, /without a time/],
    [
      "an unknown column",
      ["--since", "2012-12-24", "--time-column", "tickets.at"],
      /no table .* has a column tickets\.at/,
    ],
    ["two columns", ["--since", "2012-12-24", ...AT, "--time-column", "status"], /two time columns/],
    [
      "a column of other things",
      ["--since", "2012-12-24", "--time-column", "status"],
      /no time in status that can be read/,
    ],
    ["deleted rows", ["--since", "2012-12-24", ...AT, "--damage", "deleted"], /^deleted rows have no time/],
  ])("refused: %s", async (_, args, message) => {
    const refused = await rescue(...TICKETS, ...args);
    expect([refused.exit.code, refused.error?.code]).toEqual([2, "ERR_USAGE"]);
    expect(refused.error?.what).toMatch(message);
  });
});

describe("--author", () => {
  test("everything in rows that now name this writer; who wrote after it stays", async () => {
    const made = await rescue("--author", "tickets.changed_by=nightly");
    expect(made.error).toBeNull();
    expect(made.result).toMatchObject({ counts: { put_back: 9, merged: 0, conflict: 0, undecidable: 0 } });
    const both = await rescue(...TICKETS, "--author", "changed_by=nightly", "--author", "changed_by = rosa");
    expect(both.result).toMatchObject({ counts: { put_back: 11, born: 1 } });
    const late = ["--since", "2012-12-24T20:45Z", "--time-column", "tickets.changed_at"];
    const rosa = await rescue(...TICKETS, "--author", "changed_by=rosa", ...late);
    expect(rosa.result).toMatchObject({ counts: { put_back: 2 } });
  });

  test.each<[string, readonly string[], RegExp]>([
    ["nobody", ["--author", "changed_by"], /names nobody/],
    ["an unknown column", ["--author", "writer=x"], /no table .* has a column writer/],
    [
      "deleted rows",
      ["--author", "changed_by=nightly", "--damage", "deleted"],
      /^deleted rows have no time, author/,
    ],
  ])("refused: %s", async (_, args, message) => {
    const refused = await rescue(...TICKETS, ...args);
    expect([refused.exit.code, refused.error?.what]).toEqual([2, expect.stringMatching(message)]);
  });
});

test("SQLite refuses --transaction by name", async () => {
  const refused = await rescue("--transaction", "4711");
  expect([refused.exit.code, refused.error?.code]).toEqual([2, "ERR_TARGET_UNSUPPORTED"]);
  expect(refused.error?.why).toBe("SQLite keeps no transaction of a row");
});

onPostgres("rescue by transaction", "first", (servers) => {
  let shop: TestProject | undefined;
  afterEach(() => shop?.close());

  test("rows that it wrote as they are now come back; deleted rows and later writes are left alone", async () => {
    const url = await servers().freshDatabase();
    await servers().exec(
      url,
      `CREATE TABLE tickets (id integer PRIMARY KEY, status text NOT NULL);
       INSERT INTO tickets SELECT i, 'open' FROM generate_series(1, 20) i;`,
    );
    const on = makePostgresProject(url);
    shop = on;
    expect((await jsonHere(on, ["snapshot", "take", "--on", "shop-prod"])).error).toBeNull();
    await servers().exec(
      url,
      `BEGIN; UPDATE tickets SET status = 'closed' WHERE id <= 10; DELETE FROM tickets WHERE id > 18; COMMIT;
       UPDATE tickets SET status = 'waits' WHERE id IN (9, 11);`,
    );
    const [xmin] = await column(url, "SELECT xmin FROM tickets WHERE id = 1");
    const rescue = async (...args: string[]): Promise<Document> =>
      jsonHere(on, ["rescue", "--on", "shop-prod", "--key", "keys/dana", ...args]);

    const made = await rescue("--transaction", xmin ?? "");
    expect(made.error).toBeNull();
    expect(made.result).toMatchObject({ counts: { put_back: 9, other: 4, conflict: 0, undecidable: 0 } });
    expect(made.warnings.join()).toMatch(/2 rows left alone: gone/);

    for (const [given, message] of [
      ["0x10", /is no number of a transaction/],
      ["2", /^2 is no number of a transaction$/],
      ["12; DROP TABLE tickets", /is no number of a transaction/],
      ["4000000000", /there was no transaction 4000000000/],
      ["9000000000000", /there was no transaction/],
    ] as const) {
      const refused = await rescue("--transaction", given);
      expect([refused.exit.code, refused.error?.what]).toEqual([2, expect.stringMatching(message)]);
    }
    const deleted = await rescue("--transaction", xmin ?? "", "--damage", "deleted");
    expect(deleted.error?.what).toMatch(/^deleted rows have no time, author or transaction/);
  }, 60_000);
});
