// `log who` for one row over a ledger of N runs: seconds of the whole command, start of Node included, by the clock and of
// processor.
//
//   npm run build && node bench/who.js [runs] [folder]      a folder in memory (/dev/shm) makes the filling quick
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import Database from "better-sqlite3";

const root = resolve(fileURLToPath(import.meta.url), "../..");
const { openLedger } = await import(join(root, "dist/storage/ledger.js"));
const { openRowIndex } = await import(join(root, "dist/storage/row-index.js"));

/** The command itself is asked what processor time it took; what it starts besides (git) is not counted. */
const NOTE_PROCESSOR = `process.on("exit", () => {
  if (!process.argv[1].endsWith("holdpoint.js")) return;
  const { user, system } = process.cpuUsage();
  require("node:fs").writeFileSync(require("node:path").join(__dirname, "processor"), String((user + system) / 1e6));
});`;

const runs = Number(process.argv[2] ?? 100_000);
const dir = mkdtempSync(join(process.argv[3] ?? tmpdir(), "holdpoint-bench-"));
try {
  prepare();
  const began = performance.now();
  const entries = await fill();
  const filled = (performance.now() - began) / 1000;
  const seconds = [];
  const processor = [];
  const noting = join(dir, "noting.cjs");
  writeFileSync(noting, NOTE_PROCESSOR);
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    const { result } = holdpoint("log", "who", "--on", "bench", "--table", "item", "--key", "7");
    seconds.push((performance.now() - started) / 1000);
    processor.push(Number(readFileSync(join(dir, "processor"), "utf8")));
    if (result.runs.length !== 1) throw new Error(`expected the one real run, found ${result.runs.length}`);
  }
  const median = (all) => all.sort((a, b) => a - b)[2].toFixed(2);
  const size = (statSync(join(dir, ".holdpoint/ledger.db")).size / 1e6).toFixed(0);
  console.log(`filled in ${filled.toFixed(0)} s: ${entries} entries, ${size} MB`);
  console.log(
    `log who over ${runs} runs: ${median(seconds)} s, ${median(processor)} s of processor (medians of 5)`,
  );
} finally {
  rmSync(dir, { recursive: true, force: true });
}

/** A project with one run that is real. */
function prepare() {
  const db = new Database(join(dir, "bench.db"));
  db.exec("CREATE TABLE item (id INTEGER PRIMARY KEY, state TEXT)");
  const insert = db.prepare("INSERT INTO item VALUES (?, 'old')");
  db.transaction(() => {
    for (let i = 1; i <= 10_000; i++) insert.run(i);
  })();
  db.close();
  mkdirSync(join(dir, "keys"));
  spawnSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(dir, "keys/dana")]);
  holdpoint(
    ..."init --target bench --url sqlite:bench.db --environment development --person dana=keys/dana.pub".split(
      " ",
    ),
  );
  holdpoint("env", "pin", "bench", "--confirm", "bench");
  writeFileSync(join(dir, "jobs/one.sql"), "UPDATE item SET state = 'new' WHERE id = 7");
  const plan = holdpoint("plan", "jobs/one.sql", "--on", "bench", "--key", "keys/dana").result.plan;
  holdpoint("apply", plan);
}

/** As many runs as a busy year has, each with the entries and the notes of rows that a real one leaves. */
async function fill() {
  const clock = { now: () => new Date() };
  const store = join(dir, ".holdpoint");
  const ledger = await openLedger(store, { clock, random: randomBytes });
  const index = await openRowIndex(store, { random: randomBytes });
  const name = (prefix, i) =>
    `${prefix}_${createHash("sha256")
      .update(`${i}`)
      .digest("hex")
      .replaceAll(/[^0-9a-f]/g, "")
      .slice(0, 16)}`;
  const shape = { name: "item", columns: [{ name: "id", type: "INTEGER" }], keyKind: "primary", key: [0] };
  for (let i = 0; i < runs; i++) {
    const [plan, run] = [name("pl", i), name("rn", i)];
    const digest = `sha256:${createHash("sha256").update(plan).digest("hex")}`;
    const of = { target: "bench", plan, run };
    const snapshot = { snapshot: name("sn", i), manifest: digest, rows: 3, content: digest };
    ledger.append({ kind: "snapshot-taken", ...of, facts: snapshot });
    ledger.append({
      kind: "run-started",
      ...of,
      facts: { digest, approvers: ["ravi"], snapshot: name("sn", i) },
    });
    ledger.append({
      kind: "run-finished",
      ...of,
      facts: { digest, changeset: digest, rows: 3, job: "purge", undoes: [] },
    });
    const changes = [1, 2, 3].map((n) => ({
      op: "delete",
      table: "item",
      key: [BigInt(1000 + ((i * 3 + n) % 9000))],
    }));
    index.indexRun(run, { tables: [shape], changes: () => changes });
  }
  const { sequence } = ledger.head();
  index.close();
  ledger.close();
  return sequence + 1;
}

function holdpoint(...args) {
  const done = spawnSync(process.execPath, [join(root, "bin/holdpoint.js"), ...args, "--json"], {
    cwd: dir,
    encoding: "utf8",
    env: {
      PATH: process.env.PATH,
      HOME: dir,
      ...(existsSync(join(dir, "noting.cjs")) ? { NODE_OPTIONS: `--require ${dir}/noting.cjs` } : {}),
    },
  });
  const document = JSON.parse(done.stdout);
  if (document.ok !== true) throw new Error(JSON.stringify(document.error));
  return document;
}
