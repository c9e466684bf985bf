/**
 * The plan statement's bytes: canonical JSON, one spelling only. What is signed is these bytes, what the
 * id is taken from is these bytes, so reading must refuse everything that writing would not have made.
 * Format page: `docs/formats/plan.md`.
 */
import { canonicalBytes, parseCanonical } from "../base/canonical.js";
import {
  array,
  boolean,
  count,
  decode,
  type Decoder,
  digest,
  int,
  literal,
  nonEmpty,
  nullable,
  object,
  objectWith,
  pair,
  record,
  stampText,
  string,
  tagged,
  toJson,
  where,
} from "../base/decode.js";
import { type Digest, digestOf } from "../base/digest.js";
import { HoldpointError, IntegrityError } from "../base/errors.js";
import { idFromDigest } from "../base/ids.js";
import type { PlannedDirection, PlanStatement, ScriptValue } from "./plan-statement.js";

/** Larger statements are refused unread: a statement holds counts and words, rows live in the ChangeSet. */
export const PLAN_STATEMENT_LIMIT_BYTES = 16 * 1024 * 1024;

const nonce = where(string, (s) => /^[0-9a-f]{32,64}$/.test(s), "at least 128 random bits in hexadecimal");
const texts = record(string);

const requester: Decoder<PlanStatement["requester"]> = object({
  person: nullable(nonEmpty),
  key: nullable(where(string, (s) => /^SHA256:[A-Za-z0-9+/]{43}$/.test(s), "a SHA256 fingerprint")),
  how: literal("ssh-key", "ci-token", "none"),
  claims: texts,
});

const ends = nullable(array(nullable(string)));
const direction: Decoder<PlannedDirection> = object({
  table: nonEmpty,
  column: nonEmpty,
  from: ends,
  to: ends,
  way: nullable(literal("up", "down")),
});

const job: Decoder<NonNullable<PlanStatement["job"]>> = objectWith(
  {
    name: nonEmpty,
    kind: literal("sql", "module", "command"),
    source: digest,
    path: nullable(string),
    parameters: texts,
    arguments: array(string),
    selective: boolean,
    scope: nullable(array(nonEmpty)),
    expect: nullable(record(record(pair(count, count)))),
  },
  { direction: array(direction) },
);

const origin: Decoder<NonNullable<PlanStatement["from"]>> = object({
  kind: literal("undo", "rescue"),
  runs: array(nonEmpty),
  plans: array(digest),
  snapshot: nullable(nonEmpty),
  manifest: nullable(digest),
  counts: object({ put_back: count, merged: count, nothing_to_do: count, conflict: count }),
  clean: boolean,
});

const schemaChange = objectWith(
  {
    action: literal("create", "drop", "alter"),
    object: nonEmpty,
    name: string,
    before: nullable(string),
    after: nullable(string),
    undo: nonEmpty,
  },
  { table: nonEmpty },
);

const valueIs = (holds: (text: string) => boolean, expected: string): Decoder<string> =>
  where(string, holds, expected);

/** One spelling of every value: what is bound again is what was bound. */
const scriptValue: Decoder<ScriptValue> = tagged("type", {
  null: object({ type: literal("null"), value: valueIs((s) => s === "", "empty") }),
  integer: object({ type: literal("integer"), value: valueIs(isInt64, "a 64-bit integer") }),
  real: object({ type: literal("real"), value: valueIs(isRealText, "the shortest text of a real") }),
  text: object({ type: literal("text"), value: string }),
  blob: object({
    type: literal("blob"),
    value: valueIs((s) => /^(?:[0-9a-f]{2})*$/.test(s), "hexadecimal digits"),
  }),
});

function isInt64(text: string): boolean {
  return /^(?:0|-?[1-9]\d{0,18})$/.test(text) && BigInt.asIntN(64, BigInt(text)) === BigInt(text);
}

function isRealText(text: string): boolean {
  return text === "-0" || (text !== "NaN" && String(Number(text)) === text);
}

const plannedTable = object({
  name: nonEmpty,
  insert: count,
  update: count,
  delete: count,
  rows_before: count,
  origin: literal("job", "cascade", "trigger", "unknown"),
});

