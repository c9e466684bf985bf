/**
 * Fresh databases that dumps are restored into. What a dump holds runs while it is restored and read: functions behind
 * indexes, generated columns and checks. So it never runs as a superuser: whoever may make an index in the original would
 * be one here.
 *
 * | place | as whom | when this process is killed |
 * | --- | --- | --- |
 * | a server of our own | a role that owns this one database; extensions alone are made by the superuser | the server ends with us |
 * | the server of a clone | the clone's role, which may be no superuser | the next restore beside this clone drops the database |
 */
import type { Random } from "../../base/clock.js";
import { IntegrityError, messageOf } from "../../base/errors.js";
import type { DumpFacts } from "../../target/dump.js";
import type { Address } from "./address.js";
import { type Connecting, openSession, type Session } from "./driver.js";
import type { Programs } from "./dump.js";
import { literal, quote } from "./names.js";

/** Where a dump is restored to be looked at: a database of its own on the server of a clone, or a server of our own. */
export type DumpPlace =
  | { readonly kind: "server"; readonly name: string; readonly connecting: Connecting }
  | { readonly kind: "own"; readonly folder: string };

/** An empty database. */
export interface Scratch {
  /** As the role that owns it. */
  readonly connecting: Connecting;
  /** As the superuser, who makes its extensions; null where there is none to ask. */
  readonly superuser: Connecting | null;
  /** The folder with the programs that fill it. */
  readonly folder: string;
  readonly remove: () => Promise<void>;
}

/** How a scratch database is connected to, and named. */
export interface ScratchSetting {
  readonly base: Omit<Connecting, "address">;
  readonly random: Random;
}

const RESTORER = "holdpoint_restorer";
const PREFIX = "holdpoint_scratch_";

/**
 * Whether a dump could be restored there, asked before one is made.
 * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED (36) with what to install or to ask for.
 */
export async function assertPlace(programs: Programs, place: DumpPlace): Promise<void> {
  if (place.kind === "own") {
    await ownPrograms(programs, 0);
    return;
  }
  const session = await openSession(place.connecting, true);
  try {
    await refuseRole(session, place);
  } finally {
    await session.close();
  }
}

/** Makes an empty database there, for a dump of these facts. */
export async function scratchDatabase(
  programs: Programs,
  place: DumpPlace,
  facts: DumpFacts,
  setting: ScratchSetting,
): Promise<Scratch> {
  const major = Number(/\(PostgreSQL\) (\d+)/.exec(facts.program)?.[1] ?? 0);
  const random = Buffer.from(setting.random(8)).toString("hex");
  if (place.kind === "own")
    return await onOwnServer(programs, place.folder, { major, facts, random, setting });
  const { folder } = await fitting(programs, ["pg_restore"], major);
  return { folder, superuser: null, ...(await besideClone(place, facts, random)) };
}

// ---- on a server of our own

async function onOwnServer(
  programs: Programs,
  data: string,
  given: {
    readonly major: number;
    readonly facts: DumpFacts;
    readonly random: string;
    readonly setting: ScratchSetting;
  },
): Promise<Scratch> {
  const { folder } = await ownPrograms(programs, given.major);
  const server = await started(programs, folder, data);
  try {
    const base = { ...given.setting.base, address: ownAddress(server.host, server.user) };
    const database = `${PREFIX}${given.random}`;
    const session = await openSession(base, true);
    try {
      // What reacts to writes must be kept silent when a drill writes; before version 15 only a superuser can.
      const [may] = await session.rows("SELECT current_setting('server_version_num')::int >= 150000");
      await session.run(`CREATE ROLE ${RESTORER} LOGIN BYPASSRLS`);
      if (may?.[0] === "t")
        await session.run(`GRANT SET ON PARAMETER session_replication_role TO ${RESTORER}`);
      await create(session, database, given.facts.encoding, RESTORER);
    } finally {
      await session.close();
    }
    const superuser = { ...base, address: within(base.address, database) };
    const connecting = { ...superuser, address: { ...superuser.address, user: RESTORER } };
    return { connecting, superuser, folder, remove: server.stop };
  } catch (e) {
    await server.stop();
    throw e;
  }
}

/** What the superuser made for the role that restores the rest: schemas, the rows of extensions, and servers' kinds. */
const HANDED_OVER = `SELECT format(
      CASE WHEN m.objid IS NULL THEN 'ALTER SCHEMA %I OWNER TO ${RESTORER}' ELSE 'GRANT ALL ON SCHEMA %I TO ${RESTORER}' END, n.nspname)
    FROM pg_namespace n LEFT JOIN pg_depend m ON m.classid = 'pg_namespace'::regclass AND m.objid = n.oid AND m.deptype = 'e'
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public')
  UNION ALL SELECT format('GRANT ALL ON %s %s TO ${RESTORER}', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass)
    FROM pg_class c JOIN pg_depend m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid AND m.deptype = 'e'
    WHERE c.relkind IN ('r', 'p', 'S')
  UNION ALL SELECT format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO ${RESTORER}', fdwname) FROM pg_foreign_data_wrapper`;

/** Gives what the superuser made in the database to the role that owns it. */
export async function handOver(superuser: Connecting): Promise<void> {
  const session = await openSession(superuser, true);
  try {
    for (const [sql] of await session.rows(HANDED_OVER)) await session.run(sql ?? "");
  } finally {
    await session.close();
  }
}

// ---- beside a clone

/**
 * A session holds a lock on the database's name for as long as we live: what has no such lock was left by somebody who was
 * killed. Locks are those of one database, so the name says beside which one it was made.
 */
