/** One line of progress, for a terminal that redraws it and for a log that keeps every one. */
import { type Paper, widthOf } from "./layout.js";
import { count, seconds } from "./numbers.js";

/** How far a run is. Totals come from the plan, so progress never passes 100 %. */
export interface WaveState {
  readonly wave: number;
  readonly waves: number;
  readonly rows: number;
  readonly ofRows: number;
  /** Rows a second over the last while; null before five seconds of it. */
  readonly rate: number | null;
  readonly lagSeconds: number | null;
  /** Why it waits: `lag 2.4 s`; null when it does not. */
  readonly paused: string | null;
  readonly checks: { readonly passed: number; readonly of: number } | null;
  readonly done: boolean;
}

/** Seconds left at this rate; null while that is not known. */
export function remaining(s: WaveState): number | null {
  return s.rate === null || s.rate <= 0 ? null : (s.ofRows - s.rows) / s.rate;
}

const BAR = 20;

/** The line that is redrawn on a terminal, at most as wide as the paper. */
export function barLine(s: WaveState, paper: Paper): string {
  const { barFull, barEmpty } = paper.palette.glyph;
  const part = s.ofRows === 0 ? 1 : Math.min(1, s.rows / s.ofRows);
  const full = Math.floor(part * BAR);
  const bar = barFull.repeat(full) + barEmpty.repeat(BAR - full);
  const left = remaining(s);
  const tail = tailWords(s, left);
  const facts = [`${Math.floor(part * 100)} %`, count(s.rows), rateWords(s), tail]
    .filter((f) => f !== "")
    .join("  ");
  const whole = `  wave ${s.wave}/${s.waves}  ${bar} ${facts}`;
  return widthOf(whole) <= paper.width
    ? whole
    : `  ${s.wave}/${s.waves} ${Math.floor(part * 100)} % ${tail}`.slice(0, paper.width);
}

function tailWords(s: WaveState, left: number | null): string {
  if (s.done) return "done";
  if (s.paused !== null) return `paused: ${s.paused}`;
  return `${left === null ? "--" : seconds(left)} left`;
}

function rateWords(s: WaveState): string {
  return s.rate === null ? "" : `${count(Math.round(s.rate))} rows/s`;
}

/** The line for a log, `key=value` as log readers like it: `14:38:54Z wave 3/3 rows=1116/2526 rate=84/s eta=17s`. */
export function logLine(s: WaveState, at: string): string {
  const clock = at.slice(11, 20);
  const left = remaining(s);
  const parts = [
    clock,
    `wave ${s.wave}/${s.waves}`,
    s.done ? "done" : "",
    s.paused === null ? "" : `paused reason="${s.paused}"`,
    `rows=${s.rows}/${s.ofRows}`,
    s.rate === null ? "" : `rate=${Math.round(s.rate)}/s`,
    left === null || s.done ? "" : `eta=${Math.ceil(left)}s`,
    s.lagSeconds === null ? "" : `lag=${s.lagSeconds.toFixed(1)}s`,
    s.checks === null ? "" : `checks=${s.checks.passed}/${s.checks.of}`,
  ];
  return parts.filter((p) => p !== "").join(" ");
}
