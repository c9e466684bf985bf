/**
 * The whole road through the real binary: plan, approve, apply, undo, log. Every refusal here also holds that
 * the target is byte for byte, or row for row, what it was before.
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { jsonHere } from "../support/here.js";
import { bytesOf, copyDatabase, makeKey, makeProject, sign, type TestProject } from "../support/project.js";

const CANCEL = "UPDATE orders SET status = 'cancelled' WHERE status = 'pending' AND id <= 30";

let project: TestProject;
beforeEach(() => {
  project = makeProject();
});
afterEach(() => project.close());

/** Runs `act` and holds that the rows of the target are what they were. */
function unchanged<T>(act: () => T): T {
  const before = project.dump();
  const result = act();
  expect(project.dump()).toBe(before);
  return result;
}

/** Plans, approves and applies; gives plan and run. */
function applied(
  sql = CANCEL,
  more: readonly string[] = [],
): { readonly plan: string; readonly run: string } {
  const plan = project.plan(sql);
  project.approve(plan, "ravi", more);
  const done = project.json(["apply", plan, "--confirm", "shop-prod"]);
  expect(done.error).toBeNull();
  return { plan, run: String(done.result["run"]) };
}

describe("plan", () => {
  test("leaves the database file equal to the byte and tells the effect", () => {
    const before = bytesOf(project.database);
    const file = project.write("jobs/cancel.sql", CANCEL);
    const made = project.json(["plan", file, "--on", "shop-prod", "--key", "keys/dana"]);
    expect(bytesOf(project.database).equals(before)).toBe(true);
    expect(made).toMatchObject({ schema: "holdpoint/plan@1", ok: true, target_changed: "no", error: null });
    expect(made.result).toMatchObject({
      decision: "needs-approval",
      has_changes: true,
      effect: { rows: 20, tables: [{ table: "orders", insert: 0, update: 20, delete: 0 }] },
    });
    expect(String(made.result["plan"])).toMatch(/^pl_[0-9a-z]{16}$/);
    expect(existsSync(String(made.result["file"]))).toBe(true);
  });

  test("shows cascades that the job does not mention", () => {
    const file = project.write("jobs/gone.sql", "DELETE FROM customers WHERE id <= 3");
    const made = project.json(["plan", file, "--on", "shop-prod", "--key", "keys/dana"]);
    expect(made.result["effect"]).toMatchObject({
      tables: [
        { table: "customers", delete: 3 },
        { table: "orders", delete: 12 },
      ],
    });
  });

  test("binds parameters and never pastes them", () => {
    const file = project.write("jobs/note.sql", "UPDATE orders SET note = :note WHERE id = 1");
    const hostile = "x'; DELETE FROM orders; --";
    const made = project.json([
      "plan",
      file,
      "--on",
      "shop-prod",
      "--key",
      "keys/dana",
      "--set",
      `note=${hostile}`,
    ]);
    expect(made.result["effect"]).toMatchObject({ rows: 1 });
    const rows = project.json(["show", String(made.result["plan"]), "--rows"]);
    expect(rows.result["rows"]).toMatchObject([{ table: "orders", op: "update", after: { note: hostile } }]);
  });

  test("--detailed-exitcode ends with 20 when there are changes and 0 when there are none", () => {
    const file = project.write("jobs/cancel.sql", CANCEL);
    const plan = ["plan", "--on", "shop-prod", "--key", "keys/dana", "--detailed-exitcode"];
    expect(project.run([...plan, file]).status).toBe(20);
    expect(project.run([...plan, "hello"]).status).toBe(0);
  });

  test.each([
    ["no target", ["plan", "hello"], "ERR_USAGE"],
    ["a blank target", ["plan", "hello", "--on", ""], "ERR_TARGET_UNKNOWN"],
    ["an unknown target", ["plan", "hello", "--on", "shop-prd"], "ERR_TARGET_UNKNOWN"],
    ["an unknown job", ["plan", "helo", "--on", "shop-prod"], "ERR_JOB_UNKNOWN"],
    ["no job", ["plan", "--on", "shop-prod"], "ERR_USAGE"],
    ["an unknown flag", ["plan", "hello", "--on", "shop-prod", "--force"], "ERR_USAGE"],
    ["a blank reason", ["plan", "hello", "--on", "shop-prod", "--reason", " "], "ERR_USAGE"],
    ["an unknown parameter", ["plan", "hello", "--on", "shop-prod", "--set", "x=1"], "ERR_JOB_PARAMETER"],
  ])("refuses %s with 2", (_, args, code) => {
    const ended = unchanged(() => project.json(args));
    expect(ended).toMatchObject({ ok: false, exit: { code: 2 }, target_changed: "no", error: { code } });
  });

  test("refuses a job that touches holdpoint's own tables with 30", () => {
    const file = project.write("jobs/spent.sql", "DELETE FROM holdpoint_spent");
    const ended = unchanged(() => project.json(["plan", file, "--on", "shop-prod", "--key", "keys/dana"]));
    expect(ended.error?.code).toBe("ERR_MARKER_TOUCHED");
    expect(ended.exit.code).toBe(30);
  });

  test("refuses an effect outside the declared scope with 30", () => {
    project.write("jobs/gone.sql", "DELETE FROM customers WHERE id <= 3");
    const config = project.read("holdpoint.yaml");
    project.write(
      "holdpoint.yaml",
      config.replace("jobs:\n", "jobs:\n  gone:\n    sql: jobs/gone.sql\n    scope: [customers]\n"),
    );
    const ended = unchanged(() => project.json(["plan", "gone", "--on", "shop-prod", "--key", "keys/dana"]));
    expect(ended.error).toMatchObject({ code: "ERR_SCOPE_EXCEEDED" });
    expect(ended.error?.why).toContain("orders");
  });

  test("policy denies emptying a table, and the plan is shown all the same", () => {
    const file = project.write("jobs/all.sql", "DELETE FROM orders");
    const ended = unchanged(() => project.json(["plan", file, "--on", "shop-prod", "--key", "keys/dana"]));
    expect(ended).toMatchObject({ exit: { code: 30 }, error: { code: "ERR_POLICY_DENIED" } });
    expect(ended.result).toMatchObject({ decision: "deny", effect: { rows: 400 } });
  });

  test("without a key that the people file knows ends with 32", () => {
    const file = project.write("jobs/cancel.sql", CANCEL);
    expect(project.json(["plan", file, "--on", "shop-prod"]).error?.code).toBe("ERR_KEY_MISSING");
    makeKey(project.path("keys/eve"), "eve");
    const eve = project.json(["plan", file, "--on", "shop-prod", "--key", "keys/eve"]);
    expect(eve).toMatchObject({ exit: { code: 32 }, error: { code: "ERR_KEY_UNKNOWN" } });
  });
});

