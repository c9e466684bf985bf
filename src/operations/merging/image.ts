/** Snapshots as states that can be read: found in the ledger, verified against it, opened row by row. */
import type { Digest } from "../../base/digest.js";
import { isDigest } from "../../base/digest.js";
import { IntegrityError, messageOf, UsageError } from "../../base/errors.js";
import { beforeOf, countOf, type TableShape } from "../../changeset/change.js";
import type { RowStream } from "../../changeset/diff-streams.js";
import type { Row } from "../../changeset/value.js";
import type { SealedEntry } from "../../ledger/entry.js";
import { textFact, textsFact } from "../../ledger/facts.js";
import type { SnapshotManifest } from "../../snapshot/snapshot.js";
import type { Target } from "../../target/target.js";
import type { Toolbox, WorkingChanges } from "../toolbox.js";

/** A snapshot as the ledger knows it. */
export interface SnapshotRecord {
  readonly id: string;
  readonly manifest: Digest;
  readonly at: string;
  readonly target: string;
  readonly plan: string | null;
  readonly run: string | null;
  /** `rows` for what a run kept for itself. */
  readonly level: string;
  /** Its row data was destroyed on purpose. */
  readonly pruned: boolean;
}

/** The snapshots of a target, or of all, oldest first. */
export async function snapshotRecords(
  tools: Toolbox,
  target: string | null,
): Promise<readonly SnapshotRecord[]> {
  const kinds = ["snapshot-taken", "snapshot-pruned"] as const;
  return recordsIn((await tools.ledger()).entries({ kinds }), target);
}

/** The snapshots of a target that no run took for itself, oldest first; quick beside a long history of runs. */
export async function snapshotsByHand(tools: Toolbox, target: string): Promise<readonly SnapshotRecord[]> {
  const kinds = ["snapshot-taken", "snapshot-pruned"] as const;
  return recordsIn((await tools.ledger()).entries({ kinds, run: null }), target);
}

function recordsIn(entries: Iterable<SealedEntry>, target: string | null): readonly SnapshotRecord[] {
  const records = new Map<string, SnapshotRecord>();
  for (const { entry } of entries) {
    if (entry.kind === "snapshot-pruned") {
      for (const id of textsFact(entry, "snapshots")) {
        const known = records.get(id);
        if (known !== undefined) records.set(id, { ...known, pruned: true });
      }
      continue;
    }
    const [id, manifest] = [textFact(entry, "snapshot"), textFact(entry, "manifest")];
    if (id === null || manifest === null || !isDigest(manifest)) continue;
    if (target !== null && entry.target !== target) continue;
    const { at, plan, run } = entry;
    const level = textFact(entry, "level") ?? "rows";
    records.set(id, { id, manifest, at, target: entry.target ?? "", plan, run, level, pruned: false });
  }
  return [...records.values()];
}

/**
 * The one snapshot that `ref` names by its id or a unique beginning.
 * @throws UsageError ERR_SNAPSHOT_UNKNOWN.
 */
export async function findSnapshot(tools: Toolbox, ref: string): Promise<SnapshotRecord> {
  const found = (await snapshotRecords(tools, null)).filter(
    (r) => ref.startsWith("sn_") && r.id.startsWith(ref),
  );
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  throw new UsageError({
    code: "ERR_SNAPSHOT_UNKNOWN",
    message:
      only === undefined
        ? `the ledger knows no snapshot ${ref}`
        : `${ref} is the beginning of ${found.length} snapshots`,
    ...(only === undefined
      ? {}
      : {
          why: found
            .slice(0, 5)
            .map((r) => r.id)
            .join(", "),
        }),
    next: [{ actor: "anyone", argv: ["holdpoint", "snapshot", "list"] }],
  });
}

/** A snapshot that was passed over, and why. */
export interface RejectedSnapshot {
  readonly id: string;
  readonly at: string;
  readonly why: string;
}

/** A snapshot that was read whole and is what the ledger says. */
export interface VerifiedSnapshot {
  readonly record: SnapshotRecord;
  readonly manifest: SnapshotManifest;
  /** Newer ones that are not. */
  readonly rejected: readonly RejectedSnapshot[];
}

/**
 * The snapshot named, or the newest good one of the target that was taken by hand (the rows that one plan was about to
 * change are no state of the target to come back to): read whole before anything else is done with it.
 * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED (36), which names the next good one.
 */
export async function chooseSnapshot(
  tools: Toolbox,
  target: string,
  ref: string | null,
): Promise<VerifiedSnapshot> {
  const newestFirst = [...(await snapshotsByHand(tools, target))].reverse().filter((r) => !r.pruned);
  if (ref !== null) {
    const named = await findSnapshot(tools, ref);
    if (named.target !== target) throw ofOtherTarget(named, target);
    const checked = await verified(tools, named);
    if (typeof checked !== "string") return { record: named, manifest: checked, rejected: [] };
    const others = await firstGood(
      tools,
      newestFirst.filter((r) => r.id !== named.id),
    );
    throw bad(target, [{ id: named.id, at: named.at, why: checked }], others.good?.record.id ?? null);
  }
  const { good, rejected } = await firstGood(tools, newestFirst);
  if (good !== null) return { ...good, rejected };
  throw bad(target, rejected, null);
}

