/**
 * SSH public keys as structures: what RFC 4253 §6.6, RFC 5656, RFC 8709 and OpenSSH's PROTOCOL.u2f and
 * PROTOCOL.certkeys lay down, and nothing weaker. Keys of other types, RSA below 2048 bits and DSA do not parse.
 */
import { createHash, createPublicKey, type JsonWebKey, type KeyObject } from "node:crypto";
import { messageOf } from "../base/errors.js";
import { WireFailure, WireReader, wireString } from "./ssh-wire.js";

/** ECDSA's three curves: SSH's name, JWK's name, hash of the signature (RFC 5656 §6.2.1), bytes of a coordinate. */
export interface Curve {
  readonly name: "nistp256" | "nistp384" | "nistp521";
  readonly jwk: "P-256" | "P-384" | "P-521";
  readonly hash: "sha256" | "sha384" | "sha512";
  readonly size: number;
}

const CURVES: readonly Curve[] = [
  { name: "nistp256", jwk: "P-256", hash: "sha256", size: 32 },
  { name: "nistp384", jwk: "P-384", hash: "sha384", size: 48 },
  { name: "nistp521", jwk: "P-521", hash: "sha512", size: 66 },
];

/** RSA keys below this are refused, as OpenSSH does by default since 9.1 in what it calls RequiredRSASize. */
export const RSA_LEAST_BITS = 2048;
const RSA_MOST_BITS = 16_384;

/** The key itself. `application` is what a hardware key was made for, usually `ssh:`. */
export type KeyMaterial =
  | { readonly kind: "ed25519"; readonly point: Uint8Array; readonly application: string | null }
  | {
      readonly kind: "ecdsa";
      readonly curve: Curve;
      readonly point: Uint8Array;
      readonly application: string | null;
    }
  | { readonly kind: "rsa"; readonly modulus: Uint8Array; readonly exponent: Uint8Array };

/** A plain public key. */
export interface SshKey {
  /** As in the blob: `ssh-ed25519`, `sk-ecdsa-sha2-nistp256@openssh.com` … */
  readonly type: string;
  readonly blob: Uint8Array;
  readonly material: KeyMaterial;
}

/** Key types that holdpoint knows, certificates left out. */
export const KEY_TYPES = [
  "ssh-ed25519",
  "ecdsa-sha2-nistp256",
  "ecdsa-sha2-nistp384",
  "ecdsa-sha2-nistp521",
  "ssh-rsa",
  "sk-ssh-ed25519@openssh.com",
  "sk-ecdsa-sha2-nistp256@openssh.com",
] as const;

/**
 * Reads a plain key's blob, all of it.
 * @throws WireFailure for another type, a weak RSA key, a malformed number, a point off its curve, or anything
 *   left over.
 */
export function readKey(blob: Uint8Array): SshKey {
  const reader = new WireReader(blob);
  const type = reader.name();
  const material = readMaterial(type, reader);
  reader.end();
  cryptoKey(material);
  return { type, blob, material };
}

/** Reads what follows the type's name. Certificates hold the same fields after their nonce. */
export function readMaterial(type: string, reader: WireReader): KeyMaterial {
  switch (type) {
    case "ssh-ed25519":
      return { kind: "ed25519", point: ed25519Point(reader), application: null };
    case "sk-ssh-ed25519@openssh.com":
      return { kind: "ed25519", point: ed25519Point(reader), application: reader.text() };
    case "ecdsa-sha2-nistp256":
    case "ecdsa-sha2-nistp384":
    case "ecdsa-sha2-nistp521":
      return { kind: "ecdsa", ...ecdsaPoint(type.slice("ecdsa-sha2-".length), reader), application: null };
    case "sk-ecdsa-sha2-nistp256@openssh.com":
      return { kind: "ecdsa", ...ecdsaPoint("nistp256", reader), application: reader.text() };
    case "ssh-rsa":
      return rsaNumbers(reader);
    default:
      throw new WireFailure(`keys of type ${type} are not accepted`);
  }
}

