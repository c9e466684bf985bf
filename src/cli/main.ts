/** The command line: parse, run one command, print its screen or its one document, and say the exit code. */
import { type Argument, Command, CommanderError, Option } from "commander";
import { HoldpointError, isMachineError, messageOf, type NextStep, UsageError } from "../base/errors.js";
import { machineTroubleOf, machineWhy } from "../base/machine-trouble.js";
import { nearest } from "../base/suggest.js";
import { renderError, renderErrorLine, renderExitLine, renderWarning } from "../render/error.js";
import type { Context, Outcome, Register, Run } from "./command.js";
import { COMMANDS, commandsFor } from "./commands/index.js";
import { type Envelope, envelope, envelopeText, failureEnvelope } from "./envelope.js";
import { type Events, eventsFlag, openEvents } from "./events.js";
import { type ExitCode, exitName, exitOf } from "./exit-codes.js";
import { openPaged, type Pager } from "./paging.js";
import { createProgress } from "./progress.js";
import { createPrompter } from "./prompts.js";
import { guardSignals } from "./signals.js";
import { COLORS, openStreams, settleColor, type Stdio, type Streams } from "./streams.js";
import { versionText } from "./version.js";

/** The process as `main` sees it. */
export interface Process extends Stdio {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: () => string;
  readonly exit: (code: number) => never;
  readonly on: (signal: "SIGINT" | "SIGTERM", listener: () => void) => unknown;
}

/** Runs one command. Never throws; the exit code is what it returns. */
export async function main(argv: readonly string[], process: Process): Promise<number> {
  const streams = openStreams(argv, process.env, process);
  const [line, tail] = splitTail(argv);
  const own = settleColor(line);
  const session: Session = {
    streams,
    process,
    json: own.includes("--json"),
    verbose: isVerbose(own),
    quiet: isQuiet(own),
    eventsTo: eventsFlag(own),
    events: null,
  };
  let exit = 0;
  // Known once the command runs; before, a mistake on the line is the mistake of the command that it names.
  let command: string | undefined;
  let program: Command | undefined;
  const run: Run = async (name, act) => {
    command = name;
    exit = await runCommand(session, name, act);
  };
  try {
    if (own[0] === "--version" || own[0] === "-V") {
      streams.out(`${versionText()}\n`);
      return 0;
    }
    program = build(streams, run, tail, await commandsFor(own));
    await program.parseAsync([...own], { from: "user" });
  } catch (e) {
    const { named, words } = commandIn(program, own);
    exit = isPrinted(e)
      ? 0
      : failed(
          session,
          command ?? named?.document ?? "holdpoint",
          mistyped(e, own, named, words) ?? asHoldpointError(e),
        );
  }
  await streams.flush();
  return exit;
}

interface Session {
  readonly streams: Streams;
  readonly process: Process;
  readonly json: boolean;
  readonly verbose: boolean;
  readonly quiet: boolean;
  /** The value of `--events`. */
  readonly eventsTo: string | null;
  /** Open from the command's beginning on. */
  events: Events | null;
}

/** What follows the first `--` belongs to somebody else's command. */
function splitTail(argv: readonly string[]): readonly [readonly string[], readonly string[] | null] {
  const at = argv.indexOf("--");
  return at === -1 ? [argv, null] : [argv.slice(0, at), argv.slice(at + 1)];
}

function isVerbose(own: readonly string[]): boolean {
  return own.some((a) => a === "--verbose" || /^-v+$/.test(a));
}

function isQuiet(own: readonly string[]): boolean {
  return own.includes("--quiet") || own.includes("-q");
}

