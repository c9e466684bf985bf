/**
 * Policy files: from bytes to `PolicyFile`, with the place of every part. Format page: `docs/formats/policy.md`.
 * Nothing unknown, blank or ambiguous is read past, because a mistyped safety flag that is ignored is an open gate.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { type Digest, digestOf } from "../base/digest.js";
import { messageOf, UsageError } from "../base/errors.js";
import type { PolicyFile } from "../policy/schema.js";
import { PolicyReader, type PolicyText } from "./policy-reader.js";
import { policySchema } from "./policy-words.js";
import { parseYaml } from "./yaml-file.js";

/** Larger than any policy a person wrote. */
const MAX_FILE_BYTES = 1 << 20;

/** A policy file as it was read: once, so that what is parsed is what the digest names. */
export interface PolicySource extends PolicyText {
  /** As errors and the trust bundle name it: `policies/production.yaml`. */
  readonly path: string;
  readonly text: string;
  readonly digest: Digest;
}

/**
 * Reads every policy of a folder, in code-unit order of the names. The folder holds `.yaml` or `.yml` files, and
 * may hold README.md and hidden files; anything else is refused, because `freeze.ymal` would be a freeze
 * that nobody notices is missing.
 * @param shown the folder as errors and the trust bundle name it, without a slash at the end
 * @throws UsageError ERR_POLICY_INVALID when the folder or a file cannot be read, or there is no policy in it.
 */
export async function readPolicies(folder: string, shown: string): Promise<readonly PolicySource[]> {
  const names = await listFolder(folder, shown);
  const sources: PolicySource[] = [];
  for (const name of names) sources.push(await readSource(join(folder, name), `${shown}/${name}`));
  if (sources.length > 0) return sources;
  throw unreadable(shown, `there is no policy in ${shown}`, "without a policy nothing is permitted");
}

async function listFolder(folder: string, shown: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((e: unknown) => {
    throw unreadable(shown, `the policies in ${shown} cannot be read`, messageOf(e));
  });
  const names = entries.filter((e) => !e.name.startsWith(".") && e.name !== "README.md");
  const stranger = names.find((e) => e.isDirectory() || !/\.ya?ml$/.test(e.name));
  if (stranger !== undefined)
    throw unreadable(
      shown,
      `${shown}/${stranger.name} is not a policy`,
      "a folder of policies holds .yaml and .yml files and README.md: what is not read must not look as if it were",
    );
  return names.map((e) => e.name).sort((a, b) => (a < b ? -1 : 1));
}

/**
 * Reads one policy file, which may lie anywhere: for its tests, never to decide.
 * @param shown the file as errors name it
 */
export async function readPolicy(path: string, shown: string): Promise<PolicySource> {
  return readSource(path, shown);
}

async function readSource(path: string, shown: string): Promise<PolicySource> {
  try {
    const bytes = await readFile(path);
    if (bytes.length > MAX_FILE_BYTES) throw new RangeError(`it is larger than ${MAX_FILE_BYTES} bytes`);
    return {
      path: shown,
      text: new TextDecoder("utf-8", { fatal: true }).decode(bytes),
      digest: digestOf(bytes),
    };
  } catch (e) {
    throw unreadable(shown, `${shown} cannot be read`, messageOf(e));
  }
}

function unreadable(shown: string, message: string, why: string): UsageError {
  const text = `Put ${shown} in order; until then nothing is permitted.`;
  return new UsageError({ code: "ERR_POLICY_INVALID", message, why, next: [{ actor: "anyone", text }] });
}

/** A reader of policy texts. Building the schema costs more than reading a file: build one reader for many files. */
export function policyReader(): (source: PolicyText) => PolicyFile {
  const schema = policySchema();
  return (source) => {
    const { value, at } = parseYaml(source.text, source.path, schema, { code: "ERR_POLICY_INVALID" });
    const reader = new PolicyReader(source, at);
    const file = reader.policy(value);
    reader.finish();
    return file;
  };
}

/** Reads one file's text. @throws UsageError ERR_POLICY_INVALID with `file:line:column` of every fault. */
export function parsePolicy(source: PolicyText): PolicyFile {
  return policyReader()(source);
}

/** {@link parsePolicy} for all of them; conditions are checked by `policy/compile.ts`. */
export function parsePolicies(sources: readonly PolicyText[]): readonly PolicyFile[] {
  return sources.map(policyReader());
}

/** The JSON Schema (draft 2020-12) of a policy file, for editors: `holdpoint schema policy`. */
export function policyJsonSchema(): Readonly<Record<string, unknown>> {
  return { ...z.toJSONSchema(policySchema(), { io: "input" }), title: "holdpoint policy file, version 1" };
}
