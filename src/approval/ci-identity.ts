/**
 * Who a pipeline is, as the bundle pins it, and what a token's claims say of it. Everything here is about claims whose
 * signature was checked already (`ci-token.ts`). Format page: `docs/formats/ci-token.md`.
 *
 * | | GitHub Actions | GitLab CI | Buildkite |
 * | --- | --- | --- | --- |
 * | repository | `repository_id` | `project_id` | `organization_id` and `pipeline_id`, with `/` between |
 * | workflow | `job_workflow_ref`, else `workflow_ref` | `ci_config_ref_uri` | `organization_slug` and `pipeline_slug`, with `/` between |
 * | ref | `ref` | `ref_path` | `build_branch` |
 * | protected | `ref_protected` | `ref_protected` | never told |
 * | who | `actor_id`, `actor` | `user_id`, `user_login` | nobody |
 * | commit | `sha` | `sha` | `build_commit` |
 * | run | `run_id`, `run_attempt` | `pipeline_id` | `job_id` |
 */
import { canonical, type Json, parseCanonical } from "../base/canonical.js";
import { array, decode, type Decoder, nonEmpty, object, toJson } from "../base/decode.js";
import type { Digest } from "../base/digest.js";

/** The systems whose tokens are understood. */
export const CI_PROVIDERS = ["github", "gitlab", "buildkite"] as const;

/** One of {@link CI_PROVIDERS}. */
export type CiProvider = (typeof CI_PROVIDERS)[number];

/** What a pipeline may be asked to do under an identity. */
export type CiAct = "plan" | "apply";

/** One key of an issuer, public parts only. */
export interface CiKey {
  readonly kid: string;
  /** The one algorithm that this key signs with; what a token says of it must be the same. */
  readonly alg: CiAlgorithm;
  readonly jwk: Readonly<Record<string, string>>;
  /** RFC 7638, over SHA-256, in base64url: what the bundle holds of the key. */
  readonly thumbprint: string;
}

/** Asymmetric, and none with SHA-1. Nothing else is ever tried, whatever a token's header says. */
export const CI_ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"] as const;

/** One of {@link CI_ALGORITHMS}. */
export type CiAlgorithm = (typeof CI_ALGORITHMS)[number];

/** A pipeline that is known by its token, as the bundle pins it. */
export interface CiIdentity {
  readonly name: string;
  readonly provider: CiProvider;
  /** Compared as it stands: no slash is added or taken away. */
  readonly issuer: string;
  readonly may: readonly CiAct[];
  readonly repository: string;
  readonly workflow: string;
  /** The one ref that it may run on; null where any will do that is protected. */
  readonly ref: string | null;
  /** False where runs on unprotected refs are meant to count, such as plans on pull requests. */
  readonly protectedRef: boolean;
  /** Further claims that must stand in the token as they stand here. */
  readonly claims: Readonly<Record<string, string>>;
  /** Where the keys were read, for errors. */
  readonly keysFile: string;
  readonly keys: readonly CiKey[];
}

/** What a token's claims tell of a run; stands in the plan's statement, and must be what its token says. */
export interface CiFacts {
  /** The identity's name in the bundle. */
  readonly identity: string;
  /** Who set the run going, by number and by login: `github:id:583231`, `github:octocat`. Empty where it is not told. */
  readonly who: readonly string[];
  readonly commit: string;
  readonly ref: string;
  readonly run: string;
}

const ciFacts: Decoder<CiFacts> = object({
  identity: nonEmpty,
  who: array(nonEmpty),
  commit: nonEmpty,
  ref: nonEmpty,
  run: nonEmpty,
});

/** {@link CiFacts} as the text of a claim. Law: `parseCiFacts(ciFactsText(f))` equals `f`. */
export function ciFactsText(facts: CiFacts): string {
  return canonical(toJson(facts));
}

/** Null for any text that {@link ciFactsText} does not write. */
export function parseCiFacts(text: string | undefined): CiFacts | null {
  const value = text === undefined ? undefined : parseCanonical(text);
  const decoded = value === undefined ? null : decode(ciFacts, value);
  return decoded?.ok === true ? decoded.value : null;
}

/** The audience of the token that proves a plan; another plan's token has another one. */
export function planAudience(digest: Digest): string {
  return `holdpoint:${digest}`;
}

/** The audience of the token of whoever applies a plan. It proves no plan, and a plan's token applies none. */
export function applyAudience(digest: Digest): string {
  return `holdpoint:apply:${digest}`;
}

/** The audience by which a pipeline learns who it is before it rehearses anything. It proves and applies nothing. */
export const BEFORE_AUDIENCE = "holdpoint:before";

/** What the claims say, or the first thing that is not as the bundle pins it. */
export type ClaimsCheck =
  | { readonly ok: true; readonly facts: CiFacts }
  | { readonly ok: false; readonly why: string };

