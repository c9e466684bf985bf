/** Parameters: what each type takes, what it becomes, and what is refused. */
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import {
  bindParameters,
  bindUndeclared,
  isSpecProblem,
  type ParameterSpec,
  parameterSpec,
  textForms,
} from "../../src/jobs/parameters.js";
import { parseScalar, SCALAR_TYPES, type ScalarType } from "../../src/jobs/scalar.js";
import { refusal, refusalLine } from "../support/refusal.js";

function spec(raw: unknown): ParameterSpec {
  const read = parameterSpec(raw);
  if (isSpecProblem(read)) throw new Error(`${read.key ?? ""} ${read.problem}`);
  return read;
}

describe("one value", () => {
  test.each<[ScalarType, string, unknown, string]>([
    ["integer", "9223372036854775807", 9223372036854775807n, "9223372036854775807"],
    ["integer", "-9223372036854775808", -9223372036854775808n, "-9223372036854775808"],
    ["integer", "0", 0n, "0"],
    ["number", "0.25", 0.25, "0.25"],
    ["number", "1e-3", 0.001, "0.001"],
    ["number", "-0", -0, "-0"],
    ["number", "100", 100, "100"],
    ["text", " a'b; DROP TABLE x ", " a'b; DROP TABLE x ", " a'b; DROP TABLE x "],
    ["text", "007", "007", "007"],
    ["boolean", "true", 1n, "true"],
    ["boolean", "false", 0n, "false"],
    ["date", "2024-02-29", "2024-02-29", "2024-02-29"],
    ["timestamp", "2026-11-24T14:38:44Z", "2026-11-24T14:38:44Z", "2026-11-24T14:38:44Z"],
    ["timestamp", "2026-11-24T01:38:44.250+02:00", "2026-11-23T23:38:44.25Z", "2026-11-23T23:38:44.25Z"],
    ["duration", "90m", 5400n, "1h30m"],
    ["duration", "2w", 1_209_600n, "14d"],
  ])("%s takes %j", (type, text, value, canonical) => {
    expect(parseScalar(type, text)).toMatchObject({ value, text: canonical });
  });

  test.each<[ScalarType, string]>([
    ["integer", "9223372036854775808"],
    ["integer", "007"],
    ["integer", "-0"],
    ["integer", "+5"],
    ["integer", "5.0"],
    ["integer", "1e3"],
    ["integer", " 5"],
    ["integer", "0x10"],
    ["integer", "٣"],
    ["number", "0.1234567890123456"],
    ["number", "9007199254740993"],
    ["number", "1e999"],
    ["number", "1e-400"],
    ["number", "NaN"],
    ["number", "Infinity"],
    ["number", ".5"],
    ["text", ""],
    ["text", " \t\u00a0"],
    ["text", "a\0b"],
    ["text", "\ud800"],
    ["boolean", "yes"],
    ["boolean", "1"],
    ["boolean", "TRUE"],
    ["date", "2026-02-29"],
    ["date", "2026-13-01"],
    ["date", "0000-01-01"],
    ["date", "2026-1-1"],
    ["timestamp", "2026-11-24T14:38:44"],
    ["timestamp", "2026-11-24 14:38:44Z"],
    ["timestamp", "2026-02-30T00:00:00Z"],
    ["timestamp", "2026-11-24T24:00:00Z"],
    ["timestamp", "9999-12-31T23:00:00-05:00"],
    ["duration", "90"],
    ["duration", "0s"],
    ["duration", "-1h"],
  ])("%s refuses %j", (type, text) => {
    expect(parseScalar(type, text)).toBeNull();
  });

  test("law: its text form reads back as the same value", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...SCALAR_TYPES),
        fc.oneof(fc.string({ unit: "binary" }), somethingTyped()),
        (type, text) => {
          const once = parseScalar(type, text);
          if (once !== null) expect(parseScalar(type, once.text)).toEqual(once);
        },
      ),
    );
  });
});

function somethingTyped(): fc.Arbitrary<string> {
  return fc.oneof(
    fc.bigInt({ min: -(2n ** 64n), max: 2n ** 64n }).map(String),
    fc.double().map(String),
    fc.date({ noInvalidDate: true }).map((d) => d.toISOString()),
    fc.date({ noInvalidDate: true }).map((d) => d.toISOString().slice(0, 10)),
    fc.integer({ min: 0, max: 1e6 }).map((n) => `${n}m`),
  );
}

