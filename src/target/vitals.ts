/**
 * Signs of life: what a target in use cannot hide, and a copy that was put in its place lacks. An adapter reads them, this
 * page says what follows. They raise doubt and decide nothing: a quiet Sunday looks like a restored copy.
 */
import { parseStamp } from "../base/clock.js";
import type { Value } from "../changeset/value.js";
import type { Evidence } from "../environment/evidence.js";

/** A column whose largest value says how new a table's newest row is. */
export interface VitalColumn {
  readonly table: string;
  readonly column: string;
}

/** What a column's largest value says. */
export type Newest =
  | { readonly kind: "value"; readonly value: Value }
  /** Why there is none: no such table or column, no index that begins with it, no right to read it. */
  | { readonly kind: "not-read"; readonly why: string };

/** See the top. */
export interface Vitals {
  readonly sizeBytes: number;
  /** In the order of the columns that were asked about. */
  readonly newest: readonly Newest[];
  /** Facts that change when a server is promoted or restored, by name; kept at the pin and compared. */
  readonly history: Readonly<Record<string, string>>;
  /** Whether the engine tells a physical copy from its original, and by what, or why not. */
  readonly copies: { readonly kind: "told" | "undecidable"; readonly by: string };
  /** Further signals that this kind of target has. */
  readonly signals: readonly Evidence[];
}

/** What was noted of the vitals at the pin. */
export interface PinnedVitals {
  readonly sizeBytes: number;
  readonly history: Readonly<Record<string, string>>;
  readonly at: string;
}

/** A named time column, and how old its newest row may be; null for any age. */
export interface NewestRow extends VitalColumn {
  readonly withinSeconds: number | null;
}

/** Below this size a database says nothing by shrinking. */
const SMALLEST_PINNED_BYTES = 1_000_000;
/** A database that has less than a tenth of its pinned size is not the one that was pinned, or was emptied. */
const SHRUNK_TO = 10;

/**
 * The evidence that follows.
 *
 * | signal | agrees | contradicts (medium: the target counts as unproven) |
 * | --- | --- | --- |
 * | newest row of a named column | not older than its bound | older |
 * | size since the pin | at least a tenth | less than a tenth of 1 MB or more |
 * | history, as PostgreSQL's timeline | as at the pin | another: a failover, or a copy that was promoted; from here they look alike |
 *
 * What cannot be read or was not noted at the pin is absent or shown, and changes nothing. Whether the engine could tell a
 * physical copy at all is said each time.
 */
export function liveEvidence(args: {
  readonly vitals: Vitals;
  readonly newest: readonly NewestRow[];
  /** Null where nothing was noted. */
  readonly pinned: PinnedVitals | null;
  readonly now: Date;
}): readonly Evidence[] {
  const { vitals, pinned } = args;
  return [
    ...args.newest.map((column, i) => newestEvidence(column, vitals.newest[i], args.now)),
    ...(pinned === null ? [] : [sizeEvidence(vitals.sizeBytes, pinned)]),
    ...Object.entries(vitals.history).map(([name, now]) => historyEvidence(name, now, pinned)),
    informs("physical copy", copyInWords(vitals.copies)),
    ...vitals.signals,
  ];
}

function newestEvidence(column: NewestRow, newest: Newest | undefined, now: Date): Evidence {
  const source = `newest row of ${column.table}`;
  const name = `${column.table}.${column.column}`;
  const absent = (why: string): Evidence => medium(source, "absent", `not known: ${why}`);
  if (newest === undefined || newest.kind === "not-read") return absent(newest?.why ?? "not asked");
  if (newest.value === null) return absent(`${column.table} is empty`);
  const at = timeOfValue(newest.value);
  if (at === null) return absent(`${name} holds no time`);
  const seconds = Math.floor((now.getTime() - at) / 1000);
  const age = seconds < 0 ? "in the future" : `${ageInWords(seconds)} old`;
  const { withinSeconds } = column;
  if (withinSeconds === null) return informs(source, `${age} by ${name}`);
  const bound = `at most ${ageInWords(withinSeconds)} old`;
  if (seconds <= withinSeconds) return medium(source, "agrees", `${age} by ${name}, ${bound} expected`);
  return { ...medium(source, "contradicts", `by ${name}`), expected: bound, found: age };
}

