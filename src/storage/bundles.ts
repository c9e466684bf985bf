/**
 * Trust bundles that were pinned or signed for, by digest, so that a refusal can say what differs. Nothing is
 * believed because it lies here: what is read must have the digest it is asked for by.
 */
import { join } from "node:path";
import { type Digest, digestOf } from "../base/digest.js";
import { codeOf, IntegrityError } from "../base/errors.js";
import { readAt, withFile, writeWhole } from "./files.js";
import { plainFileAt, storageFailure } from "./sqlite.js";
import type { Store } from "./store.js";

/** Kept bundles, as their canonical bytes. */
export interface Bundles {
  /** @throws IntegrityError ERR_TRUST_BUNDLE for bytes of another digest. */
  readonly keep: (digest: Digest, bytes: Uint8Array) => Promise<void>;
  /** The bytes, or null when none are kept. @throws IntegrityError ERR_TRUST_BUNDLE when they are others. */
  readonly find: (digest: Digest) => Promise<Uint8Array | null>;
}

/** The bundles in an open store. */
export function openBundles(store: Pick<Store, "bundles">): Bundles {
  const pathOf = (digest: Digest): string => join(store.bundles, `${digest.slice("sha256:".length)}.json`);
  return {
    keep: async (digest, bytes) => {
      requireDigest(pathOf(digest), digest, bytes);
      if (!plainFileAt(pathOf(digest))) writeWhole(pathOf(digest), [bytes], "replace");
    },
    find: async (digest) => {
      const bytes = bytesAt(pathOf(digest));
      if (bytes !== null) requireDigest(pathOf(digest), digest, bytes);
      return bytes;
    },
  };
}

function bytesAt(path: string): Uint8Array | null {
  try {
    return withFile(path, { followLinks: false }, (fd, size) => readAt(fd, 0, size));
  } catch (e) {
    if (codeOf(e) === "ENOENT") return null;
    throw storageFailure("read", path, e);
  }
}

function requireDigest(path: string, digest: Digest, bytes: Uint8Array): void {
  const found = digestOf(bytes);
  if (found === digest) return;
  throw new IntegrityError({
    code: "ERR_TRUST_BUNDLE",
    message: `${path} is not the trust bundle it is named after`,
    why: `expected ${digest}, found ${found}`,
    next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
  });
}
