/**
 * A CI's identity token: a JWT in compact form, signed by a key that the bundle pins. Reading is narrower than JWT: one
 * spelling of each part, a header that names algorithm, key and type and nothing else, no key or address taken from
 * the token, one audience. Format page: `docs/formats/ci-token.md`; RFC 7519, RFC 8725.
 */
import type { Json } from "../base/canonical.js";
import {
  checkClaims,
  type CiAct,
  type CiFacts,
  type CiIdentity,
  type CiKey,
  type Claims,
} from "./ci-identity.js";

/** Larger tokens are refused unread; those of the providers have one to three KiB. */
export const CI_TOKEN_LIMIT_BYTES = 16 * 1024;

/** How far the provider's clock and ours may be apart. */
export const CI_TOKEN_SKEW_SECONDS = 60;

/** A token that lives longer than this is no proof of a moment. GitLab's live as long as a job may. */
export const CI_TOKEN_LIFE_SECONDS = 24 * 3600;

/** How long after it was made a plan can be proven: GitLab gives a token for a digest to a later job only. */
export const CI_PROOF_SECONDS = 3600;

/** When a token must hold: now, or when the plan that it proves was made. */
export type TokenMoment =
  | { readonly kind: "now"; readonly now: Date }
  | { readonly kind: "made"; readonly at: Date };

/** What a token proves, or why it does not. */
export type TokenCheck =
  | { readonly ok: true; readonly facts: CiFacts }
  | {
      readonly ok: false;
      readonly why: string;
      /** `altered` where the key is pinned and the bytes are not what it signed; `key` where the key is not pinned. */
      readonly kind: "malformed" | "key" | "altered" | "claims";
    };

/** A token whose form was checked; nothing in it is believed yet. */
interface ReadToken {
  readonly text: string;
  readonly alg: string;
  readonly kid: string;
  readonly claims: Claims;
}

/**
 * Verifies a token against one identity: form, key, signature, audience, time, claims. Never throws for what the token holds.
 * @param args.audience the only one that it may have.
 */
export async function verifyCiToken(args: {
  readonly token: Uint8Array;
  readonly identity: CiIdentity;
  readonly act: CiAct;
  readonly audience: string;
  readonly moment: TokenMoment;
}): Promise<TokenCheck> {
  const { identity } = args;
  const read = readCiToken(args.token);
  if (typeof read === "string") return { ok: false, kind: "malformed", why: read };
  const key = identity.keys.find((k) => k.kid === read.kid);
  if (key === undefined) return { ok: false, kind: "key", why: unknownKey(read.kid, identity) };
  if (key.alg !== read.alg)
    return {
      ok: false,
      kind: "key",
      why: `key ${key.kid} signs with ${key.alg}, the token says ${read.alg}`,
    };
  if (!(await isSignedBy(read.text, key)))
    return { ok: false, kind: "altered", why: `key ${key.kid} did not sign these bytes` };
  const refused = audienceOf(read.claims, args.audience) ?? timesOf(read.claims, args.moment);
  if (refused !== null) return { ok: false, kind: "claims", why: refused };
  const checked = checkClaims(read.claims, identity, args.act);
  return checked.ok ? checked : { ok: false, kind: "claims", why: checked.why };
}

/**
 * Checks the form of a token and that it is for `audience`, without any key: what a process that knows no bundle can say.
 * @returns why not; null where it has the form.
 */
export function misformedCiToken(token: Uint8Array, audience: string): string | null {
  const read = readCiToken(token);
  return typeof read === "string" ? read : audienceOf(read.claims, audience);
}

/** `x5t` names a certificate of the key and is passed over; whatever brings a key or an address of one is refused. */
const HEADER = new Set(["alg", "kid", "typ", "x5t", "x5t#S256"]);

function readCiToken(bytes: Uint8Array): ReadToken | string {
  if (bytes.length > CI_TOKEN_LIMIT_BYTES) return `the token has ${bytes.length} bytes`;
  const text = Buffer.from(bytes).toString("latin1");
  const [, head = "", body = "", signature = ""] = /^([\w-]+)\.([\w-]+)\.([\w-]+)$/.exec(text) ?? [];
  if (head === "") return "it is no JWT in compact form";
  const parts = [head, body, signature].map(decodePart);
  const [headBytes, bodyBytes] = parts;
  if (headBytes === null || bodyBytes === null || headBytes === undefined || bodyBytes === undefined)
    return "a part of it is not base64url in its one spelling";
  if (parts[2] === null) return "a part of it is not base64url in its one spelling";
  const header = objectOf(headBytes);
  const claims = objectOf(bodyBytes);
  if (typeof header === "string") return `its header ${header}`;
  if (typeof claims === "string") return `its payload ${claims}`;
  const more = Object.keys(header).filter((name) => !HEADER.has(name));
  if (more.length > 0) return `its header has ${more.slice(0, 5).join(", ").slice(0, 100)}`;
  const { alg, kid, typ } = header;
  if (typeof alg !== "string") return "its header names no algorithm";
  if (typeof kid !== "string" || kid === "") return "its header names no key";
  if (typ !== undefined && typ !== "JWT") return "it is of another type than JWT";
  return { text, alg, kid, claims };
}

