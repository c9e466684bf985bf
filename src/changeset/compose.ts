/** One ChangeSet after another, as one. */
import { HoldpointError, TargetError } from "../base/errors.js";
import {
  afterOf,
  beforeOf,
  changeBetween,
  countOf,
  type Change,
  type ChangeSet,
  type Origin,
  type RowKey,
  type TableShape,
} from "./change.js";
import { keyText } from "./key.js";
import { pairsOf } from "./link.js";
import { changeSet, sourceOf } from "./source.js";
import { sameRow, type Row } from "./value.js";
import { sameShape } from "./well-formed.js";

/**
 * What `first` and then `second` do together, per key:
 *
 * | first \ second | insert | update | delete |
 * | --- | --- | --- | --- |
 * | **insert** | refused | insert | nothing |
 * | **update** | refused | update, or nothing | delete |
 * | **delete** | update, or nothing | refused | refused |
 *
 * "Nothing" where the row ends as it began. Rows of a table without a key add up: inserts minus deletes.
 * An origin stays where both agree, else it is `unknown`; links are followed from the first key to the
 * last.
 *
 * Law: `applyTo(applyTo(s, a), b)` equals `applyTo(s, compose(a, b))`. Law: `compose` is associative in
 * what it does to rows; origins and links say where a change came from and may be lost on the way.
 * @throws TargetError ERR_DRIFT_ROWS when `second` does not begin where `first` ends,
 * ERR_DRIFT_SCHEMA when a table has another shape in each.
 */
export function compose(first: ChangeSet, second: ChangeSet): ChangeSet {
  const tables = unitedTables(first.tables, second.tables);
  const [a, b] = [sourceOf(first), sourceOf(second)];
  return changeSet(
    tables,
    tables.flatMap((shape) => composeTable(shape, a.changes(shape.name), b.changes(shape.name))),
  );
}

function unitedTables(first: readonly TableShape[], second: readonly TableShape[]): readonly TableShape[] {
  const united = new Map(first.map((t) => [t.name, t]));
  for (const shape of second) {
    const known = united.get(shape.name);
    if (known !== undefined && !sameShape(known, shape)) throw otherShape(shape.name);
    united.set(shape.name, known ?? shape);
  }
  return [...united.values()];
}

function composeTable(
  shape: TableShape,
  first: Iterable<Change>,
  second: Iterable<Change>,
): readonly Change[] {
  const firsts = [...first];
  const seconds = [...second];
  const net = new Map<string, Change>(firsts.map((c) => [keyText(c.key), c]));
  for (const then of seconds) {
    const key = keyText(then.key);
    const earlier = net.get(key);
    const both = earlier === undefined ? then : composeRow(shape, earlier, then);
    if (both === undefined) net.delete(key);
    else net.set(key, both);
  }
  return relinked(net, movesOf(firsts, seconds));
}

function composeRow(shape: TableShape, first: Change, second: Change): Change | undefined {
  if (shape.keyKind === "none") return composeCounts(first, second);
  if (!sameRow(afterOf(first), beforeOf(second))) throw doesNotFollow(shape, first, second);
  // The nine cases are what is left of the two outer images once the inner two are known to be the same.
  return changeBetween(shape.name, first.key, sharedOrigin(first, second), beforeOf(first), afterOf(second));
}

function composeCounts(first: Change, second: Change): Change | undefined {
  const sum = signedCount(first) + signedCount(second);
  const row = afterOf(first) ?? beforeOf(first) ?? [];
  const facts = {
    table: first.table,
    key: first.key,
    origin: sharedOrigin(first, second),
    count: Math.abs(sum),
  };
  if (sum === 0) return undefined;
  return sum > 0 ? { ...facts, op: "insert", after: row } : { ...facts, op: "delete", before: row };
}

function signedCount(c: Change): number {
  return c.op === "delete" ? -countOf(c) : countOf(c);
}

function sharedOrigin(first: Change, second: Change): Origin {
  return first.origin === second.origin ? first.origin : "unknown";
}

/** Where entities went that changed their key: from the first key to the last, over both. */
function movesOf(
  first: readonly Change[],
  second: readonly Change[],
): readonly (readonly [RowKey, RowKey])[] {
  const onward = new Map(pairsOf(second).map((p) => [keyText(p.deleted.key), p.inserted.key]));
  const early = pairsOf(first).map((p) => {
    const arrived = keyText(p.inserted.key);
    const end = onward.get(arrived) ?? p.inserted.key;
    onward.delete(arrived);
    return [p.deleted.key, end] as const;
  });
  const late = pairsOf(second).filter((p) => onward.has(keyText(p.deleted.key)));
  return [...early, ...late.map((p) => [p.deleted.key, p.inserted.key] as const)];
}

/** Links anew: only where a delete and an insert are left at the two ends of a move. */
function relinked(
  net: ReadonlyMap<string, Change>,
  moves: readonly (readonly [RowKey, RowKey])[],
): readonly Change[] {
  const changes = new Map([...net].map(([key, c]) => [key, withoutLink(c)]));
  for (const [from, to] of moves) {
    const [deleted, inserted] = [changes.get(keyText(from)), changes.get(keyText(to))];
    if (deleted?.op !== "delete" || inserted?.op !== "insert") continue;
    changes.set(keyText(from), { ...deleted, link: to });
    changes.set(keyText(to), { ...inserted, link: from });
  }
  return [...changes.values()];
}

function withoutLink(c: Change): Change {
  const { link: _link, ...rest } = c;
  return rest;
}

function doesNotFollow(shape: TableShape, first: Change, second: Change): TargetError {
  return new TargetError({
    code: "ERR_DRIFT_ROWS",
    message: `two ChangeSets of ${shape.name} do not follow one another`,
    why: `the first ends with ${described(afterOf(first))}, the second begins with ${described(beforeOf(second))}, for one key`,
  });
}

function described(row: Row | null): string {
  return row === null ? "no row" : "another row";
}

function otherShape(table: string): HoldpointError {
  return new TargetError({
    code: "ERR_DRIFT_SCHEMA",
    message: `table ${table} has another shape in each ChangeSet`,
    why: "changes of two shapes of one table cannot be one ChangeSet",
  });
}
