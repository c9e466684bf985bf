/**
 * A pipeline is who its identity token says, where the bundle pins such identities. Variables of the CI may say more of
 * who is behind a run (`judging/ci-claims.ts`); they never say less, and they never stand in for a token.
 */
import {
  applyAudience,
  BEFORE_AUDIENCE,
  type CiAct,
  type CiFacts,
  ciFactsText,
  type CiIdentity,
  type CiProvider,
  parseCiFacts,
  planAudience,
} from "../../approval/ci-identity.js";
import { type TokenCheck, type TokenMoment, verifyCiToken } from "../../approval/ci-token.js";
import type { PlanStatement, Requester } from "../../approval/plan-statement.js";
import { CI_CLAIMS, isPipeline, personOfToken } from "../../approval/requesters.js";
import { parseStamp } from "../../base/clock.js";
import type { Digest } from "../../base/digest.js";
import { RefusedError } from "../../base/errors.js";
import { planAltered, requireKnownRequester } from "../recall/stored-plan.js";
import type { LoadedPlan, Toolbox } from "../toolbox.js";

/** Who runs this, by a token that holds now. */
export interface Pipeline {
  readonly ci: CiProvider;
  readonly facts: CiFacts;
  /** The person whom the token names; null where it names nobody on the list. */
  readonly person: string | null;
}

/**
 * Who this pipeline is, before it does anything; null outside of CI and where the bundle pins no identity.
 * @param may `be-without`: an undo or a rescue, which wait for nothing. Without a token they are as good as unsigned; with a
 *   token that does not count they are refused like everything else.
 * @throws RefusedError ERR_CI_TOKEN_MISSING, ERR_CI_TOKEN (32).
 */
export async function pipelineHere(
  tools: Toolbox,
  act: CiAct,
  need: "required" | "be-without",
): Promise<Pipeline | null> {
  return shownHere(tools, act, BEFORE_AUDIENCE, need);
}

/**
 * Who applies a plan, by a token for this very plan; null outside of CI and where the bundle pins no identity.
 * @throws RefusedError as {@link pipelineHere}.
 */
export async function applyingPipeline(
  tools: Toolbox,
  plan: Pick<LoadedPlan, "digest" | "statement">,
): Promise<Pipeline | null> {
  const need = plan.statement.from === null ? "required" : "be-without";
  return shownHere(tools, "apply", applyAudience(plan.digest), need);
}

/** The claims of a plan that a pipeline makes: what its token says, under which the final token must say the same. */
export function claimsOfPipeline(pipeline: Pipeline): Readonly<Record<string, string>> {
  return { [CI_CLAIMS.identity]: ciFactsText(pipeline.facts) };
}

/**
 * The token that proves a plan: asked for its digest, and held to everything that an approver will hold it to.
 * @throws RefusedError ERR_CI_TOKEN_MISSING, ERR_CI_TOKEN (32).
 */
export async function proofOf(
  tools: Toolbox,
  made: { readonly statement: PlanStatement; readonly digest: Digest },
): Promise<Uint8Array> {
  const answer = await tools.ciToken(planAudience(made.digest));
  if (answer.kind !== "token") throw missing(answer.kind === "none" ? answer : OUTSIDE);
  const { token } = answer;
  const now = { kind: "now", now: tools.clock.now() } as const;
  const audience = planAudience(made.digest);
  const live = await heldBy(identitiesOf(tools), {
    ci: answer.ci,
    token,
    act: "plan",
    audience,
    moment: now,
  });
  if (!live.ok) throw refused("this pipeline's token does not prove the plan", live);
  await requireProof(tools, made, token);
  return token;
}

/**
 * Holds a plan against the identities of the pinned bundle, after the bundle itself was checked and without asking anybody: a
 * pipeline's plan carries a token for its digest, and says of itself what that token says.
 * @throws IntegrityError ERR_PLAN_ALTERED (35) where the token's bytes are not what its key signed, or say something else.
 * @throws RefusedError ERR_CI_TOKEN (32) where the token does not count, or a pipeline has none.
 */
