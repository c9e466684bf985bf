/** What stands around values that are masked everywhere else: whose eyes they are for, and what was recorded. */
import { type BannerView, bannerLines } from "./banner.js";
import { hang, page, paperOf } from "./layout.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** The head of the screen that shows them. */
export interface RevealView {
  readonly banner: BannerView;
  /** `table.column` each. */
  readonly columns: readonly string[];
  readonly by: string;
}

/** The head, above the rows. */
export function renderReveal(view: RevealView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  return page([
    ...bannerLines(v.banner, paper),
    "",
    ...hang(
      { text: "  " },
      { text: `${v.columns.join(", ")} unmasked, for ${v.by}. This is recorded.` },
      paper,
    ),
    "",
  ]);
}

/** What is left when the values are gone from the screen. */
export interface RevealedView {
  readonly plan: string;
  readonly columns: readonly string[];
  readonly by: string;
  readonly reason: string;
  /** The entry's place in the ledger. */
  readonly entry: number;
}

/** The last line. */
export function renderRevealed(view: RevealedView, palette: Palette, width: number): string {
  const v = clean(view);
  const text = `${v.columns.join(", ")} of ${v.plan} shown to ${v.by}: ${v.reason}. Entry ${v.entry} of the ledger.`;
  return page(hang({ text: "  " }, { text }, paperOf(palette, width)));
}
