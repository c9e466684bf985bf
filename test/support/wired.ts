/** The operations of a project in this very process, with the real adapters and the real store: what a start of the program costs is saved. */
import { wire } from "../../src/cli/wiring.js";
import type { Toolbox } from "../../src/operations/toolbox.js";

/** Runs `work` with the toolbox of the project in `dir`, as a command with these variables would have it. */
export async function withTools<T>(
  dir: string,
  work: (tools: Toolbox) => Promise<T>,
  env: Readonly<Record<string, string>> = {},
): Promise<T> {
  const wired = await wire({
    cwd: dir,
    env: { PATH: process.env["PATH"] ?? "", HOME: `${dir}/home`, ...env },
    isInteractive: false,
    progress: { begin: () => () => undefined, check: () => undefined, wave: () => undefined },
    narrate: () => undefined,
    interruption: { requested: () => null, insisted: () => false },
  });
  try {
    return await work(wired.tools);
  } finally {
    wired.close();
  }
}
