/** `status`: what waits for whom. */
import { UsageError } from "../../base/errors.js";
import { type PlanStatus, statusOf } from "../../operations/status.js";
import type { RunRecord } from "../../operations/runs.js";
import { renderStatus, type PlanStatusLine, type RunStatusLine } from "../../render/status.js";
import type { Context, Outcome, Register } from "../command.js";
import { describeCommand } from "../help.js";

export const registerStatus: Register = (program, run) => {
  const command = program
    .command("status")
    .argument("[ref]", "a plan or run, by id or the beginning of one; all of them without it")
    .action((ref: string | undefined) => run("status", (cx) => status(cx, ref ?? null)));
  describeCommand(command, {
    group: "Understand",
    summary: "plans and runs as they stand",
    examples: [
      { line: "holdpoint status", what: "everything in this ledger" },
      { line: "holdpoint status pl_k7q2m9xw", what: "one plan" },
    ],
    exits: [35],
  });
};

async function status(cx: Context, ref: string | null): Promise<Outcome> {
  const found = await statusOf(await cx.tools(), ref);
  if (ref !== null && found.plans.length + found.runs.length === 0) {
    throw new UsageError({
      code: ref.startsWith("rn_") ? "ERR_RUN_UNKNOWN" : "ERR_PLAN_UNKNOWN",
      message: `there is no plan or run ${ref} in this ledger`,
      next: [{ actor: "anyone", argv: ["holdpoint", "status"] }],
    });
  }
  return {
    result: { plans: found.plans.map(planJson), runs: found.runs.map(runJson) },
    text: cx.screen(renderStatus, {
      plans: found.plans.map(planLine),
      runs: found.runs.map((r) => runLine(r, found.plans)),
      next: [],
    }),
  };
}

function planLine(p: PlanStatus): PlanStatusLine {
  return {
    id: p.plan,
    target: p.target,
    job: p.job,
    rows: p.rows,
    requester: p.by ?? "-",
    state: p.state,
    detail: p.approvedBy.length > 0 ? `by ${p.approvedBy.join(", ")}` : "",
    expiresAt: p.expiresAt,
  };
}

function runLine(r: RunRecord, plans: readonly PlanStatus[]): RunStatusLine {
  return {
    id: r.id,
    target: r.target,
    plan: r.plan,
    state: r.state === "started" ? "running" : r.state,
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
    started_at: r.startedAt,
    ended_at: r.endedAt,
    cover_undo_until: r.coverUntil,
    snapshot: r.snapshot,
    code: r.code,
    undone_by: r.undoneBy,
    undoes: r.undoes,
  };
}
