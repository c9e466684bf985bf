/**
 * From rows to a decision: what policy is shown about an effect, built the same way when a plan is made,
 * shown, approved and applied. It reads rows, target and ledger, never what the plan's statement claims of them.
 */
import type { PlanStatement, Requester } from "../../approval/plan-statement.js";
import type { Person } from "../../approval/requirement.js";
import { parseStamp } from "../../base/clock.js";
import { type Digest, digestOf } from "../../base/digest.js";
import type { ChangeSource } from "../../changeset/change.js";
import { type SampleSource, summarise, type Summary, SummaryInProgress } from "../../changeset/summarise.js";
import type { Verdict } from "../../environment/evidence.js";
import { type AssertionResult, assertionsFor, runAssertions } from "../../policy/assertions.js";
import type { CompiledPolicies, CompiledRule } from "../../policy/compile.js";
import { decide } from "../../policy/decide.js";
import type {
  Decision,
  PolicyEvidence,
  PolicyInput,
  PolicyTable,
  PolicyTenant,
} from "../../policy/decision.js";
import type { Target } from "../../target/target.js";
import { assertionRunner } from "./assert-rows.js";
import { historyOf, touchedTables } from "../recall/history.js";
import { levelledColumns } from "./levelled.js";
import { expectRules, type Missed, missedExpectations } from "./scope.js";
import { protectedLost } from "./protected.js";
import { policyTenants, tenantCount, type TableTenants, tenantsByTable, tenantSizes } from "./tenants.js";
import type { Toolbox, WorkingChanges } from "../toolbox.js";

/** Rows shown as a sample, chosen by the plan's own digest. */
export const SAMPLE_ROWS = 5;
/** A column with more distinct transitions than this is shown as their number. */
const PATTERNS = 8;

/** The effect in numbers and patterns. `seed` is the ChangeSet's digest, so everyone sees the same sample. */
export function summaryOf(source: ChangeSource, seed: Digest, sampleSize: number = SAMPLE_ROWS): Summary {
  return summarise(source, { sampleSeed: seed, sampleSize, patternLimit: PATTERNS });
}

/** The patterns alone: without a sample no seed is needed, and nothing is digested for one. */
export function patternsOf(source: ChangeSource): Pick<Summary, "patterns"> {
  return summarise(source, { sampleSeed: digestOf(""), sampleSize: 0, patternLimit: PATTERNS });
}

/** {@link summaryOf} for whoever has the changes passing anyway: first a sink, then the summary. */
export function startSummary(): SummaryInProgress {
  return new SummaryInProgress(PATTERNS);
}

/** What {@link startSummary} saw, with the sample of `source`, which holds the same changes. */
export function endSummary(seen: SummaryInProgress, source: SampleSource, seed: Digest): Summary {
  return seen.finish(source, { sampleSeed: seed, sampleSize: SAMPLE_ROWS });
}

/**
 * The parts of a statement that policy is told about beside rows and target: what will be done (sequences, waves,
 * checks), and what can only make rules stricter.
 */
export type JudgedClaims = Pick<
  PlanStatement,
  "job" | "from" | "requester" | "reason" | "ticket" | "mode" | "waves" | "checks" | "snapshot"
> & {
  readonly schemaChanges: number;
  readonly sequences: number;
  /** Where a table's rows come from, as its rehearsal found; the rows themselves are asked first. */
  readonly origins: Readonly<Record<string, PlanStatement["changeset"]["tables"][number]["origin"]>>;
  /** When the plan was made; null while it is being made. */
  readonly createdAt: string | null;
};

/** The claims of a plan that exists. */
export function claimsOf(statement: PlanStatement): JudgedClaims {
  return {
    ...statement,
    schemaChanges: statement.schema.changes.length,
    sequences: statement.sequences.length,
    origins: Object.fromEntries(statement.changeset.tables.map((t) => [t.name, t.origin])),
    createdAt: statement.created_at,
  };
}

