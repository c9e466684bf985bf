/**
 * A token of this CI's identity provider, asked for one audience. It is a bearer's proof until it expires: it is never
 * printed, logged or put into an error, and whatever a provider's server answers beside it is not repeated.
 */
import { execFile } from "node:child_process";
import { setTimeout } from "node:timers/promises";
import { codeOf } from "../base/errors.js";
import { callerKind } from "./evidence.js";

type Variables = Readonly<Record<string, string | undefined>>;

/** What there is to be had. `outside`: this is no CI. */
export type CiTokenAnswer =
  | { readonly kind: "outside" }
  | { readonly kind: "none"; readonly ci: string; readonly why: string }
  | { readonly kind: "token"; readonly ci: "github" | "gitlab" | "buildkite"; readonly token: Uint8Array };

/** The variable in which a GitLab job finds its token: its audience stands in the job's definition. */
export const GITLAB_TOKEN_VARIABLE = "HOLDPOINT_ID_TOKEN";

const ANSWER_BYTES = 64 * 1024;
const WAIT_MS = 10_000;
const TRIES = 3;

/**
 * Asks for a token for `audience`. Never throws.
 * Which CI this is, variables say; that decides only where to ask, and a CI that is not known gives none.
 */
export async function ciToken(env: Variables, audience: string): Promise<CiTokenAnswer> {
  if (isOn(env["GITHUB_ACTIONS"])) return github(env, audience);
  if (isOn(env["GITLAB_CI"])) return gitlab(env);
  if (isOn(env["BUILDKITE"])) return buildkite(env, audience);
  // An agent's variable hides nothing here: `CI` alone is enough.
  if (callerKind(env) !== "ci" && !isOn(env["CI"])) return { kind: "outside" };
  return { kind: "none", ci: "this CI", why: "it is none of GitHub Actions, GitLab CI and Buildkite" };
}

async function github(env: Variables, audience: string): Promise<CiTokenAnswer> {
  const none = (why: string): CiTokenAnswer => ({ kind: "none", ci: "GitHub Actions", why });
  const address = env["ACTIONS_ID_TOKEN_REQUEST_URL"] ?? "";
  const secret = env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] ?? "";
  if (address === "" || secret === "") return none("the job has no permissions: id-token: write");
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url === null || !isConfidential(url)) return none("the address to ask for it is not an https one");
  url.searchParams.set("audience", audience);
  for (let tried = 1; ; tried += 1) {
    const answer = await askOnce(url, secret);
    if (answer.kind === "token") return { kind: "token", ci: "github", token: answer.token };
    if (!answer.again || tried === TRIES) return none(answer.why);
    await setTimeout(300 * tried);
  }
}

type Asked =
  | { readonly kind: "token"; readonly token: Uint8Array }
  | { readonly kind: "no"; readonly why: string; readonly again: boolean };

async function askOnce(url: URL, secret: string): Promise<Asked> {
  const no = (why: string, again: boolean): Asked => ({ kind: "no", why, again });
  try {
    const answer = await fetch(url, {
      // A redirect would take the job's secret to somebody else.
      redirect: "manual",
      headers: { authorization: `Bearer ${secret}`, accept: "application/json", "user-agent": "holdpoint" },
      signal: AbortSignal.timeout(WAIT_MS),
    });
    const body = await bodyOf(answer);
    if (!answer.ok) return no(`its server answered with ${answer.status}`, answer.status >= 500);
    const token = body === null ? null : valueIn(body);
    if (token === null) return no("its server answered something that holds no token", false);
    return { kind: "token", token };
  } catch (e) {
    const cause = e instanceof Error ? e.cause : undefined;
    return no(`its server cannot be reached (${codeOf(cause) ?? codeOf(e) ?? "no answer in time"})`, true);
  }
}

/** Null for an answer that is too long. */
async function bodyOf(answer: Response): Promise<string | null> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of answer.body ?? []) {
    size += part.length;
    if (size > ANSWER_BYTES) return null;
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

function valueIn(body: string): Uint8Array | null {
  try {
    const answer: unknown = JSON.parse(body);
    if (typeof answer !== "object" || answer === null || !("value" in answer)) return null;
    return typeof answer.value === "string" ? Buffer.from(answer.value, "utf8") : null;
  } catch {
    return null;
  }
}

/** Plain HTTP leaves this machine nowhere; a runner's own proxy may stand on it. */
function isConfidential(url: URL): boolean {
  if (url.username !== "" || url.password !== "") return false;
  if (url.protocol === "https:") return true;
  return url.protocol === "http:" && ["127.0.0.1", "[::1]", "localhost"].includes(url.hostname);
}

function gitlab(env: Variables): CiTokenAnswer {
  const token = env[GITLAB_TOKEN_VARIABLE] ?? "";
  if (token !== "") return { kind: "token", ci: "gitlab", token: Buffer.from(token, "utf8") };
  return { kind: "none", ci: "GitLab CI", why: `the job has no ${GITLAB_TOKEN_VARIABLE} under id_tokens:` };
}

/** The agent asks for the job; what it prints beside the token is not repeated. */
async function buildkite(env: Variables, audience: string): Promise<CiTokenAnswer> {
  const args = ["oidc", "request-token", "--audience", audience, "--claim", "organization_id,pipeline_id"];
  return new Promise((resolve) => {
    execFile(
      "buildkite-agent",
      args,
      { timeout: WAIT_MS, maxBuffer: ANSWER_BYTES, env: { ...env }, encoding: "utf8" },
      (error, stdout) => {
        const token = stdout.trim();
        const why =
          error === null
            ? "buildkite-agent printed none"
            : `buildkite-agent did not give one (${codeOf(error) ?? "it ended with an error"})`;
        if (error !== null || token === "") resolve({ kind: "none", ci: "Buildkite", why });
        else resolve({ kind: "token", ci: "buildkite", token: Buffer.from(token, "utf8") });
      },
    );
  });
}

function isOn(value: string | undefined): boolean {
  const text = value?.trim().toLowerCase() ?? "";
  return text !== "" && text !== "false" && text !== "0";
}
