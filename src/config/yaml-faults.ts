/** What is wrong with a YAML text, in words and with its place: what the YAML itself does wrong, and what the schema has against it. */
import { type CST, type Document, isAlias, isMap, isPair, isScalar, type Node, visit } from "yaml";
import * as z from "zod";
import { nearest } from "../base/suggest.js";
import type { Path } from "./yaml-file.js";

/** How deep a file may nest. The parser and the schema go down one call a level, and a stack that ends takes the process with it. */
const MOST_DEPTH = 64;
/** The most keys of one map: the parser compares each with each. */
const MOST_KEYS = 2_000;
/** The most entries of one list: a file of resolutions has up to 10,000. */
const MOST_ENTRIES = 20_000;
/** The most faults that are looked up and told; finding the line of each costs a pass over the file. */
export const MOST_FAULTS = 50;

/** One thing wrong with a file. */
export interface Fault {
  /** Offset in the text. */
  readonly offset: number;
  readonly what: string;
}

/** Where the file is deeper or longer than it may be; found on the parser's tokens, before anything recurs over them. */
export function immenseFault(tokens: readonly CST.Token[]): Fault | null {
  const left = tokens.map((token) => ({ token, depth: 0 }));
  for (let at = left.pop(); at !== undefined; at = left.pop()) {
    const { token, depth } = at;
    if (token.type === "document" && token.value !== undefined) left.push({ token: token.value, depth });
    if (!("items" in token)) continue;
    const most = isList(token) ? MOST_ENTRIES : MOST_KEYS;
    if (depth >= MOST_DEPTH)
      return { offset: token.offset, what: `this nests deeper than ${MOST_DEPTH} levels` };
    if (token.items.length > most)
      return { offset: token.offset, what: `this has more than ${most} entries` };
    for (const { key, value } of token.items)
      for (const part of [key, value])
        if (part !== undefined && part !== null) left.push({ token: part, depth: depth + 1 });
  }
  return null;
}

function isList(token: CST.Token): boolean {
  return token.type === "block-seq" || (token.type === "flow-collection" && token.start.source === "[");
}

/** What is no YAML at all, or more of YAML than is read here. */
export function syntaxFaults(document: Document.Parsed, second: number | null, text: string): Fault[] {
  const faults: Fault[] = [];
  const control = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.exec(text);
  if (control !== null) faults.push({ offset: control.index, what: "a control character stands here" });
  for (const e of document.errors) {
    const offset = e.pos[0];
    faults.push({ offset, what: syntaxWords(e.code, e.message, text.slice(offset)) });
  }
  if (second !== null)
    faults.push({ offset: second, what: "a second document begins here: one file holds one document" });
  // An unknown tag or directive is only a warning to the parser; here nothing may be read two ways.
  for (const w of document.warnings) faults.push({ offset: w.pos[0], what: lowerFirst(w.message) });
  if (document.directives.yaml.explicit === true)
    faults.push({ offset: 0, what: "a %YAML directive has no place here" });
  return faults;
}

function syntaxWords(code: string, message: string, rest: string): string {
  switch (code) {
    case "DUPLICATE_KEY":
      return `${JSON.stringify(rest.split(/[:\n]/, 1)[0]?.trim() ?? "")} stands in the same place twice`;
    case "TAB_AS_INDENT":
      return "a tab indents this line: use spaces";
    default:
      return lowerFirst(message);
  }
}

