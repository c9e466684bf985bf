/**
 * Which rows a job took away: those that others see and its own session does not. Read in groups by their `xmax`, because
 * nearly always one number stands for all of them, so no list of places has to be held or asked about one by one.
 *
 * | step | session | what |
 * | --- | --- | --- |
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
  readonly count: number;
  /** SQL that holds for each of them, and for some others, in terms of `t`. */
  readonly condition: string;
  /** Whether a row that was read by that condition is one of them. */
  readonly has: (xmax: string, place: number) => Promise<boolean>;
}

/** Numbers that are looked at as a group; of more the small ones are looked at place by place. */
const MOST_GROUPS = 16;
/** Rows of a group of which one that the job does not see is looked for first. */
const SAMPLE = 1_000;

const NOTHING: Gone = { count: 0, condition: "false", has: async () => false };

/** Finds them. `outside` holds a snapshot that is later than the job. */
export async function findGone(
  views: Views,
  beginning: Beginning,
  storage: Storage,
  pages: readonly PageRange[] | null,
): Promise<Gone> {
  const { job, outside, fresh } = views;
  const table = tableAs(storage, pages);
  const touched = touchedBy(beginning);
  const groups = await groupsIn(outside, table, touched, beginning);
  if (groups.length === 0) return NOTHING;
  const seen = new Set<number>();
  for await (const [place] of job.copy(`SELECT t.ctid FROM ${table} WHERE ${touched}`))
    seen.add(placeNumber(place));
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
    has: async (xmax, place) => {
      if (single.has(place)) return true;
      if (seen.has(place)) return false;
      // A row of the job's that somebody locks meanwhile (a new reference to it) gets a multixact in place of its number.
      return numbers.has(xmax) || (await members.isOwn(xmax));
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
function touchedBy({ transaction, multixact }: Beginning): string {
  const xid = literal(String(BigInt.asUintN(32, transaction)));
  return `t.xmax <> 0 AND (age(t.xmax) <= (SELECT age(${xid}::xid))
      OR mxid_age(t.xmax) BETWEEN 0 AND (SELECT mxid_age(${literal(multixact)}::xid)))`;
}

async function groupsIn(
  outside: Session,
  table: string,
  touched: string,
  { transaction, multixact }: Beginning,
): Promise<readonly Group[]> {
  const xid = literal(String(BigInt.asUintN(32, transaction)));
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
  { transaction }: Beginning,
  storage: Storage,
  table: string,
  { xmax, count }: Group,
): Promise<boolean> {
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
  async isOpen(xid: string): Promise<boolean> {
    const known = this.#known.get(xid);
    if (known !== undefined) return known;
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

  async isOwn(xmax: string): Promise<boolean> {
    const known = this.#known.get(xmax);
    if (known !== undefined) return known;
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
