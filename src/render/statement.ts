/** A change of trust or pin: every single difference, who must sign it, and how it ended. */
import type { NextStep } from "../base/errors.js";
import type { VerdictName } from "../environment/evidence.js";
import { bannerLines } from "./banner.js";
import { nextLines } from "./command.js";
import { fact, labelled } from "./error.js";
import { hang, page, type Paper, paperOf } from "./layout.js";
import { plural, when } from "./numbers.js";
import type { Palette } from "./palette.js";
import { titled } from "./plan.js";
import { clean } from "./sanitise.js";

/** What is shown before and after it is signed. */
export interface StatementView {
  readonly target: string;
  readonly verdict: VerdictName;
  /** `a change of trust`, `another pin`. */
  readonly what: string;
  readonly changes: readonly string[];
  /** `2 people of leads`, with the names of those who can. */
  readonly quorum: string;
  readonly signers: readonly string[];
  readonly end:
    | { readonly kind: "prepared"; readonly file: string; readonly expiresAt: string }
    | { readonly kind: "done"; readonly by: readonly string[]; readonly now: string };
  readonly next: readonly NextStep[];
}

/** Room for the longest label of this screen. */
const WIDE = 9;

/** Reads like a plan: `+ ~ -` before each change, nothing summed up. */
export function renderStatement(view: StatementView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  return page([
    ...bannerLines({ verdict: v.verdict, target: v.target, note: v.what }, paper),
    ...titled(
      "CHANGES",
      plural(v.changes.length, "change"),
      v.changes.flatMap((c) => changeLines(c, paper)),
      paper,
    ),
    "",
    ...endLines(v, paper),
    ...nextLines(v.next, paper, { room: WIDE }),
  ]);
}

function changeLines(change: string, paper: Paper): string[] {
  const [sign = "", ...rest] = change.split(" ");
  return hang({ text: `  ${sign} ` }, { text: rest.join(" ") }, paper);
}

function endLines(v: StatementView, paper: Paper): string[] {
  const { end } = v;
  switch (end.kind) {
    case "prepared":
      return [
        ...fact(
          "Needs",
          `${v.quorum}${v.signers.length === 0 ? "" : ` (${v.signers.join(", ")})`}`,
          paper,
          WIDE,
        ),
        ...fact("File", `${end.file}: readable text, good until ${when(end.expiresAt)} UTC`, paper, WIDE),
        ...labelled("State", "Nothing was written to the target.", paper, WIDE),
      ];
    case "done":
      return [
        ...fact("Signed", `by ${end.by.join(" and ")}`, paper, WIDE),
        ...fact("Now", end.now, paper, WIDE),
        ...labelled("State", "The marker was written; no row of yours was changed.", paper, WIDE),
      ];
  }
}
