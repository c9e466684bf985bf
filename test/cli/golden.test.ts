/**
 * Every command's screens, kept in `test/golden/`: four widths, each through another channel, and in colour at a terminal.
 * `UPDATE_GOLDEN=1` writes what is drawn now; review the difference. `HOLDPOINT_GOLDEN=all` draws every width through
 * every channel. The same shots hold that nothing is wider than its paper, that every refusal says its code and whether
 * anything was written, and that every document fits its published schema.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { beforeAll, describe, expect, test } from "@jest/globals";
import { Command } from "commander";
import { COMMANDS } from "../../src/cli/commands/index.js";
import { documentSchema } from "../../src/render/documents.js";
import { Gallery, galleryText, type Wall } from "../support/golden.js";
import { jsonHere, runHere } from "../support/here.js";
import { misfits } from "../support/json-schema.js";
import { makeProject, type ProjectOptions, sign, type TestProject } from "../support/project.js";

const FOLDER = resolve(import.meta.dirname, "../../../test/golden");
/** One file a command, subcommands by their words. */
const FILES = `
  plan show status approve reject revoke apply undo run
  hold release rescue snapshot-take snapshot-list snapshot-show snapshot-verify snapshot-diff snapshot-restore
  snapshot-drill snapshot-prune snapshot-forget log log-show log-who log-verify policy-explain policy-test
  policy-lint env-check env-pin env-list key-list key-check trust-show trust-propose trust-accept
  doctor explain completion schema init holdpoint
`
  .trim()
  .split(/\s+/);

const gallery = new Gallery(process.env["HOLDPOINT_GOLDEN"] === "all");

async function inStudio(
  options: ProjectOptions,
  story: (wall: Wall, project: TestProject) => Promise<void>,
): Promise<void> {
  const project = makeProject({ journal: "delete", ...options });
  try {
    await story(gallery.wall(project.dir), project);
  } finally {
    project.close();
  }
}

/** Approves without a screen, in this process. */
async function approve(project: TestProject, plan: string, more: readonly string[] = []): Promise<void> {
  const ok = async (...args: readonly string[]): Promise<void> => {
    const ran = await runHere(project, args);
    if (ran.status !== 0) throw new Error(`${args.join(" ")}: ${ran.stderr}`);
  };
  await ok("approve", plan, "--prepare", `${plan}.txt`, "--as", "ravi", ...more);
  sign(project.path("keys/ravi"), "holdpoint-approval", project.path(`${plan}.txt`));
  await ok("approve", plan, "--prepared", `${plan}.txt`, "--signature", `${plan}.txt.sig`);
}

const idIn = (text: string, prefix: "pl" | "rn" | "sn"): string => {
  const [id] = new RegExp(`\\b${prefix}_[0-9a-z]{16}\\b`).exec(text) ?? [];
  if (id === undefined) throw new Error(`no ${prefix}_ in ${text}`);
  return id;
};

const on = ["--on", "shop-prod"];
const dana = ["--key", "keys/dana"];
const sure = ["--confirm", "shop-prod"];

