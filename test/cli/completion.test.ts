/**
 * The generated completion in the real shells: each sources its script and is asked as its Tab key asks. A shell that this
 * machine lacks is told on stderr, and not tried; bash is always there. PowerShell's script is held to its structure alone.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { BIN, makeProject, type TestProject } from "../support/project.js";

/** Whether the machine has it. */
function has(shell: string): boolean {
  const there = spawnSync(shell, ["--version"]).status === 0;
  if (!there) process.stderr.write(`skipped: completion in ${shell}: it is not installed\n`);
  return there;
}
const inZsh = has("zsh") ? test : test.skip;
const inFish = has("fish") ? test : test.skip;

let project: TestProject;
let plan = "";
let run = "";
beforeAll(() => {
  project = makeProject({ environment: "development", target: "shop-dev" });
  plan = project.plan("UPDATE orders SET note = 'x' WHERE id <= 2");
  run = String(project.json(["apply", plan, "--confirm", "shop-dev"]).result["run"]);
  mkdirSync(project.path("bin"));
  project.write("bin/holdpoint", `#!/bin/sh\nexec "${process.execPath}" "${BIN}" "$@"\n`);
  chmodSync(project.path("bin/holdpoint"), 0o755);
  mkdirSync(project.path("home"), { recursive: true });
});
afterAll(() => project.close());

const env = (): Record<string, string> => ({
  PATH: `${project.path("bin")}:${process.env["PATH"] ?? ""}`,
  HOME: project.path("home"),
  LANG: "C.UTF-8",
});

/** What a shell prints, as lines. */
function lines(shell: string, args: readonly string[]): string[] {
  const done = spawnSync(shell, [...args], { cwd: project.dir, env: env(), encoding: "utf8", input: "" });
  expect({ status: done.status, stderr: done.stderr }).toEqual({ status: 0, stderr: "" });
  return done.stdout.split("\n").filter((l) => l !== "");
}

describe("bash", () => {
  /** What Tab would put there, with the words split as readline splits them. */
  const asked = (...words: readonly string[]): string[] =>
    lines("bash", [
      "--noprofile",
      "--norc",
      "-c",
      `source <(holdpoint completion bash)
complete -p holdpoint | grep -q -- '-F _holdpoint' || exit 9
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_holdpoint
printf '%s\\n' "\${COMPREPLY[@]}"`,
      "bash",
      "holdpoint",
      ...words,
    ]);

  test.each<readonly [string, readonly string[], () => readonly string[]]>([
    ["a command", ["appl"], () => ["apply"]],
    ["a command below a command", ["log", "ver"], () => ["verify"]],
    ["a flag", ["plan", "--detailed"], () => ["--detailed-exitcode"]],
    ["a value of a flag", ["show", "pl_x", "--format", "j"], () => ["json", "junit"]],
    ["a target", ["plan", "hello", "--on", ""], () => ["shop-dev"]],
    ["a target after an equals sign", ["plan", "--on", "=", "sh"], () => ["shop-dev"]],
    ["a target right after an equals sign", ["plan", "--on", "="], () => ["shop-dev"]],
    ["a job", ["plan", "he"], () => ["hello"]],
    ["a plan", ["approve", "pl_"], () => [plan]],
    ["a run", ["undo", ""], () => [run]],
    ["nothing, so that bash completes files", ["plan", "jobs/"], () => []],
  ])("%s", (_, words, wanted) => {
    expect(asked(...words)).toEqual(wanted());
  });
});

describe("fish", () => {
  inFish("commands, flags, targets, jobs, plans and runs", () => {
    const asked = (line: string): string[] =>
      lines("fish", ["--no-config", "-c", `holdpoint completion fish | source; complete -C '${line}'`]);
    expect(asked("holdpoint appl")).toEqual(["apply"]);
    expect(asked("holdpoint plan --detailed")).toEqual(["--detailed-exitcode"]);
    expect(asked("holdpoint plan hello --on sh")).toContain("shop-dev");
    expect(asked("holdpoint plan --on=sh")).toContain("--on=shop-dev");
    expect(asked("holdpoint plan he")).toContain("hello");
    expect(asked("holdpoint approve pl_")).toEqual([plan]);
    expect(asked("holdpoint undo rn_")).toEqual([run]);
  });
});

describe("zsh", () => {
  inZsh("commands, flags, targets, jobs, plans and runs", () => {
    // Only `compadd`, which takes matches nowhere but under the Tab key, is replaced by one that prints them.
    const asked = (...words: readonly string[]): string[] =>
      lines("zsh", [
        "-f",
        "-c",
        `source <(holdpoint completion zsh)
[[ "\${_comps[holdpoint]}" == _holdpoint ]] || exit 9
compadd() { shift; print -rl -- "$@" }
words=(holdpoint "$@") CURRENT=$(($# + 1))
_holdpoint`,
        "zsh",
        ...words,
      ]);
    expect(asked("appl")).toEqual(["apply"]);
    expect(asked("plan", "--detailed")).toEqual(["--detailed-exitcode"]);
    expect(asked("plan", "hello", "--on", "")).toEqual(["shop-dev"]);
    expect(asked("plan", "--on=sh")).toEqual(["--on=shop-dev"]);
    expect(asked("plan", "hel")).toEqual(["hello"]);
    expect(asked("approve", "pl_")).toEqual([plan]);
    expect(asked("undo", "rn_")).toEqual([run]);
  });
});

test("PowerShell: a native completer that asks for the words, and no more than that is tried here", () => {
  const { stdout } = project.run(["completion", "powershell"]);
  expect(stdout).toMatch(/^Register-ArgumentCompleter -Native -CommandName holdpoint -ScriptBlock \{$/m);
  expect(stdout).toMatch(/^ {2}param\(\$word, \$ast, \$position\)$/m);
  expect(stdout).toContain("holdpoint completion words -- @typed 2>$null");
  for (const [open, close] of [
    ["{", "}"],
    ["(", ")"],
    ["[", "]"],
  ] as const)
    expect(stdout.split(open).length).toBe(stdout.split(close).length);
});
