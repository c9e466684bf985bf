/** The banner: where we are, by the verdict and never by a setting. Opens every screen, closes the long ones. */
import type { VerdictName } from "../environment/evidence.js";
import { type Cell, cell, page, type Paper, paperOf, spread } from "./layout.js";
import type { Palette, Style } from "./palette.js";
import { clean } from "./sanitise.js";

/** What a banner says. */
export interface BannerView {
  readonly verdict: VerdictName;
  readonly target: string;
  /** At the right edge: how the verdict was reached, or what this screen is about. */
  readonly note?: string;
}

/** The banner as a text of its own. */
export function renderBanner(view: BannerView, palette: Palette, width: number): string {
  return page(bannerLines(clean(view), paperOf(palette, width)));
}

/** The banner's lines, of a clean view. */
export function bannerLines(view: BannerView, paper: Paper): string[] {
  return spread(bannerName(view, paper.palette), { text: view.note ?? "" }, paper);
}

function bannerName(view: BannerView, p: Palette): Cell {
  switch (view.verdict) {
    case "production":
      return word("PRODUCTION", view.target, p, p.production);
    case "unproven":
      return word("UNPROVEN, GUARDED AS PRODUCTION", view.target, p, p.unproven);
    case "staging":
    case "development":
      return cell({ text: " " }, { text: `${view.verdict}  ${view.target}`, style: p.calm });
  }
}

function word(text: string, target: string, p: Palette, style: Style): Cell {
  switch (p.form) {
    case "text":
      return cell({ text: ` ${text} `, style }, { text: ` ${target}` });
    case "plain":
      return { text: `== ${text} == ${target}` };
    case "accessible":
      return { text: `${text}. Target ${target}.` };
  }
}
