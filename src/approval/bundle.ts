/**
 * The trust bundle: who may sign, their groups, the policies, and the guarding part of the configuration,
 * for one target. Its digest is pinned in the target, so whoever owns the working tree cannot change
 * the rules that guard it. Bundles that mean the same have the same bytes: comments, order of lines and
 * line numbers are left out. Format page: `docs/formats/bundle.md`.
 */
import { byCodeUnit, canonical, canonicalBytes, type Json, parseCanonicalBytes } from "../base/canonical.js";
import {
  array,
  boolean,
  decode,
  type Decoder,
  digest,
  json,
  literal,
  nonEmpty,
  nullable,
} from "../base/decode.js";
import { object, record, stampText, toJson, where } from "../base/decode.js";
import { type Digest, digestOf, shortDigest } from "../base/digest.js";
import { RefusedError } from "../base/errors.js";
import { decodeBase64, fingerprint } from "./public-key.js";
import type { Person } from "./requirement.js";

/** One key of a person, as the bundle holds it. */
export interface BundleKey {
  readonly type: string;
  /** The public key blob in base64. */
  readonly key: string;
  readonly namespaces: readonly string[];
  readonly valid_after: string | null;
  readonly valid_before: string | null;
  readonly cert_authority: boolean;
}

/** Format version 1. Lists are sorted: people and groups by name, keys by their base64, policies by path. */
export interface TrustBundle {
  readonly format: "holdpoint-bundle/1";
  readonly people: readonly { readonly name: string; readonly keys: readonly BundleKey[] }[];
  readonly groups: Readonly<Record<string, readonly string[]>>;
  readonly policies: readonly { readonly path: string; readonly digest: Digest }[];
  /** What guards the target in the configuration; canonical, opaque here. */
  readonly guarding: Json;
}

const bundleKey: Decoder<BundleKey> = object({
  type: nonEmpty,
  key: where(nonEmpty, (s) => decodeBase64(s) !== null, "base64"),
  namespaces: array(nonEmpty),
  valid_after: nullable(stampText),
  valid_before: nullable(stampText),
  cert_authority: boolean,
});

const trustBundle: Decoder<TrustBundle> = object({
  format: literal("holdpoint-bundle/1"),
  people: array(object({ name: nonEmpty, keys: array(bundleKey) })),
  groups: record(array(nonEmpty)),
  policies: array(object({ path: nonEmpty, digest })),
  guarding: json,
});

/** Puts a bundle together; the order of what is given does not matter. */
export function makeBundle(args: {
  readonly people: readonly Person[];
  readonly policies: readonly { readonly path: string; readonly digest: Digest }[];
  readonly guarding: Json;
}): TrustBundle {
  return {
    format: "holdpoint-bundle/1",
    people: sortedBy(args.people.map(bundlePerson), (p) => p.name),
    groups: groupsOf(args.people),
    policies: sortedBy(args.policies, (p) => p.path),
    guarding: args.guarding,
  };
}

/** Canonical JSON: what is stored, and what the digest is over. */
export function bundleBytes(bundle: TrustBundle): Uint8Array {
  return canonicalBytes(toJson(bundle));
}

/** The digest that targets pin and plans name. */
export function bundleDigest(bundle: TrustBundle): Digest {
  return digestOf(bundleBytes(bundle));
}

/**
 * Reads a stored bundle. Whoever reads one compares {@link bundleDigest} with the pin.
 * @throws RefusedError ERR_TRUST_BUNDLE for anything but the canonical bytes of a known version.
 */
export function parseBundle(bytes: Uint8Array): TrustBundle {
  const value = parseCanonicalBytes(bytes);
  const decoded = value === undefined ? null : decode(trustBundle, value);
  if (decoded?.ok === true) return decoded.value;
  throw new RefusedError({
    code: "ERR_TRUST_BUNDLE",
    message: "the stored trust bundle cannot be read",
    why: decoded?.why ?? "it is not canonical JSON (RFC 8785)",
  });
}

/** The people of a stored bundle, so that a quorum of the old one can be counted. Line numbers are 0: there is no file. */
export function peopleOfBundle(bundle: TrustBundle): readonly Person[] {
  return bundle.people.map(({ name, keys }) => ({
    name,
    groups: Object.keys(bundle.groups).filter((g) => bundle.groups[g]?.includes(name)),
    keys: keys.map((k) => {
      const blob = Buffer.from(k.key, "base64");
      return {
        type: k.type,
        blob,
        fingerprint: fingerprint(blob),
        namespaces: k.namespaces,
        validAfter: k.valid_after,
        validBefore: k.valid_before,
        certAuthority: k.cert_authority,
        line: 0,
      };
    }),
  }));
}

/**
 * What changes from `a` to `b`, one sentence each, in the order people, groups, policies, guarding.
 * Empty exactly when the digests are equal.
 */
