/** Conflicts of undo and rescue: for the screen, for `--json`, and for the resolutions file; masked columns masked in all. */
import type { Value } from "../../changeset/value.js";
import type { RowToDecide } from "../../config/resolutions-file.js";
import { mayRestore, type RowConflict } from "../../operations/merging/conflict.js";
import { valueJson } from "../../render/json.js";
import { keyView } from "../../render/rows.js";
import { clean } from "../../render/sanitise.js";
import type { ConflictView, TenantConflictsView, WholeRow } from "../../render/undo.js";
import { showFull, type Shown } from "../../render/value.js";
import { showing, type Showing } from "./rows.js";

/** Lines of conflicts on one screen; the file and `--json` have all of them. */
export const CONFLICTS_SHOWN = 40;

/** How a target's values are shown. */
export function maskOf(mask: Parameters<typeof showing>[0] | undefined): Showing {
  return showing(mask ?? []);
}

/** Rows as the resolutions file lists them. */
export function rowsToDecide(conflicts: readonly RowConflict[], how: Showing): RowToDecide[] {
  return clean(conflicts).map((c, i) => ({
    table: c.table,
    key: c.shape.keyKind === "none" ? "a row without a key" : keyWords(c, how),
    kind: c.kind,
    row: conflicts[i]?.mark ?? "",
    changedBy: c.changedBy,
    mayRestore: mayRestore(c),
    cells: c.columns.map((cell) => ({
      column: cell.column,
      before: words(c.table, cell.column, cell.before, how),
      wrote: c.wroteUnknown === true ? "unknown" : words(c.table, cell.column, cell.wrote, how),
      now: words(c.table, cell.column, cell.now, how),
    })),
  }));
}

function keyWords(c: RowConflict, how: Showing): string {
  const options = how.optionsFor(c.table);
  return keyView(c.key, c.shape, options)
    .map((k) => `${k.column} ${showFull(k.value)}`)
    .join(", ");
}

function words(table: string, column: string, v: Value | undefined, how: Showing): string {
  if (v === undefined) return "no row";
  return showFull(shownValue(table, column, v, how));
}

function shownValue(table: string, column: string, v: Value, how: Showing): Shown {
  return how.isMasked(table, column) ? how.mask(v) : v;
}

/** Conflicts as the screen lists them. */
export function conflictViews(conflicts: readonly RowConflict[], how: Showing): ConflictView[] {
  return conflicts.flatMap((c): ConflictView[] => {
    const options = how.optionsFor(c.table);
    const base = {
      kind: c.kind,
      table: c.table,
      key: keyView(c.key, c.shape, options),
      changedBy: c.changedBy,
    };
    if (c.columns.length === 0)
      return [
        {
          ...base,
          column: null,
          ...wholeRows(c),
          ...(c.wroteUnknown === true ? { wrote: { kind: "unknown" } } : {}),
        },
      ];
    return c.columns.map((cell) => ({
      ...base,
      column: cell.column,
      before: shown(c.table, cell.column, cell.before, how),
      wrote: c.wroteUnknown === true ? { kind: "unknown" } : shown(c.table, cell.column, cell.wrote, how),
      now: shown(c.table, cell.column, cell.now, how),
    }));
  });
}

function shown(table: string, column: string, v: Value | undefined, how: Showing): ConflictView["now"] {
  if (v === undefined) return { kind: "row", exists: false };
  return how.isMasked(table, column) ? how.mask(v) : v;
}

function wholeRows(c: RowConflict): {
  readonly before: WholeRow;
  readonly wrote: WholeRow;
  readonly now: WholeRow;
} {
  const row = (r: unknown): WholeRow => ({ kind: "row", exists: r !== null });
  return { before: row(c.before), wrote: row(c.wrote), now: row(c.now) };
}

/**
 * Conflicts summed by whose rows they are, largest first: those of the row as it is now, else as it was. Tables whose
 * tenant's column nobody names are in no sum.
 */
export function conflictsByTenant(
  conflicts: readonly RowConflict[],
  columns: readonly { readonly table: string; readonly column: string }[],
  how: Showing,
): { readonly view: TenantConflictsView[]; readonly json: unknown[] } {
  const sums = new Map<string, { of: RowConflict; column: string; value: Value; rows: number }>();
  for (const c of conflicts) {
    const named = columns.find((t) => t.table === c.table);
    const at = c.shape.columns.findIndex((column) => column.name === named?.column);
    if (named === undefined || at === -1) continue;
    const value = (c.now ?? c.before ?? c.wrote)?.[at] ?? null;
    const id = `${c.table} ${typeof value} ${JSON.stringify(valueJson(value))}`;
    const sum = sums.get(id) ?? { of: c, column: named.column, value, rows: 0 };
    sums.set(id, { ...sum, rows: sum.rows + 1 });
  }
  const sorted = [...sums.values()].sort((a, b) => b.rows - a.rows);
  return {
    view: sorted.map(({ of, column, value, rows }) => ({
      table: of.table,
      column,
      tenant: shownValue(of.table, column, value, how),
      rows,
    })),
    json: sorted.map(({ of, column, value, rows }) => ({
      table: of.table,
      column,
      tenant: jsonCell(of.table, column, value, how),
      rows,
    })),
  };
}

/** Conflicts as `--json` lists them. */
export function conflictsJson(conflicts: readonly RowConflict[], how: Showing): unknown[] {
  return conflicts.flatMap((c): unknown[] => {
    const key = Object.fromEntries(
      c.shape.key.map((at, i) => {
        const column = c.shape.columns[at]?.name ?? "";
        return [column, jsonCell(c.table, column, c.key[i], how)];
      }),
    );
    const base = { table: c.table, key, kind: c.kind, changed_by: c.changedBy };
    if (c.columns.length === 0) return [{ ...base, column: null, before: null, wrote: null, now: null }];
    return c.columns.map((cell) => ({
      ...base,
      column: cell.column,
      before: jsonCell(c.table, cell.column, cell.before, how),
      wrote: jsonCell(c.table, cell.column, cell.wrote, how),
      now: jsonCell(c.table, cell.column, cell.now, how),
    }));
  });
}

/** An image without a row has null cells, like NULL; `kind` tells them apart. */
function jsonCell(table: string, column: string, v: Value | undefined, how: Showing): unknown {
  if (v === undefined || v === null) return null;
  return how.isMasked(table, column) ? `····@${how.mask(v).tag}` : valueJson(v);
}
