/**
 * What a job's child asks of the process that started it, where the job has no database of its own to work on: one
 * statement at a time, and its answer. The child has no address, no credentials and no connection.
 *
 * On the wire a message is its length in four bytes, little end first, and canonical JSON. Values keep their type: an
 * integer is `{ "i": "…" }`, a real `{ "r": "…" }`, bytes `{ "b": hex }`. Nothing of it is ever evaluated.
 */
import type { Value } from "../changeset/value.js";
import { isRawText } from "../changeset/value.js";
import type { JobRow, JobValues } from "./job-connection.js";

/** One statement. */
export interface JobQuestion {
  readonly sql: string;
  readonly values: JobValues;
}

/** What became of it. */
export type JobAnswer =
  | { readonly ok: true; readonly rows: readonly JobRow[]; readonly changes: number }
  | { readonly ok: false; readonly message: string };

/** Answers a question; never throws for what the statement brings about. */
export type AnswerJob = (question: JobQuestion) => Promise<JobAnswer>;

/** Bytes of one message, at most. */
export const MOST_MESSAGE_BYTES = 256 * 1024 * 1024;
/** Bytes of the length before each message. */
export const LENGTH_BYTES = 4;

/** The bytes of a question. */
export function encodeQuestion({ sql, values }: JobQuestion): Buffer {
  return framed({ sql, values: encodedValues(values) });
}

/** The question in a message. @throws Error for anything else. */
export function decodeQuestion(message: Uint8Array): JobQuestion {
  const { sql, values } = objectOf(parsed(message));
  if (typeof sql !== "string") throw malformed();
  return { sql, values: decodedValues(values) };
}

/** The bytes of an answer. */
export function encodeAnswer(answer: JobAnswer): Buffer {
  if (!answer.ok) return framed({ message: answer.message });
  return framed({ rows: answer.rows.map(encodedValues), changes: answer.changes });
}

/** The answer in a message. @throws Error for anything else. */
export function decodeAnswer(message: Uint8Array): JobAnswer {
  const { rows, changes, message: text } = objectOf(parsed(message));
  if (typeof text === "string") return { ok: false, message: text };
  if (!Array.isArray(rows) || typeof changes !== "number") throw malformed();
  return { ok: true, rows: rows.map(decodedValues), changes };
}

function framed(message: unknown): Buffer {
  const text = Buffer.from(JSON.stringify(message), "utf8");
  const frame = Buffer.alloc(LENGTH_BYTES + text.length);
  frame.writeUInt32LE(text.length);
  text.copy(frame, LENGTH_BYTES);
  return frame;
}

function parsed(message: Uint8Array): unknown {
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(message)) as unknown;
}

function encodedValues(values: JobValues): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, encoded(value)]));
}

function encoded(value: Value): unknown {
  if (value === null || typeof value === "string") return value;
  if (typeof value === "bigint") return { i: String(value) };
  if (typeof value === "number") return { r: Object.is(value, -0) ? "-0" : String(value) };
  return { b: Buffer.from(isRawText(value) ? value.bytes : value).toString("hex") };
}

function decodedValues(values: unknown): JobValues {
  return Object.fromEntries(Object.entries(objectOf(values)).map(([name, value]) => [name, decoded(value)]));
}

function decoded(value: unknown): Value {
  if (value === null || typeof value === "string") return value;
  const { i, r, b } = objectOf(value);
  if (typeof i === "string" && /^-?\d{1,1000}$/.test(i)) return BigInt(i);
  if (typeof r === "string") return Number(r);
  if (typeof b === "string" && /^(?:[0-9a-f]{2})*$/.test(b)) return Buffer.from(b, "hex");
  throw malformed();
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw malformed();
  return Object.fromEntries(Object.entries(value));
}

function malformed(): Error {
  return new Error("the message has another form than agreed");
}
