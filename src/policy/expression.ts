/**
 * Conditions in CEL, checked when they are loaded and bounded so that none can run long.
 *
 * A condition is accepted only if its type is `bool` against the declared variables and it calls nothing
 * but {@link FUNCTIONS} and {@link METHODS}. Left out on purpose:
 * - `matches`: JavaScript regular expressions, which a hostile pattern hangs; `glob` and `re2` instead;
 * - `dyn`, `json`, `type`, `int`, `uint`: ways to values without a checked type, or past 64 bits unnoticed;
 * - `cel.bind`: repeated doubling of a list.
 * Comprehensions nest or chain at most twice and the inner one cannot go over all tables again, so the cost is at
 * most in proportion to tables times columns, times the length of the expression.
 */
import { type ASTNode, Environment, type ParseResult } from "@marcbachmann/cel-js";
import { isErrorLike, messageOf } from "../base/errors.js";
import { CONSTRUCTORS, type Facts, TYPES, VARIABLES } from "./facts.js";
import { preparePattern } from "./patterns.js";
import { columnOf, type Expression, type TextPattern } from "./schema.js";

/** Functions that a condition may call. */
export const FUNCTIONS = ["glob", "re2", "size", "has", "string", "double", "timestamp", "duration"] as const;

/** Methods that a condition may call. */
export const METHODS = [
  "exists",
  "all",
  "exists_one",
  "filter",
  "map",
  "contains",
  "startsWith",
  "endsWith",
  "size",
  "lowerAscii",
  "upperAscii",
  "trim",
  "getDate",
  "getDayOfMonth",
  "getDayOfWeek",
  "getDayOfYear",
  "getFullYear",
  "getHours",
  "getMilliseconds",
  "getMinutes",
  "getMonth",
  "getSeconds",
] as const;

const COMPREHENSIONS: ReadonlySet<string> = new Set(["exists", "all", "exists_one", "filter", "map"]);
const MAX_COMPREHENSIONS = 2;
const MAX_LENGTH = 4000;
const LIMITS = {
  maxAstNodes: 1000,
  maxDepth: 50,
  maxListElements: 200,
  maxMapEntries: 50,
  maxCallArguments: 4,
};

/** What a condition reads, for saying what it saw. */
export interface Mentions {
  /** `rows.delete`, `reason`, `requester.groups` … in order of appearance. */
  readonly paths: readonly string[];
  /** Fields of a table that it reads inside a comprehension over `tables`. */
  readonly tableFields: readonly string[];
}

/** A checked condition. */
export interface Condition {
  readonly expression: Expression;
  readonly mentions: Mentions;
  /** @throws whatever goes wrong while evaluating; the caller denies. */
  readonly holds: (facts: Facts) => boolean;
}

/** What is wrong with a condition, with the place in the file and the expression marked. */
export interface ExpressionFault {
  readonly at: string;
  readonly what: string;
  /** The line of the expression with a caret below, for `why`. */
  readonly marked: string;
}

/** A condition or its fault. */
export type Checked =
  | { readonly ok: true; readonly condition: Condition }
  | { readonly ok: false; readonly fault: ExpressionFault };

/** A compiler of conditions: building the declared schema once serves any number of them. */
export function conditionCompiler(): (expression: Expression) => Checked {
  const patterns = new Map<string, (text: string) => boolean>();
  const environment = declaredEnvironment(patterns);
  return (expression) => {
    const found = check(environment, expression.text, patterns);
    if (!found.ok) return { ok: false, fault: faultAt(expression, found.what, found.offset) };
    const { run, ast } = found;
    const holds = (facts: Facts): boolean => truth(run(facts.values));
    return { ok: true, condition: { expression, mentions: mentionsOf(ast), holds } };
  };
}

/** Anything but true and false is an error; so a promise or an object never counts as "yes". */
function truth(value: unknown): boolean {
  if (typeof value !== "boolean") throw new TypeError(`a condition gave ${typeof value}, not true or false`);
  return value;
}

function declaredEnvironment(patterns: ReadonlyMap<string, (text: string) => boolean>): Environment {
  const environment = new Environment({ limits: LIMITS });
  for (const [name, fields] of Object.entries(TYPES)) {
    const types = Object.fromEntries(Object.entries(fields).map(([field, [type]]) => [field, type]));
    environment.registerType(name, { ctor: constructorOf(name), fields: types });
  }
  for (const [name, [type]] of Object.entries(VARIABLES)) environment.registerVariable(name, type);
  for (const kind of ["glob", "re2"] as const) {
    environment.registerFunction(`${kind}(string, string): bool`, (text: string, pattern: string) =>
      matches(patterns, kind, text, pattern),
    );
  }
  return environment;
}

