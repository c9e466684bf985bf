/**
 * Writing the changes of one table. Foreign keys and triggers are silent, so the order among tables does not matter;
 * within a table only unique values can stand in one another's way.
 *
 * Each change is tried as it comes. One that fails because another row still holds its unique value waits; when all
 * have been tried, the updates that still wait are taken out and put in again with their new cells, which breaks every
 * cycle of swapped values, and the waiting inserts follow. What fails then is really in conflict.
 */
import { deserialize, serialize } from "node:v8";
import { codeOf, HoldpointError, messageOf } from "../../base/errors.js";
import { countOf, type Change, type Insert, type TableShape, type Update } from "../../changeset/change.js";
import { keyBytes } from "../../changeset/key.js";
import { standingOf } from "../../changeset/merge.js";
import { sameValue, type Row } from "../../changeset/value.js";
import type { WriteProblem } from "../../target/target.js";
import { isConstraint, type Connection, type Driver } from "./driver.js";
import { openScratch } from "./loose-rows.js";
import { main, quote } from "./names.js";
import type { Located, TableReader } from "./read.js";
import { bound, placeholder } from "./values.js";

/** Beyond so many problems nothing new is learnt. */
const MOST_PROBLEMS = 1_000;
/** So many rows of a table without a key are looked up one by one; for more the table is read once. */
const FEW = 16;

/** How the writing of one table went. */
export interface TableOutcome {
  readonly written: number;
  readonly alreadyDone: number;
  readonly problems: readonly WriteProblem[];
}

/** Writes one table's changes; `changes` may be read several times. */
export class TableWriter {
  readonly #driver: Driver;
  readonly #reader: TableReader;
  readonly #shape: TableShape;
  readonly #problems: WriteProblem[] = [];
  #written = 0;
  #alreadyDone = 0;
  /** Rows changed by our own statements, to be held against the engine's total. */
  executed = 0;

  constructor(driver: Driver, reader: TableReader, shape: TableShape) {
    this.#driver = driver;
    this.#reader = reader;
    this.#shape = shape;
  }

  write(changes: () => Iterable<Change>): TableOutcome {
    if (this.#shape.keyKind === "none") this.#writeCounted(changes);
    else this.#writeKeyed(changes);
    return { written: this.#written, alreadyDone: this.#alreadyDone, problems: this.#problems };
  }

  // ---- tables with a key

  #writeKeyed(changes: () => Iterable<Change>): void {
    let waiting = 0;
    for (const change of changes()) {
      if (this.#problems.length >= MOST_PROBLEMS) return;
      if (this.#tryOne(change) === "waits") waiting++;
    }
    if (waiting > 0) this.#writeWaiting(changes);
  }

  #tryOne(change: Change): "done" | "waits" {
    const found = this.#reader.byKey(this.#shape, change.key);
    const standing = standingOf(this.#shape, change, found?.row ?? null);
    switch (standing.state) {
      case "as-after":
        this.#alreadyDone++;
        return "done";
      case "conflict":
        this.#problems.push({
          kind: "drift",
          change,
          now: found?.row ?? null,
          nowCount: found === null ? 0 : 1,
        });
        return "done";
      case "as-before":
        return this.#writeOne(change, found);
    }
  }

  #writeOne(change: Change, found: Located | null): "done" | "waits" {
    try {
      this.#execute(change, found);
      this.#written++;
      return "done";
    } catch (e) {
      if (isTaken(e)) return "waits";
      if (!isConstraint(e)) throw e;
      this.#problems.push({ kind: "constraint", change, message: messageOf(e) });
      return "done";
    }
  }

