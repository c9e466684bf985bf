/** Plan: run the job where nothing is kept, capture its ChangeSet, say what policy says, and sign it all. */
import { planDigest, planId, planStatementBytes } from "../approval/plan-statement-codec.js";
import type {
  PlanStatement,
  PlannedJob,
  PlanOrigin,
  Requester,
  ScriptStatement,
} from "../approval/plan-statement.js";
import { askersOf, CI_CLAIMS } from "../approval/requesters.js";
import { NAMESPACES } from "../approval/requirement.js";
import { stamp } from "../base/clock.js";
import type { Digest } from "../base/digest.js";
import { RefusedError, UsageError } from "../base/errors.js";
import type { TableShape } from "../changeset/change.js";
import type { Odd } from "../changeset/odd.js";
import type { Summary } from "../changeset/summarise.js";
import { targetConfigOf } from "../config/config.js";
import type { PreparedJob } from "../jobs/job.js";
import type { Decision } from "../policy/decision.js";
import { onRehearsalPlace, rehearseJob, type PlacedRehearsal } from "./rehearse.js";
import type { Rehearsal, SchemaChange, SchemaFacts, UndoRehearsal } from "../target/target.js";
import {
  decisionOn,
  endSummary,
  type JudgedClaims,
  judgementOf,
  requestedBy,
  startSummary,
} from "./judging/judge-plan.js";
import {
  type Examined,
  refuseContradiction,
  refuseOtherBundle,
  requireHistory,
  withTarget,
} from "./judging/examine.js";
import { refuseAppendOnly } from "./merging/append-only.js";
import { ciClaims } from "./judging/ci-claims.js";
import { refuseOverdueDebts } from "./debts.js";
import { rejectionInWords, rejectionsOfEffect } from "./recall/rejections.js";
import { highestLevel, type SnapshotLevel } from "../snapshot/snapshot.js";
import { type EffectFacts, effectFacts } from "./judging/effect-facts.js";
import { startOdd } from "./judging/odd.js";
import {
  claimsOfPipeline,
  type Pipeline,
  pipelineHere,
  proofOf,
  refuseUnproven,
} from "./consent/pipeline.js";
import { refuseOutsideScope, refuseSchemaOutsideScope, unexpected } from "./judging/scope.js";
import { noScripts, scriptOf, statementsOf } from "./judging/script.js";
import { type Pacing, plannedWaves } from "./writing/run-cut.js";
import { both, measure } from "./recall/stored-plan.js";
import { timeOf } from "./judging/time.js";
import type { SigningKey, Toolbox, WorkingChanges } from "./toolbox.js";

/** How long a plan may be applied when nobody says otherwise. */
export const PLAN_LIFETIME_SECONDS = 24 * 3600;

/** More names would only make the ledger's entry long. */
const MOST_RULES_RECORDED = 20;

/** What the requester asks for. */
export interface PlanRequest {
  readonly on: string;
  readonly job: PreparedJob;
  readonly reason: string | null;
  readonly ticket: string | null;
  readonly key: string | undefined;
  readonly out: string | undefined;
  readonly lifetimeSeconds?: number;
  /** Waves, rate or one transaction; the defaults of {@link plannedWaves} where nothing is said. */
  readonly pacing?: Pacing;
  /** Put a wave back when a check fails after it. */
  readonly putBack?: boolean;
  /** What is kept before the first write, where that is more than the configuration says. */
  readonly snapshot?: SnapshotLevel;
  /** How it is to be written; where nothing is said, as rows unless the job changes the schema. */
  readonly mode?: "rows" | "script";
  /** Whether a module or command is run twice, where the command line says so. */
  readonly again?: "always" | "never";
}

/** A plan as it was made, for the screen and for `--json`. */
export interface PlanMade {
  readonly id: string;
  readonly digest: Digest;
  readonly file: string;
  readonly statement: PlanStatement;
  readonly summary: Summary;
  readonly shapes: readonly TableShape[];
  readonly decision: Decision;
  readonly examined: Examined;
  readonly odd: Odd;
  readonly facts: EffectFacts;
  /** The effect is not what the job declares: the plan is denied, and shown. */
  readonly missed: RefusedError | null;
}

