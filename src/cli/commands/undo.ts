/** `undo`: take a run back, keep what others wrote since. */
import { Option } from "commander";
import { HoldpointError, RefusedError } from "../../base/errors.js";
import type { Value } from "../../changeset/value.js";
import { type OnConflict, type Undone, type UndoConflict, undoRun } from "../../operations/undo.js";
import { keyView } from "../../render/rows.js";
import { type ConflictView, renderUndo, type UndoEnd, type WholeRow } from "../../render/undo.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";
import { valueJson } from "../../render/json.js";
import { showing, type Showing } from "../views/rows.js";
import { confirmer } from "./apply.js";
import { textOf } from "./plan.js";

interface UndoFlags {
  readonly onConflict: OnConflict;
  readonly table: readonly string[];
  readonly key?: string;
  readonly out?: string;
  readonly reason?: string;
  readonly confirm?: string;
}

export const registerUndo: Register = (program, run) => {
  const command = program
    .command("undo")
    .argument("<run>", "a run's id, or the beginning of one")
    .addOption(
      new Option("--on-conflict <how>", "what to do where the same cell was changed since")
        .choices(["stop", "keep-now", "restore-before"])
        .default("stop"),
    )
    .option("--table <name>", "take back this table only; repeatable", collect, [])
    .option("--key <file>", "the SSH key that you sign the undo's plan with, where it needs approval")
    .option("--reason <text>", "why, for the approver and the ledger")
    .option("--out <file>", "also write the undo's plan to this file")
    .option("--confirm <target>", "the target's name, typed")
    .action((ref: string, flags: UndoFlags) => run("undo", (cx) => undo(cx, ref, flags)));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "take a run back by merging, keeping what others wrote since",
    description:
      "Inverts what the run wrote and merges it by column onto what is there now. Rows that others removed are not brought back, " +
      "cells that others changed are not overwritten: such conflicts stop it.\n" +
      "A clean undo that the run's approver covered is applied at once; any other becomes a plan to approve.",
    examples: [
      { line: "holdpoint undo rn_5c0e2fqa", what: "the whole run" },
      { line: "holdpoint undo rn_5c0e2fqa --on-conflict keep-now", what: "leave what others changed since" },
      { line: "holdpoint undo rn_5c0e2fqa --table orders", what: "one table" },
    ],
    exits: [21, 22, 30, 31, 33, 34, 35, 36, 37, 38, 39, 43, 130, 143],
  });
};

async function undo(cx: Context, ref: string, flags: UndoFlags): Promise<Outcome> {
  const tools = await cx.tools();
  const confirm = confirmer(cx, flags.confirm, "undo");
  try {
    const undone = await undoRun(tools, {
      run: ref,
      onConflict: flags.onConflict,
      tables: flags.table,
      key: flags.key,
      out: flags.out,
      reason: textOf("--reason", flags.reason),
      confirm,
    });
    return undoneOutcome(cx, undone, maskOf(tools.project.config.targets[undone.run.target]?.mask));
  } catch (e) {
    const conflict = conflictOutcome(cx, e, (target) => maskOf(tools.project.config.targets[target]?.mask));
    if (conflict !== null) return conflict;
    throw e;
  }
}

type MaskList = Parameters<typeof showing>[0];

function maskOf(mask: MaskList | undefined): Showing {
  return showing(mask ?? []);
}

function undoneOutcome(cx: Context, undone: Undone, how: Showing): Outcome {
  const { made, applied } = undone;
  const environment = made?.examined.verdict.name ?? "unproven";
  const waits = made !== null && applied === null ? waitingError(undone) : undefined;
  return {
    result: resultOf(undone, how),
    text: cx.screen(renderUndo, {
      banner: { verdict: environment, target: undone.run.target, note: `undo of ${undone.run.id}` },
      run: undone.run.id,
      counts: countsOf(undone.counts),
      conflicts: conflictViews(undone.conflicts, how),
      end: endOf(undone),
      next: [],
    }),
    targetChanged: applied === null || applied.rows.written === 0 ? "no" : "yes",
    ...(waits === undefined ? {} : { error: waits }),
  };
}

function endOf(undone: Undone): UndoEnd {
  const { made, applied } = undone;
  if (applied !== null && applied.run !== null) {
    return {
      kind: "applied",
      run: applied.run,
      seconds: applied.tookMs / 1000,
      written: applied.rows.written,
    };
  }
  if (made !== null) return { kind: "planned", plan: made.id, why: undone.waiting ?? "it needs approval" };
  return { kind: "nothing" };
}

/** An undo that waits for a person ends in 21, with the plan to approve. */
function waitingError(undone: Undone): HoldpointError {
  const { made } = undone;
  if (made?.decision.kind === "deny") {
    return new RefusedError({
      code: "ERR_POLICY_DENIED",
      message: `policy denies ${made.id}`,
      why: made.decision.rules
        .filter((r) => r.effect === "deny" || r.effect === "error")
        .map((r) => `${r.rule}: ${r.because}`)
        .join("; "),
    });
  }
  const id = made?.id ?? "PLAN";
  const unsigned = made?.statement.requester.person === null;
  return new RefusedError({
    code: "ERR_APPROVAL_NEEDED",
    message: `${id} waits for an approval`,
    why: `${undone.waiting ?? "it needs approval"}${unsigned ? "; it is unsigned, so it needs one more person than policy asks for" : ""}`,
    next: [
      { actor: "approver", argv: ["holdpoint", "approve", id] },
      { actor: "requester", argv: ["holdpoint", "apply", id, "--confirm", undone.run.target] },
    ],
  });
}

