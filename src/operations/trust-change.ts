/**
 * A change of the trust bundle: proposed as a diff that reads like a plan, signed by people of the bundle that is
 * pinned, and written into the marker together with the ledger's head.
 */
import { headOf } from "../ledger/entry.js";
import { bundleBytes, diffBundles, type TrustBundle } from "../approval/bundle.js";
import { makeStatement, parseStatement, type Statement, statementBytes } from "../approval/statement.js";
import { parseStamp } from "../base/clock.js";
import type { Digest } from "../base/digest.js";
import { RefusedError, UsageError } from "../base/errors.js";
import { textFact } from "../ledger/facts.js";
import type { Marker } from "../target/marker.js";
import { type Examined, refuseContradiction, requireHistory, withTarget } from "./judging/examine.js";
import { keptBundle, type Quorum, requireQuorum, trustQuorum } from "./consent/quorum.js";
import { timeOf } from "./judging/time.js";
import type { Toolbox } from "./toolbox.js";

/** How long a proposal may be signed and accepted. */
export const PROPOSAL_SECONDS = 7 * 24 * 3600;

/** What a proposal would change, before and after it is signed. */
export interface TrustProposal {
  readonly target: string;
  readonly environment: string;
  readonly from: Digest;
  readonly to: Digest;
  readonly changes: readonly string[];
  readonly quorum: Quorum;
  /** People of the pinned bundle who can sign it. */
  readonly signers: readonly string[];
  readonly expiresAt: string;
  readonly bytes: Uint8Array;
}

/**
 * The statement to sign, over the difference between the pinned bundle and the files here. Writes nothing.
 * @throws UsageError ERR_USAGE when there is nothing to change, or several targets and none named.
 */
export async function proposeTrust(tools: Toolbox, on: string | null): Promise<TrustProposal> {
  return withTarget(tools, onlyTarget(tools, on), async (examined) => {
    const { marker, old, changes } = await changeOf(tools, examined);
    if (changes.length === 0) throw nothingToChange(examined, marker);
    const quorum = trustQuorum(old, examined.verdict.guardedAs);
    const statement = makeStatement({
      act: "change-trust",
      target: examined.target.name,
      identity: marker.identity,
      from: marker.bundle,
      to: examined.bundleDigest,
      now: await timeOf(tools, examined),
      ttlSeconds: PROPOSAL_SECONDS,
      nonce: tools.random(16),
      changes,
    });
    return proposalOf(examined, marker, old, quorum, statement);
  });
}

function proposalOf(
  examined: Examined,
  marker: Marker,
  old: TrustBundle,
  quorum: Quorum,
  statement: Statement,
): TrustProposal {
  return {
    target: examined.target.name,
    environment: examined.verdict.guardedAs,
    from: marker.bundle,
    to: examined.bundleDigest,
    changes: statement.changes,
    quorum,
    signers: signersOf(old, quorum),
    expiresAt: statement.expiresAt,
    bytes: statementBytes(statement),
  };
}

function signersOf(old: TrustBundle, quorum: Quorum): readonly string[] {
  const { groups } = quorum;
  return old.people
    .map((p) => p.name)
    .filter((n) => groups.length === 0 || groups.some((g) => old.groups[g]?.includes(n)));
}

/** A change that was accepted. */
export interface TrustAccepted {
  readonly target: string;
  readonly from: Digest;
  readonly to: Digest;
  readonly changes: readonly string[];
  readonly signedBy: readonly string[];
  /** Whether root must change the system's own pin before it holds here. */
  readonly systemPin: boolean;
}

/**
 * Accepts a signed proposal: counts people of the pinned bundle, then pins the bundle that lies here.
 * @throws UsageError ERR_STATEMENT_MALFORMED; RefusedError ERR_STATEMENT_STALE when it was made for another target,
 *   bundle or time, or was used; ERR_TRUST_QUORUM when too few signed.
 */
