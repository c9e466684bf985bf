/**
 * Apply: write exactly what was signed, once, in the place it was signed for.
 *
 * Everything is computed again before the first write, in the order of the design: place, trust bundle,
 * history, the plan's own state, policy, approvals, schema, rows, snapshot. The plan's claims about itself
 * are compared with what was computed, never used.
 */
import { shortDigest } from "../base/digest.js";
import { IntegrityError, RefusedError, UsageError } from "../base/errors.js";
import type { ChangeSource } from "../changeset/change.js";
import type { Summary } from "../changeset/summarise.js";
import type { VerdictName } from "../environment/evidence.js";
import type { Decision } from "../policy/decision.js";
import type { SchemaFacts } from "../target/target.js";
import { refuseDenied } from "./approve.js";
import { type Authority, requireAuthority } from "./consent/authority.js";
import type { BreakGlassRequest } from "./consent/break-glass.js";
import {
  type BegunRun,
  begunRun,
  coverOfBegun,
  isWritten,
  nothingToResume,
  remaining,
  rowsBeforeRun,
} from "./writing/begun.js";
import { type Cover, coverOf } from "./consent/cover.js";
import { refuseOverdueDebts } from "./debts.js";
import { MOVED_LISTED, type MovedRow, rowDrift, schemaDrift, statesOf } from "./judging/drift.js";
import {
  type Examined,
  refuseContradiction,
  refuseOtherBundle,
  requireHistory,
  withTarget,
} from "./judging/examine.js";
import { heldBy, refuseHeld } from "./recall/held.js";
import { claimsOf, decideEffect, type Effect, endSummary, startSummary } from "./judging/judge-plan.js";
import { refuseClosedPlan, refusePlanOfOtherPlace, rowsNow } from "./recall/plan-state.js";
import { requireTold } from "./writing/collectors.js";
import { cutAgain, cutForRun, type Pacing, type RunCut } from "./writing/run-cut.js";
import { stoppedPartWay } from "./writing/run-ends.js";
import { refuseOutsideScope, refuseSchemaOutsideScope, unexpected } from "./judging/scope.js";
import { presentRows } from "./judging/script.js";
import { applyingPipeline, requireRequester } from "./consent/pipeline.js";
import { both, loadPlan, loadSealed } from "./recall/stored-plan.js";
import { timeOf } from "./judging/time.js";
import type { BeforeImagesKept, LoadedPlan, Toolbox, WorkingChanges } from "./toolbox.js";
import { rowsOf } from "./writing/write-batch.js";
import { resumeRun, type Writing, writeRun } from "./writing/write-run.js";

/** Where and under whose word somebody is about to type the target's name. */
export interface DecisionPoint {
  readonly target: string;
  readonly verdict: VerdictName;
  readonly approvers: readonly string[];
}

/** What is asked of apply. */
export interface ApplyRequest {
  readonly ref: string;
  /** Texts of tokens given by file, stdin or environment; those in the ledger are found besides. */
  readonly tokens: readonly string[];
  /** Asks for the target's name where the tier wants it typed; refuses with 22 without a terminal. */
  readonly confirm: (at: DecisionPoint) => Promise<void>;
  /** Every check, and nothing written. */
  readonly dryRun: boolean;
  /** A covered undo: applied under the approval of the run that it takes back. */
  readonly under?: Cover;
  /** One person in place of the quorum, for minutes, with a debt; see `break-glass.ts`. */
  readonly breakGlass?: BreakGlassRequest;
  /** Waves, rate and one transaction, as far as they tighten what the plan says. */
  readonly pacing?: Pacing;
  /** The run to go on with; refused where the plan's run is another or over. */
  readonly resume?: string;
  /** What this process holds of the plan since it sealed it a moment ago, see {@link loadSealed}. */
  readonly sealed?: SealedHere;
}

/** A plan's changes and their summary, as the process has them that made the plan. */
export interface SealedHere {
  readonly changes: WorkingChanges;
  readonly summary: Summary;
  readonly kept?: BeforeImagesKept;
}

/** How a run ended well. */
export interface Applied {
  readonly run: string | null;
  readonly plan: string;
  readonly target: string;
  readonly environment: string;
  readonly rows: { readonly planned: number; readonly written: number; readonly alreadyDone: number };
  readonly waves: number;
  readonly batches: number;
  readonly snapshot: string | null;
  readonly approvers: readonly string[];
  /** Until when one clean undo is already approved; null when none is. */
  readonly coverUntil: string | null;
  readonly tookMs: number;
  readonly dryRun: boolean;
  /** True when a run that had begun earlier was gone on with. */
  readonly resumed: boolean;
  /** True when an earlier run had committed everything and only its record was completed now. */
  readonly completed: boolean;
  /** Schema changes made, by a plan of mode script. */
  readonly schemaChanges: number;
}

