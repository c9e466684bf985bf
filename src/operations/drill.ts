/**
 * A drill: on a copy, put together from a snapshot, rows are deleted and others are written after it; then the rescue
 * brings the rows back. What it took and what was lost goes into the ledger; the target itself is only read.
 */
import { IntegrityError, TargetError } from "../base/errors.js";
import { type Change, type ChangeSource, keyOf, type TableShape } from "../changeset/change.js";
import { keyText } from "../changeset/key.js";
import { sameRow, type Row } from "../changeset/value.js";
import type { Target, WriteSession } from "../target/target.js";
import { compareStates, stateNow } from "./merging/compare-states.js";
import { deciding } from "./merging/conflict.js";
import { declare } from "./merging/damage.js";
import { withTarget } from "./judging/examine.js";
import { chooseSnapshot, openImage, openRestoredFile, type VerifiedSnapshot } from "./merging/image.js";
import { narrow } from "./merging/narrow.js";
import { requirePlannable } from "./plan.js";
import { sortRows, takenWhole } from "./rescue.js";
import { takeSnapshot } from "./snapshot.js";
import type { Toolbox } from "./toolbox.js";

/** How a drill went. */
export interface Drilled {
  readonly target: string;
  readonly environment: "production" | "staging" | "development" | "unproven";
  readonly snapshot: string;
  readonly table: string;
  readonly broken: number;
  readonly written: number;
  readonly restored: number;
  /** Newer writes that were not there after the rescue. */
  readonly lost: number;
  /** Deleted rows that were not there, as they were, after the rescue. */
  readonly missing: number;
  readonly takeMs: number;
  readonly restoreMs: number;
  readonly rescueMs: number;
}

/** The share of a table that is broken, and that of 24 December 2012. */
const SHARE = 0.068;
/** Most rows that are broken and written. */
const MOST_ROWS = 5_000;

/**
 * Drills one target from a snapshot, or from one that is taken now.
 * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED (36) for a snapshot that is not whole, or a rescue that lost something.
 */
export async function drill(tools: Toolbox, on: string, from: string | null): Promise<Drilled> {
  const started = tools.clock.now().getTime();
  const ref = from ?? (await takeSnapshot(tools, on, [], "database")).manifest.id;
  const takeMs = tools.clock.now().getTime() - started;
  try {
    return await withTarget(tools, on, async (examined) => {
      await requirePlannable(tools, examined);
      const drilled = await drillCopy(tools, on, await chooseSnapshot(tools, on, ref));
      const result = { ...drilled, environment: examined.verdict.name, takeMs };
      await record(tools, on, ref, { ...result, ok: result.lost + result.missing === 0 });
      if (result.lost + result.missing === 0) return result;
      throw drillFailed(on, ref, result);
    });
  } catch (e) {
    if (e instanceof IntegrityError && !e.message.startsWith("the drill"))
      await record(tools, on, ref, { ok: false, code: e.code });
    throw e;
  }
}

async function record(
  tools: Toolbox,
  on: string,
  snapshot: string,
  facts: Readonly<Record<string, string | number | boolean>>,
): Promise<void> {
  (await tools.ledger()).append({ kind: "drilled", target: on, facts: { snapshot, ...facts } });
}

function drillFailed(on: string, ref: string, d: Pick<Drilled, "lost" | "missing">): IntegrityError {
  return new IntegrityError({
    code: "ERR_SNAPSHOT_UNVERIFIED",
    message: `the drill of ${on} failed: ${d.lost} newer writes lost, ${d.missing} rows not brought back`,
    why: `snapshot ${ref}, on a copy; expected none of either`,
    next: [{ actor: "anyone", text: "Do not rely on this snapshot. Take another one and drill again." }],
  });
}

type CopyDrilled = Omit<Drilled, "environment" | "takeMs">;

async function drillCopy(tools: Toolbox, on: string, chosen: VerifiedSnapshot): Promise<CopyDrilled> {
  if (chosen.manifest.level !== "database")
    throw new TargetError({
      code: "ERR_TARGET_UNSUPPORTED",
      message: `${chosen.record.id} holds ${chosen.manifest.level}, and a drill needs a whole database to put together`,
      next: [
        { actor: "anyone", argv: ["holdpoint", "snapshot", "take", "--on", on, "--snapshot", "database"] },
      ],
    });
  const scratch = tools.scratch();
  let copy: Target | undefined;
  try {
    const begun = tools.clock.now().getTime();
    const path = `${scratch.path}/drill.db`;
    const manifest = await tools.snapshots.restoreFile(chosen.record.id, path, chosen.record.manifest);
    copy = await openRestoredFile(tools, path, manifest);
    const restoreMs = tools.clock.now().getTime() - begun;
    const damage = await breakCopy(copy);
    const journal = await writeSome(copy, damage);
    const rescuedAt = tools.clock.now().getTime();
    const restored = await rescueCopy(tools, copy, chosen, damage);
    const rescueMs = tools.clock.now().getTime() - rescuedAt;
    return {
      target: on,
      snapshot: chosen.record.id,
      table: damage.shape.name,
      broken: damage.rows.length,
      written: journal.length,
      restored,
      lost: await differing(copy, damage.shape, journal),
      missing: await differing(copy, damage.shape, damage.rows),
      restoreMs,
      rescueMs,
    };
  } finally {
    await copy?.close();
    scratch.remove();
  }
}

