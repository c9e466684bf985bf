/** Sequences: what a job moved, and moving them forward, never back. */
import { afterOf, beforeOf, type Change, type ChangeSource } from "../../changeset/change.js";
import type { SequenceMove } from "../../target/target.js";
import { type Session, unprivileged, unsupported } from "./driver.js";
import { isOurs, literal, qualified, shownName } from "./names.js";
import type { Catalogue } from "./schema.js";
import type { Cell } from "./values.js";

/** A sequence as it stood at one moment. */
export interface SequenceState {
  readonly oid: string;
  readonly name: string;
  readonly relation: string;
  /** The last value given out; where none was, the one before the first. Null when the role may not see it. */
  readonly last: bigint | null;
  readonly increment: bigint;
}

/** All sequences of the database but ours, by name. */
export async function readSequences(session: Session): Promise<ReadonlyMap<string, SequenceState>> {
  const rows = await session.rows(
    `SELECT c.oid, n.nspname, c.relname, s.seqincrement,
       CASE WHEN has_sequence_privilege(c.oid, 'SELECT, USAGE') THEN coalesce(pg_sequence_last_value(c.oid), s.seqstart - s.seqincrement) END
     FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_' ORDER BY n.nspname, c.relname`,
  );
  const states = rows.filter(([, schema, name]) => !isOurs(schema ?? "", name ?? "")).map(stateOf);
  return new Map(states.map((s) => [s.name, s]));
}

function stateOf([oid, schema, name, increment, last]: readonly Cell[]): SequenceState {
  return {
    oid: oid ?? "",
    name: shownName(schema ?? "", name ?? ""),
    relation: qualified(schema ?? "", name ?? ""),
    last: last === null || last === undefined ? null : BigInt(last),
    increment: BigInt(increment ?? "1"),
  };
}

/**
 * What the job moved. The values of sequences that it did not use are not compared: others use them meanwhile.
 * @param used oids of the sequences that the job's transaction has locked.
 * @throws TargetError ERR_TARGET_UNSUPPORTED when it moved one back, or one that cannot be read.
 */
export function sequenceMoves(
  before: ReadonlyMap<string, SequenceState>,
  after: ReadonlyMap<string, SequenceState>,
  used: ReadonlySet<string>,
): readonly SequenceMove[] {
  return [...after.values()].flatMap((now) => {
    if (!used.has(now.oid)) return [];
    const was = before.get(now.name);
    if (now.last === null || was === undefined || was.last === null) throw unreadable(now.name);
    if (now.last === was.last) return [];
    if (!isForward(now, was.last, now.last)) throw movedBack(now.name, was.last, now.last);
    return [{ name: now.name, before: String(was.last), after: String(now.last) }];
  });
}

function isForward({ increment }: SequenceState, from: bigint, to: bigint): boolean {
  return increment > 0n ? to >= from : to <= from;
}

/**
 * Moves the sequence to where the plan saw it, unless it is there or further. A move is not taken back by a rollback,
 * which is no harm: numbers are skipped, none is given out twice.
 */
export async function moveForward(session: Session, moves: readonly SequenceMove[]): Promise<void> {
  if (moves.length === 0) return;
  const states = await readSequences(session);
  for (const { name, after } of moves) {
    const state = states.get(name);
    if (state === undefined) throw unsupported(`sequence ${name} is gone`, "the plan moves it");
    if (state.last === null) throw unreadable(name);
    if (isForward(state, BigInt(after), state.last)) continue;
    await session.run(`SELECT setval(${literal(state.relation)}::regclass, $1::bigint)`, after);
  }
}

/** A sequence and the value that it must have reached, because a row with it is written. */
export interface Covered {
  readonly relation: string;
  readonly shown: string;
  readonly value: bigint;
}

