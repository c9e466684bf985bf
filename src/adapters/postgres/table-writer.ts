/**
 * Writing changes in bulk: many rows in one statement, each looked at before it is written and locked in the order of the
 * keys, so that two runs cannot block each other.
 *
 * First everything is tried as it comes: deletes with children first, updates, inserts with parents first; rows that are
 * to the byte as they were before are written where they are found (`in-engine.ts`), the others are read. Where a constraint objects, all is taken back and written carefully: row sets that fail are halved, rows that fail wait for
 * the others and are tried again, and updates that still stand in one another's way (swapped unique values) are deleted
 * and inserted in one statement. What fails then is really in conflict.
 */
import { codeOf, HoldpointError, messageOf } from "../../base/errors.js";
import {
  countOf,
  type Change,
  type ChangeSource,
  type Insert,
  type Op,
  type TableShape,
  type Update,
} from "../../changeset/change.js";
import { standingOf } from "../../changeset/merge.js";
import { sortedTables } from "../../changeset/source.js";
import { sameRow, sameValue, type Row } from "../../changeset/value.js";
import type { BatchOutcome, WriteProblem } from "../../target/target.js";
import { isConstraint, type Session, unsupported } from "./driver.js";
import {
  type Asking,
  deleteAsBefore,
  inKeyOrder,
  oneAhead,
  placesFrom,
  updateAsBefore,
} from "./in-engine.js";
import { quote, shownName } from "./names.js";
import { batches, comparableColumns, equalRows, keyMatch, rowsByKey, unnested } from "./read.js";
import { tableFor, type Catalogue, type TableInfo } from "./schema.js";
import { columnOf, type Cell } from "./values.js";

/** Rows in one statement: the same time for each row from here on, and little that is made ready ahead. */
const ROWS = 2_000;
/** Beyond so many problems nothing new is learnt. */
const MOST_PROBLEMS = 1_000;

/** A change that is to be written, with the row as it is now. */
interface Due {
  readonly change: Change;
  readonly now: Row | null;
}

/** Rows of one kind that are written by one statement. */
interface Chunk {
  readonly table: TableInfo;
  readonly shape: TableShape;
  readonly op: Op;
  readonly due: readonly Due[];
}

/** Changes with the one statement that writes those which are as they were before; null where there is nothing to write. */
interface Ready {
  readonly changes: readonly Change[];
  readonly asking: Asking | null;
}

/** How the writing went; `executed` counts the rows of our own statements, null where some were taken back. */
export type Written = BatchOutcome & { readonly executed: number | null };

/** Writes all changes of a source in the open transaction. */
export async function writeChanges(
  session: Session,
  catalogue: Catalogue,
  source: ChangeSource,
): Promise<Written> {
  await session.run("SAVEPOINT holdpoint_write");
  try {
    const writer = new ChangesWriter(session, catalogue, source, false);
    const outcome = await inKeyOrder(session, () => writer.write());
    await session.run("RELEASE SAVEPOINT holdpoint_write");
    return { ...outcome, executed: writer.executed };
  } catch (e) {
    if (!isConstraint(e)) throw e;
  }
  await session.run("ROLLBACK TO SAVEPOINT holdpoint_write");
  const outcome = await new ChangesWriter(session, catalogue, source, true).write();
  return { ...outcome, executed: null };
}

class ChangesWriter {
  readonly #session: Session;
  readonly #catalogue: Catalogue;
  readonly #source: ChangeSource;
  readonly #isCareful: boolean;
  readonly #problems: WriteProblem[] = [];
  readonly #waiting: Chunk[] = [];
  #written = 0;
  #alreadyDone = 0;
  executed = 0;

  constructor(session: Session, catalogue: Catalogue, source: ChangeSource, isCareful: boolean) {
    this.#session = session;
    this.#catalogue = catalogue;
    this.#source = source;
    this.#isCareful = isCareful;
  }

