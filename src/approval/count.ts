/**
 * Counting approvals: the one place that every path to a change goes through. Signatures are verified first,
 * then distinct people are counted. A bad approval is worth nothing and spoils nothing; the same person twice
 * is worth one; whoever made the plan is worth nothing, with any of their keys. Nobody is exempt.
 */
import { parseDuration, parseStamp } from "../base/clock.js";
import type { Digest } from "../base/digest.js";
import { type ErrorCode, HoldpointError, RefusedError } from "../base/errors.js";
import type { ApprovalStatement, Token } from "./approval-statement.js";
import { assign, fits } from "./matching.js";
import { ownerOfSignature } from "./people.js";
import { type Discount, NAMESPACES, type Person, type Requirement, type Slot } from "./requirement.js";
import { verifySshsig, type VerifiedSignature } from "./sshsig.js";
import { NOT_PINNED, parseApproval, type PlanInApproval } from "./token.js";

/** How far an approver's clock may be ahead of ours. */
export const CLOCK_SKEW_SECONDS = 300;
/** Break-glass is for minutes: a longer one does not count. */
export const BREAK_GLASS_LONGEST_SECONDS = 3600;

/** Everything that counting depends on. */
export interface CountArgs {
  readonly requirement: Requirement;
  /** Recomputed from rows and target, never the plan's own claims. */
  readonly plan: PlanInApproval;
  readonly tokens: readonly Token[];
  readonly people: readonly Person[];
  /** Everyone who can never count: the requester, and whom CI names. */
  readonly requesters: readonly string[];
  /** Fingerprints that can never count, whoever they belong to. */
  readonly requesterKeys: readonly string[];
  /** The latest of target, ledger and host. */
  readonly now: Date;
  readonly spentNonces: ReadonlySet<string>;
  readonly revokedNonces: ReadonlySet<string>;
  /** A rejection is final for the plan. */
  readonly rejectedBy: Rejection | null;
  /** The environment whose rules apply, as recomputed. */
  readonly environment: string;
}

/** Who said no. */
export interface Rejection {
  readonly by: string;
  readonly at: string;
  readonly reason: string;
}

/** An approval that counts, with the slot that its person fills. */
export interface Counted {
  readonly token: Token;
  readonly person: string;
  /** Index into the requirement's slots. */
  readonly slot: number;
}

/** An approval that does not count. `detail` has both sides of the mismatch. */
export interface Discounted {
  readonly token?: Token;
  readonly person?: string;
  readonly reason: Discount;
  readonly detail: string;
}

/** The result of counting. */
export interface Count {
  readonly satisfied: boolean;
  readonly counted: readonly Counted[];
  /** Every good approval, one for each person: the counted ones and those that others made needless. */
  readonly good: readonly { readonly token: Token; readonly person: string }[];
  readonly discounted: readonly Discounted[];
  /** Slots that are not full, with how many people each still needs. */
  readonly missing: readonly Slot[];
  /** The smallest cover that all counted approvals gave; null when any gave none. */
  readonly coverUndoSeconds: number | null;
  readonly rejectedBy: Rejection | null;
  /**
   * A good break-glass signature over this plan, if one was given. It never makes `satisfied` true: whoever
   * lets it waive the quorum must anchor its debt in the target.
   */
  readonly breakGlass: { readonly token: Token; readonly person: string } | null;
}

/**
 * Counts. Bad approvals are returned as discounted, never thrown.
 * @throws RefusedError ERR_TRUST_QUORUM for a requirement that nobody could meet: no slots, fewer than one
 *   person, a group that has nobody. An empty quorum is an error, never a yes.
 */
