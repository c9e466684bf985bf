/**
 * Signing with the SSH key that a person already has: through their agent if it holds the key, else through
 * `ssh-keygen`, which knows passphrases, PINs and touches. holdpoint never reads a private key.
 */
import { execFile, spawn } from "node:child_process";
import { access, open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { ownerOfSignature } from "../approval/people.js";
import { parsePublicKey, type PublicKey } from "../approval/public-key.js";
import type { Person } from "../approval/requirement.js";
import { readCertificate } from "../approval/ssh-certificate.js";
import { dearmor, signedData, sshsigBlob, verifySshsig } from "../approval/sshsig.js";
import { codeOf, HoldpointError, messageOf, RefusedError, UsageError } from "../base/errors.js";
import { agentKeys, type AgentKey, agentSign } from "./ssh-agent.js";

/** A key that can sign here: one in the agent, or a file that `ssh-keygen` can use. */
export type FoundKey =
  | {
      readonly kind: "agent";
      readonly key: AgentKey;
      readonly fingerprint: string;
      readonly person: string | null;
    }
  | {
      readonly kind: "file";
      readonly path: string;
      /** null for a private key without its `.pub` beside it: known once it has signed. */
      readonly fingerprint: string | null;
      readonly person: string | null;
    };

/** A signature and the key that made it. */
export interface Signed {
  /** The SSHSIG blob. */
  readonly signature: Uint8Array;
  readonly fingerprint: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Without a terminal nobody can touch or confirm: whoever waits longer than this waits for ever. */
const UNATTENDED_TIMEOUT_MS = 60_000;
const BEGIN_PRIVATE = "-----BEGIN ";

/**
 * An SSHSIG signature over `bytes`, checked before it is returned.
 * @param args.key path of a private or public key file, or what {@link findKey} found.
 * @param args.interactive whether `ssh-keygen` may ask on the terminal. Without, it never waits for an answer.
 * @throws RefusedError ERR_KEY_MISSING when there is no such key; ERR_KEY_REFUSED when it does not sign.
 */
export async function signBytes(args: {
  readonly bytes: Uint8Array;
  readonly namespace: string;
  readonly key: string | FoundKey;
  readonly interactive: boolean;
  readonly env?: Environment;
}): Promise<Signed> {
  const env = args.env ?? process.env;
  const agentKey = await keyInAgent(args.key, env);
  const signature =
    agentKey === null
      ? await signWithKeygen({ ...args, env, path: pathOf(args.key) })
      : await signWithAgent(agentKey, args.namespace, args.bytes);
  return { signature, fingerprint: checkedFingerprint(args.bytes, args.namespace, signature) };
}

/**
 * The key to sign with: `--key`, else the first agent key, else the first `~/.ssh/*.pub` key whose person the
 * list knows for `namespace`. A key given by `--key` need not be known: `person` is null then.
 * @throws RefusedError ERR_KEY_MISSING naming what was tried.
 * @throws UsageError ERR_USAGE when the keys found belong to different people.
 */
export async function findKey(args: {
  readonly keyFlag?: string | undefined;
  readonly people: readonly Person[];
  readonly home: string;
  readonly env: Environment;
  readonly namespace: string;
  readonly now: Date;
}): Promise<FoundKey> {
  const owner = (key: PublicKey): string | null =>
    personOfPublicKey(key, args.people, args.namespace, args.now);
  if (args.keyFlag !== undefined) return flagKey(args.keyFlag, args.env, owner);
  const inAgent = await agentKeys(args.env["SSH_AUTH_SOCK"]);
  const inFiles = await publicKeyFiles(join(args.home, ".ssh"));
  const known: FoundKey[] = [
    ...inAgent.map((key): FoundKey => ({
      kind: "agent",
      key,
      fingerprint: key.fingerprint,
      person: owner(key),
    })),
    ...inFiles.map(({ path, key }): FoundKey => {
      return { kind: "file", path, fingerprint: key.fingerprint, person: owner(key) };
    }),
  ].filter((found) => found.person !== null);
  const [first] = known;
  if (first === undefined) throw noKeyFound(args, inAgent, inFiles);
  refuseSeveralPeople(known);
  return first;
}

/** Whose key it is, for a plain key or a certificate; null when the list does not know it for this purpose now. */
function personOfPublicKey(
  key: PublicKey,
  people: readonly Person[],
  namespace: string,
  now: Date,
): string | null {
  const signer = key.certificate ? { key, certificate: readCertificate(key.blob) } : { key };
  const owner = ownerOfSignature(people, signer, namespace, now);
  return owner.kind === "person" ? owner.person.name : null;
}

async function flagKey(
  path: string,
  env: Environment,
  owner: (key: PublicKey) => string | null,
): Promise<FoundKey> {
  const key = await publicHalf(path);
  if (key === null) return { kind: "file", path, fingerprint: null, person: null };
  const inAgent = (await agentKeys(env["SSH_AUTH_SOCK"])).find((k) => sameBlob(k, key));
  if (inAgent !== undefined) {
    return { kind: "agent", key: inAgent, fingerprint: key.fingerprint, person: owner(key) };
  }
  return { kind: "file", path, fingerprint: key.fingerprint, person: owner(key) };
}

async function keyInAgent(key: string | FoundKey, env: Environment): Promise<AgentKey | null> {
  if (typeof key !== "string" && key.kind === "agent") return key.key;
  const half = await publicHalf(pathOf(key));
  if (half === null) return null;
  return (await agentKeys(env["SSH_AUTH_SOCK"])).find((k) => sameBlob(k, half)) ?? null;
}

function pathOf(key: string | FoundKey): string {
  if (typeof key === "string") return key;
  return key.kind === "file" ? key.path : "";
}

function sameBlob(a: PublicKey, b: PublicKey): boolean {
  return Buffer.compare(a.blob, b.blob) === 0;
}

/**
 * The public key that a path stands for: the file itself when it is one, else `PATH.pub`; null when neither
 * is there. Of a private key only its first line's mark is looked at.
 */
export async function publicHalf(path: string): Promise<PublicKey | null> {
  if (await isPrivateKey(path)) {
    const beside = `${path}.pub`;
    return (await exists(beside)) ? readPublicKey(beside) : null;
  }
  return readPublicKey(path);
}

async function isPrivateKey(path: string): Promise<boolean> {
  try {
    const file = await open(path, "r");
    try {
      const mark = Buffer.alloc(BEGIN_PRIVATE.length);
      await file.read(mark, 0, mark.length, 0);
      return mark.toString("latin1") === BEGIN_PRIVATE;
    } finally {
      await file.close();
    }
  } catch (e) {
    throw missing(`the key file ${path} cannot be opened`, codeOf(e) ?? messageOf(e), e);
  }
}

async function readPublicKey(path: string): Promise<PublicKey> {
  const [line = ""] = (await readFile(path, "utf8")).split("\n");
  try {
    return parsePublicKey(line);
  } catch (e) {
    if (e instanceof HoldpointError)
      throw missing(`${path} holds no SSH key that can be used`, e.why ?? e.message, e);
    throw e;
  }
}

async function publicKeyFiles(
  folder: string,
): Promise<readonly { readonly path: string; readonly key: PublicKey }[]> {
  const names = await readdir(folder).catch(() => []);
  const found: { readonly path: string; readonly key: PublicKey }[] = [];
  for (const name of names.filter((n) => n.endsWith(".pub")).sort()) {
    const path = join(folder, name);
    try {
      found.push({ path, key: await readPublicKey(path) });
    } catch {
      // Not a key for us: DSA, a short RSA key, or no key at all. It is not asked for, so it is no error.
    }
  }
  return found;
}

async function signWithAgent(key: AgentKey, namespace: string, bytes: Uint8Array): Promise<Uint8Array> {
  const signature = await agentSign(key, signedData({ bytes, namespace }));
  return sshsigBlob({ publicKey: key.blob, namespace, signature });
}

/** `ssh-keygen -Y sign`, the bytes on stdin and the armor on stdout; it opens the terminal itself to ask. */
async function signWithKeygen(args: {
  readonly bytes: Uint8Array;
  readonly namespace: string;
  readonly path: string;
  readonly interactive: boolean;
  readonly env: Environment;
}): Promise<Uint8Array> {
  const result = await runKeygen(["-Y", "sign", "-q", "-n", args.namespace, "-f", args.path], args);
  if (result.code !== 0) throw keyRefused(args.path, result.complaint, args.interactive);
  return dearmor(result.output);
}

interface KeygenResult {
  readonly code: number | null;
  readonly output: string;
  readonly complaint: string;
}

function runKeygen(
  argv: readonly string[],
  args: {
    readonly bytes: Uint8Array;
    readonly path: string;
    readonly interactive: boolean;
    readonly env: Environment;
  },
): Promise<KeygenResult> {
  return new Promise((resolve, reject) => {
    const child = spawn("ssh-keygen", argv, {
      stdio: ["pipe", "pipe", args.interactive ? "inherit" : "pipe"],
      env: args.interactive ? { ...args.env } : unattended(args.env),
      // A session of its own has no terminal to open: a passphrase question fails at once instead of waiting.
      detached: !args.interactive,
    });
    // A timer of our own: the one of spawn outlives a program that does not start, and keeps the process waiting.
    const timer = args.interactive ? undefined : setTimeout(() => child.kill(), UNATTENDED_TIMEOUT_MS);
    const output: Buffer[] = [];
    const complaint: Buffer[] = [];
    child.stdout?.on("data", (chunk: Buffer) => output.push(chunk));
    child.stderr?.on("data", (chunk: Buffer) => complaint.push(chunk));
    // ssh-keygen may fail before it reads; its exit code says so, a broken pipe says nothing more.
    child.stdin?.on("error", () => undefined);
    child.on("error", (e) => {
      clearTimeout(timer);
      reject(keygenMissing(args.path, e));
    });
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code, output: textOf(output), complaint: textOf(complaint) });
    });
    child.stdin?.end(Buffer.from(args.bytes));
  });
}

