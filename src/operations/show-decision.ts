/** What policy here says about a plan that is only shown: the target is not asked, so its own figures are used. */
import type { Decision } from "../policy/decision.js";
import type { Verdict } from "../environment/evidence.js";
import { decideEffect } from "./judge-plan.js";
import type { Shown } from "./show.js";
import type { Toolbox } from "./toolbox.js";

/** The decision over the plan as its requester's machine measured it; apply computes its own. */
export function decideShown(tools: Toolbox, shown: Shown): Decision {
  const { statement } = shown;
  const name = statement.target.verdict;
  const verdict: Verdict = {
    name,
    guardedAs: name === "unproven" ? "production" : name,
    contradicted: false,
    because: [],
    evidence: [],
  };
  const rowsBefore = Object.fromEntries(statement.changeset.tables.map((t) => [t.name, t.rows_before]));
  return decideEffect(tools, {
    verdict,
    target: {
      name: statement.target.name,
      adapter: statement.target.adapter,
      pinned: statement.target.identity !== null,
    },
    summary: shown.summary,
    rowsBefore,
    claims: { ...statement, schemaChanges: statement.schema.changes.length },
  });
}
