/** `apply`: write exactly what was signed. */
import { readFile } from "node:fs/promises";
import { codeOf, UsageError } from "../../base/errors.js";
import { type Applied, applyPlan, type DecisionPoint } from "../../operations/apply.js";
import { planToResume } from "../../operations/writing/begun.js";
import type { BreakGlassRequest } from "../../operations/consent/break-glass.js";
import { renderApplyEnd, type ApplyEnd } from "../../render/apply.js";
import { renderBanner } from "../../render/banner.js";
import { when } from "../../render/numbers.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import type { Toolbox } from "../../operations/toolbox.js";
import { describeCommand } from "../help.js";
import { type PacingFlags, pacingOf, pacingOptions } from "../pacing.js";
import { readStdin } from "../stdin.js";

interface ApplyFlags extends PacingFlags {
  readonly resume?: string;
  readonly approval: readonly string[];
  readonly confirm?: string;
  readonly dryRun?: boolean;
  readonly breakGlass?: boolean;
  readonly incident?: string;
  readonly reason?: string;
  readonly key?: string;
}

export const registerApply: Register = (program, run) => {
  const command = pacingOptions(program.command("apply"))
    .argument("[plan]", "an id, the beginning of one, or a plan file")
    .option("--resume <run>", "go on with a run that stopped part way, under its plan")
    .option("--approval <file>", "a token's file, - for standard input; repeatable", collect, [])
    .option("--confirm <target>", "the target's name, typed: it must be the plan's, and never chooses one")
    .option("--dry-run", "make every check and write nothing")
    .option(
      "--break-glass",
      "alone, in place of the quorum: signed, for minutes, and to be reviewed by another person",
    )
    .option("--incident <id>", "with --break-glass: the incident it is for")
    .option("--reason <text>", "with --break-glass: why; its reviewer reads it")
    .option("--key <file>", "with --break-glass: the SSH key that you sign with")
    .action((plan: string | undefined, flags: ApplyFlags) => run("apply", (cx) => apply(cx, plan, flags)));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "write exactly what was signed, once",
    description:
      "Writes the signed rows, each only if it is as the plan saw it. Before the first write it checks " +
      "place, people, policies, history, approvals, schema and rows again, keeps the rows as they are and reads them back.\n" +
      "Up to 10,000 rows are one transaction; more are written in batches of 1,000, and in the waves that the plan names. " +
      "The first Ctrl-C begins no new batch, the second rolls the one under way back; --resume goes on.\n" +
      "Approvals are found in the ledger, in --approval and in HOLDPOINT_APPROVAL.",
    examples: [
      { line: "holdpoint apply pl_k7q2m9xw --confirm elb-prod", what: "after somebody approved it" },
      {
        line: "holdpoint apply plan.hpplan --approval token.hpa --confirm elb-prod",
        what: "on another machine",
      },
      { line: "holdpoint apply pl_k7q2m9xw --dry-run", what: "every check, nothing written" },
      {
        line: "holdpoint apply pl_k7q2m9xw --waves 1%,10%,100% --max-rate 500",
        what: "slower than the plan says",
      },
      { line: "holdpoint apply --resume rn_5c0e2fqa", what: "after a run that stopped part way" },
    ],
    exits: [21, 22, 30, 31, 32, 33, 34, 35, 36, 38, 39, 40, 41, 42, 43, 130, 143],
  });
};

async function apply(cx: Context, plan: string | undefined, flags: ApplyFlags): Promise<Outcome> {
  const pacing = pacingOf(flags);
  const tools = await cx.tools();
  const applied = await applyPlan(tools, {
    ...(await chosen(tools, plan, flags.resume)),
    pacing,
    tokens: await givenTokens(cx, flags.approval),
    confirm: confirmer(cx, flags.confirm, "apply"),
    dryRun: flags.dryRun === true,
    ...breakGlassOf(flags),
  });
  const outcome = appliedOutcome(cx, applied);
  const alone = flags.breakGlass === true && applied.run !== null && applied.approvers.length === 0;
  return alone ? { ...outcome, warnings: [...(outcome.warnings ?? []), debtWords(applied.run)] } : outcome;
}

/** Said at once, so that nobody learns of a debt only when it stops the next job. */
function debtWords(run: string): string {
  return `under break-glass: within a day another person runs  holdpoint approve --review ${run}`;
}

/** A plan, or the run that goes on under its plan; never both, for they could differ. */
async function chosen(
  tools: Toolbox,
  plan: string | undefined,
  resume: string | undefined,
): Promise<{ readonly ref: string; readonly resume?: string }> {
  if (plan !== undefined && resume === undefined) return { ref: plan };
  if (plan === undefined && resume !== undefined) {
    const begun = await planToResume(tools, resume);
    return { ref: begun.plan, resume: begun.run };
  }
  throw new UsageError({
    code: "ERR_USAGE",
    message: plan === undefined ? "say which plan to apply" : "give a plan or --resume RUN, not both",
    next: [{ actor: "requester", argv: ["holdpoint", "apply", "--help"] }],
  });
}

/** All of it is typed or none: a break-glass without words leaves its reviewer nothing to go by. */
function breakGlassOf(flags: ApplyFlags): { readonly breakGlass?: BreakGlassRequest } {
  const { incident, reason, key } = flags;
  if (flags.breakGlass !== true) {
    const stray = incident ?? reason ?? key;
    if (stray === undefined) return {};
    throw new UsageError({
      code: "ERR_USAGE",
      message: "--incident, --reason and --key belong to --break-glass",
    });
  }
  if (incident === undefined || reason === undefined || flags.dryRun === true) {
    throw new UsageError({
      code: "ERR_USAGE",
      message:
        flags.dryRun === true
          ? "--break-glass signs, and --dry-run must not: give one of them"
          : "--break-glass needs --incident ID and --reason TEXT",
    });
  }
  return { breakGlass: { incident, reason, key } };
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
    targetChanged: applied.dryRun || applied.rows.written + applied.schemaChanges === 0 ? "no" : "yes",
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
    schema_changes: applied.schemaChanges,
    waves: applied.waves,
    batches: applied.batches,
    snapshot: applied.snapshot,
    approvers: applied.approvers,
    cover_undo_until: applied.coverUntil,
    dry_run: applied.dryRun,
    resumed: applied.resumed,
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
    schemaChanges: applied.schemaChanges,
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
): (at: DecisionPoint) => Promise<void> {
  return async ({ target, verdict, approvers }) => {
    // The first banner has scrolled away, or was never there: what is about to be written is said where it is decided.
    if (flag === undefined && cx.streams.isInteractive) {
      const note = approvers.length === 0 ? "nobody else is asked" : `approved by ${approvers.join(", ")}`;
      cx.say(renderBanner({ verdict, target, note }, cx.streams.errPalette, cx.streams.width));
    }
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
