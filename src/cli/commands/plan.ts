/** `plan`: what would happen, row by row, before anything does. */
import type { Command } from "commander";
import { parseDuration } from "../../base/clock.js";
import { type NextStep, RefusedError, UsageError } from "../../base/errors.js";
import { makePlan } from "../../operations/plan.js";
import { PLAN_LIFETIME_SECONDS, type PlanMade } from "../../operations/planning/seal-plan.js";
import { provePlan } from "../../operations/prove.js";
import type { JobRequest, PreparedJob, Toolbox } from "../../operations/toolbox.js";
import { renderPlan } from "../../render/plan.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";
import { show } from "./show.js";
import { type PacingFlags, pacingOf, pacingOptions } from "../pacing.js";
import { nearPath } from "../near-path.js";
import { approveStep, planResult, planView, type PlanFactsView } from "../views/plan.js";
import { showing } from "../views/rows.js";

/** The flags of {@link planOptions}. */
export interface PlanFlags extends PacingFlags {
  readonly putBack?: boolean;
  readonly mode?: string;
  readonly twice?: boolean;
  readonly once?: boolean;
  readonly snapshot?: string;
  readonly on: string;
  readonly set: readonly string[];
  readonly key?: string;
  readonly reason?: string;
  readonly ticket?: string;
  readonly out?: string;
  readonly expires?: string;
  readonly detailedExitcode?: boolean;
}

export const registerPlan: Register = (program, run, tail) => {
  const command = planOptions(program.command("plan"))
    .option("--detailed-exitcode", "end with 20 when there are changes")
    .option(
      "--prove",
      "JOB is a plan of this pipeline: put the token of this CI job into it, which is for its digest",
    )
    .action((job: string | undefined, flags: PlanFlags & { readonly prove?: boolean }) =>
      flags.prove === true
        ? run("show", (cx) => prove(cx, job, flags.on))
        : run("plan", (cx) => plan(cx, job, tail, flags)),
    );
  describeCommand(command, {
    group: "Lifecycle",
    summary: "show row by row what a job would do; nothing is kept",
    examples: [
      {
        line: "holdpoint plan purge-idle --on elb-prod --set older_than_days=90",
        what: "a job of holdpoint.yaml",
      },
      { line: "holdpoint plan jobs/fix.sql --on elb-prod --ticket OPS-1", what: "an SQL file" },
      {
        line: "holdpoint plan --on elb-prod -- ./purge.sh {database}",
        what: "any command line, on a private copy",
      },
    ],
    exits: [20, 30, 32, 33, 34, 35, 38, 39],
  });
};

/** What a command takes that makes a plan of a job. */
export function planOptions(command: Command): Command {
  return pacingOptions(command)
    .option(
      "--mode <mode>",
      "rows, or script: an SQL file runs again at apply, and stays only if its effect is the signed one",
    )
    .option("--snapshot <level>", "keep more than the plan's rows before the first write: tables or database")
    .option("--twice", "run a module or command twice, to find values that differ from run to run")
    .option("--once", "run a module once; a command is unless --twice is given")
    .option("--put-back", "put a wave back when a check fails after it; else the run just stops")
    .argument("[job]", "a job of holdpoint.yaml, or a file (.sql, .js, .ts)")
    .requiredOption("--on <target>", "the target; there is no default")
    .option("--set <name=value>", "a parameter of the job, bound and never pasted; repeatable", collect, [])
    .option("--key <file>", "the SSH key that you sign the plan with")
    .option("--reason <text>", "why, for the approver and the ledger")
    .option("--ticket <id>", "the ticket it belongs to")
    .option("--out <file>", "also write the plan to this file, to carry it elsewhere")
    .option("--expires <duration>", "how long the plan may be applied", "24h");
}

async function plan(
  cx: Context,
  job: string | undefined,
  tail: readonly string[] | null,
  flags: PlanFlags,
): Promise<Outcome> {
  const { made, masked } = await planFromFlags(cx, job, tail, flags);
  return planOutcome(cx, made, masked, { detailedExitcode: flags.detailedExitcode === true });
}

/** A plan that its pipeline's next job proves; answers as `show` does. */
async function prove(cx: Context, ref: string | undefined, on: string): Promise<Outcome> {
  if (ref === undefined)
    throw new UsageError({
      code: "ERR_USAGE",
      message: "--prove needs a plan",
      why: "its id, as plan printed it",
    });
  const id = await provePlan(await cx.tools(), ref, on);
  return show(cx, id, { format: "text" });
}

/** Makes the plan that a command line asks for, with the columns that its target masks. */
export async function planFromFlags(
  cx: Context,
  job: string | undefined,
  tail: readonly string[] | null,
  flags: PlanFlags,
): Promise<{
  readonly tools: Toolbox;
  readonly made: PlanMade;
  readonly masked: Parameters<typeof showing>[0];
}> {
  const pacing = pacingOf(flags);
  const tools = await cx.tools();
  const prepared = await tools.prepareJob(flags.on, requestOf(job, tail), flags.set);
  const made = await makePlan(tools, {
    on: flags.on,
    job: prepared,
    reason: textOf("--reason", flags.reason),
    ticket: textOf("--ticket", flags.ticket),
    key: flags.key,
    out: flags.out,
    lifetimeSeconds: lifetimeOf(flags.expires),
    pacing,
    putBack: flags.putBack === true,
    ...(flags.mode === undefined ? {} : { mode: modeOf(flags.mode) }),
    ...againOf(flags, prepared),
    ...(flags.snapshot === undefined ? {} : { snapshot: levelOf(flags.snapshot) }),
  });
  return { tools, made, masked: tools.project.config.targets[flags.on]?.mask ?? [] };
}