/** From nothing to a target that is pinned. */
async function settingUp(): Promise<void> {
  await inStudio({ pin: false }, async (wall, project) => {
    mkdirSync(project.path("empty"));
    const dsn = ["--target", "elb-prod", "--url", "sqlite:elb.db", "--environment", "production"];
    await wall.shot(
      "init",
      "in a folder without a project",
      ["init", ...dsn, "--person", "dana=../keys/dana.pub"],
      { folder: "empty" },
    );
    await wall.shot("init", "nothing is overwritten", ["init", "--target", "again"]);
    await wall.shot("init", "without an answer", ["init", "--no-input"], { folder: "empty" });
    await wall.shot("env-check", "nothing is pinned yet", ["env", "check", "shop-prod"]);
    await wall.shot("plan", "a target that is not pinned yet", ["plan", "hello", ...on]);
    await wall.shot("doctor", "a set-up that is not finished", ["doctor"]);
    await wall.shot("env-pin", "what a DBA would run", ["env", "pin", "shop-prod", "--print-sql"], {
      isText: true,
    });
    await wall.shot("env-pin", "without the name", ["env", "pin", "shop-prod"], { asks: true });
    await wall.shot("env-pin", "the first pin", ["env", "pin", "shop-prod", ...sure]);
    await wall.shot("env-pin", "a second pin", ["env", "pin", "shop-prod", ...sure]);
    await wall.shot("env-check", "pinned, and all agrees", ["env", "check", "shop-prod"]);
    await wall.shot("env-check", "a target that nobody named", ["env", "check", "shop-prd"]);
    await wall.shot("env-list", "targets", ["env", "list"]);
    await wall.shot("key-list", "keys", ["key", "list"]);
    await wall.shot("key-check", "a key that signs", ["key", "check", ...dana]);
    await wall.shot("key-check", "a key that is not there", ["key", "check", "--key", "keys/none"]);
    await wall.shot("trust-show", "people, policies, bundles", ["trust", "show"]);
    await wall.shot("doctor", "a set-up that works", ["doctor"]);
    await wall.shot("explain", "a code", ["explain", "ERR_DRIFT_ROWS"]);
    await wall.shot("explain", "a code that is not there", ["explain", "ERR_DRIFT_ROW"]);
    await wall.shot("completion", "bash", ["completion", "bash"], { isText: true });
    await wall.shot("completion", "no such shell", ["completion", "tcsh"]);
    await wall.shot("schema", "a document's", ["schema", "explain"], { isText: true, hasNoDocument: true });
    await wall.shot("schema", "one that is not there", ["schema", "plam"]);
    await wall.shot("holdpoint", "no command", ["plna"]);
    await wall.shot("holdpoint", "no such command of a group", ["snapshot", "tke"]);
    await wall.shot("holdpoint", "a group alone", ["snapshot"]);
    await wall.shot("holdpoint", "no such flag", ["plan", "hello", "--onn", "shop-prod"]);
    await wall.shot("status", "nothing yet", ["status"]);
    await wall.shot("log", "nothing yet", ["log"]);
    await wall.shot("snapshot-list", "nothing yet", ["snapshot", "list"]);
    await wall.shot("rescue", "without a snapshot", ["rescue", ...on]);
  });
}

