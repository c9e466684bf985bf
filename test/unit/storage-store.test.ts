import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "@jest/globals";
import { digestOf } from "../../src/base/digest.js";
import type { Change, TableShape } from "../../src/changeset/change.js";
import { changeSet, sourceOf } from "../../src/changeset/source.js";
import { gitIgnores, runBounded } from "../../src/machine/child.js";
import { openBundles } from "../../src/storage/bundles.js";
import { createChanges } from "../../src/storage/changes.js";
import { openRowIndex } from "../../src/storage/row-index.js";
import { loadSqlite } from "../../src/storage/sqlite.js";
import { openStore, type Store } from "../../src/storage/store.js";
import { gone, ordersSet, paid } from "../support/tables.js";
import { inFolder } from "../support/temporary.js";

const unsafe = expect.objectContaining({ code: "ERR_STORE_UNSAFE" });

const make = (projectRoot: string, root = ".holdpoint/", create = true): Promise<Store> =>
  openStore(root, { projectRoot, create, isIgnored: (path) => gitIgnores(path, projectRoot), targets: [] });

describe("a store", () => {
  test("is made private, and opened again", () =>
    inFolder(async (folder) => {
      const store = await make(folder);
      expect(store.root).toBe(join(folder, ".holdpoint"));
      for (const path of [store.root, store.plans, store.changes, store.snapshots, store.bundles]) {
        expect(lstatSync(path).mode & 0o777).toBe(0o700);
      }
      expect((await make(folder, ".holdpoint/", false)).root).toBe(store.root);
      expect(store.workPath()).not.toBe(store.workPath());
    }));

  test("that is not there is only made when that is meant", () =>
    inFolder(async (folder) => {
      await expect(make(folder, ".holdpoint/", false)).rejects.toMatchObject({ code: "ERR_STORE_MISSING" });
      expect(readdirSync(folder)).toEqual([]);
    }));

  test.each([0o710, 0o750, 0o701, 0o770, 0o755, 0o777])("with mode %o is refused", (mode) =>
    inFolder(async (folder) => {
      const { root } = await make(folder);
      chmodSync(root, mode);
      await expect(make(folder)).rejects.toMatchObject({
        code: "ERR_STORE_UNSAFE",
        next: [{ argv: ["chmod", "700", root] }],
      });
      expect(lstatSync(root).mode & 0o777).toBe(mode); // looked at, not repaired: who read it meanwhile?
    }),
  );

  test.each(["ledger.db", "ledger.head", "rows.secret"])("whose %s others can read is refused", (name) =>
    inFolder(async (folder) => {
      const { root } = await make(folder);
      writeFileSync(join(root, name), "", { mode: 0o600 });
      await make(folder);
      chmodSync(join(root, name), 0o640);
      await expect(make(folder)).rejects.toEqual(unsafe);
    }),
  );

  test("whose folder, or part, is a link or a file is refused", () =>
    inFolder(async (folder) => {
      const { root } = await make(folder, "real");
      symlinkSync(root, join(folder, "linked"));
      await expect(make(folder, "linked")).rejects.toEqual(unsafe);
      writeFileSync(join(folder, "file"), "", { mode: 0o600 });
      await expect(make(folder, "file")).rejects.toEqual(unsafe);
      symlinkSync(join(folder, "file"), join(root, "ledger.db"));
      await expect(make(folder, "real")).rejects.toEqual(unsafe);
      const other = await make(folder, "other");
      symlinkSync(root, join(other.root, "more"));
      await expect(make(folder, "other")).rejects.toEqual(unsafe);
    }));

  (userInfo().uid === 0 ? test : test.skip)("that belongs to somebody else is refused", () =>
    inFolder(async (folder) => {
      const { root } = await make(folder);
      chownSync(root, 4321, 4321);
      await expect(make(folder)).rejects.toMatchObject({
        code: "ERR_STORE_UNSAFE",
        why: expect.stringContaining("4321"),
      });
    }),
  );

  test("in a git work tree that does not ignore it is refused before anything is written", () =>
    inFolder(async (folder) => {
      execFileSync("git", ["init", "-q", folder]);
      mkdirSync(join(folder, "project"));
      await expect(make(join(folder, "project"))).rejects.toEqual(unsafe);
      expect(existsSync(join(folder, "project", ".holdpoint"))).toBe(false);
      writeFileSync(join(folder, ".gitignore"), ".holdpoint/ledger.db\n");
      await expect(make(join(folder, "project"))).rejects.toEqual(unsafe);
      writeFileSync(join(folder, ".gitignore"), ".holdpoint/\n");
      await make(join(folder, "project"));
    }));

  test("inside a target, around one, or in its place is refused; beside one is its place", () =>
    inFolder(async (folder) => {
      const { root, assertOutside } = await make(folder);
      mkdirSync(join(folder, "data"));
      symlinkSync(folder, join(folder, "data", "back"));
      writeFileSync(join(folder, "data", "shop.db"), "");
      assertOutside([
        join(folder, "data", "shop.db"),
        join(folder, "data", "shop.db-wal"),
        join(folder, "data"),
      ]);
      for (const path of [
        folder,
        root,
        join(root, "shop.db"),
        join(root, "plans"),
        join(folder, "data", "back"),
        join(folder, "data/back/.holdpoint/x/y"),
        "/",
      ]) {
        expect(() => assertOutside([path])).toThrow(unsafe);
      }
    }));

  test("sweeps working files that a killed process left, and no newer ones", () =>
    inFolder(async (folder) => {
      const store = await make(folder);
      writeFileSync(join(store.changes, "old.db"), "");
      writeFileSync(join(store.changes, "new.db"), "");
      utimesSync(join(store.changes, "old.db"), new Date("2026-01-01"), new Date("2026-01-01"));
      expect(store.sweep(new Date("2026-06-01"))).toBe(1);
      expect(readdirSync(store.changes)).toEqual(["new.db"]);
    }));
});