  async write(): Promise<BatchOutcome> {
    const shapes = parentsFirst(this.#catalogue, sortedTables(this.#source.tables));
    for (const shape of [...shapes].reverse()) await this.#pass(shape, "delete");
    for (const shape of shapes) await this.#pass(shape, "update");
    for (const shape of shapes) await this.#pass(shape, "insert");
    await this.#retryWaiting();
    return { written: this.#written, alreadyDone: this.#alreadyDone, problems: this.#problems };
  }

  async #pass(shape: TableShape, op: Op): Promise<void> {
    const table = tableFor(this.#catalogue, shape);
    const changes = withOp(this.#source.changes(shape.name), op);
    await oneAhead(
      batches(changes, ROWS),
      (batch) => ({ batch, ready: this.#readyAsBefore(table, shape, batch) }),
      async ({ batch, ready }) => {
        if (this.#problems.length >= MOST_PROBLEMS) return;
        if (shape.keyKind === "none" && op === "delete")
          return await this.#deleteCounted(table, shape, batch);
        const left = ready === null ? batch : await this.#writeAsBefore(ready);
        const due = shape.keyKind === "none" ? left.map(undue) : await this.#look(table, shape, left);
        for (const group of grouped(op, due)) await this.#writeChunk({ table, shape, op, due: group });
      },
    );
  }

  /** The statements that write what is to the byte as it was before; null where each row has to be looked at. */
  #readyAsBefore(table: TableInfo, shape: TableShape, batch: readonly Change[]): readonly Ready[] | null {
    if (this.#isCareful || shape.keyKind === "none" || batch[0]?.op === "insert") return null;
    return grouped(batch[0]?.op ?? "insert", batch.map(undue)).map((group) => {
      const changes = group.map((d) => d.change);
      return { changes, asking: asBefore(table, shape, changes) };
    });
  }

  /** Writes what is as it was before; what is left has to be looked at. */
  async #writeAsBefore(ready: readonly Ready[]): Promise<readonly Change[]> {
    const left: Change[] = [];
    for (const { changes, asking } of ready) {
      const written = asking === null ? [] : await placesFrom(this.#session, asking);
      this.executed += written.length;
      this.#written += written.length;
      if (written.length === changes.length) continue;
      const done = new Set(written);
      left.push(...changes.filter((_, i) => !done.has(i)));
    }
    return left;
  }

  /** Locks the rows and tells which are to be written; the others are done, or have moved. */
  async #look(table: TableInfo, shape: TableShape, batch: readonly Change[]): Promise<readonly Due[]> {
    if (batch.length === 0) return [];
    const locking = batch[0]?.op === "insert" ? "" : "FOR UPDATE OF t";
    const keys = batch.map((c) => c.key);
    const rows = await rowsByKey(this.#session, table, shape, keys, locking);
    return batch.flatMap((change, i) => {
      const now = rows[i] ?? null;
      switch (standingOf(shape, change, now).state) {
        case "as-before":
          return [{ change, now }];
        case "as-after":
          this.#alreadyDone++;
          return [];
        case "conflict":
          this.#problems.push({ kind: "drift", change, now, nowCount: now === null ? 0 : 1 });
          return [];
      }
    });
  }

  // ---- trying

  async #writeChunk(chunk: Chunk): Promise<void> {
    if (chunk.due.length === 0) return;
    if (!this.#isCareful) return await this.#execute(chunk);
    const failure = await this.#try(() => this.#execute(chunk));
    if (failure === null) return;
    if (chunk.due.length === 1) {
      this.#waiting.push(chunk);
      return;
    }
    const half = Math.ceil(chunk.due.length / 2);
    await this.#writeChunk({ ...chunk, due: chunk.due.slice(0, half) });
    await this.#writeChunk({ ...chunk, due: chunk.due.slice(half) });
  }

  /** Null when it went through; else the error, and everything of it is taken back. */
  async #try(work: () => Promise<void>): Promise<unknown> {
    const [written, executed] = [this.#written, this.executed];
    await this.#session.run("SAVEPOINT holdpoint_chunk");
    try {
      await work();
      await this.#session.run("RELEASE SAVEPOINT holdpoint_chunk");
      return null;
    } catch (e) {
      if (!isConstraint(e)) throw e;
      await this.#session.run("ROLLBACK TO SAVEPOINT holdpoint_chunk");
      await this.#session.run("RELEASE SAVEPOINT holdpoint_chunk");
      [this.#written, this.executed] = [written, executed];
      return e;
    }
  }

  async #retryWaiting(): Promise<void> {
    let waiting = [...this.#waiting];
    for (let before = Number.POSITIVE_INFINITY; waiting.length > 0 && waiting.length < before;) {
      before = waiting.length;
      waiting = (await this.#tryEach(waiting)).map(({ chunk }) => chunk);
      if (waiting.length === before && (await this.#exchangeAll(waiting))) {
        waiting = waiting.filter((chunk) => chunk.op !== "update");
      }
    }
    for (const { chunk, failure } of await this.#tryEach(waiting))
      this.#problems.push(problemOf(chunk, failure));
  }

  async #tryEach(
    chunks: readonly Chunk[],
  ): Promise<readonly { readonly chunk: Chunk; readonly failure: unknown }[]> {
    const failed: { readonly chunk: Chunk; readonly failure: unknown }[] = [];
    for (const chunk of chunks) {
      const failure = await this.#try(() => this.#execute(chunk));
      if (failure !== null) failed.push({ chunk, failure });
    }
    return failed;
  }

  /** Breaks cycles of swapped unique values, table by table; whether everything went through. */
  async #exchangeAll(waiting: readonly Chunk[]): Promise<boolean> {
    const updates = byTable(waiting.filter((chunk) => chunk.op === "update"));
    let all = updates.length > 0;
    for (const [first, ...rest] of updates) {
      if (first === undefined) continue;
      const due = [first, ...rest].flatMap((c) => c.due);
      if ((await this.#try(() => this.#exchange({ ...first, due }))) !== null) all = false;
    }
    return all;
  }

  // ---- statements

  async #execute(chunk: Chunk): Promise<void> {
    switch (chunk.op) {
      case "delete":
        return await this.#delete(chunk);
      case "update":
        return await this.#update(chunk);
      case "insert":
        return await this.#insert(chunk);
    }
  }

  async #delete({ table, shape, due }: Chunk): Promise<void> {
    const keys = due.map((d) => d.change.key);
    const sql = `DELETE FROM ${table.from} AS t USING ${this.#keys(table, shape)} WHERE ${keyMatch(table, shape, "t", "k")}`;
    await this.#run(
      table,
      sql,
      shape.key.map((_, i) => columnOf(keys, i)),
      due.length,
    );
    this.#written += due.length;
  }

  #keys(table: TableInfo, shape: TableShape): string {
    const columns = shape.key.flatMap((i) => table.columns.slice(i, i + 1));
    return unnested(
      columns,
      columns.map((_, i) => `k${i}`),
      1,
    );
  }

  /** All of the chunk change the same columns. */
  async #update({ table, shape, due }: Chunk): Promise<void> {
    const updates = due.flatMap((d) => (d.change.op === "update" ? [d.change] : []));
    const changed = changedColumns(table, updates[0]);
    refuseIdentity(table, changed);
    if (changed.length === 0) return;
    const keys = shape.key.flatMap((i) => table.columns.slice(i, i + 1));
    const cells = changed.flatMap((i) => table.columns.slice(i, i + 1));
    const names = [...keys.map((_, i) => `k${i}`), ...cells.map((_, i) => `v${i}`)];
    const sets = cells.map((c, i) => `${quote(c.name)} = k.v${i}`);
    const sql = `UPDATE ${table.from} AS t SET ${sets.join(", ")} FROM ${unnested([...keys, ...cells], names, 1)}
      WHERE ${keyMatch(table, shape, "t", "k")}`;
    const keyValues = shape.key.map((_, i) =>
      columnOf(
        updates.map((u) => u.key),
        i,
      ),
    );
    const values = changed.map((i) =>
      columnOf(
        updates.map((u) => u.after),
        i,
      ),
    );
    await this.#run(table, sql, [...keyValues, ...values], updates.length);
    this.#written += updates.length;
  }

  async #insert({ table, due }: Chunk): Promise<void> {
    const rows = due.flatMap(({ change }) => (change.op === "insert" ? repeated(change) : []));
    await this.#run(table, insertInto(table, ""), insertValues(table, rows), rows.length);
    this.#written += rows.length;
  }

  /** Deletes rows and inserts them with their new cells in one statement, in which no unique value stands in the way. */
  async #exchange({ table, shape, due }: Chunk): Promise<void> {
    const rows = due.map(({ change, now }) => merged(table, change, now));
    const keys = due.map((d) => d.change.key);
    const own = writable(table).length;
    const columns = shape.key.flatMap((i) => table.columns.slice(i, i + 1));
    const doomed = unnested(
      columns,
      columns.map((_, i) => `k${i}`),
      own + 1,
    );
    const sql = `WITH gone AS (DELETE FROM ${table.from} AS t USING ${doomed} WHERE ${keyMatch(table, shape, "t", "k")} RETURNING 1)
      ${insertInto(table, `WHERE (SELECT count(*) FROM gone) = ${due.length}`)}`;
    const values = [...insertValues(table, rows), ...shape.key.map((_, i) => columnOf(keys, i))];
    await this.#run(table, sql, values, due.length);
    // The server counts both halves.
    this.executed += due.length;
    this.#written += due.length;
  }

  // ---- tables without a key

  async #deleteCounted(table: TableInfo, shape: TableShape, batch: readonly Change[]): Promise<void> {
    const sql = `SELECT k.n, t.tableoid, t.ctid FROM ${equalRows(table)} ORDER BY k.n, t.tableoid, t.ctid FOR UPDATE OF t`;
    const found = new Map<number, (readonly Cell[])[]>();
    for (const row of await this.#session.rows(
      sql,
      ...comparableColumns(
        table,
        batch.map((c) => c.key),
      ),
    )) {
      const at = Number(row[0]) - 1;
      const places = found.get(at);
      if (places === undefined) found.set(at, [row]);
      else places.push(row);
    }
    const doomed = batch.flatMap((change, i) => {
      const places = found.get(i) ?? [];
      if (standingOf(shape, change, null, places.length).state !== "conflict")
        return places.slice(0, countOf(change));
      this.#problems.push({ kind: "drift", change, now: null, nowCount: places.length });
      return [];
    });
    if (doomed.length === 0) return;
    await this.#deletePlaces(table, doomed);
  }

  async #deletePlaces(table: TableInfo, places: readonly (readonly Cell[])[]): Promise<void> {
    const sql = `DELETE FROM ${table.from} AS t USING unnest($1::oid[], $2::tid[]) AS k(storage, place)
      WHERE t.ctid = k.place AND t.tableoid = k.storage`;
    const values = [places.map((p) => p[1] ?? null), places.map((p) => p[2] ?? null)];
    await this.#run(table, sql, values, places.length);
    this.#written += places.length;
  }

