/** Values in `--json`: as JSON has them where it has them exactly, else as text that says what it is. */
import type { Value } from "../changeset/value.js";

/**
 * NULL is null, text is a string, integers up to 2^53 are numbers and larger ones decimal text, finite reals are
 * numbers and the rest their names, bytes are `{ "hex": "…" }`, text that is not UTF-8 is `{ "text_hex": "…" }`.
 */
export function valueJson(v: Value): unknown {
  if (v === null || typeof v === "string") return v;
  if (typeof v === "bigint") {
    const small = v >= BigInt(Number.MIN_SAFE_INTEGER) && v <= BigInt(Number.MAX_SAFE_INTEGER);
    return small ? Number(v) : v.toString();
  }
  if (typeof v === "number")
    return Number.isFinite(v) && (!Number.isInteger(v) || Number.isSafeInteger(v)) ? v : String(v);
  if ("kind" in v) return { text_hex: Buffer.from(v.bytes).toString("hex") };
  return { hex: Buffer.from(v).toString("hex") };
}
