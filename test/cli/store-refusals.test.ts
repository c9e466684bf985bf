/**
 * Where the store cannot be, and a machine that refuses, through the real binary: a full disk, a folder that cannot be
 * written, one that others read, that git would take, that lies in a target. Each ends with a code that says what it is, and
 * with nothing written.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { BIN, bytesOf, type Document, makeProject, type TestProject } from "../support/project.js";

let project: TestProject;
let config: string;
let bytes: Buffer;
beforeAll(() => {
  project = makeProject({ environment: "development", journal: "delete" });
  project.write("jobs/one.sql", "UPDATE orders SET note = 'x' WHERE id = 1");
  config = project.read("holdpoint.yaml");
});
afterAll(() => project.close());
beforeEach(() => {
  project.write("holdpoint.yaml", config);
  bytes = bytesOf(project.database);
});

const PLAN = ["plan", "jobs/one.sql", "--on", "shop-prod", "--key", "keys/dana", "--json"];

/** Everything below the project but what this test itself changes. */
const listing = (): readonly string[] =>
  readdirSync(project.dir, { recursive: true, encoding: "utf8" })
    .filter((path) => path !== "holdpoint.yaml")
    .sort();

function expectRefused(document: Document, exit: number, code: string, ...words: readonly string[]): void {
  expect([document.exit.code, document.error?.code, document.target_changed]).toEqual([exit, code, "no"]);
  for (const word of words) expect(`${document.error?.what} ${document.error?.why}`).toContain(word);
  expect(bytesOf(project.database).equals(bytes)).toBe(true);
}

/** In a shell of its own, which may set limits before it becomes the program; null where this machine cannot run it. */
function inShell(before: string, wrap: readonly string[] = [], args = PLAN): Document {
  const script = `${before} exec "$@"`;
  const [program = "sh", ...more] = [...wrap, "sh", "-c", script, "sh", process.execPath, BIN, ...args];
  const done = spawnSync(program, more, {
    cwd: project.dir,
    encoding: "utf8",
    env: { PATH: process.env["PATH"] ?? "", HOME: join(project.dir, "home"), TZ: "UTC" },
  });
  return JSON.parse(done.stdout) as Document;
}

