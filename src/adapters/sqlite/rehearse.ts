/**
 * Rehearsing a job where nothing is kept.
 *
 * | job | where | how |
 * | --- | --- | --- |
 * | SQL, few rows | in place: `BEGIN IMMEDIATE` … `ROLLBACK` | capture by temporary triggers, write lock held at most 2 s |
 * | SQL, else | on a private copy | capture by temporary triggers; by comparison what they cannot see |
 * | program | on a private copy | comparison with a second copy; with a third where it is run again |
 *
 * In place nothing reaches the file: no dirty page leaves the cache (`cache_spill`), and in rollback-journal mode
 * the journal is kept in memory, so that even a kill leaves the file as it was, with no journal to roll back.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import type { Clock, Random } from "../../base/clock.js";
import { digestStream, type Digest } from "../../base/digest.js";
import { HoldpointError, messageOf, RefusedError, UsageError } from "../../base/errors.js";
import { afterOf, type Change, type ChangeSink, type TableShape } from "../../changeset/change.js";
import { sameRow, type Row } from "../../changeset/value.js";
import type { Again, Rehearsal, RunnableJob, SchemaFacts, SqlStatement } from "../../target/target.js";
import { isUnheld, sharedShape, tableNames, type Side } from "./compare.js";
import { attachBefore, compareCopies, fileComparison } from "./compare-copies.js";
import { CaptureFile } from "./capture-file.js";
import { cloneFile, copyDatabase, makeScratch } from "./copy.js";
import { asTargetError, isBusy, openFile, type Connection, type Driver } from "./driver.js";
import {
  JobRun,
  markerObjects,
  markerTouched,
  type Bounds,
  type Emit,
  type Filing,
  type RunFacts,
} from "./job-run.js";
import { fold, isOurs, main, quote } from "./names.js";
import { DifferingPages, PageGuide } from "./page-guide.js";
import { prepareForReading, readerFor } from "./read.js";
import { assertSupported, encodingOf, readCatalogue, readObjects, schemaFacts } from "./schema.js";
import { compareRuns, runAgain, type RerunFacts } from "./rerun.js";
import { readSequences, schemaChanges, sequenceMoves } from "./schema-changes.js";
import { checkTexts } from "./statements.js";

/** How long a rehearsal in place may hold the write lock. */
const IN_PLACE_MS = 2_000;
/** Rows that a rehearsal in place may touch, and bytes of values it may hold until the lock is given back. */
const IN_PLACE_ROWS = 20_000;
const IN_PLACE_VALUE_BYTES = 64 * 1024 * 1024;
/** A larger file is not rehearsed in place: one scan of it could take longer than the bound, and cannot be stopped. */
const IN_PLACE_FILE_BYTES = 256 * 1024 * 1024;
/** Up to this size a statement may read several tables from end to end in place. */
const FREE_SCAN_BYTES = 4 * 1024 * 1024;

/** What a rehearsal works with. */
export interface RehearsalSetting {
  readonly driver: Driver;
  readonly path: string;
  /** A read-only connection to the target, outside any transaction. */
  readonly reader: Connection;
  readonly foreignKeys: boolean;
  readonly readonly: boolean;
  readonly busyMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly scratchDir: string;
}

/** `Target.rehearse`. */
export async function rehearse(
  setting: RehearsalSetting,
  job: RunnableJob,
  sink: ChangeSink,
  again?: Again,
): Promise<Rehearsal> {
  if (job.kind === "program") return rehearseProgram(setting, job.run, sink, again);
  const { schema } = checkTexts(job.statements);
  const inPlace = schema || setting.readonly ? null : rehearseInPlace(setting, job.statements, sink);
  return inPlace ?? rehearseOnCopy(setting, job.statements, sink);
}

/** Thrown to end a rehearsal in place that takes too long or cannot see everything; the copy takes over. */
class NeedsCopy extends Error {}

