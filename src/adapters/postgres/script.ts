/** Scripts: statements that change the schema, rehearsed, run again inside a run's transaction, and taken back. */
import type { Clock, Random } from "../../base/clock.js";
import type { Change, ChangeSink, TableShape } from "../../changeset/change.js";
import type {
  Rehearsal,
  SchemaChange,
  SchemaUndo,
  ScriptOutcome,
  SqlStatement,
} from "../../target/target.js";
import type { Emit } from "./capture.js";
import { addedColumns, readDefinitions, type Definition } from "./definitions.js";
import { asTargetError, openSession, unsupported, type Connecting, type Session } from "./driver.js";
import { isStandby } from "./identify.js";
import { Watch, type RehearsalLimits } from "./limits.js";
import { shownName } from "./names.js";
import { OutsideEffects } from "./outside.js";
import { countRows } from "./read.js";
import { plant, standbyRefused } from "./rehearse.js";
import {
  factsOf,
  jobSettings,
  readCatalogue,
  readObjects,
  refuseSettings,
  type Catalogue,
} from "./schema.js";
import { hasValues, ScriptRun, type ScriptFound, type ScriptStage } from "./script-run.js";
import { silenceNotices } from "./silence.js";
import { loadParser, prepare, type Prepared } from "./statements.js";
import { TwoRuns } from "./two-runs.js";
import { READING_SETTINGS } from "./values.js";

/** What a script's rehearsal works with. */
export interface ScriptSetting {
  readonly connecting: Connecting;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: RehearsalLimits;
}

/** Whether the statements change the schema: then the job runs again at apply. Refuses what no job may have. */
export async function changesSchema(statements: readonly SqlStatement[]): Promise<boolean> {
  return (await prepared(statements)).some((s) => s.isSchema);
}

async function prepared(statements: readonly SqlStatement[]): Promise<readonly Prepared[]> {
  const parser = await loadParser();
  return statements.map((s) => prepare(parser, s));
}

/**
 * `Target.rehearse` of a script: twice, each time in a transaction of its own that is rolled back, so that values which
 * differ from run to run are known (`now()` is one moment for a whole transaction).
 */
export async function rehearseScript(
  setting: ScriptSetting,
  statements: readonly SqlStatement[],
  sink: ChangeSink,
): Promise<Rehearsal> {
  const { connecting, clock } = setting;
  const texts = await prepared(statements);
  const runs = new TwoRuns();
  const changed = new Set<string>();
  const emit: Emit = (shape: TableShape, change: Change): void => {
    if (!changed.has(shape.name)) sink.table(shape);
    changed.add(shape.name);
    sink.add(change);
    runs.first(shape, change);
  };
  const fresh = await openSession(connecting, true);
  try {
    if (await isStandby(fresh)) throw standbyRefused(connecting.address.shown);
    const before = await factsBefore(connecting, fresh);
    const started = clock.now().getTime();
    const found = await rehearsed(setting, before.catalogue, texts, emit);
    // What the first run copied is copied at once in the second: it then runs as often as it must, and no more.
    await rehearsed(
      setting,
      before.catalogue,
      texts,
      (shape, change) => runs.second(shape, change),
      found.copied,
    );
    const lockMs = clock.now().getTime() - started;
    const [untellable] = runs.untellable();
    if (untellable !== undefined) throw untold(untellable);
    return {
      where: "in-place",
      schema: before.schema,
      schemaChanges: found.schemaChanges,
      sequences: found.sequences,
      volatile: runs.volatile(),
      rowsBefore: await rowsBefore(fresh, before.catalogue, changed),
      origins: {},
      lockMs,
      notices: [
        ...found.costs,
        ...found.outside,
        ...noticesOf(found, before.catalogue),
        ...(await silenceNotices(fresh, before.catalogue, changed, connecting.writer)),
      ],
    };
  } catch (e) {
    throw asTargetError(e, connecting.address.shown);
  } finally {
    await fresh.close();
  }
}

interface Before {
  readonly schema: Rehearsal["schema"];
  readonly catalogue: Catalogue;
}

