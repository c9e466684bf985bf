/** Signs of life of a target, held against what was noted at its pin. See `target/vitals.ts` for what follows. */
import { decode, object, record, string, count } from "../../base/decode.js";
import type { Json } from "../../base/canonical.js";
import { HoldpointError } from "../../base/errors.js";
import type { TargetConfig } from "../../config/config.js";
import type { Evidence } from "../../environment/evidence.js";
import type { LedgerStore, SealedEntry } from "../../ledger/entry.js";
import { numberFact } from "../../ledger/facts.js";
import type { Marker } from "../../target/marker.js";
import type { Target } from "../../target/target.js";
import { liveEvidence, type PinnedVitals } from "../../target/vitals.js";
import type { Toolbox } from "../toolbox.js";

/** The evidence; nothing where the target has no vitals. */
export async function liveSignals(
  tools: Toolbox,
  target: Target,
  marker: Marker | null,
  { newestRow }: Pick<TargetConfig, "newestRow">,
): Promise<readonly Evidence[]> {
  const remembered = marker === null ? [] : await lastRun(tools, target, marker);
  if (target.vitals === undefined) return remembered;
  const vitals = await target.vitals(newestRow);
  const pinned = marker === null ? null : await notedAtPin(tools, target.name, marker.identity);
  return [...remembered, ...liveEvidence({ vitals, newest: newestRow, pinned, now: tools.clock.now() })];
}

/**
 * Whether the target remembers the last run that was completed on it. Every batch anchors the ledger's head with its rows,
 * so a target whose anchor is older was put back to a time before: restored in place, which neither path nor server
 * identity tells. Medium, so that it is shown and raises doubt, and the way back is not barred.
 */
async function lastRun(tools: Toolbox, target: Target, marker: Marker): Promise<readonly Evidence[]> {
  const own = await fromLedger(tools, null, (ledger) => ledger.head()?.ledger ?? null);
  const anchored = own === null ? null : await anchoredSequence(target, marker, own);
  if (anchored === null) return [];
  return fromLedger(tools, [], (ledger) => {
    const last = lastCompleted(ledger, target.name);
    if (last === null) return [];
    const run = `${last.run ?? ""} of ${last.at}`;
    const signal = { source: "last run", side: "target", strength: "medium", says: null } as const;
    if (anchored >= last.sequence) return [{ ...signal, state: "agrees", detail: run }];
    return [
      {
        ...signal,
        state: "contradicts",
        detail: "the target does not know a run that was completed on it: it was put back to an earlier time",
        expected: `${run} (entry ${last.sequence})`,
        found: `nothing after entry ${anchored}`,
      },
    ];
  });
}

/** The beginning of the last run that was completed and wrote rows. Every command asks: it must not read the whole history. */
function lastCompleted(ledger: LedgerStore, target: string): SealedEntry["entry"] | null {
  for (const { entry } of ledger.entries({ target, kinds: ["run-finished"], newestFirst: true })) {
    if (entry.run === null || (numberFact(entry, "rows") ?? 0) === 0) continue;
    for (const began of ledger.entries({ target, run: entry.run, kinds: ["run-started"] }))
      return began.entry;
  }
  return null;
}

/** How far the target knows this machine's ledger: the one that pinned it, or one that joined. */
async function anchoredSequence(target: Target, marker: Marker, ledger: string): Promise<number | null> {
  if (marker.ledger === ledger) return marker.ledgerSequence;
  return (await target.anchoredHead(ledger))?.sequence ?? null;
}

/** What the ledger tells; `otherwise` where it cannot be read: whoever needs it whole checks it, and says what is wrong. */
async function fromLedger<T>(tools: Toolbox, otherwise: T, ask: (ledger: LedgerStore) => T): Promise<T> {
  try {
    return ask(await tools.ledger());
  } catch (e) {
    if (!(e instanceof HoldpointError)) throw e;
    return otherwise;
  }
}

/** What an entry `target-pinned` notes of the vitals, to be compared later. */
export async function vitalsToNote(target: Target): Promise<{ readonly [key: string]: Json }> {
  if (target.vitals === undefined) return {};
  const { sizeBytes, history } = await target.vitals([]);
  return { vitals: { size_bytes: sizeBytes, history: { ...history } } };
}

const noted = object({ size_bytes: count, history: record(string) });

/** Null where the pin noted nothing, or was run as printed SQL, or the ledger cannot be read: whoever needs it whole checks it. */
async function notedAtPin(tools: Toolbox, target: string, identity: string): Promise<PinnedVitals | null> {
  return fromLedger<PinnedVitals | null>(tools, null, (ledger) => {
    let found: PinnedVitals | null = null;
    for (const { entry } of ledger.entries({ target, kinds: ["target-pinned"] })) {
      if (entry.facts["identity"] !== identity) continue;
      const decoded = decode(noted, entry.facts["vitals"] ?? null);
      if (decoded.ok)
        found = { sizeBytes: decoded.value.size_bytes, history: decoded.value.history, at: entry.at };
    }
    return found;
  });
}
