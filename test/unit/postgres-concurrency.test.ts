/**
 * Others work on the same tables while a job is rehearsed: none of their changes is taken for the job's, and none of the
 * job's is missed. Races are forced between the steps of the capture; the server and all sessions are real.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { StorageCapture, type Beginning, type Views } from "../../src/adapters/postgres/capture.js";
import { countersAreProof, countersOf } from "../../src/adapters/postgres/counters.js";
import { parseAddress } from "../../src/adapters/postgres/address.js";
import {
  loadDriver,
  openSession,
  type Connecting,
  type Session,
} from "../../src/adapters/postgres/driver.js";
import { writtenRows, type RehearsalLimits } from "../../src/adapters/postgres/limits.js";
import { countRows, countRowsQuietly, removedByFilter } from "../../src/adapters/postgres/read.js";
import { readCatalogue } from "../../src/adapters/postgres/schema.js";
import { READING_SETTINGS } from "../../src/adapters/postgres/values.js";
import type { Change } from "../../src/changeset/change.js";
import type { Target } from "../../src/target/target.js";
import { onPostgres } from "../support/on-postgres.js";
import { connect, type TestClient, type TestServer } from "../support/postgres.js";
import { openPostgresTarget } from "../support/postgres-target.js";
import { refusal, refusalLine } from "../support/refusal.js";
import { rehearseAll, sqlJob } from "../support/rehearsing.js";
import { NOON } from "../support/sqlite.js";

const SCHEMA = `DROP TABLE IF EXISTS child, item;
  CREATE TABLE item (id integer PRIMARY KEY, note text);
  CREATE TABLE child (id integer PRIMARY KEY, item integer REFERENCES item);
  INSERT INTO item SELECT i, 'n' || i FROM generate_series(1, 50) i`;

onPostgres("others at work", "first", (ofRun) => {
  let server: TestServer;
  let url: string;
  let connecting: Connecting;
  let target: Target;

  beforeAll(async () => {
    server = ofRun();
    url = await server.freshDatabase();
    const address = parseAddress(url, {}, "nobody");
    connecting = {
      driver: await loadDriver(),
      address,
      clock: NOON,
      lockTimeoutMs: 400,
      statementTimeoutMs: 20_000,
      settleMs: 0,
    };
    target = await openPostgresTarget(url);
  });
  afterAll(async () => {
    await target?.close();
  });
  beforeEach(async () => {
    await server.exec(url, SCHEMA);
  });

  /** Runs `work` with another client. */
  async function withClient<T>(work: (client: TestClient) => Promise<T>): Promise<T> {
    const client = await connect(url);
    try {
      return await work(client);
    } finally {
      await client.close();
    }
  }

  const keysOf = async (sql: string): Promise<readonly string[]> =>
    (await rehearseAll(target, sqlJob(sql))).effect.changes.map(inWords);

  test("a row that another session holds with a shared lock is a multixact, and is the job's all the same", async () => {
    await withClient(async (other) => {
      await other.rows("BEGIN");
      await other.rows("INSERT INTO child VALUES (1, 3)");
      expect(await keysOf("UPDATE item SET note = 'x' WHERE id IN (3, 4)")).toEqual(["update 3", "update 4"]);
      await other.rows("COMMIT");
    });
  });

  test("rows that others have locked, changed without commit, or rolled back, are not the job's", async () => {
    await withClient(async (other) => {
      await other.rows("BEGIN");
      await other.rows("UPDATE item SET note = 'theirs' WHERE id = 10");
      await other.rows("DELETE FROM item WHERE id = 11");
      await other.rows("SELECT 1 FROM item WHERE id = 12 FOR UPDATE");
      await other.rows("INSERT INTO item VALUES (100, 'theirs')");
      expect(await keysOf("DELETE FROM item WHERE id = 2")).toEqual(["delete 2"]);
      await other.rows("ROLLBACK");
      expect(await keysOf("DELETE FROM item WHERE id BETWEEN 10 AND 12")).toEqual([
        "delete 10",
        "delete 11",
        "delete 12",
      ]);
    });
  });

  test("a row that another session committed after the job began is shown as it was when the job took it", async () => {
    await server.exec(
      url,
      "CREATE OR REPLACE FUNCTION wait_for(n integer) RETURNS integer LANGUAGE sql VOLATILE AS 'SELECT count(*)::integer FROM item WHERE id = n'",
    );
    await withClient(async (other) => {
      await other.rows("BEGIN");
      await other.rows("UPDATE item SET note = 'newer' WHERE id = 5");
      await other.rows("INSERT INTO item VALUES (60, 'newer')");
      const patient = await openPostgresTarget(url, { lockTimeoutMs: 10_000 });
      // The job's statement waits for the row; then the other session commits, and the job goes on with the newer row.
      const rehearsal = rehearseAll(
        patient,
        sqlJob("UPDATE item SET note = note || '!' WHERE id IN (5, 6)", "DELETE FROM item WHERE id = 60"),
      );
      await untilBlocked(url);
      await other.rows("COMMIT");
      const { effect } = await rehearsal;
      await patient.close();
      expect(effect.changes).toMatchObject([
        { op: "update", before: [5n, "newer"], after: [5n, "newer!"] },
        { op: "update", before: [6n, "n6"] },
        { op: "delete", before: [60n, "newer"] },
      ]);
    });
  });

  describe("what a rehearsal may cost the server", () => {
    const within = async (limits: Partial<RehearsalLimits>, sql: string): Promise<readonly string[]> => {
      const careful = await openPostgresTarget(url, { limits });
      try {
        return (await rehearseAll(careful, sqlJob(sql))).rehearsal.notices;
      } finally {
        await careful.close();
      }
    };

    test.each([
      [
        "the planner's estimate",
        { rows: 20 },
        "DELETE FROM item",
        /^ERR_REHEARSAL_LIMIT line 1 would write about 50 rows/,
      ],
      [
        "the rows of a block",
        { rows: 20 },
        "DO $$ BEGIN DELETE FROM item; END $$",
        /^ERR_REHEARSAL_LIMIT the job writes 50 rows/,
      ],
      [
        "the write-ahead log, while the statement runs",
        { walBytes: 2 ** 20 },
        "DO $$ BEGIN FOR i IN 1..100000 LOOP UPDATE item SET note = repeat('x', 100) || i; END LOOP; END $$",
        /^ERR_REHEARSAL_LIMIT \d+ MiB of write-ahead log were written/,
      ],
    ])("%s", async (_, limits, sql, line) => {
      await server.exec(url, "ANALYZE item");
      expect(await refusalLine(() => within(limits, sql))).toMatch(line);
      await server.exec(url, "SET lock_timeout = 100; UPDATE item SET note = 'free'");
    });

    test("the plan says the limits, and what was used of them", async () => {
      const [limits] = await within({ lagMs: 90_000 }, "DELETE FROM item WHERE id <= 4");
      expect(limits).toMatch(
        /^limits of the rehearsal: a lock is waited for 0.4 s, a statement runs 1 min, 1000000 rows, 1024 MiB of write-ahead log, replicas 1.5 min behind; it took 4 row writes and \d+ MiB of log$/,
      );
    });

    test("only nodes that write are counted, and all of them", () => {
      const scan = { "Node Type": "Seq Scan", "Parent Relationship": "Outer", "Plan Rows": 7 };
      const child = {
        "Node Type": "ModifyTable",
        "Parent Relationship": "InitPlan",
        "Plan Rows": 0,
        Plans: [scan],
      };
      const plan = {
        "Node Type": "ModifyTable",
        "Plan Rows": 0,
        Plans: [child, { ...scan, "Plan Rows": 5 }],
      };
      expect(writtenRows([{ Plan: plan }])).toBe(12);
      expect(writtenRows([{ Plan: scan }])).toBe(0);
    });
  });

  test("a lock that is not to be had ends the rehearsal in time, and nothing is left locked", async () => {
    await withClient(async (other) => {
      await other.rows("BEGIN");
      await other.rows("UPDATE item SET note = 'x' WHERE id = 1");
      const e = await refusal(() => rehearseAll(target, sqlJob("UPDATE item SET note = 'y'")));
      expect([e.code, e.targetChanged]).toEqual(["ERR_TARGET_BUSY", "no"]);
      await other.rows("UPDATE item SET note = 'z'");
      await other.rows("ROLLBACK");
    });
  });

  test("writers of other rows do not wait for a rehearsal", async () => {
    await withClient(async (other) => {
      const rehearsal = rehearseAll(target, sqlJob("UPDATE item SET note = 'job' WHERE id <= 25"));
      await other.rows("SET lock_timeout = 200");
      for (let i = 0; i < 40; i++)
        await other.rows(`UPDATE item SET note = 'w${i}' WHERE id = ${26 + (i % 25)}`);
      const { effect } = await rehearsal;
      expect(effect.changes.map(inWords)).toEqual(Array.from({ length: 25 }, (_, i) => `update ${i + 1}`));
    });
  });

  describe("between the steps of the capture", () => {
    /** What happens in another session, before and at each step: `sql` runs in one open transaction until it says COMMIT or ROLLBACK. */
    const RACES: readonly (readonly [
      string,
      {
        readonly before: readonly string[];
        readonly afterCandidates: readonly string[];
        readonly afterSeen: readonly string[];
      },
    ])[] = [
      [
        "R1 a delete that was open at step 1 commits before step 2",
        { before: ["BEGIN", "DELETE FROM item WHERE id = 40"], afterCandidates: ["COMMIT"], afterSeen: [] },
      ],
      [
        "R2 a delete that was open at step 1 commits before step 3",
        { before: ["BEGIN", "DELETE FROM item WHERE id = 40"], afterCandidates: [], afterSeen: ["COMMIT"] },
      ],
      [
        "an update that was open at step 1 rolls back",
        {
          before: ["BEGIN", "UPDATE item SET note = 'x' WHERE id = 40"],
          afterCandidates: ["ROLLBACK"],
          afterSeen: [],
        },
      ],
      [
        "an update that was open at step 1 commits, and the row is deleted after",
        {
          before: ["BEGIN", "UPDATE item SET note = 'x' WHERE id = 40"],
          afterCandidates: ["COMMIT", "BEGIN", "DELETE FROM item WHERE id = 40"],
          afterSeen: ["COMMIT"],
        },
      ],
      [
        "rows are inserted and deleted again while the rows are read",
        {
          before: [],
          afterCandidates: ["BEGIN", "INSERT INTO item VALUES (90, 'x'), (91, 'x')", "COMMIT"],
          afterSeen: ["BEGIN", "DELETE FROM item WHERE id = 90", "COMMIT"],
        },
      ],
      [
        "a row of the job gets a lock that others share, and so a multixact",
        {
          before: [],
          afterCandidates: [],
          afterSeen: ["BEGIN", "INSERT INTO child VALUES (7, 2)"],
        },
      ],
      [
        "others begin to lock and change rows that nobody had touched",
        {
          before: ["BEGIN", "DELETE FROM item WHERE id = 40"],
          afterCandidates: ["SELECT 1 FROM item WHERE id = 41 FOR UPDATE", "DELETE FROM item WHERE id = 43"],
          afterSeen: ["DELETE FROM item WHERE id = 42", "UPDATE item SET note = 'x' WHERE id = 44"],
        },
      ],
      [
        "R3 rows are deleted that nobody had touched",
        {
          before: [],
          afterCandidates: ["BEGIN", "DELETE FROM item WHERE id = 41", "COMMIT"],
          afterSeen: ["BEGIN", "DELETE FROM item WHERE id = 42", "COMMIT"],
        },
      ],
    ];

    test.each(RACES)("%s", async (_, race) => {
      const other = await connect(url);
      const sessions = await Promise.all([
        openSession(connecting, false),
        openSession(connecting, true),
        openSession(connecting, true),
      ]);
      const [job, outside, fresh] = sessions;
      try {
        const say = async (sql: readonly string[]): Promise<void> => {
          for (const s of sql) await other.rows(s);
        };
        const catalogue = await readCatalogue(fresh);
        const storage = [...catalogue.storages.values()].find((s) => s.shown === "item");
        if (storage === undefined) throw new Error("no table item");
        const multixact = (await fresh.value("SELECT next_multixact_id FROM pg_control_checkpoint()")) ?? "1";
        await job.run("BEGIN");
        const transaction = BigInt((await job.value("SELECT pg_current_xact_id()")) ?? "0");
        // Begun after the job: what began before it is told from it by its age already.
        await say(race.before);
        const beginning: Beginning = { transaction, multixact, isUtf8: true };
        for (const sql of [
          "DELETE FROM item WHERE id = 1",
          "UPDATE item SET note = 'job' WHERE id = 2",
          "INSERT INTO item VALUES (80, 'job')",
        ])
          await job.run(sql);
        await job.set(READING_SETTINGS, true);
        await outside.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        await outside.value("SELECT pg_current_snapshot()");
        const views: Views = {
          job: onceCopied(job, () => say(race.afterSeen)),
          outside: once(outside, "rows", () => say(race.afterCandidates)),
          fresh,
        };
        const changes: Change[] = [];
        await new StorageCapture(
          views,
          beginning,
          storage,
          await countersOf(job, storage.oid, await countersAreProof(job)),
          (_shape, change) => void changes.push(change),
        ).run();
        expect(changes.map(inWords).sort()).toEqual(["delete 1", "insert 80", "update 2"]);
      } finally {
        for (const session of sessions) await session.close();
        await other.close();
      }
    });
  });

  test("with others writing all the time, the effect is the job's and nothing else", async () => {
    const stop = new AbortController();
    const writer = withClient(async (other) => {
      for (let i = 0; !stop.signal.aborted; i++) {
        const id = 26 + (i % 25);
        await other.rows(
          i % 3 === 0
            ? `DELETE FROM item WHERE id = ${id}`
            : `INSERT INTO item VALUES (${id}, 'w${i}') ON CONFLICT (id) DO UPDATE SET note = excluded.note`,
        );
      }
    });
    for (let round = 0; round < 12; round++) {
      expect(await keysOf("UPDATE item SET note = note || '.' WHERE id <= 5")).toEqual(
        [1, 2, 3, 4, 5].map((i) => `update ${i}`),
      );
      expect(await keysOf("DELETE FROM item WHERE id BETWEEN 6 AND 8")).toEqual(
        [6, 7, 8].map((i) => `delete ${i}`),
      );
    }
    stop.abort();
    await writer;
  });

  describe("where the server tells which pages hold nothing of the job", () => {
    beforeEach(async () => {
      await server.exec(
        url,
        "CREATE EXTENSION IF NOT EXISTS pg_visibility",
        "INSERT INTO item SELECT i, 'many' FROM generate_series(1000, 30000) i",
        "VACUUM item",
      );
    });

    const contiguous = "id BETWEEN 1000 AND 1500";
    const keys = (op: string, from: number, to: number): readonly string[] =>
      Array.from({ length: to - from + 1 }, (_, i) => `${op} ${from + i}`);

    /** Pages of the table that were read while `work` ran, by all sessions together. */
    async function pagesRead(work: () => Promise<unknown>): Promise<number> {
      const read = async (): Promise<number> =>
        await withClient(async (client) => {
          const sql = `SELECT pg_stat_force_next_flush(), heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'item'`;
          return Number((await client.rows(sql))[0]?.[1]);
        });
      const before = await read();
      await work();
      return (await read()) - before;
    }

    test.each([
      ["rows that stand together", `DELETE FROM item WHERE ${contiguous}`, keys("delete", 1000, 1500)],
      ["updates", `UPDATE item SET note = 'x' WHERE ${contiguous}`, keys("update", 1000, 1500)],
      [
        "inserts",
        "INSERT INTO item SELECT i, 'new' FROM generate_series(70000, 70500) i",
        keys("insert", 70000, 70500),
      ],
      [
        "both ends",
        "DELETE FROM item WHERE id IN (5, 1000, 30000)",
        ["delete 1000", "delete 5", "delete 30000"],
      ],
      ["nothing", "DELETE FROM item WHERE id = -1", []],
      ["no page at all", "UPDATE item SET note = note WHERE id = 1007", []],
    ])("only the others are read: %s", async (_, sql, expected) => {
      await withClient(async (other) => {
        // Somebody else's open work makes pages of the table open, too, and is not the job's.
        await other.rows("BEGIN");
        await other.rows("DELETE FROM item WHERE id BETWEEN 29000 AND 29100");
        await other.rows("UPDATE item SET note = 'theirs' WHERE id = 20000");
        expect([...(await keysOf(sql))].sort()).toEqual([...expected].sort());
        await other.rows("COMMIT");
      });
    });

    test("the pages that are read follow the change, not the table", async () => {
      const delete500 = (): Promise<unknown> => keysOf(`DELETE FROM item WHERE ${contiguous}`);
      const few = await pagesRead(delete500);
      await server.exec(url, "VACUUM item", "DROP EXTENSION pg_visibility");
      const all = await pagesRead(delete500);
      const pages = await withClient(async (client) =>
        Number((await client.rows("SELECT pg_relation_size('item') / 8192"))[0]?.[0]),
      );
      // The same job, with two scans of nearly all pages less: for rows that it only locked, and for those it took away.
      expect((all - few) / pages).toBeGreaterThan(1.5);
      expect((all - few) / pages).toBeLessThan(2.5);
    });

    test.each([
      [
        "a row that is written twice",
        ["UPDATE item SET note = 'a' WHERE id = 1000", "UPDATE item SET note = 'b' WHERE id = 1000"],
        ["update 1000"],
      ],
      [
        "a savepoint that is rolled back, beside a row that is only locked",
        [
          `DO $$ BEGIN BEGIN DELETE FROM item WHERE id = 1000; RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END;
             PERFORM 1 FROM item WHERE id = 1001 FOR UPDATE; UPDATE item SET note = 'x' WHERE id = 1002; END $$`,
        ],
        ["update 1002"],
      ],
      [
        "a row that is only locked, beside one that is written twice",
        [
          "SELECT 1 FROM item WHERE id = 1001 FOR UPDATE",
          "UPDATE item SET note = 'a' WHERE id = 1000",
          "UPDATE item SET note = 'b' WHERE id = 1000",
        ],
        ["update 1000"],
      ],
      [
        "hundreds of savepoints",
        [
          `DO $$ BEGIN FOR i IN 1000..1300 LOOP BEGIN UPDATE item SET note = 'x' WHERE id = i; IF i % 3 = 0 THEN RAISE 'no'; END IF;
            EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$`,
        ],
        Array.from({ length: 301 }, (_, i) => 1000 + i)
          .filter((i) => i % 3 !== 0)
          .map((i) => `update ${i}`),
      ],
      [
        "many rows that are only locked",
        ["SELECT 1 FROM item WHERE id BETWEEN 1000 AND 9000 FOR UPDATE", "DELETE FROM item WHERE id = 9000"],
        ["delete 9000"],
      ],
    ])("what the counts cannot prove is read whole: %s", async (_, job, expected) => {
      const { effect } = await rehearseAll(target, sqlJob(...job));
      expect(effect.changes.map(inWords)).toEqual(expected);
    });

    test("rows of the job that others hold with a shared lock, before it and while it is read", async () => {
      await withClient(async (other) => {
        await other.rows("BEGIN");
        await other.rows("INSERT INTO child SELECT i, i FROM generate_series(1000, 1400) i");
        expect(await keysOf("UPDATE item SET note = 'x' WHERE id BETWEEN 1300 AND 1500")).toEqual(
          keys("update", 1300, 1500),
        );
        await other.rows("COMMIT");
      });
    });
  });

  test("rows are counted as the session sees them, others' included that are not committed, in partitions too", async () => {
    await server.exec(
      url,
      "CREATE TABLE parted (id integer) PARTITION BY RANGE (id)",
      "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
      "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (100)",
      "CREATE TABLE bare ()",
      "CREATE TABLE heir (more integer) INHERITS (item)",
      "INSERT INTO heir (id) SELECT generate_series(900, 910)",
      "INSERT INTO parted SELECT generate_series(1, 30)",
      "CREATE TABLE none (id integer)",
    );
    const session = await openSession(connecting, true);
    try {
      await withClient(async (other) => {
        await other.rows("BEGIN");
        await other.rows("DELETE FROM item WHERE id <= 7");
        await other.rows("INSERT INTO parted SELECT generate_series(31, 40)");
        await session.run("BEGIN");
        await session.run("DELETE FROM public.parted WHERE id <= 3");
        const { byName } = await readCatalogue(session);
        const counted: Record<string, number> = {};
        for (const info of byName.values()) {
          counted[info.name] = await countRowsQuietly(session, info);
          expect(counted[info.name]).toBe(await countRows(session, info));
        }
        expect(counted).toMatchObject({ item: 50, parted: 27, heir: 11, none: 0 });
      });
    } finally {
      await session.close();
      await server.exec(url, "DROP TABLE parted, bare, heir, none");
    }
  });

  test.each([
    ["one scan", scanned(12), 12],
    ["a scan of each partition", { "Node Type": "Append", Plans: [scanned(1), scanned(2)] }, 3],
    [
      "a partition that was left out",
      { "Node Type": "Append", "Subplans Removed": 1, Plans: [scanned(1), scanned(2)] },
      null,
    ],
    ["an average over several rounds", { ...scanned(12), "Actual Loops": 2 }, null],
    ["a scan that let rows through", { ...scanned(12), "Actual Rows": 1 }, null],
    ["no scan at all", { "Node Type": "Result", "Actual Rows": 0, "Actual Loops": 1 }, null],
    ["workers", { "Node Type": "Gather", Plans: [scanned(12)] }, null],
    ["a number that is none", { ...scanned(12), "Rows Removed by Filter": 1.5 }, null],
  ])("what the server says of a count is believed where it is exact: %s", (_, plan, expected) => {
    expect(removedByFilter([{ Plan: plan }])).toBe(expected);
  });

  test("many rows, and a frozen table", async () => {
    await server.exec(
      url,
      "INSERT INTO item SELECT i, 'many' FROM generate_series(1000, 31000) i",
      "VACUUM (FREEZE) item",
    );
    expect(await keysOf("DELETE FROM item WHERE id > 1000 AND id % 2 = 0")).toHaveLength(15_000);
    expect(await keysOf("UPDATE item SET id = id + 100000 WHERE id > 30990")).toHaveLength(20);
  });
});

