/** Tables that only ever grow, through the real binary: reversed by a new row where one is declared, else left and listed. */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { makeProject, type TestProject } from "../support/project.js";

const ROWS = `
  CREATE TABLE item (id INTEGER PRIMARY KEY, state TEXT NOT NULL);
  CREATE TABLE postings (id INTEGER PRIMARY KEY AUTOINCREMENT, item INTEGER, amount INTEGER NOT NULL, reverses INTEGER, kind TEXT);
  CREATE TABLE outbox (message TEXT);
  INSERT INTO item VALUES (1, 'old'), (2, 'old');
  INSERT INTO postings (item, amount, kind) VALUES (1, 10, 'first'), (2, 20, 'first');
`;
const DECLARED =
  "append_only: { outbox: {}, postings: { reverse: { id: { next: true }, amount: { negate: amount }, reverses: { column: id }, kind: reversal } } }";
const JOB = `
  UPDATE item SET state = 'paid' WHERE id = 1;
  INSERT INTO postings (item, amount, kind) VALUES (1, 100, 'payment'), (1, -7, 'fee');
  INSERT INTO outbox VALUES ('paid 1');
`;

let project: TestProject;

function projectWith(declared: string): TestProject {
  const made = makeProject({ schema: ROWS, environment: "development", target: "items", pin: false });
  made.write("holdpoint.yaml", made.read("holdpoint.yaml").replace(/^( +)url: .*$/m, `$&\n$1${declared}`));
  const pinned = made.run(["env", "pin", "items", "--confirm", "items"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
  return made;
}

const applied = (sql: string): string => {
  const done = project.json(["apply", project.plan(sql)]);
  expect(done.error).toBeNull();
  return String(done.result["run"]);
};
const balance = (): unknown => project.rows("SELECT sum(amount) AS n FROM postings");
const postings = (): unknown[] => project.rows("SELECT id, amount, reverses, kind FROM postings ORDER BY id");

describe("with a reversing row declared", () => {
  let run: string;
  let undo: string;
  beforeAll(() => {
    project = projectWith(DECLARED);
    run = applied(JOB);
  });
  afterAll(() => project.close());

  test("undo puts back what may change, adds reversing rows, and lists what it leaves", () => {
    // Others go on: the numbers of the reversing rows lie above theirs.
    project.raw("INSERT INTO postings (item, amount, kind) VALUES (2, 5, 'theirs')");
    const undone = project.json(["undo", run]);
    expect(undone.error).toBeNull();
    expect(undone.result["counts"]).toMatchObject({ put_back: 1, reversed: 2, left: 1, conflict: 0 });
    expect(undone).toMatchObject({
      warnings: [expect.stringContaining("1 row of outbox left as it is") as unknown],
    });
    undo = String(undone.result["run"]);
    expect(postings().slice(2)).toEqual([
      { id: 3, amount: 100, reverses: null, kind: "payment" },
      { id: 4, amount: -7, reverses: null, kind: "fee" },
      { id: 5, amount: 5, reverses: null, kind: "theirs" },
      { id: 6, amount: -100, reverses: 3, kind: "reversal" },
      { id: 7, amount: 7, reverses: 4, kind: "reversal" },
    ]);
    expect(balance()).toEqual([{ n: 35 }]);
    expect(project.rows("SELECT message FROM outbox")).toHaveLength(1);
    expect(project.rows("SELECT state FROM item WHERE id = 1")).toEqual([{ state: "old" }]);
  });

  test("given again it adds nothing", () => {
    const again = project.json(["undo", run]);
    expect(again.error).toBeNull();
    expect(again.result).toMatchObject({ plan: null, counts: { put_back: 0, reversed: 0 } });
    expect(postings()).toHaveLength(7);
  });

  test("an undo of the undo reverses the reversing rows, and the run can be taken back anew", () => {
    const back = project.json(["undo", undo]);
    expect(back.error).toBeNull();
    expect(balance()).toEqual([{ n: 128 }]);
    expect(project.rows("SELECT state FROM item WHERE id = 1")).toEqual([{ state: "paid" }]);
    const anew = project.json(["undo", run]);
    expect(anew.result["counts"]).toMatchObject({ put_back: 1, reversed: 2 });
    expect(balance()).toEqual([{ n: 35 }]);
    expect(project.json(["log", "verify"]).ok).toBe(true);
  });

  test("what would edit a row is refused by name (30), the other tables can be taken back", () => {
    const edited = applied(
      "UPDATE postings SET kind = 'edited' WHERE id = 1; UPDATE item SET state = 'x' WHERE id = 2",
    );
    const before = project.dump();
    const refused = project.json(["undo", edited]);
    expect(refused).toMatchObject({
      exit: { code: 30 },
      error: { code: "ERR_APPEND_ONLY" },
      target_changed: "no",
    });
    expect(refused.error?.why).toContain("postings");
    expect(project.dump()).toBe(before);
    expect(project.json(["undo", edited, "--table", "item"]).ok).toBe(true);
    expect(project.rows("SELECT state FROM item WHERE id = 2")).toEqual([{ state: "old" }]);
  });
});

describe("a declaration that does not fit", () => {
  test.each([
    ["a column that is not there", "{ nope: 1 }", "ERR_CONFIG_INVALID"],
    [
      "a sign for what is no number",
      "{ id: { next: true }, amount: { negate: kind } }",
      "ERR_CONFIG_INVALID",
    ],
    ["no column of the key", "{ amount: { negate: amount } }", "ERR_APPEND_ONLY"],
  ])("%s is refused at undo, with nothing written", (_, reverse, code) => {
    project = projectWith(`append_only: { postings: { reverse: ${reverse} } }`);
    try {
      const run = applied("INSERT INTO postings (item, amount, kind) VALUES (1, 100, 'payment')");
      const before = project.dump();
      expect(project.json(["undo", run])).toMatchObject({ error: { code }, target_changed: "no" });
      expect(project.dump()).toBe(before);
    } finally {
      project.close();
    }
  });

  test.each([
    ["{ reverse: {} }"],
    ["{ reverse: { id: { next: false } } }"],
    ["{ reverse: { id: 1.5 } }"],
    ["[a]"],
  ])("%s is no configuration", (declared) => {
    expect(() => projectWith(`append_only: { postings: ${declared} }`)).toThrow(/ERR_CONFIG_INVALID/);
  });
});
