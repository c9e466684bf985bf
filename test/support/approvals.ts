/** People with software keys, a plan and tokens, made without processes: for tests that count approvals. */
import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import type { ApprovalStatement, Token } from "../../src/approval/approval-statement.js";
import { NAMESPACES, type Person, type SignerKey } from "../../src/approval/requirement.js";
import { fingerprint, keyBlob } from "../../src/approval/ssh-key.js";
import { signedData, sshsigBlob } from "../../src/approval/sshsig.js";
import { wireString } from "../../src/approval/ssh-wire.js";
import {
  approvalBytes,
  makeApproval,
  parseToken,
  type PlanInApproval,
  tokenText,
} from "../../src/approval/token.js";
import { digestOf } from "../../src/base/digest.js";
import { idFromDigest } from "../../src/base/ids.js";

/** A key in memory. */
export interface TestKey {
  readonly blob: Uint8Array;
  readonly line: string;
  readonly fingerprint: string;
  readonly sign: (namespace: string, bytes: Uint8Array) => Uint8Array;
}

export function testKey(): TestKey {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const point = Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url");
  const blob = keyBlob("ssh-ed25519", { kind: "ed25519", point, application: null });
  return {
    blob,
    line: `ssh-ed25519 ${Buffer.from(blob).toString("base64")}`,
    fingerprint: fingerprint(blob),
    sign: (namespace, bytes) => signWith(privateKey, blob, namespace, bytes),
  };
}

function signWith(key: KeyObject, publicKey: Uint8Array, namespace: string, bytes: Uint8Array): Uint8Array {
  const raw = sign(null, signedData({ bytes, namespace }), key);
  const signature = Buffer.concat([wireString("ssh-ed25519"), wireString(raw)]);
  return sshsigBlob({ publicKey, namespace, signature });
}

/** A key as the people file would list it. */
export function signerKey(key: Pick<TestKey, "blob">, change: Partial<SignerKey> = {}): SignerKey {
  return {
    type: "ssh-ed25519",
    blob: key.blob,
    fingerprint: fingerprint(key.blob),
    namespaces: Object.values(NAMESPACES),
    validAfter: null,
    validBefore: null,
    certAuthority: false,
    line: 1,
    ...change,
  };
}

export function person(name: string, keys: readonly TestKey[], groups: readonly string[] = []): Person {
  return { name, groups, keys: keys.map((k) => signerKey(k)) };
}

export const NOW = new Date("2026-11-24T14:38:44Z");

const DIGEST = digestOf("a plan");

export const PLAN: PlanInApproval = {
  id: idFromDigest("pl", DIGEST),
  digest: DIGEST,
  target: "elb-prod",
  identity: "sqlite:8f1c2b3a4d5e6f708192a3b4c5d6e7f8",
  inserts: 0,
  updates: 118,
  deletes: 2414,
  tables: 2,
};

let serial = 0;

/** A statement by `approver`, issued a minute ago, good for four hours. */
export function statement(approver: string, change: Partial<ApprovalStatement> = {}): ApprovalStatement {
  serial += 1;
  const nonce = Buffer.alloc(16);
  nonce.writeUInt32BE(serial, 12);
  const made = makeApproval({
    act: "approve",
    plan: PLAN,
    environment: "production",
    approver,
    now: new Date(NOW.getTime() - 60_000),
    ttlSeconds: 4 * 3600,
    nonce,
    ledgerHead: digestOf("a head"),
    reviewedSeconds: 112,
    coverUndoSeconds: null,
    reason: null,
  });
  return { ...made, ...change };
}

/** A statement signed, as a token. */
export function token(
  key: Pick<TestKey, "sign">,
  s: ApprovalStatement,
  namespace: string = NAMESPACES.approval,
): Token {
  const bytes = approvalBytes(s);
  return parseToken(tokenText(bytes, key.sign(namespace, bytes)));
}
