/**
 * Files of ours on disk: written whole or not at all, readable by their owner only, and flushed before
 * anyone is told that they are there.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readSync,
  renameSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { codeOf, UsageError } from "../base/errors.js";
import { discard, storageFailure, storing } from "./sqlite.js";

/** How much is read at a time. */
const CHUNK_BYTES = 65_536;

/** What {@link writeWhole} does when the file is there already: replace it in one step, or refuse. */
export type WhenThere = "replace" | "refuse";

/**
 * Writes a file (0600) so that a reader, or a machine that loses power, sees all of it or nothing: a
 * temporary file beside it, flushed, then put in place, then the folder flushed.
 * @throws UsageError ERR_USAGE when the file is there and must not be replaced.
 * @throws HoldpointError ERR_STORE_FAILED when the disk refuses; nothing is left behind then.
 */
export function writeWhole(path: string, chunks: Iterable<Uint8Array>, whenThere: WhenThere): void {
  const temporary = partPath(path);
  try {
    writeFlushed(temporary, chunks);
    if (whenThere === "replace") renameSync(temporary, path);
    else putNew(temporary, path);
    syncFolder(dirname(path));
  } catch (e) {
    throw storageFailure("write", path, e);
  } finally {
    discard(temporary);
  }
}

/** Writes a file (0600) at a free path that only this process will read: nothing waits for the disk. */
export function writeScratch(path: string, chunks: Iterable<Uint8Array>): void {
  const file = new ScratchFile(path);
  try {
    for (const chunk of chunks) file.write(chunk);
  } finally {
    file.close();
  }
}

/** {@link writeScratch} for whoever has the chunks passing anyway. Close it in `finally`. */
export class ScratchFile {
  readonly #path: string;
  #fd: number | null;

  constructor(path: string) {
    this.#path = path;
    this.#fd = storing("write", path, () => openSync(path, "wx", 0o600));
  }

  write(chunk: Uint8Array): void {
    const fd = this.#fd;
    if (fd !== null) storing("write", this.#path, () => writeAll(fd, chunk));
  }

  /** May be called again. */
  close(): void {
    const fd = this.#fd;
    this.#fd = null;
    if (fd !== null) storing("write", this.#path, () => closeSync(fd));
  }
}

/** A file's bytes in pieces. */
export function* readPieces(path: string): Iterable<Uint8Array> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    yield* readRange(fd, 0, fstatSync(fd).size);
  } finally {
    closeSync(fd);
  }
}

/**
 * Puts a file at a name that must be free once `make` has made it whole under another name beside it; nothing is left
 * behind when that fails.
 * @throws UsageError ERR_USAGE when the name is taken.
 */
export async function putWhole(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = partPath(path);
  try {
    await make(temporary);
    const fd = openSync(temporary, "r+");
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    putNew(temporary, path);
    syncFolder(dirname(path));
  } catch (e) {
    throw storageFailure("write", path, e);
  } finally {
    for (const side of ["", "-journal"]) discard(temporary + side);
  }
}

/** A name beside `path` that nobody else uses, for a file in the making. */
function partPath(path: string): string {
  return join(dirname(path), `.${basename(path).slice(0, 100)}.${randomBytes(8).toString("hex")}.part`);
}

/** Moves a finished file to a name that must be free. */
function putNew(from: string, to: string): void {
  try {
    linkSync(from, to); // unlike rename, fails when the name is taken
  } catch (e) {
    if (codeOf(e) === "EEXIST") throw taken(to, e);
    if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"].includes(codeOf(e) ?? "")) throw e;
    claim(to); // a file system without hard links
    renameSync(from, to);
  }
}

/** Takes a free name with an empty file. */
function claim(path: string): void {
  try {
    closeSync(openSync(path, "wx", 0o600));
  } catch (e) {
    throw codeOf(e) === "EEXIST" ? taken(path, e) : e;
  }
}

/** Flushes a folder, so that a new name in it survives a loss of power. */
export function syncFolder(path: string): void {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** How a file is opened for reading. */
export interface ReadOptions {
  /** Follow a symbolic link in the last place of the path; only for a path that a person typed. */
  readonly followLinks: boolean;
}

/**
 * Opens a plain file for reading and gives its descriptor and size to `use`; closes it afterwards.
 * A pipe or device is refused instead of waited for.
 * @throws the system's error (`ENOENT`, `ELOOP` for a link that is not followed), or `EINVAL` for no plain file.
 */
export function withFile<T>(
  path: string,
  options: ReadOptions,
  use: (fd: number, sizeBytes: number) => T,
): T {
  const noFollow = options.followLinks ? 0 : constants.O_NOFOLLOW;
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | noFollow);
  try {
    const facts = fstatSync(fd);
    if (!facts.isFile()) throw Object.assign(new Error(`${path} is not a plain file`), { code: "EINVAL" });
    return use(fd, facts.size);
  } finally {
    closeSync(fd);
  }
}

/** Reads up to `length` bytes at `position`: fewer only where the file ends. */
export function readAt(fd: number, position: number, length: number): Uint8Array {
  const buffer = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const got = readSync(fd, buffer, filled, length - filled, position + filled);
    if (got === 0) break;
    filled += got;
  }
  return buffer.subarray(0, filled);
}

/** The bytes from `start` up to `end`, in pieces. */
export function* readRange(fd: number, start: number, end: number): Iterable<Uint8Array> {
  for (let at = start; at < end;) {
    const piece = readAt(fd, at, Math.min(CHUNK_BYTES, end - at));
    if (piece.length === 0) return; // shorter than it was a moment ago: the digest will not match
    yield piece;
    at += piece.length;
  }
}

function writeFlushed(path: string, chunks: Iterable<Uint8Array>): void {
  const fd = openSync(path, "wx", 0o600);
  try {
    for (const chunk of chunks) writeAll(fd, chunk);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function writeAll(fd: number, chunk: Uint8Array): void {
  for (let done = 0; done < chunk.length;) done += writeSync(fd, chunk, done);
}

function taken(path: string, cause: unknown): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `${path} exists already`,
    why: "expected a free name, found a file; nothing is overwritten",
    next: [{ actor: "anyone", text: "give another file name, or move the old file away" }],
    cause,
  });
}
