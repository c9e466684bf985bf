/** The answer to a question in SQL, as a table. */
import type { Value } from "../changeset/value.js";
import { page, paperOf, table } from "./layout.js";
import { plural } from "./numbers.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";
import { show } from "./value.js";

/** Columns and rows; `truncated` when there were more. */
export interface AnswerView {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Value[])[];
  readonly truncated: boolean;
}

/** The table, and how many rows it has. */
export function renderAnswer(view: AnswerView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const columns = v.columns.map((head) => ({ head, room: "cut" as const }));
  const rows = v.rows.map((r) => r.map((value) => ({ text: show(value, palette) })));
  const more = v.truncated ? ", and there are more" : "";
  return page([
    ...(rows.length === 0 ? [] : table(columns, rows, paper)),
    `  ${plural(rows.length, "row")}${more}`,
  ]);
}
