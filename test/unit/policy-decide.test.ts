/** The decision: its table with all complements, and every way in which something must not open the gate. */
import { describe, expect, test } from "@jest/globals";
import { assertionsFor, runAssertions } from "../../src/policy/assertions.js";
import { compilePolicies } from "../../src/policy/compile.js";
import { decide } from "../../src/policy/decide.js";
import type { Decision, PolicyInput } from "../../src/policy/decision.js";
import { parsePolicy } from "../../src/config/policies.js";
import { HEAD, inputWith, policiesOf, table } from "../support/policy.js";

const RULES = {
  allow: "then: allow",
  require: "then: { require: { people: 1 } }",
  deny: "then: deny",
  error: "then: allow", // with a condition that cannot be evaluated
  pass: "then: allow", // with a condition that does not hold
} as const;
type Effect = keyof typeof RULES;
const WHEN: Readonly<Record<Effect, string>> = {
  allow: '"true"',
  require: '"true"',
  deny: '"true"',
  error: "history.job_runs > 0",
  pass: '"false"',
};

const rule = (id: string, effect: Effect): string =>
  `  - id: ${id}\n    when: ${WHEN[effect]}\n    ${RULES[effect]}\n    because: b\n`;
const policyOf = (effects: readonly Effect[]): ReturnType<typeof policiesOf> =>
  policiesOf(effects.length === 0 ? "" : `rules:\n${effects.map((e, i) => rule(`r${i}`, e)).join("")}`);
const fired = (d: Decision): string[] =>
  d.rules.filter((r) => r.effect !== "pass").map((r) => `${r.effect} ${r.rule}`);
const WRITE = [table({ name: "orders", rowsBefore: 5000n, update: 340n })];
const decideOn = (text: string, input: Partial<PolicyInput> = {}): Decision =>
  decide(policiesOf(text), inputWith({ tables: WRITE, ...input }));

describe("the table of decisions", () => {
  /** In words: deny or error anywhere denies; else require; else allow; else deny. */
  function oracle(effects: readonly Effect[]): Decision["kind"] {
    if (effects.some((e) => e === "deny" || e === "error")) return "deny";
    if (effects.includes("require")) return "needs-approval";
    return effects.includes("allow") ? "allow" : "deny";
  }
  const all: Effect[] = ["allow", "require", "deny", "error", "pass"];
  const combinations: Effect[][] = [
    [],
    ...all.map((a) => [a]),
    ...all.flatMap((a) => all.map((b) => [a, b])),
    ...all.flatMap((a) => all.flatMap((b) => all.map((c) => [a, b, c]))),
  ];

  test.each(combinations.map((c) => [c.join(", ") || "no rule at all", c, oracle(c)] as const))(
    "%s: %j decides %s",
    (_, effects, kind) => {
      const decision = decide(policyOf(effects), inputWith({ tables: WRITE }));
      expect(decision.kind).toBe(kind);
      const ranks = decision.rules.map((r) =>
        ["deny error", "require", "allow", "pass"].findIndex((g) => g.includes(r.effect)),
      );
      expect(ranks).toEqual([...ranks].sort((a, b) => a - b));
    },
  );

  test("no policy at all denies and says so", () => {
    const decision = decide({ files: [] }, inputWith({ tables: WRITE }));
    expect(decision.kind).toBe("deny");
    expect(fired(decision)).toEqual(["deny no-rule"]);
    expect(decision.rules[0]).toMatchObject({
      because: "no rule allows this in production, and what no rule allows is denied",
      saw: 'kind = "job"; rows.insert = 0; rows.update = 340; rows.delete = 0; schema_changes = 0',
    });
  });
});