/**
 * Makes a plan and leaves the target equal.
 * A plan that policy denies is kept and returned too, so that it can be shown and explained.
 */
export async function makePlan(tools: Toolbox, request: PlanRequest): Promise<PlanMade> {
  return withTarget(tools, request.on, async (examined) => {
    await requirePlannable(tools, examined);
    await refuseOverdueDebts(tools, examined);
    const pipeline = await pipelineHere(tools, "plan", "required");
    const writer = await tools.workingChanges();
    let rehearsal: PlacedRehearsal;
    const on = targetConfigOf(tools.project.config, request.on).rehearseOn ?? request.on;
    const done = tools.progress.begin(`rehearsing ${request.job.name} on ${on}`);
    try {
      const how = { script: request.mode === "script", again: request.again ?? request.job.again };
      rehearsal = await rehearseJob(tools, examined, request.job.runnable, writer, how);
    } catch (e) {
      writer.abort();
      throw e;
    } finally {
      done();
    }
    const changes = writer.finish();
    try {
      const script = scriptPart(request, rehearsal, examined.target);
      return await sealPlan(tools, examined, changes, {
        job: plannedJob(request.job),
        from: null,
        pipeline,
        rehearsal: withNotice(rehearsal, await request.job.swapped()),
        ...(script === null ? {} : { script }),
        schema: rehearsal.schema,
        reason: request.reason,
        ticket: request.ticket,
        key: request.key,
        out: request.out,
        lifetimeSeconds: request.lifetimeSeconds ?? PLAN_LIFETIME_SECONDS,
        pacing: request.pacing ?? {},
        putBack: request.putBack === true,
        ...(request.snapshot === undefined ? {} : { snapshot: request.snapshot }),
      });
    } finally {
      changes.close();
    }
  });
}

/** The checks before anything is read from a target: right place, right trust bundle, whole history. */
export async function requirePlannable(tools: Toolbox, examined: Examined): Promise<void> {
  refuseContradiction(examined);
  await refuseOtherBundle(tools, examined);
  await tools.assertStoreOutside(examined.target.ownPaths());
  await requireHistory(tools, examined);
}

/** Everything that becomes a plan beside the rows. */
export interface PlanParts {
  readonly job: PlannedJob | null;
  readonly from: PlanOrigin | null;
  /** Null for undo and rescue, whose rows come from a merge. */
  readonly rehearsal: PlacedRehearsal | null;
  readonly schema: SchemaFacts;
  readonly reason: string | null;
  readonly ticket: string | null;
  readonly key: string | undefined;
  readonly out: string | undefined;
  readonly lifetimeSeconds: number;
  /** True for undo and rescue: without a key the plan is still made, and costs one more approver. */
  readonly keyOptional?: boolean;
  /** Who makes it, where that was asked already; null where no token of a pipeline says so. */
  readonly pipeline?: Pipeline | null;
  readonly pacing?: Pacing;
  readonly putBack?: boolean;
  /** What is kept before the first write, where that is more than the configuration says. */
  readonly snapshot?: SnapshotLevel;
  /** More that a reader must know. */
  readonly notices?: readonly string[];
  /** Present: the statements run again at apply. */
  readonly script?: ScriptPart;
}

/** How the plan will be written: part of what is signed. */
interface Writing {
  readonly waves: readonly string[] | null;
  readonly maxRowsPerSecond: number | null;
  readonly checks: readonly string[];
  readonly hooks: readonly string[];
  readonly snapshot: PlanStatement["snapshot"]["level"];
}

function writingOf(
  tools: Toolbox,
  examined: Examined,
  changes: WorkingChanges,
  parts: PlanParts,
  measured: ReturnType<typeof measure>,
): Writing {
  const effect = { source: changes, tables: measured.tables, rows: measured.rows, ties: parts.schema.ties };
  if (parts.script !== undefined) refuseSplitScript(parts);
  const { checks, hooks, snapshot } = targetConfigOf(tools.project.config, examined.target.name);
  return {
    waves: parts.script === undefined ? plannedWaves(effect, parts.pacing ?? {}) : null,
    maxRowsPerSecond: parts.pacing?.maxRowsPerSecond ?? null,
    checks: Object.keys(checks).sort(),
    hooks: Object.keys(hooks).sort(),
    snapshot: highestLevel(snapshot.level, parts.snapshot ?? "rows"),
  };
}

