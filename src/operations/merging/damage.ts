/**
 * What damage did, as far as a person declares it, and what follows for each row that is not as the snapshot has it.
 * Nothing here guesses: what neither the declaration nor the ledger decides is undecidable, and listed.
 *
 * | the row | declared | result |
 * | --- | --- | --- |
 * | changed | `COLUMN = VALUE`, and the cell still has it | restore that cell, keep the others |
 * | changed | `COLUMN = VALUE`, and the cell has another value since | conflict: `changed` |
 * | changed | these rows (`--where`), or these columns of them | restore those cells |
 * | changed | nothing | undecidable, unless a run of ours made it so |
 * | missing | `deleted`, or these rows | restore, unless a run of ours deleted it |
 * | missing | a change of columns alone | its owner removed it: listed, never resurrected |
 * | missing | nothing | undecidable, unless a run of ours deleted it |
 * | there again, otherwise | `deleted`, and it took every row or these rows | conflict: `two-entities` |
 * | born since | anything | never touched, listed |
 */
import { UsageError } from "../../base/errors.js";
import {
  type Change,
  changeBetween,
  type Delete,
  type TableShape,
  type Update,
} from "../../changeset/change.js";
import { keyText } from "../../changeset/key.js";
import type { CellConflict } from "../../changeset/merge.js";
import { sameValue, type Row, type Value } from "../../changeset/value.js";
import { type Deciding, type RowConflict, rowMark } from "./conflict.js";
import { type Narrowed, WHERE_LIMITS } from "./narrow.js";
import type { WorkingChanges } from "../toolbox.js";

/** One thing that the damage did. */
export type Damage =
  | { readonly kind: "deleted" }
  /** It set the column to the value of an SQL expression over the row (`x` or `before_x` before, `now_x` now). */
  | { readonly kind: "set"; readonly column: string; readonly expression: string };

/**
 * Reads `deleted` and `column = expression`.
 * @throws UsageError ERR_USAGE for anything else.
 */
export function parseDamage(text: string): Damage {
  if (text.trim() === "deleted") return { kind: "deleted" };
  const at = text.indexOf("=");
  const [column, expression] = [text.slice(0, Math.max(0, at)).trim(), text.slice(at + 1).trim()];
  if (at !== -1 && column !== "" && expression !== "") return { kind: "set", column, expression };
  throw new UsageError({
    code: "ERR_USAGE",
    message: `--damage ${JSON.stringify(text)} is no damage`,
    why: `expected "deleted", or "COLUMN = SQL EXPRESSION" such as "status = 'closed'"`,
  });
}

/** What becomes of one row. */
export type Fate =
  | { readonly kind: "restored" | "merged"; readonly change: Change }
  | { readonly kind: "removed" | "born" | "other" | "kept" }
  | { readonly kind: "conflict"; readonly conflict: RowConflict };

/** The run of ours that made a row what it is now; null when none did. */
export type Evidence = (table: string, change: Change) => Promise<string | null>;

/** A declaration held against what changed since the snapshot. */
export interface Declared {
  /** Whether `--where` says which rows are damage. */
  readonly byRows: boolean;
  readonly deleted: boolean;
  readonly narrowed: Narrowed;
  /** By table and index of a column: keys of the rows whose cell is what the damage set it to. */
  readonly standing: ReadonlyMap<string, ReadonlyMap<number, ReadonlySet<string>>>;
  /** By table and index of a column: the value that the damage set, where it is the same for every row. */
  readonly wrote: ReadonlyMap<string, ReadonlyMap<number, Value>>;
  /** Tables in which no row is as it was: whatever is there came after. */
  readonly takenWhole: ReadonlySet<string>;
}

/**
 * Asks the changes which cells are as the damage left them.
 * @throws UsageError for a column that none of the tables has, or an expression that SQLite refuses.
 */