async function factsBefore(connecting: Connecting, fresh: Session): Promise<Before> {
  const plain = await openSession(connecting, false);
  try {
    const settings = await jobSettings(plain);
    refuseSettings(settings);
    const catalogue = await readCatalogue(fresh);
    return { schema: factsOf(await readObjects(fresh), catalogue, settings), catalogue };
  } finally {
    await plain.close();
  }
}

/** What a rehearsal found, and what it cost. */
interface Rehearsed extends ScriptFound {
  readonly costs: readonly string[];
}

/** One run in a transaction that cannot commit, even if the job found a way to try (see `rehearse.ts`). */
async function rehearsed(
  { connecting, random, limits }: ScriptSetting,
  catalogue: Catalogue,
  statements: readonly Prepared[],
  emit: Emit,
  known?: ReadonlySet<string>,
): Promise<Rehearsed> {
  const job = await openSession(connecting, true);
  const looking = await openSession(connecting, true).catch(async (e: unknown) => {
    await job.close();
    throw e;
  });
  try {
    const multixact = await nextMultixact(job);
    await job.run("BEGIN ISOLATION LEVEL READ COMMITTED");
    (await OutsideEffects.read(looking, catalogue)).refuseOnMaking();
    // An event trigger that fires for the planted table finds its own names by the role's search path.
    await job.run("SET LOCAL search_path TO DEFAULT");
    await plant(job, random);
    await job.set(READING_SETTINGS, true);
    const watch = new Watch(job, looking, limits, connecting);
    const stage = stageOf(connecting, job, multixact, random, watch);
    const found = await new ScriptRun(stage, statements, emit).perform(known);
    return { ...found, costs: await watch.notices() };
  } finally {
    // Said aloud, so that the locks are gone when this returns, and not some time after.
    await job.rollback().catch(() => undefined);
    await job.close();
    await looking.close();
  }
}

function stageOf(
  connecting: Connecting,
  job: Session,
  multixact: string,
  random: Random,
  watch: Watch,
): ScriptStage {
  return {
    job,
    watch,
    multixact,
    random,
    shown: connecting.address.shown,
    open: () => openSession(connecting, true),
  };
}

/** A multixact number that no transaction has which begins later. */
export async function nextMultixact(session: Session): Promise<string> {
  return (await session.value("SELECT next_multixact_id FROM pg_control_checkpoint()")) ?? "1";
}

/**
 * `WriteSession.runScript`: in the open transaction of `job`, whose rows others do not see yet.
 * @throws UsageError ERR_JOB_FAILED when a statement fails; RefusedError ERR_MARKER_TOUCHED; TargetError
 * ERR_REHEARSAL_LIMIT when it costs more than the rehearsal might have cost: the transaction is over then.
 */
export async function runScript(
  connecting: Connecting,
  limits: RehearsalLimits,
  job: Session,
  multixact: string,
  random: Random,
  statements: readonly SqlStatement[],
  sink: ChangeSink,
): Promise<ScriptOutcome> {
  const declared = new Set<string>();
  const emit: Emit = (shape, change) => {
    if (!declared.has(shape.name)) sink.table(shape);
    declared.add(shape.name);
    sink.add(change);
  };
  const looking = await openSession(connecting, true);
  try {
    const watch = new Watch(job, looking, limits, connecting, "run");
    const stage = stageOf(connecting, job, multixact, random, watch);
    const { schemaChanges, sequences } = await new ScriptRun(
      stage,
      await prepared(statements),
      emit,
    ).perform();
    return { schemaChanges, sequences };
  } finally {
    await looking.close();
  }
}

async function rowsBefore(
  session: Session,
  catalogue: Catalogue,
  names: ReadonlySet<string>,
): Promise<Readonly<Record<string, number>>> {
  const rows: Record<string, number> = {};
  for (const name of names) {
    const info = catalogue.byName.get(name);
    rows[name] = info === undefined ? 0 : await countRows(session, info);
  }
  return rows;
}