/**
 * Applies a plan, or says by code why not; a refusal before the first write leaves the target as it was.
 * Killed at any point and run again, it ends as if it had not been killed.
 */
export async function applyPlan(tools: Toolbox, request: ApplyRequest): Promise<Applied> {
  const read = await planToApply(tools, request);
  try {
    return await withTarget(
      tools,
      read.plan.statement.target.name,
      (examined) => applyTo(tools, read, examined, request),
      // A dry run asks the same questions over the connection that would write: its role is a part of the answer.
      "write",
    );
  } finally {
    read.kept?.drop();
    read.plan.close();
  }
}

interface PlanToApply {
  readonly plan: LoadedPlan;
  readonly summary: Summary;
  /** What the snapshot will hold, packed in the one reading of the plan. */
  readonly kept?: BeforeImagesKept;
}

async function planToApply(tools: Toolbox, { ref, sealed }: ApplyRequest): Promise<PlanToApply> {
  if (sealed !== undefined) {
    const { changes, ...known } = sealed;
    return { plan: await loadSealed(tools, ref, changes), ...known };
  }
  const [summarising, kept] = [startSummary(), tools.snapshots.keep()];
  try {
    const plan = await loadPlan(tools, ref, both(summarising, kept));
    try {
      const summary = endSummary(summarising, plan.changes, plan.statement.changeset.digest);
      return { plan, summary, kept };
    } catch (e) {
      plan.close();
      throw e;
    }
  } catch (e) {
    kept.drop();
    throw e;
  }
}

async function applyTo(
  tools: Toolbox,
  { plan, summary, kept }: PlanToApply,
  examined: Examined,
  request: ApplyRequest,
): Promise<Applied> {
  requirePinned(plan, examined);
  refuseContradiction(examined);
  refusePlanOfOtherPlace(plan, examined);
  tools.progress.check(`target is the pinned ${examined.target.name}`);
  await refuseOtherBundle(tools, examined);
  refuseOlderBundle(plan, examined);
  await requireRequester(tools, plan);
  tools.progress.check("people, policies and guarding configuration are the pinned ones");
  const pipeline = await applyingPipeline(tools, plan);
  if (pipeline !== null) tools.progress.check(`this pipeline is ${pipeline.facts.identity}, by its token`);
  const ledger = await requireHistory(tools, examined);
  const begun = await begunRun(tools, plan, examined);
  requireResumable(request, plan, begun);
  if (begun !== null && isWritten(begun)) {
    const by = pipeline === null ? {} : { appliedBy: pipeline.facts };
    return completeRun(tools, { plan, examined, ledger, begun, ...by });
  }
  await refuseClosedPlan(tools, plan, examined, await timeOf(tools, examined));
  await refuseHold(plan, examined);
  requireTold(tools, examined);
  if (plan.statement.job !== null) await refuseOverdueDebts(tools, examined);

  const schema = await examined.target.schema();
  const cut = cutOf(plan, schema, begun, request.pacing ?? {});
  const left = begun === null ? plan.changes : remaining(cut, plan.changes, begun);
  const rows = await rowsNow(examined, plan);
  const rowsBefore = begun === null ? rows : rowsBeforeRun(rows, plan.statement.changeset.tables, left);
  const under =
    request.under ?? (begun === null ? null : await coverOfBegun(tools, begun, examined)) ?? undefined;
  const authorise = async (): Promise<Authority> => {
    const decision = await recomputeDecision(tools, plan, examined, { summary, rowsBefore });
    const asked = { ...request, ...(under === undefined ? {} : { under }) };
    return requireAuthority(tools, plan, examined, decision, asked);
  };
  const authority = await authorise();
  refuseSchemaDrift(plan, schema);
  const began = tools.clock.now().getTime();
  await refuseRowDrift(plan, examined, presentRows(plan.statement, left, schema), begun);
  tools.progress.check(
    begun === null ? asPlanned(plan) : `the rows that ${begun.run} has not written are as planned`,
  );
  if (request.dryRun) return dryRunOf(plan, examined, authority, cut);
  const asked = tools.clock.now().getTime();
  if (
    examined.verdict.guardedAs === "production" &&
    request.under === undefined &&
    plan.statement.changeset.rows + plan.statement.schema.changes.length > 0
  ) {
    await request.confirm({
      target: examined.target.name,
      verdict: examined.verdict.name,
      approvers: authority.approvers,
    });
  }
  // How long somebody thought before they typed is no part of how long the run took.
  const started = new Date(began + (tools.clock.now().getTime() - asked));
  const writing: Writing = {
    plan,
    examined,
    ledger,
    authority,
    started,
    under,
    cut,
    ...(pipeline === null ? {} : { appliedBy: pipeline.facts }),
    ...(kept === undefined ? {} : { kept }),
    maxRowsPerSecond: slower(plan.statement.pace.max_rows_per_second, request.pacing?.maxRowsPerSecond),
    stillAllowed: async () => {
      await refuseClosedPlan(tools, plan, examined, await timeOf(tools, examined));
      await authorise();
    },
  };
  if (begun === null) return writeRun(tools, writing);
  await requireSnapshot(tools, begun);
  return resumeRun(
    tools,
    { ...writing, coverUntil: (await coverOf(tools, plan, examined))?.until ?? null },
    begun,
  );
}

