/** A rejection is final for its plan, and is remembered for its effect: a plan of the same rows says who said no. */
import { stamp, parseStamp } from "../../base/clock.js";
import type { Digest } from "../../base/digest.js";
import { textFact } from "../../ledger/facts.js";
import type { Toolbox } from "../toolbox.js";

/** Somebody's no to the same effect. */
export interface EarlierRejection {
  readonly plan: string;
  readonly by: string;
  readonly reason: string;
  readonly at: string;
}

/** Rejections on this target of plans whose ChangeSet has that digest, oldest first. */
export async function rejectionsOfEffect(
  tools: Toolbox,
  target: string,
  changeset: Digest,
): Promise<readonly EarlierRejection[]> {
  const ledger = await tools.ledger();
  const same = new Set<string>();
  const found: EarlierRejection[] = [];
  for (const { entry } of ledger.entries({ target, kinds: ["planned", "rejected"] })) {
    if (entry.plan === null) continue;
    if (entry.kind === "planned") {
      if (textFact(entry, "changeset") === changeset) same.add(entry.plan);
    } else if (same.has(entry.plan)) {
      const [by, reason] = [textFact(entry, "by") ?? "somebody", textFact(entry, "reason") ?? ""];
      found.push({ plan: entry.plan, by, reason, at: entry.at });
    }
  }
  return found;
}

/** `the same effect was rejected by ravi as pl_…, 2026-11-24: paid orders must stay`. */
export function rejectionInWords(r: EarlierRejection): string {
  const day = stamp(parseStamp(r.at) ?? new Date(0)).slice(0, 10);
  return `the same effect was rejected by ${r.by} as ${r.plan}, ${day}: ${r.reason}`;
}
