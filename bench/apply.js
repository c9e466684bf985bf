// Apply with all its checks beside the bare statement, and its undo: 100,000 updates and 100,000 deletes in a table
// of a million rows, in batches and in one transaction. Medians, ratios and peak memory, as a Markdown table.
//
//   npm run build && node bench/apply.js [rows of the table] [rows changed] [repeats]
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import Database from "better-sqlite3";

const SELF = fileURLToPath(import.meta.url);
const BIN = resolve(SELF, "../../bin/holdpoint.js");
const DIST = process.env["HOLDPOINT_DIST"] ?? resolve(SELF, "../../dist");

if (process.argv[2] === "--child") await child(process.argv[3], process.argv[4]);
else
  parent(
    Number(process.argv[2] ?? 1_000_000),
    Number(process.argv[3] ?? 100_000),
    Number(process.argv[4] ?? 3),
  );

function parent(rows, changed, repeats) {
  const dir = mkdtempSync(join(tmpdir(), "holdpoint-bench-"));
  try {
    prepare(dir, rows);
    const jobs = {
      update: `UPDATE item SET state = 'new', total = total + 1 WHERE id <= ${changed}`,
      delete: `DELETE FROM item WHERE id <= ${changed}`,
    };
    console.log(
      `${rows} rows, ${changed} changed, median of ${repeats}; bare: the same statement, committed\n`,
    );
    console.log("| job | bare | plan | apply | ratio | undo | ratio | peak memory of apply |");
    console.log("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (const [name, sql] of Object.entries(jobs)) {
      for (const how of ["batches", "atomic"]) {
        const all = Array.from({ length: repeats }, () => measure(dir, sql, how));
        const of = (key) => median(all.map((m) => m[key]));
        const bare = of("bare");
        console.log(
          `| ${name}, ${how} | ${ms(bare)} | ${ms(of("plan"))} | ${ms(of("apply"))} | ${(of("apply") / bare).toFixed(1)}x | ` +
            `${ms(of("undo"))} | ${(of("undo") / bare).toFixed(1)}x | ${Math.round(of("memory") / 1024)} MB |`,
        );
      }
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function prepare(dir, rows) {
  const db = new Database(join(dir, "shop.db"));
  db.pragma("journal_mode = WAL");
  db.exec(`CREATE TABLE item (id INTEGER PRIMARY KEY, state TEXT NOT NULL, total REAL NOT NULL, note TEXT);
    CREATE INDEX item_state ON item (state);
    INSERT INTO item SELECT value, 'old', value * 1.5, 'a note of some length ' || value
      FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < ${rows}) SELECT value FROM n)`);
  db.close();
  must(spawnSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(dir, "dana")]));
  cli(dir, [
    "init",
    "--target",
    "shop",
    "--url",
    "sqlite:shop.db",
    "--environment",
    "development",
    "--person",
    "dana=dana.pub",
  ]);
  cli(dir, ["env", "pin", "shop", "--confirm", "shop"]);
}

function measure(dir, sql, how) {
  const copy = join(dir, "bare.db");
  checkpoint(join(dir, "shop.db"));
  copyFileSync(join(dir, "shop.db"), copy);
  const db = new Database(copy);
  db.pragma("synchronous = FULL");
  const started = performance.now();
  db.exec(`BEGIN IMMEDIATE; ${sql}; COMMIT`);
  const bare = performance.now() - started;
  db.close();
  for (const side of ["", "-wal", "-shm"]) rmSync(copy + side, { force: true });
  const done = spawnSync(process.execPath, ["--no-warnings", SELF, "--child", sql, how], {
    cwd: dir,
    encoding: "utf8",
  });
  must(done);
  return { bare, ...JSON.parse(done.stdout) };
}

/** Plan, apply and undo in one process, so that the start of Node is not in the numbers. */
async function child(sql, how) {
  const { wire } = await import(`${DIST}/cli/wiring.js`);
  const { makePlan } = await import(`${DIST}/operations/plan.js`);
  const { applyPlan } = await import(`${DIST}/operations/apply.js`);
  const { undoRun } = await import(`${DIST}/operations/undo.js`);
  const { writeFileSync } = await import("node:fs");
  const dir = process.cwd();
  writeFileSync("job.sql", sql);
  const wired = await wire({
    cwd: dir,
    env: { PATH: process.env["PATH"], HOME: dir },
    isInteractive: false,
    progress: { begin: () => () => {}, check: () => {}, wave: () => {} },
    narrate: () => {},
    interruption: { requested: () => null, insisted: () => false },
  });
  const { tools } = wired;
  const timed = async (work) => {
    const started = performance.now();
    const result = await work();
    return [performance.now() - started, result];
  };
  const job = await tools.prepareJob("shop", { kind: "job", job: "job.sql" }, []);
  const pacing = how === "atomic" ? { atomic: true } : {};
  const request = { on: "shop", job, reason: null, ticket: null, key: "dana", out: undefined, pacing };
  const [plan, made] = await timed(() => makePlan(tools, request));
  const [apply, applied] = await timed(() =>
    applyPlan(tools, { ref: made.id, tokens: [], dryRun: false, confirm: async () => {} }),
  );
  const memory = process.resourceUsage().maxRSS;
  const [undo] = await timed(() =>
    undoRun(tools, {
      runs: [applied.run],
      run: applied.run,
      onConflict: "stop",
      tables: [],
      columns: [],
      where: undefined,
      resolutions: undefined,
      key: "dana",
      out: undefined,
      reason: null,
      confirm: async () => {},
    }),
  );
  wired.close();
  console.log(JSON.stringify({ plan, apply, undo, memory }));
}

function checkpoint(file) {
  const db = new Database(file);
  db.pragma("wal_checkpoint(TRUNCATE)");
  db.close();
}

function cli(dir, args) {
  must(spawnSync(process.execPath, [BIN, ...args], { cwd: dir, encoding: "utf8" }));
}

function must(done) {
  if (done.status !== 0) throw new Error(`${done.spawnargs ?? ""} ${done.stdout}${done.stderr}`);
}

function median(values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

function ms(n) {
  return n < 1000 ? `${Math.round(n)} ms` : `${(n / 1000).toFixed(1)} s`;
}
