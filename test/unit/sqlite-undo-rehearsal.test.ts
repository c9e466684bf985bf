/** The way back, tried on a private copy: what it says, and that the target is left as it was, to the byte. */
import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { sourceOf } from "../../src/changeset/source.js";
import type { Target, UndoRehearsal } from "../../src/target/target.js";
import { rehearseAll, sqlJob } from "../support/rehearsing.js";
import { fileDigests, openTarget, runRaw } from "../support/sqlite.js";

const SCHEMA = `
  CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
  CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parent (id) ON DELETE CASCADE);
  CREATE TABLE audit (id INTEGER PRIMARY KEY, what TEXT);
  CREATE TRIGGER told AFTER UPDATE ON parent BEGIN INSERT INTO audit (what) VALUES (new.name); END;
  INSERT INTO parent VALUES (1, 'a'), (2, 'b'), (3, 'c');
  INSERT INTO child VALUES (10, 1), (11, 1), (12, 2);
`;

let folder: string;
let path: string;
let target: Target;

beforeEach(async () => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "holdpoint-test-")));
  path = join(folder, "shop.db");
  runRaw(path, SCHEMA);
  target = await openTarget(path, folder);
});
afterEach(async () => {
  await target.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Rehearses a job, lets `meanwhile` happen, and tries the way back. */
async function wayBack(sql: string, meanwhile?: string): Promise<UndoRehearsal | undefined> {
  const { effect } = await rehearseAll(target, sqlJob(sql));
  if (meanwhile !== undefined) runRaw(path, meanwhile);
  return target.rehearseUndo?.(sourceOf(effect));
}

describe("the way back of a job is tried whole", () => {
  test.each([
    ["an update, its trigger's rows with it", "UPDATE parent SET name = name || '!'", 6],
    ["deletes with their cascade", "DELETE FROM parent WHERE id = 1", 3],
    ["inserts", "INSERT INTO child VALUES (20, 3)", 1],
    [
      "a swap of unique values",
      "UPDATE parent SET name = CASE id WHEN 1 THEN 'b_' ELSE 'a_' END WHERE id < 3",
      4,
    ],
    ["nothing", "UPDATE parent SET name = 'x' WHERE id > 90", 0],
  ])("%s", async (_, sql, of) => {
    const before = fileDigests(path);
    expect(await wayBack(sql)).toEqual({ rehearsed: "all", identical: of, of, why: null });
    expect(fileDigests(path)).toEqual(before);
    expect(existsSync(join(folder, "scratch")) ? readdirSync(join(folder, "scratch")) : []).toEqual([]);
  });
});

test("rows that moved meanwhile: it says so, without their values, and keeps nothing", async () => {
  const found = await wayBack(
    "UPDATE parent SET name = 'x' WHERE id = 3",
    "UPDATE parent SET name = 'secret' WHERE id = 3",
  );
  expect(found).toMatchObject({ rehearsed: "not", identical: 0 });
  expect(found?.why).toMatch(/a row of \w+ is not as it was/);
  expect(found?.why).not.toMatch(/secret/);
});
