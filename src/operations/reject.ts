/** Reject: final for a plan. Anchored in the target where it can be, so that losing the ledger loses nothing. */
import { NAMESPACES } from "../approval/requirement.js";
import { makeStatement, statementBytes } from "../approval/statement.js";
import { stamp } from "../base/clock.js";
import { RefusedError, UsageError } from "../base/errors.js";
import {
  type Examined,
  refuseContradiction,
  refuseOtherBundle,
  requireHistory,
  withTarget,
} from "./judging/examine.js";
import { anchorNotes } from "./recall/notes.js";
import { refuseClosedPlan, refusePlanOfOtherPlace } from "./recall/plan-state.js";
import { loadPlan } from "./recall/stored-plan.js";
import { timeOf } from "./judging/time.js";
import type { LoadedPlan, SigningKey, Toolbox } from "./toolbox.js";

/** It is recorded at once; the statement's end only gives it the form that all have. */
const REJECTION_SECONDS = 3600;

/** A rejection that was recorded. */
export interface Rejected {
  readonly plan: string;
  readonly by: string;
  readonly requester: string | null;
  readonly anchored: boolean;
}

/**
 * Rejects a plan for good. Anyone the people file knows may reject, the requester too (a withdrawal).
 * @throws UsageError when the reason is blank.
 */
export async function rejectPlan(
  tools: Toolbox,
  request: { readonly ref: string; readonly reason: string; readonly key: string | undefined },
): Promise<Rejected> {
  if (request.reason.trim() === "") {
    throw new UsageError({
      code: "ERR_USAGE",
      message: "a rejection needs a reason",
      why: "--reason is blank",
    });
  }
  const plan = await loadPlan(tools, request.ref);
  try {
    return await withTarget(tools, plan.statement.target.name, async (examined) => {
      refuseContradiction(examined);
      await refuseOtherBundle(tools, examined);
      await requireHistory(tools, examined);
      refusePlanOfOtherPlace(plan, examined);
      await refuseClosedPlan(tools, plan, examined, await timeOf(tools, examined));
      const key = await tools.findKey(request.key, NAMESPACES.approval);
      return reject(tools, plan, examined, key, onOneLine(request.reason));
    });
  } finally {
    plan.close();
  }
}

/** A reason is read on one line, in the statement that is signed and on later plans. */
export function onOneLine(reason: string): string {
  return reason.trim().replaceAll(/\s+/g, " ");
}

async function reject(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined,
  key: SigningKey,
  reason: string,
): Promise<Rejected> {
  if (key.person === null) {
    throw new RefusedError({
      code: "ERR_KEY_UNKNOWN",
      message: "this key is not one that the people file knows",
      why: `key ${key.fingerprint}`,
      next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
    });
  }
  const now = await timeOf(tools, examined);
  // Signed, because a public key lies open: nobody says no in another one's name.
  const bytes = statementBytes(
    makeStatement({
      act: "reject",
      target: examined.target.name,
      identity: examined.marker?.identity ?? null,
      subject: plan.id,
      from: plan.digest,
      by: key.person,
      now,
      ttlSeconds: REJECTION_SECONDS,
      nonce: tools.random(16),
      reason,
    }),
  );
  const signature = await key.sign(bytes);
  const entry = (await tools.ledger()).append({
    kind: "rejected",
    target: examined.target.name,
    plan: plan.id,
    facts: {
      digest: plan.digest,
      by: key.person,
      reason,
      statement: Buffer.from(bytes).toString("base64url"),
      signature: Buffer.from(signature).toString("base64url"),
    },
  });
  const note = { kind: "rejected" as const, subject: plan.digest, at: stamp(now), by: key.person, reason };
  const anchored = await anchorNotes(tools, examined, [note], entry);
  return { plan: plan.id, by: key.person, requester: plan.statement.requester.person, anchored };
}
