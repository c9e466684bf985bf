/**
 * The ledger's chain: the exact bytes of an entry, its digest, and the check of a whole chain. Pure; the
 * store (`storage/ledger.ts`) keeps the bytes and asks here what they are worth. Format page:
 * `docs/formats/ledger.md`.
 *
 * | attack | found by |
 * | --- | --- |
 * | an entry edited | its bytes no longer have its digest, or the next entry's `previous` |
 * | an entry dropped, inserted, two swapped | `sequence` and `previous` of the first one out of place |
 * | a look-up column edited | the column differs from the entry's bytes |
 * | the tail dropped | an anchor names a sequence that is not there |
 * | the whole ledger replaced or rewritten | an anchor names another ledger, or another digest |
 */
import { canonicalBytes, parseCanonicalBytes } from "../base/canonical.js";
import {
  count,
  decode,
  digest,
  id,
  json,
  literal,
  nullable,
  object,
  record,
  stampText,
  string,
  toJson,
} from "../base/decode.js";
import { type Digest, digestOf } from "../base/digest.js";
import type { Anchor, Entry, EntryKind, SealedEntry, Verification } from "./entry.js";

/** What the first entry names as the one before it: the digest of no bytes at all. */
export const EMPTY_DIGEST: Digest = digestOf("");

/** The longest entry that is written or read, in bytes. Entries hold digests and counts: 64 KiB is generous. */
export const MAX_ENTRY_BYTES = 65_536;

/** Every kind of entry of format 1. The compiler holds it equal to {@link EntryKind}. */
const KINDS: Readonly<Record<EntryKind, true>> = {
  "ledger-created": true,
  "target-pinned": true,
  planned: true,
  "plan-refused": true,
  approved: true,
  rejected: true,
  revoked: true,
  "run-started": true,
  "run-resumed": true,
  "run-committed": true,
  "run-finished": true,
  "run-failed": true,
  held: true,
  released: true,
  "snapshot-taken": true,
  "snapshot-pruned": true,
  "trust-changed": true,
  drilled: true,
  revealed: true,
  reviewed: true,
};

const entryDecoder = object({
  format: literal("holdpoint-ledger/1"),
  ledger: id("lg"),
  sequence: count,
  at: stampText,
  kind: literal(...(Object.keys(KINDS) as EntryKind[])),
  target: nullable(string),
  plan: nullable(string),
  run: nullable(string),
  facts: record(json),
  previous: digest,
});

/**
 * The one byte form of an entry: canonical JSON in UTF-8. What is stored, and what is hashed.
 * Law: `parseEntry(entryBytes(e))` equals `e`.
 * @throws HoldpointError ERR_INTERNAL for facts without a canonical form.
 */
export function entryBytes(entry: Entry): Uint8Array {
  return canonicalBytes(toJson(entry));
}

/** The entry with the digest of its bytes, which the next entry will name. */
export function sealEntry(entry: Entry): SealedEntry {
  return { entry, digest: digestOf(entryBytes(entry)) };
}

/** What {@link parseEntry} gives: the entry, or why the bytes are none. */
export type ParsedEntry =
  | { readonly ok: true; readonly entry: Entry }
  | { readonly ok: false; readonly why: string };

/**
 * Reads an entry strictly: valid UTF-8, canonical, exactly the fields of format 1, each well formed.
 * Never throws for bad bytes. Law: only bytes that {@link entryBytes} makes are read.
 */
export function parseEntry(bytes: Uint8Array): ParsedEntry {
  if (bytes.length > MAX_ENTRY_BYTES)
    return { ok: false, why: `it has ${bytes.length} bytes, more than ${MAX_ENTRY_BYTES}` };
  const value = parseCanonicalBytes(bytes);
  if (value === undefined) return { ok: false, why: "its bytes are not canonical JSON" };
  const decoded = decode(entryDecoder, value);
  return decoded.ok ? { ok: true, entry: decoded.value } : decoded;
}

/** The look-up columns that a store keeps beside the bytes, so that it can search. */
export interface EntryColumns {
  readonly sequence: unknown;
  readonly kind: unknown;
  readonly target: unknown;
  readonly plan: unknown;
  readonly run: unknown;
}

/** One entry as a store holds it: nothing about it is believed. */
export interface StoredEntry {
  readonly bytes: Uint8Array;
  /** The digest that the store keeps beside the bytes. */
  readonly digest: string;
  readonly columns?: EntryColumns;
}

/** The place that an entry must fit into. */
export interface Place {
  /** The ledger's id; null when any ledger will do. */
  readonly ledger: string | null;
  readonly sequence: number;
  readonly previous: Digest;
}

/** An entry that fits its place, or why it does not. */
export type PlacedEntry =
  | { readonly ok: true; readonly sealed: SealedEntry }
  | { readonly ok: false; readonly why: string };

