/** S20 and S30: a merge where a restore would lose five hours of everybody's work, and a flag set for everyone. */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { ALL_WELL, Oracle } from "../support/oracle.js";
import { makeProject, type TestProject } from "../support/project.js";

const numbers = (to: number): string =>
  `(WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < ${to}) SELECT v FROM n)`;

let project: TestProject;
afterAll(() => project.close());

const apply = (plan: string, target: string): void => {
  project.approve(plan);
  const done = project.json(["apply", plan, "--confirm", target]);
  expect(done.error).toBeNull();
};

/** Names whose a row is, which is pinned with the target. */
const pinWithTenant = (target: string, column: string): void => {
  const named = `$&\n$1tenant: [${column}]`;
  project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(/^( +)url: .*$/m, named));
  expect(project.run(["env", "pin", target, "--confirm", target]).status).toBe(0);
};

describe("S20: comments emptied behind the tool's back, five hours of writes after it", () => {
  let oracle: Oracle;
  beforeAll(() => {
    project = makeProject({
      target: "blog-prod",
      pin: false,
      schema: `
        CREATE TABLE posts (id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, title TEXT NOT NULL);
        CREATE TABLE comments (id INTEGER PRIMARY KEY, post INTEGER NOT NULL REFERENCES posts (id) ON DELETE CASCADE, tenant INTEGER NOT NULL, body TEXT NOT NULL);
        INSERT INTO posts SELECT v, v % 10, 'post ' || v FROM ${numbers(50)};
        INSERT INTO comments SELECT v, 1 + v % 50, (1 + v % 50) % 10, 'comment ' || v FROM ${numbers(200)};`,
    });
    pinWithTenant("blog-prod", "comments.tenant");
    expect(project.json(["snapshot", "take", "--on", "blog-prod"]).error).toBeNull();
    oracle = new Oracle(project.database, ["posts", "comments"], 20);
    project.raw("DELETE FROM comments");
    // Without AUTOINCREMENT the ids begin at 1 again: the keys of 24 comments now belong to other comments.
    for (let id = 1; id <= 24; id++)
      oracle.insert("comments", { id, post: 30 + (id % 10), tenant: id % 10, body: `new ${id}` });
    for (let i = 0; i < 40; i++) oracle.set("posts", 10 + oracle.random(40), "title", `edited ${i}`);
    for (let id = 1000; id < 1010; id++)
      oracle.insert("comments", { id, post: 20, tenant: 0, body: "later" });
    // An owner removes a post; its comments were gone already, and must not come back as orphans.
    oracle.remove("posts", 5);
    for (let id = 4; id <= 200; id += 50) if (id > 24) oracle.removedToo("comments", id);
  });

  test("a restore over the newer rows is shown as the destruction that it is, and the merge is offered instead", () => {
    const before = project.dump();
    const [snapshot] = project.json(["snapshot", "list"]).result["snapshots"] as unknown as {
      snapshot: string;
    }[];
    const refused = project.json(["snapshot", "restore", snapshot?.snapshot ?? "", "--over", "blog-prod"]);
    expect(refused).toMatchObject({
      exit: { code: 36 },
      target_changed: "no",
      error: {
        code: "ERR_SNAPSHOT_PLACE",
        next: [{ argv: expect.arrayContaining(["rescue"]) as unknown }, {}],
      },
    });
    // Ten comments have keys of their own; 24 others took keys of comments that were deleted.
    expect(refused.error).toMatchObject({ details: { deleted: 10 } });
    expect(refused.error?.what).toMatch(/would destroy \d+ newer rows: 10 born since .* would be deleted/);
    expect(project.dump()).toBe(before);
    expect(project.json(["snapshot", "restore", snapshot?.snapshot ?? ""])).toMatchObject({
      exit: { code: 2 },
    });
  });

  test("two entities and orphans are listed with their values, the rest is restored; lost 0, resurrected 0", () => {
    const made = project.json([
      "rescue",
      "--on",
      "blog-prod",
      "--table",
      "comments",
      "--damage",
      "deleted",
      "--key",
      "keys/dana",
    ]);
    expect(made.exit.code).toBe(37);
    expect(made.result).toMatchObject({ counts: { put_back: 173, conflict: 27, undecidable: 0, born: 10 } });
    const kinds = (made.result["conflicts"] as unknown as { kind: string }[]).map((c) => c.kind);
    expect(new Set(kinds)).toEqual(new Set(["two-entities", "foreign-key"]));
    // 24 that took a key, and three orphans of tenant 5; largest first.
    const sums = made.result["conflicts_by_tenant"] as unknown as { tenant: number; rows: number }[];
    expect(sums[0]).toEqual({ table: "comments", column: "tenant", tenant: 5, rows: 5 });
    const rows = (tenant: number): number | undefined => sums.find((s) => s.tenant === tenant)?.rows;
    expect([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(rows)).toEqual([2, 3, 3, 3, 3, 5, 2, 2, 2, 2]);
    expect(made.result["resolutions"]).toMatch(/^conflicts-sn_.*\.yaml$/);
    apply(String(made.result["plan"]), "blog-prod");
    expect(oracle.judge()).toEqual(ALL_WELL);
    expect(project.run(["log", "verify"]).status).toBe(0);
    project.close();
  });
});

describe("S30: a permission flag, true for everyone", () => {
  let oracle: Oracle;
  let run: string;
  beforeAll(() => {
    project = makeProject({
      target: "profiles-dev",
      environment: "development",
      pin: false,
      schema: `
        CREATE TABLE profiles (id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, modify_all INTEGER NOT NULL, label TEXT NOT NULL, theme TEXT);
        INSERT INTO profiles SELECT v, 1 + (v - 1) / 50, 0, 'profile ' || v, NULL FROM ${numbers(10_000)};`,
    });
    pinWithTenant("profiles-dev", "profiles.tenant");
    oracle = new Oracle(project.database, ["profiles"], 30);
    const file = project.write(
      "jobs/flag.sql",
      "UPDATE profiles SET modify_all = 1, label = label || '!' WHERE id > 0",
    );
    const made = project.json(["plan", file, "--on", "profiles-dev", "--key", "keys/dana"]);
    const plan = String(made.result["plan"]);
    if (made.result["decision"] !== "allow") project.approve(plan);
    const done = project.json(["apply", plan, "--confirm", "profiles-dev"]);
    expect(done.error).toBeNull();
    run = String(done.result["run"]);
    // Ten tenants change something else, three of others say themselves what the flag is.
    for (let tenant = 1; tenant <= 10; tenant++)
      for (let i = 0; i < 50; i++)
        oracle.set("profiles", (tenant - 1) * 50 + 1 + i, "theme", `dark ${tenant}`);
    for (const tenant of [50, 51, 52]) oracle.set("profiles", tenant * 50, "modify_all", 2);
  });

  test("undo of one column restores the flag elsewhere, keeps ten edits, and lists three", () => {
    const stopped = project.json(["undo", run, "--column", "modify_all"]);
    expect(stopped.exit.code).toBe(37);
    expect(stopped.result).toMatchObject({ counts: { put_back: 9497, merged: 500, conflict: 3 } });
    expect(stopped.result["conflicts"]).toHaveLength(3);
    expect(stopped.result["conflicts_by_tenant"]).toEqual([
      { table: "profiles", column: "tenant", tenant: 50, rows: 1 },
      { table: "profiles", column: "tenant", tenant: 51, rows: 1 },
      { table: "profiles", column: "tenant", tenant: 52, rows: 1 },
    ]);
    expect(project.run(["undo", run, "--column", "modify_all"]).stdout).toMatch(
      /CONFLICTS BY TENANT *\n +1 +profiles +tenant 50 *\n +1 +profiles +tenant 51 *\n/,
    );
    const undone = project.json([
      "undo",
      run,
      "--column",
      "modify_all",
      "--on-conflict",
      "keep-now",
      "--key",
      "keys/dana",
      "--confirm",
      "profiles-dev",
    ]);
    if (undone.result["run"] === null) apply(String(undone.result["plan"]), "profiles-dev");
    expect(project.rows("SELECT modify_all AS m, count(*) AS n FROM profiles GROUP BY m ORDER BY m")).toEqual(
      [
        { m: 0, n: 9997 },
        { m: 2, n: 3 },
      ],
    );
    // The other column that the run wrote was not asked for, and stays.
    expect(project.rows("SELECT count(*) AS n FROM profiles WHERE label LIKE '%!'")).toEqual([{ n: 10_000 }]);
    expect(oracle.judge()).toMatchObject({ lost: [], resurrected: [], strangers: [] });
    expect(project.run(["log", "verify"]).status).toBe(0);
  });
});
