/**
 * A plan as its approver sees it, every figure computed on the approver's machine. Where that machine can read the
 * target, place, rows and the way back are read and tried again here; where it cannot, the plan file and this
 * checkout are enough to look and to sign: what only the requester's machine read is then shown as such, never as OK.
 */
import type { Environment, Verdict } from "../../environment/evidence.js";
import { bundleDigest } from "../../approval/bundle.js";
import { parsePlanStatement } from "../../approval/plan-statement-codec.js";
import type { PlanStatement } from "../../approval/plan-statement.js";
import { digestOf, shortDigest } from "../../base/digest.js";
import { RefusedError, TargetError } from "../../base/errors.js";
import type { ChangeSource } from "../../changeset/change.js";
import { targetConfigOf } from "../../config/config.js";
import type { Odd } from "../../changeset/odd.js";
import type { Summary } from "../../changeset/summarise.js";
import type { Decision } from "../../policy/decision.js";
import type { UndoRehearsal } from "../../target/target.js";
import { countMoved } from "../judging/drift.js";
import {
  type Examined,
  refuseContradiction,
  refuseOtherBundle,
  requireHistory,
  requireIntact,
  withTargetIfReached,
} from "../judging/examine.js";
import { claimsOf, decideEffect, endSummary, startSummary } from "../judging/judge-plan.js";
import { type EffectFacts, effectFacts } from "../judging/effect-facts.js";
import { oddOf } from "../judging/odd.js";
import { presentRows } from "../judging/script.js";
import { verdictClaimed } from "../judging/show-decision.js";
import { timeOf, timeUnseen } from "../judging/time.js";
import { rehearsedUndo } from "../planning/seal-plan.js";
import {
  approvalsInLedger,
  refuseClosedPlan,
  refusePlanOfOtherPlace,
  revokedNonces,
  rowsNow,
} from "../recall/plan-state.js";
import { type EarlierRejection, rejectionsOfEffect } from "../recall/rejections.js";
import { requireRequester } from "./pipeline.js";
import { loadPlan, readPlan } from "../recall/stored-plan.js";
import type { LoadedPlan, Toolbox } from "../toolbox.js";

/** A plan that was checked and judged: what decides whether anybody may sign it. */
export interface Weighed {
  readonly plan: LoadedPlan;
  readonly summary: Summary;
  readonly decision: Decision;
  /** The target as this machine read it; null where it could not. */
  readonly examined: Examined | null;
  /** Why the target was not read here; null where it was. */
  readonly unseen: string | null;
  /** Whose rules the plan stands under: as read here, else as planned and never below what the checkout claims. */
  readonly guardedAs: Environment;
  /** The time by which it is judged. */
  readonly now: Date;
}

/** A plan under review: everything that a person looks at before signing. */
export interface Review extends Weighed {
  readonly odd: Odd;
  readonly facts: EffectFacts;
  /** How many of the plan's rows are no longer as the plan saw them; null where the target was not read. */
  readonly moved: number | null;
  /** The way back, tried again by the reader's own machine; null where it cannot. */
  readonly undo: UndoRehearsal | null;
  /** Approvals already given, by person, as far as this machine's ledger knows. */
  readonly given: readonly string[];
  /** Rejections of other plans with the same effect. */
  readonly rejected: readonly EarlierRejection[];
}

/**
 * Loads and checks a plan and hands it to `work`; place, history and policy are read again where the target can be reached.
 * @throws RefusedError when the plan expired, was rejected, was applied, is denied or stands on another bundle.
 */
export async function weigh<T>(
  tools: Toolbox,
  ref: string,
  work: (weighed: Weighed) => Promise<T>,
): Promise<T> {
  // A stranger's bytes are first read where there is nothing to reach; only what holds is read here.
  await tools.verifyApart(ref);
  return weighKept(tools, ref, work);
}

async function weighKept<T>(tools: Toolbox, ref: string, work: (weighed: Weighed) => Promise<T>): Promise<T> {
  const summarising = startSummary();
  return weighLoaded(
    tools,
    await loadPlan(tools, ref, summarising),
    (plan) => endSummary(summarising, plan.changes, plan.statement.changeset.digest),
    work,
  );
}

