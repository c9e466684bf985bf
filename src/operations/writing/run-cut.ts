/** How a run is cut into transactions: asked for when a plan is made, found again by `apply` and by a resumed run. */
import type { PlanStatement } from "../../approval/plan-statement.js";
import { UsageError } from "../../base/errors.js";
import type { ChangeSource, TableCounts } from "../../changeset/change.js";
import type { SchemaTies, Ties } from "../../changeset/ties.js";
import { tiesOf } from "../../changeset/ties.js";
import {
  type Batch,
  BATCH_ROWS,
  batchesOf,
  type BatchOutline,
  boundsOf,
  type Cut,
  dealOf,
  largestUnit,
  mergeBounds,
  ONE_TRANSACTION_ROWS,
  valuesOf,
  waveColumn,
} from "../../changeset/waves.js";
import type { WorkingChanges } from "../toolbox.js";

export { parseWaves } from "../../changeset/waves.js";

/** What somebody asks about the writing of a plan. */
export interface Pacing {
  /** As {@link parseWaves} gives them; undefined when nobody said. */
  readonly waves?: readonly string[];
  readonly atomic?: boolean;
  readonly maxRowsPerSecond?: number;
}

/** The effect whose writing is cut. */
export interface Effect {
  readonly source: WorkingChanges;
  readonly tables: readonly TableCounts[];
  readonly rows: number;
  readonly ties: SchemaTies | undefined;
}

/** A run's transactions. */
export interface RunCut {
  /** Null: all rows in one transaction. */
  readonly cut: Cut | null;
  readonly waves: number;
  readonly batchCount: number;
  /** In the order of writing; may be asked for again. */
  readonly batches: () => Iterable<Batch>;
}

/**
 * What a plan's statement says of its waves: null for one transaction, which is the default up to
 * {@link ONE_TRANSACTION_ROWS} rows and wherever all rows hang together.
 * @throws UsageError ERR_WAVES_SPLIT when a wave that was asked for would split rows that hang together.
 */
export function plannedWaves(effect: Effect, pacing: Pacing): readonly string[] | null {
  if (pacing.atomic === true) {
    if (pacing.waves !== undefined) throw bothAsked();
    return null;
  }
  const wanted = pacing.waves ?? (effect.rows > ONE_TRANSACTION_ROWS ? ["100%"] : null);
  if (wanted === null || effect.rows === 0) return null;
  if (pacing.waves === undefined) {
    const ties = tiesOf(effect.source, effect.tables, effect.ties);
    return ties === null || runCut(effect, ties, cutAt({ bounds: [effect.rows] }, undefined)).batchCount <= 1
      ? null
      : wanted;
  }
  cutInWaves(effect, askedCut(effect, wanted), undefined);
  return wanted;
}

/**
 * The transactions of a fresh run: the plan's waves, and those that apply adds. Flags only tighten: waves are added
 * to the plan's, never taken away, and one transaction replaces batches only where no check stands between them.
 */
export function cutForRun(effect: Effect, statement: PlanStatement, pacing: Pacing): RunCut {
  if (statement.mode === "script") return wholeScript(effect, pacing);
  const planned = statement.waves === null ? null : askedCut(effect, statement.waves);
  if (pacing.atomic === true) {
    if (pacing.waves !== undefined) throw bothAsked();
    if (planned !== null && planned.bounds.length > 1) throw checksBetween(statement.waves ?? []);
    return oneTransaction(effect);
  }
  const added = pacing.waves === undefined ? null : askedCut(effect, pacing.waves);
  const asked = bothCuts(planned, added, statement.waves ?? []);
  if (asked.bounds.length === 0 || effect.rows === 0) return oneTransaction(effect);
  return cutInWaves(effect, asked, pacing.maxRowsPerSecond);
}

/** Where waves end, and what is counted: rows, or values of a column. */
type Asked = Pick<Cut, "bounds" | "by">;

function askedCut(effect: Effect, waves: readonly string[]): Asked {
  const by = waveColumn(waves);
  if (by === null) return { bounds: boundsOf(waves, effect.rows) };
  return { bounds: boundsOf(waves, valuesOf(effect.source, by).length), by };
}

/** Both together; ends that are counted in different things have no order among them. */
function bothCuts(planned: Asked | null, added: Asked | null, waves: readonly string[]): Asked {
  if (planned === null || added === null) return planned ?? added ?? { bounds: [] };
  if (planned.by === added.by) return { ...planned, bounds: mergeBounds(planned.bounds, added.bounds) };
  // One wave is no more than batches: whatever is asked for only adds to it.
  if (planned.bounds.length === 1) return added;
  throw new UsageError({
    code: "ERR_USAGE",
    message: "--waves counts something else than the waves that were approved",
    why: `the plan is written in the waves ${waves.join(", ")}; flags at apply only tighten`,
    next: [{ actor: "requester", text: "Make the plan again with these waves." }],
  });
}

