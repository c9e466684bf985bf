/**
 * A working ChangeSet copied in the order in which it is written: each key begins with the number of its transaction, so that
 * the rows of one lie together however they hang together, and one transaction is a range of keys like any other part of a
 * working file. The engine copies them; what is held is the deal itself.
 */
import { canonical } from "../base/canonical.js";
import { IntegrityError } from "../base/errors.js";
import type { Deal } from "../changeset/waves.js";
import {
  APPLICATION_ID,
  createSql,
  dealtCountsSql,
  dealtSql,
  layoutToJson,
  SHAPE_SQL,
  SHAPE_TABLE,
  type TableLayout,
} from "./changes-layout.js";
import { type Database, discard, type Sqlite, sqliteFailure, touchPrivate } from "./sqlite.js";

/** One transaction's share of the copy: its tables, and between which keys its rows lie. */
export interface DealtPart {
  readonly tables: readonly string[];
  readonly above: Uint8Array;
  readonly upTo: Uint8Array;
}

/** The file that is copied: its tables in canonical order. */
export interface DealtFrom {
  readonly path: string;
  readonly layouts: readonly TableLayout[];
}

/**
 * Writes the copy and gives the parts of the deal, in its order.
 * @throws IntegrityError ERR_CHANGESET_ALTERED when the copy does not hold in each part what the deal put there.
 */
export function writeDealt(sqlite: Sqlite, path: string, from: DealtFrom, deal: Deal): readonly DealtPart[] {
  discard(path);
  touchPrivate(path);
  let db: Database | undefined;
  try {
    db = new sqlite(path, { fileMustExist: true });
    // Nobody reads the file before it is whole and it can always be made again: no journal, no flushing.
    db.pragma("journal_mode = OFF");
    db.pragma("synchronous = OFF");
    db.prepare("ATTACH ? AS other").run(from.path);
    db.exec(`BEGIN; ${SHAPE_SQL}`);
    const parts = copied(db, path, from.layouts, deal);
    db.pragma(`application_id = ${APPLICATION_ID}`);
    db.exec("COMMIT");
    db.close();
    return parts;
  } catch (e) {
    db?.close();
    discard(path);
    throw sqliteFailure("write", path, "ERR_CHANGESET_ALTERED", e);
  }
}

function copied(
  db: Database,
  path: string,
  layouts: readonly TableLayout[],
  { batches, batchOf }: Deal,
): readonly DealtPart[] {
  const places = Buffer.alloc(4 * batchOf.length);
  batchOf.forEach((batch, number) => places.writeUInt32BE(batch, 4 * number));
  const save = db.prepare(`INSERT INTO ${SHAPE_TABLE} (position, layout) VALUES (?, ?)`);
  const tables = batches.map((): string[] => []);
  let first = 0;
  layouts.forEach((layout, position) => {
    db.exec(createSql(layout));
    save.run(position, canonical(layoutToJson(layout)));
    const { changes } = db.prepare(dealtSql(layout, "other")).run(places, first);
    const dealt = countsOf(batchOf.subarray(first, first + changes), batches.length);
    for (const [batch, rows] of countedIn(db, layout)) {
      if (dealt[batch] !== rows) throw misdealt(path, layout.shape.name);
      dealt[batch] = 0;
      tables[batch]?.push(layout.shape.name);
    }
    if (dealt.some((rows) => rows > 0)) throw misdealt(path, layout.shape.name);
    first += changes;
  });
  if (first !== batchOf.length) throw misdealt(path, "its tables");
  return tables.map((names, batch) => ({
    tables: names,
    above: beginning(batch),
    upTo: Buffer.concat([beginning(batch), Buffer.of(0xff)]),
  }));
}

function countsOf(batchOf: Uint32Array, batches: number): Uint32Array {
  const counts = new Uint32Array(batches);
  for (const batch of batchOf) counts[batch] = (counts[batch] ?? 0) + 1;
  return counts;
}

function* countedIn(db: Database, layout: TableLayout): Generator<readonly [number, number], undefined> {
  for (const row of db.prepare(dealtCountsSql(layout)).raw(true).iterate()) {
    const [batch, rows] = row as readonly [Buffer, number];
    yield [batch.readUInt32BE(0), rows];
  }
}

function beginning(batch: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(batch);
  return bytes;
}

function misdealt(path: string, table: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_CHANGESET_ALTERED",
    message: `${path} does not hold the changes of ${table} as they were dealt`,
    why: "a transaction would be written with other rows than its own",
    next: [{ actor: "anyone", text: "run the command again: working files are made anew from the plan" }],
  });
}
