/**
 * SQL text cut into tokens the way PostgreSQL's scanner (`src/backend/parser/scan.l`) cuts it under
 * `standard_conforming_strings = on`, which every session of ours sets. Like its sibling for SQLite it is total and throws
 * nothing; the server's own grammar has the last word on every statement that is cut out with it.
 */
import type { SqlDialect, Token, TokenKind } from "./sql-tokens.js";

const SPACE = /[ \t\n\r\f\v\ufeff]+/y;
const WORD = /[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*/y;
const NUMBER = /\d[A-Za-z0-9_.\u0080-\uffff]*/y;
const LINE_COMMENT = /--[^\n\r]*/y;
const PLAIN_STRING = /(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*'/y;
// In E'…' a backslash takes the next character with it, a quote too.
const ESCAPE_STRING = /[eE]'(?:[^'\\]|''|\\[^])*'/y;
// A string goes on behind a line break, and in E'…' by the rules of E'…': the gap up to its next quote.
const GAP = /(?:[ \t\f\v]|--[^\n\r]*)*[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*(?=')/y;
const ESCAPE_BODY = /'(?:[^'\\]|''|\\[^])*'/y;
const QUOTED = /(?:[uU]&)?"(?:[^"]|"")+"/y;
const DOLLAR_TAG = /\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/y;
const PARAMETER = /:[A-Za-z][A-Za-z0-9_]*/y;
// What the server reads as more of the same name, or with it as the beginning of a string.
const NAME_GOES_ON = /[$'"\u0080-\uffff]|&['"]/y;
const DOUBLE = /::|:=/y;
// An editor breaks the line at these, the server does not: a statement could hide behind a comment.
const HIDDEN_BREAK = /[\u0085\u2028\u2029]/;
// Overrides and isolates show text in another order than it runs.
const REORDERS = /[\u202a-\u202e\u2066-\u2069]/;

/** PostgreSQL's way of cutting text. A semicolon outside quotes and comments always ends a statement. */
export const POSTGRES: SqlDialect = { tokens, isUnfinished: () => false };

/** Cuts text into tokens. Law: the tokens are adjacent and cover the text. */
function* tokens(text: string): Generator<Token> {
  let at = 0;
  while (at < text.length) {
    const token = tokenAt(text, at);
    yield token;
    at = token.end;
  }
}

function tokenAt(text: string, at: number): Token {
  const found =
    take("space", SPACE, text, at) ??
    commentAt(text, at) ??
    stringAt(text, at) ??
    dollarQuotedAt(text, at) ??
    parameterAt(text, at);
  if (found !== null) return found;
  if (text[at] === "\\") return bad(at, text.length, "a backslash is a command of psql, not SQL");
  const word = take("word", WORD, text, at);
  if (word !== null && REORDERS.test(word.text))
    return bad(at, word.end, "a name has a character that reorders text");
  if (word !== null) return { ...word, text: word.text.replaceAll(/[a-z]+/g, (s) => s.toUpperCase()) };
  return (
    take("number", NUMBER, text, at) ?? { kind: "symbol", start: at, end: at + 1, text: text.charAt(at) }
  );
}

function commentAt(text: string, at: number): Token | null {
  const block = text.startsWith("/*", at) ? blockEnd(text, at) : null;
  if (block === -1) return bad(at, text.length, "a comment is opened with /* and never closed");
  const comment =
    block === null
      ? take("comment", LINE_COMMENT, text, at)
      : ({ kind: "comment", start: at, end: block, text: text.slice(at, block) } as const);
  if (comment === null) return null;
  if (REORDERS.test(comment.text))
    return bad(at, comment.end, "a comment has a character that reorders text");
  if (block === null && HIDDEN_BREAK.test(comment.text))
    return bad(at, comment.end, "a comment has a line break that PostgreSQL does not see: end lines with LF");
  return comment;
}

/** Comments nest. -1 when the outermost is never closed. */
function blockEnd(text: string, at: number): number {
  const ends = /\/\*|\*\//g;
  ends.lastIndex = at;
  for (let depth = 0, mark = ends.exec(text); mark !== null; mark = ends.exec(text)) {
    depth += mark[0] === "/*" ? 1 : -1;
    if (depth === 0) return ends.lastIndex;
  }
  return -1;
}

function stringAt(text: string, at: number): Token | null {
  const escaped = take("string", ESCAPE_STRING, text, at);
  if (escaped !== null) return continued(text, escaped);
  const found = take("string", PLAIN_STRING, text, at) ?? take("quoted", QUOTED, text, at);
  if (found !== null) return found;
  const open = /^(?:[eEbBxXnN]|[uU]&)?['"]/.exec(text.slice(at, at + 3));
  return open === null ? null : bad(at, text.length, `a quote is opened with ${open[0]} and never closed`);
}

function continued(text: string, token: Token): Token {
  let { end } = token;
  for (let gap = take("space", GAP, text, end); gap !== null; gap = take("space", GAP, text, end)) {
    // The server reads over a comment here, other readers of SQL do not: what two read differently is refused.
    if (gap.text.includes("--")) return bad(token.start, text.length, "a string goes on behind a comment");
    const body = take("string", ESCAPE_BODY, text, gap.end);
    if (body === null) return bad(token.start, text.length, "a quote is opened with ' and never closed");
    end = body.end;
  }
  return { ...token, end, text: text.slice(token.start, end) };
}

function dollarQuotedAt(text: string, at: number): Token | null {
  const tag = take("string", DOLLAR_TAG, text, at);
  if (tag === null) {
    if (text[at] !== "$") return null;
    return bad(at, at + 1, "a positional parameter ($1) is refused: name it, as in :days");
  }
  const close = text.indexOf(tag.text, tag.end);
  if (close < 0) return bad(at, text.length, `a quote is opened with ${tag.text} and never closed`);
  const end = close + tag.text.length;
  return { kind: "string", start: at, end, text: text.slice(at, end) };
}

function parameterAt(text: string, at: number): Token | null {
  if (text[at] !== ":") return null;
  const double = take("symbol", DOUBLE, text, at);
  if (double !== null) return double;
  const named = take("parameter", PARAMETER, text, at);
  NAME_GOES_ON.lastIndex = named?.end ?? 0;
  if (named !== null && NAME_GOES_ON.test(text))
    return bad(at, named.end, "a parameter's name has letters, digits and _, as in :days");
  if (named !== null) return { ...named, text: named.text.slice(1) };
  const next = text[at + 1];
  if (next !== "'" && next !== '"' && next !== "{") return null;
  return bad(
    at,
    at + 1,
    "a variable of psql is refused: it would be pasted into the text; use a parameter, as in :days",
  );
}

function take(kind: TokenKind, pattern: RegExp, text: string, at: number): Token | null {
  pattern.lastIndex = at;
  const found = pattern.exec(text)?.[0];
  return found === undefined ? null : { kind, start: at, end: at + found.length, text: found };
}

function bad(start: number, end: number, why: string): Token {
  return { kind: "bad", start, end, text: why };
}
