/** Moments on a wall clock, as freeze windows write them. */
import type { Freeze, LocalMoment } from "../policy/schema.js";

/** A Wednesday morning in winter: no change of clocks, no holiday. */
export const ORDINARY_MOMENT = "2026-01-14T10:00:00Z";

/** What a moment looks like, by recurrence. */
export const MOMENTS: Readonly<Record<Freeze["recurring"], string>> = {
  once: "a date and time as 2026-12-20 18:00",
  yearly: "a day of the year and a time as 12-20 18:00",
  weekly: "a day of the week and a time as fri 16:00",
  daily: "a time as 22:00",
};

const WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"] as const;

/** Null when the text is not a moment of that recurrence, or no day of any year that it must exist in. */
export function readMoment(text: string, recurring: Freeze["recurring"]): LocalMoment | null {
  const found = /^(?:(?:(\d{4})-)?(\d{2})-(\d{2}) |([a-z]{3}) )?(\d{2}):(\d{2})$/.exec(text);
  if (found === null) return null;
  const [, y, mo, d, w, h, mi] = found;
  const number = (s: string | undefined): number | null => (s === undefined ? null : Number(s));
  const weekday = WEEKDAYS.findIndex((name) => name === w) + 1;
  const moment: LocalMoment = {
    year: number(y),
    month: number(mo),
    day: number(d),
    weekday: w === undefined ? null : weekday,
    hour: Number(h),
    minute: Number(mi),
    text,
  };
  return moment.hour < 24 && moment.minute < 60 && fits(moment, recurring) ? moment : null;
}

function fits(m: LocalMoment, recurring: Freeze["recurring"]): boolean {
  switch (recurring) {
    case "once":
      return m.year !== null && isDay(m.year, m.month, m.day);
    case "yearly": // 29 February is no day of most years: a window on it would silently be missing
      return m.year === null && m.weekday === null && isDay(2001, m.month, m.day);
    case "weekly":
      return m.weekday !== null && m.weekday > 0;
    case "daily":
      return m.month === null && m.weekday === null;
  }
}

function isDay(year: number, month: number | null, day: number | null): boolean {
  if (month === null || day === null) return false;
  const at = new Date(Date.UTC(year, month - 1, day));
  return at.getUTCFullYear() === year && at.getUTCMonth() === month - 1 && at.getUTCDate() === day;
}

/** Orders moments of one recurrence. */
export function orderOf(m: LocalMoment): number {
  const day = (m.year ?? 0) * 500 + (m.month ?? 0) * 32 + (m.day ?? 0) + (m.weekday ?? 0);
  return day * 1440 + m.hour * 60 + m.minute;
}
