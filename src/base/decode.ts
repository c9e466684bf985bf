/**
 * Strict decoders for stored and signed formats. A decoder takes any JSON value and gives a typed one or
 * fails with the path of the first thing that is wrong; it never repairs, converts or ignores. An object
 * has exactly the fields that its decoder names: a field of a later version is a failure, not a surprise.
 */
import type { Json } from "./canonical.js";
import { parseStamp } from "./clock.js";
import { type Digest, isDigest } from "./digest.js";
import { HoldpointError } from "./errors.js";
import { type IdPrefix, isId } from "./ids.js";

/** Reads `value`, which stands at `path` (`$.target.name`). Throws {@link DecodeFailure}. */
export type Decoder<T> = (value: Json, path: string) => T;

/** The type that a decoder gives. */
export type Decoded<D> = D extends Decoder<infer T> ? T : never;

/** Why a value does not decode. Stays inside {@link decode}; formats turn its words into their own error. */
export class DecodeFailure extends Error {
  readonly path: string;
  constructor(path: string, expected: string, found: Json | undefined) {
    super(`${path} must be ${expected}, found ${describe(found)}`);
    this.name = "DecodeFailure";
    this.path = path;
  }
}

/** What {@link decode} gives: the value, or why not, with the path. */
export type DecodeResult<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly why: string };

/** Runs a decoder over a whole document. Never throws for bad input. */
export function decode<T>(decoder: Decoder<T>, value: Json): DecodeResult<T> {
  try {
    return { ok: true, value: decoder(value, "$") };
  } catch (e) {
    if (e instanceof DecodeFailure) return { ok: false, why: e.message };
    // A document nested deeper than the stack is bad input too, not a fault of ours.
    if (e instanceof RangeError) return { ok: false, why: "the document is nested too deeply" };
    throw e;
  }
}

/** Any JSON value, as it is. */
export const json: Decoder<Json> = (value) => value;

/** A string. */
export const string: Decoder<string> = (value, path) =>
  typeof value === "string" ? value : fail(path, "a string", value);

/** A string that is not empty. */
export const nonEmpty: Decoder<string> = where(string, (s) => s !== "", "a string that is not empty");

/** `true` or `false`. */
export const boolean: Decoder<boolean> = (value, path) =>
  typeof value === "boolean" ? value : fail(path, "true or false", value);

/** A safe integer of any sign. */
export const int: Decoder<number> = (value, path) =>
  typeof value === "number" && Number.isSafeInteger(value) ? value : fail(path, "a whole number", value);

/** A safe integer that is not negative. */
export const count: Decoder<number> = where(int, (n) => n >= 0, "a whole number that is not negative");

/** `sha256:` and 64 hexadecimal digits. */
export const digest: Decoder<Digest> = (value, path) =>
  typeof value === "string" && isDigest(value) ? value : fail(path, "a sha256 digest", value);

/** A stored time: ISO 8601, UTC, whole seconds. */
export const stampText: Decoder<string> = where(
  string,
  (s) => parseStamp(s) !== undefined,
  "a time like 2026-11-24T14:38:44Z",
);

/** A whole id of that kind. */
export function id(prefix: IdPrefix): Decoder<string> {
  return where(string, (s) => isId(prefix, s), `an id ${prefix}_ with 16 characters`);
}

/** One of the given values, no other. */
export function literal<const L extends readonly (string | number | boolean)[]>(
  ...allowed: L
): Decoder<L[number]> {
  return (value, path) => {
    const found = allowed.find((a) => a === value);
    return found === undefined
      ? fail(path, allowed.map((a) => JSON.stringify(a)).join(" or "), value)
      : found;
  };
}

/** `null` or what `inner` reads. */
export function nullable<T>(inner: Decoder<T>): Decoder<T | null> {
  return (value, path) => (value === null ? null : inner(value, path));
}

/** An array of any length; every element is read by `element`. */
export function array<T>(element: Decoder<T>): Decoder<readonly T[]> {
  return (value, path) => elementsOf(value, path).map((v, i) => element(v, `${path}[${i}]`));
}

/** An array of exactly two elements. */
export function pair<A, B>(first: Decoder<A>, second: Decoder<B>): Decoder<readonly [A, B]> {
  return (value, path) => {
    const [a, b, ...more] = elementsOf(value, path);
    if (a === undefined || b === undefined || more.length > 0)
      return fail(path, "an array of two elements", value);
    return [first(a, `${path}[0]`), second(b, `${path}[1]`)];
  };
}

/** An object whose field names are data; every value is read by `inner`. */
export function record<T>(inner: Decoder<T>): Decoder<Readonly<Record<string, T>>> {
  return (value, path) =>
    // fromEntries defines own properties, so a field called __proto__ stays a field.
    Object.fromEntries(fieldsOf(value, path).map(([k, v]) => [k, inner(v, member(path, k))]));
}

