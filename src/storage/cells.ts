/**
 * Values on their way through JSON and through SQLite, exactly. SQLite holds every {@link Value} but two: it
 * turns NaN into NULL, and the driver turns bytes that are not UTF-8 into U+FFFD. It holds -0 and cannot tell it from 0.
 */
import type { Json } from "../base/canonical.js";
import { isRawText, type Value } from "../changeset/value.js";
import { assertExact } from "../changeset/well-formed.js";

/** What the driver binds. */
export type Bindable = null | bigint | number | string | Uint8Array;

/**
 * The value as an SQL question sees it, and whether that is only its likeness: the words `NaN`, or text
 * with U+FFFD for the bytes that are none. NULL stays different from both.
 * @throws TargetError ERR_TARGET_VALUE for a value without an exact form.
 */
export function toCell(v: Value): { readonly cell: Bindable; readonly isLikeness: boolean } {
  assertExact(v);
  if (typeof v === "number" && Number.isNaN(v)) return { cell: "NaN", isLikeness: true };
  // SQL takes it for 0, and has no function that tells them apart.
  if (typeof v === "number" && Object.is(v, -0)) return { cell: v, isLikeness: true };
  if (typeof v === "object" && v !== null && isRawText(v)) {
    return { cell: Buffer.from(v.bytes).toString("utf8"), isLikeness: true };
  }
  return { cell: v, isLikeness: false };
}

/**
 * The value as JSON: NULL and text as themselves, the rest as an object with one field.
 * Law: `valueFromJson(valueToJson(v))` is the same value.
 */
export function valueToJson(v: Value): Json {
  if (v === null || typeof v === "string") return v;
  if (typeof v === "bigint") return { integer: v.toString() };
  if (typeof v === "number") return { real: realHex(v) };
  return isRawText(v) ? { "raw-text": hex(v.bytes) } : { blob: hex(v) };
}

/** Reads {@link valueToJson} back; undefined for anything that it does not make. */
export function valueFromJson(json: Json): Value | undefined {
  if (json === null || typeof json === "string") return json;
  if (typeof json !== "object") return undefined;
  const [kind, text, ...more] = Object.entries(json).flat() as readonly unknown[];
  if (typeof text !== "string" || more.length > 0) return undefined;
  if (kind === "integer") return /^-?\d{1,19}$/.test(text) ? BigInt(text) : undefined;
  if (text.length % 2 !== 0 || !/^[0-9a-f]*$/.test(text)) return undefined;
  const bytes = Buffer.from(text, "hex");
  if (kind === "real") return bytes.length === 8 ? bytes.readDoubleBE() : undefined;
  if (kind === "blob") return bytes;
  return kind === "raw-text" ? { kind: "raw-text", bytes } : undefined;
}

function realHex(v: number): string {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(v);
  return bytes.toString("hex");
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}
