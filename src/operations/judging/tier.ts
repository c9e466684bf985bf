/**
 * How much a decision asks of a person: friction follows risk, and is nothing where nothing can go wrong.
 *
 * | tier | when |
 * | --- | --- |
 * | 0 | nothing changes, or the place is proven not to be production or staging |
 * | 1 | staging |
 * | 2 | production |
 * | 3 | production, and rows are deleted, many, protected or of several tenants, or the way back was not rehearsed whole |
 */
import type { Review } from "../consent/review.js";

/** See the table above. */
export type Tier = 0 | 1 | 2 | 3;

/** Share of a table, and number of rows, above which a change of production is a large one. */
const LARGE_SHARE = 0.1;
const LARGE_ROWS = 1_000;

/** The tier of one review; everything in it was computed on this machine. */
export function tierOf(review: Pick<Review, "summary" | "guardedAs" | "odd" | "undo" | "plan">): Tier {
  const { guardedAs } = review;
  if (review.summary.rows === 0 || guardedAs === "development") return 0;
  if (guardedAs === "staging") return 1;
  return isGrave(review) ? 3 : 2;
}

function isGrave({ summary, odd, undo, plan }: Pick<Review, "summary" | "odd" | "undo" | "plan">): boolean {
  return (
    summary.rows > LARGE_ROWS ||
    summary.tables.some((t) => t.delete > 0 || t.update + t.delete > LARGE_SHARE * before(plan, t.name)) ||
    odd.groups.some((g) => g.rule === "protected-value" || g.rule === "second-tenant") ||
    undo?.rehearsed !== "all" ||
    undo.identical < undo.of
  );
}

function before(plan: Review["plan"], table: string): number {
  return plan.statement.changeset.tables.find((t) => t.name === table)?.rows_before ?? 0;
}
