/**
 * Pinning again: another place, another environment, a marker that replaces one. Always two people of the bundle that
 * was pinned before, who sign every single change. The target gets a new identity, so that no plan, token or
 * approval made for the old pin means anything under the new one.
 */
import { bundleBytes, diffBundles, type TrustBundle } from "../approval/bundle.js";
import { makeStatement, parseStatement, type Statement, statementBytes } from "../approval/statement.js";
import { parseStamp, stamp } from "../base/clock.js";
import { type Digest, isDigest } from "../base/digest.js";
import { IntegrityError, RefusedError, UsageError } from "../base/errors.js";
import { targetConfigOf } from "../config/config.js";
import { ENVIRONMENTS, type Environment } from "../environment/evidence.js";
import type { LedgerStore } from "../ledger/entry.js";
import { textFact } from "../ledger/facts.js";
import type { Marker } from "../target/marker.js";
import { anchorOf, type Examined, withTarget } from "./judging/examine.js";
import { vitalsToNote } from "./judging/live-signals.js";
import { keptBundle, pinQuorum, type Quorum, requireQuorum } from "./consent/quorum.js";
import type { Toolbox } from "./toolbox.js";

/** How long a prepared pin may be signed and written. */
const REPIN_SECONDS = 24 * 3600;

/** What a new pin would change. */
export interface Repin {
  readonly target: string;
  readonly description: string;
  readonly environment: Environment;
  readonly changes: readonly string[];
  readonly quorum: Quorum;
  readonly expiresAt: string;
  readonly bytes: Uint8Array;
}

/** A pin that was replaced. */
export interface Repinned {
  readonly target: string;
  readonly identity: string;
  readonly environment: Environment;
  readonly changes: readonly string[];
  readonly signedBy: readonly string[];
}

/**
 * The statement that two people sign. Writes nothing into the target.
 * @throws UsageError ERR_USAGE for a target that was never pinned: that is a first pin.
 */
export async function prepareRepin(tools: Toolbox, name: string): Promise<Repin> {
  return withTarget(tools, name, async (examined) => {
    await tools.assertStoreOutside(examined.target.ownPaths());
    const before = await pinBefore(tools, examined);
    const identity = `${examined.target.adapter}:${Buffer.from(tools.random(16)).toString("hex")}`;
    const changes = changesOf(tools, examined, before, identity);
    const statement = makeStatement({
      act: "change-pin",
      target: name,
      identity: before.marker?.identity ?? null,
      from: before.bundleDigest,
      to: identity,
      now: tools.clock.now(),
      ttlSeconds: REPIN_SECONDS,
      nonce: tools.random(16),
      changes,
    });
    return {
      target: name,
      description: examined.identification.description,
      environment: environmentOf(tools, examined),
      changes,
      quorum: pinQuorum(before.bundle),
      expiresAt: statement.expiresAt,
      bytes: statementBytes(statement),
    };
  });
}

/**
 * Writes a pin that enough people signed.
 * @throws RefusedError ERR_STATEMENT_STALE when anything differs from what they signed; ERR_TRUST_QUORUM.
 */
export async function acceptRepin(
  tools: Toolbox,
  request: {
    readonly name: string;
    readonly bytes: Uint8Array;
    readonly signatures: readonly Uint8Array[];
    readonly writeIdentity: (identity: string) => Promise<void>;
  },
): Promise<Repinned> {
  const statement = parseStatement(request.bytes);
  return withTarget(
    tools,
    request.name,
    async (examined) => {
      await tools.assertStoreOutside(examined.target.ownPaths());
      const before = await pinBefore(tools, examined);
      const now = tools.clock.now();
      refuseStale(tools, examined, before, statement, now);
      await refuseUsed(tools, examined, statement);
      const given = { bytes: request.bytes, act: "change-pin" as const, signatures: request.signatures, now };
      const signedBy = requireQuorum(before.bundle, pinQuorum(before.bundle), given);
      await tools.bundles.keep(examined.bundleDigest, bundleBytes(examined.bundle));
      const marker = await writePin(tools, examined, { statement, signedBy, now, ...request });
      await request.writeIdentity(marker.identity);
      return {
        target: request.name,
        identity: marker.identity,
        environment: marker.environment,
        changes: statement.changes,
        signedBy,
      };
    },
    "write",
  );
}

