/**
 * The bytes below the ChangeSet stream: whole numbers as minimal LEB128, byte strings with their length
 * before them, values with a type tag. Written in chunks, read from chunks of any size; memory holds one
 * chunk and the longest value. Format page: `docs/formats/changeset.md`.
 */
import { digestStream, type Digest } from "../base/digest.js";
import { IntegrityError, TargetError } from "../base/errors.js";
import { isRawText, type Value } from "./value.js";
import { assertExact, decodeUtf8, type SizeLimits } from "./well-formed.js";

/** How long a chunk gets before it is handed on. */
export const CHUNK_BYTES = 64 * 1024;

/** The type tag before each value. */
export const VALUE_TAG = { null: 0, integer: 1, real: 2, text: 3, rawText: 4, blob: 5 } as const;

/** The one NaN of the format. */
const NAN_BITS = 0x7ff8_0000_0000_0000n;
/** Texts up to here are looked at character by character; their length is one byte. */
const SHORT_TEXT = 64;
/** Longest minimal LEB128 of a safe integer. */
const VARINT_BYTES = 8;

/** Writes into chunks of {@link CHUNK_BYTES}; whoever drives it takes full ones with {@link WireWriter.take}. */
export class WireWriter {
  #chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  /** The chunk once more: numbers are written through it three times as fast as through the buffer (measured). */
  #view = viewOf(this.#chunk);
  #used = 0;
  #full: Uint8Array[] = [];
  #done = 0;
  readonly #limits: SizeLimits;
  readonly #shortText: number;

  constructor(limits: SizeLimits) {
    this.#limits = limits;
    this.#shortText = Math.min(SHORT_TEXT, limits.valueBytes);
  }

  /** Bytes written so far. */
  get written(): number {
    return this.#done + this.#used;
  }

  /** Whether {@link WireWriter.take} has something. */
  get hasFull(): boolean {
    return this.#full.length > 0;
  }

  /** The chunks that are full, once. */
  take(): readonly Uint8Array[] {
    const full = this.#full;
    this.#full = [];
    return full;
  }

