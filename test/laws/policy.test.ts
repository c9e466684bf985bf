/** Policy as laws: nothing that anyone can write into a policy or a plan opens the gate by accident. FUZZ_RUNS raises the runs. */
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { HoldpointError } from "../../src/base/errors.js";
import { compilePolicies } from "../../src/policy/compile.js";
import { decide } from "../../src/policy/decide.js";
import type { Decision, PolicyInput } from "../../src/policy/decision.js";
import { conditionCompiler } from "../../src/policy/expression.js";
import { factsOf } from "../../src/policy/facts.js";
import { matchesGlob, preparePattern } from "../../src/policy/patterns.js";
import { inputWith, policiesOf, readPolicy, table } from "../support/policy.js";

const RUNS = Number(process.env["FUZZ_RUNS"] ?? 200);
const WRITE = inputWith({ tables: [table({ name: "orders", rowsBefore: 5000n, delete: 340n })] });
const MILD: Readonly<Record<Decision["kind"], number>> = { deny: 0, "needs-approval": 1, allow: 2 };

/** A policy that denies everything and nothing else: whatever becomes of it, it must not allow. */
const DENIES = `format: holdpoint-policy/1
name: shut
enabled: true
environments: [production, staging, development]
stop_signs:
  on: [table-emptied, over-half]
caps:
  - { id: cap, on: ["*"], op: delete, share: 5%, rows: 100, because: small steps }
rules:
  - id: shut
    when: rows.total > 0 || schema_changes > 0
    then: deny
    because: closed
  - id: people
    when: rows.delete > 0
    then: { require: { people: 2, groups: [dba], touch: true } }
    because: two of dba
`;

/** Refused by a typed error, or a decision: nothing else may come out. */
function decisionOn(text: string): Decision["kind"] | "refused" {
  try {
    return decide(compilePolicies([readPolicy({ path: "p.yaml", text })]), WRITE).kind;
  } catch (e) {
    if (e instanceof HoldpointError && e.code === "ERR_POLICY_INVALID") return "refused";
    throw e;
  }
}

describe("fuzzed files never open the gate", () => {
  test("any text is refused or denies", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 300, unit: "binary" }), (text) => {
        expect(["refused", "deny"]).toContain(decisionOn(text));
      }),
      { numRuns: RUNS },
    );
  });

  test("a policy that denies, with one character altered, added or lost, is refused or does not allow", () => {
    const edit = fc.record({
      at: fc.nat(DENIES.length - 1),
      cut: fc.nat(1),
      add: fc.oneof(
        fc.constantFrom("", " ", "\n", "-", ":", "#", "!", "&", "*", "0", "'", '"', "{", "]", "\t"),
        fc.string({ maxLength: 2 }),
      ),
    });
    fc.assert(
      fc.property(edit, ({ at, cut, add }) => {
        expect(["refused", "deny", "needs-approval"]).toContain(
          decisionOn(DENIES.slice(0, at) + add + DENIES.slice(at + cut)),
        );
      }),
      { numRuns: RUNS * 2 },
    );
  });

  test("a policy that denies, with lines lost or swapped, is refused or does not allow", () => {
    const lines = DENIES.split("\n");
    fc.assert(
      fc.property(fc.subarray(lines), fc.shuffledSubarray(lines), (lost, shuffled) => {
        for (const text of [lost.join("\n"), shuffled.join("\n")])
          expect(["refused", "deny", "needs-approval"]).toContain(decisionOn(text));
      }),
      { numRuns: RUNS },
    );
  });
});

describe("fuzzed conditions", () => {
  const compile = conditionCompiler();
  const at = { file: "p.yaml", line: 1, column: 1 };
  const token = fc.constantFrom(
    "rows.total",
    "rows.delete",
    "tables",
    "t",
    "t.name",
    "reason",
    "true",
    "false",
    "1",
    "0",
    "0.5",
    '"a"',
    "==",
    "!=",
    ">",
    "<",
    "&&",
    "||",
    "!",
    "(",
    ")",
    "[",
    "]",
    ",",
    ".",
    "?",
    ":",
    "+",
    "-",
    "/",
    "%",
    "in",
    ".exists(t,",
    ".all(t,",
    ".map(t,",
    ".filter(t,",
    ".size()",
    ".matches(",
    "glob(reason,",
    're2(reason, "(a+)+$")',
    "size(",
    "has(",
    "dyn(",
    "now",
    'duration("1h")',
    "cel.bind(x,",
    "[[1],[2]]",
  );
  const facts = factsOf(WRITE);

  test("a condition is refused, or gives true or false, or throws; and quickly", () => {
    const started = performance.now();
    fc.assert(
      fc.property(fc.array(token, { maxLength: 25 }), fc.string({ maxLength: 30 }), (tokens, text) => {
        for (const expression of [tokens.join(" "), text]) {
          const checked = compile({ text: expression, at, verbatim: true });
          if (!checked.ok) {
            expect(checked.fault.at).toMatch(/^p\.yaml:\d+:\d+$/);
            continue;
          }
          expect(outcome(() => checked.condition.holds(facts))).toMatch(/^(true|false|error)$/);
        }
      }),
      { numRuns: RUNS * 5 },
    );
    expect(performance.now() - started).toBeLessThan(20_000 + RUNS * 50);
  });

  test("an error inside a rule denies, whatever else allows", () => {
    const policies = policiesOf(
      'rules:\n  - { id: open, when: "true", then: allow, because: b }\n  - { id: broken, when: rows.total / schema_changes > 1, then: allow, because: b }\n',
    );
    expect(decide(policies, WRITE).kind).toBe("deny");
  });
});

