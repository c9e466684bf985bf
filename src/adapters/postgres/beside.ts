/**
 * What is asked of a database beside a run: how far its replicas are behind, and the question in SQL that a rule of
 * `pause_while` names. On a connection of its own, because those of the run are inside their transactions.
 */
import { TargetError } from "../../base/errors.js";
import type { TableShape } from "../../changeset/change.js";
import type { Value } from "../../changeset/value.js";
import { type Connecting, openSession, type Session, unsupported } from "./driver.js";
import { quote } from "./names.js";
import { readCatalogue, tableFor } from "./schema.js";
import { isInteger } from "./values.js";

/** The connection beside a run: opened by the first question, and anew where it was lost. */
export class Beside {
  readonly #connecting: Connecting;
  #session: Promise<Session> | null = null;
  /** Questions wait for one another: a connection answers one at a time. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(connecting: Connecting) {
    this.#connecting = connecting;
  }

  /**
   * Seconds by which the slowest replica is behind; null where none is connected. One that is caught up and idle is 0.
   * @throws TargetError where that cannot be told: the role may not see it, or a replica is still catching up, of which the
   * server knows no time.
   */
  lagSeconds = async (): Promise<number | null> => this.#oneByOne(async (session) => lagOf(session));

  /**
   * The first cell of the first row, read-only: the question stands inside of a SELECT in a transaction that can write
   * nothing, and is rolled back.
   */
  ask = async (sql: string, maxMs: number): Promise<Value> =>
    this.#oneByOne(async (session) => {
      await session.run("BEGIN READ ONLY");
      try {
        // Whoever wrote the question wrote it as for any other client of the database.
        await session.run("SET LOCAL search_path TO DEFAULT");
        await session.run(`SET LOCAL statement_timeout = ${Math.max(1, Math.trunc(maxMs))}`);
        return await session.value(`SELECT q.* FROM (\n${sql}\n) AS q LIMIT 1`);
      } finally {
        await session.run("ROLLBACK");
      }
    });

  /** Ends the connection, if there is one. */
  close = async (): Promise<void> => {
    const session = this.#session;
    this.#session = null;
    await (await session?.catch(() => undefined))?.close();
  };

  async #oneByOne<T>(work: (session: Session) => Promise<T>): Promise<T> {
    const mine = this.#last.then(async () => work(await this.#opened()));
    // Whoever waits behind is not told of this one's failure.
    this.#last = mine.catch(() => undefined);
    return mine;
  }

  async #opened(): Promise<Session> {
    const known = await this.#session?.catch(() => undefined);
    if (known !== undefined && !known.isLost) return known;
    await known?.close();
    this.#session = openSession(this.#connecting, true);
    return this.#session;
  }
}

/**
 * `pg_stat_replication` shows every role that there is a replica, and tells only some how it is: the others see no state.
 * What takes the log and replays nothing (an archive, a base backup) is no copy that somebody reads.
 */
const LAG = `SELECT count(*),
    count(*) FILTER (WHERE r.state IS NULL),
    string_agg(coalesce(nullif(r.application_name, ''), r.pid::text), ', ' ORDER BY r.pid)
      FILTER (WHERE r.state IN ('startup', 'catchup')),
    coalesce(max(extract(epoch FROM r.replay_lag)), 0)
  FROM pg_stat_replication r
  WHERE r.state IS NULL OR (r.state <> 'backup' AND (r.replay_lsn IS NOT NULL OR r.state IN ('startup', 'catchup')))`;

async function lagOf(session: Session): Promise<number | null> {
  const [replicas, hidden, catchingUp, seconds] = (await session.row(LAG)) ?? [];
  if (Number(replicas ?? 0) === 0) return null;
  if (Number(hidden ?? 0) > 0)
    throw new TargetError({
      code: "ERR_TARGET_UNSUPPORTED",
      message: `how far ${hidden ?? ""} replicas are behind may not be read`,
      why: "pg_stat_replication hides their state from this role",
      next: [
        {
          actor: "dba",
          text: "GRANT pg_monitor to the role of this target; docs/postgres.md says what else it needs.",
        },
      ],
    });
  if (catchingUp !== null && catchingUp !== undefined)
    throw new TargetError({
      code: "ERR_TARGET_BUSY",
      message: "a replica is still catching up",
      why: `the server knows no time for it: ${catchingUp}`,
    });
  return Number(seconds ?? 0);
}

/**
 * The largest value that a column holds or, where a sequence belongs to it, that was ever given out.
 * @throws TargetError ERR_TARGET_UNSUPPORTED for a sequence that the role may not read: a number below it was given out once.
 */
export async function largestOf(session: Session, shape: TableShape, column: number): Promise<Value> {
  const info = tableFor(await readCatalogue(session), shape);
  const name = shape.columns[column]?.name ?? "";
  const type = info.columns.find((c) => c.name === name)?.type ?? "";
  const held = await session.value(`SELECT max(t.${quote(name)})::text FROM ${info.from} AS t`);
  if (!isInteger(type)) return held;
  const [sequence, mayRead, last] =
    (await session.row(
      `SELECT s.name, has_sequence_privilege(s.name::regclass, 'SELECT, USAGE'),
         CASE WHEN has_sequence_privilege(s.name::regclass, 'SELECT, USAGE') THEN pg_sequence_last_value(s.name::regclass) END
       FROM (SELECT pg_get_serial_sequence($1::oid::regclass::text, $2::text) AS name) AS s WHERE s.name IS NOT NULL`,
      info.oid,
      name,
    )) ?? [];
  if (sequence !== undefined && mayRead !== "t")
    throw unsupported(
      `sequence ${sequence ?? ""} cannot be read`,
      `${shape.name}.${name} is numbered anew from it: the role needs GRANT SELECT or USAGE on it`,
    );
  const known = [held, last].flatMap((v) => (v === null || v === undefined ? [] : [BigInt(v)]));
  return known.length === 0 ? null : known.reduce((a, b) => (a > b ? a : b));
}
