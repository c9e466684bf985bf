/** Snapshots taken: whole tables or the whole database, by hand or before a run. */
import { stamp } from "../base/clock.js";
import { HoldpointError, TargetError, UsageError } from "../base/errors.js";
import { idFromBytes } from "../base/ids.js";
import type { ChangeSink, TableShape } from "../changeset/change.js";
import { keyOf } from "../changeset/change.js";
import { keyBytes } from "../changeset/key.js";
import type { Row } from "../changeset/value.js";
import type { LedgerStore } from "../ledger/entry.js";
import type { SnapshotManifest } from "../snapshot/snapshot.js";
import type { Target } from "../target/target.js";
import { type Examined, withTarget } from "./judging/examine.js";
import { snapshotRecords } from "./merging/image.js";
import { requirePlannable } from "./plan.js";
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

/**
 * A snapshot that the ledger does not know can be relied on by nobody: what cannot be recorded is not kept either. An entry
 * may be committed although its writing ended in an error (the sidecar, a lost answer): then it is kept, and so it is where
 * the ledger cannot be asked, since what it does not know is listed and can be pruned.
 */
export async function recorded(
  tools: Toolbox,
  id: string,
  entry: Parameters<LedgerStore["append"]>[0],
): Promise<void> {
  try {
    (await tools.ledger()).append(entry);
  } catch (e) {
    if (await isUnrecorded(tools, id)) await tools.snapshots.prune([id], () => [], { evenIfNeeded: true });
    throw e;
  }
}

async function isUnrecorded(tools: Toolbox, id: string): Promise<boolean> {
  try {
    return !(await snapshotRecords(tools, null)).some((record) => record.id === id);
  } catch {
    return false; // what is wrong with the ledger is told by the error that brought us here
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
    next: [
      {
        actor: "requester",
        argv: ["holdpoint", "snapshot", "take", "--on", target.name],
        text: "the whole database",
      },
    ],
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
    next: [
      { actor: "requester", text: "Name one of these with --table; without --table it is all of them." },
    ],
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
