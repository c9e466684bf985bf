/** `completion`: scripts for shells, and the words that they ask for. */
import { Argument, type Command } from "commander";
import { completionScript, SHELLS } from "../../render/completion.js";
import type { Context, Outcome, Register } from "../command.js";
import { wordsFor, type Known } from "../completing.js";
import { describeCommand } from "../help.js";

export const registerCompletion: Register = (program, run, tail) => {
  const command = program
    .command("completion")
    .addArgument(new Argument("<shell>", "your shell").choices([...SHELLS, "words"]))
    .action((shell: (typeof SHELLS)[number] | "words") =>
      run("completion", async (cx) => {
        if (shell === "words") return words(cx, program, tail ?? []);
        const script = completionScript(shell);
        return { result: { shell, script }, text: script };
      }),
    );
  describeCommand(command, {
    group: "Set up",
    summary: "a script that completes commands, flags, plans, runs, jobs and targets",
    examples: [
      { line: "source <(holdpoint completion bash)", what: "in ~/.bashrc; zsh likewise" },
      { line: "holdpoint completion fish | source", what: "in ~/.config/fish/config.fish" },
      { line: "holdpoint completion powershell | Out-String | Invoke-Expression", what: "in $PROFILE" },
    ],
    exits: [],
  });
};

async function words(cx: Context, program: Command, typed: readonly string[]): Promise<Outcome> {
  const found = await wordsFor(program, typed, () => known(cx));
  return { result: { words: found }, text: found.map((w) => `${w}\n`).join("") };
}

/** Names of this project; none where there is no project, because a shell must never see an error here. */
async function known(cx: Context): Promise<Known> {
  try {
    const tools = await cx.tools();
    const { statusOf } = await import("../../operations/status.js");
    const { plans, runs } = await statusOf(tools, null);
    return {
      targets: Object.keys(tools.project.config.targets),
      jobs: Object.keys(tools.project.config.jobs),
      plans: plans.map((p) => p.plan),
      runs: runs.map((r) => r.id),
    };
  } catch {
    return { targets: [], jobs: [], plans: [], runs: [] };
  }
}
