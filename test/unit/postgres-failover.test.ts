/**
 * The primary changes while a run is under way: a standby with everything, or with everything but the last commit, is
 * promoted and answers at the same address. It has marker, system identifier and oid of the one before; only its timeline
 * is another, and what became of the commit is never guessed.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "@jest/globals";
import { exitOf } from "../../src/cli/exit-codes.js";
import { sourceOf } from "../../src/changeset/source.js";
import type { Marker } from "../../src/target/marker.js";
import type { Target, WriteSession } from "../../src/target/target.js";
import { onPostgres } from "../support/on-postgres.js";
import { startServer, startStandby, type TestServer, type TestStandby } from "../support/postgres.js";
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
  let primary: TestServer;
  let standby: TestStandby;
  let proxy: TestProxy;
  let target: Target;

  beforeAll(async () => {
    primary = await startServer();
  });
  afterAll(async () => {
    await primary?.stop();
  });
  beforeEach(async () => {
    await primary.exec(
      primary.url("postgres"),
      "DROP DATABASE IF EXISTS shop WITH (FORCE)",
      "CREATE DATABASE shop",
    );
    await primary.exec(
      primary.url("shop"),
      "CREATE TABLE plain (id integer PRIMARY KEY, note text); INSERT INTO plain VALUES (1, 'n')",
    );
    proxy = await startProxy(primary);
    target = await openPostgresTarget(proxy.url("shop"), { settleMs: 10_000 });
    await target.pin(MARKER);
    standby = await startStandby(primary);
  });
  afterEach(async () => {
    await target?.close();
    await proxy?.close();
    await standby?.stop();
  });

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
    await standby.caughtUp();
    await standby.promote();
    proxy.cutCommit("before");
    proxy.leadTo(standby);
    const e = await refusal(() => session.commit());
    expect([e.code, exitOf(e)]).toEqual(["ERR_OUTCOME_UNKNOWN", 43]);
    await session.close();
  });

  test("after its commit arrived, and was lost with the old primary: unknown, although the new one has no mark", async () => {
    const session = await untilCommit();
    await standby.caughtUp();
    // Promoted before the commit: the old primary commits what the new one will never see.
    await standby.promote();
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
    await standby.caughtUp();
    proxy.cutCommit("after");
    proxy.leadTo(standby);
    const e = await refusal(() => session.commit());
    expect([e.code, exitOf(e)]).toEqual(["ERR_OUTCOME_UNKNOWN", 43]);
    await session.close();
  });
});