export async function acceptTrust(
  tools: Toolbox,
  bytes: Uint8Array,
  signatures: readonly Uint8Array[],
): Promise<TrustAccepted> {
  const statement = parseStatement(bytes);
  return withTarget(
    tools,
    statement.target,
    async (examined) => {
      const { marker, old, changes } = await changeOf(tools, examined);
      const now = await timeOf(tools, examined);
      refuseStale(examined, statement, { marker, changes, now });
      await refuseUsed(tools, examined, statement);
      const quorum = trustQuorum(old, examined.verdict.guardedAs);
      const given = { bytes, act: "change-trust" as const, signatures, now };
      const signedBy = requireQuorum(old, quorum, given);
      await tools.bundles.keep(examined.bundleDigest, bundleBytes(examined.bundle));
      await pinBundle(tools, examined, marker, { bytes, signatures, statement, signedBy });
      return {
        target: examined.target.name,
        from: marker.bundle,
        to: examined.bundleDigest,
        changes,
        signedBy,
        systemPin: examined.systemPin !== null && examined.systemPin.bundle !== examined.bundleDigest,
      };
    },
    "write",
  );
}

/** Ledger entry first, then marker with bundle and head in one transaction; nobody else writes meanwhile. */
async function pinBundle(
  tools: Toolbox,
  examined: Examined,
  marker: Marker,
  signed: {
    readonly bytes: Uint8Array;
    readonly signatures: readonly Uint8Array[];
    readonly statement: Statement;
    readonly signedBy: readonly string[];
  },
): Promise<void> {
  const session = await examined.target.openWriter();
  try {
    // Nobody else writes from here on; what was read before the lock may be another one's past.
    const now = await session.marker();
    if (now?.bundle !== marker.bundle || now.identity !== marker.identity)
      throw overtaken(examined, marker, now);
    const { entry, digest } = (await tools.ledger()).append({
      kind: "trust-changed",
      target: examined.target.name,
      facts: {
        from: marker.bundle,
        bundle: examined.bundleDigest,
        by: [...signed.signedBy],
        nonce: signed.statement.nonce,
        statement: Buffer.from(signed.bytes).toString("base64url"),
        signatures: signed.signatures.map((s) => Buffer.from(s).toString("base64url")),
      },
    });
    const sealed = { entry, digest };
    // The ledger that pinned stays the marker's; where another one takes a change in, it is anchored beside it.
    const anchored =
      entry.ledger === marker.ledger ? { ledgerSequence: entry.sequence, ledgerHead: digest } : {};
    await examined.target.pin({ ...marker, bundle: examined.bundleDigest, ...anchored });
    if (entry.ledger !== marker.ledger) {
      await session.begin();
      await session.anchor(headOf(sealed));
      await session.commit();
    }
  } finally {
    await session.close();
  }
}

function overtaken(examined: Examined, marker: Marker, now: Marker | null): RefusedError {
  return new RefusedError({
    code: "ERR_STATEMENT_STALE",
    message: `the marker of ${examined.target.name} changed while this proposal was checked`,
    why: `read ${marker.bundle} before, ${now?.bundle ?? "no marker"} now`,
    next: [
      {
        actor: "anyone",
        argv: ["holdpoint", "trust", "propose", "--on", examined.target.name, "--out", "FILE"],
      },
    ],
  });
}

/** Place and history must be right; only the bundle may differ from what is pinned. */
async function changeOf(
  tools: Toolbox,
  examined: Examined,
): Promise<{ readonly marker: Marker; readonly old: TrustBundle; readonly changes: readonly string[] }> {
  refuseContradiction(examined);
  const { marker, target } = examined;
  if (marker === null) {
    throw new RefusedError({
      code: "ERR_ENV_NOT_PINNED",
      message: `${target.name} is not pinned, so it has no trust bundle that could change`,
      next: [{ actor: "dba", argv: ["holdpoint", "env", "pin", target.name] }],
    });
  }
  refuseOtherSystemPin(examined, marker);
  await requireHistory(tools, examined);
  const old = await keptBundle(tools, marker.bundle, target.name);
  return { marker, old, changes: diffBundles(old, examined.bundle) };
}

