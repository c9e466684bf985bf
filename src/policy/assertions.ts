/**
 * Assertions: questions in SQL about the plan's own ChangeSet that must select no rows. Policy is pure, so
 * the caller runs the queries, read-only and under limits, and hands the answers to `decide`.
 */
import { messageOf } from "../base/errors.js";
import type { PolicyInput } from "./decision.js";
import { guardOf } from "./facts.js";
import { type Check, follow, passes } from "./finding.js";
import type { CompiledPolicies } from "./compile.js";
import { type Assertion, lineOf } from "./schema.js";
import { rowsInWords } from "./words.js";

/** How many rows a query selects, and the first of them in words (masked columns masked). */
export interface AssertionAnswer {
  readonly rows: number;
  /** There are more rows than were counted. */
  readonly more?: boolean;
  readonly sample: string;
}

/** Runs one query against the plan's working ChangeSet. It must be read-only and bounded in time and memory; throwing denies. */
export type AssertionRunner = (sql: string) => AssertionAnswer | Promise<AssertionAnswer>;

/** The answer to one assertion, or why there is none. */
export interface AssertionResult {
  readonly assertion: Assertion;
  readonly answer: AssertionAnswer | { readonly error: string };
}

/** The assertions that apply to this plan: of the enabled policies of its environment, about tables that it changes. */
export function assertionsFor(policies: CompiledPolicies, input: PolicyInput): readonly Assertion[] {
  const guarded = guardOf(input);
  const changed = new Set(input.tables.filter((t) => t.insert + t.update + t.delete > 0n).map((t) => t.name));
  return policies.files
    .filter(({ file }) => file.enabled && file.environments.includes(guarded))
    .flatMap(({ file }) => file.assertions)
    .filter((a) => a.tables.every((t) => changed.has(t)));
}

/** Asks them one after another. Never throws: a query that fails is a result that denies. */
export async function runAssertions(
  assertions: readonly Assertion[],
  run: AssertionRunner,
): Promise<readonly AssertionResult[]> {
  const results: AssertionResult[] = [];
  for (const assertion of assertions) {
    try {
      results.push({ assertion, answer: await run(assertion.sql) });
    } catch (e) {
      results.push({ assertion, answer: { error: messageOf(e) } });
    }
  }
  return results;
}

/** The check of one assertion, given all answers. One that was not asked is an error, and denies. */
export function assertionCheck(assertion: Assertion, results: readonly AssertionResult[]): Check {
  const at = lineOf(assertion.at);
  return {
    rule: assertion.id,
    at,
    run: (facts) => {
      const answer = results.find(
        (r) => r.assertion.id === assertion.id && lineOf(r.assertion.at) === at,
      )?.answer;
      if (answer === undefined) throw new TypeError("its query was not run");
      if ("error" in answer) throw new TypeError(answer.error);
      // An answer that is no count is no answer: only exactly nothing passes.
      const seen = { rule: assertion.id, at, because: assertion.message };
      if (answer.rows === 0) return passes({ ...seen, saw: "its query selects no rows", flips: "" });
      if (!Number.isSafeInteger(answer.rows) || answer.rows < 0)
        throw new TypeError("its query gave no count");
      const counted = `${rowsInWords(BigInt(answer.rows))}${answer.more === true ? " or more" : ""}`;
      const saw = `${counted}${answer.sample === "" ? "" : `, first ${answer.sample}`}`;
      return follow(
        { kind: "deny" },
        { ...seen, saw, flips: "a plan for which the query selects no rows" },
        facts,
      );
    },
  };
}
