/**
 * Rescue: from a verified snapshot, when nobody recorded the damage. Three images per row: before is the snapshot,
 * now is the target, and what the damage did is what a person declares of it. What follows from that for certain becomes
 * a plan that goes the one road; what does not is listed and decided row by row; nothing is guessed.
 */
import { UsageError } from "../base/errors.js";
import { type Change, countOf, type RowKey, type TableShape } from "../changeset/change.js";
import { keyText } from "../changeset/key.js";
import type { Summary } from "../changeset/summarise.js";
import { afterOf } from "../changeset/change.js";
import { sameRow } from "../changeset/value.js";
import { targetConfigOf } from "../config/config.js";
import type { Resolutions } from "../config/resolutions-file.js";
import { CONFLICTS_LISTED, type Deciding, deciding, type RowConflict } from "./merging/conflict.js";
import { compareStates, stateNow } from "./merging/compare-states.js";
import { type Damage, declare, type Declared, type Evidence, fateOf, refusedRow } from "./merging/damage.js";
import { type Examined, withTarget } from "./judging/examine.js";
import { chooseSnapshot, openImage, type RejectedSnapshot, type VerifiedSnapshot } from "./merging/image.js";
import { patternsOf } from "./judging/judge-plan.js";
import { narrow, type Narrowing } from "./merging/narrow.js";
import { namesRows, narrowRows, refuseUnanswerable, type RowNarrowing } from "./merging/narrow-rows.js";
import { requirePlannable } from "./plan.js";
import { PLAN_LIFETIME_SECONDS, type PlanMade, sealPlan } from "./planning/seal-plan.js";
import { allRuns, type RunRecord } from "./recall/runs.js";
import { loadPlan } from "./recall/stored-plan.js";
import type { Target } from "../target/target.js";
import type { LoadedPlan, Toolbox, WorkingChanges } from "./toolbox.js";
import type { Pacing } from "./writing/run-cut.js";
import { openTrial, type Trial } from "./judging/trial.js";
import { problemInWords } from "./writing/write-batch.js";

/** What is asked of rescue. */
export interface RescueRequest extends Narrowing, RowNarrowing {
  readonly on: string;
  /** A snapshot by id or prefix; null for the newest good one. */
  readonly from: string | null;
  readonly damage: readonly Damage[];
  readonly resolutions: Resolutions | undefined;
  readonly key: string | undefined;
  readonly out: string | undefined;
  readonly reason: string | null;
  /** How the plan is to be written, see `plan`. */
  readonly pacing?: Pacing;
  readonly putBack?: boolean;
  /** Takes each row born since the snapshot, for a list of identities that never were in it. */
  readonly born: (table: TableShape, key: RowKey) => void;
}

/** Rows by what becomes of them. */
export interface RescueCounts {
  readonly restored: number;
  /** Restored, and newer values of other columns, or a decision, stay. */
  readonly merged: number;
  /** Gone now and not by the damage: listed, never resurrected. */
  readonly removed: number;
  /** Decided to stay as they are. */
  readonly kept: number;
  readonly conflict: number;
  readonly undecidable: number;
  /** Changed since the snapshot, and not by this damage. */
  readonly other: number;
  readonly born: number;
}

/** How a rescue ended: a plan, conflicts, both or neither. Nothing was written. */
export interface Rescued {
  readonly target: string;
  readonly environment: "production" | "staging" | "development" | "unproven";
  readonly snapshot: {
    readonly id: string;
    readonly at: string;
    readonly level: string;
    readonly rows: number;
  };
  readonly rejected: readonly RejectedSnapshot[];
  readonly counts: RescueCounts;
  /** Everything that is not as in the snapshot, in patterns; null where a declaration says what of it is meant. */
  readonly changed: Pick<Summary, "patterns"> | null;
  readonly conflicts: readonly RowConflict[];
  readonly removed: readonly { readonly table: string; readonly shape: TableShape; readonly key: RowKey }[];
  readonly born: readonly { readonly table: string; readonly rows: number }[];
  /** Rows of which nobody can say when, by whom or in which transaction they were written: left alone. */
  readonly untold: number;
  /** Keys of the list whose row is as in the snapshot, or in neither. */
  readonly strayKeys: number;
  readonly made: PlanMade | null;
}

