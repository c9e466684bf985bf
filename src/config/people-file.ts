/** The people of a project: the allowed-signers file, and groups.yaml beside it. */
import { readFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import * as z from "zod";
import { parseAllowedSigners } from "../approval/allowed-signers.js";
import { people } from "../approval/people.js";
import type { CiMapping } from "../approval/requesters.js";
import type { Person } from "../approval/requirement.js";
import { byCodeUnit } from "../base/canonical.js";
import { codeOf, messageOf, UsageError } from "../base/errors.js";
import { type CiIdentityText, ciIdentity, ciIdentitySchema, parseKeySet } from "./ci-identities.js";
import type { Config } from "./config.js";
import { parseYaml, plainText } from "./yaml-file.js";

/** The largest file of people that is read. */
const MAX_BYTES = 4 * 1024 * 1024;

const groupsSchema = z.strictObject({
  groups: z.record(z.string(), z.array(plainText()).min(1)),
  ci: z
    .strictObject({
      accounts: z.array(plainText()).optional(),
      people: z.record(plainText(), plainText()).optional(),
      identity: z
        .record(
          plainText().refine((n) => /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(n), "is no name"),
          ciIdentitySchema,
        )
        .refine((r) => Object.keys(r).length > 0, "names no pipeline; leave it out where there is none")
        .optional(),
    })
    .optional(),
});

/**
 * Reads who may sign and which groups they are in. Nobody is in a group that does not name them.
 * @throws UsageError ERR_PEOPLE_INVALID with `file:line` when a file is missing, unreadable, or not understood
 * completely. A missing file is no empty one.
 */
export async function readPeople(
  config: Pick<Config, "root" | "people" | "groups">,
): Promise<readonly Person[]> {
  const signers = parseAllowedSigners(
    await textOf(config.people, config.root),
    shown(config.people, config.root),
  );
  return people(
    signers,
    parseGroups(await textOf(config.groups, config.root), shown(config.groups, config.root)),
  );
}

/** Reads groups.yaml: `groups: { dba: [ravi, lee] }`. Pure. */
export function parseGroups(text: string, file: string): Readonly<Record<string, readonly string[]>> {
  return parseYaml(text, file, groupsSchema, { code: "ERR_PEOPLE_INVALID" }).value.groups;
}

/**
 * How names of CI and git map to people: the `ci:` section of groups.yaml; null where there is none.
 * @throws UsageError ERR_PEOPLE_INVALID for an account or a person that the people file does not know.
 */
export async function readCi(
  config: Pick<Config, "root" | "groups">,
  people: readonly Person[],
): Promise<CiMapping | null> {
  const file = shown(config.groups, config.root);
  const text = await textOf(config.groups, config.root);
  const keySets = new Map<string, string>();
  for (const { keys } of Object.values(identitiesIn(text, file))) {
    keySets.set(keys, await textOf(join(dirname(config.groups), keys), config.root));
  }
  return parseCi(text, file, people, keySets);
}

function identitiesIn(text: string, file: string): Readonly<Record<string, CiIdentityText>> {
  return parseYaml(text, file, groupsSchema, { code: "ERR_PEOPLE_INVALID" }).value.ci?.identity ?? {};
}

/** {@link readCi} on texts that were read; `keySets` by the names that the identities give. Pure. */
export function parseCi(
  text: string,
  file: string,
  people: readonly Person[],
  keySets: ReadonlyMap<string, string> = new Map(),
): CiMapping | null {
  const { ci } = parseYaml(text, file, groupsSchema, { code: "ERR_PEOPLE_INVALID" }).value;
  if (ci === undefined) return null;
  const accounts = ci.accounts ?? [];
  const mapped = ci.people ?? {};
  const stranger = [...accounts, ...Object.values(mapped)].find((n) => !people.some((p) => p.name === n));
  if (stranger !== undefined) {
    throw invalid(`ci in ${file} names ${stranger}`, "the people file knows nobody of that name");
  }
  // Addresses are compared as git's are: without regard to case.
  const names = Object.entries(mapped).map(([n, p]) => [n.includes("@") ? n.toLowerCase() : n, p] as const);
  const identities = Object.entries(ci.identity ?? {})
    .sort(([a], [b]) => byCodeUnit(a, b))
    .map(([name, of]) => {
      const keys = parseKeySet(keySets.get(of.keys) ?? "", join(dirname(file), of.keys));
      return ciIdentity(name, of, keys, `ci.identity.${name} in ${file}`);
    });
  return {
    accounts: [...accounts].sort(),
    people: Object.fromEntries(names),
    ...(identities.length === 0 ? {} : { identities }),
  };
}

async function textOf(path: string, root: string): Promise<string> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    const what =
      codeOf(cause) === "ENOENT" ? `there is no ${shown(path, root)}` : `${shown(path, root)} cannot be read`;
    throw invalid(
      what,
      codeOf(cause) === "ENOENT" ? "a missing file is no empty one" : messageOf(cause),
      cause,
    );
  }
  if (bytes.length > MAX_BYTES)
    throw invalid(`${shown(path, root)} is too large`, `it has ${bytes.length} bytes`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw invalid(`${shown(path, root)} is not UTF-8 text`, "a name could be read two ways", cause);
  }
}

function shown(path: string, root: string): string {
  const inside = relative(root, path);
  return inside.startsWith("..") ? path : inside;
}

function invalid(message: string, why: string, cause?: unknown): UsageError {
  return new UsageError({
    code: "ERR_PEOPLE_INVALID",
    message,
    why,
    ...(cause === undefined ? {} : { cause }),
  });
}
