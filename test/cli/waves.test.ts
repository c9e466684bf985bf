/**
 * Waves and batches through the real binary: cut, stopped, gone on with. Every ending says what is committed, and
 * what a stopped run leaves is finished by the next `apply` or taken back by `undo`.
 */
import { createRequire } from "node:module";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { BIN, makeProject, type TestProject } from "../support/project.js";

const ROWS = `
  CREATE TABLE item (id INTEGER PRIMARY KEY, state TEXT NOT NULL, code TEXT UNIQUE);
  CREATE TABLE owner (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
  CREATE TABLE thing (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL REFERENCES owner (id) ON DELETE CASCADE);
  INSERT INTO item SELECT value, 'old', 'c' || value
    FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 3000) SELECT value FROM n);
  INSERT INTO owner VALUES (1, 'one'), (2, 'two'), (3, 'three');
  INSERT INTO thing SELECT value, 1 + value % 2
    FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 40) SELECT value FROM n);
`;

let project: TestProject;
beforeAll(() => {
  project = makeProject({ schema: ROWS, environment: "development", target: "items" });
});
afterAll(() => project.close());

const stateOf = (state: string): number =>
  project.rows(`SELECT id FROM item WHERE state = '${state}'`).length;

describe("the cut", () => {
  test("up to 10,000 rows are one transaction, and the statement says so", () => {
    const plan = project.plan("UPDATE item SET state = 'a' WHERE id <= 2500");
    const done = project.json(["apply", plan]);
    expect(done.result).toMatchObject({ waves: 1, batches: 1, rows: { planned: 2500, written: 2500 } });
  });

  test("waves are batches of at most 1,000 rows with an entry after each wave", () => {
    const plan = project.plan("UPDATE item SET state = 'b' WHERE id <= 2500", ["--waves", "1%,10%,100%"]);
    const done = project.json(["apply", plan]);
    expect(done.error).toBeNull();
    // 25 rows, 225 rows, 2250 rows.
    expect(done.result).toMatchObject({ waves: 3, batches: 5, rows: { planned: 2500, written: 2500 } });
    const log = project.json(["log", "show", String(done.result["run"])]);
    const kinds = (log.result["entries"] as unknown as { entry?: { kind: string }; kind?: string }[]).map(
      (e) => e.kind ?? e.entry?.kind,
    );
    expect(kinds.filter((k) => k === "run-committed")).toHaveLength(3);
    expect(project.json(["log", "verify"]).ok).toBe(true);
    expect(stateOf("b")).toBe(2500);
  });

  test("apply adds waves and never takes one away", () => {
    const plan = project.plan("UPDATE item SET state = 'c' WHERE id <= 100", ["--waves", "50%"]);
    const atomic = project.json(["apply", plan, "--atomic"]);
    expect(atomic).toMatchObject({ exit: { code: 2 }, error: { code: "ERR_USAGE" }, target_changed: "no" });
    const done = project.json(["apply", plan, "--waves", "10"]);
    expect(done.result).toMatchObject({ waves: 3, batches: 3 });
  });

  test("by a column, its values stay whole; another count at apply is no tightening", () => {
    const plan = project.plan("UPDATE item SET state = 'v' WHERE id <= 6", ["--waves", "code:1,3"]);
    const other = project.json(["apply", plan, "--waves", "50%"]);
    expect(other).toMatchObject({ exit: { code: 2 }, error: { code: "ERR_USAGE" }, target_changed: "no" });
    const done = project.json(["apply", plan, "--waves", "code:2"]);
    expect(done.result).toMatchObject({ waves: 4, batches: 4, rows: { written: 6 } });
  });

  test.each([
    ["a column that a changed table lacks", "DELETE FROM owner WHERE id = 3", "tenant:1", 2, "ERR_USAGE"],
    [
      "values of rows that hang together",
      "UPDATE item SET code = 't' WHERE id = 7; UPDATE item SET code = 'c7' WHERE id = 8; UPDATE item SET code = 'c8' WHERE id = 7;",
      "code:1",
      2,
      "ERR_WAVES_SPLIT",
    ],
  ])("waves by %s are refused", (_, sql, waves, code, error) => {
    const file = project.write("jobs/by.sql", sql);
    const before = project.dump();
    const refused = project.json(["plan", file, "--on", "items", "--key", "keys/dana", "--waves", waves]);
    expect(refused).toMatchObject({ exit: { code }, error: { code: error }, target_changed: "no" });
    expect(project.dump()).toBe(before);
  });

  test.each([["0%"], ["10%,5%"], ["10%,200"], ["abc"], ["101%"], [""]])(
    "refuses --waves %s with 2",
    (waves) => {
      const file = project.write("jobs/one.sql", "UPDATE item SET state = 'd' WHERE id = 1");
      const refused = project.json(["plan", file, "--on", "items", "--key", "keys/dana", "--waves", waves]);
      expect(refused).toMatchObject({ exit: { code: 2 }, error: { code: "ERR_USAGE" } });
    },
  );

  test.each([
    ["no plan", ["apply"], "ERR_USAGE"],
    ["a plan and a run", ["apply", "pl_k7q2m9xw", "--resume", "rn_5c0e2fqa"], "ERR_USAGE"],
    ["a rate of nothing", ["apply", "pl_k7q2m9xw", "--max-rate", "0"], "ERR_USAGE"],
    [
      "one transaction in waves",
      ["plan", "hello", "--on", "items", "--atomic", "--waves", "50%"],
      "ERR_USAGE",
    ],
    ["an unknown run", ["apply", "--resume", "rn_5c0e2fqa"], "ERR_RUN_UNKNOWN"],
    ["a hold of nothing", ["hold", "elsewhere", "--reason", "x"], "ERR_TARGET_UNKNOWN"],
  ])("refuses %s with 2", (_, args, code) => {
    expect(project.json(args)).toMatchObject({ exit: { code: 2 }, error: { code }, target_changed: "no" });
  });

  test("refuses waves that would split both ends of a foreign key, and does not refuse one transaction", () => {
    const file = project.write("jobs/owners.sql", "DELETE FROM owner WHERE id = 1");
    const args = ["plan", file, "--on", "items", "--key", "keys/dana"];
    const refused = project.json([...args, "--waves", "10%,100%"]);
    expect(refused).toMatchObject({
      exit: { code: 2 },
      error: { code: "ERR_WAVES_SPLIT" },
      target_changed: "no",
    });
    expect(refused.error?.why).toContain("21");
    const whole = project.json(args);
    expect(whole.error).toBeNull();
  });

  test("refuses waves that would split swapped unique values", () => {
    const sql =
      "UPDATE item SET code = 'x' WHERE id = 1; UPDATE item SET code = 'c1' WHERE id = 2; UPDATE item SET code = 'c2' WHERE id = 1;";
    const file = project.write("jobs/swap.sql", sql);
    const refused = project.json(["plan", file, "--on", "items", "--key", "keys/dana", "--waves", "1,100%"]);
    expect(refused).toMatchObject({ exit: { code: 2 }, error: { code: "ERR_WAVES_SPLIT" } });
  });
});

