/** The plan's screen: what would change, by table, by pattern, by sample; what policy says; what to do next. */
import type { NextStep } from "../base/errors.js";
import type { Decision } from "../policy/decision.js";
import { type BannerView, bannerLines } from "./banner.js";
import { type Card, cardLines } from "./card.js";
import { nextLines } from "./command.js";
import { fact, labelled } from "./error.js";
import { decisionLines } from "./explain-policy.js";
import { type Cell, type Column, hang, page, type Paper, paint, paperOf, spread, table } from "./layout.js";
import { count, outOf, plural, share, when } from "./numbers.js";
import type { Palette } from "./palette.js";
import { patternLines, type PatternView } from "./patterns.js";
import { rowLines, type RowView } from "./rows.js";
import { clean } from "./sanitise.js";

/** One table and operation of the effect. */
export interface EffectLine {
  readonly table: string;
  readonly op: "insert" | "update" | "delete";
  readonly rows: number;
  /** Rows of the table before the job. */
  readonly rowsBefore: number;
  /** Columns that an update changes; ignored for whole rows. */
  readonly columns: readonly string[];
  readonly origin: "job" | "cascade" | "trigger" | "unknown";
}

/** What the plan screen shows. All of it is computed from the plan's bytes and the target, none is the author's prose. */
export interface PlanView {
  readonly banner: BannerView;
  /** Parts of the target's address that came from an inherited variable, in words. */
  readonly inherited: readonly string[];
  readonly id: string;
  readonly file: string | null;
  readonly effect: readonly EffectLine[];
  /** Declared counts in words, and whether the effect is inside: `Expected 1..5,000 deletes of backends: inside.` */
  readonly expectation: string | null;
  readonly card: Card | null;
  /** Rows unlike the rest, in full up to the caller's limit, with their number. */
  readonly odd: { readonly rows: readonly RowView[]; readonly total: number };
  readonly patterns: readonly PatternView[];
  readonly sample: readonly RowView[];
  /** Schema changes in words: `create index idx_orders_status`. */
  readonly schemaChanges: readonly string[];
  readonly sequences: readonly { readonly name: string; readonly before: string; readonly after: string }[];
  /** Columns whose values differ from run to run; the signed ones are written. */
  readonly volatile: readonly { readonly table: string; readonly column: string; readonly rows: number }[];
  readonly notices: readonly string[];
  readonly decision: Decision;
  /** Short name of the trust bundle the policy belongs to. */
  readonly bundle: string;
  /** In words: `rehearsed: 2,532 of 2,532 rows came back identical`. */
  readonly undo: string;
  /** How it will be written, where that is more than one transaction; else absent. */
  readonly writing?: string;
  readonly expiresAt: string;
  /** What is written so far; absent where this is the end of the command and nothing is. */
  readonly state?: string;
  readonly next: readonly NextStep[];
}

/** The plan's screen. The target is said again on the last line: the first has scrolled away by then. */
export function renderPlan(view: PlanView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const total = rowsOf(v);
  return page([
    ...bannerLines(v.banner, paper),
    // An address that nobody typed here belongs to the place, and is read before the effect.
    ...v.inherited.flatMap((text) => fact("From", text, paper)),
    // Before anything else: who has ten seconds reads these lines, and the rest explains them.
    ...section(v.card === null ? [] : cardLines(v.card, paper)),
    "",
    ...hang({ text: "  " }, { text: headline(v, total) }, paper),
    ...section(effectLines(v, paper)),
    ...oddSection(v, total, paper),
    ...patternSection(v, total, paper),
    ...sampleSection(v, total, paper),
    ...section(otherLines(v, paper)),
    ...section(decisionLines(v.decision, v.bundle, paper)),
    "",
    ...fact("Undo", v.undo, paper),
    ...fact("Write", v.writing, paper),
    ...fact("Plan", `${v.id}, expires ${when(v.expiresAt)} UTC`, paper),
    ...fact("File", v.file ?? undefined, paper),
    ...labelled("State", v.state ?? "Nothing was written.", paper),
    ...nextLines(v.next, paper),
    ...bannerLines({ verdict: v.banner.verdict, target: v.banner.target }, paper),
  ]);
}

