/** `init`: the files of a first project, by flags or by questions. */
import { fileURLToPath } from "node:url";
import { Option } from "commander";
import { UsageError } from "../../base/errors.js";
import { initProject, type InitFile, refuseProject } from "../../operations/init.js";
import { type InitFile as InitLine, renderInit } from "../../render/init.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";

type EnvironmentWord = "production" | "staging" | "development";

interface InitFlags {
  readonly target?: string;
  readonly url?: string;
  readonly environment: EnvironmentWord;
  readonly person: readonly string[];
}

const SHIPPED_POLICIES = fileURLToPath(new URL("../../../policies/", import.meta.url));

export const registerInit: Register = (program, run) => {
  const command = program
    .command("init")
    .option("--target <name>", "the first target's name")
    .option("--url <url>", "where it is: sqlite:PATH, or ${VARIABLE} to take it from the environment")
    .addOption(
      new Option("--environment <env>", "what it is")
        .choices(["production", "staging", "development"])
        .default("production"),
    )
    .option("--person <name=key.pub>", "who may sign, with a public key file; repeatable", collect, [])
    .action((flags: InitFlags) => run("init", (cx) => init(cx, flags)));
  describeCommand(command, {
    group: "Set up",
    summary: "files for a first project; connects to nothing, overwrites nothing",
    examples: [
      {
        line: "holdpoint init --target elb-prod --url sqlite:elb.db --environment production --person dana=dana.pub --person ravi=ravi.pub",
        what: "by flags",
      },
      { line: "holdpoint init", what: "asks at a terminal" },
    ],
    exits: [22],
  });
};

async function init(cx: Context, flags: InitFlags): Promise<Outcome> {
  await refuseProject(cx.cwd);
  const name = flags.target ?? (await ask(cx, "Name of the first target: ", "--target", "NAME"));
  const url = flags.url ?? (await ask(cx, "Its url (sqlite:PATH or ${VARIABLE}): ", "--url", "URL"));
  const people = flags.person.length > 0 ? flags.person.map(personOf) : await askPeople(cx);
  const files = await initProject(
    cx.cwd,
    { target: { name, url, environment: flags.environment }, people },
    SHIPPED_POLICIES,
  );
  return {
    result: { files: files.map((f) => ({ path: f.path, act: f.act })) },
    text: cx.screen(renderInit, {
      files: files.map(lineOf),
      next: [
        { actor: "anyone", argv: ["holdpoint", "env", "check", name], text: "ask the target who it is" },
        { actor: "anyone", argv: ["holdpoint", "env", "pin", name], text: "let it say so from now on" },
        {
          actor: "anyone",
          argv: ["holdpoint", "plan", "hello", "--on", name],
          text: "your first plan, 0 rows",
        },
      ],
    }),
  };
}

async function ask(cx: Context, message: string, flag: string, value: string): Promise<string> {
  return cx.prompter.ask({ message, needs: `init needs ${flag}`, flag: [flag, value] });
}

/** Asked only at a terminal: people can be added to the file later, targets come first. */
async function askPeople(cx: Context): Promise<ReturnType<typeof personOf>[]> {
  const people: ReturnType<typeof personOf>[] = [];
  if (!cx.streams.isInteractive || cx.json) return people;
  for (;;) {
    const typed = await ask(
      cx,
      "Who may sign, as NAME=PUBLIC_KEY_FILE (an empty line ends): ",
      "--person",
      "NAME=FILE",
    );
    if (typed.trim() === "") return people;
    people.push(personOf(typed.trim()));
  }
}

function personOf(text: string): { readonly name: string; readonly keyFile: string } {
  const at = text.indexOf("=");
  const name = text.slice(0, at);
  const keyFile = text.slice(at + 1);
  if (at > 0 && keyFile !== "") return { name, keyFile };
  throw new UsageError({ code: "ERR_USAGE", message: `--person ${text} is not NAME=PUBLIC_KEY_FILE` });
}

function lineOf(f: InitFile): InitLine {
  return { ...f, what: whatOf(f.path) };
}

function whatOf(path: string): string {
  if (path === "holdpoint.yaml") return "targets and jobs";
  if (path.startsWith("policies/")) return "what may happen where";
  if (path === "people/allowed_signers") return "who may sign, by key";
  if (path === "people/groups.yaml") return "groups that policies ask for";
  if (path === "jobs/hello.sql") return "a job that changes nothing";
  return "the store stays out of the repository";
}
