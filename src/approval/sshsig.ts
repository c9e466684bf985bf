/**
 * OpenSSH's signature format SSHSIG (PROTOCOL.sshsig), both ways. What `ssh-keygen -Y sign` makes is
 * accepted here, what is put together here `ssh-keygen -Y verify` accepts. Stricter than OpenSSH where a
 * second reading would cost trust: no SHA-1, no unknown hash, nothing left over, certificates only for
 * one principal. User presence is reported, because OpenSSH accepts a hardware key's signature without it.
 */
import { createHash } from "node:crypto";
import { UsageError } from "../base/errors.js";
import { type Certificate, isCertificateType, readCertificate } from "./ssh-certificate.js";
import { fingerprint, readKey, type SshKey } from "./ssh-key.js";
import { checkSignature } from "./ssh-signature.js";
import { WireFailure, WireReader, wireString, wireUint32 } from "./ssh-wire.js";

const MAGIC = Buffer.from("SSHSIG", "latin1");
const VERSION = 1;
const BEGIN = "-----BEGIN SSH SIGNATURE-----";
const END = "-----END SSH SIGNATURE-----";
/** OpenSSH breaks armor here. */
const ARMOR_COLUMNS = 70;
/** An RSA certificate of 16,384 bits with its signature stays far below. */
const BLOB_LIMIT_BYTES = 64 * 1024;

/** The hash over the message; both that SSHSIG knows. */
export type SshsigHash = "sha256" | "sha512";

/** A signature taken apart; nothing of it has been checked but its form. */
export interface Sshsig {
  /** The signer's key or certificate, as a blob. */
  readonly publicKey: Uint8Array;
  readonly namespace: string;
  readonly hash: SshsigHash;
  /** Algorithm name and signature. */
  readonly signature: Uint8Array;
}

/** The signer's key as people and lists know it. For a certificate: the plain key inside. */
export interface VerifiedKey {
  readonly type: string;
  readonly blob: Uint8Array;
  /** `SHA256:…` as `ssh-keygen -l` prints it. */
  readonly fingerprint: string;
}

/** A good signature: by which key, over exactly these bytes, in this namespace. Says nothing about whose key it is. */
export interface VerifiedSignature {
  readonly ok: true;
  readonly key: VerifiedKey;
  /** Whether a hardware key was touched; null for keys that cannot say. */
  readonly userPresent: boolean | null;
  /** Whether a hardware key asked for its PIN or a finger; null for keys that cannot say. */
  readonly userVerified: boolean | null;
  /** Present when a certificate signed; its time is still to be checked (`people.ts`). */
  readonly certificate?: Certificate;
}

/** Why a signature is worth nothing. */
export interface RefusedSignature {
  readonly ok: false;
  readonly kind: "malformed" | "namespace" | "signature";
  readonly why: string;
}

/**
 * Takes a signature blob apart.
 * @throws UsageError ERR_APPROVAL_MALFORMED for anything but the documented form.
 */
export function parseSshsig(blob: Uint8Array): Sshsig {
  try {
    return readSshsig(blob);
  } catch (e) {
    if (e instanceof WireFailure) throw malformed(`the signature is not an SSH signature: ${e.message}`);
    throw e;
  }
}

/**
 * Checks a signature over `bytes`. Never throws for a bad signature: a bad one is worth nothing, and says why.
 * @param args.signature the SSHSIG blob, not its armor.
 */
export function verifySshsig(args: {
  readonly bytes: Uint8Array;
  readonly signature: Uint8Array;
  readonly namespace: string;
}): VerifiedSignature | RefusedSignature {
  try {
    const parsed = readSshsig(args.signature);
    if (parsed.namespace !== args.namespace) {
      return refused("namespace", `it was made for ${parsed.namespace}, and ${args.namespace} is needed`);
    }
    return verifyParsed(parsed, args.bytes);
  } catch (e) {
    if (e instanceof WireFailure) return refused("malformed", e.message);
    throw e;
  }
}

/**
 * The bytes that a key signs for SSHSIG: what goes to an ssh-agent. The preamble is what keeps a signature
 * from being taken for an SSH login or for another purpose.
 */
