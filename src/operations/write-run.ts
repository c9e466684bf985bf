/**
 * One run: snapshot, rows, marks and record, in the order in which a crash at any point leaves a state that
 * the next command can tell. Before the commit the target is as it was; the commit carries rows, spent mark
 * and ledger head together; after it only records are missing, and `apply` completes them.
 */
import { stamp } from "../base/clock.js";
import { HoldpointError, messageOf, RefusedError, TargetError } from "../base/errors.js";
import { idFromBytes } from "../base/ids.js";
import type { LedgerStore, SealedEntry } from "../ledger/entry.js";
import { beforeImages } from "../snapshot/before-images.js";
import type { Note } from "../target/marker.js";
import type { WriteProblem, WriteSession } from "../target/target.js";
import type { Applied } from "./apply.js";
import type { Authority } from "./authority.js";
import { coverOf, type Cover } from "./cover.js";
import { keyText, schemaDrift } from "./drift.js";
import type { Examined } from "./examine.js";
import { stopIfInterrupted } from "./interruption.js";
import { isFinished } from "./plan-state.js";
import type { LoadedPlan, Toolbox } from "./toolbox.js";

/** Everything a run works with; all checks have passed. */
export interface Writing {
  readonly plan: LoadedPlan;
  readonly examined: Examined;
  readonly ledger: LedgerStore;
  readonly authority: Authority;
  readonly started: Date;
  readonly under: Cover | undefined;
}

/** From the snapshot to the anchored end. Everything before the commit leaves the target as it was. */
export async function writeRun(tools: Toolbox, w: Writing): Promise<Applied> {
  const { plan, examined, ledger } = w;
  const run = idFromBytes("rn", tools.random(10));
  const session = await examined.target.openWriter();
  try {
    const snapshot = await takeSnapshot(tools, w, run);
    const opened = ledger.append({
      kind: "run-started",
      target: examined.target.name,
      plan: plan.id,
      run,
      facts: {
        digest: plan.digest,
        approvers: [...w.authority.approvers],
        snapshot: snapshot.id,
        manifest: snapshot.digest,
      },
    });
    let written: { readonly written: number; readonly alreadyDone: number };
    try {
      written = await writeOnce(tools, w, session, run, opened);
    } catch (e) {
      recordFailure(ledger, w, run, e);
      throw e;
    }
    const finished = finishRun(tools, ledger, w, run, written.written, snapshot.id);
    await anchorEnd(session, finished);
    return {
      run,
      plan: plan.id,
      target: examined.target.name,
      environment: examined.verdict.guardedAs,
      rows: { planned: plan.statement.changeset.rows, ...written },
      snapshot: snapshot.id,
      approvers: w.authority.approvers,
      coverUntil: coverUntil(tools, w),
      tookMs: tools.clock.now().getTime() - w.started.getTime(),
      dryRun: false,
      completed: false,
    };
  } finally {
    await session.close();
  }
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
    );
    (await tools.ledger()).append({
      kind: "snapshot-taken",
      target: examined.target.name,
      plan: plan.id,
      run,
      facts: { snapshot: manifest.id, manifest: digest, rows: manifest.rows, content: manifest.content },
    });
    done(`snapshot ${manifest.id}: ${manifest.rows} rows saved, read back, compared`);
    return { id: manifest.id, digest };
  } catch (e) {
    done();
    throw e;
  }
}

async function writeOnce(
  tools: Toolbox,
  w: Writing,
  session: WriteSession,
  run: string,
  opened: SealedEntry,
): Promise<{ readonly written: number; readonly alreadyDone: number }> {
  await session.begin();
  try {
    await requireStillOurs(w, session);
    stopIfInterrupted(tools.interruption);
    const outcome = await session.write(w.plan.changes, w.plan.statement.sequences);
    if (outcome.problems.length > 0) throw problemsBeforeCommit(w.plan, outcome.problems);
    const wrong = await session.verify(w.plan.changes);
    if (wrong.length > 0) throw effectDiffers(w.plan, wrong);
    const at = stamp(tools.clock.now());
    await session.spend({ plan: w.plan.id, planDigest: w.plan.digest, run, nonces: w.authority.nonces, at });
    await session.markBatch({ run, wave: 1, batch: 1, rows: outcome.written, at });
    for (const note of undoNotes(w, run, at)) await session.addNote(note);
    await session.anchor({ sequence: opened.entry.sequence, head: opened.digest });
    stopIfInterrupted(tools.interruption);
    await session.commit();
    return { written: outcome.written, alreadyDone: outcome.alreadyDone };
  } catch (e) {
    await session.rollback();
    throw e;
  }
}

