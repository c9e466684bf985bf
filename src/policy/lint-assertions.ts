/** Assertions that could not be asked: found by preparing them, so that a plan is not the first to find it out. */
import type { CompiledPolicies } from "./compile.js";
import type { LintFinding } from "./lint.js";
import { matchesGlob } from "./patterns.js";
import { columnOf } from "./schema.js";

/** Why a question cannot be asked of tables with these columns (null: not known which); null when it can. */
export type PrepareAssertion = (
  sql: string,
  tables: readonly { readonly name: string; readonly columns: readonly string[] | null }[],
) => string | null;

/** The tables of one target with their columns. */
export interface KnownSchema {
  readonly target: string;
  readonly tables: ReadonlyMap<string, readonly string[]>;
}

/**
 * Prepares every assertion, also of policies that are off, and with a target's schema looks for tables that it has not.
 * Without one the columns are taken from the question itself: then syntax, table names and functions are checked, and
 * whether columns are called as they are in a plan.
 */
export function lintAssertions(
  policies: CompiledPolicies,
  prepare: PrepareAssertion,
  schema: KnownSchema | null,
): readonly LintFinding[] {
  return [
    ...assertionFindings(policies, prepare, schema),
    ...(schema === null ? [] : globFindings(policies, schema)),
  ];
}

function assertionFindings(
  policies: CompiledPolicies,
  prepare: PrepareAssertion,
  schema: KnownSchema | null,
): LintFinding[] {
  const all = policies.files.flatMap(({ file }) =>
    file.assertions.map((a) => ({ ...a, isOn: file.enabled })),
  );
  return all.flatMap((a): LintFinding[] => {
    const at = columnOf(a.at);
    // An example that is off names somebody else's tables and columns: there only the question itself is looked at.
    const held = a.isOn ? schema : null;
    const missing = a.tables.filter((t) => held?.tables.has(t) === false);
    if (held !== null && missing.length > 0) {
      const what = `${a.id} is never asked: ${held.target} has no table ${missing.join(", ")}`;
      return [{ at, severity: "warning", kind: "no-such-table", what }];
    }
    const why = prepare(
      a.sql,
      a.tables.map((name) => ({ name, columns: held?.tables.get(name) ?? null })),
    );
    if (why === null) return [];
    return [{ at, severity: "error", kind: "bad-assertion", what: `${a.id} cannot be asked: ${why}` }];
  });
}

/** A cap whose pattern meets no table guards nothing, and nobody notices. */
function globFindings(policies: CompiledPolicies, { target, tables }: KnownSchema): LintFinding[] {
  const names = [...tables.keys()];
  return policies.files
    .filter(({ file }) => file.enabled)
    .flatMap(({ file }) => file.caps)
    .flatMap((cap): LintFinding[] => {
      if (cap.on.kind === "plan") return [];
      const idle = cap.on.globs.filter((g) => !names.some((name) => matchesGlob(name, g)));
      if (idle.length === 0) return [];
      const what = `${cap.id} names ${idle.join(", ")}, and ${target} has no such table`;
      return [{ at: columnOf(cap.at), severity: "warning", kind: "no-such-table", what }];
    });
}
