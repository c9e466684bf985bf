/**
 * People and their keys in OpenSSH's allowed-signers format (ssh-keygen(1), ALLOWED SIGNERS), read more
 * strictly than OpenSSH reads it. Each strictness answers an attack or an accident:
 *
 * | OpenSSH allows | here | because |
 * | --- | --- | --- |
 * | patterns `*@shop.example` | error | one key verifies as many people (measured) |
 * | several principals on a line | error | one key is one person |
 * | no `namespaces=` | error | the key would count for every purpose (measured) |
 * | patterns in `namespaces=` | error | the same |
 * | times without `Z` | error | they mean another moment on another machine |
 * | one key under two people | error | one person could count twice |
 * | unknown options, odd spelling | error | a restriction that is not understood is not enforced |
 *
 * What is accepted here means the same to `ssh-keygen -Y verify`, but for hardware keys without a touch.
 */
import { stamp } from "../base/clock.js";
import { HoldpointError, UsageError } from "../base/errors.js";
import { decodeBase64, publicKeyOf } from "./public-key.js";
import { NAMESPACES, type SignerKey } from "./requirement.js";

/** What one file says: every person with all their keys, people in the order of their first line. */
export interface AllowedSigners {
  /** The path that errors name. */
  readonly file: string;
  readonly people: readonly { readonly name: string; readonly keys: readonly SignerKey[] }[];
}

interface SignerLine {
  readonly name: string;
  readonly key: SignerKey;
}

/** What a person's or a group's name may be: no pattern, no quote, no space, nothing invisible. */
export const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._+@:/=-]{0,99}$/;

const NAMESPACE_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._@-]*$/;
const OURS: readonly string[] = Object.values(NAMESPACES);

/**
 * Reads an allowed-signers file.
 * @param file the path as errors shall name it.
 * @throws UsageError ERR_PEOPLE_INVALID naming `file:line` for anything that is not understood completely.
 */
export function parseAllowedSigners(text: string, file: string): AllowedSigners {
  const lines = text.split("\n").flatMap((line, i) => {
    const parsed = parseLine(line, { file, line: i + 1 });
    return parsed === null ? [] : [parsed];
  });
  refuseSharedKeys(lines, file);
  const byName = new Map<string, SignerKey[]>();
  for (const { name, key } of lines) byName.set(name, [...(byName.get(name) ?? []), key]);
  return { file, people: [...byName].map(([name, keys]) => ({ name, keys })) };
}

interface Place {
  readonly file: string;
  readonly line: number;
}

function parseLine(raw: string, at: Place): SignerLine | null {
  if (raw.endsWith("\r"))
    throw invalid(at, "the line ends in a carriage return", "save the file with LF line ends");
  if (/[^\t\P{Cc}]/u.test(raw)) throw invalid(at, "the line has control characters");
  const line = raw.replace(/^[ \t]+|[ \t]+$/g, "");
  if (line === "" || line.startsWith("#")) return null;
  const [name, rest] = splitWord(line);
  if (!NAME_PATTERN.test(name)) throw badName(name, at);
  const { options, after } = takeOptions(rest, at);
  const [type, base64AndComment] = splitWord(after);
  const [base64] = splitWord(base64AndComment);
  return { name, key: { ...readKeyFields(type, base64, at), ...readOptions(options, at), line: at.line } };
}

function readKeyFields(
  type: string,
  base64: string,
  at: Place,
): Pick<SignerKey, "type" | "blob" | "fingerprint"> {
  const blob = decodeBase64(base64);
  if (blob === null) throw invalid(at, `no key where one is expected: ${quoted(`${type} ${base64}`.trim())}`);
  const key = readBlob(blob, at);
  if (key.type !== type) throw invalid(at, `the line says ${quoted(type)} and the key is ${key.type}`);
  if (key.certificate) {
    throw invalid(
      at,
      "a certificate stands where a key is expected",
      "list its authority's key with cert-authority",
    );
  }
  return { type, blob, fingerprint: key.fingerprint };
}

function readBlob(blob: Uint8Array, at: Place): ReturnType<typeof publicKeyOf> {
  try {
    return publicKeyOf(blob);
  } catch (e) {
    if (e instanceof HoldpointError) throw invalid(at, e.why ?? e.message);
    throw e;
  }
}

interface Option {
  readonly name: string;
  /** null for an option without a value. */
  readonly value: string | null;
}

/**
 * The option list, if the second word is one: comma-separated, values in double quotes. A second word that
 * begins with a key type's letters is the key.
 */
function takeOptions(
  rest: string,
  at: Place,
): { readonly options: readonly Option[]; readonly after: string } {
  if (/^(ssh-|ecdsa-|sk-)/.test(rest)) return { options: [], after: rest };
  const options: Option[] = [];
  let left = rest;
  for (;;) {
    const found = /^([a-z-]+)(?:="([^"\\]*)")?/.exec(left);
    const name = found?.[1];
    if (found === null || name === undefined) throw invalid(at, `not an option: ${quoted(left)}`);
    options.push({ name, value: found[2] ?? null });
    left = left.slice(found[0].length);
    if (/^[ \t]/.test(left)) return { options, after: left.replace(/^[ \t]+/, "") };
    if (!left.startsWith(",")) throw invalid(at, `not an option: ${quoted(`${name}${left}`)}`);
    left = left.slice(1);
  }
}

