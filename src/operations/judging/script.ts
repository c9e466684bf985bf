/**
 * Mode script: the signed statements run again in one transaction, their effect is captured again, and it stays only if
 * it equals the signed one: rows, schema changes, sequences. What differs from run to run (`random()`, `datetime('now')`)
 * is compared by its shape and then set to the values that were signed, so that what is in the target afterwards is the
 * signed effect to the byte, in this mode as in the other.
 */
import type { PlanStatement, ScriptStatement, ScriptValue } from "../../approval/plan-statement.js";
import { canonical } from "../../base/canonical.js";
import { toJson } from "../../base/decode.js";
import { HoldpointError, TargetError, UsageError } from "../../base/errors.js";
import type { Change, ChangeSource, TableShape } from "../../changeset/change.js";
import { partings } from "../../changeset/same-effect.js";
import { isRawText, type Value } from "../../changeset/value.js";
import { sameShape } from "../../changeset/well-formed.js";
import type {
  Capabilities,
  RunnableJob,
  SchemaFacts,
  ScriptOutcome,
  SqlStatement,
  WriteSession,
} from "../../target/target.js";
import { keyText } from "./drift.js";
import type { ChangesWriter, LoadedPlan, Toolbox, WorkingChanges } from "../toolbox.js";

// ---- the statement's form of a script

/** A job's statements as they stand in a plan. @throws UsageError ERR_TARGET_UNSUPPORTED for a job that is no SQL. */
export function scriptOf(job: RunnableJob): readonly ScriptStatement[] {
  if (job.kind !== "sql") {
    throw new UsageError({
      code: "ERR_TARGET_UNSUPPORTED",
      message: "only the statements of an SQL file can run again at apply",
      why: "a module or a command never runs with the right to commit; its rows can be written, a change of the schema cannot",
      next: [{ actor: "requester", text: "Put the schema change into an SQL file of its own." }],
    });
  }
  return job.statements.map(({ text, line, values }) => ({
    text,
    line,
    values: Object.fromEntries(Object.entries(values).map(([name, v]) => [name, taggedValue(v)])),
  }));
}

/** The statements of a plan as an adapter runs them. Law: `statementsOf(scriptOf(job))` equals the job's statements. */
export function statementsOf(script: readonly ScriptStatement[]): readonly SqlStatement[] {
  return script.map(({ text, line, values }) => ({
    text,
    line,
    values: Object.fromEntries(Object.entries(values).map(([name, v]) => [name, untagged(v)])),
  }));
}

function taggedValue(value: Value): ScriptValue {
  if (value === null) return { type: "null", value: "" };
  if (typeof value === "bigint") return { type: "integer", value: String(value) };
  if (typeof value === "number") return { type: "real", value: Object.is(value, -0) ? "-0" : String(value) };
  if (typeof value === "string") return { type: "text", value };
  if (!isRawText(value)) return { type: "blob", value: Buffer.from(value).toString("hex") };
  throw new HoldpointError({
    code: "ERR_INTERNAL",
    message: "a parameter is never text that is not valid UTF-8",
  });
}

function untagged({ type, value }: ScriptValue): Value {
  switch (type) {
    case "null":
      return null;
    case "integer":
      return BigInt(value);
    case "real":
      return Number(value);
    case "text":
      return value;
    case "blob":
      return Buffer.from(value, "hex");
  }
}

// ---- before it runs

/** What a target without these tables, or with other columns, can be asked about: rows of a script's own tables are not there yet. */
export function presentRows(statement: PlanStatement, source: ChangeSource, now: SchemaFacts): ChangeSource {
  if (statement.mode === "rows") return source;
  return { ...source, tables: source.tables.filter((shape) => now.tables.some((t) => sameShape(t, shape))) };
}

// ---- running

