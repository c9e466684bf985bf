/** What policy says, rule by rule: which rule, where it stands, what it saw, what would flip it. */
import type { NextStep } from "../base/errors.js";
import type { Decision, RuleResult } from "../policy/decision.js";
import { type BannerView, bannerLines } from "./banner.js";
import { nextLines } from "./command.js";
import { labelled } from "./error.js";
import { type Cell, type Column, page, type Paper, paperOf, spread, table } from "./layout.js";
import { count, plural } from "./numbers.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** What `policy explain` shows. */
export interface PolicyView {
  readonly banner: BannerView;
  readonly plan: string;
  readonly decision: Decision;
  readonly bundle: string;
  /** Name every rule that passes instead of counting the ones after the first. */
  readonly all: boolean;
  /** Up to how many rows of the whole plan a rule would stand aside. */
  readonly turningPoints: readonly TurningPointView[];
  /** The same plan with another number of rows. */
  readonly whatIf: { readonly rows: number; readonly decision: Decision } | null;
  /** What this is the decision of, where it is not the plan as it stands: another requester, figures that are not read now. */
  readonly about: readonly string[];
  readonly next: readonly NextStep[];
}

/** A rule that would stand aside if the plan changed fewer rows. */
export interface TurningPointView {
  readonly rule: string;
  readonly at: string;
  readonly rows: number;
  readonly now: number;
}

/** The decision with its reasons. */
export function renderPolicyExplain(view: PolicyView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  return page([
    ...bannerLines(v.banner, paper),
    ...headline(v.decision, v.bundle, paper),
    "",
    ...ruleTable(ordered(v.decision.rules), v.all ? Number.POSITIVE_INFINITY : 2, paper, v.turningPoints),
    ...whatIfLines(v, paper),
    "",
    ...v.about.flatMap((text) => labelled("Note", text, paper)),
    ...labelled("State", "Nothing was written.", paper),
    ...nextLines(v.next, paper),
  ]);
}

/** The POLICY section of other screens: the decision, rules that decided, how many passed. Of clean values. */
export function decisionLines(decision: Decision, bundle: string, paper: Paper): string[] {
  const head = { text: `  POLICY  ${decisionWord(decision)}`, style: paper.palette.title };
  return [...spread(head, { text: bundle }, paper), ...ruleTable(ordered(decision.rules), 0, paper)];
}

/** `allowed`, `needs approval`, `denied`. */
export function decisionWord(decision: Decision): string {
  switch (decision.kind) {
    case "allow":
      return "allowed, nobody has to approve";
    case "needs-approval":
      return `needs approval${slotWords(decision)}`;
    case "deny":
      return "denied";
  }
}

function slotWords(decision: Decision): string {
  const words = decision.requirement.slots.map((s) => slotText(s.people, s.groups));
  return words.length === 0 ? "" : `: ${[...new Set(words)].join("; ")}`;
}

/** `2 other people of dba or leads`; without groups any other person will do. */
export function slotText(people: number, groups: readonly string[]): string {
  const who = plural(people, "other person", "other people");
  return groups.length === 0 ? who : `${who} of ${groups.join(" or ")}`;
}

function whatIfLines(v: PolicyView, paper: Paper): string[] {
  if (v.whatIf === null) return [];
  const { rows, decision } = v.whatIf;
  const head = `  WITH ${plural(rows, "ROW", "ROWS")} INSTEAD  ${decisionWord(decision)}`;
  const right = "every table in the same proportion";
  return [
    "",
    ...spread({ text: head, style: paper.palette.title }, { text: right }, paper),
    ...ruleTable(ordered(decision.rules), 0, paper),
  ];
}

function headline(decision: Decision, bundle: string, paper: Paper): string[] {
  const all = decision.rules.length;
  const deciding = decision.rules.filter((r) => r.effect === effectOf(decision)).length;
  const by = `${deciding} of ${plural(all, "rule")}`;
  const text =
    decision.kind === "deny"
      ? `DENIED by ${deciding === 0 ? "default: no rule allows it" : by}`
      : `${decisionWord(decision)}, by ${by}`;
  return spread({ text: `  ${text}`, style: paper.palette.title }, { text: bundle }, paper);
}

function effectOf(decision: Decision): RuleResult["effect"] {
  switch (decision.kind) {
    case "allow":
      return "allow";
    case "needs-approval":
      return "require";
    case "deny":
      return "deny";
  }
}

const ORDER: readonly RuleResult["effect"][] = ["error", "deny", "require", "allow", "pass"];

function ordered(rules: readonly RuleResult[]): RuleResult[] {
  return [...rules].sort((a, b) => ORDER.indexOf(a.effect) - ORDER.indexOf(b.effect));
}

const COLUMNS: readonly Column[] = [{ head: "" }, { head: "", room: "wrap" }, { head: "", room: "wrap" }];

function ruleTable(
  rules: readonly RuleResult[],
  passing: number,
  paper: Paper,
  turningPoints: readonly TurningPointView[] = [],
): string[] {
  const deciding = rules.filter((r) => r.effect !== "pass");
  const passed = rules.filter((r) => r.effect === "pass");
  const named = passed.slice(0, passing);
  const rest = passed.length - named.length;
  const turnsOf = (r: RuleResult): TurningPointView | undefined =>
    turningPoints.find((t) => t.rule === r.rule && t.at === r.at);
  const cells = [...deciding, ...named].flatMap((r) => ruleRows(r, turnsOf(r), paper.palette));
  const listed = passing > 0 ? { text: "--all lists them by name" } : { text: "" };
  if (rest > 0) cells.push([{ text: passWord(paper.palette) }, { text: `${rest} more` }, listed]);
  return cells.length === 0 ? [] : table(COLUMNS, cells, paper);
}

function ruleRows(r: RuleResult, turns: TurningPointView | undefined, p: Palette): Cell[][] {
  const head = [effectCell(r, p), { text: r.rule }, { text: r.because }];
  if (r.effect === "pass" || r.effect === "allow") return [head];
  const saw = r.saw === "" ? "" : `saw ${r.saw}`;
  const rows: Cell[][] = [head, [{ text: "" }, { text: r.at, style: p.faint }, { text: saw }]];
  if (r.flips !== "") rows.push([{ text: "" }, { text: "" }, { text: `would pass: ${r.flips}` }]);
  // Said once: a rule about one table may already name this very number.
  if (turns !== undefined && !r.flips.includes(plural(turns.rows, "row")))
    rows.push([
      { text: "" },
      { text: "" },
      { text: `or: the whole plan at ${plural(turns.rows, "row")} or fewer, now ${count(turns.now)}` },
    ]);
  return rows;
}

function passWord(p: Palette): string {
  return `${p.glyph.pass} pass`;
}

function effectCell(r: RuleResult, p: Palette): Cell {
  switch (r.effect) {
    case "deny":
      return { text: `${p.glyph.deny} deny`, style: p.error };
    case "error":
      return { text: `${p.glyph.deny} error`, style: p.error };
    case "require":
      return { text: `${p.glyph.ask} approve`, style: p.note };
    case "allow":
      return { text: `${p.glyph.pass} allow` };
    case "pass":
      return { text: passWord(p) };
  }
}
