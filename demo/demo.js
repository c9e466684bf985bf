// The whole story on an SQLite database of load balancer state, played through the real command.
//
//   npm run demo            plays it in ./demo-run and leaves that directory for you to go on typing in
//   npm run demo -- DIR     plays it in DIR, which must not exist yet
//
// Nothing is faked: every step below the `$` is what bin/holdpoint.js printed, and a step that ends with
// another exit code than the story expects stops the demo with an error.
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { makeBalancers } from "./balancers.js";

const here = dirname(fileURLToPath(import.meta.url));
const bin = resolve(here, "../bin/holdpoint.js");
const chosen = process.argv[2];
const dir = chosen === undefined ? resolve(here, "../demo-run") : resolve(chosen);

if (chosen === undefined) rmSync(dir, { recursive: true, force: true });
else if (existsSync(dir)) fail(`${dir} exists already`);
mkdirSync(join(dir, "keys"), { recursive: true, mode: 0o700 });

const state = makeBalancers(join(dir, "elb.db"), { balancers: 1000, backEndsEach: 5, seed: 20121224 });
for (const name of ["dana", "ravi"]) {
  tool("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", join("keys", name)]);
}
writeFileSync(join(dir, "holdpoint"), `#!/bin/sh\nexec node '${relative(dir, bin)}' "$@"\n`);
chmodSync(join(dir, "holdpoint"), 0o755);

const job = `-- Retire the back ends of balancers that nobody has seen for a while.
UPDATE back_ends
   SET deleted_at = :at
 WHERE deleted_at IS NULL
   AND balancer_id IN (SELECT id FROM balancers WHERE last_seen_at < :unseen_since);
`;

say(`
An SQLite database of load balancer state: 1,000 balancers with 5 back ends each. It stands for
production. Dana wants to run a maintenance job on it; Ravi is the second person. Both have an
SSH key. Everything happens in ${relative(process.cwd(), dir) || "."}, and you can go on there afterwards.
`);

chapter("Set up: who may sign, and which database this is");
holdpoint(0, [
  "init",
  "--target",
  "elb-prod",
  "--url",
  "sqlite:elb.db",
  "--environment",
  "production",
  "--person",
  "dana=keys/dana.pub",
  "--person",
  "ravi=keys/ravi.pub",
]);
say("Pinning writes a small marker into the database. From now on it says itself that it is production.");
holdpoint(0, ["env", "pin", "elb-prod", "--confirm", "elb-prod"]);

chapter("1. Where am I? The target answers, not a flag");
holdpoint(0, ["env", "check", "elb-prod"]);

chapter("2. What would the job do? It runs where nothing is kept");
writeFileSync(join(dir, "jobs/retire-unseen.sql"), job);
shown("cat jobs/retire-unseen.sql", job);
const planned = holdpoint(0, [
  "plan",
  "jobs/retire-unseen.sql",
  "--on",
  "elb-prod",
  "--set",
  `at=${state.now}`,
  "--set",
  `unseen_since=${state.cutoff}`,
  "--key",
  "keys/dana",
  "--ticket",
  "OPS-4412",
]);
const plan = idIn(planned, "pl");

chapter("3. Without a second person nothing happens");
holdpoint(21, ["apply", plan, "--confirm", "elb-prod"]);
holdpoint(31, ["approve", plan, "--prepare", "dana.txt", "--as", "dana"]);

chapter("4. Ravi looks, and signs exactly this effect");
say(
  "At a terminal this is one command, `approve`. Ravi's key may also live on another machine: holdpoint\nwrites the exact bytes, ssh-keygen signs them there, holdpoint takes the signature in.",
);
holdpoint(0, ["approve", plan, "--prepare", "approval.txt", "--as", "ravi", "--cover-undo", "48h"]);
shownRun("cat", ["approval.txt"]);
shownRun("ssh-keygen", ["-Y", "sign", "-n", "holdpoint-approval", "-f", "keys/ravi", "approval.txt"]);
holdpoint(0, ["approve", plan, "--prepared", "approval.txt", "--signature", "approval.txt.sig"]);

chapter("5. Apply writes exactly what was signed");
const runId = idIn(holdpoint(0, ["apply", plan, "--confirm", "elb-prod"]), "rn");
say("The approval is spent. It opens this plan once:");
holdpoint(31, ["apply", plan, "--confirm", "elb-prod"]);