function outcome(run: () => boolean): string {
  try {
    return String(run());
  } catch {
    return "error";
  }
}

describe("laws of the decision", () => {
  const follows = fc.constantFrom(
    "allow",
    "deny",
    "{ require: { people: 1 } }",
    "{ require: { people: 2, groups: [dba] } }",
    "{ require: { reason: true } }",
  );
  const when = fc.constantFrom(
    "true",
    "false",
    "rows.total > 100",
    "rows.delete > 1000",
    'glob(reason, "x*")',
    "history.job_runs > 0",
    "tables.exists(t, t.deleted_share > 0.05)",
  );
  const rules = fc.array(fc.record({ when, follows }), { maxLength: 5 });
  const yaml = (list: readonly { when: string; follows: string }[]): string =>
    list.length === 0
      ? ""
      : `rules:\n${list.map((r, i) => `  - { id: r${i}, when: '${r.when}', then: ${r.follows}, because: b }\n`).join("")}`;
  const input = fc.record({
    environment: fc.constantFrom("production", "staging", "development", "unproven"),
    contradicted: fc.boolean(),
    reason: fc.constantFrom("", "x1"),
    deleted: fc.bigInt(0n, 5000n),
  });
  const plan = (i: {
    environment: PolicyInput["environment"];
    contradicted: boolean;
    reason: string;
    deleted: bigint;
  }): PolicyInput =>
    inputWith({
      environment: i.environment,
      contradicted: i.contradicted,
      reason: i.reason,
      tables: [table({ name: "orders", rowsBefore: 5000n, delete: i.deleted })],
    });

  test("a rule more that does not allow never makes the decision milder", () => {
    fc.assert(
      fc.property(
        rules,
        when,
        follows.filter((t) => t !== "allow"),
        input,
        (list, w, t, i) => {
          const [less, more] = [
            decide(policiesOf(yaml(list)), plan(i)),
            decide(policiesOf(yaml([...list, { when: w, follows: t }])), plan(i)),
          ];
          // A first requirement turns "no rule" into "needs approval": stricter than allow, and nobody is let through.
          const bound =
            less.kind === "deny" && less.rules[0]?.rule === "no-rule"
              ? MILD["needs-approval"]
              : MILD[less.kind];
          expect(MILD[more.kind]).toBeLessThanOrEqual(bound);
        },
      ),
      { numRuns: RUNS },
    );
  });

  test("the order of rules changes nothing but their order", () => {
    fc.assert(
      fc.property(rules, input, (list, i) => {
        const [forth, back] = [
          decide(policiesOf(yaml(list)), plan(i)),
          decide(policiesOf(yaml([...list].reverse())), plan(i)),
        ];
        const people = (d: Decision): string[] =>
          d.requirement.slots.map((s) => `${s.people} ${s.groups.join()}`).sort();
        expect([forth.kind, people(forth)]).toEqual([back.kind, people(back)]);
      }),
      { numRuns: RUNS },
    );
  });

  test("unproven and contradicted decide as production does", () => {
    fc.assert(
      fc.property(rules, input, (list, i) => {
        const policies = policiesOf(yaml(list));
        const production = decide(policies, plan({ ...i, environment: "production", contradicted: false }));
        for (const doubt of [
          { environment: "unproven", contradicted: false },
          { environment: "development", contradicted: true },
        ] as const)
          expect(decide(policies, plan({ ...i, ...doubt })).kind).toBe(production.kind);
      }),
      { numRuns: RUNS },
    );
  });

  test("needs-approval always asks for somebody, and allow for nobody", () => {
    fc.assert(
      fc.property(rules, input, (list, i) => {
        const { kind, requirement } = decide(policiesOf(yaml(list)), plan(i));
        if (kind === "needs-approval") expect(requirement.slots.length).toBeGreaterThan(0);
        if (kind === "allow") expect(requirement.slots).toEqual([]);
      }),
      { numRuns: RUNS },
    );
  });
});

describe("laws of patterns", () => {
  test("a glob means what its regular expression means", () => {
    const piece = fc.constantFrom("a", "b", "*", "?", ".", "[", "\\");
    const text = fc.array(fc.constantFrom("a", "b", ".", "[", "\\"), { maxLength: 8 });
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), text, (pattern, letters) => {
        const source = pattern
          .map((p) => (p === "*" ? "[^]*" : p === "?" ? "[^]" : p.replace(/[.[\\]/, "\\$&")))
          .join("");
        expect(matchesGlob(letters.join(""), pattern.join(""))).toBe(
          new RegExp(`^${source}$`, "u").test(letters.join("")),
        );
      }),
      { numRuns: RUNS * 5 },
    );
  });

  test("any pattern is prepared or refused, never thrown", () => {
    fc.assert(
      fc.property(fc.constantFrom("glob", "re2"), fc.string({ maxLength: 40 }), (kind, pattern) => {
        const prepared = preparePattern(kind, pattern);
        expect(prepared.ok ? typeof prepared.test("abc") : typeof prepared.why).toMatch(/boolean|string/);
      }),
      { numRuns: RUNS },
    );
  });
});