/** A change of production: looked at, approved, written, taken back. */
async function changing(): Promise<void> {
  await inStudio({ people: ["dana", "ravi", "lee"] }, async (wall, project) => {
    project.write("jobs/cancel.sql", "UPDATE orders SET status = 'cancelled' WHERE id IN (1, 2, 3, 4)");
    project.write("jobs/close.sql", "DELETE FROM customers WHERE id IN (7, 8)");
    project.write("jobs/all.sql", "DELETE FROM orders");
    const words = ["--ticket", "OPS-1", "--reason", "as the ticket says"];
    await wall.shot("plan", "nothing to change", ["plan", "hello", ...on]);
    const first = idIn(
      (await wall.shot("plan", "some rows", ["plan", "jobs/cancel.sql", ...on, ...words, ...dana])).stdout,
      "pl",
    );
    const second = idIn(
      (await wall.shot("plan", "rows of other tables go too", ["plan", "jobs/close.sql", ...on, ...dana]))
        .stdout,
      "pl",
    );
    await wall.shot("plan", "denied", ["plan", "jobs/all.sql", ...on, ...dana]);
    await wall.shot("plan", "no such job", ["plan", "helo", ...on]);
    await wall.shot("plan", "no target", ["plan", "hello"]);
    await wall.shot("run", "waits where people are asked", ["run", "jobs/cancel.sql", ...on, ...dana]);
    await wall.shot("show", "a plan", ["show", second]);
    await wall.shot("show", "every row", ["show", first, "--rows"]);
    await wall.shot("show", "a question", [
      "show",
      first,
      "--sql",
      "SELECT op, count(*) AS n FROM orders GROUP BY op",
    ]);
    await wall.shot("show", "against another", ["show", first, "--against", second]);
    await wall.shot("show", "Markdown", ["show", second, "--format", "markdown"], { isText: true });
    await wall.shot("show", "one sentence a line", ["show", second, "--accessible"]);
    await wall.shot("show", "ASCII", ["show", second, "--plain"]);
    const reveal = ["--reveal", "customers.name", "--reason", "which name is wrong"];
    await wall.shot("show", "a masked column, to a program", ["show", second, ...reveal], { asks: true });
    await wall.shot("show", "a masked column, without a reason", ["show", second, ...reveal.slice(0, 2)]);
    await wall.shot("show", "no such plan", ["show", "pl_0000000000000000"]);
    await wall.shot("status", "plans that wait", ["status"]);
    await wall.shot("status", "one plan, waited for", ["status", first, "--for", "approved"]);
    await wall.shot("policy-explain", "why it is decided so", ["policy", "explain", second]);
    await wall.shot("policy-explain", "and with more rows", [
      "policy",
      "explain",
      second,
      "--what-if",
      "rows=400",
      "--all",
    ]);
    await wall.shot("policy-test", "the shipped rules", ["policy", "test"]);
    await wall.shot("policy-lint", "the shipped rules", ["policy", "lint"]);
    await wall.shot("apply", "not approved", ["apply", first, ...sure]);
    await wall.shot("approve", "without a terminal", ["approve", first], { asks: true });
    await wall.shot("approve", "the requester", ["approve", first, "--prepare", "own.txt", "--as", "dana"]);
    await wall.shot("approve", "prepared for a key elsewhere", [
      "approve",
      first,
      "--prepare",
      "a.txt",
      "--as",
      "ravi",
      "--cover-undo",
      "48h",
      "--reason",
      "looked",
    ]);
    sign(project.path("keys/ravi"), "holdpoint-approval", project.path("a.txt"));
    await wall.shot("approve", "signed elsewhere", [
      "approve",
      first,
      "--prepared",
      "a.txt",
      "--signature",
      "a.txt.sig",
    ]);
    await wall.shot("status", "approved, waited for", ["status", first, "--for", "approved", "--wait", "1m"]);
    await approve(project, second);
    await wall.shot("revoke", "one's own approval", [
      "revoke",
      second,
      "--reason",
      "wrong week",
      "--key",
      "keys/ravi",
    ]);
    await wall.shot("reject", "a plan", [
      "reject",
      second,
      "--reason",
      "not these customers",
      "--key",
      "keys/lee",
    ]);
    await wall.shot("reject", "without a reason", ["reject", second, "--key", "keys/lee"]);
    await wall.shot("apply", "rejected", ["apply", second, ...sure]);
    await wall.shot("apply", "what would be checked", ["apply", first, "--dry-run"]);
    await wall.shot("apply", "without the name", ["apply", first], { asks: true });
    await wall.shot("hold", "a target", ["hold", "shop-prod", "--reason", "INC-212, restoring"]);
    await wall.shot("apply", "while the target is held", ["apply", first, ...sure]);
    await wall.shot("status", "a target is held", ["status"]);
    await wall.shot("release", "a target", ["release", "shop-prod", "--reason", "restored"]);
    await wall.shot("release", "nothing is held", ["release", "shop-prod", "--reason", "restored"]);
    const run = idIn((await wall.shot("apply", "some rows", ["apply", first, ...sure])).stdout, "rn");
    await wall.shot("apply", "a second time", ["apply", first, ...sure]);
    await wall.shot("log", "a run, a rejection", ["log"]);
    await wall.shot("log-show", "a run", ["log", "show", run]);
    await wall.shot("log-show", "a run that is not there", ["log", "show", "rn_0000000000000000"]);
    await wall.shot("log-verify", "the chain holds", ["log", "verify"]);
    await wall.shot("log-who", "one row", ["log", "who", ...on, "--table", "orders", "--key", "3"]);
    await wall.shot("undo", "as approved", ["undo", run, ...dana, ...sure]);

    const next = project.plan("UPDATE orders SET note = 'late' WHERE id BETWEEN 20 AND 25");
    await approve(project, next, ["--cover-undo", "48h"]);
    project.raw(
      "UPDATE orders SET note = 'call' WHERE id = 20; UPDATE customers SET name = 'X' WHERE id = 1",
    );
    await wall.shot("apply", "rows moved since", ["apply", next, ...sure]);
    project.raw("UPDATE orders SET note = NULL WHERE id = 20");
    const late = idIn((await runHere(project, ["apply", next, ...sure])).stdout, "rn");
    project.raw(
      "UPDATE orders SET note = 'call' WHERE id = 21; UPDATE orders SET status = 'sent' WHERE id = 22; DELETE FROM orders WHERE id = 23",
    );
    await wall.shot("undo", "rows changed since", ["undo", late, ...dana]);
    await wall.shot("undo", "what is there now stays", ["undo", late, ...dana, "--on-conflict", "keep-now"]);
    await wall.shot("undo", "some of its rows", [
      "undo",
      late,
      ...dana,
      "--table",
      "orders",
      "--where",
      "id > 23",
    ]);
    await wall.shot("undo", "a run that is not there", ["undo", "rn_0000000000000000"]);
    await wall.shot("log-who", "a row that others changed since", [
      "log",
      "who",
      ...on,
      "--table",
      "orders",
      "--key",
      "21",
    ]);
    await wall.shot("snapshot-forget", "without the run's name", ["snapshot", "forget", late], {
      asks: true,
    });
    await wall.shot("snapshot-forget", "a run's rows", ["snapshot", "forget", late, "--confirm", late]);
    await wall.shot("log", "after it all", ["log"]);

    const glass = project.plan("UPDATE orders SET note = 'now' WHERE id = 30");
    await wall.shot("apply", "break-glass", [
      "apply",
      glass,
      ...sure,
      ...dana,
      "--break-glass",
      "--incident",
      "INC-7",
      "--reason",
      "checkout is down",
    ]);
    await wall.shot("env-check", "a debt is open", ["env", "check", "shop-prod"]);

    project.write("people/allowed_signers", project.read("people/allowed_signers").replace(/^lee .*\n/m, ""));
    await wall.shot("plan", "people are not the pinned ones", ["plan", "hello", ...on]);
    await wall.shot("trust-show", "changed here", ["trust", "show"]);
    await wall.shot("trust-propose", "a person goes", ["trust", "propose", "--out", "change.txt"]);
    const signed = ["dana", "ravi"].flatMap((who) => {
      project.write(`${who}.txt`, project.read("change.txt"));
      sign(project.path(`keys/${who}`), "holdpoint-trust", project.path(`${who}.txt`));
      return ["--signature", `${who}.txt.sig`];
    });
    await wall.shot("trust-accept", "one signature", [
      "trust",
      "accept",
      "change.txt",
      ...signed.slice(0, 2),
    ]);
    await wall.shot("trust-accept", "two people", ["trust", "accept", "change.txt", ...signed]);
    await wall.shot("trust-propose", "nothing changed", ["trust", "propose", "--out", "same.txt"]);
    await wall.shot("env-pin", "another pin, prepared", [
      "env",
      "pin",
      "shop-prod",
      "--replace",
      "--prepare",
      "pin.txt",
    ]);

    const ledger = project.path(".holdpoint/ledger.db");
    if (existsSync(ledger)) writeFileSync(ledger, "");
    await wall.shot("log-verify", "the ledger was emptied", ["log", "verify"]);
  });
}

