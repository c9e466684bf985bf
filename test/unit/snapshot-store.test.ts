import {
  copyFileSync,
  lstatSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { allChanges, collect, sourceOf } from "../../src/changeset/source.js";
import { digestOfSource } from "../../src/changeset/encode.js";
import { beforeImages } from "../../src/snapshot/before-images.js";
import { highestLevel, type SnapshotLevel } from "../../src/snapshot/snapshot.js";
import { manifestBytes, manifestDigest, parseManifest } from "../../src/snapshot/manifest.js";
import { createChanges } from "../../src/storage/changes.js";
import { tell } from "../../src/storage/packed.js";
import { openSnapshots, type Snapshots } from "../../src/storage/snapshots.js";
import { type SnapshotDeps, type SnapshotFacts } from "../../src/storage/snapshot-rows.js";
import { runBounded } from "../../src/machine/child.js";
import { changeSetArbitrary } from "../support/changeset-arbitrary.js";
import { born, gone, ordersSet, paid } from "../support/tables.js";
import { inFolder } from "../support/temporary.js";

const facts = (last: string): SnapshotFacts => ({
  id: `sn_000000000000000${last}`,
  level: "rows",
  target: "elb-prod",
  identity: "sqlite:8f1c",
  plan: "pl_0000000000000000",
  run: "rn_0000000000000000",
  takenAt: "2026-11-24T14:38:44Z",
});
const before = sourceOf(ordersSet(paid(1), gone(2), born(3)));

function snapshotsIn(folder: string, more: Partial<SnapshotDeps> = {}): Snapshots {
  let n = 0;
  const workingChanges: SnapshotDeps["workingChanges"] = () =>
    createChanges(join(folder, `work-${n++}.db`), { runBounded, removeOnClose: true });
  return openSnapshots({ snapshots: folder }, { workingChanges, ...more });
}

describe("a snapshot of rows", () => {
  test("keeps the before-images, says so in its manifest, and opens as deletions", () =>
    inFolder(async (folder) => {
      const snapshots = snapshotsIn(folder);
      const { manifest, digest, path } = await snapshots.take(facts("1"), before);
      expect(manifest).toMatchObject({
        ...facts("1"),
        format: "holdpoint-snapshot/1",
        rows: 2,
        tables: before.tables,
      });
      expect(digest).toBe(manifestDigest(manifest));
      expect(lstatSync(path).mode & 0o777).toBe(0o600);
      expect(await snapshots.verify("sn_0", digest)).toEqual({ ok: true, manifest, digest });
      const open = await snapshots.open("sn_0", digest);
      expect([...allChanges(open.source)].map((c) => [c.op, c.key])).toEqual([
        ["delete", [1n]],
        ["delete", [2n]],
      ]);
      open.close();
      expect(readdirSync(folder)).toEqual([`${manifest.id}.hpsnap`]);
      await expect(snapshots.take(facts("1"), before)).rejects.toMatchObject({ code: "ERR_USAGE" });
    }));

  test("law: gives back every row that a change would take away, exactly", () =>
    inFolder((folder) => {
      const snapshots = snapshotsIn(folder);
      return fc.assert(
        fc.asyncProperty(changeSetArbitrary, async (cs) => {
          await snapshots.take(facts("1"), sourceOf(cs));
          const open = await snapshots.open(facts("1").id);
          const kept = beforeImages(sourceOf(cs));
          expect(digestOfSource(open.source).digest).toBe(digestOfSource(kept).digest);
          expect(collect(open.source).changes.length).toBe([...allChanges(kept)].length);
          open.close();
          await snapshots.prune([facts("1").id], () => [], { evenIfNeeded: false });
        }),
        { numRuns: 40 },
      );
    }));

  test("of no rows at all is a snapshot too", () =>
    inFolder(async (folder) => {
      const snapshots = snapshotsIn(folder);
      const { manifest } = await snapshots.take(facts("1"), sourceOf(ordersSet(born(1))));
      expect([manifest.rows, manifest.tables]).toEqual([0, []]);
      expect((await snapshots.verify(manifest.id)).ok).toBe(true);
    }));

  test("law: packed while the changes pass it is the one that is packed from them", () =>
    inFolder((folder) =>
      fc.assert(
        fc.asyncProperty(changeSetArbitrary, async (cs) => {
          const snapshots = snapshotsIn(folder);
          const kept = snapshots.keep();
          tell(sourceOf(cs), kept);
          const one = await snapshots.take(facts("1"), sourceOf(cs), undefined, kept);
          const bytes = readFileSync(one.path);
          await snapshots.prune([facts("1").id], () => [], { evenIfNeeded: false });
          const other = await snapshots.take(facts("1"), sourceOf(cs));
          expect(readFileSync(other.path).equals(bytes)).toBe(true);
          expect(one.digest).toBe(other.digest);
          await snapshots.prune([facts("1").id], () => [], { evenIfNeeded: false });
          expect(readdirSync(folder)).toEqual([]);
        }),
        { numRuns: 30 },
      ),
    ));

  test("what was packed and not used is gone, and what could not be packed is packed when it is needed", () =>
    inFolder(async (folder) => {
      const unused = snapshotsIn(folder).keep();
      tell(before, unused);
      expect(readdirSync(folder).length).toBe(1);
      unused.drop();
      unused.drop();
      expect(readdirSync(folder)).toEqual([]);
      // A folder that is not there refuses like a disk that is full.
      const places = [join(folder, "nowhere", "packed"), join(folder, "packed")];
      const workPath = (): string => places.shift() ?? "";
      const workingChanges = (): never => {
        throw new Error("nothing is opened");
      };
      const snapshots = openSnapshots({ snapshots: folder, workPath }, { workingChanges });
      const refused = snapshots.keep();
      tell(before, refused);
      expect(refused.packed()).toBeNull();
      const { manifest } = await snapshots.take(facts("1"), before, undefined, refused);
      expect(manifest.rows).toBe(2);
      refused.drop();
      expect(readdirSync(folder)).toEqual([`${facts("1").id}.hpsnap`]);
    }));

  const faults: readonly (readonly [string, (path: string) => void])[] = [
    ["loses its end", (path) => truncateSync(path, lstatSync(path).size - 1)],
    ["is emptied", (path) => truncateSync(path, 0)],
    ["has a byte altered", (path) => flip(path, 400)],
  ];
  test.each(faults)("that %s between writing and reading back is no snapshot", (_name, fault) =>
    inFolder(async (folder) => {
      const snapshots = snapshotsIn(folder, { whenWritten: fault });
      await expect(snapshots.take(facts("1"), before)).rejects.toMatchObject({
        code: "ERR_SNAPSHOT_UNVERIFIED",
      });
      expect(readdirSync(folder)).toEqual([]);
    }),
  );

  test("exchanged for another good one between writing and reading back is no snapshot", () =>
    inFolder(async (folder) =>
      inFolder(async (elsewhere) => {
        const other = await snapshotsIn(elsewhere).take(
          facts("1"),
          sourceOf(ordersSet(gone(1, "other"), gone(2))),
        );
        const snapshots = snapshotsIn(folder, { whenWritten: (path) => copyFileSync(other.path, path) });
        await expect(snapshots.take(facts("1"), before)).rejects.toMatchObject({
          code: "ERR_SNAPSHOT_UNVERIFIED",
        });
        const mine = snapshotsIn(folder);
        const { digest } = await mine.take(facts("1"), before);
        copyFileSync(other.path, join(folder, `${facts("1").id}.hpsnap`));
        expect((await mine.verify("sn_0")).ok).toBe(true);
        expect((await mine.verify("sn_0", digest)).ok).toBe(false);
        await expect(mine.open("sn_0", digest)).rejects.toMatchObject({ code: "ERR_SNAPSHOT_UNVERIFIED" });
        expect(readdirSync(folder).length).toBe(1);
      }),
    ));

  test("is listed by its manifest alone, and a manifest of which a byte is flipped is never the one in the ledger", () =>
    inFolder(async (folder) => {
      const snapshots = snapshotsIn(folder);
      const { path, digest, manifest } = await snapshots.take(facts("1"), before);
      const original = readFileSync(path);
      const head = original.indexOf("\n") + 1 + 4 + manifestBytes(manifest).length;
      for (let i = 0; i < head; i++) {
        const bytes = Buffer.from(original);
        bytes[i] = (bytes[i] ?? 0) ^ (1 << (i % 8));
        writeFileSync(path, bytes);
        const [listed] = await snapshots.list();
        const found = listed?.check.ok ? listed.check.digest : null;
        expect([i, found === digest]).toEqual([i, false]);
      }
      writeFileSync(path, original.subarray(0, head - 1));
      expect((await snapshots.list())[0]?.check.ok).toBe(false);
      // Nothing behind the manifest is read: that is what `verify` is for.
      writeFileSync(path, Buffer.concat([original.subarray(0, head), Buffer.alloc(64, 7)]));
      expect((await snapshots.list())[0]?.check).toMatchObject({ ok: true, digest });
      expect((await snapshots.verify("sn_0", digest)).ok).toBe(false);
    }));

  test("that cannot be written is no snapshot", () =>
    inFolder(async (folder) => {
      const snapshots = snapshotsIn(join(folder, "not-there"));
      await expect(snapshots.take(facts("1"), before)).rejects.toMatchObject({
        code: "ERR_SNAPSHOT_UNVERIFIED",
      });
    }));

  test("with any one byte flipped, or cut anywhere, is found", () =>
    inFolder(async (folder) => {
      const snapshots = snapshotsIn(folder);
      const { path } = await snapshots.take(facts("1"), before);
      const original = readFileSync(path);
      for (let i = 0; i < original.length; i++) {
        const bytes = Buffer.from(original);
        bytes[i] = (bytes[i] ?? 0) ^ (1 << (i % 8));
        writeFileSync(path, bytes);
        expect([i, (await snapshots.verify("sn_0")).ok]).toEqual([i, false]);
        writeFileSync(path, original.subarray(0, i));
        expect([i, (await snapshots.verify("sn_0")).ok]).toEqual([i, false]);
      }
      await expect(snapshots.open("sn_0")).rejects.toMatchObject({ code: "ERR_SNAPSHOT_UNVERIFIED" });
      writeFileSync(path, original);
      expect((await snapshots.verify("sn_0")).ok).toBe(true);
    }));

  test("under another's name, or a link, is found", () =>
    inFolder(async (folder) => {
      const snapshots = snapshotsIn(folder);
      const { path } = await snapshots.take(facts("1"), before);
      copyFileSync(path, join(folder, `${facts("2").id}.hpsnap`));
      expect((await snapshots.verify(facts("2").id)).ok).toBe(false);
      symlinkSync(path, join(folder, `${facts("3").id}.hpsnap`));
      expect((await snapshots.verify(facts("3").id)).ok).toBe(false);
      expect((await snapshots.list()).map(({ id, check }) => [id.slice(-1), check.ok])).toEqual([
        ["1", true],
        ["2", false],
        ["3", false],
      ]);
    }));

  test("is found by unique prefix only", () =>
    inFolder(async (folder) => {
      const snapshots = snapshotsIn(folder);
      await snapshots.take(facts("1"), before);
      await snapshots.take(facts("2"), before);
      for (const ref of ["sn_0", "sn_1", "sn_", "", "../x"]) {
        await expect(snapshots.verify(ref)).rejects.toMatchObject({ code: "ERR_SNAPSHOT_UNKNOWN" });
      }
    }));

  test("is not pruned while an undo needs it, unless that is said", () =>
    inFolder(async (folder) => {
      const snapshots = snapshotsIn(folder);
      const [one, two] = [facts("1").id, facts("2").id];
      await snapshots.take(facts("1"), before);
      await snapshots.take(facts("2"), before);
      const neededBy = (id: string): string[] => (id === one ? ["rn_0000000000000000"] : []);
      const first = await snapshots.prune([one, two], neededBy, { evenIfNeeded: false });
      expect(first).toEqual({ removed: [two], kept: [{ id: one, neededBy: ["rn_0000000000000000"] }] });
      expect(readdirSync(folder)).toEqual([`${one}.hpsnap`]);
      await expect(snapshots.prune([two], neededBy, { evenIfNeeded: true })).rejects.toMatchObject({
        code: "ERR_SNAPSHOT_UNKNOWN",
      });
      expect((await snapshots.prune([one], neededBy, { evenIfNeeded: true })).removed).toEqual([one]);
      expect(readdirSync(folder)).toEqual([]);
    }));
});

test("law: a manifest's bytes read back as the manifest, and nothing else does", () =>
  inFolder(async (folder) => {
    const { manifest } = await snapshotsIn(folder).take(facts("1"), before);
    const bytes = Buffer.from(manifestBytes(manifest));
    expect(parseManifest(bytes)).toEqual({ ok: true, manifest });
    const text = bytes.toString("utf8");
    for (const wrong of [
      "",
      "{}",
      `${text} `,
      text.replace('"rows":2', '"rows":-2'),
      text.replace("snapshot/1", "snapshot/2"),
      text.replace('{"content"', '{"a":1,"content"'),
    ]) {
      expect(wrong).not.toBe(text);
      expect(parseManifest(Buffer.from(wrong)).ok).toBe(false);
    }
  }));

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] ?? 0) ^ 0x10;
  writeFileSync(path, bytes);
}

test("of two levels the one that keeps more is taken, whoever asks for it", () => {
  const levels: readonly SnapshotLevel[] = ["rows", "tables", "database"];
  const taken = levels.map((a) => levels.map((b) => highestLevel(a, b)));
  expect(taken).toEqual([
    ["rows", "tables", "database"],
    ["tables", "tables", "database"],
    ["database", "database", "database"],
  ]);
});
