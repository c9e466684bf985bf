/** Who touched a row: the runs that did, with before and after, and what snapshots say about changes made elsewhere. */
import { stamp } from "../base/clock.js";
import { UsageError } from "../base/errors.js";
import { afterOf, beforeOf, type Change, type RowKey, type TableShape } from "../changeset/change.js";
import { sameRow, sameValue, type Row, type Value } from "../changeset/value.js";
import { keyText } from "../changeset/key.js";
import { type Examined, withTarget } from "./judging/examine.js";
import { snapshotsByHand } from "./merging/image.js";
import { type RunRecord, runsNamed } from "./recall/runs.js";
import { isForgotten } from "./prune.js";
import { loadPlan } from "./recall/stored-plan.js";
import { committedPart } from "./writing/begun.js";
import type { LoadedPlan, Toolbox } from "./toolbox.js";

/** One run that touched the row; images are null where there was no row, undefined where they were destroyed. */
export interface Touch {
  readonly run: RunRecord;
  readonly before: Row | null | undefined;
  readonly after: Row | null | undefined;
  /** Columns whose cells the run changed, where the row was there before and after. */
  readonly changed: readonly number[];
}

/** The row as a snapshot has it. */
export interface Sighting {
  readonly snapshot: string;
  readonly at: string;
  readonly row: Row | null;
}

/** Everything known about one row. */
export interface RowHistory {
  readonly target: string;
  readonly shape: TableShape;
  readonly key: RowKey;
  readonly touches: readonly Touch[];
  readonly now: Row | null;
  /** Snapshots of whole tables, oldest first, with the row as each has it. */
  readonly sightings: readonly Sighting[];
  /** When something else than our runs changed it: between these two times; null when all is explained. */
  readonly elsewhere: { readonly after: string; readonly before: string } | null;
}

/** Snapshots that are opened to look for the row. */
const SNAPSHOTS_READ = 5;

/**
 * What is known about a row. `keyText` is one text for each column of the table's key.
 * @throws UsageError for an unknown table or a key of another length.
 */
export async function whoTouched(
  tools: Toolbox,
  on: string,
  table: string,
  keyTexts: readonly string[],
): Promise<RowHistory> {
  return withTarget(tools, on, async (examined) => {
    const { target } = examined;
    const { tables } = await target.schema();
    const shape = tables.find((t) => t.name === table);
    if (shape === undefined || shape.keyKind === "none") throw noSuchRow(on, table, tables, shape);
    const candidates = keysFrom(shape, keyTexts);
    let key = candidates[0] ?? [];
    let now: Row | null = null;
    for await (const read of target.readRows(shape, candidates)) {
      if (read.row === null) continue;
      now = read.row;
      key = read.key;
    }
    const touches = await touchesOf(tools, examined, table, now === null ? candidates : [key]);
    const sightings = await sightingsOf(tools, on, shape, now === null ? candidates : [key]);
    return {
      target: on,
      shape,
      key,
      touches,
      now,
      sightings,
      elsewhere: elsewhere(tools, touches, sightings, now),
    };
  });
}

/** A key typed as text may be a number or text: what is there decides, and where nothing is, all are asked for. */
function keysFrom(shape: TableShape, texts: readonly string[]): readonly RowKey[] {
  if (texts.length !== shape.key.length) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `the key of ${shape.name} has ${shape.key.length} columns, and ${texts.length} were given`,
      why: `give --key for each of ${shape.key.map((i) => shape.columns[i]?.name).join(", ")}`,
    });
  }
  return texts.reduce<readonly RowKey[]>(
    (keys, text) => keys.flatMap((key) => valuesOf(text).map((v) => [...key, v])),
    [[]],
  );
}

function valuesOf(text: string): readonly Value[] {
  if (/^-?(0|[1-9]\d{0,18})$/.test(text)) return [BigInt(text), text];
  return [text];
}

async function touchesOf(
  tools: Toolbox,
  examined: Examined,
  table: string,
  keys: readonly RowKey[],
): Promise<readonly Touch[]> {
  const index = await tools.rowIndex();
  const ids = new Set(keys.flatMap((key) => index.runsOf(table, key)));
  if (ids.size === 0) return [];
  const touches: Touch[] = [];
  // Only these runs' own entries are read: the answer does not wait for a long history.
  for (const run of await runsNamed(tools, ids)) {
    // Rows are noted before a run writes: one that wrote nothing touched none.
    if (run.target !== examined.target.name || run.state === "failed") continue;
    const touch = await touchOf(tools, examined, run, table, keys);
    if (touch !== null) touches.push(touch);
  }
  return touches;
}

