/**
 * Parameters of a job: text from the command line in, exactly typed values out. A parameter is always
 * bound, never pasted into a text. Nothing is guessed from a blank: empty never means all.
 *
 * | type | accepts | bound in SQL as | given to a module as |
 * | --- | --- | --- | --- |
 * | integer | `-12`, 64 bits, no leading zeros | integer | bigint |
 * | number | `0.25`, `1e-3`, at most 15 significant digits | real | number |
 * | text | any text that is not blank, without NUL | text | string |
 * | boolean | `true`, `false` | integer 1, 0 | boolean |
 * | date | `2026-11-24` | text | string |
 * | timestamp | `2026-11-24T14:38:44Z`, or with an offset | text, in UTC | string |
 * | duration | `90s`, `48h`, `1h30m`, `7d` | integer, seconds | bigint, seconds |
 * | list | `1,2,3`, or a JSON array | text, a JSON array for `json_each` | array |
 */
import { messageOf, UsageError } from "../base/errors.js";
import { nearest } from "../base/suggest.js";
import type { Value } from "../changeset/value.js";
import { parseScalar, type Scalar, SCALAR_TYPES, type ScalarType, TYPE_WORDS } from "./scalar.js";

/** The type of a parameter. */
export type ParameterType = ScalarType | "list";

/** The longest value that a parameter takes, in UTF-16 code units; a list counts as a whole. */
export const MAX_VALUE_LENGTH = 65_536;

/** A declared parameter. Made by {@link parameterSpec}, so that it cannot contradict itself. */
export interface ParameterSpec {
  readonly type: ParameterType;
  /** What `minimum`, `maximum`, `pattern` and `values` speak about: the parameter, or each item of a list. */
  readonly scalar: ScalarType;
  readonly minimum: Scalar | null;
  readonly maximum: Scalar | null;
  /** The whole text must match. JavaScript, flag `u`. */
  readonly pattern: RegExp | null;
  readonly values: readonly Scalar[] | null;
  /** Used when the parameter is not given; null makes it required. */
  readonly default: string | null;
}

/** Declared parameters by name. */
export type ParameterSpecs = Readonly<Record<string, ParameterSpec>>;

/** A parameter with its value. */
export interface BoundParameter {
  readonly name: string;
  readonly type: ParameterType;
  /** The type of the items of a list, else `type` itself. */
  readonly scalar: ScalarType;
  readonly value: Value;
  readonly text: string;
  readonly native: Scalar["native"] | readonly Scalar["native"][];
  readonly from: "given" | "default";
}

/** All parameters of a job with their values, in the order of their names. */
export type Bound = readonly BoundParameter[];

/** Why a declaration is no {@link ParameterSpec}; `key` is the key at fault, null for the whole. */
export interface SpecProblem {
  readonly key: string | null;
  readonly problem: string;
}

/** A parameter's name: letters, digits and `_`, as it stands after `:` in SQL. */
export function isParameterName(name: string): boolean {
  return /^[A-Za-z][A-Za-z0-9_]{0,62}$/.test(name);
}

// --- declarations ----------------------------------------------------------------------------------

const SPEC_KEYS = ["type", "items", "minimum", "maximum", "pattern", "values", "default"];

/**
 * Reads a declaration `{ type, items, minimum, maximum, pattern, values, default }`, from YAML or from a
 * module. Bounds, values and default are checked by the same rules as a value from the command line.
 */
export function parameterSpec(raw: unknown): ParameterSpec | SpecProblem {
  try {
    return readSpec(raw);
  } catch (e) {
    if (e instanceof SpecFault) return { key: e.key, problem: e.message };
    throw e;
  }
}

/** Whether {@link parameterSpec} found a problem. */
export function isSpecProblem(spec: ParameterSpec | SpecProblem): spec is SpecProblem {
  return "problem" in spec;
}

/** Stays inside {@link parameterSpec}. */
class SpecFault extends Error {
  readonly key: string | null;
  constructor(key: string | null, problem: string) {
    super(problem);
    this.name = "SpecFault";
    this.key = key;
  }
}

