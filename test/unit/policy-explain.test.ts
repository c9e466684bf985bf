/** What people read about a decision: explanations, failing tests of a policy, and lint. */
import { describe, expect, test } from "@jest/globals";
import { parsePolicies } from "../../src/config/policies.js";
import { compilePolicies } from "../../src/policy/compile.js";
import { explain, withRows } from "../../src/policy/explain.js";
import { lintPolicies } from "../../src/policy/lint.js";
import { runPolicyTests } from "../../src/policy/test-cases.js";
import { count, percent } from "../../src/policy/words.js";
import { HEAD, inputWith, policiesOf, table } from "../support/policy.js";

const HOLDS = inputWith({
  tables: [table({ name: "order_holds", rowsBefore: 5900n, delete: 3725n, columns: ["state"] })],
});
const RULES = `stop_signs:
  off: [{ name: over-half, because: tested alone }]
rules:
  - id: prod-write
    when: rows.total > 0
    then: { require: { people: 1, groups: [dba] } }
    because: production target
  - id: max-share
    when: tables.exists(t, t.deleted_share > 0.25)
    then: deny
    because: more than a quarter of a table
  - id: business-hours
    when: now.getHours() < 8 || now.getHours() >= 17
    then: deny
    because: nobody is there
caps:
  - { id: cap, on: plan, rows: 2000, because: small steps }
`;

describe("explain", () => {
  const policies = policiesOf(RULES);
  const found = explain(policies, HOLDS);

  test("a denial names the rule, its line, what it saw and what would flip it", () => {
    expect(found.decision.kind).toBe("deny");
    expect(found.fired.map((r) => [r.effect, r.rule, r.at, r.saw, r.flips])).toEqual([
      ["deny", "cap", "policies/p.yaml:20", "3,725 rows", "2,000 rows or fewer (now 3,725)"],
      [
        "deny",
        "max-share",
        "policies/p.yaml:11",
        "order_holds: deleted_share = 0.6314",
        "not (tables.exists(t, t.deleted_share > 0.25))",
      ],
      ["require", "prod-write", "policies/p.yaml:7", "rows.total = 3,725", "not (rows.total > 0)"],
    ]);
    expect(found.passed.map((r) => r.rule)).toContain("business-hours");
    expect(found.passed.find((r) => r.rule === "business-hours")?.saw).toBe("now = 2026-11-24 14:38 UTC");
  });

  test("the number of rows that would pass is found for any bound", () => {
    expect(found.turningPoints).toEqual([
      { rule: "cap", at: "policies/p.yaml:20", rows: 2000n, now: 3725n },
      { rule: "max-share", at: "policies/p.yaml:11", rows: 1475n, now: 3725n },
    ]);
  });

  test("what if it were fewer rows", () => {
    const { whatIf } = explain(policies, HOLDS, { whatIfRows: 1400n });
    expect([whatIf?.rows, whatIf?.decision.kind]).toEqual([1400n, "needs-approval"]);
    expect(explain(policies, HOLDS, { whatIfRows: 0n }).whatIf?.decision.kind).toBe("deny");
  });

  test("rows are taken away in proportion, exactly so many", () => {
    const input = inputWith({
      tables: [
        table({ name: "a", rowsBefore: 100n, delete: 7n, update: 5n }),
        table({ name: "b", rowsBefore: 10n, insert: 11n }),
      ],
    });
    for (let n = 0n; n <= 23n; n++) {
      const { rows, tables } = withRows(input, n);
      expect(rows.total).toBe(n);
      expect(rows.total).toBe(tables.reduce((sum, t) => sum + t.insert + t.update + t.delete, 0n));
    }
    expect(withRows(input, 23n)).toEqual(input);
  });
});