function build(
  streams: Streams,
  run: Run,
  tail: readonly string[] | null,
  commands: readonly Register[],
): Command {
  const program = new Command("holdpoint")
    .description(
      "Stands between people and production state: shows the effect of a maintenance job row by row,\n" +
        "lets it happen once a second person has signed exactly that effect, and takes it back.",
    )
    .version(versionText(), "-V, --version", "print the version")
    .option("--json", "one JSON document on stdout, on failure too")
    .option("--events <file>", "append what happens to this file, one JSON object a line; - for stdout")
    .option("--no-input", "never ask; refuse and name the flag instead")
    .addOption(new Option("--color [when]", "when to colour").choices(COLORS))
    .option("--no-color", "no colour")
    .option("--plain", "ASCII only")
    .option("--accessible", "one sentence a line, no redraw")
    .option("--width <columns>", "lay screens out for this many columns")
    .option("-q, --quiet", "no narration on stderr")
    .option("-v, --verbose", "show causes of errors")
    .configureOutput({
      writeOut: (text) => streams.out(text),
      // Errors are worded by this program, as text or as a document.
      writeErr: () => undefined,
      getOutHelpWidth: () => streams.width,
    })
    .configureHelp({
      showGlobalOptions: true,
      // Every command has options; saying so twenty times hides the arguments.
      subcommandTerm: (c) => [c.name(), ...c.registeredArguments.map(argumentTerm)].join(" "),
    })
    .showSuggestionAfterError(true)
    .exitOverride();
  for (const register of commands) register(program, run, tail);
  for (const c of everyCommand(program)) c.exitOverride().configureOutput({ writeErr: () => undefined });
  program.action(() => {
    streams.out(program.helpInformation());
  });
  return program;
}

function argumentTerm(a: Argument): string {
  const name = a.variadic ? `${a.name()}...` : a.name();
  return a.required ? `<${name}>` : `[${name}]`;
}

function everyCommand(c: Command): readonly Command[] {
  return [c, ...c.commands.flatMap((child) => everyCommand(child))];
}

async function runCommand(
  session: Session,
  name: string,
  act: (cx: Context) => Promise<Outcome>,
): Promise<number> {
  const { streams, process } = session;
  const clock = { now: () => new Date() };
  try {
    session.events = session.eventsTo === null ? null : openEvents(session.eventsTo, streams, clock);
  } catch (e) {
    return failed(session, name, asHoldpointError(e));
  }
  const reporter = createProgress(streams, clock, { quiet: session.quiet || session.json });
  const progress = session.events?.around(reporter) ?? reporter;
  const signals = guardSignals(process, (e) => failed(session, name, e));
  let close = (): void => undefined;
  let wired: ReturnType<Context["tools"]> | undefined;
  const cx: Context = {
    streams,
    cwd: process.cwd(),
    env: process.env,
    json: session.json,
    hasEvents: session.eventsTo !== null,
    prompter: createPrompter(streams, { json: session.json }),
    progress,
    tools: () => {
      wired ??= (async () => {
        const { wire } = await import("./wiring.js");
        const made = await wire({
          cwd: process.cwd(),
          env: process.env,
          isInteractive: streams.isInteractive && !session.json,
          progress,
          narrate: (text) => streams.err(text),
          interruption: signals,
        });
        close = made.close;
        return made.tools;
      })();
      return wired;
    },
    screen: (render, view) => render(view, streams.outPalette, streams.width),
    paged: () => openPaged(streams, mayPage(session) ? () => pagerFor(session, signals) : null),
    say: (text) => {
      if (!session.quiet && !session.json) streams.err(text);
    },
  };
  try {
    return ended(session, name, await act(cx));
  } catch (e) {
    // The bar's line ends before the error's begins.
    progress.end();
    return failed(session, name, asHoldpointError(e));
  } finally {
    progress.end();
    close();
    signals.end();
  }
}

/** Only where a person sits at a terminal that can be redrawn, and the terminal is theirs. */
function mayPage({ streams, json, events }: Session): boolean {
  return (
    events?.onStdout !== true &&
    streams.isInteractive &&
    streams.stdoutIsTty &&
    !streams.plainPrompts &&
    !json
  );
}

async function pagerFor(session: Session, signals: ReturnType<typeof guardSignals>): Promise<Pager | null> {
  const { env } = session.process;
  const { pagerCommand, startPager } = await import("./wiring.js");
  const command = pagerCommand(env);
  if (command === null) return null;
  // Ctrl-C belongs to the pager now: it must not end us below it.
  signals.requested();
  return startPager(command, env);
}

