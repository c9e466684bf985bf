/** Reject: final for a plan. Anchored in the target where it can be, so that losing the ledger loses nothing. */
import { NAMESPACES } from "../approval/requirement.js";
import { stamp } from "../base/clock.js";
import { codeOf, HoldpointError, RefusedError, UsageError } from "../base/errors.js";
import {
  type Examined,
  refuseContradiction,
  refuseOtherBundle,
  requireHistory,
  withTarget,
} from "./examine.js";
import { refuseClosedPlan, refusePlanOfOtherPlace } from "./plan-state.js";
import { loadPlan } from "./stored-plan.js";
import type { LoadedPlan, SigningKey, Toolbox } from "./toolbox.js";

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
      await refuseClosedPlan(tools, plan, examined);
      const key = await tools.findKey(request.key, NAMESPACES.approval);
      return reject(tools, plan, examined, key, request.reason.trim());
    });
  } finally {
    plan.close();
  }
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
  const entry = (await tools.ledger()).append({
    kind: "rejected",
    target: examined.target.name,
    plan: plan.id,
    facts: { digest: plan.digest, by: key.person, reason },
  });
  const anchored =
    examined.marker !== null &&
    (await anchorRejection(examined, {
      subject: plan.digest,
      by: key.person,
      reason,
      at: stamp(tools.clock.now()),
      head: { sequence: entry.entry.sequence, head: entry.digest },
    }));
  return { plan: plan.id, by: key.person, requester: plan.statement.requester.person, anchored };
}

/** A target that cannot be written now (busy, read-only) leaves the rejection in the ledger alone. */
async function anchorRejection(
  examined: Examined,
  r: {
    readonly subject: string;
    readonly by: string;
    readonly reason: string;
    readonly at: string;
    readonly head: { readonly sequence: number; readonly head: `sha256:${string}` };
  },
): Promise<boolean> {
  try {
    const session = await examined.target.openWriter();
    try {
      await session.begin();
      await session.addNote({ kind: "rejected", subject: r.subject, at: r.at, by: r.by, reason: r.reason });
      await session.anchor(r.head);
      await session.commit();
      return true;
    } catch (e) {
      await session.rollback();
      throw e;
    } finally {
      await session.close();
    }
  } catch (e) {
    if (e instanceof HoldpointError || codeOf(e)?.startsWith("SQLITE_") === true) return false;
    throw e;
  }
}
