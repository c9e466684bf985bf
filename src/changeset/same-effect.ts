/** Whether two captures of one job brought about the same: row by row, with room for values that differ from run to run. */
import { afterOf, beforeOf, type Change, countOf, type TableShape, type Update } from "./change.js";
import { compareKeys } from "./key.js";
import { isRawText, type Row, sameRow, sameValue, type Value } from "./value.js";

/**
 * Where two captures of a table part.
 * - `differs`: a row that only one has, or that has other values in columns that should agree.
 * - `settle`: a row that is the same but for columns whose values differ from run to run; the update that makes the
 *   found row the signed one.
 */
export type Parting =
  | { readonly kind: "differs"; readonly signed: Change | null; readonly found: Change | null }
  | { readonly kind: "settle"; readonly change: Update };

/**
 * Compares two captures of one table, both in canonical order. Origins and links are not part of the effect: two ways
 * of capturing know more or less about them.
 * Law: nothing is yielded exactly when both say the same of every row. Law: the found effect followed by what is to be
 * settled is the signed effect, where nothing differs.
 * @param volatile names of columns that are compared by type alone.
 */
export function* partings(
  shape: TableShape,
  signed: Iterable<Change>,
  found: Iterable<Change>,
  volatile: ReadonlySet<string>,
): Generator<Parting, undefined> {
  const columns = new Set(shape.columns.flatMap((c, i) => (volatile.has(c.name) ? [i] : [])));
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
  return { kind: "settle", change: { op: "update", table, key, origin, before: got, after: wanted } };
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