export function diffBundles(a: TrustBundle, b: TrustBundle): readonly string[] {
  return [
    ...diffPeople(a, b),
    ...diffGroups(a, b),
    ...diffPolicies(a, b),
    ...diffJson("", a.guarding, b.guarding),
  ];
}

function bundlePerson(person: Person): TrustBundle["people"][number] {
  const keys = person.keys.map((k) => ({
    type: k.type,
    key: Buffer.from(k.blob).toString("base64"),
    namespaces: sortedBy(k.namespaces, (n) => n),
    valid_after: k.validAfter,
    valid_before: k.validBefore,
    cert_authority: k.certAuthority,
  }));
  return { name: person.name, keys: sortedBy(keys, (k) => k.key) };
}

function groupsOf(people: readonly Person[]): TrustBundle["groups"] {
  const names = sortedBy([...new Set(people.flatMap((p) => p.groups))], (n) => n);
  const members = (group: string) => people.filter((p) => p.groups.includes(group)).map((p) => p.name);
  return Object.fromEntries(names.map((group) => [group, sortedBy(members(group), (n) => n)]));
}

function diffPeople(a: TrustBundle, b: TrustBundle): readonly string[] {
  const before = new Map(a.people.map((p) => [p.name, keyWords(p.keys)]));
  const after = new Map(b.people.map((p) => [p.name, keyWords(p.keys)]));
  return namesOf(before, after).flatMap((name) => {
    const was = before.get(name);
    const is = after.get(name);
    if (was === undefined) return [`+ person ${name} may sign`, ...(is ?? []).map((k) => `+ ${name}: ${k}`)];
    if (is === undefined) return [`- person ${name} may sign no more`];
    return diffLists(`${name}: `, was, is);
  });
}

/** One key in words; two keys that differ in anything have different words. */
function keyWords(keys: readonly BundleKey[]): readonly string[] {
  return keys.map((k) => {
    const authority = k.cert_authority ? "authority " : "";
    const from = k.valid_after === null ? "" : ` from ${k.valid_after}`;
    const until = k.valid_before === null ? "" : ` until ${k.valid_before}`;
    const print = fingerprint(Buffer.from(k.key, "base64"));
    return `${authority}key ${print} (${k.type}) for ${k.namespaces.join(", ")}${from}${until}`;
  });
}

function diffGroups(a: TrustBundle, b: TrustBundle): readonly string[] {
  const before = new Map(Object.entries(a.groups));
  const after = new Map(Object.entries(b.groups));
  return namesOf(before, after).flatMap((g) =>
    diffLists(`group ${g}: `, before.get(g) ?? [], after.get(g) ?? []),
  );
}

function diffPolicies(a: TrustBundle, b: TrustBundle): readonly string[] {
  const before = new Map(a.policies.map((p) => [p.path, p.digest]));
  const after = new Map(b.policies.map((p) => [p.path, p.digest]));
  return namesOf(before, after).flatMap((path) => {
    const was = before.get(path);
    const is = after.get(path);
    if (was === is) return [];
    if (was === undefined) return [`+ policy file ${path}`];
    if (is === undefined) return [`- policy file ${path}`];
    return [`~ policy file ${path}: ${shortDigest(was)} → ${shortDigest(is)}`];
  });
}

/** Walks into objects, so that a changed leaf is named by its path. */
function diffJson(path: string, a: Json | undefined, b: Json | undefined): readonly string[] {
  if (a !== undefined && b !== undefined) {
    if (canonical(a) === canonical(b)) return [];
    const was = fieldsOf(a);
    const is = fieldsOf(b);
    if (was !== null && is !== null) {
      return namesOf(was, is).flatMap((k) =>
        diffJson(path === "" ? k : `${path}.${k}`, was.get(k), is.get(k)),
      );
    }
    return [`~ guarding ${path}: ${canonical(a)} → ${canonical(b)}`];
  }
  if (b !== undefined) return [`+ guarding ${path}: ${canonical(b)}`];
  return a === undefined ? [] : [`- guarding ${path}: ${canonical(a)}`];
}

function fieldsOf(value: Json): ReadonlyMap<string, Json> | null {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  return new Map(Object.entries(value));
}

function diffLists(label: string, before: readonly string[], after: readonly string[]): readonly string[] {
  return [
    ...before.filter((x) => !after.includes(x)).map((x) => `- ${label}${x}`),
    ...after.filter((x) => !before.includes(x)).map((x) => `+ ${label}${x}`),
  ];
}

function namesOf(a: ReadonlyMap<string, unknown>, b: ReadonlyMap<string, unknown>): readonly string[] {
  return sortedBy([...new Set([...a.keys(), ...b.keys()])], (n) => n);
}

function sortedBy<T>(items: readonly T[], name: (item: T) => string): readonly T[] {
  return [...items].sort((x, y) => byCodeUnit(name(x), name(y)));
}
