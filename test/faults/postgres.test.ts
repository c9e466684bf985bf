/**
 * Whatever happens to a run on PostgreSQL, running `apply` again ends in the state of an unbroken run: the client killed
 * after everything that it wrote, its sessions ended by the server, the server crashed and recovered between the steps and
 * right before a commit, a statement refused, an answer lost together with the line. Afterwards the ledger verifies, the
 * approval cannot be used again, and what a failed run said about the target was true.
 *
 * A sample runs always; `HOLDPOINT_FAULTS=all npm test -- test/faults` takes every one.
 */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { diskState } from "../support/disk-state.js";
import type { Counted, Fault, FaultReport } from "../support/fault.js";
import {
  ASKED_FOR_MORE,
  chosen,
  chosenOf,
  each,
  PATIENCE_MS,
  restoreStore,
  saveStore,
  Sufferer,
} from "../support/faults.js";
import { onPostgres } from "../support/on-postgres.js";
import { connect, startServer, type TestServer } from "../support/postgres.js";
import { makePostgresProject } from "../support/postgres-project.js";
import { dumpPostgres } from "../support/postgres-target.js";
import type { TestProject } from "../support/project.js";

const SCHEMA = `
  CREATE TABLE item (id serial PRIMARY KEY, state text NOT NULL);
  CREATE TABLE trail (id serial PRIMARY KEY, item integer NOT NULL);
  CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO trail (item) VALUES (NEW.id); RETURN NULL; END $$;
  CREATE TRIGGER watch AFTER UPDATE ON item FOR EACH ROW EXECUTE FUNCTION note();
  INSERT INTO item (state) SELECT 'old' FROM generate_series(1, 30);`;
const JOB =
  "DELETE FROM item WHERE id > 25; UPDATE item SET state = 'new' WHERE id <= 15; INSERT INTO item (state) VALUES ('born');";
const WAVES = ["--waves", "3,12,100%"];
/** What the script makes; taken away before each of its runs. */
const SCRIPT =
  "CREATE TABLE born (id integer PRIMARY KEY, name text); UPDATE item SET state = 'x' WHERE id < 9;";

/** What goes wrong, and which of the things that are counted it happens to. */
const KINDS: ReadonlyMap<Fault["kind"], readonly [string, keyof Counted]> = new Map([
  ["end-sessions", ["the server ends the sessions before a step", "steps"]],
  ["crash-server", ["the server crashes before a step", "steps"]],
  ["fail-sql", ["a statement fails", "sql"]],
  ["lose-sql", ["a statement's answer is lost with the line", "sql"]],
  ["disk-full", ["the client's disk is full", "files"]],
  ["lose-commit", ["a commit's answer is lost with the line", "commits"]],
]);

