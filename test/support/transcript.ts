/**
 * Transcripts: `test/cli/*.txt`. Each file is one story in a fresh project: comments, commands, and whole what they print.
 *
 * ```text
 * # a comment
 * $ holdpoint apply pl_0000000000000001
 * a line of stdout
 * stderr> a line of stderr
 * ! exit 21
 * ```
 *
 * What differs from run to run is replaced by something of the same width (`stable.ts`).
 */
import { spawnSync } from "node:child_process";
import type { TestProject } from "./project.js";
import { Names } from "./stable.js";

/** One command and what it printed. */
export interface Step {
  /** Comments and blank lines in front of it. */
  readonly before: readonly string[];
  readonly command: string;
  readonly printed: readonly string[];
}

/** The steps of a transcript. */
export function parseTranscript(text: string): Step[] {
  const steps: { before: string[]; command: string; printed: string[] }[] = [];
  let before: string[] = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("$ ")) {
      steps.push({ before, command: line.slice(2), printed: [] });
      before = [];
    } else if (line === "" || line.startsWith("# ")) before.push(line);
    else if (line.startsWith("| ") || line === "|" || line.startsWith("stderr>") || line.startsWith("! "))
      steps.at(-1)?.printed.push(line);
    else throw new Error(`no line of a transcript: ${line}`);
  }
  return steps;
}

/** The text of steps; law: `parseTranscript(transcriptText(s))` equals `s`. */
export function transcriptText(steps: readonly Step[]): string {
  const lines = steps.flatMap((s) => [...s.before, `$ ${s.command}`, ...s.printed]);
  return `${lines.join("\n")}\n`;
}

/** Runs a story's commands one after another and gives it back with what they print now. */
export function play(steps: readonly Step[], project: TestProject, bin: string): Step[] {
  const names = new Names(project.dir);
  return steps.map((step) => {
    const done = spawnSync(
      "bash",
      ["-c", `holdpoint() { "${process.execPath}" "${bin}" "$@"; }\n${names.real(step.command)}`],
      {
        cwd: project.dir,
        encoding: "utf8",
        input: "",
        env: { PATH: process.env["PATH"] ?? "", HOME: project.path("home"), TZ: "UTC", LANG: "C.UTF-8" },
      },
    );
    const out = linesOf(done.stdout).map((l) => `| ${names.stable(l)}`.trimEnd());
    const err = linesOf(done.stderr).map((l) => `stderr> ${names.stable(l)}`.trimEnd());
    const exit = done.status === 0 ? [] : [`! exit ${done.status ?? -1}`];
    return { ...step, printed: [...out, ...err, ...exit] };
  });
}

function linesOf(text: string): string[] {
  return text === "" ? [] : text.replace(/\n$/, "").split("\n");
}
