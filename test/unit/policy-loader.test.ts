/** Everything a policy file is refused for, with its line and column. HEAD is three lines, so texts begin in line 4. */
import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { parsePolicy, readPolicies } from "../../src/config/policies.js";
import { UsageError } from "../../src/base/errors.js";
import { HEAD, policiesOf } from "../support/policy.js";

function refusalOf(load: () => unknown): string {
  try {
    load();
  } catch (e) {
    if (e instanceof UsageError) return `${e.code} ${e.message}`;
    throw e;
  }
  return "accepted";
}

const RULE = (when: string, then = "allow"): string =>
  `rules:\n  - id: a\n    when: ${when}\n    then: ${then}\n    because: b\n`;
const REQUIRE = (require: string): string => RULE('"true"', `{ require: ${require} }`);
const CAP = (rest: string): string => `caps:\n  - id: a\n    because: b\n    ${rest}\n`;
const FREEZE = (recurring: string, from: string, to: string, zone = "UTC"): string =>
  `freeze:\n  - id: a\n    recurring: ${recurring}\n    from: ${from}\n    to: ${to}\n    zone: ${zone}\n    because: b\n`;
const TEST = (plan: string, expected = "{ decision: deny }"): string =>
  `tests:\n  - name: t\n    plan: ${plan}\n    expect: ${expected}\n`;

describe("the shape of the file", () => {
  test.each([
    ["an unknown key at the top", "ruls: []\n", '4:1 "ruls" is not a key of this file; did you mean rules?'],
    [
      "a mistyped safety flag",
      REQUIRE("{ people: 1, tuch: true }"),
      '7:35 "tuch" is not a key of rules.0.then.require; did you mean touch?',
    ],
    [
      "an unknown key of a rule",
      `${RULE('"true"')}    whn: x\n`,
      '9:5 "whn" is not a key of rules.0; did you mean when?',
    ],
    [
      "a missing condition",
      "rules:\n  - id: a\n    then: allow\n    because: b\n",
      "5:5 rules.0.when is missing",
    ],
    [
      "a missing sentence",
      'rules:\n  - id: a\n    when: "true"\n    then: deny\n',
      "5:5 rules.0.because is missing",
    ],
    [
      "another word than allow and deny",
      RULE('"true"', "permit"),
      '7:11 rules.0.then wants allow or deny or a map of keys, and has "permit"',
    ],
    ["a condition that is not text", RULE("true"), "6:11 rules.0.when wants text, and has true"],
    ["a blank condition", RULE('""'), "6:11 when is empty"],
    ["no rules under rules", "rules: []\n", "4:8 rules has no entries"],
    ["rules left blank", "rules:\n", "4:7 rules is empty"],
    ["a key twice", "enabled: true\nenabled: false\n", '5:1 "enabled" stands in the same place twice'],
    ["an alias", "rules: &a [1]\ncaps: *a\n", "5:7 *a repeats another part of the file: write the value out"],
    [
      "a second document",
      "---\nformat: x\n",
      "4:1 a second document begins here: one file holds one document",
    ],
    [
      "an unknown stop sign",
      "stop_signs:\n  on: [table-emtied]\n",
      '5:8 stop_signs.on.0 wants table-emptied or over-half or over-half-updated or no-where or column-levelled or protected-lost or outside-scope, and has "table-emtied"',
    ],
    [
      "a stop sign off without a reason",
      "stop_signs:\n  off: [{ name: no-where }]\n",
      "5:9 stop_signs.off.0.because is missing",
    ],
    [
      "a stop sign off and on",
      "stop_signs:\n  off: [{ name: no-where, because: b }]\n  on: [no-where]\n",
      "5:9 off 1 is switched on and off in one file",
    ],
    [
      "a stop sign off twice",
      "stop_signs:\n  off: [{ name: no-where, because: b }, { name: no-where, because: c }]\n",
      "5:8 off names no-where twice",
    ],
    [
      "an id with capitals",
      RULE('"true"').replace("id: a", "id: A"),
      "5:9 rules.0.id wants small letters, digits and hyphens, 64 at most",
    ],
    [
      "the same id twice",
      `${RULE('"true"')}caps:\n  - { id: a, on: plan, rows: 1, because: b }\n`,
      "10:11 id a is taken in line 5",
    ],
    [
      "the id of a stop sign",
      RULE('"true"').replace("id: a", "id: no-where"),
      "5:9 id no-where is the name of something built in",
    ],
    [
      "a line break in a sentence",
      RULE('"true"').replace("because: b", 'because: "a\\nb"'),
      "8:14 rules.0.because has a line break or a control character: write one line",
    ],
    ["agents with another word", "agents: never\n", '4:9 agents wants plan-only or apply, and has "never"'],
    ["enabled as a word", "enabled: yes\n", '4:10 enabled wants true or false, and has "yes"'],
  ])("%s", (_, text, words) => {
    expect(refusalOf(() => policiesOf(text))).toBe(`ERR_POLICY_INVALID policies/p.yaml:${words}`);
  });

  test.each([
    ["nothing", "", "1:1 the file is empty"],
    [
      "another format",
      "format: holdpoint-policy/2\nname: p\nenvironments: [production]\n",
      '1:9 format wants holdpoint-policy/1, and has "holdpoint-policy/2"',
    ],
    [
      "no environments",
      "format: holdpoint-policy/1\nname: p\nenvironments: []\n",
      "3:15 environments has no entries",
    ],
    [
      "an unknown environment",
      "format: holdpoint-policy/1\nname: p\nenvironments: [prod]\n",
      '3:16 environments.0 wants production or staging or development, and has "prod"',
    ],
    [
      "an environment twice",
      "format: holdpoint-policy/1\nname: p\nenvironments: [staging, staging]\n",
      "3:15 environments names staging twice",
    ],
    ["a list", "- a\n", "1:1 the file wants a map of keys, and has a list"],
  ])("a file with %s", (_, text, words) => {
    expect(refusalOf(() => policiesOf(text, ""))).toBe(`ERR_POLICY_INVALID policies/p.yaml:${words}`);
  });

  test("all faults are told, the first in the message", () => {
    const load = (): unknown => policiesOf(`${CAP("on: plan")}${FREEZE("daily", "25:00", "08:00", "X")}`);
    expect(load).toThrow(
      expect.objectContaining({
        message:
          "policies/p.yaml:5:5 caps 1 sets no bound: write rows, share, remaining, rows_per_day, tenants or per_tenant (and 3 more)",
        details: [
          {
            at: "policies/p.yaml:5:5",
            what: "caps 1 sets no bound: write rows, share, remaining, rows_per_day, tenants or per_tenant",
          },
          { at: "policies/p.yaml:9:9", what: "id a is taken in line 5" },
          { at: "policies/p.yaml:11:11", what: 'from wants a time as 22:00, and has "25:00"' },
          { at: "policies/p.yaml:13:11", what: 'zone wants a time zone as Europe/Paris or UTC, and has "X"' },
        ],
      }),
    );
  });
});

