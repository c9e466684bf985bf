/** S36: every way to falsify history is detected by `log verify` (35), and nothing is applied over it. */
import { randomBytes } from "node:crypto";
import { copyFileSync, readdirSync } from "node:fs";
import Database from "better-sqlite3";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { openLedger } from "../../src/storage/ledger.js";
import { makeProject, type TestProject } from "../support/project.js";

let project: TestProject;
let plan: string;
beforeAll(async () => {
  project = makeProject();
  await fill(180);
  plan = project.plan("UPDATE orders SET note = 'x' WHERE id <= 3");
  project.approve(plan);
  for (let i = 0; i < 4; i++)
    expect(project.json(["snapshot", "take", "--on", "shop-prod", "--table", "customers"]).error).toBeNull();
  const applied = project.plan("UPDATE orders SET note = 'y' WHERE id = 9");
  project.approve(applied);
  expect(project.json(["apply", applied, "--confirm", "shop-prod"]).error).toBeNull();
  for (const file of files()) copyFileSync(project.path(`.holdpoint/${file}`), project.path(`${file}.kept`));
  expect(Number(project.json(["log", "verify"]).result["entries"])).toBeGreaterThanOrEqual(190);
});
afterAll(() => project.close());

/** A ledger with a history: what a nightly drill leaves in it. */
async function fill(entries: number): Promise<void> {
  const ledger = await openLedger(project.path(".holdpoint"), {
    clock: { now: () => new Date() },
    random: randomBytes,
  });
  try {
    for (let i = 0; i < entries; i++)
      ledger.append({
        kind: "drilled",
        target: "shop-prod",
        facts: { snapshot: `sn_${String(i).padStart(16, "0")}`, ok: true },
      });
  } finally {
    ledger.close();
  }
}

const files = (): string[] => readdirSync(project.path(".holdpoint")).filter((f) => f.startsWith("ledger"));

/** Attacks the file as somebody would who knows SQLite: without its triggers. */
function attack(sql: string): void {
  const db = new Database(project.path(".holdpoint/ledger.db"));
  try {
    db.unsafeMode(true);
    db.exec("DROP TRIGGER entry_no_delete; DROP TRIGGER entry_no_update");
    db.exec(sql);
    db.exec(
      "CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    );
    db.exec(
      "CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    );
  } finally {
    db.close();
  }
}

const last = "(SELECT max(sequence) FROM entry)";

test.each([
  [
    "one byte of an entry is another",
    "UPDATE entry SET bytes = CAST(replace(CAST(bytes AS TEXT), 'drilled', 'drillfd') AS BLOB) WHERE sequence = 105",
  ],
  ["the last entry is dropped", `DELETE FROM entry WHERE sequence = ${last}`],
  ["the last three are dropped", `DELETE FROM entry WHERE sequence > ${last} - 3`],
  ["a middle one is dropped", "DELETE FROM entry WHERE sequence = 100"],
  [
    "two are swapped",
    "UPDATE entry SET sequence = -1 WHERE sequence = 100; UPDATE entry SET sequence = 100 WHERE sequence = 101; UPDATE entry SET sequence = 101 WHERE sequence = -1",
  ],
  [
    "an entry is put in a second time",
    `INSERT INTO entry SELECT ${last} + 1, kind, target, plan, run, digest, bytes FROM entry WHERE sequence = 5`,
  ],
  ["all of it is gone", "DELETE FROM entry"],
])("%s", (_, sql) => {
  attack(sql);
  const verified = project.json(["log", "verify"]);
  expect(verified.exit.code).toBe(35);
  const before = project.dump();
  expect(project.json(["apply", plan, "--confirm", "shop-prod"]).exit.code).toBe(35);
  expect(project.dump()).toBe(before);
  for (const file of files()) copyFileSync(project.path(`${file}.kept`), project.path(`.holdpoint/${file}`));
  expect(project.run(["log", "verify"]).status).toBe(0);
});

test("the whole ledger is replaced by another project's", () => {
  const other = makeProject({ target: "shop-prod" });
  try {
    for (const file of files())
      copyFileSync(other.path(`.holdpoint/${file}`), project.path(`.holdpoint/${file}`));
    expect(project.json(["log", "verify"]).exit.code).toBe(35);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).exit.code).toBe(35);
  } finally {
    other.close();
  }
});
