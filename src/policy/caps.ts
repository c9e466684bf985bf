/** Caps and floors: bounds on counts that need no expression, with the number that would pass in every result. */
import type { PolicyTable, PolicyTenant } from "./decision.js";
import type { Facts } from "./facts.js";
import { type Check, follow, known, passes } from "./finding.js";
import { matchesGlob } from "./patterns.js";
import { type Cap, type CappedOp, lineOf } from "./schema.js";
import { count, listInWords, percent, rowsInWords } from "./words.js";

const MILLION = 1_000_000n;

/** A bound that is broken: what is there, and what would pass. */
interface Broken {
  readonly saw: string;
  readonly flips: string;
}

/** The check of one cap. */
export function capCheck(cap: Cap): Check {
  const at = lineOf(cap.at);
  return {
    rule: cap.id,
    at,
    run: (facts) => {
      const broken = brokenBounds(cap, facts);
      const seen = { rule: cap.id, at, because: cap.because };
      if (broken.length === 0) return passes({ ...seen, saw: "", flips: "" });
      const saw = listInWords(broken.map((b) => b.saw));
      const flips = listInWords(broken.map((b) => b.flips));
      return follow(cap.follows, { ...seen, saw, flips }, facts);
    },
  };
}

function brokenBounds(cap: Cap, facts: Facts): Broken[] {
  const { on } = cap;
  switch (on.kind) {
    case "plan":
      return [...planRows(cap, facts), ...rowsPerDay(cap, facts), ...planTenants(cap, facts)];
    case "tables":
      return facts.input.tables
        .filter((t) => on.globs.some((g) => matchesGlob(t.name, g)))
        .flatMap((t) => [
          ...tableRows(cap, t),
          ...share(cap, t),
          ...remaining(cap, t),
          ...tableTenants(cap, t),
          ...eachTenant(cap, t),
        ]);
  }
}

function planRows(cap: Cap, { input }: Facts): Broken[] {
  const n = counted(input.rows, cap.op);
  if (cap.rows === null || n <= cap.rows) return [];
  return [{ saw: `${cap.op === "any" ? "" : `${cap.op} `}${rowsInWords(n)}`, flips: atMost(cap.rows, n) }];
}

function rowsPerDay(cap: Cap, { input }: Facts): Broken[] {
  if (cap.rowsPerDay === null) return [];
  const before = known("what this requester changed in the last day", input.history).rowsLastDay;
  const n = before + input.rows.total;
  if (n <= cap.rowsPerDay) return [];
  const left = cap.rowsPerDay > before ? cap.rowsPerDay - before : 0n;
  return [
    {
      saw: `${rowsInWords(n)} in 24 hours, ${count(before)} of them before this plan`,
      flips: atMost(left, input.rows.total),
    },
  ];
}

function tableRows(cap: Cap, t: PolicyTable): Broken[] {
  const n = counted(t, cap.op);
  if (cap.rows === null || n <= cap.rows) return [];
  return [
    { saw: `${t.name}: ${opInWords(cap.op)} ${rowsInWords(n)}`, flips: `${t.name}: ${atMost(cap.rows, n)}` },
  ];
}

/** Rows of a table that was empty have no share: there is nothing to lose. */
function share(cap: Cap, t: PolicyTable): Broken[] {
  if (cap.shareMillionths === null || t.rowsBefore === 0n) return [];
  const n = cap.op === "any" ? t.update + t.delete : counted(t, cap.op);
  if (n * MILLION <= cap.shareMillionths * t.rowsBefore) return [];
  const most = (cap.shareMillionths * t.rowsBefore) / MILLION;
  const limit = percent(cap.shareMillionths, MILLION);
  return [
    {
      saw: `${t.name}: ${opInWords(cap.op)} ${percent(n, t.rowsBefore)} of the table, limit ${limit}`,
      flips: `${t.name}: ${atMost(most, n)}`,
    },
  ];
}

function remaining(cap: Cap, t: PolicyTable): Broken[] {
  if (cap.remaining === null || t.delete === 0n || t.rowsAfter >= cap.remaining) return [];
  const most = t.rowsBefore + t.insert > cap.remaining ? t.rowsBefore + t.insert - cap.remaining : 0n;
  return [
    {
      saw: `${t.name}: ${rowsInWords(t.rowsAfter)} would remain, at least ${count(cap.remaining)} must`,
      flips: `${t.name}: ${atMost(most, t.delete)}`,
    },
  ];
}

function planTenants(cap: Cap, { input }: Facts): Broken[] {
  if (cap.tenants === null) return [];
  const n = known("how many tenants the plan touches", input.rows.tenants);
  return n <= cap.tenants
    ? []
    : [{ saw: tenantsInWords(n), flips: `${tenantsInWords(cap.tenants)} or fewer` }];
}

function tableTenants(cap: Cap, t: PolicyTable): Broken[] {
  if (cap.tenants === null) return [];
  const n = BigInt(tenantsOf(t).length);
  if (n <= cap.tenants) return [];
  return [
    { saw: `${t.name}: ${tenantsInWords(n)}`, flips: `${t.name}: ${tenantsInWords(cap.tenants)} or fewer` },
  ];
}

/**
 * Bounds for each tenant. A table that names no tenant's column has no tenants: a glob over all tables means those
 * that have.
 */
function eachTenant(cap: Cap, t: PolicyTable): Broken[] {
  const bounds = cap.perTenant;
  if (bounds === null) return [];
  return tenantsOf(t).flatMap((tenant) => {
    const of = { ...cap, ...bounds };
    const rows = tenantAsTable(t, tenant);
    return [
      ...tableRows(of, rows),
      ...(of.shareMillionths === null ? [] : share(of, requireSize(rows, tenant))),
      ...(of.remaining === null || tenant.delete === 0n ? [] : remaining(of, requireSize(rows, tenant))),
    ];
  });
}

function tenantsOf(t: PolicyTable): readonly PolicyTenant[] {
  return known(`whose rows of ${t.name} change`, t.tenants);
}

/** A tenant's rows as if they were a table of their own, under a name that says whose they are. */
function tenantAsTable(t: PolicyTable, tenant: PolicyTenant): PolicyTable {
  const rowsBefore = tenant.rowsBefore ?? 0n;
  const { insert, update, delete: deleted } = tenant;
  return {
    ...t,
    name: `${t.name} of ${tenant.name}`,
    insert,
    update,
    delete: deleted,
    rowsBefore,
    rowsAfter: rowsBefore + insert - deleted,
  };
}

function requireSize(rows: PolicyTable, tenant: PolicyTenant): PolicyTable {
  known(`how many rows ${rows.name} has`, tenant.rowsBefore);
  if (rows.rowsAfter < 0n) throw new TypeError(`${rows.name}: the row counts do not add up`);
  return rows;
}

function tenantsInWords(n: bigint): string {
  return `${count(n)} ${n === 1n ? "tenant" : "tenants"}`;
}

function counted(
  of: { readonly insert: bigint; readonly update: bigint; readonly delete: bigint },
  op: CappedOp,
): bigint {
  return op === "any" ? of.insert + of.update + of.delete : of[op];
}

function opInWords(op: CappedOp): string {
  return op === "any" ? "change" : op;
}

function atMost(most: bigint, now: bigint): string {
  return `${rowsInWords(most)} or fewer (now ${count(now)})`;
}
