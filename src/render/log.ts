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

/** A column of the log and what stands in it. */
interface LogColumn extends Column {
  readonly text: (l: LogLine, p: Palette) => string;
}

const WHEN: LogColumn = { head: "when (UTC)", text: (l) => when(l.at) };
const RUN: LogColumn = { head: "run", text: (l) => l.run ?? "-" };
const TARGET: LogColumn = { head: "target", text: (l) => l.target };
const JOB: LogColumn = { head: "job", room: "cut", text: (l) => l.job };
const ROWS: LogColumn = {
  head: "rows",
  align: "right",
  text: (l) => (l.rows === null ? "-" : count(l.rows)),
};
const PEOPLE: LogColumn = {
  head: "by, approver",
  room: "wrap",
  text: (l, p) =>
    l.approvers.length === 0 ? l.requester : `${l.requester} ${p.glyph.arrow} ${l.approvers.join(", ")}`,
};
const RESULT: LogColumn = { head: "result", room: "wrap", text: (l) => l.result };

/**
 * The columns that this paper holds. Of one target its name is a line above the table; on narrow paper the day stands
 * without its year and an id by as many characters as tell all of them apart, which every command accepts.
 */
function columnsFor(lines: readonly LogLine[], paper: Paper): readonly LogColumn[] {
  const targets = new Set(lines.map((l) => l.target));
  const narrow = paper.width < WIDE && paper.palette.form !== "accessible";
  const year = lines[0]?.at.slice(0, 4);
  const oneYear = lines.every((l) => l.at.slice(0, 4) === year);
  const short = shortIds(lines.flatMap((l) => (l.run === null ? [] : [l.run])));
  return [
    narrow && oneYear ? { ...WHEN, text: (l) => when(l.at).replace(` ${l.at.slice(0, 4)} `, " ") } : WHEN,
    narrow ? { ...RUN, text: (l) => (l.run === null ? "-" : (short.get(l.run) ?? l.run)) } : RUN,
    ...(targets.size > 1 ? [TARGET] : []),
    JOB,
    ROWS,
    { ...PEOPLE, head: `by ${paper.palette.glyph.arrow} approver` },
    RESULT,
  ];
}

/** From this width on, everything is written out. */
const WIDE = 140;
const LEAST_ID = 11;

/** The shortest beginnings that are unique among them, of one length, not shorter than eight characters after the prefix. */
function shortIds(ids: readonly string[]): ReadonlyMap<string, string> {
  const all = [...new Set(ids)];
  let length = LEAST_ID;
  while (new Set(all.map((id) => id.slice(0, length))).size < all.length) length += 1;
  return new Map(all.map((id) => [id, id.slice(0, length)]));
}

/** The log's screen. */
export function renderLog(view: LogView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const lines =
    v.lines.length === 0
      ? ["  Nothing has happened yet."]
      : [...targetLine(v.lines, paper), ...logTable(v.lines, paper)];
  return page([...lines, "", ...chainLines(v.chain, paper), ...nextLines(v.next, paper)]);
}

function logTable(lines: readonly LogLine[], paper: Paper): string[] {
  const columns = columnsFor(lines, paper);
  const rows: Cell[][] = lines.map((l) => columns.map((c) => ({ text: c.text(l, paper.palette) })));
  return table(columns, rows, paper);
}

function targetLine(lines: readonly LogLine[], paper: Paper): string[] {
  const [first] = lines;
  const one = first !== undefined && lines.every((l) => l.target === first.target);
  return one ? [...hang({ text: "  " }, { text: first.target, style: paper.palette.title }, paper), ""] : [];
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
  const rows: Cell[][] = v.entries.map((e) => [
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
    ...(paper.width < FACTS_BESIDE && paper.palette.form !== "accessible"
      ? v.entries.flatMap((e) => entryBlock(e, paper))
      : table(columns, rows, paper)),
    "",
    ...chainLines(v.chain, paper),
  ]);
}

/** On narrower paper the facts stand below their entry: a column of them would break every id. */
const FACTS_BESIDE = 90;

function entryBlock(e: EntryView, paper: Paper): string[] {
  const head = { text: `  ${count(e.sequence).padStart(4)}  ${when(e.at)}  ${e.kind}` };
  return [
    "",
    ...hang({ text: "" }, head, paper),
    ...hang({ text: " ".repeat(8) }, { text: e.facts.join(", ") }, paper),
  ];
}