/** Removed rows that are listed; their number is exact. */
const REMOVED_LISTED = 1_000;
/** Rounds in which rows that the target would not take are left out: each may leave others without a parent. */
const ROUNDS = 20;

/**
 * Makes a plan that brings back what a snapshot shows was damaged, and leaves the target equal.
 * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED (36) before anything is read from the target.
 */
export async function rescue(tools: Toolbox, request: RescueRequest): Promise<Rescued> {
  return withTarget(tools, request.on, async (examined) => {
    await requirePlannable(tools, examined);
    refuseUnanswerable(
      examined.target,
      withTimeColumns(tools, request, null),
      request.damage.some((d) => d.kind === "deleted"),
    );
    const done = tools.progress.begin("reading snapshots back");
    const chosen = await chooseSnapshot(tools, request.on, request.from).finally(() => done());
    refuseOtherDecisions(request.resolutions, chosen, request.on);
    tools.progress.check(
      `${chosen.record.id} of ${chosen.record.at} read back: ${chosen.manifest.rows} rows`,
    );
    return rescueFrom(tools, examined, chosen, request);
  });
}

/** A time is asked of the columns that the configuration calls times of new rows, where no other is named. */
function withTimeColumns(
  tools: Toolbox,
  request: RescueRequest,
  tables: readonly TableShape[] | null,
): RescueRequest {
  if (request.timeColumns.length > 0 || (request.since === undefined && request.until === undefined))
    return request;
  const { newestRow } = targetConfigOf(tools.project.config, request.on);
  const named = newestRow.filter((c) => tables === null || tables.some((t) => t.name === c.table));
  return { ...request, timeColumns: named.map((c) => `${c.table}.${c.column}`) };
}

async function rescueFrom(
  tools: Toolbox,
  examined: Examined,
  chosen: VerifiedSnapshot,
  request: RescueRequest,
): Promise<Rescued> {
  const compared = await compareWithNow(tools, examined, chosen, request.tables);
  try {
    const asked = await narrow(
      compared.changes,
      { ...request, tables: [] },
      "what changed since the snapshot",
    );
    const { takes, untold, strayKeys } = await narrowRows(
      examined.target,
      { changes: compared.changes, tables: compared.compared },
      asked,
      withTimeColumns(tools, request, compared.compared),
    );
    const narrowed = { ...asked, takes };
    const declared = await declare(compared.changes, request.damage, narrowed, {
      byRows: request.where !== undefined || namesRows(request),
      takenWhole: takenWhole(compared.changes, compared.rowsBefore),
    });
    const evidence = await evidenceSince(tools, request.on, chosen);
    const decisions = deciding("stop", request.resolutions);
    const sorted = await sortRows(
      tools,
      examined.target,
      compared.changes,
      { declared, evidence: evidence.of, decisions },
      request,
    ).finally(evidence.close);
    const changed = request.damage.length > 0 ? null : patternsOf(compared.changes);
    try {
      const { counts, conflicts, removed, born } = sorted;
      return {
        target: request.on,
        environment: examined.verdict.name,
        snapshot: {
          id: chosen.record.id,
          at: chosen.record.at,
          level: chosen.manifest.level,
          rows: chosen.manifest.rows,
        },
        rejected: chosen.rejected,
        changed,
        counts,
        conflicts,
        removed,
        born,
        untold,
        strayKeys,
        made:
          counts.restored + counts.merged === 0
            ? null
            : await planOf(tools, examined, chosen, request, sorted),
      };
    } finally {
      sorted.changes.close();
    }
  } finally {
    compared.changes.close();
  }
}

async function compareWithNow(
  tools: Toolbox,
  examined: Examined,
  chosen: VerifiedSnapshot,
  tables: readonly string[],
): Promise<Awaited<ReturnType<typeof compareStates>>> {
  const { target } = examined;
  const image = await openImage(tools, chosen.record, chosen.manifest.level);
  const done = tools.progress.begin(`comparing ${chosen.record.id} with ${target.name}`);
  try {
    return await compareStates(tools, image, await stateNow(target), tables);
  } finally {
    done();
    await image.close();
  }
}

