/** Plan: run the job where nothing is kept, capture its ChangeSet, say what policy says, and sign it all. */
import { planDigest, planId, planStatementBytes } from "../approval/plan-statement-codec.js";
import type { PlanStatement, PlannedJob, PlanOrigin, Requester } from "../approval/plan-statement.js";
import { NAMESPACES } from "../approval/requirement.js";
import { stamp } from "../base/clock.js";
import type { Digest } from "../base/digest.js";
import { RefusedError, UsageError } from "../base/errors.js";
import type { TableShape } from "../changeset/change.js";
import type { Summary } from "../changeset/summarise.js";
import type { PreparedJob } from "../jobs/job.js";
import type { Decision } from "../policy/decision.js";
import type { Rehearsal, SchemaFacts } from "../target/target.js";
import { decideEffect, summaryOf } from "./judge-plan.js";
import {
  type Examined,
  refuseContradiction,
  refuseOtherBundle,
  requireHistory,
  withTarget,
} from "./examine.js";
import { refuseOutsideScope, refuseUnexpected } from "./scope.js";
import { measure } from "./stored-plan.js";
import type { SigningKey, Toolbox, WorkingChanges } from "./toolbox.js";

/** How long a plan may be applied when nobody says otherwise. */
export const PLAN_LIFETIME_SECONDS = 24 * 3600;

/** What the requester asks for. */
export interface PlanRequest {
  readonly on: string;
  readonly job: PreparedJob;
  readonly reason: string | null;
  readonly ticket: string | null;
  readonly key: string | undefined;
  readonly out: string | undefined;
  readonly lifetimeSeconds?: number;
}

/** A plan as it was made, for the screen and for `--json`. */
export interface PlanMade {
  readonly id: string;
  readonly digest: Digest;
  readonly file: string;
  readonly statement: PlanStatement;
  readonly summary: Summary;
  readonly shapes: readonly TableShape[];
  readonly decision: Decision;
  readonly examined: Examined;
}

/**
 * Makes a plan and leaves the target equal.
 * A plan that policy denies is kept and returned too, so that it can be shown and explained.
 */
