/** Assertions are prepared by the engine that will be asked, against tables as a plan has them; nothing is run. */
import { beforeAll, describe, expect, test } from "@jest/globals";
import { type KnownSchema, lintAssertions, type PrepareAssertion } from "../../src/policy/lint-assertions.js";
import { queryPreparer } from "../../src/storage/prepare-query.js";
import { policiesOf } from "../support/policy.js";

let prepare: PrepareAssertion;
beforeAll(async () => {
  prepare = await queryPreparer();
});

const OPEN = `rules: [{ id: open, when: "true", then: allow, because: b }]\n`;
const assertion = (sql: string, tables = "[orders]"): string =>
  `${OPEN}assertions:\n  - id: a\n    tables: ${tables}\n    sql: ${JSON.stringify(sql)}\n    message: no\n`;
const found = (text: string, schema: KnownSchema | null = null): readonly string[] =>
  lintAssertions(policiesOf(text), prepare, schema).map((f) => `${f.severity} ${f.kind} ${f.at} ${f.what}`);

describe("without a target the columns are taken from the question", () => {
  test.each([
    [
      "images by name",
      "select before_id, after_status from orders where op = 'update' and before_status <> after_status",
    ],
    ["an alias", "select o.before_id from orders o where o.after_total > 10"],
    [
      "a join of two tables",
      "select o.before_id from orders o join customers c on c.before_id = o.before_customer_id",
    ],
    [
      "a common table",
      "with gone as (select before_tenant t from orders where op = 'delete') select t from gone group by t",
    ],
    ["quoted names", 'select "before_a b" from orders'],
    ["facts of a change", "select op, origin, count from orders where origin = 'cascade'"],
    [
      "functions of SQLite",
      "select count(distinct coalesce(before_tenant, after_tenant)) as n from orders having n > 1",
    ],
  ])("%s", (_name, sql) => expect(found(assertion(sql, "[orders, customers]"))).toEqual([]));

  test.each([
    [
      "a column as the target has it",
      "select status from orders",
      "no such column: status (there are op, origin, link, count, key, exact, and before_… and after_… of each column)",
    ],
    ["a table that it does not ask for", "select before_id from customers", "no such table: customers"],
    ["a syntax error", "select before_id frm orders where", 'near "orders": syntax error'],
    ["a function that there is not", "select soundexy(before_id) from orders", "no such function: soundexy"],
    [
      "a statement that writes",
      "with x as (select 1) delete from orders",
      "it is no question: it would write",
    ],
    ["two statements", "select 1; select 2", "The supplied SQL string contains more than one statement"],
  ])("%s is found", (_name, sql, why) => {
    expect(found(assertion(sql))).toEqual([
      `error bad-assertion policies/p.yaml:6:5 a cannot be asked: ${why}`,
    ]);
  });
});

describe("with a target's tables", () => {
  const schema: KnownSchema = {
    target: "shop-prod",
    tables: new Map([["orders", ["id", "status"]]]),
  };

  test("a column that the table has not is found", () => {
    expect(found(assertion("select before_id from orders where before_statsu = 'x'"), schema)).toEqual([
      expect.stringMatching(/^error bad-assertion .* a cannot be asked: no such column: before_statsu/),
    ]);
    expect(found(assertion("select before_id from orders where before_status = 'x'"), schema)).toEqual([]);
  });

  test("a table that the target has not is never asked for", () => {
    expect(found(assertion("select before_id from order_items", "[order_items]"), schema)).toEqual([
      "warning no-such-table policies/p.yaml:6:5 a is never asked: shop-prod has no table order_items",
    ]);
  });

  test("an example that is off may name somebody else's", () => {
    const text = `enabled: false\n${assertion("select before_id from order_items", "[order_items]")}`;
    expect(found(text, schema)).toEqual([]);
  });

  test("a cap whose pattern meets no table guards nothing", () => {
    const caps = (on: string): string => `${OPEN}caps: [{ id: c, on: ${on}, rows: 5, because: b }]\n`;
    expect(found(caps('["ordr*"]'), schema)).toEqual([
      "warning no-such-table policies/p.yaml:5:8 c names ordr*, and shop-prod has no such table",
    ]);
    expect(found(caps('["order*"]'), schema)).toEqual([]);
    expect(found(caps("plan"), schema)).toEqual([]);
  });
});
