/** `apply`: write exactly what was signed. */
import { readFile } from "node:fs/promises";
import { codeOf, UsageError } from "../../base/errors.js";
import { type Applied, applyPlan } from "../../operations/apply.js";
import { renderApplyEnd, type ApplyEnd } from "../../render/apply.js";
import { when } from "../../render/numbers.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";
import { readStdin } from "../stdin.js";

interface ApplyFlags {
  readonly approval: readonly string[];
  readonly confirm?: string;
  readonly dryRun?: boolean;
}

export const registerApply: Register = (program, run) => {
  const command = program
    .command("apply")
    .argument("<plan>", "an id, the beginning of one, or a plan file")
    .option("--approval <file>", "a token's file, - for standard input; repeatable", collect, [])
    .option("--confirm <target>", "the target's name, typed: it must be the plan's, and never chooses one")
    .option("--dry-run", "make every check and write nothing")
    .action((plan: string, flags: ApplyFlags) => run("apply", (cx) => apply(cx, plan, flags)));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "write exactly what was signed, once",
    description:
      "Writes the signed rows in one transaction, each only if it is as the plan saw it. Before the first write it checks " +
      "place, people, policies, history, approvals, schema and rows again, keeps the rows as they are and reads them back.\n" +
      "Approvals are found in the ledger, in --approval and in HOLDPOINT_APPROVAL.",
    examples: [
      { line: "holdpoint apply pl_k7q2m9xw --confirm elb-prod", what: "after somebody approved it" },
      {
        line: "holdpoint apply plan.hpplan --approval token.hpa --confirm elb-prod",
        what: "on another machine",
      },
      { line: "holdpoint apply pl_k7q2m9xw --dry-run", what: "every check, nothing written" },
    ],
    exits: [21, 22, 30, 31, 32, 33, 34, 35, 36, 38, 39, 41, 43, 130, 143],
  });
};

async function apply(cx: Context, plan: string, flags: ApplyFlags): Promise<Outcome> {
  const tools = await cx.tools();
  const applied = await applyPlan(tools, {
    ref: plan,
    tokens: await givenTokens(cx, flags.approval),
    confirm: confirmer(cx, flags.confirm, "apply"),
    dryRun: flags.dryRun === true,
  });
  return appliedOutcome(cx, applied);
}

/** The screen and document of a run that ended well. */
export function appliedOutcome(cx: Context, applied: Applied): Outcome {
  return {
    result: appliedResult(applied),
    text: cx.screen(renderApplyEnd, {
      banner: { verdict: verdictOf(applied), target: applied.target },
      end: endOf(applied),
      next: applied.run === null ? [] : [{ actor: "anyone", argv: ["holdpoint", "undo", applied.run] }],
    }),
    targetChanged: applied.dryRun || applied.rows.written === 0 ? "no" : "yes",
  };
}

/** The document's `result`. */
export function appliedResult(applied: Applied): Record<string, unknown> {
  return {
    run: applied.run,
    plan: applied.plan,
    target: applied.target,
    rows: {
      planned: applied.rows.planned,
      written: applied.rows.written,
      already_done: applied.rows.alreadyDone,
    },
    snapshot: applied.snapshot,
    approvers: applied.approvers,
    cover_undo_until: applied.coverUntil,
    dry_run: applied.dryRun,
    completed_earlier_run: applied.completed,
  };
}

function verdictOf(applied: Applied): "production" | "staging" | "development" | "unproven" {
  const { environment } = applied;
  return environment === "production" || environment === "staging" || environment === "development"
    ? environment
    : "unproven";
}

function endOf(applied: Applied): ApplyEnd {
  if (applied.dryRun || applied.run === null)
    return { kind: "dry-run", rows: applied.rows.planned, plan: applied.plan };
  return {
    kind: "done",
    seconds: applied.tookMs / 1000,
    written: applied.rows.written,
    alreadyDone: applied.rows.alreadyDone,
    run: applied.run,
    snapshot: applied.snapshot ?? "the rows as they were",
    undoCover:
      applied.coverUntil === null
        ? null
        : `a clean undo is already approved until ${when(applied.coverUntil)} UTC`,
  };
}

/** Asks for the target's name, or holds the flag's against it; a wrong name is a slip, and nothing is tried twice. */
export function confirmer(
  cx: Context,
  flag: string | undefined,
  what: string,
): (target: string) => Promise<void> {
  return async (target) => {
    const typed =
      flag ??
      (await cx.prompter.ask({
        message: `Type the target's name to start:`,
        needs: `${what} on production needs the target's name`,
        flag: ["--confirm", "TARGET"],
      }));
    if (typed === target) return;
    throw new UsageError({
      code: "ERR_USAGE",
      message: "that is not the name of the plan's target",
      why:
        flag === undefined ? `you typed ${JSON.stringify(typed)}` : `--confirm says ${JSON.stringify(flag)}`,
    });
  };
}

async function givenTokens(cx: Context, files: readonly string[]): Promise<readonly string[]> {
  const texts: string[] = [];
  for (const file of files) texts.push(await tokenText(cx, file));
  const inherited = cx.env["HOLDPOINT_APPROVAL"];
  return inherited === undefined || inherited.trim() === "" ? texts : [...texts, inherited];
}

async function tokenText(cx: Context, file: string): Promise<string> {
  if (file === "-") return readStdin(cx.streams.stdio.stdin);
  try {
    return await readFile(file, "utf8");
  } catch (e) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `the approval file ${file} cannot be read`,
      why: codeOf(e) ?? "it is no file",
      cause: e,
    });
  }
}
