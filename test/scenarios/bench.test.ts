/** `npm run bench -- --short`: every benchmark still runs. What it says is for people, on a quiet machine. */
import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { expect, test } from "@jest/globals";

const SUITE = resolve(import.meta.dirname, "../../../bench/suite/suite.js");

test("each benchmark runs and fills its line", () => {
  const done = spawnSync(process.execPath, [SUITE, "--short"], { encoding: "utf8" });
  expect(done.stderr).toBe("");
  expect(done.status).toBe(0);
  const lines = done.stdout.split("\n").filter((line) => line.startsWith("| "));
  // Thirteen figures under a head and its rule.
  expect(lines).toHaveLength(2 + 13);
  for (const line of lines.slice(2)) expect(line).toMatch(/(\d+ ms|\d+\.\d\d s) .* \d+ MB \|$/);
  for (const closer of ["startup", "apply", "policy", "rescue", "snapshot"])
    expect(done.stdout).toContain(`bench/${closer}.js runs`);
}, 300_000);
