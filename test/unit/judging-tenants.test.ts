/** Whose rows a plan changes: counted from the rows, bounded, and held against caps per tenant. */
import { describe, expect, test } from "@jest/globals";
import type { Change, TableShape } from "../../src/changeset/change.js";
import { sourceOf } from "../../src/changeset/source.js";
import type { Row } from "../../src/changeset/value.js";
import { policyTenants, tenantCount, tenantsByTable } from "../../src/operations/judging/tenants.js";
import { decide } from "../../src/policy/decide.js";
import type { Decision, PolicyTenant } from "../../src/policy/decision.js";
import { inputWith, policiesOf, table } from "../support/policy.js";

const shape = (name: string): TableShape => ({
  name,
  columns: [
    { name: "id", type: "INTEGER" },
    { name: "tenant", type: "TEXT" },
  ],
  keyKind: "primary",
  key: [0],
});
const facts = (name: string, id: number): Pick<Change, "table" | "key" | "origin"> => ({
  table: name,
  key: [BigInt(id)],
  origin: "job",
});
const gone = (name: string, id: number, tenant: Row[number]): Change => ({
  ...facts(name, id),
  op: "delete",
  before: [BigInt(id), tenant],
});
const moved = (name: string, id: number, from: string, to: string): Change => ({
  ...facts(name, id),
  op: "update",
  before: [BigInt(id), from],
  after: [BigInt(id), to],
});
const sourceWith = (...changes: readonly Change[]) =>
  sourceOf({ tables: [shape("orders"), shape("users")], changes: [...changes] });
const TENANT = [
  { table: "orders", column: "tenant" },
  { table: "users", column: "tenant" },
];
const counts = (tenants: readonly PolicyTenant[] | null): unknown =>
  tenants?.map((t) => [t.name, t.insert, t.update, t.delete]);

describe("rows by tenant", () => {
  const source = sourceWith(
    gone("orders", 1, "acme"),
    gone("orders", 2, "acme"),
    moved("orders", 3, "acme", "zenith"),
    gone("orders", 4, null),
    gone("users", 1, "umbra"),
  );

  test("a row that moves concerns both; no tenant is one of its own; most rows first", () => {
    const found = tenantsByTable(source, { tenant: TENANT, mask: [] });
    const orders = found["orders"];
    expect(counts(orders === undefined ? null : policyTenants(orders, null))).toEqual([
      ["acme", 0n, 1n, 2n],
      ["NULL", 0n, 0n, 1n],
      ["zenith", 0n, 1n, 0n],
    ]);
    expect(tenantCount(found)).toBe(4n);
  });

  test("a table whose column nobody names has none", () => {
    const found = tenantsByTable(source, { tenant: TENANT.slice(1), mask: [] });
    expect(Object.keys(found)).toEqual(["users"]);
  });

  test("a masked column shows places, not values", () => {
    const { orders } = tenantsByTable(source, {
      tenant: TENANT,
      mask: [{ table: "orders", column: "tenant" }],
    });
    const names = orders === undefined ? [] : (policyTenants(orders, null) ?? []).map((t) => t.name);
    expect(names).toEqual(["····@1", "····@2", "····@3"]);
  });

  test.each([
    ["a column that is not there", [{ table: "orders", column: "owner" }], source],
    [
      "more tenants than are told apart",
      TENANT,
      sourceWith(...Array.from({ length: 10_001 }, (_, i) => gone("orders", i, `t${i}`))),
    ],
  ])("%s: not known, which denies whoever asks", (_name, tenant, of) => {
    const found = tenantsByTable(of, { tenant, mask: [] });
    expect(found["orders"]?.tenants).toBeNull();
    expect(tenantCount(found)).toBeNull();
  });
});