describe("apply", () => {
  test("writes exactly what was signed, once", () => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    const done = project.json(["apply", plan, "--confirm", "shop-prod"]);
    expect(done).toMatchObject({
      ok: true,
      target_changed: "yes",
      result: { rows: { planned: 20, written: 20 } },
    });
    expect(String(done.result["run"])).toMatch(/^rn_/);
    expect(String(done.result["snapshot"])).toMatch(/^sn_/);
    expect(project.rows("SELECT count(*) AS n FROM orders WHERE status = 'cancelled'")).toEqual([{ n: 20 }]);
    const again = unchanged(() => project.json(["apply", plan, "--confirm", "shop-prod"]));
    expect(again).toMatchObject({
      exit: { code: 31 },
      error: { code: "ERR_APPROVAL_SPENT" },
      target_changed: "no",
    });
  });

  test("equals running the job itself", () => {
    const sql =
      "DELETE FROM customers WHERE id % 7 = 0; UPDATE orders SET total = total * 1.1, note = 'x' WHERE id % 5 = 0; INSERT INTO customers VALUES (1001, 'new', NULL);";
    const other = makeProject();
    try {
      other.raw(sql);
      applied(sql);
      expect(project.dump()).toBe(other.dump());
    } finally {
      other.close();
    }
  });

  test("without approval ends with 21 and changes nothing", () => {
    const plan = project.plan(CANCEL);
    const before = bytesOf(project.database);
    const ended = project.json(["apply", plan, "--confirm", "shop-prod"]);
    expect(ended).toMatchObject({
      exit: { code: 21 },
      error: { code: "ERR_APPROVAL_NEEDED" },
      target_changed: "no",
    });
    expect(bytesOf(project.database).equals(before)).toBe(true);
  });

  test("without the target's name and without a terminal ends with 22", () => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    expect(unchanged(() => project.json(["apply", plan])).error?.code).toBe("ERR_INPUT_NEEDED");
    expect(unchanged(() => project.json(["apply", plan, "--confirm", "shop-stage"])).exit.code).toBe(2);
  });

  test("--dry-run makes every check and writes nothing", () => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    const ended = unchanged(() => project.json(["apply", plan, "--dry-run"]));
    expect(ended).toMatchObject({ ok: true, target_changed: "no", result: { run: null, dry_run: true } });
  });

  test("takes tokens from a file, from standard input and from the environment", () => {
    const other = makeProject();
    other.close();
    for (const how of ["file", "stdin", "env"] as const) {
      const plan = project.plan(`UPDATE orders SET note = '${how}' WHERE id = 7`);
      const token = project.approve(plan);
      // Another machine: the approval is not in its ledger. Here it is taken out of the picture by a fresh plan's own token.
      project.write("token.hpa", `${token}\n`);
      const base = ["apply", plan, "--confirm", "shop-prod"];
      const ended =
        how === "file"
          ? project.json([...base, "--approval", "token.hpa"])
          : how === "stdin"
            ? project.json([...base, "--approval", "-"], { input: token })
            : project.json(base, { env: { HOLDPOINT_APPROVAL: token } });
      expect(ended.error).toBeNull();
    }
  });

  test("a row that moved since the plan is drift (34), and nothing is written", () => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    project.raw("UPDATE orders SET status = 'paid' WHERE id = 1");
    const ended = unchanged(() => project.json(["apply", plan, "--confirm", "shop-prod"]));
    expect(ended).toMatchObject({
      exit: { code: 34 },
      error: { code: "ERR_DRIFT_ROWS" },
      target_changed: "no",
    });
  });

  test("a write to another column of a planned row, and to other rows, is no drift and survives", () => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    project.raw("UPDATE orders SET note = 'called' WHERE id = 1; UPDATE orders SET total = 1 WHERE id = 399");
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).error).toBeNull();
    expect(project.rows("SELECT status, note FROM orders WHERE id = 1")).toEqual([
      { status: "cancelled", note: "called" },
    ]);
  });

  test("a changed schema or a new trigger is drift (34)", () => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    project.raw("CREATE TRIGGER t AFTER UPDATE ON orders BEGIN DELETE FROM customers WHERE id = 99; END");
    const ended = unchanged(() => project.json(["apply", plan, "--confirm", "shop-prod"]));
    expect(ended).toMatchObject({ exit: { code: 34 }, error: { code: "ERR_DRIFT_SCHEMA" } });
  });
});

