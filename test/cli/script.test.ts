/** Mode script through the real binary: schema changes planned, signed, run again, compared, and taken back. */
import { afterEach, describe, expect, test } from "@jest/globals";
import { makeProject, type TestProject } from "../support/project.js";

const SCHEMA = `
  CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT NOT NULL, total REAL);
  CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, said TEXT);
  CREATE TRIGGER noted AFTER UPDATE ON orders BEGIN INSERT INTO audit (said) VALUES ('order ' || NEW.id); END;
  INSERT INTO orders SELECT value, 'pending', value * 1.5
    FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 40) SELECT value FROM n);
`;

const MIGRATION = `
  ALTER TABLE orders ADD COLUMN shipped TEXT;
  CREATE TABLE parcels (id INTEGER PRIMARY KEY, order_id INTEGER REFERENCES orders (id), at TEXT, seal INTEGER);
  CREATE INDEX parcels_order ON parcels (order_id);
  CREATE VIEW sent AS SELECT * FROM parcels;
  INSERT INTO parcels (order_id, at, seal) SELECT id, datetime('now'), random() FROM orders WHERE id <= 5;
  UPDATE orders SET status = 'sent' WHERE id <= 5;
`;

let project: TestProject;
afterEach(() => project.close());

function apply(plan: string): ReturnType<TestProject["json"]> {
  return project.json(["apply", plan, "--confirm", "shop-prod"]);
}

function undo(run: string): string {
  const waits = project.json(["undo", run, "--key", "keys/dana"]);
  expect(waits.exit.code).toBe(21);
  return String(waits.result["plan"]);
}

/** Counters only ever move forward, on undo too. */
function withoutSequences(dump: string): string {
  return dump
    .split("\n")
    .filter((line) => !line.startsWith("sqlite_sequence:"))
    .join("\n");
}

describe.each(["wal", "delete"] as const)("a migration in journal mode %s", (journal) => {
  test("is applied as signed, values that differ from run to run included, and taken back whole", () => {
    project = makeProject({ schema: SCHEMA, journal });
    const before = project.dump();
    const plan = project.plan(MIGRATION);
    expect(project.dump()).toBe(before);
    const shown = project.json(["show", plan, "--rows"]);
    expect(project.json(["show", plan]).result).toMatchObject({
      mode: "script",
      has_changes: true,
      volatile: [
        { table: "parcels", column: "at", rows: 5 },
        { table: "parcels", column: "seal", rows: 5 },
      ],
      schema_changes: [{}, {}, {}, {}],
    });
    project.approve(plan);

    const done = apply(plan);
    expect(done).toMatchObject({ error: null, target_changed: "yes" });
    expect(done.result).toMatchObject({ rows: { planned: 15, written: 15 }, schema_changes: 4, batches: 1 });
    const signed = (shown.result["rows"] as unknown as { table: string; after: Record<string, unknown> }[])
      .filter((r) => r.table === "parcels")
      .map((r) => String(r.after["seal"]));
    const written = project.rows("SELECT CAST(seal AS TEXT) AS seal FROM parcels ORDER BY id");
    expect(written).toEqual(signed.map((seal) => ({ seal })));
    expect(project.rows("SELECT count(*) AS n FROM audit")).toEqual([{ n: 5 }]);

    const back = undo(String(done.result["run"]));
    project.approve(back);
    expect(apply(back)).toMatchObject({ error: null, target_changed: "yes" });
    expect(withoutSequences(project.dump())).toBe(withoutSequences(before));
  });
});

describe("what moved since the plan", () => {
  test("ends with 34 and leaves everything as it was, the approval unused", () => {
    project = makeProject({ schema: SCHEMA });
    const plan = project.plan(
      "CREATE INDEX by_status ON orders (status); UPDATE orders SET status = 'big' WHERE total > 55",
    );
    project.approve(plan);
    project.raw("INSERT INTO orders VALUES (41, 'pending', 99.5)");
    const before = project.dump();
    const ended = apply(plan);
    expect(ended).toMatchObject({
      target_changed: "no",
      exit: { code: 34 },
      error: { code: "ERR_DRIFT_ROWS" },
    });
    expect(ended.error?.why).toContain("audit 5: insert, and not signed");
    expect(project.dump()).toBe(before);

    project.raw("DELETE FROM orders WHERE id = 41");
    expect(apply(plan)).toMatchObject({ error: null, target_changed: "yes" });
  });

  test("a statement that fails now ends with 34", () => {
    project = makeProject({ schema: SCHEMA });
    const plan = project.plan("CREATE UNIQUE INDEX one_total ON orders (total)");
    project.approve(plan);
    project.raw("INSERT INTO orders VALUES (41, 'pending', 1.5)");
    const before = project.dump();
    const ended = apply(plan);
    expect(ended).toMatchObject({
      target_changed: "no",
      exit: { code: 34 },
      error: { code: "ERR_DRIFT_ROWS" },
    });
    expect(ended.error?.why).toContain("UNIQUE");
    expect(project.dump()).toBe(before);
  });
});

