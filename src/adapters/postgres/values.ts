/**
 * Cells as text. A value travels as the text that its type's output function gives under fixed settings, or null, and
 * goes back through the type's input function, so nothing passes through a JavaScript number, date or boolean. In rows
 * the integers (`smallint`, `integer`, `bigint`) are `bigint`, everything else is that text; the column's type says how
 * to read it.
 */
import { HoldpointError } from "../../base/errors.js";
import { isRawText, type Row, type Value } from "../../changeset/value.js";

/** One cell as it travels. */
export type Cell = string | null;

/**
 * The settings under which values have exactly one text form, and names in it are qualified. `pg_temp` stands last, else
 * a temporary table of a job could shadow a catalogue. Never applied while a job runs.
 */
export const READING_SETTINGS: Readonly<Record<string, string>> = {
  search_path: "pg_catalog, pg_temp",
  DateStyle: "ISO, YMD",
  IntervalStyle: "postgres",
  TimeZone: "UTC",
  extra_float_digits: "3",
  bytea_output: "hex",
  lc_monetary: "C",
  xmloption: "content",
  array_nulls: "on",
  quote_all_identifiers: "off",
  transform_null_equals: "off",
};

/** The settings of every session, jobs included: what a filter hides is refused, and text means what it says. */
export const SESSION_SETTINGS: Readonly<Record<string, string>> = {
  client_encoding: "UTF8",
  row_security: "off",
  standard_conforming_strings: "on",
};

/** Whether values of that type are integers, which have an exact and ordered form of their own. */
export function isInteger(type: string): boolean {
  return type === "smallint" || type === "integer" || type === "bigint";
}

/** A row from cells that begin at `from`, in the order of the columns. */
export function toRow(
  columns: readonly { readonly type: string }[],
  cells: readonly Cell[],
  from: number,
): Row {
  return columns.map(({ type }, i) => {
    const cell = cells[from + i] ?? null;
    return cell !== null && isInteger(type) ? BigInt(cell) : cell;
  });
}

/** A value as a parameter. @throws HoldpointError ERR_INTERNAL for a value that no PostgreSQL column can hold. */
export function toCell(value: Value): Cell {
  if (value === null || typeof value === "string") return value;
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : String(value);
  const what = isRawText(value) ? "text that is not valid UTF-8" : "bytes";
  throw new HoldpointError({
    code: "ERR_INTERNAL",
    message: `${what} cannot be a cell of PostgreSQL`,
    why: "this adapter holds every value as text",
  });
}

/** The cells of one column of many rows, as one array parameter. */
export function columnOf(rows: readonly Row[], index: number): readonly Cell[] {
  return rows.map((row) => toCell(row[index] ?? null));
}

/** Cells as the text of one array parameter. Every element is quoted, so a NULL is not the word. */
export function arrayText(cells: readonly Cell[]): string {
  const elements = cells.map((cell) => {
    if (cell === null) return "NULL";
    return QUOTED.test(cell) ? `"${cell.replaceAll(/["\\]/g, "\\$&")}"` : `"${cell}"`;
  });
  return `{${elements.join(",")}}`;
}

const QUOTED = /["\\]/;

/**
 * SQL for the text that the column's output function gives. Not `::text`, which for `char(n)`, `boolean` and `inet` is
 * another text than the one that is read.
 */
export function textForm(expression: string): string {
  return `format('%s', ${expression})`;
}

/**
 * SQL for a text that is equal exactly for equal cells, NULL included; never NULL itself. `IS NULL` would also say yes to
 * a composite value whose fields are all NULL.
 */
export function comparable(expression: string): string {
  return `CASE num_nulls(${expression}) WHEN 1 THEN 'n' ELSE 'v' || ${textForm(expression)} END`;
}

/** {@link comparable} of a cell on this side. */
export function comparableCell(value: Value): string {
  const cell = toCell(value);
  return cell === null ? "n" : `v${cell}`;
}

/** The rows of {@link decodeBatches}, one by one. */
export async function* decodeCopy(chunks: AsyncIterable<Buffer>): AsyncGenerator<readonly Cell[], undefined> {
  for await (const rows of decodeBatches(chunks)) yield* rows;
}

/**
 * Splits the stream of `COPY … TO STDOUT` in text format into rows, as many at once as have come: waiting for each by
 * itself would cost more than reading it. One line is one row: line feeds inside values are escaped by the server.
 */
export async function* decodeBatches(
  chunks: AsyncIterable<Buffer>,
): AsyncGenerator<readonly (readonly Cell[])[], undefined> {
  let begun: Buffer[] = [];
  for await (const chunk of chunks) {
    const end = chunk.lastIndexOf(LINE_FEED);
    if (end < 0) {
      begun.push(chunk);
      continue;
    }
    const lines = Buffer.concat([...begun, chunk.subarray(0, end)]).toString("utf8");
    begun = [chunk.subarray(end + 1)];
    yield lines.split("\n").map(decodeLine);
  }
}

const LINE_FEED = 0x0a;
const ESCAPES: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" };

function decodeLine(line: string): readonly Cell[] {
  const cells = line.split("\t");
  return line.includes("\\") ? cells.map(decodeCell) : cells;
}

function decodeCell(text: string): Cell {
  if (text === "\\N") return null;
  if (!text.includes("\\")) return text;
  return text.replaceAll(/\\(.)/gs, (_, escaped: string) => ESCAPES[escaped] ?? escaped);
}
