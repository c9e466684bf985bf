/** Holding a target and letting it go. */
import type { NextStep } from "../base/errors.js";
import { nextLines } from "./command.js";
import { fact } from "./error.js";
import { hang, page, paperOf } from "./layout.js";
import { when } from "./numbers.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** What `hold` and `release` show. */
export interface HoldView {
  readonly target: string;
  readonly kind: "held" | "released";
  readonly by: string;
  readonly reason: string;
  /** The hold that was there before, in words. */
  readonly before: { readonly by: string; readonly at: string; readonly reason: string } | null;
  readonly exempted: readonly string[];
  readonly hook: string | null;
  readonly next: readonly NextStep[];
}

/** The end of `hold` and `release`. */
export function renderHold(view: HoldView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const text =
    v.kind === "held"
      ? `${v.target} is held. No plan begins there, and a run that is under way stops before its next batch.`
      : `${v.target} is released. Plans that are approved may run again.`;
  const before =
    v.before === null ? undefined : `by ${v.before.by}, ${when(v.before.at)} UTC: ${v.before.reason}`;
  return page([
    ...hang({ text: "  " }, { text }, paper),
    ...fact("By", v.by, paper),
    ...fact("Reason", v.reason, paper),
    ...fact(v.kind === "held" ? "Before" : "Held", before, paper),
    ...fact("Except", v.exempted.length === 0 ? undefined : v.exempted.join(", "), paper),
    ...fact("Hook", v.hook === null ? undefined : `${v.hook} ran`, paper),
    ...fact("State", "No row was changed.", paper),
    ...nextLines(v.next, paper),
  ]);
}

/** The line of a hold on other screens: `held by ops@db1 since 26 Nov 2026 14:39 UTC: restoring`. */
export function holdWords(hold: {
  readonly by: string;
  readonly at: string;
  readonly reason: string;
}): string {
  return `held by ${hold.by} since ${when(hold.at)} UTC: ${hold.reason}`;
}
