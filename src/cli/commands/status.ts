/** `status`: what waits for whom. */
import { Option } from "commander";
import { type ErrorCode, RefusedError, UsageError } from "../../base/errors.js";
import { type PlanStatus, statusOf } from "../../operations/status.js";
import { planOrRunId } from "../../operations/recall/stored-plan.js";
import { waitFor } from "../../operations/wait.js";
import { findRun, type RunRecord } from "../../operations/recall/runs.js";
import type { Toolbox } from "../../operations/toolbox.js";
import { renderStatus, type PlanStatusLine, type RunStatusLine } from "../../render/status.js";
import type { Context, Outcome, Register } from "../command.js";
import { describeCommand } from "../help.js";
import { pause, waitOf } from "../waiting.js";

export const registerStatus: Register = (program, run) => {
  const command = program
    .command("status")
    .argument("[ref]", "a plan or run, by id or the beginning of one; all of them without it")
    .option("--wait <duration>", "wait until it is decided or ended, for at most so long")
    .addOption(
      new Option("--for <state>", "end with 21 while the plan still waits, 31 when it never will be").choices(
        ["approved"],
      ),
    )
    .action((ref: string | undefined, flags: StatusFlags) => run("status", (cx) => status(cx, ref, flags)));
  describeCommand(command, {
    group: "Understand",
    summary: "plans and runs as they stand",
    examples: [
      { line: "holdpoint status", what: "everything in this ledger" },
      { line: "holdpoint status pl_k7q2m9xw", what: "one plan" },
      { line: "holdpoint status plan.hpplan --for approved --wait 30m", what: "until people approved it" },
    ],
    exits: [21, 30, 31, 35],
  });
};

interface StatusFlags {
  readonly wait?: string;
  readonly for?: "approved";
}

async function status(cx: Context, given: string | undefined, flags: StatusFlags): Promise<Outcome> {
  const tools = await cx.tools();
  if (given === undefined && (flags.wait !== undefined || flags.for !== undefined)) {
    throw new UsageError({ code: "ERR_USAGE", message: "--wait and --for need a plan or run to look at" });
  }
  const ref = given === undefined ? null : await planOrRunId(tools, given);
  if (flags.wait !== undefined || flags.for !== undefined) await requireOne(tools, ref ?? "");
  const seconds = waitOf(flags.wait);
  if (ref !== null && seconds > 0) await waitFor(tools, ref, seconds, pause);
  const found = await statusOf(tools, ref);
  if (ref !== null && found.plans.length + found.runs.length === 0) {
    throw new UsageError({
      code: ref.startsWith("rn_") ? "ERR_RUN_UNKNOWN" : "ERR_PLAN_UNKNOWN",
      message: `there is no plan or run ${ref} in this ledger`,
      next: [{ actor: "anyone", argv: ["holdpoint", "status"] }],
    });
  }
  const error = flags.for === undefined ? undefined : notApproved(found.plans[0]);
  return {
    result: { plans: found.plans.map(planJson), runs: found.runs.map(runJson), holds: found.holds },
    text: cx.screen(renderStatus, {
      plans: found.plans.map(planLine),
      runs: found.runs.map((r) => runLine(r, found.plans)),
      holds: found.holds,
      next: [],
    }),
    ...(error === undefined ? {} : { error }),
  };
}

/** One plan or run is waited for, never the first of several. */
async function requireOne(tools: Toolbox, ref: string): Promise<void> {
  if (ref.startsWith("rn_")) return void (await findRun(tools, ref));
  const { plans } = await statusOf(tools, ref);
  if (plans.length < 2) return;
  throw new UsageError({
    code: "ERR_PLAN_AMBIGUOUS",
    message: `${ref} is the beginning of ${plans.length} plans`,
    why: plans
      .slice(0, 5)
      .map((p) => p.plan)
      .join(", "),
    next: [{ actor: "anyone", argv: ["holdpoint", "status"] }],
  });
}

/** Why a plan is not approved; undefined when it is, or needs nobody, or is past that. */
function notApproved(plan: PlanStatus | undefined): RefusedError | undefined {
  if (plan === undefined) return undefined;
  switch (plan.state) {
    case "approved":
    case "allowed":
    case "applied":
    case "undone":
      return undefined;
    case "waiting":
      return refused(plan, "ERR_APPROVAL_NEEDED", `approved by ${plan.approvedBy.length} of ${plan.people}`);
    case "denied":
      return refused(plan, "ERR_POLICY_DENIED", "policy denies it, so nobody can approve it");
    case "rejected":
      return refused(plan, "ERR_APPROVAL_REJECTED", "it was rejected, which is final");
    case "expired":
      return refused(plan, "ERR_PLAN_EXPIRED", `it could be applied until ${plan.expiresAt}`);
  }
}

function refused(plan: PlanStatus, code: ErrorCode, why: string): RefusedError {
  const waits = plan.state === "waiting";
  return new RefusedError({
    code,
    message: waits ? `${plan.plan} waits for approval` : `${plan.plan} is ${plan.state}`,
    why,
    next: waits
      ? [{ actor: "approver", argv: ["holdpoint", "approve", plan.plan] }]
      : [{ actor: "requester", text: "Make a new plan." }],
  });
}

function planLine(p: PlanStatus): PlanStatusLine {
  return {
    id: p.plan,
    target: p.target,
    job: p.job,
    rows: p.rows,
    requester: p.by ?? "-",
    state: p.state,
    detail: detailOf(p),
    expiresAt: p.expiresAt,
  };
}

function detailOf(p: PlanStatus): string {
  if (p.state === "waiting" && p.people > 1) return `${p.approvedBy.length} of ${p.people}`;
  return p.approvedBy.length > 0 ? `by ${p.approvedBy.join(", ")}` : "";
}

function runLine(r: RunRecord, plans: readonly PlanStatus[]): RunStatusLine {
  return {
    id: r.id,
    target: r.target,
    plan: r.plan,
    state: r.state === "started" ? "running" : r.state,
    left: r.rowsLeft,
    written: r.rows,
    planned: plans.find((p) => p.plan === r.plan)?.rows ?? r.rows,
  };
}

function planJson(p: PlanStatus): Record<string, unknown> {
  return {
    plan: p.plan,
    target: p.target,
    job: p.job,
    rows: p.rows,
    requester: p.by,
    decision: p.decision,
    state: p.state,
    approved_by: p.approvedBy,
    people_asked: p.people,
    planned_at: p.at,
    expires_at: p.expiresAt,
    run: p.run,
  };
}

/** One run in `--json`. */
export function runJson(r: RunRecord): Record<string, unknown> {
  return {
    run: r.id,
    plan: r.plan,
    target: r.target,
    state: r.state,
    job: r.job,
    rows: r.rows,
    requester: r.by,
    approvers: r.approvers,
    break_glass: r.breakGlass,
    started_at: r.startedAt,
    ended_at: r.endedAt,
    cover_undo_until: r.coverUntil,
    snapshot: r.snapshot,
    code: r.code,
    undone_by: r.undoneBy,
    rows_left: r.rowsLeft,
    undoes: r.undoes,
  };
}
