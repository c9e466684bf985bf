/** The words between a test of faults and the process that suffers them. */

/** What is done. */
export type Act =
  | { readonly kind: "apply"; readonly plan: string }
  | { readonly kind: "undo"; readonly run: string }
  | { readonly kind: "rescue"; readonly on: string; readonly damage: string }
  | { readonly kind: "take"; readonly on: string; readonly tables: readonly string[] }
  | { readonly kind: "verify"; readonly snapshot: string }
  | { readonly kind: "diff"; readonly snapshot: string }
  | { readonly kind: "drill"; readonly on: string }
  | { readonly kind: "restore"; readonly snapshot: string; readonly to: string }
  | { readonly kind: "prune"; readonly snapshot: string }
  | { readonly kind: "forget"; readonly run: string };

/** What is counted while an act is done. */
export interface Counted {
  readonly steps: number;
  readonly sql: number;
  /** File operations that need room on the disk. */
  readonly files: number;
  /** File operations of any kind. */
  readonly touches: number;
  /** COMMITs that went to a PostgreSQL server. */
  readonly commits: number;
}

/** What goes wrong, and at which of the things that are counted (from 1; 0 for nothing at all). */
export interface Fault {
  readonly kind:
    | "none"
    /** SIGKILL before the n-th step that a run distinguishes. */
    | "kill-step"
    /** SIGKILL before the n-th SQL statement. */
    | "kill-sql"
    /** SIGKILL before the n-th file operation of any kind. */
    | "kill-file"
    /** SIGKILL from outside, `at` milliseconds after the act began: an instant anywhere, inside a commit too. */
    | "kill-time"
    /** The n-th SQL statement fails and does nothing. */
    | "fail-sql"
    /** The n-th SQL statement does its work, and its answer is lost. */
    | "lose-sql"
    /** The n-th file operation that needs room fails as on a full disk. */
    | "disk-full"
    /** The n-th file operation of any kind fails. */
    | "fail-file"
    /** On PostgreSQL: the n-th COMMIT does its work, and its answer is lost together with the line. */
    | "lose-commit"
    /** On PostgreSQL: the server ends all of holdpoint's sessions before the n-th step. */
    | "end-sessions"
    /** On PostgreSQL: the server crashes and recovers before the n-th step. */
    | "crash-server";
  readonly at: number;
  /** The database whose server is meant, where there is one. */
  readonly url?: string;
}

/** A kill before something that is counted. */
export type Instant = Pick<Fault, "at"> & { readonly kind: "kill-step" | "kill-sql" | "kill-file" };

/** How it ended. */
export interface FaultReport {
  readonly counted: Counted;
  /** One for each state that the files of the project were in meanwhile; only of an act that was watched. */
  readonly instants: readonly Instant[];
  readonly tookMs: number;
  readonly ok: boolean;
  readonly code: string | null;
  /** What the process would have ended with. */
  readonly exit: number;
  readonly targetChanged: string;
  readonly message: string;
  /** The second application of the same plan, in the same process. */
  readonly again: string | null;
  /** What the act gave: a run, a plan, a snapshot. */
  readonly result: string | null;
  /** What `status` said of the plan's run before the act, of one without a fault. */
  readonly statusBefore: string | null;
  /** Snapshots that are listed, with what is wrong with them; of an act without a fault. */
  readonly snapshots: readonly { readonly id: string; readonly why: string | null }[];
  readonly ledgerIsWhole: boolean;
}

/** What a process is asked. */
export interface Order {
  readonly act: Act;
  readonly fault: Fault;
  /** Whether the states of the disk are told apart. */
  readonly isWatched: boolean;
}