async function firstGood(
  tools: Toolbox,
  records: readonly SnapshotRecord[],
): Promise<{
  readonly good: { readonly record: SnapshotRecord; readonly manifest: SnapshotManifest } | null;
  readonly rejected: readonly RejectedSnapshot[];
}> {
  const rejected: RejectedSnapshot[] = [];
  for (const record of records) {
    const checked = await verified(tools, record);
    if (typeof checked !== "string" && checked.rows > 0)
      return { good: { record, manifest: checked }, rejected };
    const why = typeof checked === "string" ? checked : "it holds no row";
    rejected.push({ id: record.id, at: record.at, why });
    tools.progress.check(`rejected ${record.id}: ${why}`);
  }
  return { good: null, rejected };
}

/** The manifest, or what is wrong with the snapshot. */
async function verified(tools: Toolbox, record: SnapshotRecord): Promise<SnapshotManifest | string> {
  try {
    const check = await tools.snapshots.verify(record.id, record.manifest);
    return check.ok ? check.manifest : check.why;
  } catch (e) {
    return messageOf(e);
  }
}

function bad(target: string, rejected: readonly RejectedSnapshot[], good: string | null): IntegrityError {
  return new IntegrityError({
    code: "ERR_SNAPSHOT_UNVERIFIED",
    message:
      rejected.length === 0
        ? `there is no snapshot of ${target} to start from`
        : `no snapshot of ${target} that was tried can be verified: ${rejected.map((r) => r.id).join(", ")}`,
    why: rejected.map((r) => `${r.id}: ${r.why}`).join("; ") || "none was taken, or all were pruned",
    next:
      good === null
        ? [{ actor: "anyone", argv: ["holdpoint", "snapshot", "list"] }]
        : [
            {
              actor: "requester",
              argv: ["holdpoint", "rescue", "--on", target, "--from", good],
              text: "the newest one that is whole",
            },
          ],
    details: { rejected: rejected.map((r) => ({ snapshot: r.id, why: r.why })), good },
  });
}

function ofOtherTarget(record: SnapshotRecord, target: string): UsageError {
  return new UsageError({
    code: "ERR_SNAPSHOT_UNKNOWN",
    message: `${record.id} is a snapshot of ${record.target}, not of ${target}`,
    next: [{ actor: "anyone", argv: ["holdpoint", "snapshot", "list", "--on", target] }],
  });
}

/** An open snapshot. Close it in `finally`. */
export interface Image {
  readonly manifest: SnapshotManifest;
  readonly tables: readonly TableShape[];
  /** All rows that it holds of a table, in key order. */
  readonly rows: (shape: TableShape) => RowStream;
  /** Where it was put together as a database file of its own; null for rows and tables. */
  readonly file: string | null;
  /** See {@link Target.changesSince}, of the state that it holds; null where it cannot tell. */
  readonly changesSince: Target["changesSince"] | null;
  /** The rows as changes, where it holds rows of one plan alone: then nothing is known about any other row. */
  readonly part: WorkingChanges | null;
  readonly close: () => Promise<void>;
}

/** Opens a snapshot that was verified; a database is put together in a scratch file. */
export async function openImage(
  tools: Toolbox,
  record: SnapshotRecord,
  level: SnapshotManifest["level"],
): Promise<Image> {
  if (level === "database") return openDatabase(tools, record);
  const { manifest, source, close } = await tools.snapshots.open(record.id, record.manifest);
  return {
    manifest,
    tables: manifest.tables,
    rows: (shape) => rowsIn(source, shape),
    file: null,
    changesSince: null,
    part: level === "rows" ? source : null,
    close: () => Promise.resolve(close()),
  };
}

function* rowsIn(source: WorkingChanges, shape: TableShape): Generator<Row, undefined> {
  for (const change of source.changes(shape.name)) {
    const row = beforeOf(change);
    if (row !== null) for (let i = 0; i < countOf(change); i++) yield row;
  }
}

async function openDatabase(tools: Toolbox, record: SnapshotRecord): Promise<Image> {
  const scratch = tools.scratch();
  let copy: Target | undefined;
  const close = async (): Promise<void> => {
    await copy?.close();
    scratch.remove();
  };
  try {
    const path = `${scratch.path}/snapshot.db`;
    const manifest = await tools.snapshots.restoreFile(record.id, path, record.manifest);
    const opened = await openRestoredFile(tools, path, manifest);
    copy = opened;
    const { tables } = await opened.schema();
    return {
      manifest,
      tables,
      rows: (shape) => opened.scan(shape),
      file: manifest.dump === undefined ? path : null,
      changesSince: opened.changesSince ?? null,
      part: null,
      close,
    };
  } catch (e) {
    await close();
    throw e;
  }
}

/** The database that a snapshot holds, as a target of its own; closing it leaves the file alone. */
export async function openRestoredFile(
  tools: Pick<Toolbox, "openCopy" | "dumps">,
  path: string,
  { target, dump }: SnapshotManifest,
): Promise<Target> {
  return dump === undefined ? tools.openCopy(path, target) : tools.dumps.open(path, target, dump);
}
