/** holdpoint.yaml: what it says, what is refused, where values come from, and the one line that is written. */
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "@jest/globals";
import { canonical } from "../../src/base/canonical.js";
import {
  findConfig,
  guardingOf,
  loadConfig,
  parseConfig,
  resolveUrl,
  targetConfigOf,
  targetKind,
  writeIdentity,
} from "../../src/config/config.js";
import { withIdentity } from "../../src/config/write-identity.js";
import { refusal, refusalLine } from "../support/refusal.js";
import { inFolder } from "../support/temporary.js";

const FULL = `targets:
  elb-prod:
    url: \${ELB_PROD_URL}
    environment: production
    identity: sqlite:8f1c8f1c8f1c8f1c8f1c8f1c8f1c8f1c
    foreign_keys: true
    append_only: [outbox, audit_log]
    mask: [customers.email]
    rehearse_on: elb-clone
    checks: { answers: { command: [./check.sh, "{x}"], timeout: 30s } }
    hooks: { hold: { command: [./hold.sh] } }
    snapshot: { level: tables, keep: 30d }
  elb-clone:
    url: sqlite:state/clone.db
jobs:
  purge-idle:
    sql: jobs/purge-idle.sql
    params: { older_than_days: { type: integer, minimum: 30 } }
    scope: [backends, listeners]
    expect: { backends: { delete: 1..5000 } }
  sweep:
    command: [./sweep.sh, --older, 90d]
    timeout: 5m
    twice: true
  level:
    module: jobs/level.ts
policies: rules/
people: who/allowed_signers
store: .holdpoint/
`;

const minimal = (more: string): string => `targets:\n  t:\n    url: sqlite:t.db\n${more}`;

describe("a configuration", () => {
  const config = parseConfig(FULL, "/srv/app/holdpoint.yaml");

  test("has absolute paths", () => {
    expect(config.root).toBe("/srv/app");
    expect(config.policies).toBe("/srv/app/rules");
    expect(config.people).toBe("/srv/app/who/allowed_signers");
    expect(config.groups).toBe("/srv/app/who/groups.yaml");
    expect(config.store).toBe("/srv/app/.holdpoint");
    expect(config.at(["jobs", "sweep"])).toBe("holdpoint.yaml:22:5");
  });

  test("has the places of init where it names none", () => {
    const small = parseConfig(minimal(""), "/srv/app/holdpoint.yaml");
    expect([small.policies, small.people, small.store]).toEqual([
      "/srv/app/policies",
      "/srv/app/people/allowed_signers",
      "/srv/app/.holdpoint",
    ]);
    expect(targetConfigOf(small, "t")).toMatchObject({
      environment: null,
      identity: null,
      foreignKeys: false,
    });
  });

  test("has its targets typed", () => {
    expect(targetConfigOf(config, "elb-prod")).toEqual({
      name: "elb-prod",
      url: "${ELB_PROD_URL}",
      planUrl: null,
      environment: "production",
      identity: "sqlite:8f1c8f1c8f1c8f1c8f1c8f1c8f1c8f1c",
      foreignKeys: true,
      appendOnly: ["outbox", "audit_log"],
      ledgers: "one",
      reversals: {},
      mask: [{ table: "customers", column: "email" }],
      rehearseOn: "elb-clone",
      rehearsal: {},
      checks: { answers: { command: ["./check.sh", "{x}"], timeoutSeconds: 30 } },
      hooks: { hold: { command: ["./hold.sh"], timeoutSeconds: 60 } },
      snapshot: { level: "tables", keepSeconds: 30 * 86_400 },
      outbox: [],
      sums: [],
      pauseWhile: {},
      newestRow: [],
      protect: [],
      tenant: [],
      trust: null,
    });
  });

  test("time columns have a bound or none, and guard the target", () => {
    const text = (rows: string): string =>
      `targets: { shop: { url: "sqlite:shop.db", newest_row: ${rows} } }\n`;
    const found = parseConfig(text("{ orders.created_at: 15m, audit.at: any }"), "/srv/app/holdpoint.yaml");
    expect(targetConfigOf(found, "shop").newestRow).toEqual([
      { table: "orders", column: "created_at", withinSeconds: 900 },
      { table: "audit", column: "at", withinSeconds: null },
    ]);
    expect(guardingOf(targetConfigOf(found, "shop"))["newest_row"]).toEqual({
      "orders.created_at": 900,
      "audit.at": null,
    });
    for (const wrong of ["{ orders: 15m }", "{ orders.created_at: soon }", "{ orders.created_at: }"])
      expect(() => parseConfig(text(wrong), "/srv/app/holdpoint.yaml")).toThrow(
        expect.objectContaining({ code: "ERR_CONFIG_INVALID" }),
      );
  });

  test("has its jobs typed; what a named table does not expect is expected not to happen", () => {
    expect(config.jobs["purge-idle"]).toMatchObject({
      name: "purge-idle",
      source: { kind: "sql", path: "/srv/app/jobs/purge-idle.sql", shown: "jobs/purge-idle.sql" },
      scope: ["backends", "listeners"],
      expect: { backends: { insert: [0, 0], update: [0, 0], delete: [1, 5000] } },
    });
    expect(config.jobs["sweep"]).toMatchObject({
      source: { kind: "command", argv: ["./sweep.sh", "--older", "90d"], folder: "/srv/app" },
      params: {},
      timeoutSeconds: 300,
      twice: true,
    });
    expect(config.jobs["level"]?.source).toEqual({
      kind: "module",
      path: "/srv/app/jobs/level.ts",
      shown: "jobs/level.ts",
    });
  });

  test("an exact count is a range of one", () => {
    const one = parseConfig(
      minimal("jobs:\n  j:\n    sql: j.sql\n    expect: { a: { insert: 5 } }\n"),
      "/x/holdpoint.yaml",
    );
    expect(one.jobs["j"]?.expect?.["a"]?.["insert"]).toEqual([5, 5]);
  });
});

