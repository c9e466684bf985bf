/**
 * SQL jobs: from the bytes of a file to statements with their line and their bound values. What is refused
 * here is refused by name and line, before anything is run. The engine has the last word on the rest: an
 * adapter prepares every statement and refuses what it cannot hold.
 */
import { type Digest, digestOf } from "../base/digest.js";
import { UsageError } from "../base/errors.js";
import type { SqlStatement } from "../target/target.js";
import { bindParameters, bindUndeclared, type Bound, type ParameterSpecs } from "./parameters.js";
import { POSTGRES } from "./postgres-tokens.js";
import { isSymbol, SQLITE, splitSql, type SqlPiece, type Token, wordOf } from "./sql-tokens.js";

/** An SQL job, ready to be run. */
export interface SqlJob {
  readonly statements: readonly SqlStatement[];
  /** Digest of exactly the bytes that were read. */
  readonly source: Digest;
  /** False when some UPDATE or DELETE has no WHERE, or a WHERE that looks at no column. */
  readonly selective: boolean;
  readonly bound: Bound;
}

/** What belongs to the file. */
export interface SqlJobFacts {
  /** The job's name, for errors about parameters. */
  readonly name: string;
  /** The path as given, for `path:line`. */
  readonly file: string;
  /** Declared parameters; null for a file that stands in no configuration. */
  readonly specs: ParameterSpecs | null;
  /** The arguments of `--set`. */
  readonly given: readonly string[];
  /** The engine whose SQL it is; SQLite when absent. */
  readonly engine?: SqlEngine;
}

/** Engines whose SQL can stand in a file. */
export type SqlEngine = "sqlite" | "postgres";

/**
 * Reads an SQL job.
 * @throws UsageError ERR_JOB_INVALID for bytes that are no text or have no statement, ERR_JOB_STATEMENT with the
 * line for a statement that no job may have, ERR_JOB_PARAMETER for parameters that do not fit the text.
 */
export function loadSqlJob(bytes: Uint8Array, facts: SqlJobFacts): SqlJob {
  const text = textOf(bytes, facts.file);
  const { engine = "sqlite" } = facts;
  const dialect = engine === "postgres" ? POSTGRES : SQLITE;
  const pieces = splitSql(text, dialect).filter((piece) => piece.tokens.length > 0);
  if (pieces.length === 0) throw invalid(`${facts.file} has no statement`, "an empty job is refused");
  for (const piece of pieces) refusePiece(piece, facts.file, RULES[engine]);
  const uses = parameterLines(pieces);
  const bound = bindTo(uses, facts);
  return {
    statements: pieces.map((piece) => ({
      text: piece.text,
      line: piece.line,
      values: valuesFor(piece, bound),
    })),
    source: digestOf(bytes),
    selective: pieces.every((piece) => isSelective(piece.tokens)),
    bound,
  };
}

/** The statements of a text as they are written, unjudged: for whoever only looks at what they name. */
export function statementTexts(text: string, engine: SqlEngine): readonly string[] {
  const pieces = splitSql(text, engine === "postgres" ? POSTGRES : SQLITE);
  return pieces.filter((piece) => piece.tokens.length > 0).map((piece) => piece.text);
}

/**
 * Why a statement may not stand in a job, in words; null when it may. For code that gets statements one by
 * one, as the connection of a module does.
 */
export function refusalOf(sql: string, engine: SqlEngine = "sqlite"): string | null {
  const pieces = splitSql(sql, engine === "postgres" ? POSTGRES : SQLITE).filter(
    (piece) => piece.tokens.length > 0,
  );
  const [piece, second] = pieces;
  if (piece === undefined) return "it has no statement";
  if (second !== undefined) return "it has more than one statement";
  return piece.fault?.what ?? statementRefusal(piece, RULES[engine]);
}

// --- text ------------------------------------------------------------------------------------------

function textOf(bytes: Uint8Array, file: string): string {
  let text: string;
  try {
    // Takes a byte order mark off; the digest still covers it.
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    const wide = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
    const why = wide ? "it is written in UTF-16: save it as UTF-8" : "some of its bytes are not UTF-8";
    throw invalid(`${file} cannot be read as text`, why, cause);
  }
  const nul = text.indexOf("\0");
  if (nul >= 0) {
    const line = text.slice(0, nul).split("\n").length;
    throw invalid(
      `${file}:${line} has a NUL character`,
      "the engine would stop reading there and run half of the text",
    );
  }
  return text;
}

// --- statements ------------------------------------------------------------------------------------

