/** SHA-256 digests, always written `sha256:` and 64 lower-case hexadecimal digits. */
import { createHash, type Hash } from "node:crypto";

/** `sha256:` followed by 64 lower-case hexadecimal digits. */
export type Digest = `sha256:${string}`;

/** The digest of the given bytes (text is taken as UTF-8). */
export function digestOf(data: string | Uint8Array): Digest {
  return `sha256:${createHash("sha256").update(data).digest("hex")}`;
}

/** A digest over many parts, without holding them. */
export function digestStream(): {
  readonly update: (data: string | Uint8Array) => void;
  readonly end: () => Digest;
} {
  const hash: Hash = createHash("sha256");
  return {
    update: (data) => void hash.update(data),
    end: () => `sha256:${hash.digest("hex")}`,
  };
}

/** Whether `text` is written as a digest. */
export function isDigest(text: string): text is Digest {
  return /^sha256:[0-9a-f]{64}$/.test(text);
}

/** First and last digits, for people: `4be1…90c7`. Never compared. */
export function shortDigest(digest: Digest): string {
  return `${digest.slice(7, 11)}…${digest.slice(-4)}`;
}
