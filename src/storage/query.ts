/**
 * Questions in SQL to a working ChangeSet. The question may be anyone's, so it runs in a child process that is
 * ended at a deadline: SQLite offers the driver no way to interrupt an endless query, and a worker thread
 * cannot be ended while it is inside one.
 */
import { type Json, parseCanonical } from "../base/canonical.js";
import { array, boolean, decode, json, object, string, tagged, literal } from "../base/decode.js";
import { HoldpointError, UsageError } from "../base/errors.js";
import type { Value } from "../changeset/value.js";
import { valueFromJson } from "./cells.js";

/** How much a question may cost. */
export interface QueryLimits {
  readonly maxRows: number;
  readonly maxMs: number;
}

/** The answer. A cell that is only a likeness (`NaN`, text that is not UTF-8) shows as the likeness. */
export interface QueryAnswer {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Value[])[];
  /** There were more rows, or more bytes, than asked for. */
  readonly truncated: boolean;
}

/** How a bounded child ended. */
export type BoundedOutcome =
  | { readonly kind: "done"; readonly output: string }
  | { readonly kind: "late" }
  | { readonly kind: "failed"; readonly message: string };

/**
 * Runs one of our own scripts in a child of the same Node, `input` on its stdin, and ends it at the deadline.
 * `machine/` implements it: with an empty environment, so a question reaches no key and no credential.
 */
export type RunBounded = (
  script: URL,
  input: string,
  limits: { readonly maxMs: number; readonly maxOutputBytes: number },
) => Promise<BoundedOutcome>;

/** What the child is asked; `query-child.ts` reads it. */
export interface QueryRequest {
  readonly path: string;
  readonly sql: string;
  readonly maxRows: number;
  readonly maxBytes: number;
}

/** The most bytes of cells that an answer holds. */
export const MAX_ANSWER_BYTES = 16 * 1024 * 1024;

const answerDecoder = tagged("kind", {
  answer: object({
    kind: literal("answer"),
    columns: array(string),
    rows: array(array(json)),
    truncated: boolean,
  }),
  refused: object({ kind: literal("refused"), why: string }),
});

/**
 * Asks a working file one SELECT.
 * @throws UsageError ERR_USAGE when it is not one read-only SELECT, SQLite refuses it, or the time is over.
 */
export async function queryFile(
  path: string,
  sql: string,
  limits: QueryLimits,
  run: RunBounded,
): Promise<QueryAnswer> {
  const request: QueryRequest = { path, sql, maxRows: limits.maxRows, maxBytes: MAX_ANSWER_BYTES };
  // Hexadecimal doubles a blob, JSON quotes text: what the child may print is more than what the cells hold.
  const bounds = { maxMs: limits.maxMs, maxOutputBytes: 8 * MAX_ANSWER_BYTES };
  const outcome = await run(new URL("./query-child.js", import.meta.url), JSON.stringify(request), bounds);
  if (outcome.kind === "late") throw refused("it was stopped", `it took longer than ${limits.maxMs} ms`);
  if (outcome.kind === "failed") throw refused("it could not be answered", outcome.message);
  return readAnswer(outcome.output);
}

function readAnswer(output: string): QueryAnswer {
  const value = parseCanonical(output);
  const decoded = value === undefined ? undefined : decode(answerDecoder, value);
  if (decoded?.ok !== true) throw garbled(decoded?.why ?? "it is not canonical JSON");
  const answer = decoded.value;
  if (answer.kind === "refused") throw refused("it was refused", answer.why);
  return {
    columns: answer.columns,
    rows: answer.rows.map((row) => row.map(cellOf)),
    truncated: answer.truncated,
  };
}

function cellOf(cell: Json): Value {
  const value = valueFromJson(cell);
  if (value === undefined) throw garbled("a cell is no value");
  return value;
}

function refused(what: string, why: string): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `the question in SQL has no answer: ${what}`,
    why,
    next: [
      {
        actor: "anyone",
        text: "ask one SELECT over the changed tables, columns op, key, before_<column>, after_<column>",
      },
    ],
  });
}

function garbled(why: string): HoldpointError {
  return new HoldpointError({
    code: "ERR_INTERNAL",
    message: "the answer to the question in SQL cannot be read",
    why,
  });
}