describe("outbox, sums and direction", () => {
  test("are read", () => {
    const text = `${minimal("    outbox: [mail]\n    sums: { orders.total: EUR }\njobs:\n")}  j:
    sql: j.sql
    direction: { orders.status: { from: [pending, "NULL"], to: 2 }, orders.total: down }
`;
    const config = parseConfig(text, "/x/holdpoint.yaml");
    expect(targetConfigOf(config, "t")).toMatchObject({
      outbox: ["mail"],
      sums: [{ table: "orders", column: "total", unit: "EUR" }],
    });
    expect(config.jobs["j"]?.direction).toEqual([
      { table: "orders", column: "status", from: ["pending", null], to: ["2"], way: null },
      { table: "orders", column: "total", from: null, to: null, way: "down" },
    ]);
    expect(guardingOf(targetConfigOf(config, "t"))).toMatchObject({
      outbox: ["mail"],
      sums: { "orders.total": "EUR" },
    });
  });

  test("what is not set stands in no bundle: pins made before these keys hold", () => {
    const guarding = guardingOf(targetConfigOf(parseConfig(minimal(""), "/x/holdpoint.yaml"), "t"));
    expect(Object.keys(guarding)).not.toContain("outbox");
    expect(Object.keys(guarding)).not.toContain("sums");
  });

  test.each([
    [
      "the sum of a masked column",
      minimal("    mask: [orders.total]\n    sums: { orders.total: EUR }\n"),
      /masked/,
    ],
    [
      "a direction that says nothing",
      minimal("jobs:\n  j: { sql: j.sql, direction: { o.s: {} } }\n"),
      /from, to or both/,
    ],
    [
      "a direction without a column",
      minimal("jobs:\n  j: { sql: j.sql, direction: { o: up } }\n"),
      /table\.column/,
    ],
  ])("%s is refused", (_, text, words) => {
    expect(() => parseConfig(text, "/x/holdpoint.yaml")).toThrow(words);
  });
});

test("the example of docs/configuration.md reads", () => {
  const page = readFileSync(join(import.meta.dirname, "../../../docs/configuration.md"), "utf8");
  const [, example = ""] = /```yaml\n(targets:[^]*?)```/.exec(page) ?? [];
  expect(Object.keys(parseConfig(example, "/srv/holdpoint.yaml").jobs)).toEqual(["purge-idle"]);
});

