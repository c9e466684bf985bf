/** Keys: whom the people file knows, what lies on this machine, and whether one of them can sign here. */
import { ownerOfSignature, type Ownership } from "../approval/people.js";
import { NAMESPACES, type Person } from "../approval/requirement.js";
import { RefusedError, UsageError } from "../base/errors.js";
import type { ReachableKey, SigningKey, Toolbox } from "./toolbox.js";

/** The namespace of a trial signature: nothing that holdpoint or anyone else accepts is signed in it. */
export const TRIAL_NAMESPACE = "holdpoint-trial";

/** What one key may do: each purpose with the answer of the people file. */
export interface KeyPurpose {
  readonly purpose: keyof typeof NAMESPACES;
  readonly namespace: string;
  readonly owner: Ownership;
}

/** A key in reach, judged. */
export interface JudgedKey {
  readonly key: ReachableKey;
  /** Whose it is; null for a stranger's. */
  readonly person: string | null;
  readonly purposes: readonly KeyPurpose[];
}

/** What `key list` shows. */
export interface KeyListing {
  readonly people: readonly Person[];
  readonly inReach: readonly JudgedKey[];
  readonly problems: readonly string[];
}

/** People with their keys, and the keys that lie here. Signs nothing, opens no target. */
export async function listKeys(tools: Toolbox): Promise<KeyListing> {
  const { keys, problems } = await tools.keysInReach(undefined);
  return { people: tools.project.people, inReach: keys.map((k) => judge(tools, k)), problems };
}

/** A key that signed a trial, with what it may be used for. */
export interface CheckedKey {
  readonly fingerprint: string;
  readonly person: string;
  readonly groups: readonly string[];
  readonly purposes: readonly KeyPurpose[];
  readonly problems: readonly string[];
}

/**
 * Makes a trial signature with the key that `approve` would use, and says what the key may do.
 * @throws RefusedError ERR_KEY_MISSING where there is none; ERR_KEY_UNKNOWN, ERR_APPROVAL_KEY_EXPIRED,
 *   ERR_APPROVAL_NAMESPACE where the people file does not let it approve, each in its own words; ERR_KEY_REFUSED
 *   when it does not sign.
 */
export async function checkKey(tools: Toolbox, keyFlag: string | undefined): Promise<CheckedKey> {
  const { keys, problems } = await tools.keysInReach(keyFlag);
  if (keyFlag === undefined) refuseNothingKnown(tools, keys, problems);
  const signing = await tools.findKey(keyFlag, NAMESPACES.approval);
  const found = keys.find((k) => k.signer.key.fingerprint === signing.fingerprint);
  const purposes = found === undefined ? [] : judge(tools, found).purposes;
  const owner = purposes.find((p) => p.purpose === "approval")?.owner;
  const person = ownerName(signing, owner);
  if (person === null) throw notForApproval(signing.fingerprint, owner);
  await signing.sign(trialBytes(tools), TRIAL_NAMESPACE);
  return {
    fingerprint: signing.fingerprint,
    person,
    groups: tools.project.people.find((p) => p.name === person)?.groups ?? [],
    purposes,
    problems,
  };
}

function trialBytes(tools: Toolbox): Uint8Array {
  const nonce = Buffer.from(tools.random(16)).toString("hex");
  return Buffer.from(`holdpoint trial\nThis signature allows nothing.\nnonce: ${nonce}\n`, "utf8");
}

function ownerName(signing: SigningKey, owner: Ownership | undefined): string | null {
  return owner === undefined ? signing.person : owner.kind === "person" ? owner.person.name : null;
}

function judge(tools: Toolbox, key: ReachableKey): JudgedKey {
  const now = tools.clock.now();
  const purposes = Object.entries(NAMESPACES).map(([purpose, namespace]) => ({
    purpose: purposeOf(purpose),
    namespace,
    owner: ownerOfSignature(tools.project.people, key.signer, namespace, now),
  }));
  const known = purposes.find((p) => p.owner.kind !== "unknown-key")?.owner;
  return {
    key,
    person: known === undefined || known.kind === "unknown-key" ? null : known.person.name,
    purposes,
  };
}

function purposeOf(text: string): keyof typeof NAMESPACES {
  switch (text) {
    case "plan":
    case "approval":
    case "trust":
    case "pin":
    case "breakGlass":
      return text;
  }
  throw new UsageError({ code: "ERR_INTERNAL", message: `no purpose is called ${text}` });
}

/** Without --key: says of every key that lies here why it is not one to approve with. */
function refuseNothingKnown(
  tools: Toolbox,
  keys: readonly ReachableKey[],
  problems: readonly string[],
): void {
  const judged = keys.map((k) => judge(tools, k));
  const usable = judged.filter((k) => k.purposes.some((p) => p.owner.kind === "person"));
  if (usable.length > 0) return;
  const why = judged.map((k) => `${k.key.where}: ${reasonOf(k)}`);
  throw new RefusedError({
    code: "ERR_KEY_MISSING",
    message: "no key here belongs to a person on the list",
    why: [...why, ...problems].join("; ") || "there is no key in the agent and none in ~/.ssh",
    state: "Nothing was signed.",
    next: [
      { actor: "anyone", argv: ["holdpoint", "key", "list"] },
      { actor: "anyone", argv: ["holdpoint", "key", "check", "--key", "FILE"] },
    ],
  });
}

function reasonOf(k: JudgedKey): string {
  const owner = k.purposes.find((p) => p.purpose === "approval")?.owner;
  return owner === undefined || owner.kind === "person" ? "" : owner.why;
}

function notForApproval(fingerprint: string, owner: Ownership | undefined): RefusedError {
  const facts = {
    why: owner === undefined || owner.kind === "person" ? `key ${fingerprint}` : owner.why,
    state: "Nothing was signed.",
    next: [{ actor: "anyone" as const, argv: ["holdpoint", "trust", "show"] }],
  };
  switch (owner?.kind) {
    case "namespace":
      return new RefusedError({
        ...facts,
        code: "ERR_APPROVAL_NAMESPACE",
        message: `this key of ${owner.person.name} is not for approvals`,
      });
    case "key-expired":
      return new RefusedError({
        ...facts,
        code: "ERR_APPROVAL_KEY_EXPIRED",
        message: `this key of ${owner.person.name} is not valid now`,
      });
    case "unknown-key":
    case "person":
    case undefined:
      return new RefusedError({
        ...facts,
        code: "ERR_KEY_UNKNOWN",
        message: "this key is not one that the people file knows",
      });
  }
}
