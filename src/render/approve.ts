/** The approver's screens: read-back, card, questions, what exactly a signature allows, and how it ended. */
import type { NextStep } from "../base/errors.js";
import { type Digest, shortDigest } from "../base/digest.js";
import { type BannerView, bannerLines } from "./banner.js";
import { type Card, type CardFacts, cardLines, type SlotName, worstSlot } from "./card.js";
import { nextLines } from "./command.js";
import { fact, labelled } from "./error.js";
import { hang, page, type Paper, paperOf } from "./layout.js";
import { outOf, plural, seconds, when } from "./numbers.js";
import type { Palette } from "./palette.js";
import { patternLines, type PatternView } from "./patterns.js";
import { titled } from "./plan.js";
import { rowLines, type RowView } from "./rows.js";
import { clean } from "./sanitise.js";

/** Who reviews what. */
export interface ReviewerView {
  readonly approver: string;
  readonly groups: readonly string[];
  readonly key: string;
  readonly requester: string;
  readonly plan: string;
}

/** `Reviewing pl_… as ravi, group dba, key SHA256:….  Requested by dana.` */
export function renderReviewer(view: ReviewerView, palette: Palette, width: number): string {
  const v = clean(view);
  const groups =
    v.groups.length === 0 ? "" : `, ${v.groups.length === 1 ? "group" : "groups"} ${v.groups.join(", ")}`;
  const text = `Reviewing ${v.plan} as ${v.approver}${groups}, key ${v.key}.  Requested by ${v.requester}.`;
  return page(hang({ text: "  " }, { text }, paperOf(palette, width)));
}

/** An order of magnitude that a reviewer may guess, with the digit they type. */
export const GUESSES = [
  { digit: "1", words: "none", least: 0, most: 0 },
  { digit: "2", words: "1-9", least: 1, most: 9 },
  { digit: "3", words: "10-99", least: 10, most: 99 },
  { digit: "4", words: "100-999", least: 100, most: 999 },
  { digit: "5", words: "1,000-9,999", least: 1000, most: 9999 },
  { digit: "6", words: "more", least: 10_000, most: Number.MAX_SAFE_INTEGER },
  { digit: "0", words: "I do not know", least: 0, most: 0 },
] as const;

/** The read-back: asked before anything of the plan is shown, because only then is it an independent check. */
export function renderReadBack(
  view: { readonly table: string; readonly ticket: string | null },
  palette: Palette,
  width: number,
): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const ticket = v.ticket === null ? "" : ` Ticket ${v.ticket}.`;
  const question = `Before you see the plan.${ticket} About how many rows of ${v.table} should change?`;
  const choices = GUESSES.map((g) => `${g.digit} ${g.words}`);
  const text = palette.form === "accessible" ? choices.join(", ") : choices.join("   ");
  return page([
    ...hang({ text: "  " }, { text: question }, paper),
    ...hang({ text: "    " }, { text }, paper),
  ]);
}

/** What the approver looks at before deciding. */
export interface ReviewView {
  readonly banner: BannerView;
  readonly card: Card;
  readonly odd: readonly RowView[];
  readonly patterns: readonly PatternView[];
  readonly sample: readonly RowView[];
  readonly rows: number;
  /** Difference to a plan reviewed earlier, in words; null when there is none. */
  readonly against: string | null;
}

/** Banner and card first, then odd rows, patterns and sample. No prose of the requester, no hint, nothing green. */
export function renderReview(view: ReviewView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const covered = v.patterns.reduce((sum, p) => sum + p.rows, 0);
  return page([
    ...bannerLines(v.banner, paper),
    "",
    ...cardLines(v.card, paper),
    ...(v.against === null ? [] : hang({ text: "  " }, { text: v.against }, paper)),
    ...titled("ODD ROWS", plural(v.odd.length, "row"), rowLines(v.odd, paper), paper),
    ...titled(
      "EVERY ROW, BY PATTERN",
      `covers ${outOf(covered, v.rows)}`,
      patternLines(v.patterns, paper),
      paper,
    ),
    ...titled("SAMPLE", outOf(v.sample.length, v.rows), rowLines(v.sample, paper), paper),
  ]);
}

/** What the requester says about the plan: quoted, labelled as a claim, shown only when asked for. */
export function renderAuthor(
  view: { readonly requester: string; readonly reason: string | null; readonly ticket: string | null },
  palette: Palette,
  width: number,
): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const claim = v.reason === null ? "gave no reason" : `claims: "${v.reason}"`;
  return page([
    ...hang({ text: "  " }, { text: `${v.requester} ${claim}` }, paper),
    ...fact("Ticket", v.ticket ?? undefined, paper),
  ]);
}

/** A question whose answer stands on the card. */
export interface Question {
  readonly slot: SlotName;
  readonly text: string;
  /** Compared exactly, thousands separators aside. */
  readonly answer: string;
}

/**
 * The question from the card's worst slot, so that it differs from plan to plan and habit cannot answer it. Every slot falls
 * back to the count of the largest table, which no screen but this plan's own can tell.
 */
