/**
 * Statements besides plans and approvals: a change of the trust bundle or of a pin, a rejection, an approval taken
 * back, a review of a run, a look at masked values. Like an approval they are lines of plain text, so that whoever signs them elsewhere with
 * `ssh-keygen` reads what they sign, down to each single change. Format page: `docs/formats/statement.md`.
 */
import { parseStamp, stamp } from "../base/clock.js";
import { UsageError } from "../base/errors.js";
import { ownerOfSignature } from "./people.js";
import { NAMESPACES, type Person } from "./requirement.js";
import { dearmor, verifySshsig } from "./sshsig.js";
import { wrongLine } from "./token.js";

const TITLE = "holdpoint statement";

/** What a statement can do, and the SSH signature namespace that it is signed in. */
export const STATEMENT_NAMESPACES = {
  "change-trust": NAMESPACES.trust,
  "change-pin": NAMESPACES.pin,
  reject: NAMESPACES.approval,
  revoke: NAMESPACES.approval,
  review: NAMESPACES.approval,
  reveal: NAMESPACES.approval,
} as const;

/** One of the acts. */
export type StatementAct = keyof typeof STATEMENT_NAMESPACES;

/** Format version 1. Texts are one visible line each; `-` where there is nothing to say. */
export interface Statement {
  readonly format: "holdpoint-statement/1";
  readonly act: StatementAct;
  readonly target: string;
  /** The marker's identity when it was prepared; `none` where there is no marker. */
  readonly identity: string;
  /** What it is about: a plan or run; `-` where it is about the target itself. */
  readonly subject: string;
  /** What holds before and after: bundle digests, identities, nonces; `-` where there are none. */
  readonly from: string;
  readonly to: string;
  /** The person who says it; `-` where a quorum does. */
  readonly by: string;
  readonly madeAt: string;
  readonly expiresAt: string;
  /** 128 random bits in hexadecimal; used once. */
  readonly nonce: string;
  readonly reason: string;
  /** Every change in words, in the order of the screen. */
  readonly changes: readonly string[];
}

const LINES = [
  ["format", "format"],
  ["act", "act"],
  ["target", "target"],
  ["identity", "identity"],
  ["subject", "subject"],
  ["from", "from"],
  ["to", "to"],
  ["by", "by"],
  ["madeAt", "made-at"],
  ["expiresAt", "expires-at"],
  ["nonce", "nonce"],
  ["reason", "reason"],
] as const satisfies readonly (readonly [Exclude<keyof Statement, "changes">, string])[];

const CHANGE = "change: ";
/** A statement above this is refused: nobody would read it before signing, and no entry of the ledger could hold it. */
export const STATEMENT_LIMIT_BYTES = 32 * 1024;

/** A statement made now. */
export function makeStatement(args: {
  readonly act: StatementAct;
  readonly target: string;
  readonly identity: string | null;
  readonly subject?: string;
  readonly from?: string;
  readonly to?: string;
  readonly by?: string;
  readonly now: Date;
  readonly ttlSeconds: number;
  readonly nonce: Uint8Array;
  readonly reason?: string | null;
  readonly changes?: readonly string[];
}): Statement {
  return {
    format: "holdpoint-statement/1",
    act: args.act,
    target: args.target,
    identity: args.identity ?? "none",
    subject: args.subject ?? "-",
    from: args.from ?? "-",
    to: args.to ?? "-",
    by: args.by ?? "-",
    madeAt: stamp(args.now),
    expiresAt: stamp(new Date(args.now.getTime() + args.ttlSeconds * 1000)),
    nonce: Buffer.from(args.nonce).toString("hex"),
    reason: args.reason ?? "-",
    changes: args.changes ?? [],
  };
}

/**
 * The exact bytes that are signed. Law: `parseStatement(statementBytes(s))` equals `s`.
 * @throws UsageError ERR_STATEMENT_MALFORMED for a value that does not stand on one visible line.
 */
export function statementBytes(s: Statement): Uint8Array {
  const lines = [
    ...LINES.map(([field, name]) => `${name}: ${s[field]}`),
    ...s.changes.map((c) => `${CHANGE}${c}`),
  ];
  const bytes = Buffer.from(`${[TITLE, ...lines].join("\n")}\n`, "utf8");
  // There is one spelling: what reading would refuse is never written.
  parseStatement(bytes);
  return bytes;
}

/**
 * Reads a statement; only the one spelling is accepted.
 * @throws UsageError ERR_STATEMENT_MALFORMED saying which line is wrong.
 */
export function parseStatement(bytes: Uint8Array): Statement {
  if (bytes.length > STATEMENT_LIMIT_BYTES) throw malformed(`it is ${bytes.length} bytes long`);
  const text = Buffer.from(bytes).toString("utf8");
  if (!Buffer.from(text, "utf8").equals(bytes)) throw malformed("it is not valid UTF-8");
  const [title, ...lines] = text.split("\n");
  if (title !== TITLE) throw malformed(`the first line is not "${TITLE}"`);
  if (lines.pop() !== "" || lines.length < LINES.length) {
    throw malformed(`a statement has at least ${LINES.length + 1} lines, each ending in a line feed`);
  }
  const value = new Map<string, string>(
    LINES.map(([field, name], i) => [field, valueOf(name, lines[i] ?? "", i)]),
  );
  const changes = lines.slice(LINES.length).map((line, i) => valueOf("change", line, LINES.length + i));
  return checked((field) => value.get(field) ?? "", changes);
}

