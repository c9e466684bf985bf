/**
 * The name and the address are right, and the place is another: renamed, swapped, linked, forwarded, restored. Each is
 * caught before anything is written, with both values shown, and none of it by a word of the configuration.
 */
import { copyFileSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync } from "node:fs";
import { createServer, connect as dial, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import Database from "better-sqlite3";
import type { Evidence, Verdict } from "../../src/environment/evidence.js";
import { checkEnvironment } from "../../src/operations/env.js";
import { connect, startServer, whyNoServer, type TestServer } from "../support/postgres.js";
import { bytesOf, makeKey, makeProject, projectAt, type TestProject } from "../support/project.js";
import { documentSchema } from "../../src/render/documents.js";
import { misfits } from "../support/json-schema.js";
import { refusal } from "../support/refusal.js";
import { withTools } from "../support/wired.js";

const verdictOf = async (
  project: TestProject,
  env: Readonly<Record<string, string>> = {},
): Promise<Verdict> =>
  withTools(
    project.dir,
    async (tools) => (await checkEnvironment(tools, "shop-prod", null)).examined.verdict,
    env,
  );
const against = (verdict: Verdict): readonly Evidence[] =>
  verdict.evidence.filter((e) => e.side === "target" && e.state === "contradicts");
const sources = (verdict: Verdict): readonly string[] => against(verdict).map((e) => e.source);
const bothSides = (verdict: Verdict, source: string): readonly unknown[] => {
  const found = against(verdict).find((e) => e.source === source);
  return [found?.expected, found?.found];
};

describe("an SQLite file", () => {
  let project: TestProject;
  let path: string;

  beforeEach(() => {
    project = makeProject({ journal: "delete", pin: false });
    project.write(
      "holdpoint.yaml",
      project.read("holdpoint.yaml").replace("sqlite:shop.db", "sqlite:${SHOP_DB}"),
    );
    const pinned = project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"], {
      env: { SHOP_DB: "shop.db" },
    });
    if (pinned.status !== 0) throw new Error(pinned.stderr);
    path = project.database;
  });
  afterEach(() => project.close());

  const at = (file: string): Promise<Verdict> => verdictOf(project, { SHOP_DB: file });
  const contradicted = (verdict: Verdict): void =>
    expect([verdict.name, verdict.guardedAs, verdict.contradicted]).toEqual(["unproven", "production", true]);

  test("as it was pinned: production", async () => {
    const verdict = await at("shop.db");
    expect([verdict.name, verdict.contradicted, sources(verdict)]).toEqual(["production", false, []]);
  });

  test("renamed", async () => {
    renameSync(path, project.path("moved.db"));
    const verdict = await at("moved.db");
    contradicted(verdict);
    expect(bothSides(verdict, "path")).toEqual([path, project.path("moved.db")]);
  });

  test("a swapped url: a database that was never pinned", async () => {
    new Database(project.path("other.db")).exec("CREATE TABLE orders (id)").close();
    const verdict = await at("other.db");
    contradicted(verdict);
    expect(bothSides(verdict, "marker")).toEqual([
      expect.stringMatching(/^sqlite:[0-9a-f]{32}$/),
      "no marker",
    ]);
  });

  test("a swapped url: another pinned database, under another name", async () => {
    const other = makeProject({ journal: "delete", target: "shop-stage", environment: "staging" });
    try {
      const verdict = await at(other.database);
      contradicted(verdict);
      expect(bothSides(verdict, "marker")).toEqual(["shop-prod", "shop-stage"]);
      const [expected, found] = bothSides(verdict, "identity");
      expect([expected, found]).toEqual([
        expect.stringMatching(/^sqlite:/),
        expect.stringMatching(/^sqlite:/),
      ]);
      expect(expected).not.toBe(found);
    } finally {
      other.close();
    }
  });

  test("a link to the same file is the same place; a link that was turned to a copy is not", async () => {
    symlinkSync(path, project.path("current.db"));
    expect((await at("current.db")).name).toBe("production");
    copyFileSync(path, project.path("copy.db"));
    unlinkSync(project.path("current.db"));
    symlinkSync(project.path("copy.db"), project.path("current.db"));
    const verdict = await at("current.db");
    contradicted(verdict);
    expect(bothSides(verdict, "path")).toEqual([path, project.path("copy.db")]);
    expect(sources(verdict)).toContain("inode");
  });

  test("a restored copy moved to production's path", async () => {
    copyFileSync(path, project.path("backup.db"));
    renameSync(project.path("backup.db"), path);
    const verdict = await at("shop.db");
    contradicted(verdict);
    const [expected, found] = bothSides(verdict, "inode");
    expect([expected, found]).toEqual([expect.stringMatching(/^\d+$/), expect.stringMatching(/^\d+$/)]);
    expect(expected).not.toBe(found);
  });

  test("refused with both values, and nothing is written", () => {
    copyFileSync(path, project.path("copy.db"));
    const before = bytesOf(project.path("copy.db"));
    const env = { SHOP_DB: "copy.db" };
    const made = project.json(["plan", "hello", "--on", "shop-prod"], { env });
    expect([made.exit.code, made.error?.code, made.target_changed]).toEqual([
      33,
      "ERR_ENV_CONTRADICTED",
      "no",
    ]);
    expect(made.error?.why).toContain(`path: expected ${path}, found ${project.path("copy.db")}`);
    const asserted = project.json(["env", "check", "shop-prod", "--assert", "production"], { env });
    expect([asserted.exit.code, asserted.error?.code]).toEqual([33, "ERR_ENV_ASSERTION"]);
    const not = project.json(["env", "check", "shop-prod", "--assert", "not-production"], { env });
    expect([not.exit.code, not.error?.code]).toEqual([33, "ERR_ENV_ASSERTION"]);
    expect(bytesOf(project.path("copy.db"))).toEqual(before);
  });

  test.each([
    ["a variable that is not set", {}, "ERR_CONFIG_VARIABLE"],
    ["a blank variable", { SHOP_DB: " " }, "ERR_CONFIG_VARIABLE"],
    ["a variable of two lines", { SHOP_DB: "shop.db\nother.db" }, "ERR_CONFIG_VARIABLE"],
    ["a file that is not there", { SHOP_DB: "gone.db" }, "ERR_TARGET_UNREACHABLE"],
    ["a folder", { SHOP_DB: "keys" }, "ERR_TARGET_UNREACHABLE"],
  ] as const)("%s is refused, never a default", async (_name, env, code) => {
    expect(await refusal(() => verdictOf(project, env))).toMatchObject({ code });
  });
});

