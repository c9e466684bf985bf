/** Undo: what goes back, what others wrote since and keeps standing, and what cannot be decided without a person. */
import type { NextStep } from "../base/errors.js";
import { type BannerView, bannerLines } from "./banner.js";
import { nextLines } from "./command.js";
import { fact, labelled } from "./error.js";
import { type Cell, type Column, hang, page, type Paper, paperOf, table } from "./layout.js";
import { count, plural, seconds } from "./numbers.js";
import type { Palette } from "./palette.js";
import { titled } from "./plan.js";
import { keyText, type NamedValue } from "./rows.js";
import { clean } from "./sanitise.js";
import { show, type Shown } from "./value.js";

/** Kinds of conflict, as the merge names them. */
export type ConflictKind =
  | "changed"
  | "missing"
  | "exists"
  | "two-entities"
  | "constraint"
  | "foreign-key"
  | "undecidable";

/** A whole row in the place of one value. */
export interface WholeRow {
  readonly kind: "row";
  readonly exists: boolean;
}

/** An image that nobody recorded. */
export interface UnknownImage {
  readonly kind: "unknown";
}

/** One thing that undo will not decide by itself: the three images, always in this order. */
export interface ConflictView {
  readonly kind: ConflictKind;
  readonly table: string;
  readonly key: readonly NamedValue[];
  /** Null when it is about the row as a whole. */
  readonly column: string | null;
  readonly before: Shown | WholeRow;
  readonly wrote: Shown | WholeRow | UnknownImage;
  readonly now: Shown | WholeRow;
  /** The run that touched the row last since, where one is known. */
  readonly changedBy?: string | null;
}

/** Conflicts of one tenant in one table. */
export interface TenantConflictsView {
  readonly table: string;
  /** The column that says whose a row is. */
  readonly column: string;
  readonly tenant: Shown;
  readonly rows: number;
}

/** How an undo ended. */
export type UndoEnd =
  | { readonly kind: "applied"; readonly run: string; readonly seconds: number; readonly written: number }
  | { readonly kind: "planned"; readonly plan: string; readonly why: string }
  | { readonly kind: "conflict"; readonly resolutions: string | null }
  | { readonly kind: "nothing" };

/** What `undo` shows. */
export interface UndoView {
  readonly banner: BannerView;
  readonly run: string;
  /** What the run itself had taken back: then this is an undo of an undo. */
  readonly undid?: readonly string[];
  readonly counts: {
    readonly put_back: number;
    readonly nothing_to_do: number;
    readonly merged: number;
    readonly conflict: number;
    /** We updated it and it is gone now: nothing to resurrect. Part of `nothing_to_do`. */
    readonly gone?: number;
    /** Rows of tables that only grow, for which a reversing row is added. */
    readonly reversed?: number;
    /** Rows of such tables that stay as they are. Part of `nothing_to_do`. */
    readonly left?: number;
    /** Rows of the run that were not asked for. */
    readonly outside?: number;
  };
  readonly conflicts: readonly ConflictView[];
  /** Their sums by tenant, largest first; empty where no column says whose a row is. */
  readonly byTenant: readonly TenantConflictsView[];
  readonly end: UndoEnd;
  readonly next: readonly NextStep[];
}

/** The undo's screen. The heads are *before*, *we wrote*, *now*, never "ours" and "theirs". */
export function renderUndo(view: UndoView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  return page([
    ...bannerLines(v.banner, paper),
    "",
    ...countLines(v, paper),
    ...titled("CONFLICTS", plural(v.counts.conflict, "row"), conflictLines(v.conflicts, paper), paper),
    ...tenantLines(v.byTenant, paper),
    "",
    ...endLines(v, paper),
    ...nextLines(v.next, paper),
  ]);
}

const COUNT_COLUMNS: readonly Column[] = [
  { head: "", align: "right" },
  { head: "" },
  { head: "", room: "wrap" },
];

function countLines(v: UndoView, paper: Paper): string[] {
  const p = paper.palette;
  const { counts } = v;
  const line = (n: number, what: Cell, why: string): Cell[] => [{ text: count(n) }, what, { text: why }];
  const gone = counts.gone ?? 0;
  // What there is none of is not said: who reads the word CONFLICT has one.
  const some = (n: number, what: Cell, why: string): Cell[][] => (n === 0 ? [] : [line(n, what, why)]);
  const lines = [
    ...some(counts.put_back, { text: "put back" }, "unchanged since the run"),
    ...some(counts.nothing_to_do, { text: "nothing to do" }, nothingWords(gone, counts.left ?? 0)),
    ...some(
      counts.merged,
      { text: "put back, keep later edit" },
      "a different column was edited later; both survive",
    ),
    ...some(
      counts.conflict,
      { text: "CONFLICT", style: p.conflict },
      "the same cell was changed later, or the row lives again",
    ),
    ...some(counts.reversed ?? 0, { text: "reversed" }, "by a new row: the table only grows"),
    ...some(counts.outside ?? 0, { text: "left alone" }, "not asked for"),
  ];
  const none = [line(0, { text: "put back" }, "no row of the run is asked for")];
  return table(COUNT_COLUMNS, lines.length === 0 ? none : lines, paper);
}

