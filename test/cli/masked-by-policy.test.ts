/** `mask:` of a policy: columns that nobody sees, whatever the configuration of a target says. */
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { jsonHere, runHere } from "../support/here.js";
import { makeProject, type TestProject } from "../support/project.js";

const SECRET = "noether@example.net";
let project: TestProject;
const policy = (text: string): string =>
  project.write(
    "policies/privacy.yaml",
    `format: holdpoint-policy/1\nname: privacy\nenvironments: [production]\n${text}`,
  );
beforeAll(() => {
  project = makeProject({
    schema: `CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT NOT NULL, name TEXT);
      INSERT INTO people VALUES (1, '${SECRET}', 'a'), (2, '${SECRET}', 'b');`,
    pin: false,
  });
  policy("mask: [people.email]\n");
  project.write("jobs/gone.sql", "DELETE FROM people WHERE id = 1");
  const pinned = project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
});
afterAll(() => project.close());

const PLAN = ["plan", "jobs/gone.sql", "--on", "shop-prod", "--key", "keys/dana"];

test("its values stand on no screen and in no document", async () => {
  const made = await runHere(project, PLAN);
  expect(made.status).toBe(0);
  expect(made.stdout).toContain("people");
  const [id = ""] = /pl_[0-9a-z]+/.exec(made.stdout) ?? [];
  const rows = await runHere(project, ["show", id, "--rows"]);
  const json = await runHere(project, ["show", id, "--rows", "--json"]);
  for (const said of [made, rows, json]) expect(`${said.stdout}${said.stderr}`).not.toContain(SECRET);
  expect(rows.stdout).toContain("····");
});

test("a sum of it is refused (2), and a policy that is off masks nothing", async () => {
  const config = project.read("holdpoint.yaml");
  project.write("holdpoint.yaml", config.replace(/^( +)url: .*$/m, "$&\n$1sums: { people.email: x }"));
  const summed = await jsonHere(project, PLAN);
  expect(summed).toMatchObject({
    exit: { code: 2 },
    error: { code: "ERR_CONFIG_INVALID", why: "the sum of one row is its value" },
  });
  project.write("holdpoint.yaml", config);
  policy("enabled: false\nmask: [people.email]\n");
  // Another bundle than the pinned one, so only reading is left; that shows what is masked.
  const [id = ""] = /pl_[0-9a-z]+/.exec((await runHere(project, ["status"])).stdout) ?? [];
  expect((await runHere(project, ["show", id, "--rows"])).stdout).toContain(SECRET);
});

test.each([
  ["no table", "mask: [email]", /wants table\.column/],
  ["twice the same", "mask: [people.email, people.email]", /people\.email/],
])("a mask with %s is refused with its place", async (_, text, why) => {
  policy(`${text}\n`);
  const refused = await jsonHere(project, PLAN);
  expect([refused.exit.code, refused.error?.code]).toEqual([2, "ERR_POLICY_INVALID"]);
  expect(`${refused.error?.what} ${refused.error?.why ?? ""}`).toMatch(why);
});
