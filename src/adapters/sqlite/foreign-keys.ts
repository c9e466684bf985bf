/**
 * References of written rows, checked by ourselves: in both directions, for the written keys alone. The
 * engine's own `foreign_key_check` reads whole tables, and would report what was broken before we came.
 */
import { afterOf, beforeOf, type Change } from "../../changeset/change.js";
import { sameRow, type Row, type Value } from "../../changeset/value.js";
import type { WriteProblem } from "../../target/target.js";
import type { Connection } from "./driver.js";
import { fold, main, quote } from "./names.js";
import type { Catalogue, ForeignKey, TableInfo } from "./schema.js";
import type { ChangesInFile } from "./stored-rows.js";
import { bound, placeholder } from "./values.js";

/**
 * How many broken references are named; beyond that a number says enough. A rescue leaves out the rows that are named and
 * writes all others once more, so what is named at a time must not be few.
 */
const NAMED = 10_000;

interface Reference {
  readonly child: TableInfo;
  readonly parent: TableInfo | null;
  readonly parentName: string;
  readonly from: readonly number[];
  readonly to: readonly number[];
  /** Temporary table of parent keys that went away; made when the first one does. */
  readonly gone: string;
}

/**
 * Finds the references that written changes broke. A temporary table is its notebook, so memory stays flat.
 * The connection's transaction is the caller's.
 */
export class ForeignKeyCheck {
  readonly #connection: Connection;
  readonly #references: readonly Reference[];
  readonly #gone = new Set<string>();
  readonly #problems: WriteProblem[] = [];
  #more = 0;

  constructor(connection: Connection, catalogue: Catalogue) {
    this.#connection = connection;
    const all = catalogue.tables.flatMap((child) => child.foreignKeys.map((key) => ({ child, key })));
    this.#references = all.map(({ child, key }, i) => referenceOf(catalogue, child, key, i));
  }

  /** Whether any reference leads from or to the table: else its changes need not be looked at. */
  concerns(table: string): boolean {
    return this.#references.some((r) => isTable(r.child, table) || isTable(r.parent, table));
  }

  /**
   * Looks at one change. Everything must be written by now: whether the row that is left has its parents is
   * asked at once; keys that went away are noted, and {@link ForeignKeyCheck.problems} asks who refers to them.
   */
  look(change: Change): void {
    const [before, after] = [beforeOf(change), afterOf(change)];
    for (const reference of this.#references) {
      if (after !== null && isTable(reference.child, change.table))
        this.#lookUp(reference, change, before, after);
      if (before !== null && isTable(reference.parent, change.table))
        this.#noteGone(reference, before, after);
    }
  }

  /**
   * {@link ForeignKeyCheck.look} for all changes of a table at once, where they lie in a file and none leaves a row without
   * its parents. False where one might, or the engine cannot tell: then they are looked at one by one, which says which.
   */
  lookInFile(table: string, file: ChangesInFile): boolean {
    const { within } = file;
    const any = (condition: string): boolean =>
      this.#connection.value(
        `SELECT EXISTS (SELECT 1 FROM ${file.from} WHERE ${within.sql} AND ${condition})`,
        ...within.values,
      ) === 1n;
    if (any("c.exact IS NOT NULL")) return false;
    for (const { parent, from, to } of this.#references.filter((r) => isTable(r.child, table))) {
      const after = from.map((column) => file.cell("after", column));
      const written = `NOT ${file.is("delete")} AND ${after.map((cell) => `${cell} IS NOT NULL`).join(" AND ")}
        AND (${file.is("insert")} OR ${anyDiffers(file, from)})`;
      if (parent === null) {
        if (any(written)) return false;
        continue;
      }
      // `+` leaves the comparison to the parent's affinity and collation, as the engine's own check does.
      const has = to.map((column, i) => `p.${quote(nameOf(parent, column))} = +${after[i] ?? "NULL"}`);
      const orphan = `${written} AND NOT EXISTS (SELECT 1 FROM ${main(parent.name)} AS p WHERE ${has.join(" AND ")})`;
      if (has.length === 0 || !this.#searches(file, orphan) || any(orphan)) return false;
    }
    for (const reference of this.#references.filter((r) => isTable(r.parent, table))) {
      const before = reference.to.map((column) => file.cell("before", column));
      const went = `NOT ${file.is("insert")} AND ${before.map((cell) => `${cell} IS NOT NULL`).join(" AND ")}
        AND (${file.is("delete")} OR ${anyDiffers(file, reference.to)})`;
      if (!any(went)) continue;
      if (!this.#gone.has(reference.gone)) this.#makeGone(reference);
      this.#connection.run(
        `INSERT OR IGNORE INTO temp.${reference.gone} SELECT ${before.join(", ")} FROM ${file.from} WHERE ${within.sql} AND ${went}`,
        ...within.values,
      );
    }
    return true;
  }

