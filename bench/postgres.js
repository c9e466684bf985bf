// What a plan, an apply, a snapshot and an undo cost on PostgreSQL, each beside the bare statement and its peers, and how
// long each of them makes somebody wait who writes other rows. As Markdown tables: medians, and from least to most.
//
//   npm run build && npx tsc -p tsconfig.test.json && node bench/postgres.js      5,000,000 rows: some 3 GB of disk, 20 minutes
//   node bench/postgres.js --rows 500000 --runs 5 --only plan,stall,apply,copy    smaller, oftener, in part
//
// It starts a server of its own in a temporary folder (durable writes on). A checkpoint and a vacuum stand before each
// measurement, so that each writes the full pages that the first change after a checkpoint does: `--warm` leaves the
// checkpoints out, and then a statement that is run again costs a third. BENCH_BUILD names another output folder of tsc.
import { fork, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import pg from "pg";
import { to as copyTo } from "pg-copy-streams";

const SELF = fileURLToPath(import.meta.url);
const BIN = resolve(SELF, "../../bin/holdpoint.js");
const build = resolve(import.meta.dirname, "..", process.env.BENCH_BUILD ?? "build");
const { values: flags } = parseArgs({
  options: {
    rows: { type: "string", default: "5000000" },
    runs: { type: "string", default: "3" },
    only: { type: "string", default: "plan,stall,apply,copy" },
    warm: { type: "boolean", default: false },
    "write-beside": { type: "string" },
  },
});
const [ROWS, RUNS] = [Number(flags.rows), Number(flags.runs)];
const TENTH = "id % 10 = 0";

const CASES = [
  ["DELETE 1 % scattered", "DELETE FROM items WHERE id % 100 = 0", false],
  ["DELETE 10 % scattered", `DELETE FROM items WHERE ${TENTH}`, false],
  ["DELETE 1 % contiguous", `DELETE FROM items WHERE id <= ${ROWS / 100}`, false],
  ["DELETE 1 % contiguous, pg_visibility", `DELETE FROM items WHERE id <= ${ROWS / 100}`, true],
  ["UPDATE 10 % scattered", `UPDATE items SET state = 'done' WHERE ${TENTH}`, false],
];
/** Statement triggers with transition tables, made in the job's own transaction: the way that is not taken. */
const TRIGGERS = [
  "CREATE TEMP TABLE was (LIKE items); CREATE TEMP TABLE became (LIKE items)",
  `CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
     IF TG_OP <> 'INSERT' THEN INSERT INTO was SELECT * FROM gone; END IF;
     IF TG_OP = 'UPDATE' THEN INSERT INTO became SELECT * FROM come; END IF; RETURN NULL; END $$`,
  `CREATE TRIGGER keep_deletes AFTER DELETE ON items REFERENCING OLD TABLE AS gone
     FOR EACH STATEMENT EXECUTE FUNCTION keep()`,
  `CREATE TRIGGER keep_updates AFTER UPDATE ON items REFERENCING OLD TABLE AS gone NEW TABLE AS come
     FOR EACH STATEMENT EXECUTE FUNCTION keep()`,
];

if (flags["write-beside"] !== undefined) await writeBeside(flags["write-beside"]);
else await main();

async function main() {
  const { startServer } = await import(`${build}/test/support/postgres.js`);
  const server = await startServer({
    fsync: "on",
    full_page_writes: "on",
    shared_buffers: "1GB",
    max_wal_size: "16GB",
    checkpoint_timeout: "1h",
    // The server itself tells of everybody who waited for a lock as long as nobody should.
    log_lock_waits: "on",
    deadlock_timeout: "50ms",
    log_min_messages: "log",
  });
  const scratch = mkdtempSync(join(tmpdir(), "holdpoint-bench-"));
  try {
    const url = await server.freshDatabase();
    await fill(server, url);
    console.log(
      `# PostgreSQL ${server.version}, node ${process.version}, ${cpus().length} cores, ${ROWS} rows, median of ${RUNS}\n`,
    );
    const bench = { server, url, scratch };
    const parts = { plan, stall, apply, copy };
    for (const [name, part] of Object.entries(parts))
      if (flags.only.split(",").includes(name)) await part(bench);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
    await server.stop();
  }
}

async function fill(server, url) {
  await server.exec(
    url,
    "CREATE TABLE items (id bigint PRIMARY KEY, owner integer, state text, note text, amount numeric, at timestamptz)",
    `INSERT INTO items SELECT i, i % 1000, 'new', md5(i::text) || repeat('x', 40), i * 0.01, '2026-01-01Z'::timestamptz + i * interval '1 s'
     FROM generate_series(1, ${ROWS}) i`,
    "CREATE INDEX ON items (owner)",
    "CREATE INDEX ON items (at)",
    "VACUUM ANALYZE items",
  );
}

// ---- plans

async function plan(bench) {
  head(["plan", "rows", "bare", "triggers", "", "holdpoint", "", "processor time", "triggers", "holdpoint"]);
  for (const [name, sql, isVisible] of CASES) {
    if (isVisible) await bench.server.exec(bench.url, "CREATE EXTENSION IF NOT EXISTS pg_visibility");
    const measured = { bare: [], triggers: [], own: [] };
    const worked = { bare: [], triggers: [], own: [] };
    let rows = 0;
    // In turns, so that whatever else the machine does meets all of them.
    for (let i = 0; i < RUNS; i++) {
      for (const [key, work] of [
        ["bare", () => bareJob(bench.url, sql)],
        ["triggers", () => triggerJob(bench.url, sql)],
        ["own", () => rehearsed(bench.url, sql)],
      ]) {
        await calm(bench);
        const before = await processorTime(bench.server);
        const took = await work();
        if (key === "own") rows = took.rows;
        measured[key].push(took.seconds);
        worked[key].push((await processorTime(bench.server)) - before);
      }
    }
    const { bare, triggers, own } = measured;
    const clock = [spread(bare), spread(triggers), ratio(triggers, bare), spread(own), ratio(own, bare)];
    const [least, more, most] = [worked.bare, worked.triggers, worked.own];
    line([name, rows, ...clock, spread(least), ratio(more, least), ratio(most, least)]);
    if (isVisible) await bench.server.exec(bench.url, "DROP EXTENSION pg_visibility");
  }
  console.log();
}

/** The statement in a transaction that is rolled back. */
async function bareJob(url, sql) {
  return await inSession(url, async (client) => ({
    seconds: await seconds(async () => {
      for (const text of ["BEGIN", sql, "ROLLBACK"]) await client.query(text);
    }),
  }));
}

/** The same with the rows kept by triggers, and read. */
async function triggerJob(url, sql) {
  return await inSession(url, async (client) => ({
    seconds: await seconds(async () => {
      for (const text of ["BEGIN", ...TRIGGERS, sql]) await client.query(text);
      for (const table of ["was", "became"]) {
        const rows = client.query(copyTo(`COPY (SELECT * FROM ${table} ORDER BY id) TO STDOUT`));
        for await (const _ of rows);
      }
      await client.query("ROLLBACK");
    }),
  }));
}

async function rehearsed(url, sql) {
  const target = await open(url);
  let rows = 0;
  try {
    const sink = { table() {}, add: () => void rows++ };
    return { seconds: await seconds(() => target.rehearse(job(sql), sink)), rows };
  } finally {
    await target.close();
  }
}

// ---- others who write

/**
 * The longest wait of somebody who writes other rows of the same table, one after the other, each committed. A process of
 * its own: one that shares ours would wait for our reading of rows, which nobody else does.
 */
async function stall(bench) {
  const [name, sql] = CASES[0];
  head([
    "longest wait of another writer",
    "writes",
    "p99",
    "longest, each run",
    "median",
    "waited 50 ms for a lock",
  ]);
  const waits = new Map();
  for (let i = 0; i < RUNS; i++) {
    for (const [what, work] of [
      ["nothing else runs", () => new Promise((r) => setTimeout(r, 3000))],
      [`bare ${name}`, () => bareJob(bench.url, sql)],
      [`triggers, ${name}`, () => triggerJob(bench.url, sql)],
      [`plan of ${name}`, () => rehearsed(bench.url, sql)],
    ]) {
      await calm(bench);
      const found = await whileWriting(bench, work);
      waits.set(what, [...(waits.get(what) ?? []), found]);
    }
  }
  for (const [what, runs] of waits) {
    const longest = runs.map((r) => r.waits.at(-1) ?? 0);
    const all = runs.flatMap((r) => r.waits).sort((a, b) => a - b);
    const cells = [all.length, ms(all[Math.floor(all.length * 0.99)]), longest.map(ms).join(", ")];
    line([what, ...cells, ms(median(longest)), runs.reduce((sum, r) => sum + r.locked, 0)]);
  }
  console.log();
}

/** All waits in seconds, sorted, and how many of them were for a lock, for 50 ms and more. */
async function whileWriting({ server, url }, work) {
  const waited = () =>
    readFileSync(join(server.folder, "log"), "utf8").split(" still waiting for ").length - 1;
  const writer = fork(SELF, ["--rows", String(ROWS), "--write-beside", url]);
  try {
    const told = () => new Promise((r) => writer.once("message", r));
    await told(); // it has written for half a second
    writer.send("count from now");
    const before = waited();
    await work();
    const waits = told();
    writer.send("stop");
    return { waits: await waits, locked: waited() - before };
  } finally {
    writer.disconnect();
  }
}

async function writeBeside(url) {
  await inSession(url, async (client) => {
    let waits = [];
    const stop = new AbortController();
    process.on("message", (word) => {
      if (word === "stop") stop.abort();
      else waits = [];
    });
    const begun = performance.now();
    let isWarm = false;
    for (let i = 1; !stop.signal.aborted; i = (i * 48_271) % ROWS) {
      if (i % 10 === 0) continue;
      waits.push(await seconds(() => client.query("UPDATE items SET note = note WHERE id = $1", [i])));
      if (isWarm || performance.now() - begun < 500) continue;
      isWarm = true;
      process.send("warm");
    }
    process.send(waits.sort((a, b) => a - b));
  });
}

// ---- apply

/** 50,000 rows written as signed, beside the bare statement; both committed. */
async function apply(bench) {
  const count = Math.min(50_000, ROWS / 10);
  const sql = `UPDATE items SET state = 'paid' WHERE id % ${ROWS / count} = 0`;
  const measured = { bare: [], bareWorked: [], own: [], ownWorked: [], write: [], verify: [] };
  for (let i = 0; i < RUNS; i++) {
    await asFilled(bench);
    const before = await processorTime(bench.server);
    measured.bare.push(await seconds(() => bench.server.exec(bench.url, sql)));
    measured.bareWorked.push((await processorTime(bench.server)) - before);
    await asFilled(bench);
    const own = await applied(bench, sql, count);
    for (const key of ["own", "write", "verify", "ownWorked"]) measured[key].push(own[key]);
  }
  const { bare, bareWorked, own, ownWorked, write, verify } = measured;
  head(["apply", "bare", "holdpoint", "", "of it writing", "reading back", "processor time", ""]);
  const clock = [spread(bare), spread(own), ratio(own, bare), spread(write), spread(verify)];
  line([`${count} updates`, ...clock, spread(bareWorked), ratio(ownWorked, bareWorked)]);
  console.log();
}

async function asFilled(bench) {
  await bench.server.exec(bench.url, "UPDATE items SET state = 'new' WHERE state <> 'new'");
  await calm(bench);
}

async function applied(bench, sql, count) {
  const target = await open(bench.url);
  try {
    const [shapes, changes] = [[], []];
    await target.rehearse(job(sql), { table: (s) => shapes.push(s), add: (c) => changes.push(c) });
    await calm(bench);
    const source = { tables: shapes, changes: () => changes };
    let [write, verify] = [0, 0];
    const before = await processorTime(bench.server);
    const own = await seconds(async () => {
      const session = await target.openWriter();
      await session.begin();
      write = await seconds(async () => {
        const { written } = await session.write(source, []);
        if (written !== count) throw new Error(`${written} written`);
      });
      verify = await seconds(async () => {
        const wrong = await session.verify(source);
        if (wrong.length > 0) throw new Error(`${wrong.length} wrong`);
      });
      await session.commit();
      await session.close();
    });
    return { own, write, verify, ownWorked: (await processorTime(bench.server)) - before };
  } finally {
    await target.close();
  }
}

// ---- snapshots and the way back, through the command line

async function copy(bench) {
  const dir = project(bench);
  const dumped = join(bench.scratch, "peer.dump");
  const peers = { dump: [], restore: [] };
  const own = { tables: [], again: [], database: [], undo: [] };
  const bytes = {};
  for (let i = 0; i < RUNS; i++) {
    await asFilled(bench);
    bytes.tables = kept(dir, () => own.tables.push(holdpoint(dir, "snapshot", "take", "--on", "bench")));
    await bench.server.exec(bench.url, "UPDATE items SET state = 'one' WHERE id % 1000 = 7");
    bytes.again = kept(dir, () => own.again.push(holdpoint(dir, "snapshot", "take", "--on", "bench")));
    bytes.database = kept(dir, () =>
      own.database.push(holdpoint(dir, "snapshot", "take", "--on", "bench", "--snapshot", "database")),
    );
    rmSync(dumped, { force: true });
    peers.dump.push(await seconds(() => program("pg_dump", ["-Fc", "-f", dumped, bench.url])));
    const elsewhere = await bench.server.freshDatabase();
    peers.restore.push(await seconds(() => program("pg_restore", ["-d", elsewhere, dumped])));
    await bench.server.exec(
      bench.url,
      `DROP DATABASE ${new URL(elsewhere.replace("@/", "@x/")).pathname.slice(1)}`,
    );
    await asFilled(bench);
    const { result } = asked(dir, "plan", "jobs/pay.sql", "--on", "bench", "--json");
    const { result: ran } = asked(dir, "apply", result.plan, "--json");
    own.undo.push(holdpoint(dir, "undo", ran.run));
  }
  const mb = (n) => `${(n / 1e6).toFixed(0)} MB`;
  head(["snapshot", "holdpoint", "stored", "peer", "", "stored", ""]);
  const dump = ["pg_dump -Fc", spread(peers.dump), mb(statSync(dumped).size)];
  line(["tables", spread(own.tables), mb(bytes.tables), ...dump, ratio(own.tables, peers.dump)]);
  line([
    "tables, 0.1 % changed since",
    spread(own.again),
    mb(bytes.again),
    ...dump,
    ratio(own.again, peers.dump),
  ]);
  line(["database", spread(own.database), mb(bytes.database), ...dump, ratio(own.database, peers.dump)]);
  console.log();
  head(["the way back", "holdpoint", "peer", "", ""]);
  const restore = ["pg_restore", spread(peers.restore)];
  line([
    "undo of 50,000 updates, with its plan",
    spread(own.undo),
    ...restore,
    ratio(own.undo, peers.restore),
  ]);
  console.log();
}

function project({ url, scratch }) {
  const dir = join(scratch, "project");
  const key = join(scratch, "dana");
  program("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key]);
  program("git", ["init", "-q", dir]);
  holdpoint(
    dir,
    "init",
    "--target",
    "bench",
    "--url",
    url,
    "--environment",
    "development",
    "--person",
    `dana=${key}.pub`,
  );
  holdpoint(dir, "env", "pin", "bench", "--confirm", "bench");
  const step = Math.max(10, ROWS / 50_000);
  writeFileSync(join(dir, "jobs/pay.sql"), `UPDATE items SET state = 'paid' WHERE id % ${step} = 0;\n`);
  return dir;
}

/** Runs the real command in the project; how long it took. */
function holdpoint(dir, ...args) {
  return asked(dir, ...args).seconds;
}

function asked(dir, ...args) {
  const begun = performance.now();
  const ran = spawnSync(process.execPath, [BIN, ...args], {
    cwd: dir,
    encoding: "utf8",
    maxBuffer: 2 ** 26,
    env: { ...process.env, HOLDPOINT_KEY: join(dir, "../dana") },
  });
  const took = (performance.now() - begun) / 1000;
  if (ran.status !== 0) throw new Error(`holdpoint ${args.join(" ")}: ${ran.stderr}`);
  return { seconds: took, result: args.includes("--json") ? JSON.parse(ran.stdout).result : null };
}

/** The bytes that `work` adds to the store. */
function kept(dir, work) {
  const before = bytesIn(dir);
  work();
  return bytesIn(dir) - before;
}

function bytesIn(folder) {
  if (!existsSync(folder)) return 0;
  let bytes = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true }))
    if (entry.isFile()) bytes += statSync(join(entry.parentPath ?? entry.path, entry.name)).size;
  return bytes;
}

