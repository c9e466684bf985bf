/** The command line: parse, run one command, print its screen or its one document, and say the exit code. */
import { type Argument, Command, CommanderError } from "commander";
import { HoldpointError, isMachineError, messageOf, UsageError } from "../base/errors.js";
import { nearest } from "../base/suggest.js";
import { renderError } from "../render/error.js";
import type { Context, Outcome, Register, Run } from "./command.js";
import { COMMANDS, commandsFor } from "./commands/index.js";
import { type Envelope, envelope, envelopeText, failureEnvelope } from "./envelope.js";
import { type Events, eventsFlag, openEvents } from "./events.js";
import { exitOf } from "./exit-codes.js";
import { openPaged, type Pager } from "./paging.js";
import { createProgress } from "./progress.js";
import { createPrompter } from "./prompts.js";
import { guardSignals } from "./signals.js";
import { openStreams, type Stdio, type Streams } from "./streams.js";
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
  const [own, tail] = splitTail(argv);
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
  let command = "holdpoint";
  const run: Run = async (name, act) => {
    command = name;
    exit = await runCommand(session, name, act);
  };
  try {
    if (own[0] === "--version" || own[0] === "-V") {
      streams.out(`${versionText()}\n`);
      return 0;
    }
    const program = build(streams, run, tail, await commandsFor(own));
    await program.parseAsync([...own], { from: "user" });
  } catch (e) {
    exit = isPrinted(e) ? 0 : failed(session, command, noCommand(e, own) ?? asHoldpointError(e));
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
    .option("--color [when]", "always, never or auto")
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
  const exit = outcome.exit ?? (outcome.error === undefined ? 0 : exitOf(outcome.error));
  if (session.json || session.events !== null) {
    const document = envelope(name, {
      exit,
      targetChanged: outcome.targetChanged ?? outcome.error?.targetChanged ?? "no",
      result: outcome.result,
      ...(outcome.error === undefined ? {} : { error: outcome.error }),
      ...(outcome.warnings === undefined ? {} : { warnings: outcome.warnings }),
    });
    showDocument(session, document);
    if (session.json) return exit;
  }
  if (session.events?.onStdout !== true) session.streams.out(outcome.text);
  for (const warning of outcome.warnings ?? []) session.streams.err(`  Warning  ${warning}\n`);
  if (outcome.error !== undefined) showError(session, outcome.error);
  return exit;
}

function failed(session: Session, name: string, error: HoldpointError): number {
  if (session.json || session.events !== null) showDocument(session, failureEnvelope(name, error));
  if (!session.json) showError(session, error);
  return exitOf(error);
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
    code: "ERR_STORE_FAILED",
    message: "the machine could not read or write what the command needs",
    why: messageOf(e),
    next: [
      {
        actor: "anyone",
        text: "Check disk and permissions of what the line above names, then run it again.",
      },
    ],
    cause: e,
  });
}

/** A word that is no command reaches the parser as an argument too many of the program itself. */
function noCommand(e: unknown, own: readonly string[]): UsageError | undefined {
  const word = own.find((a) => !a.startsWith("-"));
  const isExcess = e instanceof CommanderError && e.code === "commander.excessArguments";
  if (!isExcess || word === undefined || COMMANDS.some((c) => c.name === word)) return undefined;
  const meant = nearest(
    word,
    COMMANDS.map((c) => c.name),
  );
  return new UsageError({
    code: "ERR_USAGE",
    message: `there is no command ${word}${meant === undefined ? "" : `; did you mean ${meant}?`}`,
    next: [{ actor: "anyone", argv: ["holdpoint", "--help"] }],
  });
}

/** Help and version end with 0 and have been printed already. */
function isPrinted(e: unknown): boolean {
  return e instanceof CommanderError && e.exitCode === 0;
}

function usageError(e: CommanderError): HoldpointError {
  // Commander would print its help here; what was typed is half a command all the same.
  if (e.code === "commander.help")
    return new UsageError({
      code: "ERR_USAGE",
      message: "this command needs another word, which its help lists",
      next: [{ actor: "anyone", argv: ["holdpoint", "--help"] }],
      cause: e,
    });
  const message = e.message
    .replace(/^error: /, "")
    .replace(/\n\(Did you mean (.*)\?\)$/s, "; did you mean $1?");
  return new UsageError({
    code: "ERR_USAGE",
    message,
    next: [{ actor: "anyone", argv: ["holdpoint", "--help"] }],
    cause: e,
  });
}