export function countApprovals(args: CountArgs): Count {
  for (const slot of args.requirement.slots) refuseEmptySlot(slot, args.people);
  if (args.requirement.slots.length === 0) throw emptyQuorum("the requirement names no people at all", "");
  const judged = args.tokens.map((token) => judge(token, args));
  const good = judged.filter((j): j is Good => j.kind === "good");
  const bad = judged.filter((j): j is Bad => j.kind === "bad").map((j) => j.discounted);
  const { voters, doubles } = distinctPeople(good.filter((g) => act(g) === "approve"));
  const glass = good.find((g) => act(g) === "break-glass");
  const filled = assign(
    voters.map((v) => v.person),
    args.requirement.slots,
    args.people,
  );
  const counted = filled.flatMap(({ person, slot }) => {
    const voter = voters.find((v) => v.person.name === person);
    return voter === undefined ? [] : [{ token: voter.token, person, slot }];
  });
  const idle = voters.filter((v) => !filled.some((f) => f.person === v.person.name));
  const missing = missingSlots(args.requirement.slots, counted);
  return {
    satisfied: args.rejectedBy === null && missing.length === 0,
    counted,
    good: voters.map((v) => ({ token: v.token, person: v.person.name })),
    discounted: [...bad, ...doubles, ...idle.map((v) => notPlaced(v, args.requirement.slots))],
    missing,
    coverUndoSeconds: smallestCover(counted),
    rejectedBy: args.rejectedBy,
    breakGlass: glass === undefined ? null : { token: glass.token, person: glass.person.name },
  };
}

/**
 * The refusal that a count without quorum leads to, most telling first: a rejection; then an approval that was
 * given and does not count (31); then too few (21). It names what is missing and never a way around it.
 */
export function refusalOf(
  count: Count,
  plan: { readonly id: string; readonly digest: Digest; readonly target: string },
): RefusedError {
  if (count.rejectedBy !== null) return rejectedError(count.rejectedBy, plan.id);
  const faults = count.discounted.filter((d) => DISCOUNTS[d.reason].code !== null);
  const [worst] = faults.toSorted((a, b) => rank(a.reason) - rank(b.reason));
  const code = worst === undefined ? null : DISCOUNTS[worst.reason].code;
  if (worst === undefined || code === null) return neededError(count, plan);
  const others = faults.length === 1 ? "" : ` (nor ${faults.length - 1} more)`;
  return new RefusedError({
    code,
    message: `an approval for ${plan.id} does not count: ${DISCOUNTS[worst.reason].words}${others}`,
    why: `${worst.detail}; still needed: ${count.missing.map(slotWords).join(" and ")}`,
    next: [{ actor: "approver", argv: ["holdpoint", "approve", plan.id] }],
    details: detailsOf(count),
  });
}

/** What a slot asks for: `2 people of dba or leads`. */
export function slotWords(slot: Slot): string {
  const who = slot.people === 1 ? "1 person" : `${slot.people} people`;
  return slot.groups.length === 0 ? who : `${who} of ${slot.groups.join(" or ")}`;
}

interface Good {
  readonly kind: "good";
  readonly token: Token;
  readonly statement: ApprovalStatement;
  readonly person: Person;
  readonly fingerprint: string;
}

interface Bad {
  readonly kind: "bad";
  readonly discounted: Discounted;
}

/** One approval on its own: signature first, then who, then what, then when. */
function judge(token: Token, args: CountArgs): Good | Bad {
  // The bytes are what was signed; what the token object says besides them is not believed.
  const statement = readStatement(token.bytes);
  if (typeof statement === "string") return bad(token, "malformed", statement);
  const namespace = statement.act === "approve" ? NAMESPACES.approval : NAMESPACES.breakGlass;
  const signature = verifySshsig({ bytes: token.bytes, signature: token.signature, namespace });
  if (!signature.ok) return bad(token, signature.kind, signature.why);
  const owner = ownerOfSignature(args.people, signature, namespace, args.now);
  if (owner.kind !== "person") {
    return bad(token, owner.kind, owner.why, owner.kind === "unknown-key" ? undefined : owner.person.name);
  }
  const { person } = owner;
  const wrong =
    wrongPerson(statement, person, signature, args) ??
    wrongPlan(statement, args) ??
    wrongTime(statement, args) ??
    wrongLife(statement, args) ??
    wrongManner(statement, signature, args.requirement);
  if (wrong !== null) return bad(token, wrong.reason, wrong.detail, person.name);
  return {
    kind: "good",
    token: { ...token, statement },
    statement,
    person,
    fingerprint: signature.key.fingerprint,
  };
}

type Wrong = { readonly reason: Discount; readonly detail: string } | null;

