/** An effect becomes a plan: judged, said in one statement, signed, stored and recorded. Jobs, undo and rescue all end here. */
import { planDigest, planId, planStatementBytes } from "../../approval/plan-statement-codec.js";
import type {
  PlanStatement,
  PlannedJob,
  PlanOrigin,
  Requester,
  ScriptStatement,
} from "../../approval/plan-statement.js";
import { askersOf, CI_CLAIMS } from "../../approval/requesters.js";
import { stamp } from "../../base/clock.js";
import type { Digest } from "../../base/digest.js";
import { RefusedError, UsageError } from "../../base/errors.js";
import type { ChangeSink, TableShape } from "../../changeset/change.js";
import type { Odd } from "../../changeset/odd.js";
import type { Summary } from "../../changeset/summarise.js";
import { targetConfigOf } from "../../config/config.js";
import type { Decision } from "../../policy/decision.js";
import { onRehearsalPlace, type PlacedRehearsal } from "../rehearse.js";
import type { Rehearsal, SchemaChange, SchemaFacts, Target, UndoRehearsal } from "../../target/target.js";
import {
  decisionOn,
  endSummary,
  type JudgedClaims,
  judgementOf,
  requestedBy,
  startSummary,
} from "../judging/judge-plan.js";
import { type Examined } from "../judging/examine.js";
import { refuseAppendOnly } from "../merging/append-only.js";
import { ciClaims } from "../judging/ci-claims.js";
import { rejectionInWords, rejectionsOfEffect } from "../recall/rejections.js";
import { highestLevel, type SnapshotLevel } from "../../snapshot/snapshot.js";
import { needlessRights } from "../judging/role-use.js";
import { type EffectFacts, effectFacts } from "../judging/effect-facts.js";
import { startOdd } from "../judging/odd.js";
import { claimsOfPipeline, refuseUnproven } from "../consent/pipeline.js";
import { refuseOutsideScope, refuseSchemaOutsideScope, unexpected } from "../judging/scope.js";
import { statementsOf } from "../judging/script.js";
import { type Pacing, plannedWaves } from "../writing/run-cut.js";
import { both, measure } from "../recall/stored-plan.js";
import { timeOf } from "../judging/time.js";
import type { Toolbox, WorkingChanges } from "../toolbox.js";
import {
  type Asking,
  peopleAsked,
  pipelineOf,
  provenBy,
  requesterBy,
  requesterKey,
  unsigned,
} from "./requester.js";

/** How long a plan may be applied when nobody says otherwise. */
export const PLAN_LIFETIME_SECONDS = 24 * 3600;

/** More names would only make the ledger's entry long. */
const MOST_RULES_RECORDED = 20;

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

/** Everything that becomes a plan beside the rows. */
export interface PlanParts extends Asking {
  readonly job: PlannedJob | null;
  readonly from: PlanOrigin | null;
  /** Null for undo and rescue, whose rows come from a merge. */
  readonly rehearsal: PlacedRehearsal | null;
  readonly schema: SchemaFacts;
  readonly reason: string | null;
  readonly ticket: string | null;
  readonly out: string | undefined;
  readonly lifetimeSeconds: number;
  readonly pacing?: Pacing;
  readonly putBack?: boolean;
  /** What is kept before the first write, where that is more than the configuration says. */
  readonly snapshot?: SnapshotLevel;
  /** More that a reader must know. */
  readonly notices?: readonly string[];
  /** Present: the statements run again at apply. */
  readonly script?: ScriptPart;
  /** The way back, where it was tried with these changes already. */
  readonly undo?: UndoRehearsal;
  /** Told every change in the one reading of them. */
  readonly also?: ChangeSink;
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
  const seen = both(summarising, oddSeen);
  const measured = measure(changes, parts.also === undefined ? seen : both(seen, parts.also));
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
  const undo =
    parts.undo ??
    (await rehearsedUndo(tools, examined, changes, {
      from: parts.from,
      script: parts.script?.statements ?? [],
      volatile: parts.rehearsal?.volatile ?? [],
    }));
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
  const proven = await provenBy(tools, pipeline, { statement, digest });
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
    ...(await needlessRights(tools, examined)),
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
  // What an undo plan takes back is not on a clone.
  const clone = how.from === null ? targetConfigOf(tools.project.config, target.name).rehearseOn : null;
  const done = tools.progress.begin(`rehearsing the way back on ${whereItIsTried(target, clone)}`);
  try {
    if (how.from !== null) return await target.rehearseUndo(changes, script);
    return await onRehearsalPlace(tools, examined, async (place) =>
      place.rehearseUndo === undefined ? null : await place.rehearseUndo(changes, script),
    );
  } finally {
    done();
  }
}

/** A file is copied; on a server it is written and rolled back, there or on the clone. */
function whereItIsTried({ name, copyTo }: Target, clone: string | null): string {
  if (clone !== null) return `the clone ${clone}`;
  return copyTo === undefined ? `${name}, in a transaction that is rolled back` : `a copy of ${name}`;
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