/** Decides, signs, stores and records a plan over a finished ChangeSet. */
export async function sealPlan(
  tools: Toolbox,
  examined: Examined,
  changes: WorkingChanges,
  parts: PlanParts,
): Promise<PlanMade> {
  // The rows are read once for all that only looks at them.
  const [summarising, oddSeen] = [startSummary(), startOdd(tools, examined.target.name)];
  const measured = measure(changes, both(summarising, oddSeen));
  const summary = endSummary(summarising, changes, measured.digest);
  const rowsBefore = await rowsBeforeOf(examined, measured.tables, parts.rehearsal);
  if (parts.job !== null) {
    refuseOutsideScope(parts.job, measured.tables, examined.target.name);
    refuseSchemaOutsideScope(parts.job, parts.script?.schemaChanges ?? [], examined.target.name);
  }
  if (parts.from !== null) refuseAppendOnly(tools, examined.target.name, parts.from.kind, measured.tables);
  const writing = writingOf(tools, examined, changes, parts, measured);

  const pipeline = await pipelineOf(tools, parts);
  const behind = {
    ...(await ciClaims(tools, examined.target, parts.job)),
    ...(pipeline === null ? {} : claimsOfPipeline(pipeline)),
  };
  const asked = await judgementOf(tools, {
    now: await timeOf(tools, examined),
    act: "plan",
    verdict: examined.verdict,
    target: {
      name: examined.target.name,
      adapter: examined.target.adapter,
      pinned: examined.marker !== null,
    },
    reach: examined.target,
    changes,
    summary,
    rowsBefore,
    claims: claimsBefore(parts, unsigned(tools, behind), writing),
  });
  const key = pipeline === null ? await requesterKey(tools, parts, decisionOn(tools, asked)) : null;
  const requester = requesterBy(tools, pipeline, key, behind);
  refuseUnproven(tools, { requester, from: parts.from }, "the plan");
  const decision = decisionOn(tools, await requestedBy(tools, asked, requester));
  const undo = await rehearsedUndo(tools, examined, changes, {
    from: parts.from,
    script: parts.script?.statements ?? [],
    volatile: parts.rehearsal?.volatile ?? [],
  });
  const statement = await stateOf(tools, examined, parts, {
    measured,
    rowsBefore,
    decision,
    requester,
    writing,
    undo,
    notices: await noticesOf(tools, examined, measured.digest, requester),
  });
  const bytes = planStatementBytes(statement);
  const digest = planDigest(bytes);
  const proven = pipeline === null ? null : await proofOf(tools, { statement, digest });
  const signature = key === null ? proven : await key.sign(bytes);
  const id = planId(digest);
  const file = await tools.plans.save({
    id,
    statement: bytes,
    signature,
    source: changes,
    ...(parts.out === undefined ? {} : { out: parts.out }),
  });
  (await tools.ledger()).append({
    kind: "planned",
    target: examined.target.name,
    plan: id,
    facts: {
      digest,
      changeset: measured.digest,
      rows: measured.rows,
      ...tablesToNote(statement.changeset.tables.map((t) => t.name)),
      job: parts.job?.name ?? parts.from?.kind ?? "",
      by: requester.person,
      ...(pipeline === null ? {} : { pipeline: pipeline.facts.identity }),
      decision: decision.kind,
      rules: firedRules(decision),
      people: peopleAsked(tools, decision, requester),
      ...(requester.claims[CI_CLAIMS.commit] === undefined
        ? {}
        : { commit: requester.claims[CI_CLAIMS.commit] ?? "" }),
      environment: examined.verdict.name,
      expires_at: statement.expires_at,
      ...(parts.from === null ? {} : { from: parts.from.kind, runs: [...parts.from.runs] }),
    },
  });
  const odd = oddSeen.finish(changes);
  const facts = await effectFacts(tools, statement, summary, changes);
  const missed = unexpected(parts.job, measured.tables, examined.target.name);
  return {
    id,
    digest,
    file,
    statement,
    summary,
    shapes: changes.tables,
    decision,
    examined,
    odd,
    facts,
    missed,
  };
}

