/** Help pages: examples first, then options, then the exit codes that the command can end with. */
import type { Command, Help, Option } from "commander";
import { plainPalette } from "../render/palette.js";
import { hang, page, paperOf, table, wrap } from "../render/layout.js";
import { EXIT_TABLE, type ExitCode } from "./exit-codes.js";

/** Groups of commands, in this order. */
export const HELP_GROUPS = ["Lifecycle", "Understand", "Set up"] as const;
/** One of {@link HELP_GROUPS}. */
export type HelpGroup = (typeof HELP_GROUPS)[number];

/** What a command's help page says beside its options. */
export interface HelpPage {
  readonly group: HelpGroup;
  readonly summary: string;
  /** Longer words, where the summary is not enough. */
  readonly description?: string;
  /** Command lines that work, with what they do. */
  readonly examples: readonly { readonly line: string; readonly what: string }[];
  /** Exit codes beside 0, 1 and 2, which every command has. */
  readonly exits: readonly ExitCode[];
}

/** Gives `command` its page. */
export function describeCommand(command: Command, help: HelpPage): Command {
  return command
    .helpGroup(`${help.group}:`)
    .summary(help.summary)
    .description(help.description ?? help.summary)
    .configureHelp({ showGlobalOptions: true, formatHelp: (cmd, helper) => commandHelp(cmd, helper, help) });
}

/** The exit codes that a command can end with, as help and documents show them. */
export function exitLines(exits: readonly ExitCode[], width: number): string[] {
  const wanted = new Set<number>([0, 1, 2, ...exits]);
  const rows = EXIT_TABLE.filter((e) => wanted.has(e.code)).map((e) => [
    { text: String(e.code) },
    { text: e.name },
    { text: e.meaning },
  ]);
  const columns = [{ head: "", align: "right" }, { head: "" }, { head: "", room: "wrap" }] as const;
  return table(columns, rows, paperOf(plainPalette, width));
}

function commandHelp(cmd: Command, helper: Help, help: HelpPage): string {
  const width = helper.helpWidth ?? 80;
  return page([
    ...helper
      .commandDescription(cmd)
      .split("\n")
      .flatMap((line) => wrap(line, width)),
    ...examples(help, width),
    ...section(
      "Usage",
      hang({ text: "  " }, { text: helper.commandUsage(cmd) }, paperOf(plainPalette, width)),
    ),
    ...section(
      "Arguments",
      items(
        helper.visibleArguments(cmd).map((a) => [helper.argumentTerm(a), helper.argumentDescription(a)]),
        width,
      ),
    ),
    ...section(
      "Commands",
      items(
        helper.visibleCommands(cmd).map((c) => [helper.subcommandTerm(c), helper.subcommandDescription(c)]),
        width,
      ),
    ),
    ...optionSections(cmd, helper, width),
    ...section("Exit codes", exitLines(help.exits, width)),
  ]);
}

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ["", `${title}:`, ...lines];
}

/** Side by side where all of them fit; else what an example does stands below it, so that a line can be copied whole. */
function examples(help: HelpPage, width: number): string[] {
  const paper = paperOf(plainPalette, width);
  const longest = Math.max(...help.examples.map((e) => e.line.length), 0);
  const fits = help.examples.every((e) => 2 + longest + 2 + e.what.length <= width);
  const lines = help.examples.flatMap((e) =>
    fits
      ? [`  ${e.line.padEnd(longest)}  ${e.what}`]
      : [
          ...hang({ text: "  " }, { text: e.line }, paper),
          ...hang({ text: "      " }, { text: e.what }, paper),
        ],
  );
  return section("Examples", lines);
}

/** Options in their groups, then the flags of the root, which every command takes. */
function optionSections(cmd: Command, helper: Help, width: number): string[] {
  const groups = new Map<string, [string, string][]>();
  for (const option of helper.visibleOptions(cmd)) {
    const title = (option.helpGroupHeading ?? "Options").replace(/:$/, "");
    const own = groups.get(title) ?? [];
    groups.set(title, [...own, [helper.optionTerm(option), optionWords(helper, option)]]);
  }
  const shared = helper
    .visibleGlobalOptions(cmd)
    .map((o): [string, string] => [helper.optionTerm(o), helper.optionDescription(o)]);
  return [
    ...[...groups].flatMap(([title, rows]) => section(title, items(rows, width))),
    ...section("Every command", items(shared, width)),
  ];
}

/** Without the empty list that a repeatable option begins with. */
function optionWords(helper: Help, option: Option): string {
  return helper.optionDescription(option).replace(" (default: [])", "");
}

function items(rows: readonly (readonly string[])[], width: number): string[] {
  if (rows.length === 0) return [];
  const cells = rows.map((r) => r.map((text) => ({ text })));
  return table([{ head: "" }, { head: "", room: "wrap" }], cells, paperOf(plainPalette, width));
}