type Shape = Readonly<Record<string, Decoder<unknown>>>;
type ObjectOf<R extends Shape> = { readonly [K in keyof R]: Decoded<R[K]> };
type PartOf<O extends Shape> = { readonly [K in keyof O]?: Decoded<O[K]> };

/** An object with exactly these fields. A missing field and a field too many are both failures. */
export function object<R extends Shape>(fields: R): Decoder<ObjectOf<R>> {
  return (value, path) => readFields(fields, {}, value, path) as ObjectOf<R>;
}

/** {@link object}, where the fields of `optional` may be absent. */
export function objectWith<R extends Shape, O extends Shape>(
  required: R,
  optional: O,
): Decoder<ObjectOf<R> & PartOf<O>> {
  return (value, path) => readFields(required, optional, value, path) as ObjectOf<R> & PartOf<O>;
}

function readFields(required: Shape, optional: Shape, value: Json, path: string): unknown {
  const fields = fieldsOf(value, path);
  const present = new Set(fields.map(([k]) => k));
  for (const name of Object.keys(required)) {
    if (!present.has(name)) fail(member(path, name), "present", undefined);
  }
  const decoded = fields.map(([k, v]) => {
    // hasOwn, because a field called `constructor` must not find a decoder on the prototype.
    const decoder = Object.hasOwn(required, k)
      ? required[k]
      : Object.hasOwn(optional, k)
        ? optional[k]
        : undefined;
    if (decoder === undefined)
      return fail(member(path, k), "absent: this version does not know the field", v);
    return [k, decoder(v, member(path, k))] as const;
  });
  return Object.fromEntries(decoded);
}

/** An object told apart by the string in `tag`; each case reads the whole object, tag included. */
export function tagged<C extends Readonly<Record<string, Decoder<unknown>>>>(
  tag: string,
  cases: C,
): Decoder<Decoded<C[keyof C]>> {
  const known = new Map(Object.entries(cases));
  return (value, path) => {
    const name = fieldsOf(value, path).find(([k]) => k === tag)?.[1];
    const decoder = typeof name === "string" ? known.get(name) : undefined;
    if (decoder === undefined) return fail(member(path, tag), [...known.keys()].join(" or "), name);
    return decoder(value, path) as Decoded<C[keyof C]>;
  };
}

/** What `inner` reads, if `holds` says yes; `expected` are the words for the failure. */
export function where<T extends Json>(
  inner: Decoder<T>,
  holds: (value: T) => boolean,
  expected: string,
): Decoder<T> {
  return (value, path) => {
    const decoded = inner(value, path);
    return holds(decoded) ? decoded : fail(path, expected, value);
  };
}

/**
 * Plain data as {@link Json}: the way from a `readonly` interface into `canonical`. Fields that are
 * `undefined` are left out, as `JSON.stringify` does.
 * @throws HoldpointError ERR_INTERNAL for anything that is not plain data (bigint, bytes, Date, Map, function).
 */
export function toJson(value: unknown): Json {
  if (
    value === null ||
    typeof value === "string" ||
    typeof value === "boolean" ||
    typeof value === "number"
  ) {
    return value;
  }
  if (Array.isArray(value)) return value.map((v: unknown) => toJson(v));
  if (isPlainObject(value)) {
    const fields = Object.entries(value).filter(([, v]) => v !== undefined);
    return Object.fromEntries(fields.map(([k, v]) => [k, toJson(v)]));
  }
  throw new HoldpointError({ code: "ERR_INTERNAL", message: `a ${typeof value} is not plain data` });
}

function isPlainObject(v: unknown): v is object {
  if (typeof v !== "object" || v === null) return false;
  const proto: unknown = Object.getPrototypeOf(v);
  return proto === null || Object.getPrototypeOf(proto) === null;
}

function elementsOf(value: Json, path: string): readonly Json[] {
  return Array.isArray(value) ? (value as readonly Json[]) : fail(path, "an array", value);
}

function fieldsOf(value: Json, path: string): readonly (readonly [string, Json])[] {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return fail(path, "an object", value);
  return Object.entries(value);
}

function member(path: string, name: string): string {
  return /^[A-Za-z_]\w*$/.test(name) ? `${path}.${name}` : `${path}[${JSON.stringify(name)}]`;
}

function fail(path: string, expected: string, found: Json | undefined): never {
  throw new DecodeFailure(path, expected, found);
}

/** Short, so that a hostile document cannot flood an error. */
function describe(value: Json | undefined): string {
  if (value === undefined) return "nothing";
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "an array" : "an object";
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}