/** Null for a second spelling: padding, spare bits. */
function decodePart(part: string): Uint8Array | null {
  const bytes = Buffer.from(part, "base64url");
  return bytes.toString("base64url") === part ? bytes : null;
}

/** An object of JSON in which no name stands twice, at any depth; else why not. */
function objectOf(bytes: Uint8Array): Claims | string {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
  } catch {
    return "is not JSON";
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return "is not an object";
  if (namesTwice(text)) return "names something twice";
  return value as Claims;
}

/** Two readers of a name that stands twice may each take another one. The text is valid JSON already. */
function namesTwice(text: string): boolean {
  const open: (Set<string> | null)[] = [];
  let last: string | null = null;
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\]:]/gs)) {
    if (token === "{") open.push(new Set());
    else if (token === "[") open.push(null);
    else if (token === "}" || token === "]") open.pop();
    else if (token === ":") {
      const names = open.at(-1);
      const name: unknown = last === null ? "" : JSON.parse(last);
      if (names?.has(String(name)) === true) return true;
      names?.add(String(name));
    }
    last = token.startsWith('"') ? token : null;
  }
  return false;
}

async function isSignedBy(token: string, key: CiKey): Promise<boolean> {
  // Loaded by who has a token in hand: no other command waits for it, nor does the process that checks a plan's form.
  const { compactVerify } = await import("jose");
  try {
    await compactVerify(token, { ...key.jwk, alg: key.alg }, { algorithms: [key.alg] });
    return true;
  } catch {
    return false;
  }
}

/** A token for several is a token that others may show, too. */
function audienceOf(claims: Claims, wanted: string): string | null {
  const { aud } = claims;
  const only: Json | undefined = Array.isArray(aud) && aud.length === 1 ? aud[0] : aud;
  if (only === wanted) return null;
  if (Array.isArray(aud) && aud.length !== 1) return `it is for ${aud.length} audiences`;
  return `audience: wanted ${wanted}, the token is for ${typeof only === "string" ? only.slice(0, 200) : "none"}`;
}

function timesOf(claims: Claims, moment: TokenMoment): string | null {
  const { iat, exp, nbf } = claims;
  if (!isTime(iat) || !isTime(exp)) return "it does not say when it was issued and when it expires";
  if (nbf !== undefined && !isTime(nbf)) return "from when it holds cannot be read";
  const from = Math.max(iat, nbf ?? iat);
  if (exp <= from || exp - iat > CI_TOKEN_LIFE_SECONDS)
    return `it lives for ${exp - iat} s; at most ${CI_TOKEN_LIFE_SECONDS} are believed`;
  switch (moment.kind) {
    case "now": {
      const now = moment.now.getTime() / 1000;
      if (from > now + CI_TOKEN_SKEW_SECONDS) return `it is not valid before ${at(from)}; it is ${at(now)}`;
      return exp < now - CI_TOKEN_SKEW_SECONDS ? `it expired ${at(exp)}; it is ${at(now)}` : null;
    }
    case "made": {
      const made = moment.at.getTime() / 1000;
      // The plan was there when its token was asked for: an older token is not for it, a much later one was begged for.
      if (iat < made - CI_TOKEN_SKEW_SECONDS || from > made + CI_PROOF_SECONDS)
        return `it was issued ${at(iat)}, the plan made ${at(made)}`;
      return exp < made ? `it expired ${at(exp)}, before the plan was made` : null;
    }
  }
}

/** Seconds since 1970, until the year 2286. */
function isTime(value: Json | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value > 0 && value < 1e10;
}

function at(seconds: number): string {
  return `${new Date(Math.floor(seconds) * 1000).toISOString().slice(0, 19)}Z`;
}

function unknownKey(kid: string, identity: CiIdentity): string {
  const known = identity.keys.map((k) => k.kid).join(", ");
  return `it is signed by key ${kid.slice(0, 200)}, which ${identity.keysFile} does not hold (it holds ${known})`;
}
