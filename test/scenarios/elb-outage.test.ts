/** S01 and S38: the flagship incident, blocked by the gate; done behind its back, and rescued without losing a write. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { ALL_WELL, Oracle } from "../support/oracle.js";
import { BIN, bytesOf, makeProject, type TestProject } from "../support/project.js";
import { DAMAGED_AT, ELB, JOB } from "./elb.js";

let project: TestProject;
beforeAll(() => {
  project = makeProject({ schema: ELB, target: "elb-prod", journal: "delete" });
});
afterAll(() => project.close());

const damage = ["--damage", `deleted_at = '${DAMAGED_AT}'`];

/** The day after: people work on, on healthy balancers and on damaged ones. */
function workOn(oracle: Oracle): void {
  for (let i = 1; i <= 40; i++) oracle.insert("balancers", { id: 1000 + i, name: `new ${i}` });
  for (let i = 0; i < 200; i++) oracle.set("back_ends", 341 + oracle.random(4660), "weight", 100 + i);
  for (let i = 0; i < 12; i++) oracle.set("back_ends", 30 + i * 3, "weight", 1000 + i);
  for (let i = 0; i < 3; i++) {
    // Their owners really retired these three: what the damage wrote is gone, and nobody may guess.
    oracle.set("back_ends", 100 + i, "deleted_at", "2012-12-24T21:00:00Z");
  }
  for (let balancer = 1; balancer <= 5; balancer++) {
    oracle.remove("balancers", balancer);
    for (let i = 1; i <= 5; i++) oracle.removedToo("back_ends", (balancer - 1) * 5 + i);
  }
}

describe("S01 a: through the gate", () => {
  test("the plan shows 340 rows of 68 balancers, and without a token nothing happens", () => {
    const before = bytesOf(project.database);
    const file = project.write("jobs/purge.sql", JOB);
    const made = project.json(["plan", file, "--on", "elb-prod", "--key", "keys/dana"]);
    expect(made.result).toMatchObject({
      effect: { rows: 340, tables: [{ table: "back_ends", insert: 0, update: 340, delete: 0 }] },
    });
    const refused = project.json(["apply", String(made.result["plan"]), "--confirm", "elb-prod"]);
    expect(refused.exit.code).toBe(21);
    expect(refused.target_changed).toBe("no");
    expect(bytesOf(project.database).equals(before)).toBe(true);
  });
});

describe("S01 b: behind the tool's back, then rescued", () => {
  let oracle: Oracle;
  let saved: string;
  beforeAll(() => {
    const taken = project.json([
      "snapshot",
      "take",
      "--on",
      "elb-prod",
      "--table",
      "back_ends",
      "--table",
      "balancers",
    ]);
    expect(taken.error).toBeNull();
    oracle = new Oracle(project.database, ["balancers", "back_ends"], 20121224);
    project.raw(JOB);
    workOn(oracle);
    saved = project.path("damaged.db");
    copyFileSync(project.database, saved);
  });

  test("log who names the time window of a row that no run touched", () => {
    const who = project.json(["log", "who", "--on", "elb-prod", "--table", "back_ends", "--key", "200"]);
    expect(who.result).toMatchObject({ runs: [], now: { id: 200, deleted_at: DAMAGED_AT } });
    expect(who.result["elsewhere"]).not.toBeNull();
  });

  test("undeclared, it decides nothing and writes nothing (37)", () => {
    const before = bytesOf(project.database);
    const report = project.json(["rescue", "--on", "elb-prod"]);
    expect(report.exit.code).toBe(37);
    expect(report.result).toMatchObject({ plan: null, counts: { put_back: 0, merged: 0, born: 40 } });
    expect(bytesOf(project.database).equals(before)).toBe(true);
  });

  test("declared, it restores what is certain, lists what is not; lost 0, resurrected 0", () => {
    const made = project.json(["rescue", "--on", "elb-prod", ...damage, "--key", "keys/dana"]);
    expect(made.exit.code).toBe(37);
    expect(made.error?.code).toBe("ERR_RESCUE_CONFLICT");
    expect(made.result).toMatchObject({
      counts: { put_back: 300, merged: 12, conflict: 3, undecidable: 0, removed: 30, born: 40 },
    });
    const conflicts = made.result["conflicts"];
    expect(conflicts).toHaveLength(3);
    expect(conflicts).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ column: "deleted_at", before: null, now: "2012-12-24T21:00:00Z" }),
      ]),
    );
    const plan = String(made.result["plan"]);
    project.approve(plan);
    expect(project.json(["apply", plan, "--confirm", "elb-prod"]).result).toMatchObject({
      rows: { planned: 312, written: 312 },
    });
    expect(oracle.judge()).toEqual(ALL_WELL);
    expect(project.run(["log", "verify"]).status).toBe(0);
  });

  test("again, it has nothing left to restore", () => {
    const again = project.json(["rescue", "--on", "elb-prod", ...damage]);
    expect(again.result).toMatchObject({ plan: null, counts: { put_back: 0, merged: 0, conflict: 3 } });
  });

  test("S38: killed while it applies, at every line that it says, it ends as if it had not been", async () => {
    for (let line = 1; line <= 5; line++) {
      copyFileSync(saved, project.database);
      const made = project.json(["rescue", "--on", "elb-prod", ...damage, "--key", "keys/dana"]);
      if (made.result["plan"] === null) throw new Error(JSON.stringify(made));
      const plan = String(made.result["plan"]);
      project.approve(plan);
      await killAtLine(["apply", plan, "--confirm", "elb-prod"], line);
      const again = project.json(["apply", plan, "--confirm", "elb-prod"]);
      expect([null, "ERR_APPROVAL_SPENT"]).toContain(again.error?.code ?? null);
      expect(oracle.judge()).toEqual(ALL_WELL);
      expect(project.run(["log", "verify"]).status).toBe(0);
    }
  }, 120_000);
});

/** Starts a command and kills it, without a chance to clean up, once it has said so many lines. */
async function killAtLine(args: readonly string[], line: number): Promise<void> {
  const child = spawn(process.execPath, [BIN, ...args], {
    cwd: project.dir,
    env: { PATH: process.env["PATH"] ?? "", HOME: project.path("home"), TZ: "UTC", LANG: "C.UTF-8" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let seen = 0;
  child.stderr.on("data", (text: Buffer) => {
    seen += text.toString().split("\n").length - 1;
    if (seen >= line) child.kill("SIGKILL");
  });
  await once(child, "close");
}
