/**
 * Lines, columns and wrapping by what a terminal shows, not by string length. Nothing here is wider than the
 * paper. Keys, counts and names of environments are never cut: they wrap. Long values are cut in the middle with
 * their length shown.
 */
import stringWidth from "string-width";
import { count } from "./numbers.js";
import type { Palette, Style } from "./palette.js";

/** What is drawn on. `width` in terminal cells. */
export interface Paper {
  readonly palette: Palette;
  readonly width: number;
}

/** Narrowest and widest paper: below nothing fits, above the right edge is out of sight of the left one. */
export const MIN_WIDTH = 40;
export const MAX_WIDTH = 160;

/** Paper of a usable width. */
export function paperOf(palette: Palette, width: number): Paper {
  return { palette, width: Math.min(MAX_WIDTH, Math.max(MIN_WIDTH, Math.floor(width))) };
}

/** Text in one look. */
export interface Cell {
  readonly text: string;
  readonly style?: Style;
  /** Pieces that together are `text`, each in a look of its own; used where the cell is not cut or wrapped. */
  readonly pieces?: readonly Cell[];
}

/** A column of a table. */
export interface Column {
  readonly head: string;
  readonly align?: "right";
  /** What may happen when the paper is too narrow: `keep` nothing (default), `wrap` over lines, `cut` in the middle. */
  readonly room?: "keep" | "wrap" | "cut";
}

const GAP = "  ";
const LEAST = 14;

/** Printable ASCII and our own glyphs: one cell each, without asking for tables of all scripts. */
const ONE_CELL_EACH = /^[\x20-\x7e→…·✗✓█░]*$/u;

/** Cells that `text` takes on a terminal; escape codes take none. */
export function widthOf(text: string): number {
  return ONE_CELL_EACH.test(text) ? text.length : stringWidth(text);
}

/** Lines to one text, without blanks at line ends, closed by a line feed; no lines give an empty text. */
export function page(lines: readonly string[]): string {
  return lines.length === 0 ? "" : `${lines.map((l) => l.trimEnd()).join("\n")}\n`;
}

/** A cell from pieces. */
export function cell(...pieces: readonly Cell[]): Cell {
  return { text: pieces.map((p) => p.text).join(""), pieces };
}

/** The cell in its look. */
export function paint(c: Cell): string {
  if (c.pieces !== undefined) return c.pieces.map(paint).join("");
  return c.style === undefined || c.text === "" ? c.text : c.style(c.text);
}

/** `text` filled up with blanks to `width` cells. */
export function pad(text: string, width: number, align: "left" | "right" = "left"): string {
  const blanks = " ".repeat(Math.max(0, width - widthOf(text)));
  return align === "left" ? text + blanks : blanks + text;
}

/**
 * `text` in at most `limit` cells (at least {@link LEAST}): its beginning, `…(4,112)` with its whole length in code points,
 * its end. `focus`, an index into `text`, stays in sight: without it two long values that differ in the
 * middle would look the same.
 */
export function cut(text: string, limit: number, ellipsis: string, focus = 0): string {
  // A base and four marks, each two code units, is the most that one cell holds after the sanitiser: a longer text
  // is too wide without measuring megabytes of it.
  if (text.length <= limit * 10 && widthOf(text) <= limit) return text;
  const mark = `${ellipsis}(${count(Array.from(text).length)})`;
  const room = Math.max(LEAST, limit) - widthOf(mark);
  const tail = Math.max(0, Math.floor(room / 4));
  const head = Math.max(1, room - tail);
  if (focus >= head && focus < text.length - tail) return cutAround(text, focus, room, mark, ellipsis);
  return takeStart(text, head) + mark + takeEnd(text, tail);
}

function cutAround(text: string, focus: number, room: number, mark: string, ellipsis: string): string {
  const inner = Math.max(1, room - 2 * widthOf(ellipsis));
  const start = Math.max(0, focus - Math.floor(inner / 3));
  const from = wholeCharacterAt(text, start);
  const shown = takeStart(text.slice(from), inner);
  const rest = from + shown.length < text.length ? ellipsis : "";
  return `${ellipsis}${shown}${rest}${mark.slice(ellipsis.length)}`;
}

function wholeCharacterAt(text: string, index: number): number {
  return /[\udc00-\udfff]/.test(text.charAt(index)) ? index - 1 : index;
}

/** The longest beginning of `text` that fits `limit` cells, in whole graphemes. */
export function takeStart(text: string, limit: number): string {
  if (/^[ -~]*$/.test(text)) return text.slice(0, Math.max(0, limit));
  let taken = "";
  let width = 0;
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    width += widthOf(segment);
    if (width > limit) break;
    taken += segment;
  }
  return taken;
}

function takeEnd(text: string, limit: number): string {
  const graphemes = Array.from(new Intl.Segmenter().segment(text.slice(-4 * limit - 4)), (s) => s.segment);
  let taken = "";
  for (const g of graphemes.reverse()) {
    if (widthOf(g + taken) > limit) break;
    taken = g + taken;
  }
  return taken;
}

/** `text` in lines of at most `width` cells, broken at blanks, inside words only where a word alone is too long. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ").flatMap((w) => breakWord(w, width))) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line !== "" && widthOf(longer) > width) {
      lines.push(line);
      line = word;
    } else line = longer;
  }
  return [...lines, line];
}

function breakWord(word: string, width: number): string[] {
  const parts: string[] = [];
  let rest = word;
  const isPath = /^[./~]|\.[a-z]+(:|$)/.test(word) && word.includes("/");
  while (widthOf(rest) > width) {
    // At least one character a turn: a wide character on paper one cell wide must not loop for ever.
    const fitting = takeStart(rest, width) || (Array.from(rest)[0] ?? rest);
    const part = isPath ? wholeFolders(fitting) : fitting;
    parts.push(part);
    rest = rest.slice(part.length);
  }
  return [...parts, rest];
}

/** A path is broken behind a folder where that leaves no line half empty: its last name is what people look for. */
function wholeFolders(part: string): string {
  const at = part.lastIndexOf("/") + 1;
  return at * 2 > part.length ? part.slice(0, at) : part;
}

