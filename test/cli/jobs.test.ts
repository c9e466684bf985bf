/** Modules and command lines as jobs, through the real binary: pinned, without keys or addresses, inside their scope. */
import { chmodSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { type Document, makeProject, type TestProject } from "../support/project.js";

/** Configured jobs; `{database}` is the copy that a command works on. */
const JOBS = `jobs:
  purge:
    module: jobs/purge.js
    scope: [orders]
    expect: { orders: { delete: 1..50 } }
  purge-all:
    module: jobs/all.js
    scope: [orders]
  sweep:
    command: [./cleanup.sh, --older, "{days}d", "{database}"]
    params: { days: { type: integer, minimum: 30 } }
    expect: { orders: { delete: 0..5 } }
  typed:
    sql: jobs/typed.sql
    params:
      i: { type: integer, minimum: -9, maximum: "9223372036854775807" }
      n: { type: number }
      t: { type: text, pattern: "[a-z]+" }
      b: { type: boolean }
      d: { type: date }
      s: { type: timestamp }
      e: { type: duration, maximum: 30d }
      l: { type: list, items: integer }
      o: { type: text, default: "as ever" }
`;

const CLEANUP = `#!/bin/sh
test "$1" = --older || exit 3
sqlite3 "$3" "PRAGMA foreign_keys = ON; DELETE FROM orders WHERE id <= \${2%d} / 10"
`;

let project: TestProject;
beforeAll(() => {
  project = makeProject();
  project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(/^jobs:\n/m, JOBS));
  project.write(
    "jobs/purge.js",
    `export default {
    params: { max: { type: "integer", minimum: 1 } },
    async run({ db, params, log }) {
      for (const row of db.all("SELECT id FROM orders WHERE id <= :max", { max: params.max }))
        db.run("DELETE FROM orders WHERE id = :id", { id: row.id });
      log("done");
    },
  };`,
  );
  project.write(
    "jobs/all.js",
    "export default ({ db }) => { db.run('DELETE FROM customers WHERE id = 1'); };",
  );
  project.write(
    "jobs/note.ts",
    `
    interface Order { readonly id: bigint }
    export default function ({ db }: { db: { all(sql: string): Order[]; run(sql: string, values: object): void } }): void {
      for (const { id } of db.all("SELECT id FROM orders WHERE id <= 3")) db.run("UPDATE orders SET note = :n WHERE id = :id", { n: \`seen \${id}\`, id });
    }`,
  );
  project.write("cleanup.sh", CLEANUP);
  project.write("greedy.sh", '#!/bin/sh\nsqlite3 "$1" "DELETE FROM customers"\nexit 7\n');
  project.write(
    "look.sh",
    '#!/bin/sh\nenv | cut -d= -f1 | sort > "$2"\nls -a "$HOME" >> "$2"\nsqlite3 "$1" "UPDATE orders SET note = \'x\' WHERE id = 1"\n',
  );
  project.write(
    "swap.sh",
    '#!/bin/sh\necho "exit 9" > "$2/swap.sh"\nsqlite3 "$1" "UPDATE orders SET note = \'x\' WHERE id = 1"\n',
  );
  project.write(
    "past.sh",
    '#!/bin/sh\nsqlite3 "$2" "UPDATE orders SET note = \'past\' WHERE id = 9"\nsqlite3 "$1" "UPDATE orders SET note = \'past\' WHERE id = 9"\n',
  );
  project.write(
    "stamp.sh",
    '#!/bin/sh\nsqlite3 "$1" "UPDATE orders SET note = \'n\' || random() WHERE id <= 3"\n',
  );
  project.write(
    "jobs/stamp.js",
    "export default ({ db }) => { db.run('UPDATE orders SET note = :n WHERE id <= 3', { n: String(Math.random()) }); };",
  );
  project.write("jobs/plain.sql", "UPDATE orders SET note = 'x' WHERE id = 1");
  for (const file of ["stamp.sh", "cleanup.sh", "greedy.sh", "look.sh", "swap.sh", "past.sh"])
    chmodSync(project.path(file), 0o755);
  project.write(
    "jobs/typed.sql",
    `UPDATE orders SET note = typeof(:i) || ' ' || :i || ' ' || typeof(:n) || ' ' || :t || ' ' || typeof(:b) || :b || ' ' || :d || ' ' || :s
    || ' ' || typeof(:e) || :e || ' ' || (SELECT group_concat(value, '+') FROM json_each(:l)) || ' ' || :o WHERE id = 1`,
  );
});
afterAll(() => project.close());

