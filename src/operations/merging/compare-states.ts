/** What changed between two states: a snapshot and another one, or the target as it is now. */
import { TargetError, UsageError } from "../../base/errors.js";
import { changeBetween, type ChangeSink, countOf, type TableShape } from "../../changeset/change.js";
import { diffStreams, type RowStream } from "../../changeset/diff-streams.js";
import type { Row } from "../../changeset/value.js";
import { sameShape } from "../../changeset/well-formed.js";
import type { Target } from "../../target/target.js";
import type { Image } from "./image.js";
import { rowsOf } from "./merge-back.js";
import type { Toolbox, WorkingChanges } from "../toolbox.js";

/** The other side of a comparison. */
export interface OtherState {
  /** For errors. */
  readonly name: string;
  readonly tables: readonly TableShape[];
  readonly rows: (shape: TableShape) => RowStream;
  /** Rows by key, for a snapshot that holds some rows alone. */
  readonly reader: Pick<Target, "readRows"> | null;
  /** Finds what changed since a database file by itself; null where rows are to be read. */
  readonly changesSince: Target["changesSince"] | null;
  /** Rows read within are of one moment; null where the state stands still. */
  readonly atOneMoment: Target["atOneMoment"] | null;
}

/** The target as it is now, as the other side. */
export async function stateNow(target: Target): Promise<OtherState> {
  return {
    name: target.name,
    tables: (await target.schema()).tables,
    rows: target.scan,
    reader: target,
    changesSince: target.changesSince ?? null,
    atOneMoment: target.atOneMoment ?? null,
  };
}

/** The changes from a snapshot to another state, and how many rows the snapshot holds of each table. */
export interface Compared {
  readonly changes: WorkingChanges;
  readonly rowsBefore: ReadonlyMap<string, number>;
  /** The tables that were compared, also those in which nothing changed. */
  readonly compared: readonly TableShape[];
}

/**
 * Compares the tables named, or all that the snapshot holds. Close `changes` in `finally`.
 * @throws TargetError ERR_DRIFT_SCHEMA when a table has another shape now. @throws UsageError for an unknown table.
 */
export async function compareStates(
  tools: Toolbox,
  image: Image,
  other: OtherState,
  tables: readonly string[],
): Promise<Compared> {
  const chosen = chosenTables(image, tables);
  const writer = await tools.workingChanges();
  try {
    for (const shape of chosen) {
      requireSameShape(shape, other);
      writer.table(shape);
    }
    const found = image.file === null ? null : await other.changesSince?.(image.file, chosen, writer);
    const read = async (): ReturnType<typeof compareTables> => compareTables(image, other, chosen, writer);
    const rowsBefore = found ?? (await (other.atOneMoment?.(read) ?? read()));
    return { changes: writer.finish(), rowsBefore, compared: chosen };
  } catch (e) {
    writer.abort();
    throw e;
  }
}

async function compareTables(
  image: Image,
  other: OtherState,
  shapes: readonly TableShape[],
  sink: ChangeSink,
): Promise<ReadonlyMap<string, number>> {
  const rowsBefore = new Map<string, number>();
  for (const shape of shapes) rowsBefore.set(shape.name, await compareTable(image, other, shape, sink));
  return rowsBefore;
}

async function compareTable(
  image: Image,
  other: OtherState,
  shape: TableShape,
  sink: ChangeSink,
): Promise<number> {
  if (image.part !== null && other.reader !== null) return comparePart(image.part, other.reader, shape, sink);
  const counted = { rows: 0 };
  const before = counting(image.rows(shape), counted);
  for await (const change of diffStreams(shape, before, other.rows(shape))) sink.add(change);
  return counted.rows;
}

function counting(rows: RowStream, counted: { rows: number }): RowStream {
  return Symbol.iterator in rows ? countedNow(rows, counted) : countedLater(rows, counted);
}

function* countedNow(rows: Iterable<Row>, counted: { rows: number }): Generator<Row, undefined> {
  for (const row of rows) {
    counted.rows += 1;
    yield row;
  }
}

async function* countedLater(
  rows: AsyncIterable<Row>,
  counted: { rows: number },
): AsyncGenerator<Row, undefined> {
  for await (const row of rows) {
    counted.rows += 1;
    yield row;
  }
}

/** A snapshot of one plan's rows tells about these rows and no others. */
async function comparePart(
  part: WorkingChanges,
  reader: Pick<Target, "readRows">,
  shape: TableShape,
  sink: ChangeSink,
): Promise<number> {
  let rows = 0;
  for await (const [was, now, nowCount] of rowsOf(reader, part, shape)) {
    if (was.op !== "delete") continue;
    rows += countOf(was);
    if (shape.keyKind === "none") {
      const missing = countOf(was) - nowCount;
      const { count: _had, ...one } = was;
      if (missing > 0) sink.add(missing === 1 ? one : { ...one, count: missing });
      continue;
    }
    const change = changeBetween(shape.name, was.key, "unknown", was.before, now);
    if (change !== undefined) sink.add(change);
  }
  return rows;
}

function chosenTables(image: Image, wanted: readonly string[]): readonly TableShape[] {
  if (wanted.length === 0) return image.tables;
  const unknown = wanted.filter((w) => !image.tables.some((t) => t.name === w));
  if (unknown.length === 0) return image.tables.filter((t) => wanted.includes(t.name));
  throw new UsageError({
    code: "ERR_USAGE",
    message: `${image.manifest.id} does not hold ${unknown.join(", ")}`,
    why: `it holds ${image.tables.map((t) => t.name).join(", ") || "no table"}`,
  });
}

function requireSameShape(shape: TableShape, other: OtherState): void {
  const now = other.tables.find((t) => t.name === shape.name);
  if (now !== undefined && sameShape(shape, now)) return;
  throw new TargetError({
    code: "ERR_DRIFT_SCHEMA",
    message:
      now === undefined
        ? `table ${shape.name} is not in ${other.name}`
        : `table ${shape.name} has other columns in ${other.name} than in the snapshot`,
    why: `the snapshot has ${columnsOf(shape)}; ${other.name} has ${now === undefined ? "no such table" : columnsOf(now)}`,
    next: [
      {
        actor: "requester",
        text: "Name the tables that are the same with --table, or restore the snapshot elsewhere and take the rows from there.",
      },
    ],
  });
}

function columnsOf(shape: TableShape): string {
  return shape.columns.map((c) => c.name).join(", ");
}
