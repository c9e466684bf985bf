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
  /** The run that took it back, if one did. */
  readonly undoneBy: string | null;
  /** The runs that it took back. */
  readonly undoes: readonly string[];
}

const KINDS = ["run-started", "run-resumed", "run-committed", "run-finished", "run-failed"] as const;

/** All runs in the order in which they began. */
export async function allRuns(tools: Toolbox): Promise<readonly RunRecord[]> {
  const runs = new Map<string, RunRecord>();
  for (const sealed of (await tools.ledger()).entries({ kinds: KINDS })) {
    const { entry } = sealed;
    if (entry.run === null) continue;
    const known = runs.get(entry.run);
    const next = advance(known, sealed);
    runs.set(entry.run, next);
    if (next.state === "done") for (const undone of next.undoes) takeBack(runs, undone, next.id);
  }
  return [...runs.values()];
}

/** Some runs, each from its own entries: whether another one took it back is told only among them. */
export async function runsNamed(tools: Toolbox, ids: Iterable<string>): Promise<readonly RunRecord[]> {
  const runs = new Map<string, RunRecord>();
  const ledger = await tools.ledger();
  for (const id of ids) {
    let run: RunRecord | undefined;
    for (const sealed of ledger.entries({ run: id, kinds: KINDS })) run = advance(run, sealed);
    if (run !== undefined) runs.set(id, run);
  }
  for (const run of [...runs.values()].sort((a, b) => (a.startedAt < b.startedAt ? -1 : 1)))
    if (run.state === "done") for (const undone of run.undoes) takeBack(runs, undone, run.id);
  return [...runs.values()];
}

/** A run that is taken back no longer takes anything back itself: an undo of an undo. */
function takeBack(runs: Map<string, RunRecord>, id: string, by: string): void {
  const run = runs.get(id);
  if (run === undefined) return;
  runs.set(id, { ...run, state: "undone", undoneBy: by });
  for (const earlier of run.undoes) {
    const again = runs.get(earlier);
    if (again?.undoneBy === id) runs.set(earlier, { ...again, state: "done", undoneBy: null });
  }
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
    undoes: [],
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
  };
}
