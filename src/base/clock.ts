/** Time and randomness arrive as arguments: nothing below `cli/wiring.ts` asks the machine for them. */

/** Tells the time. Tests pass a fixed one. */
export interface Clock {
  readonly now: () => Date;
}

/** Random bytes of cryptographic quality. */
export type Random = (size: number) => Uint8Array;

/** The stored form of an instant: ISO 8601, UTC, whole seconds, `2026-11-24T14:38:44Z`. */
export function stamp(at: Date): string {
  return `${at.toISOString().slice(0, 19)}Z`;
}

/** Reads the stored form back; undefined when it is not exactly that form or not a real instant. */
export function parseStamp(text: string): Date | undefined {
  if (!/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/.test(text)) return undefined;
  const at = new Date(text);
  return Number.isNaN(at.getTime()) || stamp(at) !== text ? undefined : at;
}

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };

/**
 * Reads a duration as people type it: `90s`, `30m`, `48h`, `7d`, `2w`, or several parts `1h30m`.
 * @returns whole seconds, more than zero; undefined for anything else (no unit, zero, a sign, a fraction).
 */
export function parseDuration(text: string): number | undefined {
  if (!/^(\d+[smhdw])+$/.test(text)) return undefined;
  let seconds = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+)([smhdw])/g)) {
    seconds += Number(amount) * (UNIT_SECONDS[unit ?? ""] ?? Number.NaN);
  }
  return Number.isSafeInteger(seconds) && seconds > 0 ? seconds : undefined;
}

/** A duration in the shortest exact words of {@link parseDuration}: `5400` becomes `1h30m`. */
export function formatDuration(seconds: number): string {
  let rest = Math.max(0, Math.round(seconds));
  let text = "";
  for (const [unit, size] of [
    ["d", 86_400],
    ["h", 3600],
    ["m", 60],
    ["s", 1],
  ] as const) {
    const amount = Math.floor(rest / size);
    if (amount > 0) text += `${amount}${unit}`;
    rest -= amount * size;
  }
  return text === "" ? "0s" : text;
}
