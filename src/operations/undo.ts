/**
 * Undo: invert what runs wrote, merge it by column onto what is there now, and take that the one way to
 * a target: plan, approve, apply. What others wrote since survives; where that is not possible it stops.
 */
import { parseStamp } from "../base/clock.js";
import { RefusedError, UsageError } from "../base/errors.js";
import type { Change, RowKey } from "../changeset/change.js";
import { targetConfigOf } from "../config/config.js";
import type { Resolutions } from "../config/resolutions-file.js";
import type { Target, WriteProblem } from "../target/target.js";
import { type Applied, applyPlan, type ApplyRequest } from "./apply.js";
import { deciding, type OnConflict, type RowConflict } from "./merging/conflict.js";
import { committedPart } from "./writing/begun.js";
import { type Cover, coverOf } from "./consent/cover.js";
import { type Examined, withTarget } from "./judging/examine.js";
import {
  type ChangedBy,
  mergeBack,
  type MergedBack,
  readerAfter,
  sumCounts,
  together,
  type UndoCounts,
} from "./merging/merge-back.js";
import { narrow, type Narrowed, type Narrowing, narrowingFlags } from "./merging/narrow.js";
import { reversing, type Reversing } from "./merging/reversing.js";
import { requirePlannable } from "./plan.js";
import { PLAN_LIFETIME_SECONDS, type PlanMade, sealPlan } from "./planning/seal-plan.js";
import { refusePlanOfOtherPlace } from "./recall/plan-state.js";
import { allRuns, findWrittenRun, type RunRecord } from "./recall/runs.js";
import { isForgotten } from "./prune.js";
import { loadPlan } from "./recall/stored-plan.js";
import { timeOf } from "./judging/time.js";
import type { BeforeImagesKept, ChangesWriter, LoadedPlan, Toolbox, WorkingChanges } from "./toolbox.js";
import { triedBothWays } from "./judging/trial.js";
import { schemaBack, tablesWithPlace } from "./merging/undo-schema.js";
import type { Pacing } from "./writing/run-cut.js";
import { problemInWords } from "./writing/write-batch.js";

export type { OnConflict, RowConflict as UndoConflict } from "./merging/conflict.js";
export type { UndoCounts } from "./merging/merge-back.js";

/** What is asked of undo. */
export interface UndoRequest extends Narrowing {
  /** Runs by id or prefix; they are taken back newest first, whatever their order here. */
  readonly runs: readonly string[];
  readonly onConflict: OnConflict;
  /** Decisions row by row; what it does not name falls to `onConflict`. */
  readonly resolutions: Resolutions | undefined;
  readonly key: string | undefined;
  readonly out: string | undefined;
  readonly reason: string | null;
  /** How the plan is to be written, see `plan`. */
  readonly pacing?: Pacing;
  readonly putBack?: boolean;
  readonly confirm: ApplyRequest["confirm"];
}

/** How an undo ended: applied, waiting for approval, or nothing to do. Conflicts are thrown. */
export interface Undone {
  /** Newest first. */
  readonly runs: readonly RunRecord[];
  readonly target: string;
  readonly counts: UndoCounts;
  readonly made: PlanMade | null;
  readonly applied: Applied | null;
  /** Why it waits, when it does. */
  readonly waiting: string | null;
  readonly conflicts: readonly RowConflict[];
  /** Schema changes that stay, in words. */
  readonly left: readonly string[];
}

/** What the refusal over conflicts carries for screen, document and file. */
export interface UndoStop {
  readonly counts: UndoCounts;
  readonly conflicts: readonly RowConflict[];
  readonly runs: readonly string[];
  readonly target: string;
  readonly environment: "production" | "staging" | "development" | "unproven";
}

/**
 * Takes back runs.
 * @throws RefusedError ERR_UNDO_CONFLICT (37) when rows were changed since in the same cells, or when what goes back
 * would break a constraint or reference.
 */
