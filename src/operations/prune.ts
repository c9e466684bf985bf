/** What is kept no longer: snapshots pruned, the rows of a run forgotten. Digests and counts stay in the ledger. */
import { IntegrityError, UsageError } from "../base/errors.js";
import { findSnapshot, type SnapshotRecord, snapshotRecords } from "./merging/image.js";
import { allRuns, findRun } from "./recall/runs.js";
import type { Toolbox } from "./toolbox.js";

/** Which runs could not be undone without a snapshot: those whose rows it keeps, while they are neither undone nor forgotten. */
export async function neededBy(tools: Toolbox): Promise<(id: string) => readonly string[]> {
  const needed = new Map<string, string[]>();
  for (const run of await allRuns(tools)) {
    // A run that stopped part way goes on, or is taken back, from what it kept.
    if (run.snapshot !== null && run.state !== "undone" && run.state !== "failed")
      needed.set(run.snapshot, [...(needed.get(run.snapshot) ?? []), run.id]);
  }
  return (id) => needed.get(id) ?? [];
}

/** What prune did. */
export interface Pruned {
  readonly removed: readonly string[];
  readonly kept: readonly { readonly id: string; readonly neededBy: readonly string[] }[];
}

/** What prune takes: snapshots by name, or those of a target but the newest few, or older than a time. */
export interface PruneRequest {
  readonly refs: readonly string[];
  readonly on: string | null;
  readonly keep: number | null;
  readonly before: string | null;
  readonly evenIfNeeded: boolean;
}

/** Destroys row data of snapshots; the ledger keeps their digests. What an undo still needs stays unless told otherwise. */
export async function pruneSnapshots(tools: Toolbox, request: PruneRequest): Promise<Pruned> {
  const ids = await toPrune(tools, request);
  const needed = await neededBy(tools);
  const kept = request.evenIfNeeded
    ? []
    : ids.map((id) => ({ id, neededBy: needed(id) })).filter((k) => k.neededBy.length > 0);
  const removed = ids.filter((id) => !kept.some((k) => k.id === id));
  const records = await snapshotRecords(tools, null);
  const files = await tools.snapshots.list();
  const present = new Set(files.map((f) => f.id));
  refuseUnreadable(files, new Set(removed));
  const fresh = removed.filter((id) => records.some((r) => r.id === id && !r.pruned));
  // Recorded first: a crash afterwards leaves files that nobody relies on, and that the next prune takes away.
  if (fresh.length > 0)
    (await tools.ledger()).append({
      kind: "snapshot-pruned",
      target: request.on,
      facts: { snapshots: fresh },
    });
  const left = records.filter((r) => r.pruned && present.has(r.id)).map((r) => r.id);
  const going = [...new Set([...removed.filter((id) => present.has(id)), ...left])];
  await tools.snapshots.prune(going, () => [], { evenIfNeeded: true, now: tools.clock.now() });
  return { removed, kept };
}

/**
 * A database that stays and whose manifest cannot be read may need any page of the others: asked before anything is recorded
 * or destroyed.
 */
function refuseUnreadable(
  files: Awaited<ReturnType<Toolbox["snapshots"]["list"]>>,
  going: ReadonlySet<string>,
): void {
  for (const { id, check, hasPages } of files) {
    if (!hasPages || check.ok || going.has(id)) continue;
    throw new IntegrityError({
      code: "ERR_SNAPSHOT_UNVERIFIED",
      message: `${id} stays and cannot be read, so nobody knows which pages it shares with what goes`,
      why: check.why,
      next: [
        {
          actor: "anyone",
          argv: ["holdpoint", "snapshot", "verify", id],
          text: "see whether the disk answers again",
        },
        { actor: "anyone", text: `or, if it is lost, name ${id} among those to prune.` },
      ],
    });
  }
}

async function toPrune(tools: Toolbox, request: PruneRequest): Promise<readonly string[]> {
  const present = new Set((await tools.snapshots.list()).map((f) => f.id));
  const named: string[] = [];
  for (const ref of request.refs) {
    if (present.has(ref)) {
      named.push(ref); // also one that the ledger does not know, or that a crash kept from going
      continue;
    }
    const record = await findSnapshot(tools, ref);
    refusePruned(record);
    named.push(record.id);
  }
  if (request.keep === null && request.before === null) {
    if (named.length > 0) return named;
    throw new UsageError({
      code: "ERR_USAGE",
      message: "nothing says which snapshots to prune",
      why: "expected ids, --keep or --older-than; empty never means all",
      next: [{ actor: "requester", argv: ["holdpoint", "snapshot", "list"], text: "see which there are" }],
    });
  }
  const { keep, before } = request;
  const newest = [...(await snapshotRecords(tools, request.on))]
    .reverse()
    .filter((r) => !r.pruned && present.has(r.id));
  const old = newest.filter((r, i) => (keep === null || i >= keep) && (before === null || r.at < before));
  return [...new Set([...named, ...old.map((r) => r.id)])];
}

/** Rows that are gone on purpose are no damage: said as what it is. */
export function refusePruned(record: SnapshotRecord): void {
  if (!record.pruned) return;
  throw new UsageError({
    code: "ERR_SNAPSHOT_UNKNOWN",
    message: `the rows of ${record.id} were destroyed by prune`,
    why: "the ledger keeps its digests only",
    next: [{ actor: "anyone", argv: ["holdpoint", "snapshot", "list", "--on", record.target] }],
  });
}

/**
 * Destroys what is kept of a run's rows: plan, snapshot and the notes of which rows it touched. Digests and counts stay
 * in the ledger; the run can no longer be undone, and says so.
 */
export async function forgetRun(
  tools: Toolbox,
  ref: string,
): Promise<{ readonly run: string; readonly plan: string; readonly snapshots: readonly string[] }> {
  const run = await findRun(tools, ref);
  if (run.state === "started" || run.state === "stopped")
    throw new UsageError({
      code: "ERR_USAGE",
      message:
        run.state === "started"
          ? `${run.id} has no recorded end, so what is kept of it is still needed`
          : `${run.id} stopped part way, so what is kept of it is still needed`,
      why: "it can be gone on with or taken back, and either needs its rows",
      next: [
        {
          actor: "requester",
          argv: ["holdpoint", "apply", "--resume", run.id],
          text: "go on under the same plan",
        },
        { actor: "requester", argv: ["holdpoint", "undo", run.id], text: "or take back what is written" },
      ],
    });
  const present = new Set((await tools.snapshots.list()).map((f) => f.id));
  const snapshots = run.snapshot !== null && present.has(run.snapshot) ? [run.snapshot] : [];
  // Recorded first: a crash after it leaves rows that nothing will be done with, never an undo without rows.
  (await tools.ledger()).append({
    kind: "snapshot-pruned",
    target: run.target,
    plan: run.plan,
    run: run.id,
    facts: { snapshots, forgotten: true },
  });
  await tools.snapshots.prune(snapshots, () => [], { evenIfNeeded: true });
  (await tools.rowIndex()).forget(run.id);
  tools.plans.forget(run.plan);
  return { run: run.id, plan: run.plan, snapshots };
}

/** Whether the rows of a run were destroyed by {@link forgetRun}. */
export async function isForgotten(tools: Toolbox, run: string): Promise<boolean> {
  for (const { entry } of (await tools.ledger()).entries({ run, kinds: ["snapshot-pruned"] }))
    if (entry.facts["forgotten"] === true) return true;
  return false;
}
