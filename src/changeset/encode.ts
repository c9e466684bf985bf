/**
 * The canonical stream of a ChangeSet, format version 1: equal effects have equal bytes, and only one
 * byte sequence reads as a given effect. Format page with field tables: `docs/formats/changeset.md`.
 *
 * ```
 * stream  = name("holdpoint-changeset/1") table* 00
 * table   = 01 name(table) keyKind columns [key] change+        tables ascending by name
 * change  = 02 marks [link] [count] after                       insert
 *         | 03 marks before changed-columns new-cells           update
 *         | 04 marks [link] [count] before                      delete; changes ascending by key
 * ```
 *
 * The key is not written: it stands in the images. An update's after-image is a bit for each column and
 * the cells that change, so a row of many columns costs little more than its one image.
 */
import { byCodeUnit } from "../base/canonical.js";
import { digestStream, type Digest } from "../base/digest.js";
import type { HoldpointError } from "../base/errors.js";
import {
  changeBetween,
  countOf,
  keyOf,
  type Change,
  type ChangeSet,
  type ChangeSink,
  type ChangeSource,
  type Column,
  type Op,
  type Origin,
  type RowKey,
  type TableCounts,
  type TableShape,
} from "./change.js";
import { compareKeys } from "./key.js";
import { countRows, sortedTables } from "./source.js";
import { sameValue, type Row, type Value } from "./value.js";
import { faultOfChange, faultOfShape, FORMAT_LIMITS, malformed, type SizeLimits } from "./well-formed.js";
import { altered, WireReader, WireWriter } from "./wire.js";

/** First bytes of every stream: the format and its version. */
export const CHANGESET_FORMAT = "holdpoint-changeset/1";

const END = 0x00;
const TABLE = 0x01;
const OP_TAG: Readonly<Record<Op, number>> = { insert: 0x02, update: 0x03, delete: 0x04 };
const ORIGINS: readonly Origin[] = ["unknown", "job", "cascade", "trigger"];
const HAS_LINK = 0x04;
const HAS_COUNT = 0x08;

/** What a reader accepts: sizes (never above {@link FORMAT_LIMITS}) and, where it is known, the digest. */
export interface DecodeLimits extends Partial<SizeLimits> {
  /** The signed digest; anything else is refused once the stream has ended. */
  readonly expected?: Digest;
}

/**
 * The stream in chunks of about 64 KiB; memory stays at one change and one chunk.
 * Law: equal ChangeSets give equal bytes, whatever the order of `source.tables`.
 * @throws HoldpointError ERR_INTERNAL when the source is not in canonical order or a change is malformed.
 * @throws TargetError ERR_TARGET_VALUE for a value that is inexact or over {@link FORMAT_LIMITS}.
 */
export function encodeStream(source: ChangeSource): Iterable<Uint8Array> {
  return encode(source, () => undefined);
}

/** What a statement says of a ChangeSet: the stream's digest and length, rows, counts per table. */
export interface Measured {
  readonly digest: Digest;
  readonly rows: number;
  readonly bytes: number;
  readonly tables: readonly TableCounts[];
}

/** Measures a ChangeSet; `also` is told every table and change on the way, so that nothing is read for it once more. */
export function digestOfSource(source: ChangeSource, also?: ChangeSink): Measured {
  const { chunks, measured } = measuredStream(source, also);
  for (const _ of chunks) void _;
  return measured();
}

/** {@link encodeStream}, and what it measured once it has been read to its end. */
export function measuredStream(
  source: ChangeSource,
  also?: ChangeSink,
): { readonly chunks: Iterable<Uint8Array>; readonly measured: () => Measured } {
  const measuring = new Measuring();
  const see = (c: Change, shape: TableShape, isFirst: boolean): void => {
    if (isFirst) also?.table(shape);
    measuring.see(c, shape, isFirst);
    also?.add(c);
  };
  function* chunks(): Iterable<Uint8Array> {
    for (const chunk of encode(source, see)) {
      measuring.chunk(chunk);
      yield chunk;
    }
  }
  return { chunks: chunks(), measured: () => measuring.end() };
}

