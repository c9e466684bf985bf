/** Scripts: statements that run again inside a run's transaction, and the statements that take schema changes back. */
import { codeOf } from "../../base/errors.js";
import type { ChangeSink } from "../../changeset/change.js";
import type { SchemaChange, SchemaUndo, ScriptOutcome, SqlStatement } from "../../target/target.js";
import { asTargetError, openFile, type Connection, type Driver } from "./driver.js";
import { JobRun } from "./job-run.js";
import { openScratch } from "./loose-rows.js";
import { fold, main, quote } from "./names.js";
import { prepareForReading } from "./read.js";
import { into } from "./rehearse.js";
import { readCatalogue, readObjects, type SchemaObject } from "./schema.js";

/** What a script runs with. */
export interface ScriptSetting {
  readonly driver: Driver;
  readonly path: string;
  readonly foreignKeys: boolean;
  readonly busyMs: number;
}

/**
 * Runs statements in the transaction that `writer` has open and captures what they did, by comparison with a second
 * connection that still sees the database as it was.
 * @throws UsageError ERR_JOB_FAILED when a statement fails; RefusedError ERR_MARKER_TOUCHED.
 */
export function runScript(
  setting: ScriptSetting,
  writer: Connection,
  statements: readonly SqlStatement[],
  sink: ChangeSink,
): ScriptOutcome {
  // Without a write-ahead log a page that spills needs the lock that the other connection's reading denies.
  writer.exec("PRAGMA cache_spill = OFF");
  const before = openFile(setting.driver, setting.path, { ...setting, readonly: true });
  try {
    prepareForReading(before);
    before.exec("BEGIN");
    const side = { connection: before, catalogue: readCatalogue(before) };
    const run = new JobRun(setting.driver, writer, side, statements, {
      row: null,
      statement: () => undefined,
    });
    const { schemaChanges, sequences } = run.perform(into(sink));
    return { schemaChanges, sequences };
  } catch (e) {
    throw codeOf(e)?.startsWith("SQLITE_") === true ? asTargetError(e, setting.path) : e;
  } finally {
    before.rollback();
    before.close();
    writer.exec("PRAGMA cache_spill = ON");
  }
}

/** In which order objects go: what stands on a table before the table. */
const ORDER: Readonly<Record<string, number>> = { trigger: 0, view: 1, index: 2, table: 4 };
const COLUMN_ORDER = 3;

/** `Target.undoSchema`: only what is still as the run left it, and only what takes nothing of anybody else's away. */
export function undoSchema(driver: Driver, reader: Connection, changes: readonly SchemaChange[]): SchemaUndo {
  const objects = readObjects(reader);
  const steps: { readonly order: number; readonly text: string }[] = [];
  const left: string[] = [];
  for (const change of changes) {
    const found = undoOf(driver, reader, objects, change);
    if (typeof found === "string") left.push(`${change.object} ${change.name}: ${found}`);
    else steps.push(...found);
  }
  const statements = steps
    .sort((a, b) => a.order - b.order)
    .map(({ text }) => ({ text, line: 0, values: {} }));
  return { statements, left };
}

type Steps = readonly { readonly order: number; readonly text: string }[];

function undoOf(
  driver: Driver,
  reader: Connection,
  objects: readonly SchemaObject[],
  change: SchemaChange,
): Steps | string {
  if (change.undo !== "yes") return change.undo;
  const now = objects.find((o) => o.type === change.object && fold(o.name) === fold(change.name));
  if (now === undefined) return change.action === "create" ? [] : "it is gone";
  if (now.sql !== change.after) return "it was changed since";
  if (change.action === "alter") return undoOfColumns(driver, reader, change);
  if (change.object === "table") {
    const child = readCatalogue(reader).tables.find(
      (t) =>
        fold(t.name) !== fold(change.name) && t.foreignKeys.some((k) => fold(k.parent) === fold(change.name)),
    );
    if (child !== undefined) return `table ${child.name} refers to it`;
  }
  const text = `DROP ${change.object.toUpperCase()} ${main(now.name)}`;
  return [{ order: ORDER[change.object] ?? 0, text }];
}

/** The added columns go again, where still nothing stands in them but what this run wrote. */
function undoOfColumns(driver: Driver, reader: Connection, change: SchemaChange): Steps | string {
  const [before, after] = [change.before, change.after].map((sql) =>
    columnsOf(driver, change.name, sql ?? ""),
  );
  const added = (after ?? []).filter((c) => before?.includes(c) === false);
  if (added.length === 0) return "its former columns cannot be told";
  const filled = added.map((c) => `${quote(c)} IS NOT NULL`).join(" OR ");
  if (reader.value(`SELECT EXISTS (SELECT 1 FROM ${main(change.name)} WHERE ${filled})`) === 1n)
    return "the added column is no longer empty";
  return added.map((c) => ({
    order: COLUMN_ORDER,
    text: `ALTER TABLE ${main(change.name)} DROP COLUMN ${quote(c)}`,
  }));
}

/** The columns that a CREATE TABLE makes, as the engine reads it. */
function columnsOf(driver: Driver, table: string, sql: string): readonly string[] {
  const scratch = openScratch(driver);
  try {
    scratch.exec(sql);
    return scratch.rows("SELECT name FROM pragma_table_info(?)", table).map(([name]) => String(name));
  } finally {
    scratch.close();
  }
}
