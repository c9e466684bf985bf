/**
 * Values that differ from run to run, found by comparing two runs of the same statements. A number of a sequence is one of
 * them, and may be a key: rows that both runs insert and that have no partner under their own key are paired in key order.
 *
 * Only so many changes of a table are remembered; a column is volatile or it is not, whichever rows tell.
 */
import { createHash } from "node:crypto";
import { byCodeUnit } from "../../base/canonical.js";
import { afterOf, type Change, type TableShape } from "../../changeset/change.js";
import { compareKeys, keyBytes, keyText } from "../../changeset/key.js";
import type { Row } from "../../changeset/value.js";
import type { Volatile } from "../../target/target.js";

const HASH_BYTES = 8;
/** Rows of one table that are remembered of each run. */
const REMEMBERED = 50_000;

interface Noted {
  readonly key: Row;
  readonly isInsert: boolean;
  /** A hash of each cell, one after the other. */
  readonly cells: Buffer;
}

/** What one run did, by table. */
class Run {
  readonly shapes = new Map<string, TableShape>();
  readonly rows = new Map<string, Map<string, Noted>>();

  note(shape: TableShape, change: Change): void {
    const after = afterOf(change);
    if (after === null) return;
    this.shapes.set(shape.name, shape);
    const rows = this.rows.get(shape.name) ?? new Map<string, Noted>();
    this.rows.set(shape.name, rows);
    if (rows.size >= REMEMBERED) return;
    const cells = Buffer.concat(after.map((v) => hashOf(keyBytes([v]))));
    rows.set(keyText(change.key), { key: change.key, isInsert: change.op === "insert", cells });
  }
}

/** Both runs. */
export class TwoRuns {
  readonly #first = new Run();
  readonly #second = new Run();

  first(shape: TableShape, change: Change): void {
    this.#first.note(shape, change);
  }

  second(shape: TableShape, change: Change): void {
    this.#second.note(shape, change);
  }

  /** The columns that differed, and in how many rows. */
  volatile(): readonly Volatile[] {
    const shapes = [...this.#second.shapes.values()].sort((a, b) => byCodeUnit(a.name, b.name));
    return shapes.flatMap((shape) => this.#ofTable(shape));
  }

  /** Tables without a key in which the runs left other rows: nothing tells which of them belong together. */
  untellable(): readonly string[] {
    return [...this.#second.shapes.values()].flatMap((shape) => {
      const [was, is] = [this.#first, this.#second].map((r) => [...(r.rows.get(shape.name)?.keys() ?? [])]);
      const same = was?.length === is?.length && (is ?? []).every((k) => was?.includes(k) === true);
      return shape.keyKind === "none" && !same ? [shape.name] : [];
    });
  }

  #ofTable(shape: TableShape): readonly Volatile[] {
    if (shape.keyKind === "none") return [];
    const counts = shape.columns.map(() => 0);
    for (const [a, b] of pairs(this.#first.rows.get(shape.name), this.#second.rows.get(shape.name)))
      shape.columns.forEach((_, i) => {
        const [from, to] = [i * HASH_BYTES, (i + 1) * HASH_BYTES];
        if (!a.cells.subarray(from, to).equals(b.cells.subarray(from, to))) counts[i] = (counts[i] ?? 0) + 1;
      });
    return shape.columns.flatMap(({ name }, i) => {
      const rows = counts[i] ?? 0;
      return rows === 0 ? [] : [{ table: shape.name, column: name, rows }];
    });
  }
}

function* pairs(
  first: ReadonlyMap<string, Noted> = new Map(),
  second: ReadonlyMap<string, Noted> = new Map(),
): Generator<readonly [Noted, Noted], undefined> {
  for (const [key, b] of second) {
    const a = first.get(key);
    if (a !== undefined) yield [a, b];
  }
  const alone = (rows: ReadonlyMap<string, Noted>, others: ReadonlyMap<string, Noted>): readonly Noted[] =>
    [...rows]
      .flatMap(([key, n]) => (n.isInsert && !others.has(key) ? [n] : []))
      .sort((a, b) => compareKeys(a.key, b.key));
  const [left, right] = [alone(first, second), alone(second, first)];
  if (left.length !== right.length) return;
  for (const [i, a] of left.entries()) {
    const b = right[i];
    if (b !== undefined) yield [a, b];
  }
}

function hashOf(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest().subarray(0, HASH_BYTES);
}
