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
 * | 1 | job | what the server itself counted: a side of which it counted nothing is not read |
 * | 2 | fresh | pages that can hold something of the job, where the server can tell (`pages.ts`) |
 * | 3 | outside, job, fresh | which rows went away (`gone.ts`) |
 * | 4 | outside, job | these, and the rows with a writer in progress, in key order, side by side |
 *
 * What was found on some pages only is believed when it is exactly what the server counted. Where that cannot be (a row
 * that was written twice, a savepoint that was rolled back), all pages are read. There the rows that went away are counted
 * in the same snapshot, apart from reading them, wherever the server's own count is not that number to the row.
 *
 * Why not `xmax = txid`: savepoints and exception blocks have transaction ids of their own that no view lists once they
 * ended, shared row locks put a multixact number there, and a lock alone puts the id there without any change.
 *
 * `outside` also keeps every version that it sees from being removed, so a place (`ctid`) stays the same row throughout.
 */
import { changeBetween, keyOf, type Change, type RowKey, type TableShape } from "../../changeset/change.js";
import { compareKeys } from "../../changeset/key.js";
import type { Row } from "../../changeset/value.js";
import type { Counters } from "./counters.js";
import { type Session, unsupported } from "./driver.js";
import { type Counted, findGone, findOwnGone, NOTHING, Writers, type Gone } from "./gone.js";
import { literal } from "./names.js";
import { pagesToRead, tableAs, type PageRange } from "./pages.js";
import { PLACES, placeNumber, placeText } from "./places.js";
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

/**
 * Memory for putting the rows in key order, instead of a file of the server's; and no compiling of these few expressions,
 * which takes longer than what it saves.
 */
const SORTING = { work_mem: "64MB", jit: "off" };
/** In a transaction that has an id, ages are counted from that id: rows of its savepoints are younger than none. */
const AFTER = "age(t.xmin) <= 0";
/** Rows whose other end is looked for, at most: they are held in memory. */
const HELD = 100_000;
/** Rows that a table may have after it was locked whole; they are held until the lock is given back. */
const WHOLE = 200_000;

/** Captures what the job did to one storage. The shape may have no key where the table's has one, never the other way. */
export class StorageCapture {
  readonly #views: Views;
  readonly #beginning: Beginning;
  readonly #storage: Storage;
  readonly #counted: Counters;
  readonly #emit: Emit;

  constructor(views: Views, beginning: Beginning, storage: Storage, counted: Counters, emit: Emit) {
    this.#views = views;
    this.#beginning = beginning;
    this.#storage = storage;
    this.#counted = counted;
    this.#emit = emit;
  }

  /**
   * Finds the net effect and emits it.
   * @throws TargetError ERR_TARGET_UNSUPPORTED when it cannot be read whole, or is more than the server counted.
   */
  async run(): Promise<Seen> {
    const { job, outside } = this.#views;
    await Promise.all([job, outside].map((session) => session.set(SORTING, true)));
    const { pages, gone } = await this.#whereToRead();
    const pairs = new Pairs(this.#shape, this.#mayMoveKeys(), this.#emit);
    const seen = await mergeSides(this.#shape, this.#before(gone, pages), this.#after(pages), (b, a) =>
      pairs.take(b, a),
    );
    await pairs.finish((deleted) => this.#successors(deleted));
    await this.#refuseDifference(gone, seen);
    return seen;
  }

  get #shape(): TableShape {
    return this.#storage.table.shape;
  }

  get #removed(): number {
    return this.#counted.updated + this.#counted.deleted;
  }