/**
 * {@link measuredStream} for whoever has the changes passing anyway, in canonical order: a sink that gives its chunks away as
 * they fill. Law: the same chunks and measures as of a source with these changes.
 */
export class StreamInProgress implements ChangeSink {
  readonly #encoder = new Encoder(malformed);
  readonly #measuring = new Measuring();
  readonly #emit: (chunk: Uint8Array) => void;
  #shape: TableShape | null = null;

  constructor(emit: (chunk: Uint8Array) => void) {
    this.#emit = emit;
  }

  /** @throws HoldpointError ERR_INTERNAL for a table out of order. */
  table = (shape: TableShape): void => {
    this.#shape = shape;
    this.#encoder.table(shape);
  };

  /** @throws HoldpointError ERR_INTERNAL for a change that is malformed or out of order. */
  add = (change: Change): void => {
    const isFirst = this.#encoder.add(change);
    if (this.#shape !== null) this.#measuring.see(change, this.#shape, isFirst);
    if (this.#encoder.writer.hasFull) this.#giveAway();
  };

  /** Gives the last chunk away. */
  finish(): Measured {
    this.#encoder.end();
    this.#giveAway();
    return this.#measuring.end();
  }

  #giveAway(): void {
    for (const chunk of this.#encoder.writer.take()) {
      this.#measuring.chunk(chunk);
      this.#emit(chunk);
    }
  }
}

/** What is measured of a stream while it is written. */
class Measuring {
  readonly #hash = digestStream();
  readonly #counters: ReturnType<typeof countRows>[] = [];
  #bytes = 0;
  #rows = 0;

  see(c: Change, shape: TableShape, isFirst: boolean): void {
    if (isFirst) this.#counters.push(countRows(shape.name));
    this.#counters.at(-1)?.add(c);
    this.#rows += countOf(c);
  }

  chunk(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.#bytes += chunk.length;
  }

  end(): Measured {
    const tables = this.#counters.map((c) => c.counts());
    return { digest: this.#hash.end(), bytes: this.#bytes, rows: this.#rows, tables };
  }
}

/**
 * Reads a stream into `sink`, in canonical order, and refuses everything that {@link encodeStream} would
 * not have written. The digest is that of the bytes read: compare it, or pass `expected`.
 * On a refusal the sink has been given a part; whoever owns it throws that away.
 * Law: `decodeStream(encodeStream(s))` gives the changes of `s` and its digest.
 * @throws IntegrityError ERR_CHANGESET_ALTERED for anything but the one canonical encoding within the limits.
 */
export function decodeStream(
  chunks: Iterable<Uint8Array>,
  sink: ChangeSink,
  limits: DecodeLimits = {},
): { readonly rows: number; readonly digest: Digest } {
  const sizes = withinFormat(limits);
  const reader = new WireReader(chunks, sizes);
  try {
    readFormat(reader);
    const rows = readTables(reader, sink, sizes);
    const digest = reader.end();
    if (limits.expected !== undefined && limits.expected !== digest) {
      throw altered(`signed ${limits.expected}, found ${digest}`);
    }
    return { rows, digest };
  } finally {
    reader.close();
  }
}

/** {@link decodeStream} into memory, for small streams. */
export function decodeChangeSet(chunks: Iterable<Uint8Array>, limits: DecodeLimits = {}): ChangeSet {
  const tables: TableShape[] = [];
  const changes: Change[] = [];
  decodeStream(chunks, { table: (t) => void tables.push(t), add: (c) => void changes.push(c) }, limits);
  return { tables, changes };
}

// ---- writing ----

function* encode(
  source: ChangeSource,
  seen: (c: Change, shape: TableShape, isFirst: boolean) => void,
): Iterable<Uint8Array> {
  // In memory a fault is our own; a working file was well formed when it was finished, so somebody altered it.
  const encoder = new Encoder(
    source.stored === undefined ? malformed : (table, fault) => altered(`a change of ${table}: ${fault}`),
  );
  for (const shape of sortedTables(source.tables)) {
    encoder.table(shape);
    for (const c of source.changes(shape.name)) {
      seen(c, shape, encoder.add(c));
      if (encoder.writer.hasFull) yield* encoder.writer.take();
    }
  }
  encoder.end();
  yield* encoder.writer.take();
}

/** The one who writes streams; whoever drives it takes the chunks of its writer. */
class Encoder {
  readonly writer = new WireWriter(FORMAT_LIMITS);
  readonly #faulty: (table: string, fault: string) => HoldpointError;
  #shape: TableShape | null = null;
  #previous: RowKey | undefined;
  #tables = 0;

