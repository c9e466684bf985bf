/**
 * Whole screens, kept in `test/unit/golden/`, one file a screen: four widths without colour, one with, plain and accessible.
 * Rewritten only with `UPDATE_GOLDEN=1`, and the difference is reviewed.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";
import { describe, expect, test } from "@jest/globals";
import { MIN_WIDTH, widthOf } from "../../src/render/layout.js";
import { createPalette, plainPalette } from "../../src/render/palette.js";
import { SCREENS, type Screen } from "../support/screens.js";

// Tests run from the compiler's output; the golden files stay with the sources.
const GOLDEN = fileURLToPath(new URL("../../../test/unit/golden/", import.meta.url));
const WIDTHS = [60, 80, 100, 160];
const colour = createPalette({ level: 1, form: "text" });
const plain = createPalette({ level: 0, form: "plain" });
const accessible = createPalette({ level: 0, form: "accessible" });
const cases = Object.entries(SCREENS);

function sheet(screen: Screen): string {
  const parts = [
    ...WIDTHS.flatMap((w) => [
      [`width ${w}`, screen(plainPalette, w)],
      [`width ${w}, colour`, screen(colour, w).replaceAll("\u001b", "␛")],
    ]),
    ["plain, width 80", screen(plain, 80)],
    ["accessible, width 80", screen(accessible, 80)],
  ];
  return parts.map(([title, text]) => `=== ${title}\n${text}`).join("");
}

test.each(cases)("%s is as it was reviewed", (name, screen) => {
  const file = `${GOLDEN}${name}.txt`;
  const drawn = sheet(screen);
  if (process.env["UPDATE_GOLDEN"] === "1") {
    mkdirSync(GOLDEN, { recursive: true });
    writeFileSync(file, drawn);
  }
  expect(existsSync(file)).toBe(true);
  expect(drawn).toBe(readFileSync(file, "utf8"));
});

describe.each(cases)("%s", (_name, screen) => {
  test("fits its width, from the narrowest paper on, in every form", () => {
    for (const palette of [plainPalette, colour, plain, accessible]) {
      for (const width of [MIN_WIDTH, 45, 52, ...WIDTHS]) {
        const wide = screen(palette, width)
          .split("\n")
          .filter((line) => widthOf(line) > width);
        expect(wide).toEqual([]);
      }
    }
  });

  test("says the same without colour", () => {
    for (const width of WIDTHS) {
      expect(stripVTControlCharacters(screen(colour, width))).toBe(screen(plainPalette, width));
    }
  });

  test("is ASCII in form plain, as far as its data is", () => {
    const ours = /[→…·█░✗✓]/;
    const lines = screen(plain, 100).split("\n");
    // What operations word themselves (short digests, fingerprints) is data here.
    const data = /7d0f…01e1|9c1e…2ab0|8f1c…77b1|7a…02|e1…9c|c9…1f|idle → active|311 → 312/g;
    expect(lines.filter((l) => ours.test(l.replaceAll(data, "")))).toEqual([]);
  });
});