describe("approvals that do not count", () => {
  test("the requester cannot approve their own plan (31)", () => {
    const plan = project.plan(CANCEL);
    const ended = project.json(["approve", plan, "--prepare", "a.txt", "--as", "dana"]);
    expect(ended).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_APPROVAL_SELF" } });
    expect(existsSync(project.path("a.txt"))).toBe(false);
  });

  test("a second key of the requester is the requester (31)", () => {
    const two = makeProject({ people: ["dana", "ravi"], pin: false });
    try {
      makeKey(two.path("keys/dana2"), "dana2");
      const signers = two.read("people/allowed_signers");
      const line = signers.split("\n").find((l) => l.startsWith("dana ")) ?? "";
      const [, key] = /(ssh-ed25519 \S+)/.exec(two.read("keys/dana2.pub")) ?? [];
      two.write("people/allowed_signers", `${signers}${line.replace(/ssh-ed25519 \S+.*/, key ?? "")}\n`);
      expect(two.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]).status).toBe(0);
      const plan = two.plan(CANCEL);
      const prepared = two.json(["approve", plan, "--prepare", "a.txt", "--as", "ravi"]);
      expect(prepared.error).toBeNull();
      sign(two.path("keys/dana2"), "holdpoint-approval", two.path("a.txt"));
      const ended = two.json(["approve", plan, "--prepared", "a.txt", "--signature", "a.txt.sig"]);
      expect(ended.exit.code).toBe(31);
      expect(two.json(["apply", plan, "--confirm", "shop-prod"]).exit.code).toBe(21);
    } finally {
      two.close();
    }
  });

  test("a token for another plan (31)", () => {
    const one = project.plan(CANCEL);
    const two = project.plan("UPDATE orders SET note = 'x' WHERE id = 2");
    project.write("token.hpa", project.approve(one));
    const ended = unchanged(() =>
      project.json(["apply", two, "--confirm", "shop-prod", "--approval", "token.hpa"]),
    );
    expect(ended).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_APPROVAL_OTHER_PLAN" } });
  });

  test("an expired token (31)", async () => {
    const plan = project.plan(CANCEL);
    project.approve(plan, "ravi", ["--expires", "1s"]);
    await until(() => project.json(["apply", plan, "--dry-run"]).exit.code !== 0);
    const ended = unchanged(() => project.json(["apply", plan, "--confirm", "shop-prod"]));
    expect(ended).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_APPROVAL_EXPIRED" } });
  });

  test("a signature in another namespace (not recorded)", () => {
    const plan = project.plan(CANCEL);
    expect(project.run(["approve", plan, "--prepare", "a.txt", "--as", "ravi"]).status).toBe(0);
    sign(project.path("keys/ravi"), "holdpoint-plan", project.path("a.txt"));
    const ended = project.json(["approve", plan, "--prepared", "a.txt", "--signature", "a.txt.sig"]);
    expect(ended.ok).toBe(false);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).exit.code).toBe(21);
  });

  test("a stranger's signature (31)", () => {
    makeKey(project.path("keys/eve"), "eve");
    const plan = project.plan(CANCEL);
    expect(project.run(["approve", plan, "--prepare", "a.txt", "--as", "ravi"]).status).toBe(0);
    sign(project.path("keys/eve"), "holdpoint-approval", project.path("a.txt"));
    const ended = project.json(["approve", plan, "--prepared", "a.txt", "--signature", "a.txt.sig"]);
    expect(ended).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_APPROVAL_UNKNOWN_KEY" } });
  });

  test("approve without a terminal ends with 22", () => {
    const plan = project.plan(CANCEL);
    expect(project.json(["approve", plan, "--key", "keys/ravi"])).toMatchObject({
      exit: { code: 22 },
      error: { code: "ERR_INPUT_NEEDED" },
    });
  });

  test("a rejected plan can be neither approved nor applied (31)", () => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    const rejected = project.json([
      "reject",
      plan,
      "--reason",
      "paid orders must stay",
      "--key",
      "keys/ravi",
    ]);
    expect(rejected).toMatchObject({ ok: true, result: { person: "ravi", anchored: true } });
    const ended = unchanged(() => project.json(["apply", plan, "--confirm", "shop-prod"]));
    expect(ended).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_APPROVAL_REJECTED" } });
    expect(project.json(["approve", plan, "--prepare", "b.txt", "--as", "ravi"]).exit.code).toBe(31);
    expect(project.json(["reject", plan, "--reason", " ", "--key", "keys/ravi"]).ok).toBe(false);
  });
});

