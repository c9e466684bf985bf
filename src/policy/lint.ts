/**
 * What is allowed in a policy and is probably not meant. Nothing here decides: `policy lint` shows it.
 * Unknown fields, bad zones and windows without length never come so far; the loader refuses them.
 */
import { ENVIRONMENTS, type Environment } from "../environment/evidence.js";
import { moreDangerous } from "../environment/verdict.js";
import type { CompiledFile, CompiledPolicies, CompiledRule } from "./compile.js";
import { factsOf } from "./facts.js";
import { windowsAround } from "./freeze.js";
import { type ApprovalsAsked, columnOf, type Consequence, type Freeze } from "./schema.js";
import { inputOfTest } from "./test-cases.js";

/** One thing to look at. `error`: a plan that meets it can never be approved, or is never held. */
export interface LintFinding {
  readonly at: string;
  readonly severity: "error" | "warning";
  /** Stable name of the kind of finding. */
  readonly kind:
    | "never-fires"
    | "always-fires"
    | "duplicate"
    | "unreachable"
    | "nothing-allowed"
    | "unknown-group"
    | "empty-group"
    | "too-few-people"
    | "never-closes"
    | "never-opens"
    | "stop-sign-off"
    | "no-tests"
    | "bad-assertion"
    | "no-such-table"
    | "off";
  readonly what: string;
}

/**
 * Looks through the policies.
 * @param groups names and members as the trust bundle has them
 * @param now the moment from which windows are looked at
 */
export function lintPolicies(
  policies: CompiledPolicies,
  groups: Readonly<Record<string, readonly string[]>>,
  now: Date,
): readonly LintFinding[] {
  const on = policies.files.filter(({ file }) => file.enabled);
  return [
    ...policies.files.flatMap((f) => fileFindings(f, groups, now)),
    ...ENVIRONMENTS.flatMap((environment) => environmentFindings(environment, on)),
  ];
}

function fileFindings(
  { file, rules }: CompiledFile,
  groups: Readonly<Record<string, readonly string[]>>,
  now: Date,
): LintFinding[] {
  const found: LintFinding[] = [];
  const at = columnOf(file.at);
  if (!file.enabled)
    found.push({ at, severity: "warning", kind: "off", what: `${file.name} is off and decides nothing` });
  if (file.tests.length === 0)
    found.push({ at, severity: "warning", kind: "no-tests", what: `${file.name} has no tests` });
  for (const off of file.stopSigns.off)
    found.push({
      at: columnOf(off.at),
      severity: "warning",
      kind: "stop-sign-off",
      what: `the stop sign ${off.name} is off: ${off.because}`,
    });
  return [
    ...found,
    ...constantFindings(rules),
    ...closedFindings(file.environments, rules),
    ...duplicateFindings(rules),
    ...unreachableFindings(rules),
    ...approvalsOf(file).flatMap((a) => groupFindings(a, groups)),
    ...file.freezes.flatMap((f) => freezeFindings(f, now)),
  ];
}

/** A condition that names nothing is the same for every plan: ask it about any. */
function constantFindings(rules: readonly CompiledRule[]): LintFinding[] {
  return rules.flatMap(({ rule, condition }): LintFinding[] => {
    const { paths, tableFields } = condition.mentions;
    if (paths.length > 0 || tableFields.length > 0 || /\btables\b/.test(rule.when.text)) return [];
    const at = columnOf(rule.when.at);
    const holds = alwaysHolds(condition);
    if (holds === null)
      return [
        {
          at,
          severity: "error",
          kind: "always-fires",
          what: `${rule.id} can never be evaluated, so it denies every plan`,
        },
      ];
    if (!holds)
      return [
        {
          at,
          severity: "warning",
          kind: "never-fires",
          what: `${rule.id} never fires: its condition is false for every plan`,
        },
      ];
    if (rule.follows.kind !== "deny") return [];
    return [{ at, severity: "warning", kind: "always-fires", what: `${rule.id} denies every plan` }];
  });
}

