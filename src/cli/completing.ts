/** Which words may come next on a command line. */
import type { Command, Option } from "commander";

/** Names of the project around the working directory. */
export interface Known {
  readonly targets: readonly string[];
  readonly jobs: readonly string[];
  readonly plans: readonly string[];
  readonly runs: readonly string[];
}

/**
 * The words that begin as the last of `typed` does. `known` is asked only where a name of the project may stand.
 * A word that stands for a file gives none: the shell completes files itself.
 */
export async function wordsFor(
  program: Command,
  typed: readonly string[],
  known: () => Promise<Known>,
): Promise<readonly string[]> {
  const { done, current, prefix } = lastOf(typed);
  const { command, previous } = walk(program, done);
  const found = await candidates(command, previous, current, known);
  return found
    .filter((w) => w.startsWith(current))
    .map((w) => prefix + w)
    .sort();
}

/**
 * What is finished and what is being typed. bash hands over `--on=shop` as the three words `--on`, `=` and `shop`, and
 * replaces the last; the others hand over one word, and replace all of it.
 */
function lastOf(typed: readonly string[]): {
  readonly done: readonly string[];
  readonly current: string;
  readonly prefix: string;
} {
  const done = typed.slice(0, -1).filter((w) => w !== "=");
  const last = typed.at(-1) ?? "";
  const [prefix, flag] = /^(--[a-z-]+)=/.exec(last) ?? [];
  if (prefix !== undefined && flag !== undefined)
    return { done: [...done, flag], current: last.slice(prefix.length), prefix };
  return { done, current: last === "=" ? "" : last, prefix: "" };
}

/** The command that the words lead to, and the word before the one that is typed. */
function walk(
  program: Command,
  words: readonly string[],
): { readonly command: Command; readonly previous: string | undefined } {
  const command = words.reduce((at, word) => at.commands.find((c) => c.name() === word) ?? at, program);
  return { command, previous: words.at(-1) };
}

async function candidates(
  command: Command,
  previous: string | undefined,
  current: string,
  known: () => Promise<Known>,
): Promise<readonly string[]> {
  const option = optionsOf(command).find((o) => o.long === previous && takesValue(o));
  if (option !== undefined) return valuesOf(option, known);
  if (current.startsWith("-")) return flagsOf(command);
  if (command.commands.length > 0) return command.commands.map((c) => c.name());
  const [argument] = command.registeredArguments;
  if (argument === undefined) return [];
  return argument.argChoices ?? namesFor(argument.name(), await known());
}

function takesValue(o: Option): boolean {
  return o.required || o.optional;
}

function flagsOf(command: Command): readonly string[] {
  return [...new Set([...optionsOf(command).flatMap((o) => o.long ?? []), "--help"])];
}

/** Its own, and those of the commands above it: they stand after it as well. */
function optionsOf(command: Command): readonly Option[] {
  return command.parent === null ? command.options : [...command.options, ...optionsOf(command.parent)];
}

async function valuesOf(option: Option, known: () => Promise<Known>): Promise<readonly string[]> {
  if (option.argChoices !== undefined) return option.argChoices;
  const meant = /<(\w+)/.exec(option.flags)?.[1] ?? "";
  return namesFor(meant, await known());
}

/** What an argument or a value is called in help tells what it stands for. */
function namesFor(meant: string, known: Known): readonly string[] {
  switch (meant) {
    case "target":
      return known.targets;
    case "job":
      return known.jobs;
    case "plan":
      return known.plans;
    case "run":
      return known.runs;
    case "ref":
      return [...known.plans, ...known.runs];
    default:
      return [];
  }
}