function textOf(chunks: readonly Buffer[]): string {
  return Buffer.concat(chunks).toString("utf8");
}

/** No window, no helper program, no question. */
function unattended(env: Environment): NodeJS.ProcessEnv {
  const { DISPLAY: _display, WAYLAND_DISPLAY: _wayland, SSH_ASKPASS: _askpass, ...rest } = env;
  return { ...rest, SSH_ASKPASS_REQUIRE: "never" };
}

/** Refuses a signature that would not verify: better here than at apply. */
function checkedFingerprint(bytes: Uint8Array, namespace: string, signature: Uint8Array): string {
  const check = verifySshsig({ bytes, signature, namespace });
  if (check.ok) return check.key.fingerprint;
  throw new RefusedError({
    code: "ERR_KEY_REFUSED",
    message: "the key made a signature that holdpoint does not accept",
    why: check.why,
    state: "Nothing was signed.",
  });
}

function refuseSeveralPeople(found: readonly FoundKey[]): void {
  const names = [...new Set(found.map((f) => f.person ?? ""))];
  if (names.length < 2) return;
  throw new UsageError({
    code: "ERR_USAGE",
    message: `keys of ${names.join(" and ")} are in reach; say which one signs`,
    why: found.map((f) => `${f.fingerprint ?? ""} of ${f.person ?? ""} in ${whereIs(f)}`).join("; "),
    state: "Nothing was signed.",
    next: [{ actor: "anyone", text: "Add --key FILE" }],
  });
}

