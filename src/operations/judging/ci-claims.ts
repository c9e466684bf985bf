/** What a plan claims about the pipeline that made it, so that whoever counts approvals knows who else asked for it. */
import type { PlannedJob } from "../../approval/plan-statement.js";
import { CI_CLAIMS } from "../../approval/requesters.js";
import { stamp } from "../../base/clock.js";
import { canonical } from "../../base/canonical.js";
import { textFact } from "../../ledger/facts.js";
import type { Target } from "../../target/target.js";
import { sharesTarget } from "../recall/history.js";
import type { Toolbox } from "../toolbox.js";

/** The claims, empty outside of CI. Commits count since the one that the job's last applied plan was made from. */
export async function ciClaims(
  tools: Toolbox,
  target: Target,
  job: PlannedJob | null,
): Promise<Readonly<Record<string, string>>> {
  const since = job === null ? null : await lastAppliedCommit(tools, target, job.name);
  const facts = await tools.ciFacts(since, job?.path ?? null);
  if (facts === null) return {};
  return {
    ...(facts.commit === null ? {} : { [CI_CLAIMS.commit]: facts.commit }),
    [CI_CLAIMS.people]: canonical([...facts.people]),
    ...(facts.missing.length === 0 ? {} : { [CI_CLAIMS.missing]: facts.missing.join(", ") }),
  };
}

async function lastAppliedCommit(tools: Toolbox, target: Target, job: string): Promise<string | null> {
  if (sharesTarget(tools, target.name)) {
    const now = stamp(tools.clock.now());
    return (await target.history({ job, since: now })).lastCommit;
  }
  const ledger = await tools.ledger();
  let plan: string | null = null;
  for (const { entry } of ledger.entries({ target: target.name, kinds: ["run-finished"] })) {
    if (textFact(entry, "job") === job) plan = entry.plan;
  }
  if (plan === null) return null;
  for (const { entry } of ledger.entries({ plan, kinds: ["planned"] })) return textFact(entry, "commit");
  return null;
}
