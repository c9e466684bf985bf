/** Runs the tests that policies carry, and words a failing one like a diff. */
import type { AssertionResult } from "./assertions.js";
import type { CompiledFile } from "./compile.js";
import { decide } from "./decide.js";
import type { Decision, PolicyInput, PolicyTable } from "./decision.js";
import { guardOf } from "./facts.js";
import { lineOf, type PolicyTest, type TestPlan, type TestTable } from "./schema.js";

/** How one test went. */
export interface TestOutcome {
  readonly name: string;
  /** `policies/production.yaml:61`. */
  readonly at: string;
  readonly passed: boolean;
  readonly decision: Decision;
  /** Lines beginning with `- ` (expected) and `+ ` (found); empty when the test passed. */
  readonly diff: readonly string[];
}

/**
 * Runs a file's tests against that file and the stop signs alone, as if it were enabled, so that a test
 * means the same whatever else lies in the folder.
 */
export function runPolicyTests(compiled: CompiledFile): readonly TestOutcome[] {
  const alone = { files: [{ ...compiled, file: { ...compiled.file, enabled: true } }] };
  return compiled.file.tests.map((test) => {
    const input = inputOfTest(test.plan);
    const assertions = compiled.file.assertions.map((assertion): AssertionResult => {
      const rows = test.plan.assertions[assertion.id] ?? 0;
      return { assertion, answer: { rows, sample: "" } };
    });
    const decision = decide(alone, input, assertions);
    const diff = differences(test, decision);
    return { name: test.name, at: lineOf(test.at), passed: diff.length === 0, decision, diff };
  });
}

function differences({ expect }: PolicyTest, decision: Decision): string[] {
  const lines: string[] = [];
  const compare = (what: string, expected: string, found: string): void => {
    if (expected !== found) lines.push(`- ${what.padEnd(8)}  ${expected}`, `+ ${what.padEnd(8)}  ${found}`);
  };
  compare("decision", expect.decision, decision.kind);
  const fired = decision.rules.filter((r) => r.effect !== "pass");
  if (expect.rules !== null)
    compare("rules", namesInWords(expect.rules), namesInWords(fired.map((r) => r.rule)));
  if (expect.people !== null) compare("people", String(expect.people), String(peopleOf(decision)));
  if (lines.length > 0) {
    for (const r of fired)
      lines.push(`  ${r.effect.padEnd(8)}  ${r.rule} (${r.at})${r.saw === "" ? "" : `: ${r.saw}`}`);
  }
  return lines;
}

function namesInWords(names: readonly string[]): string {
  return names.length === 0 ? "none" : [...new Set(names)].sort().join(", ");
}

function peopleOf(decision: Decision): number {
  return decision.requirement.slots.reduce((sum, slot) => sum + slot.people, 0);
}

/** The plan that a test's summary stands for. Sizes, shares and totals follow from the counts. */
export function inputOfTest(plan: TestPlan): PolicyInput {
  const tables = plan.tables.map(tableOfTest);
  const sum = (of: (t: PolicyTable) => bigint): bigint => tables.reduce((total, t) => total + of(t), 0n);
  const [insert, update, deleted] = [sum((t) => t.insert), sum((t) => t.update), sum((t) => t.delete)];
  const { environment, contradicted } = plan;
  const guardedAs = guardOf({
    environment,
    contradicted,
    guardedAs: environment === "unproven" ? "production" : environment,
  });
  return {
    environment,
    guardedAs,
    contradicted,
    target: { name: plan.target, adapter: "sqlite", pinned: environment !== "unproven" },
    kind: plan.kind,
    job: {
      name: plan.job,
      kind: plan.kind === "job" ? "sql" : plan.kind,
      source: "sha256:0000000000000000000000000000000000000000000000000000000000000000",
      declaresScope: plan.declaresScope,
      declaresExpect: plan.declaresExpect,
      selective: plan.selective,
      scope: plan.scope,
      commit: "0000000",
      clean: true,
    },
    requester: { ...plan.requester, known: plan.requester.person !== "" },
    rows: {
      total: insert + update + deleted,
      insert,
      update,
      delete: deleted,
      tables: BigInt(tables.length),
      tenants: BigInt(new Set(tables.flatMap((t) => (t.tenants ?? []).map((x) => x.name))).size),
    },
    tables,
    schemaChanges: plan.schemaChanges,
    sequences: plan.sequences,
    reason: plan.reason,
    ticket: plan.ticket,
    mode: "rows",
    now: plan.now,
    act: plan.act,
    caller: plan.requester.kind,
    planAgeSeconds: plan.planAgeSeconds,
    waves: plan.waves,
    checks: plan.checks,
    snapshot: plan.snapshot,
    history: plan.history,
    evidence: plan.evidence,
  };
}

function tableOfTest(t: TestTable): PolicyTable {
  const share = (n: bigint): number => (t.rowsBefore === 0n ? 0 : Number(n) / Number(t.rowsBefore));
  return {
    ...t,
    rowsAfter: t.rowsBefore + t.insert - t.delete,
    deletedShare: share(t.delete),
    updatedShare: share(t.update),
    origin: "job",
  };
}
