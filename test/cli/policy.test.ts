/** `policy explain`, `policy test`, `policy lint`, `schema` and `doctor` through the real binary, and what assertions and history do on the road. */
import { rmSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { misfits } from "../support/json-schema.js";
import { type Document, makeProject, type TestProject } from "../support/project.js";
import { shifted } from "../support/shifted-clock.js";

const OWN = `format: holdpoint-policy/1
name: own
environments: [production]
agents: plan-only
rules:
  - id: fresh
    when: rows.update == 7
    then: { require: { max_age: 10m } }
    because: a change of seven rows is made from a fresh plan
caps:
  - id: rows-a-day
    on: plan
    rows_per_day: 120
    because: larger changes are spread over days
assertions:
  - id: note-emptied
    tables: [orders]
    sql: select before_id, before_note from orders where op = 'update' and before_note <> '' and after_note is null
    message: a note is corrected, never emptied
  - id: too-slow
    tables: [customers]
    sql: with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n
    message: never answered
  - id: mistyped
    tables: [customers, orders]
    sql: select before_nmae from customers
    message: never asked right
`;

/** Shifts the clock of a process that is started with it. */
const CLOCK = `
const Real = Date;
globalThis.Date = class extends Real {
  constructor(...args) { if (args.length === 0) super(Real.now() + 3_600_000); else super(...args); }
  static now() { return Real.now() + 3_600_000; }
};
`;

let project: TestProject;

beforeAll(() => {
  project = makeProject({ pin: false, people: ["dana", "ravi", "mona"] });
  project.write("policies/own.yaml", OWN);
  project.raw("UPDATE orders SET note = 'gift' WHERE id IN (11, 12)");
  const pinned = project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
});

afterAll(() => project.close());

const planned = (sql: string, more: readonly string[] = []): Document => {
  project.write("jobs/job.sql", sql);
  return project.json(["plan", "jobs/job.sql", "--on", "shop-prod", "--key", "keys/dana", ...more]);
};

const schemaOf = (name: string): unknown => JSON.parse(project.run(["schema", name]).stdout);

interface Said {
  readonly rule: string;
  readonly effect: string;
  readonly saw: string;
}

const rulesOf = (d: Document, effect: string): readonly string[] =>
  (d.result["rules"] as unknown as readonly Said[]).filter((r) => r.effect === effect).map((r) => r.rule);

describe("an assertion in SQL over the plan's own rows", () => {
  let denied: Document;

  beforeAll(() => {
    denied = planned("UPDATE orders SET note = NULL WHERE id < 20;");
  });

  test("denies at plan, with how many rows and the first", () => {
    expect([denied.exit.code, denied.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
    expect(denied.error?.why).toContain('2 rows, first before_id 11, before_note "gift"');
  });

  test("denies at show and at approve", () => {
    const plan = String(denied.result["plan"]);
    expect(rulesOf(project.json(["show", plan]), "deny")).toEqual(["note-emptied"]);
    const approve = project.json(["approve", plan, "--prepare", "x.txt", "--as", "ravi"]);
    expect([approve.exit.code, approve.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
  });

  test("denies at apply", () => {
    const apply = project.json(["apply", String(denied.result["plan"]), "--confirm", "shop-prod"]);
    expect([apply.exit.code, apply.error?.code, apply.target_changed]).toEqual([
      30,
      "ERR_POLICY_DENIED",
      "no",
    ]);
  });

  test("stands aside where it selects nothing", () => {
    const made = planned("UPDATE orders SET note = 'x' WHERE id < 20;");
    expect(rulesOf(made, "pass")).toContain("note-emptied");
    expect(made.result["decision"]).toBe("needs-approval");
  });

  test("one that cannot be answered denies, and says what is wrong with it", () => {
    const made = planned(
      "UPDATE orders SET note = 'q' WHERE id = 3; UPDATE customers SET name = 'q' WHERE id = 2;",
    );
    expect(rulesOf(made, "error")).toContain("mistyped");
    expect(made.error?.why).toContain("no such column: before_nmae");
  });

  test("one that does not come to an end is ended, and denies", () => {
    const made = planned("UPDATE customers SET name = 'x' WHERE id = 1;");
    expect(rulesOf(made, "error")).toEqual(["too-slow"]);
    expect(made.exit.code).toBe(30);
  });
});

describe("who asks, and when", () => {
  test("an agent may plan, and may not apply what a person may", () => {
    const plan = project.plan("UPDATE orders SET note = 'z' WHERE id = 1;");
    project.approve(plan);
    const byAgent = project.json(["apply", plan, "--confirm", "shop-prod"], { env: { AI_AGENT: "1" } });
    expect([byAgent.exit.code, byAgent.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
    expect(byAgent.error?.why).toContain("agents may plan and may not apply");
    const made = project.json(["plan", "jobs/hello.sql", "--on", "shop-prod"], { env: { AI_AGENT: "1" } });
    expect(made.exit.code).toBe(0);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).exit.code).toBe(0);
  });

  test("a plan that grew too old is denied, and says how old it is", () => {
    project.write("clock.mjs", CLOCK);
    const plan = project.plan("UPDATE orders SET note = 'z' WHERE id BETWEEN 2 AND 8;");
    project.approve(plan);
    const late = project.json(["apply", plan, "--confirm", "shop-prod"], {
      env: { NODE_OPTIONS: "--import=./clock.mjs" },
    });
    expect([late.exit.code, late.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
    expect(late.error?.why).toMatch(/fresh .*the plan is 1h/);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).exit.code).toBe(0);
  });
});

describe("policy explain", () => {
  let plan: string;
  let explained: Document;

  beforeAll(() => {
    plan = String(planned("DELETE FROM orders WHERE id <= 210;").result["plan"]);
    explained = project.json(["policy", "explain", plan]);
  });

  test("says what fired, on what, and up to how many rows it would not", () => {
    expect(explained.exit.code).toBe(0);
    expect(explained.target_changed).toBe("no");
    expect(rulesOf(explained, "deny")).toEqual(["over-half", "rows-a-day", "quarter-deleted"]);
    expect(explained.result["turning_points"]).toMatchObject([
      { rule: "over-half", rows: 200, now: 210 },
      { rule: "rows-a-day", rows: 112, now: 210 },
      { rule: "quarter-deleted", rows: 100, now: 210 },
    ]);
    expect(explained.result["read"]).toBe("target");
  });

  test("its document is as published", () => {
    expect(misfits(schemaOf("policy-explain"), explained)).toEqual([]);
    expect(misfits(schemaOf("policy-explain"), { ...explained, ok: "yes" })).toEqual(["$.ok is no boolean"]);
  });

  test("--what-if decides with other numbers, --as for another person", () => {
    const asked = project.json(["policy", "explain", plan, "--what-if", "rows=100", "--as", "mona"]);
    expect(asked.result["what_if"]).toMatchObject({ rows: 100, decision: "needs-approval" });
    expect(asked.result["requester"]).toBe("mona");
  });

  test.each([
    ["--as nobody here", ["--as", "monna"], "did you mean mona?"],
    ["--what-if without rows", ["--what-if", "everything"], "it takes rows=N"],
    ["--what-if with half a row", ["--what-if", "rows=1.5"], "it takes rows=N"],
  ])("refuses %s", (_name, flags, why) => {
    const asked = project.json(["policy", "explain", plan, ...flags]);
    expect([asked.exit.code, asked.error?.code]).toEqual([2, "ERR_USAGE"]);
    expect(asked.error?.why).toContain(why);
  });

  test("the screen lists what passes only when asked", () => {
    const short = project.run(["policy", "explain", plan, "--width", "100"]).stdout;
    expect(short).toContain("--all lists them by name");
    expect(short).toContain("DENIED by 3 of ");
    expect(short).toContain("or: the whole plan at 100 rows or fewer, now 210");
    const all = project.run(["policy", "explain", plan, "--all"]).stdout;
    expect(all).toContain("column-levelled");
    expect(all).not.toContain("--all lists");
  });
});

describe("what the ledger remembers counts", () => {
  test("rows of the last day, over plans, and of whoever asks", () => {
    const first = project.plan("UPDATE orders SET total = total + 1 WHERE id <= 70;");
    project.approve(first);
    expect(project.json(["apply", first, "--confirm", "shop-prod"]).exit.code).toBe(0);
    const second = planned("UPDATE orders SET total = total + 1 WHERE id <= 70;");
    expect(rulesOf(second, "deny")).toEqual(["rows-a-day"]);
    expect(second.error?.why).toMatch(/14\d rows in 24 hours, 7\d of them before this plan/);
    const asMona = project.json(["policy", "explain", String(second.result["plan"]), "--as", "mona"]);
    expect(rulesOf(asMona, "deny")).toEqual([]);
  });
});

test.each(["policy", "env"])("%s alone is half a command", (word) => {
  const asked = project.json([word]);
  expect([asked.exit.code, asked.error?.what]).toEqual([
    2,
    "this command needs another word, which its help lists",
  ]);
});

describe("policy test", () => {
  test("runs every policy, and one file by its path", () => {
    const all = project.json(["policy", "test"]);
    expect([all.exit.code, all.result["failed"]]).toEqual([0, 0]);
    expect(misfits(schemaOf("policy-test"), all)).toEqual([]);
    const one = project.run(["policy", "test", "policies/production.yaml"]);
    expect(one.status).toBe(0);
    expect(one.stdout).toMatch(/policies\/production\.yaml +\d+ tests passed/);
  });

  test("prints a failing one like a diff and ends with 2", () => {
    const wrong = project
      .read("policies/staging.yaml")
      .replace("expect: { decision: allow, rules: [staging-is-open] }", "expect: { decision: deny }");
    project.write("wrong.yaml", wrong);
    const ran = project.run(["policy", "test", "wrong.yaml"]);
    expect(ran.status).toBe(2);
    expect(ran.stdout).toContain("- decision  deny");
    expect(ran.stdout).toContain("+ decision  allow");
    expect(ran.stderr).toContain("ERR_POLICY_TESTS");
  });

  test.each([
    ["a file that is not there", "none.yaml"],
    ["a blank name", " "],
  ])("refuses %s", (_name, file) => {
    expect(project.json(["policy", "test", file]).exit.code).toBe(2);
  });
});

const HEAD_OF_OTHER = "format: holdpoint-policy/1\nname: other\nenvironments: [staging]\n";

describe("policy lint", () => {
  test("warns, and ends with 2 only for errors", () => {
    const quiet = project.json(["policy", "lint"]);
    expect([quiet.exit.code, quiet.result["errors"]]).toEqual([0, 0]);
    expect(misfits(schemaOf("policy-lint"), quiet)).toEqual([]);
    const own = project.read("policies/own.yaml");
    const asks =
      "rules:\n  - id: dba\n    when: rows.total > 5\n    then: { require: { people: 1, groups: [dbas] } }\n    because: dbas look\n";
    project.write("policies/own.yaml", own.replace("rules:\n", asks));
    try {
      const found = project.json(["policy", "lint"]);
      expect([found.exit.code, found.error?.code]).toEqual([2, "ERR_POLICY_LINT"]);
      expect(found.error?.why).toContain("dba asks for dbas, which is no group");
    } finally {
      project.write("policies/own.yaml", own);
    }
  });

  test("prepares assertions; with a target also against its columns", () => {
    const asks = (column: string): string =>
      `${HEAD_OF_OTHER}assertions:\n  - id: q\n    tables: [orders]\n    sql: select ${column} from orders\n    message: m\n`;
    const lint = (column: string, more: readonly string[] = []): readonly unknown[] => {
      project.write("policies/other.yaml", asks(column));
      const found = project.json(["policy", "lint", ...more]);
      return [found.exit.code, found.error?.why?.replace(/ \(there are.*/, "") ?? null];
    };
    const on = ["--on", "shop-prod"];
    try {
      expect(lint("status")).toEqual([2, "the first is q cannot be asked: no such column: status"]);
      expect(lint("before_state")).toEqual([0, null]);
      expect(lint("before_state", on)).toEqual([
        2,
        "the first is q cannot be asked: no such column: before_state",
      ]);
      // Then the next one is found: the policy of this file has an assertion that no plan could answer.
      expect(lint("before_status", on)).toEqual([
        2,
        "the first is mistyped cannot be asked: no such column: before_nmae",
      ]);
    } finally {
      rmSync(project.path("policies/other.yaml"));
    }
  });
});

describe("schema", () => {
  test.each(["policy", "config", "plan", "apply", "env-check", "doctor"])("%s is a JSON Schema", (name) => {
    expect(schemaOf(name)).toMatchObject({
      $schema: "https://json-schema.org/draft/2020-12/schema",
      type: "object",
    });
  });

  test("documents are as published", () => {
    const check = project.json(["env", "check", "shop-prod"]);
    expect(misfits(schemaOf("env-check"), check)).toEqual([]);
    expect(misfits(schemaOf("plan"), planned("UPDATE orders SET note = 'y' WHERE id = 1;"))).toEqual([]);
    expect(misfits(schemaOf("doctor"), project.json(["doctor"]))).toEqual([]);
    expect(misfits(schemaOf("env-list"), project.json(["env", "list"]))).toEqual([]);
    expect(misfits(schemaOf("trust-show"), project.json(["trust", "show"]))).toEqual([]);
    project.write("policies/other.yaml", HEAD_OF_OTHER);
    try {
      const proposed = project.json(["trust", "propose", "--on", "shop-prod", "--out", "change.txt"]);
      expect([proposed.error, misfits(schemaOf("trust-propose"), proposed)]).toEqual([null, []]);
    } finally {
      rmSync(project.path("policies/other.yaml"));
    }
    expect(misfits(schemaOf("log-verify"), project.json(["log", "verify"]))).toEqual([]);
    expect(misfits(schemaOf("status"), project.json(["status"]))).toEqual([]);
  });

  test("an unknown name is refused, with the nearest", () => {
    const asked = project.json(["schema", "polcy"]);
    expect([asked.exit.code, asked.error?.why]).toEqual([2, "did you mean policy?"]);
  });
});

describe("doctor", () => {
  const levels = (d: Document): readonly string[] =>
    (d.result["findings"] as unknown as readonly { readonly check: string; readonly level: string }[]).map(
      (f) => `${f.level} ${f.check}`,
    );

  test("a sound project has nothing to mend, and says what it cannot stop", () => {
    const found = project.json(["doctor"]);
    expect(found.exit.code).toBe(0);
    expect(found.target_changed).toBe("no");
    expect(levels(found)).toEqual(
      expect.arrayContaining([
        "ok config",
        "ok people",
        "ok policies",
        "ok ledger",
        "ok target",
        "look way-around",
      ]),
    );
  });

  test("finds what a target does not trust, an open file, a missing target", () => {
    const config = project.read("holdpoint.yaml");
    project.write("policies/own.yaml", `${OWN}# changed\n`);
    try {
      const found = project.json(["doctor", "--on", "shop-prod"]);
      expect([found.exit.code, found.error?.code]).toEqual([2, "ERR_SETUP_UNSAFE"]);
      expect(found.error?.why).toContain("are not those pinned in shop-prod");
      expect(levels(project.json(["doctor", "--on", "shop-prd"]))).toContain("stop target");
    } finally {
      project.write("policies/own.yaml", OWN);
      project.write("holdpoint.yaml", config);
    }
  });

  test("outside a project, that is what it finds", () => {
    const elsewhere = project.read("holdpoint.yaml");
    project.write("holdpoint.yaml", "targets: [");
    try {
      const found = project.json(["doctor"]);
      expect([found.exit.code, levels(found)]).toEqual([2, ["stop config"]]);
    } finally {
      project.write("holdpoint.yaml", elsewhere);
    }
  });

  test("names a denial that is always up", () => {
    for (let i = 0; i < 12; i += 1) planned(`UPDATE orders SET total = ${i};`);
    const found = project.json(["doctor"]);
    const rules = (
      found.result["findings"] as unknown as readonly { readonly check: string; readonly what: string }[]
    ).filter((f) => f.check === "rules");
    expect(rules.map((r) => r.what)).toContainEqual(
      expect.stringMatching(/^rows-a-day fired on \d+ of the last \d+ plans$/),
    );
  });
});

test("a freeze that begins between approval and apply stops the apply (30), and nothing is written", () => {
  const frozen = makeProject({ pin: false });
  try {
    const at = (hours: number): string =>
      new Date(Date.now() + hours * 3_600_000).toISOString().slice(0, 16).replace("T", " ");
    frozen.write(
      "policies/move.yaml",
      `format: holdpoint-policy/1\nname: move\nenvironments: [production]\nfreeze:\n  - { id: move, recurring: once, from: "${at(1)}", to: "${at(9)}", zone: UTC, because: the servers move }\n`,
    );
    const pinned = frozen.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
    if (pinned.status !== 0) throw new Error(pinned.stderr);
    const plan = frozen.plan("UPDATE orders SET note = 'x' WHERE id = 1");
    frozen.approve(plan);
    const before = frozen.dump();
    const apply = ["apply", plan, "--confirm", "shop-prod"];
    expect(frozen.json([...apply, "--dry-run"]).error).toBeNull();
    const stopped = frozen.json(apply, shifted(frozen, 2 * 3600));
    expect([stopped.exit.code, stopped.error?.code]).toEqual([30, "ERR_POLICY_DENIED"]);
    expect(stopped.error?.why).toContain("the servers move");
    expect(frozen.dump()).toBe(before);
  } finally {
    frozen.close();
  }
});
