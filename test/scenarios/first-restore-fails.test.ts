/** S03 and S42: snapshots that turn out to be bad when they are needed, and the drill that finds them before. */
import { copyFileSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { ALL_WELL, Oracle } from "../support/oracle.js";
import { bytesOf, makeProject, type TestProject } from "../support/project.js";
import { DAMAGED_AT, ELB, JOB } from "./elb.js";

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
    project.raw("UPDATE balancers SET name = name || '.'");
    empty = take("--table", "back_ends");
    flipped = take();
    project.raw("UPDATE balancers SET name = rtrim(name, '.')");
    truncateSync(join(folder(), `${empty}.hpsnap`), 0);
    flip(join(folder(), `${flipped}.hpchunks`), 700);
    oracle = new Oracle(project.database, ["balancers", "back_ends"]);
    project.raw(JOB);
    for (let i = 0; i < 20; i++) oracle.set("back_ends", 1000 + i, "weight", 7);
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

  test("asked for by name, the bad one is refused (36), the good one named, the target untouched", () => {
    const before = bytesOf(project.database);
    const refused = project.json([...args, "--from", flipped]);
    expect(refused.exit.code).toBe(36);
    expect(refused.error?.code).toBe("ERR_SNAPSHOT_UNVERIFIED");
    expect(JSON.stringify(refused.error)).toContain(`"--from","${good}"`);
    expect(bytesOf(project.database).equals(before)).toBe(true);
  });

  test("without a name the good one is found, the bad ones are rejected by name, and nothing is lost", () => {
    const made = project.json(args);
    expect(made.error).toBeNull();
    expect(made.result["snapshot"]).toBe(good);
    expect(made.result["rejected"]).toMatchObject([{ snapshot: flipped }, { snapshot: empty }]);
    expect(made.result).toMatchObject({ counts: { put_back: 340, conflict: 0 } });
    const plan = String(made.result["plan"]);
    project.approve(plan);
    expect(project.json(["apply", plan, "--confirm", "elb-prod"]).error).toBeNull();
    expect(oracle.judge()).toEqual(ALL_WELL);
    expect(project.run(["log", "verify"]).status).toBe(0);
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
    expect(project.json(["snapshot", "prune", older?.snapshot ?? ""]).result).toMatchObject({
      removed: [older?.snapshot],
    });
    expect(project.run(["snapshot", "verify", newest?.snapshot ?? ""]).status).toBe(0);
    expect(project.json(["snapshot", "verify", older?.snapshot ?? ""]).error?.code).toBe(
      "ERR_SNAPSHOT_UNKNOWN",
    );
    expect(project.json(["snapshot", "prune"]).error?.code).toBe("ERR_USAGE");
  });
});

describe("S42: the drill", () => {
  test("breaks and rescues a copy, measures, and writes it into the ledger; the target is equal", () => {
    const before = project.dump();
    const drilled = project.json(["snapshot", "drill", "--on", "elb-prod"]);
    expect(drilled.error).toBeNull();
    expect(drilled.result).toMatchObject({ lost: 0, missing: 0, broken: 340, restored: 340 });
    expect(Number(drilled.result["written"])).toBeGreaterThan(300);
    expect(Number(drilled.result["rescue_ms"])).toBeGreaterThan(0);
    expect(project.dump()).toBe(before);
    expect(project.run(["log", "verify"]).status).toBe(0);
  });

  test("a bad snapshot makes it fail loudly (36)", () => {
    const bad = take();
    flip(join(folder(), `${bad}.hpsnap`), 300);
    const drilled = project.json(["snapshot", "drill", "--on", "elb-prod", "--from", bad]);
    expect(drilled.exit.code).toBe(36);
    expect(project.run(["log", "verify"]).status).toBe(0);
  });
});
