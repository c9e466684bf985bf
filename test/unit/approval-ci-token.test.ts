/** A pipeline's token: what it must be to count, each attack by its name, and bytes that nobody signed. */
import { describe, expect, test } from "@jest/globals";
import {
  applyAudience,
  BEFORE_AUDIENCE,
  type CiIdentity,
  planAudience,
} from "../../src/approval/ci-identity.js";
import { CI_TOKEN_LIMIT_BYTES, misformedCiToken, verifyCiToken } from "../../src/approval/ci-token.js";
import { digestOf } from "../../src/base/digest.js";
import { ciIdentity, type CiIdentityText, parseKeySet } from "../../src/config/ci-identities.js";
import { githubClaims, hmacWithPublicKey, ISSUER, issuerKey, jwt, keySetText } from "../support/ci-issuer.js";
import fc from "../support/fast-check.js";
import { refusalLine } from "../support/refusal.js";

const NOW = new Date("2026-11-24T14:38:00Z");
const PLAN = digestOf("plan");
const AUDIENCE = planAudience(PLAN);
const KEY = issuerKey("k1");
const OTHER = issuerKey("k1");
const EC = issuerKey("k-ec", "ES256");
const ED = issuerKey("k-ed", "EdDSA");

const TEXT: CiIdentityText = {
  provider: "github",
  issuer: ISSUER,
  keys: "github.jwks.json",
  may: ["plan", "apply"],
  repository: "823471",
  workflow: "shop/ops/.github/workflows/holdpoint.yml@refs/heads/main",
};
const made = (text: CiIdentityText = TEXT, set = keySetText(KEY, EC, ED)): CiIdentity =>
  ciIdentity("main", text, parseKeySet(set, "github.jwks.json"), "groups.yaml");
const GITHUB = made();
const claims = (change: Readonly<Record<string, unknown>> = {}): Record<string, unknown> =>
  githubClaims(AUDIENCE, NOW, change);

async function verified(token: string | Uint8Array, identity = GITHUB, now = NOW): Promise<string> {
  const check = await verifyCiToken({
    token: Buffer.from(token),
    identity,
    act: "plan",
    audience: AUDIENCE,
    moment: { kind: "now", now },
  });
  return check.ok ? `${check.facts.who.join(" ")} ${check.facts.ref}` : `${check.kind}: ${check.why}`;
}
const seconds = (n: number): Date => new Date(NOW.getTime() + n * 1000);
const GOOD = "github:id:583231 github:octo-lee refs/heads/main";

describe("a token that counts", () => {
  test.each([
    ["RSA", KEY],
    ["an elliptic curve", EC],
    ["Ed25519", ED],
  ])("signed with %s", async (_, key) => {
    await expect(verified(jwt(claims(), key))).resolves.toBe(GOOD);
  });

  test("its audience may be a list of one, and its header may name a certificate that is passed over", async () => {
    await expect(verified(jwt(claims({ aud: [AUDIENCE] }), KEY))).resolves.toBe(GOOD);
    await expect(verified(jwt(claims(), KEY, { x5t: "abc" }))).resolves.toBe(GOOD);
    await expect(verified(jwt(claims(), KEY, { typ: undefined }))).resolves.toBe(GOOD);
  });

  test("GitLab and Buildkite, by their own claims", async () => {
    const gitlab = made({
      ...TEXT,
      provider: "gitlab",
      repository: "42",
      workflow: "gitlab.example/shop/ops//.gitlab-ci.yml@refs/heads/main",
    });
    const one = {
      project_id: "42",
      ci_config_ref_uri: "gitlab.example/shop/ops//.gitlab-ci.yml@refs/heads/main",
      ref_path: "refs/heads/main",
      pipeline_id: "9",
      user_id: "7",
      user_login: "lee",
    };
    await expect(verified(jwt(claims(one), KEY), gitlab)).resolves.toBe(
      "gitlab:id:7 gitlab:lee refs/heads/main",
    );
    const other = { ...one, project_id: "43" };
    await expect(verified(jwt(claims(other), KEY), gitlab)).resolves.toMatch(/repository: pinned 42/);

    const buildkite = made({
      ...TEXT,
      provider: "buildkite",
      repository: "org-1/pipe-2",
      workflow: "shop/ops",
      ref: "main",
    });
    const build = {
      organization_id: "org-1",
      pipeline_id: "pipe-2",
      organization_slug: "shop",
      pipeline_slug: "ops",
      build_branch: "main",
      build_commit: "2".repeat(40),
      job_id: "j",
    };
    await expect(verified(jwt(claims(build), KEY), buildkite)).resolves.toBe(" main");
    const branch = jwt(claims({ ...build, build_branch: "try" }), KEY);
    await expect(verified(branch, buildkite)).resolves.toBe("claims: ref: pinned main, the token says try");
  });
});

