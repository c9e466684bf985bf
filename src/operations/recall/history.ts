/**
 * What policy asks about earlier runs: how often a job ran here, how much a requester changed lately. From the ledger;
 * where machines keep ledgers of their own, from the marks in the target, which all of them leave.
 */
import type { Requester } from "../../approval/plan-statement.js";
import { parseStamp, stamp } from "../../base/clock.js";
import { numberFact, textFact, textsFact } from "../../ledger/facts.js";
import type { PolicyHistory } from "../../policy/decision.js";
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
export async function historyOf(tools: Toolbox, of: HistoryOf): Promise<PolicyHistory> {
  const since = tools.clock.now().getTime() - DAY_MS;
  if (of.reach !== null && sharesTarget(tools, of.target)) return markedHistory(of.reach, of, since);
  let jobRuns = 0n;
  let requesterRuns = 0n;
  let rowsLastDay = 0n;
  for (const { entry } of (await tools.ledger()).entries({ target: of.target, kinds: ["run-finished"] })) {
    if (textFact(entry, "job") === of.job) jobRuns += 1n;
    const by = textFact(entry, "by");
    if (by !== null && by === of.requester.person) requesterRuns += 1n;
    const mine = by === null || of.requester.person === null || by === of.requester.person;
    // A time that cannot be read is taken as recent: it may only tighten.
    const at = parseStamp(entry.at)?.getTime() ?? Number.POSITIVE_INFINITY;
    if (mine && at > since) rowsLastDay += BigInt(numberFact(entry, "rows") ?? 0);
  }
  return { jobRuns, requesterRuns, rowsLastDay };
}

/**
 * The tables that completed runs are known to have changed on a target. A plan whose record does not name its tables
 * counts for none: not to know is to meet a table for the first time, which may only tighten.
 */
export async function touchedTables(tools: Toolbox, target: string): Promise<ReadonlySet<string>> {
  const ledger = await tools.ledger();
  const ended = new Set<string>();
  for (const { entry } of ledger.entries({ target, kinds: ["run-finished"] }))
    if (entry.plan !== null) ended.add(entry.plan);
  const touched = new Set<string>();
  for (const { entry } of ledger.entries({ target, kinds: ["planned"] })) {
    if (entry.plan === null || !ended.has(entry.plan) || entry.facts["tables"] === undefined) continue;
    for (const table of textsFact(entry, "tables")) touched.add(table);
  }
  return touched;
}

async function markedHistory(target: Target, of: HistoryOf, since: number): Promise<PolicyHistory> {
  const { jobRuns, recent } = await target.history({ job: of.job, since: stamp(new Date(since)) });
  const { person } = of.requester;
  const mine = recent.filter(({ by }) => by === null || person === null || by === person);
  // The marks name who ran what only lately: an older run makes nobody known, which may only tighten.
  const known = recent.filter(({ by }) => by !== null && by === person).length;
  return {
    jobRuns: BigInt(jobRuns),
    requesterRuns: BigInt(known),
    rowsLastDay: mine.reduce((n, r) => n + BigInt(r.rows), 0n),
  };
}
