/**
 * Masked columns that a person wants to see: `show --reveal` refuses every place that is no person's terminal, records
 * before it shows, and leaves no value behind.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { parseStatement, signerOf } from "../../src/approval/statement.js";
import { readPeople } from "../../src/config/people-file.js";
import { jsonHere, runHere, type Surroundings } from "../support/here.js";
import { makeKey, makeProject, type TestProject } from "../support/project.js";
import { converse } from "../support/terminal.js";

const SECRET = "s3cret";
const SCHEMA = `
  CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT, phone TEXT, name TEXT);
  CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT);
  WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 90)
    INSERT INTO people SELECT v, '${SECRET}-' || v || char(27) || '[2J', '${SECRET}-phone', 'name ' || v FROM n;
  INSERT INTO pets VALUES (1, 'rex'), (2, 'tom'), (3, 'kim');
`;
const AT_TERMINAL: Surroundings = { env: { TERM: "xterm-256color" }, terminal: { columns: 100 } };
const WHY = ["--reason", "which address is wrong"];
const dana = ["--key", "keys/dana"];

let project: TestProject;
let plan = "";

const entries = (): unknown[] => {
  const db = new Database(project.path(".holdpoint/ledger.db"), { readonly: true });
  try {
    return db.prepare("SELECT sequence FROM entry WHERE kind = 'revealed'").all();
  } finally {
    db.close();
  }
};

beforeAll(async () => {
  project = makeProject({ schema: SCHEMA, journal: "delete", pin: false });
  const yaml = project.read("holdpoint.yaml");
  project.write(
    "holdpoint.yaml",
    yaml.replace(
      /^ {4}foreign_keys: true\n/m,
      (l) => `${l}    mask: [people.email, people.phone, cats.name]\n`,
    ),
  );
  const pinned = await runHere(project, ["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
  plan = project.plan("UPDATE people SET name = 'x' WHERE id <= 80; DELETE FROM pets WHERE id = 1");
});
afterAll(() => project.close());

type Refusal = readonly [string, readonly string[], Surroundings, number, string, RegExp];
const asks = ["--reveal", "people.email", ...WHY, ...dana];
const at = (more: Surroundings["env"]): Surroundings => ({
  ...AT_TERMINAL,
  env: { ...AT_TERMINAL.env, ...more },
});
const butNot = (end: "stdin" | "stdout" | "stderr"): Surroundings => ({
  ...AT_TERMINAL,
  terminal: { columns: 100, butNot: end },
});

const REFUSALS: readonly Refusal[] = [
  ["pipes", asks, {}, 22, "ERR_INPUT_NEEDED", /standard input is no terminal/],
  ["answers from a pipe", asks, butNot("stdin"), 22, "ERR_INPUT_NEEDED", /standard input is no/],
  ["a result into a file", asks, butNot("stdout"), 22, "ERR_INPUT_NEEDED", /standard output is no/],
  ["errors into a file", asks, butNot("stderr"), 22, "ERR_INPUT_NEEDED", /standard error is no/],
  ["--json", [...asks, "--json"], AT_TERMINAL, 22, "ERR_INPUT_NEEDED", /--json is for programs/],
  ["--events", [...asks, "--events", "e.ndjson"], AT_TERMINAL, 22, "ERR_INPUT_NEEDED", /--events is for/],
  ["--no-input", [...asks, "--no-input"], AT_TERMINAL, 22, "ERR_INPUT_NEEDED", /CI is set or --no-input/],
  ["CI", asks, at({ CI: "1" }), 22, "ERR_INPUT_NEEDED", /CI is set or --no-input/],
  ["CI under its own name", asks, at({ GITHUB_ACTIONS: "true" }), 22, "ERR_INPUT_NEEDED", /this is CI/],
  ["an agent", asks, at({ AI_AGENT: "1" }), 22, "ERR_INPUT_NEEDED", /this is an agent/],
  ["Markdown", [...asks, "--format", "markdown"], AT_TERMINAL, 2, "ERR_USAGE", /--reveal and --format/],
  ["--sql", [...asks, "--sql", "SELECT 1"], AT_TERMINAL, 2, "ERR_USAGE", /--reveal and --sql/],
  ["--against", [...asks, "--against", "pl_1"], AT_TERMINAL, 2, "ERR_USAGE", /--reveal and --against/],
  ["no reason", ["--reveal", "people.email", ...dana], AT_TERMINAL, 2, "ERR_USAGE", /needs --reason/],
  [
    "a blank one",
    ["--reveal", "people.email", "--reason", " ", ...dana],
    AT_TERMINAL,
    2,
    "ERR_USAGE",
    /blank/,
  ],
  ["a reason alone", [...WHY], AT_TERMINAL, 2, "ERR_USAGE", /--reason belongs to --reveal/],
  ["a key alone", [...dana], AT_TERMINAL, 2, "ERR_USAGE", /--key belongs to --reveal/],
  [
    "a slip of the fingers",
    ["--reveal", "people.emial", ...WHY, ...dana],
    AT_TERMINAL,
    2,
    "ERR_USAGE",
    /masks people\.email, people\.phone, cats\.name; did you mean people\.email\?/,
  ],
  ["one of two wrong", [...asks, "--reveal", "x.y"], AT_TERMINAL, 2, "ERR_USAGE", /no masked column x\.y/],
  [
    "a column that is not masked",
    ["--reveal", "people.name", ...WHY, ...dana],
    AT_TERMINAL,
    2,
    "ERR_USAGE",
    /people\.name is not masked/,
  ],
  [
    "a table that the plan does not change",
    ["--reveal", "cats.name", ...WHY, ...dana],
    AT_TERMINAL,
    2,
    "ERR_USAGE",
    /has no column cats\.name/,
  ],
  [
    "a key that is not there",
    ["--reveal", "people.email", ...WHY, "--key", "keys/none"],
    AT_TERMINAL,
    32,
    "ERR_KEY_MISSING",
    /keys\/none/,
  ],
];

describe("refused, with nothing shown and nothing recorded", () => {
  test.each(REFUSALS)("%s", async (_, flags, around, status, code, why) => {
    const ran = await runHere(project, ["show", plan, ...flags], around);
    expect([ran.status, /ERR_[A-Z_]+/.exec(ran.stdout + ran.stderr)?.[0]]).toEqual([status, code]);
    expect(ran.stdout + ran.stderr).toMatch(why);
    expect(ran.stdout + ran.stderr).toMatch(/Nothing was (written|signed)\.|"target_changed":\s*"no"/);
    expect(ran.stdout + ran.stderr).not.toContain(SECRET);
    expect(ran.stdout).not.toContain("\u001b[?1049h");
    expect(entries()).toEqual([]);
  });

  test("a key that belongs to nobody", async () => {
    makeKey(project.path("keys/stranger"), "stranger");
    const flags = ["--reveal", "people.email", ...WHY, "--key", "keys/stranger"];
    const ran = await runHere(project, ["show", plan, ...flags], AT_TERMINAL);
    expect([ran.status, ran.stdout]).toEqual([32, ""]);
    expect(ran.stderr).toMatch(/ERR_KEY_UNKNOWN/);
    expect(entries()).toEqual([]);
  });

  test("a ledger that takes no entry", async () => {
    const change = (sql: string): void => {
      const db = new Database(project.path(".holdpoint/ledger.db"));
      db.exec(sql);
      db.close();
    };
    change("CREATE TRIGGER full BEFORE INSERT ON entry BEGIN SELECT RAISE(ABORT, 'no room'); END");
    const ran = await runHere(project, ["show", plan, ...asks], AT_TERMINAL);
    change("DROP TRIGGER full");
    expect(ran.status).not.toBe(0);
    expect(ran.stdout).toBe("");
    expect(ran.stderr).toMatch(/ERR_[A-Z_]+/);
    expect(ran.stderr).not.toContain(SECRET);
    expect(entries()).toEqual([]);
  });
});

test("at a terminal: recorded first, shown aside, page by page, gone when it is closed", async () => {
  let recordedBefore = 0;
  const { code, raw, screen } = await converse(
    ["show", plan, ...asks],
    [
      { after: /-30\\x1b[^]*q closes this/, type: "\r", done: () => (recordedBefore = entries().length) },
      { after: /-60\\x1b[^]*q closes this/, type: "\r" },
      { after: "Enter closes this", type: "\r" },
    ],
    { cwd: project.dir },
  );
  expect([code, recordedBefore]).toEqual([0, 1]);
  // Every row's value passed, with its escape code made visible; the other masked column did not.
  for (const id of [1, 40, 80]) expect(raw).toContain(`${SECRET}-${id}\\x1b[2J`);
  expect(raw).not.toContain(`${SECRET}-phone`);
  expect(raw).not.toContain("rex");
  // What stood on the other screen is not on this one, nor in what scrolled away.
  expect(screen).not.toContain(SECRET);
  expect(screen).toMatch(/people\.email of pl_\w+ shown to dana: which address is wrong\. Entry \d+ of the/);

  const log = await jsonHere(project, ["log"]);
  expect(log.result["revealed"]).toEqual([
    expect.objectContaining({
      plan,
      by: "dana",
      columns: ["people.email"],
      reason: "which address is wrong",
    }),
  ]);
  const words = await runHere(project, ["log", "--width", "160"]);
  expect(words.stdout).toMatch(/dana .*saw people\.email unmasked: which address is wrong/);
  for (const file of readdirSync(project.path(".holdpoint")).filter((f) => f.startsWith("ledger")))
    expect(readFileSync(join(project.path(".holdpoint"), file), "latin1")).not.toContain(SECRET);
});

test("the entry holds what dana signed", async () => {
  const before = entries().length;
  await converse(["show", plan, ...asks], [{ after: "q closes this", type: "q\r" }], { cwd: project.dir });
  const db = new Database(project.path(".holdpoint/ledger.db"), { readonly: true });
  const bytesOf = db
    .prepare<[], Buffer>("SELECT bytes FROM entry WHERE kind = 'revealed' ORDER BY sequence DESC")
    .pluck();
  const text = bytesOf.get()?.toString() ?? "";
  db.close();
  const { facts } = JSON.parse(text) as { readonly facts: Readonly<Record<string, string>> };
  const bytes = Buffer.from(facts["statement"] ?? "", "base64url");
  const statement = parseStatement(bytes);
  expect(entries()).toHaveLength(before + 1);
  expect(statement).toMatchObject({ act: "reveal", subject: plan, by: "dana", target: "shop-prod" });
  expect(statement.changes).toEqual(["~ people.email is shown"]);
  const people = await readPeople({
    root: project.dir,
    people: project.path("people/allowed_signers"),
    groups: project.path("people/groups.yaml"),
  });
  const signer = signerOf(
    people,
    { bytes, act: "reveal" },
    Buffer.from(facts["signature"] ?? "", "base64url"),
    new Date(statement.madeAt),
  );
  expect(signer).toMatchObject({ ok: true, person: { name: "dana" } });
});

test("read aloud there is no other screen: the pages stand below each other", async () => {
  const { code, raw } = await converse(
    ["show", plan, "--accessible", ...asks],
    [{ after: "q closes this", type: "q\n" }],
    { cwd: project.dir },
  );
  expect(code).toBe(0);
  expect(raw).not.toContain("\u001b[?1049h");
  expect(raw).toContain(`${SECRET}-1\\x1b`);
});

test("Ctrl-C at a page closes it and leaves the entry", async () => {
  const before = entries().length;
  const { code, screen } = await converse(
    ["show", plan, ...asks],
    [{ after: "q closes this", type: "\u0003" }],
    {
      cwd: project.dir,
    },
  );
  expect(code).toBe(130);
  expect(screen).not.toContain(SECRET);
  expect(entries()).toHaveLength(before + 1);
});
