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
  const [left, right] = [groupsOf(shape, before), groupsOf(shape, now)];
  // A side that is at hand is not waited for: an await for each row of a million costs as much as comparing it (measured).
  const pull = (side: Groups): Group | undefined | Promise<Group | undefined> => side.next();
  try {
    let [a, b] = [await pull(left), await pull(right)];
    while (a !== undefined || b !== undefined) {
      const order = a === undefined ? 1 : b === undefined ? -1 : compareKeys(a.key, b.key);
      const change = changeOf(shape, order <= 0 ? (a ?? null) : null, order >= 0 ? (b ?? null) : null);
      if (change !== undefined) yield change;
      if (order <= 0) {
        const next = pull(left);
        a = next instanceof Promise ? await next : next;
      }
      if (order >= 0) {
        const next = pull(right);
        b = next instanceof Promise ? await next : next;
      }
    }
  } finally {
    await left.close();
    await right.close();
  }
}

/** Rows of one key: one row, or equal rows and how many. */
interface Group {
  readonly key: RowKey;
  readonly row: Row;
  readonly count: number;
}

/** One side, group after group; undefined at its end. */
interface Groups {
  readonly next: () => Group | undefined | Promise<Group | undefined>;
  readonly close: () => unknown;
}

function groupsOf(shape: TableShape, rows: RowStream): Groups {
  if (shape.keyKind === "none") {
    const counted = equalRows(shape, rows);
    return { next: async () => (await counted.next()).value, close: () => counted.return(undefined) };
  }
  const grouped = inOrder(shape);
  if (Symbol.iterator in rows) {
    const each = rows[Symbol.iterator]();
    return {
      next: () => {
        const { done, value } = each.next();
        return done === true ? undefined : grouped(value);
      },
      close: () => each.return?.(),
    };
  }
  const each = rows[Symbol.asyncIterator]();
  return {
    next: async () => {
      const { done, value } = await each.next();
      return done === true ? undefined : grouped(value);
    },
    close: () => each.return?.(),
  };
}

/** Rows of a table with a key, each a group of its own. */
function inOrder(shape: TableShape): (row: Row) => Group {
  let last: RowKey | undefined;
  return (row) => {
    const key = keyOf(shape, row);
    const order = last === undefined ? -1 : compareKeys(last, key);
    if (order > 0) throw malformed(shape.name, "rows are not in key order");
    if (order === 0) throw malformed(shape.name, "two rows of one key");
    last = key;
    return { key, row, count: 1 };
  };
}

async function* equalRows(shape: TableShape, rows: RowStream): AsyncGenerator<Group, undefined> {
  let last: Group | undefined;
  for await (const row of rows) {
    const key = keyOf(shape, row);
    const order = last === undefined ? -1 : compareKeys(last.key, key);
    if (order > 0) throw malformed(shape.name, "rows are not in key order");
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
