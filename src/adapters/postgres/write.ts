/** The one session that may write to a PostgreSQL target. */
import { setTimeout as delay } from "node:timers/promises";
import type { Digest } from "../../base/digest.js";
import { HoldpointError, messageOf, RefusedError, TargetError } from "../../base/errors.js";
import type { Random } from "../../base/clock.js";
import type { Change, ChangeSink, ChangeSource, RowKey, TableShape } from "../../changeset/change.js";
import type { AnchoredHead, BatchMark, Marker, Note, SpentMark } from "../../target/marker.js";
import type {
  BatchOutcome,
  NoteSession,
  ReadRow,
  SchemaFacts,
  ScriptOutcome,
  SequenceMove,
  SqlStatement,
  WriteProblem,
  WriteSession,
} from "../../target/target.js";
import { checkDeferred } from "./deferred.js";
import {
  asTargetError,
  isConnectionLoss,
  openSession,
  unsupported,
  type Connecting,
  type Session,
} from "./driver.js";
import { brokenReferences } from "./foreign-keys.js";
import { isStandby, TIMELINE } from "./identify.js";
import { inKeyOrder, oneAhead, placesFrom, unlikeAfter } from "./in-engine.js";
import { CAREFUL, type RehearsalLimits } from "./limits.js";
import * as marks from "./marker.js";
import { batches, readRows, rowsByKey } from "./read.js";
import {
  jobSettings,
  readCatalogue,
  schemaFacts,
  tableFor,
  type Catalogue,
  type TableInfo,
} from "./schema.js";
import { nextMultixact, runScript } from "./script.js";
import { cover, coveredBy, moveForward, type Covered } from "./sequences.js";
import { silence } from "./silence.js";
import { isAsAfter, writeChanges } from "./table-writer.js";

/** Advisory locks: the letters `hpnt`, and which. Held by the session for the run, and by each batch's transaction. */
const LOCK = 0x68_70_6e_74;
const RUN = 1;
const BATCH = 2;
/** Keys read at once when the result is compared. */
const VERIFIED = 2_000;
/** How long apart a server is asked again after it went away during a commit. */
const PAUSE_MS = 100;

/**
 * Opens the session and takes the lock that keeps a second run out. The server gives it back when the session ends.
 * @throws TargetError ERR_TARGET_BUSY while another run has the target, ERR_TARGET_UNSUPPORTED on a standby.
 */
export async function openWriteSession(
  connecting: Connecting,
  random: Random,
  limits: RehearsalLimits,
): Promise<WriteSession> {
  return await open(connecting, true, random, limits);
}

/** Opens a session for notes, which waits for no run and keeps none out. */
export async function openNoteSession(connecting: Connecting, random: Random): Promise<NoteSession> {
  return await open(connecting, false, random, CAREFUL);
}

async function open(
  connecting: Connecting,
  isRun: boolean,
  random: Random,
  limits: RehearsalLimits,
): Promise<PostgresWriteSession> {
  const { session, settings } = await connect(connecting, isRun);
  try {
    const [place, multixact] = [await placeOf(session), await nextMultixact(session)];
    return new PostgresWriteSession(
      { connecting, isRun, random, limits, settings, place, multixact },
      session,
    );
  } catch (e) {
    await session.close();
    throw asTargetError(e, connecting.address.shown);
  }
}

interface Connected {
  readonly session: Session;
  readonly settings: Readonly<Record<string, string>>;
}

async function connect(connecting: Connecting, isRun: boolean): Promise<Connected> {
  const settings = await settingsOfJobs(connecting);
  const session = await openSession(connecting, true);
  try {
    if (await isStandby(session)) throw standbyRefused(connecting.address.shown);
    // A power cut must not take back what we said was committed.
    if ((await session.value("SELECT current_setting('synchronous_commit')")) === "off")
      await session.set({ synchronous_commit: "on" }, false);
    if (isRun && (await session.value(`SELECT pg_try_advisory_lock(${LOCK}, ${RUN})`)) !== "t")
      throw anotherRun(connecting.address.shown);
    return { session, settings };
  } catch (e) {
    await session.close();
    throw asTargetError(e, connecting.address.shown);
  }
}

/** The settings that a job would find, before the fixed ones are put over them. */
export async function settingsOfJobs(connecting: Connecting): Promise<Readonly<Record<string, string>>> {
  const session = await openSession(connecting, false);
  try {
    return await jobSettings(session);
  } finally {
    await session.close();
  }
}

/** System and timeline: after a failover with lost commits the timeline is another. */
async function placeOf(session: Session): Promise<string> {
  const row = await session.row(`SELECT (SELECT system_identifier FROM pg_control_system()), ${TIMELINE}`);
  return (row ?? []).join("/");
}

