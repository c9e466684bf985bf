/**
 * References of written rows, checked by ourselves where the engine's own checks are silent with the triggers: in both
 * directions, for the written keys alone. What was broken before we came is not ours to judge.
 *
 * Parents that a written row refers to are locked against deletion until the commit, as the engine's check does; a parent
 * that was deleted is locked by its deletion, so that nobody can begin to refer to it.
 */
import { afterOf, beforeOf, type Change, type ChangeSource } from "../../changeset/change.js";
import { sameRow, type Row } from "../../changeset/value.js";
import type { WriteProblem } from "../../target/target.js";
import type { Session } from "./driver.js";
import { quote } from "./names.js";
import { batches, unnested } from "./read.js";
import type { Catalogue, ColumnInfo, ForeignKey, TableInfo } from "./schema.js";
import { columnOf, toCell } from "./values.js";

const BATCH = 1_000;
/**
 * How many broken references are named; beyond that a number says enough. A rescue leaves out the rows that are named and
 * writes all others once more, so what is named at a time must not be few.
 */
const NAMED = 10_000;

interface Ends {
  readonly key: ForeignKey;
  readonly child: TableInfo;
  readonly parent: TableInfo;
}

/** Finds the references that the written changes broke. Everything must be written by now. */
export async function brokenReferences(
  session: Session,
  catalogue: Catalogue,
  source: ChangeSource,
): Promise<readonly WriteProblem[]> {
  const problems: WriteProblem[] = [];
  for (const key of catalogue.foreignKeys) {
    const [child, parent] = [catalogue.byName.get(key.child), catalogue.byName.get(key.parent)];
    if (child === undefined || parent === undefined) continue;
    const check = new ReferenceCheck(session, { key, child, parent });
    if (isWritten(source, child)) problems.push(...(await check.children(source.changes(child.name))));
    if (isWritten(source, parent)) problems.push(...(await check.parents(source.changes(parent.name))));
  }
  if (problems.length <= NAMED) return problems;
  const message = `and ${problems.length - NAMED} more broken references`;
  return [...problems.slice(0, NAMED), { kind: "foreign-key", table: "", message }];
}

function isWritten(source: ChangeSource, table: TableInfo): boolean {
  return source.tables.some((t) => t.name === table.name);
}

class ReferenceCheck {
  readonly #session: Session;
  readonly #ends: Ends;

  constructor(session: Session, ends: Ends) {
    this.#session = session;
    this.#ends = ends;
  }

  /** Rows that began to refer to something: it must be there. */
  async children(changes: Iterable<Change>): Promise<readonly WriteProblem[]> {
    const problems: WriteProblem[] = [];
    for (const batch of batches(this.#references(changes), BATCH)) {
      const causes = new Map(batch.map((r) => [r.values, r.change]));
      const partly = batch.filter((r) => r.values.includes(null));
      const whole = batch.flatMap((r) => (r.values.includes(null) ? [] : [r.values]));
      for (const values of await this.#withoutParent(whole, "child"))
        problems.push(this.#problem(values, "has no row in", causes.get(values)));
      // MATCH FULL: all of the reference or nothing of it.
      for (const { values, change } of partly)
        problems.push(this.#problem(values, "refers only partly to", change));
    }
    return problems;
  }

  /** Keys that went away: nobody may refer to them any more. */
  async parents(changes: Iterable<Change>): Promise<readonly WriteProblem[]> {
    const problems: WriteProblem[] = [];
    for (const batch of batches(this.#goneKeys(changes), BATCH)) {
      const orphaned = await this.#orphaned(await this.#withoutParent(batch, "parent"));
      problems.push(...orphaned.map((v) => this.#problem(v, "still refers to a row that is gone from")));
    }
    return problems;
  }

  *#references(
    changes: Iterable<Change>,
  ): Generator<{ readonly change: Change; readonly values: Row }, undefined> {
    const { from } = this.#ends.key;
    for (const change of changes) {
      const [was, is] = [cells(beforeOf(change), from), cells(afterOf(change), from)];
      if (is === null || sameRow(was, is) || is.every((v) => v === null)) continue;
      if (!is.includes(null) || this.#ends.key.isFull) yield { change, values: is };
    }
  }

  *#goneKeys(changes: Iterable<Change>): Generator<Row, undefined> {
    const { to } = this.#ends.key;
    for (const change of changes) {
      const [was, is] = [cells(beforeOf(change), to), cells(afterOf(change), to)];
      if (was !== null && !sameRow(was, is) && !was.includes(null)) yield was;
    }
  }

  /**
   * Of these values those that no parent has; the parents that are there are locked. The values have the types of the
   * side they come from, so that nothing has to be converted that may not fit.
   */
  async #withoutParent(values: readonly Row[], from: "child" | "parent"): Promise<readonly Row[]> {
    if (values.length === 0) return [];
    const { parent, child, key } = this.#ends;
    const [table, columns, operators] =
      from === "child" ? [child, key.from, key.operators] : [parent, key.to, key.parentOperators];
    const same = key.to.map((column, i) => `p.${name(parent, column)} ${operators[i] ?? "="} k.k${i}`);
    const sql = `SELECT k.n FROM ${this.#values(table, columns)} JOIN ${parent.from} AS p ON ${same.join(" AND ")}
      ORDER BY k.n FOR KEY SHARE OF p`;
    const found = new Set(
      (await this.#session.rows(sql, ...this.#parameters(values))).map((r) => Number(r[0])),
    );
    return values.filter((_, i) => !found.has(i + 1));
  }

  async #orphaned(values: readonly Row[]): Promise<readonly Row[]> {
    if (values.length === 0) return [];
    const { child, key, parent } = this.#ends;
    const matches = key.from.map(
      (column, i) => `k.k${i} ${key.operators[i] ?? "="} c.${name(child, column)}`,
    );
    const sql = `SELECT DISTINCT k.n FROM ${this.#values(parent, key.to)} JOIN ${child.from} AS c ON ${matches.join(" AND ")} ORDER BY k.n`;
    const rows = await this.#session.rows(sql, ...this.#parameters(values));
    return rows.flatMap((r) => values.slice(Number(r[0]) - 1, Number(r[0])));
  }

  #values(table: TableInfo, columns: readonly number[]): string {
    const infos = columns.flatMap((i): readonly ColumnInfo[] => table.columns.slice(i, i + 1));
    return unnested(
      infos,
      infos.map((_, i) => `k${i}`),
      1,
    );
  }

  #parameters(values: readonly Row[]): ReturnType<typeof columnOf>[] {
    return this.#ends.key.to.map((_, i) => columnOf(values, i));
  }

  #problem(values: Row, what: string, change?: Change): WriteProblem {
    const { child, parent, key } = this.#ends;
    const shown = key.from
      .map((c, i) => `${child.columns[c]?.name ?? ""} ${toCell(values[i] ?? null) ?? "NULL"}`)
      .join(", ");
    const message = `${child.name}: ${shown} ${what} ${parent.name}`;
    return { kind: "foreign-key", table: child.name, message, ...(change === undefined ? {} : { change }) };
  }
}

function cells(row: Row | null, columns: readonly number[]): Row | null {
  return row === null ? null : columns.map((i) => row[i] ?? null);
}

function name(table: TableInfo, column: number): string {
  return quote(table.columns[column]?.name ?? "");
}
