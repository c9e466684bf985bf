/** `rescue`: from a snapshot, when nobody recorded the damage. */
import { appendFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { codeOf, HoldpointError, type NextStep, RefusedError, UsageError } from "../../base/errors.js";
import type { RowKey, TableShape } from "../../changeset/change.js";
import type { Value } from "../../changeset/value.js";
import { readKeys } from "../../config/keys-file.js";
import { readResolutions, writeResolutions } from "../../config/resolutions-file.js";
import { parseDamage } from "../../operations/merging/damage.js";
import { narrowingFlags } from "../../operations/merging/narrow.js";
import { rescue, type Rescued } from "../../operations/rescue.js";
import { commandLine } from "../../render/command.js";
import { valueJson } from "../../render/json.js";
import { renderRescue } from "../../render/rescue.js";
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
import { patternViews, type Showing } from "../views/rows.js";
import { textOf } from "./plan.js";
import { approveStep } from "../views/plan.js";

interface RescueFlags extends PacingFlags {
  readonly putBack?: boolean;
  readonly on: string;
  readonly from?: string;
  readonly damage: readonly string[];
  readonly table: readonly string[];
  readonly column: readonly string[];
  readonly where?: string;
  readonly keys?: string;
  readonly since?: string;
  readonly until?: string;
  readonly timeColumn: readonly string[];
  readonly author: readonly string[];
  readonly transaction?: string;
  readonly resolutions?: string;
  readonly born?: string;
  readonly key?: string;
  readonly out?: string;
  readonly reason?: string;
}

export const registerRescue: Register = (program, run) => {
  const command = pacingOptions(program.command("rescue"))
    .option("--put-back", "put a wave back when a check fails after it; else the run just stops")
    .requiredOption("--on <target>", "the target, named")
    .option("--from <snapshot>", "a snapshot's id; without it the newest one that can be verified")
    .option(
      "--damage <what>",
      'what the damage did: deleted, or "COLUMN = SQL EXPRESSION"; repeatable',
      collect,
      [],
    )
    .option("--table <name>", "look at this table only; repeatable", collect, [])
    .option("--column <name>", "the damage changed this column, whatever to; repeatable", collect, [])
    .option("--where <expr>", "the damaged rows: an SQL expression over x or before_x, and now_x")
    .option("--keys <file>", "the damaged rows: a list of keys, one JSON a line, as --born writes it")
    .option("--since <time>", "only rows whose time column now holds this time or a later one")
    .option("--until <time>", "only rows whose time column now holds an earlier time")
    .option(
      "--time-column <column>",
      "TABLE.COLUMN that says when a row was written; repeatable, else newest_row of the configuration",
      collect,
      [],
    )
    .option(
      "--author <column=value>",
      "the damaged rows: those whose column now names this writer; repeatable",
      collect,
      [],
    )
    .option("--transaction <number>", "the damaged rows: those that this transaction wrote as they are now")
    .option("--resolutions <file>", "decisions row by row, in the file that an earlier rescue wrote")
    .option("--born <file>", "write the keys of rows born since the snapshot to a new file, one JSON a line")
    .option("--key <file>", "the SSH key that you sign the plan with")
    .option("--reason <text>", "why, for the approver and the ledger")
    .option("--out <file>", "also write the plan to this file")
    .action((flags: RescueFlags) => run("rescue", (cx) => rescueTarget(cx, flags)));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "bring back what damage took, from a snapshot, keeping what others wrote since",
    description:
      "Compares a verified snapshot with the target, row by row and cell by cell, and makes a plan of what certainly is damage; it writes nothing.\n" +
      "Without a declaration it shows what changed since and decides nothing. Say what the damage did with --damage, --column and " +
      "--where, --keys, --author or --transaction, and narrow it with --table, --since and --until; rows that this does not decide are listed and written to a file. Rows born since are never touched.",
    examples: [
      { line: "holdpoint rescue --on elb-prod", what: "what changed since the newest good snapshot" },
      {
        line: "holdpoint rescue --on elb-prod --damage \"deleted_at = '2012-12-24'\"",
        what: "a column was set to a value",
      },
      {
        line: "holdpoint rescue --on blog-prod --table comments --damage deleted",
        what: "rows were deleted",
      },
      {
        line: "holdpoint rescue --on elb-prod --damage deleted --waves balancer:1,8,100% --put-back",
        what: "one balancer first, then seven, then the rest, with checks between",
      },
      {
        line: 'holdpoint rescue --on elb-prod --table back_ends --where "balancer IN (7, 9)"',
        what: "everything in these rows",
      },
      {
        line: 'holdpoint rescue --on elb-prod --damage "weight = 0" --since 2012-12-24T20:24Z --time-column back_ends.changed_at',
        what: "a column, where it was written from then on",
      },
    ],
    exits: [30, 32, 33, 34, 35, 36, 37, 38, 39],
  });
};

