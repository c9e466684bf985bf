/** Whole PostgreSQL databases by pg_dump: kept, restored once before they count, and read by everything that reads snapshots. */
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { assertRestorable, openRestored } from "../../src/adapters/postgres/index.js";
import {
  type PostgresPrograms,
  postgresPrograms,
  programFolders,
} from "../../src/machine/postgres-programs.js";
import { drill } from "../../src/operations/drill.js";
import { listSnapshots, verifySnapshot } from "../../src/operations/kept-snapshots.js";
import { pruneSnapshots } from "../../src/operations/prune.js";
import { takeSnapshot } from "../../src/operations/snapshot.js";
import { parseManifest, manifestBytes } from "../../src/snapshot/manifest.js";
import { type DumpFacts, misfitOf } from "../../src/target/dump.js";
import { onPostgres } from "../support/on-postgres.js";
import { findServers, startServer } from "../support/postgres.js";
import { wrapPrograms } from "../support/postgres-programs.js";
import { column, makePostgresProject } from "../support/postgres-project.js";
import { openPostgresTarget } from "../support/postgres-target.js";

import { BIN, type TestProject } from "../support/project.js";
import { refusal, refusalLine } from "../support/refusal.js";
import { countingRandom, NOON } from "../support/sqlite.js";
import { inFolder } from "../support/temporary.js";
import { withTools } from "../support/wired.js";

const PROGRAMS = postgresPrograms(programFolders(process.env["PATH"]));
const HERE = await PROGRAMS.having(["pg_dump", "pg_restore", "initdb", "postgres"]);

const SHOP = [
  "CREATE TABLE orders (id bigint PRIMARY KEY, status text, paid numeric)",
  "INSERT INTO orders SELECT i, 'open', i / 8.0 FROM generate_series(1, 500) AS i",
  'CREATE SCHEMA "odd ""place"""',
  'CREATE TABLE "odd ""place"""."t able" (a int)',
  'INSERT INTO "odd ""place"""."t able" VALUES (1), (1), (2)',
  "CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at)",
  "CREATE TABLE parts_one PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
  "INSERT INTO parts VALUES (1, '2026-03-01')",
  "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
  "CREATE POLICY everyone ON orders USING (true)",
  "SELECT lo_from_bytea(0, 'bytes')",
] as const;

