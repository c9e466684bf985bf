/** Runs as the ledger tells them. */
import { UsageError } from "../base/errors.js";
import { isIdOrPrefix } from "../base/ids.js";
import type { SealedEntry } from "../ledger/entry.js";
import { numberFact, textFact, textsFact } from "../ledger/facts.js";
import type { Toolbox } from "./toolbox.js";

/** One run. */
export interface RunRecord {
  readonly id: string;
  readonly plan: string;
  readonly target: string;
  readonly state: "started" | "done" | "failed" | "undone";
  readonly job: string;
  readonly rows: number;
  readonly by: string | null;
  readonly approvers: readonly string[];
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

/** All runs in the order in which they began. */
export async function allRuns(tools: Toolbox): Promise<readonly RunRecord[]> {
  const runs = new Map<string, RunRecord>();
  const kinds = ["run-started", "run-finished", "run-failed"] as const;
  for (const sealed of (await tools.ledger()).entries({ kinds })) {
    const { entry } = sealed;
    if (entry.run === null) continue;
    const known = runs.get(entry.run);
    const next = advance(known, sealed);
    runs.set(entry.run, next);
    for (const undone of next.undoes) {
      const before = runs.get(undone);
      if (before !== undefined && next.state === "done")
        runs.set(undone, { ...before, state: "undone", undoneBy: next.id });
    }
  }
  return [...runs.values()];
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
  if (run.state === "done" || run.state === "undone") return run;
  throw new UsageError({
    code: "ERR_UNDO_NOTHING",
    message: `${run.id} wrote nothing, so there is nothing to take back`,
    why: run.state === "failed" ? `it ended with ${run.code ?? "an error"}` : "it never finished",
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
    startedAt: entry.at,
    endedAt: null,
    coverUntil: null,
    snapshot: null,
    code: null,
    undoneBy: null,
    undoes: [],
  };
  if (entry.kind === "run-failed")
    return { ...base, state: "failed", endedAt: entry.at, code: textFact(entry, "code") };
  if (entry.kind === "run-started") {
    return { ...base, approvers: textsFact(entry, "approvers"), snapshot: textFact(entry, "snapshot") };
  }
  return {
    ...base,
    state: "done",
    endedAt: entry.at,
    job: textFact(entry, "job") ?? "",
    rows: numberFact(entry, "rows") ?? 0,
    by: textFact(entry, "by"),
    approvers: textsFact(entry, "approvers"),
    coverUntil: textFact(entry, "cover_undo_until"),
    snapshot: textFact(entry, "snapshot") ?? base.snapshot,
    undoes: textsFact(entry, "undoes"),
  };
}
