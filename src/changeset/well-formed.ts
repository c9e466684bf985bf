/**
 * What a table shape, a change and a value must be to have a canonical form. One place: what builds a
 * ChangeSet in memory, what writes the stream and what reads it ask the same questions.
 */
import { HoldpointError, TargetError } from "../base/errors.js";
import { afterOf, beforeOf, type Change, type RowKey, type TableShape } from "./change.js";
import { isRawText, sameBytes, sameRow, sameValue, type Row, type Value } from "./value.js";

/** Sizes that the format holds. A reader may be given smaller ones, never larger. */
export interface SizeLimits {
  readonly tables: number;
  /** Columns of one table. */
  readonly columns: number;
  /** UTF-8 bytes of a table's name, a column's name, a column's type: each. */
  readonly nameBytes: number;
  /** Bytes of one text or blob. */
  readonly valueBytes: number;
  /** Bytes of one change with all its values. */
  readonly changeBytes: number;
}

/**
 * The limits of format version 1. Columns: SQLite's hard limit. A value and a change are held in memory
 * whole, so these two bound what reading a stranger's file can take.
 */
export const FORMAT_LIMITS: SizeLimits = {
  tables: 10_000,
  columns: 32_767,
  nameBytes: 1_024,
  valueBytes: 256 * 1024 * 1024,
  changeBytes: 1024 * 1024 * 1024,
};

/** Why the shape has no canonical form; undefined when it has one. */
export function faultOfShape(shape: TableShape): string | undefined {
  const width = shape.columns.length;
  if (width === 0) return "it has no columns";
  if (new Set(shape.columns.map((c) => c.name)).size !== width) return "two columns have one name";
  if (shape.keyKind === "none") {
    const whole = shape.key.length === width && shape.key.every((index, i) => index === i);
    return whole ? undefined : "without a key, all columns in order are the key";
  }
  if (shape.key.length === 0) return "its key has no columns";
  if (new Set(shape.key).size !== shape.key.length) return "a column stands in its key twice";
  const outside = shape.key.find((i) => !Number.isInteger(i) || i < 0 || i >= width);
  return outside === undefined ? undefined : `its key names column ${outside} of ${width}`;
}

/**
 * Why the change has no canonical form under its table's shape; undefined when it has one.
 *
 * | | rule |
 * | --- | --- |
 * | images | as wide as the table; their key columns are the change's key |
 * | update | some cell changes; only in a table with a key; no link, because an update keeps its key |
 * | link | only in a table with a key; another key than the change's own |
 * | count | only in a table without a key; whole, at least 1 |
 */
export function faultOfChange(shape: TableShape, c: Change): string | undefined {
  return (
    faultOfImage(shape, c.key, beforeOf(c)) ??
    faultOfImage(shape, c.key, afterOf(c)) ??
    faultOfFacts(shape, c)
  );
}

function faultOfImage(shape: TableShape, key: RowKey, image: Row | null): string | undefined {
  if (image === null) return undefined;
  const width = shape.columns.length;
  if (image.length !== width) return `an image of ${image.length} cells in a table of ${width} columns`;
  if (key.length !== shape.key.length)
    return `a key of ${key.length} values where the table's has ${shape.key.length}`;
  for (let i = 0; i < key.length; i++)
    if (!sameValue(image[shape.key[i] ?? 0] ?? null, key[i] ?? null))
      return "the key is not the key of its row";
  return undefined;
}

function faultOfFacts(shape: TableShape, c: Change): string | undefined {
  const keyed = shape.keyKind === "primary";
  if (c.op === "update" && !keyed) return "an update in a table without a key";
  if (c.op === "update" && c.link !== undefined) return "an update with a link";
  if (c.op === "update" && sameRow(c.before, c.after)) return "an update that changes nothing";
  if (c.link !== undefined && !keyed) return "a link in a table without a key";
  if (c.link !== undefined && c.link.length !== c.key.length) return "a link that is no key of its table";
  if (c.link !== undefined && sameRow(c.link, c.key)) return "a link to the change's own key";
  if (c.count === undefined) return undefined;
  if (!Number.isSafeInteger(c.count) || c.count < 1) return `a count of ${c.count}`;
  return keyed && c.count !== 1 ? "a count in a table with a key" : undefined;
}

/** The two shapes say the same of a table; an absent `generated` is `false`. */
export function sameShape(a: TableShape, b: TableShape): boolean {
  return (
    a.name === b.name &&
    a.keyKind === b.keyKind &&
    a.key.length === b.key.length &&
    a.key.every((index, i) => index === b.key[i]) &&
    a.columns.length === b.columns.length &&
    a.columns.every((c, i) => {
      const other = b.columns[i];
      return (
        c.name === other?.name &&
        c.type === other.type &&
        (c.generated ?? false) === (other.generated ?? false)
      );
    })
  );
}

/**
 * Refuses a value that has no exact form, so that nothing is ever rounded on its way to a digest.
 * @throws TargetError ERR_TARGET_VALUE for an integer beyond 64 bits, text with a lone surrogate, or raw
 * text that is valid UTF-8 (it would be a second spelling of a text).
 */
export function assertExact(v: Value): void {
  const fault = inexactness(v);
  if (fault === undefined) return;
  throw new TargetError({
    code: "ERR_TARGET_VALUE",
    message: `a value cannot be held exactly: ${fault}`,
    why: "what has no exact form is refused, never rounded",
  });
}

const LEAST = -(2n ** 63n);
const MOST = 2n ** 63n - 1n;

function inexactness(v: Value): string | undefined {
  if (typeof v === "bigint")
    return v < LEAST || v > MOST ? `the integer ${v} needs more than 64 bits` : undefined;
  if (typeof v === "string") return v.isWellFormed() ? undefined : "text with a lone surrogate";
  if (typeof v !== "object" || v === null || !isRawText(v)) return undefined;
  return decodeUtf8(v.bytes) === undefined ? undefined : "raw text whose bytes are valid UTF-8";
}

/** The text of valid UTF-8, byte order mark kept; undefined for anything else. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  const buffer = Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = buffer.toString("utf8");
  // A replacement character is either in the bytes themselves or stands for bytes that were not UTF-8.
  if (!text.includes("\uFFFD")) return text;
  return sameBytes(Buffer.from(text, "utf8"), buffer) ? text : undefined;
}

/** A ChangeSet that cannot be: our own fault, before anything was written. */
export function malformed(table: string, fault: string): HoldpointError {
  return new HoldpointError({
    code: "ERR_INTERNAL",
    message: `a change of ${table} has no canonical form: ${fault}`,
    why: "equal effects must have equal bytes, so a ChangeSet has exactly one form",
  });
}
