/**
 * What a job changed, found by visibility. The job has run in a transaction that is still open; nobody else sees what it
 * did. So a row as it was before is one that others see and the job's session does not, and a row as it is after is one
 * that the job's session sees and whose writer is still in progress for others. No trigger, no lock, no change of the
 * schema; writers of other rows do not wait.
 *
 * Three sessions look: `job`, which ran it; `outside`, whose snapshot was taken after the job and stays; `fresh`, which
 * sees the present at each question.
 *
 * | step | session | what |
 * | --- | --- | --- |
 * | 1 | outside | candidates: rows whose `xmax` may be the job's. A superset, it only keeps old garbage out |
 * | 2 | job | of these, those that it still sees were only locked, or touched by somebody else |
 * | 3 | fresh | of the rest, those that are gone were deleted by another session between 1 and 2 |
 * | 4 | outside, job | what is left, and the rows with a writer in progress, in key order, side by side |
 *
 * Why not `xmax = txid`: savepoints and exception blocks have transaction ids of their own that no view lists once they
 * ended, shared row locks put a multixact number there, and a lock alone puts the id there without any change.
 *
 * `outside` also keeps every version that it sees from being removed, so a place (`ctid`) stays the same row throughout.
 */
import { codeOf } from "../../base/errors.js";
import { changeBetween, keyOf, type Change, type RowKey, type TableShape } from "../../changeset/change.js";
import { compareKeys } from "../../changeset/key.js";
import type { Row } from "../../changeset/value.js";
import { type Session, unsupported } from "./driver.js";
import { literal } from "./names.js";
import { keyOrder, selectList } from "./read.js";
import type { Storage } from "./schema.js";
import { toRow, type Cell } from "./values.js";

/** The sessions that look. */
export interface Views {
  readonly job: Session;
  readonly outside: Session;
  readonly fresh: Session;
}

/** What was noted before the job ran. */
export interface Beginning {
  /** The job's transaction id, 64 bits; its savepoints have later ones. */
  readonly transaction: bigint;
  /** The next multixact number at the time. */
  readonly multixact: string;
  /** Whether the server's text can be ordered by its bytes. */
  readonly isUtf8: boolean;
}

/** Takes one change of a table. */
export type Emit = (shape: TableShape, change: Change) => void;

/** Rows of one storage that the job wrote, to be held against the server's own counters. */
export interface Seen {
  readonly before: number;
  readonly after: number;
}

/** Places asked for in one query. */
const PLACES = 20_000;
/** Up to so many rows are fetched by place; for more the table is read once again. */
const BY_PLACE = 200_000;
/** Rows whose other end is looked for, at most: they are held in memory. */
const HELD = 100_000;
/** Rows that a table may have after it was locked whole; they are held until the lock is given back. */
const WHOLE = 200_000;

/** Captures what the job did to one storage. The shape may have no key where the table's has one, never the other way. */
export class StorageCapture {
  readonly #views: Views;
  readonly #beginning: Beginning;
  readonly #storage: Storage;
  readonly #emit: Emit;

  constructor(views: Views, beginning: Beginning, storage: Storage, emit: Emit) {
    this.#views = views;
    this.#beginning = beginning;
    this.#storage = storage;
    this.#emit = emit;
  }