function rehearseInPlace(
  setting: RehearsalSetting,
  statements: readonly SqlStatement[],
  sink: ChangeSink,
): Rehearsal | null {
  const bytes = fileBytes(setting.path);
  if (bytes > IN_PLACE_FILE_BYTES) return null;
  const { writer, started } = lockedWriter(setting) ?? { writer: null, started: 0 };
  if (writer === null) return null;
  const held: { readonly shape: TableShape; readonly change: Change }[] = [];
  let result: { readonly facts: RunFacts; readonly schema: SchemaFacts };
  try {
    const before: Side = { connection: setting.reader, catalogue: readCatalogue(setting.reader) };
    const bounds = boundsInPlace(setting.clock, started, bytes);
    const run = new JobRun(setting.driver, writer, before, statements, bounds);
    const facts = run.rehearse(setting.clock, holdInMemory(held), () => {
      throw new NeedsCopy();
    });
    result = { facts, schema: schemaFacts(setting.reader, setting.foreignKeys) };
  } catch (e) {
    if (e instanceof NeedsCopy) return null;
    throw e;
  } finally {
    writer.rollback();
    writer.close();
  }
  const lockMs = setting.clock.now().getTime() - started;
  const emit = into(sink);
  for (const { shape, change } of held) emit(shape, change);
  return { where: "in-place", schema: result.schema, ...result.facts, lockMs };
}

/** A connection that holds the write lock and writes nothing to disk; null when the lock is not to be had. */
function lockedWriter(
  setting: RehearsalSetting,
): { readonly writer: Connection; readonly started: number } | null {
  const writer = openFile(setting.driver, setting.path, {
    readonly: false,
    busyMs: Math.min(setting.busyMs, IN_PLACE_MS),
    foreignKeys: setting.foreignKeys,
  });
  try {
    prepareForReading(writer);
    writer.exec("PRAGMA cache_spill = OFF");
    // In WAL mode this word would try to leave WAL, and there pages that do not spill are not written anyway.
    if (writer.value("PRAGMA journal_mode") !== "wal") writer.value("PRAGMA journal_mode = MEMORY");
    writer.exec("BEGIN IMMEDIATE");
    return { writer, started: setting.clock.now().getTime() };
  } catch (e) {
    writer.close();
    // Somebody else is writing, or we may not: a copy needs neither.
    if (isBusy(e) || /READONLY/.test(messageOf(e).toUpperCase())) return null;
    throw asTargetError(e, setting.path);
  }
}

function boundsInPlace(clock: Clock, started: number, bytes: number): Bounds {
  let rows = 0;
  const inTime = (): void => {
    if (clock.now().getTime() - started > IN_PLACE_MS) throw new NeedsCopy();
  };
  return {
    row: () => {
      if (++rows > IN_PLACE_ROWS) throw new NeedsCopy();
      inTime();
    },
    statement: ({ scans }) => {
      if (scans === Number.POSITIVE_INFINITY || (scans > 1 && bytes > FREE_SCAN_BYTES)) throw new NeedsCopy();
      inTime();
    },
  };
}

function holdInMemory(held: { readonly shape: TableShape; readonly change: Change }[]): Emit {
  let bytes = 0;
  return (shape, change) => {
    bytes += imageBytes(change);
    if (held.length >= IN_PLACE_ROWS || bytes > IN_PLACE_VALUE_BYTES) throw new NeedsCopy();
    held.push({ shape, change });
  };
}

function imageBytes(change: Change): number {
  const images = [...(change.op === "insert" ? [] : change.before), ...(afterOf(change) ?? [])];
  return images.reduce<number>(
    (sum, v) => sum + (typeof v === "string" ? 2 * v.length : v instanceof Uint8Array ? v.length : 8),
    0,
  );
}

function fileBytes(path: string): number {
  return size(path) + size(`${path}-wal`);
}

