// The control plane's own programs, which holdpoint starts as hooks and checks, without a shell and without an address.
//
//   node control-plane.js pause|resume FILE SHARES    what asks about balancers that are gone waits, or goes on
//   node control-plane.js probe PLACE_FILE            some balancers that came back work, and none is half there
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";
import { connectTo } from "./place.js";

const [, , what, file, shares] = process.argv;
if (what === "pause") await pause(Number(shares));
else if (what === "resume") resume(Number(shares));
else await probe();

/** Ends once every process has seen it: after that nobody gives up or makes anew what is gone. */
async function pause(count) {
  writeFileSync(file, "");
  for (let share = 0; share < count; share++) while (!existsSync(`${file}.${share}`)) await wait(20);
}

function resume(count) {
  rmSync(file);
  for (let share = 0; share < count; share++) rmSync(`${file}.${share}`, { force: true });
}

/** Idle balancers are the ones that the purge took: those that are back have back ends. */
async function probe() {
  const db = await connectTo(JSON.parse(readFileSync(file, "utf8")));
  const back = await db.rows(
    `SELECT balancer_id, (SELECT count(*) FROM back_ends WHERE back_ends.balancer_id = balancers.balancer_id)
     FROM balancers WHERE changed_at < '2012-11-01' LIMIT 2000`,
  );
  await db.close();
  const empty = back.filter(([, backEnds]) => backEnds === 0);
  if (empty.length > 0) throw new Error(`balancer ${empty[0][0]} has no back end`);
  process.stdout.write(`${back.length} balancers that were gone have their back ends\n`);
}
