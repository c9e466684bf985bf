/** `hold` and `release`: nobody else writes here until it is over. */
import { holdTarget, type Held, releaseTarget } from "../../operations/hold.js";
import { renderHold } from "../../render/hold.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";

interface HoldFlags {
  readonly reason: string;
  readonly except: readonly string[];
}

export const registerHold: Register = (program, run) => {
  const command = program
    .command("hold")
    .argument("<target>", "the target; there is no default")
    .requiredOption("--reason <text>", "why; whoever is stopped reads it")
    .option("--except <plan>", "a plan that may go on, such as the one that repairs; repeatable", collect, [])
    .action((target: string, flags: HoldFlags) => run("hold", (cx) => hold(cx, target, flags)));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "stop all plans on a target",
    description:
      "The hold is kept in the target itself. No plan begins there, and a run that is under way stops before its next batch, " +
      "until somebody releases it. Then the target's hold hook runs, where the configuration names one.",
    examples: [
      { line: 'holdpoint hold elb-prod --reason "INC-212, restoring"', what: "nothing else runs there" },
      { line: 'holdpoint hold elb-prod --reason "INC-212" --except pl_k7q2m9xw', what: "but the repair" },
    ],
    exits: [30, 31, 33, 35, 38, 39, 42],
  });
};

export const registerRelease: Register = (program, run) => {
  const command = program
    .command("release")
    .argument("<target>", "the target; there is no default")
    .requiredOption("--reason <text>", "why it is over")
    .action((target: string, flags: HoldFlags) => run("release", (cx) => release(cx, target, flags)));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "end a hold",
    description: "Ledger and target keep who released it and why. Then the target's release hook runs.",
    examples: [{ line: 'holdpoint release elb-prod --reason "restored, checked"', what: "plans run again" }],
    exits: [30, 31, 33, 35, 38, 39, 42],
  });
};

async function hold(cx: Context, target: string, flags: HoldFlags): Promise<Outcome> {
  const held = await holdTarget(await cx.tools(), { target, reason: flags.reason, except: flags.except });
  return outcomeOf(cx, held, "held");
}

async function release(cx: Context, target: string, flags: HoldFlags): Promise<Outcome> {
  const held = await releaseTarget(await cx.tools(), { target, reason: flags.reason });
  return outcomeOf(cx, held, "released");
}

function outcomeOf(cx: Context, held: Held, kind: "held" | "released"): Outcome {
  return {
    result: {
      target: held.target,
      held: kind === "held",
      by: held.by,
      reason: held.reason,
      before:
        held.before === null ? null : { by: held.before.by, at: held.before.at, reason: held.before.reason },
      except: held.exempted,
      hook: held.hook,
    },
    text: cx.screen(renderHold, {
      ...held,
      kind,
      next:
        kind === "held"
          ? [{ actor: "anyone", argv: ["holdpoint", "release", held.target, "--reason", "TEXT"] }]
          : [],
    }),
  };
}
