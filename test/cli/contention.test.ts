/** Other processes at the same database while holdpoint works: what waits, for how long, and that nothing is half done. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import Database from "better-sqlite3";
import { type Document, makeProject, type TestProject } from "../support/project.js";

const CANCEL = "UPDATE orders SET status = 'cancelled' WHERE status = 'pending' AND id <= 30";
const WRITER = resolve(import.meta.dirname, "../support/busy-writer.js");

describe.each(["wal", "delete"] as const)("in journal mode %s", (journal) => {
  let project: TestProject;
  beforeAll(() => {
    project = makeProject({ journal });
  });
  afterAll(() => project.close());

  const apply = (plan: string): Document => project.json(["apply", plan, "--confirm", "shop-prod"]);
  const approved = (sql: string): string => {
    const plan = project.plan(sql);
    project.approve(plan);
    return plan;
  };
  /** Holds a transaction of this process open while `act` runs. */
  const holding = <T>(statements: string, act: () => T): T => {
    const db = new Database(project.database);
    try {
      db.exec(statements);
      return act();
    } finally {
      db.close();
    }
  };

  test("a plan needs no write lock: it goes to a copy", () => {
    const made = holding("BEGIN IMMEDIATE", () =>
      project.json(["plan", project.write("jobs/c.sql", CANCEL), "--on", "shop-prod", "--key", "keys/dana"]),
    );
    expect(made).toMatchObject({ ok: true, result: { effect: { rows: 20 } } });
  });

  test("apply waits for the write lock, then ends with 38, and nothing is written or spent", () => {
    const plan = approved(CANCEL);
    const before = project.dump();
    const ended = holding("BEGIN IMMEDIATE", () => apply(plan));
    expect(ended).toMatchObject({
      exit: { code: 38 },
      target_changed: "no",
      error: { code: "ERR_TARGET_BUSY" },
    });
    expect(project.dump()).toBe(before);
    expect(apply(plan)).toMatchObject({
      error: null,
      target_changed: "yes",
      result: { rows: { written: 20 } },
    });
    expect(project.json(["log", "verify"])).toMatchObject({ ok: true });
  });

  test("a reader in the middle of its transaction: WAL does not mind, a rollback journal ends with 38", () => {
    const plan = approved("UPDATE orders SET note = 'x' WHERE id = 300");
    const before = project.dump();
    const ended = holding("BEGIN; SELECT count(*) FROM orders", () => apply(plan));
    if (journal === "wal") {
      expect(ended).toMatchObject({ error: null, target_changed: "yes" });
      return;
    }
    expect(ended).toMatchObject({
      exit: { code: 38 },
      target_changed: "no",
      error: { code: "ERR_TARGET_BUSY" },
    });
    expect(project.dump()).toBe(before);
    expect(apply(plan)).toMatchObject({ error: null, target_changed: "yes" });
  });

  test("a script waits and is refused like any other run", () => {
    const plan = approved("CREATE INDEX by_status ON orders (status)");
    const before = project.dump();
    const ended = holding("BEGIN IMMEDIATE", () => apply(plan));
    expect(ended).toMatchObject({
      exit: { code: 38 },
      target_changed: "no",
      error: { code: "ERR_TARGET_BUSY" },
    });
    expect(project.dump()).toBe(before);
    expect(apply(plan)).toMatchObject({ error: null, target_changed: "yes", result: { schema_changes: 1 } });
  });

  test("a database that nobody may read ends with 38 or 39 before anything", () => {
    const file = project.write("jobs/d.sql", "UPDATE orders SET note = 'y' WHERE id = 301");
    const exclusive =
      journal === "wal" ? "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE" : "BEGIN EXCLUSIVE";
    const ended = holding(exclusive, () =>
      project.json(["plan", file, "--on", "shop-prod", "--key", "keys/dana"]),
    );
    expect([38, 39]).toContain(ended.exit.code);
    expect(ended.target_changed).toBe("no");
  });

  test("another process that commits all the time is waited for and loses nothing", async () => {
    const writer = spawn(process.execPath, [WRITER, project.database], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    try {
      await once(writer.stdout, "data");
      const plan = approved("UPDATE orders SET note = 'among others' WHERE id BETWEEN 100 AND 150");
      expect(apply(plan)).toMatchObject({ error: null, result: { rows: { written: 51 } } });
    } finally {
      await stopped(writer);
    }
    expect(project.rows("SELECT count(*) AS n FROM orders WHERE note = 'among others'")).toEqual([{ n: 51 }]);
    const [seen] = project.rows("SELECT name FROM customers WHERE id = 100") as { name: string }[];
    expect(Number(seen?.name)).toBeGreaterThan(1);
    expect(project.rows("PRAGMA integrity_check")).toEqual([{ integrity_check: "ok" }]);
  });
});

/** Asks the writer to end by closing its input, and waits until it has. */
async function stopped(writer: ChildProcess): Promise<void> {
  const ended = writer.exitCode === null ? once(writer, "exit") : Promise.resolve();
  writer.stdin?.end();
  await ended;
}
