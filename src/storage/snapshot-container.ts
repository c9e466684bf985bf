/** The file of a snapshot: a container with its manifest in front, read as far as is asked for. */
import type { Digest } from "../base/digest.js";
import { HoldpointError, IntegrityError, messageOf, UsageError } from "../base/errors.js";
import { manifestDigest, parseManifest } from "../snapshot/manifest.js";
import type { SnapshotManifest } from "../snapshot/snapshot.js";
import { type Container, type ContainerKind, openContainer, readHead } from "./container.js";

/** How files of snapshots end. */
export const SUFFIX = ".hpsnap";

/** How a snapshot's file is. */
export type SnapshotCheck =
  | { readonly ok: true; readonly manifest: SnapshotManifest; readonly digest: Digest }
  | { readonly ok: false; readonly why: string };

/** The kind of container that a snapshot is. */
export const SNAPSHOT: ContainerKind = {
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

/** The manifest alone; the rest of the file is not looked at. */
export function head(path: string): SnapshotCheck {
  return readable(() => {
    const manifest = manifestIn(readHead(path, SNAPSHOT, { followLinks: false }));
    return { ok: true, manifest, digest: manifestDigest(manifest) };
  });
}

/** The manifest, its file's digest checked, its rows not read. */
export function glance(path: string): SnapshotCheck {
  return readable(() => {
    const manifest = manifestIn(openContainer(path, SNAPSHOT, { followLinks: false }));
    return { ok: true, manifest, digest: manifestDigest(manifest) };
  });
}

// ---- whole databases

/** The manifest of a file in the store; its id is the file's name. */
export function manifestIn(container: Pick<Container, "path" | "sections">): SnapshotManifest {
  const parsed = parseManifest(container.sections[0] ?? new Uint8Array());
  if (!parsed.ok) throw unverified(container.path, parsed.why);
  if (container.path.endsWith(`${parsed.manifest.id}${SUFFIX}`)) return parsed.manifest;
  throw unverified(container.path, `its manifest is that of ${parsed.manifest.id}`);
}

/** Damage is an answer here, not an error. */
export function readable(check: () => SnapshotCheck): SnapshotCheck {
  try {
    return check();
  } catch (e) {
    if (e instanceof HoldpointError && e.code !== "ERR_INTERNAL")
      return { ok: false, why: e.why ?? messageOf(e) };
    throw e;
  }
}

/** Why something could not be verified, in one clause. */
export function whyOf(e: unknown): string {
  return (e instanceof HoldpointError ? e.why : undefined) ?? messageOf(e);
}

/** ERR_SNAPSHOT_UNVERIFIED (36) with the file and why. */
export function unverified(path: string, why: string, cause?: unknown): IntegrityError {
  return new IntegrityError({
    code: "ERR_SNAPSHOT_UNVERIFIED",
    message: `the snapshot ${path} could not be verified`,
    why,
    next: [{ actor: "anyone", text: "check the disk that holds the store, then run the command again" }],
    cause,
  });
}