/** An entry has room for so much of a plan's tables; a plan of more counts as one whose tables nobody knows. */
const MOST_TABLES_BYTES = 16_384;

function tablesToNote(tables: readonly string[]): { readonly tables?: readonly string[] } {
  return JSON.stringify(tables).length > MOST_TABLES_BYTES ? {} : { tables };
}

/** What policy is told of a plan whose statement does not exist yet. */
function claimsBefore(parts: PlanParts, requester: Requester, writing: Writing): JudgedClaims {
  return {
    ...parts,
    requester,
    mode: parts.script === undefined ? "rows" : "script",
    waves: writing.waves,
    checks: writing.checks,
    snapshot: { level: writing.snapshot },
    schemaChanges: parts.script?.schemaChanges.length ?? 0,
    sequences: parts.rehearsal?.sequences.length ?? 0,
    origins: parts.rehearsal?.origins ?? {},
    createdAt: null,
  };
}

/** What a reader must know besides the rows: an earlier no to the same effect, and requesters whom nobody can name. */
async function noticesOf(
  tools: Toolbox,
  examined: Examined,
  changeset: Digest,
  requester: Requester,
): Promise<readonly string[]> {
  const rejected = await rejectionsOfEffect(tools, examined.target.name, changeset);
  const { unknown } = askersOf(requester, tools.project.ci);
  const strangers = requester.how === "none" ? [] : unknown;
  return [
    ...rejected.map(rejectionInWords),
    ...(strangers.length === 0 ? [] : [`one approver more is needed: ${strangers.join("; ")}`]),
  ];
}

/** Rules that spoke, with what they said: names alone, so that `doctor` can tell a rule that always does. */
function firedRules(decision: Decision): string[] {
  const fired = decision.rules.filter((r) => r.effect !== "pass").map((r) => `${r.effect} ${r.rule}`);
  return [...new Set(fired)].slice(0, MOST_RULES_RECORDED);
}

async function stateOf(
  tools: Toolbox,
  examined: Examined,
  parts: PlanParts,
  found: {
    readonly measured: ReturnType<typeof measure>;
    readonly rowsBefore: Readonly<Record<string, number>>;
    readonly decision: Decision;
    readonly requester: Requester;
    readonly writing: Writing;
    readonly notices: readonly string[];
    readonly undo: UndoRehearsal | null;
  },
): Promise<PlanStatement> {
  const now = tools.clock.now();
  const ledger = (await tools.ledger()).head();
  const { rehearsal } = parts;
  return {
    format: "holdpoint-plan/1",
    requester: found.requester,
    job: parts.job,
    from: parts.from,
    target: {
      name: examined.target.name,
      adapter: examined.target.adapter,
      identity: examined.marker?.identity ?? null,
      verdict: examined.verdict.name,
    },
    rehearsal: {
      where: rehearsal?.where ?? "merge",
      at: stamp(now),
      lock_ms: Math.round(rehearsal?.lockMs ?? 0),
      ...(rehearsal?.clone === undefined ? {} : { clone: rehearsal.clone }),
      ...(found.undo === null ? {} : { undo: found.undo }),
    },
    schema: {
      fingerprint: parts.schema.fingerprint,
      changes: parts.script?.schemaChanges ?? [],
    },
    settings: parts.schema.settings,
    mode: parts.script === undefined ? "rows" : "script",
    script: parts.script?.statements ?? [],
    waves: found.writing.waves,
    pace: { max_rows_per_second: found.writing.maxRowsPerSecond },
    ...(parts.putBack === true ? { put_back: true as const } : {}),
    checks: found.writing.checks,
    hooks: found.writing.hooks,
    snapshot: { level: found.writing.snapshot },
    bundle: examined.bundleDigest,
    changeset: {
      digest: found.measured.digest,
      rows: found.measured.rows,
      tables: found.measured.tables.map((t) => ({
        ...t,
        rows_before: found.rowsBefore[t.name] ?? 0,
        origin: rehearsal?.origins[t.name] ?? "unknown",
      })),
    },
    sequences: rehearsal?.sequences ?? [],
    volatile: rehearsal?.volatile ?? [],
    notices: [...(rehearsal?.notices ?? []), ...(parts.notices ?? []), ...found.notices],
    decision: found.decision.kind,
    reason: parts.reason,
    ticket: parts.ticket,
    created_at: stamp(now),
    expires_at: stamp(new Date(now.getTime() + parts.lifetimeSeconds * 1000)),
    ledger: ledger === null ? null : { id: ledger.ledger, head: ledger.head },
    nonce: Buffer.from(tools.random(16)).toString("hex"),
  };
}

