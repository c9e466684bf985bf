/** By whose word a plan may be applied: policy alone, approvals counted by person, or a cover given earlier. */
import type { Token } from "../../approval/approval-statement.js";
import { type Count, countApprovals, refusalOf } from "../../approval/count.js";
import { askersOf } from "../../approval/requesters.js";
import type { Decision } from "../../policy/decision.js";
import { type BreakGlass, breakGlassOf, type BreakGlassRequest, signBreakGlass } from "./break-glass.js";
import type { Cover } from "./cover.js";
import type { Examined } from "../judging/examine.js";
import { approvalsInLedger, planFacts, requestersOf, revokedNonces } from "../recall/plan-state.js";
import { timeOf } from "../judging/time.js";
import { takeIn } from "./tokens.js";
import type { LoadedPlan, Toolbox } from "../toolbox.js";

/** Who lets it happen. */
export interface Authority {
  readonly approvers: readonly string[];
  readonly nonces: readonly string[];
  readonly coverUndoSeconds: number | null;
  /** Approvals that count and that this machine's ledger does not have: made elsewhere and handed in. */
  readonly brought: readonly Token[];
  /** Set where one person broke the glass instead of a quorum: its debt goes into the run's first transaction. */
  readonly breakGlass?: BreakGlass;
}

/**
 * Counts what was given against what policy asks, by person and after verification.
 * @throws RefusedError ERR_APPROVAL_NEEDED (21), or 31 with the most telling reason why an approval does not count.
 */
export async function requireAuthority(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined,
  decision: Decision,
  request: {
    readonly tokens: readonly string[];
    readonly under?: Cover;
    readonly breakGlass?: BreakGlassRequest;
  },
): Promise<Authority> {
  if (decision.kind === "allow") return { approvers: [], nonces: [], coverUndoSeconds: null, brought: [] };
  if (request.under !== undefined) {
    return { approvers: request.under.approvers, nonces: [], coverUndoSeconds: null, brought: [] };
  }
  const given = request.tokens.flatMap(takeIn);
  const count = await countFor(tools, plan, examined, decision, given);
  if (!count.satisfied && request.breakGlass !== undefined) {
    return underBreakGlass(tools, { plan, examined, decision, request: request.breakGlass, count });
  }
  if (!count.satisfied) throw refusalOf(count, planFacts(plan));
  const known = new Set((await approvalsInLedger(tools, plan.id)).map((t) => t.statement.nonce));
  tools.progress.check(`approved by ${count.counted.map((c) => c.person).join(", ")}`);
  return {
    approvers: count.counted.map((c) => c.person),
    nonces: count.counted.map((c) => c.token.statement.nonce),
    coverUndoSeconds: count.coverUndoSeconds,
    brought: count.counted.map((c) => c.token).filter((t) => !known.has(t.statement.nonce)),
  };
}

/** Waives the quorum, for a rejected plan too little: a no stands. Asked again within its minutes, the first signature stands. */
async function underBreakGlass(
  tools: Toolbox,
  b: {
    readonly plan: LoadedPlan;
    readonly examined: Examined;
    readonly decision: Decision;
    readonly request: BreakGlassRequest;
    readonly count: Count;
  },
): Promise<Authority> {
  const { plan, examined, decision } = b;
  const glass =
    breakGlassOf(b.count) ??
    breakGlassOf(
      await countFor(tools, plan, examined, decision, [
        await signBreakGlass(tools, plan, examined, b.request),
      ]),
    );
  if (glass === null) throw refusalOf(b.count, planFacts(plan));
  tools.progress.check(`BREAK-GLASS by ${glass.person}: ${glass.reason}`);
  return { approvers: [], nonces: [glass.nonce], coverUndoSeconds: null, brought: [], breakGlass: glass };
}

async function countFor(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined,
  decision: Decision,
  given: readonly Token[],
): Promise<Count> {
  return countApprovals({
    requirement: requirementFor(tools, plan, decision),
    plan: planFacts(plan),
    tokens: [...given, ...(await approvalsInLedger(tools, plan.id))],
    people: tools.project.people,
    ...requestersOf(tools, plan),
    now: await timeOf(tools, examined),
    spentNonces: new Set<string>(),
    revokedNonces: await revokedNonces(tools, plan.id, examined),
    rejectedBy: null,
    environment: examined.verdict.guardedAs,
  });
}

/** Where nobody knows all who asked for a plan, one of its approvers could be among them: it costs one more person. */
function requirementFor(tools: Toolbox, plan: LoadedPlan, decision: Decision): Decision["requirement"] {
  if (askersOf(plan.statement.requester, tools.project.ci).unknown.length === 0) return decision.requirement;
  const slots = decision.requirement.slots.map((s) => ({ ...s, people: s.people + 1 }));
  return { ...decision.requirement, slots };
}
