/** Private copies of the target, made by SQLite's online backup into a folder of our own. */
import { copyFileSync, constants, mkdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import type { Random } from "../../base/clock.js";
import { asFarAsPossible } from "../../base/errors.js";
import type { Connection } from "./driver.js";

/** Pages copied at a time: 64 MiB with pages of 4 KiB. Between two steps other connections may write. */
const PAGES_PER_STEP = 16_384;
/** A write by another process starts the copy over; after so many times it is made in one step. */
const RESTARTS = 3;

/** A folder that only its owner may enter. Remove it in `finally`. */
export interface Scratch {
  readonly path: string;
  readonly remove: () => void;
}

/** Makes a fresh folder below `parent`, mode 0700. */
export function makeScratch(parent: string, random: Random): Scratch {
  mkdirSync(parent, { recursive: true, mode: 0o700 });
  const path = join(parent, `rehearsal-${Buffer.from(random(10)).toString("hex")}`);
  mkdirSync(path, { mode: 0o700 });
  return { path, remove: () => asFarAsPossible(() => rmSync(path, { recursive: true, force: true })) };
}

/**
 * Copies the database that `source` is connected to, as it is at one moment, committed frames of its WAL
 * included. The file keeps its name. Reads take the engine's locks, so this never disturbs them as reading
 * the file with `fs` would; in rollback-journal mode nobody can commit while a step runs.
 */
export async function copyDatabase(source: Connection, folder: string): Promise<string> {
  mkdirSync(folder, { mode: 0o700 });
  const path = join(folder, basename(source.path));
  let remaining = Number.POSITIVE_INFINITY;
  let restarts = 0;
  await source.db.backup(path, {
    progress: ({ remainingPages }) => {
      if (remainingPages > remaining) restarts++;
      remaining = remainingPages;
      return restarts >= RESTARTS ? 0x7fff_ffff : PAGES_PER_STEP;
    },
  });
  return path;
}

/** A second copy of a private copy that nobody has open; by reference where the file system can. */
export function cloneFile(from: string, folder: string): string {
  mkdirSync(folder, { mode: 0o700 });
  const path = join(folder, basename(from));
  copyFileSync(from, path, constants.COPYFILE_FICLONE);
  return path;
}