/** What a condition can name that has few values, with all of them: the others of a plan do not matter to it. */
const CLOSED: Readonly<Record<string, readonly unknown[]>> = {
  contradicted: [false, true],
  kind: ["job", "undo", "rescue"],
  act: ["plan", "apply"],
  caller: ["person", "ci", "agent"],
  mode: ["rows", "script"],
};

/** A condition over few values is asked about every plan that can meet it where the file applies. */
function closedFindings(environments: readonly Environment[], rules: readonly CompiledRule[]): LintFinding[] {
  return rules.flatMap(({ rule, condition }): LintFinding[] => {
    const { paths } = condition.mentions;
    const place = ["environment", "guarded_as"];
    const isClosed = paths.every((p) => Object.hasOwn(CLOSED, p) || place.includes(p));
    if (paths.length === 0 || !isClosed || /\b(?:tables|evidence)\b/.test(rule.when.text)) return [];
    const facts = factsOf(inputOfTest(ANY_PLAN));
    const fires = placesOf(environments).some((where) =>
      combinations(paths.filter((p) => Object.hasOwn(CLOSED, p))).some((chosen) => {
        try {
          return condition.holds({ ...facts, values: { ...facts.values, ...where, ...chosen } });
        } catch {
          return true; // not to be evaluated is to deny: heard loudly enough
        }
      }),
    );
    if (fires) return [];
    const what = `${rule.id} never fires where this policy applies (${environments.join(", ")})`;
    return [{ at: columnOf(rule.when.at), severity: "warning", kind: "never-fires", what }];
  });
}

/** The verdicts whose plans a file for these environments decides. */
function placesOf(environments: readonly Environment[]): readonly Readonly<Record<string, string>>[] {
  const named = ENVIRONMENTS.flatMap((environment) =>
    environments
      .filter((e) => moreDangerous(e, environment) === e)
      .map((guarded_as) => ({ environment, guarded_as })),
  );
  const isProduction = environments.includes("production");
  return isProduction ? [...named, { environment: "unproven", guarded_as: "production" }] : named;
}

function combinations(names: readonly string[]): readonly Readonly<Record<string, unknown>>[] {
  return names.reduce<readonly Readonly<Record<string, unknown>>[]>(
    (all, name) =>
      all.flatMap((chosen) => (CLOSED[name] ?? []).map((value) => ({ ...chosen, [name]: value }))),
    [{}],
  );
}

function alwaysHolds(condition: CompiledRule["condition"]): boolean | null {
  try {
    return condition.holds(factsOf(inputOfTest(ANY_PLAN)));
  } catch {
    return null;
  }
}

const ANY_PLAN: Parameters<typeof inputOfTest>[0] = {
  environment: "production",
  contradicted: false,
  kind: "job",
  act: "apply",
  target: "any",
  job: "any",
  declaresScope: true,
  declaresExpect: true,
  selective: true,
  scope: null,
  requester: { person: "any", groups: [], kind: "person" },
  tables: [],
  schemaChanges: 0n,
  sequences: 0n,
  reason: "",
  ticket: "",
  now: new Date(0),
  planAgeSeconds: 0n,
  waves: false,
  checks: 0n,
  snapshot: "rows",
  history: { jobRuns: 0n, requesterRuns: 0n, rowsLastDay: 0n },
  evidence: [],
  assertions: {},
};

function duplicateFindings(rules: readonly CompiledRule[]): LintFinding[] {
  const first = new Map<string, string>();
  return rules.flatMap(({ rule }): LintFinding[] => {
    const key = `${rule.when.text.replaceAll(/\s+/g, " ").trim()} ${rule.follows.kind}`;
    const other = first.get(key);
    if (other === undefined) first.set(key, rule.id);
    if (other === undefined || rule.follows.kind === "require") return [];
    return [
      {
        at: columnOf(rule.at),
        severity: "warning",
        kind: "duplicate",
        what: `${rule.id} says the same as ${other}`,
      },
    ];
  });
}