/** What is YAML and is never meant: keys that are no text, aliases, tags, blank values. */
export function shapeFaults(document: Document.Parsed, blanks: "refused" | "allowed"): Fault[] {
  const faults: Fault[] = [];
  const fault = (node: Node, what: string): void => void faults.push({ offset: node.range?.[0] ?? 0, what });
  visit(document, {
    Alias: (_, node) => fault(node, `*${node.source} repeats another part of the file: write the value out`),
    Pair: (_, pair) => {
      if (!isScalar(pair.key)) return;
      const what = keyFault(pair.key.value);
      if (what !== null) fault(pair.key, what);
      else if (pair.value === null && blanks === "refused")
        fault(pair.key, `${String(pair.key.value)} is empty`);
    },
    Map: (_, map) => {
      const odd = map.items.find((pair) => !isScalar(pair.key));
      if (odd !== undefined) fault(map, "a key must be plain text");
    },
    Scalar: (key, node, ancestors) => {
      if (key === "key") return;
      if (
        typeof node.value === "number" &&
        Number.isInteger(node.value) &&
        !Number.isSafeInteger(node.value)
      ) {
        fault(node, `${node.source ?? "the number"} is too large to be read exactly: write it in quotes`);
      }
      const blank = node.value === null || (typeof node.value === "string" && node.value.trim() === "");
      if (blank && blanks === "refused") fault(node, `${ownerName(ancestors)} is empty`);
    },
  });
  return faults;
}

function keyFault(key: unknown): string | null {
  if (typeof key !== "string") return `the key ${String(key)} is not text: write it in quotes`;
  if (key.trim() === "") return "a key is empty";
  if (key === "__proto__") return "__proto__ cannot be a key";
  return null;
}

function ownerName(ancestors: readonly unknown[]): string {
  const owner = ancestors.at(-1);
  return isPair(owner) && isScalar(owner.key) ? String(owner.key.value) : "an entry of this list";
}

// --- what the schema says against it ---------------------------------------------------------------

/** What one complaint of the schema means for the file, in words a person can act on. */
export function issueFaults(
  issue: z.core.$ZodIssue,
  document: Document.Parsed,
  tree: unknown,
  schema: z.ZodType,
): Fault[] {
  const name = issue.path.length === 0 ? "the file" : issue.path.map(String).join(".");
  const within = issue.code === "invalid_union" ? branchMeant(issue.errors) : undefined;
  if (within !== undefined) {
    return within.flatMap((i) =>
      issueFaults({ ...i, path: [...issue.path, ...i.path] }, document, tree, schema),
    );
  }
  if (issue.code === "unrecognized_keys") {
    return issue.keys.slice(0, MOST_FAULTS + 1).map((key) => ({
      offset: keyOffset(document, issue.path, key),
      what: `${JSON.stringify(key)} is not a key ${issue.path.length === 0 ? "of this file" : `of ${name}`}${known(key, schema, issue.path)}`,
    }));
  }
  if (issue.code === "invalid_key") {
    const owner = issue.path.slice(0, -1);
    const key = String(issue.path.at(-1));
    const why = issue.issues[0]?.message ?? "is not a key that may stand here";
    return [{ offset: keyOffset(document, owner, key), what: `${JSON.stringify(key)} ${lowerFirst(why)}` }];
  }
  return [
    {
      offset: offsetOf(document, issue.path),
      what: `${name} ${issueWords(issue, valueAt(tree, issue.path))}`,
    },
  ];
}

function issueWords(issue: z.core.$ZodIssue, value: unknown): string {
  if (value === undefined && issue.code !== "custom") return "is missing";
  if (issue.code === "invalid_type")
    return `wants ${typeWords(issue.expected)}, and has ${shown(issue, value)}`;
  if (issue.code === "invalid_value") {
    return `wants ${issue.values.map((v) => String(v)).join(" or ")}, and has ${shown(issue, value)}`;
  }
  if (issue.code === "invalid_union")
    return `wants ${unionWords(issue.errors)}, and has ${shown(issue, value)}`;
  if (issue.code === "too_small") {
    return issue.origin === "array" ? "has no entries" : `must be at least ${String(issue.minimum)}`;
  }
  if (issue.code === "too_big") {
    return issue.origin === "array"
      ? `has more than ${String(issue.maximum)} entries`
      : `must be at most ${String(issue.maximum)}`;
  }
  return lowerFirst(issue.message);
}

