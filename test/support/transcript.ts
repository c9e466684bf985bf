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
 * What differs from run to run is replaced by something of the same width: ids by their number in the story, times, digests, keys, folders.
 */
import { spawnSync } from "node:child_process";
import type { TestProject } from "./project.js";

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

/** Ids by their number in the story, and back. */
class Names {
  readonly #dir: string;
  readonly #known = new Map<string, string>();

  constructor(dir: string) {
    this.#dir = dir;
  }

  stable(line: string): string {
    return line
      .replaceAll(this.#dir, "/tmp/project".padEnd(this.#dir.length, "_").slice(0, this.#dir.length))
      .replaceAll(/\b(pl|rn|sn|lg)_[0-9a-z]{16}\b/g, (id) => this.#nameOf(id))
      .replaceAll(/\b(pl|rn|sn|lg)_[0-9a-z]{8,15}\b/g, (id) => this.#shortNameOf(id))
      .replaceAll(
        /\b\d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)( \d{4})? \d\d:\d\d(:\d\d)?\b/g,
        (t) => t.replaceAll(/\d/g, "0").replace(/[A-Z][a-z]{2}/, "Mon"),
      )
      .replaceAll(/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, "0000-00-00T00:00:00Z")
      .replaceAll(/\bsha256:[0-9a-f]{64}\b/g, `sha256:${"0".repeat(64)}`)
      .replaceAll(/\bsqlite:[0-9a-f]{32}\b/g, `sqlite:${"0".repeat(32)}`)
      .replaceAll(/\b[0-9a-f]{4}…[0-9a-f]{4}\b/g, "0000…0000")
      .replaceAll(/SHA256:[A-Za-z0-9+/]{43}/g, `SHA256:${"0".repeat(43)}`)
      .replaceAll(/\bSQLite \d+\.\d+\.\d+/g, (t) => t.replaceAll(/\d/g, "0"))
      .replaceAll(/\bhpa1\.[A-Za-z0-9_.-]+/g, "hpa1.TOKEN")
      .replaceAll(/\b\d+(\.\d+)? (s|ms)\b/g, "0.0 s")
      .replaceAll(/\b(born|inode)( +)(\d+ +)/g, (_, name: string, gap: string, number: string) => {
        return `${name}${gap}${"0".padEnd(number.length)}`;
      });
  }

  real(command: string): string {
    let text = command;
    for (const [id, name] of this.#known) text = text.replaceAll(name, id);
    return text;
  }

  /** The beginning of an id that was seen whole, by the end of its name: the beginning is zeros in all of them. */
  #shortNameOf(short: string): string {
    const whole = [...this.#known].find(([id]) => id.startsWith(short));
    return whole === undefined ? short : `${short.slice(0, 3)}${whole[1].slice(3 - short.length)}`;
  }

  #nameOf(id: string): string {
    const prefix = id.slice(0, 3);
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    const number = [...this.#known.keys()].filter((k) => k.startsWith(prefix)).length + 1;
    const name = `${prefix}${String(number).padStart(16, "0")}`;
    this.#known.set(id, name);
    return name;
  }
}
