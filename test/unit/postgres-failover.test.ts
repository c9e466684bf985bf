/**
 * The primary changes while a run is under way: a standby with everything, or with everything but the last commit, is
 * promoted and answers at the same address. It has marker, system identifier and oid of the one before; only its timeline
 * is another, and what became of the commit is never guessed.
 */
import { setTimeout } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { exitOf } from "../../src/cli/exit-codes.js";
import { sourceOf } from "../../src/changeset/source.js";
import type { Marker } from "../../src/target/marker.js";
import type { Target, WriteSession } from "../../src/target/target.js";
import { onPostgres } from "../support/on-postgres.js";
import { connect, startPair, type TestPair, type TestServer } from "../support/postgres.js";
import { startProxy, type TestProxy } from "../support/postgres-proxy.js";
import { openPostgresTarget } from "../support/postgres-target.js";
import { refusal } from "../support/refusal.js";
import { rehearseAll, sqlJob } from "../support/rehearsing.js";

const MARKER: Marker = {
  format: "holdpoint-marker/1",
  identity: "postgres:00112233445566778899aabbccddeeff",
  name: "shop",
  environment: "production",
  place: { system: "1" },
  bundle: `sha256:${"1".repeat(64)}`,
  ledger: "lg_0000000000000000",
  ledgerSequence: 0,
  ledgerHead: `sha256:${"2".repeat(64)}`,
  pinnedAt: "2026-11-22T12:00:00Z",
  pinnedBy: "tests",
};

onPostgres("the primary changes", "first", () => {
  let pair: TestPair;
  let standby: TestServer;
  let proxy: TestProxy;
  let target: Target;

  beforeEach(async () => {
    pair = await startPair();
    ({ standby } = pair);
    const { primary } = pair;
    const table = "CREATE TABLE plain (id integer PRIMARY KEY, note text); INSERT INTO plain VALUES (1, 'n')";
    await primary.exec(primary.url("postgres"), "CREATE DATABASE shop");
    await primary.exec(primary.url("shop"), table);
    proxy = await startProxy(primary);
    target = await openPostgresTarget(proxy.url("shop"), { settleMs: 10_000 });
    await target.pin(MARKER);
  });
  afterEach(async () => {
    await target?.close();
    await proxy?.close();
    await pair?.stop();
  });

  /** Asks the standby until it says so. */
  async function until(sql: string): Promise<void> {
    const client = await connect(standby.url("postgres"));
    try {
      for (let attempt = 0; (await client.rows(sql))[0]?.[0] !== "t"; attempt++) {
        if (attempt > 2_000) throw new Error(`the standby never said: ${sql}`);
        await setTimeout(25);
      }
    } finally {
      await client.close();
    }
  }
  async function caughtUp(): Promise<void> {
    const client = await connect(pair.primary.url("postgres"));
    try {
      const at = (await client.rows("SELECT pg_current_wal_insert_lsn()"))[0]?.[0];
      await until(`SELECT pg_last_wal_replay_lsn() >= '${at ?? ""}'`);
    } finally {
      await client.close();
    }
  }
  async function promote(): Promise<void> {
    await standby.exec(standby.url("postgres"), "SELECT pg_promote(false)");
    await until("SELECT NOT pg_is_in_recovery()");
  }

  async function untilCommit(): Promise<WriteSession> {
    const { effect } = await rehearseAll(target, sqlJob("UPDATE plain SET note = 'written' WHERE id = 1"));
    const session = await target.openWriter();
    await session.begin();
    expect(await session.write(sourceOf(effect), [])).toMatchObject({ written: 1, problems: [] });
    await session.markBatch({ run: "rn_1", wave: 1, batch: 1, rows: 1, at: MARKER.pinnedAt });
    await session.anchor({ ledger: MARKER.ledger, sequence: 9, head: MARKER.bundle });
    return session;
  }

  test("before its commit arrived: the new primary is on another timeline, and the outcome is unknown (43)", async () => {
    const session = await untilCommit();
    await caughtUp();
    await promote();
    proxy.cutCommit("before");
    proxy.leadTo(standby);
    const e = await refusal(() => session.commit());
    expect([e.code, exitOf(e)]).toEqual(["ERR_OUTCOME_UNKNOWN", 43]);
    await session.close();
  });

  test("after its commit arrived, and was lost with the old primary: unknown, although the new one has no mark", async () => {
    const session = await untilCommit();
    await caughtUp();
    // Promoted before the commit: the old primary commits what the new one will never see.
    await promote();
    proxy.cutCommit("after");
    proxy.leadTo(standby);
    const e = await refusal(() => session.commit());
    expect([e.code, exitOf(e)]).toEqual(["ERR_OUTCOME_UNKNOWN", 43]);
    await session.close();
    const now = await openPostgresTarget(proxy.url("shop"));
    try {
      expect(await now.batches("rn_1")).toEqual([]);
      const timelineOf = async (t: Target): Promise<string | undefined> =>
        (await t.identify()).signals.find((s) => s.source === "timeline")?.detail;
      expect(await timelineOf(now)).toBe("2");
    } finally {
      await now.close();
    }
  });

  test("a standby answers instead: it is no primary, so nothing is settled by it", async () => {
    const patient = await openPostgresTarget(proxy.url("shop"), { settleMs: 300 });
    await target.close();
    target = patient;
    const session = await untilCommit();
    await caughtUp();
    proxy.cutCommit("after");
    proxy.leadTo(standby);
    const e = await refusal(() => session.commit());
    expect([e.code, exitOf(e)]).toEqual(["ERR_OUTCOME_UNKNOWN", 43]);
    await session.close();
  });
});
