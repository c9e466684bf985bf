/**
 * One rehearsal of an SQL job inside a transaction that its caller opens and rolls back: on the target itself
 * or on a private copy. Where the effect is streamed to, and when, is the caller's.
 */
import { codeOf, messageOf, RefusedError, UsageError } from "../../base/errors.js";
import type { Change, Origin, TableShape } from "../../changeset/change.js";
import type { SchemaChange, SequenceMove, SqlStatement, Volatile } from "../../target/target.js";
import { Capture, miscounted, TICK, type CapturedTable } from "./capture.js";
import { compareTable, sharedShape, tableNames, type Side } from "./compare.js";
import type { Connection, Driver } from "./driver.js";
import { ForeignKeyCheck } from "./foreign-keys.js";
import { fold, isOurs, main } from "./names.js";
import { assertSupported, readCatalogue, readObjects, unsupported, type Catalogue } from "./schema.js";
import { readSequences, schemaChanges, sequenceMoves } from "./schema-changes.js";
import { overrideClock, SecondRun } from "./second-run.js";
import { bindings, CAPTURE_PREFIX, explain, sqlTokens, type Program, type Writer } from "./statements.js";

/** What bounds a run; throws to stop it. On a copy nothing does. */
export interface Bounds {
  /** Called for every row that the job writes. */
  readonly row: () => void;
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
}