describe("what a rule asks", () => {
  test.each([
    ["nothing", "{ touch: false }", "7:22 require asks for nothing"],
    [
      "a touch of nobody",
      "{ touch: true }",
      "7:22 require asks something of approvers and for no approvals: add people",
    ],
    ["groups without people", "{ groups: [dba] }", "7:32 groups needs people: how many of these groups"],
    [
      "people twice over",
      "{ people: 1, approvals: [{ people: 1 }] }",
      "7:46 approvals stands beside people or groups: write one or the other",
    ],
    ["an empty quorum", "{ people: 0 }", "7:32 rules.0.then.require.people must be at least 1"],
    ["no group at all", "{ people: 1, groups: [] }", "7:43 rules.0.then.require.groups has no entries"],
    ["a group twice", "{ people: 2, groups: [dba, dba] }", "7:22 require names dba twice"],
    [
      "half a person",
      "{ people: 1.5 }",
      "7:32 rules.0.then.require.people wants a whole number, and has 1.5",
    ],
    [
      "a hostile ticket pattern",
      '{ ticket: { re2: "(?=a)" } }',
      "7:32 ticket is not a pattern: error parsing regexp: invalid or unsupported Perl syntax: `(?=`",
    ],
    [
      "an age without a unit",
      '{ max_age: "24" }',
      '7:33 max_age wants a duration as 30m, 48h or 7d, and has "24"',
    ],
  ])("%s", (_, require, words) => {
    expect(refusalOf(() => policiesOf(REQUIRE(require)))).toBe(`ERR_POLICY_INVALID policies/p.yaml:${words}`);
  });
});

