/** Scripts and waves on PostgreSQL through the real binary. */
import { afterEach, beforeAll, expect, test } from "@jest/globals";
import { onPostgres } from "../support/on-postgres.js";
import { connect, type TestServer } from "../support/postgres.js";
import { column, makePostgresProject } from "../support/postgres-project.js";
import { dumpPostgres } from "../support/postgres-target.js";
import type { TestProject } from "../support/project.js";

const SHOP = `
  CREATE TABLE owners (id integer PRIMARY KEY, name text NOT NULL);
  CREATE TABLE items (id integer PRIMARY KEY, owner integer REFERENCES owners ON DELETE CASCADE, state text NOT NULL, code text UNIQUE);
  CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, said text, at timestamptz DEFAULT now());
  CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO audit (said) VALUES ('item ' || NEW.id); RETURN NULL; END $$;
  CREATE TRIGGER noted AFTER UPDATE ON items FOR EACH ROW WHEN (NEW.state = 'sent') EXECUTE FUNCTION noted();
  INSERT INTO owners SELECT i, 'owner ' || i FROM generate_series(1, 3) i;
  INSERT INTO items SELECT i, 1 + i % 2, 'old', 'c' || i FROM generate_series(1, 3000) i;`;

const MIGRATION = `
  ALTER TABLE items ADD COLUMN shipped date;
  CREATE TABLE parcels (id serial PRIMARY KEY, item integer REFERENCES items (id), at timestamptz, seal double precision);
  CREATE INDEX parcels_item ON parcels (item);
  INSERT INTO parcels (item, at, seal) SELECT id, now(), random() FROM items WHERE id <= 5;
  UPDATE items SET state = 'sent' WHERE id <= 5;`;

