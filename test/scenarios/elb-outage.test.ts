/** S01 and S38: the flagship incident, blocked by the gate; done behind its back, and rescued without losing a write. */
import { copyFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import type { Fault } from "../support/fault.js";
import { restore, save, Sufferer } from "../support/faults.js";
import { ALL_WELL, Oracle } from "../support/oracle.js";
import { bytesOf, dumpOf, makeProject, type TestProject } from "../support/project.js";
import { DAMAGED_AT, ELB, JOB, workOn } from "./elb.js";

let project: TestProject;
beforeAll(() => {
  project = makeProject({ schema: ELB, target: "elb-prod", journal: "delete" });
});
afterAll(() => project.close());

const damage = ["--damage", `deleted_at = '${DAMAGED_AT}'`];

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

  test("S38: killed at 20 random instants and met by a full disk, while it is made and while it is written", async () => {
    copyFileSync(saved, project.database);
    const sufferer = new Sufferer(project);
    try {
      const making = { kind: "rescue", on: "elb-prod", damage: `deleted_at = '${DAMAGED_AT}'` } as const;
      save(project);
      const made = await sufferer.unbroken(making);
      for (let i = 0; i < 10; i++) {
        restore(project);
        await sufferer.run(making, { kind: "kill-time", at: oracle.random(Math.ceil(made.tookMs)) });
        expect(project.dump()).toBe(dumpOf(saved)); // whatever happens while a plan is made, the target is as it was
      }
      restore(project);
      const plan = String(
        project.json(["rescue", "--on", "elb-prod", ...damage, "--key", "keys/dana"]).result["plan"],
      );
      project.approve(plan);
      save(project);
      const act = { kind: "apply", plan } as const;
      const whole = await sufferer.unbroken(act);
      const faults: readonly Fault[] = [
        ...Array.from(
          { length: 10 },
          () => ({ kind: "kill-time", at: oracle.random(Math.ceil(whole.tookMs)) }) as const,
        ),
        { kind: "disk-full", at: Math.ceil(whole.counted.files / 2) },
      ];
      for (const fault of faults) {
        restore(project);
        await sufferer.run(act, fault);
        const again = project.json(["apply", plan, "--confirm", "elb-prod"]);
        expect([null, "ERR_APPROVAL_SPENT"]).toContain(again.error?.code ?? null);
        expect([fault, oracle.judge()]).toEqual([fault, ALL_WELL]);
      }
      expect(project.run(["log", "verify"]).status).toBe(0);
    } finally {
      await sufferer.close();
    }
  }, 300_000);
});
