/**
 * Rows that hang together: writing one of them without the other would break what the schema promises at
 * some moment. Both ends of a foreign key that the effect touches, a unique value that one row gives up and
 * another takes, and the two ends of a changed key.
 *
 * Values are compared more loosely than any engine compares them (case, trailing blanks, `1` and `1.0` and
 * `'1'` are one), so rows may be tied that need not be; never the other way round.
 */
import { afterOf, beforeOf, type ChangeSource, type TableCounts } from "./change.js";
import { keyText } from "./key.js";
import { sortedTables } from "./source.js";
import { isRawText, sameValue, type Row, type Value } from "./value.js";

/** What a schema says about rows that belong together. */
export interface SchemaTies {
  readonly references: readonly {
    readonly table: string;
    readonly columns: readonly string[];
    readonly parent: string;
    readonly parentColumns: readonly string[];
  }[];
  /** `columns` null: an expression or a part of a table, which rows share cannot be read from their cells. */
  readonly uniques: readonly {
    readonly table: string;
    readonly columns: readonly string[] | null;
    /** It is the key that changes are told apart by. */
    readonly isKey: boolean;
  }[];
}

/** Both images of a change, in some of its columns. */
export interface Images {
  readonly before: Row | null;
  readonly after: Row | null;
}

/** Changes whose ties are looked for. */
export interface TieSource extends ChangeSource {
  /** How many changes of a table there are; absent where they have to be read for it. */
  readonly size?: (table: string) => number;
  /** Its changes in canonical order, cut to the columns of these numbers; NULL where there is no such column. */
  readonly images?: (table: string, columns: readonly number[]) => Iterable<Images>;
}

/**
 * Which rows hang together. Rows are numbered in canonical order, table after table; four bytes are held for each, whatever
 * its table and key.
 */
export interface Ties {
  /** By number of a row the number of the first row of its group: its own where it stands alone. Null: all stand alone. */
  readonly firsts: Uint32Array | null;
}

/** The groups of two rows and more, by the numbers of their rows. For small effects. */
export function groupsOf({ firsts }: Ties): readonly (readonly number[])[] {
  const groups = new Map<number, number[]>();
  for (const [number, first] of (firsts ?? []).entries()) {
    const group = groups.get(first);
    if (group === undefined) groups.set(first, [number]);
    else group.push(number);
  }
  return [...groups.values()].filter((g) => g.length > 1);
}

/** So many rows are looked at one beside the other in memory; an effect with more counts as one group. */
export const MOST_TIED = 1_000_000;

/**
 * The groups of a ChangeSet; null when everything must count as one group: the schema's ties are not known, or
 * more than {@link MOST_TIED} rows could be tied. Memory follows the values that could be shared; of the rows it is five bytes each.
 */
export function tiesOf(
  source: TieSource,
  counts: readonly TableCounts[],
  schema: SchemaTies | undefined,
): Ties | null {
  if (schema === undefined) return null;
  const finder = new TieFinder(source);
  // A key changes hands only where rows go and come: an update keeps its key.
  const swaps = new Set(counts.filter((t) => t.delete > 0 && t.insert > 0).map((t) => t.name));
  const frees = new Set(
    counts.filter((t) => t.delete + t.update > 0 && t.insert + t.update > 0).map((t) => t.name),
  );
  try {
    for (const reference of schema.references) finder.reference(reference);
    for (const unique of schema.uniques) {
      const table = finder.tableOf(unique.table);
      const known = table === undefined ? false : unique.isKey ? swaps.has(table) : frees.has(table);
      if (known) finder.unique(unique.table, unique.columns);
    }
    for (const name of swaps) finder.links(name);
    return finder.ties();
  } catch (e) {
    if (e instanceof TooMany) return null;
    throw e;
  }
}

class TooMany extends Error {}

class TieFinder {
  readonly #source: TieSource;
  /** Number of the first row of each table. */
  readonly #starts = new Map<string, number>();
  readonly #rowCount: number;
  /** Union-find: towards the first row of the group. Made with the first tie. */
  #parents: Uint32Array | null = null;
  /** Which rows are tied to another, and how many. */
  #isTied = new Uint8Array();
  #tied = 0;

  constructor(source: TieSource) {
    this.#source = source;
    let number = 0;
    for (const { name } of sortedTables(source.tables)) {
      this.#starts.set(name, number);
      number += changesIn(source, name);
    }
    this.#rowCount = number;
  }

