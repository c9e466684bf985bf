/**
 * What a statement of a job may be, and what it does, as far as that can be known before it runs. Text alone
 * decides only what must never reach the engine (a PRAGMA takes effect while it is prepared); which tables
 * are written and which functions are called, the engine's own program says (`EXPLAIN`, triggers included).
 */
import { messageOf, RefusedError, TargetError, UsageError } from "../../base/errors.js";
import { isRawText, type Value } from "../../changeset/value.js";
import type { SqlStatement } from "../../target/target.js";
import type { Cell, Connection } from "./driver.js";
import { fold, isEngines, isOurs } from "./names.js";
import type { Catalogue } from "./schema.js";
import { bound } from "./values.js";

/** A piece of SQL text; comments and white space are left out. */
export interface SqlToken {
  readonly kind: "word" | "quoted" | "string" | "other";
  readonly text: string;
}

const TOKEN =
  /(?<space>[\s\uFEFF]+|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$))|(?<string>'(?:[^']|'')*')|(?<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])|(?<word>[A-Za-z_\u0080-\uFFFF][\w$\u0080-\uFFFF]*)|(?<other>\d[\w.]*|[\s\S])/gu;

/** SQL text as SQLite's tokenizer cuts it, as far as words and quotes go (sqlite.org/lang_keywords.html). */
export function sqlTokens(sql: string): readonly SqlToken[] {
  const tokens: SqlToken[] = [];
  for (const { groups } of sql.matchAll(TOKEN)) {
    if (groups?.["word"] !== undefined) tokens.push({ kind: "word", text: groups["word"] });
    else if (groups?.["quoted"] !== undefined)
      tokens.push({ kind: "quoted", text: groups["quoted"].slice(1, -1) });
    else if (groups?.["string"] !== undefined)
      tokens.push({ kind: "string", text: groups["string"].slice(1, -1) });
    else if (groups?.["other"] !== undefined) tokens.push({ kind: "other", text: groups["other"] });
  }
  return tokens;
}

/** What a statement may begin with, and whether it changes the schema. */
const ALLOWED: ReadonlyMap<string, "data" | "schema"> = new Map([
  ["select", "data"],
  ["values", "data"],
  ["with", "data"],
  ["insert", "data"],
  ["replace", "data"],
  ["update", "data"],
  ["delete", "data"],
  ["create", "schema"],
  ["drop", "schema"],
  ["alter", "schema"],
]);

const REFUSED: ReadonlyMap<string, string> = new Map([
  ["begin", "holdpoint decides where a transaction begins and ends"],
  ["commit", "holdpoint decides where a transaction begins and ends"],
  ["end", "holdpoint decides where a transaction begins and ends"],
  ["rollback", "holdpoint decides where a transaction begins and ends"],
  ["savepoint", "holdpoint decides where a transaction begins and ends"],
  ["release", "holdpoint decides where a transaction begins and ends"],
  ["attach", "a job works on its target alone"],
  ["detach", "a job works on its target alone"],
  ["vacuum", "it rewrites the whole file outside any transaction"],
  ["analyze", "it changes no rows; run it apart from the job"],
  ["reindex", "it changes no rows; run it apart from the job"],
  ["explain", "it changes nothing"],
  [
    "pragma",
    "it changes the connection or the file; what a job means by foreign keys stands in holdpoint.yaml",
  ],
]);

/** PRAGMAs that only read, when they are given no value or the name of an object. */
const READING_PRAGMAS = new Set(
  [
    "table_info table_xinfo table_list index_list index_info index_xinfo foreign_key_list",
    "foreign_key_check integrity_check quick_check collation_list function_list database_list compile_options",
  ].flatMap((s) => s.split(" ")),
);

/**
 * Checks the text of every statement, before any of them reaches the engine.
 * @returns whether some statement changes the schema.
 * @throws UsageError ERR_JOB_STATEMENT with the job's line; RefusedError ERR_MARKER_TOUCHED for our tables.
 */
export function checkTexts(statements: readonly SqlStatement[]): { readonly schema: boolean } {
  const kinds = statements.map(checkText);
  return { schema: kinds.includes("schema") };
}

