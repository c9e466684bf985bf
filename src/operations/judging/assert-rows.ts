/** Asks a policy's assertions of a plan's own rows: in a child process, read-only, under limits of rows and time. */
import { HoldpointError } from "../../base/errors.js";
import type { Value } from "../../changeset/value.js";
import type { AssertionAnswer, AssertionRunner } from "../../policy/assertions.js";
import type { QueryAnswer, WorkingChanges } from "../toolbox.js";

/** Rows that an answer counts; more are "or more". One row already denies. */
const MOST_COUNTED = 1_000;
/** How long one query may take. */
const LONGEST_MS = 5_000;
/** Cells of the first row that are shown, and how much of each. */
const CELLS_SHOWN = 4;
const LONGEST_CELL = 40;

/**
 * A runner over a working ChangeSet.
 * @param masked whether the target masks columns: then a value could be one of theirs under another name, and none is shown.
 */
export function assertionRunner(changes: WorkingChanges, masked: boolean): AssertionRunner {
  return async (sql) => {
    try {
      return answerOf(await changes.query(sql, { maxRows: MOST_COUNTED, maxMs: LONGEST_MS }), masked);
    } catch (e) {
      // What a result shows is one line: the reason belongs into it, or nobody can mend the query.
      if (!(e instanceof HoldpointError) || e.why === undefined) throw e;
      throw new TypeError(`its query has no answer: ${e.why}`, { cause: e });
    }
  };
}

function answerOf(answer: QueryAnswer, masked: boolean): AssertionAnswer {
  // Cut short before its first row, an answer says nothing about how many rows there are.
  if (answer.truncated && answer.rows.length === 0) return { rows: Number.NaN, sample: "" };
  const [first] = answer.rows;
  return {
    rows: answer.rows.length,
    ...(answer.truncated ? { more: true } : {}),
    sample: first === undefined || masked ? "" : sampleOf(answer.columns, first),
  };
}

function sampleOf(columns: readonly string[], row: readonly Value[]): string {
  const cells = row.slice(0, CELLS_SHOWN).map((v, i) => `${columns[i] ?? "?"} ${cellText(v)}`);
  return cells.join(", ");
}

function cellText(v: Value): string {
  if (v === null) return "NULL";
  if (typeof v === "string")
    return JSON.stringify(v.length > LONGEST_CELL ? `${v.slice(0, LONGEST_CELL)}…` : v);
  if (typeof v === "bigint" || typeof v === "number") return String(v);
  return "bytes";
}
