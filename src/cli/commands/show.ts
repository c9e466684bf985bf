/** `show`: a plan as anyone may read it, always; also one that can no longer be applied. */
import { Option } from "commander";
import { UsageError } from "../../base/errors.js";
import type { Change } from "../../changeset/change.js";
import type { Row } from "../../changeset/value.js";
import { decideShown } from "../../operations/judging/show-decision.js";
import { against, type DifferingRows } from "../../operations/against.js";
import { type Shown, showPlan } from "../../operations/show.js";
import { findRun } from "../../operations/recall/runs.js";
import type { QueryAnswer, Toolbox } from "../../operations/toolbox.js";
import { type DifferingView, renderAgainst } from "../../render/against.js";
import { renderJunit } from "../../render/junit.js";
import { type MarkdownFormat, renderMarkdown } from "../../render/markdown.js";
import { renderPlan } from "../../render/plan.js";
import { renderRows } from "../../render/rows.js";
import { renderAnswer } from "../../render/answer.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";
import { requestOf, reveal } from "./reveal.js";
import { valueJson } from "../../render/json.js";
import { approveStep, planCard, planResult, planView, type PlanFactsView } from "../views/plan.js";
import { oddFacts } from "../views/odd.js";
import { patternViews, rowViews, showing, type Showing } from "../views/rows.js";

const FORMATS = ["text", "json", "markdown", "github", "gitlab", "junit"] as const;
type Format = (typeof FORMATS)[number];

interface ShowFlags {
  readonly rows?: boolean;
  readonly sql?: string;
  readonly against?: string;
  readonly format: Format;
  readonly reveal?: readonly string[];
  readonly reason?: string;
  readonly key?: string;
}

export const registerShow: Register = (program, run) => {
  const command = program
    .command("show")
    .argument("<plan>", "a plan's or run's id, the beginning of one, or a plan file")
    .option("--rows", "every row")
    .option(
      "--sql <query>",
      "ask the plan's rows: one SELECT over tables with op, before_… and after_… columns",
    )
    .option("--against <plan>", "only what differs from a plan that was looked at earlier")
    .addOption(new Option("--format <format>", "how").choices([...FORMATS]).default("text"))
    .option("--reveal <column>", "show this masked column's values, once for each: table.column", collect)
    .option("--reason <text>", "with --reveal: why; it is recorded with your name")
    .option("--key <file>", "with --reveal: the SSH key that says who you are")
    .action((ref: string, flags: ShowFlags) => run("show", (cx) => show(cx, ref, flags)));
  describeCommand(command, {
    group: "Understand",
    summary: "read a plan: its card, patterns, sample, rows",
    examples: [
      { line: "holdpoint show pl_k7q2m9xw", what: "the screen that plan printed" },
      { line: "holdpoint show pl_k7q2m9xw --rows", what: "row by row" },
      {
        line: "holdpoint show pl_k7q2m9xw --sql 'SELECT op, count(*) FROM orders GROUP BY op'",
        what: "a question",
      },
      { line: "holdpoint show pl_m3w8x1tf --against pl_k7q2m9xw", what: "what a new version changes" },
      { line: "holdpoint show plan.hpplan --format markdown", what: "for a pull request" },
      {
        line: 'holdpoint show pl_k7q2m9xw --reveal people.email --reason "which address is wrong, OPS-7"',
        what: "a masked column, at a terminal, recorded",
      },
    ],
    exits: [22, 32, 35],
  });
};

/** A plan's screen and document. */
export async function show(cx: Context, ref: string, flags: ShowFlags): Promise<Outcome> {
  const reveals = requestOf(cx, flags);
  const tools = await cx.tools();
  const plan = ref.startsWith("rn_") ? (await findRun(tools, ref)).plan : ref;
  return showPlan(tools, plan, async (shown, rows) => {
    const mask = tools.project.config.targets[shown.statement.target.name]?.mask ?? [];
    if (reveals !== null) return reveal(cx, tools, { shown, all: rows.all }, mask, reveals);
    const how = showing(mask);
    if (flags.sql !== undefined) return answered(cx, shown, await ask(rows.ask, flags.sql, mask.length > 0));
    if (flags.against !== undefined) return difference(cx, tools, shown, how, flags.against);
    if (flags.rows === true) return everyRow(cx, shown, rows.all(), how);
    return wholePlan(cx, tools, shown, how, flags);
  });
}

