/** Why a plan was decided as it was: what fired, what stood aside, and from how many rows on it would be otherwise. */
import type { AssertionResult } from "./assertions.js";
import type { CompiledPolicies } from "./compile.js";
import { checksFor, decide, soundFacts } from "./decide.js";
import type { Decision, PolicyInput, PolicyTable, RuleResult } from "./decision.js";
import { type Check, runCheck } from "./finding.js";

/** How many rules a turning point is searched for: enough to act on, and quick with any number of rules. */
const MOST_TURNING_POINTS = 10;

/** A rule that would stand aside if the same plan changed fewer rows. */
export interface TurningPoint {
  readonly rule: string;
  readonly at: string;
  /** The most rows, over all tables and in the same proportion, at which it stands aside. */
  readonly rows: bigint;
  /** Rows of the plan now. */
  readonly now: bigint;
}

/** What `policy explain` shows. */
export interface Explanation {
  readonly decision: Decision;
  /** Rules with effect deny, error, require or allow. */
  readonly fired: readonly RuleResult[];
  readonly passed: readonly RuleResult[];
  readonly turningPoints: readonly TurningPoint[];
  /** The decision if the plan changed `rows` rows; null when not asked. */
  readonly whatIf: { readonly rows: bigint; readonly decision: Decision } | null;
}

/**
 * Explains the decision about a plan. Nothing is decided by it.
 * @param options.whatIfRows decides a second time as if the plan changed so many rows, in the same proportion.
 */
export function explain(
  policies: CompiledPolicies,
  input: PolicyInput,
  options: { readonly whatIfRows?: bigint; readonly assertions?: readonly AssertionResult[] } = {},
): Explanation {
  const assertions = options.assertions ?? [];
  const decision = decide(policies, input, assertions);
  const { whatIfRows } = options;
  return {
    decision,
    fired: decision.rules.filter((r) => r.effect !== "pass"),
    passed: decision.rules.filter((r) => r.effect === "pass"),
    turningPoints: turningPoints(policies, input, assertions, decision),
    whatIf:
      whatIfRows === undefined
        ? null
        : { rows: whatIfRows, decision: decide(policies, withRows(input, whatIfRows), assertions) },
  };
}

function turningPoints(
  policies: CompiledPolicies,
  input: PolicyInput,
  assertions: readonly AssertionResult[],
  decision: Decision,
): TurningPoint[] {
  const stopping = new Set(
    decision.rules
      .filter((r) => r.effect === "deny" || r.effect === "require")
      .map((r) => `${r.at} ${r.rule}`),
  );
  if (stopping.size === 0 || input.rows.total === 0n || decision.rules.some((r) => r.rule === "facts"))
    return [];
  return checksFor(policies, soundFacts(input), assertions)
    .filter((c) => stopping.has(`${c.at} ${c.rule}`))
    .slice(0, MOST_TURNING_POINTS)
    .flatMap((check) => {
      const rows = lastRowsThatPass(check, input);
      return rows === null ? [] : [{ rule: check.rule, at: check.at, rows, now: input.rows.total }];
    });
}

/**
 * Bisection between nothing and the plan as it is. Correct for rules that go on firing once they have begun,
 * which bounds are; the answer is checked at both of its sides, so another kind of rule gives none rather than a wrong one.
 */
function lastRowsThatPass(check: Check, input: PolicyInput): bigint | null {
  const standsAside = (rows: bigint): boolean => {
    const { effect } = runCheck(check, soundFacts(withRows(input, rows))).result;
    return effect === "pass" || effect === "allow";
  };
  let passes = 0n;
  let fires = input.rows.total;
  while (fires - passes > 1n) {
    const middle = (passes + fires) / 2n;
    if (standsAside(middle)) passes = middle;
    else fires = middle;
  }
  return passes > 0n && standsAside(passes) && !standsAside(fires) ? passes : null;
}

/**
 * The same plan with another number of rows: every count in proportion, rounded so that the sum is exactly
 * `rows`. Shares and sizes follow; a column no longer levelled by fewer rows is not.
 */
export function withRows(input: PolicyInput, rows: bigint): PolicyInput {
  const parts = input.tables.flatMap((t) => [t.insert, t.update, t.delete]);
  const scaled = inProportion(parts, rows);
  const tables = input.tables.map((t, i) =>
    scaledTable(t, scaled[i * 3] ?? 0n, scaled[i * 3 + 1] ?? 0n, scaled[i * 3 + 2] ?? 0n),
  );
  const sum = (of: (t: PolicyTable) => bigint): bigint => tables.reduce((total, t) => total + of(t), 0n);
  const [insert, update, deleted] = [sum((t) => t.insert), sum((t) => t.update), sum((t) => t.delete)];
  return {
    ...input,
    tables,
    rows: { total: insert + update + deleted, insert, update, delete: deleted, tables: input.rows.tables },
  };
}

/** Largest remainders: the sum of the result is `sum`, each part within one of its exact share. */
function inProportion(parts: readonly bigint[], sum: bigint): bigint[] {
  const whole = parts.reduce((a, b) => a + b, 0n);
  if (whole === 0n) return [...parts];
  const scaled = parts.map((p) => (p * sum) / whole);
  let missing = sum - scaled.reduce((a, b) => a + b, 0n);
  const byRemainder = parts
    .map((p, i) => ({ i, remainder: (p * sum) % whole }))
    .sort((a, b) => (a.remainder > b.remainder ? -1 : a.remainder < b.remainder ? 1 : a.i - b.i));
  for (const { i } of byRemainder) {
    if (missing === 0n) break;
    scaled[i] = (scaled[i] ?? 0n) + 1n;
    missing--;
  }
  return scaled;
}

function scaledTable(t: PolicyTable, insert: bigint, update: bigint, deleted: bigint): PolicyTable {
  const share = (n: bigint): number => (t.rowsBefore === 0n ? 0 : Number(n) / Number(t.rowsBefore));
  const rowsAfter = t.rowsBefore + insert - deleted;
  return {
    ...t,
    insert,
    update,
    delete: deleted,
    rowsAfter: rowsAfter < 0n ? 0n : rowsAfter,
    deletedShare: share(deleted),
    updatedShare: share(update),
    levelled: update >= t.rowsBefore ? t.levelled : [],
    protectedLost: t.protectedLost < update + deleted ? t.protectedLost : update + deleted,
  };
}