describe("refused, with its place", () => {
  const job = (body: string): string => minimal(`jobs:\n  j:\n${body}`);
  test.each<[string, string, string]>([
    ["no targets", "jobs: {}\n", "1:1 targets is missing"],
    ["a target without url", "targets:\n  t:\n    environment: staging\n", "3:5 targets.t.url is missing"],
    ["a target's name with a space", "targets:\n  'a b':\n    url: sqlite:x\n", '2:3 "a b" is no name'],
    [
      "limits of a server on a file",
      "targets:\n  t:\n    url: sqlite:a.db\n    rehearsal: { rows: 5 }\n",
      "targets.t.rehearsal limits what a rehearsal costs a server, and an SQLite file has none",
    ],
    [
      "a second role of a file",
      "targets:\n  t:\n    url: sqlite:a.db\n    plan_url: ${U}\n",
      "4:15 targets.t.plan_url names a second role, and an SQLite file has none",
    ],
    [
      "a second role that is the first",
      "targets:\n  t:\n    url: ${U}\n    plan_url: ${U}\n",
      "4:15 targets.t.plan_url is the same address as url",
    ],
    [
      "a password in the second address",
      "targets:\n  t:\n    url: ${U}\n    plan_url: postgres://u:secret@h/d\n",
      "4:15 targets.t.plan_url holds a password",
    ],
    [
      "a bare variable",
      "targets:\n  t:\n    url: $DB\n",
      "3:10 targets.t.url has a $ that begins no variable",
    ],
    [
      "a half-written variable",
      "targets:\n  t:\n    url: sqlite:${DB\n",
      "3:10 targets.t.url has a $ that begins no variable",
    ],
    [
      "a password",
      "targets:\n  t:\n    url: postgres://u:hunter2@db/shop\n",
      "3:10 targets.t.url holds a password",
    ],
    [
      "a password with an @",
      "targets:\n  t:\n    url: postgres://u:hun@ter2@db/shop\n",
      "3:10 targets.t.url holds a password",
    ],
    [
      "half a password",
      "targets:\n  t:\n    url: postgres://u:hunter2${X}@db/shop\n",
      "3:10 targets.t.url holds a password",
    ],
    [
      "a password option",
      "targets:\n  t:\n    url: postgres://db/shop?sslmode=require&password=hunter2\n",
      "3:10 targets.t.url holds a password",
    ],
    [
      "an environment nobody knows",
      minimal("    environment: live\n"),
      "4:18 targets.t.environment wants production or staging or development",
    ],
    ["a pattern of tables", minimal("    append_only: ['*']\n"), "4:19 targets.t.append_only.0 is a pattern"],
    [
      "a mask without a column",
      minimal("    mask: [customers]\n"),
      "4:12 targets.t.mask.0 wants table.column",
    ],
    [
      "a clone that is no target",
      minimal("    rehearse_on: t2\n"),
      "4:18 targets.t.rehearse_on names no target of this file: t2",
    ],
    [
      "a clone that is itself",
      minimal("    rehearse_on: t\n"),
      "4:18 targets.t.rehearse_on is the target itself",
    ],
    ["a hook of another moment", minimal("    hooks: { holdd: { command: [x] } }\n"), "did you mean hold?"],
    [
      "a check that is a shell line",
      minimal("    checks: { a: { command: ./x.sh } }\n"),
      "targets.t.checks.a.command wants a list",
    ],
    [
      "a check's timeout without unit",
      minimal("    checks: { a: { command: [x], timeout: '30' } }\n"),
      "wants a duration like 30s",
    ],
    ["a job of nothing", job("    scope: [a]\n"), "6:5 jobs.j needs one of sql, module or command"],
    ["a job of two kinds", job("    sql: a.sql\n    module: b.js\n"), "6:5 jobs.j has sql and module"],
    ["an SQL job that is a script", job("    sql: a.sh\n"), "6:10 jobs.j.sql wants a file that ends in .sql"],
    [
      "a module of another language",
      job("    module: a.py\n"),
      "6:13 jobs.j.module wants a file that ends in .js",
    ],
    ["an empty command", job("    command: []\n"), "6:14 jobs.j.command has no entries"],
    ["an empty scope", job("    sql: a.sql\n    scope: []\n"), "7:12 jobs.j.scope has no entries"],
    [
      "a timeout of an SQL job",
      job("    sql: a.sql\n    timeout: 5m\n"),
      "7:14 jobs.j.timeout is for a module or a command",
    ],
    [
      "two runs of an SQL job",
      job("    sql: a.sql\n    twice: true\n"),
      "7:12 jobs.j.twice is for a module or a command",
    ],
    [
      "a range backwards",
      job("    sql: a.sql\n    expect: { a: { delete: 9..1 } }\n"),
      "7:28 jobs.j.expect.a.delete wants a count like 5, or a range",
    ],
    [
      "a range without an end",
      job("    sql: a.sql\n    expect: { a: { delete: 1.. } }\n"),
      "wants a count like 5, or a range",
    ],
    [
      "an operation nobody knows",
      job("    sql: a.sql\n    expect: { a: { remove: 1 } }\n"),
      '"remove" is not a key of jobs.j.expect.a',
    ],
    [
      "a parameter of no type",
      job("    sql: a.sql\n    params: { d: { type: int } }\n"),
      "7:26 jobs.j.params.d.type wants one of integer",
    ],
    [
      "a bound of another type",
      job("    sql: a.sql\n    params: { d: { type: integer, minimum: soon } }\n"),
      'jobs.j.params.d.minimum wants a whole number like 30, and has "soon"',
    ],
    [
      "a parameter's name with a dash",
      job("    sql: a.sql\n    params: { older-than: { type: integer } }\n"),
      '7:15 "older-than" is no name of a parameter',
    ],
    [
      "a parameter that hides the copy's address",
      job("    command: [x]\n    params: { database: { type: text } }\n"),
      "database is the private copy's address",
    ],
    [
      "a job that is named like a file",
      minimal("jobs:\n  j.sql:\n    sql: a.sql\n"),
      "jobs.j.sql ends like a file",
    ],
    ["a variable in a path", minimal("store: ${HOME}/x\n"), "4:8 store has a ${variable}"],
  ])("%s", async (_, text, wanted) => {
    const e = await refusal(() => parseConfig(text, "/srv/holdpoint.yaml"));
    expect(e.code).toBe("ERR_CONFIG_INVALID");
    expect(e.message).toContain(wanted);
    expect(`${e.message}${e.why ?? ""}`).not.toContain("hunter2");
  });

  test("a password in variables is none in the file", () => {
    const text = "targets:\n  t:\n    url: postgres://${U}:${P}@db/shop?password=${P}\n";
    expect(targetConfigOf(parseConfig(text, "/x/holdpoint.yaml"), "t").url).toContain("${P}");
  });
});