  async #run(
    table: TableInfo,
    sql: string,
    values: readonly (readonly Cell[])[],
    expected: number,
  ): Promise<void> {
    const changed = await this.#session.run(sql, ...values);
    this.executed += changed;
    if (changed === expected) return;
    throw new HoldpointError({
      code: "ERR_INTERNAL",
      message: `writing ${expected} rows of ${table.name} changed ${changed}`,
      why: "every row is addressed by itself",
    });
  }
}

function asBefore(table: TableInfo, shape: TableShape, changes: readonly Change[]): Asking | null {
  const deletes = changes.flatMap((c) => (c.op === "delete" ? [c] : []));
  if (deletes.length > 0) return deleteAsBefore(table, shape, deletes);
  const updates = changes.flatMap((c) => (c.op === "update" ? [c] : []));
  const changed = changedColumns(table, updates[0]);
  refuseIdentity(table, changed);
  return changed.length === 0 ? null : updateAsBefore(table, shape, updates, changed);
}

function byTable(chunks: readonly Chunk[]): readonly (readonly Chunk[])[] {
  const names = new Set(chunks.map((c) => c.table.name));
  return [...names].map((name) => chunks.filter((c) => c.table.name === name));
}

// ---- order of tables

/** Tables that others refer to come first; tables in a circle of references stand in the order given. */
function parentsFirst(catalogue: Catalogue, shapes: readonly TableShape[]): readonly TableShape[] {
  const byName = new Map(shapes.map((s) => [s.name, s]));
  const ordered = new Set<TableShape>();
  const visiting = new Set<string>();
  const visit = (shape: TableShape): void => {
    if (visiting.has(shape.name)) return;
    visiting.add(shape.name);
    for (const key of catalogue.foreignKeys) {
      const parent = key.child === shape.name ? byName.get(key.parent) : undefined;
      if (parent !== undefined) visit(parent);
    }
    ordered.add(shape);
  };
  shapes.forEach(visit);
  return [...ordered];
}

