/**
 * The store's snapshots. A snapshot counts only when it has been read back from its closed file and is, by
 * digest and by rows, what was to be kept; until then there is none. Format page: `docs/formats/snapshot.md`.
 */
import { lstatSync, readdirSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Digest } from "../base/digest.js";
import { codeOf, HoldpointError, IntegrityError, messageOf, UsageError } from "../base/errors.js";
import { isId, isIdOrPrefix } from "../base/ids.js";
import type { ChangeSink, ChangeSource, TableShape } from "../changeset/change.js";
import type { Measured } from "../changeset/encode.js";
import { sameShape } from "../changeset/well-formed.js";
import { sortedTables } from "../changeset/source.js";
import { beforeImages, beforeImagesInto } from "../snapshot/before-images.js";
import { manifestBytes, manifestDigest, parseManifest } from "../snapshot/manifest.js";
import type { FileContent, RowSnapshot, SnapshotFile, SnapshotManifest } from "../snapshot/snapshot.js";
import type { ChangesFile, ChangesWriter } from "./changes.js";
import { type Container, type ContainerKind, openContainer, readHead, writeContainer } from "./container.js";
import { dropPacks, joinFile, packIds, packOf, quickCheck } from "./database-file.js";
import { MOST_CHUNK_BYTES, packFile } from "./chunks.js";
import { readAt, syncFolder, withFile } from "./files.js";
import { type PackedChanges, packChanges, PackingInProgress, type PackingSource } from "./packed.js";
import { writeRows } from "./restore-rows.js";
import { storageFailure, storingAsync } from "./sqlite.js";
import type { Store } from "./store.js";

const SUFFIX = ".hpsnap";

/** What a caller knows of a snapshot before it is taken. */
export type SnapshotFacts = Omit<
  SnapshotManifest,
  "format" | "tables" | "rows" | "content" | "file" | "dump"
>;

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

/** How a snapshot's file is. */
export type SnapshotCheck =
  | { readonly ok: true; readonly manifest: SnapshotManifest; readonly digest: Digest }
  | { readonly ok: false; readonly why: string };

/** One snapshot of the store, by its manifest alone. */
export interface ListedFile {
  readonly id: string;
  readonly check: SnapshotCheck;
  /** Whether it is a database, kept in pages that others may share. */
  readonly hasPages: boolean;
}

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

/** What snapshots need of the store around them. */
export interface SnapshotDeps {
  /** A fresh working ChangeSet, removed when it is closed. */
  readonly workingChanges: () => Promise<ChangesWriter>;
  /** Called once a snapshot is on disk and before it is read back: a fault test alters the file here. */
  readonly whenWritten?: (path: string) => void;
}

const SNAPSHOT: ContainerKind = {
  magic: "holdpoint-snapshot/1\n",
  sectionBytes: [64 * 1024 * 1024], // the shapes of all tables stand in the manifest
  altered: (path, why, cause) => unverified(path, why, cause),
  unknown: (path, why, cause) =>
    new UsageError({
      code: "ERR_SNAPSHOT_UNKNOWN",
      message: `${path} is not a snapshot`,
      why,
      next: [{ actor: "anyone", argv: ["holdpoint", "snapshot", "list"] }],
      cause,
    }),
};

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

function take(
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
 * Packs at `path`. A disk that refuses does not stop whatever the changes pass for: that no snapshot can be taken is said when
 * one is to be.
 */
function keepBeforeImages(path: string): BeforeImagesKept {
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

function packedAt(work: string, path: string, source: ChangeSource): PackedChanges {
  try {
    return packChanges(source, work);
  } catch (e) {
    if (codeOf(e) === "ERR_STORE_FAILED") throw unverified(path, `it could not be written: ${whyOf(e)}`, e);
    throw e;
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

/** A snapshot that cannot be written cannot be verified either: the change must not begin. */
function write(path: string, manifest: SnapshotManifest, source: ChangeSource): void {
  try {
    writeContainer(path, SNAPSHOT, [manifestBytes(manifest)], source, "refuse");
  } catch (e) {
    if (codeOf(e) === "ERR_STORE_FAILED") throw unverified(path, `it could not be written: ${whyOf(e)}`, e);
    throw e;
  }
}

/** Computed from the source, before anything is written: what the file is held against afterwards. */
function manifestOf(
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

/** The manifest alone; the rest of the file is not looked at. */
function head(path: string): SnapshotCheck {
  return readable(() => {
    const manifest = manifestIn(readHead(path, SNAPSHOT, { followLinks: false }));
    return { ok: true, manifest, digest: manifestDigest(manifest) };
  });
}

/** The manifest, its file's digest checked, its rows not read. */
function glance(path: string): SnapshotCheck {
  return readable(() => {
    const manifest = manifestIn(openContainer(path, SNAPSHOT, { followLinks: false }));
    return { ok: true, manifest, digest: manifestDigest(manifest) };
  });
}

// ---- whole databases

async function takeFile(
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
function keptFiles(folder: string, going: ReadonlySet<string>): readonly SnapshotFile[] {
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
function packsOf(folder: string, id: string): readonly string[] {
  if (!hasManifest(folder, id)) return [];
  const check = glance(join(folder, id + SUFFIX));
  return check.ok ? (check.manifest.file?.packs ?? []) : packIds(folder);
}

function hasManifest(folder: string, id: string): boolean {
  return lstatSync(join(folder, id + SUFFIX), { throwIfNoEntry: false }) !== undefined;
}

/** Packs that no snapshot uses and that are no longer being written: a killed `take` leaves one. */
function orphans(folder: string, kept: readonly SnapshotFile[], before: Date): readonly string[] {
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
function checkFile(
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

async function restoreFile(
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
function requireFree(path: string): void {
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

function dayBefore(now: Date): Date {
  return new Date(now.getTime() - 24 * 3_600_000);
}

// ---- rows

async function load(
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
function fill(
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

/** The manifest of a file in the store; its id is the file's name. */
function manifestIn(container: Pick<Container, "path" | "sections">): SnapshotManifest {
  const parsed = parseManifest(container.sections[0] ?? new Uint8Array());
  if (!parsed.ok) throw unverified(container.path, parsed.why);
  if (container.path.endsWith(`${parsed.manifest.id}${SUFFIX}`)) return parsed.manifest;
  throw unverified(container.path, `its manifest is that of ${parsed.manifest.id}`);
}

/** Damage is an answer here, not an error. */
function readable(check: () => SnapshotCheck): SnapshotCheck {
  try {
    return check();
  } catch (e) {
    if (e instanceof HoldpointError && e.code !== "ERR_INTERNAL")
      return { ok: false, why: e.why ?? messageOf(e) };
    throw e;
  }
}

function whyOf(e: unknown): string {
  return (e instanceof HoldpointError ? e.why : undefined) ?? messageOf(e);
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

function unverified(path: string, why: string, cause?: unknown): IntegrityError {
  return new IntegrityError({
    code: "ERR_SNAPSHOT_UNVERIFIED",
    message: `the snapshot ${path} could not be verified`,
    why,
    next: [{ actor: "anyone", text: "check the disk that holds the store, then run the command again" }],
    cause,
  });
}