describe("the index of touched rows", () => {
  const random = (size: number): Uint8Array => new Uint8Array(size).fill(7);

  test("says which runs touched a row, in order, and forgets them", () =>
    inFolder(async (folder) => {
      const index = await openRowIndex(folder, { random });
      index.indexRun("rn_b", sourceOf(ordersSet(paid(1), paid(2))));
      index.indexRun("rn_a", sourceOf(ordersSet(gone(2), paid(3))));
      index.indexRun("rn_b", sourceOf(ordersSet(paid(1), paid(2))));
      expect([1n, 2n, 3n, 4n].map((id) => index.runsOf("orders", [id]))).toEqual([
        ["rn_b"],
        ["rn_b", "rn_a"],
        ["rn_a"],
        [],
      ]);
      expect(index.runsOf("order", ["s", 1n])).toEqual([]);
      index.forget("rn_b");
      expect(index.runsOf("orders", [2n])).toEqual(["rn_a"]);
      index.close();
      const again = await openRowIndex(folder, { random: () => new Uint8Array(32) });
      expect(again.runsOf("orders", [2n])).toEqual(["rn_a"]);
      again.close();
    }));

  test("finds every key of a run that lies in a file: of more than are handed over at once, and of long ones", () =>
    inFolder(async (folder) => {
      const shape: TableShape = {
        name: "pages",
        columns: [{ name: "path", type: "TEXT" }],
        keyKind: "primary",
        key: [0],
      };
      // The thousand keys from 2,000 on are too long to be handed over together.
      const path = (i: number): string => `${i}${i >= 2_000 && i % 50 === 0 ? "/x".repeat(10_000) : ""}`;
      const changes = Array.from({ length: 3_100 }, (_, i): Change => {
        return { op: "insert", table: "pages", key: [path(i)], origin: "job", after: [path(i)] };
      });
      const writer = await createChanges(join(folder, "work.db"), { runBounded, removeOnClose: true });
      writer.table(shape);
      for (const change of changes) writer.add(change);
      const file = writer.finish();
      const index = await openRowIndex(folder, { random });
      index.indexRun("rn_a", file);
      index.indexRun("rn_b", sourceOf(changeSet([shape], changes)));
      for (let i = 0; i < changes.length; i++)
        if (i % 50 < 2 || i % 1_000 > 997) expect(index.runsOf("pages", [path(i)])).toEqual(["rn_a", "rn_b"]);
      expect(index.runsOf("pages", ["3100"])).toEqual([]);
      index.close();
      file.close();
    }));

  test("holds no table and no key, and nothing of use without its secret", () =>
    inFolder(async (folder) => {
      const index = await openRowIndex(folder, { random });
      index.indexRun("rn_a", sourceOf(ordersSet(gone(77))));
      index.close();
      for (const file of ["rows.db", "rows.secret"])
        expect(lstatSync(join(folder, file)).mode & 0o777).toBe(0o600);
      const sqlite = await loadSqlite();
      const db = new sqlite(join(folder, "rows.db"), { readonly: true });
      const rows = db.prepare("SELECT hex(rows) FROM run_digests").pluck().all();
      db.close();
      expect(rows).toEqual([expect.stringMatching(/^[0-9A-F]{32}$/)]);
      writeFileSync(join(folder, "rows.secret"), "short");
      await expect(openRowIndex(folder, { random })).rejects.toMatchObject({ code: "ERR_STORE_FAILED" });
    }));
});

test("kept trust bundles are what they are named after", () =>
  inFolder(async (folder) => {
    const bundles = openBundles({ bundles: folder });
    const bytes = Buffer.from('{"people":[]}');
    const digest = digestOf(bytes);
    expect(await bundles.find(digest)).toBeNull();
    await expect(bundles.keep(digest, Buffer.from("other"))).rejects.toMatchObject({
      code: "ERR_TRUST_BUNDLE",
    });
    await bundles.keep(digest, bytes);
    await bundles.keep(digest, bytes);
    expect(await bundles.find(digest)).toEqual(bytes);
    writeFileSync(join(folder, readdirSync(folder)[0] ?? ""), "other");
    await expect(bundles.find(digest)).rejects.toMatchObject({ code: "ERR_TRUST_BUNDLE" });
  }));
