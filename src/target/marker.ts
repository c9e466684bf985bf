/**
 * The marker: holdpoint's own small tables in the target (`holdpoint_*`). `env pin` makes them, or SQL
 * that a DBA runs; plan and apply never create them, and no ChangeSet ever contains them.
 */
import type { Digest } from "../base/digest.js";
import type { Environment } from "../environment/evidence.js";

/** Every table of ours starts with this; a job that touches one is refused. */
export const MARKER_PREFIX = "holdpoint_";

/** What the target says about itself since it was pinned. */
export interface Marker {
  readonly format: "holdpoint-marker/1";
  /** Random, made at the pin: `<adapter>:<32 hex digits>`. Stands in holdpoint.yaml as `identity`. */
  readonly identity: string;
  readonly name: string;
  readonly environment: Environment;
  /** What the engine could tell about the place at the pin (see the adapter), compared later. */
  readonly place: Readonly<Record<string, string>>;
  readonly bundle: Digest;
  readonly ledger: string;
  readonly ledgerSequence: number;
  readonly ledgerHead: Digest;
  readonly pinnedAt: string;
  /** Who pinned, as typed facts of the machine; shown, never trusted. */
  readonly pinnedBy: string;
}

/** A token that was spent here, for the run that spent it. */
export interface SpentMark {
  readonly plan: string;
  readonly planDigest: Digest;
  readonly run: string;
  /** Nonces of the approvals that were used. */
  readonly nonces: readonly string[];
  readonly at: string;
}

/** How far a run is, written in the same transaction as the rows of the batch. */
export interface BatchMark {
  readonly run: string;
  readonly wave: number;
  readonly batch: number;
  readonly rows: number;
  readonly at: string;
}

/**
 * A fact that is not the requester's to lose: a rejection, revocation, hold or debt, and what closes one. Notes are
 * added, never removed: a review closes a debt, a hold counts until a later `released`, and `exempted` names a plan that
 * may go on under the hold before it.
 */
export interface Note {
  readonly kind: "rejected" | "revoked" | "held" | "released" | "exempted" | "debt" | "reviewed" | "undone";
  /** The plan's digest, an approval's nonce, the run, or the target itself. */
  readonly subject: string;
  readonly at: string;
  readonly by: string;
  readonly reason: string;
}
