/**
 * The one place where the driver is loaded and connections are opened. Everything else in this folder works on
 * {@link Session}: cells as text, rows as arrays, one statement per message.
 */
import { Socket } from "node:net";
import { type PeerCertificate, TLSSocket } from "node:tls";
import type pg from "pg";
import type { CopyToStreamQuery } from "pg-copy-streams";
import type { Clock } from "../../base/clock.js";
import { codeOf, HoldpointError, messageOf, TargetError, UsageError } from "../../base/errors.js";
import { type Address, tlsOptions } from "./address.js";
import { literal, quote } from "./names.js";
import { arrayText, type Cell, decodeBatches, READING_SETTINGS, SESSION_SETTINGS } from "./values.js";

/** The driver's modules. */
export interface Driver {
  readonly Client: typeof pg.Client;
  readonly Query: typeof pg.Query;
  readonly copyTo: (sql: string, options: { readonly highWaterMark: number }) => CopyToStreamQuery;
}

/** The oldest server that has all functions that are used here. */
const OLDEST_VERSION = 13;

/** Bytes of a COPY that wait to be decoded, at most. */
const COPIED_AHEAD = 2 ** 18;

/** How long a server may take to say goodbye, in milliseconds. */
const GOODBYE_MS = 2_000;

/** How sessions of one target are opened. */
export interface Connecting {
  readonly driver: Driver;
  readonly address: Address;
  readonly clock: Clock;
  /** How long a lock is waited for, in milliseconds. */
  readonly lockTimeoutMs: number;
  /** How long one statement may run, in milliseconds. */
  readonly statementTimeoutMs: number;
  /** How long a server that went away during a commit is asked what became of it, in milliseconds. */
  readonly settleMs: number;
  /** Present where another role writes what is planned over this connection: its name, or null where it is not known here. */
  readonly writer?: string | null;
}

/** @throws TargetError ERR_TARGET_UNSUPPORTED when the optional packages are not installed. */
export async function loadDriver(): Promise<Driver> {
  try {
    const [{ default: pg }, { to }] = await Promise.all([import("pg"), import("pg-copy-streams")]);
    return { Client: pg.Client, Query: pg.Query, copyTo: to };
  } catch (e) {
    throw new TargetError({
      code: "ERR_TARGET_UNSUPPORTED",
      message: "the packages for PostgreSQL are not installed",
      why: messageOf(e),
      next: [{ actor: "anyone", argv: ["npm", "install", "pg", "pg-copy-streams", "libpg-query"] }],
      cause: e,
    });
  }
}

/** A query that takes the extended protocol, where a message holds one statement and no more. */
interface ExtendedQuery {
  readonly text: string;
  readonly values: unknown[];
  readonly queryMode: "extended";
  readonly rowMode: "array";
  readonly types: { readonly getTypeParser: () => (text: string) => string };
}

const AS_TEXT = { getTypeParser: () => (text: string) => text };

/** A parameter: a cell, or an array of cells for an array type. */
export type Parameter = Cell | readonly Cell[];

/** A statement's rows with the names and types (by their oid) of its columns. */
export interface Asked {
  readonly rows: readonly (readonly Cell[])[];
  /** How many rows it changed or gave. */
  readonly changes: number;
  readonly columns: readonly { readonly name: string; readonly type: number }[];
}

/** One connection. Closed by whoever opened it, in `finally`. */
export class Session {
  readonly #driver: Driver;
  readonly #client: pg.Client;
  readonly #socket: Socket;
  readonly #shown: string;
  #lost: unknown;
  #copies = 0;

  constructor(driver: Driver, client: pg.Client, socket: Socket, shown: string) {
    this.#driver = driver;
    this.#client = client;
    this.#socket = socket;
    this.#shown = shown;
    // Without a listener a backend that goes away would end the whole process.
    client.on("error", (e) => {
      this.#lost = e;
    });
  }

  /** Whether the connection is known to be gone. */
  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  /** The backend's process id, as the server told it at the start. */
  get backend(): string {
    const client: unknown = this.#client;
    const id = typeof client === "object" && client !== null && "processID" in client ? client.processID : "";
    return String(id);
  }

  /** The certificate that the server showed when the connection was made; null without TLS. */
  get certificate(): PeerCertificate | null {
    const client: unknown = this.#client;
    const connection = isRecord(client) ? client["connection"] : undefined;
    const stream = isRecord(connection) ? connection["stream"] : undefined;
    return stream instanceof TLSSocket ? stream.getPeerCertificate() : null;
  }

