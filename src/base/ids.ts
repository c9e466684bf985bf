/**
 * Identifiers: a prefix that says what it names and 16 characters of base 32, which is 80 bits.
 * The alphabet is Crockford's in lower case: no i, l, o, u, so ids survive being read aloud.
 */
import type { Digest } from "./digest.js";

const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH = 16;

/** What an id names, by its prefix. */
export type IdPrefix = "pl" | "rn" | "sn" | "lg" | "tk";

/** The id of something that has a digest: the first 80 bits of it. Twin ids need a SHA-256 near-collision. */
export function idFromDigest(prefix: IdPrefix, digest: Digest): string {
  return idFromBytes(prefix, Buffer.from(digest.slice("sha256:".length), "hex"));
}

/** The id from at least ten random bytes. */
export function idFromBytes(prefix: IdPrefix, bytes: Uint8Array): string {
  if (bytes.length < 10) throw new RangeError("an id needs 80 bits");
  let value = 0n;
  for (const byte of bytes.subarray(0, 10)) value = (value << 8n) | BigInt(byte);
  let text = "";
  for (let i = 0; i < LENGTH; i++) {
    text = (ALPHABET[Number(value & 31n)] ?? "") + text;
    value >>= 5n;
  }
  return `${prefix}_${text}`;
}

/** Whether `text` is an id of that kind, or the beginning of one (at least one character after the prefix). */
export function isIdOrPrefix(prefix: IdPrefix, text: string): boolean {
  return new RegExp(`^${prefix}_[${ALPHABET}]{1,${LENGTH}}$`).test(text);
}

/** Whether `text` is a whole id of that kind. */
export function isId(prefix: IdPrefix, text: string): boolean {
  return new RegExp(`^${prefix}_[${ALPHABET}]{${LENGTH}}$`).test(text);
}
