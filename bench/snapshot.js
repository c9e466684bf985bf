// The second snapshot of a large database after 0.1 % of its rows changed, scattered: seconds and bytes, beside restic and
// borg where they are installed. Aims: 10 times fewer bytes than they store, and less time. As a Markdown table.
//
//   npm run build && node bench/snapshot.js [rows]      4,500,000 rows are some 900 MB
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import Database from "better-sqlite3";

const dist = process.env["HOLDPOINT_DIST"] ?? resolve(fileURLToPath(import.meta.url), "../../dist");
const { openSnapshots } = await import(join(dist, "storage/snapshots.js"));

const rows = Number(process.argv[2] ?? 4_500_000);
const dir = mkdtempSync(join(tmpdir(), "holdpoint-bench-"));
try {
  const file = prepare();
  const first = await all(file, 1);
  scatter(file);
  const second = await all(file, 2);
  const size = statSync(file).size;
  console.log(`${rows} rows, ${mb(size)}; then 0.1 % of the rows updated, scattered\n`);
  console.log("| tool | first | stored | second | stored |");
  console.log("| --- | ---: | ---: | ---: | ---: |");
  for (const [name, a] of Object.entries(first)) {
    const b = second[name];
    console.log(`| ${name} | ${s(a.seconds)} | ${mb(a.bytes)} | ${s(b.seconds)} | ${mb(b.bytes)} |`);
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}

function prepare() {
  const file = join(dir, "bench.db");
  const db = new Database(file);
  db.exec("CREATE TABLE item (id INTEGER PRIMARY KEY, owner INTEGER, state TEXT, note TEXT, total REAL)");
  const insert = db.prepare("INSERT INTO item VALUES (?, ?, ?, ?, ?)");
  db.transaction(() => {
    for (let i = 1; i <= rows; i++)
      insert.run(
        i,
        (i * 7919) % 100_003,
        i % 3 === 0 ? "paid" : "open",
        `note ${(i * 2_654_435_761) % 4_294_967_296} ${"x".repeat(90)}`,
        i * 1.25,
      );
  })();
  db.exec("CREATE INDEX item_owner ON item (owner); CREATE INDEX item_state ON item (state, id)");
  db.close();
  return file;
}

/** Every thousandth row, spread over the whole file, gets another value of the same length. */
function scatter(file) {
  const db = new Database(file);
  db.exec("UPDATE item SET total = total + 1 WHERE id % 1000 = 7");
  db.close();
}

async function all(file, round) {
  const found = { holdpoint: await holdpoint(file, round) };
  const restic = tool(
    "restic",
    ["-r", join(dir, "restic"), "init"],
    ["-r", join(dir, "restic"), "backup", file],
    round,
  );
  const borg = tool(
    "borg",
    ["init", "-e", "none", join(dir, "borg")],
    ["create", "-C", "zstd,1", `${join(dir, "borg")}::${round}`, file],
    round,
  );
  return { ...found, ...restic, ...borg };
}

/** Taken, put together again in a scratch file, compared and checked by SQLite, as `snapshot take` does after its copy. */
async function holdpoint(file, round) {
  const folder = join(dir, "snapshots");
  mkdirSync(folder, { recursive: true });
  const before = bytesIn(folder);
  const snapshots = openSnapshots(
    { snapshots: folder },
    { workingChanges: () => Promise.reject(new Error("unused")) },
  );
  const started = performance.now();
  await snapshots.takeFile(
    {
      id: `sn_${String(round).padStart(16, "0")}`,
      level: "database",
      target: "bench",
      identity: "none",
      plan: null,
      run: null,
      takenAt: "2026-01-01T00:00:00Z",
    },
    file,
    { tables: [], rows },
  );
  return { seconds: (performance.now() - started) / 1000, bytes: bytesIn(folder) - before };
}

function tool(name, init, backup, round) {
  const env = { ...process.env, RESTIC_PASSWORD: "bench", BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: "yes" };
  if (spawnSync(name, ["--version"]).error !== undefined) return {};
  if (round === 1) spawnSync(name, init, { env });
  const before = bytesIn(join(dir, name));
  const started = performance.now();
  spawnSync(name, backup, { env });
  return {
    [name]: { seconds: (performance.now() - started) / 1000, bytes: bytesIn(join(dir, name)) - before },
  };
}

function bytesIn(folder) {
  let bytes = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true }))
    if (entry.isFile()) bytes += statSync(join(entry.parentPath ?? entry.path, entry.name)).size;
  return bytes;
}

function s(seconds) {
  return `${seconds.toFixed(2)} s`;
}

function mb(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
