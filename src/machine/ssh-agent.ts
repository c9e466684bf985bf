/**
 * A client for the SSH agent (draft-miller-ssh-agent): lists keys and asks for signatures. It sends two
 * kinds of message and never adds, removes or locks a key.
 */
import { connect, type Socket } from "node:net";
import { publicKeyOf, type PublicKey } from "../approval/public-key.js";
import { WireFailure, WireReader, wireString, wireUint32 } from "../approval/ssh-wire.js";
import { HoldpointError, messageOf, RefusedError } from "../base/errors.js";

/** One key in the agent. */
export interface AgentKey extends PublicKey {
  /** The agent's socket. */
  readonly socket: string;
}

const REQUEST_IDENTITIES = 11;
const IDENTITIES_ANSWER = 12;
const SIGN_REQUEST = 13;
const SIGN_RESPONSE = 14;
/** Ask RSA keys for SHA-512; without it an agent answers with SHA-1. */
const RSA_SHA2_512 = 4;
/** OpenSSH's own bound on a message. */
const MESSAGE_LIMIT_BYTES = 256 * 1024;
/** A list is answered at once; a signature may wait for a person to confirm or touch. */
const LIST_TIMEOUT_MS = 5_000;
const SIGN_TIMEOUT_MS = 60_000;

/**
 * The keys in the agent, in its order; keys of types that holdpoint does not accept are left out.
 * An agent that is not there has no keys: empty, not an error.
 */
export async function agentKeys(socket: string | undefined): Promise<readonly AgentKey[]> {
  return (await askAgent(socket)).keys;
}

/** {@link agentKeys}, with why there are none where the agent itself is the reason; null where it answered. */
export async function askAgent(
  socket: string | undefined,
): Promise<{ readonly keys: readonly AgentKey[]; readonly problem: string | null }> {
  if (socket === undefined || socket === "") return { keys: [], problem: "SSH_AUTH_SOCK is not set" };
  try {
    const answer = await exchange(socket, Buffer.from([REQUEST_IDENTITIES]), LIST_TIMEOUT_MS);
    return { keys: parseIdentities(answer, socket), problem: null };
  } catch (e) {
    if (e instanceof AgentFailure) return { keys: [], problem: `${socket} does not answer: ${e.message}` };
    throw e;
  }
}

/**
 * A raw SSH signature over `data` by a key in the agent.
 * @throws RefusedError ERR_KEY_REFUSED when the agent is locked, asks a person who says no, or does not answer.
 */
export async function agentSign(key: AgentKey, data: Uint8Array): Promise<Uint8Array> {
  const flags = key.type.startsWith("ssh-rsa") ? RSA_SHA2_512 : 0;
  const request = [Buffer.from([SIGN_REQUEST]), wireString(key.blob), wireString(data), wireUint32(flags)];
  try {
    const reader = new WireReader(await exchange(key.socket, Buffer.concat(request), SIGN_TIMEOUT_MS));
    if (reader.byte() !== SIGN_RESPONSE) throw new AgentFailure("it refused to sign");
    const signature = reader.string();
    reader.end();
    return signature;
  } catch (e) {
    if (e instanceof AgentFailure || e instanceof WireFailure) throw agentRefused(key, e.message);
    throw e;
  }
}

/** The agent did not do what was asked. Stays in this file. */
class AgentFailure extends Error {}

function parseIdentities(answer: Uint8Array, socket: string): readonly AgentKey[] {
  try {
    const reader = new WireReader(answer);
    if (reader.byte() !== IDENTITIES_ANSWER) return [];
    const count = reader.uint32();
    const keys: AgentKey[] = [];
    for (let i = 0; i < count; i++) {
      const blob = Buffer.from(reader.string());
      const comment = reader.string().toString("utf8");
      const key = acceptedKey(blob);
      if (key !== null) keys.push({ ...key, comment, socket });
    }
    return keys;
  } catch (e) {
    if (e instanceof WireFailure) return [];
    throw e;
  }
}

/** null for a key of a type that holdpoint does not accept; it may be in the agent for other things. */
function acceptedKey(blob: Uint8Array): PublicKey | null {
  try {
    return publicKeyOf(blob);
  } catch (e) {
    if (e instanceof HoldpointError) return null;
    throw e;
  }
}

/** One request, one answer, one connection: nothing is left open. */
function exchange(socketPath: string, body: Uint8Array, timeoutMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket: Socket = connect(socketPath);
    let received = Buffer.alloc(0);
    const settle = (end: () => void): void => {
      socket.destroy();
      end();
    };
    const failed = (why: string): void => settle(() => reject(new AgentFailure(why)));
    socket.setTimeout(timeoutMs, () => failed(`it did not answer within ${timeoutMs / 1000} s`));
    socket.on("error", (e) => failed(messageOf(e)));
    socket.on("close", () => failed("it closed the connection"));
    socket.on("connect", () => socket.write(Buffer.concat([wireUint32(body.length), body])));
    socket.on("data", (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 4) return;
      const size = received.readUInt32BE();
      if (size === 0 || size > MESSAGE_LIMIT_BYTES) return failed(`it announced ${size} bytes`);
      if (received.length >= 4 + size) settle(() => resolve(received.subarray(4, 4 + size)));
    });
  });
}

function agentRefused(key: AgentKey, why: string): RefusedError {
  return new RefusedError({
    code: "ERR_KEY_REFUSED",
    message: `the SSH agent did not sign with ${key.fingerprint}`,
    why: `${why} (agent ${key.socket}, key ${key.comment === "" ? key.type : JSON.stringify(key.comment)})`,
    state: "Nothing was signed.",
    next: [{ actor: "anyone", argv: ["ssh-add", "-l"] }],
  });
}
