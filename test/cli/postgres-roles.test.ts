/**
 * Two roles on PostgreSQL: the statements of docs/postgres.md, given to fresh roles as they stand there, are enough for the
 * whole road, and each of them is needed: without it doctor names it, and the command that needs it refuses.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "@jest/globals";
import { codeOf, messageOf } from "../../src/base/errors.js";
import { digestOf } from "../../src/base/digest.js";
import { doctor, type DoctorFinding } from "../../src/operations/doctor.js";
import { applyPlan, type Applied } from "../../src/operations/apply.js";
import { checkEnvironment } from "../../src/operations/env.js";
import { makePlan } from "../../src/operations/plan.js";
import { type PlanMade } from "../../src/operations/planning/seal-plan.js";
import { onPostgres } from "../support/on-postgres.js";
import { startServer, type TestServer } from "../support/postgres.js";
import { makePostgresProject } from "../support/postgres-project.js";
import { dumpPostgres } from "../support/postgres-target.js";
import { sign, type TestProject } from "../support/project.js";
import { withTools } from "../support/wired.js";

const SHOP = `
  CREATE TABLE orders (id serial PRIMARY KEY, status text NOT NULL);
  CREATE TABLE lines (id integer PRIMARY KEY, order_id integer REFERENCES orders ON DELETE CASCADE, amount integer);
  CREATE FUNCTION look_at() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
  CREATE TRIGGER watch BEFORE UPDATE ON lines FOR EACH ROW EXECUTE FUNCTION look_at();
  INSERT INTO orders (status) SELECT 'paid' FROM generate_series(1, 40);
  INSERT INTO lines SELECT i, i, 5 FROM generate_series(1, 40) i;`;

const JOB =
  "DELETE FROM orders WHERE id <= 3;\nINSERT INTO orders (status) VALUES ('new');\nUPDATE lines SET amount = 6 WHERE id = 10;\n";
const EVERYBODY = "REVOKE ALL ON DATABASE shop FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC";

/** The statements of the page's block with that first line. */
function statementsOf(title: string): readonly string[] {
  const page = readFileSync(join(import.meta.dirname, "../../../docs/postgres.md"), "utf8");
  const block = new RegExp(`\`\`\`sql\\n-- ${title}\\b[^\\n]*\\n([^\`]*)\`\`\``).exec(page)?.[1] ?? "";
  const found = block.split("\n").filter((line) => line !== "");
  if (found.length === 0) throw new Error(`docs/postgres.md has no block ${title}`);
  return found;
}

