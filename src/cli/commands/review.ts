/** `approve --review RUN`: another person looks at what was done under break-glass, and closes its debt. */
import { readFile, writeFile } from "node:fs/promises";
import { codeOf, RefusedError, UsageError } from "../../base/errors.js";
import {
  type DebtReview,
  prepareReview,
  type Reviewed,
  signReview,
  takeInReview,
  withDebt,
} from "../../operations/debts.js";
import type { Toolbox } from "../../operations/toolbox.js";
import { renderApprovalEnd } from "../../render/approve.js";
import { renderDebt } from "../../render/debt.js";
import type { Context, Outcome } from "../command.js";
import { textOf } from "./plan.js";

/** The flags of `approve` that a review takes. */
export interface ReviewFlags {
  readonly review?: string;
  readonly key?: string;
  readonly reason?: string;
  readonly prepare?: string;
  readonly as?: string;
  readonly prepared?: string;
  readonly signature?: string;
}

/** Shows the run, asks, signs; or prepares the bytes for a key that lives elsewhere, or takes their signature in. */
export async function reviewRun(cx: Context, run: string, flags: ReviewFlags): Promise<Outcome> {
  const tools = await cx.tools();
  return withDebt(tools, run, async (review) => {
    const reason = textOf("--reason", flags.reason);
    if (flags.prepare !== undefined) return prepare(cx, tools, review, flags.prepare, flags.as, reason);
    if (flags.prepared !== undefined) {
      const signature = flags.signature ?? missing("--prepared needs --signature FILE");
      return closed(
        cx,
        await takeInReview(tools, review, await readGiven(flags.prepared), await readGiven(signature)),
      );
    }
    return atTerminal(cx, tools, review, { key: flags.key, reason });
  });
}

async function prepare(
  cx: Context,
  tools: Toolbox,
  review: DebtReview,
  file: string,
  as: string | undefined,
  reason: string | null,
): Promise<Outcome> {
  const person = as ?? missing("--prepare needs --as PERSON: who will sign");
  const words = reason ?? missing("a review needs --reason TEXT: what you found");
  await writeNew(file, await prepareReview(tools, review, person, words));
  const run = review.run.id;
  return {
    result: { run, person, file, reviewed: false },
    text: cx.screen(renderApprovalEnd, {
      end: { kind: "prepared", plan: run, file },
      next: [
        {
          actor: "approver",
          argv: ["ssh-keygen", "-Y", "sign", "-n", "holdpoint-approval", "-f", "KEY", file],
        },
        {
          actor: "anyone",
          argv: ["holdpoint", "approve", "--review", run, "--prepared", file, "--signature", `${file}.sig`],
        },
      ],
    }),
  };
}

async function atTerminal(
  cx: Context,
  tools: Toolbox,
  review: DebtReview,
  flags: { readonly key: string | undefined; readonly reason: string | null },
): Promise<Outcome> {
  const { streams, prompter } = cx;
  const { run, debt, plan, examined } = review;
  streams.err(
    renderDebt(
      {
        banner: {
          verdict: examined.verdict.name,
          target: examined.target.name,
          note: "review of a run under break-glass",
        },
        run: run.id,
        plan: plan.id,
        job: run.job,
        by: debt.by,
        at: debt.at,
        reason: debt.reason,
        effect: plan.statement.changeset.tables.map((t) => ({
          table: t.name,
          insert: t.insert,
          update: t.update,
          delete: t.delete,
        })),
        next: [{ actor: "approver", argv: ["holdpoint", "show", plan.id, "--rows"] }],
      },
      streams.errPalette,
      streams.width,
    ),
  );
  const needs = "reviewing needs a person";
  const reason =
    flags.reason ??
    (await prompter.ask({ message: "What did you find? >", needs, flag: ["--reason", "TEXT"] })).trim();
  const sure = await prompter.askExactly(
    { message: `Type the run's id to close its debt: >`, needs, flag: null },
    run.id,
  );
  if (!sure || reason === "") throw left(run.id);
  return closed(cx, await signReview(tools, review, { key: flags.key, reason }));
}

function closed(cx: Context, reviewed: Reviewed): Outcome {
  return {
    result: { run: reviewed.run, person: reviewed.by, broken_by: reviewed.brokenBy, reviewed: true },
    text: cx.screen(renderApprovalEnd, {
      end: { kind: "reviewed", run: reviewed.run, by: reviewed.by, brokenBy: reviewed.brokenBy },
      next: [],
    }),
  };
}

function left(run: string): RefusedError {
  return new RefusedError({
    code: "ERR_INTERRUPTED",
    message: "the review ended without a signature",
    why: `${run} still waits for one`,
    state: "Nothing was signed.",
    next: [{ actor: "approver", argv: ["holdpoint", "approve", "--review", run] }],
  });
}

function missing(message: string): never {
  throw new UsageError({ code: "ERR_USAGE", message });
}

async function readGiven(file: string): Promise<Uint8Array> {
  try {
    return await readFile(file);
  } catch (e) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `${file} cannot be read`,
      why: codeOf(e) ?? "it is no file",
      cause: e,
    });
  }
}

/** A file that is there is never overwritten. */
async function writeNew(file: string, bytes: Uint8Array): Promise<void> {
  try {
    await writeFile(file, bytes, { flag: "wx", mode: 0o600 });
  } catch (e) {
    const why =
      codeOf(e) === "EEXIST" ? "it is there already, and is not overwritten" : (codeOf(e) ?? "unknown");
    throw new UsageError({ code: "ERR_USAGE", message: `${file} cannot be written`, why, cause: e });
  }
}