  /** Finds the net effect and emits it. */
  async run(): Promise<Seen> {
    const gone = await this.#placesGone();
    const pairs = new Pairs(this.#shape, await this.#mayMoveKeys(), this.#emit);
    const seen = await mergeSides(this.#shape, this.#before(gone), this.#after(), (b, a) => pairs.take(b, a));
    await pairs.finish((deleted) => this.#successors(deleted));
    if (seen.before !== gone.size) {
      throw unsupported(
        `${this.#storage.shown} could not be captured: ${gone.size} rows went away, and ${seen.before} of them could be read`,
        "what cannot be shown whole is not signed",
      );
    }
    return seen;
  }

  get #shape(): TableShape {
    return this.#storage.table.shape;
  }

  // ---- steps 1 to 3

  async #placesGone(): Promise<ReadonlySet<number>> {
    const { job, outside, fresh } = this.#views;
    const places = new Set<number>();
    for await (const [place] of outside.copy(
      `SELECT ctid FROM ${this.#storage.from} WHERE ${this.#touched()}`,
    ))
      places.add(placeNumber(place ?? null));
    for (const seen of await this.#visible(job, [...places])) places.delete(seen);
    if (places.size === 0 || (await sameMoment(outside, fresh))) return places;
    return await this.#visible(fresh, [...places]);
  }

  /** Rows whose `xmax` may be the job's, as a transaction or inside a multixact. Ages are asked once, not for every row. */
  #touched(): string {
    const { transaction, multixact } = this.#beginning;
    const xid = literal(String(BigInt.asUintN(32, transaction)));
    return `xmax <> 0 AND (age(xmax) <= (SELECT age(${xid}::xid))
      OR mxid_age(xmax) BETWEEN 0 AND (SELECT mxid_age(${literal(multixact)}::xid)))`;
  }

  async #visible(session: Session, places: readonly number[]): Promise<Set<number>> {
    const seen = new Set<number>();
    for (let at = 0; at < places.length; at += PLACES) {
      const asked = places.slice(at, at + PLACES).map(placeText);
      const sql = `SELECT ctid FROM ${this.#storage.from} WHERE ctid = ANY ($1::tid[])`;
      for (const [place] of await session.rows(sql, asked)) seen.add(placeNumber(place ?? null));
    }
    return seen;
  }

  // ---- step 4

