/**
 * Who asked for a plan. The key says who signed it; where a pipeline signed, the people who set it going and who
 * wrote what it runs asked for it too. What CI says about them can only ever make more people requesters, or cost
 * one approver more: it never makes anyone an approver.
 */
import { parseCanonical } from "../base/canonical.js";
import type { Requester } from "./plan-statement.js";

/** How names of CI and git map to people; stands in the trust bundle. */
export interface CiMapping {
  /** People of the list who are pipelines: what their key signs was asked for by others. */
  readonly accounts: readonly string[];
  /** `github:octocat` or `dana@shop.example` → a person of the list. */
  readonly people: Readonly<Record<string, string>>;
}

/** The claims by which a pipeline tells who is behind a plan. */
export const CI_CLAIMS = {
  commit: "commit",
  /** Canonical JSON: a list of `github:octocat`, `dana@shop.example` … */
  people: "ci-people",
  /** What CI should have told and did not, in words. */
  missing: "ci-missing",
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
  const unsigned = requester.person === null ? ["it is not signed"] : [];
  if (!isPipeline(requester, mapping)) return { widened: [], unknown: unsigned };
  const named = namesIn(requester.claims[CI_CLAIMS.people]);
  const people = mapping?.people ?? {};
  const widened = named.flatMap((n) => (Object.hasOwn(people, n) ? [people[n] ?? ""] : []));
  const strangers = named.filter((n) => !Object.hasOwn(people, n));
  const missing = requester.claims[CI_CLAIMS.missing];
  return {
    widened: [...new Set(widened)].sort(),
    unknown: [
      ...unsigned,
      ...(strangers.length === 0 ? [] : [`nobody on the list is ${strangers.join(", ")}`]),
      ...(missing === undefined ? [] : [`CI does not tell ${missing}`]),
      ...(named.length === 0 && missing === undefined ? ["CI names nobody"] : []),
    ],
  };
}

/** A machine that only says `CI=true` names no pipeline; one that the list calls a pipeline is one without a word. */
function isPipeline(requester: Requester, mapping: CiMapping | null): boolean {
  if (requester.claims[CI_CLAIMS.people] !== undefined) return true;
  return requester.person !== null && (mapping?.accounts.includes(requester.person) ?? false);
}

/** What cannot be read names nobody, and that costs an approver too. */
function namesIn(claim: string | undefined): readonly string[] {
  const value = claim === undefined ? undefined : parseCanonical(claim);
  return Array.isArray(value) ? value.filter((v): v is string => typeof v === "string") : [];
}
