/**
 * holdpoint.yaml: data only, found upwards from the working directory, read into types that cannot be wrong.
 * Paths in it are relative to its own folder. Every key: `docs/configuration.md`.
 */
import { readFile, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import * as z from "zod";
import type { Json } from "../base/canonical.js";
import { codeOf, messageOf, UsageError } from "../base/errors.js";
import { nearest } from "../base/suggest.js";
import { type Environment, ENVIRONMENTS } from "../environment/evidence.js";
import { type JobBook, type JobDeclaration, kindOfFile } from "../jobs/job.js";
import {
  columnName,
  commandSchema,
  durationSchema,
  jobDeclaration,
  jobSchema,
  nameSchema,
  tableName,
} from "./jobs-section.js";
import { type Environ, fillUrl, targetKind, urlFault, type ValueOrigin } from "./target-url.js";
import { parseYaml, type Path, plainText } from "./yaml-file.js";

export { targetKind, type TargetKind, type ValueOrigin } from "./target-url.js";
export { writeIdentity } from "./write-identity.js";

/** The file's name. */
export const CONFIG_FILE = "holdpoint.yaml";

/** The largest configuration that is read. */
const MAX_BYTES = 1024 * 1024;

/** A program that holdpoint starts itself: a check, a hook. An argument array, no shell. */
export interface GuardCommand {
  readonly command: readonly string[];
  readonly timeoutSeconds: number;
}

/**
 * Something outside that a run waits for: a program that prints one number. A run pauses while the number is over
 * `pauseOver` or cannot be read, and stops when it is over `stopOver`.
 */
export interface PauseRule extends GuardCommand {
  readonly pauseOver: number;
  /** Null: it only ever pauses. */
  readonly stopOver: number | null;
}

/** A column whose values are never shown. */
export interface MaskedColumn {
  readonly table: string;
  readonly column: string;
}

/** Values, in their text form, that a change should not touch. */
export interface ProtectedColumn extends MaskedColumn {
  readonly values: readonly string[];
}

/** One target as the configuration has it. */
export interface TargetConfig {
  readonly name: string;
  /** As it stands in the file, variables not filled in. */
  readonly url: string;
  /** A claim: it can raise the environment that the target proves, never lower it. Null when nothing is claimed. */
  readonly environment: Environment | null;
  /** Written by `env pin`; null before. */
  readonly identity: string | null;
  readonly foreignKeys: boolean;
  readonly appendOnly: readonly string[];
  readonly mask: readonly MaskedColumn[];
  /** Columns that say whose a row is: a plan over several tenants is shown as odd. */
  readonly tenant: readonly MaskedColumn[];
  readonly protect: readonly ProtectedColumn[];
  /** Tables whose new rows go out of the target: mail, webhooks, a queue. Nobody takes back what was sent. */
  readonly outbox: readonly string[];
  /** Totals that people know, with their unit, shown before and after. */
  readonly sums: readonly (MaskedColumn & { readonly unit: string })[];
  /** Another target of the file, whose database is a clone to rehearse on. */
  readonly rehearseOn: string | null;
  readonly checks: Readonly<Record<string, GuardCommand>>;
  readonly hooks: Readonly<Record<string, GuardCommand>>;
  /** Asked before each batch of a run. */
  readonly pauseWhile: Readonly<Record<string, PauseRule>>;
  readonly snapshot: { readonly level: "rows" | "tables" | "database"; readonly keepSeconds: number | null };
  /** Who must sign a change of the trust bundle; null for the least: two people for production, else one. */
  readonly trust: { readonly people: number; readonly groups: readonly string[] } | null;
}

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

const guardCommand = z.strictObject({ command: commandSchema(), timeout: durationSchema().optional() });

const pauseRule = z.strictObject({
  command: commandSchema(),
  timeout: durationSchema().optional(),
  pause_over: z.number(),
  stop_over: z.number().optional(),
});

const urlText = z.string().superRefine((text, context) => {
  const what = text.trim() === "" ? "is empty" : urlFault(text);
  if (what !== null) context.addIssue({ code: "custom", message: what });
});

const targetSchema = z.strictObject({
  url: urlText,
  environment: z.enum(ENVIRONMENTS).optional(),
  identity: plainText().optional(),
  foreign_keys: z.boolean().optional(),
  append_only: z.array(tableName()).min(1).optional(),
  mask: z.array(columnName()).min(1).optional(),
  tenant: z.array(columnName()).min(1).optional(),
  protect: z.record(columnName(), z.array(plainText()).min(1)).optional(),
  outbox: z.array(tableName()).min(1).optional(),
  sums: z
    .record(
      columnName(),
      plainText().refine((s) => s.length <= 16, { error: "is no unit: 16 characters at most" }),
    )
    .optional(),
  rehearse_on: nameSchema().optional(),
  checks: z.record(nameSchema(), guardCommand).optional(),
  pause_while: z.record(nameSchema(), pauseRule).optional(),
  hooks: z.strictObject({ hold: guardCommand.optional(), release: guardCommand.optional() }).optional(),
  snapshot: z
    .strictObject({
      level: z.enum(["rows", "tables", "database"]).optional(),
      keep: durationSchema().optional(),
    })
    .optional(),
  trust: z
    .strictObject({ people: z.int().min(1).max(100), groups: z.array(plainText()).min(1).optional() })
    .optional(),
});

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

type RawTarget = z.infer<typeof targetSchema>;

/** How long a check or hook may take when nothing is said. */
const GUARD_TIMEOUT_SECONDS = 60;
/** How long a collector may take: it is asked before every batch. */
const COLLECTOR_TIMEOUT_SECONDS = 5;

function targetConfig(name: string, raw: RawTarget): TargetConfig {
  return {
    name,
    url: raw.url,
    environment: raw.environment ?? null,
    identity: raw.identity ?? null,
    foreignKeys: raw.foreign_keys ?? false,
    appendOnly: raw.append_only ?? [],
    mask: (raw.mask ?? []).map(maskedColumn),
    tenant: (raw.tenant ?? []).map(maskedColumn),
    protect: Object.entries(raw.protect ?? {}).map(([name, values]) => ({ ...maskedColumn(name), values })),
    outbox: raw.outbox ?? [],
    sums: Object.entries(raw.sums ?? {}).map(([name, unit]) => ({ ...maskedColumn(name), unit })),
    rehearseOn: raw.rehearse_on ?? null,
    checks: guardCommands(raw.checks ?? {}),
    hooks: guardCommands(raw.hooks ?? {}),
    pauseWhile: pauseRules(raw.pause_while ?? {}),
    snapshot: { level: raw.snapshot?.level ?? "rows", keepSeconds: raw.snapshot?.keep ?? null },
    trust: raw.trust === undefined ? null : { people: raw.trust.people, groups: raw.trust.groups ?? [] },
  };
}

function maskedColumn(text: string): MaskedColumn {
  const dot = text.lastIndexOf(".");
  return { table: text.slice(0, dot), column: text.slice(dot + 1) };
}

function pauseRules(raw: NonNullable<RawTarget["pause_while"]>): Readonly<Record<string, PauseRule>> {
  return Object.fromEntries(
    Object.entries(raw).map(([name, rule]) => [
      name,
      {
        command: rule.command,
        timeoutSeconds: rule.timeout ?? COLLECTOR_TIMEOUT_SECONDS,
        pauseOver: rule.pause_over,
        stopOver: rule.stop_over ?? null,
      },
    ]),
  );
}

function guardCommands(
  raw: Readonly<
    Record<string, { readonly command: readonly string[]; readonly timeout?: number | undefined } | undefined>
  >,
): Readonly<Record<string, GuardCommand>> {
  return Object.fromEntries(
    Object.entries(raw).flatMap(([name, guard]) =>
      guard === undefined
        ? []
        : [[name, { command: guard.command, timeoutSeconds: guard.timeout ?? GUARD_TIMEOUT_SECONDS }]],
    ),
  );
}

// --- what is asked of it ---------------------------------------------------------------------------

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

/**
 * The part of a target's configuration that guards it, for the trust bundle: what a requester could otherwise
 * edit to get past a rule. Never `url`, which differs from machine to machine, and never `identity`, which is
 * compared with the marker itself. Configurations that mean the same give the same value.
 * @throws UsageError ERR_TARGET_UNKNOWN
 */
export function guardingOf(config: Config, name: string): Readonly<Record<string, Json>> {
  const target = targetConfigOf(config, name);
  const guards = (commands: Readonly<Record<string, GuardCommand>>): Json =>
    Object.fromEntries(
      Object.entries(commands).map(([n, c]) => [
        n,
        { command: [...c.command], timeout_seconds: c.timeoutSeconds },
      ]),
    );
  const pauses = (rules: TargetConfig["pauseWhile"]): Json =>
    Object.fromEntries(
      Object.entries(rules).map(([n, r]) => [
        n,
        // Decimal text: canonical bytes hold whole numbers only.
        {
          command: [...r.command],
          timeout_seconds: r.timeoutSeconds,
          pause_over: String(r.pauseOver),
          stop_over: r.stopOver === null ? null : String(r.stopOver),
        },
      ]),
    );
  return {
    environment: target.environment,
    foreign_keys: target.foreignKeys,
    append_only: [...target.appendOnly].sort(),
    mask: target.mask.map((m) => `${m.table}.${m.column}`).sort(),
    // What is not set is left out: a bundle that was pinned before these keys existed stays the same.
    ...(target.tenant.length === 0
      ? {}
      : { tenant: target.tenant.map((t) => `${t.table}.${t.column}`).sort() }),
    ...(target.protect.length === 0
      ? {}
      : {
          protect: Object.fromEntries(
            target.protect.map((p) => [`${p.table}.${p.column}`, [...p.values].sort()]),
          ),
        }),
    ...(target.outbox.length === 0 ? {} : { outbox: [...target.outbox].sort() }),
    ...(target.sums.length === 0
      ? {}
      : { sums: Object.fromEntries(target.sums.map((s) => [`${s.table}.${s.column}`, s.unit])) }),
    rehearse_on: target.rehearseOn,
    checks: guards(target.checks),
    hooks: guards(target.hooks),
    snapshot: { level: target.snapshot.level, keep_seconds: target.snapshot.keepSeconds },
    ...(Object.keys(target.pauseWhile).length === 0 ? {} : { pause_while: pauses(target.pauseWhile) }),
    ...(target.trust === null
      ? {}
      : { trust: { people: target.trust.people, groups: [...target.trust.groups].sort() } }),
  };
}

/**
 * The address of a target with its variables filled in, and where each part came from. A relative SQLite path
 * is made absolute.
 * @throws UsageError ERR_TARGET_UNKNOWN, ERR_CONFIG_VARIABLE, ERR_TARGET_UNSUPPORTED.
 */
export function resolveUrl(
  config: Config,
  name: string,
  env: Environ,
): { readonly url: string; readonly origins: readonly ValueOrigin[] } {
  const target = targetConfigOf(config, name);
  const { url, origins } = fillUrl(target.url, env, config.at(["targets", name, "url"]), name);
  const kind = targetKind(url, config.root);
  return { url: kind.kind === "sqlite" ? `sqlite:${kind.path}` : kind.url, origins };
}