const PLANNED = [
  "SELECT",
  "VALUES",
  "WITH",
  "INSERT",
  "REPLACE",
  "UPDATE",
  "DELETE",
  "CREATE",
  "DROP",
  "ALTER",
];

const TRANSACTION = "holdpoint opens the transaction and ends it; a job never does";
const ONE_DATABASE = "a job works on the one database that --on names";
const REFUSED: ReadonlyMap<string, string> = new Map([
  ["BEGIN", TRANSACTION],
  ["START", TRANSACTION],
  ["COMMIT", TRANSACTION],
  ["END", TRANSACTION],
  ["ROLLBACK", TRANSACTION],
  ["ABORT", TRANSACTION],
  ["SAVEPOINT", TRANSACTION],
  ["RELEASE", TRANSACTION],
  ["ATTACH", ONE_DATABASE],
  ["DETACH", ONE_DATABASE],
  ["VACUUM", "it rewrites the whole file and cannot be taken back"],
  ["PRAGMA", "it changes what later statements mean; foreign_keys is set in holdpoint.yaml"],
  ["ANALYZE", "it changes no row that a plan could show"],
  ["REINDEX", "it changes no row that a plan could show"],
  ["EXPLAIN", "it changes no row that a plan could show"],
]);

/** What begins a statement of a job, and what does not, with the reason. */
interface Rules {
  readonly planned: readonly string[];
  readonly refused: ReadonlyMap<string, string>;
}

const NO_ROW = "it changes no row that a plan could show";
const RULES: Readonly<Record<SqlEngine, Rules>> = {
  sqlite: { planned: PLANNED, refused: REFUSED },
  // Which CREATE it is, and everything inside a statement, the adapter judges with the engine's own grammar.
  postgres: {
    planned: (
      "SELECT VALUES WITH TABLE INSERT UPDATE DELETE MERGE TRUNCATE CALL DO " +
      "CREATE ALTER DROP COMMENT GRANT REVOKE"
    ).split(" "),
    refused: new Map([
      ...["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"].map(
        (word) => [word, TRANSACTION] as const,
      ),
      ["PREPARE", TRANSACTION],
      ["SET", "it changes what later statements mean; a plan states the settings of the role and database"],
      ["RESET", "it changes what later statements mean; a plan states the settings of the role and database"],
      ["COPY", "it reads or writes a file or program of the server, or data that is not in the job"],
      ["VACUUM", NO_ROW],
      ["ANALYZE", NO_ROW],
      ["REINDEX", NO_ROW],
      ["EXPLAIN", NO_ROW],
      ["SHOW", NO_ROW],
      ["NOTIFY", "its effect is outside the transaction, and cannot be shown or taken back"],
      ["LOCK", "a rehearsal takes no more locks than the job's own changes do"],
    ]),
  },
};

function refusePiece(piece: SqlPiece, file: string, rules: Rules): void {
  if (piece.fault !== null && !startsWithDot(piece)) throw refused(file, piece.fault.line, piece.fault.what);
  const why = statementRefusal(piece, rules);
  if (why !== null) throw refused(file, piece.line, why);
}

function statementRefusal(piece: SqlPiece, rules: Rules): string | null {
  if (startsWithDot(piece)) return "a dot-command belongs to the sqlite3 shell, it is not SQL";
  const word = wordOf(piece.tokens[0]);
  const why = rules.refused.get(word);
  if (why !== undefined) return `${word} is refused: ${why}`;
  if (!rules.planned.includes(word)) {
    return `${JSON.stringify(firstWords(piece))} begins no statement of a job: it has ${rules.planned.join(", ")}`;
  }
  const loads = piece.tokens.some((t, i) => wordOf(t) === "LOAD_EXTENSION" && isOpening(piece.tokens[i + 1]));
  return loads ? "load_extension is refused: a job runs no code of its own inside the engine" : null;
}

function startsWithDot(piece: SqlPiece): boolean {
  return piece.tokens[0] !== undefined && isSymbol(piece.tokens[0], ".");
}

function isOpening(token: Token | undefined): boolean {
  return token !== undefined && isSymbol(token, "(");
}

function firstWords(piece: SqlPiece): string {
  const line = piece.text.split("\n", 1)[0] ?? "";
  return line.length > 24 ? `${line.slice(0, 23)}…` : line;
}

// --- WHERE -----------------------------------------------------------------------------------------

const MAIN_VERBS = ["SELECT", "VALUES", "INSERT", "REPLACE", "UPDATE", "DELETE"];
const AFTER_WHERE = ["ORDER", "LIMIT", "RETURNING"];
const NOT_COLUMNS = [
  "AND",
  "OR",
  "NOT",
  "NULL",
  "TRUE",
  "FALSE",
  "IS",
  "ISNULL",
  "NOTNULL",
  "LIKE",
  "GLOB",
  "BETWEEN",
  "IN",
];

