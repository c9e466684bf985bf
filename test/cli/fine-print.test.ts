/** What docs/fine-print.md says of SQLite, as a stranger at the terminal meets it. */
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { type Document, makeProject, type TestProject } from "../support/project.js";

const SCHEMA = `
  CREATE VIRTUAL TABLE pages USING fts5 (title, body);
  INSERT INTO pages VALUES ('one', 'first page'), ('two', 'second page');
  CREATE TABLE texts (id INTEGER PRIMARY KEY, body TEXT);
  CREATE TRIGGER indexed AFTER INSERT ON texts BEGIN INSERT INTO pages VALUES (NEW.id, NEW.body); END;
  CREATE TABLE visits (who TEXT, at TEXT);
  INSERT INTO visits VALUES ('ann', '09:00'), ('ann', '09:00'), ('ann', '09:00'), ('bob', '10:00'), (NULL, '11:00');
  CREATE TABLE seen (id INTEGER PRIMARY KEY, at TEXT, dice INTEGER);
  INSERT INTO seen VALUES (1, NULL, NULL), (2, NULL, NULL);
`;

let project: TestProject;
beforeAll(() => {
  project = makeProject({ schema: SCHEMA });
});
afterAll(() => project.close());

function planned(sql: string): Document {
  return project.json(["plan", project.write("jobs/it.sql", sql), "--on", "shop-prod", "--key", "keys/dana"]);
}

function applied(sql: string): { readonly plan: string; readonly run: string } {
  const plan = project.plan(sql);
  project.approve(plan, "ravi", ["--cover-undo", "1h", "--reason", "as asked"]);
  const done = project.json(["apply", plan, "--confirm", "shop-prod"]);
  expect(done).toMatchObject({ error: null, target_changed: "yes" });
  return { plan, run: String(done.result["run"]) };
}

test.each([
  ["a job that writes a virtual table", "INSERT INTO pages VALUES ('three', 'third')", "pages"],
  ["a job whose trigger does", "INSERT INTO texts VALUES (1, 'x')", "pages"],
  ["a job that makes one", "CREATE VIRTUAL TABLE more USING fts5 (x)", "CREATE VIRTUAL TABLE"],
])("%s is refused by name, and nothing changes", (_, sql, name) => {
  const before = project.dump();
  const ended = planned(sql);
  expect(ended).toMatchObject({ ok: false, exit: { code: 2 }, target_changed: "no" });
  expect(ended.error?.what).toContain(name);
  expect(project.dump()).toBe(before);
});

test("a job beside a virtual table works, and may read it", () => {
  const made = planned(
    "UPDATE visits SET who = (SELECT title FROM pages WHERE pages MATCH 'second') WHERE who = 'bob'",
  );
  expect(made.result).toMatchObject({
    effect: { rows: 2, tables: [{ table: "visits", insert: 1, delete: 1 }] },
  });
});

test("values that differ from run to run are named, and written as they were signed", () => {
  const before = project.dump();
  const { plan, run } = applied("UPDATE seen SET at = datetime('now'), dice = random()");
  const shown = project.json(["show", plan]).result;
  expect(shown).toMatchObject({
    mode: "rows",
    volatile: [
      { table: "seen", column: "at", rows: 2 },
      { table: "seen", column: "dice", rows: 2 },
    ],
  });
  expect(project.run(["show", plan]).stdout).toContain(
    "seen.dice: differs from run to run, written as signed, 2 rows",
  );
  const rows = project.json(["show", plan, "--rows"]).result["rows"] as unknown as {
    after: { dice: unknown };
  }[];
  const dice = project.rows("SELECT CAST(dice AS TEXT) AS dice FROM seen ORDER BY id") as { dice: string }[];
  expect(dice.map((d) => d.dice)).toEqual(rows.map((r) => String(r.after.dice)));
  expect(project.json(["undo", run]).error).toBeNull();
  expect(project.dump()).toBe(before);
});

test("a table without a key: equal rows are counted, one of three goes, and it comes back", () => {
  const before = project.dump();
  const { run } = applied(
    "DELETE FROM visits WHERE rowid = (SELECT min(rowid) FROM visits WHERE who = 'ann')",
  );
  expect(project.rows("SELECT count(*) AS n FROM visits WHERE who = 'ann'")).toEqual([{ n: 2 }]);
  expect(project.json(["undo", run])).toMatchObject({ error: null, result: { counts: { put_back: 1 } } });
  expect(project.dump()).toBe(before);
});
