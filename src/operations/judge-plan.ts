/**
 * From rows to a decision: what policy is shown about an effect, built the same way when a plan is made,
 * shown, approved and applied. It reads rows and target, never what the plan's statement claims of them.
 */
import type { PlanStatement } from "../approval/plan-statement.js";
import type { Person } from "../approval/requirement.js";
import type { Digest } from "../base/digest.js";
import type { ChangeSource } from "../changeset/change.js";
import { summarise, type Summary } from "../changeset/summarise.js";
import type { Verdict } from "../environment/evidence.js";
import { decide } from "../policy/decide.js";
import type { Decision, PolicyInput, PolicyTable } from "../policy/decision.js";
import type { Toolbox } from "./toolbox.js";

/** Rows shown as a sample, chosen by the plan's own digest. */
export const SAMPLE_ROWS = 5;
/** A column with more distinct transitions than this is shown as their number. */
const PATTERNS = 8;

/** The effect in numbers and patterns. `seed` is the ChangeSet's digest, so everyone sees the same sample. */
export function summaryOf(source: ChangeSource, seed: Digest, sampleSize: number = SAMPLE_ROWS): Summary {
  return summarise(source, { sampleSeed: seed, sampleSize, patternLimit: PATTERNS });
}

/** The parts of a statement that policy is told about beside rows and target: they can only make rules stricter. */
export type JudgedClaims = Pick<
  PlanStatement,
  "job" | "from" | "requester" | "reason" | "ticket" | "mode"
> & {
  readonly schemaChanges: number;
};

/** The decision about one effect, computed anew. */
export function decideEffect(
  tools: Toolbox,
  args: {
    readonly verdict: Verdict;
    readonly target: { readonly name: string; readonly adapter: string; readonly pinned: boolean };
    readonly summary: Summary;
    readonly rowsBefore: Readonly<Record<string, number>>;
    readonly claims: JudgedClaims;
  },
): Decision {
  return decide(tools.project.policies, policyInput(args, tools.project.people, tools.clock.now()));
}

function policyInput(
  args: Parameters<typeof decideEffect>[1],
  people: readonly Person[],
  now: Date,
): PolicyInput {
  const { verdict, summary, claims } = args;
  const tables = summary.tables.map((t) => policyTable(t, args.rowsBefore[t.name] ?? 0));
  const person = people.find((p) => p.name === claims.requester.person);
  return {
    environment: verdict.name,
    guardedAs: verdict.guardedAs,
    contradicted: verdict.contradicted,
    target: args.target,
    kind: claims.from?.kind ?? "job",
    job: {
      name: claims.job?.name ?? claims.from?.kind ?? "",
      kind: claims.job?.kind ?? claims.from?.kind ?? "",
      source: claims.job?.source ?? "",
      declaresScope: (claims.job?.scope ?? null) !== null,
      declaresExpect: (claims.job?.expect ?? null) !== null,
      // A claim may only make things stricter: a whole table touched by one job is never "selective".
      selective: (claims.job?.selective ?? true) && !(claims.job !== null && tables.some(touchesWholeTable)),
    },
    requester: {
      person: claims.requester.person ?? "",
      known: person !== undefined,
      groups: person?.groups ?? [],
      kind: requesterKind(claims.requester.claims),
    },
    rows: {
      total: sum(tables, (t) => t.insert + t.update + t.delete),
      insert: sum(tables, (t) => t.insert),
      update: sum(tables, (t) => t.update),
      delete: sum(tables, (t) => t.delete),
      tables: BigInt(tables.length),
    },
    tables,
    schemaChanges: BigInt(claims.schemaChanges),
    reason: claims.reason ?? "",
    ticket: claims.ticket ?? "",
    mode: claims.mode,
    now,
  };
}

function policyTable(t: Summary["tables"][number], rowsBefore: number): PolicyTable {
  const share = (n: number): number => (rowsBefore === 0 ? 0 : n / rowsBefore);
  return {
    name: t.name,
    insert: BigInt(t.insert),
    update: BigInt(t.update),
    delete: BigInt(t.delete),
    rowsBefore: BigInt(rowsBefore),
    rowsAfter: BigInt(rowsBefore + t.insert - t.delete),
    deletedShare: share(t.delete),
    updatedShare: share(t.update),
    columns: t.columns,
    levelled: rowsBefore > 1 && t.update >= rowsBefore ? t.levelledTo.map((l) => l.column) : [],
    origin: "unknown",
  };
}

/** Agents and pipelines say so themselves; it can only tighten, so it may be believed. */
function requesterKind(claims: Readonly<Record<string, string>>): "person" | "ci" | "agent" {
  if (claims["agent"] !== undefined) return "agent";
  return claims["ci"] === undefined ? "person" : "ci";
}

function touchesWholeTable(t: PolicyTable): boolean {
  return t.rowsBefore > 1n && (t.update >= t.rowsBefore || t.delete >= t.rowsBefore);
}

function sum(tables: readonly PolicyTable[], of: (t: PolicyTable) => bigint): bigint {
  return tables.reduce((total, t) => total + of(t), 0n);
}
