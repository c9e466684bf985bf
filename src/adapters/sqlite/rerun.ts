/**
 * Whether a program does the same each time. It runs once more, on a copy of its own, and what the two runs left behind is
 * compared by the engine, so that the cost is that of the run and of the rows that differ.
 *
 * | a row that the runs left different | told as |
 * | --- | --- |
 * | both runs wrote it | columns that differ from run to run |
 * | one run wrote it, the other left it alone | which rows change differs from run to run |
 * | only one run has it; any in a table without a key | the same |
 */
import { setTimeout as after } from "node:timers/promises";
import { canonical } from "../../base/canonical.js";
import type { Clock } from "../../base/clock.js";
import { UsageError } from "../../base/errors.js";
import { afterOf, type Change, countOf, type TableShape } from "../../changeset/change.js";
import { type Row, sameRow } from "../../changeset/value.js";
import { sameShape } from "../../changeset/well-formed.js";
import type { Again, Volatile } from "../../target/target.js";
import { isUnheld, sharedShape, type Side, tableNames } from "./compare.js";
import { attachBefore, compareCopies } from "./compare-copies.js";
import { fold } from "./names.js";
import { readerFor } from "./read.js";
import { readObjects } from "./schema.js";

/** A run that took longer is not repeated unless somebody asked for it. */
const QUICK_MS = 60_000;

/** What a second run found. */
export interface RerunFacts {
  readonly volatile: readonly Volatile[];
  readonly notices: readonly string[];
}

/**
 * Runs the program once more where that is asked for; `run` answers with the database that it left. Null where it did not
 * come to that, with what a reader should know of it. It begins in a later second than the one in which the first run ended, else two runs within one second
 * would agree about the time.
 * @throws whatever the run throws, but for a job that fails: then it does not do the same each time.
 */
export async function runAgain(
  again: Again | undefined,
  tookMs: number,
  clock: Clock,
  run: () => Promise<string>,
): Promise<{ readonly path: string | null; readonly notices: readonly string[] }> {
  if (again === undefined) return { path: null, notices: [] };
  if (again === "never") return { path: null, notices: [`run once: ${NOT_LOOKED_FOR}`] };
  if (again === "if-quick" && tookMs > QUICK_MS) {
    const seconds = Math.round(tookMs / 1000);
    return { path: null, notices: [`run once, because it took ${seconds} s: ${NOT_LOOKED_FOR}`] };
  }
  await after(SECOND_MS + TIMER_MS - (clock.now().getTime() % SECOND_MS));
  try {
    return { path: await run(), notices: [] };
  } catch (e) {
    return { path: null, notices: [failedAgain(e)] };
  }
}

const NOT_LOOKED_FOR = "values that differ from run to run were not looked for";
const SECOND_MS = 1000;
/** A timer may end a little early by another clock. */
const TIMER_MS = 5;

/** The notice for a second run that failed. @throws what it is given, where that is no failure of the job. */
export function failedAgain(e: unknown): string {
  if (!(e instanceof UsageError) || e.code !== "ERR_JOB_FAILED") throw e;
  return "the job failed when it was run a second time: it does not do the same each time";
}

/**
 * What differs between two runs that both began with `before`. Attaches the first's database to the second's connection.
 * `look` is called for each change of the second run that the first did not make.
 */
export function compareRuns(
  before: Side,
  first: Side,
  second: Side,
  look: (shape: TableShape, change: Change) => void,
): RerunFacts {
  attachBefore(first.connection, second.connection);
  const volatile: Volatile[] = [];
  const notices: string[] = [];
  for (const name of tableNames(first.catalogue, second.catalogue)) {
    const shape = sharedShape(name, first, second);
    if (shape === null || isUnheld(name, first, second)) continue;
    const differing = new Differing(shape, baseOf(before, shape), look);
    for (const change of compareCopies(name, first, second)) differing.see(change);
    volatile.push(...differing.volatile());
    notices.push(...differing.notices());
  }
  if (canonical(objects(first)) !== canonical(objects(second)))
    notices.push("the schema that the job leaves differs from run to run");
  return { volatile, notices };
}

/** The row of a key before either run, where keys tell rows apart. */
function baseOf(before: Side, shape: TableShape): (change: Change) => Row | null {
  const info = before.catalogue.byName.get(fold(shape.name));
  if (info === undefined || shape.keyKind === "none" || !sameShape(info.shape, shape)) return () => null;
  const reader = readerFor(before.connection, before.catalogue, info);
  return ({ key }) => reader.byKey(shape, key)?.row ?? null;
}

function objects({ connection }: Side): readonly (readonly (string | null)[])[] {
  return readObjects(connection).map((o) => [o.type, o.name, o.table, o.sql]);
}

/** What is counted of one table. */
class Differing {
  readonly #shape: TableShape;
  readonly #base: (change: Change) => Row | null;
  readonly #look: (shape: TableShape, change: Change) => void;
  readonly #columns: number[];
  #rows = 0;

  constructor(
    shape: TableShape,
    base: (change: Change) => Row | null,
    look: (shape: TableShape, change: Change) => void,
  ) {
    this.#shape = shape;
    this.#base = base;
    this.#look = look;
    this.#columns = shape.columns.map(() => 0);
  }

  /** A change from what the first run left to what the second left. */
  see(change: Change): void {
    const base = this.#base(change);
    if (!sameRow(base, afterOf(change))) this.#look(this.#shape, change);
    if (change.op !== "update" || (base !== null && sameRow(base, change.before)))
      this.#rows += countOf(change);
    else if (base !== null && sameRow(base, change.after)) this.#rows++;
    else this.#columns.forEach((n, i) => (this.#columns[i] = n + (differs(change, i) ? 1 : 0)));
  }

  volatile(): readonly Volatile[] {
    return this.#shape.columns.flatMap(({ name }, i) => {
      const rows = this.#columns[i] ?? 0;
      return rows === 0 ? [] : [{ table: this.#shape.name, column: name, rows }];
    });
  }

  notices(): readonly string[] {
    if (this.#rows === 0) return [];
    const rows = `${this.#rows} ${this.#rows === 1 ? "row" : "rows"}`;
    return [`${this.#shape.name}: which rows change differs from run to run, written as signed, ${rows}`];
  }
}

function differs(change: Extract<Change, { readonly op: "update" }>, column: number): boolean {
  return !sameRow([change.before[column] ?? null], [change.after[column] ?? null]);
}
