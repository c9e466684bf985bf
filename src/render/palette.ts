/**
 * Colours and glyphs. Render functions name a *meaning* (`stop`, `removed`), the palette knows the look. Colour
 * repeats what the words already say: taking every escape code away leaves the same text.
 *
 * Only the 16 colours of the user's own theme. Red is spent on three things: the production banner, STOP, errors
 * (and the `-` and `!` signs, one cell each).
 */
import { Chalk } from "chalk";

/** Gives text a look; without colour, the text itself. */
export type Style = (text: string) => string;

/**
 * - `text`: aligned columns, Unicode glyphs.
 * - `plain`: the same in ASCII, without colour (`--plain`).
 * - `accessible`: for screen readers (`--accessible`): one sentence a line, words before values, no alignment.
 */
export type Form = "text" | "plain" | "accessible";

/** 0: no escape codes at all; 1: the 16 colours. */
export type ColorLevel = 0 | 1;

/** Signs that differ between forms; each one cell wide in form `text`. */
export interface Glyphs {
  /** Between the two values of a change. */
  readonly arrow: string;
  /** Where something was cut out. */
  readonly ellipsis: string;
  /** Stands for the hidden part of a masked value. */
  readonly mask: string;
  /** A blank where blanks are the only difference. */
  readonly blank: string;
  /** Before an error's code. */
  readonly error: string;
  /** Before a rule that denies, asks, passes. */
  readonly deny: string;
  readonly ask: string;
  readonly pass: string;
  readonly barFull: string;
  readonly barEmpty: string;
}

/** What render functions draw with. */
export interface Palette {
  readonly form: Form;
  readonly glyph: Glyphs;
  /** The word of the production banner. */
  readonly production: Style;
  /** The word of the unproven banner. */
  readonly unproven: Style;
  /** The banner of staging and development. */
  readonly calm: Style;
  readonly added: Style;
  readonly removed: Style;
  readonly changed: Style;
  readonly conflict: Style;
  readonly stop: Style;
  readonly look: Style;
  readonly error: Style;
  readonly title: Style;
  readonly strong: Style;
  readonly faint: Style;
  /** Things to notice that are not wrong by themselves: `odd`, `not in job`, `disagrees`. */
  readonly note: Style;
}

const UNICODE: Glyphs = {
  arrow: "→",
  ellipsis: "…",
  mask: "····",
  blank: "·",
  error: "✗",
  deny: "✗",
  ask: "!",
  pass: "✓",
  barFull: "█",
  barEmpty: "░",
};

const ASCII: Glyphs = {
  arrow: "->",
  ellipsis: "...",
  mask: "****",
  blank: "_",
  error: "ERROR",
  deny: "x",
  ask: "!",
  pass: "v",
  barFull: "#",
  barEmpty: ".",
};

const SPOKEN: Glyphs = {
  ...ASCII,
  arrow: "to",
  mask: "masked ",
  error: "Error",
  deny: "denies:",
  ask: "asks:",
  pass: "passes:",
};

/** The palette for one stream. `plain` has no colour whatever the level. */
export function createPalette(choice: { readonly level: ColorLevel; readonly form: Form }): Palette {
  switch (choice.form) {
    case "text":
      return { form: "text", glyph: UNICODE, ...styles(choice.level) };
    case "plain":
      return { form: "plain", glyph: ASCII, ...styles(0) };
    case "accessible":
      return { form: "accessible", glyph: SPOKEN, ...styles(choice.level) };
  }
}

/** Form `text` without colour: pipes, files, `NO_COLOR`. */
export const plainPalette: Palette = createPalette({ level: 0, form: "text" });

function styles(level: ColorLevel): Omit<Palette, "form" | "glyph"> {
  const chalk = new Chalk({ level });
  return {
    production: chalk.bold.white.bgRed,
    unproven: chalk.black.bgYellow,
    calm: chalk.green,
    added: chalk.green,
    removed: chalk.red,
    changed: chalk.yellow,
    conflict: chalk.inverse.red,
    stop: chalk.inverse.red,
    look: chalk.bold.yellow,
    error: chalk.bold.red,
    title: chalk.bold,
    strong: chalk.bold,
    faint: chalk.dim,
    note: chalk.yellow,
  };
}
