import fc from "../support/fast-check.js";
import { describe, expect, test } from "@jest/globals";
import { sameValue, type Value } from "../../src/changeset/value.js";
import { commandLine, commandLines } from "../../src/render/command.js";
import { cut, widthOf, wrap } from "../../src/render/layout.js";
import { count, plural, seconds, share, when } from "../../src/render/numbers.js";
import { createPalette, plainPalette } from "../../src/render/palette.js";
import { rowView } from "../../src/render/rows.js";
import { sanitise } from "../../src/render/sanitise.js";
import { createMasker, show, showChange, showFull } from "../../src/render/value.js";

const anyValue: fc.Arbitrary<Value> = fc.oneof(
  fc.constant(null),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.double(),
  fc.string({ unit: "grapheme" }),
  fc.constantFrom(
    "NULL",
    "null",
    "",
    "42",
    "42.0",
    "-0.0",
    "1e3",
    "NaN",
    "true",
    "x'00'",
    "text x'00'",
    "····@m1",
  ),
  fc.uint8Array({ maxLength: 4 }),
  fc.uint8Array({ maxLength: 4 }).map((bytes) => ({ kind: "raw-text" as const, bytes })),
);

describe("values", () => {
  test.each<[string, Value, string]>([
    ["NULL", null, "NULL"],
    ["the empty text", "", "''"],
    ["the text NULL", "NULL", "'NULL'"],
    ["an integer", 42n, "42"],
    ["the largest integer", 9223372036854775807n, "9223372036854775807"],
    ["a text of digits", "42", "'42'"],
    ["a whole real", 42, "42.0"],
    ["minus zero", -0, "-0.0"],
    ["not a number", Number.NaN, "NaN"],
    ["a bare word", "pending", "pending"],
    ["a date in text", "2026-08-02", "2026-08-02"],
    ["text with blanks", "hold expired ", "'hold expired '"],
    ["text with a quote", "it's", "'it''s'"],
    ["a blob", new Uint8Array([0, 255]), "x'00ff'"],
    ["the empty blob", new Uint8Array(), "x''"],
    ["text that is not UTF-8", { kind: "raw-text", bytes: new Uint8Array([0xff]) }, "text x'ff'"],
  ])("%s", (_what, value, expected) => {
    expect(showFull(value)).toBe(expected);
  });

  test("two values look alike only if they are the same", () => {
    fc.assert(
      fc.property(anyValue, anyValue, (a, b) => {
        expect(showFull(a) === showFull(b)).toBe(sameValue(a, b));
      }),
    );
  });

  test("masked values show a tag, the same for equal ones, in every form", () => {
    const mask = createMasker();
    const shown = ["secret", "other", "secret", null, null].map((v) => show(mask(v), plainPalette));
    expect(shown).toEqual(["····@m1", "····@m2", "····@m1", "····@m3", "····@m3"]);
    expect(show(mask("secret"), createPalette({ level: 0, form: "plain" }))).toBe("****@m1");
    expect(JSON.stringify(mask("secret"))).not.toContain("secret");
  });

  test("a long value is cut in the middle with its length", () => {
    const long = `begin_${"x".repeat(4100)}_end_x`;
    const shown = show(long, plainPalette, 40);
    expect(shown).toBe("begin_xxxxxxxxxxxxxxxxxx…(4,112)xx_end_x");
    expect(widthOf(shown)).toBe(40);
  });

  test("a difference in the middle of long values stays in sight", () => {
    const text = (c: string): string => `${"a".repeat(500)}${c}${"b".repeat(500)}`;
    const [before, after] = showChange(text("1"), text("2"), plainPalette);
    expect(before).not.toBe(after);
    expect(before).toContain("a1b");
    expect(after).toContain("a2b");
  });

  test("differing values never look alike when cut", () => {
    const alike = fc.tuple(
      fc.string({ minLength: 0, maxLength: 200 }),
      fc.string({ maxLength: 3 }),
      fc.string({ maxLength: 3 }),
      fc.string({ maxLength: 200 }),
    );
    fc.assert(
      fc.property(alike, ([head, a, b, tail]) => {
        fc.pre(a !== b);
        const [x, y] = showChange(sanitise(head + a + tail), sanitise(head + b + tail), plainPalette);
        fc.pre(head + a + tail !== head + b + tail);
        expect(x).not.toBe(y);
      }),
    );
  });

  test("blanks that are the only difference are drawn", () => {
    expect(showChange("a b", "a  b", plainPalette)).toEqual(["'a·b'", "'a··b'"]);
    expect(showChange("", " ", plainPalette)).toEqual(["''", "'·'"]);
  });

  test("cut and wrap keep their width over any text", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "grapheme", maxLength: 300 }),
        fc.integer({ min: 20, max: 60 }),
        (raw, width) => {
          const text = sanitise(raw);
          expect(widthOf(cut(text, width, "…"))).toBeLessThanOrEqual(width);
          const lines = wrap(text, width);
          for (const line of lines) expect(widthOf(line)).toBeLessThanOrEqual(width);
          expect(lines.join("").replaceAll(" ", "")).toBe(text.replaceAll(" ", ""));
        },
      ),
    );
  });
});