/** `--resume` names one run; without it a run that began is gone on with as if it had not been stopped. */
function requireResumable(request: ApplyRequest, plan: LoadedPlan, begun: BegunRun | null): void {
  if (request.resume !== undefined && begun?.run !== request.resume) {
    throw nothingToResume(
      request.resume,
      begun === null
        ? "nothing of it is committed; apply its plan instead"
        : `${plan.id} is being written by ${begun.run}`,
    );
  }
  const asked = request.pacing;
  if (begun === null || (asked?.waves === undefined && asked?.atomic !== true)) return;
  throw new UsageError({
    code: "ERR_USAGE",
    message: `${begun.run} goes on in the waves it began with`,
    why: "its batches are marked in the target; --max-rate may be changed, --waves and --atomic may not",
  });
}

async function refuseHold(plan: LoadedPlan, examined: Examined): Promise<void> {
  const hold = heldBy(await examined.target.notes(), plan.digest);
  if (hold !== null) refuseHeld(examined.target.name, hold);
}

function cutOf(plan: LoadedPlan, schema: SchemaFacts, begun: BegunRun | null, pacing: Pacing): RunCut {
  const { rows, tables } = plan.statement.changeset;
  const effect = { source: plan.changes, rows, tables, ties: schema.ties };
  return begun === null ? cutForRun(effect, plan.statement, pacing) : cutAgain(effect, begun.cut);
}

/** The slower of two rates; null when neither is given. */
function slower(planned: number | null, asked: number | undefined): number | null {
  return planned === null ? (asked ?? null) : Math.min(planned, asked ?? planned);
}

/** A run whose rows are all committed: open checks are asked, and its record is completed. */
async function completeRun(
  tools: Toolbox,
  of: Pick<Writing, "plan" | "examined" | "ledger" | "appliedBy"> & { readonly begun: BegunRun },
): Promise<Applied> {
  const { plan, examined, begun } = of;
  const cover = await coverOf(tools, plan, examined);
  const writing: Writing = {
    ...of,
    authority: { approvers: begun.approvers, nonces: [], coverUndoSeconds: null, brought: [] },
    started: tools.clock.now(),
    under: undefined,
    cut: cutOf(plan, await examined.target.schema(), begun, {}),
    maxRowsPerSecond: null,
    stillAllowed: async () => {},
    coverUntil: cover?.until ?? null,
  };
  return resumeRun(tools, writing, begun);
}

/** The way back of a run that goes on: what it kept must still be what it kept. */
async function requireSnapshot(tools: Toolbox, begun: BegunRun): Promise<void> {
  if (begun.snapshot === null) return;
  const check = await tools.snapshots.verify(begun.snapshot);
  if (check.ok) return;
  throw new IntegrityError({
    code: "ERR_SNAPSHOT_UNVERIFIED",
    message: `the snapshot that ${begun.run} took is not whole any more`,
    why: check.why,
    next: [{ actor: "requester", argv: ["holdpoint", "undo", begun.run] }],
  });
}

