/** A script's values in the plan's statement: every type comes back as it was, and one spelling only is read. */
import { expect, test } from "@jest/globals";
import { parsePlanStatement, planStatementBytes } from "../../src/approval/plan-statement-codec.js";
import { sameValue, type Value } from "../../src/changeset/value.js";
import { scriptOf, statementsOf } from "../../src/operations/judging/script.js";
import { planStatement } from "../support/plan-statement.js";

const VALUES: readonly (readonly [string, Value])[] = [
  ["NULL", null],
  ["a 64-bit integer", 9223372036854775807n],
  ["the least integer", -9223372036854775808n],
  ["a real", 0.1],
  ["a whole real", 1],
  ["negative zero", -0],
  ["infinity", Number.NEGATIVE_INFINITY],
  ["the least real", 5e-324],
  ["a text of digits", "007"],
  ["no text", ""],
  ["a blob", new Uint8Array([0, 255, 16])],
  ["no blob", new Uint8Array()],
];

test.each(VALUES)("%s is bound again as it was", (_, value) => {
  const script = scriptOf({
    kind: "sql",
    statements: [{ text: "SELECT :v", line: 3, values: { v: value } }],
  });
  const read = parsePlanStatement(planStatementBytes(planStatement({ mode: "script", script })));
  const [statement] = statementsOf(read.script);
  expect(statement).toMatchObject({ text: "SELECT :v", line: 3 });
  expect(sameValue(statement?.values["v"] ?? null, value)).toBe(true);
});

test.each([
  ["an integer with a leading zero", "integer", "01"],
  ["an integer beyond 64 bits", "integer", "9223372036854775808"],
  ["minus nothing", "integer", "-0"],
  ["another spelling of a real", "real", "1.0"],
  ["no number", "real", "NaN"],
  ["half a byte", "blob", "0"],
  ["capital hexadecimal digits", "blob", "FF"],
  ["a NULL with a value", "null", "x"],
] as const)("refuses %s", (_, type, value) => {
  const script = [{ text: "SELECT :v", line: 1, values: { v: { type, value } } }];
  expect(() => planStatementBytes(planStatement({ mode: "script", script }))).toThrow("not well formed");
});

test("refuses a module: its code never runs with the right to commit", () => {
  expect(() => scriptOf({ kind: "program", run: async () => {} })).toThrow(
    "only the statements of an SQL file",
  );
});
