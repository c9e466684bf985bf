/** Pipelines that are known by their identity token: `ci.identity` of groups.yaml, and the key sets that it names. */
import { createHash } from "node:crypto";
import * as z from "zod";
import {
  CI_ALGORITHMS,
  CI_PROVIDERS,
  type CiAlgorithm,
  type CiIdentity,
  type CiKey,
} from "../approval/ci-identity.js";
import { byCodeUnit, canonical, type Json } from "../base/canonical.js";
import { UsageError } from "../base/errors.js";
import { parseYaml, plainText } from "./yaml-file.js";

/** More keys than this are no issuer's. */
const MOST_KEYS = 32;

/** Smaller moduli can be factored, larger ones only cost time. */
const RSA_BITS = { least: 2048, most: 8192 } as const;

/** One identity as it is written; `keys` is a file beside groups.yaml. */
export const ciIdentitySchema = z.strictObject({
  provider: z.enum(CI_PROVIDERS),
  issuer: plainText(),
  keys: plainText().refine(
    (f) => /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(f),
    "must name a file beside groups.yaml",
  ),
  may: z.array(z.enum(["plan", "apply"])).min(1),
  repository: plainText(),
  workflow: plainText(),
  ref: plainText().optional(),
  ref_protected: z.boolean().optional(),
  claims: z.record(plainText(), plainText()).optional(),
});

/** {@link ciIdentitySchema}, read. */
export type CiIdentityText = z.infer<typeof ciIdentitySchema>;

/**
 * Puts an identity together. Pure.
 * @param at where it stands, for errors: `people/groups.yaml: ci.identity.NAME`.
 * @throws UsageError ERR_PEOPLE_INVALID for an issuer that is no https address, and for a demand that could never hold or
 *   that leaves the ref open by silence.
 */
export function ciIdentity(
  name: string,
  text: CiIdentityText,
  keys: readonly CiKey[],
  at: string,
): CiIdentity {
  if (!isIssuer(text.issuer)) throw invalid(at, `issuer ${text.issuer} is not an https address of an issuer`);
  if (new Set(text.may).size !== text.may.length) throw invalid(at, "may names something twice");
  const protectedRef = text.ref_protected ?? text.provider !== "buildkite";
  if (text.provider === "buildkite" && protectedRef)
    throw invalid(at, "ref_protected cannot be true: Buildkite's tokens do not tell it");
  // Buildkite tells no protection, so the branch is all there is; elsewhere any ref has to be said in words.
  if (text.provider === "buildkite" && text.ref === undefined)
    throw invalid(at, "ref is missing: name the one branch whose builds count");
  if (text.may.includes("apply") && !protectedRef && text.ref === undefined)
    throw invalid(at, "what may apply runs on a protected ref, or on the one that ref names");
  return {
    name,
    provider: text.provider,
    issuer: text.issuer,
    may: [...text.may].sort(),
    repository: text.repository,
    workflow: text.workflow,
    ref: text.ref ?? null,
    protectedRef,
    claims: text.claims ?? {},
    keysFile: text.keys,
    keys,
  };
}

/** What the bundle holds of identities: of each key its thumbprint, which stands for all of it. */
export function identitiesInBundle(identities: readonly CiIdentity[]): Json {
  return Object.fromEntries(
    identities.map((i) => [
      i.name,
      {
        provider: i.provider,
        issuer: i.issuer,
        may: i.may,
        repository: i.repository,
        workflow: i.workflow,
        ref: i.ref,
        ref_protected: i.protectedRef,
        claims: i.claims,
        keys: Object.fromEntries(i.keys.map((k) => [k.kid, `${k.alg} SHA256:${k.thumbprint}`])),
      },
    ]),
  );
}

const publicKey = z.looseObject({
  kid: plainText().refine((k) => k.length <= 200, "is longer than 200 characters"),
  kty: z.enum(["RSA", "EC", "OKP"]),
  alg: z.enum(CI_ALGORITHMS),
  use: z.literal("sig").optional(),
  key_ops: z.array(z.literal("verify")).optional(),
});

const keySet = z.strictObject({ keys: z.array(publicKey).min(1).max(MOST_KEYS) });

/** Members that only a private or a shared key has. */
const SECRET_MEMBERS = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] as const;

