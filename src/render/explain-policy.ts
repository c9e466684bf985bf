/** What policy says, rule by rule: which rule, where it stands, what it saw, what would flip it. */
import type { NextStep } from "../base/errors.js";
import type { Decision, RuleResult } from "../policy/decision.js";
import { type BannerView, bannerLines } from "./banner.js";
import { nextLines } from "./command.js";
import { labelled } from "./error.js";
import { type Cell, type Column, page, type Paper, paperOf, spread, table } from "./layout.js";
import { plural } from "./numbers.js";
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
  readonly next: readonly NextStep[];
}

/** The decision with its reasons. */
export function renderPolicyExplain(view: PolicyView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  return page([
    ...bannerLines(v.banner, paper),
    ...headline(v.decision, v.bundle, paper),
    "",
    ...ruleTable(ordered(v.decision.rules), v.all ? Number.POSITIVE_INFINITY : 2, paper),
    "",
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

function ruleTable(rules: readonly RuleResult[], passing: number, paper: Paper): string[] {
  const deciding = rules.filter((r) => r.effect !== "pass");
  const passed = rules.filter((r) => r.effect === "pass");
  const named = passed.slice(0, passing);
  const rest = passed.length - named.length;
  const cells = [...deciding, ...named].flatMap((r) => ruleRows(r, paper.palette));
  if (rest > 0) cells.push([{ text: passWord(paper.palette) }, { text: `${rest} more` }, { text: "" }]);
  return cells.length === 0 ? [] : table(COLUMNS, cells, paper);
}

function ruleRows(r: RuleResult, p: Palette): Cell[][] {
  const head = [effectCell(r, p), { text: r.rule }, { text: r.because }];
  if (r.effect === "pass" || r.effect === "allow") return [head];
  const saw = r.saw === "" ? "" : `saw ${r.saw}`;
  const rows: Cell[][] = [head, [{ text: "" }, { text: r.at, style: p.faint }, { text: saw }]];
  return r.flips === "" ? rows : [...rows, [{ text: "" }, { text: "" }, { text: `would pass: ${r.flips}` }]];
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