/**
 * {@link weigh} for a signature that is made elsewhere, where nobody is shown a row: as strict, but where no rule asks
 * for them the rows are read and not kept, and the summary has no sample.
 */
export async function weighUnshown<T>(
  tools: Toolbox,
  ref: string,
  work: (weighed: Weighed) => Promise<T>,
): Promise<T> {
  await tools.verifyApart(ref);
  const { statement } = await tools.plans.read(ref);
  if (asksForRows(tools, parsePlanStatement(statement))) return weighKept(tools, ref, work);
  const summarising = startSummary();
  return weighLoaded(
    tools,
    await readPlan(tools, ref, summarising),
    () => summarising.finish(NO_ROWS, { sampleSeed: digestOf(""), sampleSize: 0 }),
    work,
  );
}

const NO_ROWS: ChangeSource = { tables: [], changes: () => [] };

/** Whether some rule could have to look at rows again: at their tenants, at protected values, at what they end with, by SQL. */
function asksForRows(tools: Toolbox, statement: PlanStatement): boolean {
  const config = tools.project.config.targets[statement.target.name];
  return (
    config === undefined ||
    config.tenant.length + config.protect.length > 0 ||
    tools.project.policies.files.some(({ file }) => file.enabled && file.assertions.length > 0) ||
    statement.changeset.tables.some((t) => t.update > 0)
  );
}

async function weighLoaded<T>(
  tools: Toolbox,
  plan: LoadedPlan,
  summaryOf: (plan: LoadedPlan) => Summary,
  work: (weighed: Weighed) => Promise<T>,
): Promise<T> {
  try {
    const summary = summaryOf(plan);
    return await withTargetIfReached(tools, plan.statement.target.name, async (reached) =>
      work(
        reached.examined === null
          ? await weighUnseen(tools, { plan, summary }, reached.why)
          : await weighSeen(tools, { plan, summary }, reached.examined),
      ),
    );
  } finally {
    plan.close();
  }
}

async function weighSeen(
  tools: Toolbox,
  { plan, summary }: Pick<Weighed, "plan" | "summary">,
  examined: Examined,
): Promise<Weighed> {
  refuseContradiction(examined);
  await refuseOtherBundle(tools, examined);
  await requireRequester(tools, plan);
  if (!(await isVisitor(tools))) await requireHistory(tools, examined);
  refusePlanOfOtherPlace(plan, examined);
  const now = await timeOf(tools, examined);
  await refuseClosedPlan(tools, plan, examined, now);
  const decision = await decideEffect(tools, {
    now,
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
    rowsBefore: await rowsNow(examined, plan),
    claims: claimsOf(plan.statement),
  });
  const { guardedAs } = examined.verdict;
  return { plan, summary, decision, examined, unseen: null, guardedAs, now };
}

/**
 * Everything that the plan's bytes and this checkout tell without the target. What is checked against the target's
 * marker elsewhere is checked here against what the plan says of it: a signature on a false claim opens nothing, because
 * apply reads the marker.
 */
async function weighUnseen(
  tools: Toolbox,
  { plan, summary }: Pick<Weighed, "plan" | "summary">,
  why: string,
): Promise<Weighed> {
  const { statement } = plan;
  await refuseOtherThanPlanned(tools, plan);
  await requireRequester(tools, plan);
  const ledger = await tools.ledger();
  if (ledger.head() !== null) requireIntact(ledger, []);
  const now = await timeUnseen(tools, plan);
  await refuseClosedPlan(tools, plan, null, now);
  const verdict = verdictClaimed(
    statement,
    targetConfigOf(tools.project.config, statement.target.name).environment,
  );
  const decision = await decideEffect(tools, {
    now,
    act: "apply",
    verdict,
    target: {
      name: statement.target.name,
      adapter: statement.target.adapter,
      pinned: statement.target.identity !== null,
    },
    reach: null,
    changes: plan.changes,
    summary,
    rowsBefore: Object.fromEntries(statement.changeset.tables.map((t) => [t.name, t.rows_before])),
    claims: claimsOf(statement),
  });
  const { guardedAs } = verdict;
  return { plan, summary, decision, examined: null, unseen: why, guardedAs, now };
}

