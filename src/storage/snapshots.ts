/**
 * The store's snapshots. A snapshot counts only when it has been read back from its closed file and is, by
 * digest and by rows, what was to be kept; until then there is none. Format page: `docs/formats/snapshot.md`.
 */
import { readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Digest } from "../base/digest.js";
import { UsageError } from "../base/errors.js";
import { isId, isIdOrPrefix } from "../base/ids.js";
import type { ChangeSource, TableShape } from "../changeset/change.js";
import { beforeImages } from "../snapshot/before-images.js";
import { manifestDigest } from "../snapshot/manifest.js";
import type { FileContent, SnapshotManifest } from "../snapshot/snapshot.js";
import { openContainer } from "./container.js";
import { dropPacks, packIds } from "./database-file.js";
import { syncFolder } from "./files.js";
import { type PackingSource } from "./packed.js";
import { writeRows } from "./restore-rows.js";
import { storageFailure, storingAsync } from "./sqlite.js";
import type { Store } from "./store.js";
import {
  SNAPSHOT,
  SUFFIX,
  type SnapshotCheck,
  head,
  manifestIn,
  readable,
  unverified,
} from "./snapshot-container.js";
import {
  type BeforeImagesKept,
  type OpenSnapshot,
  type SnapshotDeps,
  type SnapshotFacts,
  fill,
  keepBeforeImages,
  load,
  manifestOf,
  packedAt,
  write,
} from "./snapshot-rows.js";
import {
  type TakenFile,
  type TakenSnapshot,
  checkFile,
  dayBefore,
  keptFiles,
  orphans,
  packsOf,
  requireFree,
  restoreFile,
  takeFile,
} from "./snapshot-files.js";

/** One snapshot of the store, by its manifest alone. */
export interface ListedFile {
  readonly id: string;
  readonly check: SnapshotCheck;
  /** Whether it is a database, kept in pages that others may share. */
  readonly hasPages: boolean;
}

/** What {@link Snapshots.prune} did. */
export interface Pruned {
  readonly removed: readonly string[];
  readonly kept: readonly { readonly id: string; readonly neededBy: readonly string[] }[];
}

/** The snapshots of a store. */
export interface Snapshots {
  /**
   * Keeps the before-images of `before`: writes, flushes, closes, reads back, compares.
   * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED when what is read back differs; the file is then removed.
   */
  readonly take: (
    facts: SnapshotFacts,
    before: ChangeSource,
    covered?: readonly TableShape[],
    /** The before-images of the same changes, packed while these passed: then `before` is not read once more. */
    kept?: BeforeImagesKept,
  ) => Promise<TakenSnapshot>;
  /** Packs the before-images of changes that pass, for a snapshot that may be taken of them later. */
  readonly keep: () => BeforeImagesKept;
  /**
   * Keeps a database file, page by page, storing only pages that no earlier snapshot of the target has; then puts it
   * together again in a scratch file, compares it by digest and has SQLite check it, or, of a
   * dump, `prove`.
   * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED as {@link take} does.
   */
  readonly takeFile: (
    facts: SnapshotFacts,
    path: string,
    content: FileContent,
    prove?: (restored: string) => Promise<void>,
  ) => Promise<TakenFile>;
  /**
   * Puts a database together again at `path`, which must be free, and checks it.
   * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED; then nothing is left at `path`.
   */
  readonly restoreFile: (idOrPrefix: string, path: string, expected?: Digest) => Promise<SnapshotManifest>;
  /** Writes the tables of a snapshot of rows into a fresh SQLite file at `path`, which must be free. */
  readonly restoreRows: (idOrPrefix: string, path: string, expected?: Digest) => Promise<SnapshotManifest>;
  /**
   * Loads a snapshot, by id or unique prefix, into a working file and checks all of it on the way.
   * @throws UsageError ERR_SNAPSHOT_UNKNOWN
   * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED, also when it is not the one that `expected` names.
   */
  readonly open: (idOrPrefix: string, expected?: Digest) => Promise<OpenSnapshot>;
  /** Reads a snapshot whole and compares; `expected` is the manifest's digest from the ledger. Never throws for damage. */
  readonly verify: (idOrPrefix: string, expected?: Digest) => Promise<SnapshotCheck>;
  /**
   * Every snapshot's manifest, or why there is none to show; by id. Only manifests are read, however large the snapshots
   * are: what they say counts once its digest is the one in the ledger.
   */
  readonly list: () => Promise<readonly ListedFile[]>;
  /**
   * Destroys the row data of the snapshots given. What something still needs is kept, unless told otherwise.
   * @param neededBy which runs could no longer be undone without it.
   */
  readonly prune: (
    ids: readonly string[],
    neededBy: (id: string) => readonly string[],
    options: {
      readonly evenIfNeeded: boolean;
      /** With the time, packs that a killed `take` left behind a day ago go too. */
      readonly now?: Date;
    },
  ) => Promise<Pruned>;
}

