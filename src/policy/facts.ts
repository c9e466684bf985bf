/**
 * What conditions can name: the variables of a rule with their CEL types and meanings, and their values for
 * one plan. Names are snake_case as in the YAML. `docs/policy.md` prints this table, and a test compares.
 */
import type { Environment } from "../environment/evidence.js";
import { moreDangerous } from "../environment/verdict.js";
import type { PolicyHistory, PolicyInput, PolicyTable, PolicyTenant } from "./decision.js";
import { largestTables } from "./table-facts.js";

/** A field or variable: its CEL type and what it holds. */
export type Declared = readonly [type: string, meaning: string];

/** CEL's name for an instant. */
const TIMESTAMP = "google.protobuf.Timestamp";

/** Fields of the object types. Whole numbers are `int`, shares are `double` from 0 to 1. */
export const TYPES = {
  Target: {
    name: ["string", "name in holdpoint.yaml"],
    adapter: ["string", "kind of target: `sqlite` …"],
    pinned: ["bool", "whether the target was pinned"],
  },
  Job: {
    name: ["string", "name in holdpoint.yaml, else the file"],
    kind: ["string", "`sql`, `module` or `command`; `undo` or `rescue` where there is no job"],
    source: ["string", "digest of the bytes that ran, `sha256:…`"],
    declares_scope: ["bool", "the job says which tables it may touch"],
    declares_expect: ["bool", "the job says how many rows it will change"],
    selective: ["bool", "false when some UPDATE or DELETE has no WHERE"],
    commit: ["string", "commit that the job's file stands in (absent where not known)"],
    clean: ["bool", "the file is as committed (absent where not known)"],
  },
  Requester: {
    person: ["string", "name in the trust bundle; empty when unknown"],
    known: ["bool", "found in the trust bundle by key"],
    groups: ["list<string>", "groups of that person"],
    kind: ["string", "`person`, `ci` or `agent`"],
  },
  Rows: {
    total: ["int", "rows changed in all"],
    insert: ["int", "rows inserted"],
    update: ["int", "rows updated"],
    delete: ["int", "rows deleted"],
    tables: ["int", "tables with changes"],
    tenants: [
      "int",
      "different tenants whose rows change, over all tables (absent where they cannot be told)",
    ],
  },
  Table: {
    name: ["string", "the table's name"],
    insert: ["int", "rows inserted"],
    update: ["int", "rows updated"],
    delete: ["int", "rows deleted"],
    rows_before: ["int", "rows in the table before"],
    rows_after: ["int", "rows in the table afterwards"],
    deleted_share: ["double", "deleted rows, as a share of the rows before"],
    updated_share: ["double", "updated rows, as a share of the rows before"],
    columns: ["list<string>", "columns that change in some row"],
    levelled: ["list<string>", "columns that end with one value in every row of the table"],
    protected_lost: [
      "int",
      "rows that lose a protected value (`protect:` of the target), by whatever deletes or changes them",
    ],
    origin: ["string", "`job`, `cascade`, `trigger` or `unknown`"],
    cascaded: ["int", "rows known to be changed by a cascade: at least so many"],
    triggered: ["int", "rows known to be changed by a trigger: at least so many"],
    tenants: [
      "list<Tenant>",
      "whose rows change (`tenant:` of the target), most rows first; empty where no column of this table is named (absent where they cannot be told)",
    ],
    first_touch: ["bool", "no completed run is known to have changed this table on this target"],
  },
  Tenant: {
    name: ["string", "the value of the tenant's column; `····@1` … where it is masked"],
    insert: ["int", "rows inserted"],
    update: ["int", "rows updated"],
    delete: ["int", "rows deleted"],
  },
  History: {
    job_runs: ["int", "completed runs of this job on this target"],
    first_run: ["bool", "this job has never completed on this target"],
    requester_runs: ["int", "completed runs by this requester on this target"],
    first_by_requester: ["bool", "this requester has never completed a run on this target"],
    rows_last_day: ["int", "rows that this requester changed on this target in the last 24 hours"],
  },
  Evidence: {
    source: ["string", "what it is about: `marker`, `inode`, `newest row of orders` …"],
    says: ["string", "the environment it speaks for, or empty"],
    strength: ["string", "`strong`, `medium` or `none`"],
    state: ["string", "`agrees`, `contradicts`, `absent` or `informs`"],
    detail: ["string", "what was read, in words"],
  },
} as const satisfies Readonly<Record<string, Readonly<Record<string, Declared>>>>;

/** Variables of every condition. Those marked "may be absent" make a rule that reads them an error where they are. */
export const VARIABLES = {
  environment: ["string", "the verdict: `production`, `staging`, `development` or `unproven`"],
  guarded_as: ["string", "whose rules apply: `production` for `unproven`"],
  contradicted: ["bool", "strong signals of the target contradict each other or the configuration"],
  target: ["Target", "the target"],
  kind: ["string", "`job`, `undo` or `rescue`"],
  job: ["Job", "what was run"],
  requester: ["Requester", "who made the plan"],
  rows: ["Rows", "counts over all tables"],
  tables: ["list<Table>", "each table that changes"],
  schema_changes: ["int", "changes of the schema"],
  sequences: ["int", "sequences and counters of keys that the job moves"],
  reason: ["string", "`--reason` of the plan, or empty"],
  ticket: ["string", "`--ticket` of the plan, or empty"],
  mode: ["string", "`rows` or `script`"],
  now: [TIMESTAMP, "the time of the decision"],
  act: ["string", "`plan` or `apply`"],
  caller: ["string", "who runs the command: `person`, `ci` or `agent`"],
  plan_age_seconds: ["int", "age of the plan (may be absent)"],
  waves: ["bool", "whether the plan is applied in waves (may be absent)"],
  checks: ["int", "checks that run between waves (may be absent)"],
  snapshot: ["string", "what is kept before: `rows`, `tables` or `database` (may be absent)"],
  history: ["History", "from the ledger (may be absent)"],
  evidence: [
    "list<Evidence>",
    "what the target says about where we are; never what this machine says (may be absent)",
  ],
} as const satisfies Readonly<Record<string, Declared>>;

