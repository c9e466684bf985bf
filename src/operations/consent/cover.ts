/**
 * A covered undo: what the approvers of a run allowed beforehand. Read from their own signed tokens and the
 * spent mark in the target, never from what the ledger says of a run.
 */
import { countApprovals } from "../../approval/count.js";
import { parseDuration, parseStamp, stamp } from "../../base/clock.js";
import type { Examined } from "../judging/examine.js";
import { approvalsInLedger, planFacts, requestersOf } from "../recall/plan-state.js";
import type { LoadedPlan, Toolbox } from "../toolbox.js";

/** The cover of one run. */
export interface Cover {
  readonly run: string;
  readonly approvers: readonly string[];
  /** Until when, ISO 8601 UTC. */
  readonly until: string;
}

/**
 * The cover that the approvals spent by this plan's run give, or null when any of them gave none.
 * Counted from when the run spent them. Whether it is still open is for the caller to ask.
 */
export async function coverOf(tools: Toolbox, plan: LoadedPlan, examined: Examined): Promise<Cover | null> {
  const spent = await examined.target.spentFor(plan.digest);
  if (spent === null || spent.nonces.length === 0) return null;
  const appliedAt = parseStamp(spent.at);
  if (appliedAt === undefined) return null;
  const tokens = (await approvalsInLedger(tools, plan.id)).filter((t) =>
    spent.nonces.includes(t.statement.nonce),
  );
  // Verified as of the moment they were spent: a key that expired since does not take back a cover that was given.
  const count = countApprovals({
    requirement: {
      slots: [{ people: 1, groups: [], rule: "cover" }],
      touch: false,
      reviewedInTool: false,
      reason: false,
    },
    plan: planFacts(plan),
    tokens,
    people: tools.project.people,
    ...requestersOf(tools, plan),
    now: appliedAt,
    spentNonces: new Set<string>(),
    revokedNonces: new Set<string>(),
    rejectedBy: null,
    environment: examined.verdict.guardedAs,
  });
  const good = count.good.map((g) => g.token);
  const nonces = new Set(good.map((t) => t.statement.nonce));
  if (!spent.nonces.every((n) => nonces.has(n))) return null;
  const seconds = good.map((t) => parseDuration(t.statement.coverUndo));
  if (seconds.some((s) => s === undefined)) return null;
  const shortest = Math.min(...seconds.map((s) => s ?? 0));
  return {
    run: spent.run,
    approvers: good.map((t) => t.statement.approver),
    until: stamp(new Date(appliedAt.getTime() + shortest * 1000)),
  };
}
