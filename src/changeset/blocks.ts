/**
 * A stream as it is stored and sent: compressed in blocks, every block and the whole under a digest.
 * Format page: `docs/formats/changeset.md`, "Blocks".
 *
 * ```
 * file  = 12 "holdpoint-blocks/1" block* end
 * block = codec(1) raw-length(4) stored-length(4) sha256(32, of the 9 bytes before and the stored bytes) stored
 * end   = ff total-raw-length(8) sha256(32, of all raw bytes)
 * ```
 *
 * A reader holds one block at a time. A block decompresses into no more than it declares and never more
 * than {@link BLOCK_BYTES}, so a bomb costs its author more than us.
 */
import { createHash } from "node:crypto";
import { brotliCompressSync, brotliDecompressSync, constants, type BrotliOptions } from "node:zlib";
import { sameBytes } from "./value.js";
import { altered } from "./wire.js";

/** First bytes of every file: the format and its version, with its length before it. */
export const BLOCKS_FORMAT = "holdpoint-blocks/1";
/** Raw bytes of a full block; a larger one is refused. */
export const BLOCK_BYTES = 256 * 1024;

/** How blocks are compressed; a block that does not get shorter is stored as it is. */
export type Codec = "none" | "brotli";

const CODEC_TAG: Readonly<Record<Codec, number>> = { none: 0x00, brotli: 0x01 };
const END_TAG = 0xff;
const HEADER_BYTES = 9;
const DIGEST_BYTES = 32;
const END_BYTES = 1 + 8 + DIGEST_BYTES;

/** What a reader of blocks accepts. */
export interface UnpackLimits {
  /** Raw bytes of the whole; the default is 64 GiB. */
  readonly rawBytes?: number;
}

const DEFAULT_RAW_BYTES = 64 * 1024 ** 3;

/**
 * The bytes of `chunks` in blocks. Raw blocks do not depend on how the chunks are cut.
 * Law: `unpackBlocks(packBlocks(c))` has the bytes of `c`.
 */
export function* packBlocks(
  chunks: Iterable<Uint8Array>,
  options: { readonly codec?: Codec } = {},
): Iterable<Uint8Array> {
  const pieces: Uint8Array[] = [];
  const packer = new BlockPacker((piece) => pieces.push(piece), options.codec);
  for (const chunk of chunks) {
    packer.push(chunk);
    yield* pieces.splice(0);
  }
  packer.end();
  yield* pieces.splice(0);
}

/** {@link packBlocks} for whoever has the chunks passing anyway: gives each piece away as soon as it is whole. */
export class BlockPacker {
  readonly #emit: (piece: Uint8Array) => void;
  readonly #codec: Codec;
  readonly #whole = createHash("sha256");
  #total = 0;
  #block = Buffer.allocUnsafe(BLOCK_BYTES);
  #used = 0;

  constructor(emit: (piece: Uint8Array) => void, codec: Codec = "brotli") {
    this.#emit = emit;
    this.#codec = codec;
    emit(formatBytes());
  }

