/** What is kept before a change, and the proof that it can be read back. Format page: `docs/formats/snapshot.md`. */
import type { Digest } from "../base/digest.js";
import type { ChangeSource, TableShape } from "../changeset/change.js";
import type { DumpFacts } from "../target/dump.js";

/** How much is kept: the rows of a plan, whole tables, everything. */
export type SnapshotLevel = "rows" | "tables" | "database";

const LEVELS: readonly SnapshotLevel[] = ["rows", "tables", "database"];

/** The one that keeps more: whoever asks for more gets it, whoever asks for less changes nothing. */
export function highestLevel(a: SnapshotLevel, b: SnapshotLevel): SnapshotLevel {
  return LEVELS.indexOf(a) >= LEVELS.indexOf(b) ? a : b;
}

/** What a snapshot says of itself; its digest stands in the ledger. */
export interface SnapshotManifest {
  readonly format: "holdpoint-snapshot/1";
  readonly id: string;
  readonly level: SnapshotLevel;
  readonly target: string;
  readonly identity: string;
  /** The plan and run it was taken for; null when taken by hand. */
  readonly plan: string | null;
  readonly run: string | null;
  readonly takenAt: string;
  readonly tables: readonly TableShape[];
  readonly rows: number;
  /** Digest of the content: its canonical stream, or, of a database, the whole file. */
  readonly content: Digest;
  /** Level `database`: where the file's pages lie. */
  readonly file?: SnapshotFile;
  /** Level `database`: the file is a dump by the target's own program, and this is what was counted beside it. */
  readonly dump?: DumpFacts;
}

/** What a file that is kept holds, as far as its bytes do not tell it. */
export type FileContent = Pick<SnapshotManifest, "tables" | "rows" | "dump">;

/** A file as chunks: of a database one page each, of a dump 16 KiB. */
export interface SnapshotFile {
  readonly bytes: number;
  readonly chunkBytes: number;
  /** Snapshots whose packs hold the chunks; the snapshot's own is the last. */
  readonly packs: readonly string[];
  /** `[pack, first, count]`, in the order of the file. */
  readonly runs: readonly (readonly number[])[];
}

/** A snapshot of rows: before-images as deletions-to-be, so that a plain reader of ChangeSets reads it. */
export interface RowSnapshot {
  readonly manifest: SnapshotManifest;
  readonly source: ChangeSource;
}
