/**
 * Canonical JSON, RFC 8785 (JCS), the strict subset that holdpoint signs: null, booleans, safe
 * integers, well-formed strings, arrays, plain objects. Everything else is refused rather than
 * silently turned into something: Map, Date, Buffer, `toJSON`, undefined, lone surrogates, fractions.
 * 64-bit integers travel as decimal strings.
 */
import { isUtf8 } from "node:buffer";
import { HoldpointError } from "./errors.js";

/** A value that has exactly one canonical form. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/**
 * The one text of `value`. Keys are ordered by UTF-16 code units (RFC 8785 §3.2.3).
 * Law: `canonical(JSON.parse(canonical(v)))` equals `canonical(v)`.
 * @throws HoldpointError ERR_INTERNAL for a value outside the subset.
 */
export function canonical(value: Json): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number") return canonicalNumber(value);
  if (typeof value === "string") return canonicalString(value);
  if (Array.isArray(value)) return `[${value.map((v: Json) => canonical(v)).join(",")}]`;
  if (isPlainObject(value)) {
    const members = Object.keys(value)
      .sort(byCodeUnit)
      .map((k) => `${canonicalString(k)}:${canonical(memberOf(value, k))}`);
    return `{${members.join(",")}}`;
  }
  throw notCanonical(`a ${typeof value}`);
}

/** {@link canonical} as UTF-8 bytes, the form that is hashed and signed. */
export function canonicalBytes(value: Json): Uint8Array {
  return Buffer.from(canonical(value), "utf8");
}

/** Code-unit order: what RFC 8785 asks for, and what `<` does on strings in every locale. */
export function byCodeUnit(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * Parses text that must already be canonical: a second spelling of the same value (a space, another
 * key order, a duplicate key, `1.0`) is refused, so signed bytes have exactly one reading.
 * @returns undefined when the text is not canonical JSON.
 */
export function parseCanonical(text: string): Json | undefined {
  let value: Json;
  try {
    value = JSON.parse(text) as Json;
    return canonical(value) === text ? value : undefined;
  } catch {
    return undefined;
  }
}

/**
 * {@link parseCanonical} of bytes. Bytes that are no UTF-8 would all be read as one and the same character, so a document that
 * holds that character would have many spellings.
 */
export function parseCanonicalBytes(bytes: Uint8Array): Json | undefined {
  if (!isUtf8(bytes)) return undefined;
  return parseCanonical(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8"));
}

function canonicalNumber(n: number): string {
  if (!Number.isSafeInteger(n) || Object.is(n, -0)) throw notCanonical(`the number ${n}`);
  return String(n);
}

function canonicalString(s: string): string {
  if (!s.isWellFormed()) throw notCanonical("a string with a lone surrogate");
  return JSON.stringify(s);
}

function isPlainObject(v: unknown): v is { readonly [key: string]: Json } {
  if (typeof v !== "object" || v === null) return false;
  const proto: unknown = Object.getPrototypeOf(v);
  // Inside jest's vm, plain objects of another realm have another Object.prototype: ask for its shape.
  return proto === null || Object.getPrototypeOf(proto) === null;
}

function memberOf(o: { readonly [key: string]: Json }, k: string): Json {
  const v = o[k];
  if (v === undefined) throw notCanonical(`undefined at "${k}"`);
  return v;
}

function notCanonical(what: string): HoldpointError {
  return new HoldpointError({ code: "ERR_INTERNAL", message: `${what} has no canonical form` });
}
