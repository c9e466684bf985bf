/**
 * The approval's bytes and the token that carries them. The bytes are lines of plain text, so that a person
 * who signs them elsewhere with `ssh-keygen` can read what they sign. There is one spelling of every
 * statement: reading refuses whatever writing would not have made. Format page: `docs/formats/token.md`.
 */
import { formatDuration, parseDuration, parseStamp, stamp } from "../base/clock.js";
import { type Digest, isDigest } from "../base/digest.js";
import { UsageError } from "../base/errors.js";
import { isId } from "../base/ids.js";
import type { ApprovalStatement, Token } from "./approval-statement.js";

const TITLE = "holdpoint approval";
const TOKEN_MARK = "hpa1";

/** A statement is refused above this: what a person cannot read, a person cannot approve. */
export const APPROVAL_LIMIT_BYTES = 4096;
/** Room for any RSA certificate; tokens are bounded so that reading one is cheap. */
const TOKEN_LIMIT_CHARACTERS = 64 * 1024;

/** Field and line name, in the order of the lines. */
const LINES = [
  ["format", "format"],
  ["act", "act"],
  ["plan", "plan"],
  ["planDigest", "plan-digest"],
  ["target", "target"],
  ["environment", "environment"],
  ["identity", "identity"],
  ["inserts", "inserts"],
  ["updates", "updates"],
  ["deletes", "deletes"],
  ["tables", "tables"],
  ["approver", "approver"],
  ["issuedAt", "issued-at"],
  ["expiresAt", "expires-at"],
  ["nonce", "nonce"],
  ["ledgerHead", "ledger-head"],
  ["reviewed", "reviewed"],
  ["coverUndo", "cover-undo"],
  ["reason", "reason"],
] as const satisfies readonly (readonly [keyof ApprovalStatement, string])[];

type Field = (typeof LINES)[number][0];

/** The word in `identity` for a target that was never pinned. */
export const NOT_PINNED = "none";

/** What an approval names of a plan. */
export interface PlanInApproval {
  readonly id: string;
  readonly digest: Digest;
  readonly target: string;
  /** The marker's identity; null when the target was not pinned. */
  readonly identity: string | null;
  readonly inserts: number;
  readonly updates: number;
  readonly deletes: number;
  /** How many tables change. */
  readonly tables: number;
}

/** The statement of an approval that is given now. */
export function makeApproval(args: {
  readonly act: ApprovalStatement["act"];
  readonly plan: PlanInApproval;
  /** The environment whose rules apply, as the approver was shown it. */
  readonly environment: string;
  readonly approver: string;
  readonly now: Date;
  readonly ttlSeconds: number;
  /** At least 16 bytes of cryptographic quality. */
  readonly nonce: Uint8Array;
  readonly ledgerHead: Digest | null;
  /** How long it was looked at in the tool; null for a signature made elsewhere. */
  readonly reviewedSeconds: number | null;
  readonly coverUndoSeconds: number | null;
  readonly reason: string | null;
}): ApprovalStatement {
  const { plan, now } = args;
  return {
    format: "holdpoint-approval/1",
    act: args.act,
    plan: plan.id,
    planDigest: plan.digest,
    target: plan.target,
    environment: args.environment,
    identity: plan.identity ?? NOT_PINNED,
    inserts: plan.inserts,
    updates: plan.updates,
    deletes: plan.deletes,
    tables: plan.tables,
    approver: args.approver,
    issuedAt: stamp(now),
    expiresAt: stamp(new Date(now.getTime() + args.ttlSeconds * 1000)),
    nonce: Buffer.from(args.nonce).toString("hex"),
    ledgerHead: args.ledgerHead ?? "none",
    reviewed: args.reviewedSeconds === null ? "elsewhere" : `in-tool ${formatDuration(args.reviewedSeconds)}`,
    coverUndo: args.coverUndoSeconds === null ? "no" : formatDuration(args.coverUndoSeconds),
    reason: args.reason ?? "-",
  };
}

/**
 * The exact bytes that are signed: the title, one line `name: value` for each field, LF after every line.
 * Law: `parseApproval(approvalBytes(s))` equals `s`.
 * @throws UsageError ERR_APPROVAL_MALFORMED for a value that does not stand on one visible line or that
 *   {@link parseApproval} would refuse.
 */