function readSpec(raw: unknown): ParameterSpec {
  const fields = fieldsOf(raw);
  for (const key of fields.keys()) {
    if (SPEC_KEYS.includes(key)) continue;
    const guess = nearest(key, SPEC_KEYS);
    throw new SpecFault(
      key,
      `is not a key of a parameter${guess === undefined ? "" : `; did you mean ${guess}?`}`,
    );
  }
  const type = typeOf(fields.get("type"));
  const scalar = scalarOf(type, fields.get("items"));
  const spec = {
    type,
    scalar,
    minimum: boundOf("minimum", scalar, fields.get("minimum")),
    maximum: boundOf("maximum", scalar, fields.get("maximum")),
    pattern: patternOf(scalar, fields.get("pattern")),
    values: valuesOf(scalar, fields.get("values")),
    default: defaultOf(type, fields.get("default")),
  };
  if (spec.minimum !== null && spec.maximum !== null && spec.minimum.order > spec.maximum.order) {
    throw new SpecFault("minimum", `is ${spec.minimum.text}, more than the maximum ${spec.maximum.text}`);
  }
  if (spec.default !== null) {
    const read = readValue(spec, spec.default);
    if (!read.ok) throw new SpecFault("default", `wants ${read.wants}, and is ${quoted(spec.default)}`);
  }
  return spec;
}

function fieldsOf(raw: unknown): ReadonlyMap<string, unknown> {
  if (typeof raw !== "object" || raw === null || Array.isArray(raw)) {
    throw new SpecFault(null, "wants a declaration such as { type: integer }");
  }
  return new Map(Object.entries(raw).filter(([, v]) => v !== undefined));
}

function typeOf(raw: unknown): ParameterType {
  const types: readonly ParameterType[] = [...SCALAR_TYPES, "list"];
  const type = types.find((t) => t === raw);
  if (type === undefined) throw new SpecFault("type", `wants one of ${types.join(", ")}`);
  return type;
}

function scalarOf(type: ParameterType, items: unknown): ScalarType {
  if (type !== "list") {
    if (items !== undefined) throw new SpecFault("items", "is only for a list");
    return type;
  }
  const scalar = SCALAR_TYPES.find((t) => t === items);
  if (scalar === undefined) throw new SpecFault("items", `wants one of ${SCALAR_TYPES.join(", ")}`);
  return scalar;
}

function boundOf(key: "minimum" | "maximum", type: ScalarType, raw: unknown): Scalar | null {
  if (raw === undefined) return null;
  if (type === "text" || type === "boolean") throw new SpecFault(key, `is not for ${type}`);
  return scalarIn(key, type, raw);
}

function patternOf(type: ScalarType, raw: unknown): RegExp | null {
  if (raw === undefined) return null;
  if (type !== "text") throw new SpecFault("pattern", "is only for text");
  if (typeof raw !== "string" || raw.trim() === "")
    throw new SpecFault("pattern", "wants a regular expression");
  try {
    return new RegExp(`^(?:${raw})$`, "u");
  } catch (e) {
    throw new SpecFault("pattern", `is no regular expression: ${messageOf(e)}`);
  }
}

function valuesOf(type: ScalarType, raw: unknown): readonly Scalar[] | null {
  if (raw === undefined) return null;
  if (type === "boolean") throw new SpecFault("values", "is not for boolean");
  if (!Array.isArray(raw) || raw.length === 0)
    throw new SpecFault("values", "wants a list with at least one value");
  return raw.map((v: unknown) => scalarIn("values", type, v));
}

function defaultOf(type: ParameterType, raw: unknown): string | null {
  if (raw === undefined) return null;
  if (Array.isArray(raw) && type === "list")
    return JSON.stringify(raw.map((v: unknown) => textOf("default", v)));
  return textOf("default", raw);
}

function scalarIn(key: string, type: ScalarType, raw: unknown): Scalar {
  const text = textOf(key, raw);
  const scalar = parseScalar(type, text);
  if (scalar === null) throw new SpecFault(key, `wants ${TYPE_WORDS[type]}, and has ${quoted(text)}`);
  return scalar;
}

function textOf(key: string, raw: unknown): string {
  if (typeof raw === "string" || typeof raw === "bigint" || typeof raw === "boolean") return String(raw);
  if (typeof raw === "number" && (!Number.isInteger(raw) || Number.isSafeInteger(raw))) return String(raw);
  throw new SpecFault(key, "wants a plain value");
}

// --- values ----------------------------------------------------------------------------------------

type Read =
  | {
      readonly ok: true;
      readonly value: Value;
      readonly text: string;
      readonly native: BoundParameter["native"];
    }
  | { readonly ok: false; readonly wants: string };