/** One effect on one target, as far as policy is concerned. */
export interface Effect {
  /** The time by which freeze windows and ages are judged: {@link ./time.ts timeOf} where a target is open. */
  readonly now: Date;
  /** What the decision is for. `apply` is the stricter. */
  readonly act: "plan" | "apply";
  readonly verdict: Verdict;
  readonly target: { readonly name: string; readonly adapter: string; readonly pinned: boolean };
  /** Asked about rows outside the plan; null where only the plan is at hand. */
  readonly reach: Target | null;
  readonly changes: WorkingChanges;
  readonly summary: Summary;
  /** A changed table that is missing here denies: a share of an unknown number is not zero. */
  readonly rowsBefore: Readonly<Record<string, number>>;
  readonly claims: JudgedClaims;
}

/** What policy is asked, with the answers to its assertions. */
export interface Judgement {
  readonly input: PolicyInput;
  readonly assertions: readonly AssertionResult[];
  /** The target that was asked, so that another requester's history can be asked too. */
  readonly reach: Target | null;
  /** Declared counts that the effect misses. */
  readonly missed: readonly Missed[];
}

/** The decision about one effect, computed anew. */
export async function decideEffect(tools: Toolbox, effect: Effect): Promise<Decision> {
  return decisionOn(tools, await judgementOf(tools, effect));
}

/** The decision about what was measured. */
export function decisionOn(tools: Toolbox, judgement: Judgement): Decision {
  return withMissed(decide(tools.project.policies, judgement.input, judgement.assertions), judgement);
}

/** A job that does not do what it declares is denied, whatever the policies say. */
export function withMissed(decision: Decision, { missed }: Judgement): Decision {
  if (missed.length === 0) return decision;
  return { ...decision, kind: "deny", rules: [...expectRules(missed), ...decision.rules] };
}

/** Measures one effect and asks the assertions about its rows. */
export async function judgementOf(tools: Toolbox, effect: Effect): Promise<Judgement> {
  const config = tools.project.config.targets[effect.target.name];
  const { policies } = tools.project;
  const tenants =
    config === undefined || config.tenant.length === 0 ? null : tenantsByTable(effect.changes, config);
  const measured = policyInput(effect, {
    levelled: await levelledColumns(effect.reach, effect.changes, effect.summary, effect.rowsBefore),
    protectedLost: protectedLost(effect.changes, config?.protect ?? []),
    tenants,
    tenantRows: await tenantRows(effect, tenants, policies),
    touched: asksFor(policies, /\bfirst_touch\b/) ? await touchedTables(tools, effect.target.name) : null,
  });
  const input = {
    ...measured,
    job: { ...measured.job, ...(await commitFacts(tools, effect.claims.job)) },
    ...askedBy(effect.claims.requester, tools.project.people),
    caller: callerOf(tools.claims()),
    history: await historyOf(tools, {
      target: effect.target.name,
      job: nameOf(effect.claims),
      requester: effect.claims.requester,
      reach: effect.reach,
    }),
  };
  const run = assertionRunner(effect.changes, (config?.mask ?? []).length > 0);
  const assertions = await runAssertions(assertionsFor(tools.project.policies, input), run);
  const missed = missedExpectations(effect.claims.job?.expect, effect.summary.tables);
  return { input, assertions, missed, reach: effect.reach };
}

/** Looked up only where some rule asks: git costs more than everything else here. */
async function commitFacts(
  tools: Toolbox,
  job: JudgedClaims["job"],
): Promise<Pick<PolicyInput["job"], "commit" | "clean">> {
  if (job === null || !asksFor(tools.project.policies, /\b(?:commit|clean)\b/)) return {};
  const found = await tools.committed(job);
  if (found === null) return {};
  return { clean: found.clean, ...(found.commit === null ? {} : { commit: found.commit }) };
}

/** Whether the condition of some rule that is on names such a word. */
function asksFor(policies: CompiledPolicies, word: RegExp): boolean {
  const asks = (r: CompiledRule): boolean => word.test(r.condition.expression.text);
  return policies.files.some(({ file, rules }) => file.enabled && rules.some(asks));
}