function ended(session: Session, name: string, outcome: Outcome): number {
  const exit: ExitCode = outcome.exit ?? (outcome.error === undefined ? 0 : exitOf(outcome.error));
  if (session.json || session.events !== null) {
    const document = envelope(name, {
      exit,
      targetChanged: outcome.targetChanged ?? outcome.error?.targetChanged ?? "no",
      result: outcome.result,
      ...(outcome.error === undefined ? {} : { error: outcome.error }),
      ...(outcome.warnings === undefined ? {} : { warnings: outcome.warnings }),
    });
    showDocument(session, document);
    if (session.json) {
      if (outcome.error !== undefined) showErrorLine(session, outcome.error);
      else showExitLine(session, exit, outcome);
      return exit;
    }
  }
  if (session.events?.onStdout !== true) session.streams.out(outcome.text);
  const { streams } = session;
  for (const warning of outcome.warnings ?? [])
    streams.err(renderWarning(warning, streams.errPalette, streams.width));
  if (outcome.error !== undefined) showError(session, outcome.error);
  else showExitLine(session, exit, outcome);
  return exit;
}

function failed(session: Session, name: string, error: HoldpointError): number {
  if (session.json || session.events !== null) showDocument(session, failureEnvelope(name, error));
  if (session.json) showErrorLine(session, error);
  else showError(session, error);
  return exitOf(error);
}

/** What ended otherwise than with 0 and is no error. */
function showExitLine({ streams }: Session, exit: ExitCode, outcome: Outcome): void {
  if (exit !== 0) streams.err(renderExitLine(exit, exitName(exit), outcome.targetChanged ?? "no"));
}

/** Beside a document: one line, which a script sees whose stdout goes to a file. */
function showErrorLine({ streams }: Session, error: HoldpointError): void {
  streams.err(renderErrorLine(error));
}

/** The one document, as the last event and, under `--json`, on stdout, unless the events are there. */
function showDocument({ streams, events, json }: Session, document: Envelope): void {
  events?.result(document);
  if (json && events?.onStdout !== true) streams.out(envelopeText(document));
}

function showError(session: Session, error: HoldpointError): void {
  const { streams } = session;
  const cause = session.verbose && error.cause !== undefined ? messageOf(error.cause) : undefined;
  const view = {
    code: error.code,
    message: error.message,
    next: error.next,
    targetChanged: error.targetChanged,
    ...(error.why === undefined ? {} : { why: error.why }),
    ...(error.state === undefined ? {} : { state: error.state }),
    ...(cause === undefined ? {} : { cause }),
  };
  streams.err(renderError(view, streams.errPalette, streams.width));
}

/** Anything that is not an error of ours: a wrong command line, or a fault that is ours to mend. */
function asHoldpointError(e: unknown): HoldpointError {
  if (e instanceof HoldpointError) return e;
  if (e instanceof CommanderError) return usageError(e);
  if (isMachineError(e)) return machineFailure(e);
  return new HoldpointError({
    code: "ERR_INTERNAL",
    message: `something failed that should not: ${messageOf(e)}`,
    why: "this is a fault of holdpoint, not of your command",
    next: [{ actor: "anyone", text: "Run it again with --verbose and report what it says." }],
    cause: e,
  });
}

/** A file of the configuration, the terminal, whatever it was: the machine refused it, and mending that helps. */
function machineFailure(e: unknown): HoldpointError {
  return new HoldpointError({
    code: "ERR_MACHINE_FAILED",
    message: "the machine could not read or write what the command needs",
    why: machineWhy(e),
    next: [{ actor: "anyone", text: machineTroubleOf(e).todo }],
    cause: e,
  });
}

/** A command that a line names, as far as it was built. */
interface Named {
  readonly command: Command;
  /** Its name in `schema`: `log-verify`; null for one that only groups others. */
  readonly document: string | null;
}

