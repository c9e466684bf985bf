/** `approve --replan`: the approver's own rehearsal of an SQL job, held against what the plan says it does. */
import { IntegrityError, UsageError } from "../base/errors.js";
import { shortDigest } from "../base/digest.js";
import type { PlannedJob } from "../approval/plan-statement.js";
import type { TableCounts } from "../changeset/change.js";
import { requireSeen, type Weighed } from "./consent/review.js";
import { countsInWords } from "./judging/scope.js";
import { measure } from "./recall/stored-plan.js";
import { rehearseJob } from "./rehearse.js";
import type { PreparedJob, Toolbox } from "./toolbox.js";

/**
 * Rehearses the job again on this machine, from this machine's file, which must be the very one that was planned.
 * Only SQL is run: nothing else of a repository or a plan ever is.
 * @throws UsageError ERR_USAGE for anything but an SQL job; IntegrityError ERR_PLAN_DIFFERS (35) when job or effect differ.
 */
export async function requireSameEffect(tools: Toolbox, reviewed: Weighed): Promise<void> {
  const { statement } = reviewed.plan;
  const job = statement.job;
  if (job === null || job.kind !== "sql") throw onlySql(reviewed.plan.id, job);
  const { examined } = requireSeen(reviewed);
  const prepared = await prepareAgain(tools, statement.target.name, job);
  if (prepared.source !== job.source) {
    throw differs(
      reviewed,
      `the file of ${job.name} here is ${shortDigest(prepared.source)}, planned was ${shortDigest(job.source)}`,
    );
  }
  const writer = await tools.workingChanges();
  const done = tools.progress.begin(`rehearsing ${job.name} here`);
  try {
    await rehearseJob(tools, examined, prepared.runnable, writer);
  } catch (e) {
    writer.abort();
    throw e;
  } finally {
    done();
  }
  const changes = writer.finish();
  try {
    const here = measure(changes);
    const planned = statement.changeset;
    if (here.digest !== planned.digest) {
      throw differs(
        reviewed,
        `planned: ${inWords(planned.tables)}; rehearsed here: ${inWords(here.tables)}; or other rows`,
      );
    }
  } finally {
    changes.close();
  }
  tools.progress.check(`rehearsed here: the same ${statement.changeset.rows} rows`);
}

async function prepareAgain(tools: Toolbox, on: string, job: PlannedJob): Promise<PreparedJob> {
  const given = Object.entries(job.parameters).map(([name, value]) => `${name}=${value}`);
  try {
    return await tools.prepareJob(on, { kind: "job", job: job.name }, given);
  } catch (e) {
    if (job.path === null || !(e instanceof UsageError) || e.code !== "ERR_JOB_UNKNOWN") throw e;
    return tools.prepareJob(on, { kind: "job", job: job.path }, given);
  }
}

function inWords(tables: readonly TableCounts[]): string {
  return tables.map(countsInWords).join("; ") || "no rows";
}

function onlySql(plan: string, job: PlannedJob | null): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `--replan rehearses SQL jobs, and ${plan} is ${job === null ? "no job" : `a ${job.kind}`}`,
    why: "nothing but SQL is ever run on the approver's side",
    next: [{ actor: "approver", argv: ["holdpoint", "approve", plan] }],
  });
}

function differs(reviewed: Weighed, why: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_PLAN_DIFFERS",
    message: `rehearsed here, ${reviewed.plan.id} is not what it says`,
    why,
    state: "Nothing was signed.",
    next: [{ actor: "requester", text: "Make the plan again: the rows or the job changed since." }],
  });
}
