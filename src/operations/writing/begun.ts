/** A run that began and did not end: found by the marks it left in the target and by what it recorded at its beginning. */
import { parseStamp } from "../../base/clock.js";
import { IntegrityError, UsageError } from "../../base/errors.js";
import type { Change, ChangeSource, TableCounts } from "../../changeset/change.js";
import { countOf } from "../../changeset/change.js";
import type { Cut } from "../../changeset/waves.js";
import type { Entry, SealedEntry } from "../../ledger/entry.js";
import { numberFact, textFact, textsFact } from "../../ledger/facts.js";
import { coverOf, type Cover } from "../consent/cover.js";
import type { Examined } from "../judging/examine.js";
import { isFinished } from "../recall/plan-state.js";
import { cutAgain, type RunCut } from "./run-cut.js";
import { findRun, type RunRecord } from "../recall/runs.js";
import { loadPlan } from "../recall/stored-plan.js";
import { takenBack } from "./write-batch.js";
import { timeOf } from "../judging/time.js";
import type { LoadedPlan, Toolbox, WorkingChanges } from "../toolbox.js";
import type { Begun } from "./write-run.js";

/** A {@link Begun} with what its first entry says. */
export interface BegunRun extends Begun {
  readonly approvers: readonly string[];
  readonly cut: Cut | null;
  readonly batchCount: number;
  /** The run whose cover it was applied under. */
  readonly under: string | null;
}

/**
 * The run that spent this plan and is not finished; null when none did.
 * @throws RefusedError ERR_APPROVAL_SPENT when an undo has taken it back.
 */
export async function begunRun(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined,
): Promise<BegunRun | null> {
  const spent = await examined.target.spentFor(plan.digest);
  // Another machine's run is that machine's to finish; here its plan is spent.
  const isOurs = spent?.ledger === (await tools.ledger()).head()?.ledger;
  if (spent === null || !isOurs || (await isFinished(tools, spent.run))) return null;
  const { run } = spent;
  const undone = (await examined.target.notes()).find((n) => n.kind === "undone" && n.subject === run);
  if (undone !== undefined) throw takenBack(run, undone);
  return recordOf(tools, run, examined);
}

async function recordOf(tools: Toolbox, run: string, examined: Examined): Promise<BegunRun> {
  const ledger = await tools.ledger();
  const [started] = entriesOf(ledger.entries({ run, kinds: ["run-started"] }));
  if (started === undefined) throw unknownRun(run, examined.target.name);
  const committed = entriesOf(ledger.entries({ run, kinds: ["run-committed"] }));
  return {
    run,
    snapshot: textFact(started, "snapshot"),
    marks: await examined.target.batches(run),
    isSpent: true,
    checkedWaves: new Set(committed.map((e) => numberFact(e, "wave") ?? 0)),
    approvers: textsFact(started, "approvers"),
    cut: cutOf(started),
    batchCount: numberFact(started, "batches") ?? 1,
    under: textFact(started, "under"),
  };
}

function entriesOf(sealed: Iterable<SealedEntry>): readonly Entry[] {
  return [...sealed].map((s) => s.entry);
}

function cutOf(started: Entry): Cut | null {
  const { ends } = started.facts;
  const batchRows = numberFact(started, "batch_rows");
  if (!Array.isArray(ends) || batchRows === null) return null;
  const by = textFact(started, "by_column");
  const bounds = ends.filter((n) => typeof n === "number");
  return { bounds, batchRows, ...(by === null ? {} : { by }) };
}

function unknownRun(run: string, target: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_LEDGER_MISSING",
    message: `${target} carries marks of ${run}, and this ledger has no such run`,
    why: "the entry of its beginning is anchored with its first batch",
    next: [
      { actor: "anyone", text: "Bring back the store that holds this ledger, then run the command again." },
    ],
  });
}

/**
 * The plan that `--resume RUN` goes on with.
 * @throws UsageError ERR_RUN_UNKNOWN, ERR_RUN_AMBIGUOUS; ERR_USAGE when the run ended.
 */
