/** `policy test` and `policy lint`: what policies say about themselves. */
import type { LintFinding } from "../policy/lint.js";
import type { TestOutcome } from "../policy/test-cases.js";
import { type Cell, cell, hang, page, type Paper, paperOf, spread, table, widthOf } from "./layout.js";
import { count, plural } from "./numbers.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** One file's tests. */
export interface TestedFileView {
  readonly file: string;
  readonly enabled: boolean;
  readonly outcomes: readonly Pick<TestOutcome, "name" | "at" | "passed" | "diff">[];
}

/** Each file in a line, each failing test like a diff. */
export function renderPolicyTests(view: readonly TestedFileView[], palette: Palette, width: number): string {
  const paper = paperOf(palette, width);
  const files = clean(view);
  const outcomes = files.flatMap((f) => f.outcomes);
  const failed = outcomes.filter((o) => !o.passed).length;
  const end =
    failed === 0
      ? `${plural(outcomes.length, "test")} in ${plural(files.length, "file")}, all passed.`
      : `${count(failed)} of ${plural(outcomes.length, "test")} failed.`;
  return page([...files.flatMap((f) => fileLines(f, paper)), ...hang({ text: "" }, { text: end }, paper)]);
}

function fileLines(f: TestedFileView, paper: Paper): string[] {
  const failed = f.outcomes.filter((o) => !o.passed);
  const p = paper.palette;
  const mark = failed.length === 0 ? { text: p.glyph.pass } : { text: p.glyph.deny, style: p.error };
  const words =
    f.outcomes.length === 0
      ? "no tests"
      : failed.length === 0
        ? `${plural(f.outcomes.length, "test")} passed`
        : `${count(failed.length)} of ${plural(f.outcomes.length, "test")} failed`;
  const head = cell(mark, { text: ` ${f.file}` });
  const right = { text: f.enabled ? words : `${words}, the policy is off` };
  return [...spread(head, right, paper), ...failed.flatMap((o) => failureLines(o, paper))];
}

function failureLines(o: TestedFileView["outcomes"][number], paper: Paper): string[] {
  const p = paper.palette;
  const head = cell({ text: `  ${p.glyph.deny} `, style: p.error }, { text: o.name });
  return ["", ...spread(head, { text: o.at }, paper), ...o.diff.flatMap((line) => diffLine(line, paper)), ""];
}

/** What stands before a line says which side it is of, also where it wraps. */
function diffLine(line: string, paper: Paper): string[] {
  const sign = line.slice(0, 2);
  return hang({ text: `    ${sign}` }, { text: line.slice(2), ...styleOf(line, paper.palette) }, paper);
}

function styleOf(line: string, p: Palette): { readonly style?: Palette["added"] } {
  if (line.startsWith("+ ")) return { style: p.added };
  return line.startsWith("- ") ? { style: p.removed } : {};
}

/** Findings, errors first. */
export function renderPolicyLint(view: readonly LintFinding[], palette: Palette, width: number): string {
  const paper = paperOf(palette, width);
  const findings = [...clean(view)].sort((a, b) => rank(a) - rank(b));
  const errors = findings.filter((f) => f.severity === "error").length;
  const rows = findings.map((f): readonly [Cell, Cell, Cell] => [
    f.severity === "error"
      ? { text: `${palette.glyph.deny} error`, style: palette.error }
      : { text: `${palette.glyph.ask} warning`, style: palette.note },
    { text: f.what },
    { text: f.at, style: palette.faint },
  ]);
  const end =
    findings.length === 0
      ? "Nothing to say against these policies."
      : `${plural(errors, "error")}, ${plural(findings.length - errors, "warning")}.`;
  return page([...findingLines(rows, paper), end]);
}

/** Side by side where all of them fit; else each finding's place stands below its words. */
function findingLines(rows: readonly (readonly [Cell, Cell, Cell])[], paper: Paper): string[] {
  const columns = [{ head: "" }, { head: "" }, { head: "" }] as const;
  const width = (i: 0 | 1 | 2): number => Math.max(0, ...rows.map((r) => widthOf(r[i].text)));
  const fits = width(0) + width(1) + width(2) + 4 <= paper.width;
  if (fits && paper.palette.form !== "accessible") return table(columns, rows, paper, "");
  return rows.flatMap(([severity, what, at]) => {
    const head = cell(severity, { text: "  " });
    return [...hang(head, what, paper), ...hang({ text: " ".repeat(widthOf(head.text)) }, at, paper)];
  });
}

function rank(f: LintFinding): number {
  return f.severity === "error" ? 0 : 1;
}
