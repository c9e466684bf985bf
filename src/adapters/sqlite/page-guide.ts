/**
 * Where two copies of one database cannot differ, told by their pages. Pages of equal bytes at the same place hold equal rows, if both
 * copies have them in the same table:
 *
 * | table | what is known to be equal | why |
 * | --- | --- | --- |
 * | with rowids | the rows of each leaf page that both sides have as a leaf of it, with equal bytes and equal overflow pages | a leaf's bytes are its rows; an overflow page is named by bytes that are equal |
 * | `WITHOUT ROWID` | all rows, where the root is the same page and every page below it is equal | each page is named by one that is equal |
 *
 * A row that differs is then in some other leaf of one side, and so in a range of rowids from the first to the last of such a leaf;
 * no row that is known to be equal is in any of these ranges, because leaves of one side do not overlap. That a table's text in the
 * schema is the same on both sides is for the caller to see. The pages of a table are told by the engine (`dbstat`); whatever looks
 * otherwise than expected counts as not known, and the table is compared whole.
 */
import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";
import type { Connection } from "./driver.js";
import type { TableInfo } from "./schema.js";

/** Rowids from `lo` to `hi`, both included. */
export interface RowidRange {
  readonly lo: bigint;
  readonly hi: bigint;
}

/**
 * Which pages of two files differ. Pages that only one of them has count as different. It keeps both files open: close it when
 * no connection has them open any more, because closing a file lets go of the locks that SQLite has on it.
 */
export class DifferingPages {
  readonly pageSize: number;
  readonly #files: readonly number[];
  readonly #differs: Uint8Array;
  readonly #differing: number;

  private constructor(files: readonly number[], pageSize: number, differs: Uint8Array) {
    this.#files = files;
    this.pageSize = pageSize;
    this.#differs = differs;
    this.#differing = differs.reduce((n, d) => n + d, 0);
  }

  /**
   * Reads two databases that nobody has open. Null where a log or journal beside one of them has its say, or equal bytes
   * would not mean the same.
   */
  static between(before: string, after: string): DifferingPages | null {
    if ([before, after].some((path) => besides(path) > 0)) return null;
    const files: number[] = [];
    let differs: DifferingPages | null = null;
    try {
      for (const path of [before, after]) files.push(openSync(path, "r"));
      const pageSize = sharedPageSize(files);
      if (pageSize !== null) differs = new DifferingPages(files, pageSize, compareFiles(files, pageSize));
      return differs;
    } finally {
      if (differs === null) for (const file of files) closeSync(file);
    }
  }

  close(): void {
    for (const file of this.#files) closeSync(file);
  }

  /** The bytes of a page of one side, in a buffer that the next call fills again; null where the file ends before. */
  *read(side: "before" | "after", pages: readonly number[]): Generator<Buffer | null, undefined> {
    const file = this.#files[side === "before" ? 0 : 1] ?? -1;
    const bytes = Buffer.alloc(this.pageSize);
    for (const page of pages)
      yield readWhole(file, bytes, (page - 1) * this.pageSize, this.pageSize) ? bytes : null;
  }

  /** Whether the page of that number is another one on each side. */
  has(page: number): boolean {
    return this.#differs[page - 1] !== 0;
  }

  /** How many pages differ. */
  get differing(): number {
    return this.#differing;
  }

  /** The highest number of a page. */
  get pages(): number {
    return this.#differs.length;
  }
}

function besides(path: string): number {
  return ["-wal", "-journal"].reduce(
    (sum, suffix) => sum + (statSync(path + suffix, { throwIfNoEntry: false })?.size ?? 0),
    0,
  );
}

const HEADER_BYTES = 100;
/** Page size, reserved bytes, schema format, text encoding: https://www.sqlite.org/fileformat2.html section 1.3. */
const MEANING = [
  [16, 18],
  [20, 21],
  [44, 48],
  [56, 60],
] as const;

function sharedPageSize(files: readonly number[]): number | null {
  const [left = null, right = null] = files.map(header);
  if (left === null || right === null) return null;
  if (MEANING.some(([from, to]) => !left.subarray(from, to).equals(right.subarray(from, to)))) return null;
  const size = left.readUInt16BE(16);
  return size === 1 ? 65_536 : size;
}

function header(file: number): Buffer | null {
  const bytes = Buffer.alloc(HEADER_BYTES);
  const read = readSync(file, bytes, 0, HEADER_BYTES, 0);
  return read === HEADER_BYTES && bytes.toString("latin1", 0, 16) === "SQLite format 3\0" ? bytes : null;
}

const PIECE_BYTES = 1024 * 1024;

function compareFiles([a = -1, b = -1]: readonly number[], pageSize: number): Uint8Array {
  const [pagesA, pagesB] = [pagesIn(a, pageSize), pagesIn(b, pageSize)];
  const differs = new Uint8Array(Math.max(pagesA, pagesB)).fill(1);
  const shared = Math.min(pagesA, pagesB);
  const perPiece = Math.max(1, Math.floor(PIECE_BYTES / pageSize));
  const [left, right] = [Buffer.alloc(perPiece * pageSize), Buffer.alloc(perPiece * pageSize)];
  for (let first = 0; first < shared; first += perPiece) {
    const count = Math.min(perPiece, shared - first);
    if (!readWhole(a, left, first * pageSize, count * pageSize)) return differs;
    if (!readWhole(b, right, first * pageSize, count * pageSize)) return differs;
    const equal = left.compare(right, 0, count * pageSize, 0, count * pageSize) === 0;
    for (let i = 0; i < count; i++) {
      const [from, to] = [i * pageSize, (i + 1) * pageSize];
      if (equal || left.compare(right, from, to, from, to) === 0) differs[first + i] = 0;
    }
  }
  return differs;
}

function pagesIn(file: number, pageSize: number): number {
  return Math.floor(fstatSync(file).size / pageSize);
}

function readWhole(file: number, into: Buffer, at: number, bytes: number): boolean {
  for (let got = 0; got < bytes;) {
    const read = readSync(file, into, got, bytes - got, at + got);
    if (read === 0) return false;
    got += read;
  }
  return true;
}

// ---- which rows

/** More ranges than this cost more than they save. */
const MOST_RANGES = 100_000;
/** Of so many leaves, more that differ than one in this number are compared faster all together. */
const WORTH_ONE_IN = 3;
const PAGES = "holdpoint_pages";

/** Tells where rows of two copies may differ; both are open again, and unchanged since their pages were compared. */
export class PageGuide {
  readonly #pages: DifferingPages;
  readonly #before: Connection;
  readonly #after: Connection;
  readonly #listed = new Set<Connection>();

