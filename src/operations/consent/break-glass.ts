/**
 * Break-glass: one person applies a plan that the quorum has not approved. A signature of its own, good for minutes;
 * it waives the quorum and nothing else, and leaves a debt in the target that another person must review.
 */
import type { Count } from "../../approval/count.js";
import type { Token } from "../../approval/approval-statement.js";
import { NAMESPACES } from "../../approval/requirement.js";
import { approvalBytes, makeApproval, parseToken, tokenText } from "../../approval/token.js";
import { RefusedError, UsageError } from "../../base/errors.js";
import type { Note } from "../../target/marker.js";
import type { Examined } from "../judging/examine.js";
import { planFacts } from "../recall/plan-state.js";
import { timeOf } from "../judging/time.js";
import type { LoadedPlan, Toolbox } from "../toolbox.js";

/** How long a break-glass signature may be used: apply begins at once, so minutes are enough. */
export const BREAK_GLASS_SECONDS = 15 * 60;

/** Asked for on the command line; nothing of it has a default. */
export interface BreakGlassRequest {
  readonly incident: string;
  readonly reason: string;
  readonly key: string | undefined;
}

/** A plan that is applied under break-glass: who did it, and why. */
export interface BreakGlass {
  readonly person: string;
  readonly nonce: string;
  /** `INC-7: the reason`, as it was signed. */
  readonly reason: string;
}

/**
 * Signs, and records the signature in the ledger before it is used.
 * @throws RefusedError ERR_KEY_UNKNOWN (32) for a key that the list does not let break glass.
 */
export async function signBreakGlass(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined,
  request: BreakGlassRequest,
): Promise<Token> {
  requireWords(request);
  const key = await tools.findKey(request.key, NAMESPACES.breakGlass);
  if (key.person === null) {
    throw new RefusedError({
      code: "ERR_KEY_UNKNOWN",
      message: "this key is not one that may break glass",
      why: `key ${key.fingerprint} is nobody's for ${NAMESPACES.breakGlass} now`,
      next: [{ actor: "anyone", argv: ["holdpoint", "key", "list"] }],
    });
  }
  const statement = makeApproval({
    act: "break-glass",
    plan: planFacts(plan),
    environment: examined.verdict.guardedAs,
    approver: key.person,
    now: await timeOf(tools, examined),
    ttlSeconds: BREAK_GLASS_SECONDS,
    nonce: tools.random(16),
    ledgerHead: (await tools.ledger()).head()?.head ?? null,
    reviewedSeconds: null,
    coverUndoSeconds: null,
    reason: `${request.incident.trim()}: ${request.reason.trim()}`,
  });
  const bytes = approvalBytes(statement);
  const token = tokenText(bytes, await key.sign(bytes));
  (await tools.ledger()).append({
    kind: "approved",
    target: statement.target,
    plan: statement.plan,
    facts: {
      digest: statement.planDigest,
      by: statement.approver,
      act: statement.act,
      incident: request.incident.trim(),
      expires_at: statement.expiresAt,
      cover_undo: statement.coverUndo,
      reviewed: statement.reviewed,
      token,
    },
  });
  return parseToken(token);
}

function requireWords(request: BreakGlassRequest): void {
  const blank =
    request.incident.trim() === "" ? "--incident" : request.reason.trim() === "" ? "--reason" : null;
  if (blank === null) return;
  throw new UsageError({
    code: "ERR_USAGE",
    message: `break-glass needs ${blank}`,
    why: "whoever reviews it must know what it was for",
  });
}

/** What a count says of break-glass: good, or the refusal that its signature leads to is the count's own. */
export function breakGlassOf(count: Count): BreakGlass | null {
  if (count.breakGlass === null || count.rejectedBy !== null) return null;
  const { token, person } = count.breakGlass;
  return { person, nonce: token.statement.nonce, reason: token.statement.reason };
}

/** The debt of a run, for the transaction that carries its first rows; none where the quorum approved. */
export function debtNotes(breakGlass: BreakGlass | null, run: string, at: string): readonly Note[] {
  if (breakGlass === null) return [];
  return [{ kind: "debt", subject: run, at, by: breakGlass.person, reason: breakGlass.reason }];
}
