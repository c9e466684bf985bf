/** What one rule, cap, window or sign says about one plan, and how all of them together make the requirement. */
import type { Requirement, Slot } from "../approval/requirement.js";
import { messageOf } from "../base/errors.js";
import { formatDuration } from "../base/clock.js";
import type { RuleResult } from "./decision.js";
import type { Facts } from "./facts.js";
import { preparePattern } from "./patterns.js";
import type { ApprovalsAsked, Asked, Consequence } from "./schema.js";
import { peopleInWords } from "./words.js";

/** A result, and what it asks of people when its effect is `require`. */
export interface Finding {
  readonly result: RuleResult;
  readonly asked: Asked | null;
}

/** One thing that is held against a plan. */
export interface Check {
  readonly rule: string;
  readonly at: string;
  /** May throw: {@link runCheck} turns that into a denial. */
  readonly run: (facts: Facts) => Finding;
}

/** Nothing asked; the start for those who ask for one thing. */
export const NOTHING_ASKED: Asked = {
  approvals: [],
  touch: false,
  verified: false,
  reviewedInTool: false,
  approverReason: false,
  reason: false,
  ticket: null,
  expect: false,
  scope: false,
  maxAgeSeconds: null,
  waves: false,
  checks: false,
  snapshot: null,
};

/** What a check found before it is decided what follows. */
export type Seen = Omit<RuleResult, "effect">;

/** Runs a check; whatever it throws becomes effect `error`, which denies. */
export function runCheck(check: Check, facts: Facts): Finding {
  try {
    return check.run(facts);
  } catch (e) {
    return errorFinding(check, messageOf(e).split("\n", 1)[0] ?? "");
  }
}

/** The finding of a check that could not be evaluated. */
export function errorFinding(check: Pick<Check, "rule" | "at">, why: string): Finding {
  const result: RuleResult = {
    rule: check.rule,
    at: check.at,
    effect: "error",
    because: `it could not be evaluated, and what cannot be evaluated is denied`,
    saw: why,
    flips: "a rule that can be evaluated on this plan",
  };
  return { result, asked: null };
}

/** A check that stands aside. */
export function passes(seen: Seen): Finding {
  return { result: { ...seen, effect: "pass", flips: "" }, asked: null };
}

/**
 * What follows from a condition that holds.
 *
 * | then | plan meets what is asked of it | approvals asked | effect |
 * | --- | --- | --- | --- |
 * | allow | – | – | allow |
 * | deny | – | – | deny |
 * | require | no | any | deny, saying what is missing |
 * | require | yes | some | require |
 * | require | yes | none | pass: it allows nothing by itself |
 *
 * @throws Error when a fact that is asked about is not known.
 */
export function follow(consequence: Consequence, seen: Seen, facts: Facts): Finding {
  switch (consequence.kind) {
    case "allow":
      return { result: { ...seen, effect: "allow", flips: "" }, asked: null };
    case "deny":
      return { result: { ...seen, effect: "deny" }, asked: null };
    case "require":
      return require(consequence.asked, seen, facts);
  }
}

function require(asked: Asked, seen: Seen, facts: Facts): Finding {
  const missing = missingOf(asked, facts);
  if (missing.length > 0) {
    const saw = [seen.saw, ...missing.map((m) => m.saw)].filter((s) => s !== "").join("; ");
    const flips = missing.map((m) => m.flips).join(" and ");
    return { result: { ...seen, effect: "deny", saw, flips }, asked: null };
  }
  if (asked.approvals.length === 0) return passes(seen);
  return { result: { ...seen, effect: "require" }, asked };
}

interface Missing {
  readonly saw: string;
  readonly flips: string;
}

