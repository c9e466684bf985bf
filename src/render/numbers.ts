/** Numbers, shares and times as people read them. Data values are never put through these: they print exactly. */

/** `1204` as `1,204`. */
export function count(n: number | bigint): string {
  return String(n).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** `3 rows`, `1 row`; `plural(2, "entry", "entries")`. */
export function plural(n: number | bigint, one: string, many = `${one}s`): string {
  return `${count(n)} ${BigInt(n) === 1n ? one : many}`;
}

/**
 * `part` of `whole` in per cent: two decimals below 1, one above, none at 100. Never rounded to a limit it does not
 * reach: `0 %` and `100 %` are exact.
 * @returns `-` when there is no whole.
 */
export function share(part: number, whole: number): string {
  if (whole <= 0) return "-";
  if (part === 0) return "0 %";
  if (part === whole) return "100 %";
  const percent = (part / whole) * 100;
  if (percent < 0.01) return "under 0.01 %";
  if (percent > 99.9 && percent < 100) return "over 99.9 %";
  return `${percent.toFixed(percent < 1 ? 2 : 1)} %`;
}

/** Seconds of waiting: `0.4 s`, `41 s`, `1 min 52 s`, `2 h 5 min`. */
export function seconds(s: number): string {
  if (s < 10) return `${s.toFixed(1)} s`;
  const whole = Math.round(s);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** A stored time (`2026-11-24T14:38:44Z`) as `24 Nov 2026 14:38`, UTC, the day in two digits; anything else as it stands. */
export function when(at: string): string {
  const [, year, month, day, clock] = /^(\d{4})-(\d{2})-(\d{2})T(\d{2}:\d{2}):\d{2}Z$/.exec(at) ?? [];
  const name = MONTHS[Number(month) - 1];
  return name === undefined ? at : `${day} ${name} ${year} ${clock}`;
}

/** `3/7` style counts keep both sides readable: `1,516 of 2,526`. */
export function outOf(part: number, whole: number): string {
  return `${count(part)} of ${count(whole)}`;
}
