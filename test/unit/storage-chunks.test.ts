/** Packs of pages: what is put together is what was cut, pages are stored once, and damage is found. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { destroyChunks, fileFrom, packFile } from "../../src/storage/chunks.js";

const PAGE = 512;
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "holdpoint-chunks-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** A file of pages, each filled with one byte. */
function file(name: string, pages: readonly number[]): string {
  const path = join(dir, name);
  writeFileSync(path, Buffer.concat(pages.map((n) => Buffer.alloc(PAGE, n))));
  return path;
}

const joined = (packs: readonly string[], runs: ReturnType<typeof packFile>["runs"]): Buffer =>
  Buffer.concat([...fileFrom(packs, runs)].map((c) => Buffer.from(c)));

test("a file is the same again, and a page that was there before is not stored again", () => {
  const pages = Array.from({ length: 300 }, (_, i) => i % 200);
  const [first, second] = [
    file("a", pages),
    file(
      "b",
      pages.map((n, i) => (i % 50 === 7 ? 250 : n)),
    ),
  ];
  const [one, two] = [join(dir, "1"), join(dir, "2")];
  const a = packFile(first, one, PAGE, []);
  const b = packFile(second, two, PAGE, [one]);
  expect([a.added, b.added]).toEqual([200, 1]);
  expect(joined([one], a.runs).equals(readFileSync(first))).toBe(true);
  expect(joined([one, two], b.runs).equals(readFileSync(second))).toBe(true);
});

test("every byte of a pack counts", () => {
  const pack = join(dir, "p");
  const { runs } = packFile(file("a", [1, 2, 3]), pack, PAGE, []);
  const good = readFileSync(pack);
  for (let at = 0; at < good.length; at++) {
    const bad = Buffer.from(good);
    bad[at] = (bad[at] ?? 0) ^ 0x10;
    writeFileSync(pack, bad);
    expect(() => joined([pack], runs)).toThrow(expect.objectContaining({ code: "ERR_SNAPSHOT_UNVERIFIED" }));
  }
});

test("destroyed pages are gone from the file, the others keep their place, and none is taken for a destroyed one", () => {
  const pack = join(dir, "p");
  const source = file("a", [65, 66, 67]);
  packFile(source, pack, PAGE, []);
  destroyChunks(pack, new Set([0, 2]));
  expect(
    joined(
      [pack],
      [
        [0, 0, 1],
        [0, 2, 1],
      ],
    ).equals(Buffer.concat([Buffer.alloc(PAGE, 65), Buffer.alloc(PAGE, 67)])),
  ).toBe(true);
  expect(() => joined([pack], [[0, 1, 1]])).toThrow(
    expect.objectContaining({ code: "ERR_SNAPSHOT_UNVERIFIED" }),
  );
  expect(packFile(source, join(dir, "q"), PAGE, [pack]).added).toBe(1);
});
