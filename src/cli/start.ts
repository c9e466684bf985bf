/** The first thing that is loaded: answers `--version` by itself, and loads the program for everything else. */
import type { Process } from "./main.js";
import { versionText } from "./version.js";

/** Runs one command. Never throws; the exit code is what it returns. */
export async function start(argv: readonly string[], process: Process): Promise<number> {
  if (argv.length === 1 && (argv[0] === "--version" || argv[0] === "-V")) {
    // Asked by scripts at every start of a shell or a job: it must not pay for a parser and a palette.
    process.stdout.write(`${versionText()}\n`);
    return 0;
  }
  const { main } = await import("./main.js");
  return main(argv, process);
}
