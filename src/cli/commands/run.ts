/** `run`: plan, and apply at once where policy asks nobody; else wait for people, or say whom it waits for. */
import { formatDuration } from "../../base/clock.js";
import { type NextStep, RefusedError } from "../../base/errors.js";
import { applyPlan, type Applied } from "../../operations/apply.js";
import type { PlanMade } from "../../operations/planning/seal-plan.js";
import type { Toolbox } from "../../operations/toolbox.js";
import { waitFor } from "../../operations/wait.js";
import type { Context, Outcome, Register } from "../command.js";
import { describeCommand } from "../help.js";
import { pause, waitOf } from "../waiting.js";
import { appliedOutcome, appliedResult, confirmer } from "./apply.js";
import { type PlanFlags, planFromFlags, planOptions, planOutcome } from "./plan.js";
import { approveStep } from "../views/plan.js";

interface RunFlags extends PlanFlags {
  readonly wait?: string;
  readonly confirm?: string;
}

export const registerRun: Register = (program, run, tail) => {
  const command = planOptions(program.command("run"))
    .option("--wait <duration>", "go on when the approvals are there; give up after so long")
    .option("--confirm <target>", "the target's name, typed: it must be the plan's, and never chooses one")
    .action((job: string | undefined, flags: RunFlags) => run("run", (cx) => runJob(cx, job, tail, flags)));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "plan, and apply at once where policy asks nobody",
    description:
      "Makes a plan. Where policy asks nobody it is applied at once, the same way as `apply` does; where it asks people, the " +
      "command ends with 21 and the line that an approver needs, or waits for them with --wait.",
    examples: [
      { line: "holdpoint run jobs/fix.sql --on elb-dev", what: "at once, in development" },
      {
        line: "holdpoint run purge-idle --on elb-prod --wait 30m --confirm elb-prod",
        what: "goes on when it is approved",
      },
    ],
    exits: [21, 22, 30, 31, 32, 33, 34, 35, 36, 38, 39, 40, 41, 42, 43, 130, 143],
  });
};

async function runJob(
  cx: Context,
  job: string | undefined,
  tail: readonly string[] | null,
  flags: RunFlags,
): Promise<Outcome> {
  const seconds = waitOf(flags.wait);
  const { tools, made, masked } = await planFromFlags(cx, job, tail, flags);
  const waits = made.decision.kind === "needs-approval";
  const ends = made.decision.kind === "deny" || hasNothing(made) || (waits && seconds === 0);
  const planned = planOutcome(cx, made, masked, {
    next: [],
    ...(ends ? {} : { state: `Nothing is written yet; ${waits ? "once approved, it is" : "it follows"}.` }),
  });
  const result = (applied: Applied | null): Record<string, unknown> => ({
    ...planned.result,
    run: applied?.run ?? null,
    applied: applied === null ? null : appliedResult(applied),
  });
  if (planned.error !== undefined || hasNothing(made)) return { ...planned, result: result(null) };
  if (waits && seconds === 0) return { ...planned, result: result(null), error: stillWaits(made, seconds) };
  // What is about to be written stands on the screen before the first wait, question or write.
  if (!cx.json) cx.streams.out(planned.text);
  if (waits && !(await isDecided(cx, tools, made, seconds))) {
    return { result: result(null), text: "", error: stillWaits(made, seconds) };
  }
  const applied = await applyPlan(tools, {
    ref: made.id,
    tokens: [],
    confirm: confirmer(cx, flags.confirm, "run"),
    dryRun: false,
  });
  return { ...appliedOutcome(cx, applied), result: result(applied) };
}

function hasNothing(made: PlanMade): boolean {
  return made.summary.rows === 0 && made.statement.schema.changes.length === 0;
}

/** Waits for the people that policy asks; what their decisions are worth is for apply to judge. */
async function isDecided(cx: Context, tools: Toolbox, made: PlanMade, seconds: number): Promise<boolean> {
  cx.say(`  Waiting up to ${formatDuration(seconds)} for approval:  holdpoint approve ${made.id}\n`);
  return !(await waitFor(tools, made.id, seconds, pause)).timedOut;
}

function stillWaits(made: PlanMade, seconds: number): RefusedError {
  const next: NextStep[] = [
    approveStep(made.id, made.decision),
    { actor: "requester", argv: ["holdpoint", "apply", made.id] },
  ];
  return new RefusedError({
    code: "ERR_APPROVAL_NEEDED",
    message: `${made.id} waits for approval`,
    why:
      seconds === 0
        ? "policy asks people for this change, so it is not applied at once"
        : `nobody approved it within ${formatDuration(seconds)}`,
    next,
    details: { plan: made.id, file: made.file },
  });
}