/** Checks one stored entry against its own digest, its columns, and the place where it stands. */
export function checkEntry(stored: StoredEntry, place: Place): PlacedEntry {
  const own = readStored(stored);
  if (!own.ok) return own;
  const { entry } = own.sealed;
  const misfit =
    differs("sequence", entry.sequence, place.sequence) ??
    (place.ledger === null ? undefined : differs("ledger", entry.ledger, place.ledger)) ??
    differs("digest of the entry before", entry.previous, place.previous) ??
    differs("being the first entry", entry.kind === "ledger-created", place.sequence === 0);
  return misfit === undefined ? own : { ok: false, why: misfit };
}

/** One stored entry by itself: its bytes are an entry, have its digest, and say what its columns say. */
export function readStored(stored: StoredEntry): PlacedEntry {
  const found = digestOf(stored.bytes);
  if (found !== stored.digest)
    return { ok: false, why: `its bytes have the digest ${found}, recorded is ${stored.digest}` };
  const parsed = parseEntry(stored.bytes);
  if (!parsed.ok) return parsed;
  const misfit = stored.columns === undefined ? undefined : columnMisfit(parsed.entry, stored.columns);
  return misfit === undefined
    ? { ok: true, sealed: { entry: parsed.entry, digest: found } }
    : { ok: false, why: misfit };
}

/**
 * Checks a whole chain from its first entry, and that every anchor is in it. Reads the entries once and
 * holds one at a time. Entry times are not compared: clocks go back, the sequence may not.
 * @param entries all entries, in the store's order.
 * @param ledger the expected ledger id; null takes it from the first entry.
 * @returns `ok: false` with the first sequence that does not hold; `entries` then counts those that do.
 */
export function verifyChain(
  entries: Iterable<StoredEntry>,
  ledger: string | null,
  anchors: readonly Anchor[],
): Verification {
  const anchorsOf = groupBySequence(anchors);
  let expected: Place = { ledger, sequence: 0, previous: EMPTY_DIGEST };
  for (const stored of entries) {
    const checked = checkEntry(stored, expected);
    if (!checked.ok) return bad(expected.sequence, `entry ${expected.sequence}: ${checked.why}`);
    const { entry, digest } = checked.sealed;
    const misfit = anchorsOf.get(expected.sequence)?.map((a) => anchorMisfit(a, entry.ledger, digest));
    const why = misfit?.find((m) => m !== undefined);
    if (why !== undefined) return bad(expected.sequence, why);
    expected = { ledger: entry.ledger, sequence: expected.sequence + 1, previous: digest };
  }
  return checkEnd(expected, anchors);
}

function checkEnd(end: Place, anchors: readonly Anchor[]): Verification {
  const beyond = anchors.find((a) => a.sequence >= end.sequence || a.sequence < 0);
  if (beyond !== undefined) {
    const why = `${beyond.where} anchors entry ${beyond.sequence} of ${beyond.ledger}, the ledger ends after ${end.sequence} entries`;
    return bad(end.sequence, why);
  }
  return end.sequence === 0
    ? bad(0, "the ledger has no entries")
    : { ok: true, entries: end.sequence, head: end.previous };
}

/** By sequence, so that thousands of anchors cost one look-up per entry. */
function groupBySequence(anchors: readonly Anchor[]): ReadonlyMap<number, readonly Anchor[]> {
  const groups = new Map<number, Anchor[]>();
  for (const anchor of anchors) {
    const group = groups.get(anchor.sequence);
    if (group === undefined) groups.set(anchor.sequence, [anchor]);
    else group.push(anchor);
  }
  return groups;
}

function anchorMisfit(anchor: Anchor, ledger: string, digest: Digest): string | undefined {
  if (anchor.ledger !== ledger)
    return `${anchor.where} anchors the ledger ${anchor.ledger}, this is ${ledger}`;
  if (anchor.head === digest) return undefined;
  return `${anchor.where} anchors entry ${anchor.sequence} as ${anchor.head}, here it is ${digest}`;
}

function columnMisfit(entry: Entry, columns: EntryColumns): string | undefined {
  return (
    differs("column sequence", columns.sequence, entry.sequence) ??
    differs("column kind", columns.kind, entry.kind) ??
    differs("column target", columns.target, entry.target) ??
    differs("column plan", columns.plan, entry.plan) ??
    differs("column run", columns.run, entry.run)
  );
}

function differs(what: string, found: unknown, expected: unknown): string | undefined {
  return found === expected ? undefined : `its ${what} is ${String(found)}, expected ${String(expected)}`;
}

function bad(firstBad: number, why: string): Verification {
  return { ok: false, entries: firstBad, firstBad, why };
}
