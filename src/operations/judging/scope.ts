/** A job's declared scope and expectation, held against its effect. Anything outside refuses the plan. */
import type { PlannedJob, PlanStatement } from "../../approval/plan-statement.js";
import { RefusedError } from "../../base/errors.js";
import type { TableCounts } from "../../changeset/change.js";

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

/** @throws RefusedError ERR_EXPECT_MISSED (30) when a declared count lies outside its range; a table not touched counts 0. */
export function refuseUnexpected(job: PlannedJob, tables: readonly TableCounts[], target: string): void {
  const missed = Object.entries(job.expect ?? {}).flatMap(([table, ops]) =>
    Object.entries(ops).flatMap(([op, [least, most]]) => {
      const counts = tables.find((t) => t.name === table);
      const found = counts === undefined ? 0 : countOf(counts, op);
      return found >= least && found <= most ? [] : [{ table, op, least, most, found }];
    }),
  );
  if (missed.length === 0) return;
  throw new RefusedError({
    code: "ERR_EXPECT_MISSED",
    message: `${job.name} would not do to ${target} what it declares`,
    why: missed.map((m) => `${m.table} ${m.op}: expected ${m.least}..${m.most}, found ${m.found}`).join("; "),
    next: [
      { actor: "requester", text: "Look at the rows: the job or the expectation is wrong. Then plan again." },
    ],
    details: missed,
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
