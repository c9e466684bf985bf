// What the suite measures. Each case makes its own project and database in an empty folder, runs holdpoint's real binary and
// the peer once, and gives seconds of the clock for both and the peak memory of ours.
import { execFileSync, spawnSync } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import Database from "better-sqlite3";

const BIN = process.env.HOLDPOINT_TEST_BIN ?? resolve(import.meta.dirname, "../../bin/holdpoint.js");
const HOOK = `process.on("exit", () => {
  require("node:fs").appendFileSync(process.env.BENCH_MEMORY, process.resourceUsage().maxRSS + "\\n");
});`;
const UPDATE = "UPDATE items SET state = 'done', n = n + 1 WHERE id % 10 = 0";
const DELETE = "DELETE FROM items WHERE id % 10 = 0";

/** Cases in the order of the table, each with the lines that one measurement gives; `sizes` where rows play no part. */
export const CASES = [
  { names: ["--version"], peer: "node -e 0", sizes: [null], measure: (dir) => [started(dir, ["--version"])] },
  {
    names: ["status"],
    peer: "node -e 0",
    sizes: [null],
    measure: (dir) => [started(project(dir, 100), ["status"])],
  },
  { names: ["plan of one row"], peer: "node -e 0", measure: (dir, rows) => [planOfOne(dir, rows)] },
  {
    names: ["plan, a tenth updated", "apply, a tenth updated", "undo, a tenth updated"],
    peer: "the statement",
    measure: (dir, rows) => road(dir, rows, UPDATE),
  },
  {
    names: ["plan, a tenth deleted", "apply, a tenth deleted", "undo, a tenth deleted"],
    peer: "the statement",
    measure: (dir, rows) => road(dir, rows, DELETE),
  },
  {
    names: ["snapshot take", "snapshot take, 0.1 % changed since"],
    peer: "cp and fsync",
    measure: (dir, rows) => snapshotTake(dir, rows),
  },
  {
    names: ["snapshot diff with now, 1 % differs"],
    peer: "sqldiff",
    measure: (dir, rows) => [snapshotDiff(dir, rows)],
  },
  { names: ["rescue, 6.8 % deleted"], peer: "sqldiff", measure: (dir, rows) => [rescue(dir, rows)] },
];

function started(dir, args) {
  const { seconds, megabytes } = holdpoint(dir, args);
  return { own: seconds, megabytes, peer: timed(() => execFileSync(process.execPath, ["-e", "0"])) };
}

function planOfOne(dir, rows) {
  project(dir, rows);
  writeFileSync(join(dir, "jobs/one.sql"), "UPDATE items SET state = 'done' WHERE id = 7;\n");
  return started(dir, ["plan", "jobs/one.sql", "--on", "bench"]);
}

/** plan, apply and undo of one job, each beside the bare statement on a copy. */
function road(dir, rows, sql) {
  project(dir, rows);
  const bare = join(dir, "bare.db");
  copyFileSync(join(dir, "bench.db"), bare);
  const peer = timed(() => execute(bare, sql));
  writeFileSync(join(dir, "jobs/job.sql"), `${sql};\n`);
  const plan = holdpoint(dir, ["plan", "jobs/job.sql", "--on", "bench", "--expires", "23h", "--json"]);
  const apply = holdpoint(dir, ["apply", plan.result.plan, "--json"]);
  const undo = holdpoint(dir, ["undo", apply.result.run, "--json"]);
  if (undo.result.counts.put_back !== Math.floor(rows / 10))
    throw new Error(`put back ${undo.result.counts.put_back}`);
  const of = (step) => ({ own: step.seconds, megabytes: step.megabytes, peer });
  return [of(plan), of(apply), of(undo)];
}

/** The first snapshot of a database, and the second one after scattered changes. */
function snapshotTake(dir, rows) {
  project(dir, rows);
  const file = join(dir, "bench.db");
  const first = holdpoint(dir, ["snapshot", "take", "--on", "bench"]);
  const peer = copied(dir, file);
  execute(file, "UPDATE items SET n = n + 1 WHERE id % 1000 = 0");
  const second = holdpoint(dir, ["snapshot", "take", "--on", "bench"]);
  return [
    { own: first.seconds, megabytes: first.megabytes, peer },
    { own: second.seconds, megabytes: second.megabytes, peer: copied(dir, file) },
  ];
}

