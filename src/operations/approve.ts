/**
 * Approve: a second person signs exactly one plan. Everything the approver is shown is computed here from
 * the plan's bytes; nothing of the requester's repository or plan is ever run.
 */
import { approvalBytes, makeApproval, parseApproval, parseToken, tokenText } from "../approval/token.js";
import type { ApprovalStatement } from "../approval/approval-statement.js";
import { NAMESPACES, type Person } from "../approval/requirement.js";
import { dearmor, verifySshsig } from "../approval/sshsig.js";
import { personOfSignature } from "../approval/people.js";
import { parseStamp } from "../base/clock.js";
import { IntegrityError, RefusedError, UsageError } from "../base/errors.js";
import type { Decision } from "../policy/decision.js";
import type { Weighed } from "./consent/review.js";
import { approvedEntry } from "./consent/tokens.js";
import { planFacts, requestersOf } from "./recall/plan-state.js";
import type { LoadedPlan, SigningKey, Toolbox } from "./toolbox.js";

/** How long an approval may be used when the approver says nothing: apply must begin within it. */
export const APPROVAL_LIFETIME_SECONDS = 4 * 3600;

/** What the approver chose. */
export interface ApproveOptions {
  readonly expiresSeconds: number;
  readonly coverUndoSeconds: number | null;
  readonly reason: string | null;
}

/** An approval that was given. */
export interface Approved {
  readonly token: string;
  readonly statement: ApprovalStatement;
  readonly plan: string;
  readonly person: string;
  /** Whether this machine's ledger has it; without one, the token is all there is. */
  readonly recorded: boolean;
}

/** Refuses a plan that policy denies: nobody can approve what no rule allows. */
export function refuseDenied(decision: Decision, planId: string): void {
  if (decision.kind !== "deny") return;
  const rules = decision.rules.filter((r) => r.effect === "deny" || r.effect === "error");
  throw new RefusedError({
    code: "ERR_POLICY_DENIED",
    message: `policy denies ${planId}`,
    why: rules.map((r) => `${r.rule} (${r.at}): ${r.because}; ${r.saw}`).join("; ") || "no rule allows it",
    next: [{ actor: "requester", argv: ["holdpoint", "show", planId] }],
    details: rules.map((r) => ({ rule: r.rule, at: r.at, because: r.because, saw: r.saw, flips: r.flips })),
  });
}

/** The person whom a key makes the approver: known, and not the requester. */
export function approverOf(tools: Toolbox, key: SigningKey, plan: LoadedPlan): string {
  if (key.person === null) {
    throw new RefusedError({
      code: "ERR_KEY_UNKNOWN",
      message: "this key is not one that the people file knows",
      why: `key ${key.fingerprint}`,
      next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
    });
  }
  refuseSelf(tools, key.person, plan, key.fingerprint);
  return key.person;
}

/** @throws RefusedError ERR_APPROVAL_SELF (31). */
export function refuseSelf(tools: Toolbox, person: string, plan: LoadedPlan, key?: string): void {
  const { requesters } = requestersOf(tools, plan);
  if (!requesters.includes(person)) return;
  if (person !== plan.statement.requester.person) throw selfThroughCi(person, plan, requesters);
  const mine = plan.statement.requester.key;
  throw new RefusedError({
    code: "ERR_APPROVAL_SELF",
    message: `${person} made this plan and cannot approve it`,
    why: `requester and approver are both ${person}${key === undefined ? "" : ` (keys ${mine ?? "none"} and ${key})`}`,
    state: "Nothing was signed.",
    next: [{ actor: "approver", argv: ["holdpoint", "approve", plan.id] }],
  });
}

function selfThroughCi(person: string, plan: LoadedPlan, requesters: readonly string[]): RefusedError {
  return new RefusedError({
    code: "ERR_APPROVAL_SELF",
    message: `${person} is one of those behind this plan and cannot approve it`,
    why: `a pipeline made it; who set it going or wrote what it runs counts as requester: ${requesters.join(", ")}`,
    state: "Nothing was signed.",
    next: [{ actor: "approver", argv: ["holdpoint", "approve", plan.id] }],
  });
}

/** The statement that an approver would sign now. It never outlives the plan. */
async function statementFor(
  tools: Toolbox,
  reviewed: Weighed,
  approver: string,
  options: ApproveOptions,
  reviewedSeconds: number | null,
): Promise<ApprovalStatement> {
  const { plan, now } = reviewed;
  const planEnds = parseStamp(plan.statement.expires_at)?.getTime() ?? 0;
  refuseMissingReason(
    reviewed,
    options,
    reviewedSeconds === null ? ["--prepare", "FILE", "--as", approver] : [],
  );
  return makeApproval({
    act: "approve",
    plan: planFacts(plan),
    environment: reviewed.guardedAs,
    approver,
    now,
    ttlSeconds: Math.min(options.expiresSeconds, Math.floor((planEnds - now.getTime()) / 1000)),
    nonce: tools.random(16),
    ledgerHead: (await tools.ledger()).head()?.head ?? null,
    reviewedSeconds,
    coverUndoSeconds: options.coverUndoSeconds,
    reason: options.reason,
  });
}

