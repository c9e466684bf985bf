/** The system's own pins: read only from a file that root alone can write; anything else closes the gate. */
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { parseSystemPins, readSystemPins } from "../../src/config/system-pins.js";

const BUNDLE = `sha256:${"ab".repeat(32)}`;
const TEXT = `pins:\n  shop-prod: { identity: "sqlite:8f1c", bundle: "${BUNDLE}" }\n`;
const refused = expect.objectContaining({ code: "ERR_TRUST_BUNDLE" });
const asRoot = process.getuid?.() === 0 ? test : test.skip;

let folder: string;
let file: string;
beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), "hp-pins-")), "holdpoint");
  mkdirSync(folder, { mode: 0o755 });
  file = join(folder, "pins.yaml");
  writeFileSync(file, TEXT, { mode: 0o644 });
  chmodSync(file, 0o644);
  chmodSync(folder, 0o755);
});
afterEach(() => rmSync(join(folder, ".."), { recursive: true, force: true }));

describe("the system's pins", () => {
  asRoot("of root are read", async () => {
    await expect(readSystemPins(file)).resolves.toEqual({
      "shop-prod": { identity: "sqlite:8f1c", bundle: BUNDLE },
    });
  });

  test("that are not there are none", async () => {
    await expect(readSystemPins(join(folder, "no", "pins.yaml"))).resolves.toEqual({});
  });

  asRoot.each([
    ["the file belongs to somebody else", () => chownSync(file, 1000, 1000)],
    ["the folder belongs to somebody else", () => chownSync(folder, 1000, 1000)],
    ["others can write the file", () => chmodSync(file, 0o646)],
    ["a group can write the folder", () => chmodSync(folder, 0o775)],
    [
      "the file is a link",
      () => {
        rmSync(file);
        symlinkSync("/etc/hostname", file);
      },
    ],
  ])("refuse when %s", async (_, spoil) => {
    spoil();
    await expect(readSystemPins(file)).rejects.toEqual(refused);
  });

  test("refuse a bundle that is no digest, and keys that nobody knows", () => {
    expect(() => parseSystemPins(`pins:\n  a: { identity: x, bundle: y }\n`, "pins.yaml")).toThrow(refused);
    expect(() => parseSystemPins(`pins: {}\nmore: 1\n`, "pins.yaml")).toThrow();
  });
});