function sizeEvidence(now: number, pinned: PinnedVitals): Evidence {
  const source = "size since the pin";
  const [found, expected] = [readableBytes(now), `${readableBytes(pinned.sizeBytes)} at the pin`];
  const detail = `${found}, ${expected}`;
  if (pinned.sizeBytes < SMALLEST_PINNED_BYTES || now * SHRUNK_TO >= pinned.sizeBytes)
    return medium(source, "agrees", detail);
  return { ...medium(source, "contradicts", detail), expected, found };
}

function historyEvidence(name: string, now: string, pinned: PinnedVitals | null): Evidence {
  const then = pinned !== null && Object.hasOwn(pinned.history, name) ? pinned.history[name] : undefined;
  const source = `${name} since the pin`;
  if (then === undefined) return informs(source, `${now}; nothing was noted at the pin`);
  if (then === now) return medium(source, "agrees", `${now}, as at the pin`);
  const detail = "a failover, or a copy that was promoted: from here they look alike";
  return { ...medium(source, "contradicts", detail), expected: then, found: now };
}

function copyInWords({ kind, by }: Vitals["copies"]): string {
  return kind === "told" ? `told apart by ${by}` : `cannot be told apart from here: ${by}`;
}

/** An agreement says nothing about which environment it is: other databases are as large and as new. */
function medium(source: string, state: Evidence["state"], detail: string): Evidence {
  return { source, side: "target", strength: "medium", says: null, state, detail };
}

function informs(source: string, detail: string): Evidence {
  return { source, side: "target", strength: "none", says: null, state: "informs", detail };
}

/** Seconds before year 5138, milliseconds after year 1973, microseconds beyond: numbers that mean a time of our days. */
const LARGEST_SECONDS = 100_000_000_000;
const LARGEST_MILLISECONDS = 100_000_000_000_000;

/**
 * The moment that a cell of a time column means, in milliseconds; null for what is none. A text without a zone is UTC,
 * as SQLite's own functions write it.
 */
export function timeOfValue(value: Value): number | null {
  if (typeof value === "bigint" || typeof value === "number") return timeOfNumber(Number(value));
  if (typeof value !== "string") return null;
  const [, date, time, zone = "Z"] =
    /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?))?\s?(Z|[+-]\d{2}(?::?\d{2})?)?$/i.exec(
      value.trim(),
    ) ?? [];
  if (date === undefined) return null;
  const stamped = parseStamp(value);
  if (stamped !== undefined) return stamped.getTime();
  const offset = /^[+-]\d{2}$/.test(zone)
    ? `${zone}:00`
    : zone.replace(/^([+-]\d{2})(\d{2})$/, "$1:$2").toUpperCase();
  const seconds = (time ?? "00:00").replace(/(\.\d{3})\d+$/, "$1");
  const at = Date.parse(`${date}T${seconds}${offset}`);
  return Number.isNaN(at) ? null : at;
}

function timeOfNumber(n: number): number | null {
  if (!Number.isFinite(n) || n <= 0) return null;
  if (n < LARGEST_SECONDS) return n * 1000;
  return n < LARGEST_MILLISECONDS ? n : n / 1000;
}

/** `40 s`, `12 min`, `3 h`, `6 d`: whole, rounded down. */
function ageInWords(seconds: number): string {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 2 * 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 2 * 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** `6.1 MB`, in thousands. */
export function readableBytes(bytes: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let [value, unit] = [bytes, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return unit === 0 ? `${value} bytes` : `${value.toFixed(1)} ${units[unit] ?? ""}`;
}
