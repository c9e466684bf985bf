/**
 * Freeze windows on the clock of a named zone. Both ends are computed there for the dates around the
 * moment asked about, so a change of clocks moves neither. An hour that does not exist on its day is taken
 * as the moment after the gap; an hour that exists twice is its first.
 */
import { DateTime, IANAZone } from "luxon";
import { type Check, follow, NOTHING_ASKED, passes } from "./finding.js";
import { type Freeze, lineOf, type LocalMoment } from "./schema.js";

/** A closed stretch of time: from `from` up to but not including `to`. */
export interface FreezeWindow {
  readonly from: Date;
  readonly to: Date;
}

/** Whether luxon knows the zone by this IANA name. */
export function isZone(zone: string): boolean {
  return zone !== "" && IANAZone.isValidZone(zone);
}

/**
 * The window that `at` lies in; null when the freeze is open then.
 * @throws RangeError when an end cannot be computed; the caller denies.
 */
export function windowAt(freeze: Freeze, at: Date): FreezeWindow | null {
  return windowsAround(freeze, at).find((w) => w.from <= at && at < w.to) ?? null;
}

/** The windows that begin near `at`: every one that could contain it, and the next. */
export function windowsAround(freeze: Freeze, at: Date): FreezeWindow[] {
  const here = DateTime.fromJSDate(at, { zone: freeze.zone });
  return beginnings(freeze, here).map((from) => ({
    from: from.toJSDate(),
    to: endAfter(freeze, from).toJSDate(),
  }));
}

/** The check of one freeze. An effect that changes nothing may pass through a closed window. */
export function freezeCheck(freeze: Freeze): Check {
  const at = lineOf(freeze.at);
  return {
    rule: freeze.id,
    at,
    run: (facts) => {
      const { input } = facts;
      const seen = { rule: freeze.id, at, because: freeze.because };
      const window = windowAt(freeze, input.now);
      const now = wallClock(input.now, freeze.zone);
      if (window === null) return passes({ ...seen, saw: `${now} is outside the window`, flips: "" });
      if (input.rows.total === 0n && input.schemaChanges === 0n && input.sequences === 0n)
        return passes({ ...seen, saw: "nothing would change", flips: "" });
      const saw = `${now} is inside ${freeze.from.text} to ${freeze.to.text}`;
      const flips = `from ${wallClock(window.to, freeze.zone)} on`;
      const { approvals } = freeze;
      if (approvals.length === 0) return follow({ kind: "deny" }, { ...seen, saw, flips }, facts);
      return follow(
        { kind: "require", asked: { ...NOTHING_ASKED, approvals } },
        { ...seen, saw, flips },
        facts,
      );
    },
  };
}

function beginnings(freeze: Freeze, near: DateTime): DateTime[] {
  const { from } = freeze;
  switch (freeze.recurring) {
    case "once":
      return [moment(from, freeze.zone, from.year)];
    case "yearly":
      return [-1, 0, 1].map((d) => moment(from, freeze.zone, near.year + d));
    case "weekly":
      return [-1, 0, 1].map((d) => weekly(from, freeze.zone, near.plus({ weeks: d })));
    case "daily":
      return [-1, 0, 1].map((d) => onDay(from, freeze.zone, near.plus({ days: d })));
  }
}

function endAfter(freeze: Freeze, from: DateTime): DateTime {
  const { to } = freeze;
  switch (freeze.recurring) {
    case "once":
      return moment(to, freeze.zone, to.year);
    case "yearly":
      return firstAfter(
        from,
        [0, 1].map((d) => moment(to, freeze.zone, from.year + d)),
      );
    case "weekly":
      return firstAfter(
        from,
        [0, 1].map((d) => weekly(to, freeze.zone, from.plus({ weeks: d }))),
      );
    case "daily":
      return firstAfter(
        from,
        [0, 1].map((d) => onDay(to, freeze.zone, from.plus({ days: d }))),
      );
  }
}

function firstAfter(from: DateTime, ends: readonly DateTime[]): DateTime {
  const end = ends.find((e) => e.toMillis() > from.toMillis());
  if (end === undefined) throw new RangeError("the freeze has no end after its beginning");
  return end;
}

function moment(m: LocalMoment, zone: string, year: number | null): DateTime {
  if (year === null || m.month === null || m.day === null) throw new RangeError(`${m.text} has no date`);
  return valid(
    DateTime.fromObject({ year, month: m.month, day: m.day, hour: m.hour, minute: m.minute }, { zone }),
    m,
  );
}

function weekly(m: LocalMoment, zone: string, week: DateTime): DateTime {
  if (m.weekday === null) throw new RangeError(`${m.text} has no day of the week`);
  const day = week.startOf("week").plus({ days: m.weekday - 1 });
  return onDay(m, zone, day);
}

function onDay(m: LocalMoment, zone: string, day: DateTime): DateTime {
  const { year, month } = day;
  return valid(
    DateTime.fromObject({ year, month, day: day.day, hour: m.hour, minute: m.minute }, { zone }),
    m,
  );
}

function valid(at: DateTime, m: LocalMoment): DateTime {
  if (!at.isValid) throw new RangeError(`${m.text}: ${at.invalidExplanation ?? "not a moment"}`);
  return at;
}

/** `Thu 24 Dec 2026 12:05 Europe/Paris`. */
function wallClock(at: Date, zone: string): string {
  return `${DateTime.fromJSDate(at, { zone }).setLocale("en-GB").toFormat("ccc d LLL yyyy HH:mm")} ${zone}`;
}
