/**
 * Undo: invert what a run wrote, merge it by column onto what is there now, and take that the one way to
 * a target: plan, approve, apply. What others wrote since survives; where that is not possible it stops.
 */
import { parseStamp } from "../base/clock.js";
import { IntegrityError, RefusedError, UsageError } from "../base/errors.js";
import type { Change, ChangeSource, RowKey, TableShape } from "../changeset/change.js";
import {
  type CellConflict,
  type Conflict,
  type ConflictKind,
  type Merge,
  type PairMerge,
  takeBack,
  takeBackPair,
} from "../changeset/merge.js";
import type { Row } from "../changeset/value.js";
import type { Target } from "../target/target.js";
import { type Applied, applyPlan } from "./apply.js";
import { type Cover, coverOf } from "./cover.js";
import { keyText } from "./drift.js";
import { type Examined, withTarget } from "./examine.js";
import { PLAN_LIFETIME_SECONDS, type PlanMade, requirePlannable, sealPlan } from "./plan.js";
import { refusePlanOfOtherPlace } from "./plan-state.js";
import { findWrittenRun, type RunRecord } from "./runs.js";
import { loadPlan } from "./stored-plan.js";
import type { ChangesWriter, LoadedPlan, Toolbox, WorkingChanges } from "./toolbox.js";

/** What to do where the same cell was changed since. */
export type OnConflict = "stop" | "keep-now" | "restore-before";

/** What is asked of undo. */
export interface UndoRequest {
  readonly run: string;
  readonly onConflict: OnConflict;
  /** Tables to take back; empty for all. */
  readonly tables: readonly string[];
  readonly key: string | undefined;
  readonly out: string | undefined;
  readonly reason: string | null;
  readonly confirm: (target: string) => Promise<void>;
}

/** One row that cannot be taken back without a decision. */
export interface UndoConflict {
  readonly table: string;
  readonly shape: TableShape;
  readonly key: RowKey;
  readonly kind: ConflictKind;
  readonly columns: readonly CellConflict[];
  readonly before: Row | null;
  readonly wrote: Row | null;
  readonly now: Row | null;
}

/** Rows by what happens to them. */
export interface UndoCounts {
  readonly putBack: number;
  readonly merged: number;
  readonly nothingToDo: number;
  readonly gone: number;
  readonly conflict: number;
}

/** How an undo ended: applied, waiting for approval, or nothing to do. Conflicts are thrown. */
export interface Undone {
  readonly run: RunRecord;
  readonly counts: UndoCounts;
  readonly made: PlanMade | null;
  readonly applied: Applied | null;
  /** Why it waits, when it does. */
  readonly waiting: string | null;
  readonly conflicts: readonly UndoConflict[];
}

/** Conflicts that a screen and a file list; the count is always exact. */
export const CONFLICTS_LISTED = 1000;

/**
 * Takes back a run.
 * @throws RefusedError ERR_UNDO_CONFLICT (37) when rows were changed since in the same cells.
 */
export async function undoRun(tools: Toolbox, request: UndoRequest): Promise<Undone> {
  const run = await findWrittenRun(tools, request.run);
  const plan = await loadPlan(tools, run.plan);
  try {
    const prepared = await withTarget(tools, plan.statement.target.name, (examined) =>
      prepareUndo(tools, plan, run, examined, request),
    );
    if (prepared.made === null) return { run, ...prepared, made: null, applied: null, waiting: null };
    return await finishUndo(tools, run, { ...prepared, made: prepared.made }, request);
  } finally {
    plan.close();
  }
}

interface Prepared {
  readonly counts: UndoCounts;
  readonly conflicts: readonly UndoConflict[];
  readonly made: PlanMade | null;
  readonly cover: Cover | null;
  readonly waiting: string | null;
}

