// One process of the load: takes its share of the units through plan, approval, apply, and apply again.
import { spawn, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { Readable, Writable } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";

/** The targets; a unit is of one of them. */
export const TARGETS = ["north", "east", "south", "west"];
/** Asked again where another run has the target: a person would do the same. */
const MOST_TRIES = 200;
const BIN = process.env.HOLDPOINT_TEST_BIN ?? resolve(import.meta.dirname, "../bin/holdpoint.js");

/** The target of a unit. */
export function targetOf(unit) {
  return TARGETS[unit % TARGETS.length];
}

if (process.argv[1] === import.meta.filename || process.argv[1]?.endsWith("/load/units.js"))
  await share(JSON.parse(process.argv[2]));

async function share({ dir, share, processes, units }) {
  // The folder that tsc made: the code that ships, in this process.
  const { main } = await import(resolve(import.meta.dirname, "../dist/cli/main.js"));
  const told = [];
  for (let unit = share; unit < units; unit += processes) told.push(await one({ dir, unit, main }));
  process.stdout.write(JSON.stringify(told));
}

async function one({ dir, unit, main }) {
  const target = targetOf(unit);
  // Units that share a row come in each other's way.
  const row = unit % 17 === 0 ? 0 : unit + 1;
  const told = { unit, row, planned: 0, drifted: 0, won: 0, again: null, why: "", steps: [] };
  const job = `jobs/unit-${unit}.sql`;
  writeFileSync(join(dir, job), `UPDATE items SET n = n + 1 WHERE id = ${row};\n`);
  const step = async (args, run = inside) => {
    const started = performance.now();
    const { exit, document } = await run(args);
    told.steps.push({ what: args[0], exit, ms: performance.now() - started, real: run === outside });
    return { exit, document };
  };
  const inside = (args) => mainOf(main, dir, args);
  const outside = (args) => program(dir, args);
  const patiently = async (args) => {
    for (let tries = 1; ; tries++) {
      const ended = await step(args);
      if (ended.exit !== 38 || tries === MOST_TRIES) return ended;
      await wait(50);
    }
  };

  for (;;) {
    const planned = await patiently(["plan", job, "--on", target, "--key", "keys/dana"]);
    if (planned.exit !== 0) return failed(told, "plan", planned);
    told.planned += 1;
    const { plan } = planned.document.result;
    const file = `approval-${plan}.txt`;
    const prepared = await patiently(["approve", plan, "--prepare", file, "--as", "ravi"]);
    // The row moved since: whoever is asked to approve sees it, and the plan is made again.
    if (prepared.exit === 34) {
      told.drifted += 1;
      continue;
    }
    if (prepared.exit !== 0) return failed(told, "approve --prepare", prepared);
    const signed = spawnSync(
      "ssh-keygen",
      ["-Y", "sign", "-n", "holdpoint-approval", "-f", "keys/ravi", file],
      { cwd: dir },
    );
    if (signed.status !== 0) return failed(told, "ssh-keygen", { exit: signed.status });
    const approved = await patiently(["approve", plan, "--prepared", file, "--signature", `${file}.sig`]);
    if (approved.exit === 34) {
      told.drifted += 1;
      continue;
    }
    if (approved.exit !== 0) return failed(told, "approve", approved);
    const apply = ["apply", plan, "--confirm", target];
    const ended =
      unit % 9 === 5
        ? await Promise.all([step(apply, outside), step(apply, outside)]).then((both) =>
            decided(both, patiently, apply, told),
          )
        : await patiently(apply);
    if (ended.exit === 34) {
      told.drifted += 1;
      continue;
    }
    if (ended.exit !== 0) return failed(told, "apply", ended);
    told.won += 1;
    told.again = (await patiently(apply)).exit;
    return told;
  }
}

/** Two at once: one may have won; where both waited in vain for others, it is asked once more. */
async function decided(both, patiently, apply, told) {
  const winners = both.filter(
    ({ exit, document }) => exit === 0 && document.result.completed_earlier_run !== true,
  );
  if (winners.length > 1) told.why = "two programs applied it";
  told.won += Math.max(0, winners.length - 1);
  return winners[0] ?? both.find(({ exit }) => exit === 34) ?? (await patiently(apply));
}

function failed(told, what, { exit, document }) {
  const why = `${what} ended with ${exit}: ${JSON.stringify(document?.error ?? null)}`;
  return { ...told, why };
}

async function mainOf(main, dir, args) {
  const [out, err] = [collector(), collector()];
  const exit = await main([...args, "--json"], {
    stdin: Readable.from([]),
    stdout: out.stream,
    stderr: err.stream,
    env: { PATH: process.env.PATH, HOME: dir, TZ: "UTC", LANG: "C.UTF-8" },
    cwd: () => dir,
    exit: (code) => {
      throw new Error(`it wanted to exit with ${code}`);
    },
    on: () => undefined,
  });
  return { exit, document: JSON.parse(out.text()) };
}

function collector() {
  const chunks = [];
  const stream = new Writable({
    write: (chunk, _encoding, done) => {
      chunks.push(Buffer.from(chunk));
      done();
    },
  });
  return { stream, text: () => Buffer.concat(chunks).toString("utf8") };
}

function program(dir, args) {
  return new Promise((done, failed) => {
    const child = spawn(process.execPath, [BIN, ...args, "--json"], {
      cwd: dir,
      env: { PATH: process.env.PATH, HOME: dir, TZ: "UTC", LANG: "C.UTF-8" },
      stdio: ["ignore", "pipe", "ignore"],
    });
    let text = "";
    child.stdout.on("data", (chunk) => (text += chunk));
    child.on("error", failed);
    child.on("close", (exit) => done({ exit, document: JSON.parse(text) }));
  });
}
