/**
 * One batch, one transaction: identity, trust bundle, spent mark, notes and schema are read again under the
 * write lock, rows are written each against its before-image and read back, and the marks from which a restart
 * knows that this batch is done lie in the same commit. Anything unexpected rolls all of it back.
 */
import { CI_CLAIMS } from "../../approval/requesters.js";
import { stamp } from "../../base/clock.js";
import { HoldpointError, RefusedError, TargetError } from "../../base/errors.js";
import type { Change, ChangeSource, TableShape } from "../../changeset/change.js";
import { invertSource } from "../../changeset/invert.js";
import type { Batch } from "../../changeset/waves.js";
import type { LedgerStore } from "../../ledger/entry.js";
import type { BatchMark, Note, SpentMark } from "../../target/marker.js";
import type { BatchKind, WriteProblem, WriteSession } from "../../target/target.js";
import type { Authority } from "../consent/authority.js";
import type { Cover } from "../consent/cover.js";
import { keyText, schemaDrift } from "../judging/drift.js";
import type { Examined } from "../judging/examine.js";
import { heldBy, refuseHeld } from "../recall/held.js";
import { writeScript } from "../judging/script.js";
import { stopIfInsisted, stopIfInterrupted } from "./interruption.js";
import type { LoadedPlan, Toolbox } from "../toolbox.js";

/** What a batch needs to know of its run. */
export interface BatchOf {
  readonly run: string;
  readonly plan: LoadedPlan;
  readonly examined: Examined;
  readonly authority: Authority;
  readonly under: Cover | undefined;
  readonly ledger: LedgerStore;
  readonly session: WriteSession;
  /** Notes that the first batch leaves, in its transaction. */
  readonly notes: readonly Note[];
}

/** How one batch went. */
export interface BatchWritten {
  readonly written: number;
  readonly alreadyDone: number;
}

/**
 * Writes and commits a batch. `isFirst`: nothing of the run is committed yet, so this one spends the approvals.
 * @throws HoldpointError after which nothing of this batch is in the target, unless its `targetChanged` says otherwise.
 */
export async function writeBatch(
  tools: Toolbox,
  of: BatchOf,
  batch: Batch,
  isFirst: boolean,
): Promise<BatchWritten> {
  const { session, plan } = of;
  // Until something is committed the first signal ends it all; later the second one rolls this batch back.
  const step = async (): Promise<void> => {
    await tools.wait(0);
    if (isFirst) stopIfInterrupted(tools.interruption);
    else stopIfInsisted(tools.interruption);
  };
  // A job's script means by foreign keys what its rehearsal meant; merged rows are written with them silent.
  const script = plan.statement.mode === "script";
  const kind = { script: script && plan.statement.from === null };
  return inTransaction(session, kind, async () => {
    await requireStillOurs(of, isFirst);
    refuseNotes(of, await session.notes());
    await step();
    const outcome = script ? await scriptWritten(tools, of) : await rowsWritten(of, batch, step);
    const at = stamp(tools.clock.now());
    if (isFirst) {
      await session.spend(spentMark(of, at));
      for (const note of of.notes) await session.addNote({ ...note, at });
    }
    await session.markBatch({ run: of.run, wave: batch.wave, batch: batch.batch, rows: outcome.written, at });
    await anchorHead(of);
    await step();
    return { written: outcome.written, alreadyDone: outcome.alreadyDone };
  });
}

/**
 * Takes a wave back in one transaction: each row only if it still is as the wave left it, together with the marks
 * of its batches.
 * @throws HoldpointError when rows were changed since; then the wave stays as it was written.
 */
export async function putBackWave(of: BatchOf, wave: number, batches: () => Iterable<Batch>): Promise<void> {
  const { session, plan } = of;
  const back = invertSource(sourceOfWave(plan.changes.tables, wave, batches));
  await inTransaction(session, { script: false }, async () => {
    await requireStillOurs(of, false);
    const outcome = await session.write(back, []);
    if (outcome.problems.length > 0) throw problemsBeforeCommit(plan, outcome.problems);
    const wrong = await session.verify(back);
    if (wrong.length > 0) throw effectDiffers(plan, wrong);
    await session.clearMarks(of.run, wave);
    await anchorHead(of);
  });
}

