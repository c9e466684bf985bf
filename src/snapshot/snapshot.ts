/** What is kept before a change, and the proof that it can be read back. Format page: `docs/formats/snapshot.md`. */
import type { Digest } from "../base/digest.js";
import type { ChangeSource, TableShape } from "../changeset/change.js";

/** What a snapshot says of itself; its digest stands in the ledger. */
export interface SnapshotManifest {
  readonly format: "holdpoint-snapshot/1";
  readonly id: string;
  readonly level: "rows" | "tables" | "database";
  readonly target: string;
  readonly identity: string;
  /** The plan and run it was taken for; null when taken by hand. */
  readonly plan: string | null;
  readonly run: string | null;
  readonly takenAt: string;
  readonly tables: readonly TableShape[];
  readonly rows: number;
  /** Digest of the content's canonical stream. */
  readonly content: Digest;
}

/** A snapshot of rows: before-images as deletions-to-be, so that a plain reader of ChangeSets reads it. */
export interface RowSnapshot {
  readonly manifest: SnapshotManifest;
  readonly source: ChangeSource;
}
