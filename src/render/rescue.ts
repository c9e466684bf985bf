/** Rescue: what a snapshot shows, what becomes of each row, and what nobody can decide but a person. */
import type { NextStep } from "../base/errors.js";
import { type BannerView, bannerLines } from "./banner.js";
import { nextLines } from "./command.js";
import { fact, labelled } from "./error.js";
import { type Cell, type Column, page, type Paper, paperOf, table } from "./layout.js";
import { count, plural, when } from "./numbers.js";
import type { Palette } from "./palette.js";
import { patternLines, type PatternView } from "./patterns.js";
import { titled } from "./plan.js";
import { clean } from "./sanitise.js";
import { conflictLines, type ConflictView, tenantLines, type TenantConflictsView } from "./undo.js";

/** Rows by what becomes of them. */
export interface RescueCountsView {
  readonly restored: number;
  readonly merged: number;
  readonly removed: number;
  readonly kept: number;
  readonly conflict: number;
  readonly undecidable: number;
  readonly other: number;
  readonly born: number;
}

/** What `rescue` shows. */
export interface RescueView {
  readonly banner: BannerView;
  readonly snapshot: { readonly id: string; readonly at: string };
  readonly rejected: readonly { readonly id: string; readonly why: string }[];
  /** The damage in the words in which it was declared; empty when nothing was. */
  readonly damage: readonly string[];
  /** By what the rows were narrowed besides; empty when by nothing. */
  readonly only: readonly string[];
  readonly counts: RescueCountsView;
  /** What changed since the snapshot, shown where nobody has said what of it is damage. */
  readonly changed: readonly PatternView[];
  readonly conflicts: readonly ConflictView[];
  /** Their sums by tenant, largest first; empty where no column says whose a row is. */
  readonly byTenant: readonly TenantConflictsView[];
  readonly plan: string | null;
  readonly resolutions: string | null;
  readonly next: readonly NextStep[];
}

/** The rescue's screen. It says first that nothing is written. */
export function renderRescue(view: RescueView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const open = v.counts.conflict + v.counts.undecidable;
  return page([
    ...bannerLines(v.banner, paper),
    "",
    ...fact("Base", `${v.snapshot.id}, ${when(v.snapshot.at)} UTC, verified`, paper, ROOM),
    ...v.rejected.flatMap((r) => fact("Rejected", `${r.id}: ${r.why}`, paper, ROOM)),
    ...fact("Damage", v.damage.length === 0 ? "not declared" : v.damage.join("; "), paper, ROOM),
    ...v.only.flatMap((o) => fact("Only", o, paper, ROOM)),
    "",
    ...countLines(v.counts, paper),
    ...(v.changed.length === 0
      ? []
      : titled(
          "CHANGED SINCE THE SNAPSHOT",
          "damage or not: nobody has said",
          patternLines(v.changed, paper),
          paper,
        )),
    ...titled("TO DECIDE", plural(open, "row"), conflictLines(v.conflicts, paper), paper),
    ...tenantLines(v.byTenant, paper),
    "",
    ...fact("File", v.resolutions ?? undefined, paper, ROOM),
    ...labelled("State", stateWords(v, open), paper, ROOM),
    ...nextLines(v.next, paper, { room: ROOM }),
  ]);
}

const ROOM = 10;

const COLUMNS: readonly Column[] = [{ head: "", align: "right" }, { head: "" }, { head: "", room: "wrap" }];

function countLines(c: RescueCountsView, paper: Paper): string[] {
  const p = paper.palette;
  const row = (n: number, what: Cell, why: string): Cell[][] =>
    n === 0 ? [] : [[{ text: count(n) }, what, { text: why }]];
  const rows = [
    ...row(c.restored, { text: "restore" }, "as the damage left them"),
    ...row(
      c.merged,
      { text: "restore, keep later edit" },
      "another column was edited since, or a decision says so",
    ),
    ...row(c.kept, { text: "keep now" }, "decided"),
    ...row(
      c.conflict,
      { text: "CONFLICT", style: p.conflict },
      "changed again since, the key lives again, or the target would not take it",
    ),
    ...row(
      c.undecidable,
      { text: "UNDECIDABLE", style: p.conflict },
      "nothing tells whether the damage or its owner changed it",
    ),
    ...row(c.removed, { text: "leave removed" }, "gone, and not by this damage: never resurrected"),
    ...row(c.other, { text: "leave alone" }, "changed since the snapshot, but not by this damage"),
    ...row(c.born, { text: "leave alone" }, "born since the snapshot"),
  ];
  return rows.length === 0 ? ["  Everything is as in the snapshot."] : table(COLUMNS, rows, paper);
}

function stateWords(v: RescueView, open: number): string {
  const rows = v.counts.restored + v.counts.merged;
  if (v.plan === null) return "Nothing was written.";
  const left = open === 0 ? "" : `; the ${count(open)} to decide are left out (exit 37)`;
  return `Nothing was written. ${v.plan} covers ${plural(rows, "row")}${left}`;
}
