/** Where am I: the verdict on a target, and the pin that lets a target say who it is. */
import { bundleBytes } from "../approval/bundle.js";
import type { Digest } from "../base/digest.js";
import { stamp } from "../base/clock.js";
import { RefusedError } from "../base/errors.js";
import { targetConfigOf } from "../config/config.js";
import type { Marker, Note } from "../target/marker.js";
import { type Examined, requireHistory, withTarget } from "./judging/examine.js";
import { vitalsToNote } from "./judging/live-signals.js";
import { openDebts } from "./debts.js";
import { type Hold, holdIn } from "./recall/held.js";
import type { Toolbox } from "./toolbox.js";

/** What `env check` shows. */
export interface EnvChecked {
  readonly target: string;
  readonly description: string;
  readonly examined: Examined;
  /** Who holds it; null when nobody does. */
  readonly hold: Hold | null;
  /** Break-glass runs that nobody has reviewed. */
  readonly debts: readonly Note[];
}

/** Asks a target who it is; reads only. `assert` refuses (33) when the verdict is not as asserted. */
export async function checkEnvironment(
  tools: Toolbox,
  name: string,
  assert: "production" | "not-production" | null,
): Promise<EnvChecked> {
  return withTarget(tools, name, async (examined) => {
    if (assert !== null) refuseAssertion(examined, assert);
    const notes = examined.marker === null ? [] : await examined.target.notes();
    const { description } = examined.identification;
    return { target: name, description, examined, hold: holdIn(notes), debts: openDebts(notes) };
  });
}

function refuseAssertion(examined: Examined, assert: "production" | "not-production"): void {
  const { verdict, target } = examined;
  const holds =
    assert === "production"
      ? verdict.name === "production" && !verdict.contradicted
      : (verdict.name === "staging" || verdict.name === "development") && !verdict.contradicted;
  if (holds) return;
  throw new RefusedError({
    code: "ERR_ENV_ASSERTION",
    message: `${target.name} is ${verdict.name}, and ${assert} was asserted`,
    why: verdict.because.join("; "),
    next: [{ actor: "anyone", argv: ["holdpoint", "env", "check", target.name] }],
  });
}

/** What a pin would write, shown before anyone confirms it. */
export interface PinPreview {
  readonly marker: Marker;
  readonly description: string;
  readonly people: readonly { readonly name: string; readonly keys: readonly string[] }[];
  readonly policies: readonly string[];
  readonly sql: readonly string[];
}

/** A pin that was written. */
export interface Pinned extends PinPreview {
  readonly written: boolean;
}

/**
 * Pins a target for the first time: a person sees what it is and what it will trust, then the marker is
 * written into it and its identity into holdpoint.yaml.
 * @throws RefusedError ERR_ENV_PINNED_ALREADY (33): changing a pin takes two people.
 */
export async function pinEnvironment(
  tools: Toolbox,
  request: {
    readonly name: string;
    readonly printSql: boolean;
    /** Shows the preview and asks; refuses with 22 without a terminal and without the flag. */
    readonly confirm: (preview: PinPreview) => Promise<void>;
    readonly writeIdentity: (identity: string) => Promise<void>;
  },
): Promise<Pinned> {
  return withTarget(
    tools,
    request.name,
    async (examined) => {
      refusePinned(tools, examined);
      await tools.assertStoreOutside(examined.target.ownPaths());
      const ledger = await tools.ledger();
      if (ledger.head() === null) ledger.create();
      else await requireHistory(tools, examined);
      const preview = previewOf(tools, examined, ledger);
      if (request.printSql) {
        // Whoever runs the SQL pins this very bundle: kept, so that a refusal can later say what differs.
        await tools.bundles.keep(examined.bundleDigest, bundleBytes(examined.bundle));
        return { ...preview, written: false };
      }
      await request.confirm(preview);
      return { ...(await writePin(tools, examined, preview, request.writeIdentity)), written: true };
    },
    "write",
  );
}

async function writePin(
  tools: Toolbox,
  examined: Examined,
  preview: PinPreview,
  writeIdentity: (identity: string) => Promise<void>,
): Promise<PinPreview> {
  await tools.bundles.keep(examined.bundleDigest, bundleBytes(examined.bundle));
  const entry = (await tools.ledger()).append({
    kind: "target-pinned",
    target: examined.target.name,
    facts: {
      identity: preview.marker.identity,
      environment: preview.marker.environment,
      bundle: examined.bundleDigest,
      by: preview.marker.pinnedBy,
      ...(await vitalsToNote(examined.target)),
    },
  });
  const marker = { ...preview.marker, ledgerSequence: entry.entry.sequence, ledgerHead: entry.digest };
  await examined.target.pin(marker);
  await writeIdentity(marker.identity);
  return { ...preview, marker };
}

function previewOf(
  tools: Toolbox,
  examined: Examined,
  ledger: {
    readonly head: () => { readonly ledger: string; readonly sequence: number; readonly head: Digest } | null;
  },
): PinPreview {
  const configured = targetConfigOf(tools.project.config, examined.target.name);
  const head = ledger.head();
  const marker: Marker = {
    format: "holdpoint-marker/1",
    identity: `${examined.target.adapter}:${Buffer.from(tools.random(16)).toString("hex")}`,
    name: examined.target.name,
    // What nobody called anything else is production: a wrong guess must cost a prompt, not a table.
    environment: configured.environment ?? "production",
    place: examined.identification.place,
    bundle: examined.bundleDigest,
    ledger: head?.ledger ?? "",
    ledgerSequence: head?.sequence ?? 0,
    ledgerHead: head?.head ?? "sha256:",
    pinnedAt: stamp(tools.clock.now()),
    pinnedBy: tools.claims()["login"] ?? "unknown",
  };
  return {
    marker,
    description: examined.identification.description,
    people: tools.project.people.map((p) => ({ name: p.name, keys: p.keys.map((k) => k.fingerprint) })),
    policies: examined.bundle.policies.map((p) => p.path),
    sql: examined.target.markerSql(marker),
  };
}

function refusePinned(tools: Toolbox, examined: Examined): void {
  const configured = targetConfigOf(tools.project.config, examined.target.name);
  const { marker } = examined;
  if (marker === null && configured.identity === null) return;
  throw new RefusedError({
    code: "ERR_ENV_PINNED_ALREADY",
    message: `${examined.target.name} is pinned already`,
    why:
      marker === null
        ? `holdpoint.yaml says identity ${configured.identity ?? ""}, and the target carries no marker`
        : `the target says it is ${marker.name} (${marker.environment}), pinned ${marker.pinnedAt} by ${marker.pinnedBy}`,
    next: [
      { actor: "anyone", argv: ["holdpoint", "env", "check", examined.target.name] },
      {
        actor: "anyone",
        argv: ["holdpoint", "env", "pin", examined.target.name, "--replace", "--prepare", "FILE"],
        text: "two people sign it",
      },
    ],
  });
}