describe("bytes that were altered", () => {
  test("a plan file altered in any one byte is refused with 35", () => {
    const file = project.write("jobs/cancel.sql", CANCEL);
    const made = project.json([
      "plan",
      file,
      "--on",
      "shop-prod",
      "--key",
      "keys/dana",
      "--out",
      "out.hpplan",
    ]);
    project.approve(String(made.result["plan"]));
    const good = readFileSync(project.path("out.hpplan"));
    const before = project.dump();
    for (const at of sampled(good.length, 24)) {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] ?? 0) ^ 0x01;
      writeFileSync(project.path("bad.hpplan"), bad);
      const ended = project.json(["apply", "bad.hpplan", "--confirm", "shop-prod"]);
      expect({ at, code: ended.exit.code }).toEqual({ at, code: 35 });
    }
    for (const length of [1, good.length >> 1, good.length - 1]) {
      writeFileSync(project.path("bad.hpplan"), good.subarray(0, length));
      expect(project.json(["apply", "bad.hpplan", "--confirm", "shop-prod"]).exit.code).toBe(35);
    }
    expect(project.dump()).toBe(before);
  });

  test("the stored plan altered is refused with 35", () => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    const path = project.path(`.holdpoint/plans/${plan}.hpplan`);
    const bytes = readFileSync(path);
    const at = bytes.length - 40;
    bytes[at] = (bytes[at] ?? 0) ^ 0x80;
    writeFileSync(path, bytes);
    expect(unchanged(() => project.json(["apply", plan, "--confirm", "shop-prod"])).exit.code).toBe(35);
  });

  test("a token altered in any one byte is refused with 35", () => {
    const plan = project.plan(CANCEL);
    const token = project.approve(plan);
    const before = project.dump();
    for (const at of sampled(token.length, 24)) {
      const swapped = token[at] === "A" ? "B" : "A";
      project.write("token.hpa", token.slice(0, at) + swapped + token.slice(at + 1));
      const ended = project.json(["apply", plan, "--confirm", "shop-prod", "--approval", "token.hpa"]);
      expect({ at, code: ended.exit.code }).toEqual({ at, code: 35 });
    }
    expect(project.dump()).toBe(before);
  });
});

