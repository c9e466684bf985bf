/**
 * Tables that only ever grow, when a run is taken back: a row that it added gets a reversing row where the configuration
 * says what that row holds, and is left as it is, and listed so, where it does not. Nothing in such a table is deleted.
 *
 * | the run, the row now | reversal declared | none declared |
 * | --- | --- | --- |
 * | added it, as written | a reversing row, once for each undo that stands | left as it is |
 * | added it, edited or gone since | as in any table | as in any table |
 * | deleted it | put back: that too only adds | put back |
 * | updated it | refused by name, see `append-only.ts` | refused by name |
 */
import { RefusedError, UsageError } from "../../base/errors.js";
import { type Change, countOf, keyOf, type RowKey, type TableShape } from "../../changeset/change.js";
import { decimalOf, decimalText, isNumberType } from "../../changeset/decimal.js";
import { keyText } from "../../changeset/key.js";
import type { Row, Value } from "../../changeset/value.js";
import type { Reversal, ReverseCell } from "../../config/config.js";
import type { Target } from "../../target/target.js";

/** What becomes of a row that a run added to a table that only grows. */
export type Reversed =
  | { readonly kind: "reversed"; readonly change: Change }
  | { readonly kind: "nothingToDo" }
  | { readonly kind: "left" };

/** Reverses added rows, table by table; numbers that are given out go up with every row. */
export interface Reversing {
  readonly isAppendOnly: (table: string) => boolean;
  readonly of: (shape: TableShape, added: Extract<Change, { op: "insert" }>) => Promise<Reversed>;
}

/** What is known for reversing. */
export interface ReversingFacts {
  readonly appendOnly: readonly string[];
  readonly reversals: Readonly<Record<string, Reversal>>;
  readonly target: Pick<Target, "largestOf" | "adapter" | "name">;
  /** The numbers given out, by place: shared by all runs that one undo takes back. */
  readonly numbers: Map<string, bigint>;
  /** Rows that earlier undos of the same run, which still stand, added to a table. */
  readonly addedBefore: (table: string) => Iterable<Extract<Change, { op: "insert" }>>;
}

/** Reverses by what the configuration declares. */
export function reversing(facts: ReversingFacts): Reversing {
  const { numbers } = facts;
  const standing = new Map<string, Map<string, number>>();
  const cells: CellSource = {
    next: async (shape, at) => {
      const place = `${shape.name}.${shape.columns[at]?.name ?? ""}`;
      const value = (numbers.get(place) ?? (await largest(facts, shape, at))) + 1n;
      numbers.set(place, value);
      return value;
    },
  };
  return {
    isAppendOnly: (table) => facts.appendOnly.includes(table),
    of: async (shape, added) => {
      const reversal = facts.reversals[shape.name];
      if (reversal === undefined) return { kind: "left" };
      requireColumns(shape, reversal);
      const known = standing.get(shape.name) ?? marksOf(shape, reversal, facts.addedBefore(shape.name));
      standing.set(shape.name, known);
      const mark = markOf(shape, reversal, fixedCells(shape, reversal, added.after));
      const times = known.get(mark) ?? 0;
      if (times > 0) {
        known.set(mark, times - countOf(added));
        return { kind: "nothingToDo" };
      }
      return { kind: "reversed", change: await reversingRow(shape, reversal, added, cells) };
    },
  };
}

interface CellSource {
  readonly next: (shape: TableShape, at: number) => Promise<Value>;
}

async function reversingRow(
  shape: TableShape,
  reversal: Reversal,
  added: Extract<Change, { op: "insert" }>,
  cells: CellSource,
): Promise<Change> {
  const row: Value[] = [...fixedCells(shape, reversal, added.after)];
  for (const [at, column] of shape.columns.entries())
    if (reversal[column.name]?.kind === "next") row[at] = await cells.next(shape, at);
  const key = keyOf(shape, row);
  if (shape.keyKind !== "none" && keyText(key) === keyText(added.key)) throw sameRowTwice(shape, key);
  const { count } = added;
  const change = { op: "insert", table: shape.name, key, after: row, origin: "unknown" } as const;
  return count === undefined ? change : { ...change, count };
}

