/**
 * How fast a run goes: a rate in rows per second, and the collectors that the trust bundle names, asked before
 * every batch. A collector prints one number; above its first threshold the run pauses, above its second it stops.
 * One that cannot be read pauses too. Any one reason is enough, it is named, and nothing overrides it.
 */
import { TargetError } from "../../base/errors.js";
import type { PauseRule } from "../../config/config.js";
import { targetConfigOf } from "../../config/config.js";
import type { Examined } from "../judging/examine.js";
import type { Toolbox } from "../toolbox.js";
import { guardData } from "./wave-checks.js";

/** How long one wait lasts before signals and collectors are asked again. */
const SLICE_MS = 200;
const ASK_AGAIN_MS = 1_000;
/** A pause that lasts longer stops the run, which can be resumed: approvals and snapshots do not wait for ever. */
const LONGEST_PAUSE_MS = 3_600_000;

interface Place {
  readonly wave: number;
  readonly rows: number;
}

/** Why the run waits, or that it must stop. */
type Reading =
  | { readonly kind: "go" }
  | { readonly kind: "pause"; readonly why: string }
  | { readonly kind: "stop"; readonly why: string };

/** What a run is held to, and what its progress counts. */
export interface PaceLimits {
  readonly waves: number;
  readonly batches: number;
  readonly rows: number;
  readonly maxRowsPerSecond: number | null;
}

/** Holds a run to its pace. */
export class Pacer {
  readonly #tools: Toolbox;
  readonly #examined: Examined;
  readonly #limits: PaceLimits;
  readonly #startedAt: number;
  #written = 0;
  /** Not before this time may the next batch begin. */
  #dueAt = 0;

  constructor(tools: Toolbox, examined: Examined, limits: PaceLimits) {
    this.#tools = tools;
    this.#examined = examined;
    this.#limits = limits;
    this.#startedAt = this.#now();
  }

  /** Waits until the next batch may begin. `stop` is asked all the while and throws. */
  async before(place: Place, stop: () => void): Promise<void> {
    await this.#pause(place, stop);
    while (this.#now() < this.#dueAt) {
      await this.#tools.wait(Math.min(SLICE_MS, this.#dueAt - this.#now()));
      stop();
    }
  }

  /** A batch of so many rows is committed. */
  wrote(place: Place, rows: number): void {
    this.#written += rows;
    const { maxRowsPerSecond } = this.#limits;
    if (maxRowsPerSecond !== null)
      this.#dueAt = Math.max(this.#dueAt, this.#now()) + (rows * 1000) / maxRowsPerSecond;
    this.#show(place, null, false);
  }

  /** A wave is written. */
  waveDone(wave: number): void {
    if (wave === this.#limits.waves && this.#written > 0)
      this.#show({ wave, rows: this.#limits.rows }, null, true);
  }

  async #pause(place: Place, stop: () => void): Promise<void> {
    const until = this.#now() + LONGEST_PAUSE_MS;
    for (let reading = await this.#read(); reading.kind !== "go"; reading = await this.#read()) {
      if (reading.kind === "stop") throw pausedTooFar(reading.why);
      if (this.#now() > until) throw pausedTooFar(`${reading.why}, for more than an hour`);
      this.#show(place, reading.why, false);
      for (let waited = 0; waited < ASK_AGAIN_MS; waited += SLICE_MS) {
        await this.#tools.wait(SLICE_MS);
        stop();
      }
    }
  }

  async #read(): Promise<Reading> {
    const rules = targetConfigOf(this.#tools.project.config, this.#examined.target.name).pauseWhile;
    let worst: Reading = { kind: "go" };
    for (const [name, rule] of Object.entries(rules)) {
      const reading = await this.#readOne(name, rule);
      if (reading.kind === "stop") return reading;
      if (worst.kind === "go") worst = reading;
    }
    return worst;
  }

  async #readOne(name: string, rule: PauseRule): Promise<Reading> {
    const outcome = await this.#tools.guard(rule, {
      ...guardData(null, this.#examined),
      HOLDPOINT_COLLECTOR: name,
    });
    if (outcome.kind !== "passed") return { kind: "pause", why: `${name} cannot be read: ${outcome.why}` };
    const text = outcome.output.trim();
    const value = /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
    if (Number.isNaN(value)) return { kind: "pause", why: `${name} printed no number` };
    if (rule.stopOver !== null && value > rule.stopOver)
      return { kind: "stop", why: `${name} is ${value}, and stops above ${rule.stopOver}` };
    if (value > rule.pauseOver) return { kind: "pause", why: `${name} is ${value}, above ${rule.pauseOver}` };
    return { kind: "go" };
  }

  #show(place: Place, paused: string | null, done: boolean): void {
    // One transaction is over before a bar would tell anything.
    if (this.#limits.batches === 1 && paused === null) return;
    const seconds = (this.#now() - this.#startedAt) / 1000;
    this.#tools.progress.wave({
      wave: place.wave,
      waves: this.#limits.waves,
      rows: place.rows,
      ofRows: this.#limits.rows,
      rate: seconds < 5 ? null : this.#written / seconds,
      lagSeconds: null,
      paused,
      checks: null,
      done,
    });
  }

  #now(): number {
    return this.#tools.clock.now().getTime();
  }
}

function pausedTooFar(why: string): TargetError {
  return new TargetError({
    code: "ERR_TARGET_BUSY",
    message: "the target is too busy for this run",
    why,
    next: [{ actor: "anyone", text: "Run the command again when it has calmed down." }],
  });
}