export function signedData(args: {
  readonly bytes: Uint8Array;
  readonly namespace: string;
  readonly hash?: SshsigHash;
}): Uint8Array {
  const hash = args.hash ?? "sha512";
  const digest = createHash(hash).update(args.bytes).digest();
  const parts = [wireString(args.namespace), wireString(""), wireString(hash), wireString(digest)];
  return Buffer.concat([MAGIC, ...parts]);
}

/** The SSHSIG blob around a raw signature over {@link signedData} with the same namespace and hash. */
export function sshsigBlob(args: {
  readonly publicKey: Uint8Array;
  readonly namespace: string;
  readonly signature: Uint8Array;
  readonly hash?: SshsigHash;
}): Uint8Array {
  const head = Buffer.concat([
    MAGIC,
    wireUint32(VERSION),
    wireString(args.publicKey),
    wireString(args.namespace),
  ]);
  return Buffer.concat([head, wireString(""), wireString(args.hash ?? "sha512"), wireString(args.signature)]);
}

/** The text form that `ssh-keygen` reads and writes. */
export function armor(blob: Uint8Array): string {
  const base64 = Buffer.from(blob).toString("base64");
  const lines = base64.match(new RegExp(`.{1,${ARMOR_COLUMNS}}`, "g")) ?? [];
  return `${[BEGIN, ...lines, END].join("\n")}\n`;
}

/**
 * The blob inside an armored signature. White space around it and between its lines does not matter.
 * @throws UsageError ERR_APPROVAL_MALFORMED for other text.
 */
export function dearmor(text: string): Uint8Array {
  const trimmed = text.trim();
  if (!trimmed.startsWith(BEGIN) || !trimmed.endsWith(END) || trimmed.length < BEGIN.length + END.length) {
    throw malformed(`an SSH signature begins with ${BEGIN} and ends with ${END}`);
  }
  const base64 = trimmed.slice(BEGIN.length, -END.length).replace(/[ \t\r\n]/g, "");
  const blob = Buffer.from(base64, "base64");
  if (base64 === "" || blob.toString("base64") !== base64)
    throw malformed("the signature's base64 is damaged");
  return blob;
}

function readSshsig(blob: Uint8Array): Sshsig {
  if (blob.length > BLOB_LIMIT_BYTES)
    throw new WireFailure(`${blob.length} bytes are too long for a signature`);
  const reader = new WireReader(blob);
  if (!reader.raw(MAGIC.length).equals(MAGIC)) throw new WireFailure("it does not begin with SSHSIG");
  const version = reader.uint32();
  if (version !== VERSION) throw new WireFailure(`version ${version} is not known`);
  const publicKey = reader.string();
  const namespace = reader.name();
  if (namespace === "") throw new WireFailure("it has no namespace");
  if (reader.string().length > 0) throw new WireFailure("its reserved field is not empty");
  const hash = reader.name();
  if (hash !== "sha256" && hash !== "sha512") throw new WireFailure(`the hash ${hash} is not accepted`);
  const signature = reader.string();
  reader.end();
  return { publicKey, namespace, hash, signature };
}

function verifyParsed(parsed: Sshsig, bytes: Uint8Array): VerifiedSignature | RefusedSignature {
  const { key, certificate } = signerOf(parsed.publicKey);
  const data = signedData({ bytes, namespace: parsed.namespace, hash: parsed.hash });
  const presence = checkSignature(key, data, parsed.signature);
  if (presence === null) return refused("signature", "the bytes are not the ones that were signed");
  if (certificate?.verifyRequired === true && presence.userVerified !== true) {
    return refused("signature", "its certificate asks for a PIN or a finger, and the key saw none");
  }
  return {
    ok: true,
    key: { type: key.type, blob: key.blob, fingerprint: fingerprint(key.blob) },
    ...presence,
    ...(certificate === undefined ? {} : { certificate }),
  };
}

function signerOf(blob: Uint8Array): { readonly key: SshKey; readonly certificate?: Certificate } {
  if (!isCertificateType(new WireReader(blob).name())) return { key: readKey(blob) };
  const certificate = readCertificate(blob);
  return { key: certificate.key, certificate };
}

function refused(kind: RefusedSignature["kind"], why: string): RefusedSignature {
  return { ok: false, kind, why };
}

function malformed(why: string): UsageError {
  return new UsageError({
    code: "ERR_APPROVAL_MALFORMED",
    message: "this is not a signature that can be read",
    why,
  });
}
