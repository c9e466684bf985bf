/** How long a variable has been set: told by the variables with which the parent process was started. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { expect, test } from "@jest/globals";
import { partsFromVariables } from "../../src/adapters/postgres/origins.js";
import { addressEvidence } from "../../src/machine/evidence.js";
import { variableAge } from "../../src/machine/inherited.js";

const start = (text: string) => () => text;

test.each([
  ["the parent had the same value", "A=1\0SHOP_URL=sqlite:shop.db\0", "before-parent"],
  ["the parent had another value", "SHOP_URL=sqlite:other.db\0", "since"],
  ["the parent had none", "A=1\0", "since"],
  ["a name that ends like it", "OLD_SHOP_URL=sqlite:shop.db\0", "since"],
  ["a value that begins like it", "SHOP_URL=sqlite:shop.db.bak\0", "since"],
] as const)("%s", (_name, environ, age) => {
  expect(variableAge("SHOP_URL", "sqlite:shop.db", 1, start(environ))).toBe(age);
});

test("bytes beyond ASCII are compared as bytes", () => {
  const environ = Buffer.from("DB=sqlite:größe.db\0", "utf8").toString("latin1");
  expect(variableAge("DB", "sqlite:größe.db", 1, start(environ))).toBe("before-parent");
});

test("where the system keeps nothing, nobody can tell", () => {
  const unreadable = (): string => {
    throw new Error("ENOENT");
  };
  expect(variableAge("A", "1", 1, unreadable)).toBeNull();
});

test("a real child tells what its parent was started with from what was exported since", () => {
  if (!existsSync("/proc/self/environ")) {
    expect(variableAge("A", "1", process.pid)).toBeNull();
    return;
  }
  const script = `import(${JSON.stringify(new URL("../../src/machine/inherited.js", import.meta.url).href)})
    .then((m) => console.log(m.variableAge("OLD", "1", process.ppid), m.variableAge("NEW", "2", process.ppid)))`;
  const shell = spawnSync("sh", ["-c", `NEW=2; export NEW; "${process.execPath}" -e '${script}'; true`], {
    encoding: "utf8",
    env: { PATH: process.env["PATH"] ?? "", OLD: "1" },
  });
  expect(shell.stdout.trim()).toBe("before-parent since");
});

const PG = {
  PGHOST: "db1",
  PGPORT: "6000",
  PGUSER: "ann",
  PGDATABASE: "shop",
  PGPASSWORD: "s",
  PGSSLMODE: "require",
};

test.each([
  ["postgres://", PG, ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSSLMODE"]],
  ["postgres://bob:x@db2:5432/other?sslmode=disable", PG, []],
  ["postgres://db2/other", PG, ["PGPORT", "PGUSER", "PGPASSWORD", "PGSSLMODE"]],
  ["postgres://db2/other", { PGHOST: "db1", PGUSER: "" }, []],
  ["postgres://bob@db2", { PGDATABASE: "shop" }, ["PGDATABASE"]],
] as const)("what %s leaves to the variables is named", (url, env, names) => {
  expect(partsFromVariables(url, env).map((p) => p.variable)).toEqual(names);
});

test.each([
  ["postgres://ann:secret@db1.prod.example:5432/shop", "db1.prod.example/shop", "production"],
  ["postgres://localhost:6432/shop", "localhost/shop", null],
  ["sqlite:/srv/staging/shop.db", "/srv/staging/shop.db", "staging"],
] as const)("the words of %s", (url, detail, says) => {
  expect(addressEvidence(url)).toEqual([
    { source: "address", side: "machine", strength: "none", says, state: "informs", detail },
  ]);
});
