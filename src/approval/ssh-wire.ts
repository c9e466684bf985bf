/**
 * SSH's binary encoding (RFC 4251 §5), strictly: every length is checked, nothing may be left over, and
 * numbers have one spelling. All of it is parsed from bytes that strangers may have made.
 */

/** Bytes that are not what the format says. Caught by whoever started the parsing; carries the reason. */
export class WireFailure extends Error {
  constructor(why: string) {
    super(why);
    this.name = "WireFailure";
  }
}

/** Reads from the front; every method throws {@link WireFailure} rather than read past the end. */
export class WireReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** How many bytes have been read. */
  get offset(): number {
    return this.#at;
  }

  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  raw(size: number): Buffer {
    if (size > this.#bytes.length - this.#at) throw new WireFailure("the data ends too early");
    const part = this.#bytes.subarray(this.#at, this.#at + size);
    this.#at += size;
    return part;
  }

  byte(): number {
    return this.raw(1).readUInt8();
  }

  uint32(): number {
    return this.raw(4).readUInt32BE();
  }

  uint64(): bigint {
    return this.raw(8).readBigUInt64BE();
  }

  /** A `string`: four bytes of length, then the bytes. */
  string(): Buffer {
    return this.raw(this.uint32());
  }

  /** A `string` of printable ASCII: names of algorithms, namespaces and options. */
  name(): string {
    const bytes = this.string();
    if (!bytes.every((b) => b >= 0x20 && b < 0x7f))
      throw new WireFailure("a name has unprintable characters");
    return bytes.toString("latin1");
  }

  /** A `string` of UTF-8. */
  text(): string {
    const bytes = this.string();
    const text = bytes.toString("utf8");
    if (!Buffer.from(text, "utf8").equals(bytes)) throw new WireFailure("a text is not valid UTF-8");
    return text;
  }

  /** A positive `mpint` as big-endian bytes without leading zeros. Zero, negative and padded ones are refused. */
  positive(): Buffer {
    const bytes = this.string();
    const [first, second] = bytes;
    if (first === undefined) throw new WireFailure("a number is zero");
    if (first >= 0x80) throw new WireFailure("a number is negative");
    if (first !== 0) return bytes;
    if (second === undefined || second < 0x80) throw new WireFailure("a number has needless leading zeros");
    return bytes.subarray(1);
  }

  /** Nothing may follow. */
  end(): void {
    if (!this.done) throw new WireFailure(`${this.#bytes.length - this.#at} bytes too many`);
  }
}

/** A `string`: four bytes of length, then the bytes (text as UTF-8). */
export function wireString(value: string | Uint8Array): Buffer {
  const bytes = typeof value === "string" ? Buffer.from(value, "utf8") : Buffer.from(value);
  return Buffer.concat([wireUint32(bytes.length), bytes]);
}

/** Four bytes, most significant first. */
export function wireUint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
