/**
 * SQL text cut into tokens and statements the way SQLite's own tokenizer (`src/tokenize.c`) and
 * `sqlite3_complete` cut it, so that what a person reads as one statement is what the engine runs as one.
 *
 * Total: every text has tokens, and joined they are the text again. What must not be run is a token of
 * kind `bad` with the reason; nothing here throws.
 */

/** What a token is. `quoted` is an identifier in `"`, backquotes or `[]`; `symbol` is one character. */
export type TokenKind =
  | "space"
  | "comment"
  | "word"
  | "number"
  | "string"
  | "quoted"
  | "parameter"
  | "symbol"
  | "bad";

/** A piece of the text, from `start` up to but not including `end` (UTF-16 code units). */
export interface Token {
  readonly kind: TokenKind;
  readonly start: number;
  readonly end: number;
  /** The token as written; a word in upper case, a parameter without its sigil, the reason of a bad one. */
  readonly text: string;
}

/** How one engine cuts text. */
export interface SqlDialect {
  readonly tokens: (text: string) => Iterable<Token>;
  /** Whether a semicolon after these tokens does not end the statement. */
  readonly isUnfinished: (held: readonly Token[]) => boolean;
}

/** One statement and everything around it up to the next one. Joined, the sources of all pieces are the text. */
export interface SqlPiece {
  /** Leading space and comments, the statement, its semicolon. */
  readonly source: string;
  /** From the statement's first token to its last, without the closing semicolon; empty for a piece without a statement. */
  readonly text: string;
  /** 1-based line of the statement's first token; of the piece when there is none. */
  readonly line: number;
  /** Without space and comments, without the closing semicolon. Bad tokens stay where they stand. */
  readonly tokens: readonly Token[];
  /** What is wrong with the statement's shape, and on which line; null when it is whole. */
  readonly fault: { readonly line: number; readonly what: string } | null;
}

// --- tokens ----------------------------------------------------------------------------------------

