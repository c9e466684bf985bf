/** Whose plan it is: signed by a person's key, proven by a pipeline's token, or unsigned. */
import type { PlanStatement, Requester } from "../../approval/plan-statement.js";
import { askersOf } from "../../approval/requesters.js";
import { NAMESPACES } from "../../approval/requirement.js";
import type { Digest } from "../../base/digest.js";
import { RefusedError, UsageError } from "../../base/errors.js";
import type { Decision } from "../../policy/decision.js";
import { type Pipeline, pipelineHere, proofOf } from "../consent/pipeline.js";
import type { SigningKey, Toolbox } from "../toolbox.js";

/** How many people must approve: for `status`, which asks no policy. Nobody knows who made an unsigned plan: one more. */
export function peopleAsked(tools: Toolbox, decision: Decision, requester: Requester): number {
  if (decision.kind !== "needs-approval") return 0;
  const asked = Math.max(1, ...decision.requirement.slots.map((s) => s.people));
  return askersOf(requester, tools.project.ci).unknown.length > 0 ? asked + 1 : asked;
}

/** What is known of who asks before a plan is sealed. */
export interface Asking {
  /** `--key`. */
  readonly key: string | undefined;
  /** True for undo and rescue: without a key the plan is still made, and costs one more approver. */
  readonly keyOptional?: boolean;
  /** Who makes it, where that was asked already; null where no token of a pipeline says so. */
  readonly pipeline?: Pipeline | null;
}

/** A plan that needs approval must say who asks: the requester is never the approver. */
export async function requesterKey(
  tools: Toolbox,
  parts: Asking,
  decision: Decision,
): Promise<SigningKey | null> {
  if (decision.kind !== "needs-approval" && parts.key === undefined) return null;
  try {
    const key = await tools.findKey(parts.key, NAMESPACES.plan);
    if (key.person === null) throw unknownKey(key.fingerprint);
    return key;
  } catch (e) {
    if (parts.keyOptional === true && parts.key === undefined) return null;
    throw e;
  }
}

function unknownKey(fingerprint: string): RefusedError {
  return new RefusedError({
    code: "ERR_KEY_UNKNOWN",
    message: "your key is not one that this project's people file knows",
    why: `key ${fingerprint}; a plan that needs approval must say which person asks for it`,
    next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
  });
}

/** Claims of the machine, with those about the pipeline behind it. */
type Behind = Readonly<Record<string, string>>;

/** Nobody knows who asked. */
export function unsigned(tools: Toolbox, behind: Behind): Requester {
  return { person: null, key: null, how: "none", claims: { ...tools.claims(), ...behind } };
}

/** A token names a person, or nobody whom the list knows; a key names the person who holds it. */
export function requesterBy(
  tools: Toolbox,
  pipeline: Pipeline | null,
  key: SigningKey | null,
  behind: Behind,
): Requester {
  const claims = { ...tools.claims(), ...behind };
  if (pipeline !== null) return { person: pipeline.person, key: null, how: "ci-token", claims };
  if (key === null) return unsigned(tools, behind);
  return { person: key.person, key: key.fingerprint, how: "ssh-key", claims };
}

/** GitLab has fixed a job's audience before the job began: there another job's token proves the plan (`prove.ts`). */
export async function provenBy(
  tools: Toolbox,
  pipeline: Pipeline | null,
  made: { readonly statement: PlanStatement; readonly digest: Digest },
): Promise<Uint8Array | null> {
  if (pipeline === null) return null;
  if (pipeline.ci !== "gitlab") return proofOf(tools, made);
  tools.progress.check(
    "not proven yet: holdpoint plan PLAN --prove, in a job whose token is for this plan's digest",
  );
  return null;
}

/** Undo and rescue are asked here; a job's plan was asked before it rehearsed anything. */
export async function pipelineOf(tools: Toolbox, parts: Asking): Promise<Pipeline | null> {
  const need = parts.keyOptional === true ? "be-without" : "required";
  const pipeline = parts.pipeline === undefined ? await pipelineHere(tools, "plan", need) : parts.pipeline;
  if (pipeline === null || parts.key === undefined) return pipeline;
  throw new UsageError({
    code: "ERR_USAGE",
    message: "--key has no say in this pipeline",
    why: `the trust bundle knows it by its identity token, as ${pipeline.facts.identity}`,
    next: [{ actor: "requester", text: "Leave --key out." }],
  });
}