test("an old copy written into the very file: the run that it has forgotten is named", async () => {
  const project = makeProject({ journal: "delete" });
  try {
    copyFileSync(project.database, project.path("backup.db"));
    const plan = project.plan("UPDATE orders SET note = 'x' WHERE id = 1");
    project.approve(plan);
    const applied = project.json(["apply", plan, "--confirm", "shop-prod"]);
    expect(applied.error).toBeNull();
    const remembered = await verdictOf(project);
    expect([remembered.name, sources(remembered)]).toEqual(["production", []]);
    copyFileSync(project.path("backup.db"), project.database);
    const verdict = await verdictOf(project);
    // Same path, same inode, same marker: what is left is what the marker does not remember.
    expect([verdict.name, verdict.guardedAs, verdict.contradicted]).toEqual([
      "unproven",
      "production",
      false,
    ]);
    expect(sources(verdict)).toEqual(["last run"]);
    expect(bothSides(verdict, "last run")).toEqual([
      expect.stringMatching(new RegExp(`^${String(applied.result["run"])} of \\S+ \\(entry \\d+\\)$`)),
      expect.stringMatching(/^nothing after entry \d+$/),
    ]);
    const asserted = project.json(["env", "check", "shop-prod", "--assert", "production"]);
    expect([asserted.exit.code, asserted.error?.code]).toEqual([33, "ERR_ENV_ASSERTION"]);
  } finally {
    project.close();
  }
});