/** The snapshots in an open store. */
export function openSnapshots(
  store: Pick<Store, "snapshots"> & Partial<Pick<Store, "workPath">>,
  deps: SnapshotDeps,
): Snapshots {
  const folder = store.snapshots;
  // Working files that a killed process leaves behind are swept there, and nowhere else.
  const workPath = store.workPath ?? ((): string => join(folder, ".packed"));
  const pathOf = (ref: string): string => join(folder, findId(stored(folder), ref) + SUFFIX);
  return {
    take: (facts, before, covered, kept) =>
      storingAsync("keep a snapshot in", folder, () =>
        take(join(folder, facts.id + SUFFIX), facts, { before, covered, kept, workPath }, deps.whenWritten),
      ),
    keep: () => keepBeforeImages(workPath()),
    takeFile: (facts, path, content, prove = async () => undefined) =>
      storingAsync("keep a snapshot in", folder, () =>
        takeFile({ folder, prove, ...deps }, facts, path, content),
      ),
    restoreFile: (ref, path, expected) =>
      storingAsync("restore to", path, () => {
        requireFree(path);
        return restoreFile(folder, pathOf(ref), path, expected);
      }),
    restoreRows: (ref, path, expected) =>
      storingAsync("restore to", path, async () => {
        requireFree(path);
        const opened = await load(pathOf(ref), expected, deps.workingChanges);
        try {
          await writeRows(path, opened.manifest.tables, opened.source);
          return opened.manifest;
        } finally {
          opened.close();
        }
      }),
    open: (ref, expected) =>
      storingAsync("read a snapshot from", folder, () => load(pathOf(ref), expected, deps.workingChanges)),
    verify: (ref, expected) =>
      storingAsync("read a snapshot from", folder, () => checkAt(pathOf(ref), expected)),
    list: () =>
      storingAsync("read", folder, () => {
        const packs = new Set(packIds(folder));
        return stored(folder).map((id) => ({
          id,
          check: head(join(folder, id + SUFFIX)),
          hasPages: packs.has(id),
        }));
      }),
    prune: (ids, neededBy, options) =>
      storingAsync("remove snapshots from", folder, () => prune(folder, ids, neededBy, options)),
  };
}

function prune(
  folder: string,
  ids: readonly string[],
  neededBy: (id: string) => readonly string[],
  { evenIfNeeded, now }: Parameters<Snapshots["prune"]>[2],
): Pruned {
  const found = ids.map((ref) => findId(stored(folder), ref));
  const kept = evenIfNeeded
    ? []
    : found.map((id) => ({ id, neededBy: neededBy(id) })).filter((k) => k.neededBy.length > 0);
  const removed = found.filter((id) => !kept.some((k) => k.id === id));
  try {
    const packs = removed.flatMap((id) => [id, ...packsOf(folder, id)]);
    const left = keptFiles(folder, new Set(removed));
    const late = now === undefined ? [] : orphans(folder, left, dayBefore(now));
    // The manifests go last: as long as one is there, taking it away again finishes what a crash left half done.
    dropPacks(folder, new Set([...packs, ...late]), left);
    for (const id of removed) rmSync(join(folder, id + SUFFIX), { force: true });
    syncFolder(folder);
  } catch (e) {
    throw storageFailure("remove snapshots from", folder, e);
  }
  return { removed, kept };
}

export function take(
  path: string,
  facts: SnapshotFacts,
  given: {
    readonly before: ChangeSource;
    readonly covered: readonly TableShape[] | undefined;
    readonly kept: BeforeImagesKept | undefined;
    readonly workPath: () => string;
  },
  whenWritten?: (path: string) => void,
): TakenSnapshot {
  const source = beforeImages(given.before);
  const packed = given.kept?.packed() ?? packedAt(given.workPath(), path, source);
  try {
    const manifest = manifestOf(facts, packed, source, given.covered);
    const packing: PackingSource = { ...source, packed: () => packed };
    write(path, manifest, packing);
    whenWritten?.(path);
    const digest = manifestDigest(manifest);
    const why = misfitOfWritten(path, manifest);
    if (why === undefined) return { manifest, digest, path };
    rmSync(path, { force: true });
    throw unverified(path, why);
  } finally {
    packed.remove();
  }
}

/**
 * Reads back what was just written: every byte under the digest at its end, every block unpacked, and the stream in them held
 * against the digest of the rows. Undefined when it is all there.
 */
function misfitOfWritten(path: string, manifest: SnapshotManifest): string | undefined {
  const check = readable(() => {
    const container = openContainer(path, SNAPSHOT, { followLinks: false });
    const [found, expected] = [manifestDigest(manifestIn(container)), manifestDigest(manifest)];
    if (found !== expected) return { ok: false, why: `expected the manifest ${expected}, found ${found}` };
    const content = container.streamDigest();
    return content === manifest.content
      ? { ok: true, manifest, digest: found }
      : { ok: false, why: `expected rows with the digest ${manifest.content}, found ${content}` };
  });
  return check.ok ? undefined : check.why;
}

function checkAt(path: string, expected: Digest | undefined): SnapshotCheck {
  return readable(() => {
    const container = openContainer(path, SNAPSHOT, { followLinks: false });
    const manifest = manifestIn(container);
    if (manifest.file !== undefined) return checkFile(dirname(path), path, manifest, expected);
    const misfit = fill(container, manifest, expected, { table: () => undefined, add: () => undefined });
    return misfit === undefined
      ? { ok: true, manifest, digest: manifestDigest(manifest) }
      : { ok: false, why: misfit };
  });
}

function findId(ids: readonly string[], ref: string): string {
  const found = isIdOrPrefix("sn", ref) ? ids.filter((id) => id.startsWith(ref)) : [];
  const [only, ...others] = found;
  if (only !== undefined && others.length === 0) return only;
  const none = only === undefined;
  throw new UsageError({
    code: "ERR_SNAPSHOT_UNKNOWN",
    message: none
      ? `no snapshot ${ref} in this store`
      : `${ref} is the beginning of ${found.length} snapshots`,
    why: none
      ? `none of its ${ids.length} snapshots has that id or begins with it`
      : found.slice(0, 5).join(", "),
    next: [{ actor: "anyone", argv: ["holdpoint", "snapshot", "list"] }],
  });
}

function stored(folder: string): readonly string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(SUFFIX) && isId("sn", name.slice(0, -SUFFIX.length)))
    .map((name) => name.slice(0, -SUFFIX.length))
    .sort();
}
