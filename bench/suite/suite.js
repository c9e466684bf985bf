// All benchmarks in one table: each figure beside a peer or the bare job in the same run, median of several, with the spread.
//
//   npm run bench                        tables of 10,000, 100,000 and 1,000,000 rows (about 3 GB of disk)
//   npm run bench -- --huge              also 10,000,000 rows
//   npm run bench -- --short             once, small: that the benchmarks run, not what they say
//   npm run bench -- --only rescue       rows of the table whose name has this in it
//   npm run bench -- --runs 5            how often each is measured (3)
//
// bench/*.js look closer at one thing each; with --short they are run as well, as small as they can be.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { CASES } from "./cases.js";

const { values: flags } = parseArgs({
  options: {
    short: { type: "boolean", default: false },
    huge: { type: "boolean", default: false },
    only: { type: "string", default: "" },
    runs: { type: "string" },
  },
});
const runs = Number(flags.runs ?? (flags.short ? 1 : 3));
const sizes = flags.short ? [1_000] : [10_000, 100_000, 1_000_000, ...(flags.huge ? [10_000_000] : [])];
const root = mkdtempSync(join(tmpdir(), "holdpoint-bench-"));
/** What each of bench/*.js takes to be small. */
const CLOSER = [
  ["startup.js", "1"],
  ["apply.js", "1000", "100", "1"],
  ["policy.js", "20", "1000"],
  ["rescue.js", "2000"],
  ["snapshot.js", "5000"],
  ["compare.js", "--short"],
];

try {
  console.log(
    `# node ${process.version}, ${cpus().length} cores, ${new Date().toISOString().slice(0, 10)}, median of ${runs}\n`,
  );
  console.log("| what | rows | holdpoint | spread | peer | | ratio | memory |");
  console.log("| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |");
  for (const one of CASES.filter((c) => c.names.some((name) => name.includes(flags.only))))
    for (const rows of one.sizes ?? sizes) lines(one, rows);
  if (flags.short && flags.only === "") for (const [file, ...args] of CLOSER) closer(file, args);
} finally {
  rmSync(root, { recursive: true, force: true });
}

/** The rows of one case: own and peer in turns, so that whatever else the machine does meets both. */
function lines(one, rows) {
  const measured = Array.from({ length: runs }, () => {
    const dir = mkdtempSync(join(root, "case-"));
    try {
      return one.measure(dir, rows);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
  for (const [i, name] of one.names.entries())
    line(
      name,
      one.peer,
      rows,
      measured.map((all) => all[i]),
    );
}

function line(name, peer, rows, measured) {
  const own = measured.map((m) => m.own);
  const others = measured.flatMap((m) => (m.peer === null ? [] : [m.peer]));
  const [ours, theirs] = [median(own), others.length === 0 ? null : median(others)];
  const cells = [
    name,
    rows === null ? "" : rows.toLocaleString("en-US"),
    seconds(ours),
    `${seconds(Math.min(...own))} – ${seconds(Math.max(...own))}`,
    theirs === null ? `${peer}: not installed` : peer,
    theirs === null ? "" : seconds(theirs),
    theirs === null ? "" : `${(ours / theirs).toFixed(1)}x`,
    `${Math.max(...measured.map((m) => m.megabytes)).toFixed(0)} MB`,
  ];
  console.log(`| ${cells.join(" | ")} |`);
}

function closer(file, args) {
  const done = spawnSync(process.execPath, [resolve(import.meta.dirname, "..", file), ...args], {
    encoding: "utf8",
  });
  if (done.status !== 0)
    throw new Error(`bench/${file} ended with ${done.status}\n${done.stdout}${done.stderr}`);
  console.log(`bench/${file} runs`);
}

function median(numbers) {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
}

function seconds(s) {
  return s < 1 ? `${(s * 1000).toFixed(0)} ms` : `${s.toFixed(2)} s`;
}