/** Tables in which no row is as the snapshot has it. */
export function takenWhole(
  changes: WorkingChanges,
  rowsBefore: ReadonlyMap<string, number>,
): ReadonlySet<string> {
  const whole = new Set<string>();
  for (const { name, keyKind } of changes.tables) {
    const had = rowsBefore.get(name) ?? 0;
    // With a key each change is one row: fewer changes than rows need not be read for it.
    if (keyKind === "primary" && changes.size !== undefined && changes.size(name) < had) continue;
    let touched = 0;
    for (const c of changes.changes(name)) if (c.op !== "insert") touched += countOf(c);
    if (touched >= had) whole.add(name);
  }
  return whole;
}

/** Rows by what becomes of them, and the changes that bring them back. Close `changes` in `finally`. */
export interface Sorted extends Pick<Rescued, "counts" | "conflicts" | "removed" | "born"> {
  readonly changes: WorkingChanges;
}

/** By what rows are sorted. */
export interface Sorting {
  readonly declared: Declared;
  readonly evidence: Evidence;
  readonly decisions: Deciding;
}

/** Every row that is not as in the snapshot, by what becomes of it. */
export async function sortRows(
  tools: Toolbox,
  target: Target,
  compared: WorkingChanges,
  sorting: Sorting,
  request: Pick<RescueRequest, "born">,
): Promise<Sorted> {
  const counts = {
    restored: 0,
    merged: 0,
    removed: 0,
    kept: 0,
    conflict: 0,
    undecidable: 0,
    other: 0,
    born: 0,
  };
  const conflicts: RowConflict[] = [];
  const removed: { table: string; shape: TableShape; key: RowKey }[] = [];
  const born = new Map<string, number>();
  const mine = new Set(sorting.declared.narrowed.tables.map((t) => t.name));
  const writer = await tools.workingChanges();
  try {
    for (const shape of compared.tables) {
      writer.table(shape);
      for (const change of compared.changes(shape.name)) {
        const rows = countOf(change);
        if (!mine.has(shape.name) && change.op !== "insert") {
          counts.other += rows;
          continue;
        }
        const fate = await fateOf(shape, change, sorting.declared, sorting.evidence, sorting.decisions);
        if ("change" in fate) writer.add(fate.change);
        if (fate.kind === "conflict") {
          counts[fate.conflict.kind === "undecidable" ? "undecidable" : "conflict"] += rows;
          if (conflicts.length < CONFLICTS_LISTED) conflicts.push(fate.conflict);
          continue;
        }
        counts[fate.kind] += rows;
        if (fate.kind === "removed" && removed.length < REMOVED_LISTED)
          removed.push({ table: shape.name, shape, key: change.key });
        if (fate.kind !== "born") continue;
        born.set(shape.name, (born.get(shape.name) ?? 0) + rows);
        request.born(shape, change.key);
      }
    }
    sorting.decisions.finish();
  } catch (e) {
    writer.abort();
    throw e;
  }
  const settled = await withoutRefused(tools, target, writer.finish(), counts, conflicts);
  return {
    changes: settled,
    counts,
    conflicts,
    removed,
    born: [...born].map(([table, rows]) => ({ table, rows })),
  };
}

/**
 * Leaves out rows that the target would not take (their parent was removed by its owner, another row has their unique
 * value) and lists them; again until the rest is taken, since each may have been the parent of another.
 */
async function withoutRefused(
  tools: Toolbox,
  target: Target,
  changes: WorkingChanges,
  counts: { restored: number; readonly merged: number; conflict: number },
  conflicts: RowConflict[],
): Promise<WorkingChanges> {
  const trial = await openTrial(tools, target, counts.restored + counts.merged);
  try {
    return await withoutRefusedBy(trial, tools, target, changes, counts, conflicts);
  } finally {
    await trial.close();
  }
}

async function withoutRefusedBy(
  trial: Trial,
  tools: Toolbox,
  target: Target,
  changes: WorkingChanges,
  counts: { restored: number; readonly merged: number; conflict: number },
  conflicts: RowConflict[],
): Promise<WorkingChanges> {
  let left = changes;
  for (let round = 0; round < ROUNDS; round++) {
    const problems = await trial.problemsOf(left);
    if (problems.length === 0) return left;
    const out = new Map<string, { readonly change: Change; readonly kind: "foreign-key" | "constraint" }>();
    for (const p of problems) {
      if (p.kind === "drift" || p.change === undefined) continue;
      out.set(`${p.change.table} ${keyText(p.change.key)}`, { change: p.change, kind: p.kind });
    }
    if (out.size === 0) throw notTaken(left, target, problems.map(problemInWords));
    for (const { change, kind } of out.values()) {
      const shape = left.tables.find((t) => t.name === change.table);
      if (shape === undefined) continue;
      counts.restored -= 1;
      counts.conflict += 1;
      if (conflicts.length < CONFLICTS_LISTED) conflicts.push(refusedRow(shape, change, kind));
    }
    left = await copyWithout(
      tools,
      left,
      [...out.values()].map((o) => o.change),
    );
  }
  throw notTaken(left, target, [`rows are still refused after ${ROUNDS} rounds`]);
}

