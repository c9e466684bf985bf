// What happens, in order. Part one goes through holdpoint and is stopped; part two goes behind its back and is repaired.
import { spawn } from "node:child_process";
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { commandsIn, idIn } from "./command.js";
import { connectTo } from "./place.js";
import { CUTOFF, fillSql, schemaSql } from "./state.js";

const HERE = import.meta.dirname;
const CONTROL_PLANE = resolve(HERE, "control-plane.js");
const PEOPLE = ["dana", "ravi", "lee"];
/** How long a process of the control plane rests between two requests. */
const PAUSE_MS = 20;
const PURGE = `DELETE FROM balancers WHERE changed_at < '${CUTOFF}'`;

/** What is certainly damage: of balancers that are gone and that no owner gave up, the balancer and its back ends. */
const DAMAGED =
  "balancer_id IN (SELECT before_balancer_id FROM balancers WHERE op = 'delete') AND " +
  "balancer_id NOT IN (SELECT after_balancer_id FROM retirements)";

/**
 * Plays it all and gives what was measured. Between its acts the control plane works on for `workMs`, so that there is
 * something to lose.
 */
export async function playStory({ dir, places, balancers, processes, workMs, say }) {
  const chapter = (title) => say(`\n\n━━ ${title} ${"━".repeat(Math.max(3, 94 - title.length))}\n`);
  const commands = commandsIn(dir, say);

  chapter("Set up: production, staging, and who may sign");
  const production = await fill(places, "elb-prod", balancers);
  const staging = await fill(places, "elb-staging", 1_000);
  const pausedFile = join(dir, "paused");
  await setUp({ dir, commands, production, staging, pausedFile, processes });

  const work = startWork({ dir, production, balancers, processes, workMs, pausedFile });
  try {
    const acts = { chapter, say, commands, work, production, staging, balancers };
    const stopped = await partOne(acts);
    const repaired = await partTwo(acts);
    return { production, ...stopped, ...repaired, ...(await work.stop()), spent: commands.spent };
  } finally {
    work.kill();
  }
}

async function fill(places, name, balancers) {
  const place = await places.make(name);
  const db = await connectTo(place);
  await db.exec(places.before);
  for (const sql of [...schemaSql(...places.types), ...fillSql(balancers, places.numbers)])
    await db.exec(sql);
  await db.exec(places.after);
  await db.close();
  return place;
}

async function setUp({ dir, commands: { holdpoint, tool }, production, staging, pausedFile, processes }) {
  for (const name of PEOPLE)
    tool("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", join("keys", name)]);
  const people = PEOPLE.flatMap((name) => ["--person", `${name}=keys/${name}.pub`]);
  const target = ["--target", "elb-prod", "--url", production.url, "--environment", "production"];
  await holdpoint(0, ["init", ...target, ...people], { quiet: true });
  const placeFile = join(dir, "place.json");
  writeFileSync(placeFile, JSON.stringify(production));
  const program = (...args) =>
    `{ command: ${JSON.stringify([process.execPath, CONTROL_PLANE, ...args])}, timeout: 60s }`;
  const guards = `
    hooks:
      hold: ${program("pause", pausedFile, String(processes))}
      release: ${program("resume", pausedFile, String(processes))}
    checks:
      elb-probe: ${program("probe", placeFile)}
  elb-staging:
    url: \${ELB_URL}
    environment: staging
    foreign_keys: true
`;
  const file = join(dir, "holdpoint.yaml");
  const text = readFileSync(file, "utf8").replace(/(\n {4}foreign_keys: true)\n/, `$1${guards}`);
  writeFileSync(file, text);
  writeFileSync(
    join(dir, "policies/repairs.yaml"),
    `format: holdpoint-policy/1
name: repairs
environments: [production]
rules:
  - id: two-people-for-a-repair
    when: kind == "rescue"
    then: { require: { people: 2, reason: true } }
    because: a repair under pressure is read twice
tests:
  - name: one person is not enough
    plan: { kind: rescue, reason: INC-1224, tables: [{ name: balancers, rows_before: 1000, insert: 68 }] }
    expect: { decision: needs-approval, rules: [two-people-for-a-repair], people: 2 }
`,
  );
  appendFileSync(
    join(dir, "jobs/purge-idle.sql"),
    `-- Take away balancers that nobody has changed for weeks. Meant for staging.\n${PURGE};\n`,
  );
  await holdpoint(0, ["env", "pin", "elb-prod", "--confirm", "elb-prod"], { quiet: true });
  await holdpoint(0, ["env", "pin", "elb-staging", "--confirm", "elb-staging"], {
    quiet: true,
    env: { ELB_URL: staging.url },
  });
}