describe("which policies speak", () => {
  const three = compilePolicies(
    (["production", "staging", "development"] as const).map((environment) =>
      parsePolicy({
        path: `${environment}.yaml`,
        text: `format: holdpoint-policy/1\nname: ${environment}\nenvironments: [${environment}]\nrules:\n${rule(environment, "allow")}`,
      }),
    ),
  );

  test.each([
    ["production", "production", false, "production"],
    ["staging", "staging", false, "staging"],
    ["development", "development", false, "development"],
    ["unproven", "production", false, "production"],
    ["unproven", "development", false, "production"],
    ["staging", "staging", true, "production"],
    ["development", "development", true, "production"],
    ["production", "development", false, "production"],
    ["staging", "development", false, "staging"],
    ["development", "staging", false, "staging"],
    ["development", "production", false, "production"],
  ] as const)(
    "verdict %s, guarded as %s, contradicted %s: the rules of %s",
    (environment, guardedAs, contradicted, speaks) => {
      const decision = decide(three, inputWith({ environment, guardedAs, contradicted, tables: WRITE }));
      expect(fired(decision)).toEqual([`allow ${speaks}`]);
    },
  );

  test("a policy that is off says nothing", () => {
    expect(fired(decideOn(`enabled: false\nrules:\n${rule("a", "allow")}`))).toEqual(["deny no-rule"]);
  });
});

describe("what approvals are needed", () => {
  const slots = (...requires: string[]): unknown => {
    const rules = requires.map(
      (r, i) => `  - { id: r${i}, when: "true", then: { require: ${r} }, because: b }\n`,
    );
    const { requirement } = decideOn(`rules:\n${rules.join("")}`);
    return requirement.slots.map((s) => [s.people, s.groups.join("+"), s.rule]);
  };

  test.each([
    ["one rule", ["{ people: 1 }"], [[1, "", "r0"]]],
    ["the same asked twice is asked once", ["{ people: 1 }", "{ people: 1 }"], [[1, "", "r0"]]],
    [
      "more people of the same groups win",
      ["{ people: 1 }", "{ people: 2 }", "{ people: 1 }"],
      [[2, "", "r1"]],
    ],
    [
      "groups in another order are the same",
      ["{ people: 1, groups: [dba, leads] }", "{ people: 1, groups: [leads, dba] }"],
      [[1, "dba+leads", "r0"]],
    ],
    [
      "other groups stand beside",
      ["{ people: 1, groups: [dba] }", "{ people: 1, groups: [leads] }"],
      [
        [1, "dba", "r0"],
        [1, "leads", "r1"],
      ],
    ],
    [
      "anyone stands beside a group",
      ["{ people: 1 }", "{ people: 1, groups: [dba] }"],
      [
        [1, "", "r0"],
        [1, "dba", "r1"],
      ],
    ],
    [
      "one rule can ask for several",
      ["{ approvals: [{ people: 1, groups: [dba] }, { people: 2 }] }"],
      [
        [1, "dba", "r0"],
        [2, "", "r0"],
      ],
    ],
  ])("%s", (_, requires, expected) => expect(slots(...requires)).toEqual(expected));

  test("a PIN or finger asked by any rule is asked of every approval, and includes the touch", () => {
    const text = [
      '  - { id: a, when: "true", then: { require: { people: 1 } }, because: b }',
      '  - { id: b, when: "true", then: { require: { people: 1, verified: true } }, because: b }',
    ].join("\n");
    expect(decideOn(`rules:\n${text}\n`).requirement).toMatchObject({ touch: true, verified: true });
  });

  test("touch, review in the tool and the approver's reason are asked by any rule", () => {
    const text = [
      '  - { id: a, when: "true", then: { require: { people: 1, touch: true } }, because: b }',
      '  - { id: b, when: "true", then: { require: { people: 1, reviewed_in_tool: true } }, because: b }',
      '  - { id: c, when: "false", then: { require: { people: 9, approver_reason: true } }, because: b }',
    ].join("\n");
    expect(decideOn(`rules:\n${text}\n`).requirement).toEqual({
      slots: [{ people: 1, groups: [], rule: "a" }],
      touch: true,
      reviewedInTool: true,
      reason: false,
    });
  });
});