describe("caps, windows, assertions, tests", () => {
  test.each([
    [
      "a share of the plan",
      CAP("on: plan\n    share: 5%"),
      '8:12 share is a share of a table: write on: ["*"]',
    ],
    [
      "a floor of the plan",
      CAP("on: plan\n    remaining: 5"),
      '8:16 remaining counts rows of a table: write on: ["*"]',
    ],
    [
      "a day of one table",
      CAP("on: [a]\n    rows_per_day: 5"),
      "8:19 rows_per_day counts whole plans: write on: plan",
    ],
    [
      "a day of one operation",
      CAP("on: plan\n    op: delete\n    rows_per_day: 5"),
      "9:19 rows_per_day counts every operation: leave op out",
    ],
    [
      "a share of inserts",
      CAP("on: [a]\n    op: insert\n    share: 5%"),
      "9:12 share has no meaning for inserts",
    ],
    [
      "more than all",
      CAP("on: [a]\n    share: 101%"),
      '8:12 share wants a share from 0% to 100%, and has "101%"',
    ],
    [
      "a share without its sign",
      CAP('on: [a]\n    share: "5"'),
      '8:12 share wants a share from 0% to 100%, and has "5"',
    ],
    ["a negative bound", CAP("on: plan\n    rows: -1"), "8:11 caps.0.rows must be at least 0"],
    [
      "a cap that allows",
      CAP("on: plan\n    rows: 1\n    then: allow"),
      '9:11 caps.0.then wants deny or a map of keys, and has "allow"',
    ],
    ["a cap on nothing", CAP("on: []\n    rows: 1"), "7:9 caps.0.on has no entries"],
    [
      "a zone that is none",
      FREEZE("daily", "22:00", "23:00", "Mars/Olympus"),
      '9:11 zone wants a time zone as Europe/Paris or UTC, and has "Mars/Olympus"',
    ],
    [
      "a window of no length",
      FREEZE("daily", "22:00", "22:00"),
      "8:9 to is the moment at which the window begins",
    ],
    [
      "a window that ends before it begins",
      FREEZE("once", "2026-12-24 18:00", "2026-12-20 18:00"),
      "8:9 to lies before from",
    ],
    [
      "31 April",
      FREEZE("yearly", "04-31 00:00", "05-02 00:00"),
      '7:11 from wants a day of the year and a time as 12-20 18:00, and has "04-31 00:00"',
    ],
    [
      "29 February every year",
      FREEZE("yearly", "02-28 00:00", "02-29 00:00"),
      '8:9 to wants a day of the year and a time as 12-20 18:00, and has "02-29 00:00"',
    ],
    [
      "a yearly window with a year",
      FREEZE("yearly", "2026-12-20 18:00", "01-02 00:00"),
      '7:11 from wants a day of the year and a time as 12-20 18:00, and has "2026-12-20 18:00"',
    ],
    [
      "a day that is none",
      FREEZE("weekly", "fre 16:00", "mon 08:00"),
      '7:11 from wants a day of the week and a time as fri 16:00, and has "fre 16:00"',
    ],
    [
      "an hour that is none",
      FREEZE("daily", "24:00", "08:00"),
      '7:11 from wants a time as 22:00, and has "24:00"',
    ],
    [
      "29 February of a common year",
      FREEZE("once", "2027-02-29 00:00", "2027-03-01 00:00"),
      '7:11 from wants a date and time as 2026-12-20 18:00, and has "2027-02-29 00:00"',
    ],
    [
      "an assertion that deletes",
      "assertions:\n  - { id: a, tables: [t], sql: delete from t, message: m }\n",
      "5:32 sql wants one query that begins with SELECT or WITH",
    ],
    [
      "an assertion about no table",
      "assertions:\n  - { id: a, tables: [], sql: select 1, message: m }\n",
      "5:22 assertions.0.tables has no entries",
    ],
    [
      "a test of more rows than there are",
      TEST("{ tables: [{ name: a, rows_before: 1, delete: 2 }] }"),
      "6:22 tables 1 updates and deletes more rows than the table had",
    ],
    [
      "a test with one table twice",
      TEST("{ tables: [{ name: a, rows_before: 1 }, { name: a, rows_before: 1 }] }"),
      "6:21 tables names a twice",
    ],
    [
      "a test at no time",
      TEST("{ now: tomorrow }"),
      '6:18 now wants a moment as 2026-01-14T10:00:00Z, and has "tomorrow"',
    ],
    [
      "a test of an unknown assertion",
      TEST("{ assertions: { x: 1 } }"),
      "6:30 x x is no assertion of this file",
    ],
    [
      "a test that expects a word",
      TEST("{}", "{ decision: maybe }"),
      '7:25 tests.0.expect.decision wants allow or needs-approval or deny, and has "maybe"',
    ],
  ])("%s", (_, text, words) => {
    expect(refusalOf(() => policiesOf(text))).toBe(`ERR_POLICY_INVALID policies/p.yaml:${words}`);
  });
});