function checkText(statement: SqlStatement): "data" | "schema" {
  const tokens = sqlTokens(statement.text);
  const at = tokens.findIndex((t) => t.text !== ";");
  const first = fold(tokens[at]?.text ?? "");
  if (tokens.some((t) => t.kind !== "string" && t.kind !== "other" && isOurs(t.text)))
    throw touchesMarker(statement);
  if (first === "pragma" && readsOnly(tokens.slice(at + 1))) return "data";
  const kind = tokens[at]?.kind === "word" ? ALLOWED.get(first) : undefined;
  if (kind === undefined) {
    throw refused(
      statement,
      first.toUpperCase(),
      REFUSED.get(first) ?? "no statement of a job begins like this",
    );
  }
  const words = tokens.slice(at, at + 3).map((t) => fold(t.text));
  if (words.includes("virtual"))
    throw refused(statement, "CREATE VIRTUAL TABLE", "virtual tables cannot be held exactly");
  const temporary = words[1] === "temp" || words[1] === "temporary";
  if (temporary && words[2] === "trigger")
    throw refused(statement, "CREATE TEMP TRIGGER", "it would hide from the capture");
  return kind === "schema" && temporary ? "data" : kind;
}

function readsOnly(rest: readonly SqlToken[]): boolean {
  const words = rest.filter((t) => t.text !== "main" && t.text !== "." && t.text !== ";");
  return READING_PRAGMAS.has(fold(words[0]?.text ?? "")) && !rest.some((t) => t.text === "=");
}

/** Who writes a table, as far as the engine's program tells. */
export type Writer = "job" | "cascade" | "trigger";

/** What the engine's program of a statement says about it. */
export interface Program {
  /** Tables written, by who writes them: the statement itself, foreign key actions, triggers. */
  readonly writes: Readonly<Record<Writer, ReadonlySet<string>>>;
  /** It calls a function whose value can differ from run to run. */
  readonly volatile: boolean;
  /** How many tables it reads from end to end; `Infinity` where a recursion has no bound known beforehand. */
  readonly scans: number;
  /**
   * Its effect can depend on the order in which the engine comes by the rows. A trigger changes that order: without one,
   * an UPDATE writes rows as an index yields them, with one it first collects them and goes by rowid. So such a
   * statement must be rehearsed without the capture's triggers.
   */
  readonly orderMatters: boolean;
}

const VOLATILE = new Set(
  [
    "random randomblob date time datetime julianday strftime unixepoch timediff",
    "current_time current_date current_timestamp changes total_changes last_insert_rowid",
  ].flatMap((s) => s.split(" ")),
);

/**
 * Asks the engine what the statement will do, without doing it. The connection must be without the capture's triggers.
 * @throws UsageError ERR_JOB_STATEMENT for several statements, a missing value, a syntax error, transaction
 * words, `load_extension`; RefusedError ERR_MARKER_TOUCHED; TargetError ERR_TARGET_UNSUPPORTED for virtual
 * tables and the engine's own statistics.
 */
export function explain(connection: Connection, catalogue: Catalogue, statement: SqlStatement): Program {
  const values = bindings(statement);
  const program = withLine(statement, () => connection.rows(`EXPLAIN ${statement.text}`, ...values));
  const plan = withLine(statement, () => connection.rows(`EXPLAIN QUERY PLAN ${statement.text}`, ...values));
  const steps = stepsOf(statement, program);
  const writes = writesOf(rootPages(connection), steps);
  const opcodes = new Set(program.map((row) => String(row[1])));
  const called = new Set(program.flatMap(functionOf));
  for (const opcode of opcodes) refuseOpcode(statement, catalogue, opcode);
  if (called.has("load_extension"))
    throw refused(statement, "load_extension", "a job works with what the target has");
  checkTables(statement, writes);
  const details = plan.map((row) => String(row[3]));
  return {
    writes: {
      job: tablesOnly(writes.job),
      cascade: tablesOnly(writes.cascade),
      trigger: tablesOnly(writes.trigger),
    },
    volatile: [...called].some((name) => VOLATILE.has(name)),
    scans: countScans(details),
    // The capture's own rows are counted by that function too.
    orderMatters: called.has("total_changes") || steps.some((step) => dependsOnOrder(step, details, writes)),
  };
}