/** Null when a run that is not over has not come to the row. */
async function touchOf(
  tools: Toolbox,
  examined: Examined,
  run: RunRecord,
  table: string,
  keys: readonly RowKey[],
): Promise<Touch | null> {
  if (await isForgotten(tools, run.id)) return { run, before: undefined, after: undefined, changed: [] };
  const plan = await loadPlan(tools, run.plan);
  try {
    const change = keys.map((key) => plan.changes.get(table, key)).find((c) => c !== undefined);
    if (change === undefined) return { run, before: undefined, after: undefined, changed: [] };
    if (!(await hasWritten(tools, examined, plan, run, change))) return null;
    return { run, before: beforeOf(change), after: afterOf(change), changed: changedBy(change) };
  } finally {
    plan.close();
  }
}

/** Of a run that stopped part way, the marks in the target say which batches are there. */
async function hasWritten(
  tools: Toolbox,
  examined: Examined,
  plan: LoadedPlan,
  run: RunRecord,
  change: Change,
): Promise<boolean> {
  const part = await committedPart(tools, plan, examined, run);
  if (part === null) return true;
  const key = keyText(change.key);
  for (const written of part.changes(change.table)) if (keyText(written.key) === key) return true;
  return false;
}

function changedBy(change: Change): readonly number[] {
  if (change.op !== "update") return [];
  return change.after.flatMap((v, i) => (sameValue(v, change.before[i] ?? null) ? [] : [i]));
}

async function sightingsOf(
  tools: Toolbox,
  on: string,
  shape: TableShape,
  keys: readonly RowKey[],
): Promise<readonly Sighting[]> {
  const usable = (await snapshotsByHand(tools, on)).filter((r) => r.level === "tables" && !r.pruned);
  const sightings: Sighting[] = [];
  for (const record of usable.slice(-SNAPSHOTS_READ)) {
    // A snapshot that is damaged has seen nothing that could be relied on.
    if (!(await tools.snapshots.verify(record.id, record.manifest)).ok) continue;
    const { manifest, source, close } = await tools.snapshots.open(record.id, record.manifest);
    try {
      if (!manifest.tables.some((t) => t.name === shape.name)) continue;
      const found = keys.map((key) => source.get(shape.name, key)).find((c) => c !== undefined);
      sightings.push({
        snapshot: record.id,
        at: record.at,
        row: found === undefined ? null : beforeOf(found),
      });
    } finally {
      close();
    }
  }
  return sightings;
}

/** The last moment from which our runs do not lead to what is there now. */
function elsewhere(
  tools: Toolbox,
  touches: readonly Touch[],
  sightings: readonly Sighting[],
  now: Row | null,
): RowHistory["elsewhere"] {
  const known = [
    ...sightings.map((s) => ({ at: s.at, row: s.row, isRun: false })),
    // What a run found is known as well as what it left; of two facts of one second the earlier one is listed first.
    ...touches.flatMap((t) => [
      ...(t.before === undefined ? [] : [{ at: t.run.startedAt, row: t.before, isRun: false }]),
      // A run that was killed has no end; what it wrote is known all the same.
      ...(t.after === undefined ? [] : [{ at: t.run.endedAt ?? t.run.startedAt, row: t.after, isRun: true }]),
    ]),
    { at: stampNow(tools), row: now, isRun: false },
  ].sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
  for (let i = known.length - 1; i > 0; i--) {
    const [before, after] = [known[i - 1], known[i]];
    if (before === undefined || after === undefined || after.isRun || sameRow(before.row, after.row))
      continue;
    return { after: before.at, before: after.at };
  }
  return null;
}

function stampNow(tools: Toolbox): string {
  return stamp(tools.clock.now());
}

function noSuchRow(
  on: string,
  table: string,
  tables: readonly TableShape[],
  shape: TableShape | undefined,
): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: shape === undefined ? `${on} has no table ${table}` : `rows of ${table} have no key to ask for`,
    why:
      shape === undefined
        ? `it has ${tables.map((t) => t.name).join(", ") || "none"}`
        : "the table has no primary key, so equal rows cannot be told apart",
  });
}