/** An undo leaves a note of the runs it took back, so that a cover is used once even if the ledger is lost. */
function undoNotes(w: Writing, run: string, at: string): readonly Note[] {
  if (w.plan.statement.from?.kind !== "undo") return [];
  const by = w.plan.statement.requester.person ?? "unknown";
  return w.plan.statement.from.runs.map((subject) => ({
    kind: "undone" as const,
    subject,
    at,
    by,
    reason: `undone by ${run}`,
  }));
}

/** Inside the transaction, under the write lock: identity, trust, spent marks and rejections as they are now. */
async function requireStillOurs(w: Writing, session: WriteSession): Promise<void> {
  const { plan, examined } = w;
  const marker = await session.marker();
  if (marker?.identity !== examined.marker?.identity || marker?.bundle !== examined.bundleDigest) {
    throw new RefusedError({
      code: "ERR_TARGET_NOT_PLANNED",
      message: `${examined.target.name} changed its marker while this run was starting`,
      why: `read ${examined.marker?.identity ?? "none"} before, ${marker?.identity ?? "none"} in the transaction`,
      next: [{ actor: "anyone", argv: ["holdpoint", "env", "check", examined.target.name] }],
    });
  }
  const spent = await session.spentFor(plan.digest);
  const nonce = await firstSpent(session, w.authority.nonces);
  if (spent !== null || nonce !== null) {
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
  refuseNotes(w, await session.notes());
  const schema = await session.schema();
  if (schema.fingerprint !== plan.statement.schema.fingerprint)
    throw schemaDrift(plan, schema.fingerprint, []);
}

async function firstSpent(session: WriteSession, nonces: readonly string[]): Promise<string | null> {
  for (const nonce of nonces) if (await session.nonceSpent(nonce)) return nonce;
  return null;
}

function refuseNotes(w: Writing, notes: readonly Note[]): void {
  const { plan } = w;
  for (const note of notes) {
    if (note.kind === "rejected" && note.subject === plan.digest) {
      throw new RefusedError({
        code: "ERR_APPROVAL_REJECTED",
        message: `${plan.id} was rejected by ${note.by}`,
        why: `reason: ${note.reason}`,
        next: [{ actor: "requester", text: "Mend the job and make a new plan." }],
      });
    }
    if (note.kind === "undone" && w.under !== undefined && note.subject === w.under.run) {
      throw new RefusedError({
        code: "ERR_APPROVAL_SPENT",
        message: `the undo that the approval of ${w.under.run} covers was used already`,
        why: `${note.reason}, ${note.at}; a cover is used once`,
        next: [{ actor: "approver", argv: ["holdpoint", "approve", plan.id] }],
      });
    }
  }
}

function problemsBeforeCommit(plan: LoadedPlan, problems: readonly WriteProblem[]): HoldpointError {
  const drift = problems.filter((p) => p.kind === "drift");
  if (drift.length > 0) {
    const first = drift[0];
    return new TargetError({
      code: "ERR_DRIFT_ROWS",
      message: `${plan.statement.target.name} moved while ${plan.id} was being written: ${drift.length} rows are not as planned`,
      why:
        first === undefined
          ? ""
          : `${first.change.table} ${first.change.key.map(keyText).join(", ")} ${first.now === null ? "is gone" : "was changed"}`,
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

function problemInWords(p: WriteProblem): string {
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
    code: "ERR_CHECK_PUT_BACK",
    message: `${wrong.length} rows were not as signed after writing ${plan.id}, so it was put back`,
    why: wrong.slice(0, 3).map(problemInWords).join("; "),
    state: "Nothing was written: the transaction was rolled back.",
    next: [{ actor: "anyone", argv: ["holdpoint", "show", plan.id] }],
  });
}

function recordFailure(ledger: LedgerStore, w: Writing, run: string, e: unknown): void {
  ledger.append({
    kind: "run-failed",
    target: w.examined.target.name,
    plan: w.plan.id,
    run,
    facts: {
      code: e instanceof HoldpointError ? e.code : "ERR_INTERNAL",
      target_changed: e instanceof HoldpointError ? e.targetChanged : "no",
      message: e instanceof HoldpointError ? e.code : messageOf(e).slice(0, 200),
    },
  });
}

function finishRun(
  tools: Toolbox,
  ledger: LedgerStore,
  w: Writing,
  run: string,
  rows: number,
  snapshot: string,
): SealedEntry {
  const { statement } = w.plan;
  return ledger.append({
    kind: "run-finished",
    target: w.examined.target.name,
    plan: w.plan.id,
    run,
    facts: {
      digest: w.plan.digest,
      changeset: statement.changeset.digest,
      rows,
      job: statement.job?.name ?? statement.from?.kind ?? "",
      by: statement.requester.person,
      approvers: [...w.authority.approvers],
      under: w.under === undefined ? null : w.under.run,
      undoes: statement.from?.kind === "undo" ? [...statement.from.runs] : [],
      snapshot,
      cover_undo_until: coverUntil(tools, w),
    },
  });
}

function coverUntil(tools: Toolbox, w: Writing): string | null {
  const seconds = w.authority.coverUndoSeconds;
  return seconds === null ? null : stamp(new Date(tools.clock.now().getTime() + seconds * 1000));
}

/** The head after the run, in a transaction of its own; a crash before it leaves the head of the run's beginning. */
async function anchorEnd(session: WriteSession, finished: SealedEntry): Promise<void> {
  await session.begin();
  try {
    await session.anchor({ sequence: finished.entry.sequence, head: finished.digest });
    await session.commit();
  } catch (e) {
    await session.rollback();
    throw new HoldpointError({
      code: "ERR_INTERNAL",
      message: "the run is done, and its last ledger head could not be anchored",
      targetChanged: "yes",
      state: "All rows were written as planned.",
      cause: e,
    });
  }
}

/** A run that was killed after its commit: the rows are there and marked, only the record is missing. */
export async function finishKilledRun(
  tools: Toolbox,
  plan: LoadedPlan,
  examined: Examined,
  ledger: LedgerStore,
): Promise<Applied | null> {
  const spent = await examined.target.spentFor(plan.digest);
  if (spent === null || (await isFinished(tools, spent.run))) return null;
  const rows = (await examined.target.batches(spent.run)).reduce((n, b) => n + b.rows, 0);
  const cover = await coverOf(tools, plan, examined);
  ledger.append({
    kind: "run-finished",
    target: examined.target.name,
    plan: plan.id,
    run: spent.run,
    facts: {
      digest: plan.digest,
      changeset: plan.statement.changeset.digest,
      rows,
      job: plan.statement.job?.name ?? plan.statement.from?.kind ?? "",
      by: plan.statement.requester.person,
      approvers: cover === null ? [] : [...cover.approvers],
      under: null,
      undoes: plan.statement.from?.kind === "undo" ? [...plan.statement.from.runs] : [],
      snapshot: null,
      cover_undo_until: cover?.until ?? null,
      completed_later: true,
    },
  });
  return {
    run: spent.run,
    plan: plan.id,
    target: examined.target.name,
    environment: examined.verdict.guardedAs,
    rows: { planned: plan.statement.changeset.rows, written: rows, alreadyDone: 0 },
    snapshot: null,
    approvers: cover?.approvers ?? [],
    coverUntil: cover?.until ?? null,
    tookMs: 0,
    dryRun: false,
    completed: true,
  };
}
