/**
 * The fault fixtures: each wrong plan puts its mark into its slot, within the first twelve lines, in every form, computed
 * from a real plan of a real database. Rows that moved and bytes that were edited are refused before any card.
 */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { readFileSync, writeFileSync } from "node:fs";
import { jsonHere, runHere } from "../support/here.js";
import { makeProject, projectAt, type Ran, type TestProject } from "../support/project.js";

const SCHEMA = `
  CREATE TABLE orders (id INTEGER PRIMARY KEY, shop TEXT, status TEXT, total INTEGER);
  CREATE TABLE notes (id INTEGER PRIMARY KEY, order_id INTEGER REFERENCES orders (id) ON DELETE CASCADE);
  CREATE TABLE stock (id INTEGER PRIMARY KEY, level INTEGER CHECK (level >= 0));
  CREATE TABLE mail_queue (id INTEGER PRIMARY KEY, order_id INTEGER);
  CREATE TRIGGER tell AFTER UPDATE OF status ON orders WHEN new.status = 'told'
    BEGIN INSERT INTO mail_queue (order_id) VALUES (new.id); END;
  WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 1000)
    INSERT INTO orders SELECT v, CASE v WHEN 11 THEN 'south' ELSE 'north' END, CASE WHEN v IN (7, 8) THEN 'paid' ELSE 'pending' END, 100 + v FROM n;
  INSERT INTO notes SELECT id, id FROM orders WHERE id BETWEEN 901 AND 905;
  PRAGMA ignore_check_constraints = ON;
  INSERT INTO stock VALUES (1, 5), (2, -3);
`;

const JOBS = `
jobs:
  close: { sql: jobs/fault.sql, expect: { orders: { update: 90..110 } } }
  cancel: { sql: jobs/fault.sql, direction: { orders.status: { from: pending, to: cancelled } } }
  discount: { sql: jobs/fault.sql, direction: { orders.total: down } }
`;

