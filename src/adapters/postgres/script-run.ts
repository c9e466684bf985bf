/**
 * Statements that change the schema, run in a transaction that somebody else opened, and their whole effect: rows, schema,
 * sequences. A rehearsal rolls it back; a run commits it if it equals what was signed.
 *
 * | what the statements did to a table | how its rows are told |
 * | --- | --- |
 * | wrote rows, and others can still read it | by visibility (`capture.ts`) |
 * | locked it whole, and neither rows nor columns became others | nothing to tell |
 * | locked it whole and wrote it, truncated, rewrote, made or dropped it, or changed its columns | by comparison with a copy |
 *
 * A table that is locked whole can be read by nobody else until the end, and its rows as they were are gone for the session
 * that changed them. So the statements run once to find out which tables these are, are taken back to a savepoint, the
 * tables are locked against writers and copied into temporary ones, and the statements run again. The comparison runs in
 * the server, and only rows that differ travel.
 */
import type { Random } from "../../base/clock.js";
import { changeBetween, keyOf, type TableShape } from "../../changeset/change.js";
import type { Row } from "../../changeset/value.js";
import type { ScriptOutcome } from "../../target/target.js";
import { StorageCapture, type Beginning, type Emit } from "./capture.js";
import { countersAreProof, countersOf } from "./counters.js";
import { readDefinitions, refuseUncovered, schemaChanges, type Definition } from "./definitions.js";
import { asJobError, unsupported, type Session } from "./driver.js";
import type { Watch } from "./limits.js";
import { isOurs, qualified, quote, shownName } from "./names.js";
import { OutsideEffects } from "./outside.js";
import { selectList, storesUtf8 } from "./read.js";
import { catalogueWrites, lockedRelations, tablesOf, used, type Locked } from "./rehearse.js";
import { readCatalogue, type Catalogue, type Storage, type TableInfo } from "./schema.js";
import { readSequences, sequenceMoves } from "./sequences.js";
import { loadParser, touchesMarker, type Prepared } from "./statements.js";
import { isInteger, READING_SETTINGS, textForm, toRow, type Cell } from "./values.js";

/** Where the statements run and who looks at them. */
export interface ScriptStage {
  /** In a transaction in which nothing but rows of tables was written. */
  readonly job: Session;
  /** A multixact number from before that transaction. */
  readonly multixact: string;
  /** Opens one more session for reading; whoever opened it closes it. */
  readonly open: () => Promise<Session>;
  readonly random: Random;
  readonly shown: string;
  /** Looks at what each statement costs, and cancels it. */
  readonly watch: Watch;
}

/** What the statements did. */
export interface ScriptFound extends ScriptOutcome {
  /** Storages that had to be copied, to be copied at once when the same statements run again. */
  readonly copied: ReadonlySet<string>;
  readonly locked: readonly Locked[];
  /** What is sent or done outside, for the plan. */
  readonly outside: readonly string[];
}

/** Rows copied in one statement. */
const COPIED_AT_ONCE = 1_000;

/** The database at one moment, as one session sees it. */
interface State {
  readonly catalogue: Catalogue;
  readonly definitions: readonly Definition[];
  /** By oid: the file that holds a relation's rows. */
  readonly files: ReadonlyMap<string, string>;
  /** By oid: columns whose value in older rows is a default kept in the catalogue. */
  readonly defaulted: ReadonlySet<string>;
}

/** A storage before and after, with the name that its table has on each side. */
interface Pair {
  readonly was: Storage | null;
  readonly is: Storage | null;
}

/** Runs the statements and captures what they did. */
export class ScriptRun {
  readonly #stage: ScriptStage;
  readonly #statements: readonly Prepared[];
  readonly #emit: Emit;

  constructor(stage: ScriptStage, statements: readonly Prepared[], emit: Emit) {
    this.#stage = stage;
    this.#statements = statements;
    this.#emit = emit;
  }