/** The value of `text` under its declaration, else what the declaration wants, in words. */
function readValue(spec: ParameterSpec, text: string): Read {
  const items = text.length > MAX_VALUE_LENGTH ? null : spec.type === "list" ? listItems(text) : [text];
  const scalars = (items ?? []).map((item) => parseScalar(spec.scalar, item));
  const good = scalars.flatMap((s) => (s !== null && holds(spec, s) ? [s] : []));
  const [first] = good;
  if (first === undefined || good.length !== scalars.length) return { ok: false, wants: wantsOf(spec) };
  if (spec.type !== "list") return { ok: true, ...first };
  return {
    ok: true,
    // Two arrays: SQL compares values (a duration in seconds), people and the next reader see texts (`48h`).
    value: `[${good.map((s) => (typeof s.native === "bigint" ? s.native.toString() : jsonOf(s))).join(",")}]`,
    text: `[${good.map(jsonOf).join(",")}]`,
    native: good.map((s) => s.native),
  };
}

function holds(spec: ParameterSpec, s: Scalar): boolean {
  if (spec.minimum !== null && s.order < spec.minimum.order) return false;
  if (spec.maximum !== null && s.order > spec.maximum.order) return false;
  if (spec.pattern !== null && !spec.pattern.test(s.text)) return false;
  return spec.values === null || spec.values.some((v) => v.text === s.text);
}

/** What a parameter takes, in words: `a whole number like 30, at least 30`. */
export function wantsOf(spec: ParameterSpec): string {
  const words = [spec.type === "list" ? `a list, each ${TYPE_WORDS[spec.scalar]}` : TYPE_WORDS[spec.scalar]];
  if (spec.minimum !== null) words.push(`at least ${spec.minimum.text}`);
  if (spec.maximum !== null) words.push(`at most ${spec.maximum.text}`);
  if (spec.values !== null) words.push(`one of ${spec.values.map((v) => v.text).join(" | ")}`);
  if (spec.pattern !== null) words.push(`matching ${spec.pattern.source.slice(4, -2)}`);
  return words.join(", ");
}

/** `a,b` by commas, or a JSON array of plain values; null when it is neither, or empty. */
function listItems(text: string): readonly string[] | null {
  if (!text.trimStart().startsWith("[")) return text.split(",").map((item) => item.trim());
  // JSON numbers are read from their own text: JSON.parse alone would round a 64-bit integer.
  const exact = text.replaceAll(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, (m) =>
    m.startsWith('"') ? m : JSON.stringify(m),
  );
  try {
    const items: unknown = JSON.parse(exact);
    if (!Array.isArray(items) || items.length === 0) return null;
    const texts = items.map((i: unknown) =>
      typeof i === "string" || typeof i === "boolean" ? String(i) : null,
    );
    return texts.every((t) => t !== null) ? texts : null;
  } catch {
    return null;
  }
}

/** The text form as JSON; numbers and truth values are their own JSON, exact to the last digit. */
function jsonOf(s: Scalar): string {
  const bare =
    typeof s.native !== "string" && (typeof s.native !== "bigint" || s.native.toString() === s.text);
  return bare ? s.text : JSON.stringify(s.text);
}

// --- binding ---------------------------------------------------------------------------------------

/** One `--set` as typed: `name=value`, or `name:type=value`. */
interface Given {
  readonly name: string;
  readonly type: string | null;
  readonly text: string;
}

/**
 * Holds what was given against the declarations of a job.
 * @param given the arguments of `--set`, each `name=value`.
 * @param job the job's name, for errors.
 * @throws UsageError ERR_JOB_PARAMETER for a blank, unknown, missing, malformed or out-of-range one, or one given twice.
 */
