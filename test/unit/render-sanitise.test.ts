import fc from "../support/fast-check.js";
import { describe, expect, test } from "@jest/globals";
import { clean, sanitise } from "../../src/render/sanitise.js";
import { createPalette, plainPalette } from "../../src/render/palette.js";
import { MARKDOWN_LIMITS, renderMarkdown } from "../../src/render/markdown.js";
import { markdownView } from "../support/render-views.js";
import { SCREENS } from "../support/screens.js";

/** Undoes the escapes, as C and bash read them. */
function unescape(text: string): string {
  return text.replace(/\\(n|r|t|\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})/g, (_, e: string) => {
    const short: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t", "\\": "\\" };
    const code = Number.parseInt(e.slice(1), 16);
    return short[e] ?? (e.startsWith("u") ? String.fromCharCode(code) : String.fromCodePoint(code));
  });
}

const DANGEROUS =
  /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]|(?! )\p{Zs}|\p{M}{5}/u;

const hostile = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: "grapheme" }),
  fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((c) => String.fromCharCode(c)) }),
);

describe("sanitise", () => {
  test.each([
    ["NUL", "a\u0000b", "a\\x00b"],
    ["bell and backspace", "\u0007\b", "\\x07\\x08"],
    ["escape: a colour", "\u001b[31mred\u001b[0m", "\\x1b[31mred\\x1b[0m"],
    ["escape: clear the screen", "\u001b[2J\u001b[H", "\\x1b[2J\\x1b[H"],
    [
      "an OSC 8 link",
      "\u001b]8;;http://evil\u0007here\u001b]8;;\u0007",
      "\\x1b]8;;http://evil\\x07here\\x1b]8;;\\x07",
    ],
    ["C1: CSI in one byte", "\u009b31m", "\\u009b31m"],
    ["delete", "\u007f", "\\x7f"],
    ["carriage return: the line starts again", "paid\rpending", "paid\\rpending"],
    ["line feed and tab", "a\nb\tc", "a\\nb\\tc"],
    ["right-to-left override", "a\u202eb", "a\\u202eb"],
    ["isolates and marks", "\u2066\u2069\u200f\u061c", "\\u2066\\u2069\\u200f\\u061c"],
    ["zero width", "pa\u200bid\u200d\ufeff\u2060", "pa\\u200bid\\u200d\\ufeff\\u2060"],
    ["soft hyphen", "a\u00adb", "a\\u00adb"],
    ["a filler that is drawn as nothing", "\u3164", "\\u3164"],
    ["tag characters", "\u{e0041}", "\\U000e0041"],
    ["variation selectors", "a\ufe0f\u{e0100}", "a\\ufe0f\\U000e0100"],
    ["line and paragraph separators", "\u2028\u2029", "\\u2028\\u2029"],
    ["spaces that are not spaces", "a\u00a0b\u3000c\u2009d", "a\\u00a0b\\u3000c\\u2009d"],
    ["lone surrogates", "\ud800x\udc00", "\\ud800x\\udc00"],
    ["private use", "\ue000", "\\ue000"],
    ["a backslash is doubled", "C:\\x1b", "C:\\\\x1b"],
    ["marks in a pile", `a${"\u0301".repeat(6)}`, `a${"\u0301".repeat(4)}\\u0301\\u0301`],
    ["ordinary text of any script", 'Zoë 漢字 пример 😀 it\'s 5 % "ok"', 'Zoë 漢字 пример 😀 it\'s 5 % "ok"'],
  ])("%s", (_what, input, expected) => {
    expect(sanitise(input)).toBe(expected);
  });

  test("leaves nothing that moves, hides or reorders, and loses nothing", () => {
    fc.assert(
      fc.property(hostile, (text) => {
        const safe = sanitise(text);
        expect(safe).not.toMatch(DANGEROUS);
        expect(unescape(safe)).toBe(text);
      }),
    );
  });

  test("cleans strings at any depth, keys included, and leaves bytes and numbers", () => {
    const bytes = new Uint8Array([27]);
    expect(clean({ a: ["\u001b", { "k\r": "x\ny" }], n: 1n, bytes, no: null })).toEqual({
      a: ["\\x1b", { "k\\r": "x\\ny" }],
      n: 1n,
      bytes,
      no: null,
    });
  });
});

const EVIL = "\u001b[2J\u009b8m\rOK\n\u202e\u200b\u001b]8;;x\u0007";

/** The view with something hostile behind every text that is not one of our own tags. */
function spoil<T>(view: T): T {
  return spoilAny(view, "") as T;
}

const OUR_TAGS = new Set(
  (
    "kind op verdict name guardedAs side strength says state mark slot worst origin effect act result pinned code " +
    "actor rule requestedBy targetChanged planDigest environment"
  ).split(" "),
);

function spoilAny(v: unknown, key: string): unknown {
  if (typeof v === "string") return OUR_TAGS.has(key) ? v : v + EVIL;
  if (typeof v !== "object" || v === null || ArrayBuffer.isView(v)) return v;
  if (Array.isArray(v)) return v.map((m) => spoilAny(m, key));
  const members = Object.entries(v).map(([k, m]) => [k, spoilAny(m, k)]);
  // An error keeps its message off its enumerable members.
  return {
    ...Object.fromEntries(members),
    ...("message" in v ? { message: `${String(v.message)}${EVIL}` } : {}),
  };
}

describe("every screen over hostile text", () => {
  test.each(Object.entries(SCREENS))("%s prints escapes and nothing else", (_name, screen) => {
    for (const palette of [plainPalette, createPalette({ level: 0, form: "accessible" })]) {
      const drawn = screen(palette, 100, spoil).replaceAll("\n", "");
      expect(drawn).not.toMatch(DANGEROUS);
    }
  });

  test("with colour, the only escape codes are those of the palette", () => {
    const palette = createPalette({ level: 1, form: "text" });
    for (const screen of Object.values(SCREENS)) {
      const drawn = screen(palette, 100, spoil).replaceAll("\n", "");
      // eslint-disable-next-line no-control-regex
      expect(drawn.replaceAll(/\u001b\[\d{1,2}m/g, "")).not.toMatch(DANGEROUS);
    }
  });

  test("Markdown: code spans hold what came from outside, in whole", () => {
    const evil = {
      ...markdownView,
      job: "a`b``c | <img src=x> @everyone [x](http://evil)\n# big",
      odd: ["@all #1"],
    };
    const text = renderMarkdown(evil, "markdown");
    expect(text.split("\n")[0]).toBe(
      "### `elb-prod` (PRODUCTION): ``` a`b``c | <img src=x> @everyone [x](http://evil)\\n# big ```, 2,532 rows, STOP on ODD, LOOK on WHAT",
    );
    expect(text).toContain("- `@all #1`");
  });

  test("Markdown: sections fall away from the bottom until it fits, and it says which", () => {
    const many = Array.from({ length: 4000 }, (_, i) => ({
      table: `table_${i}`,
      op: "delete" as const,
      columns: [],
      rows: i,
    }));
    const text = renderMarkdown({ ...markdownView, patterns: many, reason: "why not" }, "markdown");
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(MARKDOWN_LIMITS.markdown);
    expect(text).toContain(
      "Left out because it would be too long here: patterns, policy, the requester's reason.",
    );
    expect(text).toContain("| ODD |");
    expect(text).toContain("Approve on your own machine, not here: `holdpoint approve pl_k7q2m9xw3fh8c1vz`");
    expect(renderMarkdown({ ...markdownView, patterns: many }, "github")).toContain("table_3999");
  });
});
