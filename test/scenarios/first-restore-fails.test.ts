/** S03 and S42: snapshots that turn out to be bad when they are needed, and the drill that finds them before. */
import { randomBytes } from "node:crypto";
import { copyFileSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import type { Entry } from "../../src/ledger/entry.js";
import { openLedger } from "../../src/storage/ledger.js";
import { ALL_WELL, Oracle } from "../support/oracle.js";
import { bytesOf, makeProject, type TestProject } from "../support/project.js";
import { DAMAGED_AT, ELB, JOB, workOn } from "./elb.js";

let project: TestProject;
beforeAll(() => {
  project = makeProject({ schema: ELB, target: "elb-prod", journal: "delete" });
});
afterAll(() => project.close());

const folder = (): string => project.path(".holdpoint/snapshots");
const take = (...more: string[]): string => {
  const taken = project.json(["snapshot", "take", "--on", "elb-prod", ...more]);
  expect(taken.error).toBeNull();
  return String(taken.result["snapshot"]);
};

/** One byte, somewhere in the file, is not what was written. */
function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

describe("S03: the newest snapshot has a flipped byte, the next is empty, the third is good", () => {
  let good: string;
  let empty: string;
  let flipped: string;
  let oracle: Oracle;
  beforeAll(() => {
    good = take();
    // A little is new each time, as every night: the newer ones share most of their pages with the good one.
    project.raw("UPDATE balancers SET name = name || '.' WHERE id > 990");
    empty = take();
    project.raw("UPDATE balancers SET name = rtrim(name, '.') WHERE id > 990");
    flipped = take("--table", "balancers", "--table", "back_ends");
    truncateSync(join(folder(), `${empty}.hpsnap`), 0);
    const path = join(folder(), `${flipped}.hpsnap`);
    flip(path, Math.floor(readFileSync(path).length / 2));
    oracle = new Oracle(project.database, ["balancers", "back_ends"], 20121225);
    project.raw(JOB);
    workOn(oracle);
  });

  const args = [
    "rescue",
    "--on",
    "elb-prod",
    "--damage",
    `deleted_at = '${DAMAGED_AT}'`,
    "--key",
    "keys/dana",
  ];

  test("asked for by name, each bad one is refused (36), the good one named, the target untouched", () => {
    const before = bytesOf(project.database);
    for (const bad of [flipped, empty]) {
      const refused = project.json([...args, "--from", bad]);
      expect(refused).toMatchObject({
        exit: { code: 36 },
        target_changed: "no",
        error: { code: "ERR_SNAPSHOT_UNVERIFIED" },
      });
      expect(JSON.stringify(refused.error)).toContain(`"--from","${good}"`);
    }
    expect(bytesOf(project.database).equals(before)).toBe(true);
  });

  test("without a name the good one is found, the bad ones are rejected by name, and nothing is lost", () => {
    const before = bytesOf(project.database);
    const made = project.json(args);
    expect(made.result["snapshot"]).toBe(good);
    expect(made.result["rejected"]).toMatchObject([{ snapshot: flipped }, { snapshot: empty }]);
    // As in S01: three were really retired by their owners, who alone can say what they are.
    expect([made.exit.code, made.target_changed]).toEqual([37, "no"]);
    expect(made.result).toMatchObject({
      counts: { put_back: 300, merged: 12, conflict: 3, undecidable: 0, removed: 30, born: 40 },
    });
    expect(bytesOf(project.database).equals(before)).toBe(true);
    const screen = project.run(args);
    for (const id of [good, flipped, empty]) expect(screen.stdout + screen.stderr).toContain(id);
    expect(bytesOf(project.database).equals(before)).toBe(true);
    const plan = String(made.result["plan"]);
    project.approve(plan);
    expect(project.json(["apply", plan, "--confirm", "elb-prod"]).result).toMatchObject({
      rows: { planned: 312, written: 312 },
    });
    expect(oracle.judge()).toEqual(ALL_WELL);
    expect(project.run(["log", "verify"]).status).toBe(0);
  });

  test("with none that is good there is no rescue (36), and the target is untouched", () => {
    const path = join(folder(), `${good}.hpsnap`);
    copyFileSync(path, project.path("kept"));
    flip(path, 40);
    const before = bytesOf(project.database);
    const refused = project.json(args);
    expect([refused.exit.code, refused.target_changed]).toEqual([36, "no"]);
    for (const id of [good, flipped, empty]) expect(JSON.stringify(refused)).toContain(id);
    expect(bytesOf(project.database).equals(before)).toBe(true);
    copyFileSync(project.path("kept"), path);
  });

  test("verify and restore refuse the bad ones (36) and leave no file behind", () => {
    for (const id of [flipped, empty]) {
      expect(project.json(["snapshot", "verify", id]).exit.code).toBe(36);
      expect(project.json(["snapshot", "restore", id, "--to", "restored.db"]).exit.code).toBe(36);
    }
    expect(readdirSync(project.dir)).not.toContain("restored.db");
  });

  test("a restore makes something new: equal to what was kept, and never over a file or beside a log", () => {
    expect(project.json(["snapshot", "restore", good, "--to", "elb.copy"]).error).toBeNull();
    expect(bytesOf(project.path("elb.copy")).length).toBeGreaterThan(100_000);
    expect(project.json(["snapshot", "restore", good, "--to", "elb.copy"]).error?.code).toBe(
      "ERR_SNAPSHOT_PLACE",
    );
    project.write("fresh.db-wal", "left behind");
    expect(project.json(["snapshot", "restore", good, "--to", "fresh.db"]).error?.code).toBe(
      "ERR_SNAPSHOT_PLACE",
    );
  });
});

describe("every byte of a snapshot counts", () => {
  test("a byte flipped anywhere, a missing, a truncated and a swapped pack are found", () => {
    const first = take();
    project.raw("UPDATE back_ends SET weight = weight + 1 WHERE id % 97 = 0");
    const second = take();
    const paths = [`${first}.hpsnap`, `${first}.hpchunks`, `${second}.hpsnap`].map((f) => join(folder(), f));
    const verify = (id: string): number => project.run(["snapshot", "verify", id]).status;
    expect([verify(first), verify(second)]).toEqual([0, 0]);
    const kept = project.path("kept");
    for (const path of paths) {
      copyFileSync(path, kept);
      const { length } = readFileSync(path);
      for (const at of [3, Math.floor(length / 3), length - 5]) {
        flip(path, at);
        expect(verify(path.includes(second) ? second : first)).toBe(36);
        copyFileSync(kept, path);
      }
    }
    const [, pack = ""] = paths;
    copyFileSync(pack, kept);
    truncateSync(pack, 1000);
    expect(verify(first)).toBe(36);
    rmSync(pack);
    expect(verify(first)).toBe(36);
    copyFileSync(join(folder(), `${second}.hpchunks`), pack);
    expect(verify(first)).toBe(36);
    copyFileSync(kept, pack);
    expect(verify(first)).toBe(0);
  }, 60_000);

  test("prune destroys pages that no other snapshot needs, and the others stay whole", () => {
    const list = (): { snapshot: string; damage: string | null }[] =>
      project.json(["snapshot", "list"]).result["snapshots"] ?? [];
    const [newest, older] = list().filter((s) => s.damage === null);
    // One that stays and cannot be read may need any page of the others, until it goes too.
    const refused = project.json(["snapshot", "prune", older?.snapshot ?? ""]);
    expect([refused.exit.code, refused.error?.code]).toEqual([36, "ERR_SNAPSHOT_UNVERIFIED"]);
    const going = [older, ...list().filter((s) => s.damage !== null)].map((s) => s?.snapshot ?? "");
    expect(project.json(["snapshot", "prune", ...going]).result).toMatchObject({
      removed: expect.arrayContaining(going) as unknown,
    });
    expect(project.run(["snapshot", "verify", newest?.snapshot ?? ""]).status).toBe(0);
    expect(project.json(["snapshot", "verify", older?.snapshot ?? ""]).error?.code).toBe(
      "ERR_SNAPSHOT_UNKNOWN",
    );
    expect(project.json(["snapshot", "prune"]).error?.code).toBe("ERR_USAGE");
  });
});

describe("S42: the drill", () => {
  /** What the ledger says of drills, oldest first. */
  const drills = async (): Promise<readonly Entry[]> => {
    const ledger = await openLedger(project.path(".holdpoint"), {
      clock: { now: () => new Date() },
      random: randomBytes,
    });
    try {
      return [...ledger.entries({ kinds: ["drilled"] })].map(({ entry }) => entry);
    } finally {
      ledger.close();
    }
  };

  test("night after night: breaks and rescues a copy, measures, and writes it into the ledger; the target is equal", async () => {
    for (const night of [1, 2]) {
      const before = bytesOf(project.database);
      const drilled = project.json(["snapshot", "drill", "--on", "elb-prod"]);
      expect([drilled.error, drilled.target_changed]).toEqual([null, "no"]);
      const { result } = drilled;
      expect(result).toMatchObject({ lost: 0, missing: 0 });
      // The share of 24 December 2012, all of it brought back, beside the writes of others.
      const { n } = (project.rows("SELECT count(*) AS n FROM back_ends") as [{ n: number }])[0];
      expect(result["broken"]).toBe(Math.floor(n * 0.068));
      expect(result["restored"]).toBe(result["broken"]);
      expect(Number(result["written"])).toBeGreaterThan(300);
      for (const ms of ["take_ms", "restore_ms", "rescue_ms"]) expect(Number(result[ms])).toBeGreaterThan(0);
      expect(bytesOf(project.database).equals(before)).toBe(true);
      expect(filesBelow(project.path(".holdpoint/changes"))).toEqual([]);
      expect(await drills()).toHaveLength(night);
      expect((await drills()).at(-1)).toMatchObject({
        target: "elb-prod",
        facts: { ok: true, lost: 0, missing: 0, snapshot: result["snapshot"], rescueMs: result["rescue_ms"] },
      });
      project.raw("UPDATE back_ends SET weight = weight + 1 WHERE id % 50 = 7");
      expect(project.run(["log", "verify"]).status).toBe(0);
    }
  });

  test("a bad snapshot makes it fail loudly (36), however it is bad, and the ledger keeps that", async () => {
    const other = take();
    project.raw("UPDATE back_ends SET weight = weight + 1 WHERE id % 50 = 8");
    const bad = take();
    const [manifest, pack] = [`${bad}.hpsnap`, `${bad}.hpchunks`].map((f) => join(folder(), f)) as [
      string,
      string,
    ];
    const damages: readonly (() => void)[] = [
      () => flip(manifest, 300),
      () => flip(pack, 500),
      () => truncateSync(pack, Math.floor(readFileSync(pack).length / 2)),
      () => truncateSync(manifest, 0),
      () => copyFileSync(join(folder(), `${other}.hpchunks`), pack),
      () => copyFileSync(join(folder(), `${other}.hpsnap`), manifest),
      () => rmSync(pack),
    ];
    const before = bytesOf(project.database);
    for (const [i, spoil] of damages.entries()) {
      for (const path of [manifest, pack]) copyFileSync(path, `${path}.kept`);
      spoil();
      const known = (await drills()).length;
      const drilled = project.run(["snapshot", "drill", "--on", "elb-prod", "--from", bad]);
      expect([i, drilled.status, drilled.stderr]).toEqual([
        i,
        36,
        expect.stringContaining("ERR_SNAPSHOT_UNVERIFIED"),
      ]);
      expect(drilled.stderr).toContain(bad);
      expect((await drills()).slice(known)).toMatchObject([
        { facts: { ok: false, code: "ERR_SNAPSHOT_UNVERIFIED", snapshot: bad } },
      ]);
      for (const path of [manifest, pack]) {
        copyFileSync(`${path}.kept`, path);
        rmSync(`${path}.kept`);
      }
    }
    expect(bytesOf(project.database).equals(before)).toBe(true);
    expect(filesBelow(project.path(".holdpoint/changes"))).toEqual([]);
    expect(project.json(["snapshot", "drill", "--on", "elb-prod", "--from", bad]).error).toBeNull();
    expect(project.run(["log", "verify"]).status).toBe(0);
  }, 120_000);
});

const filesBelow = (folder: string): readonly string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile())
    .map((e) => e.name);
