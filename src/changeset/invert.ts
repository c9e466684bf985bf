/** The way back. */
import type { Change, ChangeSet, ChangeSource, StoredChanges, StoredTable } from "./change.js";

/**
 * The change that takes `c` back; key, link, count and origin stay.
 * Law: `invertChange(invertChange(c))` equals `c`.
 */
export function invertChange(c: Change): Change {
  const { table, key, origin } = c;
  switch (c.op) {
    case "insert":
      return withMarksOf(c, { table, key, origin, op: "delete", before: c.after });
    case "delete":
      return withMarksOf(c, { table, key, origin, op: "insert", after: c.before });
    case "update":
      return withMarksOf(c, { table, key, origin, op: "update", before: c.after, after: c.before });
  }
}

function withMarksOf({ link, count }: Change, plain: Change): Change {
  if (link === undefined && count === undefined) return plain;
  return { ...plain, ...(link === undefined ? {} : { link }), ...(count === undefined ? {} : { count }) };
}

/**
 * The ChangeSet from the state after `cs` back to the state before it. Keys stay, so canonical order does.
 * Law: `applyTo(applyTo(s, cs), invert(cs))` equals `s`. Law: `invert(invert(cs))` equals `cs`.
 */
export function invert(cs: ChangeSet): ChangeSet {
  return { ...cs, changes: cs.changes.map(invertChange) };
}

/** {@link invert} for any size: streams, holds nothing. */
export function invertSource(source: ChangeSource): ChangeSource {
  return {
    tables: source.tables,
    changes: (table) => inverted(source.changes(table)),
    ...(source.stored === undefined ? {} : { stored: storedInverted(source.stored) }),
  };
}

function storedInverted({ path, table }: StoredChanges): StoredChanges {
  const swapped = (t: StoredTable): StoredTable => ({
    ...t,
    before: t.after,
    after: t.before,
    inverted: !t.inverted,
  });
  return {
    path,
    table: (name) => {
      const found = table(name);
      return found === undefined ? undefined : swapped(found);
    },
  };
}

/** Can be iterated as often as its source. */
function inverted(changes: Iterable<Change>): Iterable<Change> {
  return {
    *[Symbol.iterator]() {
      for (const c of changes) yield invertChange(c);
    },
  };
}
