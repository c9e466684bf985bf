/** An HTTP address that the trust bundle names, asked for one reading: no credentials, no redirects, a small answer. */
import { messageOf } from "../base/errors.js";
import type { GuardEnd } from "./guard.js";

/** More would be a page, and nobody's number. */
const MAX_BYTES = 4_096;

/**
 * One GET. Only 2xx is an answer: a redirect could lead where nobody signed for, and is none. Never throws; what the
 * server said beside its status is not repeated.
 */
export async function readAddress(
  url: string,
  timeoutSeconds: number,
  signal: AbortSignal,
): Promise<GuardEnd> {
  const late = AbortSignal.timeout(timeoutSeconds * 1_000);
  try {
    const answer = await fetch(url, {
      redirect: "manual",
      credentials: "omit",
      headers: { accept: "text/plain", "user-agent": "holdpoint" },
      signal: AbortSignal.any([late, signal]),
    });
    const text = await bodyOf(answer);
    if (!answer.ok) return { kind: "failed", why: `it answered with ${answer.status}` };
    return text === null
      ? { kind: "failed", why: `it answered more than ${MAX_BYTES} bytes` }
      : { kind: "passed", output: text };
  } catch (e) {
    if (late.aborted) return { kind: "failed", why: `it took longer than ${timeoutSeconds} s` };
    return { kind: "failed", why: causeOf(e) };
  }
}

/** Null for an answer that is too long; the rest of it is not waited for. */
async function bodyOf(answer: Response): Promise<string | null> {
  if (answer.body === null) return "";
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of answer.body) {
    size += part.length;
    if (size > MAX_BYTES) return null;
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

/** `fetch failed` says nothing; its cause does. */
function causeOf(e: unknown): string {
  return e instanceof Error && e.cause !== undefined ? messageOf(e.cause) : messageOf(e);
}
