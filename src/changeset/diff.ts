/** What changed between two states. */
import { changeBetween, keyOf, type Change, type ChangeSet, type RowKey, type TableShape } from "./change.js";
import type { State } from "./apply.js";
import { compareKeys } from "./key.js";
import { changeSet } from "./source.js";
import type { Row } from "./value.js";
import { malformed, sameShape } from "./well-formed.js";

/**
 * The changes from one state of a table to another, both read in key order (see {@link ./key.ts}); one
 * row of each side is held at a time. In a table without a key equal rows stand next to one another and
 * their numbers are compared. Two states do not tell where a row came from: origins are `unknown` and a
 * changed key is a delete and an insert without a link.
 * @throws HoldpointError ERR_INTERNAL when a side is not in key order, or has two rows of one key.
 */
export function* diffSorted(shape: TableShape, before: Iterable<Row>, now: Iterable<Row>): Iterable<Change> {
  const [left, right] = [groups(shape, before), groups(shape, now)];
  try {
    let [a, b] = [left.next(), right.next()];
    while (a.done !== true || b.done !== true) {
      const order = whichFirst(a.done === true ? null : a.value, b.done === true ? null : b.value);
      const [was, is] = [order <= 0 ? a.value : undefined, order >= 0 ? b.value : undefined];
      const change = changeOfGroup(shape, was ?? null, is ?? null);
      if (change !== undefined) yield change;
      if (order <= 0) a = left.next();
      if (order >= 0) b = right.next();
    }
  } finally {
    left.return(undefined);
    right.return(undefined);
  }
}

/**
 * The ChangeSet from one state to another; a table on one side only is empty on the other.
 * Law: `applyTo(before, diff(before, now))` equals `now`. Law: `diff(s, s)` is empty.
 * @throws HoldpointError ERR_INTERNAL when a table has another shape on each side.
 */
export function diff(before: State, now: State): ChangeSet {
  const shapes = new Map([...before, ...now].map(([name, table]) => [name, table.shape]));
  const changes = [...shapes].flatMap(([name, shape]) => {
    const sides = [before.get(name), now.get(name)];
    if (sides.some((s) => s !== undefined && !sameShape(s.shape, shape))) throw malformed(name, "two shapes");
    return [...diffSorted(shape, sides[0]?.rows ?? [], sides[1]?.rows ?? [])];
  });
  return changeSet([...shapes.values()], changes);
}

/** Rows of one key: one row, or equal rows and how many. */
interface Group {
  readonly key: RowKey;
  readonly row: Row;
  readonly count: number;
}

function* groups(shape: TableShape, rows: Iterable<Row>): Generator<Group, undefined> {
  let last: Group | undefined;
  for (const row of rows) {
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

/** Below zero: only the left side has the next key; above: only the right; zero: both. */
function whichFirst(a: Group | null, b: Group | null): number {
  if (a === null) return 1;
  return b === null ? -1 : compareKeys(a.key, b.key);
}

function changeOfGroup(shape: TableShape, was: Group | null, is: Group | null): Change | undefined {
  const group = was ?? is;
  if (group === null) return undefined;
  if (shape.keyKind === "none") return changeOfCount(shape, group, (is?.count ?? 0) - (was?.count ?? 0));
  return changeBetween(shape.name, group.key, "unknown", was?.row ?? null, is?.row ?? null);
}

function changeOfCount(shape: TableShape, { key, row }: Group, added: number): Change | undefined {
  if (added === 0) return undefined;
  const facts = { table: shape.name, key, origin: "unknown" } as const;
  const counted = Math.abs(added) === 1 ? facts : { ...facts, count: Math.abs(added) };
  return added > 0 ? { ...counted, op: "insert", after: row } : { ...counted, op: "delete", before: row };
}