async function rescueTarget(cx: Context, flags: RescueFlags): Promise<Outcome> {
  const damage = flags.damage.map(parseDamage);
  const pacing = pacingOf(flags);
  const tools = await cx.tools();
  const how = maskOf(tools.project.config.targets[flags.on]?.mask);
  const rescued = await rescue(tools, {
    on: flags.on,
    from: textOf("--from", flags.from),
    damage,
    tables: flags.table,
    columns: flags.column,
    where: textOf("--where", flags.where) ?? undefined,
    timeColumns: flags.timeColumn,
    authors: flags.author,
    ...(flags.keys === undefined ? {} : { keys: { list: await readKeys(cx.cwd, flags.keys), cellText } }),
    ...(flags.since === undefined ? {} : { since: flags.since }),
    ...(flags.until === undefined ? {} : { until: flags.until }),
    ...(flags.transaction === undefined ? {} : { transaction: flags.transaction }),
    resolutions:
      flags.resolutions === undefined ? undefined : await readResolutions(cx.cwd, flags.resolutions),
    key: flags.key,
    out: flags.out,
    reason: textOf("--reason", flags.reason),
    pacing,
    putBack: flags.putBack === true,
    born: bornWriter(cx, flags.born, how),
  });
  return outcomeOf(cx, rescued, flags, how, tools.project.config.targets[flags.on]?.tenant ?? []);
}

/** A cell of a key as `--born` writes it. */
function cellText(v: Value): string {
  return JSON.stringify(valueJson(v));
}

/** Identities that were given out since the snapshot: other systems know them, and a restore would give them out again. */
function bornWriter(
  cx: Context,
  file: string | undefined,
  how: Showing,
): (shape: TableShape, key: RowKey) => void {
  if (file === undefined) return () => undefined;
  const path = resolve(cx.cwd, file);
  try {
    writeFileSync(path, "", { flag: "wx", mode: 0o600 });
  } catch (e) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `${file} cannot be written`,
      why: codeOf(e) === "EEXIST" ? "it exists already; nothing is overwritten" : (codeOf(e) ?? "unknown"),
      cause: e,
    });
  }
  return (shape, key) => {
    const named = shape.key.map((at, i) => {
      const column = shape.columns[at]?.name ?? "";
      const value = key[i] ?? null;
      return [column, how.isMasked(shape.name, column) ? `····@${how.mask(value).tag}` : valueJson(value)];
    });
    appendFileSync(path, `${JSON.stringify({ table: shape.name, key: Object.fromEntries(named) })}\n`);
  };
}

async function outcomeOf(
  cx: Context,
  rescued: Rescued,
  flags: RescueFlags,
  how: Showing,
  tenant: Parameters<typeof conflictsByTenant>[1],
): Promise<Outcome> {
  const byTenant = conflictsByTenant(rescued.conflicts, tenant, how);
  const { counts, made } = rescued;
  const open = counts.conflict + counts.undecidable;
  const declared = declaredWords(flags);
  const file = await writeFileOf(
    cx,
    rescued,
    declared.length > 0 || flags.table.length > 0 || windowWords(flags).length > 0,
    flags,
    how,
  );
  const next = nextSteps(rescued, file, flags);
  return {
    result: { ...resultOf(rescued, file, how), conflicts_by_tenant: byTenant.json },
    text: cx.screen(renderRescue, {
      banner: {
        verdict: rescued.environment,
        target: rescued.target,
        note: "this makes a plan, it does not write",
      },
      snapshot: rescued.snapshot,
      rejected: rescued.rejected,
      damage: declared,
      only: windowWords(flags),
      counts,
      changed: declared.length > 0 || rescued.changed === null ? [] : patternViews(rescued.changed, how),
      conflicts: declared.length === 0 ? [] : conflictViews(rescued.conflicts, how).slice(0, CONFLICTS_SHOWN),
      byTenant: declared.length === 0 ? [] : byTenant.view,
      plan: made?.id ?? null,
      resolutions: file,
      next: open > 0 ? [] : next,
    }),
    warnings: [
      ...rescued.rejected.map((r) => `${r.id} of ${r.at} was rejected: ${r.why}`),
      ...leftWords(rescued, flags),
    ],
    ...(open > 0 ? { error: openError(rescued, open, next) } : denial(rescued)),
  };
}

/** Nothing declared yet: the screen is a report of what changed, and a file of all of it would help nobody. */
async function writeFileOf(
  cx: Context,
  rescued: Rescued,
  narrowed: boolean,
  flags: RescueFlags,
  how: Showing,
): Promise<string | null> {
  if (rescued.conflicts.length === 0 || !narrowed) return null;
  const head = { of: [rescued.snapshot.id], target: rescued.target };
  return writeResolutions(
    cx.cwd,
    `conflicts-${rescued.snapshot.id}`,
    head,
    rowsToDecide(rescued.conflicts, how),
    (name) => commandLine(again(rescued, flags, name)),
  );
}

function declaredWords(flags: RescueFlags): string[] {
  return [
    ...flags.damage,
    ...flags.column.map((c) => `column ${c}`),
    ...(flags.where === undefined ? [] : [`rows where ${flags.where}`]),
    ...(flags.keys === undefined ? [] : [`rows in ${flags.keys}`]),
    ...flags.author.map((a) => `rows where now ${a}`),
    ...(flags.transaction === undefined ? [] : [`rows that transaction ${flags.transaction} wrote`]),
  ];
}

