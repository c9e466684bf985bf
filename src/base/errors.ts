/**
 * The one error shape of holdpoint. Every refusal says what happened, why, whether the target was
 * changed, and what to type next (`docs/json-output.md`). Ordinary outcomes are returned, not thrown.
 */

/** Whether the target was changed when a command ended; `unknown` after a connection lost at commit. */
export type TargetChanged = "no" | "yes" | "partly" | "unknown";

/** Who runs the next command. */
export type Actor = "requester" | "approver" | "dba" | "anyone";

/** One next step: a command that works when pasted, or words where no command helps. */
export interface NextStep {
  readonly actor: Actor;
  readonly argv?: readonly string[];
  readonly text?: string;
}

/**
 * Every error code. Codes are stable for ever, wording is not. `cli/exit-codes.ts` maps each to its
 * exit code and a test checks that none is missing. The groups follow the exit codes of the contract.
 */
export const ERROR_CODES = [
  // 1: fault of ours, or the machine's
  "ERR_INTERNAL",
  "ERR_MACHINE_FAILED",
  "ERR_STORE_FAILED",
  // 2: usage, configuration, malformed input
  "ERR_USAGE",
  "ERR_CONFIG_MISSING",
  "ERR_CONFIG_INVALID",
  "ERR_CONFIG_VARIABLE",
  "ERR_CONFIG_EXISTS",
  "ERR_PEOPLE_INVALID",
  "ERR_POLICY_INVALID",
  "ERR_POLICY_TESTS",
  "ERR_POLICY_LINT",
  "ERR_SETUP_UNSAFE",
  "ERR_TARGET_UNKNOWN",
  "ERR_TARGET_UNSUPPORTED",
  "ERR_TARGET_VALUE",
  "ERR_JOB_UNKNOWN",
  "ERR_JOB_INVALID",
  "ERR_JOB_PARAMETER",
  "ERR_JOB_STATEMENT",
  "ERR_JOB_FAILED",
  "ERR_PLAN_UNKNOWN",
  "ERR_PLAN_AMBIGUOUS",
  "ERR_RUN_UNKNOWN",
  "ERR_RUN_AMBIGUOUS",
  "ERR_UNDO_NOTHING",
  "ERR_WAVES_SPLIT",
  "ERR_RESOLUTIONS_INVALID",
  "ERR_STORE_UNSAFE",
  "ERR_STORE_MISSING",
  "ERR_SNAPSHOT_UNKNOWN",
  // 21: waiting for a person
  "ERR_APPROVAL_NEEDED",
  // 22: needs an answer and there is no terminal
  "ERR_INPUT_NEEDED",
  // 30: policy, trust bundle
  "ERR_POLICY_DENIED",
  "ERR_POLICY_EVALUATION",
  "ERR_SCOPE_EXCEEDED",
  "ERR_EXPECT_MISSED",
  "ERR_APPEND_ONLY",
  "ERR_MARKER_TOUCHED",
  "ERR_TRUST_BUNDLE",
  "ERR_TRUST_QUORUM",
  "ERR_DEBT_OPEN",
  // 31: an approval was given and does not count
  "ERR_APPROVAL_MALFORMED",
  "ERR_APPROVAL_SIGNATURE",
  "ERR_APPROVAL_UNKNOWN_KEY",
  "ERR_APPROVAL_NAMESPACE",
  "ERR_APPROVAL_KEY_EXPIRED",
  "ERR_APPROVAL_PERSON",
  "ERR_APPROVAL_SELF",
  "ERR_APPROVAL_EXPIRED",
  "ERR_APPROVAL_NOT_YET",
  "ERR_APPROVAL_SPENT",
  "ERR_APPROVAL_REJECTED",
  "ERR_APPROVAL_REVOKED",
  "ERR_APPROVAL_OTHER_PLAN",
  "ERR_APPROVAL_OTHER_TARGET",
  "ERR_APPROVAL_ALTERED",
  "ERR_APPROVAL_NO_TOUCH",
  "ERR_APPROVAL_NOT_VERIFIED",
  "ERR_APPROVAL_GROUP",
  "ERR_APPROVAL_NOT_REVIEWED",
  "ERR_APPROVAL_NO_REASON",
  "ERR_APPROVAL_CLOCK",
  "ERR_STATEMENT_STALE",
  "ERR_PLAN_EXPIRED",
  // 32: identity: key, login, role
  "ERR_KEY_MISSING",
  "ERR_KEY_UNKNOWN",
  "ERR_KEY_REFUSED",
  "ERR_TARGET_PRIVILEGE",
  "ERR_CI_TOKEN",
  "ERR_CI_TOKEN_MISSING",
  // 33: environment
  "ERR_ENV_CONTRADICTED",
  "ERR_ENV_NOT_PINNED",
  "ERR_ENV_ASSERTION",
  "ERR_ENV_PINNED_ALREADY",
  "ERR_TARGET_NOT_PLANNED",
  // 34: drift
  "ERR_DRIFT_ROWS",
  "ERR_DRIFT_SCHEMA",
  // 35: integrity
  "ERR_PLAN_ALTERED",
  "ERR_PLAN_UNCHECKED",
  "ERR_PLAN_DIFFERS",
  "ERR_STATEMENT_MALFORMED",
  "ERR_LEDGER_BROKEN",
  "ERR_LEDGER_MISSING",
  "ERR_LEDGER_OTHER",
  "ERR_CHANGESET_ALTERED",
  // 36
  "ERR_SNAPSHOT_UNVERIFIED",
  "ERR_SNAPSHOT_PLACE",
  // 37
  "ERR_UNDO_CONFLICT",
  "ERR_RESCUE_CONFLICT",
  // 38
  "ERR_TARGET_BUSY",
  "ERR_TARGET_HELD",
  "ERR_STORE_BUSY",
  "ERR_REHEARSAL_LIMIT",
  // 39
  "ERR_TARGET_UNREACHABLE",
  // 40
  "ERR_RUN_STOPPED",
  // 41, 42
  "ERR_CHECK_PUT_BACK",
  "ERR_CHECK_FAILED",
  "ERR_EFFECT_DIFFERS",
  // 43
  "ERR_OUTCOME_UNKNOWN",
  // 130, 143
  "ERR_INTERRUPTED",
  "ERR_TERMINATED",
] as const;

