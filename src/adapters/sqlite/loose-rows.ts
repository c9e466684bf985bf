/**
 * Rows put side by side by key, in a temporary database of our own that spills to disk: for keys that left
 * one place and came to another, and for counting equal rows. Nothing here touches the target.
 */
import { deserialize, serialize } from "node:v8";
import { keyOf, type Change, type Origin, type RowKey, type TableShape } from "../../changeset/change.js";
import { keyBytes } from "../../changeset/key.js";
import { sameRow, type Row } from "../../changeset/value.js";
import { Connection, type Cell, type Driver } from "./driver.js";

/** Opens an anonymous database: in memory while small, else in a file without a name that ends with it. */
export function openScratch(driver: Driver): Connection {
  const connection = new Connection(new driver(""), "");
  connection.exec("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF");
  return connection;
}

/** A collection of rows by key. Close it in `finally`. */
export class LooseRows {
  readonly #db: Connection;

  constructor(driver: Driver) {
    this.#db = openScratch(driver);
    this.#db.exec(
      "CREATE TABLE loose (key BLOB PRIMARY KEY, was BLOB, now BLOB, to_key BLOB, from_key BLOB, n INTEGER)",
    );
    this.#db.exec("BEGIN");
  }

  /** A row was at `key` before. `to`: where the same entity is now, if it is known to be elsewhere. */
  leave(key: RowKey, row: Row, to: RowKey | null): void {
    this.#db.run(
      `INSERT INTO loose (key, was, to_key) VALUES (?, ?, ?)
       ON CONFLICT DO UPDATE SET was = excluded.was, to_key = excluded.to_key`,
      keyBytes(key),
      serialize(row),
      to && serialize(to),
    );
  }

  /** A row is at `key` now. `from`: where the same entity was before, if it is known to have been elsewhere. */
  come(key: RowKey, row: Row, from: RowKey | null): void {
    this.#db.run(
      `INSERT INTO loose (key, now, from_key) VALUES (?, ?, ?)
       ON CONFLICT DO UPDATE SET now = excluded.now, from_key = excluded.from_key`,
      keyBytes(key),
      serialize(row),
      from && serialize(from),
    );
  }

  /** What happened to each key; a link only where both ends tell it. */
  *keyedChanges(shape: TableShape, origin: Origin): Generator<Change, undefined> {
    for (const [, was, now, to, from] of this.#db.iterate(
      "SELECT key, was, now, to_key, from_key FROM loose",
    )) {
      const [before, after] = [this.#values(was), this.#values(now)];
      if (before !== null && after !== null) {
        if (sameRow(before, after)) continue;
        yield { table: shape.name, key: keyOf(shape, before), origin, op: "update", before, after };
      } else if (before !== null) {
        const key = keyOf(shape, before);
        yield {
          table: shape.name,
          key,
          origin,
          op: "delete",
          before,
          ...this.#link(this.#values(to), "from", key),
        };
      } else if (after !== null) {
        const key = keyOf(shape, after);
        yield {
          table: shape.name,
          key,
          origin,
          op: "insert",
          after,
          ...this.#link(this.#values(from), "to", key),
        };
      }
    }
  }

  /** There are `by` more rows equal to `row` now than before. */
  count(row: Row, by: 1 | -1): void {
    this.#db.run(
      `INSERT INTO loose (key, was, n) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n`,
      keyBytes(row),
      serialize(row),
      BigInt(by),
    );
  }

  /** The change of each counted row. */
  *countedChanges(shape: TableShape, origin: Origin): Generator<Change, undefined> {
    for (const [stored, n] of this.#db.iterate("SELECT was, n FROM loose WHERE n <> 0")) {
      const row = this.#values(stored) ?? [];
      const count = Math.abs(Number(n));
      const facts = { table: shape.name, key: row, origin, ...(count === 1 ? {} : { count }) };
      yield Number(n) < 0 ? { ...facts, op: "delete", before: row } : { ...facts, op: "insert", after: row };
    }
  }

  close(): void {
    this.#db.close();
  }

  /** The other end, if there a row appears (or goes away) that names this key as its other end. */
  #link(
    other: RowKey | null,
    back: "from" | "to",
    key: RowKey,
  ): { readonly link: RowKey } | Record<string, never> {
    if (other === null) return {};
    const only = back === "from" ? "was IS NULL" : "now IS NULL";
    const named = this.#db.value(`SELECT ${back}_key FROM loose WHERE key = ? AND ${only}`, keyBytes(other));
    const names = this.#values(named);
    return names !== null && sameRow(names, key) ? { link: other } : {};
  }

  #values(stored: Cell | undefined): Row | null {
    return Buffer.isBuffer(stored) ? (deserialize(stored) as Row) : null;
  }
}
