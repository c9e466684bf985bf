// One process of the control plane: creates, changes and retires balancers of its own share until its input ends, and
// writes each change that the database took to its journal. Nothing but this journal says what was legitimate.
//
//   node replay/workload.js '{"place": …, "share": 0, "shares": 4, "balancers": 1000, "journal": "…", "pausedFile": "…"}'
import { existsSync, openSync, writeFileSync, writeSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";
import { connectTo } from "./place.js";
import { backEndIds, balancer, isIdle, seeded } from "./state.js";

const { place, share, shares, balancers, journal, pausedFile, pauseMs, seed } = JSON.parse(process.argv[2]);
const random = seeded(seed + share);
const below = (n) => Math.floor(random() * n);
const db = await connectTo(place);
const lines = openSync(journal, "a");
const ended = new AbortController();
process.stdin.resume().on("end", () => ended.abort());

// What this process knows of its share: everything else of it is as in the beginning.
const gone = new Set();
const born = [];
const namesOfBorn = new Map();
const registered = new Map();
const deregistered = new Set();
const waiting = new Set();
// Made anew by owners whose balancer was gone: they keep those. Had such a one been given up again, nobody could tell that
// the first of its name is not to come back either.
const anew = new Set();
let serial = 0;
const told = { done: 0, missing: 0, retiredWhileMissing: 0, recreated: 0, waited: 0, refused: 0, slow: [] };

const OPERATIONS = [
  [60, change],
  [15, create],
  [8, register],
  [7, deregister],
  [10, retire],
];

// What a line of the journal means for this process.
const remember = {
  balancer: (id, _account, name) => {
    born.push(id);
    namesOfBorn.set(id, name);
  },
  "back-end": (id, of) => {
    if (Math.floor((id - 1) / 10) + 1 !== of) registered.set(of, [...(registered.get(of) ?? []), id]);
  },
  "back-end gone": (id) => deregistered.add(id),
  retired: (id) => gone.add(id),
};

let acknowledged = false;
while (!ended.signal.aborted) {
  const paused = existsSync(pausedFile);
  if (paused && !acknowledged) writeFileSync(`${pausedFile}.${share}`, "");
  acknowledged = paused;
  if (!paused && waiting.size > 0) waiting.clear();
  const started = Date.now();
  await operation(paused);
  const took = Date.now() - started;
  if (took > 250) told.slow.push([started, took]);
  await wait(pauseMs);
}
await db.close();
process.stdout.write(`${JSON.stringify(told)}\n`);

/** One request of an owner, in one transaction; the journal gets it once the database has committed. */
async function operation(paused) {
  let at = below(100);
  const [, work] = OPERATIONS.find(([weight]) => (at -= weight) < 0);
  const id = work === create ? undefined : anyBalancer();
  if (id !== undefined && waiting.has(id)) return;
  const wrote = [];
  try {
    await db.begin();
    const outcome = await (looksOnly(id) ? look(id) : work(id, (...line) => wrote.push(line)));
    if (outcome === "missing") {
      await db.rollback();
      return await missing(id, paused);
    }
    await db.commit();
  } catch (e) {
    await db.rollback();
    // A deadlock or a lock that nobody gave up: the owner is told to try again, and nothing was written.
    if (!["40P01", "40001", "55P03", "SQLITE_BUSY"].includes(e.code)) throw e;
    told.refused += 1;
    return undefined;
  }
  keep(wrote);
  return undefined;
}

function keep(wrote) {
  if (wrote.length === 0) return;
  told.done += 1;
  writeSync(lines, wrote.map((line) => `${JSON.stringify(line)}\n`).join(""));
  for (const [what, ...cells] of wrote) remember[what]?.(...cells);
}

/** A balancer of this share that lives as far as its owner knows; now and then one that was made today. */
function anyBalancer() {
  for (;;) {
    const young = born.length > 0 && random() < 0.1;
    const id = young ? born[below(born.length)] : share + 1 + shares * below(Math.floor(balancers / shares));
    if (!gone.has(id)) return id;
  }
}

function backEndsOf(id) {
  return [...backEndIds(id), ...(registered.get(id) ?? [])].filter((b) => !deregistered.has(b));
}

async function touch(id, note) {
  const at = new Date().toISOString();
  const found = await db.run("UPDATE balancers SET changed_at = ? WHERE balancer_id = ?", at, id);
  if (found === 1) note("changed", id, at);
  return found === 1;
}

/** Owners of idle balancers send traffic through them and hardly ever change them: that is what makes them idle. */
function looksOnly(id) {
  return id !== undefined && id <= balancers && isIdle(id) && random() < 0.95;
}

async function look(id) {
  const found = await db.rows("SELECT 1 FROM balancers WHERE balancer_id = ?", id);
  return found.length === 0 ? "missing" : "done";
}

async function change(id, note) {
  const mine = backEndsOf(id);
  if (!(await touch(id, note))) return "missing";
  if (mine.length === 0) return "done";
  const [of, weight] = [mine[below(mine.length)], 1 + below(1000)];
  const found = await db.run("UPDATE back_ends SET weight = ? WHERE back_end_id = ?", weight, of);
  // The balancer is there and its back end is not: half of a balancer, which no owner must ever see.
  if (found !== 1) throw new Error(`back end ${of} of balancer ${id} is not there`);
  note("weight", of, weight);
  return "done";
}

async function create(_id, note, name) {
  const id = balancers + 1 + share + shares * serial++;
  const cells = [id, 1 + (id % 997), name ?? `lb-${id}.elb.example`, "us-east-1", new Date().toISOString()];
  await db.run("INSERT INTO balancers VALUES (?, ?, ?, ?, ?)", ...cells);
  note("balancer", ...cells);
  for (const backEndId of backEndIds(id)) {
    const row = [backEndId, id, "10.1.1.1", 100];
    await db.run("INSERT INTO back_ends VALUES (?, ?, ?, ?)", ...row);
    note("back-end", ...row);
  }
  return "done";
}

async function register(id, note) {
  if (!(await touch(id, note))) return "missing";
  // Far from the ids that go by a balancer's number.
  const row = [1e12 + share + shares * serial++, id, "10.2.2.2", 1 + below(1000)];
  await db.run("INSERT INTO back_ends VALUES (?, ?, ?, ?)", ...row);
  note("back-end", ...row);
  return "done";
}

async function deregister(id, note) {
  const mine = backEndsOf(id);
  if (!(await touch(id, note))) return "missing";
  if (mine.length === 0) return "done";
  const of = mine[below(mine.length)];
  if ((await db.run("DELETE FROM back_ends WHERE back_end_id = ?", of)) !== 1)
    throw new Error(`back end ${of} of balancer ${id} is not there`);
  note("back-end gone", of);
  return "done";
}

async function retire(id, note) {
  if (anew.has(id)) return change(id, note);
  if ((await db.run("DELETE FROM balancers WHERE balancer_id = ?", id)) !== 1) return "missing";
  await giveUp(id, note);
  return "done";
}

async function giveUp(id, note) {
  const row = [share + 1 + shares * serial++, id, new Date().toISOString()];
  await db.run("INSERT INTO retirements VALUES (?, ?, ?)", ...row);
  note("retirement", ...row);
  note("retired", id);
}

/**
 * An owner's balancer is gone, and the owner did not do it. Most get an error; some give it up for good; some make it
 * anew under its name. While the control plane is paused for what is missing, such requests wait.
 */
async function missing(id, paused) {
  told.missing += 1;
  if (paused) {
    told.waited += 1;
    waiting.add(id);
    return;
  }
  const what = random();
  if (what < 0.7) return;
  const wrote = [];
  const note = (...line) => wrote.push(line);
  await db.begin();
  if (what < 0.9) {
    await giveUp(id, note);
    told.retiredWhileMissing += 1;
  } else {
    const name = id <= balancers ? balancer(id)[2] : namesOfBorn.get(id);
    await create(undefined, note, name);
    anew.add(wrote[0][1]);
    note("replaced", id);
    told.recreated += 1;
    gone.add(id);
  }
  await db.commit();
  keep(wrote);
}
