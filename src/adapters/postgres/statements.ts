/**
 * What may stand in a job on PostgreSQL, told by the engine's own parser, and its parameters. A statement goes to the
 * server in a message of its own, so what is judged here as one statement is run as one.
 */
import { messageOf, RefusedError, UsageError } from "../../base/errors.js";
import { MARKER_PREFIX } from "../../target/marker.js";
import type { SqlStatement } from "../../target/target.js";
import { toCell, type Cell } from "./values.js";

/** A statement, ready to be sent. */
export interface Prepared {
  readonly line: number;
  /** With `$1`, `$2` … where parameters stood. */
  readonly text: string;
  readonly values: readonly Cell[];
  /** It makes a temporary table: scratch paper of the job, nobody's effect. */
  readonly isTemporary: boolean;
  /** It changes the schema: the job runs again at apply, whole. */
  readonly isSchema: boolean;
}

/** The parser: libpg-query, which is PostgreSQL's own grammar. */
export interface Parser {
  readonly scan: (
    sql: string,
  ) => readonly { readonly start: number; readonly end: number; readonly text: string }[];
  readonly parse: (sql: string) => readonly unknown[];
}

/** Loads the parser. */
export async function loadParser(): Promise<Parser> {
  const { loadModule, parseSync, scanSync } = await import("libpg-query");
  await loadModule();
  return {
    scan: (sql) => scanSync(sql).tokens,
    parse: (sql) => (parseSync(sql).stmts ?? []).map((s) => s.stmt),
  };
}

/**
 * Checks one statement and puts places for its parameters into it. Each occurrence of a parameter is a place of its own,
 * so the server infers the type of each from where it stands (`:days * interval '1 day'`); where it cannot, the job says
 * it (`:days::integer`).
 * @throws UsageError ERR_JOB_STATEMENT for what no job may have, by name and line; RefusedError ERR_MARKER_TOUCHED.
 */
export function prepare(parser: Parser, statement: SqlStatement): Prepared {
  const { text, values } = bind(parser, statement);
  let nodes: readonly unknown[];
  try {
    nodes = parser.parse(text);
  } catch (e) {
    throw refused(statement, messageOf(e), "the engine's grammar does not accept the statement");
  }
  const [node, second] = nodes;
  if (!isNode(node) || second !== undefined)
    throw refused(
      statement,
      nodes.length === 0 ? "nothing" : "several statements",
      "a job's statements are run one by one",
    );
  const kind = checkKind(statement, node);
  checkCalls(statement, node);
  return {
    line: statement.line,
    text,
    values,
    isTemporary: kind === "temporary",
    isSchema: kind === "schema",
  };
}

// ---- parameters

function bind(
  parser: Parser,
  statement: SqlStatement,
): { readonly text: string; readonly values: readonly Cell[] } {
  const bytes = Buffer.from(statement.text, "utf8");
  const tokens = scan(parser, statement);
  const values: Cell[] = [];
  const parts: string[] = [];
  let from = 0;
  tokens.forEach((token, i) => {
    refuseOurs(statement, token.text);
    const name = tokens[i + 1];
    if (token.text !== ":" || name === undefined || name.start !== token.end) return;
    const value = Object.hasOwn(statement.values, name.text) ? statement.values[name.text] : undefined;
    if (value === undefined) return;
    values.push(toCell(value));
    // Places are byte offsets. The space keeps `$1` from growing together with what follows.
    parts.push(bytes.toString("utf8", from, token.start), ` $${values.length} `);
    from = name.end;
  });
  return { text: [...parts, bytes.toString("utf8", from)].join(""), values };
}

function scan(parser: Parser, statement: SqlStatement): ReturnType<Parser["scan"]> {
  try {
    return parser.scan(statement.text);
  } catch (e) {
    throw refused(statement, messageOf(e), "the engine's scanner does not accept the statement");
  }
}

