/** From changes to what a screen shows of them, with the target's masked columns masked everywhere. */
import type { Change, TableShape } from "../../changeset/change.js";
import type { Pattern, Summary } from "../../changeset/summarise.js";
import type { Value } from "../../changeset/value.js";
import type { PatternView } from "../../render/patterns.js";
import { type RowView, rowView, type RowViewOptions } from "../../render/rows.js";
import { createMasker, type Masked } from "../../render/value.js";

/** How one document shows values: which columns are masked, with one tag per value. */
export interface Showing {
  readonly optionsFor: (table: string) => RowViewOptions;
  readonly isMasked: (table: string, column: string) => boolean;
  readonly mask: (v: Value) => Masked;
}

/** `masked`: the columns that the configuration lists. */
export function showing(masked: readonly { readonly table: string; readonly column: string }[]): Showing {
  const mask = createMasker();
  const isMasked = (table: string, column: string): boolean =>
    masked.some((m) => m.table === table && m.column === column);
  return {
    isMasked,
    mask,
    optionsFor: (table) => ({ isMasked: (column) => isMasked(table, column), mask }),
  };
}

/** Rows for the screen; a change of an unknown table cannot occur and is left out. */
export function rowViews(
  changes: Iterable<Change>,
  shapes: readonly TableShape[],
  how: Showing,
  labels: readonly string[] = [],
): RowView[] {
  const byName = new Map(shapes.map((s) => [s.name, s]));
  return [...changes].flatMap((c) => {
    const shape = byName.get(c.table);
    return shape === undefined ? [] : [rowView(c, shape, { ...how.optionsFor(c.table), labels })];
  });
}

/** All patterns of a summary: together they cover every row. */
export function patternViews(summary: Pick<Summary, "patterns">, how: Showing): PatternView[] {
  return summary.patterns.map((p) => patternView(p, how));
}

function patternView(p: Pattern, how: Showing): PatternView {
  const shown = (column: string, v: Value): Value | Masked =>
    how.isMasked(p.table, column) ? how.mask(v) : v;
  return {
    table: p.table,
    op: p.op,
    rows: p.rows,
    columns: p.columns.map((c) =>
      c.kind === "transition"
        ? { column: c.column, from: shown(c.column, c.from), to: shown(c.column, c.to) }
        : { column: c.column, from: { kind: "varies" }, to: { kind: "varies" } },
    ),
    ...(p.various === true ? { note: "some of these columns in each row" } : {}),
    ...noteOf(p),
  };
}

function noteOf(p: Pattern): { readonly note?: string } {
  if (p.origin === "cascade" || p.origin === "trigger") return { note: `${p.op} by ${p.origin}` };
  const many = p.columns.find((c) => c.kind === "many");
  if (many?.kind !== "many") return {};
  return { note: `${many.exact ? "" : "over "}${many.distinct} different changes of ${many.column}` };
}
