/**
 * Rehearsing a job on the target in a transaction that cannot commit, even if the job found a way to try:
 *
 * - each statement goes in a message of its own (extended protocol), so no second statement hides behind it;
 * - the engine's own parser refuses transaction commands, and functions and DO blocks cannot end a transaction that was
 *   begun by a command;
 * - before the job a temporary table gets a row that violates a deferred foreign key, so a COMMIT would fail.
 *
 * What the job did is captured by visibility (`capture.ts`) while the transaction is open, then it is rolled back. The
 * job's own row locks are held meanwhile; sequences that it used stay moved.
 */
import type { Clock, Random } from "../../base/clock.js";
import { UsageError } from "../../base/errors.js";
import type { Change, ChangeSink, TableShape } from "../../changeset/change.js";
import type { Rehearsal, RunnableJob, SequenceMove } from "../../target/target.js";
import { StorageCapture, WholeCapture, type Beginning, type Emit, type Views } from "./capture.js";
import { countersAreProof, countersOf } from "./counters.js";
import {
  asJobError,
  asTargetError,
  openSession,
  unsupported,
  type Connecting,
  type Session,
} from "./driver.js";
import { isStandby } from "./identify.js";
import { Watch, type RehearsalLimits } from "./limits.js";
import { isOurs, qualified, quote, shownName } from "./names.js";
import { OutsideEffects } from "./outside.js";
import { countRowsQuietly, joinMoment } from "./read.js";
import {
  jobSettings,
  readCatalogue,
  readObjects,
  refuseSettings,
  factsOf,
  type Catalogue,
  type SchemaObject,
  type TableInfo,
} from "./schema.js";
import { readSequences, sequenceMoves } from "./sequences.js";
import { silenceNotices } from "./silence.js";
import { type Play, playOf, playOfModule } from "./module-run.js";
import { loadParser, prepare, touchesMarker, type Prepared } from "./statements.js";
import { READING_SETTINGS } from "./values.js";

/** What a rehearsal works with. */
export interface RehearsalSetting {
  readonly connecting: Connecting;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: RehearsalLimits;
}

/**
 * `Target.rehearse`.
 * @throws UsageError ERR_JOB_STATEMENT, ERR_JOB_FAILED; RefusedError ERR_MARKER_TOUCHED; TargetError ERR_TARGET_BUSY when
 * a lock or the time runs out, ERR_REHEARSAL_LIMIT, ERR_TARGET_UNSUPPORTED for an effect that cannot be captured whole.
 */
export async function rehearse(
  setting: RehearsalSetting,
  job: RunnableJob,
  sink: ChangeSink,
): Promise<Rehearsal> {
  const play = await playFor(job);
  const sessions: Session[] = [];
  const { connecting } = setting;
  const open = async (reading: boolean): Promise<Session> => {
    const session = await openSession(connecting, reading);
    sessions.push(session);
    return session;
  };
  let own: Session | undefined;
  try {
    const [first, outside, fresh, counting] = await allOf([open(false), open(true), open(true), open(true)]);
    own = first;
    if (await isStandby(fresh)) throw standbyRefused(connecting.address.shown);
    const views: Views = { job: first, outside, fresh };
    return await new Run(setting, views, new Sizes(counting), play, sink).rehearse();
  } catch (e) {
    throw asTargetError(e, connecting.address.shown);
  } finally {
    // Said aloud, so that the row locks are gone when this returns, and not some time after.
    await own?.rollback().catch(() => undefined);
    await Promise.all(sessions.map((session) => session.close()));
  }
}

/** All at once; when one fails, not before the others have come to their end: somebody has to close what they opened. */
async function allOf<const T extends readonly Promise<unknown>[]>(
  works: T,
): Promise<{ -readonly [I in keyof T]: Awaited<T[I]> }> {
  await Promise.allSettled(works);
  return await Promise.all(works);
}