/** The processes of the control plane; `stop` gives what they did. */
function startWork({ dir, production, balancers, processes, workMs, pausedFile }) {
  const running = Array.from({ length: processes }, (_, share) => {
    const journal = join(dir, `journal-${share}`);
    const settings = {
      place: production,
      share,
      shares: processes,
      balancers,
      journal,
      pausedFile,
      pauseMs: PAUSE_MS,
      seed: 20121224,
    };
    const child = spawn(process.execPath, [resolve(HERE, "workload.js"), JSON.stringify(settings)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    let text = "";
    child.stdout.on("data", (chunk) => (text += chunk));
    const over = new Promise((done) => child.once("close", (status) => done({ status, text })));
    return { child, journal, over };
  });
  let stopping = false;
  const dead = Promise.race(running.map((p) => p.over)).then(() => {
    if (!stopping) throw new Error("a process of the control plane ended before the story did");
  });
  dead.catch(() => undefined);
  return {
    goOn: () => Promise.race([wait(workMs), dead]),
    stop: async () => {
      stopping = true;
      for (const { child } of running) child.stdin.end();
      const ended = await Promise.all(running.map((p) => p.over));
      const failed = ended.findIndex(({ status }) => status !== 0);
      if (failed !== -1)
        throw new Error(`process ${failed} of the control plane ended with ${ended[failed].status}`);
      return { journals: running.map((p) => p.journal), control: ended.map(({ text }) => JSON.parse(text)) };
    },
    kill: () => running.forEach(({ child }) => child.kill()),
  };
}

/** The job goes through holdpoint. */
async function partOne({ chapter, say, commands: { holdpoint }, work, production, staging }) {
  chapter("Part one: the purge goes through holdpoint");
  await work.goOn();
  say("\nDana means staging. Her shell still has the address of production from this morning:\n");
  const plan = ["plan", "jobs/purge-idle.sql", "--key", "keys/dana", "--on"];
  const wrong = await holdpoint(33, [...plan, "elb-staging"], { env: { ELB_URL: production.url } });
  say("\nOn the staging that she means, the effect is seen before it happens:\n");
  await holdpoint(0, [...plan, "elb-staging"], { env: { ELB_URL: staging.url } });
  say(
    "\nHad she named production, she would have seen this, and nothing would have happened without a second person:\n",
  );
  const seen = await holdpoint(0, [...plan, "elb-prod"]);
  await holdpoint(21, ["apply", idIn(seen.text, "pl"), "--confirm", "elb-prod"]);
  return { stopped: { refusedSeconds: wrong.seconds, seenSeconds: seen.seconds } };
}

/** The job goes past holdpoint, and what it took comes back. */
async function partTwo({ chapter, say, commands, work, production }) {
  const { holdpoint, approve } = commands;
  chapter("Part two: the purge runs behind holdpoint's back");
  const good = idIn((await holdpoint(0, ["snapshot", "take", "--on", "elb-prod"])).text, "sn");
  await work.goOn();
  const purge = await purgeRaw(production, say);
  const noticed = performance.now();
  await work.goOn();
  const later = idIn(
    (await holdpoint(0, ["snapshot", "take", "--on", "elb-prod"], { quiet: true })).text,
    "sn",
  );

  chapter("What is gone, and since when");
  say("\nOwners complain. The newer snapshot has the damage already, the older one does not:\n");
  const known = await holdpoint(0, ["snapshot", "diff", good, later]);
  const usable = await holdpoint(0, ["snapshot", "verify", good], { quiet: true });

  chapter("Rescue, while the control plane works on");
  const began = performance.now();
  say("\nNothing else begins here now, and requests about balancers that are gone wait:\n");
  const hold = await holdpoint(0, ["hold", "elb-prod", "--reason", "INC-1224: balancers are gone"]);
  const declared = ["--damage", "deleted", "--where", DAMAGED, "--reason", "INC-1224", "--key", "keys/dana"];
  // 37: rows whose owners made the balancer anew under its name are listed for them to decide, the others are planned.
  const merged = await holdpoint([0, 37], ["rescue", "--on", "elb-prod", "--from", good, ...declared]);
  const plan = idIn(merged.text, "pl");
  const signed = [await approve(plan, "ravi"), await approve(plan, "lee")];
  const repair = ["hold", "elb-prod", "--reason", "INC-1224: the repair", "--except", plan];
  const held = await holdpoint(0, repair, { quiet: true });
  const applied = await holdpoint(0, ["apply", plan, "--confirm", "elb-prod", "--waves", "10%,40%,100%"]);
  const ended = performance.now();
  await holdpoint(0, ["release", "elb-prod", "--reason", "INC-1224 is over"], { quiet: true });

  chapter("Afterwards");
  await work.goOn();
  await holdpoint(0, ["log", "verify"], { quiet: true });
  await holdpoint(0, ["log"]);
  return {
    purge,
    conflicts: countOf(merged.text, "CONFLICT"),
    began,
    seconds: {
      known: known.seconds,
      usable: usable.seconds,
      merged: merged.seconds,
      signed: signed.reduce((n, s) => n + s.seconds, 0),
      enabled: applied.seconds,
      rescueToLastWave: (ended - began) / 1000,
      noticedToEnd: (ended - noticed) / 1000,
    },
    cpuSeconds: {
      known: known.cpuSeconds,
      usable: usable.cpuSeconds,
      merged: merged.cpuSeconds,
      signed: signed.reduce((n, s) => n + s.cpuSeconds, 0),
      enabled: applied.cpuSeconds,
      rescueToLastWave: [hold, merged, ...signed, held, applied].reduce((n, s) => n + s.cpuSeconds, 0),
    },
  };
}

/** A raw client deletes balancers by ranges of ids, and cascades take their back ends along. */
async function purgeRaw(place, say) {
  say(`\n$ … ${PURGE}, in production, in twenty steps\n`);
  const db = await connectTo(place);
  const [[most]] = await db.rows("SELECT max(balancer_id) FROM balancers");
  const step = Math.ceil(most / 20);
  let gone = 0;
  for (let from = 1; from <= most; from += step) {
    gone += await db.run(`${PURGE} AND balancer_id >= ? AND balancer_id < ?`, from, from + step);
    await wait(10);
  }
  await db.close();
  say(`${gone} balancers and their back ends are gone\n`);
  return { gone, of: most };
}

function countOf(text, word) {
  const found = text.match(new RegExp(`([\\d,]+)\\s+${word}`));
  return found === null ? 0 : Number(found[1].replaceAll(",", ""));
}
