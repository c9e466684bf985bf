/**
 * The marker: holdpoint's own small tables in the target (`holdpoint_*`). `env pin` makes them, or SQL
 * that a DBA runs; plan and apply never create them, and no ChangeSet ever contains them.
 */
import type { Digest } from "../base/digest.js";
import type { Environment } from "../environment/evidence.js";

/** Its tables, whatever the engine. */
export const MARKER_TABLES = [
  "holdpoint_marker",
  "holdpoint_spent",
  "holdpoint_ledgers",
  "holdpoint_batches",
  "holdpoint_notes",
] as const;

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
  /** The ledger that has the run's entries; where machines keep ledgers of their own, only that one can finish it. */
  readonly ledger: string;
  /** The job's name, or `undo` and `rescue`; with {@link SpentMark.by} and rows, what policy asks of earlier runs. */
  readonly job: string;
  /** Who asked for it; null where nobody knows. */
  readonly by: string | null;
  /** Rows of the plan. */
  readonly rows: number;
  /** The commit that the job came from, as its pipeline claims; null where nobody said. */
  readonly commit: string | null;
}

/** A ledger's head as a target keeps it. */
export interface AnchoredHead {
  readonly ledger: string;
  readonly sequence: number;
  readonly head: Digest;
}

/** What the spent marks tell of earlier runs, whoever's ledger has their entries. */
export interface MarkedHistory {
  /** Runs of the job that was asked about. */
  readonly jobRuns: number;
  /** The commit of the newest of them; null where there is none, or it has none. */
  readonly lastCommit: string | null;
  /** When the newest of all runs began to write; null where there was none. */
  readonly lastAt: string | null;
  /** Rows since the time that was asked about, by who asked for them. */
  readonly recent: readonly { readonly by: string | null; readonly rows: number }[];
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