/**
 * Tries the way back where nothing is kept; null where the target cannot. A script with values that differ from run to
 * run has no rows that could be compared; what an undo writes are rows, whatever becomes of the schema afterwards.
 */
export async function rehearsedUndo(
  tools: Toolbox,
  examined: Examined,
  changes: WorkingChanges,
  how: Pick<PlanStatement, "from" | "script" | "volatile">,
): Promise<UndoRehearsal | null> {
  const { target } = examined;
  if (target.rehearseUndo === undefined || changes.tables.length === 0) return null;
  const script = how.from === null ? statementsOf(how.script) : [];
  if (script.length > 0 && how.volatile.length > 0) {
    const why = "its statements give other values each time they run; the signed ones are written over them";
    return { rehearsed: "not", identical: 0, of: measure(changes).rows, why };
  }
  const done = tools.progress.begin(`rehearsing the way back on a copy of ${target.name}`);
  try {
    // What an undo plan takes back is not on a clone.
    if (how.from !== null) return await target.rehearseUndo(changes, script);
    return await onRehearsalPlace(tools, examined, async (place) =>
      place.rehearseUndo === undefined ? null : await place.rehearseUndo(changes, script),
    );
  } finally {
    done();
  }
}

/** How many people must approve: for `status`, which asks no policy. Nobody knows who made an unsigned plan: one more. */
function peopleAsked(tools: Toolbox, decision: Decision, requester: Requester): number {
  if (decision.kind !== "needs-approval") return 0;
  const asked = Math.max(1, ...decision.requirement.slots.map((s) => s.people));
  return askersOf(requester, tools.project.ci).unknown.length > 0 ? asked + 1 : asked;
}

/** A plan that needs approval must say who asks: the requester is never the approver. */
async function requesterKey(
  tools: Toolbox,
  parts: PlanParts,
  decision: Decision,
): Promise<SigningKey | null> {
  if (decision.kind !== "needs-approval" && parts.key === undefined) return null;
  try {
    const key = await tools.findKey(parts.key, NAMESPACES.plan);
    if (key.person === null) throw unknownKey(key.fingerprint);
    return key;
  } catch (e) {
    if (parts.keyOptional === true && parts.key === undefined) return null;
    throw e;
  }
}

function unknownKey(fingerprint: string): RefusedError {
  return new RefusedError({
    code: "ERR_KEY_UNKNOWN",
    message: "your key is not one that this project's people file knows",
    why: `key ${fingerprint}; a plan that needs approval must say which person asks for it`,
    next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
  });
}

/** Claims of the machine, with those about the pipeline behind it. */
type Behind = Readonly<Record<string, string>>;

function unsigned(tools: Toolbox, behind: Behind): Requester {
  return { person: null, key: null, how: "none", claims: { ...tools.claims(), ...behind } };
}

/** A token names a person, or nobody whom the list knows; a key names the person who holds it. */
function requesterBy(
  tools: Toolbox,
  pipeline: Pipeline | null,
  key: SigningKey | null,
  behind: Behind,
): Requester {
  const claims = { ...tools.claims(), ...behind };
  if (pipeline !== null) return { person: pipeline.person, key: null, how: "ci-token", claims };
  if (key === null) return unsigned(tools, behind);
  return { person: key.person, key: key.fingerprint, how: "ssh-key", claims };
}