  /** Blocks are of exactly {@link BLOCK_BYTES}, the last one shorter, however the chunks are cut. */
  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length;) {
      const part = chunk.subarray(at, at + BLOCK_BYTES - this.#used);
      this.#block.set(part, this.#used);
      this.#used += part.length;
      at += part.length;
      if (this.#used === BLOCK_BYTES) this.#giveAway();
    }
  }

  end(): void {
    if (this.#used > 0) this.#giveAway();
    const end = Buffer.alloc(1 + 8);
    end[0] = END_TAG;
    end.writeBigUInt64BE(BigInt(this.#total), 1);
    this.#emit(Buffer.concat([end, this.#whole.digest()]));
  }

  #giveAway(): void {
    const raw = this.#block.subarray(0, this.#used);
    this.#whole.update(raw);
    this.#total += raw.length;
    this.#emit(packBlock(raw, this.#codec));
    this.#used = 0;
  }
}

/**
 * The raw bytes, block by block, each checked before it is handed on; the whole is only proven once the
 * iteration has ended without an error.
 * Law: any altered, missing or extra byte is refused.
 * @throws IntegrityError ERR_CHANGESET_ALTERED.
 */
export function* unpackBlocks(chunks: Iterable<Uint8Array>, limits: UnpackLimits = {}): Iterable<Uint8Array> {
  const most = limits.rawBytes ?? DEFAULT_RAW_BYTES;
  const input = new ByteQueue(chunks);
  const whole = createHash("sha256");
  let total = 0;
  try {
    if (!sameBytes(input.take(BLOCKS_FORMAT.length + 1), formatBytes()))
      throw altered(`it is not ${BLOCKS_FORMAT}`);
    for (let tag = input.peek(); tag !== END_TAG; tag = input.peek()) {
      const raw = unpackBlock(input);
      total += raw.length;
      if (total > most) throw altered(`more than ${most} bytes after decompression`);
      whole.update(raw);
      yield raw;
    }
    checkEnd(input, total, whole.digest());
  } finally {
    input.close();
  }
}

function formatBytes(): Buffer {
  return Buffer.concat([Buffer.of(BLOCKS_FORMAT.length), Buffer.from(BLOCKS_FORMAT, "latin1")]);
}

function packBlock(raw: Uint8Array, codec: Codec): Buffer {
  const packed = codec === "brotli" ? compress(raw) : raw;
  const shorter = packed.length < raw.length;
  const stored = shorter ? packed : raw;
  const header = Buffer.alloc(HEADER_BYTES);
  header[0] = CODEC_TAG[shorter ? codec : "none"];
  header.writeUInt32BE(raw.length, 1);
  header.writeUInt32BE(stored.length, 5);
  return Buffer.concat([header, blockDigest(header, stored), stored]);
}

function unpackBlock(input: ByteQueue): Uint8Array {
  const head = input.take(HEADER_BYTES + DIGEST_BYTES);
  const header = head.subarray(0, HEADER_BYTES);
  const rawLength = header.readUInt32BE(1);
  const storedLength = header.readUInt32BE(5);
  // Lengths before anything is read by them: the digest only proves what its author wrote.
  if (rawLength === 0 || rawLength > BLOCK_BYTES) throw altered(`a block of ${rawLength} bytes`);
  if (storedLength > rawLength) throw altered(`a block of ${rawLength} bytes stored in ${storedLength}`);
  const stored = input.take(storedLength);
  if (!sameBytes(blockDigest(header, stored), head.subarray(HEADER_BYTES)))
    throw altered("a block is not its digest's");
  return decompress(header.readUInt8(0), stored, rawLength);
}

function checkEnd(input: ByteQueue, total: number, digest: Uint8Array): void {
  const end = input.take(END_BYTES);
  if (end.readBigUInt64BE(1) !== BigInt(total))
    throw altered(`${total} bytes found, ${end.readBigUInt64BE(1)} declared`);
  if (!sameBytes(end.subarray(1 + 8), digest))
    throw altered("the blocks are not those of the whole's digest");
  if (!input.isAtEnd()) throw altered("bytes follow the end");
}

function blockDigest(header: Uint8Array, stored: Uint8Array): Buffer {
  return createHash("sha256").update(header).update(stored).digest();
}

/** Quality 1: 190 to 240 MB/s at a third of the size; higher qualities cost four times as much (measured). */
function compress(raw: Uint8Array): Uint8Array {
  return brotliCompressSync(raw, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: 1,
      [constants.BROTLI_PARAM_LGWIN]: 18, // the window is one block
      [constants.BROTLI_PARAM_SIZE_HINT]: raw.length,
    },
  });
}

function decompress(tag: number, stored: Uint8Array, rawLength: number): Uint8Array {
  switch (tag) {
    case CODEC_TAG.none:
      if (stored.length !== rawLength) throw altered("an uncompressed block of another length than its own");
      return stored;
    case CODEC_TAG.brotli: {
      if (stored.length === rawLength) throw altered("a compressed block that is not shorter");
      const raw = inflate(stored, rawLength);
      if (raw.length !== rawLength)
        throw altered(`a block of ${raw.length} bytes that declares ${rawLength}`);
      return raw;
    }
    default:
      throw altered(`${tag} is no codec`);
  }
}

function inflate(stored: Uint8Array, rawLength: number): Uint8Array {
  let read: Inflated;
  try {
    // With `info` node:zlib returns the engine too, which its types do not say.
    const options: BrotliOptions & { readonly info: true } = { maxOutputLength: rawLength, info: true };
    read = brotliDecompressSync(stored, options) as unknown as Inflated;
  } catch (cause) {
    throw altered(`a block does not decompress into ${rawLength} bytes`, cause);
  }
  // Brotli knows its own end and would ignore what follows: bytes that say nothing are refused too.
  if (read.engine.bytesWritten !== stored.length) throw altered("bytes follow a block's compressed content");
  return read.buffer;
}

interface Inflated {
  readonly buffer: Uint8Array;
  /** `bytesWritten`: how many stored bytes were used. */
  readonly engine: { readonly bytesWritten: number };
}

/** Takes exact lengths from chunks of any length. */
class ByteQueue {
  readonly #chunks: Iterator<Uint8Array>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(chunks: Iterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.iterator]();
  }

  /** Exactly so many bytes. @throws IntegrityError ERR_CHANGESET_ALTERED when there are fewer. */
  take(length: number): Buffer {
    if (!this.#fill(length)) throw altered("it ends early");
    const bytes = this.#rest.subarray(0, length);
    this.#rest = this.#rest.subarray(length);
    return bytes;
  }

  peek(): number {
    if (!this.#fill(1)) throw altered("it ends early");
    return this.#rest.readUInt8(0);
  }

  isAtEnd(): boolean {
    return !this.#fill(1);
  }

  close(): void {
    this.#chunks.return?.();
  }

  #fill(length: number): boolean {
    if (this.#rest.length >= length) return true;
    const parts: Uint8Array[] = [this.#rest];
    let found = this.#rest.length;
    while (found < length) {
      const next = this.#chunks.next();
      if (next.done === true) return false;
      parts.push(next.value);
      found += next.value.length;
    }
    this.#rest = Buffer.concat(parts);
    return true;
  }
}
