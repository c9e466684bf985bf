/** People's files as a project has them, and the files that init writes. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "@jest/globals";
import { loadConfig } from "../../src/config/config.js";
import { parseGroups, readPeople } from "../../src/config/people-file.js";
import { scaffold, type ScaffoldAnswers } from "../../src/config/scaffold.js";
import { refusal, refusalLine } from "../support/refusal.js";
import { makeKey } from "../support/ssh.js";
import { inFolder } from "../support/temporary.js";

const POLICY = { path: "production.yaml", content: "rules: []\n" };
const answers = (change: Partial<ScaffoldAnswers> = {}): ScaffoldAnswers => ({
  target: { name: "shop-prod", url: "sqlite:shop.db", environment: "production" },
  people: [],
  policies: [POLICY],
  ...change,
});

function write(folder: string, files: ReturnType<typeof scaffold>): void {
  for (const { path, content } of files) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
}

describe("a scaffold", () => {
  test("is a project that reads back, and that ssh-keygen reads", () =>
    inFolder(async (folder) => {
      const [dana, ravi] = ["dana", "ravi"].map((n) => readFileSync(`${makeKey(folder, n)}.pub`, "utf8"));
      const people = [
        { name: "dana", publicKey: dana ?? "" },
        { name: "ravi@shop.example", publicKey: ravi ?? "" },
      ];
      const files = scaffold(answers({ people }));
      expect(files.map((f) => `${f.form} ${f.path}`)).toEqual([
        "file holdpoint.yaml",
        "file policies/production.yaml",
        "file people/allowed_signers",
        "file people/groups.yaml",
        "file jobs/hello.sql",
        "line .gitignore",
      ]);
      write(folder, files);
      const config = await loadConfig(join(folder, "holdpoint.yaml"));
      expect(Object.keys(config.jobs)).toEqual(["hello"]);
      const read = await readPeople(config);
      expect(read.map((p) => p.name)).toEqual(["dana", "ravi@shop.example"]);
      expect(read[0]?.keys[0]?.namespaces).toContain("holdpoint-breakglass");
      writeFileSync(join(folder, "text"), "hello");
      execFileSync(
        "ssh-keygen",
        ["-q", "-Y", "sign", "-n", "holdpoint-approval", "-f", join(folder, "dana"), join(folder, "text")],
        { stdio: "ignore" },
      );
      const found = execFileSync("ssh-keygen", [
        "-Y",
        "find-principals",
        "-f",
        config.people,
        "-s",
        join(folder, "text.sig"),
      ]);
      expect(found.toString().trim()).toBe("dana");
    }));

  test.each(["123", "true", "null", "0x10"])("keeps a target's name %s as text", (name) => {
    const target = { name, url: "${DB_URL}", environment: "staging" as const };
    expect(scaffold(answers({ target }))[0]?.content).toContain("url: ${DB_URL}");
  });

  test.each<[string, Partial<ScaffoldAnswers>, string]>([
    [
      "a target's name with a colon",
      { target: { name: "a: b", url: "sqlite:x", environment: "production" } },
      "ERR_USAGE",
    ],
    ["a blank url", { target: { name: "a", url: " ", environment: "production" } }, "ERR_USAGE"],
    [
      "a url with a password",
      { target: { name: "a", url: "postgres://u:hunter2@h/d", environment: "production" } },
      "ERR_CONFIG_INVALID",
    ],
    ["a person that is a pattern", { people: [{ name: "*", publicKey: "" }] }, "ERR_USAGE"],
    ["two people in one name", { people: [{ name: "a,b", publicKey: "" }] }, "ERR_USAGE"],
    ["a name with a quote", { people: [{ name: 'a"', publicKey: "" }] }, "ERR_USAGE"],
    [
      "a private key",
      { people: [{ name: "a", publicKey: "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n" }] },
      "ERR_USAGE",
    ],
    [
      "several keys in one file",
      { people: [{ name: "a", publicKey: "ssh-ed25519 A\nssh-ed25519 B\n" }] },
      "ERR_USAGE",
    ],
    ["no key at all", { people: [{ name: "a", publicKey: "" }] }, "ERR_PEOPLE_INVALID"],
  ])("refuses %s", async (_, change, code) => {
    const e = await refusal(() => scaffold(answers(change)));
    expect(e.code).toBe(code);
    expect(`${e.message}${e.why ?? ""}`).not.toContain("hunter2");
  });

  test("refuses one key for two people", () =>
    inFolder(async (folder) => {
      const publicKey = readFileSync(`${makeKey(folder, "k")}.pub`, "utf8");
      const people = ["a", "b"].map((name) => ({ name, publicKey }));
      expect((await refusal(() => scaffold(answers({ people })))).code).toBe("ERR_PEOPLE_INVALID");
    }));
});

describe("people's files", () => {
  test.each<[string, string, string]>([
    ["an empty file", "", "people/groups.yaml:1:1 the file is empty"],
    ["an empty group", "groups: { dba: [] }\n", "1:16 groups.dba has no entries"],
    ["a blank member", "groups: { dba: [''] }\n", "1:17 an entry of this list is empty"],
    ["another key", "group: {}\n", '"group" is not a key of this file'],
  ])("%s is refused", async (_, text, wanted) => {
    const e = await refusal(() => parseGroups(text, "people/groups.yaml"));
    expect(e.code).toBe("ERR_PEOPLE_INVALID");
    expect(`${e.message} ${e.why ?? ""}`).toContain(wanted);
  });

  test("a missing file is no empty one", () =>
    inFolder(async (folder) => {
      const places = {
        root: folder,
        people: join(folder, "people/s"),
        groups: join(folder, "people/groups.yaml"),
      };
      const missing = "ERR_PEOPLE_INVALID there is no people/s | a missing file is no empty one";
      expect(await refusalLine(() => readPeople(places))).toBe(missing);
      mkdirSync(join(folder, "people"));
      writeFileSync(places.people, "");
      expect(await refusalLine(() => readPeople(places))).toContain("there is no people/groups.yaml");
      writeFileSync(places.groups, "groups: { dba: [nobody] }\n");
      expect((await refusal(() => readPeople(places))).code).toBe("ERR_PEOPLE_INVALID");
      writeFileSync(places.groups, Buffer.from([0xff]));
      expect(await refusalLine(() => readPeople(places))).toContain("is not UTF-8 text");
    }));
});