  /** Whether the parents are found by their key, and not by reading them from end to end for each child. */
  #searches({ from, within }: ChangesInFile, condition: string): boolean {
    const plan = this.#connection.rows(
      `EXPLAIN QUERY PLAN SELECT 1 FROM ${from} WHERE ${within.sql} AND ${condition}`,
      ...within.values,
    );
    return plan.every(([, , , detail]) => !/^SCAN p\b/.test(String(detail)));
  }

  /** The broken references, parents that went away included. */
  problems(): readonly WriteProblem[] {
    for (const reference of this.#references) {
      if (this.#gone.has(reference.gone)) this.#findOrphans(reference);
    }
    if (this.#more === 0) return this.#problems;
    const message = `and ${this.#more} more broken references`;
    return [...this.#problems, { kind: "foreign-key", table: "", message }];
  }

  /** Removes the temporary tables. */
  close(): void {
    for (const gone of this.#gone) this.#connection.exec(`DROP TABLE temp.${gone}`);
    this.#gone.clear();
  }

  #lookUp(reference: Reference, change: Change, before: Row | null, after: Row): void {
    const values = reference.from.map((i) => after[i] ?? null);
    const same =
      before !== null &&
      sameRow(
        values,
        reference.from.map((i) => before[i] ?? null),
      );
    // A reference that was not written is not ours to judge, even if it has been broken for years.
    if (same || values.includes(null)) return;
    if (!this.#hasParent(reference, values)) this.#report(reference, values, "has no row in", change);
  }

  #noteGone(reference: Reference, before: Row, after: Row | null): void {
    const was = reference.to.map((i) => before[i] ?? null);
    const unchanged =
      after !== null &&
      sameRow(
        was,
        reference.to.map((i) => after[i] ?? null),
      );
    if (unchanged || was.includes(null)) return;
    if (!this.#gone.has(reference.gone)) this.#makeGone(reference);
    const values = was.map(placeholder).join(", ");
    this.#connection.run(
      `INSERT OR IGNORE INTO temp.${reference.gone} VALUES (${values})`,
      ...was.map(bound),
    );
  }

  /** Typed and collated as the parent's columns are, so that comparisons come out as the engine makes them. */
  #makeGone(reference: Reference): void {
    const columns = reference.to.map((column, i) => {
      const type = reference.parent?.shape.columns[column]?.type ?? "";
      return `k${i} ${/^[\w ]*$/.test(type) ? type.replace(/GENERATED ALWAYS/i, "") : ""} COLLATE ${quote(collation(reference, column))}`;
    });
    const names = reference.to.map((_, i) => `k${i}`).join(", ");
    this.#connection.exec(`CREATE TEMP TABLE ${reference.gone} (${columns.join(", ")}, UNIQUE (${names}))`);
    this.#gone.add(reference.gone);
  }

  #findOrphans(reference: Reference): void {
    const { child, parent } = reference;
    if (parent === null) return;
    const childKey = reference.from.map((c) => `c.${quote(child.shape.columns[c]?.name ?? "")}`);
    const parentKey = reference.to.map((c) => `p.${quote(parent.shape.columns[c]?.name ?? "")}`);
    const matches = childKey.map((name, i) => `g.k${i} = ${name}`).join(" AND ");
    const exists = parentKey.map((name, i) => `${name} = g.k${i}`).join(" AND ");
    const orphans = this.#connection.rows(
      `SELECT DISTINCT ${childKey.join(", ")} FROM temp.${reference.gone} AS g JOIN ${main(child.name)} AS c ON ${matches}
       WHERE NOT EXISTS (SELECT 1 FROM ${main(parent.name)} AS p WHERE ${exists}) LIMIT ${NAMED + 1}`,
    );
    for (const values of orphans) this.#report(reference, values, "still refers to a row that is gone from");
  }

  #hasParent({ parent, to }: Reference, values: readonly Value[]): boolean {
    if (parent === null) return false;
    const where = to.map(
      (c, i) => `${quote(parent.shape.columns[c]?.name ?? "")} = ${placeholder(values[i] ?? null)}`,
    );
    const sql = `SELECT EXISTS (SELECT 1 FROM ${main(parent.name)} WHERE ${where.join(" AND ")})`;
    return this.#connection.value(sql, ...values.map(bound)) === 1n;
  }

  #report(
    { child, parentName, from }: Reference,
    values: readonly Value[],
    what: string,
    change?: Change,
  ): void {
    if (this.#problems.length >= NAMED) {
      this.#more++;
      return;
    }
    const key = from
      .map((c, i) => `${child.shape.columns[c]?.name ?? ""} ${shown(values[i] ?? null)}`)
      .join(", ");
    const message = `${child.name}: ${key} ${what} ${parentName}`;
    const by = change === undefined ? {} : { change };
    this.#problems.push({ kind: "foreign-key", table: child.name, message, ...by });
  }
}

