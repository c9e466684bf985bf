/** Who must sign a change of what guards a target: people of the bundle that was pinned before. */
import { peopleOfBundle, type TrustBundle } from "../../approval/bundle.js";
import type { Person } from "../../approval/requirement.js";
import { countSigners, type StatementAct } from "../../approval/statement.js";
import type { Digest } from "../../base/digest.js";
import { shortDigest } from "../../base/digest.js";
import { RefusedError } from "../../base/errors.js";
import type { Toolbox } from "../toolbox.js";

/** How many, of which groups; no groups means anyone of the old bundle. */
export interface Quorum {
  readonly people: number;
  readonly groups: readonly string[];
}

/** What the old bundle asks for a change of itself, and never less than two people for production. */
export function trustQuorum(old: TrustBundle, guardedAs: string): Quorum {
  const asked = askedBy(old);
  return { ...asked, people: Math.max(asked.people, guardedAs === "production" ? 2 : 1) };
}

/** Another place, another environment, another marker: always two people, whatever anything says. */
export function pinQuorum(old: TrustBundle): Quorum {
  const asked = askedBy(old);
  return { ...asked, people: Math.max(asked.people, 2) };
}

/** `trust: { people, groups }` of the target as the old bundle holds it, so that no new file can lower it. */
function askedBy(old: TrustBundle): Quorum {
  const { guarding } = old;
  const trust = isObject(guarding) ? guarding["trust"] : undefined;
  if (!isObject(trust)) return { people: 1, groups: [] };
  const { people, groups } = trust;
  return {
    people: typeof people === "number" ? people : 1,
    groups: Array.isArray(groups) ? groups.filter((g): g is string => typeof g === "string") : [],
  };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `2 people of leads`. */
export function quorumWords(q: Quorum): string {
  const who = q.people === 1 ? "1 person" : `${q.people} people`;
  return q.groups.length === 0 ? who : `${who} of ${q.groups.join(" or ")}`;
}

/**
 * The people who signed, when they are enough.
 * @throws RefusedError ERR_TRUST_QUORUM (30) naming who signed, what does not count and why.
 */
export function requireQuorum(
  old: TrustBundle,
  quorum: Quorum,
  given: {
    readonly bytes: Uint8Array;
    readonly act: StatementAct;
    readonly signatures: readonly Uint8Array[];
    readonly now: Date;
  },
): readonly string[] {
  const everyone: readonly Person[] = peopleOfBundle(old);
  const { people, worthless } = countSigners(everyone, given, given.signatures, {
    now: given.now,
    groups: quorum.groups,
  });
  if (people.length >= quorum.people) return people;
  const so = people.length === 0 ? "nobody who counts signed" : `${people.join(" and ")} signed`;
  throw new RefusedError({
    code: "ERR_TRUST_QUORUM",
    message: `${quorumWords(quorum)} must sign, all from the pinned list, and ${people.length} did`,
    why: [so, ...worthless].join("; "),
    state: "Nothing was written, and nothing was recorded.",
    next: [{ actor: "approver", text: "Another person of the pinned list signs the same file." }],
    details: { needed: quorum.people, groups: quorum.groups, signed: people, worthless },
  });
}

/** The bundle that was pinned, by its digest. @throws RefusedError ERR_TRUST_BUNDLE where it is not kept here. */
export async function keptBundle(tools: Toolbox, digest: Digest, target: string): Promise<TrustBundle> {
  const kept = await tools.bundles.find(digest);
  if (kept !== null) return kept;
  throw new RefusedError({
    code: "ERR_TRUST_BUNDLE",
    message: `the trust bundle that ${target} was pinned with is not kept here`,
    why: `${shortDigest(digest)} is not in this store, so nobody knows who its people are`,
    next: [{ actor: "anyone", text: "Run this where the store that pinned it lies." }],
  });
}
