/** {@link diffSorted} where either side arrives asynchronously: a target that is being read. */
import { changeBetween, keyOf, type Change, type RowKey, type TableShape } from "./change.js";
import { compareKeys } from "./key.js";
import type { Row } from "./value.js";
import { malformed } from "./well-formed.js";

/** Rows in key order, one after another. */
export type RowStream = Iterable<Row> | AsyncIterable<Row>;

/**
 * The changes from one state of a table to another, both read in key order; one row of each side is held at a time.
 * Law: over the same rows it yields what `diffSorted` yields.
 * @throws HoldpointError ERR_INTERNAL when a side is not in key order, or has two rows of one key.
 */
export async function* diffStreams(
  shape: TableShape,
  before: RowStream,
  now: RowStream,
): AsyncGenerator<Change, undefined> {
  const [left, right] = [groups(shape, before), groups(shape, now)];
  try {
    let [a, b] = [await left.next(), await right.next()];
    while (a.done !== true || b.done !== true) {
      const order = a.done === true ? 1 : b.done === true ? -1 : compareKeys(a.value.key, b.value.key);
      const [was, is] = [order <= 0 ? a.value : undefined, order >= 0 ? b.value : undefined];
      const change = changeOf(shape, was ?? null, is ?? null);
      if (change !== undefined) yield change;
      if (order <= 0) a = await left.next();
      if (order >= 0) b = await right.next();
    }
  } finally {
    await left.return(undefined);
    await right.return(undefined);
  }
}

/** Rows of one key: one row, or equal rows and how many. */
interface Group {
  readonly key: RowKey;
  readonly row: Row;
  readonly count: number;
}

async function* groups(shape: TableShape, rows: RowStream): AsyncGenerator<Group, undefined> {
  let last: Group | undefined;
  for await (const row of rows) {
    const key = keyOf(shape, row);
    const order = last === undefined ? -1 : compareKeys(last.key, key);
    if (order > 0) throw malformed(shape.name, "rows are not in key order");
    if (order === 0 && shape.keyKind === "primary") throw malformed(shape.name, "two rows of one key");
    if (order < 0 && last !== undefined) yield last;
    last = order === 0 && last !== undefined ? { ...last, count: last.count + 1 } : { key, row, count: 1 };
  }
  if (last !== undefined) yield last;
  return undefined;
}

function changeOf(shape: TableShape, was: Group | null, is: Group | null): Change | undefined {
  const group = was ?? is;
  if (group === null) return undefined;
  if (shape.keyKind !== "none")
    return changeBetween(shape.name, group.key, "unknown", was?.row ?? null, is?.row ?? null);
  const added = (is?.count ?? 0) - (was?.count ?? 0);
  if (added === 0) return undefined;
  const facts = { table: shape.name, key: group.key, origin: "unknown" } as const;
  const counted = Math.abs(added) === 1 ? facts : { ...facts, count: Math.abs(added) };
  return added > 0
    ? { ...counted, op: "insert", after: group.row }
    : { ...counted, op: "delete", before: group.row };
}
