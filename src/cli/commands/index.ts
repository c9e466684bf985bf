/**
 * Every command, in the order in which help lists them. A command's module is loaded when it is called, so that
 * none pays for another one's libraries; the list that help shows loads none of them.
 */
import type { Register } from "../command.js";
import type { HelpGroup } from "../help.js";

/** One command and how to get it. */
export interface CommandEntry {
  readonly name: string;
  /** Its argument as usage shows it; empty for none. A test holds these words against the command itself. */
  readonly args: string;
  readonly group: HelpGroup;
  readonly summary: string;
  readonly load: () => Promise<Register>;
}

/** All commands. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: "plan",
    args: "[job]",
    group: "Lifecycle",
    summary: "show row by row what a job would do; nothing is kept",
    load: async () => (await import("./plan.js")).registerPlan,
  },
  {
    name: "approve",
    args: "[plan]",
    group: "Lifecycle",
    summary: "look at a plan and sign exactly its effect",
    load: async () => (await import("./approve.js")).registerApprove,
  },
  {
    name: "reject",
    args: "<plan>",
    group: "Lifecycle",
    summary: "refuse a plan for good",
    load: async () => (await import("./reject.js")).registerReject,
  },
  {
    name: "revoke",
    args: "<plan>",
    group: "Lifecycle",
    summary: "take back your own approval before it is used",
    load: async () => (await import("./revoke.js")).registerRevoke,
  },
  {
    name: "apply",
    args: "[plan]",
    group: "Lifecycle",
    summary: "write exactly what was signed, once",
    load: async () => (await import("./apply.js")).registerApply,
  },
  {
    name: "undo",
    args: "<run...>",
    group: "Lifecycle",
    summary: "take a run back by merging, keeping what others wrote since",
    load: async () => (await import("./undo.js")).registerUndo,
  },
  {
    name: "hold",
    args: "<target>",
    group: "Lifecycle",
    summary: "stop all plans on a target",
    load: async () => (await import("./hold.js")).registerHold,
  },
  {
    name: "release",
    args: "<target>",
    group: "Lifecycle",
    summary: "end a hold",
    load: async () => (await import("./hold.js")).registerRelease,
  },
  {
    name: "rescue",
    args: "",
    group: "Lifecycle",
    summary: "bring back what damage took, from a snapshot, keeping what others wrote since",
    load: async () => (await import("./rescue.js")).registerRescue,
  },
  {
    name: "snapshot",
    args: "",
    group: "Lifecycle",
    summary: "keep tables or a whole database, verify, compare, restore elsewhere, drill",
    load: async () => (await import("./snapshot.js")).registerSnapshot,
  },
  {
    name: "run",
    args: "[job]",
    group: "Lifecycle",
    summary: "plan, and apply at once where policy asks nobody",
    load: async () => (await import("./run.js")).registerRun,
  },
  {
    name: "show",
    args: "<plan>",
    group: "Understand",
    summary: "read a plan: its card, patterns, sample, rows",
    load: async () => (await import("./show.js")).registerShow,
  },
  {
    name: "status",
    args: "[ref]",
    group: "Understand",
    summary: "plans and runs as they stand",
    load: async () => (await import("./status.js")).registerStatus,
  },
  {
    name: "log",
    args: "",
    group: "Understand",
    summary: "what happened, newest first; show a run; verify the chain",
    load: async () => (await import("./log.js")).registerLog,
  },
  {
    name: "explain",
    args: "<code>",
    group: "Understand",
    summary: "what an error means and what to do about it",
    load: async () => (await import("./explain.js")).registerExplain,
  },
  {
    name: "policy",
    args: "",
    group: "Understand",
    summary: "why a plan was decided as it was; test and lint the rules",
    load: async () => (await import("./policy.js")).registerPolicy,
  },
  {
    name: "env",
    args: "",
    group: "Set up",
    summary: "check what a target is, pin it, list targets",
    load: async () => (await import("./env.js")).registerEnv,
  },
  {
    name: "key",
    args: "",
    group: "Set up",
    summary: "which keys are known, which lie here, and whether one signs",
    load: async () => (await import("./key.js")).registerKey,
  },
  {
    name: "trust",
    args: "",
    group: "Set up",
    summary: "people, groups, policies, and what targets pin of them",
    load: async () => (await import("./trust.js")).registerTrust,
  },
  {
    name: "doctor",
    args: "",
    group: "Set up",
    summary: "check the set-up: keys, people, policies, targets, ways around",
    load: async () => (await import("./doctor.js")).registerDoctor,
  },
  {
    name: "schema",
    args: "<name>",
    group: "Understand",
    summary: "JSON Schemas: of policies and configuration, of --json documents",
    load: async () => (await import("./schema.js")).registerSchema,
  },
  {
    name: "completion",
    args: "<shell>",
    group: "Set up",
    summary: "a script that completes commands, flags, plans, runs, jobs and targets",
    load: async () => (await import("./completion.js")).registerCompletion,
  },
  {
    name: "init",
    args: "",
    group: "Set up",
    summary: "files for a first project; connects to nothing, overwrites nothing",
    load: async () => (await import("./init.js")).registerInit,
  },
];

/**
 * The commands that a command line can need: the one it names; all where it asks what could come next or names something
 * else; none but their names where it has no word at all, as for `--help`.
 */
export async function commandsFor(argv: readonly string[]): Promise<readonly Register[]> {
  const word = argv.find((a) => !a.startsWith("-"));
  if (word === undefined) return COMMANDS.map(listed);
  const named = COMMANDS.find((c) => c.name === word);
  const needed = named === undefined || named.name === "completion" ? COMMANDS : [named];
  return Promise.all(needed.map((c) => c.load()));
}

/** A command as the list of commands shows it, without its module. */
function listed(entry: CommandEntry): Register {
  return (program) => {
    program.command(`${entry.name} ${entry.args}`.trim()).helpGroup(`${entry.group}:`).summary(entry.summary);
  };
}
