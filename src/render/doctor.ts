/** `doctor`: what was looked at, what is wrong with it, what to do. */
import type { NextStep } from "../base/errors.js";
import { commandLine } from "./command.js";
import { labelled } from "./error.js";
import { type Cell, page, type Paper, paperOf, table } from "./layout.js";
import { plural } from "./numbers.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** One finding. */
export interface DoctorLine {
  readonly check: string;
  readonly target: string | null;
  readonly level: "ok" | "look" | "stop";
  readonly what: string;
  readonly todo: readonly NextStep[];
}

/** Findings in the order in which they were made: the project first, then each target. */
export function renderDoctor(view: readonly DoctorLine[], palette: Palette, width: number): string {
  const paper = paperOf(palette, width);
  const lines = clean(view);
  const of = (level: DoctorLine["level"]): number => lines.filter((l) => l.level === level).length;
  const targets = [...new Set(lines.flatMap((l) => (l.target === null ? [] : [l.target])))];
  return page([
    ...groupLines(
      "This project",
      lines.filter((l) => l.target === null),
      paper,
    ),
    ...targets.flatMap((t) => [
      "",
      ...groupLines(
        t,
        lines.filter((l) => l.target === t),
        paper,
      ),
    ]),
    "",
    ...labelled("Found", `${of("stop")} STOP, ${of("look")} LOOK, ${plural(of("ok"), "check")} OK.`, paper),
    ...labelled("State", "Nothing was written.", paper),
  ]);
}

function groupLines(title: string, lines: readonly DoctorLine[], paper: Paper): string[] {
  const rows = lines.flatMap((l) => lineRows(l, paper.palette));
  const columns = [{ head: "" }, { head: "" }, { head: "", room: "wrap" }] as const;
  return [` ${paper.palette.title(title)}`, ...table(columns, rows, paper)];
}

function lineRows(l: DoctorLine, p: Palette): Cell[][] {
  const rows: Cell[][] = [[levelCell(l.level, p), { text: l.check }, { text: l.what }]];
  for (const step of l.todo) rows.push([{ text: "" }, { text: "" }, { text: stepWords(step, p) }]);
  return rows;
}

function stepWords(step: NextStep, p: Palette): string {
  const command = step.argv === undefined ? "" : commandLine(step.argv);
  const words = [command, step.text ?? ""].filter((w) => w !== "").join("  ");
  return p.form === "accessible" ? `To do: ${words}` : `${p.glyph.arrow} ${words}`;
}

function levelCell(level: DoctorLine["level"], p: Palette): Cell {
  switch (level) {
    case "ok":
      return { text: "OK" };
    case "look":
      return { text: "LOOK", style: p.look };
    case "stop":
      return { text: "STOP", style: p.stop };
  }
}