export async function undoRun(tools: Toolbox, request: UndoRequest): Promise<Undone> {
  const runs = await runsToUndo(tools, request.runs);
  const plans: LoadedPlan[] = [];
  try {
    for (const run of runs) {
      await refuseForgotten(tools, run.id);
      plans.push(await loadPlan(tools, run.plan));
    }
    const target = runs[0]?.target ?? "";
    refuseOtherDecisions(request.resolutions, runs, target);
    const { prepared, sealed } = await withTarget(tools, target, (examined) =>
      prepareUndo(tools, { runs, plans, examined }, request),
    );
    if (sealed === null) return { runs, target, ...prepared, made: null, applied: null, waiting: null };
    try {
      return await finishUndo(tools, { runs, target }, prepared, sealed, request);
    } finally {
      sealed.kept.drop();
      sealed.changes.close();
    }
  } finally {
    for (const plan of plans) plan.close();
  }
}

/** Newest first, each once, all on one target. */
async function runsToUndo(tools: Toolbox, refs: readonly string[]): Promise<readonly RunRecord[]> {
  const wanted = new Set<string>();
  for (const ref of refs) wanted.add((await findWrittenRun(tools, ref)).id);
  const runs = (await allRuns(tools)).filter((r) => wanted.has(r.id)).reverse();
  const targets = [...new Set(runs.map((r) => r.target))];
  if (targets.length === 1) return runs;
  throw new UsageError({
    code: "ERR_USAGE",
    message: "one undo takes back runs on one target",
    why: `these runs were on ${targets.join(", ")}`,
  });
}

async function refuseForgotten(tools: Toolbox, run: string): Promise<void> {
  if (!(await isForgotten(tools, run))) return;
  throw new UsageError({
    code: "ERR_UNDO_NOTHING",
    message: `the rows of ${run} were destroyed by \`snapshot forget\`, so it cannot be undone`,
    why: "the ledger keeps its digests and counts only",
    next: [{ actor: "anyone", argv: ["holdpoint", "log", "show", run] }],
  });
}

function refuseOtherDecisions(
  file: Resolutions | undefined,
  runs: readonly RunRecord[],
  target: string,
): void {
  if (file === undefined) return;
  const ids = runs.map((r) => r.id);
  const same =
    file.target === target && file.of.length === ids.length && ids.every((id) => file.of.includes(id));
  if (same) return;
  throw new UsageError({
    code: "ERR_RESOLUTIONS_INVALID",
    message: "the resolutions file is about something else",
    why: `it decides ${file.of.join(", ")} on ${file.target}; asked for is ${ids.join(", ")} on ${target}`,
  });
}

interface Prepared {
  readonly counts: UndoCounts;
  readonly conflicts: readonly RowConflict[];
  readonly cover: Cover | null;
  readonly waiting: string | null;
  readonly left: readonly string[];
}

interface Undoing {
  readonly runs: readonly RunRecord[];
  readonly plans: readonly LoadedPlan[];
  readonly examined: Examined;
}

/** A plan and the changes that it was sealed over. Close them. */
interface Sealed {
  readonly made: PlanMade;
  readonly changes: WorkingChanges;
  /** What the snapshot of its run would hold. */
  readonly kept: BeforeImagesKept;
}

