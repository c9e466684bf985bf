/**
 * Dumps restored into a database of their own (`scratch.ts`), and held against what was counted when they were made.
 */
import { rmSync, writeFileSync } from "node:fs";
import { type DumpFacts, misfitOf } from "../../target/dump.js";
import { type Connecting, openSession } from "./driver.js";
import { countAll, failed, type Programs, withLibpq } from "./dump.js";
import { type DumpPlace, handOver, type Scratch, scratchDatabase, type ScratchSetting } from "./scratch.js";

/** A restored dump: how to connect to it, and how to take it away again. */
export interface Restored {
  readonly connecting: Connecting;
  readonly remove: () => Promise<void>;
}

/**
 * Restores a dump into a fresh database and holds every table's rows against what was counted.
 * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED (36); then nothing is left of it.
 */
export async function restore(
  programs: Programs,
  place: DumpPlace,
  dumped: { readonly path: string; readonly facts: DumpFacts },
  setting: ScratchSetting,
): Promise<Restored> {
  const made = await scratchDatabase(programs, place, dumped.facts, setting);
  try {
    await fill(programs, made, dumped.path);
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
    // What went wrong first is what is told; a database that is still there goes with the next restore.
    await made.remove().catch(() => undefined);
    throw e;
  }
}

/**
 * Owners, rights and what acts by itself or reaches another server are no part of the rows, and name roles that a scratch
 * server does not have: they stay in the dump and are not tried. A materialized view runs its query when it is filled.
 */
const NOT_TRIED =
  /^\d+; \d+ \d+ (POLICY|PUBLICATION|PUBLICATION TABLE|PUBLICATION TABLES IN SCHEMA|SUBSCRIPTION|SUBSCRIPTION TABLE|USER MAPPING|EVENT TRIGGER|MATERIALIZED VIEW DATA) /;
const EXTENSION = /^\d+; \d+ \d+ EXTENSION /;
/** An extension may want a schema that is there. */
const OF_SUPERUSER = /^\d+; \d+ \d+ (SCHEMA|EXTENSION) /;

async function fill(programs: Programs, made: Scratch, path: string): Promise<void> {
  const listed = await programs.run(`${made.folder}/pg_restore`, ["--list", path], {});
  if (!listed.ok) throw failed("pg_restore cannot read the dump", listed.why);
  const lines = listed.output.split("\n").filter((line) => !NOT_TRIED.test(line));
  if (made.superuser === null || !lines.some((line) => EXTENSION.test(line))) {
    await pgRestore(programs, made, made.connecting, path, lines);
    return;
  }
  // Nothing of the dump's own runs in this first part: what makes an extension comes from this machine.
  await pgRestore(
    programs,
    made,
    made.superuser,
    path,
    lines.filter((line) => OF_SUPERUSER.test(line)),
  );
  await handOver(made.superuser);
  await pgRestore(
    programs,
    made,
    made.connecting,
    path,
    lines.filter((line) => !OF_SUPERUSER.test(line)),
  );
}

const OPTIONS = [
  "--exit-on-error",
  "--no-owner",
  "--no-privileges",
  "--no-comments",
  "--no-security-labels",
  "--no-tablespaces",
  "--no-password",
] as const;

async function pgRestore(
  programs: Programs,
  { folder }: Scratch,
  { address }: Connecting,
  path: string,
  lines: readonly string[],
): Promise<void> {
  const list = `${path}.list`;
  writeFileSync(list, lines.join("\n"), { mode: 0o600, flag: "wx" });
  try {
    const where = [`--use-list=${list}`, `--dbname=${address.database}`, path];
    const ended = await withLibpq(address, path, (env) =>
      programs.run(`${folder}/pg_restore`, [...OPTIONS, ...where], env),
    );
    if (!ended.ok) throw failed("pg_restore could not restore the dump", ended.why);
  } finally {
    rmSync(list, { force: true });
  }
}
