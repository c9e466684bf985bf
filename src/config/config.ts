/**
 * holdpoint.yaml: data only, found upwards from the working directory, read into types that cannot be wrong.
 * Paths in it are relative to its own folder. Every key: `docs/configuration.md`.
 */
import { readFile, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import * as z from "zod";
import { codeOf, messageOf, UsageError } from "../base/errors.js";
import { nearest } from "../base/suggest.js";
import { type JobBook, type JobDeclaration, kindOfFile } from "../jobs/job.js";
import { jobDeclaration, jobSchema, nameSchema } from "./jobs-section.js";
import { type Environ, fillUrl, targetKind, type ValueOrigin } from "./target-url.js";
import { parseYaml, type Path, plainText } from "./yaml-file.js";

import { planUrlFault, type TargetConfig, targetConfig, targetSchema } from "./target-section.js";

export type { Reversal, ReverseCell } from "./append-only-section.js";
export { guardingOf } from "./guarding.js";
export type { Collector, GuardCommand, PauseRule } from "./guard-sections.js";
export { refuseMaskedSums, withMasks } from "./masks.js";
export type {
  MaskedColumn,
  NewestRow,
  ProtectedColumn,
  RehearsalConfig,
  TargetConfig,
} from "./target-section.js";
export { targetKind, type TargetKind, type ValueOrigin } from "./target-url.js";
export { writeIdentity } from "./write-identity.js";

/** The file's name. */
export const CONFIG_FILE = "holdpoint.yaml";

/** The largest configuration that is read. */
const MAX_BYTES = 1024 * 1024;

/** A configuration that was read. All paths are absolute. */
export interface Config extends JobBook {
  /** The path of holdpoint.yaml. */
  readonly file: string;
  /** Its folder: what relative paths in it are relative to. */
  readonly root: string;
  readonly targets: Readonly<Record<string, TargetConfig>>;
  readonly jobs: Readonly<Record<string, JobDeclaration>>;
  /** Folder. */
  readonly policies: string;
  /** The allowed-signers file. */
  readonly people: string;
  /** `groups.yaml` beside it. */
  readonly groups: string;
  /** Folder of ledger, plans and snapshots. */
  readonly store: string;
  /** `holdpoint.yaml:line:column` of a value, or of its nearest ancestor. */
  readonly at: (path: Path) => string;
}

// --- the file --------------------------------------------------------------------------------------

/**
 * The nearest holdpoint.yaml, in `from` or above it.
 * @throws UsageError ERR_CONFIG_MISSING with every folder that was looked at.
 */
export async function findConfig(from: string): Promise<string> {
  const looked: string[] = [];
  for (let folder = resolve(from); ; folder = dirname(folder)) {
    const file = join(folder, CONFIG_FILE);
    if (await isFile(file)) return file;
    looked.push(folder);
    if (folder === dirname(folder)) break;
  }
  throw new UsageError({
    code: "ERR_CONFIG_MISSING",
    message: `there is no ${CONFIG_FILE} here`,
    why: `looked in ${looked.join(", ")}`,
    next: [{ actor: "anyone", argv: ["holdpoint", "init"] }],
  });
}

/**
 * Reads and checks a configuration. No other file is read, no variable is looked at.
 * @throws UsageError ERR_CONFIG_MISSING when there is no such file; ERR_CONFIG_INVALID with `file:line:column`.
 */
export async function loadConfig(file: string): Promise<Config> {
  const path = resolve(file);
  return parseConfig(await readText(path), path);
}

/** {@link loadConfig} on text that was read. Pure. */
export function parseConfig(text: string, path: string): Config {
  const { value, at } = parseYaml(text, CONFIG_FILE, configSchema);
  const root = dirname(path);
  const targets = Object.entries(value.targets).map(
    ([name, raw]) => [name, targetConfig(name, raw)] as const,
  );
  const jobs = Object.entries(value.jobs ?? {}).map(
    ([name, raw]) => [name, jobDeclaration(name, raw, root, at(["jobs", name]))] as const,
  );
  const people = resolve(root, value.people ?? "people/allowed_signers");
  return {
    file: path,
    root,
    targets: Object.fromEntries(targets),
    jobs: Object.fromEntries(jobs),
    policies: resolve(root, value.policies ?? "policies"),
    people,
    groups: join(dirname(people), "groups.yaml"),
    store: resolve(root, value.store ?? ".holdpoint"),
    at,
  };
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (e) {
    if (codeOf(e) === "ENOENT" || codeOf(e) === "ENOTDIR") return false;
    throw unreadable(path, e);
  }
}

async function readText(path: string): Promise<string> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (e) {
    throw unreadable(path, e);
  }
  if (bytes.length > MAX_BYTES) {
    const why = `it has ${bytes.length} bytes, and at most ${MAX_BYTES} are read`;
    throw new UsageError({ code: "ERR_CONFIG_INVALID", message: `${path} is too large`, why });
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new UsageError({ code: "ERR_CONFIG_INVALID", message: `${path} is not UTF-8 text`, cause });
  }
}

