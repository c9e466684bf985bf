/** How a run stops: what is committed, why it goes no further, and what to type next. */
import { HoldpointError, messageOf, TargetError } from "../../base/errors.js";
import type { FailedCheck } from "./wave-checks.js";

/** How far a run is. */
export interface Standing {
  readonly run: string;
  readonly plan: string;
  readonly rows: number;
  readonly of: number;
  readonly batches: number;
  readonly ofBatches: number;
}

/** A run that stops between its first commit and its last. An outcome that nobody knows stays unknown. */
export function stoppedPartWay(e: unknown, s: Standing): HoldpointError {
  if (e instanceof HoldpointError && e.targetChanged !== "no") return e;
  const known = e instanceof HoldpointError;
  const whole = s.batches >= s.ofBatches;
  return new TargetError({
    code: "ERR_RUN_STOPPED",
    message: `${s.run} stopped after ${s.rows} of ${s.of} rows`,
    why: known ? reasonOf(e) : messageOf(e),
    state: committedWords(s),
    next: nextSteps(s),
    targetChanged: whole ? "yes" : "partly",
    details: { cause: known ? e.code : "ERR_INTERNAL", ...standingJson(s) },
    cause: e,
  });
}

/** A signal's own words are about a run that has committed nothing. */
function reasonOf(e: HoldpointError): string {
  if (e.code === "ERR_INTERRUPTED" || e.code === "ERR_TERMINATED")
    return `${e.message}; no new batch was begun`;
  return e.why === undefined ? e.message : `${e.message}: ${e.why}`;
}

/** A check that failed after a wave whose plan says nothing of putting back. */
export function checkFailed(failed: FailedCheck, s: Standing): HoldpointError {
  return new TargetError({
    code: "ERR_CHECK_FAILED",
    message: `check ${failed.check} failed after wave ${failed.wave} of ${failed.waves}`,
    why: failed.why,
    state: committedWords(s),
    next: nextSteps(s),
    targetChanged: s.batches >= s.ofBatches ? "yes" : "partly",
    details: { check: failed.check, wave: failed.wave, ...standingJson(s) },
  });
}

/** A check that failed, and the wave before it was put back. */
export function putBackAfter(failed: FailedCheck, wave: number, s: Standing): HoldpointError {
  const none = s.batches === 0;
  return new TargetError({
    code: "ERR_CHECK_PUT_BACK",
    message: `check ${failed.check} failed after wave ${wave} of ${failed.waves}, so the wave was put back`,
    why: failed.why,
    state: none ? "Every row is as it was before the run." : committedWords(s),
    next: none ? [{ actor: "anyone", argv: ["holdpoint", "show", s.plan] }] : nextSteps(s),
    targetChanged: none ? "no" : "partly",
    details: { check: failed.check, wave, ...standingJson(s) },
  });
}

/** Everything is written and only the record of it is missing: running `apply` again completes it. */
export function unrecorded(plan: string, cause: unknown): HoldpointError {
  return new HoldpointError({
    code: "ERR_RUN_STOPPED",
    message: "all rows are written, and the end of the run could not be recorded",
    why: messageOf(cause),
    state: "All rows were written as planned.",
    next: [{ actor: "requester", argv: ["holdpoint", "apply", plan] }],
    targetChanged: "yes",
    details: { cause: cause instanceof HoldpointError ? cause.code : "ERR_INTERNAL" },
    cause,
  });
}

function committedWords(s: Standing): string {
  return `${s.rows} of ${s.of} rows are written and committed, in ${s.batches} of ${s.ofBatches} transactions; the rest is as it was.`;
}

function nextSteps(s: Standing): HoldpointError["next"] {
  return [
    {
      actor: "requester",
      argv: ["holdpoint", "apply", "--resume", s.run],
      text: "go on under the same plan",
    },
    { actor: "requester", argv: ["holdpoint", "undo", s.run], text: "take back what is written" },
  ];
}

function standingJson(s: Standing): Record<string, unknown> {
  return { run: s.run, plan: s.plan, rows: s.rows, of: s.of, batches: s.batches, of_batches: s.ofBatches };
}