function plan(args: readonly string[], env?: Readonly<Record<string, string>>): Document {
  const before = project.dump();
  const at = args.indexOf("--");
  const [own, command] = at === -1 ? [args, []] : [args.slice(0, at), args.slice(at)];
  const flags = ["--on", "shop-prod", "--key", "keys/dana", "--json", ...command];
  const ran = project.run(["plan", ...own, ...flags], env === undefined ? {} : { env });
  if (!args.includes("./past.sh")) expect(project.dump()).toBe(before);
  return JSON.parse(ran.stdout) as Document;
}

function effectOf(document: Document): unknown {
  expect(document.error).toBeNull();
  return (document.result as unknown as { effect: { tables: unknown } }).effect.tables;
}

describe("modules", () => {
  test("a .js module is planned, approved, applied and undone like any job", () => {
    const before = project.dump();
    const made = plan(["purge", "--set", "max=4"]);
    expect(effectOf(made)).toMatchObject([{ table: "orders", delete: 4 }]);
    const id = String(made.result["plan"]);
    project.approve(id, "ravi", ["--cover-undo", "1h"]);
    const done = project.json(["apply", id, "--confirm", "shop-prod"]);
    expect(done.result).toMatchObject({ rows: { written: 4 } });
    expect(project.json(["undo", String(done.result["run"])]).error).toBeNull();
    expect(project.dump()).toBe(before);
  });

  test("a .ts module runs as it is written", () => {
    expect(effectOf(plan(["jobs/note.ts"]))).toMatchObject([{ table: "orders", update: 3 }]);
  });

  test.each([
    ["fewer rows than expected", ["purge", "--set", "max=0"], 2, "ERR_JOB_PARAMETER"],
    ["more rows than expected", ["purge", "--set", "max=60"], 30, "ERR_EXPECT_MISSED"],
    ["a table outside its scope, by cascade or not", ["purge-all"], 30, "ERR_SCOPE_EXCEEDED"],
    ["a missing parameter", ["purge"], 2, "ERR_JOB_PARAMETER"],
    ["a blank parameter", ["purge", "--set", "max="], 2, "ERR_JOB_PARAMETER"],
  ])("refuses %s", (_, args, exit, code) => {
    expect(plan(args)).toMatchObject({ target_changed: "no", exit: { code: exit }, error: { code } });
  });
});

