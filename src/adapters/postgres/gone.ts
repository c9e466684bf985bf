/**
 * Which rows a job took away: those that others see and its own session does not. Read in groups by their `xmax`, because
 * nearly always one number stands for all of them, so no list of places has to be held or asked about one by one.
 *
 * | step | session | what |
 * | --- | --- | --- |
 * | 0 | fresh | where no transaction but the job's can still be in progress under a number that a savepoint of the job could have, that number alone is looked for, and steps 1, 3 and 4 are left out |
 * | 1 | outside | candidates, counted by `xmax`: a superset of the job's |
 * | 2 | job | candidates that it still sees were only locked, or touched by somebody else |
 * | 3 | outside, job, fresh | a number under which the job misses a row, and that others hold to be in progress, is the job's: what somebody else has not committed hides nothing from it |
 * | 4 | outside, job, fresh | numbers that may be a multixact's, and small groups of many: each place is asked for |
 *
 * Rows that another session deleted between 1 and 2 have an `xmax` that is not in progress any more.
 */
import { codeOf } from "../../base/errors.js";
import type { Beginning, Views } from "./capture.js";
import type { Session } from "./driver.js";
import { literal } from "./names.js";
import { tableAs, type PageRange } from "./pages.js";
import { placeNumber, placesSeen } from "./places.js";
import type { Storage } from "./schema.js";

/** The rows that went away. */
export interface Gone {
  /** Null where they were not counted before they are read. */
  readonly count: number | null;
  /** SQL that holds for each of them, and for some others, in terms of `t`. */
  readonly condition: string;
  /** Whether a row that was read by that condition is one of them. */
  readonly has: (xmax: string, place: number) => boolean | Promise<boolean>;
}

/** The rows that went away, counted. */
export type Counted = Gone & { readonly count: number };

/** Numbers that are looked at as a group; of more the small ones are looked at place by place. */
const MOST_GROUPS = 16;
/** Rows of a group of which one that the job does not see is looked for first. */
const SAMPLE = 1_000;

/** Transaction numbers that are asked about, at most, before groups are looked at instead. */
const MOST_NUMBERS = 1_000;

/** Where nothing went away. */
export const NOTHING: Counted = { count: 0, condition: "false", has: () => false };

/**
 * Finds them without counting, where they can only have the job's own number. Null where they may have others.
 *
 * A version that the job took away, in its transaction itself, carries the transaction's number, or since a moment ago that
 * of a multixact in which it is the one who changed the row. Savepoints have numbers of their own, but later ones than the
 * job's and earlier ones than a number that is given out now that the job is done; and until the job is rolled back they are
 * in progress, unless they were rolled back themselves, and then took nothing away. So where each number in between has
 * ended, or is held by another session, there is nothing but the job's own.
 */
export async function findOwnGone(
  views: Views,
  beginning: Beginning,
  storage: Storage,
): Promise<Gone | null> {
  const { job, fresh } = views;
  if (!(await isAlone(fresh, job.backend, beginning))) return null;
  const own = xidOf(beginning);
  const condition = `t.xmax <> 0 AND (t.xmax = ${literal(own)}::xid
    OR mxid_age(t.xmax) BETWEEN 0 AND (SELECT mxid_age(${literal(beginning.multixact)}::xid)))`;
  const seen = await placesWhere(job, `${storage.from} AS t`, condition);
  const members = new Members(fresh, new Set([own]));
  return {
    count: null,
    condition,
    has: (xmax, place) => !seen.has(place) && (xmax === own || members.isOwn(xmax)),
  };
}

async function isAlone(fresh: Session, backend: string, beginning: Beginning): Promise<boolean> {
  const { transaction, multixact } = beginning;
  // A snapshot's own end will not do: it is the number after the last that has ended, and savepoints may be beyond it.
  const next = BigInt((await fresh.value("SELECT pg_current_xact_id()")) ?? "0");
  if (next <= transaction || next - transaction > MOST_NUMBERS) return false;
  const own = literal(xidOf(beginning));
  // Whoever waits for a number may hold a shared lock on it for a moment; only its owner has the exclusive one.
  const [others, mayBeMulti] =
    (await fresh.row(
      `SELECT EXISTS (
           SELECT 1 FROM generate_series(${transaction + 1n}::bigint, ${next - 1n}::bigint) AS n
           WHERE coalesce(pg_xact_status(n::text::xid8), '') NOT IN ('committed', 'aborted') AND NOT EXISTS (
             SELECT 1 FROM pg_locks l WHERE l.locktype = 'transactionid' AND l.granted AND l.mode = 'ExclusiveLock'
               AND l.pid IS DISTINCT FROM ${literal(backend)}::integer AND l.transactionid::text = (n % 4294967296)::text)),
         mxid_age(${own}::xid) BETWEEN 0 AND mxid_age(${literal(multixact)}::xid)`,
    )) ?? [];
  return others === "f" && mayBeMulti === "f";
}