export async function requireProvenPipeline(
  tools: Pick<Toolbox, "project">,
  plan: LoadedPlan,
): Promise<void> {
  const { requester, from } = plan.statement;
  if (requester.how === "ci-token") {
    if (plan.signature === null) throw unproven(plan);
    await requireProof(tools, plan, plan.signature);
    return;
  }
  refuseUnproven(tools, { requester, from }, plan.id);
}

/**
 * Where pipelines are known by their tokens, a plan that a pipeline's key signed, or that says that a pipeline made it, is
 * nobody's. Refused when it is made, and again by whoever reads it.
 * @throws RefusedError ERR_CI_TOKEN_MISSING (32).
 */
export function refuseUnproven(
  tools: Pick<Toolbox, "project">,
  { requester, from }: Pick<PlanStatement, "requester" | "from">,
  name: string,
): void {
  if (requester.how === "ci-token" || identitiesOf(tools).length === 0 || !saysPipeline(tools, requester))
    return;
  // The way back waits for no provider: unsigned, it costs one approver more.
  if (from !== null && requester.how === "none") return;
  throw new RefusedError({
    code: "ERR_CI_TOKEN_MISSING",
    message: `${name} is a pipeline's, and no identity token proves it`,
    why: `the trust bundle knows pipelines by their token (ci.identity of groups.yaml); this plan has ${requester.how === "none" ? "no signature" : `a signature of ${requester.person ?? "a key"}`}`,
    next: [{ actor: "requester", text: "Make the plan in the pipeline that groups.yaml names." }],
  });
}

/**
 * Holds a plan's requester against the pinned bundle, after the bundle itself was checked: a person by their key, a pipeline by
 * its token. The one gate that reviewing and applying go through.
 * @throws as `requireKnownRequester` and {@link requireProvenPipeline}.
 */
export async function requireRequester(tools: Pick<Toolbox, "project">, plan: LoadedPlan): Promise<void> {
  requireKnownRequester(plan, tools.project.people);
  await requireProvenPipeline(tools, plan);
}

function saysPipeline(tools: Pick<Toolbox, "project">, requester: Requester): boolean {
  return isPipeline(requester, tools.project.ci) || requester.claims["ci"] !== undefined;
}

/** A provider that fixes audiences before a job begins gives the token for a digest to a later job only (`prove.ts`). */
function unproven({ id, statement }: LoadedPlan): RefusedError {
  return new RefusedError({
    code: "ERR_CI_TOKEN_MISSING",
    message: `${id} is a pipeline's, and no identity token proves it`,
    why: "it carries no token for its digest",
    next: [{ actor: "requester", argv: ["holdpoint", "plan", id, "--on", statement.target.name, "--prove"] }],
  });
}

async function requireProof(
  tools: Pick<Toolbox, "project">,
  plan: { readonly statement: PlanStatement; readonly digest: Digest; readonly id?: string },
  token: Uint8Array,
): Promise<void> {
  const { requester, created_at } = plan.statement;
  const name = plan.id ?? "the plan";
  const said = parseCiFacts(requester.claims[CI_CLAIMS.identity]);
  const identity = identitiesOf(tools).find((i) => i.name === said?.identity);
  if (said === null || identity === undefined) {
    const why = said === null ? "it does not say which one" : `there is no ci.identity.${said.identity} here`;
    throw refused(`${name} is proven by a token of an identity that is not pinned`, { why, kind: "claims" });
  }
  const check = await verifyCiToken({
    token,
    identity,
    act: "plan",
    audience: planAudience(plan.digest),
    moment: { kind: "made", at: parseStamp(created_at) ?? new Date(0) },
  });
  if (!check.ok) {
    if (check.kind === "altered") throw planAltered(name, check.why);
    throw refused(`the token of ${name} does not count`, check);
  }
  if (ciFactsText(check.facts) !== ciFactsText(said))
    throw planAltered(name, "what it says of its pipeline is not what its token says");
  const person = personOfToken(check.facts, tools.project.ci);
  if (person !== requester.person || requester.key !== null)
    throw planAltered(name, `it names ${requester.person ?? "nobody"}, its token ${person ?? "nobody"}`);
}

