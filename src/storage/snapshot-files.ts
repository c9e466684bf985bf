/** Snapshots of whole databases: a file or a dump by its pages, stored once, put together again and proven before it counts. */
import { lstatSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Digest } from "../base/digest.js";
import { codeOf, HoldpointError, UsageError } from "../base/errors.js";
import type { ChangeSource } from "../changeset/change.js";
import { sortedTables } from "../changeset/source.js";
import { manifestDigest } from "../snapshot/manifest.js";
import type { FileContent, SnapshotFile, SnapshotManifest } from "../snapshot/snapshot.js";
import { openContainer } from "./container.js";
import { joinFile, packIds, packOf, quickCheck } from "./database-file.js";
import { MOST_CHUNK_BYTES, packFile } from "./chunks.js";
import { readAt, withFile } from "./files.js";
import {
  SNAPSHOT,
  SUFFIX,
  type SnapshotCheck,
  glance,
  manifestIn,
  unverified,
  whyOf,
} from "./snapshot-container.js";
import { type SnapshotDeps, type SnapshotFacts, write } from "./snapshot-rows.js";

/** A snapshot that was read back. */
export interface TakenSnapshot {
  readonly manifest: SnapshotManifest;
  /** Digest of the manifest, for the ledger. */
  readonly digest: Digest;
  readonly path: string;
}

/** A database that was kept, with what it cost. */
export interface TakenFile extends TakenSnapshot {
  /** Bytes that the store grew by. */
  readonly storedBytes: number;
  /** Pages that no earlier snapshot had. */
  readonly added: number;
}

/** Keeps a file, and proves what was kept by putting it together again; without that nothing stays. */
export async function takeFile(
  deps: { readonly folder: string; readonly prove: (restored: string) => Promise<void> } & SnapshotDeps,
  facts: SnapshotFacts,
  from: string,
  content: FileContent,
): Promise<TakenFile> {
  const { folder } = deps;
  const path = join(folder, facts.id + SUFFIX);
  const earlier = packsFor(folder, facts.target);
  const chunkBytes = content.dump === undefined ? pageBytesOf(from) : DUMP_CHUNK_BYTES;
  const pack = packOf(folder, facts.id);
  try {
    const packed = packFile(
      from,
      pack,
      chunkBytes,
      earlier.map((id) => packOf(folder, id)),
    );
    const manifest = fileManifest(facts, content, packed, chunkBytes, earlier);
    write(path, manifest, NO_ROWS);
    deps.whenWritten?.(path);
    const digest = manifestDigest(manifest);
    const check = await checkRestored(folder, path, digest, `${from}.restored`, deps.prove);
    if (!check.ok) throw unverified(path, check.why);
    const storedBytes = statSync(pack).size + statSync(path).size;
    return { manifest, digest, path, storedBytes, added: packed.added };
  } catch (e) {
    rmSync(path, { force: true });
    rmSync(pack, { force: true });
    if (codeOf(e) === "ERR_STORE_FAILED") throw unverified(path, `it could not be written: ${whyOf(e)}`, e);
    throw e;
  }
}

/** A dump has no pages of its own: small enough that a row more costs little, large enough for a short list. */
const DUMP_CHUNK_BYTES = 16_384;

const NO_ROWS: ChangeSource = { tables: [], changes: () => [] };

function fileManifest(
  facts: SnapshotFacts,
  content: FileContent,
  packed: ReturnType<typeof packFile>,
  chunkBytes: number,
  earlier: readonly string[],
): SnapshotManifest {
  // Packs that gave nothing are no part of it: they can go without it.
  const used = [...new Set(packed.runs.map(([pack]) => pack))].sort((a, b) => a - b);
  const names = used.map((pack) => earlier[pack] ?? facts.id);
  return {
    format: "holdpoint-snapshot/1",
    id: facts.id,
    level: facts.level,
    target: facts.target,
    identity: facts.identity,
    plan: facts.plan,
    run: facts.run,
    takenAt: facts.takenAt,
    tables: sortedTables(content.tables),
    rows: content.rows,
    content: `sha256:${packed.digest}`,
    ...(content.dump === undefined ? {} : { dump: content.dump }),
    file: {
      bytes: packed.bytes,
      chunkBytes,
      packs: names,
      runs: packed.runs.map(([pack, first, count]) => [used.indexOf(pack), first, count]),
    },
  };
}

/**
 * The packs whose pages a snapshot of this target may use: its own ones, and those whose snapshot was pruned while others
 * need them. Only manifests beside a pack are read: what runs kept for themselves may be many.
 */
function packsFor(folder: string, target: string): readonly string[] {
  return packIds(folder).filter((id) => {
    const check = glance(join(folder, id + SUFFIX));
    return check.ok ? check.manifest.target === target : true;
  });
}

