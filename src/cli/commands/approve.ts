/** `approve`: a second person looks, and signs exactly this effect. Human by design; nothing here has a default. */
import { readFile } from "node:fs/promises";
import { parseDuration, formatDuration } from "../../base/clock.js";
import { codeOf, UsageError } from "../../base/errors.js";
import {
  APPROVAL_LIFETIME_SECONDS,
  type ApproveOptions,
  prepareApproval,
  takeInApproval,
} from "../../operations/approve.js";
import { type Weighed, weigh, weighUnshown } from "../../operations/consent/review.js";
import { requireSameEffect } from "../../operations/replan.js";
import type { Toolbox } from "../../operations/toolbox.js";
import { renderApprovalEnd } from "../../render/approve.js";
import type { Context, Outcome, Register } from "../command.js";
import { describeCommand } from "../help.js";
import { textOf } from "./plan.js";
import { reviewRun } from "./review.js";
import { atTerminal } from "../reviewing.js";
import { type ApproveFlags, approvedOutcome, writeNew } from "../approved.js";

export const registerApprove: Register = (program, run) => {
  const command = program
    .command("approve")
    .argument("[plan]", "an id, the beginning of one, or a plan file")
    .option(
      "--key <file>",
      "the SSH key that you sign with; without it, the agent's or ~/.ssh key that the people file knows",
    )
    .option(
      "--expires <duration>",
      "how long the approval may be used",
      formatDuration(APPROVAL_LIFETIME_SECONDS),
    )
    .option("--cover-undo <duration>", "also allow one clean undo of the whole run for so long")
    .option("--reason <text>", "why you approve; part of what you sign")
    .option("--out <file>", "write the token to this file; - for stdout, which is the default")
    .option("--prepare <file>", "write the exact bytes to sign, for a key that lives elsewhere")
    .option("--as <person>", "with --prepare: who will sign")
    .option("--prepared <file>", "take in what was prepared and signed elsewhere")
    .option("--signature <file>", "with --prepared: the signature that ssh-keygen wrote")
    .option("--replan", "rehearse the SQL job again here, and go on only if its effect is the same")
    .option("--review <run>", "look at a run under break-glass and close its debt, in place of a plan")
    .action((plan: string | undefined, flags: ApproveFlags) =>
      run("approve", (cx) => approveOrReview(cx, plan, flags)),
    );
  describeCommand(command, {
    group: "Lifecycle",
    summary: "look at a plan and sign exactly its effect",
    description:
      "Shows what the plan does, computed on this machine from its bytes, asks what only a reader of it can answer, and signs.\n" +
      "The token is printed and kept in the ledger. It opens this plan, once.",
    examples: [
      { line: "holdpoint approve pl_k7q2m9xw", what: "at a terminal" },
      {
        line: "holdpoint approve pl_k7q2m9xw --prepare a.txt --as ravi",
        what: "the bytes to sign, readable text",
      },
      { line: "ssh-keygen -Y sign -n holdpoint-approval -f KEY a.txt", what: "where the key lives" },
      {
        line: "holdpoint approve pl_k7q2m9xw --prepared a.txt --signature a.txt.sig",
        what: "take the signature in",
      },
      { line: "holdpoint approve --review rn_5c0e2fqa", what: "close the debt of a break-glass run" },
    ],
    exits: [22, 30, 31, 32, 33, 35, 39, 130],
  });
};

async function approveOrReview(cx: Context, plan: string | undefined, flags: ApproveFlags): Promise<Outcome> {
  if (flags.review !== undefined && plan === undefined) return reviewRun(cx, flags.review, flags);
  if (plan !== undefined && flags.review === undefined) return approve(cx, plan, flags);
  throw new UsageError({
    code: "ERR_USAGE",
    message: "give a plan to approve, or --review with a run",
    next: [{ actor: "approver", argv: ["holdpoint", "approve", "--help"] }],
  });
}

async function approve(cx: Context, plan: string, flags: ApproveFlags): Promise<Outcome> {
  const tools = await cx.tools();
  const options = optionsOf(flags);
  if (flags.prepare !== undefined && flags.prepared !== undefined) {
    throw new UsageError({ code: "ERR_USAGE", message: "give --prepare or --prepared, not both" });
  }
  const unshown = flags.replan !== true && (flags.prepare ?? flags.prepared) !== undefined;
  return (unshown ? weighUnshown : weigh)(tools, plan, async (weighed) => {
    if (flags.replan === true) await requireSameEffect(tools, weighed);
    if (flags.prepare !== undefined) return prepare(cx, tools, { weighed, ref: plan }, flags, options);
    if (flags.prepared !== undefined) return takeIn(cx, tools, weighed, flags);
    return atTerminal(cx, tools, weighed, flags, options);
  });
}

async function prepare(
  cx: Context,
  tools: Toolbox,
  { weighed, ref }: { readonly weighed: Weighed; readonly ref: string },
  flags: ApproveFlags,
  options: ApproveOptions,
): Promise<Outcome> {
  if (flags.as === undefined) {
    throw new UsageError({ code: "ERR_USAGE", message: "--prepare needs --as PERSON: who will sign" });
  }
  const file = flags.prepare ?? "";
  const { statement, bytes } = await prepareApproval(tools, weighed, flags.as, options);
  await writeNew(file, bytes);
  const { id } = weighed.plan;
  return {
    result: { plan: id, person: statement.approver, file, expires_at: statement.expiresAt, token: null },
    text: cx.screen(renderApprovalEnd, {
      end: { kind: "prepared", plan: id, file },
      next: [
        {
          actor: "approver",
          argv: ["ssh-keygen", "-Y", "sign", "-n", "holdpoint-approval", "-f", "KEY", file],
        },
        {
          actor: "anyone",
          argv: ["holdpoint", "approve", ref, "--prepared", file, "--signature", `${file}.sig`],
        },
      ],
    }),
  };
}

async function takeIn(cx: Context, tools: Toolbox, weighed: Weighed, flags: ApproveFlags): Promise<Outcome> {
  if (flags.signature === undefined) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: "--prepared needs --signature FILE: what ssh-keygen wrote",
    });
  }
  const bytes = await readGiven("--prepared", flags.prepared ?? "");
  const approved = await takeInApproval(
    tools,
    weighed,
    bytes,
    await readGiven("--signature", flags.signature),
  );
  return approvedOutcome(cx, approved, flags, { reviewedSeconds: null, wrongAnswers: 0 });
}

function optionsOf(flags: ApproveFlags): ApproveOptions {
  return {
    expiresSeconds: durationOf("--expires", flags.expires) ?? APPROVAL_LIFETIME_SECONDS,
    coverUndoSeconds: durationOf("--cover-undo", flags.coverUndo),
    reason: textOf("--reason", flags.reason),
  };
}

function durationOf(flag: string, text: string | undefined): number | null {
  if (text === undefined) return null;
  const seconds = parseDuration(text);
  if (seconds !== undefined) return seconds;
  throw new UsageError({
    code: "ERR_USAGE",
    message: `${flag} ${text} is no duration`,
    why: "write 30m, 48h or 7d",
  });
}

async function readGiven(flag: string, file: string): Promise<Uint8Array> {
  try {
    return await readFile(file);
  } catch (e) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `${flag} ${file} cannot be read`,
      why: codeOf(e) ?? "it is no file",
      next: [
        {
          actor: "approver",
          text: "Give the file that --prepare wrote, and the one that ssh-keygen wrote beside it.",
        },
      ],
      cause: e,
    });
  }
}