/** The rows of one wave, streamed batch after batch. */
function sourceOfWave(
  tables: readonly TableShape[],
  wave: number,
  batches: () => Iterable<Batch>,
): ChangeSource {
  return {
    tables,
    changes: (table) => ({
      *[Symbol.iterator](): Generator<Change, undefined> {
        for (const batch of batches()) if (batch.wave === wave) yield* batch.source.changes(table);
      },
    }),
  };
}

async function rowsWritten(
  { session, plan }: BatchOf,
  batch: Batch,
  step: () => Promise<void>,
): Promise<BatchWritten> {
  const outcome = await session.write(batch.source, plan.statement.sequences);
  if (outcome.problems.length > 0) throw problemsBeforeCommit(plan, outcome.problems);
  await step();
  const wrong = await session.verify(batch.source);
  if (wrong.length > 0) throw effectDiffers(plan, wrong);
  return outcome;
}

async function scriptWritten(tools: Toolbox, { session, plan, examined }: BatchOf): Promise<BatchWritten> {
  await writeScript(tools, plan, session, examined.target.capabilities);
  return { written: plan.statement.changeset.rows, alreadyDone: 0 };
}

async function inTransaction<T>(session: WriteSession, kind: BatchKind, work: () => Promise<T>): Promise<T> {
  await session.begin(kind);
  try {
    const result = await work();
    await session.commit();
    return result;
  } catch (e) {
    await session.rollback();
    throw e;
  }
}

/** What stays in the target of a plan that was used: everything that another machine has to know of it. */
function spentMark({ plan, run, authority, ledger }: BatchOf, at: string): SpentMark {
  const { statement } = plan;
  return {
    plan: plan.id,
    planDigest: plan.digest,
    run,
    nonces: authority.nonces,
    at,
    ledger: ledger.head()?.ledger ?? "none",
    job: statement.job?.name ?? statement.from?.kind ?? "",
    by: statement.requester.person,
    rows: statement.changeset.rows,
    commit: statement.requester.claims[CI_CLAIMS.commit] ?? null,
  };
}

/** The newest head: asked under the target's write lock, so that no anchor ever goes back. */
async function anchorHead({ ledger, session }: BatchOf): Promise<void> {
  const head = ledger.head();
  if (head !== null) await session.anchor(head);
}

/** Rows that a run's marks say are written. */
export function rowsOf(marks: readonly BatchMark[]): number {
  return marks.reduce((n, m) => n + m.rows, 0);
}

/** Inside the transaction, under the write lock: identity, trust, spent marks and schema as they are now. */
async function requireStillOurs(of: BatchOf, isFirst: boolean): Promise<void> {
  const { plan, examined, session } = of;
  const marker = await session.marker();
  if (marker?.identity !== examined.marker?.identity || marker?.bundle !== examined.marker?.bundle) {
    throw new RefusedError({
      code: "ERR_TARGET_NOT_PLANNED",
      message: `${examined.target.name} changed its marker while this run was under way`,
      why: `read ${examined.marker?.identity ?? "none"} before, ${marker?.identity ?? "none"} in the transaction`,
      next: [{ actor: "anyone", argv: ["holdpoint", "env", "check", examined.target.name] }],
    });
  }
  await refuseSpent(of, isFirst);
  const schema = await session.schema();
  if (schema.fingerprint !== plan.statement.schema.fingerprint)
    throw schemaDrift(plan, schema.fingerprint, []);
}

/** A plan is spent by one run: nobody's before its first batch, its own afterwards. */
async function refuseSpent(of: BatchOf, isFirst: boolean): Promise<void> {
  const { plan, session, run, authority } = of;
  const spent = await session.spentFor(plan.digest);
  if (!isFirst && spent?.run === run) return;
  const nonce = await firstSpent(session, authority.nonces);
  if (isFirst && spent === null && nonce === null) return;
  throw new RefusedError({
    code: "ERR_APPROVAL_SPENT",
    message: `${plan.id} was applied already${spent === null ? "" : `, by ${spent.run}`}`,
    why:
      spent === null
        ? "an approval of it was used by another run"
        : `applied ${spent.at}; a plan is applied once`,
    next: [{ actor: "anyone", argv: ["holdpoint", "status", plan.id] }],
  });
}