describe("what is asked of the plan", () => {
  const asked = (require: string): string =>
    `rules:\n${rule("open", "allow")}  - { id: a, when: "true", then: { require: ${require} }, because: b }\n`;

  test.each<readonly [string, Partial<PolicyInput>, Partial<PolicyInput>]>([
    ["{ reason: true }", { reason: "because" }, { reason: "  " }],
    ["{ ticket: OPS-* }", { ticket: "OPS-1" }, { ticket: "" }],
    ['{ ticket: "*" }', { ticket: "x" }, { ticket: "" }],
    ['{ ticket: { re2: "^OPS-[0-9]+$" } }', { ticket: "OPS-12" }, { ticket: "OPS-12x" }],
    ["{ max_age: 24h }", { planAgeSeconds: 86_400n }, { planAgeSeconds: 86_401n }],
    ["{ max_age: 24h }", { act: "plan" }, { act: "apply" }],
    ["{ waves: true }", { waves: true }, { waves: false }],
    ["{ checks: true }", { checks: 1n }, { checks: 0n }],
    ["{ waves: true }", { waves: true }, {}],
    ["{ snapshot: tables }", { snapshot: "tables" }, { snapshot: "rows" }],
    ["{ snapshot: tables }", { snapshot: "database" }, {}],
    ["{ snapshot: database }", { snapshot: "database" }, { snapshot: "tables" }],
    ["{ checks: true }", { checks: 2n }, {}],
  ])("%s: met by %j, not by %j", (require, met, missed) => {
    expect(decideOn(asked(require), met).kind).toBe("allow");
    expect(decideOn(asked(require), missed).kind).toBe("deny");
  });

  test.each(["expect", "scope"] as const)("%s: declared by the job; asked of jobs alone", (what) => {
    const { job } = inputWith({});
    const declared = { ...job, declaresExpect: what === "expect", declaresScope: what === "scope" };
    expect(decideOn(asked(`{ ${what}: true }`), { job: declared }).kind).toBe("allow");
    expect(decideOn(asked(`{ ${what}: true }`), { job }).kind).toBe("deny");
    expect(decideOn(asked(`{ ${what}: true }`), { job, kind: "undo" }).kind).toBe("allow");
  });

  test("what is met allows nothing by itself", () => {
    const text = 'rules:\n  - { id: a, when: "true", then: { require: { reason: true } }, because: b }\n';
    expect(fired(decideOn(text, { reason: "x" }))).toEqual(["deny no-rule"]);
  });

  test("what is missing is said, with what would flip it", () => {
    const [first] = decideOn(asked("{ people: 1, reason: true, ticket: OPS-* }"), { ticket: "X-1" }).rules;
    expect(first).toMatchObject({
      effect: "deny",
      saw: 'the plan gives no reason; the ticket is "X-1"',
      flips: "a plan with --reason and a plan with a --ticket that matches OPS-*",
    });
  });
});