  #execute(change: Change, found: Located | null): void {
    switch (change.op) {
      case "insert":
        return this.#insert(change.after, null);
      case "delete":
        return found === null ? undefined : this.#delete(found);
      case "update":
        return found === null ? undefined : this.#update(change, found);
    }
  }

  #writeWaiting(changes: () => Iterable<Change>): void {
    const held = new HeldRows(this.#driver);
    try {
      for (const change of changes()) {
        if (change.op !== "update") continue;
        const found = this.#reader.byKey(this.#shape, change.key);
        if (found === null || standingOf(this.#shape, change, found.row).state !== "as-before") continue;
        held.hold(change, found);
        this.#delete(found);
      }
      for (const change of changes()) {
        if (change.op === "update") this.#putBack(change, held.take(change));
        else if (change.op === "insert") this.#insertWaiting(change);
      }
    } finally {
      held.close();
    }
  }

  #putBack(change: Update, held: Located | null): void {
    if (held === null) return;
    const changed = changedColumns(change);
    const row = held.row.map((v, i) => (changed.has(i) ? (change.after[i] ?? null) : v));
    this.#tryInsert(change, row, held.rowid);
  }

  #insertWaiting(change: Insert): void {
    const found = this.#reader.byKey(this.#shape, change.key);
    if (found === null) this.#tryInsert(change, change.after, null);
  }

  #tryInsert(change: Change, row: Row, rowid: bigint | null): void {
    try {
      this.#insert(row, rowid);
      this.#written++;
    } catch (e) {
      // A row that was inserted meanwhile may have taken the rowid; where it is no column, any other will do.
      if (codeOf(e) === "SQLITE_CONSTRAINT_ROWID" && rowid !== null)
        return this.#tryInsert(change, row, null);
      if (!isConstraint(e)) throw e;
      // A check that failed on the first try is a problem that is known already.
      if (isTaken(e)) this.#problems.push({ kind: "constraint", change, message: messageOf(e) });
    }
  }

  // ---- tables without a key

  #writeCounted(changes: () => Iterable<Change>): void {
    if (countUpTo(changes(), FEW) <= FEW) this.#deleteFew(changes());
    else this.#deleteMany(changes);
    for (const change of changes()) {
      if (change.op === "insert") for (let i = 0; i < countOf(change); i++) this.#insertCounted(change);
    }
  }

  #insertCounted(change: Insert): void {
    const outcome = this.#writeOne(change, null);
    if (outcome === "done") return;
    this.#problems.push({ kind: "constraint", change, message: "a row with the same unique value is there" });
  }

  #deleteFew(changes: Iterable<Change>): void {
    for (const change of changes) {
      if (change.op !== "delete") continue;
      const equal = this.#reader.equalTo(change.before, countOf(change));
      this.#deleteAll(change, equal, equal.length);
    }
  }

  #deleteAll(change: Change, equal: readonly Located[], found: number): void {
    if (standingOf(this.#shape, change, null, found).state === "conflict") {
      this.#problems.push({ kind: "drift", change, now: null, nowCount: found });
      return;
    }
    for (const row of equal) this.#delete(row);
    this.#written += equal.length;
  }

  /** Reads the table once and picks rows that equal a wanted one; the notes are kept beside the target. */
  #deleteMany(changes: () => Iterable<Change>): void {
    const notes = openScratch(this.#driver);
    try {
      notes.exec(
        "CREATE TABLE wanted (key BLOB PRIMARY KEY, n INTEGER); CREATE TABLE picked (key BLOB, rowid_ INTEGER); BEGIN",
      );
      for (const change of changes()) {
        if (change.op !== "delete") continue;
        notes.run("INSERT INTO wanted VALUES (?, ?)", keyBytes(change.key), BigInt(countOf(change)));
      }
      for (const { row, rowid } of this.#reader.select("")) {
        const key = keyBytes(row);
        const picked = notes.run("UPDATE wanted SET n = n - 1 WHERE key = ? AND n > 0", key);
        if (picked === 1) notes.run("INSERT INTO picked VALUES (?, ?)", key, rowid);
      }
      notes.exec("CREATE INDEX picked_key ON picked (key)");
      for (const change of changes()) {
        if (change.op !== "delete") continue;
        const rowids = notes.rows("SELECT rowid_ FROM picked WHERE key = ?", keyBytes(change.key));
        const equal = rowids.map(([rowid]) => ({
          rowid: typeof rowid === "bigint" ? rowid : null,
          row: change.before,
        }));
        this.#deleteAll(change, equal, equal.length);
      }
    } finally {
      notes.close();
    }
  }

  // ---- statements. OR ABORT wins over a constraint that declares ON CONFLICT REPLACE, which would take other rows away.

  #insert(row: Row, rowid: bigint | null): void {
    const { info } = this.#reader;
    const columns = info.shape.columns.flatMap((c, i) => (c.generated === true ? [] : [i]));
    // The rowid of a table without INTEGER PRIMARY KEY is kept where we know it; that is no promise.
    const kept = rowid !== null && info.alias === null && info.rowid !== null ? [quote(info.rowid)] : [];
    const names = [...kept, ...columns.map((i) => quote(info.shape.columns[i]?.name ?? ""))];
    const values = columns.map((i) => row[i] ?? null);
    const places = [...kept.map(() => "?"), ...values.map(placeholder)];
    const sql = `INSERT OR ABORT INTO ${main(info.name)} (${names.join(", ")}) VALUES (${places.join(", ")})`;
    this.#run(sql, ...(kept.length > 0 ? [rowid] : []), ...values.map(bound));
  }

  #delete(found: Located): void {
    const [where, values] = this.#address(found);
    this.#run(`DELETE FROM ${main(this.#reader.info.name)} WHERE ${where}`, ...values);
  }

  #update(change: Update, found: Located): void {
    const { columns } = this.#reader.info.shape;
    const changed = [...changedColumns(change)].filter((i) => columns[i]?.generated !== true);
    const values = changed.map((i) => change.after[i] ?? null);
    const sets = changed.map(
      (i, at) => `${quote(columns[i]?.name ?? "")} = ${placeholder(values[at] ?? null)}`,
    );
    const [where, key] = this.#address(found);
    this.#run(
      `UPDATE OR ABORT ${main(this.#reader.info.name)} SET ${sets.join(", ")} WHERE ${where}`,
      ...values.map(bound),
      ...key,
    );
  }

  /** How a row that was just read is addressed: by rowid, else by its whole key. */
  #address({ rowid, row }: Located): readonly [string, readonly unknown[]] {
    const { info } = this.#reader;
    if (rowid !== null && info.rowid !== null) return [`${quote(info.rowid)} = ?`, [rowid]];
    const key = info.primaryKey.map((k) => ({
      name: quote(info.shape.columns[k.column]?.name ?? ""),
      value: row[k.column] ?? null,
    }));
    return [
      key.map((k) => `${k.name} = ${placeholder(k.value)}`).join(" AND "),
      key.map((k) => bound(k.value)),
    ];
  }

  #run(sql: string, ...values: readonly unknown[]): void {
    const changed = this.#reader.connection.run(sql, ...values);
    this.executed += changed;
    if (changed === 1) return;
    throw new HoldpointError({
      code: "ERR_INTERNAL",
      message: `writing one row of ${this.#reader.info.name} changed ${changed}`,
      why: "every row is addressed by itself",
    });
  }
}