describe("another place", () => {
  test("a copy of the file elsewhere is another target until it is pinned (33)", () => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    copyDatabase(project.database, project.path("copy.db"));
    project.write(
      "holdpoint.yaml",
      project.read("holdpoint.yaml").replace("sqlite:shop.db", "sqlite:copy.db"),
    );
    expect(project.json(["apply", plan, "--confirm", "shop-prod"])).toMatchObject({
      exit: { code: 33 },
      target_changed: "no",
    });
    expect(project.json(["env", "check", "shop-prod"]).result).toMatchObject({
      verdict: "unproven",
      contradicted: true,
    });
    expect(project.json(["plan", "hello", "--on", "shop-prod"]).exit.code).toBe(33);
  });

  test("a restored copy under the same name is caught (33)", () => {
    copyDatabase(project.database, project.path("copy.db"));
    rmSync(project.database);
    renameSync(project.path("copy.db"), project.database);
    expect(project.json(["plan", "hello", "--on", "shop-prod"])).toMatchObject({
      exit: { code: 33 },
      error: { code: "ERR_ENV_CONTRADICTED" },
    });
  });

  test("another database under the same name is caught (33)", () => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    const other = makeProject();
    try {
      rmSync(`${project.database}-wal`, { force: true });
      rmSync(`${project.database}-shm`, { force: true });
      copyFileSync(other.database, project.database);
      copyDatabase(other.database, project.database);
      const ended = project.json(["apply", plan, "--confirm", "shop-prod"]);
      expect(ended.exit.code).toBe(33);
    } finally {
      other.close();
    }
  });

  test("a symlink to another database is caught (33)", () => {
    const other = makeProject();
    try {
      for (const suffix of ["", "-wal", "-shm"]) rmSync(project.database + suffix, { force: true });
      symlinkSync(other.database, project.database);
      expect(project.json(["plan", "hello", "--on", "shop-prod"]).exit.code).toBe(33);
    } finally {
      other.close();
    }
  });

  test("an unpinned target is unproven, guarded as production, and cannot be written", () => {
    const bare = makeProject({ pin: false, environment: "development" });
    try {
      expect(bare.json(["env", "check", "shop-prod"]).result).toMatchObject({
        verdict: "unproven",
        guarded_as: "production",
      });
      const plan = bare.plan(CANCEL);
      bare.approve(plan);
      const before = bare.dump();
      expect(bare.json(["apply", plan, "--confirm", "shop-prod"])).toMatchObject({
        exit: { code: 33 },
        error: { code: "ERR_ENV_NOT_PINNED" },
      });
      expect(bare.dump()).toBe(before);
    } finally {
      bare.close();
    }
  });

  test("a target that is not there ends with 39 and is not made", () => {
    project.write(
      "holdpoint.yaml",
      project.read("holdpoint.yaml").replace("sqlite:shop.db", "sqlite:gone.db"),
    );
    expect(project.json(["plan", "hello", "--on", "shop-prod"]).exit.code).toBe(39);
    expect(existsSync(project.path("gone.db"))).toBe(false);
  });
});

describe("another trust bundle than the pinned one (30)", () => {
  test.each([
    ["people", "people/allowed_signers", (t: string) => t.replace(/^dana .*$/m, "")],
    ["policy", "policies/production.yaml", (t: string) => `${t}\n# looser\n`],
    ["groups", "people/groups.yaml", (t: string) => t.replace("groups: {}", "groups: { dba: [ravi] }")],
    [
      "guarding configuration",
      "holdpoint.yaml",
      (t: string) => t.replace("environment: production", "environment: development"),
    ],
  ])("changed %s", (_, file, change) => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    project.write(file, change(project.read(file)));
    for (const args of [
      ["plan", "hello", "--on", "shop-prod"],
      ["apply", plan, "--confirm", "shop-prod"],
      ["approve", plan, "--prepare", "x.txt", "--as", "ravi"],
    ]) {
      const ended = unchanged(() => project.json(args));
      expect({ args, code: ended.error?.code, exit: ended.exit.code }).toEqual({
        args,
        code: "ERR_TRUST_BUNDLE",
        exit: 30,
      });
    }
  });

  test("an unreadable policy closes the gate", () => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    project.write("policies/production.yaml", "rules: [");
    expect([2, 30]).toContain(
      unchanged(() => project.json(["apply", plan, "--confirm", "shop-prod"])).exit.code,
    );
  });
});