/** In some of these columns the images differ, as the engine stores them. */
function anyDiffers(file: ChangesInFile, columns: readonly number[]): string {
  const differs = columns.map((column) => {
    const [before, after] = [file.cell("before", column), file.cell("after", column)];
    return `typeof(${before}) <> typeof(${after}) OR ${before} IS NOT ${after}`;
  });
  return `(${differs.join(" OR ")})`;
}

function nameOf(info: TableInfo, column: number): string {
  return info.shape.columns[column]?.name ?? "";
}

function referenceOf(catalogue: Catalogue, child: TableInfo, key: ForeignKey, number: number): Reference {
  const parent = catalogue.byName.get(fold(key.parent)) ?? null;
  const named = parent === null ? [] : columnsOf(parent, key.parentColumns);
  return {
    child,
    parent,
    parentName: key.parent,
    from: columnsOf(child, key.columns),
    to: named.length > 0 ? named : (parent?.primaryKey.map((k) => k.column) ?? []),
    gone: `holdpoint_gone_${number}`,
  };
}

function columnsOf(info: TableInfo, names: readonly string[]): readonly number[] {
  return names.map((name) => info.shape.columns.findIndex((c) => fold(c.name) === fold(name)));
}

/** The parent's collation of that column: that of the unique index the reference goes by. */
function collation({ parent, to }: Reference, column: number): string {
  const columns = new Set(to);
  const index = parent?.uniques.find(
    (u) =>
      u.columns.length === to.length && u.columns.every((c) => c.column !== null && columns.has(c.column)),
  );
  return index?.columns.find((c) => c.column === column)?.collation ?? "BINARY";
}

function isTable(info: TableInfo | null, name: string): boolean {
  return info !== null && fold(info.name) === fold(name);
}

/** Keys of references, for people. Masking of columns is the renderer's; a key is shown as in every other refusal. */
function shown(value: Value): string {
  if (value === null) return "NULL";
  if (typeof value === "string") return `'${value}'`;
  return typeof value === "object" ? "(bytes)" : String(value);
}
