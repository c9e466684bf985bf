/**
 * Cells exactly as they are stored. The driver hands integers over as `bigint` and reals as `number`, which
 * is exact; text it decodes as UTF-8 and puts U+FFFD where the bytes are not valid. So a row is read plainly
 * first, and once more as `typeof` and bytes when a U+FFFD shows up in it: rare, and then exact.
 */
import { isUtf8 } from "node:buffer";
import type { Row, Value } from "../../changeset/value.js";
import { isRawText } from "../../changeset/value.js";
import type { Cell } from "./driver.js";

/** How the database stores text (`PRAGMA encoding`). */
export type Encoding = "UTF-8" | "UTF-16le" | "UTF-16be";

/** Whether text may have lost bytes on its way through the driver. */
export function isSuspect(cells: readonly Cell[]): boolean {
  return cells.some((c) => typeof c === "string" && c.includes("\ufffd"));
}

/** Two result columns that give one cell exactly: whether it is text, and its value or its bytes. */
export function exactly(expression: string): string {
  return `typeof(${expression}) = 'text', CASE typeof(${expression}) WHEN 'text' THEN CAST(${expression} AS BLOB) ELSE ${expression} END`;
}

/** Reads `count` pairs made by {@link exactly}, beginning at `from`. */
export function fromExact(cells: readonly Cell[], from: number, count: number, encoding: Encoding): Row {
  const row: Value[] = [];
  for (let i = 0; i < count; i++) {
    const isText = cells[from + 2 * i] === 1n;
    const cell = cells[from + 2 * i + 1] ?? null;
    row.push(isText ? textOf(cell, encoding) : cell);
  }
  return row;
}

function textOf(cell: Cell, encoding: Encoding): Value {
  // An empty text cast to a blob comes back as an empty blob.
  const bytes = Buffer.isBuffer(cell) ? cell : Buffer.alloc(0);
  return decodeText(bytes, encoding) ?? { kind: "raw-text", bytes };
}

/** The text that `bytes` stand for; undefined when they are not valid in that encoding. */
export function decodeText(bytes: Buffer, encoding: Encoding): string | undefined {
  if (encoding === "UTF-8") return isUtf8(bytes) ? bytes.toString("utf8") : undefined;
  if (bytes.length % 2 !== 0) return undefined;
  const little = encoding === "UTF-16le" ? bytes : Buffer.from(bytes).swap16();
  const text = little.toString("utf16le");
  return text.isWellFormed() ? text : undefined;
}

/** The placeholder for a value: text that is not valid goes in as bytes and is cast back. */
export function placeholder(value: Value): string {
  return isRawText(value) ? "CAST(? AS TEXT)" : "?";
}

/** What is bound for {@link placeholder}: `bigint` binds as INTEGER, `number` always as REAL. */
export function bound(value: Value): Cell {
  if (isRawText(value)) return Buffer.from(value.bytes);
  return value instanceof Uint8Array || typeof value === "object" ? toBuffer(value) : value;
}

function toBuffer(value: Uint8Array | null): Buffer | null {
  return value === null || Buffer.isBuffer(value) ? value : Buffer.from(value);
}