function unreadable(path: string, cause: unknown): UsageError {
  const missing = codeOf(cause) === "ENOENT";
  return new UsageError({
    code: missing ? "ERR_CONFIG_MISSING" : "ERR_CONFIG_INVALID",
    message: missing ? `there is no ${path}` : `${path} cannot be read`,
    why: messageOf(cause),
    cause,
  });
}

// --- what it may say -------------------------------------------------------------------------------

const configSchema = z
  .strictObject({
    targets: z.record(nameSchema(), targetSchema),
    jobs: z.record(nameSchema(), jobSchema).optional(),
    policies: plainText().optional(),
    people: plainText().optional(),
    store: plainText().optional(),
  })
  .superRefine((config, context) => {
    for (const [name, target] of Object.entries(config.targets)) {
      for (const column of Object.keys(target.sums ?? {})) {
        if (target.mask?.includes(column) !== true) continue;
        const message = `is masked, and the sum of one row is its value`;
        context.addIssue({ code: "custom", message, path: ["targets", name, "sums", column] });
      }
      // Limits that nobody keeps are worse than none: an SQLite job runs under a lock of 2 s, or on a private copy.
      if (target.rehearsal !== undefined && /^sqlite:/i.test(target.url)) {
        const message = "limits what a rehearsal costs a server, and an SQLite file has none";
        context.addIssue({ code: "custom", message, path: ["targets", name, "rehearsal"] });
      }
      const fault = planUrlFault(target);
      if (fault !== null)
        context.addIssue({ code: "custom", message: fault, path: ["targets", name, "plan_url"] });
      const clone = target.rehearse_on;
      if (clone === undefined || (clone !== name && Object.hasOwn(config.targets, clone))) continue;
      const message =
        clone === name ? "is the target itself, not a clone of it" : `names no target of this file: ${clone}`;
      context.addIssue({ code: "custom", message, path: ["targets", name, "rehearse_on"] });
    }
    for (const name of Object.keys(config.jobs ?? {})) {
      // A bare file keeps its ending as its name, so that it can never pass for a declared job.
      if (kindOfFile(name) === null) continue;
      context.addIssue({
        code: "custom",
        message: "ends like a file: that is no name of a job",
        path: ["jobs", name],
      });
    }
  });

/**
 * The JSON Schema (draft 2020-12) of holdpoint.yaml, for editors: `holdpoint schema config`. It says less than reading
 * does: what one value means beside another (parameters, ranges, names of other targets) is checked when the file is read.
 */
export function configJsonSchema(): Readonly<Record<string, unknown>> {
  const schema = z.toJSONSchema(configSchema, { io: "input", unrepresentable: "any" });
  return { ...schema, title: `${CONFIG_FILE}, the configuration of holdpoint` };
}

/**
 * The target of that name.
 * @throws UsageError ERR_TARGET_UNKNOWN with the names there are; also for a blank name: there is no default target.
 */
export function targetConfigOf(config: Config, name: string): TargetConfig {
  const target = Object.hasOwn(config.targets, name) ? config.targets[name] : undefined;
  if (target !== undefined) return target;
  const names = Object.keys(config.targets);
  const guess = nearest(name, names);
  const has = names.length === 0 ? `${CONFIG_FILE} has no targets` : `${CONFIG_FILE} has ${names.join(", ")}`;
  throw new UsageError({
    code: "ERR_TARGET_UNKNOWN",
    message: name.trim() === "" ? "no target is named" : `there is no target ${JSON.stringify(name)}`,
    why: guess === undefined ? has : `${has}; did you mean ${guess}?`,
    next: [{ actor: "anyone", argv: ["holdpoint", "env", "list"] }],
  });
}

/** What a connection is for: to look, plan and rehearse, or to write what was planned. */
export type Purpose = "plan" | "write";

/**
 * The address of a target with its variables filled in, and where each part came from. A relative SQLite path
 * is made absolute. Only the address for that purpose is read: a machine needs no more than its own.
 * @throws UsageError ERR_TARGET_UNKNOWN, ERR_CONFIG_VARIABLE, ERR_TARGET_UNSUPPORTED.
 */
export function resolveUrl(
  config: Config,
  name: string,
  env: Environ,
  purpose: Purpose = "plan",
): { readonly url: string; readonly origins: readonly ValueOrigin[] } {
  const target = targetConfigOf(config, name);
  const isApart = purpose === "plan" && target.planUrl !== null;
  const [template, key] = isApart ? [target.planUrl, "plan_url"] : [target.url, "url"];
  const { url, origins } = fillUrl(template, env, config.at(["targets", name, key]), name, key);
  const kind = targetKind(url, config.root);
  return { url: kind.kind === "sqlite" ? `sqlite:${kind.path}` : kind.url, origins };
}