/**
 * What a person is shown before signing: rows held against the target again, the way back tried again, rows unlike the
 * rest, what others answered. A signature that was made elsewhere is taken in without it.
 */
export async function reviewOf(tools: Toolbox, weighed: Weighed): Promise<Review> {
  const { plan, summary, examined } = weighed;
  const { name } = plan.statement.target;
  const moved = examined === null ? null : await movedRows(plan, examined);
  // A plan whose rows moved can no more be rehearsed than applied; it is shown with what moved.
  const undo =
    examined === null || moved !== 0
      ? null
      : await rehearsedUndo(tools, examined, plan.changes, plan.statement);
  const gone = await revokedNonces(tools, plan.id, examined);
  const given = (await approvalsInLedger(tools, plan.id))
    .filter(({ statement: s }) => s.act === "approve" && !gone.has(s.nonce))
    .map((t) => t.statement.approver);
  const rejected = await rejectionsOfEffect(tools, name, plan.statement.changeset.digest);
  const facts = await effectFacts(tools, plan.statement, summary, plan.changes);
  return { ...weighed, given, rejected, facts, moved, undo, odd: oddOf(tools, name, plan.changes) };
}

async function movedRows(plan: LoadedPlan, { target }: Examined): Promise<number> {
  return countMoved(target, presentRows(plan.statement, plan.changes, await target.schema()));
}

/**
 * A store in which nothing ever was: the machine of an approver who only looks and signs. Negative facts lie in the
 * target, so nothing is lost by it; a store with plans and no ledger has lost one, and is refused.
 */
async function isVisitor(tools: Toolbox): Promise<boolean> {
  return (await tools.ledger()).head() === null && (await tools.plans.ids()).length === 0;
}

/** The checkout must be the one that the plan was made under, and mean the same target. */
async function refuseOtherThanPlanned(tools: Toolbox, plan: LoadedPlan): Promise<void> {
  const { target, bundle } = plan.statement;
  const here = bundleDigest(tools.project.bundleFor(target.name));
  const pin = await tools.systemPin(target.name);
  const pinned = pin?.bundle ?? bundle;
  if (pinned !== here || bundle !== here) {
    throw new RefusedError({
      code: "ERR_TRUST_BUNDLE",
      message: `the people, policies or guarding configuration here are not those that ${plan.id} stands on`,
      why: `${pin === null ? "the plan" : "this system"} names ${shortDigest(pin === null || bundle !== here ? bundle : pinned)}, here is ${shortDigest(here)}`,
      state: "Nothing was signed.",
      next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
    });
  }
  const known = pin?.identity ?? targetConfigOf(tools.project.config, target.name).identity;
  if (known === null || known === target.identity) return;
  throw new RefusedError({
    code: "ERR_TARGET_NOT_PLANNED",
    message: `${plan.id} was not made on the ${target.name} that is known here`,
    why: `planned on ${target.identity ?? "an unpinned target"}, here ${target.name} is ${known}`,
    state: "Nothing was signed.",
    next: [{ actor: "requester", text: "Make the plan again, on the target that the configuration names." }],
  });
}

/** The open target of a review; `approve --replan` and a debt's review cannot do without it. */
export function requireSeen(weighed: Weighed): { readonly examined: Examined; readonly verdict: Verdict } {
  const { examined, unseen, plan } = weighed;
  if (examined !== null) return { examined, verdict: examined.verdict };
  throw new TargetError({
    code: "ERR_TARGET_UNREACHABLE",
    message: `${plan.statement.target.name} cannot be read from here`,
    why: unseen ?? "",
    state: "Nothing was signed.",
    next: [{ actor: "approver", argv: ["holdpoint", "approve", plan.id] }],
  });
}
