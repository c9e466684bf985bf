/**
 * A job's file, read once. Its digest is of exactly the bytes that were read, and everything later works
 * from them: a file that is swapped while it runs changes nothing (R11, S27).
 */
import { constants } from "node:fs";
import { chmod, mkdtemp, open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Digest, digestOf } from "../base/digest.js";
import { codeOf, messageOf, UsageError } from "../base/errors.js";

/** The largest file that is read as a job. */
export const MAX_JOB_BYTES = 64 * 1024 * 1024;

/** A file as it was at one moment. */
export interface PinnedFile {
  /** Absolute. */
  readonly path: string;
  /** As given, for people. */
  readonly shown: string;
  readonly bytes: Uint8Array;
  readonly digest: Digest;
}

/**
 * Reads a job's file.
 * @throws UsageError ERR_JOB_UNKNOWN when there is none, ERR_JOB_INVALID when it is no regular file, is empty, is
 * larger than {@link MAX_JOB_BYTES} or cannot be read.
 */
export async function pinFile(path: string, shown: string): Promise<PinnedFile> {
  const bytes = await bytesOf(path, shown);
  if (bytes.length === 0) throw invalid(`${shown} is empty`, "an empty job is refused");
  return { path, shown, bytes, digest: digestOf(bytes) };
}

async function bytesOf(path: string, shown: string): Promise<Uint8Array> {
  let handle;
  try {
    // Non-blocking: opening a pipe that nobody writes to must not wait for ever. It is refused below.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw unreadable(shown, cause);
  }
  try {
    const facts = await handle.stat();
    if (!facts.isFile()) throw invalid(`${shown} is no regular file`, "a job is a file");
    if (facts.size > MAX_JOB_BYTES) {
      throw invalid(
        `${shown} is too large for a job`,
        `it has ${facts.size} bytes, and at most ${MAX_JOB_BYTES} are read`,
      );
    }
    return await handle.readFile();
  } finally {
    await handle.close();
  }
}

/**
 * Writes the bytes as `name` into a fresh folder under `scratch`, readable and executable for the owner only.
 * The copy is compared with its digest before each run.
 */
export async function privateCopy(file: PinnedFile, scratch: string, name: string): Promise<string> {
  const path = join(await mkdtemp(join(scratch, "job-")), name);
  await writeFile(path, file.bytes, { mode: 0o500, flag: "wx" });
  // The mode of a new file is cut by the umask; this one is needed as it is.
  await chmod(path, 0o500);
  return path;
}

/** @throws UsageError ERR_JOB_FAILED when the private copy no longer has the bytes that were read. */
export async function requireUnchanged(copy: string, file: PinnedFile): Promise<void> {
  const now = digestOf(await readFile(copy));
  if (now === file.digest) return;
  throw new UsageError({
    code: "ERR_JOB_FAILED",
    message: `the private copy of ${file.shown} was changed`,
    why: `it was read as ${file.digest} and is now ${now}`,
  });
}

/**
 * Whether the file was replaced, changed or removed since it was read, in words; null when it stands as it was.
 * What ran is what was read, whatever this says.
 */
export async function swappedSince(file: PinnedFile): Promise<string | null> {
  let now: Digest;
  try {
    now = digestOf(await readFile(file.path));
  } catch (e) {
    return `${file.shown} could not be read again after the run (${codeOf(e) ?? messageOf(e)}); the copy taken before ran`;
  }
  return now === file.digest ? null : `${file.shown} was changed while it ran; the copy taken before ran`;
}

function unreadable(shown: string, cause: unknown): UsageError {
  const missing = codeOf(cause) === "ENOENT" || codeOf(cause) === "ENOTDIR";
  return new UsageError({
    code: missing ? "ERR_JOB_UNKNOWN" : "ERR_JOB_INVALID",
    message: missing ? `there is no file ${shown}` : `${shown} cannot be read`,
    why: messageOf(cause),
    cause,
  });
}

function invalid(message: string, why: string): UsageError {
  return new UsageError({ code: "ERR_JOB_INVALID", message, why });
}