/** The cells that an update changes. */
export function changedColumns({ before, after }: Update): ReadonlySet<number> {
  return new Set(after.flatMap((v, i) => (sameValue(v, before[i] ?? null) ? [] : [i])));
}

/**
 * Whether the row is as the change leaves it. Of an update only its own cells count; others may be newer. Generated
 * cells never count: the engine computes them from the cells that do, by a schema that was compared, and a merge of
 * old and new cells cannot know them beforehand.
 */
export function isAsAfter(shape: TableShape, change: Change, now: Row | null): boolean {
  if (change.op === "delete" || now === null) return change.op === "delete" && now === null;
  const mine = change.op === "update" ? changedColumns(change) : new Set(change.after.keys());
  return [...mine].every(
    (i) => shape.columns[i]?.generated === true || sameValue(now[i] ?? null, change.after[i] ?? null),
  );
}

/** Another row holds the unique value: that may pass. Every other constraint stays violated. */
function isTaken(e: unknown): boolean {
  const code = codeOf(e) ?? "";
  return ["SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID"].includes(
    code,
  );
}

function countUpTo(changes: Iterable<Change>, limit: number): number {
  let n = 0;
  for (const _ of changes) if (++n > limit) break;
  return n;
}

/** Rows that are out of the table for a moment, kept beside the target. */
class HeldRows {
  readonly #db: Connection;

  constructor(driver: Driver) {
    this.#db = openScratch(driver);
    this.#db.exec("CREATE TABLE held (key BLOB PRIMARY KEY, row BLOB, place INTEGER); BEGIN");
  }

  hold(change: Update, { row, rowid }: Located): void {
    this.#db.run("INSERT INTO held VALUES (?, ?, ?)", keyBytes(change.key), serialize(row), rowid);
  }

  take(change: Update): Located | null {
    const found = this.#db.row("SELECT row, place FROM held WHERE key = ?", keyBytes(change.key));
    if (found === undefined) return null;
    const [row, rowid] = found;
    return {
      row: Buffer.isBuffer(row) ? (deserialize(row) as Row) : [],
      rowid: typeof rowid === "bigint" ? rowid : null,
    };
  }

  close(): void {
    this.#db.close();
  }
}