describe("a pin that a DBA runs", () => {
  test("the printed SQL is whole: run as it is, with the identity it names, the target is pinned", async () => {
    const project = makeProject({ journal: "delete", pin: false });
    try {
      const before = bytesOf(project.database);
      const document = project.json(["env", "pin", "shop-prod", "--print-sql"]);
      expect([document.result["pinned"], misfits(documentSchema("env-pin"), document)]).toEqual([false, []]);
      const printed = project.run(["env", "pin", "shop-prod", "--print-sql"]);
      expect([printed.status, bytesOf(project.database).equals(before)]).toEqual([0, true]);
      expect(project.read("holdpoint.yaml")).not.toContain("identity:");
      const [, identity = ""] = /^-- Then .* identity: (sqlite:[0-9a-f]{32})$/m.exec(printed.stdout) ?? [];
      project.raw(printed.stdout);
      const marked = await verdictOf(project);
      expect([marked.name, marked.contradicted]).toEqual(["unproven", false]);
      const config = project.read("holdpoint.yaml");
      project.write("holdpoint.yaml", config.replace("    url:", `    identity: ${identity}\n    url:`));
      expect((await verdictOf(project)).name).toBe("production");
      const plan = project.plan("UPDATE orders SET note = 'x' WHERE id = 1");
      project.approve(plan);
      expect(project.json(["apply", plan, "--confirm", "shop-prod"]).ok).toBe(true);
    } finally {
      project.close();
    }
  });
});

const missing = whyNoServer();
const suite = missing === null ? describe : describe.skip;
if (missing !== null) process.stderr.write(`skipped: ${missing}\n`);

suite("a PostgreSQL server", () => {
  let one: TestServer;
  let two: TestServer;
  let forward: Forward;
  let project: TestProject;

  beforeAll(async () => {
    [one, two] = await Promise.all([startServer(), startServer()]);
    for (const server of [one, two]) {
      await server.exec(server.url("postgres"), "CREATE DATABASE shop");
      await server.exec(server.url("shop"), "CREATE TABLE orders (id integer PRIMARY KEY, at timestamptz)");
      await server.exec(server.url("shop"), "CREATE INDEX orders_at ON orders (at)");
    }
    forward = await startForward(one);
    // Pinned over the socket, asked through the tunnel: it is the server that is recognised, not the way to it.
    project = postgresProject(one.url("shop"));
    const url = `postgres://postgres@localhost:${forward.port}/shop`;
    project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(/postgres:\/\/\S+/, url));
  });
  afterAll(async () => {
    await forward?.close();
    project?.close();
    await one?.stop();
    await two?.stop();
  });

  test("a port forward on localhost that leads to another server, with production's marker restored there", async () => {
    expect((await verdictOf(project)).name).toBe("production");
    forward.leadTo(two);
    try {
      const unmarked = await verdictOf(project);
      expect([unmarked.name, unmarked.contradicted]).toEqual(["unproven", true]);
      expect(bothSides(unmarked, "marker")).toEqual([expect.stringMatching(/^postgres:/), "no marker"]);
      await copyMarker(one, two);
      const restored = await verdictOf(project);
      expect([restored.name, restored.contradicted]).toEqual(["unproven", true]);
      const [expected, found] = bothSides(restored, "system");
      expect([expected, found]).toEqual([expect.stringMatching(/^\d+$/), expect.stringMatching(/^\d+$/)]);
      expect(expected).not.toBe(found);
    } finally {
      forward.leadTo(one);
    }
  });

  test("a copy under production's name on the same server: its number is another", async () => {
    await one.exec(
      one.url("postgres"),
      "ALTER DATABASE shop RENAME TO shop_old",
      "CREATE DATABASE shop TEMPLATE shop_old",
    );
    try {
      const verdict = await verdictOf(project);
      expect([verdict.name, verdict.contradicted, sources(verdict)]).toEqual(["unproven", true, ["oid"]]);
    } finally {
      await one.exec(one.url("postgres"), "DROP DATABASE shop", "ALTER DATABASE shop_old RENAME TO shop");
    }
  });

  test("a database that was renamed", async () => {
    await one.exec(one.url("postgres"), "ALTER DATABASE shop RENAME TO store");
    try {
      const config = project.read("holdpoint.yaml");
      project.write("holdpoint.yaml", config.replace(/\/shop$/m, "/store"));
      const verdict = await verdictOf(project);
      expect([verdict.name, verdict.contradicted]).toEqual(["unproven", true]);
      expect(bothSides(verdict, "database")).toEqual(["shop", "store"]);
      project.write("holdpoint.yaml", config);
    } finally {
      await one.exec(one.url("postgres"), "ALTER DATABASE store RENAME TO shop");
    }
  });

  test("a physical copy is said to be undecidable, and what differs after a promotion is compared", async () => {
    const verdict = await verdictOf(project);
    const of = (source: string): string | undefined =>
      verdict.evidence.find((e) => e.source === source)?.detail;
    expect(of("physical copy")).toMatch(
      /^cannot be told apart from here: a copy of the data directory keeps/,
    );
    expect(of("timeline since the pin")).toBe("1, as at the pin");
    expect(of("size since the pin")).toMatch(/ MB at the pin$/);
  });

  test("what the url leaves out comes from variables, and each is named", async () => {
    const config = project.read("holdpoint.yaml");
    project.write("holdpoint.yaml", config.replace(/postgres:\/\/.*$/m, "postgres:///shop"));
    try {
      const env = { PGHOST: one.folder, PGUSER: "postgres" };
      const { origins } = await withTools(
        project.dir,
        async (tools) => (await checkEnvironment(tools, "shop-prod", null)).examined,
        env,
      );
      expect(origins.filter((o) => o.inherited).map((o) => [o.part, o.from])).toEqual([
        ["host", "environment variable PGHOST, because the url names no host"],
        ["user", "environment variable PGUSER, because the url names no user"],
      ]);
    } finally {
      project.write("holdpoint.yaml", config);
    }
  });
});