/** A statement of the program: the job's own, or one inside a trigger or cascade. */
interface Step {
  readonly writer: Writer;
  readonly tokens: readonly SqlToken[];
  readonly code: (readonly Cell[])[];
}

/**
 * Cuts a program into its statements. Sub-programs follow the main one, each from address 0: a trigger's begins with its
 * name, a cascade's has none; every statement of a trigger is announced by its text.
 */
function stepsOf(statement: SqlStatement, program: readonly (readonly Cell[])[]): readonly Step[] {
  const steps: Step[] = [];
  let step: Step = { writer: "job", tokens: sqlTokens(statement.text), code: [] };
  program.forEach((row, i) => {
    const [address, opcode, , , , comment] = row;
    const [subprogram, announced] = [i > 0 && address === 0n, opcode === "Trace" && step.writer !== "job"];
    if (subprogram || announced) {
      steps.push(step);
      const writer = announced
        ? step.writer
        : String(comment).startsWith("-- TRIGGER")
          ? "trigger"
          : "cascade";
      const text = announced ? String(comment).replace(/^-- /, "") : "";
      step = { writer, tokens: sqlTokens(text), code: [] };
    }
    step.code.push(row);
  });
  return [...steps, step];
}

function writesOf(tables: ReadonlyMap<string, string>, steps: readonly Step[]): Program["writes"] {
  const writes = { job: new Set<string>(), cascade: new Set<string>(), trigger: new Set<string>() };
  for (const { writer, code } of steps) {
    for (const [, opcode, p1, p2, p3] of code) {
      // `DELETE FROM t` of a table without triggers clears it by one instruction of its own.
      const [root, database] = opcode === "Clear" ? [p1, p2] : [p2, p3];
      if (opcode !== "OpenWrite" && opcode !== "Clear") continue;
      const table = tables.get(placeKey(database, root));
      if (table !== undefined) writes[writer].add(table);
    }
  }
  return writes;
}

function functionOf([, opcode, , , , p4]: readonly Cell[]): readonly string[] {
  return /Func(tion)?$/.test(String(opcode)) ? [fold(String(p4).replace(/\(.*/s, ""))] : [];
}

/**
 * | statement | the order matters when |
 * | --- | --- |
 * | UPDATE that goes by an index | it writes unique values (who comes first keeps them), or reads the table it writes |
 * | UPDATE inside a trigger | the same, however it goes: the engine does not tell |
 * | INSERT … SELECT | a cascade may take away rows that are still to be read |
 */
function dependsOnOrder(
  { writer, tokens, code }: Step,
  plan: readonly string[],
  writes: Program["writes"],
): boolean {
  const verb = mainVerb(tokens);
  const selects = tokens.some((t) => t.kind === "word" && fold(t.text) === "select");
  if (verb === "insert") return selects && writes.cascade.size > 0;
  if (verb !== "update") return false;
  const byIndex = writer !== "job" || plan.some((detail) => /\bINDEX\b/.test(detail));
  return byIndex && (code.some((row) => row[1] === "NoConflict") || (selects && readsItself(tokens)));
}

/** What the statement does, after a WITH clause and its parentheses. */
function mainVerb(tokens: readonly SqlToken[]): "insert" | "update" | "other" {
  let depth = 0;
  for (const { kind, text } of tokens) {
    if (text === "(") depth++;
    if (text === ")") depth--;
    if (depth > 0 || kind !== "word") continue;
    const word = fold(text);
    if (word === "insert" || word === "replace") return "insert";
    if (word === "update") return "update";
    if (word === "delete" || word === "select") return "other";
  }
  return "other";
}

/** Whether the updated table's name stands anywhere else in the statement. */
function readsItself(tokens: readonly SqlToken[]): boolean {
  const names = tokens.filter((t) => t.kind === "word" || t.kind === "quoted").map((t) => fold(t.text));
  const at = names.indexOf("update") + 1;
  const from = names[at] === "or" ? at + 2 : at;
  const table = names[from] === "main" && names[from + 1] !== "set" ? names[from + 1] : names[from];
  return names.filter((name) => name === table).length > 1;
}

/** Values in the driver's form, named or none. @throws UsageError ERR_JOB_PARAMETER for text that is not valid. */
export function bindings(statement: SqlStatement): readonly unknown[] {
  const entries = Object.entries(statement.values);
  return entries.length === 0
    ? []
    : [Object.fromEntries(entries.map(([name, v]) => [name, parameter(name, v)]))];
}

/** Runs `work` and names the job's line when it fails. @throws UsageError ERR_JOB_STATEMENT. */
export function withLine<T>(statement: SqlStatement, work: () => T): T {
  try {
    return work();
  } catch (e) {
    throw new UsageError({
      code: "ERR_JOB_STATEMENT",
      message: `line ${statement.line}: ${messageOf(e)}`,
      why: "the engine does not accept the statement",
      cause: e,
    });
  }
}

function parameter(name: string, value: Value): Cell {
  if (!isRawText(value)) return bound(value);
  throw new UsageError({ code: "ERR_JOB_PARAMETER", message: `parameter ${name} is not valid UTF-8 text` });
}

function refuseOpcode(statement: SqlStatement, catalogue: Catalogue, opcode: string): void {
  if (opcode === "AutoCommit" || opcode === "Savepoint" || opcode === "Vacuum" || opcode === "JournalMode") {
    throw refused(statement, opcode, "holdpoint decides where a transaction begins and ends");
  }
  if (!/^V(Update|Create|Destroy|Rename)$/.test(opcode)) return;
  const virtual = catalogue.tables.filter((t) => t.kind === "virtual").map((t) => t.name);
  const named = virtual.filter((name) => fold(statement.text).includes(fold(name)));
  throw new TargetError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `line ${statement.line}: the statement writes a virtual table (${(named.length > 0 ? named : virtual).join(", ")})`,
    why: "what a virtual table stores is its module's own affair, and cannot be held or taken back exactly",
    next: [
      {
        actor: "requester",
        text: "leave this table out of the job, or rebuild it afterwards (docs/fine-print.md)",
      },
    ],
  });
}

