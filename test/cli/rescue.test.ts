/** Rescue through the real binary: declarations, decisions, evidence from the ledger, and every refusal; it never writes. */
import { readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { bytesOf, type Document, makeProject, type TestProject } from "../support/project.js";

let project: TestProject;
beforeAll(() => {
  project = makeProject({ journal: "delete" });
  // A run of ours after the snapshot: what it removed was removed by its owner.
  expect(
    project.json(["snapshot", "take", "--on", "shop-prod", "--table", "orders", "--table", "customers"])
      .error,
  ).toBeNull();
  const plan = project.plan("DELETE FROM orders WHERE id IN (390, 391)");
  project.approve(plan);
  expect(project.json(["apply", plan, "--confirm", "shop-prod"]).error).toBeNull();
  // The damage, and people who go on working.
  project.raw(
    "DELETE FROM orders WHERE id BETWEEN 100 AND 139; UPDATE orders SET note = 'wrong' WHERE id <= 20",
  );
  project.raw(
    "UPDATE orders SET status = 'sent' WHERE id IN (5, 6); INSERT INTO orders VALUES (900, 1, 'new', NULL, 1)",
  );
});
afterAll(() => project.close());

/** Rescues, and holds that the target is the same to the byte. */
function rescue(...args: string[]): Document {
  const before = bytesOf(project.database);
  const document = project.json(["rescue", "--on", "shop-prod", "--key", "keys/dana", ...args]);
  expect(bytesOf(project.database).equals(before)).toBe(true);
  return document;
}

describe("what is declared", () => {
  test("deleted rows come back, but not those that a run of ours deleted", () => {
    const made = rescue("--table", "orders", "--damage", "deleted");
    expect(made.error).toBeNull();
    expect(made.result).toMatchObject({
      counts: { put_back: 40, removed: 2, other: 20, born: 1, conflict: 0 },
    });
    expect(made.result["removed"]).toEqual([
      { table: "orders", key: { id: 390 } },
      { table: "orders", key: { id: 391 } },
    ]);
  });

  test("a column that was set is restored beside newer edits of other columns", () => {
    const made = rescue("--damage", "orders.note = 'wrong'");
    expect(made.result).toMatchObject({ counts: { put_back: 18, merged: 2, removed: 42, conflict: 0 } });
  });

  test("rows by predicate: everything in them that differs, and nothing else", () => {
    const made = rescue(
      "--table",
      "orders",
      "--where",
      "id BETWEEN 100 AND 109 OR now_note = 'wrong' AND id < 5",
    );
    expect(made.result).toMatchObject({ counts: { put_back: 14, removed: 0, undecidable: 0 } });
  });

  test("born rows are listed with their keys, in a new file that is never overwritten", () => {
    expect(rescue("--damage", "deleted", "--born", "born.jsonl").error).toBeNull();
    expect(project.read("born.jsonl")).toBe('{"table":"orders","key":{"id":900}}\n');
    expect(rescue("--damage", "deleted", "--born", "born.jsonl").error?.code).toBe("ERR_USAGE");
  });
});

describe("what nobody but a person can decide", () => {
  test("is written to a file, and goes as decided", () => {
    const open = rescue("--table", "orders");
    expect(open.exit.code).toBe(37);
    expect(open.result).toMatchObject({ plan: null, counts: { undecidable: 60, removed: 2 } });
    const file = String(open.result["resolutions"]);
    let row = 0;
    const decided = project
      .read(file)
      .replaceAll('decide: "?"', () => `decide: ${row++ % 3 === 0 ? "restore-before" : "keep-now"}`);
    const made = rescue("--table", "orders", "--resolutions", project.write("decided.yaml", decided));
    expect(made.error).toBeNull();
    expect(made.result).toMatchObject({ counts: { merged: 20, kept: 40, undecidable: 0 } });
  });

  test("is reported in patterns, and no file is written, while nothing is narrowed or declared", () => {
    const files = readdirSync(project.dir).length;
    const report = project.run(["rescue", "--on", "shop-prod"]);
    expect(report.status).toBe(37);
    expect(report.stdout).toMatch(
      /CHANGED SINCE THE SNAPSHOT[\s\S]*note: NULL . 'wrong'|CHANGED SINCE THE SNAPSHOT[\s\S]*wrong/,
    );
    expect(report.stderr).toMatch(/Nothing was written/);
    expect(readdirSync(project.dir).length).toBe(files);
  });
});

describe("refused", () => {
  test.each<[string, readonly string[], string]>([
    ["damage that says nothing", ["--damage", "gone"], "ERR_USAGE"],
    ["a column that no changed table has", ["--damage", "nothing = 1"], "ERR_USAGE"],
    ["a table that the snapshot does not hold", ["--table", "nothing"], "ERR_USAGE"],
    ["an expression that is no SQL", ["--damage", "note = ("], "ERR_USAGE"],
    ["an unknown snapshot", ["--from", "sn_0000000000000000"], "ERR_SNAPSHOT_UNKNOWN"],
    ["a file of decisions that is not there", ["--resolutions", "none.yaml"], "ERR_RESOLUTIONS_INVALID"],
    ["a blank predicate", ["--where", ""], "ERR_USAGE"],
  ])("%s", (_, args, code) => {
    expect(rescue(...args).error?.code).toBe(code);
  });

  test("a table that has other columns now (34)", () => {
    project.raw("ALTER TABLE customers ADD COLUMN phone TEXT");
    const drifted = rescue("--damage", "deleted");
    expect(drifted.exit.code).toBe(34);
    expect(drifted.error?.code).toBe("ERR_DRIFT_SCHEMA");
    expect(rescue("--table", "orders", "--damage", "deleted").result).toMatchObject({
      counts: { put_back: 40 },
    });
  });

  test("a target without a good snapshot (36)", () => {
    for (const { snapshot } of (project.json(["snapshot", "list"]).result["snapshots"] ?? []) as {
      snapshot: string;
    }[])
      project.json(["snapshot", "prune", snapshot, "--even-if-needed"]);
    expect(rescue("--damage", "deleted").exit.code).toBe(36);
  });
});

test("of more rows than are tried in place, those that the target would not take are listed all the same", () => {
  const numbers =
    "(WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 12000) SELECT v FROM n)";
  const large = makeProject({
    schema: `CREATE TABLE hosts (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
      CREATE TABLE ports (id INTEGER PRIMARY KEY, host INTEGER NOT NULL REFERENCES hosts (id) ON DELETE CASCADE);
      INSERT INTO hosts SELECT v, 'host ' || v FROM ${numbers}; INSERT INTO ports SELECT v, v FROM ${numbers};`,
  });
  try {
    expect(large.json(["snapshot", "take", "--on", "shop-prod"]).error).toBeNull();
    large.raw("DELETE FROM hosts WHERE id > 100; INSERT INTO hosts VALUES (20000, 'host 777')");
    const made = large.json(["rescue", "--on", "shop-prod", "--damage", "deleted", "--key", "keys/dana"]);
    expect([made.exit.code, made.result["counts"]]).toMatchObject([37, { put_back: 23_798, conflict: 2 }]);
    expect(made.result["conflicts"]).toEqual([
      expect.objectContaining({ table: "hosts", key: { id: 777 }, kind: "constraint" }),
      expect.objectContaining({ table: "ports", key: { id: 777 }, kind: "foreign-key" }),
    ]);
  } finally {
    large.close();
  }
});

test("rows without their parents are left out many at a time: 2,100, of 70 whose names live again", () => {
  const numbers = (n: number): string =>
    `(WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < ${n}) SELECT v FROM n)`;
  const large = makeProject({
    schema: `CREATE TABLE hosts (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
      CREATE TABLE ports (id INTEGER PRIMARY KEY, host INTEGER NOT NULL REFERENCES hosts (id) ON DELETE CASCADE);
      INSERT INTO hosts SELECT v, 'host ' || v FROM ${numbers(100)};
      INSERT INTO ports SELECT v, 1 + v % 100 FROM ${numbers(3_000)};`,
  });
  try {
    expect(large.json(["snapshot", "take", "--on", "shop-prod"]).error).toBeNull();
    large.raw(`DELETE FROM hosts; INSERT INTO hosts SELECT 1000 + v, 'host ' || v FROM ${numbers(70)}`);
    const made = large.json(["rescue", "--on", "shop-prod", "--damage", "deleted", "--key", "keys/dana"]);
    expect([made.exit.code, made.result["counts"]]).toMatchObject([37, { put_back: 930, conflict: 2_170 }]);
  } finally {
    large.close();
  }
});

test("a rescue from a snapshot older than the spend brings back rows, and no token with them (31)", () => {
  const own = makeProject({ journal: "delete" });
  try {
    const taken = own.json(["snapshot", "take", "--on", "shop-prod"]);
    expect(taken.error).toBeNull();
    const plan = own.plan("UPDATE orders SET note = 'seen' WHERE id = 7");
    own.approve(plan);
    const apply = ["apply", plan, "--confirm", "shop-prod"];
    expect(own.json(apply).error).toBeNull();
    own.raw("DELETE FROM orders WHERE id BETWEEN 100 AND 104");
    const from = ["--from", String(taken.result["snapshot"]), "--table", "orders", "--damage", "deleted"];
    const made = own.json(["rescue", "--on", "shop-prod", "--key", "keys/dana", ...from]);
    expect(made.error).toBeNull();
    const rescue = String(made.result["plan"]);
    own.approve(rescue);
    expect(own.json(["apply", rescue, "--confirm", "shop-prod"]).error).toBeNull();
    expect(own.rows("SELECT count(*) AS n FROM orders")).toEqual([{ n: 400 }]);
    expect(own.rows("SELECT plan FROM holdpoint_spent ORDER BY at, plan").length).toBe(2);
    own.raw("UPDATE orders SET note = NULL WHERE id = 7");
    for (const spent of [plan, rescue]) {
      const again = own.json(["apply", spent, "--confirm", "shop-prod"]);
      expect([again.exit.code, again.error?.code]).toEqual([31, "ERR_APPROVAL_SPENT"]);
    }
  } finally {
    own.close();
  }
});