function valueOf(name: string, line: string, index: number): string {
  const start = `${name}: `;
  if (!line.startsWith(start)) throw malformed(`line ${index + 2} must begin with "${start}"`);
  const value = line.slice(start.length);
  const wrong = wrongLine(name, value);
  if (wrong !== null) throw malformed(wrong);
  return value;
}

function checked(value: (field: keyof Statement) => string, changes: readonly string[]): Statement {
  const format = value("format");
  if (format !== "holdpoint-statement/1")
    throw malformed(`format must be holdpoint-statement/1, found ${format}`);
  const act = actOf(value("act"));
  const [madeAt, expiresAt] = [value("madeAt"), value("expiresAt")];
  if (parseStamp(madeAt) === undefined || parseStamp(expiresAt) === undefined || madeAt >= expiresAt) {
    throw malformed("made-at and expires-at must be times like 2026-11-24T14:38:44Z, one after the other");
  }
  if (!/^[0-9a-f]{32}$/.test(value("nonce"))) throw malformed("nonce must be 128 bits in hexadecimal");
  return {
    format,
    act,
    target: value("target"),
    identity: value("identity"),
    subject: value("subject"),
    from: value("from"),
    to: value("to"),
    by: value("by"),
    madeAt,
    expiresAt,
    nonce: value("nonce"),
    reason: value("reason"),
    changes,
  };
}

function actOf(text: string): StatementAct {
  switch (text) {
    case "change-trust":
    case "change-pin":
    case "reject":
    case "revoke":
    case "review":
    case "reveal":
      return text;
  }
  throw malformed(`act must be one of ${Object.keys(STATEMENT_NAMESPACES).join(", ")}, found ${text}`);
}

/** One signature over a statement, judged: whose it is, or why it is worth nothing. */
export type StatementSigner =
  | { readonly ok: true; readonly person: Person; readonly fingerprint: string }
  | { readonly ok: false; readonly why: string };

/**
 * Who signed these bytes, for the act that they name.
 * @param signature an SSHSIG blob, or its armor as `ssh-keygen -Y sign` writes it.
 */
export function signerOf(
  people: readonly Person[],
  statement: { readonly bytes: Uint8Array; readonly act: StatementAct },
  signature: Uint8Array,
  now: Date,
): StatementSigner {
  const namespace = STATEMENT_NAMESPACES[statement.act];
  const blob = blobOf(signature);
  if (blob === null) return { ok: false, why: "it is not an SSH signature" };
  const check = verifySshsig({ bytes: statement.bytes, signature: blob, namespace });
  if (!check.ok) return { ok: false, why: check.why };
  const owner = ownerOfSignature(people, check, namespace, now);
  if (owner.kind !== "person") return { ok: false, why: owner.why };
  // A hardware key that nobody touched could have been used by any program: worth nothing, as for approvals.
  if (check.userPresent === false) return { ok: false, why: "the hardware key was not touched" };
  return { ok: true, person: owner.person, fingerprint: check.key.fingerprint };
}

function blobOf(signature: Uint8Array): Uint8Array | null {
  const text = Buffer.from(signature).toString("latin1");
  if (text.startsWith("SSHSIG")) return signature;
  try {
    return dearmor(text);
  } catch {
    return null;
  }
}

/** How many different people signed, and what was wrong with the signatures that do not count. */
export interface Signers {
  readonly people: readonly string[];
  readonly worthless: readonly string[];
}

/**
 * Counts people, after verifying: a bad signature is worth nothing, the same person or the same key twice is worth one.
 * @param groups only members of one of these count; empty for everyone.
 */
export function countSigners(
  people: readonly Person[],
  statement: { readonly bytes: Uint8Array; readonly act: StatementAct },
  signatures: readonly Uint8Array[],
  options: { readonly now: Date; readonly groups: readonly string[] },
): Signers {
  const counted = new Map<string, string>();
  const worthless: string[] = [];
  for (const signature of signatures) {
    const signer = signerOf(people, statement, signature, options.now);
    if (!signer.ok) {
      worthless.push(signer.why);
      continue;
    }
    const { person, fingerprint } = signer;
    if (counted.has(person.name)) worthless.push(`${person.name} is counted already`);
    else if ([...counted.values()].includes(fingerprint))
      worthless.push(`the key ${fingerprint} is counted already`);
    else if (options.groups.length > 0 && !options.groups.some((g) => person.groups.includes(g))) {
      worthless.push(`${person.name} is in none of ${options.groups.join(", ")}`);
    } else counted.set(person.name, fingerprint);
  }
  return { people: [...counted.keys()], worthless };
}

function malformed(why: string): UsageError {
  return new UsageError({
    code: "ERR_STATEMENT_MALFORMED",
    message: "this is not a statement that can be read",
    why,
    next: [{ actor: "anyone", text: "Use the file as holdpoint wrote it, byte for byte." }],
  });
}
