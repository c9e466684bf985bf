/** What only newer servers have: each is held exactly, or refused by name. */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { invert } from "../../src/changeset/invert.js";
import type { Target } from "../../src/target/target.js";
import { findServers, serverOfRun, whyNoServer, type TestServer } from "../support/postgres.js";
import { dumpPostgres, openPostgresTarget } from "../support/postgres-target.js";
import { refusal } from "../support/refusal.js";
import { applyAll, rehearseAll, sqlJob } from "../support/rehearsing.js";

const SCHEMA = `
  CREATE EXTENSION btree_gist;
  CREATE TABLE audit (what text);
  CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (TG_OP); RETURN NULL; END $$;
  CREATE TABLE computed (id integer PRIMARY KEY, a integer, twice integer GENERATED ALWAYS AS (a * 2) VIRTUAL);
  CREATE TABLE parent (id integer PRIMARY KEY);
  CREATE TABLE loose (id integer PRIMARY KEY, parent integer REFERENCES parent NOT ENFORCED);
  CREATE TRIGGER loose_seen AFTER INSERT ON loose FOR EACH ROW EXECUTE FUNCTION seen();
  CREATE TABLE room (id integer, during daterange, note text, PRIMARY KEY (id, during WITHOUT OVERLAPS));
  CREATE TABLE booking (id integer PRIMARY KEY, room integer, during daterange,
    FOREIGN KEY (room, PERIOD during) REFERENCES room (id, PERIOD during));
  INSERT INTO computed SELECT i, i FROM generate_series(1, 9) i;
  INSERT INTO parent VALUES (1);
  INSERT INTO room VALUES (1, '[2026-01-01,2026-06-01)'), (1, '[2026-06-01,2027-01-01)');
  INSERT INTO booking VALUES (1, 1, '[2026-05-01,2026-07-01)')`;

const kind = findServers().find((k) => k.major >= 18);
const missing = whyNoServer(2) ?? (kind === undefined ? "no server of version 18 or newer" : null);
if (missing !== null) process.stderr.write(`skipped: ${missing}\n`);

(missing === null ? describe : describe.skip)("what PostgreSQL 18 has more", () => {
  let server: TestServer;
  let url: string;
  let target: Target;

  beforeAll(async () => {
    if (kind === undefined) return;
    server = await serverOfRun(kind);
    url = await server.freshDatabase();
    await server.exec(url, SCHEMA);
    target = await openPostgresTarget(url);
  });
  afterAll(async () => {
    await target?.close();
    await server?.stop();
  });

  test.each([
    ["generated columns that are not stored", "UPDATE computed SET a = a + 1 WHERE id < 4"],
    [
      "a reference that is not enforced, under a trigger that must be silent",
      "INSERT INTO loose VALUES (1, 77)",
    ],
    ["a row whose key covers a time", "UPDATE room SET note = 'x' WHERE during @> date '2026-07-01'"],
  ])("there and back: %s", async (_, sql) => {
    const before = await dumpPostgres(url);
    const { effect } = await rehearseAll(target, sqlJob(sql));
    expect(await applyAll(target, effect)).toMatchObject({ problems: [], wrong: [] });
    expect(await dumpPostgres(url)).not.toBe(before);
    expect(await applyAll(target, invert(effect))).toMatchObject({ problems: [], wrong: [] });
    expect(await dumpPostgres(url)).toBe(before);
  });

  test("a key that covers a time and changes is a problem that the engine names, and nothing is written", async () => {
    const sql = "UPDATE room SET during = '[2026-06-01,2028-01-01)' WHERE during @> date '2026-07-01'";
    const before = await dumpPostgres(url);
    const { effect } = await rehearseAll(target, sqlJob(sql));
    const { problems } = await applyAll(target, effect);
    expect(problems.map((p) => p.kind)).toEqual(["foreign-key", "constraint"]);
    expect(await dumpPostgres(url)).toBe(before);
  });

  test("a reference to a time is refused where it could not be checked, and all rows belong together", async () => {
    expect((await target.schema()).ties).toBeUndefined();
    await server.exec(
      url,
      "CREATE TRIGGER booked AFTER UPDATE ON booking FOR EACH ROW EXECUTE FUNCTION seen()",
    );
    const { effect } = await rehearseAll(
      target,
      sqlJob("UPDATE booking SET room = room, during = '[2026-05-01,2026-06-15)'"),
    );
    const before = await dumpPostgres(url);
    const e = await refusal(() => applyAll(target, effect));
    expect([e.code, e.message]).toEqual([
      "ERR_TARGET_UNSUPPORTED",
      expect.stringContaining("booking_room_during_fkey"),
    ]);
    expect(await dumpPostgres(url)).toBe(before);
  });
});