// ---- rows

function* withOp(changes: Iterable<Change>, op: Op): Generator<Change, undefined> {
  for (const change of changes) if (change.op === op) yield change;
}

function undue(change: Change): Due {
  return { change, now: null };
}

/** Updates that change the same columns go into one statement. */
function grouped(op: Op, due: readonly Due[]): readonly (readonly Due[])[] {
  if (op !== "update") return [due];
  const groups = new Map<string, Due[]>();
  for (const d of due) {
    const { change } = d;
    const id =
      change.op === "update"
        ? change.after.map((v, i) => (sameValue(v, change.before[i] ?? null) ? "" : i)).join()
        : "";
    const group = groups.get(id);
    if (group === undefined) groups.set(id, [d]);
    else group.push(d);
  }
  return [...groups.values()];
}

/** The cells that an update writes: those that differ, but for the generated ones. */
function changedColumns(table: TableInfo, update: Update | undefined): readonly number[] {
  if (update === undefined) return [];
  const differing = update.after.flatMap((v, i) => (sameValue(v, update.before[i] ?? null) ? [] : [i]));
  return differing.filter((i) => table.columns[i]?.generated === false);
}

function writable(table: TableInfo): readonly number[] {
  return table.columns.flatMap((c, i) => (c.generated ? [] : [i]));
}