/** A disk of its own over the store, where this machine lets a test mount one. */
const OWN_DISK = ["unshare", "-rm"];
const canMount = spawnSync("unshare", ["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).status === 0;
const onOwnDisk = canMount ? test : test.skip;
const onDisk = (size: string, then: string): string =>
  `set -e; cp -a .holdpoint copy; mount -t tmpfs -o size=${size},mode=700 tmpfs .holdpoint; cp -a copy/. .holdpoint/; rm -r copy; ${then};`;

describe("a machine that refuses (1)", () => {
  onOwnDisk("a store on a full disk at start", () => {
    const fill =
      "dd if=/dev/zero of=.holdpoint/changes/fill bs=4k 2>/dev/null || chmod 600 .holdpoint/changes/fill";
    const before = listing();
    const refused = inShell(onDisk("2m", fill), OWN_DISK);
    expectRefused(refused, 1, "ERR_STORE_FAILED", ".holdpoint/changes/", "the disk is full");
    expect(refused.exit.name).toBe("internal");
    expect(listing()).toEqual(before);
  });

  onOwnDisk(
    "a store that becomes full while a plan is made: nothing stays behind, and the ledger is whole",
    () => {
      const verify = `"$1" "$2" log verify >&2 || exit 9; echo "left: $(find .holdpoint/changes -type f)" >&2;`;
      const script = `${onDisk("600k", "true")} "$@" || s=$?; ${verify} test "$s" = 1`;
      const rows =
        "(WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 20000) SELECT v FROM n)";
      project.write("jobs/many.sql", `INSERT INTO customers (name) SELECT hex(randomblob(40)) FROM ${rows}`);
      const args = ["plan", "jobs/many.sql", "--on", "shop-prod", "--key", "keys/dana", "--json"];
      const done = spawnSync("unshare", ["-rm", "sh", "-c", script, "sh", process.execPath, BIN, ...args], {
        cwd: project.dir,
        encoding: "utf8",
        env: { PATH: process.env["PATH"] ?? "", HOME: join(project.dir, "home"), TZ: "UTC" },
      });
      expect([done.status, done.stderr.split("\n").at(-2)]).toEqual([0, "left: "]);
      expectRefused(JSON.parse(done.stdout) as Document, 1, "ERR_STORE_FAILED", "the disk is full");
    },
  );

  onOwnDisk("a store on a file system that is read-only", () => {
    const refused = inShell(onDisk("2m", "mount -o remount,ro .holdpoint"), OWN_DISK);
    expectRefused(refused, 1, "ERR_MACHINE_FAILED", ".holdpoint/changes/", "read-only");
  });

  test("too many open files, wherever they run out", () => {
    // Below some number Node itself cannot start; above some other the command does what it should.
    const found = [28, 32, 36, 40].flatMap((limit) => {
      const done = spawnSync(
        "sh",
        ["-c", `ulimit -n ${limit}; exec "$@"`, "sh", process.execPath, BIN, ...PLAN],
        {
          cwd: project.dir,
          encoding: "utf8",
        },
      );
      return done.stdout === "" ? [] : [JSON.parse(done.stdout) as Document];
    });
    const refused = found.filter((d) => !d.ok);
    expect(refused).not.toEqual([]);
    for (const document of refused)
      expectRefused(document, 1, document.error?.code ?? "", "too many files are open", "EMFILE");
    expect(refused.map((d) => d.error?.code)).toContain("ERR_MACHINE_FAILED");
  });

  test("a folder that cannot be written: no store is made, and a part of one that is there", () => {
    const mine = userInfo().uid;
    const user = mine === 0 ? 65_534 : mine;
    const fresh = makeProject({ environment: "development", pin: false });
    try {
      rmSync(fresh.path(".holdpoint"), { recursive: true, force: true });
      for (const path of ["", ...readdirSync(fresh.dir, { recursive: true, encoding: "utf8" })])
        chownSync(join(fresh.dir, path), user, mine === 0 ? user : userInfo().gid);
      const status = (): Document => {
        // For root nothing is forbidden, so somebody else is asked.
        const as = mine === 0 ? { uid: user, gid: user } : {};
        const done = spawnSync(process.execPath, [BIN, "status", "--json"], {
          cwd: fresh.dir,
          encoding: "utf8",
          env: { PATH: process.env["PATH"] ?? "", HOME: join(fresh.dir, "home"), TZ: "UTC" },
          ...as,
        });
        return JSON.parse(done.stdout) as Document;
      };
      chmodSync(fresh.dir, 0o500);
      expectRefused(status(), 1, "ERR_STORE_FAILED", "could not make", "not permitted", "EACCES");
      expect(existsSync(fresh.path(".holdpoint"))).toBe(false);
      chmodSync(fresh.dir, 0o700);
      expect(status().ok).toBe(true);
      rmSync(fresh.path(".holdpoint/changes"), { recursive: true });
      chmodSync(fresh.path(".holdpoint"), 0o500);
      expectRefused(status(), 1, "ERR_STORE_FAILED", "could not make", "not permitted", "EACCES");
      chmodSync(fresh.path(".holdpoint"), 0o700);
      chmodSync(fresh.path("holdpoint.yaml"), 0o000);
      expectRefused(status(), 2, "ERR_CONFIG_INVALID", "EACCES", "holdpoint.yaml");
    } finally {
      fresh.close();
    }
  });
});

describe("a store in the wrong place, or open to others (2)", () => {
  const unsafe = (...words: readonly string[]): void =>
    expectRefused(project.json(PLAN.slice(0, -1)), 2, "ERR_STORE_UNSAFE", ...words);

  test("readable by others: refused with the command that mends it, and not mended for them", () => {
    for (const [path, mode, right] of [
      [".holdpoint", 0o750, 0o700],
      [".holdpoint/snapshots", 0o705, 0o700],
      [".holdpoint/ledger.db", 0o644, 0o600],
    ] as const) {
      chmodSync(project.path(path), mode);
      const before = listing();
      unsafe(path, `found 0${mode.toString(8)}`);
      expect(listing()).toEqual(before);
      chmodSync(project.path(path), right);
    }
    expect(project.json(["status"]).ok).toBe(true);
  });

  test("in a git work tree that does not ignore it: nothing of it could be committed, because it is not made", () => {
    execFileSync("git", ["init", "-q", project.dir]);
    try {
      expect(project.json(["status"]).ok).toBe(true); // init wrote the line
      project.write("holdpoint.yaml", config.replace(/^store:.*$/m, "store: elsewhere"));
      unsafe("elsewhere", "git add");
      expect(existsSync(project.path("elsewhere"))).toBe(false);
      project.write("holdpoint.yaml", config);
      const ignored = project.read(".gitignore");
      project.write(".gitignore", "");
      unsafe(".holdpoint", "git add");
      project.write(".gitignore", ignored);
    } finally {
      rmSync(project.path(".git"), { recursive: true });
    }
  });

  // A folder in the place of a database's log would keep every program out of the database.
  test.each([
    "shop.db",
    "shop.db-wal",
    "shop.db-shm",
    "shop.db-journal",
    "shop.db-holdpoint-run",
    "shop.db/store",
  ])("in the target, at %s: not made, and the database still opens", (place) => {
    for (const side of ["-wal", "-shm"]) expect(existsSync(`${project.database}${side}`)).toBe(false);
    project.write("holdpoint.yaml", config.replace(/^store:.*$/m, `store: ${place}`));
    const before = listing();
    for (const args of [PLAN.slice(0, -1), ["status"]]) {
      const refused = project.json(args);
      expectRefused(refused, 2, "ERR_STORE_UNSAFE", "inside the target", "shop.db");
    }
    expect(listing()).toEqual(before);
    expect(project.rows("SELECT count(*) AS n FROM orders")).toEqual([{ n: 400 }]);
  });

  test("around the target: what takes the store away must not take the database along", () => {
    mkdirSync(project.path("data"), { mode: 0o700 });
    execFileSync("cp", [project.database, project.path("data/shop.db")]);
    const moved = config
      .replace("sqlite:shop.db", "sqlite:data/shop.db")
      .replace(/^store:.*$/m, "store: data");
    project.write("holdpoint.yaml", moved);
    const before = listing();
    unsafe("data", "lies inside it");
    expect(listing()).toEqual(before);
  });
});