async function besideClone(
  place: DumpPlace & { readonly kind: "server" },
  facts: DumpFacts,
  random: string,
): Promise<Pick<Scratch, "connecting" | "remove">> {
  const keeper = await openSession(place.connecting, true);
  try {
    await refuseRole(keeper, place);
    if (Number(await keeper.value("SELECT current_setting('server_version_num')")) >= 140_000)
      await keeper.set({ idle_session_timeout: "0" }, false);
    const beside = await keeper.value("SELECT oid FROM pg_database WHERE datname = current_database()");
    const prefix = `${PREFIX}${String(beside)}_`;
    await removeLeft(keeper, prefix);
    const database = `${prefix}${random}`;
    await keeper.value(LOCK, database);
    await create(keeper, database, facts.encoding);
    const remove = async (): Promise<void> => {
      await keeper.close();
      await drop(place.connecting, database);
    };
    return {
      connecting: { ...place.connecting, address: within(place.connecting.address, database) },
      remove,
    };
  } catch (e) {
    await keeper.close();
    throw e;
  }
}

const LOCK = "SELECT pg_try_advisory_lock(hashtext('holdpoint scratch'), hashtext($1))";
const UNLOCK = "SELECT pg_advisory_unlock(hashtext('holdpoint scratch'), hashtext($1))";

/** Drops what a killed restore left here; a program of its that is at it still is ended. */
async function removeLeft(keeper: Session, prefix: string): Promise<void> {
  const left = await keeper.rows(
    "SELECT datname FROM pg_database WHERE starts_with(datname, $1) AND pg_has_role(datdba, 'USAGE')",
    prefix,
  );
  for (const [name] of left) {
    if ((await keeper.value(LOCK, name ?? "")) !== "t") continue;
    await keeper.run(`DROP DATABASE IF EXISTS ${quote(name ?? "")} WITH (FORCE)`);
    await keeper.value(UNLOCK, name ?? "");
  }
}

/** What may run there runs with the rights of this role. */
async function refuseRole(session: Session, place: DumpPlace & { readonly kind: "server" }): Promise<void> {
  const role = quote(place.connecting.address.user);
  const [may, isSuper, outside] =
    (await session.row(
      `SELECT rolcreatedb OR rolsuper, rolsuper,
         (SELECT string_agg(r.rolname, ', ') FROM pg_roles r WHERE pg_has_role(current_user, r.oid, 'MEMBER')
            AND r.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'))
       FROM pg_catalog.pg_roles WHERE rolname = current_user`,
    )) ?? [];
  if (may !== "t")
    throw unverifiable(
      `its role may make no database on the server of ${place.name}, where a dump would be restored`,
      `Ask for: ALTER ROLE ${role} CREATEDB;`,
    );
  const beyond = isSuper === "t" ? "a superuser" : outside === null ? null : `a member of ${String(outside)}`;
  if (beyond !== null)
    throw unverifiable(
      `its role on the server of ${place.name} is ${beyond}: functions of the database run while a dump is restored, and would have its rights`,
      `Let ${place.name} come by a role of its own: CREATE ROLE name LOGIN CREATEDB;`,
    );
}

async function drop(connecting: Connecting, database: string): Promise<void> {
  const session = await openSession(connecting, true);
  try {
    await session.run(`DROP DATABASE IF EXISTS ${quote(database)} WITH (FORCE)`);
  } finally {
    await session.close();
  }
}

// ---- both

async function create(session: Session, database: string, encoding: string, owner?: string): Promise<void> {
  // Sorted by bytes: an order of the original's that this system lacks must not stand in the way.
  const how = `TEMPLATE template0 ENCODING ${literal(encoding)} LC_COLLATE 'C' LC_CTYPE 'C'`;
  await session.run(
    `CREATE DATABASE ${quote(database)} ${how}${owner === undefined ? "" : ` OWNER ${owner}`}`,
  );
}

function within(address: Address, database: string): Address {
  return { ...address, database, shown: `${database} beside ${address.shown}` };
}

function ownAddress(host: string, user: string): Address {
  const shown = "a scratch server";
  const none = { password: undefined, whyNoPassword: "", tls: "disable", tlsFiles: {}, origins: [] } as const;
  return { host, port: 5432, user, database: "postgres", shown, ...none };
}

async function started(
  programs: Programs,
  folder: string,
  data: string,
): Promise<Awaited<ReturnType<Programs["start"]>>> {
  try {
    return await programs.start(folder, data);
  } catch (e) {
    throw unverifiable(messageOf(e), CONFIGURE, e);
  }
}

async function ownPrograms(programs: Programs, major: number): Promise<{ readonly folder: string }> {
  const found = await fitting(programs, ["pg_restore", "initdb", "postgres"], major);
  const why = programs.whyNoServer();
  if (why !== null) throw unverifiable(why, CONFIGURE);
  return found;
}

async function fitting(
  programs: Programs,
  names: readonly string[],
  major: number,
): Promise<{ readonly folder: string }> {
  const found = (await programs.having(names)).find((p) => p.major >= major);
  if (found !== undefined) return found;
  const version = major === 0 ? "" : ` of PostgreSQL ${major} or newer`;
  throw unverifiable(`no folder of PATH has ${names.join(", ")}${version}`, CONFIGURE);
}

const CONFIGURE =
  "Install the server's programs beside pg_dump (package postgresql: nothing of it has to run), or name a clone on another server: rehearse_on in holdpoint.yaml.";

function unverifiable(why: string, next: string, cause?: unknown): IntegrityError {
  return new IntegrityError({
    code: "ERR_SNAPSHOT_UNVERIFIED",
    message: "a dump could not be verified here: there is no place to restore it to",
    why,
    next: [{ actor: "dba", text: next }],
    cause,
  });
}
