/** Plans and policies for tests of policy: a plan from its tables, a compiled policy from YAML text. */
import { policyReader } from "../../src/config/policies.js";
import { type CompiledPolicies, compilePolicies } from "../../src/policy/compile.js";
import type { PolicyInput, PolicyTable } from "../../src/policy/decision.js";

/** A table's counts; sizes and shares follow. */
export function table(
  facts: Pick<PolicyTable, "name" | "rowsBefore"> &
    Partial<Omit<PolicyTable, "name" | "rowsBefore" | "rowsAfter" | "deletedShare" | "updatedShare">>,
): PolicyTable {
  const { insert = 0n, update = 0n, delete: deleted = 0n, rowsBefore } = facts;
  const share = (n: bigint): number => (rowsBefore === 0n ? 0 : Number(n) / Number(rowsBefore));
  return {
    columns: [],
    levelled: [],
    protectedLost: 0n,
    origin: "job",
    cascaded: 0n,
    triggered: 0n,
    tenants: [],
    firstTouch: false,
    ...facts,
    insert,
    update,
    delete: deleted,
    rowsAfter: rowsBefore + insert - deleted,
    deletedShare: share(deleted),
    updatedShare: share(update),
  };
}

/** A plan by dana for production that changes nothing, with what the test says otherwise. */
export function inputWith(facts: Partial<PolicyInput>): PolicyInput {
  const tables = facts.tables ?? [];
  const sum = (of: (t: PolicyTable) => bigint): bigint => tables.reduce((n, t) => n + of(t), 0n);
  const [insert, update, deleted] = [sum((t) => t.insert), sum((t) => t.update), sum((t) => t.delete)];
  const environment = facts.environment ?? "production";
  return {
    environment,
    guardedAs: environment === "unproven" ? "production" : environment,
    contradicted: false,
    target: { name: "shop-prod", adapter: "sqlite", pinned: true },
    kind: "job",
    job: {
      name: "purge",
      kind: "sql",
      source: "sha256:00",
      declaresScope: false,
      declaresExpect: false,
      selective: true,
    },
    requester: { person: "dana", known: true, groups: ["dev"], kind: "person" },
    rows: {
      total: insert + update + deleted,
      insert,
      update,
      delete: deleted,
      tables: BigInt(tables.length),
    },
    tables,
    schemaChanges: 0n,
    sequences: 0n,
    reason: "",
    ticket: "",
    mode: "rows",
    now: new Date("2026-11-24T14:38:44Z"),
    ...facts,
  };
}

/** Reads policy texts. */
export const readPolicy = policyReader();

/** The head of a policy for production, to which a test adds its parts. Three lines. */
export const HEAD = "format: holdpoint-policy/1\nname: p\nenvironments: [production]\n";

/** A policy of one file, from YAML text after {@link HEAD}. */
export function policiesOf(text: string, head = HEAD): CompiledPolicies {
  return compilePolicies([readPolicy({ path: "policies/p.yaml", text: head + text })]);
}
