/** Where a plan stands: approvals given, rejected, spent, expired, and whether this is the place it was made for. */
import type { Token } from "../../approval/approval-statement.js";
import { askersOf } from "../../approval/requesters.js";
import { parseToken, type PlanInApproval } from "../../approval/token.js";
import { parseStamp, stamp } from "../../base/clock.js";
import { RefusedError } from "../../base/errors.js";
import { textFact, textsFact } from "../../ledger/facts.js";
import type { Examined } from "../judging/examine.js";
import type { SpentMark } from "../../target/marker.js";
import type { LoadedPlan, Toolbox } from "../toolbox.js";

/** Tokens for a plan that this ledger recorded. They are verified like any other before they count. */
export async function approvalsInLedger(tools: Toolbox, planId: string): Promise<readonly Token[]> {
  const tokens: Token[] = [];
  for (const { entry } of (await tools.ledger()).entries({ plan: planId, kinds: ["approved"] })) {
    const text = textFact(entry, "token");
    if (text !== null) tokens.push(parseToken(text));
  }
  return tokens;
}

/** Who rejected a plan, if anyone; final for the plan. */
export async function rejectionOf(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined | null,
): Promise<{ readonly by: string; readonly reason: string } | null> {
  for (const note of (await examined?.target.notes()) ?? []) {
    if (note.kind === "rejected" && note.subject === plan.digest) return { by: note.by, reason: note.reason };
  }
  for (const { entry } of (await tools.ledger()).entries({ plan: plan.id, kinds: ["rejected"] })) {
    return { by: textFact(entry, "by") ?? "?", reason: textFact(entry, "reason") ?? "" };
  }
  return null;
}

/**
 * Refuses a plan that can no longer be approved or applied: rejected, applied, expired. Without the target, as far as
 * plan and ledger tell.
 */
export async function refuseClosedPlan(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined | null,
  now: Date,
): Promise<void> {
  const rejected = await rejectionOf(tools, plan, examined);
  if (rejected !== null) {
    throw new RefusedError({
      code: "ERR_APPROVAL_REJECTED",
      message: `${plan.id} was rejected by ${rejected.by}`,
      why: `reason: ${rejected.reason}`,
      next: [{ actor: "requester", text: "Mend the job and make a new plan." }],
    });
  }
  const spent = (await examined?.target.spentFor(plan.digest)) ?? null;
  if (spent === null) await refuseForgotten(tools, plan);
  if (spent !== null) await refuseOthersRun(tools, plan, spent);
  if (spent !== null && (await isFinished(tools, spent.run))) {
    throw new RefusedError({
      code: "ERR_APPROVAL_SPENT",
      message: `${plan.id} was applied already, by ${spent.run}`,
      why: `applied ${spent.at}; a plan is applied once`,
      next: [{ actor: "anyone", argv: ["holdpoint", "log", "show", spent.run] }],
    });
  }
  const ends = parseStamp(plan.statement.expires_at);
  if (ends === undefined || ends.getTime() <= now.getTime()) {
    throw new RefusedError({
      code: "ERR_PLAN_EXPIRED",
      message: `${plan.id} expired`,
      why: `it could be applied until ${plan.statement.expires_at}; it is ${stamp(now)}`,
      next: [{ actor: "requester", text: "Make the plan again: the rows may have moved since." }],
    });
  }
}

/** A run of another machine: its entries are there, so only that machine can tell how it ended, or go on with it. */
async function refuseOthersRun(tools: Toolbox, plan: LoadedPlan, spent: SpentMark): Promise<void> {
  const here = (await tools.ledger()).head()?.ledger ?? null;
  if (spent.ledger === here) return;
  throw new RefusedError({
    code: "ERR_APPROVAL_SPENT",
    message: `${plan.id} was applied already, by ${spent.run}`,
    why: `begun ${spent.at} and recorded in ledger ${spent.ledger}; here is ${here ?? "none"}`,
    next: [
      {
        actor: "anyone",
        argv: ["holdpoint", "log", "show", spent.run],
        text: `on the machine that keeps ${spent.ledger}`,
      },
    ],
  });
}

