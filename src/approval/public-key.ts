/** Public keys as OpenSSH writes them in `.pub` files: `TYPE BASE64 [comment]`. */
import { UsageError } from "../base/errors.js";
import { isCertificateType, readCertificate } from "./ssh-certificate.js";
import { fingerprint as fingerprintOf, readKey } from "./ssh-key.js";
import { WireFailure, WireReader } from "./ssh-wire.js";

/** One public key, or one certificate. */
export interface PublicKey {
  /** The type in the blob; a certificate's type ends in `-cert-v01@openssh.com`. */
  readonly type: string;
  readonly blob: Uint8Array;
  /** `SHA256:…`; for a certificate that of the key inside, as `ssh-keygen -l` prints it. */
  readonly fingerprint: string;
  readonly comment: string;
  readonly certificate: boolean;
}

/** The fingerprint of a plain key's blob, as `ssh-keygen -l` prints it. */
export const fingerprint: (blob: Uint8Array) => string = fingerprintOf;

/**
 * Reads one line of a `.pub` file.
 * @throws UsageError ERR_PEOPLE_INVALID for a type that is not accepted, a weak key, damaged base64, or a
 *   type in the text that is not the one in the key.
 */
export function parsePublicKey(line: string): PublicKey {
  const [type = "", base64 = "", ...comment] = line.trim().split(/[ \t]+/);
  const blob = decodeBase64(base64);
  if (blob === null) throw invalid("its base64 is missing or damaged");
  const key = publicKeyOf(blob);
  if (key.type !== type) throw invalid(`it says ${quoted(type)} and holds ${key.type}`);
  return { ...key, comment: comment.join(" ") };
}

/**
 * The public key in a blob, as an agent or a signature carries it.
 * @throws UsageError ERR_PEOPLE_INVALID as {@link parsePublicKey}.
 */
export function publicKeyOf(blob: Uint8Array): PublicKey {
  try {
    const type = new WireReader(blob).name();
    const certificate = isCertificateType(type);
    const key = certificate ? readCertificate(blob).key : readKey(blob);
    return { type, blob, fingerprint: fingerprintOf(key.blob), comment: "", certificate };
  } catch (e) {
    if (e instanceof WireFailure) throw invalid(e.message);
    throw e;
  }
}

/** Standard base64, only in the spelling that encoding gives back; null for anything else. */
export function decodeBase64(text: string): Uint8Array | null {
  const bytes = Buffer.from(text, "base64");
  return text !== "" && bytes.toString("base64") === text ? bytes : null;
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}…` : text);
}

function invalid(why: string): UsageError {
  return new UsageError({
    code: "ERR_PEOPLE_INVALID",
    message: "this is not a public key that can be used",
    why,
  });
}