function resultOf(undone: Undone, how: Showing): Record<string, unknown> {
  return {
    plan: undone.made?.id ?? null,
    run: undone.applied?.run ?? null,
    undoes: undone.run.id,
    counts: countsOf(undone.counts),
    conflicts: conflictsJson(undone.conflicts, how),
  };
}

function countsOf(c: Undone["counts"]): {
  readonly put_back: number;
  readonly nothing_to_do: number;
  readonly merged: number;
  readonly conflict: number;
  readonly gone: number;
} {
  return {
    put_back: c.putBack,
    nothing_to_do: c.nothingToDo + c.gone,
    merged: c.merged,
    conflict: c.conflict,
    gone: c.gone,
  };
}

/** Conflicts come as an error whose details are the rows; here they become the screen and the document. */
function conflictOutcome(cx: Context, e: unknown, howFor: (target: string) => Showing): Outcome | null {
  if (!(e instanceof HoldpointError) || e.code !== "ERR_UNDO_CONFLICT" || !isConflictDetails(e.details))
    return null;
  const { counts, conflicts, target, run, environment } = e.details;
  const how = howFor(target);
  const shown = new RefusedError({ code: e.code, message: e.message, why: e.why ?? "", next: e.next });
  return {
    result: {
      plan: null,
      run: null,
      undoes: run,
      counts: countsOf(counts),
      conflicts: conflictsJson(conflicts, how),
    },
    text: cx.screen(renderUndo, {
      banner: { verdict: environment, target, note: `undo of ${run}` },
      run,
      counts: countsOf(counts),
      conflicts: conflictViews(conflicts, how),
      end: { kind: "conflict", resolutions: null },
      next: [],
    }),
    error: shown,
  };
}

/** What undo tells about conflicts, see `operations/undo.ts`. */
interface ConflictDetails {
  readonly counts: Undone["counts"];
  readonly conflicts: readonly UndoConflict[];
  readonly target: string;
  readonly run: string;
  readonly environment: "production" | "staging" | "development" | "unproven";
}

function isConflictDetails(v: unknown): v is ConflictDetails {
  return typeof v === "object" && v !== null && "conflicts" in v && "counts" in v && "environment" in v;
}

function conflictViews(conflicts: readonly UndoConflict[], how: Showing): ConflictView[] {
  return conflicts.flatMap((c): ConflictView[] => {
    const options = how.optionsFor(c.table);
    const base = { kind: c.kind, table: c.table, key: keyView(c.key, c.shape, options) };
    if (c.columns.length === 0) return [{ ...base, column: null, ...wholeRows(c) }];
    return c.columns.map((cell) => ({
      ...base,
      column: cell.column,
      before: shown(c.table, cell.column, cell.before, how),
      wrote: shown(c.table, cell.column, cell.wrote, how),
      now: shown(c.table, cell.column, cell.now, how),
    }));
  });
}

function shown(table: string, column: string, v: Value | undefined, how: Showing): ConflictView["now"] {
  if (v === undefined) return { kind: "row", exists: false };
  return how.isMasked(table, column) ? how.mask(v) : v;
}

function wholeRows(c: UndoConflict): {
  readonly before: WholeRow;
  readonly wrote: WholeRow;
  readonly now: WholeRow;
} {
  const row = (r: unknown): WholeRow => ({ kind: "row", exists: r !== null });
  return { before: row(c.before), wrote: row(c.wrote), now: row(c.now) };
}

function conflictsJson(conflicts: readonly UndoConflict[], how: Showing): unknown[] {
  return conflicts.flatMap((c): unknown[] => {
    const key = Object.fromEntries(
      c.shape.key.map((at, i) => {
        const column = c.shape.columns[at]?.name ?? "";
        return [column, jsonCell(c.table, column, c.key[i], how)];
      }),
    );
    const base = { table: c.table, key, kind: c.kind };
    if (c.columns.length === 0) return [{ ...base, column: null, before: null, wrote: null, now: null }];
    return c.columns.map((cell) => ({
      ...base,
      column: cell.column,
      before: jsonCell(c.table, cell.column, cell.before, how),
      wrote: jsonCell(c.table, cell.column, cell.wrote, how),
      now: jsonCell(c.table, cell.column, cell.now, how),
    }));
  });
}

/** An image without a row has null cells, like NULL; `kind` tells them apart. */
function jsonCell(table: string, column: string, v: Value | undefined, how: Showing): unknown {
  if (v === undefined || v === null) return null;
  return how.isMasked(table, column) ? `····@${how.mask(v).tag}` : valueJson(v);
}