async function prepareUndo(
  tools: Toolbox,
  plan: LoadedPlan,
  run: RunRecord,
  examined: Examined,
  request: UndoRequest,
): Promise<Prepared> {
  await requirePlannable(tools, examined);
  refusePlanOfOtherPlace(plan, examined);
  const tables = chosenTables(plan, request.tables);
  const writer = await tools.workingChanges();
  let merged: MergeResult;
  try {
    merged = await mergeOnto(examined.target, plan.changes, tables, request.onConflict, writer);
  } catch (e) {
    writer.abort();
    throw e;
  }
  const { counts, conflicts } = merged;
  if (counts.conflict > 0 && request.onConflict === "stop") {
    writer.abort();
    throw conflictStop(run, examined, counts, conflicts);
  }
  const changes = writer.finish();
  try {
    if (counts.putBack + counts.merged === 0)
      return { counts, conflicts, made: null, cover: null, waiting: null };
    const whole = tables.length === plan.changes.tables.length;
    const clean = whole && counts.merged + counts.conflict + counts.nothingToDo + counts.gone === 0;
    const made = await sealPlan(tools, examined, changes, {
      job: null,
      from: {
        kind: "undo",
        runs: [run.id],
        plans: [plan.digest],
        snapshot: null,
        manifest: null,
        counts: {
          put_back: counts.putBack,
          merged: counts.merged,
          nothing_to_do: counts.nothingToDo + counts.gone,
          conflict: counts.conflict,
        },
        clean,
      },
      rehearsal: null,
      schema: await examined.target.schema(),
      reason: request.reason,
      ticket: null,
      key: request.key,
      out: request.out,
      lifetimeSeconds: PLAN_LIFETIME_SECONDS,
      keyOptional: true,
    });
    const { cover, why } = await openCover(tools, plan, run, examined, clean);
    return { counts, conflicts, made, cover, waiting: why };
  } finally {
    changes.close();
  }
}

async function finishUndo(
  tools: Toolbox,
  run: RunRecord,
  prepared: Prepared & { readonly made: PlanMade },
  request: UndoRequest,
): Promise<Undone> {
  const { made, cover } = prepared;
  const mayApply =
    made.decision.kind === "allow" || (made.decision.kind === "needs-approval" && cover !== null);
  if (!mayApply) return { run, ...prepared, applied: null };
  const applied = await applyPlan(tools, {
    ref: made.id,
    tokens: [],
    confirm: request.confirm,
    dryRun: false,
    ...(cover === null ? {} : { under: cover }),
  });
  return { run, ...prepared, applied, waiting: null };
}

/** The cover, if it may be used for this undo; else in words why not. */
async function openCover(
  tools: Toolbox,
  plan: LoadedPlan,
  run: RunRecord,
  examined: Examined,
  clean: boolean,
): Promise<{ readonly cover: Cover | null; readonly why: string }> {
  const cover = await coverOf(tools, plan, examined);
  if (cover === null) return { cover: null, why: `the approval of ${run.id} covers no undo` };
  if (!clean)
    return {
      cover: null,
      why: "the approval covers an undo of the whole run with each row exactly as it was written, and this is not one",
    };
  if (plan.statement.from !== null) return { cover: null, why: "an undo of an undo is never covered" };
  const until = parseStamp(cover.until);
  if (until === undefined || until.getTime() <= tools.clock.now().getTime()) {
    return { cover: null, why: `the cover ended ${cover.until}` };
  }
  const used = (await examined.target.notes()).some((n) => n.kind === "undone" && n.subject === cover.run);
  if (used) return { cover: null, why: `the undo that the approval of ${run.id} covers was used already` };
  return { cover, why: "" };
}

function chosenTables(plan: LoadedPlan, wanted: readonly string[]): readonly TableShape[] {
  if (wanted.length === 0) return plan.changes.tables;
  const unknown = wanted.filter((w) => !plan.changes.tables.some((t) => t.name === w));
  if (unknown.length > 0) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `the run did not touch ${unknown.join(", ")}`,
      why: `it touched ${plan.changes.tables.map((t) => t.name).join(", ")}`,
    });
  }
  return plan.changes.tables.filter((t) => wanted.includes(t.name));
}

interface MergeResult {
  readonly counts: UndoCounts;
  readonly conflicts: readonly UndoConflict[];
}

/** Merges the inverse of every change onto the row as it is now. Cost follows the run, not the table. */
async function mergeOnto(
  target: Pick<Target, "readRows">,
  source: WorkingChanges,
  tables: readonly TableShape[],
  onConflict: OnConflict,
  writer: ChangesWriter,
): Promise<MergeResult> {
  const counts = { putBack: 0, merged: 0, nothingToDo: 0, gone: 0, conflict: 0 };
  const conflicts: UndoConflict[] = [];
  for (const shape of tables) {
    writer.table(shape);
    for await (const one of outcomesOf(target, source, shape, onConflict)) {
      for (const change of one.changes) writer.add(change);
      counts[one.kind] += 1;
      if (one.conflict !== null && conflicts.length < CONFLICTS_LISTED) conflicts.push(one.conflict);
    }
  }
  return { counts, conflicts };
}

