/** The YAML reader: every refusal with its line and column, in words. */
import { describe, expect, test } from "@jest/globals";
import { z } from "zod";
import { parseYaml, plainText } from "../../src/config/yaml-file.js";
import { refusal, refusalLine } from "../support/refusal.js";

const schema = z.strictObject({
  targets: z.record(
    z.string(),
    z.strictObject({
      url: plainText(),
      foreign_keys: z.boolean().optional(),
      mask: z.array(plainText()).min(1).optional(),
      environment: z.enum(["production", "staging"]).optional(),
    }),
  ),
  limit: z.int().optional(),
});

const GOOD = "targets:\n  shop:\n    url: sqlite:shop.db # the shop\n    foreign_keys: true\n";

describe("a file that is well formed", () => {
  test("gives its value and the place of every part", () => {
    const file = parseYaml(GOOD, "holdpoint.yaml", schema);
    expect(file.value).toEqual({ targets: { shop: { url: "sqlite:shop.db", foreign_keys: true } } });
    expect(file.at(["targets", "shop", "url"])).toBe("holdpoint.yaml:3:10");
    expect(file.at(["targets", "shop", "mask", 2])).toBe("holdpoint.yaml:3:5");
    expect(file.at([])).toBe("holdpoint.yaml:1:1");
  });

  test("may hold blanks where the caller says so", () => {
    const read = parseYaml('a: ""\n', "p.yaml", z.strictObject({ a: z.string() }), { blanks: "allowed" });
    expect(read.value).toEqual({ a: "" });
  });
});

