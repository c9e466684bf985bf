/** Rows of a snapshot as a plain SQLite file, for people who want to look: data alone, without constraints or triggers. */
import { UsageError } from "../base/errors.js";
import { beforeOf, type ChangeSource, countOf, type TableShape } from "../changeset/change.js";
import { toCell } from "./cells.js";
import { putWhole } from "./files.js";
import { type Database, loadSqlite, plainFileAt, quoteName, sqliteFailure, touchPrivate } from "./sqlite.js";

/**
 * Writes the rows of `source` into a fresh file at `path`.
 * @throws UsageError ERR_USAGE when something is there already.
 */
export async function writeRows(
  path: string,
  tables: readonly TableShape[],
  source: ChangeSource,
): Promise<void> {
  const sqlite = await loadSqlite();
  if (plainFileAt(path))
    throw new UsageError({
      code: "ERR_USAGE",
      message: `${path} exists already`,
      why: "nothing is overwritten",
    });
  // Under another name until it is whole: half a file would look like the snapshot, and stand in the way of the next try.
  await putWhole(path, async (temporary) => {
    touchPrivate(temporary);
    const db = new sqlite(temporary, { fileMustExist: true });
    try {
      db.transaction(() => {
        for (const shape of tables) writeTable(db, shape, source);
      })();
    } catch (e) {
      throw sqliteFailure("write", path, "ERR_STORE_FAILED", e);
    } finally {
      db.close();
    }
  });
}

function writeTable(db: Database, shape: TableShape, source: ChangeSource): void {
  const table = quoteName(shape.name);
  db.exec(`CREATE TABLE ${table} (${shape.columns.map((c) => `${quoteName(c.name)} ${c.type}`).join(", ")})`);
  const insert = db.prepare(`INSERT INTO ${table} VALUES (${shape.columns.map(() => "?").join(", ")})`);
  for (const change of source.changes(shape.name)) {
    const cells = (beforeOf(change) ?? []).map((v) => toCell(v).cell);
    for (let i = 0; i < countOf(change); i++) insert.run(cells);
  }
}
