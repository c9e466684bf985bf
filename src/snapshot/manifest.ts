/** A snapshot's manifest as bytes: what its digest in the ledger stands for. Format page: `docs/formats/snapshot.md`. */
import { canonicalBytes, parseCanonicalBytes } from "../base/canonical.js";
import {
  array,
  boolean,
  count,
  decode,
  digest,
  id,
  literal,
  nullable,
  object,
  objectWith,
  stampText,
  string,
  toJson,
} from "../base/decode.js";
import { type Digest, digestOf } from "../base/digest.js";
import type { SnapshotManifest } from "./snapshot.js";

const column = objectWith({ name: string, type: string }, { generated: boolean });

const fileDecoder = object({
  bytes: count,
  chunkBytes: count,
  packs: array(id("sn")),
  runs: array(array(count)),
});

const dumpDecoder = object({
  program: string,
  server: string,
  encoding: string,
  tables: array(object({ name: string, rows: count })),
  largeObjects: count,
});

const manifestDecoder = objectWith(
  {
    format: literal("holdpoint-snapshot/1"),
    id: id("sn"),
    level: literal("rows", "tables", "database"),
    target: string,
    identity: string,
    plan: nullable(string),
    run: nullable(string),
    takenAt: stampText,
    tables: array(
      object({
        name: string,
        columns: array(column),
        keyKind: literal("primary", "none"),
        key: array(count),
      }),
    ),
    rows: count,
    content: digest,
  },
  { file: fileDecoder, dump: dumpDecoder },
);

/** The one byte form of a manifest: canonical JSON. Law: `parseManifest(manifestBytes(m))` equals `m`. */
export function manifestBytes(manifest: SnapshotManifest): Uint8Array {
  return canonicalBytes(toJson(manifest));
}

/** The digest that the ledger keeps. */
export function manifestDigest(manifest: SnapshotManifest): Digest {
  return digestOf(manifestBytes(manifest));
}

/** Reads {@link manifestBytes} back, strictly; else says why the bytes are none. */
export function parseManifest(
  bytes: Uint8Array,
): { readonly ok: true; readonly manifest: SnapshotManifest } | { readonly ok: false; readonly why: string } {
  const value = parseCanonicalBytes(bytes);
  if (value === undefined) return { ok: false, why: "the manifest is not canonical JSON" };
  const decoded = decode(manifestDecoder, value);
  if (!decoded.ok) return { ok: false, why: `the manifest: ${decoded.why}` };
  return { ok: true, manifest: decoded.value };
}