function refuseOurs(statement: SqlStatement, token: string): void {
  const name = token.startsWith('"') ? token.slice(1) : token.toLowerCase();
  if (!name.startsWith(MARKER_PREFIX)) return;
  throw touchesMarker(`line ${statement.line}: the statement touches a table of holdpoint`);
}

/** The refusal of a job that writes, or even names, a table of ours. */
export function touchesMarker(message: string): RefusedError {
  return new RefusedError({
    code: "ERR_MARKER_TOUCHED",
    message,
    why: "who the target is and what was spent there is never part of a job",
  });
}

// ---- kinds of statements

const DATA = new Set([
  "SelectStmt",
  "InsertStmt",
  "UpdateStmt",
  "DeleteStmt",
  "MergeStmt",
  "TruncateStmt",
  "CallStmt",
  "DoStmt",
]);
const TRANSACTION = "holdpoint decides where a transaction begins and ends";
const SETTINGS = "a setting changes what later statements mean; a plan states those of the role and database";
const OUTSIDE = "its effect is outside the transaction, and cannot be shown or taken back";
const ALONE = "it cannot run inside a transaction, so nothing could be compared before it stays";
const SERVER =
  "it changes the server or its roles, not this database's tables; make it with the server's own tools";
const UNKNOWN = "its effect is none that a plan could show whole; make it with your migration tool";
const WORDS: ReadonlyMap<string, readonly [string, string]> = new Map([
  ["TransactionStmt", ["a transaction command", TRANSACTION]],
  ["ConstraintsSetStmt", ["SET CONSTRAINTS", TRANSACTION]],
  ["VariableSetStmt", ["SET", SETTINGS]],
  ["VariableShowStmt", ["SHOW", "it changes no row that a plan could show"]],
  ["ExplainStmt", ["EXPLAIN", "it changes no row that a plan could show"]],
  ["DiscardStmt", ["DISCARD", SETTINGS]],
  [
    "CopyStmt",
    ["COPY", "it reads or writes a file or program of the server, or data that is not in the job"],
  ],
  ["LockStmt", ["LOCK", "a rehearsal takes no more locks than the job's own changes do"]],
  ["NotifyStmt", ["NOTIFY", OUTSIDE]],
  ["ListenStmt", ["LISTEN", OUTSIDE]],
  ["UnlistenStmt", ["UNLISTEN", OUTSIDE]],
  ["LoadStmt", ["LOAD", OUTSIDE]],
  ["VacuumStmt", ["VACUUM or ANALYZE", "it changes no row that a plan could show"]],
  ["CreatedbStmt", ["CREATE DATABASE", ALONE]],
  ["DropdbStmt", ["DROP DATABASE", ALONE]],
  ["AlterSystemStmt", ["ALTER SYSTEM", ALONE]],
  ["CreateTableSpaceStmt", ["CREATE TABLESPACE", ALONE]],
  ["DropTableSpaceStmt", ["DROP TABLESPACE", ALONE]],
  ["CreateRoleStmt", ["CREATE ROLE", SERVER]],
  ["AlterRoleStmt", ["ALTER ROLE", SERVER]],
  ["AlterRoleSetStmt", ["ALTER ROLE … SET", SERVER]],
  ["DropRoleStmt", ["DROP ROLE", SERVER]],
  ["GrantRoleStmt", ["GRANT of a role", SERVER]],
  ["AlterDatabaseStmt", ["ALTER DATABASE", SERVER]],
  ["AlterDatabaseSetStmt", ["ALTER DATABASE … SET", SERVER]],
  [
    "CreateForeignTableStmt",
    ["CREATE FOREIGN TABLE", "its rows are on another server, which is not rolled back"],
  ],
  ["ReindexStmt", ["REINDEX", "it changes no row that a plan could show"]],
  ["ClusterStmt", ["CLUSTER", "it changes no row that a plan could show"]],
  ["CheckPointStmt", ["CHECKPOINT", OUTSIDE]],
  ["PrepareStmt", ["PREPARE", "a job's statements stand in its file"]],
  ["ExecuteStmt", ["EXECUTE", "a job's statements stand in its file"]],
  ["DeclareCursorStmt", ["DECLARE", "a cursor shows nothing that a plan could show"]],
  ["FetchStmt", ["FETCH", "a cursor shows nothing that a plan could show"]],
  [
    "RefreshMatViewStmt",
    ["REFRESH MATERIALIZED VIEW", "its rows follow from other tables and are no effect of their own"],
  ],
]);

