/**
 * Tables that only ever grow, on PostgreSQL, as a whole through the real binary: reversed by a new row with a number of the
 * table's own sequence where one is declared, else left and listed. The server itself forbids what may not be done there.
 */
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { onPostgres } from "../support/on-postgres.js";
import { connect, type TestServer } from "../support/postgres.js";
import { column, makePostgresProject } from "../support/postgres-project.js";
import { dumpPostgres } from "../support/postgres-target.js";
import type { TestProject } from "../support/project.js";

/** Postings that a trigger keeps anybody from changing: an undo that did would not be written. */
const SCHEMA = `
  CREATE TABLE item (id integer PRIMARY KEY, state text NOT NULL);
  CREATE TABLE postings (id serial PRIMARY KEY, item integer REFERENCES item, amount numeric(12,2) NOT NULL,
    reverses integer REFERENCES postings, kind text, at timestamptz NOT NULL DEFAULT now());
  CREATE TABLE outbox (message text);
  CREATE FUNCTION only_grows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'only grows'; END $$;
  CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE ON postings FOR EACH ROW EXECUTE FUNCTION only_grows();
  INSERT INTO item VALUES (1, 'old'), (2, 'old');
  INSERT INTO postings (item, amount, kind) VALUES (1, 10, 'first'), (2, 20.25, 'first');`;
const DECLARED =
  "append_only: { outbox: {}, postings: { reverse: { id: { next: true }, amount: { negate: amount }, reverses: { column: id }, kind: reversal } } }";
const JOB = `
  UPDATE item SET state = 'paid' WHERE id = 1;
  INSERT INTO postings (item, amount, kind, at) VALUES (1, 100.50, 'payment', '2026-01-01T00:00:00Z'), (1, -7, 'fee', '2026-01-01T00:00:00Z');
  INSERT INTO outbox VALUES ('paid 1');`;