/** The one alternative whose outer shape fits, when there is one: what is wrong inside it is what helps. */
function branchMeant(
  options: readonly (readonly z.core.$ZodIssue[])[],
): readonly z.core.$ZodIssue[] | undefined {
  const fitting = options.filter((issues) =>
    issues.every((i) => i.path.length > 0 || (i.code !== "invalid_type" && i.code !== "invalid_value")),
  );
  return fitting.length === 1 ? fitting[0] : undefined;
}

function unionWords(options: readonly (readonly z.core.$ZodIssue[])[]): string {
  const words = options.flatMap((issues) =>
    issues.flatMap((i) => {
      if (i.code === "invalid_type") return [typeWords(i.expected)];
      return i.code === "invalid_value" ? i.values.map((v) => String(v)) : [];
    }),
  );
  return words.length === 0 ? "another value" : [...new Set(words)].join(" or ");
}

function typeWords(expected: string): string {
  switch (expected) {
    case "string":
      return "text";
    case "int":
      return "a whole number";
    case "number":
      return "a number";
    case "boolean":
      return "true or false";
    case "array":
      return "a list";
    case "object":
    case "record":
      return "a map of keys";
    default:
      return expected;
  }
}

/** What the file has there; never the text of a url, which may hold a password. */
function shown(issue: z.core.$ZodIssue, value: unknown): string {
  if (value === null) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a map of keys";
  if (issue.path.at(-1) === "url") return "something else";
  const text = JSON.stringify(value) ?? typeof value;
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

/** `; did you mean "url"?`, else the keys that may stand there. */
function known(key: string, schema: z.ZodType, path: Path): string {
  const keys = keysAt(schema, path);
  const guess = nearest(key, keys);
  if (guess !== undefined) return `; did you mean ${guess}?`;
  return keys.length === 0 ? "" : `; it has ${keys.join(", ")}`;
}

function keysAt(schema: unknown, path: Path): readonly string[] {
  const [step, ...rest] = path;
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodNullable) {
    return keysAt(schema.unwrap(), path);
  }
  if (schema instanceof z.ZodPipe) return keysAt(schema.in, path);
  if (schema instanceof z.ZodUnion) return schema.options.flatMap((option) => [...keysAt(option, path)]);
  if (schema instanceof z.ZodObject) {
    const shape: Readonly<Record<string, unknown>> = schema.shape;
    return step === undefined ? Object.keys(shape) : keysAt(shape[String(step)], rest);
  }
  if (step === undefined) return [];
  if (schema instanceof z.ZodRecord) return keysAt(schema.valueType, rest);
  if (schema instanceof z.ZodArray) return keysAt(schema.element, rest);
  return [];
}

// --- where things stand ----------------------------------------------------------------------------

/** Where the value at `path` begins; its nearest ancestor where there is none. */
export function offsetOf(document: Document.Parsed, path: Path): number {
  for (let length = path.length; length > 0; length--) {
    const node: unknown = document.getIn(path.slice(0, length), true);
    if (isScalar(node) || isMap(node) || isAlias(node)) return node.range?.[0] ?? 0;
    if (hasRange(node)) return node.range[0];
  }
  return document.contents?.range[0] ?? 0;
}

function hasRange(node: unknown): node is { readonly range: readonly [number, number, number] } {
  return typeof node === "object" && node !== null && "range" in node && Array.isArray(node.range);
}

function keyOffset(document: Document.Parsed, path: Path, key: string): number {
  const owner: unknown = path.length === 0 ? document.contents : document.getIn(path, true);
  if (!isMap(owner)) return offsetOf(document, path);
  const pair = owner.items.find((p) => isScalar(p.key) && p.key.value === key);
  return hasRange(pair?.key) ? pair.key.range[0] : offsetOf(document, path);
}

function valueAt(tree: unknown, path: Path): unknown {
  let value = tree;
  for (const step of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) return undefined;
    value = Reflect.get(value, step);
  }
  return value;
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