/** Schema changes whose effect is captured whole, see `definitions.ts`. */
const SCHEMA = new Set([
  "CreateStmt",
  "CreateTableAsStmt",
  "IndexStmt",
  "AlterTableStmt",
  "RenameStmt",
  "DropStmt",
  "ViewStmt",
  "CreateEnumStmt",
  "CreateDomainStmt",
  "CompositeTypeStmt",
  "CreateRangeStmt",
  "AlterEnumStmt",
  "AlterDomainStmt",
  "CreateFunctionStmt",
  "AlterFunctionStmt",
  "CreateTrigStmt",
  "CreateSeqStmt",
  "AlterSeqStmt",
  "CreatePolicyStmt",
  "AlterPolicyStmt",
  "CommentStmt",
  "GrantStmt",
  "CreateSchemaStmt",
  "AlterObjectSchemaStmt",
  "RuleStmt",
]);

/** What only looks like one of them, by what its parse tree has. */
const EXCEPTIONS: readonly {
  readonly kind: string;
  readonly matches: (body: Node) => boolean;
  readonly what: string;
  readonly why: string;
}[] = [
  {
    kind: "IndexStmt",
    matches: (b) => b["concurrent"] === true,
    what: "CREATE INDEX CONCURRENTLY",
    why: ALONE,
  },
  { kind: "DropStmt", matches: (b) => b["concurrent"] === true, what: "DROP INDEX CONCURRENTLY", why: ALONE },
  {
    kind: "AlterTableStmt",
    matches: (b) => mentions(b, "concurrent", true),
    what: "ALTER TABLE … DETACH PARTITION CONCURRENTLY",
    why: ALONE,
  },
  {
    kind: "AlterTableStmt",
    matches: (b) => mentions(b, "subtype", "AT_SetTableSpace"),
    what: "ALTER TABLE … SET TABLESPACE",
    why: "it moves files and changes nothing that a plan could show",
  },
  {
    kind: "CreateTableAsStmt",
    matches: (b) => b["objtype"] === "OBJECT_MATVIEW",
    what: "CREATE MATERIALIZED VIEW",
    why: "its rows follow from other tables and are no effect of their own",
  },
  {
    kind: "AlterSeqStmt",
    matches: (b) => mentions(b, "defname", "restart"),
    what: "ALTER SEQUENCE … RESTART",
    why: "sequences only ever move forward: ids would be given out again",
  },
  {
    kind: "AlterTableStmt",
    matches: (b) => mentions(b, "defname", "restart"),
    what: "ALTER TABLE … RESTART",
    why: "sequences only ever move forward: ids would be given out again",
  },
];

/** Whether the statement changes rows, the schema, or only makes scratch paper. */
function checkKind(statement: SqlStatement, node: Node): "data" | "schema" | "temporary" {
  const kind = Object.keys(node)[0] ?? "";
  const found = node[kind];
  const body = isNode(found) ? found : {};
  if (kind === "TruncateStmt" && body["restart_seqs"] === true) {
    throw refused(
      statement,
      "TRUNCATE … RESTART IDENTITY",
      "sequences only ever move forward: ids would be given out again",
    );
  }
  if (kind === "SelectStmt" && body["intoClause"] !== undefined)
    return isTemporary(body["intoClause"]) ? "temporary" : "schema";
  if (DATA.has(kind)) return "data";
  if (kind === "CreateStmt" && isTemporary({ rel: body["relation"] })) return "temporary";
  if (kind === "CreateTableAsStmt" && isTemporary(body["into"])) return "temporary";
  const exception = EXCEPTIONS.find((e) => e.kind === kind && e.matches(body));
  if (exception !== undefined) throw refused(statement, exception.what, exception.why);
  if (SCHEMA.has(kind)) return "schema";
  const [what, why] = WORDS.get(kind) ?? [wordsOf(kind), UNKNOWN];
  throw refused(statement, what, why);
}

