/**
 * Dumps restored into a database of their own, on the server of a clone or on one that is started for it, and held
 * against what was counted when they were made.
 */
import { rmSync, writeFileSync } from "node:fs";
import type { Random } from "../../base/clock.js";
import { IntegrityError, messageOf } from "../../base/errors.js";
import { type DumpFacts, misfitOf } from "../../target/dump.js";
import type { Address } from "./address.js";
import { type Connecting, openSession } from "./driver.js";
import { countAll, failed, type Programs, withLibpq } from "./dump.js";
import { literal, quote } from "./names.js";

/** Where a dump is restored to be looked at: a database of its own on the server of a clone, or a server of our own. */
export type DumpPlace =
  | { readonly kind: "server"; readonly name: string; readonly connecting: Connecting }
  | { readonly kind: "own"; readonly folder: string };

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
    const may = await session.value(
      "SELECT rolcreatedb OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user",
    );
    if (may !== "t")
      throw unverifiable(
        `its role may make no database on the server of ${place.name}, where a dump would be restored`,
        `Ask for: ALTER ROLE ${quote(place.connecting.address.user)} CREATEDB;`,
      );
  } finally {
    await session.close();
  }
}

/** A restored dump: how to connect to it, and how to take it away again. */
export interface Restored {
  readonly connecting: Connecting;
  readonly remove: () => Promise<void>;
}

/** How a scratch database is connected to, and named. */
export interface RestoreSetting {
  readonly base: Omit<Connecting, "address">;
  readonly random: Random;
}

/**
 * Restores a dump into a fresh database and holds every table's rows against what was counted.
 * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED (36); then nothing is left of it.
 */
export async function restore(
  programs: Programs,
  place: DumpPlace,
  dumped: { readonly path: string; readonly facts: DumpFacts },
  setting: RestoreSetting,
): Promise<Restored> {
  const made = await scratchDatabase(programs, place, { ...setting, facts: dumped.facts });
  try {
    const { address } = made.connecting;
    await pgRestore(programs, made.folder, dumped.path, address);
    const session = await openSession(made.connecting, true);
    try {
      await session.set({ statement_timeout: "0" }, false);
      const why = misfitOf(dumped.facts, (await countAll(session)).counts);
      if (why !== undefined) throw failed("the dump does not hold what was counted beside it", why);
    } finally {
      await session.close();
    }
    return made;
  } catch (e) {
    await made.remove();
    throw e;
  }
}

/**
 * Owners, rights and what acts by itself or reaches another server are no part of the rows, and name roles that a scratch
 * server does not have: they stay in the dump and are not tried.
 */
const NOT_TRIED =
  /^\d+; \d+ \d+ (POLICY|PUBLICATION|PUBLICATION TABLE|PUBLICATION TABLES IN SCHEMA|SUBSCRIPTION|SUBSCRIPTION TABLE|USER MAPPING|EVENT TRIGGER) /;

async function pgRestore(programs: Programs, folder: string, path: string, address: Address): Promise<void> {
  const program = `${folder}/pg_restore`;
  const listed = await programs.run(program, ["--list", path], {});
  if (!listed.ok) throw failed("pg_restore cannot read the dump", listed.why);
  const lines = listed.output.split("\n");
  const list = `${path}.list`;
  writeFileSync(list, lines.filter((line) => !NOT_TRIED.test(line)).join("\n"), { mode: 0o600, flag: "wx" });
  try {
    const options = ["--exit-on-error", "--no-owner", "--no-privileges", "--no-comments", "--no-password"];
    const where = [`--use-list=${list}`, `--dbname=${address.database}`, path];
    const ended = await withLibpq(address, path, (env) => programs.run(program, [...options, ...where], env));
    if (!ended.ok) throw failed("pg_restore could not restore the dump", ended.why);
  } finally {
    rmSync(list, { force: true });
  }
}

/** A fresh, empty database, and the folder with the programs that fill it. */
async function scratchDatabase(
  programs: Programs,
  place: DumpPlace,
  given: RestoreSetting & { readonly facts: DumpFacts },
): Promise<Restored & { readonly folder: string }> {
  const major = Number(/\(PostgreSQL\) (\d+)/.exec(given.facts.program)?.[1] ?? 0);
  const database = `holdpoint_scratch_${Buffer.from(given.random(8)).toString("hex")}`;
  if (place.kind === "server") {
    const { folder } = await fitting(programs, ["pg_restore"], major);
    const connecting = { ...place.connecting, address: within(place.connecting.address, database) };
    await make(place.connecting, database, given.facts.encoding);
    return { connecting, folder, remove: () => drop(place.connecting, database) };
  }
  const { folder } = await ownPrograms(programs, major);
  const server = await started(programs, folder, place.folder);
  try {
    const base = { ...given.base, address: ownAddress(server.host, server.user) };
    await make(base, database, given.facts.encoding);
    const connecting = { ...base, address: within(base.address, database) };
    return { connecting, folder, remove: server.stop };
  } catch (e) {
    await server.stop();
    throw e;
  }
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

async function make(connecting: Connecting, database: string, encoding: string): Promise<void> {
  const session = await openSession(connecting, true);
  try {
    // Sorted by bytes: an order of the original's that this system lacks must not stand in the way.
    const how = `TEMPLATE template0 ENCODING ${literal(encoding)} LC_COLLATE 'C' LC_CTYPE 'C'`;
    await session.run(`CREATE DATABASE ${quote(database)} ${how}`);
  } finally {
    await session.close();
  }
}

async function drop(connecting: Connecting, database: string): Promise<void> {
  const session = await openSession(connecting, true);
  try {
    await session.run(`DROP DATABASE IF EXISTS ${quote(database)} WITH (FORCE)`);
  } finally {
    await session.close();
  }
}

function within(address: Address, database: string): Address {
  return { ...address, database, shown: `${database} beside ${address.shown}` };
}

function ownAddress(host: string, user: string): Address {
  const shown = "a scratch server";
  const none = { password: undefined, whyNoPassword: "", tls: "disable", tlsFiles: {}, origins: [] } as const;
  return { host, port: 5432, user, database: "postgres", shown, ...none };
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
