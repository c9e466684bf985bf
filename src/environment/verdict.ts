/**
 * Where are we? One pure function from evidence to verdict. Only what the target says about itself
 * decides; what configuration claims can raise the answer and never lower it; what this machine says is
 * carried along to be shown.
 */
import { ENVIRONMENTS, type Environment, type Evidence, type Verdict } from "./evidence.js";

/** What was pinned in the target, as far as the verdict needs it. A `Marker` of `target/` is one. */
export interface PinnedFacts {
  readonly identity: string;
  readonly name: string;
  readonly environment: Environment;
  /** What the engine told about the place at the pin: `path`, `inode`, `born`, a system identifier … */
  readonly place: Readonly<Record<string, string>>;
}

/** Everything that {@link judge} looks at. */
export interface JudgeInput {
  /** `environment:` of the target in holdpoint.yaml; null when it claims nothing. */
  readonly claim: Environment | null;
  /** `identity:` of the target in holdpoint.yaml; null before `env pin`. */
  readonly pinnedIdentity: string | null;
  /** The target's name in holdpoint.yaml. */
  readonly targetName: string;
  readonly marker: PinnedFacts | null;
  /** What the engine tells about the place now, under the names of `PinnedFacts.place`. */
  readonly place: Readonly<Record<string, string>>;
  /** Further signals of the target: role, certificate, clients, age of data … */
  readonly signals: readonly Evidence[];
  /** What this machine says. Shown, never counted, whatever strength it claims. */
  readonly machine: readonly Evidence[];
}

/**
 * The verdict. The first line of the table that holds decides:
 *
 * | what is found | verdict | contradicted |
 * | --- | --- | --- |
 * | `identity` is configured and the target has no marker, or one with another identity | unproven | yes |
 * | the marker's name is another than the target's name | unproven | yes |
 * | anything recorded of the place differs now (a copy, a restored file, a swapped path) | unproven | yes |
 * | a strong signal contradicts what was expected, or names another environment than the marker or another strong signal | unproven | yes |
 * | no marker | unproven | no |
 * | a marker, but no `identity` is configured | unproven | no |
 * | nothing was recorded of the place, or something recorded cannot be read now: a copy cannot be told apart | unproven | no |
 * | a strong signal is absent | unproven | no |
 * | a medium signal contradicts what was expected, or names another environment than the marker | unproven | no |
 * | otherwise, and the claim is more dangerous than the marker | the claim | no |
 * | otherwise | the marker's environment (a lower claim is noted) | no |
 *
 * An absent medium signal, signals of strength `none` and everything from this machine change nothing.
 * `guardedAs` is production for every `unproven`.
 *
 * Law: changing `machine` changes nothing but the evidence shown. Law: raising the claim never makes the
 * verdict less guarded. Law: a verdict other than `unproven` is never below the marker's environment.
 */
export function judge(input: JudgeInput): Verdict {
  const pin = pinEvidence(input);
  const signals = againstEachOther(
    input.signals.filter((s) => s.side === "target"),
    input.marker,
  );
  const target = [...pin, ...signals];
  const machine = [...input.signals.filter((s) => s.side === "machine"), ...input.machine].map(uncounted);
  const evidence = [...target, ...machine];

  const contradictions = target.filter((e) => e.strength === "strong" && e.state === "contradicts");
  if (contradictions.length > 0) return unproven(contradictions.map(inWords), evidence, true);
  const doubts = target.filter(raisesDoubt);
  if (input.marker === null || doubts.length > 0) return unproven(doubts.map(inWords), evidence, false);
  return proven(input.marker.environment, input.claim, evidence);
}

/** The more dangerous of two environments, in the order of {@link ENVIRONMENTS}. */
export function moreDangerous(a: Environment, b: Environment): Environment {
  return ENVIRONMENTS.indexOf(a) <= ENVIRONMENTS.indexOf(b) ? a : b;
}

