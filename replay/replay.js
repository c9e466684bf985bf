// The outage of 24 December 2012, played through the real command while a control plane of several processes works on.
//
//   npm run replay                                     1,000 balancers with 10,000 back ends, on SQLite
//   npm run replay -- --size 100k                      or 1m: 1,000,000 balancers with 10,000,000 back ends
//   npm run replay -- --on postgres                    on a PostgreSQL server that it starts and stops itself
//   npm run replay -- --keep DIR                       plays it in DIR, which must not exist yet, and leaves it there
//   npm run replay -- --judge DIR                      holds a kept SQLite replay against its journals once more
//   npm run replay -- --quiet --json FILE              only the end of it, and the figures in FILE
//
// It ends with 1 when a write was lost, a row resurrected, or anything is not as the control plane left it.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { judge } from "./oracle.js";
import { postgresPlaces, sqlitePlaces } from "./place.js";
import { BACK_ENDS } from "./state.js";
import { playStory } from "./story.js";
import { figures, timeline, verdictLines } from "./timeline.js";

const SIZES = { "1k": 1_000, "100k": 100_000, "1m": 1_000_000 };
const KINDS = ["sqlite", "postgres"];

const { values: flags } = parseArgs({
  options: {
    on: { type: "string", default: "sqlite" },
    size: { type: "string", default: "1k" },
    processes: { type: "string", default: "4" },
    "work-ms": { type: "string", default: "1500" },
    keep: { type: "string" },
    judge: { type: "string" },
    quiet: { type: "boolean", default: false },
    json: { type: "string" },
  },
});
const balancers =
  SIZES[flags.size] ?? usage(`--size ${flags.size} is none of ${Object.keys(SIZES).join(", ")}`);
if (!KINDS.includes(flags.on)) usage(`--on ${flags.on} is none of ${KINDS.join(", ")}`);
if (!/^[1-9]\d?$/.test(flags.processes)) usage(`--processes ${flags.processes} is no number of processes`);
if (!/^[1-9]\d{1,4}$/.test(flags["work-ms"]))
  usage(`--work-ms ${flags["work-ms"]} is no number of milliseconds`);
if (flags.keep !== undefined && existsSync(flags.keep)) usage(`${flags.keep} exists already`);

try {
  await (flags.judge === undefined ? play() : judgeAgain(resolve(flags.judge)));
} catch (e) {
  process.stderr.write(`\nThe replay stopped: ${e instanceof Error ? e.message : String(e)}\n`);
  process.exitCode = 1;
}

async function play() {
  const dir =
    flags.keep === undefined ? mkdtempSync(join(tmpdir(), "holdpoint-replay-")) : resolve(flags.keep);
  try {
    const places = flags.on === "sqlite" ? await sqlitePlaces(dir) : await startPostgres();
    try {
      await playOn(dir, places);
    } finally {
      await places.stop();
    }
  } finally {
    if (flags.keep === undefined) rmSync(dir, { recursive: true, force: true });
  }
}

async function playOn(dir, places) {
  mkdirSync(join(dir, "keys"), { recursive: true, mode: 0o700 });
  const say = (text) => void (flags.quiet || process.stdout.write(text));
  const [processes, workMs] = [Number(flags.processes), Number(flags["work-ms"])];
  const story = await playStory({ dir, places, balancers, processes, workMs, say });
  say("\nEvery row of every table is held against the beginning plus the journals …\n");
  const verdict = await judge(story.production, balancers, story.journals);
  const told = {
    ...story,
    place: places.name,
    balancers,
    verdict,
    listed: verdict.replaced * (BACK_ENDS + 1),
  };
  process.stdout.write(timeline(told));
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(figures(told), null, 2)}\n`);
  complain(verdict);
  if (story.conflicts !== told.listed) process.exitCode = 1;
}

async function judgeAgain(dir) {
  const production = JSON.parse(readFileSync(join(dir, "place.json"), "utf8"));
  const journals = readdirSync(dir).filter((name) => /^journal-\d+$/.test(name));
  const verdict = await judge(
    production,
    balancers,
    journals.map((name) => join(dir, name)),
  );
  process.stdout.write(`${verdictLines(verdict).join("\n")}\n`);
  complain(verdict);
}

function complain(verdict) {
  const wrong = ["lost", "resurrected", "missing", "strangers"].filter((what) => verdict[what].length > 0);
  for (const what of wrong) process.stdout.write(`${what}: ${verdict[what].slice(0, 20).join("; ")}\n`);
  if (wrong.length > 0 || verdict.orphans > 0) process.exitCode = 1;
}

async function startPostgres() {
  const started = await postgresPlaces(await import("../build/test/support/postgres.js"));
  if (started !== null) return started;
  return usage(
    "there is no PostgreSQL server on this machine: PG_BIN, PATH, /usr/lib/postgresql/*/bin and npm's package were looked through.\n" +
      "Install one (Debian: apt-get install postgresql), or play it on SQLite: npm run replay",
  );
}

function usage(what) {
  process.stderr.write(`${what}\n`);
  process.exit(2);
}
