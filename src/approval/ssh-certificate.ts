/**
 * OpenSSH user certificates (PROTOCOL.certkeys): a key, signed by an authority that vouches for one
 * principal. Only what an approval needs is accepted; everything else is refused rather than ignored.
 */
import { checkSignature } from "./ssh-signature.js";
import { fingerprint, keyBlob, readKey, readMaterial, type SshKey } from "./ssh-key.js";
import { WireFailure, WireReader } from "./ssh-wire.js";

/** A certificate whose authority's signature has been checked. Its time is checked where time is known. */
export interface Certificate {
  /** The key that it certifies, as a plain key. */
  readonly key: SshKey;
  /** Fingerprint of the authority's key. */
  readonly authority: string;
  /** The one principal. */
  readonly principal: string;
  readonly keyId: string;
  readonly serial: bigint;
  /** Seconds since 1970; valid from `validAfter` up to, not including, `validBefore`. */
  readonly validAfter: bigint;
  readonly validBefore: bigint;
  /** The critical option `verify-required`: signatures count only with the user verified (PIN, finger). */
  readonly verifyRequired: boolean;
}

const CERTIFICATE_TYPES: ReadonlyMap<string, string> = new Map([
  ["ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519"],
  ["ecdsa-sha2-nistp256-cert-v01@openssh.com", "ecdsa-sha2-nistp256"],
  ["ecdsa-sha2-nistp384-cert-v01@openssh.com", "ecdsa-sha2-nistp384"],
  ["ecdsa-sha2-nistp521-cert-v01@openssh.com", "ecdsa-sha2-nistp521"],
  ["ssh-rsa-cert-v01@openssh.com", "ssh-rsa"],
  ["sk-ssh-ed25519-cert-v01@openssh.com", "sk-ssh-ed25519@openssh.com"],
  ["sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"],
]);

const USER_CERTIFICATE = 1;

/** Whether a key type names a certificate. */
export function isCertificateType(type: string): boolean {
  return CERTIFICATE_TYPES.has(type);
}

/**
 * Reads a user certificate and checks the authority's signature over it.
 * @throws WireFailure for a host certificate, no or several principals, an unknown critical option, a wrong
 *   signature, or a form that is not exactly the documented one.
 */
export function readCertificate(blob: Uint8Array): Certificate {
  const reader = new WireReader(blob);
  const plainType = CERTIFICATE_TYPES.get(reader.name());
  if (plainType === undefined) throw new WireFailure("not a certificate of a known type");
  reader.string(); // the authority's nonce
  const material = readMaterial(plainType, reader);
  const serial = reader.uint64();
  if (reader.uint32() !== USER_CERTIFICATE)
    throw new WireFailure("the certificate is not a user certificate");
  const keyId = reader.text();
  const principal = onePrincipal(reader.string());
  const validAfter = reader.uint64();
  const validBefore = reader.uint64();
  const verifyRequired = readCriticalOptions(reader.string());
  readOptions(reader.string()); // extensions grant logins, not approvals: well-formed is enough
  reader.string(); // reserved
  const authority = readKey(reader.string());
  const signed = blob.subarray(0, reader.offset);
  const signature = reader.string();
  reader.end();
  if (checkSignature(authority, signed, signature) === null) {
    throw new WireFailure("the certificate is not signed by its authority");
  }
  return {
    key: readKey(keyBlob(plainType, material)),
    authority: fingerprint(authority.blob),
    principal,
    keyId,
    serial,
    validAfter,
    validBefore,
    verifyRequired,
  };
}

/** Whether the certificate's own time allows `at`. */
export function certificateHolds(c: Pick<Certificate, "validAfter" | "validBefore">, at: Date): boolean {
  const seconds = BigInt(Math.floor(at.getTime() / 1000));
  return c.validAfter <= seconds && seconds < c.validBefore;
}

function onePrincipal(list: Uint8Array): string {
  const reader = new WireReader(list);
  // An empty list means "anyone" in OpenSSH; here a certificate speaks for exactly one person.
  if (reader.done) throw new WireFailure("the certificate names no principal");
  const principal = reader.text();
  if (!reader.done) throw new WireFailure("the certificate names several principals");
  return principal;
}

function readCriticalOptions(list: Uint8Array): boolean {
  const names = readOptions(list);
  const unknown = names.find((name) => name !== "verify-required");
  if (unknown !== undefined) throw new WireFailure(`the certificate has the critical option ${unknown}`);
  return names.length > 0;
}

/** Names in lexical order, none twice (PROTOCOL.certkeys, "Critical options"). */
function readOptions(list: Uint8Array): readonly string[] {
  const reader = new WireReader(list);
  const names: string[] = [];
  while (!reader.done) {
    const name = reader.name();
    const before = names.at(-1);
    if (before !== undefined && before >= name)
      throw new WireFailure("the certificate's options are out of order");
    names.push(name);
    reader.string();
  }
  return names;
}