const statement: Decoder<PlanStatement> = objectWith(
  {
    format: literal("holdpoint-plan/1"),
    requester,
    job: nullable(job),
    from: nullable(origin),
    target: object({
      name: nonEmpty,
      adapter: nonEmpty,
      identity: nullable(nonEmpty),
      verdict: literal("production", "staging", "development", "unproven"),
    }),
    rehearsal: objectWith(
      { where: literal("in-place", "copy", "clone", "merge"), at: stampText, lock_ms: count },
      {
        undo: object({
          rehearsed: literal("all", "sample", "not"),
          identical: count,
          of: count,
          why: nullable(nonEmpty),
        }),
        clone: object({ name: nonEmpty, identity: nullable(nonEmpty), place: texts }),
      },
    ),
    schema: object({ fingerprint: digest, changes: array(schemaChange) }),
    settings: texts,
    mode: literal("rows", "script"),
    script: array(object({ text: nonEmpty, line: count, values: record(scriptValue) })),
    waves: nullable(array(nonEmpty)),
    pace: object({ max_rows_per_second: nullable(where(int, (n) => n > 0, "a whole number over zero")) }),
    checks: array(string),
    hooks: array(string),
    snapshot: object({ level: literal("rows", "tables", "database") }),
    bundle: digest,
    changeset: object({ digest, rows: count, tables: array(plannedTable) }),
    sequences: array(object({ name: nonEmpty, before: string, after: string })),
    volatile: array(object({ table: nonEmpty, column: nonEmpty, rows: count })),
    notices: array(string),
    decision: literal("allow", "needs-approval", "deny"),
    reason: nullable(string),
    ticket: nullable(string),
    created_at: stampText,
    expires_at: stampText,
    ledger: nullable(object({ id: nonEmpty, head: digest })),
    nonce,
  },
  { put_back: literal(true) },
);

/**
 * The one byte form of a statement. Law: `parsePlanStatement(planStatementBytes(s))` equals `s`.
 * @throws HoldpointError ERR_INTERNAL for a statement that {@link parsePlanStatement} would refuse, so that
 *   nothing is ever signed that cannot be read back.
 */
export function planStatementBytes(s: PlanStatement): Uint8Array {
  const value = toJson(s);
  const checked = decode(statement, value);
  if (!checked.ok) {
    throw new HoldpointError({
      code: "ERR_INTERNAL",
      message: "a plan statement is not well formed",
      why: checked.why,
    });
  }
  return canonicalBytes(value);
}

/**
 * Reads a statement's bytes. Only the canonical spelling is accepted, every field is checked, unknown
 * fields and format versions are refused.
 * @throws IntegrityError ERR_PLAN_ALTERED with the path of what is wrong.
 */
export function parsePlanStatement(bytes: Uint8Array): PlanStatement {
  if (bytes.length > PLAN_STATEMENT_LIMIT_BYTES) throw altered(`the statement is ${bytes.length} bytes long`);
  const value = parseCanonical(textOf(bytes));
  if (value === undefined) throw altered("the statement is not canonical JSON (RFC 8785)");
  const decoded = decode(statement, value);
  if (!decoded.ok) throw altered(decoded.why);
  return decoded.value;
}

/** What an approval names and the id is taken from: SHA-256 over the statement's bytes. */
export function planDigest(bytes: Uint8Array): Digest {
  return digestOf(bytes);
}

/** `pl_` and the first 80 bits of the digest. For people and look-ups; what is compared is the digest. */
export function planId(digest: Digest): string {
  return idFromDigest("pl", digest);
}

function textOf(bytes: Uint8Array): string {
  try {
    // ignoreBOM keeps a byte order mark in the text, where the canonical check refuses it.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw altered("the statement is not valid UTF-8", cause);
  }
}

function altered(why: string, cause?: unknown): IntegrityError {
  return new IntegrityError({
    code: "ERR_PLAN_ALTERED",
    message: "the plan's statement is not one that holdpoint writes",
    why,
    next: [
      {
        actor: "requester",
        text: "Do not retry. Make the plan again, and keep this file if you did not edit it.",
      },
    ],
    cause,
  });
}