describe("asking for a mode", () => {
  test("--mode script runs a data job again, its triggers once, its parameters as typed", () => {
    project = makeProject({ schema: SCHEMA });
    const plan = project.plan("UPDATE orders SET status = :s, total = :t WHERE id = :id", [
      "--mode",
      "script",
      "--set",
      "s:text=007",
      "--set",
      "t:number=1.5",
      "--set",
      "id=9223372036854775807",
    ]);
    project.approve(plan);
    expect(apply(plan)).toMatchObject({ error: null });
    const second = project.plan("UPDATE orders SET status = :s, total = :t WHERE id = :id", [
      "--mode",
      "script",
      "--set",
      "s:text=007",
      "--set",
      "t:number=0.1",
      "--set",
      "id=7",
    ]);
    project.approve(second);
    expect(apply(second)).toMatchObject({ error: null, target_changed: "yes" });
    expect(project.rows("SELECT status, total, typeof(status) AS t FROM orders WHERE id = 7")).toEqual([
      { status: "007", total: 0.1, t: "text" },
    ]);
    expect(project.rows("SELECT count(*) AS n FROM audit")).toEqual([{ n: 1 }]);
  });

  test("refuses what cannot hold, with the target as it was", () => {
    project = makeProject({ schema: SCHEMA });
    const before = project.dump();
    project.write("jobs/index.sql", "CREATE INDEX by_status ON orders (status)");
    project.write(
      "jobs/index.js",
      "export default ({ db }) => { db.run('CREATE INDEX by_status ON orders (status)'); };",
    );
    project.write(
      "jobs/rows.js",
      "export default ({ db }) => { db.run(\"UPDATE orders SET status = 'x' WHERE id = 1\"); };",
    );
    const plan = (...args: readonly string[]): unknown => {
      const { exit, error } = project.json(["plan", ...args, "--on", "shop-prod", "--key", "keys/dana"]);
      return [exit.code, error?.code];
    };
    expect(plan("jobs/index.sql", "--mode", "rows")).toEqual([2, "ERR_USAGE"]);
    expect(plan("jobs/index.sql", "--mode", "quick")).toEqual([2, "ERR_USAGE"]);
    expect(plan("jobs/index.sql", "--waves", "50%,100%")).toEqual([2, "ERR_USAGE"]);
    expect(plan("jobs/index.sql", "--put-back")).toEqual([2, "ERR_USAGE"]);
    expect(plan("jobs/index.js")).toEqual([2, "ERR_TARGET_UNSUPPORTED"]);
    expect(plan("jobs/rows.js", "--mode", "script")).toEqual([2, "ERR_TARGET_UNSUPPORTED"]);
    expect(project.dump()).toBe(before);
  });
});

describe("the way back", () => {
  test("rows that others put into a new table stay, and so does the table; a second undo says so", () => {
    project = makeProject({ schema: SCHEMA });
    const plan = project.plan(
      "CREATE TABLE parcels (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO parcels VALUES (1, 'ours')",
    );
    project.approve(plan);
    const run = String(apply(plan).result["run"]);
    project.raw("INSERT INTO parcels VALUES (2, 'theirs')");
    const waits = project.json(["undo", run, "--key", "keys/dana"]);
    expect(String((waits as unknown as { warnings: string[] }).warnings)).toContain(
      "rows of parcels that the run did not write would go with it",
    );
    const back = String(waits.result["plan"]);
    project.approve(back);
    expect(apply(back)).toMatchObject({ error: null });
    expect(project.rows("SELECT * FROM parcels")).toEqual([{ id: 2, note: "theirs" }]);
  });

  test("a dropped column is shown as no undo before anybody signs, and its undo is refused with 34", () => {
    project = makeProject({ schema: SCHEMA });
    const plan = project.plan("ALTER TABLE orders DROP COLUMN total");
    const shown = project.run(["show", plan]).stdout;
    expect(shown).toContain("alter table orders; no undo: the former columns are not put back");
    expect(shown).toMatch(/BACK\s+cannot be taken back: the former columns/);
    project.approve(plan, "ravi", ["--reason", "nobody reads it"]);
    const run = String(apply(plan).result["run"]);
    const ended = project.json(["undo", run, "--key", "keys/dana"]);
    expect(ended).toMatchObject({
      exit: { code: 34 },
      error: { code: "ERR_DRIFT_SCHEMA" },
      target_changed: "no",
    });
  });

  test("a schema change outside the declared scope refuses the plan with 30", () => {
    project = makeProject({ schema: SCHEMA });
    project.write("jobs/index.sql", "CREATE INDEX by_said ON audit (said)");
    const config = project.read("holdpoint.yaml");
    project.write(
      "holdpoint.yaml",
      config.replace(/^jobs:\n/m, "jobs:\n  index:\n    sql: jobs/index.sql\n    scope: [orders]\n"),
    );
    const ended = project.json(["plan", "index", "--on", "shop-prod", "--key", "keys/dana"]);
    expect(ended).toMatchObject({ exit: { code: 30 }, error: { code: "ERR_SCOPE_EXCEEDED" } });
    expect(ended.error?.why).toContain("create index by_said");
  });
});