/**
 * The databases that stay when some go. Each has a pack of its own, be it an empty one.
 * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED for one whose manifest is there and cannot be read: nobody knows which pages
 * it needs, and what it needs must not be destroyed over a disk that answers again tomorrow.
 */
export function keptFiles(folder: string, going: ReadonlySet<string>): readonly SnapshotFile[] {
  return packIds(folder)
    .filter((id) => !going.has(id) && hasManifest(folder, id))
    .flatMap((id) => {
      const path = join(folder, id + SUFFIX);
      const check = glance(path);
      if (check.ok) return check.manifest.file === undefined ? [] : [check.manifest.file];
      throw unverified(path, `${check.why}; it may need pages of what was to be pruned`);
    });
}

/** The packs that a database uses; every one where its manifest cannot be read, since any of them may hold its pages. */
export function packsOf(folder: string, id: string): readonly string[] {
  if (!hasManifest(folder, id)) return [];
  const check = glance(join(folder, id + SUFFIX));
  return check.ok ? (check.manifest.file?.packs ?? []) : packIds(folder);
}

function hasManifest(folder: string, id: string): boolean {
  return lstatSync(join(folder, id + SUFFIX), { throwIfNoEntry: false }) !== undefined;
}

/** Packs that no snapshot uses and that are no longer being written: a killed `take` leaves one. */
export function orphans(folder: string, kept: readonly SnapshotFile[], before: Date): readonly string[] {
  const used = new Set(kept.flatMap((file) => file.packs));
  return packIds(folder).filter(
    (id) => !used.has(id) && statSync(packOf(folder, id)).mtimeMs < before.getTime(),
  );
}

/** The page size as the file's header says it (SQLite's file format, 1.3.2). */
function pageBytesOf(path: string): number {
  const header = withFile(path, { followLinks: false }, (fd) => Buffer.from(readAt(fd, 16, 2)));
  const size = header.length === 2 ? header.readUInt16BE() : 0;
  return size === 1 ? MOST_CHUNK_BYTES : Math.max(512, size);
}

/** By digests alone, without a scratch file. */
export function checkFile(
  folder: string,
  path: string,
  manifest: SnapshotManifest,
  expected: Digest | undefined,
): SnapshotCheck {
  const own = manifestDigest(manifest);
  if (expected !== undefined && own !== expected)
    return { ok: false, why: `expected the manifest ${expected}, found ${own}` };
  const misfit = joinFile(folder, manifest, null);
  return misfit === undefined
    ? { ok: true, manifest, digest: own }
    : { ok: false, why: `${path}: ${misfit}` };
}

/** Restored into a scratch file, compared, and checked by SQLite or by what the caller knows to try. */
async function checkRestored(
  folder: string,
  path: string,
  expected: Digest,
  scratch: string,
  prove: (restored: string) => Promise<void>,
): Promise<SnapshotCheck> {
  try {
    const manifest = await restoreFile(folder, path, scratch, expected);
    await prove(scratch);
    return { ok: true, manifest, digest: expected };
  } catch (e) {
    if (e instanceof HoldpointError && e.code !== "ERR_INTERNAL") return { ok: false, why: whyOf(e) };
    throw e;
  } finally {
    rmSync(scratch, { force: true });
  }
}

/** Puts a file together at a place where nothing is. */
export async function restoreFile(
  folder: string,
  path: string,
  to: string,
  expected: Digest | undefined,
): Promise<SnapshotManifest> {
  const manifest = manifestIn(openContainer(path, SNAPSHOT, { followLinks: false }));
  const own = manifestDigest(manifest);
  if (expected !== undefined && own !== expected)
    throw unverified(path, `expected the manifest ${expected}, found ${own}`);
  const misfit =
    joinFile(folder, manifest, to) ?? (manifest.dump === undefined ? await quickCheck(to) : undefined);
  if (misfit === undefined) return manifest;
  rmSync(to, { force: true });
  throw unverified(path, misfit);
}

/** A restore makes something new: nothing is overwritten, and a log left beside a file would be replayed into it. */
export function requireFree(path: string): void {
  for (const at of ["", "-wal", "-shm", "-journal"].map((side) => path + side)) {
    if (lstatSync(at, { throwIfNoEntry: false }) === undefined) continue;
    throw new UsageError({
      code: "ERR_SNAPSHOT_PLACE",
      message: `${at} exists already`,
      why: "a snapshot is restored to a new file, beside which no side file lies; nothing is overwritten",
      next: [{ actor: "anyone", text: "Give a name that is free." }],
    });
  }
}

/** Packs that nobody names are left alone for so long: somebody may be writing them. */
export function dayBefore(now: Date): Date {
  return new Date(now.getTime() - 24 * 3_600_000);
}

// ---- rows
