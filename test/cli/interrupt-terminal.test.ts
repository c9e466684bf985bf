/** Ctrl-C at a real pseudo-terminal while a run writes: the first begins no new batch, the second rolls this one back. */
import { readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { makeProject, type TestProject } from "../support/project.js";
import { converse, type Turn } from "../support/terminal.js";

const ROWS = `
  CREATE TABLE item (id INTEGER PRIMARY KEY, state TEXT NOT NULL);
  INSERT INTO item SELECT value, 'old'
    FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 200) SELECT value FROM n);
`;
const CTRL_C = "\u0003";

/**
 * The check after the first wave leaves somebody behind who has the database locked, so that the next batch waits inside
 * its transaction's beginning; they say so on the terminal, and let go once they are told.
 */
const LOCKER = `import { spawn } from "node:child_process";
import { appendFileSync, existsSync } from "node:fs";
import Database from ${JSON.stringify(createRequire(import.meta.url).resolve("better-sqlite3"))};
const [, self, terminal, runner] = process.argv;
if (terminal === undefined) {
  if (process.env.HOLDPOINT_WAVE !== "1" || process.env.LOCK === "no") process.exit(0);
  const child = spawn(process.execPath, [self, "/proc/" + process.ppid + "/fd/2", String(process.ppid)], { detached: true, stdio: ["ignore", "pipe", "ignore"] });
  await new Promise((held) => child.stdout.once("data", held));
  child.unref();
  process.exit(0);
}
const db = new Database("shop.db");
db.exec("BEGIN IMMEDIATE");
process.stdout.write("held\\n");
const free = () => { db.exec("ROLLBACK"); process.exit(0); };
setTimeout(() => appendFileSync(terminal, "LOCKED " + runner + "\\n"), 1500);
setInterval(() => existsSync("let-go") && free(), 50);
setTimeout(free, 60000);
`;

let project: TestProject;
beforeAll(() => {
  project = makeProject({
    schema: ROWS,
    environment: "development",
    target: "items",
    pin: false,
    journal: "delete",
  });
  project.write("locker.mjs", LOCKER);
  project.write(
    "holdpoint.yaml",
    project
      .read("holdpoint.yaml")
      .replace(/^( +)url: .*$/m, "$&\n$1checks: { locker: { command: [node, locker.mjs], timeout: 20s } }"),
  );
  const pinned = project.run(["env", "pin", "items", "--confirm", "items"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
});
afterAll(() => project?.close());

const written = (): number => project.rows("SELECT id FROM item WHERE state = 'new'").length;
/** Whether the run has taken every Ctrl-C so far: a second one beside one that still waits is none. */
const isTaken = (raw: string): boolean => {
  const [, runner = ""] = /LOCKED (\d+)/.exec(raw) ?? [];
  const [, waiting = "0"] = /^ShdPnd:\s*(\w+)/m.exec(readFileSync(`/proc/${runner}/status`, "utf8")) ?? [];
  return (BigInt(`0x${waiting}`) & 2n) === 0n;
};
/** Pressed once or twice; the lock goes when the terminal has taken the last one. */
const pressed = (times: number): readonly Turn[] => [
  ...Array.from({ length: times }, (_, i) => ({
    after: i === 0 ? /LOCKED \d+/ : "^C",
    type: CTRL_C,
    once: isTaken,
  })),
  { after: "^C", type: "", once: isTaken, done: () => project.write("let-go", "") },
];
beforeEach(() => rmSync(join(project.dir, "let-go"), { force: true }));
const planOf = (where: string): string =>
  project.plan(`UPDATE item SET state = 'new' WHERE ${where}`, ["--waves", "5,100%"]);

describe("Ctrl-C while a batch is under way", () => {
  test("once: this batch ends and is committed, no new one begins", async () => {
    const plan = project.plan("UPDATE item SET state = 'new' WHERE id <= 15", ["--waves", "5,10,100%"]);
    const { code, screen } = await converse(["apply", plan], pressed(1), { cwd: project.dir });
    expect(code).toBe(40);
    expect(written()).toBe(10);
    expect(screen).toContain("no new batch was begun");
    expect(screen).toContain("10 of 15 rows are written and committed");
    expect(screen).toContain("apply --resume rn_");
    expect(project.json(["apply", plan])).toMatchObject({ ok: true, result: { resumed: true } });
    expect(written()).toBe(15);
  });

  test("twice: this batch is rolled back, and the run goes on from there later", async () => {
    const before = written();
    const plan = planOf("id BETWEEN 101 AND 120");
    const { code, screen } = await converse(["apply", plan], pressed(2), { cwd: project.dir });
    expect(code).toBe(40);
    expect(written() - before).toBe(5);
    expect(screen).toContain("5 of 20 rows are written and committed");
    const done = project.json(["apply", plan]);
    expect(done).toMatchObject({ ok: true, result: { resumed: true, rows: { written: 20 } } });
    expect(written() - before).toBe(20);
    expect(project.json(["log", "verify"]).ok).toBe(true);
  });
});
