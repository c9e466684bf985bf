/** When a run pauses: what rules mean, which of them hold, and what a configuration may say. */
import { describe, expect, test } from "@jest/globals";
import { HoldpointError } from "../../src/base/errors.js";
import { parseConfig, type PauseRule } from "../../src/config/config.js";
import { meaningOf, pauseRulesFor } from "../../src/operations/writing/collectors.js";

const rule = (over: Partial<PauseRule> = {}): PauseRule => ({
  collector: { kind: "http", url: "http://127.0.0.1/" },
  timeoutSeconds: 5,
  pauseOver: 10,
  stopOver: 20,
  ...over,
});

const codeOf = (work: () => unknown): string => {
  try {
    work();
  } catch (e) {
    return e instanceof HoldpointError ? e.code : String(e);
  }
  return "taken";
};

describe("what a reading means", () => {
  test.each([
    ["at the threshold it goes on", { kind: "number", value: 10 }, "go"],
    ["above the first it pauses", { kind: "number", value: 10.5 }, "pause"],
    ["at the second it still pauses", { kind: "number", value: 20 }, "pause"],
    ["above the second it stops", { kind: "number", value: 21 }, "stop"],
    ["without a number it pauses", { kind: "answers" }, "pause"],
    ["unreadable it pauses", { kind: "none", why: "no route" }, "pause"],
  ] as const)("%s", (_, answer, kind) => {
    expect(meaningOf("lag", rule(), answer).kind).toBe(kind);
  });

  test("where no number is asked for, an answer is enough and none is not", () => {
    const only = rule({ pauseOver: null, stopOver: null });
    expect(meaningOf("health", only, { kind: "answers" }).kind).toBe("go");
    expect(meaningOf("health", only, { kind: "none", why: "refused" })).toMatchObject({
      kind: "pause",
      why: expect.stringContaining("health") as unknown,
    });
  });
});

describe("which rules hold", () => {
  const lag = rule({ collector: { kind: "lag" } });
  test.each([
    ["production waits for its own lag unasked", {}, true, true, ["own lag"]],
    ["other places do not", {}, false, true, []],
    ["a target that knows no lag is not asked for it", {}, true, false, []],
    ["a rule of one's own over the lag stands alone", { behind: lag }, true, true, ["behind"]],
    ["other rules take nothing away", { queue: rule() }, true, true, ["queue", "own lag"]],
  ] as const)("%s", (_, configured, isProduction, knowsLag, names) => {
    expect(Object.keys(pauseRulesFor(configured, { isProduction, knowsLag }))).toEqual([...names]);
  });
});

describe("what a configuration may say", () => {
  const parse = (text: string): unknown =>
    parseConfig(
      `targets:\n  t:\n    url: sqlite:t.db\n    pause_while: { r: { ${text} } }\n`,
      "/p/holdpoint.yaml",
    ).targets["t"]?.pauseWhile["r"];

  test("one source, thresholds, a time", () => {
    expect(parse("sql: SELECT 1, pause_over: 2")).toMatchObject({
      collector: { kind: "sql" },
      stopOver: null,
    });
    expect(parse("lag: own, pause_over: 2, stop_over: 9")).toMatchObject({ collector: { kind: "lag" } });
    expect(parse("http: 'https://m.example/x'")).toMatchObject({ pauseOver: null, timeoutSeconds: 5 });
  });

  test.each([
    ["two sources", "sql: SELECT 1, http: 'http://x/', pause_over: 1"],
    ["no source", "pause_over: 1"],
    ["a question without a threshold", "sql: SELECT 1"],
    ["a lag without a threshold", "lag: own"],
    ["a stop below the pause", "command: [x], pause_over: 5, stop_over: 1"],
    ["a stop without a pause", "command: [x], stop_over: 1"],
    ["no web address", "http: 'file:///etc/passwd'"],
    ["an address with a password", "http: 'http://me:secret@x/'"],
  ])("%s is refused", (_, text) => {
    expect(codeOf(() => parse(text))).toBe("ERR_CONFIG_INVALID");
  });
});
