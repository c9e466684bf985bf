/**
 * `ledger.head`: the ledger's head once more, beside the database. It catches what a chain by itself cannot
 * show: a ledger that lost its tail, or that an older copy replaced, while the sidecar stayed. It is always
 * written under the ledger's write lock and never runs ahead of it, so it is an anchor that must be in the chain.
 */
import { canonicalBytes, parseCanonical } from "../base/canonical.js";
import { count, decode, digest, id, literal, object, toJson } from "../base/decode.js";
import { codeOf, IntegrityError } from "../base/errors.js";
import type { Anchor } from "../ledger/entry.js";
import { readAt, withFile, writeWhole } from "./files.js";
import { storageFailure } from "./sqlite.js";

const MAX_BYTES = 4096;
const headDecoder = object({
  format: literal("holdpoint-ledger-head/1"),
  ledger: id("lg"),
  sequence: count,
  head: digest,
});

/**
 * The head that the sidecar names, as an anchor; null when there is no sidecar.
 * @throws IntegrityError ERR_LEDGER_BROKEN when it cannot be read as one.
 */
export function readHeadFile(path: string): Anchor | null {
  const text = textAt(path);
  if (text === null) return null;
  const value = parseCanonical(text);
  const decoded = value === undefined ? undefined : decode(headDecoder, value);
  if (decoded?.ok !== true) throw unreadable(path, decoded?.why ?? "it is not canonical JSON");
  const { ledger, sequence, head } = decoded.value;
  return { ledger, sequence, head, where: path };
}

/** Writes the sidecar; the caller holds the ledger's write lock. */
export function writeHeadFile(path: string, head: Omit<Anchor, "where">): void {
  const { ledger, sequence } = head;
  const value = { format: "holdpoint-ledger-head/1", ledger, sequence, head: head.head };
  writeWhole(path, [canonicalBytes(toJson(value))], "replace");
}

function textAt(path: string): string | null {
  try {
    return withFile(path, { followLinks: false }, (fd) =>
      Buffer.from(readAt(fd, 0, MAX_BYTES)).toString("utf8"),
    );
  } catch (e) {
    if (codeOf(e) === "ENOENT") return null;
    if (codeOf(e) === "ELOOP" || codeOf(e) === "EINVAL") throw unreadable(path, "it is not a plain file");
    throw storageFailure("read", path, e);
  }
}

function unreadable(path: string, why: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_LEDGER_BROKEN",
    message: `${path} does not name the ledger's head`,
    why: `expected format holdpoint-ledger-head/1: ${why}`,
    next: [{ actor: "anyone", argv: ["holdpoint", "log", "verify"] }],
  });
}