/** A token's payload. */
export type Claims = Readonly<Record<string, Json | undefined>>;

/** Holds claims against an identity. Every demand is an exact comparison of texts. */
export function checkClaims(claims: Claims, identity: CiIdentity, act: CiAct): ClaimsCheck {
  const of = READERS[identity.provider];
  const found = {
    repository: of.repository(claims),
    workflow: of.workflow(claims),
    ref: of.ref(claims),
    commit: of.commit(claims),
    run: of.run(claims),
  };
  const no = (why: string): ClaimsCheck => ({ ok: false, why });
  if (!identity.may.includes(act)) return no(`${identity.name} may not ${act}`);
  if (claims["iss"] !== identity.issuer)
    return no(`issuer: pinned ${identity.issuer}, the token says ${word(claims["iss"])}`);
  for (const what of ["repository", "workflow"] as const) {
    if (found[what] !== identity[what])
      return no(`${what}: pinned ${identity[what]}, the token says ${word(found[what])}`);
  }
  if (found.ref === null) return no("the token names no ref");
  if (identity.ref !== null && found.ref !== identity.ref)
    return no(`ref: pinned ${identity.ref}, the token says ${found.ref}`);
  if (identity.protectedRef && claims["ref_protected"] !== "true")
    return no(`${found.ref} is not a protected ref: ref_protected is ${word(claims["ref_protected"])}`);
  for (const [name, wanted] of Object.entries(identity.claims)) {
    const is = Object.hasOwn(claims, name) ? claims[name] : undefined;
    if (is !== wanted) return no(`${name}: pinned ${wanted}, the token says ${word(is)}`);
  }
  if (found.commit === null || found.run === null) return no("the token names no commit or no run");
  const { ref, commit, run } = { ...found, ref: found.ref, commit: found.commit, run: found.run };
  return { ok: true, facts: { identity: identity.name, who: of.who(claims), commit, ref, run } };
}

interface Reader {
  readonly repository: (c: Claims) => string | null;
  readonly workflow: (c: Claims) => string | null;
  readonly ref: (c: Claims) => string | null;
  readonly commit: (c: Claims) => string | null;
  readonly run: (c: Claims) => string | null;
  readonly who: (c: Claims) => readonly string[];
}

const READERS: Readonly<Record<CiProvider, Reader>> = {
  github: {
    repository: (c) => text(c["repository_id"]),
    // A job of a reusable workflow is what that workflow says, whoever calls it.
    workflow: (c) => text(c["job_workflow_ref"] === undefined ? c["workflow_ref"] : c["job_workflow_ref"]),
    ref: (c) => text(c["ref"]),
    commit: (c) => text(c["sha"]),
    run: (c) => pairOf(c["run_id"], c["run_attempt"]),
    who: (c) => names("github", c["actor_id"], c["actor"]),
  },
  gitlab: {
    repository: (c) => text(c["project_id"]),
    workflow: (c) => text(c["ci_config_ref_uri"]),
    ref: (c) => text(c["ref_path"]),
    commit: (c) => text(c["sha"]),
    run: (c) => text(c["pipeline_id"]),
    who: (c) => names("gitlab", c["user_id"], c["user_login"]),
  },
  buildkite: {
    repository: (c) => pairOf(c["organization_id"], c["pipeline_id"]),
    workflow: (c) => pairOf(c["organization_slug"], c["pipeline_slug"]),
    ref: (c) => text(c["build_branch"]),
    commit: (c) => text(c["build_commit"]),
    run: (c) => text(c["job_id"]),
    who: () => [],
  },
};

/** By number first: a login can be given up and taken by somebody else. */
function names(provider: string, id: Json | undefined, login: Json | undefined): readonly string[] {
  const [number, name] = [text(id), text(login)];
  return [
    ...(number === null ? [] : [`${provider}:id:${number}`]),
    ...(name === null ? [] : [`${provider}:${name}`]),
  ];
}

/** A text that says something; a number is no text, so that `1` and `"1"` are never two spellings of one id. */
function text(value: Json | undefined): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}

function pairOf(a: Json | undefined, b: Json | undefined): string | null {
  const [first, second] = [text(a), text(b)];
  return first === null || second === null ? null : `${first}/${second}`;
}

/** A claim for an error: no more of a stranger's text than helps. */
function word(value: Json | undefined): string {
  if (value === undefined || value === null) return "nothing";
  const shown = typeof value === "string" ? value : canonicalOr(value);
  return shown.length > 200 ? `${shown.slice(0, 200)}…` : shown;
}

function canonicalOr(value: Json): string {
  try {
    return canonical(value);
  } catch {
    return "something that is no text";
  }
}