describe("history that is not whole (35)", () => {
  test.each([
    ["deleted", (dir: string) => rmSync(join(dir, "ledger.db"))],
    [
      "deleted with its head",
      (dir: string) => ["ledger.db", "ledger.head"].forEach((f) => rmSync(join(dir, f), { force: true })),
    ],
    [
      "truncated file",
      (dir: string) =>
        writeFileSync(join(dir, "ledger.db"), readFileSync(join(dir, "ledger.db")).subarray(0, 4096)),
    ],
  ])("the ledger %s", (_, harm) => {
    const plan = project.plan(CANCEL);
    project.approve(plan);
    harm(project.path(".holdpoint"));
    const ended = unchanged(() => project.json(["apply", plan, "--confirm", "shop-prod"]));
    expect(ended.exit.code).toBe(35);
    expect(project.json(["log", "verify"]).exit.code).toBe(35);
  });

  test("a ledger restored from before the run does not replay the token", () => {
    const plan = project.plan(CANCEL);
    const token = project.approve(plan);
    mkdirSync(project.path("old"));
    for (const f of readdirSync(project.path(".holdpoint")).filter((n) => n.startsWith("ledger"))) {
      copyFileSync(project.path(`.holdpoint/${f}`), project.path(`old/${f}`));
    }
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).error).toBeNull();
    for (const f of readdirSync(project.path("old")))
      copyFileSync(project.path(`old/${f}`), project.path(`.holdpoint/${f}`));
    project.write("token.hpa", token);
    const ended = unchanged(() =>
      project.json(["apply", plan, "--confirm", "shop-prod", "--approval", "token.hpa"]),
    );
    expect(ended.exit.code).toBe(35);
    expect(project.json(["log", "verify"])).toMatchObject({
      exit: { code: 35 },
      error: { code: "ERR_LEDGER_BROKEN" },
    });
  });
});

