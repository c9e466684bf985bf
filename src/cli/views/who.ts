/** One row's history, for `log who`. */
import { UsageError } from "../../base/errors.js";
import type { RowKey, TableShape } from "../../changeset/change.js";
import type { Row, Value } from "../../changeset/value.js";
import { type RowHistory, type Touch, whoTouched } from "../../operations/who.js";
import { valueJson } from "../../render/json.js";
import { keyView } from "../../render/rows.js";
import { renderWho, type WhoView } from "../../render/snapshot.js";
import type { Context, Outcome } from "../command.js";
import { maskOf } from "./conflicts.js";
import type { Showing } from "./rows.js";

/** Asks who touched a row, and shows it. */
export async function whoRow(
  cx: Context,
  on: string | undefined,
  table: string,
  key: readonly string[],
): Promise<Outcome> {
  if (on === undefined)
    throw new UsageError({
      code: "ERR_USAGE",
      message: "--on TARGET is missing",
      why: "there is no default target",
    });
  const tools = await cx.tools();
  const history = await whoTouched(tools, on, table, key);
  const how = maskOf(tools.project.config.targets[on]?.mask);
  return {
    result: {
      table,
      key: keyJson(history.shape, history.key, how),
      runs: history.touches.map((t) => ({
        run: t.run.id,
        at: t.run.endedAt ?? t.run.startedAt,
        job: t.run.job,
        by: t.run.by,
        approvers: t.run.approvers,
        state: t.run.state,
        before: rowJson(history.shape, t.before, how),
        after: rowJson(history.shape, t.after, how),
      })),
      now: rowJson(history.shape, history.now, how),
      snapshots: history.sightings.map((s) => ({
        snapshot: s.snapshot,
        at: s.at,
        row: rowJson(history.shape, s.row, how),
      })),
      elsewhere: history.elsewhere,
    },
    text: cx.screen(renderWho, viewOf(history, how)),
  };
}

function viewOf(history: RowHistory, how: Showing): WhoView {
  const { shape } = history;
  return {
    table: shape.name,
    key: keyView(history.key, shape, how.optionsFor(shape.name)),
    touches: history.touches.map((t) => ({
      at: t.run.endedAt ?? t.run.startedAt,
      run: t.run.id,
      job: t.run.job,
      by: t.run.by ?? "-",
      cells: cellsOf(shape, t, how),
      what: whatOf(t),
    })),
    elsewhere: history.elsewhere,
    next:
      history.elsewhere === null
        ? []
        : [{ actor: "anyone", argv: ["holdpoint", "rescue", "--on", history.target, "--table", shape.name] }],
  };
}

function whatOf(t: Touch): string {
  if (t.before === undefined) return "its rows were destroyed";
  return t.before === null ? "row written" : "row deleted";
}

/** The cells that an update changed; none for a row that came or went. */
function cellsOf(shape: TableShape, t: Touch, how: Showing): WhoView["touches"][number]["cells"] {
  const { before, after } = t;
  if (before === undefined || after === undefined) return null;
  if (before === null || after === null) return [];
  const show = (column: string, v: Value) => (how.isMasked(shape.name, column) ? how.mask(v) : v);
  return t.changed.map((i) => {
    const column = shape.columns[i]?.name ?? "";
    return { column, before: show(column, before[i] ?? null), after: show(column, after[i] ?? null) };
  });
}

function keyJson(shape: TableShape, key: RowKey, how: Showing): Record<string, unknown> {
  return Object.fromEntries(shape.key.map((at, i) => cellJson(shape, at, key[i] ?? null, how)));
}

/** Null where there was no row; undefined, and so left out, where it was destroyed. */
function rowJson(
  shape: TableShape,
  row: Row | null | undefined,
  how: Showing,
): Record<string, unknown> | null | undefined {
  if (row === null || row === undefined) return row;
  return Object.fromEntries(row.map((v, i) => cellJson(shape, i, v, how)));
}

function cellJson(shape: TableShape, at: number, v: Value, how: Showing): readonly [string, unknown] {
  const column = shape.columns[at]?.name ?? "";
  return [column, how.isMasked(shape.name, column) ? `····@${how.mask(v).tag}` : valueJson(v)];
}