describe("bounds on tenants", () => {
  const caps = (bound: string): string => `rules: [{ id: open, when: "true", then: allow, because: open }]
caps:
  - { id: cap, because: one customer at a time, ${bound} }
`;
  const tenant = (name: string, deleted: bigint, rowsBefore?: bigint): PolicyTenant => ({
    name,
    insert: 0n,
    update: 0n,
    delete: deleted,
    ...(rowsBefore === undefined ? {} : { rowsBefore }),
  });
  const decideOn = (bound: string, tenants: readonly PolicyTenant[] | null, all: bigint | null): Decision => {
    const rows = (tenants ?? []).reduce((n, t) => n + t.delete, 0n);
    const { tenants: _, ...bare } = table({ name: "orders", rowsBefore: 1000n, delete: rows });
    const input = inputWith({ tables: [tenants === null ? bare : { ...bare, tenants }] });
    return decide(policiesOf(caps(bound)), {
      ...input,
      rows: { ...input.rows, ...(all === null ? {} : { tenants: all }) },
    });
  };

  test.each<readonly [string, string, readonly PolicyTenant[], readonly PolicyTenant[], string]>([
    [
      "tenants of the plan",
      "on: plan, tenants: 1",
      [tenant("a", 5n)],
      [tenant("a", 5n), tenant("b", 1n)],
      "1 tenant or fewer",
    ],
    [
      "tenants of a table",
      'on: ["*"], tenants: 1',
      [tenant("a", 5n)],
      [tenant("a", 5n), tenant("b", 1n)],
      "orders: 1 tenant or fewer",
    ],
    [
      "rows of each tenant",
      'on: ["*"], per_tenant: { rows: 5 }',
      [tenant("a", 5n), tenant("b", 5n)],
      [tenant("a", 5n), tenant("b", 6n)],
      "orders of b: 5 rows or fewer (now 6)",
    ],
    [
      "a share of each tenant",
      'on: ["*"], per_tenant: { share: 10% }',
      [tenant("a", 5n, 50n)],
      [tenant("a", 5n, 49n)],
      "orders of a: 4 rows or fewer (now 5)",
    ],
    [
      "what remains of each tenant",
      'on: ["*"], per_tenant: { remaining: 45 }',
      [tenant("a", 5n, 50n), tenant("b", 0n, 3n)],
      [tenant("a", 6n, 50n)],
      "orders of a: 5 rows or fewer (now 6)",
    ],
    [
      "the operation that is counted",
      'on: ["*"], op: delete, per_tenant: { rows: 1 }',
      [{ ...tenant("a", 1n), update: 9n }],
      [tenant("a", 2n)],
      "orders of a: 1 row or fewer (now 2)",
    ],
  ])("%s", (_name, bound, inside, outside, flips) => {
    expect(decideOn(bound, inside, BigInt(inside.length)).kind).toBe("allow");
    const denied = decideOn(bound, outside, BigInt(outside.length));
    expect([denied.kind, denied.rules[0]?.rule, denied.rules[0]?.effect]).toEqual(["deny", "cap", "deny"]);
    expect(denied.rules[0]?.flips).toBe(flips);
  });

  test.each([
    ["tenants of the plan", "on: plan, tenants: 9", null, null],
    ["tenants of a table", 'on: ["*"], tenants: 9', null, 1n],
    ["rows of each", 'on: ["*"], per_tenant: { rows: 9 }', null, 1n],
    ["a tenant of unknown size", 'on: ["*"], per_tenant: { remaining: 0 }', [tenant("a", 1n)], 1n],
    [
      "a tenant with more rows deleted than it has",
      'on: ["*"], per_tenant: { remaining: 0 }',
      [tenant("a", 2n, 1n)],
      1n,
    ],
  ] as const)("%s: what is not known denies", (_name, bound, tenants, all) => {
    const denied = decideOn(bound, tenants, all);
    expect([denied.kind, denied.rules[0]?.effect]).toEqual(["deny", "error"]);
  });

  test.each([
    [
      "per_tenant over the whole plan",
      "on: plan, per_tenant: { rows: 1 }",
      "per_tenant counts rows of a tenant in a table",
    ],
    ["per_tenant without a bound", 'on: ["*"], per_tenant: {}', "per_tenant sets no bound"],
    [
      "a share of inserts",
      'on: ["*"], op: insert, per_tenant: { share: 1% }',
      "share has no meaning for inserts",
    ],
    ["an unknown bound", 'on: ["*"], per_tenant: { row: 1 }', "row"],
  ])("%s is refused when it is loaded", (_name, bound, what) => {
    expect(() => policiesOf(caps(bound))).toThrow(expect.objectContaining({ code: "ERR_POLICY_INVALID" }));
    expect(() => policiesOf(caps(bound))).toThrow(what);
  });
});
