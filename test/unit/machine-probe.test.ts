/** Ways around holdpoint: which variables lead to the same place, and what a file lets this login do. */
import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { fileFacts, variablesNaming } from "../../src/machine/probe.js";

let dir: string;
let file: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "holdpoint-probe-"));
  file = join(dir, "shop.db");
  writeFileSync(file, "");
  symlinkSync(file, join(dir, "link.db"));
});

afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe("a variable that leads to the same file", () => {
  test.each([
    ["a relative sqlite address", () => "sqlite:shop.db"],
    ["an absolute one", () => `sqlite:${file}`],
    ["one with three slashes", () => `sqlite://${file}`],
    ["sqlite3, as some frameworks write it", () => `sqlite3://${file}`],
    ["a file address with options", () => `file:${file}?mode=rwc`],
    ["a bare path", () => file],
    ["a path through a link", () => join(dir, "link.db")],
    ["blanks around it", () => `  ${file} `],
  ])("%s", (_name, value) => {
    expect(variablesNaming({ A: value(), B: "elsewhere" }, "sqlite:shop.db", dir)).toEqual(["A"]);
  });

  test.each([
    ["another file", "sqlite:other.db"],
    ["a word", "shop.db"],
    ["nothing", ""],
    ["the scheme alone", "sqlite:"],
  ])("%s does not", (_name, value) => {
    expect(variablesNaming({ A: value, B: undefined }, "sqlite:shop.db", dir)).toEqual([]);
  });
});

describe("a variable that leads to the same database of a server", () => {
  const target = "postgres://app:secret@DB.example:5432/shop?sslmode=require";
  test.each([
    ["another login and no port", "postgresql://root:other@db.example/shop", true],
    ["the same", target, true],
    ["another database", "postgres://db.example/shop_test", false],
    ["another host", "postgres://localhost/shop", false],
    ["another port", "postgres://db.example:6432/shop", false],
    ["another scheme", "mysql://db.example:5432/shop", false],
    ["no address", "postgres://", false],
  ])("%s: %s", (_name, value, same) => {
    expect(variablesNaming({ DATABASE_URL: value }, target, dir)).toEqual(same ? ["DATABASE_URL"] : []);
  });

  test.each([
    ["host and database", { PGHOST: "db.example", PGDATABASE: "shop" }, ["PGHOST"]],
    ["the login as the database", { PGHOST: "db.example", PGUSER: "shop" }, ["PGHOST"]],
    ["another database", { PGHOST: "db.example", PGDATABASE: "test" }, []],
    ["a socket", { PGHOST: "/run/postgresql", PGDATABASE: "shop" }, []],
    ["no host", { PGDATABASE: "shop" }, []],
  ])("what psql reads: %s", (_name, env, expected) => {
    expect(variablesNaming(env, target, dir)).toEqual(expected);
  });

  test("only names are told", () => {
    expect(JSON.stringify(variablesNaming({ B: target, A: target }, target, dir))).toBe('["A","B"]');
  });
});

describe("a file's facts", () => {
  test("mode, owner, whether it can be written", () => {
    chmodSync(file, 0o640);
    expect(fileFacts(file)).toMatchObject({ mode: 0o640, mine: true, writable: true });
  });

  test("nothing about what is not there", () => {
    expect(fileFacts(join(dir, "none.db"))).toBeNull();
  });
});
