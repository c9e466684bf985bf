/** What policy here says about a plan that is only shown: the target is not asked, so its own figures are used. */
import type { Decision } from "../../policy/decision.js";
import type { PlanStatement } from "../../approval/plan-statement.js";
import type { Environment, Verdict } from "../../environment/evidence.js";
import { moreDangerous } from "../../environment/verdict.js";
import { claimsOf, decisionOn, type Effect, type Judgement, judgementOf } from "./judge-plan.js";
import type { Shown } from "../show.js";
import type { Toolbox } from "../toolbox.js";

/** The decision over the plan as its requester's machine measured it; apply computes its own. */
export async function decideShown(tools: Toolbox, shown: Shown): Promise<Decision> {
  return decisionOn(tools, await judgementShown(tools, shown));
}

/** What {@link decideShown} asks policy. */
export async function judgementShown(tools: Toolbox, shown: Shown): Promise<Judgement> {
  return judgementOf(tools, effectShown(shown, tools.clock.now()));
}

/** The verdict that a plan names, raised to what this checkout's configuration claims; never below either. */
export function verdictClaimed(statement: PlanStatement, claim: Environment | null): Verdict {
  const { verdict } = statement.target;
  const name = verdict === "unproven" || claim === null ? verdict : moreDangerous(verdict, claim);
  return {
    name,
    guardedAs: name === "unproven" ? "production" : name,
    contradicted: false,
    because: [],
    evidence: [],
  };
}

function effectShown(shown: Shown, now: Date): Effect {
  const { statement } = shown;
  const verdict = verdictClaimed(statement, null);
  return {
    now,
    act: "plan",
    verdict,
    target: {
      name: statement.target.name,
      adapter: statement.target.adapter,
      pinned: statement.target.identity !== null,
    },
    reach: null,
    changes: shown.changes,
    summary: shown.summary,
    rowsBefore: Object.fromEntries(statement.changeset.tables.map((t) => [t.name, t.rows_before])),
    claims: claimsOf(statement),
  };
}