describe("a declared parameter", () => {
  const specs = {
    days: spec({ type: "integer", minimum: 30, maximum: 400 }),
    region: spec({ type: "text", values: ["eu", "us"], default: "eu" }),
    code: spec({ type: "text", pattern: "[a-z]+|x1", default: "abc" }),
    since: spec({ type: "timestamp", minimum: "2026-01-01T00:00:00Z", default: "2026-06-01T00:00:00Z" }),
  };

  test("is bound with its type, defaults filled in, in the order of names", () => {
    const bound = bindParameters(specs, ["days=40"], "purge");
    expect(bound.map((p) => [p.name, p.value, p.from])).toEqual([
      ["code", "abc", "default"],
      ["days", 40n, "given"],
      ["region", "eu", "default"],
      ["since", "2026-06-01T00:00:00Z", "default"],
    ]);
    expect(textForms(bound)["days"]).toBe("40");
  });

  test.each<[string, readonly string[], string]>([
    ["missing", [], "purge needs days | days wants a whole number like 30, at least 30, at most 400"],
    ["blank", ["days="], "parameter days is blank | a blank value is refused: empty never means all"],
    ["blank with spaces", ["days=  "], "parameter days is blank"],
    ["without a value", ["days"], '--set "days" has no value | it wants NAME=VALUE'],
    ["without a name", ["=5"], '--set "=5" names no parameter'],
    [
      "unknown",
      ["days=40", "regoin=eu"],
      "purge has no parameter regoin | purge takes days, region, code, since; did you mean region?",
    ],
    ["an object's own word", ["days=40", "constructor=1"], "purge has no parameter constructor"],
    ["given twice", ["days=40", "days=40"], "parameter days is given twice"],
    [
      "too small",
      ["days=29"],
      'parameter days is "29" | it wants a whole number like 30, at least 30, at most 400',
    ],
    ["too large", ["days=401"], 'parameter days is "401"'],
    ["of another type", ["days=soon"], 'parameter days is "soon"'],
    [
      "given a type",
      ["days:text=40"],
      "parameter days is given with the type text | purge declares its type",
    ],
    [
      "not in the list",
      ["days=40", "region=ap"],
      'parameter region is "ap" | it wants text that is not blank, one of eu | us',
    ],
    [
      "matching in part",
      ["days=40", "code=abc1"],
      'parameter code is "abc1" | it wants text that is not blank, matching [a-z]+|x1',
    ],
    ["too early", ["days=40", "since=2025-12-31T23:59:59.9Z"], "parameter since is"],
    ["too long", ["days=40", `code=${"a".repeat(70_000)}`], "parameter code is"],
  ])("is refused when it is %s", async (_, given, wanted) => {
    const line = await refusalLine(() => bindParameters(specs, given, "purge"));
    expect(line).toContain("ERR_JOB_PARAMETER");
    expect(line).toContain(wanted);
  });

  test("keeps everything behind the first = and all of its characters", () => {
    const [only] = bindParameters({ note: spec({ type: "text" }) }, ["note=a=b ' \" -- \n"], "j");
    expect(only?.value).toBe("a=b ' \" -- \n");
  });
});

