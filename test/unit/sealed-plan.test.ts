/**
 * An undo is applied by the process that sealed its plan: the rows it holds are then not decoded from the plan's file again.
 * Both ways must be one, every byte of the file counts all the same, and a large undo is tried before it is planned.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import Database from "better-sqlite3";
import type { Change } from "../../src/changeset/change.js";
import { collect } from "../../src/changeset/source.js";
import { applyPlan } from "../../src/operations/apply.js";
import { loadPlan, loadSealed } from "../../src/operations/recall/stored-plan.js";
import type { Toolbox } from "../../src/operations/toolbox.js";
import { undoRun } from "../../src/operations/undo.js";
import { dumpOf, makeProject, type TestProject } from "../support/project.js";
import { withTools } from "../support/wired.js";

const ROWS = 10_050;
const numbers = (to: number): string =>
  `(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < ${to}) SELECT value FROM n)`;
const SCHEMA = `
  CREATE TABLE item (id INTEGER PRIMARY KEY, state TEXT UNIQUE, n INTEGER);
  INSERT INTO item SELECT value, 's' || value, value FROM ${numbers(ROWS)};
`;

let project: TestProject;
let original: string;
beforeAll(() => {
  project = makeProject({ schema: SCHEMA, environment: "development", target: "shop" });
  original = dumpOf(project.database);
});
afterAll(() => project.close());

/** A run of a statement, applied. */
function applied(sql: string): { readonly plan: string; readonly run: string } {
  const plan = project.plan(sql);
  return { plan, run: String(project.json(["apply", plan]).result["run"]) };
}

const undoing = (run: string): Parameters<typeof undoRun>[1] => ({
  runs: [run],
  onConflict: "stop",
  resolutions: undefined,
  key: undefined,
  out: undefined,
  reason: null,
  confirm: async () => undefined,
  tables: [],
  columns: [],
  where: undefined,
});

/** The tools, and every plan whose rows were decoded from its file. */
function watched(tools: Toolbox): { readonly tools: Toolbox; readonly decoded: string[] } {
  const decoded: string[] = [];
  const read: Toolbox["plans"]["read"] = async (ref) => {
    const file = await tools.plans.read(ref);
    return {
      ...file,
      loadInto: (sink) => {
        decoded.push(ref);
        return file.loadInto(sink);
      },
    };
  };
  return { tools: { ...tools, plans: { ...tools.plans, read } }, decoded };
}

test("what the process sealed is what the file holds, and any other bytes or rows are refused", async () => {
  const { plan, run } = applied("UPDATE item SET n = -n WHERE id <= 300");
  await withTools(project.dir, async (tools) => {
    const loaded = await loadPlan(tools, plan);
    try {
      const sealed = await loadSealed(tools, plan, loaded.changes);
      expect({ ...sealed, close: null }).toEqual({ ...loaded, close: null });

      const altered = expect.objectContaining({ code: "ERR_PLAN_ALTERED" });
      for (const change of [null, ...collect(loaded.changes).changes.slice(0, 1)]) {
        const others = await tools.workingChanges();
        for (const shape of loaded.changes.tables) others.table(shape);
        for (const c of loaded.changes.changes("item")) {
          if (c.key[0] !== 1n) others.add(c);
          else if (change !== null) others.add(otherwise(c));
        }
        const file = others.finish();
        await expect(loadSealed(tools, plan, file)).rejects.toEqual(altered);
        file.close();
      }
      const bytes = readFileSync(loaded.path);
      for (let at = 20; at < bytes.length; at += Math.ceil(bytes.length / 40)) {
        const changed = Buffer.from(bytes);
        changed[at] = (changed[at] ?? 0) ^ 1;
        writeFileSync(loaded.path, changed);
        await expect(loadSealed(tools, plan, loaded.changes)).rejects.toEqual(altered);
      }
      writeFileSync(loaded.path, bytes);
    } finally {
      loaded.close();
    }
    await undoRun(tools, undoing(run));
  });
  expect(dumpOf(project.database)).toBe(original);
});

/** The same row with another number. */
function otherwise(c: Change): Change {
  return c.op === "update" ? { ...c, after: [...c.after.slice(0, -1), 77n] } : c;
}

test("a large undo decodes the run's plan alone, is tried whole, and leaves what apply by the plan's id leaves", async () => {
  const { plan, run } = applied("DELETE FROM item");
  await withTools(project.dir, async (all) => {
    const { tools, decoded } = watched(all);
    const undone = await undoRun(tools, undoing(run));
    expect(decoded).toEqual([plan]);
    expect(undone.made?.statement.rehearsal.undo).toEqual({
      rehearsed: "all",
      identical: ROWS,
      of: ROWS,
      why: null,
    });
    expect(undone.applied?.rows).toEqual({ planned: ROWS, written: ROWS, alreadyDone: 0 });
    expect(dumpOf(project.database)).toBe(original);
    // The undo's own run is taken back from its plan's file, as any other.
    const again = await undoRun(tools, undoing(undone.applied?.run ?? ""));
    expect(again.applied?.rows.written).toBe(ROWS);
    expect(again.applied?.snapshot).not.toBeNull();
    const kept = await tools.snapshots.open(again.applied?.snapshot ?? "");
    expect(collect(kept.source).changes.length).toBe(ROWS);
    kept.close();
    const back = await undoRun(tools, undoing(again.applied?.run ?? ""));
    expect(back.applied?.rows.written).toBe(ROWS);
    const spent = expect.objectContaining({ code: "ERR_APPROVAL_SPENT" });
    await expect(
      applyPlan(tools, {
        ref: back.made?.id ?? "",
        tokens: [],
        confirm: async () => undefined,
        dryRun: false,
      }),
    ).rejects.toEqual(spent);
  });
  expect(dumpOf(project.database)).toBe(original);
});

test("a large undo that the target would not take is refused before it is planned", async () => {
  const { run } = applied("UPDATE item SET state = 'x' || id");
  const db = new Database(project.database);
  db.exec("INSERT INTO item VALUES (20000, 's7', 0)");
  db.close();
  const before = dumpOf(project.database);
  await withTools(project.dir, async (tools) => {
    const known = (await tools.plans.ids()).length;
    await expect(undoRun(tools, undoing(run))).rejects.toMatchObject({
      code: "ERR_UNDO_CONFLICT",
      message: expect.stringContaining("would break 1 constraint"),
    });
    expect((await tools.plans.ids()).length).toBe(known);
  });
  expect(dumpOf(project.database)).toBe(before);
});
