/**
 * The common oracle of the scenarios: what the target must be in the end is the state before plus a journal of legitimate
 * writes, computed here with nothing of the product. A seeded writer makes the writes and keeps the journal.
 */
import Database from "better-sqlite3";

/** A value as the oracle's own reader gives it. */
export type Cell = null | number | string;
/** The `id` of a row. */
export type Key = number | string;
/** Rows by their `id`. */
export type Table = Map<Key, Record<string, Cell>>;

/** One legitimate write. */
export type Write =
  | {
      readonly op: "set";
      readonly table: string;
      readonly key: Key;
      readonly column: string;
      readonly value: Cell;
    }
  | { readonly op: "insert"; readonly table: string; readonly key: Key; readonly row: Record<string, Cell> }
  | { readonly op: "remove"; readonly table: string; readonly key: Key };

/** How the target stands to what it must be. */
export interface Judgement {
  /** Journaled values that are not there. */
  readonly lost: readonly string[];
  /** Rows that the journal removed and that are there again. */
  readonly resurrected: readonly string[];
  /** Rows and cells that the damage took and that are not back. */
  readonly missing: readonly string[];
  /** Rows that neither the state before nor the journal knows. */
  readonly strangers: readonly string[];
  /** Broken references. */
  readonly orphans: number;
}

/** A judgement in which nothing is wrong. */
export const ALL_WELL: Judgement = { lost: [], resurrected: [], missing: [], strangers: [], orphans: 0 };

/** The state before and a journal of what was legitimately written since; whoever writes notes it here. */
export class Journal {
  readonly #before: ReadonlyMap<string, Table>;
  readonly #journal: Write[] = [];
  readonly #excused = new Set<string>();
  #seed: number;

  constructor(before: ReadonlyMap<string, Table>, seed: number) {
    this.#before = before;
    this.#seed = seed;
  }

  /** A whole number from 0 up to `below`, the same ones for the same seed. */
  random(below: number): number {
    // A linear congruential generator (Numerical Recipes): repeatable is all that is asked of it.
    this.#seed = (Math.imul(this.#seed, 1_664_525) + 1_013_904_223) >>> 0;
    return this.#seed % below;
  }

  note(write: Write): void {
    this.#journal.push(write);
  }

  /** A row that an owner's removal took along (a cascade), and that must stay away. */
  removedToo(table: string, key: Key): void {
    this.note({ op: "remove", table, key });
  }

  /** A row that is listed as a conflict: whatever the damage did to it stands until a person decides. */
  excuse(table: string, key: Key): void {
    this.#excused.add(`${table} ${key}`);
  }

  /** Holds the state as it is now against what it must be. */
  compare(now: ReadonlyMap<string, Table>, orphans: number): Judgement {
    const expected = this.#expected();
    const written = new Map<string, Cell>();
    const removed = new Set<string>();
    for (const w of this.#journal) {
      const name = `${w.table} ${w.key}`;
      if (w.op === "remove") removed.add(name);
      else removed.delete(name);
      if (w.op === "set") written.set(`${name} ${w.column}`, w.value);
      if (w.op === "insert") for (const [c, v] of Object.entries(w.row)) written.set(`${name} ${c}`, v);
    }
    const [lost, missing, resurrected, strangers]: string[][] = [[], [], [], []];
    for (const [table, rows] of expected) {
      for (const [key, row] of rows) {
        const found = now.get(table)?.get(key);
        for (const [column, value] of Object.entries(row)) {
          if (found !== undefined && found[column] === value) continue;
          const cell = `${table} ${key} ${column}`;
          if (written.has(cell)) lost?.push(`${cell}: ${String(value)}, found ${String(found?.[column])}`);
          else if (!this.#excused.has(`${table} ${key}`))
            missing?.push(`${cell}: ${String(value)}, found ${String(found?.[column])}`);
        }
      }
    }
    for (const [table, rows] of now) {
      for (const key of rows.keys()) {
        if (expected.get(table)?.has(key) === true) continue;
        (removed.has(`${table} ${key}`) ? resurrected : strangers)?.push(`${table} ${key}`);
      }
    }
    return {
      lost: lost ?? [],
      resurrected: resurrected ?? [],
      missing: missing ?? [],
      strangers: strangers ?? [],
      orphans,
    };
  }

  #expected(): Map<string, Table> {
    const state = new Map(
      [...this.#before].map(([name, rows]) => [name, new Map([...rows].map(([k, row]) => [k, { ...row }]))]),
    );
    for (const w of this.#journal) {
      const rows = state.get(w.table);
      if (rows === undefined) continue;
      if (w.op === "remove") rows.delete(w.key);
      else if (w.op === "insert") rows.set(w.key, { ...w.row });
      else rows.set(w.key, { ...rows.get(w.key), [w.column]: w.value });
    }
    return state;
  }
}

/** A seeded writer with its journal, over the database file, behind holdpoint's back. */
export class Oracle extends Journal {
  readonly #path: string;
  readonly #tables: readonly string[];

  /** Remembers the state as it is now: what legitimate writes add to. */
  constructor(path: string, tables: readonly string[], seed = 1) {
    super(read(path, tables), seed);
    this.#path = path;
    this.#tables = tables;
  }

  set(table: string, key: Key, column: string, value: Cell): void {
    this.#write(`UPDATE "${table}" SET "${column}" = ? WHERE id = ?`, [value, key]);
    this.note({ op: "set", table, key, column, value });
  }

  insert(table: string, row: Record<string, Cell> & { readonly id: Key }): void {
    const columns = Object.keys(row);
    this.#write(
      `INSERT INTO "${table}" (${columns.map((c) => `"${c}"`).join(", ")}) VALUES (${columns.map(() => "?").join(", ")})`,
      Object.values(row),
    );
    this.note({ op: "insert", table, key: row.id, row });
  }

  remove(table: string, key: Key): void {
    this.#write(`DELETE FROM "${table}" WHERE id = ?`, [key]);
    this.note({ op: "remove", table, key });
  }

  judge(): Judgement {
    return this.compare(read(this.#path, this.#tables), this.#orphans());
  }

  #write(sql: string, values: readonly Cell[]): void {
    const db = new Database(this.#path);
    try {
      db.pragma("foreign_keys = ON");
      db.prepare(sql).run(values);
    } finally {
      db.close();
    }
  }

  #orphans(): number {
    const db = new Database(this.#path, { readonly: true });
    try {
      return db.prepare("PRAGMA foreign_key_check").all().length;
    } finally {
      db.close();
    }
  }
}

function read(path: string, tables: readonly string[]): Map<string, Table> {
  const db = new Database(path, { readonly: true });
  try {
    return new Map(
      tables.map((name) => {
        const rows = db.prepare<[], Record<string, Cell>>(`SELECT * FROM "${name}"`).all();
        return [name, new Map(rows.map((row) => [row["id"] as Key, row]))];
      }),
    );
  } finally {
    db.close();
  }
}
