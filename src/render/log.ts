/** The log: what happened, newest first, and whether the chain holds. */
import type { NextStep } from "../base/errors.js";
import { nextLines } from "./command.js";
import { labelled } from "./error.js";
import { type Cell, type Column, hang, page, type Paper, paperOf, spread, table } from "./layout.js";
import { count, plural, when } from "./numbers.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** One line of the log: a run, or a plan that came to nothing. */
export interface LogLine {
  readonly at: string;
  readonly run: string | null;
  readonly target: string;
  readonly job: string;
  readonly rows: number | null;
  readonly requester: string;
  /** Approvers, or what stood in their place: `policy`, `BREAK-GLASS`. */
  readonly approvers: readonly string[];
  readonly result: string;
}

/** Whether the chain is whole, in digests already shortened. */
export type ChainView =
  | { readonly kind: "intact"; readonly entries: number; readonly head: string }
  | { readonly kind: "broken"; readonly entries: number; readonly firstBad: number; readonly why: string }
  | { readonly kind: "none" };

/** What `log` shows. */
export interface LogView {
  readonly lines: readonly LogLine[];
  readonly chain: ChainView;
  readonly next: readonly NextStep[];
}

const COLUMNS: readonly Column[] = [
  { head: "when (UTC)" },
  { head: "run" },
  { head: "target" },
  { head: "job", room: "wrap" },
  { head: "rows", align: "right" },
  { head: "by, approver", room: "wrap" },
  { head: "result", room: "wrap" },
];

/** The log's screen. */
export function renderLog(view: LogView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const lines =
    v.lines.length === 0
      ? ["  Nothing has happened yet."]
      : table(
          COLUMNS,
          v.lines.map((l) => logCells(l, palette)),
          paper,
        );
  return page([...lines, "", ...chainLines(v.chain, paper), ...nextLines(v.next, paper)]);
}

function logCells(l: LogLine, p: Palette): Cell[] {
  const by =
    l.approvers.length === 0 ? l.requester : `${l.requester} ${p.glyph.arrow} ${l.approvers.join(", ")}`;
  return [
    { text: when(l.at) },
    { text: l.run ?? "-" },
    { text: l.target },
    { text: l.job },
    { text: l.rows === null ? "-" : count(l.rows) },
    { text: by },
    { text: l.result },
  ];
}

/** The chain in one line: `chain intact: 1,882 entries, head 7d0f…e1`. */
export function renderChain(view: ChainView, palette: Palette, width: number): string {
  return page(chainLines(clean(view), paperOf(palette, width)));
}

function chainLines(c: ChainView, paper: Paper): string[] {
  const line = (text: string): string[] => hang({ text: "  " }, { text }, paper);
  switch (c.kind) {
    case "none":
      return line("No ledger here yet.");
    case "intact":
      return line(`chain intact: ${plural(c.entries, "entry", "entries")}, head ${c.head}`);
    case "broken":
      return [
        ...hang(
          { text: "  " },
          {
            text: `CHAIN BROKEN at entry ${count(c.firstBad)} of ${count(c.entries)}`,
            style: paper.palette.error,
          },
          paper,
        ),
        ...labelled("Why", c.why, paper),
      ];
  }
}

/** One entry in full, as `log show RUN` lists them. */
export interface EntryView {
  readonly sequence: number;
  readonly at: string;
  readonly kind: string;
  /** Facts in words, one each: `rows 2,532`, `by dana`. */
  readonly facts: readonly string[];
}

/** The entries of one run or plan, oldest first. */
export function renderEntries(
  view: { readonly title: string; readonly entries: readonly EntryView[]; readonly chain: ChainView },
  palette: Palette,
  width: number,
): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const columns: readonly Column[] = [
    { head: "entry", align: "right" },
    { head: "when (UTC)" },
    { head: "what" },
    { head: "facts", room: "wrap" },
  ];
  const rows = v.entries.map((e) => [
    { text: count(e.sequence) },
    { text: when(e.at) },
    { text: e.kind },
    { text: e.facts.join(", ") },
  ]);
  return page([
    ...spread(
      { text: `  ${v.title}`, style: palette.title },
      { text: plural(rows.length, "entry", "entries") },
      paper,
    ),
    ...table(columns, rows, paper),
    "",
    ...chainLines(v.chain, paper),
  ]);
}
