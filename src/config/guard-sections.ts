/**
 * What holdpoint starts or asks itself around a run: checks, hooks, and the readings that a run waits for. Each is an
 * argument array, an address or a question, held by the trust bundle.
 */
import * as z from "zod";
import { commandSchema, durationSchema } from "./jobs-section.js";
import { plainText } from "./yaml-file.js";

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

/** A check or a hook as it is written. */
export const guardCommand = z.strictObject({
  command: commandSchema(),
  timeout: durationSchema().optional(),
});

/** A reading to wait for, as it is written. */
export const pauseRule = z
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

/** How long a check or hook may take when nothing is said. */
const GUARD_TIMEOUT_SECONDS = 60;
/** How long a collector may take before its reading counts as none. */
const COLLECTOR_TIMEOUT_SECONDS = 5;

/** `pause_while` as it is used; what the schema let through. */
export function pauseRules(raw: Readonly<Record<string, RawPause>>): Readonly<Record<string, PauseRule>> {
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

/** `checks` and `hooks` as they are used. */
export function guardCommands(
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