export function approvalBytes(s: ApprovalStatement): Uint8Array {
  const lines = LINES.map(([field, name]) => `${name}: ${String(s[field])}`);
  for (const [field] of LINES) {
    const wrong = wrongIn(field, String(s[field]));
    if (wrong !== null) throw malformed(wrong);
  }
  const bytes = Buffer.from(`${[TITLE, ...lines].join("\n")}\n`, "utf8");
  if (bytes.length > APPROVAL_LIMIT_BYTES) throw malformed(`the statement is ${bytes.length} bytes long`);
  refuseBackwards(s);
  return bytes;
}

/**
 * Reads a statement's bytes; only the one spelling is accepted.
 * @throws UsageError ERR_APPROVAL_MALFORMED saying which line is wrong.
 */
export function parseApproval(bytes: Uint8Array): ApprovalStatement {
  if (bytes.length > APPROVAL_LIMIT_BYTES) throw malformed(`the statement is ${bytes.length} bytes long`);
  const [title, ...lines] = textOf(bytes).split("\n");
  if (title !== TITLE) throw malformed(`the first line is not "${TITLE}"`);
  if (lines.pop() !== "" || lines.length !== LINES.length) {
    throw malformed(`a statement has ${LINES.length + 1} lines, each ending in a line feed`);
  }
  const value = new Map<Field, string>(
    LINES.map(([field, name], i) => [field, valueOf(field, name, lines[i] ?? "", i)]),
  );
  const statement = statementOf((field) => value.get(field) ?? "");
  refuseBackwards(statement);
  return statement;
}

/** The portable text: `hpa1.`, the statement and the SSHSIG blob in base64url without padding, a dot between. */
export function tokenText(bytes: Uint8Array, signature: Uint8Array): string {
  return [TOKEN_MARK, base64url(bytes), base64url(signature)].join(".");
}

/**
 * Reads a token. White space around it and inside it (a chat that wrapped the line) does not matter, any
 * other difference does. The signature's form and truth are checked when approvals are counted.
 * @throws UsageError ERR_APPROVAL_MALFORMED.
 */
export function parseToken(text: string): Token {
  if (text.length > TOKEN_LIMIT_CHARACTERS)
    throw malformed(`${text.length} characters are too long for a token`);
  const joined = text.replace(/[ \t\r\n]/g, "");
  const [mark, statement, signature, ...more] = joined.split(".");
  if (mark !== TOKEN_MARK || statement === undefined || signature === undefined || more.length > 0) {
    throw malformed(`a token is ${TOKEN_MARK}, the statement and the signature, with a dot between`);
  }
  const bytes = decodeBase64url(statement, "statement");
  const blob = decodeBase64url(signature, "signature");
  return { text: joined, statement: parseApproval(bytes), bytes, signature: blob };
}

/** The tokens in a text that holds any number of them, one after another (`HOLDPOINT_APPROVAL`, a file); unread. */
export function splitTokens(text: string): readonly string[] {
  return text
    .split(new RegExp(`(?:^|\\s)(?=${TOKEN_MARK}\\.)`))
    .map((t) => t.trim())
    .filter((t) => t !== "");
}

/** How long an undo is covered by this approval, in seconds; null when it is not. */
export function coverSeconds(s: ApprovalStatement): number | null {
  return parseDuration(s.coverUndo) ?? null;
}

function valueOf(field: Field, name: string, line: string, index: number): string {
  const start = `${name}: `;
  if (!line.startsWith(start)) throw malformed(`line ${index + 2} must begin with "${start}"`);
  const value = line.slice(start.length);
  const wrong = wrongIn(field, value);
  if (wrong !== null) throw malformed(wrong);
  return value;
}

