/** A job's declared scope and expectation, held against its effect. Anything outside refuses the plan. */
import type { PlannedJob, PlanStatement } from "../../approval/plan-statement.js";
import { RefusedError } from "../../base/errors.js";
import type { TableCounts } from "../../changeset/change.js";
import type { RuleResult } from "../../policy/decision.js";

/** @throws RefusedError ERR_SCOPE_EXCEEDED (30) naming every table outside and what would happen there. */
export function refuseOutsideScope(job: PlannedJob, tables: readonly TableCounts[], target: string): void {
  if (job.scope === null) return;
  const scope = new Set(job.scope);
  const outside = tables.filter((t) => !scope.has(t.name));
  if (outside.length === 0) return;
  throw new RefusedError({
    code: "ERR_SCOPE_EXCEEDED",
    message: `${job.name} would change ${outside.length === 1 ? "a table" : `${outside.length} tables`} of ${target} outside its declared scope`,
    why: `scope is ${job.scope.join(", ")}; outside it: ${outside.map(countsInWords).join("; ")}`,
    next: [
      { actor: "requester", text: "Narrow the job, or declare these tables in its scope and plan again." },
    ],
    details: outside.map((t) => ({ table: t.name, insert: t.insert, update: t.update, delete: t.delete })),
  });
}

/** @throws RefusedError ERR_SCOPE_EXCEEDED (30) for a schema change of a table outside; a view belongs to itself. */
export function refuseSchemaOutsideScope(
  job: PlannedJob,
  changes: PlanStatement["schema"]["changes"],
  target: string,
): void {
  const scope = job.scope;
  if (scope === null) return;
  const outside = changes.filter((c) => !scope.includes(c.table ?? c.name));
  if (outside.length === 0) return;
  throw new RefusedError({
    code: "ERR_SCOPE_EXCEEDED",
    message: `${job.name} would change the schema of ${target} outside its declared scope`,
    why: `scope is ${scope.join(", ")}; outside it: ${outside.map((c) => `${c.action} ${c.object} ${c.name}`).join(", ")}`,
    next: [
      { actor: "requester", text: "Narrow the job, or declare these tables in its scope and plan again." },
    ],
    details: outside.map((c) => ({ action: c.action, object: c.object, name: c.name })),
  });
}

/** A declared count and what was found instead. */
export interface Missed {
  readonly table: string;
  readonly op: string;
  readonly least: number;
  readonly most: number;
  readonly found: number;
}

/** Every declared count that lies outside its range; a table not touched counts 0. */
export function missedExpectations(
  expect: PlannedJob["expect"] | undefined,
  tables: readonly TableCounts[],
): readonly Missed[] {
  return Object.entries(expect ?? {}).flatMap(([table, ops]) =>
    Object.entries(ops).flatMap(([op, [least, most]]) => {
      const counts = tables.find((t) => t.name === table);
      const found = counts === undefined ? 0 : countOf(counts, op);
      return found >= least && found <= most ? [] : [{ table, op, least, most, found }];
    }),
  );
}

/** The rule that an expectation is, beside those of the policies. */
const EXPECT_RULE = "expect";

/**
 * What a missed expectation says to the decision: no. The plan is made and shown all the same, so that the reader sees
 * which rows are too many or too few; nobody can approve or apply it.
 */
export function expectRules(missed: readonly Missed[]): readonly RuleResult[] {
  return missed.map((m) => ({
    rule: EXPECT_RULE,
    at: "the job's declaration",
    effect: "deny",
    because: "the number of rows is not what the job declares",
    saw: `${m.table} ${m.op}: expected ${m.least}..${m.most}, found ${m.found}`,
    flips: `${m.least}..${m.most} rows; the job or the expectation is wrong`,
  }));
}

/** ERR_EXPECT_MISSED (30); null when every declared count is inside its range. */
export function unexpected(
  job: PlannedJob | null,
  tables: readonly TableCounts[],
  target: string,
): RefusedError | null {
  const missed = missedExpectations(job?.expect, tables);
  if (job === null || missed.length === 0) return null;
  return new RefusedError({
    code: "ERR_EXPECT_MISSED",
    message: `${job.name} would not do to ${target} what it declares`,
    why: missed.map((m) => `${m.table} ${m.op}: expected ${m.least}..${m.most}, found ${m.found}`).join("; "),
    next: [
      { actor: "requester", text: "Look at the rows: the job or the expectation is wrong. Then plan again." },
    ],
    details: missed.map((m) => ({ ...m })),
  });
}

function countOf(t: TableCounts, op: string): number {
  return op === "insert" ? t.insert : op === "update" ? t.update : op === "delete" ? t.delete : Number.NaN;
}

/** `order_holds: delete 1240, update 3`. */
export function countsInWords(t: TableCounts): string {
  const parts = (["insert", "update", "delete"] as const)
    .filter((op) => t[op] > 0)
    .map((op) => `${op} ${t[op]}`);
  return `${t.name}: ${parts.join(", ")}`;
}