describe("a list", () => {
  const ids = { ids: spec({ type: "list", items: "integer", minimum: 1 }) };
  test.each<[string, string, readonly unknown[]]>([
    ["1,2, 3", "[1,2,3]", [1n, 2n, 3n]],
    ["[9223372036854775807]", "[9223372036854775807]", [9223372036854775807n]],
    ['["1", 2]', "[1,2]", [1n, 2n]],
  ])("%s", (text, value, native) => {
    expect(bindParameters(ids, [`ids=${text}`], "j")[0]).toMatchObject({ value, text: value, native });
  });

  test.each(["1,,2", ",", "[]", "[1", "[null]", "[[1]]", "{}", "0", "1,0", "1,a"])(
    "refuses %s",
    async (text) => {
      expect((await refusal(() => bindParameters(ids, [`ids=${text}`], "j"))).code).toBe("ERR_JOB_PARAMETER");
    },
  );

  test("SQL gets values, people get texts, and the text reads back", () => {
    const specs = {
      d: spec({ type: "list", items: "duration" }),
      t: spec({ type: "list", items: "text" }),
      b: spec({ type: "list", items: "boolean" }),
    };
    const bound = bindParameters(specs, ["d=48h,90s", 't=["a,b","\\"c\\""]', "b=true,false"], "j");
    expect(bound.map((p) => [p.value, p.text])).toEqual([
      ["[true,false]", "[true,false]"],
      ["[172800,90]", '["2d","1m30s"]'],
      ['["a,b","\\"c\\""]', '["a,b","\\"c\\""]'],
    ]);
    expect(
      bindParameters(
        specs,
        bound.map((p) => `${p.name}=${p.text}`),
        "j",
      ),
    ).toEqual(bound);
  });
});

describe("a declaration", () => {
  test.each<[unknown, string | null, string]>([
    [5, null, "wants a declaration such as { type: integer }"],
    [{}, "type", "wants one of integer, number, text, boolean, date, timestamp, duration, list"],
    [{ type: "integer", minimun: 1 }, "minimun", "is not a key of a parameter; did you mean minimum?"],
    [{ type: "integer", minimum: 1.5 }, "minimum", 'wants a whole number like 30, and has "1.5"'],
    [{ type: "integer", minimum: 2 ** 53 }, "minimum", "wants a plain value"],
    [{ type: "integer", minimum: 5, maximum: 4 }, "minimum", "is 5, more than the maximum 4"],
    [
      { type: "integer", minimum: 5, default: 4 },
      "default",
      'wants a whole number like 30, at least 5, and is "4"',
    ],
    [{ type: "text", default: " " }, "default", 'wants text that is not blank, and is " "'],
    [{ type: "text", minimum: 3 }, "minimum", "is not for text"],
    [{ type: "text", pattern: "(" }, "pattern", "is no regular expression"],
    [{ type: "integer", pattern: "1" }, "pattern", "is only for text"],
    [{ type: "text", values: [] }, "values", "wants a list with at least one value"],
    [{ type: "boolean", values: [true] }, "values", "is not for boolean"],
    [{ type: "list" }, "items", "wants one of"],
    [{ type: "text", items: "text" }, "items", "is only for a list"],
  ])("%j is refused", (raw, key, problem) => {
    const read = parameterSpec(raw);
    expect(isSpecProblem(read) && [read.key, read.problem.startsWith(problem)]).toEqual([key, true]);
  });
});

describe("a parameter that nothing declares", () => {
  test.each<[string, string, unknown]>([
    ["a=5", "integer", 5n],
    ["a=-5", "integer", -5n],
    ["a=five", "text", "five"],
    ["a=10.0.0.1", "text", "10.0.0.1"],
    ["a=2026-11-24", "text", "2026-11-24"],
    ["a=-", "text", "-"],
    ["a:text=5", "text", "5"],
    ["a:number=1.5", "number", 1.5],
    ["a:duration=2h", "duration", 7200n],
  ])("%s is %s", (given, type, value) => {
    expect(bindUndeclared([given], "j")[0]).toMatchObject({ type, value });
  });

  test.each(["1.5", "007", "+5", ".5", "1e3", "1,000", " 5", "5 ", "9223372036854775808", "-1.0"])(
    "%j could be a number or text: refused",
    async (text) => {
      const line = await refusalLine(() => bindUndeclared([`a=${text}`], "j"));
      expect(line).toContain(
        "could be a number or text | say which: --set a:number=VALUE or --set a:text=VALUE",
      );
    },
  );

  test.each([
    ["a:int=5", "it wants one of integer"],
    ["a:list=5", "a list needs a declaration of j in holdpoint.yaml"],
    ["a:text:x=5", "names no parameter"],
    ["1a=5", "names no parameter"],
    ["a:integer=x", "it wants a whole number"],
  ])("%s is refused", async (given, wanted) => {
    expect(await refusalLine(() => bindUndeclared([given], "j"))).toContain(wanted);
  });
});
