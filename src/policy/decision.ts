/** What policy sees and what it says. */
import type { Requirement } from "../approval/requirement.js";
import type { Environment, Evidence, VerdictName } from "../environment/evidence.js";

/**
 * The plan as rules see it. Built anew at plan and at apply from rows, target and pinned bundle; a rule
 * never sees what a plan merely claims. Whole numbers are `bigint` because CEL's `int` is.
 */
export interface PolicyInput {
  readonly environment: VerdictName;
  readonly guardedAs: Environment;
  readonly contradicted: boolean;
  readonly target: { readonly name: string; readonly adapter: string; readonly pinned: boolean };
  readonly kind: "job" | "undo" | "rescue";
  readonly job: {
    readonly name: string;
    readonly kind: string;
    readonly source: string;
    readonly declaresScope: boolean;
    readonly declaresExpect: boolean;
    /** False when some DELETE or UPDATE of an SQL job has no WHERE; true when that is not known. */
    readonly selective: boolean;
    /** The declared tables; null when none were declared. Absent: whoever decides holds the scope before policy is asked. */
    readonly scope?: readonly string[] | null;
    /** The commit that the job's file stands in, and whether the file is as committed. */
    readonly commit?: string;
    readonly clean?: boolean;
  };
  readonly requester: {
    readonly person: string;
    readonly known: boolean;
    readonly groups: readonly string[];
    readonly kind: "person" | "ci" | "agent";
  };
  readonly rows: {
    readonly total: bigint;
    readonly insert: bigint;
    readonly update: bigint;
    readonly delete: bigint;
    readonly tables: bigint;
    /** Different tenants over all tables, by value. Absent where there are too many to count, or a column is missing. */
    readonly tenants?: bigint;
  };
  readonly tables: readonly PolicyTable[];
  readonly schemaChanges: bigint;
  /** Sequences that the job moves. */
  readonly sequences: bigint;
  readonly reason: string;
  readonly ticket: string;
  readonly mode: "rows" | "script";
  readonly now: Date;
  // Facts that not every caller has. A rule that reads one which is absent is an error, and an error denies.
  /** What is being decided; absent is judged as `apply`, the stricter. */
  readonly act?: "plan" | "apply";
  /** Who runs the command now; absent is judged as the requester's kind. */
  readonly caller?: "person" | "ci" | "agent";
  readonly planAgeSeconds?: bigint;
  /** Whether rows are written in waves, and how many checks run between them. */
  readonly waves?: boolean;
  readonly checks?: bigint;
  /** What is kept before the first write. */
  readonly snapshot?: "rows" | "tables" | "database";
  readonly history?: PolicyHistory;
  /** What the target says about where we are, as the verdict read it. */
  readonly evidence?: readonly PolicyEvidence[];
}

/** What the ledger tells about a target. */
export interface PolicyHistory {
  /** Completed runs of this job. */
  readonly jobRuns: bigint;
  /** Completed runs by this requester. */
  readonly requesterRuns: bigint;
  /** Rows that this requester changed in the last 24 hours. */
  readonly rowsLastDay: bigint;
}

/** One signal of the target. What this machine says never decides, so rules do not see it. */
export type PolicyEvidence = Pick<Evidence, "source" | "says" | "strength" | "state" | "detail">;

/** What a plan changes of one tenant in one table. */
export interface PolicyTenant {
  /** The value of the tenant's column as text; its place in the order where the column is masked. */
  readonly name: string;
  readonly insert: bigint;
  readonly update: bigint;
  readonly delete: bigint;
  /** Rows of that tenant in the table before; absent where nobody asked the target. */
  readonly rowsBefore?: bigint;
}

/** One table's share, as rules see it. */
export interface PolicyTable {
  readonly name: string;
  readonly insert: bigint;
  readonly update: bigint;
  readonly delete: bigint;
  readonly rowsBefore: bigint;
  readonly rowsAfter: bigint;
  /** Share of the rows before that is deleted or updated, 0 to 1; 0 for a table that was empty. */
  readonly deletedShare: number;
  readonly updatedShare: number;
  /** Columns that change in some row, by name. */
  readonly columns: readonly string[];
  /** Columns that end with one and the same value in every row of the table, updates covering the whole table. */
  readonly levelled: readonly string[];
  /** Rows that hold a protected value before and not afterwards. */
  readonly protectedLost: bigint;
  readonly origin: string;
  /** Rows known to come from a cascade, and from a trigger: at least so many. */
  readonly cascaded: bigint;
  readonly triggered: bigint;
  /** Most rows first; empty where the configuration names no tenant's column of the table. Absent where they cannot be told. */
  readonly tenants?: readonly PolicyTenant[];
  /** No completed run is known to have changed this table here. Absent where nobody looked. */
  readonly firstTouch?: boolean;
}

/** One rule that fired, or stood aside. */
export interface RuleResult {
  readonly rule: string;
  /** `policies/production.yaml:41`. */
  readonly at: string;
  readonly effect: "allow" | "require" | "deny" | "pass" | "error";
  readonly because: string;
  /** What the rule looked at, in words, and what would flip it, for deny and require. */
  readonly saw: string;
  readonly flips: string;
}

/** The decision: deny beats needs-approval beats allow; no rule that matches means deny. */
export interface Decision {
  readonly kind: "allow" | "needs-approval" | "deny";
  readonly requirement: Requirement;
  readonly rules: readonly RuleResult[];
}