async function firstSpent(session: WriteSession, nonces: readonly string[]): Promise<string | null> {
  for (const nonce of nonces) if (await session.nonceSpent(nonce)) return nonce;
  return null;
}

/** What people have said since. It stops what would be written, never what is put back. */
function refuseNotes(of: BatchOf, notes: readonly Note[]): void {
  const { plan, under, run } = of;
  const held = heldBy(notes, plan.digest);
  if (held !== null) refuseHeld(of.examined.target.name, held);
  for (const note of notes) {
    if (note.kind === "rejected" && note.subject === plan.digest) {
      throw new RefusedError({
        code: "ERR_APPROVAL_REJECTED",
        message: `${plan.id} was rejected by ${note.by}`,
        why: `reason: ${note.reason}`,
        next: [{ actor: "requester", text: "Mend the job and make a new plan." }],
      });
    }
    if (note.kind === "revoked" && of.authority.nonces.includes(note.subject)) {
      throw new RefusedError({
        code: "ERR_APPROVAL_REVOKED",
        message: `an approval of ${plan.id} was taken back by ${note.by}`,
        why: `reason: ${note.reason}`,
        next: [{ actor: "approver", argv: ["holdpoint", "approve", plan.id] }],
      });
    }
    if (note.kind === "undone" && note.subject === run) throw takenBack(run, note);
    if (
      note.kind === "undone" &&
      under !== undefined &&
      note.subject === under.run &&
      !note.reason.endsWith(run)
    ) {
      throw new RefusedError({
        code: "ERR_APPROVAL_SPENT",
        message: `the undo that the approval of ${under.run} covers was used already`,
        why: `${note.reason}, ${note.at}; a cover is used once`,
        next: [{ actor: "approver", argv: ["holdpoint", "approve", plan.id] }],
      });
    }
  }
}

/** The refusal to go on with a run that an undo has taken back. */
export function takenBack(run: string, note: Note): RefusedError {
  return new RefusedError({
    code: "ERR_APPROVAL_SPENT",
    message: `${run} was taken back, so it does not go on`,
    why: `${note.reason}, ${note.at}`,
    next: [{ actor: "requester", text: "Make the plan again." }],
  });
}

function problemsBeforeCommit(plan: LoadedPlan, problems: readonly WriteProblem[]): HoldpointError {
  const drift = problems.filter((p) => p.kind === "drift");
  const first = drift[0];
  if (first !== undefined) {
    return new TargetError({
      code: "ERR_DRIFT_ROWS",
      message: `${plan.statement.target.name} moved while ${plan.id} was being written: ${drift.length} rows are not as planned`,
      why: `${first.change.table} ${first.change.key.map(keyText).join(", ")} ${first.now === null ? "is gone" : "was changed"}`,
      state: "Nothing was written. The approval is unused, and stands for the old rows only.",
      next: [{ actor: "requester", text: "Make the plan again." }],
      details: { moved: drift.length },
    });
  }
  return new TargetError({
    code: "ERR_DRIFT_ROWS",
    message: `${plan.statement.target.name} no longer takes what ${plan.id} would write`,
    why: problems.map(problemInWords).slice(0, 5).join("; "),
    next: [{ actor: "requester", text: "Look at the rows that stand in the way, then make the plan again." }],
    details: { problems: problems.length },
  });
}

/** A problem in one line: the row, and what stands in its way. */
export function problemInWords(p: WriteProblem): string {
  switch (p.kind) {
    case "drift":
      return `${p.change.table} ${p.change.key.map(keyText).join(", ")} moved`;
    case "constraint":
      return `${p.change.table} ${p.change.key.map(keyText).join(", ")}: ${p.message}`;
    case "foreign-key":
      return `${p.table}: ${p.message}`;
  }
}

function effectDiffers(plan: LoadedPlan, wrong: readonly WriteProblem[]): HoldpointError {
  return new TargetError({
    code: "ERR_EFFECT_DIFFERS",
    message: `${wrong.length} rows were not as signed after writing ${plan.id}, so it was put back`,
    why: wrong.slice(0, 3).map(problemInWords).join("; "),
    state: "Nothing was written: the transaction was rolled back.",
    next: [{ actor: "anyone", argv: ["holdpoint", "show", plan.id] }],
  });
}