  reference(r: SchemaTies["references"][number]): void {
    const parent = this.tableOf(r.parent);
    const child = this.tableOf(r.table);
    if (parent === undefined || child === undefined) return;
    const keys = new Notes();
    for (const [number, images] of this.#images(parent, r.parentColumns))
      for (const values of touched(images)) keys.note(values, number);
    if (keys.size === 0) return;
    for (const [number, images] of this.#images(child, r.columns)) {
      for (const values of touched(images)) {
        for (const other of keys.of(values)) this.#tie(number, other);
      }
    }
  }

  unique(name: string, columns: readonly string[] | null): void {
    const table = this.tableOf(name);
    if (table === undefined) return;
    const given = new Notes();
    for (const [number, { before, after }] of this.#images(table, columns ?? [])) {
      const values = shared(before, after, columns === null);
      if (values !== null) given.note(values, number);
    }
    if (given.size === 0) return;
    for (const [number, { before, after }] of this.#images(table, columns ?? [])) {
      const values = shared(after, before, columns === null);
      if (values === null) continue;
      for (const other of given.of(values)) this.#tie(number, other);
    }
  }

  links(table: string): void {
    const ends = new Map<string, number>();
    let number = this.#starts.get(table) ?? 0;
    for (const change of this.#source.changes(table)) {
      if (change.link !== undefined) {
        const other = ends.get(keyText(change.link));
        if (other === undefined) ends.set(keyText(change.key), number);
        else this.#tie(number, other);
      }
      number++;
    }
  }

  ties(): Ties {
    if (this.#parents === null) return { firsts: null };
    for (let number = 0; number < this.#parents.length; number++) this.#root(this.#parents, number);
    return { firsts: this.#parents };
  }

  *#images(table: string, columns: readonly string[]): Iterable<readonly [number, Images]> {
    let number = this.#starts.get(table) ?? 0;
    for (const images of imagesOf(this.#source, table, this.#columns(table, columns)))
      yield [number++, images];
  }

  /** The source's own name of a table. Names are compared without case, as SQL does. */
  tableOf(name: string): string | undefined {
    const folded = name.toLowerCase();
    return this.#source.tables.find((t) => t.name.toLowerCase() === folded)?.name;
  }

  #columns(table: string, names: readonly string[]): readonly number[] {
    const columns = this.#source.tables.find((t) => t.name === table)?.columns ?? [];
    return names.map((name) => columns.findIndex((c) => c.name.toLowerCase() === name.toLowerCase()));
  }

  /** The root of a group is its first row, so that the order of ties does not matter. */
  #tie(a: number, b: number): void {
    this.#parents ??= Uint32Array.from({ length: this.#rowCount }, (_, number) => number);
    if (this.#isTied.length === 0) this.#isTied = new Uint8Array(this.#rowCount);
    const roots = [this.#root(this.#parents, a), this.#root(this.#parents, b)];
    const [first, second] = [Math.min(...roots), Math.max(...roots)];
    if (first === second) return;
    this.#parents[second] = first;
    for (const root of roots) {
      this.#tied += 1 - (this.#isTied[root] ?? 0);
      this.#isTied[root] = 1;
    }
    if (this.#tied > MOST_TIED) throw new TooMany();
  }

  #root(parents: Uint32Array, row: number): number {
    let root = row;
    for (let up = parents[root]; up !== undefined && up !== root; up = parents[root]) root = up;
    for (let at = row; at !== root;) {
      const up = parents[at] ?? root;
      parents[at] = root;
      at = up;
    }
    return root;
  }
}

/** Rows by a likeness of the values they share. */
class Notes {
  readonly #rows = new Map<string, number[]>();
  size = 0;

  note(values: readonly Value[], row: number): void {
    if (++this.size > MOST_TIED) throw new TooMany();
    const likeness = likenessOf(values);
    const rows = this.#rows.get(likeness);
    if (rows === undefined) this.#rows.set(likeness, [row]);
    else rows.push(row);
  }

  of(values: readonly Value[]): readonly number[] {
    return this.#rows.get(likenessOf(values)) ?? [];
  }
}

/** How many changes of a table there are. */
export function changesIn(source: TieSource, table: string): number {
  if (source.size !== undefined) return source.size(table);
  let rows = 0;
  for (const _ of source.changes(table)) rows++;
  return rows;
}

/** The changes of a table, cut to some columns. */
export function* imagesOf(source: TieSource, table: string, columns: readonly number[]): Iterable<Images> {
  if (source.images !== undefined) {
    yield* source.images(table, columns);
    return;
  }
  const cut = (row: Row | null): Row | null => (row === null ? null : columns.map((i) => row[i] ?? null));
  for (const change of source.changes(table))
    yield { before: cut(beforeOf(change)), after: cut(afterOf(change)) };
}

/** The values that the change brings, takes away or replaces. A NULL refers to nothing. */
function touched({ before, after }: Images): readonly (readonly Value[])[] {
  if (before !== null && after !== null && !differ(before, after)) return [];
  return [before, after].flatMap((values) => (values === null || values.includes(null) ? [] : [values]));
}

/** The unique values of `row` where the other image has not the same; of an expression nothing is known but that it may be so. */
function shared(row: Row | null, other: Row | null, isExpression: boolean): readonly Value[] | null {
  if (row === null || isExpression) return row === null ? null : [];
  if (other !== null && !differ(row, other)) return null;
  return row.includes(null) ? null : row;
}

function differ(a: Row, b: Row): boolean {
  return a.some((v, i) => !sameValue(v, b[i] ?? null));
}

function likenessOf(values: readonly Value[]): string {
  return values.map(likeness).join("\u0000");
}

function likeness(v: Value): string {
  if (v === null) return "";
  if (typeof v === "bigint" || typeof v === "number") return `n${Number(v)}`;
  const text = typeof v === "string" ? v : Buffer.from(isRawText(v) ? v.bytes : v).toString("latin1");
  const plain = text.toLowerCase().trimEnd();
  const number = plain === "" ? Number.NaN : Number(plain);
  return Number.isNaN(number) ? `t${plain}` : `n${number}`;
}