onPostgres("the roles of docs/postgres.md", "first", () => {
  let server: TestServer;
  let admin: string;
  let planner: string;
  let writer: string;
  let project: TestProject;

  beforeAll(async () => {
    // Of its own, because roles and a database of these very names must not meet those of other files.
    server = await startServer();
  });
  afterAll(async () => {
    await server?.stop();
  });
  beforeEach(async () => {
    await server.exec(server.url("postgres"), "CREATE DATABASE shop");
    [admin, planner, writer] = [
      server.url("shop"),
      server.url("shop", "hp_plan"),
      server.url("shop", "hp_write"),
    ];
    await server.exec(admin, SHOP, "CREATE ROLE hp_plan LOGIN", "CREATE ROLE hp_write LOGIN");
    project = makePostgresProject(admin, { configure: declare });
    configure((text) => text.replace(`url: ${admin}`, "url: ${WRITE_URL}"));
  });
  afterEach(async () => {
    project.close();
    await server.exec(
      server.url("postgres"),
      "DROP DATABASE shop WITH (FORCE)",
      "DROP OWNED BY hp_plan, hp_write",
      "DROP ROLE hp_plan",
      "DROP ROLE hp_write",
    );
  });

  /** Pinned with everything that guards: only the address of who writes is put in afterwards. */
  function declare(made: TestProject, more = ""): void {
    const jobs = "jobs:\n  tidy:\n    sql: jobs/tidy.sql\n    scope: [orders, lines]\n";
    const text = made.read("holdpoint.yaml").replace(/^jobs:\n/m, jobs);
    made.write("jobs/tidy.sql", JOB);
    made.write("holdpoint.yaml", text.replace(/^( +)url: .*$/m, `$&\n$1plan_url: \${PLAN_URL}${more}`));
  }
  function configure(change: (text: string) => string): void {
    project.write("holdpoint.yaml", change(project.read("holdpoint.yaml")));
  }

  const both = (): Record<string, string> => ({ PLAN_URL: planner, WRITE_URL: writer });
  const granted = async (left?: string): Promise<void> => {
    const all = ["look", "rehearse", "write"].flatMap(statementsOf);
    await server.exec(admin, EVERYBODY, ...all.filter((s) => s !== left));
  };
  const look = (env = both()): Promise<readonly DoctorFinding[]> =>
    withTools(project.dir, (tools) => doctor(tools, tools.probe, "shop-prod"), env);
  test("they are enough for plan, approve, apply and undo, and each connection is used for its own part", async () => {
    await granted();
    expect((await look()).filter((f) => f.check === "role" && f.level === "stop")).toEqual([]);
    const before = await dumpPostgres(admin);
    // Who plans and approves has no login that writes, and who writes none that plans.
    const planning = { env: { PLAN_URL: planner } };
    const writing = { env: { WRITE_URL: writer } };
    const made = project.json(["plan", "tidy", "--on", "shop-prod", "--key", "keys/dana"], planning);
    expect(made.error).toBeNull();
    const id = String(made.result["plan"]);
    const approve = (ref: string): string => {
      const prepared = project.run(["approve", ref, "--prepare", `${ref}.txt`, "--as", "ravi"], planning);
      // The rows were read again over the connection that plans.
      expect([prepared.status, prepared.stderr]).toEqual([
        0,
        expect.not.stringContaining("could not be reached"),
      ]);
      sign(join(project.dir, "keys", "ravi"), "holdpoint-approval", join(project.dir, `${ref}.txt`));
      const signed = ["approve", ref, "--prepared", `${ref}.txt`, "--signature", `${ref}.txt.sig`];
      return project.write(`${ref}.token`, String(project.json(signed, planning).result["token"]));
    };
    const apply = (ref: string): ReturnType<TestProject["json"]> =>
      project.json(["apply", ref, "--approval", approve(ref), "--confirm", "shop-prod"], writing);
    const applied = apply(id);
    expect([applied.error, applied.result["rows"]]).toMatchObject([null, { planned: 8, written: 8 }]);
    const undone = project.json(["undo", String(applied.result["run"]), "--key", "keys/dana"], planning);
    expect(undone.exit.code).toBe(21);
    const back = apply(String(undone.result["plan"]));
    expect(back.error).toBeNull();
    expect(await dumpPostgres(admin)).toBe(before);
  });

  const plan = (env = both()): Promise<PlanMade> =>
    withTools(
      project.dir,
      async (tools) =>
        await makePlan(tools, {
          on: "shop-prod",
          job: await tools.prepareJob("shop-prod", { kind: "job", job: "tidy" }, []),
          reason: null,
          ticket: null,
          key: join(project.dir, "keys/dana"),
          out: undefined,
        }),
      env,
    );
  const apply = (ref: string): Promise<Applied> =>
    withTools(
      project.dir,
      (tools) => applyPlan(tools, { ref, tokens: [], dryRun: false, confirm: async () => undefined }),
      both(),
    );
  const marks = (): Promise<unknown> =>
    withTools(
      project.dir,
      async (tools) => {
        const { target } = await tools.openTarget("shop-prod");
        const reads = [
          target.spentFor(digestOf(new Uint8Array())),
          target.batches("rn_stopped"),
          target.notes(),
        ];
        try {
          return await Promise.all(reads);
        } finally {
          await target.close();
        }
      },
      both(),
    );
  const roleStops = async (): Promise<readonly DoctorFinding[]> =>
    (await look()).filter((f) => f.check === "role" && f.level === "stop");

  /** Takes one statement's privileges away, asks doctor and runs the command, and gives what doctor asks for: the next one finds nothing else missing. */
  async function without(statement: string, command: () => Promise<unknown>): Promise<void> {
    const role = /TO (hp_\w+);/.exec(statement)?.[1] ?? "";
    await server.exec(admin, statement.replace("GRANT", "REVOKE").replace(" TO ", " FROM "));
    const found = await roleStops();
    const ended = await command().then(
      () => "done",
      (e: unknown) => codeOf(e),
    );
    const asks = found.flatMap((f) => f.todo.map((t) => t.text ?? ""));
    expect([statement, asks, ended]).toEqual([statement, [expect.any(String)], "ERR_TARGET_PRIVILEGE"]);
    expect(`${found[0]?.what ?? ""} ${asks[0] ?? ""}`).toContain(role);
    await server.exec(admin, (asks[0] ?? "").replace(/^Ask for: /, ""));
  }

  test("each of them is needed: without it doctor says which one to ask for, and the command refuses", async () => {
    await granted();
    const planning = ["look", "rehearse"].flatMap(statementsOf);
    // What was spent is read when a plan is approved, marks of batches when a run that stopped part way is taken back.
    for (const statement of planning)
      await without(statement, /_(spent|batches|notes)/.test(statement) ? marks : plan);
    const made = await plan();
    project.approve(made.id);
    for (const statement of statementsOf("write")) await without(statement, () => apply(made.id));
    expect(await roleStops()).toEqual([]);
    expect((await apply(made.id)).rows).toMatchObject({ planned: 8, written: 8 });
  });

  test("a job that empties a table or changes its schema asks for more, by its own statements", async () => {
    await granted();
    await server.exec(admin, "CREATE ROLE shop_owner", "ALTER TABLE orders OWNER TO shop_owner");
    try {
      for (const [job, grant] of [
        ["TRUNCATE lines;\n", 'GRANT TRUNCATE ON "public"."lines"'],
        ["ALTER TABLE public.orders ADD COLUMN note text;\n", 'GRANT "shop_owner"'],
      ] as const) {
        project.write("jobs/tidy.sql", job);
        const found = await roleStops();
        const asks = found.flatMap((f) => f.todo.map((t) => (t.text ?? "").replace("Ask for: ", "")));
        expect(asks).toEqual([`${grant} TO "hp_plan";`, `${grant} TO "hp_write";`]);
        await expect(plan()).rejects.toMatchObject({ code: "ERR_TARGET_PRIVILEGE" });
        await server.exec(admin, ...asks);
        expect(await roleStops()).toEqual([]);
        expect((await plan()).id).toMatch(/^pl_/);
      }
    } finally {
      await server.exec(admin, "REASSIGN OWNED BY shop_owner TO postgres", "DROP ROLE shop_owner");
    }
  });

  test("what a rehearsal goes better with is a LOOK, with the statement", async () => {
    await granted();
    const asks = async (): Promise<readonly (string | undefined)[]> =>
      (await look()).filter((f) => f.check === "role" && f.level === "look").map((f) => f.todo[0]?.text);
    const page = statementsOf("rehearse, better");
    expect(page).toHaveLength(4);
    const missing = (await asks()).join(" ").replaceAll('"', "");
    for (const statement of page) expect(missing).toContain(statement.replace("IF NOT EXISTS ", ""));
    await server.exec(admin, ...page);
    // Moving a sequence on is needed by some plans only.
    expect(await asks()).toEqual(['GRANT UPDATE ON SEQUENCE "public"."orders_id_seq" TO "hp_write";']);
  });

  test("a plan warns of rights that its role does not need; in place it needs those of its jobs", async () => {
    await granted();
    const warning = async (env = both()): Promise<string> =>
      (await plan(env)).statement.notices.filter((n) => n.startsWith("planned as")).join();
    expect(await warning()).toBe("");
    await server.exec(admin, "GRANT INSERT ON holdpoint_spent TO hp_plan");
    expect(await warning()).toMatch(
      /^planned as hp_plan, which could write without need: it may write public.holdpoint_spent;/,
    );
    expect(await warning({ PLAN_URL: admin, WRITE_URL: writer })).toMatch(/it is a superuser/);
    const same = (await look({ PLAN_URL: writer, WRITE_URL: writer })).map((f) => f.what).join("; ");
    expect(same).toContain("by the same role, hp_write: nothing is kept apart");
  });

  test("where jobs are rehearsed on a clone, a role that can write here is warned of, and looking is enough", async () => {
    await server.exec(server.url("postgres"), "CREATE DATABASE clone TEMPLATE shop");
    try {
      const marks = ["marker", "spent", "batches", "notes", "ledgers"].map((name) => `holdpoint_${name}`);
      await server.exec(admin, `DROP TABLE ${marks.join(", ")}`);
      project.close();
      project = makePostgresProject(admin, {
        configure: (made) => {
          declare(made, "\n    rehearse_on: clone");
          const clone = `targets:\n  clone:\n    url: ${server.url("clone")}\n`;
          made.write("holdpoint.yaml", made.read("holdpoint.yaml").replace("targets:\n", clone));
        },
      });
      await server.exec(admin, EVERYBODY, ...statementsOf("look"));
      const planning = { PLAN_URL: planner };
      const notices = async (): Promise<string> => (await plan(planning)).statement.notices.join();
      expect(await notices()).not.toContain("without need");
      expect((await look(planning)).filter((f) => f.what.startsWith("hp_plan") && f.level !== "ok")).toEqual(
        [],
      );
      await server.exec(admin, "GRANT UPDATE ON lines TO hp_plan");
      expect(await notices()).toContain("it may write public.lines; jobs are rehearsed on clone");
    } finally {
      await server.exec(server.url("postgres"), "DROP DATABASE clone WITH (FORCE)");
    }
  });

  test("two addresses that lead to different places are refused from both sides", async () => {
    await granted();
    await server.exec(server.url("postgres"), "CREATE DATABASE other TEMPLATE shop");
    try {
      const elsewhere = { PLAN_URL: server.url("other", "hp_write"), WRITE_URL: writer };
      const checked = await withTools(
        project.dir,
        (tools) => checkEnvironment(tools, "shop-prod", null),
        elsewhere,
      );
      expect(checked.examined.verdict.contradicted).toBe(true);
      expect(await plan(elsewhere).catch(codeOf)).toBe("ERR_ENV_CONTRADICTED");
      const made = await plan();
      project.approve(made.id);
      // The side that writes is the pinned one: the other one alone is wrong.
      const applying = withTools(
        project.dir,
        (tools) =>
          applyPlan(tools, { ref: made.id, tokens: [], dryRun: false, confirm: async () => undefined }),
        elsewhere,
      );
      expect(await applying.catch(codeOf)).toBe("ERR_ENV_CONTRADICTED");
      const evidence = await withTools(
        project.dir,
        async (tools) => (await checkEnvironment(tools, "shop-prod", null)).examined.verdict.evidence,
        { PLAN_URL: planner },
      );
      expect(evidence.find((e) => e.source === "url")).toMatchObject({
        state: "informs",
        detail: expect.stringContaining("the variable WRITE_URL is not set"),
      });
    } finally {
      await server.exec(server.url("postgres"), "DROP DATABASE other WITH (FORCE)");
    }
  });

  test("a machine without the variable of the connection that plans is told which key needs it", async () => {
    const told = await plan({ WRITE_URL: writer }).catch((e: unknown) => e);
    expect(codeOf(told)).toBe("ERR_CONFIG_VARIABLE");
    expect(messageOf(told)).toContain("the plan_url of shop-prod needs it");
  });
});
