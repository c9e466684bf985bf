/** PostgreSQL databases as targets. What they cannot hold, lock or undo: `docs/fine-print.md`; GRANTs: `docs/postgres.md`. */
import { userInfo } from "node:os";
import type { Clock, Random } from "../../base/clock.js";
import type { Digest } from "../../base/digest.js";
import type { ChangeSink, ChangeSource, RowKey, TableShape } from "../../changeset/change.js";
import type { Row, Value } from "../../changeset/value.js";
import type { DumpFacts, Dumped } from "../../target/dump.js";
import type { AnchoredHead, BatchMark, MarkedHistory, Marker, Note, SpentMark } from "../../target/marker.js";
import type {
  Capabilities,
  Identification,
  NoteSession,
  ReadRow,
  Rehearsal,
  RehearsalKind,
  RolePrivileges,
  RoleUse,
  RunnableJob,
  SchemaChange,
  SchemaFacts,
  SchemaUndo,
  SqlStatement,
  Target,
  UndoRehearsal,
  WriteProblem,
  WriteSession,
} from "../../target/target.js";
import type { VitalColumn, Vitals } from "../../target/vitals.js";
import { parseAddress } from "./address.js";
import { Beside, largestOf } from "./beside.js";
import {
  asTargetError,
  loadDriver,
  openSession,
  unsupported,
  type Connecting,
  type Session,
} from "./driver.js";
import { dump, type Programs } from "./dump.js";
import { identify, serverTime } from "./identify.js";
import { CAREFUL, type RehearsalLimits } from "./limits.js";
import {
  markerSql,
  readAnchoredHead,
  readBatches,
  readHistory,
  readMarker,
  readNotes,
  readSpent,
} from "./marker.js";
import { privileges } from "./privileges.js";
import { beginMoment, countRows, joinMoment, readRows, scan } from "./read.js";
import { rehearse } from "./rehearse.js";
import { rehearseUndo } from "./rehearse-undo.js";
import { restore } from "./restored.js";
import { assertPlace, type DumpPlace } from "./scratch.js";
import { readCatalogue, schemaFacts, tableFor } from "./schema.js";
import { changesSchema, rehearseScript, undoSchema } from "./script.js";
import { maySilence } from "./silence.js";
import { countByValue, vitals } from "./vitals.js";
import { openNoteSession, openWriteSession, settingsOfJobs } from "./write.js";
import { rowsWrittenBy } from "./written-by.js";

export { serverOf } from "./identify.js";

/** How a PostgreSQL target is opened. */
export interface PostgresOptions {
  /** The target's name in the configuration. */
  readonly name: string;
  /** `postgres://…`; may hold a password, which appears in no error. */
  readonly url: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Where `PGHOST`, `PGUSER`, `PGPASSWORD` … are read. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** How long a lock is waited for, in milliseconds; 2 seconds when absent. */
  readonly lockTimeoutMs?: number;
  /** How long one statement may run, in milliseconds; 5 minutes when absent. */
  readonly statementTimeoutMs?: number;
  /** What a rehearsal may cost, where it is not {@link CAREFUL}. */
  readonly limits?: Partial<RehearsalLimits>;
  /**
   * Present where another role writes what is planned over this connection: the address that it comes by, or null where it
   * is not known here.
   */
  readonly writer?: string | null;
  /** How long a server that went away during a commit is asked what became of it, in milliseconds; 30 seconds when absent. */
  readonly settleMs?: number;
  /** The programs of PostgreSQL on this machine; without them the whole database cannot be dumped. */
  readonly programs?: Programs;
}

const LOCK_TIMEOUT_MS = 2_000;
const STATEMENT_TIMEOUT_MS = 5 * 60_000;
const SETTLE_MS = 30_000;

