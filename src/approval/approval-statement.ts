/**
 * The approval's statement: what an approver signs about one plan. Its canonical bytes are lines of
 * readable text, so that what `ssh-keygen -Y sign` signs on another machine can be read there first.
 * Format page: `docs/formats/token.md`.
 */
import type { Digest } from "../base/digest.js";

/** Format version 1. Every field is a line; the order of the lines is the order here. */
export interface ApprovalStatement {
  readonly format: "holdpoint-approval/1";
  /** `approve`, or `break-glass` which waives the quorum and nothing else. */
  readonly act: "approve" | "break-glass";
  readonly plan: string;
  readonly planDigest: Digest;
  readonly target: string;
  /** What the approver was shown: the environment whose rules apply, in words. */
  readonly environment: string;
  readonly identity: string;
  readonly inserts: number;
  readonly updates: number;
  readonly deletes: number;
  readonly tables: number;
  readonly approver: string;
  readonly issuedAt: string;
  /** Apply must begin before this. */
  readonly expiresAt: string;
  /** At least 128 random bits in hexadecimal; spent once. */
  readonly nonce: string;
  /** The ledger head the approver saw, or `none`. */
  readonly ledgerHead: string;
  /** How it was reviewed: `in-tool 1m52s`, or `elsewhere` for a signature made outside. */
  readonly reviewed: string;
  /** Until when one clean undo of the whole run is covered, counted from the run's end; `no` or a duration. */
  readonly coverUndo: string;
  /** `-` when none was given. One line, no control characters. */
  readonly reason: string;
}

/** A statement with its signature, as it travels: `hpa1.<base64url statement>.<base64url SSHSIG blob>`. */
export interface Token {
  readonly text: string;
  readonly statement: ApprovalStatement;
  /** The exact bytes that were signed. */
  readonly bytes: Uint8Array;
  /** The SSHSIG blob. */
  readonly signature: Uint8Array;
}
