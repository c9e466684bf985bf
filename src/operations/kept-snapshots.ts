/** Snapshots that are there: listed, read back, compared, restored to another place. */
import { IntegrityError, RefusedError, UsageError } from "../base/errors.js";
import { digestOfSource } from "../changeset/encode.js";
import type { Summary } from "../changeset/summarise.js";
import type { SnapshotManifest } from "../snapshot/snapshot.js";
import { compareStates, stateNow } from "./merging/compare-states.js";
import { withTarget } from "./judging/examine.js";
import { findSnapshot, openImage, type SnapshotRecord, snapshotRecords } from "./merging/image.js";
import { summaryOf } from "./judging/judge-plan.js";
import type { Toolbox } from "./toolbox.js";
import { neededBy, refusePruned } from "./prune.js";

/** A snapshot as it is listed; the manifest is null when its file cannot be read. */
export interface ListedSnapshot {
  readonly record: SnapshotRecord;
  readonly manifest: SnapshotManifest | null;
  readonly neededBy: readonly string[];
  readonly why: string | null;
  /** False for one that the ledger does not know: nothing may be built on it, and it can be pruned by its id. */
  readonly isRecorded: boolean;
}

/**
 * The snapshots that are still kept, newest first; what a run took for itself only with `all`. Manifests alone are read:
 * whether the rows are whole is what `verify` tells. Last come those that the store has and the ledger does not know.
 */
export async function listSnapshots(tools: Toolbox, on: string | null): Promise<readonly ListedSnapshot[]> {
  const files = new Map((await tools.snapshots.list()).map((f) => [f.id, f.check]));
  const needed = await neededBy(tools);
  const all = await snapshotRecords(tools, null);
  const records = all.filter((r) => !r.pruned && (on === null || r.target === on));
  const known = records.map((record): ListedSnapshot => {
    const check = files.get(record.id);
    const why = faultOf(record, check);
    return {
      record,
      manifest: check?.ok === true && why === null ? check.manifest : null,
      neededBy: needed(record.id),
      why,
      isRecorded: true,
    };
  });
  const ids = new Set(all.map((r) => r.id));
  return [...known.reverse(), ...unrecorded(files, ids, on)];
}

type Files = ReadonlyMap<string, Awaited<ReturnType<Toolbox["snapshots"]["list"]>>[number]["check"]>;

function faultOf(record: SnapshotRecord, check: ReturnType<Files["get"]>): string | null {
  if (check === undefined) return "its file is gone";
  if (!check.ok) return check.why;
  return check.digest === record.manifest
    ? null
    : `expected the manifest ${record.manifest}, found ${check.digest}`;
}

/** What a killed `take` left: whole perhaps, and relied on by nobody. It holds rows, so it is shown and can be pruned. */
function unrecorded(files: Files, known: ReadonlySet<string>, on: string | null): readonly ListedSnapshot[] {
  return [...files].flatMap(([id, check]): ListedSnapshot[] => {
    if (known.has(id) || (on !== null && check.ok && check.manifest.target !== on)) return [];
    const {
      takenAt: at = "",
      target = "",
      plan = null,
      run = null,
      level = "rows",
    } = check.ok ? check.manifest : {};
    const manifest: SnapshotRecord["manifest"] = check.ok ? check.digest : `sha256:${"0".repeat(64)}`;
    const record = { id, manifest, at, target, plan, run, level, pruned: false };
    const why = "the ledger does not know it: its taking was interrupted";
    return [{ record, manifest: null, neededBy: [], why, isRecorded: false }];
  });
}

/** Reads a snapshot whole, against the manifest's digest in the ledger. @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED (36). */
export async function verifySnapshot(
  tools: Toolbox,
  ref: string,
): Promise<{ readonly record: SnapshotRecord; readonly manifest: SnapshotManifest }> {
  const record = await findSnapshot(tools, ref);
  refusePruned(record);
  const check = await tools.snapshots.verify(record.id, record.manifest);
  if (check.ok) return { record, manifest: check.manifest };
  throw new IntegrityError({
    code: "ERR_SNAPSHOT_UNVERIFIED",
    message: `${record.id} is not what was kept on ${record.at}`,
    why: check.why,
    next: [{ actor: "anyone", argv: ["holdpoint", "snapshot", "list", "--on", record.target] }],
  });
}