function noticesOf(found: ScriptFound, { storages }: Catalogue): readonly string[] {
  const whole = found.locked.filter((l) => l.isWhole && storages.has(l.oid));
  return [
    ...whole.map(
      (l) =>
        `the job takes all of ${shownName(l.schema, l.name)}, which nobody could read during the rehearsal`,
    ),
    ...found.sequences.map(
      (m) =>
        `the rehearsal itself moved sequence ${m.name} from ${m.before} on: a rollback gives no number back`,
    ),
  ];
}

function untold(table: string): Error {
  return unsupported(
    `rows of ${table} come out otherwise each time the job runs, and the table has no key`,
    "which of them belong together cannot be told, so nothing could be compared when it runs again",
    "Give the table a primary key, or take what differs (now(), random(), a sequence) out of the job.",
  );
}

// ---- the way back

/** In which order objects go: what stands on others before them. */
const ORDER: readonly string[] = [
  "policy",
  "rule",
  "trigger",
  "view",
  "index",
  "column",
  "table",
  "sequence",
  "function",
  "domain",
  "type",
  "schema",
];

/** `Target.undoSchema`: only what is still as the run left it. The server itself refuses to drop what others stand on. */
export async function undoSchema(session: Session, changes: readonly SchemaChange[]): Promise<SchemaUndo> {
  const now: Now = {
    session,
    catalogue: await readCatalogue(session),
    definitions: await readDefinitions(session),
    made: new Set(changes.flatMap((c) => (c.action === "create" && c.object === "table" ? [c.name] : []))),
  };
  const steps: Step[] = [];
  const left: string[] = [];
  for (const change of changes) {
    const found = await undoOf(now, change);
    if (typeof found === "string") left.push(`${change.object} ${change.name}: ${found}`);
    else steps.push(...found);
  }
  const statements = ORDER.flatMap((object) => dropped(object, steps)).map((text) => ({
    text,
    line: 0,
    values: {},
  }));
  return { statements, left };
}

/** What an undo is worked out from. */
interface Now {
  readonly session: Session;
  readonly catalogue: Catalogue;
  readonly definitions: readonly Definition[];
  /** Tables that the run made. */
  readonly made: ReadonlySet<string>;
}

interface Step {
  readonly object: string;
  readonly text: string;
}

/** Tables go in one statement: they may refer to one another. */
function dropped(object: string, steps: readonly Step[]): readonly string[] {
  const texts = steps.flatMap((s) => (s.object === object ? [s.text] : []));
  if (object !== "table")
    return texts.map((text) => (object === "column" ? text : `DROP ${wordOf(object)} ${text}`));
  return texts.length === 0 ? [] : [`DROP TABLE ${texts.join(", ")}`];
}

function wordOf(object: string): string {
  return object === "function" ? "ROUTINE" : object.toUpperCase();
}

async function undoOf(now: Now, change: SchemaChange): Promise<readonly Step[] | string> {
  if (change.undo !== "yes") return change.undo;
  const found = now.definitions.find(
    (d) =>
      d.object === change.object &&
      d.name === change.name &&
      (d.object === "table" ? d.name : (d.table ?? undefined)) === change.table,
  );
  if (found === undefined) return change.action === "create" ? [] : "it is gone";
  if (found.text !== change.after) return "it was changed since";
  if (change.action === "alter") return await undoOfColumns(now, found, change);
  const child = now.catalogue.foreignKeys.find(
    (k) => change.object === "table" && k.parent === change.name && !now.made.has(k.child),
  );
  if (child !== undefined) return `table ${child.child} refers to it`;
  return [{ object: change.object, text: found.sqlName }];
}

/** The added columns go again, where still nothing stands in them but what this run wrote. */
async function undoOfColumns(
  { session, catalogue }: Now,
  found: Definition,
  { before, after }: SchemaChange,
): Promise<readonly Step[] | string> {
  const added = addedColumns(before ?? "", after ?? "");
  const table = catalogue.byName.get(found.name);
  if (added === null || table === undefined) return "its former columns cannot be told";
  if (await hasValues(session, table, added)) return "the added column is no longer empty";
  const drops = added.map((c) => `DROP COLUMN ${c}`);
  return [{ object: "column", text: `ALTER TABLE ${found.sqlName} ${drops.join(", ")}` }];
}
