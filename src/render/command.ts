/** Command lines that work when pasted into a POSIX shell. */
import type { NextStep } from "../base/errors.js";
import { hang, type Paper, widthOf, wrap } from "./layout.js";

/** Placeholders such as `PLAN` stay bare, and so does `…` of nothing: only these characters need no quotes. */
const BARE = /^[A-Za-z0-9_@%+=:,./-]+$/;

/**
 * `argv` as one shell line. The words are {@link ./sanitise.ts | sanitised}: one with an escape in it is written as
 * `$'…'`, in which the sanitiser's escapes mean the bytes that they stand for.
 */
export function commandLine(argv: readonly string[]): string {
  return argv.map(quote).join(" ");
}

function quote(word: string): string {
  if (BARE.test(word)) return word;
  if (word.includes("\\")) return `$'${word.replaceAll("'", "\\'")}'`;
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** {@link commandLine} over several lines where it is too long: broken between words, with the shell's `\` at line ends. */
export function commandLines(argv: readonly string[], width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of argv.map(quote)) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line !== "" && widthOf(longer) > width - 2) {
      lines.push(`${line} \\`);
      line = `  ${word}`;
    } else line = longer;
  }
  return [...lines, line].flatMap((l) => (widthOf(l) > width ? wrap(l, width) : [l]));
}

/** Cells that labels of a block take, their gap included. */
export const LABEL = 7;

/**
 * The `Next` block: one step a line, who runs it in front where it matters, words behind the commands in a column of
 * their own where they fit, else below.
 */
export function nextLines(
  steps: readonly NextStep[],
  paper: Paper,
  { label = "Next", room = LABEL }: { readonly label?: string; readonly room?: number } = {},
): string[] {
  // Once one step names somebody, an empty place beside another one would read as that somebody's too.
  const named = steps.some((s) => s.actor !== "anyone");
  const actors = steps.map((s) => (named ? s.actor : ""));
  const actorWidth = Math.max(0, ...actors.map((a) => a.length));
  const lead = room + 2 + (named ? actorWidth + 2 : 0);
  const column = wordsColumn(steps, paper.width - lead);
  return steps.flatMap((step, i) => {
    const actor = actors[i] ?? "";
    if (paper.palette.form === "accessible") {
      const who = step.actor === "anyone" ? "" : `, ${step.actor}`;
      return stepLines(step, `${label}${who}: `, 0, paper);
    }
    const head = `  ${(i === 0 ? label : "").padEnd(room)}`;
    return stepLines(step, named ? `${head}${actor.padEnd(actorWidth)}  ` : head, column, paper);
  });
}

/** Cells of the widest command that words stand beside; 0 where some words would not fit there. */
function wordsColumn(steps: readonly NextStep[], room: number): number {
  const both = steps.filter((s) => s.argv !== undefined && s.text !== undefined);
  const widths = both.map((s) => widthOf(commandLine(s.argv ?? [])));
  const column = Math.max(0, ...widths);
  return both.every((s) => column + GAP.length + widthOf(s.text ?? "") <= room) ? column : 0;
}

/** Between a command and its words: wide enough that nobody takes them for an argument. */
const GAP = "     ";

function stepLines(step: NextStep, lead: string, column: number, paper: Paper): string[] {
  if (step.argv === undefined) return hang({ text: lead }, { text: step.text ?? "" }, paper);
  const indent = " ".repeat(lead.length);
  const command = commandLines(step.argv, paper.width - lead.length);
  const lines = command.map((line, i) => (i === 0 ? lead : indent) + line);
  if (step.text === undefined) return lines;
  const beside = `${lead}${(command[0] ?? "").padEnd(column)}${GAP}${step.text}`;
  if (command.length === 1 && widthOf(beside) <= paper.width) return [beside];
  return [...lines, ...hang({ text: `${indent}  ` }, { text: step.text }, paper)];
}
