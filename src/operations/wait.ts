/** Waiting for people: looks at the ledger now and then, and works only when it grew. */
import { parseStamp } from "../base/clock.js";
import { type PlanStatus, statusOf } from "./status.js";
import type { RunRecord } from "./recall/runs.js";
import type { Toolbox } from "./toolbox.js";

/** Lets time pass; rejects when the command is interrupted. */
export type Pause = (ms: number) => Promise<void>;

/** How often the ledger is looked at. A person decides in minutes; the look costs one row. */
const LOOK_EVERY_MS = 1_000;

/** A plan or run as it stands when waiting ended. */
export interface Awaited {
  readonly plan: PlanStatus | null;
  readonly run: RunRecord | null;
  /** True when it still waits: the time was up first. */
  readonly timedOut: boolean;
}

/**
 * Waits until the one plan or run that `ref` names is no longer under way, for at most `seconds`.
 * A plan is under way while it waits for approvals; a run while its end is not recorded.
 */
export async function waitFor(tools: Toolbox, ref: string, seconds: number, pause: Pause): Promise<Awaited> {
  const ledger = await tools.ledger();
  const deadline = tools.clock.now().getTime() + seconds * 1000;
  let seen = ledger.head()?.head;
  let found = await standing(tools, ref);
  while (isUnderWay(found)) {
    const left = Math.min(deadline, expiry(found)) - tools.clock.now().getTime();
    if (left <= 0) {
      found = await standing(tools, ref);
      return { ...found, timedOut: isUnderWay(found) };
    }
    await pause(Math.min(LOOK_EVERY_MS, left));
    const head = ledger.head()?.head;
    if (head === seen) continue;
    seen = head;
    found = await standing(tools, ref);
  }
  return { ...found, timedOut: false };
}

type Standing = Omit<Awaited, "timedOut">;

async function standing(tools: Toolbox, ref: string): Promise<Standing> {
  const { plans, runs } = await statusOf(tools, ref);
  if (ref.startsWith("rn_")) return { plan: null, run: runs[0] ?? null };
  return { plan: plans[0] ?? null, run: null };
}

function isUnderWay({ plan, run }: Standing): boolean {
  return plan?.state === "waiting" || run?.state === "started";
}

function expiry({ plan }: Standing): number {
  return plan === null ? Number.POSITIVE_INFINITY : (parseStamp(plan.expiresAt)?.getTime() ?? 0);
}