function xidOf({ transaction }: Beginning): string {
  return String(BigInt.asUintN(32, transaction));
}

async function placesWhere(session: Session, table: string, condition: string): Promise<ReadonlySet<number>> {
  const places = new Set<number>();
  for await (const [place] of session.copy(`SELECT t.ctid FROM ${table} WHERE ${condition}`))
    places.add(placeNumber(place));
  return places;
}

/** Finds and counts them. `outside` holds a snapshot that is later than the job. */
export async function findGone(
  views: Views,
  beginning: Beginning,
  storage: Storage,
  pages: readonly PageRange[] | null,
): Promise<Counted> {
  const { job, outside, fresh } = views;
  const table = tableAs(storage, pages);
  const touched = touchedBy(beginning);
  const groups = await groupsIn(outside, table, touched, beginning);
  if (groups.length === 0) return NOTHING;
  const seen = await placesWhere(job, table, touched);
  const [large, rest] = split(groups);
  const own: Group[] = [];
  for (const group of large) if (await isJobs(views, beginning, storage, table, group)) own.push(group);
  const single = await onePlaceAtATime(views, storage, table, rest);
  const numbers = new Set(own.map((g) => g.xmax));
  const members = new Members(fresh, numbers);
  return {
    count:
      own.reduce((sum, g) => sum + g.count, single.size) - (await countSeen(outside, storage, numbers, seen)),
    condition: touched,
    has: (xmax, place) => {
      if (single.has(place)) return true;
      if (seen.has(place)) return false;
      // A row of the job's that somebody locks meanwhile (a new reference to it) gets a multixact in place of its number.
      return numbers.has(xmax) || members.isOwn(xmax);
    },
  };
}

interface Group {
  readonly xmax: string;
  readonly count: number;
  /** As a transaction's number it is the job's or a later one. */
  readonly isYounger: boolean;
  /** As a multixact's number it is one that was made since the job began. */
  readonly mayBeMulti: boolean;
}

/** Rows whose `xmax` may be the job's, as a transaction or inside a multixact. Ages are asked once, not for every row. */
function touchedBy(beginning: Beginning): string {
  const { multixact } = beginning;
  const xid = literal(xidOf(beginning));
  return `t.xmax <> 0 AND (age(t.xmax) <= (SELECT age(${xid}::xid))
      OR mxid_age(t.xmax) BETWEEN 0 AND (SELECT mxid_age(${literal(multixact)}::xid)))`;
}

async function groupsIn(
  outside: Session,
  table: string,
  touched: string,
  beginning: Beginning,
): Promise<readonly Group[]> {
  const { multixact } = beginning;
  const xid = literal(xidOf(beginning));
  const rows = await outside.rows(
    `SELECT g.xmax, g.n, age(g.xmax) <= age(${xid}::xid),
       mxid_age(g.xmax) BETWEEN 0 AND mxid_age(${literal(multixact)}::xid)
     FROM (SELECT t.xmax, count(*) AS n FROM ${table} WHERE ${touched} GROUP BY 1) AS g`,
  );
  return rows.map(([xmax, count, isYounger, mayBeMulti]) => ({
    xmax: xmax ?? "",
    count: Number(count),
    isYounger: isYounger === "t",
    mayBeMulti: mayBeMulti === "t",
  }));
}

/** The largest groups, and the numbers of those that are looked at place by place. */
function split(groups: readonly Group[]): readonly [readonly Group[], readonly string[]] {
  const certain = groups.filter((g) => g.isYounger && !g.mayBeMulti).sort((a, b) => b.count - a.count);
  const large = certain.slice(0, MOST_GROUPS);
  return [large, groups.filter((g) => !large.includes(g)).map((g) => g.xmax)];
}

