/**
 * The same screens through every channel: four widths, with and without colour, at a terminal, in a pipe, in CI, on a dumb
 * terminal. Nothing is wider than its paper, nothing but colour differs, and every refusal says what was written.
 */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { runHere, type Surroundings } from "../support/here.js";
import { makeProject, type Ran, type TestProject } from "../support/project.js";

let project: TestProject;
let plan = "";
let run = "";

beforeAll(async () => {
  project = makeProject({ journal: "delete" });
  run = await applied("UPDATE orders SET status = 'kept' WHERE id < 30");
  plan = project.plan("DELETE FROM orders WHERE id BETWEEN 50 AND 60");
});
afterAll(() => project.close());

async function applied(sql: string): Promise<string> {
  const id = project.plan(sql);
  project.approve(id);
  const done = await runHere(project, ["apply", id, "--confirm", "shop-prod"]);
  return /rn_\w{16}/.exec(done.stdout)?.[0] ?? "";
}

const SCREENS: readonly (readonly [string, () => readonly string[]])[] = [
  ["show", () => ["show", plan]],
  ["show --rows", () => ["show", plan, "--rows"]],
  ["status", () => ["status"]],
  ["log", () => ["log"]],
  ["log show", () => ["log", "show", run]],
  ["log who", () => ["log", "who", "--on", "shop-prod", "--table", "orders", "--key", "3"]],
  ["env check", () => ["env", "check", "shop-prod"]],
  ["env list", () => ["env", "list"]],
  ["trust show", () => ["trust", "show"]],
  ["key list", () => ["key", "list"]],
  ["snapshot list", () => ["snapshot", "list"]],
  ["policy explain", () => ["policy", "explain", plan]],
  ["explain", () => ["explain", "ERR_DRIFT_ROWS"]],
];

const REFUSALS: readonly (readonly [string, number, () => readonly string[]])[] = [
  ["apply without an approval", 21, () => ["apply", plan, "--confirm", "shop-prod"]],
  ["apply without an answer", 21, () => ["apply", plan]],
  ["approve without a person", 22, () => ["approve", plan, "--no-input"]],
  ["a plan that is not there", 2, () => ["show", "pl_0000000000000000"]],
  ["an undo that waits", 21, () => ["undo", run, "--key", "keys/dana"]],
];

/** Every channel leaves the words as they are; what it may add is colour. */
const CHANNELS: Readonly<Record<string, Surroundings>> = {
  "CI=1": { env: { CI: "1" } },
  "TERM=dumb": { env: { TERM: "dumb" }, terminal: { columns: 100 } },
  "NO_COLOR=1": { env: { NO_COLOR: "1" }, terminal: { columns: 100 } },
  "CLICOLOR=0": { env: { CLICOLOR: "0" }, terminal: { columns: 100 } },
  "FORCE_COLOR=1": { env: { FORCE_COLOR: "1" } },
  "a terminal": { terminal: { columns: 100 } },
};

const COLOUR = /\u001b\[[0-9;]*m/g;
/** Without colour; and without the line of env check that says that it runs in CI. */
const words = (text: string): string => text.replaceAll(COLOUR, "").replace(/^ {2}CI +1 .*\n/m, "");

/** Cells of a line without control sequences; the names in these screens are one cell a character. */
function widest(text: string): number {
  return Math.max(
    ...words(text)
      .split("\n")
      .map((l) => Array.from(l).length),
  );
}

describe.each(SCREENS)("%s", (_, args) => {
  test("fits 60, 80, 100 and 160 columns, and says the same with colour", async () => {
    for (const width of [60, 80, 100, 160]) {
      const bare = await runHere(project, [...args(), "--width", String(width)]);
      expect(bare.status).toBe(0);
      expect([width, widest(bare.stdout) <= width]).toEqual([width, true]);
      expect(bare.stdout).not.toMatch(COLOUR);
      const colour = await runHere(project, [...args(), "--width", String(width), "--color", "always"]);
      expect(words(colour.stdout)).toBe(bare.stdout);
    }
  });

  test("says the same through every channel", async () => {
    const piped = await runHere(project, args());
    for (const [name, around] of Object.entries(CHANNELS)) {
      const ran = await runHere(project, args(), { ...around, env: { PAGER: "cat", ...around.env } });
      const isColoured = name === "FORCE_COLOR=1" || name === "a terminal";
      expect([name, words(ran.stdout)]).toEqual([name, piped.stdout]);
      if (!isColoured) expect([name, ran.stdout]).not.toEqual([name, expect.stringMatching(COLOUR)]);
    }
  });
});

describe.each(REFUSALS)("%s", (_, code, args) => {
  test.each(Object.entries({ "a pipe": {}, ...CHANNELS }))(
    "through %s",
    async (name, around: Surroundings) => {
      // At a terminal a question would be asked; these are refused before any.
      const ran: Ran = await runHere(project, args(), around);
      expect([name, ran.status]).toEqual([name, code]);
      expect(words(ran.stderr)).toMatch(/✗ ERR_[A-Z_]+ {2}\S/);
      expect(words(ran.stderr)).toMatch(/^ {2}State +Nothing was/m);
    },
  );
});
