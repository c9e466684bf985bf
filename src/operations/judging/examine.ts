/**
 * The first step of every operation on a target: open it, ask it who it is, judge, and hold trust bundle
 * and history against what was pinned. Nothing here writes.
 */
import { bundleDigest, diffBundles, type TrustBundle } from "../../approval/bundle.js";
import type { Digest } from "../../base/digest.js";
import { shortDigest } from "../../base/digest.js";
import { IntegrityError, isOutOfReach, messageOf, RefusedError } from "../../base/errors.js";
import { type Purpose, targetConfigOf } from "../../config/config.js";
import type { Verdict } from "../../environment/evidence.js";
import { judge } from "../../environment/verdict.js";
import type { Anchor, LedgerStore } from "../../ledger/entry.js";
import type { Marker } from "../../target/marker.js";
import type { Identification, Target } from "../../target/target.js";
import { liveSignals } from "./live-signals.js";
import { otherConnection } from "./other-connection.js";
import { timeOf } from "./time.js";
import type { SystemPin } from "../../config/system-pins.js";
import { sharesTarget } from "../recall/history.js";
import type { Toolbox, ValueOrigin } from "../toolbox.js";

/** An open target with what it said about itself. */
export interface Examined {
  readonly target: Target;
  readonly origins: readonly ValueOrigin[];
  readonly identification: Identification;
  readonly verdict: Verdict;
  readonly marker: Marker | null;
  readonly bundle: TrustBundle;
  readonly bundleDigest: Digest;
  /** What root pinned on this machine for a target of this name; it wins over the marker. */
  readonly systemPin: SystemPin | null;
}

/**
 * Opens the target, runs `work` with what it said, and closes it whatever happens. Where the configuration keeps the role
 * that plans apart from the one that writes, `purpose` says which; to write is never the default.
 */
export async function withTarget<T>(
  tools: Toolbox,
  name: string,
  work: (examined: Examined) => Promise<T>,
  purpose: Purpose = "plan",
): Promise<T> {
  const { target, origins } = await tools.openTarget(name, purpose);
  try {
    return await work(await examine(tools, target, origins, purpose));
  } finally {
    await target.close();
  }
}

/** A target as far as this machine gets: examined, or why it could not be opened. */
export type Reached =
  | { readonly examined: Examined; readonly why: null }
  | { readonly examined: null; readonly why: string };

/**
 * {@link withTarget} where the target can be opened from this machine; else `work` is told why not. Only what says
 * that this machine has no way there counts; a target that answers and contradicts is never out of reach.
 */
export async function withTargetIfReached<T>(
  tools: Toolbox,
  name: string,
  work: (reached: Reached) => Promise<T>,
): Promise<T> {
  let examined: Examined;
  try {
    const { target, origins } = await tools.openTarget(name);
    try {
      examined = await examine(tools, target, origins, "plan");
    } catch (e) {
      await target.close();
      throw e;
    }
  } catch (e) {
    if (!isOutOfReach(e)) throw e;
    return work({ examined: null, why: messageOf(e) });
  }
  try {
    return await work({ examined, why: null });
  } finally {
    await examined.target.close();
  }
}

async function examine(
  tools: Toolbox,
  target: Target,
  origins: readonly ValueOrigin[],
  purpose: Purpose,
): Promise<Examined> {
  const configured = targetConfigOf(tools.project.config, target.name);
  const identification = await target.identify();
  const verdict = judge({
    claim: configured.environment,
    pinnedIdentity: configured.identity,
    targetName: target.name,
    marker: identification.marker,
    place: identification.place,
    signals: [
      ...identification.signals,
      ...(await otherConnection(tools, configured, purpose, identification)),
      ...(await liveSignals(tools, target, identification.marker, configured)),
    ],
    machine: tools.machineEvidence(target.name, purpose),
  });
  const bundle = tools.project.bundleFor(target.name);
  return {
    target,
    origins,
    identification,
    verdict,
    marker: identification.marker,
    bundle,
    bundleDigest: bundleDigest(bundle),
    systemPin: await tools.systemPin(target.name),
  };
}

/** How long an inherited value has been set, in words; nothing where nobody can tell. */
export function ageInWords({ age }: ValueOrigin): readonly string[] {
  switch (age ?? null) {
    case "before-parent":
      return ["set before the process that started this command"];
    case "since":
      return ["set in the shell that started this command, or for it alone"];
    case null:
      return [];
  }
}

/** Refuses (33) when strong signals of the target contradict each other or the configuration. */
export function refuseContradiction(examined: Examined): void {
  const { verdict, target, origins } = examined;
  if (!verdict.contradicted) return;
  const against = verdict.evidence.filter((e) => e.state === "contradicts");
  throw new RefusedError({
    code: "ERR_ENV_CONTRADICTED",
    message: `${target.name} is not what it was pinned as`,
    why: [
      ...against.map((e) => `${e.source}: expected ${e.expected ?? "?"}, found ${e.found ?? "?"}`),
      // An address that nobody typed here is the first thing to look at.
      ...origins
        .filter((o) => o.inherited)
        .map((o) => `${o.part} was inherited: ${[o.from, ...ageInWords(o)].join(", ")}`),
    ].join("; "),
    next: [{ actor: "anyone", argv: ["holdpoint", "env", "check", target.name] }],
    details: against.map((e) => ({ source: e.source, expected: e.expected ?? null, found: e.found ?? null })),
  });
}

