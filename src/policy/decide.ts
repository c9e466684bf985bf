/**
 * The decision: every rule, cap, window, sign and assertion is held against the plan, and the strictest
 * word wins. Nothing here can be talked out of an answer: what cannot be evaluated denies.
 */
import { messageOf } from "../base/errors.js";
import { assertionCheck, assertionsFor, type AssertionResult } from "./assertions.js";
import { capCheck } from "./caps.js";
import type { CompiledFile, CompiledPolicies, CompiledRule } from "./compile.js";
import type { Decision, PolicyInput, RuleResult } from "./decision.js";
import { type Facts, factsOf } from "./facts.js";
import {
  type Check,
  errorFinding,
  type Finding,
  follow,
  joinRequirements,
  passes,
  runCheck,
} from "./finding.js";
import { freezeCheck } from "./freeze.js";
import { sawOf } from "./saw.js";
import { lineOf, STOP_SIGNS } from "./schema.js";
import { BUILT_IN, stopSign } from "./stop-signs.js";

/**
 * Decides about one plan.
 *
 * | what the rules say | decision |
 * | --- | --- |
 * | any denies, or cannot be evaluated | deny |
 * | else any requires approvals | needs-approval, by all that is asked for together |
 * | else any allows | allow |
 * | else nothing matched | deny |
 *
 * Only enabled policies whose `environments` hold what the target is guarded as take part; unproven and
 * contradicted are guarded as production, whatever the input says. Results stand in the order deny and
 * error, require, allow, pass.
 *
 * @param assertions the answers to {@link assertionsFor}; one that applies and is missing denies.
 * Law: one rule more that does not allow never makes the decision milder, except that where no rule had spoken
 * a requirement lets through those who meet it.
 */
export function decide(
  policies: CompiledPolicies,
  input: PolicyInput,
  assertions: readonly AssertionResult[] = [],
): Decision {
  try {
    const facts = soundFacts(input);
    const checks = checksFor(policies, facts, assertions);
    return decisionOf(
      checks.map((c) => runCheck(c, facts)),
      facts,
    );
  } catch (e) {
    // Facts that are no facts: nothing can be said about this plan, so nothing is permitted.
    const finding = errorFinding({ rule: "facts", at: BUILT_IN }, messageOf(e));
    return { kind: "deny", requirement: joinRequirements([]), rules: [finding.result] };
  }
}

/** The decision that follows from findings. */
export function decisionOf(findings: readonly Finding[], facts: Facts): Decision {
  const effects = new Set(findings.map((f) => f.result.effect));
  const requirement = joinRequirements(findings);
  const rules = findings.map((f) => f.result).sort((a, b) => RANK[a.effect] - RANK[b.effect]);
  if (effects.has("deny") || effects.has("error")) return { kind: "deny", requirement, rules };
  if (effects.has("require")) return { kind: "needs-approval", requirement, rules };
  if (effects.has("allow")) return { kind: "allow", requirement, rules };
  return { kind: "deny", requirement, rules: [noRule(facts), ...rules] };
}

const RANK: Readonly<Record<RuleResult["effect"], number>> = {
  deny: 0,
  error: 0,
  require: 1,
  allow: 2,
  pass: 3,
};

/** Everything that is held against a plan guarded like this one, in a fixed order. */
export function checksFor(
  policies: CompiledPolicies,
  facts: Facts,
  assertions: readonly AssertionResult[],
): readonly Check[] {
  const files = policies.files.filter(
    ({ file }) => file.enabled && file.environments.includes(facts.guardedAs),
  );
  return [
    ...stopSignsOf(files, facts),
    ...files.flatMap(fileChecks),
    ...assertionsFor(policies, facts.input).map((a) => assertionCheck(a, assertions)),
  ];
}

function fileChecks({ file, rules }: CompiledFile): Check[] {
  return [
    ...(file.agents === "plan-only" ? [agentCheck(lineOf(file.at))] : []),
    ...file.freezes.map(freezeCheck),
    ...file.caps.map(capCheck),
    ...rules.map(ruleCheck),
  ];
}