onPostgres("append-only tables on PostgreSQL", "first", (servers) => {
  let server: TestServer;
  let url: string;
  let project: TestProject;
  let run: string;
  let undo: string;

  beforeAll(async () => {
    server = servers();
    url = await server.freshDatabase();
    await server.exec(url, SCHEMA);
    project = makePostgresProject(url, {
      configure: (p) => {
        p.write("holdpoint.yaml", p.read("holdpoint.yaml").replace(/^( +)url: .*$/m, `$&\n$1${DECLARED}`));
      },
    });
  });
  afterAll(() => project?.close());

  const apply = (plan: string, reason: string): string => {
    project.approve(plan, "ravi", ["--reason", reason]);
    const done = project.json(["apply", plan, "--confirm", "shop-prod"]);
    expect(done.error).toBeNull();
    return String(done.result["run"]);
  };
  const takeBack = (of: string, ...more: string[]): { plan: string; counts: unknown } => {
    const made = project.json(["undo", of, "--key", "keys/dana", ...more]);
    expect([made.exit.code, made.target_changed]).toEqual([21, "no"]); // waits for a person
    return { plan: String(made.result["plan"]), counts: made.result["counts"] };
  };
  const postings = (): Promise<readonly (string | null)[]> =>
    column(url, "SELECT concat_ws(' ', id, item, amount, reverses, kind) FROM postings ORDER BY id");
  const balance = async (): Promise<string | null | undefined> =>
    (await column(url, "SELECT sum(amount) FROM postings"))[0];
  const stateOf = async (item: number): Promise<string | null | undefined> =>
    (await column(url, `SELECT state FROM item WHERE id = ${item}`))[0];
  const others = async (sql: string): Promise<void> => {
    const client = await connect(url);
    try {
      await client.rows(sql);
    } finally {
      await client.close();
    }
  };

  test("undo puts back what may change, adds reversing rows, and lists what it leaves", async () => {
    run = apply(project.plan(JOB), "paid");
    // Others go on: the numbers of the reversing rows lie above theirs.
    await others("INSERT INTO postings (item, amount, kind) VALUES (2, 5, 'theirs')");
    const made = project.json(["undo", run, "--key", "keys/dana"]);
    expect([made.exit.code, made.error?.code, made.target_changed]).toEqual([
      21,
      "ERR_APPROVAL_NEEDED",
      "no",
    ]);
    expect(made.result["counts"]).toMatchObject({ put_back: 1, reversed: 2, left: 1, conflict: 0 });
    expect(made.warnings).toEqual([expect.stringContaining("1 row of outbox left as it is")]);
    const before = await dumpPostgres(url);
    expect(project.json(["apply", String(made.result["plan"]), "--confirm", "shop-prod"]).exit.code).toBe(21);
    expect(await dumpPostgres(url)).toBe(before);
    undo = apply(String(made.result["plan"]), "not paid after all");
    const rows = await postings();
    expect(rows.slice(0, 2)).toEqual(["1 1 10.00 first", "2 2 20.25 first"]);
    expect(rows.filter((r) => r?.includes("reversal"))).toEqual([
      expect.stringMatching(/^\d+ 1 -100\.50 \d+ reversal$/),
      expect.stringMatching(/^\d+ 1 7\.00 \d+ reversal$/),
    ]);
    expect(await balance()).toBe("35.25");
    expect(await column(url, "SELECT message FROM outbox")).toEqual(["paid 1"]);
    expect(await stateOf(1)).toBe("old");
    // Each reversing row names the row that it reverses, and every number was given out once.
    const unmatched = `SELECT count(*) FROM postings r LEFT JOIN postings p ON p.id = r.reverses AND p.amount = -r.amount
      WHERE r.kind = 'reversal' AND p.id IS NULL`;
    expect(await column(url, unmatched)).toEqual(["0"]);
  });

  test("the table's own sequence gives no number out again that a reversing row has", async () => {
    await others("INSERT INTO postings (item, amount, kind) VALUES (2, 1, 'later')");
    expect(await column(url, "SELECT count(*) = count(DISTINCT id) FROM postings")).toEqual(["t"]);
  });

  test("given again it adds nothing", async () => {
    const before = await dumpPostgres(url);
    const again = project.json(["undo", run, "--key", "keys/dana"]);
    expect(again.error).toBeNull();
    expect(again.result).toMatchObject({ plan: null, counts: { put_back: 0, reversed: 0 } });
    expect(await dumpPostgres(url)).toBe(before);
  });

  test("an undo of the undo reverses the reversing rows, and the run can be taken back anew", async () => {
    apply(takeBack(undo).plan, "paid all the same");
    expect([await balance(), await stateOf(1)]).toEqual(["129.75", "paid"]);
    const anew = takeBack(run);
    expect(anew.counts).toMatchObject({ put_back: 1, reversed: 2 });
    apply(anew.plan, "back again");
    expect([await balance(), await stateOf(1)]).toEqual(["36.25", "old"]);
    expect(project.json(["log", "verify"]).ok).toBe(true);
  });

  test("what would edit a row is refused by name (30), the other tables can be taken back", async () => {
    await others("ALTER TABLE postings DISABLE TRIGGER only_grows");
    const edited = apply(
      project.plan(
        "UPDATE postings SET kind = 'edited' WHERE id = 1; UPDATE item SET state = 'x' WHERE id = 2",
      ),
      "edited",
    );
    const before = await dumpPostgres(url);
    expect(project.json(["undo", edited, "--key", "keys/dana"])).toMatchObject({
      exit: { code: 30 },
      error: { code: "ERR_APPEND_ONLY", why: expect.stringContaining("postings") as unknown },
      target_changed: "no",
    });
    expect(await dumpPostgres(url)).toBe(before);
    apply(takeBack(edited, "--table", "item").plan, "back");
    expect(await stateOf(2)).toBe("old");
    expect(await column(url, "SELECT kind FROM postings WHERE id = 1")).toEqual(["edited"]);
    expect(project.json(["log", "verify"]).ok).toBe(true);
  });
});