async function copyWithout(
  tools: Toolbox,
  changes: WorkingChanges,
  out: readonly Change[],
): Promise<WorkingChanges> {
  const writer = await tools.workingChanges();
  try {
    for (const shape of changes.tables) {
      if (changes.stored !== undefined && writer.addStored?.(shape, changes.stored) === true) continue;
      writer.table(shape);
      for (const c of changes.changes(shape.name)) writer.add(c);
    }
    for (const { table, key } of out) writer.drop(table, key);
    return writer.finish();
  } catch (e) {
    writer.abort();
    throw e;
  } finally {
    changes.close();
  }
}

function notTaken(left: WorkingChanges, target: Target, problems: readonly string[]): UsageError {
  left.close();
  return new UsageError({
    code: "ERR_RESCUE_CONFLICT",
    message: `${target.name} would not take the restored rows`,
    why: problems.slice(0, 5).join("; "),
    next: [
      {
        actor: "requester",
        text: "Rescue the rows that these refer to as well: leave out --table, or name those tables too.",
      },
    ],
  });
}

/** The runs of ours since the snapshot that touched a row, and whether what they wrote is what is there now. */
async function evidenceSince(
  tools: Toolbox,
  target: string,
  chosen: VerifiedSnapshot,
): Promise<{ readonly of: Evidence; readonly close: () => void }> {
  const runs = (await allRuns(tools)).filter(
    (r) => r.target === target && r.state === "done" && (r.endedAt ?? "") >= chosen.record.at,
  );
  const byId = new Map<string, RunRecord>(runs.map((r) => [r.id, r]));
  const plans = new Map<string, LoadedPlan>();
  const index = await tools.rowIndex();
  return {
    of: async (table, change) => {
      if (runs.length === 0) return null;
      const run = byId.get(index.runsOf(table, change.key).findLast((id) => byId.has(id)) ?? "");
      if (run === undefined) return null;
      const plan = plans.get(run.plan) ?? (await loadPlan(tools, run.plan));
      plans.set(run.plan, plan);
      const wrote = plan.changes.get(table, change.key);
      return wrote !== undefined && sameRow(afterOf(wrote), afterOf(change)) ? run.id : null;
    },
    close: () => {
      for (const plan of plans.values()) plan.close();
    },
  };
}

async function planOf(
  tools: Toolbox,
  examined: Examined,
  chosen: VerifiedSnapshot,
  request: RescueRequest,
  { changes, counts }: Sorted,
): Promise<PlanMade> {
  return sealPlan(tools, examined, changes, {
    job: null,
    from: {
      kind: "rescue",
      runs: [],
      plans: [],
      snapshot: chosen.record.id,
      manifest: chosen.record.manifest,
      counts: {
        put_back: counts.restored,
        merged: counts.merged,
        nothing_to_do: counts.removed + counts.kept + counts.other,
        conflict: counts.conflict + counts.undecidable,
      },
      clean: false,
    },
    rehearsal: null,
    schema: await examined.target.schema(),
    reason: request.reason,
    ticket: null,
    key: request.key,
    out: request.out,
    lifetimeSeconds: PLAN_LIFETIME_SECONDS,
    keyOptional: true,
    pacing: request.pacing ?? {},
    putBack: request.putBack === true,
  });
}

function refuseOtherDecisions(file: Resolutions | undefined, chosen: VerifiedSnapshot, target: string): void {
  if (
    file === undefined ||
    (file.target === target && file.of.length === 1 && file.of[0] === chosen.record.id)
  )
    return;
  throw new UsageError({
    code: "ERR_RESOLUTIONS_INVALID",
    message: "the resolutions file is about something else",
    why: `it decides ${file.of.join(", ")} on ${file.target}; asked for is ${chosen.record.id} on ${target}`,
  });
}