describe("the file itself", () => {
  test("is found upwards, or every folder that was looked at is named", () =>
    inFolder(async (folder) => {
      mkdirSync(join(folder, "a/b"), { recursive: true });
      const line = await refusalLine(() => findConfig(join(folder, "a/b")));
      expect(line).toMatch(/^ERR_CONFIG_MISSING there is no holdpoint.yaml here \| looked in /);
      expect(line).toContain(`${folder}/a/b, ${folder}/a, ${folder}`);
      mkdirSync(join(folder, "a/holdpoint.yaml"));
      writeFileSync(join(folder, "holdpoint.yaml"), minimal(""));
      expect(await findConfig(join(folder, "a/b"))).toBe(join(folder, "holdpoint.yaml"));
    }));

  test("is refused when it is missing, not text, or too large", () =>
    inFolder(async (folder) => {
      const file = join(folder, "holdpoint.yaml");
      expect(await refusalLine(() => loadConfig(file))).toContain("ERR_CONFIG_MISSING");
      writeFileSync(file, Buffer.from([0x61, 0xff]));
      expect(await refusalLine(() => loadConfig(file))).toContain("is not UTF-8 text");
      writeFileSync(file, "#".repeat(1024 * 1024 + 1));
      expect(await refusalLine(() => loadConfig(file))).toContain("too large");
    }));
});

describe("a target's name", () => {
  const config = parseConfig(FULL, "/srv/holdpoint.yaml");
  test.each([
    [
      "elb-prdo",
      'ERR_TARGET_UNKNOWN there is no target "elb-prdo" | holdpoint.yaml has elb-prod, elb-clone; did you mean elb-prod?',
    ],
    ["", "ERR_TARGET_UNKNOWN no target is named | holdpoint.yaml has elb-prod, elb-clone"],
    [
      "constructor",
      'ERR_TARGET_UNKNOWN there is no target "constructor" | holdpoint.yaml has elb-prod, elb-clone',
    ],
  ])("%j is unknown", async (name, wanted) => {
    expect(await refusalLine(() => targetConfigOf(config, name))).toBe(wanted);
  });
});

