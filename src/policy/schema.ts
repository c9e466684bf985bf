/**
 * A policy file as types: what `config/policies.ts` makes of the YAML and everything in this folder works
 * on. Format page: `docs/formats/policy.md`. Every part carries its place, because a denial names its line.
 */
import type { Environment, VerdictName } from "../environment/evidence.js";
import type { Decision, PolicyEvidence, PolicyHistory, PolicyTenant } from "./decision.js";

/** Where something stands in a file; line and column count from 1. */
export interface Position {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** A CEL expression as written. */
export interface Expression {
  readonly text: string;
  readonly at: Position;
  /** Whether `text` stands in the file exactly so, starting at `at`: then columns inside it are exact. */
  readonly verbatim: boolean;
}

/** A pattern over one text: `glob` (`*` any run, `?` one character) or an RE2 regular expression. */
export interface TextPattern {
  readonly kind: "glob" | "re2";
  readonly pattern: string;
  readonly at: Position;
}

/** "n people, each in at least one of these groups"; an empty list means anyone whom the bundle knows. */
export interface ApprovalsAsked {
  readonly people: number;
  readonly groups: readonly string[];
}

/**
 * What a rule asks for. All of it is joined by AND.
 * - about approvals: who, touch, reviewed in the tool, the approver's reason;
 * - about the plan, met or not when the rule is evaluated: reason, ticket, declared expectation and scope,
 *   age, waves, checks, what is kept before. One that is not met denies; one that is met stands aside and allows nothing by itself.
 */
export interface Asked {
  readonly approvals: readonly ApprovalsAsked[];
  readonly touch: boolean;
  readonly verified: boolean;
  readonly reviewedInTool: boolean;
  readonly approverReason: boolean;
  readonly reason: boolean;
  readonly ticket: TextPattern | null;
  readonly expect: boolean;
  readonly scope: boolean;
  readonly maxAgeSeconds: number | null;
  readonly waves: boolean;
  readonly checks: boolean;
  /** What the run keeps before it writes, at least; null where the plan's rows are enough. */
  readonly snapshot: "tables" | "database" | null;
}

/** What follows when a rule's condition holds: `then` in the file. */
export type Consequence =
  | { readonly kind: "allow" }
  | { readonly kind: "deny" }
  | { readonly kind: "require"; readonly asked: Asked };

/** One rule. */
export interface PolicyRule {
  readonly id: string;
  readonly at: Position;
  readonly when: Expression;
  readonly follows: Consequence;
  /** Why the rule exists, one sentence: shown wherever it fires. */
  readonly because: string;
  /** What would flip it, in the author's words; null when the condition says enough. */
  readonly flips: string | null;
}

/** Operations that a cap counts. */
export type CappedOp = "insert" | "update" | "delete" | "any";

/** Bounds on what is changed of one tenant in one table; `op` counts as in the cap. */
export interface TenantBounds {
  readonly rows: bigint | null;
  readonly shareMillionths: bigint | null;
  readonly remaining: bigint | null;
}

/** An upper bound (rows, share, rows per day) or a floor (rows that remain). Broken, it does what `follows` says. */
export interface Cap {
  readonly id: string;
  readonly at: Position;
  /** The plan as a whole, or each table whose name one of the globs matches. */
  readonly on: { readonly kind: "plan" } | { readonly kind: "tables"; readonly globs: readonly string[] };
  readonly op: CappedOp;
  /** At most so many rows; null for no bound. */
  readonly rows: bigint | null;
  /** At most this share of the table's rows before, in millionths (25 % is 250000), so that comparing is exact. Inserts have no share. */
  readonly shareMillionths: bigint | null;
  /** At least so many rows stay in a table that loses some. */
  readonly remaining: bigint | null;
  /** At most so many rows in 24 hours by this requester on this target, this plan included. */
  readonly rowsPerDay: bigint | null;
  /** At most so many different tenants: over all tables, or in each. */
  readonly tenants: bigint | null;
  /** The bounds of `rows`, `share` and `remaining` for the rows of each tenant in each table. */
  readonly perTenant: TenantBounds | null;
  readonly follows: Exclude<Consequence, { readonly kind: "allow" }>;
  readonly because: string;
}

/**
 * A window in which nothing may be applied, from `from` up to but not including `to`, in the zone's own
 * clock. `once` has years; `yearly` begins every year on the same date; `weekly` on the same day of the
 * week; `daily` every day. The end is the first one after each beginning.
 */
export interface Freeze {
  readonly id: string;
  readonly at: Position;
  readonly recurring: "once" | "yearly" | "weekly" | "daily";
  readonly from: LocalMoment;
  readonly to: LocalMoment;
  /** IANA name, `Europe/Paris`. */
  readonly zone: string;
  /** Who can let a plan through all the same; empty: nobody. */
  readonly approvals: readonly ApprovalsAsked[];
  readonly because: string;
}

/** A moment on a wall clock. Fields that the recurrence does not need are null. */
export interface LocalMoment {
  readonly year: number | null;
  readonly month: number | null;
  readonly day: number | null;
  /** 1 is Monday, 7 is Sunday. */
  readonly weekday: number | null;
  readonly hour: number;
  readonly minute: number;
  /** As written. */
  readonly text: string;
}

/** A query over the plan's own ChangeSet that must select no rows. */
export interface Assertion {
  readonly id: string;
  readonly at: Position;
  /** Asked only when the plan changes every one of these tables: the others do not exist in its file. */
  readonly tables: readonly string[];
  readonly sql: string;
  /** Said when rows are selected. */
  readonly message: string;
}

/** Names of the built-in stop signs; what they say stands in `stop-signs.ts`. */
export const STOP_SIGNS = [
  "table-emptied",
  "over-half",
  "over-half-updated",
  "no-where",
  "column-levelled",
  "protected-lost",
  "outside-scope",
] as const;
/** The name of a built-in stop sign. */
export type StopSignName = (typeof STOP_SIGNS)[number];

/** A stop sign switched off, and why. */
export interface SwitchedOff {
  readonly name: StopSignName;
  readonly because: string;
  readonly at: Position;
}

/** A table of a test's plan. What is left out is 0, empty, or computed from the rest. */
export interface TestTable {
  readonly name: string;
  readonly insert: bigint;
  readonly update: bigint;
  readonly delete: bigint;
  readonly rowsBefore: bigint;
  readonly columns: readonly string[];
  readonly levelled: readonly string[];
  readonly protectedLost: bigint;
  readonly cascaded: bigint;
  readonly triggered: bigint;
  readonly firstTouch: boolean;
  readonly tenants: readonly PolicyTenant[];
}

/** The plan of a test, as a summary. Absent fields take the usual value of a harmless, known, reviewed job. */
export interface TestPlan {
  readonly environment: VerdictName;
  readonly contradicted: boolean;
  readonly kind: "job" | "undo" | "rescue";
  readonly act: "plan" | "apply";
  readonly target: string;
  readonly job: string;
  readonly declaresScope: boolean;
  readonly declaresExpect: boolean;
  readonly selective: boolean;
  readonly scope: readonly string[] | null;
  readonly requester: {
    readonly person: string;
    readonly groups: readonly string[];
    readonly kind: "person" | "ci" | "agent";
  };
  readonly tables: readonly TestTable[];
  readonly schemaChanges: bigint;
  readonly sequences: bigint;
  readonly reason: string;
  readonly ticket: string;
  readonly now: Date;
  readonly planAgeSeconds: bigint;
  readonly waves: boolean;
  readonly checks: bigint;
  readonly snapshot: "rows" | "tables" | "database";
  readonly history: PolicyHistory;
  readonly evidence: readonly PolicyEvidence[];
  /** Rows that an assertion's query would select, by its id; one that is not named selects none. */
  readonly assertions: Readonly<Record<string, number>>;
}

/** One test of a policy: a plan, and what must be decided about it. */
export interface PolicyTest {
  readonly name: string;
  readonly at: Position;
  readonly plan: TestPlan;
  readonly expect: {
    readonly decision: Decision["kind"];
    /** Exactly the rules that fire, in any order; null when the test does not say. */
    readonly rules: readonly string[] | null;
    /** How many approvals are needed in all; null when the test does not say. */
    readonly people: number | null;
  };
}

/** One policy file, read and checked as far as its words go; conditions are checked by `compile.ts`. */
export interface PolicyFile {
  readonly format: "holdpoint-policy/1";
  readonly file: string;
  readonly at: Position;
  readonly name: string;
  /** A policy that is off decides nothing; its tests still run. */
  readonly enabled: boolean;
  /** Where it applies, by what the target is guarded as. */
  readonly environments: readonly Environment[];
  /** `plan-only`: an agent may make plans and may not run apply. Null: not said. */
  readonly agents: "plan-only" | "apply" | null;
  /** Columns, `table.column`, whose values are never shown, on whatever target: beside those that the configuration masks. */
  readonly mask: readonly string[];
  readonly rules: readonly PolicyRule[];
  readonly caps: readonly Cap[];
  readonly freezes: readonly Freeze[];
  readonly stopSigns: { readonly off: readonly SwitchedOff[]; readonly on: readonly StopSignName[] };
  readonly assertions: readonly Assertion[];
  readonly tests: readonly PolicyTest[];
}

/** `policies/production.yaml:41`, as results name it. */
export function lineOf(at: Position): string {
  return `${at.file}:${at.line}`;
}

/** `policies/production.yaml:41:11`, as errors name it. */
export function columnOf(at: Position): string {
  return `${at.file}:${at.line}:${at.column}`;
}