/** Whether anywhere in the tree a property has that value. */
function mentions(value: unknown, name: string, wanted: unknown): boolean {
  if (Array.isArray(value)) return value.some((item) => mentions(item, name, wanted));
  if (!isNode(value)) return false;
  return value[name] === wanted || Object.values(value).some((inner) => mentions(inner, name, wanted));
}

function isTemporary(into: unknown): boolean {
  return isNode(into) && isNode(into["rel"]) && into["rel"]["relpersistence"] === "t";
}

/** `AlterTableStmt` as `ALTER TABLE`. */
function wordsOf(kind: string): string {
  return kind
    .replace(/Stmt$/, "")
    .replaceAll(/(?<=[a-z])(?=[A-Z])/g, " ")
    .toUpperCase();
}

// ---- functions with effects outside

const CALLS: readonly { readonly pattern: RegExp; readonly why: string }[] = [
  { pattern: /^dblink/, why: "it works on another connection, which is not rolled back" },
  { pattern: /^(pg_notify|pg_logical_emit_message)$/, why: OUTSIDE },
  { pattern: /^setval$/, why: "a rollback does not take it back, and ids could be given out again" },
  { pattern: /^(set_config)$/, why: SETTINGS },
  { pattern: /^(lo_|loread|lowrite)/, why: "large objects are no rows of a table and cannot be held" },
  {
    pattern: /^pg_(try_)?advisory/,
    why: "advisory locks are not rolled back, and holdpoint uses some itself",
  },
  {
    pattern:
      /^pg_(terminate_backend|cancel_backend|reload_conf|rotate_logfile|switch_wal|promote|create_.*|drop_replication.*|read_.*|ls_.*|file_.*|stat_reset.*|wal_.*|backup_.*|start_backup|stop_backup|import_.*|export_snapshot)$/,
    why: OUTSIDE,
  },
];

function checkCalls(statement: SqlStatement, node: Node): void {
  for (const name of calledFunctions(node)) {
    const found = CALLS.find((c) => c.pattern.test(name));
    if (found !== undefined) throw refused(statement, `${name}()`, found.why);
  }
  const body = "DoStmt" in node ? JSON.stringify(node["DoStmt"]) : "";
  const word = /\bdblink\w*|\bCOPY\b[^;]*\bPROGRAM\b|\bpg_notify\b|\blo_\w+/i.exec(body)?.[0];
  if (word !== undefined) throw refused(statement, word.slice(0, 40), OUTSIDE);
}

function* calledFunctions(value: unknown): Generator<string, undefined> {
  if (Array.isArray(value)) {
    for (const item of value) yield* calledFunctions(item);
  } else if (isNode(value)) {
    for (const [key, inner] of Object.entries(value)) {
      if (key === "FuncCall" && isNode(inner)) yield lastName(inner["funcname"]);
      yield* calledFunctions(inner);
    }
  }
}

function lastName(names: unknown): string {
  const last: unknown = Array.isArray(names) ? names.at(-1) : undefined;
  const word = isNode(last) ? last["String"] : undefined;
  return isNode(word) && typeof word["sval"] === "string" ? word["sval"] : "";
}

/** A node of the parse tree: one key, its kind. */
interface Node {
  readonly [key: string]: unknown;
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refused(statement: SqlStatement, what: string, why: string): UsageError {
  return new UsageError({
    code: "ERR_JOB_STATEMENT",
    message: `line ${statement.line}: ${what} is not allowed in a job`,
    why,
    next: [{ actor: "requester", text: "take the statement out of the job's file" }],
  });
}