/** Refuses (30) when the people, policies or guarding configuration here are not those the target was pinned with. */
export async function refuseOtherBundle(tools: Toolbox, examined: Examined): Promise<void> {
  const { marker, target, systemPin } = examined;
  if (systemPin !== null) refuseOtherThanSystem(examined, systemPin);
  const digest = systemPin?.bundle ?? marker?.bundle;
  if (digest === undefined || digest === examined.bundleDigest) return;
  const pinned = await tools.bundles.find(digest);
  const differs = pinned === null ? [] : diffBundles(pinned, examined.bundle);
  throw new RefusedError({
    code: "ERR_TRUST_BUNDLE",
    message: `the people, policies or guarding configuration here are not those pinned ${systemPin === null ? "in" : "by this system for"} ${target.name}`,
    why:
      `pinned ${shortDigest(digest)}, here ${shortDigest(examined.bundleDigest)}` +
      (differs.length === 0 ? "" : `: ${differs.join("; ")}`),
    next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show", "--on", target.name] }],
    details: { pinned: digest, here: examined.bundleDigest, differs: [...differs] },
  });
}

/** Root named an identity: a target without it, or with another, is not the one that root meant. */
function refuseOtherThanSystem({ marker, target }: Examined, systemPin: SystemPin): void {
  if (marker?.identity === systemPin.identity) return;
  throw new RefusedError({
    code: "ERR_TRUST_BUNDLE",
    message: `${target.name} is not the target that this system pins under that name`,
    why: `the system pins ${systemPin.identity}, the target says ${marker?.identity ?? "nothing: it has no marker"}`,
    next: [{ actor: "anyone", argv: ["holdpoint", "env", "check", target.name] }],
  });
}

/**
 * Refuses (35) a ledger that is missing, another, broken, or that lacks the head anchored in the target:
 * a missing ledger is never an empty history. Refuses (31) a clock that cannot be right. An unpinned target anchors nothing; its chain is still checked.
 */
export async function requireHistory(tools: Toolbox, examined: Examined): Promise<LedgerStore> {
  const ledger = await tools.ledger();
  const { marker, target } = examined;
  if (marker !== null && sharesTarget(tools, target.name)) return requireOwnHistory(tools, examined, marker);
  if (marker === null) {
    if (ledger.head() === null) ledger.create();
    else requireIntact(ledger, []);
    await timeOf(tools, examined);
    return ledger;
  }
  const head = ledger.head();
  if (head === null) {
    throw new IntegrityError({
      code: "ERR_LEDGER_MISSING",
      message: `there is no ledger here, and ${target.name} was pinned with one`,
      why: `${target.name} anchors ledger ${marker.ledger} at entry ${marker.ledgerSequence}; the store is empty`,
      next: [
        { actor: "anyone", text: "Bring back the store that holds this ledger, then run the command again." },
      ],
    });
  }
  if (head.ledger !== marker.ledger) {
    throw new IntegrityError({
      code: "ERR_LEDGER_OTHER",
      message: `the ledger here is not the one ${target.name} was pinned with`,
      why: `pinned with ${marker.ledger}, found ${head.ledger}`,
      next: [
        {
          actor: "anyone",
          text: "Bring back the store that holds the pinned ledger; do not retry with this one.",
        },
      ],
    });
  }
  requireIntact(ledger, [anchorOf(marker, target.name)]);
  await timeOf(tools, examined);
  return ledger;
}

/**
 * Where machines keep ledgers of their own, each must have what the target anchors of it. One that the target does not
 * know has nothing to answer for: what others' runs left is in the target's marks. It is begun here, and anchored by
 * its first run.
 */
async function requireOwnHistory(tools: Toolbox, examined: Examined, marker: Marker): Promise<LedgerStore> {
  const ledger = await tools.ledger();
  if (ledger.head() === null) ledger.create();
  const id = ledger.head()?.ledger ?? "";
  requireIntact(ledger, await anchorsFor(examined.target, marker, id));
  await timeOf(tools, examined);
  return ledger;
}

/** What a target anchors of one ledger: of the one that pinned it, or of one that joined. */
export async function anchorsFor(target: Target, marker: Marker, ledger: string): Promise<readonly Anchor[]> {
  if (marker.ledger === ledger) return [anchorOf(marker, target.name)];
  const joined = await target.anchoredHead(ledger);
  return joined === null ? [] : [{ ...joined, where: `the marker of ${target.name}` }];
}

/** The head that a marker anchors, in the form the ledger checks. */
export function anchorOf(marker: Marker, targetName: string): Anchor {
  return {
    ledger: marker.ledger,
    sequence: marker.ledgerSequence,
    head: marker.ledgerHead,
    where: `the marker of ${targetName}`,
  };
}

/** Refuses (35) a ledger whose chain does not hold, or that lacks an anchored head. */
export function requireIntact(ledger: LedgerStore, anchors: readonly Anchor[]): void {
  const verification = ledger.verify(anchors);
  if (verification.ok) return;
  throw new IntegrityError({
    code: "ERR_LEDGER_BROKEN",
    message: `the ledger is not intact from entry ${verification.firstBad} on`,
    why: verification.why,
    next: [{ actor: "anyone", argv: ["holdpoint", "log", "verify"] }],
    details: { first_bad: verification.firstBad, entries: verification.entries },
  });
}
