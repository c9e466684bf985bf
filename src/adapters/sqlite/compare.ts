/**
 * The changes of a table as the difference of two states of it, for what triggers cannot see: programs, schema
 * changes, and rows that went away unseen. Both sides are read in key order and merged.
 */
import { byCodeUnit } from "../../base/canonical.js";
import type { Change, Column, TableShape } from "../../changeset/change.js";
import { diffSorted } from "../../changeset/diff.js";
import type { Row } from "../../changeset/value.js";
import type { Connection } from "./driver.js";
import { fold } from "./names.js";
import { readerFor } from "./read.js";
import { type Catalogue, type TableInfo, unsupported } from "./schema.js";

/** One state of the database. */
export interface Side {
  readonly connection: Connection;
  readonly catalogue: Catalogue;
}

/**
 * What changed in the table of that name, which may be missing on one side (all its rows then appear or go
 * away), or have other columns: a column that one side does not have counts as NULL there, so that adding an
 * empty column changes no row and filling it does.
 */
export function* compareTable(name: string, before: Side, after: Side): Generator<Change, undefined> {
  const shape = sharedShape(name, before, after);
  if (shape === null) return;
  yield* diffSorted(shape, rowsAs(shape, name, before), rowsAs(shape, name, after));
}

/** The shape that holds the rows of both sides; null when neither side has such a table. */
export function sharedShape(name: string, before: Side, after: Side): TableShape | null {
  const [was, is] = [tableOf(before, name), tableOf(after, name)];
  if (was === null || is === null) return (is ?? was)?.shape ?? null;
  const added = was.shape.columns.filter((c) => indexOf(is, c) === -1);
  const columns = [...is.shape.columns, ...added];
  const keyed = was.shape.keyKind === "primary" && is.shape.keyKind === "primary" && sameKeyNames(was, is);
  if (!keyed) return { name: is.name, columns, keyKind: "none", key: columns.map((_, i) => i) };
  return { name: is.name, columns, keyKind: "primary", key: is.shape.key };
}

/** Names of all ordinary tables of either side. */
export function tableNames(before: Catalogue, after: Catalogue): readonly string[] {
  const names = new Map([...before.tables, ...after.tables].map((t) => [fold(t.name), t.name]));
  return [...names.values()].sort(byCodeUnit);
}

/** Whether rows of that table cannot be held exactly on one of the sides. */
export function isUnheld(name: string, ...sides: readonly Side[]): boolean {
  return sides.some((side) => {
    const info = tableOf(side, name);
    return info !== null && unsupported(info) !== undefined;
  });
}

function* rowsAs(shape: TableShape, name: string, side: Side): Generator<Row, undefined> {
  const info = tableOf(side, name);
  if (info === null) return;
  const sources = shape.columns.map((c) => indexOf(info, c));
  const key = shape.key.map((i) => sources[i] ?? -1).filter((i) => i !== -1);
  const own: TableShape = { ...info.shape, keyKind: shape.keyKind, key };
  const same = sources.length === info.shape.columns.length && sources.every((from, i) => from === i);
  for (const row of readerFor(side.connection, side.catalogue, info).inKeyOrder(own)) {
    yield same ? row : sources.map((from) => (from === -1 ? null : (row[from] ?? null)));
  }
}

function tableOf(side: Side, name: string): TableInfo | null {
  return side.catalogue.byName.get(fold(name)) ?? null;
}

function indexOf(info: TableInfo, column: Column): number {
  return info.shape.columns.findIndex((c) => fold(c.name) === fold(column.name));
}

function sameKeyNames(a: TableInfo, b: TableInfo): boolean {
  const names = (t: TableInfo): string =>
    t.shape.key.map((i) => fold(t.shape.columns[i]?.name ?? "")).join("\0");
  return names(a) === names(b);
}