function size(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** Declares each table before its first change. */
export function into(sink: ChangeSink): Emit {
  const declared = new Set<string>();
  return (shape, change) => {
    if (!declared.has(shape.name)) sink.table(shape);
    declared.add(shape.name);
    sink.add(change);
  };
}

// ---- on a copy

async function rehearseOnCopy(
  setting: RehearsalSetting,
  statements: readonly SqlStatement[],
  sink: ChangeSink,
): Promise<Rehearsal> {
  const scratch = makeScratch(setting.scratchDir, setting.random);
  try {
    const { path, notices } = await timedCopy(setting, join(scratch.path, "copy"));
    const writer = openCopy(setting, path);
    // With a write-ahead log one connection keeps seeing the state before, while the other writes.
    writer.value("PRAGMA journal_mode = WAL");
    const before = openCopy(setting, path);
    try {
      before.exec("BEGIN");
      const side: Side = { connection: before, catalogue: readCatalogue(before) };
      const schema = schemaFacts(before, setting.foreignKeys);
      const filing = filingInto(sink, writer, scratch.path);
      writer.exec("BEGIN IMMEDIATE");
      const run = new JobRun(setting.driver, writer, side, statements, {
        row: null,
        statement: () => undefined,
      });
      const facts = run.rehearse(setting.clock, into(sink), () => undefined, filing);
      return { where: "copy", schema, ...facts, notices: [...notices, ...facts.notices], lockMs: 0 };
    } finally {
      writer.rollback();
      before.rollback();
      before.close();
      writer.close();
    }
  } finally {
    scratch.remove();
  }
}

/** Null for a sink that takes changes one by one, and for text that no file of ours holds as it is. */
function filingInto(sink: ChangeSink, writer: Connection, folder: string): Filing | null {
  const { addStored } = sink;
  if (addStored === undefined || encodingOf(writer) !== "UTF-8") return null;
  const file = new CaptureFile(writer, folder);
  return { file, take: (shape) => addStored(shape, file.stored()) };
}

async function timedCopy(
  setting: RehearsalSetting,
  folder: string,
): Promise<{ readonly path: string; readonly notices: readonly string[] }> {
  const started = setting.clock.now().getTime();
  try {
    const path = await copyDatabase(setting.reader, folder);
    const took = setting.clock.now().getTime() - started;
    const blocked = setting.reader.value("PRAGMA journal_mode") !== "wal" && took > NOTABLE_MS;
    return {
      path,
      notices: blocked
        ? [`copying the database took ${took} ms, in which no other process could commit`]
        : [],
    };
  } catch (e) {
    throw asTargetError(e, setting.path);
  }
}

/** A copy that takes longer than this is worth a word where it holds writers up. */
const NOTABLE_MS = 100;

function openCopy(setting: RehearsalSetting, path: string): Connection {
  const connection = openFile(setting.driver, path, {
    readonly: false,
    busyMs: 0,
    foreignKeys: setting.foreignKeys,
  });
  connection.exec("PRAGMA synchronous = OFF");
  prepareForReading(connection);
  return connection;
}

// ---- programs

type RunProgram = Extract<RunnableJob, { readonly kind: "program" }>["run"];

async function rehearseProgram(
  setting: RehearsalSetting,
  run: RunProgram,
  sink: ChangeSink,
  again: Again | undefined,
): Promise<Rehearsal> {
  const scratch = makeScratch(setting.scratchDir, setting.random);
  const { clock } = setting;
  try {
    const version = setting.reader.value("PRAGMA data_version");
    const { path: pristine, notices } = await timedCopy(setting, join(scratch.path, "before"));
    const play = async (folder: string, quiet: boolean): Promise<string> => {
      const path = cloneFile(pristine, join(scratch.path, folder));
      await run({ url: `sqlite:${path}`, path, quiet });
      // Opened once by itself: whatever log or journal the job left is then in the file.
      openResult(setting, path).close();
      return path;
    };
    const started = clock.now().getTime();
    const path = await play("job", false);
    const took = clock.now().getTime() - started;
    const second = await runAgain(again, took, clock, () => play("again", true));
    const changed = setting.reader.value("PRAGMA data_version") !== version;
    const paths = { before: pristine, after: path };
    const told = second.path === null ? NOTHING_TOLD : toldBySecond(setting, paths, second.path, changed);
    return withCopies(setting, paths, (before, after, guide) => {
      const written = changed || setting.reader.value("PRAGMA data_version") !== version;
      // Where somebody wrote meanwhile each change is held against what the target is now.
      const filing = written ? null : filingInto(sink, after, scratch.path);
      const facts = factsBetween(setting, before, after, sink, { written, filing, guide });
      return {
        where: "copy",
        schema: schemaFacts(before, setting.foreignKeys),
        ...facts,
        volatile: told.volatile,
        notices: [...notices, ...facts.notices, ...second.notices, ...told.notices],
        lockMs: 0,
      };
    });
  } finally {
    scratch.remove();
  }
}

interface TwoCopies {
  readonly before: string;
  readonly after: string;
}

/** Opens two copies, with what their pages say. All that is read past SQLite is read before it has the files open, and closed after. */
function withCopies<T>(
  setting: RehearsalSetting,
  paths: TwoCopies,
  work: (before: Connection, after: Connection, guide: PageGuide | null) => T,
): T {
  const pages = DifferingPages.between(paths.before, paths.after);
  const opened: Connection[] = [];
  const open = (path: string): Connection => {
    const connection = openCopy(setting, path);
    opened.push(connection);
    return connection;
  };
  try {
    const [before, after] = [open(paths.before), open(paths.after)];
    return work(before, after, pages === null ? null : new PageGuide(pages, before, after));
  } finally {
    for (const connection of opened) connection.close();
    pages?.close();
  }
}

const NOTHING_TOLD: RerunFacts = { volatile: [], notices: [] };

/** What the second run did otherwise than the first. */
function toldBySecond(
  setting: RehearsalSetting,
  paths: TwoCopies,
  second: string,
  written: boolean,
): RerunFacts {
  return withCopies(setting, { before: paths.after, after: second }, (first, again, guide) => {
    const before = openCopy(setting, paths.before);
    try {
      const [was, one, two] = [sideOf(before), sideOf(first), sideOf(again)];
      refuseUnheld(was, two);
      const rival = written ? new RivalWrites(setting.reader) : null;
      return compareRuns(was, one, two, guide, (shape, change) => rival?.look(shape, change));
    } finally {
      before.close();
    }
  });
}

function openResult(setting: RehearsalSetting, path: string): Connection {
  try {
    return openCopy(setting, path);
  } catch (e) {
    throw new UsageError({
      code: "ERR_JOB_FAILED",
      message: "the job left no readable database behind",
      why: messageOf(e),
      cause: e,
    });
  }
}

function factsBetween(
  setting: RehearsalSetting,
  before: Connection,
  after: Connection,
  sink: ChangeSink,
  {
    written,
    filing,
    guide,
  }: { readonly written: boolean; readonly filing: Filing | null; readonly guide: PageGuide | null },
): RunFacts {
  const [was, is] = [sideOf(before), sideOf(after)];
  refuseUnheld(was, is);
  attachBefore(was.connection, is.connection);
  const emit = into(sink);
  const rowsBefore: Record<string, number> = {};
  const taken: TableShape[] = [];
  const rival = written ? new RivalWrites(setting.reader) : null;
  for (const name of tableNames(was.catalogue, is.catalogue)) {
    const shape = sharedShape(name, was, is);
    if (shape === null || isUnheld(name, was, is)) continue;
    const filed = filing === null ? null : fileComparison(name, was, is, filing.file, guide);
    if (filed !== null && filed.rows > 0) taken.push(shape);
    let changes = filed?.rows ?? 0;
    for (const change of filed === null ? compareCopies(name, was, is, guide) : []) {
      changes++;
      rival?.look(shape, change);
      emit(shape, change);
    }
    if (changes > 0)
      rowsBefore[shape.name] = was.catalogue.byName.has(fold(name)) ? countRows(before, name) : 0;
  }
  // Last: whoever takes it holds the file from then on.
  for (const shape of taken) if (filing?.take(shape) !== true) throw notTaken(shape.name);
  return {
    schemaChanges: schemaChanges(
      { before: readObjects(before), after: readObjects(after) },
      { before: was.catalogue, after: is.catalogue },
      after,
    ),
    sequences: sequenceMoves(
      { before: readSequences(before), after: readSequences(after) },
      new Set(is.catalogue.byName.keys()),
    ),
    volatile: [],
    rowsBefore,
    origins: {},
    notices: written ? ["another process wrote to the target while the job was rehearsed"] : [],
  };
}

function notTaken(table: string): HoldpointError {
  return new HoldpointError({
    code: "ERR_INTERNAL",
    message: `what the job does to ${table} was found and could not be taken over`,
  });
}

function sideOf(connection: Connection): Side {
  return { connection, catalogue: readCatalogue(connection) };
}

function countRows(connection: Connection, table: string): number {
  return Number(connection.value(`SELECT count(*) FROM ${main(table)}`));
}

/** @throws RefusedError ERR_MARKER_TOUCHED, TargetError ERR_TARGET_UNSUPPORTED when the program wrote what it may not. */
function refuseUnheld(was: Side, is: Side): void {
  if (markerObjects(was.connection) !== markerObjects(is.connection)) throw markerTouched();
  const tables = was.connection
    .rows("SELECT name FROM main.sqlite_schema WHERE type = 'table'")
    .map((r) => String(r[0]));
  if (tables.filter(isOurs).some((name) => contents(was, name) !== contents(is, name))) throw markerTouched();
  for (const name of tableNames(was.catalogue, is.catalogue)) {
    if (!isUnheld(name, was, is) || kindOf(name, was) === "virtual") continue;
    for (const side of [was, is]) {
      const info = side.catalogue.byName.get(fold(name));
      if (info !== undefined && contents(was, name) !== contents(is, name)) assertSupported(info);
    }
  }
}

function kindOf(name: string, side: Side): string | undefined {
  return side.catalogue.byName.get(fold(name))?.kind;
}

/** One digest of all rows of a table, for telling whether anything was written there at all. */
function contents({ connection }: Side, table: string): Digest {
  const digest = digestStream();
  const exists =
    connection.value("SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = ?)", table) === 1n;
  const columns = exists ? connection.rows("SELECT name FROM pragma_table_info(?, 'main')", table) : [];
  const cells = columns.map(([name]) => `quote(${quote(String(name))})`).join(" || ',' || ");
  if (exists)
    for (const [row] of connection.iterate(`SELECT ${cells} AS r FROM ${main(table)} ORDER BY r`))
      digest.update(`${String(row)}\n`);
  return digest.end();
}

/**
 * Somebody wrote to the target while a program was rehearsed. If the target now holds what the program was to
 * bring about, it was the program, which found its way past the copy.
 */
class RivalWrites {
  readonly #now: Side;

  constructor(reader: Connection) {
    this.#now = sideOf(reader);
  }

  /** @throws RefusedError ERR_JOB_FAILED when the change has happened on the target already. */
  look(shape: TableShape, change: Change): void {
    const info = this.#now.catalogue.byName.get(fold(shape.name));
    if (shape.keyKind === "none" || info === undefined) return;
    const now: Row | null =
      readerFor(this.#now.connection, this.#now.catalogue, info).byKey(shape, change.key)?.row ?? null;
    if (!sameRow(now, afterOf(change))) return;
    throw new RefusedError({
      code: "ERR_JOB_FAILED",
      message: `a row of ${shape.name} changed on the target itself while the job was rehearsed on a copy`,
      why: "it is now as the job would leave it: the job wrote to the target past the copy, or another process did the same work",
      targetChanged: "unknown",
      state: "holdpoint wrote nothing; something else wrote to the target during the rehearsal.",
      next: [{ actor: "requester", text: "let the job take its database from the address it is given" }],
    });
  }
}
