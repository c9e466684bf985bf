/**
 * The only map from error codes to exit codes. The decade says whether data was touched: below 40 nothing was
 * written, from 40 to 43 something was or may have been (41: it was put back).
 */
import type { ErrorCode, HoldpointError } from "../base/errors.js";

/** Every exit code with its name in JSON and its meaning, in the order in which help shows them. */
export const EXIT_TABLE = [
  { code: 0, name: "ok", meaning: "done as asked" },
  { code: 1, name: "internal", meaning: "internal fault before any write" },
  { code: 2, name: "usage", meaning: "usage or configuration" },
  { code: 20, name: "changes", meaning: "`plan --detailed-exitcode`: there are changes" },
  { code: 21, name: "waiting", meaning: "waiting for a person: no approval, or not enough" },
  { code: 22, name: "input", meaning: "needs an answer and there is no terminal" },
  { code: 30, name: "policy", meaning: "policy says no, or the trust bundle is not the pinned one" },
  {
    code: 31,
    name: "approval",
    meaning:
      "an approval was given and does not count: expired, spent, self-signed, rejected, for another plan",
  },
  { code: 32, name: "identity", meaning: "identity: key, login or role" },
  { code: 33, name: "environment", meaning: "environment contradicted, or not the plan's target" },
  { code: 34, name: "drift", meaning: "drift: rows, schema or triggers are not as planned" },
  { code: 35, name: "integrity", meaning: "integrity: bytes are not what was signed, or history is missing" },
  { code: 36, name: "snapshot", meaning: "snapshot could not be verified" },
  { code: 37, name: "conflict", meaning: "conflicts need decisions" },
  { code: 38, name: "busy", meaning: "another run, or a hold, has the target" },
  { code: 39, name: "unreachable", meaning: "target unreachable before any write" },
  { code: 40, name: "stopped", meaning: "stopped part way; resume or undo" },
  { code: 41, name: "check-put-back", meaning: "check failed and put back" },
  { code: 42, name: "check-failed", meaning: "check failed and not put back" },
  { code: 43, name: "unknown", meaning: "outcome unknown (connection lost at commit)" },
  { code: 130, name: "interrupted", meaning: "interrupted before any write" },
  { code: 143, name: "terminated", meaning: "terminated before any write" },
] as const;

/** A process exit code of holdpoint. */
export type ExitCode = (typeof EXIT_TABLE)[number]["code"];

/** Its name, `exit.name` in JSON. */
export type ExitName = (typeof EXIT_TABLE)[number]["name"];