function scanned(removed: number): Readonly<Record<string, unknown>> {
  return {
    "Node Type": "Seq Scan",
    "Actual Rows": 0,
    "Actual Loops": 1,
    "Rows Removed by Filter": removed,
  };
}

function inWords(change: Change): string {
  return `${change.op} ${change.key.map(String).join()}`;
}

/** The session, which after its first answer to `method` lets `then` happen. */
function once(session: Session, method: "rows", then: () => Promise<void>): Session {
  let done = false;
  return wrapped(session, method, async (call) => {
    const answer = await call();
    if (!done) {
      done = true;
      await then();
    }
    return answer;
  });
}

/** The session, which lets `then` happen when its first COPY has been read to the end. */
function onceCopied(session: Session, then: () => Promise<void>): Session {
  let done = false;
  return new Proxy(session, {
    get(real, name) {
      if (name !== "copy") return bound(real, name);
      return async function* (query: string) {
        yield* real.copy(query);
        if (done) return;
        done = true;
        await then();
      };
    },
  });
}

function wrapped(
  session: Session,
  method: string,
  around: (call: () => Promise<unknown>) => Promise<unknown>,
): Session {
  return new Proxy(session, {
    get(real, name) {
      const value: unknown = bound(real, name);
      if (name !== method || typeof value !== "function") return value;
      return (...args: unknown[]) => around(async () => (await Reflect.apply(value, real, args)) as unknown);
    },
  });
}

function bound(real: Session, name: string | symbol): unknown {
  const value: unknown = Reflect.get(real, name, real);
  return typeof value === "function" ? value.bind(real) : value;
}

async function untilBlocked(url: string): Promise<void> {
  const client = await connect(url);
  try {
    for (let i = 0; i < 200; i++) {
      const [row] = await client.rows(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'holdpoint'",
      );
      if (row?.[0] === "1") return;
      await client.rows("SELECT pg_sleep(0.02)");
    }
  } finally {
    await client.close();
  }
  throw new Error("the job never waited");
}
