/**
 * One rehearsal of an SQL job inside a transaction that its caller opens and rolls back: on the target itself
 * or on a private copy. Where the effect is streamed to, and when, is the caller's.
 */
import type { Clock } from "../../base/clock.js";
import { codeOf, HoldpointError, messageOf, RefusedError, UsageError } from "../../base/errors.js";
import type { Change, Origin, TableShape } from "../../changeset/change.js";
import type { SchemaChange, SequenceMove, SqlStatement, Volatile } from "../../target/target.js";
import type { CaptureFile, Filed } from "./capture-file.js";
import { Capture, miscounted, TICK, type CapturedTable } from "./capture.js";
import { compareTable, sharedShape, tableNames, type Side } from "./compare.js";
import { isConstraint, type Connection, type Driver } from "./driver.js";
import { ForeignKeyCheck } from "./foreign-keys.js";
import { fold, isOurs, main } from "./names.js";
import { assertSupported, readCatalogue, readObjects } from "./schema.js";
import { readSequences, schemaChanges, sequenceMoves } from "./schema-changes.js";
import { overrideClock, SecondRun } from "./second-run.js";
import {
  bindings,
  checkTexts,
  explain,
  sqlTokens,
  type Program,
  withLine,
  type Writer,
} from "./statements.js";

/** What bounds a run; throws to stop it. On a copy nothing does. */
export interface Bounds {
  /** Called for every row that the job writes; null where nothing bounds them. */
  readonly row: (() => void) | null;
  /** Called for every statement with what the engine will do. */
  readonly statement: (program: Program) => void;
}

/** Takes one change of a table; the table's shape is the same each time. */
export type Emit = (shape: TableShape, change: Change) => void;

/** What a run found, besides its changes. */
export interface RunFacts {
  readonly schemaChanges: readonly SchemaChange[];
  readonly sequences: readonly SequenceMove[];
  readonly volatile: readonly Volatile[];
  readonly rowsBefore: Readonly<Record<string, number>>;
  readonly origins: Readonly<Record<string, Origin>>;
  readonly notices: readonly string[];
}

/** How one table's changes are told: by its slots, or by comparing it with what it was. */
interface Source {
  readonly shape: TableShape;
  readonly changes: (origin: Origin) => Iterable<Change>;
  /** The same into a file, where the engine can do it alone. */
  readonly file?: (file: CaptureFile, origin: Origin) => Filed | null;
}

/** Where a run on a private copy puts what the engine can tell by itself. */
export interface Filing {
  readonly file: CaptureFile;
  /** Takes a table's changes over once they are committed; false where it cannot. */
  readonly take: (shape: TableShape) => boolean;
}

/** What is known of a run's statements. */
interface Noted {
  readonly writes: Readonly<Record<Writer, Set<string>>>;
  /** Tables by whether every statement that writes them is an INSERT OR REPLACE. */
  readonly replaced: Map<string, boolean>;
  volatile: boolean;
}

/** A job under rehearsal. `writer` is inside a transaction; `before` sees the state before it. */
export class JobRun {
  readonly #driver: Driver;
  readonly #writer: Connection;
  readonly #before: Side;
  readonly #statements: readonly SqlStatement[];
  readonly #bounds: Bounds;

  constructor(
    driver: Driver,
    writer: Connection,
    before: Side,
    statements: readonly SqlStatement[],
    bounds: Bounds,
  ) {
    this.#driver = driver;
    this.#writer = writer;
    this.#before = before;
    this.#statements = statements;
    this.#bounds = bounds;
    const { row } = bounds;
    if (row === null) return;
    writer.db.function(TICK, () => {
      row();
      return null;
    });
  }

