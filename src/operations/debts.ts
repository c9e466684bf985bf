/**
 * Debts of break-glass: a run that nobody but its maker has seen. After a day an unreviewed one stops jobs on that
 * target. Undo and rescue are not stopped: the way back never waits for paper.
 */
import { NAMESPACES } from "../approval/requirement.js";
import {
  makeStatement,
  parseStatement,
  signerOf,
  type Statement,
  statementBytes,
} from "../approval/statement.js";
import { parseStamp, stamp } from "../base/clock.js";
import { RefusedError, UsageError } from "../base/errors.js";
import type { Note } from "../target/marker.js";
import {
  type Examined,
  refuseContradiction,
  refuseOtherBundle,
  requireHistory,
  withTarget,
} from "./judging/examine.js";
import { writeNotes } from "./recall/notes.js";
import { refusePlanOfOtherPlace, requestersOf } from "./recall/plan-state.js";
import { findRun, type RunRecord } from "./recall/runs.js";
import { loadPlan } from "./recall/stored-plan.js";
import { timeOf } from "./judging/time.js";
import type { LoadedPlan, Toolbox } from "./toolbox.js";

/** After this a debt that nobody has reviewed stops jobs. */
export const DEBT_SECONDS = 24 * 3600;
/** How long a prepared review may be signed. */
const REVIEW_SECONDS = 24 * 3600;

/** Debts that no review has closed, oldest first. */
export function openDebts(notes: readonly Note[]): readonly Note[] {
  const reviewed = new Set(notes.filter((n) => n.kind === "reviewed").map((n) => n.subject));
  return notes.filter((n) => n.kind === "debt" && !reviewed.has(n.subject));
}

/** @throws RefusedError ERR_DEBT_OPEN (30) when a debt is older than a day. */
export async function refuseOverdueDebts(tools: Toolbox, examined: Examined): Promise<void> {
  const now = await timeOf(tools, examined);
  const overdue = openDebts(await examined.target.notes()).filter((d) => isOverdue(d, now));
  const [first] = overdue;
  if (first === undefined) return;
  throw new RefusedError({
    code: "ERR_DEBT_OPEN",
    message: `${examined.target.name} has ${overdue.length === 1 ? "a break-glass run" : `${overdue.length} break-glass runs`} that nobody has reviewed`,
    why: overdue.map((d) => `${d.subject} by ${d.by}, ${d.at}: ${d.reason}`).join("; "),
    next: overdue.map((d) => ({ actor: "approver", argv: ["holdpoint", "approve", "--review", d.subject] })),
    details: overdue.map((d) => ({ run: d.subject, by: d.by, at: d.at, reason: d.reason })),
  });
}

/** A time that cannot be read is long past: what cannot be judged does not pass. */
export function isOverdue(debt: Pick<Note, "at">, now: Date): boolean {
  const at = parseStamp(debt.at)?.getTime() ?? 0;
  return now.getTime() >= at + DEBT_SECONDS * 1000;
}

/** A run under review: what its reviewer looks at. */
export interface DebtReview {
  readonly run: RunRecord;
  readonly plan: LoadedPlan;
  readonly examined: Examined;
  readonly debt: Note;
}

/** A debt that was closed. */
export interface Reviewed {
  readonly run: string;
  readonly by: string;
  readonly brokenBy: string;
}

/**
 * Loads a run with an open debt for its review.
 * @throws UsageError ERR_USAGE when the run has no open debt.
 */
export async function withDebt<T>(
  tools: Toolbox,
  ref: string,
  work: (review: DebtReview) => Promise<T>,
): Promise<T> {
  const run = await findRun(tools, ref);
  const plan = await loadPlan(tools, run.plan);
  try {
    return await withTarget(
      tools,
      plan.statement.target.name,
      async (examined) => {
        refuseContradiction(examined);
        await refuseOtherBundle(tools, examined);
        await requireHistory(tools, examined);
        refusePlanOfOtherPlace(plan, examined);
        const debt = openDebts(await examined.target.notes()).find((d) => d.subject === run.id);
        if (debt === undefined) throw nothingToReview(run.id);
        return work({ run, plan, examined, debt });
      },
      "write",
    );
  } finally {
    plan.close();
  }
}

function nothingToReview(run: string): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `${run} has no open debt`,
    why: "it was approved by others, or its break-glass was reviewed already",
    next: [{ actor: "anyone", argv: ["holdpoint", "log", "show", run] }],
  });
}

