/**
 * One run: snapshot, batches, checks, marks and record, in the order in which a crash at any point leaves a
 * state that the next command can tell. Each commit carries its rows, the spent mark, the mark of the batch and
 * the ledger's head together; what is missing after a crash is written by `apply`, run again.
 */
import type { CiFacts } from "../../approval/ci-identity.js";
import { planStatementBytes } from "../../approval/plan-statement-codec.js";
import { tokenText } from "../../approval/token.js";
import { approvedEntry } from "../consent/tokens.js";
import { stamp } from "../../base/clock.js";
import { HoldpointError, messageOf, RefusedError } from "../../base/errors.js";
import { idFromBytes } from "../../base/ids.js";
import type { Batch } from "../../changeset/waves.js";
import { headOf, type LedgerStore, type SealedEntry } from "../../ledger/entry.js";
import { beforeImages } from "../../snapshot/before-images.js";
import type { BatchMark, Note } from "../../target/marker.js";
import type { WriteSession } from "../../target/target.js";
import type { Applied } from "../apply.js";
import type { Authority } from "../consent/authority.js";
import { debtNotes } from "../consent/break-glass.js";
import type { Cover } from "../consent/cover.js";
import type { Examined } from "../judging/examine.js";
import { interruptedBy } from "./interruption.js";
import { Pacer } from "./pace.js";
import { isFinished } from "../recall/plan-state.js";
import type { RunCut } from "./run-cut.js";
import { checkFailed, putBackAfter, stoppedPartWay, type Standing, unrecorded } from "./run-ends.js";
import { keepBeforeRun, recorded } from "../snapshot.js";
import type { BeforeImagesKept, LoadedPlan, Toolbox } from "../toolbox.js";
import { highestLevel } from "../../snapshot/snapshot.js";
import { targetConfigOf } from "../../config/config.js";
import { type BatchOf, putBackWave, rowsOf, writeBatch } from "./write-batch.js";
import { failedCheck } from "./wave-checks.js";

/** Everything a run works with; all checks before the first write have passed. */
export interface Writing {
  readonly plan: LoadedPlan;
  readonly examined: Examined;
  readonly ledger: LedgerStore;
  readonly authority: Authority;
  readonly started: Date;
  readonly under: Cover | undefined;
  readonly cut: RunCut;
  /** The before-images of the plan's rows, where they were packed when it was read. */
  readonly kept?: BeforeImagesKept;
  readonly maxRowsPerSecond: number | null;
  /** Asked before each wave after the first: expiry, revocation, freeze windows, the clock. */
  readonly stillAllowed: () => Promise<void>;
  /** For a run that goes on: until when one undo is covered, counted from when it spent its approvals. */
  readonly coverUntil?: string | null;
  /** The pipeline that applies it, by its token; absent where a person's machine does. */
  readonly appliedBy?: CiFacts;
  /** More to be anchored with the first batch, e.g. a debt. */
  readonly notes?: readonly Note[];
}

/** A run that began earlier and is not finished, as ledger and marks tell it. */
export interface Begun {
  readonly run: string;
  readonly snapshot: string | null;
  readonly marks: readonly BatchMark[];
  /** Whether the approvals are spent by it: the first commit did that, and putting back does not take it back. */
  readonly isSpent: boolean;
  /** Waves whose checks passed. */
  readonly checkedWaves: ReadonlySet<number>;
}

/** From the snapshot to the anchored end. Everything before the first commit leaves the target as it was. */
export async function writeRun(tools: Toolbox, w: Writing): Promise<Applied> {
  const run = idFromBytes("rn", tools.random(10));
  return withSession(w, async (session) => {
    const snapshot = await takeSnapshot(tools, w, run);
    await keepMore(tools, w, run);
    await keepBrought(tools, w);
    w.ledger.append({
      kind: "run-started",
      target: w.examined.target.name,
      plan: w.plan.id,
      run,
      facts: {
        digest: w.plan.digest,
        approvers: [...w.authority.approvers],
        snapshot: snapshot.id,
        manifest: snapshot.digest,
        under: w.under?.run ?? null,
        ends: w.cut.cut === null ? null : [...w.cut.cut.bounds],
        ...(w.cut.cut?.by === undefined ? {} : { by_column: w.cut.cut.by }),
        batch_rows: w.cut.cut?.batchRows ?? null,
        batches: w.cut.batchCount,
      },
    });
    return new RunWriter(tools, w, session, {
      run,
      snapshot: snapshot.id,
      marks: [],
      isSpent: false,
      checkedWaves: new Set(),
    }).toTheEnd(false);
  });
}