/** A token that holds now, from this machine's CI. */
async function shownHere(
  tools: Toolbox,
  act: CiAct,
  audience: string,
  need: "required" | "be-without",
): Promise<Pipeline | null> {
  const identities = identitiesOf(tools);
  if (identities.length === 0) return null;
  const answer = await tools.ciToken(audience);
  switch (answer.kind) {
    case "outside":
      return null;
    case "none":
      if (need === "be-without") return null;
      throw missing(answer);
    case "token": {
      const moment = { kind: "now", now: tools.clock.now() } as const;
      const check = await heldBy(identities, { ci: answer.ci, token: answer.token, act, audience, moment });
      if (!check.ok) throw refused(`this pipeline's identity token does not let it ${act}`, check);
      return { ci: answer.ci, facts: check.facts, person: personOfToken(check.facts, tools.project.ci) };
    }
  }
}

/** The first identity that a token holds for; else why it holds for none of them. */
async function heldBy(
  identities: readonly CiIdentity[],
  shown: {
    readonly ci: CiProvider;
    readonly token: Uint8Array;
    readonly act: CiAct;
    readonly audience: string;
    readonly moment: TokenMoment;
  },
): Promise<TokenCheck> {
  const failed: { readonly name: string; readonly check: Extract<TokenCheck, { readonly ok: false }> }[] = [];
  const candidates = identities.filter((i) => i.provider === shown.ci && i.may.includes(shown.act));
  if (candidates.length === 0)
    return { ok: false, kind: "claims", why: `no pipeline of ${shown.ci} is pinned that may ${shown.act}` };
  for (const identity of candidates) {
    const check = await verifyCiToken({ ...shown, identity });
    if (check.ok) return check;
    failed.push({ name: identity.name, check });
  }
  const reasons = new Set(failed.map((f) => f.check.why));
  const why =
    reasons.size === 1 ? [...reasons].join() : failed.map((f) => `as ${f.name}: ${f.check.why}`).join("; ");
  // New keys are what a person can mend; they are told where every identity that may act lacks the key.
  const kind = failed.every((f) => f.check.kind === "key") ? "key" : "claims";
  return { ok: false, kind, why };
}

function identitiesOf(tools: Pick<Toolbox, "project">): readonly CiIdentity[] {
  return tools.project.ci?.identities ?? [];
}

const OUTSIDE = { ci: "this machine", why: "it says of itself that it is no CI any more" };

function missing(answer: { readonly ci: string; readonly why: string }): RefusedError {
  return new RefusedError({
    code: "ERR_CI_TOKEN_MISSING",
    message: `${answer.ci} gave no identity token`,
    why: `${answer.why}; the trust bundle knows pipelines by their token, and nothing else is taken in its place`,
    next: [{ actor: "requester", argv: ["holdpoint", "explain", "ERR_CI_TOKEN_MISSING"] }],
  });
}

function refused(
  message: string,
  check: Pick<Extract<TokenCheck, { readonly ok: false }>, "why" | "kind">,
): RefusedError {
  const renew = {
    actor: "anyone",
    text: "If the issuer has new keys: put its key set beside groups.yaml, see that it is the issuer's, and have two people accept it with holdpoint trust propose.",
  } as const;
  return new RefusedError({
    code: "ERR_CI_TOKEN",
    message,
    why: check.why,
    next: [
      ...(check.kind === "key" ? [renew] : []),
      { actor: "anyone", argv: ["holdpoint", "trust", "show"] },
    ],
  });
}
