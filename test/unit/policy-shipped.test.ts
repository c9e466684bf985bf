/** The policies in the box: they load, pass their own tests and let the main story through. */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, test } from "@jest/globals";
import { policyJsonSchema, parsePolicies, readPolicies } from "../../src/config/policies.js";
import { type CompiledFile, compilePolicies } from "../../src/policy/compile.js";
import { decide } from "../../src/policy/decide.js";
import { TYPES, VARIABLES } from "../../src/policy/facts.js";
import { lintPolicies } from "../../src/policy/lint.js";
import { runPolicyTests } from "../../src/policy/test-cases.js";
import { inputWith, policiesOf, table } from "../support/policy.js";

const ROOT = resolve(import.meta.dirname, "../../..");
const shipped = compilePolicies(parsePolicies(await readPolicies(join(ROOT, "policies"), "policies")));

test("every shipped policy carries tests and passes them", () => {
  const outcomes = shipped.files.flatMap((f) => runPolicyTests(f));
  expect(outcomes.filter((o) => !o.passed).map((o) => [o.at, o.name, ...o.diff])).toEqual([]);
  for (const f of shipped.files) expect([f.file.file, f.file.tests.length > 2]).toEqual([f.file.file, true]);
});

test("only the two files of examples are off, and lint finds nothing else", () => {
  const found = lintPolicies(shipped, {}, new Date("2026-11-24T12:00:00Z"));
  expect(found.map((f) => `${f.kind} ${f.at}`)).toEqual([
    "off policies/assertion-examples.yaml:6:7",
    "off policies/holiday-freeze.yaml:4:7",
  ]);
});

test("the JSON Schema is published", () => {
  const schema = policyJsonSchema();
  expect(schema["$schema"]).toBe("https://json-schema.org/draft/2020-12/schema");
  expect(schema["additionalProperties"]).toBe(false);
});

describe("the shipped policies together", () => {
  const story = [table({ name: "backends", rowsBefore: 5000n, update: 340n, columns: ["deleted_at"] })];

  test("production: 340 of 5,000 rows need exactly one other person", () => {
    const decision = decide(shipped, inputWith({ tables: story }));
    expect(decision.kind).toBe("needs-approval");
    expect(decision.requirement).toEqual({
      slots: [{ people: 1, groups: [], rule: "second-person" }],
      touch: false,
      reviewedInTool: false,
      reason: false,
    });
  });

  test.each(["production", "staging", "development", "unproven"] as const)(
    "an empty effect is allowed in %s",
    (environment) => {
      expect(decide(shipped, inputWith({ environment })).kind).toBe("allow");
    },
  );

  test.each([
    ["production", "needs-approval"],
    ["unproven", "needs-approval"],
    ["staging", "allow"],
    ["development", "allow"],
  ] as const)("the main story in %s: %s", (environment, kind) => {
    expect(decide(shipped, inputWith({ environment, tables: story })).kind).toBe(kind);
  });

  test("its undo needs one person and no reason", () => {
    const { kind, requirement } = decide(shipped, inputWith({ kind: "undo", tables: story }));
    expect([kind, requirement.slots.length, requirement.reason]).toEqual(["needs-approval", 1, false]);
  });
});

describe("the pages", () => {
  const blocks = (page: string): string[] =>
    [...readFileSync(join(ROOT, page), "utf8").matchAll(/```yaml\n([\s\S]*?)```/g)].map((m) => m[1] ?? "");

  test("the example of the format page loads and passes its tests", () => {
    const [example = ""] = blocks("docs/formats/policy.md");
    const outcomes = policiesOf(example, "").files.flatMap((f) => runPolicyTests(f));
    expect([outcomes.length, outcomes.filter((o) => !o.passed).map((o) => [o.name, ...o.diff])]).toEqual([
      3,
      [],
    ]);
  });

  test("the examples of the policy page load", () => {
    const all = blocks("docs/policy.md");
    for (const text of all)
      expect(policiesOf(text, text.startsWith("format:") ? "" : undefined).files).toHaveLength(1);
    expect(all).toHaveLength(7);
  });

  const example = (name: string): { readonly text: string; readonly file: CompiledFile } => {
    const text = blocks("docs/policy.md").find((t) => t.includes(`\nname: ${name}\n`)) ?? "";
    const [file] = policiesOf(text, "").files;
    if (file === undefined) throw new Error(`no example ${name}`);
    return { text, file };
  };

  test.each(["every-field", "every-effect"])("the tests of the example %s pass", (name) => {
    const outcomes = runPolicyTests(example(name).file);
    expect(outcomes.filter((o) => !o.passed).map((o) => [o.name, ...o.diff])).toEqual([]);
    expect(outcomes.length).toBeGreaterThan(0);
  });

  test("every field that a rule sees stands in an example", () => {
    const conditions = example("every-field")
      .file.rules.map((r) => r.condition.expression.text)
      .join("\n");
    const fields = Object.values(TYPES).flatMap((of) => Object.keys(of));
    const missing = [...Object.keys(VARIABLES), ...fields].filter(
      (name) => !new RegExp(`\\b${name}\\b`).test(conditions),
    );
    expect(missing).toEqual([]);
  });

  test("every effect stands in an example", () => {
    const properties = (schema: unknown): string[] =>
      typeof schema !== "object" || schema === null
        ? []
        : Object.entries(schema).flatMap(([key, value]) =>
            key === "properties"
              ? [...Object.keys(value as object), ...properties(value)]
              : properties(value),
          );
    const { tests: _, ...parts } = (policyJsonSchema()["properties"] ?? {}) as Readonly<
      Record<string, unknown>
    >;
    const { text } = example("every-effect");
    const keys = [...Object.keys(parts), ...properties(parts)].filter(
      (k) => !["enabled", "flips", "re2"].includes(k),
    );
    expect([...new Set(keys)].filter((k) => !new RegExp(`\\b${k}:`).test(text))).toEqual([]);
  });
});