/** What becomes of one row, or of the two ends of a changed key as one. */
interface Outcome {
  readonly kind: keyof UndoCounts;
  readonly changes: readonly Change[];
  readonly conflict: UndoConflict | null;
}

async function* outcomesOf(
  target: Pick<Target, "readRows">,
  source: WorkingChanges,
  shape: TableShape,
  onConflict: OnConflict,
): AsyncIterable<Outcome> {
  for await (const [change, now, nowCount] of rowsOf(target, source, shape)) {
    if (change.link === undefined || shape.keyKind === "none") {
      yield outcomeOf(shape, change, now, takeBack(shape, change, now, nowCount, { onConflict }));
    } else if (change.op === "delete") {
      // The other end of a changed key is taken back with this one, so that the entity is never there twice.
      const inserted = source.get(shape.name, change.link);
      if (inserted?.op !== "insert") throw brokenLink(shape, change);
      const atNewKey = await rowAt(target, shape, inserted.key);
      const merge = takeBackPair(
        shape,
        { deleted: change, inserted },
        { atOldKey: now, atNewKey },
        { onConflict },
      );
      yield outcomeOf(shape, change, atNewKey, merge);
    }
  }
}

function outcomeOf(shape: TableShape, change: Change, now: Row | null, merge: Merge | PairMerge): Outcome {
  switch (merge.kind) {
    case "put-back":
    case "merged":
      return {
        kind: merge.kind === "merged" ? "merged" : "putBack",
        changes: "change" in merge ? [merge.change] : merge.changes,
        conflict: null,
      };
    case "nothing-to-do":
      return { kind: "nothingToDo", changes: [], conflict: null };
    case "gone":
      return { kind: "gone", changes: [], conflict: null };
    case "conflict":
      return { kind: "conflict", changes: [], conflict: conflictOf(shape, change, now, merge) };
  }
}

async function rowAt(target: Pick<Target, "readRows">, shape: TableShape, key: RowKey): Promise<Row | null> {
  for await (const read of target.readRows(shape, [key])) return read.row;
  return null;
}

function brokenLink(shape: TableShape, change: Change): IntegrityError {
  return new IntegrityError({
    code: "ERR_CHANGESET_ALTERED",
    message: `a changed key of ${shape.name} has no other end in the plan`,
    why: `the delete of ${change.key.map(keyText).join(", ")} names an insert that is not there`,
  });
}

function conflictOf(shape: TableShape, change: Change, now: Row | null, merge: Conflict): UndoConflict {
  return {
    table: shape.name,
    shape,
    key: change.key,
    kind: merge.conflict,
    columns: merge.columns,
    before: change.op === "insert" ? null : change.before,
    wrote: change.op === "delete" ? null : change.after,
    now,
  };
}

async function* rowsOf(
  target: Pick<Target, "readRows">,
  source: ChangeSource,
  shape: TableShape,
): AsyncIterable<readonly [Change, Row | null, number]> {
  const changes = source.changes(shape.name)[Symbol.iterator]();
  const keys = (function* () {
    for (const c of source.changes(shape.name)) yield c.key;
  })();
  for await (const read of target.readRows(shape, keys)) {
    const next = changes.next();
    if (next.done === true) return;
    yield [next.value, read.row, read.count];
  }
}

function conflictStop(
  run: RunRecord,
  examined: Examined,
  counts: UndoCounts,
  conflicts: readonly UndoConflict[],
): RefusedError {
  return new RefusedError({
    code: "ERR_UNDO_CONFLICT",
    message: `undoing ${run.id} would overwrite ${counts.conflict} ${counts.conflict === 1 ? "row" : "rows"} changed since`,
    why: "the same cells were changed after the run; both values are listed",
    next: [
      {
        actor: "requester",
        argv: ["holdpoint", "undo", run.id, "--on-conflict", "keep-now"],
        text: "put back the rest, leave these",
      },
    ],
    details: { counts, conflicts, run: run.id, target: run.target, environment: examined.verdict.name },
  });
}
