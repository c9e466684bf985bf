/**
 * One value as text. Kinds never look alike: `NULL`, `''`, `'NULL'`, `42`, `'42'`, `42.0`, `x'00ff'` are six different values
 * and six different texts.
 */
import type { RawText, Value } from "../changeset/value.js";
import { cut } from "./layout.js";
import type { Palette } from "./palette.js";

/** A value that must not be shown: its tag says only which masked values are equal. */
export interface Masked {
  readonly kind: "masked";
  /** `m1`, `m2` … in order of first appearance within one document. */
  readonly tag: string;
}

/** A value, or what stands in its place. */
export type Shown = Value | Masked;

/** Cells that one value takes at most before it is cut in the middle. */
export const VALUE_LIMIT = 40;

/**
 * `v` in full.
 * Law: injective over values: two texts are equal only if the values are (masked ones only if their tags are).
 */
export function showFull(v: Shown, mask = "····"): string {
  if (v === null) return "NULL";
  if (typeof v === "bigint") return String(v);
  if (typeof v === "number") return showNumber(v);
  return typeof v === "string" ? showText(v) : showObject(v, mask);
}

/** `v` in at most `limit` cells. */
export function show(v: Shown, p: Palette, limit = VALUE_LIMIT): string {
  return cut(showFull(v, p.glyph.mask), limit, p.glyph.ellipsis);
}

/**
 * Both sides of a change, cut so that the place where they begin to differ is in sight. Where blanks are the only
 * difference, every blank is drawn.
 */
export function showChange(
  before: Shown,
  after: Shown,
  p: Palette,
  limit = VALUE_LIMIT,
): readonly [string, string] {
  const [a, b] = drawBlanks(showFull(before, p.glyph.mask), showFull(after, p.glyph.mask), p.glyph.blank);
  const focus = firstDifference(a, b);
  return [cut(a, limit, p.glyph.ellipsis, focus), cut(b, limit, p.glyph.ellipsis, focus)];
}

/**
 * Hands out mask tags, the same one for equal values: make one for each document, so that tags compare within it and
 * say nothing beyond it. NULL is masked too: whether something is there can be what must stay hidden.
 */
export function createMasker(): (v: Value) => Masked {
  const tags = new Map<string, string>();
  return (v) => {
    const full = showFull(v);
    const tag = tags.get(full) ?? `m${tags.size + 1}`;
    tags.set(full, tag);
    return { kind: "masked", tag };
  };
}

/** A whole number of type real keeps `.0`, so that it is not taken for an integer. */
function showNumber(n: number): string {
  if (Object.is(n, -0)) return "-0.0";
  const text = String(n);
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}

/** Bare where it cannot be taken for anything else, else quoted as SQL quotes. */
function showText(s: string): string {
  const bare = /^[\p{L}\p{N}_][\p{L}\p{M}\p{N}_.@:/+-]*$/u.test(s) && !LOOKS_LIKE_A_VALUE.test(s);
  return bare ? s : `'${s.replaceAll("'", "''")}'`;
}

/** NULL, numbers, NaN, infinities, booleans: text spelt like one of these is quoted. */
const LOOKS_LIKE_A_VALUE = /^(null|nan|infinity|true|false|masked\b.*|[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)$/i;

function showObject(v: Uint8Array | RawText | Masked, mask: string): string {
  if (!("kind" in v)) return `x'${Buffer.from(v).toString("hex")}'`;
  switch (v.kind) {
    case "raw-text":
      return `text x'${Buffer.from(v.bytes).toString("hex")}'`;
    case "masked":
      return `${mask}@${v.tag}`;
  }
}

function drawBlanks(a: string, b: string, blank: string): readonly [string, string] {
  const differ = a !== b && a.replaceAll(" ", "") === b.replaceAll(" ", "");
  return differ ? [a.replaceAll(" ", blank), b.replaceAll(" ", blank)] : [a, b];
}

function firstDifference(a: string, b: string): number {
  let i = 0;
  while (i < a.length && i < b.length && a[i] === b[i]) i++;
  return i;
}
