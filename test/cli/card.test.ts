/** The fault fixtures: each wrong plan puts its mark into its slot, within the first lines of the screen, in every form. */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { makeProject, type TestProject } from "../support/project.js";

const SCHEMA = `
  CREATE TABLE orders (id INTEGER PRIMARY KEY, shop TEXT, status TEXT, total INTEGER);
  CREATE TABLE notes (id INTEGER PRIMARY KEY, order_id INTEGER REFERENCES orders (id) ON DELETE CASCADE);
  WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 1000)
    INSERT INTO orders SELECT v, CASE v WHEN 11 THEN 'south' ELSE 'north' END, CASE WHEN v IN (7, 8) THEN 'paid' ELSE 'pending' END, 100 + v FROM n;
  INSERT INTO notes SELECT id, id FROM orders WHERE id BETWEEN 901 AND 905;
`;

let project: TestProject;
beforeAll(() => {
  project = makeProject({ schema: SCHEMA, pin: false });
  const yaml = project.read("holdpoint.yaml");
  const settings = "    tenant: [orders.shop]\n    protect: { orders.status: [paid] }\n";
  project.write(
    "holdpoint.yaml",
    yaml.replace(/^ {4}foreign_keys: true\n/m, (line) => line + settings),
  );
  const pinned = project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
});
afterAll(() => project.close());

interface Slot {
  readonly slot: string;
  readonly mark: string;
  readonly text: string;
}

function cardOf(plan: string, args: readonly string[] = []): readonly Slot[] {
  const { result } = project.json(["show", plan, ...args]);
  const card: unknown = result["card"];
  return (card as { readonly slots: readonly Slot[] }).slots;
}

const FAULTS: readonly (readonly [string, string, string, string, RegExp])[] = [
  ["a condition that is missing", "UPDATE orders SET status = 'gone'", "HOW MUCH", "STOP", /100 %/],
  ["protected rows", "UPDATE orders SET status = 'gone' WHERE id < 9", "ODD", "STOP", /2 with a protected/],
  [
    "a second tenant",
    "UPDATE orders SET status = 'gone' WHERE id BETWEEN 9 AND 20",
    "ODD",
    "STOP",
    /1 of another/,
  ],
  [
    "cents for euros",
    "UPDATE orders SET total = total * 100 WHERE id BETWEEN 20 AND 24",
    "ODD",
    "STOP",
    /5 of orders.total/,
  ],
  [
    "cascading deletes",
    "DELETE FROM orders WHERE id BETWEEN 901 AND 905",
    "WHAT",
    "LOOK",
    /5 rows of notes by cascade/,
  ],
  [
    "a way back that was tried",
    "UPDATE orders SET status = 'gone' WHERE id = 30",
    "BACK",
    "LOOK",
    /1 of 1 rows came back/,
  ],
];

describe.each(FAULTS)("%s", (_, sql, slot, mark, words) => {
  let shown = "";
  let plan = "";
  beforeAll(() => {
    const file = project.write("jobs/fault.sql", sql);
    // A plan that policy denies as well is made and shown all the same.
    const made = project.json(["plan", file, "--on", "shop-prod", "--key", "keys/dana"]);
    plan = String(made.result["plan"]);
    shown = project.run(["show", plan]).stdout;
  });

  test(`${slot} says ${mark}, in JSON`, () => {
    const found = cardOf(plan).find((s) => s.slot === slot);
    expect(found).toMatchObject({ mark });
    expect(found?.text).toMatch(words);
  });

  test("and on the screen, before anything else of the plan", () => {
    const lines = shown.split("\n").slice(0, 16);
    const at = lines.findIndex((l) => l.startsWith(`  ${slot} `));
    expect(at).toBeGreaterThan(0);
    expect(lines[at]).toMatch(new RegExp(`${mark}$`));
  });

  test("in plain, accessible and Markdown form alike", () => {
    expect(project.run(["show", plan, "--plain"]).stdout).toMatch(new RegExp(`^  ${slot} .*${mark}$`, "m"));
    expect(project.run(["show", plan, "--accessible"]).stdout).toMatch(new RegExp(`${mark}\\. ${slot}`, "i"));
    expect(project.run(["show", plan, "--format", "github"]).stdout).toMatch(
      new RegExp(`^\\| ${slot} \\| .* \\| ${mark} \\|$`, "m"),
    );
  });
});

test("escape codes and direction overrides in values and in the reason print as escapes", () => {
  project.raw("UPDATE orders SET shop = 'north' || char(27) || '[2J' || char(8238) WHERE id = 50");
  const file = project.write("jobs/odd-text.sql", "UPDATE orders SET shop = 'x' WHERE id = 50");
  const reason = "fine\u001b[2J \u202egood";
  const plan = ["plan", file, "--on", "shop-prod", "--key", "keys/dana", "--reason", reason];
  const { stdout, stderr } = project.run(plan);
  expect(stdout + stderr).not.toMatch(/[\u001b\u202e]/);
  expect(stdout).toMatch(/\\x1b/);
});