function wholeScript(effect: Effect, { waves, maxRowsPerSecond }: Pacing): RunCut {
  if (waves === undefined && maxRowsPerSecond === undefined) return oneTransaction(effect);
  throw new UsageError({
    code: "ERR_USAGE",
    message: `${waves === undefined ? "--max-rate" : "--waves"} cannot hold for a plan of mode script`,
    why: "its statements run in one transaction, whole or not at all",
  });
}

/** The transactions of a run that began, from what it recorded at its beginning. */
export function cutAgain(effect: Effect, recorded: Cut | null): RunCut {
  if (recorded === null) return oneTransaction(effect);
  const ties = tiesOf(effect.source, effect.tables, effect.ties);
  return ties === null ? oneTransaction(effect) : runCut(effect, ties, recorded);
}

function cutInWaves(effect: Effect, asked: Asked, rate: number | undefined): RunCut {
  const { bounds } = asked;
  const ties = tiesOf(effect.source, effect.tables, effect.ties);
  if (ties === null) throw splits(bounds, effect.rows, "all of its rows hang together");
  const cut = cutAt(asked, rate);
  const planned = transactions(effect, ties, cut);
  const written = new Set(planned.outline.map((b) => b.wave));
  const empty = bounds.findIndex((_, i) => !written.has(i + 1));
  if (empty === -1) return runOf(cut, planned);
  throw splits(
    bounds,
    effect.rows,
    `wave ${empty + 1} has no room for a group of rows that hang together; the largest has ${largestUnit(effect.source, ties)}`,
  );
}

/** No batch may be larger than what a second allows, or the rate would only be kept on average. */
function cutAt(asked: Asked, rate: number | undefined): Cut {
  return { ...asked, batchRows: Math.max(1, Math.min(BATCH_ROWS, rate ?? BATCH_ROWS)) };
}

function runCut(effect: Effect, ties: Ties, cut: Cut): RunCut {
  return runOf(cut, transactions(effect, ties, cut));
}

function runOf(cut: Cut, { outline, batches }: Transactions): RunCut {
  return { cut, waves: cut.bounds.length, batchCount: outline.length, batches };
}

interface Transactions {
  readonly outline: readonly BatchOutline[];
  readonly batches: () => Iterable<Batch>;
}

/** Batches are parts of a file, one held at a time, where the effect lies in one: each the same as of {@link batchesOf}. */
function transactions(effect: Effect, ties: Ties, cut: Cut): Transactions {
  const { source } = effect;
  const { slices, dealt } = source;
  if (slices !== undefined && standAlone(effect, ties, cut)) {
    const outline = evenly(cut);
    return {
      outline,
      batches: () => zipped(outline, slices(outline.map((b) => b.rows))),
    };
  }
  const deal = dealOf(source, ties, cut);
  const batches =
    dealt === undefined ? () => batchesOf(source, deal) : () => zipped(deal.batches, dealt(deal));
  return { outline: deal.batches, batches };
}

function* zipped(
  outline: readonly BatchOutline[],
  sources: Iterable<ChangeSource>,
): Generator<Batch, undefined> {
  let at = 0;
  for (const source of sources) {
    const batch = outline[at++];
    if (batch !== undefined) yield { ...batch, source };
  }
}

/** Every row stands for itself and counts once: then the outline is arithmetic, and batches are ranges of keys. */
function standAlone(effect: Effect, ties: Ties, cut: Cut): boolean {
  return (
    cut.by === undefined && ties.firsts === null && effect.source.tables.every((t) => t.keyKind !== "none")
  );
}

function evenly(cut: Cut): readonly BatchOutline[] {
  const outline: BatchOutline[] = [];
  let from = 0;
  for (const [i, end] of cut.bounds.entries()) {
    for (let batch = 1; from < end; batch++) {
      const rows = Math.min(cut.batchRows, end - from);
      outline.push({ wave: i + 1, batch, rows });
      from += rows;
    }
  }
  return outline;
}

function oneTransaction(effect: Effect): RunCut {
  const source: ChangeSource = effect.source;
  return {
    cut: null,
    waves: 1,
    batchCount: 1,
    batches: () => [{ wave: 1, batch: 1, rows: effect.rows, source }],
  };
}

function bothAsked(): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: "--atomic and --waves contradict each other",
    why: "--atomic is one transaction, --waves are several",
  });
}

function checksBetween(waves: readonly string[]): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: "--atomic would take away the waves that were approved",
    why: `the plan is written in the waves ${waves.join(", ")}; flags at apply only tighten`,
    next: [{ actor: "requester", text: "Make the plan again with --atomic." }],
  });
}

function splits(bounds: readonly number[], rows: number, why: string): UsageError {
  return new UsageError({
    code: "ERR_WAVES_SPLIT",
    message: `waves that end at ${bounds.join(", ")} of ${rows} rows would split rows that hang together`,
    why,
    next: [
      { actor: "requester", text: "Ask for larger waves, or leave --waves out: then it is one transaction." },
    ],
  });
}
