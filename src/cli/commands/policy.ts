/** `policy`: what the rules say about a plan and why, and whether the rules themselves hold. */
import { UsageError } from "../../base/errors.js";
import { lintAgainst, lintProject, testPolicies } from "../../operations/check-policies.js";
import { type Explained, explainPlan } from "../../operations/explain-policy.js";
import { shortDigest } from "../../base/digest.js";
import type { LintFinding } from "../../policy/lint.js";
import { renderPolicyExplain } from "../../render/explain-policy.js";
import { renderPolicyLint, renderPolicyTests } from "../../render/policy-checks.js";
import type { Context, Outcome, Register } from "../command.js";
import { describeCommand } from "../help.js";

interface ExplainFlags {
  readonly as?: string;
  readonly whatIf?: string;
  readonly all?: boolean;
}

export const registerPolicy: Register = (program, run) => {
  const policy = program.command("policy");
  describeCommand(policy, {
    group: "Understand",
    summary: "why a plan was decided as it was; test and lint the rules",
    examples: [
      {
        line: "holdpoint policy explain pl_k7q2m9xw",
        what: "which rules fired, on what, and what would flip each",
      },
      { line: "holdpoint policy test", what: "run the tests that policies carry" },
      { line: "holdpoint policy lint", what: "rules that are probably not meant" },
    ],
    exits: [35],
  });
  const explain = policy
    .command("explain")
    .argument("<plan>", "a plan's id, the beginning of one, or a plan file")
    .option("--as <person>", "decide as if this person had made the plan")
    .option("--what-if <rows=N>", "decide also as if the plan changed N rows, in the same proportion")
    .option("--all", "list every rule that passes")
    .action((ref: string, flags: ExplainFlags) =>
      run("policy-explain", (cx) => explainCommand(cx, ref, flags)),
    );
  describeCommand(explain, {
    group: "Understand",
    summary: "which rules fired on a plan, on what input, and what would flip each",
    description:
      "Decides about the plan as apply would now, and changes nothing. Where the target cannot be asked, the figures that the plan was made with are used.",
    examples: [
      { line: "holdpoint policy explain pl_k7q2m9xw", what: "what apply would be told now" },
      { line: "holdpoint policy explain pl_k7q2m9xw --what-if rows=1400", what: "with fewer rows" },
      {
        line: "holdpoint policy explain pl_k7q2m9xw --as mona --all",
        what: "if mona had made it, every rule",
      },
    ],
    exits: [35],
  });
  const test = policy
    .command("test")
    .argument("[file]", "one policy file; else every policy of the project")
    .action((file: string | undefined) => run("policy-test", (cx) => testCommand(cx, file ?? null)));
  describeCommand(test, {
    group: "Understand",
    summary: "run the tests that policies carry; asks no target",
    examples: [
      { line: "holdpoint policy test", what: "every policy of the project" },
      { line: "holdpoint policy test policies/production.yaml", what: "one file, also one that is off" },
    ],
    exits: [],
  });
  const lint = policy
    .command("lint")
    .option("--on <target>", "hold assertions and caps against this target's tables too")
    .action((flags: { readonly on?: string }) =>
      run("policy-lint", (cx) => lintCommand(cx, flags.on ?? null)),
    );
  describeCommand(lint, {
    group: "Understand",
    summary: "rules never heard, groups of nobody, windows that never open, bad SQL",
    examples: [
      { line: "holdpoint policy lint", what: "ends with 2 when there is an error; asks no target" },
      { line: "holdpoint policy lint --on elb-prod", what: "also finds tables and columns that it has not" },
    ],
    exits: [39],
  });
};

