/** A plan as screens and `--json` show it; every figure comes from its rows, its target and policy. */
import type { PlannedUndo, PlanStatement } from "../../approval/plan-statement.js";
import { shortDigest } from "../../base/digest.js";
import type { NextStep } from "../../base/errors.js";
import type { TableShape } from "../../changeset/change.js";
import type { Odd } from "../../changeset/odd.js";
import type { Summary } from "../../changeset/summarise.js";
import type { Verdict } from "../../environment/evidence.js";
import type { Decision } from "../../policy/decision.js";
import type { EffectFacts } from "../../operations/judging/effect-facts.js";
import type { ValueOrigin } from "../../operations/toolbox.js";
import { card, type Card, type CardFacts } from "../../render/card.js";
import { ageInWords } from "../../operations/judging/examine.js";
import { agreement } from "../../render/envcheck.js";
import { count } from "../../render/numbers.js";
import type { EffectLine, PlanView } from "../../render/plan.js";
import { oddFacts, oddViews } from "./odd.js";
import { againstWords, leavingWords, sumWords } from "./facts.js";
import { patternViews, rowViews, type Showing } from "./rows.js";

/** What is known of a plan where it is shown. */
export interface PlanFactsView {
  readonly id: string;
  /** The plan's own, which an approval and an identity token name. */
  readonly digest: string;
  readonly file: string | null;
  readonly statement: PlanStatement;
  /** True where nothing proves yet which pipeline made it. */
  readonly isUnproven?: boolean;
  readonly summary: Summary;
  readonly shapes: readonly TableShape[];
  readonly decision: Decision;
  /** The verdict as read on this machine now; null where the target was not asked. */
  readonly verdict: Verdict | null;
  /** The identity that the target shows here; null where it was not asked or is not pinned. */
  readonly identity: string | null;
  readonly odd: Odd;
  readonly facts: EffectFacts;
  /** The way back as it was tried; null where it was not. */
  readonly undo: PlannedUndo | null;
  readonly description: string | null;
  /** Where the parts of the connection came from; absent where the target was not asked. */
  readonly origins?: readonly ValueOrigin[];
  /** What the reader said before they saw the plan; absent where nobody was asked. */
  readonly guess?: CardFacts["guess"];
  readonly how: Showing;
  /** What is written so far, where the command goes on below this screen. */
  readonly state?: string;
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
    inherited: inheritedParts(f.origins ?? []),
    id: f.id,
    file: f.file,
    effect: effectLines(statement, summary),
    expectation: expectationOf(statement, summary),
    card: summary.rows === 0 ? null : planCard(f),
    odd: { rows: oddViews(f.odd, f.shapes, f.how), total: f.odd.total },
    patterns: patternViews(summary, f.how),
    // A handful of rows is all of them; a sample of everything says nothing new.
    sample: rowViews(summary.sample, f.shapes, f.how),
    schemaChanges: statement.schema.changes.map(schemaWords),
    sequences: statement.sequences,
    volatile: statement.volatile,
    notices: noticesOf(f),
    decision: f.decision,
    bundle: shortDigest(statement.bundle),
    undo: undoWords(f),
    ...writingOf(statement),
    expiresAt: statement.expires_at,
    ...(f.state === undefined ? {} : { state: f.state }),
    next: f.next,
  };
}

/** One origin in JSON. */
export function originJson(o: ValueOrigin): Readonly<Record<string, unknown>> {
  return { part: o.part, from: o.from, inherited: o.inherited, age: o.age ?? null };
}

/** Parts of the address that came from the shell around: an address nobody typed here is the one that misleads. */
export function inheritedParts(origins: readonly ValueOrigin[]): readonly string[] {
  return origins
    .filter((o) => o.inherited)
    .map((o) => `${o.part}, inherited: ${[o.from, ...ageInWords(o)].join(", ")}`);
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
    ...(statement.rehearsal.clone === undefined ? {} : { clone: statement.rehearsal.clone.name }),
    planned: {
      verdict: statement.target.verdict,
      samePlace: verdict === null || f.identity === statement.target.identity,
    },
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
    source: f.facts.source,
    againstDirection: againstWords(f.facts, f.how),
    externalEffects: leavingWords(f.facts),
    expect: statement.job?.expect ?? null,
    guess: f.guess ?? null,
    sums: sumWords(f.facts),
    odd: oddFacts(f.odd, f.how),
    undo: {
      rehearsed: rehearsedOf(f.undo),
      irreversible: statement.schema.changes.filter((c) => c.undo !== "yes").map((c) => c.undo),
    },
  };
}

function rehearsedOf(undo: PlannedUndo | null): CardFacts["undo"]["rehearsed"] {
  if (undo === null) return { kind: "not", why: "this kind of target has no place to try it" };
  if (undo.rehearsed === "not") return { kind: "not", why: undo.why ?? "it could not be tried" };
  return { kind: undo.rehearsed, identical: undo.identical, of: undo.of };
}

function requestedBy(statement: PlanStatement): "person" | "ci" | "agent" {
  const { claims, how } = statement.requester;
  if (claims["agent"] !== undefined) return "agent";
  return claims["ci"] === undefined && how !== "ci-token" ? "person" : "ci";
}

