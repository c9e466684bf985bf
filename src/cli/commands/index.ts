/**
 * Every command, in the order in which help lists them. A command's module is loaded when it is called, so that
 * none pays for another one's libraries; help loads all of them.
 */
import type { Register } from "../command.js";

/** One command and how to get it. */
export interface CommandEntry {
  readonly name: string;
  readonly load: () => Promise<Register>;
}

/** All commands. */
export const COMMANDS: readonly CommandEntry[] = [
  { name: "plan", load: async () => (await import("./plan.js")).registerPlan },
  { name: "approve", load: async () => (await import("./approve.js")).registerApprove },
  { name: "reject", load: async () => (await import("./reject.js")).registerReject },
  { name: "apply", load: async () => (await import("./apply.js")).registerApply },
  { name: "undo", load: async () => (await import("./undo.js")).registerUndo },
  { name: "show", load: async () => (await import("./show.js")).registerShow },
  { name: "status", load: async () => (await import("./status.js")).registerStatus },
  { name: "log", load: async () => (await import("./log.js")).registerLog },
  { name: "explain", load: async () => (await import("./explain.js")).registerExplain },
  { name: "env", load: async () => (await import("./env.js")).registerEnv },
  { name: "trust", load: async () => (await import("./trust.js")).registerTrust },
  { name: "init", load: async () => (await import("./init.js")).registerInit },
];

/** The commands that a command line can need: the one it names, or all where it names none. */
export async function commandsFor(argv: readonly string[]): Promise<readonly Register[]> {
  const named = COMMANDS.find((c) => c.name === argv.find((a) => !a.startsWith("-")));
  return Promise.all((named === undefined ? COMMANDS : [named]).map((c) => c.load()));
}