/** What becomes known about a transaction after its connection was lost. */
type Answer = "committed" | "not committed" | "another place" | "no answer";

/** Whether something that the transaction wrote is there. */
type Proof = (session: Session) => Promise<boolean>;

/** What a session was opened with. */
interface Opened {
  readonly connecting: Connecting;
  readonly isRun: boolean;
  readonly random: Random;
  /** What a script may cost that runs again. */
  readonly limits: RehearsalLimits;
  readonly settings: Readonly<Record<string, string>>;
  readonly place: string;
  /** From before its first transaction. */
  readonly multixact: string;
}

class PostgresWriteSession implements WriteSession {
  readonly #opened: Opened;
  readonly #connecting: Connecting;
  readonly #isRun: boolean;
  readonly #settings: Readonly<Record<string, string>>;
  readonly #place: string;
  #session: Session;
  /** Set when a batch found problems: it must not be committed. */
  #problems = 0;
  #isOpen = false;
  #isClosed = false;
  #proof: Proof | null = null;
  /** Sequences that must have reached the written rows when this batch is committed. */
  #covered: readonly Covered[] = [];

  constructor(opened: Opened, session: Session) {
    this.#opened = opened;
    this.#connecting = opened.connecting;
    this.#isRun = opened.isRun;
    this.#session = session;
    this.#settings = opened.settings;
    this.#place = opened.place;
  }

  begin = async (): Promise<void> =>
    this.#guard(async () => {
      await this.#session.run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE");
      [this.#isOpen, this.#problems, this.#proof, this.#covered] = [true, 0, null, []];
      if (this.#isRun) await this.#session.run(`SELECT pg_advisory_xact_lock(${LOCK}, ${BATCH})`);
    });

  marker = async (): Promise<Marker | null> => this.#guard(() => marks.readMarker(this.#session));
  spentFor = async (planDigest: Digest): Promise<SpentMark | null> =>
    this.#guard(() => marks.readSpent(this.#session, planDigest));
  nonceSpent = async (nonce: string): Promise<boolean> =>
    this.#guard(() => marks.readNonceSpent(this.#session, nonce));
  notes = async (): Promise<readonly Note[]> => this.#guard(() => marks.readNotes(this.#session));
  batches = async (run: string): Promise<readonly BatchMark[]> =>
    this.#guard(() => marks.readBatches(this.#session, run));
  schema = async (): Promise<SchemaFacts> => this.#guard(() => schemaFacts(this.#session, this.#settings));

  readRows = (shape: TableShape, keys: Iterable<RowKey>): AsyncIterable<ReadRow> => this.#rows(shape, keys);