/**
 * Whether an UPDATE or DELETE chooses its rows: it has a WHERE of its own, and that looks at some column.
 * True for every other statement. A guess for policy, never proof: the rows themselves are counted.
 */
function isSelective(all: readonly Token[]): boolean {
  const top = topLevel(all);
  const verb = top.findIndex((t, i) => MAIN_VERBS.includes(wordOf(t)) && !namesTable(top[i - 1]));
  const word = wordOf(top[verb]);
  if (wordOf(top[0]) === "TRUNCATE") return false;
  if (wordOf(top[0]) === "CREATE" || (word !== "UPDATE" && word !== "DELETE")) return true;
  const where = top.findIndex((t, i) => i > verb && wordOf(t) === "WHERE");
  if (where < 0) return false;
  const end = top.findIndex((t, i) => i > where && AFTER_WHERE.includes(wordOf(t)));
  const from = top[where]?.end ?? 0;
  const until = top[end]?.start ?? Number.POSITIVE_INFINITY;
  const condition = all.filter((t) => t.start >= from && t.end <= until);
  return condition.some((t, i) => looksAtColumn(t, condition[i + 1]));
}

/** In `WITH replace AS (…)` the word after WITH or a comma is a name. */
function namesTable(before: Token | undefined): boolean {
  return before !== undefined && (["WITH", "RECURSIVE"].includes(wordOf(before)) || isSymbol(before, ","));
}

function looksAtColumn(token: Token, next: Token | undefined): boolean {
  if (token.kind === "quoted") return true;
  return token.kind === "word" && !NOT_COLUMNS.includes(token.text) && !isOpening(next);
}

function topLevel(all: readonly Token[]): readonly Token[] {
  let depth = 0;
  return all.filter((t) => {
    if (isSymbol(t, ")")) depth--;
    const outside = depth === 0;
    if (isSymbol(t, "(")) depth++;
    return outside;
  });
}

// --- parameters ------------------------------------------------------------------------------------

/** The first line that uses each parameter. */
function parameterLines(pieces: readonly SqlPiece[]): ReadonlyMap<string, number> {
  const lines = new Map<string, number>();
  for (const piece of pieces) {
    for (const token of piece.tokens) {
      if (token.kind === "parameter" && !lines.has(token.text)) lines.set(token.text, piece.line);
    }
  }
  return lines;
}

function bindTo(uses: ReadonlyMap<string, number>, facts: SqlJobFacts): Bound {
  const { specs, name, file } = facts;
  for (const [parameter, line] of uses) {
    if (specs === null || Object.hasOwn(specs, parameter)) continue;
    throw mismatch(
      `${file}:${line} uses :${parameter}, which ${name} does not declare`,
      "declare it under params",
    );
  }
  const bound = specs === null ? bindUndeclared(facts.given, name) : bindParameters(specs, facts.given, name);
  for (const [parameter, line] of uses) {
    if (bound.some((b) => b.name === parameter)) continue;
    throw mismatch(`${name} needs ${parameter}`, `${file}:${line} uses it: add --set ${parameter}=VALUE`);
  }
  const idle = bound.find((b) => !uses.has(b.name));
  if (idle !== undefined) {
    const has = uses.size === 0 ? "it uses none" : `it uses ${[...uses.keys()].join(", ")}`;
    throw mismatch(`no statement of ${file} uses the parameter ${idle.name}`, has);
  }
  return bound;
}

function valuesFor(piece: SqlPiece, bound: Bound): SqlStatement["values"] {
  const names = new Set(piece.tokens.flatMap((t) => (t.kind === "parameter" ? [t.text] : [])));
  return Object.fromEntries(bound.filter((b) => names.has(b.name)).map((b) => [b.name, b.value]));
}

// --- errors ----------------------------------------------------------------------------------------

function refused(file: string, line: number, what: string): UsageError {
  return new UsageError({
    code: "ERR_JOB_STATEMENT",
    message: `${file}:${line} cannot stand in a job`,
    why: what,
  });
}

function invalid(message: string, why: string, cause?: unknown): UsageError {
  return new UsageError({ code: "ERR_JOB_INVALID", message, why, ...(cause === undefined ? {} : { cause }) });
}

function mismatch(message: string, why: string): UsageError {
  return new UsageError({ code: "ERR_JOB_PARAMETER", message, why });
}