export function bindParameters(specs: ParameterSpecs, given: readonly string[], job: string): Bound {
  const texts = new Map<string, string>();
  const names = Object.keys(specs);
  for (const { name, type, text } of parseGiven(given)) {
    if (!Object.hasOwn(specs, name)) throw unknownParameter(name, names, job);
    if (type !== null) {
      throw fault(
        `parameter ${name} is given with the type ${type}`,
        `${job} declares its type: write --set ${name}=VALUE`,
      );
    }
    texts.set(name, text);
  }
  refuseMissing(specs, texts, job);
  const bound = Object.entries(specs).flatMap(([name, spec]) => {
    const text = texts.get(name) ?? spec.default;
    return text === null ? [] : [bindOne(name, spec, text, texts.has(name) ? "given" : "default")];
  });
  return bound.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * Binds parameters of a file that declares none. The type is part of what is given: `--set name:type=value`.
 * Without one, a plain whole number is an integer and a text that cannot be taken for a number is text; what
 * could be either (`1.5`, `007`, `+5`, 20 digits) is refused, because in SQL `5 < '1.5'` holds for every number
 * and a wrong guess would select every row.
 * @throws UsageError ERR_JOB_PARAMETER
 */
export function bindUndeclared(given: readonly string[], job: string): Bound {
  const bound = parseGiven(given).map(({ name, type, text }) => {
    const scalar = type === null ? inferType(name, text) : namedType(name, type, job);
    const spec = {
      type: scalar,
      scalar,
      minimum: null,
      maximum: null,
      pattern: null,
      values: null,
      default: null,
    };
    return bindOne(name, spec, text, "given");
  });
  return bound.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Text forms by name, for the plan's statement. */
export function textForms(bound: Bound): Readonly<Record<string, string>> {
  return Object.fromEntries(bound.map((p) => [p.name, p.text]));
}

function bindOne(
  name: string,
  spec: ParameterSpec,
  text: string,
  from: BoundParameter["from"],
): BoundParameter {
  const read = readValue(spec, text);
  if (!read.ok) throw fault(`parameter ${name} is ${quoted(text)}`, `it wants ${read.wants}`);
  return {
    name,
    type: spec.type,
    scalar: spec.scalar,
    value: read.value,
    text: read.text,
    native: read.native,
    from,
  };
}

function parseGiven(given: readonly string[]): readonly Given[] {
  const seen = new Set<string>();
  return given.map((argument) => {
    const parsed = parseOne(argument);
    if (seen.has(parsed.name))
      throw fault(`parameter ${parsed.name} is given twice`, "each parameter has one value");
    seen.add(parsed.name);
    return parsed;
  });
}

function parseOne(argument: string): Given {
  const equals = argument.indexOf("=");
  if (equals < 0) throw fault(`--set ${quoted(argument)} has no value`, "it wants NAME=VALUE");
  const [name = "", type, ...more] = argument.slice(0, equals).split(":");
  const text = argument.slice(equals + 1);
  if (!isParameterName(name) || more.length > 0) {
    throw fault(
      `--set ${quoted(argument)} names no parameter`,
      "a name has letters, digits and _, and begins with a letter",
    );
  }
  if (text.trim() === "")
    throw fault(`parameter ${name} is blank`, "a blank value is refused: empty never means all");
  return { name, type: type ?? null, text };
}

function refuseMissing(specs: ParameterSpecs, texts: ReadonlyMap<string, string>, job: string): void {
  const missing = Object.entries(specs).filter(([name, spec]) => spec.default === null && !texts.has(name));
  if (missing.length === 0) return;
  throw new UsageError({
    code: "ERR_JOB_PARAMETER",
    message: `${job} needs ${missing.map(([name]) => name).join(", ")}`,
    why: missing.map(([name, spec]) => `${name} wants ${wantsOf(spec)}`).join("; "),
    next: [{ actor: "requester", text: `Add ${missing.map(([name]) => `--set ${name}=VALUE`).join(" ")}` }],
  });
}

function unknownParameter(name: string, names: readonly string[], job: string): UsageError {
  const guess = nearest(name, names);
  const has = names.length === 0 ? `${job} takes no parameters` : `${job} takes ${names.join(", ")}`;
  return fault(
    `${job} has no parameter ${name}`,
    guess === undefined ? has : `${has}; did you mean ${guess}?`,
  );
}

function namedType(name: string, type: string, job: string): ScalarType {
  const scalar = SCALAR_TYPES.find((t) => t === type);
  if (scalar !== undefined) return scalar;
  const why =
    type === "list"
      ? `a list needs a declaration of ${job} in holdpoint.yaml`
      : `it wants one of ${SCALAR_TYPES.join(", ")}`;
  throw fault(`parameter ${name} is given with the type ${quoted(type)}`, why);
}

function inferType(name: string, text: string): ScalarType {
  if (parseScalar("integer", text) !== null) return "integer";
  // Anything that some reader of numbers takes for one, signs, spaces and separators included; no IP address.
  if (/^\s*[+-]?(\d[\d,_ ]*\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$/.test(text)) {
    throw fault(
      `parameter ${name} is ${quoted(text)}, which could be a number or text`,
      `say which: --set ${name}:number=VALUE or --set ${name}:text=VALUE`,
    );
  }
  return "text";
}

function fault(message: string, why: string): UsageError {
  return new UsageError({ code: "ERR_JOB_PARAMETER", message, why });
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}…` : text);
}
