/** Snapshots by hand: taken, listed, verified, compared, restored elsewhere, and destroyed when their time is over. */
import { stamp } from "../base/clock.js";
import { HoldpointError, IntegrityError, RefusedError, TargetError, UsageError } from "../base/errors.js";
import { idFromBytes } from "../base/ids.js";
import type { ChangeSink, TableShape } from "../changeset/change.js";
import { keyOf } from "../changeset/change.js";
import { digestOfSource } from "../changeset/encode.js";
import type { Summary } from "../changeset/summarise.js";
import { keyBytes } from "../changeset/key.js";
import type { Row } from "../changeset/value.js";
import type { LedgerStore } from "../ledger/entry.js";
import type { SnapshotManifest } from "../snapshot/snapshot.js";
import type { Target } from "../target/target.js";
import { compareStates, stateNow } from "./merging/compare-states.js";
import { type Examined, withTarget } from "./judging/examine.js";
import { findSnapshot, openImage, type SnapshotRecord, snapshotRecords } from "./merging/image.js";
import { summaryOf } from "./judging/judge-plan.js";
import { requirePlannable } from "./plan.js";
import { allRuns, findRun } from "./recall/runs.js";
import type { SnapshotFacts, Toolbox } from "./toolbox.js";

/** A snapshot that was taken, verified and recorded. */
export interface Taken {
  readonly manifest: SnapshotManifest;
  readonly digest: string;
  readonly tookMs: number;
  /** Of a database: what the store grew by, and pages that were new. */
  readonly stored: { readonly bytes: number; readonly added: number } | null;
}

/** Rows, or the whole database with its schema and whatever else it holds. */
export type TakenLevel = "tables" | "database";

/** Keeps the tables named, or everything; a snapshot that cannot be verified is none (36). */
export async function takeSnapshot(
  tools: Toolbox,
  on: string,
  tables: readonly string[],
  level: TakenLevel | null = null,
): Promise<Taken> {
  return withTarget(tools, on, async (examined) => {
    await requirePlannable(tools, examined);
    return takeOf(tools, examined, { level, tables, plan: null, run: null });
  });
}

/**
 * Keeps more than the rows of a plan before its run writes: whole tables, or everything, as the configuration says.
 * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED (36); TargetError where the adapter cannot.
 */
export async function keepBeforeRun(
  tools: Toolbox,
  examined: Examined,
  of: {
    readonly level: TakenLevel;
    readonly tables: readonly string[];
    readonly plan: string;
    readonly run: string;
  },
): Promise<Taken> {
  return takeOf(tools, examined, { ...of, tables: of.level === "database" ? [] : of.tables });
}

async function takeOf(
  tools: Toolbox,
  examined: Examined,
  of: {
    /** Null: a database where that costs its pages, else the rows of all tables. */
    readonly level: TakenLevel | null;
    readonly tables: readonly string[];
    readonly plan: string | null;
    readonly run: string | null;
  },
): Promise<Taken> {
  const { tables } = of;
  const started = tools.clock.now().getTime();
  const { target } = examined;
  const facts = (level: SnapshotManifest["level"]): SnapshotFacts => ({
    id: idFromBytes("sn", tools.random(10)),
    level,
    target: target.name,
    identity: examined.marker?.identity ?? "none",
    plan: of.plan,
    run: of.run,
    takenAt: stamp(tools.clock.now()),
  });
  const done = tools.progress.begin(
    `keeping ${tables.length === 0 ? "everything" : tables.join(", ")} of ${target.name}`,
  );
  try {
    const kept = await keptOf(tools, target, of, facts);
    const { manifest, digest, stored } = kept;
    await recorded(tools, manifest.id, {
      kind: "snapshot-taken",
      target: target.name,
      plan: of.plan,
      run: of.run,
      facts: {
        snapshot: manifest.id,
        manifest: digest,
        rows: manifest.rows,
        content: manifest.content,
        level: manifest.level,
        stored_bytes: stored?.bytes ?? null,
      },
    });
    done();
    tools.progress.check(
      `snapshot ${manifest.id}: ${manifest.rows} ${manifest.rows === 1 ? "row" : "rows"} kept, read back, compared`,
    );
    return { ...kept, tookMs: tools.clock.now().getTime() - started };
  } catch (e) {
    done();
    throw e;
  }
}

/** A snapshot that the ledger does not know can be relied on by nobody: what cannot be recorded is not kept either. */
export async function recorded(
  tools: Toolbox,
  id: string,
  entry: Parameters<LedgerStore["append"]>[0],
): Promise<void> {
  try {
    (await tools.ledger()).append(entry);
  } catch (e) {
    await tools.snapshots.prune([id], () => [], { evenIfNeeded: true });
    throw e;
  }
}

type Kept = Omit<Taken, "tookMs">;

/** A copy of a database file costs its pages and is what one gets unasked; a dump is made where somebody asks for it. */
async function keptOf(
  tools: Toolbox,
  target: Target,
  { level, tables }: { readonly level: TakenLevel | null; readonly tables: readonly string[] },
  facts: (level: SnapshotManifest["level"]) => SnapshotFacts,
): Promise<Kept> {
  if (tables.length > 0 || level === "tables") return takeTables(tools, target, facts("tables"), tables);
  if (target.copyTo !== undefined) return takeDatabase(tools, target, facts("database"));
  if (level === null) return takeTables(tools, target, facts("tables"), tables);
  if (target.dumpTo !== undefined) return takeDump(tools, target, target.dumpTo, facts("database"));
  throw new TargetError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `the whole database of ${target.name} cannot be kept`,
    why: `the ${target.adapter} adapter has no way to copy one`,
  });
}