/** The bytes by which `person` says that they have reviewed the run. @throws RefusedError 31 for its own people. */
export async function prepareReview(
  tools: Toolbox,
  review: DebtReview,
  person: string,
  reason: string,
): Promise<Uint8Array> {
  refuseOwnReview(tools, review, person);
  return statementBytes(
    makeStatement({
      act: "review",
      target: review.examined.target.name,
      identity: review.examined.marker?.identity ?? null,
      subject: review.run.id,
      from: review.plan.digest,
      by: person,
      now: await timeOf(tools, review.examined),
      ttlSeconds: REVIEW_SECONDS,
      nonce: tools.random(16),
      reason,
    }),
  );
}

/** Signs a review with a key of this machine and closes the debt. */
export async function signReview(
  tools: Toolbox,
  review: DebtReview,
  options: { readonly key: string | undefined; readonly reason: string },
): Promise<Reviewed> {
  const key = await tools.findKey(options.key, NAMESPACES.approval);
  if (key.person === null) {
    throw new RefusedError({
      code: "ERR_KEY_UNKNOWN",
      message: "this key is not one that the people file knows",
      why: `key ${key.fingerprint}`,
      next: [{ actor: "anyone", argv: ["holdpoint", "key", "check"] }],
    });
  }
  const bytes = await prepareReview(tools, review, key.person, options.reason);
  return takeInReview(tools, review, bytes, await key.sign(bytes));
}

/**
 * Closes the debt by a signed review: in the ledger and in the target.
 * @throws RefusedError ERR_STATEMENT_STALE for one made for another run, place or time; 31 for a signature that does
 *   not count; what the target says when it cannot keep the review.
 */
export async function takeInReview(
  tools: Toolbox,
  review: DebtReview,
  bytes: Uint8Array,
  signature: Uint8Array,
): Promise<Reviewed> {
  const statement = parseStatement(bytes);
  const now = await timeOf(tools, review.examined);
  refuseStale(review, statement, now);
  const signer = signerOf(tools.project.people, { bytes, act: "review" }, signature, now);
  if (!signer.ok) throw badSignature(signer.why);
  if (signer.person.name !== statement.by) {
    throw badSignature(`it says ${statement.by}, and the key is ${signer.person.name}'s`);
  }
  refuseOwnReview(tools, review, signer.person.name);
  const sealed = (await tools.ledger()).append({
    kind: "reviewed",
    target: review.examined.target.name,
    plan: review.plan.id,
    run: review.run.id,
    facts: {
      by: statement.by,
      broken_by: review.debt.by,
      reason: statement.reason,
      statement: Buffer.from(bytes).toString("base64url"),
      signature: Buffer.from(signature).toString("base64url"),
    },
  });
  const note = {
    kind: "reviewed" as const,
    subject: review.run.id,
    at: stamp(now),
    by: statement.by,
    reason: statement.reason,
  };
  await writeNotes(review.examined.target, [note], sealed);
  return { run: review.run.id, by: statement.by, brokenBy: review.debt.by };
}

/** Neither who broke the glass nor who asked for the plan can say that somebody else has looked. */
function refuseOwnReview(tools: Toolbox, review: DebtReview, person: string): void {
  const own = [review.debt.by, ...requestersOf(tools, review.plan).requesters];
  if (!own.includes(person)) return;
  throw new RefusedError({
    code: "ERR_APPROVAL_SELF",
    message: `${person} cannot review ${review.run.id}`,
    why: `its glass was broken by ${review.debt.by}, its plan asked for by ${requestersOf(tools, review.plan).requesters.join(", ") || "nobody known"}; another person must look`,
    state: "Nothing was signed.",
    next: [{ actor: "approver", argv: ["holdpoint", "approve", "--review", review.run.id] }],
  });
}

function refuseStale(review: DebtReview, s: Statement, now: Date): void {
  const wrong =
    mismatch("act", s.act, "review") ??
    mismatch("run", s.subject, review.run.id) ??
    mismatch("plan", s.from, review.plan.digest) ??
    mismatch("target", s.target, review.examined.target.name) ??
    mismatch("identity", s.identity, review.examined.marker?.identity ?? "none") ??
    (now.getTime() >= (parseStamp(s.expiresAt)?.getTime() ?? 0) ? `it expired at ${s.expiresAt}` : null);
  if (wrong === null) return;
  throw new RefusedError({
    code: "ERR_STATEMENT_STALE",
    message: `this is no review of ${review.run.id} as it is now`,
    why: wrong,
    state: "Nothing was recorded.",
    next: [{ actor: "approver", argv: ["holdpoint", "approve", "--review", review.run.id] }],
  });
}

function mismatch(what: string, signed: string, here: string): string | null {
  return signed === here ? null : `${what}: signed for ${signed}, here ${here}`;
}

function badSignature(why: string): RefusedError {
  return new RefusedError({
    code: "ERR_APPROVAL_UNKNOWN_KEY",
    message: "this signature does not count as a review",
    why,
    state: "Nothing was recorded.",
    next: [{ actor: "anyone", argv: ["holdpoint", "key", "check"] }],
  });
}