describe("undo", () => {
  test("apply then undo under its cover is the identity", () => {
    const before = project.dump();
    const { run } = applied(
      "DELETE FROM customers WHERE id <= 5; UPDATE orders SET note = NULL, total = 0 WHERE id > 390; INSERT INTO customers VALUES (900, 'x', NULL)",
      ["--cover-undo", "48h"],
    );
    expect(project.dump()).not.toBe(before);
    const undone = project.json(["undo", run]);
    expect(undone).toMatchObject({
      ok: true,
      target_changed: "yes",
      result: { counts: { conflict: 0, merged: 0 } },
    });
    expect(project.dump()).toBe(before);
    expect(project.json(["log", "verify"]).ok).toBe(true);
  });

  test("a cover is used once", () => {
    const { run } = applied(CANCEL, ["--cover-undo", "48h"]);
    expect(project.json(["undo", run]).ok).toBe(true);
    const again = unchanged(() => project.json(["undo", run]));
    expect(again).toMatchObject({
      ok: true,
      target_changed: "no",
      result: { run: null, plan: null, counts: { nothing_to_do: 20 } },
    });
  });

  test("without a cover it becomes a plan to approve (21)", () => {
    const before = project.dump();
    const { run } = applied();
    const waits = project.json(["undo", run, "--key", "keys/dana"]);
    expect(waits).toMatchObject({
      exit: { code: 21 },
      target_changed: "no",
      result: { run: null, counts: { put_back: 20 } },
    });
    const plan = String(waits.result["plan"]);
    project.approve(plan);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).error).toBeNull();
    expect(project.dump()).toBe(before);
  });

  test("without any key it is planned all the same, and needs one more person", () => {
    const three = makeProject({ people: ["dana", "ravi", "lee"] });
    try {
      const plan = three.plan(CANCEL);
      three.approve(plan);
      const run = String(three.json(["apply", plan, "--confirm", "shop-prod"]).result["run"]);
      const waits = three.json(["undo", run]);
      expect(waits.exit.code).toBe(21);
      const undo = String(waits.result["plan"]);
      three.approve(undo, "ravi");
      expect(three.json(["apply", undo, "--confirm", "shop-prod"]).exit.code).toBe(21);
      three.approve(undo, "lee");
      expect(three.json(["apply", undo, "--confirm", "shop-prod"]).error).toBeNull();
    } finally {
      three.close();
    }
  });

  test("keeps what others wrote to other rows and other columns", () => {
    const { run } = applied(CANCEL, ["--cover-undo", "48h"]);
    project.raw(
      "UPDATE orders SET note = 'called' WHERE id = 1; UPDATE orders SET total = 9 WHERE id = 300; INSERT INTO customers VALUES (500, 'new', NULL)",
    );
    const merged = project.json(["undo", run, "--key", "keys/dana"]);
    expect(merged).toMatchObject({
      exit: { code: 21 },
      result: { counts: { put_back: 19, merged: 1, conflict: 0 } },
    });
    const plan = String(merged.result["plan"]);
    project.approve(plan);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).error).toBeNull();
    const other = makeProject();
    try {
      other.raw(
        "UPDATE orders SET note = 'called' WHERE id = 1; UPDATE orders SET total = 9 WHERE id = 300; INSERT INTO customers VALUES (500, 'new', NULL)",
      );
      expect(project.dump()).toBe(other.dump());
    } finally {
      other.close();
    }
  });

  test("stops at the same cell changed since (37) and lists before, wrote, now", () => {
    const { run } = applied(CANCEL, ["--cover-undo", "48h"]);
    project.raw("UPDATE orders SET status = 'refunded' WHERE id = 1");
    const ended = unchanged(() => project.json(["undo", run]));
    expect(ended).toMatchObject({
      exit: { code: 37 },
      target_changed: "no",
      error: { code: "ERR_UNDO_CONFLICT" },
      result: {
        counts: { put_back: 19, conflict: 1 },
        conflicts: [
          {
            table: "orders",
            key: { id: 1 },
            column: "status",
            before: "pending",
            wrote: "cancelled",
            now: "refunded",
          },
        ],
      },
    });
  });

  test("a reused key is two entities, never an update (37)", () => {
    const { run } = applied("DELETE FROM orders WHERE id = 5", ["--cover-undo", "48h"]);
    project.raw("INSERT INTO orders VALUES (5, 1, 'pending', 'another order', 1.0)");
    const ended = unchanged(() => project.json(["undo", run]));
    expect(ended).toMatchObject({ exit: { code: 37 }, result: { counts: { conflict: 1 } } });
    expect(ended.result["conflicts"]).toEqual(
      expect.arrayContaining([expect.objectContaining({ kind: "two-entities", key: { id: 5 } })]),
    );
  });

  test("does not resurrect what its owner removed", () => {
    const { run } = applied(CANCEL, ["--cover-undo", "48h"]);
    project.raw("DELETE FROM orders WHERE id = 1");
    const ended = project.json(["undo", run, "--key", "keys/dana"]);
    expect(ended.result).toMatchObject({ counts: { put_back: 19, nothing_to_do: 1 } });
    project.approve(String(ended.result["plan"]));
    expect(project.json(["apply", String(ended.result["plan"]), "--confirm", "shop-prod"]).error).toBeNull();
    expect(project.rows("SELECT count(*) AS n FROM orders WHERE id = 1")).toEqual([{ n: 0 }]);
  });

  test("an unknown run ends with 2", () => {
    expect(project.json(["undo", "rn_0000000000000000"])).toMatchObject({
      exit: { code: 2 },
      error: { code: "ERR_RUN_UNKNOWN" },
    });
  });
});