async function recomputeDecision(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined,
  { summary, rowsBefore }: Pick<Effect, "summary" | "rowsBefore">,
): Promise<Decision> {
  const { statement } = plan;
  if (statement.job !== null) {
    refuseOutsideScope(statement.job, statement.changeset.tables, statement.target.name);
    const missed = unexpected(statement.job, statement.changeset.tables, statement.target.name);
    if (missed !== null) throw missed;
    refuseSchemaOutsideScope(statement.job, statement.schema.changes, statement.target.name);
  }
  const decision = await decideEffect(tools, {
    now: await timeOf(tools, examined),
    act: "apply",
    verdict: examined.verdict,
    target: {
      name: examined.target.name,
      adapter: examined.target.adapter,
      pinned: examined.marker !== null,
    },
    reach: examined.target,
    changes: plan.changes,
    summary,
    rowsBefore,
    claims: claimsOf(statement),
  });
  refuseDenied(decision, plan.id);
  refuseClaim(plan, "environment", statement.target.verdict, examined.verdict.name);
  refuseClaim(plan, "decision", statement.decision, decision.kind);
  return decision;
}

function refuseClaim(plan: LoadedPlan, what: string, claimed: string, computed: string): void {
  if (claimed === computed) return;
  throw new IntegrityError({
    code: "ERR_PLAN_DIFFERS",
    message: `${plan.id} says ${what} ${claimed}, and it is ${computed}`,
    why: `computed again from its rows, the target and the pinned rules: ${computed}`,
    next: [{ actor: "requester", text: "Make the plan again." }],
  });
}

function requirePinned(plan: LoadedPlan, examined: Examined): void {
  if (examined.marker !== null || examined.verdict.contradicted) return;
  throw new RefusedError({
    code: "ERR_ENV_NOT_PINNED",
    message: `${plan.statement.target.name} is not pinned, so nothing can be written to it`,
    why: "spent approvals and the ledger's head are kept in the target's marker, and there is none",
    next: [{ actor: "dba", argv: ["holdpoint", "env", "pin", plan.statement.target.name] }],
  });
}

function refuseOlderBundle(plan: LoadedPlan, examined: Examined): void {
  if (plan.statement.bundle === examined.bundleDigest) return;
  throw new RefusedError({
    code: "ERR_TRUST_BUNDLE",
    message: `the people, policies or guarding configuration changed since ${plan.id} was made`,
    why: `planned under ${shortDigest(plan.statement.bundle)}, now ${shortDigest(examined.bundleDigest)}`,
    next: [{ actor: "requester", text: "Make the plan again under the rules that hold now." }],
  });
}

function refuseSchemaDrift(plan: LoadedPlan, now: SchemaFacts): void {
  const settings = Object.entries(plan.statement.settings).filter(([k, v]) => now.settings[k] !== v);
  if (now.fingerprint === plan.statement.schema.fingerprint && settings.length === 0) return;
  throw schemaDrift(
    plan,
    now.fingerprint,
    settings.map(([k, v]) => `${k} was ${v}, is ${now.settings[k] ?? "unset"}`),
  );
}

/** Rows of tables that a script makes or changes cannot be looked at beforehand: its whole effect is compared before it stays. */
function asPlanned({ statement }: LoadedPlan): string {
  const { rows } = statement.changeset;
  if (statement.mode === "script" && statement.from === null)
    return "the rows that are there already are as planned";
  return `${rows} of ${rows} rows are as planned`;
}

async function refuseRowDrift(
  plan: LoadedPlan,
  examined: Examined,
  left: ChangeSource,
  begun: BegunRun | null,
): Promise<void> {
  if ((await examined.target.holdsAll?.(left, "before")) === true) return;
  const listed: MovedRow[] = [];
  let moved = 0;
  for await (const row of statesOf(examined.target, left)) {
    if (row.state !== "moved") continue;
    moved += 1;
    if (listed.length < MOVED_LISTED) listed.push(row);
  }
  if (moved === 0) return;
  const drift = rowDrift(plan, moved, listed);
  if (begun === null || begun.marks.length === 0) throw drift;
  throw stoppedPartWay(drift, {
    run: begun.run,
    plan: plan.id,
    rows: rowsOf(begun.marks),
    of: plan.statement.changeset.rows,
    batches: begun.marks.length,
    ofBatches: begun.batchCount,
  });
}

function dryRunOf(plan: LoadedPlan, examined: Examined, authority: Authority, cut: RunCut): Applied {
  return {
    run: null,
    plan: plan.id,
    target: examined.target.name,
    environment: examined.verdict.guardedAs,
    rows: { planned: plan.statement.changeset.rows, written: 0, alreadyDone: 0 },
    waves: cut.waves,
    batches: cut.batchCount,
    snapshot: null,
    approvers: authority.approvers,
    coverUntil: null,
    tookMs: 0,
    dryRun: true,
    resumed: false,
    completed: false,
    schemaChanges: 0,
  };
}