  /**
   * @param known storages that are known to need a copy; empty when nothing is known.
   * @throws UsageError ERR_JOB_FAILED with the line; RefusedError ERR_MARKER_TOUCHED; TargetError ERR_TARGET_UNSUPPORTED for
   * an effect that cannot be captured whole.
   */
  async perform(known: ReadonlySet<string> = new Set()): Promise<ScriptFound> {
    const { job } = this.#stage;
    await refuseUncounted(job);
    const fresh = await this.#stage.open();
    try {
      const before = await stateOf(fresh);
      const sequences = await readSequences(fresh);
      const transaction = BigInt((await job.value("SELECT pg_catalog.pg_current_xact_id()")) ?? "0");
      const isUtf8 = await storesUtf8(fresh);
      const beginning = { transaction, multixact: this.#stage.multixact, isUtf8 };
      const found = await this.#performFrom(before, beginning, fresh, known);
      // Once, and last: reading a sequence locks it until the end, and then it looks like one that was used.
      const after = await readSequences(job);
      const stayed = new Map([...after].filter(([name]) => sequences.has(name)));
      return { ...found, sequences: sequenceMoves(sequences, stayed, used(found.locked)) };
    } finally {
      await fresh.close();
    }
  }

  async #performFrom(
    before: State,
    beginning: Beginning,
    fresh: Session,
    known: ReadonlySet<string>,
  ): Promise<Omit<ScriptFound, "sequences">> {
    const { job } = this.#stage;
    const written = await catalogueWrites(job);
    await job.run("SAVEPOINT holdpoint_script");
    let copies = await this.#copy(before, known);
    let run = await this.#runOnce(before, written);
    const missing = run.changed.filter((p) => p.was !== null && !copies.has(p.was.oid));
    if (missing.length > 0) {
      await job.run("ROLLBACK TO SAVEPOINT holdpoint_script");
      copies = await this.#copy(before, new Set(run.changed.flatMap((p) => p.was?.oid ?? [])));
      run = await this.#runOnce(before, written);
      const still = run.changed.find((p) => p.was !== null && !copies.has(p.was.oid));
      if (still !== undefined) throw inconstant(still.was?.shown ?? "");
    }
    await this.#captureChanged(run.changed, copies);
    await this.#captureWritten(beginning, fresh, before, run);
    const changes = await schemaChanges(before.definitions, run.after.definitions, this.#isEmpty(run.after));
    const copied = new Set(run.changed.flatMap((p) => p.was?.oid ?? []));
    // As it is now: what the statements themselves made may have fired, too.
    const made = await OutsideEffects.read(job, run.after.catalogue);
    const inTables = tablesOf(run.locked, run.after.catalogue);
    made.refuseAfter(inTables);
    return {
      schemaChanges: changes,
      copied,
      locked: run.locked,
      outside: made.notices(inTables, true),
    };
  }

  // ---- running

  async #runOnce(
    before: State,
    written: ReadonlyMap<string, number>,
  ): Promise<{
    readonly after: State;
    readonly locked: readonly Locked[];
    readonly changed: readonly Pair[];
  }> {
    const { job } = this.#stage;
    await this.#runStatements(before.catalogue);
    await job.set(READING_SETTINGS, true);
    const locked = await lockedRelations(job);
    refuseRelations(locked);
    const grown = [...(await catalogueWrites(job))].filter(([name, n]) => n > (written.get(name) ?? 0));
    refuseUncovered(new Map(grown));
    const after = await stateOf(job);
    return { after, locked, changed: await this.#changedStorages(before, after, locked) };
  }

  async #runStatements(catalogue: Catalogue): Promise<void> {
    const { job, shown } = this.#stage;
    const [parser, outside] = [await loadParser(), await OutsideEffects.read(job, catalogue)];
    // As the role and database have them: a session for writing has fixed ones over them.
    for (const name of Object.keys(READING_SETTINGS)) await job.run(`SET LOCAL ${name} TO DEFAULT`);
    await this.#stage.watch.begin();
    for (const statement of this.#statements) {
      outside.refuseBefore(parser, statement);
      await this.#stage.watch.run(statement, () => job.runJob(statement.text, statement.values));
    }
    const deferred = await job.rows(DEFERRABLE);
    if (deferred.length === 0) return;
    try {
      // By name: in a rehearsal ALL would trip the row that was planted.
      const names = deferred.map(([schema, name]) => qualified(schema ?? "", name ?? ""));
      await job.run(`SET CONSTRAINTS ${names.join(", ")} IMMEDIATE`);
    } catch (e) {
      throw asJobError(e, this.#statements.at(-1)?.line ?? 1, shown);
    }
  }

  // ---- which tables

  /** Storages whose rows cannot be told by visibility. */
  async #changedStorages(before: State, after: State, locked: readonly Locked[]): Promise<readonly Pair[]> {
    const whole = new Set(locked.filter((l) => l.isWhole).map((l) => l.oid));
    const oids = new Set([...before.catalogue.storages.keys(), ...after.catalogue.storages.keys()]);
    const changed: Pair[] = [];
    for (const oid of oids) {
      const [was, is] = [before, after].map((s) => s.catalogue.storages.get(oid) ?? null);
      const pair = { was: was ?? null, is: is ?? null };
      if (await this.#isChanged(pair, before, after, whole.has(oid))) changed.push(pair);
    }
    return changed;
  }

  async #isChanged({ was, is }: Pair, before: State, after: State, isWhole: boolean): Promise<boolean> {
    if (was === null || is === null || was.table.name !== is.table.name) return true;
    if (hasOtherCells(was.table, is.table, after.defaulted)) return true;
    if (!isWhole) return false;
    if (before.files.get(was.oid) !== after.files.get(is.oid)) return true;
    const { inserted, updated, deleted } = await countersOf(this.#stage.job, was.oid, true);
    return inserted + updated + deleted > 0;
  }

  // ---- copies

  /** Copies these storages as others see them, while nobody can write them; their temporary names. */
  async #copy(before: State, oids: ReadonlySet<string>): Promise<ReadonlyMap<string, string>> {
    const copies = new Map<string, string>();
    const storages = [...oids].flatMap((oid) => before.catalogue.storages.get(oid) ?? []);
    if (storages.length === 0) return copies;
    const { job } = this.#stage;
    for (const s of storages) await job.run(`LOCK TABLE ${s.from} IN SHARE MODE`);
    // A session of its own: it must hold no lock on these tables when the statements want all of them.
    const reader = await this.#stage.open();
    try {
      await reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
      for (const s of storages) copies.set(s.oid, await this.#copyOne(reader, s));
      await reader.rollback();
    } finally {
      await reader.close();
    }
    return copies;
  }

  async #copyOne(reader: Session, storage: Storage): Promise<string> {
    const { job, random } = this.#stage;
    const name = `pg_temp.${quote(`holdpoint_was_${Buffer.from(random(8)).toString("hex")}`)}`;
    const columns = storage.table.columns.map((_, i) => `c${i}`);
    const texts = columns.map((c) => `${c} text COLLATE "C"`);
    await job.run(`CREATE TABLE ${name} (${texts.join(", ")}) ON COMMIT DROP`);
    const arrays = columns.map((_, i) => `$${i + 1}::text[]`);
    const sql = `INSERT INTO ${name} SELECT * FROM unnest(${arrays.join(", ")})`;
    let rows: (readonly Cell[])[] = [];
    const flush = async (): Promise<void> => {
      await job.run(sql, ...columns.map((_, i) => rows.map((r) => r[i] ?? null)));
      rows = [];
    };
    for await (const row of reader.copy(
      `SELECT ${selectList(storage.table, "t")} FROM ${storage.from} AS t`,
    )) {
      rows.push(row);
      if (rows.length >= COPIED_AT_ONCE) await flush();
    }
    if (rows.length > 0) await flush();
    return name;
  }

