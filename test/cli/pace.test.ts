/** What a run waits for, through the real binary: addresses and questions in SQL, read beside the run. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { makeProject, type TestProject } from "../support/project.js";

const ROWS = `
  CREATE TABLE item (id INTEGER PRIMARY KEY, state TEXT NOT NULL);
  CREATE TABLE backlog (n);
  INSERT INTO backlog VALUES (0);
  INSERT INTO item SELECT value, 'old'
    FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 200) SELECT value FROM n);
`;

let project: TestProject;
let server: Server;
/** What the address answers, first to last; the last one for ever. */
let answers: { readonly status: number; readonly body: string }[] = [];
let asked = 0;

beforeAll(async () => {
  server = createServer((_, answer) => {
    asked += 1;
    const [first = { status: 500, body: "" }] = answers;
    if (answers.length > 1) answers.shift();
    const { status, body } = first;
    answer.writeHead(status, status === 302 ? { location: "/elsewhere" } : {}).end(body);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
});
afterAll(() => {
  server.close();
  project?.close();
});

/** A project whose target waits for these rules. */
function waitingFor(rules: string): TestProject {
  project?.close();
  project = makeProject({ schema: ROWS, environment: "development", target: "items", pin: false });
  const { port } = server.address() as AddressInfo;
  const text = rules.replaceAll("ADDRESS", `http://127.0.0.1:${port}/reading`);
  project.write(
    "holdpoint.yaml",
    project.read("holdpoint.yaml").replace(/^( +)url: .*$/m, `$&\n$1pause_while: { ${text} }`),
  );
  const pinned = project.run(["env", "pin", "items", "--confirm", "items"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
  return project;
}

const plan = (): string =>
  project.plan("UPDATE item SET state = 'new' WHERE id <= 100", ["--waves", "10,100%"]);
const written = (): number => project.rows("SELECT id FROM item WHERE state = 'new'").length;

describe("an address", () => {
  test("pauses the run while its number is too high or missing, and names the reason each time", async () => {
    waitingFor("queue: { http: ADDRESS, pause_over: 10, stop_over: 1000 }");
    answers = [
      { status: 200, body: "50\n" },
      { status: 500, body: "secret inside" },
      { status: 302, body: "" },
      { status: 200, body: "many" },
      { status: 200, body: "3.5" },
    ];
    const id = plan();
    const done = await project.start(["apply", id]);
    expect(done.status).toBe(0);
    for (const why of [
      "queue is 50, above 10",
      "queue cannot be read: it answered with 500",
      "queue cannot be read: it answered with 302",
      "queue gave no number",
    ])
      expect(done.stderr).toContain(why);
    expect(done.stderr).not.toContain("secret inside");
    expect(written()).toBe(100);
  }, 60_000);

  test("stops the run above its second threshold before anything is written (38)", async () => {
    answers = [{ status: 200, body: "1001" }];
    const before = project.dump();
    const id = project.plan("UPDATE item SET state = 'new' WHERE id > 150");
    const refused = await project.start(["apply", id, "--json"]);
    expect(refused.status).toBe(38);
    expect(JSON.parse(refused.stdout)).toMatchObject({
      target_changed: "no",
      error: { why: expect.stringContaining("queue is 1001, and stops above 1000") as unknown },
    });
    expect(project.dump()).toBe(before);
  });

  test("is enough with 2xx where no number is asked for, and is asked again and again", async () => {
    waitingFor("health: { http: ADDRESS }");
    answers = [
      { status: 503, body: "" },
      { status: 503, body: "" },
      { status: 204, body: "" },
    ];
    asked = 0;
    const id = plan();
    const done = await project.start(["apply", id]);
    expect(done.status).toBe(0);
    expect(done.stderr).toContain("health cannot be read: it answered with 503");
    expect(asked).toBeGreaterThanOrEqual(3);
  });
});

describe("a question in SQL", () => {
  test("pauses the run until the target's own rows say otherwise", async () => {
    waitingFor("backlog: { sql: 'SELECT max(n) FROM backlog', pause_over: 5 }");
    project.raw("UPDATE backlog SET n = 9");
    const id = plan();
    const running = project.start(["apply", id]);
    await new Promise((done) => setTimeout(done, 2_500));
    expect(written()).toBe(0);
    project.raw("UPDATE backlog SET n = 1");
    const done = await running;
    expect(done.status).toBe(0);
    expect(done.stderr).toContain("backlog is 9, above 5");
    expect(written()).toBe(100);
  });

  test("only ever reads; what is no question pauses, and any one reason that stops, stops", () => {
    waitingFor(
      "wrong: { sql: 'DELETE FROM item', pause_over: 1 }, wrong2: { sql: 'SELECT NULL', pause_over: 1 }, full: { sql: 'SELECT 11', pause_over: 1, stop_over: 10 }",
    );
    const before = project.dump();
    const refused = project.json(["apply", plan()]);
    expect(refused).toMatchObject({ exit: { code: 38 }, target_changed: "no" });
    expect(refused.error?.why).toContain("full is 11");
    expect(project.dump()).toBe(before);
  });

  test("the target's own lag is refused by name where the kind of target knows none", () => {
    waitingFor("behind: { lag: own, pause_over: 5 }");
    const before = project.dump();
    const refused = project.json(["apply", plan()]);
    expect(refused).toMatchObject({ error: { code: "ERR_TARGET_UNSUPPORTED" }, target_changed: "no" });
    expect(refused.error?.what).toContain("behind");
    expect(project.dump()).toBe(before);
  });
});