export async function makePlan(tools: Toolbox, request: PlanRequest): Promise<PlanMade> {
  return withTarget(tools, request.on, async (examined) => {
    await requirePlannable(tools, examined);
    const writer = await tools.workingChanges();
    let rehearsal: Rehearsal;
    const done = tools.progress.begin(`rehearsing ${request.job.name} on ${request.on}`);
    try {
      rehearsal = await examined.target.rehearse(request.job.runnable, writer);
    } catch (e) {
      writer.abort();
      throw e;
    } finally {
      done();
    }
    const changes = writer.finish();
    try {
      return await sealPlan(tools, examined, changes, {
        job: plannedJob(request.job),
        from: null,
        rehearsal,
        schema: rehearsal.schema,
        reason: request.reason,
        ticket: request.ticket,
        key: request.key,
        out: request.out,
        lifetimeSeconds: request.lifetimeSeconds ?? PLAN_LIFETIME_SECONDS,
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

/** Everything that becomes a plan beside the rows. */
export interface PlanParts {
  readonly job: PlannedJob | null;
  readonly from: PlanOrigin | null;
  /** Null for undo and rescue, whose rows come from a merge. */
  readonly rehearsal: Rehearsal | null;
  readonly schema: SchemaFacts;
  readonly reason: string | null;
  readonly ticket: string | null;
  readonly key: string | undefined;
  readonly out: string | undefined;
  readonly lifetimeSeconds: number;
  /** True for undo and rescue: without a key the plan is still made, and costs one more approver. */
  readonly keyOptional?: boolean;
}

/** Decides, signs, stores and records a plan over a finished ChangeSet. */
export async function sealPlan(
  tools: Toolbox,
  examined: Examined,
  changes: WorkingChanges,
  parts: PlanParts,
): Promise<PlanMade> {
  const measured = measure(changes);
  const summary = summaryOf(changes, measured.digest);
  const rowsBefore = await rowsBeforeOf(examined, measured.tables, parts.rehearsal);
  if (parts.job !== null) {
    refuseOutsideScope(parts.job, measured.tables, examined.target.name);
    refuseUnexpected(parts.job, measured.tables, examined.target.name);
  }
  refuseUnknownMode(parts, examined.target.name);

  const claims = {
    ...parts,
    mode: "rows" as const,
    schemaChanges: parts.rehearsal?.schemaChanges.length ?? 0,
  };
  const decideFor = (requester: Requester): Decision =>
    decideEffect(tools, {
      verdict: examined.verdict,
      target: {
        name: examined.target.name,
        adapter: examined.target.adapter,
        pinned: examined.marker !== null,
      },
      summary,
      rowsBefore,
      claims: { ...claims, requester },
    });

  const key = await requesterKey(tools, parts, decideFor(unsigned(tools)));
  const requester = key === null ? unsigned(tools) : signedBy(tools, key);
  const decision = decideFor(requester);
  const statement = await stateOf(tools, examined, parts, { measured, rowsBefore, decision, requester });
  const bytes = planStatementBytes(statement);
  const signature = key === null ? null : await key.sign(bytes);
  const digest = planDigest(bytes);
  const id = planId(digest);
  const file = await tools.plans.save({
    id,
    statement: bytes,
    signature,
    source: changes,
    ...(parts.out === undefined ? {} : { out: parts.out }),
  });
  (await tools.ledger()).append({
    kind: "planned",
    target: examined.target.name,
    plan: id,
    facts: {
      digest,
      changeset: measured.digest,
      rows: measured.rows,
      job: parts.job?.name ?? parts.from?.kind ?? "",
      by: requester.person,
      decision: decision.kind,
      environment: examined.verdict.name,
      expires_at: statement.expires_at,
      ...(parts.from === null ? {} : { from: parts.from.kind, runs: [...parts.from.runs] }),
    },
  });
  return { id, digest, file, statement, summary, shapes: changes.tables, decision, examined };
}

async function stateOf(
  tools: Toolbox,
  examined: Examined,
  parts: PlanParts,
  found: {
    readonly measured: ReturnType<typeof measure>;
    readonly rowsBefore: Readonly<Record<string, number>>;
    readonly decision: Decision;
    readonly requester: Requester;
  },
): Promise<PlanStatement> {
  const now = tools.clock.now();
  const ledger = (await tools.ledger()).head();
  const { rehearsal } = parts;
  return {
    format: "holdpoint-plan/1",
    requester: found.requester,
    job: parts.job,
    from: parts.from,
    target: {
      name: examined.target.name,
      adapter: examined.target.adapter,
      identity: examined.marker?.identity ?? null,
      verdict: examined.verdict.name,
    },
    rehearsal: {
      where: rehearsal?.where ?? "merge",
      at: stamp(now),
      lock_ms: Math.round(rehearsal?.lockMs ?? 0),
    },
    schema: {
      fingerprint: parts.schema.fingerprint,
      changes: rehearsal?.schemaChanges ?? [],
    },
    settings: parts.schema.settings,
    mode: "rows",
    script: [],
    waves: null,
    pace: { max_rows_per_second: null },
    checks: [],
    hooks: [],
    snapshot: { level: "rows" },
    bundle: examined.bundleDigest,
    changeset: {
      digest: found.measured.digest,
      rows: found.measured.rows,
      tables: found.measured.tables.map((t) => ({
        ...t,
        rows_before: found.rowsBefore[t.name] ?? 0,
        origin: rehearsal?.origins[t.name] ?? "unknown",
      })),
    },
    sequences: rehearsal?.sequences ?? [],
    volatile: rehearsal?.volatile ?? [],
    notices: rehearsal?.notices ?? [],
    decision: found.decision.kind,
    reason: parts.reason,
    ticket: parts.ticket,
    created_at: stamp(now),
    expires_at: stamp(new Date(now.getTime() + parts.lifetimeSeconds * 1000)),
    ledger: ledger === null ? null : { id: ledger.ledger, head: ledger.head },
    nonce: Buffer.from(tools.random(16)).toString("hex"),
  };
}

/** A plan that needs approval must say who asks: the requester is never the approver. */
async function requesterKey(
  tools: Toolbox,
  parts: PlanParts,
  decision: Decision,
): Promise<SigningKey | null> {
  if (decision.kind !== "needs-approval" && parts.key === undefined) return null;
  try {
    const key = await tools.findKey(parts.key, NAMESPACES.plan);
    if (key.person === null) throw unknownKey(key.fingerprint);
    return key;
  } catch (e) {
    if (parts.keyOptional === true && parts.key === undefined) return null;
    throw e;
  }
}

function unknownKey(fingerprint: string): RefusedError {
  return new RefusedError({
    code: "ERR_KEY_UNKNOWN",
    message: "your key is not one that this project's people file knows",
    why: `key ${fingerprint}; a plan that needs approval must say which person asks for it`,
    next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
  });
}

function unsigned(tools: Toolbox): Requester {
  return { person: null, key: null, how: "none", claims: tools.claims() };
}

function signedBy(tools: Toolbox, key: SigningKey): Requester {
  return { person: key.person, key: key.fingerprint, how: "ssh-key", claims: tools.claims() };
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
  };
}

async function rowsBeforeOf(
  examined: Examined,
  tables: readonly { readonly name: string }[],
  rehearsal: Rehearsal | null,
): Promise<Readonly<Record<string, number>>> {
  const rows: Record<string, number> = {};
  for (const { name } of tables) {
    rows[name] = rehearsal?.rowsBefore[name] ?? (await examined.target.countRows(name));
  }
  return rows;
}

/** Schema changes and run-dependent values cannot be written row by row: refused by name until signed otherwise. */
function refuseUnknownMode(parts: PlanParts, target: string): void {
  const changes = parts.rehearsal?.schemaChanges ?? [];
  const first = changes[0];
  if (first === undefined) return;
  throw new UsageError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `the job changes the schema of ${target}: ${first.action} ${first.object} ${first.name}`,
    why: `${changes.length} schema changes; row mode writes rows and nothing else`,
    next: [
      {
        actor: "requester",
        text: "Take the schema change out of the job, or make it with your migration tool.",
      },
    ],
  });
}