/** An allow beside a deny on the very same condition never comes to speak. */
function unreachableFindings(rules: readonly CompiledRule[]): LintFinding[] {
  const normal = (r: CompiledRule): string => r.rule.when.text.replaceAll(/\s+/g, " ").trim();
  const denied = new Map(
    rules.filter((r) => r.rule.follows.kind === "deny").map((r) => [normal(r), r.rule.id]),
  );
  const alwaysDenied = denied.get("true");
  return rules.flatMap((r): LintFinding[] => {
    if (r.rule.follows.kind === "deny") return [];
    const by = alwaysDenied ?? denied.get(normal(r));
    if (by === undefined) return [];
    return [
      {
        at: columnOf(r.rule.at),
        severity: "warning",
        kind: "unreachable",
        what: `${r.rule.id} is never heard: ${by} denies wherever it fires`,
      },
    ];
  });
}

function environmentFindings(environment: Environment, on: readonly CompiledFile[]): LintFinding[] {
  const files = on.filter(({ file }) => file.environments.includes(environment));
  const opens = files.some(({ file, rules }) => {
    const consequences = [...rules.map((r) => r.rule.follows), ...file.caps.map((c) => c.follows)];
    return consequences.some(
      (t) => t.kind === "allow" || (t.kind === "require" && t.asked.approvals.length > 0),
    );
  });
  if (opens) return [];
  const at = files[0] === undefined ? "policies" : columnOf(files[0].file.at);
  return [
    { at, severity: "warning", kind: "nothing-allowed", what: `no rule allows anything in ${environment}` },
  ];
}

interface AskedAt {
  readonly at: string;
  readonly by: string;
  readonly asked: ApprovalsAsked;
}

function approvalsOf(file: CompiledFile["file"]): AskedAt[] {
  const ofConsequence = (c: Consequence): readonly ApprovalsAsked[] =>
    c.kind === "require" ? c.asked.approvals : [];
  return [
    ...file.rules.map((r) => ({ of: r, approvals: ofConsequence(r.follows) })),
    ...file.caps.map((c) => ({ of: c, approvals: ofConsequence(c.follows) })),
    ...file.freezes.map((f) => ({ of: f, approvals: f.approvals })),
  ].flatMap(({ of, approvals }) => approvals.map((asked) => ({ at: columnOf(of.at), by: of.id, asked })));
}

function groupFindings(
  { at, by, asked }: AskedAt,
  groups: Readonly<Record<string, readonly string[]>>,
): LintFinding[] {
  if (asked.groups.length === 0) return [];
  const found: LintFinding[] = [];
  const people = new Set<string>();
  for (const group of asked.groups) {
    const members = Object.hasOwn(groups, group) ? groups[group] : undefined;
    if (members === undefined)
      found.push({
        at,
        severity: "error",
        kind: "unknown-group",
        what: `${by} asks for ${group}, which is no group`,
      });
    else if (members.length === 0)
      found.push({
        at,
        severity: "error",
        kind: "empty-group",
        what: `${by} asks for ${group}, which has nobody`,
      });
    members?.forEach((m) => people.add(m));
  }
  if (people.size < asked.people && found.length === 0)
    found.push({
      at,
      severity: "error",
      kind: "too-few-people",
      what: `${by} asks for ${asked.people} of ${asked.groups.join(" or ")}, who are ${people.size}`,
    });
  return found;
}

function freezeFindings(freeze: Freeze, now: Date): LintFinding[] {
  const windows = windowsAround(freeze, now);
  const at = columnOf(freeze.at);
  if (windows.every((w) => w.to <= now))
    return [
      { at, severity: "warning", kind: "never-closes", what: `${freeze.id} ended and never closes again` },
    ];
  const joined = windows.length > 1 && windows.slice(1).every((w, i) => w.from <= (windows[i]?.to ?? w.to));
  if (freeze.recurring !== "once" && joined)
    return [
      {
        at,
        severity: "error",
        kind: "never-opens",
        what: `${freeze.id} never opens: each window ends when the next begins`,
      },
    ];
  return [];
}