describe("a token that does not count", () => {
  test.each<readonly [string, string, RegExp]>([
    [
      "a wrong audience",
      jwt(claims({ aud: "sts.amazonaws.com" }), KEY),
      /claims: audience: wanted holdpoint:sha256/,
    ],
    ["another plan's digest", jwt(claims({ aud: planAudience(digestOf("b")) }), KEY), /claims: audience/],
    ["the token of whoever applies", jwt(claims({ aud: applyAudience(PLAN) }), KEY), /claims: audience/],
    ["the token asked for beforehand", jwt(claims({ aud: BEFORE_AUDIENCE }), KEY), /claims: audience/],
    ["a second audience", jwt(claims({ aud: [AUDIENCE, "other"] }), KEY), /it is for 2 audiences/],
    ["no audience", jwt(claims({ aud: [] }), KEY), /it is for 0 audiences/],
    ["another issuer", jwt(claims({ iss: "https://evil.example" }), KEY), /claims: issuer: pinned/],
    ["an issuer with a slash more", jwt(claims({ iss: `${ISSUER}/` }), KEY), /claims: issuer: pinned/],
    [
      "another repository of the same name",
      jwt(claims({ repository_id: "1" }), KEY),
      /claims: repository: pinned 823471, the token says 1$/,
    ],
    ["an id that is a number", jwt(claims({ repository_id: 823471 }), KEY), /repository/],
    [
      "another workflow",
      jwt(claims({ job_workflow_ref: "shop/ops/.github/workflows/x.yml@refs/heads/main" }), KEY),
      /claims: workflow: pinned/,
    ],
    [
      "the workflow as a pull request changed it",
      jwt(claims({ job_workflow_ref: "shop/ops/.github/workflows/holdpoint.yml@refs/pull/7/merge" }), KEY),
      /claims: workflow: pinned/,
    ],
    [
      "a reusable workflow that is empty",
      jwt(claims({ job_workflow_ref: "" }), KEY),
      /claims: workflow: pinned/,
    ],
    [
      "an unprotected ref",
      jwt(claims({ ref: "refs/heads/x", ref_protected: "false" }), KEY),
      /not a protected ref/,
    ],
    [
      "a ref that is protected by another type",
      jwt(claims({ ref_protected: true }), KEY),
      /not a protected ref/,
    ],
    [
      "alg none",
      `${jwt(claims(), KEY, { alg: "none" }).split(".").slice(0, 2).join(".")}.AA`,
      /key: .* RS256, .* none/,
    ],
    [
      "alg none without a signature",
      `${jwt(claims(), KEY, { alg: "none" }).split(".").slice(0, 2).join(".")}.`,
      /malformed/,
    ],
    ["HS256 with the public key", hmacWithPublicKey(claims(), KEY), /key: key k1 signs with RS256, .* HS256/],
    ["PS256 by a key for RS256", jwt(claims(), KEY, { alg: "PS256" }), /key: key k1 signs with RS256/],
    [
      "an unknown kid",
      jwt(claims(), issuerKey("k9")),
      /key: it is signed by key k9, which github.jwks.json does not hold/,
    ],
    ["no kid", jwt(claims(), KEY, { kid: undefined }), /malformed: its header names no key/],
    ["a stranger's key under a pinned kid", jwt(claims(), OTHER), /altered: key k1 did not sign/],
    ["a key in the header", jwt(claims(), OTHER, { jwk: OTHER.jwk }), /malformed: its header has jwk/],
    [
      "an address of keys",
      jwt(claims(), KEY, { jku: "https://evil.example" }),
      /malformed: its header has jku/,
    ],
    ["an address of a certificate", jwt(claims(), KEY, { x5u: "https://evil.example" }), /header has x5u/],
    ["a critical extension", jwt(claims(), KEY, { crit: ["b64"], b64: false }), /header has crit, b64/],
    ["a nested token", jwt(claims(), KEY, { cty: "JWT" }), /header has cty/],
    ["another type", jwt(claims(), KEY, { typ: "at+jwt" }), /another type/],
    [
      "huge",
      jwt(claims({ pad: "x".repeat(CI_TOKEN_LIMIT_BYTES) }), KEY),
      /malformed: the token has \d+ bytes/,
    ],
    ["no times", jwt(claims({ iat: undefined }), KEY), /does not say when/],
    ["a time that is text", jwt(claims({ exp: "never" }), KEY), /does not say when/],
    [
      "a life of a week",
      jwt(claims({ exp: Math.floor(NOW.getTime() / 1000) + 7 * 86_400 }), KEY),
      /lives for/,
    ],
    ["no commit", jwt(claims({ sha: null }), KEY), /no commit or no run/],
    ["a payload that is a list", jwt("[]", KEY), /its payload is not an object/],
    ["a payload that is a token", jwt(jwt(claims(), KEY), KEY), /its payload is not JSON/],
    [
      "a claim that stands twice",
      jwt(JSON.stringify(claims()).replace("{", `{"repository_id":"1",`), KEY),
      /its payload names something twice/,
    ],
    [
      "a claim that stands twice in another spelling",
      jwt(JSON.stringify(claims()).replace("{", `{"repository_\\u0069d":"1",`), KEY),
      /its payload names something twice/,
    ],
    [
      "an algorithm that stands twice",
      jwt(claims(), KEY, `{"alg":"RS256","kid":"k1","alg":"RS256"}`),
      /its header names something twice/,
    ],
    ["nothing", "", /malformed/],
    ["JSON form", JSON.stringify({ payload: "x", signatures: [] }), /malformed/],
    ["encrypted form", "a.b.c.d.e", /malformed/],
    ["padding", `${jwt(claims(), KEY)}=`, /malformed/],
    ["a line feed at its end", `${jwt(claims(), KEY)}\n`, /malformed/],
  ])("%s", async (_, token, why) => {
    await expect(verified(token)).resolves.toMatch(why);
  });

  test("expired, and not yet valid: a minute is a difference of clocks, more is not", async () => {
    const token = jwt(claims(), KEY);
    await expect(verified(token, GITHUB, seconds(359))).resolves.toBe(GOOD);
    await expect(verified(token, GITHUB, seconds(361))).resolves.toMatch(/claims: it expired/);
    await expect(verified(token, GITHUB, seconds(-60))).resolves.toBe(GOOD);
    await expect(verified(token, GITHUB, seconds(-61))).resolves.toMatch(/claims: it is not valid before/);
  });

  test("later, it must have been issued when its plan was made, whatever the time is", async () => {
    const at = async (made: Date): Promise<string> => {
      const moment = { kind: "made", at: made } as const;
      const token = Buffer.from(jwt(claims(), KEY));
      const check = await verifyCiToken({ token, identity: GITHUB, act: "plan", audience: AUDIENCE, moment });
      return check.ok ? "counts" : check.why;
    };
    await expect(at(NOW)).resolves.toBe("counts");
    await expect(at(seconds(-3599))).resolves.toBe("counts");
    await expect(at(seconds(-3601))).resolves.toMatch(/^it was issued .*, the plan made/);
    await expect(at(seconds(61))).resolves.toMatch(/^it was issued .*, the plan made/);
  });

  test("an identity that may only apply proves no plan; more claims can be pinned", async () => {
    const token = jwt(claims({ environment: "shop-prod" }), KEY);
    await expect(verified(token, made({ ...TEXT, may: ["apply"] }))).resolves.toBe(
      "claims: main may not plan",
    );
    const pinned = made({ ...TEXT, claims: { environment: "shop-prod" } });
    await expect(verified(token, pinned)).resolves.toBe(GOOD);
    await expect(verified(jwt(claims(), KEY), pinned)).resolves.toMatch(
      /environment: pinned shop-prod, the token says nothing/,
    );
    const inherited = made({ ...TEXT, claims: { constructor: "x" } });
    await expect(verified(token, inherited)).resolves.toMatch(
      /constructor: pinned x, the token says nothing/,
    );
  });
});