async function isJobs(
  { job, outside, fresh }: Views,
  beginning: Beginning,
  storage: Storage,
  table: string,
  { xmax, count }: Group,
): Promise<boolean> {
  if (xmax === xidOf(beginning)) return true;
  const { transaction } = beginning;
  for (const most of [SAMPLE, count]) {
    const sql = `SELECT t.ctid FROM ${table} WHERE t.xmax = ${literal(xmax)}::xid LIMIT ${most}`;
    const places = (await outside.rows(sql)).map(([place]) => placeNumber(place));
    let seen = 0;
    for await (const _ of placesSeen(job, storage, places, "ctid")) seen++;
    // Asked last: what is in progress now was so when the job missed the row.
    if (seen < places.length) return await new Writers(fresh, transaction).isOpen(xmax);
    if (count <= most) return false;
  }
  return false;
}

/** Rows that a transaction of the job's has locked and not taken. */
async function countSeen(
  outside: Session,
  storage: Storage,
  own: ReadonlySet<string>,
  seen: ReadonlySet<number>,
): Promise<number> {
  if (own.size === 0 || seen.size === 0) return 0;
  let count = 0;
  for await (const xmax of placesSeen(outside, storage, [...seen], "xmax")) if (own.has(xmax)) count++;
  return count;
}

/** The exact way, place by place: not seen by the job, and seen by others afterwards. */
async function onePlaceAtATime(
  { job, outside, fresh }: Views,
  storage: Storage,
  table: string,
  numbers: readonly string[],
): Promise<ReadonlySet<number>> {
  const left = new Set<number>();
  if (numbers.length === 0) return left;
  const places = new Set<number>();
  const sql = `SELECT t.ctid FROM ${table} WHERE t.xmax = ANY ('{${numbers.join(",")}}'::xid[])`;
  for await (const [place] of outside.copy(sql)) places.add(placeNumber(place));
  for await (const place of placesSeen(job, storage, [...places], "ctid")) places.delete(placeNumber(place));
  for await (const place of placesSeen(fresh, storage, [...places], "ctid")) left.add(placeNumber(place));
  return left;
}

/** Tells numbers of transactions that are in progress from others. The job's own are, until it is rolled back. */
export class Writers {
  readonly #fresh: Session;
  readonly #transaction: bigint;
  readonly #known = new Map<string, boolean>();

  constructor(fresh: Session, transaction: bigint) {
    this.#fresh = fresh;
    this.#transaction = transaction;
  }

  /** Whether that number belongs to a transaction in progress that began with the job or later. */
  isOpen(xid: string): boolean | Promise<boolean> {
    return this.#known.get(xid) ?? this.#ask(xid);
  }

  async #ask(xid: string): Promise<boolean> {
    const later = BigInt.asUintN(32, BigInt(xid) - this.#transaction);
    const is = later < 2n ** 31n && (await this.#inProgress(this.#transaction + later));
    this.#known.set(xid, is);
    return is;
  }

  async #inProgress(transaction: bigint): Promise<boolean> {
    try {
      return (await this.#fresh.value(`SELECT pg_xact_status('${transaction}'::xid8)`)) === "in progress";
    } catch (e) {
      // A frozen row may carry a number that looks like one of the future, which the server refuses to judge.
      if (codeOf(e) === "22023") return false;
      throw e;
    }
  }
}

/** Tells multixacts in which one of the job's transactions changed the row. */
class Members {
  readonly #fresh: Session;
  readonly #own: ReadonlySet<string>;
  readonly #known = new Map<string, boolean>();

  constructor(fresh: Session, own: ReadonlySet<string>) {
    this.#fresh = fresh;
    this.#own = own;
  }

  isOwn(xmax: string): boolean | Promise<boolean> {
    return this.#known.get(xmax) ?? this.#ask(xmax);
  }

  async #ask(xmax: string): Promise<boolean> {
    const is = (await this.#writers(xmax)).some((xid) => this.#own.has(xid));
    this.#known.set(xmax, is);
    return is;
  }

  async #writers(multixact: string): Promise<readonly string[]> {
    try {
      const sql = `SELECT m.xid FROM pg_get_multixact_members(${literal(multixact)}::xid) AS m WHERE m.mode IN ('upd', 'nokeyupd')`;
      return (await this.#fresh.rows(sql)).map(([xid]) => xid ?? "");
    } catch (e) {
      // No multixact has that number: it is a transaction's.
      if (codeOf(e) === "XX000" || codeOf(e) === "22023") return [];
      throw e;
    }
  }
}
