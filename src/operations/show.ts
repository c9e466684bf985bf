/** Show: a plan as anyone may read it, always, with everything computed here from its bytes. */
import type { Digest } from "../base/digest.js";
import type { Odd } from "../changeset/odd.js";
import type { Summary } from "../changeset/summarise.js";
import type { Change, TableShape } from "../changeset/change.js";
import type { PlanStatement } from "../approval/plan-statement.js";
import { type EffectFacts, effectFacts } from "./judging/effect-facts.js";
import { oddOf } from "./judging/odd.js";
import { summaryOf } from "./judging/judge-plan.js";
import { loadPlan } from "./recall/stored-plan.js";
import type { QueryAnswer, Toolbox, WorkingChanges } from "./toolbox.js";

/** A plan for the screen. */
export interface Shown {
  readonly id: string;
  readonly digest: Digest;
  readonly statement: PlanStatement;
  /** A pipeline made it, and the token that would prove that is not there yet. */
  readonly isUnproven: boolean;
  readonly summary: Summary;
  readonly shapes: readonly TableShape[];
  readonly changes: WorkingChanges;
  readonly odd: Odd;
  readonly facts: EffectFacts;
}

/** Reads a plan and hands it to `work` while its rows are at hand. */
export async function showPlan<T>(
  tools: Toolbox,
  ref: string,
  work: (
    shown: Shown,
    rows: { readonly all: () => Iterable<Change>; readonly ask: (sql: string) => Promise<QueryAnswer> },
  ) => Promise<T>,
): Promise<T> {
  const plan = await loadPlan(tools, ref);
  try {
    const summary = summaryOf(plan.changes, plan.statement.changeset.digest);
    return await work(
      {
        id: plan.id,
        digest: plan.digest,
        statement: plan.statement,
        isUnproven: plan.statement.requester.how === "ci-token" && plan.signature === null,
        summary,
        shapes: plan.changes.tables,
        changes: plan.changes,
        odd: oddOf(tools, plan.statement.target.name, plan.changes),
        facts: await effectFacts(tools, plan.statement, summary, plan.changes),
      },
      {
        all: function* () {
          for (const shape of plan.changes.tables) yield* plan.changes.changes(shape.name);
        },
        ask: (sql) => plan.changes.query(sql, { maxRows: 1000, maxMs: 5000 }),
      },
    );
  } finally {
    plan.close();
  }
}