function insertInto(table: TableInfo, condition: string): string {
  const columns = writable(table).flatMap((i) => table.columns.slice(i, i + 1));
  const names = columns.map((_, i) => `v${i}`);
  return `INSERT INTO ${quote(table.schema)}.${quote(table.relation)} (${columns.map((c) => quote(c.name)).join(", ")})
    OVERRIDING SYSTEM VALUE SELECT ${names.map((n) => `k.${n}`).join(", ")} FROM ${unnested(columns, names, 1)} ${condition} ORDER BY k.n`;
}

function insertValues(table: TableInfo, rows: readonly Row[]): readonly (readonly Cell[])[] {
  return writable(table).map((i) => columnOf(rows, i));
}

function repeated(change: Insert): readonly Row[] {
  return Array.from({ length: countOf(change) }, () => change.after);
}

/** The row as it is now with the cells that the update changes. */
function merged(table: TableInfo, change: Change, now: Row | null): Row {
  if (change.op !== "update" || now === null) return now ?? [];
  const changed = new Set(changedColumns(table, change));
  return now.map((v, i) => (changed.has(i) ? (change.after[i] ?? null) : v));
}

/** Whether the row is as the change leaves it. Of an update only its own cells count; others may be newer. */
export function isAsAfter(shape: TableShape, change: Change, now: Row | null): boolean {
  if (change.op !== "update" || now === null)
    return sameRow(now, change.op === "delete" ? null : change.after);
  const own = change.after.every((v, i) => {
    const isOwn = shape.columns[i]?.generated !== true && !sameValue(v, change.before[i] ?? null);
    return !isOwn || sameValue(now[i] ?? null, v);
  });
  if (!own) return false;
  // A generated cell follows the others: it can be held to the plan only where all of them are as planned.
  const asPlanned = now.every(
    (v, i) => shape.columns[i]?.generated === true || sameValue(v, change.after[i] ?? null),
  );
  return !asPlanned || sameRow(now, change.after);
}

// ---- problems

function problemOf(chunk: Chunk, failure: unknown): WriteProblem {
  const change = chunk.due[0]?.change;
  if (codeOf(failure) === "23503" || change === undefined) {
    // What waits is one row: the one that refers to nothing, or the one that something still refers to.
    const table = tableOf(failure) ?? chunk.shape.name;
    const message = messageOf(failure);
    return { kind: "foreign-key", table, message, ...(change === undefined ? {} : { change }) };
  }
  return { kind: "constraint", change, message: messageOf(failure) };
}

/** The table that the server names: the one that refers. */
function tableOf(failure: unknown): string | null {
  if (typeof failure !== "object" || failure === null) return null;
  const schema = "schema" in failure && typeof failure.schema === "string" ? failure.schema : null;
  const table = "table" in failure && typeof failure.table === "string" ? failure.table : null;
  return schema === null || table === null ? null : shownName(schema, table);
}

function refuseIdentity(table: TableInfo, changed: readonly number[]): void {
  const column = changed.flatMap((i) => table.columns.slice(i, i + 1)).find((c) => c.identity === "always");
  if (column === undefined) return;
  throw unsupported(
    `${table.name}.${column.name} is GENERATED ALWAYS AS IDENTITY and would have to be updated`,
    "the engine takes no value for it in an UPDATE",
  );
}
