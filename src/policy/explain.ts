/** Why a plan was decided as it was: what fired, what stood aside, and from how many rows on it would be otherwise. */
import type { AssertionResult } from "./assertions.js";
import type { CompiledPolicies } from "./compile.js";
import { checksFor, decide, soundFacts } from "./decide.js";
import type { Decision, PolicyInput, PolicyTable, PolicyTenant, RuleResult } from "./decision.js";
import type { Facts } from "./facts.js";
import { type Check, runCheck } from "./finding.js";

/** How many rules a turning point is searched for: enough to act on, and quick with any number of rules. */
const MOST_TURNING_POINTS = 10;
/** Tables gone through for turning points, over all rules. */
const MOST_TABLES_SEARCHED = 20_000;
/** Plans with other numbers of rows that are kept while turning points are searched for. */
const MOST_KEPT = 8;

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
  const factsWith = factsByRows(input);
  return checksFor(policies, soundFacts(input), assertions)
    .filter((c) => stopping.has(`${c.at} ${c.rule}`))
    .slice(0, rulesToSearch(input.tables.length))
    .flatMap((check) => {
      const rows = lastRowsThatPass(check, input.rows.total, factsWith);
      return rows === null ? [] : [{ rule: check.rule, at: check.at, rows, now: input.rows.total }];
    });
}

/** At least one, and as many as {@link MOST_TURNING_POINTS}: each costs some twenty decisions over all tables. */
function rulesToSearch(tables: number): number {
  return Math.max(1, Math.min(MOST_TURNING_POINTS, Math.floor(MOST_TABLES_SEARCHED / Math.max(1, tables))));
}

/** The plan with other numbers of rows, each made once: every bisection begins in the same middle. */
function factsByRows(input: PolicyInput): (rows: bigint) => Facts {
  const made = new Map<bigint, Facts>();
  return (rows) => {
    const facts = made.get(rows) ?? soundFacts(withRows(input, rows));
    if (made.size < MOST_KEPT) made.set(rows, facts);
    return facts;
  };
}

/**
 * Bisection between nothing and the plan as it is. Correct for rules that go on firing once they have begun,
 * which bounds are; the answer is checked at both of its sides, so another kind of rule gives none rather than a wrong one.
 */
function lastRowsThatPass(check: Check, now: bigint, factsWith: (rows: bigint) => Facts): bigint | null {
  const standsAside = (rows: bigint): boolean => {
    const { effect } = runCheck(check, factsWith(rows)).result;
    return effect === "pass" || effect === "allow";
  };
  let passes = 0n;
  let fires = now;
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
    rows: { ...input.rows, total: insert + update + deleted, insert, update, delete: deleted },
  };
}

/** What is lost by rounding goes to the next part: the sum of the result is `sum`, each part within one of its exact share. */
function inProportion(parts: readonly bigint[], sum: bigint): bigint[] {
  const whole = parts.reduce((a, b) => a + b, 0n);
  if (whole === 0n) return [...parts];
  let [before, given] = [0n, 0n];
  return parts.map((part) => {
    before += part;
    const upToHere = (before * sum) / whole;
    const scaled = upToHere - given;
    given = upToHere;
    return scaled;
  });
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
    protectedLost: atMost(t.protectedLost, update + deleted),
    cascaded: atMost(t.cascaded, insert + update + deleted),
    triggered: atMost(t.triggered, insert + update + deleted),
    ...(t.tenants === undefined ? {} : { tenants: scaledTenants(t, { insert, update, delete: deleted }) }),
  };
}

/** Each tenant keeps its part of each operation; the sums are those of the table. */
function scaledTenants(
  { tenants = [] }: PolicyTable,
  to: Readonly<Record<"insert" | "update" | "delete", bigint>>,
): readonly PolicyTenant[] {
  const part = (op: "insert" | "update" | "delete"): readonly bigint[] =>
    inProportion(
      tenants.map((x) => x[op]),
      to[op],
    );
  const [inserts, updates, deletes] = [part("insert"), part("update"), part("delete")];
  return tenants.map((x, i) => ({
    ...x,
    insert: inserts[i] ?? 0n,
    update: updates[i] ?? 0n,
    delete: deletes[i] ?? 0n,
  }));
}

function atMost(n: bigint, most: bigint): bigint {
  return n < most ? n : most;
}