type OptionFields = Pick<SignerKey, "namespaces" | "validAfter" | "validBefore" | "certAuthority">;

function readOptions(options: readonly Option[], at: Place): OptionFields {
  const values = new Map<string, string | null>();
  for (const { name, value } of options) {
    if (values.has(name)) throw invalid(at, `the option ${name} stands twice`);
    checkOption(name, value, at);
    values.set(name, value);
  }
  const validAfter = timeOption(values, "valid-after", at);
  const validBefore = timeOption(values, "valid-before", at);
  if (validAfter !== null && validBefore !== null && validAfter >= validBefore) {
    throw invalid(at, `the key is never valid: from ${validAfter} until ${validBefore}`);
  }
  const namespaces = namespacesOption(values.get("namespaces"), at);
  return { namespaces, validAfter, validBefore, certAuthority: values.has("cert-authority") };
}

function checkOption(name: string, value: string | null, at: Place): void {
  switch (name) {
    case "cert-authority":
      if (value !== null) throw invalid(at, "cert-authority takes no value");
      return;
    case "namespaces":
    case "valid-after":
    case "valid-before":
      if (value === null) throw invalid(at, `${name} needs a value in double quotes`);
      return;
    default:
      throw invalid(at, `unknown option ${quoted(name)}`);
  }
}

function namespacesOption(value: string | null | undefined, at: Place): readonly string[] {
  if (value === null || value === undefined) {
    const example = `namespaces="${NAMESPACES.plan},${NAMESPACES.approval}"`;
    throw invalid(at, "namespaces= is missing: the key would count for every purpose", `add ${example}`);
  }
  const names = value.split(",");
  for (const [i, name] of names.entries()) {
    if (!NAMESPACE_PATTERN.test(name)) throw invalid(at, `not a namespace: ${quoted(name)}`);
    if (names.indexOf(name) !== i) throw invalid(at, `the namespace ${name} stands twice`);
    // Another tool's namespace may stand here (`git`); a misspelt one of ours would silently count for nothing.
    if (name.startsWith("holdpoint") && !OURS.includes(name)) {
      throw invalid(at, `unknown namespace ${name}; known are ${OURS.join(", ")}`);
    }
  }
  return names;
}

/** `YYYYMMDDZ`, `YYYYMMDDHHMMZ` or `YYYYMMDDHHMMSSZ`, as ISO 8601 UTC. */
function timeOption(values: ReadonlyMap<string, string | null>, name: string, at: Place): string | null {
  const text = values.get(name);
  if (text === null || text === undefined) return null;
  const found = /^(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z?)$/.exec(text);
  if (found === null)
    throw invalid(at, `${name} is not a time: ${quoted(text)}`, "write YYYYMMDDZ or YYYYMMDDHHMMSSZ");
  if (found[7] === "") {
    throw invalid(
      at,
      `${name}="${text}" has no Z: it would mean another moment on another machine`,
      `write ${text}Z`,
    );
  }
  const iso = `${found[1]}-${found[2]}-${found[3]}T${found[4] ?? "00"}:${found[5] ?? "00"}:${found[6] ?? "00"}Z`;
  const time = new Date(iso);
  // Date rolls 31 February over into March; a date that does not exist is refused instead.
  if (Number.isNaN(time.getTime()) || stamp(time) !== iso)
    throw invalid(at, `${name}="${text}" does not exist`);
  return iso;
}

/**
 * One key, one person. An authority may stand under several people, one line each: it is known by the
 * principal in its certificates. An authority that also signs for itself could stand in for all of them.
 */
function refuseSharedKeys(lines: readonly SignerLine[], file: string): void {
  const seen = new Map<string, SignerLine>();
  const uses = new Set<string>();
  for (const line of lines) {
    const { name, key } = line;
    const at = { file, line: key.line };
    const use = `${key.fingerprint} ${name}`;
    const other = seen.get(key.fingerprint);
    if (uses.has(use))
      throw invalid(at, `${name} has this key already, on line ${other?.key.line ?? key.line}`);
    if (other !== undefined && !(other.key.certAuthority && key.certAuthority)) {
      throw invalid(
        at,
        `this key stands under ${other.name} already, on line ${other.key.line}: a key has one owner`,
      );
    }
    uses.add(use);
    seen.set(key.fingerprint, line);
  }
}

/** The first word, and what stands after the white space behind it. */
function splitWord(text: string): readonly [string, string] {
  const end = text.search(/[ \t]/);
  return end < 0 ? [text, ""] : [text.slice(0, end), text.slice(end).replace(/^[ \t]+/, "")];
}

function badName(name: string, at: Place): UsageError {
  if (/[*?!]/.test(name))
    return invalid(at, `${quoted(name)} is a pattern: a key belongs to one person by name`);
  if (name.includes(","))
    return invalid(at, `${quoted(name)} names several people: write one line for each key`);
  return invalid(at, `${quoted(name)} is not a name`, "use letters, digits and . _ + @ : / = -");
}

/** Quoted and escaped, cut short: the text may be anything. */
function quoted(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}…` : text);
}

function invalid(at: Place, why: string, next?: string): UsageError {
  return new UsageError({
    code: "ERR_PEOPLE_INVALID",
    message: `${at.file}:${at.line} is not a line of people and keys`,
    why,
    next: next === undefined ? [] : [{ actor: "anyone", text: next }],
  });
}
