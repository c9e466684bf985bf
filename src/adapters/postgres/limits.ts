/**
 * How much a rehearsal may cost the target. The job really runs, so its rows, its write-ahead log and the replicas that
 * must follow are watched: an estimate of the server's planner before each statement, and while it runs another session
 * looks every quarter of a second and cancels it.
 */
import { TargetError } from "../../base/errors.js";
import { asJobError, isBusy, type Connecting, type Session } from "./driver.js";
import { loadParser, type Parser, type Prepared } from "./statements.js";

/** Limits of one rehearsal. */
export interface RehearsalLimits {
  /** Versions of rows that are written. */
  readonly rows: number;
  /** Write-ahead log in bytes, of everybody who writes meanwhile: the server does not count it by session. */
  readonly walBytes: number;
  /** How far the slowest replica may be behind. */
  readonly lagMs: number;
}

/** Careful enough for production; `rehearsal` in holdpoint.yaml changes them. */
export const CAREFUL: RehearsalLimits = { rows: 1_000_000, walBytes: 2 ** 30, lagMs: 30_000 };

const LOOK_MS = 250;
const ESTIMATED = new Set(["SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"]);

/** Where the statements run: nothing of a rehearsal stays, and a run that is over its limits is rolled back. */
export type Moment = "rehearsal" | "run";

/** Lets `work` run one statement, and looks at what it costs meanwhile. */
export type Watched = <T>(statement: Prepared, work: () => Promise<T>) => Promise<T>;

/** Runs a job's statements within the limits. */
export class Watch {
  readonly #job: Session;
  readonly #fresh: Session;
  readonly #limits: RehearsalLimits;
  readonly #connecting: Connecting;
  readonly #moment: Moment;
  #parser: Parser | undefined;
  #start = "0/0";
  #rowsBefore = 0;
  #unreadable = 0;

  constructor(
    job: Session,
    fresh: Session,
    limits: RehearsalLimits,
    connecting: Connecting,
    moment: Moment = "rehearsal",
  ) {
    this.#moment = moment;
    this.#job = job;
    this.#fresh = fresh;
    this.#limits = limits;
    this.#connecting = connecting;
  }

