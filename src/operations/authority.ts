/** By whose word a plan may be applied: policy alone, approvals counted by person, or a cover given earlier. */
import { countApprovals, refusalOf } from "../approval/count.js";
import type { Token } from "../approval/approval-statement.js";
import { parseSshsig, verifySshsig } from "../approval/sshsig.js";
import { parseToken, splitTokens } from "../approval/token.js";
import { IntegrityError } from "../base/errors.js";
import type { Decision } from "../policy/decision.js";
import type { Cover } from "./cover.js";
import type { Examined } from "./examine.js";
import { approvalsInLedger, planFacts, requestersOf } from "./plan-state.js";
import type { LoadedPlan, Toolbox } from "./toolbox.js";

/** Who lets it happen. */
export interface Authority {
  readonly approvers: readonly string[];
  readonly nonces: readonly string[];
  readonly coverUndoSeconds: number | null;
}

/**
 * Counts what was given against what policy asks, by person and after verification.
 * @throws RefusedError ERR_APPROVAL_NEEDED (21), or 31 with the most telling reason why an approval does not count.
 */
export async function requireAuthority(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined,
  decision: Decision,
  request: { readonly tokens: readonly string[]; readonly under?: Cover },
): Promise<Authority> {
  if (decision.kind === "allow") return { approvers: [], nonces: [], coverUndoSeconds: null };
  if (request.under !== undefined) {
    return { approvers: request.under.approvers, nonces: [], coverUndoSeconds: null };
  }
  const given = request.tokens.flatMap(takeIn);
  const tokens = [...given, ...(await approvalsInLedger(tools, plan.id))];
  const count = countApprovals({
    requirement: requirementFor(plan, decision),
    plan: planFacts(plan),
    tokens,
    people: tools.project.people,
    ...requestersOf(plan),
    now: tools.clock.now(),
    spentNonces: new Set<string>(),
    revokedNonces: new Set(
      (await examined.target.notes()).filter((n) => n.kind === "revoked").map((n) => n.subject),
    ),
    rejectedBy: null,
    environment: examined.verdict.guardedAs,
  });
  if (!count.satisfied) throw refusalOf(count, planFacts(plan));
  tools.progress.check(`approved by ${count.counted.map((c) => c.person).join(", ")}`);
  return {
    approvers: count.counted.map((c) => c.person),
    nonces: count.counted.map((c) => c.token.statement.nonce),
    coverUndoSeconds: count.coverUndoSeconds,
  };
}

/** Nobody knows who made an unsigned plan, so one of its approvers could be its requester: it costs one more person. */
function requirementFor(plan: LoadedPlan, decision: Decision): Decision["requirement"] {
  if (plan.statement.requester.person !== null) return decision.requirement;
  const slots = decision.requirement.slots.map((s) => ({ ...s, people: s.people + 1 }));
  return { ...decision.requirement, slots };
}

/**
 * The tokens in a text that somebody handed in. Tokens found in the ledger may be worthless and are passed over;
 * one that is handed in and whose bytes are not what was signed is a sign of tampering or of a bad copy, so it
 * refuses (35) even beside good ones. Whose key it is, and for what, is a matter of counting.
 */
function takeIn(text: string): readonly Token[] {
  const tokens = splitTokens(text).map(parseToken);
  if (tokens.length === 0) throw altered("there is no token in what was given as an approval");
  for (const token of tokens) {
    // Its own namespace: a good signature for another purpose is refused by the count, not as altered.
    const { namespace } = parseSshsig(token.signature);
    const check = verifySshsig({ bytes: token.bytes, signature: token.signature, namespace });
    if (!check.ok) throw altered(check.why);
  }
  return tokens;
}

function altered(why: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_APPROVAL_ALTERED",
    message: "an approval that was given is not what was signed",
    why,
    state: "Nothing was written. The approval itself is unused.",
    next: [{ actor: "requester", text: "Copy the token again from the approver; do not edit it." }],
  });
}