function wrongPerson(
  s: ApprovalStatement,
  person: Person,
  signature: VerifiedSignature,
  args: CountArgs,
): Wrong {
  if (s.approver !== person.name) {
    return { reason: "person", detail: `it says ${s.approver}, and the key is ${person.name}'s` };
  }
  // Break-glass waives the quorum, so it is no approval of one's own plan; its debt needs another person.
  if (s.act === "break-glass") return null;
  if (args.requesters.includes(person.name)) {
    return { reason: "self", detail: `${person.name} is a requester of this plan` };
  }
  if (args.requesterKeys.includes(signature.key.fingerprint)) {
    return { reason: "self", detail: `the key ${signature.key.fingerprint} made this plan` };
  }
  return null;
}

function wrongPlan(s: ApprovalStatement, args: CountArgs): Wrong {
  const { plan } = args;
  // The digest decides; ids only have 80 bits of it and could be twins.
  if (s.planDigest !== plan.digest) {
    return {
      reason: "other-plan",
      detail: `it is for ${s.plan} (${s.planDigest}), this is ${plan.id} (${plan.digest})`,
    };
  }
  const identity = plan.identity ?? NOT_PINNED;
  const place = firstDifference([
    ["target", s.target, plan.target],
    ["identity", s.identity, identity],
    ["environment", s.environment, args.environment],
  ]);
  if (place !== null) return { reason: "other-target", detail: place };
  const facts = firstDifference([
    ["plan", s.plan, plan.id],
    ["inserts", s.inserts, plan.inserts],
    ["updates", s.updates, plan.updates],
    ["deletes", s.deletes, plan.deletes],
    ["tables", s.tables, plan.tables],
  ]);
  return facts === null ? null : { reason: "altered", detail: facts };
}

function wrongTime(s: ApprovalStatement, args: CountArgs): Wrong {
  const now = args.now.getTime();
  const issued = parseStamp(s.issuedAt)?.getTime() ?? Number.POSITIVE_INFINITY;
  const expires = parseStamp(s.expiresAt)?.getTime() ?? Number.NEGATIVE_INFINITY;
  if (now >= expires)
    return { reason: "expired", detail: `it expired at ${s.expiresAt}, it is ${args.now.toISOString()}` };
  if (issued > now + CLOCK_SKEW_SECONDS * 1000) {
    return { reason: "not-yet", detail: `it was issued at ${s.issuedAt}, it is ${args.now.toISOString()}` };
  }
  const life = (expires - issued) / 1000;
  if (s.act === "break-glass" && life > BREAK_GLASS_LONGEST_SECONDS) {
    const detail = `break-glass lives ${BREAK_GLASS_LONGEST_SECONDS} s at most, this one ${life} s`;
    return { reason: "expired", detail };
  }
  return null;
}

function wrongLife(s: ApprovalStatement, args: CountArgs): Wrong {
  if (args.rejectedBy !== null) {
    return { reason: "rejected", detail: `${args.rejectedBy.by} rejected the plan at ${args.rejectedBy.at}` };
  }
  if (args.revokedNonces.has(s.nonce)) return { reason: "revoked", detail: `${s.approver} took it back` };
  if (args.spentNonces.has(s.nonce))
    return { reason: "spent", detail: `its nonce ${s.nonce} was used before` };
  return null;
}

function wrongManner(s: ApprovalStatement, signature: VerifiedSignature, requirement: Requirement): Wrong {
  // A hardware key that was not touched never counts: OpenSSH lets it pass, and malware could have made it.
  if (signature.userPresent === false)
    return { reason: "no-touch", detail: "the hardware key was not touched" };
  if (s.act === "break-glass") {
    return s.reason === "-" ? { reason: "no-reason", detail: "break-glass needs a reason" } : null;
  }
  if (requirement.touch && signature.userPresent !== true) {
    return {
      reason: "no-touch",
      detail: `policy asks for a touch, and ${signature.key.type} keys cannot prove one`,
    };
  }
  if (requirement.verified === true && signature.userVerified !== true) {
    return {
      reason: "not-verified",
      detail: `policy asks for the PIN or finger of a hardware key, and this ${signature.key.type} signature proves none`,
    };
  }
  if (requirement.reviewedInTool && s.reviewed === "elsewhere") {
    return {
      reason: "not-reviewed",
      detail: "it was signed elsewhere, and policy asks for a review in the tool",
    };
  }
  if (requirement.reason && s.reason === "-") {
    return { reason: "no-reason", detail: "policy asks the approver for a reason, and it has none" };
  }
  return null;
}