function program(name, args) {
  const ran = spawnSync(name, args, { encoding: "utf8" });
  if (ran.status !== 0) throw new Error(`${name}: ${ran.error?.message ?? ran.stderr}`);
}

// ---- what all of them need

async function calm({ server, url }) {
  await server.exec(url, "VACUUM items", ...(flags.warm ? [] : ["CHECKPOINT"]));
}

/**
 * Seconds that this process and the server's sessions so far have worked: on a machine that does other things it says more
 * than the clock. Where the system does not tell it, not a number.
 */
async function processorTime(server) {
  await new Promise((r) => setTimeout(r, 100)); // sessions count for the server when it has seen them end
  const { user, system } = process.cpuUsage();
  const own = (user + system) / 1e6;
  try {
    const [pid] = readFileSync(join(server.folder, "data/postmaster.pid"), "utf8").split("\n");
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
    return own + fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / 100;
  } catch {
    return Number.NaN;
  }
}

async function inSession(url, work) {
  const client = new pg.Client(url.replace("@/", "@localhost/"));
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function open(url) {
  const { openPostgres } = await import(`${build}/src/adapters/postgres/index.js`);
  return await openPostgres({
    name: "bench",
    url,
    env: {},
    clock: { now: () => new Date() },
    random: (n) => randomBytes(n),
    limits: { walBytes: 2 ** 40 },
  });
}

function job(text) {
  return { kind: "sql", statements: [{ text, line: 1, values: {} }] };
}

async function seconds(work) {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

/** The median, and from least to most. */
function spread(numbers) {
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  return `${median(numbers).toFixed(2)} s (${least.toFixed(2)} – ${most.toFixed(2)})`;
}

function ratio(ours, others) {
  return `${(median(ours) / median(others)).toFixed(2)}x`;
}

function ms(seconds) {
  return `${(seconds * 1000).toFixed(0)} ms`;
}

function head(cells) {
  line(cells);
  console.log(`| ${cells.map((_, i) => (i === 0 ? "---" : "---:")).join(" | ")} |`);
}

function line(cells) {
  console.log(`| ${cells.join(" | ")} |`);
}