/** Restores a snapshot to a new file, never over anything. */
export async function restoreSnapshot(tools: Toolbox, ref: string, to: string): Promise<SnapshotManifest> {
  const { record, manifest } = await verifySnapshot(tools, ref);
  return manifest.level === "database"
    ? tools.snapshots.restoreFile(record.id, to, record.manifest)
    : tools.snapshots.restoreRows(record.id, to, record.manifest);
}

/**
 * What a restore over a target would do, as the refusal of it: the same as any destructive job, shown in numbers, and
 * done by none. Merging keeps what a restore would take.
 * @throws RefusedError ERR_SNAPSHOT_PLACE always; IntegrityError ERR_SNAPSHOT_UNVERIFIED for a snapshot that is none.
 */
export async function refuseRestoreOver(tools: Toolbox, ref: string, target: string): Promise<never> {
  const record = await findSnapshot(tools, ref);
  if (record.target !== target)
    throw new UsageError({
      code: "ERR_SNAPSHOT_UNKNOWN",
      message: `${record.id} is a snapshot of ${record.target}, not of ${target}`,
    });
  const { changed } = await diffSnapshots(tools, record.id, null, []);
  const born = changed.tables.reduce((n, t) => n + t.insert, 0);
  const newer = changed.tables.reduce((n, t) => n + t.update, 0);
  const gone = changed.tables.reduce((n, t) => n + t.delete, 0);
  throw new RefusedError({
    code: "ERR_SNAPSHOT_PLACE",
    message: `restoring ${record.id} over ${target} would destroy ${born + newer} newer rows: ${born} born since ${record.at} would be deleted, ${newer} changed since would go back`,
    why: `${gone} rows that are gone would come back, whoever removed them; in ${changed.tables.map((t) => t.name).join(", ") || "no table"}`,
    next: [
      {
        actor: "requester",
        argv: ["holdpoint", "rescue", "--on", target, "--from", record.id],
        text: "merge instead: brings back what was damaged, keeps what was written since",
      },
      {
        actor: "anyone",
        argv: ["holdpoint", "snapshot", "restore", record.id, "--to", "FILE"],
        text: "or look at it in a new file",
      },
    ],
    details: { deleted: born, overwritten: newer, resurrected: gone },
  });
}

/** What changed from a snapshot to another one, or to the target as it is now. */
export interface SnapshotDiff {
  readonly from: SnapshotRecord;
  /** Null for now. */
  readonly to: SnapshotRecord | null;
  readonly changed: Summary;
}

/** Compares a snapshot with another one or with the target. */
export async function diffSnapshots(
  tools: Toolbox,
  from: string,
  to: string | null,
  tables: readonly string[],
): Promise<SnapshotDiff> {
  const a = await verifySnapshot(tools, from);
  const before = await openImage(tools, a.record, a.manifest.level);
  try {
    if (to === null) {
      return await withTarget(tools, a.record.target, async ({ target }) => {
        const now = await stateNow(target);
        return { from: a.record, to: null, changed: await summaryBetween(tools, before, now, tables) };
      });
    }
    const b = await verifySnapshot(tools, to);
    const after = await openImage(tools, b.record, b.manifest.level);
    try {
      const { tables: shapes, rows, changesSince } = after;
      const other = {
        name: b.record.id,
        tables: shapes,
        rows,
        reader: null,
        changesSince,
        atOneMoment: null,
      };
      return { from: a.record, to: b.record, changed: await summaryBetween(tools, before, other, tables) };
    } finally {
      await after.close();
    }
  } finally {
    await before.close();
  }
}

async function summaryBetween(
  tools: Toolbox,
  before: Awaited<ReturnType<typeof openImage>>,
  other: Parameters<typeof compareStates>[2],
  tables: readonly string[],
): Promise<Summary> {
  const { changes } = await compareStates(tools, before, other, tables);
  try {
    return summaryOf(changes, digestOfSource(changes).digest);
  } finally {
    changes.close();
  }
}
