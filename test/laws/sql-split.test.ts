/** Laws of cutting SQL: nothing is lost, no quote is cut, and quoted text cannot become a statement. */
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { splitSql, tokens } from "../../src/jobs/sql-tokens.js";

/** Text made of what the tokenizer stumbles over. */
const hostile = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        ..."'\"`[];()-/*\n\r:@$?#\\. ".split(""),
        "--",
        "/*",
        "*/",
        "''",
        "BEGIN",
        "END",
        "CASE",
        "CREATE",
        "TRIGGER",
        "TEMP",
        "DELETE FROM a",
        ":a",
        "\ufeff",
      ),
      fc.string({ maxLength: 3 }),
    ),
    { maxLength: 40 },
  )
  .map((parts) => parts.join(""));

const quoted = fc
  .tuple(fc.constantFrom("'", '"', "`"), fc.string({ unit: "binary" }))
  .map(([q, s]) => q + s.replaceAll(q, q + q) + q);
const comment = fc.oneof(
  fc.string({ unit: "grapheme-ascii" }).map((s) => `--${s.replaceAll(/[\n\r]/g, "")}\n`),
  fc
    .string({ unit: "grapheme-ascii" })
    .map((s) => `/*${s.replaceAll("*/", "")}${s.endsWith("*") ? " " : ""}*/`),
);
const statement = fc
  .array(
    fc.oneof(quoted, comment, fc.constantFrom("SELECT", "x", "1", "(a)", ",", " ", "\n", ":p", "x'00'")),
    { minLength: 1 },
  )
  .map((parts) => ["SELECT", ...parts].join(" "));

describe("cutting SQL", () => {
  test("the tokens are adjacent and cover any text", () => {
    fc.assert(
      fc.property(hostile, (text) => {
        let at = 0;
        for (const token of tokens(text)) {
          expect(token.start).toBe(at);
          expect(token.end).toBeGreaterThan(token.start);
          at = token.end;
        }
        expect(at).toBe(text.length);
      }),
      { numRuns: 1000 },
    );
  });

  test("the pieces joined are the text, and lines never go back", () => {
    fc.assert(
      fc.property(hostile, (text) => {
        const pieces = splitSql(text);
        expect(pieces.map((p) => p.source).join("")).toBe(text);
        const lines = pieces.map((p) => p.line);
        expect(lines).toEqual([...lines].sort((a, b) => a - b));
      }),
      { numRuns: 1000 },
    );
  });

  test("statements of quotes and comments come back one by one: no cut inside either", () => {
    fc.assert(
      fc.property(fc.array(statement, { minLength: 1, maxLength: 5 }), (statements) => {
        const pieces = splitSql(statements.join(";")).filter((p) => p.tokens.length > 0);
        expect(pieces).toHaveLength(statements.length);
        for (const [i, piece] of pieces.entries()) {
          expect(piece.fault).toBeNull();
          expect((statements[i] ?? "").startsWith(piece.text)).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });
});
