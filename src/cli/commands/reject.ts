/** `reject`: no, for good, with a reason. */
import { rejectPlan } from "../../operations/reject.js";
import { renderApprovalEnd } from "../../render/approve.js";
import type { Context, Outcome, Register } from "../command.js";
import { describeCommand } from "../help.js";

interface RejectFlags {
  readonly reason: string;
  readonly key?: string;
}

export const registerReject: Register = (program, run) => {
  const command = program
    .command("reject")
    .argument("<plan>", "an id, the beginning of one, or a plan file")
    .requiredOption("--reason <text>", "why; the requester sees it")
    .option("--key <file>", "the SSH key that says who you are")
    .action((plan: string, flags: RejectFlags) => run("reject", (cx) => reject(cx, plan, flags)));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "refuse a plan for good",
    description:
      "After this nobody can approve or apply the plan. The rejection is kept in the ledger and in the target.",
    examples: [
      { line: 'holdpoint reject pl_k7q2m9xw --reason "paid orders must stay"', what: "final for this plan" },
    ],
    exits: [30, 31, 32, 33, 35, 39],
  });
};

async function reject(cx: Context, plan: string, flags: RejectFlags): Promise<Outcome> {
  const rejected = await rejectPlan(await cx.tools(), { ref: plan, reason: flags.reason, key: flags.key });
  return {
    result: {
      plan: rejected.plan,
      person: rejected.by,
      requester: rejected.requester,
      anchored: rejected.anchored,
    },
    text: cx.screen(renderApprovalEnd, {
      end: { kind: "rejected", plan: rejected.plan, by: rejected.by, reason: flags.reason.trim() },
      next: [],
    }),
    ...(rejected.anchored
      ? {}
      : { warnings: ["the target could not be written, so the rejection stands in the ledger only"] }),
  };
}
