/** Rows that cannot be taken back without a decision, and the decisions about them: for undo and rescue alike. */
import { digestOf } from "../../base/digest.js";
import { UsageError } from "../../base/errors.js";
import type { RowKey, TableShape } from "../../changeset/change.js";
import { keyBytes } from "../../changeset/key.js";
import type { CellConflict, ConflictKind } from "../../changeset/merge.js";
import type { Row, Value } from "../../changeset/value.js";
import type { Resolutions } from "../../config/resolutions-file.js";

/** What to do where the same cell was changed since. */
export type OnConflict = "stop" | "keep-now" | "restore-before";

/** One row that needs a person. `undecidable`: nothing tells whether damage or its owner changed it. */
export interface RowConflict {
  /** Names the row with the three images that a person saw, see {@link rowMark}. */
  readonly mark: string;
  readonly table: string;
  readonly shape: TableShape;
  readonly key: RowKey;
  readonly kind: ConflictKind | "undecidable" | "foreign-key" | "constraint";
  readonly columns: readonly CellConflict[];
  readonly before: Row | null;
  readonly wrote: Row | null;
  readonly now: Row | null;
  /** Nobody recorded what the damage wrote: then there is no such image to show. */
  readonly wroteUnknown?: boolean;
  /** The newest run known to have touched the row since; null when none of ours did. */
  readonly changedBy: string | null;
}

/** Conflicts that are held and listed; the count is always exact. */
export const CONFLICTS_LISTED = 10_000;

/**
 * The row's mark: a digest over table, key, kind and its three images. A decision is bound to it, so that it stands
 * only while the row is what the person who decided has seen.
 */
export function rowMark(c: Omit<RowConflict, "mark" | "changedBy">): string {
  const image = (row: Row | null): readonly Value[] => (row === null ? [null] : [BigInt(row.length), ...row]);
  const values = [c.table, c.kind, ...image(c.key), ...image(c.before), ...image(c.wrote), ...image(c.now)];
  return digestOf(keyBytes(values)).slice("sha256:".length, "sha256:".length + 32);
}

/** Decisions about conflicts: one for all, or one for each row from a file. */
export interface Deciding {
  readonly of: (conflict: RowConflict) => OnConflict;
  /**
   * Refuses a file whose decisions do not fit the rows that were met.
   * @throws UsageError ERR_RESOLUTIONS_INVALID for decisions about rows that are not, or no longer, as they were listed.
   */
  readonly finish: () => void;
}

/** Decides from `--on-conflict` and, where given, from a resolutions file. */
export function deciding(onConflict: OnConflict, file: Resolutions | undefined): Deciding {
  if (file === undefined) return { of: () => onConflict, finish: () => undefined };
  const met = new Set<string>();
  return {
    of: (conflict) => {
      const decided = file.decisions.get(conflict.mark);
      if (decided === undefined) return onConflict;
      met.add(conflict.mark);
      if (decided.decide === "restore-before" && !mayRestore(conflict))
        throw cannotRestore(decided.at, conflict);
      return decided.decide;
    },
    finish: () => {
      const stale = [...file.decisions].filter(([mark]) => !met.has(mark));
      const [first] = stale;
      if (first !== undefined) throw staleDecisions(file, stale.length, first[1].at);
    },
  };
}

/** A row is never written over another one: only keeping what is there can be decided about it. */
export function mayRestore(c: Pick<RowConflict, "kind">): boolean {
  return c.kind === "changed" || c.kind === "missing" || c.kind === "undecidable";
}

function cannotRestore(at: string, c: RowConflict): UsageError {
  return new UsageError({
    code: "ERR_RESOLUTIONS_INVALID",
    message: `${at}: this row of ${c.table} cannot be restored`,
    why: "its key belongs to another row now, or the target would not take it: restore-before is not possible; decide keep-now",
  });
}

function staleDecisions(file: Resolutions, stale: number, at: string): UsageError {
  return new UsageError({
    code: "ERR_RESOLUTIONS_INVALID",
    message: `${at}: ${stale} of ${file.decisions.size} rows are no longer as they were listed`,
    why: "a decision stands for the three values that were seen; these rows changed since, or are in no conflict",
    next: [{ actor: "requester", text: "Run it again without the file: a fresh one is written." }],
  });
}
