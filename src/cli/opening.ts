/** How targets are opened, and where dumps of them are restored to be looked at: a part of what `wiring.ts` puts together. */
import { randomBytes } from "node:crypto";
import { dirname } from "node:path";
import { openSqlite } from "../adapters/sqlite/index.js";
import type { Clock } from "../base/clock.js";
import { IntegrityError, isOutOfReach, UsageError } from "../base/errors.js";
import type { Value } from "../changeset/value.js";
import {
  type RehearsalConfig,
  type Config,
  type Purpose,
  resolveUrl,
  targetConfigOf,
  targetKind,
} from "../config/config.js";
import { runBounded } from "../machine/child.js";
import { variableAge } from "../machine/inherited.js";
import { postgresPrograms, programFolders } from "../machine/postgres-programs.js";
import type { Toolbox, ValueOrigin } from "../operations/toolbox.js";
import { queryFile } from "../storage/query.js";
import type { Store } from "../storage/store.js";
import type { PostgresOptions, RestoreOptions, RestorePlace } from "../adapters/postgres/index.js";
import type { Target } from "../target/target.js";

/** Variables of this process. */
type Env = Readonly<Record<string, string | undefined>>;

/** Opens a target of the configuration, with where each part of its address came from. */
export async function openTarget(
  config: Config,
  store: Store,
  { name, purpose }: { readonly name: string; readonly purpose: Purpose },
  env: Env,
  clock: Clock,
): Promise<{ readonly target: Target; readonly origins: readonly ValueOrigin[] }> {
  const { url, origins } = resolveUrl(config, name, env, purpose);
  const kind = targetKind(url, config.root);
  const { planUrl } = targetConfigOf(config, name);
  if (planUrl !== null && kind.kind !== "postgres") throw noRoles(name);
  const aged = (all: readonly ValueOrigin[]): readonly ValueOrigin[] => all.map((o) => withAge(o, env));
  const random = (size: number): Uint8Array => randomBytes(size);
  switch (kind.kind) {
    case "sqlite": {
      const { foreignKeys } = targetConfigOf(config, name);
      const scratchDir = store.changes;
      return {
        target: await openSqlite({ name, path: kind.path, foreignKeys, clock, random, scratchDir, ask }),
        origins: aged(origins),
      };
    }
    case "postgres": {
      // Its packages are optional, and no start of a command should wait for them in vain.
      const { openPostgres } = await import("../adapters/postgres/index.js");
      const limits = rehearsalOptions(targetConfigOf(config, name).rehearsal);
      const { partsFromVariables } = await import("../adapters/postgres/origins.js");
      const filled = partsFromVariables(kind.url, env).map(({ part, variable }) => ({
        part,
        from: `environment variable ${variable}, because the url names no ${part}`,
        inherited: true,
        variable,
      }));
      const isApart = purpose === "plan" && planUrl !== null;
      const writer = isApart ? { writer: writerOf(config, name, env) } : {};
      const programs = postgresPrograms(programFolders(env["PATH"]));
      const target = await openPostgres({
        name,
        url: kind.url,
        clock,
        random,
        env,
        programs,
        ...limits,
        ...writer,
      });
      return { target, origins: aged([...origins, ...filled]) };
    }
  }
}

/** Dumps are restored beside the clone that `rehearse_on` names, else on a server of our own. */
export function dumpShelf(config: Config, store: Store, env: Env, clock: Clock): Toolbox["dumps"] {
  const optionsFor = (name: string): RestoreOptions => ({
    name,
    clock,
    env,
    random: (size) => randomBytes(size),
    programs: postgresPrograms(programFolders(env["PATH"])),
    // A restored dump has no other reader, and one of its tables may take long.
    statementTimeoutMs: 24 * 3_600_000,
  });
  const placeFor = async (of: string, folder: string): Promise<RestorePlace> => {
    const { rehearseOn: name } = targetConfigOf(config, of);
    if (name === null) return { kind: "own", folder };
    await assertElsewhere(config, store, { of, clone: name }, env, clock);
    return { kind: "server", name, url: resolveUrl(config, name, env).url };
  };
  return {
    assertRestorable: async (of) => {
      const { assertRestorable } = await import("../adapters/postgres/index.js");
      await assertRestorable(await placeFor(of, store.changes), optionsFor(of));
    },
    open: async (path, of, facts) => {
      const { openRestored } = await import("../adapters/postgres/index.js");
      return await openRestored({ path, facts }, await placeFor(of, dirname(path)), optionsFor(of));
    },
  };
}

