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

/** Where a reading comes from: a program, an HTTP address, a question in SQL to the target, or the target's own lag. */
export type Collector =
  | { readonly kind: "command"; readonly command: readonly string[] }
  | { readonly kind: "http"; readonly url: string }
  | { readonly kind: "sql"; readonly sql: string }
  | { readonly kind: "lag" };

/**
 * Something that a run waits for. It pauses while the reading is over `pauseOver` or there is none, and stops when the
 * reading is over `stopOver`.
 */
export interface PauseRule {
  readonly collector: Collector;
  readonly timeoutSeconds: number;
  /** Null: that a command ends with 0, or an address answers with 2xx, is enough to go on. */
  readonly pauseOver: number | null;
  /** Null: it only ever pauses. */
  readonly stopOver: number | null;
}

/** A column of times, and how old the newest row of its table may be; null for any age. */
export interface NewestRow {
  readonly table: string;
  readonly column: string;
  readonly withinSeconds: number | null;
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

/** Limits of a rehearsal on a server. */
export interface RehearsalConfig {
  readonly rows?: number;
  /** Write-ahead log, in MiB. */
  readonly walMb?: number;
  readonly replicaLagSeconds?: number;
  readonly lockWaitSeconds?: number;
  readonly statementSeconds?: number;
}

/** What a cell of a reversing row holds. */
export type ReverseCell =
  | { readonly kind: "is"; readonly value: string | bigint | null }
  /** What another column of the row holds that is reversed. */
  | { readonly kind: "column"; readonly name: string }
  /** A number with the opposite sign. */
  | { readonly kind: "negate"; readonly name: string }
  /** One more than the largest whole number that the column ever held. */
  | { readonly kind: "next" };

/** A reversing row, by column; columns that are not named are copied. */
export type Reversal = Readonly<Record<string, ReverseCell>>;

/** One target as the configuration has it. */
export interface TargetConfig {
  readonly name: string;
  /** As it stands in the file, variables not filled in. */
  readonly url: string;
  /**
   * The address that everything but writing goes by: another role of the same database. Null where {@link TargetConfig.url}
   * is the only one.
   */
  readonly planUrl: string | null;
  /** A claim: it can raise the environment that the target proves, never lower it. Null when nothing is claimed. */
  readonly environment: Environment | null;
  /** Written by `env pin`; null before. */
  readonly identity: string | null;
  readonly foreignKeys: boolean;
  readonly appendOnly: readonly string[];
  /**
   * Whether one ledger holds this target's history, or machines keep ledgers of their own: then the target's own marks are
   * the history that policy is told, and a ledger that the target does not know yet joins with its first run.
   */
  readonly ledgers: "one" | "many";
  /** Of tables that only ever grow: how a row is reversed. */
  readonly reversals: Readonly<Record<string, Reversal>>;
  readonly mask: readonly MaskedColumn[];
  /** Columns that say whose a row is: a plan over several tenants is shown as odd. */
  readonly tenant: readonly MaskedColumn[];
  readonly protect: readonly ProtectedColumn[];
  /** What a rehearsal on the target may cost it; absent where nothing is said. */
  readonly rehearsal: RehearsalConfig;
  /** Columns of times, and how old the newest row of their table may be. */
  readonly newestRow: readonly NewestRow[];
  /** Tables whose new rows go out of the target: mail, webhooks, a queue. Nobody takes back what was sent. */
  readonly outbox: readonly string[];
  /** Totals that people know, with their unit, shown before and after. */
  readonly sums: readonly (MaskedColumn & { readonly unit: string })[];
  /** Another target of the file, whose database is a clone to rehearse on. */
  readonly rehearseOn: string | null;
  readonly checks: Readonly<Record<string, GuardCommand>>;
  readonly hooks: Readonly<Record<string, GuardCommand>>;
  /** Read beside a run, looked at before each of its batches. */
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

const pauseRule = z
  .strictObject({
    command: commandSchema().optional(),
    http: plainText().optional(),
    sql: plainText().optional(),
    lag: z.literal("own").optional(),
    timeout: durationSchema().optional(),
    pause_over: z.number().optional(),
    stop_over: z.number().optional(),
  })
  .superRefine((rule, context) => {
    const what = pauseFault(rule);
    if (what !== null) context.addIssue({ code: "custom", message: what });
  });

/** What the shape alone does not say of a pause rule; null when it is one. */
function pauseFault(rule: RawPause): string | null {
  const named = (["command", "http", "sql", "lag"] as const).filter((kind) => rule[kind] !== undefined);
  if (named.length !== 1) return "wants exactly one of command, http, sql, lag";
  const [kind] = named;
  if (rule.pause_over === undefined) {
    if (kind === "sql" || kind === "lag")
      return `${kind} wants pause_over: above which number the run pauses`;
    if (rule.stop_over !== undefined) return "stop_over wants pause_over beside it";
  } else if (rule.stop_over !== undefined && rule.stop_over < rule.pause_over)
    return "stop_over is below pause_over: the run would stop before it paused";
  return rule.http === undefined ? null : addressFault(rule.http);
}

/** A credential in the file would be everyone's, and would stand in every bundle. */
function addressFault(text: string): string | null {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:"))
    return "http wants an address that begins with http:// or https://";
  return url.username === "" && url.password === ""
    ? null
    : "http carries a user or password; give an address without";
}

interface RawPause {
  readonly command?: readonly string[] | undefined;
  readonly http?: string | undefined;
  readonly sql?: string | undefined;
  readonly lag?: "own" | undefined;
  readonly timeout?: number | undefined;
  readonly pause_over?: number | undefined;
  readonly stop_over?: number | undefined;
}

const urlText = z.string().superRefine((text, context) => {
  const what = text.trim() === "" ? "is empty" : urlFault(text);
  if (what !== null) context.addIssue({ code: "custom", message: what });
});

const reverseCell = z.union([
  z.string(),
  z.int(),
  z.null(),
  z.strictObject({ column: plainText() }),
  z.strictObject({ negate: plainText() }),
  z.strictObject({ next: z.literal(true) }),
]);

const growingTables = z.union([
  z.array(tableName()).min(1),
  z.record(
    tableName(),
    z.strictObject({
      reverse: z
        .record(plainText(), reverseCell)
        .refine((cells) => Object.keys(cells).length > 0, { error: "names no column" })
        .optional(),
    }),
  ),
]);

const targetSchema = z.strictObject({
  url: urlText,
  plan_url: urlText.optional(),
  environment: z.enum(ENVIRONMENTS).optional(),
  identity: plainText().optional(),
  foreign_keys: z.boolean().optional(),
  append_only: growingTables.optional(),
  ledgers: z.enum(["one", "many"]).optional(),
  mask: z.array(columnName()).min(1).optional(),
  tenant: z.array(columnName()).min(1).optional(),
  protect: z.record(columnName(), z.array(plainText()).min(1)).optional(),
  newest_row: z.record(columnName(), z.union([z.literal("any"), durationSchema()])).optional(),
  outbox: z.array(tableName()).min(1).optional(),
  sums: z
    .record(
      columnName(),
      plainText().refine((s) => s.length <= 16, { error: "is no unit: 16 characters at most" }),
    )
    .optional(),
  rehearse_on: nameSchema().optional(),
  rehearsal: z
    .strictObject({
      rows: z.int().min(1).optional(),
      wal_mb: z.int().min(1).optional(),
      replica_lag: durationSchema().optional(),
      lock_wait: durationSchema().optional(),
      statement: durationSchema().optional(),
    })
    .optional(),
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

type RawTarget = z.infer<typeof targetSchema>;

/** A second address that would separate nothing is a misunderstanding; null where it can. */
function planUrlFault(target: Pick<RawTarget, "url" | "plan_url">): string | null {
  if (target.plan_url === undefined) return null;
  if (/^sqlite:/i.test(target.url) || /^sqlite:/i.test(target.plan_url))
    return "names a second role, and an SQLite file has none";
  return target.plan_url === target.url ? "is the same address as url" : null;
}

/** How long a check or hook may take when nothing is said. */
const GUARD_TIMEOUT_SECONDS = 60;
/** How long a collector may take before its reading counts as none. */
const COLLECTOR_TIMEOUT_SECONDS = 5;

function rehearsalConfig(raw: NonNullable<RawTarget["rehearsal"]>): RehearsalConfig {
  return {
    ...(raw.rows === undefined ? {} : { rows: raw.rows }),
    ...(raw.wal_mb === undefined ? {} : { walMb: raw.wal_mb }),
    ...(raw.replica_lag === undefined ? {} : { replicaLagSeconds: raw.replica_lag }),
    ...(raw.lock_wait === undefined ? {} : { lockWaitSeconds: raw.lock_wait }),
    ...(raw.statement === undefined ? {} : { statementSeconds: raw.statement }),
  };
}

function targetConfig(name: string, raw: RawTarget): TargetConfig {
  return {
    name,
    url: raw.url,
    planUrl: raw.plan_url ?? null,
    environment: raw.environment ?? null,
    identity: raw.identity ?? null,
    foreignKeys: raw.foreign_keys ?? false,
    ...growing(raw.append_only ?? []),
    ledgers: raw.ledgers ?? "one",
    mask: (raw.mask ?? []).map(maskedColumn),
    tenant: (raw.tenant ?? []).map(maskedColumn),
    protect: Object.entries(raw.protect ?? {}).map(([name, values]) => ({ ...maskedColumn(name), values })),
    newestRow: Object.entries(raw.newest_row ?? {}).map(([name, within]) => ({
      ...maskedColumn(name),
      withinSeconds: within === "any" ? null : within,
    })),
    outbox: raw.outbox ?? [],
    sums: Object.entries(raw.sums ?? {}).map(([name, unit]) => ({ ...maskedColumn(name), unit })),
    rehearseOn: raw.rehearse_on ?? null,
    rehearsal: rehearsalConfig(raw.rehearsal ?? {}),
    checks: guardCommands(raw.checks ?? {}),
    hooks: guardCommands(raw.hooks ?? {}),
    pauseWhile: pauseRules(raw.pause_while ?? {}),
    snapshot: { level: raw.snapshot?.level ?? "rows", keepSeconds: raw.snapshot?.keep ?? null },
    trust: raw.trust === undefined ? null : { people: raw.trust.people, groups: raw.trust.groups ?? [] },
  };
}

function growing(raw: z.infer<typeof growingTables>): Pick<TargetConfig, "appendOnly" | "reversals"> {
  if (Array.isArray(raw)) return { appendOnly: raw, reversals: {} };
  const declared = Object.entries(raw).flatMap(([table, { reverse }]) =>
    reverse === undefined ? [] : [[table, reversalOf(reverse)] as const],
  );
  return { appendOnly: Object.keys(raw), reversals: Object.fromEntries(declared) };
}

function reversalOf(cells: Readonly<Record<string, z.infer<typeof reverseCell>>>): Reversal {
  return Object.fromEntries(
    Object.entries(cells).map(([column, cell]): [string, ReverseCell] => {
      if (cell === null || typeof cell === "string") return [column, { kind: "is", value: cell }];
      if (typeof cell === "number") return [column, { kind: "is", value: BigInt(cell) }];
      if ("next" in cell) return [column, { kind: "next" }];
      return [
        column,
        "column" in cell ? { kind: "column", name: cell.column } : { kind: "negate", name: cell.negate },
      ];
    }),
  );
}

/**
 * The configuration with the columns that policies mask beside its own, on every target. They are asked for when somebody
 * first asks what is masked: most commands show no values.
 */
export function withMasks(config: Config, masks: () => readonly string[]): Config {
  const targets = Object.entries(config.targets).map(([name, target]): readonly [string, TargetConfig] => [
    name,
    {
      ...target,
      get mask() {
        const own = new Set(target.mask.map((m) => `${m.table}.${m.column}`));
        return [...target.mask, ...masks().flatMap((m) => (own.has(m) ? [] : [maskedColumn(m)]))];
      },
    },
  ]);
  return { ...config, targets: Object.fromEntries(targets) };
}

/**
 * Refuses sums of columns that a policy masks.
 * @throws UsageError ERR_CONFIG_INVALID: the sum of one row is its value.
 */
export function refuseMaskedSums(config: Config, masks: readonly string[]): void {
  for (const [name, { sums }] of Object.entries(config.targets)) {
    const masked = sums.find((s) => masks.includes(`${s.table}.${s.column}`));
    if (masked === undefined) continue;
    throw new UsageError({
      code: "ERR_CONFIG_INVALID",
      message: `targets.${name}.sums: ${masked.table}.${masked.column} is masked by a policy`,
      why: "the sum of one row is its value",
      next: [{ actor: "anyone", text: "Take it out of sums, or out of the policy's mask." }],
    });
  }
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
        collector: collectorOf(rule),
        timeoutSeconds: rule.timeout ?? COLLECTOR_TIMEOUT_SECONDS,
        pauseOver: rule.pause_over ?? null,
        stopOver: rule.stop_over ?? null,
      },
    ]),
  );
}

