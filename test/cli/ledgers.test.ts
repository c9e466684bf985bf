/**
 * `ledgers: many`: machines that keep ledgers of their own share a target. What one of them could lose lies in the target,
 * so a machine without history may begin one, and a machine with history must still have all of it.
 */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { makeProject, projectAt, type TestProject } from "../support/project.js";

let laptop: TestProject;
const runners: TestProject[] = [];

/** A runner: the checkout, the target's address, and an empty disk. */
function runner(): TestProject {
  const dir = mkdtempSync(join(tmpdir(), "holdpoint-runner-"));
  for (const part of ["holdpoint.yaml", "policies", "people", "keys", "jobs", ".gitignore"])
    cpSync(laptop.path(part), join(dir, part), { recursive: true });
  const made = projectAt(dir, laptop.database, "shop-prod");
  runners.push(made);
  return made;
}

beforeAll(() => {
  laptop = makeProject({ pin: false });
  const config = laptop
    .read("holdpoint.yaml")
    .replace("sqlite:shop.db", `sqlite:${laptop.database}`)
    .replace(/^( +)environment: production.*$/m, "$&\n$1ledgers: many");
  laptop.write("holdpoint.yaml", config);
  laptop.write(
    "policies/daily.yaml",
    "format: holdpoint-policy/1\nname: daily\nenvironments: [production]\nrules:\n" +
      "  - id: daily\n    when: history.rows_last_day > 50\n    then: deny\n    because: enough for one day\n",
  );
  const pinned = laptop.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
  laptop.write("jobs/cancel.sql", "UPDATE orders SET status = 'cancelled' WHERE id = 1");
});
afterAll(() => {
  for (const p of [laptop, ...runners]) p.close();
});

/** Planned on the laptop, with a file to hand over and a token for it. */
function approved(sql: string): { readonly plan: string; readonly token: string } {
  const plan = laptop.plan(sql, ["--out", `handed-${runners.length}.hpplan`]);
  const token = laptop.approve(plan, "ravi", ["--cover-undo", "1h"]);
  return { plan: laptop.path(`handed-${runners.length}.hpplan`), token };
}
const apply = (on: TestProject, plan: string, token: string): ReturnType<TestProject["json"]> => {
  on.write("token.hpa", token);
  return on.json(["apply", plan, "--approval", "token.hpa", "--confirm", "shop-prod"]);
};

describe("a plan made here, applied by a machine with an empty disk", () => {
  test("applies once: spent for every machine, and the next runner has history of its own", () => {
    const { plan, token } = approved("UPDATE orders SET note = 'one' WHERE id = 1");
    const first = runner();
    const applied = apply(first, plan, token);
    expect(applied.error).toBeNull();
    expect(first.json(["log", "verify"]).error).toBeNull();
    for (const other of [laptop, runner()]) {
      const again = apply(other, plan, token);
      expect([again.exit.code, again.error?.code]).toEqual([31, "ERR_APPROVAL_SPENT"]);
    }
    // The cover that came with the token is known where the run is: the undo needs nobody.
    const undone = first.json(["undo", String(applied.result["run"]), "--confirm", "shop-prod"]);
    expect(undone.error).toBeNull();
    expect(laptop.rows("SELECT note FROM orders WHERE id = 1")).toEqual([{ note: null }]);
  });

  test("its ledger put back to before the run lacks what the target anchors: 35", () => {
    const { plan, token } = approved("UPDATE orders SET note = 'two' WHERE id = 2");
    const one = runner();
    expect(one.json(["plan", "jobs/cancel.sql", "--on", "shop-prod", "--key", "keys/dana"]).error).toBeNull();
    const copy = one.path("store-before");
    cpSync(one.path(".holdpoint"), copy, { recursive: true });
    expect(apply(one, plan, token).error).toBeNull();
    rmSync(one.path(".holdpoint"), { recursive: true });
    cpSync(copy, one.path(".holdpoint"), { recursive: true });
    const refused = one.json(["plan", "jobs/cancel.sql", "--on", "shop-prod", "--key", "keys/dana"]);
    expect([refused.exit.code, refused.error?.code]).toEqual([35, "ERR_LEDGER_BROKEN"]);
  });

  test("a rejection made on one machine stops the plan on every other", () => {
    const { plan, token } = approved("UPDATE orders SET note = 'three' WHERE id = 3");
    const one = runner();
    expect(one.json(["reject", plan, "--reason", "not today", "--key", "keys/ravi"]).error).toBeNull();
    const refused = apply(runner(), plan, token);
    expect([refused.exit.code, refused.error?.code]).toEqual([31, "ERR_APPROVAL_REJECTED"]);
  });

  test("what policy asks of earlier runs is what all machines did, not what this one remembers", () => {
    const { plan, token } = approved("UPDATE orders SET note = 'four' WHERE id BETWEEN 101 AND 180");
    expect(apply(runner(), plan, token).error).toBeNull();
    laptop.write("jobs/more.sql", "UPDATE orders SET note = 'five' WHERE id BETWEEN 201 AND 240");
    const more = runner();
    const refused = more.json(["plan", "jobs/more.sql", "--on", "shop-prod", "--key", "keys/dana"]);
    expect(refused.result["decision"]).toBe("deny");
    expect(JSON.stringify(refused.result["rules"])).toContain("daily");
  });
});

test("without `ledgers: many` an empty disk is refused (35)", () => {
  const own = makeProject();
  try {
    const dir = mkdtempSync(join(tmpdir(), "holdpoint-runner-"));
    for (const part of ["holdpoint.yaml", "policies", "people", "keys", "jobs", ".gitignore"])
      cpSync(own.path(part), join(dir, part), { recursive: true });
    const other = projectAt(dir, own.database, "shop-prod");
    runners.push(other);
    other.write(
      "holdpoint.yaml",
      other.read("holdpoint.yaml").replace("sqlite:shop.db", `sqlite:${own.database}`),
    );
    const refused = other.json(["plan", "jobs/hello.sql", "--on", "shop-prod", "--key", "keys/dana"]);
    expect([refused.exit.code, refused.error?.code]).toEqual([35, "ERR_LEDGER_MISSING"]);
    other.write(
      "holdpoint.yaml",
      other.read("holdpoint.yaml").replace(/^( +)environment: production.*$/m, "$&\n$1ledgers: many"),
    );
    // Writing it into the checkout is a change of the bundle: it takes the old quorum, not an editor.
    const edited = other.json(["plan", "jobs/hello.sql", "--on", "shop-prod", "--key", "keys/dana"]);
    expect([edited.exit.code, edited.error?.code]).toEqual([30, "ERR_TRUST_BUNDLE"]);
  } finally {
    own.close();
  }
});
