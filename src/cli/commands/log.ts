/** `log`: what happened, and whether the chain holds. */
import { shortDigest } from "../../base/digest.js";
import { isDigest } from "../../base/digest.js";
import { listLog, type LogListing, showRun, verifyLog } from "../../operations/log.js";
import type { RunRecord } from "../../operations/recall/runs.js";
import { renderChain, renderEntries, renderLog, type LogLine } from "../../render/log.js";
import { when } from "../../render/numbers.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";
import { whoRow } from "../views/who.js";
import { runJson } from "./status.js";

export const registerLog: Register = (program, run) => {
  const log = program
    .command("log")
    .option("--on <target>", "this target only")
    .action((flags: { readonly on?: string }) => run("log", (cx) => list(cx, flags.on ?? null)));
  describeCommand(log, {
    group: "Understand",
    summary: "what happened, newest first; show a run; verify the chain",
    examples: [
      { line: "holdpoint log --on elb-prod", what: "one target's runs" },
      { line: "holdpoint log show rn_5c0e2fqa", what: "every entry about one run" },
      { line: "holdpoint log verify", what: "check every entry and every anchored head" },
    ],
    exits: [35],
  });
  const show = log
    .command("show")
    .argument("<run>", "a run's id, or the beginning of one")
    .action((ref: string) => run("log-show", (cx) => showOne(cx, ref)));
  describeCommand(show, {
    group: "Understand",
    summary: "every entry about one run",
    examples: [{ line: "holdpoint log show rn_5c0e2fqa", what: "from plan to end" }],
    exits: [35],
  });
  const who = log
    .command("who")
    .option("--on <target>", "the target, named")
    .requiredOption("--table <name>", "the row's table")
    .requiredOption("--key <value>", "the row's key; once for each column of it", collect)
    // `log` itself has --on too, and takes it wherever it stands.
    .action((flags: { readonly on?: string; readonly table: string; readonly key: readonly string[] }) =>
      run("log-who", (cx) =>
        whoRow(cx, flags.on ?? log.opts<{ readonly on?: string }>().on, flags.table, flags.key),
      ),
    );
  describeCommand(who, {
    group: "Understand",
    summary: "which runs touched a row, with before and after",
    examples: [
      { line: "holdpoint log who --on elb-prod --table back_ends --key 118", what: "one row's history" },
    ],
    exits: [33, 35, 39],
  });
  const verify = log.command("verify").action(() => run("log-verify", verifyChain));
  describeCommand(verify, {
    group: "Understand",
    summary: "check the chain from its first entry, and the heads that targets anchor",
    examples: [{ line: "holdpoint log verify", what: "0 when it is whole, 35 when it is not" }],
    exits: [35],
  });
};

async function list(cx: Context, on: string | null): Promise<Outcome> {
  const found = await listLog(await cx.tools(), on);
  return {
    result: {
      runs: found.runs.map(runJson),
      rejected: found.rejected,
      revealed: found.revealed,
      entries: found.entries,
      head: found.head,
    },
    text: cx.screen(renderLog, {
      lines: logLines(found),
      chain: chainOf(found.entries, found.head),
      next: [],
    }),
  };
}

function logLines(found: LogListing): LogLine[] {
  const runs = found.runs.map((r) => ({
    at: r.endedAt ?? r.startedAt,
    run: r.id,
    target: r.target,
    job: r.job,
    rows: r.state === "failed" ? null : r.rows,
    requester: r.by ?? "-",
    approvers: r.breakGlass === null ? r.approvers : [`BREAK-GLASS by ${r.breakGlass}`],
    result: resultWords(r),
  }));
  const rejected = found.rejected.map((r) => ({
    at: r.at,
    run: null,
    target: r.target,
    job: r.job,
    rows: null,
    requester: r.requester ?? "-",
    approvers: [r.by],
    result: `rejected: ${r.reason}`,
  }));
  const revealed = found.revealed.map((r) => ({
    at: r.at,
    run: null,
    target: r.target,
    job: r.job,
    rows: null,
    requester: r.by,
    approvers: [],
    result: `saw ${r.columns.join(", ")} unmasked: ${r.reason}`,
  }));
  return [...runs, ...rejected, ...revealed].sort((a, b) => (a.at < b.at ? 1 : a.at > b.at ? -1 : 0));
}

function resultWords(r: RunRecord): string {
  const part =
    r.rowsLeft === null ? "" : `; partly undone by ${r.undoneBy ?? ""}, ${r.rowsLeft} of ${r.rows} rows left`;
  return `${stateWords(r)}${part}`;
}

function stateWords(r: RunRecord): string {
  switch (r.state) {
    case "started":
      return "began, and its end is not recorded";
    case "stopped":
      return `stopped part way, ${r.code ?? ""}, ${r.rows} rows are written`;
    case "failed":
      return `stopped, ${r.code ?? ""}, nothing written`;
    case "undone":
      return `undone by ${r.undoneBy ?? ""}`;
    case "done":
      return r.undoes.length > 0
        ? `done, takes back ${r.undoes.join(", ")}`
        : r.coverUntil === null
          ? "done"
          : `done, undo covered until ${when(r.coverUntil)} UTC`;
  }
}

async function showOne(cx: Context, ref: string): Promise<Outcome> {
  const { run, entries } = await showRun(await cx.tools(), ref);
  const last = entries.at(-1);
  const result = {
    run: runJson(run),
    entries: entries.map((e) => ({ ...e.entry, digest: e.digest })),
  };
  const text = cx.screen(renderEntries, {
    title: `${run.id} on ${run.target}`,
    entries: entries.map(({ entry }) => ({
      sequence: entry.sequence,
      at: entry.at,
      kind: entry.kind,
      facts: Object.entries(entry.facts).flatMap(([k, v]) => factWords(k, v)),
    })),
    chain: last === undefined ? { kind: "none" } : chainOf(last.entry.sequence + 1, last.digest),
  });
  if (cx.json) return { result, text };
  const paged = cx.paged();
  await paged.write(text);
  await paged.end();
  return { result, text: "" };
}

/** Signed bytes and signatures stand whole in `--json`. */
const TOO_LONG: ReadonlySet<string> = new Set(["token", "statement", "signature", "signatures"]);

/** Facts in words; what is too long for a line is left out. */
function factWords(name: string, value: unknown): string[] {
  if (value === null || TOO_LONG.has(name)) return [];
  if (typeof value === "string") return [`${name} ${isDigest(value) ? shortDigest(value) : value}`];
  if (Array.isArray(value)) return value.length === 0 ? [] : [`${name} ${value.join(", ")}`];
  return typeof value === "number" || typeof value === "boolean" ? [`${name} ${String(value)}`] : [];
}

async function verifyChain(cx: Context): Promise<Outcome> {
  const verified = await verifyLog(await cx.tools());
  return {
    result: { entries: verified.entries, head: verified.head, first_bad: null, anchors: verified.anchors },
    text: cx.screen(renderChain, chainOf(verified.entries, verified.head)),
  };
}

function chainOf(entries: number, head: string | null): Parameters<typeof renderChain>[0] {
  if (head === null || !isDigest(head)) return { kind: "none" };
  return { kind: "intact", entries, head: shortDigest(head) };
}