onPostgres("on PostgreSQL", "first", (servers) => {
  let server: TestServer;
  let url: string;
  let project: TestProject;
  beforeAll(() => {
    server = servers();
  });
  afterEach(() => project.close());
  const make = async (options = {}): Promise<void> => {
    url = await server.freshDatabase();
    await server.exec(url, SHOP);
    project = makePostgresProject(url, options);
  };
  const apply = (plan: string): ReturnType<TestProject["json"]> => {
    project.approve(plan);
    return project.json(["apply", plan, "--confirm", "shop-prod"]);
  };

  test("a migration is applied as signed, values and numbers that differ from run to run included, and taken back", async () => {
    await make();
    const before = await dumpPostgres(url);
    const plan = project.plan(MIGRATION);
    expect(await dumpPostgres(url)).toBe(before);
    expect(project.json(["show", plan]).result).toMatchObject({
      mode: "script",
      volatile: [
        { table: "audit", column: "id", rows: 5 },
        { table: "audit", column: "at", rows: 5 },
        { table: "parcels", column: "at", rows: 5 },
        { table: "parcels", column: "seal", rows: 5 },
      ],
      schema_changes: [
        { action: "create", object: "index", name: "parcels_item" },
        { action: "alter", object: "table", name: "items" },
        { action: "create", object: "table", name: "parcels" },
      ],
    });
    const rows = project.json(["show", plan, "--rows"]).result["rows"] as unknown as {
      readonly table: string;
      readonly after: Record<string, string | number>;
    }[];
    const done = apply(plan);
    expect(done).toMatchObject({ error: null, target_changed: "yes" });
    expect(done.result).toMatchObject({ rows: { planned: 15, written: 15 }, schema_changes: 3 });
    const signed = (table: string, name: string): readonly string[] =>
      rows.filter((r) => r.table === table).map((r) => String(r.after[name]));
    expect(await column(url, "SELECT seal FROM parcels ORDER BY id")).toEqual(signed("parcels", "seal"));
    expect(await column(url, "SELECT id FROM audit ORDER BY id")).toEqual(signed("audit", "id"));

    const waits = project.json(["undo", String(done.result["run"]), "--key", "keys/dana"]);
    expect(waits.exit.code).toBe(21);
    expect(apply(String(waits.result["plan"]))).toMatchObject({ error: null, target_changed: "yes" });
    const after = (await dumpPostgres(url)).split("\n").filter((l) => !l.includes("pg.dropped"));
    expect(after.join("\n")).toBe(before);
    expect(project.json(["log", "verify"]).ok).toBe(true);
  });

  test("what moved since the plan ends with 34, nothing is written, the approval stays good", async () => {
    await make();
    const plan = project.plan(
      "CREATE INDEX by_state ON items (state); UPDATE items SET state = 'big' WHERE id > 2999",
    );
    project.approve(plan);
    await server.exec(url, "INSERT INTO items VALUES (3001, 1, 'new', 'x')");
    const before = await dumpPostgres(url);
    const ended = project.json(["apply", plan, "--confirm", "shop-prod"]);
    expect(ended).toMatchObject({
      target_changed: "no",
      exit: { code: 34 },
      error: { code: "ERR_DRIFT_ROWS" },
    });
    expect(await dumpPostgres(url)).toBe(before);
    await server.exec(url, "DELETE FROM items WHERE id = 3001");
    expect(project.json(["apply", plan, "--confirm", "shop-prod"])).toMatchObject({ error: null });
  });

  test("waves are batches with their marks; rows that hang together never part", async () => {
    await make({ environment: "development" });
    const plan = project.plan("UPDATE items SET state = 'b' WHERE id <= 2500", ["--waves", "1%,10%,100%"]);
    const done = project.json(["apply", plan, "--confirm", "shop-prod"]);
    expect(done.error).toBeNull();
    expect(done.result).toMatchObject({ waves: 3, batches: 5, rows: { planned: 2500, written: 2500 } });
    expect(await column(url, "SELECT wave || '/' || batch FROM holdpoint_batches ORDER BY 1")).toEqual([
      "1/1",
      "2/1",
      "3/1",
      "3/2",
      "3/3",
    ]);
    const split = (sql: string): unknown => {
      const file = project.write("jobs/split.sql", sql);
      const args = ["plan", file, "--on", "shop-prod", "--key", "keys/dana", "--waves", "1,100%"];
      const { exit, error } = project.json(args);
      return [exit.code, error?.code];
    };
    expect(split("DELETE FROM owners WHERE id = 2")).toEqual([2, "ERR_WAVES_SPLIT"]);
    expect(
      split(
        "UPDATE items SET code = 'x' WHERE id = 1; UPDATE items SET code = 'c1' WHERE id = 2; UPDATE items SET code = 'c2' WHERE id = 1",
      ),
    ).toEqual([2, "ERR_WAVES_SPLIT"]);
  });

  test("a run that stopped part way goes on, skips nothing, and is spent afterwards", async () => {
    await make({ environment: "development" });
    const plan = project.plan("UPDATE items SET state = 'c' WHERE id <= 1500", ["--waves", "100,100%"]);
    // Somebody holds a row of the second wave: its batch waits its time, and the run stops.
    const other = await connect(url);
    await other.rows("BEGIN");
    await other.rows("SELECT 1 FROM items WHERE id = 700 FOR UPDATE");
    const held = project.json(["apply", plan, "--confirm", "shop-prod"]);
    expect(held).toMatchObject({ exit: { code: 40 }, target_changed: "partly" });
    expect(await column(url, "SELECT count(*) FROM items WHERE state = 'c'")).toEqual(["100"]);
    await other.close();
    const on = project.json(["apply", plan, "--confirm", "shop-prod"]);
    expect(on).toMatchObject({ ok: true, result: { resumed: true, rows: { written: 1500 } } });
    expect(await column(url, "SELECT count(*) FROM items WHERE state = 'c'")).toEqual(["1500"]);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).error?.code).toBe("ERR_APPROVAL_SPENT");
  });
});