  // ---- rows

  /** Rows of what others could read all the time. */
  async #captureWritten(
    beginning: Beginning,
    fresh: Session,
    before: State,
    run: { readonly locked: readonly Locked[]; readonly changed: readonly Pair[] },
  ): Promise<void> {
    const told = new Set(run.changed.flatMap((p) => p.was?.oid ?? []));
    const storages = run.locked.flatMap((l) =>
      l.isWhole || told.has(l.oid) ? [] : (before.catalogue.storages.get(l.oid) ?? []),
    );
    if (storages.length === 0) return;
    const { job } = this.#stage;
    const outside = await this.#stage.open();
    try {
      await outside.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
      await outside.value("SELECT pg_current_snapshot()");
      for (const storage of storages) {
        const counted = await countersOf(job, storage.oid, await countersAreProof(job));
        await new StorageCapture({ job, outside, fresh }, beginning, storage, counted, this.#emit).run();
      }
    } finally {
      await outside.close();
    }
  }

  /** Rows of tables that were copied, made or dropped, compared in the server. */
  async #captureChanged(changed: readonly Pair[], copies: ReadonlyMap<string, string>): Promise<void> {
    const names = new Set(changed.flatMap((p) => [p.was?.table.name ?? [], p.is?.table.name ?? []].flat()));
    for (const name of names) {
      const was = changed.flatMap((p) => (p.was?.table.name === name ? [p.was] : []));
      const is = changed.flatMap((p) => (p.is?.table.name === name ? [p.is] : []));
      await this.#compare(name, was, is, copies);
    }
  }

  async #compare(
    name: string,
    was: readonly Storage[],
    is: readonly Storage[],
    copies: ReadonlyMap<string, string>,
  ): Promise<void> {
    const sides = { was: was[0]?.table ?? null, is: is[0]?.table ?? null };
    const shape = sharedShape(name, sides);
    if (shape === null) return;
    const before = was.map((s) => selectCopied(shape, s, copies.get(s.oid) ?? ""));
    const after = is.map((s) => selectTexts(shape, s));
    const width = shape.columns.length;
    if (shape.keyKind === "none") {
      for await (const [count, ...cells] of this.#stage.job.copy(counted(width, before, after)))
        this.#emitCounted(shape, Number(count), toRow(shape.columns, cells, 0));
      return;
    }
    for await (const [, hadIt, hasIt, ...cells] of this.#stage.job.copy(joined(shape, before, after))) {
      const [old, now] = [toRow(shape.columns, cells, 0), toRow(shape.columns, cells.slice(width), 0)];
      this.#emitPair(shape, hadIt === null ? null : old, hasIt === null ? null : now);
    }
  }

  #emitPair(shape: TableShape, before: Row | null, after: Row | null): void {
    const change = changeBetween(shape.name, keyOf(shape, before ?? after ?? []), "unknown", before, after);
    if (change !== undefined) this.#emit(shape, change);
  }

  #emitCounted(shape: TableShape, count: number, row: Row): void {
    const [before, after] = count > 0 ? [null, row] : [row, null];
    const change = changeBetween(shape.name, row, "unknown", before, after);
    const rows = Math.abs(count);
    if (change !== undefined) this.#emit(shape, rows === 1 ? change : { ...change, count: rows });
  }

  #isEmpty(after: State) {
    return async (table: string, columns: readonly string[]): Promise<boolean> => {
      const info = after.catalogue.byName.get(table);
      if (info === undefined) return false;
      return !(await hasValues(this.#stage.job, info, columns));
    };
  }
}

