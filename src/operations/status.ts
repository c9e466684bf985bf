/** Status: plans and runs as they stand, from ledger and store alone. It opens no target. */
import { parseStamp } from "../base/clock.js";
import { numberFact, textFact } from "../ledger/facts.js";
import { holdsInLedger } from "./hold.js";
import { allRuns, type RunRecord } from "./recall/runs.js";
import type { Toolbox } from "./toolbox.js";

/** One plan as it stands. */
export interface PlanStatus {
  readonly plan: string;
  readonly target: string;
  readonly job: string;
  readonly rows: number;
  readonly by: string | null;
  readonly decision: string;
  readonly state:
    | "waiting"
    | "approved"
    | "allowed"
    | "denied"
    | "rejected"
    | "applied"
    | "undone"
    | "expired";
  readonly approvedBy: readonly string[];
  /** How many people must approve; 0 where policy asks nobody. */
  readonly people: number;
  readonly at: string;
  readonly expiresAt: string;
  readonly run: string | null;
}

/** Everything that `status` shows. */
export interface Status {
  readonly plans: readonly PlanStatus[];
  readonly runs: readonly RunRecord[];
  /** Targets that are held, as this ledger tells; the target itself decides. */
  readonly holds: Awaited<ReturnType<typeof holdsInLedger>>;
}

/** Plans newest first; `ref` narrows to one plan or run by id or prefix. */
export async function statusOf(tools: Toolbox, ref: string | null): Promise<Status> {
  const runs = await allRuns(tools);
  const plans = await allPlans(tools, runs);
  const holds = await holdsInLedger(tools);
  if (ref === null) return { plans: plans.reverse(), runs: [...runs].reverse(), holds };
  const chosenRuns = runs.filter((r) => r.id.startsWith(ref) || r.plan.startsWith(ref));
  const chosen = plans.filter((p) => p.plan.startsWith(ref) || chosenRuns.some((r) => r.plan === p.plan));
  const targets = new Set([...chosen, ...chosenRuns].map((c) => c.target));
  return {
    plans: chosen.reverse(),
    runs: [...chosenRuns].reverse(),
    holds: holds.filter((h) => targets.has(h.target)),
  };
}

async function allPlans(tools: Toolbox, runs: readonly RunRecord[]): Promise<PlanStatus[]> {
  const plans = new Map<string, PlanStatus>();
  const ledger = await tools.ledger();
  for (const { entry } of ledger.entries({ kinds: ["planned", "approved", "revoked", "rejected"] })) {
    const id = entry.plan;
    if (id === null) continue;
    const known = plans.get(id);
    if (entry.kind === "planned") {
      const decision = textFact(entry, "decision") ?? "";
      plans.set(id, {
        plan: id,
        target: entry.target ?? "",
        job: textFact(entry, "job") ?? "",
        rows: numberFact(entry, "rows") ?? 0,
        by: textFact(entry, "by"),
        decision,
        state: decision === "deny" ? "denied" : decision === "allow" ? "allowed" : "waiting",
        approvedBy: [],
        // Plans of before this was recorded ask for one person, as their decision says.
        people: numberFact(entry, "people") ?? (decision === "needs-approval" ? 1 : 0),
        at: entry.at,
        expiresAt: textFact(entry, "expires_at") ?? entry.at,
        run: null,
      });
    } else if (known !== undefined && entry.kind === "approved") {
      // Break-glass is no approval: what comes of it is the run's state.
      if (textFact(entry, "act") === "break-glass") continue;
      const approvedBy = [...new Set([...known.approvedBy, textFact(entry, "by") ?? ""])];
      plans.set(id, {
        ...known,
        state: approvedBy.length < known.people ? "waiting" : "approved",
        approvedBy,
      });
    } else if (known !== undefined && entry.kind === "revoked") {
      const approvedBy = known.approvedBy.filter((name) => name !== textFact(entry, "by"));
      const isShort = known.state === "approved" && approvedBy.length < known.people;
      plans.set(id, { ...known, state: isShort ? "waiting" : known.state, approvedBy });
    } else if (known !== undefined) {
      plans.set(id, { ...known, state: "rejected" });
    }
  }
  return [...plans.values()].map((p) =>
    withRun(
      tools,
      p,
      runs.findLast((r) => r.plan === p.plan),
    ),
  );
}

function withRun(tools: Toolbox, plan: PlanStatus, run: RunRecord | undefined): PlanStatus {
  if (run?.state === "done") return { ...plan, state: "applied", run: run.id };
  if (run?.state === "undone") return { ...plan, state: "undone", run: run.id };
  const ends = parseStamp(plan.expiresAt);
  const isOver = ends === undefined || ends.getTime() <= tools.clock.now().getTime();
  const isOpen = plan.state === "waiting" || plan.state === "approved" || plan.state === "allowed";
  return isOver && isOpen ? { ...plan, state: "expired" } : plan;
}
