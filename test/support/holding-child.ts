/**
 * Runs a command in this terminal and holds the terminal open until all that was printed has been read: whoever is busy when
 * a process ends loses what a pseudo-terminal still holds. Signals are the command's.
 */
import { spawn } from "node:child_process";

/** Says that the command has ended, in a sequence that no terminal shows. */
const ENDED = "\u001b]777;ended\u0007";

for (const signal of ["SIGINT", "SIGTERM", "SIGQUIT"] as const) process.on(signal, () => undefined);
const [program = "", ...args] = process.argv.slice(2);
const child = spawn(program, args, { stdio: "inherit" });
child.on("exit", (code) => {
  process.stdout.write(ENDED);
  process.stdin.once("data", () => process.exit(code ?? 128));
});
