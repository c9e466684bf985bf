/** Undo in full: decisions row by row, narrowing, several runs, an undo of an undo, and what the target would not take. */
import { existsSync, readdirSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { makeProject, type TestProject } from "../support/project.js";

const SCHEMA = `
  CREATE TABLE orders (
    id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, status TEXT NOT NULL, note TEXT, code TEXT UNIQUE,
    label TEXT GENERATED ALWAYS AS (status || '/' || coalesce(note, '-')) VIRTUAL
  );
  CREATE TABLE lines (id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL REFERENCES orders (id) ON DELETE CASCADE);
`;
const ROWS = `
  DELETE FROM lines; DELETE FROM orders;
  INSERT INTO orders (id, tenant, status, note, code)
    SELECT v, v % 4, 'pending', NULL, 'c' || v FROM (WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 40) SELECT v FROM n);
  INSERT INTO lines SELECT id, id FROM orders;
`;

let project: TestProject;
beforeAll(() => {
  project = makeProject({ schema: SCHEMA, environment: "development", target: "shop-dev" });
});
afterAll(() => project.close());
beforeEach(() => project.raw(ROWS));

const confirm = ["--key", "keys/dana", "--confirm", "shop-dev"];

function applied(sql: string): string {
  const plan = project.plan(sql);
  return finish(plan);
}

function finish(plan: string): string {
  const first = project.json(["apply", plan, "--confirm", "shop-dev"]);
  if (first.ok) return String(first.result["run"]);
  project.approve(plan);
  const done = project.json(["apply", plan, "--confirm", "shop-dev"]);
  expect(done.error).toBeNull();
  return String(done.result["run"]);
}

/** Undoes, through an approval where one is needed; gives the run. */
function undone(...args: string[]): string {
  const ended = project.json(["undo", ...args, ...confirm]);
  if (ended.result["run"] !== null) return String(ended.result["run"]);
  expect(ended.exit.code).toBe(21);
  return finish(String(ended.result["plan"]));
}

const statuses = (): unknown =>
  project.rows("SELECT status, count(*) AS n FROM orders GROUP BY status ORDER BY status");

describe("decisions row by row", () => {
  const decide = (file: string, ...words: string[]): string => {
    let i = 0;
    const text = project.read(file).replaceAll('decide: "?"', () => `decide: ${words[i++] ?? "keep-now"}`);
    return project.write(`decided-${readdirSync(project.dir).length}.yaml`, text);
  };

  test("a conflict writes a file with before, wrote, now; filled in, each row goes as decided", () => {
    const run = applied("UPDATE orders SET status = 'paid' WHERE id <= 10");
    project.raw("UPDATE orders SET status = 'sent' WHERE id IN (3, 4)");
    const stopped = project.json(["undo", run]);
    expect(stopped.exit.code).toBe(37);
    const file = String(stopped.result["resolutions"]);
    expect(file).toBe(`conflicts-${run}.yaml`);
    expect(project.read(file)).toMatch(/before: "'?pending'?"\n\s+wrote: "'?paid'?"\n\s+now: "'?sent'?"/);
    undone(run, "--resolutions", decide(file, "restore-before", "keep-now"));
    expect(project.rows("SELECT id, status FROM orders WHERE id IN (3, 4)")).toEqual([
      { id: 3, status: "pending" },
      { id: 4, status: "sent" },
    ]);
    expect(statuses()).toEqual([
      { status: "pending", n: 39 },
      { status: "sent", n: 1 },
    ]);
  });

  test("a file that was written is never overwritten", () => {
    const run = applied("UPDATE orders SET status = 'paid' WHERE id <= 2");
    project.raw("UPDATE orders SET status = 'sent' WHERE id = 1");
    expect(project.json(["undo", run]).result["resolutions"]).toBe(`conflicts-${run}.yaml`);
    expect(project.json(["undo", run]).result["resolutions"]).toBe(`conflicts-${run}-2.yaml`);
    expect(existsSync(project.path(`conflicts-${run}.yaml`))).toBe(true);
  });

  test("undecided, altered, stale and foreign files are refused (2), and nothing is written", () => {
    const run = applied("UPDATE orders SET status = 'paid' WHERE id <= 2");
    project.raw("UPDATE orders SET status = 'sent' WHERE id = 1");
    const file = String(project.json(["undo", run]).result["resolutions"]);
    const refused = (f: string): unknown => project.json(["undo", run, "--resolutions", f]).error?.code;
    const before = project.dump();
    expect(refused(file)).toBe("ERR_RESOLUTIONS_INVALID");
    expect(refused("not-there.yaml")).toBe("ERR_RESOLUTIONS_INVALID");
    const decided = decide(file, "restore-before");
    expect(refused(project.write("extra.yaml", `${project.read(decided)}more: 1\n`))).toBe(
      "ERR_RESOLUTIONS_INVALID",
    );
    expect(
      refused(project.write("other.yaml", project.read(decided).replaceAll(run, "rn_0000000000000000"))),
    ).toBe("ERR_RESOLUTIONS_INVALID");
    expect(project.dump()).toBe(before);
    // The row moves on after it was decided: the decision was about another value.
    project.raw("UPDATE orders SET status = 'returned' WHERE id = 1");
    expect(refused(decided)).toBe("ERR_RESOLUTIONS_INVALID");
  });

  test("a row whose key lives again cannot be restored by any decision", () => {
    const run = applied("DELETE FROM orders WHERE id = 7");
    project.raw("INSERT INTO orders (id, tenant, status) VALUES (7, 1, 'new')");
    const file = String(project.json(["undo", run]).result["resolutions"]);
    const text = project.read(file);
    expect(text).toContain('kind: "two-entities"');
    const forced = project.write(
      "forced.yaml",
      text.replaceAll(/decide: "?keep-now"?/g, "decide: restore-before"),
    );
    expect(project.json(["undo", run, "--resolutions", forced]).error?.code).toBe("ERR_RESOLUTIONS_INVALID");
  });
});

describe("narrowed", () => {
  test("by table: the rows of another stay as they are, and are taken back later", () => {
    const run = applied("DELETE FROM orders WHERE id <= 6");
    const count = (): unknown =>
      project.rows("SELECT (SELECT count(*) FROM orders) AS orders, (SELECT count(*) FROM lines) AS lines");
    expect(count()).toEqual([{ orders: 34, lines: 34 }]);
    // The child alone has no parent to go back to.
    const orphans = project.json(["undo", run, "--table", "lines", ...confirm]);
    expect([orphans.exit.code, orphans.error?.code]).toEqual([37, "ERR_UNDO_CONFLICT"]);
    expect(count()).toEqual([{ orders: 34, lines: 34 }]);
    undone(run, "--table", "orders");
    expect(count()).toEqual([{ orders: 40, lines: 34 }]);
    undone(run, "--table", "lines");
    expect(count()).toEqual([{ orders: 40, lines: 40 }]);
  });

  test("by a range of keys, both ends in it", () => {
    const run = applied("UPDATE orders SET status = 'paid' WHERE id <= 20");
    undone(run, "--where", "before_id BETWEEN 5 AND 9");
    const back =
      "SELECT min(id) AS a, max(id) AS b, count(*) AS n FROM orders WHERE id <= 20 AND status = 'pending'";
    expect(project.rows(back)).toEqual([{ a: 5, b: 9, n: 5 }]);
  });

  test("by predicate and by column; the rest is left alone and counted", () => {
    const run = applied("UPDATE orders SET status = 'paid', note = 'x' WHERE id <= 20");
    undone(run, "--where", "tenant = 2 AND now_status = 'paid'", "--column", "orders.status");
    expect(statuses()).toEqual([
      { status: "paid", n: 15 },
      { status: "pending", n: 25 },
    ]);
    expect(project.rows("SELECT count(*) AS n FROM orders WHERE note = 'x'")).toEqual([{ n: 20 }]);
  });

  test.each([
    ["an unknown table", ["--table", "nothing"]],
    ["an unknown column", ["--column", "nothing"]],
    ["a predicate that is no SQL", ["--where", "status ="]],
    ["a predicate that would do something", ["--where", "1); DELETE FROM orders; --"]],
    ["a blank predicate", ["--where", " "]],
  ])("%s is refused (2)", (_, args) => {
    const run = applied("UPDATE orders SET note = 'n' WHERE id = 1");
    const before = project.dump();
    expect(project.json(["undo", run, ...args]).exit.code).toBe(2);
    expect(project.dump()).toBe(before);
  });
});

describe("a part of a run", () => {
  const listed = (run: string): Record<string, unknown> => {
    const { runs } = project.json(["status", run]).result as unknown as { runs: Record<string, unknown>[] };
    return runs.find((r) => r["run"] === run) ?? {};
  };

  test("leaves the run partly undone with what is left, until the rest is taken back; undone again, all of it stands", () => {
    const run = applied("UPDATE orders SET status = 'paid' WHERE id <= 20");
    const first = undone(run, "--where", "before_id <= 8");
    expect(listed(run)).toMatchObject({ state: "done", undone_by: first, rows_left: 12 });
    expect(project.run(["log"]).stdout.replace(/\s+/g, " ")).toContain("12 of 20 rows left");
    expect(project.run(["status", run]).stdout.replace(/\s+/g, " ")).toContain("partly undone: 12 rows left");
    // What an undo still needs is not pruned away.
    const snapshot = String(listed(run)["snapshot"]);
    expect(project.json(["snapshot", "prune", snapshot]).result["removed"]).toEqual([]);

    const rest = undone(run);
    expect(listed(run)).toMatchObject({ state: "undone", undone_by: rest, rows_left: null });
    expect(statuses()).toEqual([{ status: "pending", n: 40 }]);
    // The second undo, undone: the first one stands alone again.
    undone(rest);
    expect(statuses()).toEqual([
      { status: "paid", n: 12 },
      { status: "pending", n: 28 },
    ]);
    expect(listed(run)).toMatchObject({ state: "done", undone_by: first, rows_left: 12 });
  });

  test("twice the same part is no more than that part", () => {
    const run = applied("UPDATE orders SET status = 'paid' WHERE id <= 20");
    undone(run, "--where", "before_id <= 8");
    const again = project.json(["undo", run, "--where", "before_id <= 8", ...confirm]);
    expect(again.result["run"]).toBeNull();
    expect(listed(run)).toMatchObject({ state: "done", rows_left: 12 });
  });
});

describe("several runs, and an undo of an undo", () => {
  test("two runs on the same rows go back newest first, whatever their order on the command line", () => {
    const before = project.dump();
    const first = applied("UPDATE orders SET status = 'paid' WHERE id <= 10");
    const second = applied("UPDATE orders SET status = 'sent' WHERE id BETWEEN 5 AND 15");
    expect(project.json(["undo", first]).exit.code).toBe(37);
    undone(first, second);
    expect(project.dump()).toBe(before);
  });

  test("undoing the undo gives the state after the run again, and the log says so", () => {
    const run = applied("UPDATE orders SET status = 'paid' WHERE id <= 10");
    const after = project.dump();
    const back = undone(run);
    expect(project.json(["status", run]).result).toMatchObject({ runs: [{ run, state: "undone" }] });
    undone(back);
    expect(project.dump()).toBe(after);
    expect(project.json(["status", run]).result).toMatchObject({ runs: [{ run, state: "done" }] });
  });

  test("a changed key goes back as one row", () => {
    const before = project.dump();
    const run = applied("DELETE FROM lines WHERE order_id = 9; UPDATE orders SET id = 900 WHERE id = 9");
    undone(run);
    expect(project.dump()).toBe(before);
  });
});

describe("what the target computes, and what it would not take", () => {
  test("a merge beside a newer edit of a cell that a generated column reads", () => {
    const run = applied("UPDATE orders SET status = 'paid' WHERE id <= 3");
    project.raw("UPDATE orders SET note = 'call' WHERE id = 2");
    undone(run);
    expect(project.rows("SELECT status, note, label FROM orders WHERE id = 2")).toEqual([
      { status: "pending", note: "call", label: "pending/call" },
    ]);
  });

  test("a unique value that somebody took since is reported apart from conflicts, before anybody approves (37)", () => {
    const run = applied("UPDATE orders SET code = 'free-' || id WHERE id = 5");
    project.raw("INSERT INTO orders (id, tenant, status, code) VALUES (500, 1, 'pending', 'c5')");
    const before = project.dump();
    const stopped = project.json(["undo", run]);
    expect(stopped.exit.code).toBe(37);
    expect(stopped.error?.why).toMatch(/UNIQUE/);
    expect(stopped.result).toMatchObject({ counts: { conflict: 0 }, resolutions: null });
    expect(project.dump()).toBe(before);
  });

  test("a child whose parent its owner removed is not put back alone (37)", () => {
    const run = applied("DELETE FROM lines WHERE id = 8");
    project.raw("DELETE FROM orders WHERE id = 8");
    expect(project.json(["undo", run]).exit.code).toBe(37);
  });

  test("a run that was forgotten cannot be undone, and says so (2)", () => {
    const run = applied("UPDATE orders SET note = 'n' WHERE id = 1");
    expect(project.json(["snapshot", "forget", run]).exit.code).toBe(22);
    expect(project.json(["snapshot", "forget", run, "--confirm", run]).error).toBeNull();
    expect(project.json(["undo", run]).error?.code).toBe("ERR_UNDO_NOTHING");
    expect(project.run(["log", "verify"]).status).toBe(0);
  });
});

describe("who", () => {
  test("tells every run that touched a row, with before and after; masked columns masked", () => {
    const first = applied("UPDATE orders SET status = 'paid' WHERE id = 1");
    const second = applied("DELETE FROM orders WHERE id = 1");
    const who = project.json(["log", "who", "--on", "shop-dev", "--table", "orders", "--key", "1"]);
    const runs = who.result["runs"] as unknown as { run: string }[];
    expect(runs.map((r) => r.run).slice(-2)).toEqual([first, second]);
    expect(runs.at(-1)).toMatchObject({ before: { id: 1, status: "paid" }, after: null });
    expect(who.result).toMatchObject({ now: null });
  });

  test.each([
    ["no target", ["log", "who", "--table", "orders", "--key", "1"]],
    ["an unknown table", ["log", "who", "--on", "shop-dev", "--table", "x", "--key", "1"]],
    ["a key too long", ["log", "who", "--on", "shop-dev", "--table", "orders", "--key", "1", "--key", "2"]],
  ])("%s is refused (2)", (_, args) => {
    expect(project.json(args).exit.code).toBe(2);
  });
});