onPostgres("whole databases by pg_dump", "first", (server, which) => {
  const major = findServers()[which === "first" ? 0 : 1]?.major ?? 0;
  const missing = HERE.some((p) => p.major >= major)
    ? null
    : `pg_dump, pg_restore, initdb and postgres are not on this machine for PostgreSQL ${major}`;
  if (missing !== null) {
    // A package of npm brings a second server without its pg_dump.
    if (which === "first" && process.env["REQUIRE_SERVERS"] === "1") throw new Error(missing);
    process.stderr.write(`skipped: ${missing}\n`);
    test.skip(missing, () => undefined);
    return;
  }
  let url: string;
  let project: TestProject | undefined;
  const shop = (): TestProject => {
    project ??= makePostgresProject(url, { target: "shop", environment: "development" });
    return project;
  };
  beforeEach(async () => {
    url = await server().freshDatabase();
    await server().exec(url, ...SHOP);
  });
  afterEach(() => {
    project?.close();
    project = undefined;
  });

  test("a dump is taken, verified, listed, restored to a file, compared and rescued from", async () => {
    const before = scratchLeft();
    const taken = shop().run(["snapshot", "take", "--on", "shop", "--snapshot", "database", "--json"]);
    expect([taken.status, taken.stderr]).toEqual([0, ""]);
    const { snapshot, level, rows } = JSON.parse(taken.stdout).result;
    expect([level, rows]).toEqual(["database", 504]);
    expect(scratchLeft()).toEqual(before);

    const file = join(shop().dir, "shop.dump");
    const restored = shop().run(["snapshot", "restore", snapshot, "--to", file]);
    expect(restored.stdout).toContain("pg_restore --no-owner --dbname=NEW_DATABASE");
    expect(readFileSync(file).subarray(0, 5).toString()).toBe("PGDMP");
    expect(shop().run(["snapshot", "restore", snapshot, "--to", file]).stderr).toContain("exists already");
    const link = join(shop().dir, "link.dump");
    symlinkSync(join(shop().dir, "elsewhere"), link);
    expect(shop().run(["snapshot", "restore", snapshot, "--to", link]).stderr).toContain("exists already");
    expect(existsSync(join(shop().dir, "elsewhere"))).toBe(false);

    await server().exec(
      url,
      "DELETE FROM orders WHERE id <= 3",
      "UPDATE orders SET status = 'new' WHERE id = 9",
    );
    const diff = shop().run(["snapshot", "diff", snapshot, "now", "--json"]);
    expect(JSON.parse(diff.stdout).result.tables).toEqual([
      { table: "orders", insert: 0, update: 1, delete: 3 },
    ]);
    const rescue = shop().run([
      "rescue",
      "--on",
      "shop",
      "--from",
      snapshot,
      "--damage",
      "deleted",
      "--json",
    ]);
    expect([rescue.status, JSON.parse(rescue.stdout).result.counts.put_back]).toEqual([0, 3]);
    expect(scratchLeft()).toEqual(before);
  });

  test("its manifest is canonical, says what was counted, and goes with its pack, damaged or not", async () => {
    await withTools(shop().dir, async (tools) => {
      const { manifest } = await takeSnapshot(tools, "shop", [], "database");
      expect(manifest.dump?.tables).toContainEqual({ name: '"odd ""place"""."t able"', rows: 3 });
      expect(manifest.dump?.tables).toContainEqual({ name: '"public"."parts_one"', rows: 1 });
      expect(manifest.dump?.largeObjects).toBe(1);
      expect(parseManifest(manifestBytes(manifest))).toEqual({ ok: true, manifest });
      expect((await verifySnapshot(tools, manifest.id)).manifest).toEqual(manifest);
      damage(join(shop().dir, ".holdpoint", "snapshots", `${manifest.id}.hpchunks`));
      expect((await refusal(() => verifySnapshot(tools, manifest.id))).code).toBe("ERR_SNAPSHOT_UNVERIFIED");
      expect((await listSnapshots(tools, "shop")).map((s) => s.why)).toEqual([null]);
      const which = { refs: [manifest.id], on: null, keep: null, before: null, evenIfNeeded: false };
      expect((await pruneSnapshots(tools, which)).removed).toEqual([manifest.id]);
      expect(readdirSync(join(shop().dir, ".holdpoint", "snapshots"))).toEqual([]);
    });
  });

  test("a drill restores it, breaks the copy and rescues it, and the database stays as it is", async () => {
    await withTools(shop().dir, async (tools) => {
      const { table, broken, restored, lost, missing: gone } = await drill(tools, "shop", null);
      expect([table, restored, lost, gone]).toEqual(["orders", broken, 0, 0]);
    });
  });

  test("whoever could make an index in the database gets no rights where it is restored", async () => {
    const ran = join(mkdtempSync(join(tmpdir(), "holdpoint-ran-")), "ran");
    chmodSync(dirname(ran), 0o777);
    try {
      await server().exec(
        url,
        "CREATE EXTENSION IF NOT EXISTS hstore",
        "CREATE TABLE tags (id integer PRIMARY KEY, tags hstore)",
        "INSERT INTO tags VALUES (1, 'a=>1')",
        "CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM orders",
        `CREATE FUNCTION act() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN COPY (SELECT 1) TO PROGRAM 'touch ${ran}'; RETURN 1; END $$`,
        `CREATE FUNCTION key_of(i integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
           IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AND current_user <> 'postgres'
           THEN PERFORM public.act(); END IF; RETURN i; END $$`,
        "CREATE INDEX ON tags (key_of(id))",
      );
      await withTools(shop().dir, async (tools) => {
        const { manifest } = await takeSnapshot(tools, "shop", [], "database");
        expect(manifest.dump?.tables).toContainEqual({ name: '"public"."tags"', rows: 1 });
        expect((await drill(tools, "shop", null)).missing).toBe(0);
      });
      expect(existsSync(ran)).toBe(false);
    } finally {
      rmSync(dirname(ran), { recursive: true });
    }
  });

  /** Kills a command once its restore has begun, as an impatient system would. */
  async function killed(program: "initdb" | "pg_restore", afterwards: () => Promise<void>): Promise<void> {
    const folder = mkdtempSync(join(tmpdir(), "holdpoint-killed-"));
    // Under root the server's programs run as another user.
    chmodSync(folder, 0o777);
    try {
      await killedIn(folder, program);
      await afterwards();
    } finally {
      writeFileSync(join(folder, "go"), "");
      rmSync(folder, { recursive: true });
    }
  }
  async function killedIn(folder: string, program: "initdb" | "pg_restore"): Promise<void> {
    wrapPrograms(`${folder}/waiting`, { [program]: waits(folder) });
    const child = spawn(process.execPath, [BIN, ...taking], {
      cwd: shop().dir,
      env: { PATH: `${folder}/waiting:${process.env["PATH"] ?? ""}`, HOME: shop().path("home") },
      stdio: "ignore",
    });
    const over = new Promise((resolve) => child.once("exit", (_, signal) => resolve(signal)));
    await until(() => existsSync(join(folder, "began")));
    child.kill("SIGKILL");
    expect(await over).toBe("SIGKILL");
  }
  const taking = ["snapshot", "take", "--on", "shop", "--snapshot", "database"];

  test("killed while it runs: server, programs and folders go by themselves, and the next one is kept", async () => {
    const before = scratchLeft();
    for (const program of ["initdb", "pg_restore"] as const) {
      await killed(program, async () => undefined);
      await until(() => scratchLeft().join() === before.join());
    }
    await withTools(shop().dir, async (tools) => {
      const { manifest } = await takeSnapshot(tools, "shop", [], "database");
      const kept = (await listSnapshots(tools, "shop")).filter((s) => s.isRecorded);
      expect(kept.map((s) => s.record.id)).toEqual([manifest.id]);
    });
  });

  test("killed beside a clone: the program ends, and the next restore there drops the database", async () => {
    const other = await startServer();
    try {
      await other.exec(
        other.url("postgres"),
        "CREATE ROLE clone_role LOGIN CREATEDB",
        "CREATE DATABASE clone OWNER clone_role",
      );
      project = makePostgresProject(url, {
        target: "shop",
        environment: "development",
        configure: (made) => {
          const clone = `targets:\n  clone:\n    url: ${other.url("clone", "clone_role")}\n    environment: development\n`;
          const text = made.read("holdpoint.yaml").replace(/^targets:\n/m, clone);
          made.write("holdpoint.yaml", text.replace(/^( *)(url: .*\/db.*)$/m, "$1$2\n$1rehearse_on: clone"));
        },
      });
      const scratch = (): Promise<readonly (string | null)[]> =>
        column(other.url("postgres"), "SELECT datname FROM pg_database WHERE datname LIKE 'holdpoint%'");
      await killed("pg_restore", async () => {
        expect(await scratch()).toHaveLength(1);
        await withTools(shop().dir, (tools) => takeSnapshot(tools, "shop", [], "database"));
        expect(await scratch()).toEqual([]);
      });
    } finally {
      await other.stop();
    }
  });

  test("without a pg_dump as new as the server nothing is written, and what to install is named", async () => {
    const older = fakeFolders([{ folder: "/nowhere", major: 9, version: "pg_dump (PostgreSQL) 9.6" }]);
    for (const [programs, why] of [
      [postgresPrograms([]), "no folder of PATH has pg_dump"],
      [older, "the newest one here is pg_dump (PostgreSQL) 9.6"],
    ] as const)
      await inFolder(async (folder) => {
        const target = await openPostgresTarget(url, { programs });
        try {
          const e = await refusal(() => target.dumpTo?.(join(folder, "dump")));
          expect([e.code, e.why]).toEqual(["ERR_TARGET_UNSUPPORTED", expect.stringContaining(why)]);
          expect(e.next?.[0]?.text).toMatch(/^Install pg_dump \d+ or newer/);
          expect(readdirSync(folder)).toEqual([]);
        } finally {
          await target.close();
        }
      });
  });

  test("without a place to restore to, it is refused before a dump is made", async () => {
    const options = {
      name: "shop",
      clock: NOON,
      random: countingRandom(),
      env: {},
      programs: postgresPrograms([]),
    };
    const own = () => assertRestorable({ kind: "own", folder: tmpdir() }, options);
    expect(await refusalLine(own)).toBe(
      "ERR_SNAPSHOT_UNVERIFIED a dump could not be verified here: there is no place to restore it to | no folder of PATH has pg_restore, initdb, postgres",
    );
    await server().exec(url, "DROP ROLE IF EXISTS plain_role", "CREATE ROLE plain_role LOGIN");
    const place = { kind: "server", name: "clone", url: url.replace("postgres@", "plain_role@") } as const;
    const e = await refusal(() => assertRestorable(place, { ...options, programs: PROGRAMS }));
    expect([e.code, e.next?.[0]?.text]).toEqual([
      "ERR_SNAPSHOT_UNVERIFIED",
      'Ask for: ALTER ROLE "plain_role" CREATEDB;',
    ]);
    // What a dump's functions do while it is restored, they would do as the superuser of that server.
    const mighty = { ...place, url } as const;
    expect(await refusalLine(() => assertRestorable(mighty, { ...options, programs: PROGRAMS }))).toMatch(
      /its role on the server of clone is a superuser: functions of the database run while a dump is restored/,
    );
  });

  test("a clone on the server of the target itself is no place to restore to", async () => {
    const clone = await server().freshDatabase();
    project = makePostgresProject(url, {
      target: "shop",
      environment: "development",
      configure: ({ dir }) => {
        const file = join(dir, "holdpoint.yaml");
        const text = readFileSync(file, "utf8").replace(/^( *)(url: .*)$/m, "$1$2\n$1rehearse_on: clone");
        const other = `targets:\n  clone:\n    url: ${clone}\n    environment: development\n`;
        writeFileSync(file, text.replace(/^targets:\n/m, other));
      },
    });
    await withTools(shop().dir, async (tools) => {
      const e = await refusal(() => takeSnapshot(tools, "shop", [], "database"));
      expect([e.code, e.why]).toEqual([
        "ERR_SNAPSHOT_UNVERIFIED",
        "clone (rehearse_on) lies on the server of shop itself, which a restore would load",
      ]);
    });
  });

  test("beside a clone it is restored into a database of its own, which is gone afterwards", async () => {
    await inFolder(async (folder) => {
      const path = join(folder, "dump");
      const target = await openPostgresTarget(url, { programs: PROGRAMS });
      try {
        const dumped = await target.dumpTo?.(path);
        if (dumped === undefined) throw new Error("no dump was made");
        const options = { name: "shop", clock: NOON, random: countingRandom(), env: {}, programs: PROGRAMS };
        await server().exec(url, "DROP ROLE IF EXISTS clone_role", "CREATE ROLE clone_role LOGIN CREATEDB");
        const place = { kind: "server", name: "clone", url: server().url("postgres", "clone_role") } as const;
        const restored = await openRestored({ path, facts: dumped.facts }, place, options);
        // A second one leaves alone what somebody works with.
        await (
          await openRestored({ path, facts: dumped.facts }, place, { ...options, random: randomBytes })
        ).close();
        expect(await restored.countRows("orders")).toBe(500);
        await restored.close();
        const other: DumpFacts = {
          ...dumped.facts,
          tables: dumped.facts.tables.map((t) => ({ ...t, rows: t.rows + 1 })),
        };
        const e = await refusal(() => openRestored({ path, facts: other }, place, options));
        expect([e.code, e.why]).toEqual([
          "ERR_SNAPSHOT_UNVERIFIED",
          '"odd ""place"""."t able" had 4 rows when it was dumped and has 3 when restored',
        ]);
        const left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'holdpoint_scratch%'";
        expect(await target.ask?.(left, 1_000)).toBe("0");
      } finally {
        await target.close();
      }
    });
  });
});

