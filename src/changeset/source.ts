/** ChangeSets in memory and as streams, in canonical order. */
import { byCodeUnit } from "../base/canonical.js";
import { HoldpointError } from "../base/errors.js";
import {
  countOf,
  type Change,
  type ChangeSet,
  type ChangeSource,
  type Op,
  type TableCounts,
  type TableShape,
} from "./change.js";
import { compareKeys } from "./key.js";
import { faultOfChange, faultOfShape, malformed } from "./well-formed.js";

/**
 * The one ChangeSet of these changes: tables in code-unit order of their names, changes in key order,
 * tables without a change left out, a count of 1 left out.
 * Law: the result does not depend on the order of either argument.
 * @throws HoldpointError ERR_INTERNAL for two changes of one key, an update that changes nothing, an image
 * that does not fit its table, an unknown table, two shapes of one name (see {@link faultOfChange}).
 */
export function changeSet(tables: readonly TableShape[], changes: Iterable<Change>): ChangeSet {
  const shapes = shapesByName(tables);
  const byTable = groupByTable(wellFormed(shapes, changes));
  const ordered = sortedTables(tables).filter((t) => byTable.has(t.name));
  return { tables: ordered, changes: ordered.flatMap((t) => inKeyOrder(byTable.get(t.name) ?? [])) };
}

/** Reads a ChangeSet in memory as a source. */
export function sourceOf(cs: ChangeSet): ChangeSource {
  const byTable = groupByTable(cs.changes);
  return { tables: cs.tables, changes: (table) => byTable.get(table) ?? [] };
}

/** Holds a whole source in memory: for small ones. Law: `collect(sourceOf(cs))` equals `cs`. */
export function collect(source: ChangeSource): ChangeSet {
  return changeSet(source.tables, allChanges(source));
}

/** Every change of a source, table after table. */
export function* allChanges(source: ChangeSource): Iterable<Change> {
  for (const table of sortedTables(source.tables)) yield* source.changes(table.name);
}

/** Rows per table and operation, tables without a change left out; equal rows of one change all count. */
export function countsOf(source: ChangeSource): readonly TableCounts[] {
  const counted = sortedTables(source.tables).map((table) => {
    const counter = countRows(table.name);
    for (const c of source.changes(table.name)) counter.add(c);
    return counter.counts();
  });
  return counted.filter((t) => t.insert + t.update + t.delete > 0);
}

/** Counts the rows of one table as they pass. */
export function countRows(name: string): {
  readonly add: (c: Change) => void;
  readonly counts: () => TableCounts;
} {
  const rows: Record<Op, number> = { insert: 0, update: 0, delete: 0 };
  return {
    add: (c) => {
      rows[c.op] += countOf(c);
    },
    counts: () => ({ name, ...rows }),
  };
}

/** Tables in canonical order: code units of their names. */
export function sortedTables(tables: readonly TableShape[]): readonly TableShape[] {
  return [...tables].sort((a, b) => byCodeUnit(a.name, b.name));
}

function shapesByName(tables: readonly TableShape[]): ReadonlyMap<string, TableShape> {
  const shapes = new Map<string, TableShape>();
  for (const shape of tables) {
    const fault = shapes.has(shape.name) ? "it is declared twice" : faultOfShape(shape);
    if (fault !== undefined) throw badTable(shape.name, fault);
    shapes.set(shape.name, shape);
  }
  return shapes;
}

function* wellFormed(shapes: ReadonlyMap<string, TableShape>, changes: Iterable<Change>): Iterable<Change> {
  for (const c of changes) {
    const shape = shapes.get(c.table);
    const fault = shape === undefined ? "the table is unknown" : faultOfChange(shape, c);
    if (fault !== undefined) throw malformed(c.table, fault);
    yield withoutSingleCount(c);
  }
}

function groupByTable(changes: Iterable<Change>): Map<string, Change[]> {
  const byTable = new Map<string, Change[]>();
  for (const c of changes) {
    const list = byTable.get(c.table);
    if (list === undefined) byTable.set(c.table, [c]);
    else list.push(c);
  }
  return byTable;
}

function badTable(name: string, fault: string): HoldpointError {
  return new HoldpointError({
    code: "ERR_INTERNAL",
    message: `table ${name} has no canonical form: ${fault}`,
  });
}

function withoutSingleCount(c: Change): Change {
  if (c.count !== 1) return c;
  const { count: _one, ...rest } = c;
  return rest;
}

function inKeyOrder(changes: Change[]): readonly Change[] {
  changes.sort((a, b) => compareKeys(a.key, b.key));
  changes.forEach((c, i) => {
    const last = changes[i - 1];
    if (last !== undefined && compareKeys(last.key, c.key) === 0)
      throw malformed(c.table, "two changes of one key");
  });
  return changes;
}