/** A value of one of {@link TYPES}; a class of its own each, because CEL tells types by constructor. */
// oxlint-disable-next-line typescript/no-extraneous-class -- the class is the type, as CEL sees it
class Fields {
  constructor(values: Readonly<Record<string, unknown>>) {
    Object.assign(this, values);
  }
}
class Target extends Fields {}
class Job extends Fields {}
class Requester extends Fields {}
class Rows extends Fields {}
class Table extends Fields {}
class Tenant extends Fields {}
class History extends Fields {}
class Signal extends Fields {}

/** The constructors of {@link TYPES}. */
export const CONSTRUCTORS = {
  Target,
  Job,
  Requester,
  Rows,
  Table,
  Tenant,
  History,
  Evidence: Signal,
} as const satisfies Readonly<Record<keyof typeof TYPES, unknown>>;

/** A plan as everything in this folder reads it: {@link PolicyInput}, whose guarding can no longer be wrong, with its CEL values. */
export interface Facts {
  readonly input: PolicyInput;
  readonly guardedAs: Environment;
  readonly act: "plan" | "apply";
  readonly caller: "person" | "ci" | "agent";
  readonly values: Readonly<Record<string, unknown>>;
  /** The tables in which the first named number is largest, two at most: what a condition over all tables saw. */
  readonly largest: (fields: readonly string[]) => readonly PolicyTable[];
}

/**
 * Prepares a plan for evaluation. `guardedAs` is computed again: unproven and contradicted are production,
 * and a guard below the verdict is raised to it. What is absent stays absent, so that reading it is an error.
 */
export function factsOf(input: PolicyInput): Facts {
  const guardedAs = guardOf(input);
  const act = input.act ?? "apply";
  const caller = input.caller ?? input.requester.kind;
  const values = withoutAbsent({
    environment: input.environment,
    guarded_as: guardedAs,
    contradicted: input.contradicted,
    target: new Target(input.target),
    kind: input.kind,
    job: jobValue(input.job),
    requester: new Requester(input.requester),
    rows: new Rows(withoutAbsent(input.rows)),
    tables: input.tables.map(tableValue),
    schema_changes: input.schemaChanges,
    sequences: input.sequences,
    reason: input.reason,
    ticket: input.ticket,
    mode: input.mode,
    now: input.now,
    act,
    caller,
    plan_age_seconds: input.planAgeSeconds,
    waves: input.waves,
    checks: input.checks,
    snapshot: input.snapshot,
    history: input.history && historyValue(input.history),
    evidence: input.evidence?.map((e) => new Signal({ ...e, says: e.says ?? "" })),
  });
  return { input, guardedAs, act, caller, values, largest: largestOnce(input.tables) };
}

/** Many rules name the same fields, and a plan may have thousands of tables: each order is made once. */
function largestOnce(tables: readonly PolicyTable[]): Facts["largest"] {
  const made = new Map<string, readonly PolicyTable[]>();
  return (fields) => {
    const key = fields.join(" ");
    const found = made.get(key) ?? largestTables(tables, fields);
    made.set(key, found);
    return found;
  };
}

function historyValue(history: PolicyHistory): History {
  return new History({
    job_runs: history.jobRuns,
    first_run: history.jobRuns === 0n,
    requester_runs: history.requesterRuns,
    first_by_requester: history.requesterRuns === 0n,
    rows_last_day: history.rowsLastDay,
  });
}

/** Whose rules apply, whatever a caller wrote into `guardedAs`. */
export function guardOf(input: Pick<PolicyInput, "environment" | "guardedAs" | "contradicted">): Environment {
  if (input.contradicted || input.environment === "unproven") return "production";
  return moreDangerous(input.environment, input.guardedAs);
}

function jobValue(job: PolicyInput["job"]): Job {
  return new Job(
    withoutAbsent({
      name: job.name,
      kind: job.kind,
      source: job.source,
      declares_scope: job.declaresScope,
      declares_expect: job.declaresExpect,
      selective: job.selective,
      commit: job.commit,
      clean: job.clean,
    }),
  );
}

/** Made for every table of every plan that is decided: field by field, because copies of objects cost most of it. */
function tableValue(t: PolicyTable): Table {
  const values: Record<string, unknown> = {
    name: t.name,
    insert: t.insert,
    update: t.update,
    delete: t.delete,
    rows_before: t.rowsBefore,
    rows_after: t.rowsAfter,
    deleted_share: t.deletedShare,
    updated_share: t.updatedShare,
    columns: t.columns,
    levelled: t.levelled,
    protected_lost: t.protectedLost,
    origin: t.origin,
    cascaded: t.cascaded,
    triggered: t.triggered,
  };
  if (t.tenants !== undefined) values["tenants"] = t.tenants.map(tenantValue);
  if (t.firstTouch !== undefined) values["first_touch"] = t.firstTouch;
  return new Table(values);
}

function tenantValue(t: PolicyTenant): Tenant {
  return new Tenant({ name: t.name, insert: t.insert, update: t.update, delete: t.delete });
}

function withoutAbsent(values: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(values).filter(([, v]) => v !== undefined));
}
