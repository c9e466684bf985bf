/**
 * The one sanitiser. Everything that did not come out of this program's own source text passes it exactly once on
 * its way to a screen: values, names, reasons, file names, driver messages. What could move the cursor, colour the
 * screen, reorder text, hide itself or pass for a plain space is printed as a visible escape, so that what a
 * person reads is what the bytes say.
 *
 * Escapes are those of C, Python and bash's `$'…'`: `\n` `\r` `\t`, `\x1b` below U+0080, `\u202e`, `\U000e0041`.
 * A backslash in the data is doubled, so an escape on screen never is data that only looks like one.
 */

/**
 * Controls (C0, C1), format characters (bidirectional, zero-width), lone surrogates, private use, unassigned,
 * line and paragraph separators, ignorable code points (fillers, tags, variation selectors), and every space that is
 * not U+0020.
 */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\\]|(?! )\p{Zs}/gu;

/** Combining marks pile up on one cell and paint over the lines around it: no script needs more than four. */
const PILED_MARKS = /(?<=\p{M}{4})\p{M}/gu;

/**
 * `text` as it may be printed on one line.
 * Law: injective; undoing the escapes gives `text` back, lone surrogates included.
 * Law: the result has no code point of {@link UNSAFE} but the backslashes of its escapes.
 */
export function sanitise(text: string): string {
  if (/^[ -[\]-~]*$/.test(text)) return text;
  return text.replace(UNSAFE, escapeOf).replace(PILED_MARKS, escapeOf);
}

/**
 * A copy of a view whose every string, at any depth, is {@link sanitise | sanitised}; bytes, numbers and dates stay.
 * Each exported render function does this to its argument and to nothing else, so no field can be forgotten
 * and none is escaped twice.
 */
export function clean<T>(view: T): T {
  // The copy has the shape of its argument: only the contents of strings differ.
  return cleanAny(view) as T;
}

function cleanAny(v: unknown): unknown {
  if (typeof v === "string") return sanitise(v);
  if (typeof v !== "object" || v === null || ArrayBuffer.isView(v)) return v;
  if (Array.isArray(v)) return v.map(cleanAny);
  return Object.fromEntries(Object.entries(v).map(([k, member]) => [sanitise(k), cleanAny(member)]));
}

const SHORT: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };

function escapeOf(character: string): string {
  const short = SHORT[character];
  if (short !== undefined) return short;
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x80) return `\\x${hex(code, 2)}`;
  return code > 0xffff ? `\\U${hex(code, 8)}` : `\\u${hex(code, 4)}`;
}

function hex(code: number, digits: number): string {
  return code.toString(16).padStart(digits, "0");
}