/** Whether anything stands in these columns (names as SQL quotes them). */
export async function hasValues(
  session: Session,
  table: TableInfo,
  columns: readonly string[],
): Promise<boolean> {
  const filled = columns.map((c) => `num_nonnulls(t.${c}) = 1`).join(" OR ");
  return (await session.value(`SELECT EXISTS (SELECT 1 FROM ${table.from} AS t WHERE ${filled})`)) === "t";
}

// ---- the state of a database

async function stateOf(session: Session): Promise<State> {
  const files = await session.rows(
    "SELECT oid, relfilenode FROM pg_class WHERE relkind = 'r' AND oid >= 16384",
  );
  const defaulted = await session.rows(
    "SELECT attrelid, attname FROM pg_attribute WHERE attrelid >= 16384 AND atthasmissing AND NOT attisdropped",
  );
  return {
    catalogue: await readCatalogue(session),
    definitions: await readDefinitions(session),
    files: new Map(files.map(([oid, file]) => [oid ?? "", file ?? ""])),
    defaulted: new Set(defaulted.map(([oid, name]) => `${oid ?? ""} ${name ?? ""}`)),
  };
}

/** Whether rows that nobody wrote have other cells now. Columns that came empty give none. */
function hasOtherCells(was: TableInfo, is: TableInfo, defaulted: ReadonlySet<string>): boolean {
  const of = (t: TableInfo): readonly string[] => t.shape.columns.map((c) => `${c.name} ${c.type}`);
  const [before, after] = [of(was), of(is)];
  if (before.some((c) => !after.includes(c)) || !sameKeyNames(was, is)) return true;
  return is.shape.columns.some(
    (c, i) =>
      !before.includes(after[i] ?? "") && (c.generated === true || defaulted.has(`${is.oid} ${c.name}`)),
  );
}

function sameKeyNames(a: TableInfo, b: TableInfo): boolean {
  return JSON.stringify(keyNames(a)) === JSON.stringify(keyNames(b));
}

function keyNames({ shape }: TableInfo): readonly string[] {
  return shape.keyKind === "none" ? [] : shape.key.map((i) => shape.columns[i]?.name ?? "");
}

// ---- comparing

/** The shape that holds the rows of both sides; a column whose type became another is told as text. */
function sharedShape(
  name: string,
  { was, is }: { readonly was: TableInfo | null; readonly is: TableInfo | null },
): TableShape | null {
  if (was === null || is === null) return (is ?? was)?.shape ?? null;
  const added = was.shape.columns.filter((c) => !is.shape.columns.some((d) => d.name === c.name));
  const columns = [...is.shape.columns, ...added].map((column) => {
    const former = was.shape.columns.find((c) => c.name === column.name);
    const isMixed = former !== undefined && isInteger(former.type) !== isInteger(column.type);
    return isMixed ? { ...column, type: "text" } : column;
  });
  const keyed = is.shape.keyKind === "primary" && was.shape.keyKind === "primary" && sameKeyNames(was, is);
  return keyed
    ? { name, columns, keyKind: "primary", key: is.shape.key }
    : { name, columns, keyKind: "none", key: columns.map((_, i) => i) };
}

