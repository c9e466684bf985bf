/** `show --reveal`: values of masked columns, for one person at a terminal, recorded before the first of them is shown. */
import { UsageError } from "../../base/errors.js";
import type { Change } from "../../changeset/change.js";
import type { MaskedColumn } from "../../config/config.js";
import {
  onlyAtTerminal,
  recordReveal,
  type Revealed,
  type RevealRequest,
  refuseRevealByProgram,
} from "../../operations/reveal.js";
import type { Shown } from "../../operations/show.js";
import type { Toolbox } from "../../operations/toolbox.js";
import { renderReveal, renderRevealed } from "../../render/reveal.js";
import { renderRows } from "../../render/rows.js";
import { leafThrough } from "../aside.js";
import type { Context, Outcome } from "../command.js";
import { rowViews, showing } from "../views/rows.js";

/** Rows that are laid out at once. */
const PORTION = 200;

interface RevealFlags {
  readonly rows?: boolean;
  readonly sql?: string;
  readonly against?: string;
  readonly format: string;
  readonly reveal?: readonly string[];
  readonly reason?: string;
  readonly key?: string;
}

/**
 * What these flags ask to see; null when they reveal nothing.
 * @throws UsageError where the flags do not go together, without a reason, and where a program reads along.
 */
export function requestOf(cx: Context, flags: RevealFlags): RevealRequest | null {
  const { reveal: columns, reason, key } = flags;
  if (columns === undefined) {
    if (reason === undefined && key === undefined) return null;
    throw new UsageError({
      code: "ERR_USAGE",
      message: `${reason === undefined ? "--key" : "--reason"} belongs to --reveal`,
      why: "a plan's reason and key are given to plan; show only reads",
      next: [{ actor: "anyone", argv: ["holdpoint", "show", "--help"] }],
    });
  }
  const beside = [
    ["--sql", flags.sql !== undefined],
    ["--against", flags.against !== undefined],
    ["--format", flags.format !== "text"],
  ] as const;
  const other = beside.find(([, given]) => given)?.[0];
  if (other !== undefined) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `--reveal and ${other} do not go together`,
      why: "revealed values are shown row by row, to a person",
      next: [{ actor: "anyone", argv: ["holdpoint", "show", "--help"] }],
    });
  }
  if (reason === undefined) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: "--reveal needs --reason",
      why: "the reason is recorded with your name",
      next: [{ actor: "anyone", text: 'Add --reason "WHY"' }],
    });
  }
  const found = whyNoPerson(cx);
  if (found !== null) throw onlyAtTerminal(found);
  return { columns, reason, key };
}

/** Why nobody sits at a terminal that is theirs alone; null when somebody does. */
function whyNoPerson({ json, hasEvents, streams }: Context): string | null {
  if (json) return "--json is for programs";
  if (hasEvents) return "--events is for programs";
  const { stdin, stdout, stderr } = streams.stdio;
  if (!stdin.isTTY) return "standard input is no terminal";
  if (!stdout.isTTY) return "standard output is no terminal";
  if (!stderr.isTTY) return "standard error is no terminal";
  return streams.isInteractive ? null : "CI is set or --no-input was given";
}

/** Records, shows and takes away again. What it returns holds no value. */
export async function reveal(
  cx: Context,
  tools: Toolbox,
  plan: { readonly shown: Shown; readonly all: () => Iterable<Change> },
  masked: readonly MaskedColumn[],
  request: RevealRequest,
): Promise<Outcome> {
  refuseRevealByProgram(tools);
  const revealed = await recordReveal(tools, plan.shown, request);
  await leafThrough(cx, screens(cx, plan, masked, revealed));
  const { columns, by, reason, sequence } = revealed;
  const names = columns.map((c) => `${c.table}.${c.column}`);
  return {
    result: null,
    text: cx.screen(renderRevealed, { plan: plan.shown.id, columns: names, by, reason, entry: sequence }),
  };
}

/** The rows of the tables that have a revealed column, in portions: a plan's rows never stand in memory. */
function* screens(
  cx: Context,
  { shown, all }: { readonly shown: Shown; readonly all: () => Iterable<Change> },
  masked: readonly MaskedColumn[],
  revealed: Revealed,
): Generator<string> {
  const { columns } = revealed;
  const still = masked.filter((m) => !columns.includes(m));
  const how = showing(still);
  const { outPalette: palette, width } = cx.streams;
  const { name, verdict } = shown.statement.target;
  const names = columns.map((c) => `${c.table}.${c.column}`);
  yield renderReveal(
    { banner: { verdict, target: name, note: shown.id }, columns: names, by: revealed.by },
    palette,
    width,
  );
  let portion: Change[] = [];
  const laidOut = (): string => {
    const labels = columns.filter((c) => c.table === portion[0]?.table).map((c) => c.column);
    return renderRows(rowViews(portion, shown.shapes, how, labels), palette, width);
  };
  for (const change of all()) {
    if (!columns.some((c) => c.table === change.table)) continue;
    if (portion.length >= PORTION || (portion.length > 0 && portion[0]?.table !== change.table)) {
      yield laidOut();
      portion = [];
    }
    portion.push(change);
  }
  if (portion.length > 0) yield laidOut();
}
