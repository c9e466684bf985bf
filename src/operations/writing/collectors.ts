/**
 * What a run waits for, read beside it: each collector asks at its own rhythm and leaves its last reading, and whoever
 * looks only folds what lies there. Above its first threshold a reading pauses the run, above its second it stops it;
 * none at all, or an old one, pauses too. Any one reason is enough, it is named, and nothing overrides it.
 */
import { HoldpointError, messageOf, TargetError } from "../../base/errors.js";
import type { Value } from "../../changeset/value.js";
import { type PauseRule, targetConfigOf } from "../../config/config.js";
import type { Examined } from "../judging/examine.js";
import type { Toolbox } from "../toolbox.js";
import { guardData } from "./wave-checks.js";

/** Rest between two readings of one collector. */
const EVERY_MS = 1_000;
const SLICE_MS = 100;
/** A reading older than this counts no more: a long batch may have kept its collector waiting. */
const FRESH_MS = 3_000;

/** On production a target that knows how far its copies are behind is waited for, whether or not anybody asked. */
const OWN_LAG: PauseRule = {
  collector: { kind: "lag" },
  timeoutSeconds: 5,
  pauseOver: 10,
  stopOver: null,
};

/** Why the run waits, or that it must stop. */
export type Reading =
  | { readonly kind: "go" }
  /** Nothing to say yet: a collector has not answered, and its time is not over. */
  | { readonly kind: "wait" }
  | { readonly kind: "pause"; readonly why: string }
  | { readonly kind: "stop"; readonly why: string };

/** What a collector gave: a number, only the news that it answers, or why there is nothing. */
type Answer =
  | { readonly kind: "number"; readonly value: number }
  | { readonly kind: "answers" }
  | { readonly kind: "none"; readonly why: string };

/** The rules that hold for a run: those of the configuration, and the target's own lag on production. */
export function pauseRulesFor(
  configured: Readonly<Record<string, PauseRule>>,
  of: { readonly isProduction: boolean; readonly knowsLag: boolean },
): Readonly<Record<string, PauseRule>> {
  const asked = Object.values(configured).some((rule) => rule.collector.kind === "lag");
  return asked || !of.isProduction || !of.knowsLag ? configured : { ...configured, "own lag": OWN_LAG };
}

/** What a reading means under its rule. */
export function meaningOf(name: string, rule: PauseRule, answer: Answer): Reading {
  if (answer.kind === "none") return { kind: "pause", why: `${name} cannot be read: ${answer.why}` };
  if (rule.pauseOver === null) return { kind: "go" };
  if (answer.kind === "answers") return { kind: "pause", why: `${name} gave no number` };
  const { value } = answer;
  if (rule.stopOver !== null && value > rule.stopOver)
    return { kind: "stop", why: `${name} is ${value}, and stops above ${rule.stopOver}` };
  return value > rule.pauseOver
    ? { kind: "pause", why: `${name} is ${value}, above ${rule.pauseOver}` }
    : { kind: "go" };
}

/** The collectors of one run. Close them in `finally`. */
export class Collectors {
  readonly #tools: Toolbox;
  readonly #examined: Examined;
  readonly #rules: readonly (readonly [string, PauseRule])[];
  readonly #latest = new Map<string, { readonly reading: Reading; readonly at: number }>();
  readonly #ending = new AbortController();
  readonly #startedAt: number;
  readonly #loops: readonly Promise<void>[];
  #lag: number | null = null;

  constructor(tools: Toolbox, examined: Examined) {
    this.#tools = tools;
    this.#examined = examined;
    this.#rules = rulesOf(tools, examined);
    this.#startedAt = this.#now();
    this.#loops = this.#rules.map(([name, rule]) => this.#keep(name, rule));
  }

  /** Seconds by which the target's copies are behind, as last read; null where nobody knows. */
  get lagSeconds(): number | null {
    return this.#lag;
  }

  /** Folds what the collectors left; asks nothing. */
  reading(): Reading {
    let worst: Reading = { kind: "go" };
    for (const [name, rule] of this.#rules) {
      const reading = this.#of(name, rule);
      if (reading.kind === "stop") return reading;
      if (reading.kind === "pause" && worst.kind !== "pause") worst = reading;
      if (reading.kind === "wait" && worst.kind === "go") worst = reading;
    }
    return worst;
  }