  /** All rows of a query. Errors of the server are thrown as they are, with their SQLSTATE in `code`. */
  async rows(sql: string, ...values: readonly Parameter[]): Promise<readonly (readonly Cell[])[]> {
    return (await this.#query(sql, values)).rows;
  }

  /** The first row. */
  async row(sql: string, ...values: readonly Parameter[]): Promise<readonly Cell[] | undefined> {
    return (await this.rows(sql, ...values))[0];
  }

  /** The first cell of the first row; null when there is no row. */
  async value(sql: string, ...values: readonly Parameter[]): Promise<Cell> {
    return (await this.row(sql, ...values))?.[0] ?? null;
  }

  /** Runs a statement; how many rows it changed or gave. */
  async run(sql: string, ...values: readonly Parameter[]): Promise<number> {
    return (await this.#query(sql, values)).rowCount ?? 0;
  }

  /** Runs a statement of a job and keeps none of its rows. */
  runJob(sql: string, values: readonly Cell[]): Promise<void> {
    this.#assertThere();
    const config = this.#extended(sql, values);
    return new Promise((resolve, reject) => {
      const query = this.#client.query(new this.#driver.Query(config));
      query.on("row", () => undefined); // with a listener the driver holds no rows
      query.on("error", reject);
      query.on("end", () => resolve());
    });
  }

  /** Runs a statement of a job that wants its rows. */
  async ask(sql: string, values: readonly Cell[]): Promise<Asked> {
    const { rows, rowCount, fields } = await this.#query(sql, values);
    return {
      rows,
      changes: rowCount ?? 0,
      columns: fields.map((f) => ({ name: f.name, type: f.dataTypeID })),
    };
  }

  /** The rows of a query by COPY, as they come; nothing else can run on this session meanwhile. */
  async *copy(query: string): AsyncGenerator<readonly Cell[], undefined> {
    for await (const rows of this.copyBatches(query)) yield* rows;
  }

  /** The same, as many rows at once as have come. */
  async *copyBatches(query: string): AsyncGenerator<readonly (readonly Cell[])[], undefined> {
    this.#assertThere();
    const copying = this.#driver.copyTo(`COPY (${query}) TO STDOUT`, { highWaterMark: COPIED_AHEAD });
    const stream = this.#client.query(copying);
    this.#copies++;
    yield* decodeBatches(stream);
    this.#copies--;
  }

  /** Applies settings, for the transaction only or for the session. */
  async set(settings: Readonly<Record<string, string>>, local: boolean): Promise<void> {
    const calls = Object.entries(settings).map(
      ([name, value]) => `set_config(${literal(name)}, ${literal(value)}, ${local ? "true" : "false"})`,
    );
    // Qualified, because a job may have a function of that name on its search path.
    await this.rows(`SELECT ${calls.map((c) => `pg_catalog.${c}`).join(", ")}`);
  }

  /** Rolls back what is open; a connection that is gone has nothing open. */
  async rollback(): Promise<void> {
    if (this.isLost || this.#copies > 0) return;
    await this.run("ROLLBACK");
  }

  async close(): Promise<void> {
    // In the middle of a COPY the server listens to nothing: then hanging up is the only way, and it rolls back.
    if (this.#copies > 0) this.#socket.destroy();
    const impatient = setTimeout(() => this.#socket.destroy(), GOODBYE_MS);
    // A connection that is gone cannot be closed politely.
    await this.#client.end().catch(() => undefined);
    clearTimeout(impatient);
  }

  async #query(sql: string, values: readonly Parameter[]): Promise<pg.QueryArrayResult<Cell[]>> {
    this.#assertThere();
    return await this.#client.query<Cell[]>(this.#extended(sql, values));
  }

  #extended(sql: string, values: readonly Parameter[]): ExtendedQuery {
    const cells = values.map((v) => (typeof v === "string" || v === null ? v : arrayText(v)));
    return { text: sql, values: cells, queryMode: "extended", rowMode: "array", types: AS_TEXT };
  }

  #assertThere(): void {
    if (this.#lost !== undefined) throw asTargetError(this.#lost, this.#shown);
  }
}

/**
 * Opens a session with the settings that all sessions have.
 * @param reading whether values are read under the fixed settings; a session for a job keeps the database's own.
 * @throws TargetError ERR_TARGET_UNREACHABLE when there is no server, it lets nobody in, or the database does not exist;
 * ERR_TARGET_UNSUPPORTED for a pooler, a server that is too old, or an encoding that cannot be read exactly.
 */
export async function openSession(connecting: Connecting, reading: boolean): Promise<Session> {
  const session = await connect(connecting);
  try {
    // Before any setting: on a pooler's connection it would stay, for whoever gets that connection next.
    await refuseUnfit(session, connecting.address);
    await session.set({ ...SESSION_SETTINGS, ...timeouts(connecting) }, false);
    if (reading) await session.set(READING_SETTINGS, false);
    return session;
  } catch (e) {
    await session.close();
    throw asTargetError(e, connecting.address.shown);
  }
}

function timeouts(connecting: Connecting): Readonly<Record<string, string>> {
  return {
    lock_timeout: `${connecting.lockTimeoutMs}ms`,
    statement_timeout: `${connecting.statementTimeoutMs}ms`,
    idle_in_transaction_session_timeout: `${Math.max(60_000, connecting.statementTimeoutMs)}ms`,
  };
}

async function connect(connecting: Connecting): Promise<Session> {
  const { address } = connecting;
  const tls = tlsOptions(address);
  try {
    return await connectWith(connecting, tls);
  } catch (e) {
    const plain = address.tls === "prefer" && tls !== false && /does not support SSL/.test(messageOf(e));
    if (plain) return await connectWith(connecting, false);
    throw e;
  }
}

async function connectWith(
  { driver, address, statementTimeoutMs }: Connecting,
  ssl: ReturnType<typeof tlsOptions>,
): Promise<Session> {
  const { host, port, user, database } = address;
  const socket = new Socket();
  const client = new driver.Client({
    stream: () => socket,
    host,
    port,
    user,
    database,
    // Asked only where the server wants one. Always given: the driver would look elsewhere by itself.
    password: () => passwordFor(address),
    ssl,
    client_encoding: "UTF8",
    application_name: "holdpoint",
    keepAlive: true,
    connectionTimeoutMillis: Math.min(30_000, statementTimeoutMs),
  });
  const session = new Session(driver, client, socket, address.shown);
  try {
    await client.connect();
    return session;
  } catch (e) {
    await session.close();
    if (e instanceof HoldpointError) throw e;
    // Whatever goes wrong here (name, route, TLS, password), there is no connection.
    throw isDenied(e) ? mayNotConnect(e, address) : unreachable(e, address.shown);
  }
}

function passwordFor({ password, whyNoPassword, shown, host }: Address): string {
  if (password !== undefined) return password;
  throw new TargetError({
    code: "ERR_TARGET_UNREACHABLE",
    message: `${shown} asks for a password, and there is none`,
    why: `none stands in the url, a service or PGPASSWORD; ${whyNoPassword}`,
    next: [
      {
        actor: "requester",
        text: `Write it into ~/.pgpass (chmod 600) as ${host}:PORT:DATABASE:USER:PASSWORD, which holdpoint, psql and pg_dump read.`,
      },
    ],
  });
}

function mayNotConnect(e: unknown, { shown, database, user }: Address): TargetError {
  const text = `Ask for: GRANT CONNECT ON DATABASE ${quote(database)} TO ${quote(user)};`;
  return new TargetError({
    code: "ERR_TARGET_PRIVILEGE",
    message: `the role may not connect to ${shown}`,
    why: messageOf(e),
    next: [{ actor: "dba", text }],
    cause: e,
  });
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

/** What cannot be a target at all, whatever is asked of it. */
async function refuseUnfit(session: Session, address: Address): Promise<void> {
  const [backend, version, encoding] =
    (await session.row(
      "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('server_encoding')",
    )) ?? [];
  const again = await session.value("SELECT pg_catalog.pg_backend_pid()");
  if (backend !== again || backend !== session.backend) throw await poolerRefused(session, address);
  if (Math.trunc(Number(version) / 10_000) < OLDEST_VERSION)
    throw unsupported(
      `${address.shown} runs PostgreSQL ${String(version)}`,
      `${OLDEST_VERSION} is the oldest that works`,
    );
  if (encoding === "SQL_ASCII") {
    throw unsupported(
      `the database ${address.shown} has the encoding SQL_ASCII`,
      "it holds bytes of any encoding as text, which cannot be told apart",
    );
  }
}

/**
 * In whatever mode: which one a pooler has does not show, and it is its operator's to change while we work. The server tells
 * how it is reached from the pooler, which is where to look for its own address.
 */
async function poolerRefused(session: Session, address: Address): Promise<TargetError> {
  const [host, port] =
    (await session.row(
      "SELECT pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.current_setting('port')",
    )) ?? [];
  const where = host === null ? "a socket of the pooler's own machine" : String(host);
  return new TargetError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `a connection pooler stands before ${address.shown}`,
    why: "the backend that answers is not the one that was connected to: locks and settings of a session would be lost or shared, and that it pools by session does not show from here",
    next: [
      {
        actor: "requester",
        text: `Use the server's own host and port in the url, not the pooler's, which reaches it by ${where}, port ${String(port)}.`,
      },
    ],
  });
}

/** A refusal of something that this adapter cannot hold. */
export function unsupported(message: string, why: string, next?: string): TargetError {
  return new TargetError({
    code: "ERR_TARGET_UNSUPPORTED",
    message,
    why,
    ...(next === undefined ? {} : { next: [{ actor: "requester" as const, text: next }] }),
  });
}

/** A refusal of something that the role may not do, with the GRANT to ask for. */
export function unprivileged(message: string, why: string, ask: string): TargetError {
  return new TargetError({
    code: "ERR_TARGET_PRIVILEGE",
    message,
    why,
    next: [{ actor: "dba", text: ask }],
  });
}

/** Whether the error says that a lock or the time ran out, or that two transactions blocked each other. */
export function isBusy(e: unknown): boolean {
  return ["55P03", "57014", "40P01", "40001", "25P03"].includes(codeOf(e) ?? "");
}

/** Whether the error says that a constraint was violated. */
export function isConstraint(e: unknown): boolean {
  return codeOf(e)?.startsWith("23") ?? false;
}

/** Whether the role may not do it. */
export function isDenied(e: unknown): boolean {
  return codeOf(e) === "42501";
}

/** Whether the connection is gone: then nothing is known about a statement that was under way. */
export function isConnectionLoss(e: unknown): boolean {
  const code = codeOf(e) ?? "";
  if (/^(08|57P0)/.test(code) || /^E(CONN|PIPE|TIMEDOUT|HOST|NET|NOENT|AI_)/.test(code)) return true;
  return (
    /connection (terminated|ended|error)|not queryable|socket|ECONNRESET/i.test(messageOf(e)) &&
    !isServerError(e)
  );
}

/**
 * Turns an error of server or connection into ours. The words of the server stay; nothing of the address is added. What
 * comes from neither is a fault of ours.
 */
export function asTargetError(e: unknown, shown: string): HoldpointError {
  if (e instanceof HoldpointError) return e;
  const why = messageOf(e);
  if (isBusy(e)) {
    return new TargetError({
      code: "ERR_TARGET_BUSY",
      message: `${shown} did not answer in time`,
      why,
      next: [{ actor: "anyone", text: "try again when the other transactions are done" }],
      cause: e,
    });
  }
  if (isDenied(e)) return lacksPrivilege(`the role on ${shown} lacks a privilege`, e);
  if (isConnectionLoss(e)) return unreachable(e, shown);
  if (!isServerError(e)) return new HoldpointError({ code: "ERR_INTERNAL", message: why, cause: e });
  return new TargetError({ code: "ERR_TARGET_UNREACHABLE", message: `${shown} refused`, why, cause: e });
}

/** Doctor asks the server for every privilege, so that nobody has to find them one refusal at a time. */
function lacksPrivilege(message: string, e: unknown): TargetError {
  return new TargetError({
    code: "ERR_TARGET_PRIVILEGE",
    message,
    why: messageOf(e),
    next: [
      {
        actor: "dba",
        argv: ["holdpoint", "doctor"],
        text: "names each missing GRANT; docs/postgres.md lists them by command",
      },
    ],
    cause: e,
  });
}

function unreachable(e: unknown, shown: string): TargetError {
  return new TargetError({
    code: "ERR_TARGET_UNREACHABLE",
    message: `cannot reach ${shown}`,
    why: messageOf(e),
    next: UNTRUSTED.has(codeOf(e) ?? "")
      ? [
          {
            actor: "requester",
            text: "If the server is the right one, name the file of the authority that issued its certificate: sslrootcert=FILE in the url.",
          },
        ]
      : [],
    cause: e,
  });
}

/** Node's names for a certificate whose issuer is not trusted. */
const UNTRUSTED: ReadonlySet<string> = new Set([
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
]);

/** Whether the error came from the server, which gives each an SQLSTATE. */
function isServerError(e: unknown): boolean {
  return /^[0-9A-Z]{5}$/.test(codeOf(e) ?? "");
}

/** The same for what a job's statement brought about. */
export function asJobError(e: unknown, line: number, shown: string): HoldpointError {
  if (e instanceof HoldpointError) return e;
  if (isBusy(e) || isConnectionLoss(e)) return asTargetError(e, shown);
  // A row that a policy of the table hides is refused under the same number, and no GRANT changes that.
  if (isDenied(e) && !/row-level security/.test(messageOf(e)))
    return lacksPrivilege(`line ${line}: the role on ${shown} lacks a privilege`, e);
  return new UsageError({
    code: "ERR_JOB_FAILED",
    message: `line ${line}: ${messageOf(e)}`,
    why: `the server refused the statement (SQLSTATE ${codeOf(e) ?? "unknown"})`,
    cause: e,
  });
}