describe("bytes that nobody signed", () => {
  const token = Buffer.from(jwt(claims(), ED));

  test("every truncation, and every byte flipped, is refused", async () => {
    for (let i = 0; i < token.length; i += 1) {
      await expect(verified(token.subarray(0, i))).resolves.toMatch(/^(malformed|altered|key)/);
      const flipped = Buffer.from(token);
      flipped[i] = (flipped[i] ?? 0) ^ 1;
      await expect(verified(flipped)).resolves.toMatch(/^(malformed|altered|key)/);
    }
  });

  test("random and mutated tokens never crash and never pass", async () => {
    const runs = Number(process.env["FUZZ_RUNS"] ?? 3_000);
    const position = fc.nat({ max: token.length - 1 });
    const altered = fc
      .array(fc.tuple(position, fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 })
      .map((edits) => {
        const copy = Buffer.from(token);
        for (const [at, byte] of edits) copy[at] = byte;
        return copy;
      });
    const spliced = fc
      .tuple(position, position)
      .map(([a, b]) => Buffer.concat([token.subarray(0, a), token.subarray(b)]));
    const parts = fc
      .tuple(fc.json(), fc.json(), fc.uint8Array({ maxLength: 64 }))
      .map(([h, p, s]) =>
        Buffer.from([h, p, Buffer.from(s)].map((x) => Buffer.from(x).toString("base64url")).join(".")),
      );
    const any = fc.oneof(
      altered,
      spliced,
      parts,
      fc.uint8Array({ maxLength: 200 }).map((b) => Buffer.from(b)),
    );
    await fc.assert(
      fc.asyncProperty(any, async (bytes) => {
        if (bytes.equals(token)) return;
        expect(await verified(bytes)).toMatch(/^(malformed|altered|key|claims)/);
        misformedCiToken(bytes, AUDIENCE);
      }),
      { numRuns: runs },
    );
  });

  test("signed claims of any shape never crash and never pass for another plan", async () => {
    await fc.assert(
      fc.asyncProperty(fc.dictionary(fc.string({ maxLength: 12 }), fc.jsonValue()), async (more) => {
        const odd = jwt({ ...claims(), aud: undefined, ...more }, ED);
        expect(await verified(odd)).toMatch(/^(malformed|claims)/);
      }),
      { numRuns: 500 },
    );
  });
});

