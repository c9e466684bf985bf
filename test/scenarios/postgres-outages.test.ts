/**
 * What was done behind holdpoint's back on PostgreSQL, and rescued without losing a write: S01 and S02 (the load balancers),
 * S06 (the empty half hour), S20 (merge, not rollback).
 */
import { afterEach, beforeAll, expect, test } from "@jest/globals";
import { onPostgres } from "../support/on-postgres.js";
import { ALL_WELL } from "../support/oracle.js";
import type { TestServer } from "../support/postgres.js";
import { openOracle, type PostgresOracle } from "../support/postgres-oracle.js";
import { column, makePostgresProject, type PostgresProjectOptions } from "../support/postgres-project.js";
import { dumpPostgres } from "../support/postgres-target.js";
import type { Document, TestProject } from "../support/project.js";
import { DAMAGED_AT, JOB } from "./elb.js";

const ELB = `
  CREATE TABLE balancers (id integer PRIMARY KEY, name text NOT NULL);
  CREATE TABLE back_ends (id integer PRIMARY KEY, balancer integer NOT NULL REFERENCES balancers ON DELETE CASCADE,
    weight integer NOT NULL, deleted_at timestamptz);
  INSERT INTO balancers SELECT i, 'lb ' || i FROM generate_series(1, 1000) i;
  INSERT INTO back_ends SELECT i, 1 + (i - 1) / 5, 10, NULL FROM generate_series(1, 5000) i;`;

