/** Sequences: what a job moved, and moving them forward, never back. */
import type { SequenceMove } from "../../target/target.js";
import { type Session, unsupported } from "./driver.js";
import { isOurs, literal, qualified, shownName } from "./names.js";
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

function unreadable(name: string): Error {
  return unsupported(
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