describe("conditions are marked where they are wrong", () => {
  test.each([
    ["a misspelt field", "rows.delte > 1", "6:16 No such key: delte", "rows.delte > 1\n     ^"],
    ["an unknown variable", "row.delete > 1", "6:11 Unknown variable: row", "row.delete > 1\n^"],
    [
      "a share compared with a whole number of rows",
      "rows.total > 0.5 && rows.total == 1.0",
      "6:31 no such overload: int == double",
      "rows.total > 0.5 && rows.total == 1.0\n                    ^",
    ],
    [
      "an unfinished condition",
      "rows.total > 3 &&",
      "6:28 Unexpected token: EOF",
      "rows.total > 3 &&\n                 ^",
    ],
    [
      "a condition that is a number",
      "rows.total",
      "6:11 a condition is true or false, and this is int",
      "rows.total\n^",
    ],
    ["a quoted one", '"reason == 1"', "6:12 no such overload: string == int", "reason == 1\n^"],
  ])("%s", (_, when, words, marked) => {
    expect(() => policiesOf(RULE(when))).toThrow(
      expect.objectContaining({
        code: "ERR_POLICY_INVALID",
        message: `policies/p.yaml:${words}`,
        why: marked,
      }),
    );
  });

  test("in a block of lines the place is the block's, and the line is shown", () => {
    const when = "|\n      rows.total > 3 &&\n      rows.delte > 1";
    expect(() => policiesOf(RULE(when))).toThrow(
      expect.objectContaining({
        message: "policies/p.yaml:6:11 No such key: delte",
        why: "rows.delte > 1\n     ^",
      }),
    );
  });

  test("two files of one name", async () => {
    const { compilePolicies } = await import("../../src/policy/compile.js");
    const [a, b] = ["a.yaml", "b.yaml"].map((path) => parsePolicy({ path, text: HEAD }));
    expect(refusalOf(() => compilePolicies(a && b ? [a, b] : []))).toBe(
      "ERR_POLICY_INVALID b.yaml:2:7 the name p is taken by a.yaml",
    );
  });
});

describe("the folder", () => {
  let folder = "";
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "holdpoint-policies-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const refused = (words: string): unknown =>
    expect.objectContaining({ code: "ERR_POLICY_INVALID", message: words });

  test("files come in one order, with the digest of exactly their bytes", async () => {
    for (const name of ["b.yml", "a.yaml", "README.md", ".hidden"])
      await writeFile(join(folder, name), `${HEAD}# ${name}\n`);
    const sources = await readPolicies(folder, "policies");
    expect(sources.map((s) => s.path)).toEqual(["policies/a.yaml", "policies/b.yml"]);
    expect(new Set(sources.map((s) => s.digest)).size).toBe(2);
  });

  test("a missing folder is refused", async () => {
    await expect(readPolicies(join(folder, "none"), "policies")).rejects.toEqual(
      refused("the policies in policies cannot be read"),
    );
  });
  test("an empty folder is refused: it permits nothing, and says so early", async () => {
    await expect(readPolicies(folder, "policies")).rejects.toEqual(refused("there is no policy in policies"));
  });
  test.each(["freeze.ymal", "freeze.yaml.bak", "freeze.yaml~"])(
    "%s, which would not be read, is refused",
    async (name) => {
      await writeFile(join(folder, name), HEAD);
      await expect(readPolicies(folder, "policies")).rejects.toEqual(
        refused(`policies/${name} is not a policy`),
      );
    },
  );
  test("a folder within is refused", async () => {
    await mkdir(join(folder, "more.yaml"));
    await expect(readPolicies(folder, "policies")).rejects.toEqual(
      refused("policies/more.yaml is not a policy"),
    );
  });
  test("bytes that are not UTF-8 are refused", async () => {
    await writeFile(join(folder, "a.yaml"), Buffer.from([0x66, 0xff, 0xfe]));
    await expect(readPolicies(folder, "policies")).rejects.toEqual(refused("policies/a.yaml cannot be read"));
  });
  test("a file of more than a mebibyte is refused", async () => {
    await writeFile(join(folder, "a.yaml"), "#".repeat((1 << 20) + 1));
    await expect(readPolicies(folder, "policies")).rejects.toEqual(refused("policies/a.yaml cannot be read"));
  });
});