async function explainCommand(cx: Context, ref: string, flags: ExplainFlags): Promise<Outcome> {
  const tools = await cx.tools();
  const whatIfRows = whatIfOf(flags.whatIf);
  const explained = await explainPlan(tools, { ref, as: flags.as ?? null, whatIfRows });
  const { explanation } = explained;
  const turns = explanation.turningPoints.map((t) => ({ ...t, rows: Number(t.rows), now: Number(t.now) }));
  const whatIf =
    explanation.whatIf === null
      ? null
      : { rows: Number(explanation.whatIf.rows), decision: explanation.whatIf.decision };
  // The smallest: there every one of them stands aside.
  const [turn] = [...turns].sort((a, b) => a.rows - b.rows);
  return {
    result: {
      plan: explained.plan,
      target: explained.target,
      environment: explained.environment,
      requester: explained.requester,
      read: explained.read,
      decision: explanation.decision.kind,
      requirement: explanation.decision.requirement,
      rules: explanation.decision.rules,
      turning_points: turns,
      what_if:
        whatIf === null
          ? null
          : { rows: whatIf.rows, decision: whatIf.decision.kind, rules: whatIf.decision.rules },
    },
    text: cx.screen(renderPolicyExplain, {
      banner: { verdict: explained.environment, target: explained.target },
      plan: explained.plan,
      decision: explanation.decision,
      bundle: `bundle ${shortDigest(explained.bundle)}`,
      all: flags.all === true,
      turningPoints: turns,
      whatIf,
      about: aboutOf(explained, flags.as),
      next:
        whatIf !== null || turn === undefined
          ? []
          : [
              {
                actor: "anyone",
                argv: ["holdpoint", "policy", "explain", explained.plan, "--what-if", `rows=${turn.rows}`],
              },
            ],
    }),
  };
}

function aboutOf(explained: Explained, as: string | undefined): string[] {
  return [
    ...(as === undefined ? [] : [`decided as if ${as} had made the plan`]),
    ...(explained.read === "target"
      ? []
      : [
          "the plan was applied, or its target cannot be asked from here: sizes and environment are those that it was made with",
        ]),
  ];
}

function whatIfOf(text: string | undefined): bigint | null {
  if (text === undefined) return null;
  const [, digits] = /^rows=(\d{1,15})$/.exec(text.replaceAll(",", "")) ?? [];
  if (digits !== undefined) return BigInt(digits);
  throw new UsageError({
    code: "ERR_USAGE",
    message: `--what-if ${text} is not understood`,
    why: "it takes rows=N, a whole number of rows over all tables",
  });
}

async function testCommand(cx: Context, file: string | null): Promise<Outcome> {
  const files = await testPolicies(cx.cwd, file);
  const outcomes = files.flatMap((f) => f.outcomes);
  const failed = outcomes.filter((o) => !o.passed);
  const result = {
    tests: outcomes.length,
    failed: failed.length,
    files: files.map((f) => ({
      file: f.file,
      enabled: f.enabled,
      tests: f.outcomes.map((o) => ({
        name: o.name,
        at: o.at,
        passed: o.passed,
        decision: o.decision.kind,
        diff: o.diff,
      })),
    })),
  };
  const text = cx.screen(renderPolicyTests, files);
  const [first] = failed;
  if (first === undefined) return { result, text };
  return {
    result,
    text,
    error: new UsageError({
      code: "ERR_POLICY_TESTS",
      message: `${failed.length} of ${outcomes.length} policy tests failed`,
      why: `the first is ${first.name} (${first.at})`,
    }),
  };
}

/** Without a store: a pipeline that only looks at policies has none, and makes none. */
async function lintAlone(cx: Context): Promise<readonly LintFinding[]> {
  const { queryPreparer } = await import("../wiring.js");
  return lintProject(cx.cwd, new Date(), await queryPreparer());
}

async function lintCommand(cx: Context, on: string | null): Promise<Outcome> {
  const findings = on === null ? await lintAlone(cx) : await lintAgainst(await cx.tools(), on);
  const errors = findings.filter((f) => f.severity === "error");
  const result = { errors: errors.length, warnings: findings.length - errors.length, findings };
  const text = cx.screen(renderPolicyLint, findings);
  const [first] = errors;
  if (first === undefined) return { result, text };
  return {
    result,
    text,
    error: new UsageError({
      code: "ERR_POLICY_LINT",
      message: `policy lint found ${errors.length === 1 ? "1 error" : `${errors.length} errors`}`,
      why: `the first is ${first.what} (${first.at})`,
    }),
  };
}
