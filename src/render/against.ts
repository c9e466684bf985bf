/** One plan against an earlier one: only what differs. */
import { type BannerView, bannerLines } from "./banner.js";
import { hang, page, paperOf } from "./layout.js";
import { outOf, plural } from "./numbers.js";
import type { Palette } from "./palette.js";
import { titled } from "./plan.js";
import { rowLines, type RowView } from "./rows.js";
import { clean } from "./sanitise.js";

/** Rows of one kind of difference. */
export interface DifferingView {
  readonly total: number;
  readonly rows: readonly RowView[];
}

/** What `show --against` shows. */
export interface AgainstView {
  readonly banner: BannerView;
  readonly plan: string;
  readonly earlier: string;
  readonly entered: DifferingView;
  readonly left: DifferingView;
  readonly changed: DifferingView;
  readonly same: number;
}

/** The difference, what entered first: that is what nobody has looked at yet. */
export function renderAgainst(view: AgainstView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const part = (title: string, d: DifferingView): string[] =>
    d.total === 0
      ? []
      : titled(title, `${outOf(d.rows.length, d.total)} shown`, rowLines(d.rows, paper), paper);
  return page([
    ...bannerLines(v.banner, paper),
    "",
    ...hang({ text: "  " }, { text: againstWords(v) }, paper),
    ...part("ENTERED THE PLAN", v.entered),
    ...part("CHANGE IN ANOTHER WAY", v.changed),
    ...part("LEFT THE PLAN", v.left),
  ]);
}

/** The difference in one sentence. */
export function againstWords(v: AgainstView): string {
  const { entered, left, changed, same } = v;
  if (entered.total + left.total + changed.total === 0)
    return `${v.plan} changes the same ${plural(same, "row")} as ${v.earlier}, in the same way.`;
  return `Against ${v.earlier}: ${plural(entered.total, "row")} entered the plan, ${plural(left.total, "row")} left it, ${plural(changed.total, "row")} change in another way, ${plural(same, "row")} as before.`;
}
