/** Snapshots of rows: before-images packed while changes pass, and rows read back under the manifest's digests. */
import type { Digest } from "../base/digest.js";
import { codeOf } from "../base/errors.js";
import type { ChangeSink, ChangeSource, TableShape } from "../changeset/change.js";
import type { Measured } from "../changeset/encode.js";
import { sameShape } from "../changeset/well-formed.js";
import { sortedTables } from "../changeset/source.js";
import { beforeImagesInto } from "../snapshot/before-images.js";
import { manifestBytes, manifestDigest } from "../snapshot/manifest.js";
import type { RowSnapshot, SnapshotManifest } from "../snapshot/snapshot.js";
import type { ChangesFile, ChangesWriter } from "./changes.js";
import { type Container, openContainer, writeContainer } from "./container.js";
import { type PackedChanges, packChanges, PackingInProgress } from "./packed.js";
import { SNAPSHOT, manifestIn, unverified, whyOf } from "./snapshot-container.js";

/** What a caller knows of a snapshot before it is taken. */
export type SnapshotFacts = Omit<
  SnapshotManifest,
  "format" | "tables" | "rows" | "content" | "file" | "dump"
>;

/** A snapshot in its working form. Close it in `finally`. */
export interface OpenSnapshot extends RowSnapshot {
  readonly source: ChangesFile;
  readonly close: () => void;
}

/** Before-images packed beforehand: a sink for the changes, in canonical order. Call `drop` in `finally`. */
export interface BeforeImagesKept extends ChangeSink {
  /** What was packed; null where the disk refused, which whoever packs them then is told. Once. */
  readonly packed: () => PackedChanges | null;
  /** Removes what was packed. */
  readonly drop: () => void;
}

/** What snapshots need of the store around them. */
export interface SnapshotDeps {
  /** A fresh working ChangeSet, removed when it is closed. */
  readonly workingChanges: () => Promise<ChangesWriter>;
  /** Called once a snapshot is on disk and before it is read back: a fault test alters the file here. */
  readonly whenWritten?: (path: string) => void;
}

/**
 * Packs at `path`. A disk that refuses does not stop whatever the changes pass for: that no snapshot can be taken is said when
 * one is to be.
 */
export function keepBeforeImages(path: string): BeforeImagesKept {
  let packing: PackingInProgress | null = null;
  const drop = (): void => {
    packing?.abort();
    packing = null;
  };
  const unlessRefused = <T>(work: () => T): T | null => {
    try {
      return work();
    } catch (e) {
      if (codeOf(e) !== "ERR_STORE_FAILED") throw e;
      drop();
      return null;
    }
  };
  unlessRefused(() => (packing = new PackingInProgress(path)));
  const into = beforeImagesInto({
    table: (shape) => packing?.table(shape),
    add: (change) => packing?.add(change),
  });
  return {
    table: (shape) => void unlessRefused(() => into.table(shape)),
    add: (change) => void unlessRefused(() => into.add(change)),
    packed: () => {
      const found = unlessRefused(() => packing?.finish() ?? null);
      packing = null;
      return found;
    },
    drop,
  };
}

/** The rows of a source, packed beside the place where the snapshot will lie. */
export function packedAt(work: string, path: string, source: ChangeSource): PackedChanges {
  try {
    return packChanges(source, work);
  } catch (e) {
    if (codeOf(e) === "ERR_STORE_FAILED") throw unverified(path, `it could not be written: ${whyOf(e)}`, e);
    throw e;
  }
}

/** A snapshot that cannot be written cannot be verified either: the change must not begin. */
export function write(path: string, manifest: SnapshotManifest, source: ChangeSource): void {
  try {
    writeContainer(path, SNAPSHOT, [manifestBytes(manifest)], source, "refuse");
  } catch (e) {
    if (codeOf(e) === "ERR_STORE_FAILED") throw unverified(path, `it could not be written: ${whyOf(e)}`, e);
    throw e;
  }
}

/** Computed from the source, before anything is written: what the file is held against afterwards. */
export function manifestOf(
  facts: SnapshotFacts,
  { digest, rows, tables }: Measured,
  source: ChangeSource,
  covered: readonly TableShape[] | undefined,
): SnapshotManifest {
  // A table that was asked for and is empty is kept as empty: that too is a state to come back to.
  const kept = new Set([...tables, ...(covered ?? [])].map((t) => t.name));
  return {
    format: "holdpoint-snapshot/1",
    id: facts.id,
    level: facts.level,
    target: facts.target,
    identity: facts.identity,
    plan: facts.plan,
    run: facts.run,
    takenAt: facts.takenAt,
    tables: sortedTables(covered ?? source.tables).filter((t) => kept.has(t.name)),
    rows,
    content: digest,
  };
}

/** Opens a snapshot of rows: read whole, held against its digests, in a working ChangeSet. */
export async function load(
  path: string,
  expected: Digest | undefined,
  workingChanges: SnapshotDeps["workingChanges"],
): Promise<OpenSnapshot> {
  const container = openContainer(path, SNAPSHOT, { followLinks: false });
  const manifest = manifestIn(container);
  const writer = await workingChanges();
  try {
    const misfit = fill(container, manifest, expected, writer);
    if (misfit !== undefined) throw unverified(path, misfit);
    const source = writer.finish();
    return { manifest, source, close: source.close };
  } catch (e) {
    writer.abort();
    throw e;
  }
}

/** Streams the rows into `sink` and says where they are not what the manifest, and the ledger, say. */
export function fill(
  container: Container,
  manifest: SnapshotManifest,
  expected: Digest | undefined,
  sink: ChangeSink,
): string | undefined {
  const own = manifestDigest(manifest);
  if (expected !== undefined && own !== expected) return `expected the manifest ${expected}, found ${own}`;
  const tables: TableShape[] = [];
  let stranger: string | undefined;
  const { rows, digest } = container.loadInto({
    table: (shape) => {
      tables.push(shape);
      sink.table(shape);
    },
    add: (change) => {
      if (change.op !== "delete")
        stranger ??= `${change.table} holds an ${change.op}, expected before-images alone`;
      sink.add(change);
    },
  });
  if (stranger !== undefined) return stranger;
  if (digest !== manifest.content)
    return `expected rows with the digest ${manifest.content}, found ${digest}`;
  if (rows !== manifest.rows) return `expected ${manifest.rows} rows, found ${rows}`;
  // What is covered and empty stands in the manifest alone.
  const expectedTables = manifest.tables.filter(
    (t) => manifest.level === "rows" || tables.some((found) => found.name === t.name),
  );
  const same =
    tables.length === expectedTables.length && tables.every((t, i) => isShape(t, expectedTables[i]));
  return same ? undefined : "expected the tables of its manifest, found others";
}

function isShape(found: TableShape, expected: TableShape | undefined): boolean {
  return expected !== undefined && sameShape(found, expected);
}