onPostgres("faults on PostgreSQL", "first", () => {
  let server: TestServer;
  let url: string;
  let project: TestProject;
  let sufferer: Sufferer;

  beforeAll(async () => {
    server = await startServer();
  });
  afterAll(async () => {
    await server?.stop();
  });

  /** Brings the project to the state from which every faulty run starts, and gives the plan that is run. */
  type Begin = () => Promise<string>;

  const planned =
    (flags: readonly string[], job = JOB): Begin =>
    async () => {
      const plan = project.plan(job, flags);
      project.approve(plan);
      return plan;
    };

  /** Killed after its first wave: what is tried is going on with it. */
  const begun: Begin = async () => {
    const plan = await planned(WAVES)();
    const before = await dumpPostgres(url);
    for (let at = 56; (await dumpPostgres(url)) === before; at += 4) {
      if ((await sufferer.run({ kind: "apply", plan }, { kind: "kill-step", at })) !== null)
        throw new Error("it ended");
      await untilGone(url);
    }
    return plan;
  };

  /** The undo of a whole run, planned and approved. */
  const undone: Begin = async () => {
    const done = project.json(["apply", await planned(WAVES)(), "--confirm", "shop-prod"]);
    if (!done.ok) throw new Error(JSON.stringify(done.error));
    const back = project.json(["undo", String(done.result["run"]), "--key", "keys/dana"]);
    const plan = String(back.result["plan"]);
    project.approve(plan);
    return plan;
  };

  describe.each<readonly [string, Begin, readonly Fault["kind"][]]>([
    ["apply in one transaction", planned([]), ["fail-sql", "lose-commit"]],
    ["apply in three waves", planned(WAVES), ["crash-server", "lose-commit"]],
    ["a run that goes on", begun, ["end-sessions"]],
    ["undo", undone, ["crash-server"]],
    ["a script", planned([], SCRIPT), ["lose-sql"]],
  ])("%s", (_, begin, sampled) => {
    let plan: string;
    let before: string;
    let stateBefore: string;
    let after: string;
    let whole: FaultReport;
    let saved: readonly Table[];

    beforeAll(async () => {
      url = await server.freshDatabase();
      await server.exec(url, SCHEMA);
      project = makePostgresProject(url);
      sufferer = new Sufferer(project);
      plan = await begin();
      before = await dumpPostgres(url);
      saved = await tablesOf(url);
      stateBefore = await stateNow();
      saveStore(project);
      whole = await sufferer.unbroken({ kind: "apply", plan });
      expect(whole).toMatchObject({ ok: true, again: "ERR_APPROVAL_SPENT", ledgerIsWhole: true });
      after = await dumpPostgres(url);
      expect(after).not.toBe(before);
    });
    afterAll(async () => {
      await sufferer?.close();
      project?.close();
    });

    /** Rows of all tables, holdpoint's own among them, sequences, and the files of the project. */
    async function stateNow(): Promise<string> {
      return `${JSON.stringify(await tablesOf(url))} ${diskState(project.dir)}`;
    }

    /** From the saved state: one faulty run, then one that ends. */
    async function survives(fault: Fault): Promise<void> {
      await bringBack(url, saved);
      restoreStore(project);
      expect(await dumpPostgres(url)).toBe(before);
      const broken = await sufferer.run({ kind: "apply", plan }, { ...fault, url });
      await untilGone(url);
      const between = await dumpPostgres(url);
      const facts = JSON.stringify({ fault, broken });
      try {
        if (broken !== null) expectToldTrue(broken, between);
        else expect(fault.kind).toMatch(/^kill/);
        // Where nothing was written, running again is the unbroken run.
        if ((await stateNow()) === stateBefore) return;
        const healed = await sufferer.run({ kind: "apply", plan }, { kind: "none", at: 0 });
        // A run that had ended in spite of the fault is not run again: its plan is spent.
        if (healed?.ok !== true) expect(healed).toMatchObject({ code: "ERR_APPROVAL_SPENT" });
        expect(healed).toMatchObject({ again: "ERR_APPROVAL_SPENT", ledgerIsWhole: true });
        // Half done is never told as done, and never as nothing.
        if (between !== before && between !== after)
          expect(healed?.statusBefore).toMatch(/^(started|stopped)$/);
        else if (between !== before) expect(healed?.statusBefore).toMatch(/^(started|stopped|done)$/);
        expect(await dumpPostgres(url)).toBe(after);
      } catch (e) {
        throw new Error(`${facts}: ${e instanceof Error ? e.message : String(e)}`, { cause: e });
      }
    }

    function expectToldTrue(broken: FaultReport, between: string): void {
      expect(broken.code).not.toBe("ERR_INTERNAL");
      if (broken.ok) expect(between).toBe(after);
      else if (between !== before) {
        expect(broken.targetChanged).not.toBe("no");
        expect(broken.exit).toBeGreaterThanOrEqual(40);
      }
    }

    test(
      "the client is killed after anything that it wrote",
      () => each(chosenOf(whole.instants, 1), survives),
      PATIENCE_MS,
    );

    for (const [kind, [what, counted]] of KINDS) {
      if (!ASKED_FOR_MORE && !sampled.includes(kind)) continue;
      test(what, () => each(chosen(whole.counted[counted], 1), (at) => survives({ kind, at })), PATIENCE_MS);
    }
  });
});

/** A table's rows, to be put back as they were. */
interface Table {
  readonly name: string;
  readonly rows: string;
}

const TABLES = `SELECT c.relname, c.relkind FROM pg_class c
  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'S') ORDER BY 2, 1`;

async function tablesOf(url: string): Promise<readonly Table[]> {
  const client = await connect(url);
  try {
    const tables: Table[] = [];
    for (const [name, kind] of await client.rows(TABLES)) {
      const sql =
        kind === "S"
          ? `SELECT format('SELECT setval(%L, %s, %L)', '${name ?? ""}', last_value, is_called) FROM ${name ?? ""}`
          : `SELECT coalesce(json_agg(t), '[]') FROM ${name ?? ""} AS t`;
      tables.push({ name: kind === "S" ? "" : (name ?? ""), rows: (await client.rows(sql))[0]?.[0] ?? "" });
    }
    return tables;
  } finally {
    await client.close();
  }
}

/** Into the same database: the target knows itself by its number. */
async function bringBack(url: string, saved: readonly Table[]): Promise<void> {
  const client = await connect(url);
  try {
    await client.rows("BEGIN");
    await client.rows("DROP TABLE IF EXISTS born");
    await client.rows("SET LOCAL session_replication_role = replica");
    for (const { name, rows } of saved) {
      if (name === "") await client.rows(rows);
      else {
        await client.rows(`DELETE FROM ${name}`);
        await client.rows(
          `INSERT INTO ${name} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::${name}, $1)`,
          rows,
        );
      }
    }
    await client.rows("COMMIT");
  } finally {
    await client.close();
  }
}

/** A backend notices that its client is gone when it next listens; until then it has the lock of the run. */
async function untilGone(url: string): Promise<void> {
  const client = await connect(url);
  try {
    const ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdpoint'";
    while ((await client.rows(ours))[0]?.[0] !== "0") await client.rows("SELECT pg_sleep(0.01)");
  } finally {
    await client.close();
  }
}