let project: TestProject;
beforeAll(async () => {
  project = makeProject({ schema: SCHEMA, pin: false });
  const settings = [
    "tenant: [orders.shop]",
    "protect: { orders.status: [paid] }",
    "outbox: [mail_queue]",
    "sums: { orders.total: EUR }",
  ];
  const yaml = project
    .read("holdpoint.yaml")
    .replace(/^ {4}foreign_keys: true\n/m, (line) => line + settings.map((s) => `    ${s}\n`).join(""))
    .replace(/^jobs:\n/m, JOBS.trimStart());
  project.write("holdpoint.yaml", yaml);
  const pinned = await runHere(project, ["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
});
afterAll(() => project.close());

/** Plans that fault and gives the plan's id; a plan that policy denies as well is made and shown all the same. */
async function planned(sql: string, job: string | null): Promise<string> {
  const file = project.write(job === null ? "jobs/bare.sql" : "jobs/fault.sql", sql);
  const made = await jsonHere(project, ["plan", job ?? file, "--on", "shop-prod", "--key", "keys/dana"]);
  if (made.result === null) throw new Error(JSON.stringify(made.error));
  return String(made.result["plan"]);
}

interface Fault {
  readonly sql: string;
  readonly job?: string;
  readonly slots: readonly (readonly [slot: string, mark: string, words: RegExp])[];
}

const TEN = "UPDATE orders SET status = 'done' WHERE id BETWEEN 9 AND";

const FAULTS: Readonly<Record<string, Fault>> = {
  "a condition that is missing": {
    sql: "UPDATE orders SET status = 'gone'",
    slots: [["HOW MUCH", "STOP", /100 %/]],
  },
  "ten times the expected rows": {
    sql: "UPDATE orders SET total = total + 1 WHERE id > 10",
    job: "close",
    slots: [["HOW MUCH", "STOP", /expected 90\.\.110 orders updates, found 990: outside/]],
  },
  "a tenth of the expected rows": {
    sql: `${TEN} 18`,
    job: "close",
    slots: [["HOW MUCH", "STOP", /expected 90\.\.110 orders updates, found 10: outside/]],
  },
  "from and to swapped": {
    sql: "UPDATE orders SET status = 'pending' WHERE status = 'paid'",
    job: "cancel",
    slots: [["WHAT", "STOP", /2 rows of orders\.status, as paid → pending \(declared pending → cancelled\)/]],
  },
  "an amount that rises where the job says down": {
    sql: "UPDATE orders SET total = total + 5 WHERE id BETWEEN 20 AND 24",
    job: "discount",
    slots: [["WHAT", "STOP", /5 rows of orders\.total, as 120 → 125 \(declared down\)/]],
  },
  "protected rows": {
    sql: "UPDATE orders SET status = 'gone' WHERE id < 9",
    slots: [["ODD", "STOP", /2 with a protected/]],
  },
  "a second tenant": {
    sql: "UPDATE orders SET status = 'gone' WHERE id BETWEEN 9 AND 20",
    slots: [["ODD", "STOP", /1 of another/]],
  },
  "cents for euros, and the sum beside it": {
    sql: "UPDATE orders SET total = total * 100 WHERE id BETWEEN 20 AND 24",
    slots: [
      ["ODD", "STOP", /5 of orders.total/],
      ["HOW MUCH", "LOOK", /orders\.total 610 → 61,000 EUR/],
    ],
  },
  "cascading deletes": {
    sql: "DELETE FROM orders WHERE id BETWEEN 901 AND 905",
    slots: [["WHAT", "LOOK", /5 rows of notes by cascade/]],
  },
  "a trigger that sends mail": {
    sql: "UPDATE orders SET status = 'told' WHERE id BETWEEN 30 AND 33",
    slots: [
      ["WHAT", "STOP", /4 rows of mail_queue go out, by trigger/],
      ["BACK", "STOP", /cannot be taken back: 4 rows of mail_queue go out/],
    ],
  },
  "an undo that loses a row": {
    sql: "UPDATE stock SET level = level + 10",
    slots: [["BACK", "STOP", /could not be taken back: a row of stock breaks a constraint/]],
  },
  "a job file that is in no commit": {
    sql: "UPDATE orders SET status = 'gone' WHERE id = 29",
    slots: [["WHAT", "LOOK", /job file in no commit seen here/]],
  },
  "a way back that only the requester's machine tried": {
    sql: "UPDATE orders SET status = 'gone' WHERE id = 30",
    slots: [["BACK", "LOOK", /1 of 1 rows came back/]],
  },
};

interface Slot {
  readonly slot: string;
  readonly mark: string;
  readonly text: string;
}

describe.each(Object.entries(FAULTS))("%s", (_, fault) => {
  let plan = "";
  let card: readonly Slot[] = [];
  beforeAll(async () => {
    plan = await planned(fault.sql, fault.job ?? null);
    const { result } = await jsonHere(project, ["show", plan]);
    card = (result["card"] as unknown as { readonly slots: readonly Slot[] }).slots;
  });

  test.each(fault.slots)(
    "%s says %s in JSON, on the screen, plain, spoken and in Markdown",
    async (slot, mark, words) => {
      const found = card.find((s) => s.slot === slot);
      expect(found).toMatchObject({ mark });
      expect(found?.text).toMatch(words);

      // At 160 columns every slot is one line; the first twelve lines hold it.
      const wide = ["--width", "160"];
      for (const form of [[], ["--plain"], ["--color", "always"]]) {
        const lines = (await first12(["show", plan, ...wide, ...form])).map(withoutColor);
        expect(lines.find((l) => l.startsWith(`  ${slot} `))).toMatch(new RegExp(` ${mark}$`));
      }
      const spoken = await first12(["show", plan, ...wide, "--accessible"]);
      expect(spoken).toContainEqual(expect.stringMatching(new RegExp(`^${mark}\\. ${slot}\\. `, "i")));
      const markdown = await first12(["show", plan, "--format", "github"]);
      expect(markdown).toContainEqual(
        expect.stringMatching(new RegExp(`^\\| ${slot} \\| .* \\| ${mark} \\|$`)),
      );
    },
  );
});

/** The same at the width of the specification, where a slot may take two lines: its mark stands on the first of them. */
test.each(Object.entries(FAULTS))("at 100 columns, within twelve lines: %s", async (_, fault) => {
  const plan = await planned(fault.sql, fault.job ?? null);
  for (const form of [[], ["--plain"], ["--color", "always"], ["--accessible"]]) {
    const lines = (await first12(["show", plan, "--width", "100", ...form])).map(withoutColor);
    for (const [slot, mark] of fault.slots)
      expect(lines).toContainEqual(
        expect.stringMatching(
          form[0] === "--accessible"
            ? new RegExp(`^${mark}\\. ${slot}\\. `, "i")
            : new RegExp(`^ {2}${slot} .* ${mark}$`),
        ),
      );
  }
});

async function first12(args: readonly string[]): Promise<readonly string[]> {
  return (await runHere(project, args)).stdout.split("\n").slice(0, 12);
}

function withoutColor(line: string): string {
  // eslint-disable-next-line no-control-regex
  return line.replaceAll(/\u001b\[[0-9;]*m/g, "").trimEnd();
}

test("at 100 columns the same marks stand in the first twelve lines", async () => {
  const plan = await planned("UPDATE orders SET status = 'gone' WHERE id < 9", null);
  const lines = await first12(["show", plan, "--width", "100"]);
  expect(lines.filter((l) => / (OK|LOOK|STOP)$/.test(l))).toHaveLength(5);
});

describe("what never comes to a card", () => {
  test("rows that moved since planning are refused (34)", async () => {
    const plan = project.plan("UPDATE orders SET status = 'gone' WHERE id = 40");
    project.approve(plan);
    project.raw("UPDATE orders SET status = 'moved' WHERE id = 40");
    const ran = await runHere(project, ["apply", plan, "--confirm", "shop-prod"]);
    expect(ran.status).toBe(34);
    expect(refusal(ran)).toEqual(["ERR_DRIFT_ROWS", expect.stringMatching(/^Nothing was written\./)]);
  });

  test("a plan file that was edited is refused (35)", async () => {
    const file = project.path("edited.hpplan");
    const job = project.write("jobs/edited.sql", "UPDATE orders SET status = 'gone' WHERE id = 41");
    const plan = ["plan", job, "--on", "shop-prod", "--key", "keys/dana", "--out", file];
    const made = await runHere(project, plan);
    expect(made.status).toBe(0);
    const bytes = readFileSync(file);
    const at = Math.floor(bytes.length / 2);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    const ran = await runHere(project, ["show", file]);
    expect(ran.status).toBe(35);
    expect(ran.stdout).toBe("");
    expect(refusal(ran)[1]).toBe("Nothing was written.");
  });
});

function refusal(ran: Ran): readonly [string | undefined, string | undefined] {
  return [/ERR_[A-Z_]+/.exec(ran.stderr)?.[0], /^ {2}State {2}(.*)$/m.exec(ran.stderr)?.[1]];
}

describe("the wrong place", () => {
  test("a physical copy of production is refused before anything is planned (33)", async () => {
    const copy = makeProject({ schema: SCHEMA });
    try {
      const there = projectAt(copy.dir, copy.database, "shop-prod");
      copy.raw("PRAGMA wal_checkpoint(TRUNCATE)");
      writeFileSync(there.path("copy.db"), readFileSync(there.database));
      there.write("holdpoint.yaml", there.read("holdpoint.yaml").replace("sqlite:shop.db", "sqlite:copy.db"));
      const ran = await runHere(there, ["plan", "hello", "--on", "shop-prod"]);
      expect(ran.status).toBe(33);
      expect(refusal(ran)[1]).toBe("Nothing was written.");
      const check = await runHere(there, ["env", "check", "shop-prod"]);
      expect(check.stdout.split("\n").slice(0, 12).join("\n")).toMatch(/UNPROVEN/);
    } finally {
      copy.close();
    }
  });
});

test("escape codes and direction overrides in values and in the reason print as escapes", async () => {
  project.raw("UPDATE orders SET shop = 'north' || char(27) || '[2J' || char(8238) WHERE id = 50");
  const file = project.write("jobs/odd-text.sql", "UPDATE orders SET shop = 'x' WHERE id = 50");
  const reason = "fine\u001b[2J \u202egood";
  const plan = ["plan", file, "--on", "shop-prod", "--key", "keys/dana", "--reason", reason];
  const { stdout, stderr } = await runHere(project, plan);
  expect(stdout + stderr).not.toMatch(/[\u001b\u202e]/);
  expect(stdout).toMatch(/\\x1b/);
});
