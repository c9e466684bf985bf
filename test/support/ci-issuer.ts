/** An issuer of identity tokens with keys of its own, and the server that a GitHub runner asks for them. */
import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** The issuer that the identities of these tests pin. */
export const ISSUER = "https://token.actions.githubusercontent.com";

/** A key pair as an issuer has it. */
export interface IssuerKey {
  readonly kid: string;
  readonly alg: string;
  readonly privateKey: KeyObject;
  readonly jwk: Readonly<Record<string, unknown>>;
}

/** A fresh pair: RSA of 2,048 bits unless said otherwise. */
export function issuerKey(kid: string, alg = "RS256", bits = 2048): IssuerKey {
  const { privateKey } =
    alg === "ES256"
      ? generateKeyPairSync("ec", { namedCurve: "P-256" })
      : alg === "EdDSA"
        ? generateKeyPairSync("ed25519")
        : generateKeyPairSync("rsa", { modulusLength: bits });
  const jwk = { ...createPublicKey(privateKey).export({ format: "jwk" }), kid, alg, use: "sig" };
  return { kid, alg, privateKey, jwk };
}

/** What an issuer publishes. */
export function keySetText(...keys: readonly IssuerKey[]): string {
  return JSON.stringify({ keys: keys.map((k) => k.jwk) });
}

/** The claims of a run on GitHub, five minutes long. */
export function githubClaims(
  audience: string,
  now: Date,
  change: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  const iat = Math.floor(now.getTime() / 1000);
  return {
    iss: ISSUER,
    sub: "repo:shop/ops:ref:refs/heads/main",
    aud: audience,
    iat,
    nbf: iat - 1,
    exp: iat + 300,
    jti: "9f0c",
    actor: "octo-lee",
    actor_id: "583231",
    repository: "shop/ops",
    repository_id: "823471",
    workflow_ref: "shop/ops/.github/workflows/holdpoint.yml@refs/heads/main",
    job_workflow_ref: "shop/ops/.github/workflows/holdpoint.yml@refs/heads/main",
    ref: "refs/heads/main",
    ref_protected: "true",
    sha: "1".repeat(40),
    run_id: "77",
    run_attempt: "1",
    ...change,
  };
}

const part = (value: unknown): string =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

/** A token; `header` is added to the one that its key asks for. Texts stand as they are given, for broken JSON. */
export function jwt(
  claims: Readonly<Record<string, unknown>> | string,
  key: IssuerKey,
  header: Readonly<Record<string, unknown>> | string = {},
): string {
  const head =
    typeof header === "string"
      ? header
      : JSON.stringify({ typ: "JWT", alg: key.alg, kid: key.kid, ...header });
  const signed = `${part(head)}.${part(claims)}`;
  return `${signed}.${signatureOf(signed, key).toString("base64url")}`;
}

function signatureOf(signed: string, key: IssuerKey): Buffer {
  const bytes = Buffer.from(signed);
  if (key.alg === "ES256") return sign("sha256", bytes, { key: key.privateKey, dsaEncoding: "ieee-p1363" });
  if (key.alg === "EdDSA") return sign(null, bytes, key.privateKey);
  return sign("sha256", bytes, key.privateKey);
}

/** The confusion of RFC 8725 §2.1: the public key as a shared secret. */
export function hmacWithPublicKey(claims: Readonly<Record<string, unknown>>, key: IssuerKey): string {
  const signed = `${part({ typ: "JWT", alg: "HS256", kid: key.kid })}.${part(claims)}`;
  const secret = createPublicKey(key.privateKey).export({ type: "spki", format: "pem" });
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** What a runner's job is given, with the server behind it; close it. */
export interface TokenServer {
  readonly env: Readonly<Record<string, string>>;
  /** Audiences that were asked for, in order. */
  readonly asked: string[];
  /** How it answers from now on: a token for an audience, or a whole answer. */
  answer: (audience: string) => string | { readonly status: number; readonly body: string };
  readonly close: () => Promise<void>;
}

/** Serves tokens as a GitHub runner's server does, to whoever shows the job's secret. */
export async function tokenServer(first: TokenServer["answer"]): Promise<TokenServer> {
  const asked: string[] = [];
  const secret = "job-secret-7f";
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://runner");
    const audience = url.searchParams.get("audience") ?? "";
    if (
      request.headers.authorization !== `Bearer ${secret}` ||
      url.searchParams.get("api-version") === null
    ) {
      response.writeHead(401).end();
      return;
    }
    asked.push(audience);
    const answer = served.answer(audience);
    if (typeof answer === "string") response.end(JSON.stringify({ count: answer.length, value: answer }));
    else response.writeHead(answer.status, { location: "http://127.0.0.1:9/" }).end(answer.body);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  const served: TokenServer = {
    env: {
      CI: "true",
      GITHUB_ACTIONS: "true",
      GITHUB_ACTOR: "octo-lee",
      GITHUB_TRIGGERING_ACTOR: "octo-lee",
      ACTIONS_ID_TOKEN_REQUEST_URL: `http://127.0.0.1:${port}/token?api-version=2.0`,
      ACTIONS_ID_TOKEN_REQUEST_TOKEN: secret,
    },
    asked,
    answer: first,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
  return served;
}
