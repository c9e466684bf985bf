/** From a row of the working file to what it says of a change; undefined when it says nothing. */
import { parseCanonical } from "../base/canonical.js";
import { type Change, keyOf, type RowKey, type TableShape } from "../changeset/change.js";
import type { Images } from "../changeset/ties.js";
import type { Row, Value } from "../changeset/value.js";
import { valueFromJson } from "./cells.js";
import type { Exact } from "./changes-insert.js";
import { factsOf, type PlainKind } from "./changes-layout.js";

/**
 * A row of the working file as a change; undefined when it is none. Every row of a plan passes here several times: the
 * plain ones are made by literals, which is four times as fast as spreading the facts into them (measured).
 */
export function changeOf(shape: TableShape, row: readonly Value[]): Change | undefined {
  const facts = factsOf(row[0]);
  if (facts === undefined) return undefined;
  const { op, count } = facts;
  const width = shape.columns.length;
  const exact = facts.exact === null ? null : readExact(facts.exact);
  if (exact === undefined) return undefined;
  const cells = exact === null ? row : withExact(row, exact.cells);
  const before = op === "insert" ? null : cells.slice(1, 1 + width);
  const after = op === "delete" ? null : cells.slice(1 + width);
  const change = assemble(shape, facts, before, after);
  if (change === undefined || (count === 1 && (exact?.link ?? null) === null)) return change;
  return {
    ...change,
    ...(exact === null || exact.link === null ? {} : { link: exact.link }),
    ...(count === 1 ? {} : { count }),
  };
}

function withExact(row: readonly Value[], exact: readonly (readonly [number, Value])[]): readonly Value[] {
  const cells = [...row];
  for (const [i, v] of exact) cells[1 + i] = v;
  return cells;
}

function assemble(
  shape: TableShape,
  { op, origin }: PlainKind,
  before: Row | null,
  after: Row | null,
): Change | undefined {
  const { name: table } = shape;
  const key = keyOf(shape, before ?? after ?? []);
  if (op === "insert" && after !== null) return { table, key, origin, op, after };
  if (op === "delete" && before !== null) return { table, key, origin, op, before };
  if (op !== "update" || before === null || after === null) return undefined;
  return { table, key, origin, op, before, after };
}

/** A row of `imagesSql`: operation, exact values, cells of both images. A likeness is replaced by what it stands for. */
export function imagesIn(
  row: readonly Value[],
  width: number,
  columns: readonly number[],
): Images | undefined {
  const [op, exactText = null] = row;
  const exact = exactText === null ? null : typeof exactText === "string" ? readExact(exactText) : undefined;
  if (exact === undefined) return undefined;
  const image = (half: 0 | 1): Row =>
    columns.map((column, i) => {
      const own = exact?.cells.find(([at]) => at === half * width + column);
      return own === undefined ? (row[2 + half * columns.length + i] ?? null) : own[1];
    });
  return { before: op === "insert" ? null : image(0), after: op === "delete" ? null : image(1) };
}

function readExact(
  text: string,
): { readonly link: RowKey | null; readonly cells: readonly [number, Value][] } | undefined {
  const json = parseCanonical(text) as Exact | undefined;
  if (json === undefined) return undefined;
  const link = json.link?.map(valueFromJson) ?? null;
  const cells = json.cells.map(([i, v]) => [i, valueFromJson(v)] as const);
  const whole = (link ?? []).every((v) => v !== undefined) && cells.every(([, v]) => v !== undefined);
  return whole ? { link: link as RowKey | null, cells: cells as [number, Value][] } : undefined;
}
