/**
 * What policy asks about earlier runs: how often a job ran here, how much a requester changed lately. From the ledger;
 * where machines keep ledgers of their own, from the marks in the target, which all of them leave.
 */
import type { Requester } from "../../approval/plan-statement.js";
import { parseStamp, stamp } from "../../base/clock.js";
import { numberFact, textFact } from "../../ledger/facts.js";
import type { PolicyInput } from "../../policy/decision.js";
import type { Target } from "../../target/target.js";
import type { Toolbox } from "../toolbox.js";

/** Whether other machines' ledgers hold a part of this target's history. */
export function sharesTarget(tools: Pick<Toolbox, "project">, target: string): boolean {
  const { targets } = tools.project.config;
  return Object.hasOwn(targets, target) && targets[target]?.ledgers === "many";
}

const DAY_MS = 24 * 3_600_000;

/** What of a plan decides which entries are its history. */
export interface HistoryOf {
  readonly target: string;
  readonly job: string;
  readonly requester: Pick<Requester, "person">;
  /** The open target; null where only the plan is at hand, and this machine's ledger has to do. */
  readonly reach: Target | null;
}

/**
 * Runs of this job on this target that ended well, and rows that this requester changed there in the last 24 hours.
 * Where nobody knows who asked, now or then, the rows count: a cap per day is not got round by asking without a key.
 */
export async function historyOf(tools: Toolbox, of: HistoryOf): Promise<NonNullable<PolicyInput["history"]>> {
  const since = tools.clock.now().getTime() - DAY_MS;
  if (of.reach !== null && sharesTarget(tools, of.target)) return markedHistory(of.reach, of, since);
  let jobRuns = 0n;
  let rowsLastDay = 0n;
  for (const { entry } of (await tools.ledger()).entries({ target: of.target, kinds: ["run-finished"] })) {
    if (textFact(entry, "job") === of.job) jobRuns += 1n;
    const by = textFact(entry, "by");
    const mine = by === null || of.requester.person === null || by === of.requester.person;
    // A time that cannot be read is taken as recent: it may only tighten.
    const at = parseStamp(entry.at)?.getTime() ?? Number.POSITIVE_INFINITY;
    if (mine && at > since) rowsLastDay += BigInt(numberFact(entry, "rows") ?? 0);
  }
  return { jobRuns, rowsLastDay };
}

async function markedHistory(
  target: Target,
  of: HistoryOf,
  since: number,
): Promise<NonNullable<PolicyInput["history"]>> {
  const { jobRuns, recent } = await target.history({ job: of.job, since: stamp(new Date(since)) });
  const { person } = of.requester;
  const mine = recent.filter(({ by }) => by === null || person === null || by === person);
  return { jobRuns: BigInt(jobRuns), rowsLastDay: mine.reduce((n, r) => n + BigInt(r.rows), 0n) };
}