export function reviewQuestion(facts: CardFacts, card: Card): Question {
  const slot = worstSlot(card);
  switch (slot) {
    case "ODD": {
      const rows = facts.odd.findings.reduce((sum, o) => sum + o.rows, 0);
      if (rows === 0) return countQuestion(facts, slot);
      return { slot, text: "How many rows are unlike the rest?", answer: String(rows) };
    }
    case "WHAT": {
      const rows = sum(facts, (t) => t.origin === "cascade" || t.origin === "trigger");
      if (rows === 0) return countQuestion(facts, slot);
      return { slot, text: "How many rows change that the job does not mention?", answer: String(rows) };
    }
    case "WHERE":
    case "HOW MUCH":
    case "BACK":
      return countQuestion(facts, slot);
  }
}

function countQuestion(facts: CardFacts, slot: SlotName): Question {
  const size = (t: CardFacts["tables"][number]): number => t.insert + t.update + t.delete;
  const largest = [...facts.tables].sort((a, b) => size(b) - size(a))[0];
  if (largest === undefined) return { slot, text: "How many rows change?", answer: "0" };
  return { slot, text: `How many rows of ${largest.name} change?`, answer: String(size(largest)) };
}

function sum(facts: CardFacts, which: (t: CardFacts["tables"][number]) => boolean): number {
  return facts.tables.filter(which).reduce((s, t) => s + t.insert + t.update + t.delete, 0);
}

/** What a signature is about to allow. */
export interface SigningView {
  readonly planDigest: Digest;
  readonly target: string;
  readonly environment: string;
  readonly requester: string;
  readonly expiresAt: string;
  /** In words, `48h`; null when undo is not covered. */
  readonly coverUndo: string | null;
  /** How it is written, where that is more than one transaction; else absent. */
  readonly writing?: string;
}

/** Said before the key is used: what it allows, and what it does not. */
export function renderSigning(view: SigningView, palette: Palette, width: number): string {
  const digest = shortDigest(view.planDigest).replace("…", palette.glyph.ellipsis);
  const v = clean(view);
  const paper = paperOf(palette, width);
  const undo = v.coverUndo === null ? "" : `; and one clean undo for ${v.coverUndo} after`;
  const allows = `Signing allows one apply of exactly these bytes (sha256 ${digest}) on ${v.target} (${v.environment}), requested by ${v.requester}, until ${when(v.expiresAt)} UTC${undo}.`;
  const not = "It does not allow another plan, more rows, another database, or a second apply.";
  return page([
    ...hang({ text: "  " }, { text: allows }, paper),
    ...hang({ text: "  " }, { text: not }, paper),
    ...(v.writing === undefined ? [] : hang({ text: "  " }, { text: `Written in: ${v.writing}.` }, paper)),
  ]);
}

/** How an approval ended. */
export type ApprovalEnd =
  | {
      readonly kind: "signed";
      readonly plan: string;
      readonly approver: string;
      /** Null for a signature that was made elsewhere: nobody reviewed anything here. */
      readonly reviewedSeconds: number | null;
      readonly wrongAnswers: number;
      readonly where: string;
    }
  | { readonly kind: "prepared"; readonly plan: string; readonly file: string }
  | { readonly kind: "rejected"; readonly plan: string; readonly by: string; readonly reason: string }
  | {
      readonly kind: "revoked";
      readonly plan: string;
      readonly by: string;
      readonly approvals: number;
      readonly reason: string;
    }
  | { readonly kind: "reviewed"; readonly run: string; readonly by: string; readonly brokenBy: string }
  | { readonly kind: "left"; readonly plan: string };

/** The last words of `approve` and `reject`, on stderr. */
export function renderApprovalEnd(
  view: { readonly end: ApprovalEnd; readonly next: readonly NextStep[] },
  palette: Palette,
  width: number,
): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  return page([
    ...endLines(v.end, paper),
    ...labelled("State", "Nothing was written to the target.", paper),
    ...nextLines(v.next, paper),
  ]);
}

function endLines(end: ApprovalEnd, paper: Paper): string[] {
  return hang({ text: "  " }, { text: endWords(end) }, paper);
}

function reviewedWords(end: Extract<ApprovalEnd, { kind: "signed" }>): string {
  if (end.reviewedSeconds === null) return "Signed elsewhere, so it counts as not reviewed in this tool.";
  return `Reviewed ${seconds(end.reviewedSeconds)}, ${plural(end.wrongAnswers, "wrong answer")}.`;
}

function endWords(end: ApprovalEnd): string {
  switch (end.kind) {
    case "signed":
      return `Signed ${end.plan} as ${end.approver}. Token ${end.where}. ${reviewedWords(end)}`;
    case "prepared":
      return `The bytes to sign for ${end.plan} are in ${end.file}: readable text, read it there before signing.`;
    case "rejected":
      return `Rejected by ${end.by}. ${end.plan} can no longer be approved by anyone. Reason: ${end.reason}`;
    case "revoked":
      return `${end.by} took back ${plural(end.approvals, "approval")} of ${end.plan}. Others' approvals stand. Reason: ${end.reason}`;
    case "reviewed":
      return `${end.run}, which ${end.brokenBy} applied alone, was reviewed by ${end.by}. Its debt is closed.`;
    case "left":
      return `Left without a decision. ${end.plan} is as it was.`;
  }
}
