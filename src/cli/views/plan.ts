/** A plan as screens and `--json` show it; every figure comes from its rows, its target and policy. */
import type { PlanStatement } from "../../approval/plan-statement.js";
import { shortDigest } from "../../base/digest.js";
import type { NextStep } from "../../base/errors.js";
import type { TableShape } from "../../changeset/change.js";
import type { Summary } from "../../changeset/summarise.js";
import type { Verdict } from "../../environment/evidence.js";
import type { Decision } from "../../policy/decision.js";
import { card, type Card, type CardFacts } from "../../render/card.js";
import { agreement } from "../../render/envcheck.js";
import { type PatternView, patternWords, rareTransitions } from "../../render/patterns.js";
import type { EffectLine, PlanView } from "../../render/plan.js";
import { patternViews, rowViews, type Showing } from "./rows.js";

/** What is known of a plan where it is shown. */
export interface PlanFactsView {
  readonly id: string;
  readonly file: string | null;
  readonly statement: PlanStatement;
  readonly summary: Summary;
  readonly shapes: readonly TableShape[];
  readonly decision: Decision;
  /** The verdict as read on this machine now; null where the target was not asked. */
  readonly verdict: Verdict | null;
  readonly description: string | null;
  readonly how: Showing;
  readonly next: readonly NextStep[];
}

/** The plan's screen. */
export function planView(f: PlanFactsView): PlanView {
  const { statement, summary } = f;
  const verdict = f.verdict?.name ?? statement.target.verdict;
  return {
    banner: {
      verdict,
      target: statement.target.name,
      note: f.verdict === null ? "as read by the requester's machine" : agreement(f.verdict.evidence),
    },
    id: f.id,
    file: f.file,
    effect: effectLines(statement, summary),
    expectation: expectationOf(statement),
    card: summary.rows === 0 ? null : planCard(f),
    odd: { rows: [], total: 0 },
    patterns: patternViews(summary, f.how),
    // A handful of rows is all of them; a sample of everything says nothing new.
    sample: rowViews(summary.sample, f.shapes, f.how),
    schemaChanges: statement.schema.changes.map((c) => `${c.action} ${c.object} ${c.name}`),
    sequences: statement.sequences,
    volatile: statement.volatile,
    notices: statement.notices,
    decision: f.decision,
    bundle: shortDigest(statement.bundle),
    undo: undoWords(statement),
    expiresAt: statement.expires_at,
    next: f.next,
  };
}

/** The five slots, computed here. */
export function planCard(f: PlanFactsView): Card {
  return card(cardFacts(f));
}

/** What the card and the approver's question are computed from. */
export function cardFacts(f: PlanFactsView): CardFacts {
  const { statement, summary, verdict } = f;
  const patterns = patternViews(summary, f.how);
  return {
    target: statement.target.name,
    description: f.description,
    verdict: verdict?.name ?? statement.target.verdict,
    contradicted: verdict?.contradicted ?? false,
    evidence: verdict?.evidence ?? [],
    readHere: verdict !== null,
    planned: { verdict: statement.target.verdict, samePlace: true },
    tables: summary.tables.map((t) => {
      const planned = statement.changeset.tables.find((p) => p.name === t.name);
      return {
        name: t.name,
        insert: t.insert,
        update: t.update,
        delete: t.delete,
        rowsBefore: planned?.rows_before ?? 0,
        origin: planned?.origin ?? "unknown",
        columns: t.columns,
      };
    }),
    patterns,
    schemaChanges: statement.schema.changes.length,
    requestedBy: requestedBy(statement),
    committed: null,
    againstDirection: [],
    externalEffects: [],
    expect: statement.job?.expect ?? null,
    guess: null,
    sums: [],
    odd: oddOf(patterns),
    undo: {
      rehearsed:
        statement.from === null
          ? { kind: "not", why: "the way back is kept row by row; it has not been rehearsed" }
          : { kind: "all", identical: statement.changeset.rows, of: statement.changeset.rows },
      irreversible: statement.schema.changes.filter((c) => c.undo !== "yes").map((c) => c.undo),
    },
  };
}

/** Rows unlike the rest, by the rules that are computed from patterns alone. */
function oddOf(patterns: readonly PatternView[]): CardFacts["odd"] {
  const rare = rareTransitions(patterns);
  const rows = rare.reduce((sum, r) => sum + r.pattern.rows, 0);
  return {
    rules: 1,
    rows,
    findings: rare.map((r) => ({
      rule: "rare-transition",
      rows: r.pattern.rows,
      words: patternWords(r.pattern),
    })),
  };
}

function requestedBy(statement: PlanStatement): "person" | "ci" | "agent" {
  const { claims } = statement.requester;
  if (claims["agent"] !== undefined) return "agent";
  return claims["ci"] === undefined ? "person" : "ci";
}

/** The result of `plan` and `show` in JSON; the contract's fields first. */
export function planResult(f: PlanFactsView): Record<string, unknown> {
  const { statement, summary } = f;
  return {
    plan: f.id,
    file: f.file,
    digest: f.statement.changeset.digest,
    decision: f.decision.kind,
    effect: {
      rows: summary.rows,
      tables: summary.tables.map((t) => ({
        table: t.name,
        insert: t.insert,
        update: t.update,
        delete: t.delete,
        rows_before: statement.changeset.tables.find((p) => p.name === t.name)?.rows_before ?? 0,
        columns: t.columns,
      })),
    },
    has_changes: summary.rows > 0 || statement.schema.changes.length > 0,
    target: {
      name: statement.target.name,
      environment: statement.target.verdict,
      identity: statement.target.identity,
    },
    job:
      statement.job === null
        ? null
        : { name: statement.job.name, kind: statement.job.kind, source: statement.job.source },
    from: statement.from,
    requester: statement.requester.person,
    requirement: f.decision.requirement,
    rules: f.decision.rules.map((r) => ({ rule: r.rule, at: r.at, effect: r.effect, because: r.because })),
    card: summary.rows === 0 ? null : planCard(f),
    volatile: statement.volatile,
    notices: statement.notices,
    expires_at: statement.expires_at,
  };
}

function effectLines(statement: PlanStatement, summary: Summary): EffectLine[] {
  return summary.tables.flatMap((t) => {
    const planned = statement.changeset.tables.find((p) => p.name === t.name);
    return (["insert", "update", "delete"] as const)
      .filter((op) => t[op] > 0)
      .map((op) => ({
        table: t.name,
        op,
        rows: t[op],
        rowsBefore: planned?.rows_before ?? 0,
        columns: t.columns,
        origin: planned?.origin ?? "unknown",
      }));
  });
}

function expectationOf(statement: PlanStatement): string | null {
  const expect = statement.job?.expect ?? null;
  if (expect === null) return null;
  const words = Object.entries(expect).flatMap(([table, ops]) =>
    Object.entries(ops).map(([op, [least, most]]) => `${least}..${most} ${op}s of ${table}`),
  );
  return `Expected ${words.join(", ")}: inside.`;
}

function undoWords(statement: PlanStatement): string {
  const { from } = statement;
  if (from === null) return "every row is kept before it is written; holdpoint undo RUN merges it back";
  const { counts } = from;
  return (
    `takes back ${from.runs.join(", ")}: ${counts.put_back} put back, ${counts.merged} put back with later edits kept, ` +
    `${counts.nothing_to_do} nothing to do, ${counts.conflict} left as they are`
  );
}