/** One approval for each person and each key; the first one given stands. */
function distinctPeople(good: readonly Good[]): {
  readonly voters: readonly Good[];
  readonly doubles: readonly Discounted[];
} {
  const voters: Good[] = [];
  const doubles: Discounted[] = [];
  for (const g of good) {
    const same = voters.find((v) => v.person.name === g.person.name);
    // Two certificates may give one key two names; a key is one person all the same.
    const shared = voters.find((v) => v.fingerprint === g.fingerprint);
    if (same !== undefined) {
      doubles.push({ ...facts(g), reason: "same-person", detail: `${g.person.name} is counted already` });
    } else if (shared !== undefined) {
      const detail = `the key ${g.fingerprint} is counted already, for ${shared.person.name}`;
      doubles.push({ ...facts(g), reason: "person", detail });
    } else {
      voters.push(g);
    }
  }
  return { voters, doubles };
}

function notPlaced(voter: Good, slots: readonly Slot[]): Discounted {
  if (slots.some((s) => fits(voter.person, s))) {
    return { ...facts(voter), reason: "not-needed", detail: "the places it could fill are filled by others" };
  }
  const theirs = voter.person.groups.length === 0 ? "no group" : voter.person.groups.join(", ");
  const detail = `${voter.person.name} is in ${theirs}, and ${slots.map(slotWords).join(" and ")} must approve`;
  return { ...facts(voter), reason: "group", detail };
}

function missingSlots(slots: readonly Slot[], counted: readonly Counted[]): readonly Slot[] {
  return slots.flatMap((slot, i) => {
    const people = slot.people - counted.filter((c) => c.slot === i).length;
    return people > 0 ? [{ ...slot, people }] : [];
  });
}

function smallestCover(counted: readonly Counted[]): number | null {
  const covers = counted.map((c) => parseDuration(c.token.statement.coverUndo) ?? 0);
  const least = Math.min(...covers);
  return covers.length === 0 || least === 0 ? null : least;
}

function refuseEmptySlot(slot: Slot, people: readonly Person[]): void {
  if (!Number.isSafeInteger(slot.people) || slot.people < 1) {
    throw emptyQuorum(`it asks for ${slot.people} people`, slot.rule);
  }
  const empty = slot.groups.find((g) => !people.some((p) => p.groups.includes(g)));
  if (empty !== undefined) throw emptyQuorum(`the group ${JSON.stringify(empty)} has nobody`, slot.rule);
  if (people.length === 0) throw emptyQuorum("the people file knows nobody", slot.rule);
}

function emptyQuorum(why: string, rule: string): RefusedError {
  return new RefusedError({
    code: "ERR_TRUST_QUORUM",
    message:
      rule === ""
        ? "the approval requirement is empty"
        : `the approval that ${rule} requires can never be given`,
    why: `${why}; an empty quorum is an error, never a yes`,
    next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
  });
}

/**
 * Every discount: its code (null where the approval was good and merely not needed) and its words. In the order
 * of the table, the first one found is what a refusal speaks of: what shows tampering or a wrong place comes
 * before what is merely late, and what only the signer can mend comes last.
 */