/**
 * Runs the plan's script in the session's open transaction and leaves exactly the signed effect.
 * @throws TargetError ERR_DRIFT_ROWS, ERR_DRIFT_SCHEMA (34) when the statements fail or their effect is not the signed
 * one; the caller rolls back.
 */
export async function writeScript(
  tools: Toolbox,
  plan: LoadedPlan,
  session: WriteSession,
  capabilities: Capabilities,
): Promise<void> {
  // An undo's rows are a merge: they are written as rows, and its script only takes the schema changes back.
  if (plan.statement.from !== null) await writeMerged(plan, session);
  const corrections = await tools.workingChanges();
  try {
    await withCaptured(
      tools,
      (writer) => perform(plan, session, writer),
      (outcome, captured) => {
        requireSameSchema(plan, outcome);
        requireSameRows(plan, captured, corrections);
        requireSameSequences(plan, outcome, capabilities);
      },
    );
  } catch (e) {
    corrections.abort();
    throw e;
  }
  await correct(plan, session, corrections.finish());
}

async function writeMerged(plan: LoadedPlan, session: WriteSession): Promise<void> {
  const { problems } = await session.write(plan.changes, []);
  const wrong = problems.length > 0 ? problems : await session.verify(plan.changes);
  if (wrong.length > 0) throw rowsDiffer(plan, `${wrong.length} rows could not be written as planned`);
}

/** What `fill` captures, for the time of `use`. */
async function withCaptured<T>(
  tools: Toolbox,
  fill: (writer: ChangesWriter) => Promise<T>,
  use: (outcome: T, captured: WorkingChanges) => void,
): Promise<void> {
  const writer = await tools.workingChanges();
  let outcome: T;
  try {
    outcome = await fill(writer);
  } catch (e) {
    writer.abort();
    throw e;
  }
  const captured = writer.finish();
  try {
    use(outcome, captured);
  } finally {
    captured.close();
  }
}

async function perform(
  plan: LoadedPlan,
  session: WriteSession,
  writer: ChangesWriter,
): Promise<ScriptOutcome> {
  const { statement } = plan;
  if (session.runScript === undefined) throw noScripts(statement.target.name);
  try {
    return await session.runScript(statementsOf(statement.script), writer);
  } catch (e) {
    if (!(e instanceof UsageError)) throw e;
    // It ran when it was planned: what makes it fail now is what changed since.
    throw rowsDiffer(plan, e.message, e);
  }
}

function requireSameSchema(plan: LoadedPlan, outcome: ScriptOutcome): void {
  const { schema } = plan.statement;
  const known = (changes: ScriptOutcome["schemaChanges"]): readonly string[] =>
    changes.map(({ undo: _undo, ...change }) => canonical(toJson(change)));
  const [signed, found] = [known(schema.changes), known(outcome.schemaChanges)];
  const parting = [...signed, ...found].find((c) => !signed.includes(c) || !found.includes(c));
  if (parting !== undefined) throw schemaDiffers(plan, outcome);
}

/** Where numbers are not given back, the rehearsal itself took the signed ones: then which sequences move is all that can agree. */
function requireSameSequences(
  plan: LoadedPlan,
  outcome: ScriptOutcome,
  { sequencesRollBack }: Capabilities,
): void {
  const { sequences, from } = plan.statement;
  const known = (of: ScriptOutcome["sequences"]): string =>
    canonical(toJson(sequencesRollBack ? of : of.map((s) => s.name)));
  if (from !== null || known(sequences) === known(outcome.sequences)) return;
  const moves = (of: ScriptOutcome["sequences"]): string =>
    of.map((s) => `${s.name} ${s.before} to ${s.after}`).join(", ") || "none";
  throw rowsDiffer(plan, `sequences: signed ${moves(sequences)}, found ${moves(outcome.sequences)}`);
}

