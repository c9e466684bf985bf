// Two databases of a million rows compared: by the engine into a working file, and row by row as one reads a snapshot, beside `sqldiff`
// (Debian: apt-get install sqlite3-tools), which prints what it finds. Nothing else is measured: no copy, no plan, no start of a program.
// Usage: npm run build && node bench/compare.js [--short] [--runs N]
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import Database from "better-sqlite3";

const dist = resolve(import.meta.dirname, "../dist/adapters/sqlite");
const load = (file) => import(pathToFileURL(join(dist, file)).href);
const { CaptureFile } = await load("capture-file.js");
const { attachBefore, compareCopies, fileComparison } = await load("compare-copies.js");
const { loadDriver, openFile } = await load("driver.js");
const { DifferingPages, PageGuide } = await load("page-guide.js");
const { prepareForReading } = await load("read.js");
const { readCatalogue } = await load("schema.js");

const short = process.argv.includes("--short");
const runs = Number(process.argv[process.argv.indexOf("--runs") + 1]) || (short ? 1 : 5);
const ROWS = short ? 10_000 : 1_000_000;
const driver = await loadDriver();
const root = mkdtempSync(join(tmpdir(), "holdpoint-bench-"));
try {
  console.log(`# node ${process.version}, median of ${runs}, ${ROWS} rows`);
  const before = join(root, "before.db");
  fill(before);
  for (const [name, where] of [
    ["a tenth of the rows differs, in every page", "id % 10 = 0"],
    ["a hundredth differs, in one piece", `id <= ${ROWS / 100}`],
    ["10 rows differ, scattered", `id % ${ROWS / 10} = 0`],
  ]) {
    const after = join(root, "after.db");
    copyFileSync(before, after);
    change(after, `UPDATE items SET state = 'seen' WHERE ${where}`);
    console.log(`\n${name}`);
    const peer = hasSqldiff() ? timesOf(() => sqldiff(before, after)) : null;
    if (peer === null) console.log("  sqldiff is not installed (apt-get install sqlite3-tools): SKIPPED");
    const base = peer ?? timesOf(() => filed(before, after));
    if (peer !== null) line("sqldiff", peer, base);
    line(
      "holdpoint, into a working file",
      timesOf(() => filed(before, after)),
      base,
    );
    line(
      "holdpoint, row by row",
      timesOf(() => told(before, after)),
      base,
    );
  }
} finally {
  rmSync(root, { recursive: true, force: true });
}

function fill(path) {
  change(
    path,
    `CREATE TABLE items (id INTEGER PRIMARY KEY, state TEXT NOT NULL, n INTEGER NOT NULL, note TEXT);
     WITH RECURSIVE c (v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM c WHERE v < ${ROWS})
     INSERT INTO items SELECT v, 'idle', v * 7 % 1000, 'note of item ' || v FROM c`,
  );
}

function change(path, sql) {
  const db = new Database(path);
  db.exec(sql);
  db.close();
}

function hasSqldiff() {
  return spawnSync("sqldiff", ["-h"]).error === undefined;
}

function sqldiff(before, after) {
  execFileSync("sqldiff", [before, after], { stdio: ["ignore", "ignore", "inherit"] });
}

/** What a rehearsal does that a program ran in. */
function filed(before, after) {
  const folder = join(root, "working");
  mkdirSync(folder);
  const found = between(before, after, (was, is, guide) =>
    fileComparison("items", was, is, new CaptureFile(is.connection, folder), guide),
  );
  if (found === null || found.rows === 0) throw new Error("nothing was found");
  rmSync(folder, { recursive: true });
}

/** What a table does whose key is not the rowid, or whose cells the engine cannot tell exactly. */
function told(before, after) {
  const rows = between(before, after, (was, is, guide) => {
    let n = 0;
    for (const change of compareCopies("items", was, is, guide)) n += change.op === "update" ? 1 : 0;
    return n;
  });
  if (rows === 0) throw new Error("nothing was found");
}

function between(before, after, work) {
  const pages = DifferingPages.between(before, after);
  const sides = [before, after].map((path) => {
    const connection = openFile(driver, path, { readonly: false, busyMs: 0, foreignKeys: false });
    prepareForReading(connection);
    return { connection, catalogue: readCatalogue(connection) };
  });
  const [was, is] = sides;
  try {
    attachBefore(was.connection, is.connection);
    return work(was, is, pages === null ? null : new PageGuide(pages, was.connection, is.connection));
  } finally {
    for (const { connection } of sides) connection.close();
    pages?.close();
  }
}

function timesOf(work) {
  return Array.from({ length: runs }, () => {
    const start = performance.now();
    work();
    return (performance.now() - start) / 1000;
  }).sort((a, b) => a - b);
}

function line(name, times, base) {
  const [mid, of] = [times, base].map((t) => t[Math.floor(t.length / 2)]);
  const spread = `${times[0].toFixed(2)} to ${times.at(-1).toFixed(2)}`;
  console.log(
    `  ${name.padEnd(34)}${mid.toFixed(2).padStart(7)} s ${`${(mid / of).toFixed(2)}x`.padStart(8)}   ${spread}`,
  );
}
