// Rescue of 6.8 % of N rows while somebody goes on writing: seconds of plan and apply, peak memory, writes lost.
//
//   npm run build && node bench/rescue.js [rows]
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import Database from "better-sqlite3";

const SELF = fileURLToPath(import.meta.url);
const DIST = process.env["HOLDPOINT_DIST"] ?? resolve(SELF, "../../dist");
const DAMAGE = "2012-12-24T20:24:00Z";

if (process.argv[2] === "--child") await child(process.argv.slice(3));
else if (process.argv[2] === "--writer") await writer(process.argv[3], Number(process.argv[4]));
else await parent(Number(process.argv[2] ?? 1_000_000));

async function parent(rows) {
  const dir = mkdtempSync(join(tmpdir(), "holdpoint-bench-"));
  try {
    const file = prepare(dir, rows);
    const taken = run(dir, ["snapshot", "take", "--on", "bench", "--table", "item"]);
    const db = new Database(file);
    db.prepare("UPDATE item SET deleted_at = ? WHERE id % 1000 < 68").run(DAMAGE);
    db.close();
    const writing = spawn(process.execPath, [SELF, "--writer", file, String(rows)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    let journal = "";
    writing.stdout.on("data", (text) => (journal += text));
    const planned = run(dir, [
      "rescue",
      "--on",
      "bench",
      "--damage",
      `deleted_at = '${DAMAGE}'`,
      "--key",
      "keys/dana",
    ]);
    const { plan, counts } = planned.document.result;
    const applied = run(dir, ["apply", plan, "--confirm", "bench"]);
    writing.stdin.end();
    await once(writing, "close");
    const { lost, writes, damaged } = judge(file, journal);
    console.log(`${rows} rows, ${counts.put_back + counts.merged} to restore, ${writes} writes meanwhile\n`);
    console.log("| step | seconds | peak memory |");
    console.log("| --- | ---: | ---: |");
    for (const [name, step] of Object.entries({ "snapshot take": taken, rescue: planned, apply: applied }))
      console.log(`| ${name} | ${step.seconds.toFixed(2)} | ${(step.peakKb / 1024).toFixed(0)} MB |`);
    console.log(`\nlost ${lost}, still damaged ${String(damaged)}`);
    if (lost > 0 || damaged > 0) process.exitCode = 1;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function prepare(dir, rows) {
  const file = join(dir, "bench.db");
  const db = new Database(file);
  db.pragma("journal_mode = wal");
  db.exec(
    "CREATE TABLE item (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, weight INTEGER NOT NULL, deleted_at TEXT)",
  );
  const insert = db.prepare("INSERT INTO item VALUES (?, ?, 10, NULL)");
  db.transaction(() => {
    for (let i = 1; i <= rows; i++) insert.run(i, i % 1000);
  })();
  db.close();
  mkdirSync(join(dir, "keys"));
  for (const person of ["dana", "ravi"])
    spawnSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", person, "-f", join(dir, "keys", person)]);
  const people = ["--person", "dana=keys/dana.pub", "--person", "ravi=keys/ravi.pub"];
  run(dir, [
    "init",
    "--target",
    "bench",
    "--url",
    "sqlite:bench.db",
    "--environment",
    "development",
    ...people,
  ]);
  run(dir, ["env", "pin", "bench", "--confirm", "bench"]);
  return file;
}

function run(dir, args) {
  const started = performance.now();
  const done = spawnSync(process.execPath, [SELF, "--child", ...args, "--json"], {
    cwd: dir,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  const document = JSON.parse(done.stdout);
  if (!document.ok) throw new Error(`${args.join(" ")}: ${JSON.stringify(document.error)}`);
  return { document, seconds: (performance.now() - started) / 1000, peakKb: Number(done.output[3]) };
}

async function child(args) {
  const { writeSync } = await import("node:fs");
  const { start } = await import(join(DIST, "cli/start.js"));
  process.exitCode = await start(args, process);
  writeSync(3, String(process.resourceUsage().maxRSS));
}

/** Changes another column, of damaged rows and healthy ones, until its input ends; every write is on its output. */
async function writer(file, rows) {
  const db = new Database(file, { timeout: 30_000 });
  const update = db.prepare("UPDATE item SET weight = ? WHERE id = ?");
  const ended = new AbortController();
  process.stdin.resume().on("end", () => ended.abort());
  for (let n = 1; !ended.signal.aborted; n++) {
    const id = 1 + ((n * 7919) % rows);
    update.run(n + 100, id);
    process.stdout.write(`${id} ${n + 100}\n`);
    await new Promise((next) => setTimeout(next, 2));
  }
  db.close();
}

function judge(file, journal) {
  const latest = new Map(
    journal
      .trim()
      .split("\n")
      .map((line) => line.split(" ").map(Number)),
  );
  const db = new Database(file, { readonly: true });
  const weight = db.prepare("SELECT weight FROM item WHERE id = ?").pluck();
  const lost = [...latest].filter(([id, value]) => weight.get(id) !== value).length;
  const damaged = db.prepare("SELECT count(*) FROM item WHERE deleted_at IS NOT NULL").pluck().get();
  db.close();
  return { lost, writes: latest.size, damaged };
}