/** A restore is heavy work: it is never done on the server that the dump is of. */
async function assertElsewhere(
  config: Config,
  store: Store,
  { of, clone }: { readonly of: string; readonly clone: string },
  env: Env,
  clock: Clock,
): Promise<void> {
  const { serverOf } = await import("../adapters/postgres/index.js");
  const runningAt = async (name: string): Promise<string | undefined> => {
    const { target } = await openTarget(config, store, { name, purpose: "plan" }, env, clock);
    try {
      return serverOf((await target.identify()).instance);
    } finally {
      await target.close();
    }
  };
  const there = await runningAt(clone);
  const here = await runningAt(of).catch((e: unknown) => {
    if (isOutOfReach(e)) return null; // gone, and then nothing is done to it
    throw e;
  });
  if (here === null || (there !== undefined && there !== here)) return;
  throw new IntegrityError({
    code: "ERR_SNAPSHOT_UNVERIFIED",
    message: "a dump could not be verified here: there is no place to restore it to",
    why: `${clone} (rehearse_on) lies on the server of ${of} itself, which a restore would load`,
    next: [{ actor: "dba", text: `Move ${clone} to a server of its own, or take --snapshot tables.` }],
  });
}

function noRoles(name: string): UsageError {
  return new UsageError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `${name} has a plan_url, and is no kind of target that has roles`,
    why: "plan_url names a second role of the same PostgreSQL database",
  });
}

/** The address by which plans are written, where this machine has it: the role in it is named in advice. Never connected to. */
function writerOf(config: Config, name: string, env: Env): string | null {
  try {
    return resolveUrl(config, name, env, "write").url;
  } catch (e) {
    if (isOutOfReach(e)) return null;
    throw e;
  }
}

/** A variable says of itself how long it has been set; what stands in a file needs no age. */
function withAge(origin: ValueOrigin & { readonly variable?: string }, env: Env): ValueOrigin {
  const { variable, ...shown } = origin;
  const name = variable ?? /^\$\{(.*)\}$/.exec(origin.part)?.[1];
  const value = name === undefined ? undefined : env[name];
  if (!origin.inherited || name === undefined || value === undefined) return shown;
  return { ...shown, age: variableAge(name, value, process.ppid) };
}

/** The first cell of an answer; one row is all that is read. */
async function ask(path: string, sql: string, maxMs: number): Promise<Value> {
  const { rows } = await queryFile(path, sql, { maxRows: 1, maxMs }, runBounded);
  return rows[0]?.[0] ?? null;
}

function rehearsalOptions(
  c: RehearsalConfig,
): Pick<PostgresOptions, "limits" | "lockTimeoutMs" | "statementTimeoutMs"> {
  return {
    limits: {
      ...(c.rows === undefined ? {} : { rows: c.rows }),
      ...(c.walMb === undefined ? {} : { walBytes: c.walMb * 2 ** 20 }),
      ...(c.replicaLagSeconds === undefined ? {} : { lagMs: c.replicaLagSeconds * 1000 }),
    },
    ...(c.lockWaitSeconds === undefined ? {} : { lockTimeoutMs: c.lockWaitSeconds * 1000 }),
    ...(c.statementSeconds === undefined ? {} : { statementTimeoutMs: c.statementSeconds * 1000 }),
  };
}