describe("refused, naming file, line and column", () => {
  test.each<[string, string, string]>([
    ["an empty file", "", "f.yaml:1:1 the file is empty"],
    ["comments alone", "# nothing\n", "f.yaml:1:1 the file is empty"],
    ["a list instead of a map", "- a\n", "f.yaml:1:1 the file wants a map of keys, and has a list"],
    ["a key twice", "limit: 1\ntargets: {}\nlimit: 2\n", 'f.yaml:3:1 "limit" stands in the same place twice'],
    ["a tab", "targets:\n\tshop: 1\n", "f.yaml:2:1 a tab indents this line: use spaces"],
    [
      "an alias",
      "targets: &t { a: { url: x } }\nlimit: *t\n",
      "f.yaml:2:8 *t repeats another part of the file: write the value out",
    ],
    ["a tag", "targets: !secret {}\n", "f.yaml:1:10 unresolved tag: !secret"],
    [
      "two documents",
      "targets: {}\n---\nlimit: 1\n",
      "f.yaml:2:1 a second document begins here: one file holds one document",
    ],
    [
      "another YAML version",
      "%YAML 1.1\n---\ntargets: {}\n",
      "f.yaml:1:1 a %YAML directive has no place here",
    ],
    [
      "a key that is a number",
      "targets:\n  1: { url: x }\n",
      "f.yaml:2:3 the key 1 is not text: write it in quotes",
    ],
    [
      "a key that objects treat apart",
      "targets:\n  __proto__: { url: x }\n",
      "f.yaml:2:3 __proto__ cannot be a key",
    ],
    ["a key that is a list", "? [a]\n: 1\n", "f.yaml:1:1 a key must be plain text"],
    ["a control character", "targets: {}\n# \u0001\n", "f.yaml:2:3 a control character stands here"],
    [
      "a number beyond 2^53",
      "targets: {}\nlimit: 9007199254740993\n",
      "f.yaml:2:8 9007199254740993 is too large to be read exactly: write it in quotes",
    ],
    ["nothing after a key", "targets:\n  shop:\n    url:\n", "f.yaml:3:9 url is empty"],
    ["blank text", 'targets:\n  shop:\n    url: "  "\n', "f.yaml:3:10 url is empty"],
    [
      "a blank entry",
      "targets:\n  shop:\n    url: x\n    mask: [a, ~]\n",
      "f.yaml:4:15 an entry of this list is empty",
    ],
    [
      "an empty list",
      "targets:\n  shop:\n    url: x\n    mask: []\n",
      "f.yaml:4:11 targets.shop.mask has no entries",
    ],
    [
      "a misspelt key",
      "targets:\n  shop:\n    ulr: x\n",
      "f.yaml:3:5 targets.shop.url is missing (and 1 more)",
    ],
    [
      "an unknown key",
      "targets: {}\nfoo: 1\n",
      'f.yaml:2:1 "foo" is not a key of this file; it has targets, limit',
    ],
    [
      "yes for true",
      "targets:\n  shop:\n    url: x\n    foreign_keys: yes\n",
      'f.yaml:4:19 targets.shop.foreign_keys wants true or false, and has "yes"',
    ],
    [
      "another word",
      "targets:\n  shop:\n    url: x\n    environment: prod\n",
      'f.yaml:4:18 targets.shop.environment wants production or staging, and has "prod"',
    ],
    ["a fraction", "targets: {}\nlimit: 1.5\n", "f.yaml:2:8 limit wants a whole number, and has 1.5"],
    ["a missing key", "limit: 1\n", "f.yaml:1:1 targets is missing"],
    [
      "a variable outside url",
      "targets:\n  shop:\n    url: x\n    mask: ['${M}']\n",
      "f.yaml:4:12 targets.shop.mask.0 has a ${variable}: variables are only read in url",
    ],
    ["broken YAML", "targets: {a: b: c}\n", "f.yaml:1:14 block collections are not allowed"],
  ])("%s", async (_, text, wanted) => {
    const e = await refusal(() => parseYaml(text, "f.yaml", schema));
    expect(e.code).toBe("ERR_CONFIG_INVALID");
    expect(e.message).toContain(wanted);
  });

  test("a guess at what was meant", async () => {
    const line = await refusalLine(() =>
      parseYaml("targets:\n  shop:\n    url: x\n    foriegn_keys: true\n", "f.yaml", schema),
    );
    expect(line).toContain('"foriegn_keys" is not a key of targets.shop; did you mean foreign_keys?');
  });

  test("all faults at once, in the order of the file", async () => {
    const text = "targets:\n  a:\n    url: x\n    foreign_keys: no\n  b:\n    url: y\n    mask: 5\n";
    const e = await refusal(() => parseYaml(text, "f.yaml", schema));
    expect(e.message).toBe(
      'f.yaml:4:19 targets.a.foreign_keys wants true or false, and has "no" (and 1 more)',
    );
    expect(e.why).toBe("f.yaml:7:11 targets.b.mask wants a list, and has 5");
  });

  test("never with the text of a url", async () => {
    const secret = "targets:\n  shop:\n    url: [postgres://u:hunter2@h/d]\n";
    expect(await refusalLine(() => parseYaml(secret, "f.yaml", schema))).not.toContain("hunter2");
  });

  test("under the caller's own code", async () => {
    const e = await refusal(() => parseYaml("", "g.yaml", schema, { code: "ERR_PEOPLE_INVALID" }));
    expect(e.code).toBe("ERR_PEOPLE_INVALID");
  });
});

describe("a file made to exhaust whoever reads it", () => {
  const deep = 5_000;
  const many = 20_001;
  const rows = (row: (i: number) => string): string =>
    Array.from({ length: many }, (_, i) => row(i)).join("\n");

  test.each<readonly [string, string, string]>([
    ["lists in lists", `targets: ${"[".repeat(deep)}${"]".repeat(deep)}`, "nests deeper than 64 levels"],
    ["maps in maps", `targets: ${"{a: ".repeat(deep)}`, "nests deeper than 64 levels"],
    ["entries of entries", "- ".repeat(deep), "nests deeper than 64 levels"],
    ["keys of keys", "? ".repeat(deep), "nests deeper than 64 levels"],
    ["more keys than are compared", rows((i) => `k${i}: 1`), "has more than 2000 entries"],
    ["one key again and again", rows(() => "k: 1"), "has more than 2000 entries"],
    ["a list without an end", `targets:\n${rows(() => "- a")}`, "has more than 20000 entries"],
    ["a fault on every line", "! ".repeat(deep), "and at least 49 more"],
  ])("%s", async (_, text, wanted) => {
    const started = performance.now();
    const e = await refusal(() => parseYaml(text, "f.yaml", schema));
    expect([e.code, e.message]).toEqual(["ERR_CONFIG_INVALID", expect.stringContaining(wanted)]);
    // What it took before the bounds: a minute, or the process.
    expect(performance.now() - started).toBeLessThan(10_000);
  });
});