/** The command that the line names and the words that lead to it. Values of flags before it are no commands, and are passed over. */
function commandIn(
  program: Command | undefined,
  own: readonly string[],
): { readonly named: Named | undefined; readonly words: readonly string[] } {
  const given = own.filter((a) => !a.startsWith("-"));
  const at = given.findIndex((w) => COMMANDS.some((c) => c.name === w));
  const first = program?.commands.find((c) => c.name() === given[at]);
  if (first === undefined) return { named: undefined, words: [] };
  const second = first.commands.find((c) => c.name() === given[at + 1]);
  const command = second ?? first;
  const words = second === undefined ? [first.name()] : [first.name(), second.name()];
  const isGroup = command.commands.length > 0 && command.name() !== "log";
  return { named: { command, document: isGroup ? null : words.join("-") }, words };
}

/** What was typed and is none of ours, with the word that was meant; what a parser reports first may only follow from it. */
function mistyped(
  e: unknown,
  own: readonly string[],
  named: Named | undefined,
  words: readonly string[],
): UsageError | undefined {
  if (!(e instanceof CommanderError) || e.exitCode === 0) return undefined;
  if (named === undefined) return noCommand(e, own);
  const next = [{ actor: "anyone" as const, argv: ["holdpoint", ...words, "--help"] }];
  const flag = unknownFlag(own, named.command);
  if (flag !== undefined) {
    const meant = nearest(flag, flagsOf(named.command));
    const hint = meant === undefined ? "" : `; did you mean ${meant}?`;
    return new UsageError({ code: "ERR_USAGE", message: `unknown option '${flag}'${hint}`, next, cause: e });
  }
  const word = own.filter((a) => !a.startsWith("-"))[words.length];
  if (named.document === null && word !== undefined) {
    const all = named.command.commands.map((c) => c.name());
    const meant = nearest(word, all);
    return new UsageError({
      code: "ERR_USAGE",
      message: `there is no command ${[...words, word].join(" ")}${meant === undefined ? "" : `; did you mean ${meant}?`}`,
      why: `${words.join(" ")} has ${all.join(", ")}`,
      next,
      cause: e,
    });
  }
  return usageError(e, next);
}

/** A flag of the line that neither the command nor every command has. */
function unknownFlag(own: readonly string[], command: Command): string | undefined {
  const known = flagsOf(command);
  return own
    .filter((a) => a.startsWith("--"))
    .map((a) => a.replace(/=.*$/s, ""))
    .find((a) => !known.includes(a));
}

function flagsOf(command: Command): readonly string[] {
  const own = command.options.flatMap((o) => (o.long === undefined || o.long === null ? [] : [o.long]));
  return command.parent === null ? [...own, "--help"] : [...own, ...flagsOf(command.parent)];
}

/** A word that is no command reaches the parser as an argument too many of the program itself. */
function noCommand(e: CommanderError, own: readonly string[]): UsageError | undefined {
  const word = own.find((a) => !a.startsWith("-"));
  if (e.code !== "commander.excessArguments" || word === undefined) return undefined;
  const meant = nearest(
    word,
    COMMANDS.map((c) => c.name),
  );
  return new UsageError({
    code: "ERR_USAGE",
    message: `there is no command ${word}${meant === undefined ? "" : `; did you mean ${meant}?`}`,
    next: HELP,
  });
}

/** Help and version end with 0 and have been printed already. */
function isPrinted(e: unknown): boolean {
  return e instanceof CommanderError && e.exitCode === 0;
}

const HELP: readonly NextStep[] = [{ actor: "anyone", argv: ["holdpoint", "--help"] }];

function usageError(e: CommanderError, next = HELP): UsageError {
  // Commander would print its help here; what was typed is half a command all the same.
  if (e.code === "commander.help")
    return new UsageError({
      code: "ERR_USAGE",
      message: "this command needs another word, which its help lists",
      next,
      cause: e,
    });
  const message = e.message
    .replace(/^error: /, "")
    .replace(/\n\(Did you mean (.*)\?\)$/s, "; did you mean $1?");
  return new UsageError({
    code: "ERR_USAGE",
    message,
    next,
    cause: e,
  });
}