/** The same effect asked for by somebody else; the assertions are about rows and stand. */
export async function requestedBy(
  tools: Toolbox,
  judgement: Judgement,
  requester: Requester,
): Promise<Judgement> {
  const { target, job } = judgement.input;
  const history = await historyOf(tools, {
    target: target.name,
    job: job.name,
    requester,
    reach: judgement.reach,
  });
  return {
    ...judgement,
    input: { ...judgement.input, ...askedBy(requester, tools.project.people), history },
  };
}

/** What only the rows themselves tell, by table. */
interface RowFacts {
  readonly levelled: Readonly<Record<string, readonly string[]>>;
  readonly protectedLost: Readonly<Record<string, number>>;
  /** Null where the configuration names no tenant's column at all: a rule that asks must not pass because of that. */
  readonly tenants: Readonly<Record<string, TableTenants>> | null;
  /** The same as rules see them; null for a table whose tenants cannot be told. */
  readonly tenantRows: Readonly<Record<string, readonly PolicyTenant[] | null>>;
  /** Tables that completed runs changed; null where no rule asks. */
  readonly touched: ReadonlySet<string> | null;
}

async function tenantRows(
  effect: Effect,
  tenants: RowFacts["tenants"],
  policies: CompiledPolicies,
): Promise<RowFacts["tenantRows"]> {
  const rows: Record<string, readonly PolicyTenant[] | null> = {};
  for (const [table, found] of Object.entries(tenants ?? {}))
    rows[table] = policyTenants(found, await tenantSizes(effect.reach, table, found, policies));
  return rows;
}

function policyInput(effect: Effect, rows: RowFacts): Omit<PolicyInput, "requester" | "caller" | "history"> {
  const { verdict, summary, claims, now } = effect;
  const tables = summary.tables.map((t) =>
    policyTable(t, effect.rowsBefore[t.name], rows, claims.origins[t.name] ?? "unknown"),
  );
  return {
    environment: verdict.name,
    guardedAs: verdict.guardedAs,
    contradicted: verdict.contradicted,
    target: effect.target,
    kind: claims.from?.kind ?? "job",
    job: {
      name: nameOf(claims),
      kind: claims.job?.kind ?? claims.from?.kind ?? "",
      source: claims.job?.source ?? "",
      declaresScope: (claims.job?.scope ?? null) !== null,
      declaresExpect: (claims.job?.expect ?? null) !== null,
      scope: claims.job?.scope ?? null,
      // A claim may only make things stricter: a whole table touched by one job is never "selective".
      selective: (claims.job?.selective ?? true) && !(claims.job !== null && tables.some(touchesWholeTable)),
    },
    rows: {
      total: sum(tables, (t) => t.insert + t.update + t.delete),
      insert: sum(tables, (t) => t.insert),
      update: sum(tables, (t) => t.update),
      delete: sum(tables, (t) => t.delete),
      tables: BigInt(tables.length),
      ...asFact("tenants", rows.tenants === null ? null : tenantCount(rows.tenants)),
    },
    tables,
    schemaChanges: BigInt(claims.schemaChanges),
    sequences: BigInt(claims.sequences),
    reason: claims.reason ?? "",
    ticket: claims.ticket ?? "",
    mode: claims.mode,
    now,
    act: effect.act,
    ...ageOf(claims.createdAt, now),
    waves: claims.waves !== null,
    checks: BigInt(claims.checks.length),
    // Where the target was not asked nothing is known of it now, and a rule that reads it denies.
    ...(effect.reach === null ? {} : { evidence: evidenceOf(verdict) }),
    snapshot: claims.snapshot.level,
  };
}

function evidenceOf(verdict: Verdict): readonly PolicyEvidence[] {
  return verdict.evidence
    .filter((e) => e.side === "target")
    .map(({ source, says, strength, state, detail }) => ({ source, says, strength, state, detail }));
}

