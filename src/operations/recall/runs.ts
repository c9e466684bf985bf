/** Runs as the ledger tells them. */
import { UsageError } from "../../base/errors.js";
import { isIdOrPrefix } from "../../base/ids.js";
import type { SealedEntry } from "../../ledger/entry.js";
import { numberFact, textFact, textsFact } from "../../ledger/facts.js";
import type { Toolbox } from "../toolbox.js";

/** One run. */
export interface RunRecord {
  readonly id: string;
  readonly plan: string;
  readonly target: string;
  /** `stopped`: part of it is committed; `failed`: nothing is. A run that was killed stays `started`. */
  readonly state: "started" | "done" | "stopped" | "failed" | "undone";
  readonly job: string;
  readonly rows: number;
  readonly by: string | null;
  readonly approvers: readonly string[];
  /** Who broke the glass in place of approvers; null where nobody did. */
  readonly breakGlass: string | null;
  readonly startedAt: string;
  readonly endedAt: string | null;
  readonly coverUntil: string | null;
  readonly snapshot: string | null;
  readonly code: string | null;
  /** The newest run that took it, or a part of it, back and still stands. */
  readonly undoneBy: string | null;
  /** Rows of it that no undo has dealt with, at most, where one took back a part; null where none did, or one did all. */
  readonly rowsLeft: number | null;
  /** The runs that it took back. */
  readonly undoes: readonly string[];
  /** What it did as an undo; null where it is none, or is from before this was recorded. */
  readonly tookBack: TookBack | null;
}

/** Rows of an undo, over all the runs that it takes back. */
export interface TookBack {
  /** Put back, whole or merged: each row of a run once, whatever other undos did. */
  readonly putBack: number;
  /** These, and those of which nothing was left to put back. Rows that were narrowed away or left in conflict are neither. */
  readonly dealtWith: number;
}

const KINDS = ["run-started", "run-resumed", "run-committed", "run-finished", "run-failed"] as const;

/** All runs in the order in which they began. */
export async function allRuns(tools: Toolbox): Promise<readonly RunRecord[]> {
  const runs = new Map<string, RunRecord>();
  const undos: Undos = new Map();
  for (const sealed of (await tools.ledger()).entries({ kinds: KINDS })) {
    const { entry } = sealed;
    if (entry.run === null) continue;
    const known = runs.get(entry.run);
    const next = advance(known, sealed);
    runs.set(entry.run, next);
    if (next.state === "done") for (const undone of next.undoes) takeBack(runs, undos, undone, next);
  }
  return [...runs.values()];
}

/** Some runs, each from its own entries: whether another one took it back is told only among them. */
export async function runsNamed(tools: Toolbox, ids: Iterable<string>): Promise<readonly RunRecord[]> {
  const runs = new Map<string, RunRecord>();
  const undos: Undos = new Map();
  const ledger = await tools.ledger();
  for (const id of ids) {
    let run: RunRecord | undefined;
    for (const sealed of ledger.entries({ run: id, kinds: KINDS })) run = advance(run, sealed);
    if (run !== undefined) runs.set(id, run);
  }
  for (const run of [...runs.values()].sort((a, b) => (a.startedAt < b.startedAt ? -1 : 1)))
    if (run.state === "done") for (const undone of run.undoes) takeBack(runs, undos, undone, run);
  return [...runs.values()];
}

/** The undos of each run that stand, in their order. */
type Undos = Map<string, readonly RunRecord[]>;

/** A run that is taken back whole no longer takes anything back itself: an undo of an undo. */
function takeBack(runs: Map<string, RunRecord>, undos: Undos, id: string, by: RunRecord): void {
  undos.set(id, [...(undos.get(id) ?? []), by]);
  standAs(runs, undos, id);
  if (runs.get(id)?.state !== "undone") return;
  for (const earlier of runs.get(id)?.undoes ?? []) {
    undos.set(
      earlier,
      (undos.get(earlier) ?? []).filter((u) => u.id !== id),
    );
    standAs(runs, undos, earlier);
  }
}

/** What the undos of a run that stand make of it. */
function standAs(runs: Map<string, RunRecord>, undos: Undos, id: string): void {
  const run = runs.get(id);
  const standing = undos.get(id) ?? [];
  if (run === undefined) return;
  const before = run.state === "undone" ? "done" : run.state;
  const last = standing.at(-1);
  if (last === undefined) {
    runs.set(id, { ...run, state: before, undoneBy: null, rowsLeft: null });
    return;
  }
  const left = rowsLeft(runs, run, standing);
  runs.set(id, {
    ...run,
    state: left === 0 ? "undone" : before,
    undoneBy: last.id,
    rowsLeft: left === 0 ? null : left,
  });
}

