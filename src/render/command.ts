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
 * The `Next` block: one step a line, who runs it in front where that is not anyone, words behind the command where
 * they fit, else below it.
 */
export function nextLines(
  steps: readonly NextStep[],
  paper: Paper,
  { label = "Next", room = LABEL }: { readonly label?: string; readonly room?: number } = {},
): string[] {
  const actors = steps.map((s) => (s.actor === "anyone" ? "" : s.actor));
  const actorWidth = Math.max(0, ...actors.map((a) => a.length));
  return steps.flatMap((step, i) => {
    const actor = actors[i] ?? "";
    if (paper.palette.form === "accessible") {
      return stepLines(step, `${label}${actor === "" ? "" : `, ${actor}`}: `, paper);
    }
    const head = `  ${(i === 0 ? label : "").padEnd(room)}`;
    return stepLines(step, actorWidth === 0 ? head : `${head}${actor.padEnd(actorWidth)}  `, paper);
  });
}

function stepLines(step: NextStep, lead: string, paper: Paper): string[] {
  if (step.argv === undefined) return hang({ text: lead }, { text: step.text ?? "" }, paper);
  const indent = " ".repeat(lead.length);
  const command = commandLines(step.argv, paper.width - lead.length);
  const lines = command.map((line, i) => (i === 0 ? lead : indent) + line);
  if (step.text === undefined) return lines;
  const beside = `${lines.join("\n")}     ${step.text}`;
  if (command.length === 1 && widthOf(beside) <= paper.width) return [beside];
  return [...lines, ...hang({ text: `${indent}  ` }, { text: step.text }, paper)];
}