/** Stops every other program of a restore until a file is there, and says by another file that it began. */
function waits(folder: string): string {
  return `: >'${folder}/began'; while [ -e '${folder}/began' ] && [ ! -e '${folder}/go' ]; do sleep 0.05; done`;
}

describe("a restored dump beside what was counted", () => {
  const one = { tables: [{ name: "a", rows: 2 }], largeObjects: 0 };
  test.each([
    ["is as it was", one, undefined],
    [
      "lacks a row",
      { ...one, tables: [{ name: "a", rows: 1 }] },
      "a had 2 rows when it was dumped and has 1 when restored",
    ],
    ["lacks a table", { ...one, tables: [] }, "the restored dump has no table a"],
    [
      "has a table more",
      { ...one, tables: [...one.tables, { name: "b", rows: 0 }] },
      "the restored dump has a table b that was not counted",
    ],
    ["has other large objects", { ...one, largeObjects: 1 }, "0 large objects were dumped and 1 restored"],
  ])("%s", (_, found, why) => expect(misfitOf(one, found)).toBe(why));
});

function damage(path: string): void {
  const bytes = readFileSync(path);
  bytes.writeUInt8(bytes.readUInt8(200) ^ 1, 200);
  writeFileSync(path, bytes);
}

/** Programs of another version, which no machine of today has. */
function fakeFolders(found: Awaited<ReturnType<PostgresPrograms["having"]>>): PostgresPrograms {
  return { ...PROGRAMS, having: async () => found };
}

/** Waits for what happens by itself. */
async function until(is: () => boolean): Promise<void> {
  for (let looks = 0; !is(); looks++) {
    if (looks > 1_000) throw new Error("it did not happen");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Scratch servers and their folders that are still there. */
function scratchLeft(): readonly string[] {
  const running = spawnSync("ps", ["-eo", "args"], { encoding: "utf8" }).stdout.split("\n");
  return [
    ...running.filter((line) => line.includes("unix_socket_permissions=0700")),
    ...readdirSync(tmpdir()).filter((name) => name.startsWith("holdpoint-pg-")),
  ];
}
