/**
 * Who asked for a plan. The key says who signed it; where a pipeline signed, the people who set it going and who
 * wrote what it runs asked for it too. What CI says about them can only ever make more people requesters, or cost
 * one approver more: it never makes anyone an approver.
 */
import { parseCanonical } from "../base/canonical.js";
import { type CiFacts, type CiIdentity, parseCiFacts } from "./ci-identity.js";
import type { Requester } from "./plan-statement.js";

/** How names of CI and git map to people; stands in the trust bundle. */
export interface CiMapping {
  /** People of the list who are pipelines: what their key signs was asked for by others. */
  readonly accounts: readonly string[];
  /** `github:octocat` or `dana@shop.example` → a person of the list. */
  readonly people: Readonly<Record<string, string>>;
  /** Pipelines that are known by their token. Where there is one, no pipeline is known by anything else. */
  readonly identities?: readonly CiIdentity[];
}

/** The claims by which a pipeline tells who is behind a plan. */
export const CI_CLAIMS = {
  commit: "commit",
  /** Canonical JSON: a list of `github:octocat`, `dana@shop.example` … */
  people: "ci-people",
  /** What CI should have told and did not, in words. */
  missing: "ci-missing",
  /** Canonical JSON of `CiFacts`: what the token that proves the plan says. */
  identity: "ci-identity",
} as const;

/** All who asked, and whether there may be more whom nobody can name. */
export interface Askers {
  /** People besides the one who signed. */
  readonly widened: readonly string[];
  /** Why somebody unknown may be among them; empty where nobody is. Each plan with a reason costs one more approver. */
  readonly unknown: readonly string[];
}

/** Reads the claims of a plan. A plan that no pipeline made is its signer's alone; an unsigned one may be anybody's. */
export function askersOf(requester: Requester, mapping: CiMapping | null): Askers {
  const unsigned = requester.person === null && requester.how !== "ci-token" ? ["it is not signed"] : [];
  if (!isPipeline(requester, mapping)) return { widened: [], unknown: unsigned };
  const token = requester.how === "ci-token" ? tokenFacts(requester) : null;
  const named = namesIn(requester.claims[CI_CLAIMS.people]);
  const byToken = token === null ? [] : peopleNamed(token.who, mapping);
  const widened = [...byToken, ...peopleNamed(named, mapping)];
  // Whom the token names by number need not be mapped by login too.
  const told = byToken.length === 0 ? [] : (token?.who ?? []);
  const strangers = named.filter((n) => !told.includes(n) && peopleNamed([n], mapping).length === 0);
  const missing = requester.claims[CI_CLAIMS.missing];
  return {
    widened: [...new Set(widened)].sort(),
    unknown: [
      ...unsigned,
      ...(requester.how === "ci-token" ? unknownOf(requester, token, byToken) : []),
      ...(strangers.length === 0 ? [] : [`nobody on the list is ${strangers.join(", ")}`]),
      ...(missing === undefined ? [] : [`CI does not tell ${missing}`]),
      ...(named.length === 0 && missing === undefined ? ["CI names nobody"] : []),
    ],
  };
}

/** The person whom a token names, by number before login; null where it names nobody on the list. */
export function personOfToken(facts: CiFacts, mapping: CiMapping | null): string | null {
  return peopleNamed(facts.who, mapping)[0] ?? null;
}

/** A plan that says that a pipeline made it, or that a pipeline's key signed. */
export function isPipeline(requester: Requester, mapping: CiMapping | null): boolean {
  // A machine that only says `CI=true` names no pipeline; one that the list calls a pipeline is one without a word.
  if (requester.how === "ci-token" || requester.claims[CI_CLAIMS.people] !== undefined) return true;
  return requester.person !== null && (mapping?.accounts.includes(requester.person) ?? false);
}

function tokenFacts(requester: Requester): CiFacts | null {
  return parseCiFacts(requester.claims[CI_CLAIMS.identity]);
}

function peopleNamed(names: readonly string[], mapping: CiMapping | null): readonly string[] {
  const people = mapping?.people ?? {};
  return names.flatMap((n) => (Object.hasOwn(people, n) ? [people[n] ?? ""] : []));
}

/** What the token itself leaves open. */
function unknownOf(
  requester: Requester,
  token: CiFacts | null,
  people: readonly string[],
): readonly string[] {
  if (token === null) return ["what its token says cannot be read"];
  const nobody =
    token.who.length === 0 ? "its token names no person" : `nobody on the list is ${token.who.join(", ")}`;
  const commit = requester.claims[CI_CLAIMS.commit];
  return [
    ...(people.length === 0 ? [nobody] : []),
    // Whose commits were looked at is the plan's word; that they are those of the run is the token's.
    ...(commit === token.commit
      ? []
      : [
          `its token is of commit ${token.commit.slice(0, 12)}, it was made on ${commit?.slice(0, 12) ?? "none"}`,
        ]),
  ];
}

/** What cannot be read names nobody, and that costs an approver too. */
function namesIn(claim: string | undefined): readonly string[] {
  const value = claim === undefined ? undefined : parseCanonical(claim);
  return Array.isArray(value) ? value.filter((v): v is string => typeof v === "string") : [];
}