describe("a key set that cannot be used", () => {
  const set = (...keys: readonly object[]): string => JSON.stringify({ keys });
  test.each<readonly [string, string, RegExp]>([
    ["two keys of one kid", keySetText(KEY, OTHER), /key k1 stands in it twice/],
    ["one key under two names", set(KEY.jwk, { ...KEY.jwk, kid: "k2" }), /stands in it twice/],
    [
      "a private key",
      set({ ...KEY.privateKey.export({ format: "jwk" }), kid: "p", alg: "RS256" }),
      /not a public key/,
    ],
    ["a shared secret", set({ kty: "oct", k: "AA", kid: "s", alg: "HS256" }), /kty|alg/],
    ["no alg", set({ ...KEY.jwk, alg: undefined }), /alg/],
    ["no kid", set({ ...KEY.jwk, kid: undefined }), /kid/],
    ["an algorithm of another type", set({ ...KEY.jwk, alg: "ES256" }), /of type RSA and cannot sign ES256/],
    ["a key for encryption", set({ ...KEY.jwk, use: "enc" }), /use/],
    ["1,024 bits", keySetText(issuerKey("weak", "RS256", 1024)), /key weak has 1024 bits/],
    ["an exponent of three", set({ ...KEY.jwk, e: "Aw" }), /another exponent/],
    ["no keys", set(), /keys/],
    ["a list", "[]", /wants a map of keys/],
    ["a key set with a name twice", keySetText(KEY).replace("{", `{"keys":[],`), /keys/],
  ])("%s", async (_, text, why) => {
    expect(await refusalLine(() => parseKeySet(text, "github.jwks.json"))).toMatch(/^ERR_PEOPLE_INVALID/);
    expect(await refusalLine(() => parseKeySet(text, "github.jwks.json"))).toMatch(why);
  });
});

describe("an identity that cannot be used", () => {
  test.each<readonly [string, Partial<CiIdentityText>, RegExp]>([
    ["an issuer without https", { issuer: "http://gitlab.example" }, /not an https address/],
    ["an issuer with a query", { issuer: "https://gitlab.example/?x" }, /not an https address/],
    ["apply on any ref", { ref_protected: false }, /what may apply runs on a protected ref/],
    ["Buildkite without a branch", { provider: "buildkite" }, /ref is missing/],
    [
      "Buildkite and a protected ref",
      { provider: "buildkite", ref: "main", ref_protected: true },
      /do not tell it/,
    ],
    ["an act twice", { may: ["plan", "plan"] }, /names something twice/],
  ])("%s", async (_, change, why) => {
    expect(await refusalLine(() => made({ ...TEXT, ...change }))).toMatch(why);
  });
});
