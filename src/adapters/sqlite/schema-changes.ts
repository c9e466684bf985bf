/** What a job did to the schema and to the sequences. */
import { TargetError } from "../../base/errors.js";
import type { SchemaChange, SequenceMove } from "../../target/target.js";
import type { Connection } from "./driver.js";
import { fold, isOurs, main, quote } from "./names.js";
import type { Catalogue, SchemaObject, TableInfo } from "./schema.js";

/** Both sides of a comparison. */
export interface Sides<T> {
  readonly before: T;
  readonly after: T;
}

/** The objects that are there on one side only, or with another text. */
export function schemaChanges(
  objects: Sides<readonly SchemaObject[]>,
  catalogues: Sides<Catalogue>,
  now: Connection,
): readonly SchemaChange[] {
  const id = (o: SchemaObject): string => `${o.type} ${fold(o.name)}`;
  const before = new Map(objects.before.map((o) => [id(o), o]));
  const after = new Map(objects.after.map((o) => [id(o), o]));
  return [...new Set([...before.keys(), ...after.keys()])].sort().flatMap((key): SchemaChange[] => {
    const [was, is] = [before.get(key), after.get(key)];
    if (was !== undefined && is !== undefined)
      return was.sql === is.sql ? [] : [altered(was, is, catalogues, now)];
    if (is !== undefined)
      return [
        {
          action: "create",
          object: is.type,
          name: is.name,
          table: is.table,
          before: null,
          after: is.sql,
          undo: "yes",
        },
      ];
    return was === undefined ? [] : [dropped(was)];
  });
}

function dropped(was: SchemaObject): SchemaChange {
  const undo = `what was dropped with ${was.type} ${was.name} is not made again`;
  return {
    action: "drop",
    object: was.type,
    name: was.name,
    table: was.table,
    before: was.sql,
    after: null,
    undo,
  };
}

function altered(
  was: SchemaObject,
  is: SchemaObject,
  catalogues: Sides<Catalogue>,
  now: Connection,
): SchemaChange {
  const tables = {
    before: catalogues.before.byName.get(fold(was.name)),
    after: catalogues.after.byName.get(fold(is.name)),
  };
  const undo = is.type === "table" ? undoOfAlter(tables, now) : `the former ${is.type} is not put back`;
  return {
    action: "alter",
    object: is.type,
    name: is.name,
    table: is.table,
    before: was.sql,
    after: is.sql,
    undo,
  };
}

/** ADD COLUMN can be taken back while nothing stands in the column. */
function undoOfAlter({ before, after }: Sides<TableInfo | undefined>, now: Connection): string {
  if (before === undefined || after === undefined) return "the former table is not put back";
  const [old, all] = [before.shape.columns, after.shape.columns];
  const kept = old.every((c, i) => c.name === all[i]?.name && c.type === all[i].type);
  const added = all.slice(old.length).map((c) => quote(c.name));
  if (!kept || added.length === 0) return "the former columns are not put back";
  const filled = now.value(
    `SELECT EXISTS (SELECT 1 FROM ${main(after.name)} WHERE ${added.map((c) => `${c} IS NOT NULL`).join(" OR ")})`,
  );
  return filled === 1n ? "the added column is no longer empty" : "yes";
}

/** `AUTOINCREMENT` counters by table. */
export type Sequences = ReadonlyMap<string, string>;

/** Reads the counters; ours are left out. */
export function readSequences(connection: Connection): Sequences {
  const exists = connection.value(
    "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence')",
  );
  if (exists !== 1n) return new Map();
  const rows = connection.rows("SELECT name, seq FROM main.sqlite_sequence ORDER BY name");
  return new Map(
    rows.map(([name, seq]) => [String(name), String(seq ?? 0n)] as const).filter(([n]) => !isOurs(n)),
  );
}

/**
 * The counters that the job moved; `before` is `0` where there was none.
 * @throws TargetError ERR_TARGET_UNSUPPORTED when it moved one back: ids that were given out would be given out
 * again, and apply moves counters forward only.
 */
export function sequenceMoves(
  sequences: Sides<Sequences>,
  tables: ReadonlySet<string>,
): readonly SequenceMove[] {
  const names = [...new Set([...sequences.before.keys(), ...sequences.after.keys()])].sort();
  return names.flatMap((name) => {
    const [before, after] = [sequences.before.get(name) ?? "0", sequences.after.get(name)];
    if (before === after || (after === undefined && !tables.has(fold(name)))) return [];
    if (after === undefined || !isForward(before, after)) throw movedBack(name, before, after ?? "none");
    return [{ name, before, after }];
  });
}

function isForward(before: string, after: string): boolean {
  const whole = /^-?\d+$/;
  return whole.test(before) && whole.test(after) && BigInt(after) >= BigInt(before);
}

function movedBack(name: string, before: string, after: string): TargetError {
  return new TargetError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `the job moves the sequence of ${name} back`,
    why: `before ${before}, after ${after}; ids that were given out once would be given out again`,
    next: [{ actor: "requester", text: "leave sqlite_sequence alone" }],
  });
}
