/**
 * The outage of 24 December 2012 as `npm run replay` tells it, at its smallest size, on SQLite and on PostgreSQL; and that the
 * oracle behind its last lines sees each kind of loss when there is one.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import Database from "better-sqlite3";
import { whyNoServer } from "../support/postgres.js";

const REPLAY = resolve(import.meta.dirname, "../../../replay/replay.js");

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "holdpoint-test-"));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function replay(...args: readonly string[]): { readonly status: number | null; readonly text: string } {
  const done = spawnSync(process.execPath, [REPLAY, ...args], { encoding: "utf8" });
  return { status: done.status, text: done.stdout + done.stderr };
}

/** Plays the story and gives its figures; a story that ended badly fails the test with what it said. */
function figuresOf(...args: readonly string[]): Record<string, unknown> {
  const json = join(scratch, "figures.json");
  const { status, text } = replay("--work-ms", "500", "--json", json, ...args);
  if (status !== 0) throw new Error(text);
  return JSON.parse(readFileSync(json, "utf8")) as Record<string, unknown>;
}

const NOTHING_WRONG = { balancers: 1000, lost: 0, resurrected: 0, missing: 0, strangers: 0, orphans: 0 };

function expectToldTruly(figures: Record<string, unknown>): void {
  expect(figures).toMatchObject(NOTHING_WRONG);
  // About 68 of 1,000: now and then an owner changes an idle balancer, and then the purge passes it by.
  expect(figures["purged"]).toBeGreaterThan(40);
  expect(figures["purged"]).toBeLessThanOrEqual(68);
  expect(figures["writes"]).toBeGreaterThan(200);
  // Rows whose owners made the balancer anew meanwhile: each is listed, and no other.
  expect(figures["conflicts"]).toBe(figures["conflictsExpected"]);
}

describe("on SQLite", () => {
  test("no write is lost, no row comes back that its owner gave up", () => {
    expectToldTruly(figuresOf("--keep", join(scratch, "kept")));
    expect(replay("--judge", join(scratch, "kept"))).toMatchObject({ status: 0 });
  });

  test.each<readonly [string, (db: Database.Database) => unknown, string]>([
    [
      "a write that is not there",
      (db) => db.exec("UPDATE back_ends SET weight = -1 WHERE back_end_id > 1000000000000"),
      "lost",
    ],
    [
      "a balancer that its owner gave up",
      (db) =>
        db.exec(
          "INSERT INTO balancers SELECT balancer_id, 1, 'given-up', 'eu-west-1', at FROM retirements LIMIT 1",
        ),
      "resurrected",
    ],
    [
      "a row that nobody touched and that is gone",
      (db) => db.exec("DELETE FROM balancers WHERE changed_at < '2012-11-01'"),
      "missing",
    ],
    [
      "a row that nobody wrote",
      (db) =>
        db.exec(
          "INSERT INTO balancers VALUES (999999999, 1, 'stranger', 'eu-west-1', '2012-12-24T00:00:00Z')",
        ),
      "strangers",
    ],
  ])("the oracle sees %s", (_, harm, what) => {
    const kept = join(scratch, "kept");
    const database = join(kept, "elb-prod.db");
    const saved = join(scratch, `${what}.db`);
    copyFileSync(database, saved);
    const db = new Database(database);
    db.pragma("foreign_keys = ON");
    harm(db);
    db.close();
    const judged = replay("--judge", kept);
    copyFileSync(saved, database);
    expect(judged.status).toBe(1);
    expect(judged.text).toMatch(new RegExp(`^${what}: `, "m"));
  });
});

const missing = whyNoServer();
(missing === null ? describe : describe.skip)("on PostgreSQL", () => {
  test("no write is lost, no row comes back that its owner gave up", () => {
    expectToldTruly(figuresOf("--on", "postgres", "--quiet"));
  });
});

test("what it does not know is refused", () => {
  expect(replay("--size", "2k")).toMatchObject({ status: 2 });
  expect(replay("--on", "oracle")).toMatchObject({ status: 2 });
});
