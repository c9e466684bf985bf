// Many plans and runs by many processes against one ledger and four targets, and then every end is accounted for.
//
//   npm run load                               1,000 plans and runs by 20 processes
//   npm run load -- --units 40 --processes 8   fewer
//   npm run load -- --keep DIR                 leaves everything in DIR, which must not exist yet
//
// Each unit is planned, approved with ssh-keygen, applied, and applied once more, which must be refused. A process runs its
// commands one after the other in itself, as `main` of the program, because a start costs more than a command; of every nine
// units one is applied by two programs of their own at once, of which exactly one may win. Units of one in seventeen share
// a row: there somebody was quicker (34), and such a unit is planned again.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import Database from "better-sqlite3";
import { commandsIn } from "../replay/command.js";
import { TARGETS, targetOf } from "./units.js";

const { values: flags } = parseArgs({
  options: {
    units: { type: "string", default: "1000" },
    processes: { type: "string", default: "20" },
    keep: { type: "string" },
  },
});
const [units, processes] = [flags.units, flags.processes].map(Number);
if (!(units >= 1 && units <= 100_000 && processes >= 1 && processes <= 100))
  usage("--units 1..100000, --processes 1..100");
if (flags.keep !== undefined && existsSync(flags.keep)) usage(`${flags.keep} exists already`);

const dir = flags.keep === undefined ? mkdtempSync(join(tmpdir(), "holdpoint-load-")) : resolve(flags.keep);
try {
  await setUp();
  const started = performance.now();
  const told = (await Promise.all(Array.from({ length: processes }, (_, share) => work(share)))).flat();
  const seconds = (performance.now() - started) / 1000;
  const faults = [...faultsOf(told), ...(await faultsOfLedger(told)), ...faultsOfTargets(told)];
  const steps = told.flatMap((unit) => unit.steps);
  const longest = steps.reduce((a, b) => (a.ms > b.ms ? a : b));
  const again = told.reduce((n, unit) => n + unit.drifted, 0);
  const busy = steps.filter((s) => s.exit === 38).length;
  process.stdout.write(
    `${units} units by ${processes} processes on ${TARGETS.length} targets and one ledger in ${seconds.toFixed(0)} s\n` +
      `  ${steps.length} commands, ${steps.filter((s) => s.real).length} of them programs of their own; ${again} plans were too late and made again; ${busy} waited for another run and asked again\n` +
      `  the longest command took ${(longest.ms / 1000).toFixed(1)} s (${longest.what})\n` +
      `  ${faults.length === 0 ? "every end is accounted for, the ledger verifies, each approval opened one run" : `${faults.length} FAULTS`}\n`,
  );
  for (const fault of faults.slice(0, 10)) process.stdout.write(`  ${fault}\n`);
  if (faults.length > 0) process.exitCode = 1;
} catch (e) {
  process.stderr.write(`The load stopped: ${e instanceof Error ? e.message : String(e)}\n`);
  process.exitCode = 1;
} finally {
  if (flags.keep === undefined) rmSync(dir, { recursive: true, force: true });
}

async function setUp() {
  mkdirSync(join(dir, "keys"), { recursive: true, mode: 0o700 });
  for (const name of TARGETS) {
    const db = new Database(join(dir, `${name}.db`));
    db.pragma("journal_mode = WAL");
    db.exec("CREATE TABLE items (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)");
    const insert = db.prepare("INSERT INTO items VALUES (?, 0)");
    db.transaction(() => {
      for (let id = 0; id <= units; id++) insert.run(id);
    })();
    db.close();
  }
  const { holdpoint, tool } = commandsIn(dir, () => undefined);
  for (const name of ["dana", "ravi"])
    tool("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", join("keys", name)]);
  const people = ["--person", "dana=keys/dana.pub", "--person", "ravi=keys/ravi.pub"];
  const first = ["--target", TARGETS[0], "--url", `sqlite:${TARGETS[0]}.db`, "--environment", "production"];
  await holdpoint(0, ["init", ...first, ...people]);
  const file = join(dir, "holdpoint.yaml");
  const others = TARGETS.slice(1).map(
    (name) => `  ${name}:\n    url: sqlite:${name}.db\n    environment: production\n`,
  );
  writeFileSync(file, readFileSync(file, "utf8").replace(/\njobs:/, `${others.join("")}\njobs:`));
  for (const name of TARGETS) await holdpoint(0, ["env", "pin", name, "--confirm", name]);
}

/** One process and what became of its share of the units. */
function work(share) {
  const settings = { dir, share, processes, units };
  return new Promise((done, failed) => {
    const child = spawn(
      process.execPath,
      [resolve(import.meta.dirname, "units.js"), JSON.stringify(settings)],
      {
        cwd: dir,
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    let text = "";
    child.stdout.on("data", (chunk) => (text += chunk));
    child.on("error", failed);
    child.on("close", (status) =>
      status === 0 ? done(JSON.parse(text)) : failed(new Error(`process ${share} ended with ${status}`)),
    );
  });
}

/** Every unit ended once, with one run, and its approval never opened a second one. */
function faultsOf(told) {
  const faults = told.filter((u) => u.won !== 1).map((u) => `unit ${u.unit}: ${u.won} runs, ${u.why}`);
  faults.push(
    ...told
      .filter((u) => u.again !== 31)
      .map((u) => `unit ${u.unit}: applied again, it ended with ${u.again}`),
  );
  if (told.length !== units) faults.push(`${told.length} units of ${units} ended`);
  return faults;
}

/** The ledger's own account: as many plans and finished runs as the processes tell, and nothing left open. */
async function faultsOfLedger(told) {
  const { holdpoint } = commandsIn(dir, () => undefined);
  const { text } = await holdpoint([0, 35], ["log", "verify", "--json"]);
  const verified = JSON.parse(text.slice(text.indexOf("{")));
  const faults =
    verified.ok === true ? [] : [`the ledger does not verify: ${JSON.stringify(verified.error)}`];
  const db = new Database(join(dir, ".holdpoint/ledger.db"), { readonly: true });
  const count = (kind) => db.prepare("SELECT count(*) FROM entry WHERE kind = ?").pluck().get(kind);
  const plans = told.reduce((n, u) => n + u.planned, 0);
  if (count("planned") !== plans)
    faults.push(`${String(count("planned"))} plans in the ledger, ${plans} were made`);
  const finished = db
    .prepare("SELECT count(DISTINCT plan) FROM entry WHERE kind = 'run-finished'")
    .pluck()
    .get();
  const won = told.reduce((n, u) => n + u.won, 0);
  if (finished !== won)
    faults.push(`${String(finished)} plans with a finished run in the ledger, ${won} were applied`);
  db.close();
  return faults;
}

/** Every row was counted up as often as a run of its unit ended well, and the shared ones by each of theirs. */
function faultsOfTargets(told) {
  const faults = [];
  for (const name of TARGETS) {
    const due = new Map();
    for (const u of told) if (targetOf(u.unit) === name) due.set(u.row, (due.get(u.row) ?? 0) + u.won);
    const db = new Database(join(dir, `${name}.db`), { readonly: true });
    for (const { id, n } of db.prepare("SELECT id, n FROM items").all())
      if (n !== (due.get(id) ?? 0))
        faults.push(`${name} row ${id}: ${n}, and ${due.get(id) ?? 0} runs wrote it`);
    db.close();
  }
  return faults;
}

function usage(what) {
  process.stderr.write(`${what}\n`);
  process.exit(2);
}