/** A fact that is not known is absent, not null: a rule that reads it is an error. */
function asFact<K extends string, T>(name: K, value: T | null): { readonly [_ in K]?: T } {
  const known: { [_ in K]?: T } = {};
  if (value !== null) known[name] = value;
  return known;
}

/** A plan dated in the future has no age that can be believed: it stays unknown, and a rule that asks denies. */
function ageOf(createdAt: string | null, now: Date): Pick<PolicyInput, "planAgeSeconds"> {
  if (createdAt === null) return { planAgeSeconds: 0n };
  const made = parseStamp(createdAt)?.getTime();
  // A minute covers two clocks that differ; more is not a difference of clocks.
  if (made === undefined || made > now.getTime() + 60_000) return {};
  return { planAgeSeconds: BigInt(Math.max(0, Math.floor((now.getTime() - made) / 1000))) };
}

function askedBy(requester: Requester, people: readonly Person[]): Pick<PolicyInput, "requester"> {
  const person = people.find((p) => p.name === requester.person);
  return {
    requester: {
      person: requester.person ?? "",
      known: person !== undefined,
      groups: person?.groups ?? [],
      kind: requesterKind(requester),
    },
  };
}

/** Claims can hide a pipeline; its token does not. */
function requesterKind(requester: Requester): "person" | "ci" | "agent" {
  const claimed = callerOf(requester.claims);
  return requester.how === "ci-token" && claimed === "person" ? "ci" : claimed;
}

function nameOf(claims: Pick<JudgedClaims, "job" | "from">): string {
  return claims.job?.name ?? claims.from?.kind ?? "";
}

/** A size that is not known is below zero, which no rule reasons with: the decision denies and names the table. */
const UNKNOWN_SIZE = -1;

function policyTable(
  t: Summary["tables"][number],
  known: number | undefined,
  rows: RowFacts,
  claimed: JudgedClaims["origins"][string],
): PolicyTable {
  const rowsBefore = known ?? UNKNOWN_SIZE;
  const share = (n: number): number => (rowsBefore <= 0 ? 0 : n / rowsBefore);
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
    levelled: rows.levelled[t.name] ?? [],
    protectedLost: BigInt(rows.protectedLost[t.name] ?? 0),
    origin: t.origin === "unknown" ? claimed : t.origin,
    cascaded: BigInt(knownFrom("cascade", t, claimed)),
    triggered: BigInt(knownFrom("trigger", t, claimed)),
    ...asFact("tenants", tenantsOf(t.name, rows)),
    ...asFact("firstTouch", rows.touched === null ? null : !rows.touched.has(t.name)),
  };
}

function tenantsOf(table: string, rows: RowFacts): readonly PolicyTenant[] | null {
  if (rows.tenants === null) return null;
  return Object.hasOwn(rows.tenantRows, table) ? (rows.tenantRows[table] ?? null) : [];
}

/** Rows whose origin they say themselves; all of them where they say nothing and the rehearsal found one for the table. */
function knownFrom(
  origin: "cascade" | "trigger",
  t: Summary["tables"][number],
  claimed: JudgedClaims["origins"][string],
): number {
  if (t.origin === "unknown" && claimed === origin) return t.insert + t.update + t.delete;
  return origin === "cascade" ? t.cascaded : t.triggered;
}

/** Agents and pipelines say so themselves; it can only tighten, so it may be believed. */
export function callerOf(claims: Readonly<Record<string, string>>): "person" | "ci" | "agent" {
  if (claims["agent"] !== undefined) return "agent";
  return claims["ci"] === undefined ? "person" : "ci";
}

function touchesWholeTable(t: PolicyTable): boolean {
  return t.rowsBefore > 1n && (t.update >= t.rowsBefore || t.delete >= t.rowsBefore);
}

function sum(tables: readonly PolicyTable[], of: (t: PolicyTable) => bigint): bigint {
  return tables.reduce((total, t) => total + of(t), 0n);
}