chapter("6. Somebody else goes on working");
const edit = `UPDATE back_ends SET weight = 250 WHERE id = ${state.damagedBackEnd}`;
const other = `UPDATE balancers SET dns_name = 'renamed.example' WHERE id = 7`;
state.write(edit, other);
shown(`sqlite3 elb.db "${edit}"`, "");
shown(`sqlite3 elb.db "${other}"`, "");

chapter("7. Undo: the job was wrong. Take it back, keep what others wrote");
say(
  "One of the rows was edited since. Ravi's approval covered an undo with every row exactly as it was\nwritten, so this one waits for a person again:",
);
const undoPlan = idIn(holdpoint(21, ["undo", runId, "--key", "keys/dana"]), "pl");
holdpoint(0, ["approve", undoPlan, "--prepare", "undo.txt", "--as", "ravi"], true);
shownRun("ssh-keygen", ["-Y", "sign", "-n", "holdpoint-approval", "-f", "keys/ravi", "undo.txt"]);
holdpoint(0, ["approve", undoPlan, "--prepared", "undo.txt", "--signature", "undo.txt.sig"], true);
holdpoint(0, ["apply", undoPlan, "--confirm", "elb-prod"]);

chapter("8. What is left: all back ends are there, and the other people's writes too");
const question = `SELECT (SELECT count(*) FROM back_ends WHERE deleted_at IS NULL) AS back_ends,
       (SELECT weight FROM back_ends WHERE id = ${state.damagedBackEnd}) AS edited_weight,
       (SELECT dns_name FROM balancers WHERE id = 7) AS renamed`;
const answer = state.ask(question);
shown(`sqlite3 elb.db "${question.replaceAll(/\s+/g, " ")}"`, Object.values(answer).join("|"));
if (answer.back_ends !== 5000 || answer.edited_weight !== 250 || answer.renamed !== "renamed.example") {
  fail("the database is not as the story says");
}

chapter("9. The ledger remembers");
holdpoint(0, ["log"]);
holdpoint(0, ["log", "verify"]);
state.close();

say(`
Go on typing there:

  cd ${relative(process.cwd(), dir) || "."}
  ./holdpoint show ${plan} --rows
  ./holdpoint status
  ./holdpoint --help
`);

function chapter(title) {
  process.stdout.write(`\n\n━━ ${title} ${"━".repeat(Math.max(3, 94 - title.length))}\n`);
}

function say(text) {
  process.stdout.write(`\n${text.trim()}\n`);
}

function shown(command, output) {
  process.stdout.write(`\n$ ${command}\n${output}${output === "" || output.endsWith("\n") ? "" : "\n"}`);
}

/** Runs a step for people to read and returns what it printed; with `quietly`, shows its last line only. */
function holdpoint(expected, args, quietly = false) {
  const done = run(args);
  const text = done.stdout;
  shown(`./holdpoint ${args.map(quote).join(" ")}`, quietly ? lastLine(text) : text);
  if (done.status !== 0) process.stdout.write(`  (exit ${done.status})\n`);
  expect(expected, done, args);
  return text;
}

/** The id that a screen names, e.g. the plan to approve. */
function idIn(text, prefix) {
  const found = text.match(new RegExp(`${prefix}_[0-9a-z]{16}`));
  if (found === null) fail(`no ${prefix}_… in:\n${text}`);
  return found[0];
}

function run(args) {
  // One stream, so that narration and results stand in the order in which a person would see them.
  return spawnSync("sh", ["-c", 'exec "$@" 2>&1', "sh", process.execPath, bin, ...args], {
    cwd: dir,
    encoding: "utf8",
    env: {
      ...process.env,
      HOME: dir,
      SSH_AUTH_SOCK: "",
      HOLDPOINT_COLOR: process.stdout.isTTY ? "always" : "never",
    },
  });
}

function tool(command, args) {
  const done = spawnSync(command, args, { cwd: dir, encoding: "utf8" });
  if (done.error !== undefined) fail(`${command} is needed and could not be run: ${done.error.message}`);
  if (done.status !== 0) fail(`${command} ended with ${done.status}: ${done.stderr}`);
  return done.stdout + done.stderr;
}

function shownRun(command, args) {
  shown(`${command} ${args.map(quote).join(" ")}`, tool(command, args));
}

function expect(code, done, args) {
  if (done.status !== code) {
    fail(
      `holdpoint ${args.join(" ")} ended with ${done.status}, expected ${code}\n${done.stdout}${done.stderr}`,
    );
  }
}

function lastLine(text) {
  return `${text.trimEnd().split("\n").at(-1) ?? ""}\n`;
}

function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function fail(why) {
  process.stderr.write(`\nThe demo stopped: ${why}\n`);
  process.exit(1);
}