/** Tables by database and root page; an index stands for its table. */
function rootPages(connection: Connection): ReadonlyMap<string, string> {
  const rows = connection.rows(
    `SELECT 0, rootpage, tbl_name FROM main.sqlite_schema WHERE rootpage > 0
     UNION ALL SELECT 1, rootpage, tbl_name FROM temp.sqlite_schema WHERE rootpage > 0`,
  );
  return new Map(rows.map(([database, root, table]) => [placeKey(database, root), nameOf(database, table)]));
}

function placeKey(database: Cell | undefined, root: Cell | undefined): string {
  return `${String(database)}.${String(root)}`;
}

/** Temporary tables of the job itself are scratch paper and nobody's effect. */
function nameOf(database: Cell | undefined, table: Cell | undefined): string {
  return database === 1n ? "" : String(table);
}

function checkTables(statement: SqlStatement, writes: Program["writes"]): void {
  const all = [...writes.job, ...writes.cascade, ...writes.trigger];
  if (all.some(isOurs)) throw touchesMarker(statement);
  const statistics = all.find((t) => fold(t).startsWith("sqlite_stat"));
  if (statistics === undefined) return;
  throw new TargetError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `line ${statement.line}: the statement writes ${statistics}`,
    why: "the engine's statistics cannot be captured",
  });
}

function tablesOnly(names: ReadonlySet<string>): ReadonlySet<string> {
  return new Set([...names].filter((n) => n !== "" && !isOurs(n) && !isEngines(n)));
}

function countScans(details: readonly string[]): number {
  if (details.some((d) => d.startsWith("RECURSIVE"))) return Number.POSITIVE_INFINITY;
  return details.filter((d) => d.startsWith("SCAN ") && !d.startsWith("SCAN CONSTANT")).length;
}

function refused(statement: SqlStatement, what: string, why: string): UsageError {
  return new UsageError({
    code: "ERR_JOB_STATEMENT",
    message: `line ${statement.line}: ${what} is not allowed in a job`,
    why,
    next: [{ actor: "requester", text: "take the statement out of the job's file" }],
  });
}

function touchesMarker(statement: SqlStatement): RefusedError {
  return new RefusedError({
    code: "ERR_MARKER_TOUCHED",
    message: `line ${statement.line}: the statement touches a table of holdpoint`,
    why: "who the target is and what was spent there is never part of a job",
  });
}
