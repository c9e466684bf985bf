/**
 * A module's statements, run one by one in the job's transaction as the module's child asks for them. Each is judged by the
 * engine's own grammar first, so the child can neither commit nor roll back, nor do what no job may.
 */
import { type HoldpointError, UsageError } from "../../base/errors.js";
import type { Value } from "../../changeset/value.js";
import type { JobRow } from "../../target/job-connection.js";
import type { AnswerJob, JobAnswer, JobQuestion } from "../../target/job-questions.js";
import { type Asked, asJobError, type Session } from "./driver.js";
import type { Watched } from "./limits.js";
import { type Parser, prepare, type Prepared } from "./statements.js";
import type { Cell } from "./values.js";

/** Rows that one statement may give to a module: they are held in memory on both sides. */
const MOST_ROWS = 100_000;
/** By their oid: `bigint`, `smallint`, `integer`. Everything else reaches a module as text. */
const INTEGERS = new Set([20, 21, 23]);

/** What a job does in its transaction. */
export interface Play {
  /** The statements that ran; of a module it grows. */
  readonly statements: readonly Prepared[];
  /** @throws UsageError ERR_JOB_FAILED with the line where there is one. */
  readonly run: (job: Session, shown: string, watched: Watched) => Promise<void>;
}

/** A job of statements that stand in its file. */
export function playOf(statements: readonly Prepared[]): Play {
  return {
    statements,
    run: async (job, _shown, watched) => {
      for (const statement of statements) {
        const { text, values } = statement;
        await watched(statement, () => job.runJob(text, values));
      }
    },
  };
}

/** A job that asks. */
export function playOfModule(parser: Parser, converse: (answer: AnswerJob) => Promise<void>): Play {
  const statements: Prepared[] = [];
  return {
    statements,
    run: async (job, shown, watched) => {
      const asked = new AskedModule(parser, job, shown, watched, statements);
      try {
        await converse(asked.answer);
      } catch (e) {
        // What the statement did says more than that the module did not like it.
        throw asked.failure ?? e;
      }
      // A module may catch what a statement threw; the transaction is over all the same.
      if (asked.failure !== null) throw asked.failure;
    },
  };
}

class AskedModule {
  readonly #parser: Parser;
  readonly #job: Session;
  readonly #shown: string;
  readonly #watched: Watched;
  readonly #statements: Prepared[];
  /** The first statement that failed: the server takes no other in this transaction. */
  failure: HoldpointError | null = null;

  constructor(parser: Parser, job: Session, shown: string, watched: Watched, statements: Prepared[]) {
    this.#parser = parser;
    this.#job = job;
    this.#shown = shown;
    this.#watched = watched;
    this.#statements = statements;
  }

  answer: AnswerJob = async (question) => {
    if (this.failure !== null)
      return { ok: false, message: `an earlier statement failed: ${this.failure.message}` };
    const number = this.#statements.length + 1;
    try {
      return await this.#answered(question, number);
    } catch (e) {
      this.failure = inModule(asJobError(e, number, this.#shown), number);
      return { ok: false, message: `${this.failure.message}: ${this.failure.why ?? ""}` };
    }
  };

  async #answered({ sql, values }: JobQuestion, number: number): Promise<JobAnswer> {
    const prepared = prepare(this.#parser, { text: sql, line: number, values: ofPostgres(values) });
    if (prepared.isSchema) throw changesSchema();
    this.#statements.push(prepared);
    const asked = await this.#watched(prepared, () => this.#job.ask(prepared.text, prepared.values));
    if (asked.rows.length > MOST_ROWS) throw tooMany(asked.rows.length);
    return { ok: true, rows: asked.rows.map((row) => rowOf(asked, row)), changes: asked.changes };
  }
}

function rowOf({ columns }: Asked, cells: readonly Cell[]): JobRow {
  return Object.fromEntries(
    columns.map(({ name, type }, i): readonly [string, Value] => {
      const cell = cells[i] ?? null;
      return [name, cell !== null && INTEGERS.has(type) ? BigInt(cell) : cell];
    }),
  );
}

/** Bytes travel as the text of a `bytea`. */
function ofPostgres(values: JobQuestion["values"]): JobQuestion["values"] {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [
      name,
      value instanceof Uint8Array ? `\\x${Buffer.from(value).toString("hex")}` : value,
    ]),
  );
}

/** A module has no lines that we know: its statements are counted. */
function inModule(e: HoldpointError, number: number): HoldpointError {
  if (!(e instanceof UsageError)) return e;
  return new UsageError({
    code: e.code,
    message: e.message.replace(/^line \d+: /, `statement ${number} of the module: `),
    ...(e.why === undefined ? {} : { why: e.why }),
    next: e.next,
    cause: e,
  });
}

function changesSchema(): UsageError {
  return new UsageError({
    code: "ERR_JOB_STATEMENT",
    message: "line 0: a schema change is not allowed in a module",
    why: "a module never runs with the right to commit; its rows can be written, a change of the schema cannot",
    next: [{ actor: "requester", text: "Put the schema change into an SQL file of its own." }],
  });
}

function tooMany(rows: number): UsageError {
  return new UsageError({
    code: "ERR_JOB_FAILED",
    message: `line 0: the statement gives ${rows} rows`,
    why: `a module takes at most ${MOST_ROWS} at once: ask for fewer, or let the server do the work`,
  });
}