function statementOf(value: (field: Field) => string): ApprovalStatement {
  return {
    format: "holdpoint-approval/1",
    act: value("act") === "approve" ? "approve" : "break-glass",
    plan: value("plan"),
    planDigest: value("planDigest") as Digest, // checked by wrongIn
    target: value("target"),
    environment: value("environment"),
    identity: value("identity"),
    inserts: Number(value("inserts")),
    updates: Number(value("updates")),
    deletes: Number(value("deletes")),
    tables: Number(value("tables")),
    approver: value("approver"),
    issuedAt: value("issuedAt"),
    expiresAt: value("expiresAt"),
    nonce: value("nonce"),
    ledgerHead: value("ledgerHead"),
    reviewed: value("reviewed"),
    coverUndo: value("coverUndo"),
    reason: value("reason"),
  };
}

/** What is wrong with a field's text, or null. The one place that knows each field's form. */
function wrongIn(field: Field, value: string): string | null {
  switch (field) {
    case "format":
      return value === "holdpoint-approval/1"
        ? null
        : `format must be holdpoint-approval/1, found ${quoted(value)}`;
    case "act":
      return value === "approve" || value === "break-glass" ? null : `act must be approve or break-glass`;
    case "plan":
      return isId("pl", value) ? null : `plan must be a whole plan id, found ${quoted(value)}`;
    case "planDigest":
      return isDigest(value) ? null : "plan-digest must be a sha256 digest";
    case "ledgerHead":
      return value === "none" || isDigest(value) ? null : "ledger-head must be none or a sha256 digest";
    case "inserts":
    case "updates":
    case "deletes":
    case "tables":
      return isCount(value) ? null : `${field} must be a whole number, found ${quoted(value)}`;
    case "issuedAt":
    case "expiresAt":
      return parseStamp(value) === undefined ? `${field} must be a time like 2026-11-24T14:38:44Z` : null;
    case "nonce":
      return /^[0-9a-f]{32,64}$/.test(value) ? null : "nonce must be at least 128 bits in hexadecimal";
    case "reviewed":
      return isReview(value) ? null : "reviewed must be elsewhere, or in-tool and a duration";
    case "coverUndo":
      return value === "no" || isDuration(value) ? null : "cover-undo must be no or a duration";
    case "target":
    case "environment":
    case "identity":
    case "approver":
    case "reason":
      return wrongLine(field, value);
  }
}

/**
 * Free text: one line that shows all of itself. Control and format characters are refused, because a signer
 * reads this on a screen: a carriage return or a direction override would show other words than are signed.
 */
export function wrongLine(field: string, value: string): string | null {
  if (value === "") return `${field} is empty`;
  if (value !== value.trim()) return `${field} has white space around it`;
  if (!value.isWellFormed() || /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}]/u.test(value)) {
    return `${field} has a character that does not show: ${quoted(value)}`;
  }
  return null;
}

function isCount(text: string): boolean {
  return /^(0|[1-9]\d*)$/.test(text) && Number.isSafeInteger(Number(text));
}

/** A duration in its shortest spelling. */
function isDuration(text: string): boolean {
  const seconds = parseDuration(text);
  return seconds !== undefined && formatDuration(seconds) === text;
}

function isReview(text: string): boolean {
  if (text === "elsewhere") return true;
  const time = text.startsWith("in-tool ") ? text.slice("in-tool ".length) : "";
  return time === "0s" || isDuration(time);
}

function refuseBackwards(s: ApprovalStatement): void {
  if (s.issuedAt >= s.expiresAt)
    throw malformed(`it expires at ${s.expiresAt}, not after it is issued at ${s.issuedAt}`);
}

function textOf(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString("utf8");
  // Invalid UTF-8 comes back as U+FFFD: not the bytes that were signed.
  if (!Buffer.from(text, "utf8").equals(bytes)) throw malformed("the statement is not valid UTF-8");
  return text;
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64url");
}

/** Only the spelling that encoding gives back: no padding, no spare bits, no other alphabet. */
function decodeBase64url(text: string, what: string): Uint8Array {
  const bytes = Buffer.from(text, "base64url");
  if (text === "" || base64url(bytes) !== text) throw malformed(`the token's ${what} is damaged or cut off`);
  return bytes;
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}…` : text);
}

function malformed(why: string): UsageError {
  return new UsageError({
    code: "ERR_APPROVAL_MALFORMED",
    message: "this is not an approval that can be read",
    why,
    next: [{ actor: "approver", text: "Copy the whole token again, from hpa1. to its last character" }],
  });
}
