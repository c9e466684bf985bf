/**
 * The schema part of an undo. Rows go back by merge; what the run made of the schema (tables, indexes, empty columns) is
 * taken away by a script in the same plan, and only where that takes nothing of anybody else's with it.
 */
import { codeOf, TargetError } from "../../base/errors.js";
import { partings } from "../../changeset/same-effect.js";
import { sameShape } from "../../changeset/well-formed.js";
import type { SchemaChange, SchemaFacts, SqlStatement, Target } from "../../target/target.js";
import type { Narrowed } from "./narrow.js";
import type { ScriptPart } from "../planning/seal-plan.js";
import type { LoadedPlan, Toolbox, WorkingChanges } from "../toolbox.js";
import { TRIAL_ROWS } from "../judging/trial.js";

/** What is taken back of the schema, and what stays, in words. */
export interface SchemaBack {
  readonly script: ScriptPart | null;
  readonly left: readonly string[];
}

const NOTHING: SchemaBack = { script: null, left: [] };

/**
 * The tables of a run whose rows can be asked about now. A table that the run made and that is gone again has none left.
 * @throws TargetError ERR_DRIFT_SCHEMA when rows would have to go back into a table that is gone or has other columns.
 */
export function tablesWithPlace(
  run: string,
  plan: Pick<LoadedPlan, "statement">,
  narrowed: Narrowed,
  now: SchemaFacts,
): Narrowed {
  if (plan.statement.mode === "rows") return narrowed;
  const made = plan.statement.schema.changes.filter((c) => c.action === "create" && c.object === "table");
  const here = narrowed.tables.filter((shape) => now.tables.some((t) => sameShape(t, shape)));
  const lost = narrowed.tables.filter(
    (shape) =>
      !here.includes(shape) &&
      (now.tables.some((t) => t.name === shape.name) || !made.some((c) => c.name === shape.name)),
  );
  if (lost.length === 0) return { ...narrowed, tables: here };
  const rest = here.map((t) => t.name);
  throw new TargetError({
    code: "ERR_DRIFT_SCHEMA",
    message: `undoing ${run} cannot put back rows of ${lost.map((t) => t.name).join(", ")}`,
    why: "these tables are gone or have other columns now, and such a schema change is not undone; what stood in them is kept in the run's snapshot",
    next: [
      rest.length === 0
        ? { actor: "anyone", argv: ["holdpoint", "snapshot", "list"] }
        : { actor: "requester", argv: ["holdpoint", "undo", run, ...rest.flatMap((t) => ["--table", t])] },
    ],
  });
}

/** How the schema changes of these plans are taken back together with the merged rows. */
export async function schemaBack(
  tools: Toolbox,
  target: Target,
  plans: readonly Pick<LoadedPlan, "statement">[],
  merged: { readonly changes: WorkingChanges; readonly rows: number; readonly whole: boolean },
): Promise<SchemaBack> {
  const made = plans.flatMap((p) => p.statement.schema.changes);
  if (made.length === 0 || target.undoSchema === undefined) return NOTHING;
  if (!merged.whole)
    return { script: null, left: made.map((c) => stays(c, "only a part of the run is taken back")) };
  const { statements, left } = await target.undoSchema(made);
  if (statements.length === 0) return { script: null, left };
  const failed = (why: string): SchemaBack => ({
    script: null,
    left: [...left, `${made.length} schema changes stay: ${why}`],
  });
  if (merged.rows > TRIAL_ROWS)
    return failed("with so many rows they are taken back by a second undo, when the rows are back");
  const tried = await tryScript(tools, target, merged.changes, statements);
  if (typeof tried === "string") return failed(tried);
  const script = {
    statements: statements.map(({ text, line }) => ({ text, line, values: {} })),
    schemaChanges: tried,
  };
  return { script, left };
}

function stays(change: { readonly object: string; readonly name: string }, why: string): string {
  return `${change.object} ${change.name} stays: ${why}`;
}

/** Writes rows and script under the target's lock, looks, and rolls back: the schema changes, or in words why not. */
async function tryScript(
  tools: Toolbox,
  target: Target,
  changes: WorkingChanges,
  statements: readonly SqlStatement[],
): Promise<readonly SchemaChange[] | string> {
  const writer = await tools.workingChanges();
  let finished = false;
  try {
    const session = await target.openWriter();
    try {
      await session.begin();
      await session.write(changes, []);
      const outcome = await session.runScript?.(statements, writer);
      if (outcome === undefined) return "the target cannot run a script and take it back";
      finished = true;
      return othersRows(changes, writer.finish()) ?? outcome.schemaChanges;
    } finally {
      await session.rollback();
      await session.close();
    }
  } catch (e) {
    if (codeOf(e) === "ERR_TARGET_BUSY") return "the target was busy while this was tried";
    if (codeOf(e) === "ERR_JOB_FAILED") return e instanceof Error ? e.message : String(e);
    throw e;
  } finally {
    if (!finished) writer.abort();
  }
}

/** Rows that would go with a table or column and that this undo does not take back: somebody else's. */
function othersRows(changes: WorkingChanges, captured: WorkingChanges): string | null {
  try {
    for (const shape of captured.tables) {
      for (const _ of partings(shape, changes.changes(shape.name), captured.changes(shape.name), new Set()))
        return `rows of ${shape.name} that the run did not write would go with it`;
    }
    return null;
  } finally {
    captured.close();
  }
}
