/** Snapshots: what is kept, what changed since, and how a drill went. */
import { type BannerView, bannerLines } from "./banner.js";
import { nextLines } from "./command.js";
import type { NextStep } from "../base/errors.js";
import { fact, labelled } from "./error.js";
import { hang, page, paperOf, table } from "./layout.js";
import { count, plural, seconds, when } from "./numbers.js";
import type { Palette } from "./palette.js";
import { patternLines, type PatternView } from "./patterns.js";
import { clean } from "./sanitise.js";
import { type NamedValue, keyText } from "./rows.js";
import { show, type Shown } from "./value.js";

/** One snapshot in a list. */
export interface SnapshotLine {
  readonly id: string;
  readonly at: string;
  readonly target: string;
  readonly level: string;
  readonly rows: number | null;
  /** What it was taken for, what needs it, or what is wrong with it. */
  readonly note: string;
}

/** The list's screen, newest first. */
export function renderSnapshots(view: readonly SnapshotLine[], palette: Palette, width: number): string {
  const v = clean(view);
  if (v.length === 0) return page(["  No snapshot is kept here."]);
  return page(
    table(
      [
        { head: "when (UTC)" },
        { head: "snapshot" },
        { head: "target" },
        { head: "level" },
        { head: "rows", align: "right" },
        { head: "", room: "wrap" },
      ],
      v.map((s) => [
        { text: when(s.at) },
        { text: s.id },
        { text: s.target },
        { text: s.level },
        { text: s.rows === null ? "-" : count(s.rows) },
        { text: s.note },
      ]),
      paperOf(palette, width),
    ),
  );
}

/** Facts about one thing, a label each, under a sentence. */
export interface FactsView {
  readonly headline: string;
  readonly facts: readonly { readonly label: string; readonly text: string }[];
  readonly state: string;
  readonly next: readonly NextStep[];
}

/** The screen of something done or looked at. */
export function renderFacts(view: FactsView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  return page([
    ...hang({ text: "  " }, { text: v.headline }, paper),
    ...v.facts.flatMap((f) => fact(f.label, f.text, paper, ROOM)),
    ...labelled("State", v.state, paper, ROOM),
    ...nextLines(v.next, paper, { room: ROOM }),
  ]);
}

const ROOM = 10;

/** What changed between two states. */
export interface SnapshotDiffView {
  readonly from: string;
  readonly to: string;
  readonly rows: number;
  readonly patterns: readonly PatternView[];
}

/** The diff's screen: every changed row is in one of its lines. */
export function renderSnapshotDiff(view: SnapshotDiffView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  return page([
    ...hang(
      { text: "  " },
      { text: `${v.from} ${palette.glyph.arrow} ${v.to}: ${plural(v.rows, "row")} differ` },
      paper,
    ),
    ...patternLines(v.patterns, paper),
  ]);
}

/** How a drill went. */
export interface DrillView {
  readonly banner: BannerView;
  readonly snapshot: string;
  readonly broken: number;
  readonly written: number;
  readonly restored: number;
  readonly lost: number;
  readonly missing: number;
  readonly seconds: { readonly take: number; readonly restore: number; readonly rescue: number };
}

/** The drill's screen. */
export function renderDrill(view: DrillView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const total = v.seconds.restore + v.seconds.rescue;
  return page([
    ...bannerLines(v.banner, paper),
    "",
    ...fact(
      "Snapshot",
      `${v.snapshot}, read back and restored to a copy in ${seconds(v.seconds.restore)}`,
      paper,
      ROOM,
    ),
    ...fact(
      "Broken",
      `${plural(v.broken, "row")} deleted on the copy, ${plural(v.written, "newer write")} after it`,
      paper,
      ROOM,
    ),
    ...fact("Rescued", `${plural(v.restored, "row")} in ${seconds(v.seconds.rescue)}`, paper, ROOM),
    ...fact(
      "Lost",
      `${plural(v.lost, "newer write")} lost, ${plural(v.missing, "row")} still missing`,
      paper,
      ROOM,
    ),
    ...fact("Recovery", `${seconds(total)} from "we have a snapshot" to "the rows are back"`, paper, ROOM),
    ...labelled(
      "State",
      "The target was only read; the drill ran on a copy, and its result is in the ledger.",
      paper,
      ROOM,
    ),
  ]);
}

/** What is known about one row. */
export interface WhoView {
  readonly table: string;
  readonly key: readonly NamedValue[];
  readonly touches: readonly {
    readonly at: string;
    readonly run: string;
    readonly job: string;
    readonly by: string;
    /** Null when the images were destroyed. */
    readonly cells:
      | readonly { readonly column: string; readonly before: Shown; readonly after: Shown }[]
      | null;
    readonly what: string;
  }[];
  readonly elsewhere: { readonly after: string; readonly before: string } | null;
  readonly next: readonly NextStep[];
}

/** Who touched a row: one line for each run and cell. */
export function renderWho(view: WhoView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const rows = v.touches.flatMap((t) => {
    const head = [{ text: when(t.at) }, { text: t.run }, { text: t.job }, { text: t.by }];
    const none = [{ text: "" }, { text: "" }, { text: "" }, { text: "" }];
    if (t.cells === null || t.cells.length === 0)
      return [[...head, { text: t.what }, { text: "" }, { text: "" }]];
    return t.cells.map((c, i) => [
      ...(i === 0 ? head : none),
      { text: c.column },
      { text: show(c.before, palette) },
      { text: show(c.after, palette) },
    ]);
  });
  return page([
    ...hang({ text: "  " }, { text: `${v.table} ${keyText(v.key, palette)}`, style: palette.title }, paper),
    ...(rows.length === 0
      ? ["  No run of holdpoint touched this row."]
      : table(
          [
            { head: "when (UTC)" },
            { head: "run" },
            { head: "job", room: "wrap" },
            { head: "by" },
            { head: "" },
            { head: "before", room: "cut" },
            { head: "after", room: "cut" },
          ],
          rows,
          paper,
        )),
    ...(v.elsewhere === null
      ? []
      : hang(
          { text: "  ! ", style: palette.conflict },
          {
            text: `changed by something else, after ${v.elsewhere.after} and before ${v.elsewhere.before} (UTC)`,
          },
          paper,
        )),
    ...nextLines(v.next, paper),
  ]);
}