export async function planToResume(
  tools: Toolbox,
  ref: string,
): Promise<{ readonly run: string; readonly plan: string }> {
  const run = await findRun(tools, ref);
  if (run.state === "done" || run.state === "undone") throw nothingToResume(run.id, `it is ${run.state}`);
  return { run: run.id, plan: run.plan };
}

/** The refusal to go on with a run that is over or never wrote. */
export function nothingToResume(run: string, why: string): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `${run} has nothing to resume`,
    why,
    next: [{ actor: "anyone", argv: ["holdpoint", "status", run] }],
  });
}

/** The cover that a run began under, while it lasts; null when it began under none or the cover is over. */
export async function coverOfBegun(
  tools: Toolbox,
  begun: BegunRun,
  examined: Examined,
): Promise<Cover | null> {
  if (begun.under === null) return null;
  const covered = await findRun(tools, begun.under);
  const plan = await loadPlan(tools, covered.plan);
  try {
    const cover = await coverOf(tools, plan, examined);
    const until = cover === null ? undefined : parseStamp(cover.until);
    return until !== undefined && until > (await timeOf(tools, examined)) ? cover : null;
  } finally {
    plan.close();
  }
}

/**
 * The part of a plan that a run has committed, for taking it back; null when that is all of it. What it never wrote
 * is not its to put back: whoever changed such a row since is in nobody's way.
 */
export async function committedPart(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined,
  run: RunRecord | undefined,
): Promise<WorkingChanges | null> {
  if (run === undefined || run.state === "done" || run.state === "undone") return null;
  const begun = await recordOf(tools, run.id, examined);
  if (isWritten(begun)) return null;
  const { rows, tables } = plan.statement.changeset;
  const { ties } = await examined.target.schema();
  const cut = cutAgain({ source: plan.changes, rows, tables, ties }, begun.cut);
  const done = new Set(begun.marks.map((m) => `${m.wave}/${m.batch}`));
  return { ...asWorking(plan.changes), changes: chosen(cut, (batch) => done.has(batch)) };
}

/** Its methods by name: a spread would leave those of a class behind. */
function asWorking(changes: WorkingChanges): WorkingChanges {
  const { path, tables, changes: all, get, query, keysWhere, close } = changes;
  return { path, tables, changes: all, get, query, keysWhere, close };
}

/** The changes of some batches, in the order of writing. */
function chosen(cut: RunCut, isMeant: (batch: string) => boolean): ChangeSource["changes"] {
  return (table) => ({
    *[Symbol.iterator](): Generator<Change, undefined> {
      for (const b of cut.batches()) if (isMeant(`${b.wave}/${b.batch}`)) yield* b.source.changes(table);
    },
  });
}

/** What a begun run has not written yet. */
export function remaining(cut: RunCut, source: ChangeSource, begun: Begun): ChangeSource {
  const done = new Set(begun.marks.map((m) => `${m.wave}/${m.batch}`));
  if (done.size === 0) return source;
  return { tables: source.tables, changes: chosen(cut, (batch) => !done.has(batch)) };
}

/** Rows of each table as they were before a begun run wrote: what shares are of. */
export function rowsBeforeRun(
  now: Readonly<Record<string, number>>,
  tables: readonly TableCounts[],
  left: ChangeSource,
): Readonly<Record<string, number>> {
  return Object.fromEntries(
    tables.map((t) => {
      let [inserted, deleted] = [t.insert, t.delete];
      for (const c of left.changes(t.name)) {
        if (c.op === "insert") inserted -= countOf(c);
        else if (c.op === "delete") deleted -= countOf(c);
      }
      return [t.name, (now[t.name] ?? 0) + deleted - inserted];
    }),
  );
}

/** Whether every batch of it is committed and only its record is missing. */
export function isWritten(begun: BegunRun): boolean {
  return begun.marks.length >= begun.batchCount;
}
