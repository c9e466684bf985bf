/**
 * Apply: write exactly what was signed, once, in the place it was signed for.
 *
 * Everything is computed again before the first write, in the order of the design: place, trust bundle,
 * history, the plan's own state, policy, approvals, schema, rows, snapshot. The plan's claims about itself
 * are compared with what was computed, never used.
 */
import { shortDigest } from "../base/digest.js";
import { IntegrityError, RefusedError } from "../base/errors.js";
import type { Decision } from "../policy/decision.js";
import { refuseDenied } from "./approve.js";
import { type Authority, requireAuthority } from "./authority.js";
import type { Cover } from "./cover.js";
import { MOVED_LISTED, type MovedRow, rowDrift, schemaDrift, statesOf } from "./drift.js";
import {
  type Examined,
  refuseContradiction,
  refuseOtherBundle,
  requireHistory,
  withTarget,
} from "./examine.js";
import { decideEffect, summaryOf } from "./judge-plan.js";
import { refuseClosedPlan, refusePlanOfOtherPlace, rowsNow } from "./plan-state.js";
import { refuseOutsideScope, refuseUnexpected } from "./scope.js";
import { loadPlan, requireKnownRequester } from "./stored-plan.js";
import type { LoadedPlan, Toolbox } from "./toolbox.js";
import { finishKilledRun, writeRun } from "./write-run.js";

/** What is asked of apply. */
export interface ApplyRequest {
  readonly ref: string;
  /** Texts of tokens given by file, stdin or environment; those in the ledger are found besides. */
  readonly tokens: readonly string[];
  /** Asks for the target's name where the tier wants it typed; refuses with 22 without a terminal. */
  readonly confirm: (target: string) => Promise<void>;
  /** Every check, and nothing written. */
  readonly dryRun: boolean;
  /** A covered undo: applied under the approval of the run that it takes back. */
  readonly under?: Cover;
}

/** How a run ended well. */
export interface Applied {
  readonly run: string | null;
  readonly plan: string;
  readonly target: string;
  readonly environment: string;
  readonly rows: { readonly planned: number; readonly written: number; readonly alreadyDone: number };
  readonly snapshot: string | null;
  readonly approvers: readonly string[];
  /** Until when one clean undo is already approved; null when none is. */
  readonly coverUntil: string | null;
  readonly tookMs: number;
  readonly dryRun: boolean;
  /** True when a killed run had committed and only its record was completed now. */
  readonly completed: boolean;
}

/**
 * Applies a plan, or says by code why not; a refusal before the first write leaves the target as it was.
 * Killed at any point and run again, it ends as if it had not been killed.
 */
export async function applyPlan(tools: Toolbox, request: ApplyRequest): Promise<Applied> {
  const plan = await loadPlan(tools, request.ref);
  try {
    return await withTarget(tools, plan.statement.target.name, (examined) =>
      applyTo(tools, plan, examined, request),
    );
  } finally {
    plan.close();
  }
}

async function applyTo(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined,
  request: ApplyRequest,
): Promise<Applied> {
  requirePinned(plan, examined);
  refuseContradiction(examined);
  refusePlanOfOtherPlace(plan, examined);
  tools.progress.check(`target is the pinned ${examined.target.name}`);
  await refuseOtherBundle(tools, examined);
  refuseOlderBundle(plan, examined);
  requireKnownRequester(plan, tools.project.people);
  tools.progress.check("people, policies and guarding configuration are the pinned ones");
  const ledger = await requireHistory(tools, examined);
  const unfinished = await finishKilledRun(tools, plan, examined, ledger);
  if (unfinished !== null) return unfinished;
  await refuseClosedPlan(tools, plan, examined);

  const decision = await recomputeDecision(tools, plan, examined);
  const authority = await requireAuthority(tools, plan, examined, decision, request);
  await refuseSchemaDrift(plan, examined);
  const started = tools.clock.now();
  await refuseRowDrift(plan, examined);
  tools.progress.check(
    `${plan.statement.changeset.rows} of ${plan.statement.changeset.rows} rows are as planned`,
  );
  if (request.dryRun) return dryRunOf(plan, examined, authority);
  if (
    examined.verdict.guardedAs === "production" &&
    request.under === undefined &&
    plan.statement.changeset.rows > 0
  ) {
    await request.confirm(examined.target.name);
  }
  return writeRun(tools, { plan, examined, ledger, authority, started, under: request.under });
}

async function recomputeDecision(tools: Toolbox, plan: LoadedPlan, examined: Examined): Promise<Decision> {
  const { statement } = plan;
  if (statement.job !== null) {
    refuseOutsideScope(statement.job, statement.changeset.tables, statement.target.name);
    refuseUnexpected(statement.job, statement.changeset.tables, statement.target.name);
  }
  const decision = decideEffect(tools, {
    verdict: examined.verdict,
    target: {
      name: examined.target.name,
      adapter: examined.target.adapter,
      pinned: examined.marker !== null,
    },
    summary: summaryOf(plan.changes, statement.changeset.digest),
    rowsBefore: await rowsNow(examined, plan),
    claims: { ...statement, schemaChanges: statement.schema.changes.length },
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

async function refuseSchemaDrift(plan: LoadedPlan, examined: Examined): Promise<void> {
  const now = await examined.target.schema();
  const settings = Object.entries(plan.statement.settings).filter(([k, v]) => now.settings[k] !== v);
  if (now.fingerprint === plan.statement.schema.fingerprint && settings.length === 0) return;
  throw schemaDrift(
    plan,
    now.fingerprint,
    settings.map(([k, v]) => `${k} was ${v}, is ${now.settings[k] ?? "unset"}`),
  );
}

async function refuseRowDrift(plan: LoadedPlan, examined: Examined): Promise<void> {
  const listed: MovedRow[] = [];
  let moved = 0;
  for await (const row of statesOf(examined.target, plan.changes)) {
    if (row.state !== "moved") continue;
    moved += 1;
    if (listed.length < MOVED_LISTED) listed.push(row);
  }
  if (moved > 0) throw rowDrift(plan, moved, listed);
}

function dryRunOf(plan: LoadedPlan, examined: Examined, authority: Authority): Applied {
  return {
    run: null,
    plan: plan.id,
    target: examined.target.name,
    environment: examined.verdict.guardedAs,
    rows: { planned: plan.statement.changeset.rows, written: 0, alreadyDone: 0 },
    snapshot: null,
    approvers: authority.approvers,
    coverUntil: null,
    tookMs: 0,
    dryRun: true,
    completed: false,
  };
}