export async function declare(
  changes: WorkingChanges,
  damages: readonly Damage[],
  narrowed: Narrowed,
  facts: Pick<Declared, "byRows" | "takenWhole">,
): Promise<Declared> {
  const standing = new Map<string, Map<number, ReadonlySet<string>>>();
  const wrote = new Map<string, Map<number, Value>>();
  for (const damage of damages) {
    if (damage.kind !== "set") continue;
    let known = false;
    const constant = await constantOf(changes, damage.expression);
    for (const shape of narrowed.tables) {
      const at = shape.columns.findIndex(
        (c) => c.name === damage.column || `${shape.name}.${c.name}` === damage.column,
      );
      if (at === -1) continue;
      known = true;
      const now = `"now_${(shape.columns[at]?.name ?? "").replaceAll('"', '""')}"`;
      const keys = await changes.keysWhere(shape.name, `${now} IS (${damage.expression})`, WHERE_LIMITS);
      const ofTable = standing.get(shape.name) ?? new Map<number, ReadonlySet<string>>();
      standing.set(shape.name, ofTable.set(at, new Set([...(ofTable.get(at) ?? []), ...keys])));
      const values = wrote.get(shape.name) ?? new Map<number, Value>();
      if (constant !== undefined) wrote.set(shape.name, values.set(at, constant));
    }
    if (!known && narrowed.tables.length > 0) throw unknownColumn(damage.column, narrowed.tables);
  }
  return { ...facts, deleted: damages.some((d) => d.kind === "deleted"), narrowed, standing, wrote };
}

/** The value of an expression that reads no column; undefined for one that does. */
async function constantOf(changes: WorkingChanges, expression: string): Promise<Value | undefined> {
  try {
    const { rows } = await changes.query(`SELECT (\n${expression}\n)`, {
      maxRows: 1,
      maxMs: WHERE_LIMITS.maxMs,
    });
    return rows[0]?.[0];
  } catch (e) {
    // Without a table there are no columns to read: that the expression needs some is the answer here.
    if (e instanceof UsageError) return undefined;
    throw e;
  }
}

function unknownColumn(column: string, tables: readonly TableShape[]): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `no table that changed since the snapshot has a column ${column}`,
    why: `tables that changed: ${tables.map((t) => t.name).join(", ")}`,
  });
}

/** What becomes of one row that is not as the snapshot has it. */
export async function fateOf(
  shape: TableShape,
  change: Change,
  declared: Declared,
  evidence: Evidence,
  deciding: Deciding,
): Promise<Fate> {
  if (change.op === "insert") return { kind: "born" };
  if (!declared.narrowed.takes(shape.name, change.key)) return { kind: "other" };
  return change.op === "delete"
    ? missingRow(shape, change, declared, evidence, deciding)
    : changedRow(shape, change, declared, evidence, deciding);
}

async function missingRow(
  shape: TableShape,
  change: Delete,
  declared: Declared,
  evidence: Evidence,
  deciding: Deciding,
): Promise<Fate> {
  const ofColumns = declared.standing.size > 0 || declared.narrowed.columnsOf(shape.name) !== undefined;
  if (!declared.deleted && ofColumns) return { kind: "removed" };
  const run = await evidence(shape.name, change);
  if (run !== null) return { kind: "removed" };
  if (declared.deleted || declared.byRows) return { kind: "restored", change: backOf(change) };
  const conflict = conflictOf(shape, change, null, "undecidable", []);
  return decided(conflict, deciding, () => backOf(change));
}

function backOf(change: Delete): Change {
  const { table, key, origin, count } = change;
  const row = { table, key, origin, op: "insert" as const, after: change.before };
  return count === undefined ? row : { ...row, count };
}

async function changedRow(
  shape: TableShape,
  change: Update,
  declared: Declared,
  evidence: Evidence,
  deciding: Deciding,
): Promise<Fate> {
  const standing = declared.standing.get(shape.name);
  const meant = declared.narrowed.columnsOf(shape.name);
  if (declared.deleted && standing === undefined && meant === undefined) {
    // It was deleted and its key lives again, or it never was deleted and was edited: now stays in either case.
    if (!declared.takenWhole.has(shape.name) && !declared.byRows) return { kind: "other" };
    const cells = differing(shape, change).map((i) => cellOf(shape, change, i, undefined));
    return decided(conflictOf(shape, change, change.after, "two-entities", cells), deciding, () => undefined);
  }
  const { restore, disputed, undecided } = sorted(shape, change, declared, standing, meant);
  if (restore.length + disputed.length + undecided.length === 0) return { kind: "other" };
  if (disputed.length + undecided.length === 0) return restoring(change, shape, restore);
  if (disputed.length === 0 && restore.length === 0 && (await evidence(shape.name, change)) !== null)
    return { kind: "other" };
  const kind = disputed.length > 0 ? "changed" : "undecidable";
  const wrote = declared.wrote.get(shape.name);
  const cells = [...disputed, ...undecided].map((i) => cellOf(shape, change, i, wrote?.get(i)));
  const conflict = conflictOf(shape, change, change.after, kind, cells);
  const onlyStanding = restoring(change, shape, restore);
  return decided(
    conflict,
    deciding,
    () => changeOf(restoring(change, shape, [...restore, ...disputed, ...undecided])),
    () => changeOf(onlyStanding),
  );
}