describe("the tests of a policy", () => {
  test("a failing one reads like a diff", () => {
    const policies = policiesOf(`${RULES}tests:
  - name: a third of the holds
    plan: { tables: [{ name: holds, rows_before: 300, delete: 100 }] }
    expect: { decision: needs-approval, rules: [prod-write], people: 2 }
  - name: a tenth of the holds
    plan: { tables: [{ name: holds, rows_before: 300, delete: 30 }] }
    expect: { decision: needs-approval, rules: [prod-write], people: 1 }
`);
    const outcomes = policies.files.flatMap((f) => runPolicyTests(f));
    expect(outcomes.map((o) => [o.name, o.at, o.passed, o.diff])).toEqual([
      [
        "a third of the holds",
        "policies/p.yaml:22",
        false,
        [
          "- decision  needs-approval",
          "+ decision  deny",
          "- rules     prod-write",
          "+ rules     max-share, prod-write",
          "- people    2",
          "+ people    1",
          "  deny      max-share (policies/p.yaml:11): order_holds: deleted_share = 0.3333".replace(
            "order_holds",
            "holds",
          ),
          "  require   prod-write (policies/p.yaml:7): rows.total = 100",
        ],
      ],
      ["a tenth of the holds", "policies/p.yaml:25", true, []],
    ]);
  });

  test("a policy that is off is tested as if it were on, and assertions answer as the test says", () => {
    const policies = policiesOf(`enabled: false
rules:
  - { id: open, when: "true", then: allow, because: b }
assertions:
  - { id: recent, tables: [holds], sql: select 1, message: m }
tests:
  - name: held
    plan: { tables: [{ name: holds, rows_before: 300, delete: 3 }] }
    expect: { decision: allow }
  - name: broken
    plan: { assertions: { recent: 2 }, tables: [{ name: holds, rows_before: 300, delete: 3 }] }
    expect: { decision: deny, rules: [recent, open] }
`);
    expect(policies.files.flatMap((f) => runPolicyTests(f)).filter((o) => !o.passed)).toEqual([]);
  });
});