/** What was pinned before, as far as target and ledger tell. */
interface PinBefore {
  readonly marker: Marker | null;
  readonly bundle: TrustBundle;
  readonly bundleDigest: Digest;
  readonly ledger: LedgerStore;
}

async function pinBefore(tools: Toolbox, examined: Examined): Promise<PinBefore> {
  const { marker, target } = examined;
  const ledger = await tools.ledger();
  if (marker === null && targetConfigOf(tools.project.config, target.name).identity === null)
    throw firstPin(target.name);
  if (ledger.head() === null) ledger.create();
  requireIntact(ledger, examined);
  const pin = examined.systemPin;
  const bundleDigest = pin?.bundle ?? marker?.bundle ?? lastBundle(ledger, target.name);
  if (bundleDigest === null) throw unknownPin(target.name);
  return { marker, ledger, bundleDigest, bundle: await keptBundle(tools, bundleDigest, target.name) };
}

/** The marker's own head must be in the ledger; another ledger than the marker's is one of the signed changes. */
function requireIntact(ledger: LedgerStore, examined: Examined): void {
  const { marker, target } = examined;
  const same = marker !== null && marker.ledger === ledger.head()?.ledger;
  const verification = ledger.verify(same ? [anchorOf(marker, target.name)] : []);
  if (verification.ok) return;
  throw new IntegrityError({
    code: "ERR_LEDGER_BROKEN",
    message: `the ledger is not intact from entry ${verification.firstBad} on`,
    why: verification.why,
    next: [{ actor: "anyone", argv: ["holdpoint", "log", "verify"] }],
  });
}

/** Where the marker is gone, the ledger still knows what it pinned last. */
function lastBundle(ledger: LedgerStore, target: string): Digest | null {
  let last: Digest | null = null;
  for (const { entry } of ledger.entries({ target, kinds: ["target-pinned", "trust-changed"] })) {
    const digest = textFact(entry, "bundle");
    if (digest !== null && isDigest(digest)) last = digest;
  }
  return last;
}

function environmentOf(tools: Toolbox, examined: Examined): Environment {
  const claimed = targetConfigOf(tools.project.config, examined.target.name).environment;
  return claimed ?? examined.marker?.environment ?? "production";
}

/** Every difference between the old pin and the new one, in words that are signed. */
function changesOf(
  tools: Toolbox,
  examined: Examined,
  before: PinBefore,
  identity: string,
): readonly string[] {
  const { marker, ledger } = before;
  const { place } = examined.identification;
  const environment = environmentOf(tools, examined);
  const parts = [...new Set([...Object.keys(marker?.place ?? {}), ...Object.keys(place)])].sort();
  return [
    changed("identity", marker?.identity, identity),
    changed("name", marker?.name, examined.target.name),
    environmentChange(marker?.environment, environment),
    ...parts.map((part) => changed(part, marker?.place[part], place[part])),
    changed("ledger", marker?.ledger, ledger.head()?.ledger),
    ...diffBundles(before.bundle, examined.bundle),
  ].flatMap((line) => (line === null ? [] : [line]));
}

function changed(what: string, was: string | undefined, is: string | undefined): string | null {
  if (was === is) return null;
  if (was === undefined) return `+ ${what}: ${is ?? ""}`;
  return is === undefined ? `- ${what}: ${was}` : `~ ${what}: ${was} → ${is}`;
}

/** A lower environment is said in capitals: it takes rules away. */
function environmentChange(was: Environment | undefined, is: Environment): string | null {
  const line = changed("environment", was, is);
  const lowers = was !== undefined && ENVIRONMENTS.indexOf(is) > ENVIRONMENTS.indexOf(was);
  return line !== null && lowers ? `${line} (LOWERED)` : line;
}

