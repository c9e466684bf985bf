/** Init: the files that were written, and the way to the first plan. */
import type { NextStep } from "../base/errors.js";
import { nextLines } from "./command.js";
import { type Cell, type Column, page, paperOf, table } from "./layout.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** One file of a first project. */
export interface InitFile {
  readonly path: string;
  readonly act: "written" | "line added" | "kept";
  readonly what: string;
}

/** What `init` shows. */
export interface InitView {
  readonly files: readonly InitFile[];
  readonly next: readonly NextStep[];
}

const COLUMNS: readonly Column[] = [{ head: "" }, { head: "" }, { head: "", room: "wrap" }];

/** The files, and what to type next. Nothing was connected to. */
export function renderInit(view: InitView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const rows = v.files.map((f) => [actCell(f, palette), { text: f.path }, { text: f.what }]);
  return page([
    ...table(COLUMNS, rows, paper),
    "",
    "  Nothing was connected to.",
    ...nextLines(v.next, paper),
  ]);
}

function actCell(f: InitFile, p: Palette): Cell {
  if (p.form === "accessible") return { text: f.act };
  switch (f.act) {
    case "written":
      return { text: "+", style: p.added };
    case "line added":
      return { text: "~", style: p.changed };
    case "kept":
      return { text: " " };
  }
}