function constructorOf(name: string): new (values: Readonly<Record<string, unknown>>) => object {
  const found = Object.entries(CONSTRUCTORS).find(([type]) => type === name)?.[1];
  if (found === undefined) throw new TypeError(`no constructor for ${name}`);
  return found;
}

/** Patterns are literals, prepared when the condition was loaded; one that is not there was never checked. */
function matches(
  patterns: ReadonlyMap<string, (text: string) => boolean>,
  kind: TextPattern["kind"],
  text: string,
  pattern: string,
): boolean {
  const test = patterns.get(`${kind} ${pattern}`);
  if (test === undefined) throw new TypeError(`the pattern ${JSON.stringify(pattern)} was not checked`);
  return test(text);
}

interface Refusal {
  readonly ok: false;
  readonly what: string;
  readonly offset: number;
}

type Found =
  | { readonly ok: true; readonly run: (values: object) => unknown; readonly ast: ASTNode }
  | Refusal;

function check(
  environment: Environment,
  text: string,
  patterns: Map<string, (text: string) => boolean>,
): Found {
  if (text.length > MAX_LENGTH) return refusal(`the condition is longer than ${MAX_LENGTH} characters`, 0);
  try {
    const parsed = environment.parse(text);
    const forbidden = firstForbidden(parsed.ast, patterns);
    if (forbidden !== null) return forbidden;
    return typed(parsed);
  } catch (e) {
    return refusal(summaryOf(e), offsetOf(e));
  }
}

function typed(parsed: ParseResult): Found {
  const checked = parsed.check();
  if (!checked.valid) return refusal(summaryOf(checked.error), offsetOf(checked.error));
  if (checked.type !== "bool")
    return refusal(`a condition is true or false, and this is ${checked.type ?? "neither"}`, 0);
  return { ok: true, run: (values) => parsed({ ...values }) as unknown, ast: parsed.ast };
}

function refusal(what: string, offset: number): Refusal {
  return { ok: false, what, offset };
}

/** Where a walk stands: how many comprehensions are around or before, and which variables they bind. */
interface Around {
  readonly comprehensions: number;
  readonly insideBody: boolean;
  readonly bound: ReadonlySet<string>;
}

/** The first thing in the expression that is not allowed; prepares the patterns it finds. */
function firstForbidden(ast: ASTNode, patterns: Map<string, (text: string) => boolean>): Refusal | null {
  const functions: ReadonlySet<string> = new Set(FUNCTIONS);
  const methods: ReadonlySet<string> = new Set(METHODS);
  const visitAll = (nodes: readonly ASTNode[], around: Around): Refusal | null => {
    for (const node of nodes) {
      const found = visit(node, around);
      if (found !== null) return found;
    }
    return null;
  };
  const visitCall = (node: ASTNode & { readonly op: "call" }, around: Around): Refusal | null => {
    const [name, args] = node.args;
    if (!functions.has(name)) return refusal(notAFunction(name), node.start);
    if (name === "glob" || name === "re2") {
      const wrong = learnPattern(name, args[1], patterns);
      if (wrong !== null) return wrong;
    }
    return visitAll(args, around);
  };
  const visitMethod = (node: ASTNode & { readonly op: "rcall" }, around: Around): Refusal | null => {
    const [name, receiver, args] = node.args;
    if (!methods.has(name)) return refusal(notAFunction(name), node.start);
    if (!COMPREHENSIONS.has(name)) return visitAll([receiver, ...args], around);
    const comprehensions = around.comprehensions + 1;
    if (comprehensions > MAX_COMPREHENSIONS)
      return refusal(`${name}: comprehensions nest or chain at most ${MAX_COMPREHENSIONS} deep`, node.start);
    const [variable, ...body] = args;
    if (variable?.op !== "id") return refusal(`${name}: the first argument is a variable's name`, node.start);
    if (Object.hasOwn(VARIABLES, variable.args) || around.bound.has(variable.args))
      return refusal(`${variable.args} already has a meaning here; choose another name`, variable.start);
    return (
      visit(receiver, { ...around, comprehensions }) ??
      visitAll(body, { comprehensions, insideBody: true, bound: new Set([...around.bound, variable.args]) })
    );
  };
  const visit = (node: ASTNode, around: Around): Refusal | null => {
    if (node.op === "call") return visitCall(node, around);
    if (node.op === "rcall") return visitMethod(node, around);
    if (node.op === "id" && node.args === "tables" && around.insideBody)
      return refusal("tables cannot be gone through again inside a comprehension", node.start);
    return visitAll(childrenOf(node), around);
  };
  return visit(ast, { comprehensions: 0, insideBody: false, bound: new Set() });
}