describe("caps and floors", () => {
  const cap = (rest: string): string =>
    `rules:\n${rule("open", "allow")}caps:\n  - { id: a, because: b, ${rest} }\n`;
  const rows = (facts: Omit<Parameters<typeof table>[0], "name">): Partial<PolicyInput> => ({
    tables: [table({ name: "orders", ...facts })],
  });

  test.each<readonly [string, Partial<PolicyInput>, Partial<PolicyInput>, string]>([
    [
      "on: plan, rows: 340",
      rows({ rowsBefore: 5000n, update: 340n }),
      rows({ rowsBefore: 5000n, update: 341n }),
      "340 rows or fewer (now 341)",
    ],
    [
      "on: plan, op: delete, rows: 0",
      rows({ rowsBefore: 50n, update: 9n }),
      rows({ rowsBefore: 50n, delete: 1n }),
      "0 rows or fewer (now 1)",
    ],
    [
      'on: ["ord*"], op: insert, rows: 10',
      rows({ rowsBefore: 0n, insert: 10n }),
      rows({ rowsBefore: 0n, insert: 11n }),
      "orders: 10 rows or fewer (now 11)",
    ],
    [
      'on: ["*"], op: update, share: 10%',
      rows({ rowsBefore: 1000n, update: 100n }),
      rows({ rowsBefore: 1000n, update: 101n }),
      "orders: 100 rows or fewer (now 101)",
    ],
    [
      'on: ["*"], share: 12.5%',
      rows({ rowsBefore: 1000n, update: 100n, delete: 25n }),
      rows({ rowsBefore: 1000n, update: 100n, delete: 26n }),
      "orders: 125 rows or fewer (now 126)",
    ],
    [
      'on: ["*"], remaining: 100',
      rows({ rowsBefore: 110n, delete: 10n }),
      rows({ rowsBefore: 110n, delete: 11n }),
      "orders: 10 rows or fewer (now 11)",
    ],
    [
      "on: plan, rows_per_day: 1000",
      { history: { jobRuns: 0n, requesterRuns: 0n, rowsLastDay: 660n } },
      { history: { jobRuns: 0n, requesterRuns: 0n, rowsLastDay: 661n } },
      "339 rows or fewer (now 340)",
    ],
  ])("%s", (rest, inside, outside, flips) => {
    expect(decideOn(cap(rest), inside).kind).toBe("allow");
    const decision = decideOn(cap(rest), outside);
    expect([decision.kind, decision.rules[0]?.rule, decision.rules[0]?.flips]).toEqual(["deny", "a", flips]);
  });

  test("a table that no glob names is not counted", () => {
    expect(decideOn(cap('on: ["audit_*"], rows: 1')).kind).toBe("allow");
  });
  test("a floor holds only tables that lose rows", () => {
    expect(decideOn(cap('on: ["*"], remaining: 100'), rows({ rowsBefore: 5n, insert: 1n })).kind).toBe(
      "allow",
    );
  });
  test("a share of nothing is no share", () => {
    expect(decideOn(cap('on: ["*"], share: 0%'), rows({ rowsBefore: 0n, insert: 9n })).kind).toBe("allow");
  });
  test("a cap can ask for people instead", () => {
    const decision = decideOn(cap("on: plan, rows: 1, then: { require: { people: 2, groups: [dba] } }"));
    expect([decision.kind, decision.requirement.slots]).toEqual([
      "needs-approval",
      [{ people: 2, groups: ["dba"], rule: "a" }],
    ]);
  });
  test("rows per day without a ledger cannot be counted, and deny", () => {
    expect(fired(decideOn(cap("on: plan, rows_per_day: 1000000")))).toEqual(["error a", "allow open"]);
  });
});