/** Every row as signed; what is to be settled goes into `corrections`. */
function requireSameRows(plan: LoadedPlan, captured: WorkingChanges, corrections: ChangesWriter): void {
  for (const shape of tablesToCompare(plan, captured)) {
    const volatile = plan.statement.volatile.filter((v) => v.table === shape.name).map((v) => v.column);
    let settled = 0;
    for (const parting of partings(
      shape,
      plan.changes.changes(shape.name),
      captured.changes(shape.name),
      new Set(volatile),
    )) {
      if (parting.kind === "differs") throw rowsDiffer(plan, inWords(shape, parting.signed, parting.found));
      if (settled++ === 0) corrections.table(shape);
      for (const change of parting.changes) corrections.add(change);
    }
  }
}

/** All tables of either side; of an undo those that its script touched, whose rows the comparison covers besides. */
function tablesToCompare(plan: LoadedPlan, captured: WorkingChanges): readonly TableShape[] {
  const [signed, found] = [plan.changes.tables, captured.tables];
  for (const shape of found) {
    const other = signed.find((s) => s.name === shape.name);
    if (other !== undefined && !sameShape(other, shape))
      throw rowsDiffer(plan, `table ${shape.name} has other columns or another key now`);
  }
  if (plan.statement.from !== null) return found;
  return [...signed, ...found.filter((f) => !signed.some((s) => s.name === f.name))];
}

async function correct(plan: LoadedPlan, session: WriteSession, corrections: WorkingChanges): Promise<void> {
  try {
    if (corrections.tables.length === 0) return;
    const { problems } = await session.write(corrections, []);
    const wrong = problems.length > 0 ? problems : await session.verify(corrections);
    if (wrong.length > 0)
      throw rowsDiffer(plan, `${wrong.length} rows could not be given the values that were signed`);
  } finally {
    corrections.close();
  }
}

// ---- words

function inWords(shape: TableShape, signed: Change | null, found: Change | null): string {
  const change = signed ?? found;
  const row =
    shape.keyKind === "none" || change === null ? "a row without a key" : change.key.map(keyText).join(", ");
  const what = `${shape.name} ${row}`;
  if (found === null) return `${what}: signed as ${signed?.op ?? "changed"}, and not changed`;
  if (signed === null) return `${what}: ${found.op}, and not signed`;
  return signed.op === found.op
    ? `${what}: other values than signed`
    : `${what}: signed as ${signed.op}, found ${found.op}`;
}

function rowsDiffer(plan: LoadedPlan, why: string, cause?: unknown): TargetError {
  return new TargetError({
    code: "ERR_DRIFT_ROWS",
    message: `run again on ${plan.statement.target.name}, the statements of ${plan.id} do not do what was signed`,
    why,
    state: "Nothing was written: the transaction was rolled back. The approval is unused.",
    next: [{ actor: "requester", text: "Make the plan again." }],
    ...(cause === undefined ? {} : { cause }),
  });
}

function schemaDiffers(plan: LoadedPlan, outcome: ScriptOutcome): TargetError {
  const names = (of: ScriptOutcome["schemaChanges"]): string =>
    of.map((c) => `${c.action} ${c.object} ${c.name}`).join(", ") || "none";
  return new TargetError({
    code: "ERR_DRIFT_SCHEMA",
    message: `run again on ${plan.statement.target.name}, the statements of ${plan.id} make other schema changes than signed`,
    why: `signed ${names(plan.statement.schema.changes)}; found ${names(outcome.schemaChanges)}`,
    state: "Nothing was written: the transaction was rolled back. The approval is unused.",
    next: [{ actor: "requester", text: "Make the plan again." }],
  });
}

/** @throws TargetError ERR_TARGET_UNSUPPORTED where statements cannot be tried and taken back. */
export function noScripts(target: string): TargetError {
  return new TargetError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `${target} cannot run a script and take it back`,
    why: "its schema changes do not roll back with a transaction, so that nothing could be compared before it stays",
    next: [{ actor: "requester", text: "Make the schema change with your migration tool." }],
  });
}