function copied(dir, file) {
  return timed(() => {
    copyFileSync(file, join(dir, "copy.db"));
    const fd = openSync(join(dir, "copy.db"), "r+");
    fsyncSync(fd);
    closeSync(fd);
  });
}

function snapshotDiff(dir, rows) {
  project(dir, rows);
  copyFileSync(join(dir, "bench.db"), join(dir, "before.db"));
  const taken = holdpoint(dir, ["snapshot", "take", "--on", "bench", "--json"]);
  execute(join(dir, "bench.db"), "UPDATE items SET n = n + 1 WHERE id % 100 = 0");
  const { seconds, megabytes, result } = holdpoint(dir, [
    "snapshot",
    "diff",
    taken.result.snapshot,
    "now",
    "--json",
  ]);
  if (result.rows !== Math.floor(rows / 100)) throw new Error(`${result.rows} rows differ`);
  return { own: seconds, megabytes, peer: sqldiff(dir) };
}

/** From the command to the signed plan; the peer only says what differs. */
function rescue(dir, rows) {
  project(dir, rows);
  copyFileSync(join(dir, "bench.db"), join(dir, "before.db"));
  holdpoint(dir, ["snapshot", "take", "--on", "bench"]);
  execute(join(dir, "bench.db"), "DELETE FROM items WHERE id % 1000 < 68");
  const args = ["rescue", "--on", "bench", "--damage", "deleted", "--json"];
  const { seconds, megabytes, result } = holdpoint(dir, args);
  if (result.plan === null) throw new Error("nothing to rescue");
  return { own: seconds, megabytes, peer: sqldiff(dir) };
}

/** Seconds of sqldiff between the database before and now; null where it is not installed. */
function sqldiff(dir) {
  if (spawnSync("sqldiff", ["--help"]).error !== undefined) return null;
  const args = ["--primarykey", join(dir, "before.db"), join(dir, "bench.db")];
  return timed(() => execFileSync("sqldiff", args, { stdio: "ignore" }));
}

/** A project with one target in an environment whose changes need nobody else. */
function project(dir, rows) {
  fill(join(dir, "bench.db"), rows);
  const target = ["--target", "bench", "--url", "sqlite:bench.db", "--environment", "development"];
  holdpoint(dir, ["init", ...target]);
  mkdirSync(join(dir, "jobs"), { recursive: true });
  holdpoint(dir, ["env", "pin", "bench", "--confirm", "bench"]);
  return dir;
}

function fill(path, rows) {
  const db = new Database(path);
  db.exec("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF");
  db.exec("CREATE TABLE items (id INTEGER PRIMARY KEY, state TEXT NOT NULL, n INTEGER NOT NULL, note TEXT)");
  db.prepare(
    `INSERT INTO items SELECT v, 'idle', v * 7 % 1000, 'note of item ' || v FROM
     (WITH RECURSIVE c(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM c WHERE v < ?) SELECT v FROM c)`,
  ).run(rows);
  db.exec("PRAGMA journal_mode = DELETE");
  db.pragma("journal_mode = WAL");
  db.close();
}

function execute(path, sql) {
  const db = new Database(path);
  db.pragma("synchronous = FULL");
  db.exec(sql);
  db.pragma("wal_checkpoint(TRUNCATE)");
  db.close();
}

/** Runs a command that must end well. */
function holdpoint(dir, args) {
  const [hook, told] = [join(dir, "memory.cjs"), join(dir, "memory.txt")];
  writeFileSync(hook, HOOK);
  rmSync(told, { force: true });
  const begun = performance.now();
  const done = spawnSync(process.execPath, ["--require", hook, BIN, ...args], {
    cwd: dir,
    encoding: "utf8",
    maxBuffer: 2 ** 30,
    env: { PATH: process.env.PATH, HOME: dir, TZ: "UTC", LANG: "C.UTF-8", BENCH_MEMORY: told },
  });
  const seconds = (performance.now() - begun) / 1000;
  if (done.status !== 0)
    throw new Error(`${args.join(" ")} ended with ${done.status}\n${done.stdout}${done.stderr}`);
  const megabytes = Math.max(...readFileSync(told, "utf8").trim().split("\n").map(Number)) / 1024;
  return { seconds, megabytes, result: args.includes("--json") ? JSON.parse(done.stdout).result : null };
}

function timed(work) {
  const begun = performance.now();
  work();
  return (performance.now() - begun) / 1000;
}