/** Undo and rescue are asked here; a job's plan was asked before it rehearsed anything. */
async function pipelineOf(tools: Toolbox, parts: PlanParts): Promise<Pipeline | null> {
  const need = parts.keyOptional === true ? "be-without" : "required";
  const pipeline = parts.pipeline === undefined ? await pipelineHere(tools, "plan", need) : parts.pipeline;
  if (pipeline === null || parts.key === undefined) return pipeline;
  throw new UsageError({
    code: "ERR_USAGE",
    message: "--key has no say in this pipeline",
    why: `the trust bundle knows it by its identity token, as ${pipeline.facts.identity}`,
    next: [{ actor: "requester", text: "Leave --key out." }],
  });
}

function plannedJob(job: PreparedJob): PlannedJob {
  return {
    name: job.name,
    kind: job.kind,
    source: job.source,
    path: job.path,
    parameters: job.parameters,
    arguments: job.arguments,
    selective: job.selective,
    scope: job.scope,
    expect: job.expect,
    ...(job.direction === null || job.direction.length === 0 ? {} : { direction: job.direction }),
  };
}

async function rowsBeforeOf(
  examined: Examined,
  tables: readonly { readonly name: string }[],
  rehearsal: Rehearsal | null,
): Promise<Readonly<Record<string, number>>> {
  const rows: Record<string, number> = {};
  for (const { name } of tables) {
    rows[name] = rehearsal?.rowsBefore[name] ?? (await examined.target.countRows(name));
  }
  return rows;
}

/** What stands in a plan of mode script. */
export interface ScriptPart {
  readonly statements: readonly ScriptStatement[];
  readonly schemaChanges: readonly SchemaChange[];
}

/**
 * How a job is to be written: as rows, or by running it again. Schema changes can only be the latter.
 * @throws UsageError for a job that is no SQL file, or that asks for rows and changes the schema.
 */
function scriptPart(
  request: PlanRequest,
  rehearsal: Rehearsal,
  target: Examined["target"],
): ScriptPart | null {
  const [first] = rehearsal.schemaChanges;
  if (first === undefined && request.mode !== "script") return null;
  if (first !== undefined && request.mode === "rows") throw rowsOnly(request, rehearsal.schemaChanges);
  if (!target.capabilities.transactionalDdl) throw noScripts(request.on);
  return { statements: scriptOf(request.job.runnable), schemaChanges: rehearsal.schemaChanges };
}

function rowsOnly(request: PlanRequest, changes: readonly SchemaChange[]): UsageError {
  const [first] = changes;
  return new UsageError({
    code: "ERR_USAGE",
    message: `--mode rows cannot write what ${request.job.name} does to ${request.on}: ${first?.action ?? "change"} ${first?.object ?? "schema"} ${first?.name ?? ""}`,
    why: `${changes.length} schema changes; row mode writes rows and nothing else`,
    next: [
      { actor: "requester", text: "Leave --mode out: the statements then run again in one transaction." },
    ],
  });
}

/** Between two statements of a script there is nothing to check, and nothing to put back alone. */
function refuseSplitScript(parts: PlanParts): void {
  const { waves, maxRowsPerSecond } = parts.pacing ?? {};
  const asked =
    waves !== undefined
      ? "--waves"
      : maxRowsPerSecond !== undefined
        ? "--max-rate"
        : parts.putBack === true
          ? "--put-back"
          : null;
  if (asked === null) return;
  throw new UsageError({
    code: "ERR_USAGE",
    message: `${asked} cannot hold for a plan of mode script`,
    why: "its statements run in one transaction, whole or not at all",
    next: [
      { actor: "requester", text: `Leave ${asked} out, or take the schema change into a job of its own.` },
    ],
  });
}

function withNotice(rehearsal: PlacedRehearsal, notice: string | null): PlacedRehearsal {
  return notice === null ? rehearsal : { ...rehearsal, notices: [...rehearsal.notices, notice] };
}
