/**
 * The store's snapshots. A snapshot counts only when it has been read back from its closed file and is, by
 * digest and by rows, what was to be kept; until then there is none. Format page: `docs/formats/snapshot.md`.
 */
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Digest } from "../base/digest.js";
import { codeOf, HoldpointError, IntegrityError, messageOf, UsageError } from "../base/errors.js";
import { isId, isIdOrPrefix } from "../base/ids.js";
import type { ChangeSink, ChangeSource, TableShape } from "../changeset/change.js";
import { digestOfSource } from "../changeset/encode.js";
import { sameShape } from "../changeset/well-formed.js";
import { sortedTables } from "../changeset/source.js";
import { beforeImages } from "../snapshot/before-images.js";
import { manifestBytes, manifestDigest, parseManifest } from "../snapshot/manifest.js";
import type { RowSnapshot, SnapshotManifest } from "../snapshot/snapshot.js";
import type { ChangesWriter } from "./changes.js";
import { type Container, type ContainerKind, openContainer, writeContainer } from "./container.js";
import { syncFolder } from "./files.js";
import type { Store } from "./store.js";

const SUFFIX = ".hpsnap";

/** What a caller knows of a snapshot before it is taken. */
export type SnapshotFacts = Omit<SnapshotManifest, "format" | "tables" | "rows" | "content">;

/** A snapshot that was read back. */
export interface TakenSnapshot {
  readonly manifest: SnapshotManifest;
  /** Digest of the manifest, for the ledger. */
  readonly digest: Digest;
  readonly path: string;
}

/** How a snapshot's file is. */
export type SnapshotCheck =
  | { readonly ok: true; readonly manifest: SnapshotManifest; readonly digest: Digest }
  | { readonly ok: false; readonly why: string };

/** A snapshot in its working form. Close it in `finally`. */
export interface OpenSnapshot extends RowSnapshot {
  readonly close: () => void;
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
  readonly take: (facts: SnapshotFacts, before: ChangeSource) => Promise<TakenSnapshot>;
  /**
   * Loads a snapshot, by id or unique prefix, into a working file and checks all of it on the way.
   * @throws UsageError ERR_SNAPSHOT_UNKNOWN
   * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED, also when it is not the one that `expected` names.
   */
  readonly open: (idOrPrefix: string, expected?: Digest) => Promise<OpenSnapshot>;
  /** Reads a snapshot whole and compares; `expected` is the manifest's digest from the ledger. Never throws for damage. */
  readonly verify: (idOrPrefix: string, expected?: Digest) => Promise<SnapshotCheck>;
  /** Every snapshot's manifest, or why there is none to show; by id. */
  readonly list: () => Promise<readonly { readonly id: string; readonly check: SnapshotCheck }[]>;
  /**
   * Destroys the row data of the snapshots given. What something still needs is kept, unless told otherwise.
   * @param neededBy which runs could no longer be undone without it.
   */
  readonly prune: (
    ids: readonly string[],
    neededBy: (id: string) => readonly string[],
    options: { readonly evenIfNeeded: boolean },
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
export function openSnapshots(store: Pick<Store, "snapshots">, deps: SnapshotDeps): Snapshots {
  const folder = store.snapshots;
  const pathOf = (ref: string): string => join(folder, findId(stored(folder), ref) + SUFFIX);
  return {
    take: async (facts, before) => take(join(folder, facts.id + SUFFIX), facts, before, deps.whenWritten),
    open: async (ref, expected) => load(pathOf(ref), expected, deps.workingChanges),
    verify: async (ref, expected) => checkAt(pathOf(ref), expected),
    list: async () => stored(folder).map((id) => ({ id, check: glance(join(folder, id + SUFFIX)) })),
    prune: async (ids, neededBy, { evenIfNeeded }) => {
      const found = ids.map((ref) => findId(stored(folder), ref));
      const kept = evenIfNeeded
        ? []
        : found.map((id) => ({ id, neededBy: neededBy(id) })).filter((k) => k.neededBy.length > 0);
      const removed = found.filter((id) => !kept.some((k) => k.id === id));
      for (const id of removed) rmSync(join(folder, id + SUFFIX), { force: true });
      syncFolder(folder);
      return { removed, kept };
    },
  };
}

function take(
  path: string,
  facts: SnapshotFacts,
  given: ChangeSource,
  whenWritten?: (path: string) => void,
): TakenSnapshot {
  const source = beforeImages(given);
  const manifest = manifestOf(facts, source);
  write(path, manifest, source);
  whenWritten?.(path);
  const digest = manifestDigest(manifest);
  const check = checkAt(path, digest);
  if (check.ok) return { manifest, digest, path };
  rmSync(path, { force: true });
  throw unverified(path, check.why);
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
function manifestOf(facts: SnapshotFacts, source: ChangeSource): SnapshotManifest {
  const { digest, rows, tables } = digestOfSource(source);
  const kept = new Set(tables.map((t) => t.name));
  return {
    format: "holdpoint-snapshot/1",
    id: facts.id,
    level: facts.level,
    target: facts.target,
    identity: facts.identity,
    plan: facts.plan,
    run: facts.run,
    takenAt: facts.takenAt,
    tables: sortedTables(source.tables).filter((t) => kept.has(t.name)),
    rows,
    content: digest,
  };
}

function checkAt(path: string, expected: Digest | undefined): SnapshotCheck {
  return readable(() => {
    const container = openContainer(path, SNAPSHOT, { followLinks: false });
    const manifest = manifestIn(container);
    const misfit = fill(container, manifest, expected, { table: () => undefined, add: () => undefined });
    return misfit === undefined
      ? { ok: true, manifest, digest: manifestDigest(manifest) }
      : { ok: false, why: misfit };
  });
}

/** The manifest, its file's digest checked, its rows not read. */
function glance(path: string): SnapshotCheck {
  return readable(() => {
    const manifest = manifestIn(openContainer(path, SNAPSHOT, { followLinks: false }));
    return { ok: true, manifest, digest: manifestDigest(manifest) };
  });
}

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
  const same =
    tables.length === manifest.tables.length && tables.every((t, i) => isShape(t, manifest.tables[i]));
  return same ? undefined : "expected the tables of its manifest, found others";
}

function isShape(found: TableShape, expected: TableShape | undefined): boolean {
  return expected !== undefined && sameShape(found, expected);
}

/** The manifest of a file in the store; its id is the file's name. */
function manifestIn(container: Container): SnapshotManifest {
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
