/** What an SQLite file in use cannot hide: how large it is, whose it is, how new its newest rows are, who has it open. */
import { readFileSync, statSync } from "node:fs";
import type { Value } from "../../changeset/value.js";
import type { Evidence } from "../../environment/evidence.js";
import type { Newest, VitalColumn, Vitals } from "../../target/vitals.js";
import type { Connection } from "./driver.js";
import { literal, main, quote } from "./names.js";
import { encodingOf, readCatalogue, type TableInfo } from "./schema.js";
import { bound, exactly, fromExact, placeholder } from "./values.js";

/** `Target.vitals`. */
export function vitals(connection: Connection, newest: readonly VitalColumn[]): Vitals {
  return {
    sizeBytes: sizeOf(connection.path),
    newest: newest.map((column) => newestOf(connection, column)),
    history: {},
    copies: {
      kind: "told",
      by: "path, inode and birth time of the file; an image of the whole disk has them too",
    },
    signals: [informs("file owner", ownerInWords(connection.path)), ...usersOf(connection.path)],
  };
}

/** `Target.countByValue`: by the column's index where there is one, else in one pass over the table. */
export function countByValue(
  connection: Connection,
  table: string,
  column: string,
  values: readonly Value[],
): readonly number[] {
  const from = main(table);
  if (indexBeginsWith(connection, table, column)) {
    return values.map((v) =>
      Number(
        connection.value(
          `SELECT count(*) FROM ${from} WHERE ${quote(column)} IS ${placeholder(v)}`,
          bound(v),
        ),
      ),
    );
  }
  const counts = new Map<string, number>();
  const encoding = encodingOf(connection);
  const name = `${quote(column)} COLLATE BINARY`;
  for (const cells of connection.iterate(
    `SELECT count(*), ${exactly(quote(column))} FROM ${from} GROUP BY ${name}`,
  )) {
    const [value = null] = fromExact(cells, 1, 1, encoding);
    counts.set(identityOf(value), Number(cells[0]));
  }
  return values.map((v) => counts.get(identityOf(v)) ?? 0);
}

/** One text for one stored value. */
function identityOf(value: Value): string {
  if (value === null || typeof value !== "object") return `${typeof value} ${String(value)}`;
  const bytes = "kind" in value ? value.bytes : value;
  return `${"kind" in value ? "text" : "bytes"} ${Buffer.from(bytes).toString("hex")}`;
}

function sizeOf(path: string): number {
  const wal = statSync(`${path}-wal`, { throwIfNoEntry: false });
  return statSync(path).size + (wal?.size ?? 0);
}

/** Only where an index begins with the column: asking who we are must not read a whole table. */
function newestOf(connection: Connection, { table, column }: VitalColumn): Newest {
  const found = readCatalogue(connection).tables.find((t) => t.name === table);
  if (found === undefined) return { kind: "not-read", why: `there is no table ${table}` };
  const index = found.shape.columns.findIndex((c) => c.name === column);
  if (index < 0) return { kind: "not-read", why: `${table} has no column ${column}` };
  if (!isKeyOf(found, index) && !indexBeginsWith(connection, table, column))
    return { kind: "not-read", why: `no index of ${table} begins with ${column}` };
  return { kind: "value", value: connection.value(`SELECT max(${quote(column)}) FROM ${main(table)}`) };
}

function isKeyOf(table: TableInfo, column: number): boolean {
  return table.alias === column;
}

/** A partial index lists not all rows, and one of another collation finds other ones. */
function indexBeginsWith(connection: Connection, table: string, column: string): boolean {
  return (
    connection.value(
      `SELECT count(*) FROM pragma_index_list(${literal(table)}, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS x
       WHERE i.partial = 0 AND x.seqno = 0 AND x.name = ${literal(column)} AND x.coll = 'BINARY'`,
    ) !== 0n
  );
}

function ownerInWords(path: string): string {
  const { uid, mode } = statSync(path);
  const mine = process.getuid?.();
  const who =
    mine === undefined
      ? "not known on this system"
      : mine === uid
        ? "this login"
        : `user ${uid}, not this login`;
  if ((mode & 0o002) !== 0) return `${who}; everybody can write it`;
  return (mode & 0o020) === 0 ? who : `${who}; its group can write it`;
}

/** Offsets of SQLite's locks: in the shared-memory file of a write-ahead log, and in the database file itself. */
const WAL_WRITE = 120;
const WAL_READ = { from: 123, to: 127 };
const PENDING = 0x4000_0000;
const RESERVED = PENDING + 1;
const SHARED = { from: PENDING + 2, to: PENDING + 511 };

/** Other processes that read or write now, told by their locks where the system shows them (Linux: /proc/locks). */
function usersOf(path: string): readonly Evidence[] {
  const [main, shared] = [path, `${path}-shm`].map((p) => statSync(p, { throwIfNoEntry: false })?.ino);
  let locks: string;
  try {
    locks = readFileSync("/proc/locks", "utf8");
  } catch {
    return []; // Not this system: then nothing is said, and nothing follows from it.
  }
  const open = new Set<string>();
  const reading = new Set<string>();
  const writing = new Set<string>();
  for (const line of locks.split("\n")) {
    const [, pid = "", inode, from = "", to = ""] =
      /\s(\d+)\s[0-9a-f]+:[0-9a-f]+:(\d+)\s(\d+)\s(\d+|EOF)/i.exec(line) ?? [];
    if (pid === "" || pid === String(process.pid) || inode === undefined) continue;
    const [first, last] = [Number(from), to === "EOF" ? Number.MAX_SAFE_INTEGER : Number(to)];
    const covers = (a: number, b: number): boolean => first <= b && last >= a;
    const isMain = inode === String(main);
    if (!isMain && inode !== String(shared)) continue;
    open.add(pid);
    if (isMain ? covers(SHARED.from, SHARED.to) : covers(WAL_READ.from, WAL_READ.to)) reading.add(pid);
    if (isMain ? covers(RESERVED, RESERVED) : covers(WAL_WRITE, WAL_WRITE)) writing.add(pid);
  }
  if (open.size === 0) return [];
  return [
    informs("in use", `${processes(open.size)} open, ${reading.size} reading, ${writing.size} writing`),
  ];
}

function processes(n: number): string {
  return n === 1 ? "1 other process has it" : `${n} other processes have it`;
}

function informs(source: string, detail: string): Evidence {
  return { source, side: "target", strength: "none", says: null, state: "informs", detail };
}
