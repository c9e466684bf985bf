/** One raw SSH signature (RFC 4253 §6.6, RFC 8332, PROTOCOL.u2f §"SSH U2F Signatures") checked with one key. */
import { createHash, constants, verify } from "node:crypto";
import { type Curve, cryptoKey, type SshKey } from "./ssh-key.js";
import { WireFailure, WireReader, wireUint32 } from "./ssh-wire.js";

/** What a hardware key says that it saw; null for keys that cannot say. */
export interface Presence {
  readonly userPresent: boolean | null;
  readonly userVerified: boolean | null;
}

const NO_PRESENCE: Presence = { userPresent: null, userVerified: null };

/** Flag bits of a hardware key's signature (WebAuthn §6.1). */
const USER_PRESENT = 0x01;
const USER_VERIFIED = 0x04;

/**
 * Checks `signature` (the whole `string` content: algorithm name and what follows) over `data`.
 * @returns what the key saw, or null when the signature is wrong.
 * @throws WireFailure when its form is wrong or its algorithm is not accepted (SHA-1, another key's).
 */
export function checkSignature(key: SshKey, data: Uint8Array, signature: Uint8Array): Presence | null {
  const reader = new WireReader(signature);
  const algorithm = reader.name();
  const { material } = key;
  if (material.kind === "rsa") {
    return checkRsa(key, algorithm, data, reader) ? NO_PRESENCE : null;
  }
  // For every other type the signature's algorithm has the key's own name.
  if (algorithm !== key.type)
    throw new WireFailure(`a ${algorithm} signature does not fit a ${key.type} key`);
  const body = reader.string();
  const presence = material.application === null ? null : readPresence(reader);
  reader.end();
  const signed =
    presence === null
      ? data
      : hardwareSigned(material.application ?? "", presence.flags, presence.counter, data);
  const good =
    material.kind === "ed25519"
      ? checkEd25519(key, signed, body)
      : checkEcdsa(key, material.curve, signed, body);
  if (!good) return null;
  return presence === null ? NO_PRESENCE : presenceOf(presence.flags);
}

function checkRsa(key: SshKey, algorithm: string, data: Uint8Array, reader: WireReader): boolean {
  // `ssh-rsa` is SHA-1: refused by name, as OpenSSH refuses it in SSHSIG.
  const hash = algorithm === "rsa-sha2-512" ? "sha512" : algorithm === "rsa-sha2-256" ? "sha256" : null;
  if (hash === null)
    throw new WireFailure(`RSA signatures must be rsa-sha2-256 or rsa-sha2-512, not ${algorithm}`);
  const body = reader.string();
  reader.end();
  const size = key.material.kind === "rsa" ? key.material.modulus.length : 0;
  if (body.length > size) throw new WireFailure("an RSA signature is longer than its key");
  // Some agents strip leading zeros; OpenSSH pads them back, and so do we.
  const padded = Buffer.concat([Buffer.alloc(size - body.length), body]);
  return verify(hash, data, { key: cryptoKey(key.material), padding: constants.RSA_PKCS1_PADDING }, padded);
}

function checkEd25519(key: SshKey, data: Uint8Array, body: Uint8Array): boolean {
  if (body.length !== 64) throw new WireFailure("an Ed25519 signature must be 64 bytes long");
  return verify(null, data, cryptoKey(key.material), body);
}

function checkEcdsa(key: SshKey, curve: Curve, data: Uint8Array, body: Uint8Array): boolean {
  const reader = new WireReader(body);
  const r = padTo(curve.size, reader.positive());
  const s = padTo(curve.size, reader.positive());
  reader.end();
  const signature = Buffer.concat([r, s]);
  return verify(curve.hash, data, { key: cryptoKey(key.material), dsaEncoding: "ieee-p1363" }, signature);
}

function padTo(size: number, number: Uint8Array): Buffer {
  if (number.length > size) throw new WireFailure("an ECDSA signature holds too large a number");
  return Buffer.concat([Buffer.alloc(size - number.length), number]);
}

function readPresence(reader: WireReader): { readonly flags: number; readonly counter: number } {
  return { flags: reader.byte(), counter: reader.uint32() };
}

/** What a hardware key really signs: SHA256(application) ‖ flags ‖ counter ‖ SHA256(data). */
function hardwareSigned(application: string, flags: number, counter: number, data: Uint8Array): Uint8Array {
  return Buffer.concat([sha256(application), Buffer.from([flags]), wireUint32(counter), sha256(data)]);
}

function presenceOf(flags: number): Presence {
  return { userPresent: (flags & USER_PRESENT) !== 0, userVerified: (flags & USER_VERIFIED) !== 0 };
}

function sha256(data: string | Uint8Array): Buffer {
  return createHash("sha256").update(data).digest();
}