/**
 * Opens the database as a target.
 * @throws UsageError ERR_TARGET_UNSUPPORTED for a url that cannot be used; TargetError ERR_TARGET_UNREACHABLE when there is
 * no server or it lets nobody in, ERR_TARGET_UNSUPPORTED for a pooler, an old server, or missing packages.
 */
export async function openPostgres(options: PostgresOptions): Promise<Target> {
  return await openOver(options, await connectingOf(options));
}

async function connectingOf(options: PostgresOptions): Promise<Connecting> {
  return {
    driver: await loadDriver(),
    address: parseAddress(options.url, options.env, loginName()),
    clock: options.clock,
    lockTimeoutMs: options.lockTimeoutMs ?? LOCK_TIMEOUT_MS,
    statementTimeoutMs: options.statementTimeoutMs ?? STATEMENT_TIMEOUT_MS,
    settleMs: options.settleMs ?? SETTLE_MS,
    ...(options.writer === undefined ? {} : { writer: roleIn(options.writer, options.env) }),
  };
}

async function openOver(
  options: PostgresOptions,
  connecting: Connecting,
  whenClosed: () => Promise<void> = async () => undefined,
): Promise<Target> {
  const settings = await settingsOfJobs(connecting);
  const reader = await openSession(connecting, true);
  try {
    const capabilities = {
      transactionalDdl: true,
      silentTriggers: await maySilence(reader),
      sequencesRollBack: false,
    };
    return new PostgresTarget(options, connecting, reader, settings, capabilities, whenClosed);
  } catch (e) {
    await reader.close();
    throw asTargetError(e, connecting.address.shown);
  }
}

/** Where a dump is restored: beside the database of a clone, or on a server of our own whose data lies in a folder. */
export type RestorePlace =
  | { readonly kind: "server"; readonly name: string; readonly url: string }
  | { readonly kind: "own"; readonly folder: string };

/** What restoring needs, whatever is restored. */
export type RestoreOptions = Omit<PostgresOptions, "url" | "writer" | "programs"> & {
  readonly programs: Programs;
};

/**
 * Asks, before a dump is made, whether it could be restored there.
 * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED (36) with what to install, configure or ask for.
 */
export async function assertRestorable(place: RestorePlace, options: RestoreOptions): Promise<void> {
  await assertPlace(options.programs, await placeOf(place, options));
}

/**
 * Restores a dump into a database of its own, which is gone when the target is closed.
 * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED (36) where it does not hold what was counted when it was made.
 */
export async function openRestored(
  dumped: { readonly path: string; readonly facts: DumpFacts },
  place: RestorePlace,
  options: RestoreOptions,
): Promise<Target> {
  const url = "postgres://localhost/"; // where it really is comes back from the restore
  const { address: _, ...base } = await connectingOf({ ...options, url, env: {} });
  const { programs, random } = options;
  const restored = await restore(programs, await placeOf(place, options), dumped, { base, random });
  try {
    return await openOver({ ...options, url }, restored.connecting, restored.remove);
  } catch (e) {
    await restored.remove();
    throw e;
  }
}

async function placeOf(place: RestorePlace, options: RestoreOptions): Promise<DumpPlace> {
  if (place.kind === "own") return place;
  return { ...place, connecting: await connectingOf({ ...options, url: place.url }) };
}

/** Where somebody asked for two runs. */
const RUN_ONCE =
  "run once, as every module on PostgreSQL: values that differ from run to run were not looked for";

class PostgresTarget implements Target {
  readonly adapter = "postgres";
  readonly name: string;
  readonly capabilities: Capabilities;
  readonly #options: PostgresOptions;
  readonly #connecting: Connecting;
  readonly #reader: Session;
  readonly #settings: Readonly<Record<string, string>>;
  readonly #beside: Beside;
  /** The exported snapshot of {@link PostgresTarget.atOneMoment}. */
  #moment: string | null = null;
  #closed = false;
  readonly #whenClosed: () => Promise<void>;
  readonly dumpTo?: (path: string) => Promise<Dumped>;