/** Every cell but those that are numbered anew, which hold NULL here. */
function fixedCells(shape: TableShape, reversal: Reversal, row: Row): Row {
  return shape.columns.map((column, at) => {
    const cell = reversal[column.name];
    return cell === undefined ? (row[at] ?? null) : valueOf(shape, column.name, cell, row);
  });
}

function valueOf(shape: TableShape, column: string, cell: ReverseCell, row: Row): Value {
  const at = (name: string): Value => row[shape.columns.findIndex((c) => c.name === name)] ?? null;
  switch (cell.kind) {
    case "is":
      return cell.value;
    case "column":
      return at(cell.name);
    case "next":
      return null;
    case "negate": {
      const value = at(cell.name);
      if (value === null) return null;
      if (typeof value === "bigint" || typeof value === "number") return -value;
      // Exact decimals arrive as text, and keep their places: 100.50 becomes -100.50.
      const type = shape.columns.find((c) => c.name === cell.name)?.type ?? "";
      const decimal = decimalOf(value, isNumberType(type));
      if (decimal !== null) return decimalText({ ...decimal, units: -decimal.units });
      throw undeclared(shape, `${column} wants ${cell.name} with the opposite sign, and it holds no number`);
    }
  }
}

/** How often each reversing row is there already, told by the cells that are not numbered anew. */
function marksOf(
  shape: TableShape,
  reversal: Reversal,
  rows: Iterable<Extract<Change, { op: "insert" }>>,
): Map<string, number> {
  const marks = new Map<string, number>();
  for (const change of rows) {
    const mark = markOf(shape, reversal, change.after);
    marks.set(mark, (marks.get(mark) ?? 0) + countOf(change));
  }
  return marks;
}

function markOf(shape: TableShape, reversal: Reversal, row: Row): string {
  return keyText(row.filter((_, at) => reversal[shape.columns[at]?.name ?? ""]?.kind !== "next"));
}

async function largest(facts: ReversingFacts, shape: TableShape, at: number): Promise<bigint> {
  const { target } = facts;
  const column = shape.columns[at]?.name ?? "";
  if (target.largestOf === undefined)
    throw undeclared(
      shape,
      `${column} is numbered anew, and the ${target.adapter} adapter cannot tell the next number`,
    );
  const value = await target.largestOf(shape, at);
  if (value === null) return 0n;
  if (typeof value === "bigint") return value;
  throw undeclared(shape, `${column} is numbered anew, and it holds something else than whole numbers`);
}

function requireColumns(shape: TableShape, reversal: Reversal): void {
  const names = Object.entries(reversal).flatMap(([column, cell]) =>
    cell.kind === "column" || cell.kind === "negate" ? [column, cell.name] : [column],
  );
  const unknown = names.find((name) => !shape.columns.some((c) => c.name === name));
  if (unknown !== undefined) throw undeclared(shape, `it has no column ${unknown}`);
  const generated = shape.columns.find((c) => c.generated === true);
  if (generated !== undefined)
    throw undeclared(shape, `${generated.name} is computed by the target, so the row cannot be foretold`);
}

function undeclared(shape: TableShape, why: string): UsageError {
  return new UsageError({
    code: "ERR_CONFIG_INVALID",
    message: `append_only.${shape.name}.reverse in holdpoint.yaml does not fit the table`,
    why,
    next: [
      {
        actor: "requester",
        text: "Take back the other tables alone with --table, or have the declaration changed.",
      },
    ],
  });
}

function sameRowTwice(shape: TableShape, key: RowKey): RefusedError {
  return new RefusedError({
    code: "ERR_APPEND_ONLY",
    message: `the reversing row of ${shape.name} would have the key of the row that it reverses`,
    why: `append_only.${shape.name}.reverse names none of the ${key.length} columns of the key; number one anew with { next: true }`,
    next: [{ actor: "requester", text: "Take back the other tables alone with --table." }],
  });
}
