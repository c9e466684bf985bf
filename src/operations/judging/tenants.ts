/**
 * Whose rows a plan changes: the rows of each tenant in each table whose tenant's column the configuration names.
 * Every change counts for the tenants of both of its images, because a row that moves from one to another concerns both.
 */
import type { Change, ChangeSource, TableShape } from "../../changeset/change.js";
import { afterOf, beforeOf, countOf } from "../../changeset/change.js";
import type { Value } from "../../changeset/value.js";
import type { MaskedColumn } from "../../config/config.js";
import type { CompiledPolicies } from "../../policy/compile.js";
import type { PolicyTenant } from "../../policy/decision.js";
import { matchesGlob } from "../../policy/patterns.js";
import type { Target } from "../../target/target.js";

/** Tenants that are told apart, in a table and over all of them: so much memory, whatever the number of rows. */
const MOST_IN_TABLE = 10_000;
const MOST_IN_ALL = 50_000;

/** One tenant of a table while its rows pass. */
interface Counts {
  readonly value: Value;
  readonly insert: bigint;
  readonly update: bigint;
  readonly delete: bigint;
}

/** The tenants of one table; `tenants` is null where they cannot be told: too many, or no such column. */
export interface TableTenants {
  readonly column: string;
  readonly isMasked: boolean;
  readonly tenants: readonly Counts[] | null;
}

/** The tenants by table. Tables whose tenant's column nobody names are not read. */
export function tenantsByTable(
  source: ChangeSource,
  columns: { readonly tenant: readonly MaskedColumn[]; readonly mask: readonly MaskedColumn[] },
): Readonly<Record<string, TableTenants>> {
  const found: Record<string, TableTenants> = {};
  let left = MOST_IN_ALL;
  for (const shape of source.tables) {
    const named = columns.tenant.find((c) => c.table === shape.name);
    if (named === undefined) continue;
    const isMasked = columns.mask.some((m) => m.table === shape.name && m.column === named.column);
    const tenants = tenantsOf(source, shape, named.column, Math.min(left, MOST_IN_TABLE));
    left -= tenants?.length ?? 0;
    found[shape.name] = { column: named.column, isMasked, tenants };
  }
  return found;
}

function tenantsOf(
  source: ChangeSource,
  shape: TableShape,
  column: string,
  most: number,
): readonly Counts[] | null {
  const at = shape.columns.findIndex((c) => c.name === column);
  if (at < 0) return null;
  const counts = new Map<string, Counts>();
  for (const change of source.changes(shape.name)) {
    for (const value of tenantsIn(change, at)) {
      const name = nameOf(value);
      const before = counts.get(name) ?? { value, insert: 0n, update: 0n, delete: 0n };
      counts.set(name, { ...before, [change.op]: before[change.op] + BigInt(countOf(change)) });
    }
    if (counts.size > most) return null;
  }
  const rows = (c: Counts): bigint => c.insert + c.update + c.delete;
  // Largest first; equals in the order of their names, so that every machine says the same.
  return [...counts]
    .sort(([a, x], [b, y]) => (rows(x) === rows(y) ? (a < b ? -1 : 1) : rows(x) > rows(y) ? -1 : 1))
    .map(([, c]) => c);
}

function tenantsIn(change: Change, at: number): readonly Value[] {
  const [before, after] = [beforeOf(change), afterOf(change)];
  const values = [
    ...(before === null ? [] : [before[at] ?? null]),
    ...(after === null ? [] : [after[at] ?? null]),
  ];
  const [first, second] = values;
  if (first === undefined) return [];
  return second === undefined || nameOf(first) === nameOf(second) ? [first] : [first, second];
}

/** How a tenant is called. Values of different kinds are different tenants and may look alike in no other way. */
export function nameOf(value: Value): string {
  if (value === null) return "NULL";
  if (typeof value === "string") return value;
  if (typeof value === "bigint" || typeof value === "number") return String(value);
  return "bytes";
}

/** The tenants as rules see them; `sizes` are their rows in the table, by name, where the target was asked. */
export function policyTenants(
  found: TableTenants,
  sizes: ReadonlyMap<string, bigint> | null,
): readonly PolicyTenant[] | null {
  return (
    found.tenants?.map((c, i) => ({
      name: found.isMasked ? `····@${i + 1}` : nameOf(c.value),
      insert: c.insert,
      update: c.update,
      delete: c.delete,
      ...(sizes === null ? {} : { rowsBefore: sizes.get(nameOf(c.value)) ?? 0n }),
    })) ?? null
  );
}

/** Different tenants over all tables; null where those of one table cannot be told. */
export function tenantCount(byTable: Readonly<Record<string, TableTenants>>): bigint | null {
  const names = new Set<string>();
  for (const { tenants } of Object.values(byTable)) {
    if (tenants === null) return null;
    for (const c of tenants) names.add(nameOf(c.value));
  }
  return BigInt(names.size);
}

/**
 * How many rows each of the tenants has in the target now, where a cap of an enabled policy asks for a share or for what
 * remains of a tenant: else the target is not read for it. Null where nobody asks, or the target cannot tell.
 */
export async function tenantSizes(
  target: Target | null,
  table: string,
  found: TableTenants,
  policies: CompiledPolicies,
): Promise<ReadonlyMap<string, bigint> | null> {
  const { tenants, column } = found;
  if (tenants === null || target?.countByValue === undefined || !isAsked(table, policies)) return null;
  const counts = await target.countByValue(
    table,
    column,
    tenants.map((t) => t.value),
  );
  return new Map(tenants.map((t, i) => [nameOf(t.value), BigInt(counts[i] ?? 0)]));
}

function isAsked(table: string, policies: CompiledPolicies): boolean {
  const caps = policies.files.flatMap(({ file }) => (file.enabled ? file.caps : []));
  return caps.some(({ on, perTenant }) => {
    if (on.kind === "plan" || perTenant === null) return false;
    const asks = perTenant.shareMillionths !== null || perTenant.remaining !== null;
    return asks && on.globs.some((g) => matchesGlob(table, g));
  });
}
