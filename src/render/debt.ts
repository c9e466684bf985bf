/** A run under break-glass, for the person who reviews it. */
import type { NextStep } from "../base/errors.js";
import { type BannerView, bannerLines } from "./banner.js";
import { nextLines } from "./command.js";
import { fact } from "./error.js";
import { page, paperOf } from "./layout.js";
import { count, when } from "./numbers.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** Who did what alone, and why they say they did. */
export interface DebtView {
  readonly banner: BannerView;
  readonly run: string;
  readonly plan: string;
  readonly job: string;
  readonly by: string;
  readonly at: string;
  readonly reason: string;
  readonly effect: readonly {
    readonly table: string;
    readonly insert: number;
    readonly update: number;
    readonly delete: number;
  }[];
  readonly next: readonly NextStep[];
}

/** The screen before the question. */
export function renderDebt(view: DebtView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  return page([
    ...bannerLines(v.banner, paper),
    "",
    ...fact("Run", `${v.run} (${v.job}), plan ${v.plan}`, paper),
    ...fact("By", `${v.by} alone, ${when(v.at)} UTC`, paper),
    ...fact("Claims", `"${v.reason}"`, paper),
    ...v.effect.flatMap((t) => fact("Did", effectWords(t), paper)),
    ...nextLines(v.next, paper),
  ]);
}

function effectWords(t: DebtView["effect"][number]): string {
  const parts = [
    ...(t.insert > 0 ? [`+ ${count(t.insert)} inserted`] : []),
    ...(t.update > 0 ? [`~ ${count(t.update)} updated`] : []),
    ...(t.delete > 0 ? [`- ${count(t.delete)} deleted`] : []),
  ];
  return `${t.table}: ${parts.join(", ")}`;
}