function notAFunction(name: string): string {
  if (name === "matches")
    return 'matches is not available, because a hostile pattern could hang it: use re2(text, "…") or glob(text, "…")';
  return `${name} is not available in a condition; there are ${[...FUNCTIONS].join(", ")}`;
}

function learnPattern(
  kind: TextPattern["kind"],
  node: ASTNode | undefined,
  patterns: Map<string, (text: string) => boolean>,
): Refusal | null {
  if (node === undefined) return null; // the type checker says what is missing
  if (node.op !== "value" || typeof node.args !== "string")
    return refusal(
      `the pattern of ${kind} is written out as text, so that it can be checked now`,
      node.start,
    );
  const prepared = preparePattern(kind, node.args);
  if (!prepared.ok) return refusal(`${kind}: ${prepared.why}`, node.start);
  patterns.set(`${kind} ${node.args}`, prepared.test);
  return null;
}

/** The nodes right below, whatever the operator. Names and literals have none. */
function childrenOf(node: ASTNode): readonly ASTNode[] {
  if (node.op === "value" || node.op === "id") return [];
  const below: ASTNode[] = [];
  const collect = (part: unknown): void => {
    if (Array.isArray(part)) part.forEach(collect);
    else if (isNode(part)) below.push(part);
  };
  collect(node.args);
  return below;
}

function isNode(part: unknown): part is ASTNode {
  return typeof part === "object" && part !== null && "op" in part && "args" in part;
}

function mentionsOf(ast: ASTNode): Mentions {
  const paths = new Set<string>();
  const tableFields = new Set<string>();
  const visit = (node: ASTNode, overTables: ReadonlySet<string>): void => {
    const path = pathOf(node);
    if (path !== null) {
      const [root = "", field] = path;
      if (overTables.has(root)) {
        if (field !== undefined) tableFields.add(field);
      } else if (Object.hasOwn(VARIABLES, root) && root !== "tables") paths.add(path.join("."));
      return;
    }
    const variable = node.op === "rcall" && COMPREHENSIONS.has(node.args[0]) ? node.args[2][0] : undefined;
    const inner =
      variable?.op === "id" && rootsIn(node.op === "rcall" ? node.args[1] : node).has("tables")
        ? new Set([...overTables, variable.args])
        : overTables;
    for (const child of childrenOf(node)) visit(child, inner);
  };
  visit(ast, new Set());
  return { paths: [...paths], tableFields: [...tableFields] };
}

/** `["rows", "delete"]` for `rows.delete`, `["reason"]` for `reason`; null for anything else. */
function pathOf(node: ASTNode): readonly string[] | null {
  if (node.op === "id") return [node.args];
  if (node.op !== ".") return null;
  const [owner, field] = node.args;
  const path = pathOf(owner);
  return path === null ? null : [...path, field];
}

function rootsIn(node: ASTNode): ReadonlySet<string> {
  if (node.op === "id") return new Set([node.args]);
  return new Set(childrenOf(node).flatMap((n) => [...rootsIn(n)]));
}

function summaryOf(e: unknown): string {
  if (isErrorLike(e) && "summary" in e && typeof e.summary === "string") return e.summary;
  return messageOf(e).split("\n", 1)[0] ?? "";
}

function offsetOf(e: unknown): number {
  if (!isErrorLike(e) || !("range" in e)) return 0;
  const range: unknown = e.range;
  return typeof range === "object" && range !== null && "start" in range && typeof range.start === "number"
    ? range.start
    : 0;
}

function faultAt(expression: Expression, what: string, offset: number): ExpressionFault {
  const before = expression.text.slice(0, offset).split("\n");
  const row = before.length - 1;
  const column = before.at(-1)?.length ?? 0;
  const line = expression.text.split("\n")[row] ?? "";
  const { at } = expression;
  // Inside a quoted or folded scalar the column cannot be mapped back; the caret still shows the spot.
  const exact = expression.verbatim && row === 0;
  return {
    at: columnOf(exact ? { ...at, column: at.column + column } : at),
    what,
    marked: `${line}\n${" ".repeat(column)}^`,
  };
}
