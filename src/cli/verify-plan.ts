/**
 * Checks one plan's bytes in a process of its own, for `approve`: started as a program by `wiring.ts`, under Node's
 * permission model, with no environment. It may read the program and the plan; there is no key, agent or address of
 * anything in its reach. Answers with one line of JSON on stdout; never imported.
 */
import { readFileSync, realpathSync, writeSync } from "node:fs";
import { HoldpointError } from "../base/errors.js";
import { checkPlan } from "../operations/recall/stored-plan.js";
import { readPlanFile } from "../storage/plan-file.js";

/** What is asked: the file's path on stdin. */
const path = realpathSync(readFileSync(0, "utf8"));
const sink = { table: (): void => undefined, add: (): void => undefined };
try {
  const { id } = await checkPlan(await readPlanFile(path, { followLinks: false }), sink);
  answer({ kind: "holds", id });
} catch (e) {
  if (!(e instanceof HoldpointError)) throw e;
  answer({ kind: "refused", code: e.code, message: e.message, why: e.why ?? "" });
}

function answer(value: Readonly<Record<string, string>>): void {
  const bytes = Buffer.from(JSON.stringify(value), "utf8");
  for (let done = 0; done < bytes.length;) done += writeSync(1, bytes, done);
}