/** The blob of a plain key from its parts: the key inside a certificate, as an allowed-signers line would hold it. */
export function keyBlob(type: string, material: KeyMaterial): Uint8Array {
  switch (material.kind) {
    case "ed25519":
      return Buffer.concat([wireString(type), wireString(material.point), application(material.application)]);
    case "ecdsa": {
      const parts = [wireString(type), wireString(material.curve.name), wireString(material.point)];
      return Buffer.concat([...parts, application(material.application)]);
    }
    case "rsa":
      return Buffer.concat([wireString(type), mpint(material.exponent), mpint(material.modulus)]);
  }
}

/** `SHA256:` and unpadded base64 of the blob's digest, as `ssh-keygen -l` prints it. */
export function fingerprint(blob: Uint8Array): string {
  return `SHA256:${createHash("sha256").update(blob).digest("base64").replace(/=+$/, "")}`;
}

/**
 * The key for node:crypto. OpenSSL checks that a point lies on its curve.
 * @throws WireFailure for numbers that are no key.
 */
export function cryptoKey(material: KeyMaterial): KeyObject {
  try {
    return createPublicKey({ key: jwkOf(material), format: "jwk" });
  } catch (e) {
    throw new WireFailure(`the key's numbers are no key (${messageOf(e)})`);
  }
}

function jwkOf(material: KeyMaterial): JsonWebKey {
  switch (material.kind) {
    case "ed25519":
      return { kty: "OKP", crv: "Ed25519", x: base64url(material.point) };
    case "ecdsa": {
      const { size, jwk } = material.curve;
      const x = base64url(material.point.subarray(1, 1 + size));
      return { kty: "EC", crv: jwk, x, y: base64url(material.point.subarray(1 + size)) };
    }
    case "rsa":
      return { kty: "RSA", n: base64url(material.modulus), e: base64url(material.exponent) };
  }
}

function ed25519Point(reader: WireReader): Uint8Array {
  const point = reader.string();
  if (point.length !== 32) throw new WireFailure("an Ed25519 key must be 32 bytes long");
  return point;
}

function ecdsaPoint(
  expected: string,
  reader: WireReader,
): { readonly curve: Curve; readonly point: Uint8Array } {
  const named = reader.name();
  const curve = CURVES.find((c) => c.name === named);
  if (curve === undefined || named !== expected)
    throw new WireFailure(`curve ${named} does not fit the key's type`);
  const point = reader.string();
  // 4 marks an uncompressed point (SEC 1 §2.3.3); OpenSSH accepts no other form.
  if (point.length !== 1 + 2 * curve.size || point[0] !== 4)
    throw new WireFailure("an ECDSA point is malformed");
  return { curve, point };
}

function rsaNumbers(reader: WireReader): KeyMaterial {
  const exponent = reader.positive();
  const modulus = reader.positive();
  const bits = modulus.length * 8 - Math.clz32(modulus[0] ?? 0) + 24;
  if (bits < RSA_LEAST_BITS)
    throw new WireFailure(`an RSA key of ${bits} bits is too short: ${RSA_LEAST_BITS} at least`);
  // Bounds on both numbers: verification time grows with them, and the key may come from a stranger's certificate.
  if (bits > RSA_MOST_BITS)
    throw new WireFailure(`an RSA key of ${bits} bits is too long: ${RSA_MOST_BITS} at most`);
  const small = exponent.length === 1 && (exponent[0] ?? 0) < 3;
  const even = (exponent.at(-1) ?? 0) % 2 === 0;
  if (exponent.length > 8 || small || even) throw new WireFailure("an RSA key has an unsafe exponent");
  return { kind: "rsa", modulus, exponent };
}

function application(name: string | null): Uint8Array {
  return name === null ? new Uint8Array() : wireString(name);
}

function mpint(magnitude: Uint8Array): Buffer {
  const padded = (magnitude[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.from([0]), magnitude]) : magnitude;
  return wireString(padded);
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64url");
}
