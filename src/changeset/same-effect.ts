/** Whether two captures of one job brought about the same: row by row, with room for values that differ from run to run. */
import { afterOf, beforeOf, type Change, countOf, type TableShape } from "./change.js";
import { compareKeys, keyText } from "./key.js";
import { isRawText, type Row, sameRow, sameValue, type Value } from "./value.js";

/**
 * Where two captures of a table part.
 * - `differs`: a row that only one has, or that has other values in columns that should agree.
 * - `settle`: a row that is the same but for columns whose values differ from run to run; what makes the found row the
 *   signed one: an update, or where the key is such a value a delete and an insert.
 */
export type Parting =
  | { readonly kind: "differs"; readonly signed: Change | null; readonly found: Change | null }
  | { readonly kind: "settle"; readonly changes: readonly Change[] };

/**
 * Compares two captures of one table, both in canonical order. Origins and links are not part of the effect: two ways
 * of capturing know more or less about them.
 * Law: nothing is yielded exactly when both say the same of every row. Law: the found effect followed by what is to be
 * settled is the signed effect, where nothing differs.
 * @param signed read twice where a key is volatile; so is `found`.
 * @param volatile names of columns that are compared by type alone. Where one is of the key, rows that come are compared
 * in their order.
 */
export function* partings(
  shape: TableShape,
  signed: Iterable<Change>,
  found: Iterable<Change>,
  volatile: ReadonlySet<string>,
): Generator<Parting, undefined> {
  const columns = new Set(shape.columns.flatMap((c, i) => (volatile.has(c.name) ? [i] : [])));
  if (shape.keyKind === "none" || !shape.key.some((i) => columns.has(i))) {
    yield* partingsByKey(signed, found, columns);
    return;
  }
  yield* partingsByKey(only(signed, false), only(found, false), columns);
  yield* partingsInOrder(signed, found, columns);
}

/** Rows that come, or all the others. */
function* only(changes: Iterable<Change>, inserts: boolean): Generator<Change, undefined> {
  for (const change of changes) if ((change.op === "insert") === inserts) yield change;
}

/** Inserts whose keys differ from run to run: the first with the first, and so on. */
function* partingsInOrder(
  signed: Iterable<Change>,
  found: Iterable<Change>,
  volatile: ReadonlySet<number>,
): Generator<Parting, undefined> {
  const keys = new Set<string>();
  for (const { key } of only(found, true)) keys.add(keyText(key));
  const [left, right] = [only(signed, true), only(found, true)];
  for (;;) {
    const [a, b] = [left.next(), right.next()];
    const [was, is] = [a.done === true ? null : a.value, b.done === true ? null : b.value];
    if (was === null && is === null) return;
    const parting = insertParting(was, is, volatile, keys);
    if (parting !== null) yield parting;
  }
}

function insertParting(
  signed: Change | null,
  found: Change | null,
  volatile: ReadonlySet<number>,
  foundKeys: ReadonlySet<string>,
): Parting | null {
  if (signed?.op !== "insert" || found?.op !== "insert" || compareKeys(signed.key, found.key) === 0)
    return partingOf(signed, found, volatile);
  // A key that both runs gave out, to different rows, cannot be settled by moving rows one at a time.
  if (foundKeys.has(keyText(signed.key)) || !sameButFor(signed.after, found.after, volatile))
    return { kind: "differs", signed, found };
  const { table, origin } = signed;
  const gone: Change = { op: "delete", table, key: found.key, origin, before: found.after };
  return { kind: "settle", changes: [gone, signed] };
}

function* partingsByKey(
  signed: Iterable<Change>,
  found: Iterable<Change>,
  columns: ReadonlySet<number>,
): Generator<Parting, undefined> {
  const [left, right] = [signed[Symbol.iterator](), found[Symbol.iterator]()];
  let [a, b] = [left.next(), right.next()];
  while (a.done !== true || b.done !== true) {
    const order = a.done === true ? 1 : b.done === true ? -1 : compareKeys(a.value.key, b.value.key);
    const [was, is] = [
      order <= 0 && a.done !== true ? a.value : null,
      order >= 0 && b.done !== true ? b.value : null,
    ];
    const parting = partingOf(was, is, columns);
    if (parting !== null) yield parting;
    if (order <= 0) a = left.next();
    if (order >= 0) b = right.next();
  }
}

function partingOf(
  signed: Change | null,
  found: Change | null,
  volatile: ReadonlySet<number>,
): Parting | null {
  const differs = { kind: "differs", signed, found } as const;
  if (signed === null || found === null || signed.op !== found.op || countOf(signed) !== countOf(found))
    return differs;
  if (!sameRow(beforeOf(signed), beforeOf(found))) return differs;
  const [wanted, got] = [afterOf(signed), afterOf(found)];
  if (wanted === null || got === null || sameRow(wanted, got)) return null;
  if (!sameButFor(wanted, got, volatile)) return differs;
  const { table, key, origin } = signed;
  return {
    kind: "settle",
    changes: [{ op: "update", table, key, origin, before: got, after: wanted }],
  };
}

function sameButFor(wanted: Row, got: Row, volatile: ReadonlySet<number>): boolean {
  return wanted.every((v, i) => {
    const other = got[i] ?? null;
    return volatile.has(i) ? kindOf(v) === kindOf(other) : sameValue(v, other);
  });
}

function kindOf(v: Value): string {
  if (v === null) return "null";
  if (typeof v !== "object") return typeof v;
  return isRawText(v) ? "string" : "bytes";
}
