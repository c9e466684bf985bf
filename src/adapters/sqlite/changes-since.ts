/** What changed in the database since a copy of it was made, found by the engine: no equal row is handed over. */
import type { ChangeSink, TableShape } from "../../changeset/change.js";
import { attachBefore, compareCopies, detachBefore } from "./compare-copies.js";
import type { Connection } from "./driver.js";
import { fold, main } from "./names.js";
import { readCatalogue } from "./schema.js";

/**
 * Tells `sink` the changes of the tables from `before` to what `now` reads, both as of one moment; returns how many
 * rows each table had. Null where the engine cannot compare the two: another encoding of text. Neither connection may be
 * in a transaction.
 */
export function changesSince(
  before: Connection,
  now: Connection,
  tables: readonly TableShape[],
  sink: ChangeSink,
): ReadonlyMap<string, number> | null {
  if (readCatalogue(before).encoding !== readCatalogue(now).encoding) return null;
  const rowsBefore = new Map<string, number>();
  attachBefore(before, now);
  try {
    for (const connection of [before, now]) connection.exec("BEGIN");
    const [was, is] = [
      { connection: before, catalogue: readCatalogue(before) },
      { connection: now, catalogue: readCatalogue(now) },
    ];
    for (const { name } of tables) {
      for (const change of compareCopies(name, was, is)) sink.add(change);
      const had = was.catalogue.byName.has(fold(name));
      rowsBefore.set(name, had ? Number(before.value(`SELECT count(*) FROM ${main(name)}`)) : 0);
    }
    return rowsBefore;
  } finally {
    for (const connection of [before, now]) connection.rollback();
    detachBefore(now);
  }
}
