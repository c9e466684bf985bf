/** One target of holdpoint.yaml: what it may say, and the type that it is read into. */
import * as z from "zod";
import { type Environment, ENVIRONMENTS } from "../environment/evidence.js";
import { columnName, durationSchema, nameSchema, tableName } from "./jobs-section.js";
import { urlFault } from "./target-url.js";
import { plainText } from "./yaml-file.js";
import {
  type GuardCommand,
  type PauseRule,
  guardCommand,
  guardCommands,
  pauseRule,
  pauseRules,
} from "./guard-sections.js";
import { type Reversal, growing, growingTables } from "./append-only-section.js";

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

const urlText = z.string().superRefine((text, context) => {
  const what = text.trim() === "" ? "is empty" : urlFault(text);
  if (what !== null) context.addIssue({ code: "custom", message: what });
});

/** What may stand under `targets.NAME`. */
export const targetSchema = z.strictObject({
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

/** One target as it is written. */
export type RawTarget = z.infer<typeof targetSchema>;

/** A second address that would separate nothing is a misunderstanding; null where it can. */
export function planUrlFault(target: Pick<RawTarget, "url" | "plan_url">): string | null {
  if (target.plan_url === undefined) return null;
  if (/^sqlite:/i.test(target.url) || /^sqlite:/i.test(target.plan_url))
    return "names a second role, and an SQLite file has none";
  return target.plan_url === target.url ? "is the same address as url" : null;
}

function rehearsalConfig(raw: NonNullable<RawTarget["rehearsal"]>): RehearsalConfig {
  return {
    ...(raw.rows === undefined ? {} : { rows: raw.rows }),
    ...(raw.wal_mb === undefined ? {} : { walMb: raw.wal_mb }),
    ...(raw.replica_lag === undefined ? {} : { replicaLagSeconds: raw.replica_lag }),
    ...(raw.lock_wait === undefined ? {} : { lockWaitSeconds: raw.lock_wait }),
    ...(raw.statement === undefined ? {} : { statementSeconds: raw.statement }),
  };
}

/** A target as it is used, with what is meant where nothing is said. */
export function targetConfig(name: string, raw: RawTarget): TargetConfig {
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

/** A column by its dotted name; a dot in the name of the table is the table's. */
export function maskedColumn(text: string): MaskedColumn {
  const dot = text.lastIndexOf(".");
  return { table: text.slice(0, dot), column: text.slice(dot + 1) };
}
