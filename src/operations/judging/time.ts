/**
 * What time it is. Expiry is judged by the latest of this machine's clock, the target's own where it has one, the
 * ledger's last entry and the target's last mark, so that setting a clock back makes nothing valid again. A clock that cannot be right is refused before
 * anything is recorded under it: an entry from the far future would stand in everybody's way for good.
 */
import { CLOCK_SKEW_SECONDS } from "../../approval/count.js";
import { parseStamp, stamp } from "../../base/clock.js";
import { RefusedError } from "../../base/errors.js";
import { sharesTarget } from "../recall/history.js";
import type { Examined } from "./examine.js";
import type { LoadedPlan, Toolbox } from "../toolbox.js";

/**
 * How long ledger and target may have been silent before the host's clock is not believed any more. Nothing on a
 * machine without another clock tells a jump ahead from a long pause, so a year of silence takes two people.
 */
export const LONGEST_SILENCE_DAYS = 400;

/** The latest time that each side has seen. */
interface Seen {
  readonly at: Date;
  readonly where: string;
}

/**
 * The time by which everything on this target is judged.
 * @throws RefusedError ERR_APPROVAL_CLOCK (31) when the host and the target's own clock differ by more than the skew,
 *   when the host is behind the marks by more than it, or ahead of all of them by more than {@link LONGEST_SILENCE_DAYS}.
 */
export async function timeOf(tools: Toolbox, examined: Pick<Examined, "target" | "marker">): Promise<Date> {
  const host = tools.clock.now();
  const server = await serverTime(host, examined);
  const now = judged(host, latest(await seenBy(tools, examined)), examined.target.name);
  return server > now ? server : now;
}

/** The target's own clock, or the host's. Two clocks that are so far apart cannot both be right. */
async function serverTime(host: Date, { target }: Pick<Examined, "target">): Promise<Date> {
  const server = (await target.clock?.()) ?? host;
  const apart = Math.abs(server.getTime() - host.getTime()) / 1000;
  if (apart > CLOCK_SKEW_SECONDS) throw differ(host, server, target.name);
  return server;
}

/**
 * The time by which a plan is judged where its target cannot be read: the latest of host, ledger and the plan itself.
 * @throws RefusedError as {@link timeOf}.
 */
export async function timeUnseen(
  tools: Toolbox,
  { id, statement }: Pick<LoadedPlan, "id" | "statement">,
): Promise<Date> {
  const entry = (await tools.ledger()).lastAt();
  const marks = [...seen(entry, "the ledger's last entry"), ...seen(statement.created_at, `plan ${id}`)];
  return judged(tools.clock.now(), latest(marks), statement.target.name);
}

/** The host's time beside the last mark: the later of both, where the host can be right at all. */
function judged(host: Date, last: Seen | null, target: string): Date {
  if (last === null) return host;
  const aheadSeconds = (host.getTime() - last.at.getTime()) / 1000;
  if (aheadSeconds < -CLOCK_SKEW_SECONDS) throw behind(host, last);
  if (aheadSeconds > LONGEST_SILENCE_DAYS * 86_400) throw ahead(host, last, target);
  return aheadSeconds < 0 ? last.at : host;
}

/** The ledger's last entry covers every mark that a run left, because its head is anchored with them. */
async function seenBy(
  tools: Toolbox,
  examined: Pick<Examined, "target" | "marker">,
): Promise<readonly Seen[]> {
  const entry = (await tools.ledger()).lastAt();
  const notes = examined.marker === null ? [] : await examined.target.notes();
  const { name } = examined.target;
  // Runs of other machines stand in their ledgers, and here only as marks.
  const others =
    examined.marker !== null && sharesTarget(tools, name)
      ? (await examined.target.history({ job: "", since: stamp(tools.clock.now()) })).lastAt
      : null;
  return [
    ...seen(entry, "the ledger's last entry"),
    ...seen(examined.marker?.pinnedAt ?? null, `the pin of ${examined.target.name}`),
    ...seen(others, `the last run on ${name}`),
    ...notes.flatMap((n) => seen(n.at, `a note in ${examined.target.name}`)),
  ];
}

function seen(at: string | null, where: string): readonly Seen[] {
  const time = at === null ? undefined : parseStamp(at);
  return time === undefined ? [] : [{ at: time, where }];
}

function latest(all: readonly Seen[]): Seen | null {
  return all.reduce<Seen | null>((last, s) => (last === null || s.at > last.at ? s : last), null);
}

function behind(host: Date, last: Seen): RefusedError {
  return clockError(
    "this machine's clock is behind what has happened already",
    `it says ${stamp(host)}, and ${last.where} is of ${stamp(last.at)}; ${CLOCK_SKEW_SECONDS / 60} minutes are allowed`,
    [{ actor: "anyone", text: "Set this machine's clock right, then run the command again." }],
  );
}

function differ(host: Date, server: Date, target: string): RefusedError {
  return clockError(
    `this machine's clock and that of ${target} differ`,
    `it says ${stamp(host)}, and the server ${stamp(server)}; ${CLOCK_SKEW_SECONDS / 60} minutes are allowed`,
    [{ actor: "anyone", text: "Set the clock that is wrong right, then run the command again." }],
  );
}

function ahead(host: Date, last: Seen, target: string): RefusedError {
  return clockError(
    "this machine's clock is too far ahead to be believed",
    `it says ${stamp(host)}, and ${last.where} is of ${stamp(last.at)}, more than ${LONGEST_SILENCE_DAYS} days before`,
    [
      { actor: "anyone", text: "Set this machine's clock right, then run the command again." },
      { actor: "anyone", text: `If ${target} really rested so long, two people pin it again.` },
    ],
  );
}

function clockError(message: string, why: string, next: RefusedError["next"]): RefusedError {
  return new RefusedError({
    code: "ERR_APPROVAL_CLOCK",
    message,
    why,
    state: "Nothing was written, and nothing was recorded.",
    next,
  });
}
