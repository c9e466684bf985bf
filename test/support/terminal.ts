/** A command at a real pseudo-terminal: keys are typed when their question stands on the screen, never by the clock. */
import { fileURLToPath } from "node:url";
import { spawn } from "@lydell/node-pty";
import xterm from "@xterm/headless";
import { BIN } from "./project.js";

/** What is typed once words have appeared after the last answer. */
export interface Turn {
  readonly after: string | RegExp;
  readonly type: string;
  /** What must be so besides, looked at until it is. Gets what was printed. */
  readonly once?: (raw: string) => boolean;
  /** What is done once it was typed. */
  readonly done?: () => void;
}

/** How the conversation ended. */
export interface Conversation {
  readonly code: number;
  /** Everything that was written, escape codes included. */
  readonly raw: string;
  /** The screen as a person saw it at the end, with what scrolled away, as lines. */
  readonly screen: string;
}

/** How it is held. */
export interface TerminalOptions {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly columns?: number;
}

/** Says that the command has ended, in a sequence that no terminal shows. */
const ENDED = "\u001b]777;ended\u0007";
/** Prints {@link ENDED} after the command and waits for an answer, so that nothing that was printed is lost. */
const HOLDING = fileURLToPath(new URL("holding-child.js", import.meta.url));

/** Runs the command and types through the turns; ends when the command does. */
export async function converse(
  args: readonly string[],
  turns: readonly Turn[],
  options: TerminalOptions,
): Promise<Conversation> {
  const columns = options.columns ?? 100;
  const screen = new xterm.Terminal({ cols: columns, rows: 40, scrollback: 2_000, allowProposedApi: true });
  const pty = spawn(process.execPath, [HOLDING, process.execPath, BIN, ...args], {
    cols: columns,
    rows: 40,
    cwd: options.cwd,
    env: {
      PATH: process.env["PATH"] ?? "",
      HOME: `${options.cwd}/home`,
      TERM: "xterm-256color",
      LANG: "C.UTF-8",
      TZ: "UTC",
      ...options.env,
    },
  });
  let raw = "";
  let seen = 0;
  let turn = 0;
  const answer = (): void => {
    const next = turns[turn];
    if (next === undefined) return;
    const at = find(plain(raw), next.after, seen);
    if (at === -1) return;
    if (next.once?.(raw) === false) {
      setTimeout(answer, 5);
      return;
    }
    turn += 1;
    seen = at;
    if (next.type !== "") pty.write(next.type);
    next.done?.();
    answer();
  };
  pty.onData((data) => {
    raw += data;
    screen.write(data);
    if (raw.includes(ENDED)) pty.write("\r");
    else answer();
  });
  const code = await new Promise<number>((done) => pty.onExit(({ exitCode }) => done(exitCode)));
  await new Promise<void>((done) => screen.write("", done));
  const text = linesOf(screen);
  screen.dispose();
  if (turn < turns.length)
    throw new Error(`ended with ${code} before ${String(turns[turn]?.after)}:\n${text}`);
  return { code, raw: raw.replace(ENDED, ""), screen: text };
}

/** Where the words end that were looked for, from `from` on; -1 while they are not there. */
function find(text: string, words: string | RegExp, from: number): number {
  const rest = text.slice(from);
  if (typeof words === "string") return rest.includes(words) ? from + rest.indexOf(words) + words.length : -1;
  const match = words.exec(rest);
  return match === null ? -1 : from + match.index + match[0].length;
}

/** Without escape codes. */
export function plain(raw: string): string {
  // oxlint-disable-next-line no-control-regex -- these are the codes
  return raw.replaceAll(/\u001b\[[0-9;?]*[A-Za-z]/g, "").replaceAll("\r", "");
}

function linesOf(screen: InstanceType<typeof xterm.Terminal>): string {
  const buffer = screen.buffer.active;
  const lines = Array.from(
    { length: buffer.length },
    (_, i) => buffer.getLine(i)?.translateToString(true) ?? "",
  );
  return lines.join("\n").trimEnd();
}