describe("lint", () => {
  const groups = { dba: ["ravi", "lee"], leads: [], night: ["lee"] };
  const now = new Date("2026-11-24T12:00:00Z");
  const kinds = (text: string): string[] =>
    lintPolicies(policiesOf(text), groups, now)
      .filter(
        (f) => f.kind !== "no-tests" && !f.what.endsWith("in staging") && !f.what.endsWith("in development"),
      )
      .map((f) => `${f.severity} ${f.kind} ${f.at} ${f.what}`);
  const rule = (id: string, when: string, then: string): string =>
    `  - { id: ${id}, when: ${when}, then: ${then}, because: b }\n`;
  const OPEN = rule("open", "rows.total > 0", "allow");

  test.each([
    ["nothing", `rules:\n${OPEN}`, []],
    [
      "a rule that never fires",
      `rules:\n${OPEN}${rule("a", '"1 > 2"', "deny")}`,
      ["warning never-fires policies/p.yaml:6:21 a never fires: its condition is false for every plan"],
    ],
    [
      "a rule that denies everything",
      `rules:\n${OPEN}${rule("a", '"true"', "deny")}`,
      [
        "warning always-fires policies/p.yaml:6:21 a denies every plan",
        "warning unreachable policies/p.yaml:5:5 open is never heard: a denies wherever it fires",
      ],
    ],
    [
      "a rule about another environment",
      `rules:\n${OPEN}${rule("a", '\'guarded_as == "staging" && act == "apply"\'', "deny")}`,
      ["warning never-fires policies/p.yaml:6:20 a never fires where this policy applies (production)"],
    ],
    [
      "a rule about words that there are not",
      `rules:\n${OPEN}${rule("a", "'caller == \"robot\"'", "deny")}`,
      ["warning never-fires policies/p.yaml:6:20 a never fires where this policy applies (production)"],
    ],
    [
      "a rule about unproven targets",
      `rules:\n${OPEN}${rule("a", "'environment == \"unproven\"'", "deny")}`,
      [],
    ],
    [
      "a rule about who applies",
      `rules:\n${OPEN}${rule("a", '\'caller != "person" && act == "apply"\'', "deny")}`,
      [],
    ],
    [
      "a rule that can never be evaluated",
      `rules:\n${OPEN}${rule("a", '"1 / 0 == 1"', "deny")}`,
      ["error always-fires policies/p.yaml:6:21 a can never be evaluated, so it denies every plan"],
    ],
    [
      "a rule said twice",
      `rules:\n${OPEN}${rule("a", "rows.total  > 0", "allow")}`,
      ["warning duplicate policies/p.yaml:6:5 a says the same as open"],
    ],
    [
      "an allow under a deny of the same condition",
      `rules:\n${OPEN}${rule("a", "rows.total > 0", "deny")}`,
      ["warning unreachable policies/p.yaml:5:5 open is never heard: a denies wherever it fires"],
    ],
    [
      "nothing allowed",
      `rules:\n${rule("a", "rows.total > 9", "deny")}`,
      ["warning nothing-allowed policies/p.yaml:2:7 no rule allows anything in production"],
    ],
    [
      "a group that is none",
      `rules:\n${OPEN}${rule("a", "rows.total > 9", "{ require: { people: 1, groups: [dbas] } }")}`,
      ["error unknown-group policies/p.yaml:6:5 a asks for dbas, which is no group"],
    ],
    [
      "a group by a name of every object",
      `rules:\n${OPEN}${rule("a", "rows.total > 9", "{ require: { people: 1, groups: [constructor] } }")}`,
      ["error unknown-group policies/p.yaml:6:5 a asks for constructor, which is no group"],
    ],
    [
      "a group with nobody",
      `rules:\n${OPEN}${rule("a", "rows.total > 9", "{ require: { people: 1, groups: [leads] } }")}`,
      ["error empty-group policies/p.yaml:6:5 a asks for leads, which has nobody"],
    ],
    [
      "more people than there are",
      `rules:\n${OPEN}${rule("a", "rows.total > 9", "{ require: { people: 3, groups: [dba, night] } }")}`,
      ["error too-few-people policies/p.yaml:6:5 a asks for 3 of dba or night, who are 2"],
    ],
    [
      "a freeze that is over",
      `rules:\n${OPEN}freeze:\n  - { id: a, recurring: once, from: 2025-12-20 18:00, to: 2026-01-03 08:00, zone: UTC, because: b }\n`,
      ["warning never-closes policies/p.yaml:7:5 a ended and never closes again"],
    ],
    [
      "a stop sign that is off",
      `stop_signs: { off: [{ name: no-where, because: nightly import }] }\nrules:\n${OPEN}`,
      ["warning stop-sign-off policies/p.yaml:4:21 the stop sign no-where is off: nightly import"],
    ],
    [
      "a policy that is off",
      `enabled: false\nrules:\n${OPEN}`,
      [
        "warning off policies/p.yaml:2:7 p is off and decides nothing",
        "warning nothing-allowed policies no rule allows anything in production",
      ],
    ],
  ])("%s", (_, text, words) => expect(kinds(text)).toEqual(words));

  test("environments of which no policy speaks, and policies without tests", () => {
    const found = lintPolicies(compilePolicies(parsePolicies([{ path: "p.yaml", text: HEAD }])), {}, now);
    expect(found.map((f) => f.kind)).toEqual([
      "no-tests",
      "nothing-allowed",
      "nothing-allowed",
      "nothing-allowed",
    ]);
  });
});

describe("numbers in words", () => {
  test.each([
    [0n, "0"],
    [999n, "999"],
    [1000n, "1,000"],
    [1234567n, "1,234,567"],
  ])("%s is %s", (n, words) => expect(count(n)).toBe(words));
  test.each([
    [0n, 5n, "0 %"],
    [5n, 5n, "100 %"],
    [1n, 3n, "33.33 %"],
    [1n, 4n, "25 %"],
    [68n, 1000n, "6.8 %"],
    [1n, 1_000_000n, "under 0.01 %"],
    [999_999n, 1_000_000n, "over 99.99 %"],
    [3n, 2n, "150 %"],
    [1n, 0n, "0 %"],
  ])("%s of %s is %s", (part, whole, words) => expect(percent(part, whole)).toBe(words));
});