  constructor(
    options: PostgresOptions,
    connecting: Connecting,
    reader: Session,
    settings: Readonly<Record<string, string>>,
    capabilities: Capabilities,
    whenClosed: () => Promise<void>,
  ) {
    this.name = options.name;
    this.capabilities = capabilities;
    this.#options = options;
    this.#connecting = connecting;
    this.#reader = reader;
    this.#settings = settings;
    this.#beside = new Beside(connecting);
    this.#whenClosed = whenClosed;
    const { programs } = options;
    if (programs !== undefined)
      this.dumpTo = (path) => this.#reading(() => dump(connecting, programs, settings, path));
  }

  get #limits(): RehearsalLimits {
    return { ...CAREFUL, ...this.#options.limits };
  }

  identify = async (): Promise<Identification> =>
    this.#reading(() => identify(this.#reader, this.#connecting.address));
  schema = async (): Promise<SchemaFacts> => this.#reading(() => schemaFacts(this.#reader, this.#settings));

  clock = async (): Promise<Date> => this.#reading(() => serverTime(this.#reader));

  rehearse = async (job: RunnableJob, sink: ChangeSink, how?: RehearsalKind): Promise<Rehearsal> => {
    const setting = {
      connecting: this.#connecting,
      clock: this.#options.clock,
      random: this.#options.random,
      limits: this.#limits,
    };
    const isScript = job.kind === "sql" && (how?.script === true || (await changesSchema(job.statements)));
    if (isScript) return rehearseScript(setting, job.statements, sink);
    const rehearsal = await rehearse(setting, job, sink);
    return how?.again !== "always" || job.kind === "sql"
      ? rehearsal
      : { ...rehearsal, notices: [...rehearsal.notices, RUN_ONCE] };
  };

  undoSchema = async (changes: readonly SchemaChange[]): Promise<SchemaUndo> =>
    this.#reading(() => undoSchema(this.#reader, changes));

