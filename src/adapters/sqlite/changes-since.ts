/** What changed in the database since a copy of it was made, found by the engine: no equal row is handed over. */
import { join } from "node:path";
import type { Random } from "../../base/clock.js";
import { HoldpointError } from "../../base/errors.js";
import type { ChangeSink, TableShape } from "../../changeset/change.js";
import { sameShape } from "../../changeset/well-formed.js";
import { CaptureFile } from "./capture-file.js";
import { attachBefore, compareCopies, detachBefore, fileComparison } from "./compare-copies.js";
import type { Side } from "./compare.js";
import { copyDatabase, makeScratch } from "./copy.js";
import { type Connection, type Driver, openFile } from "./driver.js";
import { fold, main } from "./names.js";
import { prepareForReading } from "./read.js";
import { readCatalogue } from "./schema.js";

/** What finding them works with. */
export interface SinceSetting {
  readonly driver: Driver;
  /** A read-only connection to the target. */
  readonly reader: Connection;
  readonly busyMs: number;
  readonly random: Random;
  readonly scratchDir: string;
}

/**
 * Tells `sink` the changes of the tables from the private copy at `path` to what the target holds, each as of one moment;
 * returns how many rows each table had. Null where the engine cannot compare the two: another encoding of text. A sink that
 * takes files is given them: then the target is copied too, where the engine may write beside it what it found, and nobody
 * waits while it compares.
 */
export async function changesSince(
  setting: SinceSetting,
  path: string,
  tables: readonly TableShape[],
  sink: ChangeSink,
): Promise<ReadonlyMap<string, number> | null> {
  const { driver, reader, busyMs } = setting;
  const before = openFile(driver, path, { readonly: true, busyMs, foreignKeys: false });
  try {
    prepareForReading(before);
    const [was, is] = [readCatalogue(before), readCatalogue(reader)];
    if (was.encoding !== is.encoding) return null;
    return sink.addStored === undefined || is.encoding !== "UTF-8"
      ? told(before, reader, tables, sink)
      : await filed(setting, before, tables, sink);
  } finally {
    before.close();
  }
}

function told(
  before: Connection,
  now: Connection,
  tables: readonly TableShape[],
  sink: ChangeSink,
): ReadonlyMap<string, number> {
  attachBefore(before, now);
  try {
    for (const connection of [before, now]) connection.exec("BEGIN");
    const [was, is] = [sideOf(before), sideOf(now)];
    for (const { name } of tables) for (const change of compareCopies(name, was, is)) sink.add(change);
    return rowsOf(was, tables);
  } finally {
    for (const connection of [before, now]) connection.rollback();
    detachBefore(now);
  }
}

async function filed(
  { driver, reader, random, scratchDir }: SinceSetting,
  before: Connection,
  tables: readonly TableShape[],
  sink: ChangeSink,
): Promise<ReadonlyMap<string, number>> {
  const scratch = makeScratch(scratchDir, random);
  try {
    const copy = await copyDatabase(reader, join(scratch.path, "now"));
    const now = openFile(driver, copy, { readonly: false, busyMs: 0, foreignKeys: false });
    try {
      prepareForReading(now);
      const file = new CaptureFile(now, scratch.path);
      attachBefore(before, now);
      const [was, is] = [sideOf(before), sideOf(now)];
      const taken: TableShape[] = [];
      for (const shape of tables) {
        const own = is.catalogue.byName.get(fold(shape.name))?.shape;
        const same = own !== undefined && sameShape(own, shape);
        const found = same ? fileComparison(shape.name, was, is, file) : null;
        if (found === null) for (const change of compareCopies(shape.name, was, is)) sink.add(change);
        else if (found.rows > 0) taken.push(shape);
      }
      // Last: whoever takes it holds the file from then on.
      for (const shape of taken) if (sink.addStored?.(shape, file.stored()) !== true) throw notTaken(shape);
      return rowsOf(was, tables);
    } finally {
      now.close();
    }
  } finally {
    scratch.remove();
  }
}

function sideOf(connection: Connection): Side {
  return { connection, catalogue: readCatalogue(connection) };
}

function rowsOf({ connection, catalogue }: Side, tables: readonly TableShape[]): ReadonlyMap<string, number> {
  return new Map(
    tables.map(({ name }) => {
      const had = catalogue.byName.has(fold(name));
      return [name, had ? Number(connection.value(`SELECT count(*) FROM ${main(name)}`)) : 0];
    }),
  );
}

function notTaken({ name }: TableShape): HoldpointError {
  return new HoldpointError({
    code: "ERR_INTERNAL",
    message: `what changed in ${name} was found and could not be taken over`,
  });
}