  /** Closes the chunk under way, so that {@link WireWriter.take} has all bytes. */
  flush(): void {
    if (this.#used === 0) return;
    this.#full.push(this.#chunk.subarray(0, this.#used));
    this.#done += this.#used;
    this.#chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
    this.#view = viewOf(this.#chunk);
    this.#used = 0;
  }

  /** One byte. */
  byte(value: number): void {
    this.#room(1);
    this.#chunk[this.#used++] = value;
  }

  /** A whole number from 0 to 2^53 − 1, least significant seven bits first. */
  number(value: number): void {
    this.#room(VARINT_BYTES);
    let rest = value;
    while (rest >= 0x80) {
      this.#chunk[this.#used++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#chunk[this.#used++] = rest;
  }

  /** Bytes as they are, without a length. */
  raw(bytes: Uint8Array): void {
    if (bytes.length > CHUNK_BYTES / 2) {
      this.#large(bytes);
      return;
    }
    this.#room(bytes.length);
    this.#chunk.set(bytes, this.#used);
    this.#used += bytes.length;
  }

  /** A name: its length in bytes, its UTF-8. @throws TargetError ERR_TARGET_VALUE when it is too long. */
  name(text: string): void {
    assertExact(text);
    const length = Buffer.byteLength(text, "utf8");
    if (length > this.#limits.nameBytes) throw tooLarge("a name", length, this.#limits.nameBytes);
    this.#text(text, length);
  }

  /** A value: its tag, then its content. @throws TargetError ERR_TARGET_VALUE when it is inexact or too long. */
  value(v: Value): void {
    if (typeof v === "string" && v.length <= this.#shortText && this.#asciiValue(v)) return;
    assertExact(v);
    if (v === null) this.byte(VALUE_TAG.null);
    else if (typeof v === "bigint") this.#integer(v);
    else if (typeof v === "number") this.#real(v);
    else if (typeof v === "string") this.#textValue(v);
    else if (isRawText(v)) this.#bytesValue(VALUE_TAG.rawText, v.bytes);
    else this.#bytesValue(VALUE_TAG.blob, v);
  }

  #integer(v: bigint): void {
    this.#room(9);
    this.#chunk[this.#used] = VALUE_TAG.integer;
    this.#view.setBigInt64(this.#used + 1, v);
    this.#used += 9;
  }

  #real(v: number): void {
    this.#room(9);
    this.#chunk[this.#used] = VALUE_TAG.real;
    if (Number.isNaN(v)) this.#chunk.writeBigUInt64BE(NAN_BITS, this.#used + 1);
    else this.#chunk.writeDoubleBE(v, this.#used + 1);
    this.#used += 9;
  }

  /** A short text of ASCII, which is exact: as many bytes as characters. False, and nothing written, for any other. */
  #asciiValue(v: string): boolean {
    const { length } = v;
    this.#room(2 + length);
    const [chunk, start] = [this.#chunk, this.#used + 2];
    for (let i = 0; i < length; i++) {
      const unit = v.charCodeAt(i);
      if (unit >= 0x80) return false;
      chunk[start + i] = unit;
    }
    chunk[this.#used] = VALUE_TAG.text;
    chunk[this.#used + 1] = length;
    this.#used = start + length;
    return true;
  }

  #textValue(v: string): void {
    const length = Buffer.byteLength(v, "utf8");
    if (length > this.#limits.valueBytes) throw tooLarge("a text", length, this.#limits.valueBytes);
    this.byte(VALUE_TAG.text);
    this.#text(v, length);
  }

  #bytesValue(tag: number, bytes: Uint8Array): void {
    if (bytes.length > this.#limits.valueBytes)
      throw tooLarge("a value", bytes.length, this.#limits.valueBytes);
    this.byte(tag);
    this.number(bytes.length);
    this.raw(bytes);
  }

  #text(text: string, length: number): void {
    this.number(length);
    if (length > CHUNK_BYTES / 2) {
      this.#large(Buffer.from(text, "utf8"));
      return;
    }
    this.#room(length);
    this.#chunk.write(text, this.#used, length, "utf8");
    this.#used += length;
  }

  /** Long content is handed on in place, not copied. */
  #large(bytes: Uint8Array): void {
    this.flush();
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      this.#full.push(bytes.subarray(at, at + CHUNK_BYTES));
    }
    this.#done += bytes.length;
  }

  #room(bytes: number): void {
    if (this.#used + bytes > CHUNK_BYTES) this.flush();
  }
}

/**
 * Reads what {@link WireWriter} writes, and only that: a second spelling of anything is refused. Every
 * byte it takes from the chunks goes into the digest.
 */
export class WireReader {
  readonly #chunks: Iterator<Uint8Array>;
  readonly #limits: SizeLimits;
  readonly #hash = digestStream();
  #buffer: Buffer = Buffer.alloc(0);
  #at = 0;
  /** Offset of `#buffer` in the stream. */
  #base = 0;

  constructor(chunks: Iterable<Uint8Array>, limits: SizeLimits) {
    this.#chunks = chunks[Symbol.iterator]();
    this.#limits = limits;
  }

  /** Bytes read so far. */
  get position(): number {
    return this.#base + this.#at;
  }

  /** Lets go of the chunks; call it in `finally`. */
  close(): void {
    this.#chunks.return?.();
  }

  /** The digest of all bytes. @throws IntegrityError ERR_CHANGESET_ALTERED when there are more. */
  end(): Digest {
    if (this.#at < this.#buffer.length || this.#more(1)) throw this.fault("bytes follow its end");
    return this.#hash.end();
  }

  /** One byte. */
  byte(): number {
    this.#need(1);
    const value = this.#buffer[this.#at];
    if (value === undefined) throw this.fault("it ends early");
    this.#at++;
    return value;
  }

  /** A whole number of at most `most`; `what` names it when it is larger. */
  number(what: string, most: number = Number.MAX_SAFE_INTEGER): number {
    let value = 0;
    let factor = 1;
    for (let i = 0; i < VARINT_BYTES; i++) {
      const byte = this.byte();
      value += (byte & 0x7f) * factor;
      factor *= 0x80;
      if (byte >= 0x80) continue;
      if (byte === 0 && i > 0) throw this.fault(`${what} is a number with needless bytes`);
      if (value > most) throw this.fault(`${what} is ${value}, over the limit of ${most}`);
      return value;
    }
    throw this.fault(`${what} is a number of more than 53 bits`);
  }

  /** So many bytes; the result is only good until the next read. */
  raw(length: number): Buffer {
    this.#need(length);
    const bytes = this.#buffer.subarray(this.#at, this.#at + length);
    this.#at += length;
    return bytes;
  }

  /** A name of valid UTF-8. */
  name(what: string): string {
    const text = decodeUtf8(this.raw(this.number(`the length of ${what}`, this.#limits.nameBytes)));
    if (text === undefined) throw this.fault(`${what} is not UTF-8`);
    return text;
  }

  /** A value in the one form that {@link WireWriter.value} gives it. */
  value(): Value {
    const tag = this.byte();
    switch (tag) {
      case VALUE_TAG.null:
        return null;
      case VALUE_TAG.integer:
        return this.#integer();
      case VALUE_TAG.real:
        return this.#real();
      case VALUE_TAG.text:
        return this.#textValue();
      case VALUE_TAG.rawText:
        return { kind: "raw-text", bytes: this.#rawTextBytes() };
      case VALUE_TAG.blob:
        return Uint8Array.from(this.#content());
      default:
        throw this.fault(`${tag} is no type of value`);
    }
  }

  /** The refusal, with the place. */
  fault(what: string): IntegrityError {
    return altered(`byte ${this.position}: ${what}`);
  }

  #integer(): bigint {
    this.#need(8);
    const value = this.#buffer.readBigInt64BE(this.#at);
    this.#at += 8;
    return value;
  }

  #real(): number {
    this.#need(8);
    const value = this.#buffer.readDoubleBE(this.#at);
    const bits = Number.isNaN(value) ? this.#buffer.readBigUInt64BE(this.#at) : NAN_BITS;
    if (bits !== NAN_BITS) throw this.fault("a second spelling of NaN");
    this.#at += 8;
    return value;
  }

  #textValue(): string {
    const length = this.number("the length of a value", this.#limits.valueBytes);
    this.#need(length);
    const [start, end] = [this.#at, this.#at + length];
    this.#at = end;
    const quick = this.#buffer.toString("utf8", start, end);
    const text = quick.includes("\uFFFD") ? decodeUtf8(this.#buffer.subarray(start, end)) : quick;
    if (text === undefined) throw this.fault("a text is not UTF-8");
    return text;
  }

  #rawTextBytes(): Uint8Array {
    const bytes = Uint8Array.from(this.#content());
    if (decodeUtf8(bytes) !== undefined)
      throw this.fault("raw text that is UTF-8 is a second spelling of text");
    return bytes;
  }

  #content(): Buffer {
    return this.raw(this.number("the length of a value", this.#limits.valueBytes));
  }

  #need(bytes: number): void {
    const missing = bytes - (this.#buffer.length - this.#at);
    if (missing > 0 && !this.#more(missing)) throw this.fault("it ends early");
  }

  /** Takes chunks until there are `missing` more bytes; false when the stream ends before. */
  #more(missing: number): boolean {
    const parts: Uint8Array[] = [this.#buffer.subarray(this.#at)];
    let found = 0;
    while (found < missing) {
      const next = this.#chunks.next();
      if (next.done === true) break;
      this.#hash.update(next.value);
      parts.push(next.value);
      found += next.value.length;
    }
    this.#base += this.#at;
    this.#at = 0;
    this.#buffer = Buffer.concat(parts);
    return found >= missing;
  }
}

/** Bytes that are not the canonical form of any ChangeSet. */
export function altered(what: string, cause?: unknown): IntegrityError {
  return new IntegrityError({
    code: "ERR_CHANGESET_ALTERED",
    message: "the ChangeSet's bytes were altered or cut",
    why: what,
    next: [
      {
        actor: "anyone",
        text: "Get the file again from whoever made it; nothing in this one can be trusted.",
      },
    ],
    ...(cause === undefined ? {} : { cause }),
  });
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function tooLarge(what: string, bytes: number, most: number): TargetError {
  return new TargetError({
    code: "ERR_TARGET_VALUE",
    message: `${what} of ${bytes} bytes is over the limit of ${most}`,
    why: "a plan that could not be read back is not made",
  });
}
