/** Apply: the checks before the first write, one line each as they pass, and how it ended. */
import type { NextStep } from "../base/errors.js";
import { type BannerView, bannerLines } from "./banner.js";
import { nextLines } from "./command.js";
import { fact, labelled } from "./error.js";
import { type Cell, cell, hang, page, type Paper, paperOf, spread, widthOf, wrap } from "./layout.js";
import { outOf, plural, seconds } from "./numbers.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** One check or step that is done. */
export interface CheckView {
  readonly kind: "check" | "snapshot" | "write" | "verify";
  readonly what: string;
  readonly result: "ok" | "failed" | "skipped";
  readonly seconds?: number;
}

/** One line, printed as soon as the check is done. */
export function renderCheck(view: CheckView, palette: Palette, width: number): string {
  return page(checkLines(clean(view), paperOf(palette, width)));
}

function checkLines(v: CheckView, paper: Paper): string[] {
  const failed = v.result === "failed";
  const result: Cell = { text: v.result, ...(failed ? { style: paper.palette.error } : {}) };
  const took = v.seconds === undefined ? "" : seconds(v.seconds);
  const right = took === "" ? result : cell(result, { text: `  ${took.padStart(6)}` });
  if (paper.palette.form === "accessible")
    return hang({ text: "" }, { text: `${right.text}. ${v.kind}: ${v.what}` }, paper);
  // The result stays at the right edge of the first line, also where the words take more than one.
  const head = `  ${v.kind.padEnd(8)}  `;
  const [first = "", ...rest] = wrap(v.what, paper.width - widthOf(head) - widthOf(right.text) - 2);
  return [
    ...spread({ text: `${head}${first}` }, right, paper),
    ...rest.map((line) => `${" ".repeat(head.length)}${line}`),
  ];
}

/** How a run ended. */
export type ApplyEnd =
  | {
      readonly kind: "done";
      readonly seconds: number;
      readonly written: number;
      /** Absent or zero for a plan of rows alone. */
      readonly schemaChanges?: number;
      /** Rows that were already as the plan leaves them. */
      readonly alreadyDone: number;
      readonly run: string;
      readonly snapshot: string;
      /** In words: `a clean undo is already approved until 26 Nov 2026 14:39 UTC`; null when it is not. */
      readonly undoCover: string | null;
    }
  | { readonly kind: "nothing-to-do"; readonly plan: string }
  | { readonly kind: "dry-run"; readonly rows: number; readonly plan: string }
  | { readonly kind: "stopped"; readonly written: number; readonly of: number; readonly run: string };

/** What is shown when `apply` ends without an error of its own. */
export interface ApplyView {
  readonly banner: BannerView;
  readonly end: ApplyEnd;
  readonly next: readonly NextStep[];
}

/** The last block of `apply`: always says whether the target was changed. */
export function renderApplyEnd(view: ApplyView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  return page([...endLines(v.end, paper), ...nextLines(v.next, paper), ...bannerLines(v.banner, paper)]);
}

function endLines(end: ApplyEnd, paper: Paper): string[] {
  const words = (text: string): string[] => hang({ text: "  " }, { text }, paper);
  switch (end.kind) {
    case "done":
      return [
        ...words(doneWords(end)),
        ...fact("Run", end.run, paper),
        ...fact("Kept", `${end.snapshot}, read back and compared`, paper),
        ...fact("Undo", end.undoCover ?? undefined, paper),
      ];
    case "nothing-to-do":
      return [
        ...words(`${end.plan} changes nothing: 0 rows.`),
        ...labelled("State", "Nothing was written.", paper),
      ];
    case "dry-run":
      return [
        ...words(`${end.plan} would write ${plural(end.rows, "row")} now; every check passed.`),
        ...labelled("State", "Nothing was written.", paper),
      ];
    case "stopped":
      return stoppedLines(end, paper);
  }
}

function doneWords(end: Extract<ApplyEnd, { kind: "done" }>): string {
  const already =
    end.alreadyDone === 0 ? "" : ` ${plural(end.alreadyDone, "row was", "rows were")} already so.`;
  const made = end.schemaChanges ?? 0;
  const schema = made === 0 ? "" : ` and ${plural(made, "schema change")} made`;
  return `Done in ${seconds(end.seconds)}. ${plural(end.written, "row")} changed${schema} as planned, 0 others changed.${already}`;
}

function stoppedLines(end: Extract<ApplyEnd, { kind: "stopped" }>, paper: Paper): string[] {
  const left = `  Stopped. Written ${outOf(end.written, end.of)} rows, not written ${plural(end.of - end.written, "row")}.`;
  const right = end.written === 0 ? "Nothing was written" : "THE TARGET WAS CHANGED (exit 40)";
  return [
    ...spread({ text: left }, { text: right, style: paper.palette.strong }, paper),
    ...fact("Run", end.run, paper),
  ];
}