  /**
   * Runs the job and emits its net effect: captured by triggers, or where they are not enough by comparing the written
   * tables with what they were. `onGap` is called before the latter; it may throw. With `filing`, which only a private copy
   * has, the transaction may be committed at the end.
   * @throws UsageError ERR_JOB_FAILED, ERR_JOB_STATEMENT; RefusedError ERR_MARKER_TOUCHED; TargetError
   * ERR_TARGET_UNSUPPORTED; and whatever the bounds throw.
   */
  rehearse(time: Clock, emit: Emit, onGap: () => void, filing: Filing | null = null): RunFacts {
    const marker = markerObjects(this.#writer);
    this.#writer.exec("SAVEPOINT holdpoint_job");
    let noted = nothingNoted();
    let play = (): readonly Source[] | null => this.#captured(noted);
    let sources = play();
    if (sources === null) {
      onGap();
      this.#rewind();
      noted = nothingNoted();
      play = () => this.#compared(noted);
      sources = play() ?? [];
    }
    if (markerObjects(this.#writer) !== marker) throw markerTouched();
    const facts = this.#schemaFacts();
    const { second, ...told } = this.#tell(sources, noted, emit, filing);
    return { ...facts, ...told, volatile: this.#findVolatile(time, play, second) };
  }

  /**
   * Runs the job once where it is to stay, and emits its net effect. Always by comparison: the capture's triggers would
   * stand in the way of what else is written in this transaction.
   */
  perform(emit: Emit): RunFacts {
    const marker = markerObjects(this.#writer);
    const noted = nothingNoted();
    const sources = this.#compared(noted);
    if (markerObjects(this.#writer) !== marker) throw markerTouched();
    const facts = this.#schemaFacts();
    const { second, ...told } = this.#tell(sources, noted, emit);
    second?.close();
    return { ...facts, ...told, volatile: [] };
  }

  #schemaFacts(): Pick<RunFacts, "schemaChanges" | "sequences"> {
    const [before, after] = [this.#before, this.#after()];
    return {
      schemaChanges: schemaChanges(
        { before: readObjects(before.connection), after: readObjects(this.#writer) },
        { before: before.catalogue, after: after.catalogue },
        this.#writer,
      ),
      sequences: sequenceMoves(
        { before: readSequences(before.connection), after: readSequences(this.#writer) },
        new Set(after.catalogue.byName.keys()),
      ),
    };
  }

  #after(): Side {
    return { connection: this.#writer, catalogue: readCatalogue(this.#writer) };
  }

  #rewind(): void {
    this.#writer.exec("ROLLBACK TO holdpoint_job");
  }

  // ---- running

  /**
   * Runs the job with the capture's triggers. Null when that is not enough: they would change what the job does, it
   * uses what only its own transaction knows, it failed (without them it may not), or rows went away unseen.
   */
  #captured(noted: Noted): readonly Source[] | null {
    const { catalogue } = this.#before;
    if (checkTexts(this.#statements).schema) return null;
    const capture = new Capture(this.#driver, this.#writer, catalogue, {
      replaces: this.#mayReplace(),
      ticks: this.#bounds.row !== null,
    });
    try {
      for (const statement of this.#statements) {
        const program = this.#explainOutside(statement);
        if (program === null || program.orderMatters) return null;
        this.#play(statement, program, noted);
      }
    } catch (e) {
      if (e instanceof UsageError && e.code === "ERR_JOB_FAILED" && !isConstraint(e.cause)) return null;
      throw e;
    }
    this.#refuseUnheld(noted);
    const touched = capture.touched();
    return touched.some((table) => this.#isMiscounted(table)) ? null : touched.map(slotSource);
  }

  /**
   * What the statement does where there are no triggers of ours; null when only the job's own transaction can tell,
   * because it works on a temporary table. What neither side accepts is refused.
   */
  #explainOutside(statement: SqlStatement): Program | null {
    try {
      return explain(this.#before.connection, this.#before.catalogue, statement);
    } catch (e) {
      if (!(e instanceof UsageError)) throw e;
      withLine(statement, () => this.#writer.rows(`EXPLAIN ${statement.text}`, ...bindings(statement)));
      return null;
    }
  }

  /** Runs the job as it is, and compares every table that its program writes or that has another schema. */
  #compared(noted: Noted): readonly Source[] {
    for (const statement of this.#statements) {
      this.#play(statement, explain(this.#writer, this.#before.catalogue, statement), noted);
    }
    this.#refuseUnheld(noted);
    const after = this.#after();
    return tableNames(this.#before.catalogue, after.catalogue).flatMap((name) => {
      const [was, is] = [this.#before, after].map((side) => side.catalogue.byName.get(fold(name)));
      if (was?.sql === is?.sql && was?.rootPage === is?.rootPage && !isWritten(noted, name)) return [];
      const shape = sharedShape(name, this.#before, after);
      return shape === null
        ? []
        : [{ shape, changes: (origin: Origin) => compared(name, this.#before, after, origin) }];
    });
  }

  #play(statement: SqlStatement, program: Program, noted: Noted): void {
    this.#bounds.statement(program);
    note(noted, statement, program);
    this.#run(statement);
  }

  #run(statement: SqlStatement): void {
    try {
      const prepared = this.#writer.db.prepare(statement.text);
      if (!prepared.reader) prepared.run(...bindings(statement));
      else for (const row of prepared.raw().iterate(...bindings(statement))) void row;
    } catch (e) {
      if (codeOf(e)?.startsWith("SQLITE_") !== true) throw e;
      throw new UsageError({
        code: "ERR_JOB_FAILED",
        message: `line ${statement.line}: the statement failed: ${messageOf(e)}`,
        why: "nothing of a job is planned when one of its statements fails",
        cause: e,
      });
    }
  }

  /** Whether the word occurs anywhere: in the job, or in the schema's constraints and triggers. */
  #mayReplace(): boolean {
    const texts = [
      ...this.#statements.map((s) => s.text),
      ...readObjects(this.#writer).map((o) => o.sql ?? ""),
    ];
    return texts.some((t) => /replace/i.test(t));
  }

  // ---- telling

  /** Tables that cannot be held exactly are let be as long as the job lets them be. */
  #refuseUnheld(noted: Noted): void {
    for (const table of this.#before.catalogue.tables)
      if (isWritten(noted, table.name)) assertSupported(table);
  }

  #isMiscounted(table: CapturedTable): boolean {
    const { name } = table.info;
    return miscounted(countRows(this.#before.connection, name), countRows(this.#writer, name), table.seen());
  }

  #tell(sources: readonly Source[], noted: Noted, emit: Emit, filing: Filing | null = null): Told {
    const second = noted.volatile ? new SecondRun(this.#driver) : null;
    const deferred = readObjects(this.#writer).some((o) => /deferr/i.test(o.sql ?? ""));
    const enforced = this.#writer.value("PRAGMA foreign_keys") === 1n;
    const references =
      deferred && enforced ? new ForeignKeyCheck(this.#writer, this.#after().catalogue) : null;
    const rowsBefore: Record<string, number> = {};
    const origins: Record<string, Origin> = {};
    const notices: string[] = [];
    const filed: TableShape[] = [];
    const mayFile = filing !== null && second === null && references === null ? filing : null;
    // The driver lets nothing be written while rows are read, unless told otherwise; the job is done by now.
    this.#writer.db.unsafeMode(true);
    try {
      for (const source of sources) {
        const origin = originOf(noted, source.shape.name);
        const told = mayFile === null ? null : (source.file?.(mayFile.file, origin ?? "unknown") ?? null);
        if (told !== null && told.rows > 0) filed.push(source.shape);
        let replaced = told === null ? 0 : told.rows - told.inserts;
        let any = told !== null && told.rows > 0;
        for (const change of told === null ? source.changes(origin ?? "unknown") : []) {
          emit(source.shape, change);
          second?.remember(source.shape, change);
          references?.look(change);
          any = true;
          if (change.op !== "insert") replaced++;
        }
        if (!any) continue;
        const { name } = source.shape;
        rowsBefore[name] = this.#before.catalogue.byName.has(fold(name))
          ? countRows(this.#before.connection, name)
          : 0;
        if (origin !== null) origins[name] = origin;
        if (replaced > 0 && noted.replaced.get(fold(name)) === true) {
          notices.push(
            `INSERT OR REPLACE replaced ${replaced} ${replaced === 1 ? "row" : "rows"} of ${name}`,
          );
        }
      }
      if (references !== null) refuseBroken(references);
      if (mayFile !== null) this.#handOver(mayFile, filed);
      return { rowsBefore, origins, notices, second };
    } catch (e) {
      second?.close();
      throw e;
    } finally {
      references?.close();
      this.#writer.db.unsafeMode(false);
    }
  }

  /** The copy is thrown away: what was done there may be committed, so that another connection can read the file. */
  #handOver(filing: Filing, filed: readonly TableShape[]): void {
    if (filed.length === 0) return;
    this.#writer.exec("COMMIT");
    const refused = filed.find((shape) => !filing.take(shape));
    if (refused === undefined) return;
    throw new HoldpointError({
      code: "ERR_INTERNAL",
      message: `what the job does to ${refused.name} was captured and could not be taken over`,
    });
  }

  // ---- once more

  /** Runs the job a second time, where it calls anything that can differ; the engine's program says so. */
  #findVolatile(
    time: Clock,
    play: () => readonly Source[] | null,
    second: SecondRun | null,
  ): readonly Volatile[] {
    if (second === null) return [];
    this.#rewind();
    // Asked now: a first run that took its time has seen later seconds than the one in which it began.
    const clock = overrideClock(this.#driver, this.#writer, new Date(time.now().getTime() + 1000));
    try {
      for (const source of play() ?? []) {
        for (const change of source.changes("unknown")) second.compare(source.shape, change);
      }
      return second.volatile();
    } catch (e) {
      // A job that fails on its second run (a random value that is taken) still has its first one's effect.
      if (e instanceof UsageError) return second.volatile();
      throw e;
    } finally {
      second.close();
      clock.close();
    }
  }
}

interface Told extends Pick<RunFacts, "rowsBefore" | "origins" | "notices"> {
  readonly second: SecondRun | null;
}

const WRITERS: readonly Writer[] = ["job", "cascade", "trigger"];

function slotSource(table: CapturedTable): Source {
  const shape = table.shape();
  return {
    shape,
    changes: (origin) => table.changes(shape, origin),
    file: (file, origin) => table.file(file, shape, origin),
  };
}

function* compared(name: string, before: Side, after: Side, origin: Origin): Generator<Change, undefined> {
  for (const change of compareTable(name, before, after)) yield { ...change, origin };
}

function nothingNoted(): Noted {
  return {
    writes: { job: new Set(), cascade: new Set(), trigger: new Set() },
    replaced: new Map(),
    volatile: false,
  };
}

function note(noted: Noted, statement: SqlStatement, { writes, volatile }: Program): void {
  noted.volatile ||= volatile;
  for (const writer of WRITERS) for (const table of writes[writer]) noted.writes[writer].add(fold(table));
  const [first, second, third] = sqlTokens(statement.text).map((t) => fold(t.text));
  const replaces = first === "replace" || (first === "insert" && second === "or" && third === "replace");
  for (const table of writes.job) {
    noted.replaced.set(fold(table), replaces && noted.replaced.get(fold(table)) !== false);
  }
}

function isWritten(noted: Noted, table: string): boolean {
  return WRITERS.some((writer) => noted.writes[writer].has(fold(table)));
}

/** Where all rows of a table come from, if from one place. */
function originOf(noted: Noted, table: string): Origin | null {
  const from = WRITERS.filter((writer) => noted.writes[writer].has(fold(table)));
  return from.length === 1 ? (from[0] ?? null) : null;
}

function countRows(connection: Connection, table: string): number {
  return Number(connection.value(`SELECT count(*) FROM ${main(table)}`));
}

/** Our objects in the schema, as one text to compare. */
export function markerObjects(connection: Connection): string {
  return JSON.stringify(
    connection
      .rows("SELECT type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY type, name")
      .filter(([, name, table]) => isOurs(String(name)) || isOurs(String(table))),
  );
}

/** What a job does to our tables is never part of its effect. */
export function markerTouched(): RefusedError {
  return new RefusedError({
    code: "ERR_MARKER_TOUCHED",
    message: "the job touches tables of holdpoint",
    why: "who the target is and what was spent there is never part of a job",
  });
}

function refuseBroken(references: ForeignKeyCheck): void {
  const [first, ...others] = references.problems();
  if (first?.kind !== "foreign-key") return;
  throw new UsageError({
    code: "ERR_JOB_FAILED",
    message: `the job leaves broken references: ${first.message}`,
    why: `a deferred foreign key would refuse its COMMIT${others.length > 0 ? `; ${others.length} more` : ""}`,
  });
}