function whereIs(found: FoundKey): string {
  return found.kind === "agent" ? "the agent" : found.path;
}

function noKeyFound(
  args: { readonly home: string; readonly env: Environment; readonly namespace: string },
  inAgent: readonly AgentKey[],
  inFiles: readonly { readonly path: string; readonly key: PublicKey }[],
): RefusedError {
  const agent =
    args.env["SSH_AUTH_SOCK"] === undefined
      ? "no agent (SSH_AUTH_SOCK is not set)"
      : countOf(inAgent, "agent key");
  const files = `${countOf(inFiles, "public key")} in ${join(args.home, ".ssh")}`;
  return missing(
    "no key here belongs to a person on the list",
    `tried: no --key; ${agent}; ${files}; none is known for ${args.namespace} now`,
  );
}

function countOf(list: readonly unknown[], what: string): string {
  return `${list.length} ${what}${list.length === 1 ? "" : "s"}`;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function missing(message: string, why: string, cause?: unknown): RefusedError {
  return new RefusedError({
    code: "ERR_KEY_MISSING",
    message,
    why,
    state: "Nothing was signed.",
    next: [{ actor: "anyone", argv: ["holdpoint", "key", "list"] }],
    cause,
  });
}

function keygenMissing(path: string, cause: unknown): RefusedError {
  return new RefusedError({
    code: "ERR_KEY_REFUSED",
    message: `${path} cannot sign: ssh-keygen does not start`,
    why: codeOf(cause) ?? messageOf(cause),
    state: "Nothing was signed.",
    next: [{ actor: "anyone", text: "Install OpenSSH 8.2 or later, or load the key into an SSH agent" }],
    cause,
  });
}

function keyRefused(path: string, complaint: string, interactive: boolean): RefusedError {
  const last = complaint.trim().split("\n").at(-1)?.trim() ?? "";
  const hint = interactive
    ? "ssh-keygen said why above"
    : "no passphrase could be asked for without a terminal";
  return new RefusedError({
    code: "ERR_KEY_REFUSED",
    message: `${path} did not sign`,
    why: last === "" ? hint : `ssh-keygen: ${last}${interactive ? "" : `; ${hint}`}`,
    state: "Nothing was signed.",
    next: [{ actor: "anyone", argv: ["ssh-add", path.replace(/(-cert)?\.pub$/, "")] }],
  });
}

/**
 * The fingerprint of a private key file that has no `.pub` beside it. `ssh-keygen -l` reads it from the file's
 * unencrypted part and asks for no passphrase.
 * @throws RefusedError ERR_KEY_MISSING when it is no key file.
 */
export async function keyFingerprint(path: string): Promise<string> {
  const { code, output } = await new Promise<{ readonly code: number; readonly output: string }>(
    (resolve) => {
      execFile("ssh-keygen", ["-l", "-f", path], { timeout: 10_000 }, (error, stdout) =>
        resolve({ code: error === null ? 0 : 1, output: stdout }),
      );
    },
  );
  const found = /^\d+ (SHA256:[A-Za-z0-9+/]+)/.exec(output)?.[1];
  if (code === 0 && found !== undefined) return found;
  throw new RefusedError({
    code: "ERR_KEY_MISSING",
    message: `${path} is no SSH key that can be used`,
    why: "ssh-keygen reads no key from it",
    next: [{ actor: "anyone", argv: ["ssh-keygen", "-l", "-f", path] }],
  });
}
