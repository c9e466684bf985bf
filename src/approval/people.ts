/** From keys to people: whoever a token says it is from, the key decides. */
import { stamp } from "../base/clock.js";
import { UsageError } from "../base/errors.js";
import { type AllowedSigners, NAME_PATTERN } from "./allowed-signers.js";
import { certificateHolds } from "./ssh-certificate.js";
import type { VerifiedSignature } from "./sshsig.js";
import type { Person, SignerKey } from "./requirement.js";

/** Whose key it is for this purpose at this time, or why it is nobody's. */
export type Ownership =
  | { readonly kind: "person"; readonly person: Person; readonly key: SignerKey }
  | { readonly kind: "unknown-key"; readonly why: string }
  | { readonly kind: "namespace"; readonly person: Person; readonly why: string }
  | { readonly kind: "key-expired"; readonly person: Person; readonly why: string };

/**
 * Signers with their groups, sorted by name. A group is a list of people; nobody is in a group that does
 * not name them.
 * @throws UsageError ERR_PEOPLE_INVALID for a member without a key, a member twice, an empty group, or a
 *   group's name that could not be a person's.
 */
export function people(
  signers: AllowedSigners,
  groups: Readonly<Record<string, readonly string[]>>,
): readonly Person[] {
  const known = new Set(signers.people.map((p) => p.name));
  for (const [group, members] of Object.entries(groups)) checkGroup(group, members, known, signers.file);
  return signers.people
    .map(({ name, keys }) => ({ name, keys, groups: groupsOf(name, groups) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * Whose plain key it is, if it may be used for this purpose at this time; else null. {@link ownerOfKey} says why not.
 * @param fingerprint `SHA256:…`
 */
export function personOfKey(
  people: readonly Person[],
  fingerprint: string,
  namespace: string,
  at: Date,
): Person | null {
  const owner = ownerOfKey(people, fingerprint, namespace, at);
  return owner.kind === "person" ? owner.person : null;
}

/** {@link ownerOfSignature}, with null for every reason why it is nobody's. */
export function personOfSignature(
  people: readonly Person[],
  signature: VerifiedSignature,
  namespace: string,
  at: Date,
): Person | null {
  const owner = ownerOfSignature(people, signature, namespace, at);
  return owner.kind === "person" ? owner.person : null;
}

/** The owner of a plain key. `at` must lie in the key's validity: not before `valid-after`, before `valid-before`. */
export function ownerOfKey(
  people: readonly Person[],
  fingerprint: string,
  namespace: string,
  at: Date,
): Ownership {
  for (const person of people) {
    const key = person.keys.find((k) => k.fingerprint === fingerprint && !k.certAuthority);
    if (key !== undefined) return judge(person, key, namespace, at);
  }
  return { kind: "unknown-key", why: `the key ${fingerprint} belongs to nobody on the list` };
}

/**
 * The owner of a verified signature: of the plain key, or of the certificate's principal where the list
 * trusts its authority for that person. A plain key that the list knows stays its owner's, whatever a
 * certificate says of it.
 */
export function ownerOfSignature(
  people: readonly Person[],
  signature: Pick<VerifiedSignature, "key" | "certificate">,
  namespace: string,
  at: Date,
): Ownership {
  const direct = ownerOfKey(people, signature.key.fingerprint, namespace, at);
  const { certificate } = signature;
  if (certificate === undefined || direct.kind !== "unknown-key") return direct;
  const person = people.find((p) => p.name === certificate.principal);
  const key = person?.keys.find((k) => k.certAuthority && k.fingerprint === certificate.authority);
  if (person === undefined || key === undefined) {
    const why = `nobody on the list lets ${certificate.authority} vouch for ${JSON.stringify(certificate.principal)}`;
    return { kind: "unknown-key", why };
  }
  if (!certificateHolds(certificate, at)) {
    return { kind: "key-expired", person, why: `${person.name}'s certificate is not valid at ${stamp(at)}` };
  }
  return judge(person, key, namespace, at);
}

function judge(person: Person, key: SignerKey, namespace: string, at: Date): Ownership {
  if (!key.namespaces.includes(namespace)) {
    const why = `${person.name}'s key is for ${key.namespaces.join(", ")}, and ${namespace} is needed`;
    return { kind: "namespace", person, why };
  }
  const time = at.getTime();
  const early = key.validAfter !== null && time < Date.parse(key.validAfter);
  const late = key.validBefore !== null && time >= Date.parse(key.validBefore);
  if (!early && !late) return { kind: "person", person, key };
  const bound = early
    ? `is valid only from ${key.validAfter ?? ""}`
    : `was valid until ${key.validBefore ?? ""}`;
  return { kind: "key-expired", person, why: `${person.name}'s key ${bound}` };
}

function groupsOf(name: string, groups: Readonly<Record<string, readonly string[]>>): readonly string[] {
  return Object.entries(groups)
    .filter(([, members]) => members.includes(name))
    .map(([group]) => group)
    .sort();
}

function checkGroup(
  group: string,
  members: readonly string[],
  known: ReadonlySet<string>,
  file: string,
): void {
  if (!NAME_PATTERN.test(group))
    throw invalid(group, "a group's name has letters, digits and . _ + @ : / = - only");
  if (members.length === 0) throw invalid(group, "it has no members: what asks for it could never be met");
  for (const [i, member] of members.entries()) {
    if (!known.has(member)) throw invalid(group, `${JSON.stringify(member)} has no key in ${file}`);
    if (members.indexOf(member) !== i) throw invalid(group, `${JSON.stringify(member)} stands in it twice`);
  }
}

function invalid(group: string, why: string): UsageError {
  return new UsageError({
    code: "ERR_PEOPLE_INVALID",
    message: `the group ${JSON.stringify(group)} is not valid`,
    why,
  });
}
