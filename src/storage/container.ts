/**
 * The container of plans and snapshots: one file that is read front to back, under limits, and believed only
 * once its last byte has been checked (`docs/formats/plan-file.md`).
 *
 * ```
 * file    = magic section* blocks sha256(32, of all before)
 * section = length(4, big-endian) bytes
 * ```
 *
 * The closing digest finds damage. Malice can compute it anew, and is found by what the sections hold: a
 * signature over the statement, which names the digest of the blocks' content.
 */
import { createHash, type Hash } from "node:crypto";
import { type Digest, digestStream } from "../base/digest.js";
import { codeOf, HoldpointError, IntegrityError, UsageError } from "../base/errors.js";
import type { ChangeSink, ChangeSource } from "../changeset/change.js";
import { packBlocks, unpackBlocks } from "../changeset/blocks.js";
import { decodeStream, encodeStream } from "../changeset/encode.js";
import { isPacking } from "./packed.js";
import { readAt, readRange, type ReadOptions, type WhenThere, withFile, writeWhole } from "./files.js";
import { storageFailure } from "./sqlite.js";

const DIGEST_BYTES = 32;
const LENGTH_BYTES = 4;
const DEFAULT_FILE_BYTES = 64 * 1024 ** 3;

/** One kind of container: what it begins with, and how it refuses. */
export interface ContainerKind {
  /** Format and version, with a line feed: `head -1` names the file. */
  readonly magic: string;
  /** The most bytes of each section, in order. */
  readonly sectionBytes: readonly number[];
  /** Any byte is not what was written. */
  readonly altered: (path: string, why: string, cause?: unknown) => IntegrityError;
  /** It is no such file at all. */
  readonly unknown: (path: string, why: string, cause?: unknown) => UsageError;
}

/** What a reader accepts. */
export interface ContainerLimits {
  /** Bytes of the whole file; the default is 64 GiB. */
  readonly fileBytes?: number;
  /** Bytes of the content after decompression; the default is 64 GiB. */
  readonly rawBytes?: number;
}

/** A container whose every byte has been read and checked once. */
export interface Container {
  readonly path: string;
  readonly sections: readonly Uint8Array[];
  /** The digest at its end. */
  readonly digest: Digest;
  /**
   * Streams the content into `sink`, reading the file again and checking it against the same digest.
   * @throws IntegrityError as {@link ContainerKind.altered} for anything but the bytes that were checked.
   */
  readonly loadInto: (sink: ChangeSink) => { readonly rows: number; readonly digest: Digest };
  /**
   * The digest of the canonical stream in it, unpacked block by block and not taken apart into rows: for what was written a
   * moment ago from rows whose stream has a known digest.
   * @throws IntegrityError as {@link Container.loadInto}.
   */
  readonly streamDigest: () => Digest;
}

/**
 * Writes a container, whole or not at all, and flushed.
 * @returns the digest at its end.
 * @throws UsageError ERR_USAGE when the file is there already and `whenThere` says refuse.
 */
export function writeContainer(
  path: string,
  kind: ContainerKind,
  sections: readonly Uint8Array[],
  source: ChangeSource,
  whenThere: WhenThere,
): Digest {
  const hash = createHash("sha256");
  let digest: Digest | undefined;
  function* sealed(): Iterable<Uint8Array> {
    for (const part of contentOf(kind, sections, source)) {
      hash.update(part);
      yield part;
    }
    const bytes = hash.digest();
    digest = `sha256:${bytes.toString("hex")}`;
    yield bytes;
  }
  writeWhole(path, sealed(), whenThere);
  if (digest === undefined)
    throw new HoldpointError({ code: "ERR_INTERNAL", message: `${path} was not written whole` });
  return digest;
}

/**
 * Opens a container and checks every byte of it.
 * @throws UsageError as {@link ContainerKind.unknown} when there is no such file, or not of that kind.
 * @throws IntegrityError as {@link ContainerKind.altered} when a byte is altered, missing or too many, or the
 * file is a link that is not to be followed.
 */
export function openContainer(
  path: string,
  kind: ContainerKind,
  options: ReadOptions,
  limits: ContainerLimits = {},
): Container {
  const { sections, digest, body } = reading(path, kind, () =>
    withFile(path, options, (fd, size) =>
      check(path, kind, fd, size, limits.fileBytes ?? DEFAULT_FILE_BYTES),
    ),
  );
  const read = <T>(use: (stream: Iterable<Uint8Array>) => T): T =>
    withFile(path, options, (fd) => {
      const checked = rereading(fd, body, digest);
      const result = use(
        unpackBlocks(checked.body, limits.rawBytes === undefined ? {} : { rawBytes: limits.rawBytes }),
      );
      if (!checked.holds()) throw kind.altered(path, "it changed while it was read");
      return result;
    });
  return {
    path,
    sections,
    digest,
    loadInto: (sink) => reading(path, kind, () => read((stream) => decodeStream(stream, sink))),
    streamDigest: () => reading(path, kind, () => read(digestOfAll)),
  };
}

function digestOfAll(stream: Iterable<Uint8Array>): Digest {
  const hash = digestStream();
  for (const piece of stream) hash.update(piece);
  return hash.end();
}

/**
 * The sections at the front of a container, in the time that they take to read. Nothing vouches for them but what the
 * caller holds them against: the digest at the end covers the whole file, which is not read.
 */