/** A marker that is not what root pinned was changed by somebody who could not change root's file. */
function refuseOtherSystemPin(examined: Examined, marker: Marker): void {
  const pin = examined.systemPin;
  if (pin === null) return;
  const known = pin.bundle === marker.bundle || pin.bundle === examined.bundleDigest;
  if (pin.identity === marker.identity && known) return;
  throw new RefusedError({
    code: "ERR_TRUST_BUNDLE",
    message: `the marker of ${examined.target.name} is not what the system pins`,
    why: `the system pins ${pin.identity} with ${pin.bundle}; the marker says ${marker.identity} with ${marker.bundle}`,
    next: [{ actor: "dba", text: "Find out who changed the marker." }],
  });
}

function refuseStale(
  examined: Examined,
  s: Statement,
  here: { readonly marker: Marker; readonly changes: readonly string[]; readonly now: Date },
): void {
  const wrong =
    mismatch("act", s.act, "change-trust") ??
    mismatch("identity", s.identity, here.marker.identity) ??
    mismatch("pinned bundle", s.from, here.marker.bundle) ??
    mismatch("bundle here", s.to, examined.bundleDigest) ??
    mismatch("changes", s.changes.join("\n"), here.changes.join("\n")) ??
    (here.now.getTime() >= (parseStamp(s.expiresAt)?.getTime() ?? 0) ? `it expired at ${s.expiresAt}` : null);
  if (wrong === null) return;
  throw new RefusedError({
    code: "ERR_STATEMENT_STALE",
    message: `this proposal is not for ${examined.target.name} and the files as they are now`,
    why: wrong,
    next: [
      {
        actor: "anyone",
        argv: ["holdpoint", "trust", "propose", "--on", examined.target.name, "--out", "FILE"],
      },
    ],
  });
}

function mismatch(what: string, signed: string, here: string): string | null {
  return signed === here ? null : `${what}: signed for ${signed}, here ${here}`;
}

/**
 * A proposal is used once, so that going back to older people cannot be followed by an old proposal. The last change
 * of a killed command is let through: its entry is there, its marker is not.
 */
async function refuseUsed(tools: Toolbox, examined: Examined, statement: Statement): Promise<void> {
  const nonces: (string | null)[] = [];
  for (const { entry } of (await tools.ledger()).entries({
    target: examined.target.name,
    kinds: ["trust-changed"],
  })) {
    nonces.push(textFact(entry, "nonce"));
  }
  if (!nonces.includes(statement.nonce) || nonces.at(-1) === statement.nonce) return;
  throw new RefusedError({
    code: "ERR_STATEMENT_STALE",
    message: "this proposal was accepted before, and others after it",
    why: `its nonce ${statement.nonce} is in the ledger`,
    next: [
      {
        actor: "anyone",
        argv: ["holdpoint", "trust", "propose", "--on", examined.target.name, "--out", "FILE"],
      },
    ],
  });
}

function nothingToChange(examined: Examined, marker: Marker): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `${examined.target.name} pins what lies here already`,
    why: `both are ${marker.bundle}`,
    next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show", "--on", examined.target.name] }],
  });
}

function onlyTarget(tools: Toolbox, on: string | null): string {
  if (on !== null) return on;
  const names = Object.keys(tools.project.config.targets);
  const [first] = names;
  if (first !== undefined && names.length === 1) return first;
  throw new UsageError({
    code: "ERR_USAGE",
    message: "say for which target: --on TARGET",
    why: `holdpoint.yaml has ${names.join(", ") || "none"}; each pins a bundle of its own`,
  });
}