function missingOf(asked: Asked, facts: Facts): Missing[] {
  const { input } = facts;
  const missing: Missing[] = [];
  const miss = (saw: string, flips: string): void => void missing.push({ saw, flips });
  if (asked.reason && input.reason.trim() === "") miss("the plan gives no reason", "a plan with --reason");
  if (asked.ticket !== null && !matchesTicket(asked.ticket, input.ticket)) {
    const found =
      input.ticket === "" ? "the plan names no ticket" : `the ticket is ${JSON.stringify(input.ticket)}`;
    miss(found, `a plan with a --ticket that matches ${asked.ticket.pattern}`);
  }
  if (asked.expect && input.kind === "job" && !input.job.declaresExpect)
    miss("the job declares no expect", "a job that declares how many rows it changes");
  if (asked.scope && input.kind === "job" && !input.job.declaresScope)
    miss("the job declares no scope", "a job that declares which tables it touches");
  if (asked.maxAgeSeconds !== null && ageOf(facts) > BigInt(asked.maxAgeSeconds))
    miss(
      `the plan is ${formatDuration(Number(ageOf(facts)))} old`,
      `a plan not older than ${formatDuration(asked.maxAgeSeconds)}`,
    );
  if (asked.waves && !known("waves", input.waves)) miss("the plan has no waves", "a plan applied in waves");
  if (asked.checks && known("checks", input.checks) === 0n)
    miss("no check runs between waves", "a target with checks");
  const kept = asked.snapshot === null ? null : known("the level of its snapshot", input.snapshot);
  if (kept === "rows" || (kept === "tables" && asked.snapshot === "database"))
    miss(`it keeps ${kept} before it writes`, `a plan with --snapshot ${asked.snapshot}`);
  return missing;
}

function matchesTicket(ticket: NonNullable<Asked["ticket"]>, text: string): boolean {
  const prepared = preparePattern(ticket.kind, ticket.pattern);
  if (!prepared.ok) throw new TypeError(`ticket: ${prepared.why}`);
  return text !== "" && prepared.test(text);
}

/** A plan that is being made has no age yet; one that is being applied has, and it must be known. */
function ageOf({ act, input }: Facts): bigint {
  return act === "plan" ? (input.planAgeSeconds ?? 0n) : known("the plan's age", input.planAgeSeconds);
}

/** @throws TypeError for a fact that the caller did not give. */
export function known<T>(what: string, fact: T | undefined): T {
  if (fact === undefined) throw new TypeError(`${what} is not known here`);
  return fact;
}

/**
 * Everything that is asked for, joined by AND.
 *
 * Two requirements for the same groups (in any order) are one: the larger number of people stands. So two
 * rules that each ask for one person are met by one person, and "2 people" covers "1 person" of the same
 * groups. Requirements for different groups stay apart, and one person fills one slot: "1 person" beside
 * "1 person from dba" takes two people.
 */
export function joinRequirements(findings: readonly Finding[]): Requirement {
  const asking = findings.flatMap((f) => (f.asked === null ? [] : [{ rule: f.result.rule, asked: f.asked }]));
  const slots = new Map<string, Slot>();
  for (const { rule, asked } of asking) {
    for (const approvals of asked.approvals) addSlot(slots, rule, approvals);
  }
  return {
    slots: [...slots.values()],
    touch: asking.some((a) => a.asked.touch || a.asked.verified),
    ...(asking.some((a) => a.asked.verified) ? { verified: true as const } : {}),
    reviewedInTool: asking.some((a) => a.asked.reviewedInTool),
    reason: asking.some((a) => a.asked.approverReason),
  };
}

function addSlot(slots: Map<string, Slot>, rule: string, asked: ApprovalsAsked): void {
  const groups = [...new Set(asked.groups)].sort();
  const key = JSON.stringify(groups);
  const there = slots.get(key);
  if (there === undefined || asked.people > there.people)
    slots.set(key, { people: asked.people, groups, rule });
}

/** `1 person from dba and 2 people`, for results. */
export function askedInWords(asked: readonly ApprovalsAsked[]): string {
  return asked.map(peopleInWords).join(" and ");
}
