/** What a module job writes with, inside its child: a plain connection to the private copy. */
import type Database from "better-sqlite3";
import type { JobConnection, JobConnector, JobRow, JobValues } from "../../target/job-connection.js";
import { loadDriver } from "./driver.js";

/**
 * Opens an existing copy; never creates a file.
 * Setting: `foreign_keys` `on` or `off`, as the target's own connections have it.
 */
export const openJobConnection: JobConnector = async (path, settings) => {
  const Driver = await loadDriver();
  const db = new Driver(path, { fileMustExist: true });
  db.defaultSafeIntegers(true);
  // The switch works only outside a transaction, so it comes first.
  db.pragma(`foreign_keys = ${settings["foreign_keys"] === "on" ? "ON" : "OFF"}`);
  return connectionTo(db);
};

function connectionTo(db: Database.Database): JobConnection {
  // A job runs few texts many times: keep what was prepared.
  const prepared = new Map<string, Database.Statement<[JobValues], JobRow>>();
  const prepare = (sql: string): Database.Statement<[JobValues], JobRow> => {
    const known = prepared.get(sql);
    if (known !== undefined) return known;
    const statement = db.prepare<[JobValues], JobRow>(sql);
    if (prepared.size < 256) prepared.set(sql, statement);
    return statement;
  };
  return {
    all: (sql, values) => prepare(sql).all(values),
    iterate: (sql, values) => prepare(sql).iterate(values),
    run: (sql, values) => {
      const statement = prepare(sql);
      // INSERT … RETURNING gives rows: the driver wants them read.
      if (!statement.reader) return { changes: statement.run(values).changes };
      return { changes: statement.all(values).length };
    },
    begin: () => void db.exec("BEGIN IMMEDIATE"),
    commit: () => void db.exec("COMMIT"),
    close: () => {
      if (db.inTransaction) db.exec("ROLLBACK");
      db.close();
    },
  };
}