/** A project whose checks do what a control file says, so that a test decides what happens between two waves. */
function projectWithChecks(): TestProject {
  const made = makeProject({ schema: ROWS, environment: "development", target: "items", pin: false });
  made.write(
    "between.mjs",
    `import { readFileSync } from "node:fs";
import Database from ${JSON.stringify(createRequire(import.meta.url).resolve("better-sqlite3"))};
const control = JSON.parse(readFileSync("control.json", "utf8"));
const act = control[process.env.HOLDPOINT_COLLECTOR ? "collector" : (process.env.HOLDPOINT_HOOK ?? "check")];
for (let i = 0; i < (act?.interrupt ?? 0); i++) process.kill(process.ppid, "SIGINT");
if (act?.sql) new Database("shop.db", { timeout: 5000 }).exec(act.sql);
if (act?.command) (await import("node:child_process")).spawnSync(process.execPath, act.command, { stdio: "ignore" });
console.log(JSON.stringify(act?.say ?? Object.keys(process.env).sort()));
process.exit(act?.exit ?? 0);
`,
  );
  made.write("control.json", "{}");
  made.write(
    "holdpoint.yaml",
    made
      .read("holdpoint.yaml")
      .replace(
        /^( +)url: .*$/m,
        "$&\n$1checks:\n$1  between: { command: [node, between.mjs], timeout: 20s }\n$1pause_while:\n$1  lag: { command: [node, between.mjs], pause_over: 2, stop_over: 10, timeout: 20s }\n$1hooks:\n$1  hold: { command: [node, between.mjs] }\n$1  release: { command: [node, between.mjs] }",
      ),
  );
  const pinned = made.run(["env", "pin", "items", "--confirm", "items"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
  return made;
}

describe("between the waves", () => {
  let other: TestProject;
  beforeAll(() => {
    other = projectWithChecks();
  });
  afterAll(() => other.close());
  const control = (act: object): string =>
    other.write("control.json", JSON.stringify({ collector: { say: 0 }, ...act }));
  const count = (state: string): number => other.rows(`SELECT id FROM item WHERE state = '${state}'`).length;

  test("a conflict found later stops the run with 40, and --resume goes on and skips nothing", () => {
    control({ check: { sql: "UPDATE item SET state = 'theirs' WHERE id = 200" } });
    const plan = other.plan("UPDATE item SET state = 'a' WHERE id <= 300", ["--waves", "10,100%"]);
    const stopped = other.json(["apply", plan]);
    expect(stopped).toMatchObject({
      exit: { code: 40, name: "stopped" },
      error: { code: "ERR_RUN_STOPPED" },
      target_changed: "partly",
    });
    expect(stopped.error?.state).toContain("10 of 300 rows");
    expect(count("a")).toBe(10);
    const [last] = other.json(["status"]).result["runs"] as unknown as {
      run: string;
      state: string;
      rows: number;
    }[];
    // Its rows are what it goes on with: they cannot be forgotten on the way.
    const forgotten = other.json(["snapshot", "forget", last?.run ?? "", "--confirm", last?.run ?? ""]);
    expect(forgotten).toMatchObject({ exit: { code: 2 }, target_changed: "no" });
    expect(forgotten.error?.what).toContain("stopped part way");

    expect(last).toMatchObject({ state: "stopped", rows: 10 });
    const run = last?.run ?? "";
    // A run that stopped part way is known for the rows that it wrote, and for no others.
    const who = (key: string): unknown =>
      other.json(["log", "who", "--on", "items", "--table", "item", "--key", key]).result["runs"];
    expect(who("5")).toMatchObject([{ run, state: "stopped" }]);
    expect(who("250")).toEqual([]);

    control({});
    const still = other.json(["apply", "--resume", run]);
    expect(still).toMatchObject({ exit: { code: 40 }, target_changed: "partly" });
    expect(still.error?.why).toContain("200");
    expect(count("a")).toBe(10);

    other.raw("UPDATE item SET state = 'old' WHERE id = 200");
    expect(other.json(["apply", plan, "--waves", "1,100%"])).toMatchObject({ exit: { code: 2 } });
    const done = other.json(["apply", "--resume", run]);
    expect(done).toMatchObject({ ok: true, result: { run, resumed: true, rows: { written: 300 } } });
    expect(count("a")).toBe(300);
    expect(other.json(["apply", plan])).toMatchObject({
      exit: { code: 31 },
      error: { code: "ERR_APPROVAL_SPENT" },
    });
    expect(other.json(["apply", "--resume", run])).toMatchObject({ exit: { code: 2 } });
    expect(other.json(["log", "verify"]).ok).toBe(true);
  });

  test("a run that stopped is taken back by undo, and does not go on afterwards", () => {
    control({ check: { sql: "UPDATE item SET code = 'z', state = 'theirs' WHERE id = 1200" } });
    const before = other.dump();
    const plan = other.plan("UPDATE item SET state = 'b' WHERE id BETWEEN 1001 AND 1200", [
      "--waves",
      "20,100%",
    ]);
    const stopped = other.json(["apply", plan]);
    const run = (stopped.error as unknown as { details: { run: string } }).details.run;
    control({});
    const undone = other.json(["undo", run]);
    expect(undone.error).toBeNull();
    expect(undone.result["counts"]).toMatchObject({ put_back: 20 });
    other.raw("UPDATE item SET code = 'c1200', state = 'old' WHERE id = 1200");
    expect(other.dump()).toBe(before);
    const again = other.json(["apply", plan]);
    expect(again).toMatchObject({
      exit: { code: 31 },
      error: { code: "ERR_APPROVAL_SPENT" },
      target_changed: "no",
    });
  });

  test("a failed check stops the run with 42 and leaves what is written", () => {
    control({ check: { exit: 3, say: "orders are slow" } });
    const plan = other.plan("UPDATE item SET state = 'c' WHERE id BETWEEN 2001 AND 2100", [
      "--waves",
      "10%,100%",
    ]);
    const failed = other.json(["apply", plan]);
    expect(failed).toMatchObject({
      exit: { code: 42 },
      error: { code: "ERR_CHECK_FAILED" },
      target_changed: "partly",
    });
    expect(failed.error?.why).toContain("ended with 3");
    expect(count("c")).toBe(10);
    // The interrupted wave's check is asked again before anything more is written.
    expect(other.json(["apply", plan])).toMatchObject({ exit: { code: 42 } });
    expect(count("c")).toBe(10);
    control({});
    expect(other.json(["apply", plan])).toMatchObject({ ok: true, result: { resumed: true } });
    expect(count("c")).toBe(100);
  });

  test("--put-back takes the wave back when its check fails (41)", () => {
    control({ check: { exit: 1 } });
    const before = other.dump();
    const plan = other.plan("UPDATE item SET state = 'd' WHERE id BETWEEN 2201 AND 2300", [
      "--waves",
      "10%,100%",
      "--put-back",
    ]);
    const failed = other.json(["apply", plan]);
    expect(failed).toMatchObject({
      exit: { code: 41 },
      error: { code: "ERR_CHECK_PUT_BACK" },
      target_changed: "no",
    });
    expect(other.dump()).toBe(before);
    control({});
    expect(other.json(["apply", plan])).toMatchObject({ ok: true, result: { rows: { written: 100 } } });
    expect(count("d")).toBe(100);
  });

  test("a wave that others changed meanwhile is not put back: 42, and theirs stays", () => {
    control({ check: { sql: "UPDATE item SET state = 'theirs' WHERE id = 2351", exit: 1 } });
    const sql = "UPDATE item SET state = 'k' WHERE id BETWEEN 2351 AND 2360";
    const plan = other.plan(sql, ["--waves", "5,100%", "--put-back"]);
    const failed = other.json(["apply", plan]);
    expect(failed).toMatchObject({
      exit: { code: 42 },
      error: { code: "ERR_CHECK_FAILED" },
      target_changed: "partly",
    });
    expect(failed.error?.why).toContain("could not be put back");
    expect([count("k"), count("theirs")]).toEqual([4, 1]);
    control({});
    expect(other.json(["apply", plan])).toMatchObject({ ok: true });
    expect([count("k"), count("theirs")]).toEqual([9, 1]);
  });

  test("checks get HOLDPOINT_ variables and neither keys nor credentials", () => {
    control({ check: { exit: 1 } });
    const plan = other.plan("UPDATE item SET state = 'e' WHERE id = 2400");
    const failed = other.json(["apply", plan], {
      env: { DATABASE_URL: "postgres://secret", SSH_AUTH_SOCK: "/tmp/agent", HOLDPOINT_APPROVAL: "" },
    });
    const why = String(failed.error?.why);
    expect(why).toContain("HOLDPOINT_WAVE");
    expect(why).not.toMatch(/DATABASE_URL|SSH_AUTH_SOCK|APPROVAL/);
    control({});
    expect(other.json(["apply", plan])).toMatchObject({ ok: true, result: { completed_earlier_run: true } });
  });

  test("a collector over its second threshold stops the run before any write (38), and nothing is spent", () => {
    control({ collector: { say: 11 } });
    const before = other.dump();
    const plan = other.plan("UPDATE item SET state = 'f' WHERE id BETWEEN 2501 AND 2510");
    const stopped = other.json(["apply", plan]);
    expect(stopped).toMatchObject({ exit: { code: 38 }, target_changed: "no" });
    expect(stopped.error?.why).toContain("lag is 11");
    expect(other.dump()).toBe(before);
    control({});
    expect(other.json(["apply", plan]).ok).toBe(true);
  });

  test("Ctrl-C before the first commit ends with 130 and changes nothing", () => {
    control({ collector: { say: 0, interrupt: 1 } });
    const before = other.dump();
    const plan = other.plan("UPDATE item SET state = 'i' WHERE id BETWEEN 2601 AND 2620", [
      "--waves",
      "5,100%",
    ]);
    expect(other.json(["apply", plan], { ownProcess: true })).toMatchObject({
      exit: { code: 130 },
      error: { code: "ERR_INTERRUPTED" },
      target_changed: "no",
    });
    expect(other.dump()).toBe(before);
  });

  test("Ctrl-C between waves begins no new batch (40), and apply goes on", () => {
    control({ check: { interrupt: 1 } });
    const plan = other.plan("UPDATE item SET state = 'j' WHERE id BETWEEN 2601 AND 2620", [
      "--waves",
      "5,100%",
    ]);
    expect(other.json(["apply", plan], { ownProcess: true })).toMatchObject({
      exit: { code: 40 },
      error: { code: "ERR_RUN_STOPPED" },
      target_changed: "partly",
    });
    expect(count("j")).toBe(5);
    control({});
    expect(other.json(["apply", plan])).toMatchObject({ ok: true, result: { resumed: true } });
    expect(count("j")).toBe(20);
    other.raw("UPDATE item SET state = 'old' WHERE state = 'j'");
  });

  test("a hold stops plans with 38, a run at its next batch too, and lets the excepted plan go on", () => {
    control({});
    const plan = other.plan("UPDATE item SET state = 'g' WHERE id BETWEEN 2601 AND 2700", [
      "--waves",
      "10,100%",
    ]);
    const repair = other.plan("UPDATE item SET state = 'h' WHERE id = 2800");
    const holding = ["hold", "items", "--reason", "INC-1", "--except", repair];
    control({ check: { command: [BIN, ...holding] } });
    const stopped = other.json(["apply", plan]);
    expect(stopped).toMatchObject({ exit: { code: 40 }, target_changed: "partly" });
    expect(stopped.error?.why).toContain("INC-1");
    expect(count("g")).toBe(10);
    control({});
    expect(other.json(["apply", plan])).toMatchObject({
      exit: { code: 38 },
      error: { code: "ERR_TARGET_HELD" },
      target_changed: "no",
    });
    expect(other.json(["env", "check", "items"]).result["hold"]).toMatchObject({ reason: "INC-1" });
    expect(other.json(["status"]).result["holds"]).toMatchObject([{ target: "items", reason: "INC-1" }]);
    expect(other.run(["status"]).stdout).toContain("INC-1");
    expect(other.json(["apply", repair]).ok).toBe(true);
    expect(other.json(["release", "items", "--reason", "done"])).toMatchObject({
      ok: true,
      result: { hook: "release" },
    });
    expect(other.json(["apply", plan])).toMatchObject({ ok: true, result: { resumed: true } });
    expect(other.json(["release", "items", "--reason", "again"])).toMatchObject({ exit: { code: 2 } });
  });

  test("a hold hook that fails ends with 42 and the hold stands", () => {
    control({ hold: { exit: 4 } });
    const held = other.json(["hold", "items", "--reason", "INC-2"]);
    expect(held).toMatchObject({
      exit: { code: 42 },
      error: { code: "ERR_CHECK_FAILED" },
      target_changed: "no",
    });
    expect(other.json(["env", "check", "items"]).result["hold"]).toMatchObject({ reason: "INC-2" });
    control({});
    expect(other.json(["release", "items", "--reason", "over"]).ok).toBe(true);
    expect(other.json(["hold", "items", "--reason", " "])).toMatchObject({ exit: { code: 2 } });
  });
});

describe("plan --snapshot", () => {
  test("keeps more than the configuration says, and says so; a level that is none is refused", () => {
    const plan = project.plan("UPDATE item SET state = 'snap' WHERE id = 1", ["--snapshot", "database"]);
    expect(project.json(["show", plan]).result["writing"]).toMatchObject({ snapshot: "database" });
    const done = project.json(["apply", plan]);
    expect(done.error).toBeNull();
    const kept = project.json(["snapshot", "list"]).result["snapshots"] as unknown as {
      level: string;
      run: string;
    }[];
    expect(
      kept
        .filter((k) => k.run === done.result["run"])
        .map((k) => k.level)
        .sort(),
    ).toEqual(["database", "rows"]);
    const file = project.write("jobs/snap.sql", "UPDATE item SET state = 'snap' WHERE id = 2");
    const refused = project.json(["plan", file, "--on", "items", "--snapshot", "everything"]);
    expect(refused).toMatchObject({ exit: { code: 2 }, error: { code: "ERR_USAGE" } });
  });
});

describe("a target whose snapshots are whole tables", () => {
  test("keeps the touched tables before the run, beside the plan's rows", () => {
    const kept = makeProject({ schema: ROWS, environment: "development", target: "items", pin: false });
    try {
      const config = kept.read("holdpoint.yaml");
      kept.write("holdpoint.yaml", config.replace(/^( +)url: .*$/m, "$&\n$1snapshot: { level: tables }"));
      kept.run(["env", "pin", "items", "--confirm", "items"]);
      const plan = kept.plan("UPDATE item SET state = 'k' WHERE id = 1");
      expect(kept.json(["show", plan]).result["writing"]).toMatchObject({ snapshot: "tables", waves: null });
      const done = kept.json(["apply", plan]);
      expect(done.error).toBeNull();
      const taken = kept.json(["snapshot", "list"]).result["snapshots"] as unknown as {
        level: string;
        rows: number;
      }[];
      expect(taken.map((t) => [t.level, t.rows])).toEqual(
        expect.arrayContaining([
          ["rows", 1],
          ["tables", 3000],
        ]),
      );
      const more = kept.plan("UPDATE item SET state = 'm' WHERE id = 2", ["--snapshot", "database"]);
      expect(kept.json(["show", more]).result["writing"]).toMatchObject({ snapshot: "database" });
    } finally {
      kept.close();
    }
  });
});
