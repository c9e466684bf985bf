/**
 * A masked column's value through every command that could say it: on screens, in errors, documents, Markdown, events, files
 * for people and the ledger. Where a value must stand to do its work (the store's rows, a file of a restore) it stays.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { runHere } from "../support/here.js";
import { makeProject, type Ran, sign, type TestProject } from "../support/project.js";

const SECRETS = ["s3cret-before", "s3cret-wrote", "s3cret-now", "s3cret-lost"] as const;
const SCHEMA = `
  CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT, name TEXT, CHECK (email <> 'never'));
  WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 40)
    INSERT INTO people SELECT v, '${SECRETS[0]}', 'name ' || v FROM n;
`;
const on = ["--on", "shop-prod"];
const dana = ["--key", "keys/dana"];
const sure = ["--confirm", "shop-prod"];
const FORMS = [[], ["--json"], ["--accessible"], ["--width", "60", "--color", "always"], ["--verbose"]];

let project: TestProject;
let plan = "";
let other = "";
let run = "";
let snapshot = "";

const idIn = (ran: Ran, prefix: string): string => {
  const id = new RegExp(`\\b${prefix}_[0-9a-z]{16}\\b`).exec(ran.stdout)?.[0];
  if (id === undefined) throw new Error(ran.stderr);
  return id;
};

beforeAll(async () => {
  project = makeProject({ schema: SCHEMA, journal: "delete", pin: false });
  const masks = (l: string): string => `${l}    mask: [people.email]\n`;
  project.write(
    "holdpoint.yaml",
    project.read("holdpoint.yaml").replace(/^ {4}foreign_keys: true\n/m, masks),
  );
  // The job's file is its author's own text; the value reaches the plan from the row.
  project.write(
    "jobs/mail.sql",
    "UPDATE people SET email = replace(email, 'before', 'wrote'), name = 'x' WHERE id < 9",
  );
  project.write("jobs/more.sql", "DELETE FROM people WHERE id < 5");
  project.write("jobs/fails.sql", "UPDATE people SET id = 1, email = email || '!' WHERE id < 4");
  await runHere(project, ["env", "pin", "shop-prod", ...sure]);
  snapshot = idIn(await runHere(project, ["snapshot", "take", ...on]), "sn");
  plan = idIn(await runHere(project, ["plan", "jobs/mail.sql", ...on, ...dana]), "pl");
  other = idIn(await runHere(project, ["plan", "jobs/more.sql", ...on, ...dana]), "pl");
  await runHere(project, ["approve", plan, "--prepare", "a.txt", "--as", "ravi", "--cover-undo", "1h"]);
  sign(project.path("keys/ravi"), "holdpoint-approval", project.path("a.txt"));
  await runHere(project, ["approve", plan, "--prepared", "a.txt", "--signature", "a.txt.sig"]);
  run = idIn(await runHere(project, ["apply", plan, ...sure, "--events", "events.ndjson"]), "rn");
  project.raw(`UPDATE people SET email = '${SECRETS[2]}' WHERE id IN (1, 2, 30)`);
  project.raw(`UPDATE people SET email = '${SECRETS[3]}' WHERE id = 31; DELETE FROM people WHERE id = 32`);
});
afterAll(() => project.close());

/** Nothing of the values stands in it. */
function holdsNone(text: string, where: string): void {
  for (const secret of SECRETS) expect([where, text.includes(secret)]).toEqual([where, false]);
}

/** A masked value as it is shown: by a tag, or in words. */
const MASK = /····|masked @m\d/;

const COMMANDS: readonly (readonly [string, RegExp, () => readonly string[]])[] = [
  ["plan", /people/, () => ["plan", "jobs/more.sql", ...on, ...dana]],
  ["a job that fails on its rows", /ERR_/, () => ["plan", "jobs/fails.sql", ...on, ...dana]],
  ["show", /people/, () => ["show", plan]],
  ["show --rows", MASK, () => ["show", plan, "--rows"]],
  [
    "show --sql",
    /masks columns/,
    () => ["show", plan, "--sql", "SELECT before_email, after_email FROM people"],
  ],
  [
    "show --sql, under another name",
    /ERR_|masked/,
    () => ["show", plan, "--sql", "SELECT before_email || '' AS x FROM people"],
  ],
  ["show --against", /people/, () => ["show", plan, "--against", other]],
  ["Markdown", /people/, () => ["show", plan, "--format", "markdown"]],
  ["JUnit", /./, () => ["show", plan, "--format", "junit"]],
  ["status", /pl_/, () => ["status"]],
  ["policy explain", /second-person/, () => ["policy", "explain", other, "--all"]],
  ["apply, rows moved", /ERR_/, () => ["apply", other, ...sure]],
  ["undo with conflicts", MASK, () => ["undo", run, ...dana]],
  ["log", /rn_/, () => ["log"]],
  ["log show", /run-finished/, () => ["log", "show", run]],
  ["log who", MASK, () => ["log", "who", ...on, "--table", "people", "--key", "1"]],
  ["snapshot show", /people/, () => ["snapshot", "show", snapshot]],
  ["snapshot diff", /people/, () => ["snapshot", "diff", snapshot]],
  ["rescue", /people/, () => ["rescue", ...on]],
  ["rescue of a table", /people|ERR_/, () => ["rescue", ...on, ...dana, "--table", "people"]],
  ["rescue, deleted", /pl_|1/, () => ["rescue", ...on, ...dana, "--damage", "deleted"]],
  ["env check", /PRODUCTION|production/, () => ["env", "check", "shop-prod"]],
];

test.each(COMMANDS)("%s", async (name, says, args) => {
  for (const form of FORMS) {
    const { stdout, stderr } = await runHere(project, [...args(), ...form]);
    expect(stdout + stderr).toMatch(says);
    holdsNone(stdout + stderr, `${name} ${form.join(" ")}`);
  }
});

test("events, files for people and the ledger", () => {
  const files = readdirSync(project.dir).filter((f) => /\.(ndjson|yaml|txt)$/.test(f));
  expect(files).toContain("events.ndjson");
  expect(files).toContainEqual(expect.stringMatching(/^conflicts-/));
  for (const file of files) holdsNone(project.read(file), file);
  holdsNone(readFileSync(join(project.dir, ".holdpoint/ledger.db"), "latin1"), "ledger");
});