/** Signs at once with a key of this machine, and records the approval. */
export async function signApproval(
  tools: Toolbox,
  reviewed: Weighed,
  key: SigningKey,
  options: ApproveOptions,
  reviewedSeconds: number,
): Promise<Approved> {
  refuseDenied(reviewed.decision, reviewed.plan.id);
  const person = approverOf(tools, key, reviewed.plan);
  const statement = await statementFor(tools, reviewed, person, options, reviewedSeconds);
  const bytes = approvalBytes(statement);
  return record(tools, statement, tokenText(bytes, await key.sign(bytes)));
}

/** The exact bytes for a key that lives elsewhere. */
export async function prepareApproval(
  tools: Toolbox,
  reviewed: Weighed,
  approver: string,
  options: ApproveOptions,
): Promise<{ readonly statement: ApprovalStatement; readonly bytes: Uint8Array }> {
  refuseDenied(reviewed.decision, reviewed.plan.id);
  requirePerson(tools.project.people, approver);
  refuseSelf(tools, approver, reviewed.plan);
  const statement = await statementFor(tools, reviewed, approver, options, null);
  return { statement, bytes: approvalBytes(statement) };
}

/**
 * Takes in a signature that was made elsewhere over prepared bytes.
 * @throws RefusedError 31 when the signature, the person or the plan is not the right one.
 */
export async function takeInApproval(
  tools: Toolbox,
  reviewed: Weighed,
  bytes: Uint8Array,
  signatureFile: Uint8Array,
): Promise<Approved> {
  refuseDenied(reviewed.decision, reviewed.plan.id);
  const statement = parseApproval(bytes);
  if (statement.planDigest !== reviewed.plan.digest) {
    throw new RefusedError({
      code: "ERR_APPROVAL_OTHER_PLAN",
      message: `these bytes approve ${statement.plan}, not ${reviewed.plan.id}`,
      why: `prepared for ${statement.planDigest}, this plan is ${reviewed.plan.digest}`,
      state: "Nothing was recorded.",
      next: [
        {
          actor: "approver",
          argv: ["holdpoint", "approve", statement.plan, "--prepared", "FILE", "--signature", "FILE"],
        },
      ],
    });
  }
  const signature = dearmor(Buffer.from(signatureFile).toString("latin1"));
  const check = verifySshsig({ bytes, signature, namespace: NAMESPACES.approval });
  if (!check.ok) throw badSignature(check.why);
  const person = personOfSignature(tools.project.people, check, NAMESPACES.approval, reviewed.now);
  if (person === null) throw unknownSigner(check.key.fingerprint);
  if (person.name !== statement.approver) {
    throw new RefusedError({
      code: "ERR_APPROVAL_PERSON",
      message: `signed by ${person.name}, prepared for ${statement.approver}`,
      why: `key ${check.key.fingerprint} is ${person.name}'s`,
      state: "Nothing was recorded.",
      next: [
        {
          actor: "approver",
          argv: ["holdpoint", "approve", reviewed.plan.id, "--prepare", "FILE", "--as", person.name],
        },
      ],
    });
  }
  refuseSelf(tools, person.name, reviewed.plan, check.key.fingerprint);
  return record(tools, statement, tokenText(bytes, signature));
}

async function record(tools: Toolbox, statement: ApprovalStatement, token: string): Promise<Approved> {
  // Read back what will travel: a token that we ourselves would refuse must never leave this function.
  parseToken(token);
  const ledger = await tools.ledger();
  const approved = { token, statement, plan: statement.plan, person: statement.approver };
  // An approver's own machine has no ledger of this target: the token is the record, and whoever applies has it.
  if (ledger.head() === null) return { ...approved, recorded: false };
  ledger.append(approvedEntry(statement, token));
  return { ...approved, recorded: true };
}

/**
 * Refuses where policy asks for the approver's reason and none is given, before anybody looks for nothing.
 * @param flags those that the next command repeats.
 * @throws UsageError ERR_INPUT_NEEDED (22).
 */
export function refuseMissingReason(
  reviewed: Weighed,
  options: ApproveOptions,
  flags: readonly string[] = [],
): void {
  if (!reviewed.decision.requirement.reason || options.reason !== null) return;
  throw new UsageError({
    code: "ERR_INPUT_NEEDED",
    message: "this plan needs a reason from its approver",
    why: "a policy rule asks for one",
    state: "Nothing was signed.",
    next: [
      { actor: "approver", argv: ["holdpoint", "approve", reviewed.plan.id, ...flags, "--reason", "TEXT"] },
    ],
  });
}

function requirePerson(people: readonly Person[], name: string): void {
  if (people.some((p) => p.name === name)) return;
  throw new UsageError({
    code: "ERR_USAGE",
    message: `the people file knows nobody called ${name}`,
    why: `it knows ${people.map((p) => p.name).join(", ") || "nobody"}`,
    next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
  });
}

function badSignature(why: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_APPROVAL_SIGNATURE",
    message: "the signature is not one over these bytes",
    why,
    state: "Nothing was recorded.",
    next: [
      {
        actor: "approver",
        argv: ["ssh-keygen", "-Y", "sign", "-n", NAMESPACES.approval, "-f", "KEY", "PREPARED_FILE"],
      },
    ],
  });
}

function unknownSigner(fingerprint: string): RefusedError {
  return new RefusedError({
    code: "ERR_APPROVAL_UNKNOWN_KEY",
    message: "signed with a key that the people file does not know",
    why: `key ${fingerprint}`,
    state: "Nothing was recorded.",
    next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
  });
}