/** On by default for production; a policy that applies switches one off by name, or on elsewhere. Off wins over on. */
function stopSignsOf(files: readonly CompiledFile[], facts: Facts): Check[] {
  const off = new Set(files.flatMap(({ file }) => file.stopSigns.off.map((s) => s.name)));
  const on = new Set(files.flatMap(({ file }) => file.stopSigns.on));
  return STOP_SIGNS.filter(
    (name) => !off.has(name) && (facts.guardedAs === "production" || on.has(name)),
  ).map(stopSign);
}

/** The check of one rule: its condition, and what follows. */
export function ruleCheck({ rule, condition }: CompiledRule): Check {
  const at = lineOf(rule.at);
  return {
    rule: rule.id,
    at,
    run: (facts) => {
      const holds = condition.holds(facts);
      const seen = {
        rule: rule.id,
        at,
        because: rule.because,
        saw: sawOf(condition.mentions, facts),
        flips: rule.flips ?? `not (${condition.expression.text.replaceAll(/\s+/g, " ")})`,
      };
      return holds ? follow(rule.follows, seen, facts) : passes(seen);
    },
  };
}

function agentCheck(at: string): Check {
  const seen = { rule: "agents", at, because: "agents may plan and may not apply" };
  return {
    rule: "agents",
    at,
    run: (facts) => {
      const saw = `${facts.act} by ${facts.caller === "ci" ? "a pipeline" : facts.caller === "agent" ? "an agent" : "a person"}`;
      if (facts.act !== "apply" || facts.caller !== "agent") return passes({ ...seen, saw, flips: "" });
      return follow({ kind: "deny" }, { ...seen, saw, flips: "a person or a pipeline that applies" }, facts);
    },
  };
}

function noRule(facts: Facts): RuleResult {
  const { environment, contradicted } = facts.input;
  const where =
    environment === facts.guardedAs && !contradicted
      ? environment
      : `${environment}, guarded as ${facts.guardedAs}`;
  return {
    rule: "no-rule",
    at: BUILT_IN,
    effect: "deny",
    because: `no rule allows this in ${where}, and what no rule allows is denied`,
    saw: sawOf(
      { paths: ["kind", "rows.insert", "rows.update", "rows.delete", "schema_changes"], tableFields: [] },
      facts,
    ),
    flips: "a rule that matches this plan",
  };
}

/**
 * Facts that can be reasoned with. Comparing with a NaN is quietly false, and a table whose size is unknown has
 * no shares: both would let a plan past a rule that should have stopped it.
 * @throws TypeError naming what cannot be.
 */
export function soundFacts(input: PolicyInput): Facts {
  if (Number.isNaN(input.now.getTime())) throw new TypeError("the time of the decision is not a time");
  requireCounts("the plan", [
    input.rows.total,
    input.schemaChanges,
    input.sequences,
    ...countsOf(input.rows),
  ]);
  for (const t of input.tables) {
    if (typeof t.rowsBefore === "bigint" && t.rowsBefore < 0n)
      throw new TypeError(`how many rows ${t.name} has is not known`);
    requireCounts(t.name, [
      t.rowsBefore,
      t.rowsAfter,
      t.protectedLost,
      t.cascaded,
      t.triggered,
      ...countsOf(t),
    ]);
    for (const tenant of t.tenants ?? [])
      requireCounts(`${t.name}, a tenant`, [tenant.rowsBefore ?? 0n, ...countsOf(tenant)]);
    if (!isShare(t.deletedShare) || !isShare(t.updatedShare))
      throw new TypeError(`${t.name}: a share is not a number`);
  }
  return factsOf(input);
}

function countsOf(of: Pick<PolicyInput["rows"], "insert" | "update" | "delete">): bigint[] {
  return [of.insert, of.update, of.delete];
}

function requireCounts(whose: string, counts: readonly bigint[]): void {
  const wrong = counts.find((n) => typeof n !== "bigint" || n < 0n);
  if (wrong !== undefined) throw new TypeError(`${whose}: the row counts do not add up (${String(wrong)})`);
}

function isShare(n: number): boolean {
  return Number.isFinite(n) && n >= 0;
}
