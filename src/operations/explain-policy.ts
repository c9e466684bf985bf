/** Explain: what policy says about a plan, rule by rule, and from where on it would say something else. Decides nothing. */
import { bundleDigest } from "../approval/bundle.js";
import type { Digest } from "../base/digest.js";
import { HoldpointError, UsageError } from "../base/errors.js";
import { nearest } from "../base/suggest.js";
import type { VerdictName } from "../environment/evidence.js";
import { explain, type Explanation } from "../policy/explain.js";
import { withTarget } from "./judging/examine.js";
import { claimsOf, type Judgement, judgementOf, requestedBy, withMissed } from "./judging/judge-plan.js";
import { judgementShown } from "./judging/show-decision.js";
import { rowsNow } from "./recall/plan-state.js";
import { type Shown, showPlan } from "./show.js";
import { timeOf } from "./judging/time.js";
import type { Toolbox } from "./toolbox.js";

/** What is asked. */
export interface ExplainRequest {
  readonly ref: string;
  /** Decide as if this person had made the plan. */
  readonly as: string | null;
  /** Decide a second time as if the plan changed so many rows. */
  readonly whatIfRows: bigint | null;
}

/** A plan's decision with its reasons. */
export interface Explained {
  readonly plan: string;
  readonly target: string;
  readonly environment: VerdictName;
  /** Who counts as the requester here; null when nobody knows. */
  readonly requester: string | null;
  /** Whether place and sizes were read from the target now, or are those that the plan was made with. */
  readonly read: "target" | "plan";
  /** The trust bundle whose rules these are. */
  readonly bundle: Digest;
  readonly explanation: Explanation;
}

/**
 * What apply would be told now. Where the target cannot be asked, or the plan was applied already and its
 * sizes are gone, the figures that it was made with are used, and the answer says so.
 */
export async function explainPlan(tools: Toolbox, request: ExplainRequest): Promise<Explained> {
  const as = request.as === null ? null : personNamed(tools, request.as);
  return showPlan(tools, request.ref, async (shown) => {
    const { statement } = shown;
    const asked = (await judgedNow(tools, shown)) ?? {
      read: "plan",
      judgement: await judgementShown(tools, shown),
    };
    const judgement =
      as === null
        ? asked.judgement
        : await requestedBy(tools, asked.judgement, { ...statement.requester, person: as });
    const explanation = explain(tools.project.policies, judgement.input, {
      assertions: judgement.assertions,
      ...(request.whatIfRows === null ? {} : { whatIfRows: request.whatIfRows }),
    });
    return {
      plan: shown.id,
      target: statement.target.name,
      environment: judgement.input.environment,
      requester: as ?? statement.requester.person,
      read: asked.read,
      bundle: bundleHere(tools, shown),
      explanation: withExpectation(explanation, judgement),
    };
  });
}

/** A missed expectation is no rule of a policy, and what it would take is the job's matter: no number of rows is tried. */
function withExpectation(e: Explanation, judgement: Judgement): Explanation {
  const decision = withMissed(e.decision, judgement);
  return { ...e, decision, fired: decision.rules.filter((r) => r.effect !== "pass") };
}

/** The bundle of this checkout; the plan's own where the target is not one of its targets. */
function bundleHere(tools: Toolbox, shown: Shown): Digest {
  const { name } = shown.statement.target;
  const isOurs = Object.hasOwn(tools.project.config.targets, name);
  return isOurs ? bundleDigest(tools.project.bundleFor(name)) : shown.statement.bundle;
}

interface Judged {
  readonly read: "target" | "plan";
  readonly judgement: Judgement;
}

/** Null where the target cannot be asked about this plan. */
async function judgedNow(tools: Toolbox, shown: Shown): Promise<Judged | null> {
  const { statement } = shown;
  try {
    return await withTarget(tools, statement.target.name, async (examined) => {
      const { target } = examined;
      if ((await target.spentFor(shown.digest)) !== null) return null;
      const rowsBefore = await rowsNow(examined, shown);
      const judgement = await judgementOf(tools, {
        now: await timeOf(tools, examined),
        act: "apply",
        verdict: examined.verdict,
        target: { name: target.name, adapter: target.adapter, pinned: examined.marker !== null },
        reach: target,
        changes: shown.changes,
        summary: shown.summary,
        rowsBefore,
        claims: claimsOf(statement),
      });
      return { read: "target", judgement };
    });
  } catch (e) {
    if (e instanceof HoldpointError && NOT_ASKED.has(e.code)) return null;
    throw e;
  }
}

/** Reasons for which a target cannot be asked from here, as for a plan that came from elsewhere. */
const NOT_ASKED: ReadonlySet<HoldpointError["code"]> = new Set([
  "ERR_TARGET_UNREACHABLE",
  "ERR_TARGET_UNKNOWN",
  "ERR_TARGET_UNSUPPORTED",
  "ERR_TARGET_PRIVILEGE",
  "ERR_CONFIG_VARIABLE",
]);

function personNamed(tools: Toolbox, name: string): string {
  const names = tools.project.people.map((p) => p.name);
  if (names.includes(name)) return name;
  const guess = nearest(name, names);
  throw new UsageError({
    code: "ERR_USAGE",
    message: `the people file knows nobody called ${name}`,
    why: guess === undefined ? `it knows ${names.join(", ")}` : `did you mean ${guess}?`,
    next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
  });
}
