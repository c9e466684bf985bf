/**
 * The whole database by `pg_dump`, as of one moment that is counted beside it. Which programs there are is told by the
 * machine; a password reaches them by their environment alone.
 */
import { rmSync, writeFileSync } from "node:fs";
import { rootCertificates } from "node:tls";
import { IntegrityError } from "../../base/errors.js";
import type { DumpFacts, Dumped } from "../../target/dump.js";
import type { Address } from "./address.js";
import { type Connecting, openSession, type Session, unsupported } from "./driver.js";
import { isOurs, qualified } from "./names.js";
import { beginMoment } from "./read.js";
import { schemaFacts } from "./schema.js";

/** PostgreSQL's own programs, as the machine has them. */
export interface Programs {
  /** The folders that have all of these programs, by version, oldest first. */
  readonly having: (
    programs: readonly string[],
  ) => Promise<readonly { readonly folder: string; readonly major: number; readonly version: string }[]>;
  readonly run: (
    path: string,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
  ) => Promise<{ readonly ok: boolean; readonly output: string; readonly why: string }>;
  readonly whyNoServer: () => string | null;
  readonly start: (
    programs: string,
    folder: string,
  ) => Promise<{ readonly host: string; readonly user: string; readonly stop: () => Promise<void> }>;
}

/**
 * Writes a dump of the database to `path`, and counts every table in the same exported snapshot.
 * @throws TargetError ERR_TARGET_UNSUPPORTED without a `pg_dump` that is as new as the server; IntegrityError
 * ERR_SNAPSHOT_UNVERIFIED where it fails.
 */
export async function dump(
  connecting: Connecting,
  programs: Programs,
  settings: Readonly<Record<string, string>>,
  path: string,
): Promise<Dumped> {
  const session = await openSession(connecting, true);
  try {
    const [server = "", encoding = "", number] =
      (await session.row(
        "SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('server_encoding'), current_setting('server_version_num')",
      )) ?? [];
    const program = await programFor(programs, Math.trunc(Number(number) / 10_000), String(server));
    const moment = await beginMoment(session);
    await session.set({ statement_timeout: "0" }, true);
    const options = [
      "--format=custom",
      "--compress=0", // the store compresses, and shares what an earlier dump has
      "--no-password",
      `--snapshot=${moment}`,
      `--lock-wait-timeout=${connecting.lockTimeoutMs}`,
      `--file=${path}`,
    ];
    const dumping = withLibpq(connecting.address, path, (env) =>
      programs.run(`${program.folder}/pg_dump`, options, env),
    );
    const counting = counted(session, settings);
    const [ended, known] = await Promise.allSettled([dumping, counting]);
    if (known.status === "rejected") throw known.reason;
    if (ended.status === "rejected") throw ended.reason;
    if (!ended.value.ok) throw failed(`pg_dump could not dump ${connecting.address.shown}`, ended.value.why);
    const { counts, tables, rows } = known.value;
    const facts = { program: program.version, server: String(server), encoding: String(encoding), ...counts };
    return { facts, tables, rows };
  } finally {
    await session.close();
  }
}

async function counted(
  session: Session,
  settings: Readonly<Record<string, string>>,
): Promise<Omit<Dumped, "facts"> & { readonly counts: Counts }> {
  const { tables } = await schemaFacts(session, settings);
  const { counts, rows } = await countAll(session);
  return { counts, tables, rows };
}

/** What is counted. */
export type Counts = Pick<DumpFacts, "tables" | "largeObjects">;

/** Tables whose rows a dump holds: all but those that an extension makes by itself. */
const TABLES = `SELECT n.nspname, c.relname
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`;

/** How many rows each table has, and all that are not the marker's. */
export async function countAll(
  session: Session,
): Promise<{ readonly counts: Counts; readonly rows: number }> {
  const tables: { readonly name: string; readonly rows: number }[] = [];
  let rows = 0;
  for (const [schema, table] of await session.rows(TABLES)) {
    const [s, t] = [String(schema), String(table)];
    const count = Number(await session.value(`SELECT count(*) FROM ONLY ${qualified(s, t)}`));
    tables.push({ name: qualified(s, t), rows: count });
    if (!isOurs(s, t)) rows += count;
  }
  const largeObjects = Number(await session.value("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata"));
  return { counts: { tables, largeObjects }, rows };
}

async function programFor(
  programs: Programs,
  major: number,
  server: string,
): Promise<Awaited<ReturnType<Programs["having"]>>[number]> {
  const found = await programs.having(["pg_dump"]);
  const fit = found.find((p) => p.major >= major);
  if (fit !== undefined) return fit;
  const newest = found.at(-1);
  throw unsupported(
    "a snapshot of this database needs pg_dump, which is not here",
    newest === undefined
      ? `no folder of PATH has pg_dump; the server runs PostgreSQL ${server}`
      : `the newest one here is ${newest.version}, and a server that runs ${server} needs one as new as itself`,
    `Install pg_dump ${major} or newer (package postgresql-client-${major}), or keep tables: snapshot take --snapshot tables.`,
  );
}

/**
 * Runs `work` with what libpq is told. Where the driver believes the authorities that come with Node.js, libpq is given the
 * same ones in a file beside `path`: by itself it would look into the home folder, and end.
 */
export async function withLibpq<T>(
  address: Address,
  path: string,
  work: (env: Readonly<Record<string, string>>) => Promise<T>,
): Promise<T> {
  const { tls, tlsFiles } = address;
  const isChecked = tls === "verify-ca" || tls === "verify-full";
  if (!isChecked || tlsFiles.ca !== undefined || address.host.startsWith("/"))
    return await work(libpq(address));
  const roots = `${path}.roots`;
  writeFileSync(roots, rootCertificates.join("\n"), { mode: 0o600, flag: "wx" });
  try {
    return await work({ ...libpq(address), PGSSLROOTCERT: roots });
  } finally {
    rmSync(roots, { force: true });
  }
}

/**
 * What libpq is told; nothing else of our environment goes with it. A password that was found for the database itself goes
 * with its scratch database too, which no line of `.pgpass` names: so libpq is given it, and asks no file.
 */
function libpq(address: Address): Readonly<Record<string, string>> {
  const { host, port, user, database, password, tls, tlsFiles } = address;
  return {
    PGHOST: host,
    PGPORT: String(port),
    PGUSER: user,
    PGDATABASE: database,
    PGSSLMODE: tls,
    PGGSSENCMODE: "disable", // as the driver
    PGAPPNAME: "holdpoint",
    PGCONNECT_TIMEOUT: "30",
    PGCLIENTENCODING: "UTF8",
    ...(tlsFiles.ca === undefined ? {} : { PGSSLROOTCERT: tlsFiles.ca }),
    ...(tlsFiles.cert === undefined ? {} : { PGSSLCERT: tlsFiles.cert }),
    ...(tlsFiles.key === undefined ? {} : { PGSSLKEY: tlsFiles.key }),
    ...(password === undefined ? {} : { PGPASSWORD: password }),
  };
}

/** A dump that is none. */
export function failed(message: string, why: string): IntegrityError {
  return new IntegrityError({ code: "ERR_SNAPSHOT_UNVERIFIED", message, why: firstLines(why) });
}

/** The programs repeat the statement that failed; the first lines say what went wrong. */
function firstLines(text: string): string {
  return text.split("\n").slice(0, 3).join("; ").slice(0, 600);
}
