/** What a plan needs from people before it may be applied. Policy fills it; the rules of counting live here. */

/** "n people of these groups"; an empty list of groups means any person of the bundle. */
export interface Slot {
  readonly people: number;
  readonly groups: readonly string[];
  /** The rule that asked. */
  readonly rule: string;
}

/** All slots must be filled; one person fills one slot. */
export interface Requirement {
  readonly slots: readonly Slot[];
  /** A hardware key's user presence on every counted signature. */
  readonly touch: boolean;
  /** A hardware key's user verification (PIN or finger) on every counted signature, which includes the touch. */
  readonly verified?: true;
  /** Signatures made outside the tool are refused. */
  readonly reviewedInTool: boolean;
  /** The approver must give a reason. */
  readonly reason: boolean;
}

/** One person as the bundle knows them. */
export interface Person {
  readonly name: string;
  readonly keys: readonly SignerKey[];
  readonly groups: readonly string[];
}

/** One key of one person, from one line of the allowed-signers file. */
export interface SignerKey {
  /** `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`, `sk-ssh-ed25519@openssh.com` … */
  readonly type: string;
  /** The public key blob (RFC 4253 §6.6). */
  readonly blob: Uint8Array;
  /** `SHA256:…` as `ssh-keygen -l` prints it. */
  readonly fingerprint: string;
  readonly namespaces: readonly string[];
  /** UTC instants, ISO 8601; null for unbounded. */
  readonly validAfter: string | null;
  readonly validBefore: string | null;
  /** True for a `cert-authority` line: the key signs user certificates. */
  readonly certAuthority: boolean;
  /** 1-based line in the file. */
  readonly line: number;
}

/** Why one approval does not count. A bad one is worth nothing and never fatal to the others. */
export type Discount =
  | "malformed"
  | "signature"
  | "unknown-key"
  | "namespace"
  | "key-expired"
  | "person"
  | "self"
  | "expired"
  | "not-yet"
  | "spent"
  | "rejected"
  | "revoked"
  | "other-plan"
  | "other-target"
  | "altered"
  | "no-touch"
  | "not-verified"
  | "not-reviewed"
  | "no-reason"
  /** In none of the groups that must approve. */
  | "group"
  /** Good, and its person is counted already. */
  | "same-person"
  /** Good, and others fill the places that it could fill. */
  | "not-needed";

/** SSH signature namespaces, one for each purpose: a signature for one is worth nothing for another. */
export const NAMESPACES = {
  plan: "holdpoint-plan",
  approval: "holdpoint-approval",
  trust: "holdpoint-trust",
  pin: "holdpoint-pin",
  breakGlass: "holdpoint-breakglass",
} as const;