function collectorOf(rule: RawPause): Collector {
  if (rule.http !== undefined) return { kind: "http", url: rule.http };
  if (rule.sql !== undefined) return { kind: "sql", sql: rule.sql };
  return rule.command === undefined ? { kind: "lag" } : { kind: "command", command: rule.command };
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
          ...collectorJson(r.collector),
          timeout_seconds: r.timeoutSeconds,
          pause_over: r.pauseOver === null ? null : String(r.pauseOver),
          stop_over: r.stopOver === null ? null : String(r.stopOver),
        },
      ]),
    );
  return {
    environment: target.environment,
    foreign_keys: target.foreignKeys,
    // That two roles are kept apart is guarded; the addresses differ from machine to machine, like `url`.
    ...(target.planUrl === null ? {} : { plan_url: true }),
    append_only: [...target.appendOnly].sort(),
    ...(target.ledgers === "one" ? {} : { ledgers: target.ledgers }),
    ...(Object.keys(target.reversals).length === 0 ? {} : { append_only_reverse: reversalsJson(target) }),
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
    ...(target.newestRow.length === 0
      ? {}
      : {
          newest_row: Object.fromEntries(
            target.newestRow.map((n) => [`${n.table}.${n.column}`, n.withinSeconds]),
          ),
        }),
    ...(target.outbox.length === 0 ? {} : { outbox: [...target.outbox].sort() }),
    ...(target.sums.length === 0
      ? {}
      : { sums: Object.fromEntries(target.sums.map((s) => [`${s.table}.${s.column}`, s.unit])) }),
    rehearse_on: target.rehearseOn,
    ...(Object.keys(target.rehearsal).length === 0 ? {} : { rehearsal: { ...target.rehearsal } }),
    checks: guards(target.checks),
    hooks: guards(target.hooks),
    snapshot: { level: target.snapshot.level, keep_seconds: target.snapshot.keepSeconds },
    ...(Object.keys(target.pauseWhile).length === 0 ? {} : { pause_while: pauses(target.pauseWhile) }),
    ...(target.trust === null
      ? {}
      : { trust: { people: target.trust.people, groups: [...target.trust.groups].sort() } }),
  };
}

function reversalsJson({ reversals }: TargetConfig): Json {
  const cellJson = (cell: ReverseCell): Json => {
    switch (cell.kind) {
      case "is":
        return typeof cell.value === "bigint" ? { integer: cell.value.toString() } : { is: cell.value };
      case "column":
        return { column: cell.name };
      case "negate":
        return { negate: cell.name };
      case "next":
        return { next: true };
    }
  };
  return Object.fromEntries(
    Object.entries(reversals).map(([table, cells]) => [
      table,
      Object.fromEntries(Object.entries(cells).map(([column, cell]) => [column, cellJson(cell)])),
    ]),
  );
}

function collectorJson(c: Collector): Record<string, Json> {
  switch (c.kind) {
    case "command":
      return { command: [...c.command] };
    case "http":
      return { http: c.url };
    case "sql":
      return { sql: c.sql };
    case "lag":
      return { lag: "own" };
  }
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