/** Total over the error codes by type: a new error code does not compile before it has an exit code. */
const EXIT_OF: Readonly<Record<ErrorCode, ExitCode>> = {
  ERR_INTERNAL: 1,
  ERR_MACHINE_FAILED: 1,
  ERR_STORE_FAILED: 1,
  ERR_USAGE: 2,
  ERR_CONFIG_MISSING: 2,
  ERR_CONFIG_INVALID: 2,
  ERR_CONFIG_VARIABLE: 2,
  ERR_CONFIG_EXISTS: 2,
  ERR_PEOPLE_INVALID: 2,
  ERR_POLICY_INVALID: 2,
  ERR_POLICY_TESTS: 2,
  ERR_POLICY_LINT: 2,
  ERR_SETUP_UNSAFE: 2,
  ERR_TARGET_UNKNOWN: 2,
  ERR_TARGET_UNSUPPORTED: 2,
  ERR_TARGET_VALUE: 2,
  ERR_JOB_UNKNOWN: 2,
  ERR_JOB_INVALID: 2,
  ERR_JOB_PARAMETER: 2,
  ERR_JOB_STATEMENT: 2,
  ERR_JOB_FAILED: 2,
  ERR_PLAN_UNKNOWN: 2,
  ERR_PLAN_AMBIGUOUS: 2,
  ERR_RUN_UNKNOWN: 2,
  ERR_RUN_AMBIGUOUS: 2,
  ERR_UNDO_NOTHING: 2,
  ERR_WAVES_SPLIT: 2,
  ERR_RESOLUTIONS_INVALID: 2,
  ERR_STORE_UNSAFE: 2,
  ERR_STORE_MISSING: 2,
  ERR_SNAPSHOT_UNKNOWN: 2,
  ERR_APPROVAL_NEEDED: 21,
  ERR_INPUT_NEEDED: 22,
  ERR_POLICY_DENIED: 30,
  ERR_POLICY_EVALUATION: 30,
  ERR_SCOPE_EXCEEDED: 30,
  ERR_EXPECT_MISSED: 30,
  ERR_APPEND_ONLY: 30,
  ERR_MARKER_TOUCHED: 30,
  ERR_TRUST_BUNDLE: 30,
  ERR_TRUST_QUORUM: 30,
  ERR_DEBT_OPEN: 30,
  // A token whose bytes are not the ones that were signed is a question of integrity, not of who signed what.
  ERR_APPROVAL_MALFORMED: 35,
  ERR_APPROVAL_SIGNATURE: 35,
  ERR_APPROVAL_ALTERED: 35,
  ERR_APPROVAL_UNKNOWN_KEY: 31,
  ERR_APPROVAL_NAMESPACE: 31,
  ERR_APPROVAL_KEY_EXPIRED: 31,
  ERR_APPROVAL_PERSON: 31,
  ERR_APPROVAL_SELF: 31,
  ERR_APPROVAL_EXPIRED: 31,
  ERR_APPROVAL_NOT_YET: 31,
  ERR_APPROVAL_SPENT: 31,
  ERR_APPROVAL_REJECTED: 31,
  ERR_APPROVAL_REVOKED: 31,
  ERR_APPROVAL_OTHER_PLAN: 31,
  ERR_APPROVAL_OTHER_TARGET: 31,
  ERR_APPROVAL_NO_TOUCH: 31,
  ERR_APPROVAL_NOT_VERIFIED: 31,
  ERR_APPROVAL_NOT_REVIEWED: 31,
  ERR_APPROVAL_NO_REASON: 31,
  ERR_APPROVAL_GROUP: 31,
  ERR_APPROVAL_CLOCK: 31,
  ERR_STATEMENT_STALE: 31,
  ERR_PLAN_EXPIRED: 31,
  ERR_KEY_MISSING: 32,
  ERR_KEY_UNKNOWN: 32,
  ERR_KEY_REFUSED: 32,
  ERR_TARGET_PRIVILEGE: 32,
  ERR_CI_TOKEN: 32,
  ERR_CI_TOKEN_MISSING: 32,
  ERR_ENV_CONTRADICTED: 33,
  ERR_ENV_NOT_PINNED: 33,
  ERR_ENV_ASSERTION: 33,
  ERR_ENV_PINNED_ALREADY: 33,
  ERR_TARGET_NOT_PLANNED: 33,
  ERR_DRIFT_ROWS: 34,
  ERR_DRIFT_SCHEMA: 34,
  ERR_PLAN_ALTERED: 35,
  ERR_PLAN_UNCHECKED: 35,
  ERR_PLAN_DIFFERS: 35,
  ERR_STATEMENT_MALFORMED: 35,
  ERR_LEDGER_BROKEN: 35,
  ERR_LEDGER_MISSING: 35,
  ERR_LEDGER_OTHER: 35,
  ERR_CHANGESET_ALTERED: 35,
  ERR_SNAPSHOT_UNVERIFIED: 36,
  ERR_SNAPSHOT_PLACE: 36,
  ERR_UNDO_CONFLICT: 37,
  ERR_RESCUE_CONFLICT: 37,
  ERR_TARGET_BUSY: 38,
  ERR_TARGET_HELD: 38,
  ERR_STORE_BUSY: 38,
  ERR_REHEARSAL_LIMIT: 38,
  ERR_TARGET_UNREACHABLE: 39,
  ERR_RUN_STOPPED: 40,
  ERR_CHECK_PUT_BACK: 41,
  ERR_CHECK_FAILED: 42,
  ERR_EFFECT_DIFFERS: 41,
  ERR_OUTCOME_UNKNOWN: 43,
  ERR_INTERRUPTED: 130,
  ERR_TERMINATED: 143,
};

/** The exit code that belongs to an error code, where nothing was written. */
export function exitCodeOf(code: ErrorCode): ExitCode {
  return EXIT_OF[code];
}

/**
 * The exit code of an error as it happened. A code that promises "before any write" is not kept by an error that says
 * otherwise: rows committed make it 40, an outcome that is not known 43.
 */
export function exitOf(error: Pick<HoldpointError, "code" | "targetChanged">): ExitCode {
  const code = exitCodeOf(error.code);
  const promisesNothingWritten = code < 40 || code >= 130;
  switch (error.targetChanged) {
    case "no":
      return code;
    case "yes":
    case "partly":
      return promisesNothingWritten ? 40 : code;
    case "unknown":
      return 43;
  }
}

const NAMES: ReadonlyMap<number, ExitName> = new Map(EXIT_TABLE.map((e) => [e.code, e.name]));

/** `drift` for 34. */
export function exitName(code: ExitCode): ExitName {
  return NAMES.get(code) ?? "internal";
}
