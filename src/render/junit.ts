/** A plan for a pipeline's test report (JUnit XML): one case a card slot, one a policy rule. No rows. */
import type { Decision, RuleResult } from "../policy/decision.js";
import type { Card } from "./card.js";
import { clean } from "./sanitise.js";

/** What is reported. */
export interface JunitView {
  readonly plan: string;
  readonly target: string;
  readonly card: Card | null;
  readonly decision: Decision;
}

/** The report: STOP and deny are failures, what waits for people is skipped with its reason. */
export function renderJunit(view: JunitView): string {
  const v = clean(view);
  const suites = [
    suite(`holdpoint card of ${v.plan}`, cardCases(v)),
    suite("holdpoint policy", ruleCases(v)),
  ];
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n${suites.join("\n")}\n</testsuites>\n`;
}

interface Case {
  readonly name: string;
  readonly end: "passed" | "failed" | "skipped";
  readonly words: string;
}

function cardCases(v: JunitView): Case[] {
  return (v.card?.slots ?? []).map((s) => ({
    name: s.slot,
    end: s.mark === "STOP" ? "failed" : "passed",
    words: `${s.mark}: ${s.text}`,
  }));
}

function ruleCases(v: JunitView): Case[] {
  return v.decision.rules.map((r) => ({
    name: r.rule,
    end: endOf(r),
    words: `${r.because}; ${r.saw} (${r.at})`,
  }));
}

function endOf(r: RuleResult): Case["end"] {
  if (r.effect === "deny" || r.effect === "error") return "failed";
  return r.effect === "require" ? "skipped" : "passed";
}

function suite(name: string, cases: readonly Case[]): string {
  const failed = cases.filter((c) => c.end === "failed").length;
  const skipped = cases.filter((c) => c.end === "skipped").length;
  const head = `  <testsuite name="${xml(name)}" tests="${cases.length}" failures="${failed}" skipped="${skipped}">`;
  return [head, ...cases.map((c) => caseXml(name, c)), "  </testsuite>"].join("\n");
}

function caseXml(suiteName: string, c: Case): string {
  const head = `    <testcase classname="${xml(suiteName)}" name="${xml(c.name)}"`;
  switch (c.end) {
    case "failed":
      return `${head}><failure message="${xml(c.words)}"/></testcase>`;
    case "skipped":
      return `${head}><skipped message="${xml(c.words)}"/></testcase>`;
    case "passed":
      return `${head}/>`;
  }
}

/** Sanitised text has no control characters left, which XML 1.0 could not carry even escaped. */
function xml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