/**
 * What was handed in stays here: a plan file of another machine, and the approvals that counted. The way back, its cover
 * and `log who` need them where the run is.
 */
async function keepBrought(tools: Toolbox, { plan, ledger, authority }: Writing): Promise<void> {
  const { id, statement, signature, changes } = plan;
  if (!(await tools.plans.ids()).includes(id))
    await tools.plans.save({ id, statement: planStatementBytes(statement), signature, source: changes });
  for (const token of authority.brought)
    ledger.append(approvedEntry(token.statement, tokenText(token.bytes, token.signature)));
}

/** Goes on with a run that began: what its marks name is done, everything else is checked and written. */
export async function resumeRun(tools: Toolbox, w: Writing, begun: Begun): Promise<Applied> {
  return withSession(w, async (session) => {
    // Read again now that no other process has the run: one that had it may have finished it meanwhile.
    if (await isFinished(tools, begun.run)) throw finishedMeanwhile(w.plan.id, begun.run);
    const marks = await session.batches(begun.run);
    w.ledger.append({
      kind: "run-resumed",
      target: w.examined.target.name,
      plan: w.plan.id,
      run: begun.run,
      facts: { digest: w.plan.digest, batches: marks.length, rows: rowsOf(marks) },
    });
    return new RunWriter(tools, w, session, { ...begun, marks }).toTheEnd(true);
  });
}

function finishedMeanwhile(plan: string, run: string): RefusedError {
  return new RefusedError({
    code: "ERR_APPROVAL_SPENT",
    message: `${plan} was applied already, by ${run}`,
    why: "another process finished that run while this one waited for it; a plan is applied once",
    next: [{ actor: "anyone", argv: ["holdpoint", "log", "show", run] }],
  });
}

async function withSession<T>(w: Writing, work: (session: WriteSession) => Promise<T>): Promise<T> {
  const session = await w.examined.target.openWriter();
  try {
    return await work(session);
  } finally {
    await session.close();
  }
}

/** The state of one run while this process writes it. */
class RunWriter {
  readonly #tools: Toolbox;
  readonly #w: Writing;
  readonly #begun: Begun;
  readonly #of: BatchOf;
  readonly #done: ReadonlySet<string>;
  readonly #pacer: Pacer;
  /** Transactions of this run in the target, earlier processes' included. */
  #committed: number;
  #written: number;
  #alreadyDone = 0;
  /** Planned rows of committed batches. */
  #rows = 0;
  #wroteHere = false;

