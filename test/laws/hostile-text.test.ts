/**
 * What people write and others may have altered: configuration, policies and their conditions, people, groups, decisions, pins,
 * jobs and their parameters, addresses. Whatever is in them, they are read or refused, soon. `FUZZ_RUNS` sets the runs of each.
 */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { parseAddress } from "../../src/adapters/postgres/address.js";
import { parseAllowedSigners } from "../../src/approval/allowed-signers.js";
import { people } from "../../src/approval/people.js";
import { splitTokens } from "../../src/approval/token.js";
import { digestOf } from "../../src/base/digest.js";
import { parseConfig } from "../../src/config/config.js";
import { parseCi, parseGroups } from "../../src/config/people-file.js";
import { parsePolicy } from "../../src/config/policies.js";
import { parseResolutions } from "../../src/config/resolutions-file.js";
import { parseSystemPins } from "../../src/config/system-pins.js";
import { fillUrl, targetKind, urlFault } from "../../src/config/target-url.js";
import {
  bindParameters,
  bindUndeclared,
  isSpecProblem,
  parameterSpec,
  textForms,
} from "../../src/jobs/parameters.js";
import { loadSqlJob } from "../../src/jobs/sql-file.js";
import { parseDamage } from "../../src/operations/merging/damage.js";
import { compilePolicies } from "../../src/policy/compile.js";
import { conditionCompiler } from "../../src/policy/expression.js";
import { factsOf } from "../../src/policy/facts.js";
import { person, testKey } from "../support/approvals.js";
import { altered, HOSTILE_WORDS, readOrRefused, watched } from "../support/mutate.js";
import { inputWith, table } from "../support/policy.js";

const runs = (byDefault: number): number => Number(process.env["FUZZ_RUNS"] ?? byDefault);
const REPOSITORY = resolve(import.meta.dirname, "../../..");
const policyText = (name: string): string => readFileSync(join(REPOSITORY, "policies", name), "utf8");

const CONFIG = `targets:
  elb-prod:
    url: \${ELB_URL}
    environment: production
    foreign_keys: true
    append_only: [audit_log]
    mask: [customers.email]
    protect: { accounts.kind: [root] }
    checks: { probe: { command: [./probe, "--all"], timeout: 30s } }
    pause_while: { lag: { command: [./lag], pause_over: 10, stop_over: 60 } }
    trust: { people: 2, groups: [dba] }
jobs:
  purge-idle:
    sql: jobs/purge-idle.sql
    params: { older_than_days: { type: integer, minimum: 30 } }
    scope: [backends]
    expect: { backends: { delete: 1..5000 } }
policies: policies/
`;
const GROUPS = "groups:\n  dba: [ravi, lee]\nci:\n  accounts: [bot]\n  people: { github:octocat: ravi }\n";
const RESOLUTIONS = `format: holdpoint-resolutions/1
of: [rn_0123456789abcdef]
target: elb-prod
rows:
  - table: orders
    key: "7"
    kind: changed
    row: ${digestOf("a row").slice(7, 39)}
    decide: keep-now
    cells:
      - { column: note, before: "''", wrote: "'x'", now: "'y'" }
`;
const PINS = `pins:\n  elb-prod: { identity: "sqlite:8f1c", bundle: "${digestOf("b")}" }\n`;
const RAVI = testKey();
const KEYS = `# who may sign\nravi valid-before="20300101Z",namespaces="holdpoint-plan,holdpoint-approval" ${RAVI.line} ravi\n`;
const SQLITE_JOB = `-- a job
UPDATE "back ends" SET note = 'it''s :not', at = :at /* :nor */ WHERE id IN (SELECT id FROM [t] WHERE x > :older) ;
DELETE FROM b WHERE note = x'00' OR a LIKE "b" ;
`;
const JOB = `-- a job
UPDATE "back ends" SET note = 'it''s :not', at = :at /* :nor */ WHERE id IN (SELECT id FROM [t] WHERE x > :older) ;
DELETE FROM b WHERE note = $$ :x $$ OR a::text = E'\\'' ;
`;

const GIVEN = ["at=now", "older=30"];

type Read = (text: string, bytes: Uint8Array) => unknown;

