/** `undo`: take a run back, keep what others wrote since. */
import { Option } from "commander";
import { HoldpointError, type NextStep, RefusedError } from "../../base/errors.js";
import { readResolutions, writeResolutions } from "../../config/resolutions-file.js";
import { type OnConflict, type Undone, undoRun, type UndoStop } from "../../operations/undo.js";
import { type Narrowing, narrowingFlags } from "../../operations/merging/narrow.js";
import { commandLine } from "../../render/command.js";
import { renderUndo, type UndoEnd } from "../../render/undo.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";
import { type PacingFlags, pacingOf, pacingOptions } from "../pacing.js";
import {
  CONFLICTS_SHOWN,
  conflictsByTenant,
  conflictsJson,
  conflictViews,
  maskOf,
  rowsToDecide,
} from "../views/conflicts.js";
import type { Showing } from "../views/rows.js";
import { confirmer } from "./apply.js";
import { textOf } from "./plan.js";
import { approveStep } from "../views/plan.js";

interface UndoFlags extends PacingFlags {
  readonly putBack?: boolean;
  readonly onConflict: OnConflict;
  readonly resolutions?: string;
  readonly table: readonly string[];
  readonly column: readonly string[];
  readonly where?: string;
  readonly key?: string;
  readonly out?: string;
  readonly reason?: string;
  readonly confirm?: string;
}

export const registerUndo: Register = (program, run) => {
  const command = pacingOptions(program.command("undo"))
    .option("--put-back", "put a wave back when a check fails after it; else the run just stops")
    .argument("<run...>", "a run's id, or the beginning of one; several are taken back newest first")
    .addOption(
      new Option("--on-conflict <how>", "what to do where the same cell was changed since")
        .choices(["stop", "keep-now", "restore-before"])
        .default("stop"),
    )
    .option("--resolutions <file>", "decisions row by row, in the file that a conflict writes")
    .option("--table <name>", "take back this table only; repeatable", collect, [])
    .option(
      "--column <name>",
      "put back this column only, of rows that were updated; repeatable",
      collect,
      [],
    )
    .option("--where <expr>", "take back rows that satisfy this SQL expression (x, before_x, now_x) only")
    .option("--key <file>", "the SSH key that you sign the undo's plan with, where it needs approval")
    .option("--reason <text>", "why, for the approver and the ledger")
    .option("--out <file>", "also write the undo's plan to this file")
    .option("--confirm <target>", "the target's name, typed")
    .action((refs: readonly string[], flags: UndoFlags) => run("undo", (cx) => undo(cx, refs, flags)));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "take a run back by merging, keeping what others wrote since",
    description:
      "Inverts what the run wrote and merges it by column onto what is there now. Rows that others removed are not brought back, " +
      "cells that others changed are not overwritten: such conflicts stop it, and are written to a file to decide row by row.\n" +
      "A clean undo that the run's approver covered is applied at once; any other becomes a plan to approve.",
    examples: [
      { line: "holdpoint undo rn_5c0e2fqa", what: "the whole run" },
      { line: "holdpoint undo rn_5c0e2fqa --on-conflict keep-now", what: "leave what others changed since" },
      {
        line: "holdpoint undo rn_5c0e2fqa --resolutions conflicts-rn_5c0e2fqa.yaml",
        what: "as decided, row by row",
      },
      { line: "holdpoint undo rn_5c0e2fqa --table orders", what: "one table" },
      { line: "holdpoint undo rn_5c0e2fqa --column orders.status", what: "one column" },
      { line: 'holdpoint undo rn_5c0e2fqa --where "tenant = 7 AND id < 900"', what: "some rows" },
      { line: "holdpoint undo rn_5c0e2fqa rn_7b11d0xe", what: "two runs, the newer one first" },
    ],
    exits: [21, 22, 30, 31, 33, 34, 35, 36, 37, 38, 39, 43, 130, 143],
  });
};

async function undo(cx: Context, refs: readonly string[], flags: UndoFlags): Promise<Outcome> {
  const pacing = pacingOf(flags);
  const tools = await cx.tools();
  const confirm = confirmer(cx, flags.confirm, "undo");
  const narrowing: Narrowing = {
    tables: flags.table,
    columns: flags.column,
    where: textOf("--where", flags.where) ?? undefined,
  };
  try {
    const undone = await undoRun(tools, {
      runs: refs,
      onConflict: flags.onConflict,
      resolutions:
        flags.resolutions === undefined ? undefined : await readResolutions(cx.cwd, flags.resolutions),
      ...narrowing,
      key: flags.key,
      out: flags.out,
      reason: textOf("--reason", flags.reason),
      pacing,
      putBack: flags.putBack === true,
      confirm,
    });
    const config = tools.project.config.targets[undone.target];
    return undoneOutcome(cx, undone, maskOf(config?.mask), config?.tenant ?? []);
  } catch (e) {
    const stop = stopOf(e);
    if (stop === null) throw e;
    const config = tools.project.config.targets[stop.facts.target];
    return await stoppedOutcome(cx, stop, narrowing, maskOf(config?.mask), config?.tenant ?? []);
  }
}

