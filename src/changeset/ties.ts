/**
 * Rows that hang together: writing one of them without the other would break what the schema promises at
 * some moment. Both ends of a foreign key that the effect touches, a unique value that one row gives up and
 * another takes, and the two ends of a changed key.
 *
 * Values are compared more loosely than any engine compares them (case, trailing blanks, `1` and `1.0` and
 * `'1'` are one), so rows may be tied that need not be; never the other way round.
 */
import {
  afterOf,
  beforeOf,
  type Change,
  type ChangeSource,
  countOf,
  type RowKey,
  type TableCounts,
} from "./change.js";
import { keyText } from "./key.js";
import { allChanges } from "./source.js";
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

/** One row of a group: by table and key. */
export interface Member {
  readonly table: string;
  readonly key: RowKey;
  /** How many equal rows it stands for. */
  readonly rows: number;
}

/** Which rows hang together. Rows are numbered in canonical order, see {@link allChanges}. */
export interface Ties {
  /** By number of its first row: the rows of each group of two and more, in canonical order. */
  readonly groups: ReadonlyMap<number, readonly Member[]>;
  /** Rows of a group that are not its first. */
  readonly followers: ReadonlySet<number>;
}

/** So many rows are looked at one beside the other in memory; an effect with more counts as one group. */
export const MOST_TIED = 1_000_000;

/**
 * The groups of a ChangeSet; null when everything must count as one group: the schema's ties are not known, or
 * more than {@link MOST_TIED} rows could be tied. Memory follows the rows that could be tied, not the effect.
 */
export function tiesOf(
  source: ChangeSource,
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
  readonly #source: ChangeSource;
  /** Number of the first row of each table. */
  readonly #starts = new Map<string, number>();
  /** Union-find over the rows that are tied to another. */
  readonly #parent = new Map<number, number>();

  constructor(source: ChangeSource) {
    this.#source = source;
  }

  reference(r: SchemaTies["references"][number]): void {
    const parent = this.tableOf(r.parent);
    const child = this.tableOf(r.table);
    if (parent === undefined || child === undefined) return;
    const keys = new Notes();
    const to = this.#columns(parent, r.parentColumns);
    const from = this.#columns(child, r.columns);
    for (const [number, change] of this.#rows(parent)) {
      for (const values of touched(change, to)) keys.note(values, number);
    }
    if (keys.size === 0) return;
    for (const [number, change] of this.#rows(child)) {
      for (const values of touched(change, from)) {
        for (const other of keys.of(values)) this.#tie(number, other);
      }
    }
  }

  unique(name: string, columns: readonly string[] | null): void {
    const table = this.tableOf(name);
    if (table === undefined) return;
    const at = columns === null ? null : this.#columns(table, columns);
    const given = new Notes();
    for (const [number, change] of this.#rows(table)) {
      const values = givenUp(change, at);
      if (values !== null) given.note(values, number);
    }
    if (given.size === 0) return;
    for (const [number, change] of this.#rows(table)) {
      const values = taken(change, at);
      if (values === null) continue;
      for (const other of given.of(values)) this.#tie(number, other);
    }
  }

  links(table: string): void {
    const ends = new Map<string, number>();
    for (const [number, change] of this.#rows(table)) {
      if (change.link === undefined) continue;
      const other = ends.get(keyText(change.link));
      if (other === undefined) ends.set(keyText(change.key), number);
      else this.#tie(number, other);
    }
  }

  ties(): Ties {
    const groups = new Map<number, Member[]>();
    const followers = new Set<number>();
    if (this.#parent.size === 0) return { groups, followers };
    let number = -1;
    for (const change of allChanges(this.#source)) {
      number++;
      if (!this.#parent.has(number)) continue;
      const first = this.#root(number);
      const members = groups.get(first);
      const member = { table: change.table, key: change.key, rows: countOf(change) };
      if (members === undefined) groups.set(first, [member]);
      else members.push(member);
      if (first !== number) followers.add(number);
    }
    return { groups, followers };
  }

  *#rows(table: string): Iterable<readonly [number, Change]> {
    let number = this.#start(table);
    for (const change of this.#source.changes(table)) yield [number++, change];
  }

  #start(table: string): number {
    if (this.#starts.size === 0) {
      let number = 0;
      let current: string | null = null;
      for (const change of allChanges(this.#source)) {
        if (change.table !== current) this.#starts.set(change.table, number);
        current = change.table;
        number++;
      }
    }
    return this.#starts.get(table) ?? 0;
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
    const [first, second] = [this.#root(a), this.#root(b)].sort((x, y) => x - y);
    if (first === undefined || second === undefined || first === second) return;
    this.#parent.set(first, first);
    this.#parent.set(second, first);
    if (this.#parent.size > MOST_TIED) throw new TooMany();
  }

  #root(row: number): number {
    let root = row;
    for (let up = this.#parent.get(root); up !== undefined && up !== root; up = this.#parent.get(root))
      root = up;
    for (let at = row; at !== root;) {
      const up = this.#parent.get(at) ?? root;
      this.#parent.set(at, root);
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

/** The values of these columns that the change brings, takes away or replaces. A NULL refers to nothing. */
function touched(change: Change, columns: readonly number[]): readonly (readonly Value[])[] {
  const [before, after] = [beforeOf(change), afterOf(change)];
  if (before !== null && after !== null && !changes(before, after, columns)) return [];
  const images = [before, after].flatMap((row) => (row === null ? [] : [cells(row, columns)]));
  return images.filter((values) => !values.includes(null));
}

function givenUp(change: Change, columns: readonly number[] | null): readonly Value[] | null {
  const before = beforeOf(change);
  if (before === null) return null;
  return shared(before, afterOf(change), columns);
}

function taken(change: Change, columns: readonly number[] | null): readonly Value[] | null {
  const after = afterOf(change);
  if (after === null) return null;
  return shared(after, beforeOf(change), columns);
}

/** The unique values of `row` where the other image has not the same; of an expression nothing is known but that it may be so. */
function shared(row: Row, other: Row | null, columns: readonly number[] | null): readonly Value[] | null {
  if (columns === null) return [];
  if (other !== null && !changes(row, other, columns)) return null;
  const values = cells(row, columns);
  return values.includes(null) ? null : values;
}

function changes(a: Row, b: Row, columns: readonly number[]): boolean {
  return columns.some((i) => !sameValue(a[i] ?? null, b[i] ?? null));
}

function cells(row: Row, columns: readonly number[]): readonly Value[] {
  return columns.map((i) => row[i] ?? null);
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
