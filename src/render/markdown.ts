/**
 * The plan as Markdown for job summaries and comments. Everything that came from data or an author stands in code spans: no
 * mention, link, image, HTML or heading of theirs comes alive. No raw rows and no masked values: a comment is read by more
 * people than the target.
 */
import type { VerdictName } from "../environment/evidence.js";
import type { Decision } from "../policy/decision.js";
import { MARKS, type Card } from "./card.js";
import { commandLine } from "./command.js";
import { count, plural } from "./numbers.js";
import { type PatternView, patternWords } from "./patterns.js";
import { clean } from "./sanitise.js";

/** Where it is posted decides how long it may be; longer ones vanish there without a word. */
export const MARKDOWN_LIMITS = {
  /** GitHub job summaries: 1 MiB a step, lost whole when over. In bytes. */
  github: 900_000,
  /** Comments: 65,536 characters at most. In bytes, which is the careful reading. */
  markdown: 60_000,
  gitlab: 60_000,
} as const;

/** Which limit holds. */
export type MarkdownFormat = keyof typeof MARKDOWN_LIMITS;

/** What is posted. */
export interface MarkdownView {
  readonly target: string;
  readonly environment: VerdictName;
  readonly job: string;
  readonly rows: number;
  readonly card: Card;
  /** Odd rows in words without values: `2 rows: rare change`. */
  readonly odd: readonly string[];
  readonly patterns: readonly PatternView[];
  readonly decision: Decision;
  /** What the requester says: quoted, and labelled as a claim. */
  readonly reason: string | null;
  readonly plan: string;
  readonly digest: string;
}

/** The document, at most as long as `format` allows: sections fall away from the bottom, and it says which. */
export function renderMarkdown(view: MarkdownView, format: MarkdownFormat): string {
  const v = clean(view);
  const must = [heading(v), cardTable(v.card)];
  const may: Section[] = [
    { name: "odd rows", text: list("Odd rows", v.odd) },
    { name: "patterns", text: patterns(v.patterns) },
    { name: "policy", text: list(`Policy: ${v.decision.kind}`, rules(v.decision)) },
    { name: "the requester's reason", text: claim(v.reason) },
  ].filter((s) => s.text !== "");
  const last = [approve(v), `Plan ${code(v.plan)}, digest ${code(v.digest)}`].filter((t) => t !== "");
  return fitted(must, may, last, MARKDOWN_LIMITS[format]);
}

interface Section {
  readonly name: string;
  readonly text: string;
}

/** Leaves the last sections out, one more each time, until it fits. The card and the last lines always stay. */
function fitted(
  must: readonly string[],
  may: readonly Section[],
  last: readonly string[],
  limit: number,
): string {
  for (let kept = may.length; ; kept--) {
    const dropped = may.slice(kept).map((s) => s.name);
    const note =
      dropped.length === 0 ? [] : [`Left out because it would be too long here: ${dropped.join(", ")}.`];
    const text = `${[...must, ...may.slice(0, kept).map((s) => s.text), ...note, ...last].join("\n\n")}\n`;
    if (kept === 0 || Buffer.byteLength(text) <= limit) return text;
  }
}

function heading(v: MarkdownView): string {
  const words = [...MARKS].reverse().filter((m) => m !== "OK");
  const marks = words.flatMap((m) =>
    v.card.slots.filter((s) => s.mark === m).map((s) => `${m} on ${s.slot}`),
  );
  const state = marks.length === 0 ? "OK" : marks.join(", ");
  const environment = isGuarded(v.environment) ? v.environment.toUpperCase() : v.environment;
  return `### ${code(v.target)} (${environment}): ${code(v.job)}, ${plural(v.rows, "row")}, ${state}`;
}

function isGuarded(v: VerdictName): boolean {
  return v === "production" || v === "unproven";
}

function cardTable(card: Card): string {
  const rows = card.slots.map((s) => `| ${s.slot} | ${code(s.text).replaceAll("|", "\\|")} | ${s.mark} |`);
  return ["| | | |", "|---|---|---|", ...rows].join("\n");
}

function list(title: string, lines: readonly string[]): string {
  return lines.length === 0 ? "" : `**${title}**\n\n${lines.map((l) => `- ${code(l)}`).join("\n")}`;
}

function patterns(all: readonly PatternView[]): string {
  if (all.length === 0) return "";
  const lines = all.map((p) => `- ${count(p.rows)} x ${code(`${p.op} ${withoutValues(p)}`)}`);
  return `<details><summary>Every row, by pattern (${count(all.length)})</summary>\n\n${lines.join("\n")}\n\n</details>`;
}

/** Masked patterns keep their tags; the rest says its values, which the plan's author was allowed to read. */
function withoutValues(p: PatternView): string {
  return p.columns.length === 0 ? p.table : patternWords(p);
}

/** The rules that decided; how many passed is not news. */
function rules(decision: Decision): string[] {
  return decision.rules.filter((r) => r.effect !== "pass").map((r) => `${r.effect}: ${r.rule}: ${r.because}`);
}

function claim(reason: string | null): string {
  return reason === null ? "" : `The requester claims: ${code(reason)}`;
}

function approve(v: MarkdownView): string {
  if (v.decision.kind !== "needs-approval") return "";
  return `Approve on your own machine, not here: ${code(commandLine(["holdpoint", "approve", v.plan]))}`;
}

/** A code span: fenced by one more backtick than any run in the text has (CommonMark §6.1). */
function code(text: string): string {
  const longest = Math.max(0, ...Array.from(text.matchAll(/`+/g), (m) => m[0].length));
  const fence = "`".repeat(longest + 1);
  const space = longest > 0 || /^ .* $/.test(text) ? " " : "";
  return `${fence}${space}${text === "" ? " " : text}${space}${fence}`;
}
