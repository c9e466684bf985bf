/** `revoke`: an approver takes back what they signed, before it is used. */
import { readFile } from "node:fs/promises";
import { codeOf, UsageError } from "../../base/errors.js";
import { revokeApproval } from "../../operations/revoke.js";
import { renderApprovalEnd } from "../../render/approve.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";
import { textOf } from "./plan.js";

interface RevokeFlags {
  readonly reason: string;
  readonly key?: string;
  readonly approval: readonly string[];
}

export const registerRevoke: Register = (program, run) => {
  const command = program
    .command("revoke")
    .argument("<plan>", "an id, the beginning of one, or a plan file")
    .requiredOption("--reason <text>", "why; the requester sees it")
    .option("--key <file>", "the SSH key of the person whose approval it is")
    .option("--approval <file>", "a token that this ledger does not have; repeatable", collect, [])
    .action((plan: string, flags: RevokeFlags) => run("revoke", (cx) => revoke(cx, plan, flags)));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "take back your own approval before it is used",
    description:
      "Takes back every approval that you gave for the plan; others' stand, and you may approve again. The revocation is kept in " +
      "the ledger and in the target. To stop a plan for good, reject it.",
    examples: [
      { line: 'holdpoint revoke pl_k7q2m9xw --reason "wrong week"', what: "your approvals of this plan" },
      {
        line: 'holdpoint revoke plan.hpplan --approval token.hpa --reason "wrong week"',
        what: "a token given on another machine",
      },
    ],
    exits: [30, 31, 32, 33, 35, 39],
  });
};

async function revoke(cx: Context, plan: string, flags: RevokeFlags): Promise<Outcome> {
  const reason = textOf("--reason", flags.reason) ?? "";
  const tools = await cx.tools();
  const tokens = await Promise.all(flags.approval.map(tokenText));
  const revoked = await revokeApproval(tools, { ref: plan, reason, key: flags.key, tokens });
  const { nonces, by, anchored } = revoked;
  return {
    result: { plan: revoked.plan, person: by, revoked: nonces.length, anchored },
    text: cx.screen(renderApprovalEnd, {
      end: { kind: "revoked", plan: revoked.plan, by, approvals: nonces.length, reason },
      next: [],
    }),
    ...(anchored
      ? {}
      : { warnings: ["the target could not be written, so the revocation stands in the ledger only"] }),
  };
}

async function tokenText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (e) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `--approval ${file} cannot be read`,
      why: codeOf(e) ?? "it is no file",
      cause: e,
    });
  }
}