/** A job under rehearsal. `writer` is inside a transaction; `before` sees the state before it. */
export class JobRun {
  readonly #driver: Driver;
  readonly #writer: Connection;
  readonly #before: Side;
  readonly #statements: readonly SqlStatement[];
  readonly #bounds: Bounds;
  readonly #writes = { job: new Set<string>(), cascade: new Set<string>(), trigger: new Set<string>() };
  readonly #replaced = new Map<string, boolean>();
  #volatile = false;

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
  }

  /**
   * Runs the job and emits its net effect. `onGap` is asked when the triggers could not see everything of a table
   * (its schema changed, rows went away unseen): it throws, or lets the table be compared instead.
   * @throws UsageError ERR_JOB_FAILED, ERR_JOB_STATEMENT; RefusedError ERR_MARKER_TOUCHED; TargetError
   * ERR_TARGET_UNSUPPORTED; and whatever the bounds throw.
   */
  rehearse(at: Date, emit: Emit, onGap: () => void): RunFacts {
    const catalogue = readCatalogue(this.#writer);
    const objects = readObjects(this.#writer);
    const marker = markerObjects(this.#writer);
    this.#writer.db.function(TICK, () => {
      this.#bounds.row();
      return null;
    });
    const capture = new Capture(this.#driver, this.#writer, catalogue, this.#mayReplace());
    this.#writer.exec("SAVEPOINT holdpoint_job");
    this.#runAll(catalogue);
    const after: Side = { connection: this.#writer, catalogue: readCatalogue(this.#writer) };
    if (markerObjects(this.#writer) !== marker) throw markerTouched();
    assertNoForeignTriggers(this.#writer);
    const changes = schemaChanges(
      { before: objects, after: readObjects(this.#writer) },
      { before: catalogue, after: after.catalogue },
      this.#writer,
    );
    const sequences = sequenceMoves(
      { before: readSequences(this.#before.connection), after: readSequences(this.#writer) },
      new Set(after.catalogue.byName.keys()),
    );
    const sources = this.#sources(capture, after, onGap);
    const told = this.#tell(sources, catalogue, emit);
    const { second, ...facts } = told;
    return { schemaChanges: changes, sequences, ...facts, volatile: this.#findVolatile(at, capture, second) };
  }

  // ---- running

  #runAll(catalogue: Catalogue): void {
    for (const statement of this.#statements) {
      const program = explain(this.#writer, catalogue, statement);
      this.#bounds.statement(program);
      this.#note(statement, program);
      this.#run(statement);
    }
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

  #note(statement: SqlStatement, { writes, volatile }: Program): void {
    this.#volatile ||= volatile;
    for (const writer of WRITERS) for (const table of writes[writer]) this.#writes[writer].add(fold(table));
    const words = sqlTokens(statement.text)
      .slice(0, 3)
      .map((t) => fold(t.text));
    const replaces =
      words[0] === "replace" || (words[0] === "insert" && words[1] === "or" && words[2] === "replace");
    for (const table of writes.job) {
      this.#replaced.set(fold(table), replaces && this.#replaced.get(fold(table)) !== false);
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

  #sources(capture: Capture, after: Side, onGap: () => void): readonly Source[] {
    const captured = new Map(capture.tables.map((t) => [fold(t.info.name), t]));
    const sources: Source[] = [];
    for (const name of tableNames(this.#before.catalogue, after.catalogue)) {
      const table = captured.get(fold(name));
      if (table !== undefined && this.#isWhole(capture, table, after)) {
        if (table.isTouched()) sources.push(slotSource(table));
      } else if (!this.#isLeftAlone(name, after)) {
        onGap();
        const shape = sharedShape(name, this.#before, after);
        if (shape !== null) sources.push({ shape, changes: () => compareTable(name, this.#before, after) });
      }
    }
    return sources;
  }

  /**
   * Tables that cannot be held exactly are let be as long as the job lets them be. (A statement that writes a
   * virtual table has been refused before it ran.)
   */
  #isLeftAlone(name: string, after: Side): boolean {
    const [was, is] = [this.#before, after].map((side) => side.catalogue.byName.get(fold(name)));
    const unheld = was !== undefined && unsupported(was) !== undefined && was.sql === is?.sql;
    if (unheld && WRITERS.some((writer) => this.#writes[writer].has(fold(name)))) assertSupported(was);
    return unheld;
  }

  /** Whether the slots tell everything: table and triggers are as they were, and the rows add up. */
  #isWhole(capture: Capture, table: CapturedTable, after: Side): boolean {
    const now = after.catalogue.byName.get(fold(table.info.name));
    if (now?.sql !== table.info.sql || now.rootPage !== table.info.rootPage || !capture.intact(table))
      return false;
    if (!table.isTouched()) return true;
    return !miscounted(count(this.#before.connection, now.name), count(this.#writer, now.name), table.seen());
  }

  #tell(sources: readonly Source[], catalogue: Catalogue, emit: Emit): Told {
    const second = this.#volatile ? new SecondRun(this.#driver) : null;
    const deferred = readObjects(this.#writer).some((o) => /deferr/i.test(o.sql ?? ""));
    const enforced = this.#writer.value("PRAGMA foreign_keys") === 1n;
    const references = deferred && enforced ? new ForeignKeyCheck(this.#writer, catalogue) : null;
    const rowsBefore: Record<string, number> = {};
    const origins: Record<string, Origin> = {};
    const notices: string[] = [];
    // The driver lets nothing be written while rows are read, unless told otherwise; the job is done by now.
    this.#writer.db.unsafeMode(true);
    try {
      for (const source of sources) {
        const origin = this.#originOf(source.shape.name);
        let replaced = 0;
        let any = false;
        for (const change of source.changes(origin ?? "unknown")) {
          emit(source.shape, change);
          second?.remember(source.shape, change);
          references?.look(change);
          any = true;
          if (change.op !== "insert") replaced++;
        }
        if (!any) continue;
        const { name } = source.shape;
        rowsBefore[name] = this.#before.catalogue.byName.has(fold(name))
          ? count(this.#before.connection, name)
          : 0;
        if (origin !== null) origins[name] = origin;
        if (replaced > 0 && this.#replaced.get(fold(name)) === true) {
          notices.push(
            `INSERT OR REPLACE replaced ${replaced} ${replaced === 1 ? "row" : "rows"} of ${name}`,
          );
        }
      }
      if (references !== null) refuseBroken(references);
      return { rowsBefore, origins, notices, second };
    } catch (e) {
      second?.close();
      throw e;
    } finally {
      references?.close();
      this.#writer.db.unsafeMode(false);
    }
  }

  /** Where all rows of a table come from, if from one place. */
  #originOf(table: string): Origin | null {
    const from = WRITERS.filter((writer) => this.#writes[writer].has(fold(table)));
    return from.length === 1 ? (from[0] ?? null) : null;
  }

  // ---- once more

  /** Runs the job a second time, where it calls anything that can differ; the engine's program says so. */
  #findVolatile(at: Date, capture: Capture, second: SecondRun | null): readonly Volatile[] {
    if (second === null) return [];
    this.#writer.exec("ROLLBACK TO holdpoint_job");
    const clock = overrideClock(this.#driver, this.#writer, new Date(at.getTime() + 1000));
    try {
      for (const statement of this.#statements) this.#run(statement);
      const after: Side = { connection: this.#writer, catalogue: readCatalogue(this.#writer) };
      for (const source of this.#sources(capture, after, () => undefined)) {
        for (const change of source.changes("unknown")) second.compare(source.shape, change);
      }
      return second.volatile();
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
  return { shape, changes: (origin) => table.changes(shape, origin) };
}

function count(connection: Connection, table: string): number {
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

function assertNoForeignTriggers(connection: Connection): void {
  const found = connection.value(
    "SELECT name FROM temp.sqlite_schema WHERE type = 'trigger' AND name NOT GLOB ?",
    `${CAPTURE_PREFIX}*`,
  );
  if (found === null) return;
  throw new UsageError({
    code: "ERR_JOB_STATEMENT",
    message: `the job makes a temporary trigger (${String(found)})`,
    why: "it would act before the triggers of the capture",
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
