/** Drift: what moved between plan and now, who it matters to, and that nothing was written. */
import { errorLines, type ErrorView, plainError } from "./error.js";
import { type Cell, type Column, hang, page, type Paper, paperOf, table } from "./layout.js";
import { count, when } from "./numbers.js";
import type { Palette } from "./palette.js";
import { changeCell, keyText, type NamedValue } from "./rows.js";
import { clean } from "./sanitise.js";
import type { Shown } from "./value.js";

/** Rows that moved alike. */
export interface DriftGroup {
  readonly rows: number;
  /** `orders.status pending → paid`, in words. */
  readonly what: string;
  readonly matters: boolean;
  /** Why it matters or not: `would cancel paid orders`, `column not touched`. */
  readonly why: string;
}

/** One row that is neither as planned nor as the plan leaves it. */
export interface DriftRow {
  readonly table: string;
  readonly key: readonly NamedValue[];
  /** Null when the row itself appeared or went away. */
  readonly column: string | null;
  readonly planned: Shown;
  readonly now: Shown;
}

/** What a drift refusal shows: the error, and between its Why and State the facts. */
export interface DriftView {
  readonly error: ErrorView;
  readonly plannedAt: string;
  readonly nowAt: string;
  readonly groups: readonly DriftGroup[];
  /** The first rows that matter. */
  readonly rows: readonly DriftRow[];
}

/** The refusal's screen. What does not matter is shown once, faint, and never is a reason by itself. */
export function renderDrift(view: DriftView, palette: Palette, width: number): string {
  const v = clean({ ...view, error: plainError(view.error) });
  const paper = paperOf(palette, width);
  const lines = errorLines(v.error, paper);
  const at = lines.findIndex((l) => /^ *State/.test(l));
  return page([...lines.slice(0, at), ...factLines(v, paper), ...lines.slice(at)]);
}

const GROUPS: readonly Column[] = [
  { head: "rows", align: "right" },
  { head: "what moved", room: "wrap" },
  { head: "does it matter", room: "wrap" },
];

const ROWS: readonly Column[] = [{ head: "row" }, { head: "column" }, { head: "planned, now", room: "wrap" }];

function factLines(v: Omit<DriftView, "error">, paper: Paper): string[] {
  const p = paper.palette;
  const read = `The plan read the rows at ${when(v.plannedAt)} UTC; this is ${when(v.nowAt)} UTC.`;
  const groups = v.groups.map((g) => groupCells(g, p));
  const rows = v.rows.map((r) => rowCells(r, p));
  return [
    ...hang({ text: "         " }, { text: read }, paper),
    ...(groups.length === 0 ? [] : table(GROUPS, groups, paper, "         ")),
    ...(rows.length === 0 ? [] : table(ROWS, rows, paper, "         ")),
  ];
}

function groupCells(g: DriftGroup, p: Palette): Cell[] {
  const style = g.matters ? {} : { style: p.faint };
  return [
    { text: count(g.rows), ...style },
    { text: g.what, ...style },
    { text: `${g.matters ? "yes" : "no"}, ${g.why}`, ...style },
  ];
}

function rowCells(r: DriftRow, p: Palette): Cell[] {
  return [
    { text: `${r.table} ${keyText(r.key, p)}` },
    { text: r.column ?? "whole row" },
    r.column === null ? { text: "the row itself" } : changeCell(r.planned, r.now, p),
  ];
}