/** A target that was put back to before the plan was applied has lost its mark; the ledger has not. */
async function refuseForgotten(tools: Toolbox, plan: LoadedPlan): Promise<void> {
  for (const { entry } of (await tools.ledger()).entries({ plan: plan.id, kinds: ["run-finished"] })) {
    if (textFact(entry, "digest") !== plan.digest) continue;
    const run = entry.run ?? "a run";
    throw new RefusedError({
      code: "ERR_APPROVAL_SPENT",
      message: `${plan.id} was applied already, by ${run}`,
      why: `the ledger has its end at ${entry.at}, and the target has lost its mark: it was put back to before it`,
      next: [{ actor: "requester", text: "Make the plan again: it then shows what is to do now." }],
    });
  }
}

/** Whether the ledger knows how the run ended. A run killed between commit and its entry is finished by `apply`. */
export async function isFinished(tools: Toolbox, run: string): Promise<boolean> {
  for (const _ of (await tools.ledger()).entries({ run, kinds: ["run-finished"] })) return true;
  return false;
}

/** @throws RefusedError ERR_TARGET_NOT_PLANNED (33) when the target is not the one the plan was made for. */
export function refusePlanOfOtherPlace(plan: LoadedPlan, examined: Examined): void {
  const planned = plan.statement.target;
  const found = examined.marker?.identity ?? null;
  if (planned.identity === found && planned.adapter === examined.target.adapter) return;
  throw new RefusedError({
    code: "ERR_TARGET_NOT_PLANNED",
    message: `${planned.name} is not the target that ${plan.id} was made for`,
    why: `planned on ${planned.identity ?? "an unpinned target"}, connected to ${found ?? "an unpinned target"} (${examined.identification.description})`,
    next: [{ actor: "anyone", argv: ["holdpoint", "env", "check", planned.name] }],
  });
}

/** Row counts as they are now; shares are of these. */
export async function rowsNow(
  examined: Examined,
  plan: Pick<LoadedPlan, "statement">,
): Promise<Readonly<Record<string, number>>> {
  const rows: Record<string, number> = {};
  // A script may make the tables whose rows it writes.
  const there = plan.statement.mode === "script" ? await tableNames(examined) : null;
  for (const { name } of plan.statement.changeset.tables)
    rows[name] = there?.has(name) === false ? 0 : await examined.target.countRows(name);
  return rows;
}

async function tableNames({ target }: Examined): Promise<ReadonlySet<string>> {
  return new Set((await target.schema()).tables.map((t) => t.name));
}

/** What an approval must name of the plan, computed from its rows' verified counts. */
export function planFacts(plan: LoadedPlan): PlanInApproval {
  const { statement } = plan;
  const total = (op: "insert" | "update" | "delete"): number =>
    statement.changeset.tables.reduce((n, t) => n + t[op], 0);
  return {
    id: plan.id,
    digest: plan.digest,
    target: statement.target.name,
    identity: statement.target.identity,
    inserts: total("insert"),
    updates: total("update"),
    deletes: total("delete"),
    tables: statement.changeset.tables.length,
  };
}

/** Who can never count as an approver of this plan, by person and by key. */
export function requestersOf(
  tools: Pick<Toolbox, "project">,
  plan: Pick<LoadedPlan, "statement">,
): {
  readonly requesters: readonly string[];
  readonly requesterKeys: readonly string[];
} {
  const { person, key } = plan.statement.requester;
  const { widened } = askersOf(plan.statement.requester, tools.project.ci);
  return {
    requesters: [...(person === null ? [] : [person]), ...widened],
    requesterKeys: key === null ? [] : [key],
  };
}

/** Approvals that were taken back, by nonce: what the target keeps, and what only the ledger could. */
export async function revokedNonces(
  tools: Toolbox,
  planId: string,
  examined: Examined | null,
): Promise<ReadonlySet<string>> {
  const nonces = ((await examined?.target.notes()) ?? [])
    .filter((n) => n.kind === "revoked")
    .map((n) => n.subject);
  for (const { entry } of (await tools.ledger()).entries({ plan: planId, kinds: ["revoked"] })) {
    nonces.push(...textsFact(entry, "nonces"));
  }
  return new Set(nonces);
}