  constructor(tools: Toolbox, w: Writing, session: WriteSession, begun: Begun) {
    this.#tools = tools;
    this.#w = w;
    this.#begun = begun;
    this.#done = new Set(begun.marks.map((m) => placeOf(m)));
    this.#committed = begun.marks.length;
    this.#written = rowsOf(begun.marks);
    this.#of = {
      ...w,
      run: begun.run,
      session,
      notes: [
        ...(w.notes ?? []),
        ...undoNotes(w, begun.run),
        ...debtNotes(w.authority.breakGlass ?? null, begun.run, stamp(w.started)),
      ],
    };
    this.#pacer = new Pacer(tools, w.examined, {
      waves: w.cut.waves,
      batches: w.cut.batchCount,
      rows: w.plan.statement.changeset.rows,
      maxRowsPerSecond: w.maxRowsPerSecond,
    });
  }

  async toTheEnd(resumed: boolean): Promise<Applied> {
    try {
      await noteRows(this.#tools, this.#begun.run, this.#w.plan);
      await this.#writeWaves();
    } catch (e) {
      throw this.#failed(e);
    } finally {
      await this.#pacer.close();
    }
    try {
      const finished = finishRun(this.#tools, this.#w, this.#begun, this.#written);
      await anchorEnd(this.#of.session, finished);
    } catch (e) {
      throw unrecorded(this.#w.plan.id, e);
    }
    return appliedOf(this.#tools, this.#w, this.#begun, {
      written: this.#written,
      alreadyDone: this.#alreadyDone,
      resumed,
      completed: resumed && !this.#wroteHere,
    });
  }

  async #writeWaves(): Promise<void> {
    let wave = 0;
    for (const batch of this.#w.cut.batches()) {
      if (batch.wave !== wave && wave > 0) await this.#endWave(wave);
      if (batch.wave !== wave && this.#wroteHere) await this.#w.stillAllowed();
      wave = batch.wave;
      if (!this.#done.has(placeOf(batch))) await this.#writeOne(batch);
      this.#rows += batch.rows;
    }
    await this.#endWave(wave);
  }

  async #writeOne(batch: Batch): Promise<void> {
    const place = { wave: batch.wave, rows: this.#rows };
    await this.#tools.wait(0);
    this.#stopBetween();
    await this.#pacer.before(place, () => this.#stopBetween());
    const isFirst = !this.#begun.isSpent && !this.#wroteHere;
    const outcome = await writeBatch(this.#tools, this.#of, batch, isFirst);
    this.#wroteHere = true;
    this.#committed++;
    this.#written += outcome.written;
    this.#alreadyDone += outcome.alreadyDone;
    this.#pacer.wrote({ ...place, rows: place.rows + batch.rows }, batch.rows);
  }

  /** Between two batches the first signal is enough. */
  #stopBetween(): void {
    const signal = this.#tools.interruption.requested();
    if (signal !== null) throw interruptedBy(signal);
  }

  async #endWave(wave: number): Promise<void> {
    if (this.#begun.checkedWaves.has(wave)) return;
    const { waves } = this.#w.cut;
    this.#pacer.waveDone(wave);
    const failed = await failedCheck(this.#tools, this.#w, {
      run: this.#begun.run,
      wave,
      waves,
      rows: this.#rows,
    });
    if (failed !== null) {
      // A check that was killed because somebody asked twice has not failed.
      if (this.#tools.interruption.insisted()) this.#stopBetween();
      // A script's effect is more than its rows, so it stays where it is.
      const { put_back: mayPutBack, mode } = this.#w.plan.statement;
      if (mayPutBack !== true || mode === "script") throw checkFailed(failed, this.#standing());
      try {
        await this.#putBack(wave);
      } catch (e) {
        const why = `${failed.why}; the wave could not be put back: ${messageOf(e)}`;
        throw checkFailed({ ...failed, why }, this.#standing());
      }
      throw putBackAfter(failed, wave, this.#standing());
    }
    if (waves === 1) return;
    this.#w.ledger.append({
      kind: "run-committed",
      target: this.#w.examined.target.name,
      plan: this.#w.plan.id,
      run: this.#begun.run,
      facts: { wave, waves, rows: this.#rows },
    });
  }

  async #putBack(wave: number): Promise<void> {
    const gone = (await this.#of.session.batches(this.#begun.run)).filter((m) => m.wave === wave);
    await putBackWave(this.#of, wave, () => this.#w.cut.batches());
    this.#committed -= gone.length;
    this.#written -= rowsOf(gone);
  }

  #standing(): Standing {
    return {
      run: this.#begun.run,
      plan: this.#w.plan.id,
      rows: this.#written,
      of: this.#w.plan.statement.changeset.rows,
      batches: this.#committed,
      ofBatches: this.#w.cut.batchCount,
    };
  }

  /** Records how the run stopped and words it; what is committed stays committed. */
  #failed(e: unknown): HoldpointError | Error {
    const ended = this.#committed === 0 ? e : stoppedPartWay(e, this.#standing());
    const known = ended instanceof HoldpointError;
    try {
      this.#w.ledger.append({
        kind: "run-failed",
        target: this.#w.examined.target.name,
        plan: this.#w.plan.id,
        run: this.#begun.run,
        facts: {
          code: known ? ended.code : "ERR_INTERNAL",
          target_changed: known ? ended.targetChanged : "no",
          rows: this.#written,
          batches: this.#committed,
        },
      });
    } catch {
      // A store that takes no entry must not hide why the run stopped; the marks in the target tell how far it is.
    }
    return ended instanceof Error ? ended : new Error(String(ended), { cause: e });
  }
}

function placeOf(b: { readonly wave: number; readonly batch: number }): string {
  return `${b.wave}/${b.batch}`;
}

async function takeSnapshot(
  tools: Toolbox,
  w: Writing,
  run: string,
): Promise<{ readonly id: string; readonly digest: string }> {
  const { plan, examined } = w;
  const done = tools.progress.begin("saving the rows as they are");
  try {
    const { manifest, digest } = await tools.snapshots.take(
      {
        id: idFromBytes("sn", tools.random(10)),
        level: "rows",
        target: examined.target.name,
        identity: examined.marker?.identity ?? "none",
        plan: plan.id,
        run,
        takenAt: stamp(tools.clock.now()),
      },
      beforeImages(plan.changes),
      undefined,
      w.kept,
    );
    await recorded(tools, manifest.id, {
      kind: "snapshot-taken",
      target: examined.target.name,
      plan: plan.id,
      run,
      facts: { snapshot: manifest.id, manifest: digest, rows: manifest.rows, content: manifest.content },
    });
    done();
    tools.progress.check(
      `snapshot ${manifest.id}: ${manifest.rows} ${manifest.rows === 1 ? "row" : "rows"} saved, read back, compared`,
    );
    return { id: manifest.id, digest };
  } catch (e) {
    done();
    throw e;
  }
}

/** Whole tables or everything, where the configuration asks for more than the plan's rows. */
async function keepMore(tools: Toolbox, w: Writing, run: string): Promise<void> {
  // The plan's claim can only add to what the pinned configuration asks for.
  const { snapshot } = targetConfigOf(tools.project.config, w.examined.target.name);
  const level = highestLevel(w.plan.statement.snapshot.level, snapshot.level);
  if (level === "rows") return;
  const tables = w.plan.changes.tables.map((t) => t.name);
  if (level === "tables" && tables.length === 0) return;
  await keepBeforeRun(tools, w.examined, { level, tables, plan: w.plan.id, run });
}

/** An undo leaves a note of the runs it took back, so that a cover is used once even if the ledger is lost. */
function undoNotes(w: Writing, run: string): readonly Note[] {
  if (w.plan.statement.from?.kind !== "undo") return [];
  const by = w.plan.statement.requester.person ?? "unknown";
  return w.plan.statement.from.runs.map((subject) => ({
    kind: "undone" as const,
    subject,
    at: stamp(w.started),
    by,
    reason: `undone by ${run}`,
  }));
}

function finishRun(tools: Toolbox, w: Writing, begun: Begun, rows: number): SealedEntry {
  const { statement } = w.plan;
  return w.ledger.append({
    kind: "run-finished",
    target: w.examined.target.name,
    plan: w.plan.id,
    run: begun.run,
    facts: {
      digest: w.plan.digest,
      changeset: statement.changeset.digest,
      rows,
      job: statement.job?.name ?? statement.from?.kind ?? "",
      by: statement.requester.person,
      approvers: [...w.authority.approvers],
      break_glass: w.authority.breakGlass?.person ?? null,
      under: w.under === undefined ? null : w.under.run,
      undoes: statement.from?.kind === "undo" ? [...statement.from.runs] : [],
      ...tookBackFacts(statement.from),
      snapshot: begun.snapshot,
      cover_undo_until: coverUntil(tools, w),
      ...(w.appliedBy === undefined
        ? {}
        : {
            pipeline: w.appliedBy.identity,
            applied_by: w.appliedBy.who[0] ?? null,
            ci_run: w.appliedBy.run,
          }),
    },
  });
}

/** How much of the runs an undo takes back: one of a part leaves the rest to be taken back later. */
function tookBackFacts(from: LoadedPlan["statement"]["from"]): Readonly<Record<string, number>> {
  if (from?.kind !== "undo") return {};
  const { put_back, merged, nothing_to_do } = from.counts;
  return { put_back: put_back + merged, dealt_with: put_back + merged + nothing_to_do };
}

function coverUntil(tools: Toolbox, w: Writing): string | null {
  if (w.coverUntil !== undefined) return w.coverUntil;
  const seconds = w.authority.coverUndoSeconds;
  return seconds === null ? null : stamp(new Date(tools.clock.now().getTime() + seconds * 1000));
}

/** For `log who`, before the first row is written: what a run touched is known however it ends. */
async function noteRows(tools: Toolbox, run: string, plan: LoadedPlan): Promise<void> {
  (await tools.rowIndex()).indexRun(run, plan.changes);
}

/** The head after the run, in a transaction of its own; a crash before it leaves the head of the last batch. */
async function anchorEnd(session: WriteSession, finished: SealedEntry): Promise<void> {
  await session.begin();
  try {
    await session.anchor(headOf(finished));
    await session.commit();
  } catch (e) {
    await session.rollback();
    throw e;
  }
}

function appliedOf(
  tools: Toolbox,
  w: Writing,
  begun: Begun,
  how: {
    readonly written: number;
    readonly alreadyDone: number;
    readonly resumed: boolean;
    readonly completed: boolean;
  },
): Applied {
  return {
    run: begun.run,
    plan: w.plan.id,
    target: w.examined.target.name,
    environment: w.examined.verdict.guardedAs,
    rows: { planned: w.plan.statement.changeset.rows, written: how.written, alreadyDone: how.alreadyDone },
    waves: w.cut.waves,
    batches: w.cut.batchCount,
    snapshot: begun.snapshot,
    approvers: w.authority.approvers,
    coverUntil: coverUntil(tools, w),
    tookMs: tools.clock.now().getTime() - w.started.getTime(),
    dryRun: false,
    resumed: how.resumed,
    completed: how.completed,
    schemaChanges: w.plan.statement.schema.changes.length,
  };
}