describe("stop signs", () => {
  const open = (signs: string): string => `${signs}rules:\n${rule("open", "allow")}`;
  const emptied = { tables: [table({ name: "orders", rowsBefore: 9n, delete: 9n })] };

  test("are on for production and for what is guarded as production", () => {
    for (const environment of ["production", "unproven"] as const)
      expect(fired(decideOn(open(""), { ...emptied, environment }))).toEqual([
        "deny table-emptied",
        "deny over-half",
        "allow open",
      ]);
  });
  test("are off elsewhere, until switched on", () => {
    const text = (signs: string): string => open(signs);
    const staging = (signs: string): Decision =>
      decide(
        policiesOf(text(signs), HEAD.replace("production", "staging")),
        inputWith({ ...emptied, environment: "staging" }),
      );
    expect(fired(staging(""))).toEqual(["allow open"]);
    expect(fired(staging("stop_signs: { on: [table-emptied] }\n"))).toEqual([
      "deny table-emptied",
      "allow open",
    ]);
  });
  test("are switched off by name, one by one", () => {
    const off = "stop_signs:\n  off: [{ name: table-emptied, because: rebuilt every night }]\n";
    expect(fired(decideOn(open(off), emptied))).toEqual(["deny over-half", "allow open"]);
  });
  test("a policy that does not apply here switches nothing off", () => {
    const off =
      "stop_signs:\n  off: [{ name: table-emptied, because: b }, { name: over-half, because: b }]\n";
    const elsewhere = parsePolicy({
      path: "s.yaml",
      text: `${HEAD.replace("name: p", "name: s").replace("production", "staging")}${off}`,
    });
    const disabled = parsePolicy({
      path: "d.yaml",
      text: `${HEAD.replace("name: p", "name: d")}enabled: false\n${off}`,
    });
    const here = parsePolicy({ path: "p.yaml", text: HEAD + open("") });
    const decision = decide(compilePolicies([here, elsewhere, disabled]), inputWith(emptied));
    expect(fired(decision)).toEqual(["deny table-emptied", "deny over-half", "allow open"]);
  });
  test("a rescue is held like a job", () => {
    expect(decideOn(open(""), { ...emptied, kind: "rescue" }).kind).toBe("deny");
  });
  test("a row that replaces the last one leaves the table filled", () => {
    const tables = [table({ name: "orders", rowsBefore: 1n, delete: 1n, insert: 1n })];
    expect(fired(decideOn(open(""), { tables }))).toEqual(["deny over-half", "allow open"]);
  });
  test.each([
    [9n, 9n, "allow"],
    [10n, 5n, "allow"],
    [10n, 6n, "needs-approval"],
  ])("of %s rows, %s updated: %s", (rowsBefore, update, kind) => {
    expect(decideOn(open(""), { tables: [table({ name: "t", rowsBefore, update })] }).kind).toBe(kind);
  });
  test("no WHERE matters only where rows are updated or deleted, and to jobs", () => {
    const job = { ...inputWith({}).job, selective: false };
    const inserts = { tables: [table({ name: "t", rowsBefore: 9n, insert: 9n })] };
    expect(decideOn(open(""), { job }).kind).toBe("needs-approval");
    expect(decideOn(open(""), { job, ...inserts }).kind).toBe("allow");
    expect(decideOn(open(""), { job, kind: "undo" }).kind).toBe("allow");
  });
});

