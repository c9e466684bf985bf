/**
 * Prove: puts a pipeline's token into a plan that was made without one, because its CI fixes a token's audience before a job
 * begins. The job that does it has a token for the plan's digest, of the same run and actor, or it is refused.
 */
import { parsePlanStatement, planDigest, planId } from "../approval/plan-statement-codec.js";
import { UsageError } from "../base/errors.js";
import { proofOf, requireRequester } from "./consent/pipeline.js";
import { loadPlan } from "./recall/stored-plan.js";
import type { Toolbox } from "./toolbox.js";

/**
 * Proves a stored plan, once; proven already, it is only checked again.
 * @returns the plan's id.
 * @throws UsageError ERR_USAGE for a plan that no token can prove, or of another target.
 * @throws RefusedError ERR_CI_TOKEN_MISSING, ERR_CI_TOKEN (32), with the plan as it was.
 */
export async function provePlan(tools: Toolbox, ref: string, on: string): Promise<string> {
  const file = await tools.plans.read(ref);
  const statement = parsePlanStatement(file.statement);
  const digest = planDigest(file.statement);
  const id = planId(digest);
  if (statement.requester.how !== "ci-token" || statement.target.name !== on) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `${id} is not a plan for ${on} that a token proves`,
      why: `made for ${statement.target.name}, its requester is known by ${statement.requester.how}`,
      next: [{ actor: "anyone", argv: ["holdpoint", "show", id] }],
    });
  }
  if (file.signature === null) {
    const signature = await proofOf(tools, { statement, digest });
    const writer = await tools.workingChanges();
    try {
      await file.loadInto(writer);
    } catch (e) {
      writer.abort();
      throw e;
    }
    const source = writer.finish();
    try {
      await tools.plans.prove({ id, statement: file.statement, signature, source });
    } finally {
      source.close();
    }
  }
  // Everything that whoever reads it will check, on what is stored now.
  const plan = await loadPlan(tools, id);
  try {
    await requireRequester(tools, plan);
  } finally {
    plan.close();
  }
  return id;
}