/** The differing cells of a row, by what the declaration says of them. */
function sorted(
  shape: TableShape,
  change: Update,
  declared: Declared,
  standing: ReadonlyMap<number, ReadonlySet<string>> | undefined,
  meant: ReadonlySet<number> | undefined,
): { readonly restore: number[]; readonly disputed: number[]; readonly undecided: number[] } {
  const out = { restore: [] as number[], disputed: [] as number[], undecided: [] as number[] };
  const key = keyText(change.key);
  const nothingNamed = declared.standing.size === 0 && meant === undefined;
  for (const i of differing(shape, change)) {
    const as = standing?.get(i);
    if (as !== undefined) (as.has(key) ? out.restore : out.disputed).push(i);
    else if (nothingNamed || (standing === undefined && meant?.has(i) === true))
      (declared.byRows ? out.restore : out.undecided).push(i);
  }
  return out;
}

function differing(shape: TableShape, change: Update): number[] {
  return shape.columns.flatMap((c, i) =>
    c.generated === true || sameValue(change.before[i] ?? null, change.after[i] ?? null) ? [] : [i],
  );
}

/** The row with these cells as the snapshot has them; merged where others stay newer. */
function restoring(change: Update, shape: TableShape, cells: readonly number[]): Fate {
  const row = change.after.map((v, i): Value => (cells.includes(i) ? (change.before[i] ?? null) : v));
  const whole = differing(shape, change).every((i) => cells.includes(i));
  const back = changeBetween(
    change.table,
    change.key,
    "unknown",
    change.after,
    whole ? asBefore(shape, change, row) : row,
  );
  if (back === undefined) return { kind: "kept" };
  return { kind: whole ? "restored" : "merged", change: back };
}

/** A row that goes back whole takes its generated cells along. */
function asBefore(shape: TableShape, change: Update, row: Row): Row {
  return row.map((v, i) => (shape.columns[i]?.generated === true ? (change.before[i] ?? null) : v));
}

function changeOf(fate: Fate): Change | undefined {
  return "change" in fate ? fate.change : undefined;
}

/** The conflict, or what was decided about it. */
function decided(
  conflict: RowConflict,
  deciding: Deciding,
  restore: () => Change | undefined,
  keep: () => Change | undefined = () => undefined,
): Fate {
  const how = deciding.of(conflict);
  if (how === "stop") return { kind: "conflict", conflict };
  const change = how === "restore-before" ? restore() : keep();
  return change === undefined ? { kind: "kept" } : { kind: "merged", change };
}

function cellOf(shape: TableShape, change: Update, i: number, wrote: Value | undefined): CellConflict {
  return {
    column: shape.columns[i]?.name ?? "",
    before: change.before[i] ?? null,
    wrote,
    now: change.after[i] ?? null,
  };
}

function conflictOf(
  shape: TableShape,
  change: Delete | Update,
  now: Row | null,
  kind: RowConflict["kind"],
  columns: readonly CellConflict[],
): RowConflict {
  const conflict = {
    table: shape.name,
    shape,
    key: change.key,
    kind,
    columns,
    before: change.before,
    wrote: null,
    now,
  };
  return {
    ...conflict,
    wroteUnknown: kind !== "two-entities" && columns.every((c) => c.wrote === undefined),
    mark: rowMark(conflict),
    changedBy: null,
  };
}

/** A restored row that the target would not take: its parent is gone, or another row has its unique value. */
export function refusedRow(
  shape: TableShape,
  change: Change,
  kind: "foreign-key" | "constraint",
): RowConflict {
  const before = change.op === "delete" ? null : change.after;
  const now = change.op === "insert" ? null : change.before;
  const conflict = { table: shape.name, shape, key: change.key, kind, columns: [], before, wrote: null, now };
  return { ...conflict, wroteUnknown: true, mark: rowMark(conflict), changedBy: null };
}