/** All rows of tables, as of one moment. */
async function takeTables(
  tools: Toolbox,
  target: Target,
  facts: SnapshotFacts,
  wanted: readonly string[],
): Promise<Kept> {
  const take = async (): Promise<Kept> => {
    const shapes = chosenShapes((await target.schema()).tables, wanted, target.name);
    const writer = await tools.workingChanges();
    try {
      for (const shape of shapes) await copyRows(target, shape, writer);
    } catch (e) {
      writer.abort();
      throw e;
    }
    const rows = writer.finish();
    try {
      return { ...(await tools.snapshots.take(facts, rows, shapes)), stored: null };
    } finally {
      rows.close();
    }
  };
  if (target.atOneMoment !== undefined) return target.atOneMoment(take);
  throw new TargetError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `tables of ${target.name} cannot be kept as of one moment`,
    why: `the ${target.adapter} adapter cannot read several tables as one state`,
  });
}

/** Each row as its deletion; equal rows of a table without a key as one with their number. */
async function copyRows(target: Target, shape: TableShape, sink: ChangeSink): Promise<void> {
  sink.table(shape);
  let last: { readonly row: Row; readonly key: string; count: number } | undefined;
  const flush = (): void => {
    if (last === undefined) return;
    const change = {
      op: "delete",
      table: shape.name,
      key: keyOf(shape, last.row),
      before: last.row,
      origin: "unknown",
    } as const;
    sink.add(last.count === 1 ? change : { ...change, count: last.count });
  };
  for await (const row of target.scan(shape)) {
    if (shape.keyKind !== "none") {
      sink.add({ op: "delete", table: shape.name, key: keyOf(shape, row), before: row, origin: "unknown" });
      continue;
    }
    const key = Buffer.from(keyBytes(row)).toString("latin1");
    if (last?.key === key) last.count += 1;
    else {
      flush();
      last = { row, key, count: 1 };
    }
  }
  flush();
}

function chosenShapes(
  shapes: readonly TableShape[],
  wanted: readonly string[],
  target: string,
): readonly TableShape[] {
  const unknown = wanted.filter((w) => !shapes.some((s) => s.name === w));
  if (unknown.length === 0)
    return wanted.length === 0 ? shapes : shapes.filter((s) => wanted.includes(s.name));
  throw new UsageError({
    code: "ERR_USAGE",
    message: `${target} has no table ${unknown.join(", ")}`,
    why: `it has ${shapes.map((s) => s.name).join(", ") || "none"}`,
  });
}

/** The whole database, page by page: what is counted is the copy, so that rows and pages are of one moment. */
async function takeDatabase(tools: Toolbox, target: Target, facts: SnapshotFacts): Promise<Kept> {
  const scratch = tools.scratch();
  try {
    const path = await target.copyTo?.(`${scratch.path}/copy`);
    if (path === undefined) throw new HoldpointError({ code: "ERR_INTERNAL", message: "no copy was made" });
    const copy = await tools.openCopy(path, target.name);
    const { tables, rows } = await countAll(copy);
    const taken = await tools.snapshots.takeFile(facts, path, { tables, rows });
    const { manifest, digest, storedBytes, added } = taken;
    return { manifest, digest, stored: { bytes: storedBytes, added } };
  } finally {
    scratch.remove();
  }
}

/** The whole database as its own program dumps it: restored, and its rows counted again, before it counts. */
async function takeDump(
  tools: Toolbox,
  target: Target,
  dumpTo: NonNullable<Target["dumpTo"]>,
  facts: SnapshotFacts,
): Promise<Kept> {
  await tools.dumps.assertRestorable(target.name);
  const scratch = tools.scratch();
  try {
    const path = `${scratch.path}/dump`;
    const { facts: dump, tables, rows } = await dumpTo(path);
    const taken = await tools.snapshots.takeFile(facts, path, { tables, rows, dump }, async (restored) => {
      const copy = await tools.dumps.open(restored, target.name, dump);
      await copy.close();
    });
    const { manifest, digest, storedBytes, added } = taken;
    return { manifest, digest, stored: { bytes: storedBytes, added } };
  } finally {
    scratch.remove();
  }
}

async function countAll(
  copy: Target,
): Promise<{ readonly tables: readonly TableShape[]; readonly rows: number }> {
  try {
    const { tables } = await copy.schema();
    let rows = 0;
    for (const { name } of tables) rows += await copy.countRows(name);
    return { tables, rows };
  } finally {
    await copy.close();
  }
}

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

/** Which runs could not be undone without a snapshot: those whose rows it keeps, while they are neither undone nor forgotten. */
async function neededBy(tools: Toolbox): Promise<(id: string) => readonly string[]> {
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
    });
  }
  const { keep, before } = request;
  const newest = [...(await snapshotRecords(tools, request.on))]
    .reverse()
    .filter((r) => !r.pruned && present.has(r.id));
  const old = newest.filter((r, i) => (keep === null || i >= keep) && (before === null || r.at < before));
  return [...new Set([...named, ...old.map((r) => r.id)])];
}

function refusePruned(record: SnapshotRecord): void {
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