interface Broken {
  readonly shape: TableShape;
  readonly rows: readonly Row[];
}

/** Deletes every n-th row of the largest table whose rows may go: others may refer to the rest. */
async function breakCopy(copy: Target): Promise<Broken> {
  const { tables } = await copy.schema();
  const sized: { readonly shape: TableShape; readonly rows: number }[] = [];
  for (const shape of tables) {
    const rows = await copy.countRows(shape.name);
    if (shape.keyKind !== "none" && rows > 1) sized.push({ shape, rows });
  }
  for (const { shape, rows } of sized.sort((a, b) => b.rows - a.rows)) {
    const picked = await everyNth(copy, shape, 1 / SHARE, 0);
    const changes = picked.map((row): Change => ({ ...factsOf(shape, row), op: "delete", before: row }));
    if (rows > picked.length && (await writeAll(copy, shape, changes))) return { shape, rows: picked };
  }
  throw new TargetError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `no table of ${copy.name} has rows that a drill could delete`,
    why: "expected a table with a key, two rows or more, and rows that nothing refers to",
  });
}

function factsOf(shape: TableShape, row: Row): Pick<Change, "table" | "key" | "origin"> {
  return { table: shape.name, key: keyOf(shape, row), origin: "unknown" };
}

async function everyNth(copy: Target, shape: TableShape, n: number, offset: number): Promise<readonly Row[]> {
  const picked: Row[] = [];
  let i = offset;
  for await (const row of copy.scan(shape)) {
    i += 1;
    if (i < n) continue;
    i -= n;
    picked.push(row);
    if (picked.length >= MOST_ROWS) break;
  }
  return picked;
}

/** People go on working: a cell of other rows gets a new value, in a column that takes one. */
async function writeSome(copy: Target, { shape }: Broken): Promise<readonly Row[]> {
  const others = await everyNth(copy, shape, 10, 5);
  for (const [at, column] of shape.columns.entries()) {
    if (shape.key.includes(at) || column.generated === true) continue;
    const changes = others.flatMap((row): Change[] => {
      const after = row.map((v, i) =>
        i !== at ? v : typeof v === "bigint" ? v + 1n : typeof v === "string" ? `${v} (drill)` : v,
      );
      return sameRow(row, after) ? [] : [{ ...factsOf(shape, row), op: "update", before: row, after }];
    });
    if (changes.length > 0 && (await writeAll(copy, shape, changes)))
      return changes.flatMap((c) => (c.op === "update" ? [c.after] : []));
  }
  return [];
}

/** Whether the copy took all of it; else nothing was written. */
async function writeAll(copy: Target, shape: TableShape, changes: readonly Change[]): Promise<boolean> {
  const byKey = [...changes].sort((a, b) => (keyText(a.key) < keyText(b.key) ? -1 : 1));
  const source: ChangeSource = { tables: [shape], changes: (t) => (t === shape.name ? byKey : []) };
  const session: WriteSession = await copy.openWriter();
  try {
    await session.begin();
    const { problems } = await session.write(source, []);
    if (problems.length > 0) {
      await session.rollback();
      return false;
    }
    await session.commit();
    return true;
  } finally {
    await session.close();
  }
}

async function rescueCopy(
  tools: Toolbox,
  copy: Target,
  chosen: VerifiedSnapshot,
  { shape }: Broken,
): Promise<number> {
  const image = await openImage(tools, chosen.record, chosen.manifest.level);
  try {
    const { changes, rowsBefore } = await compareStates(tools, image, await stateNow(copy), [shape.name]);
    try {
      const narrowed = await narrow(changes, { tables: [], columns: [], where: undefined }, "the drill");
      const declared = await declare(changes, [{ kind: "deleted" }], narrowed, {
        byRows: false,
        takenWhole: takenWhole(changes, rowsBefore),
      });
      const sorting = { declared, evidence: async () => null, decisions: deciding("stop", undefined) };
      const sorted = await sortRows(tools, copy, changes, sorting, { born: () => undefined });
      try {
        const session = await copy.openWriter();
        try {
          await session.begin();
          const { written } = await session.write(sorted.changes, []);
          await session.commit();
          return written;
        } finally {
          await session.close();
        }
      } finally {
        sorted.changes.close();
      }
    } finally {
      changes.close();
    }
  } finally {
    await image.close();
  }
}

/** How many of these rows are not there exactly as they are here. */
async function differing(copy: Target, shape: TableShape, rows: readonly Row[]): Promise<number> {
  let differ = 0;
  let i = 0;
  for await (const read of copy.readRows(
    shape,
    rows.map((row) => keyOf(shape, row)),
  )) {
    if (!sameRow(read.row, rows[i] ?? null)) differ += 1;
    i += 1;
  }
  return differ;
}