function refuseStale(tools: Toolbox, examined: Examined, before: PinBefore, s: Statement, now: Date): void {
  const { adapter, name } = examined.target;
  const wrong =
    mismatch("act", s.act, "change-pin") ??
    mismatch("target", s.target, name) ??
    mismatch("identity", s.identity, before.marker?.identity ?? "none") ??
    mismatch("pinned bundle", s.from, before.bundleDigest) ??
    (new RegExp(`^${adapter}:[0-9a-f]{32}$`).test(s.to) ? null : `the new identity ${s.to} is none`) ??
    mismatch("changes", s.changes.join("\n"), changesOf(tools, examined, before, s.to).join("\n")) ??
    (now.getTime() >= (parseStamp(s.expiresAt)?.getTime() ?? 0) ? `it expired at ${s.expiresAt}` : null);
  if (wrong !== null) throw stale(name, wrong);
}

function mismatch(what: string, signed: string, here: string): string | null {
  return signed === here ? null : `${what}: signed for ${signed}, here ${here}`;
}

async function refuseUsed(tools: Toolbox, examined: Examined, s: Statement): Promise<void> {
  const nonces: (string | null)[] = [];
  for (const { entry } of (await tools.ledger()).entries({
    target: examined.target.name,
    kinds: ["target-pinned"],
  })) {
    nonces.push(textFact(entry, "nonce"));
  }
  // The last one may be that of a command that was killed before it wrote the marker.
  if (nonces.slice(0, -1).includes(s.nonce)) throw stale(examined.target.name, "it was used before");
}

function stale(target: string, why: string): RefusedError {
  return new RefusedError({
    code: "ERR_STATEMENT_STALE",
    message: `this pin of ${target} is not what would be written now`,
    why,
    next: [{ actor: "anyone", argv: ["holdpoint", "env", "pin", target, "--replace", "--prepare", "FILE"] }],
  });
}

async function writePin(
  tools: Toolbox,
  examined: Examined,
  p: {
    readonly statement: Statement;
    readonly signedBy: readonly string[];
    readonly now: Date;
    readonly bytes: Uint8Array;
    readonly signatures: readonly Uint8Array[];
  },
): Promise<Marker> {
  const session = await examined.target.openWriter();
  try {
    // Nobody else writes from here on; what was signed must still be what it replaces.
    const found = (await session.marker())?.identity ?? "none";
    if (found !== p.statement.identity) {
      throw stale(examined.target.name, `identity: signed for ${p.statement.identity}, now ${found}`);
    }
    const environment = environmentOf(tools, examined);
    const vitals = await vitalsToNote(examined.target);
    const { entry, digest } = (await tools.ledger()).append({
      kind: "target-pinned",
      target: examined.target.name,
      facts: {
        identity: p.statement.to,
        replaces: p.statement.identity,
        environment,
        bundle: examined.bundleDigest,
        by: p.signedBy.join(", "),
        nonce: p.statement.nonce,
        ...vitals,
        statement: Buffer.from(p.bytes).toString("base64url"),
        signatures: p.signatures.map((s) => Buffer.from(s).toString("base64url")),
      },
    });
    const marker: Marker = {
      format: "holdpoint-marker/1",
      identity: p.statement.to,
      name: examined.target.name,
      environment,
      place: examined.identification.place,
      bundle: examined.bundleDigest,
      ledger: entry.ledger,
      ledgerSequence: entry.sequence,
      ledgerHead: digest,
      pinnedAt: stamp(p.now),
      pinnedBy: p.signedBy.join(", "),
    };
    await examined.target.pin(marker);
    return marker;
  } finally {
    await session.close();
  }
}

function firstPin(target: string): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `${target} was never pinned, so there is nothing to replace`,
    next: [{ actor: "dba", argv: ["holdpoint", "env", "pin", target] }],
  });
}

function unknownPin(target: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_LEDGER_MISSING",
    message: `nobody here knows whom ${target} trusted before`,
    why: "holdpoint.yaml names a pinned identity, the target carries no marker, and the ledger does not know the pin",
    next: [
      {
        actor: "anyone",
        text: "Bring back the store that holds this target's ledger, then run the command again.",
      },
    ],
  });
}
