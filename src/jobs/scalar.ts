/**
 * One value of a parameter: read from text exactly, or not at all. Nothing is rounded, and nothing is
 * converted that a person could have meant otherwise.
 */
import { formatDuration, parseDuration, stamp } from "../base/clock.js";
import type { Value } from "../changeset/value.js";

/** Types of one value. */
export const SCALAR_TYPES = [
  "integer",
  "number",
  "text",
  "boolean",
  "date",
  "timestamp",
  "duration",
] as const;
/** The type of one value. */
export type ScalarType = (typeof SCALAR_TYPES)[number];
/** One value in all its forms. */
export interface Scalar {
  readonly value: Value;
  /** The one text form: what the statement says and what reads back as the same value. */
  readonly text: string;
  /** What a module's `params` has. */
  readonly native: string | number | bigint | boolean;
  /** What `minimum` and `maximum` compare; the same kind for all values of a type. */
  readonly order: string | number | bigint;
}

/** What each type takes, in words. */
export const TYPE_WORDS: Readonly<Record<ScalarType, string>> = {
  integer: "a whole number like 30",
  number: "a number like 0.25, of at most 15 digits",
  text: "text that is not blank",
  boolean: "true or false",
  date: "a date like 2026-11-24",
  timestamp: "a time with its zone like 2026-11-24T14:38:44Z",
  duration: "a duration like 90s, 48h or 7d",
};

const SCALAR_READERS: Readonly<Record<ScalarType, (text: string) => Scalar | null>> = {
  integer: integerScalar,
  number: numberScalar,
  text: (text) => (isPlainText(text) ? sameInAllForms(text) : null),
  boolean: booleanScalar,
  date: (text) => (isDate(text) ? sameInAllForms(text) : null),
  timestamp: timestampScalar,
  duration: durationScalar,
};

/**
 * Reads one value; null when the text is not exactly of that type.
 * Law: `parseScalar(t, parseScalar(t, x).text)` equals `parseScalar(t, x)`.
 */
export function parseScalar(type: ScalarType, text: string): Scalar | null {
  return SCALAR_READERS[type](text);
}

function sameInAllForms(text: string): Scalar {
  return { value: text, text, native: text, order: text };
}

function integerScalar(text: string): Scalar | null {
  if (!/^(0|-?[1-9]\d{0,18})$/.test(text)) return null;
  const value = BigInt(text);
  return BigInt.asIntN(64, value) === value ? { value, text, native: value, order: value } : null;
}

function numberScalar(text: string): Scalar | null {
  const parts = /^-?(\d+)(?:\.(\d+))?(?:[eE][+-]?\d{1,3})?$/.exec(text);
  if (parts === null) return null;
  // 15 significant digits are what a double always keeps: more would be rounded silently.
  const digits = `${parts[1] ?? ""}${parts[2] ?? ""}`.replace(/^0+/, "");
  const value = Number(text);
  if (digits.length > 15 || !Number.isFinite(value) || (value === 0 && digits !== "")) return null;
  const canonical = Object.is(value, -0) ? "-0" : String(value);
  return { value, text: canonical, native: value, order: value };
}

function isPlainText(text: string): boolean {
  return text.trim() !== "" && text.isWellFormed() && !text.includes("\0");
}

function booleanScalar(text: string): Scalar | null {
  if (text !== "true" && text !== "false") return null;
  const value = text === "true" ? 1n : 0n;
  return { value, text, native: text === "true", order: value };
}

function isDate(text: string): boolean {
  if (!/^\d{4}-\d{2}-\d{2}$/.test(text) || text.startsWith("0000")) return false;
  const day = new Date(`${text}T00:00:00Z`);
  // A Date turns 30 February into 2 March: only what reads back is a date.
  return !Number.isNaN(day.getTime()) && day.toISOString().slice(0, 10) === text;
}

function timestampScalar(text: string): Scalar | null {
  const parts =
    /^(\d{4}-\d{2}-\d{2})T((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.(\d{1,6}))?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/.exec(
      text,
    );
  const [, day = "", time = "", fraction = "", zone = ""] = parts ?? [];
  if (parts === null || !isDate(day)) return null;
  const at = new Date(`${day}T${time}${zone}`);
  const seconds = stamp(at);
  if (!isDate(seconds.slice(0, 10))) return null;
  const kept = fraction.replace(/0+$/, "");
  const canonical = kept === "" ? seconds : `${seconds.slice(0, -1)}.${kept}Z`;
  const order = BigInt(at.getTime()) * 1000n + BigInt(fraction.padEnd(6, "0"));
  return { value: canonical, text: canonical, native: canonical, order };
}

function durationScalar(text: string): Scalar | null {
  const seconds = parseDuration(text);
  if (seconds === undefined) return null;
  const value = BigInt(seconds);
  return { value, text: formatDuration(seconds), native: value, order: value };
}
