/** Plan: run the job where nothing is kept, capture its ChangeSet, say what policy says, and sign it all. */
import type { PlannedJob } from "../approval/plan-statement.js";
import { UsageError } from "../base/errors.js";
import { targetConfigOf } from "../config/config.js";
import type { PreparedJob } from "../jobs/job.js";
import { rehearseJob, type PlacedRehearsal } from "./rehearse.js";
import type { Rehearsal, SchemaChange } from "../target/target.js";
import {
  type Examined,
  refuseContradiction,
  refuseOtherBundle,
  requireHistory,
  withTarget,
} from "./judging/examine.js";
import { refuseOverdueDebts } from "./debts.js";
import { type SnapshotLevel } from "../snapshot/snapshot.js";
import { pipelineHere } from "./consent/pipeline.js";
import { noScripts, scriptOf } from "./judging/script.js";
import type { Pacing } from "./writing/run-cut.js";
import type { Toolbox } from "./toolbox.js";
import { PLAN_LIFETIME_SECONDS, type PlanMade, type ScriptPart, sealPlan } from "./planning/seal-plan.js";

/** What the requester asks for. */
export interface PlanRequest {
  readonly on: string;
  readonly job: PreparedJob;
  readonly reason: string | null;
  readonly ticket: string | null;
  readonly key: string | undefined;
  readonly out: string | undefined;
  readonly lifetimeSeconds?: number;
  /** Waves, rate or one transaction; the defaults of {@link plannedWaves} where nothing is said. */
  readonly pacing?: Pacing;
  /** Put a wave back when a check fails after it. */
  readonly putBack?: boolean;
  /** What is kept before the first write, where that is more than the configuration says. */
  readonly snapshot?: SnapshotLevel;
  /** How it is to be written; where nothing is said, as rows unless the job changes the schema. */
  readonly mode?: "rows" | "script";
  /** Whether a module or command is run twice, where the command line says so. */
  readonly again?: "always" | "never";
}

/**
 * Makes a plan and leaves the target equal.
 * A plan that policy denies is kept and returned too, so that it can be shown and explained.
 */
export async function makePlan(tools: Toolbox, request: PlanRequest): Promise<PlanMade> {
  return withTarget(tools, request.on, async (examined) => {
    await requirePlannable(tools, examined);
    await refuseOverdueDebts(tools, examined);
    const pipeline = await pipelineHere(tools, "plan", "required");
    const writer = await tools.workingChanges();
    let rehearsal: PlacedRehearsal;
    const on = targetConfigOf(tools.project.config, request.on).rehearseOn ?? request.on;
    const done = tools.progress.begin(`rehearsing ${request.job.name} on ${on}`);
    try {
      const how = { script: request.mode === "script", again: request.again ?? request.job.again };
      rehearsal = await rehearseJob(tools, examined, request.job.runnable, writer, how);
    } catch (e) {
      writer.abort();
      throw e;
    } finally {
      done();
    }
    const changes = writer.finish();
    try {
      const script = scriptPart(request, rehearsal, examined.target);
      return await sealPlan(tools, examined, changes, {
        job: plannedJob(request.job),
        from: null,
        pipeline,
        rehearsal: withNotice(rehearsal, await request.job.swapped()),
        ...(script === null ? {} : { script }),
        schema: rehearsal.schema,
        reason: request.reason,
        ticket: request.ticket,
        key: request.key,
        out: request.out,
        lifetimeSeconds: request.lifetimeSeconds ?? PLAN_LIFETIME_SECONDS,
        pacing: request.pacing ?? {},
        putBack: request.putBack === true,
        ...(request.snapshot === undefined ? {} : { snapshot: request.snapshot }),
      });
    } finally {
      changes.close();
    }
  });
}

/** The checks before anything is read from a target: right place, right trust bundle, whole history. */
export async function requirePlannable(tools: Toolbox, examined: Examined): Promise<void> {
  refuseContradiction(examined);
  await refuseOtherBundle(tools, examined);
  await tools.assertStoreOutside(examined.target.ownPaths());
  await requireHistory(tools, examined);
}

function plannedJob(job: PreparedJob): PlannedJob {
  return {
    name: job.name,
    kind: job.kind,
    source: job.source,
    path: job.path,
    parameters: job.parameters,
    arguments: job.arguments,
    selective: job.selective,
    scope: job.scope,
    expect: job.expect,
    ...(job.direction === null || job.direction.length === 0 ? {} : { direction: job.direction }),
  };
}

/**
 * How a job is to be written: as rows, or by running it again. Schema changes can only be the latter.
 * @throws UsageError for a job that is no SQL file, or that asks for rows and changes the schema.
 */
function scriptPart(
  request: PlanRequest,
  rehearsal: Rehearsal,
  target: Examined["target"],
): ScriptPart | null {
  const [first] = rehearsal.schemaChanges;
  if (first === undefined && request.mode !== "script") return null;
  if (first !== undefined && request.mode === "rows") throw rowsOnly(request, rehearsal.schemaChanges);
  if (!target.capabilities.transactionalDdl) throw noScripts(request.on);
  return { statements: scriptOf(request.job.runnable), schemaChanges: rehearsal.schemaChanges };
}

function rowsOnly(request: PlanRequest, changes: readonly SchemaChange[]): UsageError {
  const [first] = changes;
  return new UsageError({
    code: "ERR_USAGE",
    message: `--mode rows cannot write what ${request.job.name} does to ${request.on}: ${first?.action ?? "change"} ${first?.object ?? "schema"} ${first?.name ?? ""}`,
    why: `${changes.length} schema changes; row mode writes rows and nothing else`,
    next: [
      { actor: "requester", text: "Leave --mode out: the statements then run again in one transaction." },
    ],
  });
}

function withNotice(rehearsal: PlacedRehearsal, notice: string | null): PlacedRehearsal {
  return notice === null ? rehearsal : { ...rehearsal, notices: [...rehearsal.notices, notice] };
}
