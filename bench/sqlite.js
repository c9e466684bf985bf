// What a plan, its apply and its undo cost on SQLite, beside the bare statement: medians and ratios on this machine.
// Usage: npm run build && node bench/sqlite.js [--short] [--runs N] [--only updates|deletes|compare|huge]
// The comparison of two databases stands beside `sqldiff` where it is installed (Debian: apt-get install sqlite3-tools).
// Without --short also a change of ten million rows, with its peak memory (some 10 GB of disk, a quarter of an hour).
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import Database from "better-sqlite3";

const bin = process.env.HOLDPOINT_TEST_BIN ?? resolve(import.meta.dirname, "../bin/holdpoint.js");
const short = process.argv.includes("--short");
const only = process.argv.includes("--only") ? process.argv[process.argv.indexOf("--only") + 1] : null;
const runs = Number(process.argv[process.argv.indexOf("--runs") + 1]) || (short ? 1 : 3);
const [ROWS, CHANGED, HUGE] = [1_000_000, 100_000, 10_000_000];
const root = mkdtempSync(join(tmpdir(), "holdpoint-bench-"));

// Processor time too: on a machine that does other things besides, it says more than the clock does.
const HOOK = `process.on("exit", () => {
  const used = process.resourceUsage();
  const told = [used.maxRSS / 1024, (used.userCPUTime + used.systemCPUTime) / 1e6].join(" ");
  require("node:fs").appendFileSync(process.env.BENCH_MEMORY, told + "\\n");
});`;

try {
  console.log(`# node ${process.version}, ${new Date().toISOString().slice(0, 10)}, median of ${runs}`);
  const original = join(root, "original.db");
  fill(original, ROWS);
  for (const job of [
    {
      name: "100 k updates",
      sql: `UPDATE items SET state = 'done', n = n + 1 WHERE id % ${ROWS / CHANGED} = 0`,
    },
    { name: "100 k deletes", sql: `DELETE FROM items WHERE id % ${ROWS / CHANGED} = 0` },
  ]) {
    if (only === null || job.name.endsWith(only)) road(original, job);
  }
  if (only === null || only === "compare") comparison(original);
  if (only === "huge" || (only === null && !short)) huge(Number(process.env.BENCH_HUGE ?? HUGE));
} finally {
  rmSync(root, { recursive: true, force: true });
}

/** plan → approve → apply → undo of one job, beside the statement alone. */
function road(original, { name, sql }) {
  const times = { bare: [], plan: [], apply: [], undo: [] };
  let peak = 0;
  for (let i = 0; i < runs; i++) {
    const dir = project(original);
    const bare = join(dir, "bare.db");
    copyFileSync(original, bare);
    times.bare.push(timed(() => execute(bare, sql)));
    writeFileSync(join(dir, "jobs/job.sql"), `${sql};\n`);
    const plan = step(dir, times.plan, ["plan", "jobs/job.sql", "--on", "bench", "--expires", "23h"]);
    const run = step(dir, times.apply, ["apply", plan.plan]);
    const undo = step(dir, times.undo, ["undo", run.run]);
    if (undo.counts.put_back !== CHANGED) throw new Error(`put back ${undo.counts.put_back}`);
    peak = Math.max(peak, ...[...times.plan, ...times.apply, ...times.undo].map((t) => t.megabytes));
    rmSync(dir, { recursive: true, force: true });
  }
  const bare = median(times.bare);
  console.log(`\n${name} of 1 M rows`);
  line("the statement alone", bare, bare);
  for (const [words, all] of [
    ["plan", times.plan],
    ["apply with checks", times.apply],
    ["undo (merge, plan, apply)", times.undo],
  ])
    line(words, median(all.map((t) => t.seconds)), bare, median(all.map((t) => t.cpu)), spread(all));
  console.log(`  peak memory ${peak} MB`);
}

/** A command's rehearsal compares two databases; `sqldiff` does nothing else. */
function comparison(original) {
  const changed = join(root, "changed.db");
  console.log("\nwhat a command did to 1 M rows (copy, run, compare, sign) beside sqldiff");
  for (const [name, share] of [
    ["100 k rows differ", ROWS / CHANGED],
    ["10 rows differ", CHANGED],
  ]) {
    const sql = `UPDATE items SET state = 'seen' WHERE id % ${share} = 0`;
    copyFileSync(original, changed);
    execute(changed, sql);
    const known =
      spawnSync("sqldiff", ["--version"]).error === undefined ||
      spawnSync("sqldiff", ["-h"]).error === undefined;
    const bare = known
      ? median(
          repeat(() =>
            timed(() =>
              execFileSync("sqldiff", [original, changed], { stdio: ["ignore", "ignore", "inherit"] }),
            ),
          ),
        )
      : null;
    const times = [];
    const dir = project(original);
    for (let i = 0; i < runs; i++) {
      step(dir, times, ["plan", "--on", "bench", "--", "sqlite3", "{database}", sql]);
    }
    rmSync(dir, { recursive: true, force: true });
    if (bare === null) console.log("  sqldiff is not installed (apt-get install sqlite3-tools): SKIPPED");
    else line(`sqldiff, ${name}`, bare, bare);
    const own = median(times.map((t) => t.seconds));
    line(`holdpoint, ${name}`, own, bare ?? own);
  }
}

