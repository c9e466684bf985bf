/** The part of a target's configuration that guards it, as the trust bundle holds it. */
import type { Json } from "../base/canonical.js";
import type { Collector, GuardCommand } from "./guard-sections.js";
import type { ReverseCell } from "./append-only-section.js";
import type { TargetConfig } from "./target-section.js";

/**
 * The part of a target's configuration that guards it, for the trust bundle: what a requester could otherwise
 * edit to get past a rule. Never `url`, which differs from machine to machine, and never `identity`, which is
 * compared with the marker itself. Configurations that mean the same give the same value.
 */
export function guardingOf(target: TargetConfig): Readonly<Record<string, Json>> {
  const guards = (commands: Readonly<Record<string, GuardCommand>>): Json =>
    Object.fromEntries(
      Object.entries(commands).map(([n, c]) => [
        n,
        { command: [...c.command], timeout_seconds: c.timeoutSeconds },
      ]),
    );
  const pauses = (rules: TargetConfig["pauseWhile"]): Json =>
    Object.fromEntries(
      Object.entries(rules).map(([n, r]) => [
        n,
        // Decimal text: canonical bytes hold whole numbers only.
        {
          ...collectorJson(r.collector),
          timeout_seconds: r.timeoutSeconds,
          pause_over: r.pauseOver === null ? null : String(r.pauseOver),
          stop_over: r.stopOver === null ? null : String(r.stopOver),
        },
      ]),
    );
  return {
    environment: target.environment,
    foreign_keys: target.foreignKeys,
    // That two roles are kept apart is guarded; the addresses differ from machine to machine, like `url`.
    ...(target.planUrl === null ? {} : { plan_url: true }),
    append_only: [...target.appendOnly].sort(),
    ...(target.ledgers === "one" ? {} : { ledgers: target.ledgers }),
    ...(Object.keys(target.reversals).length === 0 ? {} : { append_only_reverse: reversalsJson(target) }),
    mask: target.mask.map((m) => `${m.table}.${m.column}`).sort(),
    // What is not set is left out: a bundle that was pinned before these keys existed stays the same.
    ...(target.tenant.length === 0
      ? {}
      : { tenant: target.tenant.map((t) => `${t.table}.${t.column}`).sort() }),
    ...(target.protect.length === 0
      ? {}
      : {
          protect: Object.fromEntries(
            target.protect.map((p) => [`${p.table}.${p.column}`, [...p.values].sort()]),
          ),
        }),
    ...(target.newestRow.length === 0
      ? {}
      : {
          newest_row: Object.fromEntries(
            target.newestRow.map((n) => [`${n.table}.${n.column}`, n.withinSeconds]),
          ),
        }),
    ...(target.outbox.length === 0 ? {} : { outbox: [...target.outbox].sort() }),
    ...(target.sums.length === 0
      ? {}
      : { sums: Object.fromEntries(target.sums.map((s) => [`${s.table}.${s.column}`, s.unit])) }),
    rehearse_on: target.rehearseOn,
    ...(Object.keys(target.rehearsal).length === 0 ? {} : { rehearsal: { ...target.rehearsal } }),
    checks: guards(target.checks),
    hooks: guards(target.hooks),
    snapshot: { level: target.snapshot.level, keep_seconds: target.snapshot.keepSeconds },
    ...(Object.keys(target.pauseWhile).length === 0 ? {} : { pause_while: pauses(target.pauseWhile) }),
    ...(target.trust === null
      ? {}
      : { trust: { people: target.trust.people, groups: [...target.trust.groups].sort() } }),
  };
}

function reversalsJson({ reversals }: TargetConfig): Json {
  const cellJson = (cell: ReverseCell): Json => {
    switch (cell.kind) {
      case "is":
        return typeof cell.value === "bigint" ? { integer: cell.value.toString() } : { is: cell.value };
      case "column":
        return { column: cell.name };
      case "negate":
        return { negate: cell.name };
      case "next":
        return { next: true };
    }
  };
  return Object.fromEntries(
    Object.entries(reversals).map(([table, cells]) => [
      table,
      Object.fromEntries(Object.entries(cells).map(([column, cell]) => [column, cellJson(cell)])),
    ]),
  );
}

function collectorJson(c: Collector): Record<string, Json> {
  switch (c.kind) {
    case "command":
      return { command: [...c.command] };
    case "http":
      return { http: c.url };
    case "sql":
      return { sql: c.sql };
    case "lag":
      return { lag: "own" };
  }
}
