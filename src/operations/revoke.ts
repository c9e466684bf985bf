/** Revoke: an approver takes back what they signed, before it is used. Kept in the target, where a lost ledger loses nothing. */
import { NAMESPACES } from "../approval/requirement.js";
import { makeStatement, statementBytes } from "../approval/statement.js";
import { stamp } from "../base/clock.js";
import { RefusedError, UsageError } from "../base/errors.js";
import {
  refuseContradiction,
  refuseOtherBundle,
  requireHistory,
  withTarget,
  type Examined,
} from "./judging/examine.js";
import { anchorNotes } from "./recall/notes.js";
import {
  approvalsInLedger,
  refuseClosedPlan,
  refusePlanOfOtherPlace,
  revokedNonces,
} from "./recall/plan-state.js";
import { onOneLine } from "./reject.js";
import { loadPlan } from "./recall/stored-plan.js";
import { timeOf } from "./judging/time.js";
import { takeIn } from "./consent/tokens.js";
import type { LoadedPlan, SigningKey, Toolbox } from "./toolbox.js";

/** A revocation needs no longer life: it is recorded at once. */
const REVOCATION_SECONDS = 3600;

/** Approvals that were taken back. */
export interface Revoked {
  readonly plan: string;
  readonly by: string;
  readonly nonces: readonly string[];
  /** Whether the target keeps it too. */
  readonly anchored: boolean;
}

/**
 * Takes back every unused approval that the key's person gave for a plan, found in the ledger or handed in.
 * @throws UsageError when there is none; RefusedError when the plan was applied, rejected, or the key is nobody's.
 */
export async function revokeApproval(
  tools: Toolbox,
  request: {
    readonly ref: string;
    readonly reason: string;
    readonly key: string | undefined;
    readonly tokens: readonly string[];
  },
): Promise<Revoked> {
  const plan = await loadPlan(tools, request.ref);
  try {
    return await withTarget(tools, plan.statement.target.name, async (examined) => {
      refuseContradiction(examined);
      await refuseOtherBundle(tools, examined);
      await requireHistory(tools, examined);
      refusePlanOfOtherPlace(plan, examined);
      await refuseClosedPlan(tools, plan, examined, await timeOf(tools, examined));
      const key = await tools.findKey(request.key, NAMESPACES.approval);
      const person = knownPerson(key);
      const nonces = await ownNonces(tools, plan, examined, person, request.tokens);
      return revoke(tools, { plan, examined, key, person, nonces, reason: onOneLine(request.reason) });
    });
  } finally {
    plan.close();
  }
}

function knownPerson(key: SigningKey): string {
  if (key.person !== null) return key.person;
  throw new RefusedError({
    code: "ERR_KEY_UNKNOWN",
    message: "this key is not one that the people file knows",
    why: `key ${key.fingerprint}`,
    next: [{ actor: "anyone", argv: ["holdpoint", "key", "check"] }],
  });
}

async function ownNonces(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined,
  person: string,
  given: readonly string[],
): Promise<readonly string[]> {
  const tokens = [...(await approvalsInLedger(tools, plan.id)), ...given.flatMap(takeIn)];
  const gone = await revokedNonces(tools, plan.id, examined);
  const own = tokens
    .map((t) => t.statement)
    .filter((s) => s.planDigest === plan.digest && s.approver === person && !gone.has(s.nonce));
  if (own.length > 0) return [...new Set(own.map((s) => s.nonce))];
  const others = tokens.map((t) => t.statement.approver).filter((a) => a !== person);
  throw new UsageError({
    code: "ERR_USAGE",
    message: `${person} gave no approval for ${plan.id} that could be taken back`,
    why: others.length === 0 ? "nobody approved it" : `approved by ${[...new Set(others)].join(", ")}`,
    next: [{ actor: "approver", argv: ["holdpoint", "reject", plan.id, "--reason", "TEXT"] }],
  });
}

async function revoke(
  tools: Toolbox,
  r: {
    readonly plan: LoadedPlan;
    readonly examined: Examined;
    readonly key: SigningKey;
    readonly person: string;
    readonly nonces: readonly string[];
    readonly reason: string;
  },
): Promise<Revoked> {
  const { plan, examined, person, nonces, reason } = r;
  const now = await timeOf(tools, examined);
  const bytes = statementBytes(
    makeStatement({
      act: "revoke",
      target: examined.target.name,
      identity: examined.marker?.identity ?? null,
      subject: plan.id,
      from: nonces.join(","),
      by: person,
      now,
      ttlSeconds: REVOCATION_SECONDS,
      nonce: tools.random(16),
      reason,
    }),
  );
  const signature = await r.key.sign(bytes);
  const sealed = (await tools.ledger()).append({
    kind: "revoked",
    target: examined.target.name,
    plan: plan.id,
    facts: {
      digest: plan.digest,
      by: person,
      nonces: [...nonces],
      reason,
      statement: Buffer.from(bytes).toString("base64url"),
      signature: Buffer.from(signature).toString("base64url"),
    },
  });
  const at = stamp(now);
  const notes = nonces.map((subject) => ({ kind: "revoked" as const, subject, at, by: person, reason }));
  return { plan: plan.id, by: person, nonces, anchored: await anchorNotes(tools, examined, notes, sealed) };
}
