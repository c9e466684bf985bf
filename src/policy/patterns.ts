/**
 * Patterns that cannot hang. CEL's own `matches` runs JavaScript regular expressions, whose backtracking a
 * hostile pattern turns into minutes; policies use these two instead.
 */
import { RE2JS } from "re2js";
import { messageOf } from "../base/errors.js";
import type { TextPattern } from "./schema.js";

/** Longest pattern accepted; a longer one is a mistake. */
const LONGEST_PATTERN = 500;

/** A pattern ready for use, or why it cannot be. */
export type PreparedPattern =
  | { readonly ok: true; readonly test: (text: string) => boolean }
  | { readonly ok: false; readonly why: string };

/**
 * Prepares a pattern.
 * - `glob`: the whole text; `*` is any run of characters (empty too), `?` is one character, all else is itself.
 * - `re2`: RE2 syntax, found anywhere unless anchored by `^` and `$`; no look-around, no back-references.
 * Both take time linear in the text.
 */
export function preparePattern(kind: TextPattern["kind"], pattern: string): PreparedPattern {
  if (pattern === "") return { ok: false, why: "an empty pattern matches nothing or everything; say which" };
  if (pattern.length > LONGEST_PATTERN)
    return { ok: false, why: `longer than ${LONGEST_PATTERN} characters` };
  switch (kind) {
    case "glob":
      return prepareGlob(pattern);
    case "re2":
      return prepareRe2(pattern);
  }
}

function prepareGlob(pattern: string): PreparedPattern {
  const units = unitsOf(pattern);
  return { ok: true, test: (text) => matchesUnits(unitsOf(text), units) };
}

function prepareRe2(pattern: string): PreparedPattern {
  try {
    const compiled = RE2JS.compile(pattern);
    return { ok: true, test: (text) => compiled.matcher(text).find() };
  } catch (e) {
    return { ok: false, why: messageOf(e) };
  }
}

/**
 * Whether the whole of `text` matches the glob. Two pointers with one remembered star: at most
 * text × pattern steps, no recursion.
 */
export function matchesGlob(text: string, pattern: string): boolean {
  return matchesUnits(unitsOf(text), unitsOf(pattern));
}

/** One element for each character. A text without surrogates is that already, and is not copied: globs run for every table. */
function unitsOf(text: string): ArrayLike<string> {
  return /[\ud800-\udfff]/.test(text) ? Array.from(text) : text;
}

function matchesUnits(t: ArrayLike<string>, p: ArrayLike<string>): boolean {
  let at = 0;
  let star = -1;
  let starredFrom = 0;
  let i = 0;
  while (i < t.length) {
    if (p[at] === "*") {
      star = at++;
      starredFrom = i;
    } else if (at < p.length && (p[at] === "?" || p[at] === t[i])) {
      at++;
      i++;
    } else if (star >= 0) {
      at = star + 1;
      i = ++starredFrom;
    } else return false;
  }
  while (p[at] === "*") at++;
  return at === p.length;
}
