/** A database file of a snapshot: put together from packs, checked, and its packs given up when nobody needs them. */
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { HoldpointError, messageOf } from "../base/errors.js";
import type { SnapshotFile, SnapshotManifest } from "../snapshot/snapshot.js";
import { type ChunkRun, destroyChunks, fileFrom } from "./chunks.js";
import { writeWhole } from "./files.js";
import { discard, loadSqlite } from "./sqlite.js";

const PACK_SUFFIX = ".hpchunks";

/** The pack that a snapshot wrote. */
export function packOf(folder: string, id: string): string {
  return join(folder, id + PACK_SUFFIX);
}

/** The snapshots that wrote a pack which is still there. */
export function packIds(folder: string): readonly string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(PACK_SUFFIX) && !name.startsWith("."))
    .map((name) => name.slice(0, -PACK_SUFFIX.length))
    .sort();
}

/**
 * Puts the file together, to `to` (which must be free) or to nowhere, and says where it is not what the manifest says.
 * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED for a pack that is damaged or missing.
 */
export function joinFile(folder: string, manifest: SnapshotManifest, to: string | null): string | undefined {
  const { file } = manifest;
  if (file === undefined) return "expected a database, found rows";
  const hash = createHash("sha256");
  let bytes = 0;
  function* parts(of: SnapshotFile): Generator<Uint8Array, undefined> {
    const runs = of.runs.map(([pack = 0, first = 0, count = 0]): ChunkRun => [pack, first, count]);
    for (const chunk of fileFrom(
      of.packs.map((id) => packOf(folder, id)),
      runs,
    )) {
      hash.update(chunk);
      bytes += chunk.length;
      yield chunk;
    }
  }
  if (to === null) for (const _ of parts(file));
  else writeWhole(to, parts(file), "refuse");
  const found = `sha256:${hash.digest("hex")}`;
  if (bytes !== file.bytes) return `expected ${file.bytes} bytes, found ${bytes}`;
  return found === manifest.content ? undefined : `expected the file ${manifest.content}, found ${found}`;
}

/** What SQLite finds wrong with a file of ours that nobody else has open; undefined when nothing. */
export async function quickCheck(path: string): Promise<string | undefined> {
  const sqlite = await loadSqlite();
  try {
    const db = new sqlite(path, { readonly: true, fileMustExist: true });
    try {
      const found: unknown = db.pragma("quick_check(5)", { simple: true });
      return found === "ok" ? undefined : `SQLite finds it damaged: ${String(found)}`;
    } finally {
      db.close();
    }
  } catch (e) {
    if (e instanceof HoldpointError) throw e;
    return `SQLite cannot open it: ${messageOf(e)}`;
  } finally {
    for (const side of ["-wal", "-shm"]) discard(path + side);
  }
}

/** Of the packs given, removes those that no snapshot uses, and destroys in the others the chunks that none uses. */
export function dropPacks(folder: string, packs: ReadonlySet<string>, kept: readonly SnapshotFile[]): void {
  const live = new Map<string, Set<number>>();
  for (const file of kept) {
    for (const [pack = 0, first = 0, count = 0] of file.runs) {
      const id = file.packs[pack] ?? "";
      const chunks = live.get(id) ?? new Set<number>();
      for (let i = first; i < first + count; i++) chunks.add(i);
      live.set(id, chunks);
    }
  }
  for (const id of packs) {
    const chunks = live.get(id);
    if (chunks === undefined) discard(packOf(folder, id));
    else destroyChunks(packOf(folder, id), chunks);
  }
}