  constructor(pages: DifferingPages, before: Connection, after: Connection) {
    this.#pages = pages;
    this.#before = before;
    this.#after = after;
  }

  /**
   * The ranges of rowids outside of which no row of the table differs, in order and apart; none: the table is the same. Null
   * where that is not known, or would not help.
   */
  suspects(before: TableInfo, after: TableInfo): readonly RowidRange[] | null {
    // To list the pages costs as much as comparing a fifth of the rows: not where most of the file is another one.
    if (this.#pages.differing * 2 > this.#pages.pages) return null;
    if (before.withoutRowid !== after.withoutRowid) return null;
    if (!this.#lists(this.#before) || !this.#lists(this.#after)) return null;
    return after.withoutRowid ? this.#wholeTree(before, after) : this.#leaves(before, after);
  }

  /** Makes the engine's list of pages readable under a name that no table of the database can take. */
  #lists(connection: Connection): boolean {
    if (this.#listed.has(connection)) return true;
    try {
      connection.exec(`CREATE VIRTUAL TABLE IF NOT EXISTS temp.${PAGES} USING dbstat(main)`);
    } catch {
      // An engine without it compares everything, as it did before.
      return false;
    }
    this.#listed.add(connection);
    return true;
  }

  #wholeTree(before: TableInfo, after: TableInfo): readonly RowidRange[] | null {
    if (before.rootPage !== after.rootPage) return null;
    for (const { page, kind } of pagesOf(this.#after, after))
      if (kind === "other" || this.#pages.has(page)) return null;
    return [];
  }

  #leaves(before: TableInfo, after: TableInfo): readonly RowidRange[] | null {
    const theirs = new Uint8Array(this.#pages.pages + 1);
    for (const { page, kind } of pagesOf(this.#before, before)) {
      if (kind === "other" || page >= theirs.length) return null;
      if (kind === "leaf") theirs[page] = LEAF;
    }
    const found = this.#ours(after, theirs);
    if (found === null) return null;
    const others: number[] = [];
    for (let page = 1; page < theirs.length; page++) {
      if (theirs[page] === LEAF) others.push(page);
      if (found.suspect.length + others.length > MOST_RANGES) return null;
    }
    if (
      (found.suspect.length + others.length) * WORTH_ONE_IN > found.leaves &&
      found.leaves > 2 * WORTH_ONE_IN
    )
      return null;
    const ranges = [...this.#rangesOf("after", found.suspect), ...this.#rangesOf("before", others)];
    return ranges.includes(null)
      ? null
      : merged(ranges.flatMap((r) => (r === null || r === "empty" ? [] : [r])));
  }

  /** From the first to the last rowid of each leaf; null for a page that is none. */
  #rangesOf(side: "before" | "after", pages: readonly number[]): readonly (RowidRange | "empty" | null)[] {
    return [...mapped(this.#pages.read(side, pages), (page) => (page === null ? null : rangeOf(page)))];
  }

  /** Leaves of the later side that are not known to be equal; those that are become {@link EQUAL} among `theirs`. */
  #ours(
    info: TableInfo,
    theirs: Uint8Array,
  ): { readonly leaves: number; readonly suspect: readonly number[] } | null {
    const suspect: number[] = [];
    let leaves = 0;
    let last = { page: 0, path: "" };
    for (const { page, kind, path } of pagesOf(this.#after, info)) {
      switch (kind) {
        case "other":
          return null;
        case "internal":
          break;
        case "leaf":
          leaves++;
          last = { page, path };
          if (this.#pages.has(page) || theirs[page] !== LEAF) suspect.push(page);
          else theirs[page] = EQUAL;
          break;
        case "overflow":
          if (!isOverflowOf(path, last.path)) return null;
          if (!this.#pages.has(page) || theirs[last.page] !== EQUAL) break;
          theirs[last.page] = LEAF;
          suspect.push(last.page);
      }
      if (suspect.length > MOST_RANGES) return null;
    }
    return { leaves, suspect };
  }
}

/** A leaf of the earlier side that is not, or is, known to be the same on the later side. */
const LEAF = 1;
const EQUAL = 2;

interface ListedPage {
  readonly page: number;
  readonly kind: "leaf" | "internal" | "overflow" | "other";
  readonly path: string;
}

function* pagesOf(connection: Connection, info: TableInfo): Generator<ListedPage, undefined> {
  const listed = connection.iterate(
    `SELECT pageno, pagetype, path FROM temp.${PAGES} WHERE name = ? AND aggregate = 0`,
    info.name,
  );
  for (const [page, type, path] of listed) {
    const kind = type === "leaf" || type === "internal" || type === "overflow" ? type : "other";
    yield { page: Number(page), kind, path: String(path) };
  }
}

/** `/005/009+000000` is the first overflow page of the tenth cell of the leaf `/005/`. */
function isOverflowOf(path: string, leaf: string): boolean {
  return leaf !== "" && path.startsWith(leaf) && /^[0-9a-f]+\+[0-9a-f]+$/.test(path.slice(leaf.length));
}

function* mapped<A, B>(items: Iterable<A>, of: (item: A) => B): Generator<B, undefined> {
  for (const item of items) yield of(item);
}

const TABLE_LEAF = 0x0d;
const LEAF_HEADER_BYTES = 8;

/** https://www.sqlite.org/fileformat2.html section 1.6: the cells of a leaf are in the order of their rowids. */
function rangeOf(page: Buffer): RowidRange | "empty" | null {
  if (page[0] !== TABLE_LEAF) return null;
  const cells = page.readUInt16BE(3);
  if (cells === 0) return "empty";
  if (LEAF_HEADER_BYTES + 2 * cells > page.length) return null;
  const [lo, hi] = [rowidAt(page, 0), rowidAt(page, cells - 1)];
  return lo === null || hi === null || lo > hi ? null : { lo, hi };
}

function rowidAt(page: Buffer, cell: number): bigint | null {
  const size = varint(page, page.readUInt16BE(LEAF_HEADER_BYTES + 2 * cell));
  return size === null ? null : (varint(page, size.end)?.value ?? null);
}

/** Nine bytes at most: seven bits of each of the first eight, all of the ninth. */
function varint(page: Buffer, at: number): { readonly value: bigint; readonly end: number } | null {
  let value = 0n;
  for (let i = 0; i < 9; i++) {
    const byte = page[at + i];
    if (byte === undefined) return null;
    if (i === 8) return { value: BigInt.asIntN(64, (value << 8n) | BigInt(byte)), end: at + 9 };
    value = (value << 7n) | BigInt(byte & 0x7f);
    if (byte < 0x80) return { value, end: at + i + 1 };
  }
  return null;
}

function merged(ranges: readonly RowidRange[]): readonly RowidRange[] {
  const apart: { lo: bigint; hi: bigint }[] = [];
  for (const { lo, hi } of [...ranges].sort((a, b) => (a.lo < b.lo ? -1 : a.lo > b.lo ? 1 : 0))) {
    const last = apart.at(-1);
    if (last === undefined || lo > last.hi) apart.push({ lo, hi });
    else if (hi > last.hi) last.hi = hi;
  }
  return apart;
}