function rowsOf(v: PlanView): number {
  return v.effect.reduce((sum, e) => sum + e.rows, 0);
}

function headline(v: PlanView, total: number): string {
  const tables = new Set(v.effect.map((e) => e.table)).size;
  const schema =
    v.schemaChanges.length === 0 ? "" : ` and make ${plural(v.schemaChanges.length, "schema change")}`;
  if (total === 0 && schema === "") return "Would change nothing: 0 rows. Nothing has been written.";
  return `Would change ${plural(total, "row")} in ${plural(tables, "table")}${schema}. Nothing has been written.`;
}

/** A blank line before what is there; nothing for nothing. */
function section(lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ["", ...lines];
}

/** A section's title in bold, with what it covers at the right edge. */
export function titled(title: string, right: string, lines: readonly string[], paper: Paper): string[] {
  if (lines.length === 0) return [];
  const head = { text: `  ${title}`, style: paper.palette.title };
  return ["", ...spread(head, { text: right }, paper), ...lines];
}

const EFFECT_COLUMNS: readonly Column[] = [
  { head: "table" },
  { head: "action" },
  { head: "rows", align: "right" },
  { head: "of table", align: "right" },
  { head: "columns", room: "wrap" },
  { head: "origin", room: "wrap" },
];

function effectLines(v: PlanView, paper: Paper): string[] {
  const rows = v.effect.map((e) => effectRow(e, paper.palette));
  const lines = rows.length === 0 ? [] : table(EFFECT_COLUMNS, rows, paper);
  return v.expectation === null ? lines : [...lines, ...hang({ text: "  " }, { text: v.expectation }, paper)];
}

function effectRow(e: EffectLine, p: Palette): Cell[] {
  return [
    { text: e.table },
    { text: e.op },
    { text: count(e.rows) },
    { text: e.op === "insert" ? "-" : share(e.rows, e.rowsBefore) },
    { text: e.op === "update" ? e.columns.join(", ") : "whole row" },
    originCell(e.origin, p),
  ];
}

function originCell(origin: EffectLine["origin"], p: Palette): Cell {
  switch (origin) {
    case "job":
    case "unknown":
      return { text: origin };
    case "cascade":
    case "trigger":
      return { text: `${origin}, not in job`, style: p.note };
  }
}

function oddSection(v: PlanView, total: number, paper: Paper): string[] {
  const right = `${outOf(v.odd.total, total)} rows`;
  const lines = rowLines(v.odd.rows, paper);
  const more = v.odd.total - v.odd.rows.length;
  const rest = more > 0 ? [`  and ${plural(more, "more row")}`] : [];
  return titled("LOOK HERE FIRST", right, [...lines, ...rest], paper);
}

function patternSection(v: PlanView, total: number, paper: Paper): string[] {
  const covered = v.patterns.reduce((sum, p) => sum + p.rows, 0);
  return titled(
    "EVERY ROW, BY PATTERN",
    `covers ${outOf(covered, total)}`,
    patternLines(v.patterns, paper),
    paper,
  );
}

function sampleSection(v: PlanView, total: number, paper: Paper): string[] {
  const right = `${outOf(v.sample.length, total)}, chosen by the plan's own digest`;
  return titled("SAMPLE", right, rowLines(v.sample, paper), paper);
}

function otherLines(v: PlanView, paper: Paper): string[] {
  const lines = [
    ...v.schemaChanges.map((s) => `schema: ${s}`),
    ...v.sequences.map((s) => `sequence ${s.name}: ${s.before} ${paper.palette.glyph.arrow} ${s.after}`),
    ...v.volatile.map(
      (c) => `${c.table}.${c.column}: differs from run to run, written as signed, ${plural(c.rows, "row")}`,
    ),
    ...v.notices,
  ];
  return lines.flatMap((text) => hang({ text: `  ${paint({ text: "note" })}  ` }, { text }, paper));
}