/** The cells of a storage as they travel, in the order of the shape's columns, as `v0`, `v1` … */
function selectTexts(shape: TableShape, { table, from }: Storage): string {
  const cells = shape.columns.map(({ name }, i) => {
    const column = `t.${quote(name)}`;
    const has = table.columns.some((c) => c.name === name);
    return `${has ? `CASE num_nulls(${column}) WHEN 0 THEN ${textForm(column)} END` : "NULL::text"} AS v${i}`;
  });
  return `SELECT 1 AS p, ${cells.join(", ")} FROM ${from} AS t`;
}

function selectCopied(shape: TableShape, { table }: Storage, copy: string): string {
  const cells = shape.columns.map(({ name }, i) => {
    const at = table.columns.findIndex((c) => c.name === name);
    return `${at < 0 ? "NULL::text" : `t.c${at}`} AS v${i}`;
  });
  return `SELECT 1 AS p, ${cells.join(", ")} FROM ${copy} AS t`;
}

function united(width: number, selects: readonly string[]): string {
  if (selects.length > 0) return selects.join(" UNION ALL ");
  const cells = Array.from({ length: width }, (_, i) => `NULL::text AS v${i}`);
  return `SELECT 1 AS p, ${cells.join(", ")} WHERE false`;
}

/** Rows with a key: what is on one side only, or other there. */
function joined(shape: TableShape, before: readonly string[], after: readonly string[]): string {
  const width = shape.columns.length;
  const cells = (side: string): readonly string[] => shape.columns.map((_, i) => `${side}.v${i}`);
  const on = shape.key.map((i) => `b.v${i} COLLATE "C" = a.v${i} COLLATE "C"`);
  const differs = cells("b").map((b, i) => `${b} COLLATE "C" IS DISTINCT FROM a.v${i}`);
  return `SELECT 0, b.p, a.p, ${[...cells("b"), ...cells("a")].join(", ")}
    FROM (${united(width, before)}) AS b FULL JOIN (${united(width, after)}) AS a ON ${on.join(" AND ")}
    WHERE b.p IS NULL OR a.p IS NULL OR ${differs.join(" OR ")}`;
}

/** Rows without one: how many more (or fewer) there are now of each that has another number. */
function counted(width: number, before: readonly string[], after: readonly string[]): string {
  const names = Array.from({ length: width }, (_, i) => `v${i}`);
  return `SELECT sum(n), ${names.join(", ")} FROM (
      SELECT -p AS n, ${names.join(", ")} FROM (${united(width, before)}) AS b
      UNION ALL SELECT p, ${names.join(", ")} FROM (${united(width, after)}) AS a) AS r
    GROUP BY ${names.map((n) => `${n} COLLATE "C", ${n}`).join(", ")} HAVING sum(n) <> 0`;
}

// ---- refusals

const DEFERRABLE = `SELECT DISTINCT n.nspname, k.conname FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) k.connamespace
  WHERE k.condeferrable AND NOT pg_catalog.starts_with(n.nspname::pg_catalog.text, 'pg_'::pg_catalog.text) ORDER BY 1, 2`;

/** Whether rows were written at all is told by the server's counters. */
async function refuseUncounted(job: Session): Promise<void> {
  if (await countersAreProof(job)) return;
  throw unsupported(
    "the server's row counters cannot be relied on here: track_counts is off for this role, or a function may switch it",
    "which tables a schema change wrote is told by them",
    "Ask a superuser for: ALTER ROLE … SET track_counts = on.",
  );
}

function refuseRelations(locked: readonly Locked[]): void {
  for (const l of locked) {
    if (l.isTemporary) continue;
    if (isOurs(l.schema, l.name)) throw touchesMarker("the job writes tables of holdpoint");
    const shown = shownName(l.schema, l.name);
    if (l.kind === "f")
      throw unsupported(
        `the job writes the foreign table ${shown}`,
        "its rows are on another server, which is not rolled back",
      );
    if (l.kind === "m")
      throw unsupported(
        `the job changes the materialized view ${shown}`,
        "its rows follow from other tables and are no effect of their own",
      );
  }
}

function inconstant(table: string): Error {
  return unsupported(
    `run twice, the job took other tables whole: ${table}`,
    "which tables it changes depends on something else than its statements, so its effect cannot be captured",
  );
}