describe("reading", () => {
  test("show, status, log, trust and env check succeed and write nothing", () => {
    const { plan, run } = applied();
    unchanged(() => {
      for (const args of [
        ["show", plan],
        ["show", run],
        ["show", plan, "--rows"],
        ["show", plan, "--format", "markdown"],
        ["show", plan, "--sql", "SELECT op, count(*) FROM orders GROUP BY op"],
        ["status"],
        ["status", plan],
        ["log"],
        ["log", "show", run],
        ["log", "verify"],
        ["trust", "show"],
        ["env", "check", "shop-prod"],
        ["env", "list"],
        ["explain", "ERR_DRIFT_ROWS"],
      ]) {
        const ended = project.run(args);
        expect({ args, status: ended.status, stderr: ended.stderr }).toMatchObject({ args, status: 0 });
        expect(ended.stdout.length).toBeGreaterThan(10);
      }
    });
    expect(
      project.json(["show", plan, "--sql", "SELECT op, count(*) AS n FROM orders GROUP BY op"]).result,
    ).toMatchObject({
      columns: ["op", "n"],
      rows: [["update", 20]],
    });
    expect(project.json(["status", plan]).result["plans"]).toMatchObject([{ plan, state: "applied", run }]);
  });

  test("a unique prefix of an id is enough, an unknown one ends with 2", () => {
    const plan = project.plan(CANCEL);
    expect(project.run(["show", plan.slice(0, 8)]).status).toBe(0);
    expect(project.json(["show", "pl_zzzz"])).toMatchObject({
      exit: { code: 2 },
      error: { code: "ERR_PLAN_UNKNOWN" },
    });
  });

  test("every refusal has a line on stderr and says whether anything was written", () => {
    const ended = project.run(["apply", "pl_zzzz"]);
    expect(ended.status).toBe(2);
    expect(ended.stdout).toBe("");
    expect(ended.stderr).toContain("ERR_PLAN_UNKNOWN");
    expect(ended.stderr).toContain("Nothing was written");
  });

  test("init overwrites nothing (2), and without flags and terminal asks for them (22)", async () => {
    const config = project.read("holdpoint.yaml");
    expect(project.json(["init", "--target", "x", "--url", "sqlite:x.db"])).toMatchObject({
      exit: { code: 2 },
      error: { code: "ERR_CONFIG_EXISTS" },
    });
    expect(project.read("holdpoint.yaml")).toBe(config);
    const empty = { dir: join(project.dir, "empty") };
    mkdirSync(empty.dir);
    expect((await jsonHere(empty, ["init"])).exit.code).toBe(22);
  });

  test("an undo without a key waits for one person more, and says how it would not (21)", () => {
    const plan = project.plan("UPDATE orders SET note = 'x' WHERE id = 1");
    project.approve(plan);
    const run = String(project.json(["apply", plan, "--confirm", "shop-prod"]).result["run"]);
    const ended = project.json(["undo", run]);
    expect(ended).toMatchObject({ exit: { code: 21 }, target_changed: "no" });
    expect(ended.error).toMatchObject({
      next: [{ argv: ["holdpoint", "undo", run, "--key", "KEY"] }, {}, {}],
    });
  });

  test("pinning again is refused (33)", () => {
    expect(project.json(["env", "pin", "shop-prod", "--confirm", "shop-prod"])).toMatchObject({
      exit: { code: 33 },
      error: { code: "ERR_ENV_PINNED_ALREADY" },
    });
  });

  test("the requester's own signature can be checked with ssh-keygen alone", () => {
    const plan = project.plan(CANCEL);
    const token = project.approve(plan);
    const [, statement, signature] = token.split(".");
    writeFileSync(project.path("statement"), Buffer.from(statement ?? "", "base64url"));
    const armored = (
      Buffer.from(signature ?? "", "base64url")
        .toString("base64")
        .match(/.{1,70}/g) ?? []
    ).join("\n");
    project.write(
      "statement.sig",
      `-----BEGIN SSH SIGNATURE-----\n${armored}\n-----END SSH SIGNATURE-----\n`,
    );
    const checked = spawnSync(
      "ssh-keygen",
      [
        "-Y",
        "verify",
        "-f",
        "people/allowed_signers",
        "-I",
        "ravi",
        "-n",
        "holdpoint-approval",
        "-s",
        "statement.sig",
      ],
      { cwd: project.dir, input: readFileSync(project.path("statement")), encoding: "utf8" },
    );
    expect({ status: checked.status, out: checked.stdout }).toMatchObject({ status: 0 });
    expect(checked.stdout).toContain('Good "holdpoint-approval" signature for ravi');
  });
});

/** Positions spread over a length: the ends, and what lies between. */
function sampled(length: number, count: number): readonly number[] {
  const step = Math.max(1, Math.floor(length / count));
  const positions = new Set([0, 1, length - 1]);
  for (let at = 0; at < length; at += step) positions.add(at);
  return [...positions];
}

/** Waits for what the clock brings, within reason. */
async function until(holds: () => boolean): Promise<void> {
  for (let tries = 0; tries < 40 && !holds(); tries++) await new Promise((done) => setTimeout(done, 200));
}