/**
 * Reads an issuer's key set (RFC 7517), as it is published. Pure.
 * @throws UsageError ERR_PEOPLE_INVALID for a key without `kid` or `alg`, a `kid` twice, one key under two names, a private or a
 *   shared key, a curve or a size that is not used here.
 */
export function parseKeySet(text: string, file: string): readonly CiKey[] {
  const { keys } = parseYaml(text, file, keySet, { code: "ERR_PEOPLE_INVALID" }).value;
  const read = keys.map((k) => keyOf(k, file));
  for (const what of ["kid", "thumbprint"] as const) {
    const twice = read.find((k, i) => read.findIndex((o) => o[what] === k[what]) !== i);
    if (twice !== undefined) throw invalid(file, `key ${twice.kid} stands in it twice`);
  }
  return [...read].sort((a, b) => byCodeUnit(a.kid, b.kid));
}

/** The members that make the key (RFC 7638 §3.2), by type; all others are passed over. */
const MEMBERS: Readonly<Record<CiAlgorithm, { readonly kty: string; readonly of: readonly string[] }>> = {
  RS256: { kty: "RSA", of: ["e", "n"] },
  PS256: { kty: "RSA", of: ["e", "n"] },
  ES256: { kty: "EC", of: ["crv", "x", "y"] },
  EdDSA: { kty: "OKP", of: ["crv", "x"] },
};

function keyOf(key: z.infer<typeof publicKey>, file: string): CiKey {
  const secret = SECRET_MEMBERS.find((m) => Object.hasOwn(key, m));
  if (secret !== undefined) throw invalid(file, `key ${key.kid} is not a public key: it has ${secret}`);
  const { kty, of } = MEMBERS[key.alg];
  if (key.kty !== kty) throw invalid(file, `key ${key.kid} is of type ${key.kty} and cannot sign ${key.alg}`);
  const jwk: Record<string, string> = { kty };
  for (const member of of) jwk[member] = memberOf(key, member, file);
  refuseWeak(key.kid, key.alg, jwk, file);
  const thumbprint = createHash("sha256").update(canonical(jwk), "utf8").digest("base64url");
  return { kid: key.kid, alg: key.alg, jwk, thumbprint };
}

function memberOf(key: z.infer<typeof publicKey>, member: string, file: string): string {
  const value = key[member];
  if (typeof value !== "string") throw invalid(file, `key ${key.kid} has no ${member}`);
  if (member !== "crv" && Buffer.from(value, "base64url").toString("base64url") !== value)
    throw invalid(file, `${member} of key ${key.kid} is not base64url in its one spelling`);
  return value;
}

function refuseWeak(
  kid: string,
  alg: CiAlgorithm,
  jwk: Readonly<Record<string, string>>,
  file: string,
): void {
  const bytes = (member: string): Buffer => Buffer.from(jwk[member] ?? "", "base64url");
  switch (alg) {
    case "RS256":
    case "PS256": {
      const n = bytes("n");
      const bits = n.length * 8 - Math.clz32(n[0] ?? 0) + 24;
      if (n[0] === 0 || bits < RSA_BITS.least || bits > RSA_BITS.most)
        throw invalid(
          file,
          `key ${kid} has ${bits} bits, and from ${RSA_BITS.least} to ${RSA_BITS.most} count`,
        );
      // 65537, as every issuer has it: a small or an even exponent is a mistake or a trap.
      if (jwk["e"] !== "AQAB") throw invalid(file, `key ${kid} has another exponent than 65537`);
      return;
    }
    case "ES256":
      if (jwk["crv"] === "P-256" && bytes("x").length === 32 && bytes("y").length === 32) return;
      throw invalid(file, `key ${kid} is not on P-256`);
    case "EdDSA":
      if (jwk["crv"] === "Ed25519" && bytes("x").length === 32) return;
      throw invalid(file, `key ${kid} is not on Ed25519`);
  }
}

/** `https://host[/path]`, without user, query or fragment: compared as it stands with `iss`. */
function isIssuer(text: string): boolean {
  if (!/^https:\/\/[^\s@?#]+$/.test(text)) return false;
  return URL.canParse(text);
}

function invalid(where: string, why: string): UsageError {
  return new UsageError({
    code: "ERR_PEOPLE_INVALID",
    message: `${where} cannot be used`,
    why,
  });
}
