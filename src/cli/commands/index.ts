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
  { name: "revoke", load: async () => (await import("./revoke.js")).registerRevoke },
  { name: "apply", load: async () => (await import("./apply.js")).registerApply },
  { name: "undo", load: async () => (await import("./undo.js")).registerUndo },
  { name: "hold", load: async () => (await import("./hold.js")).registerHold },
  { name: "release", load: async () => (await import("./hold.js")).registerRelease },
  { name: "rescue", load: async () => (await import("./rescue.js")).registerRescue },
  { name: "snapshot", load: async () => (await import("./snapshot.js")).registerSnapshot },
  { name: "run", load: async () => (await import("./run.js")).registerRun },
  { name: "show", load: async () => (await import("./show.js")).registerShow },
  { name: "status", load: async () => (await import("./status.js")).registerStatus },
  { name: "log", load: async () => (await import("./log.js")).registerLog },
  { name: "explain", load: async () => (await import("./explain.js")).registerExplain },
  { name: "policy", load: async () => (await import("./policy.js")).registerPolicy },
  { name: "env", load: async () => (await import("./env.js")).registerEnv },
  { name: "key", load: async () => (await import("./key.js")).registerKey },
  { name: "trust", load: async () => (await import("./trust.js")).registerTrust },
  { name: "doctor", load: async () => (await import("./doctor.js")).registerDoctor },
  { name: "schema", load: async () => (await import("./schema.js")).registerSchema },
  { name: "completion", load: async () => (await import("./completion.js")).registerCompletion },
  { name: "init", load: async () => (await import("./init.js")).registerInit },
];

/** The commands that a command line can need: the one it names, or all where it names none or asks what could come next. */
export async function commandsFor(argv: readonly string[]): Promise<readonly Register[]> {
  const named = COMMANDS.find((c) => c.name === argv.find((a) => !a.startsWith("-")));
  const needed = named === undefined || named.name === "completion" ? COMMANDS : [named];
  return Promise.all(needed.map((c) => c.load()));
}
