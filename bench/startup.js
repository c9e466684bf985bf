// How long commands take to start, beside `node -e 0`: medians, ratios and differences on this machine.
// Usage: npm run build && node bench/startup.js [repetitions]
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import Database from "better-sqlite3";

const bin = resolve(import.meta.dirname, "../bin/holdpoint.js");
const repetitions = Number(process.argv[2] ?? 9);
const dir = mkdtempSync(join(tmpdir(), "holdpoint-startup-"));

try {
  prepare();
  const plan = ["plan", "jobs/one.sql", "--on", "demo"];
  const bare = median(() => time(["-e", "0"]));
  report("node -e 0", bare, bare);
  for (const args of [["--version"], ["--help"], ["status"], ["show", "--help"], plan]) {
    report(
      `holdpoint ${args.join(" ")}`,
      median(() => time([bin, ...args])),
      bare,
    );
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}

/** A project with one small target, outside any git work tree. */
function prepare() {
  const db = new Database(join(dir, "demo.db"));
  db.exec("CREATE TABLE items (id INTEGER PRIMARY KEY, state TEXT)");
  db.exec("INSERT INTO items VALUES (1, 'idle'), (2, 'busy'), (3, 'idle'), (4, 'busy')");
  db.close();
  const init = ["init", "--target", "demo", "--url", "sqlite:demo.db", "--environment", "development"];
  execFileSync(process.execPath, [bin, ...init], { cwd: dir, stdio: "ignore" });
  execFileSync(process.execPath, [bin, "env", "pin", "demo", "--confirm", "demo"], {
    cwd: dir,
    stdio: "ignore",
  });
  writeFileSync(join(dir, "jobs/one.sql"), "UPDATE items SET state = 'busy' WHERE id = 1;\n");
}

function time(args) {
  const started = performance.now();
  const { status, stderr } = spawnSync(process.execPath, args, { cwd: dir, encoding: "utf8" });
  if (status !== 0) throw new Error(`${args.join(" ")} ended with ${status}: ${stderr}`);
  return performance.now() - started;
}

function median(measure) {
  const times = Array.from({ length: repetitions }, measure).sort((a, b) => a - b);
  return times[Math.floor(times.length / 2)];
}

function report(what, ms, bare) {
  const beside = `${(ms / bare).toFixed(2)}x`.padStart(8) + `+${(ms - bare).toFixed(0)} ms`.padStart(10);
  process.stdout.write(`${what.padEnd(44)}${ms.toFixed(0).padStart(6)} ms${beside}\n`);
}