/** A plan's screen and document; a plan that policy denies ends with 30 and is shown all the same. */
export function planOutcome(
  cx: Context,
  made: PlanMade,
  masked: Parameters<typeof showing>[0],
  how: {
    readonly detailedExitcode?: boolean;
    readonly state?: string;
    readonly next?: readonly NextStep[];
  } = {},
): Outcome & { readonly result: Record<string, unknown> } {
  const facts: PlanFactsView = {
    ...made,
    verdict: made.examined.verdict,
    identity: made.examined.marker?.identity ?? null,
    undo: made.statement.rehearsal.undo ?? null,
    description: made.examined.identification.description,
    origins: made.examined.origins,
    how: showing(masked),
    ...(how.state === undefined ? {} : { state: how.state }),
    next: how.next ?? nextSteps(made),
  };
  const denied = made.decision.kind === "deny" ? (made.missed ?? deniedError(made)) : undefined;
  const result = planResult(facts);
  const hasChanges = result["has_changes"] === true;
  return {
    result,
    text: cx.screen(renderPlan, planView({ ...facts, file: nearPath(cx.cwd, made.file) })),
    ...(denied === undefined ? {} : { error: denied }),
    ...(denied === undefined && how.detailedExitcode === true && hasChanges ? { exit: 20 as const } : {}),
  };
}

function nextSteps(made: PlanMade): readonly NextStep[] {
  // A plan that changes nothing leads nowhere: there is nothing to approve and nothing to apply.
  if (made.summary.rows === 0 && made.statement.schema.changes.length === 0) return [];
  switch (made.decision.kind) {
    case "allow":
      return [{ actor: "requester", argv: ["holdpoint", "apply", made.id] }];
    case "needs-approval":
      return [
        approveStep(made.id, made.decision),
        { actor: "requester", argv: ["holdpoint", "apply", made.id] },
      ];
    case "deny":
      return [];
  }
}

function deniedError(made: PlanMade): RefusedError {
  const rules = made.decision.rules.filter((r) => r.effect === "deny" || r.effect === "error");
  return new RefusedError({
    code: "ERR_POLICY_DENIED",
    message: `policy denies ${made.id}`,
    why: rules.map((r) => `${r.rule} (${r.at}): ${r.because}; ${r.saw}`).join("; ") || "no rule allows it",
    next: rules
      .filter((r) => r.flips !== "")
      .map((r) => ({ actor: "requester", text: `${r.rule}: ${r.flips}` })),
    details: rules.map((r) => ({ rule: r.rule, at: r.at, because: r.because, saw: r.saw, flips: r.flips })),
  });
}

function requestOf(job: string | undefined, tail: readonly string[] | null): JobRequest {
  if (job !== undefined && tail !== null) {
    throw new UsageError({ code: "ERR_USAGE", message: "give a job or a command after --, not both" });
  }
  if (tail !== null) return { kind: "command", argv: tail };
  if (job === undefined) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: "say what to plan: a job, or a command after --",
      next: [{ actor: "requester", argv: ["holdpoint", "plan", "--help"] }],
    });
  }
  return { kind: "job", job };
}

/** Blank is refused: empty never stands for anything. */
export function textOf(flag: string, value: string | undefined): string | null {
  if (value === undefined) return null;
  if (value.trim() !== "") return value.trim();
  throw new UsageError({ code: "ERR_USAGE", message: `${flag} is blank` });
}

function lifetimeOf(text: string | undefined): number {
  const seconds = parseDuration(text ?? "24h");
  if (seconds !== undefined && seconds <= 30 * PLAN_LIFETIME_SECONDS) return seconds;
  throw new UsageError({
    code: "ERR_USAGE",
    message: `--expires ${text ?? ""} is no lifetime for a plan`,
    why: "a duration such as 4h or 2d, at most 30d",
  });
}

/** @throws UsageError ERR_USAGE where the flags say nothing that could be done. */
function againOf({ twice, once }: PlanFlags, job: PreparedJob): { readonly again?: "always" | "never" } {
  if (twice !== true && once !== true) return {};
  if (twice === true && once === true)
    throw new UsageError({ code: "ERR_USAGE", message: "give --twice or --once, not both" });
  if (job.kind !== "sql") return { again: twice === true ? "always" : "never" };
  throw new UsageError({
    code: "ERR_USAGE",
    message: `${twice === true ? "--twice" : "--once"} is for a module or a command`,
    why: `${job.name} is SQL, which is run twice where it calls something that can differ`,
  });
}

function levelOf(text: string): "tables" | "database" {
  if (text === "tables" || text === "database") return text;
  throw new UsageError({
    code: "ERR_USAGE",
    message: `--snapshot is tables or database, not ${text}`,
    why: "the plan's own rows are always kept; tables: all that it touches; database: everything",
  });
}

function modeOf(text: string): "rows" | "script" {
  if (text === "rows" || text === "script") return text;
  throw new UsageError({
    code: "ERR_USAGE",
    message: `--mode is rows or script, not ${text}`,
    why: "rows: holdpoint writes the signed rows; script: the statements run again and their effect must be the signed one",
  });
}