describe("numbers", () => {
  test("counts and shares", () => {
    expect([count(0), count(999), count(1204), count(1234567n)]).toEqual(["0", "999", "1,204", "1,234,567"]);
    expect([plural(1, "row"), plural(0, "row"), plural(2, "entry", "entries")]).toEqual([
      "1 row",
      "0 rows",
      "2 entries",
    ]);
    expect([share(1204, 131870), share(1240, 5912), share(0, 5), share(5, 5), share(1, 0)]).toEqual([
      "0.91 %",
      "21.0 %",
      "0 %",
      "100 %",
      "-",
    ]);
    expect([share(1, 1_000_000), share(999_999, 1_000_000)]).toEqual(["under 0.01 %", "over 99.9 %"]);
    expect([seconds(0.41), seconds(41), seconds(112), seconds(7500)]).toEqual([
      "0.4 s",
      "41 s",
      "1 min 52 s",
      "2 h 5 min",
    ]);
    expect([when("2026-11-24T14:38:44Z"), when("soon")]).toEqual(["24 Nov 2026 14:38", "soon"]);
  });
});

describe("commands", () => {
  test("are quoted so that a shell reads the same words", () => {
    expect(commandLine(["holdpoint", "plan", "--set", "name=it's"])).toBe(
      `holdpoint plan --set 'name=it'\\''s'`,
    );
    expect(commandLine(["a", sanitise("x\u001b y"), ""])).toBe(`a $'x\\x1b y' ''`);
  });

  test("too long for the paper, they go on after the shell's backslash", () => {
    expect(
      commandLines(["holdpoint", "undo", "rn_5c0e2fqa9d4k7m1x", "--resolutions", "conflicts.yaml"], 36),
    ).toEqual(["holdpoint undo rn_5c0e2fqa9d4k7m1x \\", "  --resolutions conflicts.yaml"]);
  });
});

describe("rowView", () => {
  const shape = {
    name: "t",
    columns: [
      { name: "id", type: "INTEGER" },
      { name: "email", type: "TEXT" },
      { name: "n", type: "" },
      { name: "same", type: "" },
    ],
    keyKind: "primary" as const,
    key: [0],
  };

  test("shows changed cells and labels, masks what must stay hidden, counts the rest", () => {
    const view = rowView(
      {
        op: "update",
        table: "t",
        key: [1n],
        origin: "job",
        before: [1n, "a@x", 1n, "s"],
        after: [1n, "b@x", 1, "s"],
      },
      shape,
      { isMasked: (c) => c === "email", mask: createMasker() },
    );
    expect(view).toEqual({
      table: "t",
      op: "update",
      key: [{ column: "id", value: 1n }],
      cells: [
        {
          kind: "changed",
          column: "email",
          before: { kind: "masked", tag: "m1" },
          after: { kind: "masked", tag: "m2" },
        },
        { kind: "changed", column: "n", before: 1n, after: 1 },
      ],
      unchanged: 1,
      count: 1,
    });
  });

  test("shows every cell of a row that goes away", () => {
    const view = rowView(
      { op: "delete", table: "t", key: [1n], origin: "job", before: [1n, "a@x", 1n, null] },
      shape,
      { isMasked: () => false, mask: createMasker() },
    );
    expect(view.cells.map((c) => c.column)).toEqual(["email", "n", "same"]);
    expect(view.unchanged).toBe(0);
  });
});
