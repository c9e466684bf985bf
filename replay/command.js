// Runs the real binary and nothing else: what it printed, how it ended, how long it took, how much memory it wanted.
import { spawn, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const BIN = process.env.HOLDPOINT_TEST_BIN ?? resolve(import.meta.dirname, "../bin/holdpoint.js");
// Where the time goes: a profile of each command in the folder that the variable names.
const PROFILE =
  process.env.REPLAY_PROFILE === undefined
    ? []
    : ["--cpu-prof", `--cpu-prof-dir=${process.env.REPLAY_PROFILE}`];

const HOOK = `process.on("exit", () => {
  require("node:fs").appendFileSync(process.env.REPLAY_MEMORY, process.resourceUsage().maxRSS + "\\n");
});`;

/** Commands in the story's folder. `say` shows what a person would see. */
export function commandsIn(dir, say) {
  const [hook, told, times] = ["memory.cjs", "memory.txt", "times.txt"].map((name) => join(dir, name));
  writeFileSync(hook, HOOK);
  const spent = [];
  const environment = (more) => ({
    PATH: process.env.PATH,
    HOME: dir,
    TZ: "UTC",
    LANG: "C.UTF-8",
    REPLAY_MEMORY: told,
    REPLAY_TIMES: times,
    HOLDPOINT_COLOR: process.stdout.isTTY ? "always" : "never",
    ...more,
  });

  /** Runs a command that must end with the given exit code. */
  async function holdpoint(expected, args, { env = {}, quiet = false } = {}) {
    writeFileSync(told, "");
    const started = performance.now();
    // One stream, so that narration and results stand in the order in which a person would see them. The shell knows what
    // the command and all its children took of the processor, which says more than the clock on a busy machine.
    const argv = [
      "-c",
      '"$@" 2>&1; code=$?; times > "$REPLAY_TIMES"; exit $code',
      "sh",
      process.execPath,
      ...PROFILE,
      "--require",
      hook,
      BIN,
      ...args,
    ];
    const { status, text } = await ended(spawn("sh", argv, { cwd: dir, env: environment(env) }));
    const seconds = (performance.now() - started) / 1000;
    const megabytes = Math.max(0, ...readFileSync(told, "utf8").trim().split("\n").map(Number)) / 1024;
    const cpuSeconds = processorSeconds(readFileSync(times, "utf8"));
    const step = { args, status, text, seconds, cpuSeconds, megabytes };
    spent.push(step);
    const shown = Object.entries(env).map(([name, value]) => `${name}=${quote(value)} `);
    say(
      `\n$ ${shown.join("")}holdpoint ${args.map(quote).join(" ")}\n${quiet ? lastLine(text) : text.trimEnd()}\n`,
    );
    say(
      `  (exit ${status}, ${seconds.toFixed(1)} s, ${cpuSeconds.toFixed(1)} s of processor, ${megabytes.toFixed(0)} MB)\n`,
    );
    const codes = [expected].flat();
    if (!codes.includes(status))
      throw new Error(
        `holdpoint ${args.join(" ")} ended with ${status}, expected ${codes.join(" or ")}\n${text}`,
      );
    return step;
  }

  function tool(command, args) {
    const done = spawnSync(command, args, { cwd: dir, encoding: "utf8" });
    if (done.error !== undefined)
      throw new Error(`${command} is needed and could not be run: ${done.error.message}`);
    if (done.status !== 0) throw new Error(`${command} ended with ${done.status}: ${done.stderr}`);
  }

  /** The second person's part, as on another machine: holdpoint writes the bytes, ssh-keygen signs, holdpoint takes it in. */
  async function approve(plan, person) {
    const file = `approval-${person}-${plan}.txt`;
    const prepared = await holdpoint(0, ["approve", plan, "--prepare", file, "--as", person], {
      quiet: true,
    });
    say(`\n$ ssh-keygen -Y sign -n holdpoint-approval -f keys/${person} ${file}\n`);
    tool("ssh-keygen", ["-Y", "sign", "-n", "holdpoint-approval", "-f", join("keys", person), file]);
    const taken = await holdpoint(0, ["approve", plan, "--prepared", file, "--signature", `${file}.sig`], {
      quiet: true,
    });
    return {
      seconds: prepared.seconds + taken.seconds,
      cpuSeconds: prepared.cpuSeconds + taken.cpuSeconds,
    };
  }

  return { holdpoint, tool, approve, spent };
}

/** What `times` says of a shell's children, in its second line: `0m1.20s 0m0.31s`. */
function processorSeconds(text) {
  const parts = [...(text.split("\n")[1] ?? "").matchAll(/(\d+)m([\d.]+)s/g)];
  return parts.reduce((n, [, minutes, seconds]) => n + 60 * Number(minutes) + Number(seconds), 0);
}

function ended(child) {
  return new Promise((resolve, reject) => {
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk) => (text += chunk.toString("utf8")));
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, text }));
  });
}

/** The id that a screen names. */
export function idIn(text, prefix) {
  const found = text.match(new RegExp(`${prefix}_[0-9a-z]{16}`));
  if (found === null) throw new Error(`no ${prefix}_… in:\n${text}`);
  return found[0];
}

function lastLine(text) {
  const line = text.trimEnd().split("\n").at(-1) ?? "";
  return line.length > 110 ? `${line.slice(0, 100)}…` : line;
}

function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