  async *#before(gone: ReadonlySet<number>): AsyncGenerator<Located, undefined> {
    if (gone.size === 0) return;
    const byPlace = gone.size <= BY_PLACE;
    const list = byPlace ? [...gone].map(placeText).map((p) => `"${p}"`) : [];
    const condition = byPlace ? `ctid = ANY ('{${list.join(",")}}'::tid[])` : this.#touched();
    for await (const cells of this.#views.outside.copy(this.#rowsWhere(condition))) {
      const located = this.#located(cells);
      if (gone.has(located.place)) yield located;
    }
  }

  /** In a transaction that has an id, ages are counted from that id: rows of its savepoints are younger than none. */
  async *#after(): AsyncGenerator<Located, undefined> {
    const writers = new Writers(this.#views.fresh, this.#beginning.transaction);
    for await (const cells of this.#views.job.copy(this.#rowsWhere("age(xmin) <= 0"))) {
      if (await writers.isJob(cells[1] ?? "")) yield this.#located(cells);
    }
  }

  #rowsWhere(condition: string): string {
    const { table, from } = this.#storage;
    const order = keyOrder(table, this.#shape, "t", this.#beginning.isUtf8);
    return `SELECT t.ctid, t.xmin, ${selectList(table, "t")} FROM ${from} AS t WHERE ${condition} ORDER BY ${order}`;
  }

  #located(cells: readonly Cell[]): Located {
    return { place: placeNumber(cells[0] ?? null), row: toRow(this.#storage.table.columns, cells, 2) };
  }

  // ---- changed keys

  /** An update of a key column cannot be a heap-only one; most updates are, and then no key has moved. */
  async #mayMoveKeys(): Promise<boolean> {
    if (this.#shape.keyKind === "none") return false;
    const sql =
      "SELECT pg_stat_get_xact_tuples_updated($1::oid) > pg_stat_get_xact_tuples_hot_updated($1::oid)";
    return (await this.#views.job.value(sql, this.#storage.oid)) === "t";
  }

  /** Where the versions at these places were updated to, as the engine itself chains them; the same place for deleted ones. */
  async #successors(places: readonly number[]): Promise<ReadonlyMap<number, number>> {
    const found = new Map<number, number>();
    const relation = literal(this.#storage.from.replace(/^ONLY /, ""));
    for (let at = 0; at < places.length; at += PLACES) {
      const sql = `SELECT p, currtid2(${relation}, p) FROM unnest($1::tid[]) AS p`;
      const asked = places.slice(at, at + PLACES).map(placeText);
      for (const [old, now] of await this.#views.job.rows(sql, asked))
        found.set(placeNumber(old ?? null), placeNumber(now ?? null));
    }
    return found;
  }
}

/** A row and where it stands. */
export interface Located {
  readonly place: number;
  readonly row: Row;
}

/** A place as a number: block × 2¹⁶ + line, exact up to 2⁴⁸. */
function placeNumber(place: Cell): number {
  const [, block, line] = /^\((\d+),(\d+)\)$/.exec(place ?? "") ?? [];
  return Number(block) * 65_536 + Number(line);
}

function placeText(place: number): string {
  return `(${Math.floor(place / 65_536)},${place % 65_536})`;
}

/** Whether no transaction with an id began or ended between the two sessions' snapshots. */
async function sameMoment(outside: Session, fresh: Session): Promise<boolean> {
  const sql = "SELECT pg_current_snapshot()";
  return (await outside.value(sql)) === (await fresh.value(sql));
}

/** Tells the job's own transaction ids from others: what its session sees and others hold to be in progress is its own. */
class Writers {
  readonly #fresh: Session;
  readonly #transaction: bigint;
  readonly #known = new Map<string, boolean>();

  constructor(fresh: Session, transaction: bigint) {
    this.#fresh = fresh;
    this.#transaction = transaction;
  }

  async isJob(xmin: string): Promise<boolean> {
    const known = this.#known.get(xmin);
    if (known !== undefined) return known;
    const later = BigInt.asUintN(32, BigInt(xmin) - this.#transaction);
    const is = later < 2n ** 31n && (await this.#inProgress(this.#transaction + later));
    this.#known.set(xmin, is);
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

// ---- side by side

type Take = (before: readonly Located[], after: readonly Located[]) => void;

/** Walks both sides in key order and hands over what stands under one key: at most one row each where there is a key. */
export async function mergeSides(
  shape: TableShape,
  before: AsyncIterable<Located>,
  after: AsyncIterable<Located>,
  take: Take,
): Promise<Seen> {
  const [left, right] = [new Groups(shape, before), new Groups(shape, after)];
  let [was, is] = [await left.next(), await right.next()];
  while (was !== null || is !== null) {
    const order = was === null ? 1 : is === null ? -1 : compareKeys(was.key, is.key);
    take(order <= 0 ? (was?.rows ?? []) : [], order >= 0 ? (is?.rows ?? []) : []);
    [was, is] = [order <= 0 ? await left.next() : was, order >= 0 ? await right.next() : is];
  }
  return { before: left.count, after: right.count };
}

interface Group {
  readonly key: RowKey;
  readonly rows: readonly Located[];
}

/** Rows of one side, equal keys together. Their order is checked: a wrong one would tear pairs apart unseen. */
class Groups {
  readonly #shape: TableShape;
  readonly #rows: AsyncIterator<Located>;
  #ahead: Located | null | undefined;
  count = 0;

  constructor(shape: TableShape, rows: AsyncIterable<Located>) {
    this.#shape = shape;
    this.#rows = rows[Symbol.asyncIterator]();
  }

  async next(): Promise<Group | null> {
    const first = this.#ahead === undefined ? await this.#read() : this.#ahead;
    if (first === null) return null;
    const key = keyOf(this.#shape, first.row);
    const rows = [first];
    for (let next = await this.#read(); ; next = await this.#read()) {
      this.#ahead = next;
      const order = next === null ? -1 : compareKeys(key, keyOf(this.#shape, next.row));
      if (order > 0)
        throw unsupported(`${this.#shape.name} is not read in key order`, "its collation cannot be followed");
      if (order < 0 || next === null) return { key, rows };
      rows.push(next);
    }
  }

  async #read(): Promise<Located | null> {
    const read = await this.#rows.next();
    if (read.done === true) return null;
    this.count++;
    return read.value;
  }
}

/**
 * Turns pairs of images into changes. A changed key is a row that went away at one key and came at another; where that can
 * be, rows without a partner wait until the engine has told where each went.
 */
export class Pairs {
  readonly #shape: TableShape;
  readonly #emit: Emit;
  readonly #waits: boolean;
  readonly #deleted: Located[] = [];
  readonly #inserted: Located[] = [];

  constructor(shape: TableShape, waits: boolean, emit: Emit) {
    this.#shape = shape;
    this.#waits = waits;
    this.#emit = emit;
  }

  take(before: readonly Located[], after: readonly Located[]): void {
    if (this.#shape.keyKind === "none") return this.#takeCounted(before, after);
    const [was, is] = [before[0], after[0]];
    const held = this.#deleted.length + this.#inserted.length < HELD;
    if (this.#waits && held && was !== undefined && is === undefined) this.#deleted.push(was);
    else if (this.#waits && held && was === undefined && is !== undefined) this.#inserted.push(is);
    else this.#change(was?.row ?? null, is?.row ?? null);
  }

  /** Emits what waited. `successors` tells where the versions at those places went. */
  async finish(
    successors: (places: readonly number[]) => Promise<ReadonlyMap<number, number>>,
  ): Promise<void> {
    const both = this.#deleted.length > 0 && this.#inserted.length > 0;
    const went = both ? await successors(this.#deleted.map((d) => d.place)) : new Map<number, number>();
    const inserted = new Map(this.#inserted.map((i) => [i.place, i]));
    const from = new Map<number, RowKey>();
    for (const { place, row } of this.#deleted) {
      const to = inserted.get(went.get(place) ?? -1);
      if (to !== undefined) from.set(to.place, keyOf(this.#shape, row));
      this.#change(row, null, to === undefined ? undefined : keyOf(this.#shape, to.row));
    }
    for (const { place, row } of this.#inserted) this.#change(null, row, from.get(place));
  }

  #takeCounted(before: readonly Located[], after: readonly Located[]): void {
    const [row] = [...before, ...after];
    const count = Math.abs(after.length - before.length);
    if (row === undefined || count === 0) return;
    const change =
      after.length > before.length
        ? changeBetween(this.#shape.name, row.row, "unknown", null, row.row)
        : changeBetween(this.#shape.name, row.row, "unknown", row.row, null);
    if (change !== undefined) this.#emit(this.#shape, count === 1 ? change : { ...change, count });
  }

  #change(before: Row | null, after: Row | null, link?: RowKey): void {
    const key = keyOf(this.#shape, before ?? after ?? []);
    const change = changeBetween(this.#shape.name, key, "unknown", before, after);
    if (change === undefined) return;
    this.#emit(this.#shape, link === undefined ? change : { ...change, link });
  }
}

// ---- tables that were locked whole

/**
 * Rows of a table on which the job holds an exclusive lock (TRUNCATE): nobody else can read it until the job is rolled back.
 * So the rows after are read now and held, and the rows before are read from the snapshot of `outside` afterwards.
 */
export class WholeCapture {
  readonly #beginning: Beginning;
  readonly #storage: Storage;
  readonly #after: Located[] = [];

  constructor(beginning: Beginning, storage: Storage) {
    this.#beginning = beginning;
    this.#storage = storage;
  }

  /** @throws TargetError ERR_TARGET_UNSUPPORTED when more rows are left than are held. */
  async readAfter(job: Session): Promise<void> {
    for await (const located of this.#rows(job)) {
      if (this.#after.length >= WHOLE) {
        throw unsupported(
          `the job locks ${this.#storage.shown} whole and leaves more than ${WHOLE} rows in it`,
          "the rows after TRUNCATE must be held until others can read the table again",
          "Write it as DELETE, or in several jobs.",
        );
      }
      this.#after.push(located);
    }
  }

  /** After the rollback. */
  async emit(outside: Session, emit: Emit): Promise<Seen> {
    const { shape } = this.#storage.table;
    const pairs = new Pairs(shape, false, emit);
    const seen = await mergeSides(shape, this.#rows(outside), listed(this.#after), (b, a) =>
      pairs.take(b, a),
    );
    await pairs.finish(async () => new Map());
    return seen;
  }

  async *#rows(session: Session): AsyncGenerator<Located, undefined> {
    const { table, from } = this.#storage;
    const order = keyOrder(table, table.shape, "t", this.#beginning.isUtf8);
    const sql = `SELECT ${selectList(table, "t")} FROM ${from} AS t ORDER BY ${order}`;
    for await (const cells of session.copy(sql)) yield { place: 0, row: toRow(table.columns, cells, 0) };
  }
}

async function* listed<T>(items: readonly T[]): AsyncGenerator<T, undefined> {
  yield* items;
}
