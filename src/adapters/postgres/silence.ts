/**
 * Writing rows without setting off what reacts to writes: triggers and cascades took effect at the rehearsal, and are
 * part of the signed rows.
 *
 * | what stands on the written tables | how rows are written |
 * | --- | --- |
 * | no trigger, no rule, no reference that acts | directly; the engine checks foreign keys itself |
 * | any of these, and the role may set `session_replication_role` | with it set to `replica` for the transaction, which also switches the engine's foreign keys off: then each written reference is checked by ourselves |
 * | a trigger or rule that fires in that mode too (ENABLE ALWAYS, ENABLE REPLICA) | refused |
 * | any of these, and the role may not | refused, with the GRANT to ask for |
 *
 * Never `DISABLE TRIGGER`: it locks the table, and others would write without their triggers meanwhile.
 */
import type { TargetError } from "../../base/errors.js";
import { type Session, unprivileged, unsupported } from "./driver.js";
import { quote, shownName } from "./names.js";
import type { Catalogue } from "./schema.js";

/** What reacts to writes of the given tables. */
export interface Reactions {
  /** In words: `trigger audit on orders`. */
  readonly all: readonly string[];
  /** Those that replica mode does not silence. */
  readonly always: readonly string[];
}

const TRIGGERS = `SELECT 'trigger', n.nspname, c.relname, t.tgname, t.tgenabled,
    coalesce(pg_partition_root(c.oid)::oid, c.oid)
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
  UNION ALL
  SELECT 'rule', n.nspname, c.relname, r.rulename, r.ev_enabled, c.oid
  FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND r.rulename <> '_RETURN' AND r.ev_enabled <> 'D'`;

/** Looks up what reacts to writes of these tables (names as in plans). */
export async function reactionsOf(
  session: Session,
  catalogue: Catalogue,
  tables: ReadonlySet<string>,
): Promise<Reactions> {
  const oids = new Set(catalogue.tables.filter((t) => tables.has(t.name)).map((t) => t.oid));
  const found = (await session.rows(TRIGGERS))
    .filter((row) => oids.has(row[5] ?? ""))
    .map(([kind, schema, relation, name, enabled]) => ({
      words: `${kind ?? ""} ${name ?? ""} on ${shownName(schema ?? "", relation ?? "")}`,
      isAlways: enabled === "A" || enabled === "R",
    }));
  const acting = catalogue.foreignKeys
    .filter((f) => f.acts && tables.has(f.parent))
    .map((f) => `foreign key ${f.name} on ${f.child}, which acts when ${f.parent} changes`);
  return {
    all: [...found.map((f) => f.words), ...acting],
    always: found.filter((f) => f.isAlways).map((f) => f.words),
  };
}

/** Whether a role, the session's own when none is named, may switch to replica mode. A role that does not exist may not. */
export async function maySilence(session: Session, role?: string): Promise<boolean> {
  const superuser = await session.value(
    "SELECT rolsuper FROM pg_roles WHERE rolname = coalesce($1::name, current_user)",
    role ?? null,
  );
  if (superuser !== "f") return superuser === "t";
  // Up to version 14 only a superuser may; there is no such function there.
  if (Number(await session.value("SELECT current_setting('server_version_num')")) < 150_000) return false;
  const may = await session.value(
    "SELECT has_parameter_privilege(coalesce($1::name, current_user), 'session_replication_role', 'SET')",
    role ?? null,
  );
  return may === "t";
}

/**
 * Makes the open transaction silent, if the tables need it.
 * @returns whether the engine's own foreign keys are off now.
 * @throws TargetError ERR_TARGET_UNSUPPORTED when it cannot be done, naming what to ask for.
 */
export async function silence(
  session: Session,
  catalogue: Catalogue,
  tables: ReadonlySet<string>,
): Promise<boolean> {
  const reactions = await reactionsOf(session, catalogue, tables);
  if (reactions.all.length === 0) return false;
  if (reactions.always.length > 0) throw firesAlways(reactions.always);
  refuseOverTime(catalogue, tables);
  if (!(await maySilence(session))) throw notGranted(reactions.all, await roleOf(session));
  await session.set({ session_replication_role: "replica" }, true);
  return true;
}

/** In replica mode references are checked by ourselves, row against row, which these are not. */
function refuseOverTime(catalogue: Catalogue, tables: ReadonlySet<string>): void {
  const key = catalogue.foreignKeys.find(
    (k) => k.isOverTime && (tables.has(k.child) || tables.has(k.parent)),
  );
  if (key === undefined) return;
  throw unsupported(
    `the foreign key ${key.name} on ${key.child} refers to a time (PERIOD) and could not be checked`,
    "triggers must stay silent while these rows are written, and with them the engine's own check",
    "Run this change with your migration tool.",
  );
}

/**
 * What a plan should say already, because another role may apply it.
 * @param writer that role, where the configuration keeps one apart; null where its name is not known here, undefined where
 * the session's own role applies.
 */
export async function silenceNotices(
  session: Session,
  catalogue: Catalogue,
  tables: ReadonlySet<string>,
  writer?: string | null,
): Promise<readonly string[]> {
  const reactions = await reactionsOf(session, catalogue, tables);
  if (reactions.always.length > 0) return [firesAlways(reactions.always).message];
  if (reactions.all.length === 0) return [];
  if (writer === null)
    return [
      `to apply this, the role that writes needs ${grantFor("it")}: ${some(reactions.all)} must stay silent`,
    ];
  if (await maySilence(session, writer)) return [];
  const role = writer === undefined ? await roleOf(session) : quote(writer);
  return [`to apply this, the role needs ${grantFor(role)}: ${some(reactions.all)} must stay silent`];
}

async function roleOf(session: Session): Promise<string> {
  return (await session.value("SELECT quote_ident(current_user)")) ?? "";
}

function grantFor(role: string): string {
  return `GRANT SET ON PARAMETER session_replication_role TO ${role}`;
}

function notGranted(reactions: readonly string[], role: string): TargetError {
  return unprivileged(
    `${some(reactions)} would take effect a second time`,
    "their effect is part of the signed rows, and the role may not keep them silent",
    `Ask a superuser for: ${grantFor(role)} (PostgreSQL 15 or newer; before that only a superuser can apply this plan).`,
  );
}

function firesAlways(reactions: readonly string[]): TargetError {
  return unsupported(
    `${some(reactions)} cannot be kept silent`,
    "it is enabled ALWAYS or REPLICA, so it fires even for rows that are written as a replica",
    "Run this change with your migration tool, or have the trigger enabled the ordinary way.",
  );
}

function some(words: readonly string[]): string {
  const more = words.length - 3;
  return `${words.slice(0, 3).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}