/** Columns that say whose a row is. */
type TenantColumns = Parameters<typeof conflictsByTenant>[1];

function undoneOutcome(cx: Context, undone: Undone, how: Showing, tenant: TenantColumns): Outcome {
  const byTenant = conflictsByTenant(undone.conflicts, tenant, how);
  const { made, applied } = undone;
  const environment = made?.examined.verdict.name ?? "unproven";
  const waits = made !== null && applied === null ? waitingError(undone) : undefined;
  return {
    result: { ...resultOf(undone, how), conflicts_by_tenant: byTenant.json },
    text: cx.screen(renderUndo, {
      banner: { verdict: environment, target: undone.target, note: `undo of ${namesOf(undone)}` },
      run: namesOf(undone),
      undid: undone.runs.flatMap((r) => r.undoes),
      counts: countsOf(undone.counts),
      conflicts: conflictViews(undone.conflicts, how).slice(0, CONFLICTS_SHOWN),
      byTenant: byTenant.view,
      end: endOf(undone),
      next: [],
    }),
    targetChanged: applied === null || applied.rows.written + applied.schemaChanges === 0 ? "no" : "yes",
    warnings: undone.left,
    ...(waits === undefined ? {} : { error: waits }),
  };
}

function namesOf(undone: Undone): string {
  return undone.runs.map((r) => r.id).join(", ");
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
      // In a pipeline a key may have no say.
      ...(unsigned && made.statement.requester.claims["ci"] === undefined
        ? [
            {
              actor: "requester" as const,
              argv: ["holdpoint", "undo", ...undone.runs.map((r) => r.id), "--key", "KEY"],
              text: "signed, one person less is needed",
            },
          ]
        : []),
      made === null
        ? { actor: "approver", argv: ["holdpoint", "approve", id] }
        : approveStep(id, made.decision),
      { actor: "requester", argv: ["holdpoint", "apply", id, "--confirm", undone.target] },
    ],
  });
}

function resultOf(undone: Undone, how: Showing): Record<string, unknown> {
  return {
    plan: undone.made?.id ?? null,
    run: undone.applied?.run ?? null,
    undoes: undone.runs.map((r) => r.id),
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
  readonly reversed: number;
  readonly left: number;
  readonly outside: number;
} {
  return {
    put_back: c.putBack,
    nothing_to_do: c.nothingToDo + c.gone + c.left,
    merged: c.merged,
    conflict: c.conflict,
    gone: c.gone,
    reversed: c.reversed,
    left: c.left,
    outside: c.outside,
  };
}

/** A stop comes as an error whose details are the rows; here they become the screen, the document and a file. */
interface Stop {
  readonly error: HoldpointError;
  readonly facts: UndoStop;
}

function stopOf(e: unknown): Stop | null {
  if (!(e instanceof HoldpointError) || e.code !== "ERR_UNDO_CONFLICT" || !isStop(e.details)) return null;
  return { error: e, facts: e.details };
}

function isStop(v: unknown): v is UndoStop {
  return typeof v === "object" && v !== null && "conflicts" in v && "counts" in v && "runs" in v;
}

async function stoppedOutcome(
  cx: Context,
  { error, facts }: Stop,
  narrowing: Narrowing,
  how: Showing,
  tenant: TenantColumns,
): Promise<Outcome> {
  const { counts, conflicts, target, runs, environment } = facts;
  const names = runs.join(", ");
  const byTenant = conflictsByTenant(conflicts, tenant, how);
  const command = (file: string): readonly string[] => [
    "holdpoint",
    "undo",
    ...runs,
    ...narrowingFlags(narrowing),
    "--resolutions",
    file,
  ];
  const file =
    conflicts.length === 0
      ? null
      : await writeResolutions(
          cx.cwd,
          `conflicts-${runs[0] ?? ""}`,
          { of: runs, target },
          rowsToDecide(conflicts, how),
          (f) => commandLine(command(f)),
        );
  const decide: readonly NextStep[] =
    file === null ? [] : [{ actor: "requester", argv: command(file), text: "decide each (file written)" }];
  return {
    result: {
      plan: null,
      run: null,
      undoes: runs,
      counts: countsOf(counts),
      conflicts: conflictsJson(conflicts, how),
      conflicts_by_tenant: byTenant.json,
      resolutions: file,
    },
    text: cx.screen(renderUndo, {
      banner: { verdict: environment, target, note: `undo of ${names}` },
      run: names,
      undid: [],
      counts: countsOf(counts),
      conflicts: conflictViews(conflicts, how).slice(0, CONFLICTS_SHOWN),
      byTenant: byTenant.view,
      end: { kind: "conflict", resolutions: file },
      next: [],
    }),
    error: new RefusedError({
      code: error.code,
      message: error.message,
      why: error.why ?? "",
      next: [...error.next, ...decide],
    }),
  };
}