  rehearseUndo = async (
    source: ChangeSource,
    script: readonly SqlStatement[] = [],
    there?: (problems: readonly WriteProblem[]) => void,
  ): Promise<UndoRehearsal> =>
    rehearseUndo(this.#connecting, this.#options.random, this.#limits, source, script, there);

  readRows = (shape: TableShape, keys: Iterable<RowKey>): AsyncIterable<ReadRow> => this.#rows(shape, keys);

  async *#rows(shape: TableShape, keys: Iterable<RowKey>): AsyncGenerator<ReadRow, undefined> {
    try {
      const info = tableFor(await readCatalogue(this.#reader), shape);
      yield* readRows(this.#reader, info, shape, keys);
    } catch (e) {
      throw asTargetError(e, this.#connecting.address.shown);
    }
  }

  scan = (shape: TableShape): AsyncIterable<Row> => this.#scan(shape);

  /** On a connection of its own: a scan that is given up in the middle can only be hung up on. */
  async *#scan(shape: TableShape): AsyncGenerator<Row, undefined> {
    const session = await openSession(this.#connecting, true);
    try {
      if (this.#moment !== null) await joinMoment(session, this.#moment);
      const info = tableFor(await readCatalogue(session), shape);
      yield* scan(session, info, shape);
    } catch (e) {
      throw asTargetError(e, this.#connecting.address.shown);
    } finally {
      await session.close();
    }
  }

  rowsWrittenBy = (shape: TableShape, transaction: string): AsyncIterable<RowKey> =>
    this.#writtenBy(shape, transaction);

  async *#writtenBy(shape: TableShape, transaction: string): AsyncGenerator<RowKey, undefined> {
    const session = await openSession(this.#connecting, true);
    try {
      const info = tableFor(await readCatalogue(session), shape);
      yield* rowsWrittenBy(session, info, shape, transaction);
    } catch (e) {
      throw asTargetError(e, this.#connecting.address.shown);
    } finally {
      await session.close();
    }
  }

  atOneMoment = async <T>(work: () => Promise<T>): Promise<T> => {
    this.#moment = await this.#reading(() => beginMoment(this.#reader));
    try {
      return await work();
    } finally {
      this.#moment = null;
      await this.#reading(() => this.#reader.rollback());
    }
  };

  countRows = async (table: string): Promise<number> =>
    this.#reading(async () => {
      const info = (await readCatalogue(this.#reader)).byName.get(table);
      if (info === undefined)
        throw unsupported(`there is no table ${table}`, `on ${this.#connecting.address.shown}`);
      return await countRows(this.#reader, info);
    });
  countByValue = async (
    table: string,
    column: string,
    values: readonly Value[],
  ): Promise<readonly number[]> =>
    this.#reading(async () => {
      const info = (await readCatalogue(this.#reader)).byName.get(table);
      if (info === undefined)
        throw unsupported(`there is no table ${table}`, `on ${this.#connecting.address.shown}`);
      return await countByValue(this.#reader, info, column, values);
    });
  largestOf = async (shape: TableShape, column: number): Promise<Value> =>
    this.#reading(() => largestOf(this.#reader, shape, column));
  lagSeconds = async (): Promise<number | null> => this.#reading(() => this.#beside.lagSeconds());
  ask = async (sql: string, maxMs: number): Promise<Value> =>
    this.#reading(() => this.#beside.ask(sql, maxMs));
  vitals = async (newest: readonly VitalColumn[]): Promise<Vitals> =>
    this.#reading(() => vitals(this.#reader, newest));
  privileges = async (
    uses: readonly RoleUse[],
    tables: readonly string[],
    statements: readonly string[],
  ): Promise<RolePrivileges> => this.#reading(() => privileges(this.#reader, uses, tables, statements));
  spentFor = async (planDigest: Digest): Promise<SpentMark | null> =>
    this.#reading(() => readSpent(this.#reader, planDigest));
  notes = async (): Promise<readonly Note[]> => this.#reading(() => readNotes(this.#reader));
  batches = async (run: string): Promise<readonly BatchMark[]> =>
    this.#reading(() => readBatches(this.#reader, run));
  anchoredHead = async (ledger: string): Promise<AnchoredHead | null> =>
    this.#reading(() => readAnchoredHead(this.#reader, ledger));
  history = async (of: { readonly job: string; readonly since: string }): Promise<MarkedHistory> =>
    this.#reading(() => readHistory(this.#reader, of));

  markerSql = (marker: Marker): readonly string[] => markerSql(marker);

  pin = async (marker: Marker): Promise<void> => {
    await this.#reading(async () => {
      const writer = await openSession(this.#connecting, true);
      try {
        for (const sql of markerSql(marker)) await writer.run(sql);
      } finally {
        await writer.close();
      }
      // Read back over the other connection: what a later command will see.
      await readMarker(this.#reader);
    });
  };

  openWriter = async (): Promise<WriteSession> =>
    openWriteSession(this.#connecting, this.#options.random, this.#limits);
  openNotes = async (): Promise<NoteSession> => openNoteSession(this.#connecting, this.#options.random);

  /** Nothing of a server is a path of this machine that could be named with certainty. */
  ownPaths = (): readonly string[] => [];

  close = async (): Promise<void> => {
    if (this.#closed) return;
    this.#closed = true;
    await this.#beside.close();
    await this.#reader.close();
    await this.#whenClosed();
  };

  async #reading<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (e) {
      throw asTargetError(e, this.#connecting.address.shown);
    }
  }
}

/** The role that an address names, by what the url and this machine say. */
function roleIn(url: string | null, env: PostgresOptions["env"]): string | null {
  return url === null ? null : parseAddress(url, env, loginName()).user;
}

function loginName(): string {
  try {
    return userInfo().username;
  } catch {
    return "postgres"; // a user id without an entry in the password file, as in many containers
  }
}