async function prepareUndo(
  tools: Toolbox,
  u: Undoing,
  request: UndoRequest,
): Promise<{ readonly prepared: Prepared; readonly sealed: Sealed | null }> {
  const { examined } = u;
  let sealed: Sealed | null = null;
  await requirePlannable(tools, examined);
  for (const plan of u.plans) refusePlanOfOtherPlace(plan, examined);
  const { merged, changes, whole } = await mergeAll(tools, u, request);
  const kept = tools.snapshots.keep();
  try {
    const { counts, conflicts } = merged;
    if (counts.conflict > 0 && request.onConflict === "stop")
      throw conflictStop(u, counts, conflicts, request);
    const rows = counts.putBack + counts.merged + counts.reversed;
    const back = await schemaBack(tools, examined.target, u.plans, { changes, rows, whole });
    const { script } = back;
    const left = [...back.left, ...merged.leftIn.map(leftWords)];
    if (rows === 0 && script === null)
      return { prepared: { counts, conflicts, cover: null, waiting: null, left }, sealed };
    const tried = await triedBothWays(tools, examined.target, changes, rows);
    if (tried.problems.length > 0) throw problemStop(u, counts, conflicts, tried.problems);
    const clean =
      whole &&
      u.runs.length === 1 &&
      counts.merged + counts.conflict + counts.nothingToDo + counts.gone + counts.reversed + counts.left ===
        0;
    const made = await sealPlan(tools, examined, changes, {
      job: null,
      from: {
        kind: "undo",
        runs: u.runs.map((r) => r.id),
        plans: u.plans.map((p) => p.digest),
        snapshot: null,
        manifest: null,
        counts: {
          put_back: counts.putBack + counts.reversed,
          merged: counts.merged,
          nothing_to_do: counts.nothingToDo + counts.gone + counts.left,
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
      notices: left,
      pacing: request.pacing ?? {},
      putBack: request.putBack === true,
      ...(script === null ? {} : { script }),
      ...(tried.undo === null ? {} : { undo: tried.undo }),
      also: kept,
    });
    const { cover, why } = await openCover(tools, u, clean);
    sealed = { made, changes, kept };
    return { prepared: { counts, conflicts, cover, waiting: why, left }, sealed };
  } finally {
    // What was sealed is applied from here, where nobody else need sign it.
    if (sealed === null) {
      kept.drop();
      changes.close();
    }
  }
}

function leftWords({ table, rows }: MergedBack["leftIn"][number]): string {
  return `${rows} ${rows === 1 ? "row" : "rows"} of ${table} left as it is, append only: no reversing row is declared`;
}

interface MergedAll {
  readonly merged: MergedBack;
  readonly changes: WorkingChanges;
  readonly whole: boolean;
}

/** One run after another, newest first, each merged onto the rows as the ones before leave them. */
async function mergeAll(tools: Toolbox, u: Undoing, request: UndoRequest): Promise<MergedAll> {
  const decisions = deciding(request.onConflict, request.resolutions);
  const results: MergedBack[] = [];
  const steps: WorkingChanges[] = [];
  const numbers = new Map<string, bigint>();
  let whole = true;
  try {
    for (const [i, plan] of u.plans.entries()) {
      const run = u.runs[i]?.id ?? "";
      const asked = await narrow(plan.changes, request, run);
      const narrowed = tablesWithPlace(run, plan, asked, await u.examined.target.schema());
      const part = await committedPart(tools, plan, u.examined, u.runs[i]);
      whole &&= narrowed.whole && part === null;
      const earlier = await undosOf(tools, run);
      const how = {
        deciding: decisions,
        changedBy: await changedBySince(tools, u, run),
        reversing: reversingIn(tools, u.examined, numbers, earlier),
      };
      const step = await written(tools, async (writer) => {
        // What only grows is not put back by a delete: its rows are merged one by one, and reversed.
        const growing = targetConfigOf(tools.project.config, u.examined.target.name).appendOnly;
        const grows = plan.changes.tables.some((t) => growing.includes(t.name));
        const untouched = steps.length === 0 && part === null && narrowed.whole && !grows;
        const all = untouched ? await allBack(u.examined.target, plan, narrowed, writer) : null;
        if (all !== null) {
          results.push(all);
          return;
        }
        const reader = readerAfter(u.examined.target, steps);
        results.push(await mergeBack(reader, part ?? plan.changes, narrowed, how, writer));
      }).finally(() => {
        for (const undo of earlier) undo.close();
      });
      steps.push(step);
    }
    decisions.finish();
    const merged = {
      counts: sumCounts(results.map((r) => r.counts)),
      conflicts: results.flatMap((r) => r.conflicts),
      leftIn: results.flatMap((r) => r.leftIn),
    };
    const only = steps.length === 1 ? steps.pop() : undefined;
    const changes = only ?? (await written(tools, (writer) => Promise.resolve(together(steps, writer))));
    return { merged, changes, whole };
  } finally {
    for (const step of steps) step.close();
  }
}

/**
 * The merge where nobody touched a row since, as the target itself says: every row is put back. Null where that is not so or
 * cannot be told, and then each row is merged. Rows whose generated cells might differ are left to the merge.
 */
async function allBack(
  target: Target,
  { changes, statement }: LoadedPlan,
  narrowed: Narrowed,
  writer: ChangesWriter,
): Promise<MergedBack | null> {
  const plain = changes.tables.every((t) => t.columns.every((c) => c.generated !== true));
  const every = narrowed.tables.length === changes.tables.length;
  if (!plain || !every || (await target.holdsAll?.(changes, "after")) !== true) return null;
  if (writer.addInverse?.(changes) !== true) return null;
  const none = { merged: 0, nothingToDo: 0, gone: 0, conflict: 0, outside: 0, reversed: 0, left: 0 };
  return { counts: { putBack: statement.changeset.rows, ...none }, conflicts: [], leftIn: [] };
}

/** Undos of a run that stand, be it of a part: what they reversed is not reversed again. Close each. */
async function undosOf(tools: Toolbox, run: string): Promise<readonly LoadedPlan[]> {
  const undos = (await allRuns(tools)).filter((r) => r.state === "done" && r.undoes.includes(run));
  const plans: LoadedPlan[] = [];
  for (const undo of undos) plans.push(await loadPlan(tools, undo.plan));
  return plans;
}

function reversingIn(
  tools: Toolbox,
  { target }: Examined,
  numbers: Map<string, bigint>,
  earlier: readonly LoadedPlan[],
): Reversing {
  const { appendOnly, reversals } = targetConfigOf(tools.project.config, target.name);
  function* addedBefore(table: string): Generator<Extract<Change, { op: "insert" }>, undefined> {
    for (const { changes } of earlier) {
      if (!changes.tables.some((t) => t.name === table)) continue;
      for (const change of changes.changes(table)) if (change.op === "insert") yield change;
    }
  }
  return reversing({ appendOnly, reversals, target, numbers, addedBefore });
}

/** A working ChangeSet as `fill` makes it; nothing is left behind when it fails. */
async function written(
  tools: Toolbox,
  fill: (writer: Awaited<ReturnType<Toolbox["workingChanges"]>>) => Promise<void>,
): Promise<WorkingChanges> {
  const writer = await tools.workingChanges();
  try {
    await fill(writer);
    return writer.finish();
  } catch (e) {
    writer.abort();
    throw e;
  }
}

/** The newest run after `run` that touched a row, where the index of rows knows one. */
async function changedBySince(tools: Toolbox, u: Undoing, run: string): Promise<ChangedBy> {
  const runs = (await allRuns(tools)).filter((r) => r.target === u.examined.target.name).map((r) => r.id);
  const later = new Set(runs.slice(runs.indexOf(run) + 1));
  const index = await tools.rowIndex();
  return (table: string, key: RowKey) => index.runsOf(table, key).findLast((id) => later.has(id)) ?? null;
}

async function finishUndo(
  tools: Toolbox,
  of: Pick<Undone, "runs" | "target">,
  prepared: Prepared,
  { made, changes, kept }: Sealed,
  request: UndoRequest,
): Promise<Undone> {
  const { cover } = prepared;
  const mayApply =
    made.decision.kind === "allow" || (made.decision.kind === "needs-approval" && cover !== null);
  if (!mayApply) return { ...of, ...prepared, made, applied: null };
  const applied = await applyPlan(tools, {
    ref: made.id,
    tokens: [],
    confirm: request.confirm,
    dryRun: false,
    sealed: { changes, summary: made.summary, kept },
    ...(cover === null ? {} : { under: cover }),
  });
  return { ...of, ...prepared, made, applied, waiting: null };
}

/** The cover, if it may be used for this undo; else in words why not. */
async function openCover(
  tools: Toolbox,
  u: Undoing,
  clean: boolean,
): Promise<{ readonly cover: Cover | null; readonly why: string }> {
  const [plan, run] = [u.plans[0], u.runs[0]];
  if (plan === undefined || run === undefined || u.runs.length > 1)
    return { cover: null, why: "a cover is for the undo of one run" };
  const cover = await coverOf(tools, plan, u.examined);
  if (cover === null) return { cover: null, why: `the approval of ${run.id} covers no undo` };
  if (!clean)
    return {
      cover: null,
      why: "the approval covers an undo of the whole run with each row exactly as it was written, and this is not one",
    };
  if (plan.statement.from !== null) return { cover: null, why: "an undo of an undo is never covered" };
  const until = parseStamp(cover.until);
  if (until === undefined || until <= (await timeOf(tools, u.examined))) {
    return { cover: null, why: `the cover ended ${cover.until}` };
  }
  const used = (await u.examined.target.notes()).some((n) => n.kind === "undone" && n.subject === cover.run);
  if (used) return { cover: null, why: `the undo that the approval of ${run.id} covers was used already` };
  return { cover, why: "" };
}

function conflictStop(
  u: Undoing,
  counts: UndoCounts,
  conflicts: readonly RowConflict[],
  narrowing: Narrowing,
): RefusedError {
  const names = u.runs.map((r) => r.id);
  const rows = `${counts.conflict} ${counts.conflict === 1 ? "row" : "rows"}`;
  const taken =
    conflicts.length > 0 && conflicts.every((c) => c.kind === "two-entities" || c.kind === "exists");
  return new RefusedError({
    code: "ERR_UNDO_CONFLICT",
    message: taken
      ? `undoing ${names.join(", ")} would overwrite ${rows} that took the place of others`
      : `undoing ${names.join(", ")} would overwrite ${rows} changed since`,
    why: "the same cells were changed after the run; both values are listed",
    next: [
      {
        actor: "requester",
        argv: ["holdpoint", "undo", ...names, ...narrowingFlags(narrowing), "--on-conflict", "keep-now"],
        text: `put back ${counts.putBack + counts.merged}, leave ${counts.conflict === 1 ? "this one" : `these ${counts.conflict}`} as ${counts.conflict === 1 ? "it is" : "they are"}`,
      },
    ],
    details: stopOf(u, counts, conflicts),
  });
}

/** Apart from conflicts: nobody edited these rows, and the target would still not take them. */
function problemStop(
  u: Undoing,
  counts: UndoCounts,
  conflicts: readonly RowConflict[],
  problems: readonly WriteProblem[],
): RefusedError {
  const names = u.runs.map((r) => r.id).join(", ");
  return new RefusedError({
    code: "ERR_UNDO_CONFLICT",
    message: `undoing ${names} would break ${problems.length} ${problems.length === 1 ? "constraint or reference" : "constraints or references"} of ${u.examined.target.name}`,
    why: problems.slice(0, 5).map(problemInWords).join("; "),
    next: [
      {
        actor: "requester",
        text: "Look at the rows that stand in the way; take back the rows that these refer to as well, or narrow with --table and --where.",
      },
    ],
    details: stopOf(u, counts, conflicts),
  });
}

function stopOf(u: Undoing, counts: UndoCounts, conflicts: readonly RowConflict[]): UndoStop {
  return {
    counts,
    conflicts,
    runs: u.runs.map((r) => r.id),
    target: u.examined.target.name,
    environment: u.examined.verdict.name,
  };
}