  async *#rows(shape: TableShape, keys: Iterable<RowKey>): AsyncGenerator<ReadRow, undefined> {
    const info = tableFor(await this.#guard(() => readCatalogue(this.#session)), shape);
    yield* readRows(this.#session, info, shape, keys);
  }

  write = async (source: ChangeSource, sequences: readonly SequenceMove[]): Promise<BatchOutcome> =>
    this.#guard(async () => {
      this.#assertInTransaction();
      const catalogue = await readCatalogue(this.#session);
      const names = new Set(source.tables.map((t) => t.name));
      refusePartialReferences(catalogue.foreignKeys, names);
      const isSilent = await silence(this.#session, catalogue, names);
      const before = await this.#counted();
      const { executed, ...outcome } = await writeChanges(this.#session, catalogue, source);
      if (executed !== null) this.#refuseStrays(executed, (await this.#counted()) - before);
      const problems = [...outcome.problems];
      if (problems.length === 0 && isSilent)
        problems.push(...(await brokenReferences(this.#session, catalogue, source)));
      if (isSilent) await this.#session.set({ session_replication_role: "origin" }, true);
      if (problems.length === 0) problems.push(...(await this.#deferred(catalogue, source)));
      this.#problems += problems.length;
      await moveForward(this.#session, sequences);
      this.#covered = [...this.#covered, ...(await coveredBy(this.#session, catalogue, source))];
      return { ...outcome, problems };
    });

  verify = async (source: ChangeSource): Promise<readonly WriteProblem[]> =>
    this.#guard(async () => {
      const problems = await inKeyOrder(this.#session, () => this.#different(source));
      this.#problems += problems.length;
      return problems;
    });

  async #different(source: ChangeSource): Promise<readonly WriteProblem[]> {
    const catalogue = await readCatalogue(this.#session);
    const problems: WriteProblem[] = [];
    for (const shape of source.tables) {
      if (shape.keyKind === "none") continue;
      const info = tableFor(catalogue, shape);
      await oneAhead(
        batches(source.changes(shape.name), VERIFIED),
        (batch) => unlikeAfter(info, shape, batch),
        async (looking) => {
          for (const { asking, changes } of looking) {
            const unlike = await placesFrom(this.#session, asking);
            problems.push(...(await this.#judged(info, shape, pick(changes, unlike))));
          }
        },
      );
    }
    return problems;
  }

  /** Rows that the engine did not find as the change leaves them, read and judged one by one. */
  async #judged(
    info: TableInfo,
    shape: TableShape,
    changes: readonly Change[],
  ): Promise<readonly WriteProblem[]> {
    if (changes.length === 0) return [];
    const keys = changes.map((c) => c.key);
    const rows = await rowsByKey(this.#session, info, shape, keys, "");
    return changes.flatMap((change, i) => {
      const now = rows[i] ?? null;
      if (isAsAfter(shape, change, now)) return [];
      return [{ kind: "drift", change, now, nowCount: now === null ? 0 : 1 }];
    });
  }

  runScript = async (statements: readonly SqlStatement[], sink: ChangeSink): Promise<ScriptOutcome> =>
    this.#guard(() => {
      this.#assertInTransaction();
      const { random, limits, multixact } = this.#opened;
      return runScript(this.#connecting, limits, this.#session, multixact, random, statements, sink);
    });

  spend = async (mark: SpentMark): Promise<void> =>
    this.#mark(
      () => marks.writeSpent(this.#session, mark),
      async (s) => (await marks.readSpent(s, mark.planDigest))?.run === mark.run,
    );
  markBatch = async (mark: BatchMark): Promise<void> =>
    this.#mark(
      () => marks.writeBatch(this.#session, mark),
      async (s) =>
        (await marks.readBatches(s, mark.run)).some((b) => b.wave === mark.wave && b.batch === mark.batch),
    );
  clearMarks = async (run: string, wave: number): Promise<void> =>
    this.#mark(
      () => marks.clearBatches(this.#session, run, wave),
      async (s) => !(await marks.readBatches(s, run)).some((b) => b.wave === wave),
    );
  addNote = async (note: Note): Promise<void> =>
    this.#mark(
      () => marks.writeNote(this.#session, note),
      async (s) =>
        (await marks.readNotes(s)).some(
          (n) =>
            n.kind === note.kind &&
            n.subject === note.subject &&
            n.at === note.at &&
            n.reason === note.reason,
        ),
    );
  anchor = async (head: AnchoredHead): Promise<void> =>
    this.#mark(
      () => marks.writeAnchor(this.#session, head),
      async (s) => {
        const marker = await marks.readMarker(s);
        if (marker?.ledger === head.ledger) return marker.ledgerHead === head.head;
        return (await marks.readAnchoredHead(s, head.ledger))?.head === head.head;
      },
    );

  commit = async (): Promise<void> => {
    this.#assertInTransaction();
    if (this.#problems > 0) {
      await this.rollback();
      throw new HoldpointError({
        code: "ERR_INTERNAL",
        message: `a batch with ${this.#problems} problems was to be committed`,
        why: "a batch is written whole or not at all",
      });
    }
    const transaction = await this.#guard(async () => {
      await cover(this.#session, this.#covered);
      return await this.#session.value("SELECT pg_current_xact_id_if_assigned()");
    });
    try {
      await this.#session.run("COMMIT");
      this.#isOpen = false;
    } catch (e) {
      this.#isOpen = false;
      if (!this.#session.isLost && !isConnectionLoss(e)) throw this.#refusedCommit(e);
      await this.#settle(transaction, e);
    }
  };

  rollback = async (): Promise<void> => {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    // A connection that is gone was rolled back by the server.
    await this.#session.rollback().catch((e: unknown) => {
      if (!isConnectionLoss(e)) throw asTargetError(e, this.#shown);
    });
  };

  close = async (): Promise<void> => {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#session.close();
  };

  get #shown(): string {
    return this.#connecting.address.shown;
  }

  async #guard<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (e) {
      throw asTargetError(e, this.#shown);
    }
  }

  /** The last mark of a transaction is its proof; a mark that was there already proves nothing. */
  async #mark(write: () => Promise<void>, proof: Proof): Promise<void> {
    await this.#guard(async () => {
      const isNew = !(await proof(this.#session));
      await write();
      if (isNew) this.#proof = proof;
    });
  }

  /** The server names one table of a reference that waited; which rows they are is looked up. */
  async #deferred(catalogue: Catalogue, source: ChangeSource): Promise<readonly WriteProblem[]> {
    const found = await checkDeferred(this.#session, catalogue, source);
    if (!found.some((p) => p.kind === "foreign-key")) return found;
    const rows = await brokenReferences(this.#session, catalogue, source);
    return rows.length > 0 ? rows : found;
  }

  #assertInTransaction(): void {
    if (this.#isOpen) return;
    throw new HoldpointError({ code: "ERR_INTERNAL", message: "no batch is open" });
  }

  // ---- stray writes

  /** Rows that the server counts as written by this session, whoever's statement or trigger it was; null when it does not count. */
  async #counted(): Promise<number> {
    const sql = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_xact_user_tables";
    return Number(await this.#session.value(sql));
  }

  #refuseStrays(executed: number, counted: number): void {
    // Nothing counted at all: the role has track_counts off.
    if (counted === executed || counted === 0) return;
    this.#problems++;
    throw new RefusedError({
      code: "ERR_EFFECT_DIFFERS",
      message: `${counted} rows changed where ${executed} were written`,
      why: "something else acts on these tables when a row is written; the batch is rolled back",
    });
  }

  // ---- commits

  #refusedCommit(e: unknown): HoldpointError {
    const error = asTargetError(e, this.#shown);
    return new TargetError({
      code: error.code,
      message: `the commit on ${this.#shown} was refused`,
      why: messageOf(e),
      cause: e,
    });
  }

  /**
   * The connection went away while the commit was under way. What the transaction wrote last is either there for a new
   * session on the same server, and then all of it is; or it is not, and the transaction is over: then none of it is.
   * Everything else is unknown, and said to be.
   */
  async #settle(transaction: string | null, cause: unknown): Promise<void> {
    await this.#session.close();
    for (let waitedMs = 0; waitedMs <= this.#connecting.settleMs; waitedMs += PAUSE_MS) {
      const answer = await this.#ask(transaction);
      if (answer === "committed") return;
      if (answer === "not committed") throw this.#notCommitted(cause);
      if (answer === "another place") break;
      await delay(PAUSE_MS);
    }
    throw this.#unknownOutcome(cause);
  }

  async #ask(transaction: string | null): Promise<Answer> {
    let connected: Connected;
    try {
      connected = await connect(this.#connecting, this.#isRun);
    } catch {
      return "no answer"; // not back yet, or the old session still holds the lock of the run
    }
    const { session } = connected;
    const answer = await this.#inquire(session, transaction).catch((): Answer => "no answer");
    if (answer === "committed") this.#session = session;
    else await session.close();
    return answer;
  }

  /** What a new session knows about the transaction. It has the lock of the run, so the old backend has ended. */
  async #inquire(session: Session, transaction: string | null): Promise<Answer> {
    if ((await placeOf(session)) !== this.#place) return "another place";
    if (this.#proof !== null) return (await this.#proof(session)) ? "committed" : "not committed";
    if (transaction === null) return "not committed";
    const status = await session.value("SELECT pg_xact_status($1::xid8)", transaction);
    return status === "committed" ? "committed" : status === "aborted" ? "not committed" : "no answer";
  }

  #notCommitted(cause: unknown): TargetError {
    return new TargetError({
      code: "ERR_TARGET_UNREACHABLE",
      message: `the connection to ${this.#shown} was lost during the commit`,
      why: "the server answers again, and nothing of the batch is there: it was rolled back",
      cause,
    });
  }

  #unknownOutcome(cause: unknown): TargetError {
    return new TargetError({
      code: "ERR_OUTCOME_UNKNOWN",
      message: `the connection to ${this.#shown} was lost during the commit, and what became of it cannot be told`,
      why: `${messageOf(cause)}; no server of the same timeline has answered since`,
      state:
        "The batch was written whole or not at all; the marks in the target tell which, once it answers.",
      targetChanged: "unknown",
      cause,
    });
  }
}

function pick<T>(items: readonly T[], places: readonly number[]): readonly T[] {
  return places.flatMap((at) => items.slice(at, at + 1));
}

/** A reference that holds for one partition only cannot be checked on the whole table. */
function refusePartialReferences(
  keys: readonly {
    readonly isPartial: boolean;
    readonly name: string;
    readonly child: string;
    readonly parent: string;
  }[],
  tables: ReadonlySet<string>,
): void {
  const partial = keys.find((k) => k.isPartial && (tables.has(k.child) || tables.has(k.parent)));
  if (partial === undefined) return;
  throw unsupported(
    `foreign key ${partial.name} belongs to one partition of ${partial.child} or ${partial.parent}`,
    "rows are written through the whole table, where it does not hold",
  );
}

function standbyRefused(shown: string): TargetError {
  return unsupported(`${shown} is a standby`, "nothing can be written there", "Name the primary in the url.");
}

function anotherRun(shown: string): TargetError {
  return new TargetError({
    code: "ERR_TARGET_BUSY",
    message: `another run of holdpoint has ${shown}`,
    why: "one run at a time writes to a target",
    next: [{ actor: "anyone", text: "try again when the other run is done" }],
  });
}