describe("freeze windows", () => {
  const freeze = (recurring: string, from: string, to: string, zone: string, rest = ""): string =>
    `rules:\n${rule("open", "allow")}freeze:\n  - { id: a, recurring: ${recurring}, from: ${from}, to: ${to}, zone: ${zone}, because: b${rest} }\n`;

  test.each([
    [
      "once",
      "2026-12-20 18:00",
      "2027-01-03 08:00",
      "Europe/Paris",
      "2026-12-20T17:00:00Z",
      "2027-01-03T07:00:00Z",
    ],
    ["yearly", "12-20 18:00", "01-03 08:00", "Europe/Paris", "2026-12-20T17:00:00Z", "2027-01-03T07:00:00Z"],
    ["yearly", "12-20 18:00", "01-03 08:00", "UTC", "2031-12-20T18:00:00Z", "2032-01-03T08:00:00Z"],
    [
      "yearly",
      "07-01 00:00",
      "08-01 00:00",
      "America/New_York",
      "2026-07-01T04:00:00Z",
      "2026-08-01T04:00:00Z",
    ],
    ["weekly", "fri 16:00", "mon 08:00", "Europe/Paris", "2026-11-20T15:00:00Z", "2026-11-23T07:00:00Z"],
    // the weekend on which clocks go forward, and the one on which they go back
    ["weekly", "fri 16:00", "mon 08:00", "Europe/Paris", "2026-03-27T15:00:00Z", "2026-03-30T06:00:00Z"],
    ["weekly", "fri 16:00", "mon 08:00", "Europe/Paris", "2026-10-23T14:00:00Z", "2026-10-26T07:00:00Z"],
    ["weekly", "tue 09:00", "tue 17:00", "Asia/Tokyo", "2026-11-24T00:00:00Z", "2026-11-24T08:00:00Z"],
    ["daily", "22:00", "06:00", "Europe/Paris", "2026-11-24T21:00:00Z", "2026-11-25T05:00:00Z"],
    ["daily", "09:00", "17:00", "UTC", "2026-11-24T09:00:00Z", "2026-11-24T17:00:00Z"],
    // 02:30 does not exist on the first of these days in Paris: the window begins right after the gap
    ["daily", "02:30", "05:00", "Europe/Paris", "2026-03-29T01:30:00Z", "2026-03-29T03:00:00Z"],
  ])("%s %s to %s in %s closes at %s and opens at %s", (recurring, from, to, zone, closes, opens) => {
    const at = (instant: string, ms: number): Decision =>
      decideOn(freeze(recurring, from, to, zone), { now: new Date(new Date(instant).getTime() + ms) });
    expect([at(closes, -1), at(closes, 0), at(opens, -1), at(opens, 0)].map((d) => d.kind)).toEqual([
      "allow",
      "deny",
      "deny",
      "allow",
    ]);
  });

  test("a denial says where the clock stands and when the window opens", () => {
    const [first] = decideOn(freeze("yearly", "12-20 18:00", "01-03 08:00", "Europe/Paris"), {
      now: new Date("2026-12-24T11:05:00Z"),
    }).rules;
    expect(first).toMatchObject({
      effect: "deny",
      saw: "Thu 24 Dec 2026 12:05 Europe/Paris is inside 12-20 18:00 to 01-03 08:00",
      flips: "from Sun 3 Jan 2027 08:00 Europe/Paris on",
    });
  });
  test("its own approvers can let a plan through", () => {
    const text = freeze("daily", "00:00", "23:59", "UTC", ", approvals: [{ people: 2, groups: [leads] }]");
    expect(decideOn(text).requirement.slots).toEqual([{ people: 2, groups: ["leads"], rule: "a" }]);
  });
  test("a plan that changes nothing passes, one that changes the schema alone does not", () => {
    const text = freeze("daily", "00:00", "23:59", "UTC");
    expect(decideOn(text, { tables: [] }).kind).toBe("allow");
    expect(decideOn(text, { tables: [], schemaChanges: 1n }).kind).toBe("deny");
  });
});

describe("agents", () => {
  const text = `agents: plan-only\nrules:\n${rule("open", "allow")}`;
  test.each<readonly [Partial<PolicyInput>, Decision["kind"]]>([
    [{ act: "plan", caller: "agent" }, "allow"],
    [{ act: "apply", caller: "agent" }, "deny"],
    [{ act: "apply", caller: "person" }, "allow"],
    [{ act: "apply", caller: "ci" }, "allow"],
    [{ requester: { ...inputWith({}).requester, kind: "agent" } }, "deny"],
    [{ requester: { ...inputWith({}).requester, kind: "agent" }, caller: "person" }, "allow"],
    [{}, "allow"],
  ])("%j: %s", (input, kind) => expect(decideOn(text, input).kind).toBe(kind));
});

describe("assertions in SQL", () => {
  const policies = policiesOf(
    `rules:\n${rule("open", "allow")}assertions:\n` +
      "  - { id: recent, tables: [orders], sql: select 1 from orders, message: no recent order is deleted }\n" +
      "  - { id: both, tables: [orders, items], sql: select 2, message: m }\n",
  );
  const input = inputWith({ tables: WRITE });

  test("are asked when the plan changes all their tables, where the policy applies", () => {
    expect(assertionsFor(policies, input).map((a) => a.id)).toEqual(["recent"]);
    expect(
      assertionsFor(
        policies,
        inputWith({ tables: [...WRITE, table({ name: "items", rowsBefore: 9n })] }),
      ).map((a) => a.id),
    ).toEqual(["recent"]);
    expect(assertionsFor(policies, inputWith({ tables: WRITE, environment: "staging" }))).toEqual([]);
    expect(
      assertionsFor(policies, inputWith({ tables: WRITE, environment: "unproven" })).map((a) => a.id),
    ).toEqual(["recent"]);
  });

  test.each([
    ["no rows", () => ({ rows: 0, sample: "" }), "allow", ""],
    ["rows", () => ({ rows: 3, sample: "id 118" }), "deny", "3 rows, first id 118"],
    ["a promise of rows", () => Promise.resolve({ rows: 1, sample: "" }), "deny", "1 row"],
    [
      "an error",
      () => {
        throw new Error("timed out after 2 s");
      },
      "deny",
      "timed out after 2 s",
    ],
    ["no count", () => ({ rows: Number.NaN, sample: "" }), "deny", "its query gave no count"],
    ["a negative count", () => ({ rows: -1, sample: "" }), "deny", "its query gave no count"],
  ])("%s", async (_, run, kind, saw) => {
    const results = await runAssertions(assertionsFor(policies, input), run);
    const decision = decide(policies, input, results);
    expect(decision.kind).toBe(kind);
    if (kind === "deny") expect(decision.rules[0]).toMatchObject({ rule: "recent", saw });
  });

  test("one that was not run denies", () => {
    expect(decide(policies, input).rules[0]).toMatchObject({
      effect: "error",
      rule: "recent",
      saw: "its query was not run",
    });
  });
});