async function difference(
  cx: Context,
  tools: Toolbox,
  shown: Shown,
  how: Showing,
  earlier: string,
): Promise<Outcome> {
  const found = await against(tools, shown.changes, earlier);
  const view = (d: DifferingRows): DifferingView => ({
    total: d.total,
    rows: rowViews(d.rows, shown.shapes, how),
  });
  const json = (d: DifferingRows): unknown => ({
    total: d.total,
    rows: d.rows.map((c) => rowJson(c, shown, how)),
  });
  const { entered, left, changed, same } = found;
  return {
    result: {
      plan: shown.id,
      against: found.plan,
      entered: json(entered),
      left: json(left),
      changed: json(changed),
      same,
    },
    text: cx.screen(renderAgainst, {
      banner: { verdict: shown.statement.target.verdict, target: shown.statement.target.name },
      plan: shown.id,
      earlier: found.plan,
      entered: view(entered),
      left: view(left),
      changed: view(changed),
      same,
    }),
  };
}

async function wholePlan(
  cx: Context,
  tools: Toolbox,
  shown: Shown,
  how: Showing,
  flags: ShowFlags,
): Promise<Outcome> {
  const decision = await decideShown(tools, shown);
  const facts: PlanFactsView = {
    ...shown,
    file: null,
    decision,
    verdict: null,
    identity: null,
    undo: shown.statement.rehearsal.undo ?? null,
    description: null,
    how,
    next: [approveStep(shown.id, decision)],
  };
  const result = planResult(facts);
  switch (flags.format) {
    case "text":
      return { result, text: cx.screen(renderPlan, planView(facts)) };
    case "json":
      return { result, text: `${JSON.stringify(result, null, 2)}\n` };
    case "markdown":
    case "github":
    case "gitlab":
      return { result, text: markdownOf(facts, flags.format) };
    case "junit":
      return {
        result,
        text: renderJunit({
          plan: shown.id,
          target: shown.statement.target.name,
          card: shown.summary.rows === 0 ? null : planCard(facts),
          decision: facts.decision,
        }),
      };
  }
}

function markdownOf(f: PlanFactsView, format: MarkdownFormat): string {
  const { statement } = f;
  return renderMarkdown(
    {
      target: statement.target.name,
      environment: statement.target.verdict,
      job: statement.job?.name ?? statement.from?.kind ?? "",
      rows: f.summary.rows,
      card: planCard(f),
      odd: oddFacts(f.odd, f.how).findings.map((o) => `${o.rows} ${o.words}`),
      patterns: patternViews(f.summary, f.how),
      decision: f.decision,
      reason: statement.reason,
      plan: f.id,
      digest: statement.changeset.digest,
    },
    format,
  );
}

async function everyRow(
  cx: Context,
  shown: Shown,
  changes: Iterable<Change>,
  how: Showing,
): Promise<Outcome> {
  if (cx.json)
    return { result: { plan: shown.id, rows: [...changes].map((c) => rowJson(c, shown, how)) }, text: "" };
  // Rows go out in portions; a plan of ten million rows never stands in memory.
  const { streams } = cx;
  const paged = cx.paged();
  let portion: Change[] = [];
  let reads = true;
  const flush = async (): Promise<void> => {
    if (portion.length > 0)
      reads = await paged.write(
        renderRows(rowViews(portion, shown.shapes, how), streams.outPalette, streams.width),
      );
    portion = [];
  };
  for (const change of changes) {
    const last = portion.at(-1);
    if (portion.length >= 200 || (last !== undefined && last.table !== change.table)) await flush();
    if (!reads) break;
    portion.push(change);
  }
  await flush();
  await paged.end();
  return { result: null, text: "" };
}

function rowJson(c: Change, shown: Shown, how: Showing): Record<string, unknown> {
  const shape = shown.shapes.find((s) => s.name === c.table);
  const image = (row: Row | null): Record<string, unknown> | null =>
    row === null || shape === undefined
      ? null
      : Object.fromEntries(
          shape.columns.map((col, i) => {
            const v = row[i] ?? null;
            return [col.name, how.isMasked(c.table, col.name) ? `····@${how.mask(v).tag}` : valueJson(v)];
          }),
        );
  return {
    table: c.table,
    op: c.op,
    origin: c.origin,
    count: c.count ?? 1,
    before: image(c.op === "insert" ? null : c.before),
    after: image(c.op === "delete" ? null : c.after),
  };
}

async function ask(
  query: (sql: string) => Promise<QueryAnswer>,
  sql: string,
  masked: boolean,
): Promise<QueryAnswer> {
  if (!masked) return query(sql);
  throw new UsageError({
    code: "ERR_USAGE",
    message: "this plan's target masks columns, so its rows cannot be asked in free SQL",
    why: "an answer could show what the configuration masks",
  });
}

function answered(cx: Context, shown: Shown, answer: QueryAnswer): Outcome {
  return {
    result: {
      plan: shown.id,
      columns: answer.columns,
      rows: answer.rows.map((r) => r.map(valueJson)),
      truncated: answer.truncated,
    },
    text: cx.screen(renderAnswer, answer),
  };
}
