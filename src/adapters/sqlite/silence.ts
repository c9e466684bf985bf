/**
 * Keeping triggers silent while rows are written. The driver has no switch for that, so they are dropped inside the
 * batch's transaction and made again before its end: same text, same place in `sqlite_schema`, so that a dump before
 * and after is equal. No other connection ever sees the database without them.
 */
import type { Connection } from "./driver.js";
import { fold, quote } from "./names.js";

interface Trigger {
  readonly rowid: bigint;
  readonly name: string;
  readonly sql: string;
}

/** Triggers that are silent until {@link SilencedTriggers.restore}; a rollback brings them back too. */
export class SilencedTriggers {
  readonly #connection: Connection;
  readonly #triggers: readonly Trigger[];

  /** Silences all triggers on these tables. The connection must be in a transaction. */
  constructor(connection: Connection, tables: Iterable<string>) {
    const wanted = new Set([...tables].map(fold));
    this.#connection = connection;
    this.#triggers = connection
      .rows("SELECT rowid, name, sql, tbl_name FROM main.sqlite_schema WHERE type = 'trigger' ORDER BY rowid")
      .filter((row) => wanted.has(fold(String(row[3]))))
      .map(([rowid, name, sql]) => ({ rowid: BigInt(String(rowid)), name: String(name), sql: String(sql) }));
    for (const { name } of this.#triggers) connection.exec(`DROP TRIGGER main.${quote(name)}`);
  }

  /**
   * Makes them again, in ascending order of their former places: a new one comes last and moves to its own place
   * at once, which nobody has taken.
   */
  restore(): void {
    if (this.#triggers.length === 0) return;
    const { db } = this.#connection;
    // `sqlite_schema` can be written only with the driver's protection off; only these statements run meanwhile.
    db.unsafeMode(true);
    try {
      for (const trigger of this.#triggers) this.#make(trigger);
    } finally {
      this.#connection.exec("PRAGMA writable_schema = OFF");
      db.unsafeMode(false);
    }
  }

  #make({ rowid, name, sql }: Trigger): void {
    this.#connection.exec(sql);
    this.#connection.exec("PRAGMA writable_schema = ON");
    const update = "UPDATE main.sqlite_schema SET rowid = ?, sql = ? WHERE type = 'trigger' AND name = ?";
    this.#connection.db.prepare(update).run(rowid, sql, name);
    this.#connection.exec("PRAGMA writable_schema = OFF");
  }
}