/** Snapshots, and what is brought back from them. */
async function keeping(): Promise<void> {
  await inStudio({}, async (wall, project) => {
    const whole = idIn(
      (await wall.shot("snapshot-take", "the whole database", ["snapshot", "take", ...on])).stdout,
      "sn",
    );
    const tables = idIn(
      (await wall.shot("snapshot-take", "one table", ["snapshot", "take", ...on, "--table", "orders"]))
        .stdout,
      "sn",
    );
    await wall.shot("snapshot-take", "a table that is not there", [
      "snapshot",
      "take",
      ...on,
      "--table",
      "order",
    ]);
    await wall.shot("snapshot-list", "two", ["snapshot", "list"]);
    await wall.shot("snapshot-show", "one", ["snapshot", "show", tables]);
    await wall.shot("snapshot-show", "no such snapshot", ["snapshot", "show", "sn_0000000000000000"]);
    await wall.shot("snapshot-verify", "one", ["snapshot", "verify", whole]);
    await wall.shot("snapshot-diff", "nothing changed", ["snapshot", "diff", whole]);
    project.raw(
      "DELETE FROM orders WHERE id BETWEEN 100 AND 139; UPDATE orders SET note = 'wrong' WHERE id <= 20",
    );
    project.raw(
      "UPDATE orders SET status = 'sent' WHERE id IN (5, 6); INSERT INTO orders VALUES (900, 1, 'new', NULL, 1)",
    );
    await wall.shot("snapshot-diff", "against now", ["snapshot", "diff", whole]);
    await wall.shot("snapshot-restore", "into a new file", [
      "snapshot",
      "restore",
      whole,
      "--to",
      "restored.db",
    ]);
    await wall.shot("snapshot-restore", "over the target", [
      "snapshot",
      "restore",
      whole,
      "--over",
      "shop-prod",
    ]);
    await wall.shot("rescue", "nothing declared", ["rescue", ...on]);
    await wall.shot("rescue", "rows were deleted", [
      "rescue",
      ...on,
      ...dana,
      "--table",
      "orders",
      "--damage",
      "deleted",
    ]);
    await wall.shot("rescue", "a value was set", [
      "rescue",
      ...on,
      ...dana,
      "--damage",
      "orders.note = 'wrong'",
    ]);
    await wall.shot("rescue", "one table, nothing declared of it", [
      "rescue",
      ...on,
      ...dana,
      "--table",
      "orders",
    ]);
    await wall.shot("snapshot-drill", "a fresh one", ["snapshot", "drill", ...on]);
    await wall.shot("snapshot-prune", "one", ["snapshot", "prune", tables]);
    await wall.shot("snapshot-prune", "nothing named", ["snapshot", "prune"]);
  });
}