describe("the address", () => {
  const config = (url: string) => parseConfig(`targets:\n  t:\n    url: ${url}\n`, "/srv/app/holdpoint.yaml");

  test("says where each part came from", () => {
    const found = resolveUrl(config("postgres://app:${PW}@${HOST}/shop"), "t", { PW: "s3cret", HOST: "db1" });
    expect(found.url).toBe("postgres://app:s3cret@db1/shop");
    expect(found.origins).toEqual([
      { part: "postgres://app:", from: "holdpoint.yaml:3:10", inherited: false },
      { part: "${PW}", from: "environment variable PW (holdpoint.yaml:3:10)", inherited: true },
      { part: "@", from: "holdpoint.yaml:3:10", inherited: false },
      { part: "${HOST}", from: "environment variable HOST (holdpoint.yaml:3:10)", inherited: true },
      { part: "/shop", from: "holdpoint.yaml:3:10", inherited: false },
    ]);
    expect(JSON.stringify(found.origins)).not.toContain("s3cret");
  });

  test("of an SQLite file is relative to holdpoint.yaml, also from a variable", () => {
    expect(resolveUrl(config("sqlite:state/elb.db"), "t", {}).url).toBe("sqlite:/srv/app/state/elb.db");
    expect(resolveUrl(config("${U}"), "t", { U: "sqlite:../elb.db" }).url).toBe("sqlite:/srv/elb.db");
    expect(resolveUrl(config("sqlite:///var/elb.db"), "t", {}).url).toBe("sqlite:/var/elb.db");
  });

  test("fills in a variable once, not what it contains", () => {
    expect(resolveUrl(config("sqlite:${A}"), "t", { A: "${B}", B: "x" }).url).toBe("sqlite:/srv/app/${B}");
  });

  test.each<[string, Record<string, string>, string]>([
    ["not set", {}, "the variable DB is not set, and the url of t needs it"],
    ["blank", { DB: " " }, "the variable DB is blank, and the url of t needs it"],
    ["two lines", { DB: "a\nb" }, "the variable DB has a line break"],
  ])("is refused when a variable is %s", async (_, env, wanted) => {
    const e = await refusal(() => resolveUrl(config("sqlite:${DB}"), "t", env));
    expect(e.code).toBe("ERR_CONFIG_VARIABLE");
    expect(e.message).toContain(wanted);
  });

  test.each([
    ["mysql://u:hunter2@h/d", "targets of the kind mysql are not supported"],
    ["host=h password=hunter2", "names no kind of target"],
    ["sqlite:", "names no file"],
    ["sqlite://host/x.db", "names a host"],
    ["sqlite:~/x.db", "begins with ~"],
    ["sqlite::memory:", "in memory"],
    ["sqlite:x.db?mode=ro", "has options"],
  ])("%s is refused without being repeated", async (url, wanted) => {
    const line = await refusalLine(() => targetKind(url, "/srv"));
    expect(line).toContain("ERR_TARGET_UNSUPPORTED");
    expect(line).toContain(wanted);
    expect(line).not.toContain("hunter2");
  });

  test("tells the kinds apart", () => {
    expect(targetKind("sqlite:a.db", "/srv")).toEqual({ kind: "sqlite", path: "/srv/a.db" });
    expect(targetKind("postgresql://h/d", "/srv").kind).toBe("postgres");
  });
});