/** The result of `plan` and `show` in JSON; the contract's fields first. */
export function planResult(f: PlanFactsView): Record<string, unknown> {
  const { statement, summary } = f;
  return {
    plan: f.id,
    file: f.file,
    digest: f.statement.changeset.digest,
    plan_digest: f.digest,
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
    origins: (f.origins ?? []).map(originJson),
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
    sums: f.facts.sums,
    mode: statement.mode,
    schema_changes: statement.schema.changes,
    volatile: statement.volatile,
    notices: noticesOf(f),
    writing: {
      waves: statement.waves,
      max_rows_per_second: statement.pace.max_rows_per_second,
      checks: statement.checks,
      put_back: statement.put_back === true,
      snapshot: statement.snapshot.level,
    },
    expires_at: statement.expires_at,
  };
}

/** In words where the plan says more than "one transaction": `waves 1%, 10%, 100%; check health after each, put back when it fails`. */
export function writingOf(s: PlanStatement): { readonly writing?: string } {
  const { max_rows_per_second: rate } = s.pace;
  const many = s.waves !== null && s.waves.length > 1;
  const checks = `${s.checks.length === 1 ? "check" : "checks"} ${s.checks.join(", ")} ${many ? "after each" : "afterwards"}`;
  const parts = [
    ...(s.waves === null ? [] : [many ? `waves ${s.waves.join(", ")}` : "batches of 1,000 rows"]),
    ...(rate === null ? [] : [`at most ${rate} rows a second`]),
    ...(s.checks.length === 0 ? [] : [s.put_back === true ? `${checks}, put back when one fails` : checks]),
    ...(s.snapshot.level === "rows" ? [] : [`snapshot of ${s.snapshot.level} before`]),
  ];
  return parts.length === 0 ? {} : { writing: parts.join("; ") };
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

/** Every declared range held against the counts; the words say where it is missed. */
function expectationOf(statement: PlanStatement, summary: Summary): string | null {
  const expect = statement.job?.expect ?? null;
  if (expect === null) return null;
  const ranges = Object.entries(expect).flatMap(([table, ops]) =>
    Object.entries(ops).flatMap(([op, [least, most]]) => {
      const found = countOfOp(summary, table, op);
      const words = `${count(least)}..${count(most)} ${op}s of ${table}`;
      if (found < least || found > most) return [`${words} (found ${count(found)}: OUTSIDE)`];
      return most === 0 ? [] : [words];
    }),
  );
  if (ranges.length === 0) return null;
  const outside = ranges.some((r) => r.endsWith("OUTSIDE)"));
  return `Expected ${ranges.join(", ")}${outside ? "." : ": inside."}`;
}

function countOfOp(summary: Summary, table: string, op: string): number {
  const found = summary.tables.find((t) => t.name === table);
  if (found === undefined) return 0;
  if (op === "insert" || op === "update" || op === "delete") return found[op];
  return found.insert + found.update + found.delete;
}

/** How the plan can be put back, for the line below policy. */
function undoWords(f: PlanFactsView): string {
  const taken = takenBackWords(f.statement);
  // Of nothing there is nothing to take back.
  if (taken === null && f.summary.rows === 0 && f.statement.schema.changes.length === 0) return "";
  const tried = triedWords(f.undo, placeTried(f.statement));
  return taken === null ? tried : `${taken}; ${tried}`;
}

/** A file was copied; on a server the way back was written and rolled back, there or on the clone of the job. */
function placeTried({ target, rehearsal }: PlanStatement): string {
  if (rehearsal.clone !== undefined) return `on the clone ${rehearsal.clone.name}`;
  return target.adapter === "sqlite" ? "on a private copy" : `on ${target.name} and rolled back`;
}

function triedWords(undo: PlannedUndo | null, place: string): string {
  if (undo === null || undo.rehearsed === "not")
    return "every row is kept before it is written; holdpoint undo RUN merges it back";
  const rows = `${count(undo.identical)} of ${count(undo.of)} rows came back identical`;
  return `rehearsed ${place}: ${rows}${undo.why === null ? "" : `; ${undo.why}`}`;
}

function takenBackWords(statement: PlanStatement): string | null {
  const { from } = statement;
  if (from === null) return null;
  const { counts } = from;
  return (
    `takes back ${from.runs.join(", ")}: ${counts.put_back} put back, ${counts.merged} put back with later edits kept, ` +
    `${counts.nothing_to_do} nothing to do, ${counts.conflict} left as they are`
  );
}

/** What becomes of a schema change on undo stands beside it: nobody signs for what they learn afterwards. */
function schemaWords(c: PlanStatement["schema"]["changes"][number]): string {
  const what = `${c.action} ${c.object} ${c.name}`;
  return c.undo === "yes" ? what : `${what}; no undo: ${c.undo}`;
}

/** The line by which a second person approves, with what policy asks of them. */
export function approveStep(plan: string, { requirement }: Decision): NextStep {
  const reason = requirement.reason ? ["--reason", "TEXT"] : [];
  return { actor: "approver", argv: ["holdpoint", "approve", plan, ...reason] };
}

/** What a reader must know beside the card: said by the plan, and found here. */
export function noticesOf({ statement, isUnproven }: PlanFactsView): readonly string[] {
  const unproven =
    "LOOK: not proven yet; whom it names as requester is its own word, and nobody can approve or apply it before holdpoint plan PLAN --prove";
  return [...(isUnproven === true ? [unproven] : []), ...modeNote(statement), ...statement.notices];
}

function modeNote(statement: PlanStatement): readonly string[] {
  if (statement.mode === "rows") return [];
  return [
    "mode script: the statements run again at apply, in one transaction that stays only if its effect is the signed one",
  ];
}