/**
 * How many rows are left at most. Two undos of a part may have met the same rows, so what several dealt with is not added up;
 * what they put back is, since a row is put back once. Where an undo took back several runs, its rows are those of all of them.
 */
function rowsLeft(
  runs: ReadonlyMap<string, RunRecord>,
  run: RunRecord,
  standing: readonly RunRecord[],
): number {
  let [putBack, most] = [0, 0];
  for (const { tookBack, undoes } of standing) {
    if (tookBack === null) return 0; // from before parts were told apart
    const others = undoes.filter((id) => id !== run.id).reduce((n, id) => n + (runs.get(id)?.rows ?? 0), 0);
    putBack += Math.max(0, tookBack.putBack - others);
    most = Math.max(most, tookBack.dealtWith - others);
  }
  return Math.max(0, run.rows - Math.max(putBack, most));
}

/**
 * The one run that `ref` names by its id or a unique beginning of it, finished or undone.
 * @throws UsageError ERR_RUN_UNKNOWN, ERR_RUN_AMBIGUOUS.
 */
export async function findRun(tools: Toolbox, ref: string): Promise<RunRecord> {
  const found = isIdOrPrefix("rn", ref) ? (await allRuns(tools)).filter((r) => r.id.startsWith(ref)) : [];
  const [run] = found;
  if (run === undefined) {
    throw new UsageError({
      code: "ERR_RUN_UNKNOWN",
      message: `there is no run ${ref} in this ledger`,
      next: [{ actor: "anyone", argv: ["holdpoint", "log"] }],
    });
  }
  if (found.length > 1) {
    throw new UsageError({
      code: "ERR_RUN_AMBIGUOUS",
      message: `${ref} is the beginning of ${found.length} runs`,
      why: found.map((r) => r.id).join(", "),
      next: [{ actor: "anyone", argv: ["holdpoint", "log"] }],
    });
  }
  return run;
}

/** Runs that an undo may take back: those that wrote. */
export async function findWrittenRun(tools: Toolbox, ref: string): Promise<RunRecord> {
  const run = await findRun(tools, ref);
  // A run that was killed may have written: its rows tell, and what it has not written is nothing to do.
  if (run.state !== "failed") return run;
  throw new UsageError({
    code: "ERR_UNDO_NOTHING",
    message: `${run.id} wrote nothing, so there is nothing to take back`,
    why: `it ended with ${run.code ?? "an error"}`,
    next: [{ actor: "anyone", argv: ["holdpoint", "status", run.plan] }],
  });
}

function advance(known: RunRecord | undefined, { entry }: SealedEntry): RunRecord {
  const base: RunRecord = known ?? {
    id: entry.run ?? "",
    plan: entry.plan ?? "",
    target: entry.target ?? "",
    state: "started",
    job: "",
    rows: 0,
    by: null,
    approvers: [],
    breakGlass: null,
    startedAt: entry.at,
    endedAt: null,
    coverUntil: null,
    snapshot: null,
    code: null,
    undoneBy: null,
    rowsLeft: null,
    undoes: [],
    tookBack: null,
  };
  if (entry.kind === "run-failed") {
    const rows = numberFact(entry, "rows") ?? 0;
    const state = textFact(entry, "target_changed") === "no" ? "failed" : "stopped";
    return { ...base, state, rows, endedAt: entry.at, code: textFact(entry, "code") };
  }
  if (entry.kind === "run-committed") return { ...base, rows: numberFact(entry, "rows") ?? base.rows };
  if (entry.kind === "run-resumed") return { ...base, state: "started", endedAt: null, code: null };
  if (entry.kind === "run-started") {
    return { ...base, approvers: textsFact(entry, "approvers"), snapshot: textFact(entry, "snapshot") };
  }
  return {
    ...base,
    state: "done",
    code: null,
    endedAt: entry.at,
    job: textFact(entry, "job") ?? "",
    rows: numberFact(entry, "rows") ?? 0,
    by: textFact(entry, "by"),
    approvers: textsFact(entry, "approvers"),
    breakGlass: textFact(entry, "break_glass"),
    coverUntil: textFact(entry, "cover_undo_until"),
    snapshot: textFact(entry, "snapshot") ?? base.snapshot,
    undoes: textsFact(entry, "undoes"),
    tookBack: tookBackOf(entry),
  };
}

function tookBackOf(entry: SealedEntry["entry"]): TookBack | null {
  const [putBack, dealtWith] = [numberFact(entry, "put_back"), numberFact(entry, "dealt_with")];
  return putBack === null || dealtWith === null ? null : { putBack, dealtWith };
}