async function playFor(job: RunnableJob): Promise<Play> {
  const parser = await loadParser();
  if (job.kind === "sql") return playOf(job.statements.map((s) => prepare(parser, s)));
  if (job.converse === undefined) throw commandRefused();
  return playOfModule(parser, job.converse);
}

/** A relation that the job's transaction has locked for writing. */
export interface Locked {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  readonly kind: string;
  readonly isTemporary: boolean;
  /** Nobody else can read it. */
  readonly isWhole: boolean;
}

/** Tables counted beside the capture, in its snapshot, each once. */
class Sizes {
  readonly #session: Session;
  readonly #counts = new Map<string, Promise<number>>();
  #last: Promise<unknown> = Promise.resolve();

  constructor(session: Session) {
    this.#session = session;
  }

  /** Sees what `outside` sees. */
  async begin(outside: Session): Promise<void> {
    await joinMoment(this.#session, (await outside.value("SELECT pg_export_snapshot()")) ?? "");
  }

  /** Begins to count, and does not wait for it. */
  start(info: TableInfo): void {
    if (this.#counts.has(info.name)) return;
    const count = this.#last.then(() => countRowsQuietly(this.#session, info));
    this.#last = count.catch(() => undefined);
    this.#counts.set(info.name, count);
  }

  async of(info: TableInfo): Promise<number> {
    this.start(info);
    return (await this.#counts.get(info.name)) ?? 0;
  }
}

class Run {
  readonly #setting: RehearsalSetting;
  readonly #views: Views;
  readonly #sizes: Sizes;
  readonly #play: Play;
  readonly #sink: ChangeSink;
  readonly #watch: Watch;
  readonly #changed = new Set<string>();

  constructor(setting: RehearsalSetting, views: Views, sizes: Sizes, play: Play, sink: ChangeSink) {
    this.#setting = setting;
    this.#views = views;
    this.#sizes = sizes;
    this.#play = play;
    this.#sink = sink;
    this.#watch = new Watch(views.job, views.fresh, setting.limits, setting.connecting);
  }

  async rehearse(): Promise<Rehearsal> {
    const { job, outside: others, fresh } = this.#views;
    const settings = await jobSettings(job);
    refuseSettings(settings);
    // Before the job: afterwards a table that it locked whole could not be described by anybody else.
    const sequences = await readSequences(fresh);
    const objects = await readObjects(fresh);
    const catalogue = await readCatalogue(fresh);
    const started = this.#setting.clock.now().getTime();
    const outside = await OutsideEffects.read(fresh, catalogue);
    outside.refuseOnMaking();
    const beginning = await this.#begin();
    const written = await catalogueWrites(job);
    await this.#runJob(outside);
    await others.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    const [locked] = await allOf([readingLocked(job), this.#sizes.begin(others)]);
    outside.refuseAfter(tablesOf(locked, catalogue));
    await this.#refuseSchemaChanges(locked, objects, written);
    const moves = sequenceMoves(sequences, await readSequences(job), used(locked));
    const watched = await this.#watch.notices();
    const whole = await this.#capture(beginning, catalogue, locked);
    await job.rollback();
    const lockMs = this.#setting.clock.now().getTime() - started;
    for (const capture of whole) await capture.emit(others, this.#emit);
    return {
      where: "in-place",
      schema: factsOf(objects, catalogue, settings),
      schemaChanges: [],
      sequences: moves,
      volatile: [],
      rowsBefore: await this.#rowsBefore(catalogue),
      origins: {},
      lockMs,
      notices: [
        ...watched,
        ...noticesOf(locked, moves),
        ...outside.notices(this.#changed, false),
        ...(await silenceNotices(fresh, catalogue, this.#changed, this.#setting.connecting.writer)),
      ],
    };
  }

  // ---- the job

  async #begin(): Promise<Beginning> {
    const { job, fresh } = this.#views;
    const [multixact = "1", encoding] =
      (await fresh.row(
        "SELECT next_multixact_id, current_setting('server_encoding') FROM pg_control_checkpoint()",
      )) ?? [];
    await job.run("BEGIN ISOLATION LEVEL READ COMMITTED");
    await plant(job, this.#setting.random);
    const transaction = BigInt((await job.value("SELECT pg_catalog.pg_current_xact_id()")) ?? "0");
    return { transaction, multixact: multixact ?? "1", isUtf8: encoding === "UTF8" };
  }

  async #runJob(outside: OutsideEffects): Promise<void> {
    const { job } = this.#views;
    const { shown } = this.#setting.connecting.address;
    await this.#watch.begin();
    const parser = await loadParser();
    await this.#play.run(job, shown, async (statement, work) => {
      outside.refuseBefore(parser, statement);
      return await this.#watch.run(statement, work);
    });
    const deferred = await deferrable(this.#views.fresh);
    if (deferred.length === 0) return;
    try {
      // By name: ALL would trip the row that was planted.
      await job.run(`SET CONSTRAINTS ${deferred.join(", ")} IMMEDIATE`);
    } catch (e) {
      throw asJobError(e, this.#play.statements.at(-1)?.line ?? 1, shown);
    }
  }

  // ---- what it touched

  /** @throws what names the first thing that cannot be shown as changes of rows. */
  async #refuseSchemaChanges(
    locked: readonly Locked[],
    was: readonly SchemaObject[],
    before: ReadonlyMap<string, number>,
  ): Promise<void> {
    const { job, outside } = this.#views;
    const ours = locked.find((l) => isOurs(l.schema, l.name));
    if (ours !== undefined) throw touchesMarker("the job writes tables of holdpoint");
    const known = new Set(
      (
        await outside.rows(
          "SELECT oid FROM pg_class WHERE oid = ANY ($1::oid[])",
          locked.map((l) => l.oid),
        )
      ).map((r) => r[0]),
    );
    for (const l of locked) refuseRelation(l, known.has(l.oid));
    const difference = firstDifference(was, await readObjects(job));
    if (difference !== null) throw schemaChange(difference);
    refuseCatalogueWrites(before, await catalogueWrites(job), locked, this.#play.statements);
  }

  // ---- the effect

  async #capture(
    beginning: Beginning,
    catalogue: Catalogue,
    locked: readonly Locked[],
  ): Promise<readonly WholeCapture[]> {
    const whole: WholeCapture[] = [];
    const areProof = await countersAreProof(this.#views.job);
    // Counting would wait where the job has locked a table whole: it may be another partition of this one.
    const mayCount = !locked.some((l) => l.isWhole && !l.isTemporary);
    for (const { oid, isWhole } of locked) {
      const storage = catalogue.storages.get(oid);
      if (storage === undefined) continue;
      if (isWhole) {
        const capture = new WholeCapture(beginning, storage);
        await capture.readAfter(this.#views.job);
        whole.push(capture);
      } else {
        const counted = await countersOf(this.#views.job, storage.oid, areProof);
        if (mayCount && counted.inserted + counted.updated + counted.deleted > 0)
          this.#sizes.start(storage.table);
        await new StorageCapture(this.#views, beginning, storage, counted, this.#emit).run();
      }
    }
    return whole;
  }

  #emit: Emit = (shape: TableShape, change: Change): void => {
    if (!this.#changed.has(shape.name)) this.#sink.table(shape);
    this.#changed.add(shape.name);
    this.#sink.add(change);
  };

  async #rowsBefore(catalogue: Catalogue): Promise<Readonly<Record<string, number>>> {
    const rows: Record<string, number> = {};
    for (const name of this.#changed) {
      const info = catalogue.byName.get(name);
      if (info !== undefined) rows[name] = await this.#sizes.of(info);
    }
    return rows;
  }
}

/** Constraints and constraint triggers that can wait for the COMMIT, as names for SET CONSTRAINTS. */
async function deferrable(session: Session): Promise<readonly string[]> {
  const rows = await session.rows(
    `SELECT DISTINCT n.nspname, k.conname FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
     WHERE k.condeferrable AND n.nspname !~ '^pg_' ORDER BY 1, 2`,
  );
  return rows.map(([schema, name]) => qualified(schema ?? "", name ?? ""));
}

/** Tables (partitions as their root) that the transaction has locked for writing. */
export function tablesOf(locked: readonly Locked[], catalogue: Catalogue): ReadonlySet<string> {
  return new Set(locked.flatMap((l) => catalogue.storages.get(l.oid)?.table.name ?? []));
}

async function readingLocked(job: Session): Promise<readonly Locked[]> {
  await job.set(READING_SETTINGS, true);
  return await lockedRelations(job);
}

/** Relations that the transaction holds a writing lock on, and that exist for others. */
export async function lockedRelations(job: Session): Promise<readonly Locked[]> {
  const rows = await job.rows(
    `SELECT l.relation, n.nspname, c.relname, c.relkind, c.relpersistence, bool_or(l.mode = 'AccessExclusiveLock')
     FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
     GROUP BY 1, 2, 3, 4, 5 ORDER BY 2, 3`,
  );
  return rows.map(([oid, schema, name, kind, persistence, whole]) => ({
    oid: oid ?? "",
    schema: schema ?? "",
    name: name ?? "",
    kind: kind ?? "",
    isTemporary: persistence === "t",
    isWhole: whole === "t",
  }));
}

/** A row that no COMMIT lets through. Its name is random, so that no job can mean it. */
export async function plant(job: Session, random: Random): Promise<void> {
  const name = `holdpoint_plant_${Buffer.from(random(8)).toString("hex")}`;
  await job.run(`CREATE TEMP TABLE ${quote(`${name}_a`)} (id integer PRIMARY KEY)`);
  await job.run(
    `CREATE TEMP TABLE ${quote(name)} (id integer REFERENCES pg_temp.${quote(`${name}_a`)} DEFERRABLE INITIALLY DEFERRED)`,
  );
  await job.run(`INSERT INTO pg_temp.${quote(name)} VALUES (1)`);
  const [wrote] = await job.rows(WRITTEN);
  if (wrote === undefined) return;
  throw unsupported(
    `an event trigger writes ${shownName(wrote[0] ?? "", wrote[1] ?? "")} when a temporary table is made`,
    "the rehearsal makes one, so the row that was written for it would be taken for an effect of the job",
    "Let the event trigger pass over temporary tables (WHEN TAG, or pg_event_trigger_ddl_commands()).",
  );
}

const WRITTEN = `SELECT s.schemaname, s.relname FROM pg_catalog.pg_stat_xact_user_tables s
  WHERE s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0 AND s.schemaname !~ '^pg_' ORDER BY 1, 2`;

/** How often each system catalogue was written in this transaction. */
export async function catalogueWrites(job: Session): Promise<ReadonlyMap<string, number>> {
  const rows = await job.rows(
    `SELECT s.relname, s.n_tup_ins + s.n_tup_upd + s.n_tup_del FROM pg_catalog.pg_stat_xact_sys_tables s
     WHERE s.schemaname = 'pg_catalog' AND s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0`,
  );
  return new Map(rows.map(([name, count]) => [name ?? "", Number(count)]));
}

/** What making a temporary table writes. */
const OF_TEMPORARY = new Set([
  "pg_class",
  "pg_attribute",
  "pg_type",
  "pg_depend",
  "pg_index",
  "pg_constraint",
  "pg_attrdef",
  "pg_sequence",
  "pg_trigger",
]);

function refuseCatalogueWrites(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  locked: readonly Locked[],
  statements: readonly Prepared[],
): void {
  const temporary = statements.some((s) => s.isTemporary) || locked.some((l) => l.isTemporary && l.isWhole);
  const truncated = locked.some((l) => l.isWhole);
  for (const [catalogue, count] of after) {
    if (count <= (before.get(catalogue) ?? 0)) continue;
    if (catalogue.startsWith("pg_largeobject")) throw largeObjects();
    if (temporary && OF_TEMPORARY.has(catalogue)) continue;
    // TRUNCATE gives the table another file.
    if (truncated && catalogue === "pg_class") continue;
    throw schemaChange(`the system catalogue ${catalogue}`);
  }
}

function refuseRelation(l: Locked, isKnown: boolean): void {
  if (l.isTemporary || !Number.isSafeInteger(Number(l.oid)) || Number(l.oid) < FIRST_OWN_OID) return;
  const shown = shownName(l.schema, l.name);
  // Made and dropped within the job, or a temporary table that is gone again: nobody else ever sees it.
  if (l.name === "" && !isKnown) return;
  if (l.name === "") throw schemaChange("a table that it drops");
  if (!isKnown && l.schema !== "pg_toast" && !["i", "I", "t"].includes(l.kind))
    throw schemaChange(`${shown}, which it makes`);
  if (l.kind === "f")
    throw unsupported(
      `the job writes the foreign table ${shown}`,
      "its rows are on another server, which is not rolled back",
    );
  if (l.kind === "m")
    throw unsupported(
      `the job refreshes the materialized view ${shown}`,
      "its rows follow from other tables",
    );
}

/** Below are the engine's own relations. */
const FIRST_OWN_OID = 16_384;

function firstDifference(was: readonly SchemaObject[], is: readonly SchemaObject[]): string | null {
  const text = (o: SchemaObject): string => JSON.stringify([o.kind, o.name, o.meaning]);
  const [before, after] = [new Set(was.map(text)), new Set(is.map(text))];
  const changed = [...is.filter((o) => !before.has(text(o))), ...was.filter((o) => !after.has(text(o)))][0];
  return changed === undefined ? null : `${changed.kind} of ${changed.name}`;
}

export function used(locked: readonly Locked[]): ReadonlySet<string> {
  return new Set(locked.filter((l) => l.kind === "S" && !l.isTemporary).map((l) => l.oid));
}

function noticesOf(locked: readonly Locked[], moves: readonly SequenceMove[]): readonly string[] {
  const whole = locked.filter((l) => l.isWhole && l.kind === "r" && !l.isTemporary);
  return [
    ...whole.map(
      (l) =>
        `the job takes all of ${shownName(l.schema, l.name)}, which nobody could read during the rehearsal`,
    ),
    ...moves.map(
      (m) =>
        `the rehearsal itself moved sequence ${m.name} from ${m.before} to ${m.after}: a rollback gives no number back`,
    ),
  ];
}

/**
 * Not on a clone either: what a program changed that commits by itself, in as many transactions as it likes, can be told
 * from what others did only where nobody else writes, and nothing proves that; and it would have to run against the target
 * to be applied, where nothing holds it to what was signed.
 */
function commandRefused(): Error {
  return unsupported(
    "a command line cannot be planned for a PostgreSQL target, on a clone (rehearse_on) neither",
    "it opens connections of its own and commits when it likes, so what it did cannot be proven to be all that it does",
    "Put its statements into an SQL file (holdpoint plan job.sql), or its logic into a module (holdpoint plan job.mjs), which asks through holdpoint's connection and cannot commit.",
  );
}

export function standbyRefused(shown: string): Error {
  return unsupported(
    `${shown} is a standby`,
    "nothing can be rehearsed or written there",
    "Name the primary in the url.",
  );
}

function schemaChange(what: string): UsageError {
  return new UsageError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `the job changes the schema: ${what}`,
    why: "a schema change cannot be written row by row, and it does not stand in the statements themselves",
    next: [
      {
        actor: "requester",
        text: "Plan it with --mode script: the statements then run again at apply, and stay only if they do the same.",
      },
    ],
  });
}

export function largeObjects(): Error {
  return unsupported(
    "the job writes large objects",
    "they are no rows of a table, and cannot be held or taken back",
  );
}