const DISCOUNTS: Readonly<Record<Discount, { readonly code: ErrorCode | null; readonly words: string }>> = {
  rejected: { code: "ERR_APPROVAL_REJECTED", words: "the plan was rejected" },
  signature: { code: "ERR_APPROVAL_SIGNATURE", words: "its signature is not good" },
  altered: { code: "ERR_APPROVAL_ALTERED", words: "it describes another effect" },
  "other-target": { code: "ERR_APPROVAL_OTHER_TARGET", words: "it is for another target or environment" },
  "other-plan": { code: "ERR_APPROVAL_OTHER_PLAN", words: "it is for another plan" },
  self: { code: "ERR_APPROVAL_SELF", words: "whoever made a plan cannot approve it" },
  spent: { code: "ERR_APPROVAL_SPENT", words: "it was used before" },
  revoked: { code: "ERR_APPROVAL_REVOKED", words: "it was revoked" },
  expired: { code: "ERR_APPROVAL_EXPIRED", words: "it has expired" },
  "not-yet": { code: "ERR_APPROVAL_NOT_YET", words: "it is from the future" },
  person: { code: "ERR_APPROVAL_PERSON", words: "it names another person than its key" },
  group: { code: "ERR_APPROVAL_GROUP", words: "its approver is in none of the groups that must approve" },
  namespace: { code: "ERR_APPROVAL_NAMESPACE", words: "its key or signature is for another purpose" },
  "key-expired": { code: "ERR_APPROVAL_KEY_EXPIRED", words: "its key is not valid now" },
  "unknown-key": { code: "ERR_APPROVAL_UNKNOWN_KEY", words: "its key belongs to nobody on the list" },
  "no-touch": { code: "ERR_APPROVAL_NO_TOUCH", words: "nobody touched the key" },
  "not-verified": {
    code: "ERR_APPROVAL_NOT_VERIFIED",
    words: "the key did not ask its owner for a PIN or finger",
  },
  "not-reviewed": { code: "ERR_APPROVAL_NOT_REVIEWED", words: "it was not reviewed in the tool" },
  "no-reason": { code: "ERR_APPROVAL_NO_REASON", words: "it gives no reason" },
  malformed: { code: "ERR_APPROVAL_MALFORMED", words: "it cannot be read" },
  "same-person": { code: null, words: "one person counts once" },
  "not-needed": { code: null, words: "enough others approved" },
};

function rank(reason: Discount): number {
  return Object.keys(DISCOUNTS).indexOf(reason);
}

function neededError(count: Count, plan: { readonly id: string; readonly target: string }): RefusedError {
  const given = count.counted.map((c) => c.person);
  const so = given.length === 0 ? "nobody has approved it yet" : `${given.join(" and ")} approved it`;
  return new RefusedError({
    code: "ERR_APPROVAL_NEEDED",
    message: `${plan.id} on ${plan.target} waits for ${count.missing.map(slotWords).join(" and ")}`,
    why: `${so}; ${count.missing.map((s) => `${s.rule} requires ${slotWords(s)}`).join("; ")}`,
    next: [{ actor: "approver", argv: ["holdpoint", "approve", plan.id] }],
    details: detailsOf(count),
  });
}

function rejectedError(rejection: Rejection, planId: string): RefusedError {
  return new RefusedError({
    code: "ERR_APPROVAL_REJECTED",
    message: `${rejection.by} rejected ${planId}; a rejection is final`,
    why: `rejected at ${rejection.at}: ${rejection.reason}`,
    next: [{ actor: "requester", text: "Make a new plan that answers the reason" }],
  });
}

/** For `--json`: plain facts, no signatures. */
function detailsOf(count: Count): unknown {
  return {
    approved: count.counted.map((c) => c.person),
    missing: count.missing.map((s) => ({ people: s.people, groups: s.groups, rule: s.rule })),
    discounted: count.discounted.map((d) => ({
      person: d.person ?? null,
      reason: d.reason,
      detail: d.detail,
    })),
  };
}

function readStatement(bytes: Uint8Array): ApprovalStatement | string {
  try {
    return parseApproval(bytes);
  } catch (e) {
    if (e instanceof HoldpointError) return e.why ?? e.message;
    throw e;
  }
}

function firstDifference(
  facts: readonly (readonly [string, string | number, string | number])[],
): string | null {
  const found = facts.find(([, signed, here]) => signed !== here);
  return found === undefined ? null : `${found[0]}: signed for ${String(found[1])}, here ${String(found[2])}`;
}

function act(g: Good): ApprovalStatement["act"] {
  return g.statement.act;
}

function facts(g: Good): Pick<Discounted, "token" | "person"> {
  return { token: g.token, person: g.person.name };
}

function bad(token: Token, reason: Discount, detail: string, person?: string): Bad {
  return { kind: "bad", discounted: { token, reason, detail, ...(person === undefined ? {} : { person }) } };
}