// SQLite takes every byte above 7f for part of a name: U+00A0 is no space there.
const WORD = /[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*/y;
const SPACE = /[ \t\n\f\r\ufeff]+/y;
const NUMBER = /\d[A-Za-z0-9_$.\u0080-\uffff]*/y;
const PARAMETER = /[:@$][A-Za-z][A-Za-z0-9_]*/y;
// What SQLite would still read as part of the parameter's name: `::suffix`, `(…)`, `$`, letters beyond ASCII.
const PARAMETER_GOES_ON = /[A-Za-z0-9_$(\u0080-\uffff]|::/y;
const LINE_COMMENT = /--[^\n]*/y;
const BLOCK_COMMENT = /\/\*[^]*?\*\//y;
// An editor breaks the line at these, SQLite does not: a statement could hide behind a comment.
const HIDDEN_BREAK = /\r(?!\n|$)|[\u0085\u2028\u2029]/;
// Overrides and isolates show text in another order than it runs.
const REORDERS = /[\u202a-\u202e\u2066-\u2069]/;

/** Cuts text into tokens. Law: the tokens are adjacent and cover the text. */
export function* tokens(text: string): Generator<Token> {
  let at = 0;
  while (at < text.length) {
    const token = tokenAt(text, at);
    yield token;
    at = token.end;
  }
}

function tokenAt(text: string, at: number): Token {
  const c = text.charAt(at);
  const simple = take("space", SPACE, text, at) ?? commentAt(text, at);
  if (simple !== null) return simple;
  if (c === "'" || c === '"' || c === "`" || c === "[") return quotedAt(text, at, c);
  if (c === ":" || c === "@" || c === "$" || c === "?" || c === "#") return parameterAt(text, at, c);
  if (c === "\\") return bad(at, text.length, "a backslash is a command of psql, not SQL");
  const word = take("word", WORD, text, at);
  if (word !== null && REORDERS.test(word.text))
    return bad(at, word.end, "a name has a character that reorders text");
  if (word !== null) return { ...word, text: asciiUpper(word.text) };
  return take("number", NUMBER, text, at) ?? { kind: "symbol", start: at, end: at + 1, text: c };
}

function commentAt(text: string, at: number): Token | null {
  const comment = take("comment", LINE_COMMENT, text, at) ?? take("comment", BLOCK_COMMENT, text, at);
  if (comment === null) {
    return text.startsWith("/*", at)
      ? bad(at, text.length, "a comment is opened with /* and never closed")
      : null;
  }
  if (REORDERS.test(comment.text))
    return bad(at, comment.end, "a comment has a character that reorders text");
  if (comment.text.startsWith("--") && HIDDEN_BREAK.test(comment.text)) {
    return bad(at, comment.end, "a comment has a line break that SQLite does not see: end lines with LF");
  }
  return comment;
}

function quotedAt(text: string, at: number, quote: string): Token {
  const close = quote === "[" ? "]" : quote;
  for (let end = text.indexOf(close, at + 1); end >= 0; end = text.indexOf(close, end + 2)) {
    // A doubled quote stands for itself; brackets have no such form.
    if (quote !== "[" && text[end + 1] === close) continue;
    const kind = quote === "'" ? "string" : "quoted";
    return { kind, start: at, end: end + 1, text: text.slice(at, end + 1) };
  }
  return bad(at, text.length, `a quote is opened with ${quote} and never closed`);
}

function parameterAt(text: string, at: number, sigil: string): Token {
  if (sigil === "?") return bad(at, at + 1, "a positional parameter (?) is refused: name it, as in :days");
  const named = take("parameter", PARAMETER, text, at);
  if (named !== null) {
    PARAMETER_GOES_ON.lastIndex = named.end;
    if (!PARAMETER_GOES_ON.test(text)) return { ...named, text: named.text.slice(1) };
  }
  const next = text[at + 1];
  if (sigil === ":" && (next === "'" || next === '"')) {
    return bad(
      at,
      at + 1,
      "a variable of psql is refused: it would be pasted into the text; use a parameter, as in :days",
    );
  }
  return bad(at, at + 1, `${sigil} begins no parameter: a name has letters, digits and _, as in :days`);
}

function take(kind: TokenKind, pattern: RegExp, text: string, at: number): Token | null {
  pattern.lastIndex = at;
  const found = pattern.exec(text)?.[0];
  return found === undefined ? null : { kind, start: at, end: at + found.length, text: found };
}

function bad(start: number, end: number, why: string): Token {
  return { kind: "bad", start, end, text: why };
}

/** Upper case as SQLite compares keywords: ASCII only, so that `ſelect` is no SELECT. */
function asciiUpper(word: string): string {
  return word.replaceAll(/[a-z]+/g, (letters) => letters.toUpperCase());
}

// --- statements ------------------------------------------------------------------------------------

/**
 * Cuts text into statements at the semicolons that end one: not those in quotes and comments, and not
 * those in the body of a trigger, which ends at the END that follows a semicolon (a CASE … END never does).
 * Law: the pieces' sources, joined, are the text.
 */
export function splitSql(text: string, dialect: SqlDialect = SQLITE): readonly SqlPiece[] {
  const lineOf = lineCounter(text);
  const pieces: SqlPiece[] = [];
  let start = 0;
  let held: Token[] = [];
  for (const token of dialect.tokens(text)) {
    if (token.kind === "space" || token.kind === "comment") continue;
    if (isSymbol(token, ";") && !dialect.isUnfinished(held)) {
      pieces.push(pieceOf(text, start, token.end, held, lineOf, dialect));
      start = token.end;
      held = [];
    } else {
      held.push(token);
    }
  }
  if (start < text.length) pieces.push(pieceOf(text, start, text.length, held, lineOf, dialect));
  return pieces;
}

/** SQLite's way of cutting text. */
export const SQLITE: SqlDialect = {
  tokens,
  isUnfinished: (held) => isTrigger(held) && !isWholeTrigger(held),
};

function isTrigger(held: readonly Token[]): boolean {
  const from = held.findIndex((t) => !["EXPLAIN", "QUERY", "PLAN"].includes(wordOf(t)));
  const [create, kind, trigger] = held.slice(Math.max(from, 0), from + 3).map(wordOf);
  if (create !== "CREATE") return false;
  return kind === "TRIGGER" || ((kind === "TEMP" || kind === "TEMPORARY") && trigger === "TRIGGER");
}

function isWholeTrigger(held: readonly Token[]): boolean {
  const [before, last] = held.slice(-2);
  return before !== undefined && last !== undefined && isSymbol(before, ";") && wordOf(last) === "END";
}

function pieceOf(
  text: string,
  start: number,
  end: number,
  held: readonly Token[],
  lineOf: (offset: number) => number,
  dialect: SqlDialect,
): SqlPiece {
  const first = held[0];
  const source = text.slice(start, end);
  if (first === undefined) return { source, text: "", line: lineOf(start), tokens: [], fault: null };
  const line = lineOf(first.start);
  return {
    source,
    text: text.slice(first.start, held.at(-1)?.end ?? first.start),
    line,
    tokens: held,
    fault: faultOf(held, line, lineOf, dialect),
  };
}

function faultOf(
  held: readonly Token[],
  line: number,
  lineOf: (offset: number) => number,
  dialect: SqlDialect,
): SqlPiece["fault"] {
  let depth = 0;
  for (const token of held) {
    if (token.kind === "bad") return { line: lineOf(token.start), what: token.text };
    if (isSymbol(token, "(")) depth++;
    if (isSymbol(token, ")")) depth--;
    if (depth < 0) return { line: lineOf(token.start), what: "a ) closes nothing" };
    if (isSymbol(token, ";") && depth > 0) break;
  }
  if (depth > 0) return { line, what: "a ( is never closed" };
  if (dialect.isUnfinished(held)) return { line, what: "the trigger's body has no END" };
  return null;
}

/** Whether the token is that one character. */
export function isSymbol(token: Token, symbol: string): boolean {
  return token.kind === "symbol" && token.text === symbol;
}

/** The word in upper case; empty for any other token. */
export function wordOf(token: Token | undefined): string {
  return token?.kind === "word" ? token.text : "";
}

/** 1-based lines of offsets asked for in rising order; one pass over the text. */
function lineCounter(text: string): (offset: number) => number {
  let line = 1;
  let next = text.indexOf("\n");
  let last = 0;
  return (offset) => {
    if (offset < last) return 1 + text.slice(0, offset).split("\n").length - 1;
    last = offset;
    while (next >= 0 && next < offset) {
      line++;
      next = text.indexOf("\n", next + 1);
    }
    return line;
  };
}