/** Ten million rows: what matters is that memory stays flat. */
function huge(rows) {
  const original = join(root, "huge.db");
  fill(original, rows);
  const dir = project(original);
  rmSync(original);
  writeFileSync(join(dir, "jobs/job.sql"), "UPDATE items SET n = n + 1;\n");
  const [plan, apply, undo] = [[], [], []];
  const made = step(dir, plan, ["plan", "jobs/job.sql", "--on", "bench", "--expires", "23h"]);
  const run = step(dir, apply, ["apply", made.plan]);
  const back = step(dir, undo, ["undo", run.run]);
  if (back.counts.put_back !== rows) throw new Error(`put back ${back.counts.put_back}`);
  console.log(`\n${rows} updates of ${rows} rows`);
  for (const [name, [t]] of [
    ["plan", plan],
    ["apply", apply],
    ["undo", undo],
  ])
    console.log(
      `  ${name.padEnd(34)}${t.seconds.toFixed(1).padStart(9)} s   ${t.cpu.toFixed(1)} s of processor   peak ${t.megabytes} MB`,
    );
}

/** A project with one target in an environment whose changes need nobody else. */
function project(original) {
  const dir = mkdtempSync(join(root, "project-"));
  copyFileSync(original, join(dir, "bench.db"));
  const quiet = { cwd: dir, stdio: "ignore", env: { ...process.env, HOME: join(dir, "home") } };
  const init = ["init", "--target", "bench", "--url", "sqlite:bench.db", "--environment", "development"];
  execFileSync(process.execPath, [bin, ...init], quiet);
  mkdirSync(join(dir, "jobs"), { recursive: true });
  execFileSync(process.execPath, [bin, "env", "pin", "bench", "--confirm", "bench"], quiet);
  return dir;
}

/** Runs a command with its own peak memory told on exit; adds its time. */
function step(dir, times, args) {
  const told = join(dir, "memory.txt");
  writeFileSync(told, "");
  const hook = join(root, "memory.cjs");
  writeFileSync(hook, HOOK);
  const at = args.indexOf("--");
  const all = at === -1 ? [...args, "--json"] : [...args.slice(0, at), "--json", ...args.slice(at)];
  const profile =
    process.env.BENCH_PROFILE === undefined
      ? []
      : ["--cpu-prof", `--cpu-prof-dir=${process.env.BENCH_PROFILE}`];
  const start = performance.now();
  const done = spawnSync(process.execPath, [...profile, "--require", hook, bin, ...all], {
    cwd: dir,
    encoding: "utf8",
    maxBuffer: 2 ** 30,
    env: { ...process.env, HOME: join(dir, "home"), BENCH_MEMORY: told },
  });
  const seconds = (performance.now() - start) / 1000;
  if (done.status !== 0) throw new Error(`${args.join(" ")}: ${done.stdout.slice(0, 3000)}${done.stderr}`);
  // The largest process of the command and the processor time of all of them.
  const processes = readFileSync(told, "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split(" ").map(Number));
  const megabytes = Math.round(Math.max(...processes.map(([m]) => m)));
  const cpu = processes.reduce((sum, [, c]) => sum + c, 0);
  times.push({ seconds, megabytes, cpu });
  return JSON.parse(done.stdout).result;
}

function fill(path, rows) {
  const db = new Database(path);
  db.exec("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF");
  db.exec("CREATE TABLE items (id INTEGER PRIMARY KEY, state TEXT NOT NULL, n INTEGER NOT NULL, note TEXT)");
  db.prepare(`INSERT INTO items SELECT value, 'idle', value * 7 % 1000, 'note of item ' || value FROM
    (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c WHERE value < ?) SELECT value FROM c)`).run(
    rows,
  );
  db.exec("PRAGMA journal_mode = DELETE");
  db.pragma("journal_mode = WAL");
  db.close();
}

function execute(path, sql) {
  const db = new Database(path);
  db.pragma("synchronous = FULL");
  db.exec(sql);
  db.close();
}

function timed(work) {
  const start = performance.now();
  work();
  return (performance.now() - start) / 1000;
}

function repeat(work) {
  return Array.from({ length: runs }, work);
}

function median(numbers) {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
}

/** Fastest and slowest run: on a machine that does other things the clock alone says little. */
function spread(all) {
  const seconds = all.map((t) => t.seconds);
  return all.length < 2
    ? ""
    : `   ${Math.min(...seconds).toFixed(2)} to ${Math.max(...seconds).toFixed(2)} s`;
}

function line(name, seconds, beside, cpu, range = "") {
  const ratio = (seconds / beside).toFixed(1).padStart(7);
  const used = cpu === undefined ? "" : `   ${cpu.toFixed(2).padStart(6)} s of processor`;
  console.log(`  ${name.padEnd(34)}${seconds.toFixed(2).padStart(9)} s ${ratio}x${used}${range}`);
}
