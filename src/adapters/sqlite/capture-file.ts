/**
 * What a capture found, as a working file that the engine fills by itself: on a private copy no row need cross into
 * JavaScript for it. Only for tables whose key is the rowid, and only where every cell says exactly what it is:
 *
 * | what a cell may hide | how it is noticed |
 * | --- | --- |
 * | text that is not UTF-8 | text is handed over 256 rows at a time, and U+FFFD looked for |
 * | -0.0 | a real zero is one too many, in a column whose type lets it be one |
 * | text too long to look at many at a time | `octet_length` |
 *
 * Where one is noticed the table is told row by row instead.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { StoredChanges, TableShape } from "../../changeset/change.js";
import type { Cell, Connection } from "./driver.js";
import { mayHoldRealZero } from "./schema.js";

const DATABASE = "holdpoint_captured";
/** Longer texts are not looked at together with others. */
const LONG_BYTES = 4 * 1024;
/** Rows whose texts are looked at together. */
const ROWS_AT_ONCE = 256;

/** How many changes a file took from one table. */
export interface Filed {
  readonly rows: number;
  readonly inserts: number;
}

/** A file beside a private copy, attached to the connection that captures there. */
export class CaptureFile {
  readonly #connection: Connection;
  readonly #path: string;
  readonly #tables = new Map<string, { readonly name: string; readonly width: number }>();

  /** Outside a transaction. The folder is private, and removed by whoever made it. */
  constructor(connection: Connection, folder: string) {
    this.#connection = connection;
    this.#path = join(folder, "captured.db");
    // An empty file is an empty database; a connection that must not create one attaches it.
    writeFileSync(this.#path, "", { mode: 0o600, flag: "wx" });
    connection.run(`ATTACH ? AS ${DATABASE}`, this.#path);
    connection.exec(`PRAGMA ${DATABASE}.synchronous = OFF`);
    connection.value(`PRAGMA ${DATABASE}.journal_mode = MEMORY`);
  }

  /**
   * Takes the rows of `select`: columns as in a working file's table, images without names. Null where some cell is not
   * exactly what it seems; what was taken of the table is then gone again.
   */
  take(shape: TableShape, select: string): Filed | null {
    const width = shape.columns.length;
    const name = `t${this.#tables.size}`;
    const table = `${DATABASE}.${name}`;
    const images = [...columns("b", width), ...columns("a", width)];
    this.#connection.exec(
      `CREATE TABLE ${table} (op, origin, link, count, key BLOB PRIMARY KEY NOT NULL, exact, ${images.join(", ")}) WITHOUT ROWID`,
    );
    this.#connection.run(`INSERT INTO ${table} ${select}`);
    const mayHideZero = shape.columns.map(({ type }) => mayHoldRealZero(type));
    if (!this.#isPlain(table, images, [...mayHideZero, ...mayHideZero])) {
      this.#connection.exec(`DROP TABLE ${table}`);
      return null;
    }
    this.#tables.set(shape.name, { name, width });
    const [rows, inserts] = this.#connection.row(`SELECT count(*), total(op = 'insert') FROM ${table}`) ?? [];
    return { rows: Number(rows ?? 0), inserts: Number(inserts ?? 0) };
  }

  /** What it took, once the transaction is committed. */
  stored(): StoredChanges {
    return {
      path: this.#path,
      table: (name) => {
        const found = this.#tables.get(name);
        if (found === undefined) return undefined;
        return {
          name: found.name,
          before: columns("b", found.width),
          after: columns("a", found.width),
          above: null,
          upTo: null,
          inverted: false,
        };
      },
    };
  }

  #isPlain(table: string, images: readonly string[], mayHideZero: readonly boolean[]): boolean {
    // Texts and blobs sort behind all else, which is told faster than their type; most cells are ruled out by it.
    const odd = images.map((c, i) => {
      const long = `(${c} >= '' AND octet_length(${c}) > ${LONG_BYTES} AND typeof(${c}) = 'text')`;
      return mayHideZero[i] === true ? `${realZero(c)} OR ${long}` : long;
    });
    const behind = images.map((c) => `max(${c} >= '')`);
    const [isOdd, ...mayBeText] =
      this.#connection.row(`SELECT max(${odd.join(" OR ")}), ${behind.join(", ")} FROM ${table}`) ?? [];
    if (isOdd === 1n) return false;
    const texts = images.filter((_, i) => mayBeText[i] === 1n);
    return texts.length === 0 || this.#isUtf8(table, texts);
  }

  /** Whether no text of these columns has bytes that are not UTF-8. A blob is no text. */
  #isUtf8(table: string, columns: readonly string[]): boolean {
    // A comma between texts, so that two halves of a character do not make a whole one.
    const text = columns
      .map((c) => `CASE typeof(${c}) WHEN 'text' THEN ${c} ELSE '' END`)
      .join(" || ',' || ");
    const page = `SELECT max(key), group_concat(text) FROM
      (SELECT key, ${text} AS text FROM ${table} WHERE key > ? ORDER BY key LIMIT ${ROWS_AT_ONCE})`;
    for (let above: Cell = Buffer.alloc(0); ;) {
      const [last, together]: readonly (Cell | undefined)[] = this.#connection.row(page, above) ?? [];
      if (last === null || last === undefined) return true;
      if (String(together).includes("\ufffd")) return false;
      above = last;
    }
  }
}

/** `keyBytes` of an integer: its sign bit flipped, big-endian, behind the tag. */
export function integerKey(cell: string): string {
  const flipped = `CASE WHEN ${cell} >= 0 THEN ${cell} - 9223372036854775807 - 1 ELSE ${cell} + 9223372036854775807 + 1 END`;
  return `unhex('10' || printf('%016x', ${flipped}))`;
}

/** Whether two cells of a column are not the same to the bit; a zero that may hide its sign is told, so that it is noticed. */
export function mayDiffer(now: string, was: string, type: string): string {
  // Of two values of one type that are equal for the engine, one look tells whether both are zeros.
  const zero = mayHoldRealZero(type) ? ` OR ${realZero(now)}` : "";
  return `typeof(${now}) <> typeof(${was}) OR +${now} IS NOT +${was} COLLATE BINARY${zero}`;
}

/** A number that SQL cannot tell from -0.0. */
function realZero(cell: string): string {
  return `(+${cell} = 0 AND typeof(${cell}) = 'real')`;
}

function columns(prefix: string, width: number): readonly string[] {
  return Array.from({ length: width }, (_, i) => `${prefix}${i}`);
}