/** Sequences that feed columns of the tables with these oids: table, column, schema and name of the sequence, step. */
export const FEEDING = `SELECT t.relid, t.column, n.nspname, c.relname, s.seqincrement
  FROM (SELECT d.refobjid AS relid, a.attname AS column, d.objid AS sequence
          FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
          WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        UNION SELECT f.adrelid, a.attname, d.refobjid
          FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
          WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass) t
    JOIN pg_sequence s ON s.seqrelid = t.sequence JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE t.relid = ANY ($1::oid[])`;

/**
 * The sequences that feed columns in which rows come, with the last value among those rows. A row that comes back with its
 * number, by an undo or a rescue, must never meet that number given out once more.
 */
export async function coveredBy(
  session: Session,
  catalogue: Catalogue,
  source: ChangeSource,
): Promise<readonly Covered[]> {
  const tables = source.tables.flatMap((t) => catalogue.byName.get(t.name) ?? []);
  const covered: Covered[] = [];
  for (const [oid, column, schema, name, increment] of await session.rows(
    FEEDING,
    tables.map((t) => t.oid),
  )) {
    const table = tables.find((t) => t.oid === oid);
    const at = table?.columns.findIndex((c) => c.name === column) ?? -1;
    const value =
      table === undefined || at < 0
        ? null
        : furthest(source.changes(table.name), at, BigInt(increment ?? "1") > 0n);
    if (value === null) continue;
    const relation = qualified(schema ?? "", name ?? "");
    covered.push({ relation, shown: shownName(schema ?? "", name ?? ""), value });
  }
  return covered;
}

function furthest(changes: Iterable<Change>, column: number, isRising: boolean): bigint | null {
  let last: bigint | null = null;
  for (const change of changes) {
    const value = afterOf(change)?.[column] ?? null;
    if (typeof value !== "bigint" || value === (beforeOf(change)?.[column] ?? null)) continue;
    if (last === null || (isRising ? value > last : value < last)) last = value;
  }
  return last;
}

/**
 * Moves sequences on to where the written rows are; those that are there or further stay. Right before the commit: a batch
 * that is rolled back shall move nothing.
 * @throws TargetError ERR_TARGET_PRIVILEGE with the GRANT to ask for when the role may not read or move one.
 */
export async function cover(session: Session, covered: readonly Covered[]): Promise<void> {
  for (const { relation, shown, value } of covered) {
    const name = literal(relation);
    const [readable, movable] =
      (await session.row(
        `SELECT has_sequence_privilege(${name}, 'SELECT, USAGE'), has_sequence_privilege(${name}, 'UPDATE')`,
      )) ?? [];
    if (readable !== "t") throw unreadable(shown);
    const [last, increment, least, most] =
      (await session.row(
        `SELECT coalesce(pg_sequence_last_value(seqrelid), seqstart - seqincrement), seqincrement, seqmin, seqmax
         FROM pg_sequence WHERE seqrelid = ${name}::regclass`,
      )) ?? [];
    const isBehind =
      BigInt(increment ?? "1") > 0n ? BigInt(last ?? "0") < value : BigInt(last ?? "0") > value;
    // A number that the sequence can never give out cannot be given out twice.
    if (!isBehind || value < BigInt(least ?? "0") || value > BigInt(most ?? "0")) continue;
    if (movable !== "t") throw immovable(shown, String(value));
    await session.run(`SELECT setval(${name}::regclass, $1::bigint)`, String(value));
  }
}

function immovable(name: string, value: string): Error {
  return unprivileged(
    `the role may not move sequence ${name} on to ${value}`,
    "rows with numbers up to that one are written, and the sequence would give them out again",
    `Ask for: GRANT UPDATE ON SEQUENCE ${name} TO the role.`,
  );
}

function unreadable(name: string): Error {
  return unprivileged(
    `the role may not read sequence ${name}`,
    "whether the job moved it cannot be told",
    `Ask for: GRANT SELECT, USAGE ON SEQUENCE ${name} TO the role.`,
  );
}

function movedBack(name: string, before: bigint, after: bigint): Error {
  return unsupported(
    `the job moves the sequence ${name} back`,
    `before ${before}, after ${after}; ids that were given out once would be given out again`,
    "Leave the sequence alone.",
  );
}
