/**
 * Values as a target holds them, exactly. Nothing here is rounded or normalised: a 64-bit integer stays
 * a `bigint`, a real keeps its bits (−0, infinities, NaN), NULL, `''` and an empty blob are three things,
 * and text that is not valid UTF-8 keeps its bytes. Targets whose types have no exact JavaScript form
 * (decimals, time stamps, ranges) use their canonical text; the column's type says how to read it.
 */

/** Text whose bytes are not valid UTF-8. */
export interface RawText {
  readonly kind: "raw-text";
  readonly bytes: Uint8Array;
}

/** One cell. `null` is SQL NULL. */
export type Value = null | bigint | number | string | Uint8Array | RawText;

/** A row's cells in the order of its table's columns (generated columns included, so they are compared). */
export type Row = readonly Value[];

/** Whether the value is text that is not valid UTF-8. */
export function isRawText(v: Value): v is RawText {
  return typeof v === "object" && v !== null && "kind" in v;
}

/** Same type and same bits: `1n` is not `1`, `0` is not `-0`, NaN equals NaN, `''` is not NULL. */
export function sameValue(a: Value, b: Value): boolean {
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return Object.is(a, b);
  if (isRawText(a)) return isRawText(b) && sameBytes(a.bytes, b.bytes);
  return !isRawText(b) && sameBytes(a, b);
}

/** {@link sameValue} cell by cell; `null` (no row) equals only `null`. */
export function sameRow(a: Row | null, b: Row | null): boolean {
  if (a === null || b === null) return a === b;
  if (a.length !== b.length) return false;
  // A loop: every row of a plan passes here several times.
  for (let i = 0; i < a.length; i++) if (!sameValue(a[i] ?? null, b[i] ?? null)) return false;
  return true;
}

/** Byte-wise equality. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}

/** A scalar in its text form, as configuration names values; null for NULL, blobs and broken text. */
export function textOf(v: Value): string | null {
  if (typeof v === "string") return v;
  return typeof v === "bigint" || typeof v === "number" ? String(v) : null;
}