function proven(marked: Environment, claim: Environment | null, evidence: readonly Evidence[]): Verdict {
  const name = claim === null ? marked : moreDangerous(marked, claim);
  const because = [`the marker in the target says ${marked}`];
  if (name !== marked) because.push(`holdpoint.yaml raises it to ${name}`);
  else if (claim !== null && claim !== marked)
    because.push(`holdpoint.yaml says ${claim}, which lowers nothing: ${marked} stands`);
  return { name, guardedAs: name, contradicted: false, because, evidence };
}

function unproven(because: readonly string[], evidence: readonly Evidence[], contradicted: boolean): Verdict {
  return { name: "unproven", guardedAs: "production", contradicted, because, evidence };
}

function raisesDoubt(e: Evidence): boolean {
  return (
    (e.strength === "strong" && e.state === "absent") ||
    (e.strength === "medium" && e.state === "contradicts")
  );
}

function inWords(e: Evidence): string {
  if (e.expected === undefined || e.found === undefined) return `${e.source}: ${e.detail}`;
  return `${e.source}: expected ${e.expected}, found ${e.found}`;
}

/** Whatever a caller labels it: a signal of this machine has no strength. */
function uncounted(e: Evidence): Evidence {
  return { ...e, side: "machine", strength: "none" };
}

function pinEvidence(input: JudgeInput): Evidence[] {
  const { marker } = input;
  if (marker === null) return [withoutMarker(input.pinnedIdentity)];
  return [markerEvidence(marker, input.targetName), identityEvidence(marker, input.pinnedIdentity)].concat(
    placeEvidence(marker, input.place),
  );
}

function withoutMarker(pinnedIdentity: string | null): Evidence {
  if (pinnedIdentity === null) return strong("marker", null, "absent", "none: this target was never pinned");
  return differs("marker", "holdpoint.yaml names a pinned identity and the target has no marker", {
    expected: pinnedIdentity,
    found: "no marker",
  });
}

function markerEvidence(marker: PinnedFacts, targetName: string): Evidence {
  const detail = `name '${marker.name}', ${marker.environment}`;
  if (marker.name === targetName) return strong("marker", marker.environment, "agrees", detail);
  return differs("marker", detail, { expected: targetName, found: marker.name });
}

function identityEvidence(marker: PinnedFacts, pinned: string | null): Evidence {
  if (pinned === null) {
    return strong("identity", null, "absent", `${marker.identity}, but holdpoint.yaml names no identity`);
  }
  if (marker.identity === pinned) return strong("identity", marker.environment, "agrees", marker.identity);
  return differs("identity", marker.identity, { expected: pinned, found: marker.identity });
}

function placeEvidence(marker: PinnedFacts, now: Readonly<Record<string, string>>): Evidence[] {
  const recorded = Object.entries(marker.place).sort(([a], [b]) => (a < b ? -1 : 1));
  if (recorded.length === 0) {
    return [strong("place", null, "absent", "nothing was recorded at the pin: a copy cannot be told apart")];
  }
  return recorded.map(([what, then]) => {
    const found = Object.hasOwn(now, what) ? now[what] : undefined;
    if (found === undefined) return strong(what, null, "absent", `pinned at ${then}, cannot be read now`);
    if (found === then) return strong(what, marker.environment, "agrees", found);
    return differs(what, `pinned at ${then}, now ${found}`, { expected: then, found });
  });
}

/** Marks signals that name another environment than the marker, or (without one) than the first strong one. */
function againstEachOther(signals: readonly Evidence[], marker: PinnedFacts | null): Evidence[] {
  const said = marker?.environment ?? signals.find((s) => s.strength === "strong" && s.says !== null)?.says;
  if (said === undefined || said === null) return [...signals];
  return signals.map((s) => {
    if (s.strength === "none" || s.says === null || s.says === said || s.state === "contradicts") return s;
    return { ...s, state: "contradicts", expected: said, found: s.says };
  });
}

function strong(
  source: string,
  says: Environment | null,
  state: Evidence["state"],
  detail: string,
): Evidence {
  return { source, side: "target", strength: "strong", says, state, detail };
}

function differs(
  source: string,
  detail: string,
  sides: { readonly expected: string; readonly found: string },
): Evidence {
  return { ...strong(source, null, "contradicts", detail), ...sides };
}
