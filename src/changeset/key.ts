/**
 * Row keys as bytes whose order is the canonical order of a ChangeSet: whoever sorts by `memcmp`
 * (SQLite on a BLOB column, another language) gets the same order as we do.
 *
 * | value | bytes | order |
 * | --- | --- | --- |
 * | NULL | `05` | first |
 * | integer | `10`, 8 bytes big-endian, sign bit flipped | numerically |
 * | real | `11`, 8 bytes IEEE 754 big-endian; sign bit flipped, all bits flipped when negative | −∞ … −0, 0 … ∞, NaN |
 * | text | `20`, UTF-8 with `00` written `00 ff`, then `00 00` | by code point |
 * | raw text | `21`, bytes escaped the same way, then `00 00` | by byte |
 * | blob | `30`, bytes escaped the same way, then `00 00` | by byte |
 *
 * The tags keep types apart: `1` and `1.0` are two keys, as {@link sameValue} has it.
 */
import type { RowKey } from "./change.js";
import { isRawText, type Value } from "./value.js";
import { assertExact } from "./well-formed.js";

const TAG = { null: 0x05, integer: 0x10, real: 0x11, text: 0x20, rawText: 0x21, blob: 0x30 } as const;
const ESCAPED = 0xff;

/**
 * The key's bytes.
 * Law: `keyBytes(a)` equals `keyBytes(b)` exactly when all values are the same by {@link sameValue}.
 * Law: `memcmp(keyBytes(a), keyBytes(b))` has the sign of {@link compareKeys}`(a, b)`.
 * @throws TargetError ERR_TARGET_VALUE for a value without an exact form: an integer beyond 64 bits, text
 * with a lone surrogate, raw text that is valid UTF-8.
 */
export function keyBytes(key: RowKey): Uint8Array {
  const parts = key.map(valueBytes);
  const only = parts.length === 1 ? parts[0] : undefined;
  return only ?? Buffer.concat(parts);
}

/** {@link keyBytes} as a string, for maps and sets of keys; never shown. */
export function keyText(key: RowKey): string {
  const bytes = keyBytes(key);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

/** The order of {@link keyBytes}, without making the bytes: below zero when `a` comes first. */
export function compareKeys(a: RowKey, b: RowKey): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) {
    const order = compareValues(a[i] ?? null, b[i] ?? null);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function valueBytes(v: Value): Buffer {
  assertExact(v);
  if (v === null) return Buffer.of(TAG.null);
  if (typeof v === "bigint") return integerBytes(v);
  if (typeof v === "number") return realBytes(v);
  if (typeof v === "string") return delimited(TAG.text, Buffer.from(v, "utf8"));
  if (isRawText(v)) return delimited(TAG.rawText, v.bytes);
  return delimited(TAG.blob, v);
}

function integerBytes(v: bigint): Buffer {
  const out = Buffer.allocUnsafe(9);
  out[0] = TAG.integer;
  out.writeBigInt64BE(v, 1);
  out[1] = (out[1] ?? 0) ^ 0x80;
  return out;
}

function realBytes(v: number): Buffer {
  const out = Buffer.allocUnsafe(9);
  out[0] = TAG.real;
  out.writeDoubleBE(v, 1);
  // All NaN are one value here, whatever payload the engine happened to keep.
  if (Number.isNaN(v)) out.set([0x7f, 0xf8, 0, 0, 0, 0, 0, 0], 1);
  const negative = (out[1] ?? 0) >= 0x80;
  for (let i = 1; i < 9; i++) {
    if (negative) out[i] = (out[i] ?? 0) ^ 0xff;
    else if (i === 1) out[i] = (out[i] ?? 0) ^ 0x80;
  }
  return out;
}

/** `00` inside is written `00 ff`, so the closing `00 00` sorts before every longer value. */
function delimited(tag: number, bytes: Uint8Array): Buffer {
  const zeros = countZeros(bytes);
  const out = Buffer.allocUnsafe(bytes.length + zeros + 3);
  out[0] = tag;
  if (zeros === 0) out.set(bytes, 1);
  else copyEscaped(bytes, out);
  out[out.length - 2] = 0;
  out[out.length - 1] = 0;
  return out;
}

function copyEscaped(bytes: Uint8Array, out: Buffer): void {
  let at = 1;
  for (const byte of bytes) {
    out[at++] = byte;
    if (byte === 0) out[at++] = ESCAPED;
  }
}

function countZeros(bytes: Uint8Array): number {
  let zeros = 0;
  for (let at = bytes.indexOf(0); at !== -1; at = bytes.indexOf(0, at + 1)) zeros++;
  return zeros;
}

function compareValues(a: Value, b: Value): number {
  if (typeof a === "bigint" && typeof b === "bigint") return a < b ? -1 : a > b ? 1 : 0;
  if (typeof a === "string" && typeof b === "string") return compareTexts(a, b);
  if (typeof a === "number" && typeof b === "number") return compareReals(a, b);
  const order = tagOf(a) - tagOf(b);
  return order === 0 ? Math.sign(Buffer.compare(contentOf(a), contentOf(b))) : order;
}

function tagOf(v: Value): number {
  if (v === null) return TAG.null;
  if (typeof v === "bigint") return TAG.integer;
  if (typeof v === "number") return TAG.real;
  if (typeof v === "string") return TAG.text;
  return isRawText(v) ? TAG.rawText : TAG.blob;
}

function contentOf(v: Value): Uint8Array {
  if (typeof v !== "object" || v === null) return new Uint8Array(0);
  return isRawText(v) ? v.bytes : v;
}

function compareReals(a: number, b: number): number {
  if (a < b) return -1;
  if (a > b) return 1;
  if (Object.is(a, b)) return 0;
  if (Number.isNaN(a)) return 1;
  if (Number.isNaN(b)) return -1;
  return Object.is(a, -0) ? -1 : 1;
}

/** By code point, which is the order of the UTF-8 bytes; `<` on strings orders by UTF-16 unit instead. */
function compareTexts(a: string, b: string): number {
  if (a === b) return 0;
  const shared = Math.min(a.length, b.length);
  let i = 0;
  while (i < shared && a.charCodeAt(i) === b.charCodeAt(i)) i++;
  if (i === shared) return a.length - b.length;
  return codePointRank(a.charCodeAt(i)) - codePointRank(b.charCodeAt(i));
}

/** Surrogates stand for code points above U+FFFF, so they rank after every other unit. */
function codePointRank(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x1_0000 : unit;
}