/** Readers with the documents that are altered for them, and how often. */
const READERS: readonly (readonly [string, number, readonly string[], Read])[] = [
  ["configuration", 1_200, [CONFIG], (text) => parseConfig(text, "/project/holdpoint.yaml")],
  [
    "policies",
    250,
    ["production.yaml", "holiday-freeze.yaml", "assertion-examples.yaml"].map(policyText),
    (text) => compilePolicies([parsePolicy({ path: "policies/p.yaml", text })]),
  ],
  ["groups", 2_000, [GROUPS], (text) => parseGroups(text, "groups.yaml")],
  [
    "people in CI",
    1_500,
    [GROUPS],
    (text) =>
      parseCi(
        text,
        "groups.yaml",
        ["ravi", "lee", "bot"].map((name) => person(name, [])),
      ),
  ],
  ["decisions", 1_500, [RESOLUTIONS], (text) => parseResolutions(text, "conflicts.yaml")],
  ["pins of the system", 2_000, [PINS], (text) => parseSystemPins(text, "pins.yaml")],
  ["people and keys", 20_000, [KEYS], (text) => people(parseAllowedSigners(text, "f"), {})],
  ["tokens in a variable", 20_000, ["hpa1.YQ.YQ hpa1.Yg.Yg\n"], (text) => splitTokens(text)],
  [
    "SQL jobs for SQLite",
    6_000,
    [SQLITE_JOB],
    (_, bytes) => loadSqlJob(bytes, { file: "job.sql", specs: null, given: GIVEN, name: "job.sql" }),
  ],
  [
    "SQL jobs for PostgreSQL",
    6_000,
    [JOB],
    (_, bytes) =>
      loadSqlJob(bytes, { file: "job.sql", specs: null, given: GIVEN, name: "job.sql", engine: "postgres" }),
  ],
  [
    "addresses",
    20_000,
    ["postgres://dana:secret@db1.example:5432/shop?sslmode=verify-full&application_name=x%20y"],
    (text) => parseAddress(text, {}, "dana"),
  ],
  [
    "targets' urls",
    20_000,
    ["postgres://${USER}@${HOST}/x", "sqlite:state/elb.db", "sqlite:///srv/elb.db"],
    (text) => {
      if (urlFault(text) !== null) return null;
      return targetKind(fillUrl(text, { USER: "u", HOST: "h" }, "f:1:1", "elb").url, "/project");
    },
  ],
  ["what damage did", 20_000, ["deleted_at = '2012-12-24'", "deleted"], (text) => parseDamage(text)],
];

test.each(READERS)("altered %s are read or refused", (_, count, documents, read) => {
  let accepted = 0;
  fc.assert(
    fc.property(
      altered(documents.map((d) => Buffer.from(d))),
      watched((bytes) => {
        // As the reader of the file would hand it over: text, or what stands for bytes that are none.
        const text = bytes.toString("utf8");
        if (readOrRefused(() => read(text, bytes) ?? null) !== "refused") accepted += 1;
      }),
    ),
    { numRuns: runs(count) },
  );
  expect(accepted).toBeGreaterThan(0);
});

describe("values that no file holds", () => {
  const json = fc.jsonValue({ maxDepth: 4 });
  const spec = fc.record(
    {
      type: fc.oneof(fc.constantFrom("integer", "text", "list", "decimal", "date", "boolean"), json),
      items: fc.oneof(fc.constantFrom("integer", "text"), json),
      minimum: json,
      maximum: json,
      pattern: fc.oneof(fc.constantFrom("(a+)+$", "[", "^x{1,9999999}$", "(?<n>a)\\k<n>"), json),
      values: json,
      default: json,
    },
    { requiredKeys: [] },
  );
  const words = fc.oneof(fc.constantFrom(...HOSTILE_WORDS), fc.string({ unit: "binary", maxLength: 60 }));

  test("declarations of parameters, and what is bound to them", () => {
    fc.assert(
      fc.property(
        fc.oneof(spec, json),
        words,
        watched((raw, text) => {
          const read = parameterSpec(raw);
          if (isSpecProblem(read)) return;
          const bound = readOrRefused(() => bindParameters({ p: read }, [`p=${text}`], "job"));
          if (bound === "refused") return;
          expect(bound.map((b) => b.name)).toEqual(["p"]);
        }),
      ),
      { numRuns: runs(10_000) },
    );
  });

  test("parameters of a file that declares none: the text that is signed is the text that was given", () => {
    const name = fc.oneof(fc.constantFrom("p", "__proto__", "constructor", "p:integer", "p:text"), words);
    fc.assert(
      fc.property(
        name,
        words,
        watched((which, text) => {
          const bound = readOrRefused(() => bindUndeclared([`${which}=${text}`], "job"));
          if (bound === "refused") return;
          expect(bound).toHaveLength(1);
          expect(Object.keys(textForms(bound))).toEqual([bound[0]?.name]);
        }),
      ),
      { numRuns: runs(20_000) },
    );
  });

  test("conditions: refused, or true or false of a plan, or an error that denies", () => {
    const compile = conditionCompiler();
    const facts = factsOf(inputWith({ tables: [table({ name: "orders", rowsBefore: 10n, delete: 3n })] }));
    const conditions = [
      "rows.total > 0 || schema_changes > 0",
      'kind != "undo" && tables.exists(t, t.delete > 20 && t.deleted_share > 0.25)',
      'tables.all(t, glob(t.name, "order*")) && requester.groups.exists(g, g == "dba")',
      're2(reason, "^(a+)+$") && size(ticket) > 3 && now < timestamp("2027-01-01T00:00:00Z")',
    ];
    fc.assert(
      fc.property(
        altered(conditions.map((c) => Buffer.from(c))),
        watched((bytes) => {
          const text = bytes.toString("utf8");
          const checked = compile({ text, at: { file: "p.yaml", line: 1, column: 1 }, verbatim: true });
          if (!checked.ok) return;
          let held: unknown;
          try {
            held = checked.condition.holds(facts);
          } catch {
            return; // whatever goes wrong while evaluating denies
          }
          expect(typeof held).toBe("boolean");
        }),
      ),
      { numRuns: runs(8_000) },
    );
  });
});
