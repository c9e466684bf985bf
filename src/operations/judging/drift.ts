/** Drift: rows that are neither as the plan saw them nor as it leaves them. */
import { TargetError } from "../../base/errors.js";
import type { Change, ChangeSource, TableShape } from "../../changeset/change.js";
import { standingOf } from "../../changeset/merge.js";
import type { Row } from "../../changeset/value.js";
import type { Target } from "../../target/target.js";
import type { LoadedPlan } from "../toolbox.js";

/** In which of the three states a row is: to be written, already there, or neither. */
export type RowState = "as-before" | "as-after" | "moved";

/** A row that moved, for the screen: the columns that matter with their three values. */
export interface MovedRow {
  readonly change: Change;
  readonly shape: TableShape;
  readonly now: Row | null;
}

/** How many rows a screen lists. */
export const MOVED_LISTED = 20;

/** Reads every row of the plan on the target and tells the states. Memory stays flat. */
export async function* statesOf(
  target: Pick<Target, "readRows">,
  source: ChangeSource,
): AsyncIterable<MovedRow & { readonly state: RowState }> {
  for (const shape of source.tables) {
    const changes = source.changes(shape.name)[Symbol.iterator]();
    const keys = (function* () {
      for (const c of source.changes(shape.name)) yield c.key;
    })();
    for await (const read of target.readRows(shape, keys)) {
      const next = changes.next();
      if (next.done === true) break;
      const standing = standingOf(shape, next.value, read.row, read.count);
      const state = standing.state === "conflict" ? "moved" : standing.state;
      yield { change: next.value, shape, now: read.row, state };
    }
  }
}

/** How many rows moved. */
export async function countMoved(target: Pick<Target, "readRows">, source: ChangeSource): Promise<number> {
  let moved = 0;
  for await (const { state } of statesOf(target, source)) if (state === "moved") moved += 1;
  return moved;
}

/** The refusal over rows that moved; `details` carries the rows for the screen and `--json`. */
export function rowDrift(plan: LoadedPlan, moved: number, listed: readonly MovedRow[]): TargetError {
  return new TargetError({
    code: "ERR_DRIFT_ROWS",
    message: `${plan.statement.target.name} moved since ${plan.id} was made: ${moved} of ${plan.statement.changeset.rows} rows are not as planned`,
    why: listed.slice(0, 3).map(movedInWords).join("; "),
    state: "Nothing was written. The approval is unused, and stands for the old rows only.",
    next: [{ actor: "requester", text: "Make the plan again; the approver then looks at what moved." }],
    details: { moved, tables: countBy(listed) },
  });
}

function movedInWords(m: MovedRow): string {
  const key = m.shape.keyKind === "none" ? "a row without a key" : m.change.key.map(keyText).join(", ");
  const how = m.now === null ? "is gone" : m.change.op === "insert" ? "exists already" : "was changed";
  return `${m.shape.name} ${key} ${how}`;
}

/** A key value in an error line; what is not short and plain is left out. */
export function keyText(v: unknown): string {
  return typeof v === "string" || typeof v === "bigint" || typeof v === "number" ? String(v) : "…";
}

function countBy(listed: readonly MovedRow[]): { table: string; rows: number }[] {
  const counts = new Map<string, number>();
  for (const m of listed) counts.set(m.shape.name, (counts.get(m.shape.name) ?? 0) + 1);
  return [...counts].map(([table, rows]) => ({ table, rows }));
}

/** The refusal over a schema, trigger or setting that changed since the plan. */
export function schemaDrift(plan: LoadedPlan, now: string, settings: readonly string[]): TargetError {
  return new TargetError({
    code: "ERR_DRIFT_SCHEMA",
    message: `the schema, triggers or settings of ${plan.statement.target.name} changed since ${plan.id} was made`,
    why:
      settings.length > 0
        ? settings.join("; ")
        : `planned on ${plan.statement.schema.fingerprint}, now ${now}`,
    next: [{ actor: "requester", text: "Make the plan again." }],
  });
}