/** A time narrows and declares nothing: others wrote in it too. */
function windowWords(flags: RescueFlags): string[] {
  const words = [
    ...(flags.since === undefined ? [] : [`since ${flags.since}`]),
    ...(flags.until === undefined ? [] : [`until ${flags.until}`]),
  ];
  return words.length === 0 ? [] : [`rows written ${words.join(" ")}`];
}

function leftWords({ untold, strayKeys }: Rescued, flags: RescueFlags): string[] {
  const rows = (n: number): string => (n === 1 ? "1 row" : `${n} rows`);
  return [
    ...(untold === 0
      ? []
      : [
          `${rows(untold)} left alone: gone, or nothing in the row says when, by whom or in which transaction it was written`,
        ]),
    ...(strayKeys === 0
      ? []
      : [
          `${strayKeys} ${strayKeys === 1 ? "key" : "keys"} of ${flags.keys ?? ""} named no row that changed since the snapshot`,
        ]),
  ];
}

function again(rescued: Rescued, flags: RescueFlags, file: string): string[] {
  const many = (flag: string, values: readonly string[]): string[] => values.flatMap((v) => [flag, v]);
  const one = (flag: string, value: string | undefined): string[] =>
    value === undefined ? [] : [flag, value];
  return [
    "holdpoint",
    "rescue",
    ...many("--on", [rescued.target]),
    ...many("--from", [rescued.snapshot.id]),
    ...many("--damage", flags.damage),
    ...narrowingFlags({ tables: flags.table, columns: flags.column, where: flags.where }),
    ...one("--keys", flags.keys),
    ...one("--since", flags.since),
    ...one("--until", flags.until),
    ...many("--time-column", flags.timeColumn),
    ...many("--author", flags.author),
    ...one("--transaction", flags.transaction),
    ...many("--resolutions", [file]),
  ];
}

function nextSteps(rescued: Rescued, file: string | null, flags: RescueFlags): NextStep[] {
  const { made } = rescued;
  const decide: NextStep[] =
    file === null
      ? []
      : [{ actor: "requester", argv: again(rescued, flags, file), text: "decide each (file written)" }];
  const declare: NextStep[] =
    rescued.counts.undecidable > 0 && declaredWords(flags).length === 0
      ? [
          {
            actor: "requester",
            text: 'Say what of this is damage: --damage deleted, --damage "COLUMN = VALUE", --where "…"; see holdpoint rescue --help.',
          },
        ]
      : [];
  const plan: NextStep[] =
    made === null
      ? []
      : [
          approveStep(made.id, made.decision),
          { actor: "requester", argv: ["holdpoint", "apply", made.id, "--confirm", rescued.target] },
        ];
  return [...declare, ...decide, ...plan];
}

function openError(rescued: Rescued, open: number, next: readonly NextStep[]): HoldpointError {
  const { counts } = rescued;
  return new RefusedError({
    code: "ERR_RESCUE_CONFLICT",
    message: `${open} ${open === 1 ? "row" : "rows"} of ${rescued.target} cannot be decided without a person`,
    why: [
      ...(counts.conflict > 0 ? [`${counts.conflict} in conflict`] : []),
      ...(counts.undecidable > 0 ? [`${counts.undecidable} that the damage or its owner changed`] : []),
    ].join(", "),
    next,
  });
}

function denial(rescued: Rescued): { readonly error?: HoldpointError } {
  const { made } = rescued;
  if (made?.decision.kind !== "deny") return {};
  return {
    error: new RefusedError({
      code: "ERR_POLICY_DENIED",
      message: `policy denies ${made.id}`,
      why: made.decision.rules
        .filter((r) => r.effect === "deny" || r.effect === "error")
        .map((r) => `${r.rule}: ${r.because}`)
        .join("; "),
    }),
  };
}

function resultOf(rescued: Rescued, file: string | null, how: Showing): Record<string, unknown> {
  const { counts, made } = rescued;
  return {
    plan: made?.id ?? null,
    run: null,
    file: made?.file ?? null,
    snapshot: rescued.snapshot.id,
    snapshot_at: rescued.snapshot.at,
    rejected: rescued.rejected.map((r) => ({ snapshot: r.id, at: r.at, why: r.why })),
    counts: {
      put_back: counts.restored,
      merged: counts.merged,
      nothing_to_do: counts.removed + counts.kept + counts.other,
      conflict: counts.conflict,
      undecidable: counts.undecidable,
      removed: counts.removed,
      kept: counts.kept,
      other: counts.other,
      born: counts.born,
    },
    conflicts: conflictsJson(rescued.conflicts, how),
    removed: rescued.removed.map((r) => ({
      table: r.table,
      key: Object.fromEntries(
        r.shape.key.map((at, i) => {
          const column = r.shape.columns[at]?.name ?? "";
          const value = r.key[i] ?? null;
          return [column, how.isMasked(r.table, column) ? `····@${how.mask(value).tag}` : valueJson(value)];
        }),
      ),
    })),
    born: rescued.born,
    resolutions: file,
  };
}
