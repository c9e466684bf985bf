/**
 * What the card says of an effect beside its counts, computed where it is shown: which way values go, what leaves the
 * target, sums that people know, and whether the job's source is committed. Rows come from the plan's bytes, the rest
 * from the configuration that the trust bundle holds and from the reader's own checkout.
 */
import type { PlanStatement } from "../../approval/plan-statement.js";
import type { ChangeSource } from "../../changeset/change.js";
import { type Against, againstDirections } from "../../changeset/direction.js";
import { columnSums, type ColumnSum } from "../../changeset/sums.js";
import type { Summary } from "../../changeset/summarise.js";
import type { Toolbox } from "../toolbox.js";

/** What is known of the job's source here: `none` for a plan that has no file. */
export type SourceState = "committed" | "changed" | "unknown" | "none";

/** Rows that go out of the target. */
export interface Leaving {
  readonly table: string;
  readonly rows: number;
  readonly origin: PlanStatement["changeset"]["tables"][number]["origin"];
}

/** Facts of one effect. */
export interface EffectFacts {
  readonly source: SourceState;
  /** Changes against the direction that the job declares. */
  readonly against: readonly Against[];
  /** Rows that the configuration says are sent somewhere: nobody takes them back. */
  readonly leaving: readonly Leaving[];
  readonly sums: readonly (ColumnSum & { readonly unit: string })[];
}

/** The facts of a plan's effect; the same on every machine but for `source`, which is the reader's own checkout's. */
export async function effectFacts(
  tools: Toolbox,
  statement: Pick<PlanStatement, "job" | "target" | "changeset">,
  summary: Summary,
  changes: ChangeSource,
): Promise<EffectFacts> {
  const config = tools.project.config.targets[statement.target.name];
  const sums = config?.sums ?? [];
  const totals = columnSums(changes, sums);
  return {
    source: await sourceState(tools, statement.job),
    against: againstDirections(changes, statement.job?.direction ?? []),
    leaving: summary.tables
      .filter((t) => t.insert > 0 && config?.outbox.includes(t.name) === true)
      .map((t) => ({ table: t.name, rows: t.insert, origin: originOf(statement, t) })),
    sums: totals.map((t) => ({
      ...t,
      unit: sums.find((s) => s.table === t.table && s.column === t.column)?.unit ?? "",
    })),
  };
}

function originOf(
  statement: Pick<PlanStatement, "changeset">,
  t: Summary["tables"][number],
): Leaving["origin"] {
  if (t.origin !== "unknown") return t.origin;
  return statement.changeset.tables.find((p) => p.name === t.name)?.origin ?? "unknown";
}

async function sourceState(tools: Toolbox, job: PlanStatement["job"]): Promise<SourceState> {
  if (job === null || job.path === null) return "none";
  const found = await tools.committed(job);
  if (found === null) return "unknown";
  return found.clean ? "committed" : "changed";
}