  /**
   * Notes where the write-ahead log and the row counters stand. Call it before the first statement, and again where the
   * statements run once more: what was taken back to a savepoint stays counted.
   */
  async begin(): Promise<void> {
    this.#parser = await loadParser();
    [this.#rowsBefore, this.#start] = await Promise.all([
      this.#counted(),
      this.#fresh.value("SELECT pg_current_wal_insert_lsn()").then((lsn) => lsn ?? "0/0"),
    ]);
    await this.#refuseOver();
  }

  /**
   * Runs one statement, which `work` sends.
   * @throws TargetError ERR_REHEARSAL_LIMIT, and what the statement itself throws.
   */
  run: Watched = async <T>(statement: Prepared, work: () => Promise<T>): Promise<T> => {
    await this.#refuseEstimate(statement);
    const ended = new AbortController();
    const watching = this.#watch(ended.signal);
    let done: T;
    try {
      done = await work();
    } catch (e) {
      ended.abort();
      const over = await watching;
      // It was us who cancelled it.
      if (over !== null && isBusy(e)) throw over;
      throw asJobError(e, statement.line, this.#connecting.address.shown);
    }
    ended.abort();
    const over = await watching;
    if (over !== null) throw over;
    await this.#refuseRows();
    await this.#refuseOver();
    return done;
  };

  /** For the plan: the limits, and what could not be watched. */
  async notices(): Promise<readonly string[]> {
    const { rows, walBytes, lagMs } = this.#limits;
    const { lockTimeoutMs, statementTimeoutMs } = this.#connecting;
    const limits = [
      `a lock is waited for ${seconds(lockTimeoutMs)}`,
      `a statement runs ${seconds(statementTimeoutMs)}`,
      `${rows} rows`,
      `${megabytes(walBytes)} of write-ahead log`,
      `replicas ${seconds(lagMs)} behind`,
    ];
    const [{ wal: used }, rowsWritten] = await Promise.all([this.#looked(), this.#rows()]);
    return [
      `limits of the rehearsal: ${limits.join(", ")}; it took ${rowsWritten} row writes and ${megabytes(used)} of log`,
      ...(this.#unreadable === 0
        ? []
        : [
            `how far ${this.#unreadable} replicas are behind could not be read: the role needs GRANT pg_monitor`,
          ]),
    ];
  }

  /** Looks until it is told to stop; what is over its limit, after the statement was cancelled. */
  async #watch(ended: AbortSignal): Promise<TargetError | null> {
    while (!ended.aborted) {
      await pause(LOOK_MS, ended);
      if (ended.aborted) return null;
      const over = await this.#over();
      if (over === null) continue;
      await this.#fresh.value("SELECT pg_cancel_backend($1::integer)", this.#job.backend);
      return over;
    }
    return null;
  }

  async #refuseEstimate({ text, values, line }: Prepared): Promise<void> {
    const kind = Object.keys(this.#parser?.parse(text)[0] ?? {})[0] ?? "";
    if (!ESTIMATED.has(kind)) return;
    let plan;
    try {
      plan = await this.#job.value(`EXPLAIN (FORMAT JSON) ${text}`, ...values);
    } catch (e) {
      throw asJobError(e, line, this.#connecting.address.shown);
    }
    const estimated = writtenRows(JSON.parse(plan ?? "[]"));
    if (estimated <= this.#limits.rows) return;
    throw this.#limitReached(
      `line ${line} would write about ${Math.round(estimated)} rows`,
      `the server's planner says so, and ${this.#limits.rows} are allowed in a rehearsal on a target; nothing was run`,
    );
  }

  async #refuseRows(): Promise<void> {
    const rows = await this.#rows();
    if (rows <= this.#limits.rows) return;
    throw this.#limitReached(
      `the job writes ${rows} rows`,
      `${this.#limits.rows} are allowed in a rehearsal on a target`,
    );
  }

  async #refuseOver(): Promise<void> {
    const over = await this.#over();
    if (over !== null) throw over;
  }

  async #over(): Promise<TargetError | null> {
    const { wal, lagMs } = await this.#looked();
    if (wal > this.#limits.walBytes) {
      return this.#limitReached(
        `${megabytes(wal)} of write-ahead log were written while the job ${this.#ran}`,
        `${megabytes(this.#limits.walBytes)} are allowed; replicas and archives have to carry it`,
      );
    }
    if (lagMs <= this.#limits.lagMs) return null;
    return this.#limitReached(
      `a replica is ${seconds(lagMs)} behind`,
      `${seconds(this.#limits.lagMs)} are allowed while a job ${this.#moment === "run" ? "runs" : "is rehearsed"}`,
    );
  }

  /** The write-ahead log since the beginning, and how far the slowest replica is behind. */
  async #looked(): Promise<{ readonly wal: number; readonly lagMs: number }> {
    const [wal, lag, unreadable] =
      (await this.#fresh.row(
        `SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::pg_lsn), max(extract(epoch FROM r.replay_lag)),
           count(*) FILTER (WHERE r.state IS NULL) FROM pg_stat_replication r`,
        this.#start,
      )) ?? [];
    this.#unreadable = Number(unreadable ?? 0);
    return { wal: Number(wal), lagMs: Number(lag ?? 0) * 1000 };
  }

  get #ran(): string {
    return this.#moment === "run" ? "ran" : "was rehearsed";
  }

  async #rows(): Promise<number> {
    return (await this.#counted()) - this.#rowsBefore;
  }

  async #counted(): Promise<number> {
    const sql = `SELECT coalesce(pg_catalog.sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_catalog.pg_stat_xact_user_tables
      WHERE schemaname !~ '^pg_'`;
    return Number(await this.#job.value(sql));
  }

  #limitReached(message: string, why: string): TargetError {
    const isRun = this.#moment === "run";
    return new TargetError({
      code: "ERR_REHEARSAL_LIMIT",
      message,
      why,
      state: isRun
        ? "The statements were rolled back; nothing of them is in the target."
        : "The rehearsal was rolled back.",
      next: [
        {
          actor: "requester",
          text: isRun
            ? "Apply it when the target has less to do, or plan the job again in parts."
            : "Cut the job into parts, or rehearse it on a clone (rehearse_on in holdpoint.yaml).",
        },
      ],
    });
  }
}

/** Rows that reach the node of a plan that writes; all such nodes together, as a CTE may have its own. */
export function writtenRows(plan: unknown): number {
  if (Array.isArray(plan)) return plan.reduce((sum: number, p: unknown) => sum + writtenRows(p), 0);
  if (typeof plan !== "object" || plan === null) return 0;
  const node: Readonly<Record<string, unknown>> = { ...plan };
  const children: readonly unknown[] = Array.isArray(node["Plans"]) ? node["Plans"] : [];
  const own =
    node["Node Type"] === "ModifyTable" ? children.reduce((sum: number, c) => sum + feeding(c), 0) : 0;
  return own + writtenRows(node["Plan"]) + children.reduce((sum: number, c) => sum + writtenRows(c), 0);
}

function feeding(child: unknown): number {
  if (typeof child !== "object" || child === null) return 0;
  const node: Readonly<Record<string, unknown>> = { ...child };
  const isSource = node["Parent Relationship"] === "Outer" || node["Parent Relationship"] === "Member";
  return isSource ? Number(node["Plan Rows"] ?? 0) : 0;
}

function seconds(ms: number): string {
  return ms < 60_000 ? `${Math.round(ms / 100) / 10} s` : `${Math.round(ms / 6_000) / 10} min`;
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`;
}

async function pause(ms: number, ended: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const over = (): void => {
      clearTimeout(timer);
      ended.removeEventListener("abort", over);
      resolve();
    };
    const timer = setTimeout(over, ms);
    ended.addEventListener("abort", over);
  });
}
