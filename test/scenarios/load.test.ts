/** A sample of `npm run load`: plans and runs by several processes against one ledger and four targets, every end accounted for. */
import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { expect, test } from "@jest/globals";

const LOAD = resolve(import.meta.dirname, "../../../load/load.js");

test("24 plans and runs by six processes: one run for each approval, and a ledger that verifies", () => {
  const args = [LOAD, "--units", process.env["LOAD_UNITS"] ?? "24", "--processes", "6"];
  const done = spawnSync(process.execPath, args, { encoding: "utf8" });
  expect(done.stderr).toBe("");
  expect(done.stdout).toContain(
    "every end is accounted for, the ledger verifies, each approval opened one run",
  );
  expect(done.status).toBe(0);
}, 300_000);