onPostgres("outages", "first", (servers) => {
  let server: TestServer;
  let url: string;
  let project: TestProject;
  let oracle: PostgresOracle;

  beforeAll(() => {
    server = servers();
  });
  afterEach(async () => {
    await oracle.close();
    project.close();
  });

  async function begin(
    schema: string,
    tables: readonly string[],
    options: PostgresProjectOptions,
    checks = "",
  ): Promise<void> {
    url = await server.freshDatabase();
    await server.exec(url, schema);
    project = makePostgresProject(url, { ...options, pin: false });
    // Whatever is declared of the target stands beside its url, as deep.
    const declared = checks === "" ? "$&" : `$&\n$1${checks}`;
    project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(/^( +)url: .*$/m, declared));
    const target = options.target ?? "shop-prod";
    expect(project.run(["env", "pin", target, "--confirm", target]).status).toBe(0);
    expect(project.json(["snapshot", "take", "--on", target]).error).toBeNull();
    oracle = await openOracle(url, tables, 20121224);
  }
  const rescue = (target: string, ...more: readonly string[]): Document =>
    project.json(["rescue", "--on", target, "--key", "keys/dana", ...more]);
  const apply = (plan: string, target: string, reason?: string): Document => {
    project.approve(plan, "ravi", reason === undefined ? [] : ["--reason", reason]);
    return project.json(["apply", plan, "--confirm", target]);
  };
  async function allWell(): Promise<void> {
    expect(await oracle.judge()).toEqual(ALL_WELL);
    expect(project.run(["log", "verify"]).status).toBe(0);
  }

  test("S01: blocked at the gate; done raw, what is certain comes back, what is not is listed; lost 0, resurrected 0", async () => {
    await begin(ELB, ["balancers", "back_ends"], { target: "elb-prod" });
    const before = await dumpPostgres(url);
    const file = project.write("jobs/purge.sql", JOB);
    const made = project.json(["plan", file, "--on", "elb-prod", "--key", "keys/dana"]);
    expect(made.result).toMatchObject({
      effect: { rows: 340, tables: [{ table: "back_ends", insert: 0, update: 340, delete: 0 }] },
    });
    const refused = project.json(["apply", String(made.result["plan"]), "--confirm", "elb-prod"]);
    expect([refused.exit.code, refused.target_changed]).toEqual([21, "no"]);
    expect(await dumpPostgres(url)).toBe(before);

    await oracle.raw(JOB);
    for (let i = 1; i <= 40; i++) await oracle.insert("balancers", { id: 1000 + i, name: `new ${i}` });
    for (let i = 0; i < 200; i++) await oracle.set("back_ends", 341 + oracle.random(4660), "weight", 100 + i);
    for (let i = 0; i < 12; i++) await oracle.set("back_ends", 30 + i * 3, "weight", 1000 + i);
    // Their owners really retired these three: what the damage wrote is gone, and nobody may guess.
    for (let i = 0; i < 3; i++)
      await oracle.set("back_ends", 100 + i, "deleted_at", "2012-12-24T21:00:00+00:00");
    for (let balancer = 1; balancer <= 5; balancer++) {
      await oracle.remove("balancers", balancer);
      for (let i = 1; i <= 5; i++) oracle.removedToo("back_ends", String((balancer - 1) * 5 + i));
    }
    const who = project.json(["log", "who", "--on", "elb-prod", "--table", "back_ends", "--key", "200"]);
    expect(who.result).toMatchObject({ runs: [], now: { id: 200 } });

    const rescued = rescue("elb-prod", "--damage", `deleted_at = '${DAMAGED_CELL}'`);
    expect(rescued.error?.code).toBe("ERR_RESCUE_CONFLICT");
    expect(rescued.result).toMatchObject({
      counts: { put_back: 300, merged: 12, conflict: 3, undecidable: 0, removed: 30, born: 40 },
    });
    expect(apply(String(rescued.result["plan"]), "elb-prod").result).toMatchObject({
      rows: { planned: 312, written: 312 },
    });
    await allWell();
  });

  test("S02: back in waves; the probe fails in the second, which is put back, and resume completes", async () => {
    await begin(
      ELB,
      ["balancers", "back_ends"],
      { target: "elb-prod" },
      "checks: { probe: { command: [node, probe.mjs] } }",
    );
    const probe = (fails: number): string =>
      project.write("probe.mjs", `process.exit(process.env.HOLDPOINT_WAVE === "${fails}" ? 7 : 0);`);
    await oracle.raw(JOB);
    for (let i = 0; i < 60; i++) await oracle.set("back_ends", 1 + oracle.random(5000), "weight", 100 + i);
    await oracle.remove("balancers", 66);
    for (let id = 326; id <= 330; id++) oracle.removedToo("back_ends", String(id));
    const made = rescue(
      "elb-prod",
      "--damage",
      `deleted_at = '${DAMAGED_CELL}'`,
      "--waves",
      "balancer:1,8,100%",
      "--put-back",
    );
    expect(made.error).toBeNull();
    const plan = String(made.result["plan"]);
    probe(2);
    expect(apply(plan, "elb-prod")).toMatchObject({
      exit: { code: 41 },
      error: { code: "ERR_CHECK_PUT_BACK" },
      target_changed: "partly",
    });
    expect(
      await column(
        url,
        "SELECT DISTINCT balancer FROM back_ends WHERE balancer <= 68 AND deleted_at IS NULL",
      ),
    ).toEqual(["1"]);
    probe(0);
    await oracle.set("back_ends", 900, "weight", 4242);
    expect(project.json(["apply", plan, "--confirm", "elb-prod"]).result).toMatchObject({
      resumed: true,
      waves: 3,
      rows: { planned: 335, written: 335 },
    });
    await allWell();
  });

  test("S06: users truncated, thirty sign up again: 500 back, nobody overwritten, ids never given out twice", async () => {
    await begin(
      `CREATE TABLE users (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, email text NOT NULL UNIQUE, name text);
       INSERT INTO users (email, name) SELECT 'u' || i || '@site.example', 'user ' || i FROM generate_series(1, 500) i;`,
      ["users"],
      { target: "site-prod" },
    );
    // RESTART IDENTITY is what makes the ids of others come again.
    await oracle.raw("TRUNCATE users RESTART IDENTITY");
    for (let i = 1; i <= 30; i++)
      await oracle.insert("users", { email: `u${i + 100}@site.example`, name: "again" });
    const made = rescue("site-prod", "--damage", "deleted", "--born", "born.txt");
    expect(made.exit.code).toBe(37);
    const conflicts = made.result["conflicts"] as unknown as { kind: string; key: string[] }[];
    // Thirty ids belong to somebody else now, and the e-mail addresses of thirty other rows do.
    const rows = new Map(conflicts.map((c) => [JSON.stringify(c.key), c.kind]));
    expect([...rows.values()].sort()).toEqual([
      ...Array.from({ length: 30 }, () => "constraint"),
      ...Array.from({ length: 30 }, () => "two-entities"),
    ]);
    expect(made.result).toMatchObject({ counts: { put_back: 440 } });
    expect(apply(String(made.result["plan"]), "site-prod").error).toBeNull();
    for (let i = 101; i <= 130; i++) oracle.excuse("users", String(i));
    for (let id = 1; id <= 30; id++) oracle.excuse("users", String(id));
    const judged = await oracle.judge();
    expect(judged).toMatchObject({ lost: [], resurrected: [], strangers: [], orphans: 0 });
    expect(await column(url, "SELECT count(*) FROM users")).toEqual(["470"]);
    // The next id is greater than every one that was ever given out.
    await oracle.insert("users", { email: "next@site.example", name: "next" });
    expect(Number((await column(url, "SELECT max(id) FROM users WHERE name = 'next'"))[0])).toBeGreaterThan(
      500,
    );
    expect(project.run(["log", "verify"]).status).toBe(0);
  });

  test("more than 10,000 rows: rescue and undo are tried before they are signed, and then work", async () => {
    await begin(
      `CREATE TABLE users (id integer PRIMARY KEY, email text NOT NULL UNIQUE, name text);
       INSERT INTO users SELECT i, 'u' || i || '@site.example', 'user ' || i FROM generate_series(1, 10100) i;`,
      ["users"],
      { target: "site-prod" },
    );
    const before = await dumpPostgres(url);
    await oracle.raw("DELETE FROM users");
    await oracle.raw("INSERT INTO users VALUES (99999, 'u10050@site.example', 'again')");
    const made = rescue("site-prod", "--damage", "deleted");
    expect(made.error?.code).toBe("ERR_RESCUE_CONFLICT");
    expect(made.result["conflicts"]).toMatchObject([{ kind: "constraint", key: { id: 10050 } }]);
    expect(made.result).toMatchObject({ counts: { put_back: 10_099 } });
    expect(apply(String(made.result["plan"]), "site-prod").result).toMatchObject({
      rows: { planned: 10_099, written: 10_099 },
    });
    await oracle.raw("DELETE FROM users WHERE id = 99999");
    await oracle.raw("INSERT INTO users VALUES (10050, 'u10050@site.example', 'user 10050')");
    expect(await dumpPostgres(url)).toBe(before);

    const file = project.write("jobs/rename.sql", "UPDATE users SET email = 'x' || email;");
    const planned = project.json(["plan", file, "--on", "site-prod", "--key", "keys/dana"]);
    expect(planned.error).toBeNull();
    const run = String(apply(String(planned.result["plan"]), "site-prod", "all of them").result["run"]);
    await oracle.raw("INSERT INTO users VALUES (99999, 'u10050@site.example', 'again')");
    const undo = (): Document => project.json(["undo", run, "--key", "keys/dana"]);
    const refused = undo();
    expect([refused.error?.code, refused.target_changed]).toEqual(["ERR_UNDO_CONFLICT", "no"]);
    expect(JSON.stringify(refused)).toContain("10050");
    await oracle.raw("DELETE FROM users WHERE id = 99999");
    expect(apply(String(undo().result["plan"]), "site-prod", "back again").error).toBeNull();
    expect(await dumpPostgres(url)).toBe(before);
    expect(project.run(["log", "verify"]).status).toBe(0);
  }, 300_000);

  test("S20: comments truncated with their parent, five hours of writes by all: merged, not rolled back", async () => {
    await begin(
      `CREATE TABLE posts (id integer PRIMARY KEY, tenant integer NOT NULL, title text NOT NULL);
       CREATE TABLE labels (id integer PRIMARY KEY);
       CREATE TABLE comments (id integer PRIMARY KEY, post integer NOT NULL REFERENCES posts ON DELETE CASCADE,
         tenant integer NOT NULL, label integer REFERENCES labels, body text NOT NULL);
       INSERT INTO posts SELECT i, i % 10, 'post ' || i FROM generate_series(1, 50) i;
       INSERT INTO comments SELECT i, 1 + i % 50, (1 + i % 50) % 10, NULL, 'comment ' || i FROM generate_series(1, 200) i;`,
      ["posts", "comments"],
      { target: "blog-prod" },
      "tenant: [comments.tenant]",
    );
    await oracle.raw("TRUNCATE labels CASCADE");
    for (let id = 1; id <= 24; id++)
      await oracle.insert("comments", { id, post: 30 + (id % 10), tenant: id % 10, body: `new ${id}` });
    for (let i = 0; i < 40; i++) await oracle.set("posts", 10 + oracle.random(40), "title", `edited ${i}`);
    for (let id = 1000; id < 1010; id++)
      await oracle.insert("comments", { id, post: 20, tenant: 0, body: "later" });
    // An owner removes a post; its comments were gone already, and must not come back as orphans.
    await oracle.remove("posts", 5);
    for (let id = 4; id <= 200; id += 50) if (id > 24) oracle.removedToo("comments", String(id));
    const made = rescue("blog-prod", "--table", "comments", "--damage", "deleted");
    if (made.result === null) throw new Error(JSON.stringify(made));
    expect(made.error).toMatchObject({ code: "ERR_RESCUE_CONFLICT" });
    expect(made.result).toMatchObject({ counts: { put_back: 173, conflict: 27, undecidable: 0, born: 10 } });
    const kinds = (made.result["conflicts"] as unknown as { kind: string }[]).map((c) => c.kind);
    expect(new Set(kinds)).toEqual(new Set(["two-entities", "foreign-key"]));
    // 24 that took a key, and three orphans of tenant 5; largest first.
    const sums = made.result["conflicts_by_tenant"] as unknown as { tenant: number; rows: number }[];
    expect(sums[0]).toEqual({ table: "comments", column: "tenant", tenant: 5, rows: 5 });
    const rows = (tenant: number): number | undefined => sums.find((s) => s.tenant === tenant)?.rows;
    expect([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(rows)).toEqual([2, 3, 3, 3, 3, 5, 2, 2, 2, 2]);
    expect(apply(String(made.result["plan"]), "blog-prod").error).toBeNull();
    await allWell();
  });
});

/** The instant as PostgreSQL words it under holdpoint's fixed settings. */
const DAMAGED_CELL = DAMAGED_AT.replace("T", " ").replace("Z", "+00");
