/** Real OpenSSH keys, agents and signatures for tests, all under one temporary folder. */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash, generateKeyPairSync, sign, type KeyObject } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { keyBlob } from "../../src/approval/ssh-key.js";
import { signedData, sshsigBlob } from "../../src/approval/sshsig.js";
import { wireString, wireUint32 } from "../../src/approval/ssh-wire.js";

/** A fresh folder; remove it with {@link removeFolder}. Short, because agents' socket paths are bounded. */
export function makeFolder(): string {
  return mkdtempSync(join(tmpdir(), "hp-"));
}

export function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

/** A key pair by ssh-keygen: the private key's path. The public key is beside it. */
export function makeKey(
  folder: string,
  name: string,
  type = "ed25519",
  bits?: number,
  passphrase = "",
): string {
  const path = join(folder, name);
  const size = bits === undefined ? [] : ["-b", String(bits)];
  execFileSync("ssh-keygen", ["-q", "-t", type, ...size, "-N", passphrase, "-C", name, "-f", path], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  return path;
}

/** The line of a `.pub` file without its comment. */
export function publicLine(path: string): string {
  const [type = "", base64 = ""] = readFileSync(`${path}.pub`, "utf8").split(" ");
  return `${type} ${base64.trim()}`;
}

/** The blob of a `.pub` file. */
export function publicBlob(path: string): Uint8Array {
  return Buffer.from(publicLine(path).split(" ")[1] ?? "", "base64");
}

/** `ssh-keygen -Y sign` over bytes: the armored signature. */
export function keygenSign(
  key: string,
  namespace: string,
  bytes: Uint8Array,
  options: readonly string[] = [],
): string {
  const argv = ["-Y", "sign", "-q", "-n", namespace, ...options, "-f", key];
  return execFileSync("ssh-keygen", argv, { input: bytes, stdio: ["pipe", "pipe", "ignore"] }).toString(
    "latin1",
  );
}

/** Whether `ssh-keygen -Y verify` accepts the signature for this person and list. */
export function keygenVerifies(args: {
  readonly folder: string;
  readonly signers: string;
  readonly person: string;
  readonly namespace: string;
  readonly bytes: Uint8Array;
  readonly armored: string;
}): boolean {
  const signers = join(args.folder, "allowed_signers.test");
  const signature = join(args.folder, "signature.test");
  writeFileSync(signers, args.signers);
  writeFileSync(signature, args.armored);
  const argv = ["-Y", "verify", "-f", signers, "-I", args.person, "-n", args.namespace, "-s", signature];
  return spawnSync("ssh-keygen", argv, { input: args.bytes }).status === 0;
}

/** A user certificate by ssh-keygen; its path. */
export function certify(args: {
  readonly authority: string;
  readonly key: string;
  readonly principals: readonly string[];
  readonly options?: readonly string[];
}): string {
  const principals = args.principals.length === 0 ? [] : ["-n", args.principals.join(",")];
  const argv = [
    "-q",
    "-s",
    args.authority,
    "-I",
    "test",
    ...principals,
    ...(args.options ?? []),
    `${args.key}.pub`,
  ];
  execFileSync("ssh-keygen", argv, { stdio: "ignore" });
  return `${args.key}-cert.pub`;
}

/** A real ssh-agent. */
export interface Agent {
  readonly socket: string;
  readonly add: (key: string) => void;
  readonly stop: () => void;
}

export function startAgent(folder: string): Promise<Agent> {
  const socket = join(folder, "agent");
  const child = spawn("ssh-agent", ["-D", "-a", socket], { stdio: ["ignore", "pipe", "ignore"] });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    // It prints the socket once it listens.
    child.stdout.once("data", () =>
      resolve({
        socket,
        add: (key) => {
          execFileSync("ssh-add", ["-q", key], {
            env: { ...process.env, SSH_AUTH_SOCK: socket },
            stdio: "ignore",
          });
        },
        stop: () => {
          child.stdout.destroy();
          child.kill();
        },
      }),
    );
  });
}

/** A hardware key in software: what a FIDO2 key computes, with flags of our choice. */
export interface SoftwareToken {
  readonly blob: Uint8Array;
  readonly line: string;
  /** An SSHSIG blob with these flags (1 touched, 4 verified). */
  readonly sign: (namespace: string, bytes: Uint8Array, flags: number) => Uint8Array;
}

export function softwareToken(kind: "ed25519" | "ecdsa", application = "ssh:"): SoftwareToken {
  return kind === "ed25519" ? softwareEd25519(application) : softwareEcdsa(application);
}

function softwareEd25519(application: string): SoftwareToken {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const point = Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url");
  const type = "sk-ssh-ed25519@openssh.com";
  const blob = keyBlob(type, { kind: "ed25519", point, application });
  return tokenOf(type, blob, application, (data) => sign(null, data, privateKey));
}

function softwareEcdsa(application: string): SoftwareToken {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { x = "", y = "" } = publicKey.export({ format: "jwk" });
  const point = Buffer.concat([Buffer.from([4]), Buffer.from(x, "base64url"), Buffer.from(y, "base64url")]);
  const type = "sk-ecdsa-sha2-nistp256@openssh.com";
  const curve = { name: "nistp256", jwk: "P-256", hash: "sha256", size: 32 } as const;
  const blob = keyBlob(type, { kind: "ecdsa", curve, point, application });
  return tokenOf(type, blob, application, (data) => ecdsaBody(data, privateKey));
}

function tokenOf(
  type: string,
  blob: Uint8Array,
  application: string,
  body: (data: Uint8Array) => Uint8Array,
): SoftwareToken {
  const signRaw = (data: Uint8Array, flags: number): Uint8Array => {
    const tail = Buffer.concat([Buffer.from([flags]), wireUint32(7)]);
    const signed = Buffer.concat([sha256(Buffer.from(application)), tail, sha256(data)]);
    return Buffer.concat([wireString(type), wireString(body(signed)), tail]);
  };
  return {
    blob,
    line: `${type} ${Buffer.from(blob).toString("base64")}`,
    sign: (namespace, bytes, flags) =>
      sshsigBlob({ publicKey: blob, namespace, signature: signRaw(signedData({ bytes, namespace }), flags) }),
  };
}

function ecdsaBody(data: Uint8Array, key: KeyObject): Uint8Array {
  const raw = sign("sha256", data, { key, dsaEncoding: "ieee-p1363" });
  return Buffer.concat([mpint(raw.subarray(0, 32)), mpint(raw.subarray(32))]);
}

/** A positive number as SSH writes it. */
export function mpint(bytes: Uint8Array): Uint8Array {
  let at = 0;
  while (at < bytes.length - 1 && bytes[at] === 0) at++;
  const short = bytes.subarray(at);
  return wireString((short[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.from([0]), short]) : short);
}

function sha256(data: Uint8Array): Buffer {
  return createHash("sha256").update(data).digest();
}