interface Forward {
  readonly port: number;
  readonly leadTo: (server: TestServer) => void;
  readonly close: () => Promise<void>;
}

/** A port of this machine that leads to a server's socket, as a tunnel does. */
async function startForward(first: TestServer): Promise<Forward> {
  let to = first;
  const sockets = new Set<Socket>();
  const tunnel = createServer((client) => {
    const upstream = dial(join(to.folder, ".s.PGSQL.5432"));
    for (const [from, into] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.on("error", () => into.destroy());
      from.on("close", () => into.destroy());
      from.pipe(into);
    }
  });
  await new Promise<void>((resolve) => tunnel.listen(0, "127.0.0.1", resolve));
  return {
    port: (tunnel.address() as AddressInfo).port,
    leadTo: (server) => {
      to = server;
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => tunnel.close(() => resolve()));
    },
  };
}

/** A project over a database of a server. */
function postgresProject(url: string): TestProject {
  const dir = mkdtempSync(join(tmpdir(), "holdpoint-test-"));
  mkdirSync(join(dir, "keys"));
  for (const person of ["dana", "ravi"]) makeKey(join(dir, "keys", person), person);
  const project = projectAt(dir, "", "shop-prod");
  const people = ["dana", "ravi"].flatMap((p) => ["--person", `${p}=keys/${p}.pub`]);
  for (const args of [
    ["init", "--target", "shop-prod", "--url", url, "--environment", "production", ...people],
    ["env", "pin", "shop-prod", "--confirm", "shop-prod"],
  ]) {
    const ran = project.run(args);
    if (ran.status === 0) continue;
    rmSync(dir, { recursive: true, force: true });
    throw new Error(`${args.join(" ")} ended with ${ran.status}\n${ran.stdout}${ran.stderr}`);
  }
  return project;
}

/** What restoring a dump of one database into another does to the marker. */
async function copyMarker(from: TestServer, to: TestServer): Promise<void> {
  const client = await connect(from.url("shop"));
  try {
    const tables = ["holdpoint_marker", "holdpoint_spent", "holdpoint_batches", "holdpoint_notes"];
    for (const table of tables) {
      const columns = await client.rows(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 ORDER BY attnum",
        table,
      );
      await to.exec(
        to.url("shop"),
        `CREATE TABLE ${table} (${columns.map(([n, t]) => `"${n}" ${t}`).join(", ")})`,
      );
      for (const [row] of await client.rows(`SELECT format('%L', m.*::text) FROM ${table} m`))
        await to.exec(to.url("shop"), `INSERT INTO ${table} SELECT (${row}::${table}).*`);
    }
  } finally {
    await client.close();
  }
}
