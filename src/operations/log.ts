/** The ledger, read: what happened, one run in full, and whether the chain is whole. */
import { IntegrityError } from "../base/errors.js";
import type { Anchor, SealedEntry } from "../ledger/entry.js";
import { textFact, textsFact } from "../ledger/facts.js";
import { anchorOf, anchorsFor } from "./judging/examine.js";
import { sharesTarget } from "./recall/history.js";
import { allRuns, findRun, type RunRecord } from "./recall/runs.js";
import type { Toolbox } from "./toolbox.js";

/** A plan that somebody refused for good. */
export interface RejectedPlan {
  readonly at: string;
  readonly plan: string;
  readonly target: string;
  readonly job: string;
  readonly requester: string | null;
  readonly by: string;
  readonly reason: string;
}

/** Masked columns that somebody looked at. */
export interface RevealedColumns {
  readonly at: string;
  readonly plan: string;
  readonly target: string;
  readonly job: string;
  readonly columns: readonly string[];
  readonly by: string;
  readonly reason: string;
}

/** What `log` lists: runs, what was refused a run (rejections), and who looked at masked values; newest first. */
export interface LogListing {
  readonly runs: readonly RunRecord[];
  readonly rejected: readonly RejectedPlan[];
  readonly revealed: readonly RevealedColumns[];
  readonly entries: number;
  readonly head: string | null;
}

/** Lists what happened, on one target or on all. */
export async function listLog(tools: Toolbox, on: string | null): Promise<LogListing> {
  const ledger = await tools.ledger();
  const head = ledger.head();
  const runs = (await allRuns(tools)).filter((r) => on === null || r.target === on);
  const rejected: RejectedPlan[] = [];
  const revealed: RevealedColumns[] = [];
  const planned = new Map<string, SealedEntry>();
  for (const sealed of ledger.entries({ kinds: ["planned", "rejected", "revealed"] })) {
    const { entry } = sealed;
    if (entry.kind === "planned" && entry.plan !== null) planned.set(entry.plan, sealed);
    if (entry.kind === "planned" || (on !== null && entry.target !== on)) continue;
    const made = planned.get(entry.plan ?? "")?.entry;
    const about = {
      at: entry.at,
      plan: entry.plan ?? "",
      target: entry.target ?? "",
      job: (made === undefined ? null : textFact(made, "job")) ?? "",
      by: textFact(entry, "by") ?? "",
      reason: textFact(entry, "reason") ?? "",
    };
    if (entry.kind === "revealed") revealed.push({ ...about, columns: textsFact(entry, "columns") });
    else rejected.push({ ...about, requester: made === undefined ? null : textFact(made, "by") });
  }
  return {
    runs: [...runs].reverse(),
    rejected: rejected.reverse(),
    revealed: revealed.reverse(),
    entries: head === null ? 0 : head.sequence + 1,
    head: head?.head ?? null,
  };
}

/** One run with every entry about it and its plan. */
export async function showRun(
  tools: Toolbox,
  ref: string,
): Promise<{ readonly run: RunRecord; readonly entries: readonly SealedEntry[] }> {
  const run = await findRun(tools, ref);
  const entries = [...(await tools.ledger()).entries({ plan: run.plan })].filter(
    (e) => e.entry.run === null || e.entry.run === run.id,
  );
  return { run, entries };
}

/** A ledger that is whole. */
export interface LogVerified {
  readonly entries: number;
  readonly head: string;
  readonly anchors: readonly string[];
}

/**
 * Checks the chain from its first entry, and against the heads that every reachable target anchors.
 * @throws IntegrityError ERR_LEDGER_BROKEN (35), naming the first bad entry; ERR_LEDGER_MISSING.
 */
export async function verifyLog(tools: Toolbox): Promise<LogVerified> {
  const ledger = await tools.ledger();
  const { anchors, unreachable } = await anchorsOf(tools, ledger.head()?.ledger ?? "");
  const verification = ledger.verify(anchors);
  if (!verification.ok) {
    throw new IntegrityError({
      code: "ERR_LEDGER_BROKEN",
      message: `the ledger is not intact from entry ${verification.firstBad} on`,
      why: verification.why,
      next: [
        {
          actor: "anyone",
          text: "Do not retry. Keep the store as it is and compare it with a copy kept elsewhere.",
        },
      ],
      details: { entries: verification.entries, first_bad: verification.firstBad, head: null },
    });
  }
  return {
    entries: verification.entries,
    head: verification.head,
    anchors: [...anchors.map((a) => a.where), ...unreachable.map((t) => `${t} was not asked`)],
  };
}

/** The heads anchored in the configured targets; a target that cannot be reached anchors nothing, and is named. */
async function anchorsOf(
  tools: Toolbox,
  here: string,
): Promise<{ readonly anchors: readonly Anchor[]; readonly unreachable: readonly string[] }> {
  const anchors: Anchor[] = [];
  const unreachable: string[] = [];
  for (const name of Object.keys(tools.project.config.targets)) {
    try {
      const { target } = await tools.openTarget(name);
      try {
        const { marker } = await target.identify();
        if (marker === null) continue;
        if (sharesTarget(tools, name)) anchors.push(...(await anchorsFor(target, marker, here)));
        else anchors.push(anchorOf(marker, name));
      } finally {
        await target.close();
      }
    } catch {
      unreachable.push(name);
    }
  }
  return { anchors, unreachable };
}
