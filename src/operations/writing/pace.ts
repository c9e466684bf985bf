/**
 * How fast a run goes: a rate in rows per second, and what `collectors.ts` read beside it, looked at before every
 * batch.
 */
import { TargetError } from "../../base/errors.js";
import type { Examined } from "../judging/examine.js";
import type { Toolbox } from "../toolbox.js";
import { Collectors } from "./collectors.js";

/** How long one wait lasts before signals and readings are looked at again. */
const SLICE_MS = 200;
/** A pause that goes on for the same reason is told again after this time. */
const TELL_AGAIN_MS = 1_000;
/** A pause that lasts longer stops the run, which can be resumed: approvals and snapshots do not wait for ever. */
const LONGEST_PAUSE_MS = 3_600_000;

interface Place {
  readonly wave: number;
  readonly rows: number;
}

/** What a run is held to, and what its progress counts. */
export interface PaceLimits {
  readonly waves: number;
  readonly batches: number;
  readonly rows: number;
  readonly maxRowsPerSecond: number | null;
}

/** Holds a run to its pace. Close it in `finally`. */
export class Pacer {
  readonly #tools: Toolbox;
  readonly #collectors: Collectors;
  readonly #limits: PaceLimits;
  readonly #startedAt: number;
  #written = 0;
  /** Where the newest batch of this run ended. */
  #last: Place | null = null;
  /** Not before this time may the next batch begin. */
  #dueAt = 0;

  constructor(tools: Toolbox, examined: Examined, limits: PaceLimits) {
    this.#tools = tools;
    this.#collectors = new Collectors(tools, examined);
    this.#limits = limits;
    this.#startedAt = this.#now();
  }

  /** Ends the collectors. */
  async close(): Promise<void> {
    await this.#collectors.close();
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
    this.#last = place;
    const { maxRowsPerSecond } = this.#limits;
    if (maxRowsPerSecond !== null)
      this.#dueAt = Math.max(this.#dueAt, this.#now()) + (rows * 1000) / maxRowsPerSecond;
    this.#show(place, null, false);
  }

  /** A wave is written; one that was written before this run went on is not told again. */
  waveDone(wave: number): void {
    if (this.#last?.wave === wave) this.#show(this.#last, null, true);
  }

  async #pause(place: Place, stop: () => void): Promise<void> {
    const until = this.#now() + LONGEST_PAUSE_MS;
    let told = { why: "", at: 0 };
    for (let reading = this.#collectors.reading(); reading.kind !== "go";) {
      if (reading.kind === "stop") throw pausedTooFar(reading.why);
      if (reading.kind === "pause") {
        const { why } = reading;
        if (this.#now() > until) throw pausedTooFar(`${why}, for more than an hour`);
        if (why !== told.why || this.#now() - told.at >= TELL_AGAIN_MS) {
          told = { why, at: this.#now() };
          this.#show(place, why, false);
        }
      }
      await this.#tools.wait(SLICE_MS);
      stop();
      reading = this.#collectors.reading();
    }
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
      lagSeconds: this.#collectors.lagSeconds,
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