/** Where policy asks nobody: waves, checks, what stops. */
async function waving(): Promise<void> {
  await inStudio({ environment: "development", target: "shop-dev", pin: false }, async (wall, project) => {
    project.write("check.sh", "#!/bin/sh\ntest ! -e stop\n");
    const checks = "    checks: { service: { command: [/bin/sh, check.sh] } }\n";
    project.write(
      "holdpoint.yaml",
      project.read("holdpoint.yaml").replace(/^ {4}foreign_keys: true\n/m, (l) => l + checks),
    );
    const pinned = await runHere(project, ["env", "pin", "shop-dev", "--confirm", "shop-dev"]);
    if (pinned.status !== 0) throw new Error(pinned.stderr);
    project.write("jobs/note.sql", "UPDATE orders SET note = 'seen' WHERE id <= 300");
    const dev = ["jobs/note.sql", "--on", "shop-dev", ...dana];
    await wall.shot("run", "at once where policy asks nobody", ["run", ...dev]);
    project.raw("UPDATE orders SET note = NULL");
    await wall.shot("run", "in waves", ["run", ...dev, "--waves", "1%,10%,100%"]);
    project.raw("UPDATE orders SET note = NULL");
    project.write("stop", "");
    await wall.shot("run", "a check that fails", ["run", ...dev, "--waves", "1%,10%,100%"]);
    await wall.shot("run", "a check that fails, and the wave is put back", [
      "run",
      ...dev,
      "--waves",
      "1%,10%,100%",
      "--put-back",
    ]);
  });
}

beforeAll(async () => {
  await settingUp();
  await changing();
  await keeping();
  await waving();
}, 300_000);

test.each(FILES)("%s is as it was reviewed", (name) => {
  const file = `${FOLDER}/${name}.txt`;
  const drawn = galleryText(gallery.files.get(name) ?? []);
  if (process.env["UPDATE_GOLDEN"] === "1") {
    mkdirSync(FOLDER, { recursive: true });
    writeFileSync(file, drawn);
  }
  expect(drawn).not.toBe("");
  expect(existsSync(file) ? drawn : "").toBe(existsSync(file) ? readFileSync(file, "utf8") : "no such file");
});

test("nothing is stored that is not drawn", () => {
  expect([...gallery.files.keys()].sort()).toEqual([...FILES].sort());
  expect(readdirSync(FOLDER).sort()).toEqual(FILES.map((f) => `${f}.txt`).sort());
});

test("every command has its screens", async () => {
  const program = new Command();
  const run = (): Promise<void> => Promise.resolve();
  for (const entry of COMMANDS) (await entry.load())(program, run, null);
  // `log` lists by itself, beside its subcommands.
  const leaves = program.commands.flatMap((c) =>
    c.commands.length === 0 ? [c.name()] : c.commands.map((s) => `${c.name()}-${s.name()}`),
  );
  expect([...leaves, "log", "holdpoint"].sort()).toEqual([...FILES].sort());
});

describe("a mistake on the line is the named command's", () => {
  test.each<readonly [string, string, readonly string[], string]>([
    ["a flag that is not there, where another is missing", "plan", ["plan", "hello", "--onn", "x"], "--on?"],
    ["a flag of a subcommand", "snapshot-take", ["snapshot", "take", "--tabel", "x"], "--table?"],
    ["a required flag", "plan", ["plan", "hello"], "--on"],
    ["an argument too many", "log-verify", ["log", "verify", "more"], "too many"],
    ["a value that is no choice", "show", ["show", "pl_1", "--format", "pdf"], "pdf"],
    ["a subcommand that is not there: a group is no command", "holdpoint", ["snapshot", "tkae"], "take?"],
    ["no command", "holdpoint", ["plna"], "plan?"],
  ])("%s: holdpoint/%s@1", async (_, name, args, words) => {
    const document = await jsonHere({ dir: import.meta.dirname }, args);
    expect(document).toMatchObject({ schema: `holdpoint/${name}@1`, exit: { code: 2 } });
    expect(document.error?.what).toContain(words);
    expect(misfits(documentSchema(name), document)).toEqual([]);
  });
});

test("every screen fits its paper, every refusal says its code and state, every document fits its schema", () => {
  expect(gallery.complaints).toEqual([]);
});