/** `head`, then `body` wrapped beside it; following lines are indented to the body's column. */
export function hang(head: Cell, body: Cell, paper: Paper): string[] {
  const indent = widthOf(head.text);
  const room = paper.width - indent;
  if (room < LEAST) return [...hang({ text: "" }, head, paper), ...hang({ text: "    " }, body, paper)];
  if (widthOf(body.text) <= room) return [paint(head) + paint(body)];
  return wrap(body.text, room).map((line, i) => {
    return (i === 0 ? paint(head) : " ".repeat(indent)) + paint(restyled(body, line));
  });
}

/** `left` at the left, `right` at the right edge; on two lines where they do not fit on one. */
export function spread(left: Cell, right: Cell, paper: Paper): string[] {
  if (right.text === "") return hang({ text: "" }, left, paper);
  const room = paper.width - widthOf(left.text) - widthOf(right.text);
  if (paper.palette.form === "accessible" || room < GAP.length) {
    return [...hang({ text: "" }, left, paper), ...hang({ text: "    " }, right, paper)];
  }
  return [paint(left) + " ".repeat(room) + paint(right)];
}

/**
 * Rows in columns, indented by `indent`. What does not fit wraps or is cut as its column allows; if it still does not
 * fit, every row is written as words with its heads, so nothing is lost on narrow paper. Accessible paper always gets words.
 */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  paper: Paper,
  indent = "  ",
): string[] {
  const widths = paper.palette.form === "accessible" ? undefined : columnWidths(columns, rows, paper, indent);
  if (widths === undefined) return rows.flatMap((row) => inWords(columns, row, paper, indent));
  const heads = columns.map((c) => ({ text: c.head, style: paper.palette.faint }));
  const shown = columns.some((c) => c.head !== "") ? [heads, ...rows] : rows;
  return shown.flatMap((row) => tableRow(columns, row, widths, paper, indent));
}

function columnWidths(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  paper: Paper,
  indent: string,
): readonly number[] | undefined {
  const widths = columns.map((c, i) =>
    Math.max(widthOf(c.head), ...rows.map((r) => widthOf(r[i]?.text ?? ""))),
  );
  let over = total(widths) + GAP.length * (columns.length - 1) + indent.length - paper.width;
  while (over > 0) {
    const widest = widestFlexible(columns, widths);
    if (widest === -1) return undefined;
    const next = flexibleBelow(columns, widths, widest);
    const less = Math.min(over, Math.max(1, (widths[widest] ?? 0) - next));
    widths[widest] = (widths[widest] ?? 0) - less;
    over -= less;
  }
  return widths;
}

function total(numbers: readonly number[]): number {
  return numbers.reduce((sum, n) => sum + n, 0);
}

function widestFlexible(columns: readonly Column[], widths: readonly number[]): number {
  let widest = -1;
  columns.forEach((c, i) => {
    const width = widths[i] ?? 0;
    if (c.room === undefined || c.room === "keep" || width <= LEAST) return;
    if (widest === -1 || width > (widths[widest] ?? 0)) widest = i;
  });
  return widest;
}

/** The width to shrink the widest column to before another one is the widest. */
function flexibleBelow(columns: readonly Column[], widths: readonly number[], widest: number): number {
  const others = widths.filter((_, i) => i !== widest && (columns[i]?.room ?? "keep") !== "keep");
  return Math.max(LEAST, ...others.filter((w) => w < (widths[widest] ?? 0)));
}

function tableRow(
  columns: readonly Column[],
  row: readonly Cell[],
  widths: readonly number[],
  paper: Paper,
  indent: string,
): string[] {
  const blocks = columns.map((c, i) => cellLines(row[i] ?? { text: "" }, c, widths[i] ?? 0, paper));
  const height = Math.max(...blocks.map((b) => b.length));
  return Array.from({ length: height }, (_, line) => {
    const texts = columns.map((c, i) => pad(blocks[i]?.[line] ?? "", widths[i] ?? 0, c.align));
    return (indent + texts.join(GAP)).trimEnd();
  });
}

function cellLines(c: Cell, column: Column, width: number, paper: Paper): string[] {
  if (widthOf(c.text) <= width) return [paint(c)];
  if (column.room === "cut") return [paint(restyled(c, cut(c.text, width, paper.palette.glyph.ellipsis)))];
  return wrap(c.text, width).map((line) => paint(restyled(c, line)));
}

/** Other text in the cell's look; pieces are given up, their words stay. */
function restyled(c: Cell, text: string): Cell {
  return c.style === undefined ? { text } : { text, style: c.style };
}

function inWords(columns: readonly Column[], row: readonly Cell[], paper: Paper, indent: string): string[] {
  const words = columns.flatMap((c, i) => {
    const text = row[i]?.text ?? "";
    if (text === "") return [];
    return [i === 0 || c.head === "" ? text : `${c.head} ${text}`];
  });
  const lines = wrap(words.join(", "), Math.max(LEAST, paper.width - indent.length - 4));
  return lines.map((line, i) => indent + (i === 0 ? "" : "    ") + line);
}
