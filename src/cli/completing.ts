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
  const current = typed.at(-1) ?? "";
  const { command, previous } = walk(program, typed.slice(0, -1));
  const found = await candidates(command, previous, current, known);
  return found.filter((w) => w.startsWith(current)).sort();
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
  const option = command.options.find((o) => o.long === previous && takesValue(o));
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
  const inherited = command.parent === null ? [] : flagsOf(command.parent);
  return [...command.options.flatMap((o) => o.long ?? []), ...inherited, "--help"];
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
