// What a plan and an apply cost on PostgreSQL beside the bare statement, and how long a rehearsal makes others wait.
// Usage: npm run build && npx tsc -p tsconfig.test.json && node bench/postgres.js [--rows N] [--runs N] [--visibility]
// It starts a server of its own in a temporary folder (durable writes on); BENCH_BUILD names another output folder of tsc.
import { randomBytes } from "node:crypto";
import { resolve } from "node:path";

const build = resolve(import.meta.dirname, "..", process.env.BENCH_BUILD ?? "build");
const { openPostgres } = await import(`${build}/src/adapters/postgres/index.js`);
const { connect, startServer } = await import(`${build}/test/support/postgres.js`);
const argument = (name, otherwise) => Number(process.argv[process.argv.indexOf(name) + 1]) || otherwise;
const ROWS = argument("--rows", 1_000_000);
const RUNS = argument("--runs", 3);

const JOBS = [
  ["DELETE 1 % scattered", "DELETE FROM items WHERE id % 100 = 0"],
  ["DELETE 10 % scattered", "DELETE FROM items WHERE id % 10 = 0"],
  ["DELETE 1 % contiguous", `DELETE FROM items WHERE id <= ${ROWS / 100}`],
  ["UPDATE 1 % scattered", "UPDATE items SET state = 'done' WHERE id % 100 = 0"],
  ["UPDATE 10 % scattered", "UPDATE items SET state = 'done' WHERE id % 10 = 0"],
];

const server = await startServer({
  fsync: "on",
  full_page_writes: "on",
  shared_buffers: "1GB",
  max_wal_size: "8GB",
});
try {
  const url = await server.freshDatabase();
  await server.exec(
    url,
    "CREATE TABLE items (id bigint PRIMARY KEY, owner integer, state text, note text, amount numeric, at timestamptz)",
    `INSERT INTO items SELECT i, i % 1000, 'new', md5(i::text), i * 0.01, '2026-01-01Z'::timestamptz + i * interval '1 s'
     FROM generate_series(1, ${ROWS}) i`,
    "CREATE INDEX ON items (owner)",
    "CREATE INDEX ON items (at)",
    "VACUUM ANALYZE items",
    ...(process.argv.includes("--visibility") ? ["CREATE EXTENSION pg_visibility"] : []),
  );
  console.log(`# PostgreSQL ${server.version}, node ${process.version}, ${ROWS} rows, median of ${RUNS}`);
  for (const [name, sql] of JOBS) await plan(url, name, sql);
  await stall(url);
  await apply(url);
} finally {
  await server.stop();
}

/** The job in a transaction that is rolled back, and the same rehearsed. */
async function plan(url, name, sql) {
  const [bare, rehearsed] = [[], []];
  let rows = 0;
  for (let i = 0; i < RUNS; i++) {
    const client = await connect(url);
    bare.push(
      await seconds(async () => {
        await client.rows("BEGIN");
        await client.rows(sql);
        await client.rows("ROLLBACK");
      }),
    );
    await client.rows("VACUUM items");
    await client.close();
    const target = await open(url);
    rows = 0;
    rehearsed.push(await seconds(() => target.rehearse(job(sql), { table() {}, add: () => void rows++ })));
    await target.close();
    await server.exec(url, "VACUUM items");
  }
  report(name, median(bare), median(rehearsed), `${rows} rows`);
}

/** The longest wait of somebody who writes other rows of the same table. */
async function stall(url) {
  const phases = [
    ["idle", () => new Promise((resolve) => setTimeout(resolve, 2000))],
    [
      "while DELETE 1 % is rehearsed",
      async () => {
        const target = await open(url);
        await target.rehearse(job(JOBS[0][1]), { table() {}, add() {} });
        await target.close();
      },
    ],
  ];
  for (const [name, work] of phases) {
    const stop = new AbortController();
    let longest = 0;
    const writer = (async () => {
      const client = await connect(url);
      for (let i = 1; !stop.signal.aborted; i = (i * 48_271) % ROWS) {
        if (i % 10 === 0) continue;
        longest = Math.max(
          longest,
          await seconds(() => client.rows("UPDATE items SET note = note WHERE id = $1", String(i))),
        );
      }
      await client.close();
    })();
    await work();
    stop.abort();
    await writer;
    console.log(`longest wait of another writer, ${String(name)}: ${(longest * 1000).toFixed(0)} ms`);
  }
  await server.exec(url, "VACUUM items");
}

/** 50,000 rows written as signed, beside the bare statement; both committed. */
async function apply(url) {
  const count = Math.min(50_000, ROWS / 10);
  const sql = `UPDATE items SET state = 'paid' WHERE id % ${ROWS / count} = 0`;
  const [bare, applied] = [[], []];
  for (let i = 0; i < RUNS; i++) {
    await server.exec(url, "UPDATE items SET state = 'new' WHERE state <> 'new'", "VACUUM items");
    const target = await open(url);
    const [shapes, changes] = [[], []];
    await target.rehearse(job(sql), { table: (s) => shapes.push(s), add: (c) => changes.push(c) });
    applied.push(
      await seconds(async () => {
        const session = await target.openWriter();
        await session.begin();
        const source = { tables: shapes, changes: () => changes };
        const { written } = await session.write(source, []);
        const wrong = await session.verify(source);
        if (written !== count || wrong.length > 0)
          throw new Error(`${written} written, ${wrong.length} wrong`);
        await session.commit();
        await session.close();
      }),
    );
    await target.close();
    await server.exec(url, "UPDATE items SET state = 'new' WHERE state <> 'new'", "VACUUM items");
    bare.push(await seconds(() => server.exec(url, sql)));
  }
  report(`apply of ${count} updates, verified`, median(bare), median(applied), "");
}

function open(url) {
  return openPostgres({
    name: "bench",
    url,
    env: {},
    clock: { now: () => new Date() },
    random: (n) => randomBytes(n),
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
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;
}

function report(name, bare, ours, more) {
  console.log(
    `${name}: bare ${bare.toFixed(2)} s, holdpoint ${ours.toFixed(2)} s (${(ours / bare).toFixed(2)}x) ${more}`,
  );
}