/** A stable error code, see {@link ERROR_CODES}. */
export type ErrorCode = (typeof ERROR_CODES)[number];

/** What every error of holdpoint carries. */
export interface ErrorFacts {
  readonly code: ErrorCode;
  /** What happened, with names and numbers; lower-case start unless a name, no full stop. */
  readonly message: string;
  /** Why: both sides of a mismatch, expected and found. */
  readonly why?: string;
  readonly next?: readonly NextStep[];
  /** Absent means `no`: an error thrown before any write. */
  readonly targetChanged?: TargetChanged;
  /** One sentence for the State line where "Nothing was written." is not the whole truth. */
  readonly state?: string;
  /** Structured facts for `--json` (`error.details`), e.g. the rows that drifted. Plain JSON only. */
  readonly details?: unknown;
  readonly cause?: unknown;
}

/** Base of everything holdpoint throws on purpose. `main` alone turns it into text, JSON and an exit code. */
export class HoldpointError extends Error {
  readonly code: ErrorCode;
  readonly why: string | undefined;
  readonly next: readonly NextStep[];
  readonly targetChanged: TargetChanged;
  readonly state: string | undefined;
  readonly details: unknown;

  constructor(facts: ErrorFacts) {
    super(facts.message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = new.target.name;
    this.code = facts.code;
    this.why = facts.why;
    this.next = facts.next ?? [];
    this.targetChanged = facts.targetChanged ?? "no";
    this.state = facts.state;
    this.details = facts.details;
  }
}

/** The request is malformed: flags, files, parameters. Typing it differently helps. */
export class UsageError extends HoldpointError {}
/** The request is well formed and not permitted: policy, trust, approvals, environment. */
export class RefusedError extends HoldpointError {}
/** Bytes are not what was signed or stored, or history is missing. Retrying does not help. */
export class IntegrityError extends HoldpointError {}
/** The target is not as planned, is busy, or cannot be reached. */
export class TargetError extends HoldpointError {}

/** Whether the error says that this machine has no way to a target: a variable that is not set, a server that lets nobody in. */
export function isOutOfReach(e: unknown): boolean {
  return (
    e instanceof HoldpointError && (e.code === "ERR_TARGET_UNREACHABLE" || e.code === "ERR_CONFIG_VARIABLE")
  );
}

/**
 * Whether `e` is an error object of any realm: inside jest an error thrown by a Node built-in is not
 * `instanceof Error`, so product code asks for the shape.
 */
export function isErrorLike(e: unknown): e is Error & { readonly code?: unknown } {
  return typeof e === "object" && e !== null && "message" in e && typeof e.message === "string";
}

/** The words of any thrown thing, for `cause` lines under `--verbose`. */
export function messageOf(e: unknown): string {
  return isErrorLike(e) ? e.message : String(e);
}

/** The `code` of a system or driver error (`ENOENT`, `SQLITE_BUSY`), else undefined. */
export function codeOf(e: unknown): string | undefined {
  return isErrorLike(e) && typeof e.code === "string" ? e.code : undefined;
}

/**
 * Whether the system or a database driver reports that it could not do something (`EIO`, `ENOSPC`, `SQLITE_IOERR`): the
 * machine's failure, not a fault of ours. Node's own codes for wrong calls (`ERR_…`) are none.
 */
export function isMachineError(e: unknown): boolean {
  return !(e instanceof HoldpointError) && /^(E(?!RR_)[A-Z0-9]+|SQLITE_[A-Z_0-9]+)$/.test(codeOf(e) ?? "");
}

/**
 * Takes a working file away, as far as the machine lets: what stays is swept by a later command. Said as a failure, it would hide
 * how the work ended, and whether rows were written by then.
 */
export function asFarAsPossible(remove: () => void): void {
  try {
    remove();
  } catch (e) {
    if (!isMachineError(e) && codeOf(e) !== "ERR_STORE_FAILED") throw e;
  }
}