  /** Ends every collector, those under way too. */
  async close(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#loops);
  }

  #of(name: string, rule: PauseRule): Reading {
    const last = this.#latest.get(name);
    const since = this.#now() - (last?.at ?? this.#startedAt);
    if (last !== undefined && since <= FRESH_MS) return last.reading;
    const patience = rule.timeoutSeconds * 1_000 + FRESH_MS;
    return since <= patience
      ? { kind: "wait" }
      : { kind: "pause", why: `${name} has not answered for ${Math.round(since / 1_000)} s` };
  }

  async #keep(name: string, rule: PauseRule): Promise<void> {
    while (!this.#ending.signal.aborted) {
      const reading = meaningOf(name, rule, await this.#ask(name, rule));
      this.#latest.set(name, { reading, at: this.#now() });
      for (let waited = 0; waited < EVERY_MS && !this.#ending.signal.aborted; waited += SLICE_MS)
        await this.#tools.wait(SLICE_MS);
    }
  }

  async #ask(name: string, rule: PauseRule): Promise<Answer> {
    const { collector, timeoutSeconds } = rule;
    const { target } = this.#examined;
    const { signal } = this.#ending;
    try {
      switch (collector.kind) {
        case "command": {
          const data = { ...guardData(null, this.#examined), HOLDPOINT_COLLECTOR: name };
          const program = { command: collector.command, timeoutSeconds };
          return printed(await this.#tools.guard(program, data, signal), rule);
        }
        case "http":
          return printed(await this.#tools.readAddress(collector.url, timeoutSeconds, signal), rule);
        case "sql":
          return numberOf((await target.ask?.(collector.sql, timeoutSeconds * 1_000)) ?? null);
        case "lag": {
          this.#lag = (await target.lagSeconds?.()) ?? null;
          return { kind: "number", value: this.#lag ?? 0 }; // nothing follows it, so nothing is behind
        }
      }
    } catch (e) {
      return { kind: "none", why: e instanceof HoldpointError ? (e.why ?? e.message) : messageOf(e) };
    }
  }

  #now(): number {
    return this.#tools.clock.now().getTime();
  }
}

/** A program or an address that says nothing but "well" is enough where the rule names no number. */
function printed(outcome: Awaited<ReturnType<Toolbox["guard"]>>, rule: PauseRule): Answer {
  if (outcome.kind !== "passed") return { kind: "none", why: outcome.why };
  return rule.pauseOver === null ? { kind: "answers" } : numberIn(outcome.output.trim());
}

function numberIn(text: string): Answer {
  return /^-?\d{1,15}(\.\d{1,15})?$/.test(text)
    ? { kind: "number", value: Number(text) }
    : { kind: "answers" };
}

/** A pause decides over a number that was meant as one: NULL is no number, and text only if it reads as one. */
function numberOf(value: Value): Answer {
  if (typeof value === "bigint") return { kind: "number", value: Number(value) };
  if (typeof value === "number" && Number.isFinite(value)) return { kind: "number", value };
  return typeof value === "string" ? numberIn(value) : { kind: "answers" };
}

function rulesOf(tools: Toolbox, { target, verdict }: Examined): readonly (readonly [string, PauseRule])[] {
  const rules = pauseRulesFor(targetConfigOf(tools.project.config, target.name).pauseWhile, {
    isProduction: verdict.guardedAs === "production",
    knowsLag: target.lagSeconds !== undefined,
  });
  return Object.entries(rules);
}

/**
 * Refuses a run that would wait for what its target cannot tell, before anything else of it begins.
 * @throws TargetError ERR_TARGET_UNSUPPORTED
 */
export function requireTold(tools: Toolbox, examined: Examined): void {
  for (const [name, rule] of rulesOf(tools, examined)) refuseUntold(examined, name, rule);
}

function refuseUntold({ target }: Examined, name: string, { collector }: PauseRule): void {
  const missing =
    (collector.kind === "sql" && target.ask === undefined) ||
    (collector.kind === "lag" && target.lagSeconds === undefined);
  if (!missing) return;
  throw new TargetError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `pause_while ${name} asks ${target.name} for what it cannot tell`,
    why:
      collector.kind === "lag"
        ? `the ${target.adapter} adapter knows no lag of its own; name a command, an http address or an sql question`
        : `the ${target.adapter} adapter answers no question in SQL beside a run`,
  });
}