export function readHead(
  path: string,
  kind: ContainerKind,
  options: ReadOptions,
): Pick<Container, "path" | "sections"> {
  return reading(path, kind, () =>
    withFile(path, options, (fd, size) => {
      requireMagic(path, kind, fd);
      return { path, sections: readSections(path, kind, fd, size - DIGEST_BYTES).sections };
    }),
  );
}

function* contentOf(
  kind: ContainerKind,
  sections: readonly Uint8Array[],
  source: ChangeSource,
): Iterable<Uint8Array> {
  yield Buffer.from(kind.magic, "latin1");
  for (const [i, section] of sections.entries()) {
    const most = kind.sectionBytes[i] ?? 0;
    if (section.length > most) throw tooLong(kind, section.length, most);
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt32BE(section.length);
    yield length;
    yield section;
  }
  yield* isPacking(source) ? source.packed().blocks() : packBlocks(encodeStream(source));
}

interface Checked {
  readonly sections: readonly Uint8Array[];
  readonly digest: Digest;
  /** First and last (exclusive) position of the blocks. */
  readonly body: { readonly start: number; readonly end: number };
}

function check(path: string, kind: ContainerKind, fd: number, size: number, mostBytes: number): Checked {
  requireMagic(path, kind, fd);
  if (size > mostBytes) throw kind.altered(path, `it has ${size} bytes, at most ${mostBytes} are read`);
  const end = size - DIGEST_BYTES;
  if (end < kind.magic.length) throw kind.altered(path, `it ends after ${size} bytes`);
  const expected = Buffer.from(readAt(fd, end, DIGEST_BYTES)).toString("hex");
  const found = digestUpTo(fd, end);
  if (found !== expected)
    throw kind.altered(
      path,
      `its bytes have the digest sha256:${found}, at its end stands sha256:${expected}`,
    );
  const { sections, next } = readSections(path, kind, fd, end);
  return { sections, digest: `sha256:${expected}`, body: { start: next, end } };
}

/**
 * One altered byte in the first line must read as an altered file, not as an unknown one: the file is taken for
 * what most of its first line says.
 */
function requireMagic(path: string, kind: ContainerKind, fd: number): void {
  const magic = Buffer.from(kind.magic, "latin1");
  const found = readAt(fd, 0, magic.length);
  const same = found.reduce((n, byte, i) => n + (byte === magic[i] ? 1 : 0), 0);
  if (same === magic.length) return;
  const first = JSON.stringify(Buffer.from(found).toString("latin1"));
  const why = `expected to begin with ${JSON.stringify(kind.magic)}, found ${first}`;
  throw same >= Math.ceil(found.length / 2) && found.length > 0
    ? kind.altered(path, why)
    : kind.unknown(path, why);
}

function readSections(
  path: string,
  kind: ContainerKind,
  fd: number,
  end: number,
): { readonly sections: readonly Uint8Array[]; readonly next: number } {
  const sections: Uint8Array[] = [];
  let at = kind.magic.length;
  for (const most of kind.sectionBytes) {
    if (at + LENGTH_BYTES > end) throw kind.altered(path, `it ends inside section ${sections.length + 1}`);
    const length = Buffer.from(readAt(fd, at, LENGTH_BYTES)).readUInt32BE();
    at += LENGTH_BYTES;
    if (length > most || at + length > end) {
      throw kind.altered(
        path,
        `section ${sections.length + 1} declares ${length} bytes, at most ${Math.min(most, end - at)} can follow`,
      );
    }
    sections.push(readAt(fd, at, length));
    at += length;
  }
  return { sections, next: at };
}

/** The blocks once more, with every byte of the file under the digest that was checked before. */
function rereading(
  fd: number,
  body: Checked["body"],
  digest: Digest,
): { readonly body: Iterable<Uint8Array>; readonly holds: () => boolean } {
  const hash = createHash("sha256");
  let found: string | undefined;
  function* blocks(): Iterable<Uint8Array> {
    update(hash, readRange(fd, 0, body.start));
    for (const piece of readRange(fd, body.start, body.end)) {
      hash.update(piece);
      yield piece;
    }
    found = `sha256:${hash.digest("hex")}`;
  }
  return { body: blocks(), holds: () => found === digest };
}

function digestUpTo(fd: number, end: number): string {
  const hash = createHash("sha256");
  update(hash, readRange(fd, 0, end));
  return hash.digest("hex");
}

function update(hash: Hash, pieces: Iterable<Uint8Array>): void {
  for (const piece of pieces) hash.update(piece);
}

/** Errors of the system and of the content, in the words of the file. What is already worded passes. */
function reading<T>(path: string, kind: ContainerKind, work: () => T): T {
  try {
    return work();
  } catch (e) {
    if (e instanceof IntegrityError && e.code === "ERR_CHANGESET_ALTERED")
      throw kind.altered(path, e.why ?? e.message, e);
    if (e instanceof HoldpointError) throw e;
    switch (codeOf(e)) {
      case "ENOENT":
      case "ENOTDIR":
        throw kind.unknown(path, "there is no such file", e);
      case "EINVAL":
      case "EISDIR":
      case "ENXIO":
        throw kind.unknown(path, "it is not a plain file", e);
      case "ELOOP":
        throw kind.altered(path, "a symbolic link stands in its place", e);
      case undefined:
        throw e;
    }
    throw storageFailure("read", path, e);
  }
}

function tooLong(kind: ContainerKind, length: number, most: number): HoldpointError {
  return new HoldpointError({
    code: "ERR_INTERNAL",
    message: `a section of ${length} bytes does not fit into ${kind.magic.trim()}`,
    why: `at most ${most} bytes could be read back`,
  });
}