describe("the guarding part", () => {
  const guarding = (text: string): string =>
    canonical(guardingOf(targetConfigOf(parseConfig(text, "/srv/holdpoint.yaml"), "elb-prod")));

  test("leaves out url and identity, and nothing else", () => {
    const same = FULL.replace("${ELB_PROD_URL}", "sqlite:elsewhere.db").replace(
      /identity: .*/,
      "identity: sqlite:00",
    );
    expect(guarding(same)).toBe(guarding(FULL));
  });

  test.each([
    ["environment", "environment: production", "environment: development"],
    ["foreign_keys", "foreign_keys: true", "foreign_keys: false"],
    ["append_only", "[outbox, audit_log]", "[outbox]"],
    ["mask", "customers.email", "customers.name"],
    ["rehearse_on", "    rehearse_on: elb-clone\n", ""],
    ["plan_url", "    rehearse_on: elb-clone\n", "    rehearse_on: elb-clone\n    plan_url: ${P}\n"],
    [
      "rehearsal",
      "    rehearse_on: elb-clone\n",
      "    rehearse_on: elb-clone\n    rehearsal: { rows: 5000000, replica_lag: 1m }\n",
    ],
    ["checks", "./check.sh", "./other.sh"],
    ["hooks", "./hold.sh", "./other.sh"],
    ["snapshot", "level: tables", "level: rows"],
  ])("changes with %s", (_, from, to) => {
    expect(guarding(FULL.replace(from, to))).not.toBe(guarding(FULL));
  });

  test("does not change with the order of a list", () => {
    expect(guarding(FULL.replace("[outbox, audit_log]", "[audit_log, outbox]"))).toBe(guarding(FULL));
  });
});

describe("the identity that env pin writes", () => {
  const ID = "sqlite:00112233445566778899aabbccddeeff";
  test.each<[string, string, string]>([
    [
      "behind environment, its comment kept",
      "# ours\ntargets:\n  a:\n    url: sqlite:a.db   # where\n    environment: production # a claim\n    mask: [ t.c ]\n\njobs: {} # none\n",
      `# ours\ntargets:\n  a:\n    url: sqlite:a.db   # where\n    environment: production # a claim\n    identity: ${ID}\n    mask: [ t.c ]\n\njobs: {} # none\n`,
    ],
    [
      "behind url at the end of a file without line end",
      "targets:\n  a:\n    url: sqlite:a.db",
      `targets:\n  a:\n    url: sqlite:a.db\n    identity: ${ID}`,
    ],
    [
      "in place of an older one",
      "targets:\n  a:\n    identity: sqlite:old # was\n    url: sqlite:a.db\n",
      `targets:\n  a:\n    identity: ${ID} # was\n    url: sqlite:a.db\n`,
    ],
    [
      "in place of a quoted one",
      "targets:\n  a: { url: 'sqlite:a.db', identity: 'old' }\n",
      `targets:\n  a: { url: 'sqlite:a.db', identity: ${ID} }\n`,
    ],
    [
      "in braces",
      "targets: { a: { url: 'sqlite:a.db' }, b: { url: 'sqlite:b.db' } }\n",
      `targets: { a: { url: 'sqlite:a.db', identity: ${ID} }, b: { url: 'sqlite:b.db' } }\n`,
    ],
    [
      "with CRLF line ends",
      "targets:\r\n  a:\r\n    url: sqlite:a.db\r\n    foreign_keys: true\r\n",
      `targets:\r\n  a:\r\n    url: sqlite:a.db\r\n    identity: ${ID}\r\n    foreign_keys: true\r\n`,
    ],
    [
      "behind a folded value",
      "targets:\n  a:\n    url: >-\n      sqlite:a.db\n    foreign_keys: true\n",
      `targets:\n  a:\n    url: >-\n      sqlite:a.db\n    identity: ${ID}\n    foreign_keys: true\n`,
    ],
  ])("stands %s", (_, before, after) => {
    expect(withIdentity(before, "a", ID)).toBe(after);
  });

  test("replaces the file, mode and link kept", () =>
    inFolder(async (folder) => {
      const real = join(folder, "real.yaml");
      writeFileSync(real, minimal(""), { mode: 0o640 });
      symlinkSync(real, join(folder, "holdpoint.yaml"));
      await writeIdentity(join(folder, "holdpoint.yaml"), "t", ID);
      expect(targetConfigOf(await loadConfig(real), "t").identity).toBe(ID);
      expect(statSync(real).mode & 0o777).toBe(0o640);
      expect(readFileSync(join(folder, "holdpoint.yaml"), "utf8")).toContain(ID);
    }));

  test("is refused for a target that is not there", async () => {
    expect((await refusal(() => withIdentity(minimal(""), "other", ID))).code).toBe("ERR_TARGET_UNKNOWN");
  });
});