  get #made(): number {
    return this.#counted.updated + this.#counted.inserted;
  }

  // ---- steps 1 to 3

  async #whereToRead(): Promise<{ readonly pages: readonly PageRange[] | null; readonly gone: Gone }> {
    const pages = this.#counted.areProof ? await pagesToRead(this.#views.fresh, this.#storage) : null;
    if (pages !== null) {
      const gone = await this.#counting(pages);
      if (gone.count === this.#removed && (await this.#countAfter(pages)) === this.#made)
        return { pages, gone };
    }
    return { pages: null, gone: await this.#gone() };
  }

  /** On all pages; counted where that is needed to find them. */
  async #gone(): Promise<Gone> {
    if (this.#nothingRemoved) return NOTHING;
    const own = await findOwnGone(this.#views, this.#beginning, this.#storage);
    return own ?? (await this.#counting(null));
  }

  async #counting(pages: readonly PageRange[] | null): Promise<Counted> {
    if (this.#nothingRemoved) return NOTHING;
    return await findGone(this.#views, this.#beginning, this.#storage, pages);
  }

  get #nothingRemoved(): boolean {
    return this.#counted.areProof && this.#removed === 0;
  }

  async #countAfter(pages: readonly PageRange[]): Promise<number> {
    if (this.#made === 0) return 0;
    const writers = this.#writers();
    const sql = `SELECT t.xmin, count(*) FROM ${tableAs(this.#storage, pages)} WHERE ${AFTER} GROUP BY 1`;
    let count = 0;
    for (const [xmin, rows] of await this.#views.job.rows(sql))
      if (await writers.isOpen(xmin ?? "")) count += Number(rows);
    return count;
  }

  async #refuseDifference(gone: Gone, seen: Seen): Promise<void> {
    const { shown } = this.#storage;
    const count = gone.count ?? (await this.#countAgain(seen));
    if (seen.before !== count) {
      throw unsupported(
        `${shown} could not be captured: ${count} rows went away, and ${seen.before} of them could be read`,
        "what cannot be shown whole is not signed; others may have locked the same rows meanwhile",
        "Plan it again.",
      );
    }
    if (seen.before <= this.#removed && seen.after <= this.#made) return;
    const { inserted, updated, deleted } = this.#counted;
    throw unsupported(
      `the effect on ${shown} cannot be proven: ${seen.before} rows before and ${seen.after} after were found`,
      `the server counted ${inserted} inserts, ${updated} updates and ${deleted} deletes; ` +
        "track_counts may be off for this role",
    );
  }

  /**
   * How many rows went away, for what was read without counting them first. When it is to the row what the server itself
   * counted, on both sides, that says so; where it is not (a row that was written twice, one that was only locked), they
   * are counted now, in the same snapshot.
   */
  async #countAgain(seen: Seen): Promise<number> {
    const isAll = seen.before === this.#removed && seen.after === this.#made;
    if (this.#counted.areProof && isAll) return seen.before;
    return (await this.#counting(null)).count;
  }

  // ---- step 4

  async *#before(gone: Gone, pages: readonly PageRange[] | null): Batches {
    if (gone.count === 0) return;
    const sql = this.#rowsWhere(pages, "xmax", gone.condition);
    for await (const batch of this.#views.outside.copyBatches(sql))
      yield await this.#chosen(batch, (number, place) => gone.has(number, place));
  }

  async *#after(pages: readonly PageRange[] | null): Batches {
    if (this.#counted.areProof && this.#made === 0) return;
    const writers = this.#writers();
    const sql = this.#rowsWhere(pages, "xmin", AFTER);
    for await (const batch of this.#views.job.copyBatches(sql))
      yield await this.#chosen(batch, (number) => writers.isOpen(number));
  }

  async #chosen(
    batch: readonly (readonly Cell[])[],
    isMeant: (number: string, place: number) => boolean | Promise<boolean>,
  ): Promise<readonly Located[]> {
    const { columns } = this.#storage.table;
    const chosen: Located[] = [];
    for (const cells of batch) {
      const place = placeNumber(cells[0]);
      const is = isMeant(cells[1] ?? "", place);
      // Waited for only where the answer is not known yet: once for each number, not for each row.
      if (is === true || (is !== false && (await is))) chosen.push({ place, row: toRow(columns, cells, 2) });
    }
    return chosen;
  }

  /** What the job's session sees and others hold to be in progress is its own. */
  #writers(): Writers {
    return new Writers(this.#views.fresh, this.#beginning.transaction);
  }

  #rowsWhere(pages: readonly PageRange[] | null, column: "xmin" | "xmax", condition: string): string {
    const { table } = this.#storage;
    const order = keyOrder(table, this.#shape, "t", this.#beginning.isUtf8);
    return `SELECT t.ctid, t.${column}, ${selectList(table, "t")} FROM ${tableAs(this.#storage, pages)}
      WHERE ${condition} ORDER BY ${order}`;
  }

  // ---- changed keys

  /** An update of a key column cannot be a heap-only one; most updates are, and then no key has moved. */
  #mayMoveKeys(): boolean {
    return this.#shape.keyKind !== "none" && this.#counted.updated > this.#counted.hotUpdated;
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

/** Rows of one side in key order, as many at once as have come. */
export type Batches = AsyncGenerator<readonly Located[], undefined>;

/** A row and where it stands. */
export interface Located {
  readonly place: number;
  readonly row: Row;
}

// ---- side by side

type Take = (before: readonly Located[], after: readonly Located[]) => void;

/** Walks both sides in key order and hands over what stands under one key: at most one row each where there is a key. */
export async function mergeSides(
  shape: TableShape,
  before: AsyncIterable<readonly Located[]>,
  after: AsyncIterable<readonly Located[]>,
  take: Take,
): Promise<Seen> {
  const [left, right] = [new Groups(shape, before), new Groups(shape, after)];
  await Promise.all([left.refill(), right.refill()]);
  while (left.head !== null || right.head !== null) {
    const [was, is] = [left.head, right.head];
    const order = was === null ? 1 : is === null ? -1 : compareKeys(was.key, is.key);
    take(order <= 0 ? (was?.rows ?? []) : [], order >= 0 ? (is?.rows ?? []) : []);
    if (order <= 0 && !left.advance()) await left.refill();
    if (order >= 0 && !right.advance()) await right.refill();
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
  readonly #source: AsyncIterator<readonly Located[]>;
  #rows: readonly Located[] = [];
  #at = 0;
  /** The group that is begun: which rows belong to it is known when another key has come. */
  #key: RowKey | null = null;
  #begun: Located[] = [];
  #isOver = false;
  count = 0;
  /** The group that stands first; null at the end, and while {@link advance} has said that more rows are needed. */
  head: Group | null = null;

  constructor(shape: TableShape, rows: AsyncIterable<readonly Located[]>) {
    this.#shape = shape;
    this.#source = rows[Symbol.asyncIterator]();
  }

  /** Goes to the next group, where the rows that are here tell it; whether they did. */
  advance(): boolean {
    this.head = null;
    for (let row = this.#rows[this.#at]; row !== undefined; row = this.#rows[this.#at]) {
      this.#at++;
      const key = keyOf(this.#shape, row.row);
      const order = this.#key === null ? 0 : compareKeys(this.#key, key);
      if (order > 0)
        throw unsupported(`${this.#shape.name} is not read in key order`, "its collation cannot be followed");
      if (order < 0) {
        this.#close();
        [this.#key, this.#begun] = [key, [row]];
        return true;
      }
      this.#key ??= key;
      this.#begun.push(row);
    }
    if (!this.#isOver) return false;
    this.#close();
    [this.#key, this.#begun] = [null, []];
    return true;
  }

  /** Waits for rows until {@link advance} can. */
  async refill(): Promise<void> {
    do {
      const next = await this.#source.next();
      this.#isOver = next.done === true;
      [this.#rows, this.#at] = [next.done === true ? [] : next.value, 0];
      this.count += this.#rows.length;
    } while (!this.advance());
  }

  #close(): void {
    this.head = this.#key === null ? null : { key: this.#key, rows: this.#begun };
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
    for await (const batch of this.#rows(job)) {
      if (this.#after.length + batch.length > WHOLE) {
        throw unsupported(
          `the job locks ${this.#storage.shown} whole and leaves more than ${WHOLE} rows in it`,
          "the rows after TRUNCATE must be held until others can read the table again",
          "Write it as DELETE, or in several jobs.",
        );
      }
      this.#after.push(...batch);
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

  async *#rows(session: Session): Batches {
    const { table, from } = this.#storage;
    const order = keyOrder(table, table.shape, "t", this.#beginning.isUtf8);
    const sql = `SELECT ${selectList(table, "t")} FROM ${from} AS t ORDER BY ${order}`;
    for await (const batch of session.copyBatches(sql))
      yield batch.map((cells) => ({ place: 0, row: toRow(table.columns, cells, 0) }));
  }
}

async function* listed<T>(items: readonly T[]): AsyncGenerator<readonly T[], undefined> {
  yield items;
}