function nothingWords(gone: number, left: number): string {
  return [
    "already back to the earlier value",
    ...(gone > 0 ? [`${count(gone)} gone since`] : []),
    ...(left > 0 ? [`${count(left)} left as it is, append only`] : []),
  ].join(", ");
}

const CONFLICT_COLUMNS: readonly Column[] = [
  { head: "" },
  { head: "row" },
  { head: "column" },
  { head: "before", room: "cut" },
  { head: "we wrote", room: "cut" },
  { head: "now", room: "cut" },
];

/** The conflicts as a table, of clean views. */
export function conflictLines(conflicts: readonly ConflictView[], paper: Paper): string[] {
  if (conflicts.length === 0) return [];
  const who = conflicts.some((c) => (c.changedBy ?? null) !== null);
  return table(
    who ? [...CONFLICT_COLUMNS, { head: "changed by" }] : CONFLICT_COLUMNS,
    conflicts.map((c) => [...conflictCells(c, paper.palette), ...(who ? [{ text: c.changedBy ?? "" }] : [])]),
    paper,
  );
}

/** Tenants on one screen; `--json` has all of them. */
const TENANTS_SHOWN = 12;

/** Whose rows are in conflict, and how many: who has to be asked. */
export function tenantLines(tenants: readonly TenantConflictsView[], paper: Paper): string[] {
  const more = tenants.length - TENANTS_SHOWN;
  const rows = tenants
    .slice(0, TENANTS_SHOWN)
    .map((t): Cell[] => [
      { text: count(t.rows) },
      { text: t.table },
      { text: `${t.column} ${show(t.tenant, paper.palette)}` },
    ]);
  const lines = rows.length === 0 ? [] : table(TENANT_COLUMNS, rows, paper);
  return titled("CONFLICTS BY TENANT", more > 0 ? `and ${plural(more, "tenant")} more` : "", lines, paper);
}

const TENANT_COLUMNS: readonly Column[] = [
  { head: "", align: "right" },
  { head: "" },
  { head: "", room: "wrap" },
];

function conflictCells(c: ConflictView, p: Palette): Cell[] {
  return [
    { text: p.form === "accessible" ? "conflict" : "!", style: p.conflict },
    { text: `${c.table} ${keyText(c.key, p)}` },
    { text: c.column ?? kindWords(c.kind) },
    { text: side(c.before, BEFORE, p) },
    { text: side(c.wrote, WROTE, p) },
    { text: side(c.now, c.kind === "two-entities" ? NEW_ENTITY : NOW, p), style: p.strong },
  ];
}

/** How the images say that a whole row is there, and that it is not. */
type RowWords = readonly [there: string, not: string];
const BEFORE: RowWords = ["row existed", "no row"];
const WROTE: RowWords = ["row written", "row deleted"];
const NOW: RowWords = ["row exists", "no row"];
const NEW_ENTITY: RowWords = ["new row, same key", "no row"];

function side(v: Shown | WholeRow | UnknownImage, [there, not]: RowWords, p: Palette): string {
  if (typeof v !== "object" || v === null || !("kind" in v)) return show(v, p);
  if (v.kind === "unknown") return "unknown";
  if (v.kind !== "row") return show(v, p);
  return v.exists ? there : not;
}

function kindWords(kind: ConflictKind): string {
  switch (kind) {
    case "changed":
      return "edited since";
    case "missing":
      return "row is gone";
    case "exists":
      return "key is taken";
    case "two-entities":
      return "two entities";
    case "constraint":
      return "constraint";
    case "foreign-key":
      return "foreign key";
    case "undecidable":
      return "undecidable";
  }
}

function stateAfter(v: UndoView): string {
  const again = v.undid ?? [];
  return again.length === 0
    ? "The target was changed: it is as before the run, with what others wrote since."
    : `The target was changed: it is as after ${again.join(", ")} again, with what others wrote since.`;
}

function endLines(v: UndoView, paper: Paper): string[] {
  const words = (text: string): string[] => hang({ text: "  " }, { text }, paper);
  const state = (text: string): string[] => labelled("State", text, paper);
  switch (v.end.kind) {
    case "applied":
      return [
        ...words(`Undid ${v.run} in ${seconds(v.end.seconds)}: ${plural(v.end.written, "row")} put back.`),
        ...fact("Run", v.end.run, paper),
        ...state(stateAfter(v)),
      ];
    case "planned":
      return [...labelled("Plan", `${v.end.plan}: ${v.end.why}`, paper), ...state("Nothing was written.")];
    case "conflict":
      return [
        ...fact("File", v.end.resolutions ?? undefined, paper),
        ...state("Nothing was written (exit 37)."),
      ];
    case "nothing":
      return [...words(`Nothing of ${v.run} is left to undo.`), ...state("Nothing was written.")];
  }
}