describe("command lines", () => {
  test("`-- ./cleanup.sh --older 90d {database}` works on a private copy", () => {
    const made = plan(["--", "./cleanup.sh", "--older", "90d", "{database}"]);
    expect(effectOf(made)).toMatchObject([{ table: "orders", delete: 9 }]);
    expect(made.result["job"]).toMatchObject({ name: "command:cleanup.sh", kind: "command" });
  });

  test("a declared command gets its parameters in placeholders, and its expectation holds", () => {
    expect(effectOf(plan(["sweep", "--set", "days=50"]))).toMatchObject([{ table: "orders", delete: 5 }]);
    expect(plan(["sweep", "--set", "days=90"])).toMatchObject({
      exit: { code: 30 },
      error: { code: "ERR_EXPECT_MISSED" },
    });
    expect(plan(["sweep", "--set", "days=7"])).toMatchObject({
      exit: { code: 2 },
      error: { code: "ERR_JOB_PARAMETER" },
    });
  });

  test("one that differs from run to run is told when it is run twice", () => {
    const once = plan(["--", "./stamp.sh", "{database}"]);
    expect(once.result).toMatchObject({
      volatile: [],
      notices: ["run once: values that differ from run to run were not looked for"],
    });
    const twice = plan(["--twice", "--", "./stamp.sh", "{database}"]);
    expect(twice.result).toMatchObject({
      volatile: [{ table: "orders", column: "note", rows: 3 }],
      notices: [],
    });
    expect(plan(["jobs/stamp.js"]).result["volatile"]).toEqual(twice.result["volatile"]);
    expect(plan(["jobs/stamp.js", "--once"]).result).toMatchObject({ notices: once.result["notices"] });
  });

  test.each([
    ["both flags", ["jobs/stamp.js", "--twice", "--once"]],
    ["a flag for SQL", ["jobs/plain.sql", "--twice"]],
  ])("refuses %s", (_, args) => {
    expect(plan(args)).toMatchObject({
      exit: { code: 2 },
      error: { code: "ERR_USAGE" },
      target_changed: "no",
    });
  });

  test("one that ends badly plans nothing", () => {
    const ended = plan(["--", "./greedy.sh", "{database}"]);
    expect(ended).toMatchObject({
      ok: false,
      result: null,
      target_changed: "no",
      error: { code: "ERR_JOB_FAILED" },
    });
    expect(`${ended.error?.what} ${ended.error?.why}`).toContain("7");
  });

  test("has no key, no agent and no address of the target around it", () => {
    const seen = project.path("seen.txt");
    const made = plan(["--", "./look.sh", "{database}", seen], {
      SSH_AUTH_SOCK: "/nowhere/agent",
      HOLDPOINT_APPROVAL: "text",
      ELB_PROD_URL: "sqlite:shop.db",
      AWS_SECRET_ACCESS_KEY: "secret",
    });
    expect(effectOf(made)).toMatchObject([{ table: "orders", update: 1 }]);
    const names = project
      .read("seen.txt")
      .split("\n")
      .filter((n) => /^[A-Z_]+$/.test(n));
    const own = [
      "PATH",
      "LANG",
      "TZ",
      "HOME",
      "TMPDIR",
      "HOLDPOINT_DATABASE_PATH",
      "HOLDPOINT_DATABASE_URL",
      "PWD",
      "OLDPWD",
      "SHLVL",
      "_",
    ];
    expect(names.filter((n) => !own.includes(n))).toEqual([]);
    expect(names).toContain("HOLDPOINT_DATABASE_PATH");
    expect(project.read("seen.txt")).toMatch(/\n\.\n\.\.\n$/);
  });

  test("a file that is swapped while it runs changes nothing, and the plan says so", () => {
    const made = plan(["--", "./swap.sh", "{database}", project.dir]);
    expect(effectOf(made)).toMatchObject([{ table: "orders", update: 1 }]);
    expect(String(made.result["notices"])).toContain("swap.sh");
  });

  test("one that finds its way past the copy is refused", () => {
    const ended = plan(["--", "./past.sh", "{database}", project.database]);
    expect(ended).toMatchObject({ ok: false, target_changed: "unknown", error: { code: "ERR_JOB_FAILED" } });
    expect(ended.error?.why).toContain("past the copy");
    project.raw("UPDATE orders SET note = NULL WHERE id = 9");
  });
});

describe("parameters", () => {
  const GOOD = [
    "i=9223372036854775807",
    "n=0.25",
    "t=abc",
    "b=true",
    "d=2026-11-24",
    "s=2026-11-24T15:38:44+01:00",
    "e=1h30m",
    "l=1,2,3",
  ];
  const set = (values: readonly string[]): readonly string[] => values.flatMap((v) => ["--set", v]);

  test("every type reaches the statement as it was typed", () => {
    const made = plan(["typed", ...set(GOOD)]);
    const rows = project.json(["show", String(made.result["plan"]), "--rows"]).result["rows"];
    expect(rows).toMatchObject([
      {
        after: {
          note: "integer 9223372036854775807 real abc integer1 2026-11-24 2026-11-24T14:38:44Z integer5400 1+2+3 as ever",
        },
      },
    ]);
  });

  test.each([
    ["an integer beyond 64 bits", "i=9223372036854775808"],
    ["an integer below its minimum", "i=-10"],
    ["a number that would be rounded", "n=0.12345678901234567"],
    ["a text that its pattern does not match", "t=ABC"],
    ["a boolean that is neither", "b=yes"],
    ["a day that is none", "d=2026-02-30"],
    ["a time stamp without a zone", "s=2026-11-24T15:38:44"],
    ["a duration above its maximum", "e=31d"],
    ["a list with another type in it", "l=1,b"],
    ["an unknown one", "z=1"],
  ])("refuses %s", (_, bad) => {
    const name = bad.split("=")[0] ?? "";
    const values = [...GOOD.filter((v) => !v.startsWith(`${name}=`)), bad];
    expect(plan(["typed", ...set(values)])).toMatchObject({
      exit: { code: 2 },
      error: { code: "ERR_JOB_PARAMETER" },
    });
  });
});