  constructor(faulty: (table: string, fault: string) => HoldpointError) {
    this.#faulty = faulty;
    this.writer.name(CHANGESET_FORMAT);
  }

  /** Goes on to a table; one without a change is no part of a stream. */
  table(shape: TableShape): void {
    if (this.#shape !== null && byCodeUnit(this.#shape.name, shape.name) >= 0)
      throw this.#faulty(
        shape.name,
        this.#shape.name === shape.name ? "the table is declared twice" : "tables are not in order",
      );
    this.#shape = shape;
    this.#previous = undefined;
  }

  /** Writes the next change; true for a table's first one. */
  add(c: Change): boolean {
    const shape = this.#shape;
    if (shape === null) throw this.#faulty(c.table, "the table was not declared");
    const isFirst = this.#previous === undefined;
    if (isFirst) {
      if (++this.#tables > FORMAT_LIMITS.tables)
        throw this.#faulty(shape.name, `more than ${FORMAT_LIMITS.tables} tables`);
      writeTable(this.writer, shape);
    }
    const fault = faultOfNext(shape, this.#previous, c);
    if (fault !== undefined) throw this.#faulty(shape.name, fault);
    writeChange(this.writer, shape, c);
    this.#previous = c.key;
    return isFirst;
  }

  end(): void {
    this.writer.byte(END);
    this.writer.flush();
  }
}

/** Why the next change of a table has no canonical form; undefined when it has one. */
function faultOfNext(shape: TableShape, previous: RowKey | undefined, c: Change): string | undefined {
  if (c.table !== shape.name) return `a change of ${c.table} stands among its changes`;
  const fault = faultOfChange(shape, c);
  if (fault !== undefined || previous === undefined || compareKeys(previous, c.key) < 0) return fault;
  return "its changes are not in ascending order of their keys";
}

function writeTable(writer: WireWriter, shape: TableShape): void {
  const fault =
    faultOfShape(shape) ??
    (shape.columns.length > FORMAT_LIMITS.columns ? `more than ${FORMAT_LIMITS.columns} columns` : undefined);
  if (fault !== undefined) throw malformed(shape.name, fault);
  writer.byte(TABLE);
  writer.name(shape.name);
  writer.byte(shape.keyKind === "primary" ? 1 : 0);
  writer.number(shape.columns.length);
  for (const column of shape.columns) {
    writer.name(column.name);
    writer.name(column.type);
    writer.byte(column.generated === true ? 1 : 0);
  }
  if (shape.keyKind === "none") return;
  writer.number(shape.key.length);
  for (const index of shape.key) writer.number(index);
}

function writeChange(writer: WireWriter, shape: TableShape, c: Change): void {
  const start = writer.written;
  const count = countOf(c);
  writer.byte(OP_TAG[c.op]);
  writer.byte(
    ORIGINS.indexOf(c.origin) + (c.link === undefined ? 0 : HAS_LINK) + (count === 1 ? 0 : HAS_COUNT),
  );
  if (c.link !== undefined) writeRow(writer, c.link);
  if (count !== 1) writer.number(count);
  writeImages(writer, c);
  const bytes = writer.written - start;
  if (bytes > FORMAT_LIMITS.changeBytes) throw malformed(shape.name, `a change of ${bytes} bytes`);
}

function writeImages(writer: WireWriter, c: Change): void {
  switch (c.op) {
    case "insert":
      writeRow(writer, c.after);
      return;
    case "delete":
      writeRow(writer, c.before);
      return;
    case "update":
      writeRow(writer, c.before);
      writeNewCells(writer, c.before, c.after);
      return;
  }
}

function writeRow(writer: WireWriter, row: readonly Value[]): void {
  for (const v of row) writer.value(v);
}

function writeNewCells(writer: WireWriter, before: Row, after: Row): void {
  const changed: Value[] = [];
  let bits = 0;
  for (let i = 0; i < before.length; i++) {
    const value = after[i] ?? null;
    if (!sameValue(before[i] ?? null, value)) {
      bits |= 1 << (i & 7);
      changed.push(value);
    }
    if ((i & 7) < 7 && i < before.length - 1) continue;
    writer.byte(bits);
    bits = 0;
  }
  writeRow(writer, changed);
}

// ---- reading ----

function withinFormat(limits: DecodeLimits): SizeLimits {
  const least = (name: keyof SizeLimits): number =>
    Math.min(limits[name] ?? FORMAT_LIMITS[name], FORMAT_LIMITS[name]);
  return {
    tables: least("tables"),
    columns: least("columns"),
    nameBytes: least("nameBytes"),
    valueBytes: least("valueBytes"),
    changeBytes: least("changeBytes"),
  };
}

function readFormat(reader: WireReader): void {
  // The length first: a foreign file is refused by its first byte, before a name of any length is read.
  const length = reader.number("the format's length", CHANGESET_FORMAT.length);
  const format = reader.raw(length).toString("latin1");
  if (format !== CHANGESET_FORMAT) throw reader.fault(`it is not ${CHANGESET_FORMAT}`);
}

function readTables(reader: WireReader, sink: ChangeSink, limits: SizeLimits): number {
  let rows = 0;
  let tables = 0;
  let last: string | undefined;
  let tag = reader.byte();
  while (tag !== END) {
    if (tag !== TABLE) throw reader.fault(`${tag} is no part of a stream`);
    if (++tables > limits.tables) throw reader.fault(`more than ${limits.tables} tables`);
    const shape = readTable(reader, limits);
    if (last !== undefined && byCodeUnit(last, shape.name) >= 0)
      throw reader.fault("tables are not in order");
    last = shape.name;
    sink.table(shape);
    const read = readChanges(reader, shape, sink, limits);
    rows += read.rows;
    if (!Number.isSafeInteger(rows)) throw reader.fault("more rows than can be counted");
    tag = read.tag;
  }
  return rows;
}

function readTable(reader: WireReader, limits: SizeLimits): TableShape {
  const name = reader.name("a table's name");
  const keyKind = readFlag(reader, "the kind of key") ? "primary" : "none";
  const width = reader.number("the number of columns", limits.columns);
  const columns: Column[] = [];
  for (let i = 0; i < width; i++) columns.push(readColumn(reader));
  const key = keyKind === "none" ? columns.map((_, i) => i) : readKeyColumns(reader, width);
  const shape: TableShape = { name, columns, keyKind, key };
  const fault = faultOfShape(shape);
  if (fault !== undefined) throw reader.fault(`table ${name}: ${fault}`);
  return shape;
}

function readColumn(reader: WireReader): Column {
  const name = reader.name("a column's name");
  const type = reader.name("a column's type");
  return readFlag(reader, "generated") ? { name, type, generated: true } : { name, type };
}

function readKeyColumns(reader: WireReader, width: number): readonly number[] {
  const count = reader.number("the number of key columns", width);
  return Array.from({ length: count }, () => reader.number("a key column", width - 1));
}

function readFlag(reader: WireReader, what: string): boolean {
  const byte = reader.byte();
  if (byte > 1) throw reader.fault(`${what} is ${byte}, neither 0 nor 1`);
  return byte === 1;
}

/** All changes of one table, at least one; `tag` is the byte after the last. */
function readChanges(
  reader: WireReader,
  shape: TableShape,
  sink: ChangeSink,
  limits: SizeLimits,
): { readonly rows: number; readonly tag: number } {
  let rows = 0;
  let previous: RowKey | undefined;
  let tag = reader.byte();
  for (let op = opOf(tag); op !== undefined; op = opOf(tag)) {
    const change = readChange(reader, shape, op, reader.position + limits.changeBytes - 1);
    if (previous !== undefined && compareKeys(previous, change.key) >= 0) {
      throw reader.fault(`changes of ${shape.name} are not in order, or two have one key`);
    }
    previous = change.key;
    sink.add(change);
    rows += countOf(change);
    tag = reader.byte();
  }
  if (previous === undefined) throw reader.fault(`table ${shape.name} has no changes`);
  return { rows, tag };
}

function opOf(tag: number): Op | undefined {
  if (tag === OP_TAG.update) return "update";
  if (tag === OP_TAG.delete) return "delete";
  return tag === OP_TAG.insert ? "insert" : undefined;
}

function readChange(reader: WireReader, shape: TableShape, op: Op, end: number): Change {
  const marks = reader.byte();
  const origin = ORIGINS[marks & 0x03];
  if (origin === undefined || marks > 0x0f) throw reader.fault(`${marks} is no mark of a change`);
  const link = (marks & HAS_LINK) === 0 ? undefined : readValues(reader, shape.key.length, end);
  const count = (marks & HAS_COUNT) === 0 ? undefined : reader.number("a count");
  if (count !== undefined && count < 2) throw reader.fault(`a written count of ${count}`);
  const image = readValues(reader, shape.columns.length, end);
  const before = op === "insert" ? null : image;
  const after = op === "delete" ? null : op === "insert" ? image : readNewCells(reader, image, end);
  const plain = changeBetween(shape.name, keyOf(shape, image), origin, before, after);
  if (plain === undefined) throw reader.fault("an update that changes nothing");
  const change = link === undefined && count === undefined ? plain : marked(plain, link, count);
  const fault = faultOfChange(shape, change);
  if (fault !== undefined) throw reader.fault(`table ${shape.name}: ${fault}`);
  return change;
}

function marked(plain: Change, link: RowKey | undefined, count: number | undefined): Change {
  return { ...plain, ...(link === undefined ? {} : { link }), ...(count === undefined ? {} : { count }) };
}

function readValues(reader: WireReader, count: number, end: number): readonly Value[] {
  const values: Value[] = [];
  for (let i = 0; i < count; i++) {
    values.push(reader.value());
    if (reader.position > end) throw reader.fault("a change is over the limit");
  }
  return values;
}

function readNewCells(reader: WireReader, before: Row, end: number): Row {
  const bits: number[] = [];
  for (let i = 0; i < before.length; i += 8) bits.push(reader.byte());
  const spare = bits.length * 8 - before.length;
  if (spare > 0 && (bits[bits.length - 1] ?? 0) >> (8 - spare) !== 0)
    throw reader.fault("a bit beyond the last column");
  return before.map((old, i) => {
    if (((bits[i >> 3] ?? 0) & (1 << (i & 7))) === 0) return old;
    const value = reader.value();
    if (reader.position > end) throw reader.fault("a change is over the limit");
    if (sameValue(old, value)) throw reader.fault("a cell is marked as changed and is the same");
    return value;
  });
}
