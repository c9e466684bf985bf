/**
 * Finding values that differ from run to run: the same job is rehearsed twice and its rows are compared. The
 * second run sees a clock that is one second further, else two runs within one second would agree about the time.
 */
import { createHash } from "node:crypto";
import { afterOf, type Change, type TableShape } from "../../changeset/change.js";
import { keyBytes } from "../../changeset/key.js";
import type { Volatile } from "../../target/target.js";
import type { Cell, Connection, Driver } from "./driver.js";
import { openScratch } from "./loose-rows.js";

const HASH_BYTES = 8;

/** Remembers the rows of the first run by digest, on disk when they are many. Close it in `finally`. */
export class SecondRun {
  readonly #first: Connection;
  readonly #differing = new Map<string, Map<string, number>>();

  constructor(driver: Driver) {
    this.#first = openScratch(driver);
    this.#first.exec(
      "CREATE TABLE first (tab TEXT, key BLOB, cells BLOB, PRIMARY KEY (tab, key)) WITHOUT ROWID",
    );
    this.#first.exec("BEGIN");
  }

  /** A change of the first run. Tables without a key have nothing to compare a row by. */
  remember(shape: TableShape, change: Change): void {
    const after = afterOf(change);
    if (after === null || shape.keyKind === "none") return;
    const cells = Buffer.concat(after.map((v) => hashOf(keyBytes([v]))));
    this.#first.run("INSERT OR REPLACE INTO first VALUES (?, ?, ?)", shape.name, keyBytes(change.key), cells);
  }

  /**
   * A change of the second run. Only rows that both runs write are compared; which rows a job chooses may
   * depend on the time too, and that is no value that is assigned.
   */
  compare(shape: TableShape, change: Change): void {
    const after = afterOf(change);
    if (after === null || shape.keyKind === "none") return;
    const cells = this.#first.value(
      "SELECT cells FROM first WHERE tab = ? AND key = ?",
      shape.name,
      keyBytes(change.key),
    );
    if (!Buffer.isBuffer(cells)) return;
    shape.columns.forEach((column, i) => {
      const was = cells.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES);
      if (!was.equals(hashOf(keyBytes([after[i] ?? null])))) this.#count(shape.name, column.name);
    });
  }

  /** The columns that differed, and in how many rows. */
  volatile(): readonly Volatile[] {
    return [...this.#differing].flatMap(([table, columns]) =>
      [...columns].map(([column, rows]) => ({ table, column, rows })),
    );
  }

  close(): void {
    this.#first.close();
  }

  #count(table: string, column: string): void {
    const columns = this.#differing.get(table) ?? new Map<string, number>();
    columns.set(column, (columns.get(column) ?? 0) + 1);
    this.#differing.set(table, columns);
  }
}

function hashOf(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest().subarray(0, HASH_BYTES);
}

/** Positions of the time values among the arguments of the engine's date functions. */
const CLOCK_FUNCTIONS: readonly { readonly name: string; readonly times: readonly number[] }[] = [
  { name: "date", times: [0] },
  { name: "time", times: [0] },
  { name: "datetime", times: [0] },
  { name: "julianday", times: [0] },
  { name: "unixepoch", times: [0] },
  { name: "strftime", times: [1] },
  { name: "timediff", times: [0, 1] },
];

/**
 * Puts functions of ours over the engine's, which say that `now` is `at` and leave the rest of the work to the
 * engine. For the remaining life of the connection.
 */
export function overrideClock(
  driver: Driver,
  connection: Connection,
  at: Date,
): { readonly close: () => void } {
  const engine = openScratch(driver);
  const call = (name: string, args: readonly Cell[]): Cell =>
    engine.value(`SELECT ${name}(${args.map(() => "?").join(", ")})`, ...args);
  const now = at.toISOString().slice(0, 23).replace("T", " ");
  for (const { name, times } of CLOCK_FUNCTIONS) {
    connection.db.function(name, { varargs: true, deterministic: true }, (...args: Cell[]) =>
      call(name, withNow(args, times, now)),
    );
  }
  for (const name of ["date", "time", "datetime"]) {
    const current = name === "datetime" ? "current_timestamp" : `current_${name}`;
    connection.db.function(current, { deterministic: true }, () => call(name, [now]));
  }
  return engine;
}

function withNow(args: readonly Cell[], times: readonly number[], now: string): readonly Cell[] {
  const filled = times.reduce<readonly Cell[]>((all, i) => (all.length === i ? [...all, now] : all), args);
  return filled.map((a, i) =>
    times.includes(i) && typeof a === "string" && a.toLowerCase() === "now" ? now : a,
  );
}