describe("facts that cannot be", () => {
  const open = policyOf(["allow"]);
  const bad = (t: Partial<(typeof WRITE)[number]>): Partial<PolicyInput> => ({
    tables: WRITE.map((w) => ({ ...w, ...t })),
  });
  test.each<readonly [string, Partial<PolicyInput>]>([
    ["no time", { now: new Date(Number.NaN) }],
    ["a negative count", bad({ delete: -1n })],
    ["more deleted than there was", bad({ rowsAfter: -5n })],
    ["a share that is no number", bad({ deletedShare: Number.NaN })],
    ["a share without end", bad({ updatedShare: Number.POSITIVE_INFINITY })],
    ["a count that is no bigint", bad({ rowsBefore: 5 as unknown as bigint })],
    ["a schema count that is none", { schemaChanges: -1n }],
    ["a count of sequences that is none", { sequences: -1n }],
    ["a table of unknown size", bad({ rowsBefore: -1n })],
  ])("%s denies", (_, input) => {
    const decision = decide(open, inputWith({ tables: WRITE, ...input }));
    expect([decision.kind, decision.rules[0]?.rule, decision.rules[0]?.effect]).toEqual([
      "deny",
      "facts",
      "error",
    ]);
  });
});

test("a table of unknown size is named, not counted", () => {
  const unknown = table({ name: "holds", rowsBefore: -1n, delete: 3n });
  expect(decide(policyOf(["allow"]), inputWith({ tables: [unknown] })).rules[0]?.saw).toBe(
    "how many rows holds has is not known",
  );
});

test("a sequence that moves without a row is a change", () => {
  const text =
    "freeze:\n  - { id: f, recurring: daily, from: '00:00', to: '23:59', zone: UTC, because: b }\n";
  const inside = { tables: [], now: new Date("2026-11-24T12:00:00Z") };
  expect(decideOn(text, { ...inside, sequences: 1n }).rules[0]?.rule).toBe("f");
  expect(decideOn(text, inside).rules[0]?.rule).toBe("no-rule");
});

describe("large", () => {
  // How long it takes is measured by bench/policy.js.
  test("500 rules over 200 tables are all asked", () => {
    const rules = Array.from(
      { length: 500 },
      (_, i) =>
        `  - { id: r${i}, when: 'tables.exists(t, t.deleted_share > 0.${100 + i} && glob(t.name, "t${i}*")) || rows.total > ${i}000000', then: deny, because: b }\n`,
    );
    const policies = policiesOf(`rules:\n${rule("open", "allow")}${rules.slice(1).join("")}`);
    const tables = Array.from({ length: 200 }, (_, i) =>
      table({ name: `orders_${i}`, rowsBefore: 100_000n, delete: 4999n }),
    );
    const decision = decide(policies, inputWith({ tables }));
    expect([decision.kind, decision.rules.length]).toEqual(["allow", 507]);
  });
});
